"""What the gym runs: the files of configs/gym, joined with every algorithm file.

A task file holds the options that all runs share, and for single algorithms what these need beside them, with the
reason. An algorithm file without an entry takes part with the shared options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.algorithm_options import AdvantageKind
from configs.compose import PACKAGE, Composed, compose
from configs.errors import UserError
from models.options import Modality
from rewards.registry import RewardError
from rl.commands.catalogue import catalogue
from rl.commands.recipe import Recipe
from rl.modality.choice import modality_of

FOLDER = PACKAGE / "gym"
WHERE = "GYM_FOLDER"
"""Stands in a task file for the folder of its results."""
RATE = "algorithm.optimizer.learning_rate"


@dataclass
class Setting:
    """A base model with its data and reward: gains are comparable within one."""

    overrides: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    """Added for algorithms that learn from preference pairs; the pairs are drawn from the base beforehand."""


@dataclass
class Entry:
    """What an algorithm, or a combination of ours, has for itself."""

    algorithm: str = ""
    """Of a combination: the file that it starts from."""
    setting: str = ""
    """Empty: the first one that the algorithm works in."""
    overrides: list[str] = field(default_factory=list)
    note: str = ""
    """Why it has them; shown in the report."""
    skip: str = ""
    """Why it does not run at all; shown in the report."""
    ours: bool = False
    """Of an algorithm file: nobody has published it."""


@dataclass
class Task:
    title: str = ""
    modality: Modality = Modality.text
    overrides: list[str] = field(default_factory=list)
    search: list[str] = field(default_factory=list)
    """Added in a search for learning rates: other held-out problems than the report's."""
    pairs: list[str] = field(default_factory=list)
    """Added where pairs are drawn."""
    settings: dict[str, Setting] = field(default_factory=dict)
    algorithms: dict[str, Entry] = field(default_factory=dict)
    combinations: dict[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class Contestant:
    """A line of the report."""

    name: str
    recipe: Recipe
    entry: Entry
    ours: bool
    """A combination of the task file, or an algorithm file that nobody has published."""


@dataclass(frozen=True)
class Plan:
    """What one run does."""

    setting: str
    composed: Composed


def task_names() -> list[str]:
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def read_task(file: Path) -> Task:
    """Raises UserError for a file that is missing or has options that a task does not have."""
    if not file.is_file():
        raise UserError(f"there is no task {file}; the tasks here are {', '.join(task_names())}")
    try:
        tree = OmegaConf.merge(OmegaConf.structured(Task), OmegaConf.load(file))
        task = cast(Task, OmegaConf.to_object(tree))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"{file}: {str(error).splitlines()[0]}") from error
    if not task.settings:
        raise UserError(f"{file}: a task needs at least one entry in `settings`")
    for name, entry in (task.algorithms | task.combinations).items():
        if entry.setting and entry.setting not in task.settings:
            raise UserError(f"{file}: {name} wants setting {entry.setting!r}; there are {', '.join(task.settings)}")
    return task


def read_tasks(names: Sequence[str]) -> dict[str, Task]:
    """By name: those of configs/gym, or files of yours."""
    files = [Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml" for name in names]
    return {file.stem: read_task(file) for file in files}


def contestants(task: Task, config_dir: Path | None = None) -> list[Contestant]:
    """Every algorithm file that works with the task's kind of model, then our combinations."""
    recipes = _recipes(config_dir)
    for name, entry in task.combinations.items():
        if name in recipes or entry.algorithm not in recipes:
            raise UserError(
                f"combination {name!r} needs a name of its own, and `algorithm` one of {', '.join(recipes)}"
            )
    if unknown := task.algorithms.keys() - recipes.keys():
        raise UserError(f"entries for algorithms that do not exist: {', '.join(sorted(unknown))}")
    of_files = [
        Contestant(name, recipe, entry, entry.ours)
        for name, recipe in recipes.items()
        if task.modality.value in recipe.modalities
        for entry in [task.algorithms.get(name, Entry())]
    ]
    own = [Contestant(name, recipes[entry.algorithm], entry, True) for name, entry in task.combinations.items()]
    return of_files + own


@cache  # every file is composed for both kinds of model, which takes seconds
def _recipes(config_dir: Path | None) -> dict[str, Recipe]:
    return {recipe.name: recipe for recipe in catalogue(config_dir)}


def plan_of(task: Task, contestant: Contestant, folder: Path, extra: list[str], config_dir: Path | None = None) -> Plan:
    """The configuration of a run, in the entry's setting or in the first one that works.

    Args:
        folder: of the results.
        extra: overrides that come last.

    Raises:
        UserError: no setting works; what the last one says.
    """
    names = [contestant.entry.setting] if contestant.entry.setting else list(task.settings)
    refused: UserError | RewardError | None = None
    for name in names:
        overrides = _overrides(task, contestant, name, folder, extra)
        try:
            composed = compose(overrides, config_dir)
            modality_of(composed.config).check()
        except (UserError, RewardError) as error:
            refused = error
            continue
        return Plan(name, composed)
    raise UserError(str(refused)) from refused


def _overrides(task: Task, contestant: Contestant, setting: str, folder: Path, extra: list[str]) -> list[str]:
    options = task.settings[setting]
    pairs = options.pairs if contestant.recipe.cell[-1] == AdvantageKind.preference.value else []
    own = [*task.overrides, *options.overrides, f"algorithm={contestant.recipe.name}", *pairs]
    own += [*contestant.entry.overrides, *extra]
    return [override.replace(WHERE, str(folder)) for override in own]


def pairs_config(task: Task, setting: str, config_dir: Path | None = None) -> Composed:
    """The policy, data and reward that a setting's preference pairs come from."""
    return compose([*task.overrides, *task.settings[setting].overrides, *task.pairs], config_dir)
