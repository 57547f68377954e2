"""Layered networks of units with bilinear couplings, as matrix products.

Energy of layers s_1 ... s_L on the input s_0 = x (bilinear couplings counted once; literature: Hopfield 1984,
Scellier and Bengio 2017):

    E = sum_k Psi_k(s_k) - s_k . (W_k s_{k-1} + b_k)

The drive of layer k is p_k = W_k s_{k-1} + b_k + W_{k+1}^T s_{k+1}, its force p_k - Psi_k'(s_k), and the exact
minimum over layer k, the others held, is s_k = sigma_k(p_k) with sigma_k the inverse of Psi_k'. Layers of one
parity do not couple, so all even layers are minimised at once, then all odd ones.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from physics_ep.equilibrium import State
from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.nudging import Nudge
from physics_ep.system import EnergySystem, Inputs, Phase, largest

from .laws import UNITS

if TYPE_CHECKING:
    from .circuit import Circuit

OUTPUT_UNITS = ("linear", "hard_sigmoid")


class Dense(nn.Module):
    """All-to-all coupling from a layer of n_in units to one of n_out units, with the biases of the latter.

    Parameters
    ----------
    weight : Parameter (n_out, n_in)
    bias : Parameter (n_out,)
    """

    def __init__(self, n_in: int, n_out: int, gain: float, generator: torch.Generator) -> None:
        super().__init__()
        bound = gain / math.sqrt(n_in)
        draw = torch.rand(n_out, n_in, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter((bound * (2 * draw - 1)).to(torch.get_default_dtype()))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        """W s, (B, n_out)."""
        if s.is_complex():
            return torch.complex(self.forward(s.real), self.forward(s.imag))
        few, many = self.weight.shape
        # A product with few columns is slow in BLAS; with few rows it is not.
        return (self.weight @ s.t()).t() if 8 * few <= many else s @ self.weight.t()

    def biased(self, s: torch.Tensor) -> torch.Tensor:
        """W s + b, (B, n_out), in one product."""
        if s.is_complex():
            return self.forward(s) + self.bias
        return torch.addmm(self.bias, s, self.weight.t())

    def transpose(self, s: torch.Tensor) -> torch.Tensor:
        """W^T s, (B, n_in)."""
        if s.is_complex():
            return torch.complex(s.real @ self.weight, s.imag @ self.weight)
        return s @ self.weight

    def contrast(
        self, e_post: torch.Tensor, m_post: torch.Tensor, e_pre: torch.Tensor | None, m_pre: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Change of -dE/dW and -dE/db between two states with mean m and difference e; e_pre None: clamped.

        a+ b+ - a- b- = (a+ - a-) (b+ + b-)/2 + (a+ + a-)/2 (b+ - b-): no difference of products. The real part,
        for complex states.
        """
        if e_post.is_complex():
            # Re (a b) = Re a Re b - Im a Im b; a clamped input has no imaginary part.
            real = self.contrast(e_post.real, m_post.real, None if e_pre is None else e_pre.real, m_pre.real)
            if e_pre is None:
                return real
            imaginary = self.contrast(e_post.imag, m_post.imag, e_pre.imag, m_pre.imag)
            return real[0] - imaginary[0], real[1]
        weight = e_post.t() @ m_pre
        if e_pre is not None:
            weight = torch.addmm(weight, m_post.t(), e_pre)
        return weight, e_post.sum(0)


class Layered(EnergySystem):
    """Stack of dense couplings and units; `HopfieldNetwork` is its first user.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden layers, outputs.
    activation : str
        Unit law of the hidden layers (`hardware_models.laws.UNITS`).
    output_activation : str
        'linear' or 'hard_sigmoid': the units whose nudged update has a closed form.
    gain : float
        Couplings are drawn from U(-c, c), c = gain / sqrt(n_in).
    seed : int
    """

    default_solver = "anderson"
    default_max_iterations = 500

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str = "hard_sigmoid",
        *,
        output_activation: str = "linear",
        gain: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        whole = isinstance(sizes, Sequence) and all(isinstance(n, int) and n > 0 for n in sizes)
        if not whole or len(sizes) < 2:
            raise argument_error("sizes", "be at least two positive integers [inputs, ..., outputs]", sizes)
        if activation not in UNITS:
            raise unknown_name("activation", activation, UNITS)
        if output_activation not in OUTPUT_UNITS:
            raise unknown_name("output_activation", output_activation, OUTPUT_UNITS)
        if not (isinstance(gain, int | float) and 0 < gain < float("inf")):
            raise argument_error("gain", "be a positive number", gain)
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise argument_error("seed", "be an integer", seed)
        self.sizes = tuple(sizes)
        self.activation = activation
        self.output_activation = output_activation
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList(
            Dense(n_in, n_out, gain, generator) for n_in, n_out in itertools.pairwise(sizes)
        )
        names = [activation] * (len(sizes) - 2) + [output_activation]
        self.smooth = "hard_sigmoid" not in names
        self.analytic = all(UNITS[name].analytic for name in names)
        self.bounds = [UNITS[name].bounds for name in names]
        self.units = [UNITS[name].make(torch) for name in names]

    @property
    def couplings(self) -> list[Dense]:
        """`layers`, typed."""
        return cast(list[Dense], list(self.layers))

    # -- the contract -----------------------------------------------------------------------------------------

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor | float = 0.0
        below = x
        for layer, unit, s in zip(self.couplings, self.units, state, strict=True):
            total = total + unit.potential(s).sum(1) - (s * layer.biased(below)).sum(1)
            below = s
        assert isinstance(total, torch.Tensor)
        return total

    def force(self, state: State, x: torch.Tensor) -> State:
        drives = self.drives(state, self.couplings[0].biased(x))
        return tuple(p - unit.inverse(s) for p, unit, s in zip(drives, self.units, state, strict=True))

    def initial_state(self, x: torch.Tensor) -> State:
        return tuple(torch.zeros(x.shape[0], n, dtype=self.dtype, device=self.device) for n in self.sizes[1:])

    def outputs(self, state: State) -> torch.Tensor:
        return state[-1]

    def project(self, state: State) -> State:
        return tuple(s.clamp(lo, hi) for s, (lo, hi) in zip(state, self.bounds, strict=True))

    def free_variables(self, state: State, x: torch.Tensor) -> State | None:
        drives = self.drives(state, self.couplings[0].biased(x))
        return tuple(unit.slope(p) > 0 for p, unit in zip(drives, self.units, strict=True))

    def curvature_diagonal(self, state: State, x: torch.Tensor) -> State | None:
        limit = 1 / torch.finfo(self.dtype).eps
        return tuple(unit.curvature(s).clamp(max=limit) for s, unit in zip(state, self.units, strict=True))

    def check_input(self, x: torch.Tensor) -> None:
        if not isinstance(x, torch.Tensor) or x.ndim != 2 or x.shape[1] != self.sizes[0]:
            raise argument_error(
                "x", f"be a tensor (batch, {self.sizes[0]})", tuple(getattr(x, "shape", ())) or type(x).__name__
            )
        if x.dtype != self.dtype:
            raise argument_error("x", f"have the system's dtype {self.dtype}", x.dtype)
        super().check_input(x)

    def prepare(self, x: torch.Tensor) -> Inputs:
        self.check_input(x)
        return Inputs(x, self.couplings[0].biased(x))

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> LayeredPhase:
        return LayeredPhase(self, inputs, origin, balanced)

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            column = -weight[:, None]
            if minus is None:
                e = [column * p for p in plus]
                m = [torch.add(s, p, alpha=0.5) for s, p in zip(free, plus, strict=True)]
            else:
                e = [column * (p - q) for p, q in zip(plus, minus, strict=True)]
                m = [torch.add(s, p + q, alpha=0.5) for s, p, q in zip(free, plus, minus, strict=True)]
            grads = {}
            for k, layer in enumerate(self.couplings):
                below = (None, x) if k == 0 else (e[k - 1], m[k - 1])
                grads[f"layers.{k}.weight"], grads[f"layers.{k}.bias"] = layer.contrast(e[k], m[k], *below)
        return grads

    # -- helpers ----------------------------------------------------------------------------------------------

    def drives(self, state: State, clamped: torch.Tensor) -> State:
        """Drives p_k of all layers, `clamped` being W_1 x + b_1."""
        out = []
        for k in range(len(state)):
            p = clamped if k == 0 else self.couplings[k].biased(state[k - 1])
            if k + 1 < len(state):
                p = p + self.couplings[k + 1].transpose(state[k + 1])
            out.append(p)
        return tuple(out)

    def to_circuit(self) -> Circuit:
        """The same network as a graph, float64: nodes are the inputs, then the layers in order."""
        from .circuit import Circuit

        offsets = [sum(self.sizes[:k]) for k in range(len(self.sizes) + 1)]
        edges, weights = [], []
        for k, layer in enumerate(self.couplings):
            post = torch.arange(offsets[k + 1], offsets[k + 2])
            pre = torch.arange(offsets[k], offsets[k + 1])
            edges.append(torch.cartesian_prod(post, pre))
            weights.append(layer.weight.detach().double().flatten())
        names = [self.activation] * (len(self.sizes) - 2) + [self.output_activation]
        units = [name for name, n in zip(names, self.sizes[1:], strict=True) for _ in range(n)]
        return Circuit.from_edges(
            n_nodes=offsets[-1],
            edges=torch.cat(edges).numpy(),
            weights=torch.cat(weights).numpy(),
            units=units,
            inputs=list(range(self.sizes[0])),
            outputs=list(range(offsets[-2], offsets[-1])),
            biases=torch.cat([layer.bias.detach().double() for layer in self.couplings]).numpy(),
        )


class LayeredPhase(Phase):
    """Exact even/odd updates, in the state or carried in the displacement from an origin.

    A displaced unit moves by sigma(a + da) - sigma(a), computed without cancellation, where a is its drive at
    the origin and da the change of drive. The origin's own mismatch sigma(a) - s is added unless `balanced`.
    """

    exact_updates = True
    differentiable_updates = True
    pulled: torch.Tensor
    """Outputs at the origin, under the nudge."""
    strength: torch.Tensor | float | complex
    """The nudge's beta, shaped to multiply them."""

    def __init__(self, system: Layered, inputs: Inputs, origin: State | None, balanced: bool) -> None:
        self.system: Layered = system
        self.inputs = inputs
        self.nudge: Nudge | None = None
        self.balanced = balanced
        self.narrow = self.dtype = system.dtype
        self.x = inputs.x
        self.origin = origin
        self.layers = system.couplings
        self.depth = len(self.layers)
        self.copies = 1
        # The smaller half of the layers carries the iteration.
        halves = [list(range(start, self.depth, 2)) for start in (0, 1)]
        self.carried, self.implied = sorted(halves, key=lambda h: (not h, sum(system.sizes[k + 1] for k in h)))
        if origin is not None:
            drives = system.drives(origin, inputs.cache)
            self.anchors = [unit.anchor(p) for unit, p in zip(system.units, drives, strict=True)]
            settled = system.units[-1].response(drives[-1])
            # What the output's drive exceeds its bound by, which a nudge must overcome first.
            self.excess = drives[-1] - (settled if balanced else origin[-1])
            self.mismatch = (
                None
                if balanced
                else [unit.response(p) - s for unit, p, s in zip(system.units, drives, origin, strict=True)]
            )

    def start(self) -> State:
        if self.origin is None:
            return self.system.initial_state(self.x)
        rows = self.copies * self.x.shape[0]
        dtype = self.dtype if self.nudge is None else self.nudge.dtype(self.dtype)
        z = tuple(s.new_zeros((), dtype=dtype).expand(rows, s.shape[1]) for s in self.origin)
        # The output's answer to the nudge while the hidden layers are still at rest: one sweep saved.
        return z if self.nudge is None else (*z[:-1], self._nudged_output(None))

    def state(self, z: State) -> State:
        return (
            z if self.origin is None else tuple(self._spread(s).add(d) for s, d in zip(self.origin, z, strict=True))
        )

    def energy(self, z: State) -> torch.Tensor:
        with torch.no_grad():
            state = self.state(z)
            total = self.system.energy(state, self._spread(self.x))
            return total if self.nudge is None else total + self.nudge.energy(self.system.outputs(state))

    def stacked(self, nudges: Sequence[Nudge]) -> LayeredPhase | None:
        if not self.balanced:
            return None
        batch = self.x.shape[0]
        dtype = torch.promote_types(*(n.dtype(self.dtype) for n in (nudges[0], nudges[-1])))
        beta = torch.cat(
            [torch.as_tensor(n.beta, dtype=dtype).to(self.x.device).expand(batch) for n in nudges]
        )
        y = nudges[0].y
        twin = self.nudged(Nudge(nudges[0].cost, y.repeat(len(nudges), *[1] * (y.ndim - 1)), beta))
        twin.copies = len(nudges)
        twin.excess, twin.pulled = twin._spread(self.excess), twin._spread(twin.pulled)
        return twin

    def _spread(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of one batch for every stacked copy."""
        return rows if self.copies == 1 else rows.repeat(self.copies, 1)

    def nudged(self, nudge: Nudge | None) -> LayeredPhase:
        if nudge is not None and self.system.output_activation != "linear":
            from physics_ep.cost import OutputForce, SquaredError

            if not isinstance(nudge.cost, SquaredError | OutputForce):
                raise InputError(
                    "Argument output_activation must be 'linear' for a cost other than squared_error, but was "
                    f"{self.system.output_activation!r}."
                )
        twin = copy.copy(self)
        twin.nudge = nudge
        if nudge is not None and self.origin is not None:
            twin.pulled = self.origin[-1]
            twin.strength = nudge.column(twin.pulled)
        return twin

    def update(self, k: int, z: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Exact minimum over layer k of F, given z of its neighbours."""
        layers, last = self.layers, self.depth - 1
        below = None if k == 0 else z[k - 1]
        above = z[k + 1] if k < last else None
        if self.origin is None:
            drive = self.inputs.cache if below is None else layers[k](below) + layers[k].bias
            if above is not None:
                drive = torch.addmm(drive, above, layers[k + 1].weight)
            return self.system.units[k].response(drive)
        change = None if below is None else layers[k].forward(below)
        if above is not None:
            if change is None or above.is_complex():
                up = layers[k + 1].transpose(above)
                change = up if change is None else change + up
            else:
                change = torch.addmm(change, above, layers[k + 1].weight)
        elif self.nudge is not None:
            return self._nudged_output(change)
        if change is None:
            change = self._spread(torch.zeros_like(self.origin[k]))
        # Constants of one batch serve all stacked copies by broadcasting.
        change = change.reshape(self.copies, -1, change.shape[1])
        moved = self.system.units[k].displaced(change, *self.anchors[k]).flatten(0, 1)
        return moved if self.mismatch is None else moved + self.mismatch[k]

    def _nudged_output(self, change: torch.Tensor | None) -> torch.Tensor:
        assert self.nudge is not None
        assert self.origin is not None
        rhs = self.excess if change is None else change + self.excess
        out = self.pulled
        moved = self.nudge.cost.displaced_unit(out, self.nudge.y, self.strength, rhs)
        lo, hi = self.system.bounds[-1]
        return moved if math.isinf(lo) else torch.clamp(moved, lo - out, hi - out)

    def interface(self, z: State) -> State:
        return tuple(z[k] for k in self.carried)

    def sweep(self, u: State) -> tuple[State, State, torch.Tensor]:
        z: list[torch.Tensor | None] = [None] * self.depth
        for k, block in zip(self.carried, u, strict=True):
            z[k] = block
        for k in self.implied:
            z[k] = self.update(k, z)
        following = tuple(self.update(k, z) for k in self.carried)
        gap = tuple(n - o for n, o in zip(following, u, strict=True))
        # The implied layers are exact for u, so the carried ones hold the whole mismatch of z.
        return following, tuple(z), largest(gap) / self.system.residual_scale  # type: ignore[arg-type]

    def force(self, z: State) -> State:
        """sigma(p) - s of every layer: the force in the units' own metric (dp/dt = -p + drive, to first order).

        Equal to the projected force for hard sigmoid and linear units, to sigma' times the force for smooth
        ones: finite at saturation, where Psi' is not.
        """
        return tuple(self.update(k, z) - z[k] for k in range(self.depth))

    def project(self, z: State) -> State:
        if self.origin is None:
            return self.system.project(z)
        return tuple(
            d if math.isinf(lo) else torch.clamp(d, lo - self._spread(s), hi - self._spread(s))
            for d, s, (lo, hi) in zip(z, self.origin, self.system.bounds, strict=True)
        )
