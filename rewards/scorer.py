"""A weighted sum of reward functions over a batch, where a function that misbehaves costs the sample it misbehaved on.

Each term first scores the whole batch in one call: functions may be vectorised, and TRL calls them this way. When that
call raises, hangs, crashes or returns the wrong number of values, the term scores the samples one at a time, which is
slower and names the culprits.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from rewards.options import RewardOptions, RewardTerm
from rewards.process import Crashed, DeadlinePassed, FunctionRaised, ScoringProcess
from rewards.registry import GIVEN_ANYWAY, RESERVED, RewardError

logger = logging.getLogger(__name__)

LOST_LIMIT = 16
"""Samples of one request that one term may lose to its deadline or to a crash. The rest is then given up untried, which
bounds the time that a broken function can take; by then the run is past any sensible `max_failed_fraction`."""

FailureKind = Literal[
    "exception", "timeout", "crash", "not_finite", "wrong_length", "not_applicable", "not_tried", "malformed"
]
MALFORMED: FailureKind = "malformed"
"""The one kind that is no failure of the reward but of the sample: a verifier cannot read its text, and paid 0."""


@dataclass
class ScoreRequest:
    """N samples. A completion is text here and an image for image policies; nothing below looks inside one."""

    prompts: list[str]
    completions: list[Any]
    completion_ids: list[list[int]] | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """Columns of the dataset, N values each: each is a keyword argument of every reward function."""
    update: int | None = None
    """Update number, which functions read as `trainer_state.global_step`; `trainer_state` is None without it."""


@dataclass
class Failure:
    """Why one term could not score one sample, or, if it is `malformed`, why it paid nothing for it."""

    index: int
    """Place of the sample in the request."""
    term: str
    kind: FailureKind
    message: str
    completion: str
    """The text; of an image, its shape."""
    label: str = ""
    """What a malformed sample is counted under, such as a task of reasoning-gym."""


@dataclass
class Scores:
    total: np.ndarray
    """(N,) float64: the weighted sum of the terms that apply; NaN where the sample could not be scored."""
    terms: dict[str, np.ndarray]
    """Term -> (N,) float64, unweighted; NaN where the term failed or does not apply."""
    failures: list[Failure]
    metrics: dict[str, float] = field(default_factory=dict)
    """Mean of each scalar that functions passed to TRL's `log_metric`."""


class Scorer:
    """Scores requests in a child process; safe to call from any thread, one request at a time."""

    def __init__(self, options: RewardOptions) -> None:
        _check(options)
        self._options = options
        self._process = ScoringProcess(options)
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

    def score(self, request: ScoreRequest) -> Scores:
        """Score every sample with every term.

        A sample's total is NaN when any rewarded term failed on it, or when every one returned None. As in TRL, None
        means that a term does not apply to the sample and leaves it out of the sum. Terms of weight 0 are measures:
        they are reported, and neither their None nor their failure touches the total.

        Time is bounded: for each term, at most one deadline of the batch, what honest samples need one at a time, and
        `LOST_LIMIT` deadlines and restarts of the process.

        Raises:
            RewardError: the request is malformed, or the functions can no longer be imported.
        """
        with self._lock:
            return self._score(request)

    def _score(self, request: ScoreRequest) -> Scores:
        columns = _check_request(request, self._options)
        count = len(request.completions)
        total, applies, failed = np.zeros(count), np.zeros(count, bool), np.zeros(count, bool)
        terms: dict[str, np.ndarray] = {}
        failures: list[Failure] = []
        metrics: dict[str, list[float]] = {}
        for name, term in self._options.terms.items():
            call = _TermCall(self._process, self._options, name, self._pace[name], request, columns)
            values = call.run()
            if term.weight != 0:
                present = ~np.isnan(values)
                total[present] += term.weight * values[present]
                applies |= present
                failed[[failure.index for failure in call.failures if failure.kind != MALFORMED]] = True
            terms[name] = values
            failures += call.failures
            for metric, value in call.metrics:
                metrics.setdefault(metric, []).append(value)
        for index in np.flatnonzero(~applies & ~failed):
            rewarded = ", ".join(name for name, term in self._options.terms.items() if term.weight != 0)
            message = "every rewarded term returned None for this sample"
            completion = _short(request.completions[index])
            failures.append(Failure(int(index), rewarded, "not_applicable", message, completion))
        total[failed | ~applies] = np.nan
        return Scores(total, terms, failures, {name: float(np.mean(values)) for name, values in metrics.items()})


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


class _WrongLength(Exception):
    pass


_KINDS: dict[type[Exception], FailureKind] = {
    FunctionRaised: "exception",
    DeadlinePassed: "timeout",
    Crashed: "crash",
    _WrongLength: "wrong_length",
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
    ) -> None:
        self._process, self._timeout, self._name, self._pace = process, options.timeout_seconds, name, pace
        self._request, self._columns = request, columns
        self.failures: list[Failure] = []
        self.metrics: list[tuple[str, float]] = []

    def run(self) -> np.ndarray:
        """(N,) values, NaN where there is none; failures are in `failures`."""
        count = len(self._request.completions)
        if count == 0:
            return np.zeros(0)
        if count == 1:
            return self._one_at_a_time()
        try:
            return np.array(self._values(list(range(count))))
        except _PROBLEMS as error:
            logger.warning(
                "reward term %r on a batch of %d: %s; scoring one sample at a time", self._name, count, _text(error)
            )
            return self._one_at_a_time()

    def _one_at_a_time(self) -> np.ndarray:
        count = len(self._request.completions)
        values = np.full(count, np.nan)
        lost = 0
        for index in range(count):
            if lost == LOST_LIMIT:
                self._fail(index, "not_tried", f"given up after {lost} samples of this request hung or crashed")
                continue
            try:
                values[index] = self._values([index])[0]
            except _PROBLEMS as error:
                self._fail(index, _KINDS[type(error)], _text(error))
                lost += isinstance(error, DeadlinePassed | Crashed)
        return values

    def _values(self, indices: list[int]) -> list[float]:
        """Values of some samples in one call; None and failures become NaN."""
        request = self._request
        arguments = {
            "prompts": [request.prompts[i] for i in indices],
            "completions": [request.completions[i] for i in indices],
            "completion_ids": None if request.completion_ids is None else [request.completion_ids[i] for i in indices],
            "columns": {name: [column[i] for i in indices] for name, column in self._columns.items()},
            "update": request.update,
        }
        reply = self._process.call(self._name, arguments, self._pace.deadline(len(indices), self._timeout))
        values = reply["values"]
        if len(values) != len(indices):
            raise _WrongLength(f"returned {len(values)} values for {len(indices)} samples; one each is expected")
        self._pace.seconds += reply["seconds"]
        self._pace.samples += len(indices)
        self.metrics += reply["metrics"]
        for place, label, why in reply["malformed"]:
            self._fail(indices[place], MALFORMED, why, label)
        for index, value in zip(indices, values, strict=True):
            if value is not None and not np.isfinite(value):
                self._fail(index, "not_finite", f"returned {value}; a finite number, or None, is expected")
        return [value if value is not None and np.isfinite(value) else np.nan for value in values]

    def _fail(self, index: int, kind: FailureKind, message: str, label: str = "") -> None:
        completion = _short(self._request.completions[index])
        self.failures.append(Failure(index, self._name, kind, message, completion, label))


def _short(completion: Any) -> str:
    """A completion as a failure keeps it, which goes into a log: a text whole, of an image only its size."""
    if isinstance(completion, np.ndarray):
        return f"image {completion.shape} of {completion.dtype}"
    return str(completion)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _check(options: RewardOptions) -> None:
    if not options.terms:
        raise RewardError("reward.terms is empty; name at least one, e.g. reward.terms.task.function=reasoning_gym")
    if not options.timeout_seconds > 0:
        raise RewardError(f"reward.timeout_seconds is {options.timeout_seconds}; it must be positive")
    if all(isinstance(term, RewardTerm) and term.weight == 0 for term in options.terms.values()):
        raise RewardError("every term of reward.terms has weight 0 and is only a measure; give one another weight")
    for name, term in options.terms.items():
        if not isinstance(term, RewardTerm):
            raise RewardError(f"reward.terms.{name} is a {type(term).__name__}; convert the config with to_object")
        if not np.isfinite(term.weight):
            raise RewardError(f"reward.terms.{name}.weight is {term.weight}; it must be finite")


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
        clash = sorted(set(columns) & {*RESERVED, *term.args})
        if clash:
            raise RewardError(
                f"dataset column {clash[0]!r} has the name of an argument of reward term {name!r}; rename"
            )
    return columns
