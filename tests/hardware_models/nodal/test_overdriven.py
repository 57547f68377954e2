"""Diodes straight across ideal sources, up to 1e18 A: if these fail, a node's few milliamperes drown in them."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from hardware_models.circuits import circuit as circuits
from hardware_models.circuits.active import ActiveCircuit
from hardware_models.circuits.circuit import Circuit
from hardware_models.laws.elements import THERMAL_VOLTAGE
from hardware_models.netlists.parts import Parts
from hardware_models.nodal.points import operating_point
from hardware_models.nodal.power import power_at_rest
from hardware_models.nodal.small_signals import frequency_response
from hardware_models.nodal.transients import transient
from hardware_models.spice.ngspice import node_voltages, run_ngspice, simulator_lines
from physics_ep import Status
from tests.support.nodal import KILO, NANO, circuit, farads, ohms

G, LEAK = 1 / KILO, 1e-14
OVER = 0.3, 1.2, 1.5, 1.7, 1.9
"""Volts across a diode of 1e-14 A, and so 1e-9 to 1e18 A."""


def diode(name: str, anode: str, cathode: str) -> tuple:
    return (name, "diode", (anode, cathode), (LEAK, 1.0))


def parts_of(over: float, floating: bool, *more: tuple) -> Parts:
    """3 V over R1 into p, a diode and R2 at q; an overdriven diode across a source from p to q, or elsewhere."""
    ends = ("p", "q") if floating else ("x", "0")
    return circuit(
        ("V1", "voltage_source", ends, (over,)),
        diode("D1", *ends),
        ("V2", "voltage_source", ("s", "0"), (3.0,)),
        ohms("R1", "s", "p" if floating else "q", KILO),
        ohms("R2", "q", "0", KILO),
        diode("D2", "q", "0"),
        *more,
    )


def charging(q: float, drop: float) -> float:
    """Current into q that R1, R2 and D2 leave over, amperes: the node equation, written out."""
    return G * (3 - drop - q) - G * q - LEAK * math.expm1(q / THERMAL_VOLTAGE)


def level(drop: float) -> float:
    return brentq(charging, -1, 3, (drop,), xtol=1e-15, rtol=1e-14)


@pytest.mark.full
@pytest.mark.parametrize("floating", [True, False])
def test_each_node_obeys_its_own_equation(floating: bool) -> None:
    """Breaks if what 1e9 A round to counts as missing at a node of milliamperes, in a batch or alone."""
    parts = parts_of(1.0, floating)
    sources = np.stack([OVER, np.full(len(OVER), 3.0)], 1)
    exact = np.array([level(over if floating else 0.0) for over in OVER])
    at = parts.nodes.index("q")
    found = operating_point(parts, sources)
    assert found.converged.all()
    assert np.abs(found.voltages[:, at] - exact).max() < 1e-12
    for over, q in zip(OVER, exact, strict=True):
        alone = operating_point(parts_of(over, floating))
        assert alone.converged.all()
        assert abs(alone.voltages[0, at] - q) < 1e-12
    for kind in (Circuit, ActiveCircuit):
        system = kind(parts)
        point = system.operating_point(torch.from_numpy(sources)).require()
        assert np.abs(system.node_voltages(point)["q"].numpy() - exact).max() < 1e-12


@pytest.mark.parametrize("floating", [True, False])
def test_courses_and_small_signals(floating: bool) -> None:
    """Breaks if a step of Newton's method passes as rounding beside 1e18 A, or signals lose siemens."""
    over = 1.9
    drop = over if floating else 0.0
    parts = parts_of(over, floating, farads("C", "q", "0", NANO))
    found = transient(parts, 2e-6, rtol=1e-6, atol=1e-8)
    exact = solve_ivp(
        lambda t, q: [charging(q[0], drop) / NANO],
        (0, 2e-6),
        [0.0],
        "LSODA",
        t_eval=found.time.numpy(),
        rtol=1e-9,
        atol=1e-12,
    )
    q = found.state[0][:, 0, parts.nodes.index("q")].numpy()
    assert np.abs(q - exact.y[0]).max() < 1e-5
    answer = frequency_response(parts, [1e6], amplitudes={"V2": 1.0}).voltage("q").item()
    slope = LEAK / THERMAL_VOLTAGE * math.exp(level(drop) / THERMAL_VOLTAGE)
    assert answer == pytest.approx(G / (2 * G + slope + 2j * math.pi * 1e6 * NANO), rel=1e-9)


def test_a_stall_is_judged_node_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if 1e6 A at one node, or in another example, excuse 1 nA that is missing at a node of milliamperes."""
    parts = circuit(
        ("V1", "voltage_source", ("s", "0"), (1.0,)),
        *(("R1", "resistor", ("s", "a"), (1e6,)), ("R2", "resistor", ("a", "0"), (1e6,)), diode("D1", "a", "0")),
        *(ohms("R3", "s", "b", KILO), ohms("R4", "b", "0", KILO), diode("D2", "b", "0")),
    )
    system, honest, asked = Circuit(parts), circuits.relax, []
    volts = torch.tensor([[1.0], [1e3]], dtype=torch.float64)
    exact = system.voltages(system.operating_point(volts).require().state, volts)

    def stalled(*args, **options):
        found = honest(*args, **options)
        if not asked:
            (u,) = found.state
            column = system.layout.net.unknown[parts.nodes.index("b")]
            u[0, column] += 1e-6
            force = system.force((u,), args[1])[0].abs().amax(1)
            residual = force / system.residual_scale
            found = type(found)(residual, 1e-30, found.iterations, Status.STALLED, lambda: (u,))
        asked.append(len(args[1]))
        return found

    monkeypatch.setattr(circuits, "relax", stalled)
    point = system.operating_point(volts)
    assert asked[:2] == [2, 1]
    assert (system.voltages(point.require().state, volts) - exact).abs().max() < 1e-12


@pytest.mark.skipif(shutil.which("ngspice") is None, reason="needs ngspice")
def test_a_rectifier_beside_it_in_ngspice() -> None:
    """Breaks if a bridge of diodes is told otherwise than by ngspice where another diode takes 1e5 A."""
    parts = circuit(
        *(("V1", "voltage_source", ("x", "0"), (1.15,)), diode("D1", "x", "0")),
        *(("V2", "voltage_source", ("p", "0"), (5.0,)), diode("D2", "p", "u"), diode("D3", "0", "u")),
        *(diode("D4", "m", "p"), diode("D5", "m", "0"), ohms("R1", "u", "m", KILO), ohms("R2", "x", "u", KILO)),
    )
    found = operating_point(parts)
    assert found.converged.all()
    theirs = node_voltages(parts, run_ngspice(simulator_lines(parts), ["op"]))
    for name, volts in zip(parts.nodes[1:], found.voltages[0, 1:].tolist(), strict=True):
        assert volts == pytest.approx(theirs[name][0], abs=1e-6)


@pytest.mark.parametrize("over", [-60.0, -1.0, 0.5, 0.7, 1.5, 2.0, 5.0, 9.0])
@pytest.mark.parametrize("series", [0.0, 1.0])
def test_the_source_carries_what_the_diode_takes(over: float, series: float) -> None:
    """Two sources and a diode between them, up to 1e138 A: Shockley's law written out, with RS by bisection."""
    ends = [diode("D1", "a", "b")] if not series else [diode("D1", "m", "b"), ohms("Rs", "a", "m", series)]
    parts = circuit(
        ("V1", "voltage_source", ("a", "0"), (over + 1,)), ("V2", "voltage_source", ("b", "0"), (1.0,)), *ends
    )

    def current(drop: float) -> float:
        return LEAK * math.expm1((over - drop) / THERMAL_VOLTAGE)

    wanted = current(0.0)
    if series:
        wanted = brentq(lambda drop: current(drop) - drop / series, *sorted((0.0, over)), xtol=1e-16, rtol=1e-14)
    found = operating_point(parts)
    assert found.converged.all()
    np.testing.assert_allclose(-found.currents[0], [wanted, -wanted], rtol=1e-12, atol=1e-14)
    assert Circuit(parts).operating_point().require().converged


def test_power_is_that_of_the_operating_point_that_is_named() -> None:
    """A latch with three of them: v = 2 tanh(3 v), each with the power that its own voltage tells."""
    parts = circuit(
        ("V1", "voltage_source", ("s", "0"), (1.0,)),
        ohms("R1", "s", "a", KILO),
        ("B1", "behavioural_voltage", ("a", "0"), (), "", (), None, "2*tanh(3*v(a))"),
        ohms("R2", "a", "0", KILO),
    )
    high = brentq(lambda v: v - 2 * math.tanh(3 * v), 1.0, 3.0, xtol=1e-15)
    for start in (high + 0.1, -high - 0.1):
        volts = np.array([[0.0] + [{"a": start, "s": 1.0}[node] for node in parts.nodes[1:]]])
        found = power_at_rest(parts, start=volts)["resistor"][0]
        at = math.copysign(high, start)
        assert found == pytest.approx(((1 - at) ** 2 + at**2) / KILO, rel=1e-9)
