"""Composition: which value wins, one worded error for each kind of mistake, nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from configs.algorithm_options import Denominator
from configs.compose import compose, recompose
from configs.environment import check_environment
from configs.errors import ConfigError, UserError
from configs.schema import Config
from models.options import LoraOptions


def recipe_folder(root: Path, text: str, name: str = "mine") -> Path:
    (root / "recipe").mkdir(parents=True, exist_ok=True)
    (root / "recipe" / f"{name}.yaml").write_text(text)
    return root


def test_typed_values_all_the_way_down() -> None:
    config = compose(["recipe=quickstart"]).config
    assert isinstance(config, Config)
    assert config.algorithm.denominator is Denominator.step
    assert config.reward.terms["answer"].args == {"strict": True}
    assert config.data.evaluation is not None
    assert config.data.evaluation.prompt == config.data.train.prompt


def test_explicit_values_win_over_the_recipe_and_the_recipe_over_its_groups() -> None:
    assert compose(["recipe=quickstart"]).config.algorithm.optimizer.learning_rate == 3e-4  # the recipe's own
    overridden = compose(["algorithm.optimizer.learning_rate=0.5", "recipe=quickstart"]).config
    assert overridden.algorithm.optimizer.learning_rate == 0.5


@pytest.mark.parametrize(
    "overrides", [["recipe=quickstart", "algorithm=dipo"], ["algorithm=dipo", "recipe=quickstart"]]
)
def test_a_chosen_group_wins_over_the_recipes_choice(overrides: list[str]) -> None:
    assert compose(["recipe=quickstart"]).config.algorithm.clip_high is None
    assert compose(overrides).config.algorithm.clip_high == 0.28


def test_the_last_of_two_overrides_wins() -> None:
    assert compose(["recipe=quickstart", "run.seed=1", "run.seed=2"]).config.run.seed == 2
    assert compose(["recipe=quickstart", "model=tiny_block", "model=tiny_full"]).config.model.path == "tiny/full"


def test_setting_one_option_of_a_null_section_opens_it_with_its_defaults() -> None:
    assert compose(["recipe=quickstart"]).config.model.lora is None
    assert compose(["recipe=quickstart", "model.lora.rank=4"]).config.model.lora == LoraOptions(rank=4)
    assert compose(["recipe=quickstart", "data.evaluation=null"]).config.data.evaluation is None


def test_mappings_take_new_names() -> None:
    overrides = [
        "reward.terms.length.function=my.module.short",
        "reward.terms.length.weight=0.1",
        "data.train.args.min_empty=4",
    ]
    config = compose(["recipe=quickstart", *overrides]).config
    assert config.reward.terms["length"].weight == 0.1
    assert set(config.reward.terms) == {"answer", "length"}
    assert config.data.train.args == {"min_empty": 4}
    assert config.data.evaluation is not None
    assert config.data.evaluation.args == {"min_empty": 4}


def test_quoted_values_keep_their_braces() -> None:
    config = compose(["recipe=quickstart", 'data.train.prompt="{{ question }} = ?"']).config
    assert config.data.train.prompt == "{{ question }} = ?"


def test_sources_are_the_files_that_took_part_in_order() -> None:
    sources = compose(["recipe=quickstart", "algorithm=dipo"]).sources
    assert sources == [
        "configs/config.yaml",
        "configs/model/tiny_block.yaml",
        "configs/algorithm/dipo.yaml",
        "configs/reward/reasoning_gym.yaml",
        "configs/data/mini_sudoku.yaml",
        "configs/rollout/tiny.yaml",
        "configs/cluster/local.yaml",
        "configs/recipe/quickstart.yaml",
    ]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = compose(["recipe=quickstart"])
    with pytest.raises(ConfigError):
        compose(["recipe=quickstart", "run.updates=many"])
    with pytest.raises(ConfigError):
        compose(["recipe=mine"], recipe_folder(tmp_path / "own", "not a recipe: {"))
    assert compose(["recipe=quickstart"]) == first
    assert not GlobalHydra.instance().is_initialized()
    assert os.listdir(tmp_path) == ["own"]
    assert Path.cwd() == tmp_path


def test_own_recipe_builds_on_a_packaged_one(tmp_path: Path) -> None:
    text = """# @package _global_
defaults:
  - quickstart
  - override /model: tiny_full
  - override /data: ours
  - _self_
run: {name: mine}
"""
    folder = recipe_folder(tmp_path / "with space, comma", text)
    (folder / "data").mkdir()
    (folder / "data" / "ours.yaml").write_text("train: {kind: file, name: ours.jsonl}\n")
    composed = compose(["recipe=mine"], folder)
    assert composed.config.run.name == "mine"
    assert composed.config.model.path == "tiny/full"
    assert composed.config.data.train.name == "ours.jsonl"
    assert composed.sources[-2:] == ["configs/recipe/quickstart.yaml", str(folder / "recipe" / "mine.yaml")]


def error_of(overrides: list[str], config_dir: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(overrides, config_dir)
    assert isinstance(caught.value, UserError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("algorithm.clop=1", "algorithm.clop does not exist; did you mean algorithm.clip?"),
        ("algorithm.optimiser.eps=1", "algorithm.optimiser does not exist; did you mean algorithm.optimizer?"),
        ("learning_rate=1", "learning_rate does not exist; did you mean algorithm.optimizer.learning_rate?"),
        ("temperature=1", "did you mean rollout.sampler.temperature?"),
        ("algorithm.xyz=1", "options of algorithm: likelihood, ratio, objective"),
        ("reward.terms.answer.wait=1", "did you mean reward.terms.answer.weight?"),
        ("algorithm.clip.low=1", "algorithm.clip is a number and has no options below it"),
        ("colour=red", "sections: model, algorithm, reward, judge, data, rollout, evaluation, cluster, run"),
        ("hydra.verbose=true", "hydra does not exist"),
    ],
)
def test_unknown_option(override: str, expected: str) -> None:
    assert expected in error_of(["recipe=quickstart", override])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("algorithm.clip=wide", "algorithm.clip=wide is not possible: expected a number"),
        ("run.updates=1.5", "run.updates=1.5 is not possible: expected a whole number"),
        ("run.resume=perhaps", "run.resume=perhaps is not possible: expected true or false"),
        ("run.name=null", "run.name=null is not possible: expected text"),
        ("data.train.size=lots", "data.train.size=lots is not possible: expected a whole number or null"),
        (
            "algorithm.ratio=word",
            "algorithm.ratio=word is not possible: expected one of element, step, sequence, guard, none",
        ),
        ("rollout.sampler.cache=all", "expected one of none, block or null"),
        ("algorithm.optimizer.betas=[a,b]", "algorithm.optimizer.betas[0]=a is not possible: expected a number"),
        ("algorithm.optimizer=adam", "algorithm.optimizer=adam is not possible: expected a section with the options"),
        ("reward.terms.answer=math", "reward.terms.answer=math is not possible: expected a section with the options"),
        ("model.lora={rank: large}", "model.lora.rank=large is not possible: expected a whole number"),
        ("model={path: null}", "model.path=null is not possible: expected text"),
        ("model={depth: 3}", "model.depth does not exist"),
    ],
)
def test_wrong_type(override: str, expected: str) -> None:
    assert expected in error_of(["recipe=quickstart", override])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["recipe=quikstart"], "recipe=quikstart does not exist; did you mean quickstart?"),
        (["recipe=quickstart", "algorithm=ppo"], "files of algorithm: agrpo, align_prop, anchored_coupled"),
        (["recipe=quickstart", "model=7"], "model=7 does not exist"),
        (["recipe=quickstart", "algorithm=null"], "algorithm=null does not exist"),
        (["recipe=quickstart", "optimizer=adam"], "did you mean algorithm.optimizer?"),
    ],
)
def test_unknown_group_or_file(overrides: list[str], expected: str) -> None:
    assert expected in error_of(overrides)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("quickstart", "cannot read 'quickstart': expected key=value; did you mean recipe=quickstart?"),
        ("run.name", "cannot read 'run.name': expected key=value"),
        ("data.train.prompt={{ q }}", """'data.train.prompt="{{ q }}"'"""),
        ("run.seed=1,2", "a list is written run.seed=[1,2]"),
        ("+run.seed=1", "without +, ~ or @"),
        ("~run.seed", "without +, ~ or @"),
        ("algorithm.clip=${algorithm.clap}", "algorithm.clip cannot be resolved: Interpolation key 'algorithm.clap'"),
    ],
)
def test_malformed_override(override: str, expected: str) -> None:
    assert expected in error_of(["recipe=quickstart", override])


def test_missing_values_are_named_together_with_where_to_get_them() -> None:
    message = error_of([])
    assert "model.path has no value; set model.path=... or choose a file: model={" in message
    assert "run.name has no value; set run.name=... or choose a file: recipe={" in message
    assert "data.train.name has no value" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("algorithm: {clip: wide}", "in recipe/mine.yaml: algorithm.clip=wide is not possible: expected a number"),
        ("algorithm: {clop: 1}", "in recipe/mine.yaml: algorithm.clop does not exist; did you mean algorithm.clip?"),
        ("algorithm: {ratio: word}", "expected one of element, step, sequence, guard, none"),
        ("defaults:\n  - override /model: tiny_blok", "model=tiny_blok does not exist; did you mean tiny_block?"),
        ("defaults:\n  - override /modle: tiny_block", "write `override /GROUP: file`"),
        ("defaults:\n  - override model: tiny_block", "write `override /GROUP: file`"),
        ("defaults:\n  - quikstart", "recipe=quikstart does not exist; did you mean quickstart?"),
        ("algorithm: {clip: 0.1", "not valid YAML"),
        ("run: {seed: 1, seed: 2}", "not valid YAML"),
        ("- a list", "recipe/mine"),
    ],
)
def test_errors_in_own_files(tmp_path: Path, text: str, expected: str) -> None:
    folder = recipe_folder(tmp_path, f"# @package _global_\n{text}\n")
    assert expected in error_of(["recipe=mine"], folder)


def test_a_recipe_without_its_header_is_told_so(tmp_path: Path) -> None:
    folder = recipe_folder(tmp_path, "run: {name: mine}\n")
    assert "recipe/mine.yaml: the first line of a recipe must be `# @package _global_`" in error_of(
        ["recipe=mine"], folder
    )


def test_own_files_cannot_hide_or_be_hidden_by_packaged_ones(tmp_path: Path) -> None:
    folder = recipe_folder(tmp_path, "# @package _global_\n", name="quickstart")
    assert "recipe=quickstart is already taken; rename the file" in error_of(["recipe=quickstart"], folder)
    assert "is not a folder" in error_of([], tmp_path / "absent")


def test_files_are_read_again_when_they_change_and_no_configuration_shares_another_s_values(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    file = tmp_path / "recipe/mine.yaml"
    text = "# @package _global_\ndefaults: [quickstart]\nalgorithm:\n  clip: {}\n"
    file.write_text(text.format("0.25"))
    first = compose(["recipe=mine"], tmp_path)
    first.resolved.algorithm.clip = 7.0
    first.config.algorithm.clip = 8.0
    first.sources.clear()
    again = compose(["recipe=mine"], tmp_path)
    assert again.config.algorithm.clip == again.resolved.algorithm.clip == 0.25
    assert again.sources
    file.write_text(text.format("0.125"))
    assert compose(["recipe=mine"], tmp_path).config.algorithm.clip == 0.125


def test_what_comes_from_the_environment_is_used_and_never_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "hush-hush")
    monkeypatch.setenv("NUMBER", "41")
    (tmp_path / "recipe").mkdir()
    term = "reward.terms.answer"
    (tmp_path / "recipe/mine.yaml").write_text(
        "# @package _global_\ndefaults: [quickstart]\nreward:\n  terms:\n    answer:\n      args:\n"
        "        key: ${oc.env:JUDGE_KEY}\n        again: Bearer ${.key}\n"
        "        listed: ['${oc.env:JUDGE_KEY}']\nrun:\n  seed: ${oc.env:NUMBER}\n"
    )
    composed = compose(["recipe=mine"], tmp_path)
    args = composed.config.reward.terms["answer"].args
    assert (args["key"], args["again"], args["listed"]) == ("hush-hush", "Bearer hush-hush", ["hush-hush"])
    assert composed.config.run.seed == 41
    assert "hush-hush" not in composed.yaml
    assert "key: ${oc.env:JUDGE_KEY}" in composed.yaml
    kept = tmp_path / "config.yaml"
    kept.write_text(composed.yaml)
    again = recompose(kept, [])
    assert again.config == composed.config
    assert "hush-hush" not in again.yaml
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ConfigError, match="JUDGE_KEY"):
        recompose(kept, [f"{term}.weight=2"])


def test_what_nobody_has_set_is_read_by_its_name_and_asked_for_when_it_is_used(tmp_path: Path, monkeypatch) -> None:
    """Of whatever type, alone, in a list, and in what refers to it."""
    monkeypatch.setenv("WEIGHT", "2.5")
    for name in ("JUDGE_KEY", "NUMBER", "ORDER"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/mine.yaml").write_text(
        "# @package _global_\ndefaults: [quickstart]\nreward:\n  terms:\n    answer:\n"
        "      weight: ${oc.env:WEIGHT}\n      args:\n        key: ${oc.env:JUDGE_KEY}\n"
        "        again: Bearer ${.key}\n        listed: [plain, '${oc.env:JUDGE_KEY}']\n"
        "        given: ${oc.env:JUDGE_KEY,otherwise}\n"
        "run:\n  seed: ${oc.env:NUMBER}\nrollout:\n  sampler:\n    order: ${oc.env:ORDER}\n"
    )
    with pytest.raises(ConfigError, match=r"answer\.args\.key needs the environment variable JUDGE_KEY, which is not"):
        compose(["recipe=mine"], tmp_path)
    with monkeypatch.context() as patch:
        for name, value in (("JUDGE_KEY", "hush"), ("NUMBER", "41"), ("ORDER", "random")):
            patch.setenv(name, value)
        composed = compose(["recipe=mine"], tmp_path)
    kept = tmp_path / "config.yaml"
    kept.write_text(composed.yaml)
    read = recompose(kept, ["run.updates=7"], to_read=True)
    args = read.config.reward.terms["answer"].args
    assert (args["key"], args["again"]) == ("${oc.env:JUDGE_KEY}", "Bearer ${.key}")
    assert (args["listed"], args["given"]) == (["plain", "${oc.env:JUDGE_KEY}"], "otherwise")
    assert (read.config.run.seed, read.config.rollout.sampler.order) == ("${oc.env:NUMBER}", "${oc.env:ORDER}")
    assert (read.config.reward.terms["answer"].weight, read.config.run.updates) == (2.5, 7)
    assert read.yaml == composed.yaml.replace(f"updates: {composed.config.run.updates}\n", "updates: 7\n")
    check_environment(read.config, but=("reward", "run", "rollout"))
    for section, option, variable in (
        (read.config.reward, "reward.terms.answer.args.key", "JUDGE_KEY"),
        (read.config.run, "run.seed", "NUMBER"),
        (read.config, "rollout.sampler.order", "ORDER"),
    ):
        with pytest.raises(ConfigError) as caught:
            check_environment(section, but=("reward", "run"))
        assert f"{option} needs the environment variable {variable}, which is not set" in str(caught.value)
    monkeypatch.setenv("JUDGE_KEY", "hush")
    check_environment(recompose(kept, [], to_read=True).config.reward)


def test_a_run_from_before_a_switch_had_a_third_position_is_read(tmp_path: Path) -> None:
    for before, now in (("false", "none"), ("true", "zscore")):
        kept = tmp_path / f"{before}.yaml"
        kept.write_text(
            f"algorithm: {{normalise_terms: {before}}}\nmodel: {{path: x}}\n"
            "data: {train: {name: x}}\nrun: {name: x}\n"
        )
        assert recompose(kept, []).config.algorithm.normalise_terms.value == now
