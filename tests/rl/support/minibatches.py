"""Random minibatches of scored rows, and objectives against readings of their papers' formulas in NumPy.

A reading is a function of a minibatch and of the log-probabilities (M,) that returns the loss. It loops over samples,
steps and draws in plain Python, so it shares nothing with `rl.algorithm.objectives` but its paper. Gradients are
compared along random directions, by central differences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pytest
import torch

from configs.algorithm_options import AlgorithmOptions
from rl.algorithm.decisions import Decisions, Entry
from rl.algorithm.objectives import Loss, policy_loss
from rl.algorithm.scored_rows import ScoredRow
from rl.algorithm.scores import Scores

CPU = torch.device("cpu")
LENGTHS = (3, 1, 2, 4, 2, 1, 2, 1)
"""Decisions of each sample: 16 of 8 samples, so that weights in fp32 are exact."""
GROUPS = (0, 0, 0, 0, 1, 1, 1, 1)
ADVANTAGES = np.array([1.2, -0.7, 0.4, -1.5, 0.9, -0.3, -0.8, 0.6])
MOVED = np.array([0.4, -0.4, -0.4, 0.4, 0.0, 0.0, -0.2, 0.3])
"""Nats a decision."""
DIRECTIONS = 8


@dataclass(frozen=True)
class Minibatch:
    rows: list[ScoredRow]
    draws: int
    new: np.ndarray
    old: np.ndarray
    reference: np.ndarray
    """(M,) log-probabilities under three policies, rows in order"""
    advantage: np.ndarray
    """(samples,)"""
    by_token: bool = True
    """The mean is over decisions; otherwise over those of a sample, then over samples."""

    @cached_property
    def fields(self) -> dict[str, np.ndarray]:
        """(M,) each, of the row that a log-probability is of: its `sample`, or what it has for each decision."""

        def field(name: str) -> np.ndarray:
            return np.concatenate([np.broadcast_to(getattr(row, name), len(row.decision)) for row in self.rows])

        return {name: field(name) for name in ("sample", "step", "decision", "coefficient", "importance")}

    @cached_property
    def _places(self) -> dict[tuple, list[int]]:
        return {}

    def of(self, **wanted: int) -> list[int]:
        """Indices of the log-probabilities whose fields have these values, e.g. of(sample=2, step=1)."""
        key = tuple(wanted.items())
        if key not in self._places:
            found = np.logical_and.reduce([self.fields[name] == value for name, value in key])
            self._places[key] = found.nonzero()[0].tolist()
        return self._places[key]

    def distinct(self, name: str, sample: int) -> list[int]:
        """The values of a field within a sample."""
        return sorted(set(self.fields[name][self.of(sample=sample)].tolist()))

    def weight(self, sample: int) -> float:
        """Of one decision."""
        return 1 / sum(LENGTHS) if self.by_token else 1 / (len(LENGTHS) * LENGTHS[sample])

    def sample_weight(self, sample: int) -> float:
        return self.weight(sample) * LENGTHS[sample]

    def entries(self) -> list[Entry]:
        entries, start = [], 0
        for row in self.rows:
            count, sample = len(row.decision), row.sample
            part = slice(start, start + count)
            entries.append(
                Entry(
                    row=row,
                    sample=sample,
                    group=GROUPS[sample],
                    length=LENGTHS[sample],
                    weight=np.full(count, self.weight(sample)),
                    sample_weight=self.sample_weight(sample),
                    advantage=np.full(count, self.advantage[sample]),
                    imitated=np.full(count, self.advantage[sample] > 0),
                    recorded=self.old[part],
                    old=self.old[part],
                    reference=self.reference[part],
                )
            )
            start += count
        return entries

    def decisions(self) -> Decisions:
        return Decisions.of(self.entries(), CPU)


def row(sample: int, decision: list[int], coefficient: float | list[float], step: int, importance: float = 1.0):
    count = len(decision)
    return ScoredRow(
        content=None,
        trajectory=GROUPS[sample],
        sample=sample,
        decision=np.array(decision),
        coefficient=np.broadcast_to(np.array(coefficient, np.float64), count),
        step=np.full(count, step),
        tokens=count,
        importance=importance,
    )


def numbers(rows: list[ScoredRow], draws: int, by_token: bool, seed: int = 0) -> Minibatch:
    """Three policies that are some tenths of a nat apart. Of either sign of the advantage one sample has moved up, one
    down, and one stayed."""
    generator = np.random.default_rng(seed)
    sample = np.concatenate([np.full(len(one.decision), one.sample) for one in rows])
    old = -1 - generator.exponential(1.0, len(sample))
    new = old + MOVED[sample] + generator.normal(0, 0.2, len(sample))
    reference = old + generator.normal(0, 0.3, len(sample))
    return Minibatch(rows, draws, new, old, reference, ADVANTAGES, by_token)


def replayed(by_token: bool = True, importance: float = 1.0) -> Minibatch:
    """One row a step, at most two decisions in each. With an importance, every other step is left out."""
    rows = []
    for sample, length in enumerate(LENGTHS):
        parts = [list(range(first, min(first + 2, length))) for first in range(0, length, 2)]
        kept = parts if importance == 1.0 else parts[::2]
        rows += [row(sample, part, 1.0, parts.index(part), importance) for part in kept]
    return numbers(rows, 1, by_token)


def drawn(by_token: bool = True, draws: int = 3, blocks: int = 1, seed: int = 1) -> Minibatch:
    """Masks at random rates with weight 1 / rate; with several blocks a draw has a step for each."""
    generator = np.random.default_rng(seed)
    rows = []
    for sample, length in enumerate(LENGTHS):
        for draw in range(draws):
            for block in range(blocks):
                inside = [k for k in range(length) if k % blocks == block]
                rate = generator.uniform(0.3, 1.0)
                masked = [k for k in inside if generator.uniform() < rate] or inside[:1]
                if masked:
                    rows.append(row(sample, masked, 1 / rate, draw * blocks + block))
    return numbers(rows, draws, by_token)


def coupled(by_token: bool = True) -> Minibatch:
    """A fully masked row, and two that hide complementary halves with the weights of their sizes: two draws."""
    rows = []
    for sample, length in enumerate(LENGTHS):
        everything, half = list(range(length)), list(range(length // 2))
        rows.append(row(sample, everything, 1.0, 0))
        for part in (half, everything[len(half) :]):
            if part:
                rows.append(row(sample, part, length / len(part), 1))
    return numbers(rows, 2, by_token)


Reading = Callable[[Minibatch, np.ndarray], float]
"""(minibatch, (M,) log-probabilities under the policy) -> loss"""


def objective(minibatch: Minibatch, options: AlgorithmOptions, leaf: torch.Tensor) -> Loss:
    return policy_loss(Scores(leaf), minibatch.decisions(), options, minibatch.draws, lambda part: part)


def assert_reads(minibatch: Minibatch, options: AlgorithmOptions, reading: Reading) -> Loss:
    """Value and gradient of the objective are those of the reading."""
    leaf = torch.tensor(minibatch.new, requires_grad=True)
    loss = objective(minibatch, options, leaf)
    assert loss.value.item() == pytest.approx(reading(minibatch, minibatch.new), rel=1e-6, abs=1e-7)
    assert_gradient(loss.value, leaf, lambda x: reading(minibatch, x))
    return loss


def assert_gradient(value: torch.Tensor, leaf: torch.Tensor, reading: Callable[[np.ndarray], float]) -> None:
    found, expected = slopes(value, leaf, reading)
    assert np.linalg.norm(expected) > 1e-3  # else the comparison says nothing
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.linalg.norm(expected))


def assert_differs(minibatch: Minibatch, options: AlgorithmOptions, wrong: Reading) -> None:
    """The control: a plausible mistake changes the gradient by more than a twentieth."""
    leaf = torch.tensor(minibatch.new, requires_grad=True)
    found, expected = slopes(objective(minibatch, options, leaf).value, leaf, lambda x: wrong(minibatch, x))
    assert np.linalg.norm(found - expected) > 0.05 * np.linalg.norm(expected)


def slopes(
    value: torch.Tensor, leaf: torch.Tensor, reading: Callable[[np.ndarray], float], width: float = 1e-5
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives along random directions: by autograd, and of the reading by central differences."""
    (gradient,) = torch.autograd.grad(value, leaf)
    at = leaf.detach().numpy()
    directions = np.random.default_rng(1).normal(size=(DIRECTIONS, *at.shape))
    found = [(gradient.numpy() * direction).sum() for direction in directions]
    steps = width * directions
    expected = [(reading(at + step) - reading(at - step)) / (2 * width) for step in steps]
    return np.array(found), np.array(expected)


def with_advantage(minibatch: Minibatch, advantage: list[float]) -> Minibatch:
    return replace(minibatch, advantage=np.array(advantage))
