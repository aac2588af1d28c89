"""Values that OmegaConf would turn into others without a word: 7 into true, `true` into the text "True", 1e3 into the
text "1000.0"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from configs.errors import ConfigError
from configs.fields import describe, leaves, type_of, without_none


def check_values(tree: Any, spelt: str | None = None, section: Any = None) -> None:
    """
    Args:
        tree: options as plain containers, as a file or an override gives them.
        spelt: how the only value among them was written, where that is known.
        section: the dataclass that `tree` is of; None is the whole configuration.

    Raises:
        ConfigError: the first value that would be recorded as another one.
    """
    for path, value in leaves(tree).items():
        try:
            hint = type_of(path, section)
        except ConfigError:  # an unknown name, of which others tell
            continue
        for said in _misread(path, hint, value, spelt):
            raise ConfigError(said)


def _misread(path: str, hint: Any, value: Any, spelt: str | None) -> Iterator[str]:
    bare = without_none(hint)
    if isinstance(value, list):
        inner = get_args(bare)[0] if get_origin(bare) in (list, tuple) else Any
        for index, each in enumerate(value):
            yield from _misread(f"{path}[{index}]", inner, each, None)
    elif bare is bool and isinstance(value, int | float) and not isinstance(value, bool):
        yield f"{path}={value} is not possible: expected {describe(hint)}"
    elif bare is str and isinstance(value, int | float):
        exact = str(value) == spelt if spelt is not None else not isinstance(value, bool | float)
        if not exact:
            text = str(value) if spelt is None else spelt
            yield (
                f"{path}={text} is read as {value!r}, and its text would be another one: quote it for the program as "
                f"well as for the shell: '{path}=\"{text}\"'"
            )
