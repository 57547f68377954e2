"""Callbacks of training. If these fail, what a user logs or stops by is not what happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from physics_ep import Callback, open_run, train
from physics_ep.errors import InputError

SMALL = ("training.epochs=4", "data.train_examples=96", "data.test_examples=32", "system.sizes=[64, 8, 10]")


class Diary(Callback):
    def __init__(self, stop: int | None = None) -> None:
        self.lines: list[tuple[Any, ...]] = []
        self.stop = stop

    def on_step(self, system, epoch, batch, step) -> None:
        moved = sum(float(p.grad.abs().sum()) for p in system.parameters())
        self.lines.append(("step", epoch, batch, float(step.loss), moved > 0))

    def on_epoch(self, system, epoch, figures):
        self.lines.append(("epoch", epoch, figures["loss"]))
        figures.clear()  # a copy
        return epoch == self.stop

    def on_end(self, result) -> None:
        self.lines.append(("end", len(result.metrics["loss"])))


def test_callbacks_see_every_step_epoch_and_the_end(tmp_path: Path) -> None:
    """And change nothing: the weights are those of a training without."""
    diary = Diary()
    result = train("pcn-digits", overrides=SMALL, callbacks=[diary, Callback()], out=tmp_path / "run.h5")
    batches = len([line for line in diary.lines if line[:2] == ("step", 0)])
    expected = [kind for _ in range(4) for kind in [*["step"] * batches, "epoch"]] + ["end"]
    assert [line[0] for line in diary.lines] == expected
    assert [line[2] for line in diary.lines if line[0] == "epoch"] == result.metrics["loss"].tolist()
    assert all(line[4] for line in diary.lines if line[0] == "step")
    assert diary.lines[-1] == ("end", 4)
    plain = train("pcn-digits", overrides=SMALL)
    for name, value in plain.system.state_dict().items():
        assert torch.equal(value, result.system.state_dict()[name])


def test_a_callback_may_stop_and_the_run_goes_on_later(tmp_path: Path) -> None:
    result = train("pcn-digits", overrides=SMALL, callbacks=[Diary(stop=1)], out=tmp_path / "run.h5")
    assert len(result.metrics["loss"]) == 2
    assert open_run(tmp_path / "run.h5").epochs == 2
    diary = Diary()
    whole = train("pcn-digits", overrides=SMALL, callbacks=[diary], resume=tmp_path / "run.h5")
    assert {line[1] for line in diary.lines if line[0] == "epoch"} == {2, 3}
    plain = train("pcn-digits", overrides=SMALL)
    assert whole.metrics["loss"].tolist() == plain.metrics["loss"].tolist()


def test_what_a_callback_raises_ends_the_training_and_keeps_epochs(tmp_path: Path) -> None:
    class Breaks(Callback):
        def on_epoch(self, system, epoch, figures):
            if epoch == 1:
                raise RuntimeError("no paper left")

    with pytest.raises(RuntimeError, match="no paper left"):
        train("pcn-digits", overrides=SMALL, callbacks=[Breaks()], out=tmp_path / "run.h5")
    assert open_run(tmp_path / "run.h5").epochs == 2


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [(Diary(), "one alone: put it in brackets"), ([Diary], "a class: call it"), ([print], "but was builtin")],
)
def test_what_is_no_callback_is_refused(callbacks: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train("pcn-digits", overrides=SMALL, callbacks=callbacks)
