"""GenEval's rules on boxes placed by hand."""

from __future__ import annotations

import pytest

from rewards.geneval.rules import OBJECTS, Found, correct, limits, relations, shaped, sure, wanted

SURE = 0.95


def at(x: float, y: float, size: float = 10, score: float = SURE) -> Found:
    """An object around a place."""
    return Found((x - size / 2, y - size / 2, x + size / 2, y + size / 2), score)


def no_colours(objects, kind):
    raise AssertionError("nobody asked for a colour")


def colours(*names: str):
    return lambda objects, kind: list(names)[: len(objects)]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((50, 0), {"right of"}),
        ((-50, 0), {"left of"}),
        ((0, -50), {"above"}),
        ((0, 50), {"below"}),
        ((50, 50), {"right of", "below"}),  # each component is a little over half of the way
        ((50, -20), {"right of"}),
        ((1.9, 0), set()),  # centres nearer than a tenth of both widths
        ((2.1, 0), set()),  # clear of that by little: less than half of the way
        ((5, 0), {"right of"}),  # (5 - 2) / 5
        ((3.9, 0), set()),  # (3.9 - 2) / 3.9
        ((0, 0), set()),
    ],
)
def test_where_an_object_lies(place, expected):
    assert relations(at(*place), at(0, 0)) == expected


def test_the_sizes_of_both_objects_count():
    assert relations(at(30, 0, size=10), at(0, 0, size=100)) == {"right of"}  # (30 - 11) / 30
    assert relations(at(20, 0, size=10), at(0, 0, size=100)) == set()  # (20 - 11) / 20


BENCH = [{"class": "bench", "count": 1}]
TWO = [{"class": "dog", "count": 2}]
NOT_THREE = [{"class": "dog", "count": 3}]
RED = [{"class": "bench", "count": 1, "color": "red"}]
BOTH_RED = [{"class": "dog", "count": 2, "color": "red"}]
LEFT = [{"class": "bench", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}]
RED_LEFT = [
    {"class": "bench", "count": 1, "color": "red"},
    {"class": "dog", "count": 1, "position": ["left of", 0]},
]


@pytest.mark.parametrize(
    ("include", "exclude", "found", "named", "verdict", "share"),
    [
        (BENCH, None, {"bench": [at(0, 0)]}, None, True, 1),
        (BENCH, None, {"bench": [at(0, 0), at(50, 0)]}, None, True, 0),  # more are no fault, and no exact count
        (BENCH, None, {"dog": [at(0, 0)]}, None, False, 0),
        (TWO, NOT_THREE, {"dog": [at(0, 0), at(9, 9)]}, None, True, 1),
        (TWO, NOT_THREE, {"dog": [at(0, 0)]}, None, False, 1 / 2),
        (TWO, NOT_THREE, {"dog": [at(0, 0), at(9, 9), at(30, 30)]}, None, False, 1 / 2),
        (TWO, NOT_THREE, {"dog": [at(i, i) for i in range(9)]}, None, False, 0),  # never below it
        (RED, None, {"bench": [at(0, 0)]}, ("red",), True, 1),
        (RED, None, {"bench": [at(0, 0)]}, ("blue",), False, 1 / 2),
        (BOTH_RED, None, {"dog": [at(0, 0), at(9, 9)]}, ("red", "blue"), False, 3 / 4),
        (BOTH_RED, None, {"dog": [at(0, 0), at(9, 9)]}, ("red", "red"), True, 1),
        (LEFT, None, {"bench": [at(90, 0)], "dog": [at(0, 0)]}, None, True, 1),
        (LEFT, None, {"bench": [at(0, 0)], "dog": [at(90, 0)]}, None, False, 2 / 3),
        (LEFT, None, {"dog": [at(0, 0)]}, None, False, 1 / 3),  # nothing to be left of
        (RED_LEFT, None, {"bench": [at(90, 0)], "dog": [at(0, 0)]}, ("blue",), False, 2 / 4),  # nor is a blue one
        (BENCH, [{"class": "cat", "count": 1}], {"bench": [at(0, 0)], "cat": [at(5, 5)]}, None, False, 1),
    ],
)
def test_verdicts(include, exclude, found, named, verdict, share):
    name = no_colours if named is None else colours(*named)
    assert correct(found, wanted(include), limits(exclude), name) is verdict
    assert shaped(found, wanted(include), name) == pytest.approx(share)


def test_the_surest_objects_are_looked_at():
    many = [at(index, 0, score=index / 40) for index in range(1, 40)]
    kept = sure({"dog": many, "cat": [at(0, 0, score=0.3)]}, 0.3)
    assert list(kept) == ["dog"]  # above, not at it
    assert [each.score for each in kept["dog"]] == sorted((each.score for each in many), reverse=True)[:16]
    left = {"bench": [at(90, 0)], "dog": [at(200, 0, score=0.5), at(0, 0, score=0.9)]}
    assert correct(sure(left, 0.3), wanted(LEFT), [], no_colours)  # the second dog is surer, and left


def test_the_objects_are_cocos():
    assert len(set(OBJECTS)) == 80
    assert {"computer mouse", "tv remote", "computer keyboard"} <= set(OBJECTS)
    assert "mouse" not in OBJECTS


@pytest.mark.parametrize(
    ("include", "message"),
    [
        (None, "`include` is a list of what should be there"),
        ([], "`include` is a list of what should be there"),
        ("bench", "`include` is a list of what should be there"),
        (["bench"], "have mappings, not 'bench'"),
        ([{"class": "unicorn", "count": 1}], "knows no object 'unicorn'"),
        ([{"class": "bench"}], "count of 'bench' is None; it must be 1 to 16"),
        ([{"class": "bench", "count": 17}], "count of 'bench' is 17"),
        ([{"class": "bench", "count": 1, "color": "teal"}], "knows no colour 'teal'"),
        ([{"class": "bench", "count": 1, "position": ["left of", 0]}], "the number of an earlier line"),
        ([*BENCH, {"class": "dog", "count": 1, "position": ["near", 0]}], "the number of an earlier line"),
    ],
)
def test_rows_that_ask_for_the_unknown_are_refused(include, message):
    with pytest.raises(ValueError, match=message):
        wanted(include)
