"""One call of a reward function, in the scoring process: its arguments, its scores, what it tells beside them."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import time
import traceback
from types import SimpleNamespace
from typing import Any

from rewards.conversation import messages_of, text_of
from rewards.options import Per, RewardTerm
from rewards.printable import printable
from rewards.registry import RewardFunction
from rewards.rubric import Rubric
from rewards.scoring.returned import read
from rewards.unavailable import Unavailable

MESSAGE_LIMIT = 2000
"""Characters of an exception's text that are kept."""

REPORTED = ("timeout", "error", "invalid")
"""Statuses that a function may report of a sample."""


def answer(message: bytes, functions: dict[str, RewardFunction], terms: dict[str, RewardTerm]) -> dict[str, Any]:
    """What `read` makes of the result, with what the function told beside it and its seconds; or an exception text."""
    started = time.monotonic()
    try:
        name, arguments = pickle.loads(message)
        told = Told(len(arguments["completions"]))
        found = read(call(functions[name], terms[name], arguments, told), terms[name])
        told.check(found)
        beside = {"metrics": told.metrics, "malformed": told.malformed, "failed": told.failed}
        return {**found, **beside, "seconds": time.monotonic() - started}
    except Unavailable as error:
        return {"exception": printable(str(error)[:MESSAGE_LIMIT]), "unavailable": True}
    except BaseException as error:  # sys.exit() in a reward function costs its sample, too
        return {"exception": _describe(error)}


class Told:
    """What a function says beside its scores, through the functions that it is given."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.metrics: list[tuple[str, float]] = []
        self.malformed: list[tuple[int, str, str]] = []
        """(place in the call, label, reason)."""
        self.failed: list[tuple[int, str, str]] = []
        """(place in the call, one of `REPORTED`, reason)."""

    def log_metric(self, metric: object, value: float) -> None:
        self.metrics.append((printable(str(metric)), float(value)))

    def log_malformed(self, index: int, what: object, why: object) -> None:
        """A sample pays nothing because it cannot be read."""
        self.malformed.append((self._place("log_malformed", index), printable(str(what)), _short(why)))

    def log_failed(self, index: int, status: str, why: object) -> None:
        """A sample could not be scored; its score is None."""
        if status not in REPORTED:
            raise ValueError(f"log_failed was given the status {status!r}; it must be one of {', '.join(REPORTED)}")
        self.failed.append((self._place("log_failed", index), status, _short(why)))

    def check(self, found: dict[str, Any]) -> None:
        """Raises ValueError for a sample that was said to have failed, and has a score."""
        for scores in [found["values"]] if "values" in found else found["criteria"].values():
            for place, status, _ in self.failed:
                if place < len(scores) and scores[place] is not None:
                    raise ValueError(
                        f"log_failed was told that sample {place} has the status {status!r}, and the function returned "
                        f"{scores[place]} for it: return None"
                    )

    def _place(self, what: str, index: int) -> int:
        if not 0 <= int(index) < self.samples:  # a negative one would be somebody else's
            raise ValueError(f"{what} was told of sample {index}, and there are samples 0 to {self.samples - 1}")
        return int(index)


def _short(why: object) -> str:
    return printable(str(why)[:MESSAGE_LIMIT])


def call(function: RewardFunction, term: RewardTerm, arguments: dict[str, Any], told: Told) -> Any:
    prompts, completions = arguments["prompts"], arguments["completions"]
    if term.conversational:
        prompts = [messages_of(prompt) for prompt in prompts]
        completions = [[{"role": "assistant", "content": completion}] for completion in completions]
    else:
        prompts = [text_of(prompt) for prompt in prompts]
    if isinstance(function, Rubric):
        return asyncio.run(function(prompts, completions, arguments["columns"], term.args))
    update = arguments["update"]
    given = {"groups": arguments["groups"]} if term.per is Per.group else {}
    result = function(
        prompts=prompts,
        completions=completions,
        completion_ids=arguments["completion_ids"],
        trainer_state=None if update is None else SimpleNamespace(global_step=update),
        log_extra=lambda column, values: None,
        log_metric=told.log_metric,
        log_malformed=told.log_malformed,
        log_failed=told.log_failed,
        **given,
        **arguments["columns"],
        **term.args,
    )
    return asyncio.run(_wait(result)) if inspect.isawaitable(result) else result


async def _wait(result: Any) -> Any:
    return await result


def _describe(error: BaseException) -> str:
    """What was raised and where, in one line or a few."""
    try:
        text = "".join(traceback.format_exception_only(type(error), error))
    except Exception as second:  # its own text cannot be made
        text = f"{type(error).__name__}, whose text raises {type(second).__name__}"
    text = printable(text.strip()[:MESSAGE_LIMIT])
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name})" if frames else text
