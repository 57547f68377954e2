"""The recipe of a config is what devices learn by. If these fail, in-situ training drops some of it in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from physics_ep.config import load_config
from physics_ep.data.datasets import load_dataset
from physics_ep.errors import InputError
from validation.experiments.in_situ import QUANTITIES, InSituTable, Lesson, learn_in_situ
from validation.sweeps.plan import Point

CONFIG = {
    "system": {"name": "pcn", "sizes": [64, 10]},
    "data": {"name": "digits", "train_examples": 40, "test_examples": 10, "augmentation": "shift"},
    "training": {"epochs": 2, "batch_size": 20},
    "optimizer": {"name": "SGD", "lr": 0.1},
}


def test_images_are_shifted_in_every_epoch() -> None:
    """Examples are augmented anew in each epoch, the same for the ideal network and for the device."""
    config = load_config(CONFIG)
    lesson = Lesson(config, load_dataset(config.data), 0)

    def shown() -> torch.Tensor:
        seen: list[torch.Tensor] = []

        def step(x: torch.Tensor, y: torch.Tensor) -> float:
            seen.append(x)
            return 0.0

        parameter = torch.nn.Parameter(torch.zeros(1))
        lesson._epochs(torch.optim.SGD([parameter], lr=0.1), step, lambda **_: None)
        return torch.cat(seen)

    found = shown()
    plain = {tuple(x.tolist()) for x in lesson.examples.train_x}
    assert len({tuple(x.tolist()) for x in found} - plain) > 40
    assert torch.equal(found, shown())


def test_loggers_are_refused() -> None:
    with pytest.raises(InputError, match=r"training.loggers must be left out for learning in situ"):
        learn_in_situ(CONFIG, overrides=['training.loggers=["csv"]'])


def test_a_table_goes_on_with_its_own_examples_alone(tmp_path: Path) -> None:
    """Instances that learned other examples stand under the name of these."""
    x, y = torch.rand(12, 3, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3
    options: dict[str, Any] = {
        "config": {
            "system": {"name": "pcn", "sizes": [3, 3]},
            "training": {"epochs": 1},
            "optimizer": {"name": "SGD", "lr": 0.1},
        },
        "out": tmp_path / "r.h5",
    }
    first = learn_in_situ(data=(x[:8], y[:8], x[8:], y[8:]), **options)
    for others in ((x[:8] + 0.1, y[:8], x[8:], y[8:]), (x[:8], y[:8], x[8:], 2 - y[8:])):
        with pytest.raises(InputError, match=r"data must hold the examples of .* to resume it"):
            learn_in_situ(data=others, resume=True, **options)
    again = learn_in_situ(data=(x[:8], y[:8], x[8:], y[8:]), resume=True, **options)
    assert again.rows() == first.rows()


def test_errors_are_means_over_the_same_instances() -> None:
    """The ideal error is of instances too that no device could hold, and is compared with a mean without them."""
    values = {name: np.array([[0.1, 0.3], [0.1, 0.3]]) for name in QUANTITIES}
    for name in ("mapped", "learned"):
        values[name] = np.array([[0.2, np.nan], [np.nan, np.nan]])
    plan = tuple(("hopfield", Point("levels", k, "auto")) for k in (16, 2))
    rows = InSituTable(plan, values, {}, {}).rows()
    assert [(row["ideal"], row["mapped"], row["instances"]) for row in rows] == [(0.1, 0.2, 1), (0.2, None, 0)]
