"""Physical cells of one weight: draws of their own, and what three arrays that differ make of a network.

The equations of a network whose cells all differ are written here once more, in numpy and from the conductances,
and solved by Newton's method and dense matrices; nothing of the code under test but the cells and the units'
constants is used.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import fsolve
from scipy.stats import norm

from hardware_models import DeviceModel, map_pcn
from hardware_models.devices.crossbars import programmed
from hardware_models.mapping.in_situ import InSitu
from hardware_models.mapping.mapped import Mapped, NotRealisable
from physics_ep import Nudge, SquaredError, relax
from physics_ep.errors import InputError
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp
from validation.oracles import backprop_gradient
from validation.references import REFERENCES, adaptation_gradient, free_state, reference_gradient

F64 = torch.float64
SIZES = (5, 7, 6, 3)
CASES = [
    pytest.param("resistive", {}, id="resistive", marks=pytest.mark.full),
    pytest.param("oscillator", {}, id="oscillator"),
    pytest.param("hopfield", {"transpose": "array"}, id="hopfield-array"),
    pytest.param("hopfield", {"mirror_mismatch": 0.02}, id="hopfield-mirrors", marks=pytest.mark.full),
    pytest.param(
        "hopfield",
        {"transpose": "array", "mirror_mismatch": 0.02, "ground_resistance": 50.0, "ground_offset": 1e-4},
        id="hopfield-grounds",
    ),
    pytest.param("hopfield", {"transpose": "array", "mirror_mismatch": 0.02, "feedback_gain": 0.3}, id="gain"),
    pytest.param("resistive", {"feedback_gain": 0.3, "auto_zero": "on"}, id="auto-zero"),
    pytest.param("oscillator", {"auto_zero": "on"}, id="oscillator-auto-zero", marks=pytest.mark.full),
]
ERRING: dict[str, Any] = {"programming_noise": 0.02, "device_mismatch": 0.03, "stuck_off": 0.02, "levels": 64}


def case(
    substrate: str, activation: str = "hard_tanh", seed: int = 3, **fields: Any
) -> tuple[Mapped, torch.Tensor, torch.Tensor]:
    """A 5-7-6-3 network with biases on devices that err, inputs and targets."""
    net = mlp(list(SIZES), activation, gain=1.0, seed=1).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in net.stack:
            assert layer.bias is not None
            layer.bias.copy_(0.1 * torch.randn(layer.bias.shape, generator=generator, dtype=F64))
    x, y = (torch.rand((4, n), generator=generator, dtype=F64) for n in (SIZES[0], SIZES[-1]))
    return map_pcn(net, substrate, DeviceModel(**{**ERRING, **fields}), seed, calibration=x), x, y


# -- the equations, once more ------------------------------------------------------------------------------------


def conductances(mapped: Mapped, name: str, role: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Both cells of the weights that serve a purpose, drawn anew from their key; and the weight of a siemens."""
    key = next(key for key, roles in mapped.system.physical(name).items() if role in roles)
    values = dict(mapped.network.named_parameters())[name].detach()
    span = float(values.abs().max())
    if name.endswith("bias"):
        k = int(name.split(".")[1])
        weight = mapped.network.stack[k].weight.detach()
        span = max(span, float(weight.abs().max()) * mapped.system.full_scales[k])
    cells = programmed(values, mapped.device, mapped.seed, key, span)
    return cells.plus.numpy(), cells.minus.numpy(), cells.scale


class Machine:
    """Paired units of three layers whose arrays all differ: p and q as one vector of 2 x 16 currents.

    Of a resistive network it is Kirchhoff's law in volts and siemens, else sums of currents at virtual grounds.
    """

    def __init__(self, mapped: Mapped) -> None:
        self.mapped, self.depth = mapped, len(SIZES) - 1
        self.x = np.zeros(SIZES[0])
        self.fed = mapped.device.feedback_gain
        self.stored: list[np.ndarray | float] = [0.0] * self.depth
        self.kept: dict[tuple[str, str], tuple[np.ndarray, np.ndarray, float]] = {}
        self.paths: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
        self.ends = np.cumsum([0, *SIZES[1:], *SIZES[1:]])
        self.weights = {
            (k, role): self.held(f"layers.{k}.weight", role)
            for k, role in itertools.product(range(self.depth), ("h", "u", "transpose"))
        }
        self.biases = {(k, role): self.held(f"layers.{k}.bias", role) for k in range(self.depth) for role in "hu"}
        self.unit: Callable[[np.ndarray], np.ndarray] = lambda v: np.clip(v, -1, 1)
        self.slope: Callable[[np.ndarray], np.ndarray] = lambda v: (np.abs(v) < 1).astype(float)
        if mapped.network.stack[0].activation_name == "tanh":
            self.unit, self.slope = np.tanh, lambda v: 1 / np.cosh(v) ** 2

    def cells(self, name: str, role: str) -> tuple[np.ndarray, np.ndarray, float]:
        if (name, role) not in self.kept:
            self.kept[name, role] = conductances(self.mapped, name, role)
        return self.kept[name, role]

    def held(self, name: str, role: str) -> np.ndarray:
        plus, minus, scale = self.cells(name, role)
        return scale * (plus - minus)

    def sums(self, role: str, k: int) -> np.ndarray:
        """Cells at the lines that drive units of layer k, or feed back to them, S."""
        if role == "transpose":
            plus, minus, _ = self.cells(f"layers.{k + 1}.weight", role)
            return (plus + minus).sum(0)
        found = np.zeros(SIZES[k + 1])
        for part in ("weight", "bias"):
            plus, minus, _ = self.cells(f"layers.{k}.{part}", role)
            found = found + (plus + minus).reshape(len(found), -1).sum(1)
        return found

    def passed(self, role: str, k: int, current: np.ndarray) -> np.ndarray:
        """What mirrors and virtual grounds leave of a current, in units of activity."""
        if self.mapped.substrate != "hopfield":
            return current
        if (role, k) not in self.paths:
            self.paths[role, k] = self.path(role, k)
        gain, offset = self.paths[role, k]
        return (current - offset) * gain

    def path(self, role: str, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Gain on the way to the units of layer k, and the current of offsets before it."""
        mapped, device = self.mapped, self.mapped.device
        sums, scale = self.sums(role, k), self.cells(f"layers.{k}.weight", "h")[2]
        offset, gain = np.zeros_like(sums), 1 / (1 + device.ground_resistance * sums)
        if device.ground_offset > 0:
            name = "row ground" if role == "transpose" else "ground"
            volts = mapped.system.drawn(device.ground_offset, k, "h", name).numpy()
            # The node's resistor makes a volt of its conductance, and `voltage` is a full scale.
            siemens = mapped.system.full_scales[k + 1] / (mapped.system.full_scales[k] * scale)
            offset = volts * sums / siemens / device.voltage * mapped.system.full_scales[k + 1]
        if role != "transpose" and device.mirror_mismatch > 0:
            gain = gain * (1 + mapped.system.drawn(device.mirror_mismatch, k, role, "mirror").numpy())  # type: ignore
        return gain, offset

    def currents(self, v: np.ndarray, y: np.ndarray | None = None, beta: float = 0.0) -> np.ndarray:
        """Currents into all units of one example where their outputs are `v`."""
        parts = np.split(v, self.ends[1:-1])
        h, u = parts[: self.depth], parts[self.depth :]
        found = []
        for role, k in itertools.product("hu", range(self.depth)):
            below = self.x if k == 0 else h[k - 1]
            total = self.passed(role, k, self.weights[k, role] @ below + self.biases[k, role])
            if role == "h" and k < self.depth - 1:
                back = self.fed * self.weights[k + 1, "transpose"].T @ (h[k + 1] - u[k + 1] - self.stored[k + 1])
                total = total + self.passed("transpose", k, back)
            if role == "h" and k == self.depth - 1 and y is not None:
                total = total - beta * (h[k] - y)
            found.append(total)
        return np.concatenate(found)

    def outputs(self, s: np.ndarray) -> np.ndarray:
        """What all units put out: the last layer is linear."""
        v = self.unit(s)
        for k in (self.depth - 1, 2 * self.depth - 1):
            v[self.ends[k] : self.ends[k + 1]] = s[self.ends[k] : self.ends[k + 1]]
        return v

    def slopes(self, s: np.ndarray) -> np.ndarray:
        d = self.slope(s)
        for k in (self.depth - 1, 2 * self.depth - 1):
            d[self.ends[k] : self.ends[k + 1]] = 1
        return d

    def rest(self, y: np.ndarray | None = None, beta: float = 0.0, start: np.ndarray | None = None) -> np.ndarray:
        """Where all currents are what the units put out makes them; by Newton's method."""
        s = np.zeros(self.ends[-1]) if start is None else start
        for _ in range(60):
            s = self.currents(self.outputs(s), y, beta)
        missing = lambda s: s - self.currents(self.outputs(s), y, beta)  # noqa: E731
        found = fsolve(missing, s, xtol=1e-14)
        assert np.abs(missing(found)).max() < 1e-11
        return found

    def store(self) -> None:
        """Keep h - u as they are where nothing is fed back: what an auto-zero subtracts."""
        self.fed, before = 0.0, self.fed
        parts = np.split(self.outputs(self.rest()), self.ends[1:-1])
        self.stored = [h - u for h, u in zip(parts[: self.depth], parts[self.depth :], strict=True)]
        self.fed = before

    def coupling(self) -> np.ndarray:
        """Slope of the currents with what units put out: columns by differences, of what is linear in them."""
        zero = np.zeros(self.ends[-1])
        base = self.currents(zero)
        return np.stack([self.currents(zero + e) - base for e in np.eye(len(zero))], 1)

    def contrast(self, v: np.ndarray) -> dict[str, np.ndarray]:
        """-(h - u) h^T of the layer below."""
        parts = np.split(v, self.ends[1:-1])
        h, u = parts[: self.depth], parts[self.depth :]
        below = [self.x, *h]
        found = {}
        for k in range(self.depth):
            error = (h[k] - u[k]) / self.fed ** (self.depth - 1 - k)
            found[f"layers.{k}.weight"] = -np.outer(error, below[k])
            found[f"layers.{k}.bias"] = -error
        return found

    def implicit(self, s: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        """Gradient of |h_L - y|^2 / 2 at the free state, by all copies of a weight together: dense matrices."""
        v, d, size = self.outputs(s), self.slopes(s), self.ends[-1]
        pull = np.zeros(size)
        last = slice(self.ends[self.depth - 1], self.ends[self.depth])
        pull[last] = v[last] - y
        adjoint = np.linalg.solve(np.eye(size) - (self.coupling() * d[None]).T, pull * d)
        parts, rows = np.split(v, self.ends[1:-1]), np.split(adjoint, self.ends[1:-1])
        h, u = parts[: self.depth], parts[self.depth :]
        found = {}
        for k in range(self.depth):
            below = self.x if k == 0 else h[k - 1]
            # Gains of mirrors and grounds are those of a current of one, less that of none.
            into = sum(
                row * (self.passed(role, k, np.ones(SIZES[k + 1])) - self.passed(role, k, np.zeros(SIZES[k + 1])))
                for role, row in (("h", rows[k]), ("u", rows[self.depth + k]))
            )
            found[f"layers.{k}.bias"] = np.asarray(into)
            found[f"layers.{k}.weight"] = np.outer(into, below)
            if k > 0:
                n = SIZES[k]
                gain = self.passed("transpose", k - 1, np.ones(n)) - self.passed("transpose", k - 1, np.zeros(n))
                found[f"layers.{k}.weight"] += self.fed * np.outer(h[k] - u[k], rows[k - 1] * gain)
        return found


def free_of(machine: Machine) -> Machine:
    """The machine on which the free state depends: what an auto-zero stores follows the weights, so that nothing is
    fed back there whatever they are."""
    if machine.mapped.device.auto_zero == "off":
        return machine
    quiet = copy.copy(machine)
    quiet.fed, quiet.stored = 0.0, [0.0] * machine.depth
    return quiet


@pytest.mark.parametrize(("substrate", "fields"), CASES)
def test_states_and_gradients_by_equations_of_their_own(substrate: str, fields: dict[str, Any]) -> None:
    """Free and nudged states, EP's gradient, and the implicit gradient, where every cell has a draw of its own: to
    1e-8 of equations written once more. Else a copy is shared that should not be, or a gradient is another's."""
    activation = "tanh" if substrate == "hopfield" else "hard_tanh"
    mapped, x, y = case(substrate, activation, **fields)
    system, beta = mapped.system, 1e-3
    # A second array alone feeds nothing back to a free state: h = u, and both know it.
    assert system.shared is (fields == {"transpose": "array"})
    free = relax(system, x, tolerance=1e-13)
    estimate, _ = mapped.estimate(x, y, SquaredError(), beta=beta, tolerance=1e-13, gates="live", method="energy")
    exact = adaptation_gradient(mapped, x, y, SquaredError(), tolerance=1e-13, adjoint_tolerance=1e-12)
    nudged = relax(system, x, Nudge(SquaredError(), y, beta), start=free.state, tolerance=1e-13, gates="live")
    algebra = relax(system, x, solver="newton", tolerance=1e-12).require()
    pulled = relax(
        system, x, Nudge(SquaredError(), y, beta), free.state, solver="newton", tolerance=1e-9, gates="live"
    ).require()
    learned: dict[str, np.ndarray] = {}
    implicit: dict[str, np.ndarray] = {}
    machine = Machine(mapped)
    for n in range(len(x)):
        machine.x, goal = x[n].numpy(), y[n].numpy()
        if mapped.device.auto_zero == "on":
            machine.store()
        rest = machine.rest()
        state = torch.cat([b[n] for b in free.state]).detach().numpy()
        np.testing.assert_allclose(state, rest, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(
            torch.cat([b[n] for b in algebra.state]).detach().numpy(), rest, rtol=1e-8, atol=1e-9
        )
        ends = [machine.outputs(machine.rest(goal, b, rest)) for b in (beta, -beta)]
        found = torch.cat([b[n] for b in nudged.state]).detach().numpy()
        np.testing.assert_allclose(machine.outputs(found), ends[0], rtol=1e-8, atol=1e-9)
        found = torch.cat([b[n] for b in pulled.state]).detach().numpy()
        np.testing.assert_allclose(machine.outputs(found), ends[0], rtol=1e-8, atol=1e-9)
        for name in estimate:
            plus, minus = (machine.contrast(v)[name] for v in ends)
            learned[name] = learned.get(name, 0.0) + (plus - minus) / (2 * beta * len(x))
            implicit[name] = implicit.get(name, 0.0) + free_of(machine).implicit(rest, goal)[name] / len(x)
    for name, g in estimate.items():
        for found, own in ((g, learned[name]), (exact[name], implicit[name])):
            assert np.abs(found.numpy() - own).max() <= 1e-8 * np.abs(own).max(), name


@pytest.mark.full
@pytest.mark.parametrize(
    ("substrate", "activation", "gain", "noise"),
    [("hopfield", "tanh", 4.0, 0.03), ("resistive", "relu", 3.0, 0.06)],
)
def test_newton_needs_few_sweeps(substrate: str, activation: str, gain: float, noise: float) -> None:
    """Where copies differ by so much that sweeps take hundreds or never end, Newton's method finds the state that
    the course in time comes to, in a third of the passes; steps that solve no linear system would take as many."""
    net = mlp([16, 32, 32, 8], activation, gain=gain, seed=0).double()
    x = torch.rand(6, 16, dtype=F64, generator=torch.Generator().manual_seed(1))
    fields: dict[str, Any] = {"transpose": "array", "copy_mismatch_u": noise} if substrate == "hopfield" else {}
    device = DeviceModel(copies="independent", programming_noise=noise, **fields)
    system = map_pcn(net, substrate, device, seed=0, calibration=x).system
    found = relax(system, x, solver="newton", tolerance=1e-10).require()
    plain = relax(system, x, solver="sweep", tolerance=1e-10)
    assert not bool(plain.converged.all()) or plain.iterations > 2 * found.iterations
    in_time = relax(system, x, solver="euler", tolerance=1e-10).require()
    for a, b in zip(found.state, in_time.state, strict=True):
        assert float((a - b).abs().max()) < 1e-7
    assert found.iterations < in_time.iterations / 3


def test_kirchhoff_in_volts_and_siemens() -> None:
    """Node by node, sum of G (V - v) = 0 with the rails' volts and a leak: to 1e-10 of the layers. Else the
    resistive network's layers are not its circuit, where its three arrays differ."""
    mapped, x, _ = case("resistive", "linear", leaks="trimmed", levels=None)
    system, device = mapped.system, mapped.device
    state = relax(system, x, tolerance=1e-13).state
    volts = [device.voltage / full for full in system.full_scales]
    nodes = [b.detach().numpy() * volts[1 + n % 3] for n, b in enumerate(state)]
    h, u = nodes[:3], nodes[3:]
    below = [x.numpy() * volts[0], *h]
    for k, role in itertools.product(range(3), "hu"):
        node = (h if role == "h" else u)[k]
        into, cells = np.zeros_like(node), np.zeros(node.shape[1])
        for part in ("weight", "bias"):
            plus, minus, _ = conductances(mapped, f"layers.{k}.{part}", role)
            plus, minus = (g.reshape(len(cells), -1) for g in (plus, minus))
            drive = below[k] if part == "weight" else np.full((len(x), 1), device.voltage)
            rail = system.gains[k][f"layers.{k}.{part}"] * drive
            into, cells = into + rail @ (plus - minus).T, cells + (plus + minus).sum(1)
        if role == "h" and k < 2:
            plus, minus, _ = conductances(mapped, f"layers.{k + 1}.weight", "transpose")
            rail = system.gains[k][f"layers.{k + 1}.weight (transposed)"] * (h[k + 1] - u[k + 1])
            into, cells = into + rail @ (plus - minus), cells + (plus + minus).sum(0)
        leak = system.total[k] - cells
        assert (leak >= -1e-18).all()
        np.testing.assert_allclose(into - node * (cells + leak), 0, atol=1e-10 * np.abs(into).max())


# -- draws -------------------------------------------------------------------------------------------------------


def cells_of(substrate: str, copies: str, **fields: Any) -> tuple[Mapped, list[torch.Tensor]]:
    mapped, _, _ = case(substrate, copies=copies, **fields)
    return mapped, [mapped.system.arrays(1, role).weight for role in ("h", "u", "transpose")]


@pytest.mark.parametrize(
    "fields",
    [
        {"programming_noise": 0.02},
        {"device_mismatch": 0.02},
        {"stuck_on": 0.1},
        {"drift_exponent": 0.05, "drift_spread": 0.05, "drift_time": 1e4},
    ],
    ids=lambda f: next(iter(f)),
)
@pytest.mark.parametrize("substrate", ["resistive", "oscillator"])
def test_each_imperfection_is_drawn_a_cell(substrate: str, fields: dict[str, float]) -> None:
    """All of them, not only some: one that stays shared hides what it costs. Those that drive h are the cells that
    shared copies have, so that the two can be compared."""
    clean = dict.fromkeys(ERRING, 0.0) | {"levels": None}
    _, (h, u, back) = cells_of(substrate, "independent", **{**clean, **fields})
    mapped, shared = cells_of(substrate, "shared", **{**clean, **fields})
    assert torch.equal(h, shared[0])
    assert all(torch.equal(shared[0], other) for other in shared)
    meant = mapped.network.stack[1].weight.detach()
    errors = [(w - meant).flatten() for w in (h, u, back)]
    for a, b in itertools.combinations(errors, 2):
        assert float((a - b).norm()) > 0.3 * float(a.norm())
        if "drift_exponent" not in fields:  # whose mean is common
            assert abs(float(torch.nn.functional.cosine_similarity(a, b, dim=0))) < 0.6
    if "stuck_on" in fields:
        assert not torch.equal(errors[0] != 0, errors[1] != 0)


def test_without_draws_copies_are_one() -> None:
    """Ideal devices, and levels alone, leave all cells of a weight alike: then three arrays must not cost three
    times, and every figure of an ideal substrate stays what it was to the bit."""
    for fields in ({}, {"levels": 16}):
        for substrate in ("hopfield", "resistive", "oscillator"):
            base = {name: None if name == "levels" else 0.0 for name in ERRING}
            fields_ = {**base, **fields}
            one, three = (case(substrate, copies=copies, **fields_) for copies in ("shared", "independent"))
            assert three[0].system.shared
            mapped, x, y = three
            a, b = (m.gradient(x, y, SquaredError(), beta=0.01) for m in (one[0], mapped))
            assert all(torch.equal(a[name], b[name]) for name in a)


def test_copy_mismatch_adds_in_every_mode() -> None:
    """copies='shared', copy_mismatch_transpose=0.03 is one array with a second of its own; with independent draws
    the same factors act on other cells."""
    for copies in ("shared", "independent", "trimmed"):
        _, plain = cells_of("resistive", copies)
        mapped, (h, u, back) = cells_of("resistive", copies, copy_mismatch_transpose=0.03)
        assert torch.equal(h, plain[0])
        assert torch.equal(u, plain[1])
        gap = float((back - plain[2]).norm() / plain[2].norm())
        assert 0.01 < gap < 0.2, copies
        assert not mapped.system.read_both_ways
    net = mlp([4, 5, 3], "tanh").double()
    system = map_pcn(net, "hopfield", DeviceModel(copies="shared", copy_mismatch_transpose=0.03)).system
    assert system.physical("layers.1.weight") == {
        "layers.1.weight": ("h", "u"),
        "layers.1.weight/transpose": ("transpose",),
    }


def test_trimmed_copies_are_within_tolerance() -> None:
    """Each copy's cells are as close to the first's as the tolerance says, but for those that are told as missed;
    and it takes as many writings as the chance that one is within it says, cell by cell."""
    for tolerance in (1e-2, 1e-3):
        fields = {"stuck_off": 0.0, "levels": None, "device_mismatch": 0.0}
        mapped, _ = cells_of("resistive", "trimmed", trim_tolerance=tolerance, trim_attempts=10**6, **fields)
        system, device = mapped.system, mapped.device
        span = device.g_max - device.g_min
        beyond, expected, variance = 0, 0.0, 0.0
        for key, cells in system.cells.items():
            first = system.cells[key.split("/")[0]]
            if cells is first or "/" not in key:
                continue
            for side in ("plus", "minus"):
                wanted = getattr(first, side).numpy()
                beyond += int((np.abs(getattr(cells, side).numpy() - wanted) > tolerance * span * (1 + 1e-6)).sum())
                # Only what is within the range can be asked for.
                off = (wanted - np.clip(wanted, device.g_min, device.g_max)) / (device.programming_noise * span)
                chance = np.diff(norm.cdf(np.stack([off - tolerance / 0.02, off + tolerance / 0.02])), axis=0)
                expected += float((1 / chance).sum())
                variance += float(((1 - chance) / chance**2).sum())
        assert beyond == system.missed == 0
        assert abs(system.writings - expected) < 4 * math.sqrt(variance)


def test_physical_cells_are_counted() -> None:
    """One array read both ways, two, three with the dummies on u: a report that counts a weight once hides area."""
    weights = 5 * 7 + 7 * 6 + 6 * 3 + 16
    inner = 7 * 6 + 6 * 3  # those that feed back
    expected = {
        ("hopfield", None): 2 * weights,
        ("hopfield", "array"): 2 * (weights + inner),
        ("oscillator", None): 2 * (2 * weights + inner),
        ("resistive", None): 2 * (2 * weights + 2 * inner),
    }
    for (substrate, transpose), cells in expected.items():
        found = case(substrate, transpose=transpose)[0].fidelity
        assert (found.weights, found.cells) == (weights, cells), substrate
        assert found.copies == "independent"
    assert case("resistive", dummy_cells="none")[0].fidelity.cells == 2 * (2 * weights + inner)


def test_contradictions_are_one_line() -> None:
    """What cannot be both is refused where it is said, not left to whichever is looked at first."""
    for name in ("copy_mismatch_transpose", "copy_mismatch_h"):
        with pytest.raises(InputError, match=rf"^Argument {name} must be 0 where one array .* but was 0\.03\.$"):
            DeviceModel(transpose="slots", **{name: 0.03})
    net = mlp([4, 5, 3], "relu")
    with pytest.raises(InputError, match=r"^Argument copies must be 'independent', .* but was 'own'\.$"):
        map_pcn(net, copies="own")
    for substrate in ("resistive", "oscillator"):
        with pytest.raises(NotRealisable, match=rf"cannot be realised on the substrate '{substrate}': its c"):
            map_pcn(net, substrate, transpose="slots")
        with pytest.raises(InputError, match=r"transpose must be left out .* \('hopfield' does\)"):
            map_pcn(net, substrate, transpose="array")
    with pytest.raises(InputError, match=r"mirror_mismatch must be left out .* \('hopfield' does\)"):
        map_pcn(net, "resistive", DeviceModel(mirror_mismatch=0.01))
    with pytest.raises(InputError, match=r"dummy_cells must be left out .* \('resistive' does\)"):
        map_pcn(net, "hopfield", DeviceModel(dummy_cells="none"))


@pytest.mark.parametrize(
    ("calibration", "says"),
    [
        (torch.rand(3, 5), r"be a tensor \(batch, 4\), but was \(3, 5\)"),
        (torch.rand(0, 4), r"hold at least one example, but was of shape \(0, 4\)"),
        (torch.full((2, 4), math.nan), "be finite, but was NaN or infinite entries"),
        ([[1, 2, 3, 4]], r"be a tensor \(batch, 4\), but was list"),
    ],
)
def test_another_calibration_is_named(calibration: Any, says: str) -> None:
    """The line speaks of an argument that was not given."""
    with pytest.raises(InputError, match=rf"^Argument calibration must {says}\.$"):
        map_pcn(mlp([4, 5, 3], "relu"), "resistive", calibration=calibration)


def test_u_without_dummies_is_faster() -> None:
    """u has no cells that feed back: its time constant over that of h is the share of cells that drive it."""
    system = case("resistive", dummy_cells="none")[0].system
    found = [torch.as_tensor(slow, dtype=F64).unique() for slow in system.slowness]
    for slow, share in zip(found, (6 / (6 + 6), 8 / (8 + 3), 1.0), strict=True):
        assert slow.tolist() == pytest.approx([share])
    assert system.default_solver == "flow"


@pytest.mark.full
def test_copies_learn_each_by_itself() -> None:
    """In situ, every physical cell makes of the pulses what it can; trimmed ones follow the first; and going on
    from a saved state is going on."""
    for copies in ("independent", "trimmed", "shared"):
        mapped, x, y = case("resistive", copies=copies, pulse_noise=0.005, pulse_spread=0.1, levels=128)
        learner = InSitu(mapped, lambda p: torch.optim.SGD(p, lr=0.5), headroom=2.0)
        assert len(learner.arrays) == (6 if copies != "independent" else 3 * 3 + 3 * 2)
        learner.step(x, y, SquaredError(), beta=0.05, tolerance=1e-8)
        saved = copy.deepcopy(learner.state_dict())
        cells = [mapped.system.arrays(1, role).weight.clone() for role in ("h", "u", "transpose")]
        assert torch.equal(cells[0], cells[1]) is (copies == "shared")
        twin = InSitu(case("resistive", copies=copies, pulse_noise=0.005, pulse_spread=0.1, levels=128)[0],
                      lambda p: torch.optim.SGD(p, lr=0.5), headroom=2.0)  # fmt: skip
        twin.load_state_dict(saved)
        for learning in (learner, twin):
            learning.step(x, y, SquaredError(), beta=0.05, tolerance=1e-8)
        for role in ("h", "u", "transpose"):
            a, b = (m.mapped.system.arrays(1, role).weight for m in (learner, twin))  # type: ignore[arg-type]
            assert torch.equal(a, b), (copies, role)
        if copies == "trimmed":
            gap = (mapped.system.arrays(1, "u").weight - mapped.system.arrays(1, "h").weight).abs()
            assert float(gap.median()) <= 2e-3 * mapped.system.scales["layers.1.weight"] * 99e-6
            assert learner.writings == twin.writings > 0


# -- references --------------------------------------------------------------------------------------------------


def small(activation: str = "tanh") -> PredictiveCodingNetwork:
    return mlp([4, 6, 5, 3], activation, gain=1.0, seed=2).double()


def test_three_references_differ_where_copies_do() -> None:
    """With one array the machine's own gradient is backprop through it; with three it is neither that nor the ideal
    network's, and EP is nearest to it of the three only in so far as the loop is symmetric."""
    net, x, y = small(), torch.rand(3, 4, dtype=F64), torch.rand(3, 3, dtype=F64)
    device = DeviceModel(programming_noise=0.02)
    one = map_pcn(net, "hopfield", device, 1)
    found = {name: reference_gradient(name, one, x, y, SquaredError()) for name in REFERENCES}
    for name, g in found["feedforward"].items():
        np.testing.assert_allclose(found["adaptation"][name], g, atol=1e-10)
        assert float((found["transfer"][name] - g).norm()) > 1e-3 * float(g.norm())
    three = map_pcn(net, "hopfield", device.replace(transpose="array", mirror_mismatch=0.02), 1)
    own, forward = (reference_gradient(n, three, x, y, SquaredError()) for n in ("adaptation", "feedforward"))
    assert max(float((own[n] - forward[n]).norm() / forward[n].norm()) for n in own) > 1e-3
    with pytest.raises(InputError, match=r"^Argument reference must be one of .* Did you mean 'transfer'"):
        reference_gradient("transfers", one, x, y, SquaredError())


@pytest.mark.full
def test_the_implicit_gradient_by_differences() -> None:
    """Moving all copies of a weight by a little changes the free state's cost as the gradient says; else its
    adjoint runs over another network."""
    mapped, x, y = case("hopfield", "tanh", transpose="array", mirror_mismatch=0.02)
    exact, system, step = adaptation_gradient(mapped, x, y, SquaredError()), mapped.system, 1e-5

    def cost() -> float:
        state = relax(system, x, tolerance=1e-13).state
        return float(SquaredError()(mapped.decode(state), y).mean().detach())

    for k, at in ((0, (2, 1)), (1, (3, 4)), (2, (1, 2))):
        held = [system.get_parameter(f"layers.{k}.weight").data]
        held += [b for n, b in system.named_buffers() if re.fullmatch(rf"(u|transpose)/layers/{k}/weight", n)]
        found = []
        for sign in (1, -2):
            for w in held:
                w[at] += sign * step
            found.append(cost())
        for w in held:
            w[at] += step
        slope = (found[0] - found[1]) / (2 * step)
        assert float(exact[f"layers.{k}.weight"][at]) == pytest.approx(slope, rel=1e-6, abs=1e-10)


def test_free_states_of_test_examples() -> None:
    """Share and error are of the examples that have a state: an ideal circuit has all, and errs as its network."""
    net, x = small("hard_tanh"), torch.rand(20, 4, dtype=F64)
    labels = net(x).argmax(1)
    labels[:5] = (labels[:5] + 1) % 3
    found = free_state(map_pcn(net, "resistive"), x, labels, batch=8)
    assert (found.share, found.error, found.solver) == (1.0, 0.25, "sweep")
    poor = free_state(map_pcn(net, "resistive", DeviceModel(programming_noise=0.01)), x, labels)
    assert poor.solver == "guided"
    assert 0 <= poor.share <= 1
    assert not math.isnan(poor.error) or poor.share == 0


def test_shared_copies_have_one_gradient() -> None:
    """What earlier releases took for granted is still there, by its name: EP is backprop of the h arrays."""
    mapped, x, y = case("resistive", copies="shared")
    estimate = mapped.gradient(x, y, SquaredError(), beta=1e-4)
    exact = backprop_gradient(mapped.perturbed, x, y, SquaredError())
    for name, g in exact.items():
        assert float((estimate[name] - g).norm()) <= 1e-6 * float(g.norm())


# -- ways to live with copies that differ ------------------------------------------------------------------------


@pytest.mark.parametrize("gates", ["held", "live"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_weak_feedback_has_the_gradient_of_a_full_one(activation: str, gates: str) -> None:
    """On ideal devices EP's gradient is backprop's, size and all, whatever the gain of the feedback: readings are
    not divided by what the drivers have taken, or not once a layer."""
    net = mlp([6, 8, 7, 5, 3], activation, gain=1.5, seed=4).double()
    x, y = (torch.rand((5, n), generator=torch.Generator().manual_seed(n), dtype=F64) for n in (6, 3))
    exact = backprop_gradient(net, x, y, SquaredError())
    for gain in (0.1, 0.5):
        mapped = map_pcn(net, "hopfield", DeviceModel(feedback_gain=gain), calibration=x)
        found, _ = mapped.estimate(x, y, SquaredError(), beta=1e-4, gates=gates, tolerance=1e-12)
        for name, g in exact.items():
            assert (found[name] - g).abs().max() <= 1e-5 * g.abs().max(), (gain, name)


def test_an_auto_zero_keeps_the_forward_pass() -> None:
    """Where all cells err apart, the free state of a circuit with auto-zero is the forward pass of the arrays that
    drive h, and without it is another: the store is not subtracted."""
    for switch in ("on", "off"):
        mapped, x, _ = case("resistive", copies="independent", auto_zero=switch)
        outputs = mapped.decode(relax(mapped.system, x).state)
        apart = (outputs - mapped.perturbed(x)).abs().max() / outputs.abs().max()
        assert (apart < 1e-12) if switch == "on" else (apart > 1e-4)


def test_weak_feedback_bears_copies_that_a_full_one_does_not() -> None:
    """Separate cells that are 2 % off cost a network of three layers more than twice as much of the physical
    network's own gradient at full feedback as at a fifth of it, in the median of three instances: what the pages
    recommend does not help."""
    net = mlp([8, 16, 16, 4], "hard_tanh", gain=1.5, seed=2).double()
    x, y = (torch.rand((6, n), generator=torch.Generator().manual_seed(n), dtype=F64) for n in (8, 4))
    gaps: dict[float, list[float]] = {1.0: [], 0.2: []}
    for (gain, found), seed in itertools.product(gaps.items(), range(3)):
        device = DeviceModel(programming_noise=0.02, feedback_gain=gain)
        mapped = map_pcn(net, "resistive", device, seed, calibration=x)
        estimate, _ = mapped.estimate(x, y, SquaredError(), beta=1e-2, tolerance=1e-8)
        exact = adaptation_gradient(mapped, x, y, SquaredError())
        flat = [torch.cat([g[name].flatten() for name in exact]) for g in (estimate, exact)]
        found.append(1 - float(torch.cosine_similarity(*flat, dim=0)))
    assert np.median(gaps[0.2]) < 0.5 * np.median(gaps[1.0])


def test_sweeps_of_opposite_nudges_over_unequal_copies() -> None:
    """Two opposite nudges share the first pass of a sweep, whose errors are mirrored as the drives to h and to u
    are, which differ: the gradient is that of Newton's method, which knows of no sweeps."""
    mapped, x, y = case("resistive", copies="independent", auto_zero="on")
    found = {
        solver: mapped.gradient(x, y, SquaredError(), beta=1e-3, solver=solver, tolerance=1e-11, method="energy")
        for solver in ("sweep", "newton")
    }
    for name, exact in found["newton"].items():
        torch.testing.assert_close(found["sweep"][name], exact, rtol=1e-8, atol=1e-11)


def test_what_weak_feedback_and_auto_zero_cannot_do() -> None:
    """Skips, whose errors pass fewer drivers, and lists of parts, which hold no store, are refused in one line: a
    gradient or circuit of something else is given."""
    from physics_ep.predictive_coding import vgg10_skip

    with pytest.raises(NotRealisable, match="feedback_gain"):
        map_pcn(vgg10_skip(width=1 / 32), "hopfield", DeviceModel(feedback_gain=0.5))
    for substrate, fields in (("resistive", {"auto_zero": "on"}), ("oscillator", {"feedback_gain": 0.5})):
        mapped, _, _ = case(substrate, **fields)
        with pytest.raises(InputError, match=next(iter(fields))):
            mapped.to_circuit() if substrate == "resistive" else mapped.to_graph()
    for fields, word in (({"feedback_gain": 0.0}, "above 0"), ({"auto_zero": "yes"}, "'off' or 'on'")):
        with pytest.raises(InputError, match=word):
            DeviceModel(**fields)  # type: ignore[arg-type]
