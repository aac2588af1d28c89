"""Reward functions with one mistake each. Nothing heavy is imported: every run's scoring process imports this file."""

from __future__ import annotations

import math
import os
import sys
import time
import zlib
from typing import Any


def honest(text: str) -> float:
    """A number between 0 and 1 that follows from the text, with a wide spread."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % 1000 / 1000


def is_bad(text: str, salt: int) -> bool:
    """One text in three."""
    return zlib.crc32(f"{salt}/{text}".encode("utf-8", "surrogatepass")) % 3 == 0


def score(completions: list[str], **columns: Any) -> list[float]:
    return [honest(text) for text in completions]


def left_out(completions: list[str], salt: int, **columns: Any) -> list[float | None]:
    """The documented way to have no score for a text."""
    return [None if is_bad(text, salt) else honest(text) for text in completions]


class Failed(Exception):
    pass


def _raises() -> float:
    raise Failed("a text that this reward cannot read")


def _exits() -> float:
    sys.exit(0)


def _dies() -> float:
    os._exit(0)


def _hangs() -> float:
    time.sleep(1000)
    return 1.0


def _tensor(value: float) -> Any:
    import torch

    return torch.tensor(value)


def _closes() -> float:
    os.closerange(3, 256)
    return 1.0


BAD_VALUES: dict[str, Any] = {
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "minus inf": lambda: -math.inf,
    "text": lambda: "1.0",
    "word": lambda: "good",
    "bytes": lambda: b"1",
    "list": lambda: [1.0],
    "two numbers": lambda: (0.5, 0.5),
    "complex": lambda: 1j,
    "mapping": lambda: {0: 1.0},
    "object": object,
    "huge integer": lambda: 10**400,
    "huge": lambda: 1e300,
    "tensor of nan": lambda: _tensor(math.nan),
    "tensor of two": lambda: _tensor([0.5, 0.5]),
    "raises": _raises,
    "exits": _exits,
    "dies": _dies,
    "hangs": _hangs,
    "closes its pipes": _closes,
}
"""What stands in the place of a bad text's number, or happens there."""


def bad_values(completions: list[str], kind: str, salt: int, **columns: Any) -> list[Any]:
    """Honest, but for the bad texts."""
    return [BAD_VALUES[kind]() if is_bad(text, salt) else honest(text) for text in completions]


def _numpy(values: list[float]) -> Any:
    import numpy

    return numpy.array(values, numpy.float64)


def _float32(values: list[float]) -> Any:
    import numpy

    return [numpy.float32(value) for value in values]


def _series(values: list[float]) -> Any:
    import pandas

    return pandas.Series(values, index=range(len(values), 0, -1))


def _prints(values: list[float]) -> Any:
    print('{"values": [99.0]}' * 50, flush=True)
    os.write(1, b"\x00\xff" * 50)
    return values


def _reads(values: list[float]) -> Any:
    sys.stdin.read()
    return values


def _forks(values: list[float]) -> Any:
    os.fork()  # and both come back
    return values


def _answers_twice(values: list[float]) -> Any:
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b'{"values": [99.0], "metrics": [], "malformed": [], "seconds": 0.0}')
        except OSError:
            continue
    return values


def _threads(values: list[float]) -> Any:
    import threading

    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return values


async def _later(values: list[float]) -> Any:
    return values


BAD_BATCHES: dict[str, Any] = {
    "one too few": lambda values: values[:-1],
    "one too many": lambda values: [*values, 1.0],
    "none": lambda values: [],
    "nothing": lambda values: None,
    "one number": lambda values: sum(values),
    "numbers as keys": lambda values: dict(enumerate(values)),
    "a set": set,
    "a text": lambda values: "1" * len(values),
    "bytes": lambda values: b"1" * len(values),
    "a column": lambda values: _numpy(values)[:, None],
    "a row": lambda values: _numpy(values)[None, :],
    "pairs": lambda values: [(value, "why") for value in values],
    "by name": lambda values: {"accuracy": values},
    "mappings": lambda values: [{"accuracy": value} for value in values],
    "more than it returns": _answers_twice,
    "a mean for all": lambda values: [sum(values) / len(values)],
}
"""What is made of the honest numbers of a batch."""
GOOD_BATCHES: dict[str, Any] = {
    "an array": _numpy,
    "numbers of numpy": _float32,
    "a tensor": _tensor,
    "a series in another order": _series,
    "a tuple": tuple,
    "a generator": iter,
    "later": _later,
    "prints": _prints,
    "reads its input": _reads,
    "forks": _forks,
    "leaves a thread": _threads,
}
"""The same, where every value still belongs to its sample."""


def batches(completions: list[str], kind: str, **columns: Any) -> Any:
    values = [honest(text) for text in completions]
    return {**BAD_BATCHES, **GOOD_BATCHES}[kind](values)


def mutates(completions: list[str], prompts: list[str], kind: str, **columns: Any) -> list[float]:
    """Honest, and does something to what it was given."""
    values = [honest(text) for text in completions]
    if kind == "clears":
        completions.clear()
        prompts.clear()
    elif kind == "reverses":
        completions.reverse()
    elif kind == "writes into":
        completions[:] = ["0"] * len(completions)
    else:
        for column in columns.values():
            if isinstance(column, list):
                column.clear()
    return values


def needs_a_column(completions: list[str], difficulty: list[float], **columns: Any) -> list[float]:
    return [honest(text) * weight for text, weight in zip(completions, difficulty, strict=True)]


def looks_for_a_column(completions: list[str], **columns: Any) -> list[float]:
    return [honest(text) * weight for text, weight in zip(completions, columns["difficulty"], strict=True)]


def without_columns(completions: list[str]) -> list[float]:
    return [honest(text) for text in completions]


def factory(scale: float = 1.0, **columns: Any) -> Any:
    """Returns a reward function, and is none."""

    def scaled(completions: list[str], **columns: Any) -> list[float]:
        return [scale * honest(text) for text in completions]

    return scaled


def logs(completions: list[str], kind: str, log_metric: Any, log_malformed: Any, **columns: Any) -> list[float]:
    """Honest, and tells something beside it."""
    if kind == "metric of nan":
        log_metric("seen", math.nan)
    elif kind == "metric with the name of another":
        log_metric("mean", 7.0)
    elif kind == "metric of text":
        log_metric("seen", "many")
    elif kind == "metric of a list":
        log_metric("seen", [1.0, 2.0])
    elif kind == "malformed, far away":
        log_malformed(len(completions), "task", "no such sample")
    elif kind == "malformed, before the first":
        log_malformed(-1, "task", "no such sample")
    else:
        log_malformed("first", "task", "no number")
    return score(completions)


def number_of_the_row(completions: list[str], number: list[Any], **columns: Any) -> list[float]:
    return [honest(text) + each for text, each in zip(completions, number, strict=True)]


def constant(completions: list[str], **columns: Any) -> list[float]:
    return [0.5] * len(completions)


NOT_A_FUNCTION = 3
