"""Steps whose phases torch.compile fuses: the same numbers to rounding, no broken graph, a word where it cannot."""

from __future__ import annotations

import warnings

import pytest
import torch

from hardware_models import HopfieldNetwork
from physics_ep import CrossEntropy, EquilibriumPropagation, SquaredError, compiling
from physics_ep.errors import InputError
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp, vgg10


def _gradient(net: PredictiveCodingNetwork, compile: str, batch: int = 3) -> torch.Tensor:
    cost = CrossEntropy()
    x = torch.rand(batch, *net.example_shape, generator=torch.Generator().manual_seed(0))
    y = cost.encode(torch.arange(batch), net.sizes[-1], torch.float32)
    net.zero_grad()
    step = EquilibriumPropagation(cost, beta="auto", compile=compile).backward(net, x, y)
    assert all(found.iterations > 1 for found in step.equilibria[1:])
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def _off(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("energy", ["squared", "paired"])
def test_no_graph_breaks_within_a_pass(monkeypatch: pytest.MonkeyPatch, activation: str, energy: str) -> None:
    """VGG10: every pass of a step is one graph, and steps after the second compile nothing. A read of a number
    within a pass would break its graph, and make a GPU wait."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    counters.clear()
    net = vgg10(10, (3, 32, 32), width=1 / 32, activation=activation, energy=energy)
    plain = _gradient(net, "off")
    assert not counters["stats"]
    graphs = 0
    for _ in range(3):  # the second compiles what a step does that finds memory of the first
        before, graphs = graphs, counters["stats"]["unique_graphs"]
        assert _off(_gradient(net, "auto"), plain) < 1e-5
    assert before <= graphs == counters["stats"]["unique_graphs"] <= 16
    assert graphs >= 2
    assert not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_compiled_kernels_have_the_numbers(dtype: torch.dtype | None) -> None:
    """The real backend, for two batch sizes: equal to rounding (in bfloat16, to that of its 8 digits)."""
    if compiling.hindrance(torch.device("cpu")):
        pytest.skip("no compiler")
    torch._dynamo.reset()
    net = mlp([8, 16, 12, 10], activation="tanh")
    net.compute_dtype = dtype
    for batch in (3, 2):
        off = _off(_gradient(net, "auto", batch), _gradient(net, "off", batch))
        assert off < (1e-5 if dtype is None else 3e-2)


def test_what_is_not_compiled_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown values are refused; without a compiler, and for systems without such functions, one warning says so
    and the numbers are those of 'off'."""
    for unknown in ("on", True, None):
        with pytest.raises(InputError, match="compile"):
            EquilibriumPropagation(SquaredError(), compile=unknown)  # type: ignore[arg-type]
    system = HopfieldNetwork([4, 6, 3])
    x, y = torch.rand(2, 4), torch.rand(2, 3)
    ep = EquilibriumPropagation(SquaredError(), compile="auto")
    with pytest.warns(UserWarning, match=r"^compile='auto' compiles nothing, since HopfieldNetwork has nothing"):
        ep.backward(system, x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ep.backward(system, x, y)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    net = mlp([4, 6, 3])
    plain = _gradient(net, "off")
    with pytest.warns(UserWarning, match=r"^compile='auto' compiles nothing, since there is no C\+\+ compiler"):
        assert torch.equal(_gradient(net, "auto"), plain)
