"""The denoising loss of images: its target, its noise, and that it does not depend on how a batch is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from configs.schema import LikelihoodOptions, NoiseLaw
from models.image_spec import Condition
from rl.image_elbo import ImageElbo
from rl.likelihood import micro_batches
from rollout.options import DenoisingOptions
from rollout.trajectory import ImageTrajectory
from tests.rl.image_rollouts import CPU, pipeline_folder, worker_of

CLEAN = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    return worker_of(pipeline_folder(tmp_path_factory.mktemp("elbo"), "sd3"))


def demonstrations(count: int) -> list[ImageTrajectory]:
    return [
        ImageTrajectory(
            ticket=0,
            update=0,
            version=0,
            seed=index,
            prompt_id=f"d{index}",
            sampler="demonstration",
            uid=np.array([index], np.int64),
            logp=np.zeros((1, 1)),
            mask=np.ones((1, 1), bool),
            caption="a dog",
            first_step=0,
            levels=np.zeros((0, 3)),
            guided=np.zeros(1, bool),
            final=CLEAN.numpy(),
        )
        for index in range(count)
    ]


def elbo_of(worker, **options) -> ImageElbo:
    def encode(trajectory: ImageTrajectory) -> tuple[torch.Tensor, Condition]:
        return torch.from_numpy(trajectory.final), worker.encoded(trajectory.caption)

    return ImageElbo(worker.policy.spec, DenoisingOptions(), LikelihoodOptions(**options), encode, CPU)


def perfect(latents, time, embeds, pooled, guidance):
    """The velocity of the only image there is: eps - x0 = (x - x0) / sigma."""
    sigma = (time / 1000).view(-1, 1, 1, 1)
    return (latents - CLEAN) / sigma


def test_a_perfect_network_has_no_loss(worker):
    elbo = elbo_of(worker)
    rows = elbo.rows(demonstrations(20), 0)
    torch.testing.assert_close(elbo.score(perfect, rows).log_prob, torch.zeros(20), atol=1e-4, rtol=0)
    silent = elbo.score(lambda latents, *_: torch.zeros_like(latents), rows).log_prob
    # Of a network that says nothing: the mean square of eps - x0, which is 1 + the mean square of x0.
    assert silent.mean().item() == pytest.approx(-(1 + CLEAN.square().mean().item()), rel=0.05)


def test_noise_is_fresh_each_update_and_the_same_when_repeated(worker):
    elbo, trajectories = elbo_of(worker), demonstrations(4)
    with torch.no_grad():
        first, again, later = (
            elbo.score(worker.policy, elbo.rows(trajectories, update)).log_prob for update in (3, 3, 4)
        )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert (first != later).all()


def test_micro_batches_do_not_change_the_scores(worker):
    elbo = elbo_of(worker)
    rows = elbo.rows(demonstrations(9), 0)
    with torch.no_grad():
        whole = elbo.score(worker.policy, rows).log_prob
        parts = [elbo.score(worker.policy, batch).log_prob for batch in micro_batches(rows, 2 * rows[0].tokens)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=0)


@pytest.mark.parametrize("law", NoiseLaw)
def test_noise_levels_follow_their_law(worker, law):
    elbo = elbo_of(worker, noise_law=law)
    uid = torch.arange(4000)
    levels = elbo._quantile(uid, torch.zeros_like(uid)).numpy()
    logit = np.log(levels / (1 - levels))
    if law is NoiseLaw.uniform:
        assert np.histogram(levels, 4, (0, 1))[0] == pytest.approx(1000, abs=120)
    else:
        assert (logit.mean(), logit.std()) == pytest.approx((0, 1), abs=0.05)
