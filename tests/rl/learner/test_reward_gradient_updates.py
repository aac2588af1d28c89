"""Updates that follow a reward's gradient: they make brighter pictures, held back and sharded as asked."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rl.learner.engine import Engine
from rl.learner.learner import Learner
from rl.modality.image import ImageModality
from tests.models.pipelines import tiny_pipeline
from tests.rl.support.image_learning import assert_same_updates, configuration, undrawn_groups

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    """In small latents, which cost a third."""
    folder = tmp_path_factory.mktemp("models") / "sd"
    tiny_pipeline("sd", sample_size=4).save_pretrained(folder)
    return folder


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


def learner_of(unet, *overrides: str, zero_stage: int = 0) -> Learner:
    config = configuration(unet, "reward.terms.a.function=brightness", "rollout.denoising.steps=5", *overrides)
    modality = ImageModality(config)
    modality.check()
    policy = modality.policy(CPU)
    engine = Engine(policy, config.algorithm.optimizer, zero_stage=zero_stage, bf16=False)
    return Learner(engine, modality.likelihood(policy, CPU), None, None, config.algorithm, 100, CPU)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_method_makes_brighter_pictures(rank, unet, algorithm):
    rate = "algorithm.optimizer.learning_rate=1e-2"
    learner = learner_of(unet, f"algorithm={algorithm}", *ALGORITHMS[algorithm], rate)
    rewards = [-learner.step(update, [undrawn_groups(update)], False)["learner/loss"] for update in range(6)]
    assert np.mean(rewards[-2:]) > np.mean(rewards[:2]) + 0.01
    assert learner.engine.updates == 6


def test_the_pull_holds_the_weights_whatever_the_micro_batches(rank, unet):
    """It is counted once an update: a sum over samples would be eight times as strong."""

    def distances(*overrides: str) -> list[float]:
        learner = learner_of(unet, "algorithm=draft", "algorithm.optimizer.learning_rate=3e-3", *overrides)
        start = [parameter.detach().clone() for parameter in learner.engine.module.parameters()]
        found = []
        for update in range(3):
            learner.step(update, [undrawn_groups(update)], False)
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
def test_sharded_weights_get_the_same_update(rank, unet, zero_stage):
    """Several forwards before one backward, some of them computed again."""
    options = [
        "algorithm=draft",
        "algorithm.reward_gradient.last_steps=3",
        "algorithm.reward_gradient.checkpointing=true",
        "algorithm.optimizer.learning_rate=1e-3",
        "algorithm.optimizer.eps=1e-5",
    ]
    assert_same_updates(learner_of(unet, *options), learner_of(unet, *options, zero_stage=zero_stage))
