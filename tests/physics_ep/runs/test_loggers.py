"""Loggers of training. If these fail, what a log says is not what the run file says, or a log takes away a file."""

from __future__ import annotations

import csv
import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physics_ep import Callback, entries, open_run, train
from physics_ep.errors import InputError
from physics_ep.runs import CsvLogger, TensorBoardLogger, WandbLogger

TINY = (
    "training.epochs=2",
    "data.train_examples=64",
    "data.test_examples=16",
    "system.sizes=[64, 8, 10]",
)


class Stop(Callback):
    """The first epoch of a run is its last."""

    def on_epoch(self, system, epoch, figures):
        return True


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_log_has_what_the_run_file_has(tmp_path: Path) -> None:
    """Every epoch once and to the last digit: also of a run that goes on, in its own file or in another."""
    out = tmp_path / "run.h5"
    logged = (*TINY, 'training.loggers=["csv"]')
    train("pcn-digits", overrides=logged, out=out, callbacks=[Stop()])
    assert [row["epoch"] for row in rows_of(tmp_path / "run.csv")] == ["1"]
    train("pcn-digits", overrides=logged, resume=out, out=tmp_path / "other.h5")
    train("pcn-digits", overrides=logged, resume=out, callbacks=[CsvLogger(tmp_path / "mine.csv")])
    for log in ("run.csv", "other.csv", "mine.csv"):
        run, rows = open_run(tmp_path / ("other.h5" if log == "other.csv" else "run.h5")), rows_of(tmp_path / log)
        assert [row["epoch"] for row in rows] == ["1", "2"]
        for name in ("loss", "test_error", "seconds", "skipped"):
            assert [float(row[name]) for row in rows] == run.metric(name).tolist()
        assert [float(row["learning_rates.0"]) for row in rows] == run.metric("learning_rates")[:, 0].tolist()


@pytest.mark.full
def test_a_log_has_the_test_error_of_the_epoch_that_is_kept(tmp_path: Path) -> None:
    """Which is measured once, at the end, where examples are held out."""
    held = (*TINY, "data.validation=0.25", 'training.loggers=["csv"]')
    result = train("pcn-digits", overrides=held, out=tmp_path / "run.h5")
    errors = [float(row["test_error"]) for row in rows_of(tmp_path / "run.csv")]
    np.testing.assert_array_equal(errors, result.metrics["test_error"])
    assert np.isfinite(errors[result.kept_epoch - 1])


def test_a_log_replaces_no_file_of_somebody_else(tmp_path: Path) -> None:
    """And nothing is half-written: no run file either."""
    (tmp_path / "run.csv").write_text("my measurements\n")
    logged = (*TINY, 'training.loggers=["csv"]')
    with pytest.raises(InputError, match=r"training\.loggers must be a new file .*run\.csv"):
        train("pcn-digits", overrides=logged, out=tmp_path / "run.h5")
    assert (tmp_path / "run.csv").read_text() == "my measurements\n"
    assert not (tmp_path / "run.h5").exists()
    table = tmp_path / "table.csv"
    table.write_text("a,b,kind\n" + "1,2,0\n2,3,1\n" * 8)
    config = {
        "system": {"name": "hopfield", "sizes": [2, 4, 2]},
        "data": {"name": "csv", "file": str(table)},
        "training": {"epochs": 1, "loggers": ["csv"]},
    }
    before = table.read_text()
    with pytest.raises(InputError, match=r"data\.file"):
        train(config, out=tmp_path / "table.h5", overwrite=True)
    assert table.read_text() == before


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ('["csw"]', "training.loggers must be one of csv, .* Did you mean 'csv'"),
        ('["csv", "csv"]', "name each logger once"),
        ('"csv"', "training.loggers must be a valid list"),
        ('["csv"]', r"training.loggers must come with a run file \(out\)"),
    ],
)
def test_bad_loggers_are_refused(names: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train("pcn-digits", overrides=(*TINY, f"training.loggers={names}"))


def test_a_package_brings_a_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an entry point; what makes no callback is refused by name."""
    seen: list[Any] = []

    class Mine(Callback):
        def on_begin(self, system, config, past):
            seen.append(("begin", config.training.epochs, len(past)))

        def on_epoch(self, system, epoch, figures):
            seen.append(epoch)

        def on_end(self, result):
            seen.append("end")

    module = types.ModuleType("their_logs")
    module.mine = lambda run, config: seen.append(run.name) or Mine()  # type: ignore[attr-defined]
    module.none = lambda run, config: print  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_logs", module)
    known = {n: EntryPoint(n, f"their_logs:{n}", "physics_ep.loggers") for n in ("mine", "none")}
    real = entries.entries
    monkeypatch.setattr("physics_ep.registry.entries", lambda g: known if g.endswith("loggers") else real(g))
    train("pcn-digits", overrides=(*TINY, 'training.loggers=["mine"]'), out=tmp_path / "a.h5")
    assert seen == ["a.h5", ("begin", 2, 0), 0, 1, "end"]
    with pytest.raises(InputError, match=r"a physics_ep\.Callback, which 'none' does not"):
        train("pcn-digits", overrides=(*TINY, 'training.loggers=["none"]'), out=tmp_path / "b.h5")
    assert not (tmp_path / "b.h5").exists()


@pytest.mark.parametrize(("kind", "package"), [(TensorBoardLogger, "tensorboard"), (WandbLogger, "wandb")])
def test_a_logger_without_its_package_says_how_to_get_it(
    kind: type, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=rf"needs {package}, which is not installed: pip install .*\[{package}\]"):
        kind(tmp_path)


@pytest.mark.full
def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    """TensorBoard's own reader finds each epoch once, also those that a resumed run does over."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs the extra tensorboard"
    )
    out = tmp_path / "run.h5"
    logged = (*TINY, 'training.loggers=["tensorboard"]')
    train("pcn-digits", overrides=logged, out=out, callbacks=[Stop()])
    train("pcn-digits", overrides=logged, resume=out)
    found = accumulator.EventAccumulator(str(tmp_path / "run.tensorboard"))
    found.Reload()
    loss = open_run(out).metric("loss")
    assert [event.step for event in found.Scalars("loss")] == [1, 2]
    np.testing.assert_allclose([event.value for event in found.Scalars("loss")], loss, rtol=1e-6)


@pytest.mark.full
def test_wandb_keeps_an_offline_run(tmp_path: Path) -> None:
    """With nobody logged in and nothing sent: wandb's own reader finds config and epochs."""
    pytest.importorskip("wandb", reason="needs the extra wandb")
    out = tmp_path / "run.h5"
    train("pcn-digits", overrides=(*TINY, 'training.loggers=["wandb"]'), out=out)
    (file,) = (tmp_path / "run.wandb").rglob("*.wandb")
    text = file.read_bytes()
    assert b"test_error" in text
    assert text.count(b"learning_rates.0") >= 2
    assert b"pcn" in text
