"""The runner on a toy package: a test that notices one change and is blind to another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.mutants.mutations import Mutant, sample
from tests.mutants.report import Result, Row, lines_of, read_accepted, wilson
from tests.mutants.runner import ARGUMENTS, Outcome, Verdict
from tests.mutants.table import ROOT, TARGETS, source_of

TOY = '''"""A docstring with the number 1."""

from collections.abc import Callable

LIMIT = 3
Function = Callable[[int], int]


class Toy:
    @property
    def doubled(self) -> "list[1]":
        return [number * 2 for number in (LIMIT, 0)]


def checked(value: int) -> int:
    message = "a" + "b"
    assert value > 1
    if value < LIMIT:
        raise ValueError(f"{value + 1} is {value - 1}, {message}")
    return value
'''
TESTS = """import pytest
import toy
from toy import LIMIT, Toy


def test_it() -> None:
    assert Toy().doubled[0] == 6
    assert LIMIT == 3
    assert toy.checked(3) == 3


def test_last() -> None:
    assert True
"""
RUN = """
import json, sys
from pathlib import Path
from tests.mutants.runner import Limit, Task, measure, preload, run_all

root = Path(sys.argv[1])
path = root / "toy.py"
source = path.read_text()
baseline = measure(["test_toy.py"], root)
preload(baseline, root)
assert "toy" not in sys.modules
loops = source.replace("    return value\\n", "    while True:\\n        pass\\n")
texts = [*sys.argv[2:], loops, "1 +"]
limits = [Limit(120, 60)] * len(sys.argv[2:]) + [Limit(120, 3), Limit(120, 60)]
tasks = [
    Task(["test_toy.py"], "toy", path, text, baseline.durations, limit)
    for text, limit in zip(texts, limits, strict=True)
]
outcomes = dict(run_all(tasks, root, jobs=2))
print(json.dumps([[outcomes[i].verdict.value, outcomes[i].by] for i in range(len(tasks))]))
(root / "test_toy.py").write_text("def test_it() -> None:\\n    assert False\\n")
try:
    measure(["test_toy.py"], root)
except RuntimeError as error:
    print(str(error).splitlines()[0])
"""


def mutants_of_toy() -> list[Mutant]:
    return sample(TOY, 1000, 0)[0]


def test_only_what_can_change_behaviour_is_mutated() -> None:
    mutants = mutants_of_toy()
    assert {(mutant.function, mutant.diff) for mutant in mutants} >= {
        ("", "- LIMIT = 3\n+ LIMIT = 4"),
        ("checked", "- if value < LIMIT:\n+ if value <= LIMIT:"),
        (
            "Toy.doubled",
            "- return [number * 2 for number in (LIMIT, 0)]\n+ return [number / 2 for number in (LIMIT, 0)]",
        ),
    }
    changed = [line for mutant in mutants for line in mutant.diff.splitlines() if line.startswith("- ")]
    for text in ("docstring", "Callable", "property", "list[1]", "assert", "raise"):
        assert not any(text in line for line in changed), text
    assert {mutant.line for mutant in mutants} == {
        number for number, line in enumerate(TOY.splitlines(), 1) if f"- {line.strip()}" in changed
    }


def test_the_sample_is_the_seed_s_and_holds_every_operator() -> None:
    assert sample(TOY, 5, 0) == sample(TOY, 5, 0)
    assert sample(TOY, 5, 0) != sample(TOY, 5, 1)
    everything = mutants_of_toy()
    assert len({mutant.source for mutant in everything}) == len(everything)
    operators = {mutant.operator for mutant in everything}
    assert {mutant.operator for mutant in sample(TOY, len(operators), 0)[0]} == operators


def test_changes_that_compile_to_the_same_are_left_out() -> None:
    assert {mutant.diff for mutant in sample("x = -0\n", 100, 0)[0]} == {"- x = -0\n+ x = -1", "- x = -0\n+ x = None"}
    assert sample("x = -2\n", 100, 0)[1] == 3  # the third is + for -


@pytest.mark.processes
def test_verdicts_of_a_toy_package(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "test_toy.py").write_text(TESTS)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    blind = "- return [number * 2 for number in (LIMIT, 0)]\n+ return [number * 2 for number in (LIMIT, 1)]"
    seen = "- LIMIT = 3\n+ LIMIT = 4", "- if value < LIMIT:\n+ if value <= LIMIT:"
    sources = {mutant.diff: mutant.source for mutant in mutants_of_toy()}
    script = [sys.executable, "-c", RUN, str(tmp_path), *(sources[diff] for diff in (*seen, blind))]
    ended = subprocess.run(script, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    verdicts, refusal = ended.stdout.splitlines()[-2:]
    assert yaml.safe_load(verdicts) == [
        ["killed", "test_toy.py::test_it"],
        ["killed", "test_toy.py::test_it"],
        ["survived", ""],
        ["timed out", "test_toy.py::test_it"],
        ["killed", "import of test_toy.py"],
    ]
    assert refusal == "the tests fail without any change: test_toy.py::test_it"


def test_our_own_tests_run_without_plugins() -> None:
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", *ARGUMENTS, "--collect-only", "tests/mutants/test_runner.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_report_names_survivors_and_their_reasons(tmp_path: Path) -> None:
    mutants = mutants_of_toy()[:4]
    verdicts = [Verdict.killed, Verdict.timed_out, Verdict.survived, Verdict.survived]
    results = [Result("toy", "toy", m, Outcome(v, "", 1.5)) for m, v in zip(mutants, verdicts, strict=True)]
    entry = {"module": "toy", "function": mutants[2].function, "diffs": [mutants[2].diff + "\n"], "reason": "because"}
    (tmp_path / "accepted.yaml").write_text(yaml.safe_dump([entry]))
    accepted = read_accepted(tmp_path / "accepted.yaml")
    row = Row.of("toy", results, accepted)
    assert row == Row("toy", mutants=4, killed=2, timed_out=1, survived=2, equivalent=1, seconds=6.0)
    assert row.rates["rate"][0] == 0.5
    assert row.rates["rate_without_equivalent"][0] == pytest.approx(2 / 3)
    text = "\n".join(lines_of(results, accepted))
    assert f"`toy.py:{mutants[2].line}` {mutants[2].function}: because" in text
    assert "**no reason given**" in text


def test_wilson_interval() -> None:
    """Newcombe (Statistics in Medicine 17, 1998), table I: 81 of 263."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def test_every_file_of_the_table_exists_and_every_reason_belongs_to_a_mutant() -> None:
    accepted = read_accepted()
    modules = [module for target in TARGETS for module in target.modules]
    assert len(set(modules)) == len(modules)
    for target in TARGETS:
        for name in (*target.tests, *target.wider):
            assert (ROOT / name).is_file(), name
    for module, function, _ in accepted:
        assert module in modules
        assert function == "" or f"def {function.split('.')[-1]}(" in source_of(module).read_text(), function
