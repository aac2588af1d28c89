"""What a run has written stays, wherever a resume goes over it again and however a crash cut it off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.errors import UserError
from rl.run.lines import Lines, set_aside


def write(path: Path, updates: range, end: str = "") -> None:
    path.write_text("".join(json.dumps({"update": u, "x": u * u}) + "\n" for u in updates) + end)


def test_rows_behind_the_checkpoint_move_aside(tmp_path: Path) -> None:
    path = tmp_path / "failures.jsonl"
    write(path, range(5))
    lines = Lines(path, 2)
    assert [row["update"] for row in lines.rows] == [0, 1, 2]
    assert lines.repaired is None
    lines.write({"update": 3, "x": -1})
    again = Lines(path, 2)
    assert [row["update"] for row in again.rows] == [0, 1, 2]
    aside = [json.loads(line) for line in (tmp_path / "superseded/failures.jsonl").read_text().splitlines()]
    assert aside == [{"update": 3, "x": 9}, {"update": 4, "x": 16}, {"update": 3, "x": -1}]


def test_a_torn_end_is_repaired_said_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    write(path, range(2), end='{"update": 2, "x')
    lines = Lines(path, 10)
    assert lines.repaired is not None
    assert "evaluations.jsonl: a crash cut its last line off" in lines.repaired
    assert path.read_text().endswith("}\n")
    assert (tmp_path / "superseded/evaluations.jsonl").read_text() == '{"update": 2, "x\n'
    lines.write({"update": 2})
    assert [row["update"] for row in Lines(path, 10).rows] == [0, 1, 2]


@pytest.mark.parametrize("line", ["{broken", "[1]", '{"step": 3}', '{"update": "3"}'])
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "failures.jsonl"
    write(path, range(2))
    path.write_text(path.read_text() + line + "\n" + '{"update": 3}\n')
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"failures\.jsonl, line 3: no"):
        Lines(path, 10)
    assert path.read_bytes() == before


def test_trajectories_of_updates_that_come_again_move_aside(tmp_path: Path) -> None:
    folder = tmp_path / "trajectories"
    for _ in range(2):
        folder.mkdir(exist_ok=True)
        for update in range(3):
            (folder / f"u{update:06d}.parquet").write_text(str(update))
        set_aside(tmp_path, 1)
        assert [path.name for path in folder.iterdir()] == ["u000000.parquet"]
    aside = sorted(path.name for path in (tmp_path / "superseded/trajectories").iterdir())
    assert aside == ["u000001.1.parquet", "u000001.parquet", "u000002.1.parquet", "u000002.parquet"]
