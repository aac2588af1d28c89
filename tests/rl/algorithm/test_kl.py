"""The KL term of every estimator and target against its formula, with a control each."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from configs.algorithm_options import AlgorithmOptions, KlEstimator, KlOptions, KlTarget, LikelihoodOptions, Ratio
from rl.algorithm.objectives import kl_loss
from rl.algorithm.scores import Scores
from rl.likelihood.text import TextReplay
from rollout.options import SamplerOptions
from tests.rl.support.minibatches import LENGTHS, assert_gradient, coupled, drawn
from tests.rl.support.readings import SAMPLES, log_likelihood
from tests.tiny import tiny_policy


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
@pytest.mark.parametrize("ratio", [Ratio.element, Ratio.sequence, Ratio.step, Ratio.none])
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
    if ratio in (Ratio.element, Ratio.sequence):
        assert abs(loss.value.item() - reading(minibatch.new, estimated=False)) > 0.05 * abs(loss.value.item())
