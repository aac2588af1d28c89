"""Mathematical answers; the pairs that math-verify alone gets wrong are marked as such."""

import pytest

from rewards.math_answer import math

RIGHT = [
    ("0.5", r"\frac12"),
    (r"\frac{1}{2}", "0.5"),
    ("0.333333", "1/3"),
    ("x^2-1", "(x-1)(x+1)"),
    ("1000", "1,000"),
    ("5", "x = 5"),
    ("5", r"5 \text{ cm}"),
    (r"5\text{ cm}", "5 cm"),
    (r"5 \text{ cm}^2", r"5\,\text{cm}^{2}"),
    ("1011_2", "1011_{2}"),
    ("0.00000001", "10^{-8}"),
    ("(1,2)", r"\left(1, 2\right)"),
    (r"\{1,2\}", "2, 1"),
    (r"\sqrt{2}", "1.414214"),
    ("Tuesday", r"\text{tuesday}"),
    ("2024-01-05", "2024-01-05"),
]
WRONG = [
    ("5", "6"),
    ("5", "-5"),
    ("0", "0.000000001"),
    ("5", "5, 6"),
    ("[0,1)", "(0,1)"),
    (r"\frac{1}{23}", r"\frac{12}{3}"),
    (r"\pi", "3.14"),
    ("5", ""),
    ("5", "(((("),
]
PAID_BY_MATH_VERIFY = [
    (r"5 \text{ cm}", "5"),
    (r"5 \text{ cm}", r"5 \text{ m}"),
    (r"5 \text{ cm}^2", r"5 \text{ cm}^3"),
    ("5 cm", "5 km"),
    ("1011_2", "1011_3"),
    ("1011_2", "1011"),
    ("0.00000001", "0.000000001"),
    (r"\{1,2\}", "(1,2)"),
    ("(1,2)", r"\{1,2\}"),
    ("2024-01-05", "2018"),
    (r"\text{Evelyn}", r"\text{Evelny}"),
]


def score(completion, reference):
    return math(prompts=["p"], completions=[completion], answer=[reference])[0]


@pytest.mark.parametrize(("reference", "answer"), RIGHT)
def test_right_answers(reference, answer):
    assert score(rf"First 77. So \boxed{{{answer}}}", reference) == 1.0
    assert score(rf"\boxed{{{answer}}}", rf"It follows that \boxed{{{reference}}}.") == 1.0


@pytest.mark.parametrize(("reference", "answer"), WRONG + PAID_BY_MATH_VERIFY)
def test_wrong_answers(reference, answer):
    assert score(rf"First {reference}. So \boxed{{{answer}}}", reference) == 0.0


@pytest.mark.parametrize(("reference", "answer"), PAID_BY_MATH_VERIFY[:-1])
def test_math_verify_alone_pays_the_wrong_answers_that_are_checked_for(reference, answer):
    """Negative control: a check that the library has made needless should go."""
    from math_verify import parse, verify

    assert verify(parse(rf"\boxed{{{reference}}}"), parse(rf"\boxed{{{answer}}}"))


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        (r"\boxed{4}, or rather \boxed{5}", True),
        (r"\boxed{5}, or rather \boxed{4}", False),
        (r"\boxed{\frac{10}{2}}", True),
        (r"\boxed{5", False),
        ("3 + 2 = 5\n#### 5", True),
        ("#### 5\n#### 6", False),
        ("The answer is 6. No, the answer is: 5.", True),
        ("so we get $x = 5$.", True),
        ("5 apples and 3 pears make 8", False),
        ("", False),
        ("no number at all", False),
    ],
)
def test_the_last_answer_counts(completion, right):
    assert score(completion, "5") == float(right)


def test_an_empty_reference_does_not_apply():
    assert math(completions=["5", "5"], answer=["5", " "]) == [1.0, None]


def test_the_column_may_be_called_solution():
    assert math(completions=[r"\boxed{5}"], solution=[5]) == [1.0]
    with pytest.raises(ValueError, match="needs a dataset column `answer` or `solution`"):
        math(completions=["5"])
