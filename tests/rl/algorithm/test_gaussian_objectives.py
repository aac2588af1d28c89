"""Objectives that know a step's mean: trust region in nats, exact KL, against readings of their formulas in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from configs.algorithm_options import (
    AlgorithmOptions,
    KlEstimator,
    KlOptions,
    KlTarget,
    LikelihoodOptions,
    ObjectiveKind,
    Ratio,
)
from models.images.prediction import Prediction
from rl.algorithm.gaussian_scores import GaussianScores
from rl.algorithm.objectives import Loss, kl_loss, policy_loss
from rl.likelihood.text import TextReplay
from rollout.images.kernels.gaussian import GaussianSteps
from rollout.noise import Purpose, normal
from rollout.options import KernelKind, Reduction, SamplerOptions
from tests.rl.support.minibatches import LENGTHS, Minibatch, numbers, row
from tests.rollout.images.kernels.schedules import flow
from tests.tiny import tiny_policy

SHAPE = (2, 3, 3)
ELEMENTS = 18
STEPS = np.concatenate([np.arange(length) for length in LENGTHS])
SAMPLES = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
MEANS = (sum(LENGTHS), *SHAPE)


class Chains:
    """Recorded steps of Gaussian kernels: one decision a step, one row each."""

    def __init__(self, reduction: Reduction) -> None:
        self.kernel = GaussianSteps(Prediction.flow, flow(10), KernelKind.flow_sde, 0.7, reduction=reduction)
        self.step = torch.from_numpy(STEPS) + 3
        self.uid = torch.from_numpy(SAMPLES) + 50
        self.std = self.kernel.std(self.step).numpy()[:, None, None, None]
        generator = np.random.default_rng(0)
        noise = normal(self.uid, SHAPE, self.step, Purpose.DIFFUSION)
        self.old_mean = generator.normal(0, 1, MEANS).astype(np.float32)
        self.following = torch.from_numpy(self.old_mean + self.std.astype(np.float32) * noise.numpy())
        size = np.array([0.02, 0.3] * 8)[:, None, None, None]  # of the move: half of the steps stay near
        self.new_mean, self.reference_mean = (
            self.old_mean + size * self.std * generator.normal(0, 1, MEANS) for _ in range(2)
        )
        rows = [row(int(sample), [int(step)], 1.0, int(step)) for sample, step in zip(SAMPLES, STEPS, strict=True)]
        self.minibatch: Minibatch = numbers(rows, 1, True)
        self.minibatch.old[:] = self.log_prob(self.old_mean)
        self.advantage = self.minibatch.advantage[SAMPLES]
        self.weight = 1 / len(STEPS)

    def reduced(self, values: np.ndarray) -> np.ndarray:
        total = values.reshape(len(values), -1).sum(-1)
        return total if self.kernel.reduction is Reduction.sum else total / ELEMENTS

    def log_prob(self, mean: np.ndarray) -> np.ndarray:
        z = (self.following.numpy().astype(np.float64) - mean) / self.std
        return self.reduced(-(z**2) / 2 - np.log(self.std) - 0.5 * np.log(2 * np.pi))

    def nats(self, mean: np.ndarray, other: np.ndarray) -> np.ndarray:
        """(M,) KL of two Gaussians with the same deviation."""
        return (((mean - other) / self.std) ** 2 / 2).reshape(len(mean), -1).sum(-1)

    def scores(self, mean: torch.Tensor) -> GaussianScores:
        return GaussianScores(self.kernel, mean, self.following, self.step, self.uid)

    def assert_reads(self, loss: Callable[[GaussianScores], Loss], reading: Callable[[np.ndarray], float]) -> Loss:
        leaf = torch.tensor(self.new_mean, requires_grad=True)
        found = loss(self.scores(leaf))
        assert found.value.item() == pytest.approx(reading(self.new_mean), rel=1e-5)  # old means come from fp32
        (gradient,) = torch.autograd.grad(found.value, leaf)
        for direction in np.random.default_rng(1).normal(size=(8, *MEANS)):
            slope = (reading(self.new_mean + 1e-5 * direction) - reading(self.new_mean - 1e-5 * direction)) / 2e-5
            assert (gradient.numpy() * direction).sum() == pytest.approx(slope, rel=1e-5, abs=1e-7)
        return found


@pytest.mark.parametrize("reduction", Reduction)
def test_trust_region_of_gaussian_steps_is_in_nats(reduction):
    """Flow-DPPO (image steps): no clip; a step beyond the limit that is moving on teaches nothing."""
    chains, limit = Chains(reduction), 0.1
    moved = chains.nats(chains.new_mean, chains.old_mean)
    ratio = np.exp(chains.log_prob(chains.new_mean) - chains.minibatch.old)
    held = (moved >= limit) & ((ratio - 1) * chains.advantage > 0)
    assert 0 < held.sum() < (moved >= limit).sum() < len(moved)

    def reading(mean: np.ndarray) -> float:
        now = np.exp(chains.log_prob(mean) - chains.minibatch.old)
        return float(-(chains.weight * np.where(held, ratio, now) * chains.advantage).sum())

    options = AlgorithmOptions(objective=ObjectiveKind.trust_region, clip_kl=limit)
    decisions = chains.minibatch.decisions()
    loss = chains.assert_reads(lambda scores: policy_loss(scores, decisions, options, 1, lambda part: part), reading)
    assert loss.measures["ratio/clip_fraction"].tolist() == held.tolist()
    tokens = super(GaussianScores, chains.scores(torch.tensor(chains.new_mean))).divergence_from_old(
        torch.tensor(chains.minibatch.old)
    )  # the control: what categorical decisions do would hold others
    assert (tokens.numpy() >= limit).tolist() != (moved >= limit).tolist()


@pytest.mark.parametrize("to", KlTarget)
@pytest.mark.parametrize("reduction", Reduction)
def test_exact_kl(reduction, to):
    chains = Chains(reduction)
    other = chains.old_mean if to is KlTarget.old else chains.reference_mean
    options = AlgorithmOptions(kl=KlOptions(1.0, to, KlEstimator.exact))
    reference = None if to is KlTarget.old else chains.scores(torch.tensor(chains.reference_mean))
    replay = TextReplay(tiny_policy().spec, SamplerOptions(), LikelihoodOptions(), torch.device("cpu"))  # one draw
    shrink = 1 if reduction is Reduction.sum else ELEMENTS

    def reading(mean: np.ndarray) -> float:
        return float(chains.weight * chains.nats(mean, other).sum() / shrink)

    loss = chains.assert_reads(
        lambda scores: kl_loss(scores, reference, chains.minibatch.decisions(), options, replay), reading
    )
    wrong = chains.reference_mean if to is KlTarget.old else chains.old_mean
    assert abs(loss.value.item() - chains.weight * chains.nats(chains.new_mean, wrong).sum() / shrink) > 0.1 * abs(
        loss.value.item()
    )


@pytest.mark.parametrize("reduction", Reduction)
def test_self_normalised_gaussian_ratios(reduction):
    chains = Chains(reduction)
    options = AlgorithmOptions(
        ratio=Ratio.element, objective=ObjectiveKind.clip_always, self_normalise=True, clip_kl=0.02
    )
    width = 0.2 if reduction is Reduction.sum else 0.2 / ELEMENTS
    at = np.exp(chains.log_prob(chains.new_mean) - chains.minibatch.old)

    def reading(mean: np.ndarray) -> float:
        ratio = np.exp(chains.log_prob(mean) - chains.minibatch.old).clip(1 - width, 1 + width)
        return float(-(ratio * chains.advantage).sum() / at.clip(1 - width, 1 + width).sum())

    decisions = chains.minibatch.decisions()
    chains.assert_reads(lambda scores: policy_loss(scores, decisions, options, 1, lambda part: part), reading)
