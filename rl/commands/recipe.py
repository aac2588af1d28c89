"""What is said of a configuration file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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


def summary_of(file: Path) -> str:
    """The comment at the head of a configuration file, in one line."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.lstrip("# "))
    return " ".join(lines)
