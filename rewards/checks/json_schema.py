"""JSON that a schema describes.

The JSON of a completion is the content of its only fenced block (three backticks, with or without the word json behind
them); without one, the whole text. Two blocks are two answers, so they are none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from rewards.checks.answers import LogMalformed, Malformed, column, scores

LENGTH_LIMIT = 100_000
"""Characters of an answer's JSON."""
DEPTH_LIMIT = 32
"""Lists and objects within each other; a schema that describes itself needs some calls of Python for each."""

_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[ \t]*$", re.MULTILINE)
_SIGNS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)


def json_schema(
    completions: list[str],
    schema: Mapping[str, Any] | str | Sequence[Any],
    log_malformed: LogMalformed | None = None,
    **_: Any,
) -> list[float | None]:
    """1 for JSON that its schema describes, 0 for other JSON; 0 and malformed for what is none.

    Args:
        schema: of all samples, as an option, or a dataset column of N: mappings, or their JSON. Its `$schema` says
            which draft it is of, 2020-12 without one. `format` is a remark and not checked; nothing is downloaded.

    Returns:
        N scores, 0 or 1; None where the column has null.

    Raises:
        ValueError: a schema is none, or refers to what is not in it, or to itself without an end.
    """
    if isinstance(schema, str | Mapping):
        several: list[Any] = [schema] * len(completions)
    else:
        several = column("schema", schema, len(completions))
    validators = [None if each is None else _validator(_text_of(place, each)) for place, each in enumerate(several)]

    def score(place: int, completion: str) -> float | None:
        validator = validators[place]
        if validator is None:
            return None
        value = _read(_json_of(completion))
        try:
            return float(validator.is_valid(value))
        except (RecursionError, Unresolvable) as error:
            reason = "itself without an end" if isinstance(error, RecursionError) else f"what is not in it: {error}"
            raise ValueError(f"the schema refers to {reason}") from None

    return scores("json_schema", completions, score, log_malformed)


def _text_of(place: int, schema: Any) -> str:
    """Equal schemas have equal texts, so that each is checked once."""
    if isinstance(schema, str):
        return schema
    if not isinstance(schema, Mapping):
        raise ValueError(f"sample {place}: a schema is an object or its JSON, not {type(schema).__name__}")
    try:
        return json.dumps(_plain(schema), sort_keys=True)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"sample {place}: the schema cannot be written as JSON: {error}") from None


def _plain(value: Any) -> Any:
    """Mappings of configurations as dictionaries."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


@lru_cache(maxsize=1024)
def _validator(text: str) -> Validator:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the schema {text!r:.100} is no JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ValueError(f"the schema {text!r:.100} is no object: one that allows anything pays for anything")
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"the schema {text!r:.100} is none: {error.message} at {error.json_path}") from None
    return kind(schema, registry=Registry())  # its own registry downloads nothing, the default one would


def _json_of(completion: str) -> str:
    fences = list(_FENCE.finditer(completion))
    if not fences:
        return completion.strip()
    if len(fences) != 2:
        raise Malformed(f"it has {len(fences)} fences of blocks; one block is one answer")
    opening, closing = fences
    if opening[1].lower() not in ("", "json") or closing[1]:
        raise Malformed(f"its block is called {opening[1] or closing[1]!r}, not json")
    return completion[opening.end() : closing.start()].strip()


class _Refused(ValueError):
    pass


def _read(text: str) -> Any:
    """Raises Malformed for what is no JSON, is too large, or says a name twice."""
    if len(text) > LENGTH_LIMIT:
        raise Malformed(f"its JSON has {len(text)} characters, more than {LENGTH_LIMIT}")
    if (depth := _depth(text)) > DEPTH_LIMIT:
        raise Malformed(f"its JSON is {depth} levels deep, more than {DEPTH_LIMIT}")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_number)
    except ValueError as error:
        raise Malformed(f"no JSON: {error}") from None


def _depth(text: str) -> int:
    """The most lists and objects within each other."""
    depth = deepest = 0
    within_text = False
    for match in _SIGNS.finditer(text):
        if match[0] == '"':
            within_text = not within_text
        elif not within_text and len(match[0]) == 1:
            depth += 1 if match[0] in "[{" else -1
            deepest = max(deepest, depth)
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Refused("an object has a name twice")
    return found


def _constant(name: str) -> Any:
    raise _Refused(f"{name} is no value of JSON")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"{text:.40} is beyond the numbers")
    return value
