"""Every option of the configuration, read from its dataclasses: name, type, default, unit and meaning.

The meaning is the docstring below a field. That of a number ends with its unit, `Unit: updates.`; the unit of a pure
number is 1.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import Field, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from configs.fields import AtResume, describe, without_none

UNIT = re.compile(r"\s*\bUnit: ([^.]+)\.$")


@dataclass(frozen=True)
class Option:
    name: str
    """Without the section."""
    kind: str
    """Its type, in words."""
    default: str
    unit: str
    """Empty if it is no number."""
    meaning: str
    choices: type[Enum] | None
    """Values with a meaning of their own."""


@dataclass(frozen=True)
class Section:
    path: str
    """Dotted; NAME stands for a name of the user's."""
    kind: type
    meaning: str
    values: Any
    """One of its kind, which has the defaults."""
    unset: bool
    """Whether its own default is null."""

    def options(self) -> list[Option]:
        hints, meanings = get_type_hints(self.kind), docstrings(self.kind)
        return [
            _option(field, hints[field.name], meanings.get(field.name, ""), getattr(self.values, field.name))
            for field in fields(self.kind)
            if section_of(hints[field.name]) is None
        ]


def sections(
    kind: type, path: str = "", meaning: str = "", values: Any = None, unset: bool = False
) -> Iterator[Section]:
    """A dataclass and those in it, from top to bottom."""
    values = kind() if values is None else values
    yield Section(path, kind, meaning or own_docstring(kind), values, unset)
    hints, meanings = get_type_hints(kind), docstrings(kind)
    for field in fields(kind):
        hint = hints[field.name]
        if (inner := section_of(hint)) is None:
            continue
        name = f"{path}.{field.name}".removeprefix(".")
        if get_origin(without_none(hint)) is dict:
            yield from sections(inner, f"{name}.NAME", meanings.get(field.name, ""))
        else:
            value = getattr(values, field.name)
            meaning = meanings.get(field.name, "") + _at_a_resume(field)
            yield from sections(inner, name, meaning, value, unset=value is None)


def section_of(hint: Any) -> type | None:
    """The dataclass of a field that is a section, or a mapping of names to sections."""
    bare = without_none(hint)
    if get_origin(bare) is dict:
        bare = get_args(bare)[1]
    return bare if is_dataclass(bare) and isinstance(bare, type) else None


def _option(field: Field[Any], hint: Any, docstring: str, default: Any) -> Option:
    bare = without_none(hint)
    unit = UNIT.search(docstring)
    return Option(
        name=field.name,
        kind=describe(hint),
        default=written(default),
        unit=unit[1] if unit else "",
        meaning=UNIT.sub("", docstring) + _at_a_resume(field),
        choices=bare if isinstance(bare, type) and issubclass(bare, Enum) else None,
    )


def _at_a_resume(field: Field[Any]) -> str:
    """What the field's mark (`configs.fields.AtResume`) says to a reader."""
    if "resume" not in field.metadata:
        return ""
    mark = AtResume(field.metadata["resume"])
    later = "; evaluations are compared with later ones only" if mark is AtResume.evaluations else ""
    return f" May change when a run goes on{later}."


def written(value: Any) -> str:
    """A default as it is written on the command line; empty where there is none."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(written, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "" if value == MISSING else str(value)


def own_docstring(kind: type) -> str:
    return " ".join((ast.get_docstring(_definition(kind)) or "").split())


@cache
def docstrings(kind: type) -> dict[str, str]:
    """The strings below the fields of a dataclass, or below the members of an enum."""
    found = {}
    body = _definition(kind).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        target = statement.target if isinstance(statement, ast.AnnAssign) else next(iter(targets), None)
        if (
            isinstance(target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            found[target.id] = " ".join(str(following.value.value).split())
    return found


def _definition(kind: type) -> ast.ClassDef:
    file = inspect.getsourcefile(kind)
    assert file is not None
    (found,) = [node for node in _classes(file) if node.name == kind.__name__]
    return found


@cache
def _classes(file: str) -> list[ast.ClassDef]:
    return [node for node in ast.parse(Path(file).read_text()).body if isinstance(node, ast.ClassDef)]
