"""What the command files of all packages share: common options, the progress bars, the output of figures.

A command takes the options that interface.md promises like this::

    def gradients(system: str, json: JsonFile = None, seed: Seed = None, device: Device = None,
                  dtype: Dtype = None, quiet: Quiet = False, verbose: Verbose = False) -> None: ...

Each option that names a file says by `READS` or `Writes`, in its annotation, what becomes of it; a command that
`add_command` has added is guarded by that (`storage.outputs`), and has the option --overwrite if it writes any.
"""

from __future__ import annotations

import functools
import inspect
import io
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.models import ArgumentInfo as Argument

from .errors import require_number
from .hosted import require_host
from .progress import SILENT, Advance, Progress
from .storage.outputs import PROGRAM, claim, write_json, writing


@dataclass(frozen=True)
class Reads:
    """Marks a command's option that names a file or folder to read, if there is one of this name."""


@dataclass(frozen=True)
class Writes:
    """Marks a command's option that names a file which the command writes.

    Attributes
    ----------
    own : bool
        The command itself writes it, no function that it calls.
    goes_on : str
        Parameter with the path of a file that the command may go on with.
    judge : bool
        False: the command itself refuses files that it is not asked to go on with.
    folder : bool
        It is a folder; the command claims the files in it once it knows their names.
    """

    own: bool = False
    goes_on: str = ""
    judge: bool = True
    folder: bool = False


READS = Reads()

JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers as JSON."), Writes(own=True)
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace files that are there, though other commands, or people, wrote them."),
]
MethodOfEP = Annotated[
    str | None,
    typer.Option(help="energy, vector-field, asymmetric, dyadic, auto; default the system's.", show_default=False),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random draw.", show_default=False)]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N.", show_default=False)]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32 or float64.", show_default=False)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="More detail; tracebacks of errors.")]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder with data sets; else PHYSICS_EP_DATA.", show_default=False),
    READS,
]
KINDS = "Name, bundled config, TOML file, run file, or FILE.py:factory, whose code it runs."
Subject = Annotated[str, typer.Argument(metavar="SYSTEM", help=KINDS), READS]
Network = Annotated[str, typer.Argument(metavar="NETWORK", help=KINDS), READS]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Weights to load: a run file (.h5), .safetensors, .pt or .pth; or 'pretrained'.",
        show_default=False,
    ),
    READS,
]
"""Its former name, --checkpoint, is accepted too (`cli.main`)."""
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="Put the weights on devices: reram, pcm, sram, op-amp, fefet or ring-oscillator.",
        show_default=False,
    ),
]
DeviceFile = Annotated[
    Path | None,
    typer.Option("--device-model", metavar="FILE.json", help="The same from a file.", show_default=False),
    READS,
]
DeviceSeed = Annotated[
    int | None,
    typer.Option("--device-seed", help="Instance of the devices; default the config's, or 0.", show_default=False),
]


def add_command(
    app: typer.Typer,
    function: Callable[..., None],
    *,
    name: str = "",
    group: str = "",
    epilog: str | None = None,
    training: bool = False,
) -> None:
    """Add a command whose files are guarded: nothing is lost that it does not make anew (`storage.outputs`).

    A command with --device, or that computes where a config's [training] says, refuses at once a device for a
    system that computes on the CPU only (`hosted`).

    Parameters
    ----------
    app : typer.Typer
    function : callable
        Its parameters that name files are annotated with `READS` or `Writes`.
    name : str
        Default: the function's, with hyphens.
    group : str
        Name of `app`, where it is a group of commands.
    epilog : str, optional
        Text at the end of the help.
    training : bool
        Whether it computes where [training] of its config says, unless --device says otherwise.
    """
    name = name or function.__name__.replace("_", "-")
    signature = inspect.signature(function, eval_str=True)
    files = {key: mark for key, p in signature.parameters.items() if (mark := file_mark(p.annotation)) is not None}
    shown = {key: _shown(key, signature.parameters[key].annotation) for key in files}
    writes = any(isinstance(mark, Writes) for mark in files.values())
    subject = next((k for k in files if isinstance(_told(signature.parameters[k].annotation), Argument)), "")

    @functools.wraps(function)
    def guarded(**given: Any) -> None:
        for key, value in given.items():
            require_number(key.replace("_", "-"), value)
        require_host(given.get(subject), given.get("device"), given.get("overrides") or (), training=training)
        overwrite = given.pop("overwrite") if writes else False
        with writing(" ".join(filter(None, (PROGRAM, group, name))), overwrite=overwrite) as call:
            for key in (key for key, mark in files.items() if mark is READS):
                paths = given[key] if isinstance(given[key], list) else [given[key]]
                for path in filter(_exists, paths):
                    call.reading(shown[key], path)
            for key, mark in files.items():
                if isinstance(mark, Writes) and not mark.folder and given[key] is not None:
                    goes_on = given.get(mark.goes_on)
                    # One of several processes that train together writes.
                    lock = os.environ.get("RANK", "0") == "0"
                    call.claim(shown[key], given[key], goes_on=goes_on, own=mark.own, judge=mark.judge, lock=lock)
            function(**given)

    parameters = list(signature.parameters.values())
    if writes:
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter("overwrite", kind, default=False, annotation=Overwrite))
    guarded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    guarded.__annotations__ = {p.name: p.annotation for p in parameters}
    app.command(name=name, epilog=epilog)(guarded)


def file_mark(annotation: Any) -> Reads | Writes | None:
    """The mark `Reads` or `Writes` in an option's annotation; None where it has none."""
    return next((mark for mark in get_args(annotation)[1:] if isinstance(mark, Reads | Writes)), None)


def _shown(parameter: str, annotation: Any) -> str:
    """What a user calls a parameter."""
    told = _told(annotation)
    names = [told.default, *(told.param_decls or ())]
    option = next((name for name in names if isinstance(name, str) and name.startswith("--")), None)
    if option is not None:
        return option.removeprefix("--")
    return str(told.metavar) if isinstance(told, Argument) else parameter.replace("_", "-")


def _told(annotation: Any) -> Any:
    """What typer is told of a parameter."""
    return next(part for part in get_args(annotation)[1:] if hasattr(part, "param_decls"))


def _exists(path: str | Path | None) -> bool:
    """Whether a name that is given is one of a file; other names are those of bundled configs and systems."""
    try:
        return path is not None and os.path.exists(path)
    except ValueError:  # a NUL in it, of which the reader complains
        return False


UNBROKEN = 100_000
"""Width of a table's page where the output is no terminal: lines are as long as they need."""


class Report:
    """Prints a command's words, and writes its numbers to the file of `--json`.

    Parameters
    ----------
    json : Path or None
        File for the numbers. That it may be written is checked at once, before work starts.
    quiet : bool

    Raises
    ------
    InputError
        If `json` cannot be written.
    """

    def __init__(self, json: Path | None = None, quiet: bool = False) -> None:
        self.json = None if json is None else claim("json", json, own=True)
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Print a line, unless quiet."""
        if not self.quiet:
            typer.echo(text)

    def say_wrapped(self, text: str) -> None:
        """Print a line, unless quiet, in as many lines as fit a page."""
        self.say(textwrap.fill(text, 100, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False))

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Print a table, unless quiet; plain columns where the output is no terminal."""
        if self.quiet:
            return
        from rich import box
        from rich.console import Console
        from rich.table import Table

        seen = sys.stdout.isatty()
        table = Table(title=title if seen else None, box=box.SIMPLE_HEAD, title_justify="left")
        for k, column in enumerate(columns):
            words = k == 0 or not column  # and no numbers
            table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=k == 0)
        for row in rows:
            table.add_row(*row)
        if seen:
            Console(highlight=False, markup=False).print(table)
            return
        self.say(title)  # no line of what nobody looks at is broken
        page = io.StringIO()
        Console(file=page, highlight=False, markup=False, width=UNBROKEN).print(table)
        self.say("\n".join(line.rstrip() for line in page.getvalue().splitlines()))

    def figures(self, figures: dict[str, Any]) -> None:
        """Write the numbers to the JSON file, if one was asked for."""
        if self.json is not None:
            write_json(self.json, figures)

    def progress(self) -> Progress:
        """Bars on a terminal; silence if quiet or if nobody looks."""
        return SILENT if self.quiet or not sys.stderr.isatty() else Bars()


class Bars:
    """Progress as bars on the standard error, with the time left and the latest figures."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """Begin a bar; it ends with the `with` block."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[info]}"),
        )
        with RichProgress(*columns, console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task(description, total=total, info="")

            def advance(n: int = 1, **info: Any) -> None:
                if info:
                    bars.update(bar, advance=n, info="  ".join(f"{k} {_short(v)}" for k, v in info.items()))
                else:
                    bars.update(bar, advance=n)

            yield advance


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
