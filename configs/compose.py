"""From command-line overrides to one checked, typed configuration.

Schema defaults, the chosen file of each group, the recipe's own values, `key=value` overrides: later wins.
Hydra composes the files; values from the command line are merged here, so that every error is ours to word.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.environment import NOT_FOUND, not_set, put_back, without_unset
from configs.errors import ConfigError
from configs.fields import describe, leaves, nearest, type_of
from configs.removal import check_removals, without_removed
from configs.schema import Config
from configs.values import check_values

Section = TypeVar("Section")
PACKAGE = Path(__file__).parent
GROUPS = ("model", "algorithm", "reward", "data", "rollout", "cluster", "recipe")

ConfigStore.instance().store("denoiserl_schema", Config)


@dataclass(frozen=True)
class Composed:
    config: Config
    """What the program uses: plain dataclasses."""
    resolved: DictConfig
    """The same as a tree; `OmegaConf.to_yaml(resolved)` is what is printed and what the run folder keeps. Values that
    come from the environment (`${oc.env:NAME}`) stand there by name: they may be secrets."""
    sources: list[str]
    """Files that took part, in the order in which they were applied."""

    @property
    def yaml(self) -> str:
        """The whole configuration as text, as the run folder keeps it."""
        return OmegaConf.to_yaml(self.resolved)


def compose(overrides: list[str], config_dir: Path | None = None) -> Composed:
    """The configuration that `overrides` describe.

    Args:
        overrides: `group=file` choices (`recipe=quickstart`, `model=tiny_full`) and `dotted.key=value` settings.
        config_dir: a folder with further group files, laid out like this one: `recipe/mine.yaml`, `data/ours.yaml`.

    Raises:
        ConfigError: anything that is wrong with the overrides or the files.
    """
    folders = [PACKAGE] if config_dir is None else [PACKAGE, _own_folder(config_dir)]
    choices: dict[str, str] = {}
    values: list[Override] = []
    for text in overrides:
        override = _parse(text)
        if override.key_or_group in GROUPS and not isinstance(override.value(), dict):
            choices[override.key_or_group] = _option(override, folders)
        else:
            _check(override)
            values.append(override)

    tree, sources = _compose_files(choices, folders)
    return _composed(_assign(tree, values), sources)


def recompose(file: Path, overrides: list[str], to_read: bool = False) -> Composed:
    """The configuration that a run kept in `file`, with `dotted.key=value` settings on top.

    Args:
        to_read: what the environment should say and does not stays there by name (`configs.environment`).

    Raises:
        ConfigError: as `compose`; also when the file does not fit this version's options.
    """
    try:
        kept = OmegaConf.load(file)
        if isinstance(before := OmegaConf.select(kept, "algorithm.normalise_terms"), bool):  # until it had two ways
            OmegaConf.update(kept, "algorithm.normalise_terms", "zscore" if before else "none")
        tree = OmegaConf.merge(OmegaConf.structured(Config), kept)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{file} does not fit this version's options: {str(error).splitlines()[0]}") from error
    assert isinstance(tree, DictConfig)
    _check_file(kept, str(file))
    OmegaConf.set_struct(tree, False)
    values = [_parse(text) for text in overrides]
    for override in values:
        _check(override)
    return _composed(_assign(tree, values), [str(file)], to_read)


def _composed(tree: DictConfig, sources: list[str], to_read: bool = False) -> Composed:
    without_removed(tree)
    written = leaves(OmegaConf.to_container(tree, resolve=False))
    interpolated = {path: value for path, value in written.items() if "${" in str(value)}
    unset = without_unset(tree, interpolated) if to_read else {}
    _resolve(tree)
    config = cast(Config, OmegaConf.to_object(tree))
    put_back(config, unset)
    for path in unset:
        OmegaConf.update(tree, path, interpolated.pop(path))
    values = {path: str(OmegaConf.select(tree, path)) for path in interpolated}
    secrets = [values[path] for path, value in interpolated.items() if "${oc.env:" in str(value).replace(" ", "")]
    for path, value in interpolated.items():
        if any(secret in values[path] for secret in secrets):  # by whatever way it came
            OmegaConf.update(tree, path, value)
    return Composed(config, tree, sources)


def options_of(section: type[Section], words: list[str]) -> Section:
    """The options of a command that has its own, which no run reads, from `key=value` words.

    Raises:
        ConfigError: anything that is wrong with the words, or an option without a value.
    """
    tree = OmegaConf.structured(section)
    for word in words:
        override = _parse(word)
        key, value, line = override.key_or_group, override.value(), override.input_line
        expected = describe(type_of(key, section))
        check_values(_nested(override), None if line is None else line.partition("=")[2], section)
        try:
            tree = OmegaConf.merge(tree, _nested(override))
        except OmegaConfBaseException as error:
            shown = "null" if value is None else value
            raise ConfigError(f"{key}={shown} is not possible: expected {expected}") from error
    if missing := sorted(OmegaConf.missing_keys(tree)):
        raise ConfigError("\n".join(f"{path} has no value: set {path}=..." for path in missing))
    return cast(Section, OmegaConf.to_object(tree))


def options(group: str, folders: list[Path]) -> list[str]:
    """Names of the files of a group."""
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def _own_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {folder} is not a folder")
    for group in GROUPS:
        for name in set(options(group, [folder])) & set(options(group, [PACKAGE])):
            raise ConfigError(f"{folder / group / name}.yaml: {group}={name} is already taken; rename the file")
    return folder.absolute()


def _parse(text: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        key, equals, value = text.partition("=")
        if not equals:
            guess = f"; did you mean recipe={text}?" if text in options("recipe", [PACKAGE]) else ""
            raise ConfigError(f"cannot read '{text}': expected key=value{guess}") from error
        raise ConfigError(
            f"cannot read the value in '{text}'; quote it for the program as well as for the shell: "
            f"'{key}={json.dumps(value, ensure_ascii=False)}'"
        ) from error
    if not override.key_or_group:
        raise ConfigError(f"cannot read '{text}': expected key=value")
    if override.is_sweep_override():
        key, _, value = text.partition("=")
        raise ConfigError(f"'{text}' has several values; a list is written {key}=[{value}], a text {key}='\"{value}\"'")
    if override.type is not OverrideType.CHANGE or override.package is not None:
        raise ConfigError(f"cannot read '{text}': expected key=value, without +, ~ or @ (null unsets an option)")
    return override


def _check(override: Override) -> None:
    """Raises ConfigError if there is no such option, or if it would be given another value than the one that was
    written."""
    type_of(override.key_or_group)
    value, line = override.value(), override.input_line
    spelt = None if line is None or isinstance(value, dict | list) else line.partition("=")[2]
    check_values(_nested(override), spelt)


def _check_file(content: Any, where: str) -> None:
    """The same of a file. Raises ConfigError, which names it."""
    try:
        check_values(OmegaConf.to_container(content, resolve=False))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _option(override: Override, folders: list[Path]) -> str:
    group, name = override.key_or_group, override.value()
    if name not in (names := options(group, folders)):
        raise ConfigError(_no_such_option(group, "null" if name is None else str(name), names))
    return cast(str, name)


def _no_such_option(group: str, name: str, names: list[str]) -> str:
    return f"{group}={name} does not exist{nearest(name, names)}\n  files of {group}: {', '.join(names)}"


def _compose_files(choices: dict[str, str], folders: list[Path]) -> tuple[DictConfig, list[str]]:
    """What the files say, which takes Hydra a fifth of a second: once for each choice as long as no file changes.

    The tree is shared; `_assign` copies it.
    """
    files = sorted(file for folder in folders for file in folder.rglob("*.yaml"))
    stamps = tuple((str(file), (stat := file.stat()).st_mtime_ns, stat.st_size) for file in files)
    tree, sources = _composed_files(tuple(choices.items()), tuple(folders), stamps)
    return tree, list(sources)


@functools.lru_cache(maxsize=32)
def _composed_files(
    choices: tuple[tuple[str, str], ...], folders: tuple[Path, ...], stamps: tuple[object, ...]
) -> tuple[DictConfig, list[str]]:
    arguments = [f"{group}={json.dumps(name)}" for group, name in choices]
    search_path = json.dumps([f"file://{folder}" for folder in folders[1:]], ensure_ascii=False)
    arguments.append(f"hydra.searchpath={search_path}")
    with hydra.initialize_config_dir(str(PACKAGE), version_base=None), _file_errors(list(folders)):
        tree = hydra.compose("config", arguments)
        loader = GlobalHydra.instance().config_loader()
        entries = loader.compute_defaults_list("config", arguments, RunMode.RUN).defaults
    OmegaConf.set_struct(tree, False)  # mappings such as reward.terms stay open; sections are closed by their types
    candidates = [[folder / f"{entry.config_path}.yaml" for folder in folders] for entry in entries]
    files = [found[0] for each in candidates if (found := [file for file in each if file.is_file()])]  # as Hydra's
    before: Any = {}
    for file in files:
        whole = file.parent.name not in GROUPS or re.match(r"\s*#\s*@package\s+_global_", file.read_text())
        said = OmegaConf.load(file) if whole else OmegaConf.create({file.parent.name: OmegaConf.load(file)})
        if not file.is_relative_to(PACKAGE):  # ours are checked by a test
            _check_file(said, _display(file))
            check_removals(OmegaConf.to_container(said, resolve=False), OmegaConf.to_container(before), _display(file))
        before = OmegaConf.merge(before, said)
    return tree, [_display(file) for file in files]


def _display(file: Path) -> str:
    return str(file.relative_to(PACKAGE.parent) if file.is_relative_to(PACKAGE) else file)


@contextmanager
def _file_errors(folders: list[Path]) -> Iterator[None]:
    """Words Hydra's errors about YAML files."""
    try:
        yield
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}") from error
    except MissingConfigException as error:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        message = _no_such_option(group, name, options(group, folders)) if group in GROUPS else str(error)
        raise ConfigError(f"the recipe's defaults list: {message}") from error
    except HydraException as error:
        message = str(error)
        named = re.match(r"In '([^']+)'", message)
        place = f"in {named[1]}.yaml: " if named else ""
        if isinstance(error.__context__, OmegaConfBaseException):
            if named and error.__context__.full_key == "recipe":
                raise ConfigError(f"{place}the first line of a recipe must be `# @package _global_`") from error
            raise ConfigError(place + _value_error(error.__context__)) from error
        if unknown := re.search(r"Could not override '([^']+)'", message):
            raise ConfigError(
                f"{place}'override {unknown[1]}' names no group; write `override /GROUP: file` "
                f"with one of {', '.join(GROUPS)}"
            ) from error
        raise ConfigError(message) from error


def _assign(tree: DictConfig, overrides: list[Override]) -> DictConfig:
    """`tree` with values merged in, in order; a section that was null is opened with its defaults."""
    before = OmegaConf.to_container(tree, resolve=False)
    for override in overrides:
        check_removals(_nested(override), before, override.input_line or override.key_or_group)
    try:
        return cast(DictConfig, OmegaConf.merge(tree, *map(_nested, overrides)))  # copies the tree once
    except OmegaConfBaseException:
        for override in overrides:  # which of them was it?
            try:
                tree = cast(DictConfig, OmegaConf.merge(tree, _nested(override)))
            except OmegaConfBaseException as error:
                raise ConfigError(_value_error(error, override.key_or_group, override.value())) from error
        raise


def _nested(override: Override) -> Any:
    """The override as a tree of mappings."""
    nested: Any = override.value()
    for name in reversed(override.key_or_group.split(".")):
        nested = {name: nested}
    return nested


def _value_error(error: OmegaConfBaseException, path: str = "", value: object = None) -> str:
    """What is wrong with a value: the one that OmegaConf names, else the one that was asked for."""
    if error.full_key and error.full_key != path:
        path, value = error.full_key, error.value
    try:
        expected = describe(type_of(path))
    except ConfigError as unknown:
        return str(unknown)
    return f"{path}={'null' if value is None else value} is not possible: expected {expected}"


def _resolve(tree: DictConfig) -> None:
    """Replaces every `${...}` by its value; nothing may be missing."""
    try:
        missing = sorted(OmegaConf.missing_keys(tree))
        OmegaConf.resolve(tree)
    except OmegaConfBaseException as error:
        reason = str(error).partition("\n")[0]
        if variable := NOT_FOUND.search(reason):
            raise ConfigError(not_set(str(error.full_key), variable[1])) from error
        raise ConfigError(
            f"{error.full_key or 'a ${...} reference'} cannot be resolved: {reason}; set what it refers to, or give "
            f"the option a value"
        ) from error
    if missing:
        raise ConfigError("\n".join(f"{path} has no value; {_how_to_set(path)}" for path in missing))


def _how_to_set(path: str) -> str:
    section = path.partition(".")[0]
    group = section if section in GROUPS else "recipe"
    return f"set {path}=... or choose a file: {group}={{{','.join(options(group, [PACKAGE]))}}}"
