"""Asymmetric EP on mapped networks whose copies differ: if these fail, separate cells cost what they need not."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.adjoint import coupled
from hardware_models.mapping.gates import method_of
from physics_ep import CrossEntropy, relax
from physics_ep.errors import InputError
from physics_ep.estimators.methods import AsymmetryWarning
from physics_ep.predictive_coding import mlp
from tests.support.vector_fields import step_ratio
from validation.gradients import compare, total_error
from validation.references import adaptation_gradient

THREE = {"copy_mismatch_h": 0.01, "copy_mismatch_u": 0.01, "copy_mismatch_transpose": 0.01}
GAINS = {**THREE, "mirror_mismatch": 0.01}
SEPARATE = {"copies": "independent", "programming_noise": 0.01}


def mapped_case(substrate: str, activation: str, sizes: tuple[int, ...], seed: int = 0, **fields):
    generator = torch.Generator().manual_seed(seed)
    net = mlp(list(sizes), activation, seed=seed).double()
    x = torch.rand(5, sizes[0], generator=generator, dtype=torch.float64)
    y = torch.randint(0, sizes[-1], (5,), generator=generator)
    return map_pcn(net, substrate, DeviceModel(**fields), seed=seed, calibration=x), x, y


def gaps(mapped, x, y, method: str | None, **options) -> tuple[float, float, float]:
    """1 - cosine of the worst tensor to the implicit gradient of the physical network at beta 1e-3, the order from
    1e-2, and the measured asymmetry."""
    exact = adaptation_gradient(mapped, x, y, CrossEntropy())
    errors = []
    for beta in (1e-2, 1e-3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AsymmetryWarning)
            found, step = mapped.estimate(x, y, CrossEntropy(), beta=beta, method=method, **options)
        errors.append(total_error(found, exact))
    return max(1 - r.cosine for r in compare(found, exact)), math.log10(errors[0] / errors[1]), step.asymmetry


CASES = [
    ("hopfield", "tanh", THREE),
    pytest.param("resistive", "hard_tanh", SEPARATE, marks=pytest.mark.full),
    ("oscillator", "hard_tanh", SEPARATE),
    pytest.param("resistive", "relu", {**SEPARATE, "programming_noise": 0.03}, marks=pytest.mark.full),
    ("hopfield", "tanh", {"transpose": "array", "copy_mismatch_transpose": 0.1}),
    pytest.param("hopfield", "tanh", {"mirror_mismatch": 0.01}, marks=pytest.mark.full),
    pytest.param(
        "hopfield", "tanh", {**THREE, "mirror_mismatch": 0.01, "feedback_gain": 0.5}, marks=pytest.mark.full
    ),
    pytest.param("resistive", "hard_tanh", {**SEPARATE, "leaks": "fixed"}, marks=pytest.mark.full),
]


def slopes_of(phase, system) -> list[torch.Tensor]:
    """Slope of every unit's response, h and then u."""
    units = zip([*system.amplifiers_h, *system.amplifiers_u], [*phase.p, *phase.q], strict=True)
    return [a.slope(p) for a, p in units]


def dense(phase, system) -> torch.Tensor:
    """Jacobian of the currents by the activities (h, u) of layers 10, 8, 4, u's sign reversed, (B, 44, 44)."""
    w = [[system.arrays(k, c).weight for k in range(3)] for c in ("h", "u", "transpose")]
    at = [0, 10, 18, 22]
    slopes = slopes_of(phase, system)
    whole = []
    for n in range(len(phase.x)):
        jacobian = torch.zeros(44, 44, dtype=torch.float64)
        for k in range(3):
            rows, lower = slice(at[k], at[k + 1]), slice(22 + at[k], 22 + at[k + 1])
            jacobian[rows, rows] = torch.diag(-1 / slopes[k][n])
            jacobian[lower, lower] = torch.diag(1 / slopes[3 + k][n])
            if k:
                below = slice(at[k - 1], at[k])
                jacobian[rows, below] = w[0][k]
                jacobian[lower, below] = -w[1][k]
                jacobian[below, rows] = w[2][k].T
                jacobian[below, lower] = -w[2][k].T
        whole.append(jacobian)
    return torch.stack(whole).detach()


@pytest.mark.parametrize(("substrate", "activation", "fields"), CASES)
def test_the_gradient_is_that_of_the_physical_network(substrate: str, activation: str, fields: dict) -> None:
    """Three arrays that err apart: against implicit differentiation by all copies together, to 1e-6 and of order 2,
    where ordinary EP is off by far more than that at every beta."""
    mapped, x, y = mapped_case(substrate, activation, (8, 16, 12, 5), **fields)
    assert mapped.system.default_method == "auto"
    gap, order, asymmetry = gaps(mapped, x, y, None)
    assert gap <= 1e-6
    assert abs(order - 2) <= 0.1
    assert asymmetry > 1e-4
    assert gaps(mapped, x, y, "energy")[0] > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.001, 0.01, 0.03])
@pytest.mark.parametrize(
    ("substrate", "activation"), [("hopfield", "tanh"), ("resistive", "hard_tanh"), ("oscillator", "hard_tanh")]
)
def test_ten_layers_too(substrate: str, activation: str, noise: float) -> None:
    fields = dict.fromkeys(THREE, noise) if substrate == "hopfield" else {**SEPARATE, "programming_noise": noise}
    mapped, x, y = mapped_case(substrate, activation, (8, *[24] * 9, 5), **fields)
    gap, order, _ = gaps(mapped, x, y, None)
    assert gap <= 1e-6
    assert abs(order - 2) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(64, 32, 32, 10), (64, *[24] * 9, 10)])
def test_a_step_costs_what_an_ordinary_one_does(sizes: tuple[int, ...]) -> None:
    """At most 1.3 times the processor time: all arrays are read the other way, and none is read twice."""
    mapped, _, _ = mapped_case("hopfield", "tanh", sizes, **THREE)
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.rand(32, n, generator=generator, dtype=torch.float64) for n in (64, 10))
    assert step_ratio(mapped.system, x, y, 1e-2) <= 1.3


def test_one_array_has_an_energy_and_nothing_is_measured() -> None:
    mapped, x, y = mapped_case("hopfield", "tanh", (6, 8, 4), programming_noise=0.05)
    assert mapped.system.default_method == "energy"
    own, step = mapped.estimate(x, y, CrossEntropy(), beta=1e-2)
    assert math.isnan(step.asymmetry)
    same, step = mapped.estimate(x, y, CrossEntropy(), beta=1e-2, method="auto")
    assert (step.method, step.asymmetry) == ("energy", 0)
    assert total_error(own, same) == 0


def test_ordinary_ep_on_separate_copies_warns_with_the_asymmetry() -> None:
    """The figure against the dense Jacobian of the currents by all activities, with u's sign reversed."""
    mapped, x, y = mapped_case("hopfield", "tanh", (6, 10, 8, 4), **THREE)
    with pytest.warns(AsymmetryWarning, match=r"\|A\| / \|J\|"):
        _, step = mapped.estimate(x, y, CrossEntropy(), beta=1e-2, method="energy")
    system = mapped.system
    phase = system.phase(system.prepare(x), origin=step.equilibria[0].state, balanced=True)
    stacked = dense(phase, system)
    exact = float((stacked - stacked.mT).norm() / stacked.norm()) / 2
    assert step.asymmetry == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("gain", [1.0, 0.2])
@pytest.mark.parametrize("fields", [THREE, {"transpose": "array", "copy_mismatch_transpose": 0.1}, GAINS])
def test_currents_of_the_transposed_phase_are_the_transposed_ones(fields: dict, gain: float) -> None:
    """c . J b = b . J^T c to the rounding of float64, by random vectors: a gain that stood in float32 between them,
    as that of the drivers of a weak feedback did, leaves 1e-9."""
    mapped, x, _ = mapped_case("hopfield", "tanh", (6, 10, 8, 4), **fields, feedback_gain=gain)
    system = mapped.system
    phase = system.phase(system.prepare(x), origin=relax(system, x).state, balanced=True)
    generator = torch.Generator().manual_seed(0)
    b, c = ([[torch.randn(p.shape, generator=generator).double() for p in phase.p] for _ in "hu"] for _ in "bc")
    images = coupled(phase, *b), coupled(phase.adjoint(), *c)
    one, other = (
        sum(float((v * w).sum()) for sides in zip(own, image, strict=True) for v, w in zip(*sides, strict=True))
        for own, image in zip((c, b), images, strict=True)
    )
    assert abs(one - other) < 1e-13 * abs(one)


def test_a_saturated_unit_hides_no_difference_of_copies() -> None:
    """Its own law is 1 / slope in activities: compared with that, copies that differ by 1 % would pass for one."""
    net = mlp([8, 10, 5], "tanh", seed=0).double()
    with torch.no_grad():
        next(p for p in net.parameters() if p.shape == (10,))[0] = 12.0
    x, y = torch.rand(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.arange(5)
    mapped = map_pcn(net, "hopfield", DeviceModel(**THREE), seed=0, calibration=x)
    gap, order, asymmetry = gaps(mapped, x, y, None)
    assert asymmetry < 1e-8
    assert gap <= 1e-6
    assert abs(order - 2) <= 0.1
    with pytest.warns(AsymmetryWarning, match="without differences of scale"):
        mapped.estimate(x, y, CrossEntropy(), beta=1e-2, method="energy")


def test_the_even_figure_is_that_of_units_whose_own_law_is_one() -> None:
    """Against D J D of the dense Jacobian, D^2 the slopes: without D the figure is far smaller, and with the
    slopes in its place a quarter larger."""
    net = mlp([6, 10, 8, 4], "tanh", seed=0).double()
    with torch.no_grad():
        for p in net.parameters():
            if p.shape in ((10,), (8,)):
                p[: len(p) // 2] = 4.0
    x = torch.rand(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    system = map_pcn(net, "hopfield", DeviceModel(**THREE), seed=0, calibration=x).system
    phase = system.phase(system.prepare(x), origin=relax(system, x).state, balanced=True)
    ease = torch.cat([slope.sqrt() for slope in slopes_of(phase, system)], 1)
    stacked = dense(phase, system)
    whole = (stacked, *(d[:, :, None] * stacked * d[:, None] for d in (ease, ease.square())))
    plain, even, steep = (float((m - m.mT).norm() / m.norm()) / 2 for m in whole)
    assert phase.asymmetry(even=True) == pytest.approx(even, rel=0.1)
    assert even > 10 * plain
    assert steep > 1.2 * even


def test_map_tells_by_which_method_a_network_is_nudged() -> None:
    """Copies that differ are nudged by asymmetric EP unless another is asked for; others are refused."""
    for fields, methods in (({}, ["energy", "energy"]), (SEPARATE, ["asymmetric", "energy"])):
        mapped, x, _ = mapped_case("resistive", "hard_tanh", (6, 8, 4), **fields)
        found = [method_of(mapped, x, asked) for asked in (None, "energy")]
        assert [choice.method for choice in found] == methods
        assert (found[1].asymmetry > 1e-4) == bool(fields)
    for asked, words in (("asymetric", "Did you mean 'asymmetric'"), ("dyadic", "pairs of states")):
        with pytest.raises(InputError, match=words):
            method_of(mapped, x, asked)


def test_an_auto_zero_has_no_asymmetric_ep() -> None:
    mapped, x, y = mapped_case("resistive", "hard_tanh", (6, 8, 4), **SEPARATE, auto_zero="on")
    assert mapped.system.default_method == "energy"
    with pytest.raises(InputError, match=r"auto-zero.*another Jacobian"):
        mapped.estimate(x, y, CrossEntropy(), beta=1e-2, method="asymmetric")
    with pytest.raises(InputError, match=r"auto-zero.*another Jacobian"):
        method_of(mapped, x, "asymmetric")


def test_droop_of_stored_activities_is_that_of_the_dense_jacobian() -> None:
    """What the second phase ends in by a store that has lost a share of h and u: d = share (J^-T J - 1) (h, u),
    J the currents' Jacobian by all activities. Ignored, a leaking store would look as good as a perfect one."""
    mapped, x, y = mapped_case("hopfield", "tanh", (6, 10, 8, 4), **THREE)
    ends = []
    for droop in (0.0, 1e-7):
        _, step = mapped.estimate(x, y, CrossEntropy(), beta=1e-3, method="asymmetric", droop=droop)
        ends.append(step.equilibria)
    system = mapped.system
    phase = system.phase(system.prepare(x), origin=ends[0][0].state, balanced=True)
    jacobian = dense(phase, system)
    stored = torch.cat([*phase.h, *phase.u], 1)
    steep = torch.cat(slopes_of(phase, system), 1)
    turned = (jacobian @ stored[:, :, None], jacobian.mT)
    wanted = 1e-7 * (torch.linalg.solve(turned[1], turned[0])[:, :, 0] - stored)
    first, second = (
        steep * torch.cat([a - b for a, b in zip(one.displacement[:6], other.displacement[:6], strict=True)], 1)
        for one, other in zip(ends[1][1:], ends[0][1:], strict=True)
    )
    assert float(first.abs().max()) < 1e-11
    assert float((second - wanted).norm() / wanted.norm()) < 1e-3


@pytest.mark.full
@pytest.mark.parametrize("substrate", ["resistive", "oscillator"])
def test_droop_costs_an_error_over_beta_on_every_substrate(substrate: str) -> None:
    mapped, x, y = mapped_case(substrate, "hard_tanh", (8, 16, 12, 5), **SEPARATE)
    errors = []
    for beta in (1e-2, 1e-3):
        whole, worn = (
            mapped.estimate(x, y, CrossEntropy(), beta=beta, method="asymmetric", droop=d)[0] for d in (0.0, 1e-6)
        )
        errors.append(total_error(worn, whole))
    assert errors[1] > 1e-7
    assert abs(errors[1] / errors[0] - 10) < 0.3
