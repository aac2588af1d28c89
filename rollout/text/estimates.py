"""What each round of a text took the finished sample to be, as rewards are to see it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from models.text.spec import TextSpec
from rollout.trajectory import TextTrajectory
from rollout.worker import Estimates


def text_estimates(
    trajectories: Sequence[TextTrajectory], spec: TextSpec, max_new_tokens: int, tokenizer: PreTrainedTokenizerBase
) -> Estimates:
    """Of every round but a sample's last, whose estimate is the finished sample.

    Args:
        trajectories: with their proposals.
    """
    ids: list[list[int]] = []
    counts: list[int] = []
    rounds: list[int] = []
    for trajectory in trajectories:
        assert trajectory.proposed_ids is not None
        taken_part = (trajectory.proposed_ids >= 0).any(-1).sum(-1)  # (G,)
        estimates = [trajectory.estimate_at(index) for index in range(1, int(taken_part.max()))]
        for sample, count in enumerate(taken_part.tolist()):
            ids += [_kept(estimate[sample], spec, max_new_tokens) for estimate in estimates[: count - 1]]
            rounds += range(1, count)
            counts.append(count - 1)
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Estimates(texts, counts, ids, {"denoising_rounds": rounds})


def _kept(estimate: np.ndarray, spec: TextSpec, max_new_tokens: int) -> list[int]:
    """Through the first stop token, as a finished sample is cut; a block-causal model has guessed its blocks up to the
    present one only."""
    guessed = estimate[:max_new_tokens]
    ends = np.isin(guessed, spec.stop_ids) | (np.append(guessed[1:], -1) < 0)
    return guessed[: int(ends.argmax()) + 1].tolist()
