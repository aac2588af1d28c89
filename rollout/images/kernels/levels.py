"""The noise levels of a denoising schedule, as the pipeline's own diffusers scheduler would visit them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from diffusers import DDPMScheduler, PNDMScheduler

from models.images.prediction import Prediction
from rollout.images.kernels.errors import KernelError
from rollout.images.kernels.schedulers import BROKEN, FLOW_SCHEDULERS, SIGMA_SCHEDULERS, impossible, scheduler_of

_PREDICTION_TYPES = {"epsilon": Prediction.epsilon, "v_prediction": Prediction.v}
_NO_SIGNAL = 2.0**-12
"""What diffusers' Euler schedulers write for a signal of 0, lest a sigma be infinite."""
_ROUNDING = 1e-6
"""Relative difference of two levels of noise that fp32 sigmas do not tell apart."""


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
        KernelError: the scheduler is unknown or not linear, an option of it cannot be followed, the prediction does not
            fit it, or `steps` is out of range.
    """
    scheduler = scheduler_of(scheduler_config)
    check_prediction(scheduler_config, prediction)
    trained = scheduler.config.num_train_timesteps
    if not 1 <= steps <= trained:
        raise KernelError(
            f"{steps} steps are impossible: this scheduler takes 1 to {trained}; change the number of steps"
        )
    try:
        if type(scheduler).__name__ in FLOW_SCHEDULERS:
            result = _flow_levels(scheduler, steps, image_tokens, even_sigmas)
        else:
            result = _variance_preserving_levels(scheduler, steps)
    except KernelError:
        raise
    except BROKEN as error:
        raise impossible(type(scheduler).__name__, error) from error
    least = _NO_SIGNAL if scheduler.config.get("rescale_betas_zero_snr") else 0.0
    if prediction is Prediction.epsilon and result[0].signal <= least:
        raise KernelError(
            "predicted noise says nothing about the image at the first level, which holds no signal "
            "(rescale_betas_zero_snr): use a v-prediction checkpoint or turn rescale_betas_zero_snr off"
        )
    falls = [level.sigma * (1 - _ROUNDING) > following.sigma for level, following in pairwise(result)]
    if len(falls) != steps or not all(falls):
        _refuse_standstill(scheduler, steps, only_last=falls == [True] * (steps - 1) + [False])
    return result


def start_scale(scheduler_config: Mapping[str, Any], first: Level) -> float:
    """Standard deviation of the latents that a chain starts from: 1, but for Euler schedulers that take their first
    sigma for all that there is (`init_noise_sigma`), and leave out the signal's share."""
    scheduler = scheduler_of(scheduler_config)
    noise_only = isinstance(scheduler, SIGMA_SCHEDULERS) and scheduler.config.timestep_spacing != "leading"
    return first.noise if noise_only else 1.0


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


def _refuse_standstill(scheduler: Any, steps: int, only_last: bool) -> None:
    """Always raises: some step lowers no noise; the last one alone if the schedule ends where its last step starts."""
    config, advice = scheduler.config, "change their number"
    own = scheduler._get_init_keys(type(scheduler))
    if only_last and "set_alpha_to_one" in own and not config.set_alpha_to_one:
        advice = "set_alpha_to_one=false ends at timestep 0, where the last step starts: set it to true"
        if config.timestep_spacing == "leading" and config.steps_offset == 0:
            advice += ", or steps_offset to 1"
    elif only_last and "final_sigmas_type" in own and config.final_sigmas_type == "sigma_min":
        advice = "final_sigmas_type=sigma_min ends at timestep 0, where the last step starts: set it to zero"
    raise KernelError(f"the noise of this scheduler does not fall at every one of {steps} steps: {advice}")


def _variance_preserving_levels(scheduler: Any, steps: int) -> tuple[Level, ...]:
    """A step leads to the level at which the network is evaluated next.

    `DDIMScheduler.step` leads to the timestep `num_train_timesteps // steps` lower instead. That is another level when
    the spacing is "linspace", or "trailing" with steps that do not divide the training timesteps; there a stock
    pipeline tells its network a wrong time.
    """
    scheduler.set_timesteps(steps)
    # PNDM's `timesteps` repeat one for its multistep start; `_timesteps`, upwards, are the levels.
    times = (scheduler._timesteps[::-1] if isinstance(scheduler, PNDMScheduler) else scheduler.timesteps).tolist()
    trained = scheduler.alphas_cumprod.double().tolist()
    offset = scheduler.config.steps_offset
    if times[0] >= len(trained) or (scheduler.config.timestep_spacing == "leading" and offset < 0):
        advice = "use fewer steps" if 0 <= offset < len(trained) else "correct steps_offset in scheduler_config.json"
        raise KernelError(
            f"{steps} steps with steps_offset={offset} start at timestep {times[0]:g} and end at {times[-1]:g}, and "
            f"the trained ones are 0 to {len(trained) - 1}: {advice}"
        )
    if isinstance(scheduler, SIGMA_SCHEDULERS):
        return _levels_of_sigmas(scheduler)
    # DDPM's last step ends in the clean image, the others' one step further down, or where the options say.
    length = scheduler.config.num_train_timesteps // steps
    below_last = -1 if isinstance(scheduler, DDPMScheduler) else int(times[-1]) - length
    final = trained[below_last] if below_last >= 0 else float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    visited = [*((time, trained[int(time)]) for time in times), (max(below_last, 0), final)]
    return tuple(_variance_preserving(time, power) for time, power in visited)


def _levels_of_sigmas(scheduler: Any) -> tuple[Level, ...]:
    """Of a scheduler whose latents are x0 + sigma * eps, scaled for the network and not at the end."""
    table = scheduler.alphas_cumprod
    trained = ((1 - table) / table) ** 0.5
    visited = []
    for time, sigma in zip(scheduler.timesteps.tolist(), scheduler.sigmas.tolist(), strict=False):
        power = 1 / (1 + sigma**2)
        if time.is_integer() and time >= 0 and trained[int(time)].item() == sigma:
            power = table[int(time)].item()  # what its sigma was rounded from
        visited.append(_variance_preserving(time, power))
    # log_linear makes one sigma more than there are steps to it.
    return *visited, Level(0.0, 1.0, scheduler.sigmas[len(visited)].item())


def _variance_preserving(time: float, signal_power: float) -> Level:
    return Level(float(time), signal_power**0.5, (1 - signal_power) ** 0.5)


def _flow_levels(scheduler: Any, steps: int, image_tokens: int, even_sigmas: bool) -> tuple[Level, ...]:
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
