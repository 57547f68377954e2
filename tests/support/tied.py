"""Systems whose weights are tied, masked, pruned or parametrised, and what autograd or differences make of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from physics_ep import EquilibriumPropagation, SquaredError, relax
from physics_ep.system import EnergySystem


class Scaled(nn.Module):
    """w -> scale * w, the scale trained too."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return self.scale * w


class Masked(nn.Module):
    """Every other column of w."""

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        keep = torch.ones_like(w)
        keep[..., ::2] = 0
        return w * keep


class Paired(nn.Module):
    """w with every second entry a copy of the one before: weights tied within one tensor."""

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        flat = w.reshape(-1)
        return flat[torch.arange(flat.numel()) // 2 * 2].view_as(w)


def holders(system: nn.Module) -> list[tuple[nn.Module, str]]:
    """Modules with a trained tensor of their own, and its name: tensors of two axes and more first."""
    found = [(m, n) for m in system.modules() for n, p in m.named_parameters(recurse=False) if p.requires_grad]
    return sorted(found, key=lambda pair: -getattr(*pair).ndim)


def scale(system: nn.Module) -> None:
    """Scale a system's weights by a parameter."""
    parametrize.register_parametrization(*holders(system)[0], Scaled())


def mask(system: nn.Module) -> None:
    """Mask a system's last weights of its largest number of axes by a parametrisation."""
    axes = getattr(*holders(system)[0]).ndim
    module, name = [pair for pair in holders(system) if getattr(*pair).ndim == axes][-1]
    parametrize.register_parametrization(module, name, Masked())


def cut(system: nn.Module) -> None:
    """Prune a third of a system's weights."""
    module, name = holders(system)[0]
    prune.l1_unstructured(module, name, amount=1 / 3)


def pair(system: nn.Module) -> None:
    """Tie the entries of a system's weights two by two."""
    parametrize.register_parametrization(*holders(system)[0], Paired())


def tie(system: nn.Module) -> None:
    """Make one parameter of the first two of one name, size and kind."""
    pairs = holders(system)
    for i, (module, name) in enumerate(pairs):
        for other, same in pairs[i + 1 :]:
            if getattr(module, name).shape == getattr(other, same).shape:
                setattr(other, same, getattr(module, name))
                return
    raise AssertionError("no two tensors of one shape")


CHANGES: dict[str, Callable[[nn.Module], None]] = {
    "scale": scale,
    "mask": mask,
    "cut": cut,
    "tie": tie,
    "pair": pair,
}


def slope_by_differences(
    system: EnergySystem, x: torch.Tensor, y: torch.Tensor, along: dict[str, torch.Tensor]
) -> float:
    """Change of the mean cost of the free state along a direction in parameters, by central differences."""
    size = 1e-6
    costs = []
    for sign in (1, -2):
        with torch.no_grad():
            for name, p in system.named_parameters():
                p.add_(sign * size * along[name])
        free = relax(system, x, tolerance=1e-13, max_iterations=20000)
        costs.append(float(SquaredError()(system.outputs(free.state), y).mean()))
    with torch.no_grad():
        for name, p in system.named_parameters():
            p.add_(size * along[name])
    return (costs[0] - costs[1]) / (2 * size)


def slope_by_ep(system: EnergySystem, x: torch.Tensor, y: torch.Tensor, along: dict[str, torch.Tensor]) -> float:
    """The same by equilibrium propagation, from what it leaves in `.grad`."""
    beta = 1e-4 * system.nudge_scale
    EquilibriumPropagation(SquaredError(), beta=beta, tolerance=1e-12, max_iterations=20000).backward(system, x, y)
    return sum(float((p.grad * along[n]).sum()) for n, p in system.named_parameters() if p.grad is not None)


def direction(system: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """A direction in all parameters, each in its own size."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {n: float(p.detach().abs().max()) for n, p in system.named_parameters()}
    least = min(size for size in sizes.values() if size > 0)
    return {
        n: (sizes[n] or least) * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for n, p in system.named_parameters()
    }
