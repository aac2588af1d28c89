"""The how-tos of CONTRIBUTING.md are followed to the letter: each block goes where the text says it goes."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import textwrap
from enum import Enum
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType, ModuleType

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPAGPipeline

import models.images.description
import models.images.export
import models.images.policy
import models.text.export
import models.text.families
import rewards
import rollout.options
import tests.models.text.published
from configs.algorithm_options import AdvantageKind, Denominator
from configs.compose import compose
from configs.errors import ConfigError
from configs.schema import Config
from models.images import families as image_families
from models.images.checkpoint import load_image_policy, read_image_spec
from models.images.export import export_image_policy
from models.options import LoraOptions, Modality, ModelOptions
from models.text.checkpoint import load_text_policy
from models.text.description import read_text_spec
from models.text.export import export_text_policy
from models.text.families import FAMILIES, CheckpointError, TextFamily
from rewards.options import RewardOptions, RewardTerm
from rewards.registry import COMPLETIONS, REGISTERED, RewardError, resolve
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import ScoreRequest
from rl.compatibility import check
from rollout.images.kernels import transition
from rollout.options import KernelKind
from tests.documentation import ROOT, blocks, commands, run_command
from tests.models.images import test_stock as test_image_stock
from tests.models.pipelines import image_options, tiny_pipeline
from tests.models.text import test_architecture, test_export, test_families
from tests.models.text.published import PUBLISHED, write_checkpoint
from tests.rollout.images.kernels.schedules import SCHEDULES

PAGE = "CONTRIBUTING.md"
FAMILY, CHECKPOINT, NUMBERS, IMAGE_FAMILY, REWARD, REGISTRATION, IMAGE_REWARD, KERNEL = blocks(PAGE, "python")
(ALGORITHM,) = blocks(PAGE, "yaml")
REWARD_COMMAND, IMAGE_REWARD_COMMAND, ALGORITHM_COMMAND = commands(PAGE)


def test_every_folder_of_the_layout_exists_and_none_is_left_out():
    lines = (ROOT / PAGE).read_text().splitlines()
    listed = {line.split("`")[1] for line in lines if line.startswith("| `")}
    packages = {f"{file.parent.name}/" for file in ROOT.glob("*/__init__.py")}
    assert listed == packages - {"tests/"}


@pytest.fixture
def aurora(monkeypatch: pytest.MonkeyPatch) -> TextFamily:
    """The family and its published numbers, entered into the three tables."""
    family = eval(FAMILY, vars(models.text.families).copy())
    families = MappingProxyType({**FAMILIES, family.name: family})
    for module in (models.text.families, models.text.export, test_families):
        monkeypatch.setattr(module, "FAMILIES", families)
    checkpoints = eval(f"{{{CHECKPOINT}}}", vars(tests.models.text.published).copy())
    for table, entries in ((PUBLISHED, checkpoints), (test_families.PUBLISHED_NUMBERS, eval(f"{{{NUMBERS}}}"))):
        ((name, entry),) = entries.items()
        assert name == family.name
        monkeypatch.setitem(table, name, entry)
    return family


@pytest.mark.parametrize("block_length", [None, 4])
def test_new_family_passes_the_tests_of_the_others(aurora, tmp_path, block_length):
    def load(name):
        tensors = write_checkpoint(tmp_path / name, PUBLISHED[name])
        return load_text_policy(ModelOptions(path=str(tmp_path / name)))[0], tensors

    test_families.test_every_family_is_covered()
    test_families.test_published_numbers(aurora.name)
    test_architecture.test_equals_the_published_architecture(load, aurora.name, block_length)
    test_export.test_round_trip_is_bitwise(tmp_path / "export", aurora.name, False)
    assert read_text_spec(ModelOptions(path=str(tmp_path / aurora.name))).block_length == 8


def test_new_family_names_its_adapters_as_published(aurora, tmp_path):
    write_checkpoint(tmp_path / "model", PUBLISHED[aurora.name])
    options = ModelOptions(path=str(tmp_path / "model"), lora=LoraOptions(rank=2))
    policy, tokenizer = load_text_policy(options)
    export_text_policy(policy, tokenizer, tmp_path / "adapter", adapter_only=True)
    adapter = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert "model.layers.0.feed_forward.gate_proj" in adapter["target_modules"]


@pytest.mark.parametrize(
    ("omitted", "message"),
    [
        ({"tensor_names": {}}, r"no tensor model\.layers\.0\.mlp\.gate_proj"),
        ({"config_fields": FAMILIES["sdar"].config_fields}, "lacks rms_norm_eps"),
    ],
    ids=["tensor_names", "config_fields"],
)
def test_without_its_names_the_checkpoint_does_not_load(aurora, tmp_path, monkeypatch, omitted, message):
    write_checkpoint(tmp_path, PUBLISHED[aurora.name])
    incomplete = dataclasses.replace(aurora, **omitted)
    monkeypatch.setattr(models.text.families, "FAMILIES", {aurora.name: incomplete})
    with pytest.raises(CheckpointError, match=message):
        load_text_policy(ModelOptions(path=str(tmp_path)))


def test_without_its_entry_the_family_is_unknown():
    with pytest.raises(CheckpointError, match="aurora"):
        models.text.families.recognise({"model_type": "aurora", "architectures": ["AuroraForCausalLM"]})


DECLARED = image_families.FAMILIES


@pytest.fixture
def pag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A tiny pipeline of the new image family, which is entered into the table."""
    family = eval(IMAGE_FAMILY, {**vars(image_families), "StableDiffusionPAGPipeline": StableDiffusionPAGPipeline})
    families = MappingProxyType({**image_families.FAMILIES, family.name: family})
    for module in (models.images.policy, models.images.description, models.images.export, image_families):
        monkeypatch.setattr(module, "FAMILIES", families)
    pipeline = tiny_pipeline("sd")
    StableDiffusionPAGPipeline(**pipeline.components, requires_safety_checker=False).save_pretrained(tmp_path / "pag")
    return tmp_path / "pag"


def test_new_image_family_draws_what_the_stock_pipeline_draws(pag, tmp_path):
    spec = read_image_spec(image_options(pag))
    assert spec.family == "sd_pag"
    noise = torch.randn(2, *spec.latent_shape(32, 48), generator=torch.Generator().manual_seed(1))
    stock = StableDiffusionPAGPipeline.from_pretrained(pag)
    stock.set_progress_bar_config(disable=True)
    expected = test_image_stock.stock_call(partial(stock, pag_scale=0.0), noise, 5.0, "latent")
    schedule = test_image_stock.levels(stock.scheduler)
    latents = test_image_stock.sample(image_options(pag), noise, schedule, 5.0)
    assert (expected - noise).abs().max() > 0.1
    assert (latents - expected).abs().max() < 1e-5 * expected.abs().max()
    export_image_policy(load_image_policy(image_options(pag)), tmp_path / "exported", str(pag))
    StableDiffusionPAGPipeline.from_pretrained(tmp_path / "exported")


def test_without_its_entry_the_image_family_is_unknown(pag, monkeypatch):
    for module in (models.images.description, image_families):
        monkeypatch.setattr(module, "FAMILIES", DECLARED)
    with pytest.raises(CheckpointError, match="'StableDiffusionPAGPipeline'; supported"):
        read_image_spec(image_options(pag))


RIGHT = "1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1"
ANSWERS = [RIGHT, f"{RIGHT}\n", RIGHT[:-2], RIGHT.replace("4", "5"), RIGHT.replace("\n", " "), f"{RIGHT} 1", ""]
PAID = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def scored(function: str) -> list[float]:
    """As a run scores: in the child process, by the name that the configuration gives."""
    scorer = Scorer(RewardOptions(terms={"grid": RewardTerm(function=function)}))
    scorer.start()
    scores = scorer.score(ScoreRequest(["?"] * len(ANSWERS), ANSWERS, columns={"answer": ANSWERS}))
    scorer.stop()
    assert scores.failures == []
    return scores.total.tolist()


def test_own_reward_by_its_dotted_path(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_rewards.py").write_text(REWARD)
    with pytest.raises(RewardError, match="my_rewards"):
        resolve("my_rewards.grid")
    monkeypatch.syspath_prepend(tmp_path)
    assert scored("my_rewards.grid") == PAID
    assert "function: my_rewards.grid" in run_command(REWARD_COMMAND, monkeypatch, capsys)


def test_registered_reward_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "grid.py").write_text(REWARD)
    monkeypatch.setattr(rewards, "__path__", [*rewards.__path__, str(tmp_path)])
    with pytest.raises(RewardError, match="no reward function is called 'grid'"):
        resolve("grid")
    ((name, path),) = eval(f"{{{REGISTRATION}}}").items()
    monkeypatch.setitem(REGISTERED, name, path)
    assert resolve(name)(completions=ANSWERS) == PAID


def test_own_reward_of_images(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_rewards.py").write_text(IMAGE_REWARD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    brightness = resolve("my_rewards.brightness")
    white, black = np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8, 3), np.uint8)
    assert brightness(completions=[white, black], prompts=["", ""]) == [1.0, 0.0]
    with pytest.raises(ValueError, match="got a str"):
        brightness(completions=["text"])
    assert "function: my_rewards.brightness" in run_command(IMAGE_REWARD_COMMAND, monkeypatch, capsys)


def test_every_registered_reward_says_what_it_scores():
    assert REGISTERED.keys() - COMPLETIONS.keys() == {"judge", "judge_win_rate"}  # texts and pictures
    assert COMPLETIONS.keys() <= REGISTERED.keys()
    assert set(COMPLETIONS.values()) == {modality.value for modality in Modality}


def test_new_kernel_keeps_the_levels_of_noise(monkeypatch):
    """The member is put into the enum and the case into `_std`, as the text says."""
    members = {kind.name: kind.value for kind in KernelKind}
    monkeypatch.setattr(rollout.options, "KernelKind", Enum("KernelKind", members | {"constant": "constant"}))
    source, place = inspect.getsource(transition), "    if eta > 1:\n"
    assert source.count(place) == 1
    extended = ModuleType("extended_transition")
    monkeypatch.setitem(sys.modules, extended.__name__, extended)  # where dataclasses look themselves up
    exec(source.replace(place, textwrap.indent(KERNEL, "    ") + place), vars(extended))
    for make in SCHEDULES.values():
        schedule = make(10)
        for level, following in pairwise(schedule):
            step = extended.transition(extended.KernelKind.constant, 0.1, level, following, schedule[1])
            assert step.signal == following.signal
            assert step.noise**2 + step.std**2 == pytest.approx(following.noise**2, abs=1e-12)
            assert step.std == pytest.approx(min(0.1, following.noise), abs=transition.MIN_STD)


@pytest.fixture
def own_configs(tmp_path: Path) -> Path:
    file = tmp_path / "my_configs" / "algorithm" / "rloo_wide.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(ALGORITHM)
    return tmp_path / "my_configs"


def composed(own_configs: Path, *overrides: str) -> Config:
    return compose(["recipe=quickstart", "algorithm=rloo_wide", *overrides], own_configs).config


def test_own_algorithm_is_what_its_file_says_and_can_train(own_configs, monkeypatch, capsys):
    config = composed(own_configs)
    check(config, read_text_spec(config.model))
    algorithm = config.algorithm
    assert algorithm.advantage is AdvantageKind.leave_one_out
    assert (algorithm.clip, algorithm.clip_high) == (0.2, 0.28)
    assert algorithm.denominator is Denominator.token
    monkeypatch.chdir(own_configs.parent)
    assert "my_configs/algorithm/rloo_wide.yaml" in run_command(ALGORITHM_COMMAND, monkeypatch, capsys)


def test_own_algorithm_that_cannot_work_is_refused(own_configs):
    with pytest.raises(ConfigError, match="objective=weighted has no ratio"):
        check(composed(own_configs, "algorithm.objective=weighted"), None)
    file = own_configs / "algorithm" / "rloo_wide.yaml"
    file.write_text(ALGORITHM.replace("clip_high", "clip_hihg"))
    with pytest.raises(ConfigError, match="clip_hihg"):
        composed(own_configs)
