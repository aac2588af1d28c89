"""Reads the table of labelled answers, `pairs.txt`, which says itself what its rows mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    section: str
    label: str
    reference: str
    answer: str
    rule: str

    @property
    def equal(self) -> bool:
        return self.label.startswith("equal")

    @property
    def by_convention(self) -> bool:
        return self.label.endswith("*")

    @property
    def missed(self) -> bool:
        """Labelled equal, and not recognised today."""
        return self.label.endswith("!")

    @property
    def completion(self) -> str:
        return self.answer[2:].replace("⏎", "\n") if self.answer.startswith("> ") else rf"\boxed{{{self.answer}}}"


def read_pairs() -> list[Pair]:
    pairs, section = [], ""
    for line in Path(__file__).with_name("pairs.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif line and not line.startswith("# "):
            pairs.append(Pair(section, *line.split(" ¦ ")))
    return pairs
