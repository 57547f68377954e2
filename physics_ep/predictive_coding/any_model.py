"""From any differentiable torch model to a predictive coding network: `from_module`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..blocks import all_finite, is_dense
from ..errors import InputError, argument_error, described, unknown_name
from ..physical_system import PhysicalSystem
from .canonical import BY_BATCH, NoLayersError, layered
from .network import ENERGIES, PredictiveCodingNetwork
from .traced.network import ModuleNetwork
from .traced.recording import NoInputError

FORMS = ("any", "layers")


@overload
def from_module(
    model: nn.Module,
    example: torch.Tensor,
    *,
    units: str | Sequence[str] = ...,
    gates: str = ...,
    energy: str = ...,
    form: Literal["any"] = ...,
) -> ModuleNetwork: ...


@overload
def from_module(
    model: nn.Module,
    example: torch.Tensor,
    *,
    units: str | Sequence[str] = ...,
    gates: str = ...,
    energy: str = ...,
    form: Literal["layers"],
) -> PredictiveCodingNetwork: ...


def from_module(
    model: nn.Module,
    example: torch.Tensor,
    *,
    units: str | Sequence[str] = "auto",
    gates: str = "held",
    energy: str = "squared",
    form: str = "any",
) -> ModuleNetwork | PredictiveCodingNetwork:
    """A predictive coding network whose forward pass is that of any differentiable torch model.

    The forward pass is recorded as it runs on the example, library modules (recurrent layers, attention) step by
    step, and cut into units: one behind every activation, every residual sum and every product with a softmax,
    one a step of time, and the output. See docs/any_model.md.

    Parameters
    ----------
    model : nn.Module
        It takes one tensor (B, ...) and returns one tensor (B, ...). It is copied, and left as it is.
    example : Tensor (B, ...)
        Inputs of the model, of any batch size.
    units : 'auto' or sequence of str
        Names of modules whose outputs are the units, or some of the names that 'auto' finds (`network.units`). The
        output is one anyway.
    gates : {'held', 'live'}
        Whether nudged phases hold the masks of activations with kinks, clips and the routes of poolings as the free
        phase has left them; they do by default, and the estimate then has the order of its scheme.
    energy : {'squared', 'paired'}
        E = 1/2 sum_k |h_k - f_k(parents)|^2, or that of pairs of units, which layers alone have.
    form : {'any', 'layers'}
        'layers': layers of linear maps and unit functions with norms folded (`canonical.layered`), which substrates
        hold (`map_pcn`) and for which the fast passes are; models that are not made of such are refused. Where a
        map and the norm behind it are both trained, what is trained is the folded map, as hardware holds it: the
        same function and its exact gradient, but an optimizer takes other steps than on the model.

    Returns
    -------
    ModuleNetwork
        An `EnergySystem`: `network(x)` is `model(x)`, `state_dict` has the model's names, and `units` the names
        of the units. With `form="layers"`, a `PredictiveCodingNetwork`.

    Raises
    ------
    InputError
        If the model cannot be recorded (control flow by values, activations in place, outputs that are no
        tensor), if it has no unit before its output, if the example is none of its inputs, or if what was
        recorded does not return what the model does.
    """
    if not isinstance(model, nn.Module):
        raise argument_error("model", "be an nn.Module", type(model).__name__)
    if isinstance(model, PhysicalSystem):
        raise argument_error("model", "be a model that is no energy system yet", f"a {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise argument_error("model", "be the model itself", "compiled by torch.jit, which shows nothing of it")
    if not is_dense(example):
        raise argument_error("example", "be a tensor (B, ...), one input of the model", described(example))
    if not example.ndim or not len(example) or example.is_complex():
        raise argument_error("example", "hold real numbers or integers, at least one example", described(example))
    if energy not in ENERGIES:
        raise unknown_name("energy", energy, ENERGIES)
    if form not in FORMS:
        raise unknown_name("form", form, FORMS)
    if energy != "squared" and form != "layers":
        must = "be 'squared', since only layers of linear maps have the paired one (form='layers')"
        raise argument_error("energy", must, energy)
    if form == "layers" and units != "auto":
        raise argument_error("units", "be 'auto' where layers are the units", repr(units))
    if not isinstance(units, str):
        units = tuple(units)
    elif units != "auto":
        raise argument_error("units", "be 'auto' or a sequence of names", repr(units))
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise argument_error("model", "have all its weights", "one with lazy modules that have not run yet")
    _check_tensors(model, example)
    if form == "layers":
        if not example.is_floating_point():
            raise NoLayersError("", "takes whole numbers, which drive no linear map")
        try:
            return layered(_copied(model), example, energy=energy, gates=gates)
        except InputError as error:  # a batch norm that is given one example says nothing of batches
            by_batch = _by_batch(model) if isinstance(error.__cause__, NoInputError) else None
            if by_batch is None:
                raise
            raise NoLayersError(by_batch, BY_BATCH) from None
    if "parametrizations" in model._modules:
        raise InputError(
            "Argument model must have no parametrised tensors of its own, but has "
            f"{next(iter(model._modules['parametrizations']._modules))!r}: put it into an nn.Sequential."  # type: ignore[union-attr]
        )
    return ModuleNetwork(_copied(model), example, units, gates)


def _by_batch(model: nn.Module) -> str | None:
    """Path of the first batch norm that goes by the statistics of its batch, if there is one."""
    norms = ((path, m) for path, m in model.named_modules() if isinstance(m, _BatchNorm))
    return next((path for path, m in norms if m.training or m.running_mean is None), None)


def _copied(model: nn.Module) -> nn.Module:
    """A copy of a model with the hooks of its parameters; what pruning and norms compute is copied as numbers."""
    computed = [
        t for m in model.modules() for t in vars(m).values() if isinstance(t, torch.Tensor) and not t.is_leaf
    ]
    try:
        twin = copy.deepcopy(model, {id(t): t.detach().clone() for t in computed})
    except Exception as error:
        reason = " ".join(str(error).split())
        raise argument_error("model", "be one that can be copied", f"one that cannot: {reason}") from error
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        for hook in (p._backward_hooks or {}).values():
            q.register_hook(hook)
        for hook in (p._post_accumulate_grad_hooks or {}).values():
            q.register_post_accumulate_grad_hook(hook)
    return twin


def _check_tensors(model: nn.Module, example: torch.Tensor) -> None:
    """Refuse weights that are not finite or not of one dtype and device, and an example of another."""
    floating = [(n, p) for n, p in model.named_parameters() if p.is_floating_point()]
    for what in ("dtype", "device"):
        kinds = sorted({str(getattr(p, what)) for _, p in floating})
        if len(kinds) > 1:
            raise argument_error("model", f"have one {what}", " and ".join(kinds))
    if any(p.is_complex() for p in model.parameters()):
        raise argument_error("model", "have real parameters", "one with complex ones")
    for name, p in floating:
        if not all_finite(p):
            raise argument_error("model", "have finite weights", f"one with others in {name!r}")
    if example.is_floating_point() and floating and example.dtype != floating[0][1].dtype:
        raise argument_error("example", f"have the model's dtype {floating[0][1].dtype}", example.dtype)
    if example.is_floating_point() and not all_finite(example):
        raise argument_error("example", "be finite", "NaN or infinite entries")
