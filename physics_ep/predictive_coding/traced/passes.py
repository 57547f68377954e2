"""Passes through a recorded model: the free one, displaced ones, and the units' own errors.

With h_k = f_k(parents; theta) + e_k the energy is E = 1/2 sum_k |e_k|^2 (docs/any_model.md). The free pass has e
= 0. A displaced pass adds errors to the units and goes on; what the free pass drew at random or held (gates) is
used again. Blocks are values with the batch in front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ...blocks import State
from .gates import KEPT, RULES, Hold
from .graph import CallGraph, Node, evaluate
from .recording import random_state, replayed

Blocks = list[torch.Tensor]
Tensors = Mapping[str, torch.Tensor]


class FreePass:
    """A forward pass at rest, and what later passes of the same input need of it.

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
        self.plain = {name: t.detach() for name, t in tensors.items()}
        self.roots: list[torch.Tensor] = [torch.empty(0)] * len(graph.units)

        def at_unit(k: int, value: torch.Tensor) -> torch.Tensor:
            root = value if value.requires_grad else value.detach().requires_grad_()
            self.roots[k] = root
            return root

        with torch.enable_grad():
            evaluate(graph, self.plain, x, at_unit, self._first_call)
        blocks = zip(graph.units, self.roots, strict=True)
        self.states: State = tuple(unit.layout.block(root.detach()) for unit, root in blocks)

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

    def adjoints(self, pull: torch.Tensor) -> Blocks:
        """dC/dh_k of all units at rest for dC/dh_L = pull (B, n_out), the derivative through all that follows."""
        output = self.roots[-1]
        grads = torch.autograd.grad(
            output, self.roots, pull.reshape(output.shape).to(output.dtype), retain_graph=True, allow_unused=True
        )
        return self._blocks(grads, self.roots)

    def displaced(
        self, errors: Sequence[torch.Tensor], pull: Callable[[torch.Tensor], torch.Tensor]
    ) -> tuple[Blocks, Blocks]:
        """Values of all units with errors e_k, and dC/dh_k there.

        Parameters
        ----------
        errors : sequence of Tensor (B, ...)
        pull : callable
            Outputs (B, n_out) to dC/dh_L.
        """
        values = list(self.roots)

        def at_unit(k: int, value: torch.Tensor) -> torch.Tensor:
            moved = value + self.graph.units[k].layout.value(errors[k])
            values[k] = moved if moved.requires_grad else moved.requires_grad_()
            return values[k]

        with torch.enable_grad():
            output = evaluate(self.graph, self.plain, self.x, at_unit, self.call)
            force = pull(output.detach().reshape(len(self.x), -1))
            grads = torch.autograd.grad(output, values, force.reshape(output.shape).to(output), allow_unused=True)
        moved = [u.layout.block(v.detach()) for u, v in zip(self.graph.units, values, strict=True)]
        return moved, self._blocks(grads, values)

    def moved(self, errors: Sequence[torch.Tensor]) -> Blocks:
        """Values of all units with errors e_k."""
        found: Blocks = []

        def at_unit(k: int, value: torch.Tensor) -> torch.Tensor:
            layout = self.graph.units[k].layout
            found.append(layout.block(value) + errors[k])
            return layout.value(found[-1])

        with torch.no_grad():
            evaluate(self.graph, self.plain, self.x, at_unit, self.call)
        return found

    def predictions(
        self, state: Sequence[torch.Tensor], tensors: Tensors | None = None, x: torch.Tensor | None = None
    ) -> Blocks:
        """f_k of all units where their values are `state`; autograd follows it."""
        return predictions(self.graph, self.plain if tensors is None else tensors, self._input(x), state, self.call)

    def _input(self, x: torch.Tensor | None) -> torch.Tensor:
        return self.x if x is None else x

    def _blocks(self, grads: Sequence[torch.Tensor | None], like: Sequence[torch.Tensor]) -> Blocks:
        filled = [torch.zeros_like(v) if g is None else g for g, v in zip(grads, like, strict=True)]
        return [unit.layout.block(g) for unit, g in zip(self.graph.units, filled, strict=True)]


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
        layout = graph.units[k].layout
        found.append(layout.block(value))
        return layout.value(state[k])

    evaluate(graph, tensors, x, at_unit, call)
    return found


def _made(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the recorded call returns."""
    assert node.function is not None
    if node.cut:
        with torch.no_grad():
            return node.function(*args, **kwargs)
    return node.function(*args, **kwargs)


def _fixed(result: Any) -> bool:
    """Whether a result is a tensor of whole numbers or truth values."""
    return isinstance(result, torch.Tensor) and not (result.is_floating_point() or result.is_complex())
