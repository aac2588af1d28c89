"""How a recorded trace is cut into parts, each of which is scored under the canvas at its start."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from configs.algorithm_options import LikelihoodOptions, Partition


def parts(reveal: np.ndarray, block: np.ndarray, options: LikelihoodOptions, forks: Sequence[int] = ()) -> np.ndarray:
    """(L,) 1-based part of each revealed position, counted within its block; 0 where never revealed.

    Args:
        reveal: (L,) 1-based round, 0 never.
        block: (L,) attention block; one value everywhere for a bidirectional model.
        forks: of the tree that the sample is a leaf of, rounds from 0 (partition=forks).
    """
    part = np.zeros(len(reveal), np.int64)
    for b in np.unique(block):
        inside = (block == b) & (reveal > 0)
        rounds, rank = np.unique(reveal[inside], return_inverse=True)
        if options.partition is Partition.every_step:
            part[inside] = rank + 1
        elif options.partition is Partition.shrink:
            part[inside] = rank // options.shrink + 1
        elif options.partition is Partition.segments:
            part[inside] = rank * options.segments // max(len(rounds), 1) + 1
        elif options.partition is Partition.forks:
            segment = np.searchsorted(forks, reveal[inside] - 1, side="right")
            part[inside] = np.unique(segment, return_inverse=True)[1] + 1
        elif options.partition is Partition.left_to_right:
            part[inside] = np.arange(len(rank)) + 1
        else:
            part[inside] = 1
    return part
