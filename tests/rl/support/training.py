"""Small real training runs for tests: an untrained tiny policy, a reward that any policy can move, real Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from configs.compose import compose
from rl.driver.train import train
from rl.run.metrics import deterministic_view, read_rows

SMALL = [
    "recipe=quickstart",
    "algorithm=trace_grpo",
    "reward.terms.answer.function=tests.rl.support.training.share_of_ones",
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
    "reward.terms.redness.function=tests.rl.support.training.redness",
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


def redness(completions: list[np.ndarray], **columns: Any) -> list[float]:
    """How much of an image's light is red, 0 to 1."""
    return [float(image[..., 0].mean() / max(image.sum(-1).mean(), 1.0)) for image in completions]


def share_of_ones(completions: list[str], **columns: Any) -> list[float]:
    """Characters of a completion that are below 'A': about half of an untrained policy's, with some spread."""
    return [sum(character < "A" for character in text) / max(len(text), 1) for text in completions]


def small_run(model: Path, folder: Path, *overrides: str, base: Sequence[str] = SMALL) -> dict[str, Any]:
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
