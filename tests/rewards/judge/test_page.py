"""The configurations of docs/judges.md can be run as they stand, on the quickstart's data."""

from pathlib import Path

import pytest
import yaml

from configs.compose import compose
from rewards.registry import check_columns
from rl.compatibility import problems
from tests.documentation import blocks

PAGE = "docs/judges.md"


def test_there_are_examples():
    assert len(blocks(PAGE, "yaml")) == 3


@pytest.mark.parametrize("text", blocks(PAGE, "yaml"))
def test_configurations_fit_together(text, tmp_path: Path):
    mine = {**yaml.safe_load(text)}
    mine["reward"] = {**mine["reward"], "solved_at": None}
    mine["reward"]["terms"]["answer"] = None
    file = tmp_path / "recipe/mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\ndefaults: [quickstart]\n" + yaml.safe_dump(mine))
    config = compose(["recipe=mine"], tmp_path).config
    assert problems(config, None) == []
    for name, term in config.reward.terms.items():
        check_columns(name, term, ["entry", "answer"])
