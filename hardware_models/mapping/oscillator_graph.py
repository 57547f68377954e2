"""A network's mirror pairs oscillator by oscillator: four phases a unit, and nothing that keeps them mirrored.

What `oscillator` says of pairs, said of oscillators, so that its mirror images can be doubted. Each unit h
and each u is an oscillator and its image, whose phases go their own ways:

    tau dphi_i/dt = omega_i + sum_j A_ij sin(phi_j - phi_i) + F_i cos phi_i - (K_i / 2) sin 2 phi_i

in rates of a pair in the middle of its range. A pair with v = m + r sin a on one driven with the weight W has
A = W r_below / (2 r) between equal sides and -A across; images have the fields of their oscillators, mirrored. What
h_k feeds back to h_{k-1} is in the ratio of r^2 to what drives it: they are unlike in size, or in mobility. What
u_k feeds back has the opposite sign: it is not reciprocal. A nudge of the squared error, beta (y - v), is a field
and more injection.

With `edges="one"` the four edges of a coupling are one cell, as differential couplers have it: pairs then stay
mirrored. With "separate" each edge, and each of the two fields of an input or a bias, is a cell with a draw of its
own; an edge between two oscillators h is one at both ends. The constant fields that set the middles of ranges are
trimmed to the cells that are there. Nothing holds such pairs mirrored, and at some mismatch there is nowhere that
they rest.

States are the phases (B, 4 n) of the n units: oscillators of h of each layer, those of u, then their images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.integrate import solve_ivp

from physics_ep.equilibrium import Equilibrium, Status
from physics_ep.errors import InputError, argument_error
from physics_ep.maps import Link
from physics_ep.placement import on_host
from physics_ep.predictive_coding.learning import Nudged, contrast

from ..arrays import array
from ..devices.crossbars import programmed
from ..devices.wires import wired
from .node_sums import arrays_of
from .oscillator import OscillatorPairs
from .physical_cells import SIDES, Copy

AT_BOUND = 1e-7
"""|cos phi| of a pair that rests at an end of its range is less by far, of one 1e-13th of it inside more."""
FOLLOWED = 50.0
"""Time constants over which `PairsGraph.settle` follows the course itself."""
STRIDE = 0.05
"""Radians that a phase should go in one of its steps, at most: longer and they are shorter, and the reverse."""

LARGEST = 4096
"""Oscillators of a `PairsGraph` at most, as their couplings are kept as a matrix."""
EDGES = 4
"""Between two pairs."""
PUSH = 1e-3
"""Part of its phase by which a pair is pushed that rests at the wrong end of its range."""


class Clamps(NamedTuple):
    """What holds the oscillators of a phase: F and K (B, 4 n), and which do not move (B, 4 n)."""

    fields: np.ndarray
    injection: np.ndarray
    held: np.ndarray


@dataclass(frozen=True)
class PairsGraph:
    """A mapped network of oscillator pairs, written as a graph of single oscillators, with translations between
    both.

    Attributes
    ----------
    system : OscillatorPairs
    couplings : float64 array (4 n, 4 n)
        A: what row i feels of column j.
    fields : float64 array (4 n,)
        F, without inputs.
    inputs : float64 array (4 n, n_inputs)
        What each input adds to F.
    frequencies : float64 array (4 n,)
        omega: the detuning of each oscillator.
    middles, radii : float64 array (2 n,)
        m and r of the pairs.
    lag : float64 array (4 n,)
        Time constants, over that of h.
    """

    system: OscillatorPairs
    couplings: np.ndarray
    fields: np.ndarray
    inputs: np.ndarray
    frequencies: np.ndarray
    middles: np.ndarray
    radii: np.ndarray
    lag: np.ndarray

    @property
    def count(self) -> int:
        """Number of oscillators."""
        return len(self.fields)

    # -- what acts on them -------------------------------------------------------------------------------------

    def clamps(
        self, x: torch.Tensor, y: torch.Tensor | None = None, beta: float = 0.0, held: np.ndarray | None = None
    ) -> Clamps:
        """Fields and injection of a phase on inputs x (B, ...), as they are before converters.

        Parameters
        ----------
        x : Tensor (B, ...)
        y : Tensor (B, n_out), optional
            Targets of the squared error, in units of activity, of the values of the output pairs.
        beta : float
        held : bool array (B, 4 n), optional
            Oscillators that a latch holds: see `at_bounds`.
        """
        signals = array(self.system.encode(x).flatten(1).double())
        fields = self.fields + signals @ self.inputs.T
        injection = np.ones_like(fields)
        if y is not None:
            outputs = self._columns()[0][-1]
            pull = beta * (array(y.double()) - self.middles[outputs]) / self.radii[outputs]
            for columns, sign in ((outputs, 1), (outputs + self.count // 2, -1)):
                fields[:, columns] += sign * pull
                injection[:, columns] += beta
        return Clamps(fields, injection, np.zeros(fields.shape, bool) if held is None else held)

    def torque(self, phi: np.ndarray, clamps: Clamps) -> np.ndarray:
        """On all oscillators but those that are held, (B, 4 n), in rates."""
        sine, cosine = np.sin(phi), np.cos(phi)
        pull = cosine * (sine @ self.couplings.T + clamps.fields) - sine * (cosine @ self.couplings.T)
        total = self.frequencies + pull - clamps.injection * sine * cosine
        return np.where(clamps.held, 0.0, total)

    def stiffness(self, phi: np.ndarray, clamps: Clamps) -> np.ndarray:
        """Minus the slope of the torque, (B, 4 n, 4 n); 1 on the diagonal of oscillators that are held."""
        sine, cosine = np.sin(phi), np.cos(phi)
        angle = phi[:, None, :] - phi[:, :, None]
        found = -self.couplings * np.cos(angle)
        own = sine * (sine @ self.couplings.T + clamps.fields) + cosine * (cosine @ self.couplings.T)
        place = np.arange(self.count)
        found[:, place, place] += own + clamps.injection * np.cos(2 * phi)
        found = np.where(clamps.held[:, :, None], 0.0, found)
        found[:, place, place] += clamps.held
        return found

    # -- where they rest ---------------------------------------------------------------------------------------

    def middle(self, rows: int) -> np.ndarray:
        """All pairs in the middle of their ranges, (rows, 4 n): where none is slow."""
        return np.zeros((rows, self.count))

    def settle(
        self,
        x: torch.Tensor,
        y: torch.Tensor | None = None,
        beta: float = 0.0,
        *,
        start: np.ndarray | None = None,
        held: np.ndarray | None = None,
        tolerance: float = 1e-13,
        max_iterations: int = 300,
    ) -> Equilibrium:
        """Let the oscillators come to rest: along the course for a while, then by implicit steps in time that
        grow as the phases move less, at last Newton's.

        A pair at an end of its range from which its current draws it inwards leaves it very slowly, and not at all
        exactly there. Where such a pair is all that is left to move it is pushed, as noise would push it.

        Parameters
        ----------
        x, y, beta, held
            The arguments of `clamps` of the same names.
        start : float64 array (B, 4 n), optional
            Default: `middle`.
        tolerance : float
            Largest torque that counts as rest, in rates.
        max_iterations : int

        Returns
        -------
        Equilibrium
            Phases (B, 4 n), radians. Its `residual` tells whether they are at rest.
        """
        clamps = self.clamps(x, y, beta, held)
        _, followed = self.course(x, FOLLOWED, y, beta, start=start, held=held)
        phi = followed[-1]
        force = self.torque(phi, clamps)
        left = np.abs(force).max(1)
        step = np.ones(len(phi))
        place = np.arange(self.count)
        done = 0
        while done < max_iterations:
            rows = np.flatnonzero(~(left <= tolerance))
            if not len(rows):
                stuck = self._stuck(phi, clamps)
                if not stuck.any():
                    break
                phi = np.where(stuck, (1 - PUSH) * phi, phi)
                force = self.torque(phi, clamps)
                left = np.abs(force).max(1)
                step[stuck.any(1)] = 1.0
                continue
            done += 1
            now = Clamps(*(part[rows] for part in clamps))
            matrix = self.stiffness(phi[rows], now)
            # Longer steps would lead back to where an oscillator is on its way from.
            lowest = (matrix[:, place, place] / self.lag).min(1)
            step[rows] = np.where(lowest < 0, np.minimum(step[rows], 0.5 / np.maximum(-lowest, 1e-12)), step[rows])
            matrix[:, place, place] += self.lag / step[rows, None]
            move = np.linalg.solve(matrix, force[rows, :, None])[:, :, 0]
            phi[rows] += move
            force[rows] = self.torque(phi[rows], now)
            left[rows] = np.abs(force[rows]).max(1)
            longest = np.maximum(np.abs(move).max(1), 1e-300)
            step[rows] = np.minimum(step[rows] * np.clip(STRIDE / longest, 0.25, 4), 1e12)
        status = Status.CONVERGED if bool((left <= tolerance).all()) else Status.BUDGET
        state = (torch.from_numpy(phi),)
        return Equilibrium(torch.from_numpy(left), tolerance, done, status, lambda: state, "implicit Euler")

    def _stuck(self, phi: np.ndarray, clamps: Clamps) -> np.ndarray:
        """Oscillators that the least motion of their own would take away from rest, (B, 4 n)."""
        place = np.arange(self.count)
        return self.stiffness(phi, clamps)[:, place, place] < 0

    def course(
        self,
        x: torch.Tensor,
        duration: float,
        y: torch.Tensor | None = None,
        beta: float = 0.0,
        *,
        start: np.ndarray | None = None,
        held: np.ndarray | None = None,
        points: int = 2,
        tolerance: float = 1e-9,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The phases in time, from `start` on.

        Parameters
        ----------
        x, y, beta, start, held
            The arguments of `settle` of the same names.
        duration : float
            Duration, in time constants of h.
        points : int
            Equally spaced in time.
        tolerance : float
            Error of a step, radians.

        Returns
        -------
        time : float64 array (points,)
        phases : float64 array (points, B, 4 n)

        Raises
        ------
        RuntimeError
            If the integrator fails.
        """
        clamps = self.clamps(x, y, beta, held)
        begin = self.middle(len(x)) if start is None else start
        time = np.linspace(0.0, duration, points)
        found = np.empty((points, *begin.shape))
        for row in range(len(begin)):
            own = Clamps(*(part[row : row + 1] for part in clamps))
            done = solve_ivp(
                lambda t, phi, own=own: self.torque(phi[None], own)[0] / self.lag,
                (0.0, duration),
                begin[row],
                "LSODA",
                time,
                jac=lambda t, phi, own=own: -self._moving(phi, own),
                rtol=tolerance,
                atol=tolerance,
            )
            if not done.success:
                raise RuntimeError(f"The course of example {row} ended early: {done.message}")
            found[:, row] = done.y.T
        return time, found

    def _moving(self, phi: np.ndarray, clamps: Clamps) -> np.ndarray:
        stiffness = self.stiffness(phi[None], clamps)[0] / self.lag[:, None]
        return np.where(clamps.held[0][:, None], 0.0, stiffness)

    # -- what they say -----------------------------------------------------------------------------------------

    def values(self, phi: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """h and u of each layer, (..., n_k), of phases (..., 4 n): v = m + r (sin phi - sin phi') / 2."""
        half = self.count // 2
        v = self.middles + 0.5 * self.radii * (np.sin(phi[..., :half]) - np.sin(phi[..., half:]))
        upper, lower = self._columns()
        return [v[..., c] for c in upper], [v[..., c] for c in lower]

    def turns(self, phi: np.ndarray) -> np.ndarray:
        """e of each pair, (..., 2 n), radians: how far it is turned as a whole, 0 where it is mirrored."""
        half = self.count // 2
        total = phi[..., :half] + phi[..., half:]
        return 0.5 * (np.remainder(total + math.pi, 2 * math.pi) - math.pi)

    def at_bounds(self, phi: np.ndarray) -> np.ndarray:
        """Oscillators of pairs that rest at an end of their range, (..., 4 n): what a latch holds when nudged."""
        gated = [np.full(self._sizes[k], layer.activation.gated) for k, layer in enumerate(self.system.stack)]
        return (np.abs(np.cos(phi)) < AT_BOUND) & np.concatenate(gated * 4)

    def gradient(
        self, x: torch.Tensor, plus: np.ndarray, minus: np.ndarray, beta: float
    ) -> dict[str, torch.Tensor]:
        """Centered EP, -(h - u) h^T of the layer below, from phases: of the batch mean, by parameters' names.

        Parameters
        ----------
        x : Tensor (B, ...)
        plus, minus : float64 arrays (B, 4 n)
            Phases at rest at +beta and -beta.
        beta : float
        """
        phase = self.system.phase(self.system.prepare(x))

        def readings(phi: np.ndarray) -> Nudged:
            blocks = [[torch.from_numpy(v) for v in part] for part in self.values(phi)]
            upper, lower = ([v.view_as(h) for v, h in zip(part, phase.h, strict=True)] for part in blocks)
            moved = [v - h for v, h in zip(upper, phase.h, strict=True)]
            return Nudged(moved, [v - w for v, w in zip(upper, lower, strict=True)])

        weight = torch.full((len(x),), 1 / (2 * beta * len(x)), dtype=torch.float64)
        with torch.no_grad():
            return contrast(phase.layers, phase.free, readings(plus), readings(minus), weight)

    @property
    def _sizes(self) -> list[int]:
        return [math.prod(layer.post) for layer in self.system.stack]

    def _columns(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Oscillators of h and of u of each layer."""
        ends = np.cumsum([0, *self._sizes * 2])
        found = [np.arange(a, b) for a, b in itertools.pairwise(ends)]
        return found[: self.system.depth], found[self.system.depth :]


def pairs_graph(
    system: OscillatorPairs, edges: str = "one", meant: Mapping[str, torch.Tensor] | None = None
) -> PairsGraph:
    """The oscillators of a mapped network, one by one; `Mapped.to_graph` makes them, too.

    Parameters
    ----------
    system : OscillatorPairs
        Calibrated: that sets the ranges of its pairs.
    edges : {'one', 'separate'}
        Whether the four edges of a coupling are one cell, or a cell each.
    meant : mapping of str to Tensor, optional
        The weights that separate edges are written for, by the network's parameter names.

    Returns
    -------
    PairsGraph

    Raises
    ------
    InputError
        If it is not calibrated or too large, has max poolings (whose routes depend on the example), or noise.
    """
    if edges not in ("one", "separate"):
        raise argument_error("edges", "be 'one' or 'separate'", repr(edges))
    if edges == "separate" and (meant is None or system.device_model.copies == "trimmed"):
        must = "come with the weights that are meant, and with copies that are not trimmed"
        raise argument_error("edges", must, repr(edges))
    for k, layer in enumerate(system.stack, 1):
        if layer.link.routed:
            raise InputError(f"Layer {k} has a max pooling, whose switches are not couplings of a graph.")
    device = system.device_model
    for name in ("conductance_noise", "phase_noise"):
        if getattr(device, name) > 0:
            raise argument_error(name, "be 0 for a graph of constant couplings", getattr(device, name))
    if not system.calibrated:
        raise argument_error("calibration", "be given: it sets the ranges of the oscillators", "none")
    units = sum(math.prod(layer.post) for layer in system.stack)
    if 4 * units > LARGEST:
        raise InputError(f"The network is too large for a graph of at most {LARGEST} oscillators: {4 * units}.")
    separate = edges == "separate" and system.device_model.copies == "independent"
    return _GraphDrawing(on_host(system), units, meant if separate else None).finished()


class _GraphDrawing:
    """Pairs and what acts on them, in units of sin a, as layers are gone through."""

    def __init__(self, system: OscillatorPairs, units: int, meant: Mapping[str, torch.Tensor] | None) -> None:
        self.system, self.meant = system, meant
        sizes = [math.prod(layer.post) for layer in system.stack]
        ends = list(itertools.pairwise(np.cumsum([0, *sizes])))
        self.h = [slice(a, b) for a, b in ends]
        self.u = [slice(a + units, b + units) for a, b in ends]
        ranges = [system.range(k) for k in range(system.depth)]
        self.m = [0.5 * (lo + hi) for lo, hi in ranges]
        self.r = [0.5 * (hi - lo) for lo, hi in ranges]
        # Of oscillators on oscillators, images on images, images on oscillators, and oscillators on images.
        self.drive = np.zeros((EDGES, 2 * units, 2 * units))
        # Of oscillators and of images.
        self.field = np.zeros((2, 2 * units))
        self.signal = np.zeros((2, 2 * units, system.sizes[0]))
        self.odd, self.even = np.zeros(2 * units), np.zeros(2 * units)
        self.lag = np.repeat([1.0, 1 + system.device_model.time_constant_mismatch], units)
        self.middles, self.radii = (np.tile(np.repeat(v, sizes), 2) for v in (self.m, self.r))

    def values(self, name: str, copy: Copy) -> list[torch.Tensor]:
        """Weights of the cells of an array that serve a purpose: one, or one an edge."""
        system = self.system
        device, (k, part) = system.device_model, name.split(".")[1:]
        first = system.arrays(int(k), copy).held[part]
        if self.meant is None or not device.draws_cells:
            return [first.double()]
        found, span = [first.double()], system.scales[name] * (device.g_max - device.g_min)
        for edge in range(1, EDGES):
            cells = programmed(self.meant[name], device, system.seed, f"{name}/{copy}.{edge}", span=span)
            found.append(system.mismatched(name, copy, wired(cells, device)).values.double())
        return found

    def matrices(self, name: str, copy: Copy, link: Link) -> np.ndarray:
        """W of the edges of an array, (edges, units above, units below)."""
        eye = torch.eye(math.prod(link.pre), dtype=torch.float64).unflatten(1, link.pre)
        found = np.stack([array(link.apply(w, eye).flatten(1).t()) for w in self.values(name, copy)])
        return np.broadcast_to(found, (EDGES, *found.shape[1:]))

    def couple(self, name: str, k: int, link: Link, source: int) -> None:
        """What an array of layer k drives, and what it feeds back."""
        r = self.r[k]
        for side, rows in zip(SIDES, (self.h[k], self.u[k]), strict=True):
            w = self.matrices(name, side, link)
            if source < 0:
                self.signal[:, rows] += w[: len(self.signal)] / r
            else:
                self.drive[:, rows, self.h[source]] += w * (self.r[source] / r)
                self.field[:, rows] += w.mean(0).sum(1) * (self.m[source] / r)
        if source < 0:
            return
        below, scale = self.h[source], r / self.r[source]
        of_u = self.matrices(name, "transpose", link)
        of_h = of_u if self.meant is None else self.matrices(name, "h", link)
        for w, columns, sign in ((of_h, self.h[k], 1), (of_u, self.u[k], -1)):
            # An edge from an image below to an oscillator above is felt by the image.
            self.drive[:, below, columns] += sign * scale * w.transpose(0, 2, 1)[[0, 1, 3, 2]]
        # Of h - u the middles of their ranges cancel where both come over the same cells.
        self.field[:, below] += (of_h - of_u).mean(0).sum(0) * (self.m[k] / self.r[source])

    def bias(self, k: int) -> None:
        layer, name = self.system.stack[k], f"layers.{k}.bias"
        for side, rows in zip(SIDES, (self.h[k], self.u[k]), strict=True):
            self.field[:, rows] -= self.m[k] / self.r[k]
            if layer.bias is not None:
                values = self.values(name, side)
                for n in range(len(self.field)):
                    b = values[n % len(values)]
                    each = b.view(-1, *[1] * (len(layer.post) - 1)).expand(layer.post)
                    self.field[n, rows] += array(each.reshape(-1)) / self.r[k]

    def detune(self, k: int) -> None:
        system = self.system
        spread = system.device_model.detuning / math.sqrt(2)
        amplifiers = (system.amplifiers_h[k], system.amplifiers_u[k])
        for side, rows, units in zip(SIDES, (self.h[k], self.u[k]), amplifiers, strict=True):
            odd = torch.as_tensor(units.torque, dtype=torch.float64)
            self.odd[rows] = array(odd.flatten())
            self.even[rows] = array(system.drawn(spread, k, side, "even detuning").double().flatten())

    def finished(self) -> PairsGraph:
        for name, k, _, link, source in arrays_of(self.system.stack):
            if link is not None and source is not None:
                self.couple(name, k, link, source)
        for k in range(self.system.depth):
            self.bias(k)
            self.detune(k)
        equal, images, across, back = self.drive
        return PairsGraph(
            self.system,
            np.block([[equal, -across], [-back, images]]) / 2,
            np.concatenate([self.field[0], -self.field[1]]),
            np.concatenate([self.signal[0], -self.signal[1]]),
            np.concatenate([self.even + self.odd, self.even - self.odd]),
            self.middles,
            self.radii,
            np.tile(self.lag, 2),
        )
