"""Options of `denoiserl train-reward`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from omegaconf import MISSING

from configs.errors import UserError
from models.options import Modality
from rewards.preference.form import Segments


@dataclass
class PreferenceOptions:
    pairs: str = MISSING
    """File of JSONL, JSON, CSV or Parquet with the columns `prompt`, `chosen` and `rejected`, or the folder of one."""
    base: str = MISSING
    """What is trained further. Texts: folder or hub id of any model that transformers can load as a sequence
    classifier, or folder of a text policy, such as `tiny/block`. Images: folder or hub id of a CLIPModel."""
    output: str = MISSING
    """Folder that the reward model is written to."""
    modality: Modality = Modality.text
    """What `chosen` and `rejected` are: texts, or pictures and their paths."""
    held_out: float = 0.2
    """Of the prompts, with all their pairs, this share is not trained on. Unit: 1."""
    held_out_pairs: Optional[str] = None  # noqa: UP045 - OmegaConf wants Optional
    """Another file whose pairs are held out, in place of a share; no prompt may be in both."""
    segments: Segments = Segments.none
    """Of texts: what is scored by itself."""
    max_tokens: Optional[int] = None  # noqa: UP045
    """Of texts: longest prompt with its answer, or its segment; null is what the model was built for. Unit: tokens."""
    epochs: int = 1
    """Passes over the pairs. Unit: passes."""
    batch_size: int = 32
    """Pairs of one optimizer step. Unit: pairs."""
    learning_rate: float = 1e-5
    """Highest, after a warm-up of a tenth of the steps; it falls to 0 in a straight line. Unit: 1."""
    weight_decay: float = 0.0
    """Of AdamW. Unit: 1."""
    centre_coefficient: Optional[float] = None  # noqa: UP045
    """Of texts: weight of the squared sum of a pair's logits, which keeps logits around 0; null has none. Unit: 1."""
    seed: int = 0
    """Of the split, of the order of the pairs and of a new head's weights. Unit: 1."""
    device: str = "cpu"
    """Of torch: cpu, or cuda for the first GPU."""


def check(options: PreferenceOptions) -> None:
    """Raises UserError for values outside of their ranges, and for options of the other kind of model."""
    ranges = {
        "held_out": (0.0 < options.held_out < 1.0, "above 0 and below 1"),
        "max_tokens": (options.max_tokens is None or options.max_tokens >= 2, "2 or more, or null"),
        "epochs": (options.epochs >= 1, "1 or more"),
        "batch_size": (options.batch_size >= 1, "1 or more"),
        "learning_rate": (options.learning_rate > 0, "above 0"),
        "weight_decay": (options.weight_decay >= 0, "0 or more"),
        "centre_coefficient": (
            options.centre_coefficient is None or options.centre_coefficient > 0,
            "above 0, or null",
        ),
        "seed": (options.seed >= 0, "0 or more"),
        "device": (options.device in ("cpu", "cuda"), "cpu or cuda"),
    }
    for name, (fits, wanted) in ranges.items():
        if not fits:
            raise UserError(f"{name}={getattr(options, name)} is not possible: choose {wanted}")
    if options.modality is Modality.image:
        given = {"segments": options.segments is not Segments.none, "max_tokens": options.max_tokens is not None}
        given["centre_coefficient"] = options.centre_coefficient is not None
        for name in (name for name, is_given in given.items() if is_given):
            raise UserError(f"{name} is an option of texts, and modality=image: leave it out")
