"""Weights and divisors of a small group, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from configs.algorithm_options import Denominator
from rl.algorithm.denominators import OF_ROWS, divisor, row_weights, rows_divisor, sample_weights
from rl.algorithm.scored_rows import ScoredRow
from rollout.trajectory import TextTrajectory
from tests.traces import text_trajectory

MASK = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)


def group() -> TextTrajectory:
    """Of its three samples three decisions, one and none are trained."""
    shape = MASK.shape
    return text_trajectory(np.array([5], np.int32), np.zeros(shape, np.int32), np.ones(shape, np.int16), mask=MASK)


def row(
    sample: int,
    decision: list[int],
    step: list[int],
    importance: float = 1.0,
    emphasis: list[float] | None = None,
    trajectory: int = 0,
    state: list[int] | None = None,
) -> ScoredRow:
    return ScoredRow(
        content=None,
        trajectory=trajectory,
        sample=sample,
        decision=np.array(decision),
        coefficient=np.ones(len(decision), np.float32),
        step=np.array(step),
        tokens=4,
        importance=importance,
        emphasis=None if emphasis is None else np.array(emphasis, np.float32),
        state=None if state is None else np.array(state),
    )


def weights(kind: Denominator, *rows: ScoredRow, draws: int = 1, groups: int = 1) -> list[list[float]]:
    return [found.tolist() for found in row_weights([group()] * groups, rows, kind, draws)]


ROWS = (row(0, [0, 1, 2, 3], [5, 5, 7, 9]), row(1, [0, 1], [0, 0]), row(2, [0, 3], [1, 2]))
"""The first sample's last step, the second's other decision and all of the third are not trained."""


@pytest.mark.parametrize(
    ("kind", "expected", "of_samples", "of_group"),
    [
        (Denominator.token, [[1, 1, 1, 0], [1, 0], [0, 0]], [3, 1, 0], 4),
        (Denominator.canvas, [[1, 1, 1, 0], [1, 0], [0, 0]], [3, 1, 0], 12),
        (Denominator.sequence, [[1 / 3, 1 / 3, 1 / 3, 0], [1, 0], [0, 0]], [1, 1, 1], 3),
        (Denominator.step, [[1 / 4, 1 / 4, 1 / 2, 0], [1, 0], [0, 0]], [1, 1, 1], 3),
    ],
)
def test_by_hand(kind: Denominator, expected: list[list[float]], of_samples: list[float], of_group: float) -> None:
    for found, wanted in zip(weights(kind, *ROWS), expected, strict=True):
        assert found == pytest.approx(wanted)
    assert sample_weights(group(), kind).tolist() == of_samples
    assert divisor(group(), kind) == of_group


def test_steps_that_stand_for_others_count_for_them() -> None:
    """Two of five steps with importance 2.5: each decision's share is 1 / its step's decisions / 5."""
    scored = (row(0, [0, 1], [5, 5], 2.5), row(0, [2], [7], 2.5))
    assert weights(Denominator.step, *scored) == [pytest.approx([0.1, 0.1]), pytest.approx([0.2])]


def test_a_step_that_stands_for_less_than_one_is_one() -> None:
    assert weights(Denominator.step, row(1, [0], [0], 0.5)) == [[1.0]]


def test_every_draw_counts_as_a_whole_sample() -> None:
    """The loss is divided by the number of draws, so their weights sum to it: two draws that mask one and two."""
    scored = (row(0, [0], [0]), row(0, [1, 2], [1, 1]))
    assert weights(Denominator.step, *scored, draws=2) == [[1.0], [0.5, 0.5]]


def test_emphasis_multiplies() -> None:
    for kind in Denominator:
        (plain,), (found,) = (
            weights(kind, row(0, [0, 1], [0, 1])),
            weights(kind, row(0, [0, 1], [0, 1], emphasis=[3.0, 0.5])),
        )
        assert found == pytest.approx([3 * plain[0], plain[1] / 2])


def test_samples_of_other_groups_are_others() -> None:
    scored = (row(1, [0], [0]), row(1, [0], [1], trajectory=1))
    assert weights(Denominator.step, *scored, groups=2) == [[1.0], [1.0]]


@pytest.mark.parametrize("kind", OF_ROWS)
def test_means_over_rows_by_hand(kind: Denominator) -> None:
    """The first sample has two states with something to train, the second one: three rows, of one another's weight
    though the samples are two. Its longest sample has three decisions."""
    found = weights(kind, *ROWS)
    each = [[1 / 2, 1 / 2, 1, 0], [1, 0], [0, 0]] if kind is Denominator.row else [[1, 1, 1, 0], [1, 0], [0, 0]]
    for one, wanted in zip(found, each, strict=True):
        assert one == pytest.approx(wanted)
    assert rows_divisor([group()], ROWS, kind, [True]) == {Denominator.row: 3, Denominator.row_length: 9}[kind]


def test_a_round_of_every_block_is_one_row() -> None:
    """Steps of two blocks, whose first rounds share a state."""
    scored = [row(0, [0, 1, 2], [8, 9, 17], state=[1, 2, 1])]
    assert rows_divisor([group()], scored, Denominator.row, [True]) == 2
    assert weights(Denominator.row, *scored) == [[0.5, 1.0, 0.5]]


def test_rows_are_counted_on_all_ranks_and_not_where_they_keep_step() -> None:
    scored = (row(1, [0], [0]), row(0, [0, 1], [0, 1], trajectory=1))
    both = rows_divisor([group()] * 2, scored, Denominator.row_length, [True, True])
    assert (both, rows_divisor([group()] * 2, scored, Denominator.row_length, [True, False])) == (9, 3)
    everywhere = rows_divisor([group()] * 2, scored, Denominator.row_length, [True, True], lambda x: x + 4, lambda x: 5)
    assert everywhere == (3 + 4) * 5
    assert rows_divisor([group()], [row(0, [0], [0], 2.5)], Denominator.row, [True]) == 2.5  # stands for others


def test_weights_of_the_user_s_own() -> None:
    """Each decision by its place, and ten for the group."""

    def weighing(mask: np.ndarray) -> tuple[np.ndarray, float]:
        return mask * np.arange(1, 5, dtype=np.float32), 10.0

    found = row_weights([group()], [*ROWS, row(0, [1, 2], [0, 0], emphasis=[2.0, 3.0])], weighing, 1)
    assert [weights.tolist() for weights in found] == [[1, 2, 3, 0], [1, 0], [0, 0], [4, 9]]
    assert sample_weights(group(), weighing).tolist() == [6, 1, 0]
    assert divisor(group(), weighing) == 10.0
    with pytest.raises(ValueError, match="a function of the user's"):
        divisor(group(), Denominator.custom)
