"""docs/data.md: each row is read by the command below it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from configs.compose import compose
from rl.compatibility.data import data_problems
from rl.data.problems import open_source
from tests.documentation import blocks, commands

PAGE = "docs/data.md"
EXAMPLES = list(zip(blocks(PAGE, "json"), commands(PAGE), strict=True))
SKY, ANSWER = "Why is the sky blue?", "Air scatters blue light."
FOUND = [
    (f"system: Be brief.\n\nuser: {SKY}",),
    (SKY, ANSWER),
    (SKY, ANSWER),
    ("1 + 1 =", "2", "3"),
    ("1 + 1 =", "2", "3"),
]


@pytest.mark.parametrize(("row", "command", "found"), [(*one, f) for one, f in zip(EXAMPLES, FOUND, strict=True)])
def test_rows_are_read_by_the_command_below_them(row: str, command: str, found: tuple, tmp_path: Path) -> None:
    config = compose(shlex.split(command)[2:]).config
    assert list(data_problems(config)) == []
    (tmp_path / "a.jsonl").write_text(json.dumps(json.loads(row)))
    config.data.train.name = str(tmp_path / "a.jsonl")
    problem = open_source(config.data.train, answers=config.algorithm.advantage.offline)[0]
    assert (problem.prompt, *problem.responses) == found
    assert problem.conversation is not None
