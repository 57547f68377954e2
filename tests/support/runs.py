"""Runs that stop early, and runs compared to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from physics_ep import open_run
from physics_ep.progress import Advance
from physics_ep.runs.metrics import METRICS


class StopAfter:
    """Progress that raises after so many epochs' figures."""

    def __init__(self, epochs: int, batches: int = 0) -> None:
        self.epochs = epochs
        self.batches = batches

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        yield self._advance

    def _advance(self, n: int = 1, **info: Any) -> None:
        self.epochs -= n == 0
        self.batches -= n > 0 and self.epochs == 0
        if self.epochs == 0 and self.batches < 0:
            raise KeyboardInterrupt


def assert_same_run(a: Path, b: Path) -> None:
    """Weights, optimizer state and metrics (but times) agree to the bit."""
    first, second = open_run(a), open_run(b)
    for name, tensor in first.state_dict.items():
        assert torch.equal(tensor, second.state_dict[name]), name
    for name in METRICS:
        if name != "seconds":
            np.testing.assert_array_equal(first.metric(name), second.metric(name), err_msg=name)
    buffers = [run.resume["optimizer"]["state"] for run in (first, second)]
    for k, state in buffers[0].items():
        assert state.keys() == buffers[1][k].keys()
        assert all(torch.equal(value, buffers[1][k][name]) for name, value in state.items())
