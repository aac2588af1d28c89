"""The page of reasoning-gym's verifiers says what a scan of them finds; a sample of the tasks is scanned again."""

import numpy as np
import pytest

from docs.generate.attacks import finding as attacked
from docs.generate.attacks import library, tasks
from docs.generate.verifiers import PAGE, Verdict, row, wrong_labels
from rewards.known_tasks import GUARDED, KNOWN, REFUSED, WEAK
from rewards.reasoning import reasoning_gym
from rewards.scoring.scores import Failure


def here(function):
    """In this process: the sample has no text on which it would not end."""

    def score(request):
        failures = []

        def malformed(index, label, why):
            failures.append(Failure(index, "attacked", "malformed", why, request.completions[index], label))

        return np.array(function(request.completions, request.columns["entry"], log_malformed=malformed)), failures

    return score


@pytest.mark.parametrize(
    "task",
    ["boxnet", "chain_sum", "coin_flip", "complex_arithmetic", "game_of_life", "quantum_lock"],
)
def test_the_page_and_the_file_say_what_the_scan_finds(task):
    found = attacked(task, here(library))
    again = attacked(task, here(reasoning_gym)) if found.weak and task not in REFUSED else None
    verdict = Verdict(found, again)
    assert KNOWN[task] == verdict.row()
    assert [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{task}` |")] == [row(verdict)]


def test_every_task_has_a_verdict_and_the_unsafe_ones_are_refused_warned_of_or_checked():
    page = PAGE.read_text()
    assert sorted(KNOWN) == tasks()
    lines = {line.split("`")[1]: line.split(" | ")[1] for line in page.splitlines() if line.startswith("| `")}
    assert lines == {task: row["scorer"] for task, row in KNOWN.items()}
    unsafe = {task for task, row in KNOWN.items() if row["scorer"] == "unsafe"}
    assert REFUSED.keys() <= unsafe
    assert WEAK.keys() <= unsafe
    assert unsafe <= REFUSED.keys() | WEAK.keys() | GUARDED.keys()
    assert not WEAK.keys() & {*REFUSED, *GUARDED}
    assert all(row["why"] for task, row in KNOWN.items() if task in unsafe)


def test_the_page_has_every_task_that_is_known_to_be_bad():
    page = PAGE.read_text()
    assert f"Each of the {len(tasks())} tasks" in page
    for known in (REFUSED, WEAK, GUARDED):
        for task, reason in known.items():
            (line,) = [line for line in page.splitlines() if line.startswith(f"| `{task}` |")]
            assert reason in line


def test_one_syllogism_in_eight_has_a_wrong_label():
    assert 0.1 < wrong_labels(200) < 0.15
