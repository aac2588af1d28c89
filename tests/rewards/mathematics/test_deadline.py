"""Every pair is answered in time, whatever is fed, and what it costs."""

from __future__ import annotations

import time

import pytest

from rewards.mathematics import answer as math_answer
from rewards.mathematics.answer import NotScored, math
from tests.rewards.mathematics.adversarial import COMPUTED, ENDLESS, REFUSED

BOUND = 6.0
"""Seconds that a pair may take."""
GENEROUS = 60.0
"""Seconds that no machine needs for one; what bounds a pair is asserted by its mechanism."""


def test_the_deadlines_of_a_pair_leave_room_for_a_new_process():
    """A pair takes its algebra, the grace of a process that does not stop, and the start of the next one."""
    assert math_answer.DEADLINE + math_answer.GRACE <= BOUND / 2


def test_there_are_enough_adversarial_answers():
    assert len({**REFUSED, **COMPUTED, **ENDLESS}) >= 60


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_told_apart_by_its_text_reaches_no_algebra(name, monkeypatch):
    """In a box, and as it stands."""
    monkeypatch.setattr(math_answer, "algebra", lambda gold, given: pytest.fail("it reached algebra"))
    text = REFUSED[name]
    start = time.monotonic()
    assert math([rf"\boxed{{{text}}}"], answer=["-17"]) == [0.0]
    assert math([text], answer=["-17"]) == [0.0]
    assert time.monotonic() - start < GENEROUS


@pytest.mark.parametrize("name", COMPUTED)
def test_what_is_computed_is_never_paid_and_ends(name, monkeypatch):
    monkeypatch.setattr(math_answer, "DEADLINE", 0.2)
    start = time.monotonic()
    outcome = []
    try:
        outcome = math([rf"\boxed{{{COMPUTED[name]}}}"], answer=[r"\sqrt{3}-17"])
    except NotScored as error:
        outcome = [str(error)]
    assert outcome == [0.0] or "no answer within" in outcome[0]
    assert time.monotonic() - start < GENEROUS
    math_answer._known.cache_clear()


@pytest.mark.parametrize("name", ENDLESS)
def test_a_loop_ends_at_the_deadline_and_the_process_goes_on(name, monkeypatch):
    assert math([r"\boxed{x+1}"], answer=["1+x"]) == [1.0]
    process = math_answer._process._process
    monkeypatch.setattr(math_answer, "DEADLINE", 0.2)
    monkeypatch.setattr(math_answer, "GRACE", 60.0)
    with pytest.raises(NotScored, match=r"no answer within 0.2 s"):
        math([rf"\boxed{{{ENDLESS[name]}}}"], answer=[r"\sqrt{2}+1"])
    math_answer._known.cache_clear()
    monkeypatch.undo()
    assert math([r"\boxed{x+1}"], answer=["1+x"]) == [1.0]
    assert math_answer._process._process is process


def test_a_process_that_does_not_stop_is_killed_and_the_next_pair_is_scored(monkeypatch):
    """The grace is negative here: the process is killed before its own alarm can ring, as one that is deaf to it."""
    assert math([r"\boxed{x+1}"], answer=["1+x"]) == [1.0]
    process = math_answer._process._process
    monkeypatch.setattr(math_answer, "GRACE", 0.2 - math_answer.DEADLINE)
    with pytest.raises(NotScored, match=r"no answer within 2 s"):
        math([rf"\boxed{{{ENDLESS['series']}}}"], answer=[r"\sqrt{2}+3"])
    assert process.poll() is not None
    monkeypatch.undo()
    assert math([r"\boxed{x+2}"], answer=["2+x"]) == [1.0]
    assert math_answer._process._process is not process


def test_all_calls_of_a_pair_share_its_deadline(monkeypatch):
    """Twelve claims would have had twelve deadlines."""
    asked = []

    class Slow:
        def start(self):
            pass

        def call(self, term, arguments, seconds):
            asked.append(arguments["columns"]["seconds"][0])
            time.sleep(0.05)
            return {"values": [1.0]}

    monkeypatch.setattr(math_answer, "_process", Slow())
    monkeypatch.setattr(math_answer, "DEADLINE", 0.12)
    boxes = " so ".join(rf"\boxed{{y+{number}}}" for number in range(9))
    with pytest.raises(NotScored, match=r"no answer within 0.12 s"):
        math([boxes], answer=["y+y+17"])
    assert asked[0] == 0.12
    assert asked == sorted(asked, reverse=True)
    assert len(asked) <= 3
    math_answer._known.cache_clear()


def test_numbers_need_no_algebra(monkeypatch):
    """The overhead of an ordinary pair is that of reading it; docs/mathematics.md has it in milliseconds."""
    monkeypatch.setattr(math_answer, "algebra", lambda gold, given: pytest.fail("it reached algebra"))
    answers = ["5", "-5", "5.0", "1,234", r"\frac{1}{2}", "1/2", "1.6e-19", r"3 \times 10^8", "50\\%", r"\$5", "5 cm"]
    for reference in answers:
        scores = math([rf"So \boxed{{{answer}}}." for answer in answers], answer=[reference] * len(answers))
        assert scores[answers.index(reference)] == 1.0
