"""Updates that follow a reward's gradient: they make brighter pictures, held back and sharded as asked."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rl.learner.engine import Engine
from rl.learner.groups import Group
from rl.learner.learner import Learner
from rl.likelihood.image_reward_gradient import undrawn
from rl.modality.image import ImageModality
from tests.models.pipelines import tiny_pipeline
from tests.rl.support.image_learning import configuration, process_group

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("models") / "sd"
    tiny_pipeline("sd", sample_size=4).save_pretrained(root)
    return root


@pytest.fixture(scope="module")
def rank():
    with process_group():
        yield


ALGORITHMS = {
    "draft": [],
    "draft_lv": [],
    "align_prop": ["algorithm.reward_gradient.last_steps=2", "algorithm.reward_gradient.cut_std=1"],
    "refl": ["algorithm.reward_gradient.earliest_stop=3"],
    "long_align": [
        "algorithm.reward_gradient.last_steps=5",
        "algorithm.reward_gradient.every=2",
        "algorithm.optimizer.warmup_updates=0",
    ],
    "r0": [],
}


def learner_of(folder, *overrides: str, zero_stage: int = 0) -> Learner:
    config = configuration(folder, "reward.terms.a.function=brightness", "rollout.denoising.steps=5", *overrides)
    modality = ImageModality(config)
    modality.check()
    policy = modality.policy(CPU)
    engine = Engine(policy, config.algorithm.optimizer, zero_stage=zero_stage, bf16=False)
    return Learner(engine, modality.likelihood(policy, CPU), None, None, config.algorithm, 100, CPU)


def fresh_groups(update: int) -> list[Group]:
    ones = np.ones(4, np.float32), np.ones(4, bool)
    uids = [[1000 * update + 10 * group + sample for sample in range(4)] for group in range(2)]
    return [Group(undrawn("x", "red", {}, keys, update), *ones) for keys in uids]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_method_makes_brighter_pictures(rank, folder, algorithm):
    rate = "algorithm.optimizer.learning_rate=1e-2"
    learner = learner_of(folder, f"algorithm={algorithm}", *ALGORITHMS[algorithm], rate)
    rewards = [-learner.step(update, [fresh_groups(update)], False)["learner/loss"] for update in range(6)]
    assert np.mean(rewards[-2:]) > np.mean(rewards[:2]) + 0.01
    assert learner.engine.updates == 6


def test_the_pull_holds_the_weights_whatever_the_micro_batches(rank, folder):
    """It is counted once an update: a sum over samples would be eight times as strong."""

    def distances(*overrides: str) -> list[float]:
        learner = learner_of(folder, "algorithm=draft", "algorithm.optimizer.learning_rate=3e-3", *overrides)
        start = [parameter.detach().clone() for parameter in learner.engine.module.parameters()]
        found = []
        for update in range(3):
            learner.step(update, [fresh_groups(update)], False)
            moved = zip(learner.engine.module.parameters(), start, strict=True)
            found.append(math.sqrt(sum(float((p.detach() - base).square().sum()) for p, base in moved)))
        return found

    free, held = distances(), distances("algorithm.reward_gradient.base_pull=1")
    assert held[0] == pytest.approx(free[0], rel=1e-4)
    assert held[-1] < 0.7 * free[-1]
    one_by_one = distances("algorithm.reward_gradient.base_pull=1", "algorithm.micro_batch_tokens=1")
    assert one_by_one == pytest.approx(held, rel=1e-2)
    assert distances("algorithm.reward_gradient.base_pull=8")[-1] != pytest.approx(held[-1], rel=2e-2)


@pytest.mark.parametrize(
    "zero_stage", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3]
)
def test_sharded_weights_get_the_same_update(rank, folder, zero_stage):
    """Several forwards before one backward, some of them computed again."""
    options = [
        "algorithm=draft",
        "algorithm.reward_gradient.last_steps=3",
        "algorithm.reward_gradient.checkpointing=true",
        "algorithm.optimizer.learning_rate=1e-3",
        "algorithm.optimizer.eps=1e-5",
    ]
    metrics = [
        [learner.step(update, [fresh_groups(update)], False) for update in range(2)]
        for learner in (learner_of(folder, *options), learner_of(folder, *options, zero_stage=zero_stage))
    ]
    for plain, sharded in zip(*metrics, strict=True):
        assert sharded["learner/loss"] == pytest.approx(plain["learner/loss"], abs=1e-6)
        assert sharded["learner/gradient_norm"] == pytest.approx(plain["learner/gradient_norm"], rel=1e-4)
