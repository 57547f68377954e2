"""Circuits in time: if these fail, seconds, watts or joules are not those of the circuit."""

from __future__ import annotations

import math
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from hardware_models import Circuit
from hardware_models.laws.elements import THERMAL_VOLTAGE
from hardware_models.netlists.parts import Part, Parts
from hardware_models.nodal import equations as nodal_equations
from hardware_models.nodal import factors as nodal_factors
from hardware_models.nodal import transients
from hardware_models.nodal.courses import CircuitTrajectory
from hardware_models.nodal.points import operating_point
from hardware_models.nodal.steps import Stepper
from hardware_models.nodal.stored_transients import read_transient
from hardware_models.nodal.transients import METHODS, transient
from physics_ep import Nudge, SquaredError, open_run
from physics_ep.errors import InputError
from tests.support.nodal import (
    KILO,
    MICRO,
    NANO,
    PICO,
    circuit,
    courses,
    farads,
    ohms,
    source,
    violation,
    wave,
)

# -- the methods --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_tableaus_have_the_order_and_damping_that_they_declare(name: str) -> None:
    """Order conditions up to the declared order, of the companion to one less, stiff accuracy, R(infinity) = 0."""
    method = METHODS[name]
    s = len(method.stages)
    a = np.array([[*row, *[0.0] * (s - len(row))] for row in method.stages])
    c, e = a.sum(1), np.ones(s)
    conditions = [
        [(e, 1.0)],
        [(c, 1 / 2)],
        [(c**2, 1 / 3), (a @ c, 1 / 6)],
        [(c**3, 1 / 4), (c * (a @ c), 1 / 8), (a @ c**2, 1 / 12), (a @ a @ c, 1 / 24)],
    ]
    companion = 3  # of both
    for weights, order in ((method.weights, method.order), (method.companion, companion)):
        for trees in conditions[:order]:
            for vector, value in trees:
                assert np.dot(weights, vector) == pytest.approx(value, abs=1e-14)
    assert method.stages[-1] == method.weights
    assert {row[k] for k, row in enumerate(method.stages) if k} == {method.stages[-1][-1]}
    # With a first stage that is explicit, R(infinity) = e_s^T a_22^-1 (what the first stage brings).
    carried = np.linalg.solve(a[1:, 1:], a[1:, 0])
    assert carried[-1] == pytest.approx(0.0, abs=1e-13)


@pytest.mark.full
@pytest.mark.parametrize(("name", "order"), [("tr_bdf2", 2), ("kennedy_carpenter", 4)])
def test_errors_fall_with_the_order_of_the_method(name: str, order: int) -> None:
    """Error of a diode's discharge over the number of steps, as the tolerance falls: slope -order."""
    parts, exact = discharge()
    steps, errors = [], []
    for rtol in (1e-9, 1e-10, 1e-11) if order == 4 else (1e-7, 1e-8, 1e-9):
        course = transient(parts, 1 * MICRO, start=[[0.0, 0.7]], method=name, rtol=rtol, atol=rtol)
        t, v = courses(course, "d")
        steps.append(course.steps)
        errors.append(np.abs(v - exact(t)).max())
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert -slope == pytest.approx(order, abs=0.35)


# -- closed forms -----------------------------------------------------------------------------------------------


def discharge() -> tuple[Parts, object]:
    """A capacitor that empties through a diode, and its voltage: 1 - exp(-v / s) falls as exp(-t Is / (C s))."""
    farad, saturation, emission = 1 * NANO, 1e-12, 1.2
    s = emission * THERMAL_VOLTAGE

    def exact(t: np.ndarray, v0: float = 0.7) -> np.ndarray:
        return -s * np.log(np.exp(-v0 / s) + np.expm1(-v0 / s) * np.expm1(-t * saturation / (farad * s)))

    parts = circuit(farads("C", "d", "0", farad), ("D", "diode", ("d", "0"), (saturation, emission)))
    return parts, exact


def test_a_capacitor_charges_through_a_resistor() -> None:
    """v = V (1 - exp(-t / RC)), three inputs at once, settled after RC ln 100: else a second is none."""
    ohm, farad = 10 * KILO, 1 * NANO
    tau = ohm * farad
    parts = circuit(source(2.0), ohms("R", "in", "c", ohm), farads("C", "c", "0", farad))
    volts = [1.0, 2.0, -3.0]
    course = transient(parts, 8 * tau, inputs=np.array(volts)[:, None], rtol=1e-9, atol=1e-12)
    exact = -np.expm1(-course.time.numpy() / tau)[:, None] * volts
    assert np.abs(course.voltage("c").numpy() - exact).max() < 1e-8
    assert course.settling_time.numpy() == pytest.approx(tau * math.log(100), rel=0.03)
    assert float(course.kirchhoff.max()) < 1e-15
    assert course.time[-1] == 8 * tau


def test_a_multiple_of_the_squared_error_is_a_larger_conductance() -> None:
    """Twice the cost pulls to the same target with twice the conductance."""

    class Doubled(SquaredError):  # noqa: N818
        def linear(self, *given):
            return tuple(2 * part for part in super().linear(*given))

    y = torch.tensor([[0.25]], dtype=torch.float64)
    circuit = type("Outputs", (), {"output_names": ["a"]})()
    for cost, factor in ((SquaredError(), 1), (Doubled(), 2)):
        names, targets, beta = transients._conductances(circuit, Nudge(cost, y, 1e-3))
        assert (names, targets.tolist()) == (("a",), [[0.25]])
        assert beta == pytest.approx(factor * 1e-3)


@pytest.mark.parametrize("name", ["_size", "_state_size"])
def test_an_error_that_is_no_number_is_no_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN is not above what is allowed: without this, a course goes on with it, of nodes or of memristors."""
    rows = [
        Part("V1", "voltage_source", ("in", "0"), (1.0,)),
        Part("X1", "biolek_memristor", ("in", "a"), (100.0, 16e3, 1e-14, 1e-8, 2.0, 0.1)),
        Part("C1", "capacitor", ("a", "0"), (1e-6,)),
    ]
    usual = getattr(Stepper, name)
    monkeypatch.setattr(Stepper, name, lambda *given: math.nan * usual(*given))
    with pytest.raises(InputError, match="transient cannot go on"):
        transient(Parts.collect(rows), 1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_with_a_history_are_numbers(dtype: torch.dtype) -> None:
    """Inputs, targets and starts that come from a network that learns: numpy takes no such tensor by itself."""
    rows = [Part("V1", "voltage_source", ("in", "0"), (1.0,)), Part("R1", "resistor", ("in", "a"), (1e-3,))]
    parts = Parts.collect([*rows, Part("C1", "capacitor", ("a", "0"), (1e-9,))])

    def course(read) -> torch.Tensor:
        volts, targets, start = ([[0.5]], [[0.25]], [[0.0, 0.5, 0.125]])
        found = transient(parts, 1e-6, inputs=read(volts), nudge=(["a"], read(targets), 1e-4), start=read(start))
        assert operating_point(parts, sources=read(volts)).voltages.shape == (1, 3)
        return found.state[0]

    own = course(lambda values: torch.tensor(values, dtype=dtype, requires_grad=True) * 1)
    assert torch.equal(own, course(np.array))


def test_half_of_the_energy_is_lost_whatever_the_resistance() -> None:
    """The source gives C V^2, of which the resistor takes half: else energies are not the integral of V I."""
    farad, volt = 3 * PICO, 1.5
    for ohm in (10.0, 10 * KILO):
        parts = circuit(source(volt), ohms("R", "in", "c", ohm), farads("C", "c", "0", farad))
        course = transient(parts, 40 * ohm * farad, rtol=1e-10, atol=1e-13)
        taken = {kind: float(joule) for kind, joule in course.power.energies().items()}
        whole = farad * volt**2
        assert taken["resistor"] == pytest.approx(whole / 2, rel=1e-9, abs=0)
        assert taken["capacitor"] == pytest.approx(whole / 2, rel=1e-9, abs=0)
        assert taken["voltage_source"] == pytest.approx(-whole, rel=1e-9, abs=0)


@pytest.mark.parametrize("spread", [1.0, 1e6])
def test_a_ladder_follows_the_matrix_exponential(spread: float) -> None:
    """Eight nodes, time constants of one size or a million apart: stiffness must not cost accuracy, or steps."""
    n = 8
    farad = 1 * NANO * np.geomspace(1 / spread, 1.0, n)
    parts = [source(1.0, "n0")]
    for k in range(1, n + 1):
        parts += [ohms(f"R{k}", f"n{k - 1}", f"n{k}", KILO), farads(f"C{k}", f"n{k}", "0", farad[k - 1])]
    g = (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)) / KILO
    g[-1, -1] = 1 / KILO
    course = transient(circuit(*parts), 50 * MICRO, rtol=1e-8, atol=1e-11)
    rate, drive = -g / farad[:, None], np.eye(n)[0] / KILO
    rest = np.linalg.solve(g, drive)
    picked = np.linspace(0, len(course.time) - 1, 25).astype(int)
    for row in picked:
        exact = rest - expm(rate * float(course.time[row])) @ rest
        assert np.abs(course.state[0][row, 0, 2:].numpy() - exact).max() < 3e-8
    assert course.steps < 400


@pytest.mark.full
def test_a_diode_empties_a_capacitor() -> None:
    """The closed form, from milliamperes to picoamperes; with a resistor beside it scipy's Radau at 1e-11."""
    parts, exact = discharge()
    course = transient(parts, 1e-3, start=[[0.0, 0.7]], rtol=1e-9, atol=1e-13)
    t, v = courses(course, "d")
    assert np.abs(v / exact(t) - 1).max() < 1e-8

    def rate(_: float, u: np.ndarray) -> np.ndarray:
        return -(1e-6 * u + 1e-12 * np.expm1(u / (1.2 * THERMAL_VOLTAGE))) / NANO

    leaky = Parts.collect([*parts, Part("R", "resistor", ("d", "0"), (1e-6,))])
    for duration in (1e-7, 1e-5, 1e-3):
        radau = solve_ivp(rate, (0, duration), [0.7], method="Radau", rtol=1e-11, atol=1e-15).y[0, -1]
        course = transient(leaky, duration, start=[[0.0, 0.7]], rtol=1e-9, atol=1e-13)
        assert float(course.voltage("d")[-1]) == pytest.approx(radau, rel=1e-8)


def test_steps_land_on_the_corners_of_waveforms() -> None:
    """A ramp into RC, up and down again, and a jump: else corners are cut, and inputs come late."""
    tau = 1 * MICRO
    points = ((0.0, 0.0), (2 * MICRO, 4.0), (3 * MICRO, 4.0), (3 * MICRO, -1.0))
    parts = circuit(wave(*points), ohms("R", "in", "c", KILO), farads("C", "c", "0", tau / KILO))
    course = transient(parts, 6 * MICRO, rtol=1e-9, atol=1e-12)
    t, v = courses(course, "c")
    assert {2 * MICRO, 3 * MICRO, 6 * MICRO} <= set(t.tolist())
    slope = 2.0 / MICRO
    ramp = slope * (t + tau * np.expm1(-t / tau))
    at2 = slope * (2 * MICRO + tau * math.expm1(-2))
    flat = 4.0 + (at2 - 4.0) * np.exp(-(t - 2 * MICRO) / tau)
    at3 = 4.0 + (at2 - 4.0) * math.exp(-1)
    low = -1.0 + (at3 + 1.0) * np.exp(-(t - 3 * MICRO) / tau)
    exact = np.select([t <= 2 * MICRO, t <= 3 * MICRO], [ramp, flat], low)
    assert np.abs(v - exact).max() < 2e-8
    jump = np.flatnonzero(t == 3 * MICRO)
    assert course.voltage("in")[jump, 0].tolist() == [4.0, -1.0]


def test_a_jump_is_shared_by_capacitors_in_no_time() -> None:
    """Two in series at a source that jumps share as 1 / C does; then a decay through the resistor."""
    points = ((0.0, 0.0), (1 * MICRO, 0.0), (1 * MICRO, 3.0))
    parts = circuit(
        wave(*points),
        farads("C1", "in", "c", 1 * NANO),
        farads("C2", "c", "0", 2 * NANO),
        ohms("R", "c", "0", KILO),
    )
    for start in ("zero", "operating_point"):
        course = transient(parts, 20 * MICRO, start=start, rtol=1e-8, atol=1e-11)
        t, v = courses(course, "c")
        first = np.flatnonzero(t == 1 * MICRO)[-1]
        exact = np.exp(-(t[first:] - 1 * MICRO) / (3 * MICRO))
        assert np.abs(v[first:] - exact).max() < 1e-7
        assert np.abs(v[:first]).max() == 0.0
        # No current of the jump itself is left: the capacitors give what the resistor takes.
        assert float(course.residual[first]) == pytest.approx(1.0 / KILO, rel=1e-6)
        assert float(course.settling_time) == pytest.approx(1e-6 + 3e-6 * math.log(100), rel=0.03)


def test_an_amplifier_charges_its_load_and_draws_for_it() -> None:
    """Bidirectional, gain A, C at the output: seen from its input that is a capacitor C, whatever A."""
    gain, tau = 5.0, 1 * MICRO
    parts = circuit(
        source(0.2),
        ohms("R", "in", "a", KILO),
        ("A", "amplifier", ("a", "b"), (gain,)),
        farads("C", "b", "0", tau / KILO),
    )
    course = transient(parts, 5 * tau, rtol=1e-9, atol=1e-12)
    t, v = courses(course, "b")
    assert np.abs(v + gain * 0.2 * np.expm1(-t / tau)).max() < 1e-8


def test_an_ideal_diode_holds_the_peak() -> None:
    """Without a resistor the capacitor follows the source up and keeps the highest voltage: else it leaks back."""
    parts = circuit(
        wave((0.0, 0.0), (1e-3, 1.0), (2e-3, -1.0), (3e-3, 0.5)),
        ("D", "ideal_diode", ("in", "c"), ()),
        farads("C", "c", "0", MICRO),
    )
    t, v = courses(transient(parts, 3e-3, rtol=1e-8, atol=1e-11), "c")
    assert np.abs(v - np.minimum(t / 1e-3, 1.0)).max() < 1e-7


def test_growth_and_divergence() -> None:
    """A net negative conductance grows as exp(t / tau); without end, one line says so with the node."""
    parts = circuit(
        ohms("R", "a", "0", KILO), ("G", "vccs", ("0", "a", "a", "0"), (2e-3,)), farads("C", "a", "0", NANO)
    )
    course = transient(parts, 10 * MICRO, start=[[0.0, 1e-3]], rtol=1e-10, atol=1e-14)
    assert float(course.voltage("a")[-1]) == pytest.approx(1e-3 * math.exp(10), rel=1e-8)
    with pytest.raises(InputError, match="The circuit diverges: node 'a' passes"):
        transient(parts, 1e-3, start=[[0.0, 1e-3]])


# -- what must hold in any circuit ------------------------------------------------------------------------------


def network() -> Parts:
    """Two stages with every kind of part, capacitors at some nodes only."""
    return circuit(
        source(1.0),
        ("V2", "voltage_source", ("bias", "0"), (0.3,)),
        ("I", "current_source", ("0", "h1"), (2e-5,)),
        ohms("R1", "in", "h1", 10 * KILO),
        ohms("R2", "in", "h2", 20 * KILO),
        ohms("R3", "h1", "h2", 30 * KILO),
        ("M", "memristor", ("h2", "bias"), (5e-5, 0.4)),
        ("D1", "diode", ("h1", "bias"), (1e-12, 1.2)),
        ("P1", "piecewise_diode", ("0", "h2"), (1e-3, 0.1, 1e-8)),
        ("D2", "ideal_diode", ("h3", "bias"), ()),
        ohms("R6", "h2", "h3", 15 * KILO),
        ("A", "amplifier", ("h1", "a"), (3.0,)),
        ("E", "vcvs", ("e", "0", "h2", "h1"), (1.5,)),
        ("B", "rectifier", ("r", "0", "h2", "0"), (2.0,)),
        ("G", "vccs", ("o", "0", "h1", "0"), (-1e-5,)),
        ("F", "cccs", ("0", "o"), (0.05,), "V2"),
        ohms("R4", "a", "o", 10 * KILO),
        ohms("R5", "e", "o", 20 * KILO),
        ohms("R7", "r", "o", 20 * KILO),
        ohms("R8", "o", "0", 50 * KILO),
        farads("C1", "h1", "0", PICO),
        farads("C2", "h2", "o", 2 * PICO),
        farads("C3", "o", "0", 3 * PICO),
    )


def with_sources(parts: Parts, volts: np.ndarray) -> Parts:
    """The parts with other voltages of the sources."""
    groups = dict(parts.groups)
    groups["voltage_source"] = replace(groups["voltage_source"], values=volts[:, None])
    return replace(parts, groups=groups)


INPUTS = np.array([[1.0, 0.3], [-0.5, 0.3], [0.1, -0.2]])


@pytest.fixture(scope="module")
def course() -> CircuitTrajectory:
    return transient(network(), 1 * MICRO, inputs=INPUTS)


def test_it_settles_at_the_operating_point(course: CircuitTrajectory) -> None:
    """Where nothing moves any more, and once there it stays: else DC and time disagree about the circuit."""
    found = operating_point(network(), INPUTS)
    assert np.abs(course.state[0][-1].numpy() - found.voltages).max() < 1e-8
    assert np.abs(course.currents[-1].numpy() - found.currents).max() < 1e-12
    assert bool((course.settling_time < 0.5 * MICRO).all())
    still = transient(network(), 1 * MICRO, inputs=INPUTS, start="operating_point")
    assert np.abs(still.state[0].numpy() - found.voltages).max() < 1e-12


def test_kirchhoff_and_tellegen_hold_at_every_step(course: CircuitTrajectory) -> None:
    """What sources deliver is heat and storage, to rounding; stored energy is C v^2 / 2 more than before."""
    parts = network()
    assert float(course.kirchhoff.max()) < 1e-12
    for row in range(0, len(course.time), 5):
        for b in range(len(INPUTS)):
            v = dict(zip(parts.nodes, course.state[0][row, b].tolist(), strict=True))
            through = dict(zip(course.branches, course.currents[row, b].tolist(), strict=True))
            through |= dict(zip(parts.group("capacitor").names, course.charging[row, b].tolist(), strict=True))
            amperes, volts = violation(with_sources(parts, INPUTS[b]), v, through)
            assert amperes < 1e-12
            assert volts < 1e-9
    power = course.power
    assert float(power.imbalance.abs().max()) < 1e-8 * float(power.delivered.abs().max())
    assert float(power.dissipated.min()) >= 0.0
    v = course.internal[0]
    farad = torch.tensor([PICO, 2 * PICO, 3 * PICO], dtype=torch.float64)
    stored = (farad * (v[-1].square() - v[0].square())).sum(1) / 2
    assert power.energies()["capacitor"].numpy() == pytest.approx(stored.numpy(), rel=1e-5, abs=0)


def test_energy_of_every_part_by_itself() -> None:
    """Heat of each resistor and of a diode as V I integrated from the course; together, what their kinds take."""
    course = transient(network(), 20 * NANO, inputs=INPUTS, rtol=1e-8, atol=1e-11, by_part=True)
    kinds = transient(network(), 20 * NANO, inputs=INPUTS, rtol=1e-8, atol=1e-11).power.energies()
    power, parts = course.power, network()
    taken = power.energies()
    assert set(taken) == {part.name for part in parts}
    for kind, joules in kinds.items():
        together = sum(taken[part.name] for part in parts if part.kind == kind)
        assert together.numpy() == pytest.approx(joules.numpy(), rel=1e-6, abs=1e-9 * float(joules.abs().max()))
    for name, nodes, (siemens,) in ((p.name, p.nodes, p.values) for p in parts if p.kind == "resistor"):
        watts = siemens * (course.voltage(nodes[0]) - course.voltage(nodes[1])).square()
        assert power.power[..., power.names.index(name)].numpy() == pytest.approx(
            watts.numpy(), rel=1e-9, abs=1e-18
        )
        heat = torch.trapezoid(watts, course.time, dim=0)
        assert taken[name].numpy() == pytest.approx(heat.numpy(), rel=2e-3)
    assert float(power.imbalance.abs().max()) < 1e-8 * float(power.delivered.abs().max())


@pytest.mark.full
def test_sparse_factors_follow_the_same_course(monkeypatch) -> None:
    """Large circuits have one sparse factorisation an example: else they are other circuits than small ones."""
    options = {"inputs": INPUTS, "rtol": 1e-8, "atol": 1e-11}
    small = transient(network(), 20 * NANO, **options)
    monkeypatch.setattr(nodal_factors, "DENSE", 0)
    monkeypatch.setattr(nodal_equations, "SMALL", 0)
    large = transient(network(), 20 * NANO, **options)
    assert float(small.residual[-1].min()) > 0.01 * float(small.residual.max())  # on its way
    assert large.steps == small.steps
    assert float((large.state[0][-1] - small.state[0][-1]).abs().max()) < 1e-10


def test_the_co_content_of_a_passive_circuit_falls() -> None:
    """With constant sources it is what the circuit lowers (gradient flow with C as its metric), nudged or not."""
    kept = [p for p in network() if p.kind not in ("amplifier", "vcvs", "rectifier", "vccs", "cccs")]
    parts = Parts.collect([p for p in kept if p.nodes[0] not in ("a", "e", "r")])
    free = transient(parts, 20 * MICRO, inputs=INPUTS)
    nudge = (["o", "h1"], np.array([[0.4, -0.3]] * 3), 2e-5)
    nudged = transient(parts, 20 * MICRO, inputs=INPUTS, nudge=nudge, start=free.state[0][-1].numpy())
    for phase in (free, nudged):
        assert float(phase.energy.diff(dim=0).max()) <= 1e-18
        assert float((phase.energy[0] - phase.energy[-1]).min()) > 1e-12
    rest = operating_point(parts, INPUTS, nudge=nudge)
    assert np.abs(nudged.state[0][-1].numpy() - rest.voltages).max() < 1e-8


def test_a_nudge_of_a_circuit_is_the_conductance_drawn() -> None:
    """`Nudge` on a Circuit against the same circuit with a resistor to a source at the target, volts and joules."""
    parts = [
        source(1.0),
        ohms("R1", "in", "h", KILO),
        ohms("R2", "h", "o", 2 * KILO),
        ohms("R3", "o", "0", KILO),
        farads("C1", "h", "0", NANO),
        farads("C2", "o", "0", NANO),
    ]
    nudge = Nudge(SquaredError(), torch.tensor([[0.2]], dtype=torch.float64), 1e-4)
    course = transient(Circuit(circuit(*parts), outputs=["o"]), 3 * MICRO, nudge=nudge)
    drawn = circuit(*parts, ohms("RT", "o", "t", 10 * KILO), ("VT", "voltage_source", ("t", "0"), (0.2,)))
    same = transient(drawn, 3 * MICRO)
    assert np.abs(course.voltage("o")[-1].numpy() - same.voltage("o")[-1].numpy()).max() < 1e-12
    lumped, apart = course.power.energies(), same.power.energies()
    resistors = float(apart["resistor"] - lumped["resistor"])
    sources = float(apart["voltage_source"] - lumped["voltage_source"])
    assert float(lumped["nudge"]) == pytest.approx(resistors + sources, rel=1e-9, abs=0)


@pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
def test_it_agrees_with_ngspice() -> None:
    """The trapezoidal rule of another program, 1e-4 of the largest voltage: else one of us is wrong."""
    from hardware_models.spice.ngspice import ngspice_transient

    points = ((0.0, 0.0), (20 * NANO, 1.0), (150 * NANO, 1.0), (160 * NANO, -1.0))
    kept = [p for p in network() if p.kind != "ideal_diode" and p.name not in ("V", "R6")]
    parts = Parts.collect([Part(*wave(*points)), *kept])
    ours = transient(parts, 300 * NANO)
    time, theirs = ngspice_transient(parts, 300 * NANO, step=50 * PICO)
    t = ours.time.numpy()
    t = t[t >= time[0]]  # ngspice does not keep the start
    rectified = 2 * ours.voltage("h2").clamp(min=0)  # its kink is not for an interpolation
    assert float((ours.voltage("r") - rectified).abs().max()) < 1e-12
    for node in set(parts.nodes) - {"0", "r"}:
        v = ours.voltage(node)[-len(t) :, 0].numpy()
        assert np.abs(np.interp(t, time, theirs[node]) - v).max() < 1e-4, node


@pytest.mark.full
def test_courses_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that go to a file in chunks come back as those in memory, lazily; a run that fails leaves no file."""
    monkeypatch.setattr(transients, "CHUNK_BYTES", 20_000)
    parts = Parts.collect(
        [
            Part("V1", "voltage_source", ("in", "0"), (1.0,)),
            Part("X1", "biolek_memristor", ("in", "a"), (100.0, 16e3, 1e-14, 1e-8, 2.0, 0.1)),
            Part("C1", "capacitor", ("a", "0"), (1e-6,)),
            Part("R1", "resistor", ("a", "0"), (1e-4,)),
        ]
    )
    held = transient(parts, 0.2, inputs=[[1.0], [0.5]])
    path = tmp_path / "course.h5"
    assert len(held.time) > 3 * 20_000 // (24 * 2 * 8 * 5)  # several chunks
    found = transient(parts, 0.2, inputs=[[1.0], [0.5]], out=path)
    for one in (found, read_transient(path)):
        for name in ("time", "energy", "residual", "currents", "charging", "kirchhoff", "states"):
            torch.testing.assert_close(getattr(one, name), getattr(held, name), rtol=0, atol=0)
        torch.testing.assert_close(one.state, held.state, rtol=0, atol=0)
        torch.testing.assert_close(one.internal, held.internal, rtol=0, atol=0)
        assert one.power is not None
        assert held.power is not None
        torch.testing.assert_close(one.power.energy, held.power.energy, rtol=0, atol=0)
        assert (one.nodes, one.branches, one.memristors) == (held.nodes, held.branches, held.memristors)
        assert (one.steps, one.rejected, one.power.kinds) == (held.steps, held.rejected, held.power.kinds)
    (course,) = open_run(path).trajectories.values()
    torch.testing.assert_close(course.state, held.state, rtol=0, atol=0)
    with pytest.raises(InputError, match="max_steps"):
        transient(parts, 0.2, out=tmp_path / "other.h5", max_steps=3)
    assert [p.name for p in tmp_path.iterdir()] == ["course.h5"]
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError):
        transient(parts, 0.2, out=tmp_path / "mine.txt")
    with pytest.raises(InputError, match="holds no transient"):
        read_transient(tmp_path / "mine.txt", verify=False)


def test_some_rows_are_kept_and_progress_is_told() -> None:
    """The same steps, one in four and the last; a thousand units of work: else bars run over."""

    class Listener:
        total = done = 0

        @contextmanager
        def task(self, description: str, total: int):
            self.total = total
            yield self

        def __call__(self, n: int = 1, **info) -> None:
            self.done += n

    listener = Listener()
    whole = transient(network(), 1 * MICRO)
    some = transient(network(), 1 * MICRO, every=4, progress=listener)
    rows = sorted({*range(0, len(whole.time), 4), len(whole.time) - 1})
    assert whole.time[rows].tolist() == some.time.tolist()
    assert torch.equal(whole.state[0][rows], some.state[0])
    assert torch.equal(whole.power.energy[rows], some.power.energy)
    assert listener.done == listener.total == 1000


# -- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"duration": 0.0}, "Argument duration must be positive and finite, in seconds, but was 0.0."),
        ({"duration": math.inf}, "Argument duration must be positive and finite"),
        ({"method": "euler"}, "Argument method must be one of kennedy_carpenter, tr_bdf2, but was 'euler'."),
        ({"rtol": -1.0}, "Argument rtol and atol must be positive"),
        ({"every": 0}, "Argument every must be an integer of at least 1"),
        ({"max_steps": 3}, "Argument max_steps must be larger, but was 3"),
        (
            {"start": "cold"},
            "start must be 'initial', 'zero', 'operating_point', a course or node voltages, but was 'cold'.",
        ),
        ({"start": [[0.0, 1.0]]}, "Argument start must hold finite voltages of shape (1, 3)"),
        ({"inputs": [[1.0, 2.0]]}, "Argument sources must have the shape (B, 1)"),
        ({"nudge": Nudge(SquaredError(), torch.zeros(1, 1), 1.0)}, "Argument nudge must be (node names"),
    ],
)
def test_bad_arguments(options: dict, said: str) -> None:
    """One line that names the argument, what it must be and what it was."""
    parts = circuit(source(1.0), ohms("R", "in", "c", KILO), farads("C", "c", "0", NANO))
    with pytest.raises(InputError) as error:
        transient(parts, **{"duration": 1 * MICRO, **options})
    assert said in str(error.value)


def test_waveforms_must_go_forward() -> None:
    """Falling times are a mistake in a netlist, and are told with the source's name."""
    parts = circuit(wave((0.0, 0.0), (2.0, 1.0), (1.0, 0.0)), ohms("R", "in", "0", KILO))
    with pytest.raises(InputError, match=r"waveform of 'V' must have times that do not fall"):
        transient(parts, 1.0)


def test_a_course_goes_on_with_the_currents_of_its_coils() -> None:
    """A nudged course after a free one: closed form of the linear equations of coil and capacitor, by expm.

    Started from node voltages alone the coil has no current, and the course is another.
    """
    resistance, inductance, capacity, pull, target = 50.0, 1e-3, 1e-7, 2e-3, 0.4
    parts = circuit(
        source(1.0),
        ohms("R1", "in", "a", resistance),
        ("L1", "inductor", ("a", "out"), (inductance,)),
        farads("C1", "out", "0", capacity),
        ohms("R2", "out", "0", 1e4),
    )
    first = transient(parts, 1.3e-5, start="zero", rtol=1e-9, atol=1e-12)
    nudge = (["out"], [[target]], pull)
    second = transient(parts, 2e-5, start=first, nudge=nudge, rtol=1e-9, atol=1e-12)
    leak = 1e-4

    def moved(state: np.ndarray, time: float, shunt: float, level: float) -> np.ndarray:
        """Coil's current and capacitor's voltage some time later."""
        matrix = np.array([[-resistance / inductance, -1 / inductance], [1 / capacity, -(leak + shunt) / capacity]])
        rest = np.linalg.solve(matrix, -np.array([1 / inductance, shunt * level / capacity]))
        return rest + expm(matrix * time) @ (state - rest)

    middle = moved(np.zeros(2), 1.3e-5, 0.0, 0.0)
    end = moved(middle, 2e-5, pull, target)
    coil = first.branches.index("L1")
    assert float(second.currents[0, 0, coil]) == pytest.approx(middle[0], rel=1e-6)
    assert float(second.currents[-1, 0, coil]) == pytest.approx(end[0], rel=1e-5)
    assert float(second.voltage("out")[-1, 0]) == pytest.approx(end[1], rel=1e-6)
    without = transient(parts, 2e-5, start=first.state[0][-1], nudge=nudge)
    assert abs(float(without.voltage("out")[-1, 0]) - end[1]) > 0.1 * abs(end[1])
    assert not bool(second.at_rest.any())
    assert bool(transient(parts, 5e-3, start=second).at_rest.all())
    assert bool(transient(parts, 1e-5, start="operating_point").at_rest.all())
    other = circuit(source(1.0), ohms("R1", "in", "out", resistance), farads("C1", "out", "0", capacity))
    with pytest.raises(InputError, match="start must be a course of this circuit, with its nodes"):
        transient(other, 1e-5, start=first)
