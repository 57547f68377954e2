"""The rules of a CUDA device, operator by operator: what it refuses, what makes the host wait, what it launches."""

from __future__ import annotations

from typing import Any

import torch

Operator = Any
"""A `torch._ops.OpOverload`, as `__torch_dispatch__` gets it; its name comes without the "aten::"."""

SIZED_BY_NUMBERS = {
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "argwhere",
    "histc",
}
"""Operators whose results have as many elements as the numbers say: the host must read how many."""

CHECKED = {"_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "linalg_eig", "_linalg_eigvals", "linalg_lstsq"}
"""Operators of linear algebra that look at an error code on the host."""

BOOKKEEPING = {
    "empty",
    "empty_strided",
    "empty_like",
    "new_empty",
    "new_empty_strided",
    "set_",
    "resize_",
    "lift_fresh",
    "detach",
    "alias",
    "view",
    "_unsafe_view",
    "_reshape_alias",
    "_conj",
    "_neg_view",
    "is_pinned",
    "_local_scalar_dense",
}
"""Operators that launch no kernel."""

PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution"}
"""Operators that have no kernel for integers."""

BY_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""Operators that take a list of indices as their second argument."""

COPIES = {"_to_copy": 0, "copy_": 1}
"""Operators that may copy between the host and the device, and which argument they read."""


def objection(
    func: Operator, name: str, args: Any, device_tensors: list[Any], host_tensors: list[torch.Tensor]
) -> tuple[type[Exception], str] | None:
    """The error with which a GPU refuses an operator that has device tensors among its arguments, or None.

    CPU tensors are allowed in three places: numbers of zero dimensions beside device tensors in pointwise
    operators, indices of device tensors, and counts of steps in the lists that optimizers work on.
    """
    written = func._schema.is_mutable and any(args[0] is t for t in host_tensors)
    strangers = list(host_tensors)
    if name in BY_INDEX and any(args[0] is t for t in device_tensors):
        values = args[2] if len(args) > 2 else None
        strangers = [t for t in strangers if t is values and t.dim()]
    elif torch.Tag.pointwise in func.tags or name in ("fill", "fill_"):
        strangers = [t for t in strangers if t.dim()]
    if (written or strangers) and not name.startswith(("_foreach_", "_fused_")):
        both = "found at least two devices, cuda:0 and cpu!"
        return RuntimeError, f"Expected all tensors to be on the same device, but {both} (when checking {name})"
    dtype = device_tensors[0].dtype
    in_half = "linalg" in name and "norm" not in name and dtype in (torch.bfloat16, torch.float16)
    of_integers = name in PRODUCTS and not (dtype.is_floating_point or dtype.is_complex)
    if in_half or of_integers:
        return RuntimeError, f'"{name}_cuda" not implemented for {dtype}'
    return None


def wait(func: Operator, name: str, args: Any, kwargs: Any) -> str | None:
    """Why the host must wait for the device in an operator on device tensors, as in `Counts.waits`, or None."""
    if name in SIZED_BY_NUMBERS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
        return "shape"
    if name in CHECKED or (kwargs.get("check_errors") and "linalg" in name):
        return "check"
    if any("Tensor" not in str(result.type) for result in func._schema.returns):
        return "read"
    if name in BY_INDEX and _masked(args) and not _filled(args):
        return "shape"
    return None


def uploaded_indices(name: str, args: Any, host_tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The CPU tensors that indexing a device tensor copies to the device, each of them blocking."""
    if name not in BY_INDEX:
        return []
    values = args[2] if len(args) > 2 else None
    return [t for t in host_tensors if t is not args[0] and (t is not values or not _filled(args))]


def _masked(args: Any) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _filled(args: Any) -> bool:
    """Whether a CPU number is written where one mask says so: torch does that by `masked_fill`, without a wait."""
    if len(args) < 3 or args[2].numel() != 1 or args[2].device.type == "cuda":
        return False
    return all(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def launches(func: Operator, name: str, args: Any) -> int:
    """How many kernels an operator launches at least."""
    if name in BOOKKEEPING or func.is_view:
        return 0
    if name in COPIES and args[COPIES[name]].device.type == "cpu":
        return 0  # an upload is a copy by the driver
    if name == "convolution_backward":
        return sum(args[-1])  # one each for the gradients of its input, weights and biases
    return 1
