"""The Gaussian steps of a whole schedule: means, draws and densities, one object for the sampler and the learner.

Estimates and means are linear in the latent and the network's output, so a step is two scalars, mean = A x + B output.
They are computed in fp64 on the host; the step itself runs in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from models.images.prediction import Prediction
from rollout.images.kernels.errors import KernelError
from rollout.images.kernels.levels import Level
from rollout.images.kernels.transition import EULER_KINDS, StepNoise, Transition, transition
from rollout.options import KernelKind, LatentPrecision, Reduction

_STORAGE = {
    LatentPrecision.fp32: torch.float32,
    LatentPrecision.bf16: torch.bfloat16,
    LatentPrecision.fp16: torch.float16,
}


class Linear(NamedTuple):
    """latent * x + output * network_output"""

    latent: float
    output: float


def estimates(prediction: Prediction, level: Level) -> tuple[Linear, Linear]:
    """x0_hat and eps_hat: the solution of x = a x0 + b eps and the definition of the network's output."""
    a, b = level.signal, level.noise
    if prediction is Prediction.epsilon:
        if a == 0:
            raise KernelError("predicted noise says nothing about the image at a level without signal: use v or flow")
        return Linear(1 / a, -b / a), Linear(0.0, 1.0)
    if prediction is Prediction.v:
        power = a**2 + b**2
        return Linear(a / power, -b / power), Linear(b / power, a / power)
    return Linear(1 / (a + b), -b / (a + b)), Linear(1 / (a + b), a / (a + b))


def ode_step(prediction: Prediction, level: Level, following: Level) -> Linear:
    """The step without noise to another level, less noisy or, in an inversion, noisier (DDIM, arXiv 2010.02502,
    section 4.3; the Euler step of a flow)."""
    return _mean(estimates(prediction, level), Transition(following.signal, following.noise, 0.0))


class GaussianSteps:
    """N steps over N + 1 levels. `step` is an index, or one for each of B rows as a (B,) int64 tensor, best on the CPU.

    The last step is deterministic whatever the kernel: noise that it added would stay in the image.
    """

    def __init__(
        self,
        prediction: Prediction,
        levels: Sequence[Level],
        kind: KernelKind,
        eta: float,
        storage: LatentPrecision = LatentPrecision.fp32,
        reduction: Reduction = Reduction.sum,
        custom: StepNoise | None = None,
    ) -> None:
        """
        Args:
            custom: the noise of kind=custom.

        Raises:
            KernelError: the levels, the kernel or the prediction do not go together.
        """
        self.kind, self.storage, self.reduction = kind, storage, reduction
        pairs = list(pairwise(levels))
        ode = [transition(KernelKind.ode, 0.0, level, following, levels[1]) for level, following in pairs]
        noisy = [transition(kind, eta, level, following, levels[1], custom) for level, following in pairs[:-1]]
        noisy += ode[-1:]
        self.stochastic = tuple(each.std > 0 for each in noisy)
        """Whether each of the N steps draws noise."""
        predicted = [estimates(prediction, level) for level in levels[:-1]]
        self._denoised = torch.tensor([x0 for x0, _ in predicted], dtype=torch.float64)
        self._ode = torch.tensor([_mean(*each) for each in zip(predicted, ode, strict=True)], dtype=torch.float64)
        self._mean = torch.tensor([_mean(*each) for each in zip(predicted, noisy, strict=True)], dtype=torch.float64)
        self._std = torch.tensor([each.std for each in noisy], dtype=torch.float64)
        lengths = [level.sigma - following.sigma for level, following in pairs]
        self._flow_time = torch.tensor(lengths, dtype=torch.float64)

    @property
    def stochastic_steps(self) -> tuple[int, ...]:
        return tuple(index for index, stochastic in enumerate(self.stochastic) if stochastic)

    def denoised(self, x: Tensor, output: Tensor, step: int | Tensor) -> Tensor:
        """(B, ...) fp32 estimate of the clean latent."""
        return _combine(self._denoised, x, output, step)

    def mean(self, x: Tensor, output: Tensor, step: int | Tensor) -> Tensor:
        """(B, ...) fp32 mean of the next latent, as the kernel draws it.

        Args:
            x: (B, ...) latents.
            output: (B, ...) what the network made of them, guidance included.
        """
        return _combine(self._mean, x, output, step)

    def advance(self, x: Tensor, output: Tensor, step: int | Tensor, noise: Tensor | None) -> Tensor:
        """(B, ...) the next latent, rounded to the storage type and given as fp32.

        Args:
            noise: (B, ...) standard normals, or None for a step of the ODE, as outside a window.
        """
        if noise is None:
            following = _combine(self._ode, x, output, step)
        else:
            following = self.mean(x, output, step) + _rows(self._std, step, x).float() * noise.float()
        return self.rounded(following)

    def rounded(self, latents: Tensor) -> Tensor:
        """fp32 latents as the storage type holds them."""
        return latents.to(_STORAGE[self.storage]).float()

    def log_prob(self, following: Tensor, mean: Tensor, step: int | Tensor) -> Tensor:
        """(B,) fp64 log-density of the next latent, as `advance` returned it: after rounding, never before.

        In fp64: the sum over the 65536 latent elements of a 512 x 512 image is near 1e5, where two neighbouring fp32
        numbers are 0.008 nats apart.
        """
        std = self._positive_std(step, mean)
        log_density = torch.distributions.Normal(mean.double(), std, validate_args=False).log_prob(following.double())
        return self._reduce(log_density)

    def kl(self, mean: Tensor, reference_mean: Tensor, step: int | Tensor) -> Tensor:
        """(B,) fp64 KL divergence of two steps from the same latent: they differ in the mean only."""
        std = self._positive_std(step, mean)
        return self._reduce(((mean.double() - reference_mean.double()) / std).square() / 2)

    def flow_grpo_kl(self, mean: Tensor, reference_mean: Tensor, step: int | Tensor) -> Tensor:
        """(B,) fp64 KL as Flow-GRPO's code has it: divided by the SDE's squared diffusion, without the step's length in
        flow time, which makes it smaller than the true one by that length.

        Raises:
            KernelError: the kernel is not an Euler step of an SDE.
        """
        if self.kind not in EULER_KINDS:
            raise KernelError(
                f"Flow-GRPO's KL is defined for {' and '.join(kind.name for kind in EULER_KINDS)}, not for "
                f"{self.kind.name}: use the exact KL"
            )
        length = _rows(self._flow_time, step, mean).flatten()
        return self.kl(mean, reference_mean, step) * length

    def guard_log_ratio(self, following: Tensor, mean: Tensor, old_mean: Tensor, step: int | Tensor) -> Tensor:
        """(B,) fp64 normalised log-ratio of GRPO-Guard (arXiv 2510.22319): std * (log ratio + KL of the two steps).

        With following = old_mean + std z it is the sum (or mean) of z (mean - old_mean): free of the plain ratio's bias
        and equally wide at every step.
        """
        std = self._positive_std(step, mean)
        shift, noise = mean.double() - old_mean.double(), (following.double() - old_mean.double()) / std
        return self._reduce(noise * shift)

    def old_mean(self, following: Tensor, noise: Tensor, step: int | Tensor) -> Tensor:
        """(B, ...) fp32 mean that the sampler had, from the latent it drew and the noise it used.

        Raises:
            KernelError: latents are stored in less than fp32: their rounding errors would be taken for the policy's.
        """
        if self.storage is not LatentPrecision.fp32:
            raise KernelError(f"the old mean cannot be had from {self.storage.name} latents: store them in fp32")
        return following - _rows(self._std, step, following).float() * noise.float()

    def output_scale(self, step: int | Tensor) -> Tensor:
        """(B,) or () fp64 length of the mean's derivative by the network's output, which Guard divides the loss by.

        Precise's choice. verl-omni divides by the step's length in flow time, which is the same for the ODE of a flow
        model and for nothing else.
        """
        return self._mean[:, 1].abs()[_index(step, self._mean)]

    def std(self, step: int | Tensor) -> Tensor:
        """(B,) or () fp64"""
        return self._std[_index(step, self._std)]

    def _positive_std(self, step: int | Tensor, like: Tensor) -> Tensor:
        if not (self.std(step) > 0).all():
            raise KernelError(f"step {step}: only the steps {self.stochastic_steps} draw noise and have a density")
        return _rows(self._std, step, like)

    def _reduce(self, elements: Tensor) -> Tensor:
        flat = elements.flatten(1)
        return flat.sum(-1) if self.reduction is Reduction.sum else flat.mean(-1)


def clip_from_kl(nats: float, elements: int, reduction: Reduction) -> float:
    """Half-width of a ratio's clip at which one step has moved `nats` from the old policy.

    A mean shifted by KL k changes the summed log-probability by sqrt(2 k) in standard deviation.
    """
    width = (2 * nats) ** 0.5
    return width if reduction is Reduction.sum else width / elements


def _mean(predicted: tuple[Linear, Linear], step: Transition) -> Linear:
    x0, eps = predicted
    return Linear(
        step.signal * x0.latent + step.noise * eps.latent,
        step.signal * x0.output + step.noise * eps.output,
    )


def _combine(coefficients: Tensor, x: Tensor, output: Tensor, step: int | Tensor) -> Tensor:
    of_latent, of_output = coefficients.unbind(-1)
    return _rows(of_latent, step, x).float() * x.float() + _rows(of_output, step, x).float() * output.float()


def _rows(values: Tensor, step: int | Tensor, like: Tensor) -> Tensor:
    """(B, 1, ...) or (1, 1, ...) fp64: one value for each row of `like`."""
    chosen = values[_index(step, values)].to(like.device)
    return chosen.reshape(-1, *[1] * (like.dim() - 1))


def _index(step: int | Tensor, values: Tensor) -> Tensor:
    return torch.as_tensor(step, dtype=torch.long, device=values.device)
