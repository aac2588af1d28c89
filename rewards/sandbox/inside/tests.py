"""The process of the tests: it holds them, and calls the program, which runs in another process, by name.

What comes back is plain data, so that an object of the program compares nothing and says nothing of itself; a program
that ends its process ends its own.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from .frames import read_frame, write_frame
from .values import NotData, decode, encode


class ProgramRaised(Exception):
    """The program raised something that is no exception of Python's own."""


class _Over(Exception):
    """What ends the tests, whatever they catch, with a kind of its own."""


class _Program:
    """The functions of the program, to whoever calls them here."""

    def __init__(self, asking: int, answered: int, most: int) -> None:
        self._asking, self._answered, self._most = asking, answered, most
        self.ended: tuple[str, str] | None = None
        """Why no call can be answered as it should be: kind and text. Tests may catch what is raised, not this."""

    def read(self) -> dict[str, Any]:
        try:
            return read_frame(self._answered, self._most)
        except EOFError:
            raise self.over("lost", "the program's process ended") from None
        except (ValueError, RecursionError) as error:
            raise self.over("output", str(error)) from None

    def over(self, kind: str, text: str) -> _Over:
        self.ended = self.ended or (kind, text)
        return _Over(text)

    def function(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            return self._call(name, arguments, named)

        call.__name__ = call.__qualname__ = name
        return call

    def _call(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            asks = {
                "name": name,
                "arguments": [encode(each) for each in arguments],
                "named": {key: encode(each) for key, each in named.items()},
            }
        except NotData as error:
            raise self.over("tests_not_data", f"the tests pass {error} to {name}") from None
        try:
            write_frame(self._asking, asks)
        except BrokenPipeError:
            raise self.over("lost", "the program's process ended") from None
        reply = self.read()
        try:
            if "raised" in reply:
                raise self.as_exception(reply)
            if "not_data" in reply:
                raise self.over("not_data", f"{name} returned {reply['not_data']!s:.200}")
            for argument, after in zip(arguments, reply["arguments"], strict=True):
                _update(argument, after)
            return decode(reply["result"])
        except (KeyError, TypeError, NotData, RecursionError) as error:
            if "raised" in reply:
                raise
            raise self.over("not_data", f"{type(error).__name__}: {error}"[:200]) from None

    def as_exception(self, reply: dict[str, Any]) -> BaseException:
        """The nearest of Python's own exceptions that tests may expect."""
        text = str(reply.get("text"))[:300]
        names = reply["raised"] if isinstance(reply["raised"], list) else []
        if "MemoryError" in names:
            return self.over("memory", text)
        for name in names:
            kind = getattr(builtins, name, None) if isinstance(name, str) else None
            if isinstance(kind, type) and issubclass(kind, Exception) and kind not in (Exception, AssertionError):
                try:
                    return kind(text)
                except TypeError:  # one that wants more than a text
                    continue
        return ProgramRaised(text)


def _update(argument: Any, after: Any) -> None:
    """What a function did to its argument, here too."""
    if after is None or not isinstance(argument, list | dict | set):
        return
    new = decode(after)
    if type(new) is type(argument) and new != argument:
        if isinstance(argument, list):
            argument[:] = new
        else:
            argument.clear()
            argument.update(new)


def run(header: dict[str, Any], test: dict[str, Any], asking: int, answered: int, telling: int, most: int) -> None:
    """Run the tests and tell how they ended: done, failed, exception, or what else came in between."""
    program = _Program(asking, answered, most)
    kind, text = "done", ""
    try:
        defined = program.read()
        if "raised" in defined:
            raise program.as_exception(defined)
        namespace = _namespace(program, defined, test)
        exec(compile(test["setup"], "setup.py", "exec", dont_inherit=True), namespace)
        exec(compile(test["test"], "tests.py", "exec", dont_inherit=True), namespace)
    except AssertionError:  # whose text may say what was expected: it goes into no memory of which programs are made
        kind, text = "failed", ""
    except BaseException as error:  # of the program, or of tests that expect another one
        kind, text = "exception", type(error).__name__
    if program.ended is not None:
        kind, text = program.ended
    os.write(telling, json.dumps({"kind": kind, "text": text, "answer": ""}).encode())


def _namespace(program: _Program, defined: dict[str, Any], test: dict[str, Any]) -> dict[str, Any]:
    names = [name for name in defined["callables"] if isinstance(name, str)]
    own = [name for name in names if not hasattr(builtins, name)]
    called = {node.id for node in ast.walk(ast.parse(test["test"])) if isinstance(node, ast.Name)}
    # A program's `abs` must not be the tests' `abs`, unless that is what they are about.
    taken = own if called & {*own} else names
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for name, module in defined["modules"].items():
        if isinstance(module, str) and module.partition(".")[0] in sys.stdlib_module_names:
            namespace[name] = importlib.import_module(module)
    for name, value in defined["values"].items():
        if not hasattr(builtins, name):
            namespace[name] = decode(value)
    return namespace | {name: program.function(name) for name in taken}
