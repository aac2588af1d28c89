"""The rule by which proxy and truth part, on curves whose answer is plain; and that the page says what was measured."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.overoptimisation import verdict


def curve(truths: list[float], proxies: list[float], half: float = 0.05) -> list[dict[str, Any]]:
    return [
        {
            "update": 3 * place,
            "proxy": {"value": proxy, "low": proxy - half, "high": proxy + half},
            "truth": {"value": truth, "low": truth - half, "high": truth + half},
        }
        for place, (truth, proxy) in enumerate(zip(truths, proxies, strict=True))
    ]


def test_they_part_where_the_intervals_do() -> None:
    found = verdict(curve([0.3, 0.5, 0.45, 0.39, 0.2], [0.0, 1.0, 2.0, 3.0, 4.0]))
    assert (found["peak"]["update"], found["parts_at"]) == (3, 9)  # at 6 the intervals still meet


def test_they_do_not_part_while_the_truth_rises() -> None:
    assert verdict(curve([0.3, 0.4, 0.5], [0.0, 1.0, 2.0]))["parts_at"] is None


def test_a_policy_that_breaks_under_both_is_not_over_optimised() -> None:
    assert verdict(curve([0.3, 0.5, 0.1], [0.0, 1.0, -1.0]))["parts_at"] is None
