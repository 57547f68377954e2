"""Library functions that torch computes in one call, written out: recurrence step by step, attention by its parts.

A recurrent layer or an attention that is one call would be one unit, and equilibrium propagation backprop under
another name. The equations are those of the documentation of `torch.nn.RNN`, `GRU` and `LSTM`.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ...errors import argument_error

Tensor = torch.Tensor


def _rnn_cell(response: Callable[[Tensor], Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    def step(drive: Tensor, state: tuple[Tensor, ...], w: list[Any]) -> tuple[Tensor, ...]:
        return (response(drive + functional.linear(state[0], w[1], w[3])),)

    return step


def _gru_cell(drive: Tensor, state: tuple[Tensor, ...], w: list[Any]) -> tuple[Tensor, ...]:
    h = state[0]
    size = h.shape[-1]
    own = functional.linear(h, w[1], w[3])
    gates = torch.sigmoid(drive[..., : 2 * size] + own[..., : 2 * size])
    reset, update = gates[..., :size], gates[..., size:]
    new = torch.tanh(drive[..., 2 * size :] + reset * own[..., 2 * size :])
    return ((1 - update) * new + update * h,)


def _lstm_cell(drive: Tensor, state: tuple[Tensor, ...], w: list[Any]) -> tuple[Tensor, ...]:
    h, c = state
    size = c.shape[-1]
    a = drive + functional.linear(h, w[1], w[3])
    gates = torch.sigmoid(a[..., : 2 * size])
    inward, forget = gates[..., :size], gates[..., size:]
    cell, outward = torch.tanh(a[..., 2 * size : 3 * size]), torch.sigmoid(a[..., 3 * size :])
    c = forget * c + inward * cell
    h = outward * torch.tanh(c)
    return (h if w[4] is None else functional.linear(h, w[4]), c)


def _layers(cell: Callable[..., tuple[Tensor, ...]], states: int) -> Callable[..., Any]:
    """A recurrent network of torch from its cell, in the signature of `torch._VF`."""

    def run(
        x: Tensor,
        first: Any,
        weights: list[Tensor],
        bias: bool,
        count: int,
        dropout: float,
        training: bool,
        both: bool,
        batch_first: bool = False,
    ) -> Any:
        if not isinstance(bias, bool):  # the signature of packed sequences
            must = "hold no recurrent layer on packed sequences, which have no steps that all examples share"
            raise argument_error("model", must, "one that is given a PackedSequence")
        starts = (first,) if isinstance(first, Tensor) else tuple(first)
        x = x.transpose(0, 1) if batch_first else x
        ways = 2 if both else 1
        each = len(weights) // (count * ways)
        ends: list[list[Tensor]] = [[] for _ in range(states)]
        for layer in range(count):
            outputs = []
            for way in range(ways):
                at = layer * ways + way
                own: list[Any] = list(weights[at * each : (at + 1) * each])
                w = [own[0], own[1], *((own[2], own[3]) if bias else (None, None)), None]
                if each == (5 if bias else 3):
                    w[4] = own[-1]
                drives = functional.linear(x, w[0], w[2])
                state = tuple(s[at] for s in starts)
                steps: list[Tensor] = []
                times = range(len(x))
                for t in reversed(times) if way else times:
                    state = cell(drives[t], state, w)
                    steps.append(state[0])
                outputs.append(torch.stack(steps[::-1] if way else steps))
                for end, s in zip(ends, state, strict=True):
                    end.append(s)
            x = outputs[0] if ways == 1 else torch.cat(outputs, -1)
            if dropout > 0 and training and layer < count - 1:
                x = functional.dropout(x, dropout, True)
        x = x.transpose(0, 1) if batch_first else x
        return (x, *(torch.stack(end) for end in ends))

    return run


def _single(cell: Callable[..., tuple[Tensor, ...]], states: int) -> Callable[..., Any]:
    """A cell of torch, in the signature of `torch._VF`."""

    def run(x: Tensor, state: Any, w: Tensor, u: Tensor, b: Any = None, c: Any = None) -> Any:
        start = (state,) if isinstance(state, Tensor) else tuple(state)
        found = cell(functional.linear(x, w, b), start, [w, u, b, c, None])
        return found[0] if states == 1 else found

    return run


def _opened(function: Any) -> Callable[..., Any]:
    """A function of torch's own without its first line, which hands the whole call to whoever watches."""
    scope = {**vars(functional), "has_torch_function": lambda given: False}
    twin = types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


_VF = torch._VF

CELLS: dict[str, tuple[Callable[..., tuple[Tensor, ...]], int]] = {
    "rnn_tanh": (_rnn_cell(torch.tanh), 1),
    "rnn_relu": (_rnn_cell(torch.relu), 1),
    "gru": (_gru_cell, 1),
    "lstm": (_lstm_cell, 2),
}

EXPANSIONS: dict[Any, Callable[..., Any]] = {
    functional.multi_head_attention_forward: _opened(functional.multi_head_attention_forward),
    **{getattr(_VF, name): _layers(cell, states) for name, (cell, states) in CELLS.items()},
    **{getattr(_VF, f"{name}_cell"): _single(cell, states) for name, (cell, states) in CELLS.items()},
}
"""Functions that are recorded by their parts, and what records them."""
