"""What `denoiserl gym` does, once its arguments are read."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from configs.errors import UserError
from rl.gym.report import write_report
from rl.gym.runs import Selection, run_gym
from rl.gym.tasks import read_tasks, task_names


def run_or_report(
    folders: Sequence[Path],
    names: Sequence[str] | None,
    only: Sequence[str] | None,
    seeds: str,
    part: str,
    learning_rates: str,
    again: bool,
    report: bool,
    config_dir: Path | None,
) -> None:
    console = Console()
    wanted = read_tasks(names or task_names())
    if report:
        write_report(wanted, folders, console, config_dir, only or ())
        return
    if len(folders) > 1:
        raise UserError("several folders are for --report; runs go into one")
    selection = Selection(
        tasks=wanted,
        seeds=_numbers("--seeds", seeds, int),
        only=tuple(only or ()),
        part=_part(part),
        rates=_numbers("--learning-rates", learning_rates, float) if learning_rates else (),
        again=again,
        config_dir=config_dir,
    )
    quieten()
    run_gym(selection, folders[0], console)
    if not selection.rates:
        write_report(wanted, folders, console, config_dir, selection.only)


def quieten() -> None:
    """Loading and starting have a line and a bar of their own for every run, hundreds in a gym."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)


Number = TypeVar("Number", int, float)


def _numbers(option: str, text: str, kind: Callable[[str], Number]) -> list[Number]:
    try:
        found = [kind(each) for each in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text}: give numbers with commas between them") from None
    if len(set(found)) < len(found):
        raise UserError(f"{option} {text}: a number occurs twice")
    return found


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--part {text}: 2/4 is the second of four")
    return int(found[1]), int(found[2])
