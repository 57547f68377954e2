"""A chain read as a sequence of layers: Stoermer-Verlet in space, and why nobody should shoot with it.

Stationarity of a chain with walls, with the fluxes p_i = d_u,i (u_{i+1} - u_i) and q_i = d_v,i (v_{i+1} - v_i), is

    p_i = p_{i-1} - h^2 (f(u_i) - v_i + I_i),      u_{i+1} = u_i + p_i / d_u,i
    q_i = q_{i-1} - h^2 (u_i - g v_i),             v_{i+1} = v_i + q_i / d_v,i

the leapfrog scheme of a Hamiltonian system whose time is the layer ("Hamiltonian inference", Kendall 2026). It is a
two-point boundary problem, p_{-1} = p_{n-1} = 0 and q_{-1} = q_{n-1} = 0: the first layer is not known, and what is
wrong with it grows from layer to layer by the multipliers of the transfer matrix, which come in pairs l and 1 / l.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from physics_ep.blocks import State
from physics_ep.errors import argument_error

from .fields import Cubic
from .medium import FitzHughNagumoChain


@dataclass(frozen=True)
class Shooting:
    """How errors of the first layer grow along a chain when it is computed layer by layer.

    Attributes
    ----------
    error : Tensor (B, sites)
        Largest error of u or v in each layer, shot from the first layer of the stationary state: of rounding.
    growth : Tensor (B, sites)
        Factor by which the worst small error of the first layer is larger, in the Euclidean norm of (u, v).
    bound : Tensor (B, sites)
        What that cannot exceed, by `growth_bound`.
    """

    error: torch.Tensor
    growth: torch.Tensor
    bound: torch.Tensor


def next_layers(system: FitzHughNagumoChain, state: State, x: torch.Tensor) -> State:
    """What the recurrence makes of each layer and the one before it: layers 1 to n - 1, each (B, sites - 1).

    At a stationary state, that state's own next layers.
    """
    medium = _Recurrence(system, x)
    u, v = state
    fluxes = medium.d_u * u.diff(dim=1), medium.d_v * v.diff(dim=1)
    wall = torch.zeros_like(u[:, :1])
    before = [torch.cat([wall, p[:, :-1]], 1) for p in fluxes]
    source = medium.sources(u, v, slice(None))
    p, q = (flux - medium.square * s[:, :-1] for flux, s in zip(before, source, strict=True))
    return u[:, :-1] + p / medium.d_u, v[:, :-1] + q / medium.d_v


def shoot(system: FitzHughNagumoChain, first: State, x: torch.Tensor) -> State:
    """Whole chain from its first layer, layer by layer.

    Parameters
    ----------
    system : FitzHughNagumoChain
    first : tuple of Tensor (B,)
        u and v of the first site.
    x : Tensor (B, features)

    Returns
    -------
    tuple of Tensor (B, sites)
        Whatever the recurrence makes of it: infinite or NaN where it has run away.
    """
    medium = _Recurrence(system, x)
    u, v = first
    p, q = torch.zeros_like(u), torch.zeros_like(v)
    layers = [(u, v)]
    for i in range(medium.depth):
        a, b = medium.sources(u[:, None], v[:, None], slice(i, i + 1))
        p, q = p - medium.square * a[:, 0], q - medium.square * b[:, 0]
        u, v = u + p / medium.d_u[i], v + q / medium.d_v[i]
        layers.append((u, v))
    return tuple(torch.stack(blocks, 1) for blocks in zip(*layers, strict=True))


def shooting(system: FitzHughNagumoChain, state: State, x: torch.Tensor) -> Shooting:
    """Shoot from the first layer of a stationary state: what becomes of rounding, beside what must and what can."""
    shot = shoot(system, (state[0][:, 0], state[1][:, 0]), x)
    gaps = torch.stack([(a - b).abs() for a, b in zip(shot, state, strict=True)]).amax(0)
    return Shooting(gaps.nan_to_num(nan=torch.inf), error_growth(system, state, x), growth_bound(system, state, x))


def error_growth(system: FitzHughNagumoChain, state: State, x: torch.Tensor) -> torch.Tensor:
    """Spectral norm of d(u_i, v_i) / d(u_0, v_0) along a state, (B, sites): products of transfer matrices."""
    medium = _Recurrence(system, x)
    matrices = medium.slopes(state)
    inverse = torch.stack([1 / medium.d_u, 1 / medium.d_v], 1)
    layer = torch.eye(2, dtype=matrices.dtype, device=matrices.device).expand(len(matrices), 2, 2)
    flux = torch.zeros_like(layer)
    norms = [torch.linalg.matrix_norm(layer, 2)]
    for i in range(medium.depth):
        flux = flux - medium.square * matrices[:, i] @ layer
        layer = layer + inverse[i][:, None] * flux
        norms.append(torch.linalg.matrix_norm(layer, 2))
    return torch.stack(norms, 1)


def growth_bound(system: FitzHughNagumoChain, state: State, x: torch.Tensor) -> torch.Tensor:
    """What `error_growth` cannot exceed, (B, sites), by the triangle inequality in every layer.

    e_{i+1} = e_i + r_i and r_i = c_i r_{i-1} + m_i e_i, with m_i the norm of h^2 d^-1 (f', -1; 1, -g) at the layer
    and c_i the larger ratio of successive diffusion coefficients. In a uniform medium it grows like l^i,
    l = 1 + m / 2 + sqrt(m + m^2 / 4).
    """
    medium = _Recurrence(system, x)
    d = torch.stack([medium.d_u, medium.d_v], 1)
    sizes = torch.linalg.matrix_norm(medium.square * medium.slopes(state)[:, :-1] / d[:, :, None], 2)
    ratios = torch.cat([torch.ones_like(d[:1]), d[:-1] / d[1:]]).amax(1)
    error, rise = torch.ones_like(sizes[:, 0]), torch.zeros_like(sizes[:, 0])
    errors = [error]
    for i in range(medium.depth):
        rise = ratios[i] * rise + sizes[:, i] * error
        error = error + rise
        errors.append(error)
    return torch.stack(errors, 1)


def multiplier(slope: float, diffusion_u: float, diffusion_v: float, leak: float, spacing: float = 1.0) -> float:
    """Largest multiplier of an error per layer in a uniform state, where f'(u) = slope.

    l + 1 / l = 2 + m with m an eigenvalue of -h^2 (f' / d_u, -1 / d_u; 1 / d_v, -g / d_v).
    """
    rows = [[slope / diffusion_u, -1 / diffusion_u], [1 / diffusion_v, -leak / diffusion_v]]
    m = torch.linalg.eigvals(-(spacing**2) * torch.tensor(rows, dtype=torch.float64))
    root = (m + m.square() / 4).sqrt()
    return float(torch.cat([1 + m / 2 + root, 1 + m / 2 - root]).abs().max())


def layers_within(growth: torch.Tensor, error: float = 1e-16) -> torch.Tensor:
    """Layers until an error of the first one has become 1, (B,), of a growth (B, sites); -1 where it does not."""
    over = growth * error >= 1
    return torch.where(over.any(1), over.int().argmax(1), -1)


class _Recurrence:
    """Coefficients of a chain with walls."""

    def __init__(self, system: FitzHughNagumoChain, x: torch.Tensor) -> None:
        if len(system.grid) != 1 or system.periodic:
            raise argument_error("system", "be a chain with walls", f"{list(system.grid)}, {system.boundary!r}")
        with torch.no_grad():
            system.check_input(x)
            self.d_u, self.d_v = system.diffusion_u[0].detach(), system.diffusion_v[0].detach()
            self.cubic = system.cubic(x)
        if not bool((self.d_u > 0).all() & (self.d_v > 0).all()):
            raise argument_error("diffusion_u and diffusion_v", "be positive at every edge", "0 at some")
        self.leak, self.square, self.depth = system.leak, system.spacing**2, system.sizes[1] - 1

    def sources(self, u: torch.Tensor, v: torch.Tensor, sites: slice) -> State:
        """f(u) - v + I and u - g v at some sites."""
        cubic = Cubic(*(p[..., sites] for p in self.cubic))
        return cubic.value(u) - v, u - self.leak * v

    def slopes(self, state: State) -> torch.Tensor:
        """(f', -1; 1, -g) of each site, (B, sites, 2, 2)."""
        slope = self.cubic.slope(state[0])
        ones = torch.ones_like(slope)
        return torch.stack([slope, -ones, ones, -self.leak * ones], -1).unflatten(-1, (2, 2))
