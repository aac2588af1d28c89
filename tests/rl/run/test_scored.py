"""What a sample without a score costs its group, and what is reported of parts of a sum."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from configs.algorithm_options import AlgorithmOptions, TermScale
from configs.schema import Config
from rewards.options import Missing, RewardOptions, RewardTerm
from rewards.scoring.scores import Scores
from rl.algorithm.advantages import AdvantageEstimator
from rl.data.tickets import Ticket, TicketKind
from rl.driver.loop import Loop
from rl.run.scored import Scored, latency_metrics, paid_metrics

NAN = float("nan")


def scored(answer: list[float], paid: list[float] | None = None, update: int = 0) -> Scored:
    """Groups of three samples."""
    ticket = Ticket(0, update, 0, problem_indices=(0, 1), samples=3, seed=7, kind=TicketKind.train)
    values = np.array(answer)
    counted = {"answer": np.array(answer if paid is None else paid)}
    return Scored.of(ticket, ["first", "second"], None, {}, Scores(values, {"answer": values}, [], paid=counted))


def loop_of(reward: RewardOptions, algorithm: AlgorithmOptions) -> Loop:
    loop = object.__new__(Loop)
    loop.config = Config(reward=reward, algorithm=algorithm)
    loop.advantages, loop.update = AdvantageEstimator(algorithm), 0
    problems = [SimpleNamespace(condition="p"), SimpleNamespace(condition="q")]
    modality = SimpleNamespace(groups_per_prompt=lambda kind: 1, tree=lambda update: None)
    sources = {TicketKind.train: SimpleNamespace(problems=problems)}
    loop.generation = SimpleNamespace(modality=modality, sources=sources)  # type: ignore[assignment]
    return loop


@pytest.mark.parametrize(
    ("missing", "groups", "unknown"),
    [(Missing.drop_sample, ["first", "second"], 1), (Missing.drop_group, ["second"], 3)],
)
def test_an_incomplete_group_is_left_out_if_it_is_to_be(missing: Missing, groups: list[str], unknown: int) -> None:
    ticket = scored([0.0, 1.0, NAN, 0.0, 1.0, 1.0])
    loop = loop_of(RewardOptions(missing=missing), AlgorithmOptions())
    assert [group.trajectory for group in loop.groups([ticket])] == groups
    assert [loop.advantages.admits(*group) for group in loop.outcomes([ticket])] == [len(groups) == 2, True]
    assert np.isnan(ticket.compared(ticket.rewards, missing)).sum() == unknown


def test_a_group_that_is_left_out_counts_as_none_that_teaches() -> None:
    """Or refills would stop before there are as many as are wanted."""
    reward = RewardOptions(missing=Missing.drop_group, terms={"answer": RewardTerm("math")}, solved_at=1.0)
    loop = loop_of(reward, AlgorithmOptions(solved_band=(0.0, 1.0), filter_zero_variance=False))
    outcomes = loop.outcomes([scored([0.0, 1.0, NAN, 0.0, 1.0, 1.0])])
    assert [loop.advantages.admits(*group) for group in outcomes] == [False, True]


def test_terms_are_compared_by_what_is_paid_and_by_the_weights_of_their_update() -> None:
    ticket = scored([9.0, 1.0, 0.0, 9.0, 9.0, 0.0], paid=[1.0, 1.0, 0.0, 1.0, 0.5, 0.0], update=5)
    term = RewardTerm("math", weight=1.0, start_weight=3.0, weight_updates=10)
    loop = loop_of(RewardOptions(terms={"answer": term}), AlgorithmOptions(normalise_terms=TermScale.rank))
    np.testing.assert_allclose(loop.compared(ticket), 2.0 * np.array([[0.25, 0.25, -0.5], [0.5, 0.0, -0.5]]))


def test_what_is_paid_and_a_weight_that_moves_are_metrics() -> None:
    ticket = scored([9.0, 1.0, 0.0, 9.0, 9.0, NAN], paid=[1.0, 1.0, 0.0, 1.0, 1.0, NAN])
    clipped = RewardTerm("math", clip=(0.0, 1.0), start_weight=3.0, weight_updates=10)
    found = paid_metrics([ticket], RewardOptions(terms={"answer": clipped}), update=5)
    assert found == {"reward/weight/answer": 2.0, "reward/paid/answer": pytest.approx(0.8)}
    assert paid_metrics([ticket], RewardOptions(terms={"answer": RewardTerm("math")}), update=5) == {}


def test_a_sample_has_its_share_of_the_seconds_of_its_call() -> None:
    tickets = [scored([0.0] * 6), scored([0.0] * 6)]
    tickets[0].calls, tickets[1].calls = {"answer": [(6.0, 6)], "none": []}, {"answer": [(0.3, 3), (9.0, 1)]}
    assert latency_metrics(tickets) == {
        "seconds/term/answer/median": 1.0,
        "seconds/term/answer/p95": pytest.approx(9.0 - 0.45 * 8.0),
        "seconds/term/answer/max": 9.0,
    }
