"""The choice of units among the values of a recorded forward pass, and the batch's axis in each value.

A unit stands behind every activation, every residual sum, every product with a softmax, and the output; a sum that
only an activation or another sum takes needs none of its own, since a unit stands right behind it. The state of a
recurrent network is a sum or an activation at each step of time.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence

import torch

from ...errors import InputError, argument_error
from .graph import BatchAxis, CallGraph, Node, Ref, UnitPlace
from .recording import ACTIVATIONS

SUMS = {
    *("add", "sub", "__add__", "__radd__", "__sub__", "__rsub__", "rsub", "lerp", "addcmul", "addmm", "baddbmm"),
    *("addbmm", "subtract", "sum_of"),
}
WITH_PRODUCT = {"addmm", "baddbmm", "addbmm", "addcmul", "addmv", "addr"}
"""Sums of their first argument and a product of the others."""
PRODUCTS = {
    *("matmul", "bmm", "mm", "einsum", "__matmul__", "__rmatmul__", "mul", "__mul__", "__rmul__", "baddbmm", "dot"),
    *("multiply", "bilinear", "tensordot"),
}
ATTENTION = {"scaled_dot_product_attention"}
SOFTMAX = {"softmax", "_softmax", "gumbel_softmax"}
CURVED = {
    *("exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "pow", "__pow__", "__rpow__"),
    *(
        "reciprocal",
        "div",
        "__truediv__",
        "__rtruediv__",
        "abs",
        "maximum",
        "minimum",
        "max",
        "min",
        "amax",
        "amin",
    ),
    *(
        "log_softmax",
        "softmax",
        "logsumexp",
        "sinh",
        "cosh",
        "tan",
        "where",
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
    ),
    *("layer_norm", "batch_norm", "group_norm", "instance_norm", "normalize"),
}
"""Other functions that bend: units of models that have none of the former."""
CARRIED = {
    *("dropout", "masked_fill", "to", "float", "double", "type_as", "view", "reshape", "transpose", "permute"),
    *("unsqueeze", "squeeze", "expand", "contiguous", "alpha_dropout", "dropout1d", "dropout2d", "dropout3d"),
    *("feature_dropout", "flatten", "unflatten", "clone", "identity", "T", "mT", "expand_as", "swapaxes"),
}
"""Functions that leave what their argument is: a softmax whose entries are dropped out or reshaped stays one."""


def layouts(
    graphs: Sequence[CallGraph], values: Sequence[Mapping[int, torch.Tensor]], batches: Sequence[int]
) -> tuple[dict[int, BatchAxis], bool]:
    """Find the axis of the batch in each value, and whether examples feel each other.

    Parameters
    ----------
    graphs, values
        Recorded calls of the same model for batches of three sizes; the examples of the last two begin with the
        same two. Their values are compared.
    batches : sequence of int

    Raises
    ------
    InputError
        If the passes differ in more than the size of the batch.
    """
    first = graphs[0]
    kinds = [[(n.kind, n.name) for n in g.nodes] for g in graphs]
    if kinds[0] != kinds[1] or kinds[1] != kinds[2]:
        several = zip(*kinds, strict=False)
        at = next((i for i, calls in enumerate(several) if len(set(calls)) > 1), min(map(len, kinds)) - 1)
        raise argument_error(
            "model",
            "make the same calls for batches of any size",
            f"one whose calls depend on the size of the batch, first at {first.nodes[at].place or 'its beginning'}",
        )
    found: dict[int, BatchAxis] = {}
    differ: dict[int, bool] = {}
    for i, node in enumerate(first.nodes):
        if not node.from_input or any(i not in v for v in values):
            continue
        a, b, c = (v[i] for v in values)
        axes = [d for d in range(c.ndim) if b.ndim == c.ndim and b.shape[d] != c.shape[d]]
        if len(axes) != 1 or not c.is_floating_point():
            continue
        if i != first.output and not bool(c.isfinite().all()):
            continue  # scores that a mask has set to minus infinity
        axis = axes[0]
        inner, left = divmod(c.shape[axis], batches[2])
        if left or not inner or a.shape[axis] % batches[0]:
            continue
        options = [
            BatchAxis(axis, inner, minor, c.ndim == 1 and inner == 1)
            for minor in ((False, True) if inner > 1 else (False,))
        ]
        misses = [_miss(o.block(b), o.block(c)[: batches[1]]) for o in options]
        best = misses.index(min(misses))
        found[i], differ[i] = options[best], misses[best] > 1
    # Random draws of other shapes are other draws: they are expected values here.
    return found, differ.get(first.output, False)


def _miss(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference over what rounding may leave."""
    if one.shape != other.shape:
        return math.inf
    if not one.numel():
        return 0.0
    size = float(torch.nan_to_num(one.detach().abs()).max())
    gap = float(torch.nan_to_num(one.detach() - other.detach()).abs().max())
    return gap / max(30 * math.sqrt(torch.finfo(one.dtype).eps) * size, torch.finfo(one.dtype).tiny)


def choose(graph: CallGraph, where: Mapping[int, BatchAxis], units: str | Sequence[str]) -> tuple[UnitPlace, ...]:
    """Choose which values of a forward pass become units of the network.

    Parameters
    ----------
    graph : CallGraph
    where : mapping of int to BatchAxis
        Number of each value that holds a batch, to where in it the examples stand.
    units : 'auto' or sequence of str
        Names of modules (their outputs) or of units that 'auto' has chosen.

    Raises
    ------
    InputError
        If there is none, or if a name is unknown.
    """
    if graph.output not in where or where[graph.output] not in (BatchAxis(), BatchAxis(scalar=True)):
        raise argument_error(
            "model", "return an output for each example, the batch in front", "one whose output is not so"
        )
    automatic = _automatic(graph, where)
    if isinstance(units, str):
        chosen = automatic
    else:
        chosen = set()
        names = dict(zip(_names(graph, automatic), sorted(automatic), strict=True))
        for name in units:
            if name in names:
                chosen.add(names[name])
            elif graph.returned_by.get(name):
                chosen.update(i for i in graph.returned_by[name] if i in where)
            else:
                known = sorted({*names, *(path for path in graph.returned_by if path)})
                close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.3)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise InputError(
                    f"Argument units must name modules of the model or units that 'auto' finds, but {name!r} is "
                    f"none.{hint}"
                )
    if not chosen - {graph.output}:
        raise argument_error(
            "model",
            "have a unit before its output (an activation, a residual sum, a step of time), since equilibrium "
            "propagation would be backprop by another name",
            "one without",
        )
    chosen.add(graph.output)
    return tuple(UnitPlace(i, n, where[i]) for i, n in zip(sorted(chosen), _names(graph, chosen), strict=True))


def _automatic(graph: CallGraph, where: Mapping[int, BatchAxis]) -> set[int]:
    users: dict[int, list[int]] = {}
    for i, node in enumerate(graph.nodes):
        for j in node.sources():
            users.setdefault(j, []).append(i)
    soft: set[int] = set()
    chosen: set[int] = set()
    sums: set[int] = set()
    for i, node in enumerate(graph.nodes):
        operands = [j for j in dict.fromkeys(node.sources()) if graph.nodes[j].from_input]
        moving = [j for j in operands if j in where]
        if node.name in SOFTMAX or (node.name in CARRIED and any(j in soft for j in operands)):
            soft.add(i)
        if node.kind != "call" or i not in where or node.cut:
            continue
        if (
            (node.name in ACTIVATIONS and _bends(node))
            or node.name in ATTENTION
            or (node.name in PRODUCTS and len(moving) > 1 and any(j in soft for j in moving))
            or node.name.endswith(".apply")
        ):
            chosen.add(i)
        elif node.name in SUMS and len(moving) > 1 and _adds(node, moving):
            sums.add(i)
    for i in sums:
        takers = users.get(i, [])
        if i != graph.output and len(takers) == 1 and (takers[0] in chosen | sums | soft):
            continue
        chosen.add(i)
    if not chosen - {graph.output}:
        for i, node in enumerate(graph.nodes):
            product = node.name in PRODUCTS and sum(graph.nodes[j].from_input for j in node.sources()) > 1
            if i in where and (node.name in CURVED or product) and not node.cut:
                chosen.add(i)
    return chosen


def _adds(node: Node, moving: Sequence[int]) -> bool:
    """Whether a sum has two addends that depend on the input. A product with a constant added to it, such as scores
    of attention with their mask, is none."""
    if node.name not in WITH_PRODUCT:
        return True
    addend = node.args[0] if node.args else node.kwargs.get("input")
    return isinstance(addend, Ref) and addend.node in moving


def _bends(node: Node) -> bool:
    """Whether an activation acts on what depends on the input."""
    return node.from_input


def _names(graph: CallGraph, chosen: set[int]) -> list[str]:
    """Names of nodes: the module that calls and the function, numbered where that is not enough."""
    found: list[str] = []
    for i in sorted(chosen):
        node = graph.nodes[i]
        own = node.module.rpartition(".")[2]
        name = node.name.strip("_")
        plain = (
            node.module if own and name in own.lower() else ".".join(part for part in (node.module, name) if part)
        )
        base, count = plain, 2
        while plain in found:
            plain, count = f"{base}:{count}", count + 1
        found.append(plain)
    return found
