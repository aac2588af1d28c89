"""The examples of docs/rewards.md are run as a reader would run them."""

import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from rewards.options import RewardOptions
from rewards.registry import REGISTERED, resolve
from tests.documentation import blocks

PAGE = "docs/rewards.md"


def test_there_are_examples_to_run():
    assert len(blocks(PAGE, "python")) == 4
    assert len(blocks(PAGE, "yaml")) == 6


@pytest.mark.parametrize("code", blocks(PAGE, "python"))
def test_python_examples_run(code):
    exec(compile(code, PAGE, "exec"), {})


@pytest.mark.parametrize("text", blocks(PAGE, "yaml"))
def test_configurations_are_valid_and_name_real_functions(text):
    reward = yaml.safe_load(text)["reward"]
    options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RewardOptions), reward))
    for term in options.terms.values():
        if not term.function.startswith("my_package."):
            assert callable(resolve(term.function))


def test_the_table_of_ranges_and_hacks_has_every_reward_once():
    section = Path(PAGE).read_text().partition("## Ranges, costs and hacks")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(named) == sorted(REGISTERED)
    assert all(len(row) == 5 and all(cell.strip() for cell in row) for row in rows)
