"""The colour of an object, as GenEval names it: which of ten colours CLIP ViT-L/14 finds in the picture of the object.

The object is cut out with its mask, on grey, and cropped to its box. A colour's embedding is the mean over three
sentences about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rewards.geneval.rules import COLOURS, Found
from rewards.images.dual_encoder import DualEncoder

if TYPE_CHECKING:
    from torch import Tensor

SENTENCES = ("a photo of a {colour} {kind}", "a photo of a {colour}-colored {kind}", "a photo of a {colour} object")
GROUND = (0x99, 0x99, 0x99)


def colours(encoder: DualEncoder, completion: np.ndarray, objects: Sequence[Found], kind: str) -> list[str]:
    """One colour of each object in the picture (height, width, 3) uint8."""
    import torch

    names = _embeddings(encoder, kind)
    found = []
    for each in objects:
        cut = torch.from_numpy(_cut(completion, each).copy()).to(names.device)
        embedding = encoder.pictures(cut.permute(2, 0, 1)[None].float() / 255)  # (1, W)
        found.append(COLOURS[int((embedding @ names.T).argmax())])
    return found


def _embeddings(encoder: DualEncoder, kind: str) -> Tensor:
    """(10, W) of length one."""
    sentences = [sentence.format(colour=colour, kind=kind) for colour in COLOURS for sentence in SENTENCES]
    means = encoder.beginnings(sentences).view(len(COLOURS), len(SENTENCES), -1).mean(1)
    return means / means.norm(dim=1, keepdim=True)


def _cut(completion: np.ndarray, one: Found) -> np.ndarray:
    """(h, w, 3) uint8: the object on grey."""
    image = Image.fromarray(completion)
    if one.mask is not None:
        image = Image.composite(image, Image.new("RGB", image.size, GROUND), Image.fromarray(one.mask))
    return np.asarray(image.crop(one.box))
