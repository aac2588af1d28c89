"""Reward gradients of an image model: a sample's score is its reward, differentiated through the last denoising steps.

    gradient of E[r(decode(x_0))],   x_0 the end of the chain that the weights draw from fixed noise

It stands where a likelihood stands: maximising the score of every sample with advantage one is what the learner does
with demonstrations too. The published methods differ in which steps carry gradient (`RewardGradientOptions`):

| method | gradient goes through |
|---|---|
| DRaFT-K (arXiv 2309.17400) | the last K steps |
| DRaFT-LV (the same) | the last step of n chains that end in the same picture, averaged |
| AlignProp (arXiv 2310.03739) | the last K steps, K drawn once an update |
| ReFL (ImageReward, arXiv 2304.05977) | one of the late steps; the reward sees the image as estimated there |
| LongAlign (arXiv 2410.11817) | every n-th step, and from there along the latent, past the later networks |
| R0 (arXiv 2503.13070) | the last K steps of chains with an amount of noise that is drawn once an update |
| TextCraftor (arXiv 2403.18978) | the encoded prompt in the last K steps, to the text encoders (`model.train`) |

AlignProp's code detaches the network's outputs before the cut and not the latent. Those latents depend on the weights
through these outputs only, so the gradient is the same, and here those steps run without any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from configs.algorithm_options import Cut, RewardGradientOptions
from models.images.spec import Condition
from rl.algorithm.scored_rows import ScoredRow
from rl.algorithm.scores import Scores
from rl.data.tickets import derive_seed
from rl.likelihood.protocol import OwnDecisions
from rollout.images.guidance import Conditions
from rollout.images.sampler import ImageSampler, Schedule
from rollout.noise import Purpose, normal, uniform
from rollout.trajectory import ImageTrajectory, Trajectory

TotalReward = Callable[[Tensor, list[str], dict[str, list[Any]]], Tensor]
"""(B,) reward of images (B, 3, H, W) in [0, 1], their prompts and dataset columns, differentiable in the images."""


@dataclass(frozen=True, kw_only=True)
class UndrawnTrajectory(ImageTrajectory):
    """What the learner needs to draw a group's images itself: the caption, and the keys of the noise (`uid`)."""

    columns: dict[str, Any]
    """Of the data set, for reward functions."""


def undrawn(
    prompt_id: str,
    caption: str,
    columns: dict[str, Any],
    uids: list[int],
    update: int,
    user: np.ndarray | None = None,
) -> UndrawnTrajectory:
    """A group with a sample for each of the G uids, to be drawn by the weights of `update`."""
    return UndrawnTrajectory(
        ticket=0,
        update=update,
        version=update,
        seed=0,
        prompt_id=prompt_id,
        sampler="drawn by the learner",
        uid=np.array(uids, np.int64),
        logp=np.zeros((len(uids), 1)),
        mask=np.ones((len(uids), 1), bool),
        caption=caption,
        first_step=0,
        levels=np.zeros((0, 3)),
        guided=np.zeros(1, bool),
        user=user,
        columns=columns,
    )


@dataclass(frozen=True)
class Part:
    """Where the gradient of an update goes."""

    steps: tuple[int, ...]
    """Steps of the schedule whose outputs are differentiated, at least one, in order."""
    stop: int
    """Steps that are taken at all."""
    eta: float
    """Amount of noise of the steps."""


@dataclass(frozen=True)
class Sample:
    trajectory: UndrawnTrajectory
    uid: int
    first_noise: int
    part: Part


class ImageRewardGradient(OwnDecisions):
    """The likelihood interface with a reward in it; `draw` is the key of where the gradient is cut."""

    exact = False
    gap_scale = 1.0
    draws = 1
    overlapping = False
    fresh_noise = True

    def __init__(
        self,
        schedule: Schedule,
        options: RewardGradientOptions,
        encode: Callable[[str], Condition],
        decode: Callable[[Tensor], Tensor],
        reward: TotalReward,
        seed: int,
        device: torch.device,
        unconditional_gradient: bool = True,
        weights: Sequence[nn.Parameter] = (),
    ) -> None:
        """
        Args:
            encode: the condition (1, ...) of a caption; differentiated where the text encoders are trained.
            decode: images (B, 3, H, W) in [0, 1] of latents (B, C, h, w), differentiable.
            seed: of the run; decides with the draw where the gradient is cut.
            weights: the trained ones, as they were loaded, which `base_pull` pulls back.
        """
        self.schedule = schedule
        self.options = options
        self.encode = encode
        self.decode = decode
        self.reward = reward
        self.key = torch.tensor(derive_seed(seed, "reward gradient"))
        self.device = device
        self.unconditional_gradient = unconditional_gradient
        self.weights = list(weights) if options.base_pull > 0 else []
        self.base = [weight.detach().clone() for weight in self.weights]

    def rows(self, trajectories: Sequence[Trajectory], draw: int) -> list[ScoredRow]:
        part = self.part(draw)
        rows = []
        for index, trajectory in enumerate(trajectories):
            assert isinstance(trajectory, UndrawnTrajectory)
            for sample, uid in enumerate(trajectory.uid.tolist()):
                first_noise = int(trajectory.uid[0]) if self.schedule.options.same_noise else uid
                content = Sample(trajectory, uid, first_noise, part)
                one, zero = np.ones(1, np.float32), np.zeros(1, int)
                rows.append(ScoredRow(content, index, sample, zero, one, zero, self._tokens(part)))
        return rows

    def part(self, draw: int) -> Part:
        """The same for all samples of an update, so that learners that share weights run as many steps."""
        options, steps = self.options, self.schedule.options.steps
        position, counter = torch.arange(4), torch.tensor(draw)
        for_cut, for_stop, for_offset, for_eta = uniform(self.key, position, counter, Purpose.WINDOW)
        stop = steps
        if options.earliest_stop is not None:
            stop = options.earliest_stop + 1 + int(for_stop * (steps - options.earliest_stop))
        count = options.last_steps
        if options.cut is Cut.uniform:
            count = 1 + int(for_cut * options.last_steps)
        elif options.cut is Cut.gaussian:
            normal_draw = torch.special.ndtri(for_cut.clamp(1e-9, 1 - 1e-9))
            count = max(1, round(options.last_steps + options.cut_std * normal_draw.item()))
        last_steps = range(max(0, stop - count), stop)
        offset = int(for_offset * min(options.every, len(last_steps)))
        eta = self.schedule.options.eta
        if options.least_eta is not None:
            eta = options.least_eta + for_eta.item() * (eta - options.least_eta)
        return Part(tuple(last_steps[offset :: options.every]), stop, eta)

    def _schedule_of(self, part: Part) -> Schedule:
        spec, options = self.schedule.spec, self.schedule.options
        return self.schedule if part.eta == options.eta else Schedule(spec, replace(options, eta=part.eta))

    def prepare(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> None:
        """Nothing: samples are drawn as they are scored."""

    def score(self, model: Callable[..., Tensor], rows: list[ScoredRow]) -> Scores:
        """Rewards of the images that the model draws for the rows; they stand where log-probabilities do."""
        samples: list[Sample] = [row.content for row in rows]
        part, last = samples[0].part, self.schedule.options.steps - 1
        schedule = self._schedule_of(part)
        sampler = ImageSampler(model, schedule, self.device, self.unconditional_gradient)
        conditions = self._conditions([sample.trajectory for sample in samples])
        uids = torch.tensor([sample.uid for sample in samples], device=self.device)

        def output_at(latents: Tensor, step: int) -> Tensor:
            with torch.set_grad_enabled(torch.is_grad_enabled() and step in part.steps):
                return self._output(sampler, conditions, latents, step)

        def follow(latents: Tensor, step: int) -> Tensor:
            output = output_at(latents, step)
            return sampler.advance(latents, output, step, uids if schedule.kernel.stochastic[step] else None)

        with torch.no_grad():
            latents = sampler.start(torch.tensor([sample.first_noise for sample in samples]))
            for step in range(last + 1 if self.options.renoise else part.steps[0]):
                latents = follow(latents, step)
        if self.options.renoise:
            again = [self._renoised(latents, uids, draw) for draw in range(self.options.renoise)]
            rewards = [self._reward(samples, follow(noisy, last)) for noisy in again]
            return self._scores(torch.stack(rewards).mean(0))
        for step in range(part.steps[0], part.stop - 1):
            latents = follow(latents, step)
        step = part.stop - 1
        if step < last:
            output = output_at(latents, step)
            return self._scores(self._reward(samples, schedule.kernel.denoised(latents, output, step)))
        return self._scores(self._reward(samples, follow(latents, last)))

    def _scores(self, rewards: Tensor) -> Scores:
        """The rewards, with the gradient of the pull to the base: of a mean over samples it is counted once."""
        for weight, base in zip(self.weights, self.base, strict=True):
            distance = self.options.base_pull * (weight - base).square().sum()
            rewards = rewards - (distance - distance.detach())
        return Scores(rewards)

    def _output(self, sampler: ImageSampler, conditions: Conditions, latents: Tensor, step: int) -> Tensor:
        if self.options.detach_input:
            latents = latents.detach()
        if self.options.checkpointing and torch.is_grad_enabled():
            return checkpoint(sampler.output, conditions, latents, step, use_reentrant=False)
        return sampler.output(conditions, latents, step)

    def _renoised(self, clean: Tensor, uids: Tensor, draw: int) -> Tensor:
        """(B, C, h, w) the clean latents under fresh noise of the last level before them."""
        level = self.schedule.levels[self.schedule.options.steps - 1]
        noise = normal(uids, self.schedule.shape, draw, Purpose.CORRUPTION)
        return self.schedule.kernel.rounded(level.signal * clean + level.noise * noise)

    def _reward(self, samples: list[Sample], latents: Tensor) -> Tensor:
        """(B,)"""
        if self.options.checkpointing and torch.is_grad_enabled():  # a decoder's activations outweigh the network's
            images = torch.cat([checkpoint(self.decode, row, use_reentrant=False) for row in latents.split(1)])
        else:
            images = self.decode(latents)
        trajectories = [sample.trajectory for sample in samples]
        columns = {name: [each.columns.get(name) for each in trajectories] for name in trajectories[0].columns}
        return self.reward(images, [trajectory.caption for trajectory in trajectories], columns)

    def _conditions(self, trajectories: list[UndrawnTrajectory]) -> Conditions:
        """A caption is encoded once, however many samples it has."""
        captions = dict.fromkeys(trajectory.caption for trajectory in trajectories)
        encoded = {caption: self.encode(caption) for caption in captions}
        empty = None
        if self.schedule.classifier_free:
            empty = Condition.joined([self.encode("")] * len(trajectories), self.device)
        prompts = [encoded[trajectory.caption].of_user(trajectory.user) for trajectory in trajectories]
        return Conditions(Condition.joined(prompts, self.device), empty, self.schedule.embedded_scale)

    def _tokens(self, part: Part) -> int:
        """What a sample's activations take, counted in tokens of one forward, for packing micro-batches."""
        forwards = self.options.renoise or len(part.steps)
        halves = 2 if self.schedule.classifier_free else 1
        return self.schedule.tokens * halves * (1 if self.options.checkpointing else forwards)
