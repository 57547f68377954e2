"""Trained weights of rows as a zoo of their own: safetensors with an index of hashes, configs and errors."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from physics_ep.config import Config
from physics_ep.storage.opening import open_run
from physics_ep.storage.outputs import claim
from physics_ep.zoo import add_to_zoo

from .jobs import Job
from .rows import Row


def name_of(row: Row, recipe: str) -> str:
    """Name of the network of a row in its zoo: TABLE-ROW-RECIPE."""
    return f"{row.table}-{row.name}-{recipe}"


def write_weights(folder: str | os.PathLike[str], made: Iterable[tuple[Row, str, Job]]) -> list[str]:
    """Write the weights that trainings left in their run files, each as a file of a zoo with its entry.

    Parameters
    ----------
    folder : path
        Made where it is not there. `PHYSICS_EP_ZOO` set to it, `load_system(name)` finds them.
    made : iterable of (Row, str, Job)
        Rows, names of their recipes, and trainings that are done.

    Returns
    -------
    list of str
        Names of the networks.

    Raises
    ------
    InputError
        If a file is there that has other weights, and the call that runs replaces none.
    """
    place, names = Path(folder), []
    place.mkdir(parents=True, exist_ok=True)
    for row, recipe, job in made:
        name, run, told = name_of(row, recipe), open_run(job.path), told_data(job.config())
        file = place / f"{name}.safetensors"
        with tempfile.TemporaryDirectory() as new:
            add_to_zoo(new, name, run, told)
            same = file.is_file() and (Path(new) / file.name).read_bytes() == file.read_bytes()
        claim("weights", file, judge=not same)
        add_to_zoo(place, name, run, told)
        names.append(name)
    return names


def told_data(config: Config) -> str:
    """The examples of a training in words."""
    data = config.data
    given = "all" if data.train_examples is None else f"{data.train_examples:,}"
    held = ""
    if data.validation is not None:
        share = f"{data.validation:,}" if isinstance(data.validation, int) else f"{data.validation:.0%}"
        held = f" but {share} held out to choose the epoch"
    tested = "all" if data.test_examples is None else f"{data.test_examples:,}"
    return f"{data.name}: {given} training examples{held}, {tested} test examples"
