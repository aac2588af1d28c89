"""Mathematical answers; the pairs that math-verify alone gets wrong are marked as such."""

import threading

import pytest

from rewards.mathematics import answer as math_answer
from rewards.mathematics.answer import NotScored, math

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


NOTATIONS = [
    ("1.6e-19", r"1.6 \times 10^{-19}"),
    ("3 1/2", "3.5"),
    (r"\frac{7}{2}", "3 1/2"),
    ("3.5", "3½"),
    ("1 000 000", "1000000"),
    ("1000000", r"1\,000\,000"),
    ("1000000", "1 million"),
    (r"1, 2, \ldots, n", r"1,2,\ldots,n"),
    (r"x \equiv 5 \pmod 7", r"x \equiv 12 \pmod{7}"),
    (r"x \equiv 5 \pmod 7", r"5 \pmod 7"),
    ("5", r"x \equiv 5 \pmod 7"),
    (r"30^\circ", "30°"),
    (r"30^\circ", r"30 \text{ degrees}"),
    (r"30^\circ", r"\frac{\pi}{6}"),
    ("30", r"30^\circ"),
    (r"0.1\overline{6}", "1/6"),
    (r"1 \pm \sqrt{2}", r"1+\sqrt2, 1-\sqrt2"),
    ("3, 2", r"x = 2 \text{ or } x = 3"),
    ("[0,1)", r"x \in \left[0, 1\right)"),
    (r"\begin{pmatrix} 1/2 \\ 2 \end{pmatrix}", r"\begin{pmatrix}0.5\\2\end{pmatrix}"),
    ("y=2x+3", "3+2x"),
    ("x>3", "3<x"),
    (r"x > 1.6 \times 10^{-19}", "x > 1.6e-19"),
    (r"(-\infty, 0) \cup (1, 2)", r"(1,2)\cup(-\infty,0)"),
    (r"\frac{R}{r}", "R/r"),
    (r"50\%", "50 percent"),
    (r"\$5", "5"),
    ("A", "(A)"),
    ("5", "x=2+3=5"),
]
MISREAD = [
    ("1.6e-19", "1.7e-19"),
    (r"1.6 \times 10^{-19}", r"1.7 \times 10^{-19}"),
    (r"x = 1.6 \times 10^{-19}", r"x = 1.7 \times 10^{-19}"),
    (r"(1.6 \times 10^{-19}, 1)", r"(1.7 \times 10^{-19}, 1)"),
    (r"x > 1.6 \times 10^{-19}", r"x > 1.7 \times 10^{-19}"),
    (r"(0, 1.6 \times 10^{-19}) \cup (1, 2)", r"(0, 1.7 \times 10^{-19}) \cup (1, 2)"),
    (r"1.6 \times 10^{-19} \text{ C}", r"1.7 \times 10^{-19} \text{ C}"),
    (r"\frac{\pi}{10^{20}}", r"\frac{2\pi}{10^{20}}"),
    ("10^{-20}x", r"2 \cdot 10^{-20}x"),
    ("2", "3 1/2"),
    ("3 1/2", "2"),
    ("0", "1 000 000"),
    ("2", r"1, 2, \ldots, n"),
    ("11", "5 6"),
    ("6", "5 # 6"),
    ("42", r"12^\circ 30'"),
    (r"x \equiv 5 \pmod 7", r"x \equiv 4 \pmod 7"),
    (r"x \equiv 5 \pmod 7", r"x \equiv 5 \pmod 8"),
    ("7", r"x \equiv 5 \pmod 7"),
    (r"30^\circ", "30"),
    (r"\sin 30^\circ", r"\sin 30"),
    ("5", "5 million"),
    ("5", "5 squared"),
    ("5", "5,5"),
    ("5", "2+2=5"),
    ("no solution", "solution no"),
    ("1", r"\frac{R}{r}"),
    ("12:30", "2:05"),
    ("x", "x'"),
    (r"\{1,2\}", r"\{1,2,2\}"),
]
"""Answers that were paid, or that a reading which leaves something out would pay."""
UNREADABLE = [
    "((((",
    r"\boxed{}",
    "$$",
    r"\frac{",
    "<answer></answer>",
    "####",
    "5 # 6",
    "9^{9^{9^9}}",
    "it is 42 apples",
]
BOUNDLESS = [
    *(
        "9^9^9^9",
        "9**9**9**9",
        "9^{9^{9}}",
        "10^{10^{10}}",
        "2^{9999999!}",
        "99999999!",
        "(9999!)!",
        "9!!!",
        "1e999999999",
    ),
    *(r"\binom{1000000000}{500000000}", "x^{1000000000}", "(" * 5000 + "5" + ")" * 5000, r"\frac{1}{" * 90, "7" * 5000),
    *("{" * 1000, r"\boxed{" * 1000, "*" * 100000, "1+" * 50000 + "1", "-" * 2000 + "5", "^" * 500),
]


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch):
    """A busy machine loses no pair here; what is about the deadline sets its own."""
    monkeypatch.setattr(math_answer, "DEADLINE", 60.0)


def score(completion, reference):
    return math(prompts=["p"], completions=[completion], answer=[reference])[0]


@pytest.mark.parametrize(("reference", "answer"), RIGHT + NOTATIONS)
def test_right_answers(reference, answer):
    assert score(rf"First 77. So \boxed{{{answer}}}", reference) == 1.0
    assert score(rf"\boxed{{{answer}}}", rf"It follows that \boxed{{{reference}}}.") == 1.0


@pytest.mark.parametrize(
    "completion",
    [
        *(
            "**73**",
            "`73`",
            "<b>73</b>",
            "# 73",
            "$73$",
            r"\[ 73 \]",
            "<answer>73</answer>",
            "<answer>\n**73**\n</answer>",
        ),
        *("The answer is **73**.", "**Answer:** 73", "**Final answer: 73**", r"Answer: \(x = 73\)", r"\boxed{**73**}"),
        *(r"<think>\boxed{5}</think><answer>73</answer>", r"\boxed{\mathbf{73}}", "The answer is $x=73$, as 70+3 is."),
    ],
)
def test_markup_is_not_the_answer(completion):
    assert score(completion, "73") == 1.0
    assert score(completion, "74") == 0.0


@pytest.mark.parametrize("completion", ["<answer>74</answer> 73", "<answer>73", "<answer></answer> 73", "**74** 7 3"])
def test_markup_does_not_hide_another_answer(completion):
    assert score(completion, "73") == 0.0


@pytest.mark.parametrize("reference", UNREADABLE)
@pytest.mark.parametrize("completion", [r"\boxed{5}", ""])
def test_a_reference_that_cannot_be_read_is_an_error_of_its_row(reference, completion):
    """It used to be a wrong answer of every sample."""
    with pytest.raises(NotScored, match=r"sample 1: the reference .* cannot be read"):
        math(completions=["5", completion], answer=["5", reference])


@pytest.mark.parametrize(
    "reference", [{73}, ["73"], (73,), {"value": 73}, b"73", True, float("inf"), float("nan"), 73j]
)
def test_a_reference_that_python_would_have_to_print_is_an_error_of_its_row(reference):
    """The text of a set, "{73}", was read as mathematics, and that of infinity as a word."""
    with pytest.raises(NotScored, match=r"sample 1: the reference is .*: give a text, or a finite number"):
        math(completions=["5", "73"], answer=["5", reference])
    assert math(completions=["73", "0.5"], answer=[73, 0.5]) == [1.0, 1.0]


@pytest.mark.parametrize("answer", BOUNDLESS)
def test_what_no_machine_should_compute_is_refused_by_its_text(answer, monkeypatch):
    """No deadline is needed: the same on every machine."""
    monkeypatch.setattr(math_answer, "algebra", lambda gold, given: pytest.fail("it reached algebra"))
    told = []
    assert math([rf"\boxed{{{answer}}}"], answer=["5"], log_malformed=lambda *one: told.append(one)) == [0.0]
    assert not answer.startswith("9^") or "exponent" in told[0][2]


def test_a_deadline_holds_in_any_thread(monkeypatch):
    """This integral of elementary functions keeps sympy busy for minutes."""
    assert score(r"\boxed{x+1}", "1+x") == 1.0  # the process is up
    monkeypatch.setattr(math_answer, "DEADLINE", 0.2)
    raised = []

    def ask():
        try:
            score(r"\boxed{\int e^{-x^2} \sin(x^3) dx}", "x^2")
        except NotScored as error:
            raised.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(30)
    assert "no answer within 0.2 s" in raised[0]


@pytest.mark.parametrize(("reference", "answer"), WRONG + PAID_BY_MATH_VERIFY + MISREAD)
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
