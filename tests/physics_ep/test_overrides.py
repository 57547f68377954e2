"""Subclasses that override the physics of a built-in system are relaxed as what they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from hardware_models import (
    AnalogHopfieldCircuit,
    Circuit,
    HopfieldNetwork,
    OscillatorGraph,
    OscillatorNetwork,
    ResistiveNetwork,
    map_pcn,
)
from physics_ep import EnergySystem, EquilibriumPropagation, SquaredError, relax, simulate
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import estimate_gradient
from physics_ep.estimators.thermal import StochasticEquilibriumPropagation
from physics_ep.overrides import PHYSICS
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp
from physics_ep.system import Inputs, Phase
from tests.support.systems import Quartic, batch
from validation import bptt_gradient, check_system, finite_difference_gradient, implicit_gradient
from validation.gradients import total_error


class Lateral(HopfieldNetwork):
    """Trained couplings within the hidden layer, which exact updates of whole layers do not know."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        n = self.sizes[1]
        generator = torch.Generator().manual_seed(5)
        self.lateral = nn.Parameter(0.1 * torch.randn(n, n, generator=generator, dtype=torch.float64))

    def energy(self, state, x):
        (s, _) = state
        return super().energy(state, x) + 0.5 * ((s @ (self.lateral + self.lateral.t())) * s).sum(1)


class Hidden(HopfieldNetwork):
    def outputs(self, state):
        return state[0][:, :3]


class Tight(HopfieldNetwork):
    def project(self, state):
        return tuple(s.clamp(-0.05, 0.05) for s in super().project(state))


class Loaded(ResistiveNetwork):
    def energy(self, state, x):
        return super().energy(state, x) + 0.5 * self.nudge_scale * state[-1].square().sum(1)


class Fielded(OscillatorNetwork):
    def energy(self, state, x):
        return super().energy(state, x) - 0.3 * state[0].sin().sum(1)


class Decayed(PredictiveCodingNetwork):
    def energy(self, state, x):
        return super().energy(state, x) + 0.05 * sum(s.square().sum(1) for s in state)


SYSTEMS = {
    "Lateral": lambda: Lateral([4, 5, 3], "tanh"),
    "Hidden": lambda: Hidden([4, 5, 3], "tanh"),
    "Tight": lambda: Tight([4, 5, 3], "tanh"),
    "Loaded": lambda: Loaded([4, 5, 3]),
    "Fielded": lambda: Fielded([4, 5, 3]),
    "Decayed": lambda: Decayed(list(mlp([4, 5, 3], activation="tanh").layers)),
}


def test_a_lateral_term_moves_equilibrium_and_gradient() -> None:
    """E is quadratic: the state solves linear equations, and autograd through the solve is the gradient."""
    system = Lateral([4, 5, 3], "linear", output_activation="linear").double()
    x, y = batch(4, 3, 5)
    w1, w2 = (layer.weight for layer in system.couplings)
    b1, b2 = (layer.bias for layer in system.couplings)
    k = torch.eye(8, dtype=torch.float64)
    upper = torch.cat([torch.eye(5, dtype=torch.float64) + system.lateral + system.lateral.t(), -w2.t()], 1)
    lower = torch.cat([-w2, k[5:, 5:]], 1)
    drive = torch.cat([x @ w1.t() + b1, b2.expand(5, 3)], 1)
    want = torch.linalg.solve(torch.cat([upper, lower]), drive.t()).t()
    loss = SquaredError()(want[:, 5:], y).mean()
    named = dict(system.named_parameters())
    exact = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    free = relax(system, x).require()
    assert float((torch.cat(free.state, 1) - want.detach()).abs().max()) < 1e-9
    estimate, _ = estimate_gradient(EquilibriumPropagation(SquaredError(), beta=1e-4), system, x, y)
    assert total_error(estimate, exact) < 1e-6
    assert float(exact["lateral"].norm()) > 1e-3


@pytest.mark.full
@pytest.mark.parametrize("name", SYSTEMS)
def test_what_is_overridden_is_followed(name: str) -> None:
    """The old system's equilibrium would be called converged with a true force of 0.6, or nudged elsewhere."""
    torch.manual_seed(0)
    system = SYSTEMS[name]().double()
    x, y = batch(4, 3, 2)
    x, y = 0.5 * x, 0.5 * y
    free = relax(system, x).require()
    state = tuple(s.clone().requires_grad_() for s in free.state)
    slope = torch.autograd.grad(system.energy(state, x).sum(), state)
    landed = system.project(tuple(s - g for s, g in zip(state, slope, strict=True)))
    force = max(float((a - b).detach().abs().max()) for a, b in zip(landed, state, strict=True))
    assert force <= 1e-9 * max(1.0, system.residual_scale)
    ep = EquilibriumPropagation(SquaredError(), beta=1e-4 * system.nudge_scale)
    estimate, _ = estimate_gradient(ep, system, x, y)
    exact = implicit_gradient(system, x, y, SquaredError())
    assert total_error(estimate, exact) < 1e-5
    assert max(float(g.norm()) for g in exact.values()) > 0


def test_only_what_no_longer_fits_is_replaced() -> None:
    """A subclass that overrides nothing, or brings its own, must stay as fast as it was."""

    class Same(HopfieldNetwork):
        pass

    class Declared(Lateral):
        fast_methods_hold = True

        def energy(self, state, x):
            return super().energy(state, x)

    class Learning(HopfieldNetwork):
        fast_methods_hold = ("contrast",)

        def energy(self, state, x):
            return super().energy(state, x) + state[0].square().sum(1)

    class Heir(Declared):
        def outputs(self, state):
            return 2 * super().outputs(state)

    class Own(HopfieldNetwork):
        def energy(self, state, x):
            return super().energy(state, x)

        def phase(self, inputs, origin=None, balanced=False):
            return Phase(self, inputs, origin, balanced)

    def general(kind):
        return {m for m in ("phase", "force", "contrast") if getattr(kind, m) is getattr(EnergySystem, m)}

    assert general(Same) == set()
    assert Same.overridden == ()
    assert general(Lateral) == {"phase", "force", "contrast"}
    assert Lateral.overridden == ("energy",)
    assert general(Hidden) == {"phase"}
    assert general(Learning) == {"phase", "force"}
    assert general(Own) == {"force", "contrast"}
    assert general(Heir) == {"phase", "force", "contrast"}
    assert (Lateral.clamps, Lateral.bounded, Decayed.feedforward) == (False, True, False)
    assert (Decayed.default_oracle, Decayed.relative_residual) == ("implicit", False)
    assert not Lateral([4, 5, 3], "tanh").analytic


def test_a_vouched_subclass_keeps_its_fast_methods() -> None:
    """An override that changes nothing of the physics (a log, a check) may say so."""

    class Logged(HopfieldNetwork):
        fast_methods_hold = True

        def energy(self, state, x):
            return super().energy(state, x)

    assert {m for m in ("phase", "force", "contrast") if m in vars(Logged)} == set()
    assert Logged([4, 5, 3]).phase(Logged([4, 5, 3]).prepare(torch.zeros(2, 4))).exact_updates


def test_default_masks_of_bounded_variables_are_those_of_the_units() -> None:
    """Held variables left in the adjoint equations would give the implicit oracle a gradient that is not there."""
    system = HopfieldNetwork([4, 5, 3], "hard_sigmoid", gain=2.0).double()
    x, _ = batch(4, 3, 8)
    free = relax(system, 2 * x, tolerance=1e-13).require()
    want = system.free_variables(free.state, 2 * x)
    found = EnergySystem.free_variables(system, free.state, 2 * x)
    assert not all(bool(m.all()) for m in want)
    for a, b in zip(want, found, strict=True):
        assert torch.equal(a, b)


def test_overrides_that_cannot_be_followed_are_refused() -> None:
    """A method set on an instance is unknown to phases and copies; a mapping holds the network's own energy."""
    system = HopfieldNetwork([4, 5, 3])
    with pytest.raises(InputError, match="Argument energy of a HopfieldNetwork must be overridden by a subclass"):
        system.energy = lambda state, x: state[0].sum(1)
    net = SYSTEMS["Decayed"]().double()
    with pytest.raises(InputError, match="Decayed, which overrides energy"):
        map_pcn(net, "hopfield")


def test_parts_and_graphs_hold_no_overridden_energy(tmp_path) -> None:
    """A circuit, graph or netlist of a subclass holds the ancestor's energy or outputs and says nothing, even of a
    class that vouches for its fast methods."""

    class Damped(ResistiveNetwork):
        def energy(self, state, x):
            return super().energy(state, x) + state[0].square().sum(1)

    class Vouched(HopfieldNetwork):
        fast_methods_hold = True

        def energy(self, state, x):
            return super().energy(state, x) + 0.1

    class Shifted(OscillatorNetwork):
        def outputs(self, state):
            return super().outputs(state) + 1

    class Biased(Circuit):
        def energy(self, state, x):
            return super().energy(state, x) + 1

    parts = ResistiveNetwork([3, 4, 2], scale=1.0).to_circuit().parts
    tries = (
        (lambda: Damped([3, 4, 2]).to_circuit(), "Damped, which overrides energy"),
        (lambda: Hidden([4, 5, 3]).to_circuit(), "Hidden, which overrides outputs"),
        (lambda: Vouched([4, 5, 3]).to_circuit(), "Vouched, which overrides energy"),
        (lambda: AnalogHopfieldCircuit.from_network(Hidden([4, 5, 3])), "Hidden, which overrides outputs"),
        (lambda: OscillatorGraph.from_network(Shifted([4, 5, 3])), "Shifted, which overrides outputs"),
        (lambda: Biased(parts, outputs=["y1"]).to_netlist(tmp_path / "a.cir"), "Biased, which overrides energy"),
    )
    for build, said in tries:
        with pytest.raises(InputError, match=said):
            build()
    assert not list(tmp_path.iterdir())


class Mixin:
    """Plain class in front of a system's."""

    def project(self, state):
        return super().project(state)


@pytest.mark.parametrize("part", [part for part in PHYSICS if hasattr(EnergySystem, part)])
@pytest.mark.parametrize("place", ["own", "parent", "mixin"])
def test_physics_set_on_a_class_after_it_was_made_is_refused(place: str, part: str, monkeypatch) -> None:
    """As a notebook does: phases were those of the old energy, and their states converged with a force of 0.8."""

    class Parent(HopfieldNetwork):
        pass

    class Child(Mixin, Parent):
        pass

    x, y = batch(3, 2, 4)
    patched = {"own": Child, "parent": Parent, "mixin": Mixin}[place]
    monkeypatch.setattr(patched, part, getattr(EnergySystem, part), raising=False)
    late = type("Late", (Child,), {})  # made after: its fast methods are those of the class that was changed
    for kind in (Child, late):
        system = kind([3, 4, 2]).double()
        for use in (
            lambda system=system: relax(system, x),
            lambda system=system: EquilibriumPropagation(SquaredError()).backward(system, x, y),
            lambda system=system: simulate(system, x, duration=0.1),
            lambda system=system: bptt_gradient(system, x, y, SquaredError(), iterations=2),
        ):
            with pytest.raises(InputError, match=f"{part} of a {kind.__name__} must be overridden by a subclass"):
                use()
    monkeypatch.undo()
    assert relax(Child([3, 4, 2]).double(), x).status.settled


class Centred(Quartic):
    """Hands on another input than it is given."""

    def prepare(self, x):
        return Inputs(x - x.mean(1, keepdim=True))


class HalfIn(HopfieldNetwork):
    def prepare(self, x):
        return super().prepare(x - 0.5)


class HalfLater(HopfieldNetwork):
    def phase(self, inputs, origin=None, balanced=False):
        return super().phase(super().prepare(inputs.x - 0.5), origin, balanced)


@pytest.mark.parametrize("kind", [Centred, HalfIn, HalfLater])
def test_another_input_on_the_way_to_the_phase_is_refused(kind: type) -> None:
    """Phases relaxed on it, contrasts and oracles had the raw one: a cosine of 1.0 to a gradient that is wrong."""
    system: EnergySystem = kind() if kind is Centred else kind([4, 5, 2], "tanh").double()
    x, y = batch(4, 2, 4)
    for use in (
        lambda: relax(system, x),
        lambda: EquilibriumPropagation(SquaredError()).backward(system, x, y),
        lambda: simulate(system, x, duration=0.1),
        lambda: bptt_gradient(system, x, y, SquaredError(), iterations=2),
        lambda: implicit_gradient(system, x, y, SquaredError()),
        lambda: check_system(system, x, y),
        lambda: StochasticEquilibriumPropagation(SquaredError(), beta=0.1, temperature=0).estimate(system, x, y),
    ):
        with pytest.raises(InputError, match=r"unbounded|must relax on the x that it is given") as told:
            use()
        assert "must relax" in str(told.value) or system.bounded


class CachedHalf(HopfieldNetwork):
    """The drive that phases share is that of another input."""

    def prepare(self, x):
        return replace(super().prepare(x - 0.5), x=x)


class Copied(HopfieldNetwork):
    def prepare(self, x):
        return super().prepare(x.clone())


@pytest.mark.parametrize("kind", [CachedHalf, Copied])
def test_what_a_subclass_prepares_does_not_hide_its_energy(kind: type) -> None:
    """Equilibria and gradients are those of the energy at x, against differences of the cost of relaxed states."""
    torch.manual_seed(0)
    system = kind([2, 3, 1], "tanh", gain=0.5).double()
    x, y = batch(2, 1, 2)
    EquilibriumPropagation(SquaredError(), beta=1e-3).backward(system, x, y)
    plain = HopfieldNetwork([2, 3, 1], "tanh", gain=0.5).double()
    plain.load_state_dict(system.state_dict())
    exact = finite_difference_gradient(plain, x, y, SquaredError())
    for name, p in system.named_parameters():
        torch.testing.assert_close(p.grad, exact[name], rtol=1e-4, atol=1e-7)
