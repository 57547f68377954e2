"""Benchmarks of predictive coding networks: what they tabulate is what separate calls give."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import struct
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from physics_ep import CrossEntropy, EquilibriumPropagation, SquaredError
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp, vgg10
from physics_ep.predictive_coding.solvers import SOLVERS
from validation.benchmarks import imagenet_gpu, pcn
from validation.benchmarks.paper_training import SCHEDULES, RuleTraining, train
from validation.benchmarks.small_images import load, shortened
from validation.benchmarks.steps import EVERYWHERE, OPPONENTS, StepRecipe, StepSubject, photograph_like

ABSENT = ("pydantic", "typer", "rich", "pooch", "matplotlib", "numba")
RUN = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import torch
torch.set_num_threads(1)
from validation.benchmarks.imagenet_gpu import main
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small sets in the files that the real ones come in: three grey levels a class."""
    place = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    with tarfile.open(place / "cifar10_jpeg.tar.xz", "w:xz") as archive:
        for part, count in (("test", 2), ("train", 4)):
            for label in reversed(range(10)):
                for k in range(count):
                    content = io.BytesIO()
                    pixels = np.full((32, 32, 3), 20 * label + k, np.uint8)
                    Image.fromarray(pixels).save(content, format="JPEG", quality=95)
                    member = tarfile.TarInfo(f"{part}/class{label}/{k:04d}.jpg")
                    member.size = content.tell()
                    content.seek(0)
                    archive.addfile(member, content)
    (place / "mnist").mkdir()
    for stem, count in (("train", 40), ("t10k", 20)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = generator.integers(0, 10, count, dtype=np.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            with gzip.open(place / "mnist" / f"{stem}-{name}-ubyte.gz", "wb") as file:
                file.write(head + values.tobytes())
    return place


@pytest.fixture(scope="module")
def found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """All parts at tiny size, run where the package's command-line and config libraries are missing."""
    out = tmp_path_factory.mktemp("out")
    arguments = ["--tiny", "--out", str(out), "--data", str(folder), "--minutes", "5"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "not run" in done.stdout  # the projection is marked as one
    return {part: json.loads((out / f"{part}.json").read_text()) for part in imagenet_gpu.PARTS}


def tiny() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """The tiny network, and the first examples of its batch and their labels, made anew."""
    generator = torch.Generator().manual_seed(0)
    x = photograph_like(2, (3, 32, 32), generator)
    return vgg10(10, (3, 32, 32), width=1 / 32, seed=0), x, torch.randint(0, 10, (2,), generator=generator)


@pytest.mark.slow
def test_a_run_says_what_it_ran_on(found: dict[str, dict]) -> None:
    """Figures without machine, version and date cannot be compared."""
    for part, figures in found.items():
        assert figures["part"] == part
        assert figures["torch"] == torch.__version__
        assert figures["machine"]
        assert figures["date"].startswith("20")
        assert figures["rows"]


@pytest.mark.full
def test_cost_rows_are_times_and_their_ratios(found: dict[str, dict]) -> None:
    """A ratio of the wrong two times would pass for a result."""
    rows = found["cost"]["rows"]
    assert {row["precision"] for row in rows} == set(imagenet_gpu.PRECISIONS)
    for precision in imagenet_gpu.PRECISIONS:
        mine = {row["step"]: row for row in rows if row["precision"] == precision}
        assert set(mine) == {*OPPONENTS, *(recipe.name for recipe in imagenet_gpu.RECIPES)}
        unit = min(mine[name]["ms"] for name in OPPONENTS)
        for row in mine.values():
            assert row["ms"] > 0
            assert row["ratio"] == pytest.approx(row["ms"] / unit)
            assert row["images_per_s"] == pytest.approx(1e3 * row["batch"] / row["ms"])
            hours = 50 * 1_281_167 / row["images_per_s"] / 3600
            assert row["projected_hours"] == pytest.approx(hours)
        assert mine["mod-PGD, 10, reached"]["sweeps"] == "10/10"
        assert mine["EP, 3 sweeps"]["sweeps"] == "3/3"


@pytest.mark.full
def test_gradient_rows_are_the_cosines_of_separate_calls(found: dict[str, dict]) -> None:
    """Against autograd in float64 and an EP step that the benchmark has no part in."""
    network, x, labels = tiny()
    rows = {row["parameter"]: row for row in found["gradients"]["rows"] if row["precision"] == "float32"}
    step = EquilibriumPropagation(CrossEntropy(), beta="auto").backward(network, x, labels)
    mine = {name: p.grad.double() for name, p in network.named_parameters()}
    twin = vgg10(10, (3, 32, 32), width=1 / 32, seed=0).double()
    torch.nn.functional.cross_entropy(twin(x.double()), labels).backward()
    assert set(rows) == set(mine)
    for name, p in twin.named_parameters():
        cosine = torch.cosine_similarity(mine[name].flatten(), p.grad.flatten(), dim=0)
        assert rows[name]["cosine"] == pytest.approx(float(cosine), abs=1e-6)
        assert rows[name]["residual"] == pytest.approx(
            max(float(e.residual.max()) for e in step.equilibria), rel=1e-2
        )
        assert rows[name]["backprop_cosine"] > 1 - 1e-9
    rough = [row for row in found["gradients"]["rows"] if row["precision"] == "bfloat16"]
    assert min(row["backprop_cosine"] for row in rough) < 1 - 1e-6  # it was bfloat16


@pytest.mark.full
def test_both_rules_train_alike(found: dict[str, dict]) -> None:
    """EP's gradient is backprop's, nearly: so is the first epoch. A wrong sign or rate would part them."""
    for part in ("cifar", "mnist"):
        rows = found[part]["rows"]
        assert [(row["rule"], row["epoch"]) for row in rows] == [(r, e) for r in ("EP", "backprop") for e in (1, 2)]
        assert rows[0]["loss"] == pytest.approx(rows[2]["loss"], rel=1e-3)
        assert rows[0]["set"] == ("cifar10_jpeg" if part == "cifar" else "mnist")
        assert all(row["seconds"] > 0 and row["skipped"] == 0 for row in rows)
        assert 0 < rows[0]["residual"] <= 1e-2


def test_prepared_images_are_those_of_the_files(folder: Path, tmp_path: Path, capsys) -> None:
    """Classes follow names, digits stand in the middle; decoded beforehand or on the spot, they are the same."""
    assert imagenet_gpu.main(["--prepare", "--data", str(folder), "--out", str(tmp_path)]) == 0
    assert "cifar10_jpeg.npz" in capsys.readouterr().out
    for part in ("cifar", "mnist"):
        ready, fresh = load(part, tmp_path), load(part, folder)
        assert all(torch.equal(getattr(ready, name), getattr(fresh, name)) for name in vars(ready))
    images = load("cifar", tmp_path)
    assert images.train_y.tolist() == [k for k in range(10) for _ in range(4)]
    level = images.train_x.flatten(1).double().mean(1)
    assert (level - torch.tensor([20.0 * k + j for k in range(10) for j in range(4)])).abs().max() <= 2
    inputs = images.inputs(images.train_x[:1])
    assert float(inputs[0, 0, 0, 0]) == pytest.approx((float(images.train_x[0, 0, 0, 0]) / 255 - 0.4914) / 0.2470)
    digits = load("mnist", tmp_path)
    assert digits.train_x.shape == (40, 1, 32, 32)
    assert int(digits.train_x[:, :, :2].max()) == 0
    assert digits.train_x[:, :, 2:30, 2:30].double().mean() > 100


def test_a_resumed_run_is_an_uninterrupted_one(folder: Path, tmp_path: Path) -> None:
    """Weights, momentum, order and rate must all come back."""
    data = shortened(load("mnist", folder), 32, 16)
    schedule = replace(SCHEDULES["squared_error"], width=1 / 32, epochs=3)

    def course(rule: str, name: str) -> RuleTraining:
        return RuleTraining(rule, "mnist", schedule, 1, tmp_path / name, torch.device("cpu"))

    for rule in ("EP", "backprop"):
        whole, first = course(rule, f"whole-{rule}"), course(rule, f"part-{rule}")
        for _ in range(2):
            whole.run_epoch(data)
        first.run_epoch(data)
        second = course(rule, f"part-{rule}")
        second.resume()
        second.run_epoch(data)
        keys = ("epoch", "rate", "loss", "test_error", "skipped", "residual")
        assert [[h[k] for k in keys] for h in second.history] == [[h[k] for k in keys] for h in whole.history]
        for p, q in zip(whole.network.parameters(), second.network.parameters(), strict=True):
            assert torch.equal(p, q)
    assert whole.history[1]["rate"] == pytest.approx(1e-6 + (0.04 - 1e-6) * 0.75)  # cos(pi / 3) = 1 / 2
    other = RuleTraining("EP", "mnist", replace(schedule, epochs=4), 1, tmp_path / "part-EP", torch.device("cpu"))
    with pytest.raises(InputError, match="another schedule"):
        other.resume()


def test_training_ends_in_time_and_says_why(folder: Path, tmp_path: Path) -> None:
    """A deadline that is past, a nudge beyond the stability limit, a rate that blows up."""
    data = shortened(load("mnist", folder), 16, 16)
    schedule = replace(SCHEDULES["cross_entropy"], width=1 / 32, epochs=2, batch=8)
    said: list[str] = []
    options = {"device": torch.device("cpu"), "report": said.append}
    assert train("mnist", data, schedule, tmp_path, deadline=0.0, **options) == []
    assert "--resume" in said[-1]
    rows = train("mnist", data, replace(schedule, beta=1e9), tmp_path, **options)
    stopped = [row for row in rows if "stopped" in row]
    assert [row["rule"] for row in stopped] == ["EP"]
    assert "beta" in stopped[0]["stopped"]
    course = RuleTraining("backprop", "mnist", replace(schedule, rate=1e30), 1, tmp_path / "c", torch.device("cpu"))
    course.run_epoch(data)
    assert course.done
    assert "not finite" in course.stopped


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--part", "cifar"], "--data"),
        (["--part", "mnist", "--data", "EMPTY"], "mnist.npz"),
        (["--part", "cifar", "--data", "EMPTY"], "cifar10_jpeg.npz"),
        (["--prepare"], "--data"),
        (["--prepare", "--data", "EMPTY"], "MNIST"),
    ],
)
def test_missing_data_are_told_in_a_line(arguments: list[str], named: str, tmp_path: Path, capsys) -> None:
    """Exit status 2 and what is missing, no traceback."""
    filled = [str(tmp_path) if a == "EMPTY" else a for a in arguments]
    assert imagenet_gpu.main([*filled, "--tiny", "--out", str(tmp_path / "out")]) == 2
    assert named in capsys.readouterr().err


def test_gpu_times_and_memory_come_from_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of 250 ms are a quarter of a second; memory is the rise in a step and the network's own."""

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            asked.append("record")

        def elapsed_time(self, other: Event) -> float:
            return 250.0

    asked: list[str] = []
    gpu = {"memory_allocated": lambda: 5 * 2**30, "max_memory_allocated": lambda: 12 * 2**30, "Event": Event}
    gpu |= {name: lambda: asked.append("sync") for name in ("synchronize", "reset_peak_memory_stats")}
    for name, stand_in in gpu.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    device = torch.device("cuda")
    calls: list[int] = []
    assert imagenet_gpu._seconds(lambda: calls.append(1), device) == 0.25
    assert asked == ["sync", "record", "record", "sync"]
    network = torch.nn.Linear(2**18, 256, bias=False)  # a quarter of a GiB
    subject = SimpleNamespace(network=network, x=torch.empty(0), y=torch.empty(0), clear=lambda: None)
    assert imagenet_gpu._peak(subject, lambda: calls.append(1), device) == 7.25
    assert len(calls) == 3


def test_arithmetic_is_as_it_was_afterwards() -> None:
    """TF32 left on would spoil every float32 figure that follows."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with imagenet_gpu.arithmetic(imagenet_gpu.PRECISIONS["tf32"]):
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    with imagenet_gpu.arithmetic(imagenet_gpu.PRECISIONS["float32"]):
        assert not torch.backends.cuda.matmul.allow_tf32
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


def test_measured_rows_are_ratios_and_residuals_of_separate_calls() -> None:
    """`physics-ep bench pcn` on its smallest case; mod-PGD everywhere or where it has got to is the same rule."""
    close = StepRecipe("close", tolerance=1e-3, target=3.0)
    published = StepRecipe("published", solver="mod_pgd", sweeps=3, gates="live", beta=0.05)
    everywhere = replace(published, name="everywhere", solver=EVERYWHERE)
    case = pcn.Case(
        "small",
        lambda seed: mlp([6, 5, 4, 3], seed=seed),
        SquaredError(),
        4,
        (close, published),
        warmup=1,
        slow=(everywhere,),
    )
    result = pcn.measure(repeats=2, seed=1, cases=(case,))
    rows = {row["step"]: row for row in result["rows"]}
    assert list(rows) == [*OPPONENTS, "close", "published", "everywhere"]
    unit = min(rows[name]["ms"] for name in OPPONENTS)
    for name in (*OPPONENTS, "close", "published"):
        assert rows[name]["ms"] > 0
        assert rows[name]["ratio"] == pytest.approx(rows[name]["ms"] / unit)
    assert result["ratio"] == pytest.approx(rows["close"]["ratio"] / 3.0)
    assert EVERYWHERE not in SOLVERS

    generator = torch.Generator().manual_seed(1)
    network = mlp([6, 5, 4, 3], seed=1)
    x = pcn.inputs(network, 4, generator)
    y = SquaredError().encode(torch.randint(0, 3, (4,), generator=generator), 3, torch.float32)
    ep = EquilibriumPropagation(SquaredError(), beta=rows["close"]["beta"], tolerance=1e-3)
    step = ep.backward(network, x, y)
    assert rows["close"]["residual"] == pytest.approx(max(float(e.residual.max()) for e in step.equilibria))
    assert rows["close"]["residual"] <= 1e-3
    mine = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    (0.5 * (network(x) - y).square().sum(1)).mean().backward()
    worst = min(
        float(torch.cosine_similarity(g.double().flatten(), p.grad.double().flatten(), dim=0))
        for g, p in zip(mine, network.parameters(), strict=True)
    )
    assert rows["close"]["1 - cos"] == pytest.approx(1 - worst, rel=1e-3, abs=1e-9)
    assert rows["published"]["residual"] == pytest.approx(rows["everywhere"]["residual"])
    assert rows["published"]["1 - cos"] == pytest.approx(rows["everywhere"]["1 - cos"], abs=1e-9)


def test_bfloat16_is_the_opponents_dtype_too() -> None:
    """A float32 backprop would flatter nobody."""
    network = mlp([6, 5, 3], "tanh")  # no gates, which a rounding might flip
    x, y = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)), torch.eye(3)[torch.arange(4) % 3]
    subject = StepSubject(network, x, y, SquaredError(), torch.bfloat16)
    for name, call in subject.calls([StepRecipe("EP")]).items():
        call()
        error = max(row.relative_error for row in subject.agreement(name, subject.reference()))
        assert 1e-5 < error < 0.2, name
    assert network.compute_dtype == torch.bfloat16


def test_images_have_the_spectrum_of_photographs() -> None:
    """Amplitude over frequency falls like 1 / f: white noise would make max poolings and gates untypical."""
    images = photograph_like(16, (1, 64, 64), torch.Generator().manual_seed(0))
    assert float(images.mean((1, 2, 3)).abs().max()) < 1e-6
    assert float(images.std((1, 2, 3)).sub(1).abs().max()) < 1e-5
    power = torch.fft.fft2(images).abs().square().mean((0, 1))
    frequency = torch.fft.fftfreq(64).mul(64)
    radius = (frequency[:, None].square() + frequency.square()).sqrt()
    low, high = (power[(radius >= r) & (radius < 2 * r)].mean() for r in (2, 8))
    slope = 0.5 * math.log(float(low / high)) / math.log(4)
    assert 0.7 < slope < 1.5
