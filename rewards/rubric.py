"""Reward functions in the style of the library verifiers: of one completion, with the arguments that they ask for.

`f(completion, answer, ...) -> float`, or a `verifiers.Rubric` of such functions with weights, become one function with
TRL's signature. What a function raises is raised on: verifiers itself makes a 0 of it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any

FILLED_IN = ("prompt", "completion", "state", "task", "info", "parser")
"""Arguments that need no column. `answer` does: verifiers itself makes an empty one, that no completion is equal to."""
STATE = ("prompt", "completion", "answer", "task", "info")


def in_style_of_verifiers(found: Any) -> bool:
    """Whether it is a rubric, or a function of one `completion`."""
    if _is_rubric(found):
        return True
    try:
        names = set(inspect.signature(found).parameters)
    except (TypeError, ValueError):
        return False
    return "completion" in names and "completions" not in names


class Rubric:
    """Scores a batch: the weighted sum of all functions, N numbers; `named` N for each function, by its name."""

    def __init__(self, found: Any, by_name: bool = False) -> None:
        """
        Args:
            found: a rubric, or one function.

        Raises:
            ValueError: two functions of a rubric have one name.
        """
        self._by_name = by_name
        self._functions, self._weights, self._objects = _parts(found)
        wanted = [p for function in self._functions.values() for p in inspect.signature(function).parameters.values()]
        known = {*FILLED_IN, *self._objects}
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        columns = {p.name: p.default for p in wanted if p.kind in kinds and p.name not in known}
        self.__signature__ = inspect.Signature(
            [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value) for name, value in columns.items()]
            + [inspect.Parameter("columns", inspect.Parameter.VAR_KEYWORD)]
        )

    @property
    def named(self) -> Rubric:
        """The same, which returns scores by the name of their function."""
        return Rubric((self._functions, self._weights, self._objects), by_name=True)

    async def __call__(
        self, prompts: list[Any], completions: list[Any], columns: Mapping[str, list[Any]], args: Mapping[str, Any]
    ) -> Any:
        """
        Args:
            columns: N values each, of which a function gets the sample's.
            args: the term's, of which it gets the whole.
        """
        rows = [
            self._row(prompts[index], completion, {name: values[index] for name, values in columns.items()}, args)
            for index, completion in enumerate(completions)
        ]
        found = {
            name: [_number(name, value) for value in await asyncio.gather(*(_call(function, row) for row in rows))]
            for name, function in self._functions.items()
        }
        if self._by_name:
            return found
        return [sum(self._weights[name] * found[name][index] for name in found) for index in range(len(rows))]

    def _row(self, prompt: Any, completion: Any, columns: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
        row = {"task": "default", "info": {}, **columns, **args, **self._objects}
        row |= {"prompt": prompt, "completion": completion}
        return {**row, "state": {name: row[name] for name in STATE if name in row}}


def _is_rubric(found: Any) -> bool:
    return not isinstance(found, type) and hasattr(found, "get_reward_funcs") and hasattr(found, "get_reward_weights")


def _parts(found: Any) -> tuple[dict[str, Callable[..., Any]], dict[str, float], dict[str, Any]]:
    """Functions and their weights by name, and the objects that they may ask for."""
    if isinstance(found, tuple):
        return found
    if not _is_rubric(found):
        return {getattr(found, "__name__", "function"): found}, {getattr(found, "__name__", "function"): 1.0}, {}
    functions = list(found.get_reward_funcs())
    names = [function.__name__ for function in functions]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"a rubric has two functions called {twice[0]}, whose scores would be one: rename one of them")
    members = [found, *getattr(found, "rubrics", ())]
    objects = {name: each for member in members for name, each in getattr(member, "class_objects", {}).items()}
    weights = dict(zip(names, map(float, found.get_reward_weights()), strict=True))
    return dict(zip(names, functions, strict=True)), weights, objects


def _number(name: str, value: Any) -> float:
    if value is None or isinstance(value, str | bytes):  # a text would be read, and none of it is a score
        raise TypeError(f"{name} returned {value!r:.80}; a number is expected")
    return float(value)


async def _call(function: Callable[..., Any], row: Mapping[str, Any]) -> Any:
    parameters = inspect.signature(function).parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        row = {name: value for name, value in row.items() if name in parameters}
    result = function(**row)
    return await result if inspect.isawaitable(result) else result
