"""The folder of a reward model that `denoiserl train-reward` wrote: a checkpoint that other tools load, and beside it a
record of what it was trained on and of every file, by which damage is found before anything is scored.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

RECORD = "preference.json"
"""Written last: a folder without it is not complete."""
FORMAT = 1


class ModelFolderError(ValueError):
    """A reward model's folder that cannot be used; the message names the file and what to do."""


def seal(folder: Path, about: dict[str, Any]) -> None:
    """Writes the record of a folder's files as they are now.

    Args:
        about: what else is known of the model; `kind` ("text" or "image") at least.
    """
    files = {file.name: _file(file) for file in sorted(folder.iterdir()) if file.is_file() and file.name != RECORD}
    content = json.dumps({"format": FORMAT, **about, "files": files}, indent=2, ensure_ascii=False)
    draft = folder / f"{RECORD}.draft"
    draft.write_text(content + "\n", encoding="utf-8")
    draft.replace(folder / RECORD)


def checked(path: str, kind: str) -> dict[str, Any]:
    """The record of a folder, of which every file is what was written.

    Raises:
        ModelFolderError: there is no such folder, no record, another kind of model, or a file is missing or changed.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelFolderError(f"{path}: there is no such folder; name one that `denoiserl train-reward` wrote")
    if not (folder / RECORD).is_file():
        raise ModelFolderError(
            f"{path} has no {RECORD}, which `denoiserl train-reward` writes last: it is no reward model of its, or the "
            f"training did not end; train it again"
        )
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        found, files, form = record["kind"], dict(record["files"]), record["format"]
        expected = {name: (each["bytes"], each["sha256"]) for name, each in files.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{folder / RECORD} is damaged ({error!r}): copy the folder again") from error
    if form != FORMAT:
        raise ModelFolderError(
            f"{folder / RECORD} has format {form!r}, and this version reads {FORMAT}: train it again"
        )
    if found != kind:
        other = {"text": "preference_model", "image": "text_image_similarity"}
        raise ModelFolderError(f"{path} scores {found}s, not {kind}s: the reward `{other.get(found)}` reads it")
    for name, (size, digest) in expected.items():
        _check_file(folder / name, size, digest)
    return record


def checked_if_ours(path: str, kind: str) -> None:
    """The same for a reward that also reads checkpoints of others, which have no record."""
    if (Path(path) / RECORD).exists():
        checked(path, kind)


def written(path: str) -> int:
    """When a folder's record was written, in nanoseconds; 0 without one."""
    record = Path(path) / RECORD
    return record.stat().st_mtime_ns if record.is_file() else 0


def sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while part := content.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _file(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}


def _check_file(file: Path, size: int, digest: str) -> None:
    again = "copy the folder again, or train the model again"
    if not file.is_file():
        raise ModelFolderError(f"{file}: no such file, but {RECORD} lists it: {again}")
    if (found := file.stat().st_size) != size:
        raise ModelFolderError(f"{file} has {found} bytes of {size}: it is incomplete; {again}")
    if sha256(file) != digest:
        raise ModelFolderError(f"{file} is not what was written when the model was trained: {again}")
