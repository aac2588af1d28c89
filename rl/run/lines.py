"""Files of one JSON row a line, in which nothing that was written is ever lost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path
from typing import Any

from configs.errors import UserError
from rl.storage.disk import append, replacing, writing

Row = dict[str, Any]
SUPERSEDED = "superseded"
"""Folder, in that of the run, of what a resume goes over again: rows and files from behind its checkpoint."""


def read_lines(path: Path) -> tuple[list[Row], str]:
    """The rows of the file, none if it is not there; and what a crash left of a last one, `""` if nothing.

    Raises:
        UserError: another line is broken; it is named.
    """
    if not path.exists():
        return [], ""
    *complete, torn = path.read_text(errors="surrogateescape").split("\n")
    return [_parsed(line, f"{path}, line {number}") for number, line in enumerate(complete, start=1)], torn


def replace_lines(path: Path, lines: Iterable[str]) -> None:
    """Write the file anew; whoever reads it, or finds it after a crash, has the old one or the new one, whole."""
    with replacing(path) as temporary, temporary.open("w") as file:
        file.writelines(lines)


def keep_until(path: Path, last_update: int) -> tuple[list[Row], str | None]:
    """The file without its rows behind `last_update` and without a torn end, both of which move to `superseded/`.

    Returns:
        The rows that stay; a sentence for the reader if the end was torn.
    """
    rows, torn = read_lines(path)
    kept = [row for row in rows if row["update"] <= last_update]
    later = [row for row in rows if row["update"] > last_update]
    if later or torn:
        beside = path.parent / SUPERSEDED / path.name
        with writing(beside):
            beside.parent.mkdir(exist_ok=True)
        append(beside, "".join([*(json.dumps(row) + "\n" for row in later), *([torn + "\n"] if torn else [])]))
        replace_lines(path, (json.dumps(row) + "\n" for row in kept))
    said = f"{path.name}: a crash cut its last line off; what was left of it is in {SUPERSEDED}/" if torn else None
    return kept, said


class Lines:
    """A file of rows with an `update`, which a resume goes on with."""

    def __init__(self, path: Path, last_update: int) -> None:
        """
        Args:
            last_update: of the rows that stay.
        """
        self.path = path
        self.rows, self.repaired = keep_until(path, last_update)

    def write(self, row: Row) -> None:
        self.rows.append(row)
        append(self.path, json.dumps(row, default=str) + "\n")


def set_aside(folder: Path, first_update: int) -> None:
    """Files of updates from `first_update` on (`u000012.parquet`) move to `superseded/`, under a free name there."""
    for path in sorted(folder.glob("trajectories/u*.parquet")):
        if int(path.stem[1:]) >= first_update:
            place = folder / SUPERSEDED / "trajectories"
            with writing(place):
                place.mkdir(parents=True, exist_ok=True)
                path.rename(free_name(place / path.name, path.suffix))


def free_name(path: Path, suffix: str = "") -> Path:
    """`path`, or where that is taken `quickstart.1`, `quickstart.2`, ...: before `suffix`, if there is one."""
    name = path.name.removesuffix(suffix)
    numbered = (path.with_name(f"{name}.{number}{suffix}") for number in count(1))
    return next(found for found in chain([path], numbered) if not found.exists())


def _parsed(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error}); restore the file, or move it away to start anew") from error
    if not isinstance(row, dict) or not isinstance(row.get("update"), int):
        raise UserError(f"{where}: no row of an update; restore the file, or move it away to start anew")
    return row
