"""Expressions of netlists, parsed by SPICE's rules; what they are made of is Python's syntax tree, never code.

Powers (`**`, `^`) go from left to right: 2**3**2 is 64. A sign at the front takes in the powers behind it: -2**2 is
-4. Where ngspice reads .param lines in one way and B sources in another (3*-2**2, 2**-1**2), parentheses are asked
for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from physics_ep.errors import InputError

LONGEST = 10_000
"""Characters."""
DEEPEST = 100
"""Parentheses within one another."""
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?(?:[a-z_]\w*)?)|(?P<name>[a-z_]\w*)|(?P<sign>\*\*|[-+*/^(){},]))",
    re.IGNORECASE,
)
_CLOSING = {"(": ")", "{": "}"}
_SUM: dict[str, ast.operator] = {"+": ast.Add(), "-": ast.Sub()}
_PRODUCT: dict[str, ast.operator] = {"*": ast.Mult(), "/": ast.Div()}


def syntax_tree(expression: str, number: Callable[[str], float]) -> ast.expr:
    """Syntax tree of a SPICE expression.

    Parameters
    ----------
    expression : str
    number : callable (str) -> float
        Value of a number with its scale factor.

    Returns
    -------
    ast.expr
        Of constants, names, binary and unary operators, and calls. Braces are parentheses.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    if len(expression) > LONGEST:
        raise InputError(f"an expression must have at most {LONGEST} characters")
    return _Parser(expression, number).whole()


class _Parser:
    """Takes an expression's words one after the other."""

    def __init__(self, text: str, number: Callable[[str], float]) -> None:
        self.text, self.number = text, number
        self.words: list[tuple[str, str]] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None:
                raise self.error()
            kind = found.lastgroup or ""
            self.words.append((kind, found[kind]))
            at = found.end()
        self.words.append(("end", ""))
        self.at = self.depth = 0

    def error(self) -> InputError:
        return InputError(
            f"expression {self.text!r} cannot be read: it is not arithmetic of numbers, parameters and functions"
        )

    @property
    def next(self) -> str:
        """The next word if it is an operator, parenthesis or comma; else an empty string."""
        kind, word = self.words[self.at]
        return word if kind == "sign" else ""

    def take(self) -> str:
        self.at += 1
        return self.words[self.at - 1][1]

    def whole(self) -> ast.expr:
        found = self.sum()
        if self.words[self.at][0] != "end":
            raise self.error()
        return found

    def sum(self) -> ast.expr:
        self.depth += 1
        if self.depth > DEEPEST:
            raise InputError(f"an expression must have at most {DEEPEST} parentheses within one another")
        left = self.product(first=True)
        while self.next in _SUM:
            operator = _SUM[self.take()]
            left = ast.BinOp(left, operator, self.product(first=False))
        self.depth -= 1
        return left

    def product(self, first: bool) -> ast.expr:
        left = self.signed(first)
        while self.next in _PRODUCT:
            operator = _PRODUCT[self.take()]
            left = ast.BinOp(left, operator, self.signed(False))
        return left

    def sign(self) -> bool | None:
        """Whether signs that come next make a minus; None where there are none."""
        minus = None
        while self.next in _SUM:
            minus = bool(minus) != (self.take() == "-")
        return minus

    def signed(self, first: bool) -> ast.expr:
        minus = self.sign()
        found, powers = self.power()
        if minus and powers and not first:
            raise self.ambiguous()
        return ast.UnaryOp(ast.USub(), found) if minus else found

    def ambiguous(self) -> InputError:
        return InputError(
            f"expression {self.text!r} has a minus between an operator and a power, which ngspice reads in two "
            "ways: it needs parentheses"
        )

    def power(self) -> tuple[ast.expr, int]:
        left, powers = self.primary(), 0
        signed = False
        while self.next in ("**", "^"):
            self.take()
            if signed:
                raise self.ambiguous()
            signed = bool(self.sign())
            exponent = self.primary()
            left = ast.BinOp(left, ast.Pow(), ast.UnaryOp(ast.USub(), exponent) if signed else exponent)
            powers += 1
        return left, powers

    def primary(self) -> ast.expr:
        kind, _ = self.words[self.at]
        if kind == "number":
            return ast.Constant(self.number(self.take()))
        if kind == "name":
            name = ast.Name(self.take(), ast.Load())
            if self.next != "(":
                return name
            self.take()
            arguments = [] if self.next == ")" else [self.sum()]
            while self.next == ",":
                self.take()
                arguments.append(self.sum())
            if self.next != ")":
                raise self.error()
            self.take()
            return ast.Call(name, arguments, [])
        if self.next not in _CLOSING:
            raise self.error()
        closing = _CLOSING[self.take()]
        found = self.sum()
        if self.next != closing:
            raise self.error()
        self.take()
        return found
