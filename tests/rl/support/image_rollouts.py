"""Rollouts of tiny random image policies and their replay."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.algorithm_options import LikelihoodOptions
from models.images.checkpoint import load_image_codec, load_image_policy, load_prompt_encoder
from models.images.policy import ImagePolicy
from models.images.spec import ImagePrompt
from models.options import LoraOptions, Modality, ModelOptions, Precision
from rl.likelihood.image_replay import ImageReplay
from rl.likelihood.protocol import micro_batches
from rollout.images.worker import ImageRolloutWorker
from rollout.options import DenoisingOptions
from rollout.trajectory import ImageTrajectory
from rollout.worker import Completions, Origin, RolloutRequest
from tests.models.pipelines import T5_TOKENS, tiny_pipeline

CPU = torch.device("cpu")
CAPTIONS = ("a dog", "two cats")
GROUP = 4
ADAPTERS = LoraOptions(rank=2, alpha=4.0, target_modules=["to_q", "to_k", "to_v", "to_out.0"])


@lru_cache(maxsize=8)
def pipeline_folder(root: Path, family: str, prediction_type: str = "epsilon") -> Path:
    folder = root / f"{family}-{prediction_type}"
    pipeline = tiny_pipeline(family)
    if prediction_type != "epsilon":
        pipeline.scheduler = type(pipeline.scheduler).from_config(
            pipeline.scheduler.config, prediction_type=prediction_type
        )
    pipeline.save_pretrained(folder)
    return folder


def worker_of(folder: Path, **changes: Any) -> ImageRolloutWorker:
    options = ModelOptions(
        path=str(folder),
        modality=Modality.image,
        max_sequence_length=T5_TOKENS,
        **{"precision": Precision.fp32, **changes},
    )
    policy, encoder = load_image_policy(options), load_prompt_encoder(options)
    return ImageRolloutWorker(policy, encoder, load_image_codec(options), CPU)


def roll_out(
    worker: ImageRolloutWorker,
    options: DenoisingOptions,
    captions: tuple[str, ...] = CAPTIONS,
    first_uid: int = 1000,
    users: Iterable[np.ndarray | None] = repeat(None),
) -> tuple[list[ImageTrajectory], Completions]:
    request = RolloutRequest(
        origin=Origin(ticket=3, update=1, version=1, seed=77),
        prompt_ids=tuple(f"p{index}" for index in range(len(captions))),
        prompts=tuple(map(ImagePrompt, captions, users)),
        uids=tuple(range(first_uid, first_uid + GROUP * len(captions))),
        sampler=options,
    )
    trajectories, completions, _ = worker.run(request)
    return trajectories, completions


def replayed(
    policy: ImagePolicy,
    trajectories: list[ImageTrajectory],
    options: DenoisingOptions,
    max_tokens: int = 10**6,
    likelihood: LikelihoodOptions | None = None,
) -> list[np.ndarray]:
    """(G, D) recomputed log-probabilities of each trajectory; NaN where not trained."""
    replay = ImageReplay(policy.spec, options, likelihood or LikelihoodOptions(), CPU)
    values = [np.full(t.logp.shape, np.nan) for t in trajectories]
    with torch.no_grad():
        for batch in micro_batches(replay.rows(trajectories, 0), max_tokens):
            scores = replay.score(policy, batch).log_prob.numpy()
            for row, score in zip(batch, scores, strict=True):
                values[row.trajectory][row.sample, row.decision] = score
    return values


def largest_gap(trajectories: list[ImageTrajectory], values: list[np.ndarray]) -> float:
    return max(float(np.abs(t.logp - v)[t.mask].max()) for t, v in zip(trajectories, values, strict=True))
