"""Weighted likelihoods and preferences against a short reading of their papers' formulas, with a control each; rows
that keep ranks in step in every cell."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.algorithm_options import AdvantageKind, AlgorithmOptions, ObjectiveKind, Ratio
from rl.algorithm.advantages import advantages
from rl.algorithm.objectives import policy_loss
from rl.algorithm.scores import Scores
from tests.rl.support.minibatches import (
    GROUPS,
    LENGTHS,
    Minibatch,
    Reading,
    assert_differs,
    assert_gradient,
    assert_reads,
    objective,
    with_advantage,
)
from tests.rl.support.readings import MINIBATCHES, RATIOS, SAMPLES, clipped, clipping, log_likelihood, surrogate

# Without a ratio


@pytest.mark.parametrize("by_token", [True, False])
@pytest.mark.parametrize("made", MINIBATCHES)
def test_weighted_likelihood(made, by_token):
    """REINFORCE; wd1 with its weights as advantages, whose sum over tokens has no length in it."""
    minibatch = MINIBATCHES[made](by_token)
    options = AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.weighted)

    def reading(m: Minibatch, x: np.ndarray) -> float:
        return -sum(m.weight(s) * m.advantage[s] * log_likelihood(m, x, s) for s in SAMPLES)

    def wd1(m: Minibatch, x: np.ndarray) -> float:
        loss = 0.0
        for group in set(GROUPS):
            members = [s for s in SAMPLES if GROUPS[s] == group]
            gain = np.exp([m.advantage[s] for s in members])
            loss_weights = np.exp([-m.advantage[s] for s in members])
            weights = len(members) / sum(LENGTHS) * (loss_weights / loss_weights.sum() - gain / gain.sum())
            loss += sum(w * log_likelihood(m, x, s) for w, s in zip(weights, members, strict=True))
        return loss

    assert_reads(minibatch, options, reading)
    assert_differs(minibatch, options, lambda m, x: -reading(m, x))
    if by_token:
        softmax = np.zeros(len(GROUPS))
        for group in set(GROUPS):
            members = np.array([s for s in SAMPLES if GROUPS[s] == group])
            softmax[members], _ = advantages(minibatch.advantage[members], AdvantageKind.softmax)
        assert_reads(with_advantage(minibatch, softmax.tolist()), options, lambda _, x: wd1(minibatch, x))


@pytest.mark.parametrize("made", MINIBATCHES)
def test_anchor_is_the_supervised_loss_of_good_samples(made):
    minibatch = MINIBATCHES[made](True)
    weighted = AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.weighted, anchor=0.5)
    clip = clipping(Ratio.element, anchor=0.5)

    def anchor(m: Minibatch, x: np.ndarray, everyone: bool = False) -> float:
        good = [s for s in SAMPLES if everyone or m.advantage[s] > 0]
        return -0.5 * sum(m.weight(s) * log_likelihood(m, x, s) for s in good)

    def with_anchor(reading: Reading, **choice: bool) -> Reading:
        return lambda m, x: reading(m, x) + anchor(m, x, **choice)

    def reinforce(m: Minibatch, x: np.ndarray) -> float:
        return -sum(m.weight(s) * m.advantage[s] * log_likelihood(m, x, s) for s in SAMPLES)

    ppo = surrogate(clipped, Ratio.element)
    assert_reads(minibatch, weighted, with_anchor(reinforce))
    assert_reads(minibatch, clip, with_anchor(ppo))
    assert_differs(minibatch, clip, ppo)
    assert_differs(minibatch, clip, with_anchor(ppo, everyone=True))


# Preferences


def dpo(m: Minibatch, x: np.ndarray, chosen: int, rejected: int, beta: float) -> float:
    """DPO, eq. 7."""
    better, worse = (log_likelihood(m, x, s) - log_likelihood(m, m.reference, s) for s in (chosen, rejected))
    return math.log1p(math.exp(-beta * (better - worse)))


def pairs(made: str) -> Minibatch:
    """Of each group the first sample is chosen and the second rejected; the others say nothing."""
    return with_advantage(MINIBATCHES[made](False), [1, -1, 0, 0, 1, -1, 0, 0])


PREFERENCE = AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.group_dpo, beta=0.7)


@pytest.mark.parametrize("made", MINIBATCHES)
def test_a_pair_that_nothing_tells_apart_is_not_told_right(made):
    minibatch = pairs(made)
    same = replace(minibatch, reference=minibatch.new)
    loss = objective(same, PREFERENCE, torch.tensor(same.new))
    assert loss.measures["preference/accuracy"].tolist() == [0, 0]


@pytest.mark.parametrize("made", MINIBATCHES)
def test_group_dpo_of_a_pair_is_dpo(made):
    minibatch = pairs(made)

    def reading(m: Minibatch, x: np.ndarray, beta: float = 0.7) -> float:
        return (dpo(m, x, 0, 1, beta) + dpo(m, x, 4, 5, beta)) / 2

    loss = assert_reads(minibatch, PREFERENCE, reading)
    right = [dpo(minibatch, minibatch.new, *pair, 0.7) < math.log(2) for pair in ((0, 1), (4, 5))]
    assert loss.measures["preference/accuracy"].tolist() == right
    assert_differs(minibatch, PREFERENCE, lambda m, x: reading(m, x, beta=1.4))
    assert_differs(minibatch, PREFERENCE, lambda m, x: reading(replace(m, reference=np.zeros_like(x)), x))


def test_group_dpo_at_the_reference():
    """log 2, and the gradient raises the chosen sample and lowers the rejected one."""
    minibatch = pairs("draws")
    minibatch = replace(minibatch, new=minibatch.reference)
    leaf = torch.tensor(minibatch.new, requires_grad=True)
    loss = objective(minibatch, PREFERENCE, leaf)
    assert loss.value.item() == pytest.approx(math.log(2))
    (gradient,) = torch.autograd.grad(loss.value, leaf)
    sign = np.sign(gradient.numpy())
    np.testing.assert_array_equal(sign, -minibatch.advantage[minibatch.fields["sample"]])


@pytest.mark.parametrize("made", MINIBATCHES)
def test_spo_clips_the_ratio_to_the_reference(made):
    """SPO's code: log clip(rho_w, 1 - e, 1 + e) - log clip(rho_l, 1 - e, 1 + e), whatever the sign of the advantage."""
    minibatch, clip = pairs(made), 0.3
    options = replace(PREFERENCE, reference_clip=clip)

    def log_ratio(m: Minibatch, x: np.ndarray, s: int) -> float:
        return log_likelihood(m, x, s) - log_likelihood(m, m.reference, s)

    # Of the pairs (0, 1) and (4, 5) these lie within the clip; the others are beyond it, on either side.
    inside = {0: 0.1, 1: 2.0, 4: -3.0, 5: -0.2}
    moved = minibatch.new.copy()
    for s, wanted in inside.items():
        at = minibatch.of(sample=s)
        moved[at] += (wanted - log_ratio(minibatch, moved, s)) / log_likelihood(minibatch, np.ones_like(moved), s)
    minibatch = replace(minibatch, new=moved)

    def reading(m: Minibatch, x: np.ndarray, worse_clipped: bool = True) -> float:
        loss = 0.0
        for chosen, rejected in ((0, 1), (4, 5)):
            better, worse = (
                np.log(np.clip(np.exp(log_ratio(m, x, s)), 1 - clip, 1 + clip)) for s in (chosen, rejected)
            )
            worse = worse if worse_clipped else log_ratio(m, x, rejected)
            loss += math.log1p(math.exp(-0.7 * (better - worse))) / 2
        return loss

    assert_reads(minibatch, options, reading)
    assert_differs(minibatch, options, lambda m, x: reading(m, x, worse_clipped=False))
    assert_differs(minibatch, PREFERENCE, reading)
    leaf = torch.tensor(minibatch.new, requires_grad=True)
    (gradient,) = torch.autograd.grad(objective(minibatch, options, leaf).value, leaf)
    moving = {s: bool(gradient[minibatch.of(sample=s)].abs().max() > 1e-6) for s in inside}
    assert moving == {0: True, 1: False, 4: False, 5: True}


@pytest.mark.parametrize("made", MINIBATCHES)
def test_group_dpo_has_dgpo_s_gradient(made):
    """sigmoid(inside) A grad(loss) with inside = beta / G sum of A (loss - the reference's loss), its own form."""
    minibatch = MINIBATCHES[made](False)
    size = len(LENGTHS) // 2
    dgpo_beta = PREFERENCE.beta * size  # its 1 / G

    def weighted_losses(m: Minibatch, x: np.ndarray, mean: bool = True) -> float:
        total = 0.0
        for group in set(GROUPS):
            members = [s for s in SAMPLES if GROUPS[s] == group]
            gained = sum(
                m.advantage[s] * (log_likelihood(m, m.reference, s) - log_likelihood(m, m.new, s)) for s in members
            )
            inside = dgpo_beta * gained / (size if mean else 1)
            weight = 1 / (1 + math.exp(-inside))
            total += weight * sum(m.advantage[s] * -log_likelihood(m, x, s) for s in members) * PREFERENCE.beta
        return total / len(set(GROUPS))

    leaf = torch.tensor(minibatch.new, requires_grad=True)
    assert_gradient(objective(minibatch, PREFERENCE, leaf).value, leaf, lambda x: weighted_losses(minibatch, x))
    assert_differs(minibatch, PREFERENCE, lambda m, x: weighted_losses(m, x, mean=False))


# Rows that stand for none

CELLS = {
    **{f"ppo_clip-{ratio.name}": clipping(ratio) for ratio in RATIOS},
    "stable_drl": clipping(Ratio.sequence, objective=ObjectiveKind.clip_always, self_normalise=True),
    "linear_bound": clipping(Ratio.sequence, objective=ObjectiveKind.linear_bound),
    "weighted": AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.weighted, anchor=0.1),
    "sandwich": AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.sandwich),
    "group_dpo": PREFERENCE,
    "spo": replace(PREFERENCE, reference_clip=0.3),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("made", MINIBATCHES)
def test_idle_rows_and_the_order_of_rows_change_nothing(made, cell):
    """Idle rows keep ranks in step. Were they to belong to the sample that they repeat, it would count them twice."""
    minibatch, options = MINIBATCHES[made](), CELLS[cell]
    entries = minibatch.entries()
    values = np.split(minibatch.new, np.cumsum([len(entry.recorded) for entry in entries])[:-1])

    def gradient(order: list[int], idle: bool) -> tuple[float, np.ndarray]:
        leaves = [torch.tensor(values[k], requires_grad=True) for k in range(len(values))]
        chosen = [entries[k] for k in order] + ([entries[0].weightless(), entries[3].weightless()] if idle else [])
        log_prob = torch.cat([leaves[k] for k in order] + ([leaves[0], leaves[3]] if idle else []))
        decisions = type(minibatch.decisions()).of(chosen, torch.device("cpu"))
        loss = policy_loss(Scores(log_prob), decisions, options, minibatch.draws, lambda part: part)
        return loss.value.item(), torch.cat(torch.autograd.grad(loss.value, leaves)).numpy()

    straight = list(range(len(entries)))
    shuffled = np.random.default_rng(0).permutation(straight).tolist()
    value, expected = gradient(straight, idle=False)
    for order, idle in ((straight, True), (shuffled, False), (shuffled, True)):
        other, found = gradient(order, idle)
        assert other == pytest.approx(value, rel=1e-9)
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)
