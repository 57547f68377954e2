"""A network on phase oscillators: what a unit does, how layers settle, and what becomes of mirror images.

All of it from four oscillators a unit, none of which is told to be the image of another.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.oscillator import THRESHOLD, OscillatorPairs
from hardware_models.mapping.oscillator_graph import PairsGraph, pairs_graph
from hardware_models.mapping.oscillator_units import locked_phase
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp
from physics_ep.relaxation.loop import relax

from .. import style
from ..requests import Drawn, Request, refuse_run

TORQUE = 0.03
"""Detuning of the unit that is shown, in rates of a pair in the middle of its range."""
SIZES, GAIN = (8, 12, 12, 10, 6), math.sqrt(3.0)
ASYMMETRY = 1e-3
"""Radians by which phases are off their mirror images at first."""
WATCHED = {
    "free": (0.0, False),
    "nudged, $\\beta$ = 0.0001": (1e-4, False),
    "nudged, $\\beta$ = 0.001": (1e-3, False),
    "nudged, $\\beta$ = 0.01, silent pairs latched": (1e-2, True),
}
"""Phases in which mirror images are watched: beta, and whether pairs at an end of their range are held."""
CANDIDATES = 64
"""Inputs of which two are shown: one that leaves a unit at a threshold, one that leaves none."""
DETUNINGS = np.geomspace(1e-5, 1e-2, 7)
INSTANCES = 3
"""Draws of each detuning."""
DURATION, POINTS = 300.0, 151
FLOOR = 1e-13


@dataclass(frozen=True)
class OscillatorMapping:
    """Data of the figure of mapped oscillators.

    Attributes
    ----------
    current : ndarray (n,)
        Current into a unit of range [0, 1].
    values : dict of str to ndarray (n,)
        Constants of the unit at rest, over its detuning.
    curves : dict of str to ndarray (n,)
        The same as the pairs have it.
    residual : float
        Largest torque on any oscillator at rest, in rates.
    time : ndarray (T,)
        Time constants.
    distances, slow_distances : ndarray (L, T)
        Largest distance of the units of a layer from rest, of full scale: those that are not at a threshold, and
        those that are (NaN: none).
    slow : tuple of int
        Units at a threshold, a layer each.
    settled : float
        Time from the rates, in time constants.
    turns : ndarray (len(WATCHED), T)
        Largest |e| of any pair, radians.
    detunings : ndarray (n,)
        Detunings, in coupling rates.
    left_out : dict of str to ndarray (n, INSTANCES)
        Largest change of a value over its range where frequencies that both oscillators of a pair have are added to
        those that are opposite; NaN where the oscillators are not at rest.
    """

    current: np.ndarray
    values: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]
    residual: float
    time: np.ndarray
    distances: np.ndarray
    slow_distances: np.ndarray
    slow: tuple[int, ...]
    settled: float
    turns: np.ndarray
    detunings: np.ndarray
    left_out: dict[str, np.ndarray]


def oscillator_mapping(seed: int = 0, detunings: np.ndarray = DETUNINGS) -> OscillatorMapping:
    """Measure what the figure of mapped oscillators shows.

    Parameters
    ----------
    seed : int
        Seed of networks, inputs and draws.
    detunings : ndarray (n,)

    Raises
    ------
    NotConverged
        If oscillators do not come to rest where they should.
    """
    current, values, curves, residual = _unit()
    net = _network("relu", seed)
    near, clear = _chosen(net, seed)
    gaps, slow_gaps, slow, settled, time, worst = _settling(net, near)
    turns, rest = _turns(net, near, seed)
    clips = _network("hard_tanh", seed)
    left_out = {
        "ReLUs, one at a threshold": _left_out(net, near, seed, detunings),
        "ReLUs, none at a threshold": _left_out(net, clear, seed, detunings),
        "clips, none at a threshold": _left_out(clips, _chosen(clips, seed)[1], seed, detunings),
    }
    residual = max(residual, worst, rest)
    return OscillatorMapping(
        current, values, curves, residual, time, gaps, slow_gaps, slow, settled, turns, detunings, left_out
    )


def _network(activation: str, seed: int) -> PredictiveCodingNetwork:
    gain = GAIN if activation == "relu" else 1.0
    return mlp(list(SIZES), activation, gain=gain, seed=seed).double()


def _inputs(seed: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn(count, SIZES[0], generator=generator, dtype=torch.float64)


def _chosen(net: PredictiveCodingNetwork, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs that leave a unit at a threshold, but not next to it, and none."""
    x = _inputs(seed, CANDIDATES)
    slowest = []
    for row in x.split(1):
        system = map_pcn(net, "oscillator", calibration=row).system
        assert isinstance(system, OscillatorPairs)
        slowest.append(min(float(rate.min()) for rate in system.rates(relax(system, row))))
    rates = np.array(slowest)
    near = int(np.argmin(np.abs(np.log(rates / (0.5 * THRESHOLD)))))
    clear = int(np.argmax(rates))
    return x[near : near + 1], x[clear : clear + 1]


def _graph(system: object) -> PairsGraph:
    assert isinstance(system, OscillatorPairs)
    return pairs_graph(system)


def _valued(graph: PairsGraph, phi: np.ndarray) -> np.ndarray:
    upper, lower = graph.values(phi)
    return np.concatenate([*upper, *lower], -1)


def _unit() -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray], float]:
    """A unit of range [0, 1] at currents about it: oscillators, and the pair that stands for them."""
    current = np.linspace(-0.4, 1.4, 73)
    net = mlp([1, len(current), 1], "relu").double()
    with torch.no_grad():
        for layer in net.stack:
            layer.weight.fill_(1e-9)  # nobody listens to the units
            assert layer.bias is not None
            layer.bias.zero_()
        net.stack[0].weight.copy_(torch.from_numpy(current)[:, None])
    one = torch.ones(1, 1, dtype=torch.float64)
    # The largest activity of the calibration is half the range.
    graph = _graph(map_pcn(net, "oscillator", calibration=0.5 / 1.4 * one).system)
    units, half = slice(len(current)), graph.count // 2
    assert np.allclose(2 * graph.radii[units], 1)
    b = torch.from_numpy(2 * current - 1)
    torques = {"none": (0.0, 0.0), "apart": (TORQUE, -TORQUE), "both": (TORQUE, TORQUE)}
    values, curves, residual = {}, {}, 0.0
    for name, (first, second) in torques.items():
        frequencies = np.zeros(graph.count)
        frequencies[units] = first
        frequencies[half : half + len(current)] = second
        found = dataclasses.replace(graph, frequencies=frequencies).settle(one).require()
        residual = max(residual, float(found.residual.max()))
        values[name] = graph.values(found.state[0].numpy())[0][0][0]
        # Each oscillator for itself is a clip, the image's torque mirrored.
        ends = [torch.sin(locked_phase(b, torch.tensor(w, dtype=torch.float64))) for w in (first, -second)]
        curves[name] = (0.5 + 0.25 * (ends[0] + ends[1])).numpy()
    curves["none"] = current.clip(0, 1)
    return current, values, curves, residual


def _settling(
    net: PredictiveCodingNetwork, x: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], float, np.ndarray, float]:
    mapped = map_pcn(net, "oscillator", calibration=x)
    system = mapped.system
    graph = _graph(system)
    free = relax(system, x).require()
    rest = graph.settle(x).require()
    time, course = graph.course(x, DURATION, points=POINTS, tolerance=1e-11)
    gaps, slow_gaps, slow = [], [], []
    ends, values = graph.values(rest.state[0].numpy())[0], graph.values(course)[0]
    assert isinstance(system, OscillatorPairs)
    for rate, end, value, full in zip(system.rates(free), ends, values, system.full_scales[1:], strict=True):
        distance = np.abs(value - end)[:, 0] / full
        late = (rate[0] < THRESHOLD).numpy()
        gaps.append(distance[:, ~late].max(1))
        slow_gaps.append(distance[:, late].max(1) if late.any() else np.full(len(time), np.nan))
        slow.append(int(late.sum()))
    settled = system.settling_seconds(free, x)[0] / mapped.system.tau
    return np.stack(gaps), np.stack(slow_gaps), tuple(slow), settled, time, float(rest.residual.max())


def _turns(net: PredictiveCodingNetwork, x: torch.Tensor, seed: int) -> tuple[np.ndarray, float]:
    """How far pairs turn that begin a little off their mirror images."""
    graph = _graph(map_pcn(net, "oscillator", calibration=x, gates="live").system)
    rest = graph.settle(x).require()
    at = rest.state[0].numpy()
    start = at + ASYMMETRY * np.random.default_rng(seed).uniform(-1, 1, at.shape)
    y = torch.randn(1, SIZES[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    silent = graph.at_bounds(at)
    found = []
    for beta, latched in WATCHED.values():
        held, begin = (silent, np.where(silent, at, start)) if latched else (None, start)
        _, course = graph.course(x, DURATION, y, beta, start=begin, held=held, points=POINTS, tolerance=1e-11)
        found.append(np.abs(graph.turns(course)).max((1, 2)))
    return np.stack(found), float(rest.residual.max())


def _left_out(net: PredictiveCodingNetwork, x: torch.Tensor, seed: int, detunings: np.ndarray) -> np.ndarray:
    found = np.full((len(detunings), INSTANCES), np.nan)
    for i, size in enumerate(detunings):
        for draw in range(INSTANCES):
            device = DeviceModel(detuning=float(size))
            graph = _graph(map_pcn(net, "oscillator", device, seed=seed + draw, calibration=x).system)
            first, second = np.split(graph.frequencies, 2)
            odd = 0.5 * (first - second)
            pairs = dataclasses.replace(graph, frequencies=np.concatenate([odd, -odd]))
            ends = [form.settle(x, max_iterations=60) for form in (graph, pairs)]
            if all(bool(end.converged.all()) for end in ends):
                values = [_valued(graph, end.state[0].numpy()) for end in ends]
                found[i, draw] = np.abs((values[0] - values[1]) / (2 * graph.radii)).max()
    return found


# -- drawing -------------------------------------------------------------------------------------------------------


@style.drawing
def draw_oscillator_mapping(data: OscillatorMapping) -> Figure:
    """A unit, settling, mirror images, and what pairs leave out."""
    figure, axes = style.new_figure(style.PAGE, 112.0, 2, 2)
    _draw_unit(axes[0, 0], data)
    _draw_settling(axes[0, 1], data)
    _draw_turns(axes[1, 0], data)
    _draw_left_out(axes[1, 1], data)
    return figure


def _draw_unit(ax: Axes, data: OscillatorMapping) -> None:
    names = {
        "none": "not detuned",
        "apart": f"frequencies apart, $\\pm${TORQUE:g}",
        "both": f"frequencies off together, {TORQUE:g}",
    }
    for k, (name, text) in enumerate(names.items()):
        look = style.series(k)
        ax.plot(data.current, data.curves[name], color=look.color, lw=0.8)
        ax.plot(
            data.current[k::3], data.values[name][k::3], color=look.color, marker=look.marker, ls="none", label=text
        )
    ax.set_xlabel("current $p$ into a unit (of its range)")
    ax.set_ylabel("value $m + r\\,\\sin a$ (of its range)")
    ax.set_title("four oscillators (markers) and clips (lines)")
    style.legend(ax, loc="upper left")


def _draw_settling(ax: Axes, data: OscillatorMapping) -> None:
    for k, (gap, late, count) in enumerate(zip(data.distances, data.slow_distances, data.slow, strict=True)):
        look = style.series(k)
        marks: dict[str, Any] = {"color": look.color, "marker": look.marker, "markevery": (4 * k, 20)}
        ax.plot(data.time, np.maximum(gap, FLOOR), label=f"layer {k + 1}", **marks)
        if count:
            text = f"its {'unit' if count == 1 else f'{count} units'} at a threshold"
            ax.plot(data.time, np.maximum(late, FLOOR), ls=(0, (2, 1.5)), label=text, **marks)
    ax.axvline(data.settled, color=style.BLACK, lw=0.8, ls=(0, (4, 2)), label="settling time from rates")
    ax.axhline(1e-6, color=style.GREY, lw=0.6)
    ax.set_yscale("log")
    ax.set_xlabel("time (time constants of a pair)")
    ax.set_ylabel("distance of $h$ from rest (full scales)")
    ax.set_title("free phase from the middle of all ranges")
    ax.set_ylim(1e-11, 10)
    style.legend(ax, loc="upper right", ncols=2)


def _draw_turns(ax: Axes, data: OscillatorMapping) -> None:
    for k, (text, turn) in enumerate(zip(WATCHED, data.turns, strict=True)):
        look = style.series(k)
        ax.plot(data.time, np.maximum(turn, FLOOR), color=look.color, ls=look.line, label=text)
    ax.set_yscale("log")
    ax.set_ylim(1e-12, 10)
    ax.set_xlabel("time (time constants of a pair)")
    ax.set_ylabel("largest turn of a pair (rad)")
    ax.set_title("mirror images, with a pair at a threshold")
    style.legend(ax, loc="upper left", labelspacing=0.2)


def _draw_left_out(ax: Axes, data: OscillatorMapping) -> None:
    for k, (name, found) in enumerate(data.left_out.items()):
        look = style.series(k)
        there, lost = np.isfinite(found).any(1), int(np.isnan(found).sum())
        text = f"{name} ({lost} of {found.size} draws not at rest)" if lost else name
        median = np.nanmedian(found[there], 1)
        ax.plot(data.detunings[there], median, color=look.color, ls=look.line, label=text)
        for draw in found.T:
            ax.plot(data.detunings, draw, color=look.color, marker=look.marker, ls="none")
    reference = np.nanmedian(found[0])
    ax.plot(
        data.detunings,
        reference * (data.detunings / data.detunings[0]) ** 2,
        color=style.BLACK,
        lw=0.6,
        ls=":",
        label="slope 2",
    )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("detuning of each oscillator (coupling rates)")
    ax.set_ylabel("change of a value (of its range)")
    ax.set_title("frequencies that both of a pair have, left out")
    style.legend(ax, loc="upper left")


def make_oscillator_mapping(request: Request) -> Drawn:
    """Figure 'oscillator_mapping' of the catalogue."""
    refuse_run(request, "oscillator_mapping", "networks of its own")
    with request.progress.task("figure: networks on oscillators", 1) as advance:
        data = oscillator_mapping(request.seed)
        advance(1)
    return Drawn(draw_oscillator_mapping(data), asdict(data))
