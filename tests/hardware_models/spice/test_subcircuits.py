"""Circuits that leave as subcircuits with a bench: ngspice's voltages are ours, and so are those read back."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hardware_models import Circuit, ResistiveNetwork
from hardware_models.devices.model import DeviceModel
from hardware_models.netlists.subcircuits import MOST_PORTS, ported
from hardware_models.netlists.units import folded
from hardware_models.spice.bench import Bench, export_subcircuit
from hardware_models.spice.check import CheckedCircuit, find_subject
from hardware_models.spice.mapped import find_pairs
from physics_ep.cli import main
from tests.support.active import active_circuit
from tests.support.netlists import mixed_circuit

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
_PRINTED = re.compile(r"^v\(.*\) = (\S+)$", re.M)


def printed(bench: Path, outputs: int) -> np.ndarray:
    """Voltages (B, n_out) that `ngspice -b` prints of a bench, from another folder than its own."""
    words = ["ngspice", "-n", "-b", str(bench)]
    done = subprocess.run(words, cwd="/", capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return np.array([float(v) for v in _PRINTED.findall(done.stdout)]).reshape(-1, outputs)


def read_back(bench: Path) -> np.ndarray:
    """Voltages of the outputs by our own reader."""
    circuit = Circuit.from_netlist(bench)
    point = circuit.operating_point(tolerance=1e-14).require()
    volts = np.array(list(circuit.node_voltages(point).values()))
    return volts[circuit.output_nodes[:, 0]] - volts[circuit.output_nodes[:, 1]]


def require_equal(found: Bench) -> None:
    """All three agree on the first example, ours and ngspice's on all of them."""
    bench, outputs = found.files["bench"], found.found.shape[1]
    assert np.abs(read_back(bench) - found.found[0]).max() < 1e-9
    if shutil.which("ngspice") is not None:
        assert np.abs(printed(bench, outputs) - found.found).max() < 1e-9


def subject(circuit: Circuit) -> CheckedCircuit:
    own = circuit.parts.group("voltage_source").values.T.copy()
    return CheckedCircuit("circuit", circuit, own, np.zeros((1, len(circuit.output_names))))


EVERYTHING = """all that a port may meet
* outputs: v(a,b) In0 v(0,q) vdd t2 out1 x
* gates: M5
Vdd vdd 0 3 AC 1
V2 a b 0.25 PULSE(0 0.25 1u 1u 1u 5u 20u)
V3 0 c 0.4
V4 vdd d 0.1 AC 2 30
.ic v(in0)=0.1 v(c)=-0.4
R1 a In0 1k
R2 b 0 2k
R3 In0 c 3k
C1 In0 0 1n IC=0.05
D1 In0 out1 dd
.model dd d(is=1e-9 n=1.2)
R4 out1 c 5k
F1 0 q V2 0.5
R5 q 0 1k
H1 h 0 V4 100
R6 h d 1k
B1 0 q I=1e-4*tanh(v(in0)-v(a,b))+0.1*i(V3)
.model n1 nmos(level=1 kp=50u vto=0.7)
Vg5 g5 0 2.1
M5 d g5 s 0 n1 w=5u l=1u
R7 s 0 1k
.subckt stage in out r=1k
E1 e 0 in 0 -0.5
R1 e out {r}
D1 out 0 dd
I1 0 out 10u
.ends
X1 In0 t1 stage
X2 t1 t2 stage r=2.5k
X3 t2 x stage r=3k
.end
"""


def test_a_circuit_of_everything_leaves_and_comes_back(tmp_path: Path) -> None:
    """Sources to ground, between nodes and read by other parts; outputs at ports; names that ports have; .ic."""
    path = tmp_path / "all.cir"
    path.write_text(EVERYTHING)
    circuit = Circuit.from_netlist(path)
    found = export_subcircuit(tmp_path / "net.cir", subject(circuit))
    require_equal(found)
    assert found.circuit.inputs == ("in0", "in1", "in2", "in3")
    assert found.circuit.outputs[:3] == (("out0p", "out0n"), ("out1",), ("out2p", "out2n"))
    assert ["t1", "out4"] in [[one.name for one in unit.instances] for unit in found.circuit.units]
    bench = found.files["bench"].read_text()
    assert "Vin1 in1 0 DC 0.25 PULSE(" in bench
    assert re.search(r"^Vin3 in3 0 DC 0.1 AC 2.0 (30|29.9)", bench, re.M)
    assert ".ic v(out1)=0.1" in bench


@pytest.mark.parametrize("seed", [3, pytest.param(1, marks=pytest.mark.full)])
def test_random_circuits_leave_and_come_back(tmp_path: Path, seed: int) -> None:
    """Every kind of part, with and without an energy: a law that ngspice has otherwise in a subcircuit shows."""
    mixed = mixed_circuit(30, seed)
    outputs = ["n0", ("n3", "n4"), "in0", ("n0", "in1")]
    require_equal(export_subcircuit(tmp_path / "mixed.cir", subject(Circuit(mixed, outputs=outputs))))
    active = Circuit(active_circuit(seed), outputs=["o0", ("n5", "n3")])
    found = export_subcircuit(tmp_path / "active.cir", subject(active))
    require_equal(found)
    assert sum(len(unit.instances) for unit in found.circuit.units) >= 2


def test_units_are_those_of_the_network() -> None:
    """Breaks if units fall apart or grow together: one of each hidden node, its amplifier, diode and source."""
    network = ResistiveNetwork([5, 6, 4, 3], diode="shockley", amplification=2.0)
    circuit = network.to_circuit()
    parts = circuit.parts
    rest, units = folded(parts, parts.nodes[1:11], circuit.output_names)
    assert sorted(one.name for unit in units for one in unit.instances) == sorted(
        [*(f"h1_{k}" for k in range(1, 7)), *(f"h2_{k}" for k in range(1, 5)), "y1", "y2", "y3"]
    )
    assert sorted(len(unit.instances) for unit in units) == [3, 5, 5]
    assert rest.groups.keys() == {"resistor", "voltage_source"}
    hidden = next(unit for unit in units if unit.instances[0].name == "h1_1")
    assert sorted(p.kind for p in hidden.parts) == ["amplifier", "current_source", "diode"]
    assert hidden.instances[0].nodes == ("h1_1", "a1_1")


@pytest.mark.full
@pytest.mark.parametrize(("activation", "noise"), [("relu", 0.002), ("hard_tanh", 0.0)])
def test_mapped_networks_leave_and_come_back(tmp_path: Path, activation: str, noise: float) -> None:
    """Paired units with their rails, the reference at a port of its own, cells with errors of their own."""
    config = tmp_path / "net.toml"
    config.write_text(f'[system]\nname = "pcn"\nsizes = [5, 6, 4, 3]\nactivation = "{activation}"\n')
    subject = find_pairs(str(config), "resistive", DeviceModel(programming_noise=noise), 0, 1, data=True)
    found = export_subcircuit(tmp_path / "net.cir", subject)
    require_equal(found)
    assert found.circuit.inputs == (*(f"in{k}" for k in range(5)), "ref")
    for layer, size in (("h1_", 6), ("h2_", 4)):
        names = {one.name for unit in found.circuit.units for one in unit.instances if layer in one.name}
        assert names == {f"{layer}{k}" for k in range(1, size + 1)}


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


@pytest.mark.full
@needs_ngspice
@pytest.mark.parametrize(("epochs", "count"), [(1, 5), pytest.param(10, 100, marks=pytest.mark.slow)])
def test_a_trained_network_classifies_in_ngspice(tmp_path: Path, epochs: int, count: int) -> None:
    """64-32-10 on the 8x8 digits: each class that ngspice finds is ours, in one process, each voltage to 1e-9."""
    run, net = str(tmp_path / "run.h5"), str(tmp_path / "net.cir")
    told = ["--set", "system.sizes=[64,32,10]", "--set", f"training.epochs={epochs}"]
    assert command("train", "resistive-digits", *told, "--out", run, "--quiet") == 0
    figures = tmp_path / "found.json"
    given = ["--as", "subckt", "--batch", str(count), "--json", str(figures), "--quiet"]
    assert command("spice", "export", run, net, *given) == 0
    found = json.loads(figures.read_text())
    ours = np.array(found["found"])
    theirs = printed(tmp_path / "net_bench.cir", 10)
    assert theirs.shape == (count, 10)
    assert np.abs(ours - theirs).max() < 1e-9
    assert (ours.argmax(1) == theirs.argmax(1)).all()
    assert count < 100 or (theirs.argmax(1) == np.array(found["labels"])).mean() > 0.9
    assert found["units"] == {"unit1": 16, "unit2": 16, "unit3": 10}
    one = ["--as", "subckt", "--overwrite", "--quiet"]
    assert command("spice", "export", run, net, *one) == 0
    assert np.abs(read_back(tmp_path / "net_bench.cir") - ours[0]).max() < 1e-9


def test_what_cannot_leave_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, status 2, and no file: unknown forms, options of phases, more ports than ngspice reads."""
    net = tmp_path / "net.cir"
    wide = tmp_path / "wide.toml"
    wide.write_text('[system]\nname = "resistive"\nsizes = [1002, 2, 3]\n')
    for words, message in (
        (["learning", "--as", "subcircuit"], "Did you mean 'subckt'"),
        (["learning", "--as", "subckt", "--phase", "free"], "--as phases"),
        (["learning", "--as", "subckt", "--beta", "1e-6"], "--as phases"),
        (["learning", "--batch", "2"], "--as phases"),
        (["resistive", "--as", "subckt", "--batch", "400"], "the test examples of digits"),
        (["pcn", "--as", "subckt"], "--substrate resistive"),
        (["pcn", "--as", "subckt", "--substrate", "oscillator"], "resistive"),
        ([str(wide), "--as", "subckt"], f"at most {MOST_PORTS:,} inputs and outputs"),
    ):
        assert command("spice", "export", words[0], str(net), *words[1:]) == 2, words
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.cir"))


def test_a_circuit_of_ones_own_leaves(tmp_path: Path) -> None:
    """A function that returns a Circuit names a system here as elsewhere, in its trained state."""
    code = (
        "from hardware_models import Circuit, Part, Parts\n"
        "def made():\n"
        "    parts = [Part('V1', 'voltage_source', ('a', '0'), (1.0,)),\n"
        "             Part('R1', 'resistor', ('a', 'b'), (1e-3,)), Part('R2', 'resistor', ('b', '0'), (1e-3,))]\n"
        "    circuit = Circuit(Parts.collect(parts), outputs=['b'])\n"
        "    circuit.conductance.data[0] = 3e-3\n"
        "    return circuit\n"
    )
    (tmp_path / "own.py").write_text(code)
    found = export_subcircuit(tmp_path / "net.cir", find_subject(f"{tmp_path / 'own.py'}:made", data=True))
    assert found.found[0, 0] == pytest.approx(0.75, abs=1e-12)
    assert read_back(found.files["bench"])[0] == pytest.approx(0.75, abs=1e-12)
    assert ported(found_parts(tmp_path), ["b"]).inputs == ("in0",)


def found_parts(folder: Path):
    return find_subject(f"{folder / 'own.py'}:made").circuit.parts
