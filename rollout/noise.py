"""Counter-based randomness: a draw is a pure function of (sample, position, round, purpose).

A sample therefore comes out the same whatever batch, slot or worker it ran in, and nothing has to be saved to run it
again. The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), written
in torch integers because no library offers one key per element on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor

_LOW_32 = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


class Purpose(IntEnum):
    """Streams that must be independent of each other."""

    TOKEN = 0
    ORDER = 1
    CORRUPTION = 2
    INITIAL = 3
    """The pure noise that denoising starts from."""
    DIFFUSION = 4
    """The noise of denoising steps."""
    WINDOW = 5
    """Which denoising steps draw noise and are trained."""
    LEVEL = 6
    """Noise levels of the denoising loss."""
    CONTEXT = 7
    """Which tokens before the scored ones are hidden."""
    PART = 8
    """Which parts of a sample are scored."""


def uniform(uid: Tensor, position: Tensor, round_index: Tensor, purpose: Purpose) -> Tensor:
    """One uniform in [0, 1) with 53 random bits for each element of the broadcast arguments, float64.

    Args:
        uid: 64-bit key of the sample, int64.
        position, round_index: counters, int64 in [0, 2^32).
    """
    uid, position, round_index = torch.broadcast_tensors(uid, position, round_index)
    word = _words(uid, position, round_index, purpose)
    return _fraction(word[0], word[1])


def normal(uid: Tensor, shape: Sequence[int], round_index: int | Tensor, purpose: Purpose) -> Tensor:
    """(N, *shape) fp32 standard normals: element j of sample i depends on uid[i], the round, the purpose and j alone.

    Box and Muller's transform ("A note on the generation of random normal deviates", 1958) of two 53-bit uniforms, all
    four words of one counter, gives the elements 2 k and 2 k + 1. Computed in fp64: a last bit that differs between
    machines or batch shapes is lost in the rounding to fp32.

    Args:
        uid: (N,) 64-bit keys of the samples, int64.
        round_index: counter in [0, 2^32), one or (N,): the denoising step.
    """
    elements = math.prod(shape)
    pair = torch.arange((elements + 1) // 2, device=uid.device)
    step = torch.as_tensor(round_index, device=uid.device).reshape(-1, 1)
    key, position, counter = torch.broadcast_tensors(uid[:, None], pair, step)
    word = _words(key, position, counter, purpose)
    radius = (-2 * torch.log1p(-_fraction(word[0], word[1]))).sqrt()  # 1 - u is never 0
    angle = 2 * math.pi * _fraction(word[2], word[3])
    both = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)
    return both.flatten(1)[:, :elements].float().reshape(-1, *shape)


def _words(uid: Tensor, position: Tensor, round_index: Tensor, purpose: Purpose) -> tuple[Tensor, ...]:
    zero = torch.zeros_like(uid)
    counter = (position & _LOW_32, round_index & _LOW_32, zero + int(purpose), zero)
    return philox(counter, (uid & _LOW_32, (uid >> 32) & _LOW_32))


def _fraction(high: Tensor, low: Tensor) -> Tensor:
    """[0, 1) in fp64 from 53 of the 64 bits."""
    return ((high >> 5) * 2**26 + (low >> 6)).double() * 2.0**-53


def philox(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four 32-bit words (in int64) from a 128-bit counter and a 64-bit key, elementwise."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW_32, (k1 + _KEY_STEPS[1]) & _LOW_32
    return c0, c1, c2, c3


def _multiply(constant: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a 32 x 32 bit product; int64 wraps modulo 2^64, so its bits are those of uint64."""
    product = word * constant
    return (product >> 32) & _LOW_32, product & _LOW_32
