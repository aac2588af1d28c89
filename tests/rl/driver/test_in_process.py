"""A run in one process is the run on Ray, bit for bit."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from cluster.weights import unpack_weights
from configs.compose import compose
from configs.errors import UserError
from models.tiny.create import main as create
from rl.driver.in_process import Trained
from rl.driver.train import planned
from rl.run.metrics import deterministic_view
from tests.models.pipelines import tiny_pipeline
from tests.rl.support.training import (
    SMALL,
    SMALL_IMAGES,
    assert_same_weights,
    metrics,
    run_on_ray,
    small_run,
    weights_after,
)

SHORT = ["run.updates=2", "data.evaluation.size=8", "evaluation.every=2"]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    create("block", str(folder / "block"))
    tiny_pipeline("sd").save_pretrained(folder / "sd")
    return {name: folder / name for name in ("block", "sd")}


def directly(model: Path, folder: Path, base: list[str], *overrides: str) -> Trained:
    return small_run(model, folder, "run.name=direct", *overrides, base=base)


REWARD_GRADIENT = [
    "algorithm=draft",
    "rollout.group_size=1",
    "reward.terms.brightness.function=brightness",
    "reward.terms.redness.weight=0",
    "data.evaluation.prompt=red",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "base", "overrides"),
    [
        ("block", SMALL, ["algorithm.minibatches=2", "algorithm.kl.coefficient=0.1"]),
        ("block", SMALL, ["algorithm=sft", "rollout.sampler.max_new_tokens=24"]),
        ("block", SMALL, ["rollout.max_staleness=1", "algorithm.solved_band=[0.0,0.9]", "reward.solved_at=0.5"]),
        ("sd", SMALL_IMAGES, REWARD_GRADIENT),
    ],
    ids=["online", "offline", "stale", "reward gradient"],
)
def test_weights_and_metrics_are_those_of_the_run_on_ray(cluster, models, tmp_path, model, base, overrides):
    overrides = [*overrides, *SHORT]
    run_on_ray(models[model], tmp_path, "run.name=ray", *overrides, base=base)
    trained = directly(models[model], tmp_path, base, *overrides)
    assert deterministic_view(trained.metrics) == metrics(tmp_path / "ray")
    weights, expected = unpack_weights(trained.weights), weights_after(tmp_path / "ray", 2)
    assert weights.keys() == expected.keys()
    for name, found in weights.items():
        torch.testing.assert_close(found, expected[name], rtol=0, atol=0, msg=name)


def test_an_interrupted_run_ends_with_the_weights_of_a_straight_one(models, tmp_path):
    options = ["run.checkpoint_every=1", "run.keep_trajectories=1", "evaluation.every=0"]
    straight = directly(models["block"], tmp_path / "straight", SMALL, *options, "run.updates=2")
    directly(models["block"], tmp_path / "halves", SMALL, *options, "run.updates=1")
    resumed = directly(models["block"], tmp_path / "halves", SMALL, *options, "run.updates=2")
    assert deterministic_view(resumed.metrics) == deterministic_view(straight.metrics)
    assert len(list((tmp_path / "halves/direct/trajectories").glob("*.parquet"))) == 2
    assert_same_weights(tmp_path / "halves/direct", tmp_path / "straight/direct", update=2)
    assert_same_weights(tmp_path / "halves/direct", tmp_path / "straight/direct", update=1)


def test_several_learners_are_refused(models, tmp_path):
    with pytest.raises(UserError, match=r"cluster\.learners=2: one process holds one learner"):
        directly(models["block"], tmp_path, SMALL, "cluster.learners=2")


def test_a_run_says_at_its_start_what_does_less_than_it_says(models: dict[str, Path], tmp_path: Path) -> None:
    """Like everything that it notes."""
    spoken = StringIO()
    options = [f"model.path={models['block']}", f"run.folder={tmp_path}", "algorithm.optimizer.warmup_updates=500"]
    run = planned(compose(["recipe=quickstart", *options])).new_run(Console(file=spoken, width=200))
    run.close()
    assert "algorithm.optimizer.warmup_updates=500 is not over after run.updates=" in spoken.getvalue()
