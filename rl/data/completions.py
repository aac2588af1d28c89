"""Completions that lie in a file or a folder of pictures, to be scored: with their prompts, columns and groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.schema import SourceOptions
from rewards.scoring.scores import ScoreRequest
from rl.data.image_columns import located, pixels
from rl.data.rows import DataError, Row, file_rows, ragged_row

TEXT_COLUMNS = ("completion", "response")
IMAGE_COLUMN = "image"
GROUP_COLUMN = "group"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""How `datasets` calls the table of a folder of pictures; its column `file_name` says which picture a row is of."""


@dataclass(frozen=True)
class Completions:
    """Rows with a completion each."""

    rows: Sequence[Row]
    column: str
    """Which holds the completion."""
    folder: Path
    """What paths of pictures are relative to."""
    groups: list[int]
    """(N,) number of each row's group, from 0 on: neighbours with one prompt, or one value of `group`."""

    def batches(self, size: int) -> Iterator[range]:
        """Places of about so many rows, whole groups."""
        first = 0
        for place in range(1, len(self.groups) + 1):
            at_a_border = place == len(self.groups) or self.groups[place] != self.groups[place - 1]
            if at_a_border and (place - first >= size or place == len(self.groups)):
                yield range(first, place)
                first = place

    def request(self, places: range) -> ScoreRequest:
        """Raises DataError for a picture that cannot be read."""
        rows = [self.rows[place] for place in places]
        names = [name for name in rows[0] if name not in ("prompt", self.column, GROUP_COLUMN)]
        return ScoreRequest(
            prompts=[row.get("prompt") or "" for row in rows],
            completions=[self._completion(row, place) for row, place in zip(rows, places, strict=True)],
            columns={name: [row[name] for row in rows] for name in names},
            groups=[self.groups[place] for place in places],
        )

    def _completion(self, row: Row, place: int) -> Any:
        value = row[self.column]
        return pixels(located(value, self.folder), f"row {place}") if self.column == IMAGE_COLUMN else value


def completions_of(path: Path, column: str | None = None) -> Completions:
    """
    Args:
        path: a file of rows, or a folder of pictures, with or without a metadata file.
        column: holds the completions; None takes `completion`, `response` or `image`, whichever there is.

    Raises:
        DataError: it cannot be read, or has no completions, rows with different columns, a completion that is no text,
            or a `group` whose rows do not stand together.
    """
    rows, folder = (_pictures(path), path) if path.is_dir() else (file_rows(SourceOptions(name=str(path))), path.parent)
    if not len(rows):
        raise DataError(f"{path} has no rows: there is nothing to score")
    if (ragged := ragged_row(rows)) is not None:
        raise DataError(
            f"{path}: row {ragged} has the columns {', '.join(rows[ragged])}, and row 0 {', '.join(rows[0])}: give all "
            f"rows the same, and null where there is no value"
        )
    column = _column(path, rows[0], column)
    if column != IMAGE_COLUMN:
        _check_texts(rows, column)
    return Completions(rows, column, folder, _groups(rows))


def _check_texts(rows: Sequence[Row], column: str) -> None:
    """Now, rather than behind thousands of rows that are scored by then."""
    for place in range(len(rows)):
        if not isinstance(value := rows[place][column], str):
            raise DataError(f"row {place}: the column {column!r} holds {value!r:.80}, and a text is expected")


def _column(path: Path, row: Row, wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in row:
            raise DataError(f"{path} has no column {wanted!r}; it has {', '.join(row)}")
        return wanted
    found = [name for name in (*TEXT_COLUMNS, IMAGE_COLUMN) if name in row]
    if len(found) != 1:
        has = f"both {' and '.join(found)}" if found else f"only {', '.join(row)}"
        raise DataError(f"{path} has {has}: say with --column which one holds the completions")
    return found[0]


def _groups(rows: Sequence[Row]) -> list[int]:
    """A row without a prompt, or without a group, is one by itself."""
    key = GROUP_COLUMN if GROUP_COLUMN in rows[0] else "prompt" if "prompt" in rows[0] else None
    numbers: list[int] = []
    last: Any = None
    seen: set[str] = set()
    for place in range(len(rows)):
        value = rows[place][key] if key else None
        if value is None or value != last:
            if key == GROUP_COLUMN and value is not None and repr(value) in seen:
                raise DataError(
                    f"row {place}: rows of the group {value!r:.80} stand apart from it, and would be compared apart: "
                    f"sort the rows by {GROUP_COLUMN!r}"
                )
            numbers.append(numbers[-1] + 1 if numbers else 0)
            seen.add(repr(value))
        else:
            numbers.append(numbers[-1])
        last = value
    return numbers


def _pictures(folder: Path) -> list[Row]:
    """A row a picture: its `image`, and the columns of the metadata file."""
    metadata = [folder / name for name in METADATA if (folder / name).exists()]
    if len(metadata) > 1:
        raise DataError(f"{folder} has {' and '.join(path.name for path in metadata)}: keep one of them")
    if not metadata:
        return [{IMAGE_COLUMN: path.name} for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURES]
    rows = file_rows(SourceOptions(name=str(metadata[0])))
    found = []
    for place in range(len(rows)):
        row = dict(rows[place])
        if not isinstance(name := row.pop("file_name", None), str):
            raise DataError(f"{metadata[0]}: row {place} has no file_name, which says which picture it is of")
        found.append({IMAGE_COLUMN: name, **row})
    return found
