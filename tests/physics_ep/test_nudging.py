"""Stencils: if these fail, an estimate carries the wrong factor, or claims an order that it has not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from fractions import Fraction
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardware_models import HopfieldNetwork
from physics_ep import (
    EquilibriumPropagation,
    Nudge,
    SquaredError,
    centered,
    holomorphic,
    negative,
    positive,
    random_sign,
)
from physics_ep.config import load_config
from physics_ep.errors import InputError
from physics_ep.nudging import SCHEMES, Stencil, register_scheme, scheme_from_name
from validation import commands, implicit_gradient

REAL = [positive(), negative(), centered()]


@pytest.mark.parametrize("stencil", [*REAL, random_sign(), *(holomorphic(n) for n in (2, 3, 4, 8))], ids=str)
def test_moments_vanish_to_the_declared_order(stencil) -> None:
    """sum w = 0 and sum w n = 1 make it a derivative; moments 2 ... order vanish, the next does not."""
    assert abs(stencil.moment(0)) < 1e-12
    assert abs(stencil.moment(1) - 1) < 1e-12
    for m in range(2, stencil.order + 1):
        assert abs(stencil.moment(m)) < 1e-12
    assert abs(stencil.moment(stencil.order + 1)) > 0.1


@given(n=st.integers(2, 16), seed=st.integers(0, 100))
def test_pairs_give_the_same_sum_as_nodes_and_weights(n: int, seed: int) -> None:
    """The contrast is taken over pairs: they must add up to the stencil for any function of the node."""
    stencil = holomorphic(n)
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(6, generator=generator, dtype=torch.float64).tolist()

    def f(node: complex) -> complex:
        return sum((c * node**k for k, c in enumerate(a)), 0j)

    direct = sum(complex(w) * f(complex(v)) for v, w in zip(stencil.nodes, stencil.weights, strict=True))
    paired = sum(
        complex(w) * (f(complex(stencil.nodes[i])) - (f(0j) if j is None else f(complex(stencil.nodes[j]))))
        for i, j, w in stencil.pairs()
    )
    assert abs(direct - paired) < 1e-10


@pytest.mark.parametrize("stencil", REAL, ids=lambda s: s.name)
def test_measured_order_on_a_scalar_function(stencil) -> None:
    """The error of d/db exp(b) at 0 falls as b^order."""
    errors = []
    for b in (0.2, 0.02):
        total = sum(
            float(w.real) * math.exp(b * float(n.real)) for n, w in zip(stencil.nodes, stencil.weights, strict=True)
        )
        errors.append(abs(total / b - 1))
    assert abs(math.log10(errors[0] / errors[1]) - stencil.order) < 0.1


def test_names_round_trip_and_wrong_names_are_told() -> None:
    """A misspelt scheme must not silently become another."""
    for name in ("positive", "negative", "random", "centered", "holomorphic:6"):
        assert scheme_from_name(name).name == name
    with pytest.raises(InputError, match="Did you mean 'centered'"):
        scheme_from_name("centred")
    with pytest.raises(InputError, match="integer N"):
        scheme_from_name("holomorphic:x")
    with pytest.raises(InputError, match="at least 2"):
        holomorphic(1)


# -- schemes of one's own -----------------------------------------------------------------------------------------


FIVE_POINT = ((2.0, 1.0, -1.0, -2.0), (-1 / 12, 8 / 12, -8 / 12, 1 / 12))


def interpolating(nodes: list[Fraction]) -> list[float]:
    """Weights of the derivative at 0 of the polynomial through the nodes, exactly: of order len(nodes) - 1."""
    weights = []
    for i, a in enumerate(nodes):
        # The derivative at 0 of Lagrange's polynomial of node i.
        others = [b for j, b in enumerate(nodes) if j != i]
        total = Fraction(0)
        for skipped in range(len(others)):
            product = Fraction(1)
            for j, b in enumerate(others):
                product *= Fraction(1) / (a - b) if j == skipped else -b / (a - b)
            total += product
        weights.append(float(total))
    return weights


@given(
    nodes=st.lists(st.integers(-8, 8), min_size=2, max_size=6, unique=True),
    scale=st.sampled_from([0.01, 0.5, 1.0, 3.0]),
    off=st.sampled_from([1e-6, 1e-3, 1.0]),
    which=st.integers(0, 5),
)
def test_a_stencil_is_taken_if_it_is_a_derivative(nodes: list[int], scale: float, off: float, which: int) -> None:
    """Lagrange's weights through any nodes are taken, with their order; a weight that is off, or an order above
    theirs, is refused. One that passed would train on another gradient, and one refused would be a good scheme."""
    weights = interpolating([Fraction(n) for n in nodes])
    points, weights = [n * scale for n in nodes], [w / scale for w in weights]
    stencil = Stencil("mine", tuple(points), tuple(weights), order=len(nodes) - 1)
    with pytest.raises(InputError, match=r"must have sum w n\^\d+ = 0 over all nodes n, as its order is"):
        # One order more than the free moments of distinct nodes can have.
        Stencil("mine", stencil.nodes, stencil.weights, order=len(nodes) + 1)
    wrong = list(weights)
    wrong[which % len(nodes)] += off * max(map(abs, weights))
    with pytest.raises(InputError, match=r"^Argument weights of the scheme 'mine' must have sum w = 0 over all"):
        Stencil("mine", tuple(points), tuple(wrong), order=1)


@given(n=st.integers(2, 40), turn=st.floats(0, 6))
def test_turned_circles_are_derivatives(n: int, turn: float) -> None:
    """Complex nodes are held to the same sums: a circle that begins elsewhere is as good a scheme."""
    start = complex(math.cos(turn), math.sin(turn))
    nodes = [start * node for node in holomorphic(n).nodes]
    weights = [weight / start for weight in holomorphic(n).weights]
    stencil = Stencil("turned", tuple(nodes), tuple(weights), order=n)
    assert abs(stencil.moment(1) - 1) < 1e-12
    with pytest.raises(
        InputError, match=rf"sum w n\^{n + 1} = 0 over all nodes n, as its order is {n + 1}, but was"
    ):
        Stencil("turned", stencil.nodes, stencil.weights, order=n + 1)


@pytest.mark.parametrize(
    ("nodes", "weights", "order", "says"),
    [
        ((1, -1), (1, 1), 2, "weights .* must have sum w = 0 over all nodes n, but was 2"),
        ((1, -1), (-0.5, 0.5), 2, "weights .* must have sum w n = 1 over all nodes n, but was -1"),
        ((1.0,), (1.0,), 1, "weights .* must have sum w = 0 over all nodes n, but was 1"),
        ((0, 1), (-1, 1), 2, r"weights .* must have sum w n\^2 = 0 over all nodes n, as its order is 2, but was 1"),
        ((1j, -1j), (0.5, -0.5), 1, r"weights .* must have sum w n = 1 over all nodes n, but was 0\+1j"),
        (FIVE_POINT[0], (-0.0833333, 0.6666667, -0.6666667, 0.0833333), 4, "sum w n = 1 .* was 1.0000002"),
        ((1, -1), (0.5,), 1, "weights .* must be as many as its nodes, 2, but was 1"),
        ((1, 1), (0.5, -0.5), 1, "nodes .* must all differ, but was 1 twice"),
        ((1, math.nan), (0.5, -0.5), 1, "nodes .* must be a row of finite numbers, but was nan"),
        ((1, -1), (math.inf, -0.5), 1, "weights .* must be a row of finite numbers, but was inf"),
        ((1, True), (0.5, -0.5), 1, "nodes .* must be a row of finite numbers, but was True"),
        ("ab", (0.5, -0.5), 1, "nodes .* must be a row of finite numbers, but was 'ab'"),
        ((1, -1), (0.5, -0.5), 0, "order .* must be an integer of 1 or more, but was 0"),
        ((1, -1), (0.5, -0.5), 1.5, "order .* must be an integer of 1 or more, but was 1.5"),
    ],
)
def test_what_is_no_derivative_is_refused(nodes, weights, order, says: str) -> None:
    """A wrong stencil trains without a word, on the gradient's negative or a multiple of it."""
    with pytest.raises(InputError, match=rf"^Argument .*{says}\.$") as caught:
        Stencil("mine", nodes, weights, order)
    assert "\n" not in str(caught.value)


def test_lists_and_numpy_numbers_become_plain() -> None:
    """A stencil must compare and be written as the same one, however its numbers came."""
    plain = Stencil("mine", (1.0, -1.0), (0.5, -0.5), 2)
    assert Stencil("mine", [np.float32(1), -1], [np.float64(0.5), Fraction(-1, 2)], 2) == plain  # type: ignore[arg-type]
    assert {type(v) for v in (*plain.nodes, *plain.weights)} == {float}


@pytest.fixture
def no_others() -> Iterator[None]:
    """A table of schemes that forgets what a test registers."""
    kept = dict(SCHEMES)
    yield
    SCHEMES.clear()
    SCHEMES.update(kept)


@pytest.mark.usefixtures("no_others")
def test_registered_schemes_have_names() -> None:
    """A config, or a run file that is resumed, knows a scheme by its registered name alone."""
    stencil = Stencil("of another name", *FIVE_POINT, order=4)
    for scheme in (stencil, lambda: stencil):
        register_scheme("five_point", scheme)
        found = scheme_from_name("five_point")
        assert (found.name, found.nodes, found.order) == ("five_point", stencil.nodes, 4)
    with pytest.raises(
        InputError, match=r"one of .*centered, five_point, holomorphic:N, .* Did you mean 'five_point'"
    ):
        scheme_from_name("five_pint")
    for name in ("centered", "holomorphic", "a:b", "", 3):
        with pytest.raises(InputError, match="name of a scheme must be a text without a colon that is not taken"):
            register_scheme(name, stencil)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="scheme 'mine' must be a Stencil, or a function that makes one"):
        register_scheme("mine", lambda: 3)  # type: ignore[arg-type,return-value]


@pytest.mark.usefixtures("no_others")
def test_a_registered_scheme_has_its_order_and_serves_configs_and_the_command(tmp_path: Path) -> None:
    """EP's error falls as beta^4 under five points; a name that only Python knew would leave configs without it."""
    register_scheme("five_point", Stencil("five_point", *FIVE_POINT, order=4))
    network, x = HopfieldNetwork([4, 6, 2], activation="tanh", seed=1).double(), torch.rand(5, 4).double()
    y, cost = torch.eye(2, dtype=torch.float64)[torch.arange(5) % 2], SquaredError()
    exact = implicit_gradient(network, x, y, cost)
    errors = []
    for beta in (0.1, 0.05):
        network.zero_grad()
        EquilibriumPropagation(cost, "five_point", beta, tolerance=1e-13).backward(network, x, y)
        off = [float((p.grad - exact[name]).norm()) for name, p in network.named_parameters()]
        errors.append(math.hypot(*off))
    assert abs(math.log2(errors[0] / errors[1]) - 4) < 0.2
    assert load_config("hopfield-digits", ["ep.scheme=five_point"]).ep.scheme == "five_point"
    out = tmp_path / "rows.json"
    commands.gradients("pcn", scheme="five_point", beta="1e-3", json=out, quiet=True)
    assert json.loads(out.read_text(encoding="utf-8"))["worst_cosine"] > 0.999
    with pytest.raises(InputError, match="scheme"):
        commands.gradients("pcn", scheme="six_point", quiet=True)


def test_schemes_of_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs in a process of its own: it knows a scheme by an installed package's entry point."""
    mine = EntryPoint("mine", "physics_ep.nudging:centered", "physics_ep.schemes")
    taken = EntryPoint("positive", "physics_ep.nudging:negative", "physics_ep.schemes")
    monkeypatch.setattr("physics_ep.nudging.entries", lambda group: {"mine": mine, "positive": taken})
    assert scheme_from_name("mine") == Stencil("mine", (1.0, -1.0), (0.5, -0.5), 2)
    assert scheme_from_name("positive") == positive()


@pytest.mark.parametrize("beta", [math.nan, math.inf, torch.tensor([0.1, math.nan])])
def test_a_nudge_must_be_finite(beta) -> None:
    """A NaN nudge would make every state NaN."""
    with pytest.raises(InputError, match="beta must be finite"):
        Nudge(SquaredError(), torch.zeros(2, 3), beta)
