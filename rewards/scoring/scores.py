"""What is asked of a scorer, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from rewards.conversation import Prompt

Status = Literal["ok", "not_applicable", "timeout", "error", "invalid"]
"""What became of one score. Nothing but `ok` has a number."""

FailureKind = Literal[
    "exception",
    "timeout",
    "crash",
    "not_finite",
    "wrong_length",
    "not_applicable",
    "not_tried",
    "malformed",
    "error",
    "invalid",
    "unavailable",
]
MALFORMED: FailureKind = "malformed"
"""The one kind that is no failure of the reward but of the sample: a verifier cannot read its text, and paid 0."""

STATUS: dict[FailureKind, Status] = {
    "exception": "error",
    "timeout": "timeout",
    "crash": "error",
    "not_finite": "invalid",
    "wrong_length": "invalid",
    "not_applicable": "not_applicable",
    "not_tried": "error",
    "malformed": "ok",
    "error": "error",
    "invalid": "invalid",
    "unavailable": "error",
}


@dataclass
class ScoreRequest:
    """N samples. A completion is text here and an image for image policies; nothing below looks inside one."""

    prompts: list[Prompt]
    """Functions get them as text, or with `conversational` as messages, whichever of the two they are here."""
    completions: list[Any]
    completion_ids: list[list[int]] | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """Columns of the dataset, N values each: each is a keyword argument of every reward function."""
    groups: list[int] | None = None
    """Number of the group that each sample belongs to, for functions that compare; those of a group stand together.
    None: all of them are one."""
    update: int | None = None
    """Update number, which functions read as `trainer_state.global_step`; `trainer_state` is None without it."""
    learning: bool = False
    """Whether the update learns from the sum: then its weights are those of the update (`RewardTerm.start_weight`)."""
    seconds: float | None = None
    """What the caller waits for an answer. A call that might end later is not begun, and its samples are `not_tried`.
    None: there is no such limit."""


@dataclass
class Failure:
    """Why one term could not score one sample, or, if it is `malformed`, why it paid nothing for it."""

    index: int
    """Place of the sample in the request."""
    term: str
    """Or term/criterion, where a function returned several scores and one of them is at fault."""
    kind: FailureKind
    message: str
    completion: str
    """The text; of an image, its shape."""
    label: str = ""
    """What a malformed sample is counted under, such as a task of reasoning-gym."""


@dataclass
class Logged:
    """A scalar that functions passed to TRL's `log_metric`, over several calls. A call speaks of all its samples, so it
    weighs as many as they are, however often it passed a value."""

    total: float = 0.0
    """The sum of the calls' means, each times the samples of its call."""
    samples: int = 0
    not_finite: int = 0
    """Values that are no number, which no mean contains."""

    def add(self, values: Sequence[float], samples: int) -> None:
        """What one call passed."""
        finite = [value for value in values if np.isfinite(value)]
        self.not_finite += len(values) - len(finite)
        if finite:
            self.total += samples * float(np.mean(finite))
            self.samples += samples

    @property
    def mean(self) -> float | None:
        """Over samples; None if no call passed a number."""
        return self.total / self.samples if self.samples else None

    @staticmethod
    def joined(parts: Iterable[Mapping[str, Logged]]) -> dict[str, Logged]:
        """By name, over several requests."""
        found: dict[str, Logged] = {}
        for part in parts:
            for name, logged in part.items():
                of_all = found.setdefault(name, Logged())
                of_all.total += logged.total
                of_all.samples += logged.samples
                of_all.not_finite += logged.not_finite
        return found


Calls = list[tuple[float, int]]
"""Seconds that each call of a function took, and its samples."""


@dataclass
class TermScores:
    """What each term of a request says, for itself."""

    terms: dict[str, np.ndarray]
    """Term, or term/criterion -> (N,) float64, as the function returned it; NaN where it failed or does not apply."""
    failures: list[Failure]
    metrics: dict[str, Logged] = field(default_factory=dict)
    """The scalars that functions passed to TRL's `log_metric`, by name."""
    calls: dict[str, Calls] = field(default_factory=dict)
    """Of each term that answered."""

    @staticmethod
    def of_parts(parts: Sequence[TermScores], order: Sequence[str]) -> TermScores:
        """What several scorers say of the same samples.

        Args:
            order: of everything that is reported.
        """
        terms = {name: values for part in parts for name, values in part.terms.items()}
        failures = [failure for part in parts for failure in part.failures]
        calls = {name: each for part in parts for name, each in part.calls.items()}
        metrics = Logged.joined(part.metrics for part in parts)
        return TermScores({name: terms[name] for name in order}, failures, metrics, calls)


@dataclass
class Scores:
    """What the terms say together."""

    total: np.ndarray
    """(N,) float64: the weighted sum of the terms that apply; NaN where the sample could not be scored."""
    terms: dict[str, np.ndarray]
    """As in `TermScores`, unweighted."""
    failures: list[Failure]
    metrics: dict[str, Logged] = field(default_factory=dict)
    paid: dict[str, np.ndarray] = field(default_factory=dict)
    """(N,) what the sum counts of each term that has a part in it, unweighted: `terms` behind gates, within clips."""
    calls: dict[str, Calls] = field(default_factory=dict)
    """As in `TermScores`."""

    @property
    def statuses(self) -> dict[str, list[Status]]:
        """(N,) what became of each score, for everything in `terms`."""
        found: dict[str, list[Status]] = {}
        lost = [failure for failure in self.failures if failure.kind != MALFORMED]
        for name, values in self.terms.items():
            about = {f.index: STATUS[f.kind] for f in lost if name == f.term or name.startswith(f"{f.term}/")}
            found[name] = [
                "ok" if known else about.get(i, "not_applicable") for i, known in enumerate(~np.isnan(values))
            ]
        return found
