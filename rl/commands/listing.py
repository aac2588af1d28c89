"""`denoiserl list`: the files of a group, each with what its first comment says."""

from __future__ import annotations

import json
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from configs.compose import GROUPS, PACKAGE, options
from configs.errors import UserError
from rewards.known_tasks import KNOWN, REFUSED, WEAK
from rewards.registry import COMPLETIONS
from rl.commands.recipe import summary_of


def show_list(what: str, config_dir: Path | None, as_json: bool = False) -> None:
    """
    Args:
        what: a group of configuration files, in the singular or plural, such as "recipes"; or "tasks", those of
            reasoning-gym.

    Raises:
        UserError: there is no such group.
    """
    plurals = {group: "data" if group == "data" else f"{group}s" for group in GROUPS}
    if what in ("task", "tasks"):
        _show_tasks(as_json)
        return
    group = next((group for group, plural in plurals.items() if what in (group, plural)), None)
    if group is None:
        raise UserError(f"there is no list of {what}; there are {', '.join(plurals.values())}, tasks")
    folders = [PACKAGE, *([config_dir] if config_dir else [])]
    found = {name: summary_of(_file(name, group, folders)) for name in options(group, folders)}
    if as_json:
        print(json.dumps([{"name": name, "summary": said} for name, said in found.items()], indent=2))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column(f"{group}=", no_wrap=True)
    table.add_column("", overflow="fold")
    for name, said in found.items():
        table.add_row(name, escape(said))
    console = Console()
    console.print(table)
    if group == "reward":
        names = ", ".join(f"{name} ({kind})" for name, kind in COMPLETIONS.items())
        console.print(f"functions that a term may name: {names}", highlight=False)


def _show_tasks(as_json: bool) -> None:
    """The tasks of reasoning-gym, and whether their scorers can be optimised (docs/verifiers.md)."""
    if as_json:
        rows = [{"name": task, **row, "refused": REFUSED.get(task)} for task, row in KNOWN.items()]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("data.train.name=", "scorer", "most frequent answer"):
        table.add_column(name, no_wrap=True)
    table.add_column("", overflow="fold")
    for task, row in KNOWN.items():
        said = f"refused: {REFUSED[task]}" if task in REFUSED else WEAK.get(task, "")
        luck = f"{row['common']['share']:.0%}" if row["common"]["share"] >= 0.3 else ""
        table.add_row(task, row["scorer"], luck, escape(said))
    Console().print(table)


def _file(name: str, group: str, folders: list[Path]) -> Path:
    return next(file for folder in folders if (file := folder / group / f"{name}.yaml").is_file())
