"""Results that are no longer of the task: its options, or the algorithm's, have changed since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from configs.errors import UserError
from configs.schema import Config
from rl.gym.results import CANNOT_RUN, Result, fingerprint
from rl.gym.runs import Job, plan_of_job
from rl.gym.tasks import Contestant, Task


def current_and_outdated(
    results: Sequence[Result], task: Task, everyone: Sequence[Contestant], folder: Path, config_dir: Path | None
) -> tuple[list[Result], list[Result]]:
    """
    Args:
        folder: any, in which the task's results could lie.
    """
    contestant_of = {one.name: one for one in everyone}
    configs: dict[tuple[str, float], Config | None] = {}  # seeds differ in run.seed alone, and composing takes a while
    current: list[Result] = []
    outdated: list[Result] = []
    for result in results:
        key = (result.name, result.learning_rate)
        if key not in configs:
            contestant = contestant_of.get(result.name)
            configs[key] = None if contestant is None else _config(result, contestant, task, folder, config_dir)
        config = configs[key]
        now = CANNOT_RUN
        if config is not None:
            config = replace(config, run=replace(config.run, seed=result.seed))
            now = fingerprint(config, folder / result.task)
        same = result.fingerprint == now and result.name in contestant_of
        (current if same else outdated).append(result)
    return current, outdated


def _config(result: Result, contestant: Contestant, task: Task, folder: Path, config_dir: Path | None) -> Config | None:
    rate = None if result.fingerprint == CANNOT_RUN else result.learning_rate
    job = Job(result.task, contestant, result.seed, rate)
    try:
        return plan_of_job(job, task, folder, config_dir).composed.config
    except UserError:
        return None
