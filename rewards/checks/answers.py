"""Where the answer of a completion is, and what is said of one that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

LogMalformed = Callable[[int, str, str], None]
"""(place, label, reason), as `rewards.registry` describes it."""


class Malformed(Exception):
    """The answer cannot be read; says why."""


def tagged(completion: str, tag: str | None) -> str:
    """The text in the last `<tag>...</tag>`, without white space around it; with tag None the whole completion.

    Raises:
        Malformed: there is no such tag, or the last one is not closed.
    """
    if tag is None:
        return completion.strip()
    opening, closing = f"<{tag}>", f"</{tag}>"
    start = completion.rfind(opening)
    if start < 0:
        raise Malformed(f"it has no {opening}")
    end = completion.find(closing, start)
    if end < 0:
        raise Malformed(f"its last {opening} is not closed")
    return completion[start + len(opening) : end].strip()


def scores(
    label: str,
    completions: Sequence[str],
    score: Callable[[int, str], float | None],
    log_malformed: LogMalformed | None,
) -> list[float | None]:
    """`score(place, completion)` of each; what raises Malformed is 0 and told.

    Raises:
        ValueError: whatever `score` says of the data, with the place of the sample.
    """
    found: list[float | None] = []
    for place, completion in enumerate(completions):
        if not isinstance(completion, str):
            raise TypeError(f"the reward {label!r} scores texts, not {type(completion).__name__}")
        try:
            found.append(score(place, completion))
        except Malformed as error:
            found.append(0.0)
            if log_malformed is not None:
                log_malformed(place, label, str(error))
        except ValueError as error:
            raise ValueError(f"sample {place}: {error}") from error
    return found


def column(name: str, values: Iterable[Any] | None, count: int) -> list[Any]:
    """The column as a list of one value a completion.

    Raises:
        ValueError: it is another number of values, or no column at all.
    """
    if values is None or isinstance(values, str | bytes | dict):
        raise ValueError(f"{name} must be a dataset column, one value a sample; got {values!r:.100}")
    found = list(values)
    if len(found) != count:
        raise ValueError(f"the column {name} has {len(found)} values for {count} completions")
    return found
