"""The files that a case finds in its folder: good ones of every kind, somebody else's, and hostile ones."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from physics_ep import cli

from .children import run_child

SMALL = """
system = {name = "hopfield", sizes = [64, 8, 10]}
data = {name = "digits", train_examples = 64, test_examples = 16}
optimizer = {lr = 0.1}
ep = {max_iterations = 2000}
training = {epochs = 2, batch_size = 16, on_unconverged = "skip", max_skipped = 1.0}
"""
LAYERS = SMALL.replace('"hopfield"', '"pcn"')
RESISTIVE = SMALL.replace('"hopfield"', '"resistive"').replace("lr = 0.1", "lr = 1e-8")

NETLIST = """divider with a diode
V1 in 0 1
R1 in out 1k
R2 out 0 2k
D1 out 0 small
.model small d(is=1e-14 n=1)
.end
"""
PULSES = "cell,pulse,direction,conductance\n" + "".join(
    f"{cell},{k},{'up' if k <= 20 else 'down'},{1e-6 * (1 + (k if k <= 20 else 40 - k) * 0.9**cell):.6e}\n"
    for cell in range(3)
    for k in range(41)
)
GRAPH = "6 7\n1 2 1\n2 3 1\n3 4 -1\n4 5 1\n5 6 1\n6 1 1\n1 4 2\n"
OWN = """
import sys
def good(seed=0):
    from hardware_models import HopfieldNetwork
    return HopfieldNetwork([64, 6, 10], seed=seed)
def exits():
    sys.exit(0)
def deep():
    return deep()
def nothing():
    return None
def raises():
    raise ValueError("two\\nlines")
def memory():
    raise MemoryError
"""

MADE = (
    ("train", "small.toml", "--out", "run.h5", "--json", "train.json"),
    ("train", "layers.toml", "--out", "layers.h5"),
    ("simulate", "run.h5", "--out", "simulation.h5", "--duration", "2", "--steps", "20", "--examples", "2"),
    (
        "tolerance",
        "layers.toml",
        "--sweep",
        "levels=4,16",
        "--repeats",
        "1",
        "--batch",
        "2",
        "--workers",
        "1",
        "--out",
        "sweep.h5",
    ),
    ("in-situ", "layers.toml", "--sweep", "levels=16", "--out", "in-situ.h5", "--set", "training.epochs=1"),
    ("fit-pulses", "pulses.csv", "--out", "device.json"),
)
"""What writes the good files that no text above is."""

READABLE = (
    "small.toml",
    "layers.toml",
    "resistive.toml",
    "run.h5",
    "layers.h5",
    "simulation.h5",
    "sweep.h5",
    "in-situ.h5",
    "device.json",
    "net.cir",
    "pulses.csv",
    "graph.txt",
    "own.py:good",
    "link.toml",
    "hard.toml",
)
"""Files for options that read."""
HOSTILE = (
    "missing.toml",
    "folder",
    "empty",
    "noise.bin",
    "notes.txt",
    "pipe",
    "zero",
    "endless.cir",
    "deep.toml",
    "deep.json",
    "digits.toml",
    "twice.json",
    "cut.h5",
    "flipped.h5",
    "loop.toml",
    "own.py:exits",
    "own.py:deep",
    "own.py:nothing",
    "own.py:raises",
    "own.py:memory",
    "own.py:missing",
    "wrong.py:x",
    "folder/",
    "x" * 300,
    "",
    "\udcff.toml",
    "small.toml/x",
    "utf16.toml",
    "objects.pt",
    "objects.npz",
)
"""Names for options that read of which no command may make sense."""
TARGETS = (
    "new.out",
    "new.h5",
    "new.json",
    "new.csv",
    "new.cir",
    "made/by/the/way.h5",
    "notes.txt",
    "read-only.txt",
    "folder",
    "pipe",
    "zero",
    "small.toml",
    "link.toml",
    "hard.toml",
    "run.h5",
    "layers.h5",
    "simulation.h5",
    "sweep.h5",
    "train.json",
    "device.json",
    "dangling",
    "loop.toml",
    "closed/new.h5",
    "./folder/../new.h5",
    "",
    "x" * 300,
    "\udcff.h5",
    "new\nline.json",
    "small.toml/x",
    "new.h5.parts",
    ".",
)
"""Names for options that write."""


@dataclass(frozen=True)
class Kept:
    """What is kept of a file to see whether it changed: its kind, its mode, and a digest of its bytes."""

    mode: int
    digest: str


def build_stock(folder: Path) -> None:
    """Make a folder with all files.

    Raises
    ------
    RuntimeError
        If a command that writes one of them fails.
    """
    folder.mkdir(parents=True)
    texts = {
        "small.toml": SMALL,
        "layers.toml": LAYERS,
        "resistive.toml": RESISTIVE,
        "net.cir": NETLIST,
        "pulses.csv": PULSES,
        "graph.txt": GRAPH,
        "own.py": OWN,
        "wrong.py": "def x(:\n",
        "notes.txt": "a person's\n",
        "read-only.txt": "nobody's\n",
        "empty": "",
        "deep.toml": "a = " + "[" * 20_000 + "]" * 20_000,
        "deep.json": '{"levels":' + "[" * 100_000,
        "digits.toml": SMALL.replace("epochs = 2", "epochs = " + "9" * 5000),
        "twice.json": '{"levels": 16, "levels": 4}',
        "endless.cir": "title\n.include endless.cir\nV1 a 0 1\n.include /dev/zero\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for words in MADE:
        done = run_child(lambda words=words: cli.main([*words, "--quiet"]), folder)  # type: ignore[misc]
        if done.status:
            raise RuntimeError(f"{' '.join(words)} ended with status {done.status}: {done.error}")
    whole = (folder / "run.h5").read_bytes()
    (folder / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (folder / "flipped.h5").write_bytes(whole[:3000] + bytes([whole[3000] ^ 4]) + whole[3001:])
    (folder / "noise.bin").write_bytes(hashlib.sha256(b"noise").digest() * 40)
    (folder / "utf16.toml").write_bytes(SMALL.encode("utf-16"))
    (folder / "objects.pt").write_bytes(_pickle())
    (folder / "objects.npz").write_bytes(_pickle())


def _pickle() -> bytes:
    """A pickle that would make a file `executed` if anybody loaded it."""
    import pickle  # only written here

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return open, ("executed", "w")

    return pickle.dumps(Evil())


def lay_out(stock: Path, folder: Path) -> None:
    """Copy the stock into a new folder, with what a copy does not keep: links, a pipe, a closed folder."""
    shutil.copytree(stock, folder)
    (folder / "link.toml").symlink_to("small.toml")
    os.link(folder / "layers.toml", folder / "hard.toml")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop.toml").symlink_to("loop.toml")
    (folder / "zero").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "folder" / "kept.txt").write_text("kept\n", encoding="utf-8")
    (folder / "closed").mkdir()
    (folder / "read-only.txt").chmod(0o444)
    (folder / "closed").chmod(0o555)


def clear(folder: Path) -> None:
    """Remove a folder that `lay_out` has made."""
    if (folder / "closed").exists():
        (folder / "closed").chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)


def inventory(folder: Path) -> dict[str, Kept]:
    """Everything in a folder: name to what it is. Links are kept by where they lead."""
    found = {}
    for path in sorted(folder.rglob("*")):
        told = path.lstat()
        if stat.S_ISLNK(told.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(told.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            content = ""
        found[str(path.relative_to(folder))] = Kept(told.st_mode, content)
    return found
