"""Steps whose phases torch.compile fuses: the same numbers to rounding, no broken graph, a word where it cannot."""

from __future__ import annotations

import warnings

import pytest
import torch

from hardware_models import HopfieldNetwork
from physics_ep import CrossEntropy, EquilibriumPropagation, Nudge, SquaredError, compiling, relax
from physics_ep.errors import InputError
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp, vgg10
from physics_ep.predictive_coding.phase import PredictivePhase
from physics_ep.predictive_coding.solvers import SOLVERS


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


def _nudged(net: PredictiveCodingNetwork) -> PredictivePhase:
    """A phase of two opposite nudges, which has not moved yet."""
    cost = CrossEntropy()
    x = torch.rand(3, *net.example_shape, generator=torch.Generator().manual_seed(0))
    y = cost.encode(torch.arange(3), net.sizes[-1], torch.float32)
    with torch.no_grad():
        phase = net.phase(net.prepare(x), origin=relax(net, x).state)
        stacked = phase.stacked([Nudge(cost, y, beta) for beta in (0.05, -0.05)])
    assert stacked is not None
    return stacked


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "energy", "gates", "solver"),
    [
        ("relu", "squared", "held", "anderson"),
        ("relu", "squared", "live", "anderson"),
        ("tanh", "squared", "held", "anderson"),
        ("tanh", "paired", "held", "sweep"),
        ("relu", "squared", "held", "sweep"),
    ],
)
def test_nothing_breaks_between_two_looks_at_a_residual(
    activation: str, energy: str, gates: str, solver: str
) -> None:
    """`explain`: what a nudged phase of VGG10 computes before a look, and from one to the next, is one graph each.

    A phase ends where a residual says so. That look must break a graph, and nothing else may: each break would be
    a wait more, and the end of what can be fused.
    """
    from torch._dynamo import explain

    net = vgg10(10, (3, 32, 32), width=1 / 32, activation=activation, energy=energy, gates=gates)
    phase = _nudged(net)
    moving = torch.ones(phase.rows, dtype=torch.bool)
    torch._dynamo.reset()
    with torch.no_grad():
        method = SOLVERS[solver](phase, phase.start())
        for _ in range(3):
            for part, given in ((type(method)._judged, ()), (type(method).advance, (moving,))):
                told = explain(part)(method, *given)
                assert (told.graph_count, told.graph_break_count) == (1, 0), told.break_reasons


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_examples_that_are_at_rest_stay_there_when_compiled(
    monkeypatch: pytest.MonkeyPatch, activation: str
) -> None:
    """One example has its target: nothing pulls at it. Compiled steps hold it still without a look at who moves."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    net = mlp([8, 16, 12, 10], activation=activation)
    x = torch.rand(3, 8, generator=torch.Generator().manual_seed(0))
    y = relax(net, x).state[-1].clone()
    y[1:] += 0.3
    found = []
    for compile in ("off", "auto"):
        net.zero_grad()
        step = EquilibriumPropagation(SquaredError(), beta=0.1, compile=compile).backward(net, x, y)
        assert step.equilibria[1].displacement is not None
        assert all(not d[0].any() for d in step.equilibria[1].displacement)
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert _off(found[1], found[0]) < 1e-5


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
