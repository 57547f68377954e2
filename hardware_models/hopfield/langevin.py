"""The Hopfield energy in internal potentials, whose Langevin dynamics infers and learns.

Energy of layers u_1 ... u_L of potentials on the input u_0, with rates rho(u) (Scellier and Bengio 2017, eq. 1;
Bengio and Fischer 2015, eq. 1; bilinear couplings counted once):

    E = sum_k 1/2 |u_k|^2 - rho(u_k) . (W_k r_{k-1} + b_k),        r_k = rho(u_k),  r_0 = x

The input is clamped and enters as it is: r_0 is x itself, not rho(x). The potentials have no bounds. With the drive
p_k = W_k r_{k-1} + b_k + W_{k+1}^T r_{k+1},

    du_k/dt = -dE/du_k = rho'(u_k) p_k - u_k,        ds = -dE/ds dt + sqrt(2 T) dW at temperature T.

It is not the energy of `HopfieldNetwork`: there the state is the rate, which decays by the inverse of rho (the
circuit of 1984); here it is the potential, which decays by itself and passes the slope of its unit. The two agree
for linear units.

Displacements d from an origin move by

    rho'(u + d) dp + [rho'(u + d) - rho'(u)] p - d,        dp_k = W_k dr_{k-1} + W_{k+1}^T dr_{k+1}

with dr = rho(u + d) - rho(u) by the laws of units. All rates obey a Riccati equation rho' = c0 + c1 rho + c2 rho^2,
so that rho'(u + d) - rho'(u) = dr (c1 + c2 (2 rho + dr)): no difference of numbers of size one anywhere.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from physics_ep.blocks import State
from physics_ep.errors import argument_error, is_real, require_seed, unknown_name
from physics_ep.nudging import Nudge
from physics_ep.placement import require_dense
from physics_ep.system import EnergySystem, Inputs, Phase
from physics_ep.units import torch_functions

from ..arrays import counts
from ..layers.couplings import Dense

RICCATI = {"linear": (1.0, 0.0, 0.0), "tanh": (1.0, 0.0, -1.0), "logistic": (0.0, 1.0, -1.0)}
"""Rates by name: (c0, c1, c2) of rho' = c0 + c1 rho + c2 rho^2. The hard sigmoid has no slope at its kinks."""


class LangevinHopfield(EnergySystem):
    """Layered Hopfield network of potentials, dimensionless, with a temperature for its dynamics.

    The state is the potentials u_1 ... u_L, (B, n) each; the outputs are those of the last layer.

    Parameters
    ----------
    sizes : sequence of int
        [inputs, hidden ..., outputs].
    activation : {'tanh', 'logistic', 'linear'}
        Rate rho of the hidden layers.
    output_activation : {'linear', 'tanh', 'logistic'}
        Rate of the output layer. Linear by default: its potential is then what the layers below see of it.
    gain : float
        Couplings start uniform in +-gain / sqrt(n_in).
    temperature : float
        Temperature of the Langevin dynamics, in the unit of the energy; `simulate` takes it unless told another.
        Equilibria (`relax`) are those at rest.
    seed : int
        Seed of the couplings.

    Attributes
    ----------
    layers : ModuleList of Dense
        `weight` (n_out, n_in) and `bias` (n_out,) of each.

    Raises
    ------
    InputError
        If an argument is not as above.

    Notes
    -----
    With linear units the energy is quadratic, and bounded from below only where its Hessian is positive.

    Examples
    --------
    >>> import torch
    >>> from physics_ep import relax
    >>> system = LangevinHopfield([4, 8, 2])
    >>> free = relax(system, torch.ones(1, 4)).require()
    >>> bool(free.converged.all())
    True
    """

    # Strongly coupled, it has many minima: descent ends in one near by, which mixed steps may leave.
    default_solver = "gradient_flow"
    residual_scale = 1.0
    nudge_scale = 1.0
    default_max_iterations = 5000
    analytic = True
    clamps = False

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str = "tanh",
        *,
        output_activation: str = "linear",
        gain: float = 0.5,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not counts(sizes) or len(sizes) < 2:
            raise argument_error("sizes", "be at least two positive integers [inputs, ..., outputs]", sizes)
        require_dense(sizes)
        for name, value in (("activation", activation), ("output_activation", output_activation)):
            if value not in RICCATI:
                raise unknown_name(name, value, RICCATI)
        if not (is_real(gain) and gain > 0):
            raise argument_error("gain", "be a positive number", gain)
        if not (is_real(temperature) and temperature >= 0):
            raise argument_error("temperature", "be a number of at least 0", temperature)
        require_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        self.sizes = tuple(sizes)
        self.example_shape = self.sizes[:1]
        self.layers = nn.ModuleList(
            Dense(n_in, n_out, gain, generator) for n_in, n_out in itertools.pairwise(self.sizes)
        )
        names = [activation] * (len(self.sizes) - 2) + [output_activation]
        self.rates = [torch_functions(name) for name in names]
        self.riccati = [RICCATI[name] for name in names]
        self.temperature = float(temperature)

    @property
    def couplings(self) -> list[Dense]:
        """The network's `layers`, with their type for checkers."""
        return cast(list[Dense], list(self.layers))

    # -- the contract -----------------------------------------------------------------------------------------

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor | float = 0.0
        below = x
        for layer, rate, u in zip(self.couplings, self.rates, state, strict=True):
            r = rate.response(u)
            total = total + (0.5 * u * u - r * layer.biased(below)).sum(1)
            below = r
        assert isinstance(total, torch.Tensor)
        return total

    def force(self, state: State, x: torch.Tensor) -> State:
        drives = self.drives(state, self.couplings[0].biased(x))
        return tuple(rate.slope(u) * p - u for rate, u, p in zip(self.rates, state, drives, strict=True))

    def initial_state(self, x: torch.Tensor) -> State:
        return tuple(torch.zeros(x.shape[0], n, dtype=self.dtype, device=self.device) for n in self.sizes[1:])

    def outputs(self, state: State) -> torch.Tensor:
        return state[-1]

    def curvature_diagonal(self, state: State, x: torch.Tensor) -> State | None:
        with torch.no_grad():
            drives = self.drives(state, self.couplings[0].biased(x))
            diagonal = []
            for rate, (_, c1, c2), u, p in zip(self.rates, self.riccati, state, drives, strict=True):
                bend = rate.slope(u) * (c1 + 2 * c2 * rate.response(u))
                diagonal.append((1 - bend * p).clamp(min=0.1))
        return tuple(diagonal)

    def prepare(self, x: torch.Tensor) -> Inputs:
        self.check_input(x)
        return Inputs(x, self.couplings[0].biased(x))

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> PotentialPhase:
        return PotentialPhase(self, inputs, origin, balanced)

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            grads = {}
            pre: tuple[torch.Tensor | None, torch.Tensor] = (None, x)
            for k, (layer, rate) in enumerate(zip(self.couplings, self.rates, strict=True)):
                anchor = rate.anchor(free[k])
                r, up = rate.response(free[k]), rate.displaced(plus[k], *anchor)
                down = torch.zeros_like(up) if minus is None else rate.displaced(minus[k], *anchor)
                post = -weight[:, None] * (up - down), r + 0.5 * (up + down)
                grads[f"layers.{k}.weight"], grads[f"layers.{k}.bias"] = layer.contrast(*post, *pre)
                pre = post
        return grads

    # -- helpers ----------------------------------------------------------------------------------------------

    def drives(self, state: State, clamped: torch.Tensor) -> State:
        """Drives p_k of all layers, `clamped` being W_1 x + b_1."""
        r = [rate.response(u) for rate, u in zip(self.rates, state, strict=True)]
        drives = [clamped, *(layer.biased(below) for layer, below in zip(self.couplings[1:], r[:-1], strict=True))]
        for k in range(len(r) - 1):
            drives[k] = self.couplings[k + 1].transpose(r[k + 1], None, drives[k])
        return tuple(drives)


class PotentialPhase(Phase):
    """Relaxation of a `LangevinHopfield`: the potentials themselves, or displacements carried from an origin."""

    system: LangevinHopfield
    carries_displacements = True

    def __init__(self, system: LangevinHopfield, inputs: Inputs, origin: State | None, balanced: bool) -> None:
        super().__init__(system, inputs, origin, balanced)
        if origin is not None:
            self.base = [
                (rate.response(u), rate.slope(u), p, rate.anchor(u))
                for rate, u, p in zip(system.rates, origin, system.drives(origin, inputs.cache), strict=True)
            ]
            self.missing = (
                None
                if balanced
                else tuple(slope * p - u for (_, slope, p, _), u in zip(self.base, origin, strict=True))
            )

    def stacked(self, nudges: Sequence[Nudge]) -> PotentialPhase | None:
        assert self.origin is not None
        n = len(nudges)
        twin = PotentialPhase(
            self.system,
            Inputs(self.x.repeat(n, 1), self.inputs.cache.repeat(n, 1)),
            tuple(s.repeat(n, 1) for s in self.origin),
            self.balanced,
        )
        twin.nudge = Nudge.stacked(nudges, len(self.x), nudges[0].dtype(self.dtype), self.x.device)
        return twin

    def nudged(self, nudge: Nudge | None) -> PotentialPhase:
        twin = copy.copy(self)
        twin.nudge = nudge
        return twin

    def force(self, z: State) -> State:
        """-dF/du at z; of a displacement, in differences alone."""
        force = self._displaced(z) if self.origin is not None else list(self.system.force(z, self.x))
        if self.nudge is not None:
            cost, y = self.nudge.cost, self.nudge.y
            if self.origin is None:
                slope = cost.gradient(z[-1], y)
            else:
                out = self.origin[-1]
                slope = cost.gradient(out, y) + cost.gradient_difference(out, z[-1], y)
            force[-1] = force[-1] - self.nudge.column(slope) * slope
        return tuple(force)

    def unbounded_force(self, z: State) -> State:
        return self.force(z)

    def _displaced(self, z: State) -> list[torch.Tensor]:
        """Force at origin + z, less that at the origin where the phase is balanced."""
        layers = self.system.couplings
        shifts = [
            rate.displaced(d, *anchor)
            for rate, d, (_, _, _, anchor) in zip(self.system.rates, z, self.base, strict=True)
        ]
        force = []
        for k, (d, shift, (r, slope, p, _)) in enumerate(zip(z, shifts, self.base, strict=True)):
            _, c1, c2 = self.system.riccati[k]
            bent = shift * (c1 + c2 * (2 * r + shift))
            moved = bent * p - d
            change = None if k == 0 else layers[k].forward(shifts[k - 1])
            if k + 1 < len(layers):
                change = layers[k + 1].transpose(shifts[k + 1], None, change)
            force.append(moved if change is None else moved + (slope + bent) * change)
        return force if self.missing is None else [f + m for f, m in zip(force, self.missing, strict=True)]

    def project(self, z: State) -> State:
        return z
