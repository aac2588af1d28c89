"""Orders that look at the draw: the probability of a round is that of all draws that lead to it, by enumeration."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import pytest
import torch

from rollout.options import Count, Order, SamplerOptions
from rollout.text.reveal import RevealKernel
from tests.rollout.text.test_reveal import SPEC

POSITIONS, TOKENS = 3, 7
OTHERS = torch.full((POSITIONS, SPEC.vocab_size - TOKENS), 5.0)
"""Logits of the ids that are never drawn."""
LOGITS = {
    "apart": torch.tensor([[0.3, 1.4, -0.6, 0.1, 2.2, -1.0, 0.7], [1.1, -0.2, 0.5, 3.0, 0.2, 0.9, -0.4]]),
    "equal": torch.tensor([[0.0, 1.0, 0.0, 1.0, 2.0, 2.0, 0.0], [0.0, 1.0, 0.0, 1.0, 2.0, 2.0, 0.0]]),
}
RULES = {
    "one by one": {"count": Count.quota},
    "quota": {"count": Count.quota, "rounds_per_block": 2},  # two of three first
    "threshold": {"count": Count.threshold, "threshold": 0.25},
    "factor": {"count": Count.factor, "factor": 1.9},  # the best may be forced
    "wide factor": {"count": Count.factor, "factor": 2.4},
}


def logits_of(name: str) -> torch.Tensor:
    """Three positions, of which the last is like the first: draws tie."""
    rows = LOGITS[name]
    return torch.cat([torch.stack([rows[0], rows[1], rows[0]]), OTHERS], -1)


def enumerated(kernel: RevealKernel, logits: torch.Tensor) -> dict[tuple[int | None, ...], float]:
    """Tokens of the revealed positions, None for the others -> probability, summed over all draws."""
    q = kernel.process(logits).double().exp()
    draws = torch.tensor(list(itertools.product(range(TOKENS), repeat=POSITIONS)))
    score = kernel._drawn_score(kernel.process(logits), logits)
    scores = torch.stack([score[position, draws[:, position]] for position in range(POSITIONS)], -1)
    masked = torch.ones_like(draws, dtype=torch.bool)
    chosen = kernel.select(scores, masked, torch.full((len(draws),), POSITIONS), torch.zeros(len(draws)))
    found: dict[tuple[int | None, ...], float] = defaultdict(float)
    for tokens, revealed in zip(draws.tolist(), chosen.tolist(), strict=True):
        outcome = tuple(token if shown else None for token, shown in zip(tokens, revealed, strict=True))
        found[outcome] += math.prod(float(q[position, token]) for position, token in enumerate(tokens))
    return found


def recorded(outcome: tuple[int | None, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([token or 0 for token in outcome]), torch.tensor([token is not None for token in outcome])


@pytest.mark.parametrize("name", LOGITS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("order", [order for order in Order if order.depends_on_draw])
def test_a_round_is_as_probable_as_all_its_draws(order: Order, rule: str, name: str) -> None:
    kernel = RevealKernel(SamplerOptions(order=order, temperature=1.3, **RULES[rule]), SPEC)
    logits = logits_of(name)
    expected = enumerated(kernel, logits)
    assert sum(expected.values()) == pytest.approx(1)
    counts = {sum(token is not None for token in outcome) for outcome in expected}
    assert len(counts) > 1 or rule not in ("threshold", "wide factor")
    for outcome, probability in expected.items():
        tokens, selected = recorded(outcome)
        found = kernel.log_prob(logits, tokens, selected, torch.zeros(POSITIONS, dtype=torch.long), None)
        assert math.exp(found.sum()) == pytest.approx(probability, rel=1e-4)
        assert not found[~selected].any()
        plain = kernel.process(logits).gather(-1, tokens[:, None])[:, 0]
        later = selected.nonzero()[1:, 0]
        torch.testing.assert_close(found[later], plain[later])  # the factor is on the first revealed position


def test_rounds_do_not_see_each_other() -> None:
    kernel = RevealKernel(SamplerOptions(order=Order.drawn_prob), SPEC)
    outcomes = [recorded((None, 3, None)), recorded((4, None, None)), recorded((None, None, 1))]
    names = ["apart", "equal", "apart"]
    alone = [
        kernel.log_prob(logits_of(name), *outcome, torch.zeros(POSITIONS, dtype=torch.long), None)
        for name, outcome in zip(names, outcomes, strict=True)
    ]
    tokens, selected = (torch.cat(parts) for parts in zip(*outcomes, strict=True))
    rounds = torch.tensor([2, 0, 1]).repeat_interleave(POSITIONS)
    together = kernel.log_prob(torch.cat([logits_of(name) for name in names]), tokens, selected, rounds, None)
    torch.testing.assert_close(together, torch.cat(alone))
