"""Objects in pictures by Mask2Former, as GenEval has them from mmdetection: here with the class of transformers.

The steps before and after the network are mmdetection's: bilinear to 800 pixels of the shorter edge (at most 1333 of
the longer), ImageNet's mean and deviation, zeros up to a multiple of 32; then the 100 surest pairs of a query and a
kind, each as sure as its kind times the mean of its mask's inside.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rewards.geneval.rules import OBJECTS, Found
from rewards.picture import picture

if TYPE_CHECKING:  # torch is imported where it is needed, which is not in most reward processes
    from torch import Tensor

EDGES = (800, 1333)
"""What the shorter and the longer edge become at most, in pixels."""
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
MULTIPLE = 32
PAIRS = 100
CLEARER = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}
"""GenEval's names of what COCO calls otherwise."""


class Detector:
    """A frozen fp32 Mask2Former for instances of COCO's objects."""

    def __init__(self, folder: Path, device: str, edges: tuple[int, int] = EDGES) -> None:
        """
        Raises:
            ValueError: weights are lacking, or it does not know all of GenEval's objects.
        """
        from transformers import Mask2FormerForUniversalSegmentation

        loaded: Any = Mask2FormerForUniversalSegmentation.from_pretrained(folder, output_loading_info=True)
        model, report = loaded
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"{folder} is no Mask2Former: it has no weights for {', '.join(missing[:3])}")
        labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
        self.names = [CLEARER.get(label, label) for label in labels]
        if unknown := [name for name in OBJECTS if name not in self.names]:
            raise ValueError(f"{folder} does not find {', '.join(unknown[:5])}: GenEval needs COCO's 80 objects")
        self.model = model.float().to(device).eval().requires_grad_(False)
        self.edges = edges

    def __call__(self, completion: np.ndarray) -> dict[str, list[Found]]:
        """What is found in a picture, kind by kind, however unsure."""
        import torch
        from torch.nn import functional

        height, width = picture(completion).shape[:2]
        pixels, inner = self.pixels(completion)
        with torch.no_grad():
            output = self.model(pixel_values=pixels.to(self.model.device))
            masks = functional.interpolate(output.masks_queries_logits, pixels.shape[-2:], mode="bilinear")
            masks = masks[:, :, : inner[0], : inner[1]]
            masks = functional.interpolate(masks, (height, width), mode="bilinear")[0]  # (Q, H, W)
        kinds = output.class_queries_logits[0].softmax(-1)[:, :-1]  # (Q, C); the last is none of them
        scores, places = kinds.flatten().topk(min(PAIRS, kinds.numel()))
        found: dict[str, list[Found]] = {}
        for score, place in zip(scores.tolist(), places.tolist(), strict=True):
            query, kind = divmod(place, kinds.shape[1])
            inside = masks[query] > 0
            size = int(inside.sum())
            if size == 0:
                continue  # an object without a pixel: its box would be empty, and its confidence 0
            certainty = float(masks[query].sigmoid()[inside].sum()) / (size + 1e-6)
            mask = inside.cpu().numpy()
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
            found.setdefault(self.names[kind], []).append(Found(box, score * certainty, mask))
        return found

    def pixels(self, completion: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
        """(1, 3, H, W) what the network sees, and the height and width of the picture in it."""
        import torch
        from torch.nn import functional

        height, width = completion.shape[:2]
        scale = min(self.edges[0] / min(height, width), self.edges[1] / max(height, width))
        tall, wide = int(height * scale + 0.5), int(width * scale + 0.5)
        image = torch.from_numpy(np.ascontiguousarray(completion)).permute(2, 0, 1)[None].float()
        resized = functional.interpolate(image, (tall, wide), mode="bilinear").round()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        seen = (resized - mean) / std
        return functional.pad(seen, [0, -wide % MULTIPLE, 0, -tall % MULTIPLE]), (tall, wide)
