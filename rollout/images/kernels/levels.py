"""The noise levels of a denoising schedule, as the pipeline's own diffusers scheduler would visit them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from models.images.prediction import Prediction
from rollout.images.kernels.errors import KernelError

FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler",)
VARIANCE_PRESERVING_SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
)
_PREDICTION_TYPES = {"epsilon": Prediction.epsilon, "v_prediction": Prediction.v}


@dataclass(frozen=True)
class Level:
    """A latent at this level is signal * x0 + noise * eps, with eps standard normal."""

    time: float
    """What the network is told, in the units of the scheduler's timesteps."""
    signal: float
    noise: float

    @property
    def sigma(self) -> float:
        """Share of noise, in [0, 1]: the flow time of the latent x / (signal + noise)."""
        return self.noise / (self.signal + self.noise)


def levels(
    scheduler_config: Mapping[str, Any],
    steps: int,
    image_tokens: int,
    prediction: Prediction,
    *,
    even_sigmas: bool = False,
) -> tuple[Level, ...]:
    """The steps + 1 levels from pure noise to the finished latent.

    Args:
        scheduler_config: the pipeline's scheduler_config.json, with its `_class_name`.
        steps: denoising steps.
        image_tokens: tokens of the latent in the transformer; only schedulers with dynamic shifting look at it.
        prediction: what the network predicts.
        even_sigmas: the pipeline hands its flow scheduler the sigmas 1, ..., 1 / steps, as FLUX's does; others leave it
            its own, which end at 1 / num_train_timesteps. Variance-preserving schedulers have no such choice.

    Raises:
        KernelError: the scheduler is unknown or not linear, the prediction does not fit it, or `steps` is out of range.
    """
    name = scheduler_config.get("_class_name")
    if name not in FLOW_SCHEDULERS + VARIANCE_PRESERVING_SCHEDULERS:
        supported = ", ".join(FLOW_SCHEDULERS + VARIANCE_PRESERVING_SCHEDULERS)
        raise KernelError(f"unknown scheduler {name!r}: scheduler_config.json must name one of {supported}")
    check_prediction(scheduler_config, prediction)
    trained = int(scheduler_config.get("num_train_timesteps", 1000))
    if not 1 <= steps <= trained:
        raise KernelError(
            f"{steps} steps are impossible: this scheduler takes 1 to {trained}; change the number of steps"
        )
    if name in FLOW_SCHEDULERS:
        result = _flow_levels(scheduler_config, steps, image_tokens, even_sigmas)
    else:
        result = _variance_preserving_levels(scheduler_config, steps)
    if prediction is Prediction.epsilon and result[0].signal == 0:
        raise KernelError(
            "predicted noise says nothing about the image at the first level, which holds no signal "
            "(rescale_betas_zero_snr): use a v-prediction checkpoint or turn rescale_betas_zero_snr off"
        )
    if not all(level.sigma > following.sigma for level, following in pairwise(result)):
        raise KernelError(
            f"the noise of this scheduler does not fall at every one of {steps} steps: change their number"
        )
    return result


def check_prediction(scheduler_config: Mapping[str, Any], prediction: Prediction) -> None:
    """Raises KernelError when a network with this prediction cannot have been trained with the scheduler."""
    name = scheduler_config["_class_name"]
    if name in FLOW_SCHEDULERS:
        expected = Prediction.flow
    else:
        declared = scheduler_config.get("prediction_type", "epsilon")
        if declared not in _PREDICTION_TYPES:
            raise KernelError(
                f"prediction_type {declared!r} is not supported: use one of {', '.join(_PREDICTION_TYPES)}"
            )
        expected = _PREDICTION_TYPES[declared]
    if prediction is not expected:
        raise KernelError(
            f"the network predicts {prediction.name}, but its {name} is configured for {expected.name}: "
            "the checkpoint's scheduler_config.json does not belong to its network"
        )


def _variance_preserving_levels(scheduler_config: Mapping[str, Any], steps: int) -> tuple[Level, ...]:
    """Levels of `DDIMScheduler.from_config`, the conversion that diffusers documents for schedulers of this kind.

    A step leads to the level at which the network is evaluated next. `DDIMScheduler.step` leads to the timestep
    `num_train_timesteps // steps` lower instead. That is another level when the spacing is "linspace", or "trailing"
    with steps that do not divide the training timesteps; there a stock pipeline tells its network a wrong time.
    """
    scheduler: Any = DDIMScheduler.from_config(dict(scheduler_config))
    _refuse_clipping(scheduler_config["_class_name"], scheduler)
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps.tolist()
    signal_power = scheduler.alphas_cumprod.double().tolist()
    if times[0] >= len(signal_power):
        raise KernelError(
            f"{steps} steps with steps_offset={scheduler.config.steps_offset} start at timestep {times[0]}, beyond the "
            f"last trained one, {len(signal_power) - 1}: use fewer steps"
        )
    below_last = times[-1] - scheduler.config.num_train_timesteps // steps
    final_power = signal_power[below_last] if below_last >= 0 else float(scheduler.final_alpha_cumprod)
    times, powers = [*times, max(below_last, 0)], [*(signal_power[time] for time in times), final_power]
    return tuple(Level(float(time), power**0.5, (1 - power) ** 0.5) for time, power in zip(times, powers, strict=True))


def _refuse_clipping(name: str, scheduler: Any) -> None:
    """Of the supported schedulers only these two clip; the others carry the option without using it."""
    if name not in ("DDIMScheduler", "DDPMScheduler"):
        return
    for option in ("clip_sample", "thresholding"):
        if scheduler.config[option]:
            raise KernelError(
                f"the scheduler clips the predicted image ({option}=true), and a clipped step has no simple density: "
                f"set {option} to false in scheduler_config.json"
            )


def _flow_levels(
    scheduler_config: Mapping[str, Any], steps: int, image_tokens: int, even_sigmas: bool
) -> tuple[Level, ...]:
    scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(dict(scheduler_config))
    if scheduler.config.invert_sigmas:
        raise KernelError("invert_sigmas=true runs from image to noise, which these kernels cannot: set it to false")
    sigmas = np.linspace(1.0, 1 / steps, steps).tolist() if even_sigmas else None
    mu = _dynamic_shift(scheduler, image_tokens) if scheduler.config.use_dynamic_shifting else None
    scheduler.set_timesteps(steps, sigmas=sigmas, mu=mu)
    times = [*scheduler.timesteps.tolist(), 0.0]
    return tuple(Level(time, 1 - sigma, sigma) for time, sigma in zip(times, scheduler.sigmas.tolist(), strict=True))


def _dynamic_shift(scheduler: Any, image_tokens: int) -> float:
    """`mu` of the scheduler, linear in the number of image tokens: `calculate_shift` of the SD3 and FLUX pipelines."""
    config = scheduler.config
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    return config.base_shift + slope * (image_tokens - config.base_image_seq_len)
