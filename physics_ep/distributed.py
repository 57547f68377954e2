"""The weighted all-reduce of gradients, and nothing else.

DistributedDataParallel hooks only see gradients that come through its own forward; EP's do not, and the ranks
would drift apart silently. So EP reduces its own gradients: a sum over ranks of (sum over the local examples),
over the number of examples of all ranks, which is the batch mean also for uneven shards.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn


def is_distributed() -> bool:
    """Whether a process group of more than one rank is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


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
