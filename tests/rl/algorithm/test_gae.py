"""GAE over steps, against a reading of its definition that sums term by term, and the loss of the value."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rl.algorithm.gae import at_the_end, step_advantages
from rl.learner.value_model import value_loss

STEP = np.array([7, 3, 3, 9, 7, 3, 20, 9])
"""Of a sample's decisions: four steps of three, two, two and one, in no order."""
RATES = [(1.0, 1.0), (0.9, 0.95), (0.99, 0.0), (0.5, 1.0), (0.0, 0.7)]


def numbers(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=len(STEP)), generator.normal(size=len(STEP))


def reading(reward, value, discount: float, gae_lambda: float, average=np.mean) -> tuple[np.ndarray, np.ndarray]:
    """A*_t as the sum over later steps of (discount lambda)^l delta_t+l (arXiv 1506.02438, eq. 16)."""
    steps = sorted(set(STEP.tolist()))
    r, v = ({t: average(x[t == STEP]) for t in steps} for x in (reward, value))

    def next_value(t: int) -> float:
        later = [u for u in steps if u > t]
        return v[later[0]] if later else 0.0

    advantage, target = [], []
    for k, t in enumerate(STEP.tolist()):
        later = [u for u in steps if u > t]
        deltas = [r[u] - v[u] + discount * next_value(u) for u in later]
        ahead = sum((discount * gae_lambda) ** (n + 1) * delta for n, delta in enumerate(deltas))
        advantage.append(reward[k] - value[k] + discount * next_value(t) + ahead)
        target.append(reward[k] + sum(discount ** (n + 1) * r[u] for n, u in enumerate(later)))
    return np.array(advantage), np.array(target)


@pytest.mark.parametrize(("discount", "gae_lambda"), RATES)
def test_it_is_the_sum_over_later_steps(discount, gae_lambda):
    reward, value = numbers(0)
    found = step_advantages(reward, value, STEP, discount, gae_lambda)
    for one, other in zip(found, reading(reward, value, discount, gae_lambda), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_sums_over_the_decisions_of_a_step_would_differ():
    """The control: a step of three tokens must not count three times."""
    reward, value = numbers(0)
    found, _ = step_advantages(reward, value, STEP, 0.9, 0.95)
    summed, _ = reading(reward, value, 0.9, 0.95, average=np.sum)
    assert np.abs(found - summed).max() > 0.1


def test_undiscounted_it_is_what_came_out_minus_what_was_predicted():
    """The outcome is put on the last step, whatever the number of its decisions."""
    _, value = numbers(1)
    for step in (STEP, np.zeros_like(STEP), np.arange(len(STEP)) // 3):
        reward = at_the_end(np.full(len(step), 1.7), step)
        assert (reward[step < step.max()] == 0).all()
        assert (reward[step == step.max()] == 1.7).all()
        advantage, target = step_advantages(reward, value, step, 1.0, 1.0)
        np.testing.assert_allclose(advantage, 1.7 - value, rtol=0, atol=1e-14)
        np.testing.assert_allclose(target, 1.7, rtol=0, atol=1e-14)


def test_of_a_value_that_is_zero_nothing_is_left_but_the_outcome_to_the_bit():
    outcome = np.full(len(STEP), np.float32(0.1))
    advantage, _ = step_advantages(at_the_end(outcome, STEP), np.zeros(len(STEP), np.float32), STEP, 1.0, 1.0)
    np.testing.assert_array_equal(advantage.astype(np.float32), outcome)


def test_lambda_zero_looks_one_step_ahead():
    reward, value = numbers(2)
    last, before = STEP == 20, STEP == 9
    found, _ = step_advantages(reward, value, STEP, 0.9, 0.0)
    np.testing.assert_allclose(found[last], (reward - value)[last])
    np.testing.assert_allclose(found[before], (reward - value)[before] + 0.9 * value[last].mean())


def test_the_loss_of_a_prediction_that_has_moved_too_far_is_held():
    old, target = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, -1.0, 1.0, 0.1])
    value = torch.tensor([0.1, 0.5, 0.5, -0.5, 0.5], dtype=torch.float64, requires_grad=True)
    loss = value_loss(value, old, target, clip=0.2)
    (slope,) = torch.autograd.grad(loss.sum(), value)
    #         within the width; beyond it towards the target; away from it, twice; through it and out
    expected = [0.9**2 / 2, 0.8**2 / 2, 1.5**2 / 2, 1.5**2 / 2, 0.4**2 / 2]
    np.testing.assert_allclose(loss.detach(), expected, rtol=1e-6)
    np.testing.assert_allclose(slope, [-0.9, 0.0, 1.5, -1.5, 0.4], rtol=1e-6)
    free = value_loss(value, old, target, clip=None)
    np.testing.assert_allclose(free.detach(), (value - target).detach() ** 2 / 2, rtol=1e-6)


def test_its_slope_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    old, target, value = (torch.randn(200, generator=generator, dtype=torch.float64) for _ in range(3))
    value.requires_grad_()
    (slope,) = torch.autograd.grad(value_loss(value, old, target, 0.3).sum(), value)
    width = 1e-6
    above, below = (value_loss(value.detach() + side, old, target, 0.3) for side in (width, -width))
    np.testing.assert_allclose(slope, (above - below) / (2 * width), rtol=1e-6, atol=1e-6)
