"""Passes through a recorded model: the free one, displaced ones, and the units' own errors.

With h_k = f_k(parents; theta) + e_k the energy is E = 1/2 sum_k |e_k|^2 (docs/any_model.md). The free pass has e
= 0. A displaced pass adds errors to the units and goes on; what the free pass drew at random or held (gates) is
used again. Blocks are values with the batch in front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ...blocks import State
from .gates import KEPT, RULES, Hold
from .graph import CallGraph, Node, evaluate
from .recording import random_state, replayed

Blocks = list[torch.Tensor]
Tensors = Mapping[str, torch.Tensor]


class FreePass:
    """A forward pass at rest, and what later passes of the same input need of it.

    What stands before the first unit is computed once, in this pass, and its weights are learnt once for all
    nudges.

    Parameters
    ----------
    graph : CallGraph
    tensors : mapping
        Parameters and buffers by name.
    x : Tensor (B, ...)
    held : bool
        Whether gates and routes are held for later passes.
    noise : dict or None
        States of the random generator by node, where what was drawn before is to be drawn again.

    Attributes
    ----------
    states : tuple of Tensor (B, ...)
        Free values of the units, as blocks.
    noise : dict
        States of the random generator at each call that draws.
    """

    def __init__(
        self,
        graph: CallGraph,
        tensors: Tensors,
        x: torch.Tensor,
        held: bool = True,
        noise: Mapping[int, torch.Tensor] | None = None,
    ) -> None:
        self.graph = graph
        self.x = x
        self.held = held
        self.noise: dict[int, torch.Tensor] = dict(noise or {})
        self.rules: dict[int, Hold] = {}
        self.kept: dict[int, Any] = {}
        self.live = tensors
        self.plain = {name: t.detach() for name, t in tensors.items()}
        first = {id(t): name for name, t in reversed(list(tensors.items()))}
        self.trained = [name for name, t in tensors.items() if t.requires_grad and first[id(t)] == name]
        """Names of what is learnt; a tied parameter stands there once."""
        self.fixed: dict[int, Any] = dict.fromkeys(graph.roots())
        """Values before the first units, as autograd follows them."""
        self.values: list[torch.Tensor] | None = None
        """Free values of the units, as autograd follows them; None: no longer."""
        self.values = self._run(self._first_call)
        blocks = zip(graph.units, self.values, strict=True)
        self.states: State = tuple(unit.block(value.detach()) for unit, value in blocks)

    def _run(self, call: Callable[[int, Node, tuple[Any, ...], dict[str, Any]], Any]) -> list[torch.Tensor]:
        own = {unit.node: k for k, unit in enumerate(self.graph.units)}
        values = [torch.empty(0)] * len(own)

        def at_unit(k: int, value: torch.Tensor) -> torch.Tensor:
            node = self.graph.units[k].node
            if node in self.fixed:
                self.fixed[node] = value
            # Nothing before a root is asked for its derivative, but for what is learnt: the pass goes on from it.
            values[k] = value.detach().requires_grad_() if node in self.fixed or not value.requires_grad else value
            return values[k]

        def made(i: int, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            result = call(i, node, args, kwargs)
            if i in self.fixed and i not in own:
                self.fixed[i] = result
            return result

        with torch.enable_grad():
            evaluate(self.graph, self.live, self.x, at_unit, made)
        if 0 in self.fixed:
            self.fixed[0] = self.x
        return values

    def _first_call(self, i: int, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rule = self._rule(node)
        if node.random and i not in self.noise:
            self.noise[i] = random_state(self.x.device)
            result = _made(node, args, kwargs)
        elif node.random:
            with replayed(self.noise[i], self.x.device):
                result = _made(node, args, kwargs)
        elif rule is not None and rule.call is not None:
            result, kept = rule.call(args, kwargs)
            self.rules[i], self.kept[i] = rule, kept
            return result
        else:
            result = _made(node, args, kwargs)
        if node.from_unit and _fixed(result):
            rule = KEPT
        if rule is not None:
            with torch.no_grad():
                self.rules[i], self.kept[i] = rule, rule.keep(args, kwargs, result)
        return result

    def _rule(self, node: Node) -> Hold | None:
        if not node.from_unit:
            return None
        if node.cut:
            return KEPT
        return RULES.get(node.name) if self.held else None

    def call(self, i: int, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of a later pass."""
        if i in self.rules:
            return self.rules[i].apply(self.kept[i], args, kwargs)
        if node.random:
            with replayed(self.noise[i], self.x.device):
                return _made(node, args, kwargs)
        return _made(node, args, kwargs)

    def adjoints(self, pull: torch.Tensor, last: bool = False) -> Blocks:
        """dC/dh_k of all units at rest for dC/dh_L = pull (B, n_out), the derivative through all that follows.

        With `last`, what autograd keeps of this pass is given away, but for what stands before the first unit.
        """
        if self.values is None:
            self.values = self._run(self.call)
        values, output = self.values, self.values[-1]
        force = pull.reshape(output.shape).to(output.dtype)
        grads = torch.autograd.grad(output, values, force, retain_graph=not last, allow_unused=True)
        if last:
            self.values = None
        return self._blocks(grads)

    def displaced(
        self,
        errors: Callable[[int], torch.Tensor],
        pull: Callable[[torch.Tensor], torch.Tensor],
        learn: bool = False,
        onto: Learnt | None = None,
    ) -> tuple[Blocks, Blocks, Learnt | None]:
        """Values of all units with errors e_k, dC/dh_k there, and what is learnt there if that is asked for.

        Parameters
        ----------
        errors : callable
            Number of a unit to its error, (B, ...).
        pull : callable
            Outputs (B, n_out) to dC/dh_L.
        learn : bool
            Whether to take the derivatives by parameters in the same backward pass.
        onto : Learnt, optional
            Derivatives to which those learnt here are added, in their memory: no second set is ever held.
        """
        graph = self.graph
        values = [torch.empty(0)] * len(graph.units)
        own = {unit.node for unit in graph.units}
        fixed = {i: _leaf(v, learn and i not in own) for i, v in self.fixed.items()}

        def at_unit(k: int, value: torch.Tensor) -> torch.Tensor:
            moved = value + graph.units[k].value(errors(k))
            values[k] = moved if moved.requires_grad else moved.requires_grad_()
            return values[k]

        with torch.enable_grad():
            tensors = self._leaves(onto) if learn else self.plain
            output = evaluate(graph, tensors, self.x, at_unit, self.call, fixed)
            force = pull(output.detach().reshape(len(self.x), -1)).reshape(output.shape).to(output)
            starts = {i: v for i, v in fixed.items() if isinstance(v, torch.Tensor) and v.requires_grad}
            for i, v in starts.items():
                v.grad = None if onto is None else onto.at_starts.get(i)
            learnt = {n: tensors[n] for n in self.trained} if learn else {}
            torch.autograd.backward(output, force, inputs=[*values, *starts.values(), *learnt.values()])
        found = self._blocks([v.grad for v in values])
        moved = [u.block(v.detach()) for u, v in zip(graph.units, values, strict=True)]
        if not learn:
            return moved, found, None
        at_starts = {} if onto is None else dict(onto.at_starts)
        at_starts.update({i: v.grad for i, v in starts.items() if v.grad is not None})
        for k, unit in enumerate(graph.units):
            pulled = values[k].grad if unit.node in self.fixed else None
            if pulled is not None:
                at_starts[unit.node] = at_starts[unit.node].add_(pulled) if unit.node in at_starts else pulled
        return moved, found, Learnt({n: p.grad for n, p in learnt.items() if p.grad is not None}, at_starts)

    def _leaves(self, onto: Learnt | None) -> dict[str, torch.Tensor]:
        """Parameters and buffers, those that learn as leaves whose `.grad` begins with what was learnt before."""
        twins: dict[int, torch.Tensor] = {}
        for name in self.trained:
            leaf = self.live[name].detach().requires_grad_()
            leaf.grad = None if onto is None else onto.grads.get(name)
            twins[id(self.live[name])] = leaf
        return {name: twins.get(id(t), t) for name, t in self.live.items()}

    def learnt_before(self, at_starts: Mapping[int, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Derivatives by parameters that act before the first units, from those by the values at their starts."""
        pairs = [(self.fixed[i], g) for i, g in at_starts.items()]
        pairs = [(v, g) for v, g in pairs if isinstance(v, torch.Tensor) and v.requires_grad]
        if not pairs:
            return {}
        names, leaves = self.trained, [self.live[n] for n in self.trained]
        grads = torch.autograd.grad(
            [v for v, _ in pairs], leaves, [g for _, g in pairs], allow_unused=True, retain_graph=True
        )
        return {n: g for n, g in zip(names, grads, strict=True) if g is not None}

    def moved(self, errors: Sequence[torch.Tensor]) -> Blocks:
        """Values of all units with errors e_k."""
        found: Blocks = []

        def at_unit(k: int, value: torch.Tensor) -> torch.Tensor:
            unit = self.graph.units[k]
            found.append(unit.block(value) + errors[k])
            return unit.value(found[-1])

        with torch.no_grad():
            fixed = {i: _leaf(v, False) for i, v in self.fixed.items()}
            evaluate(self.graph, self.plain, self.x, at_unit, self.call, fixed)
        return found

    def predictions(
        self, state: Sequence[torch.Tensor], tensors: Tensors | None = None, x: torch.Tensor | None = None
    ) -> Blocks:
        """f_k of all units where their values are `state`; autograd follows it."""
        return predictions(self.graph, self.plain if tensors is None else tensors, self._input(x), state, self.call)

    def _input(self, x: torch.Tensor | None) -> torch.Tensor:
        return self.x if x is None else x

    def _blocks(self, grads: Sequence[torch.Tensor | None]) -> Blocks:
        found = zip(self.graph.units, grads, self.states, strict=True)
        return [torch.zeros_like(s) if g is None else unit.block(g) for unit, g, s in found]


class Learnt(NamedTuple):
    """Derivatives of the summed cost at a displaced state.

    Attributes
    ----------
    grads : dict
        Derivatives by each parameter, through all that follows the first units.
    at_starts : dict
        Derivatives by the values before the first units, by node.

    What the cost does not depend on is in neither.
    """

    grads: dict[str, torch.Tensor]
    at_starts: dict[int, torch.Tensor]


def predictions(
    graph: CallGraph,
    tensors: Tensors,
    x: torch.Tensor,
    state: Sequence[torch.Tensor],
    call: Callable[[int, Node, tuple[Any, ...], dict[str, Any]], Any],
) -> Blocks:
    """f_k of all units where their values are `state` (blocks); autograd follows it."""
    found: Blocks = []

    def at_unit(k: int, value: torch.Tensor) -> torch.Tensor:
        found.append(graph.units[k].block(value))
        return graph.units[k].value(state[k])

    evaluate(graph, tensors, x, at_unit, call)
    return found


def _made(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the recorded call returns."""
    assert node.function is not None
    if node.cut:
        with torch.no_grad():
            return node.function(*args, **kwargs)
    return node.function(*args, **kwargs)


def _leaf(value: Any, wanted: bool) -> Any:
    """A value that a pass begins with; a leaf of its own where its derivative is wanted."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().requires_grad_(wanted and value.requires_grad)


def _fixed(result: Any) -> bool:
    """Whether a result is a tensor of whole numbers or truth values."""
    return isinstance(result, torch.Tensor) and not (result.is_floating_point() or result.is_complex())
