"""Handwritten digits, and classifiers that say how much a picture looks like the digit it should be.

The digits are the 1797 of scikit-learn (8 x 8 pixels, grey; from the UCI Machine Learning Repository). They are split
once and for all into three: what a generator learns from, what the rewarded classifier learns from, and what the
classifier that only measures learns from. A policy that finds the first classifier's mistakes gains nothing from the
second, which is another kind of classifier and has seen other digits.

| classifier | learns from | right on the generator's 900 digits |
|---|---|---|
| `reward`: a perceptron with one hidden layer | 449 digits | 96 % |
| `held_out`: extremely randomised trees | 448 digits | 96 % |
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rewards.differentiable import differentiable
from rewards.picture import picture

if TYPE_CHECKING:  # torch is imported where it is needed, which is not in most reward processes
    from torch import Tensor

SIZE = 32
"""Height and width of a picture."""
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_ENDS = {"train": (0, 900), "reward": (900, 1349), "held_out": (1349, 1797)}
_GRID = 8
"""Height and width of scikit-learn's digits, and of what the classifiers see."""


def digit_images(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of one split, (N, 32, 32, 3) uint8, and which digits they show, (N,) int64.

    Grey values 0 to 16 become 0 to 255, and the 8 x 8 pixels are enlarged bilinearly; the three channels are equal.

    Args:
        split: `train`, 900 digits for generators; `reward` and `held_out`, those that the two classifiers learn from.
    """
    if split not in _ENDS:
        raise ValueError(f"the digits have no split {split!r}: choose {', '.join(_ENDS)}")
    return _splits()[split]


@functools.cache
def _splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))  # the data set is sorted by writer
    images = np.stack([_enlarge(digit) for digit in digits.images[order]])
    labels = digits.target[order].astype(np.int64)
    return {split: (images[start:end], labels[start:end]) for split, (start, end) in _ENDS.items()}


def _enlarge(digit: np.ndarray) -> np.ndarray:
    grey = Image.fromarray(np.rint(digit * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((SIZE, SIZE), Image.Resampling.BILINEAR).convert("RGB"))


def digit_probability(
    completions: list[np.ndarray], digit: list[int | None] | None = None, measure: str = "reward", **_: Any
) -> list[float | None]:
    """The probability that a classifier gives to the digit each picture should show.

    Args:
        digit: N digits, 0 to 9; None for a problem of another data set, which then has no reward here.
        measure: which classifier: `reward`, or `held_out` for a term that only measures.
    """
    if digit is None:
        raise ValueError("the reward `digit_probability` needs a dataset column `digit`: what each picture should show")
    if measure not in ("reward", "held_out"):
        raise ValueError(f"the reward `digit_probability` has no measure {measure!r}: choose reward or held_out")
    if not completions:
        return []
    features = np.stack([_features(picture(completion)) for completion in completions])
    probabilities = classifier(measure).predict_proba(features)
    return [
        None if number is None else float(row[int(number)]) for row, number in zip(probabilities, digit, strict=True)
    ]


@differentiable
def digit_log_probability(images: Tensor, digit: list[int] | None = None, **_: Any) -> Tensor:
    """(B,) logarithm of `digit_probability` with measure=reward, differentiable in images (B, 3, H, W) in [0, 1].

    It sees pixels as they are; the other rounds grey values to bytes.

    Args:
        digit: B digits, 0 to 9.
    """
    import torch
    from torch.nn import functional

    if digit is None:
        raise ValueError("the reward `digit_log_probability` needs a dataset column `digit`")
    if images.shape[-1] % _GRID or images.shape[-2] % _GRID:
        raise ValueError(f"`digit_log_probability` needs a height and width that are multiples of {_GRID} pixels")
    luma = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)  # ITU-R BT.601, as Pillow has it
    grey = (images * luma).sum(1, keepdim=True)  # (B, 1, H, W)
    hidden = functional.adaptive_avg_pool2d(grey, _GRID).flatten(1)  # (B, 64)
    *inner, last = [tuple(layer.to(images) for layer in pair) for pair in _layers()]
    for weight, bias in inner:
        hidden = functional.relu(functional.linear(hidden, weight, bias))
    logits = functional.linear(hidden, *last)  # (B, 10)
    numbers = torch.tensor([int(number) for number in digit], device=images.device)
    return functional.log_softmax(logits, dim=-1).gather(1, numbers[:, None]).squeeze(1)


@functools.cache
def _layers() -> list[tuple[Tensor, Tensor]]:
    """Weight (out, in) and bias (out,) of the rewarded classifier's layers."""
    import torch

    model = classifier("reward")
    pairs = zip(model.coefs_, model.intercepts_, strict=True)
    return [(torch.from_numpy(weight.T.copy()), torch.from_numpy(bias)) for weight, bias in pairs]


@functools.cache
def classifier(measure: str) -> Any:
    """A scikit-learn classifier of `_features`, trained at first use in about a second, the same in every process.

    Args:
        measure: `reward` or `held_out`, the split it learns from.
    """
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    images, labels = digit_images(measure)
    if measure == "reward":
        model: Any = MLPClassifier(hidden_layer_sizes=(64,), max_iter=300, random_state=0)
    else:
        model = ExtraTreesClassifier(n_estimators=300, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 300 passes are enough; see the accuracies above
        return model.fit(np.stack([_features(image) for image in images]), labels)


def _features(image: np.ndarray) -> np.ndarray:
    """(64,) float64 in [0, 1]: the picture in grey, averaged down to 8 x 8 pixels."""
    grey = Image.fromarray(image).convert("L").resize((_GRID, _GRID), Image.Resampling.BOX)
    return np.asarray(grey, np.float64).ravel() / 255
