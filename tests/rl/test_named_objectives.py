"""Every named objective against a short reading of its paper's formula, value and gradient, with a control each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.schema import (
    AlgorithmOptions,
    Denominator,
    KlEstimator,
    KlOptions,
    KlTarget,
    LikelihoodOptions,
    ObjectiveKind,
    Ratio,
)
from rl.denominators import row_weights
from rl.objectives import kl_loss, policy_loss
from rl.scores import Scores
from rl.text_likelihood import TextReplay
from rollout.options import Order, SamplerOptions
from tests.rl.minibatches import (
    GROUPS,
    LENGTHS,
    Minibatch,
    Reading,
    assert_differs,
    assert_gradient,
    assert_reads,
    coupled,
    drawn,
    numbers,
    objective,
    replayed,
    row,
    with_advantage,
)
from tests.sampling import prompts_of, roll_out
from tests.tiny import tiny_policy

LOW, HIGH = 0.1, 0.25
SAMPLES = range(len(LENGTHS))
Surrogate = Callable[[float, float], float]
"""(ratio, advantage) -> gain"""


def clipped(ratio: float, advantage: float) -> float:
    """PPO, eq. 7, with the asymmetric clip of DAPO."""
    return min(ratio * advantage, np.clip(ratio, 1 - LOW, 1 + HIGH) * advantage)


def dual_clipped(ratio: float, advantage: float) -> float:
    """Ye et al., eq. 5, with c = 1.3."""
    return max(clipped(ratio, advantage), 1.3 * advantage) if advantage < 0 else clipped(ratio, advantage)


def always_clipped(ratio: float, advantage: float) -> float:
    """DPOK's code, StableDRL."""
    return np.clip(ratio, 1 - LOW, 1 + HIGH) * advantage


def unclipped(ratio: float, advantage: float) -> float:
    return ratio * advantage


def element_ratios(m: Minibatch, x: np.ndarray) -> list[tuple[int, float, float]]:
    """(sample, ratio, weight) of every decision; estimates of one decision are averaged over draws."""
    found = []
    for s in SAMPLES:
        for d in m.distinct("decision", s):
            at = m.of(sample=s, decision=d)
            log_ratio = sum(m.fields["coefficient"][i] * (x[i] - m.old[i]) for i in at) / m.draws
            found.append((s, math.exp(log_ratio), m.weight(s) * m.fields["importance"][at[0]]))
    return found


def step_ratios(m: Minibatch, x: np.ndarray) -> list[tuple[int, float, float]]:
    """The product over the decisions of a step: the ratio of one joint action, which weighs as one decision."""
    found = []
    for s in SAMPLES:
        for step in m.distinct("step", s):
            at = m.of(sample=s, step=step)
            log_ratio = sum(m.fields["coefficient"][i] * (x[i] - m.old[i]) for i in at)
            found.append((s, math.exp(log_ratio), m.weight(s) * m.fields["importance"][at[0]] / m.draws))
    return found


def log_likelihood(m: Minibatch, x: np.ndarray, s: int) -> float:
    """Sum over decisions, mean over draws; each scored part stands for as many as its importance says."""
    terms = m.fields["importance"] * m.fields["coefficient"] * x
    return sum(terms[i] for i in m.of(sample=s)) / m.draws


def sequence_ratios(m: Minibatch, x: np.ndarray) -> list[tuple[int, float, float]]:
    """GSPO, ESPO: the likelihood ratio to the power of one over the length."""
    return [
        (s, math.exp((log_likelihood(m, x, s) - log_likelihood(m, m.old, s)) / LENGTHS[s]), m.sample_weight(s))
        for s in SAMPLES
    ]


RATIOS = {Ratio.element: element_ratios, Ratio.step: step_ratios, Ratio.sequence: sequence_ratios}


def surrogate(gain: Surrogate, ratio: Ratio) -> Reading:
    return lambda m, x: -sum(weight * gain(r, m.advantage[s]) for s, r, weight in RATIOS[ratio](m, x))


def self_normalised(gain: Surrogate, ratio: Ratio) -> Reading:
    """StableDRL: divided by the sum of the clipped ratios, through which no gradient flows."""

    def reading(m: Minibatch, x: np.ndarray) -> float:
        divisor = sum(weight * np.clip(r, 1 - LOW, 1 + HIGH) for _, r, weight in RATIOS[ratio](m, m.new))
        return surrogate(gain, ratio)(m, x) / divisor

    return reading


def clipping(ratio: Ratio, **options) -> AlgorithmOptions:
    return AlgorithmOptions(ratio=ratio, clip=LOW, clip_high=HIGH, **options)


MINIBATCHES = {"replay": replayed, "draws": drawn, "coupled": coupled}
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
    weighted = AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.weighted)

    def gradient(options: AlgorithmOptions) -> np.ndarray:
        leaf = torch.tensor(minibatch.new, requires_grad=True)
        return torch.autograd.grad(objective(minibatch, options, leaf).value, leaf)[0].numpy()

    expected = gradient(weighted)
    for options in (*(clipping(ratio) for ratio in RATIOS), CELLS["linear_bound"]):
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
            weights = loss_weights / loss_weights.sum() - gain / gain.sum()
            loss += sum(w * log_likelihood(m, x, s) for w, s in zip(weights, members, strict=True))
        return loss

    assert_reads(minibatch, options, reading)
    assert_differs(minibatch, options, lambda m, x: -reading(m, x))
    if by_token:
        advantage = [
            sum(LENGTHS)
            * sum(
                sign
                * math.exp(sign * minibatch.advantage[s])
                / sum(math.exp(sign * minibatch.advantage[j]) for j in SAMPLES if GROUPS[j] == GROUPS[s])
                for sign in (1, -1)
            )
            for s in SAMPLES
        ]
        assert_reads(with_advantage(minibatch, advantage), options, lambda _, x: wd1(minibatch, x))


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


# Bounds


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


# Rows that stand for others, and rows that stand for none


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


# KL


def likelihood(draws: int = 1, overlapping: bool = False) -> TextReplay:
    """Any: only how its estimates combine matters here."""
    found = TextReplay(tiny_policy().spec, SamplerOptions(), LikelihoodOptions(), torch.device("cpu"))
    found.draws, found.overlapping = draws, overlapping
    return found


ESTIMATORS = {
    KlEstimator.k1: lambda u: -u,
    KlEstimator.k2: lambda u: u**2 / 2,
    KlEstimator.k3: lambda u: math.exp(u) - 1 - u,
}
"""Of u = log of the other policy minus log of the policy."""


@pytest.mark.parametrize("to", KlTarget)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("ratio", [Ratio.element, Ratio.sequence, Ratio.none])
def test_kl_of_elements_and_of_sequences(ratio, estimator, to):
    """Of each decision; with ratio=sequence of the sample's estimates, then per decision (ESPO: k2 of the sum over the
    length)."""
    minibatch = coupled() if ratio is Ratio.element else drawn()
    overlapping = ratio is Ratio.element
    options = AlgorithmOptions(ratio=ratio, kl=KlOptions(1.0, to, estimator))
    other = minibatch.reference if to is KlTarget.reference else minibatch.old
    kl = ESTIMATORS[estimator]

    def reading(x: np.ndarray, estimated: bool = True) -> float:
        m, total = minibatch, 0.0
        for s in SAMPLES:
            if ratio is Ratio.sequence and estimated:
                gap = log_likelihood(m, other, s) - log_likelihood(m, x, s)
                total += m.sample_weight(s) * kl(gap) / LENGTHS[s]
            elif ratio is Ratio.element and estimated:
                for d in range(LENGTHS[s]):
                    at = m.of(sample=s, decision=d)
                    c = m.fields["coefficient"]
                    total += m.weight(s) * kl(sum(c[i] * (other[i] - x[i]) for i in at) / m.draws)
            else:
                total += m.weight(s) / m.draws * sum(kl(other[i] - x[i]) for i in m.of(sample=s))
        return total

    leaf = torch.tensor(minibatch.new, requires_grad=True)
    reference = Scores(torch.tensor(minibatch.reference)) if to is KlTarget.reference else None
    loss = kl_loss(Scores(leaf), reference, minibatch.decisions(), options, likelihood(minibatch.draws, overlapping))
    assert list(loss.measures) == [f"kl/{to.value}"]
    assert loss.value.item() == pytest.approx(reading(minibatch.new), rel=1e-6)
    assert_gradient(loss.value, leaf, reading)
    if ratio is not Ratio.none:
        assert abs(loss.value.item() - reading(minibatch.new, estimated=False)) > 0.05 * abs(loss.value.item())
