"""What an evaluation found: solve rates, rewards and terms on held-out problems, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rewards.conversation import text_of
from rewards.options import RewardOptions
from rewards.scorer import Failure
from rl.data.prompts import PromptSource
from rl.data.tickets import TicketKind
from rl.modality.protocol import Modality
from rl.run.failures import malformed_counts
from rl.run.scored import Scored
from rl.run.statistics import Estimate, mean, solve_rate


@dataclass(frozen=True)
class Evaluation:
    update: int
    """Updates done."""
    solved: dict[str, np.ndarray]
    """(problems, samples) of 0 and 1 for `greedy` and `sampled`, NaN where unscored."""
    reward: dict[str, float]
    terms: dict[str, dict[str, Estimate]]
    """Mean of each reward term by kind: the parts of the reward, and measures that are not rewarded (weight 0)."""
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
        solved, reward, terms, rollout, first, prompts = {}, {}, {}, {}, {}, {}
        for kind in dict.fromkeys(ticket.ticket.kind for ticket in tickets):
            mine = [ticket for ticket in tickets if ticket.ticket.kind is kind]
            rewards = np.concatenate([ticket.rewards for ticket in mine])
            solved[kind.value] = np.concatenate([ticket.solved(reward_options) for ticket in mine])
            reward[kind.value] = float(np.nanmean(rewards)) if not np.isnan(rewards).all() else float("nan")
            terms[kind.value] = {
                name: estimate
                for name in mine[0].terms
                if (estimate := mean_if_any(np.concatenate([ticket.terms[name] for ticket in mine]))) is not None
            }
            sums = {name: sum(ticket.statistics[name] for ticket in mine) for name in mine[0].statistics}
            rollout[kind.value] = modality.rollout_metrics(sums, rewards.size)
            first[kind.value] = mine[0]
            ticket = mine[0].ticket
            shown, _ = sources[kind].columns(ticket.problem_indices, ticket.samples)
            prompts[kind.value] = [text_of(prompt) for prompt in shown]
        failures = [failure for ticket in tickets for failure in ticket.failures]
        return Evaluation(update, solved, reward, terms, rollout, failures, first, prompts)

    @property
    def unscored(self) -> int:
        return sum(int(np.isnan(values).sum()) for values in self.solved.values())

    @property
    def samples(self) -> int:
        return sum(values.size for values in self.solved.values())

    def estimates(self) -> dict[str, Estimate]:
        return {kind: solve_rate(values) for kind, values in self.solved.items()}

    def metrics(self) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for kind, estimate in self.estimates().items():
            metrics |= estimate.metrics(f"evaluation/{kind}/solve_rate")
            metrics[f"evaluation/{kind}/reward"] = self.reward[kind]
            metrics |= {f"evaluation/{kind}/{name}": value for name, value in self.rollout[kind].items()}
            for name, term in self.terms[kind].items():
                metrics |= term.metrics(f"evaluation/{kind}/term/{name}")
        return metrics | {f"evaluation/{name}": count for name, count in malformed_counts(self.failures).items()}

    def line(self) -> str:
        return ", ".join(f"{kind} {e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for kind, e in self.estimates().items())


def mean_if_any(values: np.ndarray) -> Estimate | None:
    """Mean of a term over the problems that it applies to; None for fewer than two, which have no interval."""
    applies = ~np.isnan(values).all(axis=-1)
    return mean(values) if applies.sum() > 1 else None
