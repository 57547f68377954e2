"""A small tolerance sweep, which a test and the process that it kills both run."""

from __future__ import annotations

import torch

from physics_ep import SquaredError
from physics_ep.predictive_coding import PredictiveCodingNetwork
from tests.support.pcn import dense, examples

SWEEPS = {"levels": [4, 64], "programming_noise": [0.05], "read_noise": [0.0, 1e-3]}


def small() -> tuple[PredictiveCodingNetwork, torch.Tensor, torch.Tensor, SquaredError]:
    """A smooth network, its batch, the cost."""
    return dense(3, width=8, n_in=6), *examples((6,), 4, SquaredError()), SquaredError()
