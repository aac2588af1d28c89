"""Running-confidence remasking: tokens that the model was least certain of are masked again (MDPO's RCR, arXiv
2508.13148)."""

from __future__ import annotations

import torch
from torch import Tensor


class RunningConfidence:
    """How certain each position was when it was last predicted; not the highest it ever was, and never reset."""

    def __init__(self, samples: int, width: int, device: torch.device) -> None:
        self.confidence = torch.full((samples, width), torch.inf, device=device)
        """By sample and column of the canvas; infinite where nothing was predicted, such as in the prompt."""

    def remasked(self, sample_of_row: Tensor, row: Tensor, column: Tensor, confidence: Tensor, count: Tensor) -> Tensor:
        """Positions to mask again: the least certain of all that were ever predicted, in earlier blocks too.

        Args:
            sample_of_row: (N,) sample of each row of the canvas.
            row, column, confidence: (M,) what this round has predicted.
            count: (N,) how many of each row.

        Returns:
            (N, W) bool. Of equally certain ones the left stay.
        """
        self.confidence[sample_of_row[row], column] = confidence
        known = self.confidence[sample_of_row]
        ranked = known.argsort(dim=-1, descending=True, stable=True)
        lowest = torch.arange(known.shape[1], device=known.device) >= known.shape[1] - count[:, None]
        return torch.zeros_like(known, dtype=torch.bool).scatter(-1, ranked, lowest)
