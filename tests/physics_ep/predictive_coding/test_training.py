"""Training of predictive coding networks: beside backprop, from photographs, in bfloat16, by two processes."""

from __future__ import annotations

import json
import os
import socket
import tomllib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from physics_ep import CrossEntropy, EquilibriumPropagation, open_run, train
from physics_ep.cli import main
from physics_ep.config import load_config
from physics_ep.data.datasets import _normalised, load_dataset
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import UnconvergedWarning
from physics_ep.registry import bundled
from physics_ep.runs.training import TrainingStoppedError
from tests.support.pcn import dense, examples
from validation.gradients import estimate_gradient, total_error

SHORT = ("training.epochs=4", "data.train_examples=960")


@pytest.mark.full
@pytest.mark.parametrize("cost", ["cross_entropy", "squared_error"])
def test_ep_trains_as_backprop_does(cost: str) -> None:
    """Same recipe, same seed: what EP learns must be what backprop learns, to a few examples of 360."""
    errors = {}
    for estimator in ("ep", "backprop"):
        overrides = (*SHORT, f"ep.estimator={estimator}", f"ep.cost={cost}", "optimizer.lr=0.02")
        result = train("pcn-digits", overrides=overrides)
        errors[estimator] = result.test_error
        if estimator == "ep":
            assert result.figures()["skipped"] == 0
            assert float(result.metrics["nudged_iterations"].max()) < 5
    assert abs(errors["ep"] - errors["backprop"]) <= 4 / 360
    assert errors["ep"] < 0.15


@pytest.mark.full
def test_a_small_vgg_trains_as_backprop_does() -> None:
    """Max pooling and convolutions under EP's own solver: within a few examples of backprop again."""
    table: dict[str, Any] = {
        "system": {"name": "vgg5", "input_shape": [1, 16, 16], "width": 0.06, "gain": 6**0.5},
        "data": {"name": "digits", "layout": "image", "pad_to": 16, "train_examples": 640},
        "training": {"epochs": 4, "batch_size": 32},
        "optimizer": {"name": "SGD", "lr": 0.02, "momentum": 0.9, "nesterov": True},
        "ep": {"beta": "auto", "cost": "cross_entropy"},
    }
    errors = [train(table, overrides=(f"ep.estimator={e}",)).test_error for e in ("ep", "backprop")]
    assert abs(errors[0] - errors[1]) <= 0.03
    assert errors[0] < 0.35


@pytest.mark.full
def test_vgg10_overfits_photographs_and_resumes(tmp_path: Path) -> None:
    """The whole ImageNet path at small size: folder, decoding, crop, VGG10, EP, run file, resume. Top-1 error 0."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for label in range(6):
        pixels = generator.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 40)).save(tmp_path / f"photo_{label}.jpg")
    table: dict[str, Any] = {
        "system": {"name": "vgg10", "num_classes": 6, "input_shape": [3, 32, 32], "width": 0.08, "gain": 6**0.5},
        "data": {"name": "image-folder", "layout": "image", "size": 32, "augmentation": "centre", "workers": 0,
                 "test_fraction": 0.2},
        "training": {"epochs": 12, "batch_size": 3},
        "optimizer": {"name": "SGD", "lr": 0.02, "momentum": 0.9, "nesterov": True},
        "ep": {"beta": "auto", "cost": "cross_entropy"},
    }  # fmt: skip
    run = tmp_path / "run.h5"
    train(table, data=tmp_path, out=run, overrides=("training.epochs=6",))
    resumed = train(table, data=tmp_path, resume=run)
    whole = train(table, data=tmp_path)
    assert resumed.train_error == 0
    assert resumed.figures()["skipped"] == 0
    for mine, theirs in zip(resumed.system.parameters(), whole.system.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert open_run(run).epochs == 12


@pytest.mark.slow
def test_vgg10_overfits_the_real_photographs(tmp_path: Path) -> None:
    """Full-width VGG10 at 64x64 on the 20 photographs by EP: top-1 error 0, with a resume half-way. Minutes."""
    root = os.environ.get("PHYSICS_EP_DATA")
    found = sorted(Path(root).glob("**/imagenet_*_*.jpg")) if root else []
    if not found:
        pytest.skip("no photographs imagenet_NN_LABEL.jpg under PHYSICS_EP_DATA")
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        for path in found:
            (tmp_path / part / path.name).symlink_to(path)
    table: dict[str, Any] = {
        "system": {"name": "vgg10", "input_shape": [3, 64, 64], "gain": 6**0.5},
        "data": {"name": "image-folder", "layout": "image", "size": 64, "n_classes": 1000, "augmentation": "centre",
                 "workers": 0},
        "training": {"epochs": 20, "batch_size": 10, "evaluation_batch_size": 10},
        "optimizer": {"name": "Adam", "lr": 3e-4},
        "ep": {"beta": "auto", "cost": "cross_entropy"},
    }  # fmt: skip
    run = tmp_path / "run.h5"
    train(table, data=tmp_path, out=run, overrides=("training.epochs=10",))
    assert train(table, data=tmp_path, resume=run).test_error == 0


def test_bfloat16_training_keeps_float32_parameters() -> None:
    """dtype = bfloat16 works in it and steps in float32; a system that cannot is refused."""
    result = train("pcn-digits", overrides=SHORT, dtype="bfloat16")
    assert next(result.system.parameters()).dtype == torch.float32
    assert result.test_error < 0.15
    with pytest.raises(InputError, match="cannot work in less"):
        train("hopfield-digits", overrides=("training.epochs=1",), dtype="bfloat16")


def test_backprop_needs_a_forward_pass() -> None:
    """A Hopfield network's free state is no forward pass: refused, with what to do."""
    with pytest.raises(InputError, match=r"estimator must be 'ep'"):
        train("hopfield-digits", overrides=("training.epochs=1", "ep.estimator=backprop"))


def test_a_published_run_warns_once() -> None:
    """The paper runs K iterations whatever they reach: one warning a run, and residuals in the metrics."""
    overrides = (
        "training.epochs=1", "data.train_examples=96", "ep.solver=mod_pgd", "ep.gates=free", "ep.max_iterations=2",
        "ep.tolerance=1e-9", "ep.beta=0.02", "training.on_unconverged=warn",
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = train("pcn-digits", overrides=overrides)
    assert 1 <= sum(issubclass(w.category, UnconvergedWarning) for w in told) <= 2  # +beta and -beta of one step
    assert result.figures()["skipped"] == 0
    assert result.figures()["worst_residual"] > 1e-6


def test_out_of_memory_says_which_batch_would_fit(tmp_path: Path) -> None:
    """A device that is full: one line with the batch that fits, and the epochs that are kept."""

    def backward(system, x, y):
        if len(x) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return EquilibriumPropagation(CrossEntropy(), beta="auto").backward(system, x, y)

    with pytest.raises(
        TrainingStoppedError, match=r"with 32 examples at once; 8 would fit: set training.batch_size=8"
    ):
        train("pcn-digits", overrides=SHORT, backward=backward, out=tmp_path / "run.h5")
    assert not (tmp_path / "run.h5").exists()


def test_normalised_pixels() -> None:
    """MNIST's own mean and deviation, also for the padding; sets without them are refused."""
    x = torch.rand(2, 1, 4, 4)
    (scaled,) = _normalised("mnist", x)
    torch.testing.assert_close(0.3081 * scaled + 0.1307, x)
    with pytest.raises(InputError, match="normalise must be left out"):
        load_dataset(load_config({"system": {"name": "pcn"}, "data": {"name": "digits", "normalise": True}}).data)


PUBLISHED = {
    # name: (lr, batch, weight decay, epochs, eta_min, beta, K), Kerjan 2026
    "vgg5-mnist": (0.04, 16, 3e-4, 100, 1e-6, 0.02, 5),
    "vgg5-cifar10": (0.04, 16, 3e-4, 100, 1e-6, 0.02, 5),
    "vgg5-cifar100": (0.04, 16, 3e-4, 100, 1e-6, 0.02, 5),
    "vgg5-imagenet32": (0.01, 256, 3e-4, 100, 1e-6, 0.02, 5),
    "vgg10-imagenet": (0.02, 256, 2e-4, 50, 2e-6, 0.05, 10),
    "vgg10-skip-imagenet": (0.02, 256, 2e-4, 50, 2e-6, 0.05, 10),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_bundled_configs_hold_the_papers_values(name: str) -> None:
    """Value for value: a config that drifts from the table is no baseline."""
    table = tomllib.loads(Path(bundled()[name]).read_text(encoding="utf-8"))
    config = load_config(name)
    found = (
        table["optimizer"]["lr"], config.training.batch_size, table["optimizer"]["weight_decay"],
        config.training.epochs, table["scheduler"]["eta_min"], config.ep.beta, config.ep.max_iterations,
    )  # fmt: skip
    assert found == PUBLISHED[name]
    assert (config.ep.solver, config.ep.gates, config.ep.scheme) == ("mod_pgd", "live", "centered")
    assert table["optimizer"] | {"name": "SGD", "momentum": 0.9, "nesterov": True} == table["optimizer"]


def test_rows_carry_iterations_and_residual(tmp_path: Path, capsys) -> None:
    """`physics-ep gradients pcn`: K and the residual in every row, and the warning that one sweep is backprop."""
    out = tmp_path / "rows.json"
    with pytest.raises(SystemExit) as done:
        main(["gradients", "pcn", "--json", str(out), "--max-iterations", "1", "--cost", "cross_entropy"])
    assert done.value.code in (0, None)
    found = json.loads(out.read_text())
    assert [row["name"] for row in found["rows"]][:2] == ["layers.0.weight", "layers.0.bias"]
    assert all(row["iterations"] == 1 and row["residual"] == 1 for row in found["rows"])
    assert found["worst_cosine"] > 1 - 1e-6
    assert "K = 1 with held gates is backprop" in capsys.readouterr().out
    with pytest.raises(SystemExit) as refused:
        main(["gradients", "vgg5", "--images", str(tmp_path / "none")])
    assert refused.value.code == 2


SHARDS = (slice(0, 10), slice(10, 16))


def _worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    net = dense(4, "relu", seed=rank)  # a rank that starts elsewhere must be brought in line
    x, y = examples()
    ep = EquilibriumPropagation(CrossEntropy(), beta="auto", tolerance=1e-12)
    ep.backward(net, x[SHARDS[rank]], y[SHARDS[rank]])
    torch.save({"grads": {n: p.grad for n, p in net.named_parameters()}, "beta": ep.beta}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.full
def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    """Uneven shards of 10 and 6: the gradient of the whole batch to 1e-6, at one beta for both ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, args=(port, str(tmp_path)), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert found[0]["beta"] == found[1]["beta"]
    net = dense(4, "relu", seed=0)
    ep = EquilibriumPropagation(CrossEntropy(), beta=found[0]["beta"], tolerance=1e-12)
    whole = estimate_gradient(ep, net, *examples())[0]
    for part in found:
        assert total_error(part["grads"], whole) < 1e-6
