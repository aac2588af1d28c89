"""Families of the user's beside the declared ones, of texts and of images alike.

One is named by its dotted path, or comes with an installed package, which names it in the entry points of its
pyproject.toml. Those are read in every process, so that rollout workers and learners know of them too.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from models.files import CheckpointError

Family = TypeVar("Family")


def entered(family: Family, kind: type[Family], known: dict[str, Family], declared: Collection[str]) -> Family:
    """Puts a family of the user's among those that are known, in place of an earlier one that was not declared.

    Args:
        known: by name; `declared` are the names that are the project's own.

    Raises:
        CheckpointError: it is no family, or a declared one has its name.
    """
    if not isinstance(family, kind):
        raise CheckpointError(
            f"model.family names a {type(family).__name__}, not a {kind.__module__}.{kind.__qualname__}"
        )
    own: Any = family
    name = own.name
    if name in declared and family != known[name]:
        raise CheckpointError(f"there is a family {name!r} already: give yours another name")
    known[name] = family
    return family


@functools.cache
def plugged(group: str, declared: frozenset[str]) -> Mapping[str, EntryPoint]:
    """Families that installed packages bring along, by their names; nothing of them is imported yet.

    Args:
        group: of the entry points, such as denoiserl.text_families.
        declared: the project's own names.

    Raises:
        CheckpointError: two packages have the same name for theirs, or one takes the name of a declared one.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        owner = "denoiserl" if point.name in declared else _package(found.get(point.name))
        if owner is not None:
            raise CheckpointError(
                f"two families are called {point.name!r}: one of {owner}, one of {_package(point)}; uninstall one, or "
                f"give it another name in the entry points {group} of its package"
            )
        found[point.name] = point
    return found


def loaded(point: EntryPoint, kind: type[Family], known: dict[str, Family], declared: Collection[str]) -> Family:
    """Imports a family that a package brings along, and enters it.

    Raises:
        CheckpointError: it cannot be imported, is no family, or is not called as its entry point says.
    """
    said = f"family {point.name!r} of {_package(point)} ({point.value})"
    try:
        part: Any = point.load()
    except Exception as error:  # an import runs foreign code
        raise CheckpointError(f"{said} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(part, kind):
        raise CheckpointError(f"{said} is a {type(part).__name__}, not a {kind.__module__}.{kind.__qualname__}")
    if part.name != point.name:  # type: ignore[attr-defined]
        raise CheckpointError(f"{said} calls itself {part.name!r}: use one name")  # type: ignore[attr-defined]
    return entered(part, kind, known, declared)


def _package(point: EntryPoint | None) -> str | None:
    if point is None:
        return None
    return point.dist.name if point.dist is not None else point.value
