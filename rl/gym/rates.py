"""The learning rate of each contestant, chosen by a search on a seed that the report does not have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs.errors import UserError
from rl.gym.results import Result, read_result, write_json


def best_rates(results: Sequence[Result]) -> dict[str, float]:
    """The rate with the most solved problems; the lowest of equals. A contestant that always failed has none."""
    scores: dict[str, dict[float, float]] = {}
    for result in results:
        if not result.error:
            scores.setdefault(result.name, {})[result.learning_rate] = float(np.nanmean(result.solved[1]))
    return {name: max(sorted(found), key=found.__getitem__) for name, found in scores.items()}


def choose_rates(folder: Path) -> None:
    """Writes the best rates of all that was tried in a task's folder."""
    write_json(_file(folder), best_rates(_tried(folder)))


def read_rates(folder: Path) -> dict[str, float]:
    """Raises UserError where a search was begun and not finished: runs of the report would miss its rates."""
    rates = json.loads(_file(folder).read_text()) if _file(folder).exists() else {}
    if left := sorted(best_rates(_tried(folder)).keys() - rates.keys()):
        raise UserError(
            f"the search in {folder} is not done for {', '.join(left)}: run the command with --learning-rates again, "
            f"every part"
        )
    return rates


def _file(folder: Path) -> Path:
    return folder / "rates.json"


def _tried(folder: Path) -> list[Result]:
    return [read_result(each) for each in sorted((folder / "search").glob("*.json"))]
