"""The soak of silent mistakes: ten of its runs, and that it would see a mistake which the system does not."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from rl.api import scoring
from rl.data.rows import DataError
from tests.benchmarks.mistakes.__main__ import FIELDS, drawn, soak, story, summary
from tests.benchmarks.mistakes.judge import Mistake, Outcome, judged
from tests.benchmarks.mistakes.workshop import Workshop


@pytest.mark.slow
def test_ten_mistakes_of_all_fields_end_right_or_are_refused(tmp_path: Path) -> None:
    done = list(soak(0, range(10), tmp_path))
    assert [story(each, 0) for each in done if each.verdict.outcome is Outcome.silent] == []
    assert {each.field for each in done} == set(FIELDS)
    assert summary(done, 0, 1.0)["runs"] == 10


def test_a_mistake_follows_from_its_seed_and_number_alone(tmp_path: Path) -> None:
    """So that one run can be had again."""
    both = [drawn(Workshop(tmp_path / name), 3, 36)[2].what for name in ("one", "other")]
    assert both[0] == both[1]
    others = {drawn(Workshop(tmp_path / str(seed)), seed, 36)[2].what for seed in range(4)}
    assert len(others) > 1


def of_kind(name: str, field: str, seed: int = 0) -> int:
    """The first run whose mistake is of a kind."""
    turns = itertools.count(list(FIELDS).index(field), len(FIELDS))
    return next(index for index in turns if Random(f"{seed}/{index}").choice(FIELDS[field]).__name__ == name)


def test_a_blind_check_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text in place of a list of references has a length, too; without the check each letter is one, and all ends
    well."""
    index = of_kind("a_text_for_all", "references")
    (seen,) = soak(0, [index], tmp_path / "seeing")
    assert seen.verdict.outcome is Outcome.refused
    monkeypatch.setattr(scoring, "_several", lambda values, what: list(values))
    (blind,) = soak(0, [index], tmp_path / "blind")
    counted = summary([blind], 0, 1.0)
    assert (counted["silent"], counted["refused"], counted["references/silent"]) == (1, 0, 1)
    told = story(blind, 0)
    assert f"run {index} of seed 0, references, a_text_for_all: {blind.mistake.what}" in told
    assert "the run ended well, and nothing was said" in told
    assert f"--seed 0 --only {index}" in told


def refuses(error: Exception) -> Mistake:
    def do() -> None:
        raise error

    return Mistake("a mistake", do, ("rows.jsonl/2", "prompt|question"), None)


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (DataError("problem rows.jsonl/2 has an empty question: fill it in"), None),
        (DataError("problem rows.jsonl/2 has an empty question"), "does not say what to do"),
        (DataError("a row is wrong: fill it in"), "lacks 'rows.jsonl/2', 'prompt|question'"),
        (KeyError("rows.jsonl/2 prompt: fill it in"), "an error of somebody else's"),
        (AssertionError("rows.jsonl/2 prompt: fill it in"), "an error of somebody else's"),
    ],
)
def test_a_refusal_names_cause_and_fix(error: Exception, seen: str | None) -> None:
    verdict = judged(refuses(error))
    assert verdict.outcome is (Outcome.refused if seen is None else Outcome.silent)
    assert (seen or "") in verdict.seen


def test_a_result_is_right_only_if_it_is_proven() -> None:
    def unproven(result: int) -> str:
        raise ZeroDivisionError

    assert judged(Mistake("m", lambda: 1, (), lambda result: "")).outcome is Outcome.right
    assert judged(Mistake("m", lambda: 1, ("x",), None)).outcome is Outcome.silent
    assert judged(Mistake("m", lambda: 1, (), lambda result: "other weights")).seen == "other weights"
    assert judged(Mistake("m", lambda: 1, (), unproven)).outcome is Outcome.silent
    refused = Mistake("m", refuses(DataError("rows.jsonl/2: remove the prompt")).do, (), lambda result: "")
    assert "refused, though it is no mistake" in judged(refused).seen


@pytest.mark.slow
def test_the_command_ends_in_one_flat_line_of_json() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.mistakes", "--seed", "0", "--only", "6"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["runs"], found["silent"], found["seed"]) == (1, 0, 0)
    assert all(isinstance(value, int | float) for value in found.values())
