"""Numbers and parameter expressions of netlists, read as SPICE reads them.

A number may carry a scale factor and a unit, without a space: 10k, 1meg, 2u, 4.7kohm, 5V. Case does not matter, so
that M and m are both milli and 1e6 is meg. The unit, also the signs of ohm and of degrees, is dropped; since a
scale factor comes first, **1F is one femtofarad**: leave that unit out. The micro sign is u. Letters that are
neither are refused, where SPICE would silently pass over them: 4k7 is 4k in ngspice and 4.7k in LTspice, 3mu is
3 milli in both.

An expression stands in braces or single quotes: `{2*rload}`, with parameters of `.param` lines, functions of
`.func` lines, + - * / ** ^, comparisons and the functions of `FUNCTIONS` (`expressions`). It is evaluated from its
syntax tree, never as code.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
import re
from collections.abc import Callable

from physics_ep.errors import InputError

from .expressions import Functions, is_probe

SCALES = {
    "t": 1e12,
    "g": 1e9,
    "meg": 1e6,
    "k": 1e3,
    "mil": 25.4e-6,
    "m": 1e-3,
    "u": 1e-6,
    "n": 1e-9,
    "p": 1e-12,
    "f": 1e-15,
}
UNITS = {
    *("", "ohm", "ohms", "v", "volt", "volts", "a", "amp", "amps", "ampere", "amperes", "f", "farad", "farads"),
    *("s", "sec", "second", "seconds", "siemens", "mho", "hz", "h", "w", "c", "\xb0c", "\u03c9"),
}


def power(base: float, exponent: float) -> float:
    """base ** exponent, where ngspice agrees: it takes the size of a negative base, so that (-2)**3 is 8.

    Raises
    ------
    ValueError
        If the base is negative and the exponent no even number.
    """
    if base < 0 and exponent % 2:
        raise ValueError("a negative number to a power that is not even, whose sign ngspice leaves out")
    return math.pow(base, exponent)


FUNCTIONS: dict[str, Callable[..., float]] = {
    "sqrt": math.sqrt,
    "exp": math.exp,
    "ln": math.log,
    "log": math.log,
    "log10": math.log10,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "tanh": math.tanh,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "abs": abs,
    "min": min,
    "max": max,
    "pow": power,
    "pwr": power,
    "sqr": lambda x: x * x,
    "int": math.trunc,
    "nint": round,
    "floor": math.floor,
    "ceil": math.ceil,
    "sgn": lambda x: float((x > 0) - (x < 0)),
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
    "arctan": math.atan,
    "asinh": math.asinh,
    "acosh": math.acosh,
    "atanh": math.atanh,
}
"""What ngspice computes with these names in braces. Those of random numbers (agauss, limit, ...) are not read."""
_COMPARISONS: dict[type, Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
RANDOM = ("agauss", "gauss", "unif", "aunif", "limit", "mc", "flat", "rand", "random", "white")
_OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: power,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: lambda x: float(x == 0),
}
_NUMBER = re.compile(
    r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)([a-z_\xb0\xb5\u03bc\u03a9\u2126]\w*)?", re.IGNORECASE
)
_INNER = re.compile(r"([a-z]+?)\d", re.IGNORECASE)


def number(text: str) -> float:
    """Value of a SPICE number such as 10k, 1meg or 4.7kohm.

    Raises
    ------
    InputError
        If it is no number, or letters follow it that are neither scale factor nor unit.
    """
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise InputError(f"{text!r} is not a number, as 1.5k, 2meg and 1e-3 are")
    return float(found[1]) * _scale_of(found[1], found[2]) if found[2] else float(found[1])


def braced_number(text: str) -> float:
    """Value of a number in an expression in braces, where ngspice reads mil as milli.

    Raises
    ------
    InputError
        If the text is no number (`number`), or has the factor mil.
    """
    if text.lower().rstrip("0123456789.+-").endswith("mil"):
        raise InputError(
            f"{text!r} is milli in braces and 25.4 micro elsewhere in ngspice: write {text[:-3]}*25.4u"
        )
    return number(text)


def _scale_of(digits: str, letters: str) -> float:
    scale = _scale(letters)
    if scale:
        return scale
    known = ", ".join(SCALES)
    why = f"unknown scale factor or unit {letters!r} (scale factors: {known}; then ohm, V, F, ...)"
    inner = _INNER.match(letters)
    if letters.lower() == "mu":
        why += f": {digits}{letters} is {digits} milli in SPICE; {digits}u or {digits}m would be read"
    elif inner:
        unit, tail = "" if inner[1].lower() == "r" else inner[1], letters[len(inner[1]) :]
        why += (
            f": {digits}{letters} is {digits}{unit} in ngspice and {digits}.{tail}{unit} in LTspice, and either of "
            "these would be read"
        )
    raise InputError(why)


@functools.cache
def _scale(letters: str) -> float:
    """Scale factor of the letters behind a number; 0 where they are none."""
    low = letters.lower().replace("\xb5", "u").replace("\u03bc", "u")
    for width in (3, 1):
        if low[:width] in SCALES and len(low[:width]) == width:
            return SCALES[low[:width]] if low[width:] in UNITS else 0.0
    return 1.0 if low in UNITS else 0.0


class Scope:
    """Parameters by name, evaluated when they are first asked for, in any order of definition.

    Parameters
    ----------
    definitions : dict of str to str
        Names (lower case) and what was written.
    parent : Scope, optional
        Scope in which missing names are looked up.
    functions : Functions, optional
        Those of .func lines. Default: the parent's.
    """

    def __init__(
        self,
        definitions: dict[str, str] | None = None,
        parent: Scope | None = None,
        functions: Functions | None = None,
    ) -> None:
        self.definitions = definitions or {}
        self.parent = parent
        self.functions: Functions = functions or (parent.functions if parent else Functions())
        self._values: dict[str, float] = {}
        self._open: set[str] = set()

    def lookup(self, name: str) -> float:
        """Value of a parameter.

        Raises
        ------
        InputError
            If it is not defined, or defined by itself.
        """
        name = name.lower()
        if name in self._values:
            return self._values[name]
        if name not in self.definitions:
            if self.parent is not None:
                return self.parent.lookup(name)
            if name == "pi":
                return math.pi
            raise InputError(f"parameter {name!r} is not defined")
        if name in self._open:
            raise InputError(f"parameter {name!r} is defined by itself")
        self._open.add(name)
        try:
            self._values[name] = self.value(self.definitions[name], bare=True)
        finally:
            self._open.discard(name)
        return self._values[name]

    def knows(self, name: str) -> bool:
        """Whether a parameter of this name is defined here or above."""
        return name.lower() in self.definitions or (self.parent is not None and self.parent.knows(name))

    @staticmethod
    def is_number(text: str) -> bool:
        """Whether a text is a number with its unit, and no expression."""
        return _NUMBER.fullmatch(text) is not None

    def value(self, text: str, bare: bool = False) -> float:
        """Value of a number, a parameter, or an expression in braces or quotes (`bare`: or in neither)."""
        if text[:1] in "{'" and text[-1:] in "}'" and len(text) > 2:
            return self.evaluate(text[1:-1])
        if _NUMBER.fullmatch(text):
            return braced_number(text) if bare else number(text)
        if self.knows(text):
            return self.lookup(text)
        if not bare:
            named = f", nor a parameter: .param {text}=VALUE would be read" if text[:1].isalpha() else ""
            raise InputError(f"{text!r} is not a number" + (named or ", as 1.5k, 2meg and 1e-3 are"))
        return self.evaluate(text)

    def evaluate(self, expression: str) -> float:
        """Value of an arithmetic expression of numbers, parameters and functions."""
        try:
            found = self._node(self.functions.expanded(expression, braced_number), expression)
        except RecursionError:
            raise InputError(f"expression {expression[:50]!r}... has too many operators") from None
        if not math.isfinite(found):
            raise InputError(f"expression {expression!r} is not finite")
        return found

    def _node(self, node: ast.AST, text: str) -> float:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return float(node.value)
        if isinstance(node, ast.Name):
            return self.lookup(node.id)
        try:
            if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
                left, right = self._node(node.left, text), self._node(node.right, text)
                found = _OPERATORS[type(node.op)](left, right)
            elif isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
                found = _OPERATORS[type(node.op)](self._node(node.operand, text))
            elif isinstance(node, ast.Compare):
                left, right = self._node(node.left, text), self._node(node.comparators[0], text)
                found = _COMPARISONS[type(node.ops[0])](left, right)
            elif isinstance(node, ast.BoolOp):
                truths = [self._node(n, text) != 0 for n in node.values]
                found = any(truths) if isinstance(node.op, ast.Or) else all(truths)
            elif isinstance(node, ast.IfExp):
                found = self._node(node.body if self._node(node.test, text) else node.orelse, text)
            elif is_probe(node):
                raise InputError(f"{text!r} depends on voltages or currents: only B, E and G sources may")
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
                if node.func.id.lower() in RANDOM:
                    raise InputError(f"{node.func.id!r} in {text!r} draws a random number: a number would be read")
                if node.func.id.lower() not in FUNCTIONS:
                    raise InputError(f"function {node.func.id!r} is not known in {text!r}")
                found = FUNCTIONS[node.func.id.lower()](*(self._node(a, text) for a in node.args))
            else:
                raise InputError(f"expression {text!r} is not arithmetic of numbers, parameters and functions")
        except InputError:
            raise
        except (ArithmeticError, ValueError, TypeError) as error:
            raise InputError(f"expression {text!r} cannot be evaluated: {error}") from error
        return float(found)
