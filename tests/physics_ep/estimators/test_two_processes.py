"""Two real gloo processes with uneven shards must give the gradient of one process."""

from __future__ import annotations

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from physics_ep import EquilibriumPropagation, SquaredError
from tests.support.systems import batch, network
from validation.gradients import estimate_gradient, total_error

SHARDS = (slice(0, 10), slice(10, 16))


def _worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    system = network("tanh", (20, 16, 10))
    if rank == 1:  # a rank that starts elsewhere must be brought in line
        with torch.no_grad():
            for p in system.parameters():
                p.add_(0.1)
    x, y = batch(20, 10)
    ep = EquilibriumPropagation(SquaredError(), beta=1e-3, tolerance=1e-13)
    ep.backward(system, x[SHARDS[rank]], y[SHARDS[rank]])
    wrapped = False
    try:
        ep.backward(torch.nn.parallel.DistributedDataParallel(system), x, y)
    except TypeError as error:
        wrapped = "DistributedDataParallel" in str(error)
    torch.save(
        {"grads": {n: p.grad for n, p in system.named_parameters()}, "refused": wrapped}, f"{folder}/{rank}.pt"
    )
    dist.destroy_process_group()


@pytest.mark.slow
def test_uneven_shards_give_the_gradient_of_the_whole_batch(tmp_path) -> None:
    """10 and 6 examples: a mean of means is off by 0.2; ranks that are not told of each other drift apart."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, args=(port, str(tmp_path)), nprocs=2)
    system = network("tanh", (20, 16, 10))
    x, y = batch(20, 10)
    ep = EquilibriumPropagation(SquaredError(), beta=1e-3, tolerance=1e-13)
    whole = estimate_gradient(ep, system, x, y)[0]
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert total_error(found["grads"], whole) < 1e-6
        assert found["refused"]


def test_one_process_needs_no_group() -> None:
    """sync is a no-op without a process group."""
    system = network("tanh", (20, 16, 10))
    assert not dist.is_initialized()
    loss = EquilibriumPropagation(SquaredError()).backward(system, *batch(20, 10), sync=True).loss
    assert float(loss) == pytest.approx(float(loss))
    assert system.couplings[0].weight.grad is not None
