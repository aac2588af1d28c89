"""What a reward function gave back, as numbers: one a sample, or one a sample for each criterion that its term names.

Nothing is guessed. A mapping is no batch of scores, though Python would walk over its keys, and a set has no order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from rewards.options import RewardTerm


def read(result: Any, term: RewardTerm) -> dict[str, Any]:
    """`{"values": [...]}`, as many as the function returned; of a term with criteria `{"criteria": {name: [...]}}`.

    Args:
        result: numbers or None; of a term with criteria a mapping of each to such, or a mapping (or None) a sample.

    Raises:
        TypeError: it is something else, or has other criteria than the term.
    """
    if not isinstance(result, Iterable) or isinstance(result, str | bytes | bytearray):  # bytes would be numbers
        raise TypeError(f"the reward function returned {_short(result)}; a list with one number a sample is expected")
    if isinstance(result, Set):
        raise TypeError("the reward function returned a set, which has no order; a list is expected")
    if not term.criteria:
        if _has_keys(result):
            raise TypeError(f"the reward function returned {_named(result)} by name: {_way_out(result)}")
        return {"values": [_number(value) for value in result]}
    if _has_keys(result):
        return {"criteria": _columns(result, term)}
    rows = [_row(row, term) for row in result]
    return {"criteria": {name: [row[name] for row in rows] for name in term.criteria}}


def _columns(result: Any, term: RewardTerm) -> dict[str, list[float | None]]:
    _check_names(result, term)
    columns = {name: [_number(value, name) for value in result[name]] for name in term.criteria}
    if len({len(column) for column in columns.values()}) > 1:
        lengths = {name: len(column) for name, column in columns.items()}
        raise TypeError(f"the criteria have different numbers of values: {lengths}; each needs one a sample")
    return columns


def _row(row: Any, term: RewardTerm) -> dict[str, float | None]:
    if row is None:
        return dict.fromkeys(term.criteria)
    if not isinstance(row, Mapping):
        raise TypeError(
            f"the reward function returned {_short(row)} for a sample, and its term has the criteria "
            f"{', '.join(term.criteria)}: return a number for each of them, by name, or leave `criteria` out"
        )
    _check_names(row, term)
    return {name: _number(row[name], name) for name in term.criteria}


def _check_names(scores: Mapping[Any, Any], term: RewardTerm) -> None:
    if set(scores.keys()) != set(term.criteria):
        raise TypeError(
            f"the reward function returned {_named(scores)}, and its term has the criteria {', '.join(term.criteria)}: "
            f"they must be the same"
        )


def _number(value: Any, criterion: str = "") -> float | None:
    of = f" for {criterion!r}" if criterion else ""
    if isinstance(value, str | bytes):  # float("1") would work, and hide a function that returns text
        raise TypeError(f"the reward function returned {value!r}{of} for a sample; a number or None is expected")
    if isinstance(value, Mapping):
        raise TypeError(f"the reward function returned {_named(value)} by name for a sample{of}: {_way_out(value)}")
    return None if value is None else float(value)


def _has_keys(result: Any) -> bool:
    """A mapping or a table by columns: iteration gives its names. A pandas Series, of one dimension, gives values."""
    return isinstance(result, Mapping) or (hasattr(result, "keys") and getattr(result, "ndim", 1) != 1)


def _named(scores: Any) -> str:
    names = [str(name) for name in scores.keys()]  # noqa: SIM118  # of a table, too
    return f"scores {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "no scores"


def _way_out(scores: Any) -> str:
    example = next((name for name in scores.keys() if isinstance(name, str)), "accuracy")  # noqa: SIM118
    return f"give their weights, as reward.terms.TERM.criteria.{example}=1, or return a list with one number a sample"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"a {type(value).__name__}"
