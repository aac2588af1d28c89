"""Rewards of pictures that can be differentiated: what an evaluation scores is what trains.

A reward is one torch function of pictures, marked with `differentiable`:

    @differentiable
    def warmth(images, prompts, **columns):
        return images[:, 0].mean(dim=(1, 2)) - images[:, 2].mean(dim=(1, 2))

`images` is (B, 3, H, W) fp32 in [0, 1]; dataset columns and the term's `args` come as keyword arguments, as for any
other reward; the result is (B,), one number a picture. Networks that it uses belong on `images.device`, with parameters
that ask for no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any

import numpy as np

from rewards.options import RewardTerm
from rewards.picture import picture
from rewards.registry import GIVEN_ANYWAY, RESERVED, RewardError, resolve_term

if TYPE_CHECKING:  # a reward process without such rewards does not wait for torch
    from torch import Tensor


class DifferentiableReward:
    """An ordinary reward function of uint8 pictures that also has its torch original."""

    def __init__(self, of_images: Callable[..., Tensor]) -> None:
        self.of_images = of_images
        """(B,) reward of images (B, 3, H, W) in [0, 1]"""
        update_wrapper(self, of_images)

    def __call__(self, completions: list[np.ndarray], **columns: Any) -> list[float]:
        import torch

        if not completions:
            return []
        pictures = [picture(completion) for completion in completions]
        if len(sizes := {image.shape for image in pictures}) > 1:
            raise ValueError(
                f"pictures of several sizes in one call: {sorted(sizes)}; torch scores those of one size together"
            )
        pixels = torch.from_numpy(np.stack(pictures))
        with torch.no_grad():
            return self.of_images(pixels.permute(0, 3, 1, 2).float() / 255, **columns).tolist()


def differentiable(function: Callable[..., Tensor]) -> DifferentiableReward:
    """Makes a torch function of pictures a reward that can be evaluated and differentiated."""
    return DifferentiableReward(function)


class DifferentiableTotal:
    """The weighted sum of a run's rewards; terms of weight 0 are measures and play no part."""

    def __init__(self, terms: Mapping[str, RewardTerm], unit_gradients: bool = False) -> None:
        """
        Args:
            unit_gradients: each term's gradient in a picture gets length one before it is weighted.

        Raises:
            RewardError: a term cannot be found or differentiated, or none has a weight.
        """
        self.terms = [_Term(name, term, _resolved(name, term)) for name, term in terms.items() if term.weight != 0]
        self.unit_gradients = unit_gradients
        if not self.terms:
            raise RewardError("reward.terms has no term with a weight: there is nothing to differentiate")

    def __call__(self, images: Tensor, prompts: list[str], columns: Mapping[str, list[Any]]) -> Tensor:
        """(B,) total reward of images (B, 3, H, W) in [0, 1], differentiable in them.

        Raises:
            RewardError: a term returned something else than one finite number a picture with a gradient.
        """
        given = {name: column for name, column in columns.items() if name not in GIVEN_ANYWAY}
        values = []
        for term in self.terms:
            of_images = partial(term.score, prompts=prompts, columns=given)
            value = _with_unit_gradient(of_images, images) if self.unit_gradients else of_images(images)
            values.append(term.options.weight * value)
        return sum(values[1:], start=values[0])


@dataclass(frozen=True)
class _Term:
    name: str
    options: RewardTerm
    reward: DifferentiableReward

    def score(self, images: Tensor, prompts: list[str], columns: Mapping[str, list[Any]]) -> Tensor:
        """(B,) without its weight."""
        where = f"reward.terms.{self.name}"
        if clash := sorted({*columns} & {"images", *RESERVED, *self.options.args}):
            raise RewardError(f"dataset column {clash[0]!r} has the name of an argument of {where}; rename it")
        values = self.reward.of_images(images, prompts=prompts, **columns, **self.options.args)
        if tuple(values.shape) != (len(images),):
            raise RewardError(
                f"{where} returned shape {tuple(values.shape)} for {len(images)} pictures, not one number each"
            )
        if images.requires_grad and not values.requires_grad:
            raise RewardError(f"{where} lost the gradient: compute it from `images` with torch operations alone")
        if not values.isfinite().all():
            raise RewardError(f"{where} is not finite: {values.tolist()}")
        return values


def _resolved(name: str, term: RewardTerm) -> DifferentiableReward:
    function = resolve_term(name, term)
    if term.criteria:
        raise RewardError(
            f"reward.terms.{name}.criteria are of a function that returns several scores, and a reward with a gradient "
            f"is one number a picture: leave them out, and write a function for each"
        )
    if isinstance(function, DifferentiableReward):
        return function
    raise RewardError(
        f"reward.terms.{name}.function={term.function} cannot be differentiated: choose brightness, "
        f"digit_log_probability, text_image_similarity, clip_score, pick_score, hps_v2, image_reward or aesthetic, "
        f"mark a torch function of yours with rewards.differentiable.differentiable, or set weight=0 to measure it only"
    )


def _with_unit_gradient(reward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """(B,) the reward's values, with its gradient in each image divided by that gradient's length."""
    import torch

    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        values = reward(leaf)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    lengths = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return values.detach() + (gradient / lengths * (images - images.detach())).flatten(1).sum(1)


@differentiable
def brightness(images: Tensor, **_: Any) -> Tensor:
    """Mean of a picture's pixels: 0 is black, 1 is white."""
    return images.mean(dim=(1, 2, 3))
