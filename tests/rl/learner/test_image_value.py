"""The value model of image steps: which latents it reads, and that a policy may learn by it one sample at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from configs.algorithm_options import LikelihoodOptions
from models.images.value import ImageValue
from rl.likelihood.image_replay import ImageReplay
from rollout.options import DenoisingOptions
from rollout.trajectory import ImageTrajectory
from tests.rl.support.image_learning import CPU, Training, configuration
from tests.rl.support.image_rollouts import pipeline_folder, roll_out, worker_of

pytestmark = pytest.mark.usefixtures("rank")

OPTIONS = DenoisingOptions(steps=5)


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_a_value_is_that_of_the_latents_before_the_step(tmp_path, family):
    worker = worker_of(pipeline_folder(tmp_path, family))
    trajectory = roll_out(worker, OPTIONS)[0][0]
    replay = ImageReplay(worker.policy.spec, OPTIONS, LikelihoodOptions(), CPU)
    network = ImageValue(4, trajectory.embeds.shape[-1], seed=0)
    torch.nn.init.normal_(network.head.weight, generator=torch.Generator().manual_seed(0))

    def values(of: ImageTrajectory) -> np.ndarray:
        rows = replay.rows([of], 0)
        with torch.no_grad():
            found = np.zeros(of.logp.shape)
            found[[row.sample for row in rows], [row.decision[0] for row in rows]] = replay.values(network, rows)
        return found

    before = values(trajectory)
    assert len(np.unique(before[trajectory.mask])) == trajectory.mask.sum()
    for step in range(trajectory.mask.shape[1]):
        latents = trajectory.latents.copy()
        latents[:, step + 1] += 0.5  # where the step led
        after = values(dataclasses.replace(trajectory, latents=latents))
        changed = np.abs(after - before) > 1e-4
        assert not changed[:, : step + 1].any()
        assert changed[:, step + 1 :].any() == trajectory.mask[:, step + 1 :].any()


def test_a_raw_reward_and_a_value_need_no_group(tmp_path):
    """A prompt with one sample: there is nothing to compare it with but the prediction."""
    folder = pipeline_folder(tmp_path, "sd")
    training = Training(configuration(folder, "algorithm=dpok"), lambda image: float(image.mean()) / 255)
    groups, reward = training.roll_out(0, prompts=4, group_size=1)
    assert all(group.valid.all() for group in groups)
    metrics = training.learner.step(0, [groups[:2], groups[2:]], fresh=True)
    assert metrics["learner/gradient_norm"] > 0
    assert metrics["value/loss"] < 0.5 * reward**2 + 0.01  # of predictions that were 0
    later = training.learner.step(1, [groups[:2], groups[2:]], fresh=False)
    assert later["value/loss"] < metrics["value/loss"]
    assert later["value/mean"] != 0
