"""Interleaved timings: contenders take turns, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

import argparse
import inspect
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def interleave(contenders: dict[str, Callable[[], object]], repeats: int, warmup: int = 3) -> dict[str, float]:
    """Median seconds of each contender, called in turns.

    Parameters
    ----------
    contenders : dict
        Name to a function without arguments.
    repeats : int
        Timed rounds.
    warmup : int
        Untimed rounds before.

    Returns
    -------
    dict
        Name to median seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warmup + repeats):
        for name, call in contenders.items():
            begin = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> str:
    """Processor or GPU, threads and torch, in a line."""
    if torch.cuda.is_available():
        where = torch.cuda.get_device_name()
    else:
        where = platform.processor() or platform.machine()
        info = Path("/proc/cpuinfo")
        if info.is_file():
            names = [
                line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
            ]
            where = names[0] if names else where
    return f"{where}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"


def measured(script: str, about: str | None, measure: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Run a benchmark by the options of its script's command line: `--repeats`, `--seed`, `--threads`.

    A script has those of the three that its `measure` takes. A wrong option ends the process with exit status 2.

    Parameters
    ----------
    script : str
        The script's file.
    about : str, optional
        What `--help` shows.
    measure : callable
        The benchmark.

    Returns
    -------
    dict
        What `measure` returns.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m validation.benchmarks.{Path(script).stem}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = inspect.signature(measure).parameters
    texts = {"repeats": "timed rounds", "seed": "seed of data, weights and devices", "threads": "CPU threads"}
    for name, text in texts.items():
        if name in known:
            default = known[name].default
            parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default: {default})")
    options = vars(parser.parse_args(sys.argv[1:]))
    for name in {"repeats", "threads"} & options.keys():
        if options[name] < 1:
            parser.error(f"argument --{name} must be 1 or more, but was {options[name]}")
    return measure(**options)
