"""A finished ticket: what was generated, and what it is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray

from rewards.options import Missing, RewardOptions
from rewards.scoring.scores import Calls, Logged, Scores
from rl.data.tickets import Ticket
from rl.run.solved import solved_of


@dataclass
class Scored:
    """A finished ticket. Trajectories and completions stay in the object store; only small things are here."""

    ticket: Ticket
    trajectories: list[ray.ObjectRef]
    """One a group; none where nothing is trained."""
    completions: ray.ObjectRef
    statistics: dict[str, float]
    rewards: np.ndarray
    """(groups, samples) float64, NaN where unscored; the groups of a problem side by side"""
    terms: dict[str, np.ndarray]
    """The same for each reward term, unweighted."""
    failures: list[Any]
    paid: dict[str, np.ndarray] = field(default_factory=dict)
    """(groups, samples) what the sum counts of each term that has a part in it, unweighted (`Scores.paid`)."""
    steps: np.ndarray | None = None
    """(groups, samples, T) float64 rewards of what each denoising step took the finished sample to be; NaN behind a
    sample's last step and where unscored. None where the algorithm asks for none."""
    calls: dict[str, Calls] = field(default_factory=dict)
    """How long the reward functions took."""
    logged: dict[str, Logged] = field(default_factory=dict)
    """What the reward functions reported beside their scores."""

    @staticmethod
    def of(
        ticket: Ticket,
        trajectories: list[Any],
        completions: Any,
        statistics: dict,
        scores: Scores,
        steps: np.ndarray | None = None,
    ) -> Scored:
        """
        Args:
            steps: (samples, T) rewards of all the ticket's steps.
        """
        shape = (len(scores.total) // ticket.samples, ticket.samples)
        return Scored(
            ticket=ticket,
            trajectories=trajectories,
            completions=completions,
            statistics=statistics,
            rewards=scores.total.reshape(shape),
            terms={name: values.reshape(shape) for name, values in scores.terms.items()},
            failures=scores.failures,
            paid={name: values.reshape(shape) for name, values in scores.paid.items()},
            steps=None if steps is None else steps.reshape(*shape, -1),
            calls=scores.calls,
            logged=scores.metrics,
        )

    def compared(self, values: np.ndarray, missing: Missing) -> np.ndarray:
        """(groups, ...) rewards, without those of groups that a sample without a score costs."""
        if missing is not Missing.drop_group:
            return values
        dropped = incomplete(self.rewards)
        return np.where(dropped.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values)

    def solved(self, reward: RewardOptions) -> np.ndarray | None:
        """(groups, samples) 1 solved, 0 not, NaN unscored; None where nothing defines it."""
        return solved_of(self.rewards, self.terms, reward)


def term_metrics(tickets: list[Scored], reward: RewardOptions, update: int) -> dict[str, float]:
    """`reward/TERM`, its mean where it has any score, with `paid_metrics` and `latency_metrics`."""
    values = {name: np.concatenate([ticket.terms[name] for ticket in tickets]) for name in tickets[0].terms}
    means = {f"reward/{name}": float(np.nanmean(each)) for name, each in values.items() if not np.isnan(each).all()}
    return means | paid_metrics(tickets, reward, update) | latency_metrics(tickets)


def paid_metrics(tickets: list[Scored], reward: RewardOptions, update: int) -> dict[str, float]:
    """`reward/paid/TERM`, the mean of what the sum counts of a term with a clip or gates, and `reward/weight/TERM`, the
    weight of one whose weight moves."""
    found: dict[str, float] = {}
    for reported, weight in reward.weights(update).items():
        term = reward.terms[reward.term_of(reported)]
        if term.start_weight is not None:
            found[f"reward/weight/{reported}"] = weight
        if (term.clip is not None or term.requires) and reported in tickets[0].paid:
            values = np.concatenate([ticket.paid[reported] for ticket in tickets])
            if not np.isnan(values).all():
                found[f"reward/paid/{reported}"] = float(np.nanmean(values))
    return found


def latency_metrics(tickets: list[Scored]) -> dict[str, float]:
    """`seconds/term/TERM/median`, `/p95` and `/max`: of a sample, which has its share of the call that scored it."""
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for ticket in tickets for name in ticket.calls):
        calls = [call for ticket in tickets for call in ticket.calls.get(name, ())]
        if not calls:
            continue
        seconds = np.repeat([took / count for took, count in calls], [count for _, count in calls])
        for label, quantile in (("median", 0.5), ("p95", 0.95), ("max", 1.0)):
            found[f"seconds/term/{name}/{label}"] = float(np.quantile(seconds, quantile))
    return found


def logged_metrics(prefix: str, logged: Mapping[str, Logged]) -> dict[str, float]:
    """`prefix/NAME`, the mean of each scalar that reward functions reported."""
    return {f"{prefix}/{name}": mean for name, each in logged.items() if (mean := each.mean) is not None}


def logged_notes(what: str, logged: Mapping[str, Logged]) -> Iterator[str]:
    """A line about each scalar of which some values are no number.

    Args:
        what: `update 3`, for instance.
    """
    for name, each in logged.items():
        if each.not_finite:
            yield f"{what}: {each.not_finite} values of log_metric({name!r}) are not finite, and not in its mean"


def incomplete(rewards: np.ndarray) -> np.ndarray:
    """(groups,) whether a sample of the group has no score, of (groups, samples) rewards."""
    return np.isnan(rewards).any(axis=1)


def unscored_estimates(steps: np.ndarray) -> int:
    """How many steps before a known one have no reward.

    Args:
        steps: (..., T), see `score_steps`.
    """
    known = ~np.isnan(steps)
    before_known = known[..., ::-1].cumsum(-1)[..., ::-1] > 0
    return int((~known & before_known).sum())
