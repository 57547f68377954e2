"""The counted floor that benchmarks print beside their ratios."""

from __future__ import annotations

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hardware_models import ResistiveNetwork
from hardware_models.layers.few_outputs import whole_batches
from physics_ep.cost import CrossEntropy, SquaredError
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.predictive_coding import mlp
from validation.benchmarks import resistive
from validation.benchmarks.counting import floors, products_of, with_floors


def test_products_of_a_step_are_counted_as_by_hand() -> None:
    """F multiplications an example of the layer on the input and G of the others: backprop takes 2 F + 3 G, both
    signs with held gates 2 F + 7 G, the odd part alone 2 F + 5 G. A product that is made twice shows here."""
    net = mlp([6, 9, 8, 4], "relu", seed=1)
    x, y = torch.rand(5, 6), torch.arange(5) % 4
    first, others = 6 * 9, 9 * 8 + 8 * 4

    def backprop() -> None:
        CrossEntropy()(net(x), y).mean().backward()

    settled = EquilibriumPropagation(CrossEntropy(), beta=1e-3, tolerance=1e-2)
    mirrored = EquilibriumPropagation(CrossEntropy(), beta=1e-3, tolerance=1e-2, opposite="mirrored")
    for ep in (settled, mirrored):
        ep.backward(net, x, y)  # its first step also measures the residual of the free phase
    assert products_of(backprop).multiplications == 5 * (2 * first + 3 * others)
    assert products_of(lambda: settled.backward(net, x, y)).multiplications == 5 * (2 * first + 7 * others)
    found = floors({"backprop": backprop, "mirrored": lambda: mirrored.backward(net, x, y)}, repeats=1)
    assert found["mirrored"][0] == 5 * (2 * first + 5 * others)
    rows = with_floors([{"step": name} for name in ("backprop", "mirrored", "else")], found, "backprop", 1.0)
    assert [row["count"] for row in rows] == [1.0, (2 * first + 5 * others) / (2 * first + 3 * others), None]
    assert 0 < rows[0]["floor"] == found["backprop"][1]


class Touching(TorchDispatchMode):
    """A context that counts the operators which read or write a tensor of at least so many numbers, views apart."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least = least
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        touched = [t for t in (*args, *(kwargs or {}).values(), out) if isinstance(t, torch.Tensor)]
        if not func.is_view and any(t.numel() >= self.least for t in touched):
            self.found[func.overloadpacket.__name__] += 1
        return out


def test_resistive_step_multiplies_by_half_of_the_conductances() -> None:
    """The input's amplifiers stand at x and -x, so that drive and contrast are one product each of x with the
    differences of the two halves, and not of (x, -x) with all conductances. Beside these: one clip to the devices'
    range, one sum, one difference, and what writes the contrast's halves. At batch 32 each further pass over the
    1.6 million conductances is a twentieth of the step or more; clocks do not always tell."""
    cost = SquaredError(resistive.TARGET)
    options = {"input_gain": resistive.GAIN, "scale": resistive.SCALE, "seed": 0}
    system = ResistiveNetwork(resistive.SIZES, **options)
    x = torch.rand(resistive.BATCH, resistive.SIZES[0], generator=torch.Generator().manual_seed(0))
    y = cost.encode(torch.arange(resistive.BATCH) % 10, 10, torch.float32)
    ep = EquilibriumPropagation(cost, beta=resistive.SCALE, tolerance=resistive.TOLERANCE)
    with whole_batches():
        resistive_step(system, ep, x, y)


def resistive_step(system: ResistiveNetwork, ep: EquilibriumPropagation, x: torch.Tensor, y: torch.Tensor) -> None:
    """Look at a step that compiles nothing."""
    for _ in range(2):  # the first steps also measure, and make sure that weights are finite
        system.zero_grad()
        ep.backward(system, x, y)
    system.zero_grad()
    with Touching(resistive.SIZES[0] * resistive.SIZES[1]) as seen:
        ep.backward(system, x, y)
    assert seen.found == {"mm": 1, "addmm": 1, "clamp_": 1, "sum": 1, "sub": 2, "empty_like": 1, "add_": 1}
    large = 2 * resistive.BATCH * resistive.SIZES[0] * resistive.SIZES[1]
    assert large < products_of(lambda: ep.backward(system, x, y)).multiplications < 1.2 * large
