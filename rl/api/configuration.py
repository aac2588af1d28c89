"""Configurations: out of recipes, files and `dotted.key=value` settings, and sections of them out of shorter words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.algorithm_options import AlgorithmOptions
from configs.compose import PACKAGE, Composed, recompose
from configs.compose import compose as compose_overrides
from configs.compose import options as group_files
from configs.errors import ConfigError
from configs.schema import Config
from configs.values import check_values

AnyConfig = Composed | Config
Section = TypeVar("Section")
FILES = (".yaml", ".yml")
FILLERS = ("run.name=none", "model=tiny_block", "data=mini_sudoku", "reward=reasoning_gym")
"""What a configuration must have beside an algorithm whose options alone are wanted."""


def compose(source: str | Path, *overrides: str, config_dir: str | Path | None = None) -> Composed:
    """One checked, typed configuration; the words are those of the command line.

        compose("quickstart", "run.updates=5", "algorithm=dipo")
        compose("runs/quickstart/config.yaml", "rollout.sampler.temperature=0.7")
        compose("model=tiny_block", "data=mini_sudoku", "reward=reasoning_gym", "run.name=mine")

    Args:
        source: name of a recipe; a YAML file, which may leave out what has a default (a run's `config.yaml`, or a
            recipe of yours in a folder `.../recipe/`); or the first override.
        overrides: `group=file` (not behind a YAML file without groups) and `dotted.key=value`; later wins.
        config_dir: a folder with further group files, laid out like `configs/`.

    Returns:
        `.config`, plain dataclasses; `.yaml`, the same as text; `.sources`, the files that took part.

    Raises:
        ConfigError: anything that is wrong with the words or the files; names the nearest valid ones.
    """
    folder = None if config_dir is None else Path(config_dir)
    text = str(source)
    if "=" in text:
        return compose_overrides([text, *overrides], folder)
    if not text.endswith(FILES):
        return compose_overrides([f"recipe={text}", *overrides], folder)
    file = Path(source)
    if not file.is_file():
        raise ConfigError(f"{file}: no such file; a recipe is given by its name, without .yaml")
    if "defaults" not in OmegaConf.load(file):
        return recompose(file, list(overrides))
    if file.parent.name != "recipe":
        raise ConfigError(
            f"{file} has a defaults list, so it is a recipe: put it into a folder called recipe, beside other group "
            f"files if there are any"
        )
    return compose_overrides([f"recipe={file.stem}", *overrides], folder or file.absolute().parents[1])


def composed_of(config: AnyConfig | str) -> Composed:
    """A configuration in whatever form; a text is the name of a recipe."""
    if isinstance(config, str):
        return compose(config)
    if isinstance(config, Composed):
        return config
    if not isinstance(config, Config):
        raise ConfigError(f"a configuration is wanted, not a {type(config).__name__}; rl.compose makes one")
    return Composed(config, OmegaConf.structured(config), ["a configuration made in Python"])


def algorithm_options(options: AnyConfig | AlgorithmOptions | Mapping[str, Any] | str | None) -> AlgorithmOptions:
    """Options of an algorithm: those of a configuration, of an algorithm file (`"dipo"`), or defaults with changes.

    Raises:
        ConfigError: there is no such file or option.
    """
    if isinstance(options, Composed | Config):
        return composed_of(options).config.algorithm
    if isinstance(options, str):
        if options not in group_files("algorithm", [PACKAGE]) and "=" in options:
            raise ConfigError(f"options={options!r}: give the name of an algorithm, or a mapping of options")
        return compose_overrides([*FILLERS, f"algorithm={options}"]).config.algorithm
    return changed(AlgorithmOptions(), options, "options")


def changed(section: Section, values: Section | Mapping[str, Any] | None, what: str) -> Section:
    """`values` if it is a whole section; else `section` with these of its options changed, as in a YAML file.

    Args:
        what: the argument, for errors.

    Raises:
        ConfigError: there is no such option, or it cannot have the value.
    """
    if values is None:
        return section
    if isinstance(values, type(section)):
        return values
    if not isinstance(values, Mapping):
        name = type(section).__name__
        raise ConfigError(f"{what} must be {name} or a mapping of its options, not {type(values).__name__}")
    assert is_dataclass(section)
    try:
        check_values(dict(values), section=type(section))
        tree = OmegaConf.merge(OmegaConf.structured(section), dict(values))
        return cast(Section, OmegaConf.to_object(tree))
    except OmegaConfBaseException as error:
        known = ", ".join(section.__dataclass_fields__)
        raise ConfigError(f"{what}: {str(error).splitlines()[0]}\n  options of {what}: {known}") from error
