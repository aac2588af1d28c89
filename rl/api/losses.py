"""The loss of log-probabilities: the learner's own formulas on one machine, without an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from configs.algorithm_options import AlgorithmOptions, AnchorOn, Denominator, KlEstimator, KlTarget, ObjectiveKind
from configs.errors import UserError
from rl.api.configuration import AnyConfig, algorithm_options

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from rl.algorithm.decisions import Entry
    from rl.algorithm.objectives import Loss as Part
    from rl.algorithm.objectives import WholeSum
    from rl.algorithm.scores import Scores
    from rl.api.scored import Array, LogProbs


@dataclass(frozen=True, eq=False)
class Loss:
    value: Tensor
    """Scalar, differentiable."""
    metrics: dict[str, float]
    """Means over what counts, such as `ratio/mean`, `ratio/clip_fraction` and `kl/reference`, by a run's names."""

    def backward(self) -> None:
        self.value.backward()

    def __float__(self) -> float:
        return float(self.value.detach())


def loss(
    log_probs: LogProbs | Array,
    old: LogProbs | Array | None = None,
    reference: LogProbs | Array | None = None,
    advantages: Array | None = None,
    mask: Array | None = None,
    options: AnyConfig | AlgorithmOptions | Mapping[str, Any] | str | None = None,
    *,
    solved: Array | None = None,
    steps: Array | None = None,
) -> Loss:
    """The loss that a learner would minimise for these groups: objective, anchor and KL, as one mean over all of them.

    Args:
        log_probs: what `log_probs` returns; or an array of log-probabilities, (G, D) of one group, (groups, G, D), or a
            list of (G, D), of decisions that each were scored once.
        old: the same under the policy that ratios compare with. None: what the trajectories recorded, where the
            likelihood reproduces it; else the present values, and every ratio is 1.
        reference: the same under the frozen model, where the options have a KL to it or `objective=group_dpo`.
        advantages: (groups, G) as `advantages` returns them, or (G,) of a single group, or (groups, G, T) of denoising
            steps; NaN is left out.
        mask: of arrays, the same shapes, bool: the decisions that count; None is all. Trajectories have their own.
        options: of the algorithm: a configuration, the name of an algorithm file, options to change, or None, which is
            PPO's clipped ratio of each decision.
        solved: (groups, G) of 1 and 0, for `anchor_on=solved`.
        steps: of arrays, the same shapes, int: which decisions were made together; None is one after the other.

    Raises:
        UserError: something that the options need is missing, or the parts are not of the same decisions.
    """
    from rl.api.scored import LogProbs, given

    chosen = algorithm_options(options)
    if isinstance(log_probs, LogProbs):
        if mask is not None or steps is not None:
            raise UserError("mask and steps are for plain arrays; trajectories have their own")
        scored = log_probs
    else:
        scored = given(log_probs, mask, steps)
    if advantages is None:
        raise UserError("advantages are missing: rl.advantages makes them of rewards")
    _check(chosen, scored, old, reference, solved)
    return _Minibatch(scored, old, reference, advantages, solved, chosen).loss()


def _check(options: AlgorithmOptions, scored: LogProbs, old: Any, reference: Any, solved: Any) -> None:
    from rl.algorithm.requirements import needs_reference
    from rl.api.scored import LogProbs

    if needs_reference(options) and reference is None:
        raise UserError("these options compare the policy with a reference: give reference=")
    if options.objective is ObjectiveKind.nft and not isinstance(old, LogProbs):
        raise UserError("objective=nft compares outputs of networks: give old= as rl.log_probs of the old policy")
    closed_form = (KlEstimator.exact, KlEstimator.flow_grpo, KlEstimator.output)
    to_reference = options.kl.coefficient > 0 and options.kl.to is KlTarget.reference
    if to_reference and options.kl.estimator in closed_form and not isinstance(reference, LogProbs):
        raise UserError(
            f"kl.estimator={options.kl.estimator.name} compares more than log-probabilities: give reference= as "
            f"rl.log_probs of the reference, or use k1, k2 or k3"
        )
    if options.anchor != 0 and options.anchor_on is AnchorOn.solved and solved is None:
        raise UserError("anchor_on=solved imitates solved samples: give solved=, which rl.score finds")
    if options.anchor_growth is not None:
        raise UserError(
            "anchor_growth grows over a run, and a loss has none: set anchor_growth=None and anchor as it is"
        )


class _Minibatch:
    """All the groups as one minibatch of a learner with one rank."""

    def __init__(
        self,
        scored: LogProbs,
        old: LogProbs | Array | None,
        reference: LogProbs | Array | None,
        advantages: Array,
        solved: Array | None,
        options: AlgorithmOptions,
    ) -> None:
        from rl.algorithm.requirements import is_coupled, kl_is_joint

        self.scored, self.old, self.reference, self.options = scored, old, reference, options
        self.estimator = scored.estimator
        self.draws = self.estimator.draws
        self.coupled = is_coupled(options, self.estimator.overlapping) and len(scored.batches) > 1
        self.joint_kl = options.kl.coefficient > 0 and kl_is_joint(options, self.estimator.overlapping)
        self.batches = self._entries(advantages, solved)
        self._fill("old", old)
        self._fill("reference", reference)

    def loss(self) -> Loss:
        import torch

        from rl.algorithm.scores import Scores
        from rl.learner.statistics import Statistics

        self.statistics = Statistics()
        scores = [each for _, each in self.scored.batches]
        if self.coupled:
            joint = Scores(torch.cat([each.log_prob for each in scores]))
            entries = [entry for batch in self.batches for entry in batch]
            value = self._objective(joint, entries, None, lambda part: part)
        else:
            whole = self._whole_sum(scores)
            olds = self._scores_of(self.old)
            parts = zip(scores, self.batches, olds, strict=True)
            value = torch.stack([self._objective(each, batch, before, whole) for each, batch, before in parts]).sum()
        if self.options.kl.coefficient > 0 and not self.joint_kl:
            references = self._scores_of(self.reference)
            for each, batch, reference in zip(scores, self.batches, references, strict=True):
                value = value + self._kl(each, batch, reference)
        sums, counts = self.statistics.sums, self.statistics.counts
        return Loss(value, {name: sums[name] / max(counts[name], 1.0) for name in sums})

    def _objective(
        self, scores: Scores, entries: list[Entry], old_policy: Scores | None, whole_sum: WholeSum
    ) -> Tensor:
        from rl.algorithm.decisions import Decisions
        from rl.algorithm.objectives import policy_loss
        from rl.algorithm.scores import Scores

        decisions = Decisions.of(entries, scores.log_prob.device)
        found = policy_loss(scores, decisions, self.options, self.draws, whole_sum, old_policy)
        value = self._counted(found, 1.0)
        if self.joint_kl:
            reference = None if decisions.reference is None else Scores(decisions.reference)
            value = value + self._kl(scores, entries, reference)
        return value

    def _kl(self, scores: Scores, entries: list[Entry], reference: Scores | None) -> Tensor:
        from rl.algorithm.decisions import Decisions
        from rl.algorithm.objectives import kl_loss

        decisions = Decisions.of(entries, scores.log_prob.device)
        if self.options.kl.to is KlTarget.old:
            reference = None
        found = kl_loss(scores, reference, decisions, self.options, self.estimator)
        return self._counted(found, self.options.kl.coefficient)

    def _counted(self, part: Part, factor: float) -> Tensor:
        self.statistics.add(part)
        return part.value if factor == 1.0 else factor * part.value

    def _whole_sum(self, scores: list[Scores]) -> WholeSum:
        """For `self_normalise`, whose divisor joins all batches: a constant."""
        import torch

        from rl.algorithm.decisions import Decisions
        from rl.algorithm.objectives import clipped_ratios

        if not self.options.self_normalise or len(scores) == 1:
            return lambda part: part
        with torch.no_grad():
            whole = torch.stack(
                [
                    clipped_ratios(each, Decisions.of(batch, each.log_prob.device), self.options, self.draws)
                    for each, batch in zip(scores, self.batches, strict=True)
                ]
            ).sum()
        return lambda _: whole

    def _scores_of(self, other: LogProbs | Array | None) -> list[Scores | None]:
        """Another policy's scores of each batch."""
        import torch

        from rl.algorithm.scores import Scores
        from rl.api.scored import LogProbs

        if isinstance(other, LogProbs):
            return [scores for _, scores in other.batches]
        if other is None:
            return [None] * len(self.batches)
        name = "reference" if other is self.reference else "old"
        device = self.scored.values.device
        found: list[Scores | None] = []
        for batch in self.batches:
            flat = [torch.from_numpy(getattr(entry, name)) for entry in batch]
            found.append(Scores(torch.cat(flat).to(device)))
        return found

    def _fill(self, name: str, other: LogProbs | Array | None) -> None:
        """Another policy's log-probabilities into the entries."""
        import numpy as np

        from rl.api.scored import LogProbs, groups_of, to_numpy

        entries = [entry for batch in self.batches for entry in batch]
        if other is None:
            if name == "old" and self.scored.exact:
                for entry in entries:
                    entry.old = entry.recorded
            return
        if isinstance(other, LogProbs):
            if not self.scored.like(other):
                raise UserError(
                    f"{name} is not of the same decisions as log_probs: score the same samples with the same "
                    f"likelihood, draw and micro_batch_tokens"
                )
            flat = to_numpy(other.values)
            parts = np.split(flat, np.cumsum([len(entry.recorded) for entry in entries])[:-1])
            for entry, part in zip(entries, parts, strict=True):
                setattr(entry, name, part)
            return
        grids = [to_numpy(grid) for grid in groups_of(other, name)]
        shapes = [trajectory.mask.shape for trajectory in self.scored.trajectories]
        if [grid.shape for grid in grids] != shapes:
            raise UserError(f"{name} has shapes {[grid.shape for grid in grids]}, the log-probabilities {shapes}")
        for row, entry in zip(self.scored.rows, entries, strict=True):
            setattr(entry, name, grids[row.trajectory][row.sample, row.decision])

    def _entries(self, advantages: Array, solved: Array | None) -> list[list[Entry]]:
        """Of each batch; rows of samples that are left out belong to nobody."""
        from rl.algorithm.custom import denominator_of
        from rl.algorithm.decisions import Entry
        from rl.algorithm.denominators import OF_ROWS, divisor, rows_divisor
        from rl.api.worth import worth
        from rl.learner.entries import entries_of

        groups, place = worth(self.scored.trajectories, advantages, solved)
        denominator = denominator_of(self.options)
        rows = self.scored.rows
        kept = [row for row in rows if (row.trajectory, row.sample) in place]
        named = []
        for row in kept:
            group, sample = place[row.trajectory, row.sample]
            named.append(replace(row, trajectory=group, sample=sample))
        trajectories = [group.trajectory for group in groups]
        if isinstance(denominator, Denominator) and denominator in OF_ROWS:
            whole = rows_divisor(trajectories, named, denominator, [True] * len(trajectories))
        else:
            whole = sum(divisor(trajectory, denominator) for trajectory in trajectories)
        made = entries_of(named, groups, [1.0 / whole] * len(groups), denominator, self.draws)
        entries = iter(made)
        batches = []
        for batch, _ in self.scored.batches:
            batches.append(
                [
                    next(entries)
                    if (row.trajectory, row.sample) in place
                    else Entry.of_nobody(row, self._recorded(row))
                    for row in batch
                ]
            )
        return batches

    def _recorded(self, row: Any) -> np.ndarray:
        return self.scored.trajectories[row.trajectory].logp[row.sample, row.decision]
