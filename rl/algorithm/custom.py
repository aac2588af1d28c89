"""Parts of an algorithm that users bring along: found by their dotted paths, held to their contracts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.algorithm_options import AdvantageKind, AlgorithmOptions, Denominator, ObjectiveKind
from models.parts import PartError, find

if TYPE_CHECKING:
    from torch import Tensor

Advantage = Callable[[np.ndarray], np.ndarray]
"""(G,) rewards of a group, NaN where unscored -> (G,) advantages, NaN where a sample is left out."""
Weighing = Callable[[np.ndarray], tuple[np.ndarray, float]]
"""(G, D) bool mask of a group's trained decisions -> (G, D) weight of each, and the group's share of the divisor: the
loss is the weighted sum over all groups divided by the sum of the shares."""

PARTS = {
    "advantage": (AdvantageKind.custom, AdvantageKind),
    "objective": (ObjectiveKind.custom, ObjectiveKind),
    "denominator": (Denominator.custom, Denominator),
}
"""Option -> its member for parts of users, and its kind."""


def custom_part(options: AlgorithmOptions, name: str) -> Callable[..., Any]:
    """The function behind `algorithm.custom.NAME`.

    Raises:
        PartError: there is none, it is not found, or it cannot be called.
    """
    path = getattr(options.custom, name)
    if path is None:
        raise PartError(
            f"algorithm.{name}=custom is a function of yours: set algorithm.custom.{name} to its dotted path"
        )
    part = find(path, f"algorithm.custom.{name}")
    if not callable(part):
        raise PartError(f"algorithm.custom.{name}={path} is a {type(part).__name__}, which cannot be called")
    return part


def custom_advantages(rewards: np.ndarray, options: AlgorithmOptions) -> tuple[np.ndarray, np.ndarray]:
    """
    Args:
        rewards: (G,), NaN where unscored.

    Returns:
        (G,) float32, 0 where invalid; (G,) bool, valid.

    Raises:
        PartError: the function returned something else than one number or NaN a sample.
    """
    path = options.custom.advantage
    found = np.asarray(custom_part(options, "advantage")(rewards.copy()))
    if found.shape != rewards.shape or found.dtype.kind not in "fiu" or np.isinf(found).any():
        raise PartError(
            f"algorithm.custom.advantage={path} returned {found.dtype} of shape {found.shape} for {len(rewards)} "
            f"rewards: return one finite number each, or NaN to leave the sample out"
        )
    valid = ~np.isnan(found) & ~np.isnan(rewards)
    return np.where(valid, found, 0.0).astype(np.float32), valid


def denominator_of(options: AlgorithmOptions) -> Denominator | Weighing:
    """What `rl.algorithm.denominators` takes."""
    if options.denominator is not Denominator.custom:
        return options.denominator
    part, path = custom_part(options, "denominator"), options.custom.denominator

    def checked(mask: np.ndarray) -> tuple[np.ndarray, float]:
        weights, share = part(mask.copy())
        weights = np.asarray(weights, np.float32)
        if weights.shape != mask.shape or not np.isfinite(weights).all() or not np.isfinite(share) or share < 0:
            raise PartError(
                f"algorithm.custom.denominator={path} returned weights of shape {weights.shape} and share {share} for "
                f"a mask of shape {mask.shape}: return finite weights of that shape and a share of at least 0"
            )
        return np.where(mask, weights, np.float32(0)), float(share)

    return checked


def custom_loss(log_ratio: Tensor, advantage: Tensor, options: AlgorithmOptions) -> Tensor:
    """(U,) loss of each unit, by a function of (log-ratios, advantages, options).

    Args:
        log_ratio: (U,) of each unit to the old policy, differentiable.

    Raises:
        PartError: the function returned something else, or lost the gradient.
    """
    path = options.custom.objective
    each = custom_part(options, "objective")(log_ratio, advantage, options)
    if getattr(each, "shape", None) != log_ratio.shape:
        shape = getattr(each, "shape", type(each).__name__)
        raise PartError(
            f"algorithm.custom.objective={path} returned {shape}: return a tensor of shape {tuple(log_ratio.shape)}"
        )
    if log_ratio.requires_grad and not each.requires_grad:
        raise PartError(
            f"algorithm.custom.objective={path} lost the gradient: compute it from log_ratio with torch operations"
        )
    return each
