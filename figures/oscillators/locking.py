"""When detuned oscillators lock: two of them (Adler's equation), and very many, all coupled to all (Kuramoto)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import brentq
from scipy.special import ive

from hardware_models.oscillators.graph import OscillatorGraph
from physics_ep.dynamics.simulation import simulate
from physics_ep.progress import SILENT, Advance, Progress, task
from physics_ep.relaxation.loop import relax

from .. import style
from ..requests import Drawn, Request, refuse_run

LOCKED = np.array([-0.99, -0.95, -0.85, -0.6, -0.3, 0.0, 0.3, 0.6, 0.85, 0.95, 0.99])
DRIFTING = np.array([1.01, 1.05, 1.15, 1.3, 1.6, 2.0, 2.5])
"""Detunings over 2 W."""
STRENGTHS = np.array([0.4, 0.7, 0.9, 1.05, 1.2, 1.4, 1.7, 2.0, 2.3, 2.6])
"""Couplings over the critical one."""
CRITICAL = math.sqrt(8 / math.pi)
"""2 / (pi g(0)) for frequencies of standard deviation 1 (Kuramoto 1975)."""
TOLERANCE = 1e-10


@dataclass(frozen=True)
class Locking:
    """Data of the figure of locking: what was relaxed, simulated or known in closed form.

    Attributes
    ----------
    detuning : ndarray (n,)
        Difference of the natural frequencies of two oscillators, over 2 W.
    difference : ndarray (n,)
        Difference of their phases at rest, radians.
    residual : float
        Largest force in these and in the locked states below, coupling units.
    drifting : ndarray (m,)
        Detunings beyond locking, over 2 W.
    beat : ndarray (m,)
        Mean rate of their phase difference, over 2 W.
    oscillators : int
        Number of oscillators in the population.
    coupling : ndarray (k,)
        K over the critical one.
    order : ndarray (k,)
        |mean phasor|; of states that do not rest, its mean over the second half of the simulation.
    locked : ndarray of bool (k,)
        Whether all oscillators rest, certified.
    """

    detuning: np.ndarray
    difference: np.ndarray
    residual: float
    drifting: np.ndarray
    beat: np.ndarray
    oscillators: int
    coupling: np.ndarray
    order: np.ndarray
    locked: np.ndarray


def locking_curves(
    strengths: np.ndarray = STRENGTHS, *, oscillators: int = 300, seed: int = 0, progress: Progress | bool = SILENT
) -> Locking:
    """Relax and simulate pairs over their detuning, and a population over its coupling.

    Parameters
    ----------
    strengths : ndarray
        Couplings of the population over the critical one.
    oscillators : int
        Their frequencies are the quantiles of a normal distribution of standard deviation 1.
    seed : int
        Seed of the population's phases at the start.
    progress : Progress

    Returns
    -------
    Locking

    Raises
    ------
    NotConverged
        If a pair within the locking range, or a population that should lock, does not come to rest.
    """
    with task(progress, "figure: locking", len(strengths) + 1) as advance:
        difference, worst = _locked_pairs(LOCKED)
        beat = _beats(DRIFTING)
        advance(1)
        order, locked, residual = _population(strengths, oscillators, seed, advance)
    return Locking(LOCKED, difference, max(worst, residual), DRIFTING, beat, oscillators, strengths, order, locked)


def _locked_pairs(detuning: np.ndarray) -> tuple[np.ndarray, float]:
    """Differences of phase at rest, W = 1/2, and the largest force."""
    found, worst = [], 0.0
    for delta in detuning:
        system = OscillatorGraph(2, [[0, 1]], 0.5, detuning=[delta / 2, -delta / 2], ground="quotient").double()
        rest = relax(system, torch.zeros(1, 0, dtype=torch.float64), tolerance=TOLERANCE).require()
        angles = rest.state[0][0]
        found.append(float(angles[0] - angles[1]))
        worst = max(worst, float(rest.residual_si[0]))
    turn = 2 * math.pi
    return (np.array(found) + math.pi) % turn - math.pi, worst


def _beats(detuning: np.ndarray) -> np.ndarray:
    """Mean rates of the differences of phase of pairs, W = 1/2, all simulated at once: a turn over its time."""
    m = len(detuning)
    omega = np.concatenate([detuning / 2, -detuning / 2, [0.0]])
    # A pinned oscillator that is coupled to none counts the phases.
    pairs = OscillatorGraph(
        2 * m + 1, [[k, m + k] for k in range(m)], 0.5, detuning=omega, pins={2 * m: 0.0}
    ).double()
    slowest = 2 * math.pi / math.sqrt(detuning.min() ** 2 - 1)
    course = simulate(
        pairs,
        torch.zeros(1, 0, dtype=torch.float64),
        1.2 * slowest,
        start=(torch.zeros(1, 2 * m, dtype=torch.float64),),
        steps=int(1.2 * slowest / 0.1),
    )
    time = course.time.numpy()
    gap = (course.state[0][:, 0, :m] - course.state[0][:, 0, m:]).numpy()
    periods = []
    for delta, phase in zip(detuning, gap.T, strict=True):
        # Newton's cubic between two steps, both slopes being known.
        k = int(np.searchsorted(phase, 2 * math.pi)) - 1
        slopes = delta - np.sin(phase[k : k + 2])
        periods.append(_crossing(time[k : k + 2], phase[k : k + 2], slopes, 2 * math.pi))
    return 2 * math.pi / np.array(periods)


def _crossing(time: np.ndarray, values: np.ndarray, slopes: np.ndarray, level: float) -> float:
    """When the Hermite cubic between two points reaches a level."""
    cubic = CubicHermiteSpline(time, values, slopes)
    return float(brentq(lambda t: float(cubic(t)) - level, *time, xtol=1e-13))


def _population(strengths: np.ndarray, n: int, seed: int, advance: Advance) -> tuple[np.ndarray, np.ndarray, float]:
    quantiles = [NormalDist().inv_cdf((k + 0.5) / n) for k in range(n)]
    edges = torch.triu_indices(n, n, 1).t()
    x = torch.zeros(1, 0, dtype=torch.float64)
    # Near to each other, so that those that can lock do so at once.
    start = torch.randn(1, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    orders, locked, worst = [], [], 0.0
    for strength in strengths:
        coupling = float(strength) * CRITICAL
        system = OscillatorGraph(n, edges, coupling / n, detuning=quantiles, ground="quotient").double()
        course = simulate(system, x, 50.0, start=(start,), steps=400, method="rk4")
        order = np.hypot(*(f(course.state[0]).mean(2)[:, 0].numpy() for f in (torch.cos, torch.sin)))
        mean = float(order[len(order) // 2 :].mean())
        # The fastest one rests if K r exceeds its frequency.
        rests = bool(coupling * mean > 1.02 * max(quantiles))
        if rests:
            end = tuple(s[-1] for s in course.state)
            rest = relax(system, x, start=end, tolerance=TOLERANCE).require()
            phases = rest.state[0][0]
            mean = float(torch.hypot(phases.cos().mean(), phases.sin().mean()))
            worst = max(worst, float(rest.residual_si[0]))
        orders.append(mean)
        locked.append(rests)
        advance(1)
    return np.array(orders), np.array(locked), worst


def adler_beat(detuning: np.ndarray) -> np.ndarray:
    """Mean beat frequency beyond locking, both over 2 W: sqrt(detuning^2 - 1) (Adler 1946); 0 where they lock."""
    return np.sqrt(np.clip(np.square(detuning) - 1, 0, None))


def kuramoto_order(points: int = 200, highest: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Couplings over the critical one, and order parameters of an infinite population of normal frequencies.

    Self-consistency (Kuramoto 1975) in a = K r: 1 / K = int cos^2 t g(a sin t) dt over |t| < pi / 2, which for a
    normal g is sqrt(pi / 8) exp(-z) [I0(z) + I1(z)], z = a^2 / 4.
    """
    a = np.linspace(1e-3, highest, points)
    inverse = math.sqrt(math.pi / 8) * (ive(0, a**2 / 4) + ive(1, a**2 / 4))
    coupling = 1 / inverse
    return coupling / CRITICAL, a / coupling


@style.drawing
def draw_locking(data: Locking) -> Figure:
    """Phase difference and beat frequency of two oscillators over their detuning; order of very many."""
    figure, axes = style.new_figure(style.PAGE, 68, 1, 3)
    rest, beat, order = axes[0]
    fine = np.sin(np.linspace(-0.5 * math.pi, 0.5 * math.pi, 201))
    law, measured, resting = style.series(0), style.series(1), style.series(2)
    law.plot(rest, fine, np.degrees(np.arcsin(fine)), marker="", label="arcsin($\\Delta$ / 2$W$)")
    resting.plot(
        rest,
        data.detuning,
        np.degrees(data.difference),
        linestyle="",
        ms=4,
        label=f"relaxed, certified to {style.power(data.residual)}",
    )
    rest.set_ylabel("Phase difference (degrees)")
    rest.set_title("two oscillators, locked")
    rest.set_yticks([-90, -45, 0, 45, 90])
    wide = np.concatenate([[0.0], 1 + np.linspace(0, 1, 201) ** 2 * 1.7])
    law.plot(beat, wide, adler_beat(wide), marker="", label="$\\sqrt{\\Delta^2 - (2W)^2}$ / 2$W$")
    measured.plot(beat, data.drifting, data.beat, linestyle="", ms=4, label="simulated")
    beat.plot([0, 2.7], [0, 2.7], color=style.GREY, lw=0.8, ls=(0, (1, 2)), label="uncoupled")
    beat.set_ylabel("Mean beat over 2$W$ (dimensionless)")
    beat.set_title("two oscillators, beyond locking")
    for ax in (rest, beat):
        ax.set_xlabel("Detuning $\\Delta$ over 2$W$ (dimensionless)")
    strength, expected = kuramoto_order()
    seen = strength < 1.05 * data.coupling.max()
    law.plot(
        order,
        np.concatenate([[0, 1], strength[seen]]),
        np.concatenate([[0, 0], expected[seen]]),
        marker="",
        label="self-consistent, infinitely many",
    )
    for flag, look, name in (
        (False, measured, "simulated, some drift"),
        (True, resting, "relaxed, all locked"),
    ):
        here = data.locked == flag
        look.plot(order, data.coupling[here], data.order[here], linestyle="", ms=4, label=name)
    order.set_xlabel("Coupling over critical (dimensionless)")
    order.set_ylabel("Order parameter $r$ (dimensionless)")
    order.set_title(f"{data.oscillators} oscillators, all to all")
    order.set_ylim(-0.03, 1.03)
    for ax in axes[0]:
        style.legend(ax, loc="upper left")
    return figure


def make_locking(request: Request) -> Drawn:
    """Figure 'locking' of the catalogue."""
    refuse_run(request, "locking", "oscillators of its own")
    data = locking_curves(seed=request.seed, progress=request.progress)
    return Drawn(draw_locking(data), asdict(data))
