"""Machines of oscillators that seek a maximum cut, all starts in one matrix product a step.

Spins s = +-1 have the Ising energy E = sum_{edges} w_ij s_i s_j, and a cut of (sum w - E) / 2. Each node counts
forces in units of its own c_i = sqrt(sum_j w_ij^2), so that nodes with small weights decide as soon as those with
large ones; p rises from 0 to 1 in a run:

* 'bifurcation': parametric oscillators, whose amplitudes x leave zero as the pump p grows, with walls at +-1 that
  take the momentum y: ballistic simulated bifurcation (Goto et al., Sci. Adv. 7, eabe7953, 2021, where all nodes
  have one c, the root mean square of these), dy_i/dt = (p - 1) x_i - sum_j w_ij x_j / (2 c_i), dx_i/dt = y_i.
* 'phase': phases with inertia, which couplings and a growing injection at the second harmonic turn
  (Wang and Roychowdhury, OIM, 2019; the energy of `OscillatorGraph` with W = -w),
  torque_i / c_i = -sum_j w_ij sin(phi_j - phi_i) / c_i - K p sin 2 phi_i.

A machine follows courses; it proves nothing: the cut of each start is a lower bound of the largest one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array

from physics_ep.errors import argument_error, require_count, unknown_name
from physics_ep.placement import available_memory, readable

from .graph_couplings import DENSE_SHARE
from .gset import WeightedGraph

SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "linear": lambda t: t,
    "quadratic": lambda t: t**2,
    "root": lambda t: t**0.5,
}
"""p as a function of the time, both from 0 to 1."""
STEP = 1.0
"""Time step of the bifurcation machine; Goto et al. take 1.25 to 0.5, by the problem."""
TURN = 0.5
"""Angle by which a torque of size c_i turns a phase in a step, less what inertia adds."""
INERTIA = 0.9
"""Share of its turn that a phase keeps from step to step."""
INJECTION = 0.6
"""K at the end of a run, in units of c_i."""
SPREAD = 0.1
"""Size of the amplitudes and momenta that starts are drawn from."""
NOISIEST = 1e3
"""Noise at most: amplitudes end at 1 and half a turn is pi, so that far less leaves nothing but noise."""
LONGEST = 10**7
"""Steps of a machine; its schedule is a list of as many numbers."""
FIELDS = 8
"""Numbers a node and start that a run holds at once."""


@dataclass(frozen=True)
class Cuts:
    """What many starts of a machine ended in.

    Attributes
    ----------
    spins : int8 Tensor (S, n)
        The side of each node, +1 or -1.
    cut : float64 Tensor (S,)
        Sum of the weights of the edges between the sides, counted from the spins.
    """

    spins: torch.Tensor
    cut: torch.Tensor

    @property
    def best(self) -> torch.Tensor:
        """Spins (n,) of the largest cut."""
        return self.spins[int(self.cut.argmax())]


def max_cut(
    graph: WeightedGraph,
    *,
    machine: str = "bifurcation",
    starts: int = 20,
    steps: int = 300,
    noise: float = 0.0,
    schedule: str | Sequence[float] = "linear",
    seed: int = 0,
) -> Cuts:
    """Seek a maximum cut from many random starts at once.

    Parameters
    ----------
    graph : WeightedGraph
    machine : {'bifurcation', 'phase'}
        Parametric oscillators, or phase oscillators.
    starts : int
    steps : int
        Steps in time, each of one product of the weights and all starts. More steps raise the mean cut, but in
        very slow courses all starts end in one cut, which need not be the best: then take more starts.
    noise : float, 0 to 1000
        Deviation of what is added to each momentum (of phases: to each turn, radians) in the first step, which is
        drawn evenly; it goes to zero with 1 - p.
    schedule : {'linear', 'quadratic', 'root'} or sequence of float
        How p rises; a sequence holds its values in [0, 1] at equal times, straight lines between them.
    seed : int
        Seed of starts and noise.

    Returns
    -------
    Cuts

    Raises
    ------
    InputError
        If an argument is not as above, or memory is too small for so many starts.

    Examples
    --------
    >>> ring = WeightedGraph(6, [[i, (i + 1) % 6] for i in range(6)])
    >>> float(max_cut(ring).cut.max())
    6.0
    """
    if not isinstance(graph, WeightedGraph):
        raise argument_error("graph", "be a WeightedGraph", type(graph).__name__)
    if machine not in MACHINES:
        raise unknown_name("machine", machine, MACHINES)
    require_count("starts", starts, most=2**63)  # memory decides
    require_count("steps", steps, most=LONGEST)
    require_count("seed", seed, 0, 2**63)
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise <= NOISIEST:
        raise argument_error("noise", f"be a number from 0 to {NOISIEST:g}", noise)
    pump = _pump(schedule, steps)
    needed = 4 * FIELDS * graph.n * starts
    there = available_memory(torch.device("cpu"))
    if there is not None and needed > there:
        raise argument_error(
            "starts", f"fit in memory: {readable(there)} are free", f"{starts}, {readable(needed)}"
        )
    x = MACHINES[machine](_couplings(graph), pump, (graph.n, starts), float(noise), np.random.default_rng(seed))
    spins = torch.from_numpy(np.where(x.T >= 0, 1, -1).astype(np.int8))
    return Cuts(spins, graph.cut(spins))


def _pump(schedule: str | Sequence[float], steps: int) -> np.ndarray:
    """p of each step, (steps,)."""
    time = np.arange(steps) / steps
    if isinstance(schedule, str):
        if schedule not in SCHEDULES:
            raise unknown_name("schedule", schedule, SCHEDULES)
        return np.asarray(SCHEDULES[schedule](time))
    try:
        values = np.asarray(schedule, np.float64)
    except (TypeError, ValueError):
        values = np.full(1, np.nan)
    if values.ndim != 1 or not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise argument_error("schedule", "be a name or numbers from 0 to 1", schedule)
    return np.interp(time, np.linspace(0, 1, len(values)), values)


def _couplings(graph: WeightedGraph) -> Any:
    """-w_ij / c_i in float32, (n, n): a matrix where many pairs are joined, else a sparse one."""
    n = graph.n
    tails, heads = np.concatenate([graph.edges.numpy(), graph.edges.numpy()[:, ::-1]]).T
    weight = -np.tile(graph.weights.numpy(), 2)
    # By the largest of each row first: squares of very large or small weights are beyond float64.
    largest = np.zeros(n)
    np.maximum.at(largest, tails, np.abs(weight))
    weight = weight / np.where(largest > 0, largest, 1)[tails]
    norm = np.sqrt(np.bincount(tails, weight**2, minlength=n))
    weight = weight / np.maximum(norm, 1)[tails]
    whole = csr_array(coo_array((weight.astype(np.float32), (tails, heads)), shape=(n, n)))
    return whole.toarray() if len(weight) >= DENSE_SHARE * n**2 else whole


def _bifurcation(
    couplings: Any, pump: np.ndarray, shape: tuple[int, int], noise: float, draws: np.random.Generator
) -> np.ndarray:
    """Amplitudes (n, S) at the end of a course of parametric oscillators."""
    x, y = (SPREAD * _even(draws, shape) for _ in range(2))
    half = couplings * np.float32(0.5 * STEP)
    for p in pump:
        y += half @ x
        y += np.float32(STEP * (p - 1)) * x
        if noise:
            y += np.float32(noise * (1 - p) * math.sqrt(3)) * _even(draws, shape)
        x += y if STEP == 1 else np.float32(STEP) * y
        y *= np.abs(x) <= 1
        np.clip(x, -1, 1, out=x)
    return x


def _phase(
    couplings: Any, pump: np.ndarray, shape: tuple[int, int], noise: float, draws: np.random.Generator
) -> np.ndarray:
    """Cosines (n, S) of the phases at the end of a course of phase oscillators."""
    z = phasors(math.pi * _even(draws, shape))
    turn = np.zeros(shape, np.float32)
    for p in pump:
        turn *= np.float32(INERTIA)
        turn += np.float32(TURN) * torque(couplings, z, INJECTION * p)
        if noise:
            turn += np.float32(noise * (1 - p) * math.sqrt(3)) * _even(draws, shape)
        c, s = z[:, : shape[1]], z[:, shape[1] :]
        # Along the tangent, then back on to the circle: no sines and cosines, which cost more than the product.
        moved = c - turn * s
        s += turn * c
        size = np.sqrt(moved * moved + s * s)
        np.divide(moved, size, out=c)
        s /= size
    return z[:, : shape[1]]


MACHINES = {"bifurcation": _bifurcation, "phase": _phase}


def phasors(phases: np.ndarray) -> np.ndarray:
    """Cosines and sines of phases (n, S) side by side, (n, 2 S)."""
    return np.concatenate([np.cos(phases), np.sin(phases)], 1)


def torque(couplings: Any, z: np.ndarray, injection: float) -> np.ndarray:
    """Torque on phases (n, S), given as `phasors`: sum_j W_ij sin(phi_j - phi_i) - K sin 2 phi_i."""
    count = z.shape[1] // 2
    c, s = z[:, :count], z[:, count:]
    field = couplings @ z
    field[:, :count] += z.dtype.type(2 * injection) * c
    found: np.ndarray = c * field[:, count:]
    found -= s * field[:, :count]
    return found


def _even(draws: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Numbers drawn evenly from [-1, 1), float32."""
    return 2 * draws.random(shape, dtype=np.float32) - 1
