"""Behavioural sources and waveforms of netlists.

A B source is understood by what it computes, not by how it is spelled: its expression is brought into the form
constant + linear terms + sum of ramps max(..., 0) + sum of sinh(...), in exact rational arithmetic, and then
compared with what the parts of this package compute. What fits none is a behavioural source, which keeps its
expression (`behaviours`).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

from physics_ep.errors import InputError

from .expressions import is_probe
from .parts import GROUND, KINDS
from .pulses import Decay, Pulse, Sine, Waveform
from .values import FUNCTIONS, Scope

Linear = dict[str, Fraction]
"""Node (lower case) to coefficient; ground is left out."""


@dataclass(frozen=True)
class Form:
    """constant + linear + sum scale * max(argument, 0) + sum scale * sinh(argument)."""

    constant: Fraction = Fraction(0)
    linear: Linear = field(default_factory=dict)
    ramps: tuple[tuple[Fraction, Form], ...] = ()
    sinhs: tuple[tuple[Fraction, Form], ...] = ()

    def plus(self, other: Form) -> Form:
        """The sum of two forms."""
        linear = dict(self.linear)
        for node, c in other.linear.items():
            linear[node] = linear.get(node, Fraction(0)) + c
        linear = {n: c for n, c in linear.items() if c}
        return Form(self.constant + other.constant, linear, self.ramps + other.ramps, self.sinhs + other.sinhs)

    def times(self, factor: Fraction) -> Form:
        """The waveform multiplied by a number."""
        return Form(
            self.constant * factor,
            {n: c * factor for n, c in self.linear.items()},
            tuple((s * factor, a) for s, a in self.ramps),
            tuple((s * factor, a) for s, a in self.sinhs),
        )

    @property
    def is_affine(self) -> bool:
        return not self.ramps and not self.sinhs

    @property
    def is_constant(self) -> bool:
        return self.is_affine and not self.linear


class NoFormError(Exception):
    """Raised for an expression that no simple part computes."""


def behaviour(
    quantity: str, tree: ast.expr, text: str, nodes: tuple[str, str], scope: Scope
) -> tuple[str, list[str], list] | None:
    """Kind, nodes and values of the part that a behavioural source is; None where no simple part computes it.

    Parameters
    ----------
    quantity : str
        "v" or "i": what the expression gives, volts across or amperes through.
    tree : ast.expr
        The expression (`Functions.expanded`).
    text : str
        The expression as written.
    nodes : (str, str)
        Its terminals.
    scope : Scope

    Returns
    -------
    kind : str
    nodes : list of str
    values : list of float

    Raises
    ------
    InputError
        If a parameter is not defined, or a number is not finite.
    """
    try:
        form = _Expression(tree, text, scope).form
    except NoFormError:
        return None
    first, second = nodes
    if form.is_constant:
        return ("voltage_source" if quantity == "v" else "current_source"), [first, second], [float(form.constant)]
    if form.is_affine and not form.constant:
        pair, gain = _pair(form.linear)
        if pair:
            return ("vcvs" if quantity == "v" else "vccs"), [first, second, *pair], [float(gain)]
    if quantity == "v" and len(form.ramps) == 1 and not (form.constant or form.linear or form.sinhs):
        scale, argument = form.ramps[0]
        pair, inner = _pair(argument.linear)
        if pair and not argument.constant:
            if inner < 0:
                pair, inner = (pair[1], pair[0]), -inner
            return "rectifier", [first, second, *pair], [float(scale * inner)]
    own = _voltage(first, Fraction(1)).plus(_voltage(second, Fraction(-1))).linear
    if quantity == "i" and own and not form.constant:
        argument = (form.ramps or form.sinhs or ((Fraction(0), Form()),))[0][1]
        factor, leakage = _multiple(argument.linear, own), _multiple(form.linear, own)
        if factor and factor > 0 and leakage is not None:
            if len(form.ramps) == 1 and not form.sinhs:
                on, threshold = form.ramps[0][0] * factor, -argument.constant / factor
                found = [float(on), float(threshold), float(leakage)]
                return ("piecewise_diode", [first, second], found) if _fits("piecewise_diode", found) else None
            if len(form.sinhs) == 1 and not (form.ramps or leakage or argument.constant):
                found = [float(form.sinhs[0][0] * factor), float(1 / factor)]
                return ("memristor", [first, second], found) if _fits("memristor", found) else None
    return None


def _fits(kind: str, values: list[float]) -> bool:
    """Whether a part may have these values."""
    return all(
        least is None or value > least for value, (_, _, least) in zip(values, KINDS[kind].values, strict=True)
    )


def _ramp(argument: Form) -> Form:
    return Form(ramps=((Fraction(1), argument),))


def _voltage(node: str, sign: Fraction) -> Form:
    low = node.lower()
    return Form() if low in (GROUND, "gnd") else Form(linear={low: sign})


def _pair(linear: Linear) -> tuple[tuple[str, str] | None, Fraction]:
    """Control nodes and gain of gain * (v(a) - v(b)); None where it is no such pair."""
    if len(linear) == 1:
        ((node, gain),) = linear.items()
        return (node, GROUND), gain
    if len(linear) == 2:
        (a, first), (b, second) = linear.items()
        if first == -second:
            return (a, b), first
    return None, Fraction(0)


def _multiple(linear: Linear, own: Linear) -> Fraction | None:
    """The number c with linear = c * own; None where there is none."""
    if not linear:
        return Fraction(0)
    if linear.keys() != own.keys():
        return None
    ratios = {linear[n] / own[n] for n in own}
    return ratios.pop() if len(ratios) == 1 else None


class _Expression:
    """An expression of a B source; `form` is what it computes, where simple parts may compute it."""

    def __init__(self, tree: ast.expr, text: str, scope: Scope) -> None:
        self.text, self.scope = text, scope
        try:
            self.form = self.read(tree)
        except RecursionError:
            raise InputError(f"expression {text[:50]!r}... has too many operators") from None

    def read(self, node: ast.AST) -> Form:
        if is_probe(node):
            assert isinstance(node, ast.Call)
            return self.probe(node)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return Form(Fraction(node.value))
        if isinstance(node, ast.Name):
            if not self.scope.knows(node.id) and node.id.lower() not in ("pi", "temper"):
                raise NoFormError
            return Form(Fraction(self.scope.lookup(node.id)))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            return self.read(node.operand).times(Fraction(-1 if isinstance(node.op, ast.USub) else 1))
        if isinstance(node, ast.BinOp):
            return self.binary(node.op, self.read(node.left), self.read(node.right))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self.call(node.func.id.lower(), node.args)
        raise NoFormError

    def probe(self, node: ast.Call) -> Form:
        if not (isinstance(node.func, ast.Name) and node.func.id == "v"):
            raise NoFormError
        found = Form()
        for argument, sign in zip(node.args, (1, -1), strict=False):
            assert isinstance(argument, ast.Constant)
            found = found.plus(_voltage(str(argument.value), Fraction(sign)))
        return found

    def binary(self, op: ast.operator, left: Form, right: Form) -> Form:
        if isinstance(op, ast.Add):
            return left.plus(right)
        if isinstance(op, ast.Sub):
            return left.plus(right.times(Fraction(-1)))
        if isinstance(op, ast.Mult) and left.is_constant:
            return right.times(left.constant)
        if isinstance(op, ast.Mult) and right.is_constant:
            return left.times(right.constant)
        if isinstance(op, ast.Div) and right.is_constant and right.constant:
            return left.times(1 / right.constant)
        if isinstance(op, ast.Pow) and left.is_constant and right.is_constant and left.constant >= 0:
            return Form(Fraction(self.scope.evaluate(f"({float(left.constant)!r})**({float(right.constant)!r})")))
        raise NoFormError

    def call(self, name: str, arguments: list[ast.expr]) -> Form:
        if name not in FUNCTIONS and name != "uramp":
            raise NoFormError
        given = [self.read(a) for a in arguments]
        if given and name not in ("pow", "pwr", "uramp") and all(g.is_constant for g in given):
            inner = ", ".join(repr(float(g.constant)) for g in given)
            return Form(Fraction(self.scope.evaluate(f"{name}({inner})")))
        if name == "max" and len(given) == 2:
            zero = [g.is_constant and not g.constant for g in given]
            if any(zero) and given[zero.index(False)].is_affine:
                return _ramp(given[zero.index(False)])
        if name == "uramp" and len(given) == 1 and given[0].is_affine:
            return _ramp(given[0])
        if name == "sinh" and len(given) == 1 and given[0].is_affine:
            return Form(sinhs=((Fraction(1), given[0]),))
        raise NoFormError


def waveform(name: str, given: list[float], step: Callable[[], float | None]) -> Waveform:
    """A source's waveform.

    Parameters
    ----------
    name : str
        pwl, pulse, sin or exp, in lower case.
    given : list of float
    step : callable () -> float or None
        Step of the transient that the netlist asks for, seconds: what edges of pulses are by default, as in
        SPICE. A width or period that is not given lasts until the end.

    Raises
    ------
    InputError
        If times do not rise, or the waveform is another one.
    """
    if name == "pwl":
        if len(given) < 2 or len(given) % 2:
            raise InputError("PWL must hold pairs of time and value")
        points = tuple(zip(given[::2], given[1::2], strict=True))
        if any(b[0] <= a[0] for a, b in pairwise(points)) or points[0][0] < 0:
            raise InputError("times of PWL must rise from zero")
        return points
    if name == "sin":
        if not 3 <= len(given) <= 6:
            raise InputError(
                "SIN must hold three to six values: offset, amplitude, frequency, delay, damping, phase"
            )
        if not given[2]:
            raise InputError("the frequency of SIN must not be 0 here: write it out")
        return Sine(*given)
    if name == "exp":
        if len(given) != 6:
            raise InputError("EXP must hold six values here: two levels, then delay and time constant of each way")
        return Decay(*given)
    if name != "pulse":
        raise InputError(f"{name.upper()!r} is not read: PWL, PULSE, SIN and EXP are the waveforms here")
    if not 2 <= len(given) <= 8:
        raise InputError("PULSE must hold two to eight values")
    low, high, delay, rise, fall, width, period, count = [*given, *[0.0] * (8 - len(given))]
    if not (rise and fall):
        default = step()
        if not default:
            raise InputError("PULSE needs its edges here, or a .tran line that sets them")
        rise, fall = rise or default, fall or default
    # As in ngspice, 0 stands for what is not given, and fewer than no pulses for pulses without end.
    count = max(count, 0.0)
    if count != int(count):
        raise InputError(f"the number of pulses of PULSE must be a whole number, but was {count:g}")
    return Pulse(low, high, delay, rise, fall, width or math.inf, period or math.inf, int(count))
