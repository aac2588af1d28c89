"""One learner rank: replay, loss, backward, update. It knows no modality; likelihoods do.

The loss of an update is  sum over decisions of weight x loss / divisor,  where the divisor is reduced over all ranks
before the first forward. It is therefore the same whatever the number of ranks, the micro-batches or the order of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from configs.schema import AlgorithmOptions, Schedule
from rl.denominators import decision_weights, divisor
from rl.engine import Engine, GradientError
from rl.likelihood import Likelihood, ScoredRow, micro_batches
from rl.objectives import decision_loss
from rl.scores import Scores
from rollout.trajectory import Trajectory

Reference = Callable[[], AbstractContextManager[Callable[..., Tensor]]]
"""Opens a context whose value is another model than the one in training."""
Item = TypeVar("Item")
PARITY_SAMPLES = 4
NOT_FINITE = "Lower the learning rate or rollout.max_staleness and run again: it goes on from the newest checkpoint"


class LearnerError(RuntimeError):
    """Training cannot go on; what came out of it last is in the newest checkpoint."""


@dataclass(frozen=True)
class Group:
    """A trajectory and what its samples are worth."""

    trajectory: Trajectory
    advantage: np.ndarray
    """(G,) fp32"""
    valid: np.ndarray
    """(G,) bool: scored. A group with none keeps ranks in step and weighs nothing."""


@dataclass(frozen=True)
class Parity:
    gap: float
    """Largest |recorded - recomputed| log-probability times the likelihood's `gap_scale`, over all ranks."""
    by_step: dict[int, float]
    """The same for each step of this rank's samples."""


@dataclass
class Entry:
    """One row with everything the loss needs for its decisions, (m,) each."""

    row: ScoredRow
    weight: np.ndarray
    advantage: float
    recorded: np.ndarray
    old: np.ndarray | None = None


@dataclass
class Statistics:
    """Sums and maxima over the decisions of an update, reduced over ranks at its end."""

    sums: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("decisions", "ratio", "clipped", "kl", "loss"), 0.0)
    )
    maxima: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("ratio_error", "logprob_gap"), 0.0))

    def reduced(self, device: torch.device) -> Statistics:
        sums = torch.tensor(list(self.sums.values()), dtype=torch.float64, device=device)
        maxima = torch.tensor(list(self.maxima.values()), dtype=torch.float64, device=device)
        dist.all_reduce(sums)
        dist.all_reduce(maxima, dist.ReduceOp.MAX)
        return Statistics(
            dict(zip(self.sums, sums.tolist(), strict=True)), dict(zip(self.maxima, maxima.tolist(), strict=True))
        )


class Learner:
    """Owns the update of one rank; every method is collective."""

    def __init__(
        self,
        engine: Engine,
        likelihood: Likelihood,
        exact_replay: Likelihood | None,
        reference: Reference | None,
        adapters_off: Reference | None,
        options: AlgorithmOptions,
        total_updates: int,
        device: torch.device,
    ) -> None:
        """
        Args:
            exact_replay: reproduces recorded log-probabilities, for the parity gate; None without rollouts.
            reference: the frozen model; None without KL.
            adapters_off: the policy without its adapters; None when it has none.
        """
        self.engine = engine
        self.likelihood = likelihood
        self.exact_replay = exact_replay
        self.reference = reference
        self.adapters_off = adapters_off
        self.options = options
        self.total_updates = total_updates
        self.device = device

    def parity(self, groups: Sequence[Group]) -> Parity:
        """Replays a few samples of each rank before anything is learned; the gap is the largest over ranks."""
        trajectory = _few_samples(groups)
        by_step = self._gaps(trajectory)
        gap = self._maximum(max(by_step.values(), default=0.0))
        return Parity(gap, by_step)

    def likely_cause(self, groups: Sequence[Group], limit: float) -> str:
        """Replays the samples under one change at a time; the change that closes the gap names its cause."""
        trajectory = _few_samples(groups)
        suspects = {
            "a row's result depends on its batch (attention or convolution kernels chosen by shape)": {"alone": True},
            "a layer behaves differently in training mode, such as dropout": {"training": False},
            "the rollout ran without the adapters that the learner has": {"adapters": False},
        }
        for cause, change in suspects.items():
            if self._maximum(max(self._gaps(trajectory, **change).values(), default=0.0)) <= limit:
                return cause
        return "rollout and learner load different weights or precisions"

    def _gaps(
        self, trajectory: Trajectory, *, alone: bool = False, training: bool = True, adapters: bool = True
    ) -> dict[int, float]:
        """Largest |recorded - recomputed| log-probability of each step."""
        assert self.exact_replay is not None
        self.engine.module.train(training)
        rows = self.exact_replay.rows([trajectory], 0)
        batches = [[row] for row in rows] if alone else micro_batches(rows, self.options.micro_batch_tokens)
        gaps: dict[int, float] = {}
        switched = nullcontext(self.engine) if adapters or self.adapters_off is None else self.adapters_off()
        with torch.no_grad(), switched as model:
            for batch in self._in_step(batches, lambda row: row):
                recomputed = self.exact_replay.score(model, batch).log_prob.cpu().numpy()
                recorded = np.concatenate([trajectory.logp[row.sample, row.decision] for row in batch])
                steps = np.concatenate([row.step for row in batch])
                found = np.nan_to_num(np.abs(recorded - recomputed), nan=np.inf) * self.exact_replay.gap_scale
                for step, gap in zip(steps.tolist(), found.tolist(), strict=True):
                    gaps[step] = max(gaps.get(step, 0.0), gap)
        return dict(sorted(gaps.items()))

    def step(self, update: int, minibatches: Sequence[Sequence[Group]], fresh: bool) -> dict[str, float]:
        """All optimizer updates of one rollout.

        Args:
            minibatches: this rank's groups of each; at least one group in each, possibly one that weighs nothing.
            fresh: the trajectories were generated by the present weights, so the exact replay must reproduce them.

        Returns:
            Metrics, equal on every rank.
        """
        self.engine.module.train()
        statistics = Statistics()
        prepared = [self._prepare(groups, update) for groups in minibatches]
        several = self.options.epochs * len(minibatches) > 1
        self._set_old(prepared, several)
        gap = self._parity_metric(minibatches, fresh)
        gradient_norm = 0.0
        first = True
        for _ in range(self.options.epochs):
            for batches in prepared:
                for batch in batches:
                    self._accumulate(batch, statistics, first)
                norm = self._step_engine(update)
                gradient_norm = max(gradient_norm, norm)
                first = False
        return self._metrics(statistics.reduced(self.device), gradient_norm, gap, update, fresh)

    def _step_engine(self, update: int) -> float:
        """One optimizer update; returns the gradient norm."""
        try:
            norm = self.engine.update(self._learning_rate(update))
        except GradientError as error:
            raise LearnerError(f"update {update}: {error}. {NOT_FINITE}") from error
        if not math.isfinite(norm):
            raise LearnerError(f"update {update}: the gradient norm is {norm}. {NOT_FINITE}")
        return norm

    def _prepare(self, groups: Sequence[Group], update: int) -> list[list[Entry]]:
        """Micro-batches of a minibatch, as many on every rank, weighted by the global divisor."""
        trajectories, advantages, scale = [], [], []
        local = 0.0
        for group in groups:
            kept = group.valid.nonzero()[0]
            trajectory = group.trajectory.take(kept if len(kept) else [0])
            trajectories.append(trajectory)
            advantages.append(group.advantage[kept] if len(kept) else np.zeros(1, np.float32))
            scale.append(float(len(kept) > 0))
            local += divisor(trajectory, self.options.denominator) if len(kept) else 0.0
        total = self._sum(local)
        if total == 0:
            raise LearnerError(f"update {update} has nothing to learn from: no sample of its groups could be used")
        rows = self.likelihood.rows(trajectories, update)
        weights = self._weights(trajectories, rows)
        entries = [
            Entry(
                row=row,
                weight=weights[row.trajectory][row.sample, row.decision]
                * row.coefficient
                * scale[row.trajectory]
                / total,
                advantage=float(advantages[row.trajectory][row.sample]),
                recorded=trajectories[row.trajectory].logp[row.sample, row.decision],
            )
            for row in rows
        ]
        by_row = {id(entry.row): entry for entry in entries}
        batches = micro_batches(rows, self.options.micro_batch_tokens)
        return self._in_step([[by_row[id(row)] for row in batch] for batch in batches], _weightless)

    def _weights(self, trajectories: list[Trajectory], rows: list[ScoredRow]) -> list[np.ndarray]:
        """(G, D) weight of each decision of each trajectory."""
        step = [np.zeros(trajectory.logp.shape, np.int64) for trajectory in trajectories]
        for row in rows:
            step[row.trajectory][row.sample, row.decision] = row.step
        return [decision_weights(t, s, self.options.denominator) for t, s in zip(trajectories, step, strict=True)]

    def _set_old(self, prepared: list[list[list[Entry]]], several: bool) -> None:
        """The behaviour log-probability: the recorded one where the likelihood reproduces it; else scored now, before
        the weights change. With a single update it is the present value, and the ratio is 1."""
        for batches in prepared:
            for batch in batches:
                if self.likelihood.exact:
                    for entry in batch:
                        entry.old = entry.recorded
                elif several:
                    with torch.no_grad():
                        scored = self.likelihood.score(self.engine, [e.row for e in batch]).log_prob.cpu().numpy()
                    splits = np.cumsum([len(entry.recorded) for entry in batch])[:-1]
                    for entry, old in zip(batch, np.split(scored, splits), strict=True):
                        entry.old = old

    def _accumulate(self, batch: list[Entry], statistics: Statistics, first: bool) -> None:
        """Forward and backward of one micro-batch."""
        scores = self.likelihood.score(self.engine, [entry.row for entry in batch])
        log_prob = scores.log_prob
        weight = self._flat([entry.weight for entry in batch])
        advantage = self._flat([np.full(len(e.recorded), e.advantage, np.float32) for e in batch])
        old = log_prob.detach() if batch[0].old is None else self._flat([e.old for e in batch if e.old is not None])
        decision = decision_loss(scores, old, advantage, self.options)
        loss = (weight * decision.loss).sum()
        if self.reference is not None:
            kl = self._kl(batch, scores)
            loss = loss + self.options.kl.coefficient * (weight * kl).sum()
            statistics.sums["kl"] += float(kl.detach()[weight > 0].sum())
        if not torch.isfinite(loss):
            low, high = (float(value) for value in log_prob.detach().aminmax())
            raise LearnerError(
                f"the loss is {float(loss.detach())}: log-probabilities between {low:.3g} and {high:.3g}, ratios up to "
                f"{float(decision.ratio.max()):.3g}. {NOT_FINITE}"
            )
        self.engine.backward(loss)
        used = weight > 0
        statistics.sums["loss"] += float(loss.detach())
        statistics.sums["decisions"] += float(used.sum())
        statistics.sums["ratio"] += float(decision.ratio[used].sum())
        statistics.sums["clipped"] += float(decision.clipped[used].sum())
        if first and used.any():
            error = float((decision.ratio[used] - 1).abs().max())
            statistics.maxima["ratio_error"] = max(statistics.maxima["ratio_error"], error)
            if self.likelihood.exact:
                recorded = self._flat([entry.recorded for entry in batch])
                gap = float((log_prob.detach() - recorded)[used].abs().max()) * self.likelihood.gap_scale
                statistics.maxima["logprob_gap"] = max(statistics.maxima["logprob_gap"], gap)

    def _kl(self, batch: list[Entry], scores: Scores) -> Tensor:
        assert self.reference is not None
        with torch.no_grad(), self.reference() as frozen:
            reference = self.likelihood.score(frozen, [entry.row for entry in batch])
        return scores.kl(reference, self.options.kl.estimator)

    def _parity_metric(self, minibatches: Sequence[Sequence[Group]], fresh: bool) -> float | None:
        """Only where the training forward itself does not measure it."""
        if self.exact_replay is None or self.likelihood.exact or not fresh:
            return None
        return self.parity(minibatches[0]).gap

    def _metrics(
        self, statistics: Statistics, gradient_norm: float, gap: float | None, update: int, fresh: bool
    ) -> dict[str, float]:
        count = max(statistics.sums["decisions"], 1.0)
        metrics = {
            "learner/loss": statistics.sums["loss"],
            "learner/gradient_norm": gradient_norm,
            "learner/learning_rate": self._learning_rate(update),
            "learner/decisions": statistics.sums["decisions"],
            "learner/optimizer_updates": float(self.engine.updates),
            "ratio/mean": statistics.sums["ratio"] / count,
            "ratio/clip_fraction": statistics.sums["clipped"] / count,
            "ratio/max_error": statistics.maxima["ratio_error"],
        }
        if self.reference is not None:
            metrics["kl/reference"] = statistics.sums["kl"] / count
        if fresh and self.likelihood.exact:
            metrics["logp/max_error"] = statistics.maxima["logprob_gap"]
        elif gap is not None:
            metrics["logp/max_error"] = gap
        return metrics

    def _learning_rate(self, update: int) -> float:
        """A pure function of the update, so that a resume needs no scheduler state."""
        options = self.options.optimizer
        warmup = min(1.0, (update + 1) / (options.warmup_updates + 1))
        progress = update / max(self.total_updates, 1)
        if options.schedule is Schedule.linear:
            return options.learning_rate * warmup * (1 - progress)
        if options.schedule is Schedule.cosine:
            return options.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * progress))
        return options.learning_rate * warmup

    def _in_step(self, batches: list[list[Item]], idle: Callable[[Item], Item]) -> list[list[Item]]:
        """As many batches on every rank, whose collectives must pair up; `idle` makes the repeats count nothing."""
        wanted = int(self._maximum(float(len(batches))))
        return batches + [[idle(batches[-1][-1])] for _ in range(wanted - len(batches))]

    def _flat(self, arrays: list[np.ndarray]) -> Tensor:
        """In the arrays' own precision: log-densities of large latents are kept in fp64."""
        return torch.from_numpy(np.concatenate(arrays)).to(self.device)

    def _sum(self, value: float) -> float:
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.item()

    def _maximum(self, value: float) -> float:
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor.item()


def _few_samples(groups: Sequence[Group]) -> Trajectory:
    trajectory = groups[0].trajectory
    return trajectory.take(list(range(min(PARITY_SAMPLES, trajectory.group_size))))


def _weightless(entry: Entry) -> Entry:
    return Entry(entry.row, np.zeros_like(entry.weight), 0.0, entry.recorded)
