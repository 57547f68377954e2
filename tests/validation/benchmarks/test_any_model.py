"""Published torch models at their depth: converted, cut into enough units, and learnt from as autograd has it.

If this fails, a model that a researcher brings computes something else, has one unit where it has many layers, or a
gradient that is not backprop's.
"""

from __future__ import annotations

import pytest

from validation.benchmarks.any_model import held, measure
from validation.benchmarks.torch_models import FAMILIES, Family


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
def test_published_models(family: Family) -> None:
    """Outputs to 1e-6 and 1e-12, order 2, cosines of 0.999 and 0.9999, at least two sweeps, enough units."""
    assert held(measure(family)) == []


@pytest.mark.full
def test_a_row_tells_what_does_not_hold() -> None:
    """The smallest model's row holds; one with a wrong gradient, or with one sweep, would be told."""
    row = measure(next(family for family in FAMILIES if family.name == "LeNet-5"))
    assert held(row) == []
    assert row["parameters"] == 61706
    worse = {**row, "cosine auto": 0.99, "order": 1.0, "K tenth": 1, "units": 4}
    assert held(worse) == ["units", "cosine auto", "order", "K"]
