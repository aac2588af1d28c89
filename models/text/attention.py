"""Who may see whom, in one rule for every text model: sampling, cached sampling, replay and training.

Each token carries two integers. Its *block* is its place on the model's block grid (0 everywhere for a bidirectional
model, absolute position // block length for a block-causal one). Its *stream* says which copy of the text it belongs
to: 0 is the clean text, 1, 2, ... are noisy copies of single blocks packed behind it, PADDING is nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

PADDING = -1
CLEAN = 0


def visibility(query_stream: Tensor, query_block: Tensor, key_stream: Tensor, key_block: Tensor) -> Tensor:
    """True where a query may attend to a key.

    A token sees its own block in its own stream, and the clean text of every earlier block. That is full attention when
    all blocks are 0, block-causal attention when there is one stream, and the clean + noisy training mask of block
    diffusion (BD3LM, arXiv 2503.09573, section 3.2) when there are several. Padding sees, and is seen by, padding only.

    Args:
        query_stream, query_block: (B, Q) integers.
        key_stream, key_block: (B, K) integers.

    Returns:
        (B, 1, Q, K) bool, the explicit 4-D mask of transformers' attention.
    """
    query_stream, query_block = query_stream[:, :, None], query_block[:, :, None]  # (B, Q, 1)
    key_stream, key_block = key_stream[:, None, :], key_block[:, None, :]  # (B, 1, K)
    same_block = (query_stream == key_stream) & (query_block == key_block)
    earlier_clean = (key_stream == CLEAN) & (query_stream >= CLEAN) & (key_block < query_block)
    return (same_block | earlier_clean)[:, None]


def block_of(positions: Tensor, block_length: int | None) -> Tensor:
    """Place of absolute positions on the block grid, which starts at position 0 whatever the prompt's length."""
    return torch.zeros_like(positions) if block_length is None else positions // block_length
