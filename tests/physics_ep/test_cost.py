"""Costs: if these fail, nudged outputs settle in the wrong place or lose their digits at small beta."""

from __future__ import annotations

import mpmath
import pytest
import torch

from physics_ep import CrossEntropy, LogPhaseError, Nudge, PhaseError, SquaredError
from physics_ep.cost import Cost, OutputForce
from physics_ep.errors import InputError
from tests.support.costs import WeightedError

GENERATOR = torch.Generator().manual_seed(0)
OUT = torch.randn(5, 4, generator=GENERATOR, dtype=torch.float64)
CASES = [
    (SquaredError(), torch.rand(5, 4, generator=GENERATOR, dtype=torch.float64)),
    (CrossEntropy(), torch.tensor([0, 3, 1, 1, 2])),
]


PHASES = torch.rand(5, 4, generator=GENERATOR, dtype=torch.float64)
ANGULAR = [(PhaseError(), PHASES), (LogPhaseError(), PHASES)]


@pytest.mark.parametrize(("cost", "y"), CASES + ANGULAR)
def test_gradient_and_curvature_are_autograds(cost, y) -> None:
    """Independent answer: autograd of the value."""
    v = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out = OUT.clone().requires_grad_()
    (g,) = torch.autograd.grad(cost(out, y).sum(), out, create_graph=True)
    (hv,) = torch.autograd.grad((g * v).sum(), out)
    assert torch.allclose(cost.gradient(OUT, y), g.detach(), atol=1e-14)
    assert torch.allclose(cost.curvature(OUT, y, v), hv, atol=1e-14)


@pytest.mark.parametrize(("cost", "y"), [*CASES, *ANGULAR, (OutputForce(), PHASES), (WeightedError(), PHASES)])
@pytest.mark.parametrize("beta", [0.3, torch.linspace(-0.5, 0.5, 5, dtype=torch.float64)], ids=["one", "each"])
def test_linear_nudges_are_told_as_stiffness_and_force(cost, y, beta) -> None:
    """A wrong stiffness or force gives other nudged states on fast paths than elsewhere."""
    nudge = Nudge(cost, y, beta.abs() if cost.positive_only and isinstance(beta, torch.Tensor) else beta)
    parts = nudge.linear(torch.float64)
    if not isinstance(cost, SquaredError | OutputForce | WeightedError):
        assert parts is None
        return
    stiffness, force = parts
    assert stiffness.shape == force.shape == OUT.shape
    assert torch.allclose(force - stiffness * OUT, -nudge.column(OUT) * cost.gradient(OUT, y), atol=1e-14)


def test_values_are_torchs() -> None:
    """Factor 1/2 and the sum over outputs: a missing one scales every gradient."""
    y = CASES[0][1]
    mse = 0.5 * torch.nn.functional.mse_loss(OUT, y, reduction="none").sum(1)
    assert torch.allclose(SquaredError()(OUT, y), mse)
    labels = CASES[1][1]
    assert torch.allclose(
        CrossEntropy()(OUT, labels), torch.nn.functional.cross_entropy(OUT, labels, reduction="none")
    )


@pytest.mark.parametrize(("cost", "y"), CASES)
@pytest.mark.parametrize("beta", [-0.3, 1e-6, 0.7, 5.0])
def test_displaced_unit_solves_its_equation(cost, y, beta: float) -> None:
    """d + beta dC(out + d) = rhs, to rounding."""
    rhs = 0.3 * torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    d = cost.displaced_unit(OUT, y, beta, rhs)
    assert torch.allclose(d + beta * cost.gradient(OUT + d, y), rhs, atol=1e-13)


def test_cross_entropy_differences_keep_their_digits() -> None:
    """softmax(o + d) - softmax(o) for d of 1e-9, against 50 digits: plain subtraction keeps only seven."""
    d = 1e-9 * torch.randn(1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mine = CrossEntropy().gradient_difference(OUT[:1], d, torch.tensor([0]))[0]
    with mpmath.workdps(50):
        o = [mpmath.mpf(float(v)) for v in OUT[0]]
        moved = [v + mpmath.mpf(float(w)) for v, w in zip(o, d[0], strict=True)]

        def softmax(values):
            total = sum(mpmath.exp(v) for v in values)
            return [mpmath.exp(v) / total for v in values]

        exact = [float(a - b) for a, b in zip(softmax(moved), softmax(o), strict=True)]
    assert torch.allclose(mine, torch.tensor(exact, dtype=torch.float64), rtol=1e-13, atol=0)


@pytest.mark.parametrize(("cost", "y"), ANGULAR)
def test_differences_of_phase_costs_keep_their_digits(cost, y) -> None:
    """sin and tan of the half at o + d less those at o, for d of 1e-9, against 50 digits."""
    d = 1e-9 * torch.randn(1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mine = cost.gradient_difference(OUT[:1], d, y[:1])[0]
    with mpmath.workdps(50):
        exact = []
        for o, t, move in zip(OUT[0].tolist(), y[0].tolist(), d[0].tolist(), strict=True):
            ends = [mpmath.mpf(o) - mpmath.mpf(t) + shift for shift in (mpmath.mpf(move), 0)]
            slope = mpmath.sin if cost.name == "phase_error" else (lambda a: mpmath.tan(a / 2))
            exact.append(float(slope(ends[0]) - slope(ends[1])))
    assert torch.allclose(mine, torch.tensor(exact, dtype=torch.float64), rtol=1e-13, atol=0)
    # Both are known for a cosine: 1 - cos, and -log((1 + cos) / 2).
    cosine = (OUT - y).cos()
    value = 1 - cosine if cost.name == "phase_error" else -(0.5 + 0.5 * cosine).log()
    assert torch.allclose(cost(OUT, y), value.sum(1), rtol=1e-12, atol=0)


def test_wrong_targets_are_told() -> None:
    """One line that names y, what it must be and what it was."""
    with pytest.raises(InputError, match=r"y must have the outputs' shape \(5, 4\)"):
        SquaredError().check(OUT, torch.zeros(5, 3))
    with pytest.raises(InputError, match="y must be finite"):
        SquaredError().check(OUT, torch.full((5, 4), float("nan")))
    with pytest.raises(InputError, match="class indices"):
        CrossEntropy().check(OUT, torch.zeros(5, 4))
    with pytest.raises(InputError, match=r"class indices in \[0, 4\), but was values from -1 to 4"):
        CrossEntropy().check(OUT, torch.tensor([0, 1, 4, -1, 2]))


@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()], ids=["se", "ce"])
def test_a_cost_near_outputs_is_the_cost(cost: Cost) -> None:
    """What displacements share is computed once, for stacked batches too: gradient and differences are those of the
    cost, and those of a subclass with a slope of its own are its own."""
    generator = torch.Generator().manual_seed(0)
    outputs = 3 * torch.randn(4, 5, generator=generator, dtype=torch.float64)
    y = cost.encode(torch.tensor([0, 4, 2, 2]), 5, torch.float64)
    rows, targets = outputs.repeat(3, 1), torch.cat([y] * 3)
    near = cost.at(outputs, targets, 3)
    torch.testing.assert_close(near.outputs, rows, atol=0, rtol=0)
    torch.testing.assert_close(near.gradient, cost.gradient(rows, targets), atol=1e-15, rtol=1e-14)
    for size in (1e-9, 1.0):
        d = size * torch.randn(12, 5, generator=generator, dtype=torch.float64)
        whole = cost.gradient_difference(rows, d, targets)
        torch.testing.assert_close(near.difference(d), whole, atol=0, rtol=1e-12)

    class Doubled(type(cost)):  # type: ignore[misc]
        def gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return 2 * super().gradient(outputs, y)

        def gradient_difference(self, outputs: torch.Tensor, d: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return 2 * super().gradient_difference(outputs, d, y)

    twice = Doubled().at(outputs, y)
    torch.testing.assert_close(twice.gradient, 2 * near.gradient[:4], atol=1e-15, rtol=1e-14)
    torch.testing.assert_close(twice.difference(d[:4]), 2 * near.difference(d)[:4], atol=1e-15, rtol=1e-12)
