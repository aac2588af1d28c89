"""The denoising loss of Gaussian images under their optimal denoiser, against its closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import rl.likelihood.image_elbo
from configs.algorithm_options import KlEstimator, LossWeight, NoiseLaw
from models.images.prediction import Prediction
from models.images.spec import ImageSpec
from rl.algorithm.denoising_scores import DenoisingScores
from rl.likelihood.image_elbo import ImageElbo, concave
from rollout.images.kernels.levels import Level
from rollout.images.sampler import Schedule
from rollout.options import DenoisingOptions
from tests.rl.support.gaussian_images import FLOW, SPECS, STD, elbo_of, groups, optimal, optimal_loss, signal_powers

POWER = {LossWeight.none: 0, LossWeight.time: 1, LossWeight.time_squared: 2}


def estimates(elbo: ImageElbo, network, trajectories, draw: int = 0) -> np.ndarray:
    """(samples,) sum of coefficient x log-probability over a sample's draws, divided by their number."""
    totals: dict[tuple[int, int], float] = {}
    rows = elbo.rows(trajectories, draw)
    values = elbo.score(network, rows).log_prob
    for row, value in zip(rows, values.tolist(), strict=True):
        key = row.trajectory, row.sample
        totals[key] = totals.get(key, 0.0) + float(row.coefficient[0]) * value
    return np.array(list(totals.values())) / elbo.draws


def expected(spec: ImageSpec, law: NoiseLaw, weight: LossWeight, low: float = 0.0, high: float = 1.0) -> float:
    def weighted(level: Level) -> float:
        return level.sigma ** POWER[weight] * optimal_loss(spec, level)

    if law is NoiseLaw.grid:
        levels = Schedule(spec, DenoisingOptions(steps=10)).levels[round(10 * (1 - high)) : round(10 * (1 - low))]
        return float(np.mean([weighted(level) for level in levels]))
    if spec.prediction is Prediction.flow:
        density = stats.uniform.pdf if law is NoiseLaw.uniform else logit_normal
        mass = integrate.quad(density, low, high)[0]
        return integrate.quad(lambda t: density(t) * weighted(Level(1000 * t, 1 - t, t)), low, high)[0] / mass
    powers = signal_powers().tolist()[round(1000 * low) : round(1000 * high)]
    places = (np.arange(1000)[round(1000 * low) : round(1000 * high)] + 0.5) / 1000
    density = np.ones(len(places)) if law is NoiseLaw.uniform else np.array([logit_normal(place) for place in places])
    losses = [weighted(Level(0, power**0.5, (1 - power) ** 0.5)) for power in powers]
    return float(np.average(losses, weights=density))


def logit_normal(t: float) -> float:
    return stats.norm.pdf(math.log(t / (1 - t))) / (t * (1 - t)) if 0 < t < 1 else 0.0


def test_the_uniform_law_of_a_flow_in_one_formula():
    assert expected(FLOW, NoiseLaw.uniform, LossWeight.none) == pytest.approx(STD * math.pi / 2)


@pytest.mark.parametrize("draws", [1, 4])
@pytest.mark.parametrize("weight", POWER)
@pytest.mark.parametrize("law", [NoiseLaw.uniform, NoiseLaw.logit_normal, NoiseLaw.grid])
@pytest.mark.parametrize("name", SPECS)
def test_the_expected_loss(name, law, weight, draws):
    spec = SPECS[name]
    elbo = elbo_of(spec, noise_law=law, loss_weight=weight, draws=draws)
    found = -estimates(elbo, optimal(spec), groups(10, 40))
    error = found.std() / len(found) ** 0.5
    assert found.mean() == pytest.approx(expected(spec, law, weight), abs=4 * error)
    other = LossWeight.none if weight is not LossWeight.none else LossWeight.time
    assert abs(found.mean() - expected(spec, law, other)) > 4 * error  # the control


@pytest.mark.parametrize("law", [NoiseLaw.uniform, NoiseLaw.logit_normal, NoiseLaw.grid])
def test_the_expected_loss_of_a_range(law):
    elbo = elbo_of(FLOW, noise_law=law, level_range=(0.4, 0.9))
    found = -estimates(elbo, optimal(FLOW), groups(10, 40))
    error = found.std() / len(found) ** 0.5
    assert found.mean() == pytest.approx(expected(FLOW, law, LossWeight.none, 0.4, 0.9), abs=4 * error)
    assert abs(found.mean() - expected(FLOW, law, LossWeight.none)) > 4 * error


def test_stratified_draws_vary_less_than_independent_ones():
    trajectories, network = groups(10, 20), optimal(FLOW)
    spread = estimates(elbo_of(FLOW, draws=4), network, trajectories).std()
    passes = [estimates(elbo_of(FLOW), network, trajectories, draw=draw) for draw in range(4)]
    assert spread < 0.5 * np.mean(passes, axis=0).std()


def seen(elbo: ImageElbo, trajectories) -> list[tuple[float, torch.Tensor]]:
    """Time and noise of each row, from what a network is shown."""
    found = []

    def network(latents, time, *condition):
        found.extend(zip(time.tolist(), latents, strict=True))
        return latents

    rows = elbo.rows(trajectories, 0)
    elbo.score(network, rows)
    pairs = zip(found, rows, [row.content.level.sigma for row in rows], strict=True)
    return [(time, (x - (1 - sigma) * row.content.clean) / sigma) for (time, x), row, sigma in pairs]


def test_samples_of_a_group_share_their_noise_or_do_not():
    trajectories = groups(2, 3)
    shared = seen(elbo_of(FLOW, shared_noise=True, draws=2, level_range=(0.1, 1.0)), trajectories)
    own = seen(elbo_of(FLOW, draws=2, level_range=(0.1, 1.0)), trajectories)
    for group in (0, 1):
        for draw in (0, 1):
            first, *others = (shared[(group * 3 + sample) * 2 + draw] for sample in range(3))
            for time, noise in others:
                assert time == first[0]
                torch.testing.assert_close(noise, first[1], atol=1e-4, rtol=0)
    distinct = {time for time, _ in shared}
    assert len(distinct) == 4  # two groups, two draws
    assert len({time for time, _ in own}) == 12
    products = [float((a * b).mean()) for i, (_, a) in enumerate(own) for _, b in own[:i]]
    assert max(map(abs, products)) < 0.3  # independent; of equal noise the mean square is near 1


def test_shared_noise_does_not_depend_on_which_samples_are_left():
    elbo, trajectories = elbo_of(FLOW, shared_noise=True), groups(1, 4)
    whole = elbo.score(optimal(FLOW), elbo.rows(trajectories, 0)).log_prob
    part = elbo.score(optimal(FLOW), elbo.rows([trajectories[0].take([1, 3])], 0)).log_prob
    torch.testing.assert_close(part, whole[[1, 3]])


def test_shared_noise_cancels_in_differences():
    """Of similar siblings, as of a preference's two images."""
    trajectories = groups(60, 2)
    for trajectory in trajectories:
        trajectory.final[1] = trajectory.final[0] + 0.05 * trajectory.final[1]

    def spread(**options) -> float:
        found = estimates(elbo_of(FLOW, **options), optimal(FLOW), trajectories).reshape(60, 2)
        return float((found[:, 0] - found[:, 1]).std())

    assert spread(shared_noise=True) < 0.2 * spread()


@pytest.mark.parametrize("shared", [False, True])
def test_demonstrations_of_the_same_seed_and_prompt_are_reproducible(shared):
    elbo = elbo_of(FLOW, shared_noise=shared)
    first, again = (estimates(elbo, optimal(FLOW), groups(2, 2), draw=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (estimates(elbo, optimal(FLOW), groups(2, 2), draw=4) != first).all()


def gradient(elbo: ImageElbo, distance: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Coefficient, log-probability and gradient of their product (M, ...) by the output, at outputs `distance` x noise
    away from the target, and that error."""
    rows = elbo.rows(groups(1, 6), 0)
    error = distance * torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    outputs = []

    def network(latents, time, *condition):
        clean = torch.stack([row.content.clean for row in rows])
        sigma = (time / 1000).view(-1, 1, 1, 1)
        outputs.append(((latents - clean) / sigma + error).requires_grad_())
        return outputs[0]

    coefficient = torch.tensor([float(row.coefficient[0]) for row in rows])
    log_prob = elbo.score(network, rows).log_prob
    (slope,) = torch.autograd.grad((coefficient * log_prob).sum(), outputs)
    return coefficient, log_prob.detach(), slope, error


@pytest.mark.parametrize("weight", LossWeight)
def test_the_on_policy_gradient_is_that_of_the_weighted_loss(weight):
    """AWM: with ratio exp(w - w_old) and w = w_old, advantage x gradient of w(t, l), which is written out here."""
    elbo = elbo_of(FLOW, loss_weight=weight, level_range=(0.2, 1.0))
    coefficient, log_prob, slope, error = gradient(elbo, 0.5)
    loss = error.square().flatten(1).mean(-1)
    time = torch.tensor([row.content.level.noise for row in elbo.rows(groups(1, 6), 0)])
    derivative = {
        LossWeight.none: torch.ones(6),
        LossWeight.time: time,
        LossWeight.time_squared: time**2,
        LossWeight.huber: time * (loss + 1e-4) ** -0.75,
    }[weight]
    by_hand = -derivative.view(-1, 1, 1, 1) * 2 * error / error[0].numel()
    torch.testing.assert_close(slope, by_hand, rtol=1e-3, atol=1e-6)
    value = time * 4 * ((loss + 1e-4) ** 0.25 - 1e-4**0.25) if weight is LossWeight.huber else derivative * loss
    torch.testing.assert_close(coefficient * log_prob, -value, rtol=1e-3, atol=1e-6)


def test_the_concave_weight_is_flat_where_only_rounding_is_left(monkeypatch):
    elbo = elbo_of(FLOW, loss_weight=LossWeight.huber, level_range=(0.2, 1.0))
    ordinary, rounding = (gradient(elbo, distance)[2].norm() for distance in (1.0, 1e-7))
    assert rounding < 1e-3 * ordinary
    monkeypatch.setattr(rl.likelihood.image_elbo, "HUBER_OFFSET", 1e-10)  # the published one
    assert gradient(elbo, 1e-7)[2].norm() > 0.1 * ordinary


def test_the_concave_weight_is_concave_and_zero_without_error():
    loss = torch.linspace(0, 4, 100, dtype=torch.float64)
    value = concave(loss)
    assert value[0] == 0
    assert (value.diff() > 0).all()
    assert (value.diff().diff() < 0).all()
    assert float(concave(torch.tensor(1.0))) == pytest.approx(4 * (1 - 0.1), abs=1e-3)


def test_the_distance_of_outputs():
    elbo = elbo_of(FLOW)
    rows = elbo.rows(groups(1, 3), 0)
    policy = elbo.score(optimal(FLOW), rows)
    offset = torch.tensor([0.1, 0.3, 0.1, 0.3]).view(4, 1, 1)
    reference = elbo.score(lambda *given: optimal(FLOW)(*given) + offset, rows)
    assert isinstance(policy, DenoisingScores)
    torch.testing.assert_close(policy.kl(reference, KlEstimator.output), torch.full((3,), (0.01 + 0.09) / 2))
    assert policy.kl(policy, KlEstimator.output).tolist() == [0.0] * 3


@pytest.mark.parametrize("name", SPECS)
def test_the_clean_estimate_is_the_posterior_mean(name):
    """E[x0 | x] of a Gaussian, from an optimal output of any kind."""
    spec = SPECS[name]
    elbo = elbo_of(spec)
    scores = elbo.score(optimal(spec), elbo.rows(groups(1, 8), 0))
    a, b = scores.level.signal, scores.level.noise
    mean = 0.5 + a * STD**2 / (a**2 * STD**2 + b**2) * (scores.latents - a * 0.5)
    torch.testing.assert_close(scores.clean_estimate(scores.output), mean, rtol=1e-3, atol=1e-3)
