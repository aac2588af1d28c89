"""Looking things up in the schema: which options exist, what type they have, what an unknown name was meant to be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from configs.errors import ConfigError
from configs.schema import Config


def type_of(path: str, section: Any = None) -> Any:
    """Type of the option at a dotted path such as `algorithm.optimizer.betas` or `reward.terms.format.weight`.

    Args:
        section: the dataclass in which the path begins; None is the whole configuration.

    Raises:
        ConfigError: the schema has no such option; names the nearest one.
    """
    here: Any = section or Config
    walked: list[str] = []
    for name in filter(None, re.split(r"[.\[\]]+", path)):
        here = without_none(here)
        if is_dataclass(here):
            options = get_type_hints(here)
            if name not in options:
                raise ConfigError(_unknown(".".join([*walked, name]), walked, name, options))
            here = options[name]
        elif get_origin(here) is dict:
            here = get_args(here)[1]
        elif get_origin(here) in (list, tuple):
            here = get_args(here)[0]
        elif here is not Any:
            raise ConfigError(
                f"{path} does not exist: {'.'.join(walked)} is {describe(here)} and has no options below it"
            )
        walked.append(name)
    return here


@dataclass(frozen=True)
class Mark:
    """What an option says beside itself of runs that go on with another value of it."""

    path: str
    """Of the option, or of the section that says it for all that it holds."""
    decides: AtResume


class AtResume(Enum):
    """`field(metadata={"resume": ...})`; an option without it must stay what it was."""

    nothing = "may change"
    """It decides nothing of what is computed."""
    evaluations = "other evaluations"
    """It decides the problems or the samples of evaluations, and nothing of the training."""


def mark_of(path: str) -> Mark | None:
    """The outermost mark on the way to the option at a dotted path; None: it must stay what it was."""
    here: Any = Config
    walked: list[str] = []
    for name in path.split("."):
        walked.append(name)
        here = without_none(here)
        if is_dataclass(here):
            field = next((field for field in fields(here) if field.name == name), None)
            if field is None:
                return None
            if "resume" in field.metadata:
                return Mark(".".join(walked), AtResume(field.metadata["resume"]))
            here = _hints(cast(type, here))[name]
        elif get_origin(here) is dict:
            here = get_args(here)[1]
        else:
            return None
    return None


_hints = cache(get_type_hints)
"""Of a dataclass: a configuration has some hundred options, and each evaluates all annotations beside it."""


def may_change(path: str) -> bool:
    """Whether a run may go on with another value of the option, or of the section that holds it."""
    return mark_of(path) is not None


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value of every option in a configuration as plain containers. A list is one value."""
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    return {
        path: value
        for name, below in tree.items()
        for path, value in leaves(below, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def without_none(hint: Any) -> Any:
    """`Optional[X]` -> X; every other type is returned as it is."""
    if get_origin(hint) is Union:
        return next(argument for argument in get_args(hint) if argument is not type(None))
    return hint


def describe(hint: Any) -> str:
    """A type in words: `describe(Optional[int])` is "a whole number or null"."""
    bare = without_none(hint)
    if bare is not hint:
        return f"{describe(bare)} or null"
    if is_dataclass(bare):
        return f"a section with the options {', '.join(get_type_hints(bare))}"
    if isinstance(bare, type) and issubclass(bare, Enum):
        return f"one of {', '.join(member.name for member in bare)}"
    if get_origin(bare) is dict:
        return "a mapping of names to values"
    if get_origin(bare) in (list, tuple):
        return f"a list, each element {describe(get_args(bare)[0])}"
    return {float: "a number", int: "a whole number", bool: "true or false", str: "text"}.get(bare, "any value")


def nearest(name: str, names: Iterable[str]) -> str:
    """'; did you mean X?' when a valid name is close, else nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _unknown(path: str, parents: list[str], name: str, siblings: Iterable[str]) -> str:
    """Message for an unknown option: the nearest name beside it, else the same name elsewhere, and all valid names."""
    prefix = "".join(f"{parent}." for parent in parents)
    guess = nearest(name, siblings)
    if guess:
        guess = guess.replace("did you mean ", f"did you mean {prefix}")
    else:
        elsewhere = [option for option in paths() if option.rpartition(".")[2] == name]
        shallowest = min((option.count(".") for option in elsewhere), default=0)
        elsewhere = [option for option in elsewhere if option.count(".") == shallowest]
        guess = f"; did you mean {' or '.join(elsewhere)}?" if elsewhere else ""
    where = f"options of {prefix[:-1]}" if prefix else "sections"
    return f"{path} does not exist{guess}\n  {where}: {', '.join(siblings)}"


def paths(section: Any = Config, prefix: str = "") -> list[str]:
    """Dotted paths of all sections and options, in the order of the schema."""
    found = []
    for name, hint in get_type_hints(section).items():
        found.append(prefix + name)
        bare = without_none(hint)
        if is_dataclass(bare):
            found += paths(bare, f"{prefix}{name}.")
    return found
