"""Rows of data sets as programs with cases: what goes into the sandbox, and what is kept out of it to compare with."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rewards.sandbox.compare import same_text, same_value
from rewards.sandbox.extract import code_of
from rewards.sandbox.inside.values import encode
from rewards.sandbox.run import Mode, Outcome


@dataclass(frozen=True)
class Task:
    program: str
    mode: Mode
    cases: list[Any]
    """What the sandbox is given; no expected result is among it."""
    right: Callable[[int, str], bool]
    """Whether the answer to the case at a place is the expected one."""

    def verdict(self, place: int, outcome: Outcome) -> str:
        """`passed`, or the reason why not."""
        if outcome.kind == "failed":
            return "wrong_answer"
        if outcome.kind != "done":
            return outcome.kind
        return "passed" if self.right(place, outcome.answer) else "wrong_answer"


def stdio_of(completion: str, row: Any, tolerance: float | None) -> Task | None:
    """Raises ValueError where the row cannot be read."""
    cases = _cases(row)
    if cases is None or "fn_name" in cases:
        return None
    inputs, outputs = ([_joined(each, name) for each in cases[name]] for name in ("inputs", "outputs"))
    return Task(
        code_of(completion), "stdio", inputs, lambda place, printed: same_text(printed, outputs[place], tolerance)
    )


def calls_of(completion: str, row: Any, tolerance: float, wrapped: bool) -> Task | None:
    """Raises ValueError where the row cannot be read."""
    cases = _cases(row)
    if cases is None or "fn_name" not in cases:
        return None
    name, inputs, outputs = cases["fn_name"], cases["inputs"], cases["outputs"]
    if not (isinstance(name, str) and name.isidentifier()):
        raise ValueError(f"input_output: fn_name is {name!r:.100}, no name of a function")
    for arguments in inputs:
        if not isinstance(arguments, list):
            raise ValueError(f"input_output: {name} is called with {arguments!r:.100}; a list of arguments is expected")
    if wrapped:
        for output in outputs:
            if not (isinstance(output, list) and len(output) == 1):
                raise ValueError(f"input_output: with wrapped, {output!r:.100} must be a list of the expected value")
        outputs = [output[0] for output in outputs]
    calls = [{"function": name, "arguments": [encode(each) for each in arguments]} for arguments in inputs]
    return Task(
        code_of(completion), "calls", calls, lambda place, answer: same_value(answer, outputs[place], tolerance)
    )


def asserts_of(completion: str, row: dict[str, Any], in_process: bool) -> Task | None:
    """Raises ValueError where the row cannot be read."""
    if row.get("test_list") is not None:
        tests = list(row["test_list"])
    elif row.get("test") is not None:
        tests = [row["test"]]
    else:
        return None
    if not tests or not all(isinstance(test, str) and test.strip() for test in tests):
        raise ValueError(f"the tests are {tests!r:.100}; a text, or a list of some texts, is expected")
    name = row.get("entry_point")
    if name is not None and not (isinstance(name, str) and name.isidentifier()):
        raise ValueError(f"entry_point is {name!r:.100}, no name of a function")
    if name is not None and row.get("test_list") is None:
        tests = [f"{test}\n\ncheck({name})\n" for test in tests]
    setup = "\n".join([*(row.get("test_imports") or ()), row.get("test_setup_code") or ""])
    for source in (setup, *tests):
        try:
            ast.parse(source)
        except (SyntaxError, ValueError, RecursionError) as error:
            raise ValueError(f"the tests of a row are no Python ({error}): {source:.100}") from None
    program = _with_prefix(completion, row.get("prefix") or "", name)
    cases = [{"setup": setup, "test": test} for test in tests]
    return Task(program, "within" if in_process else "apart", cases, lambda place, answer: True)


def _with_prefix(completion: str, prefix: str, name: str | None) -> str:
    """The program that a completion makes of what stands in front of it."""
    code = code_of(completion)
    if not prefix or not code.strip():
        return code
    anew = name is not None and re.search(rf"^(?:async\s+)?(?:def|class)\s+{name}\b|^{name}\s*=", code, re.M)
    return f"{prefix}\n{code}" if anew else prefix + code


def _cases(row: Any) -> dict[str, Any] | None:
    """The mapping of inputs and outputs; None without one."""
    if row is None or row == "":
        return None
    if isinstance(row, str):
        try:
            row = json.loads(row)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"input_output is no JSON ({error}): {row:.100}") from None
    if not isinstance(row, dict) or not all(isinstance(row.get(name), list) for name in ("inputs", "outputs")):
        raise ValueError(f"input_output must have lists `inputs` and `outputs`, and is {row!r:.100}")
    if len(row["inputs"]) != len(row["outputs"]) or not row["inputs"]:
        raise ValueError(
            f"input_output has {len(row['inputs'])} inputs and {len(row['outputs'])} outputs; as many of each, and "
            f"more than none, are expected"
        )
    return {name: value for name, value in row.items() if value is not None}


def _joined(text: Any, name: str) -> str:
    if isinstance(text, list) and all(isinstance(line, str) for line in text):
        return "\n".join(text)
    if not isinstance(text, str):
        raise ValueError(f"input_output: {text!r:.100} in {name} is no text")
    return text
