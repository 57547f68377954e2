"""`check_system` must pass sound systems and name what a broken one breaks."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch

from hardware_models import HopfieldNetwork, OscillatorNetwork
from physics_ep import EnergySystem, SquaredError
from physics_ep.blocks import largest
from physics_ep.cost import CrossEntropy
from physics_ep.errors import InputError
from physics_ep.estimators import propagation
from physics_ep.system import Phase
from tests.support.systems import Quartic, batch, network
from validation import check_system, system_checks
from validation.oracles import Gradients


@pytest.mark.parametrize("output", ["linear", "hard_sigmoid"])
@pytest.mark.parametrize("activation", ["hard_sigmoid", "tanh", "logistic", "linear"])
def test_hopfield_networks_pass(activation: str, output: str) -> None:
    """Our own substrate keeps every invariant, with both costs."""
    system = network(activation, (5, 6, 4, 3), output_activation=output)
    x, y = batch(5, 3, 4)
    check_system(system, x, y)
    if output == "linear":
        check_system(system, x, torch.tensor([0, 2, 1, 1]))


def test_a_users_system_passes() -> None:
    """Three methods, all else by default."""
    check_system(Quartic(), *batch(4, 2, 4))


def test_a_trained_readout_passes() -> None:
    """Outputs with weights and an offset of their own are within the contract."""
    check_system(TrainedReadout(), *batch(4, 2, 4))


@pytest.mark.full
def test_a_system_in_small_units_passes() -> None:
    """Energies of 1e-8 units, no declared scale: units must not matter to any of the checks."""
    check_system(Small(), *batch(4, 2, 4))


class UnheardOutputs(HopfieldNetwork):
    fast_methods_hold = True  # they do not: a nudge pulls at the last layer

    def outputs(self, state):
        return state[0][:, :3]


class UnheardEnergy(HopfieldNetwork):
    fast_methods_hold = True

    def energy(self, state, x):
        return super().energy(state, x) + 0.1 * state[0][:, 0] * state[0][:, 1]


@pytest.mark.parametrize(
    ("kind", "words"),
    [(UnheardOutputs, "no force left under E"), (UnheardEnergy, "force must be -dE/ds: it disagrees")],
)
def test_overridden_methods_that_phases_do_not_know_are_named(kind, words: str) -> None:
    """A subclass that vouches for fast methods in vain relaxes to the equilibria of another system."""
    system = kind([4, 5, 3], "tanh").double()
    with pytest.raises(AssertionError, match=words):
        check_system(system, *batch(4, 3, 4))


class WrongForce(Quartic):
    def force(self, state, x):
        return tuple(2 * f for f in super().force(state, x))


class WrongShape(Quartic):
    def energy(self, state, x):
        return super().energy(state, x).sum()


class SharedEnergy(Quartic):
    def energy(self, state, x):
        return super().energy(state, x) + 0.1 * state[0].mean()


class ColumnEnergy(Quartic):
    def energy(self, state, x):
        return super().energy(state, x)[:, None]


class TrainedReadout(Quartic):
    """Sound: a readout with weights and an offset of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.read = torch.nn.Parameter(0.3 + torch.arange(12, dtype=torch.float64).view(2, 6).sin())
        self.offset = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))

    def outputs(self, state):
        return state[0] @ self.read.t() + self.offset


class DetachedReadout(TrainedReadout):
    def outputs(self, state):
        return state[0] @ self.read.detach().t() + self.offset


class BentOutputs(Quartic):
    def outputs(self, state):
        return super().outputs(state).tanh()


class Small(Quartic):
    """Sound: energies of 1e-8 units."""

    def energy(self, state, x):
        return 1e-8 * super().energy(state, x)


class WrongScale(Small):
    residual_scale = 1.0


class SmallWrongForce(Small):
    residual_scale = 1e-8

    def force(self, state, x):
        return tuple(1.01 * f for f in super().force(state, x))


class SmallSharedEnergy(Small):
    def energy(self, state, x):
        return super().energy(state, x) + 1e-12 * state[0].mean()


class AbsoluteTolerance(Quartic):
    """Any force below 1e-6 counts as none."""

    def force(self, state, x):
        return tuple(torch.where(f.abs() < 1e-6, 0.0 * f, f) for f in super().force(state, x))


class WrongContrast(Quartic):
    def contrast(self, free, plus, minus, x, weight):
        return {n: 0.5 * g for n, g in super().contrast(free, plus, minus, x, weight).items()}


class MissingContrast(Quartic):
    def contrast(self, free, plus, minus, x, weight):
        return {"w": super().contrast(free, plus, minus, x, weight)["w"]}


class Unbounded(Quartic):
    def energy(self, state, x):
        return super().energy(state, x) - 0.2 * state[0].pow(4).sum(1)


class LeakyProjection(Quartic):
    def project(self, state):
        return tuple(0.9 * s for s in state)


class SilentProjection(Quartic):
    bounded = False

    def project(self, state):
        return tuple(s.clamp(-0.1, 0.1) for s in state)


def test_capabilities_are_declared_or_follow_from_the_methods() -> None:
    """A system that says nothing of what it overrides must not lose its bounds, its clamps or its forward pass."""

    class Clipping:
        """Bounds from a class that is no system."""

        def project(self, state):
            return tuple(s.clamp(-1, 1) for s in state)

    class Mixed(Clipping, Quartic):
        pass

    class Own(Quartic):
        def phase(self, inputs, origin=None, balanced=False):
            return Phase(self, inputs, origin, balanced)

        def forward(self, x):
            return self.outputs(self.initial_state(x))

    class Unclamped(Own):
        clamps = False

        def phase(self, inputs, origin=None, balanced=False):
            return super().phase(inputs, origin, balanced)

    class Heir(Unclamped):
        def phase(self, inputs, origin=None, balanced=False):
            return super().phase(inputs, origin, balanced)

    def flags(kind):
        return kind.bounded, kind.clamps, kind.feedforward

    assert flags(Quartic) == (False, False, False)
    assert flags(Mixed) == flags(LeakyProjection) == (True, False, False)
    assert flags(SilentProjection) == (False, False, False)
    assert flags(Own) == (False, True, True)
    assert flags(Unclamped) == flags(Heir) == (False, False, True)


@pytest.mark.parametrize(
    ("system", "words"),
    [
        (WrongForce, "force must be -dE/ds"),
        (WrongShape, r"energy must have shape \(4,\)"),
        (SharedEnergy, "batch independence"),
        (ColumnEnergy, r"energy must have shape \(4,\), but has \(4, 1\)"),
        (BentOutputs, "outputs must be linear in the state up to an offset"),
        (DetachedReadout, "must agree with the cost of relaxed states"),
        (WrongScale, "residual_scale must be of the size of the system's forces, but is 1 where they are"),
        (SmallWrongForce, "force must be -dE/ds"),
        (SmallSharedEnergy, "batch independence"),
        (AbsoluteTolerance, "must agree with the cost of relaxed states"),
        (WrongContrast, "contrast of w must be the change of dE/dtheta"),
        (MissingContrast, "u is missing"),
        (Unbounded, "relaxation must reach a residual"),
        (LeakyProjection, "project must leave"),
        (SilentProjection, "bounded must be True"),
    ],
)
def test_broken_systems_are_named(system, words: str) -> None:
    """Each class breaks one invariant; the message names that one."""
    with pytest.raises(AssertionError, match=words):
        check_system(system(), *batch(4, 2, 4))


def _wrong_sign(monkeypatch) -> None:
    right = HopfieldNetwork.contrast
    monkeypatch.setattr(
        HopfieldNetwork, "contrast", lambda self, *a: {n: -g for n, g in right(self, *a).items()}, raising=True
    )


def _missing_half(monkeypatch) -> None:
    from hardware_models.layers import layered

    right = layered.Dense.contrast

    def wrong(self, e_post, m_post, e_pre, m_pre, route=None):
        return right(self, e_post, 2 * m_post, e_pre, m_pre if e_pre is None else 2 * m_pre)

    monkeypatch.setattr(layered.Dense, "contrast", wrong)


def _swapped_transpose(monkeypatch) -> None:
    from hardware_models.layers import layered

    # On a square layer the shapes cannot tell.
    def wrong(self, s, route=None, onto=0.0):
        return onto + s @ self.weight.t()

    monkeypatch.setattr(layered.Dense, "transpose", wrong)


def _unprojected_force(monkeypatch) -> None:
    from hardware_models.layers import layered

    right = layered.LayeredPhase.update

    def wrong(self, k, z):
        if self.origin is None and k < self.depth - 1:
            drive = self.inputs.cache if k == 0 else self.layers[k].biased(z[k - 1])
            return drive + z[k + 1] @ self.layers[k + 1].weight
        return right(self, k, z)

    monkeypatch.setattr(layered.LayeredPhase, "update", wrong)


def _stale_state(monkeypatch) -> None:
    from physics_ep.estimators import propagation as estimator

    right = estimator.relax_nudged

    def wrong(recipe, base, *args):
        phases = right(recipe, base, *args)
        # The second phase keeps what the first one left behind.
        first = next(iter(phases.values()))
        return dict.fromkeys(phases, first)

    monkeypatch.setattr(estimator, "relax_nudged", wrong)


def test_residuals_in_the_units_of_the_energy_are_caught(monkeypatch) -> None:
    """With a residual that is the bare force, a system in small units has converged wherever it stands."""
    monkeypatch.setattr(Phase, "residual", lambda self, force: largest(force))
    with pytest.raises(
        AssertionError, match="units: with 1e-08 times its energy the system must relax to the same"
    ):
        check_system(Quartic(), *batch(4, 2, 4))


def test_a_lost_direct_dependence_is_caught(monkeypatch) -> None:
    """EP without the cost's own derivative leaves a readout untrained."""
    monkeypatch.setattr(propagation, "direct_gradient", lambda *_: {})
    with pytest.raises(AssertionError, match="must approach implicit differentiation"):
        check_system(TrainedReadout(), *batch(4, 2, 4))


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (_wrong_sign, "contrast of .* must be the change"),
        (_missing_half, "contrast of .* must be the change"),
        (_swapped_transpose, "force must be -dE/ds"),
        (_unprojected_force, "within the bounds"),
        (_stale_state, "EP .* must a"),
    ],
)
def test_planted_bugs_are_caught(plant, words: str, monkeypatch) -> None:
    """The five classic bugs of an EP code, each planted and caught (the list stands in docs/planted_bugs.md)."""
    system = network("hard_sigmoid", (5, 6, 6, 6))
    x, y = batch(5, 6, 4)
    x = 3 * x
    check_system(system, x, y)
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=words):
        check_system(system, x, y)


@pytest.mark.parametrize(
    "labels",
    [
        [0, 2, 1, 1],
        (0, 2, 1, 1),
        np.array([0, 2, 1, 1]),
        torch.tensor([0, 2, 1, 1], dtype=torch.uint8),
        torch.tensor([0, 2, 1, 1], dtype=torch.int16),
        torch.tensor([False, True, True, False]),
    ],
)
def test_labels_of_any_kind_are_class_indices(labels, monkeypatch) -> None:
    """They are judged as int64 ones are: what comes first of all that is done with them."""
    seen = []
    monkeypatch.setattr(system_checks, "_check_scale", lambda *given: None)
    monkeypatch.setattr(system_checks, "_check_outputs", lambda *given: seen.append(given[2:4]))
    monkeypatch.setattr(system_checks, "_check_force", lambda *given: 1 / 0)
    system = network("tanh", (5, 4, 3))
    with pytest.raises(ZeroDivisionError):
        check_system(system, batch(5, 3, 4)[0], labels)
    y, cost = seen[0]
    assert y.dtype == torch.int64
    assert y.tolist() == [int(label) for label in labels]
    assert isinstance(cost, CrossEntropy)


def test_targets_that_do_not_fit_are_refused_before_anything_is_checked() -> None:
    x = batch(5, 3, 4)[0]
    for y in ([0, 1, 2, 3], [[0], [1], [2], [1]], [0, 1], torch.zeros(4, 2), [0.0, 1.0, 2.0, 1.0]):
        with pytest.raises(InputError, match="Argument y must"):
            check_system(network("tanh", (5, 4, 3)), x, y)


class Normalised(Quartic):
    """Of an input that a batch norm normalises."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4, dtype=torch.float64)

    def energy(self, state, x):
        return super().energy(state, self.norm(x))


class SharedNormalised(Normalised):
    def energy(self, state, x):
        together = super().energy(state, x)
        return together + 0.1 * state[0][:, 0] * state[0][:, 0].mean()


@pytest.mark.full
@pytest.mark.parametrize("statistics", ["training", "eval", "none"])
def test_a_batch_norm_of_the_input_passes(statistics: str) -> None:
    """In training mode too, or without running statistics: a batch of one is then no part of the batch."""
    system = Normalised().train(statistics == "training")
    if statistics == "none":
        system.norm = torch.nn.BatchNorm1d(4, dtype=torch.float64, track_running_stats=False)
    check_system(system, *batch(4, 2, 4))


def test_states_that_see_each_other_are_named_beside_a_batch_norm() -> None:
    with pytest.raises(AssertionError, match="batch independence"):
        check_system(SharedNormalised(), *batch(4, 2, 4))


class Offset(Quartic):
    """Outputs far from targets near 0."""

    def outputs(self, state):
        return super().outputs(state) + 100.0


class Leaning(OscillatorNetwork):
    """An overridden energy: relaxed by the general methods, with outputs that are cosines."""

    def energy(self, state, x):
        return super().energy(state, x) + 0.05 * sum((1 - phase.cos()).sum(1) for phase in state)


class Mirrored(EnergySystem):
    """Its one parameter stiffens a state that rests at zero, so that its gradient is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.b = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def energy(self, state, x):
        return 0.5 * state[0].square().sum(1) + 0.25 * self.b * (state[0] ** 4).sum(1)

    def initial_state(self, x):
        return (torch.full((len(x), 2), 0.1, dtype=self.dtype),)

    def outputs(self, state):
        return state[0]


UNUSUAL = {
    "offset": (Offset, 1.0),
    "oscillators": (lambda: Leaning([4, 3, 2]).double(), 1.0),
    "mirrored": (Mirrored, 1.0),
    "mirrored, at its target": (Mirrored, 0.0),
}


@pytest.mark.full
@pytest.mark.parametrize("name", UNUSUAL)
def test_right_systems_of_unusual_size_pass(name: str) -> None:
    """They were said to miss their order, to need linear outputs, and to have an error of 3e9."""
    torch.manual_seed(0)
    make, factor = UNUSUAL[name]
    x, y = batch(4, 2, 4)
    check_system(make(), x, factor * y)


def test_a_wrong_gradient_in_the_place_of_zero_is_seen() -> None:
    """What is called nothing is far below what an error of the physics gives."""
    x, y = batch(4, 2, 4)
    system = Mirrored()
    exact = Gradients(b=torch.zeros((), dtype=torch.float64))
    wrong = {"b": torch.tensor(1e-3, dtype=torch.float64)}, None
    with (
        mock.patch.object(system_checks, "estimate_gradient", return_value=wrong),
        pytest.raises(AssertionError, match="whose gradient is zero"),
    ):
        system_checks._check_order(system, x, y, SquaredError(), exact, 1.0, 1.0, 0.3)
