"""pwl(x, x0, y0, x1, y1, ...) of B sources: straight pieces through points, as sums of ramps.

As in ngspice the first and the last piece go on beyond the points. With slopes m_k this is
y0 + m_0 (x - x0) + sum (m_k - m_(k-1)) uramp(x - x_k).
"""

from __future__ import annotations

import ast
from itertools import pairwise

from physics_ep.errors import InputError

from .values import Scope

LARGEST = 2_000
"""Operands that the sums of an expression may have: tables within tables multiply."""


def piecewise(tree: ast.expr, scope: Scope) -> ast.expr:
    """An expression with the tables in it written out.

    Parameters
    ----------
    tree : ast.expr
        The expression (`Functions.expanded`).
    scope : Scope
        The parameters that coordinates may name.

    Raises
    ------
    InputError
        If a table has less than two points or its x do not rise, or the expression becomes too large.
    """
    if not any(isinstance(node, ast.Name) and node.id.lower() == "pwl" for node in ast.walk(tree)):
        return tree
    return _WriteOut(scope).visit(tree)


class _WriteOut(ast.NodeTransformer):
    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.sizes: dict[int, int] = {}

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not (isinstance(node.func, ast.Name) and node.func.id.lower() == "pwl"):
            return node
        x, *coordinates = node.args or [ast.Constant(0)]
        if len(coordinates) < 4 or len(coordinates) % 2:
            raise InputError("pwl must be pwl(x, x0, y0, x1, y1, ...), with two points or more")
        size = (1 + len(coordinates) // 2) * sum(self.sizes.get(id(one), 1) for one in ast.walk(x))
        if size > LARGEST:
            raise InputError("tables within tables are too large: a B source for each would be read")
        numbers = [self.scope.evaluate(ast.unparse(one)) for one in coordinates]
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        if any(not a[0] < b[0] for a, b in pairwise(points)):
            raise InputError("the x of pwl must rise")
        slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(points)]

        def scaled(by: float, over: float, ramp: bool) -> ast.expr:
            moved: ast.expr = ast.BinOp(x, ast.Sub(), _number(over))
            moved = ast.Call(ast.Name("uramp", ast.Load()), [moved], []) if ramp else moved
            return ast.BinOp(_number(by), ast.Mult(), moved)

        terms = [scaled(slopes[0], points[0][0], False)]
        terms += [scaled(b - a, at, True) for (a, b), (at, _) in zip(pairwise(slopes), points[1:], strict=False)]
        found: ast.expr = _number(points[0][1])
        for term in terms:
            found = ast.BinOp(found, ast.Add(), term)
        self.sizes[id(found)] = size
        return found


def _number(value: float) -> ast.expr:
    return ast.Constant(value) if value >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-value))
