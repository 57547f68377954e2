"""Models with residual sums, depthwise convolutions, ReLU6 and folded norms on the substrates.

References: the torch models with their norms unfolded, autograd, and Kirchhoff's law on all parts.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hardware_models import DeviceModel, NotRealisable, map_pcn
from hardware_models.mapping.in_situ import InSitu
from hardware_models.mapping.resistive_parts import PairsCircuit
from physics_ep import CrossEntropy, EquilibriumPropagation, SquaredError, relax
from physics_ep.nudging import Nudge
from physics_ep.predictive_coding import from_module
from tests.support.folded import MODELS, settled_norms
from tests.support.tiers import first

COST = CrossEntropy()
CASES = [f"{name} {kind}" for kind in ("resistive", "hopfield", "oscillator") for name in ("inverted", "residual")]


@pytest.mark.parametrize("case", first(1, CASES))
def test_substrates_hold_the_model(case: str) -> None:
    """Ideal devices put out what the unfolded model does, to 1e-9 in float64, and their gradient is autograd's
    through it: of norms' biases, which folding leaves as they are, and of the head. A sum, a depthwise array, a
    clip or a pooling that the substrate holds otherwise would show."""
    name, kind = case.split()
    torch.manual_seed(0)
    model = settled_norms(MODELS[name]().double())
    x, y = torch.randn(2, 3, 17, 16, dtype=torch.float64), torch.tensor([0, 3])
    net = from_module(model, x, form="layers", energy="paired")
    mapped = map_pcn(net, kind, DeviceModel(copies="shared"), calibration=x, seed=1)
    wanted = model(x)
    torch.testing.assert_close(mapped.system(x), wanted, rtol=0, atol=1e-9 * float(wanted.detach().abs().max()))
    functional.cross_entropy(wanted, y).backward()
    exact = {n: p.grad for n, p in model.named_parameters() if n.endswith("bias")}
    found = mapped.gradient(x, y, COST, beta=1e-4)
    own = {
        layer.origins.get("bias", "").removesuffix(" (folded)"): f"layers.{k}.bias"
        for k, layer in enumerate(net.stack)
    }
    pairs = [(found[mine], exact[theirs]) for theirs, mine in own.items() if theirs]
    assert len(pairs) >= 5
    pairs.append((found[f"layers.{net.depth - 1}.weight"], model.head.weight.grad))  # type: ignore[union-attr, arg-type]
    for mine, theirs in pairs:
        assert theirs is not None
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6 * float(theirs.abs().max()))
    assert set(found) == {n for n, p in net.named_parameters()}  # what holds sums is not learnt


class Small(nn.Module):
    """A depthwise convolution, a residual sum and ReLU6, small enough for a list of parts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(1, 2, 2), nn.Conv2d(2, 2, 3, padding=1, groups=2)
        self.thin, self.head = nn.Conv2d(2, 2, 1), nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(4 * self.stem(x))
        x = functional.relu(x + self.thin(functional.relu6(3 * self.deep(x))))
        return self.head(x.mean((2, 3)))


POOR: dict[str, object] = {"programming_noise": 0.02, "copies": "shared", "leaks": "fixed"}


@pytest.mark.parametrize("fields", first(1, [POOR, {}]), ids=str)
def test_every_part_of_a_residual_network(fields: dict[str, object]) -> None:
    """Cells of sums and of means over an image, two diodes a unit: a free and a nudged phase within 1e-11 V of the
    layers, by modified nodal analysis on a list of all parts."""
    torch.manual_seed(3)
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    net = from_module(Small().double(), x, form="layers", energy="paired")
    assert net.stack[0].activation_name == "relu6"
    mapped = map_pcn(net, "resistive", DeviceModel(**fields), seed=1, calibration=x, gates="live")
    form: PairsCircuit = mapped.to_circuit()
    y = torch.randn(2, 3, dtype=torch.float64)
    free = relax(mapped.system, x, tolerance=1e-12).require()
    for beta in (0.0, 0.01):
        state = free
        if beta:
            state = relax(
                mapped.system, x, Nudge(SquaredError(), y, beta), start=free.state, tolerance=1e-11
            ).require()
        parts = form.solve(x, y, beta)
        assert parts.converged.all()
        rows = zip((*form.h, *form.u), (v for side in form.node_voltages(state.state) for v in side), strict=True)
        assert max(float(np.abs(parts.voltages[:, columns] - volts).max()) for columns, volts in rows) < 1e-11


def test_learning_in_place_leaves_sums_and_frozen_cells() -> None:
    """Three steps with momentum on ideal cells give the weights of plain EP training; the cells of residual sums
    and of means, which have no gradient, and those of a frozen convolution stay where they were written."""
    torch.manual_seed(3)
    model = Small().double()
    model.deep.requires_grad_(False)
    x, y = torch.randn(4, 1, 4, 4, dtype=torch.float64), torch.arange(4) % 3
    net = from_module(model, x, form="layers", energy="paired")
    learner = InSitu(
        map_pcn(net, "hopfield", calibration=x), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), headroom=8
    )
    held = dict(learner.mapped.perturbed.named_parameters())
    written = {name: p.detach().clone() for name, p in held.items()}
    ep = EquilibriumPropagation(COST, beta=0.01)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    for _ in range(3):
        learner.step(x, y, COST, beta=0.01)
        optimizer.zero_grad()
        ep.backward(net, x, y)
        optimizer.step()
    own = dict(net.named_parameters())
    for name, p in held.items():
        moved = float((p - written[name]).detach().norm())
        if name in own and own[name].requires_grad:
            assert moved > 1e-3
            assert float((p - own[name]).detach().norm()) < 1e-8 * moved, name
        else:
            assert moved == 0, name
    assert len(held) > len(own)


def test_what_a_substrate_cannot_hold_is_named() -> None:
    """The module's name and the reason stand in the error."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 17, 16)
    for name, module, says in (("dense", "bn4", "not silu"), ("inception", "stem", "not leaky_relu")):
        net = from_module(settled_norms(MODELS[name]()), x, form="layers")
        with pytest.raises(NotRealisable, match=f"module '{module}'.*{says}") as refused:
            map_pcn(net, "oscillator", calibration=x)
        assert refused.value.module == module
    net = from_module(settled_norms(MODELS["inverted"]()), x, form="layers")
    with pytest.raises(NotRealisable, match="real diodes"):
        map_pcn(net, "resistive", DeviceModel(diode_current=1e-6), calibration=x)
    with pytest.raises(NotRealisable, match=r"module 'gain'.*one weight for all channels"):
        map_pcn(from_module(Scaled(), x[:, 0, 0, :4], form="layers"), "hopfield")


class Scaled(nn.Module):
    """A frozen map under a norm that is trained, and outputs times one number."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.gain = nn.ParameterDict({"of": torch.tensor(1.5)})
        self.one.requires_grad_(False)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain["of"] * self.two(functional.relu(self.norm(self.one(x))))


@pytest.mark.parametrize("kind", first(1, ("resistive", "hopfield", "oscillator")))
def test_a_norm_learns_over_a_frozen_map(kind: str) -> None:
    """On a substrate, too, the factor of a norm over a frozen map is a weight of its own, with autograd's
    gradient, and the map's cells are not learnt."""
    torch.manual_seed(0)
    whole = Scaled().double()
    nn.init.uniform_(whole.norm.weight, 0.5, 1.5)
    model = nn.Sequential(whole.one, whole.norm, nn.ReLU(), whole.two)
    x, y = torch.randn(3, 4).double(), torch.arange(3)
    net = from_module(model, x, form="layers", energy="paired")
    mapped = map_pcn(net, kind, DeviceModel(copies="shared"), calibration=x, seed=1)
    found = mapped.gradient(x, y, COST, beta=1e-4)
    functional.cross_entropy(model(x), y).backward()
    assert set(found) == {"layers.1.weight", "layers.1.bias", "layers.2.weight", "layers.2.bias"}
    exact = whole.norm.weight.grad
    assert exact is not None
    torch.testing.assert_close(found["layers.1.weight"], exact, rtol=0, atol=1e-6 * float(exact.abs().max()))
