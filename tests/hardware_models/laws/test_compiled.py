"""Compiled kernels on graphs against plain numpy and 40-digit arithmetic, and their cache on disk."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

from hardware_models.hopfield import graph_kernels as kernels
from hardware_models.laws import compiled
from physics_ep import Nudge, SquaredError, units
from physics_ep.system import EnergySystem
from tests.support.graphs import RandomGraph
from tests.support.paths import ROOT

# -- kernels against plain numpy --------------------------------------------------------------------------------


def test_energies_agree_with_numpy():
    """A law applied to the wrong node or edge; the torch energy (for oracles) and the kernel's must be one."""
    case = RandomGraph()
    s = case.state()
    compiled = case.circuit.phase(case.circuit.prepare(case.x)).energy((s,))
    assert np.allclose(compiled, case.energy(s), rtol=0, atol=1e-13)
    assert np.allclose(case.circuit.energy((s,), case.x).detach(), case.energy(s), rtol=0, atol=1e-13)


def test_force_is_minus_the_gradient_of_the_energy():
    """The kernel's drive with a wrong sign, node order or a missed clamped neighbour."""
    case = RandomGraph()
    s = case.state()
    (auto,) = EnergySystem.force(case.circuit, (s,), case.x)
    assert (case.circuit.force((s,), case.x)[0] - auto).abs().max() < 1e-13


def test_sweep_updates_nodes_in_order_and_certifies_what_it_was_given():
    """Jacobi in place of Gauss-Seidel (energy may rise), or the residual of another state than the one returned."""
    case = RandomGraph()
    s = case.state()
    (moved,), (z,), residual = case.circuit.phase(case.circuit.prepare(case.x)).sweep((s,))
    assert z is s
    assert np.allclose(residual, np.abs(case.response(case.drive(s)) - s.numpy()).max(1), rtol=0, atol=1e-14)
    by_hand = s.clone()
    for k in range(len(case.free)):
        by_hand[:, k] = torch.tensor(case.response(case.drive(by_hand))[:, k])
    assert (moved - by_hand).abs().max() < 1e-14


def test_displaced_sweep_is_the_sweep_less_its_origin():
    """One sweep in two forms: the displaced one must take the newest displacements, and the origin's mismatch."""
    case = RandomGraph()
    origin, s = case.state(), case.state()
    inputs = case.circuit.prepare(case.x)
    (moved,), _, residual = case.circuit.phase(inputs).sweep((s,))
    (d,), _, displaced_residual = case.circuit.phase(inputs, origin=(origin,)).sweep((s - origin,))
    assert (origin + d - moved).abs().max() < 1e-14
    assert (residual - displaced_residual).abs().max() < 1e-14


@pytest.mark.parametrize(
    ("beta", "gain", "kinds"),
    [
        (0.0, 0.9, ("hard_sigmoid", "tanh", "logistic")),
        (0.7, 0.9, ("hard_sigmoid",)),
        (-0.2, 0.2, ("linear", "hard_sigmoid")),
    ],
)
def test_a_sweep_never_raises_the_energy(beta, gain, kinds):
    """Each update must be the exact minimum over its node, nudged outputs included, and under strong couplings."""
    case = RandomGraph(seed=3, gain=gain, kinds=kinds)
    nudge = Nudge(SquaredError(), case.y, beta)
    phase = case.circuit.phase(case.circuit.prepare(case.x))
    if beta:
        phase = phase.nudged(nudge)
    u = (case.state(),)
    for _ in range(30):
        before = case.energy(u[0]) + nudge.energy(case.circuit.outputs(u)).numpy()
        u, _, _ = phase.sweep(u)
        after = case.energy(u[0]) + nudge.energy(case.circuit.outputs(u)).numpy()
        assert (after <= before + 1e-13 * (1 + np.abs(before))).all()


def test_results_do_not_depend_on_threads_chunks_or_company():
    """A race between chunks, or an example that leaks into its neighbour's."""
    case = RandomGraph()
    circuit = case.circuit
    x = torch.randn(37, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u = circuit.initial_state(x)
    whole = circuit.phase(circuit.prepare(x)).sweep(u)[0][0]
    kernels.numba.set_num_threads(compiled.config.NUMBA_NUM_THREADS)
    assert torch.equal(circuit.phase(circuit.prepare(x)).sweep(u)[0][0], whole)
    alone = circuit.phase(circuit.prepare(x[20:21])).sweep((u[0][20:21],))[0][0]
    assert torch.equal(alone[0], whole[20])


def test_contrast_is_the_difference_of_energy_gradients():
    """A wrong sign, a missing half, free and clamped ends confused, or the weight of an example forgotten."""
    case = RandomGraph()
    s, plus, minus = case.state(), 0.1 * case.state() - 0.05, 0.1 * case.state() - 0.05
    weight = torch.tensor([1.0, 0.5, -0.3, 2.0, 0.0, 0.1, 0.7], dtype=torch.float64)
    for down in (minus, None):
        got = case.circuit.contrast((s,), (plus,), None if down is None else (down,), case.x, weight)
        low = s if down is None else s + down
        for k in range(len(case.edges)):
            bump = np.zeros(len(case.edges))
            bump[k] = 0.5
            by_weight = [
                (case.energy(v, case.weights + bump) - case.energy(v, case.weights - bump)) for v in (s + plus, low)
            ]
            assert float(got["weight"][k]) == pytest.approx(
                weight.numpy() @ (by_weight[0] - by_weight[1]), abs=1e-12
            )
        assert torch.allclose(got["bias"], weight @ (low - s - plus), rtol=0, atol=1e-14)


@mpmath.workdps(40)
def test_contrast_keeps_its_digits():
    """A difference of products would lose nine of sixteen digits at displacements of 1e-9."""
    case = RandomGraph()
    s, plus, minus = case.state(), 1e-9 * case.state(), -1e-9 * case.state()
    got = case.circuit.contrast((s,), (plus,), (minus,), case.x, torch.ones(7, dtype=torch.float64))["weight"]
    base, up, down = (case.values(v) for v in (s, plus, minus))
    up[:, case.inputs] = down[:, case.inputs] = 0
    for k, (i, j) in enumerate(case.edges):
        total, size = mpmath.mpf(0), mpmath.mpf(0)
        for b in range(7):
            (vi, pi, mi), (vj, pj, mj) = ([mpmath.mpf(v[b, q]) for v in (base, up, down)] for q in (i, j))
            change = -((vi + pi) * (vj + pj) - (vi + mi) * (vj + mj))
            total, size = total + change, size + abs(change)
        assert abs(got[k].item() - total) <= 1e-15 * size + mpmath.mpf(10) ** -40


# -- the compiled code's cache ----------------------------------------------------------------------------------

PROBE = """
import numpy as np
from hardware_models.hopfield import graph_kernels as kernels
from hardware_models.laws import compiled
one = np.ones(1)
graph = kernels.build_graph(np.array([[0, 1]]), np.zeros(1), np.ones(1))
drive = kernels.drives(np.ones((1, 2)), 3 * one, 0 * one, graph)[0, 0]
print(kernels.__file__, drive, sum(kernels.drives.__wrapped__.stats.cache_hits.values()), compiled.CACHE, sep="|")
"""


def has_kernels(path: Path) -> bool:
    """Whether a function of a file is compiled."""
    compiling = {"kernel", "sequential", "inner", "summing", "summing_inner"}
    return any(
        isinstance(node, ast.FunctionDef) and any(getattr(d, "id", None) in compiling for d in node.decorator_list)
        for node in ast.walk(ast.parse(path.read_text()))
    )


def imported(path: Path, package: Path) -> set[Path]:
    """Files of the package that a file takes names from at its top."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            found |= {folder / f"{alias.name}.py" for alias in node.names} | {folder.with_suffix(".py")}
    return {other for other in found if other.is_file() and other.is_relative_to(package)}


def test_the_cache_is_keyed_by_every_file_that_kernels_inline(tmp_path):
    """Breaks if an edit of a file that kernels inline leaves them stale, or any other edit compiles them anew."""
    package = tmp_path / "hardware_models"
    shutil.copytree(compiled.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    every = sorted(package.rglob("*.py"))
    compiling = {path for path in every if has_kernels(path)}
    assert len(compiling) > 5
    # What they inline, and what that inlines.
    inlined, found = set(compiling), compiling
    while found:
        found = set().union(*(imported(path, package) for path in found)) - inlined
        inlined |= found
    before = compiled.digest(package)
    changing = set()
    for path in every:
        text = path.read_bytes()
        path.write_bytes(text + b"\n")
        if compiled.digest(package) != before:
            changing.add(path)
        path.write_bytes(text)
    assert changing == inlined
    assert compiled.digest(package) == before


def test_the_cache_is_keyed_by_the_laws_of_units(tmp_path, monkeypatch):
    """The laws of units stand in another package: an edit there must compile kernels anew, too."""
    before = compiled.digest()
    assert Path(units.__file__) in compiled.sources()
    edited = tmp_path / "units.py"
    edited.write_bytes(Path(units.__file__).read_bytes() + b"\n")
    monkeypatch.setattr(compiled, "UNIT_LAWS", edited)
    assert compiled.digest() != before


@pytest.mark.slow
def test_an_edited_law_never_runs_stale(tmp_path):
    """numba's cache watches the kernels' file alone: after an edit of a law it would run the old physics."""
    package = tmp_path / "hardware_models"
    for file in ("__init__.py", "hopfield/__init__.py", "hopfield/graph_kernels.py"):
        (package / file).parent.mkdir(exist_ok=True)
        shutil.copy(compiled.PACKAGE / file, package / file)
    shutil.copytree(compiled.PACKAGE / "laws", package / "laws", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "blocked").write_text("not a folder")

    def probe(cache: str) -> list[str]:
        paths = f"{tmp_path}{os.pathsep}{ROOT}"
        environment = {**os.environ, "PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(tmp_path / cache)}
        run = subprocess.run(
            [sys.executable, "-c", PROBE], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return run.stdout.strip().split("|")

    file, drive, hits, _ = probe("cache")
    assert file.startswith(str(tmp_path))
    assert (drive, hits) == ("3.0", "0")
    assert probe("cache")[1:3] == ["3.0", "1"]
    law = package / "laws" / "couplings.py"
    text = law.read_text()
    assert text.count("return -w * b\n") == 1
    law.write_text(text.replace("return -w * b\n", "return -9 * b\n"))
    assert probe("cache")[1] == "9.0"
    # A cache that cannot be written costs the compilation, not the run.
    assert probe("blocked")[1:] == ["9.0", "0", "None"]


@pytest.mark.parametrize(("rows", "wanted"), [(0, 1), (1, 1), (3, 3), (8, 8), (100, 8)])
def test_kernels_wake_no_more_threads_than_they_have_rows(
    monkeypatch: pytest.MonkeyPatch, rows: int, wanted: int
) -> None:
    """As many of eight threads work as there are rows, and all are there again afterwards, after a failure too. If
    this fails, threads without work spin on cores that someone else may use."""
    threads = [8]
    monkeypatch.setattr(compiled.numba, "get_num_threads", lambda: threads[0])
    monkeypatch.setattr(compiled.numba, "set_num_threads", lambda count: threads.__setitem__(0, count))

    def fails(given: np.ndarray) -> None:
        raise ValueError("failed")

    assert compiled.by_rows(lambda given: threads[0])(np.zeros((rows, 2))) == wanted
    with pytest.raises(ValueError, match="failed"):
        compiled.by_rows(fails)(np.zeros((rows, 2)))
    assert threads == [8]
