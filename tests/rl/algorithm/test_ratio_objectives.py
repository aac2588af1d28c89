"""Objectives of importance ratios against a short reading of their papers' formulas, with a control each."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.algorithm_options import AlgorithmOptions, Denominator, LikelihoodOptions, ObjectiveKind, Ratio
from rl.algorithm.denominators import row_weights
from rl.algorithm.objectives import clipped_ratios
from rl.algorithm.scores import Scores
from rl.likelihood.text import TextReplay
from rollout.options import Order, SamplerOptions
from tests.rl.support.minibatches import (
    LENGTHS,
    Minibatch,
    Reading,
    assert_differs,
    assert_reads,
    coupled,
    objective,
    replayed,
)
from tests.rl.support.readings import (
    HIGH,
    LOW,
    MINIBATCHES,
    RATIOS,
    SAMPLES,
    Surrogate,
    clipped,
    clipping,
    log_likelihood,
    surrogate,
    unclipped,
)
from tests.sampling import prompts_of, roll_out
from tests.tiny import tiny_policy


def dual_clipped(ratio: float, advantage: float) -> float:
    """Ye et al., eq. 5, with c = 1.3."""
    return max(clipped(ratio, advantage), 1.3 * advantage) if advantage < 0 else clipped(ratio, advantage)


def always_clipped(ratio: float, advantage: float) -> float:
    """DPOK's code, StableDRL."""
    return np.clip(ratio, 1 - LOW, 1 + HIGH) * advantage


def self_normalised(gain: Surrogate, ratio: Ratio) -> Reading:
    """StableDRL: divided by the sum of the clipped ratios, through which no gradient flows."""

    def reading(m: Minibatch, x: np.ndarray) -> float:
        divisor = sum(weight * np.clip(r, 1 - LOW, 1 + HIGH) for _, r, weight in RATIOS[ratio](m, m.new))
        return surrogate(gain, ratio)(m, x) / divisor

    return reading


GRID = pytest.mark.parametrize(
    ("made", "by_token", "ratio"),
    list(itertools.product(MINIBATCHES, (True, False), RATIOS)),
)


@GRID
def test_clipped_ratios_of_elements_steps_and_sequences(made, by_token, ratio):
    minibatch = MINIBATCHES[made](by_token)
    loss = assert_reads(minibatch, clipping(ratio), surrogate(clipped, ratio))
    held = loss.measures["ratio/clip_fraction"]
    assert 0 < held.sum() < len(held)
    for other in RATIOS:
        if other is not ratio:
            assert_differs(minibatch, clipping(ratio), surrogate(clipped, other))
    assert_differs(minibatch, clipping(ratio), surrogate(unclipped, ratio))


@pytest.mark.parametrize("by_token", [True, False])
@pytest.mark.parametrize("made", MINIBATCHES)
def test_at_the_old_policy_every_kind_of_ratio_has_the_gradient_of_the_weighted_likelihood(made, by_token):
    """The kind of ratio says what is clipped together, the denominator what counts how much."""
    minibatch = MINIBATCHES[made](by_token)
    minibatch = replace(minibatch, new=minibatch.old)
    linear = clipping(Ratio.sequence, objective=ObjectiveKind.linear_bound)
    weighted = AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.weighted)

    def gradient(options: AlgorithmOptions) -> np.ndarray:
        leaf = torch.tensor(minibatch.new, requires_grad=True)
        return torch.autograd.grad(objective(minibatch, options, leaf).value, leaf)[0].numpy()

    expected = gradient(weighted)
    for options in (*(clipping(ratio) for ratio in RATIOS), linear):
        np.testing.assert_allclose(gradient(options), expected, rtol=1e-6)


def test_sequence_ratio_without_its_length_is_another():
    def unnormalised(m: Minibatch, x: np.ndarray) -> float:
        ratios = [math.exp(log_likelihood(m, x, s) - log_likelihood(m, m.old, s)) for s in SAMPLES]
        return -sum(m.sample_weight(s) * clipped(r, m.advantage[s]) for s, r in zip(SAMPLES, ratios, strict=True))

    assert_differs(replayed(), clipping(Ratio.sequence), unnormalised)


def test_coupled_element_ratio_is_that_of_the_token_estimate():
    """coupled-GRPO (arXiv 2506.20639): the mean of the fully masked log-probability and w times the partial one."""
    minibatch = coupled()

    def reading(m: Minibatch, x: np.ndarray) -> float:
        loss = 0.0
        for s, length in enumerate(LENGTHS):
            half = length // 2
            for d in range(length):
                full, partial = m.of(sample=s, step=0, decision=d)[0], m.of(sample=s, step=1, decision=d)[0]
                w = length / (half if d < half else length - half)
                new, old = (0.5 * (v[full] + w * v[partial]) for v in (x, m.old))
                loss -= clipped(math.exp(new - old), m.advantage[s]) / sum(LENGTHS)
        return loss

    assert_reads(minibatch, clipping(Ratio.element), reading)

    def summed(m: Minibatch, x: np.ndarray) -> float:
        return reading(replace(m, old=2 * m.old), 2 * x)

    assert_differs(minibatch, clipping(Ratio.element), summed)


@GRID
def test_dual_clip_bounds_what_a_bad_sample_can_do(made, by_token, ratio):
    minibatch = MINIBATCHES[made](by_token)
    options = clipping(ratio, dual_clip=1.3)
    assert_reads(minibatch, options, surrogate(dual_clipped, ratio))
    assert_differs(minibatch, options, surrogate(clipped, ratio))
    everywhere = surrogate(lambda r, a: max(clipped(r, a), 1.3 * a), ratio)  # the floor where A > 0, too
    assert_differs(minibatch, options, everywhere)


@GRID
def test_clip_always_and_its_self_normalisation(made, by_token, ratio):
    minibatch = MINIBATCHES[made](by_token)
    options = clipping(ratio, objective=ObjectiveKind.clip_always)
    loss = assert_reads(minibatch, options, surrogate(always_clipped, ratio))
    outside = [not 1 - LOW <= r <= 1 + HIGH for _, r, _ in RATIOS[ratio](minibatch, minibatch.new)]
    assert sorted(loss.measures["ratio/clip_fraction"].tolist()) == sorted(map(float, outside))
    assert_differs(minibatch, options, surrogate(clipped, ratio))
    for objective_kind, gain in ((ObjectiveKind.clip_always, always_clipped), (ObjectiveKind.ppo_clip, clipped)):
        normalised = clipping(ratio, objective=objective_kind, self_normalise=True)
        assert_reads(minibatch, normalised, self_normalised(gain, ratio))


@GRID
def test_the_divisor_of_self_normalisation_is_a_constant_sum(made, by_token, ratio):
    """The learner adds it up over micro-batches before the first gradient."""
    minibatch = MINIBATCHES[made](by_token)
    leaf = torch.tensor(minibatch.new, requires_grad=True)
    found = clipped_ratios(Scores(leaf), minibatch.decisions(), clipping(ratio), minibatch.draws)
    expected = sum(weight * np.clip(r, 1 - LOW, 1 + HIGH) for _, r, weight in RATIOS[ratio](minibatch, minibatch.new))
    assert found.item() == pytest.approx(expected, rel=1e-6)
    assert not found.requires_grad


def test_self_normalisation_divides_by_clipped_ratios_and_not_by_their_number():
    minibatch = replayed()
    minibatch = replace(minibatch, new=minibatch.new + 0.4)  # most ratios at the upper end of the band
    options = clipping(Ratio.element, objective=ObjectiveKind.clip_always, self_normalise=True)
    assert_reads(minibatch, options, self_normalised(always_clipped, Ratio.element))
    leaf = torch.tensor(minibatch.new, requires_grad=True)
    plain = surrogate(always_clipped, Ratio.element)(minibatch, minibatch.new)
    assert abs(objective(minibatch, options, leaf).value.item() / plain - 1) > 0.05


def binary_kl(old: float, new: float) -> float:
    """KL of two coins that show the token or not (DPPO)."""
    p, q = math.exp(old), math.exp(new)
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


@pytest.mark.parametrize("ratio", [Ratio.element, Ratio.step])
def test_trust_region_of_tokens(ratio):
    limit = 0.01
    minibatch = replayed()

    def reading(m: Minibatch, x: np.ndarray, outward: bool = True) -> float:
        loss, units = 0.0, []
        for s in SAMPLES:
            if ratio is Ratio.element:
                units += [(s, [i]) for i in m.of(sample=s)]
            else:
                units += [(s, list(m.of(sample=s, step=step))) for step in m.distinct("step", s)]
        for s, at in units:
            moved = sum(binary_kl(m.old[i], m.new[i]) for i in at)
            r, now = (math.exp(sum(v[i] - m.old[i] for i in at)) for v in (x, m.new))
            held = moved >= limit and ((now - 1) * m.advantage[s] > 0 or not outward)
            loss -= m.weight(s) * (now if held else r) * m.advantage[s]
        return loss

    options = AlgorithmOptions(ratio=ratio, objective=ObjectiveKind.trust_region, clip_kl=limit)
    loss = assert_reads(minibatch, options, reading)
    assert 0 < loss.measures["ratio/clip_fraction"].sum() < len(loss.weight)
    assert_differs(minibatch, options, lambda m, x: reading(m, x, outward=False))
    assert_differs(minibatch, options, surrogate(unclipped, ratio))


@pytest.mark.parametrize("ratio", RATIOS)
def test_importance_of_sampled_parts(ratio):
    """It multiplies the loss of elements and steps; a sequence's log-ratio is estimated with it."""
    minibatch = replayed(importance=2.0)
    assert len(minibatch.new) < sum(LENGTHS)
    assert_reads(minibatch, clipping(ratio), surrogate(clipped, ratio))
    unweighted = replace(minibatch, rows=[replace(one, importance=1.0) for one in minibatch.rows])
    assert_differs(minibatch, clipping(ratio), lambda _, x: surrogate(clipped, ratio)(unweighted, x))


def test_step_weights_of_sampled_parts():
    """Two of N steps with importance N / 2 make a whole sample; without it two would count as all."""
    policy = tiny_policy("llada", words=4)
    sampler = SamplerOptions(order=Order.sequential, max_new_tokens=6)
    trajectories = roll_out(policy, sampler, prompts_of([4], words=3), group_size=4)
    everything = TextReplay(policy.spec, sampler, LikelihoodOptions(), torch.device("cpu")).rows(trajectories, 0)
    counted = 0
    for sample in range(4):
        rows = [one for one in everything if one.sample == sample]
        kept = [replace(one, importance=len(rows) / 2) for one in rows[:2]]
        weights = row_weights(trajectories, kept, Denominator.step, draws=1)
        counted += len(rows) > 2
        assert sum(one.importance * w.sum() for one, w in zip(kept, weights, strict=True)) == pytest.approx(1)
    assert counted > 0
