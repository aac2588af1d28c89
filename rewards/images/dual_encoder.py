"""How well a picture fits its prompt, by a dual encoder of texts and pictures: CLIP or one trained from it.

    s = <e', x>,    e' = e - (1 - share) <e, d> d

x is the picture's embedding and e the prompt's, both of length one; d is the direction that all captions share. Along
it a picture is praised for what any caption praises, which a policy exploits first; LongAlign (arXiv 2410.11817) keeps
a share of 0.3 of it. The embedding of a prompt that is longer than the encoder reads is the mean of its segments'.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewards.differentiable import differentiable
from rewards.images.preprocessing import Preprocessing
from rewards.model_folder import checked_if_ours, written
from rewards.segments import segments

if TYPE_CHECKING:  # torch is imported where it is needed, which is not in most reward processes
    import torch
    from torch import Tensor

CAPTIONS_AT_ONCE = 256
"""Captions that are embedded together for their common direction."""


@differentiable
def text_image_similarity(
    images: Tensor,
    prompts: list[str],
    path: str | None = None,
    common_captions: str | None = None,
    common_share: float = 0.3,
    **_: Any,
) -> Tensor:
    """(B,) similarity of images (B, 3, H, W) in [0, 1] to their prompts, between -1 and 1.

    Args:
        path: folder or hub id of a CLIPModel with its tokenizer and image processor.
        common_captions: text file with a caption a line, a few hundred of the data's or more, whose mean is d; without
            one the similarity is the plain cosine.
        common_share: of the similarity along d that counts.

    Raises:
        ValueError: an argument is missing or wrong.
    """
    if path is None:
        raise ValueError("the reward `text_image_similarity` needs args.path: the folder or hub id of a CLIP model")
    if not 0 <= common_share <= 1:
        raise ValueError(f"the reward `text_image_similarity` has common_share={common_share}; it must lie in [0, 1]")
    encoder = dual_encoder(path, str(images.device))
    texts = encoder.texts(prompts)  # (B, W)
    if common_captions is not None:
        direction = common_direction(path, str(images.device), common_captions)  # (W,)
        texts = texts - (1 - common_share) * (texts @ direction)[:, None] * direction
    return (texts * encoder.pictures(images)).sum(1)


def dual_encoder(path: str, device: str, preprocessing: Preprocessing | None = None) -> DualEncoder:
    """The encoder of a folder as it is now: one that was trained here may be trained anew."""
    return _dual_encoder(path, device, preprocessing, written(path))


@functools.cache
def _dual_encoder(path: str, device: str, preprocessing: Preprocessing | None, written: int) -> DualEncoder:
    return DualEncoder(path, device, preprocessing)


def common_direction(path: str, device: str, captions: str) -> Tensor:
    """(W,) unit length: where the captions' embeddings point on average."""
    return _common_direction(dual_encoder(path, device), captions)


@functools.cache
def _common_direction(encoder: DualEncoder, captions: str) -> Tensor:
    lines = [line.strip() for line in Path(captions).read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"common_captions={captions} has no caption; it needs one a line")
    batches = [lines[first : first + CAPTIONS_AT_ONCE] for first in range(0, len(lines), CAPTIONS_AT_ONCE)]
    total = sum((encoder.texts(batch).sum(0) for batch in batches[1:]), start=encoder.texts(batches[0]).sum(0))
    return total / total.norm()


class DualEncoder:
    """A frozen fp32 CLIPModel of transformers."""

    def __init__(self, path: str, device: str, preprocessing: Preprocessing | None = None) -> None:
        """
        Args:
            preprocessing: how pictures become what the encoder sees; None is `_square` with the image processor's
                numbers.

        Raises:
            ValueError: the checkpoint lacks weights, which the library would draw at random, or sees pictures of
                another size than `preprocessing` makes; or it was trained here and has changed since.
        """
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        checked_if_ours(path, "image")
        loaded: Any = CLIPModel.from_pretrained(path, output_loading_info=True)
        model, report = loaded
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"{path} is no CLIP model: it has no weights for {', '.join(missing[:3])}")
        self.model = model.float().to(device).eval().requires_grad_(False)
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.limit = min(self.tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
        self.size: int = model.config.vision_config.image_size
        self.pixels: Callable[[Tensor], Tensor]
        """(B, 3, size, size) what the encoder sees of images (B, 3, H, W)"""
        if preprocessing is None:
            processor = AutoImageProcessor.from_pretrained(path)
            mean, std = self._per_channel(processor.image_mean), self._per_channel(processor.image_std)
            self.pixels = functools.partial(_square, size=self.size, mean=mean, std=std)
        elif preprocessing.size == self.size:
            self.pixels = preprocessing
        else:
            raise ValueError(
                f"{path} sees pictures of {self.size} x {self.size} pixels, and its preprocessing makes "
                f"{preprocessing.size} x {preprocessing.size}: the weights and the file are not of one model"
            )

    def texts(self, texts: list[str]) -> Tensor:
        """(B, W) embeddings: the mean of a text's segments, each of length one."""
        import torch

        parts = [segments(text, self.fits) for text in texts]
        embeds = self._embedded([segment for part in parts for segment in part])
        return torch.stack([part.mean(0) for part in embeds.split([len(part) for part in parts])])

    def beginnings(self, texts: list[str]) -> Tensor:
        """(B, W) embeddings of length one of as much of each text as the encoder reads, as published."""
        different = list(dict.fromkeys(texts))  # a group asks for the same picture
        embeds = self._embedded(different, truncation=True, max_length=self.limit)
        return embeds[[different.index(text) for text in texts]]

    def _embedded(self, texts: list[str], **limits: Any) -> Tensor:
        """(B, W) of length one."""
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt", **limits)
        embeds = self.model.get_text_features(**tokens.to(self.model.device)).pooler_output
        return embeds / embeds.norm(dim=1, keepdim=True)

    def fits(self, text: str) -> bool:
        return len(self.tokenizer(text).input_ids) <= self.limit

    def pictures(self, images: Tensor) -> Tensor:
        """(B, W) embeddings of length one, differentiable in the images (B, 3, H, W)."""
        return self.seen(self.pixels(images))

    def seen(self, pixels: Tensor) -> Tensor:
        """(B, W) embeddings of length one, of what `pixels` returns."""
        embeds = self.model.get_image_features(pixels).pooler_output
        return embeds / embeds.norm(dim=1, keepdim=True)

    def _per_channel(self, values: list[float]) -> torch.Tensor:
        import torch

        return torch.tensor(values, device=self.model.device).view(1, 3, 1, 1)


def _square(images: Tensor, size: int, mean: Tensor, std: Tensor) -> Tensor:
    """(B, 3, size, size) the middle square, nearly as an image processor makes it: without rounding to bytes."""
    from torch.nn import functional

    height, width = images.shape[-2:]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = images[:, :, top : top + edge, left : left + edge]
    scaled = functional.interpolate(square, (size, size), mode="bicubic", antialias=True)
    return (scaled.clamp(0, 1) - mean) / std
