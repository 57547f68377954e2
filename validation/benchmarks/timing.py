"""Interleaved timings: contenders take turns, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

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
