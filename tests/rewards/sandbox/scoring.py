"""Scores code in a real scoring process and prints what came of it, as whichever user this is.

python -m tests.rewards.sandbox.scoring OPTIONS
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from rewards.options import RewardOptions, RewardTerm
from rewards.registry import RewardError
from rewards.sandbox import seccomp
from rewards.sandbox.inside import kernel
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import ScoreRequest

NAMES = ("code_stdio", "code_calls", "code_asserts")
STDIO = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
CALLS = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [3, 7]}
TESTS = ["assert add(1, 2) == 3", "assert add(3, 4) == 7"]
RIGHT = """
def add(a, b):
    return a + b


try:
    print(add(*map(int, input().split())))
except EOFError:
    pass
"""
PROGRAMS = [
    RIGHT,
    f"Here it is.\n```python\n{RIGHT}```\n",
    RIGHT.replace("a + b", "3"),
    "while True:\n    pass\n",
    "no code {",
]


def main(given: dict[str, Any]) -> dict[str, Any]:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("rewards").addHandler(handler)
    logging.getLogger("rewards").setLevel(logging.INFO)
    if given.get("forbidden"):  # namespaces, to this process and all that it starts
        kernel.filter_calls(seccomp.program())
    limits = {"case_seconds": 1.0, "cpu_seconds": 1.0}
    terms = {name: RewardTerm(name, args={"limits": limits, **given.get("args", {})}) for name in NAMES}
    options = RewardOptions(terms, timeout_seconds=120.0, **given.get("options", {}))
    scorer = Scorer(options)
    try:
        scorer.start()
    except RewardError as error:
        return {"refused": str(error)}
    count = len(PROGRAMS)
    found: dict[str, Any] = {"said": said, "failures": []}
    for name, cases in (("code_stdio", STDIO), ("code_calls", CALLS)):
        columns = {"input_output": [json.dumps(cases)] * count, "test_list": [TESTS] * count}
        scores = scorer.score(ScoreRequest(["Add two numbers."] * count, PROGRAMS, columns=columns))
        found |= {each: scores.terms[each].tolist() for each in (name, "code_asserts")}
        found[f"{name}/metrics"] = {metric: logged.mean for metric, logged in scores.metrics.items()}
        found["failures"] += [
            (each.index, each.term, each.kind) for each in scores.failures if each.kind != "not_applicable"
        ]
    scorer.stop()
    return found


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
