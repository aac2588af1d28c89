"""From finished samples to trajectories: one for each prompt, with the decisions that count marked."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from rollout.options import SamplerOptions
from rollout.text.record import Samples
from rollout.trajectory import TextTrajectory, contract
from rollout.worker import Origin


def to_trajectories(
    samples: Samples,
    origin: Origin,
    prompt_ids: list[str],
    prompts: list[np.ndarray],
    uids: list[int],
    group_size: int,
    options: SamplerOptions,
) -> list[TextTrajectory]:
    """Rows i * G ... (i + 1) * G - 1 of `samples` are the group of prompt i."""
    mask = trained_decisions(samples.reveal, samples.stop_length, options)
    trajectories = []
    for index, (prompt_id, prompt) in enumerate(zip(prompt_ids, prompts, strict=True)):
        rows = slice(index * group_size, (index + 1) * group_size)
        length, rounds = int(samples.canvas_length[rows].max()), int(samples.rounds[rows].max())
        trajectories.append(
            TextTrajectory(
                **asdict(origin),
                prompt_id=prompt_id,
                sampler=contract(options),
                counters={"nfe": float(samples.computed[rows].sum())},
                uid=np.array(uids[rows], np.int64),
                prompt_ids=prompt.astype(np.int32),
                canvas_ids=samples.canvas_ids[rows, :length],
                canvas_length=samples.canvas_length[rows],
                stop_length=samples.stop_length[rows],
                reveal=samples.reveal[rows, :length],
                logp=samples.logp[rows, :length],
                mask=mask[rows, :length],
                support=None if samples.support is None else samples.support[rows, :length],
                proposed_ids=None if samples.proposed_ids is None else samples.proposed_ids[rows, :rounds, :length],
                proposed_logp=None if samples.proposed_logp is None else samples.proposed_logp[rows, :rounds, :length],
            )
        )
    return trajectories


def trained_decisions(reveal: np.ndarray, stop_length: np.ndarray, options: SamplerOptions) -> np.ndarray:
    """(N, L) bool: every kept token, and each token behind the stop that a kept one was conditioned on.

    A tail token revealed before some kept token is an action with consequences; one revealed with or after the last
    kept token cannot change the reward, and training on it would only add variance. When the order looks at the draws,
    the tail tokens of the last round took part in the ranking, so that round counts whole.
    """
    place = np.arange(reveal.shape[1])
    kept = place < stop_length[:, None]
    last_round = np.where(kept, reveal, 0).max(-1, keepdims=True)
    consequential = reveal <= last_round if options.order.depends_on_draw else reveal < last_round
    return (reveal > 0) & (kept | consequential)
