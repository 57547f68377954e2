"""Trust-region Newton: if these fail, multistable systems end in saddles, in wrong basins, or far from rounding."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from hardware_models import HopfieldNetwork, ResistiveNetwork
from physics_ep import (
    CrossEntropy,
    EnergySystem,
    NotConverged,
    Nudge,
    SquaredError,
    Status,
    relax,
)
from physics_ep.blocks import flat
from physics_ep.errors import InputError
from physics_ep.relaxation import krylov
from physics_ep.relaxation.krylov import conjugate_gradients
from physics_ep.relaxation.newton import NewtonKrylov, TrustRegion, trust_region
from physics_ep.system import Phase
from tests.support.multistable import WIDE, DoubleWells, Ring, well
from tests.support.systems import Quartic, batch, hessian, network


def test_every_start_ends_in_the_minimum_of_its_own_basin() -> None:
    """Wells by themselves: basins are known exactly, and a Newton step that leaps over a ridge is seen."""
    system = DoubleWells(6)
    generator = torch.Generator().manual_seed(0)
    x = 0.25 * torch.randn(80, 6, generator=generator, dtype=WIDE)
    start = (2 * torch.randn(80, 6, generator=generator, dtype=WIDE),)
    found = relax(system, x, start=start, tolerance=1e-14).require()
    pairs = zip(x.flatten().tolist(), start[0].flatten().tolist(), strict=True)
    exact = torch.tensor([well(field, place) for field, place in pairs], dtype=WIDE).view(80, 6)
    assert float((found.state[0] - exact).abs().max()) < 1e-12


def test_ring_winds_as_it_must_though_it_may_turn_freely() -> None:
    """A singular Hessian (rotation): energies are -N cos(2 pi q / N) of stable windings, to the last digit."""
    system = Ring(16)
    x = torch.zeros(200, 1, dtype=WIDE)
    start = system.random_state(x, torch.Generator().manual_seed(1))
    found = relax(system, x, start=start, tolerance=1e-13).require()
    q = system.winding(found.state)
    assert float((q - q.round()).abs().max()) < 1e-9
    assert q.round().abs().max() < 4
    assert len(q.round().unique()) >= 3
    exact = -16 * torch.cos(2 * math.pi * q.round() / 16)
    assert float((system.energy(found.state, x).detach() - exact).abs().max()) < 1e-12


def test_saddles_are_left() -> None:
    """Beside a saddle, Newton's own step leads to it; the solver must follow the negative curvature downhill."""
    system = DoubleWells(3)
    x = torch.zeros(4, 3, dtype=WIDE)
    signs = torch.tensor([[1, 1, 1], [1, -1, 1], [-1, -1, 1], [-1, 1, -1]], dtype=WIDE)
    found = relax(system, x, start=(1e-5 * signs,), tolerance=1e-14).require()
    assert float((found.state[0] - signs).abs().max()) < 1e-13


@pytest.mark.parametrize("beta", [None, 1e-5, 0.2])
def test_residuals_square_down_to_rounding(beta: float | None) -> None:
    """One step takes r to 100 r^2 or less, and rounding is reached; first-order methods would need hundreds."""
    system = Quartic()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(3), dtype=WIDE)
    free = relax(system, x, solver="trust_region", tolerance=1e-14, trace=beta is None)
    found = free
    if beta is not None:
        y = torch.ones(5, 2, dtype=WIDE)
        nudge = Nudge(SquaredError(), y, beta)
        found = relax(system, x, nudge, free.state, solver="trust_region", tolerance=2e-15, trace=True)
        exact = flat(relax(system, x, nudge, free.state, solver="newton_krylov", tolerance=2e-15).displacement)
        assert float((flat(found.displacement) - exact).abs().max()) < 1e-13
    found.require()
    (force,) = system.force(found.state, x)
    if beta is None:
        assert float(force.abs().max()) < 1e-13
    worst = [float(r) for r in found.trace.residual.amax(1)]
    steps = [(a, b) for a, b in itertools.pairwise(worst) if 1e-10 < a < 1e-2]
    assert any(b <= max(100 * a * a, 2e-15) and b < 1e-3 * a for a, b in steps)
    assert found.iterations < 60


def test_float32_reaches_its_own_floor() -> None:
    system = network("tanh", (6, 9, 7, 4), gain=1.0).float()
    x, y = (t.float() for t in batch(6, 4, 5))
    free = relax(system, x, solver="trust_region", tolerance=1e-6).require()
    nudge = Nudge(SquaredError(), y, 1e-2)
    moved = relax(system, x, nudge, free.state, solver="trust_region", tolerance=1e-8).require()
    wide = network("tanh", (6, 9, 7, 4), gain=1.0)
    wide.load_state_dict({n: p.double() for n, p in system.state_dict().items()})
    nudge = Nudge(SquaredError(), y.double(), 1e-2)
    origin = tuple(s.double() for s in free.state)
    exact = relax(wide, x.double(), nudge, origin, solver="anderson", tolerance=1e-13).require()
    gap = flat(moved.displacement).double() - flat(exact.displacement)
    # The free state's own residual, over the smallest curvature, is in this displacement.
    assert float(gap.abs().max()) < 1e-4


def test_strongly_coupled_network_ends_in_minima() -> None:
    """tanh, gain 1.2, random starts: all Hessians by autograd are positive definite."""
    system = network("tanh", (10, 12, 12, 12, 5), gain=1.2)
    x, _ = batch(10, 5, 12)
    generator = torch.Generator().manual_seed(0)
    start = tuple(0.5 * torch.rand(s.shape, generator=generator, dtype=WIDE) for s in system.initial_state(x))
    found = relax(system, x, start=start, solver="trust_region", tolerance=1e-12).require()
    assert float(torch.linalg.eigvalsh(hessian(system, found.state, x)).min()) > 0


def test_energy_never_rises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the plain steps, from random phases: steps that the model promised in vain are taken back."""
    monkeypatch.setattr(TrustRegion, "near", math.inf)
    system = Ring(16)
    x = torch.zeros(100, 1, dtype=WIDE)
    start = system.random_state(x, torch.Generator().manual_seed(1))
    found = relax(system, x, start=start, tolerance=1e-12, trace=True)
    energy = found.require().trace.energy
    assert bool((energy[1:] <= energy[:-1] + 1e-12).all())


@pytest.mark.parametrize("kind", ["quartic", "tanh", "shockley"])
@pytest.mark.parametrize("nudged", [False, True])
def test_hessian_products_and_slopes_are_derivatives_of_the_energy(kind: str, nudged: bool) -> None:
    """Closed forms of layers and the default, against autograd of the energy alone."""
    if kind == "quartic":
        system: EnergySystem = Quartic()
        x, y = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=WIDE), torch.tensor([0, 1, 1])
    elif kind == "tanh":
        system = network("tanh", (6, 5, 4, 3), gain=0.8)
        x, y = batch(6, 3, 3)[0], torch.tensor([0, 1, 2])
    else:
        system = ResistiveNetwork(
            [4, 5, 4, 3], diode="shockley", amplification=2.0, scale=1.0, saturation=1e-6
        ).double()
        x, y = batch(4, 3, 3)[0], torch.tensor([0, 1, 2])
    free = relax(system, x, tolerance=1e-12, max_iterations=5000).require()
    nudge = Nudge(CrossEntropy(), y, 0.05 * system.nudge_scale) if nudged else None
    phase = system.phase(system.prepare(x), origin=free.state, balanced=True).nudged(nudge)
    generator = torch.Generator().manual_seed(1)
    small = 1e-5 * min(float(flat(free.state).abs().max()), 1.0)
    z = tuple(small * torch.randn(s.shape, generator=generator, dtype=WIDE) for s in free.state)
    v = tuple(torch.randn(s.shape, generator=generator, dtype=WIDE) for s in free.state)
    state = phase.state(z)
    exact = (hessian(system, state, x, nudge).detach() @ flat(v)[:, :, None])[:, :, 0]
    product = flat(phase.hessian(z)(v)).detach()
    assert float((product - exact).abs().max()) < 1e-9 * float(exact.abs().max())
    leaves = tuple(s.clone().requires_grad_() for s in state)
    total = system.energy(leaves, x)
    if nudge is not None:
        total = total + nudge.energy(system.outputs(leaves))
    slope = flat(torch.autograd.grad(total.sum(), leaves))
    near = flat(phase.slope(z, phase.force(z))).detach()
    assert float((near - slope).abs().max()) < 1e-3 * float(slope.abs().max())


def test_a_balanced_phase_has_a_balanced_energy() -> None:
    """Around an origin that is no equilibrium: minus the force is the slope of the energy, by differences."""
    system, x = Quartic(), torch.ones(2, 4, dtype=WIDE)
    origin = (torch.full((2, 6), 0.3, dtype=WIDE),)
    phase = system.phase(system.prepare(x), origin=origin, balanced=True)
    phase = phase.nudged(Nudge(SquaredError(), torch.ones(2, 2, dtype=WIDE), 0.1))
    z, v = torch.randn(2, 2, 6, generator=torch.Generator().manual_seed(0), dtype=WIDE)
    rise = (phase.energy((z + 1e-5 * v,)) - phase.energy((z - 1e-5 * v,))) / 2e-5
    assert torch.allclose(-(phase.force((z,))[0] * v).sum(1), rise, rtol=1e-8)


def test_conjugate_gradients() -> None:
    """Definite: the linear solve. Bounded or indefinite: on the boundary, no worse than the steepest step there."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(6, 12, 12, generator=generator, dtype=WIDE)
    a = a @ a.mT + 0.1 * torch.eye(12, dtype=WIDE)
    a[3:] = a[3:] - 4 * torch.eye(12, dtype=WIDE)  # indefinite
    g = torch.randn(6, 12, generator=generator, dtype=WIDE)
    scale = 0.5 + torch.rand(6, 12, generator=generator, dtype=WIDE)
    tight = torch.full((6,), 1e-14, dtype=WIDE)

    def product(v: torch.Tensor) -> torch.Tensor:
        return (a @ v[:, :, None])[:, :, 0]

    free = conjugate_gradients(product, g, tight, 40, scale=scale)
    solved = torch.linalg.solve(a, -g)
    assert float((free.move - solved)[:3].abs().max()) < 1e-9
    assert free.indefinite.tolist() == [False] * 3 + [True] * 3
    radius = torch.full((6,), 0.3, dtype=WIDE)
    held = conjugate_gradients(product, g, tight, 40, radius=radius, scale=scale)
    model = -((g * held.move).sum(1) + 0.5 * (held.move * product(held.move)).sum(1))
    assert torch.allclose(held.gain, model, rtol=1e-12)
    assert bool(held.bounded.all())
    assert torch.allclose((scale * held.move**2).sum(1).sqrt(), radius, rtol=1e-12)
    down = -g / scale
    unit = down * (radius / (scale * down**2).sum(1).sqrt())[:, None]
    slope, bend = (g * unit).sum(1), (unit * product(unit)).sum(1)
    share = torch.where(bend > 0, (-slope / bend).clamp(max=1), torch.ones_like(bend))
    cauchy = -(share * slope + 0.5 * share**2 * bend)
    assert bool((held.gain >= cauchy - 1e-12).all())


def test_steps_within_a_radius_are_the_same_whether_the_boundary_is_looked_for_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The host looks for the boundary only near it: else a step would leave the region, or not reach its edge.

    Radii from a hundredth of the whole step to a hundred times it, definite and indefinite; the fall is that
    of the dense quadratic form.
    """
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(60, 9, 9, generator=generator, dtype=WIDE)
    a = a @ a.mT + 0.2 * torch.eye(9, dtype=WIDE)
    a[1::3] -= 3 * torch.eye(9, dtype=WIDE)
    g = torch.randn(60, 9, generator=generator, dtype=WIDE)
    scale = 0.5 + torch.rand(60, 9, generator=generator, dtype=WIDE)
    whole = torch.linalg.solve(a, -g)
    parts = torch.logspace(-2, 2, 60, dtype=WIDE)
    parts[::7] = 1 + 1e-4 * torch.randn(9, generator=generator, dtype=WIDE)
    radius = parts * (scale * whole**2).sum(1).sqrt()
    forcing = torch.full((60,), 1e-10, dtype=WIDE)

    def product(v: torch.Tensor) -> torch.Tensor:
        return (a @ v[:, :, None])[:, :, 0]

    near = conjugate_gradients(product, g, forcing, 40, radius=radius, scale=scale)
    monkeypatch.setattr(krylov, "NEAR", -1.0)  # always
    always = conjugate_gradients(product, g, forcing, 40, radius=radius, scale=scale)
    for one, other in zip(near[:4], always[:4], strict=True):
        assert torch.equal(one, other)
    assert 20 < int(near.bounded.sum()) < 60
    length = (scale * near.move**2).sum(1).sqrt()
    assert torch.allclose(length[near.bounded], radius[near.bounded], rtol=1e-12)
    assert bool((length[~near.bounded] < radius[~near.bounded]).all())
    assert torch.allclose(near.move[~near.bounded], whole[~near.bounded], rtol=1e-6)
    model = -((g * near.move).sum(1) + 0.5 * (near.move * product(near.move)).sum(1))
    assert torch.allclose(near.gain, model, rtol=1e-12)


def test_conjugate_gradients_on_a_consistent_singular_system() -> None:
    """A chain of springs without a ground: its translation must neither stop the solve nor enter the answer."""
    n = 30
    chain = torch.diag(torch.full((n,), 2.0, dtype=WIDE))
    chain[0, 0] = chain[-1, -1] = 1
    chain -= torch.diag(torch.ones(n - 1, dtype=WIDE), 1) + torch.diag(torch.ones(n - 1, dtype=WIDE), -1)
    g = torch.randn(2, n, generator=torch.Generator().manual_seed(0), dtype=WIDE)
    g = g - g.mean(1, keepdim=True)
    found = conjugate_gradients(lambda v: v @ chain, g, torch.full((2,), 1e-12, dtype=WIDE), 200)
    exact = -g @ torch.linalg.pinv(chain)
    assert not bool(found.indefinite.any())
    assert float((found.move - exact).abs().max()) < 1e-9


def test_what_has_no_minima_or_no_curvature_is_refused() -> None:
    """A skew-gradient system's equilibria are saddles of E, which the solver would leave: it must say so."""

    class Skew(Quartic):
        descends = False

    x = torch.zeros(1, 4, dtype=WIDE)
    with pytest.raises(InputError, match="must not be 'trust_region' for Skew, whose equilibria are no minima"):
        relax(Skew(), x, solver="trust_region")
    with pytest.raises(InputError, match="must not be 'trust_region' for HopfieldNetwork, whose energy has kinks"):
        relax(HopfieldNetwork([4, 3, 2]).double(), x, solver="trust_region")


def test_complex_states_are_solved_by_newtons_method() -> None:
    """Complex nudges have no energy to descend; their states must still continue the free one."""
    system = network("tanh", (6, 9, 7, 4), gain=0.8)
    x, y = batch(6, 4, 5)
    free = relax(system, x, solver="trust_region", tolerance=1e-12).require()
    nudge = Nudge(SquaredError(), y, 0.1j)
    phase = system.phase(system.prepare(x), origin=free.state, balanced=True).nudged(nudge)
    assert isinstance(trust_region(phase, phase.start()), NewtonKrylov)
    assert isinstance(trust_region(phase.nudged(None), phase.nudged(None).start()), TrustRegion)


def test_a_phase_may_say_why_it_did_not_settle() -> None:
    """A pendulum driven beyond its torque drifts for ever: the message must say so, not 'iterations ran out'."""

    class Drifting(Phase):
        def verdict(self, z, residual):
            return Status.NOT_LOCKED if float(residual.max()) > 0.1 else None

    class Pendulum(Quartic):
        def energy(self, state, x):
            return (-state[0].cos() - x[:, :1] * state[0]).sum(1)

        def phase(self, inputs, origin=None, balanced=False):
            return Drifting(self, inputs, origin, balanced)

    x = torch.full((1, 4), 1.5, dtype=WIDE)
    found = relax(Pendulum(), x, max_iterations=200)
    assert found.status is Status.NOT_LOCKED
    with pytest.raises(NotConverged, match="no synchronised state"):
        found.require()
    assert relax(Pendulum(), 0.5 * x / 1.5, solver="trust_region").status is Status.CONVERGED
