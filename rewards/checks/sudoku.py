"""Sudoku of 4 x 4 or 9 x 9 cells: solved or not, and the share of empty cells that are right.

The share is d1's reward (diffu-GRPO, arXiv 2504.12216): the digits in the last `<answer>`, missing ones wrong, those
beyond the last cell left out, against the recorded solution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

from rewards.checks.answers import LogMalformed, Malformed, column, scores, tagged

SIZES = (4, 9)
_DIGIT = re.compile(r"[0-9]")


def sudoku(
    completions: list[str],
    puzzle: Sequence[Any] | None = None,
    metadata: Sequence[Mapping[str, Any]] | None = None,
    answer_tag: str | None = "answer",
    log_malformed: LogMalformed | None = None,
    **_: Any,
) -> list[float | None]:
    """1 for a grid that keeps the given digits and has each digit once in every row, column and box, else 0.

    No solution is needed, so that of a puzzle with several each one is right.

    Args:
        puzzle: N grids, 0 for an empty cell: texts of 16 or 81 digits (`.` and `_` are empty too, white space is
            nothing), or lists of rows.
        metadata: where there is no such column: N mappings with `puzzle`, as reasoning-gym's rows have them.
        answer_tag: the grid is the digits in the last `<answer_tag>`; None is the whole completion.

    Returns:
        N scores, 0 or 1; None where the puzzle is null: a problem of another data set.

    Raises:
        ValueError: a puzzle is none: another number of cells, no empty cell, digits that clash.
    """
    puzzles = [_puzzle(place, each) for place, each in enumerate(_column("puzzle", puzzle, metadata, len(completions)))]

    def score(place: int, completion: str) -> float | None:
        given = puzzles[place]
        if given is None:
            return None
        found = _digits(completion, answer_tag)
        if len(found) != len(given):
            raise Malformed(f"it has {len(found)} digits for {len(given)} cells")
        kept = all(cell in ("0", mine) for cell, mine in zip(given, found, strict=True))
        return float(kept and "0" not in found and _clash(found) is None)

    return scores("sudoku", completions, score, log_malformed)


def sudoku_shaped(
    completions: list[str],
    puzzle: Sequence[Any] | None = None,
    solution: Sequence[Any] | None = None,
    metadata: Sequence[Mapping[str, Any]] | None = None,
    answer_tag: str | None = "answer",
    log_malformed: LogMalformed | None = None,
    **_: Any,
) -> list[float | None]:
    """The share of the puzzle's empty cells that hold the solution's digit.

    Args:
        solution: N full grids, written as the puzzles are.
        metadata: where there are no such columns: N mappings with `puzzle` and `solution`.

    Raises:
        ValueError: as `sudoku`; or a solution is none of its puzzle.
    """
    count = len(completions)
    puzzles = [_puzzle(place, each) for place, each in enumerate(_column("puzzle", puzzle, metadata, count))]
    solutions = _column("solution", solution, metadata, count)
    pairs = [_pair(place, *pair) for place, pair in enumerate(zip(puzzles, solutions, strict=True))]

    def score(place: int, completion: str) -> float | None:
        pair = pairs[place]
        if pair is None:
            return None
        found = _digits(completion, answer_tag)
        cells = zip(*pair, found.ljust(len(pair[0]), "0")[: len(pair[0])], strict=True)
        right = [mine == wanted for given, wanted, mine in cells if given == "0"]
        return sum(right) / len(right)

    return scores("sudoku_shaped", completions, score, log_malformed)


def _digits(completion: str, tag: str | None) -> str:
    found = "".join(_DIGIT.findall(tagged(completion, tag)))
    if not found:
        raise Malformed("it has no digits")
    return found


def _column(name: str, values: Any, metadata: Any, count: int) -> list[Any]:
    if values is not None:
        return column(name, values, count)
    if metadata is None:
        raise ValueError(f"a Sudoku needs the dataset column `{name}`, or `metadata` that has it")
    return [row.get(name) if isinstance(row, Mapping) else None for row in column("metadata", metadata, count)]


def _puzzle(place: int, grid: Any) -> str | None:
    if grid is None:
        return None
    cells = _cells(place, "puzzle", grid)
    if "0" not in cells:
        raise ValueError(f"sample {place}: the puzzle has no empty cell, so there is nothing to score")
    return cells


def _pair(place: int, puzzle: str | None, solution: Any) -> tuple[str, str] | None:
    if puzzle is None:
        return None
    if solution is None:
        raise ValueError(f"sample {place}: a Sudoku has a puzzle and no solution")
    cells = _cells(place, "solution", solution)
    if len(cells) != len(puzzle) or "0" in cells:
        raise ValueError(f"sample {place}: the solution does not fill the cells of its puzzle")
    if any(given not in ("0", wanted) for given, wanted in zip(puzzle, cells, strict=True)):
        raise ValueError(f"sample {place}: the solution has other digits than the puzzle gives")
    return puzzle, cells


def _cells(place: int, name: str, grid: Any) -> str:
    """The digits of a grid, row by row."""
    if isinstance(grid, str):
        text = "".join(grid.split()).replace(".", "0").replace("_", "0")
    elif isinstance(grid, Sequence) and not isinstance(grid, bytes):
        rows = [row if isinstance(row, Sequence) and not isinstance(row, str) else [row] for row in grid]
        text = "".join(str(cell) for row in rows for cell in row)
    else:
        text = ""
    size = isqrt(len(text))
    if size not in SIZES or size * size != len(text) or not all(cell in "0123456789"[: size + 1] for cell in text):
        raise ValueError(
            f"sample {place}: the {name} of a Sudoku is 16 digits of 0 to 4 or 81 of 0 to 9, as text or in rows; got "
            f"{grid!r:.100}"
        )
    if clash := _clash(text):
        raise ValueError(f"sample {place}: the {name} of a Sudoku has a digit twice in {clash}")
    return text


def _clash(cells: str) -> str | None:
    """The first row, column or box that has a digit twice; 0 is none."""
    size = isqrt(len(cells))
    box = isqrt(size)
    seen: set[tuple[str, int, str]] = set()
    for place, digit in enumerate(cells):
        row, column_ = divmod(place, size)
        if digit == "0":
            continue
        for kind, index in (("row", row), ("column", column_), ("box", row // box * box + column_ // box)):
            if (kind, index, digit) in seen:
                return f"{kind} {index + 1}"
            seen.add((kind, index, digit))
    return None
