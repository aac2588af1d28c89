"""What is said of an evaluation, for a reward that says what is solved and for one that does not."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from configs.schema import Config
from rewards.options import RewardOptions
from rewards.scoring.scores import Logged, Scores
from rl.data.tickets import Ticket, TicketKind
from rl.driver.train import print_summary
from rl.run.evaluation import Evaluation, gains, summary_of
from rl.run.folder import Run
from rl.run.scored import Scored

NAN = float("nan")
BEFORE = [-0.3, 0.1, NAN, 0.2, 0.1, 0.1]
AFTER = [0.3, 0.5, 0.9, 0.2, NAN, NAN]
"""Rewards of three problems with two samples each."""
TERMS = ("redness", "size")


def ticket_of(rewards: list[float], terms: tuple[str, ...] = TERMS) -> Scored:
    total = np.array(rewards)
    scores = Scores(total, {name: total * (number + 1) for number, name in enumerate(terms)}, [])
    scores.metrics = {"seen": Logged(total=4.0, samples=2)}
    ticket = Ticket(0, 0, 0, problem_indices=(0, 1, 2), samples=2, seed=7, kind=TicketKind.greedy)
    return Scored.of(ticket, [], None, {}, scores)


MODALITY = SimpleNamespace(rollout_metrics=lambda sums, samples: {"steps": 1.0})


def evaluation(rewards: list[float], terms: tuple[str, ...] = TERMS, solved_at: float | None = None) -> Evaluation:
    source = SimpleNamespace(columns=lambda indices, samples: (["p"] * 6, {}))
    options, sources = RewardOptions(solved_at=solved_at), {TicketKind.greedy: source}
    return Evaluation.of(3, [ticket_of(rewards, terms)], options, MODALITY, sources)


def test_a_continuous_reward_is_reported_and_never_as_unsolved():
    found = evaluation(BEFORE)
    metrics = found.metrics()
    assert not [name for name in found.row() if "solve" in name]
    assert metrics["evaluation/greedy/reward"] == pytest.approx((-0.1 + 0.2 + 0.1) / 3)  # a problem weighs as any other
    assert metrics["evaluation/greedy/reward_low"] < 0.0 < metrics["evaluation/greedy/reward_high"]
    assert metrics["evaluation/greedy/term/size"] == pytest.approx(2 * metrics["evaluation/greedy/term/redness"])
    assert metrics["evaluation/greedy/metric/seen"] == 2.0
    assert found.row()["terms/greedy/size"][0] == [-0.6, 0.2]
    assert found.line() == "greedy reward 0.067 [-0.106, 0.240] (redness 0.067, size 0.133)"
    assert (found.unscored, found.samples) == (1, 6)


def test_the_reward_stands_beside_the_solve_rate():
    found = evaluation(BEFORE, ("redness",), solved_at=0.2)
    assert found.metrics()["evaluation/greedy/solve_rate"] == pytest.approx(1 / 3)
    assert found.line().startswith("greedy 0.333 [")
    assert found.line().endswith("] solved, reward 0.067 [-0.106, 0.240]")
    np.testing.assert_array_equal(found.row()["solved/greedy"], [[0, 0], [NAN, 1], [0, 0]])


def test_an_evaluation_without_any_score_says_so_and_has_no_number():
    found = evaluation([NAN] * 6)
    assert found.line() == "greedy nothing scored"
    assert found.metrics().keys() == {"evaluation/greedy/steps", "evaluation/greedy/metric/seen"}


def test_an_update_of_which_nothing_was_scored_has_no_mean():
    """With max_failed_fraction=1 it goes on; its mean used to be 0, like that of a policy that always fails."""
    run = object.__new__(Run)
    run.config = Config(reward=RewardOptions(solved_at=0.2, max_failed_fraction=1.0))
    run.modality = MODALITY
    nothing, some = (run.batch_metrics(0, [ticket_of(rewards)], 0) for rewards in ([NAN] * 6, BEFORE))
    means = {"reward/mean", "reward/std", "reward/solve_rate", "reward/redness", "reward/size"}
    assert nothing["reward/unscored"] == 6
    assert not means & nothing.keys()
    assert means <= some.keys()


def test_gains_are_paired_over_the_problems_that_were_scored_both_times():
    summary = summary_of([evaluation(BEFORE).row(), evaluation(AFTER).row()])
    found = summary["held_out"]["greedy"]
    assert found.keys() == {"reward", "term/redness", "term/size"}
    reward = found["reward"]
    assert (reward["before"], reward["after"]) == (pytest.approx(1 / 15), pytest.approx((0.4 + 0.55) / 2))
    assert reward["gain"] == pytest.approx((0.5 + 0.35) / 2)
    half = 1.959964 * 0.15 / 2**0.5 / 2**0.5
    assert reward["ci95"]["gain"] == pytest.approx([0.425 - half, 0.425 + half])
    assert found["term/size"]["gain"] == pytest.approx(2 * reward["gain"])
    assert "eval_before" not in summary
    assert summary_of([evaluation(BEFORE).row()]) == {}


def test_solve_rates_keep_their_names_in_the_summary():
    summary = summary_of([evaluation(each, ("a",), solved_at=0.2).row() for each in (BEFORE, AFTER)])
    rate = summary["held_out"]["greedy"]["solve_rate"]
    assert (summary["eval_before"], summary["eval_after"]) == (rate["before"], rate["after"]) == (1 / 3, 1.0)
    assert summary["ci95"] == rate["ci95"]


def said(summary: dict) -> str:
    console = Console(file=io.StringIO(), width=150)
    costs = {"steps": 2, "seconds": 1.0, "stage_seconds": {}}
    run = SimpleNamespace(console=console, config=SimpleNamespace(run=SimpleNamespace(name="mine")), folder="runs/mine")
    print_summary(run, {**costs, **summary})
    return console.file.getvalue()


def test_the_table_has_the_reward_its_terms_and_a_solve_rate_only_where_it_is():
    table = said(summary_of([evaluation(BEFORE).row(), evaluation(AFTER).row()]))
    assert "solve rate" not in table
    (row,) = [line for line in table.splitlines() if "greedy, reward" in line]
    assert "0.067 [-0.106, 0.240]" in row
    assert "0.425 [0.278, 0.572]" in row
    assert "greedy, term/size" in table
    solved = said(summary_of([evaluation(each, ("a",), solved_at=0.2).row() for each in (BEFORE, AFTER)]))
    assert "greedy, solve rate" in solved
    assert "greedy, reward" in solved
    assert "term/" not in solved  # a single term is the reward


def test_what_an_earlier_version_did_not_keep_is_not_known():
    """Its rows have the mean reward, and not those of the problems."""
    old = {"update": 0, "evaluation/greedy/reward": 0.1}
    found = gains(old, evaluation(AFTER).row())["greedy"]
    assert (found["reward"]["before"], found["reward"]["gain"], found["reward"]["ci95"]["before"]) == (0.1, None, None)
    assert found["term/size"]["before"] is None
    assert "not known" in said({"held_out": {"greedy": found}})
