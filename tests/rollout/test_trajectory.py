"""The contract between rollout and learner: validation, slicing, states rebuilt, and files that lose no bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from rollout.options import SamplerOptions
from rollout.text.denoiser import CachingDenoiser, RecomputingDenoiser
from rollout.trajectory import Role, TextTrajectory, Trajectory, TrajectoryError, read_parquet, write_parquet
from tests.sampling import prompts_of, roll_out
from tests.tiny import tiny_policy


def trajectory(**changes) -> TextTrajectory:
    """Two samples of three positions."""
    values = {
        "ticket": 1,
        "update": 2,
        "version": 3,
        "seed": 2**63 - 1,
        "prompt_id": "seven",
        "sampler": "{}",
        "counters": {"nfe": 3.0},
        "uid": np.array([11, 12]),
        "logp": np.array([[-0.5, -1.0, 0.0], [-2.0, -0.25, -3.0]], np.float32),
        "mask": np.array([[True, True, False], [True, True, True]]),
        "prompt_ids": np.array([4, 5], np.int32),
        "canvas_ids": np.array([[1, 2, 9], [3, 4, 5]], np.int32),
        "canvas_length": np.array([3, 3], np.int32),
        "stop_length": np.array([2, 3], np.int32),
        "reveal": np.array([[2, 1, 0], [1, 2, 3]], np.int16),
    }
    return TextTrajectory(**{**values, **changes})


def same(first: Trajectory, second: Trajectory) -> bool:
    for declared in dataclasses.fields(first):
        a, b = getattr(first, declared.name), getattr(second, declared.name)
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            if (a.dtype, a.shape, a.tobytes()) != (b.dtype, b.shape, b.tobytes()):
                return False
        elif type(a) is not type(b) or a != b:
            return False
    return True


def test_roles():
    roles = {name: declared.metadata["role"] for name, declared in TextTrajectory.array_fields().items()}
    assert roles == {
        "logp": Role.decision,
        "mask": Role.decision,
        "support": Role.decision,
        "rewards": Role.sample,
        "uid": Role.sample,
        "canvas_ids": Role.sample,
        "canvas_length": Role.sample,
        "stop_length": Role.sample,
        "reveal": Role.step,
        "proposed_ids": Role.step,
        "proposed_logp": Role.step,
        "prompt_ids": Role.meta,
    }


NAN = np.array([[np.nan, -1.0, 0.0], [-2.0, -0.25, -3.0]], np.float32)
DEFECTS = {
    "dtype": ({"logp": np.zeros((2, 3))}, r"'seven': logp has dtype float64, not float32"),
    "dtype of ids": ({"canvas_ids": np.zeros((2, 3), np.int64)}, r"canvas_ids has dtype int64, not int32"),
    "number of axes": ({"stop_length": np.zeros((2, 1), np.int32)}, r"stop_length has shape \(2, 1\), not \(G\)"),
    "group axis": (
        {"canvas_length": np.zeros(3, np.int32)},
        r"canvas_length has 3 entries on axis G, other .* 2",
    ),
    "decision axis": ({"reveal": np.zeros((2, 4), np.int16)}, r"reveal has 4 entries on axis D, other fields have 3"),
    "rewards": ({"rewards": np.zeros(5)}, r"rewards has 5 entries on axis G, other fields have 2"),
    "support": ({"support": np.zeros((2, 4, 2), np.int32)}, r"support has 4 entries on axis D"),
    "not an array": ({"reveal": [[1, 2, 3]] * 2}, r"reveal is list, not a numpy array"),
    "missing": ({"mask": None}, r"mask is NoneType, not a numpy array"),
    "nan in a trained decision": ({"logp": NAN}, r"trained decision has a non-finite log-probability"),
    "infinite": ({"logp": np.full((2, 3), -np.inf, np.float32)}, r"non-finite log-probability"),
    "version": ({"version": -1}, r"'seven': version is negative"),
    "seed": ({"seed": -1}, r"seed is negative"),
}


@pytest.mark.parametrize(("changes", "message"), DEFECTS.values(), ids=DEFECTS)
def test_defects_are_refused(changes, message):
    with pytest.raises(TrajectoryError, match=message):
        trajectory(**changes)


def test_an_untrained_decision_and_a_reward_may_be_nan():
    logp = np.array([[-0.5, -1.0, np.nan], [-2.0, -0.25, -3.0]], np.float32)
    assert np.isnan(trajectory(logp=logp, rewards=np.array([np.nan, 1.0])).rewards[0])


def test_take_follows_the_roles():
    group = trajectory(
        rewards=np.array([0.5, 1.5]),
        support=np.arange(12, dtype=np.int32).reshape(2, 3, 2),
        proposed_ids=np.arange(24, dtype=np.int32).reshape(2, 4, 3),
    )
    taken = group.take([1])
    assert taken.group_size == 1
    for name, declared in TextTrajectory.array_fields().items():
        whole, part = getattr(group, name), getattr(taken, name)
        if whole is not None:
            np.testing.assert_array_equal(part, whole if declared.metadata["role"] is Role.meta else whole[1:])
    assert same(group.take([0, 1]), group)
    assert same(group.take([1, 0]).take(np.array([1, 0])), group)
    assert trajectory().take([0]).support is None


def test_rewards_are_added_as_float64():
    rewarded = trajectory().with_rewards([1, 0])
    assert rewarded.rewards.dtype == np.float64
    assert rewarded.rewards.tolist() == [1.0, 0.0]
    with pytest.raises(TrajectoryError, match="rewards has 3 entries"):
        trajectory().with_rewards([1, 0, 1])


def test_bytes():
    assert trajectory().nbytes == 2 * 8 + 6 * 4 + 6 + 2 * 4 + 6 * 4 + 2 * 4 + 2 * 4 + 6 * 2
    assert trajectory(rewards=np.zeros(2)).nbytes == trajectory().nbytes + 16


def test_completion_is_what_is_kept():
    assert trajectory().completion_ids(0).tolist() == [1, 2]
    assert trajectory().completion_ids(1).tolist() == [3, 4, 5]


@pytest.mark.parametrize("family", ["sdar", "llada"])
def test_canvas_at_is_what_each_round_saw(family, monkeypatch):
    seen: list[tuple[list[int], list[np.ndarray]]] = []

    def watching(predict):
        def watched(denoiser, canvas, window, read):
            rows = read[0].unique().tolist()
            starts = canvas.canvas_start
            seen.append(([int(canvas.row[r]) for r in rows], [canvas.ids[r, starts[r] :].numpy().copy() for r in rows]))
            return predict(denoiser, canvas, window, read)

        return watched

    for kind in (RecomputingDenoiser, CachingDenoiser):
        monkeypatch.setattr(kind, "predict", watching(kind.predict))
    policy = tiny_policy(family, scale=1.0)
    groups = roll_out(policy, SamplerOptions(rounds_per_block=3, max_new_tokens=9), prompts_of([5, 7]), group_size=3)
    rounds, wrong_by_one = [0] * 6, 0
    for rows, states in seen:
        for row, state in zip(rows, states, strict=True):
            group, sample = groups[row // 3], row % 3
            rounds[row] += 1
            length = group.canvas_length[sample]
            rebuilt = group.canvas_at(rounds[row], policy.spec.mask_id)[sample, :length]
            np.testing.assert_array_equal(rebuilt, state[:length])
            later = group.canvas_at(rounds[row] + 1, policy.spec.mask_id)[sample, :length]
            wrong_by_one += (later != state[:length]).any()
    assert rounds == [group.reveal[sample].max() for group in groups for sample in range(3)]
    assert wrong_by_one == sum(rounds)  # the control: the canvas after a round is never the one before it


# Files


def assert_round_trip(groups: list[TextTrajectory], path) -> None:
    write_parquet(groups, path)
    read = read_parquet(path)
    assert len(read) == len(groups)
    assert all(same(a, b) for a, b in zip(groups, read, strict=True))


def test_parquet_keeps_every_bit(tmp_path):
    odd = np.array([[np.float32(1e-45), -0.0, np.nan], [np.inf, np.pi, -1e38]], np.float32)
    groups = [
        trajectory(),
        trajectory(rewards=np.array([np.nan, -0.0]), prompt_id="π", counters={}),
        trajectory(support=np.arange(12, dtype=np.int32).reshape(2, 3, 2), mask=np.zeros((2, 3), bool), logp=odd),
        trajectory().take(np.zeros(0, int)),
        trajectory(prompt_ids=np.zeros(0, np.int32), support=np.zeros((2, 3, 0), np.int32)),
    ]
    assert_round_trip(groups, tmp_path / "groups.parquet")
    assert not same(groups[0], groups[1])  # the comparison itself can fail
    assert not same(trajectory(), trajectory(logp=np.nextafter(trajectory().logp, np.float32(1))))


@pytest.mark.parametrize("options", [{}, {"top_k": 3}], ids=["plain", "top_k"])
def test_parquet_of_a_rollout(tmp_path, options):
    sampler = SamplerOptions(max_new_tokens=6, **options)
    groups = roll_out(tiny_policy("sdar"), sampler, prompts_of([5, 7]), group_size=2)
    assert (groups[0].support is not None) == bool(options)
    assert_round_trip(groups, tmp_path / "groups.parquet")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "groups.parquet"
    with pytest.raises(TrajectoryError, match="no trajectories to write"):
        write_parquet([], path)
    write_parquet([trajectory()], path)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"denoiserl": "TextTrajectory 999"}), path)
    with pytest.raises(TrajectoryError, match="format version 999; this program reads version 1"):
        read_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TrajectoryError, match=r"groups.parquet cannot be read as Parquet: .* restore the file"):
        read_parquet(path)
    for header in ({}, {"denoiserl": "Unknown 1"}):
        pq.write_table(table.replace_schema_metadata(header), path)
        with pytest.raises(TrajectoryError, match="not a trajectory file"):
            read_parquet(path)
