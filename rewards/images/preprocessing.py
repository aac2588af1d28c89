"""How a picture becomes what a network sees: resized, cropped or padded, and normalised, as the network was published.

A network's score is worth nothing on pictures of another kind than it learned from. The values are those of the
published pipelines, which round to bytes on the way; the gradient is that of the same operations without rounding. So
what is evaluated, what is differentiated and what the authors report is one number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # torch is imported where it is needed, which is not in most reward processes
    from torch import Tensor

CONFIG = "preprocessor_config.json"
BICUBIC = 3
"""Pillow's number of the filter, as image processors have it."""


@dataclass(frozen=True)
class Preprocessing:
    """Bicubic, with antialiasing; the defaults are those of every CLIP from OpenAI and LAION."""

    size: int = 224
    """Height and width of what the network sees, in pixels."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    whole: bool = False
    """The whole picture, on black where it is not square; otherwise its middle square."""
    nearest: bool = False
    """Where an odd number of pixels is cropped: half of it is rounded to the nearest even number, as torchvision does,
    or down, as transformers does."""

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, size, size), normalised, of images (B, 3, H, W) in [0, 1]; differentiable in them."""
        import torch

        seen = self._whole(images) if self.whole else self._middle(images)
        mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (seen - mean) / std

    def _middle(self, images: Tensor) -> Tensor:
        """The shorter edge becomes `size`; Pillow resizes bytes."""
        import torch
        from torch.nn import functional

        height, width = images.shape[-2:]
        tall, wide = self.size * height // min(height, width), self.size * width // min(height, width)
        top, left = self._margin(tall - self.size), self._margin(wide - self.size)
        rows, columns = slice(top, top + self.size), slice(left, left + self.size)
        pixels = (images.detach() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        resized = [Image.fromarray(image).resize((wide, tall), Image.Resampling.BICUBIC) for image in pixels]
        cut = np.stack([np.asarray(image)[rows, columns] for image in resized])
        exact = torch.from_numpy(cut).to(images.device).permute(0, 3, 1, 2).float() / 255
        if not images.requires_grad:
            return exact
        smooth = functional.interpolate(images, (tall, wide), mode="bicubic", antialias=True)[..., rows, columns]
        return _with_gradient(exact, smooth.clamp(0, 1))

    def _margin(self, pixels: int) -> int:
        return round(pixels / 2) if self.nearest else pixels // 2

    def _whole(self, images: Tensor) -> Tensor:
        """The longer edge becomes `size`; torch resizes numbers, which may leave [0, 1]."""
        from torch.nn import functional

        height, width = images.shape[-2:]
        scale = self.size / max(height, width)
        tall, wide = round(height * scale), round(width * scale)
        pixels = _with_gradient((images.detach() * 255).round().clamp(0, 255) / 255, images)
        if (tall, wide) != (height, width):
            pixels = functional.interpolate(pixels, (tall, wide), mode="bicubic", antialias=True)
        down, right = self.size - tall, self.size - wide
        return functional.pad(pixels, [right // 2, right - right // 2, down // 2, down - down // 2])

    def check(self, folder: Path) -> None:
        """Raises ValueError where the checkpoint's own file says something else."""
        said = of_folder(folder)
        differing = [
            f"{field.name}={getattr(said, field.name)} and not {getattr(self, field.name)}"
            for field in fields(self)
            if field.name in ("size", "mean", "std")
            and not _close(getattr(said, field.name), getattr(self, field.name))
        ]
        if differing:
            raise ValueError(
                f"{folder / CONFIG} has {'; '.join(differing)}: it is not the preprocessing that these weights were "
                f"published with. Take the file of the published repository, or set args.preprocessing=folder if your "
                f"weights were trained with it"
            )


def of_folder(folder: Path) -> Preprocessing:
    """What a checkpoint's `preprocessor_config.json` says.

    Raises:
        ValueError: it is not there, or describes something else than a bicubic resize of the shorter edge, a crop of
            the middle and a normalisation.
    """
    file = folder / CONFIG
    if not file.is_file():
        raise ValueError(f"{folder} has no {CONFIG}, which says how its network sees a picture; add the published one")
    config = json.loads(file.read_text(encoding="utf-8"))
    if unknown := list(_foreign(config)):
        raise ValueError(f"{file} has {', '.join(unknown)}, and that is no preprocessing of a CLIP model")
    default = Preprocessing()
    return Preprocessing(
        size=_edge(config.get("crop_size", default.size)) or 0,
        mean=tuple(config.get("image_mean", default.mean)),
        std=tuple(config.get("image_std", default.std)),
    )


def _foreign(config: dict[str, Any]) -> Iterator[str]:
    for step in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        if config.get(step, True) is not True:
            yield f"{step}={config[step]}"
    if config.get("resample", BICUBIC) != BICUBIC:
        yield f"resample={config['resample']}"
    if not _close(config.get("rescale_factor", 1 / 255), 1 / 255):
        yield f"rescale_factor={config['rescale_factor']}"
    size, crop = config.get("size", {"shortest_edge": 224}), config.get("crop_size", 224)
    edge = size.get("shortest_edge") if isinstance(size, dict) else size
    if edge is None or edge != _edge(crop):
        yield f"size={size} and crop_size={crop}"


def _edge(crop: Any) -> int | None:
    """Of a square; None of anything else."""
    if isinstance(crop, dict):
        return crop["height"] if crop.get("height") == crop.get("width") else None
    return int(crop)


def _close(first: Any, second: Any) -> bool:
    return bool(np.allclose(first, second, rtol=1e-6, atol=1e-7))


def _with_gradient(values: Tensor, smooth: Tensor) -> Tensor:
    """The values, to the bit, with the gradient of `smooth`."""
    return values + (smooth - smooth.detach())
