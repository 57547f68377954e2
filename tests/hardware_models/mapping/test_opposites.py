"""Opposite nudges on a mapped network: their rows are mapped once, and states and gradients stay what they are."""

from __future__ import annotations

import pytest
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.opposites import folded
from physics_ep.cost import CrossEntropy, SquaredError
from physics_ep.maps import ConvLink, DenseLink, Link
from physics_ep.pooling import Route
from physics_ep.predictive_coding import mlp


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("others", [0, 1, 2, 5])
def test_rows_that_are_not_opposite_are_mapped_as_they_are(others: int) -> None:
    """A row in which a unit has crossed its kink would be the negative of the other nudge's, and its gradient
    wrong; so would one whose pooling route is that of another example."""
    dense, conv = DenseLink((6,), 4), ConvLink((2, 4, 4), 3, pooling="max")
    cases: list[tuple[Link, tuple[int, ...]]] = [(dense, (6,)), (conv, (2, 4, 4))]
    for link, shape in cases:
        w, up = drawn(*link.weight_shape), drawn(5, *shape, seed=1)
        if len(shape) == 3:
            up = up.contiguous(memory_format=torch.channels_last)
        rows = torch.cat([up, -up])
        rows[5 : 5 + others, ..., :1] += 1
        _, route = link.drive(w, up, None)
        found = folded(lambda h, r, link=link, w=w: link.apply(w, h, r), rows, route)
        torch.testing.assert_close(found, link.apply(w, rows, route), rtol=1e-13, atol=1e-14)
        # And the transposed read.
        back = found.new_tensor(drawn(5, *link.post, seed=2).numpy())
        back = back.contiguous(memory_format=torch.channels_last) if back.ndim == 4 else back
        rows = torch.cat([back, -back])
        rows[5 : 5 + others] *= 0.5
        found = folded(lambda d, r, link=link, w=w: link.transpose(w, d, r), rows, route)
        torch.testing.assert_close(found, link.transpose(w, rows, route), rtol=1e-13, atol=1e-14)


def test_a_row_that_is_not_finite_stays_so() -> None:
    """NaN or infinity in one of two opposite rows would be taken for its finite opposite."""
    rows = torch.cat([torch.ones(4, 2), -torch.ones(4, 2)])
    rows[4, 0], rows[5, 1] = float("nan"), float("inf")
    found = folded(lambda h, _: h @ torch.ones(2, 3), rows, None)
    assert found.isfinite().all(1).tolist() == [True] * 4 + [False] * 2 + [True] * 2


@pytest.mark.parametrize("cost", [CrossEntropy(), SquaredError()], ids=["cross_entropy", "squared_error"])
@pytest.mark.parametrize("activation", ["relu", "hard_tanh"])
def test_sharing_products_changes_no_state_and_halves_them(
    activation: str, cost: CrossEntropy | SquaredError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step with live gates would cost a third more, or be another step where gates open: two examples are pulled
    so hard that units of theirs cross their kinks."""
    net = mlp([5, 24, 16, 3], activation, seed=1).double()
    x = drawn(8, 5, seed=3)
    with torch.no_grad():
        y = net(x) + 0.05 * drawn(8, 3, seed=4)
        y[:2] += 6
    y = y.argmax(1) if isinstance(cost, CrossEntropy) else y
    mapped = map_pcn(net, "resistive", DeviceModel(), 0, calibration=x)
    rows: list[int] = []
    apply = DenseLink.apply

    def counting(self: DenseLink, w: torch.Tensor, h: torch.Tensor, route: Route = None) -> torch.Tensor:
        rows.append(len(h))
        return apply(self, w, h, route)

    def step() -> tuple[dict[str, torch.Tensor], int, list[int]]:
        rows.clear()
        grads, found = mapped.estimate(x, y, cost, beta=0.02, tolerance=1e-8, gates="live")
        return grads, sum(rows), [e.iterations for e in found.equilibria]

    monkeypatch.setattr(DenseLink, "apply", counting)
    plain, dear, known = step()  # nothing is worth it in so small a network
    monkeypatch.setattr("hardware_models.mapping.opposites.WORTH", 0)
    grads, cheap, passes = step()
    assert passes == known
    assert cheap < dear
    for name, g in grads.items():
        torch.testing.assert_close(g, plain[name], rtol=1e-11, atol=1e-14)
