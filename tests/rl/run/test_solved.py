"""What counts as solved where a reward has several terms, and that samples which are solved are imitated."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from configs.algorithm_options import AlgorithmOptions, AnchorOn, ObjectiveKind, Ratio
from configs.schema import Config
from rewards.options import RewardOptions
from rewards.scoring.scores import Scores as Rewards
from rl.algorithm.advantages import AdvantageEstimator
from rl.algorithm.decisions import Decisions
from rl.algorithm.objectives import policy_loss
from rl.algorithm.scores import Scores
from rl.data.tickets import Ticket, TicketKind
from rl.driver.actors import GroupReference
from rl.driver.loop import Loop
from rl.run.scored import Scored
from tests.rl.algorithm.test_objectives import entry

NAN = float("nan")
ANSWER = [0, 0, 1, 1, 0, 0, 0, NAN]
SPEED = [4, 1, 1, 1, 4, 4, 1, 4]
"""Two groups of four. The first: a fast wrong answer, a slow one, two slow right ones; the second has none."""


def scored() -> Scored:
    ticket = Ticket(0, 0, 0, problem_indices=(0, 1), samples=4, seed=7, kind=TicketKind.train)
    answer, speed = np.array(ANSWER), np.array(SPEED, float)
    return Scored.of(
        ticket, ["first", "second"], None, {}, Rewards(answer + speed, {"answer": answer, "speed": speed}, [])
    )


def test_one_term_may_say_what_is_solved():
    by_answer = scored().solved(RewardOptions(solved_at=1.0, solved_by="answer"))
    np.testing.assert_array_equal(by_answer, [[0, 0, 1, 1], [0, 0, 0, NAN]])
    by_sum = scored().solved(RewardOptions(solved_at=1.0))  # the control: speed alone reaches 1
    np.testing.assert_array_equal(by_sum, [[1, 1, 1, 1], [1, 1, 1, NAN]])


def test_nothing_is_solved_or_unsolved_where_nothing_defines_it():
    assert scored().solved(RewardOptions()) is None


def groups(**options) -> list[GroupReference]:
    loop = object.__new__(Loop)
    algorithm = AlgorithmOptions(anchor=0.1, **options)
    loop.config = Config(algorithm=algorithm, reward=RewardOptions(solved_at=1.0, solved_by="answer"))
    loop.update, loop.advantages = 0, AdvantageEstimator(algorithm)
    problem = SimpleNamespace(condition="prompt")
    modality = SimpleNamespace(groups_per_prompt=lambda kind: 1, tree=lambda update: None)
    sources = {TicketKind.train: SimpleNamespace(problems=[problem, problem])}
    loop.generation = SimpleNamespace(sources=sources, modality=modality)
    return loop.groups([scored()])


def test_solved_samples_are_imitated_and_not_fast_ones():
    first, second = groups(anchor_on=AnchorOn.solved)
    assert first.imitated.tolist() == [False, False, True, True]
    assert second.imitated.tolist() == [False] * 4
    assert first.advantage[0] > 0  # a fast wrong answer, which the better samples would be
    assert [group.imitated for group in groups()] == [None, None]


def test_groups_that_nobody_solves_can_be_left_out():
    assert [group.trajectory for group in groups(solved_band=(0.001, 1.0))] == ["first"]


@pytest.mark.parametrize("imitated", [True, False])
def test_the_anchor_is_of_what_is_imitated_whatever_its_advantage(imitated):
    options = AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.weighted, anchor=0.5)
    one = entry(np.zeros(3), -np.ones(3))
    one.imitated[:] = imitated
    log_prob = torch.tensor([-1.0, -2.0, -4.0])
    loss = policy_loss(Scores(log_prob), Decisions.of([one], torch.device("cpu")), options, 1, lambda part: part)
    assert float(loss.value) == pytest.approx(-7.0 + (3.5 if imitated else 0.0))
