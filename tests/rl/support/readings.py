"""What papers write of ratios and likelihoods, read sample by sample off a minibatch of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from configs.algorithm_options import AlgorithmOptions, Ratio
from tests.rl.support.minibatches import LENGTHS, Minibatch, Reading, coupled, drawn, replayed

LOW, HIGH = 0.1, 0.25

SAMPLES = range(len(LENGTHS))

Surrogate = Callable[[float, float], float]
"""(ratio, advantage) -> gain"""


def clipped(ratio: float, advantage: float) -> float:
    """PPO, eq. 7, with the asymmetric clip of DAPO."""
    return min(ratio * advantage, np.clip(ratio, 1 - LOW, 1 + HIGH) * advantage)


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


def clipping(ratio: Ratio, **options) -> AlgorithmOptions:
    return AlgorithmOptions(ratio=ratio, clip=LOW, clip_high=HIGH, **options)


MINIBATCHES = {"replay": replayed, "draws": drawn, "coupled": coupled}
