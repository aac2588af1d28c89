"""A weighted sum of reward functions over a batch, where a function that misbehaves costs the sample it misbehaved on.

Each term first scores the whole batch in one call: functions may be vectorised, and TRL calls them this way. When that
call raises, hangs, crashes or returns the wrong number of values, the term scores the samples one at a time, which is
slower and names the culprits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rewards.options import RewardOptions, RewardTerm
from rewards.registry import GIVEN_ANYWAY, RewardError, check_clash
from rewards.scoring.combination import combine
from rewards.scoring.process import ScoringProcess
from rewards.scoring.scores import Calls, Failure, Logged, ScoreRequest, Scores, TermScores
from rewards.scoring.term_call import PROBLEMS, Pace, TermCall, kind_of, text_of


class Scorer:
    """Scores requests in a child process; safe to call from any thread, one request at a time."""

    def __init__(
        self, options: RewardOptions, printed: Path | None = None, terms: Collection[str] | None = None
    ) -> None:
        """
        Args:
            printed: file for what functions print; None leaves that where this process prints.
            terms: those that it scores, which are not all: then only `score_terms` has an answer. None: all.
        """
        check(options)
        self._whole = options
        self._options = options if terms is None else replace(options, terms={n: options.terms[n] for n in terms})
        self._process = ScoringProcess(self._options, printed)
        self._lock = threading.Lock()
        self._pace = {name: Pace() for name in self._options.terms}

    def start(self) -> None:
        """Import and resolve every term, so that a mistake shows before training. Raises RewardError."""
        with self._lock:
            self._process.start()

    def stop(self) -> None:
        """End the child process."""
        with self._lock:
            self._process.stop()

    def try_out(self, request: ScoreRequest) -> None:
        """One call of every term, under the deadline of a sample.

        Raises:
            RewardError: a term raised, hung, crashed, or did not return one number or None a sample.
        """
        with self._lock:
            columns = _check_request(request, self._options)
            for name, term in self._options.terms.items():
                call = TermCall(self._process, self._options, name, Pace(), request, columns, None)
                try:
                    call.at_once()
                except PROBLEMS as error:
                    raise RewardError(
                        f"reward.terms.{name}: {term.function} was called once before the start, on a row of the data "
                        f"with completions that are made up, and failed ({kind_of(error)}): {text_of(error)}. Mend "
                        f"it; or, if it can score real completions only, set reward.try_first=false"
                    ) from None

    def score(self, request: ScoreRequest) -> Scores:
        """Score every sample with every term, and sum them up: see `combine`.

        Time is bounded: for each term, at most one deadline of the batch, what honest samples need one at a time, and
        `LOST_LIMIT` deadlines and restarts of the process; all terms together by the request's own limit.

        Raises:
            RewardError: the request is malformed, or the functions can no longer be imported.
        """
        found = self.score_terms(request)
        return combine(
            found, self._whole, request.completions.__getitem__, request.update if request.learning else None
        )

    def score_terms(self, request: ScoreRequest) -> TermScores:
        """What each term says for itself. Raises and waits as `score`."""
        with self._lock:
            ends = None if request.seconds is None else time.monotonic() + request.seconds
            columns = _check_request(request, self._options)
            terms: dict[str, np.ndarray] = {}
            failures: list[Failure] = []
            metrics: list[dict[str, Logged]] = []
            calls: dict[str, Calls] = {}
            for name in self._options.terms:
                call = TermCall(self._process, self._options, name, self._pace[name], request, columns, ends)
                terms |= call.run()
                failures += call.failures
                metrics.append(call.metrics)
                calls[name] = call.calls
            return TermScores(terms, failures, Logged.joined(metrics), calls)


def check(options: RewardOptions) -> None:
    if not options.terms:
        raise RewardError("reward.terms is empty; name at least one, e.g. reward.terms.task.function=reasoning_gym")
    if not options.timeout_seconds > 0:
        raise RewardError(f"reward.timeout_seconds is {options.timeout_seconds}; it must be positive")
    for name, term in options.terms.items():
        if not isinstance(term, RewardTerm):
            raise RewardError(f"reward.terms.{name} is a {type(term).__name__}; convert the config with to_object")
        _check_numbers(name, term)
    moving = [term for term in options.terms.values() if term.start_weight is not None]
    for update in (None, 0, *(update for term in moving for update in _zeros(term))):
        if not any(options.weights(update).values()):
            when = "" if not moving else " in evaluations" if update is None else f" at update {update}"
            raise RewardError(
                f"every term of reward.terms has weight 0{when} and is only a measure; give one another weight"
            )
    if len(options.weights()) < sum(len(term.criteria) or 1 for term in options.terms.values()):
        raise RewardError("a term of reward.terms has the name TERM/CRITERION of another one's criterion: rename it")
    for name, term in options.terms.items():
        for gate in term.requires:
            if gate not in options.weights() or options.term_of(gate) == name:
                others = ", ".join(each for each in options.weights() if options.term_of(each) != name) or "none"
                raise RewardError(
                    f"reward.terms.{name}.requires.{gate}: no other term is reported so; the others are: {others}"
                )


def _zeros(term: RewardTerm) -> list[int]:
    """Updates at which a weight that moves may be 0: where its line meets it, and the end."""
    assert term.start_weight is not None
    assert term.weight_updates is not None
    span = term.start_weight - term.weight
    meets = round(term.weight_updates * term.start_weight / span) if span else 0
    return [min(max(meets, 0), term.weight_updates), term.weight_updates]


def _check_numbers(name: str, term: RewardTerm) -> None:
    numbers = {
        "weight": term.weight,
        **({} if term.start_weight is None else {"start_weight": term.start_weight}),
        **{f"criteria.{key}": weight for key, weight in term.criteria.items()},
        **{f"requires.{key}": least for key, least in term.requires.items()},
    }
    for option, number in numbers.items():
        if not np.isfinite(number):
            raise RewardError(f"reward.terms.{name}.{option} is {number}; it must be finite")
    if term.timeout_seconds is not None and not term.timeout_seconds > 0:
        raise RewardError(f"reward.terms.{name}.timeout_seconds is {term.timeout_seconds}; it must be positive")
    if term.clip is not None and not (len(term.clip) == 2 and term.clip[0] < term.clip[1]):
        raise RewardError(f"reward.terms.{name}.clip is {list(term.clip)}; it must be two numbers, the lower first")
    if (term.start_weight is None) != (term.weight_updates is None):
        raise RewardError(f"reward.terms.{name}: start_weight and weight_updates belong together; set both or neither")
    if term.weight_updates is not None and term.weight_updates < 1:
        raise RewardError(f"reward.terms.{name}.weight_updates is {term.weight_updates}; it must be at least 1")


def _check_request(request: ScoreRequest, options: RewardOptions) -> dict[str, list[Any]]:
    """The columns that functions get."""
    count = len(request.completions)
    columns = {name: column for name, column in request.columns.items() if name not in GIVEN_ANYWAY}
    lengths = {"prompts": len(request.prompts), **{name: len(column) for name, column in columns.items()}}
    if request.completion_ids is not None:
        lengths["completion_ids"] = len(request.completion_ids)
    if request.groups is not None:
        lengths["groups"] = len(request.groups)
    wrong = {name: length for name, length in lengths.items() if length != count}
    if wrong:
        raise RewardError(f"the request has {count} completions, but {wrong}; every column needs one value per sample")
    for name, term in options.terms.items():
        check_clash(name, term, columns)
    return columns
