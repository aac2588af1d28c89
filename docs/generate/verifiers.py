"""What reasoning-gym's verifiers pay for answers that deserve nothing: `python -m docs.generate.verifiers` writes
docs/verifiers.md.

Each task's verifier, as the library has it, scores the own answers of some entries and the same with other words behind
them, the next entry's answer, the question, and texts that anybody could write without reading it: trivial, malformed
and adversarial ones. It does so in a scoring process, under a deadline.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from reasoning_gym.factory import DATASETS, create_dataset

from rewards.known_tasks import GUARDED, REFUSED, WEAK
from rewards.options import RewardOptions, RewardTerm
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import MALFORMED as RAISED
from rewards.scoring.scores import Failure, ScoreRequest

PAGE = Path(__file__).parents[1] / "verifiers.md"
ENTRIES, SEED = 3, 11
LABELS = 2000
"""Syllogisms whose labels are checked."""
DEADLINE = 3.0
"""Seconds of one answer."""
NOTABLE = 0.2
"""Partial credit that the page tells."""
TRIVIAL = (
    "", "0", "1", "-1", "2", "24", "1+1", "1*2*3*4", "yes", "no", "True", "False", "None", "A", "a", "x", "up", "[]",
    "{}", "()",
)  # fmt: skip
MALFORMED = (
    "I do not know", "(((", "[[1, 2]", '{"a": ', "1/0", "∞ é", "\x00", "a,b", "1,2,3\n4,5", "[[[]]]", '["x"]',
    '{"a": 1}', "0 0\n0 0", "-", ".", "1x2", "1 x 2", "((1)", "null", "[null]", "[[1],[2]]", "[1]", "[{}]",
    '[{"a": "b"}]', "a b c d", "1 2 3 4", "a\nb\nc", "1 " * 2000, "é" * 3000,
)  # fmt: skip
ADVERSARIAL = (
    "nan", "inf", "-inf", "nan+nanj", "nani", "nan nan", "[nan]", "1e999", "-1e999", "1e-999", "9" * 400, "1" * 5000,
    "True False yes no",
)  # fmt: skip
ENDLESS = "9**9**9**9"
"""For the first entry alone: each costs twice the deadline."""


@dataclass
class Finding:
    """Of one task."""

    task: str
    own: set[float | None] = field(default_factory=set)
    """Scores of the entries' own answers; None where an entry has none."""
    paid: dict[str, int] = field(default_factory=dict)
    """Full scores of each text, for entries whose own answer is another."""
    part: tuple[float, str] = (0.0, "")
    """The most that is paid in part for one of the texts that say nothing, and the text."""
    raised: set[str] = field(default_factory=set)
    """Kinds of exceptions."""
    late: list[str] = field(default_factory=list)
    """Texts that took too long, or too much memory."""


def library(
    completions: list[str], entry: list[dict], log_malformed: Callable[[int, str, str], None], **_: Any
) -> list[float]:
    """The library's scores; a reward function, so that a scoring process can call it."""
    scores = []
    for index, (completion, one) in enumerate(zip(completions, entry, strict=True)):
        try:
            scorer = _dataset(one["metadata"]["source_dataset"]).score_answer
            scores.append(float(scorer(completion, one)))
        except MemoryError:
            raise
        except Exception as error:
            log_malformed(index, one["metadata"]["source_dataset"], type(error).__name__)
            scores.append(0.0)
    return scores


@functools.cache
def _dataset(task: str) -> Any:
    return create_dataset(task)


def scan(tasks: Iterable[str], entries: int = ENTRIES) -> list[Finding]:
    """One finding for each task."""
    terms = {"library": RewardTerm(function="docs.generate.verifiers.library")}
    scorer = Scorer(RewardOptions(terms=terms, timeout_seconds=DEADLINE))
    try:
        return [finding(task, lambda request: _under_deadline(scorer, request), entries) for task in tasks]
    finally:
        scorer.stop()


def _under_deadline(scorer: Scorer, request: ScoreRequest) -> tuple[Iterable[float], list[Failure]]:
    scores = scorer.score(request)
    return scores.total, scores.failures


def finding(
    task: str, score: Callable[[ScoreRequest], tuple[Iterable[float], list[Failure]]], entries: int = ENTRIES
) -> Finding:
    """
    Args:
        score: gives `library`'s scores of a request, and its failures.
    """
    dataset = create_dataset(task, seed=SEED, size=entries)
    problems = [dataset[index] for index in range(entries)]
    asked = [(one, name, text) for place, one in enumerate(problems) for name, text in _texts(problems, place).items()]
    scores, failures = score(
        ScoreRequest([""] * len(asked), [text for _, _, text in asked], columns={"entry": [one for one, _, _ in asked]})
    )
    found = Finding(task, own={None} if any(one["answer"] is None for one in problems) else set())
    for (one, name, text), paid in zip(asked, scores, strict=True):
        if name == "own":
            found.own.add(round(float(paid), 3))
        elif paid >= 1 and text.strip() != str(one["answer"]).strip():
            found.paid[name] = found.paid.get(name, 0) + 1
        elif name in _FIXED and str(one["answer"]) not in text and found.part[0] < paid < 1:
            found.part = (float(paid), name)
    found.raised = {failure.message for failure in failures if failure.kind == RAISED}
    found.late = sorted({asked[each.index][1] for each in failures if each.kind != RAISED})
    return found


def _texts(problems: list[dict], place: int) -> dict[str, str]:
    """Name -> text."""
    own, following = problems[place]["answer"], problems[(place + 1) % len(problems)]["answer"]
    texts = {**_FIXED, "the next entry's": str(following), "the question": problems[place]["question"]}
    if place == 0:
        texts[ENDLESS] = ENDLESS
    if own is None:
        return texts
    return {**texts, "own": own, "own, with more": f"{own} or not", "own, twice": f"{own}\n{own}"}


def _shown(text: str) -> str:
    shown = re.sub(r"\s+", " ", text.replace("\x00", "NUL")) or "nothing"
    return shown if len(shown) <= 20 else f"{shown[:6]}... ({len(text)} characters)"


_FIXED = {_shown(text): text for text in (*TRIVIAL, *MALFORMED, *ADVERSARIAL)}


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


def row(found: Finding) -> str | None:
    """A line of the page's table; None where there is nothing to tell."""
    told, here = [], []
    if found.task in REFUSED:
        here.append(f"**refused**: {REFUSED[found.task]}")
    if found.task in WEAK:
        here.append(f"warned of: {WEAK[found.task]}")
    if found.task in GUARDED:
        here.append(f"checked: {GUARDED[found.task]}")
    if found.own != {1.0}:
        scores = ", ".join("none" if each is None else f"{each:g}" for each in sorted(found.own, key=str))
        told.append(f"score of its own answers: {scores}")
    if len(found.paid) > 8:
        told.append(f"pays 1 for {len(found.paid)} of the texts")
    elif found.paid:
        told.append("pays 1 for " + ", ".join(f"`{name}`" for name in sorted(found.paid)))
    if found.part[0] >= NOTABLE:
        told.append(f"pays {found.part[0]:.2g} for `{found.part[1]}`")
    if found.raised:
        told.append("raises " + ", ".join(sorted(found.raised)))
        here.append("malformed, 0")
    if found.late:
        told.append("does not end on " + ", ".join(f"`{name}`" for name in found.late))
        if GUARDED.get(found.task) != GUARDED["n_queens"]:
            here.append("not scored (`timeout`)")
    return f"| `{found.task}` | {'; '.join(told)} | {'; '.join(here)} |" if told or here else None


def tasks() -> list[str]:
    return sorted(set(DATASETS) - {"composite"})  # which holds others


def page(findings: list[Finding], wrong: float) -> str:
    rows = [line for line in map(row, findings) if line is not None]
    return f"""# Verifiers of reasoning-gym

What the verifiers of reasoning-gym {version("reasoning_gym")} pay for answers that deserve nothing; written by
`python -m docs.generate.verifiers`. Each of the {len(findings)} tasks scored, for {ENTRIES} entries, their own answers,
the same with other words behind them, the next entry's answer, the question, and {len(_FIXED) + 1} texts that say
nothing: trivial, malformed and adversarial ones. The last column says what the reward `reasoning_gym` makes of it
([Rewards](rewards.md#tasks-of-reasoning-gym)).

| task | its verifier | here |
|---|---|---|
{chr(10).join(rows)}

The other {len(findings) - len(rows)} tasks pay their own answers and nothing for these texts.

Of {LABELS} syllogisms, {100 * wrong:.1f} % have a wrong label: whether the conclusion follows was looked up in all
worlds in which there is some being of each kind.
"""


if __name__ == "__main__":
    PAGE.write_text(page(scan(tasks()), wrong_labels()))
