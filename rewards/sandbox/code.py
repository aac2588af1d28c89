"""Rewards of code: what a program prints, what its functions return, or whether its tests pass, in a sandbox.

Columns are named as in the common data sets. A program that fails is worth 0, with a reason; where no sandbox can be
made the functions raise. `docs/sandbox.md` says what is and is not protected.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from rewards.options import RewardOptions, RewardTerm
from rewards.registry import RewardError
from rewards.sandbox import choice, runtime
from rewards.sandbox.cases import Task, asserts_of, calls_of, stdio_of
from rewards.sandbox.limits import Limits
from rewards.sandbox.run import Outcome, SandboxError, run

REASONS = (
    "wrong_answer",
    "exception",
    "timeout",
    "memory",
    "output",
    "processes",
    "killed",
    "not_data",
    "no_code",
)
"""Why a sample did not pass its first failing case."""
Logs = Callable[[str, float], None]
Malformed = Callable[[int, str, str], None]


@dataclass(frozen=True)
class _Sandbox:
    """Arguments that all rewards of code share."""

    strict: bool
    workers: int
    limits: Limits
    runtime: runtime.Runtime

    @classmethod
    def of(cls, strict: bool, workers: int, limits: dict[str, float] | None, python: str | None, modules: Any) -> Any:
        if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 64:
            raise RewardError(f"workers is {workers!r}; it must be a number of sandboxes at one time, 1 to 64")
        try:
            given = Limits(**(limits or {}))  # type: ignore[arg-type]
        except TypeError:
            known = ", ".join(inspect.signature(Limits).parameters)
            raise RewardError(f"limits has {', '.join(limits or {})}; there are {known}") from None
        except ValueError as error:
            raise RewardError(str(error)) from None
        try:
            return cls(strict, workers, given, runtime.find(python, tuple(modules)))
        except runtime.RuntimeMissing as error:
            raise RewardError(str(error)) from error


def code_stdio(
    completions: list[str],
    input_output: list[Any],
    tolerance: float | None = None,
    strict: bool = False,
    workers: int = 2,
    limits: dict[str, float] | None = None,
    python: str | None = None,
    modules: list[str] | tuple[str, ...] = (),
    log_metric: Logs | None = None,
    log_malformed: Malformed | None = None,
    **_: Any,
) -> list[float | None]:
    """Programs that read standard input and print: the fraction of cases in which they print what is expected.

    Args:
        completions: texts; the last fenced block of Python is the program, or the whole text
            (`rewards.sandbox.extract`).
        input_output: as in APPS and TACO, JSON or a mapping: `{"inputs": [text, ...], "outputs": [text, ...]}`; lists
            of lines are joined. A row with `fn_name`, or None, is another reward's.
        tolerance: up to which printed numbers with a point may differ; None compares texts.
        strict: 1 for all cases, else 0.
        workers: sandboxes at one time.
        limits: those of `rewards.sandbox.limits.Limits` that are others, of one sample.
        python: the interpreter in the sandbox; None is this one, without its packages.
        modules: what programs may import beside the standard library.

    Returns:
        N scores, 0 to 1; None where the row has no such cases.

    Raises:
        RewardError, SandboxError: there is no sandbox. ValueError: a row cannot be read.
    """
    sandbox = _Sandbox.of(strict, workers, limits, python, modules)
    tasks = [stdio_of(text, row, tolerance) for text, row in zip(completions, input_output, strict=True)]
    return _scores(tasks, sandbox, log_metric, log_malformed)


def code_calls(
    completions: list[str],
    input_output: list[Any],
    tolerance: float = 1e-9,
    wrapped: bool = False,
    strict: bool = False,
    workers: int = 2,
    limits: dict[str, float] | None = None,
    python: str | None = None,
    modules: list[str] | tuple[str, ...] = (),
    log_metric: Logs | None = None,
    log_malformed: Malformed | None = None,
    **_: Any,
) -> list[float | None]:
    """Functions that are called: the fraction of calls that return what is expected.

    Args:
        input_output: as in APPS and TACO, JSON or a mapping: `fn_name`, the function or a method of a class `Solution`;
            `inputs`, a list of arguments for each call; `outputs`. A row without `fn_name`, or None, is another
            reward's.
        tolerance: up to which numbers that are not whole may differ, absolutely or relatively.
        wrapped: each of `outputs` is a list that holds the expected value, as in APPS.

    The other arguments, the result and the errors are those of `code_stdio`.
    """
    sandbox = _Sandbox.of(strict, workers, limits, python, modules)
    tasks = [calls_of(text, row, tolerance, wrapped) for text, row in zip(completions, input_output, strict=True)]
    return _scores(tasks, sandbox, log_metric, log_malformed)


def code_asserts(
    completions: list[str],
    test: list[Any] | None = None,
    entry_point: list[Any] | None = None,
    prefix: list[Any] | None = None,
    test_list: list[Any] | None = None,
    test_setup_code: list[Any] | None = None,
    test_imports: list[Any] | None = None,
    in_process: bool = False,
    strict: bool = False,
    workers: int = 2,
    limits: dict[str, float] | None = None,
    python: str | None = None,
    modules: list[str] | tuple[str, ...] = (),
    log_metric: Logs | None = None,
    log_malformed: Malformed | None = None,
    **_: Any,
) -> list[float | None]:
    """Tests that assert: of HumanEval (`test`, `entry_point`) or of MBPP (`test_list`, `test_setup_code`).

    Args:
        test: source of a function `check`, which is called with the function `entry_point`; without that, of asserts.
        prefix: HumanEval's `prompt`, under another name because functions are not given a column `prompt`: source in
            front of a completion, which goes on with it or defines `entry_point` anew.
        test_list: a list of asserts a sample, each a case.
        test_setup_code: source that the tests need, run before each.
        test_imports: a list of import statements a sample, which belong to that.
        in_process: run the tests in the program's process: for tests that need its objects, and open to programs that
            find the tests there. Otherwise they run in another one and call the program by name.

    The other arguments, the result and the errors are those of `code_stdio`.
    """
    sandbox = _Sandbox.of(strict, workers, limits, python, modules)
    if test is None and test_list is None:
        raise RewardError("code_asserts needs a column `test` (with `entry_point`) or a column `test_list`")
    columns = {
        "test": test,
        "entry_point": entry_point,
        "prefix": prefix,
        "test_list": test_list,
        "test_setup_code": test_setup_code,
        "test_imports": test_imports,
    }
    rows = [
        {name: column[i] for name, column in columns.items() if column is not None} for i in range(len(completions))
    ]
    tasks = [asserts_of(text, row, in_process) for text, row in zip(completions, rows, strict=True)]
    return _scores(tasks, sandbox, log_metric, log_malformed)


def _scores(
    tasks: list[Task | None], sandbox: _Sandbox, log_metric: Logs | None, log_malformed: Malformed | None
) -> list[float | None]:
    level = choice.choose(sandbox.runtime)

    def outcomes(task: Task | None) -> list[Outcome]:
        if task is None or not task.program.strip():
            return []
        found = run(
            task.program, task.mode, task.cases, sandbox.limits, level, sandbox.runtime, stop_early=sandbox.strict
        )
        for outcome in found:
            if outcome.kind == "tests_not_data":
                raise SandboxError(f"{outcome.text}, which is no data: set in_process for tests that need objects")
        return found

    with ThreadPoolExecutor(sandbox.workers, thread_name_prefix="sandbox") as pool:
        ran = list(pool.map(outcomes, tasks))
    scores: list[float | None] = []
    why: Counter[str] = Counter()
    for index, (task, found) in enumerate(zip(tasks, ran, strict=True)):
        if task is None:
            scores.append(None)
            continue
        verdicts = [task.verdict(place, outcome) for place, outcome in enumerate(found)] or ["no_code"]
        passed = sum(verdict == "passed" for verdict in verdicts) / len(verdicts)
        scores.append(float(passed == 1.0) if sandbox.strict else passed)
        reason = next((verdict for verdict in verdicts if verdict != "passed"), "passed")
        why[reason] += 1
        if log_malformed is not None and reason in ("no_code", "not_data"):
            text = next((each.text for each in found if each.kind == "not_data"), "there is no code in the text")
            log_malformed(index, "code", text)
    scored = sum(why.values())
    if log_metric is not None and scored:
        for reason in REASONS:
            log_metric(f"code_{reason}", why[reason] / scored)
    return scores


def _prepare(function: Callable[..., Any], options: RewardOptions, term: RewardTerm) -> str:
    """Before anything is scored: that the arguments are known, and that a sandbox can be made; says which."""
    known = inspect.signature(function).parameters
    if unknown := sorted(name for name in term.args if name not in known):
        raise RewardError(f"{term.function} has no argument {unknown[0]!r}; it has {', '.join(known)}")
    choice.allow_weak(options.allow_weak_sandbox)
    given = {name: term.args.get(name, known[name].default) for name in ("strict", "workers", "limits", "python")}
    sandbox = _Sandbox.of(**given, modules=term.args.get("modules", ()))
    return f"code runs in a sandbox of {choice.choose(sandbox.runtime).name}"


for _function in (code_stdio, code_calls, code_asserts):
    setattr(_function, "prepare", partial(_prepare, _function))  # noqa: B010  # no attribute that a type would know
