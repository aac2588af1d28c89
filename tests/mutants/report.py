"""What became of the mutants: a table, those that survived, and one line of JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.mutants.mutations import Mutant
from tests.mutants.runner import Outcome, Verdict

Accepted = dict[tuple[str, str, str], str]
"""Mutants that change nothing, by module, function and diff -> why."""
ACCEPTED = Path(__file__).with_name("accepted.yaml")


@dataclass(frozen=True)
class Result:
    group: str
    module: str
    mutant: Mutant
    outcome: Outcome

    @property
    def name(self) -> tuple[str, str, str]:
        """Of the mutant, without line numbers, so that it lasts while its function does."""
        return self.module, self.mutant.function, self.mutant.diff


def read_accepted(path: Path = ACCEPTED) -> Accepted:
    entries = yaml.safe_load(path.read_text()) or []
    found: Accepted = {}
    for entry in entries:
        for diff in entry["diffs"]:
            found[entry["module"], entry["function"], diff.strip()] = entry["reason"]
    return found


def wilson(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a rate (Wilson, JASA 22, 1927)."""
    if count == 0:
        return 0.0, 1.0
    rate, scale = hits / count, 1 + z**2 / count
    centre = rate + z**2 / (2 * count)
    width = z * math.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    return (centre - width) / scale, (centre + width) / scale


@dataclass(frozen=True)
class Row:
    name: str
    mutants: int
    killed: int
    """By a failing test or by the time limit."""
    timed_out: int
    survived: int
    equivalent: int
    """Of the survivors, those accepted with a reason."""
    seconds: float

    @classmethod
    def of(cls, name: str, results: Sequence[Result], accepted: Accepted) -> Row:
        survivors = [each for each in results if each.outcome.verdict is Verdict.survived]
        return cls(
            name,
            len(results),
            len(results) - len(survivors),
            sum(each.outcome.verdict is Verdict.timed_out for each in results),
            len(survivors),
            sum(each.name in accepted for each in survivors),
            sum(each.outcome.seconds for each in results),
        )

    @property
    def rates(self) -> dict[str, tuple[float, float, float]]:
        """Killed of all, and of all but the equivalent ones, with the ends of the interval."""
        return {
            name: (self.killed / count if count else math.nan, *wilson(self.killed, count))
            for name, count in (("rate", self.mutants), ("rate_without_equivalent", self.mutants - self.equivalent))
        }

    def cells(self) -> str:
        rates = [f"{100 * rate:.1f} ({100 * low:.1f} to {100 * high:.1f})" for rate, low, high in self.rates.values()]
        counts = self.mutants, self.killed, self.timed_out, self.survived, self.equivalent
        return f"| {self.name} | {' | '.join(map(str, counts))} | {' | '.join(rates)} | {self.seconds:.0f} |"


def rows_by(results: Sequence[Result], accepted: Accepted, key: Callable[[Result], str]) -> list[Row]:
    names = dict.fromkeys(key(each) for each in results)
    return [Row.of(name, [each for each in results if key(each) == name], accepted) for name in names]


def lines_of(results: Sequence[Result], accepted: Accepted) -> list[str]:
    """Markdown: the tables and the survivors."""
    counts = "mutants | killed | of these by time-out | survived | of these equivalent"
    head = f"{counts} | killed, % (95 %) | without equivalent, % (95 %)"
    lines: list[str] = []
    tables: dict[str, Callable[[Result], str]] = {
        "module": lambda each: each.group,
        "operator": lambda each: each.mutant.operator,
    }
    for title, key in tables.items():
        rows = rows_by(results, accepted, key)
        total = [Row.of("**all**", results, accepted)] if title == "module" else []
        rows = sorted(rows, key=lambda row: row.name) if title == "operator" else rows
        lines += ["", f"| {title} | {head} | seconds |", "|---" * 9 + "|", *(row.cells() for row in rows + total)]
    lines += ["", "## Survivors", ""]
    for each in results:
        if each.outcome.verdict is Verdict.survived:
            mutant = each.mutant
            place = f"{each.module.replace('.', '/')}.py:{mutant.line}"
            reason = accepted.get(each.name, "**no reason given**")
            lines += [f"`{place}` {mutant.function}: {reason}", "", "```diff", mutant.diff, "```", ""]
    return lines


def flat(results: Sequence[Result], accepted: Accepted) -> dict[str, Any]:
    row = Row.of("all", results, accepted)
    numbers: dict[str, Any] = {
        "mutants": row.mutants,
        "killed": row.killed,
        "timed_out": row.timed_out,
        "survived": row.survived,
        "equivalent": row.equivalent,
    }
    for name, (rate, low, high) in row.rates.items():
        numbers |= {name: round(rate, 4), f"{name}_low": round(low, 4), f"{name}_high": round(high, 4)}
    for group in rows_by(results, accepted, lambda each: each.group):
        numbers[f"{group.name}_rate_without_equivalent"] = round(group.rates["rate_without_equivalent"][0], 4)
    return numbers
