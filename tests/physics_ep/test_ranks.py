"""Several processes that train one system: if these fail, they drift apart, wait for ever, or train on the same."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from physics_ep import open_run, train
from physics_ep.cli import main
from physics_ep.errors import InputError
from physics_ep.progress import Advance
from physics_ep.runs.metrics import METRICS
from physics_ep.runs.training import TrainingResult

pytestmark = pytest.mark.full

SHARDS = (slice(0, 10), slice(10, 16))
ALONE: dict[str, Any] = {
    "system": {"name": "hopfield", "sizes": [64, 16, 10], "activation": "tanh"},
    "training": {"epochs": 2, "batch_size": 16, "dtype": "float64"},
    "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9},
    "ep": {"scheme": "centered", "beta": 0.01, "tolerance": 1e-12},
}
DIGITS: dict[str, Any] = {
    **ALONE,
    "data": {"name": "digits", "train_examples": 49, "test_examples": 31, "augmentation": "shift"},
}
"""Batches of 16, 16, 16 and 1: two ranks leave the last one out."""


def examples() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """One batch of 16."""
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(16, 64, generator=generator), torch.arange(16) % 10)]


def shard(rank: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """10 and 6 of them."""
    return [(x[SHARDS[rank]], y[SHARDS[rank]]) for x, y in examples()]


def parameters(result: TrainingResult) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in result.system.named_parameters()}


class Count:
    """Progress that counts the examples of all batches."""

    examples = 0

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        yield self._advance

    def _advance(self, n: int = 1, **info: Any) -> None:
        self.examples += n


def _worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    found: dict[str, Any] = {}
    uneven = train(ALONE, data=(shard(rank), shard(rank)))
    assert dist.get_backend() == "gloo"
    found["uneven"] = parameters(uneven)
    count = Count()
    found["digits"] = parameters(train(DIGITS, out=f"{folder}/digits-{rank}.h5", progress=count))
    found["resumed"] = parameters(
        train(DIGITS, overrides=["training.epochs=3"], resume=f"{folder}/digits-0.h5", out=f"{folder}/more.h5")
    )
    refused = []
    for data, override in (
        ((shard(rank) * (1 + rank), shard(rank)), "training.batch_size=16"),
        (None, "training.batch_size=1"),
    ):
        try:
            train(DIGITS, data=data, overrides=[override])
        except InputError as error:
            refused.append(str(error))
    figures = {name: torch.from_numpy(values) for name, values in uneven.metrics.items()}
    status = _command(folder, rank)
    assert not dist.is_initialized()
    torch.save(
        {**found, "figures": figures, "status": status, "refused": refused, "count": count.examples},
        f"{folder}/{rank}.pt",
    )


def _command(folder: str, rank: int) -> int:
    """Exit status of the command, what it prints in a file."""
    arguments = ["train", "hopfield-digits", "--out", f"{folder}/command.h5", "--json", f"{folder}/command.json"]
    for entry in ("training.epochs=1", "data.train_examples=64", "data.test_examples=64"):
        arguments += ["--set", entry]
    with open(f"{folder}/printed-{rank}.txt", "w") as printed, redirect_stdout(printed), redirect_stderr(printed):
        try:
            main(arguments)
        except SystemExit as stop:
            return int(stop.code or 0)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """What two processes found: their folder, and each one's parameters, figures and errors."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, args=(port, str(folder)), nprocs=2)
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def assert_near(found: dict[str, torch.Tensor], alone: TrainingResult) -> None:
    for name, p in alone.system.named_parameters():
        torch.testing.assert_close(found[name], p.detach(), atol=1e-6, rtol=0)


def test_uneven_shards_train_as_one_process(together: tuple[Path, list[dict[str, Any]]]) -> None:
    """10 and 6 examples a rank: else weights are those of a mean of means, or figures those of one shard."""
    alone = train(ALONE, data=(examples(), examples()))
    for found in together[1]:
        assert_near(found["uneven"], alone)
        for name in METRICS:
            if not name.endswith("iterations") and name != "seconds":
                tolerance = 1e-3 if name.endswith("residual") else 1e-9
                np.testing.assert_allclose(
                    found["figures"][name], alone.metrics[name], tolerance, 1e-12, err_msg=name
                )


def test_shares_of_batches_train_as_one_process(together: tuple[Path, list[dict[str, Any]]]) -> None:
    """If this fails, the number of processes changes the recipe: order, augmentation or size of its batches."""
    folder, found = together
    # One process would also take the 49th example, which is too few for two.
    alone = train({**DIGITS, "data": {**DIGITS["data"], "augmentation": None}})
    for name, p in alone.system.named_parameters():
        assert not torch.allclose(found[0]["digits"][name], p.detach(), atol=1e-6)
    held = _without_the_last(DIGITS)
    for ours in found:
        assert_near(ours["digits"], held)
        assert ours["count"] == 2 * 48  # each example once an epoch, by one of them
    run = open_run(folder / "digits-0.h5")
    np.testing.assert_array_equal(run.metric("test_error"), held.metrics["test_error"])
    np.testing.assert_allclose(run.metric("loss"), held.metrics["loss"], rtol=1e-9)
    assert not (folder / "digits-1.h5").exists()
    more = _without_the_last({**DIGITS, "training": {**DIGITS["training"], "epochs": 3}})
    for ours in found:
        assert_near(ours["resumed"], more)
    assert open_run(folder / "more.h5").epochs == 3


def _without_the_last(config: dict[str, Any]) -> TrainingResult:
    """What one process gives that passes over batches of one example."""
    from physics_ep import EquilibriumPropagation, SquaredError
    from physics_ep.estimators.step import Step
    from physics_ep.system import EnergySystem

    ep = EquilibriumPropagation(SquaredError(), scheme="centered", beta=0.01, tolerance=1e-12)

    def backward(system: EnergySystem, x: torch.Tensor, y: torch.Tensor) -> Step:
        step = ep.backward(system, x, y)
        if len(x) > 1:
            return step
        return Step(step.loss, step.outputs, (), 0.01, len(x), dict, float)

    return train(config, overrides=["training.max_skipped=1.0"], backward=backward)


def test_ranks_that_cannot_keep_step_say_so(together: tuple[Path, list[dict[str, Any]]]) -> None:
    """If this fails, the others wait for ever for the one without a batch."""
    for found in together[1]:
        steps, size = found["refused"]
        assert "Each of the 2 processes must have examples in every batch, but 1 have" in steps
        assert "training.batch_size must be at least the 2 processes, but was 1" in size


def test_one_process_of_two_speaks(together: tuple[Path, list[dict[str, Any]]]) -> None:
    """If this fails, two processes write one file at once, and print everything twice."""
    folder, found = together
    assert [ours["status"] for ours in found] == [0, 0]
    assert (folder / "printed-0.txt").read_text().count("test error") == 1
    assert (folder / "printed-1.txt").read_text() == ""
    assert open_run(folder / "command.h5").epochs == 1
    assert (folder / "command.json").exists()
