"""Held gates beside live ones in reports: each column is right by itself, and says how many examples settle."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.gates import compare_gates
from physics_ep import cli
from physics_ep.cost import SquaredError
from physics_ep.equilibrium import NotConverged
from physics_ep.predictive_coding import PredictiveCodingNetwork, vgg5
from tests.support.pcn import dense, examples
from validation import backprop_gradient, gradient_report, tolerance
from validation.gradients import total_error
from validation.sweeps.tolerances import open_tolerance

BETA = 0.05


def small(activation: str = "relu", energy: str = "paired", depth: int = 3) -> PredictiveCodingNetwork:
    return dense(depth, activation, width=12, n_in=8, gain=2.0, energy=energy)


def data(size: int = 6) -> tuple[torch.Tensor, torch.Tensor, SquaredError]:
    x, y = examples((8,), size, SquaredError())
    return x, y, SquaredError()


# -- brute force --------------------------------------------------------------------------------------------------


def unit(name: str, v: np.ndarray) -> np.ndarray:
    return np.maximum(v, 0) if name == "relu" else np.clip(v, -1, 1)


def nudged(net: PredictiveCodingNetwork, x: np.ndarray, y: np.ndarray, beta: float) -> list[Any]:
    """h and u of paired RC nodes followed in time by small steps: dp/dt = -p + W h + b + W^T (h - u), with live
    gates; no part of the package takes part."""
    names = [layer.activation_name for layer in net.stack]
    weights = [layer.weight.detach().numpy() for layer in net.stack]
    biases = [layer.bias.detach().numpy() for layer in net.stack]
    depth = len(weights)
    p = [np.zeros((len(x), len(b))) for b in biases]
    q = [v.copy() for v in p]
    for _ in range(4000):
        h = [v if n == "linear" else unit(n, v) for n, v in zip(names, p, strict=True)]
        u = [v if n == "linear" else unit(n, v) for n, v in zip(names, q, strict=True)]
        for k in range(depth):
            drive = (x if k == 0 else h[k - 1]) @ weights[k].T + biases[k]
            fed = -beta * (h[k] - y) if k == depth - 1 else (h[k + 1] - u[k + 1]) @ weights[k + 1]
            p[k] = p[k] + 0.1 * (drive + fed - p[k])
            q[k] = q[k] + 0.1 * (drive - q[k])
    return [h, u, p]


def brute(net: PredictiveCodingNetwork, x: torch.Tensor, y: torch.Tensor, beta: float) -> dict[str, torch.Tensor]:
    """EP's centered estimate from the states of `nudged`: -(h - u) h^T of the layer below, contrasted."""
    found: dict[str, torch.Tensor] = {}
    ends = [nudged(net, x.numpy(), y.numpy(), sign * beta) for sign in (1, -1)]
    for k in range(len(net.stack)):
        outer, sums = [], []
        for h, u, _ in ends:
            below = x.numpy() if k == 0 else h[k - 1]
            outer.append(-(h[k] - u[k]).T @ below / len(x))
            sums.append(-(h[k] - u[k]).mean(0))
        found[f"layers.{k}.weight"] = torch.from_numpy((outer[0] - outer[1]) / (2 * beta))
        found[f"layers.{k}.bias"] = torch.from_numpy((sums[0] - sums[1]) / (2 * beta))
    return found


def switches(net: PredictiveCodingNetwork, x: torch.Tensor, y: torch.Tensor, beta: float) -> int:
    """Units that are on another side of a kink when they are nudged."""
    names = [layer.activation_name for layer in net.stack]
    sides = []
    for b in (0.0, beta, -beta):
        _, _, p = nudged(net, x.numpy(), y.numpy(), b)
        sides.append([v > 0 if n == "relu" else np.abs(v) < 1 for n, v in zip(names[:-1], p, strict=False)])
    return sum(int((a != c).sum()) for other in sides[1:] for a, c in zip(sides[0], other, strict=True))


@pytest.mark.parametrize("activation", ["relu", pytest.param("hard_tanh", marks=pytest.mark.full)])
def test_live_gates_against_brute_force(activation: str) -> None:
    """Live columns are not the error that switching units make: of a network, of a mapped one, and in a sweep."""
    net = small(activation)
    x, y, cost = data()
    exact = backprop_gradient(net, x, y, cost)
    assert switches(net, x, y, BETA) > 0
    estimate = brute(net, x, y, BETA)
    wanted = total_error(estimate, exact)
    found = gradient_report(net, x, y, cost, beta=BETA, gates="both")
    live = found.live
    assert live is not None
    assert (found.gates, live.gates, found.settled, live.settled, live.examples) == ("held", "live", 6, 6, 6)
    assert live.relative_error == pytest.approx(wanted, rel=1e-5)
    assert abs(found.relative_error / wanted - 1) > 0.01  # it is another column
    for substrate in ("hopfield", "resistive"):
        mapped = map_pcn(net, substrate, calibration=x)
        own, _ = mapped.estimate(x, y, cost, beta=BETA, gates="live")
        assert total_error(own, exact) == pytest.approx(wanted, rel=1e-5)
    table = tolerance(net, x, y, cost, sweeps={}, betas=[BETA], gates="both", repeats=1)
    (ideal,) = table.of("ideal")
    assert ideal.live is not None
    for layer in ideal.live.layers:
        g, e = estimate[layer.name].flatten(), exact[layer.name].flatten()
        assert layer.transfer.relative_error == pytest.approx(float((g - e).norm() / e.norm()), rel=1e-4)
    assert (ideal.settled, ideal.live.settled, ideal.live.repeats) == (1.0, 1.0, 1)


@pytest.mark.full
def test_the_squared_energy_against_descent() -> None:
    """Live gates of the squared energy are not those of its minimum, found by plain descent through autograd."""
    net, beta = small("relu", "squared"), 0.02
    x, y, cost = data()
    weights = [layer.weight.detach() for layer in net.stack]
    biases = [layer.bias.detach() for layer in net.stack]

    def energy(states: list[torch.Tensor], parameters: list[torch.Tensor]) -> torch.Tensor:
        total, below = torch.zeros((), dtype=torch.float64), x
        for k, s in enumerate(states):
            drive = below @ parameters[k].T + biases[k]
            total = total + 0.5 * (s - (drive if k == len(states) - 1 else drive.relu())).square().sum()
            below = s
        return total

    slopes = []
    for nudge in (beta, -beta):
        below, states = x, []
        for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
            below = below @ w.T + b
            below = below if k == len(weights) - 1 else below.relu()
            states.append(below.clone().requires_grad_())
        for _ in range(3000):
            grads = torch.autograd.grad(energy(states, weights) + nudge * cost(states[-1], y).sum(), states)
            states = [(s - 0.1 * g).detach().requires_grad_() for s, g in zip(states, grads, strict=True)]
        leaves = [w.clone().requires_grad_() for w in weights]
        slopes.append(torch.autograd.grad(energy([s.detach() for s in states], leaves), leaves))
        assert max(float(g.abs().max()) for g in grads) < 1e-9  # at rest, on no kink
    pairs = enumerate(zip(*slopes, strict=True))
    wanted = {f"layers.{k}.weight": (a - b) / (2 * beta * len(x)) for k, (a, b) in pairs}
    found = gradient_report(net, x, y, cost, beta=beta, gates="both")
    assert found.live is not None
    assert found.live.settled == len(x)
    assert abs(found.live.relative_error / found.relative_error - 1) > 0.01
    exact = backprop_gradient(net, x, y, cost)
    for row in found.live.rows:
        if row.name in wanted:
            error = float((wanted[row.name] - exact[row.name]).norm() / exact[row.name].norm())
            assert row.relative_error == pytest.approx(error, rel=1e-5)


# -- where nothing switches --------------------------------------------------------------------------------------


def test_smooth_units_have_one_column() -> None:
    """tanh has no gates: both modes are one, wrong by O(beta^2), and a report does not repeat itself."""
    net, (x, y, cost) = small("tanh"), data()
    errors = {}
    for beta in (0.02, 0.01):
        held, live = (gradient_report(net, x, y, cost, beta=beta, gates=gates) for gates in ("held", "live"))
        assert live.relative_error == pytest.approx(held.relative_error, rel=1e-9)
        errors[beta] = held.relative_error
    assert errors[0.02] / errors[0.01] == pytest.approx(4, rel=0.05)
    assert gradient_report(net, x, y, cost, beta=0.01, gates="both").live is None
    table = tolerance(net, x, y, cost, sweeps={}, betas=[0.01], gates="both", repeats=1)
    assert table.of("ideal")[0].live is None
    assert table.config["tolerance"]["gates"] == "held"
    assert compare_gates(map_pcn(net, "hopfield", calibration=x), x) == ()


@pytest.mark.parametrize("gates", ["held", "live", "both"])
@pytest.mark.parametrize("name", ["hopfield-digits", "resistive-digits"])
def test_systems_without_gates_refuse_a_mode(name: str, gates: str, capsys: pytest.CaptureFixture[str]) -> None:
    """If it fails, a mode of gates is taken from a system that has none, and nobody is told."""
    for command in (["gradients", name], ["tolerance", name, "--sweep", "levels=4", "--repeats", "1"]):
        with pytest.raises(SystemExit) as end:
            cli.main([*command, "--batch", "2", "--gates", gates])
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "Argument gates must be left out" in line


def test_units_that_do_not_switch_are_held_anyway() -> None:
    """Below the beta at which the first unit switches, both columns are one gradient."""
    net, (x, y, cost) = small("relu"), data()
    assert switches(net, x, y, 1e-5) == 0
    found = gradient_report(net, x, y, cost, beta=1e-5, gates="both")
    assert found.live is not None
    for a, b in zip(found.rows, found.live.rows, strict=True):
        assert b.cosine == pytest.approx(a.cosine, abs=1e-12)
        assert b.relative_error == pytest.approx(a.relative_error, abs=1e-8)


def test_what_has_gates() -> None:
    """Max poolings have routes, which a mapped network holds in all phases; average poolings and tanh have none."""
    options: dict[str, Any] = {"input_shape": (3, 32, 32), "width": 0.0625}
    assert small("relu").has_gates
    assert small("hard_tanh").has_gates
    assert not small("tanh").has_gates
    net = vgg5(activation="tanh", **options)
    assert net.has_gates
    assert not map_pcn(net, "hopfield").system.has_gates
    assert map_pcn(vgg5(activation="relu", **options), "hopfield").system.has_gates


# -- what does not settle -----------------------------------------------------------------------------------------


@pytest.mark.full
def test_examples_that_do_not_settle_are_left_out_and_counted() -> None:
    """A share is made up, or the oracle is of other examples than the gradient."""
    net, (x, y, cost) = dense(3, "relu", width=12, n_in=8, gain=2.4), data(16)
    found = gradient_report(net, x, y, cost, beta=BETA, gates="both")
    live = found.live
    assert live is not None
    assert found.settled == 16
    assert 0 < live.settled < 16
    alone = []
    for k in range(16):
        try:
            one = gradient_report(net, x[k : k + 1], y[k : k + 1], cost, beta=BETA, gates="live")
        except NotConverged:
            continue
        alone.append(k)
        assert one.settled == 1
    assert len(alone) == live.settled
    wanted = gradient_report(net, x[alone], y[alone], cost, beta=BETA, gates="live")
    assert live.relative_error == pytest.approx(wanted.relative_error, rel=1e-6)
    assert live.worst_cosine == pytest.approx(wanted.worst_cosine, rel=1e-9)
    table = tolerance(net, x, y, cost, sweeps={}, betas=[BETA], gates="both", repeats=1)
    (point,) = table.of("ideal")
    assert (point.settled, point.free_share) == (1.0, 1.0)


def test_no_example_settles() -> None:
    """With live gates the column is empty, and with held ones the report is refused."""
    net, (x, y, cost) = small("relu", depth=6), data(8)
    with pytest.raises(NotConverged):
        gradient_report(net, x, y, cost, beta=0.02, gates="both", max_iterations=1)
    given: dict[str, Any] = {"beta": 0.02, "max_iterations": 8}
    lost = []
    for k in range(8):
        try:
            gradient_report(net, x[k : k + 1], y[k : k + 1], cost, gates="live", **given)
        except NotConverged:
            lost.append(k)
    found = gradient_report(net, x[lost], y[lost], cost, gates="both", **given)
    assert found.settled == len(lost) > 0
    assert found.live is not None
    assert (found.live.settled, found.live.rows) == (0, ())
    assert math.isnan(found.live.worst_cosine)


# -- sweeps, files, commands -------------------------------------------------------------------------------------


@pytest.mark.full
def test_a_sweep_with_both_is_two_sweeps(tmp_path: Path) -> None:
    """The live column is of other instances, another beta or references than a sweep with live gates alone."""
    net, (x, y, cost) = small("relu"), data(4)
    given: dict[str, Any] = {"sweeps": {"programming_noise": [0.01]}, "repeats": 2}
    out = tmp_path / "both.h5"
    both = tolerance(net, x, y, cost, betas=[0.02], gates="both", out=out, **given)
    for gates in ("held", "live"):
        alone = tolerance(net, x, y, cost, betas=[0.02], gates=gates, **given)
        for pair, wanted in zip(both.points, alone.points, strict=True):
            point = pair if gates == "held" else pair.live
            assert point is not None
            assert wanted.live is None
            assert (point.settled, point.repeats, point.unconverged) == (
                wanted.settled,
                wanted.repeats,
                wanted.unconverged,
            )
            for a, b in zip(point.layers, wanted.layers, strict=True):
                for target in ("transfer", "feedforward", "adaptation"):
                    found, right = (getattr(layer, target) for layer in (a, b))
                    np.testing.assert_allclose(found.cosines, right.cosines, atol=1e-9)
                    assert found.bias == pytest.approx(right.bias, rel=1e-6)
    again = open_tolerance(out)
    assert [p.live is not None for p in again.points] == [True] * 2
    assert json.dumps(again.figures()) == json.dumps(both.figures())
    assert {"transfer", "layers", "settled", "live"} <= set(both.figures()["points"][0])


def status(words: list[str]) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    return int(caught.value.code or 0)


@pytest.fixture
def network(tmp_path: Path) -> str:
    path = tmp_path / "net.toml"
    path.write_text('[system]\nname = "pcn"\nsizes = [8, 16, 16, 4]\nactivation = "relu"\ngain = 2.0\n')
    return str(path)


@pytest.mark.full
def test_commands_show_both(network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report of a network with gates hides what they are worth, or old fields of its JSON have gone."""
    out, alone_out, map_out, sweep_out = (tmp_path / f"{name}.json" for name in ("both", "alone", "map", "sweep"))
    words = ["gradients", network, "--beta", "0.05", "--dtype", "float64", "--json"]
    assert status([*words, str(out)]) == 0
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())
    for text in ("gates held: whole gradient", "gates live: ", " of 16 examples settle"):
        assert text in printed
    assert {"rows", "worst_cosine", "relative_error", "noise_floor", "residual", "iterations"} <= set(found)
    assert found["gates"]["held"]["rows"] == found["rows"]
    assert found["gates"]["live"]["worst_cosine"] < found["worst_cosine"]
    assert found["gates"]["live"]["settled_share"] == found["gates"]["live"]["settled"] / 16 < 1
    assert status([*words, str(alone_out), "--gates", "held"]) == 0
    alone = json.loads(alone_out.read_text())
    assert "gates" not in alone
    assert alone["rows"] == found["rows"]
    assert status(["map", network, "--json", str(map_out)]) == 0
    printed = capsys.readouterr().out
    mapped = json.loads(map_out.read_text())
    assert "held: 2 of 2 examples settle, 64 latches" in printed
    assert mapped["gates"]["held"]["latches"] == 2 * 32
    assert mapped["gates"]["live"]["latches"] == 0
    assert mapped["gates"]["held"]["latch_energy"] == pytest.approx(64 * DeviceModel().latch_energy)
    sweep = ["tolerance", network, "--sweep", "levels=16", "--repeats", "1", "--beta", "0.05"]
    sweep += ["--json", str(sweep_out)]
    assert status(sweep) == 0
    printed = capsys.readouterr().out
    assert "held gates" in printed
    assert "live gates" in printed
    points = json.loads(sweep_out.read_text())["points"]
    assert all(point["live"]["transfer"]["cosine"] is not None for point in points)
    assert status([*words, str(tmp_path / "none.json"), "--gates", "neither"]) == 2
    assert "gates must be one of both, held, live" in capsys.readouterr().err


def test_what_a_mapped_network_says_of_its_gates() -> None:
    """The line of `map` is not the gradient that EP has on the substrate."""
    net, (x, _, cost) = small("relu"), data()
    mapped = map_pcn(net, "hopfield", DeviceModel(programming_noise=0.01), 1, calibration=x)
    held, live = compare_gates(mapped, x, BETA)
    y = torch.eye(10, dtype=torch.float64)[torch.arange(6)]
    exact = backprop_gradient(mapped.perturbed, x, y, cost)
    for told in (held, live):
        own, _ = mapped.estimate(x, y, cost, beta=BETA, gates=told.gates)
        gaps = [1 - float((own[n] * g).sum() / own[n].norm() / g.norm()) for n, g in exact.items() if "weight" in n]
        assert told.gap == pytest.approx(max(gaps), rel=1e-6)
        assert (told.settled, told.examples) == (6, 6)
    assert held.gap != live.gap
