"""Training: it learns, it resumes to the bit, it stops where physics fails, and it refuses bad input whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from physics_ep import Callback, EquilibriumPropagation, SquaredError, open_run, train
from physics_ep.data.datasets import Dataset
from physics_ep.errors import InputError
from physics_ep.estimators.step import Step
from physics_ep.runs import training
from physics_ep.runs.metrics import METRICS, classification_error
from physics_ep.runs.preparation import system_of
from physics_ep.runs.training import TrainingInterrupted, TrainingStoppedError
from physics_ep.storage.run_file import write_run
from physics_ep.system import EnergySystem
from tests.support.processes import wait_for
from tests.support.runs import StopAfter, assert_same_run

SMALL: dict[str, Any] = {
    "system": {"name": "hopfield", "sizes": [64, 16, 10]},
    "data": {"name": "digits", "train_examples": 192, "test_examples": 64, "augmentation": "shift"},
    "training": {"epochs": 4, "batch_size": 32},
    "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9, "groups": {"layers.1.": {"lr": 0.05}}},
    "scheduler": {"name": "StepLR", "step_size": 2},
    "ep": {"scheme": "random", "beta": "auto"},
}
"""A config in which all that is random or measured takes part."""


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Weights in a run file."""
    return open_run(path).state_dict


def test_digits_are_learnt_and_recorded(tmp_path: Path) -> None:
    """If this fails, training runs but does not learn, or its record lacks what a reader needs."""
    out = tmp_path / "run.h5"
    result = train("hopfield-digits", overrides=["training.epochs=8", "system.sizes=[64, 32, 10]"], out=out)
    assert result.test_error <= 0.06
    run = open_run(out)
    assert set(run.metrics) == set(METRICS)
    assert run.epochs == 8
    assert all(len(run.metric(name)) == 8 for name in METRICS)
    assert run.metric("worst_residual").max() <= 1e-6
    assert run.metric("median_residual").max() <= run.metric("worst_residual").max()
    assert run.metric("learning_rates").shape == (8, 2)
    assert run.attributes["seed"] == 0
    figures = result.figures()
    for key in ("test_error", "train_error", "epochs", "seconds", "worst_residual", "skipped", "config"):
        assert key in figures
    # The weights in the file are those of the figures.
    from physics_ep.data.datasets import digits

    data = digits()
    error, unconverged = classification_error(system_of(run), data.test_x.flatten(1), data.test_y)
    assert error == result.test_error
    assert unconverged == 0


ADAPTIVE = {"optimizer": {"name": "Adam", "lr": 0.01}, "scheduler": {"name": "OneCycleLR", "max_lr": 0.02}}


@pytest.mark.parametrize("change", [{}, ADAPTIVE])
def test_resume_is_the_same_to_the_bit(tmp_path: Path, change: dict[str, Any]) -> None:
    """If this fails, a run that was interrupted is another run: its figures cannot be reproduced."""
    config = {**SMALL, **change}
    straight, halted = tmp_path / "straight.h5", tmp_path / "halted.h5"
    train(config, out=straight)
    with pytest.raises(TrainingInterrupted, match=f"resume='{halted}'"):
        train(config, out=halted, progress=StopAfter(epochs=2, batches=3))
    assert open_run(halted).epochs == 2
    result = train(config, resume=halted)
    assert result.path == halted
    assert_same_run(straight, halted)


@pytest.mark.parametrize("estimator", ["ep", "backprop"])
def test_resume_within_an_epoch_is_the_same_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimator: str
) -> None:
    """A kill in a long epoch loses minutes of it, not hours, and neither the kill nor the clock changes a bit."""
    monkeypatch.setattr(training, "SEGMENT", 2)
    config = {**SMALL, "training": {**SMALL["training"], "epochs": 2, "checkpoint_minutes": 1e-9}}
    if estimator == "backprop":
        config["system"] = {"name": "pcn", "sizes": [64, 16, 10]}
        config["ep"] = {"estimator": "backprop"}
    straight, rarely, halted = tmp_path / "straight.h5", tmp_path / "rarely.h5", tmp_path / "halted.h5"
    train(config, out=straight)
    with pytest.raises(TrainingInterrupted, match=r"epochs 1 to 1 and 4 batches of epoch 2 are kept"):
        train(config, out=halted, progress=StopAfter(epochs=1, batches=5))
    found = open_run(halted)
    assert found.epochs == 1
    assert found.resume["within"]["batches"] == 4
    whole = train({**config, "training": {**config["training"], "epochs": 1}}).system.state_dict()
    assert all(torch.equal(w, whole[n]) for n, w in found.state_dict.items())  # the last whole epoch's
    train(config, resume=halted)
    assert_same_run(straight, halted)
    config["training"]["checkpoint_minutes"] = 1e6
    train(config, out=rarely)
    for name, weight in weights(straight).items():
        assert torch.equal(weight, weights(rarely)[name])


def test_no_whole_epoch_is_needed_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first epoch may be the longest: what was kept of it is taken up again."""
    monkeypatch.setattr(training, "SEGMENT", 2)
    config = {**SMALL, "training": {**SMALL["training"], "epochs": 1, "checkpoint_minutes": 1e-9}}
    straight, halted = tmp_path / "straight.h5", tmp_path / "halted.h5"
    train(config, out=straight)
    with pytest.raises(TrainingInterrupted, match=r"2 batches of epoch 1 are kept"):
        train(config, out=halted, progress=StopAfter(epochs=0, batches=3))
    assert "0 epochs" not in repr(open_run(halted))
    train(config, resume=halted)
    assert_same_run(straight, halted)


class _Spoil(Callback):
    """After two epochs something ruins the weights, as a divergence would; they stay finite."""

    def on_epoch(self, system: EnergySystem, epoch: int, figures: dict[str, Any]) -> bool | None:
        if epoch == 1:
            with torch.no_grad():
                for parameter in system.parameters():
                    parameter.mul_(-1)
        return None


def test_a_run_that_went_wrong_goes_on_from_its_best_epoch(tmp_path: Path) -> None:
    """A diverging epoch never replaces the only good one: --rewind takes it up, perhaps with a smaller lr."""
    straight, spoilt = tmp_path / "straight.h5", tmp_path / "spoilt.h5"
    train(SMALL, out=straight)
    losses = open_run(straight).metric("loss")
    train(SMALL, out=spoilt, callbacks=[_Spoil()])
    found = open_run(spoilt)
    assert found.metric("loss")[2] > losses[1]
    assert found.resume["best"]["epochs"] == 2
    with pytest.raises(InputError, match=r"optimizer\.lr must be 0\.1"):
        train(SMALL, overrides=["optimizer.lr=0.05"], resume=spoilt, out=tmp_path / "no.h5")
    with pytest.raises(InputError, match="Argument rewind must be left out"):
        train(SMALL, rewind=True)
    train(SMALL, resume=spoilt, rewind=True)
    again = open_run(spoilt)
    assert (again.metric("loss") == losses).all()
    assert "from epoch 4 to 2" in again.attributes["rewound"]
    for name, weight in weights(straight).items():
        assert torch.equal(weight, again.state_dict[name])


@pytest.mark.full
def test_the_way_on_from_the_best_epoch_may_be_another(tmp_path: Path) -> None:
    """Repeated with the same recipe a divergence comes again: lr and beta may be changed, and only they are."""
    config = {**SMALL, "scheduler": None}
    spoilt = tmp_path / "spoilt.h5"
    train(config, out=spoilt, callbacks=[_Spoil()])
    result = train(config, resume=spoilt, rewind=True, overrides=["optimizer.lr=0.01", "ep.beta=0.1"])
    rates = result.metrics["learning_rates"]
    assert rates[:2].tolist() == [[0.1, 0.05]] * 2
    assert rates[2:].tolist() == [[0.01, 0.05]] * 2
    assert result.config.ep.beta == 0.1
    with pytest.raises(InputError, match="system"):
        train(config, resume=spoilt, rewind=True, overrides=["system.sizes=[64, 8, 10]"])


class _InterruptedInDestructor:
    """Ctrl-C where Python ignores exceptions."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


class _InterruptAfterFirstEpoch(StopAfter):
    def _advance(self, n: int = 1, **info: Any) -> None:
        self.epochs -= n == 0
        if n == 0 and self.epochs == 0:
            _InterruptedInDestructor()  # deleted at once


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupt_is_not_lost_where_exceptions_are(tmp_path: Path) -> None:
    """If this fails, Ctrl-C at an unlucky moment is swallowed, and training goes on for hours."""
    out = tmp_path / "run.h5"
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterrupted, match=f"resume='{out}'"):
        train(SMALL, out=out, progress=_InterruptAfterFirstEpoch(epochs=1))
    assert signal.getsignal(signal.SIGINT) is before
    assert open_run(out).epochs == 1


def test_interrupt_while_an_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the file holds an epoch, and the user is told that none was kept."""
    out = tmp_path / "run.h5"

    def interrupted(path: Path, run: Any) -> None:
        write_run(path, run)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("physics_ep.runs.training.write_run", interrupted)
    with pytest.raises(TrainingInterrupted, match=f"epochs 1 to 1 are kept: resume with resume='{out}'"):
        train(SMALL, out=out)
    assert open_run(out).epochs == 1


def test_resume_with_more_epochs(tmp_path: Path) -> None:
    """If this fails, a run cannot be extended, or extending changes what was done."""
    out = tmp_path / "run.h5"
    train(SMALL, overrides=["training.epochs=2"], out=out)
    train(SMALL, resume=out)
    train(SMALL, out=tmp_path / "straight.h5")
    assert_same_run(tmp_path / "straight.h5", out)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epochs=1", "training.epochs must be at least the 2"),
        ("optimizer.lr=0.2", "optimizer.lr must be 0.1, as in"),
        ("training.seed=1", "training.seed must be 0, as in"),
        ("system.sizes=[64, 8, 10]", "system.sizes must be [64, 16, 10], as in"),
    ],
)
def test_resume_of_another_config_is_refused(
    tmp_path_factory: pytest.TempPathFactory, override: str, words: str
) -> None:
    """If this fails, weights of one recipe go on under another, unnoticed."""
    out = tmp_path_factory.getbasetemp() / "resume-of-another.h5"
    if not out.exists():
        train(SMALL, overrides=["training.epochs=2"], out=out)
    before = out.read_bytes()
    with pytest.raises(InputError) as caught:
        train(SMALL, overrides=[override], resume=out)
    assert words in str(caught.value)
    assert out.read_bytes() == before


def test_epochs_that_set_the_schedule_cannot_be_extended(tmp_path: Path) -> None:
    """If this fails, the extended cosine differs from the one that the first epochs followed."""
    config = {**SMALL, "scheduler": {"name": "CosineAnnealingLR"}, "training": {"epochs": 1}}
    train(config, out=tmp_path / "run.h5")
    with pytest.raises(InputError, match="it sets the scheduler's length"):
        train({**config, "training": {"epochs": 2}}, resume=tmp_path / "run.h5")


def test_seed_fixes_everything_and_changes_everything() -> None:
    """If this fails, runs cannot be reproduced, or 'ten seeds' are ten times the same run."""
    config = {**SMALL, "training": {"epochs": 1}}
    torch.manual_seed(1)
    first = train(config, seed=5)
    torch.manual_seed(2)  # the global generator must not matter
    again, other = train(config, seed=5), train(config, seed=6)
    pairs = list(zip(first.system.parameters(), again.system.parameters(), other.system.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not any(torch.equal(a, c) for a, _, c in pairs)


RUNNER = """
import json, sys
import torch
torch.set_num_threads(1)
from physics_ep import train
train(json.loads(sys.argv[1]), out=sys.argv[2])
"""


@pytest.mark.full
def test_kill_loses_at_most_the_epoch_under_way(tmp_path: Path) -> None:
    """If this fails, a kill -9 costs more than an epoch, or what is left cannot be resumed to the same bits."""
    import json

    out = tmp_path / "run.h5"
    config = {**SMALL, "training": {"epochs": 5000, "batch_size": 32, "threads": 1}, "scheduler": None}
    command = [sys.executable, "-c", RUNNER, json.dumps(config), str(out)]
    with subprocess.Popen(command) as process:
        wait_for(out.exists, process)
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    done = open_run(out).epochs
    assert 1 <= done < 5000
    longer = {**config, "training": {**config["training"], "epochs": done + 1}}
    train(longer, resume=out)
    train(longer, out=tmp_path / "straight.h5")
    assert_same_run(tmp_path / "straight.h5", out)


def test_unconverged_examples_stop_training_resumably(tmp_path: Path) -> None:
    """If this fails, training goes on with gradients of states that are no equilibria."""
    out = tmp_path / "run.h5"
    few = ["ep.max_iterations=2", "ep.beta=0.1", "ep.scheme=positive"]
    with pytest.raises(TrainingStoppedError, match=r"more than 1.00% of its examples did not converge") as caught:
        train(SMALL, overrides=few, out=out)
    assert caught.value.exit_status == 1
    assert not out.exists()
    # Allowed by the config, they are skipped and counted, and count as errors of the test.
    some = [*few, "training.max_skipped=1.0", "training.epochs=1", "ep.solver=coordinate", "ep.max_iterations=6"]
    result = train(SMALL, overrides=some)
    assert 0 < result.metrics["skipped"][0] < 192
    assert result.metrics["worst_residual"][0] <= 1e-6
    assert result.test_error >= result.metrics["test_unconverged"][0] / 64 > 0
    with pytest.raises(TrainingStoppedError, match="did not converge for 32 of 32 examples"):
        train(SMALL, overrides=[*few, "training.on_unconverged=raise"])


def test_failure_in_a_later_epoch_keeps_the_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a run that diverges at last is lost as a whole, or the user is not told how to go on."""
    out = tmp_path / "run.h5"
    real = EquilibriumPropagation.backward
    count = 0

    def failing(self: EquilibriumPropagation, *arguments: Any) -> Step:
        nonlocal count
        count += 1
        if count > 8:
            raise InputError("the negative nudge passed its limit.")
        return real(self, *arguments)

    monkeypatch.setattr(EquilibriumPropagation, "backward", failing)
    with pytest.raises(TrainingStoppedError, match=r"epoch 2: the negative .* epochs 1 to 1 are kept") as caught:
        train(SMALL, out=out)
    assert f"resume='{out}'" in str(caught.value)
    assert open_run(out).epochs == 1


def test_no_epoch_done_says_so() -> None:
    """If this fails, the user is told to resume from a file that does not exist."""
    with pytest.raises(TrainingInterrupted, match="interrupted in epoch 1; no complete epoch was kept"):
        train(SMALL, progress=StopAfter(epochs=0, batches=2))


def test_resume_into_another_file_names_the_file_that_there_is(tmp_path: Path) -> None:
    """If this fails, the user is told to resume from a file that was never written."""
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    train(SMALL, overrides=["training.epochs=1"], out=first)
    with pytest.raises(TrainingInterrupted, match=f"epochs 1 to 1 are kept: resume with resume='{first}'"):
        train(SMALL, resume=first, out=second, progress=StopAfter(epochs=0, batches=2))
    assert not second.exists()
    train(SMALL, resume=first, out=second)
    train(SMALL, out=tmp_path / "straight.h5")
    assert_same_run(tmp_path / "straight.h5", second)


def test_another_gradient_under_the_same_recipe() -> None:
    """If this fails, exact gradients cannot be compared with EP under one recipe."""
    ep = EquilibriumPropagation(SquaredError(), beta=0.1)
    calls: list[int] = []

    def backward(system: EnergySystem, x: torch.Tensor, y: torch.Tensor) -> Step:
        calls.append(len(x))
        return ep.backward(system, x, y)

    config = {**SMALL, "ep": {"beta": 0.1}, "training": {"epochs": 1}}
    theirs, ours = train(config, backward=backward), train(config)
    assert sum(calls) == 192
    assert all(torch.equal(a, b) for a, b in zip(theirs.system.parameters(), ours.system.parameters(), strict=True))


def test_gradients_of_one_run_come_one_way(tmp_path: Path) -> None:
    """Else a run begun by exact gradients goes on by EP, and no file tells that it did."""
    ep = EquilibriumPropagation(SquaredError(), beta=0.1)

    def backward(system: EnergySystem, x: torch.Tensor, y: torch.Tensor) -> Step:
        return ep.backward(system, x, y)

    file, plain = tmp_path / "run.h5", tmp_path / "plain.h5"
    config = {**SMALL, "ep": {"beta": 0.1}, "training": {"epochs": 2}}
    with pytest.raises(TrainingInterrupted):
        train(config, out=file, backward=backward, progress=StopAfter(epochs=1, batches=0))
    told = open_run(file).attributes["backward"]
    assert told.endswith("<locals>.backward")
    with pytest.raises(InputError, match=r"backward must be '.*backward' \(by its name.*but was left out"):
        train(config, resume=file)
    train(config, resume=file, backward=backward)
    backward.description = "by hand"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"backward must be .* but was 'by hand'"):
        train(config, resume=file, backward=backward)
    train(config, overrides=["training.epochs=1"], out=plain)
    assert "backward" not in open_run(plain).attributes
    with pytest.raises(InputError, match="backward must be left out"):
        train(config, resume=plain, backward=backward)


def test_parameters_are_put_back_into_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, an optimizer step leaves conductances negative."""
    from hardware_models import HopfieldNetwork

    def constrain(system: EnergySystem) -> None:
        with torch.no_grad():
            for p in system.parameters():
                p.clamp_(min=0)

    monkeypatch.setattr(HopfieldNetwork, "constrain", constrain)
    result = train(SMALL, overrides=["training.epochs=1"])
    assert all(bool((p >= 0).all()) for p in result.system.parameters())


def data_of(n: int = 40, classes: int = 10, size: int = 64) -> Dataset:
    """Random examples."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, size, generator=generator)
    y = torch.arange(n) % classes
    return Dataset("random", x, y, x, y, n_classes=classes)


@pytest.mark.parametrize(
    ("overrides", "arguments", "words"),
    [
        (["system.sizes=[64, 0, 10]"], {}, "sizes must be"),
        (["system.sizes=[100, 16, 10]"], {}, "Argument x must be"),
        (["system.sizes=[64, 16, 7]"], {}, "Argument y must"),
        (["system.sizes=[64, 100000000, 10]"], {}, "Too little memory"),
        (["ep.beta=50.0", "ep.scheme=centered"], {}, "Argument beta must be below"),
        (["ep.scheme=holomorphic:4"], {}, "scheme"),
        (["optimizer.name=Adamm"], {}, "Did you mean 'Adam'?"),
        ([], {"data": data_of(classes=12)}, "Argument y must"),
        ([], {"data": data_of(size=63)}, "Argument x must be"),
        ([], {"data": "/nonexistent"}, None),
        ([], {"device": "cuda:77"}, "Argument device must"),
        ([], {"dtype": "float16"}, "Argument dtype must"),
        ([], {"seed": -1}, "training.seed must be"),
        ([], {"resume": "/nonexistent/run.h5"}, "Argument resume must be a run file"),
        ([], {"out": "/proc/run.h5"}, "Argument out must be a file that can be written"),
    ],
)
def test_bad_input_writes_nothing(
    tmp_path: Path, overrides: list[str], arguments: dict[str, Any], words: str | None
) -> None:
    """If this fails, bad input is found after work has begun, or leaves a file behind."""
    out = tmp_path / "run.h5"
    if words is None:  # digits need no folder: an unused one is no mistake
        train(SMALL, overrides=["training.epochs=1"], **arguments)
        return
    with pytest.raises(InputError) as caught:
        train(SMALL, overrides=overrides, **{"out": out, **arguments})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    """If this fails, a slip of the keyboard replaces the user's data by a run; an old run may be replaced."""
    thesis = tmp_path / "thesis.h5"
    thesis.write_text("years of work", encoding="utf-8")
    with pytest.raises(InputError, match="holds something else"):
        train(SMALL, out=thesis)
    assert thesis.read_text(encoding="utf-8") == "years of work"
    with pytest.raises(InputError, match="damaged or truncated"):
        train(SMALL, resume=thesis)


@pytest.mark.slow
def test_mnist_reaches_its_error(mnist_folder: Path) -> None:
    """If this fails, the bundled config no longer keeps its promise: at most 1.8 % on the full test set."""
    result = train("hopfield-mnist", data=mnist_folder)
    assert result.test_error <= 0.018
    assert result.metrics["worst_residual"].max() <= 1e-6
