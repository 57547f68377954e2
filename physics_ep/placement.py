"""The place and the width of numbers: device, dtype, threads, and whether there is memory.

Too little memory is told before work starts, not by the kernel in the middle of it.
"""

from __future__ import annotations

import copy
import ctypes
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import nn

from .errors import InputError, argument_error, unknown_name

Module = TypeVar("Module", bound=nn.Module)

STEP_NUMBERS = 20
"""Numbers that a step of EP holds for each input and unit of an example: 15 in predictive coding networks, 21 in
Hopfield networks, 100 in oscillators (measured)."""
REPORT_NUMBERS = 90
"""The same for a comparison with an oracle, which computes in float64: 94 and 121 of float32."""
WEIGHT_BYTES = 8
"""Bytes of a weight and its gradient in float32."""
LARGE = 10_000
"""A system with an option from here on (units in a layer, say) is counted before it is built."""

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}
"""Names to the dtype of parameters and data; bfloat16 is what a system may work in (`work_in`)."""


def resolve_device(name: str | torch.device | None) -> torch.device:
    """The torch device of this name; None is the CPU.

    Raises
    ------
    InputError
        If torch knows no such device or this machine has none.
    """
    try:
        device = torch.device("cpu" if name is None else name)
    except (RuntimeError, TypeError):
        raise argument_error("device", "be 'cpu', 'cuda' or 'cuda:N'", repr(name)) from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise argument_error("device", "be 'cpu' on a machine without a CUDA device", repr(name))
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise argument_error("device", f"be below cuda:{torch.cuda.device_count()}", repr(name))
    elif device.type != "cpu":
        raise argument_error("device", "be 'cpu', 'cuda' or 'cuda:N'", repr(name))
    return device


class OnHost(nn.Module):
    """A module that computes on the CPU only, and says so when it is moved to another device.

    A class derives from this one beside its own base, and sets `on_host`.

    Attributes
    ----------
    on_host : str
        What computes there: the end of a sentence that begins with the name of the class.
    """

    on_host = "computes on the CPU"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Move or convert all tensors: `to`, `cuda` and their like come through here, as in `torch.nn.Module`.

        Raises
        ------
        InputError
            If the tensors would leave the CPU; they are where they were then.
        """
        try:
            where = fn(torch.empty(0)).device
            told = "" if where.type in ("cpu", "meta") else str(where)
        except (AssertionError, RuntimeError) as error:  # a device that this machine, or this torch, has not
            told = f"another ({str(error).splitlines()[0].rstrip('.')})"
        if told:
            raise argument_error("device", f"be 'cpu' for {type(self).__name__}, which {self.on_host}", told)
        return super()._apply(fn, recurse)


def on_host(module: Module) -> Module:
    """The module itself if it is on the CPU, else a copy of it that is."""
    if all(t.device.type == "cpu" for t in itertools.chain(module.parameters(), module.buffers())):
        return module
    return copy.deepcopy(module).cpu()


def resolve_dtype(name: str | torch.dtype | None) -> torch.dtype:
    """'float32' (also for None), 'float64' or 'bfloat16' as the dtype of parameters, which for the last is float32.

    Raises
    ------
    InputError
        For anything else.
    """
    if name is None:
        return torch.float32
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name not in DTYPES:
        raise unknown_name("dtype", str(name), DTYPES)
    return DTYPES[name]


def work_in(system: nn.Module, name: str | torch.dtype | None) -> None:
    """Have a system work in bfloat16, if that is what `name` says.

    Raises
    ------
    InputError
        If the system cannot.
    """
    if str(name).removeprefix("torch.") != "bfloat16":
        return
    if not hasattr(system, "compute_dtype"):
        must = f"be 'float32' or 'float64' for {type(system).__name__}, which cannot work in less"
        raise argument_error("dtype", must, repr(name))
    system.compute_dtype = torch.bfloat16  # type: ignore[assignment]


def available_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device; None if that cannot be told."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [n for n in (_host_memory(), _group_memory(), _own_memory()) if n is not None]
    return min(found, default=None)


def require_memory(needed: int, device: torch.device, what: str = "data and weights") -> None:
    """Raise InputError if `needed` bytes cannot be had on a device.

    Parameters
    ----------
    needed : int
    device : torch.device
    what : str
        What the memory is for.
    """
    there = available_memory(device)
    if there is not None and needed > there:
        raise InputError(
            f"Too little memory on {device}: {what} need {readable(needed)}, but {readable(there)} are free. "
            "Use fewer examples (data.train_examples) or a smaller system."
        )


def require_room(
    name: str, count: int, system: Any, sample: torch.Tensor, numbers: int = STEP_NUMBERS, each: int = 1
) -> None:
    """Raise InputError, with what would fit, if the phases of a batch need more memory than there is.

    Parameters
    ----------
    name : str
        What the user calls the size of the batch.
    count : int
        Examples.
    system : PhysicalSystem
    sample : Tensor (1, ...)
        An example's inputs.
    numbers : int
        Numbers that are held at once for each input and unit of an example.
    each : int
        States of an example: starts, say.
    """
    there = available_memory(system.device)
    if there is None:
        return
    shapes = getattr(system, "shapes", None)
    if shapes is None:
        with torch.no_grad():
            units = sum(block.numel() for block in system.initial_state(sample))
    else:
        units = sum(map(math.prod, shapes[1:]))
    size = numbers * each * (sample.numel() + units) * system.dtype.itemsize
    if count * size > there:
        must = f"be at most {there // size:,}, for which the {readable(there)} would do that are free"
        raise argument_error(name, must, f"{count:,} ({readable(count * size)})")


def require_weights(build: Callable[[], nn.Module], options: Any, size: int) -> None:
    """Raise InputError if there is too little memory for the weights of a module that is to be built.

    Parameters
    ----------
    build : callable
    options : nested lists and mappings
        What it is built of; where none of their integers reaches `LARGE`, nothing is counted.
    size : int
        Bytes a weight.
    """
    if _largest(options) >= LARGE:
        weights = parameters_of(build) or 0
        require_memory(weights * size, torch.device("cpu"), f"{weights} parameters")


def require_dense(sizes: Sequence[int]) -> None:
    """Raise InputError if there is too little memory for weights between each two layers of these many units."""
    if max(sizes) >= LARGE:
        weights = sum(a * b for a, b in itertools.pairwise(sizes))
        require_memory(weights * WEIGHT_BYTES // 2, torch.device("cpu"), f"{weights} weights")


def _largest(value: Any) -> int:
    """Largest integer in nested options."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int) else 0


def readable(count: int) -> str:
    """A number of bytes in words, such as '1.5 GiB'."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def parameters_of(build: Callable[[], nn.Module]) -> int | None:
    """Number of parameters that a module will have, without making room for them.

    Returns
    -------
    int or None
        None if its constructor needs real numbers.
    """
    # A second's worth of imports, which small systems are spared.
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with FakeTensorMode():
            return sum(p.numel() for p in build().parameters())
    except Exception:
        # Whatever goes wrong here, the real construction will tell the user in its own words.
        return None


KEPT_BYTES = 128 * 2**20
"""Freed memory that a process keeps for its next step: a step of a few million numbers needs less, and a larger one
spends its time elsewhere."""
BLOCK_BYTES = 32 * 2**20
"""Blocks of memory below this size are kept when they are freed: the most that glibc allows."""


def keep_memory() -> None:
    """Let the C library keep some freed memory (`KEPT_BYTES`) for the rest of the process; glibc alone is asked.

    glibc gives freed memory back to the system, which hands it out again page by page, each filled with zeros: up
    to a fifth of a step of a small network. See mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
    """
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, mmap_threshold = -1, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(trim_threshold, KEPT_BYTES)
    mallopt(mmap_threshold, BLOCK_BYTES)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Within this context, torch uses so many threads, since sums of another grouping round differently.

    What runs in such a block makes many steps, so that freed memory is kept from then on (`keep_memory`).
    """
    keep_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _host_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _group_memory() -> int | None:
    """What the limit of a container leaves (control groups, version 2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    # File caches count as used but are given up on demand; half of them is a careful guess.
    return None if limit == "max" else max(0, int(limit) - used // 2)


def _own_memory() -> int | None:
    """What a limit of addresses (`ulimit -v`, schedulers) leaves to this process."""
    try:
        import resource  # Windows has none

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return None
    return None if limit == resource.RLIM_INFINITY else max(0, limit - used)


def first_tensor(module: nn.Module) -> torch.Tensor | None:
    """The first of `module.parameters()`, or else the first floating-point buffer; None: there is none."""
    first = first_parameter(module)
    return first if first is not None else next((b for b in module.buffers() if b.is_floating_point()), None)


def first_parameter(module: nn.Module) -> nn.Parameter | None:
    """The first of `module.parameters()`, without a walk over all modules: a step asks for it many times."""
    for p in module._parameters.values():
        if p is not None:
            return p
    for part in module._modules.values():
        found = None if part is None else first_parameter(part)
        if found is not None:
            return found
    return None
