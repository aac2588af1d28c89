"""What a run had recorded when it wrote a checkpoint: a resume goes on with that record, and with no other.

Rows behind the checkpoint are a resume's own affair (`rl.run.lines`). Those before it are history that nothing writes
again: lost or exchanged, they would stand in curves and gains as if they were this run's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from rl.run.lines import Row, read_lines

METRICS = "metrics.jsonl"
FILES = (METRICS, "evaluations.jsonl")
Written = dict[str, dict[str, Any]]
"""File -> how many rows it had, and their hash."""


def written(folder: Path) -> Written:
    """Of the files as they are."""
    rows = {name: read_lines(folder / name)[0] for name in FILES}
    return {name: {"rows": len(of_file), "hash": _hash(of_file)} for name, of_file in rows.items()}


def check_written(folder: Path, recorded: Mapping[str, Any], update: int) -> None:
    """
    Args:
        recorded: what `written` returned when the checkpoint was made; empty for a run from before there was this.
        update: updates done then.

    Raises:
        UserError: the rows up to there are others, or not there.
    """
    for name, then in recorded.items():
        rows = [row for row in read_lines(folder / name)[0] if row["update"] < update + (name != METRICS)]
        more = len(rows) if name == METRICS else then["rows"]  # evaluations may have been made again after the end
        if more != then["rows"] or _hash(rows[: then["rows"]]) != then["hash"]:
            raise UserError(
                f"{folder / name} is not what this run had written at its checkpoint after update {update}: it had "
                f"{then['rows']} rows, {len(rows)} are there, and they differ. Restore the file; to start anew, set "
                f"run.resume=false, which keeps the old results under a name with a number, or choose another run.name"
            )


def _hash(rows: Sequence[Row]) -> str:
    return hashlib.blake2b(json.dumps(rows, sort_keys=True).encode(), digest_size=8).hexdigest()
