"""Checkpoint folders that are complete or not there.

A checkpoint is written to `u000040.tmp-<process>`, described by a manifest (size and CRC of every file, and the
caller's state), flushed to the disk, and renamed to `u000040`: the name appears only when everything under it is safe.
There is no "latest" file that could point to nothing: the newest complete folder is the one to resume from.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.errors import UserError
from rl.storage.disk import flush, lives_elsewhere, writing

MANIFEST = "MANIFEST.json"
FORMAT = 2
PICKLES = 1
"""The format that held DeepSpeed's own files, which run what they say when they are loaded (`rl.commands.migrate`)."""
_COMPLETE = re.compile(r"u(\d{6,})")
_LEFTOVER = re.compile(r"u\d{6,}\.(?:tmp|old)-(\d+)")


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read; the message says why and what to do."""


class OtherFormat(CheckpointError):
    """A checkpoint of another version; the message says what reads it."""


# Writing


@contextmanager
def new_checkpoint(root: Path, update: int, state: Mapping[str, Any], keep: int) -> Iterator[Path]:
    """Give a temporary folder to fill; it becomes the checkpoint when the block ends without an error.

        with new_checkpoint(root, 40, state={"update": 40, "seed": 0}, keep=2) as folder:
            ...  # any process may write files under `folder`

    On an error the folder is removed and the error goes on, as CannotWrite where the system refused a write; older
    checkpoints are as they were. Only one process may write checkpoints to `root`.

    Args:
        update: number of updates done.
        state: whatever is needed to go on beside the files, as JSON; `read_state` returns it.
        keep: the newest `keep` checkpoints stay, at least 1.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: at least the checkpoint just written must stay")
    state = json.loads(json.dumps(state))  # Not JSON is an error now rather than after the weights have been written.
    temporary = root / f"u{update:06d}.tmp-{os.getpid()}"
    final = root / f"u{update:06d}"
    with writing(final):
        root.mkdir(parents=True, exist_ok=True)
        remove_leftovers(root)
        temporary.mkdir()
        try:
            yield temporary
            seal(temporary, state)
            if final.exists():  # A run that went back to an older checkpoint comes by here again.
                _discard(final)
            temporary.rename(final)
            flush(root)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        for old in complete_checkpoints(root)[keep:]:
            _discard(old)


def remove_leftovers(root: Path) -> None:
    """Remove what processes that no longer live left unfinished."""
    for folder in root.iterdir() if root.exists() else ():
        match = _LEFTOVER.fullmatch(folder.name)
        if match and not lives_elsewhere(int(match[1])):
            shutil.rmtree(folder)


def seal(folder: Path, state: Mapping[str, Any]) -> None:
    """Describe what the folder holds, and force it to the disk."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    body = {
        "format": FORMAT,
        "state": state,
        "files": {
            path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "crc32": _crc32(path)} for path in files
        },
    }
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"crc32": _body_crc32(body), **body}, indent=1))
    for path in [*files, manifest, *(path for path in folder.rglob("*") if path.is_dir()), folder]:
        flush(path)


def _discard(folder: Path) -> None:
    """Renamed first: a kill half-way leaves a leftover, not something that looks like a checkpoint."""
    shutil.rmtree(folder.rename(folder.with_name(f"{folder.name}.old-{os.getpid()}")))


# Reading


def newest_complete(root: Path, check_crc: bool = False) -> Path | None:
    """The checkpoint to resume from, or None if there is none.

    Args:
        check_crc: also read every byte. Sizes are always checked.

    Raises:
        CheckpointError: the newest is damaged. It is not skipped in silence: going back is for a person to decide.
    """
    folders = complete_checkpoints(root)
    if not folders:
        return None
    newest, *older = folders
    damage = _damage(newest, check_crc)
    if damage is None:
        return newest
    fallback = next((folder for folder in older if _is_whole(folder, check_crc)), None)
    fix = f"to go on from {fallback}" if fallback else "to start from the beginning: no older checkpoint is complete"
    raise CheckpointError(f"checkpoint {newest} is damaged: {damage}. Restore it, or remove {newest} {fix}")


def checkpoint_of(root: Path, update: int | None = None) -> Path:
    """The checkpoint after `update` updates, by default the newest.

    Raises:
        UserError: there is none; the message lists those there are.
        CheckpointError: it is damaged.
    """
    found = newest_complete(root) if update is None else root / f"u{update:06d}"
    if found is None or not found.is_dir():
        there = ", ".join(str(int(folder.name[1:])) for folder in reversed(complete_checkpoints(root)))
        wanted = "no checkpoint" if update is None else f"no checkpoint after update {update}"
        raise UserError(f"{root} holds {wanted}; there are: {there or 'none'}")
    if (damage := _damage(found, check_crc=False)) is not None:
        raise CheckpointError(f"checkpoint {found} is damaged: {damage}")
    return found


def read_state(folder: Path, written_as: int = FORMAT) -> dict[str, Any]:
    """The state that was given to `new_checkpoint`."""
    try:
        return _read_manifest(folder, written_as)["state"]
    except ValueError as error:
        raise CheckpointError(f"checkpoint {folder} is damaged: {error}") from error


def complete_checkpoints(root: Path) -> list[Path]:
    """Folders of the checkpoints below `root`, newest first; none if there is no such folder."""
    found = [(int(match[1]), folder) for folder in root.glob("u*") if (match := _COMPLETE.fullmatch(folder.name))]
    return [folder for _, folder in sorted(found, reverse=True)]


def checkpoint_bytes(folder: Path) -> int:
    """What a complete checkpoint takes on the disk."""
    return sum(recorded["size"] for recorded in _read_manifest(folder, FORMAT)["files"].values())


def check_whole(folder: Path, written_as: int) -> None:
    """Raises CheckpointError unless every byte of a checkpoint of that format is as it was written."""
    if (damage := _damage(folder, check_crc=True, written_as=written_as)) is not None:
        raise CheckpointError(f"checkpoint {folder} is damaged: {damage}")


def _is_whole(folder: Path, check_crc: bool) -> bool:
    try:
        return _damage(folder, check_crc) is None
    except OtherFormat:
        return False


def _damage(folder: Path, check_crc: bool, written_as: int = FORMAT) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = _read_manifest(folder, written_as)
    except ValueError as error:
        return str(error)
    if (update := manifest["state"].get("update")) not in (None, int(folder.name[1:])):
        return f"{MANIFEST} is that of update {update}"
    for name, recorded in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != recorded["size"]:
            return f"{name} has {path.stat().st_size} bytes, {recorded['size']} were written"
        if check_crc and _crc32(path) != recorded["crc32"]:
            return f"{name} has changed since it was written (CRC)"
    return None


def _read_manifest(folder: Path, written_as: int) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{MANIFEST} is missing")
    try:
        manifest = json.loads(path.read_bytes())
        crc32 = manifest.pop("crc32")
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{MANIFEST} cannot be read ({error})") from error
    if crc32 != _body_crc32(manifest):
        raise ValueError(f"{MANIFEST} has changed since it was written (CRC)")
    if (found := manifest["format"]) != written_as:
        way = (
            f"`denoiserl migrate {folder.parent.parent}` writes it anew, without running anything of it, and keeps it"
            if found == PICKLES
            else "go on with the version that wrote it (code.json names its commit)"
        )
        raise OtherFormat(f"checkpoint {folder} has format {found}, and format {written_as} is read here: {way}")
    return manifest


# Bytes


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
    return crc


def _body_crc32(body: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())
