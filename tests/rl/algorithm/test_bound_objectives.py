"""Objectives that bound a likelihood against a short reading of their papers' formulas; that the bounds hold."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.algorithm_options import AlgorithmOptions, ObjectiveKind, Ratio
from configs.compose import compose
from rl.algorithm.decisions import Decisions
from rl.algorithm.objectives import policy_loss
from rl.algorithm.scores import Scores
from rl.likelihood.text import TextElbo
from rollout.options import SamplerOptions
from tests.rl.algorithm.test_objectives import entry
from tests.rl.support.minibatches import (
    LENGTHS,
    Minibatch,
    assert_differs,
    assert_reads,
    drawn,
    numbers,
    objective,
    row,
    with_advantage,
)
from tests.rl.support.readings import SAMPLES, clipped, clipping, log_likelihood, sequence_ratios, surrogate
from tests.sampling import prompts_of, roll_out
from tests.tiny import tiny_policy


@pytest.mark.parametrize("by_token", [True, False])
@pytest.mark.parametrize("blocks", [1, 2])
def test_linear_bounds(blocks, by_token):
    """BGPO, and that both bounds stay below the surrogate they stand for."""
    minibatch = drawn(by_token, blocks=blocks)
    options = clipping(Ratio.sequence, objective=ObjectiveKind.linear_bound)

    def draw_ratios(m: Minibatch, x: np.ndarray, s: int) -> list[float]:
        """x of each term; their mean is the log-ratio of the sample."""
        steps = m.distinct("step", s)
        return [
            len(steps)
            / m.draws
            * sum(m.fields["coefficient"][i] * (x[i] - m.old[i]) for i in m.of(sample=s, step=step))
            / LENGTHS[s]
            for step in steps
        ]

    def gain(m: Minibatch, x: np.ndarray, s: int) -> float:
        a, terms = m.advantage[s], draw_ratios(m, x, s)
        return float(np.mean([clipped(1 + term if a > 0 else math.exp(term), a) for term in terms]))

    def reading(m: Minibatch, x: np.ndarray) -> float:
        return -sum(m.sample_weight(s) * gain(m, x, s) for s in SAMPLES)

    assert_reads(minibatch, options, reading)
    assert_differs(minibatch, options, surrogate(clipped, Ratio.step))
    for scale in (0.5, 1.0, 3.0):
        moved = minibatch.old + scale * (minibatch.new - minibatch.old)
        for s, r, _ in sequence_ratios(minibatch, moved):
            assert math.log(r) == pytest.approx(np.mean(draw_ratios(minibatch, moved, s)))
            assert gain(minibatch, moved, s) <= clipped(r, minibatch.advantage[s]) + 1e-12
            swapped = with_advantage(minibatch, (-minibatch.advantage).tolist())
            assert gain(swapped, moved, s) <= clipped(r, -minibatch.advantage[s]) + 1e-12
    assert (
        max(
            clipped(r, minibatch.advantage[s]) - gain(minibatch, moved, s)
            for s, r, _ in sequence_ratios(minibatch, moved)
        )
        > 1e-3
    )


def test_at_the_old_policy_linear_bounds_are_the_sequence_surrogate():
    """BGPO's second property: on-policy, value and gradient are those of what it bounds."""
    minibatch = drawn(blocks=2)
    minibatch = replace(minibatch, new=minibatch.old)
    options = clipping(Ratio.sequence, objective=ObjectiveKind.linear_bound)
    assert_reads(minibatch, options, surrogate(clipped, Ratio.sequence))


def upper(m: Minibatch, x: np.ndarray, s: int, power: float) -> float:
    """SPG: mean over tokens of 1 / b log mean over draws of w p^b."""
    tokens = []
    for d in m.distinct("decision", s):
        at = m.of(sample=s, decision=d)
        tokens.append(math.log(sum(m.fields["coefficient"][i] * math.exp(power * x[i]) for i in at) / m.draws) / power)
    return float(np.mean(tokens))


@pytest.mark.parametrize("by_token", [True, False])
def test_sandwich(by_token):
    minibatch = drawn(by_token)
    share, power = 0.4, 1.5
    options = AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.sandwich, upper_power=power, upper_share=share)

    def reading(m: Minibatch, x: np.ndarray, negated: bool = False) -> float:
        loss = 0.0
        for s in SAMPLES:
            lower, above = log_likelihood(m, x, s) / LENGTHS[s], upper(m, x, s, power)
            mixed = share * above + (1 - share) * lower
            loss -= m.sample_weight(s) * m.advantage[s] * (lower if (m.advantage[s] > 0) != negated else mixed)
        return loss

    loss = assert_reads(minibatch, options, reading)
    assert (loss.measures["bound/lower"].numpy().shape) == (len(LENGTHS),)
    assert_differs(minibatch, options, lambda m, x: reading(m, x, negated=True))


def any_order_toy(length: int, seed: int) -> tuple[Minibatch, float]:
    """All masks of a text whose token probabilities are drawn at random for each set of masked positions, as draws of
    LLaDA's law (a uniform number m of masked positions, weight L / m); and the text's log-likelihood under a reveal in
    random order, by enumeration."""
    generator = np.random.default_rng(seed)
    table: dict[tuple[int, frozenset], float] = {}
    for size in range(1, length + 1):
        for masked in itertools.combinations(range(length), size):
            for k in masked:
                table[k, frozenset(masked)] = math.log(generator.uniform(0.02, 1.0))
    orders = list(itertools.permutations(range(length)))
    likelihood = np.mean(
        [math.exp(sum(table[k, frozenset(order[place:])] for place, k in enumerate(order))) for order in orders]
    )
    rows, log_prob, draws = [], [], 0
    for size in range(1, length + 1):
        sets = list(itertools.combinations(range(length), size))
        for masked in sets * (math.lcm(*(math.comb(length, m) for m in range(1, length + 1))) // len(sets)):
            rows.append(row(LENGTHS.index(length), list(masked), length / size, draws))
            log_prob += [table[k, frozenset(masked)] for k in masked]
            draws += 1
    minibatch = numbers(rows, draws, True)
    return replace(minibatch, new=np.array(log_prob)), math.log(likelihood)


def test_sandwich_holds_the_log_likelihood():
    """The upper bound is one for powers of at least the number of tokens (Hölder's inequality); with SPG's smaller
    powers it is above the lower bound (Jensen's), but may be below the log-likelihood."""
    length, below = 3, 0
    for seed in range(20):
        minibatch, exact = any_order_toy(length, seed)
        for power in (1.5, float(length)):
            options = AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.sandwich, upper_power=power)
            measures = objective(minibatch, options, torch.tensor(minibatch.new)).measures
            lower, above = (length * measures[name].item() for name in ("bound/lower", "bound/upper"))
            assert lower < exact
            assert lower < above
            assert exact < above or power < length
            below += above < exact
    assert below > 0  # the control: the inequality could have failed


@pytest.mark.parametrize(("draws", "depends"), [(2, True), (1, False)])
def test_the_upper_bound_of_the_recipe_depends_on_its_power(draws, depends):
    """SPG's masks hide a position in several draws. In a single one the power is a constant beside log p."""
    policy = tiny_policy("llada")
    overrides = ["algorithm.likelihood.canvas_block=5", f"algorithm.likelihood.draws={draws}"]
    options = compose(["recipe=quickstart", "algorithm=spg", *overrides]).config.algorithm
    groups = roll_out(policy, SamplerOptions(max_new_tokens=20, block_length=20), prompts_of([3, 4]), group_size=2)
    groups = [replace(group, mask=np.ones_like(group.mask)) for group in groups]
    rows = TextElbo(policy.spec, options.likelihood, options.epochs, torch.device("cpu")).rows(groups, 0)
    assert {row.importance for row in rows} == {4.0}
    entries = [entry(np.zeros(len(row.decision)), -np.ones(len(row.decision)), row=row) for row in rows]
    decisions = Decisions.of(entries, torch.device("cpu"))
    log_prob = -np.random.default_rng(0).exponential(1.0, len(decisions.sample))

    def gradient(power: float) -> np.ndarray:
        leaf = torch.tensor(log_prob, requires_grad=True)
        loss = policy_loss(Scores(leaf), decisions, replace(options, upper_power=power), draws, lambda part: part)
        return torch.autograd.grad(loss.value, leaf)[0].numpy()

    low, high = gradient(1.5), gradient(8.0)
    assert (np.linalg.norm(low - high) > 0.01 * np.linalg.norm(low)) is np.bool_(depends)
