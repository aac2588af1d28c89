"""Values that come from the environment (`${oc.env:NAME}`), where nobody has set it now.

A run that has ended can be read without them: in their place stands what the file says. What uses one asks first.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from configs.errors import ConfigError
from configs.fields import type_of, without_none

NOT_FOUND = re.compile(r"Environment variable '([^']+)' not found")


class Unset(str):
    """`${oc.env:NAME}`, or what refers to it, in the place of a value of any type."""

    variable: str
    option: str

    @classmethod
    def of(cls, text: object, variable: str, option: str) -> Unset:
        made = cls(text)
        made.variable, made.option = variable, option
        return made


def check_environment(options: Any, but: Collection[str] = ()) -> None:
    """
    Args:
        options: a configuration, or a section of it.
        but: sections that the caller does not use.

    Raises:
        ConfigError: a value is asked for that the environment has not; names variable and option.
    """
    if found := next(_unset(options, but), None):
        raise ConfigError(
            f"{not_set(found.option, found.variable)}. Tables, samples and weights of a run can be read without it"
        )


def not_set(option: str, variable: str) -> str:
    return f"{option} needs the environment variable {variable}, which is not set: set it"


def _unset(value: Any, but: Collection[str] = ()) -> Iterator[Unset]:
    if isinstance(value, Unset):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            if field.name not in but:
                yield from _unset(getattr(value, field.name))
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _unset(inner)


def without_unset(tree: DictConfig, written: Mapping[str, Any]) -> dict[str, Any]:
    """Takes out of the tree what the environment has not, so that the rest can be resolved and typed.

    Args:
        written: dotted path -> the option as it is written, of all options with a reference.

    Returns:
        Dotted path -> what stands in the value's place (`put_back`).
    """
    found: dict[str, Any] = {}
    for path, text in written.items():
        try:
            value = OmegaConf.select(tree, path)
            if OmegaConf.is_config(value):
                OmegaConf.to_container(value, resolve=True)
        except InterpolationResolutionError as error:
            if (variable := NOT_FOUND.search(str(error))) is None:
                raise
            found[path] = _named(text, variable[1], path)
    for path in found:
        OmegaConf.update(tree, path, _neutral(type_of(path)))
    return found


def put_back(config: Any, unset: Mapping[str, Any]) -> None:
    for path, value in unset.items():
        *parents, name = path.split(".")
        section = config
        for parent in parents:
            section = section[parent] if isinstance(section, dict) else getattr(section, parent)
        if isinstance(section, dict):
            section[name] = value
        else:
            setattr(section, name, value)


def _named(text: Any, variable: str, path: str) -> Any:
    if isinstance(text, list):
        return [_named(inner, variable, path) if "${" in str(inner) else inner for inner in text]
    return Unset.of(text, variable, path)


def _neutral(hint: Any) -> Any:
    """Some value of the type."""
    bare = without_none(hint)
    if get_origin(bare) in (list, tuple):
        return []
    if isinstance(bare, type) and issubclass(bare, Enum):
        return next(iter(bare))
    return bare() if bare in (int, float, bool, str) else None
