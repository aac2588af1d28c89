"""Reward gradients: each method's gradient is the derivative of what it says, through the steps it says."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.algorithm_options import Cut, RewardGradientOptions
from models.images.checkpoint import load_image_codec, load_image_policy, load_prompt_encoder
from models.images.spec import Condition, ImageSpec
from rewards.differentiable import DifferentiableTotal, brightness
from rewards.options import RewardTerm
from rl.likelihood.image_reward_gradient import ImageRewardGradient, UndrawnTrajectory, undrawn
from rollout.images.guidance import Conditions
from rollout.images.sampler import ImageSampler, Schedule
from rollout.noise import Purpose, normal
from rollout.options import DenoisingOptions, KernelKind
from tests.models.pipelines import image_options
from tests.rl.support.gaussian_images import EPSILON

CPU = torch.device("cpu")
STEPS = 5
DDIM = {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "clip_sample": False, "steps_offset": 1}
SPEC = replace(EPSILON, family="sd", image_size=16, scheduler=DDIM)
UIDS = [3, 4, 5, 6]
ALL = slice(None)


class Scaling(nn.Module):
    """A network with one weight: output = weight * latents."""

    def __init__(self, weight: float = 0.3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, latents: Tensor, *_: Any) -> Tensor:
        return self.weight * latents


def schedule_of(kernel: KernelKind, steps: int = STEPS, spec: ImageSpec = SPEC, **options: Any) -> Schedule:
    return Schedule(spec, DenoisingOptions(steps=steps, kernel=kernel, eta=1.0, **options))


def total_brightness(images: Tensor, prompts: list[str], columns: dict[str, list[Any]]) -> Tensor:
    return brightness.of_images(images)


def blind(caption: str) -> Condition:
    return Condition(torch.zeros(1, 1, 1), None)


def first_channels(latents: Tensor) -> Tensor:
    return latents[:, :3]


def groups(caption: str = "red") -> list[UndrawnTrajectory]:
    return [undrawn("a", caption, {}, UIDS[:2], 0), undrawn("b", caption, {}, UIDS[2:], 0)]


def toy(schedule: Schedule, **options: Any) -> ImageRewardGradient:
    return ImageRewardGradient(
        schedule, RewardGradientOptions(**options), blind, first_channels, total_brightness, 0, CPU
    )


def gradient(scorer: ImageRewardGradient, network: nn.Module, draw: int = 0) -> tuple[float, float]:
    """Mean reward and its derivative by the toy's weight."""
    network.zero_grad()
    value = scorer.score(network, scorer.rows(groups(), draw)).log_prob.mean()
    value.backward()
    assert isinstance(network, Scaling)
    assert network.weight.grad is not None
    return value.item(), network.weight.grad.item()


class Tangent:
    """The toy's chain and its derivative by the weight in fp64, forward: x' = A x + B w x + std z."""

    def __init__(self, schedule: Schedule, weight: float) -> None:
        self.schedule, self.weight = schedule, weight
        self.x = normal(torch.tensor(UIDS), schedule.shape, 0, Purpose.INITIAL).double()
        self.dx = torch.zeros_like(self.x)

    def step(self, step: int, differentiated: bool, estimate: bool = False, detached: bool = False) -> None:
        kernel, one, zero = self.schedule.kernel, torch.ones(1, 1), torch.zeros(1, 1)
        drawn = kernel.stochastic[step] and not estimate
        if estimate:
            a, b = (kernel.denoised(*pair, step).item() for pair in ((one, zero), (zero, one)))
        else:
            noise = zero if drawn else None
            a, b = (kernel.advance(*pair, step, noise).item() for pair in ((one, zero), (zero, one)))
        through_network = 0.0 if detached else b * self.weight
        self.dx = (a + through_network) * self.dx + b * self.x * differentiated
        self.x = (a + b * self.weight) * self.x
        if drawn:
            z = normal(torch.tensor(UIDS), self.schedule.shape, step, Purpose.DIFFUSION)
            self.x = self.x + kernel.std(step) * z

    def reward(self) -> tuple[float, float]:
        return self.x[:, :3].mean().item(), self.dx[:, :3].mean().item()


@pytest.mark.parametrize("kernel", [KernelKind.ode, KernelKind.ddim])
@pytest.mark.parametrize("last_steps", [1, 3, STEPS])
def test_draft_k_differentiates_the_last_k_steps(kernel, last_steps):
    schedule, network = schedule_of(kernel), Scaling()
    tangent = Tangent(schedule, network.weight.item())
    for step in range(STEPS):
        tangent.step(step, differentiated=step >= STEPS - last_steps)
    found = gradient(toy(schedule, last_steps=last_steps), network)
    assert found == pytest.approx(tangent.reward(), rel=1e-4)
    other = gradient(toy(schedule, last_steps=2), network)
    assert other[0] == pytest.approx(found[0], rel=1e-5)
    assert other[1] != pytest.approx(found[1], rel=1e-2)


def test_refl_rewards_the_estimate_at_a_late_step():
    schedule, network = schedule_of(KernelKind.ode), Scaling()
    scorer = toy(schedule, earliest_stop=2)
    seen = {}
    for draw in range(20):
        part = scorer.part(draw)
        assert part.steps == (part.stop - 1,)
        tangent = Tangent(schedule, network.weight.item())
        for step in range(part.stop - 1):
            tangent.step(step, differentiated=False)
        tangent.step(part.stop - 1, differentiated=True, estimate=part.stop < STEPS)
        found = gradient(scorer, network, draw)
        assert found == pytest.approx(tangent.reward(), rel=1e-4)
        seen[part.stop - 1] = found
    assert sorted(seen) == [2, 3, 4]
    assert len(set(seen.values())) == 3


def test_draft_lv_averages_the_last_step_over_fresh_noise():
    schedule, network = schedule_of(KernelKind.ddim), Scaling()
    finished = Tangent(schedule, network.weight.item())
    for step in range(STEPS):
        finished.step(step, differentiated=False)
    level = schedule.levels[STEPS - 1]
    expected = []
    for draw in range(3):
        again = Tangent(schedule, network.weight.item())
        noise = normal(torch.tensor(UIDS), schedule.shape, draw, Purpose.CORRUPTION)
        again.x = level.signal * finished.x + level.noise * noise
        again.step(STEPS - 1, differentiated=True)
        expected.append(again.reward())
    found = gradient(toy(schedule, renoise=3), network)
    assert found == pytest.approx(np.mean(expected, axis=0).tolist(), rel=1e-4)
    assert found[1] != pytest.approx(expected[0][1], rel=1e-3)  # the last level has little noise


def test_long_align_differentiates_some_steps_along_the_latent():
    schedule, network = schedule_of(KernelKind.ddim), Scaling()
    scorer = toy(schedule, last_steps=STEPS, every=2, detach_input=True)
    seen = set()
    for draw in range(10):
        part = scorer.part(draw)
        tangent = Tangent(schedule, network.weight.item())
        for step in range(STEPS):
            tangent.step(step, differentiated=step in part.steps, detached=True)
        assert gradient(scorer, network, draw) == pytest.approx(tangent.reward(), rel=1e-4)
        through = gradient(toy(schedule, last_steps=STEPS, every=2), network, draw)
        assert through[1] != pytest.approx(tangent.reward()[1], rel=1e-2)
        seen.add(part.steps)
    assert seen == {(0, 2, 4), (1, 3)}


def test_detaching_outputs_before_the_cut_is_cutting_the_state():
    """AlignProp's code does the one and DRaFT's the other; the linear path of the latent leads to no weight."""
    schedule, network = schedule_of(KernelKind.ddim), Scaling()
    sampler = ImageSampler(network, schedule, CPU)
    conditions, uids = Conditions(blind(""), None, None), torch.tensor(UIDS)
    latents = sampler.start(uids)
    for step in range(STEPS):
        output = sampler.output(conditions, latents, step)
        if step < STEPS - 2:
            output = output.detach()
        latents = sampler.advance(latents, output, step, uids if schedule.kernel.stochastic[step] else None)
    total_brightness(first_channels(latents), [], {}).mean().backward()
    assert network.weight.grad is not None
    expected = network.weight.grad.item()
    assert gradient(toy(schedule, last_steps=2), network)[1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cut", [Cut.uniform, Cut.gaussian])
def test_the_cut_is_drawn_once_for_an_update(cut):
    scorer = toy(schedule_of(KernelKind.ode, steps=50), last_steps=8, cut=cut, cut_std=2.0)
    rows = [scorer.rows(groups(), draw) for draw in range(400)]
    for update in rows:
        assert len({row.content.part for row in update}) == 1
    counts = [len(update[0].content.part.steps) for update in rows]
    assert {update[0].content.part.stop for update in rows} == {50}
    if cut is Cut.uniform:
        assert set(counts) == set(range(1, 9))
        assert np.mean(counts) == pytest.approx(4.5, abs=5 * math.sqrt(63 / 12 / 400))
    else:
        assert np.mean(counts) == pytest.approx(8, abs=0.5)
        assert np.std(counts) == pytest.approx(math.sqrt(4 + 1 / 12), rel=0.2)
    other = toy(schedule_of(KernelKind.ode, steps=50), last_steps=8, cut=cut, cut_std=2.0)
    assert [other.part(draw) for draw in range(400)] == [update[0].content.part for update in rows]


def test_the_pull_to_the_base_is_in_the_gradient_and_not_in_the_reward():
    schedule, network = schedule_of(KernelKind.ode), Scaling()
    options = RewardGradientOptions(base_pull=0.5)
    pulled = ImageRewardGradient(
        schedule, options, blind, first_channels, total_brightness, 0, CPU, weights=list(network.parameters())
    )
    assert gradient(pulled, network) == gradient(toy(schedule), network)  # nothing has moved yet
    with torch.no_grad():
        network.weight += 0.2
    reward, derivative = gradient(toy(schedule), network)
    assert gradient(pulled, network) == pytest.approx((reward, derivative - 2 * 0.5 * 0.2), rel=1e-5)


def test_the_amount_of_noise_is_drawn_once_an_update():
    schedule, network = schedule_of(KernelKind.ddim), Scaling()
    scorer = toy(schedule, last_steps=STEPS, least_eta=0.4)
    etas = []
    for draw in range(200):
        assert len({row.content.part for row in scorer.rows(groups(), draw)}) == 1
        etas.append(scorer.part(draw).eta)
    assert 0.4 <= min(etas) < 0.42
    assert 0.98 < max(etas) < 1
    assert np.mean(etas) == pytest.approx(0.7, abs=5 * 0.6 / math.sqrt(12 * 200))
    for draw in range(3):
        drawn = Schedule(SPEC, replace(schedule.options, eta=etas[draw]))
        tangent, at_most = Tangent(drawn, network.weight.item()), Tangent(schedule, network.weight.item())
        for step in range(STEPS):
            tangent.step(step, differentiated=True)
            at_most.step(step, differentiated=True)
        found = gradient(scorer, network, draw)
        assert found == pytest.approx(tangent.reward(), rel=1e-4)
        assert found != pytest.approx(at_most.reward(), rel=1e-2)


def test_siblings_may_share_their_first_noise():
    apart, together = (toy(schedule_of(KernelKind.ode, same_noise=same)) for same in (False, True))
    assert [row.content.first_noise for row in apart.rows(groups(), 0)] == [3, 4, 5, 6]
    assert [row.content.first_noise for row in together.rows(groups(), 0)] == [3, 3, 5, 5]


# The same with a real network and a real VAE.


class Real:
    def __init__(self, unet, kernel: KernelKind = KernelKind.ddim, guidance: float = 2.0, **options: Any) -> None:
        model = image_options(unet)
        self.policy = load_image_policy(model)
        self.codec, self.encoder = load_image_codec(model), load_prompt_encoder(model)
        self.schedule = schedule_of(kernel, steps=3, spec=self.policy.spec, guidance=guidance)
        terms = {"brightness": RewardTerm(function="brightness")}
        self.scorer = ImageRewardGradient(
            self.schedule,
            RewardGradientOptions(**options),
            lambda caption: self.encoder.encode([caption]),
            self.codec.pixels,
            DifferentiableTotal(terms),
            0,
            CPU,
        )

    def rewards(self, samples: slice = ALL, caption: str = "red") -> Tensor:
        return self.scorer.score(self.policy, self.scorer.rows(groups(caption), 0)[samples]).log_prob

    def gradient(self, *batches: slice) -> list[Tensor]:
        self.policy.zero_grad()
        for samples in batches:
            (self.rewards(samples).sum() / len(UIDS)).backward()
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.policy.parameters()]


def test_it_draws_the_images_that_a_rollout_draws(unet):
    real = Real(unet)
    uids = torch.tensor(UIDS)
    prompt, empty = (Condition.joined([real.encoder.encode([caption])] * 4, CPU) for caption in ("red", ""))
    conditions = Conditions(prompt, empty, None)
    window = real.schedule.kernel.stochastic_steps
    keys = uids[:, None].expand(-1, real.schedule.options.steps)
    chains = ImageSampler(real.policy, real.schedule, CPU).sample(conditions, keys, uids, window, range(0))
    with torch.no_grad():
        expected = real.codec.pixels(torch.from_numpy(chains.final)).mean((1, 2, 3)).tolist()
        assert real.rewards().tolist() == pytest.approx(expected, abs=2e-6)
        assert real.rewards(caption="blue").tolist() != pytest.approx(expected, abs=2e-5)  # as wide a control


@pytest.mark.parametrize(
    "options",
    [{"last_steps": 3}, {"last_steps": 2}, {"last_steps": 2, "earliest_stop": 1}, {"renoise": 2}],
    ids=str,
)
def test_the_gradient_is_that_of_finite_differences(unet, options):
    """Along the gradient itself, in the weights of the differentiated steps: the other steps keep theirs."""
    real = Real(unet, **options)
    found = real.gradient(ALL)
    norm = math.sqrt(sum(float(g.square().sum()) for g in found))
    moved = load_image_policy(image_options(unet))

    def reward_at(length: float) -> float:
        with torch.no_grad():
            for one, other, g in zip(moved.parameters(), real.policy.parameters(), found, strict=True):
                one.copy_(other + length * g / norm)

        def model(*inputs: Any) -> Tensor:
            return (moved if torch.is_grad_enabled() else real.policy)(*inputs)

        return real.scorer.score(model, real.scorer.rows(groups(), 0)).log_prob.mean().item()

    assert (reward_at(2e-2) - reward_at(-2e-2)) / 4e-2 == pytest.approx(norm, rel=1e-2)


def test_checkpointing_changes_memory_alone(unet):
    plain, kept = Real(unet, last_steps=2), Real(unet, last_steps=2, checkpointing=True)
    for one, other in zip(plain.gradient(ALL), kept.gradient(ALL), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)
    assert kept.scorer.rows(groups(), 0)[0].tokens * 2 == plain.scorer.rows(groups(), 0)[0].tokens


def test_micro_batches_do_not_change_the_gradient(unet):
    real = Real(unet, last_steps=2)
    whole = real.gradient(ALL)
    for batches in ([slice(0, 2), slice(2, 4)], [slice(0, 1), slice(1, 4)]):
        for one, other in zip(whole, real.gradient(*batches), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-8)
    assert any(g.abs().max() > 1e-4 for g in whole)


def test_decoder_and_text_encoder_are_not_trained(unet):
    real = Real(unet, last_steps=3)
    real.gradient(ALL)
    encoder = real.encoder._pipeline.text_encoder
    for frozen in (real.codec.vae, encoder):
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in frozen.parameters())
