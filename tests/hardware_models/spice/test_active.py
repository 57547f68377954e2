"""Circuits with active parts beside ngspice: operating points, gradients, and phases with their correction."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hardware_models import ActiveCircuit, Circuit
from hardware_models.netlists.writer import part_names
from hardware_models.spice import ngspice_operating_point
from hardware_models.spice.adjoint import adjoint_parts, adjoint_phases, corrected_parts
from hardware_models.spice.check import CheckedCircuit, check_agreement, find_subject
from hardware_models.spice.ngspice import node_voltages, run_ngspice, simulator_lines
from hardware_models.spice.phases import export_phases
from physics_ep import EquilibriumPropagation, SquaredError
from physics_ep.errors import InputError
from tests.support.active import active_circuit
from tests.support.tiers import first

pytestmark = [
    pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed"),
    pytest.mark.filterwarnings("ignore::hardware_models.circuits.active_phase.StabilityWarning"),
]


def own_sources(circuit: Circuit) -> torch.Tensor:
    return torch.from_numpy(circuit.parts.group("voltage_source").values.T.copy())


@pytest.mark.parametrize("seed", first(2, range(30)))
def test_random_active_circuits_are_where_ngspice_has_them(seed: int) -> None:
    """Breaks if a law, a sign or a control of a one-way part differs: all four kinds, op amps and diodes."""
    circuit = Circuit(active_circuit(seed))
    assert isinstance(circuit, ActiveCircuit)
    ours = circuit.node_voltages(circuit.operating_point(tolerance=1e-15).require())
    theirs = ngspice_operating_point(circuit.parts)
    assert max(abs(ours[node] - float(theirs[node][0])) for node in ours) < 1e-9


TRIED = {
    "conductance": "resistor",
    **{"vccs_transconductance": "vccs", "vcvs_gain": "vcvs", "cccs_gain": "cccs", "ccvs_transresistance": "ccvs"},
}


def differences(circuit: Circuit, outputs: list[int]) -> dict[str, np.ndarray]:
    """dV/dp of output nodes by the value p of each part, (outputs, parts), by differences of fourth order in
    ngspice."""
    parts, names = circuit.parts, part_names(circuit.parts)
    commands, widths = [], {}
    for parameter, kind in TRIED.items():
        values = parts.group(kind).values[:, 0]
        widths[parameter] = 1e-3 * values
        for name, value, h in zip(names[kind], values, widths[parameter], strict=True):
            for v in (value - 2 * h, value - h, value + h, value + 2 * h, value):
                told = f"resistance = {float(1 / v)!r}" if kind == "resistor" else f"gain = {float(v)!r}"
                commands += [f"alter {name} {told}", "op"][: 1 if v == value else 2]
    found = node_voltages(parts, run_ngspice(simulator_lines(parts), commands))
    table = np.stack([found[parts.nodes[k]] for k in outputs])
    slopes, start = {}, 0
    for parameter, h in widths.items():
        v = table[:, start : start + 4 * len(h)].reshape(len(outputs), len(h), 4)
        slopes[parameter] = (v[..., 0] - 8 * v[..., 1] + 8 * v[..., 2] - v[..., 3]) / (12 * h)
        start += 4 * len(h)
    return slopes


@pytest.mark.parametrize("seed", first(1, (1, 4, 7)))
def test_gradients_are_those_of_differences_in_ngspice(seed: int) -> None:
    """20 nodes, VCCS, op amps, diodes: breaks if a gradient is off by 1e-6, by the adjoint or by asymmetric EP."""
    circuit = Circuit(active_circuit(seed), outputs=["o0", "n5"])
    x, y = own_sources(circuit), torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    EquilibriumPropagation(SquaredError(), beta=1e-8).backward(circuit, x, y)
    volts = circuit.node_voltages(circuit.operating_point(tolerance=1e-15))
    pull = np.array([volts["o0"] - 0.3, volts["n5"] + 0.2])
    exact = circuit.sensitivities()
    for name, slope in differences(circuit, [circuit.parts.nodes.index(n) for n in ("o0", "n5")]).items():
        for ours, theirs in (
            (exact[name][0].numpy(), slope),
            (circuit.get_parameter(name).grad.numpy(), pull @ slope),
        ):
            assert np.linalg.norm(ours - theirs) <= 1e-6 * np.linalg.norm(theirs), name


def test_nudged_phases_are_those_of_ngspice(tmp_path: Path) -> None:
    """Breaks if the correction is no circuit: controlled sources that hold the free state, and read parts back."""
    circuit = Circuit(active_circuit(0), outputs=["o0", ("n5", "n3")])
    x, y = own_sources(circuit), torch.tensor([[0.1, -0.2]], dtype=torch.float64)
    beta = 1e-5
    step = EquilibriumPropagation(SquaredError(), beta=beta).backward(circuit, x, y)
    states = [circuit.voltages(e.state, x).numpy() for e in step.equilibria]
    free = step.equilibria[0].state
    theirs = adjoint_phases(circuit, free, x, y.numpy(), (0.0, beta, -beta))
    for ours, other in zip(states, theirs, strict=True):
        assert np.abs(ours - other).max() < 1e-9
    assert np.abs(states[1] - states[0]).max() > 1e-2
    added = {p.kind for p in adjoint_parts(circuit, free, x) if "aep_" in p.name}
    assert added == {"vccs", "vcvs", "cccs", "ccvs", "current_source", "voltage_source"}
    corrected = corrected_parts(circuit, x.numpy())
    files = export_phases(
        tmp_path / "net.cir", circuit.parts, circuit.output_names, y[0].numpy(), beta, corrected=corrected
    )
    for ours, file in zip(states, files.values(), strict=True):
        again = Circuit.from_netlist(file)
        found = again.node_voltages(again.operating_point(tolerance=1e-14).require())
        assert max(abs(found[n] - v) for n, v in zip(circuit.parts.nodes, ours[0], strict=True)) < 1e-9


@pytest.mark.filterwarnings("ignore::physics_ep.estimators.methods.AsymmetryWarning")
def test_phases_of_each_method_are_those_of_ngspice(tmp_path: Path) -> None:
    """Breaks if a method that is asked for is not what ngspice is nudged by, or what is compared with it."""
    circuit = Circuit(active_circuit(0), outputs=["o0", "n5"])
    y, beta = np.array([[0.1, -0.2]]), 1e-5
    subject = CheckedCircuit("active", circuit, own_sources(circuit).numpy(), y)
    taken, files = {}, {}
    for asked, method in (("energy",) * 2, ("vector-field",) * 2, ("asymmetric",) * 2, ("auto", "asymmetric")):
        found = check_agreement(subject, beta, asked)
        assert found.method == method
        assert found.worst < 1e-9
        corrected = corrected_parts(circuit, subject.sources, asked)
        written = export_phases(
            tmp_path / f"{asked}.cir", circuit.parts, circuit.output_names, y[0], beta, corrected=corrected
        )
        again = Circuit.from_netlist(written["plus"])
        taken[asked] = again.node_voltages(again.operating_point(tolerance=1e-14).require())["n5"]
        files[asked] = "aep_" in written["plus"].read_text()
    assert files == {"energy": False, "vector-field": False, "asymmetric": True, "auto": True}
    assert abs(taken["energy"] - taken["asymmetric"]) > 1e-6
    assert taken["auto"] == taken["asymmetric"]
    with pytest.raises(InputError, match=r"method must be .* for netlists .*at their mean"):
        check_agreement(subject, beta, "dyadic")
    assert check_agreement(find_subject("bridge"), method="auto").method == "energy"


STAGES = """two stages of transistors
* outputs: v(d1,d3) q t
* gates: M5
V1 vdd 0 3
V2 in 0 1.6
Vg5 g5 0 2.1
.model n1 nmos(level=1 kp=50u vto=0.7 lambda=0.02 gamma=0.4 phi=0.65)
.model p1 pmos(level=1 kp=20u vto=-0.8 lambda=0.03 gamma=0.5 phi=0.7)
M1 d1 in s 0 n1 w=20u l=2u
M2 d2 d1 s 0 n1 w=20u l=2u m=2
R1 s 0 1k
M3 d1 d1 vdd vdd p1 w=20u l=1u
R3 d1 0 100k
M4 d2 d1 vdd vdd p1 w=20u l=1u
M5 d2 g5 d3 0 n1 w=5u l=1u
R2 d3 0 30k
G1 0 q d1 d3 0.6m
R4 q 0 1.5k
D1 q r dd
.model dd d(is=4e-13 n=1.3 rs=2.5)
R5 r 0 500
E1 t0 0 poly(2) q 0 d2 0 0.1 0.5 -0.3
R6 t0 t 1k
R7 t 0 2k
C1 d1 0 1p
C2 d2 0 1p
C3 d3 0 1p
.end
"""


def test_nudged_phases_in_ngspice_begin_where_the_circuit_rests(tmp_path: Path) -> None:
    """Breaks if ngspice looks for a nudged phase from zero, where a correction may have another rest."""
    path = tmp_path / "stages.cir"
    path.write_text(STAGES)
    found = check_agreement(find_subject(str(path)), beta=1e-7)
    assert found.worst < 1e-9
    circuit = Circuit.from_netlist(path)
    corrected = corrected_parts(circuit, own_sources(circuit).numpy())
    files = export_phases(
        tmp_path / "out.cir", circuit.parts, circuit.output_names, [0.0] * 3, 1e-7, corrected=corrected
    )
    said = [".nodeset v(d1)=" in file.read_text() for file in files.values()]
    assert said == [False, True, True]
