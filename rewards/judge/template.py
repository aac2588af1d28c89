"""What a judge is asked: a Jinja template over one sample, or over two for a comparison.

Templates come from files, and what they show from models: they run in Jinja's sandbox, a variable that nobody gives is
an error and never an empty string, and nothing that a sample says is read as template.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

FOLDER = Path(__file__).parent / "templates"
SAMPLE, PAIR = ("prompt", "completion"), ("prompt", "first", "second")
"""Variables of a template, beside the columns of the data, the constants of the term's `args` and `scores`."""

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)


class Template:
    def __init__(self, name: str, text: str) -> None:
        """Raises ValueError: it is no template."""
        self.name = name
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        try:
            self._template = _ENVIRONMENT.from_string(text)
            self.variables = meta.find_undeclared_variables(_ENVIRONMENT.parse(text))
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            raise ValueError(f"template {name}{f', line {line}' if line else ''}: {error}") from None

    @classmethod
    def named(cls, name: str) -> Template:
        """A packaged one, by its name, or the file at a path."""
        packaged = sorted(file.stem for file in FOLDER.glob("*.jinja"))
        path = FOLDER / f"{name}.jinja" if name in packaged else Path(name)
        try:
            return cls(name, path.read_text())
        except (OSError, UnicodeError) as error:
            raise ValueError(
                f"template={name} is no file that can be read ({error}), and none of the packaged ones: "
                f"{', '.join(packaged)}"
            ) from None

    def check(self, given: Collection[str], needed: Collection[str]) -> None:
        """Raises ValueError: it asks for a variable that nobody gives, or does not show what is to be judged."""
        if unknown := sorted(self.variables - {*given}):
            raise ValueError(
                f"template {self.name} asks for {', '.join(unknown)}; there are {', '.join(sorted(given))}"
            )
        if missing := [name for name in needed if name not in self.variables]:
            raise ValueError(f"template {self.name} never shows {', '.join(missing)}, which it is to judge")

    def render(self, **values: Any) -> str:
        """Raises ValueError: it cannot be rendered for these values."""
        try:
            return self._template.render(values).strip()
        except Exception as error:  # it runs filters and operators on whatever the columns hold
            raise ValueError(f"template {self.name}: {type(error).__name__}: {error}") from None
