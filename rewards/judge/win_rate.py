"""The reward `judge_win_rate`: how often a judge prefers a sample to the others of its group.

Every pair is asked about twice, with either answer in front, because judges prefer a place (Zheng et al., arXiv
2306.05685, section 3.4). A sample's score is the mean over its opponents of

    verdict      1 if it is preferred both times, 0 if the other one is, 1/2 if the place decides
    expectation  (p + 1 - q) / 2, with p, q the probability of A over that of A and B when it stands first, second
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from rewards.judge.asking import Asking, Failed
from rewards.judge.rubric import checks, picture_part, prepared
from rewards.judge.template import PAIR
from rewards.remote.client import together

TEMPLATE = "pairwise"
LETTERS = {"A": 1.0, "B": 0.0}


async def judge_win_rate(
    prompts: list[str],
    completions: list[Any],
    groups: list[int] | None = None,
    log_failed: Callable[[int, str, str], None] = lambda place, status, why: None,
    log_metric: Callable[[str, float], None] = lambda name, value: None,
    **given: Any,
) -> list[float | None]:
    """N shares in [0, 1]; None for a sample that has nobody to be compared with.

    Args:
        groups: number of each sample's group: `per: group`.
        given: as for `judge`.

    Raises:
        ValueError: an argument is wrong, or whole groups are not given. Unavailable: the judge is down.
    """
    if groups is None:
        raise ValueError("judge_win_rate compares the samples of a group: set reward.terms.NAME.per=group")
    settings, template, columns = prepared(_on_letters(given), len(prompts), TEMPLATE, PAIR)
    pairs = [pair for members in _members(groups) for pair in opponents(members, settings.opponents)]
    found: dict[tuple[int, int], float | None] = {}
    reasons: dict[int, tuple[str, str]] = {}
    places_decide: list[bool] = []

    async def preferred(asking: Asking, first: int, second: int) -> float:
        """How much the first one is preferred, 0 to 1."""
        shown = [isinstance(completions[place], np.ndarray) for place in (first, second)]
        texts = [
            f"(picture {n + 1})" if is_picture else completions[place]
            for n, (place, is_picture) in enumerate(zip((first, second), shown, strict=True))
        ]
        values = {name: column[first] for name, column in columns.items()} | dict(settings.constants)
        try:
            asked = template.render(
                **values, prompt=prompts[first], first=texts[0], second=texts[1], scores=settings.words
            )
        except ValueError as error:
            raise Failed("error", str(error)) from None
        parts = [part for place in (first, second) if shown[0] for part in picture_part(completions[place])]
        content = [*parts, {"type": "text", "text": asked}] if parts else asked
        return (await asking.value(content))[""]

    async def compared(asking: Asking, one: int, other: int) -> None:
        if _same(completions[one], completions[other]):
            found[one, other] = 0.5
            return
        try:
            ahead, behind = await together([preferred(asking, one, other), preferred(asking, other, one)])
            found[one, other] = (ahead + 1 - behind) / 2
            places_decide.append((ahead > 0.5) == (behind > 0.5))
        except Failed as error:
            found[one, other] = None
            for place in (one, other):
                reasons.setdefault(place, (error.status, str(error)))

    async with Asking(settings) as asking:
        await together(compared(asking, one, other) for one, other in pairs)
        asking.tell(log_metric, len(prompts))
    if places_decide:
        log_metric("judge/place_decides", sum(places_decide) / len(places_decide))
    for place, (status, why) in sorted(reasons.items()):
        log_failed(place, status, why)
    return [None if place in reasons else _mean_of(place, found) for place in range(len(prompts))]


def opponents(members: list[int], limit: int | None) -> list[tuple[int, int]]:
    """Pairs of a group, each once. With a limit every sample is in `limit` of them, or one more where that is odd: its
    neighbours on a ring, so that who meets whom depends on nothing but their places."""
    count = len(members)
    reach = count - 1 if limit is None else min(count - 1, limit)
    steps = range(1, (reach + 1) // 2 + 1) if limit is not None and reach < count - 1 else range(1, count // 2 + 1)
    pairs = {
        tuple(sorted((members[place], members[(place + step) % count])))
        for step in steps
        for place in range(count)
        if count > 1
    }
    return sorted(pairs)  # type: ignore[arg-type]


def _members(groups: list[int]) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for place, group in enumerate(groups):
        found.setdefault(group, []).append(place)
    return list(found.values())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return one == other


def _mean_of(place: int, found: dict[tuple[int, int], float | None]) -> float | None:
    shares = [
        share if one == place else 1 - share
        for (one, other), share in found.items()
        if place in (one, other) and share is not None
    ]
    return float(np.mean(shares)) if shares else None


def _on_letters(given: Mapping[str, Any]) -> dict[str, Any]:
    if "scores" in given or given.get("mode") == "json":
        raise ValueError(
            "judge_win_rate has the scale A and B: leave args.scores out, and use mode=verdict or mode=expectation"
        )
    return {**given, "scores": LETTERS}


def _check(args: Mapping[str, Any], columns: Collection[str]) -> None:
    checks(PAIR, TEMPLATE)(_on_letters(args), columns)


judge_win_rate.check = _check  # type: ignore[attr-defined]
