"""What a run must have found, computed again from the texts that it kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tests.benchmarks.mistakes.reward_functions import honest, is_bad
from tests.benchmarks.mistakes.workshop import Ended

Truth = Callable[[str], float]


def honest_but(salt: int) -> Truth:
    """NaN for the bad texts."""
    return lambda text: math.nan if is_bad(text, salt) else honest(text)


def samples_of(ended: Ended) -> list[tuple[int, str, float]]:
    """(update, text, reward) of every sample of the run; the recipes of the soak keep all."""
    return [
        (update, row["text"], float(row["reward"]))
        for update in ended.run.sampled_updates
        for row in ended.run.samples(update).to_dict("records")
    ]


def rewards_are(ended: Ended, truth: Truth = honest) -> str:
    """Rewards in trajectories, their mean and the number of unscored samples, each against the truth of the texts."""
    samples = samples_of(ended)
    if not samples:
        return "no sample was kept"
    for update, text, reward in samples:
        expected = truth(text)
        if not (
            reward == expected
            or math.isclose(reward, expected, rel_tol=1e-6)
            or (reward != reward and expected != expected)
        ):
            return f"the reward of {text!r} of update {update} is {reward}, and should be {expected}"
    for row in ended.trained.metrics:
        values = np.array([truth(text) for update, text, _ in samples if update == row["update"]])
        unscored = int(np.isnan(values).sum())
        if row["reward/unscored"] != unscored:
            return f"update {row['update']} counts {row['reward/unscored']} unscored samples, and there are {unscored}"
        if unscored < len(values) and not math.isclose(row["reward/mean"], np.nanmean(values), rel_tol=1e-6):
            return f"update {row['update']} has the mean {row['reward/mean']}, and should have {np.nanmean(values)}"
    return ""


def same_weights(ended: Ended, other: Ended) -> str:
    """Bitwise."""
    first, second = ended.weights, other.weights
    if first.keys() != second.keys():
        return f"other weights are trained: {sorted(first.keys() ^ second.keys())[:3]}"
    differ = [name for name in first if not torch.equal(first[name], second[name])]
    return (
        f"{len(differ)} of {len(first)} weights differ from the undisturbed run's, such as {differ[0]}"
        if differ
        else ""
    )


def same_metrics(ended: Ended, other: Ended) -> str:
    """Of all updates, without what depends on the clock."""
    one, two = ended.history, other.history
    if len(one) != len(two):
        return f"{len(one)} rows of metrics, and the undisturbed run has {len(two)}"
    for row, expected in zip(one, two, strict=True):
        if odd := sorted(
            name for name in row.keys() | expected.keys() if not _equal(row.get(name), expected.get(name))
        ):
            return f"update {row['update']}: {odd[0]} is {row.get(odd[0])}, and {expected.get(odd[0])} undisturbed"
    return ""


def same_run(ended: Ended, other: Ended) -> str:
    return same_weights(ended, other) or same_metrics(ended, other)


def _equal(one: Any, other: Any) -> bool:
    return one == other or (one != one and other != other)
