"""An image in a cell of a data set: pixels, a picture in memory, an encoded one (PNG, JPEG, ...), or a file's path."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from rl.data.rows import DataError

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for a file that is missing, broken or no picture."""


def located(cell: Any, folder: Path) -> Any:
    """The cell without what depends on its source: encoded bytes, a `Path`, or whatever else is an image.

    Args:
        folder: what a relative path is relative to.
    """
    if isinstance(cell, dict) and cell.keys() == {"bytes", "path"}:  # how `datasets` writes images to Parquet
        cell = cell["path"] if cell["bytes"] is None else cell["bytes"]
    return folder / cell if isinstance(cell, str) else cell


def pixels(image: Any, problem_id: str) -> np.ndarray:
    """An RGB image is (H, W, 3) uint8; nothing is converted.

    Args:
        image: an array, a Pillow image, or what `located` returns.

    Raises:
        DataError: it cannot be read.
    """
    if not isinstance(image, bytes | Path):
        return np.asarray(image)
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as picture:
            return np.asarray(ImageOps.exif_transpose(picture))  # upright, as `datasets` has it
    except UNREADABLE as error:
        what = f"{len(image)} bytes are no picture" if isinstance(image, bytes) else f"{image}: {error}"
        raise DataError(f"the image of {problem_id} cannot be read: {what}; restore it, or remove the row") from error
