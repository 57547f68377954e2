"""Oscillators on devices: weights on levels, phases that are read in steps."""

from __future__ import annotations

import math

import numpy as np
import torch

from hardware_models.oscillators.layers import rounded
from physics_ep import (
    EquilibriumPropagation,
    SquaredError,
    relax,
)
from physics_ep.blocks import State
from physics_ep.estimators.propagation import estimate_gradient
from validation import implicit_gradient
from validation.gradients import total_error

from .test_network import data, draw, network


def test_weights_on_levels() -> None:
    """Breaks if a device holds other weights than the nearest of its levels, or training cannot move them."""
    weight = torch.linspace(-0.9, 1.2, 47, dtype=torch.float64, requires_grad=True)
    held = rounded(weight, 3)
    levels = np.linspace(-1.2, 1.2, 7)
    nearest = levels[np.abs(weight.detach().numpy()[:, None] - levels).argmin(1)]
    np.testing.assert_allclose(held.detach().numpy(), nearest, atol=1e-15)
    held.sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))  # type: ignore[arg-type]
    coarse, fine = network(weight_bits=4), network()
    with torch.no_grad():
        for mine, theirs in zip(fine.couplings.layers, coarse.couplings.layers, strict=True):
            mine.weight.copy_(theirs.strength)
    x, y = data()
    a, b = relax(coarse, x).require(), relax(fine, x).require()
    torch.testing.assert_close(a.state[0], b.state[0], rtol=0, atol=1e-9)
    ep = EquilibriumPropagation(SquaredError(), beta=1e-2)
    given, own = estimate_gradient(ep, coarse, x, y)[0], estimate_gradient(ep, fine, x, y)[0]
    assert total_error(given, own) < 1e-8


def test_phases_read_in_steps() -> None:
    """Breaks if learning sees more of a phase than its read-out resolves, or less."""
    x, y = data()
    fine, coarse = network(), network(phase_bits=5)
    free = relax(fine, x).require().state
    plus, minus = draw(free, 0.3, 9), draw(free, 0.3, 10)
    weight = torch.rand(x.shape[0], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 2 * math.pi / 32

    def measured(d: State) -> State:
        return tuple(((s + m) / step).round() * step for s, m in zip(free, d, strict=True))

    with torch.enable_grad():
        gap = fine.energy(measured(plus), x) - fine.energy(measured(minus), x)
        names = [n for n, _ in fine.named_parameters()]
        exact = torch.autograd.grad((weight * gap).sum(), list(fine.parameters()))
    mine = coarse.contrast(free, plus, minus, x, weight)
    for name, grad in zip(names, exact, strict=True):
        torch.testing.assert_close(mine[name], grad, rtol=0, atol=1e-12)
    # A nudge smaller than a step of the read-out teaches little, a strong one nearly all.
    exact_gradient = implicit_gradient(fine, x, y, SquaredError())
    errors = [
        total_error(
            estimate_gradient(EquilibriumPropagation(SquaredError(), beta=beta), network(phase_bits=8), x, y)[0],
            exact_gradient,
        )
        for beta in (1e-4, 0.1)
    ]
    assert errors[0] > 5 * errors[1]
