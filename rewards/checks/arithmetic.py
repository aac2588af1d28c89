"""The value of an expression of whole numbers, exactly and without running it: + - * / and parentheses."""

from __future__ import annotations

import ast
import re
from fractions import Fraction

from rewards.checks.answers import Malformed

LENGTH_LIMIT = 500
"""Characters of an expression: what they can hold multiplies to no more than as many digits."""

_SIGNS = re.compile(r"[0-9+\-*/()\s]+")
_NUMBER = re.compile(r"[0-9]+")


def numbers_of(expression: str) -> list[int]:
    """The whole numbers that are written in it, in order."""
    return [int(digits) for digits in _NUMBER.findall(expression)]


def value_of(expression: str) -> Fraction | None:
    """The value; None where it divides by zero.

    Raises:
        Malformed: it is too long or no such expression. Powers (`**`), floor divisions (`//`) and points are none.
    """
    if len(expression) > LENGTH_LIMIT:
        raise Malformed(f"the expression has {len(expression)} characters, more than {LENGTH_LIMIT}")
    if not _SIGNS.fullmatch(expression):
        raise Malformed("it is no expression of whole numbers, + - * / and parentheses")
    try:
        return _value(ast.parse(" ".join(expression.split()), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise Malformed(f"the expression cannot be read: {error}") from None
    except ZeroDivisionError:
        return None


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int(number)):
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left) + _value(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _value(left) - _value(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left) * _value(right)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _value(left) / _value(right)
    raise Malformed("only + - * / are counted with")
