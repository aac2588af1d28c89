"""Rows beyond the model's limits, left out because the user chose so (`data.too_long=leave_out`), and counted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from configs.schema import DataOptions, TooLong
from rl.data.problems import Problem, ProblemSource, evenly
from rl.data.prompts import PromptSource
from rl.data.rows import DataError, TooLongError


class Kept(ProblemSource):
    """The problems of a source whose indices are kept, under the ids that they have there."""

    def __init__(self, source: ProblemSource, indices: Sequence[int]) -> None:
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Problem:  # type: ignore[override]  # slices are not offered
        return self._source[self._indices[index]]

    def fingerprint(self) -> str:
        """That of the source, and which of its problems are kept."""
        said = f"{self._source.fingerprint()} {list(self._indices)}"
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()

    def spread(self) -> list[int]:
        return evenly(len(self))

    def check_columns(self) -> None:
        self._source.check_columns()


def kept(
    source: PromptSource, options: DataOptions, name: str, answers: bool = False
) -> tuple[PromptSource, tuple[str, ...]]:
    """The source without what is too long, if the options say so, and a note that counts it.

    Reads and encodes every problem, so that the source has a length before anything starts.

    Args:
        name: of the option, for the note.
        answers: the answers are encoded too.

    Raises:
        DataError: a problem has another fault, or none is left.
    """
    if options.too_long is TooLong.refuse:
        return source, ()
    indices, first = [], ""
    for index in range(len(source.problems)):
        try:
            problem = source.problems[index]
            source.encoder.prompt(problem)
            if answers and problem.responses:
                source.encoder.offline_group(problem, seed=0, update=0)
        except TooLongError as error:
            first = first or str(error)
        else:
            indices.append(index)
    left_out = len(source.problems) - len(indices)
    if not left_out:
        return source, ()
    counted = f"{name}: {left_out} of {len(source.problems)} problems are too long"
    if not indices:
        raise DataError(f"{counted}, and none is left. The first: {first}")
    note = f"{counted} and left out (data.too_long=leave_out). The first: {first}"
    return PromptSource(Kept(source.problems, indices), source.encoder), (note,)
