"""Single steps against the published formulas, and the identities between the kernels."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.images.kernels.errors import KernelError
from rollout.images.kernels.levels import Level
from rollout.images.kernels.transition import MIN_STD, Transition, transition
from rollout.options import KernelKind
from tests.rollout.images.kernels.schedules import SCHEDULES, flow, variance_preserving

ETA = {
    KernelKind.ode: 0.0,
    KernelKind.ddim: 1.0,
    KernelKind.flow_sde: 0.7,
    KernelKind.dance_sde: 0.3,
    KernelKind.cps: 0.8,
    KernelKind.precise: 1.5,
}
DDIM_FORM = [KernelKind.ode, KernelKind.ddim, KernelKind.cps, KernelKind.precise]


def steps_of(schedule, kind: KernelKind, eta: float) -> list[tuple[Level, Level, Transition]]:
    return [(a, b, transition(kind, eta, a, b, schedule[1])) for a, b in pairwise(schedule)]


def approximately(first: Transition, second: Transition, tolerance: float) -> bool:
    return all(
        math.isclose(a, b, rel_tol=0, abs_tol=tolerance)
        for a, b in zip(vars(first).values(), vars(second).values(), strict=True)
    )


def flow_mean(step: Transition, level: Level, x: float, v: float) -> float:
    return step.signal * (x - level.noise * v) + step.noise * (x + level.signal * v)


@pytest.mark.parametrize("steps", [10, 40])
def test_flow_sde_is_the_published_step(steps):
    """x (1 + tau^2 dt / 2 sigma) + v (1 + tau^2 (1 - sigma) / 2 sigma) dt, std tau sqrt(-dt)."""
    schedule, x, v = flow(steps), 0.37, -1.9
    for level, following, step in steps_of(schedule, KernelKind.flow_sde, 0.7):
        sigma, dt = level.noise, following.noise - level.noise
        tau = 0.7 * math.sqrt(sigma / (1 - (schedule[1].noise if sigma == 1 else sigma)))
        mean = x * (1 + tau**2 * dt / (2 * sigma)) + v * (1 + tau**2 * (1 - sigma) / (2 * sigma)) * dt
        assert flow_mean(step, level, x, v) == pytest.approx(mean, abs=1e-12)
        assert step.std == pytest.approx(tau * math.sqrt(-dt), abs=1e-12)


def test_dance_sde_is_the_published_step():
    """x + v dsigma - eta^2 / 2 score dsigma with score = -(x - (1 - sigma) x0_hat) / sigma^2."""
    x, v, eta = 0.37, -1.9, 0.3
    for level, following, step in steps_of(flow(16), KernelKind.dance_sde, eta):
        sigma, dt = level.noise, following.noise - level.noise
        score = -(x - (1 - sigma) * (x - sigma * v)) / sigma**2
        assert flow_mean(step, level, x, v) == pytest.approx(x + v * dt - 0.5 * eta**2 * score * dt, abs=1e-12)
        assert step.std == pytest.approx(eta * math.sqrt(-dt), abs=1e-12)


def test_dance_sde_is_flow_sde_where_their_diffusions_meet():
    """Equal diffusion, equal step, whatever the schedule."""
    for name, schedule in SCHEDULES.items():
        level, following, second = schedule(10)[4], schedule(10)[5], schedule(10)[1]
        tau = 0.7 * math.sqrt(level.sigma / (1 - level.sigma))
        first = transition(KernelKind.flow_sde, 0.7, level, following, second)
        assert approximately(first, transition(KernelKind.dance_sde, tau, level, following, second), 1e-12), name
        assert not approximately(first, transition(KernelKind.dance_sde, tau + 1e-3, level, following, second), 1e-5)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_is_the_published_variance(eta):
    """eta^2 (1 - abar') / (1 - abar) (1 - abar / abar'): arXiv 2010.02502, eq. 16."""
    for level, following, step in steps_of(variance_preserving(20), KernelKind.ddim, eta):
        abar, abar_next = level.signal**2, following.signal**2
        variance = eta**2 * (1 - abar_next) / (1 - abar) * (1 - abar / abar_next)
        assert step.std**2 == pytest.approx(variance, abs=1e-12)


def test_precise_is_the_published_std():
    """sigma' sqrt(1 - q^(eta^2)), q = sigma' (1 - sigma) / (sigma (1 - sigma'))."""
    for level, following, step in steps_of(flow(20), KernelKind.precise, 1.5):
        ratio = following.noise * (1 - level.noise) / (level.noise * (1 - following.noise))
        assert step.std == pytest.approx(following.noise * math.sqrt(1 - ratio**2.25), abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [10, 40])
def test_precise_at_root_two_is_ddim_at_one(schedule, steps):
    chosen = SCHEDULES[schedule](steps)
    ddim, precise, other = (
        steps_of(chosen, kind, eta)
        for kind, eta in ((KernelKind.ddim, 1.0), (KernelKind.precise, math.sqrt(2)), (KernelKind.precise, 1.5))
    )
    assert all(approximately(a[2], b[2], 1e-7) for a, b in zip(ddim, precise, strict=True))
    assert not all(approximately(a[2], b[2], 1e-3) for a, b in zip(ddim, other, strict=True))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", DDIM_FORM)
def test_ddim_form_keeps_the_marginal(kind, schedule):
    """Exact estimates give signal' x0 + noise' eps: the variances of kept and fresh noise add up."""
    for _, following, step in steps_of(SCHEDULES[schedule](10), kind, ETA[kind]):
        assert step.signal == following.signal
        assert math.hypot(step.noise, step.std) == pytest.approx(following.noise, abs=1e-12)


@pytest.mark.parametrize("kind", [KernelKind.flow_sde, KernelKind.dance_sde])
def test_euler_form_keeps_the_marginal_only_to_first_order(kind):
    """Halving the steps' length must halve the summed error of the variance, which is not zero."""

    def error(steps: int) -> float:
        middle = flow(steps)[steps // 4 : 3 * steps // 4]
        return sum(math.hypot(step.noise, step.std) ** 2 - b.noise**2 for _, b, step in steps_of(middle, kind, 0.5))

    assert error(100) > 1e-3
    assert error(200) / error(400) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", ETA)
def test_vanishing_eta_is_the_ode(kind, schedule):
    chosen = SCHEDULES[schedule](10)
    if kind is KernelKind.precise:
        chosen = chosen[1:]  # from pure noise it redraws all of the noise at any eta above 0
    for tiny in (0.0, 1e-7):
        for (*_, step), (*_, ode) in zip(
            steps_of(chosen, kind, tiny), steps_of(chosen, KernelKind.ode, 0.0), strict=True
        ):
            assert step.std == 0
            assert approximately(step, ode, 1e-12)


def test_the_ode_of_a_flow_is_its_euler_step():
    x, v = 0.37, -1.9
    for level, following, step in steps_of(flow(10), KernelKind.ode, 0.0):
        assert flow_mean(step, level, x, v) == pytest.approx(x + v * (following.noise - level.noise), abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_steps_to_the_clean_latent(schedule):
    """Noise in proportion to the next level's ends by itself; Euler steps would leave theirs in the image."""
    for kind in ETA:
        *_, (_, clean, step) = steps_of(SCHEDULES[schedule](10), kind, ETA[kind])
        assert clean.noise == 0
        if kind in DDIM_FORM:
            assert step == Transition(1.0, 0.0, 0.0)
        else:
            assert step.std > 0.01


def test_precise_from_pure_noise_draws_the_whole_noise_afresh():
    schedule = flow(10)
    assert transition(KernelKind.precise, 1.5, schedule[0], schedule[1], schedule[1]) == Transition(
        schedule[1].signal, 0.0, schedule[1].noise
    )


def test_euler_steps_of_other_latents_are_those_of_the_scaled_latent():
    """Dividing by signal + noise gives a flow latent: the same step, in other units."""
    schedule = variance_preserving(10)
    as_flow = [Level(level.time, 1 - level.sigma, level.sigma) for level in schedule]
    for kind in (KernelKind.flow_sde, KernelKind.dance_sde):
        for (_, following, ours), (_, _, scaled) in zip(
            steps_of(schedule, kind, 0.3), steps_of(as_flow, kind, 0.3), strict=True
        ):
            scale = following.signal + following.noise
            expected = Transition(scaled.signal * scale, scaled.noise * scale, scaled.std * scale)
            assert approximately(ours, expected, 1e-12)


@pytest.mark.parametrize("first", [1.0, 0.9999999, 0.999, 0.99])
def test_flow_sde_next_to_pure_noise(first):
    """The published guard compares with 1 exactly; at 0.999 its std is 4, at 0.9999999 it is 400."""
    schedule = [Level(0.0, 1 - sigma, sigma) for sigma in (first, 0.96, 0.92)]
    at_one = transition(KernelKind.flow_sde, 0.7, Level(0.0, 0.0, 1.0), schedule[1], schedule[1]).std
    step = transition(KernelKind.flow_sde, 0.7, schedule[0], schedule[1], schedule[1])
    assert step.std == pytest.approx(at_one, rel=0.15)
    if first < 1:
        assert 0.7 * math.sqrt(first / (1 - first) * (first - 0.96)) > 1.7 * step.std


def test_faint_noise_is_no_noise():
    level, following = flow(10)[4:6]
    eta = math.asin(MIN_STD / following.noise) * 2 / math.pi
    below = transition(KernelKind.cps, eta * 0.999, level, following, level)
    above = transition(KernelKind.cps, eta * 1.001, level, following, level)
    assert below == Transition(following.signal, following.noise, 0.0)
    assert above.std > 0


@given(st.floats(0, 1), st.floats(0.001, 0.999), st.floats(0.01, 0.99), st.sampled_from(list(ETA)))
def test_every_step_is_a_finite_gaussian(eta, sigma, fraction, kind):
    level, following = (Level(0.0, 1 - s, s) for s in (sigma, sigma * fraction))
    step = transition(kind, eta, level, following, level)
    assert all(math.isfinite(value) for value in vars(step).values())
    assert step.std == 0 or step.std >= MIN_STD
    if kind in DDIM_FORM:
        assert 0 <= step.noise <= following.noise


@pytest.mark.parametrize(
    ("kind", "eta", "backwards", "message"),
    [
        (KernelKind.ddim, 1.01, False, "ddim takes 0 to 1"),
        (KernelKind.cps, 1.5, False, "cps takes 0 to 1"),
        (KernelKind.precise, -0.1, False, "at least 0"),
        (KernelKind.flow_sde, math.nan, False, "at least 0"),
        (KernelKind.flow_sde, math.inf, False, "at least 0"),
        (KernelKind.ode, 0.0, True, "lower the noise"),
    ],
)
def test_errors(kind, eta, backwards, message):
    level, following = flow(10)[4:6]
    if backwards:
        level, following = following, level
    with pytest.raises(KernelError, match=message):
        transition(kind, eta, level, following, level)


def test_noise_of_the_user_s_own_is_in_the_form_of_ddim() -> None:
    level, following = flow(10)[3:5]
    steps = {}
    for share in (0.0, 0.6, 1.0):
        custom = lambda eta, level, following, share=share: eta * share * following.noise  # noqa: E731
        steps[share] = transition(KernelKind.custom, 1.0, level, following, level, custom)
    assert vars(steps[0.0]) == {"signal": following.signal, "noise": following.noise, "std": 0.0}
    assert steps[0.6].std == pytest.approx(0.6 * following.noise)
    assert steps[0.6].noise == pytest.approx(0.8 * following.noise)
    assert (steps[1.0].noise, steps[1.0].std) == (0.0, following.noise)
    assert {step.signal for step in steps.values()} == {following.signal}


@pytest.mark.parametrize("share", [-0.1, 1.001, math.nan])
def test_noise_of_the_user_s_own_that_cannot_be_is_refused(share: float) -> None:
    level, following = flow(10)[3:5]
    with pytest.raises(KernelError, match=r"return a number from 0 to following.noise"):
        transition(KernelKind.custom, 1.0, level, following, level, lambda *_: share * following.noise)
    with pytest.raises(KernelError, match="there is none"):
        transition(KernelKind.custom, 1.0, level, following, level)
