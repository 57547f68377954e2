"""Several processes that train one system: who this one is, its share of each batch, and sums over all of them.

Processes are started by torchrun, which tells each its rank in the environment, or by a caller who has set up a
group with torch.distributed. `EquilibriumPropagation.backward` brings parameters and gradients in line by the
weighted all-reduce below; the rest brings the examples to the ranks, and the figures together.

DistributedDataParallel hooks only see gradients that come through its own forward; EP's do not, and the ranks would
drift apart silently. So EP reduces its own gradients: a sum over ranks of (sum over the local examples), over the
number of examples of all ranks, which is the batch mean also for uneven shards.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator

import torch
import torch.distributed as dist
from torch import nn

from .errors import InputError, argument_error

Batch = tuple[torch.Tensor, torch.Tensor]
"""Inputs (B, ...) and class indices (B,)."""


def is_distributed() -> bool:
    """Whether a process group of more than one rank is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """How many processes torchrun has started; 1 without torchrun."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """Number of this process among those of torchrun, from 0; known also before and after there is a group."""
    return dist.get_rank() if is_distributed() else int(os.environ.get("RANK", "0"))


def join_group(device: torch.device) -> torch.device:
    """Join the process group that torchrun has started, by gloo on CPUs and nccl on CUDA; without torchrun, do
    nothing.

    The group stays until the process ends: ranks do not end a training at the same moment, and one that joined anew
    could meet what another is about to leave.

    Parameters
    ----------
    device : torch.device
        Device that the config asks for.

    Returns
    -------
    torch.device
        This process's own: 'cuda' becomes the GPU that torchrun numbers it for.

    Raises
    ------
    InputError
        If the environment names no place to meet.
    """
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized() and "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"The processes that RANK and WORLD_SIZE speak of cannot meet: {reason}.") from error
    return device


def leave_group() -> None:
    """Leave the group, at the end of a process that ends well: after an error, others may wait for this one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def share(batch: torch.Tensor) -> torch.Tensor:
    """This rank's examples of a batch: every so many-th, so that shares differ by one example at most."""
    return batch[rank() :: world_size()] if is_distributed() else batch


def shared_out(order: torch.Tensor, batch_size: int) -> Iterator[torch.Tensor]:
    """Batches of an epoch's order; a last one of fewer examples than there are ranks is left out.

    Raises
    ------
    InputError
        If whole batches have fewer.
    """
    if batch_size < world_size():
        raise argument_error("training.batch_size", f"be at least the {world_size()} processes", batch_size)
    for chosen in order.split(batch_size):
        if len(chosen) >= world_size():
            yield chosen


def batch_count(examples: int, batch_size: int) -> int:
    """How many batches `shared_out` makes of so many examples."""
    whole, left = divmod(examples, batch_size)
    return whole + (left >= max(world_size(), 1))


def in_step(batches: Iterable[Batch], device: torch.device) -> Generator[Batch, None, None]:
    """This process's batches, none of them empty, each given only while all other processes have one too.

    Raises
    ------
    InputError
        If some ranks have a batch where others have none: these would wait forever.
    """
    if not is_distributed():
        yield from (batch for batch in batches if len(batch[1]))
        return
    remaining = iter(batches)
    while True:
        batch = next(remaining, None)
        ready, ended = summed([float(batch is not None and len(batch[1]) > 0), float(batch is None)], device)
        if ended == world_size():
            return
        if ready < world_size():
            raise InputError(
                f"Each of the {world_size()} processes must have examples in every batch, but {int(ready)} have: "
                "give all as many batches, and batches large enough to bear broken images."
            )
        assert batch is not None
        yield batch


def summed(values: list[float], device: torch.device) -> list[float]:
    """Sums of some numbers over all ranks."""
    if not is_distributed():
        return values
    numbers = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(numbers)
    return [float(n) for n in numbers]


def meet(device: torch.device) -> None:
    """Wait until all processes of torchrun have come here, so that files which one has written are there for the
    others.
    """
    summed([0.0], device)


def gathered(values: torch.Tensor) -> torch.Tensor:
    """The values (N,) of all ranks in one vector; N may differ."""
    if not is_distributed():
        return values
    counts = [torch.empty(1, dtype=torch.int64, device=values.device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([len(values)], device=values.device))
    longest = max(int(n) for n in counts)
    padded = torch.nn.functional.pad(values, (0, longest - len(values)))
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(n)] for part, n in zip(parts, counts, strict=True)])


def broadcast_parameters(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), src=0)


def total(value: float, device: torch.device) -> float:
    """Sum of a number over all ranks."""
    if not is_distributed():
        return value
    number = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(number)
    return float(number)


def largest(value: float, device: torch.device) -> float:
    """Largest of a number over all ranks."""
    if not is_distributed():
        return value
    number = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(number, op=dist.ReduceOp.MAX)
    return float(number)


def all_reduce(tensors: dict[str, torch.Tensor]) -> None:
    """Sum tensors over all ranks, in place, in one message for each dtype."""
    if not is_distributed():
        return
    for dtype in sorted({str(t.dtype) for t in tensors.values()}):
        group = [t for t in tensors.values() if str(t.dtype) == dtype]
        packed = torch.cat([t.flatten() for t in group])
        dist.all_reduce(packed)
        for tensor, piece in zip(group, packed.split([t.numel() for t in group]), strict=True):
            tensor.copy_(piece.view_as(tensor))
