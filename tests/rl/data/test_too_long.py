"""A row beyond the limits ends the run, or is left out and counted, whichever the user chose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.compose import compose
from rl.data.rows import DataError
from rl.data.tickets import TicketKind
from rl.driver.train import Plan, planned

LONG = "1 " * 70


def plan(tmp_path: Path, rows: list[dict], *words: str) -> Plan:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    name = f"data.train.name={tmp_path / 'a.jsonl'}"
    tickets = ["rollout.prompts_per_update=2", "rollout.prompts_per_ticket=2"]
    none = ["data.evaluation=null", "evaluation.every=0"]
    return planned(compose(["recipe=quickstart", "data=jsonl", name, "reward=math", *none, *tickets, *words]))


ROWS = [{"prompt": prompt, "answer": "2", "response": "2"} for prompt in ("1 + 1", LONG, "2", LONG, "3")]


def test_a_prompt_that_is_too_long_ends_the_run_unless_it_is_to_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl/1 has \d+ tokens, more than data\.max_prompt_tokens=64.*leave_out"):
        plan(tmp_path, ROWS)
    left = plan(tmp_path, ROWS, "data.too_long=leave_out")
    problems = left.sources[TicketKind.train].problems
    assert [problem.id for problem in problems] == ["a.jsonl/0", "a.jsonl/2", "a.jsonl/4"]
    assert left.schedule.num_problems == 3
    (note,) = left.notes
    assert note.startswith("the training problems: 2 of 5 problems are too long and left out")
    assert "a.jsonl/1 has" in note
    all_of_them = plan(tmp_path, ROWS, "data.max_prompt_tokens=200", "data.too_long=leave_out")
    assert (len(all_of_them.sources[TicketKind.train].problems), all_of_them.notes) == (5, ())
    assert all_of_them.sources[TicketKind.train].problems.fingerprint() != problems.fingerprint()


def test_a_demonstration_that_is_too_long_is_left_out_where_it_is_trained_on(tmp_path: Path) -> None:
    rows = [*ROWS[:1], {"prompt": "5", "answer": "5", "response": LONG}]
    assert len(plan(tmp_path, rows, "data.too_long=leave_out").sources[TicketKind.train].problems) == 2
    trained = plan(tmp_path, rows, "data.too_long=leave_out", "algorithm=sft")
    assert len(trained.sources[TicketKind.train].problems) == 1


def test_other_faults_end_the_run_all_the_same_and_so_does_leaving_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty prompt"):
        plan(tmp_path, [*ROWS, {"prompt": " ", "answer": "2"}], "data.too_long=leave_out")
    with pytest.raises(DataError, match="1 of 1 problems are too long, and none is left"):
        plan(tmp_path, ROWS[1:2], "data.too_long=leave_out")


def test_the_other_sources_do_the_same(tmp_path: Path) -> None:
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    held = [f"data.evaluation.name={tmp_path / 'held.jsonl'}", "data.evaluation.kind=file", "evaluation.every=1"]
    left = plan(tmp_path, ROWS[:1] * 2, *held, "data.too_long=leave_out")
    assert len(left.sources[TicketKind.greedy].problems) == 3
    assert left.notes[0].startswith("data.evaluation: 2 of 5")
