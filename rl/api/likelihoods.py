"""Log-probabilities of samples, of trajectories, or of given answers, under any likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from configs.algorithm_options import AdvantageKind, AlgorithmOptions, LikelihoodKind, LikelihoodOptions
from configs.compose import Composed
from configs.errors import ConfigError, UserError
from configs.schema import Config
from rl.api.configuration import AnyConfig, algorithm_options, changed
from rl.api.policy import Policy
from rl.api.prompts import as_problems
from rl.api.sampling import Samples
from rollout.options import DenoisingOptions, SamplerOptions

if TYPE_CHECKING:
    from rl.api.scored import LogProbs
    from rl.data.problems import Problem
    from rollout.trajectory import Trajectory

AnyLikelihood = LikelihoodOptions | AnyConfig | AlgorithmOptions | Mapping[str, Any] | str
OF_STEPS = (LikelihoodKind.replay, LikelihoodKind.proposals)


def log_probs(
    policy: Policy,
    samples: Samples | Sequence[Any],
    likelihood: AnyLikelihood | None = None,
    *,
    prompts: str | Problem | Sequence[str | Problem] | None = None,
    draw: int = 0,
    micro_batch_tokens: int | None = None,
) -> LogProbs:
    """What the policy's weights say of samples, differentiable in them unless under `torch.no_grad()`.

    Args:
        samples: what `sample` returns; trajectories, also those of a run folder; or answers, texts or images, one a
            prompt, or a list of them a prompt.
        likelihood: `"replay"` of the recorded steps, `"elbo"`, minus the denoising loss, or `"proposals"`; a mapping of
            options (`{"kind": "elbo", "draws": 4}`), a `LikelihoodOptions`, or a configuration, for its likelihood.
            None is that of the policy's configuration.
        prompts: of answers.
        draw: key of fresh masks or noise beside the sample's own; equal draws of two policies see the same ones.
        micro_batch_tokens: tokens that go through the network together; None is that of the policy's configuration.
            Without gradients, memory does not grow with the samples.

    Raises:
        UserError: answers have no recorded steps to replay; trajectories were drawn by several samplers.
        TrajectoryError: a trajectory does not fit the model or the likelihood.
        ConfigError: the likelihood's options cannot work with this model.
    """
    from rl.api.scored import LogProbs
    from rl.likelihood.protocol import micro_batches

    options = likelihood_options(policy, likelihood)
    if options.kind is LikelihoodKind.reward_gradient:
        raise UserError("likelihood=reward_gradient differentiates a reward and knows no log-probability: use elbo")
    trajectories, answers = _trajectories(policy, samples, prompts)
    if answers and options.kind in OF_STEPS:
        raise UserError(
            f"likelihood={options.kind.name} replays recorded steps, and answers that nobody sampled have none: use "
            f"likelihood='elbo'"
        )
    config = _configuration(policy, trajectories, answers, options)
    scored_by = _modality(config).likelihood(policy.network, policy.device)
    shown = [scored_by.decisions_of(trajectory) for trajectory in trajectories]
    rows = scored_by.rows(shown, draw)
    batches = []
    for batch in micro_batches(rows, micro_batch_tokens or config.algorithm.micro_batch_tokens):
        scored_by.prepare(policy.network, batch)
        batches.append((batch, scored_by.score(policy.network, batch)))
    return LogProbs(shown, scored_by, batches, scored_by.exact, draw)


def likelihood_options(policy: Policy, likelihood: AnyLikelihood | None) -> LikelihoodOptions:
    if likelihood is None:
        return policy.config.algorithm.likelihood
    if isinstance(likelihood, AlgorithmOptions):
        return likelihood.likelihood
    if isinstance(likelihood, Composed | Config):
        return algorithm_options(likelihood).likelihood
    given = {"kind": likelihood} if isinstance(likelihood, str) else likelihood
    return changed(LikelihoodOptions(), given, "likelihood")


def _trajectories(
    policy: Policy, samples: Samples | Sequence[Any], prompts: str | Problem | Sequence[str | Problem] | None
) -> tuple[list[Trajectory], bool]:
    """And whether they are answers that nobody sampled."""
    from rollout.trajectory import NO_SAMPLER, Trajectory

    if isinstance(samples, Samples):
        return samples.trajectories, False
    given = list(samples)
    if not given:
        raise UserError("there is nothing to score: give samples, trajectories or answers")
    if isinstance(given[0], Trajectory):
        kinds = {trajectory.sampler == NO_SAMPLER for trajectory in given}
        if len(kinds) > 1:
            raise UserError("some of these trajectories were sampled and others come from data: score them apart")
        return given, kinds == {True}
    if prompts is None:
        raise UserError("answers need their prompts: log_probs(policy, answers, prompts=[...])")
    problems = as_problems(prompts)
    if len(problems) != len(given):
        raise UserError(f"{len(given)} answers for {len(problems)} prompts: give one, or a list of them, a prompt")
    return [_answered(policy, problem, answers) for problem, answers in zip(problems, given, strict=True)], True


def _answered(policy: Policy, problem: Problem, answers: Any) -> Trajectory:
    """A group of the answers to one prompt, through the same door as those of a data set."""
    several = tuple(answers) if isinstance(answers, list | tuple) else (answers,)
    if policy.kind == "text":
        return policy.modality.offline_group(replace(problem, responses=several, answers=()), seed=0, update=0)
    return policy.modality.offline_group(replace(problem, images=several), seed=0, update=0)


def _configuration(policy: Policy, trajectories: list[Trajectory], answers: bool, options: LikelihoodOptions) -> Config:
    """The policy's, with the likelihood and with the sampler that drew the trajectories.

    Raises:
        ConfigError: options of the likelihood that cannot work.
    """
    from rl.compatibility import problems

    config = policy.config
    algorithm = replace(config.algorithm, likelihood=options)
    if answers:  # which an image model encodes itself
        algorithm = replace(algorithm, advantage=AdvantageKind.constant)
    else:
        config = policy.with_sampler(_sampler_of(policy, trajectories))
    config = replace(config, algorithm=algorithm)
    found = [each for each in problems(config, None) if each.startswith("algorithm.likelihood")]
    if found:
        raise ConfigError("\n  ".join(["this likelihood cannot work:", *found]))
    return config


def _sampler_of(policy: Policy, trajectories: list[Trajectory]) -> SamplerOptions | DenoisingOptions:
    import json

    contracts = {trajectory.sampler for trajectory in trajectories}
    if len(contracts) > 1:
        raise UserError("these trajectories were drawn by several samplers: score those of each by themselves")
    plain = SamplerOptions() if policy.kind == "text" else DenoisingOptions()
    return changed(plain, json.loads(contracts.pop()), "the recorded sampler")


def _modality(config: Config) -> Any:
    from rl.modality.choice import modality_of

    return modality_of(config)
