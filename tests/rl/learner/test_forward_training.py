"""Denoising losses of rollouts by the ODE train a real network: the cells that DGPO, AWM and their kin are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.pipelines import tiny_pipeline
from tests.rl.recipes.test_image_recipes import redness
from tests.rl.support.image_learning import Training, configuration
from tests.rl.support.learning_effect import assert_learned, effect_of_training

pytestmark = pytest.mark.usefixtures("rank")

ROLLOUTS = [
    "algorithm=precise_grpo",
    "rollout.denoising.kernel=ode",
    "algorithm.likelihood.kind=elbo",
    "algorithm.clip_kl=null",
    "algorithm.kl.estimator=output",
    "algorithm.kl.coefficient=0",
    "algorithm.minibatches=1",
    "algorithm.optimizer.learning_rate=5e-3",
]
WITHOUT_RATIO = ["algorithm.objective=weighted", "algorithm.ratio=none"]
CELLS = {
    "weighted": [*WITHOUT_RATIO, "algorithm.likelihood.noise_law=grid", "algorithm.likelihood.draws=3"],
    "clipped": ["algorithm.ratio=step", "algorithm.minibatches=2", "algorithm.likelihood.loss_weight=huber"],
    "preferred": [
        "algorithm.objective=group_dpo",
        "algorithm.ratio=none",
        "algorithm.beta=10",
        "algorithm.likelihood.shared_noise=true",
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "sd3"
    tiny_pipeline("sd3").save_pretrained(folder)
    tiny_pipeline("sd3", sample_size=4).save_pretrained(folder / "small")
    return folder


def learns(folder: Path, drift: float, *options: str) -> list[list[dict[str, float]]]:
    """The metrics of each seed's updates.

    Args:
        drift: standard deviation over seeds of the effect of as many updates without a signal, in those of a sample.
    """
    size = ["algorithm.optimizer.learning_rate=1e-3", "algorithm.optimizer.betas=[0,0.99]"]
    config = configuration(folder / "small", *options, *size)
    of_seeds = []

    def train(training: Training) -> None:
        of_seeds.append([training.update(update, prompts=16)[0] for update in range(6)])

    found = effect_of_training(lambda seed: Training(config, redness, seed=seed), train, drift=drift, samples=64)
    assert_learned(found)
    return of_seeds


@pytest.mark.parametrize(
    "cell", [cell if cell == "clipped" else pytest.param(cell, marks=pytest.mark.slow) for cell in CELLS]
)
def test_rewards_rise(folder, cell):
    of_seeds = learns(folder, 0.2, *ROLLOUTS, *CELLS[cell])
    if cell == "preferred":  # no difference from the reference yet: log 2
        assert of_seeds[0][0]["learner/loss"] == pytest.approx(np.log(2), abs=1e-5)


OFTEN = ("nft",)
"""The others are run with the slow tests."""
DRIFTS = {"nft": 0.4, "awm": 0.3, "early_awm": 0.6, "dgpo": 0.3, "flow_dpo": 0.3}


@pytest.mark.parametrize(
    "recipe", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in DRIFTS]
)
def test_every_recipe_learns(folder, recipe):
    """As published but for the learning rate, the KL, and a beta for a network that has not been trained."""
    beta = "algorithm.beta=1" if recipe == "nft" else "algorithm.beta=10"
    learns(folder, DRIFTS[recipe], f"algorithm={recipe}", "algorithm.kl.coefficient=0", beta)


def test_the_distance_of_outputs_holds_the_policy_back(folder):
    distance = {}
    for coefficient in (1e-6, 10.0):
        overrides = [*ROLLOUTS, *WITHOUT_RATIO, f"algorithm.kl.coefficient={coefficient}"]
        training = Training(configuration(folder, *overrides), redness)
        metrics = [training.update(update)[0] for update in range(4)]
        assert metrics[0]["kl/reference"] == pytest.approx(0, abs=1e-9)
        distance[coefficient] = metrics[-1]["kl/reference"]
    assert distance[10.0] < 0.3 * distance[1e-6]


@pytest.mark.slow
def test_a_loss_that_joins_samples_keeps_the_kl_of_outputs(folder):
    """DGPO in one micro-batch and in many: the preference is differentiated in two passes, the KL in the second."""
    weights, divergence = [], []
    for tokens in (100_000, 1):
        options = ["algorithm.kl.coefficient=10", "algorithm.beta=1", "algorithm.optimizer.learning_rate=1e-3"]
        config = configuration(folder, "algorithm=dgpo", f"algorithm.micro_batch_tokens={tokens}", *options)
        training = Training(config, redness)
        results = [training.update(update)[0] for update in range(2)]
        divergence.append(results[1]["kl/reference"])
        weights.append(torch.cat([p.detach().flatten() for p in training.policy.parameters()]))
    assert divergence[0] > 0
    assert divergence[1] == pytest.approx(divergence[0], rel=1e-3)
    torch.testing.assert_close(weights[0], weights[1], atol=2e-5, rtol=0)
