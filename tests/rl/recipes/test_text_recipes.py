"""Every text recipe learns: a reward that any policy can move, an untrained tiny network, the real learner."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.compose import compose
from models.tiny.create import main as create
from rewards.registry import resolve
from rl.commands.catalogue import catalogue
from tests.rl.support.image_learning import Training, process_group
from tests.rl.support.rewards import share_of_ones

BIDIRECTIONAL = (
    "diffu_grpo",
    "coupled_grpo",
    "unigrpo",
    "wd1",
    "spg",
    "espo",
    "anchored_coupled",
    "d2_step_merge",
    "tracerl_full",
    "mdpo",
)
"""Methods for, or with masked prompts of, models that see the whole canvas."""
BLOCK = (
    "agrpo",
    "bgpo",
    "cj_grpo",
    "d_tree_rpo",
    "dipo",
    "ebpo",
    "one_step",
    "online_dpo",
    "stable_drl",
    "anchored_grpo",
    "trace_grpo",
    "tracerl",
    "tracerl_blocks",
    "tracerl_value",
    "just_grpo",
    "lightning_rl",
)
OFTEN = ("d_tree_rpo", "espo", "mdpo", "spg", "tracerl_value")
"""One of each kind; the others are run with the slow tests."""
UPDATES = 8
SAMPLES = 16
"""Of an update, at least: with fewer, the mean reward of two updates says little about the policy."""


@pytest.fixture(scope="module", autouse=True)
def rank():
    with process_group():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    for kind in ("full", "block"):
        create(kind, str(folder / kind))
    return {name: folder / ("full" if name in BIDIRECTIONAL else "block") for name in BIDIRECTIONAL + BLOCK}


def reward(text: str) -> float:
    return share_of_ones([text])[0]


CELLS = {
    "running": ("trace_grpo", "algorithm.advantage=running"),
    "branches of a bidirectional model": (
        "tracerl_full",
        "algorithm.likelihood.partition=every_step",
        "algorithm.advantage=siblings",
        "algorithm.leaf_weights=true",
        "algorithm.optimizer.learning_rate=6e-3",
        "algorithm.epochs=4",
        "algorithm.minibatches=1",
        "rollout.branching.forks=[0,4]",
        "rollout.branching.factors=[4,2]",
    ),
    "extremes": (
        "trace_grpo",
        "algorithm.advantage=running",
        "algorithm.extremes=0.5",
        "rollout.branching.forks=[1]",
        "rollout.branching.factors=[8]",
    ),
}
"""What no recipe for text uses, on top of one."""


@pytest.mark.parametrize("cell", CELLS)
def test_other_cells_learn(models, cell):
    recipe, *options = CELLS[cell]
    learns(models[recipe], recipe, *options)


def marked(recipes: Iterable[str]) -> list[Any]:
    return [recipe if recipe in OFTEN else pytest.param(recipe, marks=pytest.mark.slow) for recipe in recipes]


@pytest.mark.parametrize("recipe", marked(BIDIRECTIONAL + BLOCK))
def test_every_recipe_learns(models, recipe):
    learns(models[recipe], recipe)


def test_an_anchor_rises_as_d_tree_rpo_s_self_distillation(models):
    """Its code: lambda_max (e^(gamma t) - 1) / (e^gamma - 1) with t the share of the updates, here 50 of 100."""

    def loss(*anchor: str) -> float:
        forks = [
            "rollout.branching.forks=[0,4]",
            "rollout.sampler.max_new_tokens=8",
            "rollout.sampler.temperature=1.0",
        ]
        model = [
            f"model.path={models['d_tree_rpo']}",
            "algorithm.epochs=1",
            "algorithm.kl.coefficient=0",
            "run.updates=100",
        ]
        config = compose(["recipe=quickstart", "algorithm=d_tree_rpo", *model, *forks, *anchor]).config
        return Training(config, reward, caption="1 2 3 4").update(50)[0]["learner/loss"]

    rising = loss("algorithm.anchor=0.8")
    half_way = 0.8 * (math.exp(1) - 1) / (math.exp(2) - 1)
    assert rising == pytest.approx(loss(f"algorithm.anchor={half_way}", "algorithm.anchor_growth=null"), rel=1e-5)
    assert abs(rising - loss("algorithm.anchor=0.4", "algorithm.anchor_growth=null")) > 1e-2


def test_mdpo_learns_from_texts_that_were_masked_again(models):
    learns(models["mdpo"], "mdpo", "rollout.sampler.remask=running_confidence", "rollout.sampler.block_length=4")


def learns(model: Path, recipe: str, *overrides: str) -> None:
    """As published but for the learning rate, the number of passes, and a KL that would hold so short a run back."""
    config = compose(
        [
            "recipe=quickstart",
            f"algorithm={recipe}",
            f"model.path={model}",
            "algorithm.optimizer.learning_rate=3e-3",
            "algorithm.optimizer.schedule=constant",
            "algorithm.optimizer.warmup_updates=0",
            "algorithm.kl.coefficient=0",
            "algorithm.epochs=2",
            "algorithm.solved_band=null",
            "rollout.sampler.max_new_tokens=8",
            "rollout.sampler.temperature=1.0",
            *(["algorithm.likelihood.canvas_block=4"] if recipe == "spg" else []),
            *(["algorithm.clip=0.2"] if recipe in BIDIRECTIONAL else []),
            *(["algorithm.epochs=4"] if recipe == "just_grpo" else []),
            *(["rollout.branching.forks=[0,4]"] if recipe == "d_tree_rpo" else []),
            *overrides,
        ]
    ).config
    training = Training(config, reward, caption="1 2 3 4")
    prompts = max(2, SAMPLES // config.rollout.group_size)
    results = [training.update(update, prompts) for update in range(UPDATES)]
    rewards = [value for _, value in results]
    assert np.mean(rewards[-2:]) > np.mean(rewards[:2]) + 0.5 * training.spread, rewards
    first = results[0][0]
    if "ratio/max_error" in first:
        assert first["ratio/max_error"] <= 1e-5
    assert all(metrics["learner/gradient_norm"] > 0 for metrics, _ in results)


def test_rewards_are_told_the_rounds_that_a_text_took(models):
    config = compose(
        ["recipe=quickstart", f"model.path={models['tracerl']}", "rollout.sampler.max_new_tokens=8"]
    ).config
    training = Training(config, reward, caption="1 2 3 4")
    groups, _ = training.roll_out(0)
    rounds = [int(t.reveal[i].max()) for t in (group.trajectory for group in groups) for i in range(t.group_size)]
    assert training.completions.columns == {"denoising_rounds": rounds}
    speeds = resolve("tokens_per_round")(
        completions=training.completions.outputs,
        completion_ids=training.completions.ids,
        **training.completions.columns,
    )
    assert speeds == [len(ids) / count for ids, count in zip(training.completions.ids, rounds, strict=True)]


def test_no_recipe_for_text_is_left_out():
    of_text = {recipe.name for recipe in catalogue() if "text" in recipe.modalities}
    from_data = {"sft", "dpo", "vrpo"}  # tests/rl/driver/test_offline.py and test_pairs.py
    assert of_text == {*BIDIRECTIONAL, *BLOCK, *from_data}
