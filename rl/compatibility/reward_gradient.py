"""Options of training by the gradient of the reward that cannot work; each problem is one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from configs.algorithm_options import AdvantageKind, Cut, ObjectiveKind
from configs.schema import Config
from rollout.options import KernelKind, WindowKind


def reward_gradient_problems(config: Config) -> Iterator[str]:
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
