"""Tolerance sweeps: if these fail, a substrate's tolerances are wrong, or hours of a sweep are lost."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import subprocess
import sys
import time
import weakref
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from hardware_models.devices.model import DeviceModel
from hardware_models.mapping.mapped import map_pcn
from physics_ep import SquaredError
from physics_ep.equilibrium import Equilibrium, NotConverged, Status
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp
from physics_ep.storage.opening import open_run
from physics_ep.storage.outputs import OutputWarning
from physics_ep.storage.parts import parts_folder
from physics_ep.storage.run_file import Run, write_run
from tests.support.paths import ROOT
from tests.support.pcn import dense
from tests.support.processes import wait_for
from tests.support.sweeps import SWEEPS, small, timeless
from validation import open_tolerance, tolerance
from validation.oracles import backprop_gradient
from validation.references import adaptation_gradient, reference_gradient
from validation.sweeps import points
from validation.sweeps.points import Experiment, draws
from validation.sweeps.tolerances import SweepInterrupted

# -- a substrate of which all is known ----------------------------------------------------------------------------


class Known:
    """Its network is the ideal one with weights scaled by a factor of the instance's; its estimate is that
    network's gradient, times 1 + `error`, and noise. Instances in `lost` find no equilibrium."""

    seeds: list[int]

    def __init__(self, error: float = 0.0, lost: tuple[int, ...] = ()) -> None:
        self.error, self.lost, self.seeds = error, lost, []
        self.alive: list[weakref.ref[torch.Tensor]] = []

    def __call__(self, net: Any, *, device: DeviceModel, seed: int, **_: Any) -> Any:
        self.seeds.append(seed)
        number = list(dict.fromkeys(self.seeds)).index(seed)
        perturbed = copy.deepcopy(net)
        with torch.no_grad():
            for p in perturbed.parameters():
                p.mul_(1 + device.programming_noise * (number + 1))

        def estimate(
            x: torch.Tensor, y: torch.Tensor, cost: Any, *, beta: Any, reads: torch.Generator, **_: Any
        ) -> tuple[dict[str, torch.Tensor], Any]:
            if number in self.lost and not device.ideal:
                far = torch.full((len(x),), math.inf)
                found = Equilibrium(far, 1e-6, 9, Status.BUDGET, lambda: (x,))
                raise NotConverged(found, "The free phase")
            # Of earlier repeats nothing may be left but the running sums.
            assert not any(ref() is not None for ref in self.alive)
            made = dict(backprop_gradient(perturbed, x, y, cost))
            for g in made.values():
                g.mul_(1 + self.error)
                g.add_(device.read_noise * torch.randn(g.shape, generator=reads))
            self.alive = [weakref.ref(g) for g in made.values()]
            there, state = torch.arange(len(x)) != 1, real.system.initial_state(x)
            phase = SimpleNamespace(
                residual=torch.tensor([1e-9, 2e-9]), iterations=3, converged=there, state=state, solver="known"
            )
            beta = 0.1 if beta == "auto" else beta
            return made, SimpleNamespace(beta=beta, equilibria=(phase, phase, phase), used=None)

        real = map_pcn(net)
        return SimpleNamespace(perturbed=perturbed, estimate=estimate, system=real.system, decode=real.decode)


def test_transfer_and_adaptation_are_never_mixed() -> None:
    """If this fails, errors that learning makes good are taken for errors of the gradient, or the other way
    round."""
    net, x, y, cost = small()
    table = tolerance(
        net, x, y, cost, sweeps={"programming_noise": [0.2]}, repeats=3, mapper=Known(error=0.5), betas=[0.1]
    )
    ideal = backprop_gradient(net, x, y, cost)
    (point,) = table.of("programming_noise")
    for k, layer in enumerate(point.layers):
        exact = ideal[layer.name]
        assert layer.feedforward.cosine == pytest.approx(1, abs=1e-12)
        assert layer.feedforward.relative_error == pytest.approx(0.5)
        np.testing.assert_array_equal(layer.adaptation.cosines, layer.feedforward.cosines)
        # The target moves with the instance, and so does the error: its spread over instances is variance.
        owns, devices = [], []
        for number in range(3):
            twin = copy.deepcopy(net)
            with torch.no_grad():
                for p in twin.parameters():
                    p.mul_(1 + 0.2 * (number + 1))
            owns.append(backprop_gradient(twin, x, y, cost)[layer.name])
            devices.append(1.5 * owns[-1])
        e = torch.stack([0.5 * g for g in owns]).flatten(1)
        size = float(torch.stack(owns).square().flatten(1).sum(1).mean())
        variance = float(e.var(0).sum())
        assert layer.feedforward.variance == pytest.approx(variance / size)
        corrected = float(e.mean(0).square().sum()) - variance / 3
        assert layer.feedforward.bias == pytest.approx(math.sqrt(max(corrected, 0) / size))
        cosines = [float((g * exact).sum() / g.norm() / exact.norm()) for g in devices]
        assert layer.transfer.cosines == pytest.approx(cosines)
        assert layer.transfer.cosine == pytest.approx(np.mean(cosines))
        assert layer.transfer.worst_cosine == pytest.approx(min(cosines))
        low, high = layer.transfer.cosine_interval
        assert -1 <= low <= layer.transfer.cosine <= high <= 1
        errors = [float((g - exact).norm() / exact.norm()) for g in devices]
        assert layer.transfer.relative_error == pytest.approx(np.mean(errors))
        assert layer.transfer.worst_relative_error == pytest.approx(max(errors))
        assert point.layers[k].name == list(ideal)[k]
    assert (point.residual, point.sweeps, point.repeats) == (pytest.approx(2e-9), 3, 3)
    # One of the four examples has no free state, by the phases that were found.
    wrong = (net(x).argmax(1) != y.argmax(1))[[0, 2, 3]].double().mean()
    assert (point.free_share, point.free_error, point.solver) == (0.75, pytest.approx(float(wrong)), "known")
    assert point.strength == pytest.approx(0.1)
    assert table.worst("programming_noise") is point


def test_comparisons_are_paired_and_gradients_are_not_kept() -> None:
    """If this fails, differences between values are differences between draws; and memory grows with the
    repeats."""
    net, x, y, cost = small()
    known = Known()
    table = tolerance(net, x, y, cost, sweeps={"read_noise": [1e-3, 2e-3]}, repeats=4, mapper=known, seed=5)
    assert known.seeds[1:5] == known.seeds[5:9]  # after the ideal point, which is one repeat
    assert len(set(known.seeds)) == 4
    first, second = table.of("read_noise")
    for a, b in zip(first.layers, second.layers, strict=True):
        assert 2 * a.transfer.relative_errors == pytest.approx(b.transfer.relative_errors, rel=1e-9)
        assert len(set(a.transfer.relative_errors)) == 4
    other = Known()
    tolerance(net, x, y, cost, sweeps={"read_noise": [1e-3]}, repeats=4, mapper=other, seed=6)
    assert not set(known.seeds) & set(other.seeds)


def test_repeats_without_equilibrium_are_counted() -> None:
    """If this fails, a state that is no equilibrium enters a mean, or a device that fails vanishes from the
    table."""
    net, x, y, cost = small()
    given = {"sweeps": {"read_noise": [1e-3]}, "repeats": 4}
    whole = tolerance(net, x, y, cost, mapper=Known(), **given).of("read_noise")[0]
    some = tolerance(net, x, y, cost, mapper=Known(lost=(1, 2)), **given).of("read_noise")[0]
    assert (some.repeats, some.unconverged) == (4, 2)
    kept = whole.layers[0].transfer.cosines[[0, 3]]
    assert some.layers[0].transfer.cosine == kept.mean()
    assert some.layers[0].transfer.count == 2
    table = tolerance(net, x, y, cost, mapper=Known(lost=(0, 1, 2, 3)), **given)
    (none,) = table.of("read_noise")
    assert none.unconverged == 4
    assert math.isnan(none.residual)
    assert math.isnan(none.worst_layer().transfer.worst_cosine)
    assert table.worst("read_noise") is none
    assert table.figures()["unconverged"] == 4
    # The free states are sought for by themselves, where no gradient tells of them.
    assert (none.free_share, none.solver) == (1.0, "sweep")


@pytest.mark.full
def test_three_references_each_once_an_instance(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If this fails, adaptation is feedforward under another name, or the dear one is computed where the cheap one
    is it."""
    net, x, y, cost = small()
    asked = []

    def counted(mapped: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(mapped.seed)
        return adaptation_gradient(mapped, *arguments, **options)

    monkeypatch.setattr(points, "adaptation_gradient", counted)
    sweeps = {"programming_noise": [0.05], "mirror_mismatch": [0.02]}
    out = tmp_path / "sweep.h5"
    table = tolerance(net, x, y, cost, sweeps=sweeps, repeats=2, betas=[0.01], out=out)
    (one,), (mirrors,) = (table.of(field) for field in sweeps)
    assert asked == [points.instance_seed(0, r) for r in range(2)]  # none with one array
    for layer in one.layers:
        np.testing.assert_array_equal(layer.adaptation.cosines, layer.feedforward.cosines)
        assert layer.transfer.cosine < layer.feedforward.cosine
    for r in range(2):
        mapped = map_pcn(net, "hopfield", DeviceModel(mirror_mismatch=0.02), asked[r], calibration=x)
        estimate, _ = mapped.estimate(x, y, cost, beta=0.01)
        for layer in mirrors.layers:
            g = estimate[layer.name]
            for target in ("transfer", "feedforward", "adaptation"):
                exact = reference_gradient(target, mapped, x, y, cost)[layer.name]
                cosine = float((g * exact).sum() / g.norm() / exact.norm())
                assert getattr(layer, target).cosines[r] == pytest.approx(cosine, abs=1e-9)
    worst = {
        target: getattr(mirrors.worst_layer(target), target).cosine for target in ("feedforward", "adaptation")
    }
    assert worst["feedforward"] < worst["adaptation"] - 1e-5
    assert (one.free_share, one.solver, mirrors.free_share, mirrors.solver) == (1.0, "sweep", 1.0, "guided")
    again = open_tolerance(out)
    assert timeless(again) == timeless(table)
    assert again.of("mirror_mismatch")[0].solver == "guided"


def test_former_adaptation_is_read_as_feedforward(tmp_path: Path) -> None:
    """If this fails, tables of two meanings stand side by side under one name; and old sweeps can go on."""
    given: dict[str, Any] = {"sweeps": {"mirror_mismatch": [0.02]}, "repeats": 2, "betas": [0.01]}
    new, old = tmp_path / "new.h5", tmp_path / "old.h5"
    table = tolerance(*small(), **given, out=new)
    run = open_run(new)
    former = {
        name: q
        for name, q in run.metrics.items()
        if not name.startswith(("adaptation", "free_", "live_", "settled"))
    }
    former = {name.replace("feedforward_", "adaptation_"): q for name, q in former.items()}
    write_run(old, Run(run.attributes, metrics=former))
    with pytest.warns(OutputWarning, match="it is read as 'feedforward', and there is no adaptation in it"):
        read = open_tolerance(old)
    for was, now in zip(table.points, read.points, strict=True):
        assert math.isnan(now.free_share)
        assert now.solver == ""
        for a, b in zip(was.layers, now.layers, strict=True):
            np.testing.assert_array_equal(a.feedforward.cosines, b.feedforward.cosines)
            np.testing.assert_array_equal(a.transfer.cosines, b.transfer.cosines)
            assert np.isnan(b.adaptation.cosines).all()
    with pytest.warns(OutputWarning, match="there is no adaptation"):
        assert tolerance(*small(), **given, out=old, resume=True).complete


# -- the substrate ------------------------------------------------------------------------------------------------


def test_what_the_physics_says() -> None:
    """If this fails, the table is not that of the mapped network: ideal devices must agree with backprop, static
    errors of a shared array must spoil the transfer only, and read noise both; the closer a network is to ideal the
    better."""
    net, x, y, cost = small()
    table = tolerance(net, x, y, cost, sweeps=SWEEPS, repeats=3, betas=[0.01])
    (ideal,) = table.of("ideal")
    assert ideal.repeats == 1
    assert ideal.worst_layer("transfer").transfer.cosine > 1 - 1e-6
    (shared,) = table.of("programming_noise")
    assert shared.worst_layer("adaptation").adaptation.cosine > 1 - 1e-5
    assert shared.worst_layer("feedforward").feedforward.cosine > 1 - 1e-5
    assert shared.worst_layer("transfer").transfer.cosine < 1 - 1e-4
    coarse, fine = (point.worst_layer().transfer.cosine for point in table.of("levels"))
    assert coarse < fine < 1 - 1e-7
    quiet, noisy = table.of("read_noise")
    assert quiet.layers[0].transfer.relative_errors[0] == ideal.layers[0].transfer.relative_errors[0]
    for target in ("transfer", "feedforward", "adaptation"):
        assert getattr(noisy.worst_layer(target), target).variance > 1e-3
    assert all(point.unconverged == 0 and point.residual < 1e-9 and point.seconds > 0 for point in table.points)
    assert len(table.rows) == len(table.points) == 6
    assert table.rows[0]["transfer"]["layer"].startswith("layers.")


def test_the_method_of_a_sweep_is_asked_for_and_kept(tmp_path: Path) -> None:
    """Where copies differ, default sweeps follow asymmetric EP, which adapts exactly; ordinary EP is asked for.

    A file of one method does not go on with another, and dyadic EP, whose pairs these units are, is refused.
    """
    net, out = mlp([4, 6, 3], "tanh", seed=1).double(), tmp_path / "s.h5"
    x, y = torch.rand(4, 4, dtype=torch.float64), torch.eye(4, 3, dtype=torch.float64)
    options = {"sweeps": {"copy_mismatch_transpose": [0.1]}, "repeats": 1, "betas": (1e-3,)}
    gaps = {}
    for method in ("energy", None):
        given = {} if method is None else {"method": method, "out": out}
        (point,) = tolerance(net, x, y, SquaredError(), **options, **given).of("copy_mismatch_transpose")
        gaps[method] = max(1 - layer.adaptation.cosine for layer in point.layers)
    assert gaps[None] < 1e-9
    assert gaps["energy"] > 1e-4
    with pytest.raises(InputError, match="method"):
        tolerance(net, x, y, SquaredError(), **options, out=out, resume=True)
    with pytest.raises(InputError, match="whose units are pairs of states"):
        tolerance(net, x, y, SquaredError(), **options, method="dyadic")


def test_one_repeat_where_nothing_is_drawn() -> None:
    """If this fails, equal repeats take their time, or random ones are judged by one."""
    assert not draws(DeviceModel(levels=4, adc_bits=8, drift_exponent=0.1, drift_time=1e3))
    for name in ("stuck_on", "read_noise", "copy_mismatch_u", "amplifier_offset"):
        assert draws(DeviceModel(levels=4, **{name: 0.1}))
    assert draws(DeviceModel(drift_spread=0.01, drift_time=1e3))
    net, x, y, cost = small()
    table = tolerance(
        net, x, y, cost, device=DeviceModel(levels=16), sweeps={"dac_bits": [8], "stuck_off": [0.01]}, repeats=2
    )
    assert [(p.field, p.repeats) for p in table.points] == [
        ("ideal", 1),
        ("base", 1),
        ("dac_bits", 1),
        ("stuck_off", 2),
    ]
    signs = tolerance(net, x, y, cost, sweeps={"levels": [4]}, scheme="random", betas=[1e-3], repeats=2)
    assert {p.repeats for p in signs.points} == {2}
    cosines = signs.of("ideal")[0].layers[0].transfer.cosines
    assert cosines[0] != cosines[1]


# -- files --------------------------------------------------------------------------------------------------------

RUNNER = """
import sys, time
import torch
torch.set_num_threads(1)
from validation import tolerance
from validation.sweeps.points import Experiment
from tests.support.sweeps import SWEEPS, small, timeless
measure, left = Experiment.measure, [int(sys.argv[3])]
def logged(self, device, beta):
    with open(sys.argv[2], "a") as log:
        print(f"{device.levels} {device.programming_noise} {device.read_noise} {beta}", file=log, flush=True)
    left[0] -= 1
    time.sleep(0.03 if left[0] > 0 else 1000)  # the last point waits for the kill, which may come late
    return measure(self, device, beta)
Experiment.measure = logged
tolerance(*small(), sweeps=SWEEPS, repeats=2, betas=[0.01, 0.02], out=sys.argv[1], resume=True)
"""


@pytest.mark.full
def test_kills_lose_no_point_and_repeat_none(tmp_path: Path) -> None:
    """kill -9 at several moments: the resumed sweep is the uninterrupted one, to the bit, and measures nothing
    twice that was kept."""
    out, log = tmp_path / "sweep.h5", tmp_path / "log"
    folder = parts_folder(out)
    straight = tolerance(*small(), sweeps=SWEEPS, repeats=2, betas=[0.01, 0.02], out=tmp_path / "straight.h5")
    total, lines = len(straight.points), []
    for least, delay in ((1, 0.0), (4, 0.02), (8, 0.035)):
        kept = len(list(folder.glob("*.h5")))
        log.write_text("")
        command = [sys.executable, "-c", RUNNER, str(out), str(log), str(total - kept)]
        with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as child:
            wait_for(lambda least=least: len(list(folder.glob("*.h5"))) >= least, child, pause=0.002)
            time.sleep(delay)
            child.send_signal(signal.SIGKILL)
        lines.append((kept, log.read_text().splitlines(), len(list(folder.glob("*.h5")))))
        assert not out.exists()
        partial = open_tolerance(out)
        assert not partial.complete
        assert len(partial.points) == lines[-1][2] < total == partial.planned
    # Begun were exactly those that were missing, and at most one of them was not kept.
    for before, begun, after in lines:
        assert len(begun) == len(set(begun))
        assert after - before <= len(begun) <= after - before + 1
    done = len(list(folder.glob("*.h5")))
    calls = 0
    measure = Experiment.measure

    def counted(self: Experiment, device: Any, beta: Any) -> Any:
        nonlocal calls
        calls += 1
        return measure(self, device, beta)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experiment, "measure", counted)
        resumed = tolerance(*small(), sweeps=SWEEPS, repeats=2, betas=[0.01, 0.02], out=out, resume=True)
        assert calls == total - done
        assert not folder.exists()
        # Complete, it is read and not measured.
        again = tolerance(*small(), sweeps=SWEEPS, repeats=2, betas=[0.01, 0.02], out=out, resume=True)
        assert calls == total - done
    assert timeless(resumed) == timeless(straight) == timeless(again) == timeless(open_tolerance(out))
    assert resumed.points[-1].seconds == open_tolerance(out).points[-1].seconds


def test_sweep_files_explain_themselves(tmp_path: Path) -> None:
    """If this fails, nobody knows next year what was swept, or in which units."""
    out = tmp_path / "sweep.h5"
    table = tolerance(*small(), sweeps={"read_noise": [1e-3]}, repeats=2, out=out)
    with h5py.File(out) as file:
        for held in file["metrics"].values():
            assert held.attrs["units"]
            assert held.attrs["description"]
        assert file["metrics/seconds"].attrs["units"] == "s"
        assert file["metrics/transfer_cosine"].shape == (2, 6, 2)
        own = json.loads(file.attrs["config"])["tolerance"]
        assert json.loads(file.attrs["versions"])["torch"]
        assert file.attrs["seed"] == 0
    assert own["base"] == json.loads(DeviceModel().to_json())
    assert own["sweeps"] == {"read_noise": [1e-3]}
    assert len(own["weights"]) == len(own["examples"]) == 64
    assert open_tolerance(out).config == table.config
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(InputError, match="damaged or truncated"):
        open_tolerance(tmp_path / "text.h5")
    with pytest.raises(InputError, match="which is no file"):
        open_tolerance(tmp_path / "none.h5")


def test_another_sweep_is_not_resumed(tmp_path: Path) -> None:
    """If this fails, points of two networks or devices end up in one table."""
    out = tmp_path / "sweep.h5"
    net, x, y, cost = small()
    given: dict[str, Any] = {"sweeps": {"levels": [4]}, "repeats": 2, "out": out}
    tolerance(net, x, y, cost, **given)
    with pytest.raises(InputError, match="out must be a new file"):
        tolerance(net, x, y, cost, **given)
    other = dense(3, width=8, n_in=6, seed=1)
    for must, network, changes in (
        ("weights must be '", other, {}),
        (r"sweeps.levels must be \[4\], as in .*, but was \[8\]", net, {"sweeps": {"levels": [8]}}),
        ("repeats must be 2, .* but was 3", net, {"repeats": 3}),
        ("seed must be 0, .* but was 1", net, {"seed": 1}),
        ("base.g_min must be 1e-06, .* but was 1e-05", net, {"device": DeviceModel(g_min=1e-5)}),
        ("options.solver must be None, .* but was", net, {"solver": "sweep"}),
        ("sweeps must be of fields that act on a network that is held", net, {"sweeps": {"pulse_noise": [0.1]}}),
        (
            "come with a device that sets drift_time, without which it does nothing",
            net,
            {"sweeps": {"drift_exponent": [0.1]}},
        ),
    ):
        with pytest.raises(InputError, match=must):
            tolerance(network, x, y, cost, **{**given, **changes}, resume=True)
    # The same from the parts of one that is not complete.
    with pytest.raises(SweepInterrupted):
        tolerance(net, x, y, cost, **{**given, "out": tmp_path / "b.h5"}, progress=Stop(1))
    with pytest.raises(InputError, match="out must be a new file"):
        tolerance(net, x, y, cost, **{**given, "out": tmp_path / "b.h5"})
    with pytest.raises(InputError, match="seed must be 0"):
        tolerance(net, x, y, cost, **{**given, "out": tmp_path / "b.h5"}, seed=1, resume=True)
    assert tolerance(net, x, y, cost, **{**given, "out": tmp_path / "b.h5"}, resume=True).complete


class Stop:
    """Progress that is stopped by Ctrl-C after so many points."""

    def __init__(self, points: int) -> None:
        self.left = points

    @contextmanager
    def task(self, description: str, total: int) -> Any:
        def advance(n: int = 1, **info: Any) -> None:
            self.left -= bool(info)
            if self.left < 0 or (info and self.left == 0):
                raise KeyboardInterrupt

        yield advance
