"""An upper bound of the log-likelihood of a masked language model, to go with the denoising loss, a lower one."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def upper_bound(log_prob: Tensor, log_weight: Tensor, unit: Tensor, count: int, draws: int, power: float) -> Tensor:
    """What each position adds to an upper bound of its text's log-likelihood: 1 / b log mean over masks of w p^b.

    This is SPG's evidence upper bound (arXiv 2510.09541, sec. 3; b is its beta). Let p_k be the probability of token k
    when its turn comes in a random order. The likelihood is E[product of p_k] over orders, at most the product of
    E[p_k^b]^(1/b) for b of at least the number L of positions (Hölder's inequality), and E[p_k^b] is the mean, over the
    masks S of `rl.likelihood.masks` with `mask_weight=elbo`, of w(S) 1{k in S} p_k(S)^b. The sum over the positions
    of a text is therefore a bound for b >= L, or >= the size of the blocks where they are revealed one after the other.
    With SPG's own powers, 1 to 2, it is smaller and may fail: for p = (1, 1) in one order and (0, 0) in the other the
    likelihood is 1/2, and b = 1 gives 1/4. The logarithm of a mean over few draws is too low on average, too.

    Args:
        log_prob: (M,) log-probability of each masked token.
        log_weight: (M,) logarithm of its coefficient, see `ScoredRow`.
        unit: (M,) which position of which text it is, in [0, count).
        draws: of the likelihood; how many masks of each text there were.
        power: b, above 0.

    Returns:
        (count,) in the precision of `log_prob`; 0 for a position that no draw masked, which leaves it out of the sum.
    """
    exponent = power * log_prob + log_weight
    peak = exponent.new_full((count,), -torch.inf).scatter_reduce(0, unit, exponent.detach(), "amax")
    total = torch.zeros_like(peak).index_add(0, unit, (exponent - peak[unit]).exp())
    masked = peak > -torch.inf
    log_mean = torch.where(masked, total, 1.0).log() + torch.where(masked, peak, math.log(draws)) - math.log(draws)
    return log_mean / power
