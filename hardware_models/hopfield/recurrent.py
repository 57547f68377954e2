"""Layers of amplifiers with separate forward and backward weights, or without backward ones: no energy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch

from physics_ep.blocks import State, largest
from physics_ep.errors import argument_error, is_real, require_seed, unknown_name
from physics_ep.physical_system import Inputs
from physics_ep.placement import require_dense
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
        Seed of the weights.

    Raises
    ------
    InputError
        If an argument is not as above.
    """

    residual_scale = 1.0
    nudge_scale = 1.0

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
        require_dense(sizes)
        if activation not in ACTIVATIONS:
            raise unknown_name("activation", str(activation), ACTIVATIONS)
        for name, value in (("gain", gain), ("back_gain", back_gain)):
            if not is_real(value):
                raise argument_error(name, "be a finite number", repr(value))
        if not isinstance(feedback, bool):
            raise argument_error("feedback", "be True or False", repr(feedback))
        require_seed(seed)
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

    def prepare(self, x: torch.Tensor) -> Inputs:
        self.check_input(x)
        return Inputs(x, torch.addmm(self.bias[0], x, self.forward_weight[0].T))

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> RecurrentPhase:
        return RecurrentPhase(self, inputs, origin, balanced)

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """`VectorField.contrast` in closed form: displacements times outputs midway between the phases."""
        response = torch_functions(self.activation)
        anchors = [response.anchor(s) for s in free[:-1]]

        def moved(z: State) -> State:
            return (*(response.displaced(d, *a) for d, a in zip(z[:-1], anchors, strict=True)), z[-1])

        other = tuple(torch.zeros_like(d) for d in plus) if minus is None else minus
        middle = moved(tuple((p + m) / 2 for p, m in zip(plus, other, strict=True)))
        middle = tuple(v + d for v, d in zip(self.coordinates(free), middle, strict=True))
        pushed = [-weight[:, None] * (p - m) for p, m in zip(moved(plus), moved(other), strict=True)]
        grads = {}
        for k, e in enumerate(pushed):
            grads[f"bias.{k}"] = e.sum(0)
            grads[f"forward_weight.{k}"] = e.T @ (middle[k - 1] if k else x)
            if k < len(self.backward_weight):
                grads[f"backward_weight.{k}"] = e.T @ middle[k + 1]
        trained = {n for n, p in self.named_parameters() if p.requires_grad}
        return {n: g for n, g in grads.items() if n in trained}


class RecurrentPhase(FieldPhase):
    """One relaxation of a `RecurrentNetwork`; those of asymmetric EP have the weights in each other's place.

    Layers of one parity do not feed each other: they are updated at once, then those of the other parity. A unit
    that is displaced moves by what its drive does, and its output by sigma(s + d) - sigma(s), without cancellation.

    Attributes
    ----------
    up, down : list of Tensor or None
        What leads into each layer from the layer below and from the one above; None: nothing.
    rest : list of Tensor
        What drives each layer beside other layers: biases and input, or in a displaced phase the force that is left
        at the origin, where that is not balanced.
    """

    system: RecurrentNetwork
    exact_updates = True
    carries_displacements = True

    def __init__(
        self, system: RecurrentNetwork, inputs: Inputs, origin: State | None = None, balanced: bool = False
    ) -> None:
        super().__init__(system, inputs, origin, balanced)
        self.depth = len(system.forward_weight)
        nothing = [None] * (self.depth - len(system.backward_weight))
        self.up: list[torch.Tensor | None] = [None, *list(system.forward_weight)[1:]]
        self.down: list[torch.Tensor | None] = [*system.backward_weight, *nothing]
        self.unit = torch_functions(system.activation)
        # The smaller half of the layers carries the iteration.
        halves = [range(start, self.depth, 2) for start in (0, 1)]
        self.carried, self.implied = sorted(halves, key=lambda h: (not h, sum(system.sizes[k + 1] for k in h)))
        if origin is None:
            self.rest = [inputs.cache, *(b.expand(len(self.x), -1) for b in list(system.bias)[1:])]
        else:
            self.anchors = [self.unit.anchor(s) for s in origin[:-1]]
            self.rest = [torch.zeros_like(s) for s in origin] if balanced else list(system.force(origin, self.x))
        self.unturned: RecurrentPhase | None = None
        """The phase with the couplings as they are, of which asymmetric EP has the transposed one."""

    def adjoint(self) -> RecurrentPhase:
        twin = copy.copy(self)
        twin.up = [None, *(None if w is None else w.T for w in self.down[:-1])]
        twin.down = [*(None if w is None else w.T for w in self.up[1:]), None]
        twin.unturned = self
        return twin

    def drooped(self, share: float) -> RecurrentPhase:
        twin = copy.copy(self)
        if self.unturned is not None:  # what a store has lost goes through the differences of the couplings
            assert self._placed is not None
            lost = tuple(share * v for v in self._placed)
            twin.rest = [self.drive(k, lost) + r - self.unturned.drive(k, lost) for k, r in enumerate(self.rest)]
        return twin

    def drive(self, k: int, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """What drives layer k, where layers put out `outputs`, or have moved theirs by as much."""
        into, up, down = self.rest[k], self.up[k], self.down[k]
        if up is not None:
            into = torch.addmm(into, outputs[k - 1], up.T)
        return into if down is None else torch.addmm(into, outputs[k + 1], down.T)

    def put_out(self, k: int, z: torch.Tensor) -> torch.Tensor:
        """Outputs of layer k at z, or how far they have moved."""
        if k == self.depth - 1:
            return z
        return self.unit.response(z) if self.origin is None else self.unit.displaced(z, *self.anchors[k])

    def update(self, k: int, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """The z at which layer k rests, where the layers beside it put out `outputs`."""
        driven = self.drive(k, outputs)
        if self.nudge is None or k < self.depth - 1:
            return driven
        assert self.origin is not None
        out = self.origin[-1]
        return self.nudge.cost.displaced_unit(out, self.nudge.y, self.nudge.column(out), driven)

    def interface(self, z: State) -> State:
        return tuple(z[k] for k in self.carried)

    def sweep(self, u: State) -> tuple[State, State, torch.Tensor]:
        z, outputs = [u[0]] * self.depth, [u[0]] * self.depth  # all are replaced before they are read
        for k, block in zip(self.carried, u, strict=True):
            z[k], outputs[k] = block, self.put_out(k, block)
        for k in self.implied:
            z[k] = self.update(k, outputs)
            outputs[k] = self.put_out(k, z[k])
        following = tuple(self.update(k, outputs) for k in self.carried)
        # The implied layers are exact for u, so that the carried ones hold all that is missing.
        gap = tuple(n - o for n, o in zip(following, u, strict=True))
        return following, tuple(z), largest(gap) / self.residual_scale

    def unbounded_force(self, z: State) -> State:
        outputs = [self.put_out(k, block) for k, block in enumerate(z)]
        found = tuple(self.drive(k, outputs) - block for k, block in enumerate(z))
        if self.nudge is None:
            return found
        return tuple(f + p for f, p in zip(found, self.cost_force(self.state(z)), strict=True))
