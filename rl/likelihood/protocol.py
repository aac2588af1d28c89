"""What the learner asks of a likelihood, whatever the modality.

A likelihood cuts trajectories into *rows*, the smallest pieces that one forward can score; each row knows which
decisions of which sample it scores. The learner owns everything else: micro-batches, ratios, clipping, denominators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from rl.algorithm.scored_rows import Estimator, ScoredRow
from rl.algorithm.scores import Scores
from rollout.trajectory import Trajectory


class OwnDecisions:
    """Part of a likelihood whose decisions are those that the rollout took."""

    def decisions_of(self, trajectory: Trajectory) -> Trajectory:
        return trajectory


class Likelihood(Estimator, Protocol):
    @property
    def exact(self) -> bool:
        """True if, with equal weights, it reproduces the log-probabilities recorded in the trajectory."""
        ...

    @property
    def gap_scale(self) -> float:
        """What a difference of log-probabilities is multiplied by before it is compared with a tolerance: 1 for one
        categorical decision. A density over E elements whose rounding errors add up at random errs by sqrt(E) times
        that, and a mean over them by 1 / sqrt(E)."""
        ...

    @property
    def fresh_noise(self) -> bool:
        """Whether rows depend on `draw`: noise, masks, or which rows there are."""
        ...

    def decisions_of(self, trajectory: Trajectory) -> Trajectory:
        """The same samples with the decisions that it scores on their decision axis: what everyone else is to see."""
        ...

    def rows(self, trajectories: Sequence[Trajectory], draw: int) -> list[ScoredRow]:
        """Rows of every sample.

        Args:
            trajectories: as `decisions_of` shows them.
            draw: key of fresh noise beside the sample's own: update x epochs + epoch, so that every pass over the
                samples has its own noise, and policy, old policy and reference have the same.
        """
        ...

    def prepare(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> None:
        """Completes what of the rows depends on the policy, so that policy, old policy and reference score the same.

        Called with the policy, once for each micro-batch of a pass, before any of its rows is scored. Builds no graph,
        and calls the model equally often whatever the rows are: the collectives of sharded weights must pair up.
        """
        ...

    def score(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> Scores:
        """Scores of all rows' decisions, rows in order."""
        ...


class Replay(Likelihood, Protocol):
    """A likelihood of recorded steps. The states that they start from can be judged by a value model."""

    def values(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> Tensor:
        """(sum of m,) fp32 value of the state before each decision, in the order of the log-probabilities;
        differentiable in the weights of the value network `model`."""
        ...


def micro_batches(rows: list[ScoredRow], max_tokens: int) -> list[list[ScoredRow]]:
    """Rows of similar length together, each batch at most `max_tokens` with its padding (or a single longer row)."""
    ordered = sorted(rows, key=lambda row: -row.tokens)
    batches: list[list[ScoredRow]] = []
    for row in ordered:
        if batches and (len(batches[-1]) + 1) * batches[-1][0].tokens <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
