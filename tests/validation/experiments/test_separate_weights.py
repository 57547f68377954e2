"""Trainings of separate weights: if these fail, asymmetric EP is compared with gradients that are not exact."""

from __future__ import annotations

import torch

from hardware_models import RecurrentNetwork
from physics_ep import CrossEntropy
from validation import implicit_gradient
from validation.experiments.separate_weights import compared, exact_backward
from validation.gradients import total_error


def test_exact_gradients_are_those_of_implicit_differentiation() -> None:
    """The closed form against GMRES on the Jacobian by autograd, feedback strong enough to matter."""
    system = RecurrentNetwork([6, 9, 4], back_gain=0.8).double()
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(5, 6, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    exact = implicit_gradient(system, x, y, CrossEntropy())
    exact_backward(CrossEntropy())(system, x, y)
    assert total_error({n: p.grad for n, p in system.named_parameters()}, exact) < 1e-8


def test_differences_are_paired_by_seed() -> None:
    """Seeds differ by far more than methods: an unpaired interval would hide what is there."""
    rows = [
        {"way": way, "seed": seed, "test_error": [0.5 + extra, 0.1 * seed + extra]}
        for seed in (1, 2, 3)
        for way, extra in (("asymmetric", 0.0), ("vector-field", 0.02 + 1e-3 * seed))
    ]
    found = compared([*rows, {"way": "exact", "seed": 9, "test_error": [0.5, 0.2]}])
    mean, low, high = found["differences"]["vector-field"]["last epoch"]
    assert abs(mean - 2.2) < 1e-9
    assert 1.9 < low < high < 2.5
    assert abs(found["differences"]["vector-field"]["mean over epochs"][0] - 2.2) < 1e-9
    assert "exact" not in found["differences"]
