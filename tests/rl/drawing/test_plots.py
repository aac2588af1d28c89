"""The learning curve holds the numbers it was given, and touches no global state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rl.drawing.plots import reward_curve, smooth

ROWS = [{"update": u, "reward/mean": u / 30} for u in range(30)]


def evaluation(
    update: int, rate: float, kinds: tuple[str, ...] = ("greedy", "sampled"), what: str = "solve_rate"
) -> dict[str, float]:
    row: dict[str, float] = {"update": update}
    for kind in kinds:
        name = f"evaluation/{kind}/{what}"
        row |= {name: rate, f"{name}_low": rate - 0.1, f"{name}_high": rate + 0.1}
    return row


def has_colour(path: Path, colour: tuple[int, int, int]) -> bool:
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(int)
    return bool((np.abs(pixels - colour).max(axis=1) < 8).sum() > 50)


BLUE, ORANGE, GREEN = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)


def test_each_measured_curve_is_drawn_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    reward_curve(ROWS, [evaluation(0, 0.2), evaluation(30, 0.7)], path)
    assert [has_colour(path, colour) for colour in (BLUE, ORANGE, GREEN)] == [True, True, True]
    reward_curve(ROWS, [evaluation(0, 0.2, ("greedy",)), evaluation(30, 0.7, ("greedy",))], path)
    assert [has_colour(path, colour) for colour in (BLUE, ORANGE, GREEN)] == [True, True, False]
    tall = Image.open(path).height
    reward_curve(ROWS[:1], [], path)
    assert [has_colour(path, colour) for colour in (ORANGE, GREEN)] == [False, False]
    assert Image.open(path).height < tall


def test_held_out_rewards_have_a_panel_and_solve_rates_only_where_they_are(tmp_path: Path) -> None:
    height, path = {}, tmp_path / "curve.png"
    kinds = ("greedy", "sampled")
    for drawn in (["reward"], ["reward", "solve_rate"]):
        rows = [{k: v for what in drawn for k, v in evaluation(u, 0.2, kinds, what).items()} for u in (0, 30)]
        reward_curve([*ROWS, {"update": 30}], rows, path)  # of the last update nothing was scored
        height[len(drawn)] = Image.open(path).height
        assert all(has_colour(path, colour) for colour in (BLUE, ORANGE, GREEN))
    assert height[1] < height[2]


def test_pyplot_and_its_global_state_are_not_used() -> None:
    program = "import sys, rl.drawing.plots; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_empty_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no update to draw"):
        reward_curve([], [], tmp_path / "curve.png")


def test_smoothing_is_a_local_mean() -> None:
    assert smooth(np.full(7, 0.3), 2.0) == pytest.approx(np.full(7, 0.3))
    assert smooth(np.array([0.4]), 1.0) == pytest.approx([0.4])
    values = np.random.default_rng(0).normal(size=50)
    weights = np.exp(-0.5 * ((np.arange(50) - 20) / 3.0) ** 2)
    assert smooth(values, 3.0)[20] == pytest.approx((weights * values).sum() / weights.sum(), abs=1e-3)
    gap = np.array([0.0, 1.0, np.nan, 1.0, 0.0])
    assert smooth(gap, 1.0)[2] == pytest.approx(2 * np.exp(-0.5) / (2 * np.exp(-0.5) + 2 * np.exp(-2.0)))
    long = np.array([1.0] + [np.nan] * 20 + [3.0])
    assert np.isnan(smooth(long, 1.0)[5:-5]).all()
    assert (smooth(long, 1.0)[0], smooth(long, 1.0)[-1]) == pytest.approx((1.0, 3.0))
