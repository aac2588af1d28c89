"""Linear layers in a row without anything between them: the heads of the aesthetic predictor and of ImageReward.

Both are published with names `layers.0.weight`, `layers.2.weight` and so on; the numbers that are missing are dropout,
which does nothing here. Activations were left out by their authors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Layers = list[tuple["Tensor", "Tensor"]]
"""Weight (out, in) and bias (out,) of each."""


def linear_layers(state: Mapping[str, Tensor], width: int, device: str, where: str) -> Layers:
    """The layers in their order, in fp32.

    Args:
        state: weights named `layers.N.weight` and `layers.N.bias`.
        width: what the first layer takes.
        where: the file, for the error.

    Raises:
        ValueError: there is another weight, or the layers do not lead from `width` to one number.
    """
    numbers = sorted({int(name.split(".")[1]) for name in state if name.startswith("layers.")})
    expected = {f"layers.{number}.{kind}" for number in numbers for kind in ("weight", "bias")}
    if not numbers or expected != set(state):
        raise ValueError(f"{where} has weights {', '.join(sorted(state)[:6]) or 'none'}, and layers.N.* are expected")
    layers = [(state[f"layers.{n}.weight"].float(), state[f"layers.{n}.bias"].float()) for n in numbers]
    widths = [width, *(len(bias) for _, bias in layers)]
    shapes = [tuple(weight.shape) for weight, _ in layers]
    if shapes != list(zip(widths[1:], widths, strict=False)) or widths[-1] != 1:
        raise ValueError(f"{where} has layers of shapes {shapes}, which do not lead from {width} numbers to one")
    return [(weight.to(device), bias.to(device)) for weight, bias in layers]


def through(layers: Layers, features: Tensor) -> Tensor:
    """(B,) of features (B, width)."""
    from torch.nn import functional

    for weight, bias in layers:
        features = functional.linear(features, weight, bias)
    return features.squeeze(1)
