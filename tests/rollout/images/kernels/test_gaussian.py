"""The object that draws and scores: densities, divergences, ratios, and that rounding comes before scoring."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from models.images.prediction import Prediction
from rollout.images.kernels.errors import KernelError
from rollout.images.kernels.gaussian import GaussianSteps, clip_from_kl
from rollout.options import KernelKind, LatentPrecision, Reduction
from tests.rollout.images.kernels.schedules import SCHEDULES, flow, output, variance_preserving
from tests.rollout.images.kernels.test_transition import ETA

STOCHASTIC = [kind for kind in ETA if kind is not KernelKind.ode]
LOW_PRECISION = [LatentPrecision.bf16, LatentPrecision.fp16]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def flow_kernel(kind: KernelKind = KernelKind.precise, steps: int = 10, **options) -> GaussianSteps:
    return GaussianSteps(Prediction.flow, flow(steps), kind, ETA[kind], **options)


def with_std(std: float, step: int = 5, **options) -> GaussianSteps:
    """A kernel whose step 5 has this std."""
    eta = math.asin(std / flow(10)[step + 1].noise) * 2 / math.pi
    kernel = GaussianSteps(Prediction.flow, flow(10), KernelKind.cps, eta, **options)
    assert float(kernel.std(step)) == pytest.approx(std)
    return kernel


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", ETA)
def test_the_prediction_s_form_does_not_matter(kind, schedule):
    """Outputs that describe the same clean latent give the same estimate and the same step."""
    levels = SCHEDULES[schedule](10)[1:]  # a flow's first level holds no signal: epsilon says nothing there
    x0, eps, noise = (random(2, 3, 4, 4, seed=seed) for seed in range(3))
    for step, level in enumerate(levels[:-1]):
        x = level.signal * x0 + level.noise * eps
        following = []
        for prediction in Prediction:
            kernel = GaussianSteps(prediction, levels, kind, ETA[kind])
            out = output(prediction, level, x0, eps)
            torch.testing.assert_close(kernel.denoised(x, out, step), x0, atol=1e-4, rtol=0)
            following.append(kernel.advance(x, out, step, noise))
        torch.testing.assert_close(following[0], following[1], atol=1e-4, rtol=0)
        torch.testing.assert_close(following[0], following[2], atol=1e-4, rtol=0)


def test_epsilon_needs_signal():
    with pytest.raises(KernelError, match="without signal"):
        GaussianSteps(Prediction.epsilon, flow(10), KernelKind.precise, 1.5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", STOCHASTIC)
def test_only_the_last_step_is_deterministic(kind, schedule):
    kernel = GaussianSteps(Prediction.v, SCHEDULES[schedule](10), kind, ETA[kind])
    assert kernel.stochastic == (True,) * 9 + (False,)
    assert kernel.stochastic_steps == tuple(range(9))


def test_the_last_step_gives_the_estimate_of_the_clean_latent():
    x, out = random(2, 5), random(2, 5, seed=1)
    for kind in ETA:
        kernel = flow_kernel(kind)
        torch.testing.assert_close(kernel.advance(x, out, 9, random(2, 5, seed=2)), kernel.denoised(x, out, 9))


def test_a_schedule_of_one_step_only_denoises():
    x, out = random(2, 5), random(2, 5, seed=1)
    kernel = flow_kernel(steps=1)
    assert kernel.stochastic == (False,)
    torch.testing.assert_close(kernel.advance(x, out, 0, random(2, 5, seed=2)), x - out)


def test_last_step_of_a_schedule_that_stops_short_of_the_clean_latent():
    """Stable Diffusion 1 ends at its least noisy trained level: noise drawn there would still stay in the image."""
    kernel = GaussianSteps(Prediction.v, variance_preserving(10)[:-1], KernelKind.ddim, 1.0)
    assert kernel.stochastic == (True,) * 8 + (False,)


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_without_noise_a_step_follows_the_ode(kind):
    x, out = random(2, 5), random(2, 5, seed=1)
    ode = flow_kernel(KernelKind.ode)
    for step in range(10):
        expected = ode.advance(x, out, step, noise=torch.zeros_like(x))
        assert torch.equal(flow_kernel(kind).advance(x, out, step, noise=None), expected)
    assert not torch.equal(flow_kernel(kind).advance(x, out, 4, noise=torch.zeros_like(x)), ode.mean(x, out, 4))
    assert ode.stochastic_steps == ()


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_rows_may_be_at_different_steps(kind):
    kernel, steps = flow_kernel(kind), torch.tensor([3, 0, 8, 3])
    x, out, noise = (random(4, 2, 3, 3, seed=seed) for seed in range(3))
    together = kernel.advance(x, out, steps, noise)
    scores = kernel.log_prob(together, kernel.mean(x, out, steps), steps)
    assert scores.shape == (4,)
    for row, step in enumerate(steps.tolist()):
        one = slice(row, row + 1)
        alone = kernel.advance(x[one], out[one], step, noise[one])
        assert torch.equal(alone, together[one])
        assert torch.equal(kernel.log_prob(alone, kernel.mean(x[one], out[one], step), step), scores[one])
        assert float(kernel.std(steps)[row]) == float(kernel.std(step))


@pytest.mark.parametrize("reduction", Reduction)
def test_log_prob_is_the_normal_log_density(reduction):
    kernel = flow_kernel(reduction=reduction)
    x, out = random(3, 2, 4, 4), random(3, 2, 4, 4, seed=1)
    for step in kernel.stochastic_steps:
        mean = kernel.mean(x, out, step)
        following = kernel.advance(x, out, step, random(3, 2, 4, 4, seed=2))
        densities = stats.norm.logpdf(following.double(), mean.double(), float(kernel.std(step))).reshape(3, -1)
        expected = densities.sum(-1) if reduction is Reduction.sum else densities.mean(-1)
        np.testing.assert_allclose(kernel.log_prob(following, mean, step), expected, rtol=1e-10)


def test_log_prob_resolves_a_thousandth_of_a_nat_on_a_large_latent():
    kernel, x = flow_kernel(), random(1, 16, 64, 64)
    mean = kernel.mean(x, torch.zeros_like(x), 0)
    following = kernel.advance(x, torch.zeros_like(x), 0, random(1, 16, 64, 64, seed=1))
    moved = following.clone()
    moved[0, 0, 0, 0] += 1e-3
    before, after = kernel.log_prob(following, mean, 0), kernel.log_prob(moved, mean, 0)
    assert 0 < abs(float(after - before)) < 4e-3
    assert before.float() == after.float(), "fp32 would do as well"


def test_log_prob_s_gradient():
    """(x' - mean) / std^2 times the mean's derivative by the output."""
    kernel, x = flow_kernel(), random(2, 5)
    out = random(2, 5, seed=1).requires_grad_()
    following = kernel.advance(x, out, 4, random(2, 5, seed=2)).detach()
    mean = kernel.mean(x, out, 4)
    (gradient,) = torch.autograd.grad(kernel.log_prob(following, mean, 4).sum(), out)
    (of_mean,) = torch.autograd.grad(kernel.mean(x, out, 4).sum(), out)
    torch.testing.assert_close(gradient, (following - mean).detach() / kernel.std(4).float() ** 2 * of_mean)
    torch.testing.assert_close(of_mean.abs(), torch.full_like(of_mean, float(kernel.output_scale(4))))


@pytest.mark.parametrize("step", [9, torch.tensor([0, 9])])
def test_a_deterministic_step_has_no_density(step):
    kernel, x = flow_kernel(), random(2, 5)
    for score in (kernel.log_prob, kernel.kl):
        with pytest.raises(KernelError, match="have a density"):
            score(x, x, step)


@pytest.mark.parametrize("kind", STOCHASTIC)
@pytest.mark.parametrize("storage", LatentPrecision)
def test_replay_of_a_stored_step_has_ratio_one(storage, kind):
    """Bitwise, from another batch and through the storage type; and not if a step is scored before it is rounded."""
    kernel = flow_kernel(kind, storage=storage)
    x, out, noise = (random(4, 4, 16, 16, seed=seed) for seed in range(3))
    dtype = {LatentPrecision.bf16: torch.bfloat16, LatentPrecision.fp16: torch.float16}.get(storage, torch.float32)
    for step in kernel.stochastic_steps:
        following, mean = kernel.advance(x, out, step, noise), kernel.mean(x, out, step)
        assert following.dtype is torch.float32
        stored = following.to(dtype)
        behaviour = kernel.log_prob(following, mean, step)
        order = torch.tensor([2, 0])
        again = kernel.log_prob(stored[order].float(), kernel.mean(x[order], out[order], step), torch.full((2,), step))
        assert torch.equal(again, behaviour[order])
        if storage is LatentPrecision.bf16:
            unrounded = mean + float(kernel.std(step)) * noise
            assert ((kernel.log_prob(unrounded, mean, step) - behaviour).abs() > 1e-3).any()


# Mean drift of the log-probability per element if a step is scored before rounding: latents of unit size, 65536
# elements, computed independently of this code.
DRIFT = {
    (LatentPrecision.fp16, 0.3): -3e-7,
    (LatentPrecision.fp16, 0.1): -2e-6,
    (LatentPrecision.fp16, 0.03): -2.7e-5,
    (LatentPrecision.bf16, 0.3): -1.6e-5,
    (LatentPrecision.bf16, 0.1): -1.2e-4,
    (LatentPrecision.bf16, 0.03): -1.6e-3,
}


@pytest.mark.parametrize(("storage", "std"), DRIFT)
def test_scoring_before_rounding_drifts(storage, std):
    kernel = with_std(std, storage=storage, reduction=Reduction.mean)
    mean = random(32, 65536)
    noise = random(32, 65536, seed=1)
    exact = mean + std * noise
    rounded = exact.to(torch.bfloat16 if storage is LatentPrecision.bf16 else torch.float16).float()
    drift = kernel.log_prob(rounded, mean, 5) - kernel.log_prob(exact, mean, 5)
    uncertainty = float(drift.std()) / math.sqrt(len(drift))
    rounding_power = float((rounded - exact).double().square().mean())
    assert float(drift.mean()) == pytest.approx(-rounding_power / (2 * std**2), abs=4 * uncertainty)
    assert float(drift.mean()) == pytest.approx(DRIFT[storage, std], rel=0.5, abs=4 * uncertainty)


def shifted_steps(std: float, shift: float, reduction: Reduction = Reduction.sum, samples: int = 20_000):
    """A kernel, draws of the old policy, its mean, and a new mean that is `shift` std away in Euclidean length."""
    kernel, elements = with_std(std, reduction=reduction), 12
    old_mean = random(1, elements).expand(samples, elements)
    direction = torch.nn.functional.normalize(random(1, elements, seed=1))
    following = old_mean + std * random(samples, elements, seed=2)
    return kernel, following, old_mean, old_mean + shift * std * direction


def test_kl_is_the_mean_log_ratio():
    kernel, following, old_mean, new_mean = shifted_steps(0.1, 0.7)
    log_ratio = kernel.log_prob(following, old_mean, 5) - kernel.log_prob(following, new_mean, 5)
    kl = kernel.kl(new_mean, old_mean, 5)
    assert float(kl[0]) == pytest.approx(0.7**2 / 2, rel=1e-4)
    assert float(log_ratio.mean()) == pytest.approx(float(kl[0]), abs=4 * float(log_ratio.std()) / 20_000**0.5)
    normals = [torch.distributions.Normal(mean[:1].double(), kernel.std(5)) for mean in (new_mean, old_mean)]
    assert float(kl[0]) == pytest.approx(float(torch.distributions.kl_divergence(*normals).sum()), rel=1e-10)


@pytest.mark.parametrize("reduction", Reduction)
def test_guard_s_log_ratio(reduction):
    """std * (log ratio + KL) = z (new mean - old mean); unbiased, where the plain log-ratio's mean is minus the KL."""
    kernel, following, old_mean, new_mean = shifted_steps(0.1, 0.7, reduction)
    log_ratio = kernel.log_prob(following, new_mean, 5) - kernel.log_prob(following, old_mean, 5)
    kl = kernel.kl(new_mean, old_mean, 5)
    guard = kernel.guard_log_ratio(following, new_mean, old_mean, 5)
    torch.testing.assert_close(guard, 0.1 * (log_ratio + kl), atol=1e-10, rtol=1e-6)
    product = random(20_000, 12, seed=2) * (new_mean - old_mean)
    expected = product.sum(-1) if reduction is Reduction.sum else product.mean(-1)
    torch.testing.assert_close(guard.float(), expected, atol=1e-5, rtol=1e-4)
    uncertainty = float(log_ratio.std()) / 20_000**0.5
    assert abs(float(guard.mean())) / 0.1 < 4 * uncertainty
    assert float(log_ratio.mean()) < -4 * uncertainty
    assert float(log_ratio.mean()) == pytest.approx(-float(kl[0]), abs=4 * uncertainty)


def test_guard_is_equally_wide_at_every_std():
    widths = [
        (float(kernel.guard_log_ratio(f, new, old, 5).std()), float((kernel.log_prob(f, new, 5)).std()))
        for kernel, f, old, new in (shifted_steps(std, 0.01 / std) for std in (0.05, 0.3))
    ]
    assert widths[0][0] == pytest.approx(widths[1][0], rel=1e-3)


def test_old_mean_comes_back_from_the_noise():
    kernel = flow_kernel()
    x, out, noise = (random(3, 5, seed=seed) for seed in range(3))
    for step in (4, torch.tensor([1, 5, 8])):
        following = kernel.advance(x, out, step, noise)
        torch.testing.assert_close(
            kernel.old_mean(following, noise, step), kernel.mean(x, out, step), atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("storage", LOW_PRECISION)
def test_old_mean_does_not_come_back_through_rounding(storage):
    kernel = flow_kernel(storage=storage)
    with pytest.raises(KernelError, match="store them in fp32"):
        kernel.old_mean(random(1, 5), random(1, 5), 0)


@pytest.mark.parametrize("kind", [KernelKind.flow_sde, KernelKind.dance_sde])
def test_flow_grpo_s_kl(kind):
    """mean |difference|^2 / (2 tau^2): smaller than the KL by the step's length in flow time."""
    schedule, kernel = flow(10), flow_kernel(kind, reduction=Reduction.mean)
    mean, reference = random(2, 7), random(2, 7, seed=1)
    for step in kernel.stochastic_steps:
        sigma = schedule[step].noise
        tau = ETA[kind]
        if kind is KernelKind.flow_sde:
            tau *= math.sqrt(sigma / (1 - (schedule[1].noise if sigma == 1 else sigma)))
        expected = (mean - reference).double().square().mean(-1) / (2 * tau**2)
        torch.testing.assert_close(kernel.flow_grpo_kl(mean, reference, step), expected)
        ratio = kernel.kl(mean, reference, step) / kernel.flow_grpo_kl(mean, reference, step)
        assert ratio.tolist() == pytest.approx([1 / (sigma - schedule[step + 1].noise)] * 2)
    rows = kernel.flow_grpo_kl(mean, reference, torch.tensor([2, 6]))
    assert rows.tolist() == [float(kernel.flow_grpo_kl(mean, reference, step)[row]) for row, step in enumerate((2, 6))]


def test_flow_grpo_s_kl_of_other_latents_is_that_of_the_scaled_latent():
    schedule = variance_preserving(10)
    kernel = GaussianSteps(Prediction.v, schedule, KernelKind.dance_sde, 0.3)
    mean, reference = random(1, 7), random(1, 7, seed=1)
    scale = schedule[5].signal + schedule[5].noise
    expected = ((mean.double() - reference.double()) / scale).square().sum() / (2 * 0.3**2)
    assert float(kernel.flow_grpo_kl(mean, reference, 4)) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("kind", [KernelKind.ddim, KernelKind.cps, KernelKind.precise])
def test_flow_grpo_s_kl_needs_an_sde(kind):
    with pytest.raises(KernelError, match="use the exact KL"):
        flow_kernel(kind).flow_grpo_kl(random(1, 5), random(1, 5), 0)


@pytest.mark.parametrize("kind", ETA)
def test_output_scale_is_precise_s(kind):
    """Published for flow models: dt - std^2 (1 - sigma) / (2 sigma) for Euler steps, and for the others
    (1 - sigma) sqrt(sigma'^2 - std^2) - sigma (1 - sigma'). Only for the ODE is it the step's length."""
    schedule, kernel = flow(10), flow_kernel(kind)
    for step in range(9):
        sigma, following, std = schedule[step].noise, schedule[step + 1].noise, float(kernel.std(step))
        if kind in (KernelKind.flow_sde, KernelKind.dance_sde):
            expected = following - sigma - std**2 * (1 - sigma) / (2 * sigma)
        else:
            expected = (1 - sigma) * math.sqrt(max(following**2 - std**2, 0)) - sigma * (1 - following)
        assert float(kernel.output_scale(step)) == pytest.approx(abs(expected), abs=1e-12)
        if step > 0:  # at sigma 1 the output has no part in eps_hat, and all kernels agree
            is_length = math.isclose(abs(expected), sigma - following, rel_tol=1e-6)
            assert is_length == (kind is KernelKind.ode)


@pytest.mark.parametrize("reduction", Reduction)
def test_clip_from_kl_is_one_std_of_the_log_ratio(reduction):
    nats = 0.02
    kernel, following, old_mean, new_mean = shifted_steps(0.1, math.sqrt(2 * nats), reduction)
    log_ratio = kernel.log_prob(following, new_mean, 5) - kernel.log_prob(following, old_mean, 5)
    expected = float(kernel.kl(new_mean, old_mean, 5)[0]) * (1 if reduction is Reduction.sum else 12)
    assert expected == pytest.approx(nats, rel=1e-4)
    assert float(log_ratio.std()) == pytest.approx(clip_from_kl(nats, 12, reduction), rel=0.03)


def test_clip_from_kl_explains_the_folklore():
    """1e-4 on the mean log-ratio is 1.34 nats a step for a 512 x 512 image of Stable Diffusion 1."""
    assert clip_from_kl(1.342, 16384, Reduction.mean) == pytest.approx(1e-4, rel=1e-3)


def test_low_precision_outputs_do_not_lower_the_step_s_precision():
    kernel, x = flow_kernel(), random(2, 5)
    out = random(2, 5, seed=1).bfloat16()
    assert torch.equal(kernel.mean(x, out, 3), kernel.mean(x, out.float(), 3))
    assert kernel.mean(x, out, 3).dtype is torch.float32
