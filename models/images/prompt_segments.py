"""Prompts that are longer than a text encoder reads, in segments that it does read (LongAlign, arXiv 2410.11817,
section 3.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.images.spec import Condition

SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
PADDING_SHARE = 60 / 77
"""Of an encoded empty text, from its end: the tokens whose mean is the padding. The authors take 60 of CLIP's 77."""


def split(prompt: str, fits: Callable[[str], bool], most: int) -> list[str]:
    """The prompt itself if it fits; else segments that end with a sentence if that makes no more than `most` of them,
    otherwise the fewest that end with a word. A word that does not fit is a segment by itself."""
    if fits(prompt):
        return [prompt]
    sentences = [sentence for sentence in SENTENCE_END.split(prompt) if sentence]
    pieces = [piece for sentence in sentences for piece in ([sentence] if fits(sentence) else sentence.split())]
    by_sentences = _packed(pieces, fits)
    return by_sentences if len(by_sentences) <= most else _packed(prompt.split(), fits)


def joined(segments: Sequence[Condition], lengths: Sequence[int], empty: Tensor, most: int) -> Condition:
    """One condition of the same shape for every prompt:

        <sot> words of segment 1, ..., <sot> words of segment n, padding, ..., padding

    Of the pooled encodings, which tell of a whole text, it is the mean.

    Args:
        segments: embeds (1, T, W) and pooled (1, V) of each.
        lengths: tokens of each, <sot> and <eot> included.
        empty: (1, T, W) embeds of the empty text, out of which the padding is made.
        most: segments that there is room for.

    Returns:
        embeds (1, most T, W), pooled (1, V), fp32.
    """
    told = [part.embeds[:, : length - 1].float() for part, length in zip(segments, lengths, strict=True)]
    tokens = empty.shape[1]
    padding = empty[:, -round(PADDING_SHARE * tokens) :].float().mean(1, keepdim=True)  # (1, 1, W)
    room = most * tokens - sum(part.shape[1] for part in told)
    embeds = torch.cat([*told, padding.expand(-1, room, -1)], 1)
    pooled = [part.pooled.float() for part in segments if part.pooled is not None]
    return Condition(embeds, torch.stack(pooled).mean(0) if pooled else None)


def _packed(pieces: Sequence[str], fits: Callable[[str], bool]) -> list[str]:
    """The fewest texts of neighbouring pieces, filled from the first on."""
    packed: list[str] = []
    for piece in pieces:
        if packed and fits(f"{packed[-1]} {piece}"):
            packed[-1] += f" {piece}"
        else:
            packed.append(piece)
    return packed
