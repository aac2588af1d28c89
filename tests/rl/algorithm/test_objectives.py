"""Objectives and denominators against short independent readings, and invariance to how a batch is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.algorithm_options import (
    AlgorithmOptions,
    CustomOptions,
    Denominator,
    KlEstimator,
    LikelihoodOptions,
    ObjectiveKind,
    Ratio,
)
from rl.algorithm.decisions import Decisions, Entry
from rl.algorithm.denominators import OF_ROWS, divisor, row_weights
from rl.algorithm.objectives import Loss, policy_loss
from rl.algorithm.scored_rows import ScoredRow
from rl.algorithm.scores import Scores, kl_to_reference
from rl.likelihood.protocol import micro_batches
from rl.likelihood.text import TextReplay
from rollout.options import Order, SamplerOptions
from tests.sampling import prompts_of, roll_out
from tests.tiny import tiny_policy

M = 200
SAMPLED_ESTIMATORS = (KlEstimator.k1, KlEstimator.k2, KlEstimator.k3)


def numbers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    old = -generator.exponential(1.0, M)
    return old + generator.normal(0, 0.3, M), old, generator.normal(0, 1, M)


def entry(recorded, advantage, weight=None, row=None) -> Entry:
    count = len(recorded)
    row = row or ScoredRow(None, 0, 0, np.arange(count), np.ones(count, np.float32), np.zeros(count, np.int64), count)
    weight = np.ones(count) if weight is None else weight
    sample = 100 * row.trajectory + row.sample
    return Entry(row, sample, row.trajectory, count, weight, 1.0, advantage, advantage > 0, recorded, old=recorded)


def elements(leaf: torch.Tensor, old: np.ndarray, advantage: np.ndarray, options: AlgorithmOptions) -> Loss:
    """Every decision by itself, all of weight one."""
    decisions = Decisions.of([entry(old, advantage)], torch.device("cpu"))
    return policy_loss(Scores(leaf), decisions, options, 1, lambda value: value)


def ppo(new: float, old: float, advantage: float, low: float, high: float) -> tuple[float, float, bool]:
    """(loss, gradient, clipped), by cases: only a ratio that has already moved the right way too far is held."""
    ratio = np.exp(new - old)
    if advantage > 0 and ratio > 1 + high:
        return -(1 + high) * advantage, 0.0, True
    if advantage < 0 and ratio < 1 - low:
        return -(1 - low) * advantage, 0.0, True
    return -ratio * advantage, -ratio * advantage, False


@pytest.mark.parametrize(("low", "high"), [(0.2, None), (0.2, 0.28), (0.05, 0.4)])
def test_clipped_objective(low, high):
    new, old, advantage = numbers()
    leaf = torch.tensor(new, requires_grad=True)
    result = elements(leaf, old, advantage, AlgorithmOptions(clip=low, clip_high=high))
    expected = [ppo(*x, low, low if high is None else high) for x in zip(new, old, advantage, strict=True)]
    assert result.value.item() == pytest.approx(sum(e[0] for e in expected), rel=1e-9)
    result.value.backward()
    np.testing.assert_allclose(leaf.grad, [e[1] for e in expected], rtol=1e-9)
    held = result.measures["ratio/clip_fraction"]
    assert held.tolist() == [e[2] for e in expected]
    assert 0 < held.sum() < M
    np.testing.assert_allclose(result.measures["ratio/mean"], np.exp(new - old))
    assert not result.measures["ratio/mean"].requires_grad


def test_before_the_first_step_the_clipped_objective_is_the_policy_gradient():
    new, _, advantage = numbers()
    gradients = []
    for options in (AlgorithmOptions(), AlgorithmOptions(objective=ObjectiveKind.weighted, ratio=Ratio.none)):
        leaf = torch.tensor(new, requires_grad=True)
        result = elements(leaf, new, advantage, options)
        result.value.backward()
        gradients.append(leaf.grad)
        assert (result.measures["ratio/mean"] == 1).all()
        assert not result.measures["ratio/clip_fraction"].any()
    torch.testing.assert_close(*gradients)


def test_with_nothing_recorded_the_old_policy_is_the_present_one():
    """In the first epoch nothing was recorded: the ratio is 1 and its gradient the policy's."""
    new, _, advantage = numbers()
    found = []
    for recorded in (new, None):
        leaf = torch.tensor(new, requires_grad=True)
        decisions = Decisions.of([replace(entry(new, advantage), old=recorded)], torch.device("cpu"))
        result = policy_loss(Scores(leaf), decisions, AlgorithmOptions(), 1, lambda value: value)
        (gradient,) = torch.autograd.grad(result.value, leaf)
        found.append((result.value.item(), gradient))
        assert (result.measures["ratio/mean"] == 1).all()
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    np.testing.assert_allclose(found[0][1], -advantage)


def test_what_the_dual_clip_holds():
    """With c = 1.3: of good samples nothing below 1 + high, of bad ones ratios above 1.3."""
    ratio, advantage = np.array([1.1, 0.5, 3.0, 1.1, 0.5]), np.array([0.5, 0.5, -1.0, -1.0, -1.0])
    leaf = torch.tensor(np.log(ratio), requires_grad=True)
    result = elements(leaf, np.zeros(5), advantage, AlgorithmOptions(clip=0.2, dual_clip=1.3))
    assert result.measures["ratio/clip_fraction"].tolist() == [0, 0, 1, 0, 1]  # the last by PPO's own clip
    assert result.value.item() == pytest.approx(-(0.55 + 0.25 - 1.3 - 1.1 - 0.8))
    (gradient,) = torch.autograd.grad(result.value, leaf)
    np.testing.assert_allclose(gradient, [-0.55, -0.25, 0.0, 1.1, 0.0])


def squares(log_ratio: torch.Tensor, advantage: torch.Tensor, options: AlgorithmOptions) -> torch.Tensor:
    return log_ratio.square() * advantage * options.beta


def test_a_loss_of_the_user_s_own():
    """Of log-ratios that are held within 20 nats, without a gradient beyond."""
    options = AlgorithmOptions(objective=ObjectiveKind.custom, custom=CustomOptions(objective=f"{__name__}.squares"))
    options.beta = 0.5
    leaf = torch.tensor([0.3, -0.2, 30.0], requires_grad=True)
    result = elements(leaf, np.zeros(3, np.float32), np.array([1.0, -2.0, 1.0], np.float32), options)
    assert result.value.item() == pytest.approx(0.5 * (0.09 - 2 * 0.04 + 400))
    (gradient,) = torch.autograd.grad(result.value, leaf)
    np.testing.assert_allclose(gradient, [0.3, 0.4, 0.0], rtol=1e-6)
    assert result.measures["ratio/clip_fraction"].tolist() == [0, 0, 0]
    np.testing.assert_allclose(result.measures["ratio/mean"], np.exp([0.3, -0.2, 20.0]), rtol=1e-6)


@pytest.mark.parametrize("estimator", SAMPLED_ESTIMATORS)
def test_kl_estimators(estimator):
    new, reference, _ = numbers()
    ratio = np.exp(reference - new)
    expected = {
        KlEstimator.k1: np.log(1 / ratio),
        KlEstimator.k2: np.log(ratio) ** 2 / 2,
        KlEstimator.k3: ratio - 1 - np.log(ratio),
    }[estimator]
    found = kl_to_reference(torch.tensor(new), torch.tensor(reference), estimator)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert not kl_to_reference(torch.tensor(new), torch.tensor(new), estimator).any()


@pytest.mark.parametrize("estimator", SAMPLED_ESTIMATORS)
def test_mean_of_an_estimator_under_the_policy(estimator):
    """k1 and k3 have the KL as their mean; k2 does not, but near the reference it comes close."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, generator=generator, dtype=torch.float64)
    policy = logits.log_softmax(-1)
    reference = (logits + 0.1 * torch.randn(6, generator=generator, dtype=torch.float64)).log_softmax(-1)
    kl = (policy.exp() * (policy - reference)).sum().item()
    mean = (policy.exp() * kl_to_reference(policy, reference, estimator)).sum().item()
    assert mean == pytest.approx(kl, rel=0.1 if estimator is KlEstimator.k2 else 1e-9)


@pytest.mark.parametrize("estimator", SAMPLED_ESTIMATORS)
def test_gradients_by_finite_differences(estimator):
    new, reference, _ = (torch.tensor(x) for x in numbers())
    assert torch.autograd.gradcheck(lambda x: kl_to_reference(x, reference, estimator), new.requires_grad_())


# Denominators


def groups():
    policy = tiny_policy("sdar", scale=1.0)
    options = SamplerOptions(order=Order.max_prob, rounds_per_block=3, max_new_tokens=10)
    return policy, options, roll_out(policy, options, prompts_of([4, 5, 7]), group_size=4)


def steps_of(trajectory, rows, index) -> np.ndarray:
    step = np.zeros(trajectory.mask.shape, np.int64)
    for row in rows:
        if row.trajectory == index:
            step[row.sample, row.decision] = row.step
    return step


OURS = [kind for kind in Denominator if kind is not Denominator.custom and kind not in OF_ROWS]
"""Those that are known before there are rows."""


def plain_mean(kind: Denominator, trajectories, steps, values) -> float:
    """The mean of `values` over an update, in words of each definition."""
    if kind is Denominator.token:
        return sum(v[t.mask].sum() for t, v in zip(trajectories, values, strict=True)) / sum(
            t.mask.sum() for t in trajectories
        )
    if kind is Denominator.canvas:
        return sum(v[t.mask].sum() for t, v in zip(trajectories, values, strict=True)) / sum(
            t.group_size * t.mask.shape[1] for t in trajectories
        )
    means = []
    for trajectory, step, value in zip(trajectories, steps, values, strict=True):
        for m, s, v in zip(trajectory.mask, step, value, strict=True):
            pieces = [m] if kind is Denominator.sequence else [m & (s == one) for one in set(s[m])]
            means.append(np.mean([v[piece].mean() for piece in pieces]))
    return float(np.mean(means))


@pytest.mark.parametrize("kind", OURS)
def test_denominators(kind):
    policy, options, trajectories = groups()
    rows = TextReplay(policy.spec, options, LikelihoodOptions(), torch.device("cpu")).rows(trajectories, 0)
    steps = [steps_of(t, rows, index) for index, t in enumerate(trajectories)]
    generator = np.random.default_rng(0)
    values = [generator.normal(size=t.mask.shape) for t in trajectories]
    weights = row_weights(trajectories, rows, kind, draws=1)
    total = sum(
        (weight * values[row.trajectory][row.sample, row.decision]).sum()
        for row, weight in zip(rows, weights, strict=True)
    ) / sum(divisor(t, kind) for t in trajectories)
    assert total == pytest.approx(plain_mean(kind, trajectories, steps, values), rel=1e-5)


def test_denominators_differ():
    """Were two of them the same on these groups, the test above could not tell them apart."""
    policy, options, trajectories = groups()
    rows = TextReplay(policy.spec, options, LikelihoodOptions(), torch.device("cpu")).rows(trajectories, 0)
    steps = [steps_of(t, rows, index) for index, t in enumerate(trajectories)]
    values = [np.arange(t.mask.size, dtype=float).reshape(t.mask.shape) for t in trajectories]
    assert len({round(plain_mean(kind, trajectories, steps, values), 6) for kind in OURS}) == 4


# Invariance


def loss_and_gradient(kind, max_tokens, seed, divide_by_batch=False):
    """The clipped loss of an update, accumulated over micro-batches as the learner does."""
    policy, options, trajectories = groups()
    replay = TextReplay(policy.spec, options, LikelihoodOptions(), torch.device("cpu"))
    rows = replay.rows(trajectories, 0)
    weights = {id(row): weight for row, weight in zip(rows, row_weights(trajectories, rows, kind, 1), strict=True)}
    total = sum(divisor(t, kind) for t in trajectories)
    rows = [rows[k] for k in np.random.default_rng(seed).permutation(len(rows))]
    loss = 0.0
    for batch in micro_batches(rows, max_tokens):
        scores = replay.score(policy, batch)
        entries = [
            entry(
                trajectories[row.trajectory].logp[row.sample, row.decision] + np.float32(0.1),
                np.full(len(row.decision), np.cos(4.0 * row.trajectory + row.sample), np.float32),
                weights[id(row)],
                row,
            )
            for row in batch
        ]
        decisions = Decisions.of(entries, torch.device("cpu"))
        part = policy_loss(scores, decisions, AlgorithmOptions(), 1, lambda value: value).value
        part = part / (len(scores.log_prob) if divide_by_batch else total)
        part.backward()
        loss += part.item()
    return loss, torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


@pytest.mark.parametrize("kind", OURS)
def test_loss_and_gradient_do_not_depend_on_the_cut(kind):
    loss, gradient = loss_and_gradient(kind, 100_000, seed=0)
    for max_tokens, seed in ((1, 1), (150, 2), (400, 3)):
        other, other_gradient = loss_and_gradient(kind, max_tokens, seed)
        assert other == pytest.approx(loss, abs=1e-6)
        assert (gradient - other_gradient).norm() <= 1e-5 * gradient.norm()


def test_a_mean_of_each_micro_batch_would_depend_on_it():
    """The control: the local mean that most trainers take."""
    _, gradient = loss_and_gradient(Denominator.token, 100_000, 0, divide_by_batch=True)
    _, other = loss_and_gradient(Denominator.token, 150, 0, divide_by_batch=True)
    assert (gradient - other).norm() > 0.1 * gradient.norm()
