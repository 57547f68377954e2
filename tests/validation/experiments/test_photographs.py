"""The experiment on EfficientNet-Lite0 and photographs: what it refuses, and rows of small photographs."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from physics_ep.predictive_coding.image_models import PACKAGE
from validation.experiments import photographs

FOLDER = Path(os.environ.get("PHYSICS_EP_DATA", "")) / "imagenet20"
there = importlib.util.find_spec(PACKAGE) is not None and FOLDER.is_dir()


def test_the_first_five_are_counted() -> None:
    """A photograph counts as right by its largest output, and as among the first five by those."""
    outputs = torch.tensor([[9.0, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4]])
    assert photographs.among(outputs, torch.tensor([0, 4, 5])) == (1, 2)


def test_a_folder_without_photographs_is_named(tmp_path: Path) -> None:
    """One line, and nothing written."""
    pytest.importorskip("PIL")
    with pytest.raises(SystemExit, match="photographs: Argument images must be a folder with photographs"):
        photographs.main(["layers", "--out", str(tmp_path / "out"), "--images", str(tmp_path)])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not there, reason=f"{PACKAGE} or photographs in PHYSICS_EP_DATA are not there")
def test_rows_of_small_photographs(tmp_path: Path) -> None:
    """On one array EP's gradient is that of the arrays, whatever their cells err; over three arrays of 0.1 % passes
    of a nudged phase grow, so that there is no gradient. What is in the table is not measured again."""
    words = ["substrates", "--out", str(tmp_path), "--images", str(FOLDER), "--size", "64", "--instances", "1"]
    photographs.main([*words, "--only", "hopfield, one array, in slots, programming 0.1%"])
    photographs.main([*words, "--only", "resistive, three arrays, auto-zero, programming 0.1%"])
    text = (tmp_path / "substrates.json").read_text()
    one, three = photographs.rows_of(tmp_path / "substrates.json")
    assert one["settled"]
    assert min(one["feedforward"]) > 0.9999
    assert not three["settled"]
    assert three["gain"] > 100
    assert one["right"] == three["right"]  # the same draws, the same forward pass
    photographs.main(
        [*words, "--only", "programming 0.1%", "--instances", "1", "--only", "slots, programming 0.1%"]
    )
    assert (tmp_path / "substrates.json").read_text() == text
