"""What a verifier of reasoning-gym pays for answers that deserve nothing.

Each scorer scores the own answers of entries of several seeds, the same with other words behind them or spoilt, all
answers one behind the other, the question, and texts that anybody could write without reading it: trivial, malformed
and adversarial ones. It does so in a scoring process, under a deadline.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from string import ascii_letters
from typing import Any

from reasoning_gym.factory import DATASETS, create_dataset

from rewards.options import RewardOptions, RewardTerm
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import MALFORMED as RAISED
from rewards.scoring.scores import Failure, ScoreRequest

ENTRIES, SEEDS = 3, (11, 12, 13)
"""Of each task: entries of each seed."""
DEADLINE = 3.0
"""Seconds of one answer."""
COMMON = 100
NOTABLE = 0.2
"""Credit, on average over the entries, for a text that says nothing: more makes a scorer unsafe to optimise."""
TRIVIAL = (
    "", "0", "1", "-1", "2", "24", "1+1", "1*2*3*4", "yes", "no", "Yes", "No", "True", "False", "None", "A", "a", "x",
    "up", "[]", "{}", "()", "Answer:", "<answer></answer>", r"\boxed{}",
)  # fmt: skip
MALFORMED = (
    "I do not know", "(((", "[[1, 2]", '{"a": ', "1/0", "∞ é", "\x00", "a,b", "1,2,3\n4,5", "[[[]]]", '["x"]',
    '{"a": 1}', "0 0\n0 0", "-", ".", "1x2", "1 x 2", "((1)", "null", "[null]", "[[1],[2]]", "[1]", "[{}]", "[[...]]",
    '[{"a": "b"}]', "a b c d", "1 2 3 4", "a\nb\nc", "1 " * 2000, "é" * 3000,
)  # fmt: skip
ADVERSARIAL = (
    "nan", "inf", "-inf", "nan+nanj", "nani", "nan nan", "[nan]", "1e999", "-1e999", "1e-999", "9" * 400, "1" * 5000,
    "True False yes no", "(P \u2228 ¬P)", " ".join(map(str, range(200))), " ".join(ascii_letters),
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
    """The most credit of one of the texts that say nothing, on average over the entries and not counting the full
    scores where it is right; and the text."""
    common: tuple[float, str] = (0.0, "")
    """How often the most frequent own answer of COMMON entries is right, and that answer: what luck earns."""
    graded: bool = False
    """Some text had a score between 0 and 1."""
    raised: set[str] = field(default_factory=set)
    """Kinds of exceptions."""
    late: list[str] = field(default_factory=list)
    """Texts that took too long, or too much memory."""

    @property
    def kind(self) -> str:
        """`unsafe` to optimise, `graded` or `exact`."""
        if self.weak:
            return "unsafe"
        return "graded" if self.graded else "exact"

    @property
    def weak(self) -> str:
        """What makes it unsafe; empty where nothing does."""
        wrong = sorted(self.own - {None, 1.0})  # type: ignore[type-var]  # None is not among them
        if wrong:
            return f"its verifier pays {wrong[0]:g} for an own answer"
        often = {name for name, times in self.paid.items() if times >= NOTABLE * ENTRIES * len(SEEDS)}
        if nothing := sorted(often - set(OWN)):  # once may be luck: a rounded number that is right
            more = f" and {len(nothing) - 1} other texts" if len(nothing) > 1 else ""
            return f"its verifier pays 1 for `{nothing[0]}`{more} where the answer is another"
        if self.paid.keys() & set(OWN):
            return "its verifier takes the answer out of a text and ignores what else is said there"
        if self.part[0] >= NOTABLE:
            return f"its verifier pays {self.part[0]:.2g} on average for `{self.part[1]}`; ask for full scores (strict)"
        return ""


OWN = ("own, with more", "own, twice", "all answers, by lines", "all answers, by commas", "all answers, by spaces")
"""Texts that have the own answer in them, and something else."""
SPOILT = ("own, without its end", "own, with another end")
"""Of them only partial credit is learnt: a number that is cut may have the same value."""


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


Score = Callable[[ScoreRequest], tuple[Iterable[float], list[Failure]]]


def scan(tasks: Iterable[str], function: str = "docs.generate.attacks.library") -> list[Finding]:
    """One finding for each task, of the library's scorer or of another reward function."""
    scorer = Scorer(RewardOptions(terms={"attacked": RewardTerm(function=function)}, timeout_seconds=DEADLINE))
    try:
        return [finding(task, lambda request: _under_deadline(scorer, request)) for task in tasks]
    finally:
        scorer.stop()


def _under_deadline(scorer: Scorer, request: ScoreRequest) -> tuple[Iterable[float], list[Failure]]:
    scores = scorer.score(request)
    return scores.total, scores.failures


def finding(task: str, score: Score) -> Finding:
    """
    Args:
        score: gives the scores of a request, and its failures.
    """
    problems = [
        dataset[index] for seed in SEEDS for dataset in [create_dataset(task, seed=seed, size=ENTRIES)]
        for index in range(ENTRIES)
    ]  # fmt: skip
    asked = [(one, name, text) for place, one in enumerate(problems) for name, text in _texts(problems, place).items()]
    columns = {"entry": [one for one, _, _ in asked]}
    scores, failures = score(ScoreRequest([""] * len(asked), [text for _, _, text in asked], columns=columns))
    found = Finding(task, own={None} if any(one["answer"] is None for one in problems) else set())
    credit: dict[str, float] = {}
    for (one, name, text), value in zip(asked, scores, strict=True):
        paid = 0.0 if value != value else float(value)  # NaN is what took too long
        own = str(one["answer"])
        if name == "own":
            found.own.add(round(paid, 3))
        elif paid >= 1 and name not in SPOILT and not _same(text, own):
            found.paid[name] = found.paid.get(name, 0) + 1
        found.graded |= 0 < paid < 1
        if name in FIXED and paid < 1 and own not in text:
            credit[name] = credit.get(name, 0.0) + paid / len(problems)
    found.part, found.common = _most(credit), _common(task)
    found.raised = {failure.message for failure in failures if failure.kind == RAISED}
    found.late = sorted({asked[each.index][1] for each in failures if each.kind != RAISED})
    return found


def _same(text: str, own: str) -> bool:
    """Whether a text is the own answer, to whoever reads it."""
    return " ".join(text.split()).lower() == " ".join(own.split()).lower()


def _common(task: str) -> tuple[float, str]:
    dataset = create_dataset(task, seed=SEEDS[0], size=COMMON)
    answers = Counter(str(answer) for index in range(COMMON) if (answer := dataset[index]["answer"]) is not None)
    if not answers:
        return 0.0, ""
    answer, times = max(answers.items(), key=lambda pair: (pair[1], pair[0]))
    return times / COMMON, shown(answer)


def _most(sums: dict[str, float]) -> tuple[float, str]:
    text = max(sums, key=lambda name: round(sums[name], 6), default="")
    return (round(sums[text], 6), text) if text and sums[text] > 0 else (0.0, "")


def _texts(problems: list[dict], place: int) -> dict[str, str]:
    """Name -> text."""
    own, following = problems[place]["answer"], problems[(place + 1) % len(problems)]["answer"]
    texts = {**FIXED, "the next entry's": str(following), "the question": problems[place]["question"]}
    if place == 0:
        texts[ENDLESS] = ENDLESS
    if own is None:
        return texts
    answers = list(dict.fromkeys(str(one["answer"]) for one in problems))
    if len(answers) > 1:
        joined = {"lines": "\n", "commas": ", ", "spaces": " "}
        texts |= {f"all answers, by {name}": between.join(answers) for name, between in joined.items()}
    spoilt = {"own, without its end": own[: len(own) // 2], "own, with another end": own[:-1] + "~"}
    return {**texts, "own": own, "own, with more": f"{own} or not", "own, twice": f"{own}\n{own}", **spoilt}


def shown(text: str) -> str:
    """A short name of a text."""
    short = re.sub(r"\s+", " ", text.replace("\x00", "NUL")) or "nothing"
    return short if len(short) <= 20 else f"{short[:6]}... ({len(text)} characters)"


FIXED = {shown(text): text for text in (*TRIVIAL, *MALFORMED, *ADVERSARIAL)}


def tasks() -> list[str]:
    return sorted(set(DATASETS) - {"composite"})  # which holds others
