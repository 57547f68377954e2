"""Predictive coding networks as energy systems.

Layers h_1 ... h_L over the input h_0 = x; a_k = W_k h_{k-1} + b_k is a pre-activation (`layers`), sigma_k(a_k) a
prediction. Two energies have the forward pass as their free equilibrium, with E = 0 and dE/dtheta = 0 there:

    squared    E = sum_k 1/2 |h_k - sigma_k(a_k)|^2                              (Kerjan 2026, section 2)
    paired     E = sum_k Psi_k(h_k) - Psi_k(u_k) - (h_k - u_k) . a_k             (Psi_k' is the inverse of sigma_k)

In the second, the Fenchel-Young form, each unit has a partner u_k that carries the prediction; all couplings are
then bilinear, which hardware can hold. Its equilibria are saddles: h descends, u ascends. Both are nudged by beta
C(h_L).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from ..blocks import State
from ..dynamics.motion import Motion
from ..errors import unknown_name
from ..moved import moved_names
from ..system import Inputs, Phase
from .flows import PredictiveMotion
from .forward import ForwardNetwork, gate_mode
from .layers import PredictiveLayer
from .phase import PredictivePhase
from .solvers import SOLVERS

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)


ENERGIES = ("squared", "paired")


class PredictiveCodingNetwork(ForwardNetwork):
    """A predictive coding network, trained by equilibrium propagation.

    `net(x)` is the plain forward pass. States are the activities h_k, (B, ...) a layer; with the paired energy
    they are followed by the partners u_k. (GELU has no inverse: with the paired energy its units are described by
    their pre-activations in place of their outputs.) All are dimensionless.

    A nudged phase carries the displacement d_k = h_k - h_k(free) and, after the state's blocks, the errors
    delta_k = -dE/da_k, of which the learning rule is made: dE/dW_k = -delta_k h_{k-1}^T. Nothing of size beta is
    the difference of two numbers of size one.

    Parameters
    ----------
    layers : sequence of PredictiveLayer
        Layer k takes the shape of layer k - 1. The last is linear.
    energy : {'squared', 'paired'}
    gates : {'held', 'live'}
        Whether nudged phases hold the gates of ReLUs and the routes of max poolings at the free state. They do by
        default: the estimate then has the order of its scheme at the backprop gradient, where live gates leave an
        error of order sqrt(beta), and states that cannot settle since they sit on kinks. Overruled by `relax(...,
        gates=...)`.

    Attributes
    ----------
    compute_dtype : torch.dtype or None
        Work in this dtype (bfloat16) while parameters and gradients keep theirs. None: that of the parameters.

    Raises
    ------
    InputError
        If the layers do not fit on one another.

    Notes
    -----
    Residual of a nudged phase: how far each layer's error e_k = h_k - sigma_k(a_k) is from what its neighbours
    ask of it, over the size of the latter: largest entry over largest entry, worst layer. It is relative to the
    nudge, so that tolerances do not depend on beta, and 1 before the first sweep has been felt.

    With live gates the residual means something at kinks only with the paired energy: there what a unit answers,
    sigma(a + q) - sigma(a), is continuous, while the gradient of the squared errors jumps, and its minimum sits on
    the jumps.

    The method `default_tolerance` gives the tolerance of each dtype.
    """

    default_solver = "anderson"
    default_max_iterations = 100
    default_oracle = "backprop"
    relative_residual = True
    bounded = True
    clamps = True
    bilinear = True
    module_kinds: Mapping[str, str] = MappingProxyType({})
    """Class of each module of the model that the network was made of, by path."""

    def __init__(self, layers: Sequence[PredictiveLayer], energy: str = "squared", gates: str = "held") -> None:
        if energy not in ENERGIES:
            raise unknown_name("energy", energy, ENERGIES)
        super().__init__(layers)
        self.energy_name = energy
        self.gates = gates
        self.descends = energy == "squared"
        self.directions = None if energy == "squared" else (1,) * self.depth + (-1,) * self.depth

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor | float = 0.0
        upper = state[: self.depth]
        activities = [
            layer.activation.output(s) if self._paired else s for layer, s in zip(self.stack, upper, strict=True)
        ]
        for k, layer in enumerate(self.stack):
            a, _ = self.drive(k, x, activities)
            unit = layer.activation
            if self._paired:
                h, u = state[k], state[self.depth + k]
                part = unit.potential(h) - unit.potential(u) - (unit.output(h) - unit.output(u)) * a
            else:
                part = 0.5 * (state[k] - unit.response(a)).square()
            total = total + part.flatten(1).sum(1)
        assert isinstance(total, torch.Tensor)
        return total

    def initial_state(self, x: torch.Tensor) -> State:
        with torch.no_grad():
            found = self.run(x)
        if not self._paired:
            return found.states
        assert found.drives is not None
        return self.internal(found.states, found.drives) * 2

    def outputs(self, state: State) -> torch.Tensor:
        return state[self.depth - 1]

    def project(self, state: State) -> State:
        if not self._paired:
            return state
        bounds = [layer.activation.bounds for layer in self.stack] * 2
        return tuple(
            s if math.isinf(lo) and math.isinf(hi) else s.clamp(lo, hi)
            for s, (lo, hi) in zip(state, bounds, strict=True)
        )

    def free_variables(self, state: State, x: torch.Tensor) -> State | None:
        if not self._paired:
            return None
        activities = [layer.activation.output(s) for layer, s in zip(self.stack, state[: self.depth], strict=True)]
        masks = []
        for k, layer in enumerate(self.stack):
            a, _ = self.drive(k, x, activities)
            unit = layer.activation
            masks.append(unit.open(a) if unit.gated else torch.ones_like(a, dtype=torch.bool))
        return tuple(masks) * 2

    def acted_on(self, x: torch.Tensor) -> dict[str, tuple[int, ...]]:
        """Number of the layer to which each parameter belongs, by name."""
        numbers = {id(p): k for k, layer in enumerate(self.stack) for p in layer.parameters()}
        return {name: (numbers[id(p)],) for name, p in self.named_parameters() if id(p) in numbers}

    def prepare(self, x: torch.Tensor, gates: str | None = None) -> Inputs:
        self.check_input(x)
        held = gate_mode(gates or self.gates) == "held"
        keep_drives = self._paired or not (held and self.piecewise_linear)
        return Inputs(x, self.run(x, keep_drives, keep_images=self.routed and not held))

    def phase(
        self, inputs: Inputs, origin: State | None = None, balanced: bool = False, gates: str | None = None
    ) -> PredictivePhase:
        """Relaxation problem; `gates` overrules the network's."""
        return PredictivePhase(self, inputs, origin, balanced, gate_mode(gates or self.gates), self._paired)

    def solvers(self, phase: Phase) -> dict[str, Any]:
        return SOLVERS

    def motion(self, phase: Phase) -> Motion:
        assert isinstance(phase, PredictivePhase)
        return PredictiveMotion(phase)

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        if len(plus) == len(free):  # bare displacements, without the errors that phases carry
            return super().contrast(free, plus, minus, x, weight)
        return self.phase(self.prepare(x), free).contrast(self, free, plus, minus, x, weight)

    def default_tolerance(self, dtype: torch.dtype) -> float:
        """1e-10 in float64; 1e-2 in float32, 5e-2 in bfloat16.

        An error of relative size r in the state changes the estimate by some beta lambda r, lambda the network's
        response, so that at beta lambda = 0.05 a residual of 1e-2 costs less than the finite beta itself does.
        """
        return {torch.float64: 1e-10, torch.float32: 1e-2}.get(dtype, 5e-2)

    @property
    def _paired(self) -> bool:
        return self.energy_name == "paired"
