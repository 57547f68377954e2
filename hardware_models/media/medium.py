"""The diffusive FitzHugh-Nagumo medium: an excitable chain or sheet that learns at its stationary states.

    u_t       = d_u Lap u + f(u) - v + I
    tau_v v_t = d_v Lap v + u - g v

on a grid of sites, with I = W x + b at each site. Both right-hand sides come from one energy (Kendall 2026, arXiv
2605.21568), a sum over sites and edges (times the volume of a cell it is the integral):

    E = sum_edges [d_u (D u)^2 - d_v (D v)^2] / (2 h^2) + sum_sites [-F(u) + u v - g v^2 / 2 - I u],   F' = f,

of which u descends, u_t = -dE/du, and v ascends, tau_v v_t = +dE/dv. Stationary states are saddles of E;
equilibrium propagation holds at any of them whose Hessian has an inverse. E is quadratic and concave in v, so that
the best v leaves a reduced energy of u alone, max_v E, bounded from below: its minima are the states that the
medium settles in if v is fast. The default solver, 'newton', finds them; 'skew_flow' follows the medium in time.

Everything is dimensionless: u and v are of order one, time counts in units of the reaction's, lengths in any unit
that the spacing and the diffusion coefficients (length^2 per time) share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from physics_ep.blocks import State
from physics_ep.errors import argument_error, is_real, require_seed, unknown_name
from physics_ep.placement import require_dense
from physics_ep.reads import likely
from physics_ep.system import EnergySystem, Inputs, Phase

from ..arrays import counts
from .fields import (
    REACTIONS,
    Cubic,
    bending,
    degrees,
    differences,
    edge_shapes,
    stiffness,
)
from .phase import MediumPhase, PreparedMedium
from .saddle import lattice
from .solvers import SOLVERS

BOUNDARIES = ("neumann", "periodic")
MOST_SITES = 10**7
"""Sites of the largest medium."""


class FitzHughNagumoChain(EnergySystem):
    """Diffusive FitzHugh-Nagumo medium on a chain, a ring, or a two-dimensional sheet.

    States: (u, v), each (B, *grid). Outputs: u at the sites `read`. Trained: the input's weights W (driven sites,
    features), currents b and control parameters of the reaction at each site, diffusion coefficients of u and v at
    each edge, which `constrain` keeps from becoming negative.

    Parameters
    ----------
    sizes : sequence of int
        [features, sites, outputs].
    reaction : {'bistable', 'odd'}
        f(u) = u (1 - u) (u - a), with a threshold a, or r u - u^3, with a gain r.
    grid : sequence of int, optional
        [rows, columns] of a sheet, rows * columns = sites. Default: a chain.
    boundary : {'neumann', 'periodic'}
        Walls, or a ring (torus).
    diffusion_u, diffusion_v : float
        d_u and d_v at the start, not negative.
    control : float, optional
        a or r at the start; default 0.25 or 0.5.
    leak : float
        g, positive.
    tau_v : float
        Time constant of v, positive; stationary states do not depend on it, their stability does.
    spacing : float
        h, positive.
    driven : sequence of int, optional
        Sites that the input reaches, numbered row by row. Default: all.
    read : sequence of int, optional
        Sites of the outputs. Default: evenly spread.
    gain : float
        Input weights start uniform in +-gain / sqrt(features).
    seed : int
        Seed of the input weights.

    Raises
    ------
    InputError
        If an argument is not as above.

    Examples
    --------
    >>> import torch
    >>> from physics_ep import relax
    >>> system = FitzHughNagumoChain([4, 12, 3])
    >>> free = relax(system, torch.rand(2, 4)).require()
    >>> tuple(free.state[0].shape), tuple(system.outputs(free.state).shape)
    ((2, 12), (2, 3))
    >>> bool((system.spectrum(free.state, torch.rand(2, 4)).real < 0).all())
    True
    """

    driven_at: torch.Tensor
    read_at: torch.Tensor
    default_solver = "newton"
    residual_scale = 1.0
    nudge_scale = 1.0
    default_max_iterations = 500
    multistable = True
    descends = False
    directions = (1, -1)
    clamps = False
    analytic = True
    residual_unit = "u per unit of time"
    state_unit = "dimensionless"
    energy_unit = "dimensionless"
    time_unit = "reaction times"

    def __init__(
        self,
        sizes: Sequence[int],
        reaction: str = "bistable",
        *,
        grid: Sequence[int] | None = None,
        boundary: str = "neumann",
        diffusion_u: float = 0.5,
        diffusion_v: float = 0.5,
        control: float | None = None,
        leak: float = 1.0,
        tau_v: float = 1.0,
        spacing: float = 1.0,
        driven: Sequence[int] | None = None,
        read: Sequence[int] | None = None,
        gain: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not counts(sizes) or len(sizes) != 3:
            raise argument_error("sizes", "be three positive integers [features, sites, outputs]", sizes)
        if sizes[1] > MOST_SITES:
            raise argument_error("sizes", f"have at most {MOST_SITES:,} sites", sizes)
        require_dense(sizes[:2])
        features, sites, outputs = sizes
        if reaction not in REACTIONS:
            raise unknown_name("reaction", reaction, REACTIONS)
        if boundary not in BOUNDARIES:
            raise unknown_name("boundary", boundary, BOUNDARIES)
        shape = (sites,) if grid is None else tuple(grid)
        if not counts(shape) or len(shape) > 2 or math.prod(shape) != sites:
            must = f"be one or two positive integers with the product {sites}, the number of sites"
            raise argument_error("grid", must, grid)
        if boundary == "periodic" and min(shape) < 3:
            raise argument_error("boundary", "be 'neumann' on an axis of less than three sites", repr(boundary))
        for name, value in {"leak": leak, "tau_v": tau_v, "spacing": spacing, "gain": gain}.items():
            if not (is_real(value) and value > 0):
                raise argument_error(name, "be a positive number", value)
        if not 1e-100 < spacing < 1e100:
            raise argument_error("spacing", "lie within 1e-100 and 1e100, so that its square is a number", spacing)
        for name, value in {"diffusion_u": diffusion_u, "diffusion_v": diffusion_v}.items():
            if not (is_real(value) and value >= 0):
                raise argument_error(name, "be a number that is not negative", value)
        control = REACTIONS[reaction].control if control is None else control
        if not is_real(control):
            raise argument_error("control", "be a finite number", control)
        require_seed(seed)
        self.sizes = (features, sites, outputs)
        self.example_shape = (features,)
        self.grid, self.boundary, self.periodic = shape, boundary, boundary == "periodic"
        self.reaction, self.leak, self.tau_v, self.spacing = reaction, leak, tau_v, spacing
        self.time_constants = (1.0, float(tau_v))
        self.lattice = lattice(shape, self.periodic)
        driven = range(sites) if driven is None else _places("driven", driven, sites)
        if read is None:
            if outputs > sites:
                raise argument_error("sizes", "have no more outputs than sites", sizes)
            read = [(2 * k + 1) * sites // (2 * outputs) for k in range(outputs)]
        elif len(_places("read", read, sites)) != outputs:
            raise argument_error("read", f"name {outputs} sites, the number of outputs", read)
        self.driven, self.read = list(driven), list(read)
        self._register_places()
        generator = torch.Generator().manual_seed(seed)
        reach = gain / math.sqrt(features)
        self.weight = nn.Parameter(reach * (2 * torch.rand(len(self.driven), features, generator=generator) - 1))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.control = nn.Parameter(torch.full(shape, float(control)))
        edges = edge_shapes(shape, self.periodic)
        self.diffusion_u = nn.ParameterList(torch.full(edge, float(diffusion_u)) for edge in edges)
        self.diffusion_v = nn.ParameterList(torch.full(edge, float(diffusion_v)) for edge in edges)
        # Twenty explicit steps of this must not outrun the fastest mode of diffusion.
        stiffest = 4 * len(shape) * max(diffusion_u, diffusion_v / tau_v) / spacing**2
        self.time_constant = min(1.0, 20 / stiffest) if stiffest else 1.0

    # -- the contract -----------------------------------------------------------------------------------------

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        u, v = state
        alone = u * v - 0.5 * self.leak * v.square() - self.cubic(x).primitive(u)
        rates_u, rates_v = self.rates()
        spread = bending(u, rates_u, self.periodic) - bending(v, rates_v, self.periodic)
        return alone.flatten(1).sum(1) + spread

    def force(self, state: State, x: torch.Tensor) -> State:
        u, v = state
        rates_u, rates_v = self.rates()
        return (
            self.cubic(x).value(u) - v - stiffness(u, rates_u, self.periodic),
            self.leak * v - u + stiffness(v, rates_v, self.periodic),
        )

    def initial_state(self, x: torch.Tensor) -> State:
        rest = torch.zeros(x.shape[0], *self.grid, dtype=self.dtype, device=self.device)
        return rest, rest.clone()

    def outputs(self, state: State) -> torch.Tensor:
        return state[0].flatten(1).index_select(1, self.read_at)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Media that were pickled before hold their sites as lists alone."""
        super().__setstate__(state)
        if "read_at" not in self._buffers:
            self._register_places()

    def _register_places(self) -> None:
        """The driven and the read sites as buffers, which move with the module."""
        for name, places in (("driven_at", self.driven), ("read_at", self.read)):
            self.register_buffer(name, torch.tensor(places), persistent=False)

    def curvature_diagonal(self, state: State, x: torch.Tensor) -> State | None:
        along_u, along_v = (degrees(rates, self.periodic).detach() for rates in self.rates())
        ones = torch.ones_like(state[0])
        return (along_u + 1) * ones, (along_v + self.leak) * ones

    def prepare(self, x: torch.Tensor) -> Inputs:
        self.check_input(x)
        with torch.no_grad():
            cubic, (rates_u, rates_v) = self.cubic(x), self.rates()
        for name, rates in (("diffusion_u", rates_u), ("diffusion_v", rates_v)):
            sides = [r.min() for r in rates if r.numel()]
            if sides and not likely((torch.stack(sides) >= 0).all()):
                least = float(torch.stack(sides).min())
                must = "not be negative or NaN: call constrain() after each step of an optimizer"
                raise argument_error(name, must, f"{least * self.spacing**2:.3g} at an edge")
        medium = PreparedMedium(
            cubic,
            rates_u,
            rates_v,
            self.leak,
            self.tau_v,
            self.lattice,
            sites=self.sizes[1],
            read=self.read_at,
            periodic=self.periodic,
        )
        return Inputs(x, medium)

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> MediumPhase:
        return MediumPhase(self, inputs, origin, balanced)

    def solvers(self, phase: Phase) -> Mapping[str, Any]:
        return SOLVERS

    def contrast(
        self, free: State, plus: State, minus: State | None, x: torch.Tensor, weight: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The contrast of `EnergySystem.contrast`: products of differences e and means m of the two states."""
        with torch.no_grad():
            column = weight.view(-1, *[1] * len(self.grid))
            moved = plus if minus is None else tuple(p - q for p, q in zip(plus, minus, strict=True))
            halves = plus if minus is None else tuple(p + q for p, q in zip(plus, minus, strict=True))
            means = [torch.add(s, d, alpha=0.5) for s, d in zip(free, halves, strict=True)]
            e, m = column * moved[0], means[0]
            # Changes of u^2 / 2 and u^3 / 3, over e, with what a unit of the control parameter makes of them.
            first, second = REACTIONS[self.reaction].slopes
            turned = first * m + second * (m.square() + moved[0].square() / 12)
            grads = {
                "weight": -e.flatten(1).index_select(1, self.driven_at).mT @ x.to(e.dtype),
                "bias": -e.sum(0),
                "control": -(e * turned).sum(0),
            }
            for name, sign, k in (("diffusion_u", 1, 0), ("diffusion_v", -1, 1)):
                for axis in range(len(self.grid)):
                    bend = differences(moved[k], axis, self.periodic) * differences(means[k], axis, self.periodic)
                    grads[f"{name}.{axis}"] = (column * bend).sum(0) * (sign / self.spacing**2)
        return {name: g.real for name, g in grads.items() if self.get_parameter(name).requires_grad}

    def constrain(self) -> None:
        """Keep diffusion coefficients from becoming negative."""
        with torch.no_grad():
            for d in (*self.diffusion_u, *self.diffusion_v):
                d.clamp_(min=0)

    # -- the medium -------------------------------------------------------------------------------------------

    def cubic(self, x: torch.Tensor) -> Cubic:
        """What each site does by itself: current (B, *grid) and reaction."""
        current = x @ self.weight.mT
        if len(self.driven) < self.sizes[1]:
            everywhere = current.new_zeros(x.shape[0], self.sizes[1])
            current = everywhere.index_copy(1, self.driven_at, current)
        current = current.unflatten(1, self.grid) + self.bias
        return REACTIONS[self.reaction].cubic(current, self.control)

    def rates(self) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """d_u / h^2 and d_v / h^2, a tensor an axis."""
        scale = 1 / self.spacing**2
        first, second = (
            tuple(scale * d for d in cast(list[torch.Tensor], list(family)))
            for family in (self.diffusion_u, self.diffusion_v)
        )
        return first, second

    def positions(self) -> tuple[torch.Tensor, ...]:
        """Coordinates of the sites along each axis, in units of length: (n,) an axis."""
        return tuple(self.spacing * torch.arange(n, dtype=self.dtype, device=self.device) for n in self.grid)

    def hessian(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """d2E/ds2 at a state, dense, (B, 2 sites, 2 sites): u of all sites, then v. Symmetric, not definite."""
        n = self.sizes[1]
        with torch.no_grad():
            eye = torch.eye(n, dtype=self.dtype, device=self.device).unflatten(1, self.grid)
            rates_u, rates_v = self.rates()
            slope = self.cubic(x).slope(state[0]).flatten(1)
            hessian = state[0].new_zeros(slope.shape[0], 2 * n, 2 * n)
            hessian[:, :n, :n] = stiffness(eye, rates_u, self.periodic).flatten(1) - torch.diag_embed(slope)
            hessian[:, n:, n:] = -stiffness(eye, rates_v, self.periodic).flatten(1)
            for block in (hessian[:, :n, n:], hessian[:, n:, :n]):
                block.diagonal(dim1=1, dim2=2).fill_(1)
            hessian[:, n:, n:].diagonal(dim1=1, dim2=2).sub_(self.leak)
        return hessian

    def spectrum(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Rates of growth of small disturbances of a stationary state, (B, 2 sites), complex, the largest first.

        Eigenvalues of the flow (u_t, v_t) linearised at the state, tau_v included: it is stable where all real
        parts are negative. Costs (2 sites)^3 operations an example.
        """
        n = self.sizes[1]
        flow = -self.hessian(state, x)
        flow[:, n:] *= -1 / self.tau_v
        values = torch.linalg.eigvals(flow)
        return values.gather(1, values.real.argsort(dim=1, descending=True))


def _places(name: str, places: Sequence[int], sites: int) -> list[int]:
    """Different numbers of sites, checked."""
    given = list(places)
    whole = all(isinstance(k, int) and not isinstance(k, bool) and 0 <= k < sites for k in given)
    if not given or not whole or len(set(given)) < len(given):
        raise argument_error(name, f"be different numbers of sites, from 0 to {sites - 1}", places)
    return given
