"""The image rollout worker: a ticket's prompts in, one trajectory a prompt and the decoded images out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from models.images.codec import ImageCodec
from models.images.policy import ImagePolicy
from models.images.prompt_encoder import PromptEncoder
from models.images.spec import Condition, ImagePrompt
from rollout.images.guidance import Conditions
from rollout.images.kernels.window import trained_steps, window_steps
from rollout.images.sampler import Chains, ImageSampler, Schedule
from rollout.images.step_candidates import candidate_steps, draw_candidates
from rollout.options import DenoisingOptions, KernelKind, StepCandidateOptions
from rollout.trajectory import ImageTrajectory, contract
from rollout.worker import Completions, Estimates, RolloutRequest

DECODED_TOGETHER = 64
"""Images whose pixels are on the device at a time."""
ENCODED_CAPTIONS = 256
"""Captions whose encodings a worker keeps."""
Observer = Callable[[int, int, Tensor], None]
"""Sees (first sample of the batch, step, estimate of the batch's clean latents)."""


class ImageRolloutWorker:
    def __init__(self, policy: ImagePolicy, encoder: PromptEncoder, codec: ImageCodec, device: torch.device) -> None:
        self.policy = policy
        self.encoder = encoder
        self.codec = codec
        self.device = device
        self.encoded = lru_cache(maxsize=ENCODED_CAPTIONS)(self._encode)

    def run(
        self, request: RolloutRequest, observe: Observer | None = None
    ) -> tuple[list[ImageTrajectory], Completions, dict[str, float]]:
        assert isinstance(request.sampler, DenoisingOptions)
        if self.policy.prompt_encoder is not None:
            self.encoded.cache_clear()  # by weights that may have been replaced since the last ticket
        started = time.perf_counter()
        if request.candidates is not None:
            return self._run_candidates(request, request.candidates)
        options = request.sampler
        schedule = Schedule(self.policy.spec, options)
        window, trained = _window(schedule, request)
        wanted = request.recording.trajectories
        stored = range(trained[0], trained[-1] + 1) if trained and wanted else range(0)
        seen: dict[tuple[int, int], np.ndarray] = {}
        see = observe
        if request.recording.estimates:

            def see(first: int, step: int, denoised: Tensor) -> None:
                seen[first, step] = denoised.cpu().numpy()
                if observe is not None:
                    observe(first, step, denoised)

        batches = [
            self._sample(request, schedule, window, stored, first, see)
            for first in range(0, len(request.uids), options.samples_per_forward)
        ]
        chains = Chains(*(np.concatenate([getattr(b, field.name) for b in batches]) for field in fields(Chains)))
        trajectories = self._trajectories(request, schedule, chains, stored, trained) if wanted else []
        estimates = self._estimates(seen, window) if seen else None
        completions = Completions(self._decoded(chains.final), estimates=estimates)
        halves = float(chains.computed.sum(0) @ np.where(schedule.guided, 2, 1))
        statistics = {
            "steps": float(options.steps * len(request.uids)),
            "forwards": halves,
            "token_forwards": halves * schedule.tokens,
            "trained_steps": float(len(trained) * len(request.uids)),
            "seconds": time.perf_counter() - started,
        }
        return trajectories, completions, statistics

    def _decoded(self, latents: np.ndarray) -> list[np.ndarray]:
        images: list[np.ndarray] = []
        for batch in torch.from_numpy(latents).split(DECODED_TOGETHER):
            images.extend(self.codec.decode(batch.to(self.device)).cpu().numpy())
        return images

    def _estimates(self, seen: dict[tuple[int, int], np.ndarray], window: tuple[int, ...]) -> Estimates:
        """What the noise of each step led to: the clean image as estimated at the step behind it. Behind the last step
        that draws noise, the ODE leads to the finished image itself.

        Args:
            seen: (n, C, h, w) clean latents by first sample of the batch and step.
        """
        firsts, last = sorted({first for first, _ in seen}), window[-1]
        if last == 0:
            return Estimates([], [0] * sum(len(seen[first, 0]) for first in firsts))
        batches = [np.stack([seen[first, step] for step in range(1, last + 1)], axis=1) for first in firsts]
        clean = np.concatenate(batches)  # (N, last, C, h, w)
        return Estimates(self._decoded(clean.reshape(-1, *clean.shape[2:])), [last] * len(clean))

    def _run_candidates(
        self, request: RolloutRequest, options: StepCandidateOptions
    ) -> tuple[list[ImageTrajectory], Completions, dict[str, float]]:
        """A group for each step: prompts one behind the other, and the steps of each."""
        assert isinstance(request.sampler, DenoisingOptions)
        started = time.perf_counter()
        schedule = Schedule(self.policy.spec, request.sampler)
        sampler = ImageSampler(self.policy, schedule, self.device)
        steps, size = candidate_steps(options, schedule), request.group_size
        trajectories, images, halves = [], [], 0.0
        together = max(1, request.sampler.samples_per_forward // size)
        for first in range(0, len(request.prompts), together):
            prompts = request.prompts[first : first + together]
            empty = self._batch([ImagePrompt("")] * len(prompts)) if schedule.classifier_free else None
            conditions = Conditions(self._batch(list(prompts)), empty, schedule.embedded_scale)
            uids = torch.tensor(request.uids[first * size : (first + len(prompts)) * size]).reshape(-1, size)
            drawn = draw_candidates(sampler, conditions, uids, options)
            halves += drawn.halves
            for prompt, place in np.ndindex(drawn.logp.shape[:2]):
                one = Chains(
                    drawn.clean[prompt, place],
                    drawn.states[prompt, place],
                    drawn.logp[prompt, place][:, None],
                    np.zeros((size, 0), bool),
                )
                stored = range(steps[place], steps[place] + 1)
                at = first + prompt
                trajectories.append(
                    self._trajectory(request, schedule, one, stored, tuple(stored), at, float(drawn.forwards[place]))
                )
            images += self._decoded(drawn.clean.reshape(-1, *drawn.clean.shape[3:]))
        statistics = {
            "steps": float(sum(t.counters["nfe"] for t in trajectories)),
            "forwards": halves,
            "token_forwards": halves * schedule.tokens,
            "trained_steps": float(len(images)),
            "seconds": time.perf_counter() - started,
        }
        return trajectories, Completions(images), statistics

    def _sample(
        self,
        request: RolloutRequest,
        schedule: Schedule,
        window: tuple[int, ...],
        stored: range,
        first: int,
        observe: Observer | None,
    ) -> Chains:
        size = schedule.options.samples_per_forward
        rows = range(first, min(first + size, len(request.uids)))
        prompts = [request.prompts[row // request.group_size] for row in rows]
        empty = self._batch([ImagePrompt("")] * len(rows)) if schedule.classifier_free else None
        conditions = Conditions(self._batch(prompts), empty, schedule.embedded_scale)
        keys = [[request.key(row, step) for step in range(schedule.options.steps)] for row in rows]
        # Siblings that share their first noise have that of the group's first sample.
        first_noise = [
            request.uids[row // request.group_size * request.group_size] if schedule.options.same_noise else key[0]
            for row, key in zip(rows, keys, strict=True)
        ]
        see = None if observe is None else lambda step, denoised: observe(first, step, denoised)
        return ImageSampler(self.policy, schedule, self.device).sample(
            conditions, torch.tensor(keys), torch.tensor(first_noise), window, stored, see
        )

    def _trajectories(
        self,
        request: RolloutRequest,
        schedule: Schedule,
        chains: Chains,
        stored: range,
        trained: tuple[int, ...],
    ) -> list[ImageTrajectory]:
        trajectories = []
        for index in range(len(request.prompts)):
            rows = slice(index * request.group_size, (index + 1) * request.group_size)
            group = Chains(chains.final[rows], chains.latents[rows], chains.logp[rows], chains.computed[rows])
            nfe = float(group.computed.sum())
            trajectories.append(self._trajectory(request, schedule, group, stored, trained, index, nfe))
        return trajectories

    def _trajectory(
        self,
        request: RolloutRequest,
        schedule: Schedule,
        group: Chains,
        stored: range,
        trained: tuple[int, ...],
        prompt: int,
        nfe: float,
    ) -> ImageTrajectory:
        """Of one group of prompt number `prompt`."""
        logp, mask, guided = _decisions(schedule, group, stored, trained)
        empty = self.encoded("") if schedule.classifier_free else None
        asked = request.prompts[prompt]
        condition = self.encoded(asked.caption)
        rows = slice(prompt * request.group_size, (prompt + 1) * request.group_size)
        return ImageTrajectory(
            **asdict(request.origin),
            prompt_id=request.prompt_ids[prompt],
            sampler=contract(schedule.options),
            counters={"nfe": nfe},
            uid=np.array(request.uids[rows], np.int64),
            logp=logp,
            mask=mask,
            caption=asked.caption,
            user=asked.user,
            first_step=stored.start,
            levels=schedule.level_array(),
            guided=guided,
            embeds=_array(condition.embeds),
            pooled=_array(condition.pooled),
            unconditional_embeds=None if empty is None else _array(empty.embeds),
            unconditional_pooled=None if empty is None else _array(empty.pooled),
            latents=group.latents if len(stored) else None,
            final=group.final,
        )

    @torch.no_grad()
    def _encode(self, caption: str) -> Condition:
        """On the CPU: a caption of FLUX takes 8 MB."""
        condition = self.encoder.encode([caption])
        return Condition(condition.embeds.cpu(), None if condition.pooled is None else condition.pooled.cpu())

    def _batch(self, prompts: list[ImagePrompt]) -> Condition:
        """A caption is encoded once, however many samples it has."""
        return Condition.joined([self.encoded(prompt.caption).of_user(prompt.user) for prompt in prompts], self.device)


def _window(schedule: Schedule, request: RolloutRequest) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Steps that draw noise and, of these, the steps that are trained: the same for the whole ticket."""
    options = schedule.options
    if options.kernel is KernelKind.ode:
        return (), ()
    origin = request.origin
    window = window_steps(options.window, schedule.kernel.stochastic_steps, origin.seed, origin.update)
    return window, trained_steps(options.window, window, origin.seed, origin.update)


def _decisions(
    schedule: Schedule, chains: Chains, stored: range, trained: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`logp` (N, D), `mask` (N, D) and `guided` (D,) of the stored steps; without any, the finished image is the one
    decision."""
    count = len(chains.final)
    if not stored:
        return np.zeros((count, 1)), np.ones((count, 1), bool), np.zeros(1, bool)
    mask = np.isin(np.arange(stored.start, stored.stop), trained)
    guided = np.array(schedule.guided, bool)[stored.start : stored.stop]
    return chains.logp, np.tile(mask, (count, 1)), guided


def _array(tensor: Tensor | None) -> np.ndarray | None:
    """Of one prompt, without its batch axis."""
    return None if tensor is None else tensor[0].float().cpu().numpy()
