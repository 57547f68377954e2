"""The Hopfield energy in potentials, its Boltzmann distribution, and equilibrium propagation at a temperature."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import kstest

from hardware_models import HopfieldNetwork, LangevinHopfield
from physics_ep import (
    EnergySystem,
    EquilibriumPropagation,
    NotStationary,
    Nudge,
    SquaredError,
    StochasticEquilibriumPropagation,
    StochasticGradient,
    holomorphic,
    relax,
    simulate,
)
from physics_ep.errors import InputError
from validation import check_system, gradient_report

COST = SquaredError()


def potentials(
    sizes: list[int], activation: str = "tanh", gain: float = 0.8, **options: object
) -> LangevinHopfield:
    """A float64 network with biases that are not zero."""
    system = LangevinHopfield(sizes, activation, gain=gain, **options).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in system.couplings:
            layer.bias.copy_(0.3 * torch.randn(layer.bias.shape, generator=generator, dtype=torch.float64))
    return system


def data(batch: int, n_in: int, n_out: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, n_in, generator=generator, dtype=torch.float64)
    return x, torch.randn(batch, n_out, generator=generator, dtype=torch.float64)


# -- the system -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("activation", "output"), [("tanh", "linear"), ("logistic", "tanh")])
def test_contract(activation: str, output: str) -> None:
    """Breaks if force, contrast or displacements do not belong to the energy, or EP is not of its order at the
    implicit gradient; holomorphic EP shows that the energy is analytic as declared."""
    system = potentials([6, 8, 7, 3], activation, output_activation=output)
    x, y = data(3, 6, 3)
    check_system(system, x, y)
    errors = [
        gradient_report(system, x, y, COST, scheme=holomorphic(4), beta=b, tolerance=1e-12).relative_error
        for b in (0.2, 0.1)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.3)


def test_one_unit_rests_where_its_equation_says() -> None:
    """Breaks if a hidden potential is not the root of u = rho'(u) p, by scipy: the slope or the drive is wrong."""
    system = potentials([2, 1, 1], gain=1.5)
    with torch.no_grad():
        system.couplings[1].weight.zero_()
    x, _ = data(3, 2, 1)
    free = relax(system, x, tolerance=1e-13).require()
    drive = system.couplings[0].biased(x).detach()
    for i in range(3):
        p = float(drive[i])
        root = brentq(lambda u, p=p: u * math.cosh(u) ** 2 - p, -abs(p), abs(p), xtol=1e-15)
        assert float(free.state[0][i]) == pytest.approx(root, abs=1e-12)


def test_linear_units_are_those_of_the_circuit() -> None:
    """Breaks if the energy with linear units is not that of a `HopfieldNetwork` of linear units: another assembler,
    with other updates."""
    ours, other = potentials([5, 6, 3], "linear", gain=0.4), HopfieldNetwork([5, 6, 3], "linear").double()
    other.load_state_dict(ours.state_dict())
    x, y = data(4, 5, 3)
    states = [relax(s, x, tolerance=1e-13).require().state for s in (ours, other)]
    for a, b in zip(*states, strict=True):
        assert float((a - b).abs().max()) < 1e-12
    assert torch.allclose(ours.energy(states[0], x), other.energy(states[0], x), atol=1e-13)
    for system in (ours, other):
        EquilibriumPropagation(COST, beta=0.05, tolerance=1e-12).backward(system, x, y)
    for p, q in zip(ours.parameters(), other.parameters(), strict=True):
        assert float((p.grad - q.grad).abs().max()) < 1e-10


@pytest.mark.parametrize("activation", ["tanh", "logistic"])
def test_displaced_force_keeps_its_digits(activation: str) -> None:
    """Breaks if the force on a tiny displacement is a difference of forces: against 60 digits."""
    system = potentials([2, 2, 1], activation, gain=2.0)
    x, _ = data(1, 2, 1)
    base = (torch.tensor([[0.7, -1.9]], dtype=torch.float64), torch.tensor([[0.4]], dtype=torch.float64))
    moved = (torch.tensor([[3e-13, -2e-14]], dtype=torch.float64), torch.tensor([[5e-15]], dtype=torch.float64))
    with torch.no_grad():
        mine = system.phase(system.prepare(x), origin=base, balanced=True).force(moved)
    with mpmath.workdps(60):
        rho = mpmath.tanh if activation == "tanh" else lambda u: 1 / (1 + mpmath.exp(-u))
        w, b = zip(*((c.weight.tolist(), c.bias.tolist()) for c in system.couplings), strict=True)

        def force(u: list[mpmath.mpf]) -> list[mpmath.mpf]:
            out = []
            for i in range(2):
                p = sum(mpmath.mpf(w[0][i][j]) * mpmath.mpf(float(x[0, j])) for j in range(2)) + mpmath.mpf(b[0][i])
                p += mpmath.mpf(w[1][0][i]) * u[2]
                out.append(mpmath.diff(rho, u[i]) * p - u[i])
            out.append(sum(mpmath.mpf(w[1][0][i]) * rho(u[i]) for i in range(2)) + mpmath.mpf(b[1][0]) - u[2])
            return out

        at = [mpmath.mpf(v) for v in (*base[0][0].tolist(), float(base[1]))]
        step = [mpmath.mpf(v) for v in (*moved[0][0].tolist(), float(moved[1]))]
        exact = [
            p - q for p, q in zip(force([a + d for a, d in zip(at, step, strict=True)]), force(at), strict=True)
        ]
    for value, reference in zip([*mine[0][0].tolist(), float(mine[1])], exact, strict=True):
        assert abs(value / float(reference) - 1) < 1e-12


def test_float32_carries_the_gradient() -> None:
    """Breaks if displacements or contrasts are rounded as states are: at beta 1e-3 that costs 1e-4 or more."""
    system = potentials([6, 8, 7, 3])
    x, y = data(4, 6, 3)
    exact = EquilibriumPropagation(COST, beta=1e-3, tolerance=1e-12)
    exact.backward(system, x, y)
    narrow = LangevinHopfield([6, 8, 7, 3])
    narrow.load_state_dict(system.state_dict())
    EquilibriumPropagation(COST, beta=1e-3).backward(narrow, x.float(), y.float())
    for p, q in zip(system.parameters(), narrow.parameters(), strict=True):
        assert float((p.grad - q.grad).norm() / p.grad.norm()) < 2e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": [4]}, "sizes must be"),
        ({"activation": "hard_sigmoid"}, "hard_sigmoid"),
        ({"temperature": -0.1}, "temperature must be"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"gain": 0.0}, "gain must be"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    """Breaks if a bad option is not named."""
    with pytest.raises(InputError, match=message):
        LangevinHopfield(**{"sizes": [4, 3], **options})


# -- its Boltzmann distribution ---------------------------------------------------------------------------------


class Boltzmann:
    """exp(-F / T) of up to three variables, by the trapezoidal rule on a grid: exponentially accurate."""

    def __init__(
        self, system: EnergySystem, x: torch.Tensor, temperature: float, nudge: Nudge | None = None
    ) -> None:
        sizes = [s.shape[1] for s in system.initial_state(x)]
        count, reach = {1: (2001, 9.0), 2: (401, 8.0), 3: (91, 6.0)}[sum(sizes)]
        self.axis = torch.linspace(-reach, reach, count, dtype=torch.float64)
        grid = torch.cartesian_prod(*[self.axis] * sum(sizes)).reshape(count ** sum(sizes), -1)
        self.state = tuple(b.contiguous() for b in grid.split(sizes, 1))
        self.system, self.x = system, x.expand(len(grid), -1)
        energy = system.energy(self.state, self.x)
        if nudge is not None:
            energy = energy + nudge.beta * nudge.cost(system.outputs(self.state), nudge.y.expand(len(grid), -1))
        self.weight = torch.softmax(-energy / temperature, 0)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        return self.weight @ values

    def slopes(self) -> dict[str, torch.Tensor]:
        """<dE/dtheta>, by automatic differentiation of the energy alone."""
        mean = self.weight.detach() @ self.system.energy(self.state, self.x)
        names = [n for n, _ in self.system.named_parameters()]
        grads = torch.autograd.grad(mean, list(self.system.parameters()), allow_unused=True)
        return dict(zip(names, grads, strict=True))


@pytest.mark.parametrize("sizes", [[1, 1], [1, 1, 1], [1, 1, 1, 1]])
def test_simulation_samples_the_boltzmann_distribution(sizes: list[int]) -> None:
    """Breaks if noise is not sqrt(2 T) dW beside the force: the marginal of each variable, over independent
    chains, against quadrature of exp(-E / T), by Kolmogorov and Smirnov; and its moments. The temperature is the
    system's."""
    temperature, chains = 0.6, 6000
    system = potentials(sizes, gain=2.0, output_activation="tanh", temperature=temperature)
    x = torch.full((1, 1), 0.8, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    run = simulate(system, x.expand(chains, -1), duration=6.0, steps=60, every=60, generator=generator)
    with torch.no_grad():
        exact = Boltzmann(system, x, temperature)
    for k, block in enumerate(run.state):
        found, values = block[-1, :, 0].numpy(), exact.state[k][:, 0]
        marginal = torch.zeros(len(exact.axis), dtype=torch.float64)
        nearest = torch.searchsorted(exact.axis, values - 1e-9)
        cumulative = marginal.index_add(0, nearest, exact.weight).cumsum(0)
        # A point of the grid stands for the cell around it.
        edges = exact.axis + 0.5 * (exact.axis[1] - exact.axis[0])

        def distribution(s: object, edges: torch.Tensor = edges, cumulative: torch.Tensor = cumulative) -> object:
            return np.interp(s, edges.numpy(), cumulative.numpy())

        assert kstest(found, distribution).pvalue > 1e-3
        mean, square = float(exact.mean(values)), float(exact.mean(values.square()))
        spread = math.sqrt(square - mean**2)
        assert float(found.mean()) == pytest.approx(mean, abs=4 * spread / math.sqrt(chains))
        assert float(found.var()) == pytest.approx(spread**2, rel=4 * math.sqrt(2 / chains) + 0.01)


# -- equilibrium propagation at a temperature -------------------------------------------------------------------


def propagated(
    system: EnergySystem, x: torch.Tensor, y: torch.Tensor, beta: float, temperature: float, **options: object
) -> StochasticGradient:
    settings: dict = {"chains": 128, "burn_in": 6.0, "duration": 20.0, "step": 0.1, **options}
    return StochasticEquilibriumPropagation(COST, beta=beta, temperature=temperature, **settings).estimate(
        system, x, y
    )


def scores(found: StochasticGradient, exact: dict[str, torch.Tensor]) -> torch.Tensor:
    """Errors over standard errors, all entries."""
    off = [((g - exact[n]) / found.standard_errors[n]).flatten() for n, g in found.gradients.items()]
    return torch.cat(off)


def gaussian(system: LangevinHopfield, x: torch.Tensor, y: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean cost of a network of linear units: C at the mean, and T / 2 times the trace of H^-1 over the outputs."""
    sizes = list(system.sizes[1:])
    h = torch.eye(sum(sizes), dtype=torch.float64)
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    for k, layer in enumerate(system.couplings[1:], 1):
        rows, columns = slice(starts[k], starts[k] + sizes[k]), slice(starts[k - 1], starts[k - 1] + sizes[k - 1])
        block = torch.zeros_like(h)
        block[rows, columns] = 1.0
        placed = torch.zeros_like(h)
        placed = placed.index_put(
            (torch.arange(rows.start, rows.stop)[:, None], torch.arange(columns.start, columns.stop)[None]),
            layer.weight,
        )
        h = h - placed - placed.T
    drive = torch.cat(
        [system.couplings[0].biased(x), *(c.bias.expand(len(x), -1) for c in system.couplings[1:])], 1
    )
    mean = torch.linalg.solve(h, drive.T).T
    outputs = mean[:, -sizes[-1] :]
    trace = torch.linalg.inv(h).diagonal()[-sizes[-1] :].sum()
    return (0.5 * (outputs - y).square().sum(1)).mean() + 0.5 * temperature * trace


def test_linear_units_have_the_gaussian_gradient() -> None:
    """Breaks if averages over noise are not the gradient of the mean cost, variance of the outputs included: the
    closed form of Gaussian states, by automatic differentiation. EP at rest misses that part."""
    system = potentials([3, 3, 2], "linear", gain=0.7)
    x, y = data(2, 3, 2)
    loss = gaussian(system, x, y, 0.5)
    exact = dict(
        zip([n for n, _ in system.named_parameters()], torch.autograd.grad(loss, system.parameters()), strict=True)
    )
    found = propagated(system, x, y, 0.02, 0.5)
    z = scores(found, exact)
    assert found.stationary
    assert float(z.abs().max()) < 4.5
    assert 0.6 < float(z.square().mean().sqrt()) < 1.6
    assert abs(found.loss - float(loss.detach())) < 4 * found.loss_error
    rest = propagated(system, x, y, 0.02, 0.0)
    assert float(scores(found, rest.gradients).abs().max()) > 8


@pytest.mark.full
@pytest.mark.parametrize("sizes", [[1, 1], [1, 1, 1]])
def test_gradient_is_that_of_quadrature(sizes: list[int]) -> None:
    """Breaks if the estimate is not d<C>/dtheta of exp(-E / T) for an energy that is not quadratic: quadrature on
    one and two variables, differentiated; and if at a large beta it is not the stencil of quadratures, bias
    included."""
    temperature = 0.4
    system = potentials(sizes, gain=1.5, output_activation="tanh")
    x, y = torch.full((1, 1), 0.7, dtype=torch.float64), torch.full((1, 1), -0.5, dtype=torch.float64)
    small = Boltzmann(system, x, temperature)
    loss = small.mean(COST(small.system.outputs(small.state), y.expand(len(small.state[0]), -1)))
    exact = dict(
        zip([n for n, _ in system.named_parameters()], torch.autograd.grad(loss, system.parameters()), strict=True)
    )
    found = propagated(system, x, y, 0.05, temperature, duration=60.0, chains=192)
    assert float(scores(found, exact).abs().max()) < 4.5
    assert abs(found.loss - float(loss.detach())) < 4 * found.loss_error + 1e-3
    beta = 0.8
    far = [Boltzmann(system, x, temperature, Nudge(COST, y, sign * beta)).slopes() for sign in (1, -1)]
    biased = {n: (far[0][n] - far[1][n]) / (2 * beta) for n in exact}
    found = propagated(system, x, y, beta, temperature, duration=60.0, chains=192)
    assert float(scores(found, biased).abs().max()) < 4.5
    if len(sizes) == 3:
        assert float(scores(found, exact).abs().max()) > 6


def test_cold_systems_have_the_gradient_at_rest() -> None:
    """Breaks if the estimate does not tend to EP at rest as T -> 0, for centered and one-sided schemes."""
    system = potentials([4, 6, 3])
    x, y = data(2, 4, 3)
    for scheme in ("centered", "positive"):
        system.zero_grad()
        EquilibriumPropagation(COST, scheme, 0.1, tolerance=1e-11).backward(system, x, y)
        for temperature, close in ((0.0, 1e-8), (1e-10, 2e-5)):
            found = propagated(system, x, y, 0.1, temperature, scheme=scheme, chains=16, duration=4.0)
            for name, p in system.named_parameters():
                assert p.grad is not None
                off = (found.gradients[name] - p.grad).norm() / p.grad.norm()
                assert float(off) < close, (scheme, temperature, name)


@pytest.mark.full
def test_variance_of_the_estimate() -> None:
    """Breaks if independent noise does not cost 1 / beta in standard error, or common noise depends on beta."""
    system, temperature = potentials([3, 4, 2]), 0.05
    x, y = data(2, 3, 2)

    def error(beta: float, common: bool) -> float:
        found = propagated(system, x, y, beta, temperature, common_noise=common, duration=10.0, chains=96)
        return float(torch.cat([e.flatten() for e in found.standard_errors.values()]).square().mean().sqrt())

    assert error(0.025, False) / error(0.1, False) == pytest.approx(4, rel=0.25)
    assert error(0.025, True) / error(0.1, True) == pytest.approx(1, rel=0.25)
    assert error(0.025, True) < 0.1 * error(0.025, False)


def test_standard_errors_fall_as_the_root_of_the_temperature() -> None:
    """Breaks if the error does not fall as sqrt(T) for small T: noise enters the contrast to first order."""
    system, (x, y) = potentials([3, 4, 2]), data(2, 3, 2)
    sizes = []
    for temperature in (1e-3, 1e-5):
        found = propagated(system, x, y, 0.1, temperature, duration=10.0)
        sizes.append(float(torch.cat([e.flatten() for e in found.standard_errors.values()]).norm()))
    assert sizes[0] / sizes[1] == pytest.approx(10, rel=0.1)


def test_chains_are_judged() -> None:
    """Breaks if averages are handed out from chains that have not come to their stationary state, or whose steps
    are too long for it: the virial tells both; or if a gradient that still drifts, as the outputs' variance does in
    cold chains, does not show in the halves of the run."""
    system, (x, y) = potentials([3, 4, 2]), data(2, 3, 2)
    with pytest.raises(NotStationary, match="virial") as caught:
        propagated(system, x, y, 0.1, 0.1, burn_in=0.0, duration=2.0, interval=0.1)
    assert caught.value.gradient.virial > caught.value.gradient.limits[1]
    assert caught.value.gradient.virial_ratio < 1
    with pytest.warns(UserWarning, match="not stationary"):
        found = propagated(
            system, x, y, 0.1, 0.1, method="euler_maruyama", step=0.4, interval=0.4, on_unconverged="warn"
        )
    assert found.virial_ratio > 1.1
    system = potentials([3, 3, 2], "linear", gain=0.7)
    with pytest.raises(NotStationary, match="halves") as caught:
        propagated(system, x, y, 0.02, 2.0, burn_in=0.0, duration=2.0, interval=0.1, chains=2048)
    assert caught.value.gradient.halves > caught.value.gradient.limits[2]


def test_samples_may_be_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if samples are lost or counted twice where contrasts are taken of some at a time."""
    system, (x, y) = potentials([3, 4, 2]), data(2, 3, 2)
    found = []
    for rows in (1, 150, 10**6):
        monkeypatch.setattr("physics_ep.estimators.chains.ROWS", rows)
        found.append(propagated(system, x, y, 0.1, 0.1, duration=3.0, chains=24))
    for name, g in found[0].gradients.items():
        for other in found[1:]:
            assert torch.allclose(other.gradients[name], g, atol=1e-13)
            assert torch.allclose(other.standard_errors[name], found[0].standard_errors[name], atol=1e-13)
            assert other.halves == pytest.approx(found[0].halves, rel=1e-9)


def test_backward_adds_to_grad() -> None:
    """Breaks if `backward` does not add the estimate to .grad, as that of EP at rest does."""
    system, (x, y) = potentials([3, 4, 2]), data(2, 3, 2)
    ep = StochasticEquilibriumPropagation(COST, temperature=0.0)
    first = ep.backward(system, x, y)
    ep.backward(system, x, y)
    for name, p in system.named_parameters():
        assert torch.equal(p.grad, 2 * first.gradients[name])


def refused(**options: object) -> Callable[[], object]:
    return lambda: StochasticEquilibriumPropagation(COST, **options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (refused(temperature=-1.0), "temperature must be"),
        (refused(scheme="holomorphic:4"), "scheme must be real"),
        (refused(scheme="random"), "scheme must be real"),
        (refused(chains=2), "chains must be"),
        (refused(interval=0.01), "interval must lie"),
        (refused(method="baoab"), "method must be"),
        (refused(step=math.nan), "step must be"),
        (refused(burn_in=-1.0), "burn_in must be"),
    ],
)
def test_bad_settings_are_refused(build: Callable[[], object], message: str) -> None:
    """Breaks if a bad setting is not named in one line."""
    with pytest.raises(InputError, match=message):
        build()


def test_bounded_systems_are_refused() -> None:
    """Breaks if bounded variables, whose mean force is not zero, are judged by it."""
    x, y = data(2, 3, 2)
    with pytest.raises(InputError, match="unbounded variables"):
        StochasticEquilibriumPropagation(COST, temperature=0.1).estimate(HopfieldNetwork([3, 4, 2]).double(), x, y)
