"""What training of either kind of model hands over, to be judged and recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class TrainedModel:
    margins: np.ndarray
    """(N,) log-odds that the chosen answer of each held-out pair is preferred."""
    training_margins: np.ndarray
    """(M,) the same of the pairs that it was trained on."""
    losses: list[tuple[int, float]]
    """(optimizer steps done, mean loss of the latest of them)."""
    about: dict[str, Any]
    """What the record of the folder says of this kind, beside what it says of both."""
    save: Callable[[Path], None]
    """Writes the checkpoint into a folder."""
