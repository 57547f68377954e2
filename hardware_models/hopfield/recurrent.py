"""Layers of amplifiers with separate forward and backward weights, or without backward ones: no energy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch

from physics_ep.blocks import State
from physics_ep.errors import argument_error, unknown_name
from physics_ep.physical_system import Inputs
from physics_ep.units import UNITS, torch_functions
from physics_ep.vector_field import FieldPhase, VectorField

ACTIVATIONS = tuple(name for name in UNITS)
"""Activations of hidden layers."""


class RecurrentNetwork(VectorField):
    """Layers of amplifiers whose forward and backward weights differ; with no backward ones, a feedforward network.

        ds_k/dt = -s_k + F_k v_{k-1} + B_{k+1} v_{k+1} + b_k,    v_k = sigma(s_k),  v_0 = x,  v_L = s_L

    Forces are currents as functions of outputs v, which are the coordinates of displacements: where B = F^T the
    network has an energy (Hopfield 1984). Nudged phases of asymmetric EP then need F and B in each other's place,
    each read the other way, and cost what ordinary ones do.

    Parameters
    ----------
    sizes : sequence of int
        Input, hidden layers, outputs.
    activation : str
        Response of the hidden layers: a unit of `physics_ep.units`. Outputs are linear.
    feedback : bool
        Whether there are backward weights.
    gain : float
        Forward weights are normal with standard deviation gain / sqrt(inputs of the layer).
    back_gain : float
        The same for backward weights.
    seed : int

    Raises
    ------
    InputError
        If an argument is not as above.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str = "tanh",
        *,
        feedback: bool = True,
        gain: float = 1.0,
        back_gain: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        whole = all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in sizes)
        if not whole or len(sizes) < 2:
            raise argument_error("sizes", "be positive integers: input, hidden layers, outputs", sizes)
        if activation not in ACTIVATIONS:
            raise unknown_name("activation", str(activation), ACTIVATIONS)
        generator = torch.Generator().manual_seed(seed)

        def drawn(rows: int, columns: int, spread: float) -> torch.nn.Parameter:
            normal = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
            return torch.nn.Parameter((spread / columns**0.5 * normal).to(torch.get_default_dtype()))

        self.sizes = tuple(sizes)
        self.activation = activation
        pairs = list(pairwise(sizes))
        self.forward_weight = torch.nn.ParameterList([drawn(b, a, gain) for a, b in pairs])
        self.backward_weight = torch.nn.ParameterList(
            [drawn(a, b, back_gain) for a, b in pairs[1:]] if feedback else []
        )
        self.bias = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(b)) for _, b in pairs])
        self.example_shape = (sizes[0],)

    def coordinates(self, state: State) -> State:
        response = torch_functions(self.activation).response
        return (*(response(s) for s in state[:-1]), state[-1])

    def force(self, state: State, x: torch.Tensor) -> State:
        outputs = self.coordinates(state)
        found = []
        for k, (s, w, b) in enumerate(zip(state, self.forward_weight, self.bias, strict=True)):
            into = torch.addmm(b, x if k == 0 else outputs[k - 1], w.T) - s
            if k < len(self.backward_weight):
                into = into + outputs[k + 1] @ self.backward_weight[k].T
            found.append(into)
        return tuple(found)

    def initial_state(self, x: torch.Tensor) -> State:
        return tuple(x.new_zeros(len(x), size) for size in self.sizes[1:])

    def outputs(self, state: State) -> torch.Tensor:
        return state[-1]

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> RecurrentPhase:
        return RecurrentPhase(self, inputs, origin, balanced)


class RecurrentPhase(FieldPhase):
    """One relaxation of a `RecurrentNetwork`; those of asymmetric EP have the weights in each other's place.

    Attributes
    ----------
    turned : bool
        Whether layers are driven by B^T, and fed back to by F^T.
    """

    system: RecurrentNetwork
    turned = False
    rest: State | None = None
    """What drives the units at the origin."""

    def adjoint(self) -> RecurrentPhase:
        twin = copy.copy(self)
        twin.turned = not self.turned
        return twin

    def unbounded_force(self, z: State) -> State:
        if not self.turned:
            return super().unbounded_force(z)
        assert self.origin is not None
        assert self._placed is not None
        system, state = self.system, self.state(z)
        moved = [a - b for a, b in zip(system.coordinates(state), self._placed, strict=True)]
        if self.droop:
            moved = [m + self.droop * v for m, v in zip(moved, self._placed, strict=True)]
        if self.rest is None:
            self.rest = self._at_rest()
        found = [r - d for r, d in zip(self.rest, z, strict=True)]
        for k, back in enumerate(system.backward_weight):
            found[k + 1] = torch.addmm(found[k + 1], moved[k], back)
        for k, w in enumerate(system.forward_weight[1:]):
            found[k] = torch.addmm(found[k], moved[k + 1], w)
        if self.nudge is None:
            return tuple(found)
        return tuple(f + p for f, p in zip(found, self.cost_force(state), strict=True))

    def drooped(self, share: float) -> RecurrentPhase:
        twin = copy.copy(self)
        twin.droop, twin.rest = share, None
        return twin

    def _at_rest(self) -> State:
        """The force at the origin, less what couplings make of the share of it that a store has lost."""
        assert self.origin is not None
        assert self._placed is not None
        system, placed = self.system, self._placed
        found = list(system.force(self.origin, self.x))
        if self.droop:
            for k, back in enumerate(system.backward_weight):
                found[k] = found[k] - self.droop * placed[k + 1] @ back.T
            for k, w in enumerate(system.forward_weight[1:]):
                found[k + 1] = found[k + 1] - self.droop * placed[k] @ w.T
        return tuple(found)
