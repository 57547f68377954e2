"""Ideal diodes in time: if these fail, circuits with them stop, or nodes go where their diodes do not let them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from hardware_models import ResistiveNetwork
from hardware_models.netlists.parts import Group, Parts
from hardware_models.nodal.courses import CircuitTrajectory
from hardware_models.nodal.points import operating_point
from hardware_models.nodal.transients import METHODS, transient
from physics_ep import Nudge, SquaredError, relax, simulate
from physics_ep.errors import InputError
from tests.support.nodal import KILO, MICRO, NANO, circuit, courses, farads, ohms, source, wave

TAU = KILO * NANO


def diodes(course: CircuitTrajectory, parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Currents and voltages of the ideal diodes, (T, B, diodes)."""
    group = parts.group("ideal_diode")
    columns = [course.branches.index(name) for name in group.names]
    anode, cathode = group.nodes.T
    v = course.state[0].numpy()
    return course.currents[..., columns].numpy(), v[..., anode] - v[..., cathode]


# -- closed forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "rtol", "steps"),
    [
        ("kennedy_carpenter", 1e-6, 60),
        ("kennedy_carpenter", 1e-9, 150),
        ("tr_bdf2", 1e-6, 200),
        ("tr_bdf2", 1e-8, 700),
    ],
)
def test_half_wave_rectifier(method: str, rtol: float, steps: int) -> None:
    """Triangles at a diode before RC: the node follows, leaves when C empties through R alone, is caught again."""
    slope = 1 / MICRO
    times, volts = np.array([0, 2, 5, 8]) * MICRO, np.array([0, 2.0, -1.0, 2.0])
    parts = circuit(
        wave(*zip(times.tolist(), volts.tolist(), strict=True)),
        ("D", "ideal_diode", ("in", "c"), ()),
        farads("C", "c", "0", NANO),
        ohms("R", "c", "0", KILO),
    )
    course = transient(parts, 8 * MICRO, method=method, rtol=rtol, atol=1e-3 * rtol)
    t, v = courses(course, "c")
    # C slope = v / R, where the source falls as fast as the discharge would.
    left = times[1] + (volts[1] - TAU * slope) / slope

    def discharge(t: np.ndarray) -> np.ndarray:
        return TAU * slope * np.exp(-(t - left) / TAU)

    caught = brentq(lambda t: discharge(t) - np.interp(t, times, volts), 5 * MICRO, 8 * MICRO, xtol=1e-20)
    exact = np.where((t > left) & (t < caught), discharge(t), np.interp(t, times, volts))
    assert np.abs(v - exact).max() < 50 * rtol
    assert diodes(course, parts)[0].min() > -1e-15
    assert course.steps < steps


def test_a_clamp_takes_what_its_node_is_driven_with() -> None:
    """A triangle through R into C and a diode to ground: 0 V while it conducts, and then all of the current."""
    slope = 0.5 / MICRO
    parts = circuit(
        wave((0.0, -1.0), (4 * MICRO, 1.0), (8 * MICRO, -1.0)),
        ohms("R", "in", "c", KILO),
        farads("C", "c", "0", NANO),
        ("D", "ideal_diode", ("c", "0"), ()),
    )
    course = transient(parts, 8 * MICRO, rtol=1e-9, atol=1e-12)
    t, v = courses(course, "c")

    def ramp(t: np.ndarray, u: float, s: float) -> np.ndarray:
        """From 0 V, at a source u + s t."""
        return u + s * t - s * TAU + (s * TAU - u) * np.exp(-t / TAU)

    on, off = brentq(lambda t: ramp(t, -1.0, slope), 1 * MICRO, 4 * MICRO, xtol=1e-20), 6 * MICRO
    exact = np.select([t < on, t < off], [ramp(t, -1.0, slope), 0.0], ramp(t - off, 0.0, -slope))
    assert np.abs(v - exact).max() < 2e-8
    held = np.flatnonzero((t > on) & (t < off))[2:]  # the first is a mean over the step
    amperes, _ = diodes(course, parts)
    assert amperes.min() > -1e-15
    assert np.abs(amperes[held, 0, 0] - course.voltage("in")[held, 0].numpy() / KILO).max() < 1e-12


# -- resistive networks -----------------------------------------------------------------------------------------


class Case:
    """A resistive network with a capacitor at each node, three examples, free from rest and then nudged."""

    def __init__(self, method: str) -> None:
        self.network = ResistiveNetwork([6, 8, 7, 4], diode="ideal", input_gain=4.0, scale=1.0).double()
        parts = self.network.to_circuit().parts
        self.nodes = np.array([k for k, name in enumerate(parts.nodes) if name[0] in "hy"])
        ends = np.stack([self.nodes, np.zeros_like(self.nodes)], 1)
        farad = np.full((len(self.nodes), 1), self.network.capacitance)
        capacitors = Group(tuple(f"C{k}" for k in self.nodes), ends, farad)
        self.parts = replace(parts, groups={**parts.groups, "capacitor": capacitors})
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = (torch.rand(3, n, generator=generator, dtype=torch.float64) for n in (6, 4))
        slowest = self.network.capacitance / min(float(load.detach().mean()) for load in self.network.loads())
        self.duration = 40 * slowest
        self.beta = 0.5 * self.network.nudge_scale
        outputs = [name for name in parts.nodes if name[0] == "y"]
        self.free = self.follow(method=method)
        rest = self.free.state[0][-1].numpy()
        self.nudged = self.follow(method=method, start=rest, nudge=(outputs, self.y.numpy(), self.beta))

    def follow(self, parts: Parts | None = None, duration: float = 0.0, **options) -> CircuitTrajectory:
        volts = self.network.circuit_inputs(self.x).numpy()
        return transient(parts or self.parts, duration or self.duration, inputs=volts, **options)

    def volts(self, course: CircuitTrajectory) -> np.ndarray:
        return course.state[0][..., self.nodes].numpy()


@pytest.fixture(scope="module", params=METHODS)
def case(request) -> Case:
    return Case(request.param)


def charges(course: CircuitTrajectory, case: Case, row: int) -> np.ndarray:
    """Currents of the capacitors at the nodes with a diode, (B, diodes)."""
    held = case.parts.group("ideal_diode").nodes.max(1)
    return course.charging[row].numpy()[:, np.searchsorted(case.nodes, held)]


@pytest.mark.full
def test_networks_end_in_their_equilibria(case: Case) -> None:
    """Both phases, from 0 V, where all diodes are on their kinks: else the circuit is not the network."""
    free = relax(case.network, case.x, tolerance=1e-12).require()
    nudge = Nudge(SquaredError(), case.y, case.beta)
    nudged = relax(case.network, case.x, nudge=nudge, start=free.state, tolerance=1e-12).require()
    for course, rest in ((case.free, free), (case.nudged, nudged)):
        assert np.abs(case.volts(course)[-1] - torch.cat(rest.state, 1).detach().numpy()).max() < 1e-8
    assert np.abs(case.volts(case.nudged)[-1] - case.volts(case.free)[-1]).max() > 1e-2
    assert case.free.steps < 500


def test_diodes_conduct_one_way_and_power_is_accounted_for(case: Case) -> None:
    """No current back, no voltage forward, never both; nothing is lost; what the network lowers falls."""
    for course in (case.free, case.nudged):
        amperes, volts = diodes(course, case.parts)
        assert amperes.min() > -1e-15
        assert volts.max() < 1e-15
        assert np.abs(amperes * volts).max() < 1e-15
        # A node that stays on its kink takes no charge, at the start neither.
        assert np.abs(charges(course, case, 0)[amperes[0] > 1e-6]).max() < 1e-12
        assert ((amperes > 1e-6).any(0) & (amperes < 1e-6).any(0)).any()  # some do switch
        power = course.power
        assert float(power.imbalance.abs().max()) < 1e-9 * float(power.delivered.abs().max())
        assert float(course.energy.diff(dim=0).max()) < 1e-14 * float(course.energy.abs().max())
        v = case.volts(course)
        stored = case.network.capacitance * (v[-1] ** 2 - v[0] ** 2).sum(1) / 2
        error = np.abs(power.energies()["capacitor"].numpy() - stored)
        assert (error < 1e-4 * case.network.capacitance * (v[-1] ** 2).sum(1)).all()


@pytest.mark.full
def test_the_way_is_that_of_the_network_and_of_hard_diodes() -> None:
    """Another integrator on the network's own motion; piecewise diodes come as near as they are hard."""
    case = Case("kennedy_carpenter")
    duration = case.duration / 20
    course = case.follow(duration=duration, rtol=1e-9, atol=1e-12)
    start = tuple(torch.zeros(3, n, dtype=torch.float64) for n in (8, 7, 4))
    moved = simulate(case.network, case.x, duration, steps=1000, start=start)
    theirs = torch.cat(moved.state, 2).detach().numpy()
    for row in range(0, len(moved.time), 100):
        ours = [
            np.interp(float(moved.time[row]), course.time.numpy(), v)
            for v in case.volts(course).reshape(len(course.time), -1).T
        ]
        assert np.abs(theirs[row].ravel() - ours).max() < 2e-4
    assert np.abs(theirs[-1] - case.volts(course)[-1]).max() < 1e-6
    groups = dict(case.parts.groups)
    group = groups.pop("ideal_diode")
    distance = []
    for hard in (1e3, 1e4, 1e5):
        siemens = hard * max(float(load.detach().max()) for load in case.network.loads())
        groups["piecewise_diode"] = replace(group, values=np.tile([siemens, 0.0, 0.0], (len(group), 1)))
        harder = case.follow(replace(case.parts, groups=groups), duration, rtol=1e-9, atol=1e-12)
        distance.append(np.abs(case.volts(harder)[-1] - case.volts(course)[-1]).max())
    assert np.diff(np.log10(distance)) == pytest.approx([-1, -1], abs=0.02)


# -- certificates -----------------------------------------------------------------------------------------------


def test_a_diode_that_conducted_before_does_not_conduct_back() -> None:
    """From the solution of a current of the other sign: else no volt moves, and 10 uA flow against the diode."""

    def clamped(ampere: float) -> Parts:
        return circuit(
            ("I", "current_source", ("0", "a"), (ampere,)),
            ohms("R", "a", "0", KILO),
            ("D", "ideal_diode", ("a", "0"), ()),
        )

    before = operating_point(clamped(1e-5))
    found = operating_point(clamped(-1e-5), start=before)
    assert before.currents[0, 0] == pytest.approx(1e-5, rel=1e-9)
    assert found.voltages[0, 1] == pytest.approx(-1e-2, rel=1e-9)
    assert abs(found.currents[0, 0]) < 1e-15


def test_a_diode_across_a_source_is_no_operating_point() -> None:
    """A short of a source has no solution: else it passes as one, at some current."""
    parts = circuit(source(1.0), ohms("R", "in", "c", KILO), ("D", "ideal_diode", ("in", "0"), ()))
    assert not operating_point(parts).converged.any()
    shorted = circuit(
        wave((0.0, -1.0), (MICRO, 1.0)),
        ("D", "ideal_diode", ("in", "0"), ()),
        ohms("R", "in", "c", KILO),
        farads("C", "c", "0", NANO),
    )
    with pytest.raises(InputError, match="cannot go on at 5e-07 s"):
        transient(shorted, MICRO)


def test_diodes_in_parallel_share_and_hold() -> None:
    """To ground and between capacitors, both ways: 0 V, and all of the current, whatever jumps."""
    names, ends = ("D1", "D2", "D3"), (("c", "0"), ("c", "0"), ("0", "c"))
    parts = circuit(
        wave((0.0, 2.0), (0.5 * MICRO, 2.0), (0.5 * MICRO, -1.0), (MICRO, 1.0)),
        ohms("R", "in", "c", KILO),
        farads("C", "c", "0", NANO),
        farads("CB", "b", "0", NANO),
        ohms("RB", "b", "0", KILO),
        *((name, "ideal_diode", pair, ()) for name, pair in zip(names, ends, strict=True)),
        *((f"B{name}", "ideal_diode", ("b", "c"), ()) for name in names),
    )
    course = transient(parts, MICRO)
    amperes, volts = diodes(course, parts)
    assert np.abs(volts).max() < 1e-12
    assert np.abs(amperes @ [1, 1, -1, -1, -1, -1] - course.voltage("in").numpy() / KILO).max() < 1e-12
