"""The page of reasoning-gym's verifiers says what a scan of them finds; a sample of the tasks is scanned again."""

import numpy as np
import pytest

from docs.generate.verifiers import PAGE, finding, library, row, tasks, wrong_labels
from rewards.known_tasks import GUARDED, REFUSED, WEAK
from rewards.scoring.scores import Failure


def here(request):
    """`library` in this process: the sample has no text on which it would not end."""
    failures = []

    def malformed(index, label, why):
        failures.append(Failure(index, "library", "malformed", why, request.completions[index], label))

    return np.array(library(request.completions, request.columns["entry"], malformed)), failures


@pytest.mark.parametrize(
    "task", ["boxnet", "chain_sum", "coin_flip", "complex_arithmetic", "game_of_life", "gsm_symbolic"]
)
def test_the_page_says_what_the_scan_finds(task):
    found = row(finding(task, here))
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{task}` |")]
    assert lines == ([] if found is None else [found])


def test_the_page_has_every_task_that_is_known_to_be_bad():
    page = PAGE.read_text()
    assert f"Each of the {len(tasks())} tasks" in page
    for known in (REFUSED, WEAK, GUARDED):
        for task, reason in known.items():
            (line,) = [line for line in page.splitlines() if line.startswith(f"| `{task}` |")]
            assert reason in line


def test_one_syllogism_in_eight_has_a_wrong_label():
    assert 0.1 < wrong_labels(200) < 0.15
