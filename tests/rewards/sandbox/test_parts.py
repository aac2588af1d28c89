"""What needs no sandbox: how programs are found, rows read, answers compared, calls filtered and reports understood."""

from __future__ import annotations

import json
import math
import os
from collections import Counter, OrderedDict, namedtuple
from types import SimpleNamespace

import pytest

from rewards.options import RewardOptions, RewardTerm
from rewards.registry import RewardError
from rewards.sandbox import choice, code, levels, run, runtime
from rewards.sandbox.cases import asserts_of, calls_of, stdio_of
from rewards.sandbox.compare import same_text, same_value
from rewards.sandbox.extract import code_of
from rewards.sandbox.guard import OVER_CPU, OVER_PROCESSES, OVER_TIME, Watch
from rewards.sandbox.inside.equality import with_plain_equality
from rewards.sandbox.inside.values import NotData, decode, encode
from rewards.sandbox.limits import Limits

FENCE = "```"


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("x = 1\n", "x = 1\n"),
        ("    return 1\n", "    return 1\n"),
        (f"First:\n{FENCE}python\na = 1\n{FENCE}\nthen\n{FENCE}python\nb = 2\n{FENCE}\n", "b = 2\n"),
        (f"{FENCE}py\na = 1\n{FENCE}\n{FENCE}\nshown\n{FENCE}", "a = 1\n"),
        (f"{FENCE}\na = 1\n{FENCE}", "a = 1\n"),
        (f"{FENCE}python\na = 1\n", "a = 1\n"),
        (f"{FENCE}bash\nls\n{FENCE}", ""),
        (f"{FENCE}{FENCE}python\ns = '{FENCE}'\n{FENCE}{FENCE}", f"s = '{FENCE}'\n"),
        (f"{FENCE}Python\na = 1\n{FENCE}", "a = 1\n"),
        ("", ""),
    ],
)
def test_the_program_of_a_completion(completion, program):
    assert code_of(completion) == program


@pytest.mark.parametrize(
    ("printed", "expected", "tolerance", "same"),
    [
        ("3\n", "3", None, True),
        ("3  \n4\n\n", "3\n4", None, True),
        ("3 4", "3\n4", None, False),
        (" 3", "3", None, False),
        ("", "0", None, False),
        ("0.1\n", "0.10", None, False),
        ("0.1\n", "0.10", 1e-9, True),
        ("0.11", "0.10", 1e-9, False),
        ("3", "4", 10.0, False),  # whole numbers have no tolerance
        ("nan", "nan", 1e-9, True),  # the same text
        ("1e400", "inf.", 1e-9, False),
        ("1_0.0", "10.0", 1e-9, False),
        ("YES", "yes", 1e-9, False),
    ],
)
def test_printed_texts(printed, expected, tolerance, same):
    assert same_text(printed, expected, tolerance) is same


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        (3, 3, True),
        (3.0, 3, True),
        (True, 1, False),
        (1, True, False),
        (0.1 + 0.2, 0.3, True),
        (0.31, 0.3, False),
        ((1, 2), [1, 2], True),
        ([1, (2, [3])], [1, [2, [3]]], True),
        ([1, 2], [1, 2, 3], False),
        ({1: "a"}, {"1": "a"}, True),
        ({1: "a", "1": "a"}, {"1": "a"}, False),
        ({"a": [1]}, {"a": [2]}, False),
        ("3", 3, False),
        (None, None, True),
        (None, 0, False),
        ({1}, [1], False),
        (math.nan, 1.0, False),
        (10**30, 1e30, True),
    ],
)
def test_returned_values(value, expected, same):
    assert same_value(json.dumps(encode(value)), expected, 1e-9) is same


@pytest.mark.parametrize("answer", ["", "nonsense", '{"l": 3}', '{"x": []}', '{"d": [[{"l": []}, 1]]}', "[" * 10**5])
def test_an_answer_that_no_value_wrote_is_wrong_and_nothing_worse(answer):
    assert not same_value(answer, [], 1e-9)


def test_an_answer_with_a_number_of_a_million_digits_is_wrong():
    assert not same_value("9" * 10**6, 9, 1e-9)


def test_values_are_data_and_come_back():
    Point = namedtuple("Point", "x y")

    class Whole(int):
        def __repr__(self):
            raise RuntimeError

    plain = [
        None,
        True,
        1,
        1.5,
        math.inf,
        "a",
        b"b",
        1j,
        (1, [2]),
        {3},
        frozenset({4}),
        {(1, 2): {"a": None}},
        range(3),
    ]
    assert decode(json.loads(json.dumps(encode(plain)))) == plain
    assert decode(encode([OrderedDict(a=1), Counter("aa"), Point(1, 2), Whole(3)])) == [{"a": 1}, {"a": 2}, (1, 2), 3]
    assert type(decode(encode(Whole(3)))) is int
    assert list(decode(encode(number for number in range(3)))) == [0, 1, 2]


class Always:
    def __eq__(self, other):
        return True

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("value", [Always(), [Always()], object, len, iter(int, 1)])
def test_objects_are_no_data(value):
    with pytest.raises(NotData):
        encode(value)


def test_what_contains_itself_is_no_data():
    held = []
    held.append(held)
    with pytest.raises(NotData):
        encode(held)


def test_an_object_that_equals_everything_equals_no_plain_value():
    for source, right in (("assert x == 3", False), ("assert 3 == x", False), ("assert y == [1, 2]", True)):
        namespace = {"x": Always(), "y": [1, 2]}
        try:
            exec(with_plain_equality(source, namespace), namespace)
            passed = True
        except AssertionError:
            passed = False
        assert passed is right, source


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "no JSON"),
        ("3", "must have lists"),
        ({"inputs": ["1"]}, "must have lists"),
        ({"inputs": [], "outputs": []}, "0 inputs and 0 outputs"),
        ({"inputs": ["1"], "outputs": []}, "1 inputs and 0 outputs"),
        ({"inputs": [3], "outputs": ["3"]}, "no text"),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error(row, message):
    with pytest.raises(ValueError, match=message):
        stdio_of("x", row, None)


def test_rows_of_the_other_kind_are_not_applicable():
    calls = {"fn_name": "f", "inputs": [[1]], "outputs": [1]}
    assert stdio_of("x", calls, None) is None
    assert calls_of("x", {"inputs": ["1"], "outputs": ["1"]}, 0.0, False) is None
    assert calls_of("x", None, 0.0, False) is None
    assert asserts_of("x", {"test": None}, False) is None
    assert stdio_of("x", {"inputs": [["1", "2"]], "outputs": ["3"]}, None).cases == ["1\n2"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"fn_name": "f()", "inputs": [[1]], "outputs": [1]}, "no name of a function"),
        ({"fn_name": "f", "inputs": [1], "outputs": [1]}, "a list of arguments"),
        ({"fn_name": "f", "inputs": [[1]], "outputs": [1]}, "must be a list of the expected value"),
    ],
)
def test_calls_that_cannot_be_read_are_an_error(row, message):
    with pytest.raises(ValueError, match=message):
        calls_of("x", row, 0.0, wrapped=True)


@pytest.mark.parametrize("row", [{"test_list": []}, {"test": "assert ("}, {"test": "pass", "entry_point": "a.b"}])
def test_tests_that_cannot_be_run_are_an_error(row):
    with pytest.raises(ValueError):
        asserts_of("x = 1", row, False)


def test_no_expected_result_is_sent_into_a_sandbox():
    stdio = stdio_of("x", {"inputs": ["in"], "outputs": ["secret"]}, None)
    calls = calls_of("x", {"fn_name": "f", "inputs": [["in"]], "outputs": ["secret"]}, 0.0, False)
    for task in (stdio, calls):
        assert "secret" not in json.dumps([task.program, task.cases])


def test_a_completion_goes_on_from_its_prefix_or_defines_the_function_anew():
    row = {"test": "pass", "entry_point": "f", "prefix": 'import math\ndef f(x):\n    """Twice."""\n'}
    assert asserts_of("    return 2 * x\n", row, False).program == row["prefix"] + "    return 2 * x\n"
    anew = f"{FENCE}python\ndef f(x):\n    return 2 * x\n{FENCE}"
    assert asserts_of(anew, row, False).program == row["prefix"] + "\ndef f(x):\n    return 2 * x\n"


@pytest.mark.parametrize(
    "limits", [{"seconds": 0}, {"memory_mib": -1}, {"processes": True}, {"file_mib": math.nan}, {"seconds": "3"}]
)
def test_limits_that_are_none_are_an_error(limits):
    with pytest.raises(ValueError, match="must be a positive number"):
        Limits(**limits)


def test_a_report_without_a_start_is_no_score():
    with pytest.raises(run.SandboxError, match=r"does not start a sandbox \(status 1\): bwrap: no"):
        run._outcomes(b"", 1, "bwrap: no", 2, levels.Weak())


def test_a_sandbox_that_something_outside_ended_is_no_score():
    with pytest.raises(run.SandboxError, match="ended from outside, by signal 9"):
        run._outcomes(b'{"kind": "started"}\n', -9, "", 2, levels.Weak())


def test_cases_that_a_sandbox_did_not_reach_have_the_reason_of_its_end():
    started = b'{"kind": "started"}\n'
    done = b'{"kind": "done", "text": "", "answer": "1"}\n'
    assert [each.kind for each in run._outcomes(started + done, OVER_TIME, "", 3, levels.Weak())] == [
        "done",
        "timeout",
        "timeout",
    ]
    assert [each.kind for each in run._outcomes(started + done[:-5], 0, "", 1, levels.Weak())] == ["killed"]
    killed = b'{"kind": "killed", "text": "", "answer": ""}\n'
    assert run._outcomes(started + killed, 125, "", 1, levels.Weak())[0].kind == "memory"


def test_a_tree_is_over_a_limit_together():
    here = [os.getpid()]
    assert Watch(100.0, 1e6, 10**6).breach(here) == 0
    assert Watch(-1.0, 1e6, 10**6).breach(here) == OVER_TIME
    assert Watch(100.0, 0.0, 10**6).breach(here) == OVER_CPU
    assert Watch(100.0, 1e6, 0).breach(here) == OVER_PROCESSES
    assert Watch(100.0, 0.0, 0).breach([]) == 0


def test_without_any_isolation_the_start_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(choice, "candidates", lambda allow: iter(()))
    monkeypatch.setattr(choice, "_chosen", {})
    term = RewardTerm("code_stdio")
    with pytest.raises(RewardError, match=r"no sandbox for code can be made here .*reward.allow_weak_sandbox=true"):
        code.code_stdio.prepare(RewardOptions({"code": term}), term)


def test_the_strongest_isolation_that_works_is_taken_and_found_once(monkeypatch):
    tried = []

    def check(level, found):
        tried.append(level.name)
        if level.name != "third":
            raise run.SandboxError("not here")

    names = ("first", "second", "third", "fourth")
    monkeypatch.setattr(choice, "candidates", lambda allow: iter([SimpleNamespace(name=name) for name in names]))
    monkeypatch.setattr(choice, "check", check)
    monkeypatch.setattr(choice, "_chosen", {})
    found = runtime.Runtime("python", (), (), (), "")
    assert choice.choose(found).name == "third"
    assert choice.choose(found).name == "third"
    assert tried == ["first", "second", "third"]


def test_a_process_that_ends_while_uids_are_looked_at_is_none(monkeypatch):
    monkeypatch.setattr(os.path, "isdir", lambda path: True)  # it lived a moment ago
    monkeypatch.setattr(levels, "_usable_uids", lambda: (os.getuid(), 2))
    monkeypatch.setattr(levels, "_accounts", lambda: {os.getuid()})
    monkeypatch.setattr(levels.os, "listdir", lambda folder: ["self", str(os.getpid()), "999999999"])
    assert levels.unused_uid() == os.getuid() + 1


def test_why_each_isolation_failed_is_said(monkeypatch):
    def check(level, found):
        raise run.SandboxError(f"{level.name} is forbidden")

    monkeypatch.setattr(choice, "candidates", lambda allow: iter([SimpleNamespace(name=name) for name in ("a", "b")]))
    monkeypatch.setattr(choice, "check", check)
    monkeypatch.setattr(choice, "_chosen", {})
    with pytest.raises(RewardError, match="a: a is forbidden; b: b is forbidden"):
        choice.choose(runtime.Runtime("python", (), (), (), ""))


def test_only_who_allows_it_gets_the_weak_isolation():
    assert [level.weak for level in levels.candidates(True)][-1]
    assert not any(level.weak for level in levels.candidates(False))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"secondss": 3}, "has no argument 'secondss'"),
        ({"limits": {"second": 3}}, "limits has second"),
        ({"limits": {"seconds": 0}}, "must be a positive number"),
        ({"workers": 0}, "workers is 0"),
        ({"modules": ["no_such_module"]}, "no_such_module"),
        ({"python": "/no/such/python"}, "/no/such/python cannot be run"),
    ],
)
def test_arguments_are_checked_before_the_start(arguments, message):
    term = RewardTerm("code_calls", args=arguments)
    with pytest.raises(RewardError, match=message):
        code.code_calls.prepare(RewardOptions({"code": term}), term)


def test_asserts_need_a_column_of_tests():
    with pytest.raises(RewardError, match="needs a column `test`"):
        code.code_asserts(["x"])
