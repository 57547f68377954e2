"""A beta that gives way where the limit of negative nudges falls below it. If these fail, a newcomer's table stops
in the middle of its training, or a beta that was asked for is changed without being asked."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from physics_ep import train
from physics_ep.config import parse_config
from physics_ep.estimators.propagation import NegativeNudgeError
from physics_ep.recipes import with_recipe
from physics_ep.runs.following import Following, LoweredBetaWarning
from physics_ep.runs.training import TrainingStoppedError

RNG = np.random.default_rng(5)
X = RNG.normal(size=(200, 3))
KINDS = (X[:, 0] * X[:, 1] > 0).astype(int)


def recipe(**sections: Any) -> Any:
    return with_recipe(parse_config({"system": {"name": "hopfield"}, **sections})).ep


def test_only_a_beta_that_is_left_to_the_recipe_gives_way() -> None:
    assert recipe().lower_beta
    assert recipe(ep={"scheme": "centered"}).lower_beta
    assert not recipe(ep={"beta": 0.1}).lower_beta
    assert recipe(ep={"beta": 0.1, "lower_beta": True}).lower_beta
    assert not recipe(ep={"lower_beta": False}).lower_beta
    assert not with_recipe(parse_config({"system": {"name": "pcn"}})).ep.lower_beta  # its recipe has 'auto'


def test_a_lowered_beta_leaves_room_below_the_limit() -> None:
    """It takes 0.3 of the limit as measured: at the limit itself the next fall of it would stop the step again."""

    class Limited:
        beta, stability_limit = 50.0, 2.0

        def backward(self, *_: Any) -> float:
            if self.beta >= self.stability_limit:
                raise NegativeNudgeError("Argument beta must be below 2")
            return self.beta

    ep: Any = Limited()
    with pytest.warns(LoweredBetaWarning, match="0.6 now"):
        assert Following().backward(ep, 0)(None, torch.zeros(1), torch.zeros(1)) == pytest.approx(0.6)


@pytest.mark.full
def test_beta_beyond_the_limit_gives_way_and_is_told_once() -> None:
    """A limit that is met in the first batch of each of two epochs."""
    config: dict[str, Any] = {"system": {"name": "hopfield", "sizes": [3, 8, 2]}, "training": {"epochs": 2}}
    beyond = {"beta": 50.0}
    with pytest.raises((TrainingStoppedError, ValueError), match="must be below"):
        train({**config, "ep": beyond}, data=(X, KINDS))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = train({**config, "ep": {**beyond, "lower_beta": True}}, data=(X, KINDS))
    assert len([each for each in told if each.category is LoweredBetaWarning]) == 1
    assert np.isfinite(result.metrics["loss"]).all()
    assert result.config.ep.beta == 50.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hopfield", "resistive", "oscillator", "pcn"])
def test_the_recipe_of_a_table_ends_and_learns_products(name: str) -> None:
    """The sign of a product, which no linear map tells: half of a linear classifier's answers are wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = train({"system": {"name": name}}, data=(X, KINDS))
    assert result.test_error < 0.25
