"""Examples held out of the training set choose the epoch; the test set is read once, and chooses nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from physics_ep import Callback, open_run, train
from physics_ep.config import SchedulerSection, load_config
from physics_ep.data.batches import InMemory
from physics_ep.data.datasets import Dataset, load_dataset
from physics_ep.data.held_out import held_out
from physics_ep.errors import InputError
from physics_ep.intervals import mean_interval
from physics_ep.runs import training
from physics_ep.runs.metrics import HELD_OUT, classification_error
from physics_ep.runs.optimization import build_scheduler, step_scheduler
from physics_ep.runs.preparation import system_of
from physics_ep.runs.results import TrainingResult
from physics_ep.runs.seeds import SeedsResult
from physics_ep.runs.selection import Selection
from physics_ep.runs.training import TrainingInterrupted, TrainingStoppedError
from tests.support.runs import StopAfter, assert_same_run

SMALL: dict[str, Any] = {
    "system": {"name": "hopfield", "sizes": [64, 8, 10]},
    "data": {"name": "digits", "train_examples": 200, "test_examples": 50, "validation": 40},
    "training": {"epochs": 5, "batch_size": 40},
    "optimizer": {"name": "SGD", "lr": 0.5, "momentum": 0.9},
}


def small_data(test_labels: str = "true") -> Dataset:
    """The examples of SMALL; with 'shuffled' labels the test set is another one."""
    data = load_dataset(load_config(SMALL).data)
    order = torch.randperm(len(data.test_y), generator=torch.Generator().manual_seed(1))
    return data if test_labels == "true" else replace(data, test_y=data.test_y[order])


def chosen_alike(**options: Any) -> bool:
    """Whether trainings with two test sets choose the same epoch and weights, without a look at either."""
    a, b = (train(SMALL, data=small_data(labels), **options) for labels in ("true", "shuffled"))
    assert isinstance(a, TrainingResult)
    assert isinstance(b, TrainingResult)
    assert a.test_error != b.test_error
    pairs = zip(a.system.state_dict().values(), b.system.state_dict().values(), strict=True)
    return a.kept_epoch == b.kept_epoch and all(torch.equal(v, w) for v, w in pairs)


@pytest.mark.parametrize("validation", [40, 0.17, 7, 1])
def test_examples_held_out_have_the_shares_of_the_classes(validation: float | int) -> None:
    """No example is both trained on and chosen by, and no class is missing where epochs are compared."""
    labels = np.repeat([0, 1, 2], [100, 60, 41])
    kept, held = held_out(labels, validation, seed=3)
    wanted = validation if isinstance(validation, int) else round(validation * 201)
    assert len(held) == wanted
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(201))
    shares = np.bincount(labels) * wanted / 201
    assert np.abs(np.bincount(labels[held], minlength=3) - shares).max() < 1
    assert not np.array_equal(held, held_out(labels, validation, seed=4)[1])
    np.testing.assert_array_equal(held, held_out(labels, validation, seed=3)[1])


def test_selection_does_not_look_at_the_test_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test errors are not the best of many looks, which would be too small; a planted leak is found."""
    brief = ["training.epochs=3"]
    assert chosen_alike(overrides=brief)
    monkeypatch.setattr(InMemory, "validation", InMemory.test)
    assert not chosen_alike(overrides=brief)


class Watch(Callback):
    """Keeps the weights after each epoch, and what callbacks are told."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.told: list[dict[str, Any]] = []

    def on_epoch(self, system: Any, epoch: int, figures: dict[str, Any]) -> None:
        self.weights.append({name: w.clone() for name, w in system.state_dict().items()})
        self.told.append(figures)


def test_test_set_is_read_once_with_the_weights_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's weights, epoch and test error are of one state, and it says when the test set was read."""
    reads = []
    usual = InMemory.test

    def counted(self: InMemory) -> Iterator[Any]:
        reads.append(1)
        return usual(self)

    monkeypatch.setattr(InMemory, "test", counted)
    out, watch = tmp_path / "run.h5", Watch()
    result = train(SMALL, out=out, callbacks=[watch])
    assert isinstance(result, TrainingResult)
    assert len(reads) == 1
    errors = result.metrics["validation_error"]
    assert errors.std() > 0
    best = int(np.argmin(errors))
    assert result.kept_epoch == best + 1 < 5
    assert all(math.isnan(figures["test_error"]) for figures in watch.told)
    assert np.flatnonzero(np.isfinite(result.metrics["test_error"])).tolist() == [best]
    run = open_run(out)
    for name, weight in watch.weights[best].items():
        assert torch.equal(weight, run.state_dict[name])
        assert torch.equal(weight, result.system.state_dict()[name])
    data = small_data()
    assert classification_error(system_of(run), data.test_x, data.test_y)[0] == result.test_error
    _, held = held_out(data.train_y.numpy(), 40, seed=0)
    chosen = torch.from_numpy(held)
    found = classification_error(system_of(run), data.train_x[chosen], data.train_y[chosen])[0]
    assert found == result.validation_error == errors.min()
    assert run.attributes["test_read"] == result.test_read
    assert str(run.attributes["test_read"]).endswith("+00:00")
    assert result.figures()["kept_epoch"] == best + 1
    # A whole run is given back as it is; more epochs would be chosen after a look at the test set.
    again = train(SMALL, resume=out)
    assert len(reads) == 1
    assert again.test_error == result.test_error
    with pytest.raises(InputError, match=r"training\.epochs must leave .* whose test set was read at"):
        train(SMALL, resume=out, overrides=["training.epochs=6"])


@pytest.mark.full
@pytest.mark.parametrize("stop", ["epoch", "test"])
def test_a_killed_training_chooses_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str) -> None:
    """What is chosen does not depend on kills: the best epoch may lie before one, and the test after it."""
    straight, halted = tmp_path / "straight.h5", tmp_path / "halted.h5"
    train(SMALL, out=straight)
    if stop == "epoch":
        with pytest.raises(TrainingInterrupted, match="interrupted in epoch 5"):
            train(SMALL, out=halted, progress=StopAfter(epochs=4, batches=1))
    else:

        def killed(self: InMemory) -> Iterator[Any]:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(InMemory, "test", killed)
            with pytest.raises(TrainingInterrupted, match="interrupted in the test"):
                train(SMALL, out=halted)
        assert "test_read" not in open_run(halted).attributes
    train(SMALL, resume=halted)
    assert_same_run(straight, halted)
    a, b = open_run(straight), open_run(halted)
    assert a.attributes["kept_epoch"] == b.attributes["kept_epoch"]
    for name in HELD_OUT:
        np.testing.assert_array_equal(a.metric(name), b.metric(name))


@pytest.mark.full
def test_training_ends_once_its_patience_is_over() -> None:
    """Early stopping counts epochs without a smaller error, no more and no fewer than it is told."""
    long = train(SMALL, overrides=["training.epochs=12"]).figures()["metrics"]["validation_error"]
    ends = next(n for n in range(1, 13) if n - 1 - int(np.argmin(long[:n])) >= 2)
    result = train(SMALL, overrides=["training.epochs=12", "training.patience=2"]).figures()
    assert result["epochs"] == ends < 12
    assert result["kept_epoch"] == ends - 2
    assert result["metrics"]["validation_error"] == long[:ends]


@pytest.mark.parametrize("per", ["epoch", "batch"])
def test_learning_rates_rise_and_follow_the_schedule(per: str) -> None:
    """Warm-up and schedules by batches have the lengths and heights of their formulas."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.8)
    section = SchedulerSection.model_validate(
        {"name": "CosineAnnealingLR", "per": per, "warmup": 3, "eta_min": 0.1}
    )
    epochs, batches = (10, 4) if per == "epoch" else (5, 2)
    scheduler = build_scheduler(section, optimizer, epochs, batches)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        step_scheduler(scheduler)
    cosine = [0.1 + 0.7 * (1 + math.cos(math.pi * k / 7)) / 2 for k in range(7)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, *cosine], rel=1e-12)


def test_clipped_gradients_have_at_most_the_norm() -> None:
    """Plain SGD moves by lr times the clipped norm, and small gradients are not changed."""
    start, ends = {}, {}
    for name, clip in (("free", None), ("loose", 1e6), ("tight", 1e-3)):
        config = load_config({**SMALL, "optimizer": {"name": "SGD", "lr": 1.0}})
        config = config.updated(training={"epochs": 1, "batch_size": 200, "clip_norm": clip})
        watch = Watch()
        result = train(config, callbacks=[watch])
        ends[name] = torch.cat([w.flatten() for w in result.system.state_dict().values()])
        start = torch.cat([w.flatten() for w in training.new_system(config).state_dict().values()])
    assert torch.equal(ends["free"], ends["loose"])
    assert float((ends["free"] - start).norm()) > 0.01
    assert float((ends["tight"] - start).norm()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.full
def test_seeds_give_a_mean_with_its_interval(tmp_path: Path) -> None:
    """The interval of seeds is Student's, and each seed's training is the one that it would be alone."""
    out = tmp_path / "run.h5"
    found = train(SMALL, overrides=["training.seeds=3", "training.epochs=2"], out=out, seed=4)
    assert isinstance(found, SeedsResult)
    assert found.seeds == (4, 5, 6)
    errors = [figures["test_error"] for figures in found.trainings]
    t = stats.t.interval(0.95, 2, loc=np.mean(errors), scale=stats.sem(errors))
    assert found.test_error == pytest.approx(np.mean(errors))
    assert found.test_error_interval == pytest.approx(list(t))
    assert mean_interval([0.5]).ends is None
    alone = tmp_path / "alone.h5"
    train(SMALL, overrides=["training.epochs=2"], out=alone, seed=5)
    assert_same_run(alone, tmp_path / "run.seed5.h5")
    # What is there is not trained again, and what is not, is.
    (tmp_path / "run.seed6.h5").unlink()
    again = train(SMALL, overrides=["training.seeds=3", "training.epochs=2"], resume=out, seed=4)
    assert isinstance(again, SeedsResult)
    assert [f["test_read"] for f in again.trainings[:2]] == [f["test_read"] for f in found.trainings[:2]]
    assert [f["test_error"] for f in again.trainings] == errors


@pytest.mark.full
def test_workers_change_no_bit(tmp_path: Path) -> None:
    """Figures over seeds do not depend on the number of processes."""
    for workers in (1, 2):
        train(
            SMALL,
            overrides=["training.seeds=2", "training.epochs=2"],
            out=tmp_path / f"{workers}.h5",
            workers=workers,
        )
    for seed in (0, 1):
        assert_same_run(tmp_path / f"1.seed{seed}.h5", tmp_path / f"2.seed{seed}.h5")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {"validation": 1.5}}, "data.validation must be a share in (0, 1), or a number"),
        ({"data": {"validation": 0}}, "data.validation must be a share in (0, 1), or a number"),
        ({"data": {"validation": True}}, "Argument data.validation must be a valid"),
        ({"data": {"validation": 200}}, "data.validation must hold out at least one of the 200 training examples"),
        ({"data": {"validation": 1e-9}}, "which is 0 of them"),
        ({"data": {"validation": None}, "training": {"patience": 1}}, "training.patience must come with"),
        ({"training": {"clip_norm": 0.0}}, "Argument training.clip_norm must be greater than 0"),
        ({"scheduler": {"name": "CosineAnnealingLR", "warmup": 5}}, "scheduler.warmup must be less than the 5"),
        ({"scheduler": {"name": "ReduceLROnPlateau", "per": "batch"}}, "scheduler.per must be left out"),
    ],
)
def test_bad_choices_are_named(change: dict[str, Any], words: str) -> None:
    """Wrong splits, schedules and patience are refused before training, by the name of the argument."""
    with pytest.raises(InputError) as caught:
        train(load_config(SMALL).updated(**change))
    assert words in str(caught.value)


def test_an_epoch_without_a_figure_is_never_the_best() -> None:
    """Where no example held out had an equilibrium, its loss is NaN: the last epoch was kept as if chosen."""
    config = load_config({**SMALL, "training": {**SMALL["training"], "patience": 2}})
    selection = Selection(config, measured=True)
    losses = [math.nan, 0.5, 0.4, math.nan, 0.6]
    rows = [{"validation_loss": loss} for loss in losses]
    assert [selection.exhausted(rows[:k]) for k in range(1, 6)] == [False, False, False, False, True]
    assert not selection.improved(selection.start(), rows[0])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nothing_is_chosen_where_nothing_held_out_settles(tmp_path: Path) -> None:
    config = {
        **SMALL,
        "system": {"name": "hopfield", "sizes": [3, 4, 1]},
        "data": {"name": "digits", "validation": 4},
        "training": {"epochs": 1, "batch_size": 10, "on_unconverged": "warn"},
        "ep": {"cost": "squared_error", "max_iterations": 1},
    }
    x = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(TrainingStoppedError, match="none of the examples held out had an equilibrium"):
        train(config, data=(x, x[:, :1] / 3), out=tmp_path / "run.h5")
    assert open_run(tmp_path / "run.h5").epochs == 1


def test_seeds_have_a_bound() -> None:
    with pytest.raises(InputError, match=r"training.seeds must be at most 100,000"):
        train(SMALL, overrides=["training.seeds=1000000000"])


def test_loaders_cannot_be_split() -> None:
    """Loaders with `data.validation` are refused, since the epoch would be chosen by examples trained on."""
    data = small_data()
    loaders = ([(data.train_x, data.train_y)], [(data.test_x, data.test_y)])
    with pytest.raises(InputError, match=r"data\.validation must be left out where loaders are given"):
        train(SMALL, data=loaders)
