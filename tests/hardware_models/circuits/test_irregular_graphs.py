"""Factorisations of irregular graphs: order, fill, the choice, and time beside SuperLU's."""

from __future__ import annotations

import pickle
from importlib.util import find_spec
from statistics import median
from time import process_time

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_array
from scipy.sparse.linalg import splu

from hardware_models import Circuit
from hardware_models.circuits.elimination import fill_of
from hardware_models.circuits.factorizations import Matrix, NotPositive, choose
from physics_ep.errors import InputError
from tests.support.circuits import mixed_circuit


def random_pairs(n: int, degree: float, seed: int = 0) -> np.ndarray:
    """n degree / 2 edges of a random graph, each once."""
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(0, n, (int(0.6 * n * degree), 2)), 1)
    found = np.unique(ends[ends[:, 0] < ends[:, 1]], axis=0)
    return np.ascontiguousarray(found[rng.permutation(len(found))[: int(n * degree / 2)]])


def conductances(n: int, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, csc_matrix]:
    """Diagonal, entries of the pairs, and the whole matrix, of conductances from 1 to 100 uS and leaks of 1 uS."""
    off = -np.exp(np.random.default_rng(1).uniform(np.log(1e-6), np.log(1e-4), len(pairs)))
    diagonal = np.full(n, 1e-6) - np.bincount(pairs.ravel(), np.repeat(off, 2), n)
    a, b = pairs.T
    here = np.arange(n)
    places = (np.concatenate([here, a, b]), np.concatenate([here, b, a]))
    return diagonal, off, csc_matrix((np.concatenate([diagonal, off, off]), places), shape=(n, n))


def superlu(matrix: csc_matrix):
    options = {"SymmetricMode": True}
    return splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)


@pytest.mark.parametrize(("n", "degree"), [(1, 0), (2, 1), (60, 1.5), (300, 3), (300, 8)])
def test_the_predicted_fill_is_that_of_the_elimination(n: int, degree: float) -> None:
    """Patterns of all columns against elimination node by node on sets. Breaks if an element is absorbed too early:
    entries of the factor would be lost."""
    pairs = random_pairs(n, degree)
    graph = csr_array((np.ones(2 * len(pairs)), (pairs.T.ravel(), pairs[:, ::-1].T.ravel())), shape=(n, n))
    fill = fill_of(graph, pairs)
    assert sorted(fill.order) == list(range(n))
    joined = [set(graph.indices[graph.indptr[i] : graph.indptr[i + 1]].tolist()) for i in range(n)]
    position = np.argsort(fill.order)
    for k in range(n - fill.core):
        p = int(fill.order[k])
        wanted = sorted(position[i] for i in joined[p])
        assert fill.below[fill.starts[k] : fill.starts[k + 1]].tolist() == wanted
        for i in joined[p]:
            joined[i] = (joined[i] | joined[p]) - {i, p}
    assert fill.flops == sum((fill.starts[1:] - fill.starts[:-1]).astype(float) ** 2)


@pytest.mark.parametrize(("n", "degree"), [(1000, 3), (1000, 8), (3000, 4)])
def test_random_graphs_take_no_more_than_superlu(n: int, degree: float) -> None:
    """The same solution as SuperLU's to rounding, in at most its processor time: medians of five."""
    pairs = random_pairs(n, degree)
    diagonal, off, full = conductances(n, pairs)
    pattern = choose(n, pairs)
    assert pattern.kind in ("minimum_degree", "cholmod")
    matrix, right = Matrix(pattern, off[None]), np.random.default_rng(2).normal(size=n)
    matrix.factor(diagonal[None]).solve(right[None])
    spent: dict[str, list[float]] = {"own": [], "superlu": []}
    for _ in range(5):
        start = process_time()
        found = matrix.factor(diagonal[None]).solve(right[None])[0]
        middle = process_time()
        wanted = superlu(full).solve(right)
        spent["own"].append(middle - start)
        spent["superlu"].append(process_time() - middle)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12 * np.abs(wanted).max())
    assert median(spent["own"]) <= median(spent["superlu"])


@pytest.mark.slow
@pytest.mark.parametrize(("n", "degree"), [(5000, 6), (10_000, 3), (10_000, 4), (30_000, 3)])
def test_large_random_graphs_take_no_more_than_superlu(n: int, degree: float) -> None:
    test_random_graphs_take_no_more_than_superlu(n, degree)


@pytest.mark.full
def test_the_choice_looks_at_no_band_that_a_hub_makes_wide() -> None:
    """A node that is joined to all others costs the choice less than one factorisation by SuperLU: a look at the
    band, half as wide as the graph, took ten of them."""
    n = 3000
    spokes = np.stack([np.zeros(n - 1, dtype=np.int64), np.arange(1, n)], 1)
    pairs = np.unique(np.concatenate([random_pairs(n, 4), spokes]), axis=0)
    right, (_, _, full) = np.ones(n), conductances(n, pairs)
    assert choose(n, pairs).kind == "minimum_degree"
    spent: dict[str, list[float]] = {"choice": [], "superlu": []}
    for _ in range(3):
        start = process_time()
        choose(n, pairs)
        middle = process_time()
        superlu(full).solve(right)
        spent["choice"].append(middle - start)
        spent["superlu"].append(process_time() - middle)
    assert median(spent["choice"]) <= median(spent["superlu"])


def test_a_matrix_that_is_not_positive_is_told() -> None:
    """In a sparse column and in the core."""
    n, pairs = 300, random_pairs(300, 4)
    diagonal, off, _ = conductances(n, pairs)
    pattern = choose(n, pairs, "minimum_degree")
    assert pattern.fill is not None
    for node in (pattern.fill.order[0], pattern.fill.order[-1]):
        wrong = diagonal.copy()
        wrong[node] = -1e-3
        with pytest.raises(NotPositive):
            Matrix(pattern, off[None]).factor(wrong[None])


def test_layers_and_grids_keep_their_ways() -> None:
    """Narrow layers are banded, wide ones dense after an elimination: no order by degree is looked for."""
    one, other = np.divmod(np.arange(400), 20)
    narrow = np.concatenate([np.stack([20 * k + one, 20 * (k + 1) + other], 1) for k in range(99)])
    assert choose(2000, narrow).kind == "banded"
    one, other = np.divmod(np.arange(200**2), 200)
    wide = np.concatenate([np.stack([200 * k + one, 200 * (k + 1) + other], 1) for k in range(2)])
    pattern = choose(600, wide)
    assert (pattern.kind, len(pattern.first)) == ("dense", 400)


needs_cholmod = pytest.mark.skipif(
    find_spec("sksparse") is None, reason="scikit-sparse is not installed (the extra cholmod)"
)


@needs_cholmod
@pytest.mark.full
@pytest.mark.parametrize(("n", "degree"), [(1000, 3), (1000, 8), (3000, 4), (3000, 6), (10_000, 3)])
def test_random_graphs_take_at_most_half_more_than_cholmod(n: int, degree: float) -> None:
    """Factors and solution by what is chosen, and by scikit-sparse as its users call it: medians of five."""
    from sksparse.cholmod import cholesky

    pairs = random_pairs(n, degree)
    diagonal, off, full = conductances(n, pairs)
    matrix, right = Matrix(choose(n, pairs), off[None]), np.random.default_rng(2).normal(size=n)
    matrix.factor(diagonal[None])
    spent: dict[str, list[float]] = {"own": [], "cholmod": []}
    for _ in range(5):
        start = process_time()
        found = matrix.factor(diagonal[None]).solve(right[None])[0]
        middle = process_time()
        wanted = cholesky(full)(right)
        spent["own"].append(middle - start)
        spent["cholmod"].append(process_time() - middle)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12 * np.abs(wanted).max())
    assert median(spent["own"]) <= 1.5 * median(spent["cholmod"])


@needs_cholmod
def test_cholmod() -> None:
    n, pairs = 300, random_pairs(300, 4)
    diagonal, off, full = conductances(n, pairs)
    pattern = choose(n, pairs, "cholmod")
    matrix, right = Matrix(pattern, off[None]), np.random.default_rng(2).normal(size=(3, n))
    shared = matrix.factor(diagonal[None]).solve(right)
    np.testing.assert_allclose(shared.T, superlu(full).solve(right.T), rtol=1e-10)
    np.testing.assert_allclose(matrix.factor(np.stack([diagonal] * 3)).solve(right), shared, rtol=1e-10)
    again = Matrix(pickle.loads(pickle.dumps(pattern)), off[None])  # without CHOLMOD's analysis, found anew
    np.testing.assert_array_equal(again.factor(diagonal[None]).solve(right), shared)
    for wrong in (-1.0, diagonal[3] / 1e3):
        diagonal[3] = wrong
        with pytest.raises(NotPositive):
            matrix.factor(diagonal[None])


@pytest.mark.skipif(find_spec("sksparse") is not None, reason="scikit-sparse is installed")
def test_cholmod_that_is_not_there_is_told() -> None:
    with pytest.raises(InputError, match="needs scikit-sparse"):
        Circuit(mixed_circuit(4, nodes=20), factorization="cholmod")
