"""What a run folder keeps for evaluation, sampling and export: its configuration and its published weights."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from configs.compose import Composed, recompose
from configs.environment import check_environment
from configs.errors import UserError
from configs.schema import Config
from rl.run.checkpoint import checkpoint_of, read_state

if TYPE_CHECKING:
    from cluster.weights import PackedWeights


EVERYTHING = tuple(field.name for field in fields(Config))


def run_configuration(run: Path, overrides: list[str], unused: Collection[str] = ()) -> Composed:
    """The configuration that a run kept, with changes.

    Args:
        unused: sections that the caller does not use, or only shows: an environment variable that is not set now stays
            there by name.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"{run} is not a run folder: it has no config.yaml; runs lie under runs/ unless run.folder differs"
        )
    composed = recompose(path, overrides, to_read=True)
    check_environment(composed.config, unused)
    return composed


def run_weights(run: Path, update: int | None) -> PackedWeights:
    """What the run's learners published after `update` updates; by default the newest."""
    from safetensors.torch import load_file

    from cluster.weights import pack_weights

    folder = checkpoint_of(run / "checkpoints", update)
    number = read_state(folder)["update"]
    return pack_weights(number, load_file(folder / f"weights-{number:06d}.safetensors"))
