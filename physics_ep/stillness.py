"""What keeps an energy one and the same function for the length of a step.

A relaxation evaluates an energy hundreds of times, and its phases are compared to many digits. Modules and modes of
torch that make each evaluation another one, or that round it, have no place within: autocast is off (a system works
in the dtype of its parameters), attention takes the kernel that has second derivatives, running statistics wait
until the step is over, and what draws random numbers is refused. Systems that hold what they draw, and whose
energy is the batch's where examples feel each other (`HoldsNoise`), may do both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd

from .blocks import State, twice_differentiable
from .errors import InputError
from .holding import HoldsNoise
from .physical_system import PhysicalSystem

RESTLESS = (_NormBase, _DropoutNd, nn.RReLU)
"""Modules whose forward pass changes them, or draws random numbers, in training mode."""


class Stillness:
    """A context in which evaluations of a system's energy change nothing and draw nothing.

    Parameters
    ----------
    system : PhysicalSystem
    modules : sequence of Module, optional
        All modules of it, where they have been listed already.
    """

    def __init__(self, system: PhysicalSystem, modules: Sequence[nn.Module] | None = None) -> None:
        self.system = system
        self.norms: list[tuple[str, Any]] = []
        self.random: list[tuple[str, nn.Module]] = []
        if any(isinstance(module, RESTLESS) for module in (modules or system.modules())):
            self._find()
        self._stack = ExitStack()

    def _find(self) -> None:
        for path, module in self.system.named_modules():
            if not module.training or "forward" in vars(module):
                continue
            if isinstance(module, _NormBase) and module.track_running_stats:
                self.norms.append((path, module))
            elif isinstance(self.system, HoldsNoise):
                continue
            elif (isinstance(module, _DropoutNd) and module.p > 0) or isinstance(module, nn.RReLU):
                self.random.append((path, module))

    def __enter__(self) -> Stillness:
        device = self.system.device.type
        if torch.is_autocast_enabled(device):
            self._stack.enter_context(torch.autocast(device, enabled=False))
        if type(self.system).phase is PhysicalSystem.phase:  # once here, not at each second derivative
            self._stack.enter_context(twice_differentiable())
        if isinstance(self.system, HoldsNoise):
            self._stack.enter_context(self.system.holding())
        for _, norm in self.norms:
            norm.track_running_stats = False
            self._stack.callback(setattr, norm, "track_running_stats", True)
        for path, module in self.random:
            module.forward = _refuse(path, type(module).__name__)
            self._stack.callback(delattr, module, "forward")
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def renew(self) -> None:
        """Let the system draw its random numbers anew in the next free phase."""
        if isinstance(self.system, HoldsNoise):
            self.system.renew()

    def check(self, x: torch.Tensor) -> None:
        """Refuse batch norms in training mode that see the state.

        Examples would feel each other, and each phase would have statistics of its own.

        Raises
        ------
        InputError
            It names the module.
        """
        batch = {id(norm): path for path, norm in self.norms if isinstance(norm, _BatchNorm)}
        if not batch or isinstance(self.system, HoldsNoise):
            return
        system = self.system
        seen: list[list[torch.Tensor]] = []
        for state in (system.initial_state(x), system.random_state(x, torch.Generator().manual_seed(1))):
            seen.append([])
            with torch.no_grad(), _recorded([norm for _, norm in self.norms], seen[-1], batch):
                self._evaluate(state, x)
        for (path, one), (_, other) in zip(*seen, strict=True):
            if not torch.equal(one, other):
                raise InputError(
                    f"Argument system must not normalise its state over the batch in training mode, as {path!r} "
                    "does, since examples would feel each other, and each phase would have other statistics: call "
                    "system.eval(), or normalise the input alone."
                )

    def update(self, state: State, x: torch.Tensor) -> None:
        """Let running statistics take in one batch at a state; called once a step."""
        if not self.norms and not isinstance(self.system, HoldsNoise):
            return
        for _, norm in self.norms:
            norm.track_running_stats = True
        try:
            with torch.no_grad():
                if isinstance(self.system, HoldsNoise):
                    self.system.update_statistics(x)
                else:
                    self._evaluate(state, x)
        finally:
            for _, norm in self.norms:
                norm.track_running_stats = False

    def _evaluate(self, state: State, x: torch.Tensor) -> None:
        self.system.law(state, x)
        self.system.outputs(state)


@contextmanager
def _recorded(norms: list[nn.Module], seen: list[Any], paths: dict[int, str]) -> Iterator[None]:
    """Within, what batch norms are given is kept, each with the module's name."""

    def keep(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if id(module) in paths:
            seen.append((paths[id(module)], given[0].detach().clone()))

    handles = [norm.register_forward_pre_hook(keep) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _refuse(path: str, kind: str) -> Any:
    def forward(*given: object) -> None:
        raise InputError(
            f"Argument system must draw no random numbers in its energy or force, but {path!r} ({kind}) in "
            "training mode draws some at each evaluation, so that there is no equilibrium: call system.eval()."
        )

    return forward


def require_system(system: object) -> None:
    """Refuse what is no system, or a system that is wrapped, and say what works in its place.

    Raises
    ------
    TypeError
    """
    if isinstance(system, nn.parallel.DistributedDataParallel):
        raise TypeError(
            "Argument system must not be wrapped in DistributedDataParallel, whose hooks miss EP's gradients: "
            "pass the system itself; backward() reduces them."
        )
    if not isinstance(system, PhysicalSystem):
        instead = ""
        if isinstance(system, nn.Module):
            instead = " (physics_ep.predictive_coding.from_module(model, x) makes one of a torch model)"
        elif callable(getattr(system, "gradient", None)):
            instead = " (its own method gradient estimates gradients)"
        was = f"{type(system).__name__}{instead}"
        raise TypeError(f"Argument system must be a VectorField or an EnergySystem, but was {was}.")


def require_trained(system: nn.Module) -> None:
    """Refuse a system of which nothing is trained, which has no gradient.

    Raises
    ------
    InputError
        If no parameter of the system is trained.
    """
    if not any(p.requires_grad for p in system.parameters()):
        has = "only frozen ones" if any(True for _ in system.parameters()) else "none"
        raise InputError(
            f"Argument system must have a parameter that requires a gradient, but the {type(system).__name__} has "
            f"{has}."
        )
