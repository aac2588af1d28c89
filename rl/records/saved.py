"""What a run folder keeps for evaluation, sampling and export: its configuration and its published weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from configs.compose import Composed, recompose
from configs.errors import UserError
from rl.run.checkpoint import checkpoint_of, read_state

if TYPE_CHECKING:
    from cluster.weights import PackedWeights


def run_configuration(run: Path, overrides: list[str]) -> Composed:
    """The configuration that a run kept, with changes."""
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"{run} is not a run folder: it has no config.yaml; runs lie under runs/ unless run.folder differs"
        )
    return recompose(path, overrides)


def run_weights(run: Path, update: int | None) -> PackedWeights:
    """What the run's learners published after `update` updates; by default the newest."""
    from safetensors.torch import load_file

    from cluster.weights import pack_weights

    folder = checkpoint_of(run / "checkpoints", update)
    number = read_state(folder)["update"]
    return pack_weights(number, load_file(folder / f"weights-{number:06d}.safetensors"))
