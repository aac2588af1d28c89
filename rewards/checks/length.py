"""How long a text is: 1 within bounds, less outside of them, on a slope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from rewards.checks.answers import scores

UNITS = ("characters", "words", "tokens")


def length(
    completions: list[str],
    completion_ids: Sequence[Sequence[int]] | None = None,
    unit: Literal["characters", "words", "tokens"] = "tokens",
    least: int | None = None,
    most: int | None = None,
    slope: int = 0,
    **_: Any,
) -> list[float | None]:
    """1 for a text of `least` to `most` units, 0 for one that is `slope` or more units away from that, and a straight
    line between.

    Args:
        unit: characters; words, which white space separates; or tokens of the policy, which only a run knows.
        least: units; None is no bound.
        most: units; None is no bound.
        slope: units from a bound to 0; with 0 there is nothing between 1 and 0.

    Raises:
        ValueError: no bound is given, they are none, or the tokens are not known.
    """
    if unit not in UNITS:
        raise ValueError(f"unit={unit!r} of length: choose {', '.join(UNITS)}")
    if least is None and most is None:
        raise ValueError("length needs a bound: set args.least, args.most or both")
    low, high = least or 0, float("inf") if most is None else most
    if not 0 <= low <= high or slope < 0:
        raise ValueError(f"least={least}, most={most}, slope={slope} of length: 0 <= least <= most and 0 <= slope")
    if unit == "tokens" and completion_ids is None:
        raise ValueError("unit=tokens of length needs the tokens of the completions: choose words or characters")

    def score(place: int, completion: str) -> float:
        if unit == "tokens":
            size = len(completion_ids[place])  # type: ignore[index]  # there are some, as was checked above
        else:
            size = len(completion.split()) if unit == "words" else len(completion)
        away = max(low - size, size - high, 0)
        return max(0.0, 1.0 - away / slope) if slope else float(away == 0)

    return scores("length", completions, score, None)
