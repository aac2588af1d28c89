"""`denoiserl data check`: every bad row of every source of a configuration, and what its texts are like."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from configs.compose import compose
from configs.errors import UserError
from configs.schema import Config, TooLong
from models.files import CheckpointError
from models.options import Modality as ModalityName
from rewards.printable import printable
from rewards.registry import RewardError, check_columns
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import MALFORMED, ScoreRequest
from rl.compatibility.data import data_problems, sources
from rl.data.check import BadRow, Checked, Measure, check_source, overlap, summary
from rl.data.problems import Problem
from rl.modality.choice import modality_of
from rl.modality.protocol import Modality
from rollout.trajectory import TextTrajectory

SHOWN = 5
"""Rows that repeat, or overlap, that are shown as examples."""
BATCH = 64
"""Rows that rewards look at in one request."""
_UNSET = ("run.name=data_check", "model.path=none")
"""What a configuration needs and data do not."""


def check_data(
    overrides: Sequence[str], config_dir: Path | None, rewards: bool, most_rows: int | None, as_json: bool
) -> int:
    """Prints what was found.

    Args:
        rewards: let the reward look at each row, with a completion that is made up.
        most_rows: of each source, evenly from the first to the last; None looks at all.

    Returns:
        How many rows are bad.
    """
    has_model = any(each.partition("=")[0] in ("recipe", "model", "model.path") for each in overrides)
    config = compose([*([] if has_model else _UNSET), *overrides], config_dir).config
    modality, remark = _modality(config) if has_model else (None, "no model is named: lengths are in characters")
    remarks = [*([remark] if remark else []), *data_problems(config)]
    offline = config.algorithm.advantage.offline
    found: dict[str, Checked] = {}
    limits, leave_out = {"prompt, tokens": config.data.max_prompt_tokens}, config.data.too_long is TooLong.leave_out
    for name, options in sources(config).items():
        answers = offline and name != "data.evaluation"
        measure = None if modality is None else _measure(modality, answers)
        found[name] = check_source(options, answers, measure, limits, leave_out, most_rows)
    if rewards:
        _look_with_rewards(config, modality, {name: found[name] for name in _scored(config, found)})
    overlaps = {
        name: overlap(checked, found["data.evaluation"])
        for name, checked in found.items()
        if name != "data.evaluation" and "data.evaluation" in found
    }
    if as_json:
        print(json.dumps(_for_programs(found, overlaps, remarks), indent=2, ensure_ascii=False))
    else:
        for line in _lines(found, overlaps, remarks):
            print(printable(line))
    return sum(len(checked.bad) for checked in found.values())


def _modality(config: Config) -> tuple[Modality | None, str]:
    """Without a limit on prompts, so that all can be counted. None, and why, where the model's files are not here: data
    can be looked at without them."""
    config = deepcopy(config)
    config.data.max_prompt_tokens = sys.maxsize
    modality = modality_of(config)
    try:
        if config.model.modality is ModalityName.text:
            modality.made_up(1)  # reads the tokenizer
    except (CheckpointError, OSError) as error:
        return None, f"lengths are in characters, because the model cannot be read: {error}"
    return modality, ""


def _measure(modality: Modality, answers: bool) -> Measure:
    def measure(problem: Problem) -> dict[str, int]:
        encoded = modality.prompt(problem)
        found = {"prompt, tokens": len(encoded)} if isinstance(encoded, np.ndarray) else {}
        if answers and problem.responses:
            group = modality.offline_group(problem, seed=0, update=0)
            if isinstance(group, TextTrajectory):
                names = problem.answers or ("response",)
                found |= {f"{name}, tokens": int(n) for name, n in zip(names, group.stop_length, strict=True)}
        return found

    return measure


def _scored(config: Config, found: dict[str, Checked]) -> list[str]:
    """Offline training scores nothing of what it learns from."""
    offline = config.algorithm.advantage.offline
    return [name for name in found if not offline or name == "data.evaluation"]


def _look_with_rewards(config: Config, modality: Modality | None, found: dict[str, Checked]) -> None:
    """Adds the rows that no score can be given to, whatever is answered: with a completion that is made up."""
    if not config.reward.terms:
        raise UserError("--rewards looks at rows with the terms of the reward, and there are none: add reward=NAME")
    if modality is None or config.model.modality is ModalityName.image:
        raise UserError(
            "--rewards makes up texts, and needs a text model for its tokens: add model=NAME or recipe=NAME"
        )
    made_up = modality.made_up(1)
    scorer = Scorer(config.reward)
    scorer.start()
    try:
        for checked in found.values():
            for start in range(0, len(checked.good), BATCH):
                checked.bad += _unscored(config, scorer, checked, checked.good[start : start + BATCH], made_up)
    finally:
        scorer.stop()


def _unscored(config: Config, scorer: Scorer, checked: Checked, rows: list[int], made_up: Any) -> list[BadRow]:
    assert checked.problems is not None
    problems = [checked.problems[row] for row in rows]
    for name, term in config.reward.terms.items():
        try:
            check_columns(name, term, problems[0].columns)
        except RewardError as error:
            return [BadRow(row, None, None, str(error)) for row in rows]
    columns = {name: [problem.columns.get(name) for problem in problems] for name in problems[0].columns}
    columns |= {name: list(values) * len(rows) for name, values in made_up.columns.items()}
    count = len(rows)
    request = ScoreRequest(
        [problem.shown for problem in problems], made_up.outputs * count, (made_up.ids or [[]]) * count, columns
    )
    scores = scorer.score(request)
    why: dict[int, str] = {}
    for failure in scores.failures:
        if failure.kind != MALFORMED:
            why.setdefault(failure.index, f"{failure.term}: {failure.kind}: {failure.message}")
    return [BadRow(rows[index], None, None, reason) for index, reason in sorted(why.items())]


def _for_programs(
    found: dict[str, Checked], overlaps: dict[str, list[tuple[int, int]]], remarks: list[str]
) -> dict[str, Any]:
    return {
        "sources": {
            name: {
                "rows": checked.rows,
                "looked_at": checked.looked_at,
                "bad": [asdict(row) for row in checked.bad],
                "lengths": {what: summary(lengths) for what, lengths in checked.lengths.items()},
                "repeated": [{"row": row, "as": earlier} for row, earlier in checked.repeated],
                "equal": checked.equal,
                "left_out": checked.left_out,
            }
            for name, checked in found.items()
        },
        "overlap": {
            name: [{"evaluation": row, "training": other} for row, other in pairs] for name, pairs in overlaps.items()
        },
        "remarks": remarks,
    }


def _lines(found: dict[str, Checked], overlaps: dict[str, list[tuple[int, int]]], remarks: list[str]) -> list[str]:
    lines = [f"note: {remark}" for remark in remarks]
    for name, checked in found.items():
        part = "" if checked.looked_at == checked.rows else f", {checked.looked_at} of them looked at"
        lines.append(f"{name}: {checked.rows} rows{part}, {len(checked.bad)} bad")
        lines += [f"  {_place(row)}: {row.why}" for row in checked.bad]
        for what, lengths in checked.lengths.items():
            lines.append(f"  {what}: " + ", ".join(f"{key} {value}" for key, value in summary(lengths).items()))
        if checked.left_out:
            lines.append(f"  {len(checked.left_out)} rows are too long and left out (data.too_long=leave_out)")
        if checked.repeated:
            examples = ", ".join(f"{row} as {earlier}" for row, earlier in checked.repeated[:SHOWN])
            equal = f", {checked.equal} of them in every column" if checked.equal else ""
            lines.append(f"  {len(checked.repeated)} rows repeat an earlier prompt{equal}: {examples}")
    for name, pairs in overlaps.items():
        held_out = len(found["data.evaluation"].good)
        examples = ", ".join(f"{row} is {other}" for row, other in pairs[:SHOWN])
        told = f": {examples}" if pairs else ""
        seen = found[name]
        part = "" if seen.looked_at == seen.rows else f" ({seen.looked_at} of its {seen.rows} rows compared)"
        lines.append(f"{len(pairs)} of {held_out} held-out problems have a prompt of {name}{part}{told}")
    return lines


def _place(row: BadRow) -> str:
    named = [f"row {row.row}"] if row.row is not None else []
    named += [f"line {row.line}"] if row.line is not None else []
    named += [f"column {row.column}"] if row.column is not None else []
    return ", ".join(named) or "the source"
