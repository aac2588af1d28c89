"""One term on one request: first all samples in one call, and if that fails one call for each that can stand alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rewards.options import Per, RewardOptions
from rewards.scoring.process import Crashed, DeadlinePassed, FunctionRaised, ScoringProcess, ServiceDown
from rewards.scoring.scores import MALFORMED, Calls, Failure, FailureKind, Logged, ScoreRequest

logger = logging.getLogger(__name__)

LOST_LIMIT = 16
"""Samples (or groups) of one request that one term may lose to its deadline or to a crash. The rest is then given up
untried, which bounds the time that a broken function can take; by then the run is past any sensible
`max_failed_fraction`."""

LARGEST = 1e18
"""What a reward must stay below, with either sign: fp32, in which losses are computed, holds the square of this, and so
the deviations of rewards."""


@dataclass
class Pace:
    """How long one term's units (samples, or groups) have taken, which sets the deadline of a batch.

    A hang should be noticed after about one sample's deadline, yet a slow function may honestly need many of those for
    a batch. So a batch gets the deadline of one sample plus twice what its samples have needed on average so far. The
    first batch of a slow function falls back to one sample at a time and is measured there; later ones pass at once.
    """

    seconds: float = 0.0
    units: int = 0

    def deadline(self, units: int, timeout: float) -> float:
        if units == 1 or self.units == 0:
            return timeout
        return timeout + 2 * units * self.seconds / self.units


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
    ServiceDown: "unavailable",
}
PROBLEMS = tuple(_KINDS)


def kind_of(error: Exception) -> FailureKind:
    """Of one of `PROBLEMS`."""
    return _KINDS[type(error)]


class TermCall:
    """One term on one request."""

    def __init__(
        self,
        process: ScoringProcess,
        options: RewardOptions,
        name: str,
        pace: Pace,
        request: ScoreRequest,
        columns: dict[str, list[Any]],
        ends: float | None,
    ) -> None:
        term = options.terms[name]
        self._process, self._timeout, self._name, self._pace = process, options.seconds_of(name), name, pace
        self._ends = ends
        self._request, self._columns = request, columns
        self._reported = list(term.weights(name))
        self._by_groups = term.per is Per.group
        self._units = _units(request, term.per)
        self.failures: list[Failure] = []
        self.metrics: dict[str, Logged] = {}
        self.calls: Calls = []

    def run(self) -> dict[str, np.ndarray]:
        """(N,) values of all that the term is reported as, NaN where there is none; failures are in `failures`."""
        count = len(self._request.completions)
        if count == 0:
            return {name: np.zeros(0) for name in self._reported}
        if len(self._units) == 1:
            return self._one_at_a_time()
        try:
            values = self.at_once()
            return dict(zip(self._reported, np.array(values), strict=True))
        except ServiceDown as error:
            self._fail_all(range(count), error)
            return {name: np.full(count, np.nan) for name in self._reported}
        except PROBLEMS as error:
            logger.warning(
                "reward term %r on a batch of %d: %s; scoring one %s at a time",
                self._name,
                count,
                text_of(error),
                "group" if self._by_groups else "sample",
            )
            return self._one_at_a_time(error.found if isinstance(error, _WrongLength) else None)

    def _one_at_a_time(self, together: int | None = None) -> dict[str, np.ndarray]:
        """
        Args:
            together: how many values the function returned for all samples in one call, if they were too many or too
                few. Units that account for it one by one are at fault themselves; otherwise the function does not
                score one by one, and what it says of a single one is no score either.
        """
        count = len(self._request.completions)
        values = np.full((len(self._reported), count), np.nan)
        lost = returned = unknown = 0
        for place, unit in enumerate(self._units):
            if lost == LOST_LIMIT:
                what = "groups" if self._by_groups else "samples"
                for index in unit:
                    self._fail(index, "not_tried", f"given up after {lost} {what} of this request hung or crashed")
                unknown += 1
                continue
            try:
                values[:, unit] = np.array(self._values(unit))
                returned += len(unit)
            except ServiceDown as error:  # nor would it answer for the rest
                self._fail_all([index for rest in self._units[place:] for index in rest], error)
                unknown += 1
                break
            except PROBLEMS as error:
                self._fail_all(unit, error)
                lost += isinstance(error, DeadlinePassed | Crashed)
                returned += error.found if isinstance(error, _WrongLength) else 0
                unknown += not isinstance(error, _WrongLength)
        if together is not None and (returned > together or (returned < together and not unknown)):
            values[:] = np.nan
            alone = f"{returned} for the same samples {'by groups' if self._by_groups else 'one at a time'}"
            told = {f.index for f in self.failures if f.term == self._name and f.kind != MALFORMED}
            for index in sorted(set(range(count)) - told):
                self._fail(
                    index,
                    "wrong_length",
                    f"returned {together} values for {count} samples in one call, and {alone}: it does not return one "
                    f"value a sample",
                )
        return dict(zip(self._reported, values, strict=True))

    def at_once(self) -> list[list[float]]:
        """Values of all samples in one call, as `_values` has them; raises one of `PROBLEMS`."""
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
        units = len(indices)
        if self._by_groups:
            groups = self._groups(indices)
            arguments["groups"], units = groups, len(set(groups))
        reply = self._process.call(self._name, arguments, self._deadline(units))
        scores = [reply["values"]] if "values" in reply else list(reply["criteria"].values())
        if len(scores[0]) != len(indices):
            raise _WrongLength(len(scores[0]), len(indices))
        self._pace.seconds += reply["seconds"]
        self.calls.append((reply["seconds"], len(indices)))
        self._pace.units += units
        passed: dict[str, list[float]] = {}
        for name, value in reply["metrics"]:
            passed.setdefault(name, []).append(value)
        for name, values in passed.items():
            self.metrics.setdefault(name, Logged()).add(values, len(indices))
        for place, label, why in reply["malformed"]:
            self._fail(indices[place], MALFORMED, why, label=label)
        for place, status, why in reply.get("failed", ()):
            self._fail(indices[place], status, why)
        for name, values in zip(self._reported, scores, strict=True):
            for index, value in zip(indices, values, strict=True):
                if value is not None and not usable(value):
                    message = f"returned {value}; a finite number below {LARGEST:g}, or None, is expected"
                    self._fail(index, "not_finite", message, name)
        return [[value if value is not None and usable(value) else np.nan for value in row] for row in scores]

    def _groups(self, indices: list[int]) -> list[int]:
        """Numbers of their groups, from 0 on in the call."""
        given = self._request.groups
        numbers: dict[int, int] = {}
        return [0 if given is None else numbers.setdefault(given[index], len(numbers)) for index in indices]

    def _deadline(self, units: int) -> float:
        """Seconds that a call of so many may take. Raises _NoTimeLeft where it could not have one's."""
        wanted = self._pace.deadline(units, self._timeout)
        if self._ends is None:
            return wanted
        left = self._ends - time.monotonic() - (0.0 if self._process.running else self._process.startup_seconds)
        if left < self._timeout:
            raise _NoTimeLeft(
                f"{max(left, 0.0):.3g} s were left of the time that a ticket has (rollout.timeout_seconds), and a "
                f"sample may need {self._timeout:g} s"
            )
        return min(wanted, left)

    def _fail_all(self, indices: Iterable[int], error: Exception) -> None:
        for index in indices:
            self._fail(index, kind_of(error), text_of(error))

    def _fail(self, index: int, kind: FailureKind, message: str, reported: str | None = None, label: str = "") -> None:
        completion = short(self._request.completions[index])
        self.failures.append(Failure(index, reported or self._name, kind, message, completion, label))


def _units(request: ScoreRequest, per: Per) -> list[list[int]]:
    """Indices of the samples that are scored together at least."""
    count = len(request.completions)
    if per is Per.sample:
        return [[index] for index in range(count)]
    units: dict[int, list[int]] = {}
    for index, group in enumerate(request.groups or [0] * count):
        units.setdefault(group, []).append(index)
    return list(units.values())


def short(completion: Any) -> str:
    """A completion as a failure keeps it, which goes into a log: a text whole, of an image only its size."""
    if isinstance(completion, np.ndarray):
        return f"image {completion.shape} of {completion.dtype}"
    return str(completion)


def usable(value: Any) -> Any:
    """Elementwise; NaN is not."""
    return np.abs(value) < LARGEST


def text_of(error: Exception) -> str:
    return str(error) or type(error).__name__
