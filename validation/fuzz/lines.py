"""Command lines drawn from the table of all options and their types, and what is promised of each."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from physics_ep import cli
from physics_ep.config_keys import config_keys

from .children import Ended, run_child
from .commands import Option, is_path, option_table
from .stock import HOSTILE, READABLE, TARGETS, Kept, clear, inventory, lay_out

SECONDS = 25.0
"""Wall time after which a command is asked to end by SIGTERM."""

BASES: dict[str, list[list[str]]] = {
    "train": [
        ["small.toml"],
        ["layers.toml"],
        ["run.h5"],
        ["small.toml", "--out", "new.h5"],
        ["--resume", "run.h5", "--set", "training.epochs=3"],
    ],
    "simulate": [["small.toml", "--out", "new.h5", "--duration", "1", "--steps", "10", "--examples", "2"]],
    "info": [[]],
    "config": [["--show", "hopfield-digits"], ["--keys"]],
    "map": [["layers.toml"], ["layers.h5"]],
    "fit-pulses": [["pulses.csv"]],
    "anneal": [["graph.txt", "--starts", "2", "--steps", "10"]],
    "gradients": [["small.toml", "--batch", "2"], ["layers.h5", "--batch", "2"]],
    "tolerance": [
        ["layers.toml", "--sweep", "levels=4", "--repeats", "1", "--batch", "2", "--workers", "1"],
        [
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
            "--resume",
        ],
    ],
    "inference": [["small.toml", "--examples", "4"]],
    "in-situ": [["layers.toml", "--sweep", "levels=4", "--set", "training.epochs=1"]],
    "signature": [
        [
            "--network",
            "digits-relu",
            "--substrates",
            "hopfield",
            "--fields",
            "levels",
            "--repeats",
            "1",
            "--batch",
            "2",
            "--steps",
            "2",
            "--out",
            "new-folder",
        ]
    ],
    "bench": [["--list"], ["nothing"]],
    "figure": [["--list"], ["learning_curve", "--from", "run.h5", "--out", "made"]],
    "demo": [["--out", "folder", "--device", "nowhere"], ["--out", "read-only.txt"]],
    "reproduce": [["--list"], ["nothing"]],
    "run verify": [["run.h5"], ["simulation.h5"]],
    "spice export": [["resistive.toml", "new.cir"]],
    "spice check": [["net.cir"]],
    "spice import": [["net.cir"]],
}
"""Lines of each command that are right and end soon, from which others are drawn."""

GOOD: dict[str, list[str]] = {
    "--scheme": ["positive", "negative", "random", "centered", "holomorphic:3"],
    "--beta": ["0.1", "1e-3"],
    "--cost": ["squared_error", "cross_entropy"],
    "--solver": ["sweeps", "fire", "newton", "gradient_descent", "conjugate_gradient"],
    "--oracle": ["implicit", "bptt", "finite_difference", "backprop"],
    "--gates": ["held", "live", "both"],
    "--by": ["tensor", "layer"],
    "--preset": ["reram", "pcm", "sram", "op-amp", "fefet"],
    "--substrate": ["hopfield", "resistive", "oscillator"],
    "--copies": ["shared", "separate"],
    "--rails": ["refuse", "clip", "shrink"],
    "--device": ["cpu"],
    "--dtype": ["float32", "float64"],
    "--sweep": ["levels=4", "read_noise=0,1e-3", "asymmetry=0.1"],
    "--method": ["energy", "auto", "rk4", "dormand_prince"],
    "--flow": ["gradient", "hopfield"],
    "--machine": ["bifurcation", "oscillators"],
    "--phase": ["free", "both"],
    "--show": ["pcn-digits"],
    "--system": ["pcn", "hopfield"],
    "--steps": ["5", "20"],
    "--duration": ["0.5"],
    "--workers": ["1"],
    "--width": ["85", "column"],
    "--panels": ["a", "ba"],
}
LEFT = {"--download", "--scheduler", "--film", "--html"}
"""Options that are not drawn: they need a network, a scheduler, or long."""

WHOLE = ("1", "2", "7", "0", "-1", "9" * 30, str(2**63), "9" * 5000, "1.5", "abc", "", "nan", "1e400", "0x10", "-")
REAL = (
    "0.5",
    "1e-3",
    "0",
    "-1",
    "-0.0",
    "1e-400",
    "1e308",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "abc",
    "",
    "9" * 400,
    "1,5",
)
TEXT = (
    "",
    "x",
    "x" * 5000,
    "\udcff",
    "two\nlines",
    "{}",
    "%s",
    "auto",
    "None",
    "nan",
    "../..",
    "=",
    "a=b",
    "levels=",
    "levels=nan",
    "levels=" + "9" * 5000,
    "holomorphic:" + "9" * 40,
    "holomorphic:1",
    "holomorphic:2.5",
    "-1",
    "0",
)
NO_NUMBER = {"9" * 5000, "1.5", "abc", "", "nan", "1e400", "0x10", "-"}
NO_REAL = {"nan", "inf", "-inf", "1e400", "abc", "", "1,5", "9" * 400}
"""What no integer, and no number, may be read as."""


@dataclass(frozen=True)
class CommandLine:
    """A command line, and whether it must be refused."""

    words: tuple[str, ...]
    wrong: bool

    @property
    def shown(self) -> str:
        """The line, its long words cut."""
        return " ".join(ascii(w)[1:-1] if len(w) < 60 else f"{w[:20]!a}...({len(w)})" for w in self.words)


@cache
def table() -> dict[str, list[Option]]:
    """The table of options, read once."""
    return option_table()


def draw_line(draw: random.Random) -> CommandLine:
    """A command line: a right one with one to three options more, or other values of those that it has."""
    command = draw.choice(sorted(BASES))
    words, wrong = list(draw.choice(BASES[command])), False
    options = [option for option in table()[command] if option.name not in LEFT]
    for option in draw.sample(options, draw.choice((1, 1, 2, 3))):
        if option.is_argument:
            if words and not words[0].startswith("--"):
                words[0], bad = _value(option, draw)
                wrong |= bad
            continue
        if option.type is bool:
            words += [option.name] if option.name not in words else []
            continue
        value, bad = _value(option, draw)
        if option.name in words and option.name not in ("--set", "--sweep"):
            place = words.index(option.name)
            del words[place : place + 2]
        words += [f"{option.name}={value}"] if draw.random() < 0.2 else [option.name, value]
        wrong |= bad
    lists = "--list" in words
    return CommandLine((*command.split(), *words), wrong and not lists)


def _value(option: Option, draw: random.Random) -> tuple[str, bool]:
    """A value for an option, and whether no such option may take it."""
    if option.file == "writes":
        return draw.choice(TARGETS), False
    if option.file == "reads" or is_path(option):
        hostile = draw.random() < 0.6
        return draw.choice(HOSTILE if hostile else READABLE), False
    if option.name == "--set":
        return _setting(draw), False
    if option.type is int:
        value = draw.choice(WHOLE)
        return value, value in NO_NUMBER
    if option.type is float:
        value = draw.choice(REAL)
        return value, value in NO_REAL
    if draw.random() < 0.4 and option.name in GOOD:
        return draw.choice(GOOD[option.name]), False
    return draw.choice(TEXT), False


@cache
def _keys() -> list[tuple[str, str, str]]:
    return [(key.section, key.key, key.type) for name in ("hopfield", "pcn") for key in config_keys(name)]


def _setting(draw: random.Random) -> str:
    """An entry of a config: a key that there is, and a value of its type or of none."""
    section, key, kind = draw.choice(_keys())
    if draw.random() < 0.1:
        key = draw.choice(("nothing", "a.b.c", "x" * 300, "", "'quoted.key'"))
    values = (
        [*WHOLE, *REAL] if "int" in kind or "float" in kind else [*TEXT, '"x"', "true", "[]", "[1, 2]", "{a=1}"]
    )
    if draw.random() < 0.2:
        values = ["[" * 3000, "{a={b={c=1}}}", "1979-05-27", "[nan]", '"\\u0000"', "true", '""', "[[[]]]"]
    return f"{section}.{key}={draw.choice(values)}"


def run_line(line: CommandLine, stock: Path, folder: Path) -> list[str]:
    """Run a command line in a folder of its own; return what of the promises it breaks."""
    lay_out(stock, folder)
    before = inventory(folder)
    ended = run_child(lambda: cli.main(line.words), folder, seconds=SECONDS)
    broken = list(_of_ending(ended, line)) + list(_of_files(ended, line, before, inventory(folder), folder))
    clear(folder)
    return broken


def _of_ending(ended: Ended, line: CommandLine) -> Iterator[str]:
    if ended.stuck:
        yield "does not end by SIGTERM"
        return
    if ended.late and ended.status not in (143, 0, 1, 2):
        yield f"status {ended.status} by SIGTERM"
    if not ended.late and ended.status not in (0, 1, 2):
        yield f"status {ended.status}"
    if ended.late and line.wrong:
        yield "works on what is to be refused"
    if line.wrong and not ended.late and ended.status != 2:
        yield f"status {ended.status} of what is to be refused"
    yield from of_words(ended, "--verbose" in line.words)


def of_words(ended: Ended, verbose: bool = False) -> Iterator[str]:
    """What is wrong with what a command printed on the standard error; `verbose` lets it print where."""
    lines = [line for line in ended.error.splitlines() if line.startswith(f"{cli.NAME}: error: ")]
    if "Traceback" in ended.error and not verbose:
        yield "a traceback" + ended.error[ended.error.index("Traceback") :][-300:]
    if "--verbose shows where" in ended.error:
        yield f"an error without words: {ended.error.strip()[-200:]}"
    if (len(lines) != 1 or not ended.error.rstrip().endswith(lines[-1])) and ended.status != 0:
        yield f"no one line of error: {ended.error.strip()[-300:]!r}"
    if ended.status == 0 and lines:
        yield "status 0 with an error"


def _of_files(
    ended: Ended, line: CommandLine, before: dict[str, Kept], after: dict[str, Kept], folder: Path
) -> Iterator[str]:
    changed = [name for name, kept in before.items() if after.get(name) != kept]
    new = [name for name in after if name not in before]
    if "executed" in new:
        yield "code of a file was executed"
    yield from (f"left behind: {name}" for name in new if name.endswith((".part", ".lock")))
    if ended.status == 2 and not ended.late and (changed or new):
        yield f"refused, and changed {', '.join([*changed, *new])[:200]}"
    places, sources = _named(line, folder, "writes"), _named(line, folder, "reads")
    if line.words[0] == "train" and "--resume" in line.words:  # into the same file
        resumed = Path(os.path.realpath(folder / line.words[line.words.index("--resume") + 1]))
        places, sources = places | {resumed}, sources - {resumed}
    for name in changed:
        place = Path(os.path.realpath(folder / name))
        if place in sources:
            yield f"an input was changed: {name}"
        elif place not in places and not any(p in place.parents for p in places) and not place.is_dir():
            yield f"changed, and not named: {name}"
        elif name in ("notes.txt", "net.cir", "small.toml") and "--overwrite" not in line.words:
            yield f"somebody else's was replaced: {name}"
        elif name == "read-only.txt" or name.startswith("closed"):
            yield f"read-only, and changed: {name}"
    if ended.status == 0 and not ended.late:
        yield from _of_json(line, folder)


def _named(line: CommandLine, folder: Path, file: str) -> set[Path]:
    """Real places of the files that a line names by options of a kind."""
    command = next(name for name in sorted(BASES, key=len, reverse=True) if " ".join(line.words).startswith(name))
    rest = list(line.words[len(command.split()) :])
    found = set()
    arguments = [option for option in table()[command] if option.is_argument]
    for option in table()[command]:
        if option.file != file:
            continue
        for k, word in enumerate(rest):
            if word == option.name and k + 1 < len(rest):
                found.add(rest[k + 1])
            elif word.startswith(f"{option.name}="):
                found.add(word.partition("=")[2])
    for option, word in zip(arguments, rest, strict=False):
        if option.file == file and not word.startswith("--"):
            found.add(word)
    return {Path(os.path.realpath(folder / name.partition(".py:")[0])) for name in found if name}


def _of_json(line: CommandLine, folder: Path) -> Iterator[str]:
    if "--json" not in line.words or "--list" in line.words:
        return
    path = folder / line.words[line.words.index("--json") + 1]
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield f"no JSON: {error}"
        return
    if not str(figures.get("command", "")).startswith(cli.NAME):
        yield "JSON without its command"
