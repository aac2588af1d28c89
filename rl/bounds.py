"""An upper bound of a sample's log-likelihood from draws of masks."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def upper_bound(
    log_prob: Tensor, log_weight: Tensor, token: Tensor, sample: Tensor, draws: int, power: float
) -> Tensor:
    """(S,) mean over a sample's tokens of  1 / b  log( 1 / n  sum over draws of  w p^b ),  the upper bound of SPG
    (arXiv 2510.09541). Tokens that no draw has masked are left out.

    Args:
        log_prob: (M,) log p of scored tokens.
        log_weight: (M,) log w, the logarithm of the mask law's weight 1 / t.
        token: (M,) number of the token that is scored; several draws may score one.
        sample: (M,) number of its sample.
        power: b > 1.
    """
    terms = power * log_prob + log_weight
    count = int(token.max()) + 1
    peak = torch.full((count,), -math.inf, dtype=terms.dtype, device=terms.device)
    peak = peak.scatter_reduce(0, token, terms.detach(), "amax")
    total = torch.zeros_like(peak).index_add(0, token, (terms - peak[token]).exp())
    each = (total.log() + peak - math.log(draws)) / power  # (tokens,)
    sample_of = torch.zeros(count, dtype=torch.long, device=token.device).scatter(0, token, sample)
    samples = int(sample.max()) + 1
    summed = torch.zeros(samples, dtype=each.dtype, device=each.device).index_add(0, sample_of, each)
    return summed / torch.bincount(sample_of, minlength=samples)
