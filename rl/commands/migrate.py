"""Checkpoints that an earlier version wrote as pickles, written anew as numbers. Nothing of them is run or deleted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from configs.errors import UserError
from rl.learner.deepspeed_files import TAG, UnreadableFiles, read_engine
from rl.learner.old_policy import FILE as OLD_POLICY
from rl.learner.optimizer_state import StateWriter
from rl.learner.state_files import InFolder
from rl.learner.value_model import FOLDER as VALUE
from rl.run.checkpoint import (
    FORMAT,
    MANIFEST,
    PICKLES,
    CheckpointError,
    OtherFormat,
    check_whole,
    complete_checkpoints,
    flush,
    read_state,
    seal,
)
from rl.run.lines import free_name
from rl.storage.lock import FolderLock

KEPT = f".format-{PICKLES}"


def migrate_run(run: Path) -> list[tuple[Path, Path]]:
    """Every checkpoint of the run that holds pickles.

    Returns:
        (the new one, which has the old one's place; the old one, which has a name beside it)

    Raises:
        UserError: there is none, or another process writes to the folder.
        CheckpointError: one is damaged or cannot be read without running it; it is as it was.
    """
    root = run / "checkpoints"
    if not root.is_dir():
        raise UserError(f"{run} is not a run folder with checkpoints")
    lock = FolderLock(run)
    try:
        _undo_half_done(root)
        old = [folder for folder in complete_checkpoints(root) if _has_pickles(folder)]
        if not old:
            raise UserError(f"{root} holds no checkpoint of format {PICKLES}: there is nothing to migrate")
        return [(folder, migrate(folder)) for folder in old]
    finally:
        lock.release()


def migrate(folder: Path) -> Path:
    """One checkpoint; returns where the old one is kept."""
    check_whole(folder, PICKLES)
    state = read_state(folder, PICKLES)
    temporary = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    temporary.mkdir()
    try:
        weights = sorted(folder.glob("weights-*.safetensors"))
        _check_contents(folder, {MANIFEST, TAG, VALUE, OLD_POLICY, *(file.name for file in weights)})
        if not weights:
            raise UnreadableFiles(f"{folder} has no published weights, which say what is trained")
        with safe_open(weights[-1], "pt") as published:  # what is published is what is trained
            trained = list(published.keys())
        for file in (*weights, folder / OLD_POLICY):
            if file.exists():
                shutil.copy2(file, temporary)
        _convert(folder, temporary, trained)
        if (folder / VALUE).exists():
            _check_contents(folder / VALUE, {TAG})
            _convert(folder / VALUE, temporary / VALUE, None)
        seal(temporary, state)
        kept = free_name(folder.with_name(folder.name + KEPT))
        folder.rename(kept)
        temporary.rename(folder)
        flush(folder.parent)
    except UnreadableFiles as error:
        raise CheckpointError(
            f"checkpoint {folder} cannot be migrated: {error}. It is as it was; go on with the version that wrote it "
            "(code.json names its commit)"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return kept


def _convert(source: Path, target: Path, trained: Sequence[str] | None) -> None:
    state = read_engine(source, trained)
    writer = StateWriter(InFolder(target))
    for name, parts in state.parameters.items():
        writer.add(name, parts)
    writer.finish(state.updates, state.adam_steps)


def _check_contents(folder: Path, known: set[str]) -> None:
    if odd := sorted({path.name for path in folder.iterdir()} - known):
        raise UnreadableFiles(f"{folder / odd[0]} is nothing that a run writes there")


def _has_pickles(folder: Path) -> bool:
    try:
        read_state(folder, FORMAT)
    except OtherFormat:
        read_state(folder, PICKLES)
        return True
    return False


def _undo_half_done(root: Path) -> None:
    """What was killed between its two renames has its old name again."""
    for kept in root.glob(f"u*{KEPT}"):
        if not (folder := kept.with_name(kept.name.removesuffix(KEPT))).exists():
            kept.rename(folder)
