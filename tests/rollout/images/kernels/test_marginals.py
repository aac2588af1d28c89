"""What the kernels end at when the network is exact: Gaussian data, whose optimal network is linear.

The table was computed independently of this code: variance of the samples over variance of the data, for flow schedules
with shift 3. Here by propagation of the variance, and by drawing with the kernel object.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from models.images.prediction import Prediction
from rollout.images.kernels.gaussian import GaussianSteps
from rollout.images.kernels.levels import Level
from rollout.images.kernels.transition import Transition, transition
from rollout.noise import Purpose, normal
from rollout.options import KernelKind
from tests.rollout.images.kernels.schedules import SCHEDULES, flow, output

KERNELS = {
    "ode": (KernelKind.ode, 0.0),
    "flow_sde": (KernelKind.flow_sde, 0.7),
    "dance_sde": (KernelKind.dance_sde, 0.3),
    "cps": (KernelKind.cps, 0.7),
    "precise": (KernelKind.precise, 1.5),
    "ddim": (KernelKind.ddim, 1.0),
}
TABLE = {  # (std of the data, steps): ratio of each kernel, in the order of KERNELS
    (1.0, 10): (0.69, 0.80, 0.70, 0.52, 0.53, 0.55),
    (1.0, 40): (0.91, 0.95, 0.92, 0.65, 0.81, 0.83),
    (1.0, 400): (0.99, 1.00, None, 0.71, 0.98, 0.98),
    (0.2, 10): (0.24, 1.06, 0.67, 0.22, 0.22, 0.22),
    (0.2, 40): (0.72, 0.84, 0.82, 0.53, 0.57, 0.59),
}
CELLS = [
    (std, steps, name, ratio)
    for (std, steps), row in TABLE.items()
    for name, ratio in zip(KERNELS, row, strict=True)
    if ratio is not None
]


def own_steps(name: str, schedule: tuple[Level, ...]) -> list[Transition]:
    """Steps by the kernel's own rule, which may draw noise in the last one."""
    return [transition(*KERNELS[name], level, following, schedule[1]) for level, following in pairwise(schedule)]


def sampler_steps(name: str, schedule: tuple[Level, ...]) -> list[Transition]:
    *_, clean = own_steps("ode", schedule)
    return [*own_steps(name, schedule)[:-1], clean]


def variance_ratio(steps: list[Transition], schedule: tuple[Level, ...], std: float) -> float:
    """Variance of the samples over that of the data: given x, E[x0] and E[eps] are known multiples of x."""
    variance = 1.0
    for level, step in zip(schedule, steps, strict=False):
        power = (level.signal * std) ** 2 + level.noise**2
        factor = (step.signal * level.signal * std**2 + step.noise * level.noise) / power
        variance = factor**2 * variance + step.std**2
    return variance / std**2


@pytest.mark.parametrize(("std", "steps", "name", "ratio"), CELLS)
def test_known_table(std, steps, name, ratio):
    schedule = flow(steps)
    assert variance_ratio(own_steps(name, schedule), schedule, std) == pytest.approx(
        ratio, abs=0.006
    )  # the table has two digits


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("std", "steps"), [(1.0, 10), (0.2, 40)])
def test_drawn_samples_have_the_propagated_variance(std, steps, name):
    schedule, samples = flow(steps), 40_000
    kernel = GaussianSteps(Prediction.flow, schedule, *KERNELS[name])
    uid = torch.arange(samples)
    x = normal(uid, (1,), 0, Purpose.INITIAL)
    for step, level in enumerate(schedule[:-1]):
        power = (level.signal * std) ** 2 + level.noise**2
        out = output(Prediction.flow, level, level.signal * std**2 * x / power, level.noise * x / power)
        x = kernel.advance(x, out, step, normal(uid, (1,), step, Purpose.DIFFUSION))
    expected = variance_ratio(sampler_steps(name, schedule), schedule, std)
    assert float(x.var()) / std**2 == pytest.approx(expected, rel=4 * (2 / samples) ** 0.5)


def test_flow_sde_s_last_step_would_leave_noise_in_the_image():
    """On narrow data nearly all of the published sampler's variance is noise that nothing removes."""
    schedule = flow(10)
    own = variance_ratio(own_steps("flow_sde", schedule), schedule, 0.2)
    ours = variance_ratio(sampler_steps("flow_sde", schedule), schedule, 0.2)
    assert own > 1
    assert ours < 0.4


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", KERNELS)
def test_many_steps_reach_the_data(name, schedule):
    """All but CPS, which re-injects a fixed share of noise at every step. Do not mend it: it is what was published."""
    levels = SCHEDULES[schedule](400)
    ratio = variance_ratio(sampler_steps(name, levels), levels, 1.0)
    if name == "cps":
        assert ratio < 0.8
    else:
        assert 0.97 < ratio < 1.01
