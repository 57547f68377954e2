"""Tied, masked, pruned, parametrised and hooked weights: gradients arrive where autograd would put them.

If these fail, a step trains another model than the one that was built, in silence.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from hardware_models import (
    AnalogHopfieldCircuit,
    ConvHopfieldNetwork,
    FitzHughNagumoChain,
    HopfieldNetwork,
    LangevinHopfield,
    OscillatorGraph,
    OscillatorNetwork,
    ResistiveNetwork,
)
from hardware_models.mapping.mapped import map_pcn
from physics_ep import EquilibriumPropagation, SquaredError, relax
from physics_ep.errors import InputError
from physics_ep.estimators.backprop import Backprop
from physics_ep.estimators.propagation import estimate_gradient
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp
from tests.support.systems import Quartic, batch
from tests.support.tied import CHANGES, Masked, direction, holders, slope_by_differences, slope_by_ep
from validation import gradient_report, implicit_gradient


class Below(nn.Module):
    """Values below zero, whatever they are made from."""

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return -1 - w.square()


SIZES = [5, 5, 5, 3]
X, Y = batch(5, 3, 4)


def pcn(**options: object) -> PredictiveCodingNetwork:
    return mlp(SIZES, activation="tanh", **options).double()


def hopfield() -> HopfieldNetwork:
    return HopfieldNetwork(SIZES, "tanh", seed=1).double()


SYSTEMS = {
    "network": pcn,
    "paired network": lambda: pcn(energy="paired"),
    "Hopfield": hopfield,
    "oscillators": lambda: OscillatorNetwork(SIZES, seed=1, field=2.0).double(),
    "resistive": lambda: ResistiveNetwork(SIZES, seed=4, scale=1.0).double(),
    "mapped": lambda: map_pcn(pcn(), "hopfield").system,
    "Langevin": lambda: LangevinHopfield(SIZES, seed=1).double(),
    "medium": lambda: FitzHughNagumoChain([5, 8, 3], seed=1).double(),
    "graph": lambda: hopfield().to_circuit(),
    "analog": lambda: AnalogHopfieldCircuit.from_network(HopfieldNetwork(SIZES, "hard_sigmoid", seed=1).double()),
    "circuit": lambda: ResistiveNetwork(SIZES, seed=4).double().to_circuit(),
    "oscillator graph": lambda: OscillatorGraph.from_network(OscillatorNetwork(SIZES, seed=1, field=2.0).double()),
}
COSTLY = {"Langevin", "medium", "graph", "analog", "paired network", "circuit", "oscillator graph"}
ONE_TENSOR = {"graph", "analog", "circuit", "oscillator graph"}
CASES = [
    pytest.param(name, change, marks=[pytest.mark.full] * (name in COSTLY))
    for name in SYSTEMS
    for change in CHANGES
    if not (name in ONE_TENSOR and change == "tie")
    if not (name == "circuit" and change == "cut")  # a resistor of no conductance leaves the range
]


@pytest.mark.parametrize(("name", "change"), CASES)
def test_changed_weights_against_differences(name: str, change: str) -> None:
    """The slope of the cost along a direction in all parameters, against central differences of relaxed states."""
    system = SYSTEMS[name]()
    CHANGES[change](system)
    along = direction(system)
    x = torch.cat([X, -X], 1) if name == "circuit" else X  # its sources are those of a doubled input
    expected = slope_by_differences(system, x, Y, along)
    assert slope_by_ep(system, x, Y, along) == pytest.approx(expected, rel=1e-3)


def test_a_pruned_resistor_is_refused() -> None:
    """A mask holds it at 0 S, below the least conductance that the circuit keeps: it cannot be both."""
    system = SYSTEMS["circuit"]()
    CHANGES["cut"](system)
    with pytest.raises(InputError, match="physical range, but 'conductance' is computed from others"):
        slope_by_ep(system, torch.cat([X, -X], 1), Y, direction(system))


def autograd(net: nn.Module) -> dict[str, torch.Tensor | None]:
    net.zero_grad()
    SquaredError()(net(X), Y).mean().backward()
    return grads(net)


def grads(net: nn.Module) -> dict[str, torch.Tensor | None]:
    return {n: None if p.grad is None else p.grad.clone() for n, p in net.named_parameters()}


def stepped(net: nn.Module, rule: object = None) -> dict[str, torch.Tensor | None]:
    net.zero_grad()
    ep = EquilibriumPropagation(SquaredError(), beta=1e-5, tolerance=1e-10) if rule is None else rule
    ep.backward(net, X, Y)
    return grads(net)


def same(found: dict[str, torch.Tensor | None], wanted: dict[str, torch.Tensor | None], rtol: float = 1e-6) -> None:
    assert [n for n, g in found.items() if g is None] == [n for n, g in wanted.items() if g is None]
    for name, g in wanted.items():
        if g is not None:
            torch.testing.assert_close(found[name], g, rtol=rtol, atol=rtol * float(g.norm()))


def test_tensor_hooks_are_called_once_a_step() -> None:
    """A hook that is no projection tells how often it has run: -2 g, on the sum over all uses of a tie."""
    net, seen, after = pcn(), [], []
    net.layers[1].weight = net.layers[0].weight
    net.layers[0].weight.register_hook(lambda g: -2 * g)
    net.layers[2].weight.register_hook(lambda g: seen.append(g) or g.clamp(max=0.01))
    net.layers[2].bias.register_post_accumulate_grad_hook(lambda p: after.append(p.grad.clone()))
    wanted = autograd(net)
    same(stepped(net), wanted)
    same(stepped(net, Backprop(SquaredError())), wanted, 1e-12)
    assert len(seen) == len(after) == 3
    assert all(g is not None for g in stepped(net).values())
    gradient, step = estimate_gradient(EquilibriumPropagation(SquaredError(), beta=1e-5), net, X, Y)
    step.noise_floor  # noqa: B018 (measured when asked for)
    implicit_gradient(net, X, Y, SquaredError())
    assert len(seen) == 4  # estimates and oracles call none, and tell the gradient before any
    torch.testing.assert_close(gradient["layers.0.weight"], -0.5 * wanted["layers.0.weight"], rtol=1e-5, atol=1e-8)


def test_hooks_of_a_users_system_are_called_once_in_float64_too() -> None:
    """Autograd of the energy must not call them on the way, where the system is not copied."""
    system, (x, y) = Quartic(), batch(4, 2)
    plain = implicit_gradient(system, x, y, SquaredError())["w"]
    system.w.register_hook(lambda g: -3 * g)
    EquilibriumPropagation(SquaredError(), beta=1e-3, tolerance=1e-11).backward(system, x, y)
    torch.testing.assert_close(system.w.grad, -3 * plain, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [pcn, hopfield, Quartic, lambda: ResistiveNetwork(SIZES, seed=2, scale=1.0)])
def test_modules_that_are_attached_and_unused_get_no_gradient(make, dtype: torch.dtype) -> None:
    """As in torch, where `.grad` stays None: an optimizer with weight decay leaves them alone."""
    system = make().to(dtype)
    used = [n for n, _ in system.named_parameters()]
    system.spare = nn.Linear(3, 3, dtype=dtype)
    holders(system)[0][0].other = nn.Linear(3, 3, dtype=dtype)
    n_in, n_out = (4, 2) if isinstance(system, Quartic) else (5, 3)
    x, y = (t.to(dtype) for t in batch(n_in, n_out, 4))
    EquilibriumPropagation(SquaredError(), beta=0.01 * system.nudge_scale).backward(system, x, y)
    assert [n for n, p in system.named_parameters() if p.grad is not None] == used
    if system.feedforward:
        system.zero_grad()
        Backprop(SquaredError()).backward(system, x, y)
        assert [n for n, p in system.named_parameters() if p.grad is not None] == used


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_norms_and_pruning_over_several_steps() -> None:
    """What torch computes by a hook before a forward pass is computed anew, though no relaxation calls a module."""
    net = pcn()
    prune.l1_unstructured(net.layers[0], "weight", amount=0.5)
    prune.random_unstructured(net.layers[0], "weight", amount=0.5)
    weight_norm(net.layers[1])
    parametrizations.orthogonal(net.layers[2], "weight")
    optimizer = torch.optim.SGD(net.parameters(), 0.5)
    for _ in range(3):
        wanted = autograd(net)
        same(stepped(net), wanted)
        same(stepped(net, Backprop(SquaredError())), wanted, 1e-9)
        optimizer.step()
        torch.testing.assert_close(relax(net, X).state[-1], net(X), rtol=1e-12, atol=1e-12)
    report = gradient_report(net, X, Y, SquaredError(), beta=1e-5, tolerance=1e-10)
    assert report.relative_error < 1e-6
    assert {row.name for row in report.rows} == {n for n, _ in net.named_parameters()}


def test_a_spectral_norm_makes_one_iteration_a_step() -> None:
    """In training it changes its buffers: all phases must see one weight, and the next step the next."""
    net = pcn()
    parametrizations.spectral_norm(net.layers[1], "weight")
    twin = copy.deepcopy(net)
    for _ in range(2):
        same(stepped(net), autograd(twin))
        for mine, theirs in zip(net.buffers(), twin.buffers(), strict=True):
            assert torch.equal(mine, theirs)


def test_a_tie_across_systems_of_other_rules() -> None:
    """Ties reach every estimator: convolutions and generic energies against autograd of the same energy."""
    system = ConvHopfieldNetwork((1, 4, 4), [1, 1], 3, activation="tanh", pool_after=[], seed=0).double()
    system.couplings[1].weight = system.couplings[0].weight
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(3, 1, 4, 4, generator=generator, dtype=torch.float64)
    y = torch.rand(3, 3, generator=generator, dtype=torch.float64)
    wanted = implicit_gradient(system, x, y, SquaredError())
    EquilibriumPropagation(SquaredError(), beta=1e-3, tolerance=1e-12).backward(system, x, y)
    for name, p in system.named_parameters():
        torch.testing.assert_close(p.grad, wanted[name], rtol=1e-4, atol=1e-8)


class Read(PredictiveCodingNetwork):
    """A network with a trained readout, which is a layer of torch's own."""

    def __init__(self) -> None:
        super().__init__(pcn().stack)
        self.readout = nn.Linear(3, 3, dtype=torch.float64)

    def outputs(self, state: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return self.readout(super().outputs(state))


def test_hooks_of_modules_that_the_physics_calls_are_called() -> None:
    """A layer of torch's in a user's outputs is called, and so are its hooks: nothing is refused."""
    net = Read()
    plain = implicit_gradient(net, X, Y, SquaredError())
    net.readout.register_forward_hook(lambda _, __, out: 2 * out)
    with torch.no_grad():
        net.readout.weight.mul_(0.5)
        net.readout.bias.mul_(0.5)
    EquilibriumPropagation(SquaredError(), beta=1e-4, tolerance=1e-11).backward(net, X, Y)
    torch.testing.assert_close(net.layers[0].weight.grad, plain["layers.0.weight"], rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(net.readout.weight.grad, 2 * plain["readout.weight"], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook"])
@pytest.mark.parametrize(("make", "path"), [(pcn, "layers.1"), (hopfield, "layers.0"), (pcn, "")])
def test_hooks_of_modules_that_are_not_called_are_refused(make, path: str, kind: str) -> None:
    """A relaxation calls no layer: a hook that torch would call must not be passed over, nor leave a gradient."""
    system = make()
    getattr(system.get_submodule(path), f"register_{kind}")(lambda *_: None)
    with pytest.raises(InputError, match=f"'{path}'" if path else "itself"):
        EquilibriumPropagation(SquaredError(), beta=0.01).backward(system, X, Y)
    assert all(p.grad is None for p in system.parameters())


def test_masked_conductances_stay_in_their_range() -> None:
    """A step may leave them negative: what a mask hides stays, the rest is clipped, and what cannot be is named."""
    for change in (
        lambda layer: prune.l1_unstructured(layer, "conductance", amount=0.5),
        lambda layer: parametrize.register_parametrization(layer, "conductance", Masked()),
    ):
        system = ResistiveNetwork(SIZES, seed=2, scale=1.0).double()
        change(system.couplings[0])
        source = next(p for n, p in system.named_parameters() if "orig" in n)
        with torch.no_grad():
            source.sub_(0.5 * source.max())
        EquilibriumPropagation(SquaredError(), beta=0.01 * system.nudge_scale).backward(system, X, Y)
        assert float(system.couplings[0].conductance.detach().min()) >= system.g_min
        assert float(source.detach().min()) < 0
    out_of_reach = ResistiveNetwork(SIZES, seed=2, scale=1.0).double()
    parametrize.register_parametrization(out_of_reach.couplings[0], "conductance", Below())
    with pytest.raises(InputError, match=r"physical range.*layers\.0\.conductance"):
        EquilibriumPropagation(SquaredError(), beta=0.01).backward(out_of_reach, X, Y)


def test_a_failed_step_leaves_the_system_as_it_was() -> None:
    """Masks and hooks are put aside for a step, and back whatever happens."""
    net, called = pcn(), []
    parametrize.register_parametrization(net.layers[0], "weight", Masked())
    prune.l1_unstructured(net.layers[1], "weight", amount=0.5)
    net.layers[2].weight.register_hook(lambda g: called.append(1))
    before = [n for n, _ in net.named_parameters()]
    with pytest.raises(InputError):
        EquilibriumPropagation(SquaredError(), beta=0.01).backward(net, X[:, :2], Y)
    assert [n for n, _ in net.named_parameters()] == before
    autograd(net)
    assert called == [1]
    assert net.layers[0].parametrizations.weight.original.grad is not None


def test_weights_that_share_no_cells_are_not_mapped() -> None:
    """Arrays have cells of their own: ties, masks and hooks are refused by name, not lost."""
    net = pcn()
    net.layers[1].weight = net.layers[0].weight
    with pytest.raises(InputError, match=r"'layers\.1\.weight' is 'layers\.0\.weight'"):
        map_pcn(net, "hopfield")
    for change, name in (
        (lambda n: prune.l1_unstructured(n.layers[0], "weight", amount=0.5), r"layers\.0\.weight"),
        (lambda n: parametrize.register_parametrization(n.layers[0], "bias", Masked()), r"layers\.0\.bias"),
        (lambda n: n.layers[0].weight.register_hook(lambda g: 2 * g), r"layers\.0\.weight"),
        (lambda n: setattr(n.layers[0], "spare", nn.Linear(2, 2)), r"layers\.0\.spare"),
    ):
        net = pcn()
        change(net)
        with pytest.raises(InputError, match=name):
            map_pcn(net, "hopfield")
