"""Random damage to run files of every kind: each is to be refused in one line, whoever opens it, and soon."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import physics_ep as ep
from physics_ep import cli
from physics_ep.errors import InputError

from .. import open_in_situ, open_tolerance
from .children import run_child
from .lines import of_words
from .stock import clear, lay_out

SECONDS = 15.0
KINDS = ("bit", "byte", "zeros", "end", "more", "swap", "noise", "hole", "twice", "text")

OPENERS: dict[str, tuple[Callable[[Path], object], ...]] = {
    "run.h5": (
        ep.open_run,
        lambda path: ep.load_system(str(path)),
        lambda path: ep.load_system("small.toml", weights=path),
        lambda path: ep.train("small.toml", overrides=["training.epochs=3"], resume=path),
    ),
    "layers.h5": (ep.open_run, lambda path: ep.load_system(str(path))),
    "simulation.h5": (ep.open_run,),
    "sweep.h5": (ep.open_run, open_tolerance),
    "in-situ.h5": (ep.open_run, open_in_situ),
}
"""Files of the stock, and the calls that open them."""

COMMANDS = {
    "run.h5": (
        ("run", "verify", "FILE"),
        ("gradients", "FILE"),
        ("train", "small.toml", "--resume", "FILE"),
        ("simulate", "FILE", "--out", "new.h5"),
        ("train", "small.toml", "--weights", "FILE"),
    ),
    "layers.h5": (("map", "FILE"), ("gradients", "layers.toml", "--weights", "FILE")),
    "simulation.h5": (("run", "verify", "FILE"),),
    "sweep.h5": (
        ("figure", "tolerance_layers", "--from", "FILE"),
        ("tolerance", "layers.toml", "--sweep", "levels=4,16", "--repeats", "1", "--out", "FILE", "--resume"),
    ),
    "in-situ.h5": (("in-situ", "layers.toml", "--sweep", "levels=16", "--out", "FILE", "--resume"),),
}
"""The same by commands."""


def damaged(content: bytes, draw: random.Random, kind: str) -> bytes:
    """The content with one fault of a disk or a copy."""
    raw = bytearray(content)
    place, size = draw.randrange(len(raw)), draw.choice((1, 64, 512, 4096))
    if kind == "bit":
        raw[place] ^= 1 << draw.randrange(8)
    elif kind == "byte":
        raw[place] = (raw[place] + draw.randrange(1, 256)) % 256
    elif kind == "zeros":
        raw[place : place + size] = bytes(len(raw[place : place + size]))
    elif kind == "noise":
        raw[place : place + size] = draw.randbytes(len(raw[place : place + size]))
    elif kind == "end":
        del raw[place:]
    elif kind == "more":
        raw += draw.randbytes(size)
    elif kind == "hole":
        del raw[place : place + size]
    elif kind == "twice":
        raw[place:place] = raw[place : place + size]
    elif kind == "text":  # a transfer that took it for text
        return content.replace(b"\n", b"\r\n")
    else:
        other = draw.randrange(len(raw))
        raw[place : place + 64], raw[other : other + 64] = raw[other : other + 64], raw[place : place + 64]
    return bytes(raw)


def run_damage(draw: random.Random, stock: Path, folder: Path) -> tuple[str, list[str]]:
    """Draw a file, a damage and who opens it; return the words of the case and what of the promises it breaks."""
    name, kind = draw.choice(sorted(OPENERS)), draw.choice(KINDS)
    content = (stock / name).read_bytes()
    wrong = content
    while wrong == content:
        wrong = damaged(content, draw, kind)
    by_command = draw.random() < 0.3
    call = draw.choice(OPENERS[name])
    words = [path if path != "FILE" else "damaged.h5" for path in draw.choice(COMMANDS[name])]
    lay_out(stock, folder)
    (folder / "damaged.h5").write_bytes(wrong)

    def work() -> None:
        if by_command:
            cli.main([*words, "--quiet"])
        try:
            call(Path("damaged.h5"))
        except InputError as error:
            if "\n" in str(error):
                raise RuntimeError("more than one line") from error
            raise SystemExit(2) from None

    ended = run_child(work, folder, seconds=SECONDS)
    broken = []
    if ended.late:
        broken.append(f"hangs for {SECONDS:g} s")
    elif ended.status == 0:
        broken.append("silent")
    elif ended.status != 2:
        broken.append(f"status {ended.status}: {ended.error.strip()[-300:]}")
    elif by_command:
        broken += of_words(ended)
    if (folder / "damaged.h5").read_bytes() != wrong:
        broken.append("the damaged file was changed")
    clear(folder)
    return f"{kind} in {name}, opened by {' '.join(words) if by_command else 'a call'}", broken
