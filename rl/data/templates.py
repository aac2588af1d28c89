"""A row through a Jinja template: a text, or a conversation where the template is one expression that holds messages.

A template prints text, and whole numbers among text. Anything else would be printed as Python prints it, as
`[{'role': ...`, `True` or `1e-05`, and trained on: it is refused, with the row and the column, on whichever way it
becomes text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Integral, Number
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.nativetypes import NativeCodeGenerator
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rl.data.conversation import Value, conversation, looks_like_messages
from rl.data.rows import DataError, Row


def template(source: str, purpose: str) -> Callable[[str, Row], Value]:
    """Compile a template; data sets are not trusted, so it runs in Jinja's sandbox.

    Args:
        purpose: the option that it is of.

    Returns:
        A function of a problem's name and its row, which raises DataError.
    """
    try:
        parsed = jinja2.Environment(keep_trailing_newline=True).parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise DataError(f"the {purpose} template does not parse: {error.message} in {source!r}") from error
    whole = _is_one_expression(parsed)
    environment = _Whole() if whole else _Sandbox(finalize=_printed)
    compiled = environment.from_string(source)
    columns = sorted(meta.find_undeclared_variables(parsed))

    def render(name: str, row: Row) -> Value:
        seen = {column: _guarded(value, column) if column in columns else value for column, value in row.items()}
        try:
            value = compiled.render(seen)
            if not whole or isinstance(value, str):
                return value
            if isinstance(value, jinja2.Undefined):
                str(value)  # raises
            _refuse_null(value)
            if looks_like_messages(value):
                return conversation(value, row, f"the {purpose} of {name} (column {_column(value, seen, columns)})")
            raise _NotTextError(value)
        except _NotTextError as error:
            column = error.column or _column(error.value, seen, columns)
            raise DataError(
                f"problem {name}, column {column}, does not fit the {purpose} template {source!r}: "
                f"{_what(error.value)} is no text, and would be printed as Python prints it: {_way_out(error.value)}"
            ) from error
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"problem {name} does not fit the {purpose} template {source!r}: {error}; its columns are "
                f"{', '.join(row)}"
            ) from error

    return render


class _NotTextError(TypeError):
    def __init__(self, value: Any, column: str | None = None) -> None:
        self.value, self.column = value, column


class _Sandbox(ImmutableSandboxedEnvironment):
    def __init__(self, **options: Any) -> None:
        super().__init__(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, **options)
        # A missing column called `range` or `dict` must not print an object; templates that loop need `namespace`.
        self.globals = {"namespace": self.globals["namespace"]}


def _only(parts: Iterable[Any]) -> Any:
    (part,) = parts
    return part


class _Whole(_Sandbox):
    """Of templates that are one expression: its value as it is."""

    code_generator_class = NativeCodeGenerator
    concat = staticmethod(_only)


def _is_one_expression(parsed: nodes.Template) -> bool:
    if len(parsed.body) != 1 or not isinstance(output := parsed.body[0], nodes.Output):
        return False
    return len(output.nodes) == 1 and not isinstance(output.nodes[0], nodes.TemplateData | nodes.Const)


def _printed(value: Any) -> Any:
    """What a template may put among its text."""
    _refuse_null(value)
    if isinstance(value, str | jinja2.Undefined) or (isinstance(value, Integral) and not isinstance(value, bool)):
        return value
    raise _NotTextError(value)


def _refuse_null(value: Any) -> None:
    if value is None:
        raise jinja2.UndefinedError("a value is null, which would be printed as 'None': fill it in or remove the row")


class _Guard:
    """Part of a row that has no text of its own: filters (`trim`), `~` and formats ask for one, too."""

    _column: str

    def __str__(self) -> str:
        raise _NotTextError(self, self._column)

    __repr__ = __str__


class _List(_Guard, list):
    pass


class _Tuple(_Guard, tuple):
    pass


class _Dict(_Guard, dict):
    pass


class _Bytes(_Guard, bytes):
    pass


def _guarded(value: Any, column: str) -> Any:
    made: Any
    if isinstance(value, dict):
        made = _Dict({key: _guarded(part, f"{column}.{key}") for key, part in value.items()})
    elif isinstance(value, list | tuple):
        parts = [_guarded(part, f"{column}[{index}]") for index, part in enumerate(value)]
        made = _List(parts) if isinstance(value, list) else _Tuple(parts)
    elif isinstance(value, bytes):
        made = _Bytes(value)
    else:
        return value
    made._column = column
    return made


def _column(value: Any, row: Row, columns: list[str]) -> str:
    """Where a value is from; all columns that the template reads, if it is the value of none."""
    own = [column for column in columns if column in row and row[column] is value]
    return getattr(value, "_column", None) or " or ".join(own or columns or ["none"])


def _what(value: Any) -> str:
    if looks_like_messages(value):
        return "a conversation"
    kinds = {list: "a list", tuple: "a tuple", dict: "a mapping", bytes: "bytes"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), f"a {type(value).__name__}")


def _way_out(value: Any) -> str:
    if looks_like_messages(value):
        return "make the column the whole template, as '{{ messages }}', for the chat template to be applied to it"
    if isinstance(value, Number):
        return "store it as text, or write `| string` behind it in the template"
    return "write out its parts, with `| join(' ')`, a loop or `| tojson`"
