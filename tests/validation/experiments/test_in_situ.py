"""The recipe of a config is what devices learn by. If these fail, in-situ training drops some of it in silence."""

from __future__ import annotations

import pytest
import torch

from physics_ep.config import load_config
from physics_ep.data.datasets import load_dataset
from physics_ep.errors import InputError
from validation.experiments.in_situ import Lesson, learn_in_situ

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
