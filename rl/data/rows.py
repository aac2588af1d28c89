"""The rows of a source, as an indexable sequence of columns: a reasoning-gym task, the scene world, digits, a file, a
data set."""

from __future__ import annotations

import csv
import difflib
import io
import json
import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import SourceOptions
from rewards.images.digits import WORDS as DIGIT_WORDS
from rewards.images.digits import digit_images
from rewards.known_tasks import KNOWN, REFUSED, WEAK
from rewards.scenes.world import Split, choose, compositions, demonstration

logger = logging.getLogger(__name__)

Row = dict[str, Any]

KEPT_ROWS = 4096
"""Of a source that computes its rows: a rollout asks for each of its problems several times, an evaluation again."""


class DataError(ValueError):
    """The data cannot be used as configured; the message says which row or option, and what to change."""


class TooLongError(DataError):
    """A prompt or an answer has more tokens than the model or the options allow."""


class _Kept(Sequence[Row]):
    """The rows of a source that computes each at access, the latest of them kept."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._row = lru_cache(KEPT_ROWS)(rows.__getitem__)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        if not 0 <= index < len(self._rows):  # rows that are computed have no end of their own, and a loop none either
            raise IndexError(index)
        return self._row(index)


class _ReasoningGymRows(Sequence[Row]):
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        entry = self._dataset[index]
        return {**entry, "entry": entry}


def reasoning_gym_rows(options: SourceOptions) -> Sequence[Row]:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if options.name not in DATASETS:
        near = difflib.get_close_matches(options.name, DATASETS, n=5, cutoff=0.4)
        hint = f"nearest names: {', '.join(near)}" if near else f"it has {', '.join(sorted(DATASETS))}"
        raise DataError(f"reasoning_gym has no task {options.name!r}; {hint}")
    if options.name in REFUSED:
        raise DataError(f"reasoning_gym's {options.name!r} is refused: {REFUSED[options.name]} (docs/verifiers.md)")
    if options.name not in KNOWN:
        logger.warning(
            "reasoning_gym's task %r is younger than docs/verifiers.md: nobody has looked at what its verifier pays",
            options.name,
        )
    if options.name in WEAK:
        logger.warning("reasoning_gym's task %r: %s (docs/verifiers.md)", options.name, WEAK[options.name])
    if options.size is None:
        raise DataError(f"reasoning_gym makes problems without end: say how many of {options.name!r} with `size`")
    if options.size < 1:
        raise DataError(f"size={options.size} of {options.name!r}: ask for at least one problem")
    try:
        dataset = reasoning_gym.create_dataset(options.name, size=options.size, seed=options.seed, **options.args)
    except (TypeError, AssertionError, ValueError) as error:
        allowed = ", ".join(sorted(set(DATASETS[options.name][1].__dataclass_fields__) - {"size", "seed"}))
        raise DataError(
            f"reasoning_gym task {options.name!r} refuses the args {dict(options.args)}: {error}; it knows {allowed}"
        ) from error
    return _Kept(_ReasoningGymRows(dataset))


class _SceneRows(Sequence[Row]):
    """`prompt` and `composition`, the same text; `image`, the demonstration, (32, 32, 3) uint8, drawn at access."""

    def __init__(self, size: int, seed: int, split: Split, careless: float) -> None:
        self._size, self._seed, self._split, self._careless = size, seed, split, careless

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        composition = choose(self._split, self._seed, index)
        image = demonstration(composition, self._seed, index, self._careless)
        return {"prompt": composition.text, "composition": composition.text, "image": image}


def scene_rows(options: SourceOptions) -> Sequence[Row]:
    careless = options.args.get("careless", 0.0)
    if unknown := sorted(set(options.args) - {"careless"}):
        raise DataError(f"scenes have no args {', '.join(unknown)}; they know careless")
    if isinstance(careless, bool) or not isinstance(careless, int | float) or not 0 <= careless <= 1:
        raise DataError(f"careless={careless!r} of scenes is the probability of a wrong picture: choose 0 to 1")
    _check_seed(options)
    if options.split == "held_out":
        return _Kept(_SceneRows(len(compositions("held_out")), options.seed, "held_out", careless))
    if options.split != "train":
        raise DataError(f"scenes have no split {options.split!r}: choose train or held_out")
    if options.size is None or options.size < 1:
        raise DataError(f"size={options.size} of the training scenes, which have no end: ask for at least one")
    return _Kept(_SceneRows(options.size, options.seed, "train", careless))


def _check_seed(options: SourceOptions) -> None:
    if options.seed < 0:
        raise DataError(f"seed={options.seed} of {options.name}: choose 0 or more")


class _DigitRows(Sequence[Row]):
    """`prompt`; `digit`, an int; `image`, (32, 32, 3) uint8."""

    def __init__(self, images: np.ndarray, digits: np.ndarray) -> None:
        self._images, self._digits = images, digits

    def __len__(self) -> int:
        return len(self._digits)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        digit = int(self._digits[index])
        return {"prompt": f"the digit {DIGIT_WORDS[digit]}", "digit": digit, "image": self._images[index]}


def digit_rows(options: SourceOptions) -> Sequence[Row]:
    if options.args:
        raise DataError(f"args {dict(options.args)} have no meaning for digits: remove them")
    _check_seed(options)
    try:
        images, digits = digit_images(options.split)
    except ValueError as error:
        raise DataError(str(error)) from error
    order = np.random.default_rng(options.seed).permutation(len(digits))
    return _DigitRows(images[order], digits[order])


def file_rows(options: SourceOptions) -> Sequence[Row]:
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
        raise DataError(
            f"cannot read {path}: {error}; name a file of UTF-8 text, or of Parquet, that is there"
        ) from error


class _JsonLines(Sequence[Row]):
    """Every line is parsed once at the start, so that a broken one stops the run before it begins, and again at access:
    a million parsed rows would take several times the memory of their text."""

    def __init__(self, path: Path) -> None:
        self._lines: list[bytes] = []
        self.ragged: int | None = None
        """The first row whose columns are not those of row 0."""
        columns = None
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    row = json_row(line, f"{path}, line {number}")
                    columns = columns or row.keys()
                    if self.ragged is None and row.keys() != columns:
                        self.ragged = len(self._lines)
                    self._lines.append(line)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        return json.loads(self._lines[index])


class _AmbiguousError(ValueError):
    """Python would read it, and something else than is written."""


def _strict_json(text: bytes) -> Any:
    """As `json.loads`, which keeps the last of two values of one name, and reads numbers that JSON has not."""
    return json.loads(text, object_pairs_hook=_unlike_names, parse_constant=_no_number)


def _unlike_names(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _AmbiguousError(
            f"has {twice!r} more than once, and one of them would be lost: remove or rename the others"
        )
    return row


def _no_number(constant: str) -> Any:
    raise _AmbiguousError(f"has the value {constant}, which JSON does not know: write null, or a number")


def json_row(line: bytes, where: str) -> Row:
    try:
        row = _strict_json(line)
    except _AmbiguousError as error:
        raise DataError(f"{where}: {error}") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both ValueErrors
        raise DataError(f"{where}: not JSON ({error}); write one object a line, as json.dumps does") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row must be an object with named columns, not {type(row).__name__}")
    return row


def ragged_row(rows: Sequence[Row]) -> int | None:
    """The first row whose columns are not those of row 0. Tables and generated rows have none, so none is read."""
    if isinstance(rows, _JsonLines):
        return rows.ragged
    if isinstance(rows, list):
        return next((index for index, row in enumerate(rows) if row.keys() != rows[0].keys()), None)
    return None


def _json_rows(path: Path) -> Sequence[Row]:
    try:
        rows = _strict_json(path.read_bytes())
    except _AmbiguousError as error:
        raise DataError(f"{path}: a row {error}") from error
    except json.JSONDecodeError as error:
        fix = "a list of objects is needed; with one object a line, name it .jsonl"
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg}); {fix}") from error
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
            raise DataError(f"{path}: two columns have the same name in its header {header}; rename one of them")
        for cells in reader:
            if cells and len(cells) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells for {len(header)} columns; quote cells with "
                    f"commas in them, and write empty ones"
                )
            if cells:
                rows.append(dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: not CSV ({error}); close quotes, and double those in cells"
        ) from error
    return rows


class _ParquetRows(Sequence[Row]):
    def __init__(self, path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        try:
            self._table = pyarrow.parquet.read_table(path, memory_map=True)
        except pyarrow.ArrowInvalid as error:
            raise DataError(
                f"{path} is not a Parquet file: {error}; write it again, or name it as what it is"
            ) from error

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        return self._table.slice(index, 1).to_pylist(maps_as_pydicts="strict")[0]


def dataset_rows(options: SourceOptions) -> Sequence[Row]:
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
