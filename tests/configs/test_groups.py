"""Every YAML file: it says only what differs from the schema, and its templates render real rows.

That each composes into a run that can work is shown by tests/rl/compatibility/test_shipped.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import reasoning_gym
import yaml
from omegaconf import OmegaConf

from configs.compose import GROUPS, PACKAGE, compose
from configs.schema import Config, SourceKind

FILES = [file for group in GROUPS for file in sorted((PACKAGE / group).glob("*.yaml"))]


def label(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("file", FILES, ids=label)
def test_starts_with_a_comment_and_repeats_no_default(file: Path) -> None:
    text = file.read_text()
    assert text.startswith("#")
    assert text.endswith("\n")
    tree = yaml.safe_load(text)
    tree.pop("defaults", None)
    prefix = "" if text.startswith("# @package _global_") else f"{file.parent.name}."
    defaults = OmegaConf.structured(Config)
    for path, value in leaves(tree, prefix):
        try:
            default = OmegaConf.select(defaults, path, default="no default")
        except Exception as error:  # a path through a null section
            raise AssertionError(path) from error
        if value is None and path.partition(".")[0] != file.parent.name:
            continue  # unsets what a file of another group may have set
        assert str(getattr(default, "name", default)) != str(value), f"{path} repeats its default"


@pytest.mark.parametrize("name", ["mini_sudoku", "countdown", "chain_sum"])
def test_reasoning_gym_templates_render_the_tasks_rows(name: str) -> None:
    data = compose(["recipe=quickstart", f"data={name}"]).config.data
    assert data.train.kind is SourceKind.reasoning_gym
    row = reasoning_gym.create_dataset(data.train.name, size=1, seed=0, **data.train.args)[0]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    prompt = environment.from_string(data.train.prompt).render(row)
    expected = {
        "mini_sudoku": "_ _ 2 _\n_ 4 _ 1\n4 3 _ _\n_ _ _ _",
        "countdown": "66 34 98 54 6 = 164",
        "chain_sum": "1663 - 5242 - 9376 - 8961 + 7634 =",
    }
    assert prompt == expected[name]
    assert data.train.response is not None
    response = environment.from_string(data.train.response).render(row)
    assert reasoning_gym.create_dataset(data.train.name, size=1, seed=0).score_answer(response, row) == 1.0


def test_gsm8k_response_has_no_calculator_notes_and_boxes_the_answer() -> None:
    source = compose(["recipe=llada_8b_gsm8k"]).config.data.train
    row = {"question": "How many?", "answer": "Half is 48/2 = <<48/2=24>>24.\nAll is 48+24 = <<48+24=72>>72.\n#### 72"}
    assert source.response is not None
    assert jinja2.Template(source.response).render(row) == "Half is 48/2 = 24.\nAll is 48+24 = 72.\n\\boxed{72}"
    assert jinja2.Template(source.prompt).render(row).endswith("within \\boxed{}.")
