"""`python -m validation.fuzz`: try what is promised of files, processes and hostile input, and print a table."""

from __future__ import annotations

import argparse
import importlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from physics_ep.errors import InputError, argument_error

from . import calls, damages, endings, lines, shortages
from .stock import build_stock

Trial = Callable[[random.Random, Path, Path], tuple[str, list[str]]]
"""Draws a case and runs it with the stock in a folder of its own: its words, and what of the promises it breaks."""

WARM = (
    "torch",
    "h5py",
    "physics_ep.runs.training",
    "hardware_models.devices.systems",
    "validation.gradients",
    "validation.sweeps.tolerances",
    "validation.experiments.in_situ",
)
"""What is imported once, for all cases."""


def _line(draw: random.Random, stock: Path, folder: Path) -> tuple[str, list[str]]:
    line = lines.draw_line(draw)
    return line.shown, lines.run_line(line, stock, folder)


def _call(draw: random.Random, stock: Path, folder: Path) -> tuple[str, list[str]]:
    case = calls.draw_call(draw)
    return f"{case[0].name}({case[2]})", calls.run_call(case, stock, folder)


def _ending(number: int) -> Trial:
    return lambda draw, stock, folder: endings.run_ending(draw, stock, folder, number)


KINDS: dict[str, tuple[Trial, int]] = {
    "damages": (damages.run_damage, 300),
    "calls": (_call, 200),
    "commands": (_line, 400),
    "disks": (shortages.run_full_disk, 20),
    "memory": (shortages.run_little_memory, 20),
    "terms": (_ending(signal.SIGTERM), 20),
    "hangups": (_ending(signal.SIGHUP), 10),
    "kills": (_ending(signal.SIGKILL), 100),
}
"""Kind of cases to what tries one, and how many there are by default."""


def main(words: list[str] | None = None) -> None:
    """Run the cases that the command line asks for; exit with status 1 where one breaks a promise."""
    parser = argparse.ArgumentParser(prog="python -m validation.fuzz", description=__doc__)
    for name, (_, count) in KINDS.items():
        parser.add_argument(f"--{name}", type=int, default=None, metavar="N", help=f"default {count}, alone all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each kind")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    given = parser.parse_args(words)
    asked = {name: getattr(given, name) for name in KINDS}
    if all(count is None for count in asked.values()):
        asked = {name: count for name, (_, count) in KINDS.items()}
    try:
        for name, count in asked.items():
            if count is not None and count < 0:
                raise argument_error(name, "be at least 0", count)
    except InputError as error:
        parser.exit(2, f"fuzz: {error}\n")
    sys.exit(1 if _try_all({k: n for k, n in asked.items() if n}, given) else 0)


def _try_all(asked: dict[str, int], given: Any) -> int:
    """Try all, print the table, and return how many cases break a promise."""
    for module in WARM:
        importlib.import_module(module)
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory(prefix="physics-ep-fuzz-") as scratch:
        stock = Path(scratch) / "stock"
        build_stock(stock)
        for name, count in asked.items():
            begin, broken = time.monotonic(), 0
            for k in range(given.first, given.first + count):
                draw = random.Random(f"{given.seed} {name} {k}")
                shown, found = KINDS[name][0](draw, stock, Path(scratch) / f"{name}-{k}")
                broken += bool(found)
                if found or given.verbose:
                    print(f"{name} {k}: {shown}", *found, sep="\n    ", flush=True)
            rows.append(f"| {name} | {count} | {broken} | {time.monotonic() - begin:.0f} s |")
            wrong += broken
    print("| kind | cases | that break a promise | time |\n|---|---|---|---|", *rows, sep="\n")
    return wrong


if __name__ == "__main__":
    main()
