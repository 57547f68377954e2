"""Expressions of netlists, parsed by SPICE's rules; what they are made of is Python's syntax tree, never code.

Powers (`**`, `^`) go from left to right: 2**3**2 is 64. A sign at the front takes in the powers behind it: -2**2 is
-4. Where ngspice reads .param lines in one way and B sources in another (3*-2**2, 2**-1**2), parentheses are asked
for. Comparisons, `!`, `&&` and `||` give 1 or 0, and `condition ? one : other` chooses, as does
if(condition, one, other).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

from physics_ep.errors import InputError

LONGEST = 10_000
"""Characters."""
DEEPEST = 100
"""Parentheses within one another."""
MOST_NODES = 20_000
"""Operations of an expression after the functions in it are written out."""
_TOKEN = re.compile(
    r"\s*(?:(?P<probe>[vi]\s*\(\s*[^\s,()]+\s*(?:,\s*[^\s,()]+\s*)?\))|(?P<number>(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?(?:[a-z_]\w*)?)|(?P<name>[a-z_]\w*)|(?P<sign>\*\*|&&|\|\||[<>=!]=|[-+*/^(){},<>?:!]))",
    re.IGNORECASE,
)
_CLOSING = {"(": ")", "{": "}"}
_SUM: dict[str, ast.operator] = {"+": ast.Add(), "-": ast.Sub()}
_PRODUCT: dict[str, ast.operator] = {"*": ast.Mult(), "/": ast.Div()}
_COMPARISON: dict[str, ast.cmpop] = {
    "<": ast.Lt(),
    "<=": ast.LtE(),
    ">": ast.Gt(),
    ">=": ast.GtE(),
    "==": ast.Eq(),
    "!=": ast.NotEq(),
}
_LOOSE = ("", "(", ")", "{", "}", ",", "?", ":")
"""Words beside braces (or none) that leave what is in them one expression without them."""
CHOICES = ("if", "ternary_fcn")
"""Functions (condition, one, other) that are the same as `condition ? one : other`."""


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
        Of constants, names, binary and unary operators, comparisons, choices and calls. Braces are parentheses,
        and refused where ngspice, which drops them, would compute something else;
        v(a,b) and i(V1) are calls whose arguments are constants, the names as written.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    if len(expression) > LONGEST:
        raise InputError(f"an expression must have at most {LONGEST} characters")
    return _Parser(expression, number).whole()


def _probe(text: str) -> ast.Call:
    """v(a), v(a,b) or i(V1) as a call of constants."""
    head, _, names = text.rstrip(")").partition("(")
    return ast.Call(
        ast.Name(head.strip().lower(), ast.Load()), [ast.Constant(n.strip()) for n in names.split(",")], []
    )


def is_probe(node: ast.AST) -> bool:
    """Whether a node of a syntax tree is v(...) or i(...) of names."""
    return (
        isinstance(node, ast.Call)
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    )


class Functions:
    """Functions that .func lines define.

    Attributes
    ----------
    known : dict of str to (tuple of str, str)
        Arguments and expression by name, all in lower case but the expression.
    """

    def __init__(self) -> None:
        self.known: dict[str, tuple[tuple[str, ...], str]] = {}

    def expanded(self, expression: str, number: Callable[[str], float]) -> ast.expr:
        """Syntax tree of an expression, calls of these functions replaced by what they compute.

        Raises
        ------
        InputError
            If it cannot be read, a function has another number of arguments, or calls itself.
        """
        tree = syntax_tree(expression, number)
        return self._expand(tree, {}, (), [MOST_NODES], number) if self.known else tree

    def _expand(
        self,
        node: Any,
        given: dict[str, tuple[ast.expr, int]],
        within: tuple[str, ...],
        left: list[int],
        number: Callable[[str], float],
    ) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise InputError(f"functions of .func grow to more than {MOST_NODES} operations")
        if isinstance(node, ast.Name):
            # An argument counts as often as it stands there: who evaluates the tree goes through each of them.
            found, size = given.get(node.id.lower(), (node, 0))
            left[0] -= size
            return found
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not is_probe(node):
            name = node.func.id.lower()
            arguments, sizes = [], []
            for one in node.args:
                before = left[0]
                arguments.append(self._expand(one, given, within, left, number))
                sizes.append(before - left[0])
            if name not in self.known:
                return ast.Call(node.func, arguments, [])
            names, body = self.known[name]
            if name in within or len(within) > DEEPEST:
                raise InputError(f"function {name!r} calls itself")
            if len(names) != len(arguments):
                raise InputError(f"function {name!r} has {len(names)} arguments, but {len(arguments)} are given")
            inner = dict(zip(names, zip(arguments, sizes, strict=True), strict=True))
            return self._expand(syntax_tree(body, number), inner, (*within, name), left, number)
        if isinstance(node, ast.BinOp):
            parts = (self._expand(n, given, within, left, number) for n in (node.left, node.right))
            return ast.BinOp(next(parts), node.op, next(parts))
        if isinstance(node, ast.UnaryOp):
            return ast.UnaryOp(node.op, self._expand(node.operand, given, within, left, number))
        if isinstance(node, ast.BoolOp):
            return ast.BoolOp(node.op, [self._expand(n, given, within, left, number) for n in node.values])
        if isinstance(node, ast.Compare):
            parts = (self._expand(n, given, within, left, number) for n in (node.left, node.comparators[0]))
            return ast.Compare(next(parts), node.ops, [next(parts)])
        if isinstance(node, ast.IfExp):
            parts = (self._expand(n, given, within, left, number) for n in (node.test, node.body, node.orelse))
            return ast.IfExp(*parts)
        return node


class _Parser:
    """Takes an expression's words one after the other."""

    def __init__(self, text: str, number: Callable[[str], float]) -> None:
        self.text, self.number = text, number
        self.words: list[tuple[str, str]] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None:
                raise self.error(at)
            kind = found.lastgroup or ""
            self.words.append((kind, found[kind]))
            at = found.end()
        self.words.append(("end", ""))
        self.at = self.depth = 0

    def error(self, at: int | None = None) -> InputError:
        """What cannot be read: from a position in the text, or else the next word."""
        word = repr(self.text[at:].lstrip()[:20]) if at is not None else repr(self.words[self.at][1])
        where = "it ends too soon" if word == "''" else f"{word} must not stand there"
        return InputError(
            f"expression {self.text!r} cannot be read, since {where}: it is not arithmetic of numbers, parameters "
            "and functions"
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
        found = self.choice()
        if self.words[self.at][0] != "end":
            raise self.error()
        return found

    def choice(self, first: bool = True) -> ast.expr:
        self.depth += 1
        if self.depth > DEEPEST:
            raise InputError(f"an expression must have at most {DEEPEST} parentheses within one another")
        found = self.either(first)
        if self.next == "?":
            self.take()
            one = self.choice(False)
            if self.next != ":":
                raise self.error()
            self.take()
            found = ast.IfExp(found, one, self.choice(False))
        self.depth -= 1
        return found

    def either(self, first: bool) -> ast.expr:
        left = self.both(first)
        while self.next == "||":
            self.take()
            left = ast.BoolOp(ast.Or(), [left, self.both(False)])
        return left

    def both(self, first: bool) -> ast.expr:
        left = self.comparison(first)
        while self.next == "&&":
            self.take()
            left = ast.BoolOp(ast.And(), [left, self.comparison(False)])
        return left

    def comparison(self, first: bool) -> ast.expr:
        left = self.sum(first)
        if self.next in _COMPARISON:
            operator = _COMPARISON[self.take()]
            left = ast.Compare(left, [operator], [self.sum(False)])
            if self.next in _COMPARISON:
                raise InputError(f"expression {self.text!r} compares three things in a row: it needs parentheses")
        return left

    def sum(self, first: bool) -> ast.expr:
        left = self.product(first)
        while self.next in _SUM:
            operator = _SUM[self.take()]
            left = ast.BinOp(left, operator, self.product(first=False))
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
        if self.next == "!":
            self.take()
            return ast.UnaryOp(ast.Not(), self.primary())
        if kind == "probe":
            return _probe(self.take())
        if kind == "number":
            return ast.Constant(self.number(self.take()))
        if kind == "name":
            name = ast.Name(self.take(), ast.Load())
            if self.next != "(":
                return name
            self.take()
            arguments = [] if self.next == ")" else [self.choice()]
            while self.next == ",":
                self.take()
                arguments.append(self.choice())
            if self.next != ")":
                raise self.error()
            self.take()
            if name.id.lower() in CHOICES:
                return self.chosen(name.id.lower(), arguments)
            return ast.Call(name, arguments, [])
        if self.next not in _CLOSING:
            raise self.error()
        start = self.at
        closing = _CLOSING[self.take()]
        found = self.choice()
        if self.next != closing:
            raise self.error()
        self.take()
        if closing == "}" and not self.may_lose_braces(start, found):
            inner = "".join(word for _, word in self.words[start + 1 : self.at - 1])
            raise InputError(
                f"{{{inner}}} within an expression is no parenthesis in ngspice, which drops the braces (LTspice "
                f"does not): ({inner}) would be read"
            )
        return found

    def may_lose_braces(self, start: int, found: ast.expr) -> bool:
        """Whether braces from a word on, around what was found there, change nothing where they are dropped."""
        inner = self.words[start + 1 : self.at - 1]
        if len(inner) == 1 or isinstance(found, ast.Call):
            return True
        depth, whole = 0, inner[0][1] == "("
        for k, (_, word) in enumerate(inner):
            depth += (word == "(") - (word == ")")
            whole &= depth > 0 or k == len(inner) - 1
        before = self.words[start - 1][1] if start else ""
        if whole or (before in _LOOSE and self.next in _LOOSE):
            return True
        product = isinstance(found, ast.BinOp) and not isinstance(found.op, ast.Add | ast.Sub)
        return product and before not in ("/", "**", "^", "!") and self.next not in ("**", "^")

    def chosen(self, name: str, arguments: list[ast.expr]) -> ast.expr:
        """A choice written as a function. LTspice's if asks whether its condition exceeds 0.5."""
        if len(arguments) != 3:
            raise InputError(f"{name} in {self.text!r} must have a condition and two values")
        condition, one, other = arguments
        if name == "if" and not isinstance(condition, ast.Compare | ast.BoolOp):
            raise InputError(
                f"the condition of if in {self.text!r} must be a comparison, since LTspice asks whether it exceeds "
                "0.5 and ngspice has no if"
            )
        return ast.IfExp(condition, one, other)
