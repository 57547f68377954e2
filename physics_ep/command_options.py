"""What the command files of all packages share: common options, the progress bars, the output of figures.

A command takes the options that interface.md promises like this::

    def gradients(system: str, json: JsonFile = None, seed: Seed = None, device: Device = None,
                  dtype: Dtype = None, quiet: Quiet = False, verbose: Verbose = False) -> None: ...
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .progress import SILENT, Advance, Progress
from .storage.files import check_output, write_json

JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random draw.", show_default=False)]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N.", show_default=False)]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32 or float64.", show_default=False)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="More detail; tracebacks of errors.")]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder with data sets; else PHYSICS_EP_DATA.", show_default=False),
]


class Report:
    """Where a command's words and figures go.

    Parameters
    ----------
    json : Path or None
        File for the figures. That it can be written is checked at once, before work starts.
    quiet : bool

    Raises
    ------
    InputError
        If `json` cannot be written.
    """

    def __init__(self, json: Path | None = None, quiet: bool = False) -> None:
        self.json = None if json is None else check_output(json, "json")
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Print a line, unless quiet."""
        if not self.quiet:
            typer.echo(text)

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Print a table, unless quiet; plain columns where the output is no terminal."""
        if self.quiet:
            return
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
        for k, column in enumerate(columns):
            table.add_column(column, justify="left" if k == 0 else "right", overflow="fold", no_wrap=k == 0)
        for row in rows:
            table.add_row(*row)
        # Where nobody looks, lines may be as long as they need.
        Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 132).print(table)

    def figures(self, figures: dict[str, Any]) -> None:
        """Write the figures to the JSON file, if one was asked for."""
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
