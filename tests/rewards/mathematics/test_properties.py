"""Random answers that are right or wrong by construction: one value in many spellings, and other values."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rewards.mathematics import answer as math_answer
from rewards.mathematics.answer import math

INTEGERS = st.integers(-(10**9), 10**9)
FRACTIONS = st.fractions(-1000, 1000, max_denominator=500).filter(lambda value: value.denominator > 1)
UNITS = ("cm", r"\text{ kg}", r"\text{ hours}", " miles", r"\text{ apples}")


def spellings_of_integer(value: int) -> list[str]:
    sign, size = ("-" if value < 0 else ""), abs(value)
    return [
        f"{value}",
        f"{value:,}",
        f"{value:,}".replace(",", r"\,"),
        f"{value:,}".replace(",", "{,}"),
        f"{value}.0",
        f"{value}.",
        f"({value})",
        f"{value}".replace("-", "\N{MINUS SIGN}"),
        rf"{sign}\frac{{{3 * size}}}{{3}}",
        rf"x = {value}",
        rf"\mathbf{{{value}}}",
        f"${value}$",
        f"{value}e0",
        rf"{value} \times 10^{{0}}",
    ]


def spellings_of_fraction(value: Fraction) -> list[str]:
    sign, size = ("-" if value < 0 else ""), abs(value)
    above, below = size.numerator, size.denominator
    whole, rest = divmod(above, below)
    spelled = [
        rf"{sign}\frac{{{above}}}{{{below}}}",
        rf"{sign}\dfrac{{{above}}}{{{below}}}",
        rf"\frac{{{sign}{above}}}{{{below}}}",
        rf"{sign}\frac{{{7 * above}}}{{{7 * below}}}",
        f"{sign}{above}/{below}",
        rf"x = {sign}\frac{{{above}}}{{{below}}}",
    ]
    if whole:
        spelled += [rf"{sign}{whole}\frac{{{rest}}}{{{below}}}", f"{sign}{whole} {rest}/{below}"]
    return spelled


def spellings(value: Fraction) -> list[str]:
    return spellings_of_integer(int(value)) if value.denominator == 1 else spellings_of_fraction(value)


VALUES = st.one_of(INTEGERS.map(Fraction), FRACTIONS)
SPELLED = VALUES.flatmap(lambda value: st.tuples(st.just(value), st.sampled_from(spellings(value))))


@pytest.fixture(autouse=True)
def _cheap_algebra(monkeypatch):
    """Mixed numbers and equations are algebra's; what is tested here is what is read."""
    from rewards.mathematics.equality import equal

    monkeypatch.setattr(math_answer, "algebra", lambda gold, given: equal([(gold, given)])[0])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), value=VALUES)
def test_one_value_in_two_spellings_is_paid(data, value):
    reference, answer = (data.draw(st.sampled_from(spellings(value))) for _ in range(2))
    assert math([rf"So \boxed{{{answer}}}"], answer=[reference]) == [1.0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(one=SPELLED, other=SPELLED)
def test_two_values_are_not_paid_in_any_spelling(one, other):
    assume(one[0] != other[0])
    assert math([rf"So \boxed{{{other[1]}}}"], answer=[one[1]]) == [0.0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(one=SPELLED, change=st.sampled_from(["sign", "one more", "a tenth", "reciprocal", "digit dropped"]))
def test_a_value_with_a_likely_mistake_is_not_paid(one, change):
    value, spelled = one
    assume(value != 0)
    wrong = {
        "sign": -value,
        "one more": value + 1,
        "a tenth": value / 10,
        "reciprocal": 1 / value,
        "digit dropped": Fraction(int(abs(value)) // 10),
    }[change]
    assume(wrong != value)
    answer = str(wrong.numerator) if wrong.denominator == 1 else rf"\frac{{{wrong.numerator}}}{{{wrong.denominator}}}"
    assert math([rf"\boxed{{{answer}}}"], answer=[spelled]) == [0.0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(one=INTEGERS, other=INTEGERS, form=st.sampled_from(["boxes", "or", "prose", "perhaps", "marks", "list", "tags"]))
def test_two_guesses_are_never_paid(one, other, form):
    assume(one != other)
    completion = {
        "boxes": rf"\boxed{{{one}}}. \boxed{{{other}}}",
        "or": rf"\boxed{{{one} \text{{ or }} {other}}}",
        "prose": f"The answer is {one} or {other}.",
        "perhaps": f"It is {one}, perhaps {other}",
        "marks": f"#### {one}\n#### {other}",
        "list": rf"\boxed{{{one}, {other}}}",
        "tags": f"<answer>{one}</answer> <answer>{other}</answer>",
    }[form]
    assert math([completion] * 2, answer=[str(one), str(other)]) == [0.0, 0.0]


BESIDE = (
    *(
        "{a} + {b}",
        "{a} * {b}",
        "{a}^{b}",
        "{a}/ {b}",
        "{a} < {b}",
        "{a} to {b}",
        "({a}, {b})",
        "[{a}, {b})",
        "{a}:{b}",
    ),
    *("{a} and {b}", "{a} or {b}", "{a}, {b}", "{a} {b}", "{a} times {b}", "x > {b}", "x_{b}", "sqrt({b})", "not {b}"),
    *("about {b}", "the root of {b}", "more than {b}", "{b} million", "{b}x", "{b}!", "step {b}", "{b} if x < {a}"),
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    a=st.integers(2, 999),
    b=st.integers(1000, 9999),
    form=st.sampled_from(BESIDE),
    opening=st.sampled_from(["We get ", "The answer is ", "So it is ", "", "Answer: "]),
    dollar=st.booleans(),
)
def test_a_number_beside_another_thing_is_not_the_answer(a, b, form, opening, dollar):
    said = form.replace("{a}", str(a)).replace("{b}", str(b))
    completion = f"{opening}${said}$." if dollar else f"{opening}{said}."
    assert math([completion] * 2, answer=[str(a), str(b)]) == [0.0, 0.0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(value=INTEGERS, units=st.lists(st.sampled_from(UNITS), min_size=2, max_size=2, unique=True))
def test_units_are_kept_and_told_apart(value, units):
    reference = f"{value}{units[0]}"
    answers = [reference, f"{value}{units[1]}", f"{value}", f"{value + 1}{units[0]}"]
    assert math([rf"\boxed{{{each}}}" for each in answers], answer=[reference] * 4) == [1.0, 0.0, 0.0, 0.0]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(members=st.lists(st.integers(-99, 99), min_size=2, max_size=5, unique=True), shift=st.integers(1, 4))
def test_sets_have_no_order_and_tuples_have_one(members, shift):
    turned = members[shift % len(members) :] + members[: shift % len(members)]
    assume(turned != members)
    one, other = (", ".join(map(str, each)) for each in (members, turned))
    short = ", ".join(map(str, members[1:]))
    pairs = {
        (rf"\{{{one}\}}", rf"\{{{other}\}}"): 1.0,
        (rf"\{{{one}\}}", rf"\{{{short}\}}"): 0.0,
        (rf"\{{{one}\}}", f"({one})"): 0.0,
        (f"({one})", f"({one})"): 1.0,
        (f"({one})", f"({other})"): 0.0,
    }
    assert math([rf"\boxed{{{answer}}}" for _, answer in pairs], answer=[gold for gold, _ in pairs]) == list(
        pairs.values()
    )


@settings(max_examples=80, deadline=None, derandomize=True)
@given(text=st.text(max_size=60))
def test_any_text_is_scored_and_never_raises(text):
    """The reference is a number that hypothesis does not write by chance."""
    assert math([text, rf"\boxed{{{text}}}"], answer=["-9.87654321e77"] * 2) == [0.0, 0.0]
