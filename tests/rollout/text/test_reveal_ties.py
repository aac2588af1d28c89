"""Equal scores and equal logits among many: the left one first. A sort that is stable for a few numbers may not be for
more than sixteen, as torch's is with AVX-512 if it is not told to be."""

from __future__ import annotations

import dataclasses

import torch

from rollout.options import Count, SamplerOptions
from rollout.text.reveal import RevealKernel
from tests.rollout.text.test_reveal import SPEC


def test_equal_scores_in_a_wide_block_go_to_the_left():
    options = SamplerOptions(count=Count.quota, rounds_per_block=4)
    score = (torch.arange(96) % 3).float()[None]
    chosen = RevealKernel(options, SPEC).select(
        score, torch.ones(1, 96, dtype=torch.bool), torch.tensor([96]), torch.tensor([0])
    )
    assert chosen[0].nonzero()[:, 0].tolist() == list(range(2, 72, 3))  # 24 of the 32 best


def test_equal_logits_of_a_large_vocabulary_go_to_the_left():
    spec = dataclasses.replace(SPEC, vocab_size=66, tokenizer_size=66, mask_id=64, pad_id=65)
    q = RevealKernel(SamplerOptions(top_p=0.5), spec).process(torch.zeros(1, 66))[0].exp()
    assert q.nonzero()[:, 0].tolist() == list(range(32))
