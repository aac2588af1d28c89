"""Errors of the image kernels."""

from __future__ import annotations


class KernelError(ValueError):
    """Levels, kernel and prediction do not go together, or a number among them is out of range."""
