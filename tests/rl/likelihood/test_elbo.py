"""The denoising loss against its exact integral, by enumerating every mask."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy import integrate

import rl.likelihood.text
from configs.algorithm_options import LikelihoodOptions
from models.text.policy import TextPolicy
from rl.algorithm.scored_rows import ScoredRow
from rl.likelihood.masks import MaskSampler
from rl.likelihood.text import TextElbo
from rollout.options import SamplerOptions
from rollout.trajectory import TextTrajectory
from tests.sampling import prompts_of, roll_out
from tests.tiny import tiny_policy

CPU = torch.device("cpu")
PROMPT_LENGTH, LENGTH = 6, 6  # blocks of 4: two canvas positions share the prompt's last block, four make the next one


def finished(family: str) -> tuple[TextPolicy, TextTrajectory]:
    """One completion, of which everything is trained but one position."""
    policy = tiny_policy(family, scale=1.0, words=5)
    options = SamplerOptions(max_new_tokens=LENGTH)
    trajectory = roll_out(policy, options, prompts_of([PROMPT_LENGTH], words=4))[0]
    generator = np.random.default_rng(1)
    mask = np.ones((1, LENGTH), bool)
    mask[0, 3] = False
    ids = generator.integers(0, 5, (1, LENGTH)).astype(np.int32)
    return policy, dataclasses.replace(trajectory, canvas_ids=ids, mask=mask)


def log_q(policy: TextPolicy, trajectory: TextTrajectory, masked: tuple[int, ...], end: int) -> dict[int, float]:
    """log-probability of the masked canvas positions, by one plain forward of its own over the text up to `end`."""
    canvas = trajectory.canvas_ids[0].astype(np.int64)
    shown = [policy.spec.mask_id if k in masked else int(token) for k, token in enumerate(canvas[:end])]
    text = torch.tensor([[*trajectory.prompt_ids.tolist(), *shown]])
    position = torch.arange(text.shape[1])[None]
    block = position // policy.spec.block_length if policy.spec.block_length else torch.zeros_like(position)
    read = torch.tensor([[0] * len(masked), [PROMPT_LENGTH + k for k in masked]])
    with torch.no_grad():
        logits = policy(text, position, torch.zeros_like(position), block, read)
    logits[:, list(policy.spec.forbidden_ids)] = -torch.inf
    values = logits.log_softmax(-1)
    return {k: values[i, canvas[k]].item() for i, k in enumerate(masked)}


def exact_elbo(policy: TextPolicy, trajectory: TextTrajectory, least_rate: float) -> float:
    """Sum over mask sets S of each block: log-probability of S x integral of t^(|S| - 1) (1 - t)^(n - |S|) dt."""
    trained = trajectory.mask[0].nonzero()[0].tolist()
    size = policy.spec.block_length
    block_of = {k: (PROMPT_LENGTH + k) // size if size else 0 for k in trained}
    total = 0.0
    for block in sorted(set(block_of.values())):
        inside = [k for k in trained if block_of[k] == block]
        end = LENGTH if size is None else min((block + 1) * size - PROMPT_LENGTH, LENGTH)
        for count in range(1, len(inside) + 1):
            hidden, shown = count - 1, len(inside) - count
            weight = integrate.quad(lambda t, h=hidden, s=shown: t**h * (1 - t) ** s, least_rate, 1)[0]
            weight /= 1 - least_rate  # the density of the rate
            for masked in itertools.combinations(inside, count):
                total += weight * sum(log_q(policy, trajectory, masked, end).values())
    return total


def estimates(policy: TextPolicy, trajectory: TextTrajectory, draws: int) -> np.ndarray:
    """(draws,) values of the estimator, each with its own noise."""
    elbo = TextElbo(policy.spec, LikelihoodOptions(), 1, CPU)
    rows = [elbo.rows([trajectory], update) for update in range(draws)]
    values = np.zeros(draws)
    flat = [(update, row) for update, found in enumerate(rows) for row in found]
    with torch.no_grad():
        log_prob = elbo.log_prob(policy, [row for _, row in flat]).numpy()
    ends = np.cumsum([len(row.decision) for _, row in flat])
    for (update, row), end in zip(flat, ends, strict=True):
        values[update] += (log_prob[end - len(row.decision) : end] * row.coefficient).sum()
    return values


def standard_errors(values: np.ndarray, exact: float) -> float:
    return abs(values.mean() - exact) / (values.std(ddof=1) / np.sqrt(len(values)))


@pytest.mark.parametrize("family", ["llada", "dream", "sdar"])
def test_mean_is_the_exact_integral(family):
    policy, trajectory = finished(family)
    exact = exact_elbo(policy, trajectory, least_rate=1e-3)
    assert standard_errors(estimates(policy, trajectory, 2000), exact) < 4


@pytest.mark.parametrize("family", ["llada", "sdar"])
def test_cutting_off_the_smallest_rates_costs_little(family):
    policy, trajectory = finished(family)
    exact = exact_elbo(policy, trajectory, least_rate=0.0)
    assert exact_elbo(policy, trajectory, least_rate=1e-3) == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize("family", ["llada", "sdar"])
def test_a_missing_weight_would_be_noticed(family, monkeypatch):
    """The control: LLaDA's loss without its 1 / t."""
    policy, trajectory = finished(family)
    real = rl.likelihood.text.ScoredRow

    def unweighted(row, index, sample, place, coefficient, *rest):
        return real(row, index, sample, place, np.ones_like(coefficient), *rest)

    monkeypatch.setattr(rl.likelihood.text, "ScoredRow", unweighted)
    exact = exact_elbo(policy, trajectory, least_rate=1e-3)
    assert standard_errors(estimates(policy, trajectory, 2000), exact) > 10


def test_rates_are_stratified_over_the_blocks():
    """Stratification: the rates of two blocks are half the unit interval apart, each uniform."""
    masks = MaskSampler(LikelihoodOptions(), 1)
    rates = np.array([masks._quantiles(uid, 2, 0)[0] for uid in range(1000)])
    np.testing.assert_allclose(np.abs(rates[:, 0] - rates[:, 1]), 0.5, atol=1e-9)
    assert_uniform(rates)


def test_rates_are_stratified_over_the_draws():
    """(u + j) / n for every block, and each draw alone is uniform."""
    masks = MaskSampler(LikelihoodOptions(draws=4), 1)
    rates = np.array([masks._quantiles(uid, 3, 0) for uid in range(1000)])  # (samples, draws, blocks)
    np.testing.assert_allclose(np.diff(np.sort(rates, axis=1), axis=1), 0.25, atol=1e-9)
    np.testing.assert_allclose(np.diff(np.sort(rates, axis=2), axis=2), 1 / 3, atol=1e-9)
    assert_uniform(rates.reshape(1000, -1))


def test_rising_rates_start_anywhere_and_end_at_the_highest():
    """UniGRPO: the first epoch's rate is drawn, the last masks everything, the steps between are equal."""
    epochs = 4
    masks = MaskSampler(LikelihoodOptions(rising_rate=True), epochs)
    rates = np.array([[masks._quantiles(uid, 1, 7 * epochs + e)[0, 0] for e in range(epochs)] for uid in range(500)])
    assert_uniform(rates[:, :1])
    np.testing.assert_allclose(rates[:, -1], 1, atol=1e-12)
    np.testing.assert_allclose(np.diff(rates, axis=1), np.repeat(np.diff(rates, axis=1)[:, :1], 3, 1), atol=1e-12)
    assert masks._quantiles(0, 1, 8 * epochs)[0, 0] != rates[0, 0]  # drawn anew each update


def assert_uniform(columns: np.ndarray) -> None:
    """Within more than four standard errors of a quantile."""
    for column in columns.T:
        np.testing.assert_allclose(np.quantile(column, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=2.2 / len(column) ** 0.5)
    assert columns.min() >= 0
    assert columns.max() < 1


def content(rows: list[ScoredRow]) -> list[tuple]:
    return [
        (row.sample, row.decision.tolist(), row.coefficient.tolist(), row.content.input_ids.tolist()) for row in rows
    ]


def test_noise_belongs_to_sample_and_update():
    policy = tiny_policy("sdar")
    elbo = TextElbo(policy.spec, LikelihoodOptions(), 1, CPU)
    first, second = roll_out(policy, SamplerOptions(max_new_tokens=8), prompts_of([5, 7]), group_size=4)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    one = elbo.rows([first, second], 3)
    assert content(elbo.rows([first, second], 3)) == content(one)
    swapped = elbo.rows([second, first], 3)
    assert content([row for row in swapped if row.trajectory == 1]) == content([r for r in one if r.trajectory == 0])
    assert content(elbo.rows([first, second], 4)) != content(one)
    by_sample = [tuple(row.coefficient) for row in one if row.trajectory == 0]
    assert len(set(by_sample)) > 1
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()


def test_only_trained_positions_are_masked():
    policy, trajectory = finished("llada")
    elbo = TextElbo(policy.spec, LikelihoodOptions(), 1, CPU)
    for update in range(50):
        for row in elbo.rows([trajectory], update):
            assert 3 not in row.decision
            assert row.content.input_ids[PROMPT_LENGTH + 3] == trajectory.canvas_ids[0, 3]
            assert row.content.input_ids[:PROMPT_LENGTH].tolist() == trajectory.prompt_ids.tolist()
