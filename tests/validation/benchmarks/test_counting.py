"""The counted floor that benchmarks print beside their ratios."""

from __future__ import annotations

import torch

from physics_ep.cost import CrossEntropy
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.predictive_coding import mlp
from validation.benchmarks.counting import floors, products_of, with_floors


def test_products_of_a_step_are_counted_as_by_hand() -> None:
    """F multiplications an example of the layer on the input and G of the others: backprop takes 2 F + 3 G, both
    signs with held gates 2 F + 7 G, the odd part alone 2 F + 5 G. A product that is made twice shows here."""
    net = mlp([6, 9, 8, 4], "relu", seed=1)
    x, y = torch.rand(5, 6), torch.arange(5) % 4
    first, others = 6 * 9, 9 * 8 + 8 * 4

    def backprop() -> None:
        CrossEntropy()(net(x), y).mean().backward()

    settled = EquilibriumPropagation(CrossEntropy(), beta=1e-3, tolerance=1e-2)
    mirrored = EquilibriumPropagation(CrossEntropy(), beta=1e-3, tolerance=1e-2, opposite="mirrored")
    for ep in (settled, mirrored):
        ep.backward(net, x, y)  # its first step also measures the residual of the free phase
    assert products_of(backprop).multiplications == 5 * (2 * first + 3 * others)
    assert products_of(lambda: settled.backward(net, x, y)).multiplications == 5 * (2 * first + 7 * others)
    found = floors({"backprop": backprop, "mirrored": lambda: mirrored.backward(net, x, y)}, repeats=1)
    assert found["mirrored"][0] == 5 * (2 * first + 5 * others)
    rows = with_floors([{"step": name} for name in ("backprop", "mirrored", "else")], found, "backprop", 1.0)
    assert [row["count"] for row in rows] == [1.0, (2 * first + 5 * others) / (2 * first + 3 * others), None]
    assert 0 < rows[0]["floor"] == found["backprop"][1]
