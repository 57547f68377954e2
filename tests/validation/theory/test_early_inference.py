"""Early inference: the first movements of layers are back-propagated errors, with their derived sizes."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import gammainc

from hardware_models import HopfieldNetwork, LangevinHopfield
from physics_ep import EnergySystem, Nudge, SquaredError, relax
from physics_ep.blocks import State
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp
from validation import infer_early
from validation.theory.early_inference import Moments, back_propagated, cosine

WIDTH, N_OUT, DEPTH = 32, 10, 5
SIZES = [WIDTH] * DEPTH + [N_OUT]
TIMES = (0.05, 0.1, 0.3, 1.0)
COST = SquaredError()


def data(batch: int = 4, n_in: int = WIDTH, n_out: int = N_OUT, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, n_in, generator=generator, dtype=torch.float64),
        torch.randn(batch, n_out, generator=generator, dtype=torch.float64),
    )


def network(kind: str, gain: float, sizes: list[int] = SIZES) -> EnergySystem:
    if kind == "potentials":
        return LangevinHopfield(sizes, gain=gain).double()
    if kind == "rates":
        return HopfieldNetwork(sizes, "tanh", gain=gain).double()
    return mlp(sizes, activation="tanh", energy=kind, gain=gain).double()


def settled(system: EnergySystem, x: torch.Tensor) -> State:
    return relax(system, x, tolerance=1e-11, max_iterations=40000).require().state


def hessian_at(system: EnergySystem, state: State, x: torch.Tensor) -> torch.Tensor:
    """Of the energy of one example, by automatic differentiation of the energy alone."""
    sizes = [s.shape[1] for s in state]

    def energy(flat: torch.Tensor) -> torch.Tensor:
        return system.energy(tuple(b[None] for b in flat.split(sizes)), x)[0]

    return torch.autograd.functional.hessian(energy, torch.cat([s[0] for s in state]))


@pytest.mark.parametrize("kind", ["potentials", "squared", "paired", "rates"])
def test_delta_is_back_propagated(kind: str) -> None:
    """Breaks if the errors that displacements are held to are not backprop's: automatic differentiation of the
    forward pass, or, where the fixed point is no forward pass, the chain rule with its slopes."""
    system = network(kind, 1.0)
    x, y = data()
    free = settled(system, x)
    with torch.no_grad():
        found = back_propagated(system, x, Nudge(COST, y, 1e-6), free)
    weights = [layer.weight.detach() for layer in system.layers]
    if kind in ("squared", "paired"):
        below, leaves = x, []
        for k, (layer, w) in enumerate(zip(system.layers, weights, strict=True)):
            a = (below @ w.t() + layer.bias.detach()).requires_grad_()
            below = a.tanh() if k + 1 < DEPTH else 1.0 * a
            leaves.append(below if kind == "squared" else a)
        exact = torch.autograd.grad(COST(below, y).sum(), leaves)
    else:
        hidden = [1 - (u.tanh() if kind == "potentials" else u).square() for u in free[:-1]]
        chain = [free[-1] - y]
        for k in range(DEPTH - 2, -1, -1):
            above = hidden[k + 1] * chain[0] if kind == "potentials" and k + 2 < DEPTH else chain[0]
            chain.insert(0, hidden[k] * (above @ weights[k + 1]))
        exact = tuple(chain)
    for mine, other in zip(found, exact, strict=True):
        assert float((mine - other).norm() / other.norm()) < 2e-6


@pytest.mark.full
@pytest.mark.parametrize("kind", ["potentials", "squared"])
def test_displacements_are_the_exponential_of_the_hessian(kind: str) -> None:
    """Breaks if a layer's displacement is not -b t phi(-H t) g, summed as a power series whose blocks are exact
    zeros until a path reaches them; if the leading coefficient is not delta / (j+1)!; or if layers are lost to
    rounding at t = 0.01, as they are when states are subtracted."""
    beta, times = 1e-7, (0.01, 0.1, 1.0)
    system = network(kind, math.sqrt(3.0), [12, 12, 12, 12, 12, 6])
    x, y = data(1, 12, 6)
    free = settled(system, x)
    sizes = [s.shape[1] for s in free]
    h = hessian_at(system, free, x)
    assert float(torch.linalg.eigvalsh(h)[0]) > 0
    g = torch.zeros(sum(sizes), dtype=torch.float64)
    g[-sizes[-1] :] = (free[-1] - y)[0]
    powers = [g]
    for _ in range(60):
        powers.append(-h @ powers[-1])
    early = infer_early(system, x, y, COST, times=times, beta=beta)
    for k in range(DEPTH):
        j = DEPTH - 1 - k
        block = [p.split(sizes)[k] for p in powers]
        assert all(float(b.abs().max()) == 0 for b in block[:j])
        assert float((early.delta[k][0] - block[j]).norm() / block[j].norm()) < 1e-7
        for i, t in enumerate(times):
            series = sum(b * (-beta * t ** (n + 1) / math.factorial(n + 1)) for n, b in enumerate(block))
            assert isinstance(series, torch.Tensor)
            apart = float((early.displacement[k][i, 0] - series).norm() / series.norm())
            assert apart < 2e-6, (k, t)
    first = early.displacement[0][0, 0]
    subtracted = (free[0][0] + first) - free[0][0]
    assert float((subtracted - first).norm() / first.norm()) > 0.3


@pytest.mark.full
@pytest.mark.parametrize(("kind", "width"), [("squared", 128), ("potentials", 32)])
def test_published_table(kind: str, width: int) -> None:
    """Breaks if layers of predictive coding networks and Hopfield networks do not begin to move along the
    back-propagated errors, with the sizes of the formula: the table derived for five tanh layers, b = 1e-3, at gain
    sqrt(3), to its digits (at t = 1 for the worst of our networks and examples)."""
    x, y = data(4, width)
    early = infer_early(network(kind, math.sqrt(3.0), [width] * DEPTH + [N_OUT]), x, y, COST, times=TIMES)
    assert early.cosine.amin((1, 2)).ge(torch.tensor([0.9999, 0.9995, 0.996, 0.97])).all()
    assert early.size.amin((1, 2)).ge(torch.tensor([0.905, 0.825, 0.575, 0.19])).all()
    assert early.size.amax((1, 2)).le(torch.tensor([0.98, 0.955, 0.88, 0.71])).all()
    assert all(row.least <= row.most < 1 for row in early.rows)
    assert len(early.rows) == len(TIMES) * DEPTH


def test_larger_gain_aligns_less() -> None:
    """Breaks if at gain sqrt(6) the worst layer's cosine, mean of the examples, leaves the derived range (0.9994
    and 0.9948 in one network at t = 0.1 and 0.3)."""
    x, y = data(4, 128)
    system = network("squared", math.sqrt(6.0), [128] * DEPTH + [N_OUT])
    early = infer_early(system, x, y, COST, times=(0.1, 0.3))
    worst = early.cosine.mean(2).amin(1)
    assert 0.9990 <= float(worst[0]) <= 0.9996
    assert 0.9930 <= float(worst[1]) <= 0.9960


@pytest.mark.full
def test_paired_errors_follow_the_incomplete_gamma_function() -> None:
    """Breaks if errors of paired units are not -b P(j+1, t) delta at all times, P the regularised incomplete gamma
    function: a flow in which nothing comes up from below."""
    times = (0.05, 0.3, 2.0, 8.0)
    x, y = data()
    early = infer_early(network("paired", math.sqrt(6.0)), x, y, COST, times=times, beta=1e-7)
    assert early.error is not None
    for k in range(DEPTH):
        for i, t in enumerate(times):
            exact = -1e-7 * float(gammainc(DEPTH - k, t)) * early.delta[k]
            assert float((early.error[k][i] - exact).norm() / exact.norm()) < 1e-5, (k, t)
    assert early.error_cosine is not None
    assert float(early.error_cosine.min()) > 1 - 1e-9


@pytest.mark.full
def test_late_errors_align_and_displacements_do_not() -> None:
    """Breaks if, after 12 time constants, errors of a predictive coding network do not align with backprop, or a
    Hopfield network does not come to rest along the response -b H^-1 g, by a dense solve: another direction."""
    x, y = data()
    early = infer_early(network("squared", 0.7), x, y, COST, times=(0.1, 12.0))
    assert early.error_cosine is not None
    assert float(early.error_cosine[-1].min()) > 0.9995
    assert float(early.cosine[0].min()) > 0.999
    assert float(early.cosine[-1].min()) < 0.99
    system = network("potentials", 0.2)
    x, y = x[:1], y[:1]
    early = infer_early(system, x, y, COST, times=(25.0,), beta=1e-6)
    free = settled(system, x)
    g = torch.zeros(sum(SIZES[1:]), dtype=torch.float64)
    g[-N_OUT:] = (free[-1] - y)[0]
    rest = torch.linalg.solve(hessian_at(system, free, x), -1e-6 * g).split(SIZES[1:])
    for mine, other in zip(early.displacement, rest, strict=True):
        assert float((mine[0, 0] - other).norm() / other.norm()) < 1e-4
    assert float(early.cosine.min()) < 0.9999


SMALL = [16, 16, 16, 16, 16, 8]


@pytest.mark.parametrize("kind", ["potentials", "squared"])
@pytest.mark.full
def test_common_noise_leaves_all_layers(kind: str) -> None:
    """Breaks if free and nudged runs do not get the same noise: at temperature 1e-4, where independent noise would
    ask for some 1e15 runs of the first layer, ten pairs find all layers as they are without noise."""
    system, (x, y) = network(kind, math.sqrt(3.0), SMALL), data(2, 16, 8)
    quiet = infer_early(system, x, y, COST, times=(0.1, 0.3))
    noisy = infer_early(system, x, y, COST, times=(0.1, 0.3), temperature=1e-4, runs=10)
    assert float((noisy.cosine - quiet.cosine).abs().max()) < 1e-3
    assert float((noisy.projection - quiet.projection).abs().max()) < 0.02
    assert 0 < float(noisy.noise.max()) < 0.02
    apart = infer_early(system, x, y, COST, times=(0.1,), temperature=1e-4, runs=50, common_noise=False)
    assert float(apart.runs_needed(0.99)[0, -1].mean()) > 1e4
    assert float(apart.runs_needed(0.99)[0, 0].mean()) > 1e13


@pytest.mark.full
def test_averages_resolve_the_layers_that_the_variance_says() -> None:
    """Breaks if independent noise has not the variance 2 T H^-1 (1 - exp(-2 H t)) of two Ornstein-Uhlenbeck runs
    (linear units), or if averaging over the predicted number of runs does not resolve the top two layers, and them
    alone."""
    t, temperature, aim = 0.3, 3e-9, 0.98
    system = LangevinHopfield(SMALL, "linear", gain=0.4).double()
    x, y = data(4, 16, 8)
    early = infer_early(
        system, x, y, COST, times=(t,), temperature=temperature, runs=1000, common_noise=False, steps=10
    )
    h = hessian_at(system, settled(system, x[:1]), x[:1])
    values, vectors = torch.linalg.eigh(h)
    per_run = 2 * temperature * (vectors.square() @ (-torch.expm1(-2 * values * t) / values))
    for v, exact in zip(early.variance, per_run.split(SMALL[1:]), strict=True):
        assert float((v[0] / exact).mean() - 1) == pytest.approx(0, abs=0.02)
    runs = int(early.runs_needed(aim)[0, -2].mean())
    assert 500 < runs < 5000
    early = infer_early(
        system, x, y, COST, times=(t,), temperature=temperature, runs=runs, common_noise=False, steps=10
    )
    assert float(early.cosine[0, -1].min()) > 0.999
    assert 0.95 < float(early.cosine[0, -2].mean()) < 0.99
    assert float(early.cosine[0, 0].abs().max()) < 0.7
    quiet = infer_early(system, x, y, COST, times=(t,))
    off = (early.projection - quiet.projection).abs() / early.projection_error
    assert float(off.max()) < 4
    assert 0.5 < float(off.square().mean().sqrt()) < 1.5


def test_moments_of_parts_are_those_of_the_whole() -> None:
    """Breaks if runs that were followed in parts, as many as fit, are not weighed by their numbers."""
    values = torch.randn(17, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def moments(part: torch.Tensor) -> Moments:
        return Moments(len(part), (part.mean(0),), ((part - part.mean(0)).square().sum(0),))

    found = moments(values[:5]).merged(moments(values[5:6])).merged(moments(values[6:]))
    assert found.runs == 17
    assert torch.allclose(found.mean[0], values.mean(0), atol=1e-14)
    assert torch.allclose(found.squares[0] / 16, values.var(0), atol=1e-14)


def test_cosine_has_no_scale() -> None:
    """Breaks if tiny displacements are taken for none (as with a floor of 1e-8 under the norms)."""
    a = torch.tensor([3e-20, 4e-20], dtype=torch.float64)
    assert float(cosine(a, torch.tensor([3e-9, 4e-9], dtype=torch.float64))) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": (0.3, 0.1)}, "times must be increasing"),
        ({"times": (0.0,)}, "times must be increasing"),
        ({"beta": 0.0}, "beta must be finite and not 0"),
        ({"temperature": -1.0}, "temperature must be"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"runs": 3}, "runs must be 1 without"),
        ({"steps": 0}, "steps must be an integer"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    """Breaks if a bad option is not named in one line."""
    x, y = data(2, 16, 8)
    with pytest.raises(InputError, match=message):
        infer_early(network("potentials", 1.0, SMALL), x, y, COST, **options)


@pytest.mark.parametrize("kind", ["rates", "paired"])
def test_noise_needs_an_energy_to_descend(kind: str) -> None:
    """Breaks if noise is put on variables with bounds, or that ascend, where a temperature means nothing."""
    x, y = data(2, 16, 8)
    with pytest.raises(InputError, match="temperature must be 0"):
        infer_early(network(kind, 1.0, SMALL), x, y, COST, temperature=1e-4)
