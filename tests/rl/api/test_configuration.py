from __future__ import annotations

from pathlib import Path

import pytest

from configs.algorithm_options import AdvantageKind, AlgorithmOptions, ObjectiveKind
from configs.errors import ConfigError
from configs.schema import Config
from rl import compose, problems
from rl.api.configuration import algorithm_options, changed, composed_of
from rollout.options import SamplerOptions

RECIPE = "# @package _global_\ndefaults:\n  - quickstart\n  - _self_\nrun:\n  name: mine\n"


def test_from_a_recipe_a_kept_file_a_recipe_file_and_words_alone(tmp_path: Path):
    composed = compose("quickstart", "run.updates=5", "algorithm=dipo")
    assert (composed.config.run.updates, composed.config.run.name) == (5, "quickstart")
    assert "configs/algorithm/dipo.yaml" in composed.sources

    kept = tmp_path / "config.yaml"
    kept.write_text(composed.yaml)
    again = compose(kept, "run.updates=6")
    assert again.yaml == composed.yaml.replace("updates: 5", "updates: 6")

    (tmp_path / "recipe").mkdir()
    own = tmp_path / "recipe" / "mine.yaml"
    own.write_text(RECIPE)
    assert compose(own, "run.seed=3").config.run.name == "mine"
    assert compose("mine", config_dir=tmp_path).config.run.name == "mine"

    words = compose("model=tiny_block", "data=mini_sudoku", "reward=reasoning_gym", "run.name=words")
    assert words.config.model.path == "tiny/block"


def test_what_is_wrong_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="did you mean quickstart"):
        compose("quickstrat")
    with pytest.raises(ConfigError, match="no such file"):
        compose("missing.yaml")
    with pytest.raises(ConfigError, match=r"did you mean run\.updates"):
        compose("quickstart", "run.updatse=1")
    stray = tmp_path / "mine.yaml"
    stray.write_text(RECIPE)
    with pytest.raises(ConfigError, match="folder called recipe"):
        compose(stray)
    with pytest.raises(ConfigError, match=r"rl.compose makes one"):
        composed_of(3)  # type: ignore[arg-type]


def test_options_of_an_algorithm_in_every_form():
    config = compose("quickstart", "algorithm.advantage=centred")
    assert algorithm_options(config).advantage is AdvantageKind.centred
    assert algorithm_options(config.config) is config.config.algorithm
    assert algorithm_options("wd1").objective is ObjectiveKind.weighted
    assert algorithm_options({"advantage": "raw", "kl": {"coefficient": 0.1}}).kl.coefficient == 0.1
    assert algorithm_options(None) == AlgorithmOptions()
    with pytest.raises(ConfigError, match="algorithm=dippo does not exist; did you mean dipo"):
        algorithm_options("dippo")
    with pytest.raises(ConfigError, match="options of options: likelihood, ratio"):
        algorithm_options({"advantages": "raw"})
    with pytest.raises(ConfigError, match="not int"):
        changed(SamplerOptions(), 3, "sampler")  # type: ignore[arg-type]


def test_problems_of_both_splits():
    config = compose("quickstart")
    assert len(problems(config, "train")) == 20000 or len(problems(config, "train")) > 100
    three = problems(config, count=3)
    assert [problem.id for problem in three] == [f"mini_sudoku/{index}" for index in range(3)]
    assert "entry" in three[0].columns
    with pytest.raises(ValueError, match="train and evaluation"):
        problems(config, "test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no held-out problems"):
        problems(Config())
    with pytest.raises(ValueError, match="count=0"):
        problems(config, count=0)
