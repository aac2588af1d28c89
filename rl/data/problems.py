"""Where problems come from: reasoning-gym tasks, files and data sets, as one indexable sequence.

`problems[i]` is a pure function of the options and i: nothing is iterated, so there is no position to save. Rows are
read and templates rendered at access.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import IMAGE_ANSWERS, TEXT_ANSWERS, DataOptions, SourceKind, SourceOptions
from rewards.conversation import Prompt
from rl.data.conversation import Conversation, Value, answer_text, check_prompt, conversation, without_prompt
from rl.data.image_columns import located
from rl.data.rows import (
    DataError,
    Row,
    dataset_rows,
    digit_rows,
    file_rows,
    ragged_row,
    reasoning_gym_rows,
    scene_rows,
)
from rl.data.templates import template
from rl.data.users import user_vector

SPREAD_ROWS = 256


@dataclass(frozen=True)
class Problem:
    id: str
    """Source name and row, such as `chain_sum/17`."""
    prompt: str
    """A conversation as text (`Conversation.text`)."""
    columns: Row
    """The row, for reward functions; without the images of the data."""
    responses: tuple[str, ...] = ()
    """For offline training of a text model: a demonstration, or the chosen and the rejected answer."""
    images: tuple[Any, ...] = ()
    """The same for an image model, as `rl.data.image_columns.pixels` takes them."""
    perturbed: str | None = None
    """A prompt whose completions answer `prompt` worse."""
    user: np.ndarray | None = None
    """(U,) fp32: whose preference it is, or whom a picture is for."""
    conversation: Conversation | None = None
    """What the chat template is applied to, where the data have messages; None is one message of the user, `prompt`."""
    answers: tuple[str, ...] = ()
    """The options that `responses` are of, for messages."""

    @property
    def condition(self) -> str:
        """The prompt and, where there is one, a mark of the user: samples of equal conditions can be compared."""
        prompt = self.prompt if self.conversation is None else self.conversation.mark
        return prompt if self.user is None else f"{prompt} {hashlib.blake2b(self.user.tobytes()).hexdigest()}"

    @property
    def shown(self) -> Prompt:
        """The prompt as rewards get it: text or messages, whatever the data have."""
        return self.prompt if self.conversation is None else list(self.conversation.messages)


def conversation_problem(name: str, messages: Sequence[Any]) -> Problem:
    """A problem without columns out of chat messages. Raises DataError, which names it."""
    prompt = conversation(messages, {}, f"the prompt of {name}")
    check_prompt(prompt, f"the prompt of {name}")
    return Problem(name, prompt.text, {}, conversation=prompt)


class ProblemSource(Sequence[Problem], ABC):
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of what is in the source, the same in every process and wherever its files lie."""

    @abstractmethod
    def spread(self) -> list[int]:
        """Some hundred indices, evenly from the first to the last: a sample for checks."""

    @abstractmethod
    def check_columns(self) -> None:
        """Rewards get every column of every row. Raises DataError for a row that lacks one, or has one more."""


class Problems(ProblemSource):
    """The rows of one source with the templates of its options."""

    def __init__(
        self, rows: Sequence[Row], options: SourceOptions, label: str, answers: bool = True, try_first: bool = True
    ) -> None:
        """
        Args:
            rows: the same row for the same index, however often and in whatever order it is asked for.
            label: a short name of the source; the ids of its problems start with it.
            answers: read demonstrations and pairs; without it rows need not have any.
            try_first: refuse a source whose first row does not fit the templates.
        """
        self._rows = rows
        self._options = options
        self._label = label
        self._size = _size(len(rows), options)
        self._prompt = None if options.prompt is None else template(options.prompt, "prompt")
        self._perturbed = None if options.perturbed is None else template(options.perturbed, "perturbed")
        answers = answers or self._prompt is None  # which takes it out of them
        texts = _given(options, *TEXT_ANSWERS) if answers else {}
        self._responses = {name: template(source, name) for name, source in texts.items()}
        if self._prompt is None and not self._responses:
            raise DataError(
                f"prompt=null of {options.name} takes prompts out of answers: set one of response or chosen"
            )
        self._images = _given(options, *IMAGE_ANSWERS)
        self._shown = self._images if answers else {}
        self._folder = Path(options.name).parent if options.kind is SourceKind.file else Path()
        if try_first:  # A template that does not fit the columns is an error before anything has been started.
            self[0]

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Problem:  # type: ignore[override]  # slices are not offered
        if not 0 <= index < self._size:
            raise IndexError(f"{self._label} has problems 0 to {self._size - 1}, not {index}")
        name = f"{self._label}/{index}"
        row = self._rows[index]
        prompt, responses = self._texts(name, row)
        messages = prompt if isinstance(prompt, Conversation) else None
        prompt = prompt.text if isinstance(prompt, Conversation) else prompt
        if not prompt.strip():
            raise DataError(f"problem {name} has an empty prompt: fill its row or change the prompt template")
        images = tuple(self._cell(name, row, option) for option in self._shown)
        columns = {column: value for column, value in row.items() if column not in self._images.values()}
        perturbed = None if self._perturbed is None else self._perturbed(name, row)
        if isinstance(perturbed, Conversation):
            raise DataError(f"problem {name} has a perturbed prompt of messages; a text is needed")
        user = None if self._options.user is None else user_vector(self._cell(name, row, "user"), name)
        return Problem(name, prompt, columns, responses, images, perturbed, user, messages, (*self._responses,))

    def _texts(self, name: str, row: Row) -> tuple[Value, tuple[str, ...]]:
        """The prompt, and the demonstration or the pair of answers."""
        answers: list[Value] = [render(name, row) for render in self._responses.values()]
        if self._prompt is None:
            which = " and ".join(self._responses)
            prompt, answers = without_prompt(answers, f"the {which} of {name} hold the prompt")
        else:
            prompt = self._prompt(name, row)
        if isinstance(prompt, Conversation):
            check_prompt(prompt, f"the prompt of {name}")
        named = zip(self._responses, answers, strict=True)
        texts = tuple(answer_text(answer, f"the {option} of {name}") for option, answer in named)
        _check_characters(prompt.text if isinstance(prompt, Conversation) else prompt, f"the prompt of {name}")
        for option, text in zip(self._responses, texts, strict=True):
            _check_characters(text, f"the {option} of {name}")
            if option == "response" and not text.strip():  # in a pair it is what a policy wrote that stopped at once
                raise DataError(
                    f"the response of {name} is empty, and would teach to say nothing: fill its row or remove it"
                )
        return prompt, texts

    def _cell(self, name: str, row: Row, option: str) -> Any:
        """What is in the column that an option names; text is a path."""
        column = getattr(self._options, option)
        if row.get(column) is None:
            missing = "an empty" if column in row else "no"
            raise DataError(
                f"problem {name} has {missing} column {column!r}, which `{option}` names: fill it in, remove the row, "
                f"or name another column"
            )
        return located(row[column], self._folder)

    def fingerprint(self) -> str:
        """Hash of what is in the source, the same in every process and wherever the file lies.

        It covers the templates, the number of rows and at most 256 rows spread evenly from the first to the last, so it
        costs the same for a million rows. A change to a row between those goes unnoticed, and so does one to an image
        file that a row names.
        A few reasoning-gym tasks (`word_ladder`, `ransom_note`, ...) iterate over Python sets: their problems, and so
        this hash, are the same in another process only when PYTHONHASHSEED is set to the same number there.
        """
        digest = hashlib.blake2b(digest_size=16)
        templates = _given(self._options, "prompt", *TEXT_ANSWERS, *IMAGE_ANSWERS, "user")
        digest.update(repr((templates, self._size)).encode())
        for index in self.spread():
            digest.update(canonical(self._rows[index]).encode())
        return digest.hexdigest()

    def spread(self) -> list[int]:
        return evenly(self._size)

    def check_columns(self) -> None:
        index = ragged_row(self._rows)
        if index is None or index >= self._size:
            return
        first, row = self._rows[0].keys(), self._rows[index].keys()
        lacks, more = sorted(first - row), sorted(row - first)
        found = [f"no column {name!r}, which its first row has" for name in lacks[:1]]
        column = " and ".join([*found, *(f"a column {name!r} of its own" for name in more[:1])])
        raise DataError(
            f"problem {self._label}/{index} has {column}, and rewards get every column of every row: give all rows the "
            f"same ones, with null where a reward does not apply"
        )


class Mixture(ProblemSource):
    """Several sources, one behind the other; whoever draws from them shuffles. Every problem has the columns of all
    sources, None where its own has no such column."""

    def __init__(self, sources: Sequence[ProblemSource]) -> None:
        self._sources = sources
        self._columns = dict.fromkeys(name for source in sources for name in source[0].columns)
        self._first = [sum(len(source) for source in sources[:index]) for index in range(len(sources))]

    def __len__(self) -> int:
        return self._first[-1] + len(self._sources[-1])

    def __getitem__(self, index: int) -> Problem:  # type: ignore[override]  # slices are not offered
        if not 0 <= index < len(self):
            raise IndexError(f"the sources have problems 0 to {len(self) - 1}, not {index}")
        source = bisect_right(self._first, index) - 1
        problem = self._sources[source][index - self._first[source]]
        return replace(problem, columns={**self._columns, **problem.columns})

    def fingerprint(self) -> str:
        joined = " ".join(source.fingerprint() for source in self._sources)
        return hashlib.blake2b(joined.encode(), digest_size=16).hexdigest()

    def spread(self) -> list[int]:
        return [
            first + index for first, source in zip(self._first, self._sources, strict=True) for index in source.spread()
        ]

    def check_columns(self) -> None:
        for source in self._sources:
            source.check_columns()


def open_training(options: DataOptions, answers: bool = True) -> ProblemSource:
    """The training problems: one source, or several as one.

    Args:
        answers: as `open_source` has it.
    """
    sources = [open_source(source, answers) for source in options.training().values()]
    return sources[0] if len(sources) == 1 else Mixture(sources)


def open_source(options: SourceOptions, answers: bool = True) -> Problems:
    """Open a source of problems.

    Args:
        answers: read demonstrations and pairs. Reinforcement learning does not, so that its rows need not have any.

    Columns of a reasoning_gym source are `question`, `answer`, `metadata`, and `entry`: the whole entry, which its
    verifier wants. The cells of a CSV file are strings, exactly as written.

    Raises:
        DataError: the source is missing, unreadable or empty, or its first row does not fit the templates.
    """
    return Problems(rows_of(options), options, label_of(options), answers)


def rows_of(options: SourceOptions) -> Sequence[Row]:
    """The rows of a source. Raises DataError."""
    readers = {
        SourceKind.reasoning_gym: reasoning_gym_rows,
        SourceKind.scenes: scene_rows,
        SourceKind.digits: digit_rows,
        SourceKind.file: file_rows,
        SourceKind.dataset: dataset_rows,
    }
    return readers[options.kind](options)


def label_of(options: SourceOptions) -> str:
    """What the ids of its problems begin with."""
    return Path(options.name).name if options.kind in (SourceKind.file, SourceKind.dataset) else options.name


def evenly(size: int) -> list[int]:
    """At most 256 indices of a source, evenly from the first to the last."""
    count = min(size, SPREAD_ROWS)
    return [k * (size - 1) // max(1, count - 1) for k in range(count)]


def _check_characters(text: str, what: str) -> None:
    """JSON can write half of a character, as "\\ud83d", which no tokenizer reads and no file of UTF-8 holds."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{what} has half a character in it, {text[error.start]!a} at place {error.start}: the text was cut, or "
            f"decoded wrongly; restore it, or remove the row"
        ) from error


def _given(options: SourceOptions, *names: str) -> dict[str, str]:
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _size(rows: int, options: SourceOptions) -> int:
    if rows == 0:
        raise DataError(f"{options.name} has no rows; name a source that has some")
    size = rows if options.size is None else options.size
    if not 1 <= size <= rows:
        raise DataError(f"size={size} of {options.name}, which has {rows} rows: choose 1 to {rows}, or null for all")
    return size


def canonical(value: Any) -> str:
    """A text of a nested value that does not depend on dict order, set order or memory addresses."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{canonical(k)}:{canonical(v)}" for k, v in value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "<" + ",".join(sorted(map(canonical, value))) + ">"
    if hasattr(value, "tobytes"):  # numpy arrays, whose text is shortened, and images
        return hashlib.blake2b(value.tobytes()).hexdigest()
    text = repr(value)
    if " at 0x" in text and not isinstance(value, (str, bytes)):
        raise DataError(
            f"cannot fingerprint a {type(value).__name__}, whose text is its memory address: drop its column"
        )
    return text
