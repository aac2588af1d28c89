"""The decisions of a minibatch as flat tensors, and the units that ratios are taken of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from configs.algorithm_options import Ratio
from rl.algorithm.scored_rows import ScoredRow

NOBODY = -1
"""Sample and group of rows that only keep ranks in step."""


@dataclass
class Entry:
    """One row with what the loss needs of its decisions."""

    row: ScoredRow
    sample: int
    """Number of its sample in the minibatch."""
    group: int
    """Number of its group in the minibatch."""
    length: int
    """Trained decisions of its sample."""
    weight: np.ndarray
    """(m,) fp32 share of each decision in the mean over the global minibatch."""
    sample_weight: float
    """The same for the sample as a whole."""
    unscored_weight: float = field(default=0.0, kw_only=True)
    """The same for the samples of its group that no row scores, as where a draw of masks hides nothing of an answer:
    their estimate is 0, and the group is no lighter for it."""
    advantage: np.ndarray
    """(m,) fp32"""
    imitated: np.ndarray
    """(m,) bool: in the anchor"""
    recorded: np.ndarray
    """(m,) log-probability under the policy that made the sample"""
    old: np.ndarray | None = None
    """(m,) log-probability before the first optimizer update; None while it is the present one"""
    reference: np.ndarray | None = None
    """(m,) log-probability under the reference model, where the loss needs it beside others of its sample"""
    value: np.ndarray | None = None
    """(m,) what the value model, if there is one, said of the state before each decision when the sample was new"""
    value_target: np.ndarray | None = None
    """(m,) fp32 what it should have said"""

    @staticmethod
    def of_nobody(row: ScoredRow, recorded: np.ndarray) -> Entry:
        """A row of a sample that is left out: it counts nothing."""
        zeros = np.zeros(len(recorded), np.float32)
        return Entry(
            row=row,
            sample=NOBODY,
            group=NOBODY,
            length=1,
            weight=zeros,
            sample_weight=0.0,
            advantage=zeros,
            imitated=np.zeros(len(recorded), bool),
            recorded=recorded,
        )

    def weightless(self) -> Entry:
        """The same row, counting nothing: it keeps ranks in step. It belongs to no sample, so that it adds nothing to
        the estimates of the one that it repeats."""
        return Entry(
            row=self.row,
            sample=NOBODY,
            group=NOBODY,
            length=self.length,
            weight=np.zeros_like(self.weight),
            sample_weight=0.0,
            advantage=np.zeros_like(self.advantage),
            imitated=np.zeros_like(self.imitated),
            recorded=self.recorded,
            old=self.old,
            reference=self.reference,
            value=self.value,
            value_target=self.value_target,
        )


@dataclass(frozen=True)
class Decisions:
    """(M,) each, in the order of the rows' log-probabilities."""

    coefficient: Tensor
    importance: Tensor
    weight: Tensor
    advantage: Tensor
    imitated: Tensor
    """bool"""
    old: Tensor | None
    reference: Tensor | None
    sample: Tensor
    step: Tensor
    decision: Tensor
    """int64 keys; `step` and `decision` are distinct within a sample only"""
    group: Tensor
    length: Tensor
    sample_weight: Tensor
    unscored_weight: Tensor

    @staticmethod
    def of(entries: Sequence[Entry], device: torch.device) -> Decisions:
        def flat(arrays: list[np.ndarray]) -> Tensor:
            # In the arrays' own precision: log-densities of large latents are kept in fp64.
            return torch.from_numpy(np.concatenate(arrays)).to(device)

        def spread(values: list[float], dtype: type) -> Tensor:
            counts = [len(entry.recorded) for entry in entries]
            return torch.from_numpy(np.repeat(np.array(values, dtype), counts)).to(device)

        old = [entry.old for entry in entries if entry.old is not None]
        reference = [entry.reference for entry in entries if entry.reference is not None]
        return Decisions(
            coefficient=flat([entry.row.coefficient for entry in entries]),
            importance=spread([entry.row.importance for entry in entries], np.float32),
            weight=flat([entry.weight for entry in entries]),
            advantage=flat([entry.advantage for entry in entries]),
            imitated=flat([entry.imitated for entry in entries]),
            old=flat(old) if old else None,
            reference=flat(reference) if reference else None,
            sample=spread([entry.sample for entry in entries], np.int64),
            step=flat([entry.row.step.astype(np.int64) for entry in entries]),
            decision=flat([entry.row.decision.astype(np.int64) for entry in entries]),
            group=spread([entry.group for entry in entries], np.int64),
            length=spread([entry.length for entry in entries], np.int64),
            sample_weight=spread([entry.sample_weight for entry in entries], np.float32),
            unscored_weight=spread([entry.unscored_weight for entry in entries], np.float32),
        )


@dataclass(frozen=True)
class Units:
    """What one ratio is taken of: a decision, the decisions of a step, or those of a sample."""

    index: Tensor
    """(M,) int64 unit of each decision"""
    count: int
    factor: Tensor
    """(M,) what a decision's log-probability is multiplied by in the estimate of its unit"""

    def total(self, values: Tensor) -> Tensor:
        """(U,) sum of (M,) `values` over each unit."""
        return torch.zeros(self.count, dtype=values.dtype, device=values.device).index_add(0, self.index, values)

    def mean(self, values: Tensor) -> Tensor:
        """(U,) mean of (M,) `values` over each unit."""
        return self.total(values) / self.total(torch.ones_like(values))

    def of_each(self, keys: Tensor) -> Tensor:
        """(U,) of (M,) int64 `keys` that are the same within a unit: that one."""
        return torch.zeros(self.count, dtype=torch.long, device=keys.device).scatter(0, self.index, keys)

    def estimate(self, values: Tensor) -> Tensor:
        """(U,) estimate of each unit's log-probability, or of its log-ratio, from those of its decisions."""
        return self.total(self.factor * values)


def units_of(decisions: Decisions, ratio: Ratio, draws: int) -> tuple[Units, Tensor]:
    """Units, and (U,) what each weighs in the mean over the global minibatch. With n draws:

    - none: every scored decision by itself;
    - element, guard: a decision; if several rows score it, the mean over draws;
    - step: the decisions that a step or a draw scored together, their sum;
    - sequence: all decisions of a sample, the mean over draws of their sum.

    What is exponentiated of a sequence is this per decision, so it weighs as all its decisions; of a step it is the sum
    itself, so it weighs as one. At ratio 1 the gradient is then the same for every kind of ratio, decision by decision.
    """
    each = decisions.importance * decisions.weight
    if ratio is Ratio.none:
        index = torch.arange(len(each), device=each.device)
        return Units(index, len(each), decisions.coefficient), each / draws
    if ratio is Ratio.step:
        units = Units(*numbered(decisions.sample, decisions.step), decisions.coefficient)
        return units, units.mean(each) / draws
    if ratio is Ratio.sequence:
        units = Units(*numbered(decisions.sample), decisions.coefficient * decisions.importance / draws)
        return units, units.mean(decisions.sample_weight)
    units = Units(*numbered(decisions.sample, decisions.decision), decisions.coefficient / draws)
    return units, units.mean(each)


def numbered(*keys: Tensor) -> tuple[Tensor, int]:
    """(M,) number of each distinct combination of keys, and how many there are."""
    distinct, index = torch.unique(torch.stack(keys), dim=1, return_inverse=True)
    return index, distinct.shape[1]
