"""Small changes to a module's source, by mutmut's operators, without those that only change a text or a type.

Not mutated, since no behaviour could differ on the machine that runs the tests:

- annotations, aliases of types, imports, decorators and string literals;
- what only explains: `raise ...`, calls of a logger, formatted strings, joined strings, texts given to a call;
- what only asserts: `assert`, and `strict=` of `zip`;
- where tensors live: `device=` and `.to(...device)`, of which a machine without an accelerator has one.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_arg_removal, operator_string

OPERATORS = [(of, operator) for of, operator in mutation_operators if operator is not operator_string]

_TEXT = m.SimpleString() | m.FormattedString() | m.ConcatenatedString()
_JOINED = m.Call(func=m.Attribute(value=m.SimpleString(), attr=m.Name("join")))
_LOGGED = m.Call(func=m.Attribute(value=m.Name("logger")))
_TYPE = m.Subscript(value=m.Name("Callable") | m.Name("tuple") | m.Name("Literal") | m.Name("dict") | m.Name("list"))
_EXPLAINS = m.Annotation() | m.Decorator() | m.Import() | m.ImportFrom() | m.Raise() | m.Assert() | m.FormattedString()
_TEXT_ASSIGNED = m.Assign(value=_TEXT | _JOINED | _TYPE) | m.AnnAssign(value=_TEXT | _JOINED)
_GUARD = m.Arg(keyword=m.Name("strict") | m.Name("device"))
_MOVED = m.Call(func=m.Attribute(attr=m.Name("to")), args=[m.Arg(value=m.Attribute(attr=m.Name("device")))])
_TYPE_CHECKED = m.Call(func=m.Name("len") | m.Name("isinstance"))
_UNTOUCHED = _EXPLAINS | _TEXT_ASSIGNED | _GUARD | _LOGGED | _JOINED


@dataclass(frozen=True)
class Mutant:
    function: str
    """Qualified name of what was changed; "" at the level of the module."""
    line: int
    operator: str
    diff: str
    """Lines that went, "- ", and that came, "+ ", without their indentation: the same wherever the function moves."""
    source: str


@dataclass(frozen=True)
class _Change:
    function: str
    line: int
    operator: str
    node: cst.CSTNode
    replacement: cst.CSTNode


def sample(source: str, count: int, seed: int) -> tuple[list[Mutant], int]:
    """Up to `count` different mutants in the order of the file, and how many changes there were to draw from.

    The operators take turns. A plain draw would be mostly calls without one of their arguments, which any test kills.
    """
    module, changes = _changes(source)
    original = _code(source)
    assert original is not None
    chosen: dict[int, Mutant] = {}
    seen = {original}
    for index in _by_turns(changes, seed):
        if len(chosen) == count:
            break
        change = changes[index]
        changed = module.deep_replace(change.node, change.replacement)
        assert isinstance(changed, cst.Module)
        code = _code(changed.code)
        if code is not None and code not in seen:
            seen.add(code)
            diff = _diff(source, changed.code)
            chosen[index] = Mutant(change.function, change.line, change.operator, diff, changed.code)
    return [chosen[index] for index in sorted(chosen)], len(changes)


def _by_turns(changes: list[_Change], seed: int) -> Iterator[int]:
    generator = random.Random(seed)
    stacks: dict[str, list[int]] = {}
    for index, change in enumerate(changes):
        stacks.setdefault(change.operator, []).append(index)
    for name in sorted(stacks):
        generator.shuffle(stacks[name])
    while stacks:
        for name in sorted(stacks):
            yield stacks[name].pop()
        stacks = {name: stack for name, stack in stacks.items() if stack}


class _Visitor(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[_Change] = []
        self._names: list[str] = []
        self._line = 0

    def on_visit(self, node: cst.CSTNode) -> bool:
        if m.matches(node, _UNTOUCHED):
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._names.append(node.name.value)
        position = self.get_metadata(PositionProvider, node, None)
        self._line = position.start.line if position else self._line
        function = ".".join(self._names)
        self.changes += [_Change(function, self._line, kind, node, changed) for kind, changed in _replacements(node)]
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._names.pop()


def _changes(source: str) -> tuple[cst.Module, list[_Change]]:
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = _Visitor()
    wrapper.visit(visitor)
    return wrapper.module, visitor.changes


def _replacements(node: cst.CSTNode) -> Iterator[tuple[str, cst.CSTNode]]:
    for of, operator in OPERATORS:
        if isinstance(node, of):
            found = _without_arguments(node) if operator is operator_arg_removal else operator(node)
            for changed in found:
                yield operator.__name__.removeprefix("operator_"), changed


def _without_arguments(call: cst.CSTNode) -> Iterator[cst.CSTNode]:
    assert isinstance(call, cst.Call)
    if m.matches(call, _TYPE_CHECKED | _MOVED):
        return
    kept = [argument for argument in call.args if m.matches(argument, _GUARD | m.Arg(value=_TEXT))]
    for changed in operator_arg_removal(call):
        if all(any(argument is other for other in changed.args) for argument in kept):
            yield changed


def _code(source: str) -> tuple[object, ...] | None:
    """What the source compiles to, without its line numbers; None if it does not compile."""
    try:
        return _plain(compile(source, "mutant", "exec", dont_inherit=True))
    except SyntaxError:
        return None


def _plain(code: CodeType) -> tuple[object, ...]:
    constants = tuple(_plain(c) if isinstance(c, CodeType) else (type(c), repr(c)) for c in code.co_consts)
    signature = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags, code.co_varnames
    return code.co_name, code.co_code, constants, code.co_names, signature, code.co_freevars, code.co_cellvars


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in list(lines)[2:] if not line.startswith("@@"))
