"""`denoiserl algorithms`: the catalogue as a table, kept between calls.

Working it out composes and checks every file, which takes two seconds. It depends on nothing but files, so it is kept
in the user's cache folder under a digest of all of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from configs.compose import Composed
from configs.errors import ConfigError, UserError
from rl import OTHERS
from rl.commands.recipe import Recipe

PIPED_WIDTH = 150
"""Columns of the table where no terminal says how many there are."""
WIDE = 110
"""Columns that all of the table needs."""
SOURCES = Path(__file__).parents[2]
LIBRARIES = ("hydra-core", "omegaconf")


def recipes_of(config_dir: Path | None) -> list[Recipe]:
    """`rl.commands.catalogue.catalogue`, or what it said when the files were the same."""
    file = user_cache_path("denoiserl") / f"catalogue-{_digest(config_dir)}.json"
    kept = _read(file)
    if kept is not None:
        return kept
    from rl.commands.catalogue import catalogue

    recipes = catalogue(config_dir)
    _keep(recipes, file)
    return recipes


def check(composed: Composed, config_dir: Path | None) -> None:
    """`rl.compatibility.check`, which says first whether the algorithm is for models of the other kind: a dozen of its
    options would not say it.

    Raises:
        ConfigError: every problem found.
    """
    from rl.compatibility import check as check_options

    try:
        check_options(composed.config, None)
    except ConfigError as error:
        modality = composed.config.model.modality.value
        chosen = {Path(source).stem for source in composed.sources if Path(source).parent.name == "algorithm"}
        for recipe in recipes_of(config_dir):
            if recipe.name in chosen and recipe.modalities and modality not in recipe.modalities:
                raise ConfigError(
                    f"algorithm={recipe.name} is for {recipe.modalities[0]} models, and this one has model.modality="
                    f"{modality}: choose an algorithm that `denoiserl algorithms --modality {modality}` lists, or "
                    f"another model"
                ) from error
        raise


def _digest(config_dir: Path | None) -> str:
    """Of everything that the catalogue follows from."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((sys.version, [version(name) for name in LIBRARIES])).encode())
    for file in _files(config_dir):
        content = file.read_bytes()
        digest.update(f"{file}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _files(config_dir: Path | None) -> Iterator[Path]:
    for package in (*OTHERS, "rl"):
        yield from sorted((SOURCES / package).rglob("*.py"))
    yield from sorted((SOURCES / "configs").rglob("*.yaml"))
    if config_dir is not None:
        yield from sorted(config_dir.absolute().rglob("*.yaml"))


def _read(file: Path) -> list[Recipe] | None:
    """None if it is not there, or not what `_keep` writes."""
    try:
        return [Recipe(**_with_tuples(row)) for row in json.loads(file.read_text())]
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _with_tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


def _keep(recipes: list[Recipe], file: Path) -> None:
    """In place of what was kept of other files; a folder that cannot be written is no reason to fail."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.with_suffix(f".{os.getpid()}")
        written.write_text(json.dumps([asdict(recipe) for recipe in recipes]))
        written.replace(file)
        for old in file.parent.glob("catalogue-*.json"):
            if old != file:
                old.unlink(missing_ok=True)


def table(recipes: list[Recipe], width: int = PIPED_WIDTH) -> Table:
    """On a narrow terminal without what is only read with the rest; words stay whole."""
    result = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    columns = ["algorithm", "for", "likelihood x ratio x objective x advantage", "forwards", "needs", "paper"]
    shown = [column for column in columns if width >= WIDE or column not in ("forwards", "paper")]
    rows = [dict(zip(columns, _cells(recipe), strict=True)) for recipe in recipes]
    for column in shown:
        longest = max((len(word) for row in rows for word in row[column].split()), default=1)
        result.add_column(column, min_width=longest, no_wrap=column in ("algorithm", "forwards", "paper"))
    for row in rows:
        result.add_row(*(row[column] for column in shown))
    return result


def _cells(recipe: Recipe) -> tuple[str, ...]:
    made_of = " x ".join(recipe.cell)
    return recipe.name, _models(recipe), made_of, recipe.forwards, ", ".join(recipe.needs), recipe.paper


def _models(recipe: Recipe) -> str:
    attention = f" ({recipe.attention})" if recipe.attention else ""
    return ", ".join(f"text{attention}" if name == "text" else name for name in recipe.modalities)


@dataclass(frozen=True)
class Wanted:
    """Which algorithms to show; empty fields want nothing."""

    text: str = ""
    """In the name, in what it is made of, in its paper's number or in its description."""
    modality: str = ""
    needs: tuple[str, ...] = ()
    """All of them."""

    def __call__(self, recipe: Recipe) -> bool:
        said = " ".join([*_cells(recipe), recipe.summary]).lower()
        return (
            self.text.lower() in said
            and (not self.modality or self.modality in recipe.modalities)
            and set(self.needs) <= set(recipe.needs)
        )


def show_algorithms(wanted: Wanted, config_dir: Path | None, as_json: bool = False) -> None:
    """The algorithm of that name with its description; else those that fit, in a table or as JSON.

    Raises:
        UserError: none fits, or there is no such modality or need.
    """
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PIPED_WIDTH)
    recipes = {recipe.name: recipe for recipe in recipes_of(config_dir)}
    _check(wanted, list(recipes.values()))
    named = recipes.get(wanted.text)
    found = [named] if named else [recipe for recipe in recipes.values() if wanted(recipe)]
    if not found:
        raise UserError(f"no algorithm fits; there are {', '.join(recipes)}")
    if as_json:
        print(json.dumps([asdict(recipe) for recipe in found], indent=2))
        return
    console.print(table(found, console.width))
    if named:
        console.print(named.summary, markup=False)
    elif console.width >= WIDE:
        console.print("forwards: rows of a sample in one pass over it x models; T: its rounds, or its trained steps")
    else:
        console.print(f"{WIDE} columns show forwards and papers, too; so does --json")


def _check(wanted: Wanted, recipes: list[Recipe]) -> None:
    modalities = sorted({modality for recipe in recipes for modality in recipe.modalities})
    if wanted.modality and wanted.modality not in modalities:
        raise UserError(f"--modality {wanted.modality}: there are {', '.join(modalities)}")
    needs = sorted({need for recipe in recipes for need in recipe.needs})
    if unknown := sorted(set(wanted.needs) - set(needs)):
        raise UserError(f"--needs {', '.join(unknown)}: there are {', '.join(needs)}")
