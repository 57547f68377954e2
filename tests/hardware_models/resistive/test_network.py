"""Deep resistive networks against Kirchhoff's laws in plain numpy, scipy's special functions and closed forms."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch

from hardware_models import ResistiveNetwork
from hardware_models.laws.elements import THERMAL_VOLTAGE
from hardware_models.resistive import nodes
from physics_ep import (
    CrossEntropy,
    EquilibriumPropagation,
    Nudge,
    SquaredError,
    relax,
    simulate,
)
from physics_ep.dynamics.flows import own_motion
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import NegativeNudgeError, estimate_gradient
from physics_ep.predictive_coding.activations import wright_omega
from physics_ep.system import EnergySystem
from validation import (
    bptt_gradient,
    check_system,
    finite_difference_gradient,
    gradient_report,
    implicit_gradient,
)
from validation.gradients import total_error

DIODES = ("ideal", "shockley", "none")


def network(
    diode: str = "shockley", sizes: tuple[int, ...] = (5, 9, 6, 3), amplification: float = 2.0, **options: object
) -> ResistiveNetwork:
    """A float64 network with current sources that are not zero."""
    given = {"scale": 1.0, "saturation": 1e-6, **options}
    system = ResistiveNetwork(list(sizes), diode, input_gain=4.0, amplification=amplification, **given).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in system.couplings:
            if layer.bias is not None:
                layer.bias.copy_(0.2 * torch.randn(layer.bias.shape, generator=generator, dtype=torch.float64))
    return system


def batch(system: ResistiveNetwork, size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, system.sizes[0], generator=generator, dtype=torch.float64)
    return x, torch.rand(size, system.sizes[-1], generator=generator, dtype=torch.float64)


def kirchhoff(system: ResistiveNetwork, state: tuple[torch.Tensor, ...], x: torch.Tensor) -> list[np.ndarray]:
    """Current into each node that is missing, resistor by resistor, amplifiers and diodes included; numpy alone."""
    below = np.concatenate([x.numpy(), -x.numpy()], 1)
    volts = [v.numpy() for v in state]
    missing = [np.zeros_like(v) for v in volts]
    for k, (layer, v) in enumerate(zip(system.couplings, volts, strict=True)):
        g, a = layer.conductance.detach().numpy(), system.gains[k]
        across = a * below[:, None, :] - v[:, :, None]
        missing[k] += (g * across).sum(2)
        if k:
            missing[k - 1] -= (g * across).sum(1) / a
        if layer.bias is not None:
            missing[k] += layer.bias.detach().numpy()
        below = v
    if system.diode == "shockley":
        for k, v in enumerate(volts[:-1]):
            up = np.arange(v.shape[1]) < (v.shape[1] + 1) // 2
            scale = system.emission * THERMAL_VOLTAGE
            inward = system.saturation * np.expm1(-v / scale)
            outward = system.saturation * np.expm1(v / scale)
            missing[k] += np.where(up, inward, -outward)
    return missing


@pytest.mark.parametrize("amplification", [1.0, 2.5])
@pytest.mark.parametrize("diode", DIODES)
def test_operating_points_obey_kirchhoff(diode, amplification):
    """Every node's currents, element by element, in the free and nudged phases; ideal diodes push one way only.

    A nudged phase from no equilibrium (here from 0 V) must take over the currents that are missing there.
    """
    system = network(diode, amplification=amplification)
    x, y = batch(system)
    free = relax(system, x, tolerance=1e-14).require()
    nudged = relax(system, x, Nudge(SquaredError(), y, 0.4), start=free.state, tolerance=1e-14).require()
    cold = relax(system, x, Nudge(SquaredError(), y, 0.4), tolerance=1e-14).require()
    for found, beta in ((free, 0.0), (nudged, 0.4), (cold, 0.4)):
        missing = kirchhoff(system, found.state, x)
        missing[-1] += beta * (y - found.state[-1]).numpy()
        if diode == "ideal":
            for m, v in zip(missing[:-1], found.state[:-1], strict=True):
                up = np.arange(v.shape[1]) < (v.shape[1] + 1) // 2
                side = np.where(up, v.numpy(), -v.numpy())
                push = np.where(up, m, -m)
                assert (side >= 0).all()
                assert (push[side == 0] <= 1e-12).all(), "an ideal diode carries current one way"
                m[side == 0] = 0
                assert (side == 0).any()
                assert (side > 0).any()
        assert max(np.abs(m).max() for m in missing) < 1e-12


@pytest.mark.parametrize("diode", DIODES)
@pytest.mark.parametrize("amplification", [1.0, 2.0])
def test_contract(diode, amplification):
    """Force, contrast, projection, relaxation, nudging and the order of EP, by the public checks."""
    system = network(diode, amplification=amplification)
    check_system(system, *batch(system))


def test_cross_entropy_is_a_current():
    """Output nodes of unequal load under a cost that is not quadratic; EP against implicit differentiation."""
    system = network()
    x, _ = batch(system)
    labels = torch.arange(len(x)) % 3
    check_system(system, x, labels)
    report = gradient_report(system, x, labels, CrossEntropy(), beta=1e-3)
    assert report.relative_error < 1e-6


def test_shockley_gradient_reaches_its_order():
    """Centered EP: error over beta falls with slope 2, to 1e-7 and below."""
    system = network("shockley")
    x, y = batch(system)
    exact = implicit_gradient(system, x, y, SquaredError(), tolerance=1e-14)
    errors = []
    betas = [0.2, 0.02, 0.002, 2e-4]
    for beta in betas:
        ep = EquilibriumPropagation(SquaredError(), beta=beta, tolerance=1e-13)
        errors.append(total_error(estimate_gradient(ep, system, x, y)[0], exact))
    slopes = -np.diff(np.log10(errors))
    assert np.abs(slopes - 2).max() < 0.1, errors
    assert errors[-1] < 1e-7


@pytest.mark.full
def test_amplifiers_weigh_the_stages():
    """EP against finite differences; without A^2 the first layer's estimate is 1 / A^2 of the gradient."""
    system = network("shockley", (4, 5, 3), amplification=3.0)
    x, y = batch(system)
    exact = finite_difference_gradient(system, x, y, SquaredError())
    ep = EquilibriumPropagation(SquaredError(), beta=3e-4, tolerance=1e-13)
    found, _ = estimate_gradient(ep, system, x, y)
    assert total_error(found, exact) < 1e-6
    unweighted = copy.deepcopy(system)
    unweighted.stages = (1.0, 1.0)
    wrong, _ = estimate_gradient(ep, unweighted, x, y)
    first = "layers.0.conductance"
    assert ((wrong[first] * 9 - exact[first]).norm() / exact[first].norm()) < 1e-6
    last = "layers.1.conductance"
    assert (wrong[last] - exact[last]).norm() / exact[last].norm() < 1e-6


def test_contrast_is_that_of_the_energy():
    """Products of differences and means against autograd of the energy at the two states."""
    system = network("ideal")
    x, _ = batch(system)
    generator = torch.Generator().manual_seed(5)

    def draw(like):
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    free = system.initial_state(x)
    free, plus, minus = (tuple(draw(v) for v in free) for _ in range(3))
    weight = torch.rand(len(x), generator=generator, dtype=torch.float64)
    for down in (minus, None):
        mine = system.contrast(free, plus, down, x, weight)
        theirs = EnergySystem.contrast(system, free, plus, down, x, weight)
        assert set(mine) == set(theirs)
        for name, g in mine.items():
            assert (g - theirs[name]).abs().max() < 1e-11 * theirs[name].abs().max(), name


def test_negative_nudge_is_bounded_by_the_schur_complement():
    """The measured limit is the smallest eigenvalue of the Schur complement of the conductances on the outputs."""
    system = network("none", (4, 6, 3), amplification=1.0)
    x, y = batch(system)
    g1, g2 = (layer.conductance.detach().numpy() for layer in system.couplings)
    load = np.diag(g1.sum(1) + g2.sum(0))
    schur = np.diag(g2.sum(1)) - g2 @ np.linalg.inv(load) @ g2.T
    limit = scipy.linalg.eigvalsh(schur)[0]
    ep = EquilibriumPropagation(SquaredError(), beta=0.9 * limit)
    ep.backward(system, x, y)
    assert abs(ep.stability_limit - limit) < 5e-3 * limit  # measured until it changes by 0.5 %
    with pytest.raises(NegativeNudgeError):
        EquilibriumPropagation(SquaredError(), beta=1.01 * limit).backward(system, x, y)
    with pytest.raises(InputError, match="beta must exceed"):
        relax(system, x, Nudge(SquaredError(), y, -1.001 * float(g2.sum(1).min())), start=system.initial_state(x))


def test_float32_carries_the_gradient():
    """A large network at a small nudge, where a contrast of float32 states loses the gradient (cosine 0.34)."""
    system = ResistiveNetwork([784, 1024, 10], "ideal", input_gain=480.0, scale=1.0)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(32, 784, generator=generator) * (torch.rand(32, 784, generator=generator) < 0.2)
    y = torch.eye(10)[torch.randint(0, 10, (32,), generator=generator)]
    ep = EquilibriumPropagation(SquaredError(), beta=0.01, tolerance=1e-5)
    found, step = estimate_gradient(ep, system, x, y)
    assert max(float(e.residual.max()) for e in step.equilibria) <= 1e-5
    wide = copy.deepcopy(system).double()
    tight = EquilibriumPropagation(SquaredError(), beta=0.01, tolerance=1e-13)
    exact, _ = estimate_gradient(tight, wide, x.double(), y.double())
    for name, g in found.items():
        assert torch.cosine_similarity(g.double().flatten(), exact[name].flatten(), 0) > 1 - 1e-9, name


def test_soft_rectifier_by_lambert_w():
    """One node with a Shockley diode, in closed form, over 60 decades of what Lambert's function is given."""
    load = torch.tensor([1e-6, 1e-3, 1.0], dtype=torch.float64)
    saturation, thermal = 1e-9, 0.026
    for sign in (1.0, -1.0):
        unit = nodes.shockley(load, torch.full_like(load, sign), saturation, thermal)
        current = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None] * load
        a, c = sign * (current / load).numpy(), saturation / load.numpy()
        expected = sign * (
            a - c + thermal * scipy.special.wrightomega(np.log(c / thermal) + (c - a) / thermal).real
        )
        assert np.abs(unit.response(current).numpy() - expected).max() < 1e-14
        v = unit.response(current)
        assert (unit.inverse(v) - current).abs().max() < 1e-14
        # A small change keeps its digits: to first order it is the slope.
        change = 1e-12 * load
        moved = unit.displaced(change.expand_as(current), *unit.anchor(current))
        assert (moved / (change * unit.slope(current)) - 1).abs().max() < 1e-9
    z = torch.linspace(-60, 60, 2001, dtype=torch.float64)
    assert (wright_omega(z).numpy() / scipy.special.wrightomega(z.numpy()).real - 1).__abs__().max() < 1e-14


@pytest.mark.parametrize("diode", DIODES)
def test_parity_with_the_circuit(diode):
    """The same parts on a graph: voltages to 1e-10 V, free and nudged, amplifiers and current sources included."""
    system = network(diode)
    x, y = batch(system)
    circuit = system.to_circuit()
    volts = system.circuit_inputs(x)
    free = relax(system, x, tolerance=1e-14)
    found = circuit.operating_point(volts)
    named = circuit.node_voltages(found)
    for k, v in enumerate(free.state, 1):
        prefix = "y" if k == len(free.state) else f"h{k}_"
        theirs = torch.stack([torch.as_tensor(named[f"{prefix}{i}"]) for i in range(1, v.shape[1] + 1)], 1)
        assert (v - theirs).abs().max() < 1e-10
    nudge = Nudge(SquaredError(), y, 0.3)
    mine = relax(system, x, nudge, start=free.state, tolerance=1e-14)
    theirs = relax(circuit, volts, nudge, start=found.state)
    assert (system.outputs(mine.state) - circuit.outputs(theirs.state)).abs().max() < 1e-10


def test_superposition_scaling_and_maximum_principle():
    """Without diodes and sources voltages add; a common factor of all conductances changes none; none leaves the
    range of its neighbours."""
    system = network("none", bias=False, amplification=1.0)
    x, _ = batch(system)
    one, two, both = (relax(system, z, tolerance=1e-14).state for z in (x, x.flip(0), x + x.flip(0)))
    for a, b, c in zip(one, two, both, strict=True):
        assert (a + b - c).abs().max() < 1e-12
        assert (a.abs().amax(1) <= 4 * x.abs().amax(1)).all()
    rectified = network("ideal", bias=False)
    scaled = copy.deepcopy(rectified)
    with torch.no_grad():
        for layer in scaled.couplings:
            layer.conductance.mul_(1e-6)
    for a, b in zip(
        relax(rectified, x, tolerance=1e-14).state, relax(scaled, x, tolerance=1e-20).state, strict=True
    ):
        assert (a - b).abs().max() < 1e-12


def test_charging_by_the_matrix_exponential():
    """Volts over seconds of a network without diodes: C dv/dt = I - G v, solved by expm."""
    system = network("none", (3, 4, 2), amplification=1.0, capacitance=2e-12)
    x, _ = batch(system, 2)
    g1, g2 = (layer.conductance.detach().numpy() for layer in system.couplings)
    matrix = np.zeros((6, 6))
    matrix[:4, :4] = np.diag(g1.sum(1) + g2.sum(0))
    matrix[4:, 4:] = np.diag(g2.sum(1))
    matrix[:4, 4:], matrix[4:, :4] = -g2.T, -g2
    sources = 4 * np.concatenate([x, -x], 1) @ g1.T + system.couplings[0].bias.detach().numpy()
    sources = np.concatenate([sources, np.tile(system.couplings[1].bias.detach().numpy(), (2, 1))], 1)
    rest = np.linalg.solve(matrix, sources.T).T
    duration = 3 * system.time_constant
    course = simulate(system, x, duration, steps=400)
    found = torch.cat([v[-1] for v in course.state], 1).numpy()
    expected = rest - (scipy.linalg.expm(-matrix * duration / 2e-12) @ rest.T).T
    assert np.abs(found - expected).max() < 1e-8
    assert course.time_unit == "s"


@pytest.mark.parametrize("diode", DIODES)
def test_energy_is_the_sum_over_elements(diode):
    """Co-contents one by one with the amplifiers' weights, input included; the diagonal of the Hessian by autograd.

    What no gradient sees: the energy that inputs alone set, and the steps that preconditioned solvers take.
    """
    system = network(diode, (3, 4, 4, 2), amplification=2.5, saturation=1e-3)
    x, _ = batch(system, 2)
    generator = torch.Generator().manual_seed(2)
    state = tuple(
        0.1 * torch.randn(v.shape, generator=generator, dtype=torch.float64) for v in system.initial_state(x)
    )
    below, total, c = torch.cat([x, -x], 1), 0.0, 2.5**4
    for k, (layer, v) in enumerate(zip(system.couplings, state, strict=True)):
        across = system.gains[k] * below[:, None, :] - v[:, :, None]
        watts = 0.5 * (layer.conductance * across.square()).sum((1, 2)) - (layer.bias * v).sum(1)
        if diode == "shockley" and k < 2:
            inward = -v * torch.tensor([1.0, 1.0, -1.0, -1.0])
            watts = watts + (1e-3 * (THERMAL_VOLTAGE * torch.expm1(inward / THERMAL_VOLTAGE) - inward)).sum(1)
        total, below, c = total + c * watts, v, c / 2.5**2
    assert (system.energy(state, x) - total).abs().max() < 1e-13 * total.abs().max()

    def energy(*blocks):
        return system.energy(blocks, x).sum()

    hessian = torch.autograd.functional.hessian(energy, state)
    for k, found in enumerate(system.curvature_diagonal(state, x)):
        own = hessian[k][k].reshape(found.numel(), -1).diagonal().view_as(found)
        assert (found - own).abs().max() < 1e-12 * own.max()


def test_diodes_stop_motion():
    """At rest nothing moves: an ideal diode takes up what would drive its node past 0 V."""
    system = network("ideal", (4, 6, 3), amplification=1.0)
    x, y = batch(system)
    nudge = Nudge(SquaredError(), y, 0.5)
    rest = relax(system, x, nudge, tolerance=1e-14).require()
    motion = own_motion(system.phase(system.prepare(x)).nudged(nudge))
    assert (rest.state[0] == 0).any()
    for speed in motion.velocity(rest.state):
        assert (speed * system.capacitance).abs().max() < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("diode", DIODES)
def test_networks_settle_in_time(diode):
    """What `simulate` runs to is what `relax` finds, in the free and a nudged phase; the co-content never rises."""
    system = network(diode, (4, 6, 3), amplification=1.0, saturation=1e-3)
    x, y = batch(system)
    nudge = Nudge(SquaredError(), y, 0.5)
    rest = relax(system, x, tolerance=1e-13)
    pulled = relax(system, x, nudge, start=rest.state, tolerance=1e-13)
    free = simulate(system, x, 60 * system.time_constant, steps=1800)
    assert (free.energy.diff(dim=0) <= 1e-12 * free.energy.abs().max()).all()
    end = tuple(v[-1] for v in free.state)
    nudged = simulate(system, x, 60 * system.time_constant, nudge, end, steps=1800)
    for course, found in ((free, rest), (nudged, pulled)):
        for v, w in zip(course.state, found.state, strict=True):
            assert (v[-1] - w).abs().max() < 1e-8


def test_conductances_stay_what_devices_hold():
    """Each optimizer step is clipped to [g_min, g_max]."""
    system = ResistiveNetwork([4, 6, 2], g_min=0.05, g_max=0.4, scale=1.0)
    for layer in system.couplings:
        assert layer.conductance.min() >= 0.05
        with torch.no_grad():
            layer.conductance.add_(torch.linspace(-1, 1, layer.conductance.numel()).view_as(layer.conductance))
    system.constrain()
    for layer in system.couplings:
        assert float(layer.conductance.detach().min()) == pytest.approx(0.05)
        assert float(layer.conductance.detach().max()) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": [4]}, "sizes must be at least two positive integers"),
        ({"sizes": [4, 0, 2]}, "sizes must be at least two positive integers"),
        ({"diode": "idael"}, "Did you mean 'ideal'"),
        ({"input_gain": -1.0}, "input_gain must be a positive number"),
        ({"amplification": math.inf}, "amplification must be a positive number"),
        ({"g_min": 0.5, "g_max": 0.1}, "g_min and g_max must satisfy"),
        ({"g_min": -0.5}, "g_min and g_max must satisfy"),
        ({"saturation": 0.0}, "saturation must be a positive number"),
        ({"seed": 1.5}, "seed must be an integer"),
    ],
)
def test_bad_options_are_refused(options, message):
    """One line that names the argument."""
    with pytest.raises(InputError, match=message):
        ResistiveNetwork(**{"sizes": [4, 6, 2], **options})


def test_conductances_that_an_optimizer_leaves_negative():
    """EP programs devices to what they can hold before it goes on; a node of negative load is refused."""
    system = network("ideal", (4, 6, 2))
    x, y = batch(system)
    ep = EquilibriumPropagation(SquaredError(), beta=0.01)
    optimizer = torch.optim.Adam(system.parameters(), lr=0.2)
    for _ in range(3):
        optimizer.zero_grad()
        ep.backward(system, x, y)
        optimizer.step()
    assert min(float(layer.conductance.detach().min()) for layer in system.couplings) < 0
    programmed = copy.deepcopy(system)
    programmed.constrain()
    found, _ = estimate_gradient(ep, system, x, y)
    expected, _ = estimate_gradient(ep, programmed, x, y)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert min(float(layer.conductance.detach().min()) for layer in system.couplings) == 0
    with torch.no_grad():
        system.couplings[0].conductance[0, :3] = -0.05
    check_system(system, x, y)
    with torch.no_grad():
        system.couplings[1].conductance[0] -= 1.0
    with pytest.raises(InputError, match=r"node of layer 2 must not sum to less than 0, .* constrain\(\)"):
        relax(system, x)


@pytest.mark.parametrize("diode", DIODES)
def test_nodes_that_are_cut_off_stay_at_rest(diode):
    """Devices may all be off at a node: it stays at 0 V, the others are where they are without it."""
    system = network(diode, (4, 6, 2), bias=False)
    x, y = batch(system)
    with torch.no_grad():
        system.couplings[0].conductance[1] = 0
        system.couplings[1].conductance[:, 1] = 0
    found = relax(system, x, tolerance=1e-13).require()
    assert found.state[0][:, 1].abs().max() < 1e-15
    missing = kirchhoff(system, found.state, x)[-1]
    assert np.abs(missing).max() < 1e-12
    ep = EquilibriumPropagation(SquaredError(), beta=1e-3)
    ep.backward(system, x, y)
    assert all(p.grad.isfinite().all() for p in system.parameters())


def test_backprop_through_time_reaches_the_first_layer():
    """The unrolled relaxation against implicit differentiation: what is computed once a batch is followed too."""
    system = network("shockley", (4, 5, 3), amplification=1.5, saturation=1e-3)
    x, y = batch(system)
    unrolled = bptt_gradient(system, x, y, SquaredError())
    assert total_error(unrolled, implicit_gradient(system, x, y, SquaredError())) < 1e-9


def test_bad_inputs_are_refused():
    system = ResistiveNetwork([4, 6, 2], scale=1.0)
    with pytest.raises(InputError, match="but was ndarray"):
        relax(system, np.zeros((2, 4)))
    for x, message in [
        (torch.zeros(2, 3), r"x must be a tensor \(batch, 4\), but was \(2, 3\)"),
        (torch.zeros(2, 4, dtype=torch.float64), "x must have the system's dtype"),
        (torch.full((2, 4), float("nan")), "x must be finite"),
    ]:
        with pytest.raises(InputError, match=message):
            relax(system, x)


def test_mirrored_nodes_start_as_mirror_images():
    """Pairs of hidden nodes are driven oppositely by a mirrored layer below; few conductances start on."""
    system = ResistiveNetwork(
        [6, 40, 40, 4], mirrored=True, density=0.2, rest=0.1, input_gain=8.0, amplification=2.0, scale=1.0
    )
    generator = torch.Generator().manual_seed(0)
    for layer, n in zip(system.couplings[:2], (6, 20), strict=True):
        half = torch.rand(5, n, generator=generator)
        current = layer(torch.cat([half, -half], 1))
        assert (current[:, :20] + current[:, 20:]).abs().max() < 1e-6 * current.abs().max()
    on = (system.couplings[1].conductance > 0).double().mean()
    assert abs(float(on) - 0.2) < 0.03
    assert bool((system.couplings[0].conductance > 0).all())
    grounded = tuple(torch.zeros(1, n) for n in (40, 40, 4))
    missing = system.force(grounded, torch.zeros(1, 6))[-1]
    assert (missing / system.loads()[-1] - 0.1).abs().max() < 1e-6


def test_each_layer_may_have_a_density_of_its_own():
    """A symmetric draw clipped at 0, half off and the others uniform, is what a list of shares gives."""
    system = ResistiveNetwork([200, 300, 10], density=[0.5, 0.25], scale=0.5**0.5)
    first, last = (layer.conductance.detach() for layer in system.couplings)
    assert float((first > 0).double().mean()) == pytest.approx(0.5, abs=0.01)
    assert float((last > 0).double().mean()) == pytest.approx(0.25, abs=0.03)
    on = first[first > 0] * 400**0.5  # uniform in (0, 1): mean 1/2, square 1/3
    assert float(on.max()) == pytest.approx(1, abs=1e-3)
    assert float(on.mean()) == pytest.approx(1 / 2, abs=0.005)
    assert float(on.square().mean()) == pytest.approx(1 / 3, abs=0.005)
    for wrong in ([0.5], [0.5, 1.5], "dense", 0.0, None):
        with pytest.raises(InputError, match="density must lie in"):
            ResistiveNetwork([4, 6, 2], density=wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_and_cpu_agree():
    """The same network on a GPU: states and gradients to rounding."""
    system = network("ideal", (6, 16, 12, 4), mirrored=True)
    x, y = batch(system)
    ep = EquilibriumPropagation(SquaredError(), beta=0.01, tolerance=1e-12)
    here, _ = estimate_gradient(ep, system, x, y)
    there, _ = estimate_gradient(ep, copy.deepcopy(system).cuda(), x.cuda(), y.cuda())
    assert all((here[name] - g.cpu()).abs().max() < 1e-9 * here[name].abs().max() for name, g in there.items())
