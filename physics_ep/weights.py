"""The weights that a system's physics sees, and the parameters that their gradients go to.

They are the same thing in a plain system. They are not where a tensor is computed from parameters
(`torch.nn.utils.parametrize`, pruning, weight norms), where one parameter stands in several places (ties), or where
hooks change a gradient on its way. `Weights` lets a relaxation see plain tensors, computed once, and then hands the
gradient of each to autograd, which takes it where backprop would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .blocks import all_finite
from .errors import InputError
from .overrides import require_unpatched
from .physical_system import PhysicalSystem
from .stillness import Stillness

Tensors = dict[str, torch.Tensor]

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _Computed:
    """A module of which some tensors are computed from others, and how it is made plain for a while."""

    def __init__(self, path: str, module: nn.Module) -> None:
        self.path = path
        self.module = module
        self.kind = type(module)
        self.writers = {name: hook for hook in module._forward_pre_hooks.values() if (name := written(hook))}
        box = module._modules.get("parametrizations") if is_parametrised(module) else None
        self.box: Any = box
        self.names = [*self.writers, *([] if box is None else box)]  # type: ignore[misc]
        self.values: Tensors = {}
        self.plain: dict[str, nn.Parameter] = {}
        self.hooks: list[tuple[Any, Any]] = []

    def evaluate(self) -> None:
        """Compute the tensors, as a forward pass would, and take plain copies."""
        with torch.enable_grad():
            for hook in self.writers.values():
                hook(self.module, ())
            self.values = {name: getattr(self.module, name) for name in self.names}
        for name, value in self.values.items():
            self.plain[name] = nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad)

    def put(self) -> None:
        """Put the plain copies in the place of what computes them."""
        module = self.module
        if self.box is not None:
            module.__class__ = self.kind.__mro__[1]
            del module._modules["parametrizations"]
        self.hooks = list(module._forward_pre_hooks.items())
        for key, hook in self.hooks:
            if written(hook):
                del module._forward_pre_hooks[key]
        for name in self.writers:
            module.__dict__.pop(name, None)
        module._parameters.update(self.plain)

    def take(self) -> None:
        """Put back what computes the tensors, in the place of the plain copies."""
        module = self.module
        for name in self.names:
            del module._parameters[name]
        for name in self.writers:
            module.__dict__[name] = self.values[name]
        module._forward_pre_hooks.clear()
        module._forward_pre_hooks.update(self.hooks)
        if self.box is not None:
            module._modules["parametrizations"] = self.box
            module.__class__ = self.kind

    def moved(self) -> list[str]:
        """Names of plain copies that are no longer what was computed."""
        return [name for name, value in self.values.items() if not torch.equal(value, self.plain[name])]

    def write(self, name: str) -> None:
        """Set what a tensor is computed from so that it is as the plain copy has it, if that can be."""
        wanted, was = self.plain[name].detach(), self.values[name].detach()
        with torch.no_grad():
            if self.box is None:
                origin = getattr(self.module, f"{name}_orig", None)
            else:
                try:
                    setattr(self.module, name, wanted)
                    return
                except (NotImplementedError, RuntimeError):  # a parametrisation without an inverse
                    origin = getattr(self.box[name], "original", None)
            if isinstance(origin, torch.Tensor) and origin.shape == wanted.shape:
                origin.copy_(torch.where(wanted == was, origin, wanted))


class Weights:
    """The weights of a system for the length of a step; a context in which the system holds them as plain tensors.

    Tensors that are computed from parameters are computed once, when this is made: a spectral norm makes one power
    iteration, as in one forward pass. Within the context they are parameters of their own, by the names that they
    have in their modules (`layers.0.weight`), and hooks of tensors are silent. The energy is one and the same
    function within (`physics_ep.stillness`). It may be entered again later.

    Parameters
    ----------
    system : EnergySystem or VectorField
    """

    def __init__(self, system: PhysicalSystem) -> None:
        require_unpatched(system)
        self.system = system
        named = list(system.named_parameters(remove_duplicate=False))
        self.parameters = list({id(p): p for _, p in named}.values())
        self.computed: list[_Computed] = []
        self.hooked: list[tuple[str, nn.Module]] = []
        modules = list(system.modules())
        if any(map(_peculiar, modules)):
            for path, module in system.named_modules():
                if any(not written(hook) for kind in HOOKS for hook in getattr(module, kind).values()):
                    self.hooked.append((path, module))
                found = _Computed(path, module) if _peculiar(module) else None
                if found is not None and found.names:
                    self.computed.append(found)
        self.still = Stillness(system, modules)
        if self.computed:
            with self.still:
                for found in self.computed:
                    found.evaluate()
        self._named: dict[str, torch.Tensor] | None = None if self.computed else dict(named)
        """Parameters by all their names, where none is put in the place of another."""
        self._silenced: list[tuple[torch.Tensor, Any]] = []

    def __enter__(self) -> Weights:
        self._silenced = [(p, p._backward_hooks) for p in self.parameters if p._backward_hooks]
        for p, _ in self._silenced:
            p._backward_hooks = None
        for found in self.computed:
            found.put()
        self.still.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.still.__exit__()
        for found in self.computed:
            found.take()
        for p, hooks in self._silenced:
            p._backward_hooks = hooks
        self._silenced = []

    def versions(self) -> list[int]:
        """Version counters of all parameters, by which a change is seen."""
        return [p._version for p in self.parameters]

    def finite(self) -> bool:
        """Whether all weights are finite, within the context.

        A unit that saturates, or an input of zero, may hide one that is not (tanh of infinity is 1).
        """
        return all_finite(*(self.system.parameters() if self.computed else self.parameters))

    def constrain(self) -> None:
        """`system.constrain()`, within the context, in force for what computed tensors are computed from too.

        Raises
        ------
        InputError
            If a computed tensor cannot be kept in its physical range.
        """
        self.system.constrain()
        if not any(found.moved() for found in self.computed):
            return
        self.__exit__()
        for found in self.computed:
            for name in found.moved():
                found.write(name)
        for found in self.computed:
            found.evaluate()
        self.__enter__()
        self.system.constrain()
        for found in self.computed:
            for name in found.moved():
                whole = f"{found.path}.{name}" if found.path else name
                raise InputError(
                    f"Argument system must keep its weights in their physical range, but {whole!r} is computed "
                    "from others (a parametrisation, a mask) and leaves it."
                )

    def deposit(self, grads: Mapping[str, torch.Tensor]) -> None:
        """Add gradients to `.grad` of the parameters behind them, as backprop would.

        Gradients of tied tensors are summed, those of computed tensors go on to what they are computed from, and
        hooks are called.

        Parameters
        ----------
        grads : mapping of str to Tensor
            Gradients by the names within the context. Those of tensors that are not trained are left out.
        """
        self.check(grads)
        ends, tensors = [], []
        for end, grad in self._ends(grads):
            if end.is_leaf and not end._backward_hooks and not end._post_accumulate_grad_hooks:
                end.grad = grad if end.grad is None else end.grad + grad
            else:
                ends.append(end)
                tensors.append(grad)
        if ends:
            torch.autograd.backward(ends, tensors)

    def leaves(self, grads: Mapping[str, torch.Tensor]) -> Tensors:
        """Gradients by the system's own names of parameters, outside the context; no hook is called."""
        found: dict[int, torch.Tensor] = {}
        ends, tensors = [], []
        for end, grad in self._ends(grads):
            if end.is_leaf:
                found[id(end)] = grad
            else:
                ends.append(end)
                tensors.append(grad)
        trained = [p for p in self.parameters if p.requires_grad]
        if ends and trained:
            with unhooked(self.parameters):
                more = torch.autograd.grad(ends, trained, tensors, allow_unused=True, retain_graph=True)
            for p, grad in zip(trained, more, strict=True):
                if grad is not None:
                    found[id(p)] = found[id(p)] + grad if id(p) in found else grad
        return {name: found[id(p)] for name, p in self.system.named_parameters() if id(p) in found}

    def check(self, grads: Mapping[str, torch.Tensor]) -> None:
        """Refuse hooks of modules that a relaxation does not call.

        Raises
        ------
        InputError
            It names the module.
        """
        if not self.hooked:
            return
        system = type(self.system)
        own_rule = system.contrast is not system.contract.contrast or bool(system.overridden)
        unwritten = nn.Module.forward  # modules that have no forward pass of their own
        holders = {name.rpartition(".")[0] for name in grads}
        for path, module in self.hooked:
            lineage = [c for c in type(module).__mro__ if issubclass(c, nn.Module) and c.forward is not unwritten]
            layer = any(c.__module__.startswith("torch.nn.modules.") for c in lineage)
            called = bool(lineage) and (layer or not own_rule)
            if (path == "" and self.system.feedforward) or (path != "" and path in holders and not called):
                what = f"module {path!r}" if path else "itself"
                raise InputError(
                    f"Argument system must have no forward or backward hooks on {what}, which equilibrium "
                    "propagation does not call (a hook of the parameter itself is called: weight.register_hook)."
                )

    def _ends(self, grads: Mapping[str, torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Tensors from which autograd takes over (parameters, most of them), and the gradient of each."""
        behind = {id(c.plain[name]): value for c in self.computed for name, value in c.values.items()}
        with _put(self.computed):
            own = self._named or dict(self.system.named_parameters(remove_duplicate=False))
            found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
            for name, grad in grads.items():
                p = own[name] if name in own else attribute(self.system, name)
                if p is None or not p.requires_grad:
                    continue
                known = found.get(id(p))
                found[id(p)] = (behind.get(id(p), p), grad if known is None else known[1] + grad)
        return list(found.values())


def summed(system: nn.Module, grads: Tensors) -> Tensors:
    """Gradients of a tied parameter's uses summed under its first name."""
    first = {id(p): name for name, p in system.named_parameters()}
    if grads.keys() <= set(first.values()):
        return grads
    own = dict(system.named_parameters(remove_duplicate=False))
    found: Tensors = {}
    for name, grad in grads.items():
        key = first[id(own[name])] if name in own else name
        found[key] = found[key] + grad if key in found else grad
    return found


def refresh(module: nn.Module) -> None:
    """Compute anew what pruning and weight norms compute before a forward pass, for modules that have none."""
    for hook in module._forward_pre_hooks.values():
        if written(hook):
            hook(module, ())


def is_parametrised(module: nn.Module) -> bool:
    """Whether a tensor of the module has a `torch.nn.utils.parametrize` parametrisation."""
    box = module._modules.get("parametrizations")
    return isinstance(box, nn.ModuleDict) and all(isinstance(p, ParametrizationList) for p in box.values())


def written(hook: Any) -> str | None:
    """Name of the tensor that a forward pre-hook of torch's own writes (pruning, old weight norms), or None."""
    if isinstance(hook, BasePruningMethod):
        return hook._tensor_name
    return hook.name if isinstance(hook, WeightNorm | SpectralNorm) else None


def check_plain(module: nn.Module, argument: str, purpose: str, *, ties: bool = True) -> None:
    """Refuse weights that are computed from others, and modules or parameters with hooks, which copies would lose.

    Parameters
    ----------
    module : nn.Module
    argument : str
        What the caller calls it.
    purpose : str
        What it must be plain for.
    ties : bool
        Whether tied weights are allowed.

    Raises
    ------
    InputError
        It names the module or the weight.
    """
    for path, part in module.named_modules():
        names: list[str] = list(part.parametrizations) if is_parametrised(part) else []
        names += [name for hook in part._forward_pre_hooks.values() if (name := written(hook))]
        for name in names:
            whole = f"{path}.{name}" if path else name
            raise InputError(
                f"Argument {argument} must hold its weights as plain parameters {purpose}, but {whole!r} is "
                "computed from others, by a parametrisation, pruning or a norm: torch's remove_parametrizations, "
                "prune.remove and the like make it plain."
            )
        if any(getattr(part, kind) for kind in HOOKS):
            what = f"module {path!r}" if path else "itself"
            raise InputError(f"Argument {argument} must have no hooks {purpose}, but has one on {what}.")
    first: dict[int, str] = {}
    for name, p in module.named_parameters(remove_duplicate=False):
        if p._backward_hooks or p._post_accumulate_grad_hooks:
            raise InputError(f"Argument {argument} must have no hooks {purpose}, but has one on {name!r}.")
        if first.setdefault(id(p), name) != name and not ties:
            raise InputError(
                f"Argument {argument} must hold each weight once {purpose}, but {name!r} is {first[id(p)]!r}."
            )


def attribute(module: nn.Module, name: str) -> torch.Tensor | None:
    """The tensor that a dotted name such as 'layers.0.weight' leads to, or None."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, torch.Tensor) else None


@contextmanager
def unhooked(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Within this context, hooks of tensors are not called."""
    silenced = [(p, p._backward_hooks) for p in parameters if p._backward_hooks]
    try:
        for p, _ in silenced:
            p._backward_hooks = None
        yield
    finally:
        for p, hooks in silenced:
            p._backward_hooks = hooks


@contextmanager
def _put(computed: list[_Computed]) -> Iterator[None]:
    try:
        for found in computed:
            found.put()
        yield
    finally:
        for found in computed:
            found.take()


def _peculiar(module: nn.Module) -> bool:
    return bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "parametrizations" in module._modules
    )
