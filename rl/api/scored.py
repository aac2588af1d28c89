"""Log-probabilities with what they are of: rows of a likelihood, or plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.algorithm_options import Denominator, Ratio
from configs.errors import UserError
from rl.algorithm.decisions import Decisions, units_of
from rl.algorithm.scored_rows import Estimator, ScoredRow
from rl.algorithm.scores import Scores
from rl.learner.entries import entries_of
from rl.learner.groups import Group
from rollout.trajectory import NO_SAMPLER, Role, Trajectory, array

Array = Tensor | np.ndarray | Sequence[Any]


@dataclass(frozen=True, eq=False)
class LogProbs:
    """Of the decisions of some groups."""

    trajectories: list[Trajectory]
    """One a group, with the scored decisions on their decision axis."""
    estimator: Estimator
    """The likelihood, as far as the mathematics has to know it."""
    batches: list[tuple[list[ScoredRow], Scores]]
    exact: bool
    """With equal weights they are the log-probabilities that the trajectories recorded."""
    draw: int = 0

    @property
    def rows(self) -> list[ScoredRow]:
        return [row for rows, _ in self.batches for row in rows]

    @property
    def values(self) -> Tensor:
        """(M,) of all scored decisions, in the order of `rows`."""
        return torch.cat([scores.log_prob for _, scores in self.batches])

    def per_decision(self) -> list[Tensor]:
        """(G, D) of each group; NaN where a decision was not scored.

        Raises:
            UserError: several rows score one decision, as under several draws of masks.
        """
        if self.estimator.overlapping:
            raise UserError("this likelihood scores a decision more than once: read per_sample(), or use draws=1")
        values = self.values
        grids = [
            torch.full(t.mask.shape, torch.nan, dtype=values.dtype, device=values.device) for t in self.trajectories
        ]
        for row, part in zip(self.rows, values.split([len(row.decision) for row in self.rows]), strict=True):
            place = torch.from_numpy(row.decision.astype(np.int64)).to(values.device)
            grids[row.trajectory] = grids[row.trajectory].index_put((torch.full_like(place, row.sample), place), part)
        return grids

    def per_sample(self) -> list[Tensor]:
        """(G,) of each group: the estimate of each sample's log-likelihood, the mean over draws of the sum over its
        decisions; NaN where none was scored."""
        ones = [np.ones(t.mask.shape, np.float32) for t in self.trajectories]
        groups = [Group(t, one, one > 0) for t, one in zip(self.trajectories, ones, strict=True)]
        entries = entries_of(self.rows, groups, [1.0] * len(groups), Denominator.token, self.estimator.draws)
        values = self.values
        decisions = Decisions.of(entries, values.device)
        units, _ = units_of(decisions, Ratio.sequence, self.estimator.draws)
        sizes = [t.group_size for t in self.trajectories]
        found = torch.full((sum(sizes),), torch.nan, dtype=values.dtype, device=values.device)
        found = found.index_put((units.of_each(decisions.sample),), units.estimate(values))
        return list(found.split(sizes))

    def like(self, other: LogProbs) -> bool:
        """Whether both are of the same rows, so that they can be compared one by one."""
        mine, theirs = self.rows, other.rows
        return (
            self.draw == other.draw
            and len(mine) == len(theirs)
            and [len(rows) for rows, _ in self.batches] == [len(rows) for rows, _ in other.batches]
            and all(
                (a.trajectory, a.sample) == (b.trajectory, b.sample) and np.array_equal(a.decision, b.decision)
                for a, b in zip(mine, theirs, strict=True)
            )
        )


# Plain arrays


@dataclass(frozen=True, kw_only=True)
class GivenDecisions(Trajectory):
    """Decisions that somebody else has scored: a mask, and the step that each belongs to."""

    steps: np.ndarray = array(Role.decision, np.int64, "G D")

    @property
    def decision_step(self) -> np.ndarray:
        return self.steps


@dataclass(frozen=True)
class _OncePerDecision:
    """Each log-probability is the decision's own."""

    draws: int = 1
    overlapping: bool = False


def given(log_probs: Array, mask: Array | None, steps: Array | None) -> LogProbs:
    """
    Args:
        log_probs: (G, D) of one group, (groups, G, D), or a list of (G, D) that may differ in size.
        mask: the same shapes, bool: the decisions that count; None is all.
        steps: the same shapes, int: which decisions were made together, for ratio=step and denominator=step; None is
            one after the other.
    """
    grids = [torch.as_tensor(grid) for grid in groups_of(log_probs, "log_probs")]
    masks = _arrays(mask, [np.ones(tuple(grid.shape), bool) for grid in grids], "mask", bool)
    order = [np.broadcast_to(np.arange(grid.shape[1]), tuple(grid.shape)) for grid in grids]
    numbers = _arrays(steps, order, "steps", np.int64)
    trajectories, rows, flat = [], [], []
    for index, (grid, used, step) in enumerate(zip(grids, masks, numbers, strict=True)):
        trajectories.append(
            GivenDecisions(
                ticket=0,
                update=0,
                version=0,
                seed=0,
                prompt_id=f"group {index}",
                sampler=NO_SAMPLER,
                uid=np.arange(len(used), dtype=np.int64),
                logp=np.zeros(used.shape, np.float32),
                mask=used,
                steps=step,
            )
        )
        for sample in range(len(used)):
            decision = used[sample].nonzero()[0]
            ones = np.ones(len(decision), np.float32)
            rows.append(ScoredRow(None, index, sample, decision, ones, step[sample, decision], len(decision)))
        flat.append(grid[torch.from_numpy(used).to(grid.device)])
    rows = [row for row in rows if len(row.decision)]
    if not rows:
        raise UserError("the mask leaves nothing: no decision counts")
    return LogProbs(list(trajectories), _OncePerDecision(), [(rows, Scores(torch.cat(flat)))], exact=False)


def groups_of(values: Array, what: str) -> list[Any]:
    """A list of (G, D)."""
    if isinstance(values, Tensor | np.ndarray):
        if values.ndim not in (2, 3):
            raise UserError(f"{what} has shape {tuple(values.shape)}: give (G, D), (groups, G, D) or a list of (G, D)")
        return [values] if values.ndim == 2 else list(values)
    several = [each if isinstance(each, Tensor) else np.asarray(each) for each in values]
    if not several or any(each.ndim != 2 for each in several):
        return groups_of(np.asarray(values), what)
    return several


def _arrays(values: Array | None, default: list[np.ndarray], what: str, dtype: Any) -> list[np.ndarray]:
    if values is None:
        return [np.ascontiguousarray(each, dtype) for each in default]
    found = [to_numpy(each).astype(dtype) for each in groups_of(values, what)]
    if [each.shape for each in found] != [each.shape for each in default]:
        shapes = [each.shape for each in found], [each.shape for each in default]
        raise UserError(f"{what} has shapes {shapes[0]}, the log-probabilities {shapes[1]}: they must be equal")
    return found


def to_numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
