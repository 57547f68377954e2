"""Transistors of SPICE's level 1: their law, operating points beside ngspice's, their lines in netlists."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hardware_models import Circuit
from hardware_models.netlists.netlist import load_netlist, write_netlist
from hardware_models.netlists.parts import GROUND, Part, Parts
from hardware_models.nodal.points import operating_point
from hardware_models.nodal.transients import transient
from hardware_models.nodal.transistor_law import TransistorValues, transistor_current
from hardware_models.spice.ngspice import ngspice_operating_point, ngspice_transient, run_ngspice
from physics_ep.errors import InputError
from tests.support.circuits import V
from tests.support.tiers import first
from tests.support.transistors import NMOS, transistor_circuit

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")


def current(sign: float, gate: float, drain: float, bulk: float, **changed: float) -> float:
    """Amperes of KP W / L = 1 mA/V^2, VTO = 1 V, LAMBDA = 0.1 / V, GAMMA = 0.5, PHI = 0.64 V."""
    values = TransistorValues(1e-4, sign, 0.1, 1e-5, 1e-6, 0.5, 0.64)._replace(**changed)
    found = transistor_current(np, sign, *(np.array(v) for v in (gate, drain, bulk)), values)
    return float(found.current)


def test_the_law_region_by_region_by_hand() -> None:
    """Closed forms: else a region has another's law, or source and drain do not change places."""
    assert current(1, 0.99, 2.0, 0.0) == 0.0
    assert current(1, 2.0, 0.4, 0.0) == pytest.approx(1e-3 * 0.4 * (1.0 - 0.2) * 1.04, rel=1e-14)
    assert current(1, 2.0, 3.0, 0.0) == pytest.approx(0.5e-3 * 1.3, rel=1e-14)
    raised = 0.5 * (np.sqrt(0.64 + 1.5) - 0.8)
    assert current(1, 2.5, 3.0, -1.5) == pytest.approx(0.5e-3 * (1.5 - raised) ** 2 * 1.3, rel=1e-14)
    lowered = 0.5 * (0.8 - 0.2 / 1.6 - 0.8)  # forward: the root's tangent
    assert current(1, 2.0, 3.0, 0.2) == pytest.approx(0.5e-3 * (1 - lowered) ** 2 * 1.3, rel=1e-14)
    # Drain below source: the gate counts from the drain, and the current turns.
    assert current(1, 1.0, -1.0, -1.0) == pytest.approx(-current(1, 2.0, 1.0, 0.0), rel=1e-14)
    for voltages in ((2.0, 0.4, -0.3), (2.0, 3.0, 0.1), (1.0, -1.0, -1.0)):
        assert current(-1, *(-v for v in voltages)) == pytest.approx(-current(1, *voltages), rel=1e-14)
    # Without modulation and body effect it is a difference of a function of each end (what makes it no resistor).
    plain = {"modulation": 0.0, "body": 0.0}
    assert current(1, 2.5, 0.7, 0.0, **plain) == pytest.approx(0.5e-3 * (1.5**2 - 0.8**2), rel=1e-13)


def test_slopes_are_autograd_s_and_the_current_is_continuous() -> None:
    """If it fails, Newton's method converges slowly, or the adjoint is wrong."""
    rng = np.random.default_rng(0)
    v = torch.tensor(rng.uniform(-4, 4, (3, 300)), requires_grad=True)
    for sign in (1.0, -1.0):
        values = TransistorValues(*(torch.tensor(x, dtype=torch.float64) for x in NMOS))
        values = values._replace(threshold=sign * values.threshold)
        found = transistor_current(torch, torch.tensor(sign), *v, values)
        for slope, exact in zip(found[1:], torch.autograd.grad(found.current.sum(), v)[0], strict=True):
            torch.testing.assert_close(slope, exact, rtol=1e-12, atol=1e-18)
    sweep = np.linspace(-1, 3, 20_001)
    held = TransistorValues(*NMOS)
    for gate, drain, bulk in ((sweep, 1.5, -0.5), (2.0, sweep, -0.5), (2.0, 1.5, sweep)):
        found = transistor_current(np, 1.0, *(v + 0 * sweep for v in (gate, drain, bulk)), held)
        step = np.abs(np.diff(found.current)).max()
        assert step < 2.02e-4 * max(np.abs(s).max() for s in found[1:])


@needs_ngspice
@pytest.mark.parametrize("seeds", first(1, [range(6), range(6, 36)]))
def test_random_circuits_have_ngspice_s_operating_points(seeds: range) -> None:
    """Both channels, gates as nodes and held, body effect, junctions, in all regions: to 1e-9 V."""
    for seed in seeds:
        parts = transistor_circuit(seed)
        found = operating_point(parts)
        assert found.converged.all(), seed
        theirs = ngspice_operating_point(parts)
        wanted = [theirs[n][0] for n in parts.nodes]
        np.testing.assert_allclose(found.voltages[0], wanted, rtol=0, atol=1e-9, err_msg=str(seed))


NETLISTS = {
    "inverter": (
        "Vdd vdd 0 5", "Vin in 0 2.4", "MP out in vdd vdd pm W=20u L=1u", "MN out in 0 0 nm W=10u L=1u",
        ".model nm NMOS(LEVEL=1 VTO=0.8 KP=5e-5 LAMBDA=0.02 GAMMA=0.4 PHI=0.65)",
        ".model pm PMOS(VTO=-0.9 KP=2e-5 LAMBDA=0.05)",
    ),
    "mirror, series resistances, four in one, copies": (
        "Vdd vdd 0 5", "R1 vdd a 100k", "M1 a a 0 0 nm W=10u L=2u", "M2 b a 0 0 nm W=10u L=2u M=4", "R2 vdd b 20k",
        "X1 vdd a c cell M=3", "R3 c 0 30k", ".subckt cell d g s", "M1 d g s 0 nm W={w} L=1u", ".param w=5u",
        ".ends",
        ".model nm NMOS(LEVEL=1 VT0=0.7 KP=1e-4 LD=0.1u RD=50 RS=100 GAMMA=0.3 IS=1e-15)",
    ),
    "follower without a model's values, off, defaults of W and L": (
        "Vdd vdd 0 5", "Vin in 0 3", "M1 vdd in s 0 nm", "R1 s 0 100k", "M2 vdd 0 t 0 nm off", "R2 t 0 1k",
        ".model nm NMOS LEVEL=1 TOX=20n UO=500 CGSO=1n",
    ),
    "two stages, fed back": (
        "Vdd vdd 0 3.3", "Vp p 0 1.5", "Vin in 0 1.3", "R1 in n 10k", "R2 n out 20k", "Iref vdd b 20u",
        "M8 b b 0 0 nm W=10u L=1u", "M5 t b 0 0 nm W=20u L=1u", "M1 x n t 0 nm W=30u L=1u",
        "M2 y p t 0 nm W=30u L=1u", "M3 x x vdd vdd pm W=15u L=1u", "M4 y x vdd vdd pm W=15u L=1u",
        "M6 out y vdd vdd pm W=150u L=1u", "M7 out b 0 0 nm W=100u L=1u", "Cc y out 2p",
        ".model nm NMOS(LEVEL=1 VTO=0.7 KP=110u GAMMA=0.4 LAMBDA=0.04 PHI=0.7)",
        ".model pm PMOS(LEVEL=1 VTO=-0.7 KP=50u GAMMA=0.57 LAMBDA=0.05 PHI=0.8)",
    ),
    "junctions by area, one forward": (
        "V1 a 0 -0.6", "R1 a b 1k", "M1 b c d 0 nm W=2u L=1u AD=10p AS=20p", "R2 c 0 1k", "R3 d 0 100k",
        ".model nm NMOS(LEVEL=1 JS=1e-4 VTO=0.5 KP=1e-4)",
    ),
}  # fmt: skip


@needs_ngspice
@pytest.mark.parametrize("name", NETLISTS)
def test_netlists_mean_what_they_mean_to_ngspice(name: str, tmp_path: Path) -> None:
    """The very same text, with ngspice's own junctions; and what is written of it, read again."""
    lines = NETLISTS[name]
    path = tmp_path / "net.cir"
    path.write_text("\n".join(["title", *lines, ".end", ""]), encoding="utf-8")
    circuit = Circuit.from_netlist(path, gmin=0.0)
    ours = circuit.node_voltages(circuit.operating_point().require())
    (plot,) = run_ngspice(["title", *lines], ["op"])
    for node, volts in ours.items():
        if node != GROUND and "." not in node:
            assert volts == pytest.approx(plot.columns[f"v({node.lower()})"][0], abs=1e-9), node
    write_netlist(tmp_path / "again.cir", circuit.parts)
    again = Circuit.from_netlist(tmp_path / "again.cir", gmin=0.0)
    back = {p.name: p.values for p in again.parts}
    for part in circuit.parts:
        assert back[part.name] == pytest.approx(part.values, rel=1e-15)


@pytest.mark.full
@needs_ngspice
def test_transient_of_an_inverter_is_ngspice_s() -> None:
    """Transistors in time: a step at the gates, a loaded output."""
    wave = ((0.0, 0.0), (1e-6, 0.0), (1.2e-6, 5.0))
    parts = Parts.collect(
        [
            V("vdd", 5.0),
            Part("Vin", "voltage_source", ("in", GROUND), (0.0,), waveform=wave),
            Part("M1", "nmos", ("out", "in", GROUND, GROUND), (5e-5, 0.8, 0.02, 1e-5, 1e-6, 0.0, 0.6)),
            Part("M2", "pmos", ("out", "in", "vdd", "vdd"), (2e-5, -0.8, 0.02, 2e-5, 1e-6, 0.0, 0.6)),
            Part("C1", "capacitor", ("out", GROUND), (1e-10,)),
        ]
    )
    time, theirs = ngspice_transient(parts, 3e-6, step=2e-9, from_zero=False)
    found = transient(parts, 3e-6, start="operating_point")
    out = parts.nodes.index("out")
    wanted = np.interp(found.time.numpy(), time, theirs["out"])
    np.testing.assert_allclose(found.state[0][:, 0, out], wanted, rtol=0, atol=2e-3)
    assert float(found.power.imbalance.abs().max()) < 1e-9


def test_gates_that_are_held_go_out_and_come_back(tmp_path: Path) -> None:
    """Held gates are sources in a netlist, and parameters again when it is read."""
    parts = transistor_circuit(3)
    held = [p for p in parts if p.kind.endswith("_resistor")]
    assert held
    write_netlist(tmp_path / "net.cir", parts, outputs=["v(n0,n1)"])
    found = load_netlist(tmp_path / "net.cir")
    assert found.outputs == ("v(n0,n1)",)
    assert {p.name: (p.kind, p.nodes, p.values) for p in found.parts if p.name[0] == "M"} == {
        p.name: (p.kind, p.nodes, p.values) for p in parts if p.name[0] == "M"
    }
    drawn = {p.name: (p.kind, p.nodes, p.values) for p in Circuit.from_networkx(Circuit(parts).to_networkx()).parts}
    assert drawn == {p.name: (p.kind, p.nodes, p.values) for p in parts}
    text = (tmp_path / "net.cir").read_text()
    (tmp_path / "other.cir").write_text(text.replace(f"* gates: {held[0].name}", "* gates: M9"))
    with pytest.raises(InputError, match="'M9'"):
        load_netlist(tmp_path / "other.cir")
    loaded = text.replace(".end\n", f"Rload gate_{held[0].name} 0 1k\n.end\n")
    (tmp_path / "loaded.cir").write_text(loaded)
    with pytest.raises(InputError, match="must be held by a voltage source to ground of its own"):
        load_netlist(tmp_path / "loaded.cir")


@pytest.mark.parametrize(
    ("line", "model", "words"),
    [
        ("M1 a b 0 0 nm", ".model nm NMOS(LEVEL=3)", "LEVEL must be 1"),
        ("M1 a b 0 0 nx", ".model nm NMOS(LEVEL=1)", "the model 'nx' is not defined; defined are nm"),
        ("M1 a b 0 0 nm W=0", ".model nm NMOS(LEVEL=1)", "W must be positive, but was 0 m"),
        ("M1 a b 0 0 nm L=-1u", ".model nm NMOS(LEVEL=1)", "L must be positive"),
        ("M1 a b 0 0 nm L=1u", ".model nm NMOS(LEVEL=1 LD=0.5u)", "L less 2 LD must be positive"),
        ("M1 a b 0 0 nm", ".model nm NMOS(LEVEL=1 KP=-1e-5)", "KP must be positive, but was -1e-05"),
        ("M1 a b 0 0 nm", ".model nm NMOS(LEVEL=1 PHI=0)", "PHI must be positive"),
        ("M1 a b 0 0 nm", ".model nm NMOS(LEVEL=1 LAMBDA=-1)", "LAMBDA must not be negative"),
        ("M1 a b 0 nm", ".model nm NMOS(LEVEL=1)", "drain, gate, source and bulk must be named"),
        ("M1 a b nm", ".model nm NMOS(LEVEL=1)", "but found 2 nodes"),
        ("M1 a b 0 0 nm", ".model nm NPN(BF=100)", "a transistor needs NMOS or PMOS"),
        ("M1 a b 0 0 nm", ".model nm NMOS(NSUB=1e16 TOX=10n)", "NSUB is not read"),
        ("M1 a b 0 0 nm", ".model nm NMOS(VTHO=1)", "have no VTHO here"),
        ("M1 a b 0 0 nm X=1", ".model nm NMOS()", "X= is not read here"),
        ("M1 a b 0 0 nm", ".model nm NMOS()\n.temp 50", "27 degrees"),
        ("M1 a g 0 0 nm", ".model nm NMOS()", "'g', which floats"),
    ],
)
def test_bad_lines_are_refused_in_one(line: str, model: str, words: str, tmp_path: Path) -> None:
    """One line that says what must change."""
    path = tmp_path / "net.cir"
    path.write_text("\n".join(["title", "V1 a 0 1", "R1 b 0 1k", line, model, ".end", ""]), encoding="utf-8")
    with pytest.raises(InputError, match=words) as caught:
        Circuit.from_netlist(path)
    assert "\n" not in str(caught.value)
