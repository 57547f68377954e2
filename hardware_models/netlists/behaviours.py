"""Behavioural sources in general: an expression of voltages and currents, with its slopes, for Newton's method.

An expression is kept as text that ngspice reads too, parameters and functions written out. Its functions are those
of ngspice's B sources, and mean what they mean there: x**y, x^y and pow(x, y) are |x|**y, pwr(x, y) keeps the sign
of x, a step u(0) is 0.5, and exp ends at 1e99.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from physics_ep.errors import InputError

from .expressions import is_probe, syntax_tree
from .values import RANDOM, Scope, number

Array = np.ndarray

HIGHEST_EXPONENT = 227.9559242
"""Argument from which exp is 1e99, as in ngspice."""


class Dual(NamedTuple):
    """Values (B,) and their derivatives by the probes (B, k)."""

    value: Array
    slope: Array


def _chain(function: Callable[[Array], Array], slope: Callable[[Array], Array]) -> Callable[[Dual], Dual]:
    return lambda x: Dual(function(x.value), slope(x.value)[:, None] * x.slope)


def _flat(function: Callable[[Array], Array]) -> Callable[[Dual], Dual]:
    return _chain(function, np.zeros_like)


def _exp(x: Array) -> Array:
    return np.where(x < HIGHEST_EXPONENT, np.exp(np.minimum(x, HIGHEST_EXPONENT)), 1e99)


FUNCTIONS: dict[str, Callable[[Dual], Dual]] = {
    "sin": _chain(np.sin, np.cos),
    "cos": _chain(np.cos, lambda x: -np.sin(x)),
    "tan": _chain(np.tan, lambda x: 1 / np.cos(x) ** 2),
    "asin": _chain(np.arcsin, lambda x: 1 / np.sqrt(1 - x * x)),
    "acos": _chain(np.arccos, lambda x: -1 / np.sqrt(1 - x * x)),
    "atan": _chain(np.arctan, lambda x: 1 / (1 + x * x)),
    "sinh": _chain(np.sinh, np.cosh),
    "cosh": _chain(np.cosh, np.sinh),
    "tanh": _chain(np.tanh, lambda x: 1 / np.cosh(np.clip(x, -350, 350)) ** 2),
    "asinh": _chain(np.arcsinh, lambda x: 1 / np.sqrt(1 + x * x)),
    "acosh": _chain(np.arccosh, lambda x: 1 / np.sqrt(x * x - 1)),
    "atanh": _chain(np.arctanh, lambda x: 1 / (1 - x * x)),
    "exp": _chain(_exp, lambda x: np.where(x < HIGHEST_EXPONENT, _exp(x), 0.0)),
    "ln": _chain(np.log, lambda x: 1 / x),
    "log": _chain(np.log, lambda x: 1 / x),
    "log10": _chain(np.log10, lambda x: 1 / (x * math.log(10))),
    "sqrt": _chain(np.sqrt, lambda x: 0.5 / np.sqrt(np.maximum(x, 1e-30))),
    "abs": _chain(np.abs, np.sign),
    "u": _flat(lambda x: np.where(x == 0, 0.5, (x > 0) * 1.0)),
    "u2": _chain(lambda x: np.clip(x, 0, 1), lambda x: ((x > 0) & (x < 1)) * 1.0),
    "uramp": _chain(lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
    "sgn": _flat(np.sign),
    "floor": _flat(np.floor),
    "ceil": _flat(np.ceil),
    "nint": _flat(np.rint),
}
"""Functions of one argument."""
_PAIRS = ("min", "max", "pow", "pwr")
_IN_TIME = ("ddt", "idt", "sdt", "idtmod", "delay", "time", "hertz")
_COMPARED: dict[type, tuple[str, Callable[[Array, Array], Array]]] = {
    ast.Lt: ("<", np.less),
    ast.LtE: ("<=", np.less_equal),
    ast.Gt: (">", np.greater),
    ast.GtE: (">=", np.greater_equal),
    ast.Eq: ("==", np.equal),
    ast.NotEq: ("!=", np.not_equal),
}
_SIGNS: dict[type, tuple[str, int]] = {ast.Add: ("+", 4), ast.Sub: ("-", 4), ast.Mult: ("*", 5), ast.Div: ("/", 5)}
_POWER, _SIGN, _LEAST = 7, 6, 0


def _power(x: Dual, y: Dual, signed: bool) -> Dual:
    """|x|**y, with the sign of x where `signed`."""
    size, sign = np.abs(x.value), np.sign(x.value)
    kept = sign if signed else 1.0
    found = size**y.value * kept
    by_size = np.where(y.value == 0, 0.0, y.value * size ** (y.value - 1)) * (1.0 if signed else sign)
    by_power = np.where(size > 0, found * np.log(np.where(size > 0, size, 1.0)), 0.0)
    constant = not y.slope.any()
    slope = by_size[:, None] * x.slope
    return Dual(found, slope if constant else slope + by_power[:, None] * y.slope)


class Behaviour:
    """What a behavioural source computes.

    Parameters
    ----------
    text : str
        An expression as `written` returns it: without parameters and without functions of .func.

    Attributes
    ----------
    probes : tuple of (str, tuple of str)
        "v" and one or two nodes, or "i" and a part: what the expression is a function of.

    Raises
    ------
    InputError
        If the text cannot be read, or has a function that no source has.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._found: dict[tuple[str, tuple[str, ...]], int] = {}
        try:
            self._function = self._compiled(syntax_tree(text, number))
        except RecursionError:
            raise InputError(f"expression {text[:50]!r}... has too many operators") from None
        self.probes = tuple(self._found)

    def __reduce__(self) -> tuple[type[Behaviour], tuple[str]]:
        return Behaviour, (self.text,)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes whose voltages it reads."""
        return tuple(name for kind, names in self.probes if kind == "v" for name in names)

    def __call__(self, at: Array) -> Dual:
        """Value (B,) and slopes (B, k) where the probes have these voltages and currents (B, k).

        Where the expression is not defined (the logarithm of a voltage that is not positive), both are 0, for
        Newton's method to go on from there; `defined` tells.
        """
        with np.errstate(all="ignore"):
            value, slope = self._function(at)
        if np.isfinite(value).all() and np.isfinite(slope).all():
            return Dual(value, slope)
        return Dual(np.where(np.isfinite(value), value, 0.0), np.where(np.isfinite(slope), slope, 0.0))

    def defined(self, at: Array) -> Array:
        """Whether the expression has a finite value there, (B,)."""
        with np.errstate(all="ignore"):
            return np.isfinite(self._function(at).value)

    def _compiled(self, node: ast.AST) -> Callable[[Array], Dual]:
        if is_probe(node):
            assert isinstance(node, ast.Call)
            assert isinstance(node.func, ast.Name)
            key = node.func.id, tuple(str(a.value) for a in node.args if isinstance(a, ast.Constant))
            place = self._found.setdefault(key, len(self._found))

            def probe(at: Array) -> Dual:
                slope = np.zeros_like(at)
                slope[:, place] = 1.0
                return Dual(at[:, place], slope)

            return probe
        if isinstance(node, ast.Constant):
            value = float(node.value)  # type: ignore[arg-type]
            return lambda at: Dual(np.full(len(at), value), np.zeros_like(at))
        if isinstance(node, ast.UnaryOp):
            inner = self._compiled(node.operand)
            if isinstance(node.op, ast.Not):
                return lambda at: Dual((inner(at).value == 0) * 1.0, np.zeros_like(at))
            sign = -1.0 if isinstance(node.op, ast.USub) else 1.0
            return lambda at: Dual(*(sign * part for part in inner(at)))
        if isinstance(node, ast.BinOp):
            return _joined(node.op, self._compiled(node.left), self._compiled(node.right))
        if isinstance(node, ast.Compare):
            first, second = self._compiled(node.left), self._compiled(node.comparators[0])
            _, compared = _COMPARED[type(node.ops[0])]
            return lambda at: Dual(compared(first(at).value, second(at).value) * 1.0, np.zeros_like(at))
        if isinstance(node, ast.BoolOp):
            every = [self._compiled(n) for n in node.values]
            joined = np.logical_or if isinstance(node.op, ast.Or) else np.logical_and
            return lambda at: Dual(joined.reduce([one(at).value != 0 for one in every]) * 1.0, np.zeros_like(at))
        if isinstance(node, ast.IfExp):
            test, one, other = (self._compiled(n) for n in (node.test, node.body, node.orelse))

            def choice(at: Array) -> Dual:
                yes, a, b = test(at).value != 0, one(at), other(at)
                return Dual(np.where(yes, a.value, b.value), np.where(yes[:, None], a.slope, b.slope))

            return choice
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._called(node.func.id.lower(), [self._compiled(a) for a in node.args])
        raise InputError(f"expression {self.text!r} is not made of numbers, voltages, currents and functions")

    def _called(self, name: str, given: list[Callable[[Array], Dual]]) -> Callable[[Array], Dual]:
        check_function(name, len(given), self.text)
        if name in FUNCTIONS:
            function, (inner,) = FUNCTIONS[name], given
            return lambda at: function(inner(at))
        first, second = given
        if name in ("pow", "pwr"):
            return lambda at: _power(first(at), second(at), name == "pwr")

        def extreme(at: Array) -> Dual:
            a, b = first(at), second(at)
            ahead = a.value <= b.value if name == "min" else a.value >= b.value
            return Dual(np.where(ahead, a.value, b.value), np.where(ahead[:, None], a.slope, b.slope))

        return extreme


def check_function(name: str, count: int, text: str) -> None:
    """Raise InputError where behavioural sources have no function of this name and number of arguments."""
    if name in RANDOM:
        why = "is a random number in ngspice: min(max(x, low), high) limits" if name == "limit" else "is random"
        raise InputError(f"function {name!r} in {text!r} {why}")
    if name in _IN_TIME:
        raise InputError(
            f"{name!r} in {text!r} is not read: capacitors, inductors and waveforms are what depends on time here"
        )
    if name not in FUNCTIONS and name not in _PAIRS:
        known = ", ".join(sorted({*FUNCTIONS, *_PAIRS, "if"}))
        raise InputError(f"function {name!r} in {text!r} is not known to B sources, which have {known}")
    wanted = 2 if name in _PAIRS else 1
    if count != wanted:
        raise InputError(f"function {name!r} in {text!r} has {wanted} argument(s), but {count} are given")


def _joined(
    op: ast.operator, left: Callable[[Array], Dual], right: Callable[[Array], Dual]
) -> Callable[[Array], Dual]:
    if isinstance(op, ast.Pow):
        return lambda at: _power(left(at), right(at), False)

    def joined(at: Array) -> Dual:
        (a, da), (b, db) = left(at), right(at)
        if isinstance(op, ast.Add):
            return Dual(a + b, da + db)
        if isinstance(op, ast.Sub):
            return Dual(a - b, da - db)
        if isinstance(op, ast.Mult):
            return Dual(a * b, da * b[:, None] + a[:, None] * db)
        return Dual(a / b, (da - (a / b)[:, None] * db) / b[:, None])

    return joined


def written(tree: ast.AST, scope: Scope, node: Callable[[str], str], part: Callable[[str], str], text: str) -> str:
    """Text of an expression, with numbers for parameters and the circuit's names for nodes and parts.

    Parameters
    ----------
    tree : ast.AST
        The expression that `Functions.expanded` returned.
    scope : Scope
        The parameters that the expression may name.
    node, part : callable (str) -> str
        Name in the circuit of a node and of a part that the expression names.
    text : str
        The expression, for messages.
    """

    def write(tree: ast.AST, least: int) -> str:
        found, strength = term(tree)
        return found if strength >= least else f"({found})"

    def term(tree: ast.AST) -> tuple[str, int]:
        if is_probe(tree):
            assert isinstance(tree, ast.Call)
            assert isinstance(tree.func, ast.Name)
            names = [str(a.value) for a in tree.args if isinstance(a, ast.Constant)]
            kind = tree.func.id
            if kind == "i" and len(names) > 1:
                raise InputError(f"i({', '.join(names)}) must name one part")
            return f"{kind}({','.join((node if kind == 'v' else part)(n) for n in names)})", 9
        if isinstance(tree, ast.Constant):
            return _figure(float(tree.value))  # type: ignore[arg-type]
        if isinstance(tree, ast.Name):
            low = tree.id.lower()
            if low in _IN_TIME:
                check_function(low, 0, text)
            if low == "e" and not scope.knows(low):
                return _figure(math.e)
            return _figure(scope.lookup(low))
        if isinstance(tree, ast.UnaryOp):
            sign = "!" if isinstance(tree.op, ast.Not) else "-" if isinstance(tree.op, ast.USub) else ""
            return f"{sign}({write(tree.operand, _LEAST)})", (9 if sign == "!" else 4)
        if isinstance(tree, ast.BinOp):
            if isinstance(tree.op, ast.Pow):
                return f"pow({write(tree.left, _LEAST)},{write(tree.right, _LEAST)})", 9
            sign, strength = _SIGNS[type(tree.op)]
            return f"{write(tree.left, strength)}{sign}{write(tree.right, strength + 1)}", strength
        if isinstance(tree, ast.Compare):
            sign, _ = _COMPARED[type(tree.ops[0])]
            return f"{write(tree.left, 4)}{sign}{write(tree.comparators[0], 4)}", 3
        if isinstance(tree, ast.BoolOp):
            sign, strength = ("||", 1) if isinstance(tree.op, ast.Or) else ("&&", 2)
            return sign.join(write(n, strength + (k > 0)) for k, n in enumerate(tree.values)), strength
        if isinstance(tree, ast.IfExp):
            test, one, other = (write(n, _LEAST) for n in (tree.test, tree.body, tree.orelse))
            return f"ternary_fcn({test},{one},{other})", 9
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
            name = tree.func.id.lower()
            check_function(name, len(tree.args), text)
            return f"{name}({','.join(write(a, _LEAST) for a in tree.args)})", 9
        raise InputError(f"expression {text!r} is not made of numbers, voltages, currents and functions")

    return write(tree, _LEAST)


def _figure(value: float) -> tuple[str, int]:
    """A number's text and how it binds."""
    if not math.isfinite(value):
        raise InputError("a number is not finite")
    return repr(value), 9 if math.copysign(1.0, value) > 0 else 4


def renamed(text: str, known: dict[str, str], parts: dict[str, str]) -> str:
    """An expression with node and part names as they are spelled in the circuit, by their names in lower case.

    Raises
    ------
    InputError
        If it reads a node or part that is not there.
    """

    def node(name: str) -> str:
        if name.lower() not in known:
            raise InputError(f"no part touches the node {name!r} that {text!r} reads")
        return known[name.lower()]

    def part(name: str) -> str:
        if name.lower() not in parts:
            known_names = ", ".join(parts.values()) or "none"
            raise InputError(
                f"{text!r} reads the current of {name!r}, which must be a voltage source or another part that sets "
                f"a voltage (there are: {known_names})"
            )
        return parts[name.lower()]

    return written(syntax_tree(text, number), Scope(), node, part, text)
