"""Small real training runs for tests: an untrained tiny policy, a reward that any policy can move, real Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from configs.compose import compose
from rl.metrics import deterministic_view, read_rows
from rl.train import train

SMALL = [
    "recipe=quickstart",
    "reward.terms.answer.function=tests.rl.training.share_of_ones",
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


def share_of_ones(completions: list[str], **columns: Any) -> list[float]:
    """Characters of a completion that are below 'A': about half of an untrained policy's, with some spread."""
    return [sum(character < "A" for character in text) / max(len(text), 1) for text in completions]


def small_run(model: Path, folder: Path, *overrides: str) -> dict[str, Any]:
    return train(compose([*SMALL, f"model.path={model}", f"run.folder={folder}", *overrides]))


def final_weights(run: Path) -> dict[str, Tensor]:
    return weights_after(run, int(max((run / "checkpoints").glob("u*")).name[1:]))


def weights_after(run: Path, update: int) -> dict[str, Tensor]:
    return load_file(run / f"checkpoints/u{update:06d}/weights-{update:06d}.safetensors")


def metrics(run: Path) -> list[dict[str, Any]]:
    return deterministic_view(read_rows(run / "metrics.jsonl"))
