"""Options of an image model that cannot work together; each problem is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from configs.schema import (
    AdvantageKind,
    Config,
    Denominator,
    KlEstimator,
    LikelihoodKind,
    LikelihoodOptions,
    NoiseLaw,
    ObjectiveKind,
    Partition,
    Ratio,
)
from rollout.options import DenoisingOptions, KernelKind, LatentPrecision, WindowKind

if TYPE_CHECKING:  # models.image_spec imports torch, which `denoiserl config` must not wait for
    from models.image_spec import ImageSpec

AT_LEAST = {"steps": 1, "eta": 0, "guidance": 0, "guidance_from": 0, "samples_per_forward": 1}
GAUSSIAN_ESTIMATORS = (KlEstimator.exact, KlEstimator.flow_grpo)
ONLY_ELBO = ("draws", "noise_law", "loss_weight", "shared_noise")
"""Options of the likelihood that a replay does not read."""
EULER_KERNELS = (KernelKind.flow_sde, KernelKind.dance_sde)


def image_problems(config: Config, spec: ImageSpec | None) -> Iterator[str]:
    """
    Args:
        spec: None leaves out what depends on the checkpoint.
    """
    yield from _denoising(config)
    yield from _window(config)
    yield from _algorithm(config)
    yield from _likelihood(config)
    if spec is not None:
        yield from _guidance(config, spec)
        yield from _schedule(config, spec)


def _denoising(config: Config) -> Iterator[str]:
    name, denoising = "rollout.denoising", config.rollout.denoising
    for option, least in AT_LEAST.items():
        value = getattr(denoising, option)
        if value < least:
            yield f"{name}.{option}={value}: must be at least {least}"
    if denoising.evaluation_steps is not None and denoising.evaluation_steps < 1:
        yield f"{name}.evaluation_steps={denoising.evaluation_steps}: must be at least 1"
    until = denoising.guidance_until
    if until is not None and denoising.evaluation_steps not in (None, denoising.steps):
        yield (
            f"{name}.guidance_until={until} counts steps of {denoising.steps}, but evaluation_steps="
            f"{denoising.evaluation_steps}; with another number of steps use guidance everywhere"
        )
    if until is None and denoising.guidance_from >= denoising.steps > 0:
        yield f"{name}.guidance_from={denoising.guidance_from}: no step of {denoising.steps} would be guided"
    if until is not None and not denoising.guidance_from < until <= denoising.steps:
        yield (
            f"{name}.guidance_until={until}: must lie above guidance_from={denoising.guidance_from} and at most at "
            f"steps={denoising.steps}"
        )
    if _replays(config) and denoising.kernel is KernelKind.ode:
        yield (
            f"{name}.kernel=ode draws no noise, so there is no log-probability to learn from; use kernel=precise, or "
            f"another kernel that does, or likelihood.kind=elbo"
        )


def _window(config: Config) -> Iterator[str]:
    name, window = "rollout.denoising.window", config.rollout.denoising.window
    if not 0 < window.trained_fraction <= 1:
        yield f"{name}.trained_fraction={window.trained_fraction}: must lie in (0, 1]"
    if window.kind is WindowKind.all:
        return
    # The last step leads to the clean image and never draws noise.
    last = config.rollout.denoising.steps - 1
    stop = last if window.stop is None else window.stop
    if window.size < 1 or window.every < 1 or window.start < 0:
        yield f"{name}: size and every must be at least 1 and start at least 0"
    elif stop > last or window.start + window.size > stop:
        yield (
            f"{name}: {window.size} steps from {window.start}, up to {stop}, are outside the {last} steps that draw "
            f"noise (rollout.denoising.steps={last + 1}, the last of which does not)"
        )


def _algorithm(config: Config) -> Iterator[str]:
    algorithm, denoising = config.algorithm, config.rollout.denoising
    supervised = algorithm.advantage is AdvantageKind.constant
    if supervised and config.data.train.image is None:
        yield "algorithm.advantage=constant trains on demonstrations; set data.train.image to the column of images"
    if algorithm.likelihood.partition is not Partition.every_step:
        yield (
            f"algorithm.likelihood.partition={algorithm.likelihood.partition.name} groups rounds of a text; for images "
            f"use every_step, and rollout.denoising.window to train fewer steps"
        )
    if algorithm.denominator is Denominator.canvas:
        yield "algorithm.denominator=canvas counts the positions of a text; use token, step or sequence"
    replays = _replays(config)
    if replays and algorithm.kl.estimator is KlEstimator.flow_grpo and denoising.kernel not in EULER_KERNELS:
        yield (
            f"algorithm.kl.estimator=flow_grpo is defined for kernel=flow_sde and dance_sde, not for "
            f"{denoising.kernel.name}; use estimator=exact"
        )
    if replays and algorithm.ratio is Ratio.guard and denoising.storage is not LatentPrecision.fp32:
        yield (
            f"algorithm.ratio=guard needs rollout.denoising.storage=fp32: from {denoising.storage.name} latents the "
            f"old mean cannot be had"
        )
    if algorithm.kl.coefficient > 0 and replays and algorithm.kl.estimator is KlEstimator.output:
        yield "algorithm.kl.estimator=output is for likelihood.kind=elbo; a replay has estimator=exact"
    elif algorithm.kl.coefficient > 0 and replays and algorithm.kl.estimator not in GAUSSIAN_ESTIMATORS:
        yield (
            f"algorithm.kl.estimator={algorithm.kl.estimator.name} estimates from one draw what Gaussian steps know in "
            f"closed form, and is off by the latent's size with log_prob=mean; use estimator=exact"
        )
    if algorithm.kl.coefficient > 0 and not replays and algorithm.kl.estimator is not KlEstimator.output:
        yield (
            f"algorithm.kl.estimator={algorithm.kl.estimator.name} needs log-probabilities, and a denoising loss "
            f"(likelihood.kind=elbo) has none; use estimator=output"
        )
    if algorithm.ratio is Ratio.guard and not replays:
        yield "algorithm.ratio=guard is made of Gaussian steps, and likelihood.kind=elbo has none; use another ratio"


def _likelihood(config: Config) -> Iterator[str]:
    """Ranges, and options that would silently do nothing."""
    name, options, algorithm = "algorithm.likelihood", config.algorithm.likelihood, config.algorithm
    if not _valid_range(options):
        yield f"{name}.level_range={list(options.level_range)}: must be two numbers with 0 <= low < high <= 1"
    inverting = options.noise_law is NoiseLaw.inversion
    if options.inversion_steps != LikelihoodOptions.inversion_steps and not inverting:
        yield f"{name}.inversion_steps={options.inversion_steps} is for noise_law=inversion only; leave it out"
    if _replays(config):
        changed = [option for option in ONLY_ELBO if getattr(options, option) != getattr(LikelihoodOptions, option)]
        if tuple(options.level_range) != LikelihoodOptions.level_range:
            changed.append("level_range")
        for option in changed:
            yield f"{name}.{option} is for kind=elbo, and a replay draws no noise levels; leave it out"
        return
    if not options.unconditional_gradient:
        yield f"{name}.unconditional_gradient=false: kind=elbo trains without guidance; leave it out"
    denoising = config.rollout.denoising
    if denoising.window.trained_fraction != 1:
        yield (
            f"rollout.denoising.window.trained_fraction={denoising.window.trained_fraction} is for a replay of steps, "
            f"which likelihood.kind=elbo has not; leave it out"
        )
    if denoising.log_prob is not DenoisingOptions.log_prob:
        yield (
            f"rollout.denoising.log_prob={denoising.log_prob.name} is for a replay of steps, which "
            f"likelihood.kind=elbo has not; leave it out"
        )
    alone = algorithm.advantage is AdvantageKind.constant and algorithm.objective is ObjectiveKind.weighted
    if options.shared_noise and alone:
        yield (f"{name}.shared_noise=true is for the samples of one prompt, and a demonstration is alone; leave it out")


def _replays(config: Config) -> bool:
    return config.algorithm.likelihood.kind is LikelihoodKind.replay


def _valid_range(options: LikelihoodOptions) -> bool:
    return len(options.level_range) == 2 and 0 <= options.level_range[0] < options.level_range[1] <= 1


def _guidance(config: Config, spec: ImageSpec) -> Iterator[str]:
    from models.image_spec import Guidance

    denoising = config.rollout.denoising
    if spec.guidance is Guidance.none and denoising.guidance != 1.0:
        yield (
            f"rollout.denoising.guidance={denoising.guidance}: this {spec.family} model was distilled to need none and "
            f"takes none; use guidance=1"
        )
    if spec.distilled and _replays(config) and denoising.kernel is not KernelKind.ode:
        yield (
            f"rollout.denoising.kernel={denoising.kernel.name}: this {spec.family} model was distilled to a few steps "
            f"without guidance; its output is no velocity of the marginals that an SDE kernel needs. Train its base "
            f"model (for FLUX.1-schnell: FLUX.1-dev)"
        )


def _schedule(config: Config, spec: ImageSpec) -> Iterator[str]:
    """Scheduler, prediction, kernel and size are put together as sampler and likelihood do it."""
    from rl.image_modality import check_schedule
    from rl.noise_levels import NoiseLevels

    try:
        check_schedule(config, spec)
    except ValueError as error:
        yield f"rollout.denoising: {error}"
        return
    options = config.algorithm.likelihood
    if not _replays(config) and _valid_range(options) and options.inversion_steps > 0:
        try:
            NoiseLevels(spec, config.rollout.denoising, options)
        except ValueError as error:
            yield f"algorithm.likelihood: {error}"
