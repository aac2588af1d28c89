"""One learner rank: score, loss, backward, update. It knows no modality; likelihoods do.

The weights of a minibatch's decisions are divided by a divisor that is reduced over all ranks before the first forward.
Its loss is therefore the same whatever the number of ranks, the micro-batches or the order of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from configs.algorithm_options import AlgorithmOptions, KlTarget, ObjectiveKind
from rl.algorithm.decisions import NOBODY, Decisions, Entry
from rl.algorithm.denominators import divisor, row_weights, sample_weights
from rl.algorithm.objectives import Loss, WholeSum, clipped_ratios, kl_loss, policy_loss
from rl.algorithm.requirements import is_coupled, kl_is_joint, needs_old, needs_reference
from rl.algorithm.scored_rows import ScoredRow
from rl.algorithm.scores import Scores
from rl.learner.collectives import in_step, sum_over_ranks, total
from rl.learner.engine import Engine
from rl.learner.old_policy import OldPolicy
from rl.learner.optimizer_step import NOT_FINITE, LearnerError, anchor_weight, learning_rate, optimizer_step
from rl.learner.parity import ParityCheck, Reference
from rl.learner.value_model import ValueModel
from rl.likelihood.protocol import Likelihood, micro_batches
from rollout.trajectory import Trajectory


@dataclass(frozen=True)
class Group:
    """A trajectory and what its samples are worth."""

    trajectory: Trajectory
    advantage: np.ndarray
    """(G,) fp32 of each sample, or (G, T) of each of its denoising steps"""
    valid: np.ndarray
    """The same shape, bool: what is trained. A group with nothing keeps ranks in step and weighs nothing."""
    imitated: np.ndarray | None = None
    """(G,) bool: the samples that the anchor is taken of; None: decisions with a positive advantage"""

    def trained(self) -> Group | None:
        """The samples that have something to train, those decisions alone in their mask, with (g, D) advantages of
        their decisions. None if there are none."""
        valid = self._of_decisions(self.valid) & self.trajectory.mask
        kept = valid.any(-1).nonzero()[0]
        if len(kept) == 0:
            return None
        trajectory, advantage, imitated = self.trajectory, self._of_decisions(self.advantage), self.imitated
        if len(kept) < trajectory.group_size:
            trajectory, valid, advantage = trajectory.take(kept), valid[kept], advantage[kept]
            imitated = None if imitated is None else imitated[kept]
        if not (valid == trajectory.mask).all():
            trajectory = replace(trajectory, mask=valid)
        return Group(trajectory, advantage, valid, imitated)

    def weightless(self) -> Group:
        """One of its samples, to keep ranks in step."""
        one = self.trajectory.take([0])
        return Group(one, np.zeros(one.mask.shape, np.float32), np.zeros(one.mask.shape, bool))

    def _of_decisions(self, values: np.ndarray) -> np.ndarray:
        """(G, D) of values (G,) or (G, T)."""
        if values.ndim == 1:
            return np.broadcast_to(values[:, None], self.trajectory.mask.shape)
        step = self.trajectory.decision_step
        last = int(step[self.trajectory.mask].max(initial=-1))
        if last >= values.shape[1]:
            raise ValueError(f"{values.shape[1]} steps have an advantage, but step {last} was trained")
        return np.take_along_axis(values, step.clip(0, values.shape[1] - 1), axis=1)


@dataclass
class Statistics:
    """Sums and maxima over the units of an update, reduced over ranks at its end."""

    sums: dict[str, float] = field(default_factory=dict)
    """The same names on every rank: they follow from the configuration."""
    counts: dict[str, float] = field(default_factory=dict)
    """Of what each sum has a term of."""
    maxima: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("ratio_error", "logprob_gap"), 0.0))

    def add(self, loss: Loss) -> None:
        used = loss.weight > 0
        for name, values in loss.measures.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(values[used].sum())
            self.counts[name] = self.counts.get(name, 0.0) + float(used.sum())

    def total(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.counts[name] = 1.0

    def raise_to(self, name: str, value: float) -> None:
        self.maxima[name] = max(self.maxima[name], value)

    def reduced(self, device: torch.device) -> Statistics:
        def over_ranks(values: dict[str, float], operation: dist.ReduceOp.RedOpType) -> dict[str, float]:
            tensor = torch.tensor([values[name] for name in sorted(values)], dtype=torch.float64, device=device)
            dist.all_reduce(tensor, operation)
            return dict(zip(sorted(values), tensor.tolist(), strict=True))

        return Statistics(
            over_ranks(self.sums, dist.ReduceOp.SUM),
            over_ranks(self.counts, dist.ReduceOp.SUM),
            over_ranks(self.maxima, dist.ReduceOp.MAX),
        )


class Learner:
    """Owns the update of one rank; every method is collective."""

    def __init__(
        self,
        engine: Engine,
        likelihood: Likelihood,
        parity: ParityCheck | None,
        reference: Reference | None,
        options: AlgorithmOptions,
        total_updates: int,
        device: torch.device,
        old_policy: OldPolicy | None = None,
        value: ValueModel | None = None,
    ) -> None:
        """
        Args:
            old_policy: for `nft`.
            value: where the options have one.
            parity: None without rollouts whose log-probabilities could be replayed.
            reference: the frozen model; None where `rl.algorithm.objectives.needs_reference` says so.
        """
        if needs_reference(options) and reference is None:
            raise ValueError("these options compare the policy with a reference, and there is none")
        self.engine = engine
        self.likelihood = likelihood
        self.parity = parity
        self.reference = reference
        self.old_policy = old_policy
        self.value = value
        self.options = options
        self.loss_options = options
        """With the weight that the anchor has in the present update."""
        self.total_updates = total_updates
        self.device = device
        self.rows_scored = 0
        """Rows that any model has scored in this update: the forwards that learning took."""
        self.coupled = is_coupled(options, likelihood.overlapping)
        self.joint_kl = options.kl.coefficient > 0 and kl_is_joint(options, likelihood.overlapping)

    def step(self, update: int, minibatches: Sequence[Sequence[Group]], fresh: bool) -> dict[str, float]:
        """All optimizer updates of one rollout.

        Args:
            minibatches: this rank's groups of each; at least one group in each, possibly one that weighs nothing.
            fresh: the trajectories were generated by the present weights, so the exact replay must reproduce them.

        Returns:
            Metrics, equal on every rank.
        """
        self.engine.module.train()
        self.rows_scored = 0
        self.loss_options = replace(self.options, anchor=anchor_weight(self.options, update, self.total_updates))
        statistics = Statistics()
        passes = self._passes(minibatches, update)
        gap = self._parity_metric(minibatches, fresh)
        gradient_norm = 0.0
        first = True
        rate = learning_rate(self.options.optimizer, update, self.total_updates)
        for minibatch in (minibatch for one_pass in passes for minibatch in one_pass):
            self._backward(minibatch, statistics, first)
            gradient_norm = max(gradient_norm, optimizer_step(self.engine, rate, update))
            first = False
        if self.old_policy is not None:
            self.old_policy.follow(update)
        value_metrics = self._train_value(passes[0], update)
        statistics.total("learner/rows", float(self.rows_scored))
        metrics = self._metrics(statistics.reduced(self.device), gradient_norm, gap, update, fresh)
        return {**metrics, **value_metrics}

    def _train_value(self, minibatches: list[list[list[Entry]]], update: int) -> dict[str, float]:
        if self.value is None:
            return {}
        metrics = self.value.learn(minibatches, update)
        self.rows_scored += self.value.rows_scored
        self.value.rows_scored = 0
        return metrics

    def _passes(self, minibatches: Sequence[Sequence[Group]], update: int) -> list[list[list[list[Entry]]]]:
        """[epoch][minibatch][micro-batch] of entries, with all that must be scored before the weights change."""
        epochs = self.options.epochs
        keys = range(epochs) if self.likelihood.fresh_noise else [0] * epochs
        prepared = {
            epoch: [
                batches for groups in minibatches if (batches := self._prepare(groups, update, update * epochs + epoch))
            ]
            for epoch in dict.fromkeys(keys)
        }
        several = epochs * len(minibatches) > 1 and needs_old(self.options)
        for batches in (batches for one_pass in prepared.values() for batches in one_pass):
            self._set_old(batches, several)
            self._set_reference(batches)
        return [prepared[epoch] for epoch in keys]

    def _prepare(self, groups: Sequence[Group], update: int, draw: int) -> list[list[Entry]]:
        """Micro-batches of a minibatch, as many on every rank, weighted by the global divisor. None at all if
        no rank has anything to train."""
        prepared_groups, scale = [], []
        local = 0.0
        for group in groups:
            group = replace(group, trajectory=self.likelihood.decisions_of(group.trajectory))
            trained = group.trained()
            prepared_groups.append(trained or group.weightless())
            scale.append(float(trained is not None))
            local += divisor(trained.trajectory, self.options.denominator) if trained else 0.0
        trajectories = [group.trajectory for group in prepared_groups]
        everywhere = sum_over_ranks(local, self.device)
        if everywhere == 0:  # such as trees whose samples all ended before they parted
            return []
        rows = self.likelihood.rows(trajectories, draw)
        if not rows:  # a draw of masks may hide nothing; any other one keeps this rank in step
            scale = [0.0] * len(scale)
            rows = next(found for other in count(draw + 1) if (found := self.likelihood.rows(trajectories, other)))
        entries = self._entries(rows, prepared_groups, [one / everywhere for one in scale])
        batches = micro_batches(rows, self.options.micro_batch_tokens)
        prepared = in_step([[entries[id(row)] for row in batch] for batch in batches], Entry.weightless, self.device)
        for batch in prepared:
            self.likelihood.prepare(self.engine, [entry.row for entry in batch])
        if self.value is not None:
            self.value.judge(prepared)
        return prepared

    def _entries(self, rows: list[ScoredRow], groups: list[Group], scale: list[float]) -> dict[int, Entry]:
        """By the identity of their rows."""
        trajectories = [group.trajectory for group in groups]
        first = np.cumsum([0] + [trajectory.group_size for trajectory in trajectories])
        weights = row_weights(trajectories, rows, self.options.denominator, self.likelihood.draws)
        of_samples = [sample_weights(trajectory, self.options.denominator) for trajectory in trajectories]
        lengths = [trajectory.mask.sum(-1) for trajectory in trajectories]
        entries = {}
        for row, weight in zip(rows, weights, strict=True):
            group, sample = row.trajectory, row.sample
            advantage = groups[group].advantage[sample, row.decision].astype(np.float32)
            imitated = groups[group].imitated
            entries[id(row)] = Entry(
                row=row,
                sample=int(first[group]) + sample,
                group=group,
                length=int(lengths[group][sample]),
                weight=(weight * scale[group]).astype(np.float32),
                sample_weight=float(of_samples[group][sample]) * scale[group],
                advantage=advantage,
                imitated=advantage > 0 if imitated is None else np.full(len(advantage), imitated[sample]),
                recorded=trajectories[group].logp[sample, row.decision],
            )
        return entries

    def _set_old(self, batches: list[list[Entry]], several: bool) -> None:
        """What ratios compare with: the recorded log-probability where the likelihood reproduces it; else it is scored
        now, before the weights change, so that ratios know nothing of updates since a stale sample was drawn. With a
        single update it is the present value, and the ratio is 1."""
        if self.likelihood.exact:
            for entry in (entry for batch in batches for entry in batch):
                entry.old = entry.recorded
        elif several:
            for batch in batches:
                for entry, old in zip(batch, self._scored(self.engine, batch), strict=True):
                    entry.old = old

    def _set_reference(self, batches: list[list[Entry]]) -> None:
        """Only where the loss needs it of several rows at a time; else it is scored beside the policy."""
        if self.reference is None or not (self.joint_kl or self.options.objective is ObjectiveKind.group_dpo):
            return
        with self.reference() as frozen:
            for batch in batches:
                for entry, reference in zip(batch, self._scored(frozen, batch), strict=True):
                    entry.reference = reference

    def _scored(self, model: Callable[..., Tensor], batch: list[Entry]) -> list[np.ndarray]:
        """(m,) log-probabilities of each entry, without a gradient."""
        with torch.no_grad():
            scored = self._score(model, batch).log_prob.cpu().numpy()
        return np.split(scored, np.cumsum([len(entry.recorded) for entry in batch])[:-1])

    def _score(self, model: Callable[..., Tensor], batch: list[Entry]) -> Scores:
        self.rows_scored += sum(entry.sample != NOBODY for entry in batch)
        return self.likelihood.score(model, [entry.row for entry in batch])

    def _backward(self, minibatch: list[list[Entry]], statistics: Statistics, first: bool) -> None:
        """Forward and backward of one minibatch."""
        if not self.coupled or len(minibatch) == 1:
            whole_sum = self._whole_sum(minibatch)
            for batch in minibatch:
                scores = self._score(self.engine, batch)
                loss = self._loss(scores, batch, statistics, first, whole_sum)
                self.engine.backward(loss + self._kl(scores, batch, statistics))
            return
        for batch, slope in zip(minibatch, self._slopes(minibatch, statistics, first), strict=True):
            scores = self._score(self.engine, batch)
            self.engine.backward((slope * scores.log_prob).sum() + self._kl(scores, batch, statistics))

    def _whole_sum(self, minibatch: list[list[Entry]]) -> WholeSum:
        """For `self_normalise`, whose divisor joins all rows: a constant, so forwards without graphs can find it first
        and the loss goes micro-batch by micro-batch."""
        if not self.options.self_normalise or len(minibatch) == 1:
            return total
        part = torch.zeros((), device=self.device)
        with torch.no_grad():
            for batch in minibatch:
                scores = self._score(self.engine, batch)
                decisions = Decisions.of(batch, self.device)
                part = part + clipped_ratios(scores, decisions, self.options, self.likelihood.draws)
        whole = total(part)
        return lambda _: whole

    def _slopes(self, minibatch: list[list[Entry]], statistics: Statistics, first: bool) -> Sequence[Tensor]:
        """Derivative of the minibatch's loss by each log-probability of its micro-batches.

        A loss that joins rows of different micro-batches is differentiated in two passes, so that memory does not grow
        with the minibatch: forwards without graphs give the log-probabilities, the loss their slopes, and a second
        forward each the gradient of slope x log-probability, which is exact (GradCache, arXiv 2101.06983).
        """
        scored = [np.concatenate(self._scored(self.engine, batch)) for batch in minibatch]
        log_prob = torch.from_numpy(np.concatenate(scored)).to(self.device).requires_grad_()
        entries = [entry for batch in minibatch for entry in batch]
        loss = self._loss(Scores(log_prob), entries, statistics, first, total)
        (slope,) = torch.autograd.grad(loss, log_prob)
        return slope.split([len(values) for values in scored])

    def _loss(
        self, scores: Scores, entries: list[Entry], statistics: Statistics, first: bool, whole_sum: WholeSum
    ) -> Tensor:
        """Scalar loss of scored entries, with the KL if that joins rows as well."""
        decisions = Decisions.of(entries, self.device)
        old = self._by_old_policy(entries)
        objective = policy_loss(scores, decisions, self.loss_options, self.likelihood.draws, whole_sum, old)
        loss = objective.value
        statistics.add(objective)
        if self.joint_kl:
            reference = None if decisions.reference is None else Scores(decisions.reference)
            loss = loss + self._counted_kl(scores, reference, decisions, statistics)
        self._check_finite(loss, scores)
        statistics.total("learner/loss", float(loss.detach()))
        statistics.total("learner/decisions", float((decisions.weight > 0).sum()))
        if first:
            self._check_first(scores, decisions, objective, statistics)
        return loss

    def _by_old_policy(self, entries: list[Entry]) -> Scores | None:
        if self.old_policy is None:
            return None
        with torch.no_grad(), self.old_policy.in_place():
            return self._score(self.engine, entries)

    def _kl(self, scores: Scores, batch: list[Entry], statistics: Statistics) -> Tensor:
        """Scalar: the KL of a micro-batch's decisions, 0 if there is none or `_loss` has it."""
        if self.options.kl.coefficient == 0 or self.joint_kl:
            return torch.zeros((), device=self.device)
        reference = None
        if self.options.kl.to is KlTarget.reference:
            assert self.reference is not None
            with torch.no_grad(), self.reference() as frozen:
                reference = self._score(frozen, batch)
        loss = self._counted_kl(scores, reference, Decisions.of(batch, self.device), statistics)
        self._check_finite(loss, scores)
        statistics.total("learner/loss", float(loss.detach()))
        return loss

    def _counted_kl(
        self, scores: Scores, reference: Scores | None, decisions: Decisions, statistics: Statistics
    ) -> Tensor:
        kl = kl_loss(scores, reference, decisions, self.options, self.likelihood)
        statistics.add(kl)
        return self.options.kl.coefficient * kl.value

    def _check_finite(self, loss: Tensor, scores: Scores) -> None:
        if not torch.isfinite(loss):
            low, high = (float(value) for value in scores.log_prob.detach().aminmax())
            raise LearnerError(
                f"the loss is {float(loss.detach())}: log-probabilities between {low:.3g} and {high:.3g}. {NOT_FINITE}"
            )

    def _check_first(self, scores: Scores, decisions: Decisions, loss: Loss, statistics: Statistics) -> None:
        """Before the weights move, ratios are 1 and log-probabilities the recorded ones."""
        used = loss.weight > 0
        if "ratio/mean" in loss.measures and used.any():
            statistics.raise_to("ratio_error", float((loss.measures["ratio/mean"][used] - 1).abs().max()))
        if self.likelihood.exact:  # the old log-probabilities are the recorded ones
            assert decisions.old is not None
            counts = decisions.weight > 0
            if counts.any():
                gap = float((scores.log_prob.detach() - decisions.old)[counts].abs().max())
                statistics.raise_to("logprob_gap", gap * self.likelihood.gap_scale)

    def _parity_metric(self, minibatches: Sequence[Sequence[Group]], fresh: bool) -> float | None:
        """Only where the training forward itself does not measure it."""
        if self.parity is None or self.likelihood.exact or not fresh:
            return None
        return self.parity.measure([group.trajectory for group in minibatches[0]]).gap

    def _metrics(
        self, statistics: Statistics, gradient_norm: float, gap: float | None, update: int, fresh: bool
    ) -> dict[str, float]:
        means = {
            name: value if name.startswith("learner/") else value / max(statistics.counts[name], 1.0)
            for name, value in statistics.sums.items()
        }
        metrics = {
            **means,
            "learner/gradient_norm": gradient_norm,
            "learner/learning_rate": learning_rate(self.options.optimizer, update, self.total_updates),
            "learner/optimizer_updates": float(self.engine.updates),
        }
        if "ratio/mean" in means:
            metrics["ratio/max_error"] = statistics.maxima["ratio_error"]
        if fresh and self.likelihood.exact:
            metrics["logp/max_error"] = statistics.maxima["logprob_gap"]
        elif gap is not None:
            metrics["logp/max_error"] = gap
        return metrics
