"""Small real training runs for tests: an untrained tiny policy, a reward that any policy can move."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from configs.compose import compose
from rl.driver.in_process import Trained, train_in_process
from rl.driver.train import train
from rl.run.metrics import deterministic_view, read_rows

SMALL = [
    "recipe=quickstart",
    "algorithm=trace_grpo",
    "reward.terms.answer.function=tests.rl.support.rewards.share_of_ones",
    "reward.terms.answer.args={}",
    "rollout.prompts_per_update=4",
    "rollout.prompts_per_ticket=2",
    "rollout.group_size=4",
    "rollout.sampler.max_new_tokens=8",
    "rollout.sampler.temperature=1.0",
    "algorithm.optimizer.learning_rate=1e-3",
    "algorithm.optimizer.eps=1e-5",  # Adam would turn the rounding of tiny gradients into whole steps
    "data.train.size=64",
    "evaluation.every=0",
    "run.checkpoint_every=2",
    "run.updates=4",
    "cluster.threads=1",
]


SMALL_IMAGES = [
    "algorithm=precise_grpo",
    "data=scenes",
    "data.train.size=64",
    "data.train.prompt=red",  # the tests' text encoders have a token for each letter
    "model.modality=image",
    "model.max_sequence_length=18",
    "reward.terms.redness.function=tests.rl.support.rewards.redness",
    "algorithm.optimizer.learning_rate=1e-3",
    "algorithm.optimizer.eps=1e-5",
    "rollout.prompts_per_update=4",
    "rollout.prompts_per_ticket=2",
    "rollout.group_size=4",
    "rollout.denoising.steps=4",
    "evaluation.every=0",
    "run.checkpoint_every=2",
    "run.updates=4",
    "cluster.threads=1",
]


def small_run(model: Path, folder: Path, *overrides: str, base: Sequence[str] = SMALL) -> Trained:
    """In this process, which `test_in_process` shows to be the run on Ray to the bit, and twenty times as cheap."""
    options = [*base, f"model.path={model}", f"run.folder={folder}", *overrides]
    return train_in_process(compose(options), Console(file=io.StringIO()))


def run_on_ray(model: Path, folder: Path, *overrides: str, base: Sequence[str] = SMALL) -> dict[str, Any]:
    """Where processes are what is tested. The test asks for the fixture `cluster`."""
    return train(compose([*base, f"model.path={model}", f"run.folder={folder}", *overrides]))


def assert_same_weights(one: Path, other: Path, tolerance: float = 0.0, update: int = 4) -> None:
    first, second = weights_after(one, update), weights_after(other, update)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=tolerance, msg=name)


def final_weights(run: Path) -> dict[str, Tensor]:
    return weights_after(run, int(max((run / "checkpoints").glob("u*")).name[1:]))


def weights_after(run: Path, update: int) -> dict[str, Tensor]:
    return load_file(run / f"checkpoints/u{update:06d}/weights-{update:06d}.safetensors")


def metrics(run: Path) -> list[dict[str, Any]]:
    return deterministic_view(read_rows(run / "metrics.jsonl"))
