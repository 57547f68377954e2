"""Predictive coding networks with biases that are not zero, and batches for them."""

from __future__ import annotations

import torch

from physics_ep.cost import Cost, CrossEntropy
from physics_ep.maps import DenseLink
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp


def dense(
    depth: int = 5,
    activation: str = "tanh",
    *,
    energy: str = "squared",
    gates: str = "held",
    width: int = 32,
    gain: float = 3**0.5,
    n_in: int = 20,
    seed: int = 0,
) -> PredictiveCodingNetwork:
    """A float64 network of `depth` layers with 10 outputs."""
    sizes = [n_in, *[width] * (depth - 1), 10]
    return biased(mlp(sizes, activation, energy=energy, gates=gates, gain=gain, seed=seed).double())


def biased(net: PredictiveCodingNetwork) -> PredictiveCodingNetwork:
    """The network with small random biases: a unit at exactly 0 would hide errors."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for layer in net.stack:
            draw = torch.randn(layer.bias.shape, generator=generator, dtype=torch.float64)
            layer.bias.copy_(0.05 * draw)
    return net


def counted_rows(monkeypatch) -> list[int]:
    """Rows of each dense product from now on, as it is done."""
    rows: list[int] = []
    for name in ("apply", "drive", "transpose", "gradient"):
        plain = getattr(DenseLink, name)

        def counted(self, w, s, *rest, plain=plain, name=name):
            rows.append(len(s) if name != "gradient" else len(w))
            return plain(self, w, s, *rest)

        monkeypatch.setattr(DenseLink, name, counted)
    return rows


def examples(shape: tuple[int, ...] = (20,), size: int = 16, cost: Cost | None = None, n_out: int = 10):
    """(x, y) in float64, y as the cost takes it (class indices by default)."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(size, *shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, n_out, (size,), generator=generator)
    return x, (cost or CrossEntropy()).encode(labels, n_out, torch.float64)
