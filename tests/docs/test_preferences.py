"""docs/preferences.md: its configurations compose, its rows are what they read. Its other commands:
test_pairs.py and test_ppd.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from configs.compose import compose
from configs.schema import SourceOptions
from rl.data.problems import open_source
from tests.documentation import blocks, commands, run_command

PAGE = "docs/preferences.md"
CONFIGURATIONS = [
    command for command in commands(PAGE) if command.startswith(("denoiserl config ", "denoiserl train "))
]


@pytest.mark.parametrize("command", CONFIGURATIONS)
def test_configurations_compose(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run_command(command.replace(" train ", " config "), monkeypatch, capsys)
    train = OmegaConf.create(shown).data.train
    assert [train.chosen is None, train.rejected is None] == [train.chosen_image is not None] * 2


def test_there_is_one_for_each_kind_of_pair() -> None:
    assert len(CONFIGURATIONS) == 4
    assert len(commands(PAGE)) == 9


@pytest.mark.parametrize(("block", "data"), enumerate(("pairs_jsonl", "image_pairs_jsonl", "image_pairs_jsonl")))
def test_rows_are_read_by_the_packaged_files(tmp_path: Path, block: int, data: str) -> None:
    text = blocks(PAGE, "json")[block]
    (tmp_path / "pairs.jsonl").write_text(text)
    overrides = ["recipe=quickstart", f"data={data}", f"data.train.name={tmp_path / 'pairs.jsonl'}"]
    options: SourceOptions = compose([*overrides, "data.evaluation=null"]).config.data.train
    problem, row = open_source(options)[0], json.loads(text)
    assert problem.prompt == row["prompt"]
    images = tuple(tmp_path / row[name] for name in ("chosen", "rejected"))
    texts = (row["chosen"], row["rejected"])
    assert (problem.responses, problem.images) == (((), images) if options.chosen_image else (texts, ()))
