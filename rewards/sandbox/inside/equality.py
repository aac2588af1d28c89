"""Tests in the program's own process, compiled so that its objects do not say themselves what they equal."""

from __future__ import annotations

import ast
from typing import Any

from .values import NotData, decode, encode


def with_plain_equality(test: str, namespace: dict[str, Any]) -> Any:
    """The tests compiled so that `==` in an assertion, between something and plain data, is of data on both sides."""
    tree = ast.parse(test)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            node.test = _Equality().visit(node.test)
    namespace["__plainly_equal__"] = _plainly_equal
    return compile(ast.fix_missing_locations(tree), "tests.py", "exec", dont_inherit=True)


class _Equality(ast.NodeTransformer):
    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq):
            name = ast.Name("__plainly_equal__", ast.Load())
            return ast.Call(name, [node.left, node.comparators[0]], [])
        return node


def _plainly_equal(left: Any, right: Any) -> Any:
    plain: tuple[type, ...] = (bool, int, float, str, bytes, complex, list, tuple, set, frozenset, dict, type(None))
    if type(left) in plain or type(right) in plain:
        try:
            return decode(encode(left)) == decode(encode(right))
        except NotData:
            return False
    return left == right
