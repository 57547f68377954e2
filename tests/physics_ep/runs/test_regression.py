"""Measured targets, and examples handed over from Python. If these fail, a system learns other numbers than it
says, or a class is taken for a number."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, local
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from physics_ep import cli, open_run, relax, train
from physics_ep.config import parse_config
from physics_ep.data.datasets import Dataset, load_dataset
from physics_ep.errors import InputError
from physics_ep.misses import Misses, told_misses
from physics_ep.runs import metrics
from physics_ep.runs.metrics import Evaluation
from physics_ep.runs.preparation import bring_examples, examples_of, subject_of
from physics_ep.runs.resuming import EXAMPLES
from physics_ep.storage.run_file import write_run
from validation import learn_in_situ

RNG = np.random.default_rng(5)
X = RNG.normal(size=(120, 3))
MAP = np.array([[3.0, -1.0], [0.5, 2.0], [-2.0, 0.25]])
Y = X @ MAP + np.array([40.0, -7.0])

LINEAR: dict[str, Any] = {
    "system": {"name": "pcn", "sizes": [3, 2], "activation": "linear"},
    "training": {"epochs": 20, "batch_size": 24},
    "optimizer": {"name": "SGD", "lr": 0.5},
    "ep": {"beta": 0.1},
}
"""A network of one linear layer: what it learns by the squared error is linear least squares."""


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(a) for a in arguments])
    return int(caught.value.code or 0)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "own.csv"
    rows = [",".join(map(repr, (*x.tolist(), *y.tolist()))) for x, y in zip(X, Y, strict=True)]
    path.write_text("\n".join(["a,b,c,force,heat", *rows]), encoding="utf-8")
    return path


def test_measured_targets_of_a_table(table: Path) -> None:
    """Scaled by the part to train on alone; shift and scale give the file's numbers again, in their order."""
    section = {"name": "csv", "file": str(table), "target": ["heat", "force"], "scaling": "none"}
    data = load_dataset(parse_config({"system": {"name": "pcn"}, "data": section}).data)
    assert (data.n_classes, data.targets, data.n_outputs) == (None, ("heat", "force"), 2)
    assert data.train_x.shape == (96, 3)
    assert float(data.train_y.min()) == 0
    assert float(data.train_y.max()) == 1
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        told = np.array(data.target_shift) + np.array(data.target_scale) * y.double().numpy()
        np.testing.assert_allclose(told, (x.double().numpy() @ MAP + [40, -7])[:, ::-1], rtol=0, atol=2e-5)
    standard = {**section, "target": "force", "target_scaling": "standard"}
    one = load_dataset(parse_config({"system": {"name": "pcn"}, "data": standard}).data)
    assert abs(float(one.train_y.mean())) < 1e-5
    assert one.train_x.shape[1] == 4


def misses(outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square miss and R2 by numpy alone, in the unit of both."""
    squares = ((outputs - targets) ** 2).mean(0)
    return np.sqrt(squares), 1 - squares / targets.var(0)


@pytest.mark.parametrize("scaling", ["range", "standard", "none"])
def test_misses_are_told_alike_whatever_the_outputs_are(table: Path, scaling: str) -> None:
    """One linear layer at a target output of 1 and of 1/4 learns the same map: breaks if the network of smaller
    outputs is told to miss a quarter of that, as by its loss (1/16)."""
    found = []
    for target in (1.0, 0.25):
        data = {"name": "csv", "file": str(table), "target": ["force", "heat"], "target_scaling": scaling}
        ep = {"beta": 0.1, "cost": "squared_error", "target": target}
        training = {"epochs": 1, "batch_size": 96}
        found.append(
            train({**LINEAR, "data": data, "ep": ep, "training": training, "optimizer": {"name": "SGD", "lr": 0.0}})
        )
    for result, target in zip(found, (1.0, 0.25), strict=True):
        set_ = load_dataset(result.config.data)
        with torch.no_grad():
            outputs = result.system.outputs(relax(result.system, set_.test_x).state).numpy()
        unit = np.array(set_.target_shift), np.array(set_.target_scale)
        off, r2 = misses(unit[0] + unit[1] * outputs / target, unit[0] + unit[1] * set_.test_y.numpy())
        np.testing.assert_allclose(list(result.test_rms.values()), off, rtol=1e-5)
        np.testing.assert_allclose(list(result.test_r2.values()), r2, rtol=1e-5, atol=1e-6)
        pooled = np.sqrt(np.mean((outputs / target - set_.test_y.numpy()) ** 2))
        assert result.over_scales(result.test_loss) == pytest.approx(pooled, rel=1e-5)


@pytest.mark.full
def test_misses_of_loaders_and_of_older_runs(table: Path, tmp_path: Path) -> None:
    """Breaks if loaders, whose targets nobody has named, tell a loss alone, or a run from before this was measured
    does not go on."""
    x, y = torch.from_numpy(X).float(), torch.from_numpy(Y).float() / 40
    loader = DataLoader(TensorDataset(x, y), batch_size=60)
    file = tmp_path / "run.h5"
    config = {**LINEAR, "ep": {"beta": 0.1, "cost": "squared_error"}, "training": {"epochs": 1}}
    first = train(config, data=(loader, loader), out=file)
    assert list(first.test_rms) == ["target 1", "target 2"]
    run = open_run(file)
    old = {name: value for name, value in run.metrics.items() if name not in ("test_rms", "test_r2")}
    file = tmp_path / "old.h5"
    write_run(file, replace(run, metrics=old))
    assert "test loss" in repr(open_run(file))
    second = train(config, resume=file, data=(loader, loader), overrides=["training.epochs=2"])
    assert np.isnan(second.metrics["test_rms"][0]).all()
    with torch.no_grad():
        outputs = second.system.outputs(relax(second.system, x).state).numpy()
    off, r2 = misses(outputs, y.numpy())
    np.testing.assert_allclose(second.metrics["test_rms"][1], off, rtol=1e-4)
    np.testing.assert_allclose(second.metrics["test_r2"][1], r2, rtol=1e-4)


def test_misses_of_many_and_of_equal_targets_are_told() -> None:
    """Breaks if a line grows with the targets, or a target that never differs is called right or wrong."""
    one = Misses.of(np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([[1.0, 2.5], [4.0, 2.5]]))
    np.testing.assert_allclose(one.rms, [np.sqrt(0.5), 0.5])
    assert told_misses(["a", "b"], one.rms, one.r2) == "a off by 0.7071 (R2 0.7778), b off by 0.5 (R2 unknown)"
    none = Misses.of(np.zeros((0, 2)), np.zeros((0, 2)))
    assert np.isnan([*none.rms, *none.r2]).all()
    rounded = np.full((3, 1), 0.1)  # whose mean is not 0.1
    assert np.isnan(Misses.of(rounded + 1, rounded).r2).all()
    many = told_misses(list("abcde"), np.ones(5), np.linspace(0.9, 0.5, 5))
    assert many.endswith("c off by 1 (R2 0.7), 2 more, R2 0.5 or more")


def test_whole_numbers_are_measured_if_the_config_says_so(tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    path.write_text("a,count\n" + "".join(f"{k},{k % 3}\n" for k in range(30)), encoding="utf-8")
    section = {"name": "csv", "file": str(path)}
    assert load_dataset(parse_config({"system": {"name": "pcn"}, "data": section}).data).n_classes == 3
    told = {**section, "task": "regression", "target_scaling": "none"}
    found = load_dataset(parse_config({"system": {"name": "pcn"}, "data": told}).data)
    assert sorted(set(found.train_y[:, 0].tolist())) == [0, 1, 2]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_linear_layer_learns_least_squares(table: Path, tmp_path: Path) -> None:
    """Trained by EP, and judged: outputs are those that least squares would give; no accuracy is told."""
    config = {**LINEAR, "data": {"name": "csv", "file": str(table), "target": ["force", "heat"]}}
    result = train(config, out=tmp_path / "run.h5")
    system, data = result.system, load_dataset(parse_config(config).data)
    with torch.no_grad():
        outputs = system.outputs(relax(system, data.test_x).state)
    told = np.array(result.targets["shift"]) + np.array(result.targets["scale"]) * outputs.numpy()
    true = np.array(data.target_shift) + np.array(data.target_scale) * data.test_y.numpy()
    np.testing.assert_allclose(told, true, rtol=0, atol=0.02)
    loss = 0.5 * float((outputs - data.test_y).square().sum(1).mean())
    assert result.test_loss == pytest.approx(loss, rel=1e-5)
    assert np.isnan(result.metrics["test_error"]).all()
    assert np.isnan(result.metrics["train_error"]).all()
    off, r2 = misses(told, true)
    assert list(result.test_rms) == list(result.test_r2) == ["force", "heat"]
    np.testing.assert_allclose(list(result.test_rms.values()), off, rtol=1e-3)
    np.testing.assert_allclose(list(result.test_r2.values()), r2, rtol=1e-6)
    said = told_misses(["force", "heat"], result.test_rms.values(), result.test_r2.values())
    assert said in repr(result)
    assert said in repr(open_run(tmp_path / "run.h5"))
    assert open_run(tmp_path / "run.h5").attributes["targets"] == result.targets


@pytest.mark.full
def test_held_out_examples_and_seeds_judge_by_the_loss(table: Path) -> None:
    """The epoch that is kept is that of the smallest loss on examples that are not trained on."""
    system = {"name": "pcn", "sizes": [4, 1], "activation": "linear"}
    config = {**LINEAR, "system": system, "data": {"name": "csv", "file": str(table), "validation": 0.25}}
    found = train(config, overrides=["training.epochs=3"])
    assert found.validation_loss == found.metrics["validation_loss"].min()
    assert found.kept_epoch == 1 + int(found.metrics["validation_loss"].argmin())
    assert np.isfinite(found.metrics["test_loss"]).sum() == 1
    both = train({**config, "training": {"epochs": 1, "seeds": 2}})
    assert np.isfinite(found.metrics["test_r2"]).sum() == 1
    assert np.isfinite(found.metrics["validation_rms"]).all()
    rms, r2 = (np.mean([f[name]["heat"] for f in both.trainings]) for name in ("test_rms", "test_r2"))
    assert f"heat off by {rms:.4g} (R2 {r2:.4g})" in repr(both)
    assert both.figures()["test_rms"]["heat"] == np.mean([f["test_rms"]["heat"] for f in both.trainings])
    assert both.figures()["test_loss"] == pytest.approx(np.mean([f["test_loss"] for f in both.trainings]))


@pytest.mark.full
def test_the_command_tells_loss_and_no_accuracy(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "own.toml"
    config.write_text(
        f'[system]\nname = "hopfield"\nsizes = [4, 8, 1]\n[data]\nname = "csv"\nfile = "{table}"\n'
        "[training]\nepochs = 2\n[optimizer]\nlr = 0.05\n"
    )
    assert command("train", config, "--out", tmp_path / "run.h5", "--json", tmp_path / "f.json", "--verbose") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "heat off by" in told
    assert (
        "features: a, b, c, force (4 of the 5 columns of own.csv; data.columns chooses others); target: heat"
        in told
    )
    assert "test error" not in told
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["test_error"] is None
    assert figures["test_loss"] > 0


def test_arrays_are_as_a_file_of_them(tmp_path: Path) -> None:
    """The same split, the same classes, to the last bit: numpy arrays, tensors, pairs, and four arrays."""
    labels = np.array(["b", "a", "c"])[np.arange(120) % 3]
    np.savez(tmp_path / "own.npz", x=X, y=labels)
    config = {
        "system": {"name": "hopfield", "sizes": [3, 6, 3]},
        "data": {"name": "npz", "file": str(tmp_path / "own.npz")},
        "training": {"epochs": 2},
        "optimizer": {"name": "SGD", "lr": 0.1},
    }
    wanted = train(config)
    plain = {key: value for key, value in config.items() if key != "data"}
    for data in ((X, labels), (torch.from_numpy(X), labels)):
        found = train(plain, data=data)
        assert found.metrics["loss"].tolist() == wanted.metrics["loss"].tolist()
        assert found.config.data.name == "arrays"
    numbers = np.arange(120) % 3
    parts = (X[:90], numbers[:90], X[90:], torch.from_numpy(numbers[90:]))
    flat, paired = train(plain, data=parts), train(plain, data=(parts[:2], parts[2:]))
    assert flat.metrics["test_error"].tolist() == paired.metrics["test_error"].tolist()


@pytest.mark.full
def test_loaders_with_measured_targets() -> None:
    """A loader's numbers are learnt as they are, (B,) as one output; the order of a run repeats."""
    x, y = torch.from_numpy(X).float(), torch.from_numpy(Y[:, 0]).float() / 40
    loaders = tuple(DataLoader(TensorDataset(x[a:b], y[a:b]), batch_size=24) for a, b in ((0, 96), (96, 120)))
    result = train({**LINEAR, "system": {**LINEAR["system"], "sizes": [3, 1]}}, data=loaders)
    weights = np.linalg.lstsq(np.c_[X[:96], np.ones(96)], y[:96].numpy(), rcond=None)[0]
    outputs = result.system.outputs(relax(result.system, x[96:]).state).detach().numpy()[:, 0]
    np.testing.assert_allclose(outputs, np.c_[X[96:], np.ones(24)] @ weights, atol=2e-3)


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (
            (X, Y),
            {"ep": {"cost": "cross_entropy"}},
            "ep.cost must be 'squared_error' for targets that are measured",
        ),
        ((X, Y[:, 0]), {}, r"have the outputs' shape \(24, 2\), but was \(24, 1\)"),
        ((X, Y[:50]), {}, r"data.target must have shape \(120,\)"),
        ((X, np.where(Y > 40, np.nan, Y)), {}, "data.target must be finite"),
        ((X.astype("U"), Y), {}, "data must hold inputs"),
        ((X, Y, X), {}, r"data must be a folder, a Dataset, arrays \(x, y\)"),
        ((X, [1, 2]), {}, "but was .ndarray, list"),
        ((iter([]), iter([])), {}, "two loaders .train, test. to be gone through"),
        (X, {}, "data must be a folder.*but was ndarray"),
    ],
)
def test_what_does_not_fit_is_refused(data: Any, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train({**LINEAR, **changes}, data=data, out=tmp_path / "run.h5")
    assert not (tmp_path / "run.h5").exists()


@pytest.mark.parametrize("name", ["digits", "csv", "image-folder", "mnist"])
def test_a_file_where_a_folder_is_meant_is_refused(name: str, table: Path, tmp_path: Path) -> None:
    """A folder is passed over in silence where the set needs none, and the digits are learnt instead."""
    config = {**LINEAR, "data": {"name": name}}
    with pytest.raises(InputError, match=r"data must be a folder of data sets .*own.csv', which is a file"):
        train(config, data=table, out=tmp_path / "run.h5")
    assert not (tmp_path / "run.h5").exists()
    with pytest.raises(InputError, match=r"out must lie in a folder, but was .*where .*own.csv' is a file"):
        train(LINEAR, data=(X, Y), out=table / "run.h5")


def test_a_dataset_of_measured_targets_is_checked() -> None:
    x = torch.zeros(4, 3)
    with pytest.raises(InputError, match=r"train_y must be floating-point targets of shape \(4, n\)"):
        Dataset("own", x, torch.zeros(4, dtype=torch.int64), x, torch.zeros(4, 1), None)
    with pytest.raises(InputError, match="test_y must be finite"):
        Dataset("own", x, torch.zeros(4, 1), x, torch.full((4, 1), torch.nan), None)


@pytest.fixture
def python_run(tmp_path: Path) -> tuple[Path, tuple[np.ndarray, np.ndarray]]:
    """A run of two epochs of arrays; the classes are 0, 1, 2."""
    data = (X, np.arange(120) % 3)
    config = {
        "system": {"name": "pcn", "sizes": [3, 6, 3], "activation": "relu"},
        "training": {"epochs": 2},
        "optimizer": {"name": "SGD", "lr": 0.1},
    }
    train(config, data=data, out=tmp_path / "run.h5")
    return tmp_path / "run.h5", data


@pytest.mark.full
def test_a_run_of_arrays_goes_on(python_run: tuple[Path, Any], tmp_path: Path) -> None:
    """With the same arrays and no others; the file has the first test examples, inputs and classes."""
    path, (x, y) = python_run
    run = open_run(path)
    assert len(run.examples["x"]) == len(run.examples["y"]) == 24
    rows = [int(np.abs(x - row).sum(1).argmin()) for row in run.examples["x"].double().numpy()]
    assert run.examples["y"].tolist() == y[rows].tolist()
    longer = ("training.epochs=3",)
    for data, message in ((None, "data must be given again"), ((x, y[::-1]), "data must be the examples that")):
        with pytest.raises(InputError, match=message):
            train(run.config, overrides=longer, resume=path, data=data)
    assert open_run(path).epochs == 2
    found = train(run.config, overrides=longer, resume=path, data=(x, y))
    config = {k: v for k, v in run.config.items() if k in ("system", "training", "optimizer")}
    whole = train(config, overrides=longer, data=(x, y))
    assert found.metrics["loss"].tolist() == whole.metrics["loss"].tolist()
    config["data"] = {"name": "digits"}
    named = Dataset("digits", *(torch.rand(6, 3), torch.arange(6) % 3) * 2, n_classes=3)
    train(config, data=named, out=tmp_path / "named.h5")
    with pytest.raises(InputError, match="data must be given again"):  # the shipped digits are others
        train(config, overrides=longer, resume=tmp_path / "named.h5")


@pytest.mark.slow
def test_a_run_of_arrays_is_drawn_mapped_judged_and_simulated(
    python_run: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the commands, before its own examples and no others."""
    path, _ = python_run
    assert command("map", path, "--substrate", "resistive", "--batch", 4) == 0
    assert "4 examples that" in " ".join(capsys.readouterr().out.split())
    assert command("gradients", path, "--json", tmp_path / "g.json") == 0
    assert json.loads((tmp_path / "g.json").read_text())["worst_cosine"] > 0.99
    assert command("simulate", path, "--out", tmp_path / "s.h5", "--duration", 2) == 0
    assert command("tolerance", path, "--sweep", "levels=16", "--repeats", 1, "--out", tmp_path / "t") == 0
    for name in ("learning_curve", "substrates"):
        assert command("figure", name, "--from", path, "--out", tmp_path / "figures") == 0


@pytest.mark.full
def test_a_run_of_measured_targets_is_drawn_or_refused(table: Path, tmp_path: Path) -> None:
    """Nothing tells an accuracy that there is none of: costs are drawn, errors refused in a line."""
    system = {"name": "pcn", "sizes": [4, 6, 1], "activation": "tanh"}
    config = {**LINEAR, "system": system, "data": {"name": "csv", "file": str(table)}}
    result = train(config, overrides=["training.epochs=2"], out=tmp_path / "run.h5")
    assert "heat off by" in repr(result)
    assert command("figure", "learning_curve", "--from", tmp_path / "run.h5", "--out", tmp_path / "figures") == 0
    assert command("figure", "substrates", "--from", tmp_path / "run.h5", "--out", tmp_path / "figures") == 2
    assert command("simulate", tmp_path / "run.h5", "--out", tmp_path / "s.h5", "--duration", 2) == 0
    assert command("gradients", tmp_path / "run.h5") == 0
    with pytest.raises(InputError, match="Learning in place needs examples with classes"):
        learn_in_situ(config)


@pytest.mark.full
def test_learning_in_place_takes_arrays_and_loaders() -> None:
    """The same numbers whether examples come as arrays or by loaders in the same order."""
    x, y = torch.rand(48, 3, generator=torch.Generator().manual_seed(1)), torch.arange(48) % 3
    config = {
        "system": {"name": "pcn", "sizes": [3, 6, 3], "activation": "relu"},
        "training": {"epochs": 1},
        "optimizer": {"name": "SGD", "lr": 0.05},
    }
    loaders = tuple(DataLoader(TensorDataset(x[a:b], y[a:b]), batch_size=16) for a, b in ((0, 32), (32, 48)))
    arrays = learn_in_situ(config, data=(x[:32], y[:32], x[32:], y[32:]))
    loaded = learn_in_situ(config, data=loaders)
    for name in ("learned", "mapped", "ideal"):
        assert arrays.values[name].tolist() == loaded.values[name].tolist()


@pytest.mark.full
@pytest.mark.parametrize("limit", ["data.validation=0.3", "data.train_examples=12"])
def test_runs_on_another_scale_are_refused(tmp_path: Path, limit: str) -> None:
    """Scales were once fitted to examples held out as well; such a run would meet other numbers without a word."""
    x = np.random.default_rng(3).normal(size=(30, 3)) * [1.0, 5.0, 0.1]
    lines = [",".join([*map(repr, map(float, row)), str(int(row[0] > 0))]) for row in x]
    (tmp_path / "own.csv").write_text("\n".join(["a,b,c,kind", *lines]), encoding="utf-8")
    config: dict[str, Any] = {"system": {"name": "pcn", "sizes": [3, 4, 2]}, "training": {"epochs": 1}}
    config |= {"optimizer": {"name": "SGD", "lr": 0.01}, "data": {"name": "csv", "file": str(tmp_path / "own.csv")}}
    path, more = tmp_path / "run.h5", {"overrides": [limit]}
    train(config, out=path, **more)
    as_it_is = examples_of(path)[0]

    def told(digest: str | None) -> None:
        run = open_run(path)
        kept = {key: value for key, value in run.attributes.items() if key != EXAMPLES}
        write_run(
            path, replace(run, attributes=kept | ({} if digest is None else {EXAMPLES: digest})), overwrite=True
        )

    for digest, words in ((None, "run must tell what its examples were scaled by"), ("0" * 64, "scaled alike")):
        told(digest)
        with pytest.raises(InputError, match=words):
            train(config, resume=path, **more)
        with pytest.raises(InputError, match=words):
            examples_of(path)
        subject = subject_of(path)
        with pytest.raises(InputError, match=words):
            bring_examples(subject.system.build(seed=0), subject)
    # What is not scaled by its examples is the same as ever, and so is what they all were scaled by.
    for kept in ([], [limit, "data.scaling=none"]):
        train(config, out=path, overrides=kept, overwrite=True)
        told(None)
        assert examples_of(path)[0].shape == as_it_is.shape


@pytest.mark.full
@pytest.mark.parametrize("source", ["csv", "arrays"])
def test_a_run_goes_on_with_the_examples_it_was_trained_on(tmp_path: Path, source: str) -> None:
    """A file that was written anew, or arrays in another order, make of a resumed run one that no config tells."""
    x = np.random.default_rng(3).normal(size=(30, 3))
    y = (x[:, 0] > 0).astype(int)
    config: dict[str, Any] = {"system": {"name": "pcn", "sizes": [3, 4, 2]}, "training": {"epochs": 1}}
    config["optimizer"] = {"name": "SGD", "lr": 0.01}
    path = tmp_path / "own.csv"

    def given(order: slice) -> dict[str, Any]:
        if source == "arrays":
            return {"data": (x[order], y[order], x[:5], y[:5])}
        lines = [",".join(map(repr, [*map(float, row), int(k)])) for row, k in zip(x[order], y[order], strict=True)]
        path.write_text("\n".join(["a,b,c,kind", *lines]), encoding="utf-8")
        config["data"] = {"name": "csv", "file": str(path)}
        return {}

    options = given(slice(None))
    train(config, out=tmp_path / "run.h5", **options)
    more = ["training.epochs=2"]
    options = given(slice(None, None, -1))
    with pytest.raises(InputError, match=r"data\S* must hold the examples that the run was trained on"):
        train(config, resume=tmp_path / "run.h5", overrides=more, **options)
    options = given(slice(None))
    assert len(train(config, resume=tmp_path / "run.h5", overrides=more, **options).metrics["loss"]) == 2


def test_misses_of_several_processes_are_those_of_all_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes, one without examples; targets far from zero. Breaks if means of parts stand for that of all,
    or processes wait for each other in unlike sums."""
    draw = np.random.default_rng(3)
    targets = 1e6 + draw.normal(size=(30, 2))
    outputs = targets + 0.3 * draw.normal(size=(30, 2))
    parts = [slice(0, 7), slice(7, 30)]
    owns = [
        Evaluation(7 + 16 * k, 0, 0, 0, 7 + 16 * k, 1.0, Misses.of(outputs[p], targets[p]))
        for k, p in enumerate(parts)
    ]
    owns.append(Evaluation(0, 0, 0, 0))
    meeting, shared = Barrier(3), [[0.0]] * 3

    def summed_of(k: int, values: list[float]) -> list[float]:
        shared[k] = list(values)
        meeting.wait(20)
        assert len({len(each) for each in shared}) == 1
        found = [sum(each) for each in zip(*shared, strict=True)]
        meeting.wait(20)
        return found

    here = local()
    monkeypatch.setattr(metrics, "summed", lambda values, device: summed_of(here.k, values))

    def one(k: int) -> Evaluation:
        here.k = k
        return owns[k].of_all_ranks(torch.device("cpu"))

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(one, range(3)))
    off, r2 = misses(outputs, targets)
    for each in found:
        assert each.misses is not None
        np.testing.assert_allclose(each.misses.rms, off, rtol=1e-12)
        np.testing.assert_allclose(each.misses.r2, r2, rtol=1e-9)
