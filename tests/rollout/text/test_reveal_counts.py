"""How many positions a round reveals: each rule against a plain reading of its definition."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.options import Count, Order, SamplerOptions
from rollout.text.reveal import RevealKernel
from tests.rollout.text.test_reveal import SPEC


def reference_count(options: SamplerOptions, ranked: list[float], first_masked: int, block_round: int) -> int:
    """How many of the scores, best first, one round reveals; the published definitions, one position at a time."""
    if options.count is Count.quota:
        rounds = options.rounds_per_block or first_masked
        shares = [first_masked // rounds + (r < first_masked % rounds) for r in range(rounds)]
        passing = shares[block_round]
    elif options.count is Count.threshold:
        passing = sum(score >= options.threshold for score in ranked)
    elif options.count is Count.factor:
        passing = 0
        for n in range(1, len(ranked) + 1):  # n candidates: (n + 1)(1 - the worst of them) < f
            if (n + 1) * (1 - ranked[n - 1]) >= options.factor:
                break
            passing = n
    elif options.count is Count.entropy_sum:
        passing = sum(total < options.entropy_bound for total in itertools.accumulate(-score for score in ranked))
    else:
        passing = 0
        for n in range(1, len(ranked) + 1):
            entropies = [-score for score in ranked[:n]]
            if sum(entropies) - max(entropies) > options.entropy_bound:
                break
            passing = n
    return min(len(ranked), max(options.least_per_round or 1, passing))


# Multiples of 1/64 add without rounding, so that the comparison with Python floats is exact.
rule_options = st.one_of(
    st.builds(SamplerOptions, count=st.just(Count.quota), rounds_per_block=st.one_of(st.none(), st.integers(1, 8))),
    st.builds(SamplerOptions, count=st.just(Count.threshold), threshold=st.integers(0, 64).map(lambda n: n / 64)),
    st.builds(
        SamplerOptions,
        count=st.just(Count.threshold),
        threshold=st.integers(0, 64).map(lambda n: n / 64),
        least_per_round=st.integers(1, 9),
    ),
    st.builds(SamplerOptions, count=st.just(Count.factor), factor=st.integers(0, 256).map(lambda n: n / 64)),
    st.builds(
        SamplerOptions,
        order=st.just(Order.entropy),
        count=st.sampled_from([Count.entropy_bound, Count.entropy_sum]),
        entropy_bound=st.integers(0, 128).map(lambda n: n / 64),
    ),
)


@st.composite
def windows(draw):
    """(options, scores, masked, first_masked, block_round) of a batch of windows."""
    options = draw(rule_options)
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 8))
    cell = st.integers(0, 64).map(lambda n: -n / 64 if options.order is Order.entropy else n / 64)
    scores = draw(st.lists(st.lists(cell, min_size=width, max_size=width), min_size=rows, max_size=rows))
    masked = draw(st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=rows, max_size=rows))
    first = [draw(st.integers(sum(m), width)) if any(m) else draw(st.integers(0, width)) for m in masked]
    rounds = [(options.rounds_per_block or start or 1) if options.count is Count.quota else 9 for start in first]
    return options, scores, masked, first, [draw(st.integers(0, r - 1)) for r in rounds]


def select(options, scores, masked, first, block_round) -> list[list[bool]]:
    tensors = torch.tensor(scores), torch.tensor(masked), torch.tensor(first), torch.tensor(block_round)
    return RevealKernel(options, SPEC).select(*tensors).tolist()


def expected_selection(options, scores, masked, first, block_round) -> list[list[bool]]:
    expected = []
    for score, mask, start, r in zip(scores, masked, first, block_round, strict=True):
        places = sorted((k for k, m in enumerate(mask) if m), key=lambda k: (-score[k], k))
        count = reference_count(options, [score[k] for k in places], start, r) if places else 0
        expected.append([k in places[:count] for k in range(len(mask))])
    return expected


@settings(max_examples=400, deadline=None, derandomize=True)
@given(windows())
def test_selection_is_the_definition(window):
    chosen = select(*window)
    assert chosen == expected_selection(*window)
    for row, mask in zip(chosen, window[2], strict=True):
        assert any(row) == any(mask)  # at least one, where there is any
        assert all(m for c, m in zip(row, mask, strict=True) if c)  # only masked ones


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 11))
def test_quota_fills_the_block_in_its_rounds(width, rounds, given_tokens):
    """A block of any length, of which a prompt may fill the beginning, in rounds that need not divide it."""
    options = SamplerOptions(count=Count.quota, rounds_per_block=rounds)
    masked = [k >= min(given_tokens, width - 1) for k in range(width)]
    first, shares = sum(masked), []
    while any(masked):
        scores = [((7 * k + 3 * len(shares)) % 11) / 11 for k in range(width)]
        chosen = select(options, [scores], [masked], [first], [len(shares)])[0]
        masked = [m and not c for m, c in zip(masked, chosen, strict=True)]
        shares.append(sum(chosen))
    assert sum(shares) == first
    assert len(shares) == min(rounds, first)
    assert max(shares) - min(shares) <= 1


def test_what_the_quota_leaves_masked():
    """Eleven positions in four rounds go 3, 3, 3, 2; without a number of rounds, one by one."""
    rounds, first = torch.arange(5), torch.full((5,), 11)
    kernel = RevealKernel(SamplerOptions(count=Count.quota, rounds_per_block=4), SPEC)
    assert kernel.remaining(first, rounds).tolist() == [11, 8, 5, 2, 0]
    kernel = RevealKernel(SamplerOptions(count=Count.quota, rounds_per_block=None), SPEC)
    assert kernel.remaining(first, rounds).tolist() == [11, 10, 9, 8, 7]


def test_factor_rule_does_not_reveal_a_failing_last_position():
    """dInfer's copy counts once more when the scan ends at the last index."""
    options = SamplerOptions(count=Count.factor, factor=1.0)
    chosen = select(options, [[0.9, 0.9, 0.2]], [[True] * 3], [3], [0])
    assert chosen == [[True, True, False]]  # 2 x 0.1 and 3 x 0.1 pass, 4 x 0.8 does not


def test_entropy_bound_leaves_out_its_largest_member():
    options = SamplerOptions(order=Order.entropy, count=Count.entropy_bound, entropy_bound=0.5)
    scores, everything = [[-0.125, -0.25, -0.375, -4.0]], [[True] * 4]
    assert select(options, scores, everything, [4], [0]) == [[True, True, True, False]]  # 0.375, then 0.75
    without_the_term = sum(s <= 0.5 for s in itertools.accumulate(-score for score in scores[0]))
    assert without_the_term == 2  # JetEngine's rule reveals one fewer: the case above can tell them apart
    whole = SamplerOptions(order=Order.entropy, count=Count.entropy_sum, entropy_bound=0.5)
    assert select(whole, scores, everything, [4], [0]) == [[True, True, False, False]]


def test_ties_go_to_the_left():
    options = SamplerOptions(count=Count.quota)
    assert select(options, [[0.5, 0.5, 0.5]], [[False, True, True]], [2], [0]) == [[False, True, False]]


def test_a_wrong_count_is_noticed(monkeypatch):
    """The comparison with the definition can fail: without the plus one, the factor rule reveals more."""

    def one_too_lenient(self, sorted_score, rank, first_masked, block_round):
        return ((rank + 1) * (1 - sorted_score) < self.options.factor).long().cumprod(-1).sum(-1)

    window = (SamplerOptions(count=Count.factor, factor=1.0), [[0.75, 0.5625]], [[True, True]], [2], [0])
    assert select(*window) == expected_selection(*window)
    monkeypatch.setattr(RevealKernel, "_count", one_too_lenient)
    assert select(*window) != expected_selection(*window)
