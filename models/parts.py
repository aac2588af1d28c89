"""Parts that users bring along, by the dotted path that a configuration names them with.

What can be imported is found wherever the code runs. What a notebook or a script defines cannot; it is entered into
`GIVEN`, here and, sent by value, in every process of the run.
"""

from __future__ import annotations

import importlib
from typing import Any

GIVEN: dict[str, Any] = {}
"""Path -> part, of those that no import finds."""
LOCAL = "__main__."
"""Paths of what a notebook or a script defines begin with this."""


class PartError(ValueError):
    """A part of the user's cannot be found or used; the message says what to do."""


def find(path: str, what: str) -> Any:
    """The object at `package.module.name`.

    Args:
        what: for errors: the option that names it.

    Raises:
        PartError: it does not import; or it was defined in a notebook or script that is not this one.
    """
    if path in GIVEN:
        return GIVEN[path]
    module_name, _, attribute = path.rpartition(".")
    if not module_name:
        raise PartError(f"{what}={path}: name it by its dotted path, package.module.name")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # an import runs foreign code: whatever it raises is the reason to show
        if path.startswith(LOCAL):
            raise PartError(f"{what}={path} {gone(path)}") from error
        raise PartError(
            f"{what}={path} cannot be found: {type(error).__name__}: {error}. Name one that can be imported here; "
            f"modules of yours are looked up in this folder and on PYTHONPATH"
        ) from error


def gone(path: str) -> str:
    """Why a part of a notebook cannot be found elsewhere, and the way out."""
    name = path.removeprefix(LOCAL)
    return (
        f"was defined in a notebook or script, and this process is another one: put it into a module, for example "
        f"my_parts.py in this folder, and name it my_parts.{name}"
    )
