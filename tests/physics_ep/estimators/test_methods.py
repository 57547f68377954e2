"""EP without an energy: if these fail, gradients of one-way systems are biased without notice."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch.nn import Linear, Sequential, Tanh

from hardware_models import (
    DeviceModel,
    FitzHughNagumoChain,
    HopfieldNetwork,
    OscillatorNetwork,
    ResistiveNetwork,
    map_pcn,
)
from physics_ep import EquilibriumPropagation, SquaredError, VectorField, relax, simulate
from physics_ep.errors import InputError
from physics_ep.estimators.methods import HARDWARE, AsymmetryWarning, UnstableFreeState
from physics_ep.jacobians import Jacobian, difference_asymmetry, pairwise_asymmetry
from physics_ep.predictive_coding import from_module, mlp
from tests.support.systems import batch
from tests.support.vector_fields import Amplifiers, TanhUnits, Wells, step_ratio
from validation import check_system, finite_difference_gradient, gradient_report, implicit_gradient
from validation.gradients import estimate_gradient, total_error


def gradient(system, x, y, method: str | None, beta: float = 1e-3, **options):
    ep = EquilibriumPropagation(SquaredError(), beta=beta, method=method, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AsymmetryWarning)
        return estimate_gradient(ep, system, x, y)


def exactness(system, x, y, exact, method: str, unit: float = 1.0) -> tuple[float, float]:
    """Relative error at a beta of 1e-3 units, and the order between 1e-2 and 1e-3."""
    betas = (1e-2 * unit, 1e-3 * unit)
    coarse, fine = (total_error(gradient(system, x, y, method, beta)[0], exact) for beta in betas)
    return fine, math.log10(coarse / fine)


def require_exact(kind, n: int, share: float, seed: int) -> None:
    system = kind(n, share, seed)
    x, y = batch(5, 4, 6, seed)
    exact = implicit_gradient(system, x, y, SquaredError())
    for method in ("asymmetric", "dyadic"):
        error, order = exactness(system, x, y, exact, method)
        assert error <= 1e-5, (method, error)
        assert abs(order - 2) <= 0.1, (method, order)
    assert total_error(gradient(system, x, y, "vector-field")[0], exact) > 0.01


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        (TanhUnits, 0.5),
        pytest.param(TanhUnits, 0.2, marks=pytest.mark.full),
        pytest.param(TanhUnits, 0.9, marks=pytest.mark.full),
        pytest.param(Amplifiers, 0.5, marks=pytest.mark.full),
    ],
)
def test_asymmetric_and_dyadic_ep_are_exact(kind, share: float) -> None:
    """Against implicit differentiation by GMRES: a correction of the wrong sign leaves an error of order 1."""
    require_exact(kind, 20, share, 0)


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 100])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_asymmetric_and_dyadic_ep_are_exact_on_twenty_seeds(n: int, share: float) -> None:
    for seed in range(20):
        require_exact(TanhUnits, n, share, seed)


@pytest.mark.full
def test_implicit_differentiation_of_a_force_agrees_with_differences() -> None:
    """The reference itself, against central differences of the cost of relaxed states."""
    system = TanhUnits(4, 0.7, n_out=2)
    x, y = batch(5, 2, 2)
    differences = finite_difference_gradient(system, x, y, SquaredError())
    assert total_error(implicit_gradient(system, x, y, SquaredError()), differences) < 1e-8


@pytest.mark.full
def test_a_large_field_is_corrected_by_products() -> None:
    """Beyond the size up to which the Jacobian is kept as a matrix, products with it go through autograd."""
    system = TanhUnits(300, 0.6)
    x, y = batch(5, 4, 3)
    exact = implicit_gradient(system, x, y, SquaredError())
    found, step = gradient(system, x, y, None)
    assert step.method == "asymmetric"
    assert total_error(found, exact) <= 1e-5


@pytest.mark.full
def test_all_methods_agree_where_there_is_an_energy() -> None:
    """Symmetric couplings, and a skew-gradient system: the correction must be rounding, and auto drops it."""
    x, y = batch(5, 4, 6)
    system = Amplifiers(12, 0.0)
    ordinary = gradient(system, x, y, "energy")[0]
    for method in ("vector-field", "asymmetric", "auto"):
        assert total_error(gradient(system, x, y, method)[0], ordinary) < 1e-9
    found = gradient(system, x, y, "auto")[1]
    assert found.method == "energy"
    assert found.asymmetry < 1e-12
    x, y = batch(4, 2, 5)
    exact = implicit_gradient(Wells(), x, y, SquaredError())
    for method in ("energy", "vector-field", "asymmetric", "dyadic"):
        assert total_error(gradient(Wells(), x, y, method)[0], exact) < 1e-5
    assert gradient(Wells(), x, y, None)[1].method == "energy"
    hopfield = HopfieldNetwork([4, 6, 2], "tanh").double()
    same = gradient(hopfield, x, y, "energy")[0]
    for method in ("vector-field", "asymmetric", "auto"):
        assert total_error(gradient(hopfield, x, y, method)[0], same) == 0


ENERGY_SYSTEMS = {
    "hopfield": lambda: HopfieldNetwork([4, 6, 2], "tanh"),
    "pcn": lambda: mlp([4, 6, 2], activation="tanh"),
    "traced": lambda: from_module(Sequential(Linear(4, 6), Tanh(), Linear(6, 2)), torch.rand(3, 4)),
    "resistive": lambda: ResistiveNetwork([4, 6, 2], diode="none"),
    "oscillator": lambda: OscillatorNetwork([4, 6, 2]),
    "medium": lambda: FitzHughNagumoChain([4, 8, 2]),
}


@pytest.mark.parametrize(
    "name", [n if n == "pcn" else pytest.param(n, marks=pytest.mark.full) for n in ENERGY_SYSTEMS]
)
def test_dyadic_ep_is_exact_on_an_energy_system_too(name: str) -> None:
    """Its two states are no state of the system's own solvers, which ended in an AttributeError on most systems."""
    torch.manual_seed(0)
    x, y = batch(4, 2, 3)
    system = ENERGY_SYSTEMS[name]().double()
    exact = implicit_gradient(system, x, y, SquaredError())
    error, order = exactness(system, x, y, exact, "dyadic", system.nudge_scale if name == "resistive" else 1.0)
    assert error < 1e-5
    assert abs(order - 2) <= 0.1


def test_branches_of_dyadic_states_are_checked_in_single_precision() -> None:
    """Two states relax in float64 and the phase beside them in float32, which ended in a RuntimeError."""
    x, y = batch(4, 2, 3)
    system = OscillatorNetwork([4, 6, 2])
    found, exact = (
        gradient(s, x.to(s.dtype), y.to(s.dtype), "dyadic")[0] for s in (system, copy.deepcopy(system).double())
    )
    assert total_error(found, exact) < 1e-4


def test_auto_notices_when_training_takes_the_symmetry_away() -> None:
    """Couplings that start at zero have an energy until the first step: chosen once, the method would be biased."""
    system = TanhUnits(8, 0.5)
    x, y = batch(5, 4, 6)
    with torch.no_grad():
        system.w.zero_()
    ep = EquilibriumPropagation(SquaredError(), beta=1e-3)
    assert ep.backward(system, x, y).method == "energy"
    with torch.no_grad():
        system.w -= system.w.grad
    found, step = estimate_gradient(ep, system, x, y)
    assert step.method == "asymmetric"
    assert total_error(found, implicit_gradient(system, x, y, SquaredError())) < 1e-5


@pytest.mark.parametrize("n", [12, pytest.param(300, marks=pytest.mark.full)])
def test_a_saturated_unit_hides_no_asymmetry(n: int) -> None:
    """In outputs its own law is 1 / slope, 1e10 of the others': asked of |A| / |J| alone, auto would take ordinary
    EP where that is off by a fifth, and nothing would warn. Symmetric couplings keep their energy all the same."""
    x, y = batch(5, 4, 3)
    for share in (0.5, 0.0):
        system = Amplifiers(n, share)
        with torch.no_grad():
            system.b[0] = 13.0
        found, step = gradient(system, x, y, "auto")
        assert step.asymmetry < 1e-8
        assert step.method == ("asymmetric" if share else "energy")
        assert total_error(found, implicit_gradient(system, x, y, SquaredError())) < 1e-5
    system = Amplifiers(n, 0.5)
    with torch.no_grad():
        system.b[0] = 13.0
    with pytest.warns(AsymmetryWarning, match=r"without differences of scale\)\. method='asymmetric' is exact"):
        EquilibriumPropagation(SquaredError(), beta=1e-3, method="energy").backward(system, x, y)


def test_units_at_their_rails_make_no_symmetric_couplings_one_way() -> None:
    """A unit whose slope has underflowed moves nothing, and is moved: its column is zero, and its row is not."""
    x, y = batch(5, 4, 3)
    system = Amplifiers(12, 0.0)
    with torch.no_grad():
        system.b[0] = 40.0
    assert gradient(system, x, y, "auto")[1].method == "energy"
    with torch.no_grad():
        system.w[1, 2] += 1e-5
    assert gradient(system, x, y, "auto")[1].method == "asymmetric"


@pytest.mark.parametrize("share", [0.0, 1e-7])
def test_pairs_are_compared_beyond_rounding(share: float) -> None:
    """Sums of large terms that cancel leave noise in small entries, which is none; 1e-7 of a pair is one."""
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(2, 30, 30, generator=generator, dtype=torch.float64)
    stiff = torch.logspace(0, 8, 30, dtype=torch.float64)
    matrix = (stiff[:, None] * root) @ root.mT @ torch.diag(stiff)  # symmetric but for rounding: two orders of sums
    matrix[:, 25, 28] *= 1 + share
    found = pairwise_asymmetry(matrix)
    assert found == (0.0 if share == 0 else pytest.approx(share / 2, rel=1e-3))


def test_a_few_products_read_the_asymmetry_that_the_matrix_has() -> None:
    """Steps between measurements go by these products: a diverged example must not make them blind."""
    x, _ = batch(5, 4, 32)
    for share, diverged in ((0.3, False), (0.01, True), (0.0, True)):
        system = Amplifiers(12, share)
        state = torch.randn(32, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        if diverged:
            state[3] = torch.nan
        steep = 1 - state.tanh() ** 2
        jacobian = Jacobian(lambda s, system=system: system.slope(s, x), (state,), steep)
        drawn = jacobian.asymmetry()
        skewed = jacobian.matrix - jacobian.matrix.mT
        exact = float(0.5 * skewed.norm() / jacobian.matrix.norm())
        assert jacobian.asymmetry() == pytest.approx(exact, rel=1e-12, abs=1e-15)
        assert drawn == pytest.approx(exact, rel=0.2, abs=1e-15)
        assert (drawn > 1e-6) == (share > 0)


def test_products_take_differences_of_scale_from_rows_and_columns() -> None:
    """Rows alone would make symmetric couplings of a saturated unit one way; neither would hide all others."""
    x, _ = batch(5, 4, 3)
    for share in (0.0, 0.5):
        system = Amplifiers(12, share)
        state = torch.randn(3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        state[:, 0] = 13.0
        jacobian = Jacobian(lambda s, system=system: system.slope(s, x), (state,), 1 - state.tanh() ** 2)
        even, plain = jacobian.asymmetry(even=True), jacobian.asymmetry()
        assert plain < 1e-8
        assert (even > 0.01) if share else (even < 1e-10)


def test_a_force_that_knows_no_batches_of_gradients_has_the_same_jacobian() -> None:
    """Rows of J are found many at a time; an operation of a user's that works on plain arrays takes them singly."""

    class Cubed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, s):
            ctx.save_for_backward(s)
            return s**3

        @staticmethod
        def backward(ctx, g):
            (s,) = ctx.saved_tensors
            return torch.from_numpy(3 * s.detach().numpy() ** 2 * g.detach().numpy())

    x, _ = batch(5, 4, 3)
    system = TanhUnits(70, 0.5)
    state = (torch.randn(3, 70, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),)
    found = [
        Jacobian(lambda s, cube=cube: (system.slope(s, x)[0] + cube(s[0]),), state)
        for cube in (Cubed.apply, lambda s: s**3)
    ]
    assert torch.allclose(found[0].matrix, found[1].matrix, rtol=1e-13, atol=1e-13)
    v = torch.randn(3, 70, dtype=torch.float64)
    apart = found[1].matrix - found[1].matrix.mT
    assert torch.allclose(found[0].skew()((v,))[0], (apart @ v[:, :, None])[:, :, 0], rtol=1e-12, atol=1e-12)


def test_an_energy_with_another_force_is_not_called_exact() -> None:
    class Other(HopfieldNetwork):
        def force(self, state, x):
            first, *rest = super().force(state, x)
            return (first + 0.3 * state[0].roll(1, 1), *rest)

    x, y = batch(4, 2, 5)
    ep = EquilibriumPropagation(SquaredError(), beta=1e-2, method="auto")
    with pytest.warns(AsymmetryWarning, match="not the gradient of its energy"):
        step = ep.backward(Other([4, 6, 2], "tanh").double(), x, y)
    assert step.asymmetry > 0.01
    assert step.method == "energy"
    for method in ("asymmetric", "dyadic"):
        ep = EquilibriumPropagation(SquaredError(), beta=1e-2, method=method)
        with pytest.raises(InputError, match=r"not the gradient of its energy.*VectorField"):
            ep.backward(Other([4, 6, 2], "tanh").double(), x, y)


@pytest.mark.full
def test_bounds_hold_a_block_that_ascends_where_it_would_move_out() -> None:
    """It moves against its force: held the other way, relaxation stalls, or rests where nothing holds it."""

    class Bounded(Wells):
        def force(self, state, x):
            a, b = state
            return super().force((a, b), x)[0] + 0.3 * b.sum(1, keepdim=True), super().force((a, b), x)[1]

        def project(self, state):
            return state[0], state[1].clamp(-0.3, 0.3)

    system = Bounded()
    system.u.requires_grad_(False)
    x, y = batch(4, 2, 3)
    state = relax(system, x).require().state
    b, force = state[1], system.force(state, x)[1].detach()
    held = b.abs() == 0.3
    assert bool(held.any())
    assert bool((~held).any())
    assert bool((force[held] * b[held] < 0).all())
    assert float(force[~held].abs().max()) < 1e-8
    grads = gradient(system, x, y, "asymmetric")[0]
    differences = finite_difference_gradient(system, x, y, SquaredError())
    assert total_error(grads, differences) < 1e-5


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_an_example_that_diverged_hides_no_asymmetry(lost: float) -> None:
    """Differences of a force, of a batch of which one state has diverged: the figure is that of the others. Without
    this, it is 0, and the batch is nudged as if the force had an energy."""
    generator = torch.Generator().manual_seed(0)
    matrix, state = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (4, 200))
    found = []
    for rows in (state, torch.cat([state, torch.full((1, 4), lost, dtype=torch.float64)])):
        found.append(difference_asymmetry(lambda s: (s[0] @ matrix.T,), (rows,), None))
    exact = float((matrix - matrix.T).norm() / matrix.norm()) / 2
    assert found == pytest.approx([exact, exact], rel=0.1)


def test_ideal_paired_circuits_and_media_read_no_asymmetry() -> None:
    """ds/dt of these is not symmetric: asked of the wrong matrix, auto would correct what is exact."""
    chain = FitzHughNagumoChain([4, 6, 3]).double()
    x, y = batch(4, 3, 3)
    step = gradient(chain, 0.1 * x, 0.1 * y, "auto")[1]
    assert step.method == "energy"
    assert step.asymmetry < 1e-8
    system = map_pcn(mlp([4, 6, 3], "tanh").double(), "hopfield", DeviceModel(), calibration=x).system
    step = gradient(system, x, y, "auto", 1e-2)[1]
    assert step.method == "energy"
    assert step.asymmetry < 1e-8


@pytest.mark.full
def test_ordinary_ep_on_an_asymmetric_system_warns_with_the_figure() -> None:
    system = TanhUnits(10, 0.6)
    x, y = batch(5, 4, 4)
    figure = gradient(system, x, y, "asymmetric")[1].asymmetry
    jacobian = torch.func.vmap(torch.func.jacrev(lambda s, a: system.force((s[None],), a[None])[0][0]))(
        relax(system, x).state[0], x
    )
    assert abs(figure - float(((jacobian - jacobian.mT).norm() / jacobian.norm()).detach()) / 2) < 1e-9
    for method in ("energy", "vector-field"):
        system = TanhUnits(10, 0.6)
        ep = EquilibriumPropagation(SquaredError(), method=method, measure_every=1)
        with pytest.warns(AsymmetryWarning, match=f"{figure:.2g}.*method='asymmetric' is exact"):
            ep.backward(system, x, y)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for parameter in system.parameters():
                parameter.data *= 0.99  # and another figure is no news
            ep.backward(system, x, y)


@pytest.mark.full
def test_a_report_says_what_the_method_asks_of_hardware() -> None:
    system = TanhUnits(8, 0.5)
    x, y = batch(5, 4, 3)
    report = gradient_report(system, x, y, SquaredError(), beta=1e-3)
    assert report.method == "asymmetric"
    assert report.hardware == HARDWARE["asymmetric"]
    assert report.asymmetry > 0.05
    assert report.relative_error < 1e-5
    assert report.noise_floor < 1e-6


@pytest.mark.full
def test_droop_of_the_held_state_costs_an_error_over_beta() -> None:
    """A store that loses 1e-6 of itself between the two nudges: ten times the error at a tenth of beta."""
    system = TanhUnits(10, 0.8)
    x, y = batch(5, 4, 4)
    errors = []
    for beta in (1e-2, 1e-3):
        whole = gradient(system, x, y, "asymmetric", beta)[0]
        errors.append(total_error(gradient(system, x, y, "asymmetric", beta, droop=1e-6)[0], whole))
    assert errors[1] > 1e-6
    assert abs(errors[1] / errors[0] - 10) < 0.1


@pytest.mark.full
def test_the_input_gets_its_gradient() -> None:
    system = TanhUnits(8, 0.7)
    x, y = batch(5, 4, 3)
    leaf = x.clone().requires_grad_()
    EquilibriumPropagation(SquaredError(), beta=1e-3).backward(system, leaf, y, input_gradient=True)
    h = 1e-6
    for i in (0, 3):
        ends = []
        for way in (1, -1):
            moved = x.clone()
            moved[1, i] += way * h
            outputs = system.outputs(relax(system, moved).state)
            ends.append(float((outputs - y).square().sum(1).mean() / 2))
        assert abs(float(leaf.grad[1, i]) - (ends[0] - ends[1]) / (2 * h)) < 1e-6


@pytest.mark.full
def test_a_user_sees_one_contract() -> None:
    """check_system takes systems without an energy, and names what they break."""
    x, y = batch(5, 4, 3)
    for system in (TanhUnits(6, 0.6), Amplifiers(6, 0.6)):
        check_system(system, x, y)

    class Mixed(TanhUnits):
        def force(self, state, x):
            return (super().force(state, x)[0] + 0.1 * state[0].mean(0),)

    with pytest.raises(AssertionError, match="force of an example must not depend on the others"):
        check_system(Mixed(6), x, y)

    class Cut(TanhUnits):
        def force(self, state, x):
            (s,) = state
            return (super().force((s.detach(),), x)[0] + 0 * s,)

    with pytest.raises(AssertionError, match="that autograd can follow"):
        check_system(Cut(6), x, y)


@pytest.mark.full
def test_a_trajectory_ends_where_relaxation_does_and_has_no_energy() -> None:
    system = TanhUnits(8, 0.9)
    x, _ = batch(5, 4, 2)
    course = simulate(system, x, 60.0)
    assert bool(course.energy.isnan().all())
    assert float((course.state[0][-1] - relax(system, x).state[0]).abs().max()) < 1e-6


def test_a_force_must_be_a_function_of_its_arguments_alone() -> None:
    x, y = batch(5, 4, 3)

    class Tiring(TanhUnits):
        fatigue = 0.0

        def force(self, state, x):
            self.fatigue = self.fatigue + 1e-6
            return tuple(f - self.fatigue * s for f, s in zip(super().force(state, x), state, strict=True))

    class Random(TanhUnits):
        def force(self, state, x):
            return tuple(f + 1e-9 * torch.randn_like(f) for f in super().force(state, x))

    class Crowded(TanhUnits):
        def force(self, state, x):
            return (super().force(state, x)[0] + 0.1 * state[0].mean(0),)

    class Noisy(TanhUnits):
        def force(self, state, x):
            return tuple(f + 0.1 * torch.randn_like(f) for f in super().force(state, x))

    class Led(TanhUnits):
        def force(self, state, x):
            return (super().force(state, x)[0] + 0.1 * state[0][-1:],)

    class Greatest(TanhUnits):
        def force(self, state, x):
            return (super().force(state, x)[0] - 0.1 * state[0] * state[0].abs().max(),)

    class Partly(TanhUnits):
        def force(self, state, x):
            (s,) = state
            return (super().force((s.detach(),), x)[0] + s.detach() - s,)

    class Inner(TanhUnits):
        def force(self, state, x):
            (s,) = state
            with torch.enable_grad():
                at = s if s.requires_grad else s.detach().requires_grad_()
                slope = torch.autograd.grad((at**4).sum() / 4, at, retain_graph=True)[0]
            return (super().force(state, x)[0] - slope,)

    for kind, words in (
        (Tiring, "arguments and parameters alone"),
        (Random, "alone"),
        (Noisy, "arguments and parameters alone"),
        (Crowded, "others in its batch"),
        (Led, "others in its batch"),
        (Greatest, "others in its batch"),
        (Partly, "derivative autograd gives whole"),
        (Inner, "derivative autograd gives whole"),
    ):
        ep = EquilibriumPropagation(SquaredError(), tolerance=1e-3)
        with pytest.raises(InputError, match=words):
            ep.backward(kind(6), x, y)

    class Lone(TanhUnits):
        def force(self, state, x):
            return super().force(state, x)[0]

    with pytest.raises(InputError, match="a force that is a tuple of tensors of shapes"):
        EquilibriumPropagation(SquaredError()).backward(Lone(6), x, y)


def test_an_unstable_free_state_is_named_with_its_eigenvalue() -> None:
    """Zero is stationary without drive, and is left at the rate 0.5 +- 2i: no estimate there means anything."""

    class Spiral(VectorField):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor([[0.5, 2.0], [-2.0, 0.5]], dtype=torch.float64))

        def force(self, state, x):
            (s,) = state
            return (s @ self.w.T - s**3 + 0 * x,)

        def initial_state(self, x):
            return (torch.zeros_like(x),)

        def outputs(self, state):
            return state[0]

    x = torch.zeros(3, 2, dtype=torch.float64)
    for method in ("asymmetric", "vector-field", "dyadic"):
        with pytest.raises(
            UnstableFreeState, match=r"3 of 3 states that are unstable.*0\.5 [+-]2i per time constant"
        ):
            gradient(Spiral(), x, x + 1, method)
    assert gradient(Spiral(), x, x + 1, None, on_unconverged="skip")[1].skipped == 3
    with pytest.raises(AssertionError, match="free state must be stable"):
        check_system(Spiral(), x, x + 1)


def test_methods_that_a_scheme_cannot_have_are_refused() -> None:
    for scheme in ("positive", "negative", "random", "holomorphic:4"):
        with pytest.raises(InputError, match="scheme must be 'centered' with method='dyadic'"):
            EquilibriumPropagation(SquaredError(), scheme, method="dyadic")
    for method in ("asymmetric", "vector-field"):
        with pytest.raises(InputError, match="real nudges"):
            EquilibriumPropagation(SquaredError(), "holomorphic:4", method=method)
    with pytest.raises(InputError, match="Did you mean 'asymmetric'"):
        EquilibriumPropagation(SquaredError(), method="asymetric")
    with pytest.raises(InputError, match="droop must be a share"):
        EquilibriumPropagation(SquaredError(), droop=1.5)
    x, y = batch(5, 4, 3)
    with pytest.raises(InputError, match="scheme must"):
        EquilibriumPropagation(SquaredError(), "holomorphic:4").backward(TanhUnits(6), x, y)


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["positive", "negative", "random"])
def test_one_sided_schemes_reach_their_order(scheme: str) -> None:
    system = TanhUnits(10, 0.7)
    x, y = batch(5, 4, 4)
    exact = implicit_gradient(system, x, y, SquaredError())
    errors = [
        total_error(estimate_gradient(EquilibriumPropagation(SquaredError(), scheme, b), system, x, y)[0], exact)
        for b in (1e-2, 1e-3)
    ]
    assert errors[1] < 5e-3
    assert abs(math.log10(errors[0] / errors[1]) - 1) < 0.1


@pytest.mark.slow
def test_a_step_costs_little_more_than_an_ordinary_one() -> None:
    """Where J - J^T is kept, at most 1.3 times the processor time; by products of autograd at most 1.8 times."""
    for n, most in ((100, 1.3), (600, 1.8)):
        system = TanhUnits(n, 0.5)
        x, y = batch(5, 4, 16)
        assert step_ratio(system, x, y, 1e-3) <= most
