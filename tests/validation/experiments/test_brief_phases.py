"""Phases of a few steps: those of Scellier and Bengio 2017, held against their equations and EP that settles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hardware_models.hopfield import HopfieldNetwork
from hardware_models.resistive import ResistiveNetwork
from physics_ep import EquilibriumPropagation, SquaredError
from physics_ep.errors import InputError
from validation.experiments.brief_phases import brief_backward, sweeping_backward
from validation.reproduction.jobs import Job
from validation.reproduction.rows import published_tables


def network() -> tuple[HopfieldNetwork, torch.Tensor, torch.Tensor]:
    """A network 6-5-3 with clipped outputs, four examples, and their targets."""
    system = HopfieldNetwork([6, 5, 3], output_activation="hard_sigmoid", gain=[1.5, 1.2], seed=3).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        system.couplings[0].bias.uniform_(-0.1, 0.3, generator=generator)
    x = torch.rand(4, 6, generator=generator, dtype=torch.float64)
    return system, x, torch.eye(3, dtype=torch.float64)[torch.tensor([0, 1, 2, 0])]


@pytest.mark.parametrize("classes", [[0, 1, 2, 1], [0, 1, 2, 0]])  # an even sum, and an odd one
def test_brief_phases_are_those_of_the_paper(classes: list[int]) -> None:
    """Equations 43 and 39, written out for one example at a time, give the same gradients for both signs."""
    system, x, _ = network()
    y = torch.eye(3, dtype=torch.float64)[torch.tensor(classes)]
    brief_backward(SquaredError(), beta=1.0, free=20, nudged=4, step=0.5)(system, x, y)
    (w1, b1), (w2, b2) = ((c.weight.detach().numpy(), c.bias.detach().numpy()) for c in system.couplings)
    beta = 1.0 if sum(classes) % 2 == 0 else -1.0
    found = [np.zeros_like(w) for w in (w1, b1, w2, b2)]
    for image, target in zip(x.numpy(), y.numpy(), strict=True):
        h, o = np.zeros(5), np.zeros(3)
        states = []
        for k in range(24):
            nudge = beta if k >= 20 else 0.0
            moved_h = h + 0.5 * (w1 @ image + b1 + w2.T @ o - h)
            moved_o = o + 0.5 * (w2 @ h + b2 - o + nudge * (target - o))
            h, o = np.clip(moved_h, 0, 1), np.clip(moved_o, 0, 1)
            states.append((h, o))
        (h0, o0), (h1, o1) = states[19], states[23]
        changes = (np.outer(h1 - h0, image), h1 - h0, np.outer(o1, h1) - np.outer(o0, h0), o1 - o0)
        found = [g - change / (beta * len(x)) for g, change in zip(found, changes, strict=True)]
    for name, g in zip(("0.weight", "0.bias", "1.weight", "1.bias"), found, strict=True):
        grad = system.get_parameter(f"layers.{name}").grad
        assert grad is not None
        assert np.abs(g).max() > 0
        np.testing.assert_allclose(grad.numpy(), g, rtol=1e-12, atol=1e-14)


def test_sweeps_are_minima_of_layers_in_turns() -> None:
    """Kirchhoff's law written out, layer after layer: three sweeps from 0 V, and three from there, nudged."""
    sizes, beta, sweeps = [5, 4, 6, 4, 3], 0.02, 3
    system = ResistiveNetwork(sizes, input_gain=3.0, scale=1.0, density=[0.5] * 4, seed=2).double()
    x = torch.rand(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[torch.tensor([0, 1, 2, 0])]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in system.couplings:
            layer.bias.uniform_(-0.2, 0.2, generator=generator)
    sweeping_backward(SquaredError(), beta, sweeps)(system, x, y)
    weights = [layer.conductance.detach().numpy() for layer in system.couplings]
    biases = [layer.bias.detach().numpy() for layer in system.couplings]
    below = 3.0 * np.concatenate([x.numpy(), -x.numpy()], 1)

    def phase(state: list[np.ndarray], nudge: float) -> list[np.ndarray]:
        v = [s.copy() for s in state]
        for _ in range(sweeps):
            for k in range(4):
                current = (below if k == 0 else v[k - 1]) @ weights[k].T + biases[k]
                load = weights[k].sum(1)
                if k < 3:
                    current, load = current + v[k + 1] @ weights[k + 1], load + weights[k + 1].sum(0)
                    half = sizes[k + 1] // 2
                    v[k] = current / load
                    v[k] = np.concatenate([v[k][:, :half].clip(min=0), v[k][:, half:].clip(max=0)], 1)
                else:
                    v[k] = (current + nudge * y.numpy()) / (load + nudge)
        return v

    free = phase([s.numpy() for s in system.initial_state(x)], 0.0)
    up, down = phase(free, beta), phase(free, -beta)
    for k, layer in enumerate(system.couplings):
        slopes = [
            np.square(v[k][:, :, None] - (below if k == 0 else v[k - 1])[:, None, :]).mean(0) / 2
            for v in (up, down)
        ]
        assert layer.conductance.grad is not None
        assert layer.bias.grad is not None
        for grad, slope in (
            (layer.conductance.grad, slopes[0] - slopes[1]),
            (layer.bias.grad, -(up[k] - down[k]).mean(0)),
        ):
            np.testing.assert_allclose(grad, slope / (2 * beta), rtol=1e-9, atol=1e-13)


@pytest.mark.full
def test_long_phases_are_those_that_settle() -> None:
    """With many steps the estimate is EP's one-sided one, so that the contrast has its sign and size."""
    system, x, _ = network()
    y = torch.eye(3, dtype=torch.float64)[torch.tensor([0, 1, 2, 1])]
    brief_backward(SquaredError(), beta=0.1, free=400, nudged=400, step=0.5)(system, x, y)
    brief = {name: p.grad.clone() for name, p in system.named_parameters() if p.grad is not None}
    system.zero_grad()
    EquilibriumPropagation(SquaredError(), scheme="positive", beta=0.1, tolerance=1e-12).backward(system, x, y)
    for name, p in system.named_parameters():
        torch.testing.assert_close(brief[name], p.grad, rtol=1e-7, atol=1e-10)


def test_the_first_networks_start_and_step_as_published() -> None:
    """Glorot's bounds, the rates of table 2 and phases of 20 and 4 steps: a recipe that settles is another one."""
    recipe = published_tables()["first"].rows["hopfield-1h"].recipe("paper")
    config = recipe.config()
    assert recipe.brief == {"free": 20, "nudged": 4, "step": 0.5}
    system = HopfieldNetwork([784, 500, 10], gain=config.system.options["gain"], seed=0)
    for layer, n in zip(system.couplings, (784 + 500, 500 + 10), strict=True):
        assert float(layer.weight.detach().abs().max()) == pytest.approx((6 / n) ** 0.5, rel=1e-2)
        assert float(layer.weight.detach().abs().max()) <= (6 / n) ** 0.5 * (1 + 1e-6)
    assert Job(recipe, "ep", 0, None, None, "").backward(config) is not None  # type: ignore[arg-type]
    with pytest.raises(InputError, match="gain must be a positive number, or 2 of them"):
        HopfieldNetwork([6, 5, 3], gain=[1.0])


def test_what_brief_phases_cannot_do_is_named() -> None:
    """Wrong numbers of steps, and systems that are not layered, are refused by name."""
    with pytest.raises(InputError, match="nudged must be an integer of at least 1"):
        brief_backward(SquaredError(), beta=1.0, free=20, nudged=0, step=0.5)
    with pytest.raises(InputError, match="step must be a positive number"):
        brief_backward(SquaredError(), beta=1.0, free=20, nudged=4, step=0.0)
    with pytest.raises(InputError, match="system must be a layered network"):
        brief_backward(SquaredError(), beta=1.0, free=2, nudged=2, step=0.5)(
            ResistiveNetwork([4, 3, 2]), torch.ones(1, 4), torch.eye(2)[:1]
        )
