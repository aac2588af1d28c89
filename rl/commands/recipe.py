"""What the catalogue says of an algorithm file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    name: str
    summary: str
    paper: str
    """arXiv number, or empty"""
    modalities: tuple[str, ...]
    attention: str
    """Of the text models that it is for; empty if of any"""
    cell: tuple[str, str, str, str]
    """likelihood, ratio, objective, advantage"""
    forwards: str
    """Rows scored for each sample in one pass over it, times the models that score them."""
    needs: tuple[str, ...]
