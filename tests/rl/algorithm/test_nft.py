"""DiffusionNFT's loss on Gaussian images: where its minimum is, and what its gradient is at the old policy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.algorithm_options import AlgorithmOptions, ObjectiveKind, Ratio
from models.images.prediction import Prediction
from rl.algorithm.decisions import Decisions
from rl.algorithm.denoising_scores import DenoisingScores, nft_loss
from rl.algorithm.objectives import policy_loss
from rollout.images.kernels.corruption import MixingLevels
from rollout.images.kernels.levels import Level
from tests.rl.algorithm.test_objectives import entry

SAMPLES, SPREAD, OFFSET = 2000, 0.5, 0.4
LEVELS = {
    Prediction.flow: Level(700.0, 0.3, 0.7),
    Prediction.epsilon: Level(700.0, 0.6, 0.8),
    Prediction.v: Level(700.0, 0.6, 0.8),
}


class World:
    """Half of the samples are good, with elements around +OFFSET; the others are around -OFFSET. At pure noise x_t says
    nothing about x0, so the old policy's best estimate is 0 for every sample; any other level is used with outputs that
    make it so."""

    def __init__(self, prediction: Prediction, optimality: tuple[float, float] = (1.0, 0.0)) -> None:
        generator = torch.Generator().manual_seed(0)
        good = torch.arange(SAMPLES) % 2 == 0
        centre = torch.where(good, OFFSET, -OFFSET).view(-1, 1, 1, 1)
        self.clean = centre + SPREAD * torch.randn(SAMPLES, 1, 8, 8, generator=generator)
        self.optimality = torch.where(good, *optimality)
        self.level = MixingLevels.of(prediction, [LEVELS[prediction]] * SAMPLES)
        self.latents = torch.randn(SAMPLES, 1, 8, 8, generator=generator)

    def output_for(self, estimate: Tensor | float) -> Tensor:
        """The output that believes in this clean latent."""
        x0 = torch.as_tensor(estimate).expand(self.latents.shape)
        noise = (self.latents - self.level.signal * x0) / self.level.noise
        return self.level.target(x0, noise)

    def scores(self, output: Tensor) -> DenoisingScores:
        return DenoisingScores(torch.zeros(SAMPLES), output, self.latents, self.clean, self.level)

    def slope(self, estimate: float, beta: float) -> tuple[float, float]:
        """Derivative of the mean loss by the policy's estimate, and its standard error."""
        point = torch.tensor(estimate, requires_grad=True)
        each = point.expand(SAMPLES).clone()
        each.retain_grad()
        output = self.output_for(each.view(-1, 1, 1, 1))
        nft_loss(self.scores(output), self.scores(self.output_for(0.0)), self.optimality, beta).sum().backward()
        assert each.grad is not None
        return float(each.grad.mean()), float(each.grad.std() / SAMPLES**0.5)


@pytest.mark.parametrize("prediction", Prediction)
@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0])
def test_the_minimum_is_the_predicted_step(prediction, beta):
    """With alpha = E[r] = 1/2, the pair's good half reaches the good mean: x0 moves by (2 / beta) alpha (good - old) =
    OFFSET / beta, the guidance of the paper's policy optimum."""
    world = World(prediction)
    slope, error = world.slope(OFFSET / beta, beta)
    assert slope == pytest.approx(0.0, abs=4 * error)
    for factor in (0.9, 1.1):  # the controls, on either side
        away, error = world.slope(factor * OFFSET / beta, beta)
        assert (away < -4 * error) if factor < 1 else (away > 4 * error)


@pytest.mark.parametrize("prediction", Prediction)
def test_samples_that_are_all_alike_teach_nothing(prediction):
    slope, error = World(prediction, optimality=(0.5, 0.5)).slope(0.0, 0.3)
    assert slope == pytest.approx(0.0, abs=1e-6)
    reverse, _ = World(prediction, optimality=(0.0, 1.0)).slope(0.0, 0.3)
    forward, error = World(prediction).slope(0.0, 0.3)
    assert forward == pytest.approx(-reverse, abs=4 * error)
    assert forward < -4 * error  # towards the good samples


def gradient(world: World, beta: float, distance: float = 0.0) -> Tensor:
    """Of the summed loss, by the policy's output, at a policy whose estimates are `distance` from the old one's."""
    output = world.output_for(distance).clone().requires_grad_()
    nft_loss(world.scores(output), world.scores(world.output_for(0.0)), world.optimality, beta).sum().backward()
    assert output.grad is not None
    return output.grad


@pytest.mark.parametrize("prediction", Prediction)
def test_beta_does_not_change_the_first_step(prediction):
    world = World(prediction, optimality=(0.8, 0.3))
    first = gradient(world, 1.0)
    for beta in (0.1, 0.5):
        torch.testing.assert_close(gradient(world, beta), first, rtol=1e-4, atol=1e-7)
    assert (gradient(world, 0.1, 0.3) - gradient(world, 1.0, 0.3)).abs().max() > 0.1 * first.abs().max()


@pytest.mark.parametrize("prediction", Prediction)
def test_the_gradient_at_the_old_policy(prediction):
    """2 (2 r - 1) (x0_old - x0) / (D w) times the derivative of the estimate by the output."""
    world = World(prediction, optimality=(0.8, 0.3))
    a, b = LEVELS[prediction].signal, LEVELS[prediction].noise
    derivative = {Prediction.flow: -b / (a + b), Prediction.epsilon: -b / a, Prediction.v: -b}[prediction]
    error = 0.0 - world.clean
    size = error.abs().flatten(1).mean(-1).view(-1, 1, 1, 1)
    weight = (2 * world.optimality - 1).view(-1, 1, 1, 1)
    by_hand = 2 * weight * error / error[0].numel() / size * derivative
    torch.testing.assert_close(gradient(world, 0.4), by_hand, rtol=1e-4, atol=1e-6)


def test_a_perfect_estimate_divides_by_the_floor_and_not_by_zero():
    nothing, level = torch.zeros(2, 1, 8, 8), MixingLevels.of(Prediction.flow, [LEVELS[Prediction.flow]] * 2)
    output = nothing.clone().requires_grad_()
    scores = DenoisingScores(torch.zeros(2), output, nothing, nothing, level)
    loss = nft_loss(scores, scores, torch.tensor([1.0, 0.0]), 1.0)
    loss.sum().backward()
    assert loss.tolist() == [0.0, 0.0]
    assert not output.grad.any()


def test_advantages_become_probabilities_of_being_good():
    """A / 2a + 1/2 with a = 2. At the level (1/2, 1/2) of a flow an output o believes in -o / 2, if it sees nothing.
    With o = -1, an old output of 0, beta 1/2 and clean latents of 1, the errors of the pair are 3/4 and 5/4, and so are
    their squares over their sizes. The loss is (3/4 r + 5/4 (1 - r)) / beta = 5/2 - r, its slope 2 r - 1, all times a.
    """
    advantage, optimality = np.array([-9.0, -1.0, 0.0, 1.5, 9.0], np.float32), np.array([0, 0.25, 0.5, 0.875, 1])
    clean, level = torch.ones(5, 1, 1, 1), MixingLevels.of(Prediction.flow, [Level(500.0, 0.5, 0.5)] * 5)

    def scores(output: Tensor) -> DenoisingScores:
        return DenoisingScores(torch.zeros(5), output, torch.zeros(5, 1, 1, 1), clean, level)

    options = AlgorithmOptions(objective=ObjectiveKind.nft, ratio=Ratio.none, advantage_clip=2.0, beta=0.5)
    decisions = Decisions.of([entry(np.zeros(5), advantage, weight=np.full(5, 0.2))], torch.device("cpu"))
    output = torch.full((5, 1, 1, 1), -1.0, requires_grad=True)
    loss = policy_loss(scores(output), decisions, options, 1, lambda part: part, scores(torch.zeros(5, 1, 1, 1)))
    np.testing.assert_allclose(loss.measures["nft/optimality"], optimality)
    assert loss.value.item() == pytest.approx(2 * (2.5 - optimality).mean())
    (gradient,) = torch.autograd.grad(loss.value, output)
    np.testing.assert_allclose(gradient.flatten(), 2 * (2 * optimality - 1) / 5, rtol=1e-5, atol=1e-7)


def test_the_old_policy_gets_no_gradient():
    world = World(Prediction.flow)
    old = world.output_for(0.0).clone().requires_grad_()
    policy = world.output_for(0.1).clone().requires_grad_()
    nft_loss(world.scores(policy), world.scores(old), world.optimality, 0.5).sum().backward()
    assert old.grad is None
    assert policy.grad is not None
