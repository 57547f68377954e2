"""Circuits with active parts: their states, their gradients and their stability."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from hardware_models import Circuit, op_amp, transient
from hardware_models.circuits.active_phase import StabilityWarning
from hardware_models.laws.elements import THERMAL_VOLTAGE
from hardware_models.netlists.parts import GROUND, Part, Parts
from hardware_models.nodal.stability import eigenvalues
from physics_ep import EquilibriumPropagation, SquaredError, relax
from physics_ep.errors import InputError
from physics_ep.estimators.methods import UnstableFreeState
from tests.support.active import active_circuit
from tests.support.circuits import R, V
from tests.support.vector_fields import step_ratio
from validation import implicit_gradient
from validation.gradients import estimate_gradient, total_error


def mixed() -> list[Part]:
    """All four controlled sources and a diode, in one loop after another."""
    return [
        V("in", 1.0, "V"),
        R("in", "a", 1e3),
        R("a", GROUND, 1e3),
        Part("G", "vccs", ("b", GROUND, "a", GROUND), (2e-3,)),
        R("b", GROUND, 1e3),
        R("b", "a", 2e3),
        Part("D", "diode", ("a", "b"), (1e-12, 1.0)),
        Part("E", "vcvs", ("c", "f", "b", "a"), (3.0,)),
        R("f", GROUND, 3e3),
        R("c", "d", 1e3),
        R("d", GROUND, 1e3),
        Part("H", "ccvs", ("e", GROUND), (100.0,), control="V"),
        R("e", "d", 1e3),
        Part("F", "cccs", ("d", GROUND), (0.2,), control="V"),
    ]


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def output(parts: list[Part], changed: str = "", by: float = 0.0) -> float:
    """Voltage of node d where one part's value is another."""
    moved = [
        Part(p.name, p.kind, p.nodes, (p.values[0] + by, *p.values[1:]), p.control) if p.name == changed else p
        for p in parts
    ]
    circuit = Circuit(Parts.collect(moved))
    return float(circuit.node_voltages(circuit.operating_point(tolerance=1e-16))["d"])


def test_exact_gradients_of_all_controlled_sources() -> None:
    """Breaks if the force of a controlled source, its control or its parameter's place is wrong, or J^T is J.

    Asymmetric EP and implicit differentiation against differences of the operating point, which modified nodal
    analysis finds without either.
    """
    parts = mixed()
    circuit = Circuit(Parts.collect(parts), outputs=["d"])
    x, y = column(1.0), column(0.3)
    exact = implicit_gradient(circuit, x, y, SquaredError())
    step = EquilibriumPropagation(SquaredError(), beta=1e-7).backward(circuit, x, y, input_gradient=True)
    assert step.method == "asymmetric"
    names = {
        "conductance": circuit.parts.group("resistor").names,
        "vccs_transconductance": ("G",),
        "vcvs_gain": ("E",),
        "ccvs_transresistance": ("H",),
        "cccs_gain": ("F",),
    }
    missing = float(circuit.outputs(step.equilibria[0].state)) - 0.3
    slopes = circuit.sensitivities([[1.0]])
    h = 1e-5 * 1e-12
    difference = (output(parts, "D", h) - output(parts, "D", -h)) / (2 * h)
    assert float(slopes["diode_saturation_current"][0, 0, 0]) == pytest.approx(difference, rel=1e-6)
    difference = (output(parts, "V", 1e-4) - output(parts, "V", -1e-4)) / 2e-4
    assert float(slopes["voltage_source"][0, 0, 0]) == pytest.approx(difference, rel=1e-6)
    assert float(step.input_gradient) == pytest.approx(missing * difference, rel=1e-6)
    for name, of in names.items():
        values = circuit.get_parameter(name).detach().numpy()
        for k, part in enumerate(of):
            h = 1e-5 * values[k]
            difference = (output(parts, part, h) - output(parts, part, -h)) / (2 * h)
            assert float(exact[name][k]) == pytest.approx(missing * difference, rel=1e-7)
        np.testing.assert_allclose(circuit.get_parameter(name).grad, exact[name], rtol=1e-6)


def latch(*more: Part, gain: float = 4.0) -> Circuit:
    """A follower that feeds back: with a gain of 4 it rests between its levels where nothing pushes it."""
    parts = [
        V("in", 0.1),
        R("in", "p", 1e3),
        R("p", "out", 1e3),
        Part("E", "vcvs", ("o", GROUND, "p", GROUND), (gain,)),
        R("o", "out", 1e3),
        R("out", GROUND, 1e6),
    ]
    return Circuit(Parts.collect([*parts, *more]), outputs=["out"])


def test_instability_is_named() -> None:
    """Breaks if a latch is trained between its levels, where the circuit never is, or trained in silence.

    At p, C dv/dt = (in - v) / 1k + (4 v - v) / 2k but for what the load draws: 500 per second with 1 uF.
    """
    x = column(0.1)
    circuit = latch(Part("C", "capacitor", ("p", GROUND), (1e-6,)))
    found = complex(circuit.eigenvalue(relax(circuit, x).require().state, x)[0])
    assert found.imag == 0
    assert found.real == pytest.approx(500, rel=1e-2)
    with pytest.raises(UnstableFreeState, match=r"1 of 1 states that are unstable.*eigenvalue.* is 49\d per s"):
        EquilibriumPropagation(SquaredError(), beta=1e-6).backward(circuit, x, x)
    circuit = latch(Part("C", "capacitor", ("p", GROUND), (1e-6,)), gain=1.5)
    ep = EquilibriumPropagation(SquaredError(), beta=1e-6)
    ep.backward(circuit, x, x)
    with torch.no_grad():
        circuit.vcvs_gain.fill_(4.0)
    with pytest.raises(UnstableFreeState):  # one step of training made it a latch
        ep.backward(circuit, x, x)
    with pytest.warns(StabilityWarning, match=r"stray ones at all nodes.* is \d"):  # nothing decides
        EquilibriumPropagation(SquaredError(), beta=1e-6).backward(latch(), x, x)


def test_eigenvalues_are_those_of_the_pencil() -> None:
    """Breaks if a capacitance is lost, or a loop of capacitors and sources is taken for a motion of its own."""
    loop = [Part("Cv", "capacitor", ("in", GROUND), (1e-6,)), Part("Cx", "capacitor", ("c", "b"), (3e-9,))]
    nodes = [Part(f"C{n}", "capacitor", (n, GROUND), (c,)) for n, c in (("a", 1e-9), ("d", 2e-12))]
    coil = [Part("L", "inductor", ("d", "z"), (1e-3,)), R("z", GROUND, 50.0)]
    circuit = Circuit(Parts.collect([*mixed(), *loop, *nodes, *coil]), outputs=["d"])
    x = column(1.0)
    state = relax(circuit, x).require().state
    phase = circuit.phase(circuit.prepare(x), origin=state)
    (j, c) = next(phase._motions())
    values = scipy.linalg.eig(j, c, right=False)
    finite = values[np.isfinite(values) & (np.abs(values) < 1e13)]
    found = eigenvalues(j, c)
    assert len(found) == 4  # a, d and the coil, and one across the dependent source
    for value in found:
        assert np.abs(finite - value).min() < 1e-6 * abs(value)
    assert circuit.eigenvalue(state, x)[0] == pytest.approx(found[found.real.argmax()])

    # A series circuit of R, L and C behind a follower: -R / 2 L +- i sqrt(1 / L C - (R / 2 L)^2).
    r, inductance, capacitance = 10.0, 1e-3, 1e-6
    ring = [
        V("in", 1.0, "V"),
        Part("E", "vcvs", ("g", GROUND, "in", GROUND), (2.0,)),
        R("g", "a", r),
        Part("L", "inductor", ("a", "b"), (inductance,)),
        Part("C", "capacitor", ("b", GROUND), (capacitance,)),
    ]
    circuit = Circuit(Parts.collect([*ring, R("b", GROUND, 1e12)]), outputs=["b"])
    decay = r / (2 * inductance)
    turns = np.sqrt(1 / (inductance * capacitance) - decay**2)
    rightmost = complex(circuit.eigenvalue(relax(circuit, x).require().state, x)[0])
    assert rightmost.real == pytest.approx(-decay, rel=1e-6)
    assert abs(rightmost.imag) == pytest.approx(turns, rel=1e-6)


def test_small_capacitors_beside_small_conductances_keep_their_motion(tmp_path: Path) -> None:
    """Breaks if the units of currents decide whether a capacitor is seen: an unstable point would pass in silence.

    A transistor's junctions leak 1e-14 A, so that the unit of currents is tiny beside a femtofarad's. At its drain
    -C dv/dt = v (1 / R + g_ds) with g_ds = LAMBDA beta u^2 / 2 (Sedra and Smith, equation 5.25).
    """
    lines = ("V1 vdd 0 3", "V2 g 0 1.2", "R1 vdd d 100k", "C1 d 0 1f", "M1 d g 0 0 n W=2u L=2u")
    model = ".model n nmos(level=1 kp=50u vto=0.7 lambda=0.02)"
    path = tmp_path / "net.cir"
    path.write_text("\n".join(("stage", *lines, model, ".end")))
    circuit = Circuit.from_netlist(path)
    state, x = circuit.operating_point().require().state, circuit._volts(None)
    slope = 1e-5 + 0.02 * 0.5 * 5e-5 * 0.5**2
    assert complex(circuit.eigenvalue(state, x)[0]) == pytest.approx(-slope / 1e-15, rel=1e-6)

    # Conductances over six decades, followers, a unit of currents over seven, capacitors over nine: the motion of
    # the nodes with a capacitor, all others taken out by elimination.
    rng = np.random.default_rng(0)
    for _ in range(40):
        n, m = int(rng.integers(4, 12)), 2
        j = np.zeros((n + m, n + m))
        ends = rng.integers(0, n, (3 * n, 2))
        for (a, b), g in zip(ends, 10 ** rng.uniform(-8, -2, 3 * n), strict=True):
            j[[a, b, a, b], [a, b, b, a]] += np.array([-g, -g, g, g]) if a != b else np.array([-g, 0, 0, 0])
        j[np.arange(n), np.arange(n)] -= 1e-8
        unit = 10 ** rng.uniform(-9, -2)
        followers, held = rng.permutation(n)[:m], n + np.arange(m)
        j[followers, held] = j[held, followers] = -unit
        others = np.setdiff1d(np.arange(n), followers)
        j[held, rng.choice(others, m)] += 0.5 * unit
        charged = rng.choice(others, int(rng.integers(1, len(others) + 1)), replace=False)
        c = np.zeros_like(j)
        c[charged, charged] = 10 ** rng.uniform(-15, -6, len(charged))
        rest = np.setdiff1d(np.arange(n + m), charged)
        reduced = j[np.ix_(charged, charged)] - j[np.ix_(charged, rest)] @ np.linalg.solve(
            j[np.ix_(rest, rest)], j[np.ix_(rest, charged)]
        )
        expected = np.linalg.eigvals(reduced / c[charged, charged][:, None])
        found = eigenvalues(j, c)
        assert len(found) == len(expected)
        assert found.real.max() == pytest.approx(expected.real.max(), rel=1e-5)


def soft_behind_stiff(amplifiers: int) -> Circuit:
    """Gigaohms, a diode and amplifiers of 1 nS behind a milliohm; two amplifiers back to back are reciprocal."""
    parts = [
        V("in", 1.0, "V"),
        R("in", "z", 1e-3),
        *[R(a, b, r) for a, b, r in (("z", GROUND, 1.0), ("z", "a", 1e9), ("a", GROUND, 1e9))],
        *[R(a, b, r) for a, b, r in (("b", GROUND, 1e9), ("b", "a", 2e9))],
        Part("D", "diode", ("a", "b"), (1e-12, 1.0)),
        *[Part(f"C{n}", "capacitor", (n, GROUND), (1e-12,)) for n in "abz"],
    ]
    pair = [Part(f"G{a}", "vccs", (a, GROUND, b, GROUND), (1e-9,)) for a, b in ("ba", "ab")]
    return Circuit(Parts.collect([*parts, *pair[:amplifiers]]), outputs=["b"])


@pytest.mark.parametrize(
    ("amplifiers", "method"),
    [
        pytest.param(0, "energy", marks=pytest.mark.full),
        (1, "asymmetric"),
        pytest.param(2, "energy", marks=pytest.mark.full),
    ],
)
def test_a_milliohm_hides_neither_amplifiers_nor_curvature(amplifiers: int, method: str) -> None:
    """Breaks if the largest conductance decides what is rounding. An amplifier among gigaohms would pass for a
    reciprocal part; and the mirror image of the first nudge's displacement for the second's, so that the error is
    of order 1, 5 % at beta='auto', which by the same token measures no bias."""
    circuit = soft_behind_stiff(amplifiers)
    x, y = column(1.0), column(0.3)
    exact = implicit_gradient(circuit, x, y, SquaredError())
    errors = []
    for beta in (1e-11, 1e-12):
        found, step = estimate_gradient(EquilibriumPropagation(SquaredError(), beta=beta), circuit, x, y)
        assert step.method == method
        errors.append(total_error(found, exact))
    assert errors[1] < 1e-6
    assert abs(np.log10(errors[0] / errors[1]) - 2) < 0.1
    ep = EquilibriumPropagation(SquaredError(), beta="auto")
    error = total_error(estimate_gradient(ep, circuit, x, y)[0], exact)
    assert 1e-4 < error < 3e-3
    assert ep.bias == pytest.approx(error, rel=0.2)


def test_outputs_of_very_different_impedance_are_measured_together() -> None:
    """Breaks if the stability limit of a nudge is sought by a force that carries a weakly held output too far."""
    parts = [
        V("in", 0.5, "V"),
        R("in", "a", 1e9),
        Part("D", "diode", ("a", GROUND), (1e-12, 1.0)),
        Part("D2", "diode", (GROUND, "a"), (1e-12, 1.0)),
        Part("G", "vccs", ("b", GROUND, "in", GROUND), (1e-1,)),
        R("b", GROUND, 10.0),
    ]
    circuit = Circuit(Parts.collect(parts), outputs=["a", "b"])
    x, y = column(0.5), torch.zeros(1, 2, dtype=torch.float64)
    exact = implicit_gradient(circuit, x, y, SquaredError())
    ep = EquilibriumPropagation(SquaredError(), beta=1e-13)
    ep.backward(circuit, x, y)
    volts = circuit.node_voltages(circuit.operating_point())
    held = 1e-9 + 2e-12 / THERMAL_VOLTAGE * np.cosh(volts["a"] / THERMAL_VOLTAGE)
    assert ep.stability_limit == pytest.approx(held, rel=0.02)
    for name, gradient in exact.items():
        torch.testing.assert_close(circuit.get_parameter(name).grad, gradient, rtol=1e-5, atol=0.0)


def test_op_amps_have_one_pole(tmp_path: Path) -> None:
    """Breaks if gain, bandwidth or output resistance of an op amp is another, or the netlist's is not Python's.

    An inverter R2 / R1 of finite gain A: with b = R1 / (R1 + R2), unloaded and without an output resistance, it has
    -R2 / R1 A b / (1 + A b) at rest, and its pole at -2 pi GBW (b + 1 / A) (Sedra and Smith, section 2.7).
    """
    gain, bandwidth, b = 2e3, 3e6, 1 / 6
    around = [V("in", 0.4), R("in", "m", 1e3), R("m", "out", 5e3)]
    amplifier = op_amp("U", GROUND, "m", "out", gain=gain, gain_bandwidth=bandwidth)
    circuit = Circuit(Parts.collect([*around, *amplifier]), outputs=["out"])
    x = column(0.4)
    free = relax(circuit, x).require()
    assert float(circuit.outputs(free.state)) == pytest.approx(-2 * gain * b / (1 + gain * b), rel=1e-10)
    pole = complex(circuit.eigenvalue(free.state, x)[0])
    assert pole == pytest.approx(-2 * np.pi * bandwidth * (b + 1 / gain), rel=1e-9)
    course = transient(circuit, 1 / abs(pole), inputs=x.numpy(), start="zero")
    after = float(course.voltage("out")[-1]) / float(circuit.outputs(free.state))
    assert after == pytest.approx(1 - np.exp(-1), rel=1e-3)

    path = tmp_path / "net.cir"
    lines = ("V1 in 0 0.4", "R1 in m 1k", "R2 m out 5k", "R3 out 0 1k")
    call = f"X1 0 m out op_amp gain={gain!r} gain_bandwidth={bandwidth!r} output_resistance=200"
    path.write_text("\n".join(("inverter", *lines, call, ".end")))
    read = Circuit.from_netlist(path)
    loaded = op_amp("U", GROUND, "m", "out", gain=gain, gain_bandwidth=bandwidth, output_resistance=200.0)
    made = Circuit(Parts.collect([*around, R("out", GROUND, 1e3), *loaded]))
    ends = [c.node_voltages(c.operating_point(tolerance=1e-15))["out"] for c in (read, made)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-12)
    for bad, name in (({"gain": 0.0}, "gain"), ({"output_resistance": -1.0}, "output_resistance")):
        with pytest.raises(InputError, match=f"{name} of op_amp 'U' must"):
            op_amp("U", "a", "b", "c", **bad)


def every_kind() -> Circuit:
    """A part of each kind that a circuit without an energy may have."""
    more = [
        Part("M", "memristor", ("a", "d"), (1e-4, 0.2)),
        Part("P", "piecewise_diode", ("a", GROUND), (1e-3, 0.1, 1e-6)),
        Part("S", "spice_diode", ("c", "k"), (1e-9, 1.2, 5.0, 1.0, 1e-2, 1e-12, 2.0, 1.0, 0.5)),
        R("k", GROUND, 1e3),
        Part("Y", "rectifier", ("y", GROUND, "a", "b"), (0.7,)),
        R("y", "d", 2e3),
        Part("B", "behavioural_voltage", ("w", GROUND), expression="tanh(3*v(a,d))*v(c)"),
        R("w", "k", 2e3),
        Part("J", "behavioural_current", ("k", GROUND), expression="1e-4*v(d)*i(V)*1e3"),
        Part("I", "current_source", ("d", GROUND), (1e-4,)),
        Part("X", "ideal_diode", ("k", "u"), ()),
        R("u", GROUND, 1e3),
        Part("A", "amplifier", ("a", "t"), (2.0,)),
        R("t", "a", 1e4),
        Part("T", "nmos", ("c", "a", GROUND, GROUND), (1e-3, 0.2, 0.02, 2e-6, 1e-6, 0.3, 0.6)),
    ]
    return Circuit(Parts.collect([*mixed(), *more]), outputs=["d", "k"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hardware_models.circuits.active_phase.StabilityWarning")
def test_a_step_costs_what_an_ordinary_one_does() -> None:
    """At most 1.3 times the processor time: nudged phases factorise one matrix, turned around or not."""
    circuit = Circuit(active_circuit(0), outputs=["o0", "n5"])
    x = circuit._volts(None) * torch.linspace(0.8, 1.2, 16, dtype=torch.float64)[:, None]
    y = torch.tensor([[0.3, -0.2]], dtype=torch.float64).expand(16, -1)
    assert step_ratio(circuit, x, y, 1e-8) <= 1.3


@pytest.mark.full
def test_changes_of_the_force_keep_their_digits() -> None:
    """Breaks if the force of a displaced phase is not that of the circuit, for one kind of part, or rounds."""
    circuit = every_kind()
    x = column(1.0, 0.4)
    generator = torch.Generator().manual_seed(0)
    state = relax(circuit, x).require().state
    values = circuit.values()
    for size in (0.3, 1e-3):
        moved = tuple(size * torch.randn(s.shape, generator=generator, dtype=torch.float64) for s in state)
        there = circuit.force(tuple(s + d for s, d in zip(state, moved, strict=True)), x)
        for new, old, change in zip(
            there, circuit.force(state, x), circuit.field.changes(state, moved, values), strict=True
        ):
            torch.testing.assert_close(change, new - old, rtol=1e-9, atol=1e-15)
    plain = Circuit(Parts.collect(mixed()), outputs=["d"])
    state, values = relax(plain, x).require().state, plain.values()
    one, tiny = (
        plain.field.changes(state, tuple(h * torch.ones_like(s) for s in state), values) for h in (1e-9, 1e-12)
    )
    for big, small in zip(one, tiny, strict=True):
        torch.testing.assert_close(small * 1e3, big, rtol=1e-7, atol=1e-20)


@pytest.mark.full
def test_gradients_of_every_kind() -> None:
    """Breaks if asymmetric EP is inexact with some kind of part about, or a copy is another circuit."""
    circuit = every_kind()
    x, y = column(1.0, 0.4), torch.tensor([[0.3, 0.1], [0.0, 0.2]], dtype=torch.float64)
    exact = implicit_gradient(circuit, x, y, SquaredError())
    missing = circuit.outputs(relax(circuit, x).require().state) - y
    for name, slopes in circuit.sensitivities(x).items():
        if name in exact:
            whole = torch.einsum("bo,bom->m", missing, slopes) / len(x)
            torch.testing.assert_close(whole, exact[name], rtol=1e-6, atol=1e-9 * float(exact[name].norm()))
    for one in (circuit, copy.deepcopy(circuit), pickle.loads(pickle.dumps(circuit))):
        for method in ("asymmetric", "dyadic"):
            one.zero_grad()
            step = EquilibriumPropagation(SquaredError(), beta=1e-7, method=method).backward(one, x, y)
            assert step.method == method
            for name, gradient in exact.items():
                ours = one.get_parameter(name).grad
                assert float((ours - gradient).norm()) < 1e-6 * float(gradient.norm()), name


@pytest.mark.full
def test_dyadic_states_settle_on_stiff_circuits() -> None:
    """Breaks if the two states of dyadic EP are sought by products alone, which conductances over decades stall.

    Op amps of a gain of 1e4, junctions, and, in a circuit with an energy, a node that an ideal diode holds.
    """
    stiff = Circuit(active_circuit(0), outputs=["o0", "n5"])
    held = Circuit(
        Parts.collect(
            [
                V("in", 1.0, "V"),
                V("top", 0.2, "Vtop"),
                R("in", "a", 1e3),
                Part("D", "diode", ("a", GROUND), (1e-12, 1.0)),
                R("a", "b", 1e4),
                Part("X", "ideal_diode", ("b", "top"), ()),
                R("b", "c", 1e4),
                R("c", GROUND, 1e4),
                R("c", "a", 1e6),
            ]
        ),
        outputs=["c"],
    )
    for circuit, targets in ((stiff, [[0.3, -0.2]]), (held, [[0.3]])):
        x, y = circuit._volts(None), torch.tensor(targets, dtype=torch.float64)
        exact = implicit_gradient(circuit, x, y, SquaredError())
        step = EquilibriumPropagation(SquaredError(), beta=1e-8, method="dyadic").backward(circuit, x, y)
        assert step.method == "dyadic"
        for name, gradient in exact.items():
            torch.testing.assert_close(
                circuit.get_parameter(name).grad, gradient, rtol=1e-5, atol=1e-7 * float(gradient.norm())
            )


BAD = {
    "a control that is nowhere": (
        ("G1 a 0 nosuch 0 1m", "R1 a 0 1k"),
        "'G1' is controlled by the node 'nosuch', which",
    ),
    "a vcvs controlled so": (("E1 a 0 a nosuch 2", "R1 a 0 1k"), "'E1' is controlled by the node 'nosuch', which"),
    "a control that floats": (("E1 a 0 c 0 2", "C1 c 0 1n", "R1 a 0 1k"), "Node 'c' floats"),
    "a current of no source": (
        ("R0 b 0 1k", "F1 a 0 R0 2", "R1 a 0 1k"),
        "current of 'R0' cannot control, since it is no",
    ),
    "a current of nothing": (("H1 a 0 Vx 2", "R1 a 0 1k"), "the voltage source 'Vx' is not defined"),
    "a loop of sources": (("E1 a 0 b 0 2", "H1 a 0 V0 2"), "form a loop: E1, H1"),
    "positive feedback of one": (
        ("R0 b p 1k", "E1 a 0 p 0 1", "R1 a p 1k", "E2 p 0 a 0 1"),
        "no unique operating point",
    ),
    "a gate that others hold, too": (
        ("* gates: M1", "M1 b g 0 0 n", "Vg g 0 2", "R1 g b 1k", ".model n nmos(level=1)"),
        "gate of 'M1' must be held by a voltage source",
    ),
    "a conductance that is cancelled": (("R1 a 0 1k", "G1 0 a a 0 1m"), "singular at node 'a'"),
}


@pytest.mark.parametrize(("lines", "said"), BAD.values(), ids=BAD)
def test_what_no_circuit_can_be_is_named(tmp_path: Path, lines: tuple[str, ...], said: str) -> None:
    """Breaks if a circuit without an operating point of its own is solved, or refused without saying where."""
    path = tmp_path / "net.cir"
    path.write_text("\n".join(("bad", "V0 b 0 1", *lines, ".end")))
    with pytest.raises(InputError, match=said) as caught:
        Circuit.from_netlist(path).operating_point()
    assert "\n" not in str(caught.value)
    assert not str(caught.value).endswith("..")


def test_one_stiff_part_does_not_hide_a_one_way_part() -> None:
    """Breaks if 'auto' takes ordinary EP, which is 8 % off here, where a shunt or a diode has nearly all of |J|."""

    def parts(shunt: Part) -> Parts:
        return Parts.collect(
            [
                Part("V1", "voltage_source", ("in", "0"), (1.0,)),
                Part("R1", "resistor", ("in", "p"), (1e-6,)),
                Part("V2", "voltage_source", ("p", "q"), (1.0,)),
                shunt,
                Part("R3", "resistor", ("q", "o"), (1e-6,)),
                Part("G1", "vccs", ("o", "0", "p", "0"), (1e-6,)),
                Part("R4", "resistor", ("o", "0"), (1e-6,)),
            ]
        )

    x, y = torch.ones(1, 2, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    for shunt in (
        Part("R2", "resistor", ("q", "0"), (1e3,)),  # 1 mohm
        Part("D1", "diode", ("p", "q"), (1e-14, 1.0)),  # 600 A
    ):
        circuit = Circuit(parts(shunt), outputs=["o"])
        step = EquilibriumPropagation(SquaredError(), beta="auto").backward(circuit, x, y)
        assert step.method == "asymmetric"
        exact = circuit.outputs(step.equilibria[0].state)[0, 0] * circuit.sensitivities()["conductance"][0, 0]
        assert circuit.conductance.grad is not None
        torch.testing.assert_close(circuit.conductance.grad, exact, rtol=1e-2, atol=1e-6 * float(exact.abs().max()))


@pytest.mark.parametrize(
    ("transconductance", "method"), [(1e-6, "asymmetric"), (1e-9, "asymmetric"), (0.0, "energy")]
)
def test_milliohms_at_all_nodes_hide_no_one_way_part(transconductance: float, method: str) -> None:
    """A source's entry of the Jacobian is 1e-9 of each row's, and less: what it does would have no gradient."""
    parts = [
        V("in", 1.0),
        Part("R1", "resistor", ("in", "a"), (1e-3,)),
        Part("R2", "resistor", ("a", "b"), (2e-3,)),
    ]
    parts += [
        Part("R3", "resistor", ("b", "c"), (5e-4,)),
        *(Part(f"R{n}", "resistor", (n, "0"), (1e3,)) for n in "abc"),
    ]
    parts.append(Part("G1", "vccs", ("c", "0", "a", "0"), (transconductance,)))
    circuit = Circuit(Parts.collect(parts), outputs=["c"])
    x, y = torch.tensor([[1.0], [2.0]], dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    step = EquilibriumPropagation(SquaredError(), beta=1.0, method="auto").backward(circuit, x, y)
    assert step.method == method
    assert step.asymmetry < 1e-8
