"""Evaluations ship what is looked at, completions and their statistics, and training ships whole trajectories."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.weights import pack_weights
from configs.compose import compose
from models.lora import trainable_parameters
from models.tiny.create import main as create
from rewards.scoring.scores import Scores
from rl.data.tickets import TicketKind
from rl.driver.actors import RolloutActor
from rl.driver.in_process import DirectGeneration
from rl.driver.processes import Processes
from rl.driver.schedule import evaluation_tickets
from rl.driver.train import planned
from rl.run.scored import Scored
from rollout.worker import Completions, Recording
from tests.models.pipelines import tiny_pipeline
from tests.rl.support.training import SMALL, SMALL_IMAGES

EVALUATED = ["evaluation.every=1", "evaluation.samples=2", "evaluation.prompts_per_ticket=2", "run.checkpoint_every=0"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in ("block", "full"):
        create(kind, str(folder / kind))
    tiny_pipeline("sd").save_pretrained(folder / "sd")
    return folder


@pytest.mark.parametrize(
    ("model", "base", "overrides"),
    [
        ("block", SMALL, []),
        ("full", SMALL, ["algorithm=mdpo", "rollout.sampler.remask=running_confidence"]),
        ("sd", SMALL_IMAGES, ["data.evaluation.prompt=red"]),
    ],
    ids=["text", "remasked text", "images"],
)
def test_only_training_ships_trajectories(models, model, base, overrides):
    options = [*base, *EVALUATED, f"model.path={models / model}", "run.name=x", "data.evaluation.size=4", *overrides]
    plan = planned(compose(options))
    config = plan.composed.config
    rollout = RolloutActor(config, threads=1)
    rollout.ready()
    weights = pack_weights(0, trainable_parameters(rollout.worker.policy))
    processes = Processes({"rollout-0": rollout}, {}, {})
    generation = DirectGeneration(config, processes, plan.modality, plan.sources, lambda _: nullcontext(), print)

    *trajectories, _, _ = rollout.run(generation._request(plan.schedule.ticket(0)), weights)
    assert [trajectory.group_size for trajectory in trajectories] == [4, 4]
    for kind in (TicketKind.greedy, TicketKind.sampled):
        (ticket,) = evaluation_tickets(config.run.seed, 0, 2, 2, 2, kind)
        request = generation._request(ticket)
        completions, statistics = rollout.run(request, weights)
        *trajectories, expected, expected_statistics = rollout.run(replace(request, recording=Recording()), weights)
        assert len(trajectories) == 2
        assert_same(completions, expected)
        assert {**statistics, "seconds": 0} == {**expected_statistics, "seconds": 0}
        rewards = np.arange(4.0)
        scored = Scored.of(ticket, [], completions, statistics, Scores(rewards, {"term": rewards}, []))
        assert scored.rewards.tolist() == scored.terms["term"].tolist() == [[0, 1], [2, 3]]


def assert_same(one: Completions, other: Completions) -> None:
    assert len(one.outputs) == len(other.outputs) == 4
    assert all(np.array_equal(mine, its) for mine, its in zip(one.outputs, other.outputs, strict=True))
    assert replace(one, outputs=[]) == replace(other, outputs=[])
