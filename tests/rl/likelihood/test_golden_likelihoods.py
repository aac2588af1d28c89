"""Golden values of every likelihood of a text: its mean, its bias against the log-likelihood, its variance."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest

from configs.algorithm_options import LikelihoodOptions
from rl.likelihood.text import TextReplay
from tests.rl.support.enumeration import (
    CASES,
    COUNT,
    CPU,
    ELBOS,
    LENGTH,
    RANDOM_ORDER,
    REPLAY_CASES,
    REPLAYS,
    TEXT,
    TEXTS,
    UNWEIGHTED,
    elbo,
    estimates,
    groups_of,
    likelihood_of,
    log_probs,
    mean_elbo,
    oracle,
    orders,
    replay_by_hand,
    standard_errors,
    trajectory_of,
)


@pytest.mark.parametrize(("family", "name"), [*CASES, ("dream", "spg"), ("dream", "coupled_grpo")])
def test_estimate_has_the_enumerated_mean(family: str, name: str) -> None:
    assert standard_errors(estimates(family, ELBOS[name], TEXT, 250), mean_elbo(family, name, TEXT)) < 4


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("llada", UNWEIGHTED),
        ("llada_1_5", UNWEIGHTED),
        ("coupled_grpo", {"full_view": 1.0}),
        ("wd1_prompt", {"prompt_masking": 0.9}),
        ("spg", {"canvas_block": None}),
        ("spg", {"prompt_masking": 0.9}),
        ("unigrpo", {"rising_rate": False}),
    ],
)
def test_another_estimate_would_be_noticed(name: str, change: dict) -> None:
    """The control: dropped weights, another law, another coefficient."""
    other = LikelihoodOptions(**{**vars(ELBOS[name]), **change})
    assert standard_errors(estimates("llada", other, TEXT, 250), mean_elbo("llada", name, TEXT)) > 6


# The estimates against the log-likelihood

# Mean over texts of (mean estimate - log-likelihood under the policy's own sampler), in nats: what a likelihood costs
# on this policy. Where `canvas_block` is set, the sampler reveals block by block. Measured.
ELBO_BIAS = {
    ("llada", "llada"): -1.1555,  # 0.0004 below the exact integral, for the rates below 0.001
    ("llada", "llada_1_5"): -1.1551,
    ("llada", "espo"): -1.1551,
    ("llada", "truncated_rate"): -1.1260,
    ("llada", "coupled_grpo"): -3.8923,  # its coefficients add up to 3/2
    ("llada", "dllm_rl_coupled"): -1.2431,
    ("llada", "rising"): -1.3999,
    ("llada", "unigrpo"): -0.1274,  # its coefficients add up to 3/4 in this epoch
    ("llada", "wd1"): -1.7336,
    ("llada", "wd1_prompt"): -1.7539,
    ("llada", "block_autoregressive"): -0.4120,
    ("llada", "spg"): -0.5499,
    ("sdar", "llada"): -0.3218,
    ("sdar", "llada_1_5"): -0.3218,
    ("sdar", "espo"): -0.3218,
    ("sdar", "truncated_rate"): -0.3218,
    ("sdar", "coupled_grpo"): -1.9598,
    ("sdar", "dllm_rl_coupled"): -0.3079,
    ("sdar", "rising"): -0.2891,
    ("sdar", "unigrpo"): 0.5399,
    ("sdar", "wd1"): -0.2564,
}


@pytest.mark.parametrize(("family", "name"), CASES)
def test_bias_of_a_denoising_loss(family: str, name: str) -> None:
    groups = groups_of(family, ELBOS[name])
    truth = np.array([oracle(family).log_likelihood(ids, groups) for ids in TEXTS])
    assert np.exp(truth).sum() == pytest.approx(1, abs=1e-6)
    bias = np.exp(truth) @ (np.array([mean_elbo(family, name, ids) for ids in TEXTS]) - truth)
    assert bias == pytest.approx(ELBO_BIAS[family, name], abs=1e-3)
    errors = [
        standard_errors(estimates(family, ELBOS[name], ids, 40, uid=100 + place), mean_elbo(family, name, ids))
        for place, ids in enumerate(TEXTS[::9])
    ]
    assert np.mean(np.square(errors)) < 4


@pytest.mark.parametrize(("family", "name"), [c for c in REPLAY_CASES if c[1] not in ("diffu_grpo", "agrpo")])
def test_replay_is_the_sum_over_its_parts(family: str, name: str) -> None:
    cases = list(itertools.product(TEXTS[::7], orders(family)))
    reveal = [tuple(order.index(k) + 1 for k in range(LENGTH)) for _, order in cases]
    replay = TextReplay(oracle(family).policy.spec, RANDOM_ORDER, REPLAYS[name], CPU)
    assert not replay.fresh_noise
    rows = replay.rows([trajectory_of([ids for ids, _ in cases], reveal)], 0)
    totals = np.zeros(len(cases))
    for row, value in zip(rows, log_probs(replay, oracle(family).policy, rows), strict=True):
        totals[row.sample] += value.sum()
    by_hand = [replay_by_hand(family, name, ids, order) for ids, order in cases]
    np.testing.assert_allclose(totals, by_hand, atol=1e-5)


@pytest.mark.parametrize(("family", "name"), [("llada", "diffu_grpo"), ("llada", "agrpo"), ("sdar", "agrpo")])
def test_drawn_replay_has_the_enumerated_mean(family: str, name: str) -> None:
    by_hand = replay_by_hand(family, name, TEXT, tuple(range(LENGTH)))
    assert likelihood_of(oracle(family).policy, REPLAYS[name]).fresh_noise
    assert standard_errors(estimates(family, REPLAYS[name], TEXT, 250), by_hand) < 4


REPLAY_BIAS = {
    ("llada", "every_step"): 0.7264,
    ("llada", "shrink"): 0.0007,
    ("llada", "segments"): 0.1441,
    ("llada", "one"): -1.7336,
    ("llada", "left_to_right"): -1.3854,
    ("llada", "diffu_grpo"): -1.7539,
    ("sdar", "every_step"): 0.2368,
    ("sdar", "shrink"): -0.2564,
    ("sdar", "segments"): 0.2368,
    ("sdar", "one"): -0.2564,
    ("sdar", "left_to_right"): -0.3734,
}
"""As above, over texts and the orders they were revealed in. A text's likelihood is a mean over orders; `every_step` is
exact given the recorded one, which is the likelier ones more often."""


@pytest.mark.parametrize(("family", "name"), REPLAY_BIAS)
def test_bias_of_a_replay(family: str, name: str) -> None:
    every, bias, total = list(orders(family)), 0.0, 0.0
    for ids in TEXTS:
        truth = oracle(family).log_likelihood(ids, oracle(family).groups)
        for order in every:
            probability = math.exp(replay_by_hand(family, "every_step", ids, order)) / len(every)
            bias += probability * (replay_by_hand(family, name, ids, order) - truth)
            total += probability
    assert total == pytest.approx(1, abs=1e-6)
    assert bias == pytest.approx(REPLAY_BIAS[family, name], abs=1e-3)


def test_left_to_right_is_the_likelihood_of_a_left_to_right_sampler() -> None:
    """Whatever the order it was revealed in; exact for a policy that is sampled so, as JustGRPO does."""
    for ids in TEXTS:
        exact = oracle("llada").log_likelihood(ids, [[k] for k in range(LENGTH)])
        assert replay_by_hand("llada", "left_to_right", ids, (2, 0, 3, 1)) == pytest.approx(exact, abs=1e-9)


# Variance


def variances(ids: tuple) -> dict[str, float]:
    """Exact variance of four-position estimates that cost two forwards each."""
    everything, log_q = set(range(LENGTH)), functools.partial(oracle("llada").log_q, ids)

    def estimate(chosen: set, outcomes: int) -> float:
        return outcomes / len(chosen) * log_q(chosen, chosen) if chosen else 0.0

    def of_count(count: int) -> list[float]:
        return [estimate(set(chosen), LENGTH) for chosen in itertools.combinations(range(LENGTH), count)]

    def variance(cases: list[list[float]]) -> float:
        """Of equally likely cases, each with equally likely values."""
        mean = np.mean([np.mean(values) for values in cases])
        return float(np.mean([np.mean((np.array(values) - mean) ** 2) for values in cases]))

    espo, coupled = [], []
    for count in range(LENGTH + 1):
        sets = [set(chosen) for chosen in itertools.combinations(range(LENGTH), count)]
        espo.append([(estimate(s, LENGTH + 1) + estimate(everything - s, LENGTH + 1)) / 2 for s in sets])
        if 0 < count < LENGTH:
            coupled.append([(estimate(s, LENGTH) + estimate(everything - s, LENGTH)) / 2 for s in sets])
    coupled.append([estimate(everything, LENGTH)])
    stratified = []
    for first in range(1, LENGTH + 1):
        second = (first - 1 + LENGTH // 2) % LENGTH + 1
        stratified.append([(a + b) / 2 for a in of_count(first) for b in of_count(second)])
    independent = variance([of_count(count) for count in range(1, LENGTH + 1)]) / 2
    return {
        "espo": variance(espo),
        "coupled": variance(coupled),
        "stratified": variance(stratified),
        "independent": independent,
    }


VARIANCE = {"espo": 5.533, "coupled": 3.443, "stratified": 3.410, "independent": 3.979}
"""Squared nats, averaged over texts. `espo` is the published form of the coupled pair (see `rl.likelihood.masks`).
Measured."""


def test_coupled_and_stratified_draws_vary_less_than_independent_ones() -> None:
    """At equal forwards."""
    weight = [math.exp(oracle("llada").log_likelihood(ids, [list(range(LENGTH))])) for ids in TEXTS]
    found = [variances(ids) for ids in TEXTS]
    mean = {name: float(np.dot(weight, [v[name] for v in found])) for name in found[0]}
    assert mean["coupled"] < mean["independent"]
    assert mean["stratified"] < mean["independent"]
    assert mean == pytest.approx(VARIANCE, abs=1e-3)


def test_variance_of_the_estimates_is_the_enumerated_one() -> None:
    exact = variances(TEXT)
    coupled = estimates("llada", elbo(**COUNT, complement=True), TEXT, 500).var(ddof=1)
    stratified = estimates("llada", elbo(**COUNT, draws=2), TEXT, 500).var(ddof=1)
    independent = estimates("llada", elbo(**COUNT), TEXT, 500).var(ddof=1) / 2
    assert coupled == pytest.approx(exact["coupled"], rel=0.25)
    assert stratified == pytest.approx(exact["stratified"], rel=0.25)
    assert independent == pytest.approx(exact["independent"], rel=0.25)
