"""A value model changes the variance of the gradient and not its mean, by enumeration of all traces of a small policy.

The exact value of a canvas is the expected reward of what the sampler makes of it, by brute force from there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from rl.algorithm.decisions import Decisions, Entry
from rl.algorithm.gae import at_the_end, step_advantages
from rl.algorithm.objectives import policy_loss
from rl.likelihood.text import TextReplay
from tests.rl.likelihood.test_golden_traces import Enumerator
from tests.rl.likelihood.test_policy_gradient_bias import (
    CPU,
    EVERY_STEP,
    FAMILIES,
    SAMPLER,
    WEIGHTED,
    World,
    relative_error,
)

State = tuple[tuple[int, ...], tuple[int, ...], int]
"""Ids (-1: masked), rounds in which they were revealed, round that comes next."""
Value = Callable[[State], float]
EXACT = 1e-5


class JudgedWorld(World):
    def __init__(self, family: str) -> None:
        super().__init__(family)
        sums = [sum((k + 1) * token for k, token in enumerate(ids)) for ids, _ in self.traces]
        self.reward = 1 + np.cos(3.0 * np.array(sums))  # each token matters, whatever its place
        self.enumerator = Enumerator(self.policy, SAMPLER)
        self.rewards = dict(zip(self.traces, self.reward.tolist(), strict=True))
        self.value = functools.cache(self._value)

    def state(self, sample: int, round_index: int) -> State:
        """What the policy saw before a round."""
        ids, reveal = list(self.traces)[sample]
        seen = [0 < r < round_index for r in reveal]
        canvas = tuple(token if s else -1 for token, s in zip(ids, seen, strict=True))
        return canvas, tuple(r if s else 0 for r, s in zip(reveal, seen, strict=True)), round_index

    def _value(self, state: State) -> float:
        """The expected reward from there."""
        found: dict[tuple, torch.Tensor] = {}
        with torch.no_grad():
            ids, reveal, round_index = state
            self.enumerator._extend(ids, reveal, torch.ones(()), round_index, found)
        return sum(float(probability) * self.rewards[trace] for trace, probability in found.items())

    def judged(self, value: Value, gae_lambda: float = 1.0, late: int = 0) -> list[Entry]:
        """Every trace as one sample, with advantages by `value`.

        Args:
            late: rounds that the value sees too many.
        """
        replay = TextReplay(self.policy.spec, SAMPLER, EVERY_STEP, CPU)
        entries = self.entries(replay)
        for sample in range(len(self.traces)):
            mine = [entry for entry in entries if entry.sample == sample]
            step = np.concatenate([entry.row.step for entry in mine])
            rounds = self.trajectory.reveal[sample, np.concatenate([entry.row.decision for entry in mine])]
            values = np.array([value(self.state(sample, int(r) + late)) for r in rounds])
            reward = at_the_end(np.full(len(step), self.reward[sample]), step)
            advantage, target = step_advantages(reward, values, step, 1.0, gae_lambda)
            bounds = np.cumsum([len(entry.recorded) for entry in mine])[:-1]
            for entry, a, t in zip(mine, np.split(advantage, bounds), np.split(target, bounds), strict=True):
                entry.advantage, entry.value_target = a.astype(np.float32), t
        return entries

    def gradients(self, entries: list[Entry]) -> torch.Tensor:
        """(samples, parameters) of each sample as if it were the only one."""
        replay = TextReplay(self.policy.spec, SAMPLER, EVERY_STEP, CPU)
        found = []
        for sample in range(len(self.traces)):
            mine = [entry for entry in entries if entry.sample == sample]
            decisions = Decisions.of(mine, CPU)
            scores = replay.score(self.policy, [entry.row for entry in mine])
            loss = policy_loss(scores, decisions, WEIGHTED, 1, lambda part: part).value
            found.append(self.gradient(loss) / float(decisions.weight[0]))  # which is its probability
        return torch.stack(found)

    def mean_and_variance(self, entries: list[Entry]) -> tuple[torch.Tensor, float]:
        probability, gradients = self.probability.detach().double(), self.gradients(entries)
        mean = probability @ gradients
        return mean, float(probability @ (gradients - mean).square().sum(-1))


@pytest.fixture(scope="module", params=FAMILIES)
def world(request) -> JudgedWorld:
    return JudgedWorld(request.param)


def wrong(state: State) -> float:
    """Any other function of the state."""
    ids, _, round_index = state
    return float(np.sin(5 * round_index + sum((k + 1) * token for k, token in enumerate(ids))))


# Share of the variance of raw rewards that is left with lambda 1, 0.5 and 0. Measured.
VARIANCE = {"sdar": (0.221, 0.210, 0.204), "llada": (0.656, 0.573, 0.528)}


def test_with_the_exact_value_the_gradient_is_unbiased_and_varies_less(world):
    """The less so the nearer lambda is to 0, where the luck of later rounds is not counted."""
    _, without = world.mean_and_variance(world.judged(lambda state: 0.0))
    for gae_lambda, share in zip((1.0, 0.5, 0.0), VARIANCE[world.family], strict=True):
        mean, variance = world.mean_and_variance(world.judged(world.value, gae_lambda))
        assert relative_error(mean, world.policy_gradient()) <= EXACT
        assert variance / without == pytest.approx(share, abs=2e-3)


def test_a_wrong_value_costs_variance_with_lambda_one_and_a_bias_below(world):
    mean, _ = world.mean_and_variance(world.judged(wrong))
    assert relative_error(mean, world.policy_gradient()) <= EXACT
    mean, _ = world.mean_and_variance(world.judged(wrong, gae_lambda=0.0))
    assert relative_error(mean, world.policy_gradient()) > 0.1


def test_a_value_that_sees_the_revealed_tokens_is_biased(world):
    """The control: reading a state after its step instead of before it. Here nothing is left: what a token changes is
    known to the value already, and the advantage is 0 in the mean."""
    mean, _ = world.mean_and_variance(world.judged(world.value, late=1))
    assert relative_error(mean, world.policy_gradient()) > 0.9


@pytest.mark.parametrize("gae_lambda", [1.0, 0.5])
def test_the_targets_of_a_state_have_its_value_as_their_mean(world, gae_lambda):
    """So that the least squares of the targets are the expected reward."""
    sums: dict[State, np.ndarray] = {}
    for entry in world.judged(wrong, gae_lambda):
        probability = float(entry.weight[0])
        for place, target in zip(entry.row.decision, entry.value_target, strict=True):
            state = world.state(entry.sample, int(world.trajectory.reveal[entry.sample, place]))
            sums[state] = sums.get(state, np.zeros(2)) + probability * np.array([target, 1.0])
    assert len(sums) > 3
    for state, (total, probability) in sums.items():
        assert total / probability == pytest.approx(world.value(state), abs=1e-5)
