"""What `denoiserl score` does: the rewards of completions in a file, by the code that scores in a run."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from configs.environment import check_environment
from configs.errors import UserError
from configs.schema import Config
from rewards.judge.terms import is_served, judge_problems
from rewards.options import RewardOptions
from rewards.printable import printable
from rewards.registry import COMPLETIONS, check_columns
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import Failure, Logged, Scores, Status
from rl.commands.overwriting import ask_before_writing
from rl.data.completions import IMAGE_COLUMN, Completions, completions_of
from rl.data.rows import DataError, Row
from rl.run.agreement import Agreement, agreement
from rl.run.evaluation import told, with_interval
from rl.run.failures import too_many
from rl.run.scored import logged_metrics
from rl.run.statistics import mean_if_any
from rl.storage.disk import replacing

BATCH = 64
"""Rows of one request, about: groups stay whole."""
FORMATS = (".jsonl", ".parquet")


class NotScored(RuntimeError):
    """Too many rows could not be scored."""


def score_file(
    path: Path, config: Config, column: str | None, labels: str | None, output: Path | None, overwrite: bool
) -> None:
    """Scores every row, writes them with their scores if an output is asked for, and prints what came of it.

    Raises:
        NotScored: more rows than the reward's options allow have no score. What was scored is written before.
    """
    reward = config.reward
    if not reward.terms:
        raise UserError("there is no reward: choose one, such as reward=math, or reward.terms.NAME.function=...")
    if output is not None:
        if output.suffix not in FORMATS:
            raise UserError(f"--output {output}: the name must end in {' or '.join(FORMATS)}")
        if not os.access(output.parent, os.W_OK | os.X_OK):
            raise UserError(f"--output {output}: {output.parent} is no folder that this user can write to: make it")
        ask_before_writing([output], overwrite)
    check_environment(reward)
    found = completions_of(path, column)
    wanted = None if labels is None else _labels(path, found, labels)
    _check_reward(found, reward)
    if output is not None:
        _check_written(output, found, reward)
    scores, statuses = _scored(found, reward)
    if output is not None:
        _write(output, found, scores, statuses)
    console = Console()
    console.print(_table(found, scores, statuses, reward))
    for name, value in logged_metrics("metric", scores.metrics).items():
        console.print(f"{name} {value:.4g}", markup=False)
    if wanted is not None:
        console.print(_agreements(found, scores, wanted, labels or ""))
    if output is not None:
        console.print(f"written to {output}", soft_wrap=True, markup=False)
    unscored = int(np.isnan(scores.total).sum())
    if problem := too_many(str(path), scores.failures, reward, unscored, len(scores.total)):
        raise NotScored(printable(problem))


def _check_reward(found: Completions, reward: RewardOptions) -> None:
    """Whether every term can score such rows. What is refused here has cost nothing yet."""
    columns = found.request(range(1)).columns
    kind = "image" if found.column == IMAGE_COLUMN else "text"
    for name, term in reward.terms.items():
        if is_served(term):
            raise UserError(
                f"reward.terms.{name} asks the judge that a run serves, and here none is served: set "
                f"reward.terms.{name}.args.url and .args.model to one that is there"
            )
        if (scored := COMPLETIONS.get(term.function, kind)) != kind:
            raise UserError(
                f"reward.terms.{name}: {term.function} scores completions of kind {scored}, and the column "
                f"{found.column!r} holds those of kind {kind}: choose another reward, or name another --column"
            )
        check_columns(name, term, columns)
    if problem := next(judge_problems(reward, None), ""):
        raise UserError(problem)


def _check_written(output: Path, found: Completions, reward: RewardOptions) -> None:
    """Whether the rows can be written with their scores, which would else be lost after all are made."""
    added = {"reward", "why", *(f"{what}/{name}" for name in reward.weights() for what in ("reward", "status"))}
    if taken := sorted(added & found.rows[0].keys()):
        raise DataError(f"the rows have a column {taken[0]!r}, and scores are written under that name: rename it")
    if output.suffix == ".parquet":
        _arrow_table(found.rows[place] for place in range(len(found.rows)))
        return
    for place in range(len(found.rows)):
        try:
            _line(found.rows[place])
        except (TypeError, ValueError) as error:
            raise DataError(f"row {place} cannot be written as JSON ({error}): name the --output .parquet") from None


def _scored(found: Completions, reward: RewardOptions) -> tuple[Scores, dict[str, list[Status]]]:
    """Of all rows; and what became of each term."""
    scorer = Scorer(reward)
    parts: list[Scores] = []
    try:
        scorer.start()
        for places in track([*found.batches(BATCH)], "scoring", console=Console(stderr=True)):
            scores = scorer.score(found.request(places))
            for failure in scores.failures:
                failure.index += places.start
            parts.append(scores)
    finally:
        scorer.stop()

    def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    failures = [failure for part in parts for failure in part.failures]
    total = np.concatenate([part.total for part in parts])
    metrics = Logged.joined(part.metrics for part in parts)
    scores = Scores(total, joined([p.terms for p in parts]), failures, metrics, joined([p.paid for p in parts]))
    return scores, scores.statuses


def _labels(path: Path, found: Completions, column: str) -> np.ndarray:
    """(N,) numbers of the column, NaN where it is null."""
    if column not in found.rows[0]:
        raise UserError(f"--labels {column}: {path} has no such column; it has {', '.join(found.rows[0])}")
    values = []
    for place in range(len(found.rows)):
        value = found.rows[place][column]
        try:
            number = math.nan if value is None else float(value)
            if value is not None and not math.isfinite(number):
                raise ValueError
            values.append(number)
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"{path}, row {place}: the label in {column!r} is {value!r:.80}, and a number or null is expected"
            ) from None
    return np.array(values)


def _write(output: Path, found: Completions, scores: Scores, statuses: dict[str, list[Status]]) -> None:
    why: dict[int, list[str]] = {}
    for failure in scores.failures:
        why.setdefault(failure.index, []).append(_told(failure))
    rows = (_row(place, found.rows[place], scores, statuses, why) for place in range(len(found.rows)))
    with replacing(output) as file:
        if output.suffix == ".jsonl":
            with file.open("w", encoding="utf-8") as lines:
                lines.writelines(_line(row) + "\n" for row in rows)
            return
        import pyarrow.parquet

        pyarrow.parquet.write_table(_arrow_table(rows), file)


def _line(row: Row) -> str:
    """As JSON. Raises TypeError or ValueError: it has a value that JSON has not, such as bytes or NaN."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell and UTF-8 cannot
        return json.dumps(row, allow_nan=False)
    return text


def _arrow_table(rows: Iterable[Row]) -> Any:
    import pyarrow

    try:
        return pyarrow.Table.from_pylist([*rows])
    except (pyarrow.ArrowException, UnicodeEncodeError, OverflowError) as error:
        raise DataError(f"the rows cannot be written as Parquet ({error}): name the --output .jsonl") from None


def _row(
    place: int, row: Row, scores: Scores, statuses: dict[str, list[Status]], why: dict[int, list[str]]
) -> dict[str, Any]:
    added: dict[str, Any] = {"reward": _number(scores.total[place])}
    for name, values in scores.terms.items():
        added |= {f"reward/{name}": _number(values[place]), f"status/{name}": statuses[name][place]}
    added["why"] = "; ".join(why.get(place, ()))
    return {**row, **added}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _told(failure: Failure) -> str:
    return f"{failure.term}: {failure.kind}: {failure.message}"


def _table(found: Completions, scores: Scores, statuses: dict[str, list[Status]], reward: RewardOptions) -> Table:
    table = Table("", *("mean", "ok", "other"), title=f"{len(found.rows)} rows, {found.groups[-1] + 1} groups")
    total = np.isnan(scores.total)
    left_out = f"not scored {int(total.sum())}" if total.any() else ""
    table.add_row("reward", _mean(scores.total, found.groups), str(int((~total).sum())), left_out)
    for name, values in scores.terms.items():
        counts = Counter(statuses[name])
        other = ", ".join(f"{status} {count}" for status, count in counts.items() if status != "ok")
        term = reward.terms[reward.term_of(name)]
        weight = "" if term.weights(reward.term_of(name))[name] else " (a measure)"
        table.add_row(escape(name) + weight, _mean(values, found.groups), str(counts["ok"]), other)
    return table


def _mean(values: np.ndarray, groups: list[int]) -> str:
    """Mean over groups of their means."""
    numbers = np.array(groups)
    known = ~np.isnan(values)
    if not known.any():
        return "none"
    sums, counts = np.bincount(numbers[known], values[known]), np.bincount(numbers[known])
    estimate = mean_if_any(sums[counts > 0] / counts[counts > 0])
    assert estimate is not None
    return told(estimate)


def _agreements(found: Completions, scores: Scores, labels: np.ndarray, column: str) -> Table:
    table = Table("", "rows", "Spearman", "Kendall", "pairs", "right", title=f"agreement with {escape(column)}")
    for name, values in {"reward": scores.total, **scores.terms}.items():
        one = agreement(values, labels, np.array(found.groups))
        table.add_row(escape(name), *(_agreement_cells(one) if one else ("", "too few or equal", "", "", "")))
    return table


def _agreement_cells(one: Agreement) -> tuple[str, ...]:
    tied = f", {one.tied} equal" if one.tied else ""
    return (
        str(one.rows),
        _two_lines(one.spearman, one.spearman_interval),
        _two_lines(one.kendall, one.kendall_interval),
        f"{one.pairs}{tied}{'' if one.within_prompts else ', of all rows'}",
        _two_lines(one.accuracy, one.accuracy_interval),
    )


def _two_lines(value: float, interval: tuple[float, float] | None) -> str:
    """Narrow enough for 80 columns."""
    return with_interval(value, interval).replace(" ", "\n", 1)
