"""One denoising step as a Gaussian: every published kernel is a choice of the step's noise.

A latent is x = a x0 + b eps (a `Level`). A network's output gives estimates x0_hat and eps_hat, and a step draws

    x' = signal * x0_hat + noise * eps_hat + std * z,    z standard normal.

The **DDIM form** (`ode`, `ddim`, `cps`, `precise`) has signal = a' and noise = sqrt(b'^2 - std^2): exact estimates then
give exactly the marginal of the next level (Song et al., "Denoising Diffusion Implicit Models", arXiv 2010.02502,
eq. 12). The **Euler form** (`flow_sde`, `dance_sde`) is a step of an SDE in flow time, right only in the limit of many
steps. It is written for a latent (1 - sigma) x0 + sigma eps; other latents are divided by a + b, which makes them such
latents with sigma = b / (a + b).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from rollout.images.kernels.errors import KernelError
from rollout.images.kernels.levels import Level
from rollout.options import KernelKind

MIN_STD = 5e-3
"""A step that would add less noise than this is made deterministic. Nobody sees such noise in latents of magnitude 1,
but a density that narrow turns the smallest update into a huge ratio; schedules that end at sigma 0.001 have such a
step, which had most of the gradient and 6000 nats of KL after one update of the embedded model."""

EULER_KINDS = (KernelKind.flow_sde, KernelKind.dance_sde)


StepNoise = Callable[[float, Level, Level], float]
"""(eta, level, following) -> standard deviation of the noise that the step adds, at most `following.noise`."""


@dataclass(frozen=True)
class Transition:
    signal: float
    """Factor of x0_hat in the mean."""
    noise: float
    """Factor of eps_hat in the mean."""
    std: float
    """Of the noise added to every element; 0 is a deterministic step."""


def transition(
    kind: KernelKind,
    eta: float,
    level: Level,
    following: Level,
    second: Level,
    custom: StepNoise | None = None,
) -> Transition:
    """The step from `level` to the less noisy `following`.

    Args:
        eta: amount of noise in the kernel's own unit; `ode` has none and ignores it.
        second: level 1 of the schedule; only `flow_sde` looks at it.
        custom: the noise of kind=custom.

    Raises:
        KernelError: `following` is not less noisy, or `eta` is out of the kernel's range.
    """
    if not level.sigma > following.sigma:
        raise KernelError(f"a step must lower the noise, but goes from sigma {level.sigma:g} to {following.sigma:g}")
    if not 0 <= eta < math.inf:
        raise KernelError(f"eta={eta}: it must be a number of at least 0")
    if kind in EULER_KINDS:
        return _euler_form(_diffusion(kind, eta, level, second), level, following)
    if kind is KernelKind.custom:
        if custom is None:
            raise KernelError("kernel=custom is a function of the user's, and there is none")
        return _ddim_form(_custom_std(custom, eta, level, following), following)
    return _ddim_form(_std(kind, eta, level, following), following)


def _ddim_form(std: float, following: Level) -> Transition:
    if std < MIN_STD:
        return Transition(following.signal, following.noise, 0.0)
    # At eta 1 the std may equal the level's noise, and exceed it by a rounding error.
    return Transition(following.signal, math.sqrt(max(following.noise**2 - std**2, 0.0)), std)


def _custom_std(custom: StepNoise, eta: float, level: Level, following: Level) -> float:
    std = float(custom(eta, level, following))
    if not 0 <= std <= following.noise * (1 + 1e-9):
        raise KernelError(
            f"the custom kernel adds noise of {std:g} on the way to a level of noise {following.noise:g}: return a "
            f"number from 0 to following.noise"
        )
    return std


def _std(kind: KernelKind, eta: float, level: Level, following: Level) -> float:
    if kind is KernelKind.ode or eta == 0:
        return 0.0
    # How much of the present noise survives if the signal is kept: 1 for no step, 0 for a step to the clean image.
    kept = following.noise * level.signal / (level.noise * following.signal)
    if kind is KernelKind.precise:
        # Zou et al., arXiv 2605.23522: the exact conditional of a diffusion whose noise decays by kept^(eta^2).
        return following.noise * math.sqrt(1 - kept ** (eta**2))
    if eta > 1:
        raise KernelError(f"eta={eta:g}: {kind.name} takes 0 to 1, where its noise is all of the next level's")
    if kind is KernelKind.ddim:
        # arXiv 2010.02502, eq. 16, for any a and b.
        return eta * following.noise * math.sqrt(1 - kept**2)
    # cps: Wang and Yu, arXiv 2509.05952.
    return following.noise * math.sin(eta * math.pi / 2)


def _euler_form(diffusion: float, level: Level, following: Level) -> Transition:
    """Euler-Maruyama step of dx = (v + diffusion^2 / (2 sigma) eps) dsigma + diffusion dw, from sigma down to sigma'.

    In terms of the estimates its mean is (1 - sigma') x0_hat + (sigma' - std^2 / (2 sigma)) eps_hat: the update rule
    that Flow-GRPO (arXiv 2505.05470) writes with x and v, and DanceGRPO (arXiv 2505.07818) with the score.
    """
    std = diffusion * math.sqrt(level.sigma - following.sigma)
    scale = following.signal + following.noise
    if std * scale < MIN_STD:
        std = 0.0
    return Transition(following.signal, scale * (following.sigma - std**2 / (2 * level.sigma)), scale * std)


def _diffusion(kind: KernelKind, eta: float, level: Level, second: Level) -> float:
    if kind is KernelKind.dance_sde:
        return eta
    # Flow-GRPO's eta sqrt(sigma / (1 - sigma)) is infinite at sigma 1. The published code puts the second level's sigma
    # into the denominator if sigma is exactly 1, so a schedule from 0.999 gets a diffusion of 22. Capping the sigma of
    # the denominator by that of the second level is the same at 1, continuous below, and changes no later step.
    return eta * math.sqrt(level.sigma / (1 - min(level.sigma, second.sigma)))
