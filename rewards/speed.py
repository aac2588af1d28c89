"""How parallel a text was decoded: the reward that LightningRL adds to the correctness of the answer."""

from __future__ import annotations

from typing import Any


def tokens_per_round(
    completions: list[str], completion_ids: list[list[int]], denoising_rounds: list[int], **_: Any
) -> list[float]:
    """Kept tokens of each completion for each denoising round that it took, 1 and more for a sampler that reveals
    several at once. Short wrong answers are fast too, so it belongs beside a reward of what is said."""
    return [len(ids) / rounds for ids, rounds in zip(completion_ids, denoising_rounds, strict=True)]
