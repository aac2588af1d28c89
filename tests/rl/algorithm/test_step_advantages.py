"""Advantages of denoising steps, spread over the decisions that each step made."""

from __future__ import annotations

import numpy as np
import pytest

from rl.learner.groups import Group
from rollout.trajectory import ImageTrajectory, TextTrajectory
from tests.traces import text_trajectory

ROUNDS = np.array([[1, 3, 2, 2, 0], [2, 1, 1, 3, 4]], np.int16)


def text() -> TextTrajectory:
    return text_trajectory(
        np.array([5], np.int32),
        np.zeros((2, 5), np.int32),
        ROUNDS,
        stop_length=np.full(2, 4, np.int32),
        mask=np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 0]], bool),
    )


def image() -> ImageTrajectory:
    """Steps 2, 3 and 4 of a schedule of six are stored; step 3 is not trained."""
    return ImageTrajectory(
        ticket=0,
        update=0,
        version=0,
        seed=0,
        prompt_id="p",
        sampler="{}",
        uid=np.arange(2),
        logp=np.zeros((2, 3)),
        mask=np.array([[1, 0, 1], [1, 0, 1]], bool),
        caption="red",
        first_step=2,
        levels=np.zeros((7, 3)),
        guided=np.zeros(3, bool),
    )


def test_a_decision_has_the_advantage_of_its_round():
    advantage = np.array([[10, 20, 30, 40], [50, 60, 70, 80]], np.float32)
    group = Group(text(), advantage, np.ones((2, 4), bool)).trained()
    trajectory, spread = group.trajectory, group.advantage
    assert (trajectory.mask == text().mask).all()
    assert (spread[text().mask] == [10, 30, 20, 20, 60, 50, 50, 70]).all()


def test_a_decision_of_an_image_has_the_advantage_of_its_step():
    advantage = np.arange(12, dtype=np.float32).reshape(2, 6)
    group = Group(image(), advantage, np.ones((2, 6), bool)).trained()
    spread = group.advantage
    assert (spread == [[2, 3, 4], [8, 9, 10]]).all()


def test_rounds_that_are_left_out_leave_their_decisions_out():
    valid = np.array([[0, 1, 0, 0], [0, 0, 0, 1]], bool)
    group = Group(text(), np.ones((2, 4), np.float32), valid).trained()
    trajectory, spread = group.trajectory, group.advantage
    assert (trajectory.mask == [[0, 0, 1, 1, 0]]).all()  # of the second sample only an untrained token is left
    assert trajectory.uid.tolist() == [0]
    assert spread.shape == (1, 5)


def test_samples_that_are_left_out_are_not_there():
    group = Group(text(), np.array([1, 2], np.float32), np.array([False, True])).trained()
    trajectory, spread = group.trajectory, group.advantage
    assert trajectory.uid.tolist() == [1]
    assert (spread == 2).all()


def test_what_is_imitated_goes_with_its_samples():
    imitated, valid = np.array([True, False]), np.array([False, True])
    group = Group(text(), np.ones(2, np.float32), valid, imitated).trained()
    assert group.imitated.tolist() == [False]


def test_a_group_with_nothing_to_train_is_none():
    assert Group(text(), np.zeros(2, np.float32), np.zeros(2, bool)).trained() is None


def test_a_step_without_an_advantage_is_refused():
    with pytest.raises(ValueError, match="2 steps have an advantage, but step 2 was trained"):
        Group(text(), np.ones((2, 2), np.float32), np.ones((2, 2), bool)).trained()
