"""Tolerance sweeps: if these fail, a substrate's tolerances are wrong, or hours of a sweep are lost."""

from __future__ import annotations

import copy
import csv
import json
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from scipy import stats

from hardware_models.devices.model import DeviceModel
from hardware_models.mapping.mapped import map_pcn
from physics_ep import CrossEntropy, SquaredError, cli
from physics_ep.equilibrium import Equilibrium, NotConverged, Status
from physics_ep.errors import InputError
from physics_ep.placement import threads
from physics_ep.predictive_coding import from_module, mlp
from physics_ep.predictive_coding.layers import told_name
from physics_ep.registry import build_system
from physics_ep.storage.opening import open_run
from physics_ep.storage.outputs import OutputWarning
from physics_ep.storage.parts import parts_folder
from physics_ep.storage.run_file import Run, write_run
from tests.support.paths import ROOT
from tests.support.pcn import dense, examples
from tests.support.processes import wait_for
from tests.support.sweeps import SWEEPS, small
from validation import gradient_report, open_tolerance, tolerance
from validation.agreement import CHUNK, Agreement, Tally, interval
from validation.oracles import backprop_gradient
from validation.references import adaptation_gradient, reference_gradient
from validation.sweeps import points
from validation.sweeps.points import Experiment, draws
from validation.sweeps.store import checksum
from validation.sweeps.table import (
    LayerTolerance,
    TolerancePoint,
    ToleranceTable,
    readings,
    reasons,
    tolerance_rows,
)
from validation.sweeps.tolerances import SweepInterrupted, worth_sharing


def timeless(table: ToleranceTable) -> str:
    """All figures but the seconds, to the bit."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k != "seconds"}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return json.dumps(strip(table.figures()))


# -- statistics ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [0.0, 1e-6, 3.0])
def test_running_sums_against_all_at_once(bias: float) -> None:
    """Else bias and variance are not what they are called; targets move with the repeat."""
    generator = np.random.default_rng(0)
    targets = generator.normal(size=(7, 3, 5))
    shift = bias * generator.normal(size=(3, 5))
    estimates = targets + shift + 1e-3 * generator.normal(size=targets.shape)
    tally = Tally()
    for g, t in zip(estimates, targets, strict=True):
        cosine, error = tally.add(torch.tensor(g), torch.tensor(t))
        assert cosine == pytest.approx((g * t).sum() / np.linalg.norm(g) / np.linalg.norm(t), rel=1e-12)
        assert error == pytest.approx(np.linalg.norm(g - t) / np.linalg.norm(t), rel=1e-12)
    e = (estimates - targets).reshape(7, -1)
    size = np.square(targets).sum((1, 2)).mean()
    variance = e.var(0, ddof=1).sum()
    assert tally.variance == pytest.approx(variance / size, rel=1e-12)
    square = max(np.square(e.mean(0)).sum() - variance / 7, 0.0)
    assert tally.bias == pytest.approx(math.sqrt(square / size), rel=1e-9, abs=1e-15)


def test_bias_is_corrected_for_the_number_of_repeats() -> None:
    """Else a few noisy repeats of an unbiased estimate look biased: its square would be variance / 3 too large."""
    generator = torch.Generator().manual_seed(0)
    target, shift = torch.ones(5000, dtype=torch.float64), 0.1
    squares = []
    for _ in range(100):
        tally = Tally()
        for _ in range(3):
            tally.add(target + shift + 0.5 * torch.randn(5000, generator=generator, dtype=torch.float64), target)
        squares.append(tally.bias**2)
    assert np.mean(squares) == pytest.approx(shift**2, abs=4 * np.std(squares) / math.sqrt(100))
    assert np.mean(squares) < 0.3 * 0.25 / 3


def test_chunks_zeros_and_float32() -> None:
    """Else large tensors are judged by their first part, or an all-zero gradient as infinitely wrong."""
    tally = Tally()
    target = torch.ones(CHUNK + 3)
    estimate = target.clone()
    estimate[-1] = 5.0
    assert tally.add(estimate, target)[1] == pytest.approx(4 / math.sqrt(CHUNK + 3))
    assert Tally().add(torch.zeros(3), torch.zeros(3)) == (1.0, 0.0)
    assert Tally().add(torch.ones(3), torch.zeros(3)) == (0.0, math.inf)
    assert math.isnan(Tally().bias)
    still = Tally()
    for _ in range(4):
        still.add(torch.full((9,), 1 + 2.0**-12), torch.ones(9))
    assert still.bias == pytest.approx(2.0**-12, rel=1e-12)
    assert still.variance == 0


def test_student_interval() -> None:
    """Else the intervals are too narrow for few repeats."""
    values = np.array([0.9, 0.95, 0.97, 0.99])
    low, high = interval(np.append(values, np.nan))
    wanted = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(wanted, rel=1e-9)
    assert all(map(math.isnan, interval(values[:1])))


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
    """Else errors that learning makes good are taken for errors of the gradient, or the other way round."""
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
    """Else differences between values are differences between draws; and memory grows with the repeats."""
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
    """Else a state that is no equilibrium enters a mean, or a device that fails vanishes from the table."""
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
    """Else adaptation is feedforward under another name, or the dear one is computed where the cheap one is it."""
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
    """Else tables of two meanings stand side by side under one name; and old sweeps can go on."""
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
    """Else the table is not that of the mapped network: ideal devices must agree with backprop, static errors of a
    shared array must spoil the transfer only, and read noise both; the closer a network is to ideal the better."""
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
    """Else equal repeats take their time, or random ones are judged by one."""
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
from tests.support.sweeps import SWEEPS, small
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
    """Else nobody knows next year what was swept, or in which units."""
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
    """Else points of two networks or devices end up in one table."""
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


# -- the command --------------------------------------------------------------------------------------------------


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["tolerance", *arguments])
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


@pytest.fixture
def network(tmp_path: Path) -> str:
    """TOML file of a tiny network."""
    path = tmp_path / "net.toml"
    path.write_text('[system]\nname = "pcn"\nsizes = [6, 8, 4]\nactivation = "tanh"\n')
    return str(path)


def test_command(network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the promised command does not do what its help says, or its table and its figures differ."""
    figures, device = tmp_path / "figures.json", tmp_path / "device.json"
    targets = ("transfer", "feedforward", "adaptation")
    DeviceModel(levels=16).to_json(device)
    status, printed, _ = run(
        *(network, "--sweep", "levels=4,none", "--sweep", "programming_noise=0.1", "--beta", "0.01,auto"),
        *("--repeats", "3", "--dtype", "float64", "--batch", "3", "--json", str(figures)),
        *("--csv", str(tmp_path / "sweep.csv"), "--latex", str(tmp_path / "sweep.tex"), "--out"),
        *(str(tmp_path / "sweep.h5"), "--device-model", str(device), "--cost", "cross_entropy"),
        *(
            "--columns",
            "field, value," + ",".join(f"{t} {q}" for t in targets for q in ("1 - cosine", "relative error")),
        ),
        capsys=capsys,
    )
    assert status == 0
    found = json.loads(figures.read_text())
    fields = ["ideal"] * 2 + ["base"] * 2 + ["levels"] * 4 + ["programming_noise"] * 2
    assert [point["field"] for point in found["points"]] == fields
    assert [point["value"] for point in found["points"]][4:8] == [4, 4, None, None]
    assert found["points"][0]["layers"][0]["transfer"]["cosine"] > 0.999
    assert found["config"]["tolerance"]["dtype"] == "float64"
    assert printed.count("programming_noise") == printed.count("\n    0.1 ") == 2
    # No terminal is there whose width would break a figure in two.
    widths = re.findall(r"[±≤](\S*)", printed.replace("±:", "").replace("≤:", ""))
    assert widths
    assert all(re.fullmatch(r"\d(\.\d)?e-\d\d", width) for width in widths)
    for column in ("free", "resid", "n", "s"):
        assert f"\n{column}: " in printed
    assert len(open_tolerance(tmp_path / "sweep.h5").points) == 10
    # Figures that are known to `--json` alone are missing where papers are made.
    latex = (tmp_path / "sweep.tex").read_text()
    assert latex.startswith("% written by physics-ep tolerance\n")
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found["points"]) == latex.count(r"\\") - 1
    for row, point in zip(rows, found["points"], strict=True):
        for target in targets:
            worst = min(point["layers"], key=lambda layer: layer[target]["cosine"])
            assert row[f"{target} layer"] == worst["name"]
            assert float(row[f"{target} 1 - cosine"]) == pytest.approx(1 - worst[target]["cosine"], abs=1e-15)
            assert float(row[f"{target} relative error"]) == worst[target]["relative_error"]
            assert float(row[f"{target} bias"]) == worst[target]["bias"]
            assert f"{target} 1 - cosine & {target} relative error" in latex
    run_file = tmp_path / "run.h5"
    trained = build_system("pcn", sizes=[6, 8, 4], activation="tanh", seed=7)
    write_run(run_file, Run({"kind": "training", "config": {}}, state_dict=trained.state_dict()))
    arguments = (network, "--sweep", "levels=4", "--json", str(figures), "--quiet")
    status, nothing, _ = run(*arguments, "--checkpoint", str(run_file), capsys=capsys)
    assert (status, nothing) == (0, "")
    weights = json.loads(figures.read_text())["config"]["tolerance"]["weights"]
    assert weights == checksum(trained.state_dict()) != found["config"]["tolerance"]["weights"]
    status, layers, _ = run(network, "--sweep", "levels=4", "--verbose", capsys=capsys)
    assert layers.count("\n    4 ") == 4


def test_layers_keep_the_names_of_a_model(tmp_path: Path) -> None:
    """If this fails, a reader of `map` and `tolerance` has to count which layer of the model is 'layers.1'."""

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act, self.head = torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.act(self.first(x)))

    net, x, y = (
        from_module(Named().eval(), torch.rand(1, 5), form="layers"),
        torch.rand(4, 5),
        torch.eye(3)[[0, 1, 2, 0]],
    )
    rows = map_pcn(net, "hopfield", calibration=x).fidelity.layers
    assert [row.label for row in rows] == ["first.weight", "head.weight"]
    assert [row.name for row in rows] == ["layers.0.weight", "layers.1.weight"]
    kept = {"sweeps": {"levels": [4]}, "repeats": 1, "out": tmp_path / "sweep.h5"}
    table = tolerance(net, x, y, SquaredError(), **kept)
    for found in (table, open_tolerance(tmp_path / "sweep.h5")):
        told = {layer.name: layer.told for layer in found.points[0].layers}
        assert told["layers.0.weight"] == "first.weight"
        assert told["layers.1.bias"] == "head.bias"
        assert found.records()[1]["transfer layer"].startswith(("first.", "head."))
    # Two layers of one name, or of none, are told apart by their places.
    net.stack[1].label = "first"
    assert told_name(net.stack, "layers.0.weight") == "layers.0.weight"
    assert told_name(dense(2, width=3).stack, "layers.1.bias") == "layers.1.bias"


def test_live_gates_have_columns_of_their_own() -> None:
    """If this fails, the good figures of held gates stand for a network whose live gates lose half of the
    examples, or those of a point without any equilibrium come from nowhere."""

    def point(*cosines: float, settled: float = 1.0) -> TolerancePoint:
        layers = []
        for k, cosine in enumerate(cosines):
            agreement = Agreement(np.array([cosine]), np.array([k + 0.5]), k + 0.25, math.nan)
            layers.append(LayerTolerance(f"l{k}", agreement, agreement, agreement))
        return TolerancePoint(
            "levels", 4, "auto", 0.1, 1, int(np.isnan(cosines[0])), 0.0, 1, 1.0, 1.0, 0.0, "sweep", tuple(layers),
            settled,
        )  # fmt: skip

    held = point(0.9, 1 + 1e-15)
    points = (replace(held, live=point(0.7, 0.2, settled=0.5)), replace(point(math.nan, math.nan), live=None))
    table = ToleranceTable(points, {}, 2)
    first, last = table.records()
    assert first.keys() == last.keys()
    assert [first[f"transfer layer{gates}"] for gates in ("", ", live gates")] == ["l0", "l1"]
    assert first["adaptation 1 - cosine"] == pytest.approx(0.1)
    assert first["adaptation 1 - cosine, live gates"] == pytest.approx(0.8)
    assert first["feedforward relative error, live gates"] == 1.5
    assert (first["settled"], first["settled, live gates"]) == (1.0, 0.5)
    assert (last["transfer layer"], last["transfer layer, live gates"]) == (None, None)
    assert math.isnan(last["transfer 1 - cosine"])
    assert held.layers[1].transfer.distance == 0
    assert "transfer 1 - cosine, live gates" in table.to_latex(["transfer 1 - cosine, live gates"])
    printed = table.to_latex().splitlines()
    assert r"levels & 4 & held & 0.1 & 0.1 & 100\% \\" in printed
    assert r"levels & 4 & live & 0.8 & 0.8 & 50\% \\" in printed


def test_intervals_stay_where_a_cosine_can_be_and_a_bias_of_zero_is_explained() -> None:
    """The table tells 2.0e-01±9e-01, of which a half is below 0, or an interval of two instances; or a bias of 0
    stands in it as if the device had none."""

    def shown(cosines: list[float], bias: float) -> tuple[list[str], list[str]]:
        found = Agreement(
            np.array(cosines), np.full(len(cosines), 0.3), bias, 0.04 if len(cosines) > 1 else math.nan
        )
        layer = LayerTolerance("w", found, found, found)
        numbers = {"repeats": len(cosines), "unconverged": 0, "residual": 0.0, "sweeps": 1, "seconds": 1.0}
        point = TolerancePoint(
            "base", None, 0.1, 0.1, **numbers, free_share=1, free_error=0, solver="", layers=(layer,)
        )
        table = ToleranceTable((point,), {}, 1)
        columns, (row,) = tolerance_rows(table, verbose=False)
        told = dict(zip(columns, row, strict=True))
        return [told[name].split("\n")[0] for name in ("1-cos", "bias")], readings(table, verbose=False)

    cells, lines = shown([0.7, 0.9], 0.0)
    assert cells == ["2.0e-01", "0"]
    assert [line[:13] for line in lines] == ["Means of fewe", "bias 0: the s"]
    cells, lines = shown([0.79, 0.8, 0.81], 0.1)
    assert cells == ["2.0e-01±2e-02", "1.0e-01"]
    assert [line[0] for line in lines] == ["±"]
    for cosines, end in (([0.7, 0.9, 0.8], "2.0e-01≤4.5e-01"), ([1.0, -1.0, 0.4], "8.7e-01≤2.0e+00")):
        assert shown(cosines, 0.1)[0][0] == end
        assert float(end.split("≤")[1]) == pytest.approx(min(1 - interval(np.array(cosines))[0], 2), rel=0.02)
    cells, lines = shown([-1.0, -0.95, -0.9], 0.1)
    assert cells[0] == "2.0e+00≥1.8e+00"
    assert [line[0] for line in lines] == ["≥"]
    # One instance alone has neither an interval nor a variance that could explain its bias.
    assert shown([0.8], 0.0) == (["2.0e-01", "0.0e+00"], [])


def test_gradients_that_vanish_are_named_and_in_no_number() -> None:
    """Where the exact gradient is zero no cosine exists: a dead unit came out as 0 with an infinite error, and hid
    the layers that do learn; where both were zero, as perfect."""
    net = mlp([6, 5, 4, 3], "relu", seed=2)
    with torch.no_grad():
        net.stack[1].bias.fill_(-50.0)
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(4, 6, generator=generator), torch.arange(4) % 3
    sweeps = {"read_noise": [1e-3], "levels": [16]}
    table = tolerance(net, x, y, CrossEntropy(), sweeps=sweeps, repeats=2, betas=[0.05], gates="held")
    gone = [f"layers.{k}.{part}" for k in (0, 1) for part in ("weight", "bias")] + ["layers.2.weight"]
    for point in table.points:
        assert point.worst_layer("transfer").name == "layers.2.bias"
        assert point.worst_layer("transfer").transfer.relative_error < 0.5
        for layer in point.layers:
            assert (layer.transfer.vanished == point.repeats) == (layer.name in gone), layer.name
            assert math.isnan(layer.transfer.distance) == (layer.name in gone)
            assert math.isnan(layer.transfer.relative_error) == (layer.name in gone)
    for measured in (table.points, (*table.points, *(replace(p, beta=0.01) for p in table.points))):
        (told,) = reasons(measured)  # at several betas too
        assert told.endswith(f"no number tells of them: {', '.join(gone)}.")
    _, rows = tolerance_rows(table, verbose=True)
    assert [row[3].splitlines()[0] for row in rows[:6]][:5] == ["vanishes"] * 5
    assert ", ".join(gone[:2]) in table.to_latex().replace(r"\_", "_")
    with torch.no_grad():  # and where nothing at all flows
        net.stack[2].bias.copy_(torch.tensor([900.0, 0.0, 0.0]))
    still = tolerance(net, x, torch.zeros_like(y), CrossEntropy(), sweeps={"levels": [16]}, repeats=1, betas=[0.05])
    assert reasons(still.points)[0].startswith("vanishes: ")
    assert "no value (--): " in still.to_latex()
    assert len(gradient_report(net, x, torch.zeros_like(y), CrossEntropy(), beta=0.05).zeros) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep", "level=4"], "'level'. Did you mean 'levels'?"),
        (["--sweep", "levels"], "FIELD=VALUE"),
        (["--sweep", "levels=4,"], "FIELD=VALUE"),
        (["--sweep", "levels=four"], "levels must be an integer"),
        (["--sweep", "levels=1"], "levels must be an integer"),
        (["--sweep", "read_noise=nan"], "read_noise must be a finite"),
        (["--sweep", "levels=4", "--sweep", "levels=8"], "named 'levels' twice"),
        (["--sweep", "levels=4", "--repeats", "0"], "repeats must be at least 1"),
        (["--sweep", "levels=4", "--preset", "pmc"], "Did you mean 'pcm'?"),
        (["--sweep", "levels=4", "--beta", "0.1,-1"], "beta must be positive numbers"),
        (["--sweep", "levels=4", "--beta", "0.01,90"], "beta must be below"),
        (["--sweep", "levels=4", "--substrate", "hopfeild"], "Did you mean 'hopfield'?"),
        (["--sweep", "levels=4", "--device-model", "none.json"], "none.json"),
        (["--sweep", "levels=4", "--seed", "-1"], "seed must be"),
        (["--sweep", "levels=4", "--dtype", "bfloat16"], "bfloat16"),
        (["--sweep", "levels=4", "--gates", "half"], "gates must be one of"),
    ],
)
def test_bad_input_ends_in_one_line(
    arguments: list[str], message: str, network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a user reads a traceback, or finds half a file."""
    out = tmp_path / "sweep.h5"
    status, _, error = run(network, *arguments, "--out", str(out), capsys=capsys)
    assert (status, error.count("\n")) == (2, 1)
    assert message in error
    assert not out.exists()
    assert not parts_folder(out).exists()


def test_a_network_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """A system that is neither mapped nor held by cells has no devices to sweep."""
    status, _, error = run("langevin-hopfield", "--sweep", "levels=4", capsys=capsys)
    assert status == 2
    assert "NETWORK must be a predictive coding network" in error


def test_a_plain_network_is_on_no_substrate_but_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """A Hopfield network is swept on its own cells, never as if it were mapped."""
    status, printed, _ = run("hopfield", "--sweep", "levels=4", "--repeats", "1", capsys=capsys)
    assert status == 0
    assert "implicit differentiation" in printed
    status, _, error = run("hopfield", "--sweep", "levels=4", "--substrate", "hopfield", capsys=capsys)
    assert (status, error.count("\n")) == (2, 1)
    assert "Argument substrate must be left out for a HopfieldNetwork" in error


def test_interruption_tells_how_to_go_on(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else Ctrl-C ends in a traceback, or the user does not know that the points are kept."""
    out = str(tmp_path / "sweep.h5")
    arguments = (network, "--sweep", "levels=4,8", "--out", out)
    measure, calls = Experiment.measure, 0

    def stopped(self: Experiment, device: Any, beta: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return measure(self, device, beta)

    monkeypatch.setattr(Experiment, "measure", stopped)
    status, _, error = run(*arguments, capsys=capsys)
    assert (status, error.count("\n")) == (130, 1)
    assert f"interrupted after 2 of 3 points; the same command with --out {out} --resume goes on" in error
    status, _, error = run(*arguments, "--resume", capsys=capsys)
    assert (status, calls) == (0, 4)


# -- a scheduler --------------------------------------------------------------------------------------------------


def test_scheduler_without_distributed(
    network: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else an optional package that is missing ends in a traceback."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    status, _, error = run(network, "--sweep", "levels=4", "--scheduler", "tcp://127.0.0.1:1", capsys=capsys)
    assert (status, error.count("\n")) == (2, 1)
    assert "pip install 'physics-ep[distributed]'" in error


@pytest.mark.slow
def test_points_on_dask_workers(tmp_path: Path) -> None:
    """Else workers measure something else than this process does."""
    distributed = pytest.importorskip("distributed", reason="needs the extra 'distributed'")
    from validation.sweeps import workers as sweep_workers

    options = {"sizes": [6, 8, 4], "activation": "tanh", "seed": 3}
    net = build_system("pcn", **options).double()
    with torch.no_grad():
        net.stack[0].weight.mul_(1.1)  # the weights, not the recipe, must reach the workers
    x, y = examples((6,), 4, SquaredError(), 4)
    given: dict[str, Any] = {
        "sweeps": {"levels": [4], "read_noise": [1e-3]},
        "repeats": 2,
        "network": {"name": "pcn", "options": options},
    }
    here = tolerance(net, x, y, SquaredError(), **given)
    experiment = Experiment(
        net,
        x,
        y,
        SquaredError(),
        substrate="hopfield",
        scheme=None,
        gates="held",
        repeats=2,
        seed=0,
        thread_count=1,
    )
    job = sweep_workers.recipe(experiment, given["network"], DeviceModel(), "key", None)

    def pieces(value: Any) -> list[Any]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return [value] if inner is None else [piece for part in inner for piece in pieces(part)]

    assert all(isinstance(v, str | int | np.ndarray | None) for v in pieces(job))
    quiet = {"dashboard_address": ":0", "silence_logs": 50}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **quiet) as cluster:
        out = tmp_path / "sweep.h5"
        there = tolerance(
            net, x, y, SquaredError(), **given, scheduler=cluster.scheduler_address, out=out, resume=True
        )
        with pytest.raises(InputError, match="network must be given with scheduler"):
            tolerance(net, x, y, SquaredError(), scheduler=cluster.scheduler_address)
        with pytest.raises(InputError, match="beta must be below"):
            tolerance(net, x, y, SquaredError(), **given, scheduler=cluster.scheduler_address, betas=[90.0])
    assert timeless(there) == timeless(here) == timeless(open_tolerance(out))


@pytest.mark.slow
def test_local_processes_give_the_same_bits(tmp_path) -> None:
    """Two processes: every number but the seconds is that of one; a bad beta is told in the caller's words, and
    nobody is left behind."""
    options = {"sizes": [6, 8, 4], "activation": "tanh", "seed": 3}
    net = build_system("pcn", **options).double()
    x, y = examples((6,), 4, SquaredError(), 4)
    given: dict[str, Any] = {
        "network": {"name": "pcn", "options": options},
        "sweeps": {"levels": [4, 64], "read_noise": [1e-4]},
        "repeats": 2,
    }
    others = set(multiprocessing.active_children())
    with threads(1):
        here = tolerance(net, x, y, SquaredError(), **given)
    out = tmp_path / "sweep.h5"
    there = tolerance(net, x, y, SquaredError(), **given, workers=2, out=out)
    assert timeless(there) == timeless(here) == timeless(open_tolerance(out))
    with pytest.raises(InputError, match="beta must be below"):
        tolerance(net, x, y, SquaredError(), **given, workers=2, betas=[90.0])
    assert set(multiprocessing.active_children()) <= others
    with pytest.raises(InputError, match="workers must be 1 without network"):
        tolerance(net, x, y, SquaredError(), sweeps={"levels": [4]}, workers=2)
    with pytest.raises(InputError, match="workers must be an integer of at least 1"):
        tolerance(net, x, y, SquaredError(), sweeps={"levels": [4]}, workers=0)


def test_processes_where_they_pay() -> None:
    """Small sweeps stay in this process; large ones take the cores that memory allows."""
    small, large = mlp([4, 8, 3]), mlp([2000, 2000, 10])
    assert worth_sharing(small, 1000) == 1
    assert 1 <= worth_sharing(large, 1000) <= (os.cpu_count() or 1)
