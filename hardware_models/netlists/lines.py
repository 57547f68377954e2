"""Lines of a netlist file: comments dropped, continuations joined, files included, subcircuits set apart.

The first line of the main file is its title, whatever it says. A comment is a line with * at its start, or what
follows ; or // or a $ between blanks. A line that starts with + continues the one before.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from physics_ep.errors import InputError, unknown_name
from physics_ep.storage.files import checked_path
from physics_ep.storage.outputs import reading
from physics_ep.storage.texts import require_regular

IGNORED = {
    *("op", "tran", "dc", "ac", "noise", "tf", "sens", "pz", "disto", "four", "print", "plot", "probe", "save"),
    *("meas", "measure", "width", "nodeset", "csparam", "backanno", "wave"),
}
"""Dot commands that ask for analyses or output: a netlist is read for its circuit."""
CHANGES = ("alter", "altermod", "alterparam", "circbyline", "source", "mc_source")
"""Commands of .control blocks that change the circuit, or read another."""
SETTINGS = ("temp", "tnom", "rshunt", "cshunt", "gmin", "ramptime")
"""What `set` in a .control block changes the circuit by."""
DEEPEST = 20
"""Files or subcircuits within one another."""
_TRAILING = re.compile(r"\s*(?:;|//|\s\$\s|\s\$$).*")
_TOKEN = re.compile(r"\{[^}]*\}|'[^']*'|=|[^\s(),='{}]+|\S")
_PARAMETER = re.compile(r"([A-Za-z_]\w*)\s*=\s*(\{[^}]*\}|'[^']*'|[^\s'{}=,]+)\s*,?\s*")


class LineError(InputError):
    """A bad line of a netlist."""


class Line(NamedTuple):
    """A logical line: its text without comments, and where it starts."""

    text: str
    number: int
    file: str

    def error(self, why: object) -> LineError:
        """An error that names the file, the line's number and its text."""
        shown = self.text if len(self.text) <= 100 else self.text[:97] + "..."
        return LineError(f"{self.file}, line {self.number}: {str(why).rstrip('.')}, in: {shown}")

    def check(self, read: Callable[[str], float], text: str) -> float:
        """read(text), finite; what is wrong with it names the line."""
        try:
            found = read(text)
        except LineError:
            raise
        except InputError as error:
            raise self.error(error) from None
        if not math.isfinite(found):
            raise self.error(f"{text!r} is not finite")
        return found


class InitialVoltage(NamedTuple):
    """A node of an .ic line, the text of its volts, and the line."""

    node: str
    text: str
    line: Line


@dataclass
class NetlistSection:
    """Lines at the top of a netlist, or of one subcircuit.

    Attributes
    ----------
    elements, models : list of Line, dict of str to Line
    parameters : dict of str to str
        As written.
    ports : tuple of str
        Of a subcircuit.
    """

    elements: list[Line] = field(default_factory=list)
    models: dict[str, Line] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ()


@dataclass
class NetlistFile:
    """A netlist file, read but not understood.

    Attributes
    ----------
    title : str
    top : NetlistSection
    subcircuits : dict of str to NetlistSection
        By name in lower case.
    globals : set of str
        Nodes that subcircuits share, lower case.
    outputs : tuple of str
        Of comment lines `* outputs: NODE ...`.
    transients : list of (tuple of str, Line)
        Fields of .tran lines and of tran commands in .control blocks.
    options : list of (str, str or None, Line)
        Names (lower case) and values as written of .options lines.
    temperatures : list of (str, Line)
        Of .temp lines.
    initial : list of InitialVoltage
        Of .ic lines.
    notes : dict of str to None
        What was read over, in order.
    """

    title: str = ""
    top: NetlistSection = field(default_factory=NetlistSection)
    subcircuits: dict[str, NetlistSection] = field(default_factory=dict)
    globals: set[str] = field(default_factory=set)
    outputs: tuple[str, ...] = ()
    transients: list[tuple[tuple[str, ...], Line]] = field(default_factory=list)
    options: list[tuple[str, str | None, Line]] = field(default_factory=list)
    temperatures: list[tuple[str, Line]] = field(default_factory=list)
    initial: list[InitialVoltage] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)


def tokens(text: str) -> list[str]:
    """Words of a line; expressions in braces or quotes stay whole, parentheses and commas separate."""
    return [t for t in _TOKEN.findall(text) if t not in "(),"]


def read_source(path: str | os.PathLike[str]) -> NetlistFile:
    """Read a netlist and the files that it includes.

    Raises
    ------
    InputError
        If a file cannot be read or is empty, a command is unknown, or a block is not closed.
    """
    source = NetlistFile()
    path = checked_path(path, "path")
    text = _read(path, None)
    title, _, body = text.partition("\n")
    source.title = title.lstrip("* ").rstrip()
    _Reader(source).file(body.split("\n"), path, first=2)
    return source


def _read(path: Path, line: Line | None) -> str:
    reading("FILE.cir", path)
    try:
        require_regular(path)
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        why = f"cannot read the netlist {str(path)!r}: {error.strerror or error}"
        raise (line.error(why) if line else InputError(why[0].upper() + why[1:] + ".")) from error
    if not text.strip():
        raise InputError(f"The netlist {str(path)!r} is empty.")
    if "\0" in text:
        raise InputError(f"The netlist {str(path)!r} is no text file.")
    return text


class _Reader:
    """Sorts lines into sections."""

    def __init__(self, source: NetlistFile) -> None:
        self.source = source
        self.section = source.top
        self.opened: Line | None = None

    def file(self, texts: list[str], path: Path, first: int, depth: int = 0) -> None:
        control: Line | None = None
        for line in self.logical(texts, str(path), first):
            text = line.text
            if not text.strip(","):
                continue
            if control is not None:
                if text.lower().startswith(".endc"):
                    control = None
                else:
                    self.control(line)
            elif text[0] != ".":
                self.section.elements.append(line)
            elif text.lower().startswith(".control"):
                control = line
            elif text.lower().split()[0] == ".end":
                break
            else:
                self.command(line, path, depth)
        if control is not None:
            raise control.error(".control is not closed by .endc")
        if depth == 0 and self.opened is not None:
            raise self.opened.error(".subckt is not closed by .ends")

    def logical(self, texts: Iterable[str], file: str, first: int) -> Iterable[Line]:
        """Lines with their continuations, without comments."""
        held: Line | None = None
        for count, raw in enumerate(texts, first):
            text = raw.strip()
            if not text:
                continue
            if text[0] == "*":
                if (words := text[1:].split()) and words[0] == "outputs:":
                    self.source.outputs += tuple(tokens(" ".join(words[1:])))
                continue
            if ";" in text or "$" in text or "//" in text:
                text = _TRAILING.sub("", " " + text, count=1).strip()
                if not text:
                    continue
            if text[0] == "+":
                if held is None:
                    raise Line(text, count, file).error("nothing comes before this continuation")
                held = held._replace(text=held.text + " " + text[1:].strip())
                continue
            if held is not None:
                yield held
            held = Line(text, count, file)
        if held is not None:
            yield held

    def command(self, line: Line, path: Path, depth: int) -> None:
        words = line.text.split()
        words = [words[0], *tokens(line.text[len(words[0]) :])]
        name = words[0][1:].lower()
        if name in ("include", "inc"):
            if depth >= DEEPEST:
                raise line.error("too many files include one another")
            given = line.text[len(words[0]) :].strip().strip("\"'")
            target = path.parent / given
            self.file(_read(target, line).split("\n"), target, 1, depth + 1)
        elif name == "param":
            self.section.parameters |= parameters(line, line.text[len(words[0]) :])
        elif name == "model":
            if len(words) < 3:
                raise line.error(".model must be followed by a name and a type")
            self.first(self.section.models, words[1], line, line, ".model")
        elif name == "subckt":
            self.open(line)
        elif name == "ends":
            if self.opened is None:
                raise line.error(".ends comes without .subckt")
            self.section, self.opened = self.source.top, None
        elif name == "global":
            self.source.globals |= {w.lower() for w in words[1:]}
        elif name == "title":
            self.source.title = line.text[len(words[0]) :].strip()
        elif name in ("options", "option", "opt"):
            self.options(line, words[1:])
        elif name == "temp":
            if len(words) != 2:
                raise line.error(".temp must be followed by one temperature")
            self.source.temperatures.append((words[1], line))
        elif name == "ic":
            self.initial(line, words[1:])
        elif name in IGNORED:
            if name == "tran":
                self.source.transients.append((tuple(words[1:]), line))
        else:
            known = {*IGNORED, "include", "param", "model", "subckt", "ends", "global", "options", "control", "end"}
            known |= {"temp", "ic", "title"}
            raise line.error(unknown_name("command", name, known))

    def open(self, line: Line) -> None:
        words = [w for w in tokens(line.text) if w.lower() != "params:"]
        if self.opened is not None:
            raise line.error("a .subckt must not stand within another")
        first = words.index("=") - 1 if "=" in words else len(words)
        if first < 2:
            raise line.error(".subckt must be followed by a name and its nodes")
        ports = tuple(p.lower() for p in words[2:first])
        self.section = NetlistSection(parameters=pairs(line, words[first:]), ports=ports)
        self.first(self.source.subcircuits, words[1], self.section, line, ".subckt")
        self.opened = line

    def first(self, known: dict[str, Any], name: str, found: Any, line: Line, what: str) -> None:
        """Keep a definition, unless there is one of its name: ngspice keeps the first."""
        if known.setdefault(name.lower(), found) is not found:
            self.source.notes[f"{line.file}, line {line.number}: a second {what} {name}; the first counts"] = None

    def control(self, line: Line) -> None:
        """A command of a .control block: analyses and output are passed over, changes of the circuit are not."""
        words = [w.lower() for w in tokens(line.text)] or [""]
        if words[0] == "tran":
            self.source.transients.append((tuple(words[1:]), line))
        elif words[0] in ("option", "options"):
            self.options(line, words[1:])
        elif words[0] in CHANGES or (words[0] == "set" and words[1:2] and words[1] in SETTINGS):
            raise line.error("commands that change the circuit are not followed: change its lines instead")

    def initial(self, line: Line, words: list[str]) -> None:
        """Voltages of an .ic line."""
        if self.opened is not None:
            raise line.error(".ic must not stand within a .subckt")
        if not words or len(words) % 4:
            raise line.error(".ic must be followed by V(NODE)=VOLTS")
        for k in range(0, len(words), 4):
            letter, node, equals, text = words[k : k + 4]
            if letter.lower() != "v" or equals != "=":
                raise line.error(f"{' '.join(words[k : k + 4])!r} is not of the form V(NODE)=VOLTS")
            self.source.initial.append(InitialVoltage(node, text, line))

    def options(self, line: Line, words: list[str]) -> None:
        """Names, with or without values."""
        k = 0
        while k < len(words):
            value = words[k + 2] if words[k + 1 : k + 2] == ["="] and len(words) > k + 2 else None
            if "=" in (words[k], value) or (value is None and words[k + 1 : k + 2] == ["="]):
                raise line.error(f"{' '.join(words[k : k + 3])!r} is not of the form NAME=VALUE")
            self.source.options.append((words[k].lower(), value, line))
            k += 1 if value is None else 3


def parameters(line: Line, text: str) -> dict[str, str]:
    """Pairs NAME=VALUE, as written; names in lower case.

    Raises
    ------
    InputError
        If something else stands between them.
    """
    found, at = {}, 0
    text = text.strip()
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None:
            raise line.error(f"{text[at:]!r} is not of the form NAME=VALUE")
        found[match[1].lower()] = match[2]
        at = match.end()
    return found


def pairs(line: Line, words: list[str]) -> dict[str, str]:
    """The same from words: NAME, "=", VALUE and so on."""
    found = {}
    for k in range(0, len(words), 3):
        if len(words) < k + 3 or words[k + 1] != "=" or words[k + 2] == "=":
            raise line.error(f"{' '.join(words[k : k + 3])!r} is not of the form NAME=VALUE")
        found[words[k].lower()] = words[k + 2]
    return found
