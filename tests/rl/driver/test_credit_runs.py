"""Whole runs with advantages of steps: rollout, reward process, driver and learner together, in one process."""

from __future__ import annotations

import pytest

from models.tiny.create import main as create
from tests.models.pipelines import tiny_pipeline
from tests.rl.support.training import SMALL, SMALL_IMAGES, small_run

OPTIONS = ["run.updates=2", "evaluation.every=2", "data.evaluation.size=4"]


@pytest.mark.parametrize("sampler", ["remask=none", "remask=running_confidence"])
def test_mdpo(tmp_path, sampler: str) -> None:
    """16 samples, of each at most 2 rounds, which policy and reference score."""
    create("full", str(tmp_path / "full"))
    trained = small_run(
        tmp_path / "full",
        tmp_path,
        "model=tiny_full",
        "algorithm=mdpo",
        "algorithm.selected_steps=2",
        "run.name=mdpo",
        f"rollout.sampler.{sampler}",
        base=[*SMALL, *OPTIONS],
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
    trained = small_run(
        tmp_path / "sd3",
        tmp_path,
        "algorithm.advantage=per_step",
        "data.evaluation.prompt=red",
        "run.name=images",
        base=[*SMALL_IMAGES, *OPTIONS],
    )
    for metrics in trained.metrics:
        assert metrics["ratio/max_error"] <= 1e-5
        assert metrics["learner/gradient_norm"] > 0
        assert metrics["learner/rows"] == 16 * 3 * 2  # the last of four steps draws no noise
