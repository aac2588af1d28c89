"""Plain Python values as JSON and back: what a program returned becomes data where it was made, and is looked at
elsewhere. No object of a program ever leaves its process, and nothing is unpickled."""

from __future__ import annotations

import itertools
from typing import Any

ITEMS = 100_000
"""Of an iterator, that are still data."""
DEPTH = 100
_SCALARS: tuple[Any, ...] = (int, float, str, bytes, complex)
_COLLECTIONS: tuple[tuple[Any, str], ...] = ((list, "l"), (tuple, "t"), (set, "s"), (frozenset, "z"))


class NotData(Exception):
    """A value that is no plain data."""


def encode(value: Any, depth: int = DEPTH) -> Any:
    """What `json.dumps` can write. Numbers, texts, None, lists, tuples, sets, mappings, ranges and iterators, which are
    used up; an instance of a class made of one of these counts as that.

    Raises:
        NotData: it holds something else, or lies too deep.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if value - value == 0 else {"f": repr(value)}
    if depth == 0:
        raise NotData(f"nested in more than {DEPTH} levels")
    if kind in (bytes, bytearray):
        return {"b": bytes(value).hex()}
    if kind is complex:
        return {"c": [encode(value.real), encode(value.imag)]}
    if kind is range:
        return {"r": [value.start, value.stop, value.step]}
    for base, tag in _COLLECTIONS:
        if isinstance(value, base):
            return {tag: [encode(each, depth - 1) for each in base.__iter__(value)]}
    if isinstance(value, dict):
        return {"d": [[encode(key, depth - 1), encode(each, depth - 1)] for key, each in dict.items(value)]}
    for scalar in _SCALARS:
        if isinstance(value, scalar):  # an enumeration of numbers, or a text with methods
            return encode(_plain(scalar, value))
    if hasattr(kind, "tolist") and kind.__module__ == "numpy":
        return encode(value.tolist(), depth)
    if hasattr(kind, "__next__"):
        items = list(itertools.islice(value, ITEMS + 1))
        if len(items) > ITEMS:
            raise NotData(f"an iterator of more than {ITEMS} items")
        return {"i": [encode(each, depth - 1) for each in items]}
    raise NotData(f"an object of type {kind.__name__!s:.60}")


def _plain(base: Any, value: Any) -> Any:
    if base is int:
        return int.__add__(value, 0)
    if base is float:
        return float.__add__(value, 0.0)
    return base.__add__(value, base()) if base is not complex else complex.__add__(value, 0)


def decode(data: Any) -> Any:
    """The value again.

    Raises:
        NotData: no `encode` wrote it.
    """
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if not isinstance(data, dict) or len(data) != 1:
        raise NotData("not what was encoded")
    [(tag, held)] = data.items()
    try:
        return _DECODE[tag](held)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotData(f"not what was encoded: {error}") from None


def _all(held: list[Any]) -> list[Any]:
    if not isinstance(held, list):
        raise NotData("not what was encoded")
    return [decode(each) for each in held]


_DECODE: dict[str, Any] = {
    "f": lambda held: {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}[held],
    "b": bytes.fromhex,
    "c": lambda held: complex(*_all(held)),
    "r": lambda held: range(*held),
    "l": _all,
    "t": lambda held: tuple(_all(held)),
    "s": lambda held: set(_all(held)),
    "z": lambda held: frozenset(_all(held)),
    "d": lambda held: {decode(key): decode(each) for key, each in held},
    "i": lambda held: iter(_all(held)),
}
