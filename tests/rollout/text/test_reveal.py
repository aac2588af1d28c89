"""The kernel: what it draws, which positions it reveals, against plain readings of the definitions."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from models.text.spec import TextSpec
from rollout.options import Order, SamplerOptions
from rollout.text import reveal
from rollout.text.reveal import RevealKernel
from rollout.text.sampler import kept_ids

V = 12
SPEC = TextSpec(
    family="test",
    block_length=4,
    logit_shift=0,
    mask_id=8,
    pad_id=7,
    stop_ids=(6,),
    vocab_size=V,
    tokenizer_size=9,
    max_length=64,
)
FORBIDDEN = (7, 8, 9, 10, 11)
LOGITS = torch.tensor([1.2, 0.3, -0.5, 2.0, 0.9, -1.5, 0.1, 9.0, 9.0, 9.0, 9.0, 9.0])
DRAWS = 20_000


def law(temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> np.ndarray:
    """The processed distribution of LOGITS, written with Python floats."""
    weight = {v: math.exp(LOGITS[v].item() / temperature) for v in range(V) if v not in FORBIDDEN}
    ranked = sorted(weight, key=lambda v: -weight[v])
    if top_k:
        ranked = ranked[:top_k]
    total, mass, nucleus = sum(weight[v] for v in ranked), 0.0, []
    for v in ranked:
        if mass >= top_p:
            break
        nucleus.append(v)
        mass += weight[v] / total
    q = np.zeros(V)
    for v in nucleus:
        q[v] = weight[v] / sum(weight[v] for v in nucleus)
    return q


def drawn(spec: TextSpec = SPEC, **options) -> np.ndarray:
    """Counts of DRAWS tokens at DRAWS positions."""
    kernel = RevealKernel(SamplerOptions(**options), spec)
    keys = (torch.full((DRAWS,), 11), torch.arange(DRAWS), torch.full((DRAWS,), 1))
    return np.bincount(kernel.draw(LOGITS.expand(DRAWS, -1), *keys).tokens.numpy(), minlength=V)


def p_value(counts: np.ndarray, q: np.ndarray) -> float:
    if counts[q == 0].any():
        return 0.0
    kept = q > 0
    return stats.chisquare(counts[kept], q[kept] * counts.sum()).pvalue


PROCESSING = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.6},
    {"top_k": 3},
    {"top_p": 0.6},
    {"temperature": 1.4, "top_k": 5, "top_p": 0.7},
]


@pytest.mark.parametrize("options", PROCESSING, ids=str)
def test_draws_follow_the_processed_law(options):
    assert p_value(drawn(**options), law(**options)) > 1e-3


@pytest.mark.parametrize(("applied", "claimed"), itertools.permutations(PROCESSING, 2), ids=str)
def test_another_law_is_told_apart(applied, claimed):
    assert p_value(drawn(**applied), law(**claimed)) < 1e-3


@pytest.mark.parametrize("options", PROCESSING, ids=str)
def test_process_is_the_law(options):
    q = RevealKernel(SamplerOptions(**options), SPEC).process(LOGITS[None])[0].exp()
    np.testing.assert_allclose(q, law(**options), atol=1e-6)


def test_a_rare_token_is_drawn_as_often_as_it_should():
    """With fp32 uniforms or a bf16 Gumbel the tail of a large vocabulary is cut off: here 40 % of the mass is tail."""
    vocabulary = 100_000
    spec = dataclasses.replace(SPEC, vocab_size=vocabulary, tokenizer_size=vocabulary)
    logits = torch.zeros(1, vocabulary)
    logits[0, 0] = math.log(0.6 / 0.4 * (vocabulary - 3))
    kernel = RevealKernel(SamplerOptions(), spec)
    count = 400
    keys = (torch.full((count,), 5), torch.arange(count), torch.full((count,), 1))
    tokens = kernel.draw(logits.expand(count, -1), *keys).tokens
    assert stats.binomtest(int((tokens == 0).sum()), count, 0.6).pvalue > 1e-3
    assert stats.kstest(tokens[tokens > 0].numpy() / vocabulary, "uniform").pvalue > 1e-3


def test_forbidden_ids_are_never_drawn_though_their_logits_are_the_largest():
    for options in ({}, {"temperature": 0.0}, {"temperature": 5.0}, {"top_k": 5}, {"top_p": 0.5}):
        assert not drawn(**options)[list(FORBIDDEN)].any()


def test_without_the_rule_they_would_be_drawn(monkeypatch):
    monkeypatch.setattr(TextSpec, "forbidden_ids", (0,))
    assert drawn()[list(FORBIDDEN)].all()


def test_padding_that_is_also_the_stop_token_may_be_drawn():
    """LLaDA and Dream end with the id that they pad with."""
    spec = dataclasses.replace(SPEC, stop_ids=(7,))
    counts = drawn(spec)
    assert counts[7] > 0
    assert not counts[[8, 9, 10, 11]].any()


def test_temperature_zero_is_the_best_allowed_token():
    counts = drawn(temperature=0.0)
    assert counts[3] == DRAWS


@pytest.mark.parametrize("extreme", [0.0, 1 - 2.0**-53])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_the_ends_of_the_unit_interval_draw_possible_tokens(monkeypatch, extreme, scale):
    monkeypatch.setattr(reveal, "uniform", lambda uid, *rest: torch.full(uid.shape, extreme, dtype=torch.float64))
    kernel = RevealKernel(SamplerOptions(), SPEC)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(500, V, generator=generator) * scale
    tokens = kernel.draw(logits, *(torch.zeros(500, dtype=torch.long),) * 3).tokens
    assert set(tokens.tolist()) == {0 if extreme == 0 else 6}


def test_an_impossible_first_token_is_not_drawn_at_the_end_of_the_interval(monkeypatch):
    """A uniform of exactly 0 is not below the first token's share if that is nothing."""
    monkeypatch.setattr(reveal, "uniform", lambda uid, *rest: torch.zeros(uid.shape, dtype=torch.float64))
    for options, token in (({"top_k": 1}, 3), ({"top_k": 2}, 0), ({"top_p": 0.1}, 3)):
        keys = (torch.zeros(1, dtype=torch.long),) * 3
        assert RevealKernel(SamplerOptions(**options), SPEC).draw(LOGITS[None], *keys).tokens.tolist() == [token]


def test_top_k_of_one_leaves_one_token():
    q = RevealKernel(SamplerOptions(top_k=1), SPEC).process(LOGITS[None])[0].exp()
    assert q.tolist() == [float(token == 3) for token in range(V)]


@pytest.mark.parametrize(
    ("options", "truncates"),
    [
        ({}, False),
        ({"temperature": 0.5}, False),
        ({"top_k": 1}, True),
        ({"top_p": 0.9}, True),
        ({"top_k": 3, "top_p": 0.9}, True),
        ({"temperature": 0.0, "top_k": 3}, False),
        ({"temperature": 0.0, "top_p": 0.9}, False),
    ],
    ids=str,
)
def test_what_truncates(options, truncates):
    """Its support is recorded. At temperature 0 there is nothing to record: the law is one token."""
    assert RevealKernel(SamplerOptions(**options), SPEC).truncates is truncates


# Orders


def reference_score(options: SamplerOptions, logits: list[float], token: int, position: int) -> float:
    weight = [math.exp(z / options.temperature) for v, z in enumerate(logits) if v not in FORBIDDEN]
    q = [w / sum(weight) for w in weight]
    raw = [math.exp(z) for v, z in enumerate(logits) if v not in FORBIDDEN]
    ordered = sorted(q, reverse=True)
    return {
        Order.max_prob: ordered[0],
        Order.entropy: sum(p * math.log(p) for p in q),
        Order.margin: ordered[0] - ordered[1],
        Order.sequential: -position,
        Order.drawn_prob: q[token],
        Order.drawn_raw_prob: raw[token] / sum(raw),
    }[options.order]


@pytest.mark.parametrize("order", [o for o in Order if o is not Order.random])
def test_score_of_each_order(order):
    options = SamplerOptions(order=order, temperature=1.7)
    logits = torch.randn(40, V, generator=torch.Generator().manual_seed(1)) * 2
    position = torch.arange(40)
    draw = RevealKernel(options, SPEC).draw(logits, torch.full((40,), 3), position, torch.full((40,), 2))
    expected = [
        reference_score(options, row, token, place)
        for row, token, place in zip(logits.tolist(), draw.tokens.tolist(), position.tolist(), strict=True)
    ]
    np.testing.assert_allclose(draw.score, expected, rtol=2e-5, atol=2e-6)


def test_the_two_drawn_orders_differ_by_the_temperature_only():
    logits = torch.randn(40, V, generator=torch.Generator().manual_seed(1)) * 2
    keys = (torch.full((40,), 3), torch.arange(40), torch.full((40,), 2))

    def gap(temperature: float) -> float:
        tempered, raw = (
            RevealKernel(SamplerOptions(order=order, temperature=temperature), SPEC).draw(logits, *keys).score
            for order in (Order.drawn_prob, Order.drawn_raw_prob)
        )
        return (tempered - raw).abs().max().item()

    assert gap(1.0) < 1e-6
    assert gap(1.7) > 0.05


def test_random_order_does_not_know_the_tokens_drawn():
    """Its scores come from their own stream: were it the stream of the tokens, likely tokens would come early."""
    kernel = RevealKernel(SamplerOptions(order=Order.random), SPEC)
    keys = (torch.full((DRAWS,), 3), torch.arange(DRAWS), torch.full((DRAWS,), 2))
    draw = kernel.draw(LOGITS.expand(DRAWS, -1), *keys)
    assert stats.kstest(draw.score.numpy(), "uniform").pvalue > 1e-3
    groups = [draw.score[draw.tokens == token].numpy() for token in (0, 3)]
    assert stats.ks_2samp(*groups).pvalue > 1e-3


# Log-probabilities


@pytest.mark.parametrize("options", PROCESSING, ids=str)
@pytest.mark.parametrize("recorded_support", [False, True])
def test_log_prob_is_that_of_the_law(options, recorded_support):
    kernel = RevealKernel(SamplerOptions(**options), SPEC)
    tokens = torch.tensor([token for token, p in enumerate(law(**options)) if p > 0])
    logits = LOGITS.expand(len(tokens), -1)
    support = kept_ids(kernel.process(logits)) if recorded_support else None
    selected = torch.ones(len(tokens), dtype=torch.bool)
    value = kernel.log_prob(logits, tokens, selected, torch.zeros_like(tokens), support)
    np.testing.assert_allclose(value.exp(), law(**options)[tokens], rtol=1e-5)


def test_supports_of_different_sizes_stand_beside_each_other():
    kernel = RevealKernel(SamplerOptions(top_p=0.9), SPEC)
    logits = torch.stack([LOGITS, LOGITS * 20])  # the second law keeps hardly more than one token
    support = kept_ids(kernel.process(logits))
    assert (support < 0).any()
    arguments = support[:, 0], torch.tensor([True, True]), torch.tensor([0, 1])
    torch.testing.assert_close(kernel.log_prob(logits, *arguments, support), kernel.log_prob(logits, *arguments, None))


def test_recorded_support_keeps_a_token_that_new_weights_would_cut_off():
    kernel = RevealKernel(SamplerOptions(top_k=2), SPEC)
    support = kept_ids(kernel.process(LOGITS[None]))
    changed = LOGITS.clone()
    changed[5] = 8.0  # now above both members of the support
    arguments = (torch.tensor([0]), torch.tensor([True]), torch.tensor([0]))
    assert kernel.log_prob(changed[None], *arguments, support).isfinite().all()
    assert kernel.log_prob(changed[None], *arguments, None).isneginf().all()  # what truncating afresh would give


def test_gradient_does_not_reach_forbidden_logits():
    for options in PROCESSING:
        kernel = RevealKernel(SamplerOptions(**options), SPEC)
        logits = LOGITS[None].clone().requires_grad_()
        kernel.log_prob(logits, torch.tensor([3]), torch.tensor([True]), torch.tensor([0]), None).sum().backward()
        assert logits.grad.isfinite().all()
        assert not logits.grad[0, list(FORBIDDEN)].any()
