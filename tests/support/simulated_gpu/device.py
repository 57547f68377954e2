"""Tensors of the simulated device, and the mode under which there is one."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.support.simulated_gpu import rules
from tests.support.simulated_gpu.counts import Counts, place
from tests.support.simulated_gpu.shim import install

DEVICE = torch.device("cuda", 0)
NAME = "simulated CUDA device (computed on the CPU)"
BLOCK = 512
"""Bytes of the units in which torch's allocator gives memory out on a GPU."""


class DeviceTensor(torch.Tensor):
    """A tensor that says it is on cuda:0, around the CPU tensor `inner` that holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    inner: torch.Tensor
    gpu: SimulatedGpu

    @staticmethod
    def __new__(cls, inner: torch.Tensor, gpu: SimulatedGpu) -> DeviceTensor:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        own = torch.Tensor._make_wrapper_subclass(cls, inner.size(), device=DEVICE, **layout)
        # Conjugation and negation, which torch may put off, are marks of the wrapper: the tensor inside has none.
        torch._C._set_conj(own, inner.is_conj())
        torch._C._set_neg(own, inner.is_neg())
        own.inner, own.gpu = _toggled(inner, inner), gpu
        return own

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Take the device's way also where no mode is active, as in the backward pass of autograd's own threads."""
        own = next(t for t in tree_leaves((args, kwargs)) if isinstance(t, DeviceTensor))
        return own.gpu.__torch_dispatch__(func, types, args, kwargs)

    def numpy(self, *_: Any, force: bool = False, **__: Any) -> Any:
        if not force:
            hint = "Use Tensor.cpu() to copy the tensor to host memory first."
            raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. {hint}")
        return self.detach().cpu().numpy()

    __array__ = numpy

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def _set_data(self, value: Any) -> None:
        if not isinstance(value, DeviceTensor):
            raise TypeError(
                "the .data of a tensor of the simulated device cannot become a CPU tensor: use Module.to"
            )
        torch._C.TensorBase.data.__set__(self, value)  # type: ignore[attr-defined]
        self.inner = value.inner

    data = property(torch._C.TensorBase.data.__get__, _set_data)  # type: ignore[attr-defined]
    untyped_storage = property(lambda self: self.inner.untyped_storage)
    data_ptr = property(lambda self: self.inner.data_ptr)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{self.inner!r} on {DEVICE}"

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.dim() == 0 else repr(self), spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            twin = self.detach().clone().requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                twin._is_param = True  # type: ignore[attr-defined]
            twin.grad = None if self.grad is None else self.grad.detach().clone()
            memo[id(self)] = twin
        return memo[id(self)]


class SimulatedGpu(TorchDispatchMode):
    """While the block lasts there is a CUDA device, cuda:0.

    Parameters
    ----------
    memory : int
        Bytes of the device; asking for more raises torch.OutOfMemoryError. `live` are in use.
    host_elements : int
        Operators on CPU tensors of fewer elements are not counted in `Counts.on_host`.
    """

    def __init__(self, memory: int = 80 * 2**30, host_elements: int = 1000) -> None:
        install()
        super().__init__()
        self.memory, self.host_elements = memory, host_elements
        self.live = 0
        self._counts = [Counts()]
        self._storages: dict[int, int] = {}
        self._random = torch.Generator().manual_seed(0)
        self._exits = ExitStack()

    def __enter__(self) -> SimulatedGpu:
        for name, value in self._of_torch_cuda().items():
            self._exits.enter_context(mock.patch.object(torch.cuda, name, value))
        # One thread, so that counts have their places.
        self._exits.enter_context(torch.autograd.set_multithreading_enabled(False))
        # As on a GPU, Module.to keeps its Parameter objects, so that optimizers made before still hold them.
        swaps = torch.__future__.get_swap_module_params_on_conversion()
        self._exits.callback(torch.__future__.set_swap_module_params_on_conversion, swaps)
        torch.__future__.set_swap_module_params_on_conversion(True)
        # torch.tensor(numbers, device=) makes its tensor on the CPU, and moves it by an operator that comes here.
        self._exits.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._exits.close()

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count what the block asks of the device. Blocks may be nested."""
        self._counts.append(Counts(start_bytes=self.live, peak_bytes=self.live))
        try:
            yield self._counts[-1]
        finally:
            self._counts.pop()

    # -- an operator ----------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        device_tensors = [t for t in tensors if isinstance(t, DeviceTensor)]
        name, asked = func._schema.name.removeprefix("aten::"), kwargs.get("device")
        to_device = bool(device_tensors) if asked is None else asked.type == "cuda"
        if name == "copy_":
            to_device = isinstance(args[0], DeviceTensor)
        if name in rules.COPIES:
            hurried = kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,))
            self._copies(name, args[rules.COPIES[name]], to_device, bool(hurried))
        elif device_tensors:
            host_tensors = [t for t in tensors if not isinstance(t, DeviceTensor)]
            refused = rules.objection(func, name, args, device_tensors, host_tensors)
            if refused is not None:
                raise refused[0](refused[1])
            for index in rules.uploaded_indices(name, args, host_tensors):
                self._moved("upload", f"{name} by a CPU tensor", index.nbytes)
            kind = rules.wait(func, name, args, kwargs)
            if kind is not None:
                self._waited(kind, name)
        result = self._computed(func, args, kwargs, to_device)
        if to_device:
            launches = rules.launches(func, name, args)
            for counts in self._counts if launches else ():
                counts.operators[name] += launches
        elif not device_tensors and name not in rules.BOOKKEEPING and not func.is_view:
            sizes = [t.numel() for t in (*tensors, *tree_leaves(result)) if isinstance(t, torch.Tensor)]
            if max(sizes, default=0) >= self.host_elements:
                for counts in self._counts:
                    counts.on_host[name, place()] += 1
        if func._schema.is_mutable:
            return self._written(func, args, kwargs, result) if device_tensors else result
        return tree_map(self._wrapped, result) if to_device else result

    def _computed(self, func: Any, args: Any, kwargs: dict[str, Any], to_device: bool) -> Any:
        """The operator's result on the tensors inside."""
        own = tree_map(_inner, kwargs)
        if own.get("device") is not None and own["device"].type == "cuda":
            own["device"] = torch.device("cpu")
        if "generator" not in own and torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*tree_map(_inner, args), **own)
        given = own.get("generator")
        if given is not None and (given.device.type == "cuda") != to_device:
            right, wrong = ("cuda", "cpu") if to_device else ("cpu", "cuda")
            raise RuntimeError(f"Expected a '{right}' device type for generator but found '{wrong}'")
        if not to_device:
            return func(*tree_map(_inner, args), **own)
        # The device's generator lends its state to the CPU's, which draws for it.
        generator, before = given or self._random, torch.get_rng_state()
        torch.set_rng_state(generator.get_state())
        own.update(dict.fromkeys(own.keys() & {"generator"}))
        try:
            return func(*tree_map(_inner, args), **own)
        finally:
            generator.set_state(torch.get_rng_state())
            torch.set_rng_state(before)

    def _written(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """The very arguments that the operator wrote to; what else it returns is new."""
        if torch.Tag.inplace_view in func.tags:
            with torch._C._DisableTorchDispatch():  # type: ignore[attr-defined]
                func(*args, **kwargs)  # sizes and strides are the wrapper's own
        schema = func._schema
        given = dict(zip((a.name for a in schema.arguments), args, strict=False)) | kwargs
        written = {
            frozenset(a.alias_info.before_set): given.get(a.name)
            for a in schema.arguments
            if a.alias_info is not None and a.alias_info.is_write
        }
        several = isinstance(result, tuple)
        returned = []
        for declared, value in zip(schema.returns, result if several else (result,), strict=False):
            alias = declared.alias_info
            owner = None if alias is None else written.get(frozenset(alias.before_set))
            returned.append(tree_map(self._wrapped, value) if owner is None else owner)
        return tuple(returned) if several else next(iter(returned), None)

    def _wrapped(self, value: Any) -> Any:
        """A result as a tensor of the device; its storage is in use until nobody holds it."""
        if not isinstance(value, torch.Tensor):
            return value
        storage = value.untyped_storage()
        if storage._cdata not in self._storages:
            size = -(-storage.nbytes() // BLOCK) * BLOCK
            if self.live + size > self.memory:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB.")
            self._storages[storage._cdata] = size
            weakref.finalize(storage, self._freed, storage._cdata).atexit = False
            self.live += size
            for counts in self._counts:
                counts.peak_bytes = max(counts.peak_bytes, self.live)
        return DeviceTensor(value, self)

    def _freed(self, key: int) -> None:
        self.live -= self._storages.pop(key)

    # -- what is counted ------------------------------------------------------------------------------------------

    def _waited(self, kind: str, name: str) -> None:
        for counts in self._counts:
            counts.waits[kind, name, place()] += 1

    def _copies(self, name: str, source: torch.Tensor, to_device: bool, hurried: bool) -> None:
        """Count a copy if it is one between the host and the device."""
        if isinstance(source, DeviceTensor) != to_device:
            self._moved(
                "upload" if to_device else "download", name, source.nbytes, waits=not (hurried and to_device)
            )

    def _moved(self, kind: str, name: str, size: int, *, waits: bool = True) -> None:
        if waits:
            self._waited(kind, name)
        for counts in self._counts:
            if kind == "upload":
                counts.uploads += 1
                counts.uploaded += size
            else:
                counts.downloaded += size

    def _of_torch_cuda(self) -> dict[str, Any]:
        """What `torch.cuda` answers while the block lasts, by name."""

        def always(value: Any) -> Any:
            return lambda *_, **__: value

        def synchronize(device: Any = None) -> None:
            self._waited("explicit", "synchronize")

        def event(*_: Any, **__: Any) -> Any:
            own = SimpleNamespace(synchronize=synchronize, query=always(True), wait=always(None))
            own.record = lambda stream=None: setattr(own, "time", time.perf_counter())
            own.elapsed_time = lambda other: 1e3 * (other.time - own.time)
            return own

        def in_use(device: Any = None) -> int:
            return self.live

        def most_in_use(device: Any = None) -> int:
            return self._counts[0].peak_bytes

        def forget_most(device: Any = None) -> None:
            self._counts[0].peak_bytes = self.live

        about = SimpleNamespace(name=NAME, total_memory=self.memory, major=9, minor=0, multi_processor_count=132)
        stream = SimpleNamespace(synchronize=synchronize, wait_stream=always(None))
        answers = {
            "is_available": True,
            "is_initialized": True,
            "_lazy_init": None,
            "device_count": 1,
            "current_device": 0,
            "set_device": None,
            "empty_cache": None,
            "get_device_name": NAME,
            "get_device_capability": (9, 0),
            "get_device_properties": about,
            "is_bf16_supported": True,
            "current_stream": stream,
        }
        return {name: always(value) for name, value in answers.items()} | {
            "synchronize": synchronize,
            "Event": event,
            "memory_allocated": in_use,
            "memory_reserved": in_use,
            "max_memory_allocated": most_in_use,
            "max_memory_reserved": most_in_use,
            "reset_peak_memory_stats": forget_most,
            "mem_get_info": lambda device=None: (self.memory - self.live, self.memory),
            "manual_seed": self._random.manual_seed,
            "manual_seed_all": self._random.manual_seed,
            "get_rng_state": lambda device=None: self._random.get_state(),
            "set_rng_state": lambda state, device=None: self._random.set_state(state),
        }


def _toggled(tensor: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
    """The tensor, conjugated and negated as the other one is marked to be."""
    tensor = tensor.conj() if marks.is_conj() else tensor
    return tensor._neg_view() if marks.is_neg() else tensor


def _inner(value: Any) -> Any:
    """The CPU tensor inside a tensor of the device; anything else as it is."""
    return _toggled(value.inner, value) if isinstance(value, DeviceTensor) else value
