"""Small signals at an operating point: if these fail, gains, phases or corner frequencies are not the circuit's."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from hardware_models.circuits.circuit import Circuit
from hardware_models.laws.elements import THERMAL_VOLTAGE
from hardware_models.netlists.netlist import load_netlist, write_netlist
from hardware_models.netlists.op_amps import op_amp
from hardware_models.netlists.parts import GROUND, Part, Parts
from hardware_models.nodal import small_signals
from hardware_models.nodal.small_signals import UnstableWarning, frequency_response
from hardware_models.spice.ngspice import ngspice_frequency_response
from physics_ep.errors import InputError
from tests.support.netlists import mixed_circuit

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
HERTZ = np.geomspace(1.0, 1e9, 37)
S = 2j * np.pi * HERTZ


def source(volts: float = 0.0, ac: complex = 1.0) -> Part:
    return Part("V1", "voltage_source", ("in", "0"), (volts,), ac=ac)


def at(parts: list[Part], node: str, **options: object) -> np.ndarray:
    return frequency_response(Parts.collect(parts), HERTZ, **options).voltage(node)[:, 0].numpy()  # type: ignore


def test_resistors_capacitors_and_inductors() -> None:
    """1 / (1 + s R C), s L / (R + s L), and a resonance, from a hertz to a gigahertz."""
    r, c, ell = 1e3, 1e-9, 1e-6
    rc = [source(), Part("R1", "resistor", ("in", "a"), (1 / r,)), Part("C1", "capacitor", ("a", "0"), (c,))]
    np.testing.assert_allclose(at(rc, "a"), 1 / (1 + S * r * c), rtol=1e-12)
    rl = [source(), Part("R1", "resistor", ("in", "a"), (1 / r,)), Part("L1", "inductor", ("a", "0"), (ell,))]
    np.testing.assert_allclose(at(rl, "a"), S * ell / (r + S * ell), rtol=1e-10)
    rlc = [
        *rc[:1],
        Part("R1", "resistor", ("in", "b"), (0.1,)),
        Part("L1", "inductor", ("b", "a"), (ell,)),
        Part("C1", "capacitor", ("a", "0"), (c,)),
    ]
    np.testing.assert_allclose(at(rlc, "a"), 1 / (1 + S * 10 * c + S * S * ell * c), rtol=1e-10)
    response = frequency_response(Parts.collect(rlc), HERTZ)
    current = response.currents[:, 0, response.branches.index("L1")].numpy()
    np.testing.assert_allclose(current, S * c / (1 + S * 10 * c + S * S * ell * c), rtol=1e-9)


def test_currents_that_others_read_keep_their_digits() -> None:
    """Currents of a source held by three sources, beside coils and behavioural sources: gains were 200 V off.

    Elimination puts the laws that only tell a source's current last; rounding passed for a pivot before them.
    """
    parts = [
        source(0.5),
        Part("V2", "voltage_source", ("a", "b"), (0.0,)),
        Part("R1", "resistor", ("in", "a"), (1e-3,)),
        Part("R2", "resistor", ("b", "0"), (5e-4,)),
        Part("E1", "vcvs", ("e", "0", "in", "b"), (3.5,)),
        Part("R3", "resistor", ("e", "e2"), (1e-3,)),
        Part("C1", "capacitor", ("e2", "0"), (1e-8,)),
        Part("F1", "cccs", ("0", "f"), (12.0,), control="V2"),
        Part("R4", "resistor", ("f", "0"), (1 / 470,)),
        Part("G1", "vccs", ("0", "g", "e2", "f"), (2e-3,)),
        Part("R5", "resistor", ("g", "0"), (1e-3,)),
        Part("L1", "inductor", ("g", "g2"), (1e-3,)),
        Part("R6", "resistor", ("g2", "0"), (0.02,)),
        Part("H1", "ccvs", ("h", "0"), (1.5e3,), control="V2"),
        Part("R7", "resistor", ("h", "k"), (1e-2,)),
        Part("D1", "diode", ("k", "0"), (1e-12, 1.3)),
        Part("B1", "behavioural_voltage", ("p", "0"), expression="0.1+v(in)+2*v(b)"),
        Part("R8", "resistor", ("p", "0"), (1e-3,)),
        Part("B2", "behavioural_current", ("0", "q"), expression="1e-3*v(in)+1e-7*i(V2)"),
        Part("R9", "resistor", ("q", "0"), (1e-3,)),
    ]
    one = np.ones(len(HERTZ))
    for node, gain in (("f", 12 * 470 / 3e3), ("h", 0.5), ("p", 1 + 4 / 3), ("q", 1 + 1e-4 / 3e3)):
        np.testing.assert_allclose(at(parts, node), gain * one, rtol=1e-9)
    e2 = 3.5 / 3 / (1 + S * 1e-5)
    g = 2e-3 * (e2 - 12 * 470 / 3e3) / (1e-3 + 1 / (50 + S * 1e-3))
    np.testing.assert_allclose(at(parts, "g"), g, rtol=1e-9)


def test_active_parts_and_junctions_are_linearised() -> None:
    """One pole of an op amp; a diode's slope at its operating point; amplitudes by name, with a phase."""
    amplifier = [source(), *op_amp("U1", "in", "0", "out", gain=1e5, gain_bandwidth=1e6)]
    amplifier.append(Part("R1", "resistor", ("out", "0"), (1e-3,)))
    np.testing.assert_allclose(at(amplifier, "out"), 1e5 / (1 + S * 1e5 / (2 * np.pi * 1e6)), rtol=1e-10)
    diode = [
        source(0.7, 0.0),
        Part("R1", "resistor", ("in", "a"), (1e-3,)),
        Part("D1", "diode", ("a", "0"), (1e-12, 1.0)),
        Part("C1", "capacitor", ("a", "0"), (1e-9,)),
    ]
    circuit = Circuit(Parts.collect(diode))
    v = circuit.node_voltages(circuit.operating_point())["a"]
    slope = 1e-12 / THERMAL_VOLTAGE * np.exp(v / THERMAL_VOLTAGE)
    wanted = 2j * 1e-3 / (1e-3 + slope + S * 1e-9)
    np.testing.assert_allclose(at(diode, "a", amplitudes={"V1": 2j}), wanted, rtol=1e-9)
    two = frequency_response(circuit, HERTZ, amplitudes={"V1": 2j}, inputs=[[0.7], [0.1]])
    np.testing.assert_allclose(two.voltage("a")[:, 0], wanted, rtol=1e-9)
    assert abs(two.voltage("a")[0, 1]) > 1.5


def storing_circuit(nodes: int, seed: int) -> Parts:
    """A mixed circuit with capacitors and inductors, and amplitudes at two sources."""
    rng = np.random.default_rng(seed)
    parts = [p for p in mixed_circuit(nodes, seed) if p.name != "V0"]
    parts.append(Part("V0", "voltage_source", ("in0", GROUND), (0.5,), ac=1.0))
    parts.append(Part("Iac", "current_source", (GROUND, "n1"), (1e-5,), ac=1e-4j))
    for k in range(nodes // 2):
        parts.append(Part(f"C{k}", "capacitor", (f"n{k}", GROUND), (1e-9 * rng.uniform(0.5, 2),)))
    parts.append(Part("L0", "inductor", ("n0", "n2"), (1e-3,)))
    return Parts.collect(parts)


@needs_ngspice
def test_mixed_circuits_agree_with_ngspice(monkeypatch: pytest.MonkeyPatch) -> None:
    """All kinds of parts at their operating point, dense and sparse matrices, to 1e-9 of the largest voltage."""
    hertz = np.geomspace(10.0, 1e8, 5)
    parts = storing_circuit(20, 3)
    theirs = ngspice_frequency_response(parts, hertz)
    for most in (100, 0):
        monkeypatch.setattr(small_signals, "DENSE", most)
        ours = frequency_response(parts, hertz)
        for node in parts.nodes[1:]:
            assert np.abs(theirs[node] - ours.voltage(node)[:, 0].numpy()).max() < 1e-9, node


@pytest.mark.slow
@needs_ngspice
@pytest.mark.parametrize("seed", range(20))
def test_many_mixed_circuits_agree_with_ngspice(seed: int) -> None:
    """Twenty of them, from 10 to 86 nodes."""
    hertz = np.geomspace(10.0, 1e8, 5)
    parts = storing_circuit(10 + 4 * seed, seed)
    theirs, ours = ngspice_frequency_response(parts, hertz), frequency_response(parts, hertz)
    for node in parts.nodes[1:]:
        assert np.abs(theirs[node] - ours.voltage(node)[:, 0].numpy()).max() < 1e-9, node


def test_netlists_name_amplitudes_and_frequencies(tmp_path: Path) -> None:
    """AC of sources and .ac lines are read, written and read again; a bad line is told when it is asked for."""
    text = "t\n.param f=10k\nV1 in 0 DC 1 AC 2 90\nI1 0 a AC\nR1 in a 1k\nC1 a 0 1n\n.ac dec 10 100 {f}\n"
    path = tmp_path / "net.cir"
    path.write_text(text + ".tran 1u 5u uic\n.end\n")
    found = load_netlist(path)
    assert found.parts.group("voltage_source").ac == {"V1": pytest.approx(2j)}
    assert found.parts.group("current_source").ac == {"I1": 1.0}
    frequencies = found.analyses.frequencies()
    assert frequencies is not None
    np.testing.assert_allclose(frequencies, np.geomspace(100, 1e4, 21), rtol=1e-12)
    asked = found.analyses.transient()
    assert asked is not None
    assert (asked.step, asked.stop) == pytest.approx((1e-6, 5e-6))
    assert asked.uic
    write_netlist(tmp_path / "again.cir", found.parts)
    again = load_netlist(tmp_path / "again.cir").parts
    assert again.group("voltage_source").ac["V1"] == pytest.approx(2j, rel=1e-15)
    path.write_text(text.replace(".ac dec 10", ".ac dek 10") + ".end\n")
    with pytest.raises(InputError, match=r"line 7: \.ac DEC\|OCT\|LIN POINTS FIRST LAST would be read"):
        load_netlist(path).analyses.frequencies()


@pytest.mark.parametrize(
    ("frequencies", "options", "said"),
    [
        ([-1.0], {}, "Argument frequencies must be finite and not negative"),
        ("x", {}, "Argument frequencies must be numbers"),
        ([1.0], {"amplitudes": {"V2": 1.0}}, "V2"),
        ([1.0], {"amplitudes": {"V1": "a"}}, "Argument amplitudes must be complex numbers"),
        ([1.0], {"inputs": [[1.0, 2.0]]}, "sources"),
    ],
)
def test_bad_arguments(frequencies: object, options: dict, said: str) -> None:
    parts = Parts.collect([source(), Part("R1", "resistor", ("in", "0"), (1.0,))])
    with pytest.raises(InputError) as caught:
        frequency_response(parts, frequencies, **options)
    assert said in str(caught.value)


def test_a_diode_between_ideal_sources_rounds_no_voltage_away() -> None:
    """Its 1e10 S lie between nodes that sources set: the answer is that of the circuit without it."""
    parts = [
        source(0.8),
        Part("R1", "resistor", ("in", "q"), (1.6e-5,)),
        Part("V2", "voltage_source", ("p", "q"), (-0.7,)),
        Part("R2", "resistor", ("p", "0"), (4.6e-5,)),
        Part("R3", "resistor", ("q", "0"), (2e-5,)),
        Part("E1", "vcvs", ("e", "0", "p", "0"), (1.7,)),
        Part("R4", "resistor", ("e", "o"), (2e-3,)),
        Part("R5", "resistor", ("o", "p"), (5e-5,)),
        Part("C1", "capacitor", ("q", "0"), (1e-9,)),
    ]
    diodes = [Part("D1", "diode", ("in", "e"), (1e-12, 1.0)), Part("D2", "diode", ("q", "p"), (1e-12, 1.0))]
    for node in ("in", "p", "q", "o"):
        expected = at(parts, node)
        for others in ([*parts, *diodes], [*diodes, *parts]):
            np.testing.assert_allclose(at(others, node), expected, rtol=0, atol=1e-13)


def test_answers_that_a_circuit_does_not_give_are_told() -> None:
    """Breaks if the point of a latch has a gain of -1, or a circuit without a signal one of 0, without a word."""
    latch = [source(), Part("R1", "resistor", ("in", "b"), (1e-3,)), Part("C1", "capacitor", ("b", "0"), (1e-9,))]
    latch.append(Part("G1", "vccs", ("0", "b", "b", "0"), (2e-3,)))
    with pytest.warns(UnstableWarning, match=r"eigenvalue 1e\+06"):
        at(latch, "b")
    with pytest.warns(UnstableWarning, match="equal stray ones at all nodes"):
        at([*latch[:2], latch[-1]], "b")
    follower = [source(), Part("E1", "vcvs", ("out", "0", "in", "b"), (1e5,))]
    follower += [Part("R1", "resistor", ("out", "b"), (1e-4,)), Part("R2", "resistor", ("b", "0"), (1e-4,))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(at(follower, "out"), 1e5 / (1 + 1e5 / 2), rtol=1e-12)
    ladder = [source()]  # no losses: imaginary eigenvalues, whose real parts are rounding
    for n, (near, far) in enumerate((("in", "a"), ("a", "b"), ("b", "c")), 1):
        ladder.append(Part(f"L{n}", "inductor", (near, far), (1e-6,)))
        ladder.append(Part(f"C{n}", "capacitor", (far, "0"), (1e-9 * n,)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        at(ladder, "c")
    silent = Parts.collect([source(1.0, 0.0), Part("R1", "resistor", ("in", "0"), (1e-3,))])
    for amplitudes, must in ((None, "name a source"), ({}, "name a source"), ({"V1": float("nan")}, "be finite")):
        with pytest.raises(InputError, match=f"Argument amplitudes must {must}"):
            frequency_response(silent, torch.tensor([1.0]), amplitudes=amplitudes)
