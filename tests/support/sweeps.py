"""A small tolerance sweep, which a test and the process that it kills both run."""

from __future__ import annotations

import json
from typing import Any

import torch

from physics_ep import SquaredError
from physics_ep.predictive_coding import PredictiveCodingNetwork
from tests.support.pcn import dense, examples
from validation.sweeps.table import ToleranceTable

SWEEPS = {"levels": [4, 64], "programming_noise": [0.05], "read_noise": [0.0, 1e-3]}


def small() -> tuple[PredictiveCodingNetwork, torch.Tensor, torch.Tensor, SquaredError]:
    """A smooth network, its batch, the cost."""
    return dense(3, width=8, n_in=6), *examples((6,), 4, SquaredError()), SquaredError()


def timeless(table: ToleranceTable) -> str:
    """All figures but the seconds, to the bit."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k != "seconds"}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return json.dumps(strip(table.figures()))
