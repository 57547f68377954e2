"""Verilog-A modules of cells and paired units: compiled by openvaf-r and run in VACASK, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import hardware_models.spice.ngspice as spice
from hardware_models import Circuit

MODULES = Path(spice.__file__).with_name("modules.va")
SYSTEM = f"""two paired units
load "{MODULES}"
model v vsource
model cell ep_cell
model unit ep_paired_unit
v1 (x 0) v dc=0.4
v2 (y 0) v dc=-0.3
c1 (x h) cell g=2e-6
c2 (y h) cell g=5e-6
c3 (y u) cell g=5e-6 v0=0.2
u1 (h u p n bp bn) unit leak_h=1e-6 leak_u=2e-6 forward=2 back=3 is=1e-9
c4 (p k) cell g=3e-6
c5 (n l) cell g=2e-6 v0=0.1
u2 (k l p2 n2 ep en) unit leak_h=1e-6 leak_u=4e-6 back=0.5
c6 (ep h) cell g=1e-6
control
  options reltol=1e-10 abstol=1e-16 vntol=1e-13 gmin=1e-20
  analysis out op
endc
"""
NETLIST = """the same in SPICE's language
V1 x 0 0.4
V2 y 0 -0.3
R1 x h 500k
R2 y h 200k
B3 y u I=5e-6*0.2*sinh(v(y,u)/0.2)
R4 h 0 1meg
R5 u 0 500k
D1 0 h d
D2 0 u d
.model d D(IS=1e-9 N=1)
E1 p 0 h 0 2
E2 n 0 h 0 -2
E3 bp 0 h u 3
E4 bn 0 h u -3
R6 p k 333.3333333333333k
B5 n l I=2e-6*0.1*sinh(v(n,l)/0.1)
R7 k 0 1meg
R8 l 0 250k
E5 ep 0 k l 0.5
R9 ep h 1meg
R10 bp 0 1meg
R11 bn 0 1meg
.end
"""


@pytest.mark.full
@pytest.mark.skipif(shutil.which("vacask") is None, reason="VACASK is not installed")
def test_modules_are_the_parts(tmp_path: Path) -> None:
    """Two paired units with cells, rails and feedback: each node in VACASK is ours, to 1e-9 V."""
    (tmp_path / "in.sim").write_text(SYSTEM)
    run = subprocess.run(["vacask", "-qp", "in.sim"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (tmp_path / "out.raw").is_file(), run.stdout + run.stderr
    theirs = spice.read_raw(tmp_path / "out.raw")[0].columns
    (tmp_path / "net.cir").write_text(NETLIST)
    circuit = Circuit.from_netlist(tmp_path / "net.cir")
    ours = circuit.node_voltages(circuit.operating_point(tolerance=1e-15).require())
    for node in ("h", "u", "p", "n", "bp", "bn", "k", "l", "ep"):
        assert float(theirs[node][0]) == pytest.approx(ours[node], abs=1e-9), node
