"""Equilibria of predictive coding networks: both energies, every solver, residuals, what is refused."""

from __future__ import annotations

import pickle

import pytest
import torch

from physics_ep import (
    CrossEntropy,
    NotConverged,
    Nudge,
    SquaredError,
    Status,
    relax,
    simulate,
)
from physics_ep.dynamics.flows import own_motion
from physics_ep.errors import InputError
from physics_ep.predictive_coding import vgg5, vgg10_skip
from physics_ep.predictive_coding.published import EverywhereModPgd
from physics_ep.predictive_coding.solvers import SOLVERS
from tests.support.pcn import biased, dense, examples
from tests.support.tiers import first
from validation import check_system

SMOOTH = ("tanh", "softplus", "gelu", "linear")


@pytest.mark.parametrize("activation", first(3, ["relu", *SMOOTH]))
@pytest.mark.parametrize("energy", ["squared", "paired"])
def test_contract(activation: str, energy: str) -> None:
    """Forces, contrasts, equilibria and orders of both energies against finite and implicit differences."""
    gates = (
        "free" if activation == "relu" else "frozen"
    )  # held gates are those of another energy once a unit crosses
    net = dense(3, activation, energy=energy, gates=gates, width=6, n_in=5)
    check_system(net, *examples((5,), 3))


@pytest.mark.parametrize("energy", ["squared", "paired"])
def test_free_equilibrium_is_the_forward_pass(energy: str) -> None:
    """h = u = forward pass, E = 0, dE/ds = 0, dE/dtheta = 0: one-sided schemes need one nudged phase only."""
    net = dense(4, "tanh", energy=energy)
    x, _ = examples()
    free = relax(net, x)
    assert free.iterations == 1
    assert bool((free.residual == 0).all())
    torch.testing.assert_close(net.outputs(free.state), net(x), atol=0, rtol=0)
    if energy == "paired":
        for h, u in zip(free.state[:4], free.state[4:], strict=True):
            assert torch.equal(h, u)
    state = tuple(s.detach().requires_grad_() for s in free.state)
    energies = net.energy(state, x)
    assert float(energies.detach().abs().max()) < 1e-13
    for slope in torch.autograd.grad(energies.sum(), (*state, *net.parameters())):
        assert float(slope.abs().max()) < 1e-12


def test_paired_energy_is_the_fenchel_young_gap() -> None:
    """With u at its prediction, E = sum Psi(h) + S(a) - h a >= 0: the published form, written out by hand."""
    net = dense(3, "tanh", energy="paired", width=6, n_in=5)
    x, _ = examples((5,), 4)
    g = torch.Generator().manual_seed(2)
    free = relax(net, x).state
    h = [0.5 * s.tanh() + 0.1 * torch.randn(s.shape, generator=g, dtype=s.dtype) for s in free[:3]]
    below, total, u = x, torch.zeros(4, dtype=torch.float64), []
    for k, layer in enumerate(net.stack):
        a = below @ layer.weight.detach().t() + layer.bias.detach()
        if k < 2:
            u.append(a.tanh())
            psi = h[k] * h[k].atanh() + 0.5 * torch.log1p(-h[k].square())
            total += (psi + a.cosh().log() - h[k] * a).sum(1)
        else:
            u.append(a)
            total += (0.5 * (h[k] - a).square()).sum(1)
        below = h[k]
    torch.testing.assert_close(net.energy((*h, *u), x).detach(), total, atol=1e-12, rtol=1e-12)
    assert bool((total >= 0).all())


def test_learning_rule_is_local() -> None:
    """dE/dW = -(h - u) h_below^T and dE/db = -(h - u) for paired units: what hardware would measure."""
    net = dense(4, "softplus", energy="paired")
    x, y = examples()
    free = relax(net, x)
    nudged = relax(net, x, Nudge(CrossEntropy(), y, 0.1), free.state, tolerance=1e-12)
    grads = torch.autograd.grad(net.energy(nudged.state, x).sum(), list(net.parameters()))
    exact = dict(zip([n for n, _ in net.named_parameters()], grads, strict=True))
    below = x
    for k in range(4):
        error = nudged.state[k] - nudged.state[4 + k]
        torch.testing.assert_close(exact[f"layers.{k}.weight"], -error.t() @ below, atol=1e-11, rtol=1e-9)
        torch.testing.assert_close(exact[f"layers.{k}.bias"], -error.sum(0), atol=1e-11, rtol=1e-9)
        below = nudged.state[k]


@pytest.mark.parametrize("energy", ["squared", "paired"])
@pytest.mark.parametrize("activation", first(2, SMOOTH))
def test_every_solver_finds_the_stationary_point_of_the_energy(activation: str, energy: str) -> None:
    """At a strong nudge, autograd of F must vanish at what each solver returns, to its residual."""
    net = dense(4, activation, energy=energy, width=12)
    x, y = examples()
    free = relax(net, x)
    nudge = Nudge(CrossEntropy(), y, 0.2)
    solvers = (
        ("sweep", "anderson", "pgd", "gradient_flow") if energy == "squared" else ("sweep", "anderson", "skew_flow")
    )
    for solver in solvers:
        found = relax(net, x, nudge, free.state, solver=solver, tolerance=1e-11, max_iterations=5000).require()
        state = tuple(s.detach().requires_grad_() for s in found.state)
        total = net.energy(state, x) + nudge.energy(net.outputs(state))
        for slope in torch.autograd.grad(total.sum(), state):
            assert float(slope.abs().max()) < 1e-10, solver
        # What is carried is the same state.
        for d, s, s0 in zip(found.displacement, found.state, free.state, strict=False):
            torch.testing.assert_close(s, s0 + d, atol=1e-14, rtol=0)


@pytest.mark.full
@pytest.mark.parametrize("pooling", ["max", "average"])
def test_solvers_agree_on_convolutions_with_held_gates(pooling: str) -> None:
    """ReLU, pooling and skips: with gates held, even/odd updates, sweeps and descent end in one state of each
    energy."""
    net = biased(vgg10_skip(10, (3, 32, 32), width=0.05, gain=6**0.5, pooling=pooling).double())
    x, y = examples((3, 32, 32), 4)
    free = relax(net, x)
    nudge = Nudge(CrossEntropy(), y, 0.05)
    options = {"tolerance": 1e-9, "max_iterations": 4000}
    squared = {
        s: relax(net, x, nudge, free.state, solver=s, **options).require() for s in ("sweep", "anderson", "pgd")
    }
    paired = {s: relax(net, x, nudge, free.state, solver=s, **options).require() for s in ("mod_pgd", "skew_flow")}
    for group in (squared, paired):
        first, *others = group.values()
        for other in others:
            for a, b in zip(first.displacement, other.displacement, strict=True):
                assert float((a - b).abs().max()) <= 1e-7 * float(a.abs().max()), other.solver


def test_published_iteration_by_hand() -> None:
    """Three iterations of mod-PGD and PGD, written as in the paper: the baseline must be the method as
    published."""
    net = dense(4, "relu")
    x, y = examples()
    beta, weights = 0.05, [(p.weight.detach(), p.bias.detach()) for p in net.stack]
    one_hot = torch.nn.functional.one_hot(y, 10).double()
    for solver in ("mod_pgd", "pgd"):
        h = [x, *relax(net, x).state]

        def drive(k: int, h=h) -> torch.Tensor:
            return h[k - 1] @ weights[k - 1][0].t() + weights[k - 1][1]

        for _ in range(3):
            for k in (2, 4, 1, 3):
                a = drive(k)
                if k == 4:
                    h[4] = a - beta * (h[4].softmax(1) - one_hot)
                    continue
                above = drive(k + 1)
                error = h[k + 1] - (above if k + 1 == 4 else above.relu())
                mask = torch.ones_like(above) if k + 1 == 4 else (above > 0).double()
                feedback = (mask * error) @ weights[k][0]
                h[k] = (a + feedback).relu() if solver == "mod_pgd" else (a.relu() + feedback).relu()
        found = relax(
            net, x, Nudge(CrossEntropy(), y, beta), relax(net, x).state,
            solver=solver, gates="live", max_iterations=3, tolerance=1e-15,
        )  # fmt: skip
        assert found.iterations == 3
        for mine, theirs in zip(found.state, h[1:], strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-13, rtol=1e-12)


def test_layers_not_reached_need_no_update(monkeypatch) -> None:
    """Leaving out layers that no perturbation has reached changes no number."""
    net = biased(vgg5(10, (3, 16, 16), width=0.06, gain=6**0.5).double())
    x, y = examples((3, 16, 16), 3)
    monkeypatch.setitem(SOLVERS, "everywhere", EverywhereModPgd)
    for gates in ("held", "live"):
        for k in (1, 2, 4):
            both = [
                relax(net, x, Nudge(CrossEntropy(), y, 0.1), relax(net, x).state, solver=s, gates=gates,
                      max_iterations=k, tolerance=1e-15)
                for s in ("mod_pgd", "everywhere")
            ]  # fmt: skip
            for a, b in zip(both[0].displacement, both[1].displacement, strict=True):
                torch.testing.assert_close(a, b, atol=1e-16, rtol=1e-13)


def test_output_is_nudged_at_once_in_networks_of_odd_depth() -> None:
    """An odd output layer has its cost to answer before any even layer does: the state at rest is no
    equilibrium."""
    net = dense(5, "relu")
    x, y = examples()
    found = relax(net, x, Nudge(CrossEntropy(), y, 0.05), relax(net, x).state, solver="mod_pgd", max_iterations=200)
    assert found.iterations > 1
    assert float(found.displacement[0].abs().max()) > 0


@pytest.mark.parametrize(("cost", "most"), [(CrossEntropy(), (6, 8, 10)), (SquaredError(), (6, 8, 11))])
def test_sweeps_to_a_residual_of_1e_6(cost, most) -> None:
    """Depth 5, 10, 20 at beta 0.01, gain sqrt(3): 6, 8 and 10 sweeps (and the evaluation that certifies),
    Anderson no more."""
    for depth, limit in zip((5, 10, 20), most, strict=True):
        net = dense(depth, "tanh", width=128)
        x, y = examples(cost=cost)
        spent = {}
        for solver in ("sweep", "anderson"):
            found = relax(net, x, Nudge(cost, y, 0.01), relax(net, x).state, solver=solver, tolerance=1e-6)
            spent[solver] = found.require().iterations
        assert spent["sweep"] <= limit
        assert spent["anderson"] <= min(spent["sweep"], 8)


def test_state_at_rest_has_residual_one() -> None:
    """K = 1 with held gates is backprop, and no equilibrium: the residual must say so."""
    for activation in ("relu", "tanh"):
        net = dense(4, activation)
        x, y = examples()
        found = relax(net, x, Nudge(CrossEntropy(), y, 0.01), relax(net, x).state, max_iterations=1)
        assert found.status is Status.BUDGET
        assert bool((found.residual == 1).all())
        with pytest.raises(NotConverged):
            found.require()


def test_free_gates_do_not_settle_on_kinks() -> None:
    """With free gates and max pooling nudged states sit on kinks: the residual stalls and the status tells."""
    net = biased(vgg5(10, (3, 16, 16), width=0.06, gain=6**0.5).double())
    x, y = examples((3, 16, 16), 4)
    for solver in ("sweep", "mod_pgd"):
        found = relax(
            net,
            x,
            Nudge(CrossEntropy(), y, 0.5),
            relax(net, x).state,
            solver=solver,
            gates="live",
            max_iterations=60,
        )
        assert not bool(found.converged.all())
        assert float(found.residual.max()) > 1e-3


def test_paired_residual_knows_kinks() -> None:
    """With free gates and units that cross, paired units settle to 1e-6, where squared errors stall on kinks."""
    x, y = examples()
    found = {}
    for energy in ("paired", "squared"):
        net = dense(8, "relu", energy=energy, gates="live", width=64, gain=6**0.5)
        free = relax(net, x)
        found[energy] = relax(
            net, x, Nudge(CrossEntropy(), y, 0.01), free.state, tolerance=1e-6, max_iterations=200
        )
        crossed = sum(
            int(((s > 0) != (s0 > 0)).sum()) for s, s0 in zip(found[energy].state[:7], free.state[:7], strict=True)
        )
        assert crossed > 10
    assert bool(found["paired"].converged.all())
    assert float(found["squared"].residual.max()) > 1e-2


@pytest.mark.full
def test_simulated_flows_end_in_the_equilibria() -> None:
    """In time, paired units and gradient descent end where the solvers do; paired ones in tens of time
    constants."""
    x, y = examples(size=4)
    for energy, duration, steps in (("paired", 60.0, 240), ("squared", 300.0, 900)):
        net = dense(3, "tanh", energy=energy, width=12)
        free = relax(net, x)
        nudge = Nudge(CrossEntropy(), y, 0.05)
        exact = relax(net, x, nudge, free.state, tolerance=1e-12).require()
        course = simulate(net, x, duration, nudge=nudge, start=free.state, steps=steps)
        for path, s in zip(course.state, exact.state, strict=True):
            assert float((path[-1] - s).abs().max()) < 1e-10
        if energy == "squared":
            assert bool((course.energy.diff(dim=0) <= 1e-12).all())


def test_skew_flow_forgets_in_twice_the_depth() -> None:
    """Linearised at the free state with equal time constants, (tau J + I)^(2L) = 0: errors run down, predictions
    up."""
    net = dense(3, "tanh", energy="paired", width=5, n_in=4)
    x, _ = examples((4,), 1)
    phase = net.phase(net.prepare(x), relax(net, x).state)
    motion = own_motion(phase)
    zero = tuple(torch.zeros(1, *s, dtype=torch.float64) for s in (*net.shapes[1:], *net.shapes[1:]))
    sizes = [z.numel() for z in zero]

    def velocity(w: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            blocks = tuple(p.view_as(z) for p, z in zip(w.split(sizes), zero, strict=True))
            return torch.cat([v.flatten() for v in motion.velocity(blocks)])

    n, h = sum(sizes), 1e-6
    columns = [(velocity(h * e) - velocity(-h * e)) / (2 * h) for e in torch.eye(n, dtype=torch.float64)]
    shifted = torch.stack(columns, 1) + torch.eye(n, dtype=torch.float64)
    assert float(torch.linalg.matrix_power(shifted, 4).abs().max()) > 1e-6
    assert float(torch.linalg.matrix_power(shifted, 6).abs().max()) < 1e-9


def test_bad_requests_are_refused() -> None:
    """Solvers that do not fit, unknown options and gates: one line that says what would do."""
    x, y = examples()
    nudge = Nudge(CrossEntropy(), y, 0.05)
    tanh, paired = dense(3, "tanh"), dense(3, "relu", energy="paired")
    with pytest.raises(InputError, match="slope twice"):
        relax(tanh, x, nudge, relax(tanh, x).state, solver="mod_pgd")
    for solver in ("pgd", "mod_pgd", "gradient_flow"):
        with pytest.raises(InputError, match="paired energy"):
            relax(paired, x, nudge, relax(paired, x).state, solver=solver)
    with pytest.raises(InputError, match=r"gates must be one of .*'freee'"):
        relax(tanh, x, nudge, gates="freee")
    with pytest.raises(InputError, match=r"'gate'.*'gates'"):
        relax(tanh, x, nudge, gate="live")
    with pytest.raises(InputError, match="solver"):
        relax(tanh, x, nudge, solver="newton_krylov")
    with pytest.raises(InputError, match="max_iterations"):
        relax(tanh, x, nudge, max_iterations=0)


@pytest.mark.parametrize(("former", "name"), [("frozen", "held"), ("free", "live")])
def test_former_names_of_gates_mean_the_same(former: str, name: str) -> None:
    """Scripts and files that say 'frozen' or 'free' go on meaning what they meant."""
    assert dense(3, "relu", gates=former).gates == name
    net = dense(3, "relu")
    net.gates = former
    assert pickle.loads(pickle.dumps(net)).gates == name
    x, y = examples(cost=SquaredError())
    nudge = Nudge(SquaredError(), y, beta=0.1)
    then, now = (relax(net, x, nudge, gates=gates, max_iterations=5) for gates in (former, name))
    assert all(torch.equal(a, b) for a, b in zip(then.state, now.state, strict=True))
    with pytest.raises(InputError, match="gates must be one of held, live, but was 'hold'"):
        relax(net, x, gates="hold")
