"""Courses of circuits in figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import figures
from hardware_models import Circuit, transient
from physics_ep import simulate

NET = """* a divider with a clamp
V1 in 0 1
R1 in a 10k
R2 a out 20k
R3 out 0 50k
C1 a 0 100p
C2 out 0 50p
.end
"""


def test_transients_name_their_nodes_and_amperes(tmp_path: Path) -> None:
    """If this fails a reader cannot tell the output from other nodes, or takes missing currents for shares."""
    path = tmp_path / "net.cir"
    path.write_text(NET, encoding="utf-8")
    circuit = Circuit.from_netlist(path, outputs=["out"])
    free = transient(circuit, 2e-5, start="zero")
    nudged = transient(circuit, 2e-5, start=free.state[0][-1], nudge=(["out"], [[0.3]], 2e-5))
    axes = figures.draw_trajectories({"free": free, "nudged": nudged}).axes
    named = [line.get_label() for line in axes[0].get_lines() if not line.get_label().startswith("_")]
    assert sorted(named) == ["a", "in", "out"]
    assert axes[2].get_ylabel() == "Residual (A)"


def test_a_course_without_the_circuits_own_capacitors_says_so(tmp_path: Path) -> None:
    """If this fails settling times of a netlist are those of 1 pF at each node, without a word."""
    path = tmp_path / "net.cir"
    path.write_text(NET, encoding="utf-8")
    circuit = Circuit.from_netlist(path, outputs=["out"])
    with pytest.warns(UserWarning, match="own C1, C2: hardware_models.transient"):
        simulate(circuit, torch.ones(1, 1, dtype=torch.float64), 1e-7)
