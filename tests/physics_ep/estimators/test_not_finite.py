"""NaN and infinity: nowhere a converged state, a loss or a gradient, whatever the path; see `NotFinite`."""

from __future__ import annotations

import math
import re
import warnings

import pytest
import torch

from hardware_models import AnalogHopfieldCircuit, HopfieldNetwork, OscillatorNetwork, ResistiveNetwork
from hardware_models.mapping import map_pcn
from physics_ep import (
    CrossEntropy,
    EquilibriumPropagation,
    NotConverged,
    SquaredError,
    Status,
    relax,
    simulate,
)
from physics_ep.blocks import State
from physics_ep.equilibrium import NotFinite
from physics_ep.errors import InputError
from physics_ep.estimators.backprop import Backprop
from physics_ep.estimators.propagation import LOOK_EVERY, UnconvergedWarning
from physics_ep.estimators.thermal import StochasticEquilibriumPropagation
from physics_ep.landscape.branches import is_minimum, smallest_curvature
from physics_ep.nudging import Nudge
from physics_ep.predictive_coding import mlp
from physics_ep.runs.training import TrainingStoppedError, train
from physics_ep.weights import Weights
from tests.support.device_systems import CASES
from tests.support.pcn import examples
from tests.support.systems import Quadratic, Quartic, batch
from validation.oracles import ORACLES, bptt_gradient

SHORT = ("training.epochs=2", "data.train_examples=96")


def network(activation: str = "tanh", energy: str = "squared"):
    """A small float32 network; ReLUs and the squared energy keep no pre-activations."""
    torch.manual_seed(0)
    return mlp([4, 6, 3], activation=activation, energy=energy)


X = torch.linspace(-1, 1, 20).view(5, 4)
Y = torch.tensor([0, 1, 2, 0, 1])


class Hidden(Quartic):
    """Its force does not feel one of the variables, so that NaN in it leaves no residual."""

    def force(self, state: State, x: torch.Tensor) -> State:
        (force,) = super().force((state[0].nan_to_num(0.0),), x)
        return (torch.cat([force[:, :5], torch.zeros_like(force[:, 5:])], 1),)

    def initial_state(self, x: torch.Tensor) -> State:
        start = super().initial_state(x)[0]
        start[1, 5] = math.nan
        return (start,)


class CliffError(SquaredError):
    """Infinite for the examples whose first target is above one half."""

    name = "cliff"

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return super().__call__(outputs, y).masked_fill(y[:, 0] > 0.5, math.inf)


# -- states --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(("activation", "energy"), [("relu", "squared"), ("tanh", "squared"), ("relu", "paired")])
def test_a_forward_pass_that_is_not_finite_is_no_equilibrium(activation: str, energy: str, bad: float) -> None:
    """A network with one NaN weight would be CONVERGED with residual 0, and train on."""
    net = network(activation, energy)
    assert relax(net, X).status is Status.CONVERGED
    with torch.no_grad():
        net.layers[0].bias[2] = bad
    found = relax(net, X)
    assert found.status is Status.NOT_FINITE
    assert not bool(found.converged.any())
    assert bool(found.residual.isnan().all())


@pytest.mark.parametrize("substrate", ["hopfield", "resistive", "oscillator"])
def test_a_mapped_network_that_is_not_finite_is_no_equilibrium(substrate: str) -> None:
    """Weights that have become NaN after the mapping: in all three substrates, by EP too."""
    torch.manual_seed(0)
    mapped = map_pcn(mlp([4, 6, 3], activation="hard_sigmoid"), substrate)
    x = X.abs()
    assert relax(mapped.system, x).status is Status.CONVERGED
    with torch.no_grad():
        mapped.system.layers[0].weight[1, 2] = math.nan
    assert relax(mapped.system, x).status is Status.NOT_FINITE
    with pytest.raises(NotConverged):
        mapped.gradient(x, Y, CrossEntropy(), beta=0.01)


def test_one_example_that_overflows_does_not_speak_for_the_others() -> None:
    """The batch has NaN in one row: with 'skip' the gradient is that of the other rows, to rounding."""
    net = network("relu").double()
    x, y = examples((4,), 5, n_out=3)
    wild = x.clone()
    wild[3] = 1e308
    with torch.no_grad():
        net.layers[0].weight.mul_(10)
    rest = torch.tensor([0, 1, 2, 4])
    ep = EquilibriumPropagation(CrossEntropy(), beta=1e-3, on_unconverged="skip")
    step = ep.backward(net, wild, y)
    found = [p.grad.clone() for p in net.parameters()]
    assert step.skipped == 1
    assert step.equilibria[0].residual[3].isnan()
    net.zero_grad()
    other = EquilibriumPropagation(CrossEntropy(), beta=1e-3).backward(net, x[rest], y[rest])
    assert step.loss == pytest.approx(float(other.loss), rel=1e-12)
    for g, p in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(g, p.grad, rtol=1e-9, atol=1e-12)


def test_finite_states_whose_sum_overflows_are_finite() -> None:
    """The quick look adds a state up; 1e308 twice is still a number."""
    net = mlp([1, 2, 2], activation="linear").double()
    with torch.no_grad():
        for layer in net.layers:
            layer.weight.fill_(1e308)
            layer.bias.zero_()
        net.layers[1].weight.fill_(0.25)
    assert relax(net, torch.ones(2, 1, dtype=torch.float64)).status is Status.CONVERGED


def test_a_force_that_does_not_feel_nan_does_not_hide_it() -> None:
    """The solver sees a small residual; the state has NaN in it all the same."""
    found = relax(Hidden(), batch(4, 2, 3)[0])
    assert found.status is Status.NOT_FINITE
    assert found.converged.tolist() == [True, False, True]


def test_a_start_of_nan_is_refused() -> None:
    """Networks that are solved by construction do not look at the start, and would answer as if it were none."""
    net = network()
    with pytest.raises(InputError, match="start must be finite"):
        relax(net, X, start=tuple(s * math.nan for s in net.initial_state(X)))


# -- costs and gradients -------------------------------------------------------------------------------------------


def test_an_infinite_cost_is_no_loss_of_zero() -> None:
    """'raise' names it, 'skip' and 'warn' leave the example out and count it."""
    system = Quartic()
    x, y = batch(4, 2, 4)
    wild = y[:, 0] > 0.5
    count = int(wild.sum())
    assert 0 < count < 4
    with pytest.raises(NotFinite, match="the loss of Quartic"):
        EquilibriumPropagation(CliffError()).backward(system, x, y)
    assert all(p.grad is None for p in system.parameters())
    # Far below the default: descent takes steps of another length in another batch.
    tight = {"tolerance": 1e-13}
    right = EquilibriumPropagation(SquaredError(), **tight).backward(system, x[~wild], y[~wild])
    expected = system.w.grad.clone()
    for mode in ("skip", "warn"):
        system.zero_grad()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            step = EquilibriumPropagation(CliffError(), on_unconverged=mode, **tight).backward(system, x, y)
        assert step.skipped == count
        assert float(step.loss) == pytest.approx(float(right.loss), rel=1e-9)
        torch.testing.assert_close(system.w.grad, expected, rtol=1e-8, atol=1e-12)
        assert len(told) == (mode == "warn")
    assert f"{count} of 4" in str(told[0].message)


def test_a_batch_without_equilibria_has_no_loss() -> None:
    """A loss of 0 would look like a perfect fit."""
    net = network()
    with torch.no_grad():
        net.layers[0].weight.fill_(math.nan)
    step = EquilibriumPropagation(CrossEntropy(), on_unconverged="skip").backward(net, X, Y)
    assert step.skipped == len(X)
    assert math.isnan(float(step.loss))
    assert all(not bool(p.grad.any()) for p in net.parameters())


class Jump(Quartic):
    """A contrast that is infinite, whatever the states."""

    def contrast(self, free, plus, minus, x, weight):
        found = super().contrast(free, plus, minus, x, weight)
        return {**found, "u": found["u"] / 0}


def test_an_infinite_gradient_is_never_added() -> None:
    """All phases converge, and the loss is finite: only the gradient itself tells."""
    system, (x, y) = Jump(), batch(4, 2, 3)
    with pytest.raises(NotFinite, match="the gradient of u of Jump"):
        EquilibriumPropagation(SquaredError()).backward(system, x, y)
    assert system.u.grad is None
    step = EquilibriumPropagation(SquaredError(), on_unconverged="skip").backward(system, x, y)
    assert step.skipped == 3
    assert math.isnan(float(step.loss))
    assert not bool(system.u.grad.any() or system.w.grad.any())
    with pytest.warns(UnconvergedWarning, match="the batch was left out"):
        EquilibriumPropagation(SquaredError(), on_unconverged="warn").backward(system, x, y)


@pytest.mark.parametrize("beta", [1e-44, 1e-300, 1e-26, 1e30])
def test_a_beta_without_digits_is_refused(beta: float) -> None:
    """In float32 these fill .grad with NaN, or leave one digit of a displacement."""
    net = network()
    with pytest.raises(InputError, match="beta must lie between"):
        EquilibriumPropagation(CrossEntropy(), "positive", beta=beta).backward(net, X, Y)
    with pytest.raises(InputError, match="beta must lie between"):
        relax(net, X, Nudge(CrossEntropy(), Y, beta))
    assert all(p.grad is None for p in net.parameters())


def test_the_smallest_beta_still_has_the_gradient_of_autograd() -> None:
    """Just above the bound, where a network is linear but for its gates, nothing is lost."""
    net = network("relu")
    EquilibriumPropagation(CrossEntropy(), "positive", beta=1e-24, tolerance=1e-5).backward(net, X, Y)
    loss = torch.nn.functional.cross_entropy(net(X), Y)
    for p, g in zip(net.parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-6)


def test_backprop_and_thermal_gradients_are_looked_at() -> None:
    """The comparisons of EP must not be NaN in silence either."""
    net = network()
    with torch.no_grad():
        net.layers[1].weight.fill_(math.nan)
    with pytest.raises(NotFinite, match="the loss and the gradient of"):
        Backprop(CrossEntropy()).backward(net, X, Y)
    assert all(p.grad is None for p in net.parameters())
    system, (x, y) = Quadratic([[2.0, 0.3], [0.3, 1.0]]), batch(2, 2, 2)
    with pytest.raises(NotFinite, match="temperature 0"):
        StochasticEquilibriumPropagation(CliffError(), temperature=0.0).estimate(system, x, y.clamp_min(0.6))


def test_a_curvature_of_nan_sets_no_beta() -> None:
    """beta='auto' would take NaN for 'nothing responds', and some beta of its own."""

    class BentError(SquaredError):
        steepest = None

        def curvature(self, outputs: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return v * math.nan

    with pytest.raises(NotFinite, match="curvature of the cost"):
        EquilibriumPropagation(BentError(), beta="auto").backward(Quartic(), *batch(4, 2, 3))
    with pytest.raises(NotFinite, match="curvature of the cost"):
        EquilibriumPropagation(BentError(), beta="auto").backward(network(), X, torch.zeros(5, 3))


# -- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [("training.on_unconverged=skip",), ("training.on_unconverged=warn",), ("ep.estimator=backprop",)],
)
def test_training_stops_where_weights_run_away(options: tuple[str, ...]) -> None:
    """A learning rate of 1e38 ended with '90 %, 0 unconverged, loss 0.0'."""
    with pytest.raises(TrainingStoppedError, match="training stopped in epoch 1"):
        train("pcn-digits", overrides=(*SHORT, "optimizer.lr=1e38", *options))


def test_training_stops_without_any_loss() -> None:
    """However many may be skipped: an epoch of which nothing was used has no loss, and no weights to keep."""
    overrides = (*SHORT, "optimizer.lr=1e38", "training.on_unconverged=skip", "training.max_skipped=1.0")
    with pytest.raises(TrainingStoppedError, match=r"none of 96 examples gave a gradient|has become NaN"):
        train("pcn-digits", overrides=overrides)


def test_each_epoch_warns_with_counts() -> None:
    """Only the first batch used to warn: a run that ceased to settle later said nothing."""
    overrides = (
        *SHORT, "ep.solver=mod_pgd", "ep.gates=free", "ep.max_iterations=2", "ep.tolerance=1e-9", "ep.beta=0.02",
        "training.on_unconverged=warn",
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        train("pcn-digits", overrides=overrides)
    messages = [str(w.message) for w in told if issubclass(w.category, UnconvergedWarning)]
    assert len(messages) == 2
    for epoch, message in enumerate(messages, 1):
        assert message.startswith(f"epoch {epoch}: 96 of 96 training examples were used")


SYSTEMS = {
    **{name: case.ready for name, case in CASES.items() if not name.startswith("vgg")},
    "unit-graph": lambda: (HopfieldNetwork([4, 6, 3]).double().to_circuit(), torch.rand(3, 4).double()),
    "circuit": lambda: (ResistiveNetwork([2, 6, 3]).double().to_circuit(), torch.rand(3, 4).double()),
    "analog-hopfield": lambda: (
        AnalogHopfieldCircuit.from_network(HopfieldNetwork([4, 6, 3]).double()),
        torch.rand(3, 4).double(),
    ),
    "users": lambda: (Quartic(), batch(4, 2, 3)[0]),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_parameter_that_is_not_finite_leaves_no_equilibrium(name: str) -> None:
    """A weight of infinity that saturates its unit, or meets an input of zero, is a converged state with residual
    0, or the circuit does not say what is wrong. All parameters in turn, and an input of zeros."""
    torch.manual_seed(0)
    system, x, *_ = SYSTEMS[name]()
    for bad in (math.inf, -math.inf, math.nan):
        for given in (x, torch.zeros_like(x)):
            for parameter, p in system.named_parameters():
                before = p.detach().clone()
                with torch.no_grad():
                    p.view(-1)[0] = bad
                try:
                    found = relax(system, given)
                except InputError as error:
                    assert re.search("Conductances|diffusion|must be finite", str(error)), (parameter, bad)  # noqa: PT017
                else:
                    stalled = name == "circuit" and bad == -math.inf  # a current that would charge for ever
                    assert found.status is Status.NOT_FINITE or stalled, (parameter, bad, found.status)
                    assert not found.converged.any(), parameter
                with torch.no_grad():
                    p.copy_(before)
    assert relax(system, x).status.settled


NETWORKS = {
    "hopfield": lambda: HopfieldNetwork([4, 6, 3], "tanh").double(),
    "predictive": lambda: network().double(),
    "clipped": lambda: network("hard_tanh").double(),
    "oscillators": lambda: OscillatorNetwork([4, 6, 3]).double(),
    "users": Quartic,
}


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_parameter_that_is_not_finite_gives_no_gradient(name: str, bad: float) -> None:
    """A saturated unit hides it: EP returned a loss and skipped nothing, and backprop through time was a number."""
    torch.manual_seed(0)
    system = NETWORKS[name]()
    x, y = torch.rand(5, 4).double(), torch.rand(5, 2 if name == "users" else 3).double()
    with torch.no_grad():
        next(system.parameters()).view(-1)[0] = bad
    with pytest.raises((NotConverged, InputError), match=r"infinite or NaN|must be finite"):
        EquilibriumPropagation(SquaredError(), beta=1e-3).backward(system, x, y)
    if name != "users":  # scales that are measured are of nothing then
        step = EquilibriumPropagation(SquaredError(), beta=1e-3, on_unconverged="skip").backward(system, x, y)
        assert step.skipped == 5
        assert math.isnan(step.loss)
    assert not any(p.grad.any() for p in system.parameters() if p.grad is not None)
    message = "Parameter .* must be finite, but was not"
    for oracle, options in (*((o, {}) for o in ORACLES.values()), (bptt_gradient, {"iterations": 10})):
        with pytest.raises(InputError, match=message):
            oracle(system, x, y, SquaredError(), **options)
    with pytest.raises(InputError, match=message):
        simulate(system, x, duration=0.1)
    if not system.bounded:
        with pytest.raises(InputError, match=message):
            StochasticEquilibriumPropagation(SquaredError(), beta=0.1, temperature=0.0).estimate(system, x, y)
    if system.feedforward:
        with pytest.raises(NotFinite, match="NaN or infinite: "):
            Backprop(SquaredError()).backward(system, x, y)


@pytest.mark.parametrize("way", ["by hand", "by hand after one step", "optimizer", "data"])
def test_a_weight_that_becomes_infinite_is_seen(way: str) -> None:
    """At once where it is set in place, and within `LOOK_EVERY` steps in any case."""
    system = NETWORKS["hopfield"]()
    x, y = torch.rand(5, 4).double(), torch.rand(5, 3).double()
    ep = EquilibriumPropagation(SquaredError(), beta=1e-3)
    optimizer = torch.optim.SGD(system.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        ep.backward(system, x, y)
        optimizer.step()

    for _ in range(1 if way == "by hand after one step" else 5):
        step()
    weight = system.layers[0].weight
    if way == "data":
        weight.data[0, 0] = math.inf
    elif way == "optimizer":
        weight.grad[0, 0] = -math.inf
        optimizer.step()  # one step more than usual
    else:
        with torch.no_grad():
            weight[0, 0] = math.inf

    def steps() -> None:
        for _ in range(LOOK_EVERY if way == "data" else 1):
            step()

    with pytest.raises(NotConverged, match="infinite or NaN"):
        steps()
    with pytest.raises(NotConverged, match="infinite or NaN"):  # nor is it forgotten
        step()


def test_steps_look_at_weights_seldom(monkeypatch) -> None:
    """A look at each step costs up to 5 %: training looks twice, and then every `LOOK_EVERY` steps."""
    looks = []
    look = Weights.finite
    monkeypatch.setattr(Weights, "finite", lambda self: looks.append(1) or look(self))
    system = NETWORKS["predictive"]()
    x, y = torch.rand(5, 4).double(), torch.rand(5, 3).double()
    ep = EquilibriumPropagation(SquaredError(), beta=1e-3)
    optimizer = torch.optim.Adam(system.parameters(), lr=1e-3)
    for n in range(1, 2 * LOOK_EVERY + 1):
        for _ in range(2):  # gradients of two batches are added
            ep.backward(system, x, y)
        optimizer.step()
        assert len(looks) <= 2 + 2 * n / LOOK_EVERY


@pytest.mark.parametrize("beta", [1e-3, "auto"])
@pytest.mark.parametrize("mode", ["skip", "warn"])
@pytest.mark.parametrize("name", ["hopfield", "resistive", "oscillators"])
def test_a_batch_without_any_equilibrium_is_left_out(name: str, mode: str, beta: float | str) -> None:
    """An automatic beta cannot be measured on it, and no branch followed: the next batch does both.

    If this fails, training that was told to skip ends at the first NaN weight.
    """
    systems = {
        "hopfield": lambda: HopfieldNetwork([5, 4, 3], "tanh"),
        "resistive": lambda: ResistiveNetwork([5, 4, 3], "shockley"),
        "oscillators": lambda: OscillatorNetwork([5, 4, 3]),
    }
    system, fresh = (systems[name]().double() for _ in range(2))
    fresh.load_state_dict(system.state_dict())
    x, y = batch(5, 3, 2)
    first = next(system.parameters())
    kept = first.detach().clone()
    with torch.no_grad():
        first.view(-1)[0] = math.nan
    ep = EquilibriumPropagation(SquaredError(), "positive", beta, on_unconverged=mode)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconvergedWarning)
        step = ep.backward(system, x, y)
    assert step.skipped == 2
    assert math.isnan(float(step.loss))
    assert all(p.grad is None or not bool(p.grad.any()) for p in system.parameters())
    with torch.no_grad():
        first.copy_(kept)
    ep.backward(system, x, y)
    other = EquilibriumPropagation(SquaredError(), "positive", beta, on_unconverged=mode)
    other.backward(fresh, x, y)
    assert ep.beta == other.beta
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(system.parameters(), fresh.parameters(), strict=True))


def test_lowest_curvatures_of_examples_that_are_not_finite_are_nan() -> None:
    """Beside others, whose values stay what they are: a dense solver of eigenvalues refuses the whole batch."""
    system, (x, _) = OscillatorNetwork([5, 4, 3]).double(), batch(5, 3, 3)
    state = relax(system, x).state
    wanted = smallest_curvature(system, state, x)
    broken = tuple(s.clone() for s in state)
    broken[0][1] = math.nan
    found = smallest_curvature(system, broken, x)
    assert found.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(found[[0, 2]], wanted[[0, 2]])
    phase = system.phase(system.prepare(x))
    assert is_minimum(phase, broken)[0].tolist() == [True, False, True]
