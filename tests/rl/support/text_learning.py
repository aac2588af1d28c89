"""The learner of one text policy in one process, without Ray: the update of recorded groups and its gradients."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import cast

import numpy as np
import torch
from torch import Tensor

from configs.algorithm_options import AlgorithmOptions, LikelihoodKind, LikelihoodOptions, ValueOptions
from models.text.policy import TextPolicy
from models.text.value import text_value
from rl.algorithm.requirements import needs_reference
from rl.algorithm.scored_rows import ScoredRow
from rl.algorithm.scores import Scores
from rl.learner.engine import Engine
from rl.learner.groups import Group
from rl.learner.learner import Learner
from rl.learner.value_model import ValueModel
from rl.likelihood.protocol import Likelihood, OwnDecisions, Replay
from rl.likelihood.text import TextElbo
from rollout.options import Order, SamplerOptions
from rollout.trajectory import TextTrajectory, Trajectory
from tests.rl.support.image_learning import CPU
from tests.sampling import prompts_of, roll_out
from tests.tiny import tiny_policy

SAMPLER = SamplerOptions(order=Order.sequential, rounds_per_block=4, max_new_tokens=8)


class RecordingEngine(Engine):
    """The engine, which remembers the gradient of each of its updates."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.gradients: list[Tensor] = []

    def update(self, learning_rate: float) -> float:
        gradients = [p.grad.flatten() for p in self.module.parameters() if p.grad is not None]
        self.gradients.append(torch.cat(gradients).clone())
        return super().update(learning_rate)


class SeveralDraws(OwnDecisions):
    """A denoising loss of several draws, whose rows may score one token more than once."""

    exact, gap_scale, fresh_noise, overlapping = False, 1.0, True, True

    def __init__(self, policy: TextPolicy, draws: int = 3) -> None:
        self.draws = draws
        self.one = TextElbo(policy.spec, LikelihoodOptions(kind=LikelihoodKind.elbo), 1, CPU)

    def rows(self, trajectories: Sequence[Trajectory], draw: int) -> list[ScoredRow]:
        return [
            dataclasses.replace(row, step=row.step + 100 * number)
            for number in range(self.draws)
            for row in self.one.rows(trajectories, draw * self.draws + number)
        ]

    def prepare(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> None:
        self.one.prepare(model, rows)

    def score(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> Scores:
        return self.one.score(model, rows)


@dataclasses.dataclass
class Outcome:
    gradients: list[Tensor]
    """Of each optimizer update."""
    weights: Tensor
    metrics: dict[str, float]
    value_gradients: list[Tensor] = dataclasses.field(default_factory=list)
    """Of the value model's updates."""


def recorded_groups(prompts: int = 4, group_size: int = 3) -> list[Group]:
    """Samples of unequal lengths, with advantages that differ and one sample that could not be scored."""
    trajectories = roll_out(policy(), SAMPLER, prompts_of([4, 5, 7, 6][:prompts], words=3), group_size)
    assert len({int(length) for t in trajectories for length in t.mask.sum(-1)}) > 2
    groups = []
    for index, trajectory in enumerate(trajectories):
        advantage = np.cos(3.0 * index + 2.0 * np.arange(group_size)).astype(np.float32)
        valid = np.ones(group_size, bool)
        valid[-1] = index > 0
        groups.append(Group(trajectory, advantage, valid))
    return groups


def policy(moved: float = 0.0) -> TextPolicy:
    """The policy that sampled, or one whose weights have moved away from it."""
    found = tiny_policy("llada", scale=1.0, words=4)  # bidirectional: every round is a row
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter += moved * torch.randn(parameter.shape, generator=generator)
    return found


def value_network(head: float = 0.0) -> TextPolicy:
    """Of the policy that sampled; with a head it has learned something already."""
    network = text_value(policy())
    torch.nn.init.normal_(network.network.lm_head.weight, std=head, generator=torch.Generator().manual_seed(4))
    return network


def value_model(options: ValueOptions, replay: Replay, head: float = 0.0) -> ValueModel:
    engine = RecordingEngine(value_network(head), options.optimizer, zero_stage=0, bf16=False)
    return ValueModel(engine, replay, options, 100, CPU)


def learn(
    options: AlgorithmOptions,
    likelihood: Callable[[TextPolicy], Likelihood],
    minibatches: Sequence[Sequence[Group]],
    moved: float = 0.0,
    moved_reference: float = 0.02,
    value_head: float = 0.0,
) -> Outcome:
    """One update of a rollout: of each minibatch a gradient, in as many micro-batches as the options say."""
    trained = policy(moved)
    frozen = copy.deepcopy(policy(moved_reference)).requires_grad_(False)
    engine = RecordingEngine(trained, options.optimizer, zero_stage=0, bf16=False)
    reference = (lambda: nullcontext(frozen)) if needs_reference(options) else None
    scored = likelihood(trained)
    value = None if options.value is None else value_model(options.value, cast(Replay, scored), value_head)
    learner = Learner(engine, scored, None, reference, options, 100, CPU, value=value)
    metrics = learner.step(0, minibatches, fresh=False)
    weights = torch.cat([p.detach().flatten() for p in trained.parameters()])
    return Outcome(engine.gradients, weights, metrics, [] if value is None else value.engine.gradients)


def permuted(group: Group, seed: int) -> Group:
    """The same group with its samples in another order."""
    order = np.random.default_rng(seed).permutation(len(group.valid))
    trajectory = group.trajectory.take(order)
    assert isinstance(trajectory, TextTrajectory)
    return Group(trajectory, group.advantage[order], group.valid[order])
