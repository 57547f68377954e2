"""The best beta: if these fail, a noisy substrate is run where noise or bias swamps its gradient."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hardware_models.devices.model import DeviceModel
from hardware_models.mapping.mapped import map_pcn
from physics_ep import SquaredError
from physics_ep.errors import InputError
from physics_ep.predictive_coding import PredictiveCodingNetwork
from tests.support.pcn import dense, examples
from validation import best_beta
from validation.oracles import backprop_gradient


def small(n_in: int = 12) -> tuple[PredictiveCodingNetwork, torch.Tensor, torch.Tensor]:
    """A smooth network and its batch."""
    net = dense(3, width=16, n_in=n_in)
    return net, *examples((n_in,), 8, SquaredError())


@pytest.mark.full
@pytest.mark.parametrize("noise", [1e-3, 5e-3])
def test_slopes_and_the_best_beta(noise: float) -> None:
    """If this fails, the laws of docs/physics.md, Noise and the best beta, fail on the mapped circuit, or its best
    beta is missed."""
    net, x, y = small()
    found = best_beta(net, x, y, SquaredError(), device=DeviceModel(read_noise=noise), repeats=6)
    assert found.bias_exponent == pytest.approx(2, abs=0.1)
    assert found.variance_exponent == pytest.approx(-2, abs=0.1)
    assert found.fit_betas.max() < 0.1001 * found.stability_limit
    assert 1 / 1.5 < found.predicted / found.measured < 1.5
    # Not at the grid's ends, where any prediction would be called right.
    assert found.betas[0] < found.measured < found.betas[-1]
    # The prediction is good for something: errors at a third and at three times it are larger.
    near, far = (
        np.interp(np.log(found.predicted * f), np.log(found.betas), found.squared_errors) for f in (1, 1 / 3)
    )
    assert far > 2 * near


@pytest.mark.full
def test_of_a_mapped_network_and_a_given_grid() -> None:
    """If this fails, another instance than the one at hand is judged, or errors of its cells enter the balance."""
    net, x, y = small()
    device = DeviceModel(read_noise=2e-3, programming_noise=0.05)
    mapped = map_pcn(net, device=device, seed=3, calibration=x)
    grid = (0.04, 0.01, 0.02, 0.08)
    found = best_beta(mapped, x, y, SquaredError(), grid, repeats=4)
    assert found.betas.tolist() == sorted(grid)
    again = best_beta(net, x, y, SquaredError(), grid, device=device, seed=3, repeats=4)
    assert found.figures() == again.figures()
    other = best_beta(net, x, y, SquaredError(), grid, device=device, seed=4, repeats=4)
    assert found.bias_coefficient != other.bias_coefficient
    assert (found.biases < 0.02).all()  # far below what programming noise does to the transfer


class Known:
    """A substrate with bias b beta^n and variance V / beta^2, exactly; its stability limit is 1."""

    def __init__(self, net: Any, device: Any, x: torch.Tensor, b: float, v: float, order: int) -> None:
        self.perturbed, self.device, self.x, self.b, self.v, self.order = net, device, x, b, v, order

    def estimate(
        self, x: torch.Tensor, y: torch.Tensor, cost: Any, scheme: Any = None, beta: Any = "auto", **options: Any
    ) -> tuple[dict[str, torch.Tensor], Any]:
        strength = 0.05 if beta == "auto" else beta
        exact = backprop_gradient(self.perturbed, x, y, cost)
        size = sum(float(g.square().sum()) for g in exact.values()) ** 0.5
        count = sum(g.numel() for g in exact.values())
        found = {}
        for name, g in exact.items():
            noise = torch.zeros_like(g)
            if self.device.read_noise > 0:
                noise = torch.randn(g.shape, generator=options["reads"]).to(g) * size * (self.v / count) ** 0.5
            found[name] = g * (1 + self.b * strength**self.order) + noise / strength
        return found, SimpleNamespace(beta=strength)


@pytest.mark.parametrize(
    ("scheme", "order"), [("centered", 2), pytest.param("positive", 1, marks=pytest.mark.full)]
)
def test_known_coefficients(scheme: str, order: int) -> None:
    """If this fails, b, V or the minimum of the sum is computed wrongly: here all three are known."""
    net, x, y = small()
    b, v = 3.0, 2e-6
    found = best_beta(
        net,
        x,
        y,
        SquaredError(),
        np.geomspace(0.01, 0.2, 15),
        device=DeviceModel(read_noise=0.1),
        scheme=scheme,
        repeats=40,
        mapper=lambda net, device, calibration, **_: Known(net, device, calibration, b, v, order),
    )
    assert found.stability_limit == pytest.approx(1)
    assert found.bias_coefficient == pytest.approx(b, rel=1e-6)
    assert found.bias_exponent == pytest.approx(order, abs=1e-6)
    assert found.variance_coefficient == pytest.approx(v, rel=0.05)
    assert found.variance_exponent == pytest.approx(-2, abs=1e-6)
    betas = np.geomspace(0.005, 0.5, 20001)
    best = betas[np.argmin(b**2 * betas ** (2 * order) + v / betas**2)]
    assert found.predicted == pytest.approx(best, rel=0.02)
    assert found.measured == pytest.approx(best, rel=0.05)


def test_bad_input() -> None:
    """If this fails, a balance is sought where nothing balances."""
    net, x, y = small()
    noisy = DeviceModel(read_noise=1e-3)
    for must, arguments in (
        ("device must have read_noise or", {"device": DeviceModel(programming_noise=0.1)}),
        ("device must have read_noise or", {}),
        ("repeats must be an integer of at least 2", {"device": noisy, "repeats": 1}),
        ("betas must be at least three numbers", {"device": noisy, "betas": (0.1, 0.2)}),
        ("scheme must be one that draws no signs", {"device": noisy, "scheme": "random"}),
        ("beta must be a positive number", {"device": noisy, "betas": (0.1, -0.2, 0.3)}),
        ("betas must have some below the stability limit", {"device": noisy, "betas": (50, 60, 70), "repeats": 2}),
    ):
        with pytest.raises(InputError, match=must):
            best_beta(net, x, y, SquaredError(), **arguments)
