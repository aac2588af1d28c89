"""What an evaluation found on held-out problems: rewards, their terms and, where something defines it, solve rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.objects import fetched
from rewards.conversation import text_of
from rewards.options import RewardOptions
from rewards.scoring.scores import Failure, Logged
from rl.data.prompts import PromptSource
from rl.data.tickets import TicketKind
from rl.drawing.tensorboard import SAMPLES, shortened
from rl.modality.protocol import Modality
from rl.run.failures import failed_counts, malformed_counts
from rl.run.scored import Scored, logged_metrics
from rl.run.statistics import Estimate, mean_if_any, paired_difference, solve_rate
from rollout.worker import Completions

KINDS = ("greedy", "sampled")
TEXTS = "texts/"
"""Columns of evaluations.jsonl with the first completions of a kind, for people to read."""


@dataclass(frozen=True)
class Evaluation:
    update: int
    """Updates done."""
    rewards: dict[str, np.ndarray]
    """(problems, samples) for `greedy` and `sampled`, NaN where unscored."""
    terms: dict[str, dict[str, np.ndarray]]
    """The same for each reward term, unweighted: the parts of the reward, and measures that are not rewarded."""
    solved: dict[str, np.ndarray]
    """The same of 0 and 1; empty where nothing defines what is solved (`reward.solved_at=null`)."""
    logged: dict[str, dict[str, Logged]]
    """What the reward functions reported beside their scores, by kind."""
    rollout: dict[str, dict[str, float]]
    """What the samples were like, by kind; names depend on the modality."""
    failures: list[Failure]
    """Why samples could not be scored."""
    first: dict[str, Scored]
    """First ticket of each kind, whose completions can be looked at."""
    prompts: dict[str, list[str]]
    """Prompts of the first ticket's completions."""

    @staticmethod
    def of(
        update: int,
        tickets: list[Scored],
        reward_options: RewardOptions,
        modality: Modality,
        sources: Mapping[TicketKind, PromptSource],
    ) -> Evaluation:
        failures = [failure for ticket in tickets for failure in ticket.failures]
        found = Evaluation(update, {}, {}, {}, {}, {}, failures, {}, {})
        for kind in dict.fromkeys(ticket.ticket.kind for ticket in tickets):
            mine, name = [ticket for ticket in tickets if ticket.ticket.kind is kind], kind.value
            found.rewards[name] = np.concatenate([ticket.rewards for ticket in mine])
            found.terms[name] = {
                term: np.concatenate([ticket.terms[term] for ticket in mine]) for term in mine[0].terms
            }
            solved = [each for ticket in mine if (each := ticket.solved(reward_options)) is not None]
            if solved:
                found.solved[name] = np.concatenate(solved)
            found.logged[name] = Logged.joined(ticket.logged for ticket in mine)
            sums = {each: sum(ticket.statistics[each] for ticket in mine) for each in mine[0].statistics}
            found.rollout[name] = modality.rollout_metrics(sums, found.rewards[name].size)
            found.first[name] = mine[0]
            ticket = mine[0].ticket
            shown, _ = sources[kind].columns(ticket.problem_indices, ticket.samples)
            found.prompts[name] = [text_of(prompt) for prompt in shown]
        return found

    @property
    def unscored(self) -> int:
        """Samples without a reward, or without what decides whether they are solved."""
        return sum(int(np.isnan(self.solved.get(kind, values)).sum()) for kind, values in self.rewards.items())

    @property
    def samples(self) -> int:
        return sum(values.size for values in self.rewards.values())

    def estimates(self, kind: str) -> dict[str, Estimate]:
        """`solve_rate` where it is defined, `reward` and each `term/TERM`, of those that have any score."""
        rates = {"solve_rate": solve_rate(self.solved[kind])} if kind in self.solved else {}
        means = {"reward": mean_if_any(self.rewards[kind])}
        means |= {f"term/{term}": mean_if_any(values) for term, values in self.terms[kind].items()}
        return rates | {name: estimate for name, estimate in means.items() if estimate is not None}

    def metrics(self) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for kind in self.rewards:
            for name, estimate in self.estimates(kind).items():
                metrics |= estimate.metrics(f"evaluation/{kind}/{name}")
            metrics |= {f"evaluation/{kind}/{name}": value for name, value in self.rollout[kind].items()}
            metrics |= logged_metrics(f"evaluation/{kind}/metric", self.logged[kind])
        metrics |= {f"evaluation/{name}": count for name, count in malformed_counts(self.failures).items()}
        return metrics | {f"evaluation/{name}": count for name, count in failed_counts(self.failures).items()}

    def row(self) -> dict[str, Any]:
        """What is kept of it, with the outcome of every problem and sample in `solved/KIND`, `rewards/KIND` and
        `terms/KIND/TERM`."""
        outcomes = {f"solved/{kind}": values.tolist() for kind, values in self.solved.items()}
        for kind, values in self.rewards.items():
            outcomes[f"rewards/{kind}"] = values.tolist()
            outcomes |= {f"terms/{kind}/{term}": each.tolist() for term, each in self.terms[kind].items()}
        return {"update": self.update, **self.metrics(), **outcomes}

    def first_samples(self) -> Iterator[tuple[str, list[str], Completions, np.ndarray]]:
        """Kind, prompts, completions and rewards of the first sample of each problem of the first ticket."""
        for kind, first in self.first.items():
            each = slice(None, None, first.ticket.samples)
            yield (
                kind,
                self.prompts[kind][each],
                Completions(fetched(first.completions).outputs[each]),
                first.rewards[:, 0],
            )

    def texts(self) -> dict[str, list[dict[str, Any]]]:
        """A few of them, shortened; none of images."""
        return {
            f"{TEXTS}{kind}": [
                {
                    "prompt": shortened(prompt),
                    "completion": shortened(output),
                    "reward": None if np.isnan(reward) else float(reward),
                }
                for prompt, output, reward in zip(prompts, completions.outputs, rewards, strict=True)
            ][:SAMPLES]
            for kind, prompts, completions, rewards in self.first_samples()
            if isinstance(completions.outputs[0], str)
        }

    def line(self) -> str:
        """Of each kind what is solved, the reward, and its terms where there are several."""
        return "; ".join(f"{kind} {self._said(kind)}" for kind in self.rewards)

    def _said(self, kind: str) -> str:
        found = self.estimates(kind)
        solved = f"{told(found['solve_rate'])} solved, " if "solve_rate" in found else ""
        reward = f"reward {told(found['reward'])}" if "reward" in found else "nothing scored"
        terms = [f"{name[5:]} {each.value:.3f}" for name, each in found.items() if name.startswith("term/")]
        return f"{solved}{reward}" + (f" ({', '.join(terms)})" if len(terms) > 1 else "")


def told(estimate: Estimate) -> str:
    """`0.230 [0.201, 0.259]`, or the value alone."""
    return with_interval(estimate.value, estimate.interval)


def with_interval(value: float, interval: Sequence[float] | None) -> str:
    return f"{value:.3f}" if interval is None else f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def gains(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """How held-out problems changed between two rows of evaluations.jsonl.

    Returns:
        [kind][name], with the names of `Evaluation.estimates`: `before`, `after` and `gain`, paired over the problems
        that were scored both times; and their intervals, `ci95`. None is what a row does not know.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for kind in KINDS:
        columns = {f"solved/{kind}": "solve_rate", f"rewards/{kind}": "reward"}
        terms = f"terms/{kind}/"
        columns |= {name: f"term/{name.removeprefix(terms)}" for name in (*before, *after) if name.startswith(terms)}
        for column, name in columns.items():
            if column in before or column in after:
                found.setdefault(kind, {})[name] = _change(before, after, column, f"evaluation/{kind}/{name}")
    return found


def _change(before: Mapping[str, Any], after: Mapping[str, Any], column: str, metric: str) -> dict[str, Any]:
    gain = None
    if column in before and column in after:
        gain = paired_difference(np.array(before[column], float), np.array(after[column], float))
    ends = {"before": before, "after": after}
    intervals = {
        end: [row[f"{metric}_low"], row[f"{metric}_high"]] if f"{metric}_low" in row else None
        for end, row in ends.items()
    }
    return {
        **{end: row.get(metric) for end, row in ends.items()},
        "gain": gain and gain.value,
        "ci95": {**intervals, "gain": gain and gain.interval},
    }


def summary_of(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`held_out`, the gains between the first and the last evaluation; and its solve rates once more under names of
    their own."""
    if len(evaluations) < 2:
        return {}
    held_out = gains(evaluations[0], evaluations[-1])
    summary: dict[str, Any] = {"held_out": held_out}
    for kind, found in held_out.items():
        if (rate := found.get("solve_rate")) is not None:
            prefix = "" if kind == "greedy" else f"{kind}_"
            summary |= {f"{prefix}eval_{end}": rate[end] for end in ("before", "after")}
            summary[f"{prefix}ci95"] = rate["ci95"]
    return summary
