"""A learning step beside FabricPC's."""

from __future__ import annotations

import importlib.util

import pytest

from validation.benchmarks import fabricpc
from validation.benchmarks.peers import PEERS


@pytest.mark.full
@pytest.mark.parametrize("installed", [True, False])
def test_rows_of_both_libraries(monkeypatch, installed) -> None:
    """Where FabricPC is missing a row says what installs it; where it is there, its step has its own backprop as
    unit, and clamped outputs do not give backprop's gradient, which EP does."""
    if not installed:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    elif importlib.util.find_spec("fabricpc") is None:
        pytest.skip(PEERS["FabricPC"])
    found = fabricpc.measure(repeats=2)
    rows = {(row["library"], row["step"]): row for row in found["rows"]}
    ours = rows["physics-ep", "EP to 1e-6"]
    assert ours["residual"] <= 1e-6
    assert ours["1 - cos"] < 1e-4
    if not installed:
        assert ("FabricPC: not installed: pip install fabricpc", "") in rows
        assert found["followed"] == {}
    else:
        assert rows["FabricPC", "backprop"]["cpu"] == 1
        theirs = rows["FabricPC", "predictive coding"]
        assert theirs["cpu"] > 1
        assert theirs["1 - cos"] > ours["1 - cos"]
