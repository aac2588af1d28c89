"""Null takes a named part out of a mapping that a file brought along: `reward.terms.length=null`.

Such mappings are declared with values that may be null; nothing of them is, once they are composed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

from configs.errors import ConfigError
from configs.fields import nearest, without_none
from configs.schema import Config


def parts(tree: Any, hint: Any = Config, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of each named part that may be taken out, the innermost first.

    Args:
        tree: a configuration as plain containers, whole or in parts.
    """
    if not isinstance(tree, Mapping):
        return
    bare = without_none(hint)
    if is_dataclass(bare):
        hints = get_type_hints(bare)
        below = {name: hints[name] for name in tree if name in hints}
    elif get_origin(bare) is dict:
        below = dict.fromkeys(tree, get_args(bare)[1])
    else:
        return
    for name, inner in below.items():
        where = f"{path}.{name}" if path else str(name)
        yield from parts(tree[name], inner, where)
        if get_origin(bare) is dict and without_none(inner) is not inner:
            yield where, tree[name]


def check_removals(added: Any, tree: Any, where: str) -> None:
    """
    Args:
        added: what a file or an override says, as plain containers.
        tree: what it is said of.
        where: for errors: the file, or the override.

    Raises:
        ConfigError: a part is taken out that is not there.
    """
    there = {path for path, value in parts(tree) if value is not None}
    for path, value in parts(added):
        if value is None and path not in there:
            mapping, _, name = path.rpartition(".")
            names = [known.rpartition(".")[2] for known in there if known.rpartition(".")[0] == mapping]
            known = f"{mapping} has {', '.join(names)}" if names else f"{mapping} has none"
            raise ConfigError(f"{where}: null takes out {path}, which is not there; {known}{nearest(name, names)}")


def without_removed(tree: DictConfig) -> None:
    """Leaves out what is null in such mappings."""
    for path, value in list(parts(OmegaConf.to_container(tree, resolve=False))):
        if value is None:
            mapping, _, name = path.rpartition(".")
            del OmegaConf.select(tree, mapping)[name]
