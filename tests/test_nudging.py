"""Stencils: if these fail, an estimate carries the wrong factor, or claims an order that it has not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from physics_ep import Nudge, SquaredError, centered, holomorphic, negative, positive, random_sign
from physics_ep.errors import InputError
from physics_ep.nudging import scheme_from_name

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


@pytest.mark.parametrize("beta", [math.nan, math.inf, torch.tensor([0.1, math.nan])])
def test_a_nudge_must_be_finite(beta) -> None:
    """A NaN nudge would make every state NaN."""
    with pytest.raises(InputError, match="beta must be finite"):
        Nudge(SquaredError(), torch.zeros(2, 3), beta)
