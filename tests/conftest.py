"""Fixtures that all tests share."""

from __future__ import annotations

import os

# A thread of OpenMP that has no work sleeps: waiting in a loop, it takes the core that another worker needs, for
# milliseconds at each of thousands of calls. This is read when torch or numba loads; subprocesses inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Subprocesses share the cores too. numba's threads have a number of their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numba
import pytest
import torch

# Assertions in the shared checks tell both sides, as those in tests do.
pytest.register_assert_rewrite("tests.support")

# By default an example may take 200 ms on the wall, which a busy machine does not keep to.
hypothesis.settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared machine")


def pytest_configure(config: pytest.Config) -> None:
    """Slow tests in a module of full ones are slow: `pytest -m full` leaves them out."""
    if config.option.markexpr == "full":
        config.option.markexpr = "full and not slow"


def use_one_thread() -> None:
    """Workers of pytest-xdist share the cores: torch and numba compute in one thread until a test asks for more."""
    numba.set_num_threads(1)
    torch.set_num_threads(1)  # the last word: numba's OpenMP layer sets torch's threads too


@pytest.fixture(scope="session", autouse=True)
def one_thread_from_the_start() -> None:
    """Fixtures of modules come before those of tests."""
    use_one_thread()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Each time anew: a test may have asked for more threads."""
    use_one_thread()


@pytest.fixture
def processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks measure time on the processor: that on the wall tells how busy the machine is."""
    monkeypatch.setattr(time, "perf_counter", time.process_time)


@pytest.fixture
def mnist_folder() -> Path:
    """Folder with the four files of MNIST; skips the test where PHYSICS_EP_DATA does not lead to one."""
    from physics_ep.data.datasets import locate

    place = locate("mnist", os.environ.get("PHYSICS_EP_DATA"))
    if place is None:
        pytest.skip("needs MNIST: set PHYSICS_EP_DATA to a folder that holds it")
    return Path(place)


@pytest.fixture
def gpu(pytestconfig: pytest.Config) -> Iterator[object]:
    """A CUDA device, simulated on the CPU; skips the test where it cannot be, and says why."""
    from tests.support.simulated_gpu import SimulatedGpu, UnavailableError, install

    cache = getattr(pytestconfig, "cache", None)  # `-p no:cacheprovider` leaves none
    try:
        install(None if cache is None else cache.mkdir("simulated_gpu"))
    except UnavailableError as error:
        pytest.skip(f"no simulated device: {error}")
    with SimulatedGpu() as device:
        yield device
