"""Inversion: the noise that leads to an image under the policy's own ODE (DDIM-InPO)."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from configs.algorithm_options import LossWeight, NoiseLaw
from models.images.spec import ImageSpec
from rl.likelihood.image_elbo import ImageElbo
from rl.likelihood.inversion import invert
from rollout.images.kernels.levels import Level
from rollout.images.sampler import Schedule
from rollout.options import DenoisingOptions, KernelKind
from tests.rl.support.gaussian_images import MEAN, SPECS, STD, elbo_of, groups, optimal

ALL = [pytest.param(spec, id=name) for name, spec in SPECS.items()]
INVERSION = {"noise_law": NoiseLaw.inversion, "draws": 4}


def schedule_of(spec: ImageSpec, steps: int) -> Schedule:
    return Schedule(spec, DenoisingOptions(steps=steps, kernel=KernelKind.ode))


def walked(spec: ImageSpec, clean: torch.Tensor, steps: int, number: int) -> torch.Tensor:
    """`number` of `steps` steps up."""
    network = optimal(spec)
    ladder = schedule_of(spec, steps).levels[::-1]
    return invert(lambda x, t, _: network(x, t), clean, torch.full((len(clean),), number), ladder, spec.prediction)


def denoised(spec: ImageSpec, latents: torch.Tensor, steps: int) -> torch.Tensor:
    schedule = schedule_of(spec, steps)
    for step, level in enumerate(schedule.levels[:-1]):
        output = optimal(spec)(latents, torch.full((len(latents),), level.time))
        latents = schedule.kernel.advance(latents, output, step, None)
    return latents


def exact(clean: torch.Tensor, start: Level, end: Level) -> torch.Tensor:
    """The ODE of Gaussian data keeps each element's distance from the mean in standard deviations of its level."""

    def std(level: Level) -> float:
        return (level.signal**2 * STD**2 + level.noise**2) ** 0.5

    return end.signal * MEAN + std(end) / std(start) * (clean - start.signal * MEAN)


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(3)) * STD + MEAN


@pytest.mark.parametrize("spec", ALL)
def test_the_walk_converges_to_the_exact_ode(spec):
    clean, errors = images(), []
    for steps in (10, 20, 40, 80):
        ladder = schedule_of(spec, steps).levels[::-1]
        end = steps // 2
        errors.append(float((walked(spec, clean, steps, end) - exact(clean, ladder[0], ladder[end])).abs().mean()))
    assert all(after < 0.7 * before for before, after in pairwise(errors))


@pytest.mark.parametrize("spec", ALL)
def test_up_and_down_again_returns_the_better_the_more_steps(spec):
    clean, errors = images(), []
    for steps in (10, 20, 40, 80):
        errors.append(float((denoised(spec, walked(spec, clean, steps, steps), steps) - clean).abs().mean()))
    assert all(after < 0.75 * before for before, after in pairwise(errors))
    assert errors[-1] < 0.1
    unrelated = torch.randn(clean.shape, generator=torch.Generator().manual_seed(9))
    assert float((denoised(spec, unrelated, 80) - clean).abs().mean()) > 0.4  # the control: other noise, other images


@pytest.mark.parametrize("spec", ALL)
def test_rows_are_led_up_as_far_as_each_one_goes(spec):
    clean = images(5)
    ladder = schedule_of(spec, 6).levels[::-1]
    steps, calls, times = torch.tensor([0, 2, 6, 1, 2]), [], []

    def predict(latents, time, which):
        calls.append(which.tolist())
        times.append(float(time[0]))
        return optimal(spec)(latents, time)

    found = invert(predict, clean, steps, ladder, spec.prediction)
    for row, number in enumerate(steps.tolist()):
        alone = walked(spec, clean[row : row + 1], 6, number)
        torch.testing.assert_close(found[row : row + 1], alone, rtol=0, atol=1e-6)
    assert calls == [[1, 2, 3, 4], [1, 2, 4], [2], [2], [2], [2]]
    assert times == pytest.approx([level.time for level in ladder[:-1]])  # where each step starts
    calls.clear()
    torch.testing.assert_close(invert(predict, clean, 0 * steps, ladder, spec.prediction), clean, rtol=0, atol=0)
    assert len(calls) == 6  # as many as ever: ranks with other rows call the network that often too


def prepared(elbo: ImageElbo, spec: ImageSpec, network=None, draw: int = 0):
    rows = elbo.rows(groups(2, 3), draw)
    elbo.prepare(network or optimal(spec), rows)
    return rows


@pytest.mark.parametrize("spec", ALL)
def test_the_noise_explains_the_latents_of_the_walk(spec):
    """signal x0 + noise eps_t is x_t, and the latents that every model is shown are these."""
    elbo = elbo_of(spec, **INVERSION)
    rows = prepared(elbo, spec)
    scores = elbo.score(optimal(spec), rows)
    ladder = schedule_of(spec, 10).levels[::-1]
    for row, latents in zip(rows, scores.latents, strict=True):
        x_t = walked(spec, row.content.clean[None], 10, ladder.index(row.content.level))[0]
        torch.testing.assert_close(latents, x_t, rtol=0, atol=1e-6)
        other = ladder[ladder.index(row.content.level) - 1]  # the control: the level below
        assert (other.signal * row.content.clean + other.noise * row.content.inverted - x_t).abs().max() > 1e-3
    reference = elbo.score(lambda *given: 0.9 * optimal(spec)(*given), rows)
    assert torch.equal(reference.latents, scores.latents)


def test_the_walk_is_the_policys_and_has_no_graph():
    spec = SPECS["epsilon"]
    elbo, scale = elbo_of(spec, **INVERSION), torch.tensor(0.9, requires_grad=True)
    rows = prepared(elbo, spec, lambda *given: scale * optimal(spec)(*given))
    assert not any(row.content.inverted.requires_grad for row in rows)
    other = prepared(elbo, spec)
    assert all((one.content.inverted != two.content.inverted).any() for one, two in zip(rows, other, strict=True))
    elbo.score(lambda *given: scale * optimal(spec)(*given), rows).log_prob.sum().backward()
    assert scale.grad is not None


def test_rows_that_were_not_prepared_are_not_scored():
    elbo = elbo_of(SPECS["epsilon"], **INVERSION)
    with pytest.raises(AssertionError, match="before they were prepared"):
        elbo.score(optimal(SPECS["epsilon"]), elbo.rows(groups(1, 2), 0))


def test_noise_that_the_policy_finds_is_easier_to_find_again():
    """Its own ODE passes through latents from which it returns to about the same image."""
    spec = SPECS["epsilon"]
    inverted, drawn = elbo_of(spec, **INVERSION, inversion_steps=40), elbo_of(spec, noise_law=NoiseLaw.grid, draws=4)
    rows = prepared(inverted, spec)
    easy = inverted.score(optimal(spec), rows).log_prob.mean()
    hard = drawn.score(optimal(spec), drawn.rows(groups(2, 3), 0)).log_prob.mean()
    assert -easy < -0.3 * hard


def test_samples_of_a_group_share_levels_but_not_what_leads_there():
    spec = SPECS["epsilon"]
    elbo = elbo_of(spec, noise_law=NoiseLaw.inversion, shared_noise=True, loss_weight=LossWeight.time)
    rows = prepared(elbo, spec)
    assert len({row.content.level for row in rows[:3]}) == 1
    assert (rows[0].content.inverted != rows[1].content.inverted).all()
