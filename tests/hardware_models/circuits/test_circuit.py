"""Circuits: operating points against Kirchhoff's laws, closed forms, scipy, and each other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import root
from scipy.special import lambertw

from hardware_models import Circuit
from hardware_models.circuits import newton
from hardware_models.circuits.factorizations import Bordered, Matrix, NotPositive, choose
from hardware_models.laws.elements import THERMAL_VOLTAGE
from hardware_models.netlists.parts import GROUND, Part, Parts
from physics_ep import Status, relax
from tests.support.circuits import (
    R,
    V,
    branch_currents,
    hard_circuit,
    mixed_circuit,
    node_currents,
    solved,
)

# -- closed forms -----------------------------------------------------------------------------------------------


def test_divider_ladder_and_bridge() -> None:
    """Breaks if resistors are stamped with a wrong sign, or siemens are taken for ohms."""
    found = solved(V("in", 3.0), R("in", "mid", 1e3), R("mid", GROUND, 2e3))
    assert found == pytest.approx({GROUND: 0.0, "in": 3.0, "mid": 2.0}, rel=1e-14)
    # A ladder of equal resistors has the ratios of Fibonacci numbers, counted from its end.
    n = 12
    rungs = [R(f"n{k}", f"n{k + 1}", 50.0) for k in range(n)] + [R(f"n{k + 1}", GROUND, 50.0) for k in range(n)]
    found = solved(V("n0", 1.0), *rungs)
    fibonacci = [1, 1]
    while len(fibonacci) <= 2 * n + 1:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    for k in range(n + 1):
        assert found[f"n{k}"] == pytest.approx(fibonacci[2 * (n - k)] / fibonacci[2 * n], rel=1e-13)
    # Wheatstone's bridge, unbalanced: from Kirchhoff's two equations by Cramer's rule.
    r1, r2, r3, r4, r5 = 100.0, 220.0, 330.0, 470.0, 1000.0
    found = solved(
        V("s", 5.0), R("s", "a", r1), R("a", GROUND, r2), R("s", "b", r3), R("b", GROUND, r4), R("a", "b", r5)
    )
    a11, a22, off = 1 / r1 + 1 / r2 + 1 / r5, 1 / r3 + 1 / r4 + 1 / r5, 1 / r5
    det = a11 * a22 - off**2
    assert found["a"] == pytest.approx((5 / r1 * a22 + off * 5 / r3) / det, rel=1e-13)
    assert found["b"] == pytest.approx((a11 * 5 / r3 + off * 5 / r1) / det, rel=1e-13)


@pytest.mark.parametrize("volts", [-3.0, 0.2, 0.7, 5.0, 300.0])
def test_one_diode_by_lambert(volts: float) -> None:
    """Breaks if the diode's law, its limiting or its direction is wrong, from cut-off to hundreds of volts."""
    ohms, saturation, emission = 1e3, 1e-12, 1.3
    found = solved(V("s", volts), R("s", "d", ohms), Part("D", "diode", ("d", GROUND), (saturation, emission)))
    scale = emission * THERMAL_VOLTAGE
    # W(z) with z = c exp(c + V / scale) would overflow: w + log w = log z by Newton's method.
    c = saturation * ohms / scale
    log_z = np.log(c) + c + volts / scale
    w = np.real(lambertw(np.exp(log_z))) if log_z < 500 else log_z - np.log(log_z)
    for _ in range(20):
        w -= (w + np.log(w) - log_z) / (1 + 1 / w)
    current = scale * w / ohms - saturation
    assert found["d"] == pytest.approx(volts - ohms * current, abs=1e-12 * max(1, abs(volts)))


def test_amplifier_chain() -> None:
    """Breaks if an amplifier does not draw 1 / A of what it delivers, or stages are weighted the wrong way."""
    # Each stage sees the next one's load as it is: v(out) = A v(in), i(in) = i(out) / A.
    found = solved(
        V("s", 1.0),
        R("s", "a", 1e3),
        Part("A1", "amplifier", ("a", "b"), (4.0,)),
        R("b", "c", 1e3),
        Part("A2", "amplifier", ("c", "d"), (0.5,)),
        R("d", GROUND, 3e3),
    )
    # From the end: d loads c with 3k, so that b sees 4k, and so does a.
    a = 4 / 5
    assert found == pytest.approx(
        {GROUND: 0.0, "s": 1.0, "a": a, "b": 4 * a, "c": 4 * a * 3 / 4, "d": 0.5 * 4 * a * 3 / 4}, rel=1e-13
    )


# -- laws -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_kirchhoff_power_and_tellegen(seed: int) -> None:
    """Breaks if the certified residual is not the current that is really missing, counted from the parts list."""
    parts = mixed_circuit(seed, nodes=5 + 8 * seed)
    circuit = Circuit(parts)
    point = circuit.operating_point().require()
    assert float(point.residual_si) <= 1e-12
    v = np.array(list(circuit.node_voltages(point).values()))
    leaving = node_currents(parts, v)
    # Sources make up for what is missing at their nodes: V0 and V1 at their own, V2 between a and b.
    names = {name: k for k, name in enumerate(parts.nodes)}
    a, b = names["a"], names["b"]
    held = [0, names["s0"], names["s1"], a, b]
    assert np.abs(np.delete(leaving, held)).max(initial=0) <= 1e-12
    assert abs(leaving[a] + leaving[b]) <= 1e-12
    delivered = leaving[names["s0"]] * v[names["s0"]] + leaving[names["s1"]] * v[names["s1"]]
    delivered += leaving[a] * (v[a] - v[b])
    ends, flow = branch_currents(parts, v)
    across = v[ends[:, 0]] - v[ends[:, 1]]
    dissipated = across @ flow
    assert delivered == pytest.approx(dissipated, rel=1e-11, abs=1e-12)
    # Tellegen: the voltages of any other circuit on the same graph, with the currents of this one.
    other = np.random.default_rng(seed).normal(size=len(v))
    other[0] = 0
    assert (other[ends[:, 0]] - other[ends[:, 1]]) @ flow == pytest.approx(other @ leaving, abs=1e-12)


def linear_grid(seed: int, side: int = 6) -> Circuit:
    """A square grid of random resistors with a current source; corners are inputs."""
    rng = np.random.default_rng(seed)
    number = np.arange(side * side).reshape(side, side)
    edges = np.concatenate(
        [
            np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], 1),
            np.stack([number[:-1].ravel(), number[1:].ravel()], 1),
        ]
    )
    return Circuit.from_edges(
        side * side,
        edges,
        10 ** rng.uniform(-5, -3, len(edges)),
        inputs=[0, side - 1, side * side - 1],
        outputs=[side + 2, 2 * side + 3],
        biases=np.zeros(side * side - 3),
    )


def test_linear_circuits() -> None:
    """Superposition, scaling of conductances, reciprocity and the maximum principle: breaks if any is not exact."""
    circuit = linear_grid(0)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def volts(y: torch.Tensor) -> torch.Tensor:
        point = circuit.operating_point(y).require()
        return torch.stack(list(circuit.node_voltages(point).values()), 1)

    first = volts(x)
    assert torch.allclose(volts(2 * x[:2] - 3 * x[2:]), 2 * first[:2] - 3 * first[2:], rtol=0, atol=1e-13)
    inner, outer = first[:, 1:], x
    assert bool((inner.amax(1) <= outer.amax(1) + 1e-14).all())
    assert bool((inner.amin(1) >= outer.amin(1) - 1e-14).all())
    with torch.no_grad():
        circuit.conductance.mul_(37.5)
    assert torch.allclose(volts(x), first, rtol=0, atol=1e-13)
    # Reciprocity: the voltage at j per ampere into i is that at i per ampere into j.
    answers = []
    for i, j in itertools.permutations([4, 9], 2):
        with torch.no_grad():
            assert circuit.current is not None
            circuit.current.zero_()
            circuit.current[i] = 1e-3
        free = circuit.parts.group("current_source").nodes[j, 1]
        answers.append(float(volts(torch.zeros(1, 3, dtype=torch.float64))[0, free]))
    assert answers[0] == pytest.approx(answers[1], rel=1e-12)
    assert answers[0] > 0


@pytest.mark.parametrize("seed", range(4))
def test_against_scipy(seed: int) -> None:
    """Breaks if Newton's method ends anywhere else than a generic root finder on the parts list does."""
    parts = mixed_circuit(seed, nodes=12)
    circuit = Circuit(parts)
    mine = np.array(list(circuit.node_voltages(circuit.operating_point().require()).values()))
    names = {name: k for k, name in enumerate(parts.nodes)}
    fixed = {0: 0.0, names["s0"]: mine[names["s0"]], names["s1"]: mine[names["s1"]]}
    a, b = names["a"], names["b"]
    free = [k for k in range(len(mine)) if k not in fixed and k != b]
    gap = parts.group("voltage_source").values[2, 0]

    def missing(u: np.ndarray) -> np.ndarray:
        v = np.zeros(len(mine))
        for k, value in fixed.items():
            v[k] = value
        v[free] = u
        v[b] = v[a] - gap
        leaving = node_currents(parts, v)
        leaving[a] += leaving[b]
        return 1e3 * leaving[free]

    # From nearby, since scipy's method does not come home from 0 V where there are diodes.
    start = mine[free] + 0.02 * np.random.default_rng(seed).normal(size=len(free))
    found = root(missing, start, method="hybr", options={"xtol": 1e-14})
    assert np.abs(found.x - mine[free]).max() <= 1e-9


def test_batches_are_examples_one_by_one() -> None:
    """Breaks if an example sees the others: shared factorisations, limiting, steps that are not taken."""
    circuit = Circuit(mixed_circuit(3, nodes=20))
    x = torch.from_numpy(np.random.default_rng(0).uniform(-2, 2, (7, 3)))
    together = circuit.node_voltages(circuit.operating_point(x).require())
    for row in range(7):
        alone = circuit.node_voltages(circuit.operating_point(x[row : row + 1]).require())
        for name, value in together.items():
            assert abs(float(value[row] - alone[name][0])) <= 1e-9
    own = circuit.node_voltages(circuit.operating_point())
    assert all(isinstance(value, float) for value in own.values())


def test_linear_circuits_take_one_step() -> None:
    """Breaks if a part between tied nodes is stamped as if they were free: the first step then misses."""
    parts = [V("s", 1.0), Part("F", "voltage_source", ("a", "b"), (0.5,)), R("s", "a", 1e3), R("b", GROUND, 2e3)]
    parts += [R("a", "b", 100.0), Part("A", "amplifier", ("b", "c"), (3.0,)), R("c", GROUND, 1e4)]
    circuit = Circuit(Parts.collect(parts))
    point = circuit.operating_point().require()
    assert point.iterations == 2
    # One unknown: the resistor across the source draws from it alone.
    b = (0.5 / 1e3) / (1 / 1e3 + 1 / 2e3 + 1 / 1e4)
    assert circuit.node_voltages(point)["b"] == pytest.approx(b, rel=1e-13)


def test_large_currents_are_held_to_rounding() -> None:
    """Breaks if a picoampere is asked of kiloamperes, which no float64 can tell."""
    parts = [V("s", 1e3), R("s", "a", 1e-3), R("a", GROUND, 1e-3), Part("D", "diode", ("a", GROUND), (1e-9, 1.0))]
    circuit = Circuit(Parts.collect(parts))
    point = circuit.operating_point().require()
    assert float(point.residual_si) <= 1e-13 * 4e6


@pytest.mark.parametrize("siemens", [1e-9, 1e-6])
def test_small_conductances_are_settled_to_picovolts(siemens: float) -> None:
    """Breaks if a picoampere, a millivolt to a nanosiemens, is let pass: volts do not depend on the unit."""
    rng = np.random.default_rng(4)
    for _ in range(10):
        values, volts = 10 ** rng.uniform(-1, 1, 8), rng.uniform(0.2, 3)
        found = []
        for unit in (siemens, 1.0):
            g = (values * unit).tolist()
            parts = [V("s", volts), Part("D1", "diode", ("a", "b"), (g[5] * 1e-9, 1.2))]
            ends = ("s", "a"), ("a", GROUND), ("b", GROUND), ("b", "s"), ("a", "b")
            parts += [Part(f"R{k}", "resistor", pair, (g[k],)) for k, pair in enumerate(ends)]
            parts.append(Part("D2", "diode", ("b", GROUND), (g[6] * 1e-6, 1.0)))
            found.append(list(solved(*parts).values()))
        assert np.abs(np.subtract(*found)).max() < 1e-12


@pytest.mark.parametrize("limited", [0, 15])
def test_hard_circuits(limited: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if Newton's method is lost where diodes see hundreds of volts, or damped steps alone do not arrive."""
    monkeypatch.setattr(newton, "LIMITED_STEPS", limited)
    for seed in range(40):
        parts = hard_circuit(seed)
        circuit = Circuit(parts)
        point = circuit.operating_point()
        assert point.status is Status.CONVERGED, seed
        v = np.array(list(circuit.node_voltages(point).values()))
        allowed = 1e-12 + 1e-12 * np.abs(branch_currents(parts, v)[1]).sum()
        assert np.abs(node_currents(parts, v)[3:]).max() <= allowed


def test_damped_steps_descend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a damped step is taken whole where that raises the co-content."""
    monkeypatch.setattr(newton, "LIMITED_STEPS", 0)
    # A milliampere into diodes that are off: Newton's first step goes towards a megavolt.
    parts = [V("s", 0.0), R("a", GROUND, 1e9), R("a", "b", 10.0), R("b", "s", 1e9)]
    parts += [Part(f"D{n}", "diode", (n, GROUND), (1e-15, 1.0)) for n in "ab"]
    parts.append(Part("I", "current_source", (GROUND, "a"), (1e-3,)))
    found = relax(Circuit(Parts.collect(parts)), torch.zeros(1, 1, dtype=torch.float64), trace=True).require()
    assert found.trace is not None
    assert bool((found.trace.energy[:, 0].diff() <= 1e-18).all())


# -- ideal diodes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_ideal_diodes_by_enumeration(seed: int) -> None:
    """Breaks if an active set is wrong: the one whose bounds and forces are consistent is found by trying all."""
    rng = np.random.default_rng(seed)
    n = 7
    g = np.triu(10 ** rng.uniform(-4, -3, (n, n)), 1)
    load, into = 10 ** rng.uniform(-4, -3, n), rng.normal(0, 1e-3, n)
    at, above = rng.permutation(n)[:5], rng.random(5) < 0.5
    level = rng.normal(0, 0.3, 5)
    parts = [R(f"n{i}", f"n{j}", 1 / g[i, j]) for i in range(n) for j in range(i + 1, n)]
    parts += [R(f"n{i}", GROUND, 1 / load[i]) for i in range(n)]
    parts += [Part(f"I{i}", "current_source", (GROUND, f"n{i}"), (into[i],)) for i in range(n)]
    parts += [V(f"b{k}", level[k]) for k in range(5)]
    for k in range(5):
        nodes = (f"n{at[k]}", f"b{k}")
        parts.append(Part(f"D{k}", "ideal_diode", nodes if above[k] else nodes[::-1]))
    circuit = Circuit(Parts.collect(parts))
    point = circuit.operating_point().require()
    found = circuit.node_voltages(point)
    matrix = np.diag(load + g.sum(0) + g.sum(1)) - g - g.T
    consistent = []
    for chosen in itertools.product([False, True], repeat=5):
        held = at[list(chosen)]
        rest = np.setdiff1d(np.arange(n), held)
        v = np.zeros(n)
        v[held] = level[list(chosen)]
        v[rest] = np.linalg.solve(matrix[np.ix_(rest, rest)], into[rest] - matrix[np.ix_(rest, held)] @ v[held])
        force = into - matrix @ v
        sign = np.where(above, 1, -1)
        if (sign * (v[at] - level) <= 1e-12).all() and (sign * force[at] >= -1e-12).all():
            consistent.append(v)
    assert len(consistent) == 1
    assert np.abs(consistent[0] - [found[f"n{i}"] for i in range(n)]).max() <= 1e-11


def test_nodes_that_only_ideal_diodes_hold() -> None:
    """Breaks if a node without a conductor, at rest or pushed onto its bound, takes the others with it."""
    parts = [V("s", -5.0), R("s", "o", 1e3), R("o", GROUND, 1e3)]
    for k in range(6):
        parts += [R("s", f"h{k}", 1e3 + k), R(f"h{k}", "o", 2e3)]
        parts.append(Part(f"X{k}", "ideal_diode", ("s", f"q{k}")))
        if k % 2:
            parts.append(Part(f"I{k}", "current_source", (f"q{k}", GROUND), (1e-3,)))
    known = solved(*(p for p in parts if not p.name.startswith(("X", "I"))))
    circuit = Circuit(Parts.collect(parts))
    assert not circuit.unique
    found = circuit.node_voltages(circuit.operating_point().require())
    for name, volts in known.items():
        assert found[name] == pytest.approx(volts, abs=1e-12), name
    assert [found[f"q{k}"] for k in range(6)] == [0.0, -5.0] * 3


def test_ideal_diode_behind_an_amplifier() -> None:
    """Breaks if a bound on an amplified voltage is put to the unknown behind it: 1.5 V allow 0.5 V, by hand."""
    parts = [V("s", 5.0), V("t", 1.5), R("s", "a", 1e3), R("a", GROUND, 1e3), R("b", GROUND, 1e3)]
    parts += [Part("A", "amplifier", ("a", "b"), (3.0,)), Part("X", "ideal_diode", ("b", "t"))]
    found = solved(*parts)
    assert (found["a"], found["b"]) == (pytest.approx(0.5, rel=1e-14), pytest.approx(1.5, rel=1e-14))


def test_what_is_pushed_off_its_bound_is_free() -> None:
    """Breaks if oracles hold a node that an ideal diode lets go, or let one go that it holds."""
    diode = Part("X", "ideal_diode", (GROUND, "a"))
    circuit = Circuit(Parts.collect([V("s", 1.0), R("s", "a", 1e3), R("a", GROUND, 1e3), diode]))
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert circuit.free_variables((torch.zeros(2, 1, dtype=torch.float64),), x)[0].tolist() == [[True], [False]]


def test_ideal_among_other_diodes() -> None:
    """Breaks if bounds and exponentials do not go together: one that conducts is a wire, else it is nothing."""
    rest = [
        V("s", 2.0),
        R("s", "a", 1e3),
        Part("D1", "diode", ("a", "b"), (1e-12, 1.0)),
        R("b", "c", 2e3),
        Part("M", "memristor", ("c", GROUND), (1e-3, 0.2)),
        V("k", 0.3),
    ]
    ideal = solved(*rest, Part("D2", "ideal_diode", ("b", "k")))
    assert ideal["b"] == 0.3
    wire = solved(*rest, Part("W", "voltage_source", ("b", "k"), (0.0,)))
    assert ideal == pytest.approx(wire, abs=1e-12)
    blocked = solved(*rest, Part("D2", "ideal_diode", ("k", "b")))
    assert blocked["b"] > 0.3
    assert blocked == pytest.approx(solved(*rest), abs=1e-12)


# -- factorisations ---------------------------------------------------------------------------------------------


WAYS = [*itertools.product(["dense", "banded"], [True, False]), ("minimum_degree", None), ("sparse", None)]


@pytest.mark.parametrize(("kind", "eliminate"), WAYS)
def test_factorisations(kind: str, eliminate: bool | None) -> None:
    """Breaks if an elimination, a band or an order loses an entry: all solve a random system as numpy does."""
    rng = np.random.default_rng(0)
    n, batch = 40, 3
    pairs = np.array([(i, j) for i in range(n) for j in range(i + 1, n) if rng.random() < 0.1])
    off = -rng.uniform(0.1, 1, (batch, len(pairs)))
    diagonal = rng.uniform(0.1, 1, (batch, n))
    full = np.zeros((batch, n, n))
    for b in range(batch):
        full[b, pairs[:, 0], pairs[:, 1]] = full[b, pairs[:, 1], pairs[:, 0]] = off[b]
        diagonal[b] += -full[b].sum(0)
        full[b, np.arange(n), np.arange(n)] = diagonal[b]
    right = rng.normal(size=(batch, n))
    pattern = choose(n, pairs, kind, eliminate)
    assert pattern.kind == kind
    assert eliminate is None or bool(len(pattern.first)) == eliminate
    own = Matrix(pattern, off).factor(diagonal)
    assert own.solve(right) == pytest.approx(np.linalg.solve(full, right[:, :, None])[:, :, 0], rel=1e-11)
    shared = Matrix(pattern, off[:1]).factor(diagonal[:1])
    assert shared.solve(right) == pytest.approx(np.linalg.solve(full[:1], right[:, :, None])[:, :, 0], rel=1e-11)
    mixed = Matrix(pattern, off[:1]).factor(diagonal + np.array([0, 1, 2])[:, None])
    wanted = [np.linalg.solve(full[0] + np.diag(diagonal[b] + b - diagonal[0]), right[b]) for b in range(batch)]
    assert mixed.solve(right) == pytest.approx(np.array(wanted), rel=1e-11)
    at, scale, bend = np.array([3, 11]), np.array([1.0, 2.0]), np.array([[[0.5, 0.1], [0.1, 0.3]]] * batch)
    bordered = Bordered(own, at, scale, bend)
    select = np.zeros((2, n))
    select[[0, 1], at] = scale
    wanted = np.linalg.solve(full + select.T @ bend @ select, right[:, :, None])[:, :, 0]
    assert bordered.solve(right) == pytest.approx(wanted, rel=1e-11)
    diagonal[1, 5] = -1.0
    with pytest.raises(NotPositive):
        Matrix(pattern, off).factor(diagonal)


@pytest.mark.parametrize("kind", ["dense", "banded", "minimum_degree", "sparse"])
def test_circuits_do_not_depend_on_the_factorisation(kind: str) -> None:
    """Breaks if the entries of mixed elements are put in the wrong place of one of them."""
    parts = mixed_circuit(4, nodes=40)
    free = Circuit(parts)
    asked = Circuit(parts, factorization=kind)
    assert asked.layout.pattern.kind == kind
    one, other = (c.node_voltages(c.operating_point().require()) for c in (free, asked))
    assert list(one.values()) == pytest.approx(list(other.values()), abs=1e-9)
