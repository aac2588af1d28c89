"""A value is recorded as it was given, or refused: nothing becomes another one on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from configs.compose import GROUPS, PACKAGE, compose, recompose
from configs.errors import ConfigError
from configs.values import check_values
from rl.api.configuration import changed
from rollout.options import DenoisingOptions


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("run.resume=7", "run.resume=7 is not possible: expected true or false"),
        ("run.resume=0.5", "run.resume=0.5 is not possible: expected true or false"),
        ("run.name=true", "run.name=true is read as True, and its text would be another one: quote it"),
        ("run.name=1_000", "run.name=1_000 is read as 1000, and its text would be another one"),
        ("model.path=12e456", "model.path=12e456 is read as inf, and its text would be another one"),  # a commit
        ("data={train: {name: 1e3}}", "data.train.name=1000.0 is read as 1000.0"),
        ("model.lora.target_modules=[q_proj,true]", "model.lora.target_modules[1]=True is read as True"),
    ],
)
def test_what_would_be_another_value_is_refused(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["recipe=quickstart", override])
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ["0.5", "17", "007", "'true'", '"1e3"', "mine"])
def test_what_is_the_same_text_is_taken(name: str) -> None:
    assert compose(["recipe=quickstart", f"run.name={name}"]).config.run.name == name.strip("'\"")


def test_files_too(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    for where, text in [("recipe/mine.yaml", "run: {resume: 7}"), ("kept.yaml", "run: {name: 1e3}")]:
        (tmp_path / where).write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(ConfigError, match=r"recipe/mine.yaml: run.resume=7 is not possible"):
        compose(["recipe=mine"], tmp_path)
    with pytest.raises(ConfigError, match=r"kept.yaml: run.name=1000.0 is read as 1000.0"):
        recompose(tmp_path / "kept.yaml", [])
    (tmp_path / "recipe/mine.yaml").unlink()
    (tmp_path / "config.yaml").write_text("run: {resume: 7}")  # is read by nobody
    assert compose(["recipe=quickstart"], tmp_path).config.run.resume
    (tmp_path / "rollout").mkdir()
    (tmp_path / "rollout/mine.yaml").write_text("denoising: {same_noise: 2}\n")
    with pytest.raises(ConfigError, match=r"rollout/mine.yaml: rollout.denoising.same_noise=2"):
        compose(["recipe=quickstart", "rollout=mine"], tmp_path)


def test_sections_out_of_mappings_too() -> None:
    with pytest.raises(ConfigError, match="same_noise=2 is not possible"):
        changed(DenoisingOptions(), {"same_noise": 2}, "sampler")


def test_packaged_files_say_what_they_mean() -> None:
    """They are not checked at every start."""
    for file in PACKAGE.rglob("*.yaml"):
        tree = yaml.load(file.read_text(), yaml.CSafeLoader) or {}
        tree.pop("defaults", None)
        if file.parent.name in GROUPS and "@package _global_" not in file.read_text():
            tree = {file.parent.name: tree}
        check_values(tree)
