"""A state as blocks of variables: how it is named, flattened, narrowed, masked and differentiated."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .errors import InputError
from .reads import likely

State = tuple[torch.Tensor, ...]
"""A state: one tensor (B, ...) for each block of variables (a layer, say), batch axis first."""


def flat(blocks: State) -> torch.Tensor:
    """Blocks of a state joined side by side into vectors (B, n)."""
    return blocks[0].flatten(1) if len(blocks) == 1 else torch.cat([b.flatten(1) for b in blocks], 1)


def unflat(vector: torch.Tensor, shapes: list[torch.Size]) -> State:
    """Split vectors (B, n) into blocks of the given shapes: the inverse of `flat`."""
    if len(shapes) == 1:
        return (vector.reshape(shapes[0]),)
    sizes = [s[1:].numel() for s in shapes]
    rows = zip(vector.split(sizes, 1), shapes, strict=True)
    return tuple(v if len(s) == 2 else v.reshape(s) for v, s in rows)


def keep(active: torch.Tensor, new: State, old: State) -> State:
    """Take the blocks `new` for examples where `active` (B,) holds, and the blocks `old` for the others."""
    return tuple(torch.where(active.view(-1, *[1] * (n.ndim - 1)), n, o) for n, o in zip(new, old, strict=True))


def tiled(rows: torch.Tensor, count: int) -> torch.Tensor:
    """A batch (B, ...) repeated `count` times, one copy after the other; for few numbers five times as fast as
    `repeat`.
    """
    if rows.ndim > 2:  # images keep the order in memory that `repeat` gives them, and with it their rounding
        return rows.repeat(count, *[1] * (rows.ndim - 1))
    return torch.cat([rows] * count)


def doubled(rows: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Memory for two batches of the shape of `rows` (B, ...): the whole, and its two halves to be filled."""
    images = rows.ndim == 4 and rows.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if images else torch.contiguous_format
    shape = (2 * rows.shape[0], *rows.shape[1:])
    both = torch.empty(shape, dtype=rows.dtype, device=rows.device, memory_format=layout)
    return both, (both[: rows.shape[0]], both[rows.shape[0] :])


def narrowed(blocks: State, dtype: torch.dtype) -> State:
    """Blocks converted to a real dtype, or to its complex partner where they are complex."""
    return tuple(b.to(dtype.to_complex() if b.is_complex() else dtype) for b in blocks)


def in_dtype(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """An input converted to a dtype; integers (token ids, class indices, masks) are left as they are."""
    return x.to(dtype) if x.is_floating_point() or x.is_complex() else x


def masked(blocks: State | None, keep: torch.Tensor | None) -> State:
    """Blocks with the examples left out set to zero, so that their NaN cannot leak into a sum."""
    assert blocks is not None
    if keep is None:
        return blocks
    zeroed = []
    for b in blocks:
        rows = keep.view(-1, *[1] * (b.ndim - 1))
        zeroed.append(torch.where(rows, b, torch.zeros_like(b)))
    return tuple(zeroed)


def finite_rows(blocks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tell which examples hold no NaN and no infinity, (B,) of bool: one cheap pass, and no wait for a device.

    It may call an example infinite whose finite entries have a sum that is too large for their dtype; the function
    `exactly_finite_rows` then has the last word.
    """
    first = blocks[0]
    if first.device.type == "cpu" and finite_sum(blocks):
        return torch.ones(len(first), dtype=torch.bool)
    sums = [b.sum(tuple(range(1, b.ndim))) if b.ndim > 1 else b for b in blocks]
    total = sums[0]
    for part in sums[1:]:
        total = total + part
    return total.isfinite()


def finite_sum(blocks: Sequence[torch.Tensor]) -> bool:
    """Whether the sum of all entries is finite, and so each of them; if not, finite entries may have overflowed."""
    if all(b.device.type == "cpu" for b in blocks):  # numbers cost less than tensors of one entry
        return all(cmath.isfinite(b.sum().item()) for b in blocks)
    wide = torch.promote_types(torch.float32, blocks[0].dtype)
    return likely(torch.stack([b.sum().to(wide) for b in blocks]).isfinite().all())


def exactly_finite_rows(blocks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tell which examples hold no NaN and no infinity in any block, (B,) of bool, by a look at each entry."""
    return torch.stack([b.isfinite().flatten(1).all(1) for b in blocks]).all(0)


def largest(blocks: State) -> torch.Tensor:
    """Largest absolute entry of each example over all blocks, (B,)."""
    # The norm takes one pass, the largest of the absolute values two; NaN and infinity come through both.
    worst = [torch.linalg.vector_norm(b.flatten(1), math.inf, 1) for b in blocks if math.prod(b.shape[1:])]
    return worst[0] if len(worst) == 1 else torch.stack(worst).amax(0)


def derivative(energy: torch.Tensor, state: State) -> State:
    """Derivative dE/ds of a batch of energies (B,), by autograd; for an analytic energy the complex derivative.

    Autograd gives the conjugate of the derivative for the real part of an analytic function.
    """
    total = energy.real.sum()
    grads = torch.autograd.grad(total, state, allow_unused=True)
    return tuple(torch.zeros_like(s) if g is None else g.conj() for s, g in zip(state, grads, strict=True))


def all_finite(*tensors: torch.Tensor) -> bool:
    """Whether tensors hold no NaN and no infinity: one cheap pass each if so, and one read on a device."""
    # A finite sum has finite terms; only an infinite or NaN one needs a second look (it may have overflowed).
    sums = [t.sum() for t in tensors]
    if all(s.device.type == "cpu" for s in sums):  # numbers cost less than tensors of one entry
        sound = all(cmath.isfinite(s.item()) for s in sums)
    else:
        sound = likely(torch.stack([s.isfinite() for s in sums]).all())
    return sound or all(bool(t.isfinite().all()) for t in tensors)


def require_finite(system: Any) -> None:
    """Refuse a system with a parameter that is NaN or infinite, which a saturated unit hides (tanh of it is 1).

    Raises
    ------
    InputError
        It names the parameter.
    """
    if all_finite(*system.parameters()):
        return
    for name, p in system.named_parameters():
        if not all_finite(p):
            raise InputError(f"Parameter {name} of a {type(system).__name__} must be finite, but was not.")


def twice_differentiable() -> AbstractContextManager[None]:
    """Within this context, attention uses its plain kernel, since the fused ones have no second derivative."""
    cuda = torch.backends.cuda
    fused = cuda.flash_sdp_enabled() or cuda.mem_efficient_sdp_enabled() or cuda.cudnn_sdp_enabled()
    return sdpa_kernel(SDPBackend.MATH) if fused else nullcontext()


def is_dense(values: Any) -> bool:
    """Whether this is a tensor whose numbers are all there: not sparse, not quantized, not on device meta."""
    return (
        isinstance(values, torch.Tensor)
        and values.layout is torch.strided
        and not values.is_meta
        and not values.is_quantized
    )
