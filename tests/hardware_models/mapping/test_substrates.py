"""What all substrates share: loads of nodes, writing of cells, refusals; and a substrate of a user's own."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from hardware_models import DeviceModel, PairedCircuit, map_pcn
from hardware_models.devices.crossbars import programmed
from hardware_models.mapping import mapped as mapping
from hardware_models.mapping.amplifiers import Amplifiers
from hardware_models.mapping.board import mapped_to
from hardware_models.mapping.mapped import NotRealisable
from physics_ep import CrossEntropy, Nudge, SquaredError, cli, relax
from physics_ep.errors import InputError
from tests.support.pcn import dense, examples
from validation.gradients import compare, total_error
from validation.oracles import backprop_gradient

DEVICE = DeviceModel(g_min=1e-9)


class Loaded(PairedCircuit):
    """Nodes whose conductance is up to 30 % off; those of h and u by `apart` more."""

    apart = 0.0

    def find_loads(self) -> None:
        self.load_h = [1 + 0.3 * self.drawn(1.0, k, "h", "load").clamp(-1, 1) for k in range(self.depth)]
        self.load_u = self.load_h
        if self.apart:
            self.load_u = [
                a * (1 + self.apart * self.drawn(1.0, k, "u", "load")) for k, a in enumerate(self.load_h)
            ]


class Unequal(Loaded):
    """Nodes of h and u whose conductances differ by some 2 %."""

    apart = 0.02


@pytest.fixture
def loaded(monkeypatch):
    """The two substrates, as a user would add them."""
    monkeypatch.setitem(mapping.SUBSTRATES, "loaded", Loaded)
    monkeypatch.setitem(mapping.SUBSTRATES, "unequal", Unequal)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_equal_loads_leave_ep_exact(loaded, activation: str) -> None:
    """h and u with the same wrong conductance are another feedforward network, a = l (W h + b), whose backprop EP
    finds to O(beta^2). Breaks if a load is missing on a drive, on what is fed back, or on the nudge."""
    net = dense(4, activation)
    x, y = examples()
    mapped = map_pcn(net, "loaded", seed=3)
    assert mapped.system.shared
    target = backprop_gradient(mapped.perturbed, x, y, CrossEntropy())
    grads, step = mapped.estimate(x, y, CrossEntropy(), beta=1e-4)
    assert total_error(grads, target) < 1e-6
    assert min(row.cosine for row in compare(grads, backprop_gradient(net, x, y, CrossEntropy()))) < 0.999
    assert max(float(e.residual.max()) for e in step.equilibria) < 1e-9


@pytest.mark.parametrize("beta", [0.0, 0.2, -0.05])
def test_unequal_loads_by_the_balance_of_every_node(loaded, beta: float) -> None:
    """Node by node: p = l_h (W h + b + W^T (h - u)), q = l_u (W h + b), the outputs nudged through their load."""
    net = dense(3, "tanh", width=8)
    x, labels = examples(size=4)
    y = torch.eye(10, dtype=torch.float64)[labels]
    mapped = map_pcn(net, "unequal", seed=1)
    system = mapped.system
    assert not system.one_drive
    found = relax(system, x)
    if beta:
        found = relax(system, x, Nudge(SquaredError(), y, beta), start=found.state)
    state = found.require().state
    p, q = state[:3], state[3:]
    h, u = [*map(torch.tanh, p[:2]), p[2]], [*map(torch.tanh, q[:2]), q[2]]
    below = [x, *h]
    for k in range(3):
        weight, bias = system.stack[k].weight.detach(), system.stack[k].bias.detach()
        drive = below[k] @ weight.t() + bias
        fed = (h[k + 1] - u[k + 1]) @ system.stack[k + 1].weight.detach() if k < 2 else -beta * (p[2] - y)
        torch.testing.assert_close(p[k], system.load_h[k] * (drive + fed), atol=1e-9, rtol=0)
        torch.testing.assert_close(q[k], system.load_u[k] * drive, atol=1e-9, rtol=0)


def test_energy_with_loads(loaded) -> None:
    """The equilibrium is where the loaded energy is stationary: by autograd, in the currents p and q."""
    net = dense(3, "tanh", width=8)
    x, _ = examples(size=4)
    system = map_pcn(net, "loaded", seed=1).system
    state = tuple(s.clone().requires_grad_() for s in relax(system, x).require().state)
    for slope in torch.autograd.grad(system.energy(state, x).sum(), state):
        assert float(slope.abs().max()) < 1e-10


def test_written_cells_are_those_that_act(loaded) -> None:
    """`write` puts other conductances in place: weights, copies with the same mismatch, and loads follow."""
    net, other = dense(3, "tanh", width=8), dense(3, "tanh", width=8, seed=7)
    device = DeviceModel(g_min=1e-9, copy_mismatch_u=0.02, copy_mismatch_transpose=0.01)
    mapped = map_pcn(net, "loaded", device, seed=3)
    system = mapped.system
    before = system.find_loads
    calls = []
    system.find_loads = lambda: (calls.append(1), before())  # type: ignore[method-assign]
    spans = {name: scale * (device.g_max - device.g_min) for name, scale in system.scales.items()}
    wanted = dict(other.named_parameters())
    cells = {
        name: programmed(wanted[name].clamp(-span, span), device, 3, name, span=span)
        for name, span in spans.items()
    }
    system.write(cells)
    assert len(calls) == 1
    for name, p in system.named_parameters():
        torch.testing.assert_close(p.detach(), wanted[name].detach().clamp(-spans[name], spans[name]))
    # Copies have the mismatch that they had, cell by cell: that of G+ for positive weights, of G- for others.
    again = map_pcn(net, "loaded", device, seed=3).system
    for which in ("u", "transpose"):
        found, had = (s.arrays(1, which).weight / s.arrays(1, "h").weight for s in (system, again))
        alike = system.arrays(1, "h").weight * again.arrays(1, "h").weight > 0
        torch.testing.assert_close(found[alike], had[alike], rtol=1e-3, atol=0)
        assert 0.005 < float((found - 1).std()) < 0.03
    with pytest.raises(InputError, match=r"array.*Did you mean 'layers.0.weight'"):
        system.write({"layers.0.weigth": cells["layers.0.weight"]})
    with pytest.raises(InputError, match="cells must have the shape"):
        system.write({"layers.0.weight": dataclasses.replace(cells["layers.0.weight"], scale=1.0)})
    for name, weights in (("layers.9.weight", wanted["layers.0.weight"]), ("layers.0.weight", torch.zeros(2))):
        with pytest.raises(InputError, match="asked must hold weights of arrays that are written"):
            system.write(cells, {name: weights})


@pytest.mark.parametrize("substrate", ["hopfield", "resistive", "oscillator"])
def test_an_overflow_is_no_equilibrium(substrate: str) -> None:
    """The free state is the forward pass by construction, which must not hide that it is not finite: a state that
    nobody checked would be trained on. Other examples of the batch keep theirs."""
    net = dense(3, "relu", width=8)
    x, _ = examples(size=2)
    with torch.no_grad():
        net.stack[0].bias.zero_()
        for layer in net.stack[1:]:
            layer.weight.mul_(1e200)
    x[1] = 0  # activities of the first layer are 0 there; biases alone then
    found = relax(map_pcn(net, substrate).system, x)
    assert not bool(found.converged[0])
    assert bool(found.state[2][0].isfinite().all()) is False
    assert bool(found.converged[1]) == bool(found.state[2][1].isfinite().all())


def test_refusals() -> None:
    """An imperfection that a substrate does not have is no silent zero; an unknown name has a nearest one."""
    with pytest.raises(
        InputError,
        match=r"^Argument detuning must be left out on the substrate 'hopfield', which does not read it \('osc",
    ):
        map_pcn(dense(3), "hopfield", DeviceModel(detuning=0.1))
    with pytest.raises(InputError, match="Did you mean 'oscillator'"):
        map_pcn(dense(3), "oscilator")
    with pytest.raises(NotRealisable, match=r"can be relu, linear, .* not gelu"):
        map_pcn(dense(3, "gelu"), "hopfield")


@pytest.mark.parametrize("fields", [{"leaks": "fixed"}, {"leaks": "dummy"}, {"leaks": "dummy", "apart": True}])
def test_what_follows_from_the_seed_moves_with_the_module(fields: dict) -> None:
    """Copies, loads, cells and their sums are in the dtype that the module was moved to, in a copy of it too, and
    are no part of its state_dict. Otherwise a circuit in float32 mixes widths, and old run files do not load."""
    apart = {"copy_mismatch_h": 0.01, "copy_mismatch_u": 0.01} if fields.get("apart") else {}
    device = DeviceModel(programming_noise=0.02, copies="shared", leaks=fields["leaks"], **apart)
    net = dense(3, "relu")
    system = map_pcn(net, "resistive", device, seed=2).system
    assert list(system.state_dict()) == list(net.state_dict())
    for twin in (copy.deepcopy(system).float(), copy.deepcopy(system.float())):
        tensors = [*twin.load_h, *twin.load_u]
        tensors += [twin.arrays(1, which).weight for which in ("h", "u", "transpose")]
        tensors += [
            t for which in ("h", "u", "transpose", "asked") for t in twin.kept_ends(which)["layers.1.weight"]
        ]
        tensors += [t for cells in twin.cells.values() for t in (cells.plus, cells.minus)]
        assert {t.dtype for t in tensors} == {torch.float32}
        assert all(t.data_ptr() != s.data_ptr() for t, s in zip(twin.load_h, system.load_h, strict=True))
        assert (twin.load_h[0] is twin.load_u[0]) is twin.equal_loads is (fields == {"leaks": "dummy"})
        if apart:
            assert not torch.equal(twin.arrays(1, "h").weight, twin.arrays(1, "u").weight)
        twin.load_state_dict(net.float().state_dict())
        assert torch.equal(twin.arrays(1, "h").weight, net.stack[1].weight.detach())


def test_loads_set_one_by_one() -> None:
    """A substrate that sets the loads of h alone leaves those of u as they were."""
    system = map_pcn(dense(2), seed=1).system
    load = torch.full(system.shapes[1], 1.5, dtype=torch.float64)
    system.load_h = [load, None]
    assert system.load_h == (load, None)
    assert system.load_u == (None, None)
    assert not system.equal_loads
    system.load_u = system.load_h
    assert system.load_u == (load, None)
    assert system.equal_loads


def test_plain_numbers_are_gains_and_offsets() -> None:
    """A user's `build_units` may give a number where all units of a layer err alike: they answer as with a tensor
    of it. Breaks if numbers are kept as they are, on which `.to` fails far from the user's line."""
    activation = dense(2, "tanh").stack[0].activation
    p = torch.linspace(-1, 1, 7, dtype=torch.float64)
    each = Amplifiers(activation, *(torch.full((7,), v, dtype=torch.float64) for v in (0.9, 0.1)), 0.7)
    every = Amplifiers(activation, gain=0.9, offset=0.1, saturation=0.7)
    for name in ("response", "slope", "integral"):
        assert torch.equal(getattr(every, name)(p), getattr(each, name)(p))
    shifted = Amplifiers(activation, output_offset=1)
    assert torch.equal(shifted.response(p), activation.response(p) + 1)


def test_titles_tell_a_mapped_network_from_a_hopfield_network(capsys: pytest.CaptureFixture[str]) -> None:
    """`hopfield` names a system and a substrate: a title that says it alone could mean either."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["map", "pcn", "--substrate", "hopfield", "--batch", "1"])
    assert not ended.value.code
    assert "pcn mapped to Hopfield circuits, ideal devices" in " ".join(capsys.readouterr().out.split())
    assert mapped_to("mine") == "mapped to the substrate mine"
