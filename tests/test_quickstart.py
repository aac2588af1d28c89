"""The promises of the README: from three seeds and for every embedded model, held-out solve rates go up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.processes


def quickstart(folder: Path, *overrides: str, recipe: str = "quickstart") -> dict:
    command = [sys.executable, "-m", "rl.cli", "train", f"recipe={recipe}", f"run.folder={folder}", *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (summary,) = folder.glob("*/summary.json")
    return json.loads(summary.read_text())


@pytest.mark.timeout(1000)
@pytest.mark.parametrize(
    "seed",
    [pytest.param(0, marks=pytest.mark.slow), *(pytest.param(seed, marks=pytest.mark.evidence) for seed in (1, 2))],
)
def test_every_seed_improves(tmp_path, seed):
    summary = quickstart(tmp_path, f"run.seed={seed}")
    assert summary["steps"] == 40
    assert summary["eval_after"] - summary["eval_before"] >= 0.20
    assert summary["ci95"]["gain"][0] > 0.15
    assert summary["first_ratio_error"] <= 1e-5
    assert summary["max_logprob_gap"] <= 1e-5
    assert (tmp_path / "quickstart" / "reward_curve.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_the_bidirectional_model_learns_through_the_same_loop(tmp_path):
    summary = quickstart(tmp_path, "model=tiny_full", "run.updates=20", "evaluation.every=20")
    assert summary["eval_after"] - summary["eval_before"] >= 0.10
    assert summary["max_logprob_gap"] <= 1e-5


def held_out(folder: Path, update: int) -> dict[str, float]:
    rows = [json.loads(line) for line in next(folder.glob("*/evaluations.jsonl")).read_text().splitlines()]
    (row,) = (row for row in rows if row["update"] == update)
    return {name: row[f"evaluation/greedy/term/{name}"] for name in ("jpeg", "held_out")}


@pytest.mark.evidence
@pytest.mark.timeout(2000)
def test_a_reward_is_hacked_without_kl_and_not_with_it(tmp_path):
    """DDPO on the UNet, paid for small files; a classifier that is not rewarded tells whether digits are left."""
    quickstart(tmp_path / "free", recipe="digits_jpeg")
    quickstart(tmp_path / "held", "algorithm.kl.coefficient=5", recipe="digits_jpeg")
    before, free, held = (
        held_out(tmp_path / "free", 0),
        held_out(tmp_path / "free", 20),
        held_out(tmp_path / "held", 20),
    )
    assert free["jpeg"] > before["jpeg"] + 0.05
    assert free["held_out"] < 0.5 * before["held_out"]
    assert held["held_out"] > 0.85 * before["held_out"]


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_images_improve(tmp_path):
    summary = quickstart(tmp_path, recipe="quickstart_image")
    assert summary["eval_after"] - summary["eval_before"] >= 0.15
    assert summary["ci95"]["gain"][0] > 0.10
    assert summary["first_ratio_error"] <= 1e-5
    assert summary["max_logprob_gap"] is None  # a denoising loss replays nothing
    assert (tmp_path / "quickstart-image" / "before_after_greedy.png").stat().st_size > 10_000
