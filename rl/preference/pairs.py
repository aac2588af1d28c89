"""Pairs of a file, each bad row named, and their split by prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError
from configs.schema import SourceKind, SourceOptions
from models.options import Modality
from rewards.conversation import Prompt
from rl.data.conversation import Conversation, Value, answer_text, check_prompt, conversation, looks_like_messages
from rl.data.image_columns import located, pixels
from rl.data.rows import DataError, Row, file_rows

COLUMNS = ("prompt", "chosen", "rejected")
FORMATS = (".jsonl", ".json", ".csv", ".parquet")
SHOWN = 20
"""Bad rows that a message names; of the others it says how many there are."""
LEAST_HELD_OUT = 30
"""Prompts. An interval of an accuracy over fewer is wider than 0.34 and says nothing."""


@dataclass(frozen=True)
class Pair:
    row: int
    """In its file, from 0."""
    prompt: Prompt
    chosen: Any
    """A text, or a picture as `rl.data.image_columns.pixels` takes it."""
    rejected: Any

    @property
    def key(self) -> str:
        """Equal for pairs of one prompt."""
        return json.dumps(self.prompt, sort_keys=True)


@dataclass(frozen=True)
class BadRow:
    row: int
    column: str
    why: str


def pair_file(path: str, option: str = "pairs") -> Path:
    """The file itself; of a folder the one that it holds, or the one beside it that `denoiserl pairs` wrote.

    Raises:
        UserError: there is none, or several.
    """
    given = Path(path)
    if given.is_file():
        return given
    if not given.is_dir():
        raise UserError(f"{option}={path}: there is no such file or folder; name a file of pairs")
    found = sorted(file for file in given.iterdir() if file.suffix.lower() in FORMATS)
    beside = given.with_suffix(".jsonl")
    if not found and beside.is_file():  # the folder of pictures
        return beside
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise UserError(
            f"{option}={path}: the folder must hold one file of pairs ({', '.join(FORMATS)}); it has {names}"
        )
    return found[0]


def read_pairs(file: Path, modality: Modality) -> list[Pair]:
    """All pairs of a file.

    Raises:
        DataError: the file cannot be read, is empty, or has bad rows: all of them are looked at.
    """
    rows = file_rows(SourceOptions(SourceKind.file, str(file)))
    if len(rows) == 0:
        raise DataError(f"{file} has no rows; name a file that has some")
    pairs: list[Pair] = []
    bad: list[BadRow] = []
    for number in range(len(rows)):
        found = _image_pair if modality is Modality.image else _text_pair
        try:
            pairs.append(found(number, _filled(rows[number]), file.parent))
        except _BadCellError as error:
            bad.append(BadRow(number, error.column, error.why))
    refuse(bad, file, len(rows))
    return pairs


def refuse(bad: Sequence[BadRow], file: Path, rows: int) -> None:
    """Raises DataError that names the bad rows, if there are any."""
    if not bad:
        return
    lines = [f"  row {each.row}, column {each.column}: {each.why}" for each in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  and {len(bad) - SHOWN} more")
    named = "\n".join(lines)
    raise DataError(f"{file}: {len(bad)} of {rows} rows are no pairs to train on; mend or remove them:\n{named}")


def split(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(trained on, held out): a share of the prompts with all their pairs, drawn by a generator of its own.

    Raises:
        UserError: as `check_held_out`.
    """
    prompts = sorted({pair.key for pair in pairs})
    count = round(share * len(prompts))
    drawn = np.random.default_rng(seed).permutation(len(prompts))[:count]
    held = {prompts[place] for place in drawn}
    training, rest = [pair for pair in pairs if pair.key not in held], [pair for pair in pairs if pair.key in held]
    if count < LEAST_HELD_OUT:
        raise UserError(
            f"held_out={share:g} of {len(prompts)} prompts are {count}, too few for an interval of the accuracy: "
            f"{LEAST_HELD_OUT} are needed. Draw pairs of more prompts, or raise held_out"
        )
    if not training:
        raise UserError(f"held_out={share:g} of {len(prompts)} prompts leaves none to train on: lower it")
    return training, rest


def check_apart(training: Sequence[Pair], held: Sequence[Pair]) -> None:
    """Raises UserError where a held-out file is too small, or has a prompt that is trained on."""
    prompts = {pair.key for pair in held}
    if len(prompts) < LEAST_HELD_OUT:
        raise UserError(
            f"held_out_pairs has {len(prompts)} prompts, too few for an interval of the accuracy: {LEAST_HELD_OUT} are "
            f"needed"
        )
    first = {pair.key: pair.row for pair in reversed(training)}
    shared = [(pair.row, first[pair.key]) for pair in held if pair.key in first]
    if shared:
        row, other = shared[0]
        raise UserError(
            f"row {row} of held_out_pairs has the prompt of row {other} of pairs, and {len(shared)} rows have such a "
            f"one: a prompt must be on one side only"
        )


class _BadCellError(Exception):
    def __init__(self, column: str, why: str) -> None:
        super().__init__(why)
        self.column, self.why = column, why


def _filled(row: Row) -> Row:
    for column in COLUMNS:
        if column not in row:
            raise _BadCellError(column, f"there is none; the row has {', '.join(row) or 'nothing'}")
        if row[column] is None:
            raise _BadCellError(column, "it is null")
    return row


def _text_pair(number: int, row: Row, folder: Path) -> Pair:
    values: dict[str, Value] = {column: _value(column, row) for column in COLUMNS}
    prompt = values["prompt"]
    if isinstance(prompt, Conversation):
        try:
            check_prompt(prompt, "it")
        except DataError as error:
            raise _BadCellError("prompt", str(error)) from error
        if prompt.options:
            raise _BadCellError("prompt", f"rewards see no {', '.join(prompt.options)}: leave these columns out")
    elif not prompt.strip():
        raise _BadCellError("prompt", "it is empty")
    chosen, rejected = (_answer(column, values[column]) for column in COLUMNS[1:])
    if chosen == rejected:
        raise _BadCellError("rejected", "it is the same as `chosen`, so neither is better")
    shown = list(prompt.messages) if isinstance(prompt, Conversation) else prompt
    return Pair(number, shown, chosen, rejected)


def _value(column: str, row: Row) -> Value:
    cell = row[column]
    try:
        if looks_like_messages(cell):
            return conversation(cell, row, "it")
    except DataError as error:
        raise _BadCellError(column, str(error)) from error
    if not isinstance(cell, str):
        raise _BadCellError(column, f"it is of type {type(cell).__name__}; a text, or chat messages, are needed")
    try:
        cell.encode()
    except UnicodeEncodeError as error:
        raise _BadCellError(column, f"it has half a character at place {error.start}") from error
    return cell


def _answer(column: str, value: Value) -> str:
    try:
        return answer_text(value, "it")
    except DataError as error:
        raise _BadCellError(column, str(error)) from error


def _image_pair(number: int, row: Row, folder: Path) -> Pair:
    prompt = row["prompt"]
    if not isinstance(prompt, str) or not prompt.strip():
        raise _BadCellError("prompt", "it is no text, or empty")
    cells, arrays = [], []
    for column in COLUMNS[1:]:
        cells.append(located(row[column], folder))
        try:
            array = pixels(cells[-1], "it")
        except (DataError, ValueError, TypeError) as error:
            raise _BadCellError(column, str(error)) from error
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise _BadCellError(
                column, f"it is {array.dtype} of shape {array.shape}, not RGB: (height, width, 3) bytes"
            )
        arrays.append(array)
    if np.array_equal(arrays[0], arrays[1]):
        raise _BadCellError("rejected", "it is the same picture as `chosen`, so neither is better")
    return Pair(number, prompt, *cells)
