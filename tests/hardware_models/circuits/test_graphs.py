"""Circuits from and as graphs and netlists, circuits without an energy, and bad input."""

from __future__ import annotations

from pathlib import Path

import networkx
import pytest
import torch

from hardware_models import Circuit, UnitGraph
from hardware_models.netlists.parts import GROUND, Part, Parts
from physics_ep import EquilibriumPropagation, NotConverged, SquaredError, Status
from physics_ep.errors import InputError
from tests.support.circuits import R, V, mixed_circuit, solved

# -- graphs and netlists ----------------------------------------------------------------------------------------


def test_edges() -> None:
    """Breaks if edges of other elements, their values or the old meaning with units are lost."""
    circuit = Circuit.from_edges(
        4,
        [(0, 1), (1, 2), (2, 3), (1, 3), (1, 3)],
        [1e-3, 2e-3, 1e-12, 1e-4, 1e-4],
        inputs=[3, 0],
        outputs=[2],
        couplings=["resistor", "memristor", "diode", "resistor", "piecewise_diode"],
        nonlinearity_voltage=0.5,
        emission_coefficient=[1, 1, 1.5, 1, 1],
        threshold=0.2,
    )
    same = solved(
        V("n3", -0.5),
        V("n0", 1.5),
        R("n0", "n1", 1e3),
        Part("M", "memristor", ("n1", "n2"), (2e-3, 0.5)),
        Part("D", "diode", ("n2", "n3"), (1e-12, 1.5)),
        R("n1", "n3", 1e4),
        Part("P", "piecewise_diode", ("n1", "n3"), (1e-4, 0.2, 0.0)),
    )
    found = circuit.node_voltages(circuit.operating_point([[-0.5, 1.5]]).require())
    assert {name: float(value) for name, value in found.items()} == pytest.approx(same, abs=1e-12)
    units = Circuit.from_edges(3, [(0, 1), (1, 2)], [0.5, -0.5], "tanh", inputs=[0], outputs=[2])
    assert isinstance(units, UnitGraph)
    assert set(units.units) == {"tanh"}


def test_networkx_and_netlists(tmp_path: Path) -> None:
    """Breaks if a graph or a netlist of a circuit is another circuit."""
    circuit = Circuit(mixed_circuit(2, nodes=9), outputs=["n3", "n1"])
    with torch.no_grad():
        circuit.conductance.mul_(1.5)
    wanted = circuit.node_voltages(circuit.operating_point().require())
    circuit.to_netlist(tmp_path / "c.cir")
    for again in (Circuit.from_networkx(circuit.to_networkx()), Circuit.from_netlist(tmp_path / "c.cir")):
        assert again.output_names == ("n3", "n1")
        found = again.node_voltages(again.operating_point().require())
        assert found == pytest.approx(wanted, abs=1e-9)
    path = networkx.path_graph(5)
    networkx.set_edge_attributes(path, 1e-3, "weight")
    line = Circuit.from_networkx(path, inputs=[4])
    found = line.node_voltages(line.operating_point([[1.0]]))
    assert [float(found[str(k)]) for k in range(5)] == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=1e-14)


# -- circuits without an energy, and bad input ------------------------------------------------------------------


def test_active_circuits() -> None:
    """Breaks if a circuit without an energy is taken for one: an inverting amplifier of finite gain."""
    gain, r1, r2 = 1e4, 1e3, 5e3
    parts = Parts.collect(
        [
            V("in", 0.4),
            R("in", "x", r1),
            R("x", "out", r2),
            Part("E", "vcvs", ("out", GROUND, GROUND, "x"), (gain,)),
        ]
    )
    circuit = Circuit(parts)
    assert not circuit.has_energy
    assert not circuit.unique
    found = circuit.node_voltages(circuit.operating_point().require())
    assert found["out"] == pytest.approx(-0.4 * r2 / r1 / (1 + (1 + r2 / r1) / gain), rel=1e-10)
    assert circuit.no_energy_because == "part 'E' is a vcvs"
    state = circuit.operating_point().state
    assert circuit.energy(state, torch.full((1, 1), 0.4, dtype=torch.float64)).isnan().all()
    # A cycle of amplifiers has no weights; resistors between stages close one as well.
    cycle = [V("s", 1.0), R("s", "a", 1e3), Part("A", "amplifier", ("a", "b"), (2.0,)), R("b", GROUND, 1e3)]
    assert Circuit(Parts.collect(cycle)).has_energy
    closed = Circuit(Parts.collect([*cycle, R("a", "b", 1e4)]))
    assert "'A' closes a cycle" in closed.no_energy_because
    found = closed.node_voltages(closed.operating_point().require())
    # KCL at a, with what the amplifier draws: half of what it delivers to b.
    a = found["a"]
    assert (1 - a) / 1e3 == pytest.approx((a - 2 * a) / 1e4 + 0.5 * (2 * a / 1e3 + (2 * a - a) / 1e4), rel=1e-9)


def test_nothing_unknown() -> None:
    """Breaks where sources hold every node."""
    assert solved(V("s", 1.0), R("s", GROUND, 1e3)) == {GROUND: 0.0, "s": 1.0}


def test_uniqueness() -> None:
    """Breaks if a node that only diodes without leakage hold is called unique."""
    parts = [V("s", 1.0), Part("P", "piecewise_diode", ("s", "a"), (1e-3, 0.5, 0.0)), R("a", "b", 1e3)]
    assert not Circuit(Parts.collect(parts)).unique
    assert Circuit(Parts.collect([*parts, R("b", GROUND, 1e3)])).unique
    # Still an operating point: no current flows.
    blocked = [V("s", 0.2), *parts[1:]]
    found = Circuit(Parts.collect(blocked)).operating_point()
    assert found.status is Status.CONVERGED


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ([V("s", 1.0), R("s", "a", 1e3), R("b", "c", 1e3)], "Node 'b' .*floats"),
        ([V("s", 1.0), Part("C", "capacitor", ("s", "a"), (1e-9,))], "Node 'a' floats"),
        ([V("s", 1.0), V("s", 1.0, name="W"), R("s", "a", 1e3)], "loop: .*W"),
        ([V("s", 1.0), Part("D", "ideal_diode", ("a", "b")), R("s", "a", 1.0), R("b", "s", 1.0)], "two free nodes"),
    ],
)
def test_bad_circuits(parts: list[Part], match: str) -> None:
    """Breaks if what has no operating point ends in a traceback, or in a number."""
    with pytest.raises(InputError, match=match) as caught:
        Circuit(Parts.collect(parts))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [-1e-3, 0.0, float("inf"), float("nan")])
def test_bad_conductances(value: float) -> None:
    """Breaks if a conductance that is none is taken, from parts or from edges."""
    with pytest.raises(InputError, match="conductance of part 'R1' must be finite and positive"):
        Parts.collect([Part("R1", "resistor", ("a", GROUND), (value,))])
    with pytest.raises(InputError, match="weights must be"):
        Circuit.from_edges(2, [(0, 1)], [value], inputs=[0])


def test_bad_arguments() -> None:
    """Breaks if a wrong name, shape or number goes through."""
    parts = Parts.collect([V("s", 1.0), R("s", "a", 1e3), R("a", GROUND, 1e3)])
    for options, match in (
        ({"outputs": ["b"]}, "outputs"),
        ({"outputs": ["s"]}, "outputs must be nodes that no voltage source ties"),
        ({"least": -1.0}, "least must be positive"),
        ({"least": 2.0, "most": 1.0}, "least must not exceed most"),
        ({"factorization": "bandet"}, "banded"),
    ):
        with pytest.raises(InputError, match=match):
            Circuit(parts, **options)
    circuit = Circuit(parts)
    for inputs in ([[1.0, 2.0]], [1.0], [[float("nan")]], "x", [], [[[1.0]]], [[1j]]):
        with pytest.raises(InputError):
            circuit.operating_point(inputs)
    with pytest.raises(InputError, match="tolerance"):
        circuit.operating_point(tolerance=0.0)
    with pytest.raises(InputError, match=r"couplings must be .* Did you mean 'resistor'"):
        Circuit.from_edges(2, [(0, 1)], [1.0], inputs=[0], couplings="resistr")
    with pytest.raises(InputError, match=r"parts must be Parts, .* was list"):
        Circuit(list(parts))
    with pytest.raises(InputError, match="conductance of part 'R' must be a number, but was '1k'"):
        Parts.collect([Part("R", "resistor", ("a", GROUND), ("1k",))])
    clash = [V("s", 1.0), V("t", 0.0), R("s", "a", 1.0)]
    clash += [Part("D1", "ideal_diode", ("s", "a")), Part("D2", "ideal_diode", ("a", "t"))]
    with pytest.raises(InputError, match="short two sources"):
        Circuit(Parts.collect(clash)).operating_point()
    straight = Circuit(Parts.collect([V("s", 1.0), V("t", 0.0), Part("D", "ideal_diode", ("s", "t"))]))
    with pytest.raises(InputError, match="has 1 V across it: it shorts two sources"):
        straight.operating_point()
    assert straight.operating_point([[0.0, 1.0]]).status is Status.CONVERGED


def test_optimizers_leave_what_is_no_conductance() -> None:
    """Breaks if a negative conductance is solved for or written: each says which it is. EP puts it right first."""
    circuit = Circuit(Parts.collect([V("s", 1.0), R("s", "a", 1e3), R("a", GROUND, 1e3)]), outputs="a")
    with torch.no_grad():
        circuit.conductance[1] = -1e-4
    for use in (circuit.operating_point, lambda: circuit.to_netlist("never.cir")):
        with pytest.raises(InputError, match=r"'R_a_0_1000\.0' must be positive .* was -0\.0001 S.*constrain"):
            use()
    target = torch.ones(1, 1, dtype=torch.float64)
    EquilibriumPropagation(SquaredError(), beta=1e-5).backward(circuit, target, target)  # it calls constrain()
    assert float(circuit.conductance[1].detach()) == circuit.least
    assert circuit.node_voltages(circuit.operating_point())["a"] == pytest.approx(1.0, abs=1e-8)


def test_missing_operating_points_are_told() -> None:
    """Breaks if a current that nothing can carry ends in advice on nudges; bad input to a command."""
    beside = [V("s", 1.0), R("s", "c", 1e3), R("c", GROUND, 1e3)]
    active = [Part("G", "vccs", ("a", GROUND, "b", GROUND), (1e-3,)), R("b", GROUND, 1e3)]
    for more in ([], beside, active):
        parts = [
            Part("I", "current_source", ("a", GROUND), (1e-3,)),
            Part("D", "diode", ("a", GROUND), (1e-14, 1.0)),
        ]
        point = Circuit(Parts.collect([*parts, *more])).operating_point()
        assert point.status is not Status.CONVERGED
        with pytest.raises(InputError, match=r"^No operating point was found in \d+ iterations") as caught:
            point.require()
        assert isinstance(caught.value, NotConverged)
        assert "\n" not in str(caught.value)
        assert "beta" not in str(caught.value)


def test_active_circuits_have_outputs_and_large_currents() -> None:
    """Breaks if a residual of kiloamperes' rounding is called converged by its status and not by `converged`."""
    follower = Part("E", "vcvs", ("e", GROUND, "s", "a"), (1e6,))
    parts = [V("s", 1e3), follower, R("e", "a", 1e-3), R("a", GROUND, 1e-3)]
    circuit = Circuit(Parts.collect(parts), outputs=["a"])
    point = circuit.operating_point().require()
    assert point.status is Status.CONVERGED
    assert float(point.residual_si) <= float(point.tolerance) <= 1e-13 * 1e9
    assert circuit.outputs(point.state).item() == pytest.approx(1e9 / (1e6 + 2), rel=1e-12)
    volts = torch.tensor([[1.0], [2.0]], dtype=torch.float64, requires_grad=True)
    again = circuit.operating_point(volts, start=point.state).require()  # one start for all
    assert circuit.outputs(again.state)[:, 0].numpy() == pytest.approx(
        [1e6 / (1e6 + 2), 2e6 / (1e6 + 2)], rel=1e-12
    )
