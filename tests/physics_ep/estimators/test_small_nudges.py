"""Nudges so small that displacements could be lost: the gradient is right, or there is none."""

from __future__ import annotations

import pytest
import torch

from hardware_models import HopfieldNetwork, ResistiveNetwork
from physics_ep import EnergySystem, EquilibriumPropagation, NotConverged, SquaredError, relax
from physics_ep.blocks import State
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import estimate_gradient
from physics_ep.predictive_coding import mlp
from physics_ep.predictive_coding.activations import soft_rectified
from tests.support.systems import Quartic, batch
from validation import implicit_gradient
from validation.gradients import total_error

pytestmark = pytest.mark.full
"""For their processor time."""


class Pulled(EnergySystem):
    """1/2 |s - W x|^2: three methods, and states of the size `scale`."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w = torch.nn.Parameter(scale * torch.randn(3, 4, generator=generator, dtype=torch.float64))

    def energy(self, state: State, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * (state[0] - x @ self.w.t()).square().sum(1)

    def initial_state(self, x: torch.Tensor) -> State:
        return (torch.zeros(len(x), 3, dtype=self.dtype),)

    def outputs(self, state: State) -> torch.Tensor:
        return state[0]


SYSTEMS = {
    "users": Pulled,
    "large": lambda: Pulled(1e6),
    "quartic": Quartic,
    "hopfield": lambda: HopfieldNetwork([4, 5, 3], "tanh", gain=0.5).double(),
    "diodes": lambda: ResistiveNetwork([4, 5, 3], "shockley").double(),
    "ideal": lambda: ResistiveNetwork([4, 5, 3]).double(),
    "predictive": lambda: mlp([4, 5, 3], activation="tanh").double(),
}


@pytest.mark.parametrize("beta", [1e-13, 1e-40, 1e-60, 1e-200])
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_small_beta_is_right_or_refused(name: str, beta: float) -> None:
    """Against implicit differentiation. A system of one's own had a gradient of 0, and diodes were 12 % off.

    Systems that carry displacements answer at any beta.
    """
    torch.manual_seed(0)
    system = SYSTEMS[name]()
    x, y = batch(4, 2 if name == "quartic" else 3, 4)
    ep = EquilibriumPropagation(SquaredError(), beta=beta)
    try:
        found = estimate_gradient(ep, system, x, y)[0]
    except (InputError, NotConverged):
        assert name in ("users", "large", "quartic")
        return
    assert total_error(found, implicit_gradient(system, x, y, SquaredError())) < 1e-5


@pytest.mark.parametrize("name", ["users", "large"])
def test_a_nudge_that_is_lost_is_refused_in_one_line(name: str) -> None:
    """Whatever becomes of unsettled examples; not where there is nothing to be moved."""
    system, (x, y) = SYSTEMS[name](), batch(4, 3, 4)
    for use in (
        lambda: EquilibriumPropagation(SquaredError(), beta=1e-60).backward(system, x, y),
        lambda: EquilibriumPropagation(SquaredError(), beta=1e-60, on_unconverged="skip").backward(system, x, y),
    ):
        with pytest.raises(InputError, match=r"Argument beta must be large enough .* but was 1e-60\.$"):
            use()
    reached = system.outputs(relax(system, x).state).detach()
    EquilibriumPropagation(SquaredError(), beta=1e-60).backward(system, x, reached)
    assert not system.w.grad.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_diode_seen_from_its_own_voltage_is_linear_for_small_changes(dtype: torch.dtype) -> None:
    """v - c (exp(-v / scale) - 1) = a has v = a / (1 + c / scale) for small a (its Taylor series)."""
    c = torch.tensor([1e-10, 1e-6, 1e-2, 1.0, 1e3], dtype=dtype)[:, None]
    a = torch.logspace(-12, -30 if dtype == torch.float32 else -250, 40, dtype=dtype)
    scale = 0.025
    line = a / (1 + c / scale)
    curved = line + 0.5 * (c / scale**2) * line**2 / (1 + c / scale)
    small = (line < 1e-8 * scale).expand_as(curved)
    error = (soft_rectified(a.expand_as(curved), c.expand_as(curved), scale) / curved - 1)[small]
    assert float(error.abs().max()) < 8 * torch.finfo(dtype).eps
