"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Assertions in the shared checks tell both sides, as those in tests do.
pytest.register_assert_rewrite("tests.support")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Workers of pytest-xdist share the cores. Each time anew: numba's OpenMP layer sets torch's threads too."""
    torch.set_num_threads(1)


@pytest.fixture
def mnist_folder() -> Path:
    """Folder with the four files of MNIST; skips the test where PHYSICS_EP_DATA does not lead to one."""
    from physics_ep.datasets import locate

    place = locate("mnist", os.environ.get("PHYSICS_EP_DATA"))
    if place is None:
        pytest.skip("needs MNIST: set PHYSICS_EP_DATA to a folder that holds it")
    return Path(place)
