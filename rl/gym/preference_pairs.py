"""Preference pairs for the methods that learn from them, drawn from the base of a setting before its first such run."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch
from rich.console import Console

from cluster.weights import pack_weights
from configs.errors import UserError
from models.lora import trainable_parameters
from rl.commands.pairs import draw_pairs
from rl.data.problems import open_training
from rl.data.prompts import PromptSource
from rl.data.tickets import TicketKind
from rl.driver.in_process import DirectGeneration, called_directly
from rl.gym.results import fingerprint
from rl.gym.tasks import Task, pairs_config
from rl.modality.choice import modality_of

DRAWN_BY = "fingerprint"
"""File beside preference pairs."""


def make_pairs(task: Task, setting: str, folder: Path, config_dir: Path | None = None) -> Path:
    """The file of a setting's preference pairs, drawn from its base unless it is there.

    Raises:
        UserError: the pairs that are there are of another configuration, or the base yields none.
    """
    composed = pairs_config(task, setting, config_dir)
    target, drawn_by = folder / f"pairs-{setting}", fingerprint(composed.config, folder)
    file = target / "pairs.jsonl"
    if file.exists():
        if (target / DRAWN_BY).read_text() != drawn_by:
            raise UserError(f"{target} was drawn with another configuration: delete it, and what learned from it")
        return file
    config = composed.config
    modality = modality_of(config)
    modality.check()
    silent = Console(quiet=True)
    sources = {TicketKind.sampled: PromptSource(open_training(config.data, answers=False), modality)}
    weights = pack_weights(0, trainable_parameters(modality.policy(torch.device("cpu"))))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as draft, called_directly(config, learning=False) as processes:
        generation = DirectGeneration(config, processes, modality, sources, lambda _: nullcontext(), silent.print)
        generation.weights[0] = weights
        if draw_pairs(generation, config, 0, Path(draft) / file.name, 1.0, silent).pairs == 0:
            raise UserError(f"the base of {setting} yields no pair of answers whose rewards are 1 apart")
        (Path(draft) / DRAWN_BY).write_text(drawn_by)
        try:
            os.rename(shutil.copytree(draft, f"{draft}.whole"), target)  # complete, or not there
        except OSError:  # another process was faster; its pairs are the same
            shutil.rmtree(f"{draft}.whole")
    return file
