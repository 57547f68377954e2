"""Record the forward pass of a model as it runs: every call of a torch function, with the place that makes it.

The model runs on real tensors, so that loops, checks of shapes and calls that depend on the mode are what they are
for this input. What a record cannot hold is refused with the line of the model's source: control flow that
depends on the numbers of a tensor, in-place activations, tensors that torch does not tell the origin of.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import random
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import _SingleLevelFunction
from torch.nn import functional
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from ...errors import InputError, argument_error
from .expansions import EXPANSIONS
from .graph import CallGraph, Node, Ref, leaves, mapped, pruned

METADATA = {
    *("__get__", "size", "dim", "ndimension", "numel", "nelement", "stride", "__len__", "__hash__", "__repr__"),
    *("is_floating_point", "is_complex", "is_contiguous", "element_size", "storage_offset", "get_device", "type"),
    *("is_signed", "is_same_size", "is_inference", "has_names", "is_pinned", "data_ptr", "__format__", "__dir__"),
    *("is_tensor", "broadcast_shapes", "result_type", "can_cast", "__setstate__", "__reduce_ex__", "__set__"),
}
"""Functions whose results that are no tensors do not depend on the numbers in one."""

OUT_OF_PLACE: dict[str, Callable[..., Any]] = {
    "__iadd__": torch.add,
    "add_": torch.add,
    "__isub__": torch.sub,
    "sub_": torch.sub,
    "__imul__": torch.mul,
    "mul_": torch.mul,
    "__itruediv__": torch.div,
    "div_": torch.div,
}
"""In-place functions that have a partner with the same arguments."""

STATISTICS: dict[Any, tuple[str, ...]] = {
    functional.batch_norm: (
        *("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    ),
    functional.instance_norm: (
        *("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps"),
    ),
}
"""Norms that change running statistics, and their arguments; the sixth says whether they use those of the batch."""

ACTIVATIONS = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus"),
    *("softsign", "tanh", "sigmoid", "logsigmoid", "hardtanh", "hardswish", "hardsigmoid", "hardshrink"),
    *("softshrink", "tanhshrink", "threshold", "glu", "clamp", "clip", "clamp_min", "clamp_max", "sin", "cos"),
    *("erf", "atan", "arctan", "asinh", "sinc", "square", "expit", "log_sigmoid"),
}
"""Functions that count as activations."""


class CallRecorder(TorchFunctionMode):
    """Within this mode, calls of torch functions become nodes.

    Parameters
    ----------
    names : dict
        Parameters and buffers by the id of their tensor.
    x : Tensor
        The model's input.
    """

    def __init__(self, names: dict[int, str], x: torch.Tensor) -> None:
        super().__init__()
        self.names = names
        self.nodes = [Node("input", "input", from_input=True)]
        self.numbers = {id(x): 0}
        self.kept: list[Any] = [x]
        """Tensors that are values of nodes, so that their ids stay theirs."""
        self.values: dict[int, torch.Tensor] = {0: x}
        self.path: list[str] = []
        self.paths: dict[int, str] = {}
        self.returned_by: dict[str, list[int]] = {}
        self.mutates = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "_name", "") in CONTROL_FLOW:  # where torch does not compile it first
            self._refuse("has control flow that torch compiles (torch.cond, torch.while_loop)")
        if func in STATISTICS:
            args, kwargs = self._without_statistics(func, args, kwargs)
        if func in EXPANSIONS:
            with self:
                return EXPANSIONS[func](*args, **kwargs)
        return self.call(func, plain_name(func), args, kwargs)

    def call(self, func: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
        """Make a call, and record it if its result is a tensor that depends on the input or on a parameter."""
        tensors = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        known = [t for t in tensors if id(t) in self.numbers or id(t) in self.names]
        self._check_call(func, name, args, kwargs, known)
        self._keep_constant(name, args, known)
        versions = [t._version for t in tensors]
        before = random_state(self.kept[0].device)
        result = func(*args, **kwargs)
        drew = not torch.equal(before, random_state(self.kept[0].device))
        changed = [t for t, v in zip(tensors, versions, strict=True) if t._version != v]
        results = [leaf for leaf in leaves(result) if isinstance(leaf, torch.Tensor)]
        if not results and not changed:
            if known and name not in METADATA:
                self._refuse_reading(name, known)
            return result
        if not known and not drew:
            return result
        self._check_precision(known, results)
        if changed:
            return self._record_in_place(func, name, args, kwargs, result, changed, drew)
        if isinstance(result, torch.Tensor) and any(result is t for t in tensors):
            return result  # nothing was to be done
        if drew:
            result = mapped(result, lambda leaf: _expected(leaf, known))
        number = self._add(func, name, args, kwargs, drew)
        self._name_results(result, number)
        return result

    def custom(self, cls: Any, apply: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Record a call of a `torch.autograd.Function` as one, with the derivative that it declares."""
        if cls.__name__ == "CheckpointFunction":  # what it runs again in its backward pass is recorded as it is
            return args[0](*args[2:])
        with torch._C.DisableTorchFunction():
            return self.call(apply, f"{cls.__name__}.apply", args, kwargs)

    def _without_statistics(self, func: Any, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of a norm that is to normalise by the batch, and not to change its running statistics."""
        names = STATISTICS[func]
        own = {**dict(zip(names, args, strict=False)), **kwargs}
        uses = own.get(names[5], names[5] == "use_input_stats")
        if uses and own.get("running_mean") is not None:
            self.mutates = True
            own["running_mean"] = own["running_var"] = None
        return (own.pop("input"),), own

    def _add(self, func: Any, name: str, args: Any, kwargs: Any, drew: bool) -> int:
        args, kwargs = self._referred(args), self._referred(kwargs)
        node = Node("call", name, func, args, kwargs, self.path[-1] if self.path else "", place(), drew)
        node.cut = not torch.is_grad_enabled() or name in ("detach", "data")
        node.from_input = any(self.nodes[j].from_input for j in node.sources())
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _name_results(self, result: Any, number: int) -> None:
        if isinstance(result, torch.Tensor):
            self._bind(result, number)
        elif isinstance(result, tuple | list):
            for k, part in enumerate(result):
                if isinstance(part, torch.Tensor):
                    self._bind(part, self._item(number, k))
                elif part is not None and any(isinstance(leaf, torch.Tensor) for leaf in leaves(part)):
                    self._name_results(part, self._item(number, k))

    def _item(self, number: int, k: int) -> int:
        node = self.nodes[number]
        item = Node("call", "getitem", _getitem, (Ref(number), k), {}, node.module, node.place)
        item.from_input = node.from_input
        self.nodes.append(item)
        return len(self.nodes) - 1

    def _bind(self, tensor: torch.Tensor, number: int) -> None:
        self.numbers[id(tensor)] = number
        self.kept.append(tensor)
        self.values[number] = tensor

    def _record_in_place(
        self, func: Any, name: str, args: Any, kwargs: Any, result: Any, changed: list[torch.Tensor], drew: bool
    ) -> Any:
        target = changed[0]
        if any(_root(t) is not _root(target) for t in changed) or kwargs.get("out", target) is not target:
            self._refuse(f"calls {name!r}, which writes into a tensor that it is given")
        if id(_root(target)) in self.names:
            self.mutates = True
        if drew and target.is_floating_point():
            with torch.no_grad():
                target.fill_(1.0)
        partner = OUT_OF_PLACE.get(name)
        if "out" in kwargs:
            number = self._add(func, name, args, {k: v for k, v in kwargs.items() if k != "out"}, drew)
        elif partner is not None and target is args[0]:
            number = self._add(partner, name.strip("_").removeprefix("i"), args, kwargs, drew)
        else:
            number = self._add(_InPlace(func, _where(args, target)), name.rstrip("_"), args, kwargs, drew)
        self._write(target, number)
        return result

    def _keep_constant(self, name: str, args: Any, known: list[torch.Tensor]) -> None:
        """Before a call that writes what is known into a tensor of the model's own making (`out = torch.zeros(...);
        out[:, t] = h`), let what that tensor holds be a constant of the record."""
        if not known or not _writes(name) or not args or not isinstance(args[0], torch.Tensor):
            return
        for t in (_root(args[0]), args[0]):
            if id(t) not in self.numbers and id(t) not in self.names and t.grad_fn is None:
                constant = t.detach().clone()
                self.nodes.append(Node("call", "constant", _Constant(constant), (), {}, "", place()))
                self.numbers[id(t)] = len(self.nodes) - 1
                self.kept.append(t)

    def _write(self, target: torch.Tensor, number: int) -> None:
        """Let a tensor that was written into be a node, and so what shares its memory: what it is a view of, and
        other views of that."""
        root = _root(target)
        self._bind_copy(target, number)
        if root is not target:
            if id(root) in self.names:
                self._referred(root)
            if id(root) not in self.numbers or not root.is_contiguous():
                return  # a record that misses a write differs from the model where they are compared
            number = self._derived("write", _Write(target, root), (Ref(self.numbers[id(root)]), Ref(number)))
            self._bind_copy(root, number)
        if not root.is_contiguous():
            return
        for view in [t for t in self.kept if t is not target and t is not root and _root(t) is root]:
            if id(view) in self.numbers:
                self._bind_copy(view, self._derived("view", _View(view, root), (Ref(number),)))

    def _derived(self, name: str, function: Callable[..., Any], args: tuple[Ref, ...]) -> int:
        node = Node("call", name, function, args, {}, self.path[-1] if self.path else "", place())
        node.from_input = any(self.nodes[ref.node].from_input for ref in args)
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _bind_copy(self, tensor: torch.Tensor, number: int) -> None:
        if self.numbers.get(id(tensor)) is None or not any(t is tensor for t in self.kept):
            self.kept.append(tensor)
        self.numbers[id(tensor)] = number
        self.values[number] = tensor.detach().clone()

    def _referred(self, value: Any) -> Any:
        def refer(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            if id(leaf) in self.numbers:
                return Ref(self.numbers[id(leaf)])
            if id(leaf) in self.names:
                self.nodes.append(Node("tensor", self.names[id(leaf)]))
                self._bind(leaf, len(self.nodes) - 1)
                return Ref(self.numbers[id(leaf)])
            if isinstance(leaf, nn.Parameter) and leaf.requires_grad:
                self._refuse("uses a parameter that is none of its own (of another model, or in a plain list)")
            if leaf.grad_fn is not None:
                raise HiddenError(
                    "Argument model must compute by functions that torch shows, but does not at "
                    f"{place()} (torch.jit, torch.func, a library, a write into another tensor's memory)."
                )
            return leaf

        return mapped(value, refer)

    # -- what is refused --------------------------------------------------------------------------------------

    def _check_call(self, func: Any, name: str, args: Any, kwargs: Any, known: list[torch.Tensor]) -> None:
        if not known:
            return
        if func is torch.autograd.grad:
            self._refuse("differentiates (torch.autograd.grad) what it computes")
        plain = name.rstrip("_")
        inplace = kwargs.get("inplace") is True or (name.endswith("_") and not name.endswith("__"))
        if plain in ACTIVATIONS and inplace:
            where = f"module {self.path[-1]!r}" if self.path and self.path[-1] else "the model"
            raise InputError(
                f"Argument model must have no activations in place, which overwrite what other phases need, but "
                f"{where} has {plain!r} in place (inplace=False makes it another)."
            )
        if name in ("register_hook", "backward", "__setstate__", "retain_grad") and name != "retain_grad":
            self._refuse(f"calls {name!r} of a tensor in its forward pass")

    def _check_precision(self, known: list[torch.Tensor], results: list[torch.Tensor]) -> None:
        """Refuse a call that autocast has made in another precision than that of its arguments."""
        kind = self.kept[0].device.type
        if not torch.is_autocast_enabled(kind):
            return
        low = torch.get_autocast_dtype(kind)
        if any(r.dtype == low for r in results) and any(t.is_floating_point() and t.dtype != low for t in known):
            raise NotRecordableError(
                f"Argument model must compute in the precision of its weights, but torch.autocast does in {low} "
                f"at {place()}."
            )

    def _refuse_reading(self, name: str, known: list[torch.Tensor]) -> None:
        what = (
            "control flow" if name in ("__bool__", "__index__", "is_nonzero", "equal", "allclose") else "a number"
        )
        self._refuse(f"takes {what} from the values of a tensor ({name.strip('_')})")

    def _refuse(self, does: str) -> None:
        raise NotRecordableError(
            f"Argument model must have one forward pass for all values, but {does} at {place()}."
        )


CONTROL_FLOW = ("cond", "while_loop", "scan", "associative_scan", "map_impl")
"""Names of torch's operators whose calls depend on values."""


class NotRecordableError(InputError):
    """Raised when a forward pass does what no record can hold."""


class NoInputError(InputError):
    """Raised when a model does not run on an input; the message goes on after the name of the caller's argument."""


class HiddenError(NotRecordableError):
    """Raised when a tensor comes from calls that no mode of torch's functions sees."""


class _InPlace:
    """An in-place function that works on a copy and returns it."""

    def __init__(self, function: Callable[..., Any], where: int) -> None:
        self.function = function
        self.where = where

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        own = list(args)
        own[self.where] = own[self.where].clone()
        self.function(*own, **kwargs)
        changed: torch.Tensor = own[self.where]
        return changed


class _Constant:
    """What a tensor of the model's own making held before something known was written into it."""

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value

    def __call__(self) -> torch.Tensor:
        return self.value


class _View:
    """A view of a contiguous tensor, by its place in memory."""

    def __init__(self, view: torch.Tensor, root: torch.Tensor) -> None:
        self.at = view.shape, view.stride(), view.storage_offset() - root.storage_offset()

    def __call__(self, root: torch.Tensor) -> torch.Tensor:
        return root.contiguous().as_strided(*self.at)


class _Write(_View):
    """A contiguous tensor after a value was written into a view of it."""

    def __call__(self, root: torch.Tensor, value: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        whole = root.clone(memory_format=torch.contiguous_format)
        whole.as_strided(*self.at).copy_(value)
        return whole


def _root(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor whose memory a view shares, or the tensor itself."""
    return tensor if tensor._base is None else tensor._base


def _writes(name: str) -> bool:
    """Whether a function of this name writes into its first argument."""
    if name.endswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in ("__index__", "__invert__"))
    return name.endswith("_")


def record(model: nn.Module, names: dict[int, str], x: torch.Tensor) -> tuple[CallGraph, dict[int, torch.Tensor]]:
    """Record a forward pass by its torch functions, or by those of its `torch.export` where some are hidden.

    Arguments, result and errors are those of `recorded`.
    """
    try:
        return recorded(model, names, x)
    except HiddenError as hidden:
        try:
            program = torch.export.export(model, (x,), strict=False).module()
            tensors = [
                *program.named_parameters(remove_duplicate=False),
                *program.named_buffers(remove_duplicate=False),
            ]
            return recorded(program, {id(t): name for name, t in reversed(tensors)}, x)
        except Exception:  # whatever export does not take, the place that is known says more
            raise hidden from None


def recorded(model: nn.Module, names: dict[int, str], x: torch.Tensor) -> tuple[CallGraph, dict[int, torch.Tensor]]:
    """Run a model and return its forward pass, and the values of its nodes; random draws are expected values.

    Parameters
    ----------
    model : nn.Module
    names : dict
        Names of its parameters and buffers by the id of their tensor.
    x : Tensor (B, ...)

    Raises
    ------
    InputError
        If the pass cannot be recorded, or if the model does not run on x.
    """
    recorder = CallRecorder(names, x)
    recorder.paths = {id(m): path for path, m in reversed(list(model.named_modules()))}
    others = _other_generators()
    with torch.enable_grad(), _observed(recorder), torch.random.fork_rng(_devices(x.device)):
        try:
            with recorder:
                output = model(x)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, AttributeError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            if type(error).__module__.startswith("torch._dynamo"):
                raise NotRecordableError(
                    "Argument model must have one forward pass for all values, but has control flow that torch "
                    f"compiles (torch.cond, torch.while_loop) at {_place_of(error)}."
                ) from error
            reason = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, TypeError) and "required positional argument" in reason:
                reason += " (a module around the model may take one tensor and split it)"
            raise NoInputError(
                f"be an input that the model runs on, but was of shape {tuple(x.shape)}: {reason}"
            ) from error
    if _other_generators() != others:
        must = "draw its random numbers from torch, so that phases can draw them again"
        raise argument_error("model", must, "one that draws from Python's random or from numpy")
    if not isinstance(output, torch.Tensor):
        raise argument_error("model", "return one tensor (B, ...)", f"one that returns a {type(output).__name__}")
    number = recorder.numbers.get(id(output))
    if number is None or not recorder.nodes[number].from_input:
        raise argument_error("model", "return what it computes from its input", "one whose output does not change")
    graph = pruned(recorder.nodes, number, recorder.returned_by)
    graph.mutates = recorder.mutates
    own = {id(node) for node in graph.nodes}
    kept = [v for v, node in enumerate(recorder.nodes) if id(node) in own]
    return graph, {new: recorder.values[old] for new, old in enumerate(kept) if old in recorder.values}


@contextmanager
def _observed(recorder: CallRecorder) -> Iterator[None]:
    """Within, the recorder knows the module that runs, and sees calls of `torch.autograd.Function`."""

    def enter(module: nn.Module, given: Any) -> None:
        recorder.path.append(recorder.paths.get(id(module), recorder.path[-1] if recorder.path else ""))
        if module._backward_hooks or module._backward_pre_hooks:
            raise argument_error(
                "model", "have no backward hooks of modules, which phases do not call", f"on {recorder.path[-1]!r}"
            )

    def leave(module: nn.Module, given: Any, result: Any) -> None:
        path = recorder.path.pop()
        if isinstance(result, torch.Tensor) and id(result) in recorder.numbers:
            recorder.returned_by.setdefault(path, []).append(recorder.numbers[id(result)])

    def applied(cls: Any, *args: Any, **kwargs: Any) -> Any:
        return recorder.custom(cls, functools.partial(_apply, cls), args, kwargs)

    plain: Any = contextlib.nullcontext()
    if "torch._dynamo" in sys.modules:  # compiled parts would hide what they call
        plain = torch.compiler.set_stance("force_eager")
    handles = [hooks.register_module_forward_pre_hook(enter), hooks.register_module_forward_hook(leave)]
    # What `Function.apply` calls: a model may have taken hold of `apply` itself before.
    base: Any = _SingleLevelFunction
    base.apply = classmethod(applied)
    try:
        with plain:
            yield
    finally:
        del base.apply
        for handle in handles:
            handle.remove()


def plain_name(func: Any) -> str:
    """Name of a torch function without the overload of an operator ('relu.default')."""
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":
        owner = getattr(getattr(func, "__self__", None), "__name__", "")
        return owner if owner in ("data", "T", "mT", "H", "mH", "real", "imag", "grad") else name
    return str(name).partition(".")[0]


def place() -> str:
    """File, line and text of the innermost source line that is neither torch's nor of this folder."""
    lines = ((frame.f_code.co_filename, line) for frame, line in traceback.walk_stack(sys._getframe(1)))
    return _told(lines)


def _place_of(error: BaseException) -> str:
    """The same of the line at which an error was raised."""
    frames = [*traceback.walk_tb(error.__traceback__)]
    return _told((frame.f_code.co_filename, line) for frame, line in reversed(frames))


def _told(lines: Iterable[tuple[str, int]]) -> str:
    here = __file__.rpartition("/")[0]
    for file, line in lines:
        if not file.startswith((here, _TORCH, "<frozen")):
            text = linecache.getline(file, line).strip()
            return f"{file}:{line}" + (f" ({text})" if text else "")
    return "an unknown line"


_TORCH = torch.__file__.rpartition("/")[0]


@contextmanager
def replayed(state: torch.Tensor, device: torch.device) -> Iterator[None]:
    """Within this context, torch draws the random numbers that follow a saved state; afterwards its generators
    are as before.
    """
    with torch.random.fork_rng(_devices(device)):
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
        else:
            torch.set_rng_state(state)
        yield


def random_state(device: torch.device) -> torch.Tensor:
    """State of torch's generator on a device."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _other_generators() -> tuple[object, ...]:
    """States of the generators of Python and numpy, which no phase can set back for the model alone."""
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 (read, not drawn from)
    return random.getstate(), str(legacy["state"]["key"].tobytes()), legacy["state"]["pos"]


def _devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _expected(leaf: Any, known: list[torch.Tensor]) -> Any:
    """What stands for a random tensor where examples are compared: what went in, or ones."""
    if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
        return leaf
    like = next((t for t in known if t.shape == leaf.shape and t.dtype == leaf.dtype), None)
    return torch.ones_like(leaf) if like is None else like.clone()


def _where(args: Any, target: torch.Tensor) -> int:
    return next(i for i, leaf in enumerate(args) if leaf is target)


def _apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """What `torch.autograd.Function.apply` does in the end."""
    return super(_SingleLevelFunction, cls).apply(*args, **kwargs)


def _getitem(values: Any, k: int) -> Any:
    return values[k]
