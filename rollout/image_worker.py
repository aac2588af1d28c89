"""The image rollout worker: a ticket's captions in, one trajectory a caption and the decoded images out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from models.image import ImagePolicy
from models.image_codec import ImageCodec
from models.image_spec import Condition
from models.prompt_encoder import PromptEncoder
from rollout.guidance import Conditions
from rollout.image_sampler import Chains, ImageSampler, Schedule
from rollout.kernels.window import trained_steps, window_steps
from rollout.options import DenoisingOptions, KernelKind
from rollout.trajectory import ImageTrajectory, contract
from rollout.worker import Completions, RolloutRequest

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
        options = request.sampler
        schedule = Schedule(self.policy.spec, options)
        window, trained = _window(schedule, request)
        stored = range(trained[0], trained[-1] + 1) if trained else range(0)
        batches = [
            self._sample(request, schedule, window, stored, first, observe)
            for first in range(0, len(request.uids), options.samples_per_forward)
        ]
        chains = Chains(*(np.concatenate([getattr(b, name) for b in batches]) for name in ("final", "latents", "logp")))
        trajectories = self._trajectories(request, schedule, chains, stored, trained)
        images = self.codec.decode(torch.from_numpy(chains.final).to(self.device)).cpu().numpy()
        halves = sum(2 if guided else 1 for guided in schedule.guided)
        statistics = {
            "steps": float(options.steps * len(request.uids)),
            "forwards": float(halves * len(request.uids)),
            "token_forwards": float(halves * len(request.uids) * schedule.tokens),
            "trained_steps": float(len(trained) * len(request.uids)),
            "seconds": time.perf_counter() - started,
        }
        return trajectories, Completions(list(images)), statistics

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
        captions = [request.prompts[row // request.group_size] for row in rows]
        empty = self._batch([""] * len(rows)) if schedule.classifier_free else None
        conditions = Conditions(self._batch(captions), empty, schedule.embedded_scale)
        uids = [request.uids[row] for row in rows]
        # Siblings that share their first noise have that of the group's first sample.
        first_noise = [
            request.uids[row // request.group_size * request.group_size] if schedule.options.same_noise else uid
            for row, uid in zip(rows, uids, strict=True)
        ]
        see = None if observe is None else lambda step, denoised: observe(first, step, denoised)
        return ImageSampler(self.policy, schedule, self.device).sample(
            conditions, torch.tensor(uids), torch.tensor(first_noise), window, stored, see
        )

    def _trajectories(
        self,
        request: RolloutRequest,
        schedule: Schedule,
        chains: Chains,
        stored: range,
        trained: tuple[int, ...],
    ) -> list[ImageTrajectory]:
        logp, mask, guided = _decisions(schedule, chains, stored, trained)
        empty = self.encoded("") if schedule.classifier_free else None
        trajectories = []
        for index, (prompt_id, caption) in enumerate(zip(request.prompt_ids, request.prompts, strict=True)):
            rows = slice(index * request.group_size, (index + 1) * request.group_size)
            condition = self.encoded(caption)
            trajectories.append(
                ImageTrajectory(
                    **asdict(request.origin),
                    prompt_id=prompt_id,
                    sampler=contract(schedule.options),
                    counters={"nfe": float(schedule.options.steps * request.group_size)},
                    uid=np.array(request.uids[rows], np.int64),
                    logp=logp[rows],
                    mask=mask[rows],
                    caption=caption,
                    first_step=stored.start,
                    levels=schedule.level_array(),
                    guided=guided,
                    embeds=_array(condition.embeds),
                    pooled=_array(condition.pooled),
                    unconditional_embeds=None if empty is None else _array(empty.embeds),
                    unconditional_pooled=None if empty is None else _array(empty.pooled),
                    latents=chains.latents[rows] if len(stored) else None,
                    final=chains.final[rows],
                )
            )
        return trajectories

    @torch.no_grad()
    def _encode(self, caption: str) -> Condition:
        """On the CPU: a caption of FLUX takes 8 MB."""
        condition = self.encoder.encode([caption])
        return Condition(condition.embeds.cpu(), None if condition.pooled is None else condition.pooled.cpu())

    def _batch(self, captions: list[str]) -> Condition:
        """A caption is encoded once, however many samples it has."""
        return Condition.joined([self.encoded(caption) for caption in captions], self.device)


def _window(schedule: Schedule, request: RolloutRequest) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Steps that draw noise and, of these, the steps that are trained: the same for the whole ticket."""
    options = schedule.options
    if options.kernel is KernelKind.ode:
        return (), ()
    origin = request.origin
    window = window_steps(options.window, schedule.kernel.stochastic_steps, origin.seed, origin.update)
    return window, trained_steps(options.window, window, origin.seed)


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
