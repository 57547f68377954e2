"""Graphs from Gset files and the machines that seek their largest cut, beside brute force and plain loops."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
import torch
from scipy.sparse import coo_array, csr_array

from hardware_models import OscillatorGraph
from hardware_models.oscillators.gset import WeightedGraph, read_gset
from hardware_models.oscillators.max_cut import MACHINES, SCHEDULES, SPREAD, max_cut, phasors, torque
from physics_ep.cli import main
from physics_ep.errors import InputError


def random_graph(n: int, m: int, seed: int, weights: str = "ones") -> WeightedGraph:
    draws = np.random.default_rng(seed)
    pairs = np.stack(np.triu_indices(n, 1), 1)[draws.choice(n * (n - 1) // 2, m, replace=False)]
    w = {"ones": np.ones(m), "signs": draws.choice([-1.0, 1.0], m), "reals": draws.standard_normal(m)}[weights]
    return WeightedGraph(n, pairs, w)


def in_networkx(graph: WeightedGraph) -> networkx.Graph:
    out = networkx.Graph()
    out.add_nodes_from(range(graph.n))
    out.add_weighted_edges_from((*e, w) for e, w in zip(graph.edges.tolist(), graph.weights.tolist(), strict=True))
    return out


def largest_cut(graph: WeightedGraph) -> float:
    """The largest of all divisions, by the Laplacian: s L s / 4."""
    laplacian = networkx.laplacian_matrix(in_networkx(graph)).toarray()
    signs = np.array([(1, *rest) for rest in itertools.product((1, -1), repeat=graph.n - 1)], np.float64)
    return float(np.einsum("si,si->s", signs @ laplacian, signs).max() / 4)


# -- machines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("n", "m", "weights"),
    [(13, 20, "ones"), (14, 91, "signs"), (12, 40, "reals"), (16, 30, "signs"), (2, 1, "ones")],
)
def test_largest_cuts_of_small_graphs_are_found(machine: str, n: int, m: int, weights: str) -> None:
    """A machine with a wrong sign, or cuts of other spins than those told, gives numbers that look right."""
    graph = random_graph(n, m, seed=n, weights=weights)
    found = max_cut(graph, machine=machine, starts=30)
    assert set(found.spins.unique().tolist()) <= {-1, 1}
    known = in_networkx(graph)
    for spins, value in zip(found.spins.tolist(), found.cut.tolist(), strict=True):
        side = {i for i in range(n) if spins[i] > 0}
        assert value == pytest.approx(networkx.cut_size(known, side, weight="weight"), abs=1e-12)
    assert float(found.cut.max()) == pytest.approx(largest_cut(graph), abs=1e-9)
    assert float(graph.cut(found.best)) == pytest.approx(float(found.cut.max()), abs=1e-12)


def test_phases_turn_as_the_energy_says() -> None:
    """Phases that descend another energy than `OscillatorGraph`'s are another machine."""
    n, starts, k = 40, 3, 0.7
    graph = random_graph(n, 60, 0, "reals")
    system = OscillatorGraph(n, graph.edges, -graph.weights, second_harmonic=k, dense=True).to(dtype=torch.float64)
    phases = torch.rand(starts, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 6
    phases.requires_grad_()
    (slope,) = torch.autograd.grad(system.energy((phases,), torch.zeros(starts, 0)).sum(), phases)
    matrix = -networkx.to_numpy_array(in_networkx(graph))
    for couplings in (matrix, csr_array(matrix)):
        turned = torque(couplings, phasors(phases.detach().numpy().T), k)
        np.testing.assert_allclose(turned.T, -slope, rtol=0, atol=1e-6)


def test_amplitudes_follow_simulated_bifurcation() -> None:
    """One node at a time in plain Python, after Goto et al. (2021): another law finds other cuts at this seed."""
    n, starts, steps = 30, 8, 50
    graph = random_graph(n, 80, 1, "signs")
    w = networkx.to_numpy_array(in_networkx(graph))
    c = np.sqrt((w**2).sum(1))
    c[c == 0] = 1
    draws = np.random.default_rng(5)
    x, y = (SPREAD * (2 * draws.random((n, starts), dtype=np.float32) - 1.0) for _ in range(2))
    for k in range(steps):
        for s in range(starts):
            before = x[:, s].copy()
            for i in range(n):
                y[i, s] += -(1 - k / steps) * before[i] - sum(w[i, j] * before[j] for j in range(n)) / (2 * c[i])
                x[i, s] += y[i, s]
                if abs(x[i, s]) > 1:
                    x[i, s], y[i, s] = np.sign(x[i, s]), 0.0
    found = max_cut(graph, starts=starts, steps=steps, seed=5)
    assert np.array_equal(found.spins.numpy(), np.where(x.T >= 0, 1, -1))


@pytest.mark.parametrize("machine", MACHINES)
def test_small_weights_count_beside_large_ones(machine: str) -> None:
    """An edge that outweighs all others must not leave their nodes to chance, as one unit for all nodes does."""
    ring = [[i, (i + 1) % 14] for i in range(14)]
    pairs = np.stack(np.triu_indices(12, 1), 1)
    draws = np.random.default_rng(0).standard_normal(65)
    for graph in (WeightedGraph(14, [*ring, [0, 7]], [1.0] * 14 + [1e4]), WeightedGraph(12, pairs, [1e6, *draws])):
        best = float(max_cut(graph, machine=machine).cut.max())
        assert best == pytest.approx(largest_cut(graph), abs=1e-8)


@pytest.mark.parametrize("machine", MACHINES)
def test_noise_schedules_and_seeds(machine: str) -> None:
    """An option that does nothing, or draws that differ from run to run, would not be noticed otherwise."""
    graph = random_graph(60, 300, 2)

    def run(**options: Any) -> list[int]:
        return max_cut(graph, machine=machine, starts=5, steps=60, **options).spins.flatten().tolist()

    plain = run()
    assert run() == plain
    assert run(schedule=[0, 1]) == plain
    for other in ({"noise": 0.3}, {"seed": 1}, {"schedule": [0.0, 0.1, 1.0]}):
        assert run(**other) != plain, other
        assert run(**other) == run(**other)
    assert len({tuple(run(schedule=name)) for name in SCHEDULES}) == len(SCHEDULES)


def test_scale_of_weights_does_not_matter() -> None:
    """Weights beyond float32's range must not become infinite or zero on the way."""
    graph = random_graph(20, 60, 3)
    plain = max_cut(graph, steps=50)
    for scale in (1e-200, 1e200):
        scaled = max_cut(WeightedGraph(20, graph.edges, scale * graph.weights), steps=50)
        assert torch.equal(scaled.spins, plain.spins)
        assert scaled.cut.tolist() == pytest.approx([scale * cut for cut in plain.cut.tolist()], rel=1e-12)
    assert max_cut(WeightedGraph(3, [])).cut.tolist() == [0.0] * 20


@pytest.mark.full
def test_as_fast_as_ten_lines_of_numpy() -> None:
    """Loops over starts or nodes, or steps that cost more than their product, show here (processor time)."""
    n, m, starts, steps = 800, 4694, 20, 300
    graph = random_graph(n, m, 0)
    i, j = graph.edges.numpy().T
    half = coo_array((np.ones(m, np.float32), (i, j)), shape=(n, n))
    w = csr_array(half + half.T)

    def ten_lines(seed: int) -> float:
        draws = np.random.default_rng(seed)
        x, y = (draws.uniform(-0.1, 0.1, (n, starts)).astype(np.float32) for _ in range(2))
        c0 = np.float32(0.5 * np.sqrt(n - 1) / np.sqrt(2 * m))
        for k in range(steps):
            y += np.float32(k / steps - 1) * x - c0 * (w @ x)
            x += y
            out = np.abs(x) > 1
            x[out], y[out] = np.sign(x[out]), 0
        return float((np.sign(x[i]) != np.sign(x[j])).sum(0).mean())

    ratios, cuts = [], []
    for seed in range(9):
        start = time.process_time()
        known = ten_lines(seed)
        middle = time.process_time()
        mean = float(max_cut(graph, starts=starts, steps=steps, seed=seed).cut.mean())
        ratios.append((time.process_time() - middle) / (middle - start))
        cuts.append(mean - known)
    assert statistics.median(ratios) < 1.5
    assert statistics.mean(cuts) > -3, "of about 3347"


# -- files ------------------------------------------------------------------------------------------------------


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_gset_file(tmp_path: Path) -> None:
    """Nodes counted from another number, or weights that lose digits, make another graph."""
    graph = read_gset(written(tmp_path / "g", "4 3\n1 2 1\n 3\t2  -1 \r\n4 1 0.1\n\n"))
    assert graph.n == 4
    assert {(*sorted(e), w) for e, w in zip(graph.edges.tolist(), graph.weights.tolist(), strict=True)} == {
        (0, 1, 1.0), (1, 2, -1.0), (0, 3, 0.1),
    }  # fmt: skip
    assert float(graph.cut(torch.tensor([1, -1, 1, -1]))) == pytest.approx(0.1)
    assert read_gset(written(tmp_path / "none", "3 0")).n == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        (b"\xff\xfe\x00", "no text file"),
        ("4\n1 2 1\n", "'n m'.*'4' in line 1"),
        ("4 3 2\n", "'n m'"),
        ("0 0\n", "'n m'"),
        ("-4 1\n1 2 1\n", "'n m'"),
        ("4.0 1\n1 2 1\n", "'n m'"),
        ("n m\n", "'n m'"),
        ("4 2\n1 2 1\n", "2 edges .* 1 lines"),
        ("4 1\n1 2 1\n2 3 1\n", "1 edges .* 2 lines"),
        ("4 1\n1 2\n", "'i j w'.*'1 2' in line 2"),
        ("4 1\n1 2 1 1\n", "'i j w'"),
        ("4 1\n1 2 x\n", "'i j w'"),
        ("4 1\n1 2 nan\n", "'i j w'"),
        ("4 1\n1 2 1e999\n", "'i j w'"),
        ("4 1\n1 2 1_0\n", "'i j w'"),
        ("4 1\n1.0 2 1\n", "'i j w'"),
        ("4 1\n-1 2 1\n", "'i j w'"),
        ("4 1\n0 2 1\n", "from 1 to 4"),
        ("4 1\n1 5 1\n", "from 1 to 4"),
        ("4 1\n3 3 1\n", "different nodes"),
        ("4 2\n1 2 1\n2 1 1\n", r"once \(line 2\).* in line 3"),
        ("99999999999 0\n", "n must be an integer from 1"),
        ("4 2\n1 2 1e308\n1 3 1e308\n", "finite sum"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    """A file that is not what it seems would give the cut of some other graph."""
    with pytest.raises(InputError, match=message) as told:
        read_gset(written(tmp_path / "g", text))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"machine": "laser"}, "machine must be one of bifurcation, phase"),
        ({"starts": 0}, "starts must"),
        ({"starts": True}, "starts must"),
        ({"starts": 10**15}, "starts must fit in memory"),
        ({"steps": 1.5}, "steps must"),
        ({"seed": -1}, "seed must"),
        ({"noise": float("nan")}, "noise must"),
        ({"noise": -0.1}, "noise must"),
        ({"noise": 1e40}, "noise must"),
        ({"schedule": "linaer"}, "Did you mean 'linear'"),
        ({"schedule": [0, 2]}, "schedule must"),
        ({"schedule": []}, "schedule must"),
        ({"schedule": [float("nan")]}, "schedule must"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    """A run that was not meant ends in spins as any other does."""
    with pytest.raises(InputError, match=message):
        max_cut(random_graph(5, 6, 0), **options)
    with pytest.raises(InputError, match="WeightedGraph"):
        max_cut([[0, 1]])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="spins must"):
        random_graph(5, 6, 0).cut(torch.ones(4))


def test_command_tells_the_cut_of_every_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`anneal` prints what `max_cut` finds, and writes nothing where it refuses."""
    graph = random_graph(30, 100, 4, "signs")
    lines = [
        f"{i + 1} {j + 1} {w:g}" for (i, j), w in zip(graph.edges.tolist(), graph.weights.tolist(), strict=True)
    ]
    file = written(tmp_path / "g", "\n".join(["30 100", *lines]))
    out = tmp_path / "cuts.json"
    options = ["--starts", "7", "--steps", "50", "--noise", "0.2", "--schedule", "0,0.5,1", "--machine", "phase"]
    with pytest.raises(SystemExit) as ended:
        main(["anneal", str(file), *options, "--seed", "3", "--json", str(out)])
    assert ended.value.code == 0
    told = json.loads(out.read_text())
    known = max_cut(graph, machine="phase", starts=7, steps=50, noise=0.2, schedule=[0, 0.5, 1], seed=3)
    assert told["cuts"] == known.cut.tolist()
    assert float(graph.cut(torch.tensor(told["best_spins"]))) == told["best_cut"] == max(told["cuts"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [[str(k), f"{cut:.10g}"] for k, cut in enumerate(told["cuts"])] == [
        r for r in rows if r[:1] and len(r) == 2 and r[0].isdigit() and r[1].isdigit()
    ]

    fresh = tmp_path / "fresh.json"
    for bad in (
        [str(tmp_path / "absent")],
        [str(tmp_path)],
        [str(file), "--noise", "-1"],
        [str(file), "--device", "cuda"],
        [str(file), "--dtype", "float64"],
        [str(file), "--schedule", "up"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(["anneal", *bad, "--json", str(fresh)])
        assert ended.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
        assert not fresh.exists()
