"""A recorded forward pass: calls of torch functions in turn, which can be made again with other values.

A pass may add something to the values of units, replace them, or make some calls in another way (held gates, masks
of dropout): whoever asks for it says so by two functions, `call` and `at_unit` of `evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Ref:
    """The place of a tensor in the arguments of a call: the number of the node that computes it."""

    node: int


@dataclass
class Node:
    """One value of a forward pass.

    Attributes
    ----------
    kind : {'input', 'tensor', 'call'}
        The model's input, a parameter or buffer of it, or what a function returns.
    name : str
        Full name of the parameter or buffer, or the plain name of the function ('relu').
    function : callable or None
    args, kwargs
        Arguments; tensors that are values of other nodes are `Ref`s.
    module : str
        Path of the innermost module that makes the call; '' is the model itself.
    place : str
        File, line and text of the model's source that makes the call.
    random : bool
        Whether the call draws random numbers.
    cut : bool
        Whether gradients do not pass (`detach`, `torch.no_grad`).
    from_input : bool
        Whether the value depends on the model's input.
    from_unit : bool
        Whether the value depends on the value of a unit.
    frees : tuple of int
        Nodes whose values nobody needs after this one.
    """

    kind: str
    name: str
    function: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""
    place: str = ""
    random: bool = False
    cut: bool = False
    from_input: bool = False
    from_unit: bool = False
    frees: tuple[int, ...] = ()

    def sources(self) -> list[int]:
        """Numbers of the nodes that the arguments refer to."""
        return [ref.node for ref in _refs((self.args, dict(self.kwargs)))]


@dataclass(frozen=True)
class BatchAxis:
    """The axis of a value along which the examples of a batch stand.

    Attributes
    ----------
    axis : int
        Axis of the batch.
    inner : int
        Numbers of each example that follow one another on that axis: 1 but where an axis holds examples and
        something else (windows of an image).
    minor : bool
        Whether on such an axis the examples run fastest.
    scalar : bool
        Whether the value is one number an example, (B,), of which the block is a column.
    """

    axis: int = 0
    inner: int = 1
    minor: bool = False
    scalar: bool = False

    def block(self, value: torch.Tensor) -> torch.Tensor:
        """The value with the batch in front, (B, ...)."""
        if self.scalar:
            return value[:, None]
        if self.inner == 1:
            return value.movedim(self.axis, 0) if self.axis else value
        if self.minor:
            return value.unflatten(self.axis, (self.inner, -1)).movedim(self.axis + 1, 0)
        return value.unflatten(self.axis, (-1, self.inner)).movedim(self.axis, 0)

    def value(self, block: torch.Tensor) -> torch.Tensor:
        """Bring the batch axis back to where the model has it: the inverse of `block`."""
        if self.scalar:
            return block[:, 0]
        if self.inner == 1:
            return block.movedim(0, self.axis) if self.axis else block
        at = self.axis + 1 if self.minor else self.axis
        return block.movedim(0, at).flatten(self.axis, self.axis + 1)


@dataclass(frozen=True)
class UnitPlace:
    """A value of a forward pass that is a variable of the energy."""

    node: int
    name: str
    layout: BatchAxis

    def block(self, value: torch.Tensor) -> torch.Tensor:
        """The value with the batch in front."""
        return self.layout.block(value)

    def value(self, block: torch.Tensor) -> torch.Tensor:
        """A unit's block with the batch axis back where the model has it: the inverse of `block`."""
        return self.layout.value(block)


@dataclass
class CallGraph:
    """A forward pass with its units; it holds for one shape of the input and one mode of the modules.

    Attributes
    ----------
    nodes : list of Node
    output : int
        Number of the node that the model returns.
    units : tuple of UnitPlace
        Units in the order of the pass. The last is the output.
    coupled : bool
        Whether examples of a batch feel each other (batch statistics).
    mutates : bool
        Whether the model's own forward pass changes buffers.
    returned_by : dict
        Path of a module to the nodes that its calls return.
    """

    nodes: list[Node]
    output: int
    units: tuple[UnitPlace, ...] = ()
    coupled: bool = False
    mutates: bool = False
    returned_by: dict[str, list[int]] = field(default_factory=dict)

    sweeps: int = 2
    """Sweeps after which nudged phases settled last: learning is part of the last one, if it is foreseen."""

    @property
    def random(self) -> bool:
        """Whether a call draws random numbers."""
        return any(node.random for node in self.nodes)

    def with_units(self, units: tuple[UnitPlace, ...]) -> None:
        """Set the units, and what depends on them."""
        self.units = units
        own = {unit.node for unit in units}
        for node in self.nodes:
            node.from_unit = any(s in own or self.nodes[s].from_unit for s in node.sources())

    def acted_on(self) -> dict[str, tuple[int, ...]]:
        """Map the name of each parameter or buffer to the indices of the units k whose function f_k uses it
        directly. A tensor that acts on a unit only by way of an earlier unit is not counted there."""
        own = {unit.node: k for k, unit in enumerate(self.units)}
        inside: list[set[str]] = []
        found: dict[str, tuple[int, ...]] = {}
        for i, node in enumerate(self.nodes):
            names = {node.name} if node.kind == "tensor" else set()
            names.update(*(inside[j] for j in node.sources() if j not in own))
            inside.append(names)
            if i in own:
                found.update({name: (*found.get(name, ()), own[i]) for name in names})
        return found

    def is_root(self, i: int) -> bool:
        """Whether a value depends on the input but on no unit: it is the same in all phases."""
        return self.nodes[i].from_input and not self.nodes[i].from_unit

    def roots(self) -> list[int]:
        """Values that are the same in all phases, and from which the others follow."""
        own = {unit.node for unit in self.units}
        taken = {j for node in self.nodes if node.from_unit for j in node.sources()}
        return [i for i in range(len(self.nodes)) if self.is_root(i) and (i in own or i in taken)]


def evaluate(
    graph: CallGraph,
    tensors: Mapping[str, torch.Tensor],
    x: torch.Tensor,
    at_unit: Callable[[int, torch.Tensor], torch.Tensor],
    call: Callable[[int, Node, tuple[Any, ...], dict[str, Any]], Any],
    fixed: Mapping[int, Any] | None = None,
) -> torch.Tensor:
    """Run a recorded forward pass.

    Parameters
    ----------
    graph : CallGraph
    tensors : mapping
        Parameters and buffers by name.
    x : Tensor (B, ...)
    at_unit : callable (number of the unit, f_k) -> h_k
        What the unit's value is where the nodes below compute f_k.
    call : callable (number of the node, node, args, kwargs) -> value
        How a call is made.
    fixed : mapping, optional
        Values of the `roots`, in whose place no call is made.

    Returns
    -------
    Tensor
        The output unit's value.
    """
    values: list[Any] = [None] * len(graph.nodes)
    units = {unit.node: k for k, unit in enumerate(graph.units)}
    for i, node in enumerate(graph.nodes):
        if fixed is not None and node.from_input and not node.from_unit:
            if i not in fixed:
                continue
            value = fixed[i]
        elif node.kind == "call":
            args, kwargs = _filled(node.args, values), {k: _filled(v, values) for k, v in node.kwargs.items()}
            value = call(i, node, args, kwargs)
        else:
            value = x if node.kind == "input" else tensors[node.name]
        values[i] = at_unit(units[i], value) if i in units else value
        for j in node.frees:
            values[j] = None
    found: torch.Tensor = values[graph.output]
    return found


def pruned(nodes: list[Node], output: int, returned_by: dict[str, list[int]]) -> CallGraph:
    """A graph without the nodes that the output does not need, told when each value is needed last."""
    needed = {output}
    for i in range(output, -1, -1):
        if i in needed:
            needed.update(nodes[i].sources())
    numbers = {old: new for new, old in enumerate(sorted(needed))}
    kept = [nodes[i] for i in sorted(needed)]
    last: dict[int, int] = {}
    for i, node in enumerate(kept):
        node.args = _renumbered(node.args, numbers)
        node.kwargs = {k: _renumbered(v, numbers) for k, v in node.kwargs.items()}
        for j in node.sources():
            last[j] = i
    last.pop(numbers[output], None)
    for j, i in last.items():
        kept[i].frees = (*kept[i].frees, j)
    returned = {path: [numbers[i] for i in found if i in numbers] for path, found in returned_by.items()}
    return CallGraph(kept, numbers[output], returned_by=returned)


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Apply a function to the leaves of nested tuples, lists, dicts and slices."""
    if isinstance(value, tuple):
        items = [mapped(v, change) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [mapped(v, change) for v in value]
    if isinstance(value, dict):
        return {k: mapped(v, change) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(*(mapped(v, change) for v in (value.start, value.stop, value.step)))
    return change(value)


def leaves(value: Any) -> Iterator[Any]:
    """Leaves of nested tuples, lists, dicts and slices."""
    if isinstance(value, tuple | list):
        for v in value:
            yield from leaves(v)
    elif isinstance(value, dict):
        yield from leaves(list(value.values()))
    elif isinstance(value, slice):
        yield from leaves((value.start, value.stop, value.step))
    else:
        yield value


def _refs(value: Any) -> list[Ref]:
    return [leaf for leaf in leaves(value) if isinstance(leaf, Ref)]


def _filled(value: Any, values: list[Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.node]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_filled(v, values) for v in value)
    if isinstance(value, tuple | list | dict | slice):
        return mapped(value, lambda leaf: values[leaf.node] if isinstance(leaf, Ref) else leaf)
    return value


def _renumbered(value: Any, numbers: dict[int, int]) -> Any:
    return mapped(value, lambda leaf: Ref(numbers[leaf.node]) if isinstance(leaf, Ref) else leaf)
