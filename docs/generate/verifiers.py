"""`python -m docs.generate.verifiers` writes docs/verifiers.md and rewards/reasoning_tasks.json: of each task of
reasoning-gym, whether its scorer is exact, graded or unsafe to optimise.

Found by `docs.generate.attacks`. The file is what `rewards.known_tasks` refuses and warns by.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from reasoning_gym.factory import create_dataset

from docs.generate.attacks import COMMON, ENTRIES, FIXED, NOTABLE, OWN, SEEDS, Finding, scan, tasks
from rewards.known_tasks import GUARDED, REFUSED, TABLE

PAGE = Path(__file__).parents[1] / "verifiers.md"
LABELS = 2000
"""Syllogisms whose labels are checked."""
SEED = 11
LUCKY = 0.3
"""Share of a most frequent answer that the page tells."""


@dataclass(frozen=True)
class Verdict:
    """Of one task."""

    found: Finding
    """The library's scorer."""
    here: Finding | None = None
    """The reward `reasoning_gym`, where the scorer is unsafe and the task not refused."""

    @property
    def task(self) -> str:
        return self.found.task

    @property
    def kind(self) -> str:
        return "unsafe" if self.task in REFUSED else self.found.kind

    @property
    def weak(self) -> str:
        """What our reward still pays; empty where nothing does."""
        return "" if self.here is None else self.here.weak

    def row(self) -> dict[str, Any]:
        """What the file says of it."""
        share, answer = self.found.common
        why = REFUSED.get(self.task) or self.found.weak
        return {"scorer": self.kind, "why": why, "here": self.weak, "common": {"answer": answer, "share": share}}


def verdicts(names: list[str]) -> list[Verdict]:
    found = scan(names)
    again = [each.task for each in found if each.weak and each.task not in REFUSED]
    ours = {each.task: each for each in scan(again, "rewards.reasoning.reasoning_gym")}
    return [Verdict(each, ours.get(each.task)) for each in found]


def wrong_labels(count: int = LABELS) -> float:
    """Share of syllogisms whose label is not what follows: in no world with all three kinds of beings in it are the
    premises true and the conclusion false."""
    dataset = create_dataset("syllogism", seed=SEED, size=count)
    worlds = _worlds(3)
    wrong = 0
    for entry in dataset:
        *premises, conclusion = (_statement(entry["metadata"][name]) for name in ("premise1", "premise2", "conclusion"))
        terms = sorted({term for statement in (*premises, conclusion) for term in statement[1:]})
        follows = all(
            _true(conclusion, world, terms) or not all(_true(premise, world, terms) for premise in premises)
            for world in worlds
        )
        wrong += ("Yes" if follows else "No") != entry["answer"]
    return wrong / count


def _statement(text: str) -> tuple[str, str, str]:
    match = re.fullmatch(r"(All|No|Some) (.+) are (not )?(.+)", text)
    assert match, text
    return match[1] + (" not" if match[3] else ""), match[2], match[4]


def _worlds(terms: int) -> list[list[tuple[bool, ...]]]:
    """Which kinds of beings there are; a kind says which terms apply. Each term applies to some being."""
    kinds = list(product((False, True), repeat=terms))
    existing = product((False, True), repeat=len(kinds))
    worlds = ([kind for kind, exists in zip(kinds, which, strict=True) if exists] for which in existing)
    return [world for world in worlds if all(any(being[term] for being in world) for term in range(terms))]


def _true(statement: tuple[str, str, str], world: list[tuple[bool, ...]], terms: list[str]) -> bool:
    quantifier, subject, predicate = statement
    having = [being[terms.index(predicate)] for being in world if being[terms.index(subject)]]
    return {"All": all(having), "No": not any(having), "Some": any(having), "Some not": not all(having)}[quantifier]


def row(verdict: Verdict) -> str:
    """A line of the page's table."""
    found = verdict.found
    told, here = [], []
    if found.task in REFUSED:
        here.append(f"**refused**: {REFUSED[found.task]}")
    if verdict.weak:
        here.append(f"warned of: {verdict.weak}")
    if found.task in GUARDED:
        here.append(f"checked: {GUARDED[found.task]}")
    if found.own != {1.0}:
        scores = ", ".join("none" if each is None else f"{each:g}" for each in sorted(found.own, key=str))
        told.append(f"score of its own answers: {scores}")
    if len(found.paid) > 8:
        told.append(f"pays 1 for {len(found.paid)} of the texts")
    elif found.paid:
        told.append("pays 1 for " + ", ".join(f"`{name}`" for name in sorted(found.paid)))
    if found.part[0] >= NOTABLE / 2:
        told.append(f"pays {found.part[0]:.2g} for `{found.part[1]}`")
    if found.raised:
        told.append("raises " + ", ".join(sorted(found.raised)))
        here.append("malformed, 0")
    if found.late:
        told.append("does not end on " + ", ".join(f"`{name}`" for name in found.late))
        if GUARDED.get(found.task) != GUARDED["n_queens"]:
            here.append("not scored (`timeout`)")
    share, answer = found.common
    luck = f"`{answer}`: {share:.0%}" if share >= LUCKY else ""
    cells = f"`{found.task}`", verdict.kind, luck, "; ".join(told), "; ".join(here)
    return f"| {' | '.join(cells)} |"


def page(found: list[Verdict], wrong: float) -> str:
    counts = {kind: sum(each.kind == kind for each in found) for kind in ("exact", "graded", "unsafe")}
    named = ", ".join(f"`{name}`" for name in OWN)
    return f"""# Verifiers of reasoning-gym

Which of the scorers of reasoning-gym {version("reasoning_gym")} may be optimised; written by
`python -m docs.generate.verifiers`. Each of the {len(found)} tasks scored, for {ENTRIES} entries of each of
{len(SEEDS)} seeds, their own answers, the same spoilt and with more around them
({named}),
the next entry's answer, the question, and {len(FIXED) + 1} texts that say nothing: trivial, malformed and adversarial
ones, templates of answers, and long lists of candidates.

- **exact** ({counts["exact"]} tasks): nothing but the right answer was paid, and that with 1;
- **graded** ({counts["graded"]}): other texts earned a part. `strict: true` pays full scores only, and makes it exact;
- **unsafe** ({counts["unsafe"]}): a text that is no answer earned 1, or one that says nothing earned a fifth and more
  on average, or the labels are wrong. A policy will find it.

The fourth column is what the library's scorer does, the last what comes of it here
([Rewards](rewards.md#tasks-of-reasoning-gym)): tasks are refused by name where `data=` opens them, or warned of, or
their answers are checked before the scorer sees them. The third is what luck earns, where that is {LUCKY:.0%} and more:
how often the most frequent answer of {COMMON} entries is right. No reward can tell a lucky answer from a known one.
`rewards/reasoning_tasks.json` has the same for programs, and so has `denoiserl list tasks --json`.

| task | scorer | most frequent answer | what it pays beside right answers | here |
|---|---|---|---|---|
{chr(10).join(map(row, found))}

Of {LABELS} syllogisms, {100 * wrong:.1f} % have a wrong label: whether the conclusion follows was looked up in all
worlds in which there is some being of each kind.
"""


def table(found: list[Verdict]) -> str:
    """The file's text."""
    content = {"reasoning_gym": version("reasoning_gym"), "tasks": {each.task: each.row() for each in found}}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    everything = verdicts(tasks())
    TABLE.write_text(table(everything), encoding="utf-8")
    PAGE.write_text(page(everything, wrong_labels()), encoding="utf-8")
