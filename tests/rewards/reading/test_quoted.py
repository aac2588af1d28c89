"""Flow-GRPO's formula, against values worked out by hand and against the definition of the distance."""

from __future__ import annotations

import functools
import random

import pytest

from rewards.reading.quoted import distance, nearness, quoted


@pytest.mark.parametrize(
    ("reading", "text", "expected", "whole"),
    [
        ("Open", "open", 1.0, 1.0),
        ("o p e n", "Open", 1.0, 1.0),
        ("", "open", 0.0, 0.0),
        ("opem", "open", 0.75, 0.75),
        ("pen", "open", 0.75, 0.75),
        ("opening hours", "open", 1.0, 0.0),  # among other words: nine letters too many are at most all of four
        ("openx", "open", 1.0, 0.75),
        ("something else", "open", 0.0, 0.0),
        ("New Yrok", "new york", 5 / 7, 5 / 7),
    ],
)
def test_the_nearness_of_readings(reading, text, expected, whole):
    assert nearness(reading, text) == pytest.approx(expected)
    assert nearness(reading, text, whole=True) == pytest.approx(whole)


def test_the_distance_is_levenshteins():
    """Written out as its recursive definition."""

    @functools.cache
    def defined(first: str, second: str) -> int:
        if not first or not second:
            return len(first) + len(second)
        if first[0] == second[0]:
            return defined(first[1:], second[1:])
        ways = (first[1:], second), (first, second[1:]), (first[1:], second[1:])
        return 1 + min(defined(*way) for way in ways)

    draw = random.Random(0)
    for _ in range(200):
        pair = ["".join(draw.choices("abc", k=draw.randrange(7))) for _ in range(2)]
        assert distance(*pair) == defined(*pair), pair


def test_a_prompt_asks_for_what_is_in_its_first_quotes():
    assert quoted('a cake with "Happy Birthday" beside a card with "you"') == "Happy Birthday"
    assert quoted("a cake without a text") is None


@pytest.mark.parametrize("prompt", ['a 5" nail', 'a sign that says ""', 'a sign that says "  "'])
def test_quotes_without_a_text_are_refused(prompt):
    with pytest.raises(ValueError, match="no text between a pair of them"):
        quoted(prompt)
