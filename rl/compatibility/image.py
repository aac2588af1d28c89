"""Options of an image model that cannot work together; each problem is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from configs.algorithm_options import (
    AdvantageKind,
    Denominator,
    KlEstimator,
    KlTarget,
    LikelihoodKind,
    LikelihoodOptions,
    NoiseLaw,
    Partition,
    Ratio,
)
from configs.schema import Config
from models.options import TrainedPart
from rl.algorithm.requirements import differentiates_reward
from rl.compatibility.denoising import denoising_problems
from rl.compatibility.reward_gradient import reward_gradient_problems
from rollout.options import DenoisingOptions, KernelKind, LatentPrecision

if TYPE_CHECKING:  # models.images.spec imports torch, which `denoiserl config` must not wait for
    from models.images.spec import ImageSpec

GAUSSIAN_ESTIMATORS = (KlEstimator.exact, KlEstimator.flow_grpo)
UNETS = ("sd", "sdxl")
"""Families that read the prompt through cross-attention."""
EULER_KERNELS = (KernelKind.flow_sde, KernelKind.dance_sde)


def image_problems(config: Config, spec: ImageSpec | None) -> Iterator[str]:
    """
    Args:
        spec: None leaves out what depends on the checkpoint.
    """
    yield from denoising_problems(config)
    yield from _algorithm(config)
    yield from _trained_part(config)
    if differentiates_reward(config.algorithm):
        yield from reward_gradient_problems(config)
    else:
        yield from _replay(config) if _replays(config) else _elbo(config)
    if spec is not None:
        yield from _user_adapter(config, spec)
        yield from _prompt_segments(config, spec)
        yield from _guidance(config, spec)
        yield from _schedule(config, spec)


def _algorithm(config: Config) -> Iterator[str]:
    algorithm = config.algorithm
    if algorithm.likelihood.partition is not Partition.every_step:
        yield (
            f"algorithm.likelihood.partition={algorithm.likelihood.partition.name} groups rounds of a text; for images "
            f"use every_step, and rollout.denoising.window to train fewer steps"
        )
    if algorithm.likelihood.kind is LikelihoodKind.proposals:
        yield (
            "algorithm.likelihood.kind=proposals scores tokens that a round of a text proposed and did not keep; an "
            "image keeps every step: use kind=replay"
        )
    if algorithm.value is not None and not config.rollout.denoising.window.trains_all:
        yield (
            "algorithm.value adds up the steps of a sample, and rollout.denoising.window leaves steps out; use "
            "trained_fraction=1 and untrained=null"
        )
    if algorithm.selected_steps is not None:
        yield (
            f"algorithm.selected_steps={algorithm.selected_steps} selects rounds of a text; for images choose trained "
            f"steps by rollout.denoising.window"
        )
    if algorithm.kl.estimator is KlEstimator.flow_grpo and algorithm.kl.to is KlTarget.old:
        yield "algorithm.kl.estimator=flow_grpo is Flow-GRPO's KL to the reference; for kl.to=old use estimator=exact"
    if algorithm.denominator in (Denominator.canvas, Denominator.row_length):
        yield (
            f"algorithm.denominator={algorithm.denominator.name} counts the positions of a text; use token, step or "
            f"sequence"
        )


def _trained_part(config: Config) -> Iterator[str]:
    model = config.model
    if model.train is TrainedPart.text_encoder and not differentiates_reward(config.algorithm):
        yield (
            f"model.train=text_encoder: likelihood.kind={config.algorithm.likelihood.kind.name} scores the network "
            f"under encoded prompts that its samples come with, in which no text encoder has a gradient; use "
            f"likelihood.kind=reward_gradient, or algorithm=text_craftor"
        )
    share = model.text_encoder_share
    if not 0 <= share <= 1:
        yield f"model.text_encoder_share={share}: must lie in [0, 1]"
    elif share != 1 and model.train is not TrainedPart.text_encoder:
        yield (
            f"model.text_encoder_share={share} mixes tuned with loaded text encoders, and model.train=network tunes "
            f"none; leave it out"
        )
    if model.train is TrainedPart.text_encoder and config.cluster.zero_stage == 3:
        yield (
            "model.train=text_encoder needs whole text encoders outside of the network's forward, and "
            "cluster.zero_stage=3 shards them; use a lower stage"
        )


def _replay(config: Config) -> Iterator[str]:
    """What a likelihood of Gaussian steps needs."""
    algorithm, denoising = config.algorithm, config.rollout.denoising
    estimator = algorithm.kl.estimator
    if denoising.kernel is KernelKind.ode:
        yield (
            "rollout.denoising.kernel=ode draws no noise, so there is no log-probability to replay; use "
            "kernel=precise, or another kernel that does, or likelihood.kind=elbo"
        )
    if estimator is KlEstimator.flow_grpo and denoising.kernel not in EULER_KERNELS:
        yield (
            f"algorithm.kl.estimator=flow_grpo is defined for kernel=flow_sde and dance_sde, not for "
            f"{denoising.kernel.name}; use estimator=exact"
        )
    if algorithm.ratio is Ratio.guard and denoising.storage is not LatentPrecision.fp32:
        yield (
            f"algorithm.ratio=guard needs rollout.denoising.storage=fp32: from {denoising.storage.name} latents the "
            f"old mean cannot be had"
        )
    if algorithm.kl.coefficient > 0 and estimator is KlEstimator.output:
        yield "algorithm.kl.estimator=output is for likelihood.kind=elbo; with a replay use estimator=exact"
    elif algorithm.kl.coefficient > 0 and estimator not in GAUSSIAN_ESTIMATORS:
        yield (
            f"algorithm.kl.estimator={estimator.name} estimates from one draw what Gaussian steps know in closed form, "
            f"and is off by the latent's size with log_prob=mean; use estimator=exact"
        )


def _elbo(config: Config) -> Iterator[str]:
    """What a denoising loss has not, and options of a rollout that it would not read."""
    algorithm, denoising, options = config.algorithm, config.rollout.denoising, config.algorithm.likelihood
    if algorithm.kl.coefficient > 0 and algorithm.kl.estimator is not KlEstimator.output:
        yield (
            f"algorithm.kl.estimator={algorithm.kl.estimator.name} compares log-probabilities, and a denoising loss "
            f"(likelihood.kind=elbo) is none; use estimator=output"
        )
    if algorithm.kl.coefficient > 0 and algorithm.kl.to is KlTarget.old:
        yield "algorithm.kl.to=old keeps no outputs, which estimator=output would compare; use kl.to=reference"
    if algorithm.clip_kl is not None:
        yield (
            f"algorithm.clip_kl={algorithm.clip_kl} is in nats, and a denoising loss (likelihood.kind=elbo) is not; "
            f"use clip"
        )
    if algorithm.ratio is Ratio.guard:
        yield "algorithm.ratio=guard is made of Gaussian steps, and likelihood.kind=elbo has none; use another ratio"
    if options.inversion_steps != LikelihoodOptions.inversion_steps and options.noise_law is not NoiseLaw.inversion:
        yield (
            f"algorithm.likelihood.inversion_steps={options.inversion_steps} is for noise_law=inversion, not for "
            f"{options.noise_law.name}; leave it out"
        )
    if not _valid_range(options):
        yield (
            f"algorithm.likelihood.level_range={list(options.level_range)}: must be two numbers with "
            f"0 <= low < high <= 1"
        )
    if denoising.same_noise and denoising.kernel is KernelKind.ode and not algorithm.advantage.offline:
        yield (
            "rollout.denoising.same_noise=true with kernel=ode makes all samples of a prompt one image, and there is "
            "nothing to compare; use same_noise=false, or a kernel that draws noise"
        )
    unread = []
    if denoising.window.trained_fraction != 1:
        unread.append("window.trained_fraction")
    if denoising.window.untrained is not None:
        unread.append("window.untrained")
    if denoising.log_prob is not DenoisingOptions.log_prob:
        unread.append("log_prob")
    for option in unread:
        yield f"rollout.denoising.{option} is for a replay of steps, and likelihood.kind=elbo has none; leave it out"
    if options.shared_noise and algorithm.advantage is AdvantageKind.constant:
        yield (
            "algorithm.likelihood.shared_noise=true is for the samples of one prompt, and a demonstration is alone; "
            "leave it out"
        )


def _replays(config: Config) -> bool:
    return config.algorithm.likelihood.kind is LikelihoodKind.replay


def _valid_range(options: LikelihoodOptions) -> bool:
    return len(options.level_range) == 2 and 0 <= options.level_range[0] < options.level_range[1] <= 1


def _user_adapter(config: Config, spec: ImageSpec) -> Iterator[str]:
    if config.model.user_adapter is not None and spec.family not in UNETS:
        yield (
            f"model.user_adapter is for the U-Nets of Stable Diffusion 1, 2 and XL, and this model is of family "
            f"{spec.family}; choose such a model, for example model=sd15"
        )


def _prompt_segments(config: Config, spec: ImageSpec) -> Iterator[str]:
    segments = config.model.prompt_segments
    if segments > 1 and spec.family not in UNETS:
        yield (
            f"model.prompt_segments={segments} is for the U-Nets of Stable Diffusion 1, 2 and XL, and this model is of "
            f"family {spec.family}, which reads a prompt whole, through CLIP and T5; use prompt_segments=1 and shorter "
            f"prompts, or choose such a model, for example model=sd15"
        )


def _guidance(config: Config, spec: ImageSpec) -> Iterator[str]:
    from models.images.spec import Guidance

    denoising = config.rollout.denoising
    if spec.guidance is Guidance.none and denoising.guidance != 1.0:
        yield (
            f"rollout.denoising.guidance={denoising.guidance}: this {spec.family} model was distilled to need none and "
            f"takes none; use guidance=1"
        )
    if spec.distilled:
        yield from _distilled(config, spec)


def _distilled(config: Config, spec: ImageSpec) -> Iterator[str]:
    """One rule: whatever takes the output for the velocity of the marginals is refused, and only the gradient of a
    reward through the chain that the model was distilled to does not."""
    kernel, instead = config.rollout.denoising.kernel, "train its base model (for FLUX.1-schnell: FLUX.1-dev)"
    why = (
        f"this {spec.family} model was distilled to a few steps without guidance; its output is no velocity of the "
        f"marginals"
    )
    if config.algorithm.likelihood.kind is LikelihoodKind.elbo:
        yield f"algorithm.likelihood.kind=elbo: {why} that a denoising loss is taken against: {instead}"
    elif kernel is not KernelKind.ode:
        if differentiates_reward(config.algorithm):
            instead = "use kernel=ode, or " + instead
        yield f"rollout.denoising.kernel={kernel.name}: {why} that an SDE kernel needs: {instead}"


def _schedule(config: Config, spec: ImageSpec) -> Iterator[str]:
    """Scheduler, prediction, kernel and size are put together as sampler and likelihood do it."""
    from rl.compatibility.image_schedule import check_schedule
    from rl.likelihood.noise_levels import NoiseLevels

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
