"""Bidirectional amplifiers drawn as sources: if these fail, circuits learn by an energy that is not theirs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from hardware_models import ActiveCircuit, Circuit
from hardware_models.netlists.parts import GROUND, Part, Parts
from hardware_models.nodal.points import operating_point
from physics_ep import EquilibriumPropagation, SquaredError, relax
from tests.support.circuits import R, V

GAIN = 3.0


def triple(gain: float, ground_side: bool, signs: tuple[int, ...], draw: float = 1.0) -> list[Part]:
    """A vcvs from h to o, a source in series of 0.05 V, and a cccs; each of the three turned round where its sign
    is -1."""

    def turned(nodes: tuple[str, ...], sign: int) -> tuple[str, ...]:
        return nodes[::-1] if sign < 0 else nodes

    ends = ("o", "j") if ground_side else ("j", GROUND)
    source = ("j", GROUND) if ground_side else ("j", "o")
    delivered = -signs[1] if ground_side else signs[1]
    return [
        Part("E", "vcvs", (*turned(ends, signs[0]), "h", GROUND), (signs[0] * gain,)),
        Part("Vs", "voltage_source", turned(source, signs[1]), (0.05,)),
        Part("F", "cccs", turned(("h", GROUND), signs[2]), (signs[2] * delivered * draw / gain,), control="Vs"),
    ]


def network(amplifier: list[Part], *more: Part) -> list[Part]:
    """Two stages with diodes that hold the first one's node, and an amplifier between them."""
    return [
        V("in", 0.4, "Vin"),
        R("in", "h", 2e3),
        R("h", GROUND, 5e3),
        Part("D", "diode", ("h", GROUND), (1e-7, 1.2)),
        *amplifier,
        R("o", "y", 1e3),
        R("y", GROUND, 3e3),
        R("y", "z", 4e3),
        Part("D2", "diode", (GROUND, "z"), (1e-8, 1.0)),
        R("z", "in", 9e3),
        *more,
    ]


@pytest.mark.parametrize("gain", [GAIN, pytest.param(-GAIN, marks=pytest.mark.full)])
def test_triples_of_sources_are_amplifiers(gain: float) -> None:
    """Breaks if a direction or a side of the three sources is read wrongly: states and gradients would be others.

    States by modified nodal analysis of the sources themselves, gradients by the exact adjoint of their equations.
    An ideal diode holds o in one of two states: behind an inverting amplifier its bound is from the other side.
    """
    y = torch.tensor([[0.3, -0.1]], dtype=torch.float64)
    for ground_side, signs in itertools.product((False, True), itertools.product((1, -1), repeat=3)):
        for level in (-0.6, 2.0) if signs[0] == 1 else ():
            held = [V("top", level, "Vtop"), Part("X", "ideal_diode", ("o", "top"))]
            parts = Parts.collect(network(triple(gain, ground_side, signs), *held))
            circuit = Circuit(parts)
            ours = circuit.node_voltages(circuit.operating_point(tolerance=1e-14).require())
            theirs = operating_point(parts, tolerance=1e-14)
            for node, volts in zip(parts.nodes, theirs.voltages[0], strict=True):
                assert ours[node] == pytest.approx(volts, abs=1e-10)
        parts = Parts.collect(network(triple(gain, ground_side, signs)))
        circuit = Circuit(parts, outputs=["y", "z"])
        assert circuit.has_energy
        x = circuit._volts(None)
        step = EquilibriumPropagation(SquaredError(), beta=1e-8).backward(circuit, x, y)
        assert step.method == "energy"
        active = ActiveCircuit(parts, outputs=["y", "z"])
        pull = active.outputs(relax(active, x).require().state) - y
        exact = torch.einsum("bo,bom->m", pull, active.sensitivities(x)["conductance"])
        torch.testing.assert_close(circuit.conductance.grad, exact, rtol=1e-5, atol=1e-7 * float(exact.norm()))


def test_what_is_almost_an_amplifier_is_none() -> None:
    """Breaks if sources that are not reciprocal pass for an amplifier: ordinary EP would be biased in silence."""
    whole = triple(GAIN, False, (1, 1, 1))
    assert Circuit(Parts.collect(network(whole))).has_energy
    assert Circuit(Parts.collect(network(whole, Part("C", "capacitor", ("j", GROUND), (1e-9,))))).has_energy
    changed = {
        "a gain that is not one over the other": network(triple(GAIN, False, (1, 1, 1), draw=1.001)),
        "a current the wrong way": network(triple(GAIN, False, (1, 1, 1), draw=-1.0)),
        "a load between the two sources": network(whole, R("j", GROUND, 1e6)),
        "no current drawn": network(whole[:2]),
        "drawn from another node": network(
            [*whole[:2], Part("F", "cccs", ("y", GROUND), (1 / GAIN,), control="Vs")]
        ),
        "drawn twice": network([*whole, Part("F2", "cccs", ("h", GROUND), (1 / GAIN,), control="Vs")]),
        "controlled by a difference": network([Part("E", "vcvs", ("j", GROUND, "h", "in"), (GAIN,)), *whole[1:]]),
    }
    for what, parts in changed.items():
        circuit = Circuit(Parts.collect(parts))
        assert isinstance(circuit, ActiveCircuit), what
    assert "'F2' is a cccs" in Circuit(Parts.collect(changed["drawn twice"])).no_energy_because
    asked = Circuit(Parts.collect(network(whole)), train=["vcvs_gain"])  # its energy holds gains fixed
    assert isinstance(asked, ActiveCircuit)
    assert asked.vcvs_gain.requires_grad


def test_netlists_may_draw_their_amplifiers(tmp_path: Path) -> None:
    """Breaks if a subcircuit of one's own with rounded gains is no amplifier, or is written as another circuit."""
    path = tmp_path / "net.cir"
    lines = (
        "my own amplifiers",
        "* outputs: y2",
        ".subckt stage in out a=3",
        "E1 m 0 in 0 {a}",
        "Vsense m out 0",
        "F1 in 0 Vsense 0.33333333333",
        ".ends",
        "V1 in 0 0.3",
        "R1 in h 1k",
        "R2 h 0 1k",
        "X1 h y1 stage",
        "R3 y1 k 1k",
        "R4 k 0 2k",
        "X2 k q stage",
        "R5 q y2 1k",
        "R6 y2 0 1k",
        ".end",
    )
    path.write_text("\n".join(lines))
    circuit = Circuit.from_netlist(path)
    assert circuit.has_energy
    again = tmp_path / "again.cir"
    circuit.to_netlist(again)
    both = [c.node_voltages(c.operating_point()) for c in (circuit, Circuit.from_netlist(again))]
    assert both[0] == pytest.approx(both[1])
