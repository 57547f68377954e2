"""ngspice as another implementation of the same circuits: voltages, transients, gradients; its failures told."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from hardware_models.circuits.circuit import Circuit
from hardware_models.netlists.netlist import read_netlist
from hardware_models.netlists.parts import GROUND, Part, Parts
from hardware_models.nodal.transients import transient
from hardware_models.resistive.network import ResistiveNetwork
from hardware_models.spice import ngspice as spice
from hardware_models.spice.check import CheckedCircuit, bundled_netlists, check_agreement, find_subject
from hardware_models.spice.phases import export_phases, ngspice_gradient, ngspice_phases
from physics_ep.cli import main
from physics_ep.cost import SquaredError
from physics_ep.errors import InputError
from tests.support.netlists import mixed_circuit
from validation.benchmarks import simulators
from validation.benchmarks.circuits import crossbar, dense_layers
from validation.benchmarks.spice import measure
from validation.oracles import implicit_gradient

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
needs_vacask = pytest.mark.skipif(shutil.which("vacask") is None, reason="VACASK is not installed")


def worst(ours: dict[str, float], theirs: dict[str, np.ndarray]) -> float:
    assert ours.keys() == theirs.keys()
    return max(abs(ours[node] - float(theirs[node][0])) for node in ours)


SIZES = np.unique(np.geomspace(5, 300, 21).round().astype(int))


@needs_ngspice
@pytest.mark.parametrize("size", SIZES.tolist())
def test_operating_points_of_mixed_circuits(size: int) -> None:
    """20 sizes from 5 to 300 nodes, every kind of part but capacitors: a wrong law, sign or solver shows here."""
    for active in (False, True):
        parts = mixed_circuit(size, seed=size, active=active)
        circuit = Circuit(parts)
        assert circuit.has_energy is not active
        ours = circuit.node_voltages(circuit.operating_point(tolerance=1e-15))
        assert worst(ours, spice.ngspice_operating_point(parts)) < 1e-9


@needs_ngspice
def test_ideal_diodes_are_ideal_in_ngspice() -> None:
    """Bounds hold to rounding; a diode that ngspice rounds off (0.6 V, or nanovolts) would show."""
    net = ResistiveNetwork([5, 12, 9, 3], diode="ideal", input_gain=2.0, seed=1, scale=1.0)
    circuit = net.to_circuit()
    x = torch.rand(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    volts = net.circuit_inputs(x).detach()
    point = circuit.operating_point(volts, tolerance=1e-14)
    ours = circuit.voltages(point.state, volts).numpy()
    found = spice.ngspice_operating_point(circuit.parts, volts.numpy())
    theirs = np.stack([found[node] for node in circuit.parts.nodes], axis=1)
    hidden = [circuit.parts.nodes.index(f"h1_{k}") for k in range(1, 13)]
    held = np.abs(ours[:, hidden]) < 1e-12
    assert 0 < held.sum() < held.size
    assert np.abs(ours - theirs).max() < 1e-12


@needs_ngspice
def test_diodes_in_reverse_follow_shockley() -> None:
    """ngspice's own law is 5 % of Is off at -3 n VT: 50 uV here. Against the closed form, not only against ours."""
    current, g, v0 = 1e-6, 1e-5, -1.0
    resistor = Part("R1", "resistor", ("a", "b"), (g,))
    diode = Part("D1", "diode", ("b", GROUND), (current, 1.0))
    parts = Parts.collect([Part("V1", "voltage_source", ("a", GROUND), (v0,)), resistor, diode])
    v = float(spice.ngspice_operating_point(parts)["b"][0])
    scale = spice.THERMAL_VOLTAGE
    assert -0.95 < v < -0.85
    assert current * np.expm1(v / scale) == pytest.approx(g * (v0 - v), rel=1e-12)


@needs_ngspice
def test_numbers_mean_the_same_to_ngspice(tmp_path: Path) -> None:
    """Our reader's scale factors against ngspice's own, literal by literal."""
    literals = [
        "10k",
        "1meg",
        "3M",
        "2u",
        "4.7kohm",
        "5mil",
        "1F",
        "2A",
        "5V",
        ".5n",
        "1e-3k",
        "-2.5E+1p",
        "3t",
        "1g",
    ]
    lines = [f"I{k} 0 n{k} {text}\nR{k} n{k} 0 1" for k, text in enumerate(literals)]
    path = tmp_path / "net.cir"
    path.write_text("\n".join(["title", *lines, ".end", ""]))
    ours = read_netlist(path).group("current_source").values[:, 0]
    (plot,) = spice.run_ngspice(["title", *"\n".join(lines).split("\n")], ["op"])
    theirs = [plot.columns[f"v(n{k})"][0] for k in range(len(literals))]
    np.testing.assert_allclose(theirs, ours, rtol=1e-13)


@pytest.mark.full
@needs_ngspice
def test_transients_of_a_diode_bridge() -> None:
    """Charging, conduction changing hands and discharge: within 1e-4 of the largest voltage at every moment."""
    parts = read_netlist(bundled_netlists()["bridge"])
    time, theirs = spice.ngspice_transient(parts, 3.5e-3, step=1e-6, from_zero=False)
    ours = transient(parts, 3.5e-3, start="operating_point")
    assert float(ours.kirchhoff.max()) < 1e-6
    for node in ("plus", "minus", "ac"):
        course = np.interp(ours.time.numpy(), time, theirs[node])
        assert np.abs(course - ours.voltage(node)[:, 0].numpy()).max() < 1e-4 * np.abs(course).max()
    assert theirs["ac"].max() - theirs["ac"].min() > 8


@needs_ngspice
def test_transients_of_a_mixed_circuit() -> None:
    """Capacitors among every kind of part, driven by a waveform: within 1e-4 of each node's largest voltage."""
    rng = np.random.default_rng(0)
    base = list(mixed_circuit(12, 7))
    points = ((0.0, 0.2), (1e-5, 1.0), (3e-5, 1.0), (3.2e-5, -1.0), (6e-5, -1.0))
    parts = [p for p in base if p.name != "V0"]
    parts += [Part(f"C{k}", "capacitor", (f"n{k}", GROUND), (1e-9 * rng.uniform(0.5, 2),)) for k in range(10)]
    parts.append(Part("V0", "voltage_source", ("in0", GROUND), (0.2,), waveform=points))
    circuit = Parts.collect(parts)
    time, theirs = spice.ngspice_transient(circuit, 8e-5, step=4e-8, from_zero=False)
    ours = transient(circuit, 8e-5, start="operating_point")
    for node in circuit.nodes[1:]:
        course = np.interp(ours.time.numpy(), time, theirs[node])
        assert np.abs(course - ours.voltage(node)[:, 0].numpy()).max() < 1e-4 * np.abs(course).max()


@needs_ngspice
@pytest.mark.parametrize("diode", ["ideal", "shockley"])
def test_gradient_computed_inside_ngspice(diode: str) -> None:
    """All phases by both programs; and against implicit differentiation, from which only beta separates it."""
    net = ResistiveNetwork([4, 8, 6, 2], diode=diode, amplification=2.0, saturation=1e-9, scale=1e-3, seed=2)
    circuit = net.to_circuit()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # no symmetry that would put a node right onto its bound
        noise = torch.rand(circuit.conductance.shape, dtype=torch.float64, generator=generator)
        circuit.conductance.mul_(0.5 + noise)
    x = net.circuit_inputs(torch.rand(3, 4, dtype=torch.float64, generator=generator)).detach()
    y = torch.rand(3, 2, dtype=torch.float64, generator=generator) - 0.5
    subject = CheckedCircuit("net", circuit, x.numpy(), y.numpy())
    beta = 1e-4 * circuit.nudge_scale
    found = check_agreement(subject, beta)
    assert found.worst < 1e-10
    assert set(found.gradient) == {"conductance", "current"}
    assert max(found.gradient.values()) < 1e-8
    exact = implicit_gradient(circuit, x, y, SquaredError())
    inside = ngspice_gradient(circuit.parts, circuit.output_names, x.numpy(), y.numpy(), beta)
    for name, gradient in exact.items():
        scale = float(gradient.norm())
        assert float((torch.from_numpy(inside[name]) - gradient).norm()) < 1e-5 * scale


@needs_ngspice
def test_exported_phases_are_those_of_the_gradient(tmp_path: Path) -> None:
    """Each file, run by ngspice alone as a user would, prints the voltages that the gradient is made of."""
    subject = find_subject("learning", seed=1)
    parts, outputs = subject.circuit.parts, subject.circuit.output_names
    beta = 1e-6
    files = export_phases(tmp_path / "net.cir", parts, outputs, subject.targets[0], beta)
    assert [f.name for f in files.values()] == ["net.cir", "net_plus.cir", "net_minus.cir"]
    phases = ngspice_phases(parts, outputs, subject.sources, subject.targets, beta)
    for path, voltages in zip(files.values(), phases, strict=True):
        said = subprocess.run(["ngspice", "-b", str(path)], capture_output=True, text=True, check=False).stdout
        printed = dict(line.split() for line in said.splitlines() if line.strip().startswith(("y1 ", "y2 ")))
        for node in ("y1", "y2"):
            value = voltages[0, parts.nodes.index(node)]
            assert float(printed[node]) == pytest.approx(value, abs=5e-6)  # ngspice's own diodes in reverse
    assert abs(phases[1] - phases[2]).max() > 1e-3


@needs_ngspice
def test_active_circuits_have_no_gradient() -> None:
    """Operating points agree in all phases; a gradient that no energy stands behind is not reported."""
    circuit = Circuit(mixed_circuit(20, 5), outputs=["n3", "n7"])
    subject = CheckedCircuit(
        "active", circuit, circuit.parts.group("voltage_source").values.T, np.array([[0.1, -0.2]])
    )
    found = check_agreement(subject)
    assert len(found.rows) == 3
    assert found.worst < 1e-9
    assert found.gradient == {}
    with pytest.raises(InputError, match="no energy"):
        ngspice_gradient(circuit.parts, ["n3"], subject.sources, np.zeros((1, 1)), 1e-6)


@needs_ngspice
def test_failures_of_ngspice_are_told() -> None:
    """Never a voltage from an analysis that failed, nor from the one before it."""
    loop = ["title", "V1 a 0 1", "R1 a 0 1", "V2 a 0 2"]
    with pytest.raises(spice.SpiceError, match=r"0 of 1 analyses.*singular"):
        spice.run_ngspice(loop, ["op"])
    with pytest.raises(spice.SpiceError, match="model"):
        spice.run_ngspice(["title", "V1 a 0 1", "D1 a 0 nowhere"], ["op"])
    good = ["title", "V1 a 0 1", "B1 a b V=ln(v(c))", "R1 b 0 1", "V2 c 0 1"]
    with pytest.raises(spice.SpiceError, match="1 of 2 analyses"):
        spice.run_ngspice(good, ["op", "alter v2 dc = -1e300", "alter v1 dc = 1e308", "tran 1e-300 0"])
    with pytest.raises(spice.SpiceError, match="did not end"):
        spice.run_ngspice(["title", "V1 a 0 SIN(0 1 1meg)", "R1 a 0 1"], ["tran 1n 1"], timeout=0.3)
    parts = Parts.collect(
        [Part("V1", "voltage_source", ("a", GROUND), (1.0,)), Part("R1", "resistor", ("a", GROUND), (1.0,))]
    )
    with pytest.raises(spice.SpiceError, match="node 'elsewhere'"):
        spice.node_voltages(
            Parts(("0", "a", "elsewhere"), parts.groups), spice.run_ngspice(["t", "V1 a 0 1"], ["op"])
        )
    with pytest.raises(InputError, match=r"shape \(B, 1\)"):
        spice.ngspice_operating_point(parts, np.zeros((2, 3)))


def test_transients_that_ngspice_gives_up_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends them early with exit status 0 (time step too small): half a course would pass as a whole one."""
    parts = read_netlist(bundled_netlists()["bridge"])
    columns = {f"v({node})": np.zeros(3) for node in parts.nodes} | {"time": np.array([0.0, 1e-4, 5e-4])}
    monkeypatch.setattr(spice, "run_ngspice", lambda *given, **options: [spice.Plot("Transient", columns)])
    with pytest.raises(spice.SpiceError, match=r"gave the transient up at 0\.0005 s of 0\.001 s"):
        spice.ngspice_transient(parts, 1e-3)


def test_absence_of_ngspice_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says how to install it, exit status 2."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(InputError, match="apt-get install ngspice"):
        spice.find_ngspice()
    with pytest.raises(SystemExit) as stop:
        main(["spice", "check", "learning"])
    assert stop.value.code == 2
    assert "ngspice is not installed" in capsys.readouterr().err


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


@needs_ngspice
def test_check_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0 and the figures; status 1 where the tolerance is not met; 2 for what is no circuit."""
    figures = tmp_path / "found.json"
    assert command("spice", "check", "learning", "--json", str(figures)) == 0
    found = json.loads(figures.read_text())
    assert found["worst_difference"] < 1e-9
    assert max(found["gradient_error"].values()) < 1e-5
    assert [row["phase"].split()[0] for row in found["rows"]] == ["free", "nudged", "nudged"]
    assert command("spice", "check", "learning", "--tolerance", "1e-30", "--quiet") == 1
    assert "--tolerance" in capsys.readouterr().err
    assert command("spice", "check", "hopfield") == 2
    assert command("spice", "check", "learning", "--device", "cuda") == 2


def test_import_and_export_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A netlist in, its operating point as JSON, the same netlist out; uniqueness is said."""
    figures, again = tmp_path / "found.json", tmp_path / "again.cir"
    assert command("spice", "import", "bridge", "--json", str(figures), "--out", str(again)) == 0
    found = json.loads(figures.read_text())
    assert "one operating point" in capsys.readouterr().out
    circuit = Circuit.from_netlist(again)
    ours = circuit.node_voltages(circuit.operating_point())
    assert found["voltages"] == pytest.approx(ours, abs=1e-9)
    assert (found["unique"], found["parts"]["diode"]) == (True, 4)
    assert command("spice", "export", "bridge", str(tmp_path / "net.cir"), "--phase", "nudged") == 0
    assert not (tmp_path / "net.cir").exists()
    negative = read_netlist(tmp_path / "net_minus.cir").group("vccs")
    assert (negative.values < 0).all()
    nudged = str(tmp_path / "net_minus.cir")  # may be nudged again, and keeps the waveform of its source
    assert command("spice", "export", nudged, str(tmp_path / "twice.cir")) == 0
    twice = read_netlist(tmp_path / "twice_plus.cir")
    assert twice.group("vccs").names == ("Gnudge1", "Gnudge2", "Gnudge1_", "Gnudge2_")
    assert twice.group("voltage_source").waveforms.keys() == {"V1"}
    assert command("spice", "export", "bridge", str(tmp_path / "x.cir"), "--phase", "sideways") == 2
    assert command("spice", "import", str(tmp_path / "nothing.cir")) == 2


def test_import_refuses_what_has_no_operating_point(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, status 2 and no file where a netlist is none, or its circuit is not to be solved."""
    assert command("spice", "import", "bridg") == 2
    assert "Did you mean 'bridge'" in capsys.readouterr().err
    lost = tmp_path / "lost.cir"
    lost.write_text("no way for 1 mA\nI1 a 0 1m\nD1 a 0 d\n.model d D\n")
    assert command("spice", "import", str(lost), "--gmin", "0", "--out", str(tmp_path / "out.cir")) == 2
    assert "No operating point was found" in capsys.readouterr().err
    assert not (tmp_path / "out.cir").exists()


@needs_ngspice
@pytest.mark.parametrize("run", [simulators.run_ngspice, pytest.param(simulators.run_vacask, marks=needs_vacask)])
def test_simulators_of_the_comparison_agree(run) -> None:
    """Benchmarks compare solutions of one circuit, whatever the order of lines: else ratios mean nothing."""
    for parts in (dense_layers((10, 12, 12, 5)), crossbar(6, 5)):
        circuit = Circuit(parts)
        point = circuit.operating_point(tolerance=1e-14)
        ours = np.array(list(circuit.node_voltages(point).values()))
        for shuffle in (None, 1):
            found = run(parts, shuffle)
            assert found.total > found.solve >= 0
            assert np.abs(found.voltages - ours).max() < 1e-8


@needs_ngspice
@pytest.mark.full
def test_comparison_of_speed() -> None:
    """`physics-ep bench spice` on its smallest case: solutions that agree, and ratios of their own times."""
    found = measure(1, cases=["100 nodes, dense layers"])
    rows = {row["contender"]: row for row in found["rows"]}
    assert {"physics-ep", "ngspice"} <= rows.keys()
    assert rows["physics-ep"]["residual A"] <= 1e-12
    for name in rows.keys() - {"physics-ep"}:
        if rows[name]["solve s"] is None:  # a simulator that is not installed
            assert name.startswith("VACASK: not installed")
            continue
        assert rows[name]["difference V"] < 1e-8
        ratio = rows[name]["solve s"] / rows["physics-ep"]["solve s"]
        assert rows[name]["ratio"] == pytest.approx(ratio)
