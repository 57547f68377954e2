"""Relaxation: if these fail, a state is called an equilibrium that is none, or a user waits for one forever."""

from __future__ import annotations

import pytest
import torch

from physics_ep import CrossEntropy, NotConverged, Nudge, SquaredError, Status, relax
from physics_ep.blocks import flat
from physics_ep.errors import InputError
from physics_ep.relaxation.krylov import gmres
from physics_ep.relaxation.loop import SOLVERS
from tests.support.systems import Quartic, batch, network

ACTIVATIONS = ["hard_sigmoid", "tanh", "logistic", "linear"]


def autograd_residual(system, state, x, nudge=None) -> float:
    """Projected force by autograd of the energy alone, over a short step."""
    leaves = tuple(s.detach().requires_grad_() for s in state)
    total = system.energy(leaves, x)
    if nudge is not None:
        total = total + nudge.energy(system.outputs(leaves))
    slope = torch.autograd.grad(total.sum(), leaves)
    h = 1e-2
    landed = system.project(tuple(s - h * g for s, g in zip(state, slope, strict=True)))
    return float((flat(landed) - flat(state)).abs().max() / h)


@pytest.mark.parametrize("solver", list(SOLVERS))
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_solver_finds_the_stationary_point_of_the_energy(activation: str, solver: str) -> None:
    """Judged by autograd of `energy`, not by the solver's own residual; nudged states too, both costs."""
    system = network(activation, (6, 9, 7, 4))
    x, y = batch(6, 4, 5)
    if solver == "trust_region" and not system.smooth:
        with pytest.raises(
            InputError, match="must not be 'trust_region' for HopfieldNetwork, whose energy has kinks"
        ):
            relax(system, x, solver=solver)
        return
    free = relax(system, x, solver=solver, tolerance=1e-11, max_iterations=3000).require()
    assert autograd_residual(system, free.state, x) < 1e-9
    labels = torch.tensor([0, 1, 2, 3, 0])
    for nudge in (
        Nudge(SquaredError(), y, 0.3),
        Nudge(SquaredError(), y, -0.1),
        Nudge(CrossEntropy(), labels, 0.3),
    ):
        found = relax(system, x, nudge, free.state, solver=solver, tolerance=1e-12, max_iterations=3000).require()
        assert autograd_residual(system, found.state, x, nudge) < 1e-9


def test_linear_network_against_a_linear_solve() -> None:
    """Independent answer: H s = f by torch.linalg.solve, H assembled from the weights by hand."""
    system = network("linear", (5, 8, 6, 3), gain=0.6)
    x, y = batch(5, 3, 4)
    w1, w2, w3 = (layer.weight.detach() for layer in system.couplings)
    b = [layer.bias.detach() for layer in system.couplings]
    eye = [torch.eye(n, dtype=torch.float64) for n in (8, 6, 3)]
    zero = torch.zeros(8, 3, dtype=torch.float64)
    beta = 0.2
    hessian = torch.cat(
        [
            torch.cat([eye[0], -w2.t(), zero], 1),
            torch.cat([-w2, eye[1], -w3.t()], 1),
            torch.cat([zero.t(), -w3, (1 + beta) * eye[2]], 1),
        ]
    )
    right = torch.cat([x @ w1.t() + b[0], b[1].expand(4, -1), b[2] + beta * y], 1)
    exact = torch.linalg.solve(hessian, right.t()).t()
    free = relax(system, x).require()
    found = relax(system, x, Nudge(SquaredError(), y, beta), free.state).require()
    assert torch.allclose(flat(found.state), exact, atol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_coordinate_descent_never_raises_the_energy(activation: str) -> None:
    """Each half-sweep is an exact minimisation: a rise means a wrong update."""
    system = network(activation, (6, 9, 7, 4), gain=0.9)
    x, _ = batch(6, 4, 5)
    trace = relax(system, x, solver="coordinate", trace=True, max_iterations=400).trace
    assert trace is not None
    assert float((trace.energy[1:] - trace.energy[:-1]).max()) <= 1e-12


def test_tiny_displacements_keep_their_digits_in_float32() -> None:
    """At beta 1e-4 in float32 the displacement is as good as any float32 number, since it is never a difference."""
    system = network("tanh")
    x, y = batch(20, 10)
    narrow = network("tanh").float()
    system.load_state_dict({k: v.double() for k, v in narrow.state_dict().items()})
    x, y = x.float(), y.float()
    nudge = Nudge(SquaredError(), y, 1e-4)
    f32 = relax(narrow, x, nudge, relax(narrow, x).state).require()
    wide = Nudge(SquaredError(), y.double(), 1e-4)
    f64 = relax(system, x.double(), wide, relax(system, x.double(), tolerance=1e-13).state, tolerance=1e-14)
    exact = flat(f64.displacement)
    # The free state's own float32 residual is part of this displacement; EP's balanced phase leaves it out.
    floor = 2e-6
    assert float((flat(f32.displacement) - exact).abs().max()) < floor


def test_examples_do_not_see_each_other() -> None:
    """A hard example in the batch must not change an easy one, whatever the solver."""
    system = network("tanh", (6, 9, 7, 4), gain=0.9)
    x, _ = batch(6, 4, 5)
    x[3] *= 30
    for solver in SOLVERS:
        together = relax(system, x, solver=solver, max_iterations=5000).require()
        alone = relax(system, x[:1], solver=solver, max_iterations=5000).require()
        assert float((flat(together.state)[:1] - flat(alone.state)).abs().max()) < 1e-8


def test_anderson_needs_no_more_sweeps_than_coordinate_descent() -> None:
    """It is the default because it is faster; on a strongly coupled network by a factor of two."""
    system = network("tanh", gain=0.8)
    x, _ = batch(20, 10)
    plain = relax(system, x, solver="coordinate", max_iterations=5000).require()
    fast = relax(system, x, solver="anderson").require()
    assert fast.iterations <= 0.6 * plain.iterations


def test_newton_krylov_is_for_strongly_coupled_systems() -> None:
    """Near a bifurcation coordinate descent crawls: hundreds of sweeps for what Newton gets in dozens."""
    system = network("tanh", gain=0.7)
    x, _ = batch(20, 10)
    plain = relax(system, x, solver="coordinate").require()
    newton = relax(system, x, solver="newton_krylov").require()
    assert newton.iterations <= 0.3 * plain.iterations
    assert float((flat(newton.state) - flat(plain.state)).abs().max()) < 1e-8
    more = relax(system, x, solver="newton_krylov", tolerance=1e-13).require()
    assert more.iterations - newton.iterations <= 40


@pytest.mark.parametrize("solver", ["anderson", "newton_krylov"])
def test_accelerated_solvers_settle_where_there_are_many_equilibria(solver: str) -> None:
    """Gain 1, tanh: coordinate descent settles, so must its accelerations, within the bounds of the states."""
    system = network("tanh", gain=1.0)
    x, _ = batch(20, 10)
    found = relax(system, x, solver=solver, max_iterations=3000).require()
    assert all(float(s.abs().max()) < 1 for s in found.state[:-1])
    assert autograd_residual(system, found.state, x) < 1e-7


def test_gmres_solves_what_a_dense_solver_solves() -> None:
    """Independent answer: torch.linalg.solve; real and complex, symmetric or not."""
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float64, torch.complex128):
        a = torch.eye(9, dtype=dtype) + 0.2 * torch.randn(3, 9, 9, generator=generator, dtype=dtype)
        b = torch.randn(3, 9, generator=generator, dtype=dtype)
        found = gmres(lambda v, a=a: (a @ v[:, :, None])[:, :, 0], b, 20, 1e-12)
        assert torch.allclose(found, torch.linalg.solve(a, b), atol=1e-8)


def test_a_short_budget_is_told() -> None:
    """Five iterations do not settle: the status says so, and `require` refuses."""
    found = relax(network("tanh", gain=0.8), batch(20, 10)[0], max_iterations=3)
    assert found.status is Status.BUDGET
    assert not bool(found.converged.all())
    with pytest.raises(NotConverged, match="did not converge for 16 of 16 examples"):
        found.require()


def test_rounding_is_told_as_a_stall() -> None:
    """A tolerance below rounding ends in STALLED, long before the budget."""
    found = relax(network("tanh").float(), batch(20, 10)[0].float(), tolerance=1e-12)
    assert found.status is Status.STALLED
    assert found.iterations < 100
    assert float(found.residual.max()) < 1e-6


def test_an_unstable_nudge_never_passes_for_an_equilibrium() -> None:
    """Linear units, beta below minus the smallest Schur complement: no minimum; iterations must not invent one."""
    system = network("linear", (5, 8, 3), gain=0.5)
    x, y = batch(5, 3, 4)
    free = relax(system, x).require()
    found = relax(
        system, x, Nudge(SquaredError(), y, -0.97), free.state, solver="coordinate", max_iterations=100000
    )
    assert found.status in (Status.NOT_FINITE, Status.STALLED)
    assert not bool(found.converged.any())


def test_a_users_system_relaxes_with_the_generic_solvers_only() -> None:
    """Three methods suffice; coordinate descent says why it cannot."""
    system = Quartic()
    x, y = batch(4, 2, 5)
    for solver in ("gradient_flow", "anderson"):
        free = relax(system, x, solver=solver).require()
        nudge = Nudge(SquaredError(), y, 0.1)
        found = relax(system, x, nudge, free.state, solver=solver).require()
        assert autograd_residual(system, found.state, x, nudge) < 1e-8
    with pytest.raises(InputError, match="no exact block updates"):
        relax(system, x, solver="coordinate")


def test_residual_has_its_unit() -> None:
    """residual_si is residual times the declared scale."""
    system = network()
    system.residual_scale, system.residual_unit = 2.0, "V"
    found = relax(system, batch(20, 10)[0])
    assert torch.equal(found.residual_si, 2.0 * found.residual)
    assert found.residual_unit == "V"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"solver": "andersen"}, "Did you mean 'anderson'"),
        ({"tolerance": 0.0}, "tolerance must be a positive number"),
        ({"tolerance": float("nan")}, "tolerance must be a positive number"),
        ({"max_iterations": 0}, "max_iterations must be an integer of at least 1"),
        ({"start": (torch.zeros(16, 3),)}, "start must be a tuple of tensors of shapes"),
    ],
)
def test_bad_options_are_told(options, words: str) -> None:
    """One line that names the argument."""
    with pytest.raises(InputError, match=words):
        relax(network(), batch(20, 10)[0], **options)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(2, 19, dtype=torch.float64), r"x must be a tensor \(batch, 20\), but was \(2, 19\)"),
        (torch.full((2, 20), float("nan"), dtype=torch.float64), "x must be finite"),
        (torch.zeros(2, 20), "x must have the system's dtype"),
        ([[0.0] * 20], "x must be a tensor"),
    ],
)
def test_bad_inputs_are_told(x, words: str) -> None:
    """One line that names x."""
    with pytest.raises(InputError, match=words):
        relax(network(), x)
