"""Optimizers and schedulers of torch by the names that a config gives them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR

from ..errors import InputError, argument_error, unknown_name
from ..registry import check_options

if TYPE_CHECKING:  # learning in place clips gradients where there is no pydantic
    from ..config import OptimizerSection, SchedulerSection

UNFIT = {
    "lbfgs": "it evaluates the loss several times a step",
    "sparseadam": "it takes sparse gradients only",
}
"""Optimizers of torch that a step on one estimate of the gradient cannot serve, and why."""

REFUSALS = (TypeError, ValueError, AssertionError, RuntimeError, AttributeError, ArithmeticError)
"""What torch raises where an option is out of its range."""


def build_optimizer(section: OptimizerSection, module: nn.Module) -> Optimizer:
    """Build the optimizer of a config for the parameters of a module.

    Parameters
    ----------
    section : OptimizerSection
        Name of a class of torch.optim (any case), its options, and groups by parameter-name prefix.
    module : nn.Module

    Returns
    -------
    Optimizer
        One group of parameters for each entry of `groups`, after the group of all others.

    Raises
    ------
    InputError
        If the name, an option or a prefix is unknown, or torch refuses a value.
    """
    kinds = optimizers()
    if section.name.lower() not in kinds:
        raise unknown_name("optimizer.name", section.name, [k.__name__ for k in kinds.values()])
    if section.name.lower() in UNFIT:
        must = f"be an optimizer that steps on one gradient ({UNFIT[section.name.lower()]})"
        raise argument_error("optimizer.name", must, repr(section.name))
    kind = kinds[section.name.lower()]
    owner = f"optimizer {kind.__name__}"
    check_options(kind, section.options, owner, given=("params",))
    members: dict[str, list[nn.Parameter]] = {"": [], **{prefix: [] for prefix in section.groups}}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            members[max((p for p in members if name.startswith(p)), key=len)].append(parameter)
    for prefix, options in section.groups.items():
        if not members[prefix]:
            raise unknown_name("[optimizer.groups] prefix", prefix, [n for n, _ in module.named_parameters()])
        check_options(kind, {**section.options, **options}, f"{owner}, group {prefix!r}", given=("params",))
    groups = [{"params": found, **section.groups.get(prefix, {})} for prefix, found in members.items() if found]
    return _made(kind, groups, section.options, owner)


LENGTHS = ("T_max", "total_steps", "total_iters")
"""Options of schedulers that count all their steps."""


def build_scheduler(
    section: SchedulerSection | None, optimizer: Optimizer, epochs: int, batches: int | None = None
) -> LRScheduler | None:
    """Build the scheduler of a config, with its warm-up; it is to be stepped once an epoch, or once a batch.

    Parameters
    ----------
    section : SchedulerSection or None
        Name of a class of torch.optim.lr_scheduler (any case), its options, how often it steps, and warm-up.
    optimizer : Optimizer
    epochs : int
        The steps of a training, or those of one batch each with `batches`, less the warm-up, stand in for an option
        T_max, total_iters or total_steps that the config leaves out.
    batches : int, optional
        Batches of an epoch, for a scheduler that steps once a batch.

    Returns
    -------
    LRScheduler or None

    Raises
    ------
    InputError
        If the name or an option is unknown, or torch refuses a value.
    """
    if section is None:
        return None
    kinds = schedulers()
    if section.name.lower() not in kinds:
        raise unknown_name("scheduler.name", section.name, [k.__name__ for k in kinds.values()])
    kind = kinds[section.name.lower()]
    options = section.options
    missing = [n for n in LENGTHS if n in inspect.signature(kind).parameters and n not in options]
    if kind is ReduceLROnPlateau and (section.per == "batch" or section.warmup):
        key, was = ("per", "'batch'") if section.per == "batch" else ("warmup", str(section.warmup))
        must = "be left out for ReduceLROnPlateau, which watches a figure of each epoch"
        raise argument_error(f"scheduler.{key}", must, was)
    if section.per == "batch" and batches is None and missing:
        must = f"come with scheduler.{missing[0]} where loaders do not tell their length"
        raise argument_error("scheduler.per", must, "'batch'")
    steps = epochs * (1 if section.per == "epoch" else batches or 0)
    if missing and section.warmup >= steps:
        must = f"be less than the {steps} {'batches' if section.per == 'batch' else 'epochs'} of the training"
        raise argument_error("scheduler.warmup", must, section.warmup)
    options.update(dict.fromkeys(missing, steps - section.warmup))
    owner = f"scheduler {kind.__name__}"
    check_options(kind, options, owner, given=("optimizer",))
    if not section.warmup:
        return _made(kind, optimizer, options, owner)
    base = [group["lr"] for group in optimizer.param_groups]
    rise = LinearLR(optimizer, 1 / (section.warmup + 1), total_iters=section.warmup)
    for group, rate in zip(optimizer.param_groups, base, strict=True):
        group["lr"] = rate  # as the scheduler that follows must find it
    rest = _made(kind, optimizer, options, owner)
    return SequentialLR(optimizer, [rise, rest], milestones=[section.warmup])


def clip_gradients(parameters: Iterable[torch.Tensor], largest: float | None) -> None:
    """Scale the gradients of all parameters together so that their norm is at most this (Pascanu et al. 2013)."""
    if largest is not None:
        nn.utils.clip_grad_norm_(parameters, largest)


def step_scheduler(scheduler: LRScheduler | None, figure: float = math.nan) -> None:
    """Step a scheduler at the end of an epoch or batch; one that watches a figure is given this one."""
    if scheduler is None:
        return
    try:
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(figure)
        else:
            scheduler.step()
    except REFUSALS as error:  # lengths of 0, for one, are divided by only now
        raise _refused(f"scheduler {type(scheduler).__name__}", error) from error


def optimizers() -> dict[str, type[Optimizer]]:
    """Classes of torch.optim by lower-case name."""
    return _subclasses(torch.optim, Optimizer)


def schedulers() -> dict[str, type[LRScheduler]]:
    """Classes of torch.optim.lr_scheduler by lower-case name."""
    return _subclasses(torch.optim.lr_scheduler, LRScheduler)


def _subclasses(module: Any, base: type) -> dict[str, Any]:
    found = {name.lower(): value for name, value in vars(module).items() if not name.startswith("_")}
    return {n: v for n, v in found.items() if inspect.isclass(v) and issubclass(v, base) and v is not base}


def _made(kind: Any, first: Any, options: dict[str, Any], owner: str) -> Any:
    try:
        return kind(first, **options)
    except REFUSALS as error:
        raise _refused(owner, error) from error


def _refused(owner: str, error: Exception) -> InputError:
    message = " ".join(str(error).split())
    return InputError(f"Argument of {owner} is wrong: {message}.")
