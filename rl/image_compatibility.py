"""Options of an image model that cannot work together; each problem is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from configs.algorithm_options import (
    AdvantageKind,
    Cut,
    Denominator,
    KlEstimator,
    KlTarget,
    LikelihoodKind,
    LikelihoodOptions,
    NoiseLaw,
    ObjectiveKind,
    Partition,
    Ratio,
)
from configs.schema import Config
from models.options import TrainedPart
from rl.compatibility import differentiates_reward
from rollout.options import DenoisingOptions, KernelKind, LatentPrecision, UntrainedOptions, WindowKind

if TYPE_CHECKING:  # models.image_spec imports torch, which `denoiserl config` must not wait for
    from models.image_spec import ImageSpec

AT_LEAST = {"steps": 1, "eta": 0, "guidance": 0, "guidance_from": 0, "samples_per_forward": 1}
GAUSSIAN_ESTIMATORS = (KlEstimator.exact, KlEstimator.flow_grpo)
UNETS = ("sd", "sdxl")
"""Families that read the prompt through cross-attention."""
EULER_KERNELS = (KernelKind.flow_sde, KernelKind.dance_sde)


def image_problems(config: Config, spec: ImageSpec | None) -> Iterator[str]:
    """
    Args:
        spec: None leaves out what depends on the checkpoint.
    """
    yield from _denoising(config)
    yield from _window(config)
    yield from _algorithm(config)
    yield from _trained_part(config)
    if differentiates_reward(config):
        yield from _reward_gradient(config)
    else:
        yield from _replay(config) if _replays(config) else _elbo(config)
    if spec is not None:
        yield from _user_adapter(config, spec)
        yield from _prompt_segments(config, spec)
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


def _window(config: Config) -> Iterator[str]:
    name, window = "rollout.denoising.window", config.rollout.denoising.window
    if not 0 < window.trained_fraction <= 1:
        yield f"{name}.trained_fraction={window.trained_fraction}: must lie in (0, 1]"
    # The last step leads to the clean image and never draws noise.
    last = config.rollout.denoising.steps - 1
    if window.untrained is not None:
        yield from _untrained(window.untrained, last, window.kind)
    if window.kind is WindowKind.all:
        return
    stop = last if window.stop is None else window.stop
    if window.size < 1 or window.every < 1 or window.start < 0:
        yield f"{name}: size and every must be at least 1 and start at least 0"
    elif stop > last or window.start + window.size > stop:
        yield (
            f"{name}: {window.size} steps from {window.start}, up to {stop}, are outside the {last} steps that draw "
            f"noise (rollout.denoising.steps={last + 1}, the last of which does not)"
        )


def _untrained(options: UntrainedOptions, last: int, kind: WindowKind) -> Iterator[str]:
    name = "rollout.denoising.window.untrained"
    if kind is not WindowKind.all:
        yield f"{name} leaves out some of all steps, and window.kind={kind.name} chooses few; use kind=all, or null"
    if options.size < 1 or options.every < 1 or not 0 <= options.final_start <= options.start:
        yield f"{name}: size and every must be at least 1, and start at least final_start, which is at least 0"
    elif options.start + options.size > last or options.size == last:
        yield (
            f"{name}: {options.size} steps from {options.start} are not within the {last} steps that draw noise, or "
            f"all of them (rollout.denoising.steps={last + 1}, the last of which draws none); use less"
        )


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
    if algorithm.denominator is Denominator.canvas:
        yield "algorithm.denominator=canvas counts the positions of a text; use token, step or sequence"


def _trained_part(config: Config) -> Iterator[str]:
    model = config.model
    if model.train is TrainedPart.text_encoder and not differentiates_reward(config):
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


def _reward_gradient(config: Config) -> Iterator[str]:
    algorithm, denoising = config.algorithm, config.rollout.denoising
    name, options, steps = "algorithm.reward_gradient", algorithm.reward_gradient, denoising.steps
    if algorithm.advantage is not AdvantageKind.none:
        yield (
            f"algorithm.likelihood.kind=reward_gradient differentiates each sample's own reward, but advantage="
            f"{algorithm.advantage.name} compares samples; use advantage=none, or algorithm=draft"
        )
    if algorithm.objective is not ObjectiveKind.weighted:
        yield "algorithm.likelihood.kind=reward_gradient is no likelihood and needs objective=weighted and ratio=none"
    if algorithm.minibatches != 1 or algorithm.epochs != 1:
        yield (
            f"algorithm.minibatches={algorithm.minibatches} and epochs={algorithm.epochs}: with likelihood.kind="
            f"reward_gradient every optimizer update draws its own samples; use 1 of both and a larger run.updates"
        )
    if algorithm.kl.coefficient > 0:
        yield (
            "algorithm.kl is a KL between likelihoods, and likelihood.kind=reward_gradient has none; use "
            "kl.coefficient=0, and reward_gradient.base_pull to stay near the base"
        )
    if denoising.window.kind is not WindowKind.all or not denoising.window.trains_all:
        yield (
            "rollout.denoising.window chooses the steps whose log-probability is trained, and reward gradients have "
            "none; use window.kind=all, trained_fraction=1 and untrained=null, and choose steps by "
            "algorithm.reward_gradient.last_steps"
        )
    if not 1 <= options.last_steps <= steps:
        yield f"{name}.last_steps={options.last_steps}: must lie between 1 and rollout.denoising.steps={steps}"
    if options.every < 1:
        yield f"{name}.every={options.every}: must be at least 1"
    if options.earliest_stop is not None and not 0 <= options.earliest_stop < steps:
        yield (
            f"{name}.earliest_stop={options.earliest_stop}: must be a step of the schedule, from 0 to {steps - 1} "
            f"(rollout.denoising.steps={steps})"
        )
    if options.cut is Cut.gaussian and options.cut_std <= 0:
        yield f"{name}.cut_std={options.cut_std}: must be above 0; for a fixed number of steps use cut=fixed"
    if options.renoise < 0:
        yield f"{name}.renoise={options.renoise}: must be at least 0"
    if options.least_eta is not None and denoising.kernel is KernelKind.ode:
        yield f"{name}.least_eta={options.least_eta}: kernel=ode draws no noise; use kernel=ddim, or least_eta=null"
    elif options.least_eta is not None and not 0 <= options.least_eta < denoising.eta:
        yield (
            f"{name}.least_eta={options.least_eta}: must be at least 0 and below rollout.denoising.eta={denoising.eta}"
        )
    if options.base_pull < 0:
        yield f"{name}.base_pull={options.base_pull}: must be at least 0"
    if options.base_pull > 0 and config.cluster.zero_stage == 3:
        yield (
            f"{name}.base_pull needs whole weights outside of the network's forward, and cluster.zero_stage=3 shards "
            f"them; use a lower stage, or adapters with algorithm.optimizer.weight_decay, which pulls them to zero"
        )
    one_step = options.last_steps == 1 and options.cut is Cut.fixed and options.earliest_stop is None
    if options.renoise > 0 and not one_step:
        yield (
            f"{name}.renoise={options.renoise} repeats the last step of the schedule and no other; use last_steps=1, "
            f"cut=fixed and earliest_stop=null"
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
    from models.image_spec import Guidance

    denoising = config.rollout.denoising
    if spec.guidance is Guidance.none and denoising.guidance != 1.0:
        yield (
            f"rollout.denoising.guidance={denoising.guidance}: this {spec.family} model was distilled to need none and "
            f"takes none; use guidance=1"
        )
    if (
        spec.distilled
        and config.algorithm.likelihood.kind is not LikelihoodKind.elbo
        and (denoising.kernel is not KernelKind.ode)
    ):
        instead = "train its base model (for FLUX.1-schnell: FLUX.1-dev)"
        if differentiates_reward(config):
            instead = "use kernel=ode, or " + instead
        yield (
            f"rollout.denoising.kernel={denoising.kernel.name}: this {spec.family} model was distilled to a few steps "
            f"without guidance; its output is no velocity of the marginals that an SDE kernel needs: {instead}"
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
