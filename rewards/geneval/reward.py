"""GenEval as a reward, on rows with the columns of its file `evaluation_metadata.jsonl`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rewards.checkpoints import Checkpoint
from rewards.geneval.colours import colours
from rewards.geneval.detector import Detector
from rewards.geneval.rules import TAGS, Found, correct, limits, shaped, sure, wanted
from rewards.images.dual_encoder import DualEncoder, dual_encoder
from rewards.images.preferences import CLIP_L
from rewards.images.preprocessing import Preprocessing
from rewards.picture import picture

MASK2FORMER = Checkpoint(
    "facebook/mask2former-swin-small-coco-instance", None, ("config.json", "model.safetensors"), 0.28, "MIT (code)"
)
SEEN = Preprocessing(nearest=True)
"""open_clip's, with which GenEval looks at cut-out objects."""


def geneval(
    completions: list[np.ndarray],
    include: list[list[dict[str, Any]] | None],
    tag: list[str | None],
    exclude: list[list[dict[str, Any]] | None] | None = None,
    scoring: str = "published",
    threshold: float = 0.3,
    counting_threshold: float = 0.9,
    path: str | None = None,
    revision: str | None = None,
    clip: str | None = None,
    device: str = "cpu",
    **_: Any,
) -> list[float | None]:
    """Whether each picture shows the objects, counts, colours and places that were asked for.

    Args:
        include: what should be there, as GenEval has it: `{"class": "bench", "count": 1}`, some with `color` or
            `position`; None for a problem of another data set.
        tag: which of GenEval's six tasks a row is of; that of `counting` asks for surer objects.
        exclude: what should not be there in that number, likewise.
        scoring: `published`, 0 or 1; or `shaped`, the share of it that is there.
        threshold: how sure an object must be, 0 to 1.
        counting_threshold: the same where objects are counted.
        path: folder of the detector; None looks into the hub's cache.
        revision: commit of the detector in that cache.
        clip: folder of CLIP ViT-L/14, which names colours; None looks into the hub's cache.
        device: where the networks are.

    Returns:
        N scores, 0 to 1; None without `include`.

    Raises:
        ValueError: weights are missing, a row asks for what GenEval does not know, or an option is wrong.
    """
    if scoring not in ("published", "shaped"):
        raise ValueError(f"the reward `geneval` has scoring={scoring!r}: choose published or shaped")
    if not (0 <= threshold <= 1 and 0 <= counting_threshold <= 1):
        raise ValueError(f"the reward `geneval` has threshold={threshold} and {counting_threshold}: both lie in [0, 1]")
    detect = _detector(str(MASK2FORMER.folder("geneval", path, revision)), device)
    encoder = _encoder(clip, device)
    rows = zip(completions, include, tag, exclude or [None] * len(completions), strict=True)
    scores: list[float | None] = []
    for completion, asked, task, forbidden in rows:
        if asked is None:
            scores.append(None)
            continue
        if task not in TAGS:
            raise ValueError(f"GenEval has no task {task!r}: a row's tag is one of {', '.join(TAGS)}")
        lines, too_many = wanted(asked), limits(forbidden)
        enough = counting_threshold if task == "counting" else threshold
        found = sure(detect(picture(completion)), enough)
        name = functools.partial(_named, encoder, completion)
        right = correct(found, lines, too_many, name) if scoring == "published" else shaped(found, lines, name)
        scores.append(float(right))
    return scores


def _named(encoder: DualEncoder, completion: np.ndarray, objects: Sequence[Found], kind: str) -> list[str]:
    return colours(encoder, completion, objects, kind)


@functools.cache
def _detector(folder: str, device: str) -> Detector:
    return Detector(Path(folder), device)


def _encoder(path: str | None, device: str) -> DualEncoder:
    folder = CLIP_L.folder("geneval", path, argument="clip")
    SEEN.check(folder)
    return dual_encoder(str(folder), device, SEEN)
