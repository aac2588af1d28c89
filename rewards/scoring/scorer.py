"""A weighted sum of reward functions over a batch, where a function that misbehaves costs the sample it misbehaved on.

Each term first scores the whole batch in one call: functions may be vectorised, and TRL calls them this way. When that
call raises, hangs, crashes or returns the wrong number of values, the term scores the samples one at a time, which is
slower and names the culprits.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rewards.options import RewardOptions, RewardTerm
from rewards.registry import GIVEN_ANYWAY, RewardError, check_clash
from rewards.scoring.process import Crashed, DeadlinePassed, FunctionRaised, ScoringProcess
from rewards.scoring.scores import MALFORMED, Failure, FailureKind, Logged, ScoreRequest, Scores

logger = logging.getLogger(__name__)

LOST_LIMIT = 16
"""Samples of one request that one term may lose to its deadline or to a crash. The rest is then given up untried, which
bounds the time that a broken function can take; by then the run is past any sensible `max_failed_fraction`."""

LARGEST = 1e18
"""What a reward must stay below, with either sign: fp32, in which losses are computed, holds the square of this, and so
the deviations of rewards."""


class Scorer:
    """Scores requests in a child process; safe to call from any thread, one request at a time."""

    def __init__(self, options: RewardOptions, printed: Path | None = None) -> None:
        """
        Args:
            printed: file for what functions print; None leaves that where this process prints.
        """
        _check(options)
        self._options = options
        self._process = ScoringProcess(options, printed)
        self._lock = threading.Lock()
        self._pace = {name: _Pace() for name in options.terms}

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
                call = _TermCall(self._process, self._options, name, _Pace(), request, columns, None)
                try:
                    call.at_once()
                except _PROBLEMS as error:
                    raise RewardError(
                        f"reward.terms.{name}: {term.function} was called once before the start, on a row of the data "
                        f"with completions that are made up, and failed ({_KINDS[type(error)]}): {_text(error)}. Mend "
                        f"it; or, if it can score real completions only, set reward.try_first=false"
                    ) from None

    def score(self, request: ScoreRequest) -> Scores:
        """Score every sample with every term.

        A sample's total is NaN when any rewarded term failed on it, or when every one returned None. As in TRL, None
        means that a term does not apply to the sample and leaves it out of the sum. Terms of weight 0 are measures:
        they are reported, and neither their None nor their failure touches the total.

        Time is bounded: for each term, at most one deadline of the batch, what honest samples need one at a time, and
        `LOST_LIMIT` deadlines and restarts of the process; all terms together by the request's own limit.

        Raises:
            RewardError: the request is malformed, or the functions can no longer be imported.
        """
        with self._lock:
            return self._score(request)

    def _score(self, request: ScoreRequest) -> Scores:
        ends = None if request.seconds is None else time.monotonic() + request.seconds
        columns = _check_request(request, self._options)
        count = len(request.completions)
        total, applies, failed = np.zeros(count), np.zeros(count, bool), np.zeros(count, bool)
        terms: dict[str, np.ndarray] = {}
        failures: list[Failure] = []
        metrics: list[dict[str, Logged]] = []
        for name, term in self._options.terms.items():
            call = _TermCall(self._process, self._options, name, self._pace[name], request, columns, ends)
            weights = {reported: weight for reported, weight in term.weights(name).items() if weight != 0}
            for reported, values in call.run().items():
                if reported in weights:
                    present = ~np.isnan(values)
                    total[present] += weights[reported] * values[present]
                    applies |= present
                terms[reported] = values
            rewarded = {*weights, name} if weights else ()
            costly = [f.index for f in call.failures if f.term in rewarded and f.kind != MALFORMED]
            failed[costly] = True
            failures += call.failures
            metrics.append(call.metrics)
        for index in np.flatnonzero(~applies & ~failed):
            names = ", ".join(name for name, weight in self._options.weights().items() if weight != 0)
            message = "every rewarded term returned None for this sample"
            completion = _short(request.completions[index])
            failures.append(Failure(int(index), names, "not_applicable", message, completion))
        for index in np.flatnonzero(applies & ~failed & ~_usable(total)):
            failed[index] = True
            message = (
                f"the weighted sum of the terms is {total[index]}, and a finite number below {LARGEST:g} is expected"
            )
            names = ", ".join(name for name, weight in self._options.weights().items() if weight != 0)
            failures.append(Failure(int(index), names, "not_finite", message, _short(request.completions[index])))
        total[failed | ~applies] = np.nan
        return Scores(total, terms, failures, Logged.joined(metrics))


@dataclass
class _Pace:
    """How long one term's samples have taken, which sets the deadline of a batch.

    A hang should be noticed after about one sample's deadline, yet a slow function may honestly need many of those for
    a batch. So a batch gets the deadline of one sample plus twice what its samples have needed on average so far. The
    first batch of a slow function falls back to one sample at a time and is measured there; later ones pass at once.
    """

    seconds: float = 0.0
    samples: int = 0

    def deadline(self, samples: int, timeout: float) -> float:
        if samples == 1 or self.samples == 0:
            return timeout
        return timeout + 2 * samples * self.seconds / self.samples


class _NoTimeLeft(Exception):
    """The caller waits no longer."""


class _WrongLength(Exception):
    def __init__(self, found: int, samples: int) -> None:
        super().__init__(f"returned {found} values for {samples} samples; one each is expected")
        self.found = found


_KINDS: dict[type[Exception], FailureKind] = {
    FunctionRaised: "exception",
    DeadlinePassed: "timeout",
    Crashed: "crash",
    _WrongLength: "wrong_length",
    _NoTimeLeft: "not_tried",
}
_PROBLEMS = tuple(_KINDS)


class _TermCall:
    """One term on one request."""

    def __init__(
        self,
        process: ScoringProcess,
        options: RewardOptions,
        name: str,
        pace: _Pace,
        request: ScoreRequest,
        columns: dict[str, list[Any]],
        ends: float | None,
    ) -> None:
        self._process, self._timeout, self._name, self._pace = process, options.timeout_seconds, name, pace
        self._ends = ends
        self._request, self._columns = request, columns
        self._reported = list(options.terms[name].weights(name))
        self.failures: list[Failure] = []
        self.metrics: dict[str, Logged] = {}

    def run(self) -> dict[str, np.ndarray]:
        """(N,) values of all that the term is reported as, NaN where there is none; failures are in `failures`."""
        count = len(self._request.completions)
        if count == 0:
            return {name: np.zeros(0) for name in self._reported}
        if count == 1:
            return self._one_at_a_time()
        try:
            values = self.at_once()
            return dict(zip(self._reported, np.array(values), strict=True))
        except _PROBLEMS as error:
            logger.warning(
                "reward term %r on a batch of %d: %s; scoring one sample at a time", self._name, count, _text(error)
            )
            return self._one_at_a_time(error.found if isinstance(error, _WrongLength) else None)

    def _one_at_a_time(self, together: int | None = None) -> dict[str, np.ndarray]:
        """
        Args:
            together: how many values the function returned for all samples in one call, if they were too many or too
                few. Samples that account for it one by one are at fault themselves; otherwise the function does not
                score sample by sample, and what it says of a single one is no score either.
        """
        count = len(self._request.completions)
        values = np.full((len(self._reported), count), np.nan)
        lost = returned = unknown = 0
        for index in range(count):
            if lost == LOST_LIMIT:
                self._fail(index, "not_tried", f"given up after {lost} samples of this request hung or crashed")
                unknown += 1
                continue
            try:
                values[:, index] = np.array(self._values([index]))[:, 0]
                returned += 1
            except _PROBLEMS as error:
                self._fail(index, _KINDS[type(error)], _text(error))
                lost += isinstance(error, DeadlinePassed | Crashed)
                returned += error.found if isinstance(error, _WrongLength) else 0
                unknown += not isinstance(error, _WrongLength)
        if together is not None and (returned > together or (returned < together and not unknown)):
            values[:] = np.nan
            alone = f"{returned} for the same samples one at a time"
            for index in sorted(set(range(count)) - {failure.index for failure in self.failures}):
                self._fail(
                    index,
                    "wrong_length",
                    f"returned {together} values for {count} samples in one call, and {alone}: it does not return one "
                    f"value a sample",
                )
        return dict(zip(self._reported, values, strict=True))

    def at_once(self) -> list[list[float]]:
        """Values of all samples in one call, as `_values` has them; raises one of `_PROBLEMS`."""
        return self._values(list(range(len(self._request.completions))))

    def _values(self, indices: list[int]) -> list[list[float]]:
        """Values of some samples in one call, of each that is reported; None and failures become NaN."""
        request = self._request
        arguments = {
            "prompts": [request.prompts[i] for i in indices],
            "completions": [request.completions[i] for i in indices],
            "completion_ids": None if request.completion_ids is None else [request.completion_ids[i] for i in indices],
            "columns": {name: [column[i] for i in indices] for name, column in self._columns.items()},
            "update": request.update,
        }
        reply = self._process.call(self._name, arguments, self._deadline(len(indices)))
        scores = [reply["values"]] if "values" in reply else list(reply["criteria"].values())
        if len(scores[0]) != len(indices):
            raise _WrongLength(len(scores[0]), len(indices))
        self._pace.seconds += reply["seconds"]
        self._pace.samples += len(indices)
        passed: dict[str, list[float]] = {}
        for name, value in reply["metrics"]:
            passed.setdefault(name, []).append(value)
        for name, values in passed.items():
            self.metrics.setdefault(name, Logged()).add(values, len(indices))
        for place, label, why in reply["malformed"]:
            self._fail(indices[place], MALFORMED, why, label=label)
        for name, values in zip(self._reported, scores, strict=True):
            for index, value in zip(indices, values, strict=True):
                if value is not None and not _usable(value):
                    message = f"returned {value}; a finite number below {LARGEST:g}, or None, is expected"
                    self._fail(index, "not_finite", message, name)
        return [[value if value is not None and _usable(value) else np.nan for value in row] for row in scores]

    def _deadline(self, samples: int) -> float:
        """Seconds that a call of so many may take. Raises _NoTimeLeft where it could not have a whole sample's."""
        wanted = self._pace.deadline(samples, self._timeout)
        if self._ends is None:
            return wanted
        left = self._ends - time.monotonic() - (0.0 if self._process.running else self._process.startup_seconds)
        if left < self._timeout:
            raise _NoTimeLeft(
                f"{max(left, 0.0):.3g} s were left of the time that a ticket has (rollout.timeout_seconds), and a "
                f"sample may need {self._timeout:g} s"
            )
        return min(wanted, left)

    def _fail(self, index: int, kind: FailureKind, message: str, reported: str | None = None, label: str = "") -> None:
        completion = _short(self._request.completions[index])
        self.failures.append(Failure(index, reported or self._name, kind, message, completion, label))


def _short(completion: Any) -> str:
    """A completion as a failure keeps it, which goes into a log: a text whole, of an image only its size."""
    if isinstance(completion, np.ndarray):
        return f"image {completion.shape} of {completion.dtype}"
    return str(completion)


def _usable(value: Any) -> Any:
    """Elementwise; NaN is not."""
    return np.abs(value) < LARGEST


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _check(options: RewardOptions) -> None:
    if not options.terms:
        raise RewardError("reward.terms is empty; name at least one, e.g. reward.terms.task.function=reasoning_gym")
    if not options.timeout_seconds > 0:
        raise RewardError(f"reward.timeout_seconds is {options.timeout_seconds}; it must be positive")
    for name, term in options.terms.items():
        if not isinstance(term, RewardTerm):
            raise RewardError(f"reward.terms.{name} is a {type(term).__name__}; convert the config with to_object")
        weights = {"weight": term.weight, **{f"criteria.{key}": weight for key, weight in term.criteria.items()}}
        for option, weight in weights.items():
            if not np.isfinite(weight):
                raise RewardError(f"reward.terms.{name}.{option} is {weight}; it must be finite")
    if not any(options.weights().values()):
        raise RewardError("every term of reward.terms has weight 0 and is only a measure; give one another weight")
    if len(options.weights()) < sum(len(term.criteria) or 1 for term in options.terms.values()):
        raise RewardError("a term of reward.terms has the name TERM/CRITERION of another one's criterion: rename it")


def _check_request(request: ScoreRequest, options: RewardOptions) -> dict[str, list[Any]]:
    """The columns that functions get."""
    count = len(request.completions)
    columns = {name: column for name, column in request.columns.items() if name not in GIVEN_ANYWAY}
    lengths = {"prompts": len(request.prompts), **{name: len(column) for name, column in columns.items()}}
    if request.completion_ids is not None:
        lengths["completion_ids"] = len(request.completion_ids)
    wrong = {name: length for name, length in lengths.items() if length != count}
    if wrong:
        raise RewardError(f"the request has {count} completions, but {wrong}; every column needs one value per sample")
    for name, term in options.terms.items():
        check_clash(name, term, columns)
    return columns
