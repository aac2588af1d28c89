"""Where problems come from: reasoning-gym tasks, files and data sets, as one indexable sequence.

`problems[i]` is a pure function of the options and i: nothing is iterated, so there is no position to save. Rows are read
and templates rendered at access.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from configs.schema import SourceKind, SourceOptions

Row = dict[str, Any]
FINGERPRINT_ROWS = 256


class DataError(ValueError):
    """The data cannot be used as configured; the message says which row or option, and what to change."""


@dataclass(frozen=True)
class Problem:
    id: str
    """Source name and row, such as `chain_sum/17`."""
    prompt: str
    response: str | None
    """The demonstration, for supervised training."""
    columns: Row
    """The whole row, for reward functions."""


class Problems(Sequence[Problem]):
    """The rows of one source with the templates of its options."""

    def __init__(self, rows: Sequence[Row], options: SourceOptions, label: str) -> None:
        """
        Args:
            rows: the same row for the same index, however often and in whatever order it is asked for.
            label: a short name of the source; the ids of its problems start with it.
        """
        self._rows = rows
        self._options = options
        self._label = label
        self._size = _size(len(rows), options)
        self._prompt = _template(options.prompt, "prompt")
        self._response = None if options.response is None else _template(options.response, "response")
        self[0]  # A template that does not fit the columns is an error before anything has been started.

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Problem:  # type: ignore[override]  # slices are not offered
        if not 0 <= index < self._size:
            raise IndexError(f"{self._label} has problems 0 to {self._size - 1}, not {index}")
        name = f"{self._label}/{index}"
        row = self._rows[index]
        prompt = self._prompt(name, row)
        if not prompt.strip():
            raise DataError(f"problem {name} has an empty prompt: fill its row or change the prompt template")
        response = None if self._response is None else self._response(name, row)
        return Problem(name, prompt, response, row)

    def fingerprint(self) -> str:
        """Hash of what is in the source, the same in every process and wherever the file lies.

        It covers the templates, the number of rows and at most 256 rows spread evenly from the first to the last, so it
        costs the same for a million rows. A change to a row between those goes unnoticed.
        A few reasoning-gym tasks (`word_ladder`, `ransom_note`, ...) iterate over Python sets: their problems, and so
        this hash, are the same in another process only when PYTHONHASHSEED is set to the same number there.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((self._options.prompt, self._options.response, self._size)).encode())
        count = min(self._size, FINGERPRINT_ROWS)
        for k in range(count):
            index = k * (self._size - 1) // max(1, count - 1)
            digest.update(_canonical(self._rows[index]).encode())
        return digest.hexdigest()


def open_source(options: SourceOptions) -> Problems:
    """Open a source of problems.

    Columns of a reasoning_gym source are `question`, `answer`, `metadata`, and `entry`: the whole entry that its verifier
    wants. The cells of a CSV file are strings, exactly as written.

    Raises:
        DataError: the source is missing, unreadable or empty, or its first row does not fit the templates.
    """
    if options.kind is SourceKind.reasoning_gym:
        return Problems(_reasoning_gym_rows(options), options, options.name)
    if options.kind is SourceKind.file:
        return Problems(_file_rows(options), options, Path(options.name).name)
    return Problems(_dataset_rows(options), options, Path(options.name).name)


# Sources


class _ReasoningGymRows(Sequence[Row]):
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        entry = self._dataset[index]
        return {**entry, "entry": entry}


def _reasoning_gym_rows(options: SourceOptions) -> Sequence[Row]:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if options.name not in DATASETS:
        near = difflib.get_close_matches(options.name, DATASETS, n=5, cutoff=0.4)
        hint = f"nearest names: {', '.join(near)}" if near else f"it has {', '.join(sorted(DATASETS))}"
        raise DataError(f"reasoning_gym has no task {options.name!r}; {hint}")
    if options.size is None:
        raise DataError(f"reasoning_gym makes problems without end: say how many of {options.name!r} with `size`")
    _size(options.size, options)
    try:
        dataset = reasoning_gym.create_dataset(options.name, size=options.size, seed=options.seed, **options.args)
    except (TypeError, AssertionError, ValueError) as error:
        allowed = ", ".join(sorted(set(DATASETS[options.name][1].__dataclass_fields__) - {"size", "seed"}))
        raise DataError(
            f"reasoning_gym task {options.name!r} refuses the args {dict(options.args)}: {error}; it knows {allowed}"
        ) from error
    return _ReasoningGymRows(dataset)


def _file_rows(options: SourceOptions) -> Sequence[Row]:
    path = Path(options.name)
    readers: dict[str, Callable[[Path], Sequence[Row]]] = {
        ".jsonl": _JsonLines,
        ".json": _json_rows,
        ".csv": _csv_rows,
        ".parquet": _ParquetRows,
    }
    if path.suffix.lower() not in readers:
        raise DataError(f"cannot tell the format of {path} from its extension; use one of {', '.join(readers)}")
    if options.args:
        raise DataError(f"args {dict(options.args)} have no meaning for a file: remove them, or use kind=dataset")
    try:
        return readers[path.suffix.lower()](path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


class _JsonLines(Sequence[Row]):
    """Every line is parsed once at the start, so that a broken one stops the run before it begins, and again at access:
    a million parsed rows would take several times the memory of their text."""

    def __init__(self, path: Path) -> None:
        self._lines: list[bytes] = []
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    _check_json_row(line, f"{path}, line {number}")
                    self._lines.append(line)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        return json.loads(self._lines[index])


def _check_json_row(line: bytes, where: str) -> None:
    try:
        row = json.loads(line)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both ValueErrors
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row must be an object with named columns, not {type(row).__name__}")


def _json_rows(path: Path) -> Sequence[Row]:
    try:
        rows = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: the top level must be a list of rows, not {type(rows).__name__}")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {index}: a row must be an object, not {type(row).__name__}")
    return rows


def _csv_rows(path: Path) -> Sequence[Row]:
    reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise DataError(f"{path}: two columns have the same name in its header {header}")
        for cells in reader:
            if cells and len(cells) != len(header):
                raise DataError(f"{path}, line {reader.line_num}: {len(cells)} cells for {len(header)} columns")
            if cells:
                rows.append(dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
    return rows


class _ParquetRows(Sequence[Row]):
    def __init__(self, path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        try:
            self._table = pyarrow.parquet.read_table(path, memory_map=True)
        except pyarrow.ArrowInvalid as error:
            raise DataError(f"{path} is not a Parquet file: {error}") from error

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        return self._table.slice(index, 1).to_pylist(maps_as_pydicts="strict")[0]


def _dataset_rows(options: SourceOptions) -> Sequence[Row]:
    import datasets

    folder = Path(options.name)
    if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
        if options.args:
            raise DataError(f"args {dict(options.args)} have no meaning for a data set saved to disk: remove them")
        saved = datasets.load_from_disk(options.name)
        if isinstance(saved, datasets.Dataset):
            return saved
        if options.split not in saved:
            raise DataError(f"{folder} has no split {options.split!r}; it has {', '.join(saved)}")
        return saved[options.split]
    try:
        return datasets.load_dataset(options.name, split=options.split, **options.args)
    except (OSError, ValueError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"cannot load data set {options.name!r}, split {options.split!r}: {error}") from error


# Helpers


def _size(rows: int, options: SourceOptions) -> int:
    if rows == 0:
        raise DataError(f"{options.name} has no rows")
    size = rows if options.size is None else options.size
    if not 1 <= size <= rows:
        raise DataError(f"size={size} of {options.name}, which has {rows} rows: choose 1 to {rows}, or null for all")
    return size


def _template(source: str, purpose: str) -> Callable[[str, Row], str]:
    """Compile a Jinja template; data sets are not trusted, so it runs in Jinja's sandbox."""

    def refuse_null(value: Any) -> Any:
        if value is None:
            raise jinja2.UndefinedError("a value is null, which would be printed as 'None'")
        return value

    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, finalize=refuse_null, keep_trailing_newline=True
    )
    environment.globals.clear()  # A missing column called `range` or `dict` must not print a Python object.
    try:
        template = environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise DataError(f"the {purpose} template does not parse: {error.message} in {source!r}") from error

    def render(name: str, row: Row) -> str:
        try:
            return template.render(row)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise DataError(
                f"problem {name} does not fit the {purpose} template {source!r}: {error}; its columns are {', '.join(row)}"
            ) from error

    return render


def _canonical(value: Any) -> str:
    """A text of a nested value that does not depend on dict order, set order or memory addresses."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{_canonical(k)}:{_canonical(v)}" for k, v in value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "<" + ",".join(sorted(map(_canonical, value))) + ">"
    if hasattr(value, "tobytes"):  # numpy arrays, whose text is shortened, and images
        return hashlib.blake2b(value.tobytes()).hexdigest()
    text = repr(value)
    if " at 0x" in text and not isinstance(value, (str, bytes)):
        raise DataError(
            f"cannot fingerprint a {type(value).__name__}, whose text is its memory address: drop its column"
        )
    return text
