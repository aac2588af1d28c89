"""The program's own process: everything here may be changed or imitated by the program, whose answer it is anyway."""

from __future__ import annotations

import atexit
import builtins
import json
import os
import sys
import types
from typing import Any

from .equality import with_plain_equality
from .frames import read_frame, write, write_frame
from .values import NotData, decode, encode

LOADED = b"loaded\n"
_TEXT = 300
"""Characters of an exception's text that are told."""
_VALUE = 8192
"""Characters of a value that a program defines, to be known to tests that run apart."""


def run_script(header: dict[str, Any], telling: int) -> None:
    """As `python program.py` would."""
    try:
        _load(header)
    except SystemExit as error:
        if error.code not in (None, 0):
            return _tell(telling, "exception", f"SystemExit: {error.code!s:.{_TEXT}}")
    except BaseException as error:
        return _tell_of(telling, error)
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()  # waits for threads, as Python does at its end
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException as error:
        return _tell_of(telling, error)
    _tell(telling, "done", "")


def run_call(header: dict[str, Any], call: dict[str, Any], telling: int) -> None:
    """One call of one function, or of the method of that name of a class `Solution`."""
    try:
        namespace = _load(header)
        name = call["function"]
        if name not in namespace and isinstance(namespace.get("Solution"), type):
            function = getattr(namespace["Solution"](), name)
        else:
            function = namespace[name]
        result = function(*[decode(each) for each in call["arguments"]])
        _tell(telling, "done", "", json.dumps(encode(result)))
    except NotData as error:
        _tell(telling, "not_data", str(error))
    except BaseException as error:
        _tell_of(telling, error)


def serve(header: dict[str, Any], asked: int, answering: int) -> None:
    """Load the program, say what it defines, then call what is asked for, until nobody asks."""
    try:
        namespace = _load(header)
    except BaseException as error:
        return write_frame(answering, _raised(error))
    write_frame(answering, _defined(namespace))
    while True:
        asks = read_frame(asked)
        try:
            arguments = [decode(each) for each in asks["arguments"]]
            named = {name: decode(each) for name, each in asks["named"].items()}
            result = encode(namespace[asks["name"]](*arguments, **named))
            after = [encode(each) if isinstance(each, list | dict | set) else None for each in arguments]
            changed = [new if new != old else None for new, old in zip(after, asks["arguments"], strict=True)]
            write_frame(answering, {"result": result, "arguments": changed})
        except NotData as error:
            write_frame(answering, {"not_data": str(error)})
        except BaseException as error:
            write_frame(answering, _raised(error))


def run_tests(header: dict[str, Any], asked: int, telling: int) -> None:
    """Load the program, then tests into its own namespace. The obvious tricks fail: what it changed of Python's own
    names and what it traces is undone, and an object that claims to equal everything is compared as data."""
    kept = dict(builtins.__dict__)
    run, make, read = exec, compile, read_frame
    tell, tell_of = _tell, _tell_of
    try:
        namespace = _load(header)
    except BaseException as error:
        return _tell_of(telling, error)
    os.write(telling, LOADED)
    frame = read(asked)
    builtins.__dict__.clear()
    builtins.__dict__.update(kept)
    sys.settrace(None)
    sys.setprofile(None)
    namespace["__builtins__"] = kept
    try:
        run(make(frame["setup"], "setup.py", "exec", dont_inherit=True), namespace)
        run(with_plain_equality(frame["test"], namespace), namespace)
    except AssertionError as error:
        return tell(telling, "failed", str(error)[:_TEXT])
    except BaseException as error:
        return tell_of(telling, error)
    tell(telling, "done", "", frame["nonce"])


def _load(header: dict[str, Any]) -> dict[str, Any]:
    """The names that the program defines, once it has run."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = ["program.py"]
    exec(compile(header["program"], "program.py", "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def _defined(namespace: dict[str, Any]) -> dict[str, Any]:
    """What tests may name: what can be called, plain values, and modules of the standard library."""
    defined: dict[str, Any] = {"callables": [], "values": {}, "modules": {}}
    for name, value in list(namespace.items()):
        if not isinstance(name, str) or (name.startswith("__") and name.endswith("__")):
            continue
        if isinstance(value, types.ModuleType):
            defined["modules"][name] = value.__name__
        elif callable(value):
            defined["callables"].append(name)
        elif not hasattr(type(value), "__next__"):
            try:
                encoded = encode(value)
                if len(json.dumps(encoded)) < _VALUE:
                    defined["values"][name] = encoded
            except NotData:
                continue
    return defined


def _raised(error: BaseException) -> dict[str, Any]:
    return {"raised": [each.__name__ for each in type(error).__mro__], "text": _text(error)}


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:_TEXT]
    except BaseException:  # its own text cannot be made
        return type(error).__name__[:_TEXT]


def _tell_of(telling: int, error: BaseException) -> None:
    _tell(telling, "memory" if isinstance(error, MemoryError) else "exception", _text(error))


def _tell(telling: int, kind: str, text: str, answer: str = "") -> None:
    write(telling, json.dumps({"kind": kind, "text": text, "answer": answer}).encode())
