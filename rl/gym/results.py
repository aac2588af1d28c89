"""What is kept of a run of the gym: a small JSON file with its outcomes, its cost and the fingerprint of its options.

FOLDER/text/trace_grpo-0.json            algorithm or combination, and seed
FOLDER/text/search/trace_grpo-0.001.json the same of a search, and learning rate
FOLDER/text/rates.json                   what the search chose
FOLDER/text/pairs-block/pairs.jsonl      preference pairs of a setting
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError
from configs.schema import Config
from rewards.options import RewardOptions
from rl.gym.tasks import WHERE

CANNOT_RUN = "cannot run"
"""Fingerprint of a run that no setting allows."""


@dataclass
class Result:
    """What is kept of a run."""

    task: str
    name: str
    seed: int
    fingerprint: str
    """Of the resolved configuration."""
    setting: str = ""
    base: str = ""
    learning_rate: float = 0.0
    cell: tuple[str, ...] = ()
    error: str = ""
    """Why there are no numbers; empty where there are."""
    before: list[list[float | None]] | None = None
    """(problems, images) 1 solved, 0 not, None unscored; greedy completions of the base, of texts one each"""
    after: list[list[float | None]] | None = None
    samples: int = 0
    """Drawn for training; of offline training, the demonstrations or pairs that it read."""
    forwards: float = 0.0
    """Of the rollouts, as their own metric counts them."""
    rows: float = 0.0
    """Scored by the learner."""
    optimizer_updates: int = 0
    updates_without_signal: int = 0
    cpu_seconds: float = 0.0
    """Of this process; rewards have their own."""
    seconds: float = 0.0

    @property
    def solved(self) -> tuple[np.ndarray, np.ndarray]:
        """(problems, images) float before and after, NaN where unscored."""
        assert self.before is not None
        assert self.after is not None
        return np.array(self.before, float), np.array(self.after, float)


def read_result(file: Path) -> Result:
    try:
        return Result(**json.loads(file.read_text()))
    except (TypeError, ValueError) as error:
        raise UserError(f"{file} is no result of this version ({error}); delete it") from error


def write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.write_text(json.dumps(content) + "\n")
    draft.replace(file)


def fingerprint(config: Config, folder: Path) -> str:
    """The same wherever the results and the run itself lie, and after an option is added that the run leaves alone."""
    tree = _changed(config)
    tree["run"].pop("folder", None)
    text = json.dumps(tree, sort_keys=True, default=lambda value: value.value)
    return hashlib.blake2b(text.replace(json.dumps(str(folder))[1:-1], WHERE).encode(), digest_size=8).hexdigest()


BECAME_NULL = {(RewardOptions, "solved_at"): 1.0}
"""Options whose default became null, with the one that they had: results from before keep their fingerprints."""


def _changed(value: Any) -> Any:
    """Options without those that have their default."""
    if isinstance(value, dict):
        return {name: _changed(each) for name, each in value.items()}
    if not is_dataclass(value):
        return value
    made = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(value)}
    made |= {name: before for (section, name), before in BECAME_NULL.items() if section is type(value)}
    given = {name: getattr(value, name) for name in made}
    return {name: _changed(each) for name, each in given.items() if each != made[name]}
