"""Whether a command may write where something lies already."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from configs.errors import UserError


def ask_before_writing(targets: list[Path], overwrite: bool) -> None:
    """Returns if nothing of someone's can be lost: no file and no filled folder is there, or it was agreed to.

    A terminal is asked; a script must say `--overwrite`.

    Raises:
        UserError: there is something, and nobody agreed.
    """
    found = [target for target in targets if _holds_something(target)]
    if not found or overwrite:
        return
    there = " and ".join(_told(target) for target in found)
    if sys.stdin.isatty() and typer.confirm(f"{there}. Overwrite?", err=True):
        return
    raise UserError(f"{there}: choose another place, or add --overwrite")


def _holds_something(target: Path) -> bool:
    return next(target.iterdir(), None) is not None if target.is_dir() else target.exists()


def _told(target: Path) -> str:
    if not target.is_dir():
        return f"{target} exists"
    names = sorted(path.name for path in target.iterdir())
    return f"{target} is not empty ({names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''})"
