"""Which cells of the grid have the gradient of the expected reward, and how far the others are from it.

Every trace of a small policy is enumerated with its probability. The expectation of a cell's gradient over samples of
that policy is then a sum, with raw rewards as advantages. KL estimators are judged in the same way.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from configs.algorithm_options import (
    AlgorithmOptions,
    KlEstimator,
    KlOptions,
    LikelihoodOptions,
    ObjectiveKind,
    Partition,
    Ratio,
)
from rl.algorithm.decisions import Decisions, Entry
from rl.algorithm.objectives import kl_loss, policy_loss
from rl.algorithm.scores import Scores
from rl.likelihood.text import TextReplay
from rollout.options import Count, Order, SamplerOptions
from tests.rl.likelihood.test_golden_traces import Enumerator, as_trajectory, make_policy

CPU = torch.device("cpu")
FAMILIES = ("sdar", "llada")
SAMPLER = SamplerOptions(order=Order.max_prob, count=Count.quota, rounds_per_block=2, max_new_tokens=3)
EVERY_STEP, ONE_PART = LikelihoodOptions(), LikelihoodOptions(partition=Partition.one)
ELEMENT, STEP, SEQUENCE = (AlgorithmOptions(ratio=ratio) for ratio in (Ratio.element, Ratio.step, Ratio.sequence))
WEIGHTED = AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.weighted)


class World:
    """All traces of a policy."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.policy = make_policy(family)
        self.traces = Enumerator(self.policy, SAMPLER).traces()
        self.trajectory = as_trajectory(self.traces, self.policy, SAMPLER)
        self.probability = torch.stack(list(self.traces.values()))
        self.reward = np.array([np.cos(3.0 * sum(k * t for k, t in enumerate(ids))) for ids, _ in self.traces])

    def gradient(self, value: torch.Tensor) -> torch.Tensor:
        gradients = torch.autograd.grad(value, list(self.policy.parameters()), retain_graph=True, allow_unused=True)
        filled = [
            torch.zeros_like(p) if g is None else g for g, p in zip(gradients, self.policy.parameters(), strict=True)
        ]
        return torch.cat([gradient.flatten() for gradient in filled]).double()

    def policy_gradient(self) -> torch.Tensor:
        """Of minus the expected reward."""
        return self.gradient(-self.probability @ torch.from_numpy(self.reward).float())

    def entries(self, replay: TextReplay) -> list[Entry]:
        """Every trace as one sample, weighing its probability: a sum over them is an expectation."""
        found, probability = [], self.probability.detach().numpy()
        for row in replay.rows([self.trajectory], 0):
            count, sample = len(row.decision), row.sample
            length = int(self.trajectory.mask[sample].sum())
            found.append(
                Entry(
                    row=row,
                    sample=sample,
                    group=0,
                    length=length,
                    weight=np.full(count, probability[sample], np.float32),
                    sample_weight=float(probability[sample]),
                    advantage=np.full(count, self.reward[sample], np.float32),
                    imitated=np.zeros(count, bool),
                    recorded=np.zeros(count, np.float32),
                )
            )
        return found

    def expected_gradient(self, likelihood: LikelihoodOptions, options: AlgorithmOptions) -> torch.Tensor:
        replay = TextReplay(self.policy.spec, SAMPLER, likelihood, CPU)
        entries = self.entries(replay)
        scores = replay.score(self.policy, [entry.row for entry in entries])
        return self.gradient(policy_loss(scores, Decisions.of(entries, CPU), options, 1, lambda part: part).value)


@pytest.fixture(scope="module", params=FAMILIES)
def world(request) -> World:
    return World(request.param)


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def cosine(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(found, exact, dim=0))


def test_all_traces_are_there(world):
    assert world.probability.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("options", [WEIGHTED, ELEMENT, STEP], ids=["weighted", "element", "step"])
def test_replay_of_every_step_is_unbiased(world, options):
    """With a denominator that is the same for all samples, as token and canvas have it."""
    assert relative_error(world.expected_gradient(EVERY_STEP, options), world.policy_gradient()) <= 1e-5


def test_sequence_ratio_weighs_each_sample_by_one_over_its_length(world):
    """Its gradient is the policy gradient of rewards that are divided by the length of their sample."""
    length = world.trajectory.mask.sum(-1)
    assert len(set(length.tolist())) > 1 or world.family == "sdar"
    per_length = copy.copy(world)
    per_length.reward = world.reward / length
    found = world.expected_gradient(EVERY_STEP, SEQUENCE)
    assert relative_error(found, per_length.policy_gradient()) <= 1e-5
    assert relative_error(found, world.policy_gradient()) > 0.1


# (cosine to the policy gradient, relative error) of cells that are not unbiased. Measured.
BIASED = {
    ("sdar", "sequence"): (1.0000, 0.6667),  # all samples have three decisions
    ("sdar", "one part"): (0.9885, 0.4499),
    ("llada", "sequence"): (0.9966, 0.5083),
    ("llada", "one part"): (1.0000, 0.0039),
}
CELLS = {"sequence": (EVERY_STEP, SEQUENCE), "one part": (ONE_PART, ELEMENT)}


@pytest.mark.parametrize("name", CELLS)
def test_bias_of_the_other_cells(world, name):
    found, exact = world.expected_gradient(*CELLS[name]), world.policy_gradient()
    measured = cosine(found, exact), relative_error(found, exact)
    assert measured == pytest.approx(BIASED[world.family, name], abs=1e-3)


# KL

DISTANCE = 0.02


def reference_of(world: World) -> torch.nn.Module:
    found = copy.deepcopy(world.policy)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter += DISTANCE * torch.randn(parameter.shape, generator=generator)
    return found


def kl_of_traces(world: World, frozen: torch.nn.Module) -> torch.Tensor:
    """KL(policy || reference) between the two laws of whole traces, differentiable."""
    reference = Enumerator(frozen, SAMPLER).traces()
    other = torch.stack([reference[key] for key in world.traces]).detach()
    return (world.probability * (world.probability / other).log()).sum()


def expected_kl(world: World, frozen: torch.nn.Module, options: AlgorithmOptions) -> torch.Tensor:
    replay = TextReplay(world.policy.spec, SAMPLER, EVERY_STEP, CPU)
    entries = world.entries(replay)
    rows = [entry.row for entry in entries]
    scores = replay.score(world.policy, rows)
    with torch.no_grad():
        reference = Scores(replay.score(frozen, rows).log_prob)
    return kl_loss(scores, reference, Decisions.of(entries, CPU), options, replay).value


# (mean over the KL, cosine of the gradient's mean to the KL's gradient, its relative error). Measured.
KL = {
    ("sdar", "k2", "element"): (1.3819, 1.0000, 0.0264),
    ("sdar", "k2", "sequence"): (0.4689, 1.0000, 0.6667),
    ("sdar", "k3", "element"): (1.0000, 0.9890, 0.2760),
    ("sdar", "k3", "sequence"): (0.3333, 0.9903, 0.7439),
    ("llada", "k2", "element"): (1.0089, 0.9997, 0.0339),
    ("llada", "k2", "sequence"): (0.4405, 0.9983, 0.5644),
    ("llada", "k3", "element"): (1.0000, 0.9920, 0.1262),
    ("llada", "k3", "sequence"): (0.4254, 0.9834, 0.5760),
}


@pytest.mark.parametrize("ratio", [Ratio.element, Ratio.sequence])
@pytest.mark.parametrize("estimator", [KlEstimator.k2, KlEstimator.k3])
def test_kl_estimators_as_losses(world, estimator, ratio):
    """k3 has the KL as its mean, k2 the KL's gradient as the mean of its own: of whole traces exactly, and of
    decisions but for what they do to later ones. Of sequences both are per decision: a third, for three decisions."""
    frozen = reference_of(world)
    exact = kl_of_traces(world, frozen)
    value = expected_kl(world, frozen, AlgorithmOptions(ratio=ratio, kl=KlOptions(1.0, estimator=estimator)))
    found, slope = world.gradient(value), world.gradient(exact)
    measured = value.item() / exact.item(), cosine(found, slope), relative_error(found, slope)
    assert measured == pytest.approx(KL[world.family, estimator.name, ratio.name], abs=1e-3)
    if (world.family, estimator, ratio) == ("sdar", KlEstimator.k2, Ratio.sequence):
        assert relative_error(3 * found, slope) <= 1e-5


def test_k1_has_the_right_mean_and_no_gradient(world):
    """The mean of its gradient is that of the score function, zero: as a loss it only adds noise."""
    frozen = reference_of(world)
    exact = kl_of_traces(world, frozen)
    value = expected_kl(world, frozen, AlgorithmOptions(kl=KlOptions(1.0, estimator=KlEstimator.k1)))
    assert value.item() == pytest.approx(exact.item(), rel=1e-4)
    assert world.gradient(value).norm() <= 1e-4 * world.gradient(exact).norm()
