"""Kills and signals at random moments: files stay whole, nothing is left behind, and runs go on bit by bit."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from physics_ep import cli, open_run

from .children import Ended, run_child
from .lines import of_words
from .stock import SMALL, clear, inventory, lay_out

LONG = SMALL.replace("epochs = 2", "epochs = 6")

SWEEP = (
    "tolerance",
    "layers.toml",
    "--sweep",
    "levels=4,8,16,32,64",
    "--repeats",
    "3",
    "--batch",
    "2",
    "--workers",
    "1",
    "--out",
    "out.h5",
    "--json",
    "out.json",
)
IN_SITU = (
    "in-situ",
    "layers.toml",
    "--sweep",
    "levels=4,16",
    "--repeats",
    "2",
    "--out",
    "out.h5",
    "--set",
    "training.epochs=1",
)

COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "train": (
        ("train", "long.toml", "--out", "out.h5", "--json", "out.json"),
        ("train", "long.toml", "--resume", "out.h5", "--json", "out.json"),
        "out.h5",
    ),
    "simulate": (
        ("simulate", "small.toml", "--out", "out.h5", "--duration", "10", "--steps", "600", "--examples", "4"),
        (),
        "out.h5",
    ),
    "tolerance": (
        SWEEP,
        (*SWEEP, "--resume"),
        "out.h5",
    ),
    "in-situ": (
        IN_SITU,
        (*IN_SITU, "--resume"),
        "out.h5",
    ),
    "map": (("map", "layers.h5", "--json", "out.json"), (), "out.json"),
    "inference": (("inference", "run.h5", "--json", "out.json"), (), "out.json"),
    "gradients": (
        ("gradients", "run.h5", "--json", "out.json", "--csv", "out.csv", "--latex", "out.tex"),
        (),
        "out.csv",
    ),
    "fit-pulses": (("fit-pulses", "pulses.csv", "--out", "out.json"), (), "out.json"),
    "anneal": (("anneal", "graph.txt", "--steps", "2000", "--json", "out.json"), (), "out.json"),
    "figure": (("figure", "learning_curve", "--from", "run.h5", "--out", "made"), (), "made/learning_curve.svg"),
    "spice export": (("spice", "export", "resistive.toml", "out.cir", "--json", "out.json"), (), "out.cir"),
    "spice import": (("spice", "import", "net.cir", "--out", "out.cir", "--json", "out.json"), (), "out.cir"),
    "run verify": (("run", "verify", "run.h5", "--json", "out.json"), (), "out.json"),
    "config": (("config", "--keys", "--json", "out.json"), (), "out.json"),
    "info": (("info", "--json", "out.json"), (), "out.json"),
}
"""Name to a command line that takes a while, the one that goes on with it (empty: the same again), and a file that
it writes, whose numbers are compared."""
COMPILED = ("spice import", "spice export")
"""Those that compile kernels when they first run."""


def run_ending(draw: random.Random, stock: Path, folder: Path, number: int) -> tuple[str, list[str]]:
    """Draw a command and a moment, end it then by a signal, and go on.

    Returns
    -------
    str, list of str
        The words of the case, and what of the promises it breaks.
    """
    asked = number != signal.SIGKILL
    names = ["train", "simulate", "tolerance", "in-situ"] if asked and draw.random() < 0.7 else sorted(COMMANDS)
    name = draw.choice(names)
    begun, resumed, shown = COMMANDS[name]
    whole, seconds, names_there = _undisturbed(name, stock)
    lay_out(stock, folder)
    (folder / "long.toml").write_text(LONG, encoding="utf-8")
    before = inventory(folder)
    moment = draw.uniform(0.02, 1.05 * seconds)
    ended = run_child(lambda: cli.main(begun), folder, seconds=moment, ask=number)
    broken = list(_of_ending(ended, number)) if asked and ended.late else []
    after = inventory(folder)
    broken += [f"changed {name}" for name, kept in before.items() if after.get(name) != kept]
    if asked:
        broken += _left(after)
    again = resumed if resumed and any(file.startswith(shown) for file in after) else begun
    done = run_child(lambda: cli.main(again), folder, seconds=300)
    if done.status:
        broken.append(f"going on ends with status {done.status}: {done.error.strip()[-300:]}")
    else:
        after = inventory(folder)
        broken += _left(after)
        if set(after) != names_there:
            broken.append(f"other files than without: {sorted(set(after) ^ names_there)}")
        if _content(folder / shown) != whole:
            broken.append("other numbers than without")
    clear(folder)
    return f"{signal.Signals(number).name} to {name} after {moment:.2f} of {seconds:.2f} s", broken


def _of_ending(ended: Ended, number: int) -> Iterator[str]:
    if ended.stuck:
        yield "does not end"
    elif ended.status not in (128 + number, 0, -number):  # the last: before the command began
        yield f"status {ended.status}: {ended.error.strip()[-300:]}"
    elif ended.status == 128 + number:
        yield from of_words(ended)


def _left(after: dict[str, Any]) -> list[str]:
    return [f"left behind {name}" for name in after if name.endswith((".part", ".lock"))]


@cache
def _undisturbed(name: str, stock: Path) -> tuple[Any, float, frozenset[str]]:
    """What a command gives that nothing disturbs: numbers, wall time, files."""
    folder = stock.with_name(f"undisturbed-{name.replace(' ', '-')}")
    begun, _, shown = COMMANDS[name]
    seconds = 0.0
    for _ in range(2 if name in COMPILED else 1):
        clear(folder)
        lay_out(stock, folder)
        (folder / "long.toml").write_text(LONG, encoding="utf-8")
        ended = run_child(lambda: cli.main(begun), folder, seconds=300)
        if ended.status:
            raise RuntimeError(f"{' '.join(begun)} ended with status {ended.status}: {ended.error}")
        seconds = ended.seconds
    found = _content(folder / shown), seconds, frozenset(inventory(folder))
    clear(folder)
    return found


def _content(path: Path) -> Any:
    """The numbers of a run file, without dates and times; the text of another file."""
    if path.suffix != ".h5":
        if path.suffix == ".svg":  # ids and dates differ
            return path.exists()
        lines = path.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if '"date"' not in line and "seconds" not in line]
    run = open_run(path)
    metrics = {name: _numbers(found.values) for name, found in run.metrics.items() if "seconds" not in name}
    courses = {
        name: [_numbers(part) for part in (course.time, *course.state, course.energy)]
        for name, course in run.trajectories.items()
    }
    return metrics, {name: _numbers(value) for name, value in run.state_dict.items()}, courses


def _numbers(values: Any) -> bytes:
    return values.numpy().tobytes() if isinstance(values, torch.Tensor) else np.asarray(values).tobytes()
