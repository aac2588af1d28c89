"""A user's vector in a cell of a data set: a list of numbers, or the path of an .npy file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rl.data.rows import DataError


def user_vector(cell: Any, problem_id: str) -> np.ndarray:
    """(U,) fp32.

    Args:
        cell: numbers, or the `Path` of a file with a vector.

    Raises:
        DataError: it cannot be read, is no vector, or is not finite.
    """
    where = f"the user of {problem_id}"
    if isinstance(cell, Path):
        where += f", {cell},"
        try:
            cell = np.load(cell, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{where} cannot be read: {error}") from error
    try:
        values = np.asarray(cell)
    except ValueError as error:  # lists of different lengths
        raise DataError(f"{where} is no list of numbers: {error}") from error
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise DataError(f"{where} is {values.dtype} of shape {values.shape}; it must be a vector of numbers")
    with np.errstate(over="ignore"):
        vector = values.astype(np.float32)
    if not np.isfinite(vector).all():
        raise DataError(f"{where} has numbers that are infinite or not a number: remove the row, or mend the vector")
    return vector
