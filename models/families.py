"""Families of the user's beside the declared ones, of texts and of images alike."""

from __future__ import annotations

from collections.abc import Collection
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
