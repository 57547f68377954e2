"""Lines of a netlist file: comments dropped, continuations joined, files included, subcircuits set apart.

The first line of the main file is its title, whatever it says. A comment is a line with * at its start, or what
follows ; or // or a $ behind a blank. A line that starts with + continues the one before.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from physics_ep.errors import InputError
from physics_ep.storage.files import checked_path
from physics_ep.storage.outputs import reading
from physics_ep.storage.texts import require_regular

IGNORED = {
    *("op", "tran", "dc", "ac", "noise", "tf", "sens", "pz", "disto", "four", "print", "plot", "probe", "save"),
    *("meas", "measure", "width", "nodeset", "csparam", "backanno", "wave", "savebias", "protect", "unprotect"),
}
"""Dot commands that ask for analyses or output, or help a solver: a netlist is read for its circuit."""
NOT_READ = {
    "if": "the lines that hold, without .if, .else and .endif, would be read",
    "step": "one .param line with the value would be read",
    "dcvolt": ".ic lines would be read",
    "alter": "the changed lines themselves would be read",
    "data": "one .param line with the values would be read",
    "loadbias": ".ic lines would be read",
    "machine": "a B source would be read",
    "net": "a netlist without it would be read",
    "distribution": "numbers in place of random parameters would be read",
}
"""Dot commands that change a circuit and are not followed, and what would be read."""
NOT_READ |= dict.fromkeys(("elseif", "else", "endif"), NOT_READ["if"])
CHANGES = ("alter", "altermod", "alterparam", "circbyline", "source", "mc_source")
"""Commands of .control blocks that change the circuit, or read another."""
SETTINGS = ("temp", "tnom", "rshunt", "cshunt", "gmin", "ramptime")
"""What `set` in a .control block changes the circuit by."""
DEEPEST = 20
"""Files or subcircuits within one another."""
LONGEST = 100_000
"""Characters of a line with its continuations; the points of a PWL source may take `LONGEST_SOURCE`."""
LONGEST_SOURCE = 5_000_000
MOST_FILES = 1000
"""Files that a netlist may include, one counted as often as it is read."""
MOST_LINES = 2_000_000
"""Lines of all files that a netlist includes, one counted as often as it is read."""
_TRAILING = re.compile(r"(?:;|//|\s\$).*")
_TOKEN = re.compile(r"\{[^}]*\}|'[^']*'|=|[^\s(),='{}]+|\S")
_UNBRACED = re.compile(r"'[^']*'|=|[^\s(),='{}]+|\S")
"""The same where no brace closes: each that opens would be searched for to the end."""
_OUTPUT = re.compile(r"v\([^()]*\)|[^\s(),='{}]+", re.IGNORECASE)
_FUNCTION = re.compile(r"\.func\s+([A-Za-z_]\w*)\s*\(([\w\s,]*)\)\s*=?\s*(.*)", re.IGNORECASE)
FOLLOWED = {
    *("include", "lib", "param", "func", "model", "subckt", "ends", "global", "options", "control", "end", "temp"),
    *("ic", "title"),
}
"""Dot commands that are followed."""
LTSPICE_LIBRARIES = {
    *(f"standard.{kind}" for kind in ("dio", "bjt", "mos", "jft", "cap", "ind", "res", "bead")),
    *("opamp.sub", "universalopamps2.sub", "ltc.lib", "ltc2.lib", "ltc3.lib", "ltc4.lib", "ltc5.lib", "ltc6.lib"),
}
"""Names of libraries that come with LTspice, which its netlists name by their paths on Windows."""
_PARAMETER = re.compile(
    r"([A-Za-z_]\w*)\s*=\s*(\{[^}]*\}|'[^']*'|(?:[^\s'{}=,()]|\((?:[^()'{}=]|\([^()'{}=]*\))*\))+)\s*,?\s*"
)


class LineError(InputError):
    """Raised for a bad line of a netlist."""


class Line(NamedTuple):
    """A logical line: its text without comments, and where it starts."""

    text: str
    number: int
    file: str

    def error(self, why: object) -> LineError:
        """An error that names the file, the line's number and its text."""
        shown = self.text if len(self.text) <= 100 else self.text[:97] + "..."
        told = str(why).rstrip(".")
        told = told if len(told) <= 500 else told[:497] + "..."
        return LineError(f"{self.file}, line {self.number}: {told}, in: {shown}")

    def check(self, read: Callable[[str], float], text: str) -> float:
        """Apply `read` to a text and require a finite number; the error names the line."""
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
        The text of each parameter's value, as it stands in the netlist.
    ports : tuple of str
        Names of a subcircuit's ports.
    subcircuits : dict of str to NetlistSection
        Those that are defined here, by name in lower case.
    outer : NetlistSection or None
        The section in which a subcircuit is defined.
    """

    elements: list[Line] = field(default_factory=list)
    models: dict[str, Line] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ()
    subcircuits: dict[str, NetlistSection] = field(default_factory=dict)
    outer: NetlistSection | None = None

    def subcircuit(self, name: str) -> NetlistSection | None:
        """The subcircuit of a name, in lower case, as seen from here."""
        section: NetlistSection | None = self
        while section is not None:
            if name in section.subcircuits:
                return section.subcircuits[name]
            section = section.outer
        return None

    def model(self, name: str) -> tuple[Line, NetlistSection] | None:
        """The model of a name, in lower case, as seen from here, and the section that it stands in."""
        section: NetlistSection | None = self
        while section is not None:
            if name in section.models:
                return section.models[name], section
            section = section.outer
        return None

    def names(self, what: str) -> set[str]:
        """Names of the 'subcircuits' or 'models' that can be seen from here."""
        return {*getattr(self, what), *(self.outer.names(what) if self.outer else ())}


@dataclass
class NetlistFile:
    """A netlist file, read but not understood.

    Attributes
    ----------
    title : str
    top : NetlistSection
    functions : dict of str to (tuple of str, str)
        Arguments and expression of .func lines, by name in lower case.
    globals : set of str
        Nodes that subcircuits share, lower case.
    outputs : tuple of str
        Outputs that comment lines `* outputs: NODE v(NODE,NODE) ...` name.
    inputs : tuple of str
        What comment lines `* inputs: NAME ...` name, as they are: a comment may be anybody's.
    gates : tuple of str
        Transistors whose gates are parameters, of comment lines `* gates: NAME ...`.
    transients, sweeps : list of (tuple of str, Line)
        Fields of .tran lines and of tran commands in .control blocks.
    controls : list of Line
        First lines of .control blocks.
    options : list of (str, str or None, Line)
        Names (lower case) and values as written of .options lines.
    temperatures : list of (str, Line)
        The lines .temp, with their texts.
    initial : list of InitialVoltage
        The voltages that lines .ic set.
    notes : dict of str to None
        What was read over, in order.
    absent : list of str
        Libraries that are named and are not here.
    """

    title: str = ""
    top: NetlistSection = field(default_factory=NetlistSection)
    functions: dict[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)
    globals: set[str] = field(default_factory=set)
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    transients: list[tuple[tuple[str, ...], Line]] = field(default_factory=list)
    sweeps: list[tuple[tuple[str, ...], Line]] = field(default_factory=list)
    controls: list[Line] = field(default_factory=list)
    options: list[tuple[str, str | None, Line]] = field(default_factory=list)
    temperatures: list[tuple[str, Line]] = field(default_factory=list)
    initial: list[InitialVoltage] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)


def tokens(text: str) -> list[str]:
    """Words of a line; expressions in braces or quotes stay whole, parentheses and commas separate."""
    end = text.rfind("}") + 1
    if text.find("{", end) < 0:
        words = _TOKEN.findall(text)
    else:
        words = _TOKEN.findall(text, 0, end) + _UNBRACED.findall(text, end)
    return [t for t in words if t not in "(),"]


def read_source(path: str | os.PathLike[str]) -> NetlistFile:
    """Read a netlist and the files that it includes.

    Raises
    ------
    InputError
        If a file cannot be read or is empty, a command is unknown, or a block is not closed.
    """
    source = NetlistFile()
    path = checked_path(path, "path")
    text = text_of(path)
    title, _, body = text.partition("\n")
    source.title = title.lstrip("* ").rstrip()
    _Reader(source).file(body.split("\n"), path, first=2)
    return source


def text_of(path: Path, line: Line | None = None) -> str:
    """Text of a netlist file in any encoding that is read, its lines ended by a line feed.

    Raises
    ------
    InputError
        If it cannot be read, is empty or no text; an error of `line`, which includes the file, where one is given.
    """
    reading("FILE.cir", path)
    try:
        require_regular(path)
        data = path.read_bytes() if path.stat().st_size else b""  # some of /proc have no size, and wait for more
    except (OSError, ValueError) as error:
        why = f"cannot read the netlist {str(path)[:200]!r}: {getattr(error, 'strerror', None) or error}"
        raise (line.error(why) if line else InputError(why[0].upper() + why[1:] + ".")) from error
    text = _decoded(data)
    if "\0" in text or not text.strip():
        why = f"the netlist {str(path)!r} is {'no text file' if text.strip() else 'empty'}"
        raise line.error(why) if line else InputError(why[0].upper() + why[1:] + ".")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(data: bytes) -> str:
    """Text of a file in UTF-8, in UTF-16 with its mark, or else in Latin-1, as LTspice writes them."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    if data[1:2] == b"\0" and data[3:4] == b"\0":
        return data.decode("utf-16-le", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


class _Reader:
    """Sorts lines into sections."""

    def __init__(self, source: NetlistFile) -> None:
        self.source = source
        self.section = source.top
        self.opened: list[Line] = []
        self.within: list[str] = []
        self.files = self.lines = 0

    def file(self, texts: list[str], path: Path, first: int, depth: int = 0) -> None:
        control: Line | None = None
        ended = False
        self.within.append(os.path.realpath(path))
        for line in self.logical(texts, str(path), first):
            text = line.text
            if not text.strip(","):
                continue
            if ended and text.lower() != ".end":
                raise line.error(
                    "lines after .end are not read, though ngspice reads them: those before it, or one .end at the "
                    "end, would be read"
                )
            if control is not None:
                if text.lower().startswith(".endc"):
                    control = None
                else:
                    self.control(line)
            elif text[0] != ".":
                self.section.elements.append(line)
            elif text.lower().startswith(".control"):
                control = line
                self.source.controls.append(line)
            elif text.lower().split()[0] == ".end":
                ended = True
            else:
                self.command(line, path, depth)
        self.within.pop()
        if control is not None:
            raise control.error(".control is not closed by .endc")
        if depth == 0 and self.opened:
            raise self.opened[-1].error(".subckt is not closed by .ends")

    def include(self, line: Line, given: str, path: Path, depth: int, section: str | None = None) -> None:
        """Read another file, or one section of a library."""
        given = given.strip().strip("\"'")
        if not given:
            raise line.error("the name of a file must follow")
        target = Path(os.path.expanduser(path.parent / given))
        if "\\" in given and not os.path.exists(target):
            found = beside(given, path.parent)
            if found is None and base_name(given).lower() in LTSPICE_LIBRARIES:
                self.without(line, given)
                return
            if found is None:
                raise line.error(
                    f"the file {given[:200]!r} of another computer is not here: a copy of "
                    f"{base_name(given)[:100]!r} beside this file, or its path on this computer, would be read"
                )
            place = f"{line.file}, line {line.number}"
            self.source.notes[f"{place}: {given[:200]!r} is not here; {os.fspath(found)!r} was read for it"] = None
            target = found
        self.files += 1
        if os.path.realpath(target) in self.within and section is None:
            raise line.error(f"the file {given[:100]!r} includes itself")
        if depth >= DEEPEST or self.files > MOST_FILES:
            raise line.error("too many files include one another")
        texts = text_of(target, line).split("\n")
        self.lines += len(texts)
        if self.lines > MOST_LINES:
            raise line.error(f"included files have more than {MOST_LINES:,} lines in all: fewer would be read")
        first = 1
        if section is not None:
            texts, first = _library(texts, section, line, given)
        self.file(texts, target, first, depth + 1)

    def read_section(self, line: Line, path: Path, depth: int) -> None:
        """A .lib line: FILE SECTION, or in LTspice's way FILE alone."""
        words = _quoted(line.text)[1:]
        whole = line.text[len(".lib") :].strip()
        if "\\" in whole and not (len(words) == 2 and "\\" not in words[1]):
            self.include(line, whole, path, depth)  # the blanks of C:\\Program Files need no quotes in LTspice
        elif len(words) == 2:
            self.include(line, words[0], path, depth, words[1].lower())
        elif len(words) == 1 and os.path.isfile(path.parent / words[0].strip("\"'")):
            self.source.notes[f"{line.file}, line {line.number}: .lib without a section is read as .include"] = None
            self.include(line, words[0], path, depth)
        elif len(words) == 1 and words[0].strip("\"'").lower() in LTSPICE_LIBRARIES:
            self.without(line, words[0].strip("\"'"))
        else:
            raise line.error(
                ".lib must be followed by a file and the name of a section in it (or a file that is there)"
            )

    def without(self, line: Line, given: str) -> None:
        """Note that one of LTspice's own libraries is not here; what is used of it is refused where it is used."""
        self.source.absent.append(given)
        self.source.notes[
            f"{line.file}, line {line.number}: LTspice's own library {given[:200]!r} is not here; what the netlist "
            "uses of it must be defined in the netlist"
        ] = None

    def logical(self, texts: Iterable[str], file: str, first: int) -> Iterable[Line]:
        """Lines with their continuations, without comments, and not too long."""
        for line in self.joined(texts, file, first):
            if len(line.text) > LONGEST and not (line.text[0] in "vViI" and "pwl" in line.text.lower()):
                raise line.error(f"the line has {len(line.text):,} characters, and {LONGEST:,} would be read")
            yield line

    def joined(self, texts: Iterable[str], file: str, first: int) -> Iterable[Line]:
        """Lines with their continuations, without comments."""
        held: Line | None = None
        more: list[str] = []
        for count, raw in enumerate(texts, first):
            text = raw.strip()
            if not text:
                continue
            if len(text) > LONGEST_SOURCE:
                raise Line(text, count, file).error(f"the line has {len(text):,} characters")
            if text[0] == "*":
                kind, colon, named = text[1:].strip().partition(":")
                if colon and kind in ("outputs", "gates") and len(text) > LONGEST:
                    raise Line(text, count, file).error(
                        f"the line has {len(text):,} characters, and {LONGEST:,} would be read"
                    )
                if colon and kind == "outputs":
                    self.source.outputs += tuple(_OUTPUT.findall(named))
                elif colon and kind == "inputs":
                    self.source.inputs += tuple(tokens(named))
                elif colon and kind == "gates":
                    self.source.gates += tuple(tokens(named))
                continue
            if ";" in text or "$" in text or "//" in text:
                text = _TRAILING.sub("", " " + text, count=1).strip()
                if not text:
                    continue
            if text[0] == "+":
                if held is None:
                    raise Line(text, count, file).error("nothing comes before this continuation")
                more.append(text[1:].strip())
                continue
            if held is not None:
                yield held._replace(text=" ".join([held.text, *more])) if more else held
            held, more = Line(text, count, file), []
        if held is not None:
            yield held._replace(text=" ".join([held.text, *more])) if more else held

    def command(self, line: Line, path: Path, depth: int) -> None:
        words = line.text.split()
        words = [words[0], *tokens(line.text[len(words[0]) :])]
        name = words[0][1:].lower()
        if name in ("include", "inc"):
            self.include(line, line.text[len(words[0]) :], path, depth)
        elif name == "lib":
            self.read_section(line, path, depth)
        elif name == "func":
            self.function(line)
        elif name == "param":
            self.section.parameters |= parameters(line, line.text[len(words[0]) :])
        elif name == "model":
            if len(words) < 3:
                raise line.error(".model must be followed by a name and a type")
            self.first(self.section.models, words[1], line, line, ".model")
        elif name == "subckt":
            self.open(line)
        elif name == "ends":
            if not self.opened or self.section.outer is None:
                raise line.error(".ends comes without .subckt")
            self.section = self.section.outer
            self.opened.pop()
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
            if name in ("tran", "ac"):
                asked = self.source.transients if name == "tran" else self.source.sweeps
                asked.append((tuple(words[1:]), line))
        else:
            raise line.error(_not_read(name))

    def open(self, line: Line) -> None:
        words = [w for w in tokens(line.text) if w.lower() != "params:"]
        if len(self.opened) >= DEEPEST:
            raise line.error("too many .subckt stand within one another")
        first = words.index("=") - 1 if "=" in words else len(words)
        if first < 2:
            raise line.error(".subckt must be followed by a name and its nodes")
        ports = tuple(p.lower() for p in words[2:first])
        section = NetlistSection(parameters=pairs(line, words[first:]), ports=ports, outer=self.section)
        self.first(self.section.subcircuits, words[1], section, line, ".subckt")
        self.section = section
        self.opened.append(line)

    def function(self, line: Line) -> None:
        """A .func line: NAME(ARGUMENT, ...) EXPRESSION, the expression in braces, quotes or neither."""
        found = _FUNCTION.match(line.text)
        if found is None or not found[3].strip():
            raise line.error(".func must be followed by NAME(ARGUMENT, ...) {EXPRESSION}")
        body = found[3].strip()
        if body[0] in "{'" and body[-1] in "}'":
            body = body[1:-1]
        names = tuple(n.strip().lower() for n in found[2].split(",") if n.strip())
        self.first(self.source.functions, found[1], (names, body), line, ".func")

    def first(self, known: dict[str, Any], name: str, found: Any, line: Line, what: str) -> None:
        """Keep a definition, unless there is one of its name: ngspice keeps the first."""
        if known.setdefault(name.lower(), found) is not found:
            self.source.notes[f"{line.file}, line {line.number}: a second {what} {name}; the first counts"] = None

    def control(self, line: Line) -> None:
        """A command of a .control block: analyses and output are passed over, changes of the circuit are not."""
        words = [w.lower() for w in tokens(line.text)] or [""]
        if words[0] in ("tran", "ac"):
            asked = self.source.transients if words[0] == "tran" else self.source.sweeps
            asked.append((tuple(words[1:]), line))
        elif words[0] in ("option", "options"):
            self.options(line, words[1:])
        elif words[0] in CHANGES or (words[0] == "set" and words[1:2] and words[1] in SETTINGS):
            raise line.error("commands that change the circuit are not followed: change its lines instead")

    def initial(self, line: Line, words: list[str]) -> None:
        """Voltages of an .ic line."""
        if self.opened:
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


def _not_read(name: str) -> str:
    """What to say of a dot command that is not followed."""
    if name in NOT_READ:
        return f".{name} is not followed: {NOT_READ[name]}"
    known = sorted({*IGNORED, *FOLLOWED})
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = (
        f"Did you mean {close[0]!r}?" if close else f"Commands are {', '.join('.' + k for k in sorted(FOLLOWED))}"
    )
    return f"the command .{name[:50]} is not known. {hint}"


def base_name(given: str) -> str:
    """The last part of a path of Windows."""
    return given.replace("/", "\\").rsplit("\\", 1)[-1]


def beside(given: str, folder: Path) -> Path | None:
    """The file of the name of a path of Windows in a folder, if it is there."""
    found = folder / base_name(given)
    return found if os.path.isfile(found) else None


def _quoted(text: str) -> list[str]:
    """Words between blanks; quotes keep blanks in."""
    return re.findall(r"\"[^\"]*\"|'[^']*'|\S+", text)


def _library(texts: list[str], section: str, line: Line, given: str) -> tuple[list[str], int]:
    """Lines between .lib SECTION and .endl of a library, and the number of the first."""
    start, names = None, []
    for k, text in enumerate(texts):
        words = _quoted(text) if text.lstrip()[:4].lower() in (".lib", ".end") else []
        if words and words[0].lower() == ".lib" and len(words) == 2:
            names.append(words[1])
            if start is None and words[1].lower() == section:
                start = k + 1
        elif words and words[0].lower() == ".endl" and start is not None:
            return texts[start:k], start + 1
    if start is not None:
        raise line.error(f"the section {section!r} of {given[:100]!r} is not closed by .endl")
    raise line.error(f"{given[:100]!r} has no section {section!r}, but {', '.join(names[:10]) or 'none'}")


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
    """Assignments NAME = VALUE in a list of words, as a mapping."""
    found = {}
    for k in range(0, len(words), 3):
        if len(words) < k + 3 or words[k + 1] != "=" or words[k + 2] == "=":
            raise line.error(f"{' '.join(words[k : k + 3])!r} is not of the form NAME=VALUE")
        found[words[k].lower()] = words[k + 2]
    return found
