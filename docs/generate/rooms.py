"""The rooms of the code and who imports whom, as grimp reads it from the files.

A room is a package of the first or the second level (`rewards`, `rl.driver`), or a module directly in `rl`. What lies
deeper belongs to its room.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grimp

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Room:
    name: str
    """Dotted, as it is imported."""
    docstring: str
    """Its first paragraph."""
    files: int
    """Without `__init__.py`."""
    lines: int

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Map:
    rooms: tuple[Room, ...]
    """Each above all that it imports."""
    imports: dict[tuple[str, str], int]
    """How many modules of a room import how many of another: pairs of modules."""


def read_map(root: Path = ROOT) -> Map:
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    graph = grimp.build_graph(*settings["root_packages"], cache_dir=None)
    room_of = {module: _room_of(module, root) for module in sorted(graph.modules)}
    imports: Counter[tuple[str, str]] = Counter()
    for module, room in room_of.items():
        for imported in graph.find_modules_directly_imported_by(module):
            if room != room_of[imported]:
                imports[room, room_of[imported]] += 1
    names = [name for name in dict.fromkeys(room_of.values()) if _files(name, root) or any(name in e for e in imports)]
    wanted = _wanted_order(settings, names)
    return Map(tuple(_described(name, root) for name in _ordered(wanted, imports)), dict(sorted(imports.items())))


def _room_of(module: str, root: Path) -> str:
    first, *rest = module.split(".")
    if rest and (first == "rl" or (root / first / rest[0]).is_dir()):
        return f"{first}.{rest[0]}"
    return first


def _wanted_order(settings: dict[str, Any], names: list[str]) -> list[str]:
    """The layers of the import contract from top to bottom, then the other packages, each before its parts."""
    (layers,) = (contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers")
    of_rl = [f"rl.{layer}" for layer in layers]
    packages = ["rl", "configs", "rollout", "models", "rewards", "cluster"]
    place = {name: index for index, name in enumerate(of_rl)}
    return sorted(names, key=lambda name: (packages.index(name.partition(".")[0]), place.get(name, -1), name))


def _ordered(names: list[str], imports: Counter[tuple[str, str]]) -> list[str]:
    """The same, changed only where a room would stand below one that it is imported by."""
    ordered: list[str] = []
    left = list(names)
    while left:
        free = [name for name in left if not any((other, name) in imports for other in left)]
        if not free:
            raise ValueError(f"these rooms import each other in a circle: {', '.join(left)}")
        ordered.append(free[0])
        left.remove(free[0])
    return ordered


def _files(name: str, root: Path) -> list[Path]:
    """The modules of a room but for its `__init__.py`; of a package only what lies in no room below it."""
    path = root / name.replace(".", "/")
    if not path.is_dir():
        return [path.with_suffix(".py")]
    own = path.rglob("*.py") if "." in name else path.glob("*.py")
    modules = [file for file in own if file.name != "__init__.py"]
    return [file for file in modules if not (name == "rl" and file.parent == path)]


def _described(name: str, root: Path) -> Room:
    path = root / name.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(source.read_text())) or ""
    files = _files(name, root)
    lines = sum(len(file.read_text().splitlines()) for file in files)
    return Room(name, " ".join(docstring.partition("\n\n")[0].split()), len(files), lines)
