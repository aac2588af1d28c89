"""The levels of the denoising loss: each law, its range, and how several draws are spread over it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from configs.algorithm_options import LikelihoodOptions, NoiseLaw
from rl.likelihood.noise_levels import NoiseLevels
from rollout.images.sampler import Schedule
from rollout.options import DenoisingOptions
from tests.rl.support.gaussian_images import EPSILON, FLOW

KEYS = torch.arange(4000)


def levels_of(spec=FLOW, steps: int = 10, **options) -> NoiseLevels:
    return NoiseLevels(spec, DenoisingOptions(steps=steps), LikelihoodOptions(**options))


def sigmas(levels: NoiseLevels, keys: torch.Tensor = KEYS, draw: int = 0) -> np.ndarray:
    """(S, n)"""
    return np.array([[level.sigma for level in row] for row in levels.draw(keys, draw)])


@pytest.mark.parametrize("draws", [1, 3])
def test_continuous_laws(draws):
    uniform = sigmas(levels_of(draws=draws)).ravel()
    assert stats.kstest(uniform[::draws], "uniform", (0, 1 / draws)).pvalue > 1e-3  # one stratum is uniform
    logits = np.log((sigma := sigmas(levels_of(noise_law=NoiseLaw.logit_normal, draws=draws)).ravel()) / (1 - sigma))
    assert (logits.mean(), logits.std()) == pytest.approx((0, 1), abs=0.05)
    if draws == 1:
        assert stats.kstest(logits, "norm").pvalue > 1e-3
        assert stats.kstest(uniform, "norm").pvalue < 1e-6  # the control: the laws are told apart


def test_draws_are_one_in_each_stratum():
    drawn = sigmas(levels_of(draws=5))
    assert (np.floor(drawn * 5) == np.arange(5)).all()
    np.testing.assert_allclose(np.diff(drawn), 0.2, atol=1e-9)
    independent = np.concatenate([sigmas(levels_of(), draw=pass_) for pass_ in range(5)], 1)
    assert not (np.floor(np.sort(independent) * 5) == np.arange(5)).all()


def test_a_range_cuts_the_law():
    low, high = 0.3, 0.8
    uniform = sigmas(levels_of(level_range=(low, high))).ravel()
    assert stats.kstest(uniform, "uniform", (low, high - low)).pvalue > 1e-3
    cut = sigmas(levels_of(noise_law=NoiseLaw.logit_normal, level_range=(low, high))).ravel()
    assert low <= cut.min()
    assert cut.max() <= high
    kept = sigmas(levels_of(noise_law=NoiseLaw.logit_normal)).ravel()
    kept = kept[(kept > low) & (kept < high)]
    assert stats.ks_2samp(cut, kept).pvalue > 1e-3


@pytest.mark.parametrize("spec", [FLOW, EPSILON], ids=["flow", "epsilon"])
def test_the_grid_is_the_rollouts_own(spec):
    schedule = Schedule(spec, DenoisingOptions(steps=8)).levels
    drawn = levels_of(spec, 8, noise_law=NoiseLaw.grid).draw(KEYS, 0)
    counts = {level: sum(row == [level] for row in drawn) for level in schedule}
    assert counts.pop(schedule[-1]) == 0  # the clean one
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("draws", [3, 8, 16])
def test_grid_levels_are_drawn_without_replacement_and_equally_often(draws):
    schedule = Schedule(FLOW, DenoisingOptions(steps=8)).levels[:-1]
    drawn = levels_of(FLOW, 8, noise_law=NoiseLaw.grid, draws=draws).draw(KEYS, 0)
    most = -(-draws // 8)
    assert all(max(row.count(level) for level in row) == most for row in drawn)
    shares = [sum(level in row for row in drawn) / len(drawn) for level in schedule]
    assert shares == pytest.approx([min(draws / 8, 1.0)] * 8, abs=0.04)


@pytest.mark.parametrize(
    ("level_range", "steps"),
    [((0.0, 1.0), range(10)), ((0.0, 0.9), range(1, 10)), ((0.6, 1.0), range(4)), ((0.2, 0.5), range(5, 8))],
)
def test_a_range_takes_a_share_of_a_grids_steps(level_range, steps):
    schedule = Schedule(FLOW, DenoisingOptions(steps=10)).levels
    levels = levels_of(noise_law=NoiseLaw.grid, level_range=level_range)
    assert levels.choice == tuple(schedule[step] for step in steps)


def test_an_inversion_has_a_grid_of_its_own():
    levels = levels_of(noise_law=NoiseLaw.inversion, inversion_steps=4)
    assert levels.grid == Schedule(FLOW, DenoisingOptions(steps=4)).levels
    assert {level for row in levels.draw(KEYS[:100], 0) for level in row} == set(levels.grid[:-1])


def test_a_range_without_levels_is_refused():
    with pytest.raises(ValueError, match=r"level_range=\[0.0, 0.04\] holds none of the 10 levels"):
        levels_of(noise_law=NoiseLaw.grid, level_range=(0.0, 0.04))


def test_levels_are_a_function_of_key_and_pass():
    levels = levels_of(draws=2)
    np.testing.assert_array_equal(sigmas(levels, KEYS[:50].flip(0)), sigmas(levels, KEYS[:50])[::-1])
    assert (sigmas(levels, KEYS[:50], draw=1) != sigmas(levels, KEYS[:50])).all()
