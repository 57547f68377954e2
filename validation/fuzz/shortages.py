"""Full disks and limits of memory at random places: one line, and the old file as it was."""

from __future__ import annotations

import random
import resource
from pathlib import Path

from physics_ep import cli

from .children import run_child
from .lines import of_words
from .stock import clear, inventory, lay_out

DISK = (
    ("train", "small.toml", "--out", "run.h5", "--json", "train.json", "--overwrite"),
    ("train", "--resume", "run.h5", "--set", "training.epochs=3"),
    ("simulate", "small.toml", "--out", "simulation.h5", "--duration", "20", "--steps", "2000", "--overwrite"),
    (
        "tolerance",
        "layers.toml",
        "--sweep",
        "levels=4,8",
        "--repeats",
        "1",
        "--batch",
        "2",
        "--workers",
        "1",
        "--out",
        "new.h5",
    ),
    ("in-situ", "layers.toml", "--sweep", "levels=4", "--out", "new.h5", "--set", "training.epochs=1"),
    ("gradients", "run.h5", "--batch", "2", "--json", "train.json", "--csv", "new.csv", "--overwrite"),
    ("spice", "export", "resistive.toml", "new.cir"),
    ("fit-pulses", "pulses.csv", "--out", "device.json"),
    ("figure", "learning_curve", "--from", "run.h5", "--out", "made"),
)
MEMORY = (
    ("train", "wide.toml", "--out", "run.h5", "--overwrite"),
    ("train", "small.toml", "--set", "system.sizes=[64, 4000, 4000, 10]", "--out", "run.h5", "--overwrite"),
    ("simulate", "wide.toml", "--out", "simulation.h5", "--duration", "20", "--steps", "400", "--overwrite"),
    ("gradients", "wide.toml", "--json", "train.json", "--overwrite"),
    ("gradients", "hopfield", "--batch", "1000", "--scheme", "holomorphic:1000"),
    ("map", "layers.toml", "--batch", "400000"),
    ("map", "pcn-mnist", "--batch", "20000"),
    ("tolerance", "layers.toml", "--sweep", "levels=4", "--repeats", "1", "--batch", "1000000", "--workers", "1"),
    ("anneal", "graph.txt", "--starts", "2000000"),
    ("spice", "check", "resistive.toml", "--batch", "100000"),
)
SECONDS = 60.0


def run_full_disk(draw: random.Random, stock: Path, folder: Path) -> tuple[str, list[str]]:
    """A command whose files may have no more than so many bytes."""
    words, size = draw.choice(DISK), int(2 ** draw.uniform(10, 17))
    return _run(words, stock, folder, {resource.RLIMIT_FSIZE: size}, f"{size} bytes a file", statuses=(0, 2))


def run_little_memory(draw: random.Random, stock: Path, folder: Path) -> tuple[str, list[str]]:
    """A command that may take no more than so many bytes of addresses beyond those in use."""
    words, size = draw.choice(MEMORY), int(2 ** draw.uniform(22, 29))
    return _run(words, stock, folder, {resource.RLIMIT_AS: size}, f"{size >> 20} MiB of memory", statuses=(0, 2))


def _run(
    words: tuple[str, ...],
    stock: Path,
    folder: Path,
    limits: dict[int, int],
    told: str,
    statuses: tuple[int, ...],
) -> tuple[str, list[str]]:
    lay_out(stock, folder)
    wide = (folder / "small.toml").read_text(encoding="utf-8").replace("[64, 8, 10]", "[64, 2000, 10]")
    (folder / "wide.toml").write_text(wide, encoding="utf-8")
    before = inventory(folder)
    ended = run_child(lambda: cli.main([*words, "--quiet"]), folder, seconds=SECONDS, limits=limits)
    after = inventory(folder)
    broken = []
    if ended.late:
        broken.append(f"goes on for {SECONDS:g} s")
    elif ended.status not in statuses:
        broken.append(f"status {ended.status}: {ended.error.strip()[-400:]}")
    broken += of_words(ended)
    if ended.status:
        broken += [f"changed {name}" for name, kept in before.items() if after.get(name) != kept]
    broken += [f"left behind {name}" for name in after if name.endswith((".part", ".lock"))]
    clear(folder)
    return f"{' '.join(words)} with {told}", broken
