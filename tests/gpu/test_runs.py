"""Trainings, sweeps and learning in situ on a device: the CPU's figures, and the same again after a stop."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping import stability
from hardware_models.mapping.in_situ import InSitu
from hardware_models.mapping.mapped import substrate_class
from physics_ep import CrossEntropy, SquaredError, cli, relax
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp
from physics_ep.runs.training import TrainingInterrupted, train
from tests.support.device_systems import CASES
from tests.support.runs import StopAfter, assert_same_run
from tests.support.simulated_gpu import SimulatedGpu
from validation import tolerance
from validation.experiments.in_situ import learn_in_situ

FEW = ["data.train_examples=32", "data.test_examples=16", "training.batch_size=16"]
THREE = ("hopfield", "resistive", "oscillator")
CONFIGS = (
    "pcn-digits",
    "hopfield-digits",
    "conv-hopfield-digits",
    "resistive-digits",
    "oscillator-digits",
    "ising-oscillator-digits",
    "langevin-hopfield-digits",
    "fitzhugh-nagumo-digits",
)


THIN = ["system.width=0.03125", "data.name=digits", "data.layout=image", "data.pad_to=32"]
"""Deep networks at a 32th of their width, on digits."""
OTHERWISE = {
    "vgg5-mnist": [*THIN, "data.normalise=false"],
    "vgg10-eighth-cifar10": [*THIN, "system.input_shape=[1, 32, 32]", "data.augmentation=shift"],
}


@pytest.mark.full
@pytest.mark.parametrize(
    "config", [c if c == "pcn-digits" else pytest.param(c, marks=pytest.mark.slow) for c in (*CONFIGS, *OTHERWISE)]
)
def test_training_goes_on_on_a_device(gpu: SimulatedGpu, config: str, tmp_path: Path) -> None:
    """Two epochs on the device are two on the CPU, and the same where a stop came in the second one."""
    options: dict[str, Any] = {"overrides": [*FEW, "training.epochs=2", *OTHERWISE.get(config, [])]}
    here = train(config, device="cpu", **options)
    straight, halted = tmp_path / "straight.h5", tmp_path / "halted.h5"
    whole = train(config, device="cuda", out=straight, **options)
    with pytest.raises(TrainingInterrupted):
        train(config, device="cuda", out=halted, progress=StopAfter(epochs=1, batches=1), **options)
    train(config, device="cuda", resume=halted, **options)
    assert_same_run(straight, halted)
    for name in ("loss", "test_error"):
        assert np.allclose(whole.metrics[name], here.metrics[name], rtol=1e-4, atol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("most", [stability.DENSE, 4], ids=["dense", "arnoldi"])
@pytest.mark.parametrize("slot", [None, pytest.param(0.5, marks=pytest.mark.slow)])
def test_stability_is_judged_on_a_device(
    gpu: SimulatedGpu, monkeypatch: pytest.MonkeyPatch, most: int, slot: float | None
) -> None:
    """Verdicts and eigenvalues are the CPU's, by either method, also for a unit on its kink."""
    monkeypatch.setattr(stability, "DENSE", most)
    x = torch.rand(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    net, found = mlp([4, 4, 3], activation="relu").double(), []
    for place in ("cpu", "cuda"):
        here, model = x.to(place), DeviceModel(levels=32, programming_noise=0.02)
        system = map_pcn(copy.deepcopy(net).to(place), "hopfield", model, calibration=here).system
        system.gates = "live"
        free = relax(system, here, tolerance=1e-9).require().state
        assert free[0].device.type == place
        free[0][0, 0] = 0
        found.append(stability.certify(system, free, here, slot=slot))
    one, other = found
    assert (one.verdict, one.reason, one.method) == (other.verdict, other.reason, other.method)
    assert torch.allclose(other.eigenvalue.cpu(), one.eigenvalue)


def _flat(told: Any, name: str = "") -> dict[str, Any]:
    """Figures of a report by their places in it."""
    if isinstance(told, dict | list):
        members = told.items() if isinstance(told, dict) else enumerate(told)
        return {key: value for part, each in members for key, value in _flat(each, f"{name}/{part}").items()}
    return {name: told}


@pytest.mark.parametrize(
    ("substrate", "copies"),
    [
        pytest.param(substrate, copies, marks=pytest.mark.full if substrate == "hopfield" else pytest.mark.slow)
        for substrate in ("hopfield", "resistive", "oscillator")
        for copies in ("shared", "independent")
    ],
)
def test_a_network_is_mapped_on_a_device(gpu: SimulatedGpu, substrate: str, copies: str, tmp_path: Path) -> None:
    """`physics-ep map --device cuda` reports what it reports on the CPU: fidelity, settling, stability, gates.

    It ended where the certificate of stability counted units on kinks: tensors of two devices met.
    """
    network, device = tmp_path / "mine.toml", tmp_path / "device.json"
    network.write_text('[system]\nname = "pcn"\nsizes = [4, 4, 3]\nactivation = "relu"\n', encoding="utf-8")
    model = substrate_class(substrate).device_class(levels=32, programming_noise=0.02, copies=copies)
    device.write_text(model.to_json(), encoding="utf-8")
    found = []
    for place in ("cpu", "cuda"):
        out = tmp_path / f"{place}.json"
        words = ["map", str(network), "--substrate", substrate, "--device-model", str(device), "--dtype", "float64"]
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, "--json", str(out), "--device", place, "--quiet"])
        assert not ended.value.code
        found.append(_flat(json.loads(out.read_text(encoding="utf-8"))))
    here, there = found
    assert here["/course/verdicts/0"] in ("stable", "unstable", "undecided")
    assert here.keys() == there.keys()
    for name, value in here.items():
        if isinstance(value, float):
            assert there[name] == pytest.approx(value, rel=1e-3, abs=1e-6, nan_ok=True), name
        else:
            assert there[name] == value, name


@pytest.mark.parametrize(
    "substrate",
    [pytest.param(s, marks=pytest.mark.full if s == "hopfield" else pytest.mark.slow) for s in THREE],
)
def test_tolerance_sweeps_run_on_a_device(gpu: SimulatedGpu, substrate: str) -> None:
    """Static imperfections make the same instances on the device as on the CPU, and the same errors."""
    x, y = CASES["pcn"].examples()
    tables = []
    for place in ("cpu", "cuda"):
        tables.append(
            tolerance(
                mlp([8, 6, 10], activation="relu").to(place),
                x.to(place),
                y.to(place),
                CrossEntropy(),
                substrate=substrate,
                sweeps={"programming_noise": [0.05]},
                repeats=2,
            )
        )
    here, there = tables
    for field in ("ideal", "programming_noise"):
        for one, other in zip(here.of(field), there.of(field), strict=True):
            for target in ("transfer", "feedforward", "adaptation"):
                cosines = [getattr(point.worst_layer(target), target).cosine for point in (one, other)]
                assert 1 - cosines[1] == pytest.approx(1 - cosines[0], rel=1e-3, abs=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("rule", ["accumulated", "stochastic"])
def test_learning_in_situ_goes_on_on_a_device(gpu: SimulatedGpu, rule: str) -> None:
    """Cells move as on the CPU, where pulses are drawn; from a state that was kept, they go on alike."""
    x, _ = CASES["pcn"].examples()
    found = []
    for place in ("cpu", "cuda"):
        learner = _learner(place, rule)
        here = x.to(place)
        for _ in range(2):
            learner.step(here, here[:, :4], SquaredError(), beta=0.05)
        found.append({n: p.detach().cpu() for n, p in learner.mapped.system.named_parameters()})
    assert all(torch.equal(found[0][n], found[1][n]) for n in found[0])
    kept = learner.state_dict()
    learner.step(here, here[:, :4], SquaredError(), beta=0.05)
    again = _learner("cuda", rule)
    again.load_state_dict(kept)
    again.step(here, here[:, :4], SquaredError(), beta=0.05)
    for p, q in zip(learner.mapped.system.parameters(), again.mapped.system.parameters(), strict=True):
        assert torch.equal(p.cpu(), q.cpu())


def _learner(place: str, rule: str) -> InSitu:
    x = CASES["pcn"].examples(place)[0]
    net = mlp([8, 6, 4], activation="relu").to(place)
    mapped = map_pcn(net, "hopfield", DeviceModel(pulses=64, read_noise=0.0), calibration=x)
    return InSitu(mapped, lambda p: torch.optim.SGD(p, lr=0.5), rule=rule)


@pytest.mark.full
def test_training_in_situ_takes_the_devices_place(gpu: SimulatedGpu) -> None:
    """`training.device` is not passed over: phases are computed there, and the figures are the CPU's."""
    options: dict[str, Any] = {"overrides": [*FEW, "training.epochs=1"], "device": DeviceModel(levels=32)}
    here = learn_in_situ("pcn-digits", **options)
    with gpu.counting() as counts:
        there = learn_in_situ(
            "pcn-digits", **{**options, "overrides": [*options["overrides"], "training.device=cuda"]}
        )
    assert counts.launches > 1000
    for name, values in here.values.items():
        assert np.allclose(there.values[name], values, rtol=1e-5, equal_nan=True), name


PLAIN = ("hopfield-digits", "resistive-digits", "oscillator-digits", "conv-hopfield-digits")


@pytest.mark.parametrize("changed", ["device=cuda", "dtype=float64"])
@pytest.mark.parametrize(
    "config", [pytest.param(c, marks=pytest.mark.full if c == PLAIN[0] else pytest.mark.slow) for c in PLAIN]
)
def test_plain_systems_learn_in_situ_in_the_devices_place(gpu: SimulatedGpu, config: str, changed: str) -> None:
    """Systems whose cells hold their own couplings stayed on the CPU, in float32, beside examples that did not."""
    options: dict[str, Any] = {
        "overrides": [*FEW, "training.epochs=1"],
        "device": DeviceModel(programming_noise=0.05),
    }
    here = learn_in_situ(config, **options)
    overrides = [*options["overrides"], f"training.{changed}"]
    with gpu.counting() as counts:
        there = learn_in_situ(config, **{**options, "overrides": overrides})
    assert (counts.launches > 1000) == (changed == "device=cuda")
    for name, values in here.values.items():
        assert np.allclose(there.values[name], values, rtol=1e-3, equal_nan=True), name


def test_training_in_situ_refuses_a_dtype_that_it_does_not_work_in() -> None:
    """bfloat16 was passed over, and float32 taken."""
    with pytest.raises(InputError, match=r"training\.dtype must be 'float32' or 'float64' .* was 'bfloat16'"):
        learn_in_situ("pcn-digits", overrides=["training.dtype=bfloat16"])
