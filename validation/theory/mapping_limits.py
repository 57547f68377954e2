"""What depth costs paired units: settling time, slack between h and u, and the damage of separate copies.

Linearised at the free state, with S the amplifiers' slopes, M_k = S_k^(1/2) W_k S_(k-1)^(1/2) and N the matrix
whose blocks below the diagonal are M_2 ... M_L, the internal voltages of h follow a damped oscillator (times in
tau_h, tau_u = 1 + m; derived for this project, for what docs/physics.md, Settling time, tells):

    (1 + m) r'' + C r' + K r = 0,    C = (2 + m) I - (1 + m) (N + N^T),    K = (I - N)^T (I - N) > 0

K > 0, so that no error is static and only oscillations can be lost; at m = 0 all rates are -1. C > 0 is enough for
stability at any m. Where C is not, modes beyond the axis are counted by Nyquist's rule, which a defective matrix
does not disturb as it does eigenvalues.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from hardware_models.devices.crossbars import stream
from hardware_models.devices.model import DeviceModel
from hardware_models.mapping.mapped import SETTLED, Mapped, map_pcn
from hardware_models.mapping.solvers import Flow
from physics_ep.blocks import largest
from physics_ep.cost import Cost
from physics_ep.equilibrium import NotConverged
from physics_ep.errors import InputError, argument_error
from physics_ep.extremes import greatest
from physics_ep.maps import DenseLink
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp

from ..gradients import compare
from ..oracles import backprop_gradient

DISTURBANCE = 1e-5
"""Standard deviation of the disturbance that decays, in units of activity: small enough to be linear."""
COPIES = ("h", "u", "transpose")
START = 0.03
"""Mismatch with which a search for the limit begins."""
INTERVALS = 64
"""Intervals of the coarse grid on which a phase is followed up the imaginary axis; it is refined where it turns."""
TURN, FINEST = math.pi / 4, 1e-9
"""Largest turn between neighbours of the grid; and their distance at which refining ends, in arc tan omega."""


def random_network(
    depth: int, activation: str, gain: float, *, width: int = 64, n_in: int = 20, n_out: int = 10, seed: int = 0
) -> PredictiveCodingNetwork:
    """Dense float64 network of `depth` layers with uniform random weights and small random biases.

    Parameters
    ----------
    depth : int
        Layers, the output layer included.
    activation : str
    gain : float
        Weights are uniform in +-gain / sqrt(n_in).
    width, n_in, n_out : int
        Units of hidden layers, inputs, outputs.
    seed : int
    """
    net = mlp([n_in, *[width] * (depth - 1), n_out], activation, gain=gain, seed=seed).double()
    with torch.no_grad():
        for k, layer in enumerate(net.stack):
            if layer.bias is not None:
                # A unit at exactly 0 would be the exception.
                normal = torch.randn(layer.bias.shape, generator=stream(seed, "bias", k), dtype=torch.float64)
                layer.bias.copy_(0.05 * normal)
    return net


def disturbance_decay(
    mapped: Mapped, x: torch.Tensor, tolerance: float = SETTLED, *, seed: int = 0, longest: float = 400.0
) -> float:
    """Time in which a random disturbance of the free state falls to a share of itself.

    Parameters
    ----------
    mapped : Mapped
    x : Tensor (B, ...)
    tolerance : float
        The share.
    seed : int
        Seed of the disturbance.
    longest : float
        Time constants after which to give up.

    Returns
    -------
    float
        Time constants of h, to half of one; infinite if it takes longer. The slowest example counts.
    """
    phase = mapped.system.phase(mapped.system.prepare(x))
    generator = torch.Generator().manual_seed(seed)
    start = tuple(
        s + DISTURBANCE * torch.randn(s.shape, generator=generator, dtype=s.dtype).to(s.device)
        for s in phase.state(phase.start())
    )
    active = torch.ones(len(x), dtype=torch.bool, device=x.device)
    with torch.no_grad():
        flow = Flow(phase, start)
        first = largest(tuple(flow.w)).max()
        for steps in range(math.ceil(longest / flow.step)):
            if largest(tuple(flow.w)).max() <= tolerance * first:
                return flow.step * steps
            flow.evaluate()
            flow.advance(active)
    return math.inf


def mismatch_limit(mapped: Mapped, x: torch.Tensor, *, resolution: float = 0.02, most: float = 10.0) -> float:
    """How much slower u may be than h before the free state is lost.

    Parameters
    ----------
    mapped : Mapped
        A mapped network of dense layers in a row, one array for h, u and the transposed read, equal amplifiers. Its
        own mismatch of time constants is not looked at.
    x : Tensor (B, ...)
        Stability is a matter of each example; the one that is lost first counts.
    resolution : float
        Relative, of the result.
    most : float
        Mismatch above which nothing is looked for.

    Returns
    -------
    float
        Largest stable (tau_u - tau_h) / tau_h; infinite if it is above `most`.

    Raises
    ------
    InputError
        If the circuit is another.
    """
    limit = math.inf
    for example in x:
        blocks = symmetric_couplings(mapped, example[None])
        if limit == math.inf:
            limit = _limit(blocks, START, resolution, most)
        elif unstable_modes(blocks, limit) > 0:
            limit = _limit(blocks, limit / 1.2, resolution, limit)
    return limit


def _limit(blocks: Sequence[torch.Tensor], start: float, resolution: float, most: float) -> float:
    """Stability limit of one example, by bisection; infinite if it is above `most`."""
    # What damping allows anyhow.
    top = _largest_sum(blocks)
    if top <= (2 + most) / (1 + most):
        return math.inf
    surely = max((2 - top) / (top - 1), 0.0)
    low = high = max(start, 1.2 * surely)
    if unstable_modes(blocks, low) == 0:
        while unstable_modes(blocks, high := 2 * low) == 0:
            low = high
            if low >= most:
                return math.inf
    else:
        while low > surely and unstable_modes(blocks, low := low / 2) > 0:
            high = low
        low = max(low, surely)
    while high - low > resolution * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if unstable_modes(blocks, middle) == 0 else (low, middle)
    return 0.5 * (low + high)


def symmetric_couplings(mapped: Mapped, x: torch.Tensor) -> list[torch.Tensor]:
    """M_2 ... M_L of the module's docstring at the free state of one example.

    Raises
    ------
    InputError
        If layers are not dense and in a row, copies or amplifiers differ, or x is not one example.
    """
    system = mapped.system
    if any(not isinstance(layer.link, DenseLink) or layer.skips for layer in system.stack):
        raise argument_error("mapped", "be of dense layers in a row", mapped.network.sizes)
    if not (system.shared and system.read_both_ways):
        raise InputError("Argument mapped must have one array for h, u and the transposed read, but has copies.")
    if len(x) != 1:
        raise argument_error("x", "be one example", len(x))
    with torch.no_grad():
        phase = system.phase(system.prepare(x))
        roots = [unit.slope(p)[0].double().sqrt() for unit, p in zip(system.amplifiers_h, phase.p, strict=True)]
        weights = [layer.weight.detach().double() for layer in system.stack]
    return [roots[k][:, None] * weights[k] * roots[k - 1] for k in range(1, len(weights))]


def unstable_modes(blocks: Sequence[torch.Tensor], mismatch: float) -> int:
    """Modes that grow, of paired units whose u is slower by a mismatch: zeros right of the axis, by Nyquist.

    Parameters
    ----------
    blocks : sequence of Tensor (n_k, n_(k-1))
        M_2 ... M_L.
    mismatch : float
        m = (tau_u - tau_h) / tau_h.

    Returns
    -------
    int
        They come in pairs.

    Notes
    -----
    With a = 1 / (1 + s) and b = 1 / (1 + (1 + m) s), r = a N r + a N^T (r - b N r), so that the modes are the zeros
    of det(I - a N - a N^T + a b N^T N), which is 1 at s = 0 and at infinity and has no pole right of the axis: its
    phase turns by -pi for each mode beyond it as s goes up the axis. The matrix is block-tridiagonal, and
    eliminating its layers from the outputs down gives D_k = I + M^T (a b I - a^2 D_(k+1)^-1) M, all I at m = 0;
    what is carried is D_k - I = M^T ((a b - a^2) I + a^2 D_(k+1)^-1 (D_(k+1) - I)) M.
    """
    # omega = tan(angle) from 0 to infinity, where the phase is 0 both times.
    angles = np.linspace(0, math.pi / 2, INTERVALS + 1)
    phases = np.pad(_phases(blocks, mismatch, np.tan(angles[1:-1])), [(0, 0), (1, 1)])
    while True:
        turns = _wrapped(np.diff(phases))
        wide = (np.abs(turns).max(0) > TURN) & (np.diff(angles) > FINEST)
        if not wide.any():
            return round(-turns.sum() / math.pi)
        between = 0.5 * (angles[:-1] + angles[1:])[wide]
        places = np.flatnonzero(wide) + 1
        phases = np.insert(phases, places, _phases(blocks, mismatch, np.tan(between)), axis=1)
        angles = np.insert(angles, places, between)


def copy_damage(
    net: PredictiveCodingNetwork,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    copies: Sequence[str],
    mismatch: float,
    *,
    seed: int = 0,
    beta: float = 1e-3,
    tolerance: float = 1e-5,
) -> float:
    """Damage that separate copies of an array do to EP's gradient, where one noisy array would do none.

    Parameters
    ----------
    net : PredictiveCodingNetwork
    x, y : Tensor
    cost : Cost
    copies : sequence of {'h', 'u', 'transpose'}
        Roles that have a copy of their own; none: one array, with as much programming noise.
    mismatch : float
        Relative standard deviation of the cells.
    seed : int
        Seed of the device instance.
    beta, tolerance : float
        Strength of the nudge, and tolerance of the equilibria.

    Returns
    -------
    float
        1 - cosine to backprop of the instance's own network, worst tensor; NaN where there is no equilibrium.

    Raises
    ------
    InputError
        If a copy is unknown or the mismatch is none.
    """
    for copy in copies:
        if copy not in COPIES:
            raise argument_error("copies", f"be of {', '.join(COPIES)}", repr(copy))
    # The smallest conductance must not matter: cells err in proportion to their conductance.
    fields = {f"copy_mismatch_{copy}": mismatch for copy in copies} or {"programming_noise": mismatch}
    mapped = map_pcn(net, device=DeviceModel(g_min=1e-9).replace(**fields), seed=seed)
    try:
        estimate = mapped.gradient(x, y, cost, beta=beta, tolerance=tolerance, method="energy")
    except NotConverged:
        return math.nan
    return greatest(1 - row.cosine for row in compare(estimate, backprop_gradient(mapped.perturbed, x, y, cost)))


def _largest_sum(blocks: Sequence[torch.Tensor]) -> float:
    """Largest eigenvalue of N + N^T."""
    if not blocks:
        return 0.0
    sizes = [blocks[0].shape[1], *(len(m) for m in blocks)]
    ends = np.cumsum([0, *sizes])
    n = torch.zeros(ends[-1], ends[-1], dtype=torch.float64)
    for k, m in enumerate(blocks):
        n[ends[k + 1] : ends[k + 2], ends[k] : ends[k + 1]] = m
    return float(torch.linalg.eigvalsh(n + n.t())[-1])


def _phases(blocks: Sequence[torch.Tensor], mismatch: float, frequencies: np.ndarray) -> np.ndarray:
    """Phases of det D_k at i omega, (L - 1, F)."""
    s = 1j * torch.from_numpy(frequencies)[:, None, None]
    a, b = 1 / (1 + s), 1 / (1 + (1 + mismatch) * s)
    turned = []
    above: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = (
        None  # D - I of the layer above, and D's factors
    )
    for m in reversed(blocks):
        wide = m.to(torch.complex128)
        # a b - a^2, without the difference.
        inner = -mismatch * s * a.square() * b * wide
        if above is not None:
            excess, factors, pivots = above
            inner = inner + a.square() * torch.linalg.lu_solve(factors, pivots, excess @ wide)
        excess = wide.t() @ inner
        eye = torch.eye(m.shape[1], dtype=excess.dtype)
        factors, pivots = torch.linalg.lu_factor(excess + eye)
        swaps = (pivots != torch.arange(1, m.shape[1] + 1)).sum(1)
        turned.append(factors.diagonal(dim1=1, dim2=2).angle().sum(1) + math.pi * swaps)
        above = excess, factors, pivots
    return torch.stack(turned).numpy()


def _wrapped(phase: np.ndarray) -> np.ndarray:
    return (np.asarray(phase) + math.pi) % (2 * math.pi) - math.pi
