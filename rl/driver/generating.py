"""Rollout and reward workers for one policy, without a learner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from rich.console import Console

from cluster.joining import joined
from cluster.weights import PackedWeights, pack_weights
from configs.schema import Config
from models.lora import trainable_parameters
from rewards.printable import printable
from rl.data.prompts import PromptSource
from rl.data.tickets import TicketKind
from rl.driver.generation import Generation
from rl.driver.processes import check_module_path, started
from rl.modality.protocol import Modality
from rl.modality.trial import trial_of


@contextmanager
def generating(
    config: Config,
    modality: Modality,
    sources: dict[TicketKind, PromptSource],
    weights: PackedWeights | None,
    console: Console,
) -> Iterator[tuple[Generation, int]]:
    """Rollout and reward workers for one policy, and its version.

    Args:
        weights: None are the checkpoint's own.
    """
    check_module_path()
    if weights is None:
        weights = pack_weights(0, trainable_parameters(modality.policy(torch.device("cpu"))))
    trial = trial_of(config, modality, sources)
    with joined(config.cluster), started(config, generating=True, learning=False, trial=trial) as processes:

        def note(text: str) -> None:
            console.print(printable(text), style="yellow", markup=False, highlight=False)

        generation = Generation(config, processes, modality, sources, lambda _: nullcontext(), note)
        generation.adopt(weights)
        yield generation, weights.version
