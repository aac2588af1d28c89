"""What is wrong with a source of problems, row by row: a run refuses at the first bad row, this names each.

It also says how long the texts are, which rows say the same, and which of the held-out problems are trained on.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jinja2 import meta

from configs.schema import IMAGE_ANSWERS, TEXT_ANSWERS, SourceKind, SourceOptions
from rl.data.image_columns import pixels
from rl.data.problems import Problem, Problems, canonical, label_of, rows_of
from rl.data.rows import DataError, Row, TooLongError, json_row

Measure = Callable[[Problem], dict[str, int]]
"""Lengths of a problem in tokens, by what they are of. Raises DataError for what the model cannot read."""

_COLUMN = re.compile(r"\bcolumn ['\"]?([\w.\[\]]+)")


@dataclass(frozen=True)
class BadRow:
    """Why a row cannot be used."""

    row: int | None
    """Its number, from 0, as in the id of its problem; None is the whole source."""
    line: int | None
    """Its line, from 1, in a file with one object a line."""
    column: str | None
    why: str


@dataclass
class Checked:
    """Of one source."""

    rows: int = 0
    """That it has, or that `size` takes of it."""
    looked_at: int = 0
    bad: list[BadRow] = field(default_factory=list)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    """`prompt, characters` and so on -> that of each good row."""
    repeated: list[tuple[int, int]] = field(default_factory=list)
    """(row, an earlier row) with the same prompt, once normalised."""
    equal: int = 0
    """Of these, rows that are the same in every column."""
    prompts: dict[bytes, int] = field(default_factory=dict)
    """Digest of a normalised prompt -> the first row that has it."""
    left_out: list[int] = field(default_factory=list)
    """Rows that are too long, where the options leave such out."""
    good: list[int] = field(default_factory=list)
    """The rows that can be used."""
    problems: Problems | None = None
    """None where the source cannot be opened."""


def normalised(text: str) -> str:
    """A text without what makes no other problem of it: case, white space, forms of the same character."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def check_source(
    options: SourceOptions,
    answers: bool,
    measure: Measure | None = None,
    limits: Mapping[str, int] | None = None,
    leave_out: bool = False,
    most_rows: int | None = None,
) -> Checked:
    """
    Args:
        answers: demonstrations and pairs are needed, and rewards see nothing of the rows.
        measure: tokens of a problem; None counts characters alone.
        limits: the most that each of these lengths may be.
        leave_out: rows that are too long are left out and counted, not bad.
        most_rows: look at no more rows, evenly from the first to the last; None looks at all.
    """
    found = Checked()
    try:
        rows, lines = _rows(options, found.bad)
        problems = found.problems = Problems(rows, options, label_of(options), answers, try_first=False)
    except DataError as error:
        found.bad.append(BadRow(None, None, _column(str(error), options), str(error)))
        return found
    found.rows = len(problems)
    size = len(problems)
    chosen = range(size) if most_rows is None or most_rows >= size else _spread(size, most_rows)
    first = rows[0].keys()
    columns: dict[int, bytes] = {}
    for index in chosen:
        found.looked_at += 1
        line = None if lines is None else lines[index]
        if not answers and (odd := sorted(rows[index].keys() ^ first)):  # rewards see the columns
            told = "has, and the first row has not" if odd[0] in rows[index] else "lacks, and the first row has"
            found.bad.append(BadRow(index, line, odd[0], f"{odd[0]!r} is a column that the row {told}"))
            continue
        try:
            problem = problems[index]
            lengths = _lengths(problem, options, measure)
            for name, length in lengths.items():
                found.lengths.setdefault(name, []).append(length)
            for name, most in (limits or {}).items():
                if lengths.get(name, 0) > most:
                    raise TooLongError(f"{problem.id} is too long: {name}: {lengths[name]}, and at most {most} may be")
        except DataError as error:
            if leave_out and isinstance(error, TooLongError):
                found.left_out.append(index)
            else:
                found.bad.append(BadRow(index, line, _column(str(error), options), str(error)))
            continue
        found.good.append(index)
        columns[index] = _digest(canonical([problem.columns, problem.responses, list(map(_picture, problem.images))]))
        mark = _digest(normalised(problem.condition))
        earlier = found.prompts.setdefault(mark, index)
        if earlier != index:
            found.repeated.append((index, earlier))
            found.equal += columns[index] == columns[earlier]
    return found


def overlap(training: Checked, held_out: Checked) -> list[tuple[int, int]]:
    """(held-out row, training row) with the same prompt, once normalised."""
    return [(row, training.prompts[mark]) for mark, row in held_out.prompts.items() if mark in training.prompts]


def summary(lengths: Sequence[int]) -> dict[str, int]:
    """Least, median, 95th percentile and most."""
    ordered = np.sort(np.asarray(lengths))
    at = {"least": 0.0, "median": 0.5, "95 %": 0.95, "most": 1.0}
    return {name: int(ordered[round(share * (len(ordered) - 1))]) for name, share in at.items()}


def _spread(size: int, most: int) -> Iterator[int]:
    return iter(sorted({round(k * (size - 1) / max(1, most - 1)) for k in range(most)}))


def _rows(options: SourceOptions, bad: list[BadRow]) -> tuple[Sequence[Row], list[int] | None]:
    """The rows, and their lines in a file that has one row a line; broken lines are bad, and left out."""
    path = Path(options.name)
    if options.kind is not SourceKind.file or path.suffix.lower() != ".jsonl" or not path.is_file() or options.args:
        return rows_of(options), None
    rows, lines = [], []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                rows.append(json_row(line, f"{path}, line {number}"))
                lines.append(number)
            except DataError as error:
                bad.append(BadRow(None, number, None, str(error)))
    return rows, lines


def _lengths(problem: Problem, options: SourceOptions, measure: Measure | None) -> dict[str, int]:
    found = {"prompt, characters": len(problem.prompt)}
    names = problem.answers or tuple("response" for _ in problem.responses)
    found |= {f"{name}, characters": len(text) for name, text in zip(names, problem.responses, strict=True)}
    columns = [column for option in IMAGE_ANSWERS if (column := getattr(options, option)) is not None]
    for image, column in zip(problem.images, columns, strict=False):
        try:
            height, width = pixels(image, problem.id).shape[:2]
        except DataError as error:
            raise DataError(f"column {column!r}: {error}") from error
        found |= {"picture, pixels wide": width, "picture, pixels high": height}
    return found if measure is None else {**found, **measure(problem)}


def _picture(image: Any) -> Any:
    return str(image) if isinstance(image, Path) else image


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest()


def _column(why: str, options: SourceOptions) -> str | None:
    """The column that a message names; else those that the template reads which it is about."""
    if match := _COLUMN.search(why):
        return match[1]
    for option in ("prompt", "perturbed", *TEXT_ANSWERS):
        source = getattr(options, option)
        if source is not None and re.search(rf"\b{option}\b", why):
            try:
                names = sorted(meta.find_undeclared_variables(jinja2.Environment().parse(source)))
            except jinja2.TemplateError:
                return None
            return ", ".join(names) or None
    named = [getattr(options, option) for option in IMAGE_ANSWERS if getattr(options, option) is not None]
    return named[0] if len(named) == 1 and "image" in why else None
