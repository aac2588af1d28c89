"""`denoiserl score` on files of texts and pictures: the numbers, what is written beside them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from typer.testing import CliRunner

from rl.cli import app
from rl.data.completions import completions_of
from rl.data.rows import DataError

ROWS: list[dict[str, Any]] = [
    {"prompt": "1 + 1?", "completion": "It is 2.", "answer": "2", "label": 5},
    {"prompt": "1 + 1?", "completion": "It is 3.", "answer": "2", "label": 1},
    {"prompt": "2 + 2?", "completion": r"\boxed{4}", "answer": "4", "label": 4},
    {"prompt": "2 + 2?", "completion": "who knows", "answer": "4", "label": None},
    {"prompt": "3 + 3?", "completion": "6", "answer": "((((", "label": 3},
]


def score(*arguments: Any, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["score", *map(str, arguments)], terminal_width=100)
    if code == 0:
        assert result.exception is None, result.exception
        return result.output
    assert result.exception is not None
    return str(result.exception)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_are_written_with_their_scores_and_why_there_is_none(texts: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"scored{suffix}"
    said = score(texts, "reward=math", "reward.max_failed_fraction=1", "--labels", "label", "--output", output)
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in output.read_text().splitlines()]
    else:
        rows = pyarrow.parquet.read_table(output).to_pylist()
    assert [row["reward"] for row in rows] == [1.0, 0.0, 1.0, 0.0, None]
    assert [row["status/answer"] for row in rows] == ["ok"] * 4 + ["error"]
    assert [{name: row[name] for name in ROWS[0]} for row in rows] == ROWS
    assert rows[0]["why"] == ""
    assert "malformed" in rows[3]["why"]
    assert "exception" in rows[4]["why"]
    assert "5 rows, 3 groups" in said
    assert "agreement with label" in said
    assert f"written to {output}" in said.replace("\n", "")


def test_too_many_without_a_score_are_an_error_after_the_rest_is_written(texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "scored.jsonl"
    message = score(texts, "reward=math", "--output", output, code=1)
    assert "1 of 5 samples of" in message
    assert "more than reward.max_failed_fraction=0.05; first: answer: exception" in message
    assert len(output.read_text().splitlines()) == 5
    assert "exists: choose another place, or add --overwrite" in score(texts, "reward=math", "--output", output, code=1)


def test_a_folder_of_pictures_is_scored_with_its_metadata(tmp_path: Path) -> None:
    for name, value in (("a.png", 0), ("b.png", 255)):
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(tmp_path / name)
    assert "2 rows, 2 groups" in score(tmp_path, "reward.terms.light.function=brightness")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "b.png", "prompt": "white"}\n')
    assert "1.000" in score(tmp_path, "reward.terms.light.function=brightness")


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ('{"a": 1}\n', [], "has only a: say with --column which one"),
        ('{"completion": "a", "image": "b"}\n', [], "has both completion and image: say with --column"),
        ('{"completion": "a"}\n', ["--column", "text"], "has no column 'text'; it has completion"),
        ('{"completion": "a"}\n{"completion": "b", "x": 1}\n', [], "row 1 has the columns completion, x, and row 0 "),
        ("", [], "has no rows"),
        ('{"completion": 3, "answer": "3"}\n', [], "row 0: the column 'completion' holds 3, and a text is expected"),
        ('{"completion": "3", "answer": "3", "l": "x"}\n', ["--labels", "l"], "row 0: the label in 'l' is 'x'"),
        ('{"completion": "3", "answer": "3"}\n', ["--labels", "l"], "--labels l: .* has no such column"),
        ('{"completion": "3"}\n', [], "1 of 1 samples .* answer: exception"),
        ('{"completion": "3", "answer": "3"}\n', ["--output", "x.csv"], "must end in .jsonl or .parquet"),
        ('{"completion": "3", "answer": "3", "l": "inf"}\n', ["--labels", "l"], "row 0: the label in 'l' is 'inf'"),
        ('{"completion": "3", "reward": "3"}\n', ["--output", "x.jsonl"], "have a column 'reward', and scores are"),
        ('{"completion": "3", "answer": "3"}\n', ["--output", "no/x.jsonl"], "no is no folder that this user can"),
        ('{"completion": "3", "a": 1}\n{"completion": "3", "a": "x"}\n', ["--output", "x.parquet"], "as Parquet"),
        ('{"image": "a.png"}\n', ["--column", "image"], "cannot be read"),
        ('{"completion": "a"}\n{"completion": null}\n', [], "row 1: the column 'completion' holds None"),
        (
            '{"completion": "a", "group": 1}\n{"completion": "a", "group": 2}\n{"completion": "a", "group": 1}\n',
            [],
            "row 2: rows of the group 1 stand apart",
        ),
        (
            '{"completion": "a"}\n',
            ["reward.terms.light.function=brightness"],
            "light: brightness scores completions of kind image, and the column 'completion' holds those of kind text",
        ),
        ('{"completion": "a"}\n', ["reward.terms.j.function=judge"], "terms.j asks the judge that a run serves"),
    ],
)
def test_what_cannot_be_scored_is_refused(tmp_path: Path, text: str, arguments: list[str], message: str) -> None:
    import re

    (tmp_path / "rows.jsonl").write_text(text)
    said = score(tmp_path / "rows.jsonl", "reward=math", *arguments, code=1)
    assert re.search(message, said), said


def test_groups_are_neighbours_of_one_prompt_and_stay_whole(texts: Path, tmp_path: Path) -> None:
    found = completions_of(texts)
    assert found.groups == [0, 0, 1, 1, 2]
    assert list(found.batches(1)) == [range(2), range(2, 4), range(4, 5)]
    assert list(found.batches(3)) == [range(4), range(4, 5)]
    assert found.request(range(2, 4)).groups == [1, 1]
    (tmp_path / "grouped.jsonl").write_text(
        '{"completion": "a", "group": 1}\n' * 2 + '{"completion": "a", "group": 0}\n'
    )
    assert completions_of(tmp_path / "grouped.jsonl").groups == [0, 0, 1]
    with pytest.raises(DataError, match="cannot read"):
        completions_of(tmp_path / "missing.jsonl")


def test_rows_without_a_prompt_are_no_group(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"completion": "a", "prompt": null}\n' * 2)
    assert completions_of(tmp_path / "rows.jsonl").groups == [0, 1]


def test_what_utf_8_or_json_has_not_is_written_or_refused_before_anything_is_scored(tmp_path: Path) -> None:
    path, output = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    row = {"completion": "It is 2. \ud800", "answer": "2", "note": "π"}
    path.write_text(json.dumps(row) + "\n")
    score(path, "reward=math", "--output", output)
    assert {name: json.loads(output.read_text())[name] for name in row} == row
    table = pyarrow.Table.from_pylist([{**ROWS[0], "key": b"\xff"}])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    message = score(tmp_path / "rows.parquet", "reward=math", "--output", tmp_path / "other.jsonl", code=1)
    assert "row 0 cannot be written as JSON" in message
    assert "name the --output .parquet" in message


def test_the_reward_of_a_run_asks_for_no_variable_of_its_other_options(texts: Path, tmp_path: Path) -> None:
    kept = "model: {path: '${oc.env:NOBODY_SET_THIS}'}\nrun: {name: x}\ndata: {train: {name: x}}\n"
    (tmp_path / "config.yaml").write_text(
        kept + "reward: {terms: {answer: {function: math}}, max_failed_fraction: 1}\n"
    )
    assert "5 rows, 3 groups" in score(texts, "--run", tmp_path)
