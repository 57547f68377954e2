"""Nodes that the leakage of diodes alone holds: amperes say nothing there, volts do, and some are untold."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from hardware_models.circuits.circuit import Circuit
from hardware_models.laws.elements import THERMAL_VOLTAGE
from hardware_models.netlists.netlist import read_netlist
from hardware_models.netlists.parts import GROUND, Part, Parts
from hardware_models.nodal.points import operating_point
from hardware_models.nodal.transients import transient
from hardware_models.spice.ngspice import run_ngspice
from physics_ep.cli import main
from physics_ep.cost import SquaredError
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import EquilibriumPropagation


def held(volts: float, *parts: Part) -> Parts:
    return Parts.collect([Part("V1", "voltage_source", ("a", GROUND), (volts,)), *parts])


def diode(name: str, anode: str, cathode: str, current: float = 1e-14, emission: float = 1.0) -> Part:
    return Part(name, "diode", (anode, cathode), (current, emission))


def resistor(name: str, first: str, second: str, conductance: float) -> Part:
    return Part(name, "resistor", (first, second), (conductance,))


def level(volts: float, above: float, below: float) -> float:
    """Voltage between two diodes in reverse in series: the root of Kirchhoff's law without its cancelling parts."""
    s = THERMAL_VOLTAGE
    return brentq(
        lambda v: above * math.expm1((v - volts) / s) - below * math.expm1(-v / s), 0, volts, xtol=1e-15, rtol=1e-14
    )


CASES = [
    # One forward, one reverse: Is (exp(v / s) - 1) = Is.
    (held(5.0, diode("D1", "a", "m"), diode("D2", "0", "m")), 5 - THERMAL_VOLTAGE * math.log(2)),
    (held(5.0, diode("D1", "a", "m", 1e-9, 2.0), diode("D2", "0", "m", 3e-9)),
     5 - 4 * THERMAL_VOLTAGE * math.log(2)),
    (held(5.0, diode("D1", "m", "a"), diode("D2", "m", "0")), THERMAL_VOLTAGE * math.log(2)),
    (held(1.0, diode("D1", "m", "a"), diode("D2", "0", "m")), 0.5),
    (held(5.0, diode("D1", "m", "a"), diode("D2", "0", "m", 3e-14)), level(5.0, 1e-14, 3e-14)),
    (held(0.9, diode("D1", "m", "a", 2e-15), diode("D2", "0", "m", 1e-15)), level(0.9, 2e-15, 1e-15)),
    # Resistors beside which the diodes' slopes are much at 0 V, and nothing where they are.
    (held(5.0, diode("D1", "m", "a", 1e-9), diode("D2", "0", "m", 1e-9),
          resistor("R1", "m", "0", 1e-15), resistor("R2", "a", "m", 3e-15)), 3.75),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "volts"), CASES)
def test_leakage_sets_voltages(parts: Parts, volts: float) -> None:
    """Closed forms: by amperes alone 17.97 mV was converged for 17.93, and 0 V for what lies between two diodes."""
    found = operating_point(parts)
    assert found.converged.all()
    assert not found.untold
    assert found.voltages[0, parts.nodes.index("m")] == pytest.approx(volts, abs=1e-8)
    circuit = Circuit(parts)
    assert circuit.node_voltages(circuit.operating_point().require())["m"] == pytest.approx(volts, abs=1e-8)


def test_phases_of_learning_settle_in_volts() -> None:
    """EP's free phase of a node that leakage holds is the closed form's, not what amperes let pass."""
    parts = held(
        5.0,
        diode("D1", "a", "m"),
        diode("D2", "0", "m"),
        resistor("R1", "a", "b", 1e-3),
        resistor("R2", "b", "0", 1e-3),
    )
    circuit = Circuit(parts, outputs=["b"])
    assert circuit.leaky
    x, y = torch.tensor([[5.0]], dtype=torch.float64), torch.tensor([[1.0]], dtype=torch.float64)
    step = EquilibriumPropagation(SquaredError(), beta=1e-5, tolerance=1e-9).backward(circuit, x, y)
    volts = circuit.voltages(step.equilibria[0].state, x)[0, parts.nodes.index("m")]
    assert float(volts) == pytest.approx(5 - THERMAL_VOLTAGE * math.log(2), abs=1e-7)


UNTOLD = [
    (held(5.0, diode("D1", "m", "a"), diode("D2", "0", "m")), ("m",)),
    (held(5.0, diode("D1", "m", "a"), diode("D2", "0", "k"), resistor("R1", "m", "k", 1e-3)), ("m", "k")),
    (held(9.0, diode("D1", "m", "a"), diode("D2", "k", "m"), diode("D3", "0", "k")), ("m", "k")),
]


@pytest.mark.parametrize(("parts", "nodes"), UNTOLD)
def test_voltages_that_float64_cannot_tell_are_named(parts: Parts, nodes: tuple[str, ...]) -> None:
    """All currents are -Is to the last digit from 1 V to 4 V: any voltage there would look like a solution."""
    found = operating_point(parts)
    assert not found.converged.any()
    assert found.untold == nodes
    point = Circuit(parts).operating_point()
    assert point.untold == nodes
    with pytest.raises(InputError, match=f"leakage alone holds node '{nodes[0]}'.*gmin"):
        point.require()
    with pytest.raises(InputError, match=f"leakage alone holds node '{nodes[0]}'"):
        transient(parts, 1e-6)


def test_currents_that_nothing_carries_are_told_as_such() -> None:
    """A microampere out of a diode in reverse is missing, whatever digits there are."""
    parts = Parts.collect([Part("I1", "current_source", ("m", GROUND), (1e-6,)), diode("D1", "m", "0")])
    found = operating_point(parts)
    assert not found.converged.any()
    assert not found.untold
    with pytest.raises(InputError, match=r"1e-06 A are missing at a node|grow without bound"):
        Circuit(parts).operating_point().require()


def test_gmin_on_request() -> None:
    """A conductance across each diode, closed form of two in series; and none where none is asked for."""
    parts = held(5.0, diode("D1", "m", "a"), diode("D2", "0", "m", 3e-14))
    exact = (5e-12 + 1e-14 - 3e-14) / 2e-12
    assert operating_point(parts, gmin=1e-12).voltages[0, parts.nodes.index("m")] == pytest.approx(exact, abs=1e-9)
    circuit = Circuit(parts, gmin=1e-12)
    assert circuit.node_voltages(circuit.operating_point().require())["m"] == pytest.approx(exact, abs=1e-9)
    assert circuit.parts.group("resistor").names == ("Rgmin_D1", "Rgmin_D2")
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="gmin must be finite and not negative"):
            operating_point(parts, gmin=bad)


TEXT = ["title", "V1 a 0 5", "D1 m a d", "D2 0 m e", ".model d D(IS=10f)", ".model e D(IS=30f)"]


@pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
def test_ngspice_has_the_same_gmin(tmp_path: Path) -> None:
    """.options gmin is a conductance of the circuit, and ngspice's answer is ours with it."""
    lines = [*TEXT, ".options gmin=1e-11"]
    (tmp_path / "net.cir").write_text("\n".join([*lines, ".end", ""]))
    parts = read_netlist(tmp_path / "net.cir")
    ours = operating_point(parts).voltages[0, parts.nodes.index("m")]
    (plot,) = run_ngspice(lines, ["op"], options="reltol=1e-10 abstol=1e-18 vntol=1e-12")
    assert ours == pytest.approx(plot.columns["v(m)"][0], abs=2e-4)  # ngspice's diodes leak 5 % less in reverse


def test_the_command_names_the_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit status 2, without gmin; with --gmin, and with ngspice's own, there is an operating point."""
    path = tmp_path / "net.cir"
    path.write_text("\n".join([*TEXT[:3], "D2 0 m d", TEXT[4], ".end", ""]))
    with pytest.raises(SystemExit) as ended:
        main(["spice", "import", str(path)])
    assert not ended.value.code
    told = " ".join(capsys.readouterr().out.split())
    assert "leakage alone holds node 'm'" in told
    assert "2.5" in told
    with pytest.raises(SystemExit) as ended:
        main(["spice", "import", str(path), "--gmin", "0"])
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2
    assert "leakage alone holds node 'm'" in said
    assert "\n" not in said
    with pytest.raises(SystemExit) as ended:
        main(["spice", "import", str(path), "--gmin", "1e-12"])
    assert not ended.value.code
    assert "2.5" in capsys.readouterr().out
