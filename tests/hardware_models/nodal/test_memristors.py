"""Memristors whose state moves in time: if these fail, pulses program other conductances than they would."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hardware_models.circuits.circuit import Circuit
from hardware_models.netlists.memristors import FORMS, STATEFUL
from hardware_models.netlists.netlist import load_netlist, write_netlist
from hardware_models.netlists.parts import Part, Parts
from hardware_models.netlists.pulses import Sine
from hardware_models.netlists.writer import netlist_lines
from hardware_models.nodal.equations import NodalEquations
from hardware_models.nodal.points import operating_point
from hardware_models.nodal.transients import transient
from hardware_models.spice.ngspice import run_ngspice
from physics_ep.cost import SquaredError
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import EquilibriumPropagation

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
ON, OFF = 100.0, 16e3
DRIFT = (ON, OFF, 1e-14, 1e-8)
THRESHOLDS = (ON, OFF, -0.2, 0.3, -2e-8, 3e-8, 1.0, 3.0, 1e-8)
VALUES = {
    "linear_drift_memristor": (*DRIFT, 2.0, 0.1),
    "biolek_memristor": (*DRIFT, 2.0, 0.1),
    "vteam_memristor": (*THRESHOLDS, 2.0, 0.3),
}


def driven(kind: str, *values: float, wave: object = (), series: float = 0.0) -> Parts:
    """A source of 1 V, or with a waveform, at a memristor, behind a resistor where there is one."""
    node = "a" if series else "in"
    parts = [Part("V1", "voltage_source", ("in", "0"), (1.0,), waveform=wave)]  # type: ignore[arg-type]
    if series:
        parts.append(Part("R1", "resistor", ("in", "a"), (1 / series,)))
    return Parts.collect([*parts, Part("X1", kind, (node, "0"), values or VALUES[kind])])


@pytest.mark.parametrize("kind", ["linear_drift_memristor", "biolek_memristor"])
def test_drift_follows_the_flux(kind: str) -> None:
    """A window that is 1 within leaves Strukov's law: k phi = R_off (s - s0) - (R_off - R_on) (s^2 - s0^2) / 2."""
    parts = driven(kind, *DRIFT, 1000.0, 0.1)
    course = transient(parts, 0.5, rtol=1e-8)
    rate = DRIFT[2] * ON / DRIFT[3] ** 2
    s, t = course.states[:, 0, 0].numpy(), course.time.numpy()
    flux = (OFF * (s - 0.1) - (OFF - ON) * (s**2 - 0.1**2) / 2) / rate
    np.testing.assert_allclose(flux, t, atol=1e-7)
    assert s[-1] > 0.4
    np.testing.assert_allclose(course.memristor_currents[:, 0, 0], 1 / (ON * s + OFF * (1 - s)), rtol=1e-12)


def test_thresholds_and_rates_of_vteam() -> None:
    """Within the thresholds nothing moves; beyond, ds/dt = -k / D (v / v_t - 1)^alpha, the window 1 within."""
    values = (*THRESHOLDS, 500.0, 0.5)
    for volts, rate in ((0.29, 0.0), (-0.19, 0.0), (0.9, -24.0), (-0.6, 4.0)):
        parts = driven("vteam_memristor", *values)
        course = transient(parts, 0.01, inputs=[[volts]], rtol=1e-9)
        assert float(course.states[-1, 0, 0]) == pytest.approx(0.5 + 0.01 * rate, abs=1e-9)


@pytest.mark.full
def test_states_stop_at_their_ends_and_come_back() -> None:
    """Windows end the motion at 0 and 1; Biolek's and VTEAM's let it leave at once."""
    square = ((0.0, 1.0), (2.0, 1.0), (2.0, -1.0), (6.0, -1.0))
    course = transient(driven("biolek_memristor", wave=square), 6.0)
    s = course.states[:, 0, 0].numpy()
    assert s.max() == pytest.approx(1.0, abs=1e-4)
    assert s.min() > -1e-6
    assert s[-1] < 0.2
    turned = transient(driven("vteam_memristor", wave=square), 6.0).states[:, 0, 0].numpy()
    assert turned.min() == pytest.approx(0.0, abs=1e-4)
    assert turned[-1] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("kind", STATEFUL)
def test_slopes_are_those_of_the_residual(kind: str) -> None:
    """Finite differences of the equations in time, by voltages and states; else Newton's method creeps."""
    parts = driven(kind, series=1e3)
    equations = NodalEquations(parts, capacitors="charging")
    rng = np.random.default_rng(0)
    for volts in (0.7, -0.7):
        z = np.concatenate([[0.0, volts, 0.8 * volts], rng.uniform(-1e-3, 1e-3, 1), [0.4]])[None]
        drive = equations.drive(np.array([[volts]]))
        none = np.zeros((1, 0))
        entries = equations.jacobian(z, none, np.zeros((1, len(equations.branches)), bool))
        dense = np.zeros(equations.size**2)
        dense[equations.flat] = entries[0]
        found = dense.reshape(equations.size, -1).T / np.outer(equations.stretch, equations.stretch)

        def law(at: np.ndarray, e: NodalEquations = equations, d: object = drive) -> np.ndarray:
            on = np.zeros((1, len(e.branches)), bool)
            return e.residual(at, e.currents(e.across(at), d), on, d)[0, 1:]  # type: ignore[arg-type]

        for column in range(equations.size):
            step = np.zeros_like(z)
            step[0, column + 1] = 1e-6
            slope = (law(z + step) - law(z - step)) / 2e-6
            np.testing.assert_allclose(found.T[:, column], slope, rtol=1e-6, atol=1e-9)


def test_kirchhoff_energy_and_batches() -> None:
    """Laws hold with a capacitor, a diode and three inputs at once, each with a state of its own; heat is V I."""
    parts = Parts.collect(
        [
            Part("V1", "voltage_source", ("in", "0"), (1.0,)),
            Part("X1", "vteam_memristor", ("in", "a"), VALUES["vteam_memristor"]),
            Part("X2", "biolek_memristor", ("a", "b"), VALUES["biolek_memristor"]),
            Part("C1", "capacitor", ("b", "0"), (1e-6,)),
            Part("R1", "resistor", ("b", "0"), (1e-4,)),
            Part("D1", "diode", ("a", "0"), (1e-14, 1.0)),
        ]
    )
    inputs = [[1.0], [-1.0], [0.2]]
    course = transient(parts, 0.02, inputs=inputs, by_part=True)
    assert float(course.kirchhoff.max()) < 1e-9
    assert course.memristors == ("X2", "X1")
    power = course.power
    assert power is not None
    assert float(power.imbalance.abs().max()) < 1e-9
    volts = course.voltage("in") - course.voltage("a")
    heat = torch.trapezoid(volts * course.memristor_currents[..., 1], course.time, dim=0)
    assert power.energies()["X1"] == pytest.approx(heat.numpy(), rel=1e-2)
    for k, row in enumerate(inputs):
        alone = transient(parts, 0.02, inputs=[row])
        np.testing.assert_allclose(course.states[-1, k], alone.states[-1, 0], rtol=2e-5)
    assert float((course.states[-1, 0] - course.states[-1, 1]).abs().min()) > 1e-3


def test_at_rest_they_are_resistors_of_their_state() -> None:
    """Operating point, energy and gradient are those of a resistor; states do not move, nor does the parts list."""
    parts = driven("biolek_memristor", *DRIFT, 2.0, 0.25, series=1e3)
    ohm = 0.25 * ON + 0.75 * OFF
    assert operating_point(parts).voltages[0, 2] == pytest.approx(ohm / (ohm + 1e3), rel=1e-12)
    circuit = Circuit(parts, outputs=["a"])
    assert circuit.has_energy
    assert circuit.parts.groups.keys() == parts.groups.keys()
    for kind, group in parts.groups.items():
        np.testing.assert_array_equal(circuit.parts.groups[kind].values, group.values)
    same = Circuit(
        Parts.collect([*(p for p in parts if p.name != "X1"), Part("X1", "resistor", ("a", "0"), (1 / ohm,))]),
        outputs=["a"],
    )
    x, y = torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([[0.5]], dtype=torch.float64)
    for one in (circuit, same):
        EquilibriumPropagation(SquaredError(), beta=1e-6).backward(one, x, y)
    torch.testing.assert_close(circuit.conductance.grad, same.conductance.grad, rtol=1e-9, atol=0.0)
    course = transient(parts, 0.5, start="operating_point")
    assert float(course.states[0, 0, 0]) == 0.25
    later = Circuit(course.present(parts))
    settled = later.node_voltages(later.operating_point())
    assert settled["a"] == pytest.approx(float(course.voltage("a")[-1, 0]), rel=1e-9)
    others = Parts.collect(
        [
            *(p for p in parts if p.name != "X1"),
            Part("X9", "biolek_memristor", ("a", "0"), VALUES["biolek_memristor"]),
        ]
    )
    with pytest.raises(
        InputError, match=r"Argument parts must have the memristors of the course \(X1\), but was X9"
    ):
        course.present(others)
    with pytest.raises(InputError, match=f"Argument row must be an integer from .* to {len(course.time) - 1}"):
        course.present(parts, row=len(course.time))


@pytest.mark.parametrize("active", [False, True])
def test_learnt_conductances_are_states(active: bool) -> None:
    """A conductance is the state that has it; beyond the memristor's range it is clipped, or refused by name."""
    parts = [*driven("vteam_memristor", series=1e3)]
    if active:
        parts += [Part("E1", "vcvs", ("e", "0", "a", "0"), (2.0,)), Part("R2", "resistor", ("e", "a"), (1e-5,))]
    circuit = Circuit(Parts.collect(parts), outputs=["a"])
    assert circuit.has_energy is not active
    place = len(circuit.conductance) - 1
    with torch.no_grad():
        circuit.conductance[place] = 1 / (0.75 * ON + 0.25 * OFF)
    assert circuit.parts.group("vteam_memristor").values[0, -1] == pytest.approx(0.75, rel=1e-12)
    with torch.no_grad():
        circuit.conductance[place] = 1.0
    with pytest.raises(InputError, match=r"'X1' must be within 6\.25e-05 and 0\.01 S, but was 1 S"):
        _ = circuit.parts
    circuit.constrain()
    assert circuit.parts.group("vteam_memristor").values[0, -1] == 1.0


def test_netlists_bring_them_back(tmp_path: Path) -> None:
    """Written and read again they are the same numbers; without a definition they have the defaults."""
    parts = Parts.collect(
        [
            *driven("vteam_memristor", series=10.0),
            *(Part(f"X{k}", kind, ("a", "0"), VALUES[kind]) for k, kind in enumerate(STATEFUL, 2)),
        ]
    )
    write_netlist(tmp_path / "net.cir", parts)
    again = load_netlist(tmp_path / "net.cir").parts
    for kind in STATEFUL:
        np.testing.assert_array_equal(again.group(kind).values, parts.group(kind).values)
    path = tmp_path / "short.cir"
    path.write_text("t\nV1 a 0 1\nX1 a 0 biolek_memristor state=0.2\n.end\n")
    values = load_netlist(path).parts.group("biolek_memristor").values[0]
    assert values.tolist() == pytest.approx([100.0, 16e3, 1e-14, 1e-8, 1.0, 0.2])
    assert len(FORMS["biolek_memristor"].parameters) == len(values)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("X1 a 0 vteam_memristor state=1.5", "the state must be within 0 and 1, but was 1.5"),
        ("X1 a 0 vteam_memristor v_on=0.2", "the on threshold must be negative, but was 0.2"),
        ("X1 a 0 biolek_memristor roff=10", "the off resistance must exceed the on resistance of 100 ohm"),
        ("X1 a 0 biolek_memristor mu=1", "the parameter of biolek_memristor 'mu' is not defined"),
        ("X1 a biolek_memristor", "the subcircuit 'biolek_memristor' has 2 nodes (plus minus), but 1 are given"),
        ("X1 a 0 linear_drift_memristor mobility=0", "the mobility must be positive, but was 0 m^2/(V s)"),
    ],
)
def test_what_no_memristor_has_is_refused(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "net.cir"
    path.write_text(f"t\nV1 a 0 1\n{line}\n.end\n")
    with pytest.raises(InputError) as caught:
        load_netlist(path)
    assert said in str(caught.value)
    assert "net.cir, line 3: " in str(caught.value)


OWN = {
    "linear_drift_memristor": "1e4*v(a)/(100*v(s)+16k*(1-v(s)))*(1-(2*v(s)-1)**4)",
    "biolek_memristor": "1e4*v(a)/(100*v(s)+16k*(1-v(s)))*(v(a)>=0 ? 1-v(s)**4 : 1-(1-v(s))**4)",
    "vteam_memristor": "2*max(-v(a)/0.2-1,0)*(1-v(s)**4)-3*max(v(a)/0.3-1,0)**3*(1-(1-v(s))**4)",
}
"""Rates of `VALUES`, written here once more, for a capacitor of 1 F in ngspice."""


@pytest.mark.full
@needs_ngspice
@pytest.mark.parametrize("kind", STATEFUL)
def test_loops_are_those_of_ngspice(kind: str) -> None:
    """Pinched loops over two periods: our own subcircuit and one of this file's, currents and states to 1e-4."""
    parts = driven(kind, wave=Sine(0.0, 0.8, 1.0, 0.0, 0.0, 0.0), series=10.0)
    ours = transient(parts, 2.0, rtol=1e-7)
    start = VALUES[kind][-1]
    lines = ["loop", "V1 in 0 SIN(0 0.8 1)", "R1 in a 10", "B1 a 0 I=v(a)/(100*v(s)+16k*(1-v(s)))"]
    lines += [f"B2 0 s I={OWN[kind]}", f"C1 s 0 1 IC={start}"]
    options = "reltol=1e-7 abstol=1e-14 vntol=1e-9 chgtol=1e-18 trtol=0.1 itl4=200"
    for text, state in ((lines, "v(s)"), ([*netlist_lines(parts)], "v(x1.s)")):
        (plot,) = run_ngspice(text, ["tran 2e-4 2 0 2e-4 uic"], options=options)
        for name, found, sign in (
            (state, ours.states[:, 0, 0], 1),
            ("i(v1)", ours.memristor_currents[:, 0, 0], -1),
        ):
            theirs = sign * np.interp(ours.time.numpy(), plot.columns["time"], plot.columns[name])
            assert np.abs(theirs - found.numpy()).max() < 1e-4 * np.abs(theirs).max(), name
    s = ours.states[:, 0, 0].numpy()
    assert s.max() - s.min() > 0.1


@needs_ngspice
def test_operating_points_of_ngspice_hold_the_state(tmp_path: Path) -> None:
    """The written subcircuit is a resistor of its state at an operating point; ngspice would let it run away."""
    parts = Parts.collect(
        [
            Part("V1", "voltage_source", ("in", "0"), (1.0,)),
            Part("R1", "resistor", ("in", "a"), (1e-3,)),
            *(Part(f"X{k}", kind, ("a", "0"), VALUES[kind]) for k, kind in enumerate(STATEFUL)),
        ]
    )
    write_netlist(tmp_path / "net.cir", parts)
    lines = (tmp_path / "net.cir").read_text().splitlines()[:-1]
    (plot,) = run_ngspice(lines, ["op"])
    assert plot.columns["v(a)"][0] == pytest.approx(operating_point(parts).voltages[0, 2], abs=1e-12)
