"""Whole runs with advantages of steps: rollout, reward process, driver and learner together, in one process."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from configs.compose import compose
from models.tiny.create import main as create
from rl.driver.in_process import Trained, train_in_process
from tests.models.pipelines import tiny_pipeline
from tests.rl.support.training import SMALL, SMALL_IMAGES

pytestmark = pytest.mark.slow
OPTIONS = ["run.checkpoint_every=0", "run.keep_trajectories=0", "run.updates=2", "evaluation.every=2"]


def run(folder: Path, base: list[str], *overrides: str) -> Trained:
    options = [*base, *OPTIONS, f"run.folder={folder}", "data.evaluation.size=4", *overrides]
    return train_in_process(compose(options), Console(file=io.StringIO()))


@pytest.mark.parametrize("sampler", ["remask=none", "remask=running_confidence"])
def test_mdpo(tmp_path, sampler: str) -> None:
    """16 samples, of each at most 2 rounds, which policy and reference score."""
    create("full", str(tmp_path / "full"))
    trained = run(
        tmp_path,
        SMALL,
        "model=tiny_full",
        f"model.path={tmp_path / 'full'}",
        "algorithm=mdpo",
        "algorithm.selected_steps=2",
        "run.name=mdpo",
        f"rollout.sampler.{sampler}",
    )
    for metrics in trained.metrics:
        assert metrics["logp/max_error"] <= 1e-5
        assert metrics["learner/gradient_norm"] > 0
        assert 0 < metrics["learner/rows"] <= 16 * 2 * 2
        assert metrics["reward/unscored_estimates"] == 0
    assert trained.metrics[1]["kl/reference"] > 0
    assert len(trained.evaluations) == 2


def test_steps_of_images(tmp_path) -> None:
    tiny_pipeline("sd3").save_pretrained(tmp_path / "sd3")
    trained = run(
        tmp_path,
        SMALL_IMAGES,
        f"model.path={tmp_path / 'sd3'}",
        "algorithm.advantage=per_step",
        "data.evaluation.prompt=red",
        "run.name=images",
    )
    for metrics in trained.metrics:
        assert metrics["ratio/max_error"] <= 1e-5
        assert metrics["learner/gradient_norm"] > 0
        assert metrics["learner/rows"] == 16 * 3 * 2  # the last of four steps draws no noise
