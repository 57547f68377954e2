"""Commands of the figures: figure, demo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from physics_ep.command_options import (
    READS,
    Device,
    Dtype,
    JsonFile,
    Quiet,
    Report,
    Seed,
    Verbose,
    Weights,
    Writes,
    add_command,
)
from physics_ep.commands import InterruptedCommandError
from physics_ep.errors import InputError, argument_error
from physics_ep.progress import SILENT, Advance, Progress

from .catalogue import COURSES, draw, entries, find, holds_courses, require_subject, suited
from .requests import Request


def register(app: typer.Typer) -> None:
    """Add the commands of `figures` to the command line."""
    example = "Example: physics-ep figure learning_curve --from runs/demo/hopfield.h5 --out figures/mine"
    add_command(app, figure, epilog=example)
    add_command(app, demo, epilog="Example: physics-ep demo --json demo.json")


def figure(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME|all", help="A figure, or all of them (see --list).")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN.h5|SYSTEM",
            help="Draw a trained system, or any: FILE.py:factory (runs it) too; of bench_history, a FOLDER.",
        ),
        READS,
    ] = None,
    weights: Weights = None,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Folder for the PDF, PNG and SVG files."),
        Writes(folder=True),
    ] = Path("."),
    width: Annotated[
        str | None,
        typer.Option("--width", metavar="MM", help="Millimetres, column (85) or page (178).", show_default=False),
    ] = None,
    height: Annotated[
        float | None, typer.Option("--height", metavar="MM", help="Millimetres.", show_default=False)
    ] = None,
    font: Annotated[
        str | None,
        typer.Option(
            "--font", metavar="FONT", help="Points, a family, or both: 'DejaVu Sans 8'.", show_default=False
        ),
    ] = None,
    panels: Annotated[
        str | None,
        typer.Option("--panels", metavar="LETTERS", help="Panels to draw, in this order: ac.", show_default=False),
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option("--cost", help="For layers: as of gradients, also --beta, --gates.", show_default=False),
    ] = None,
    beta: Annotated[
        str | None, typer.Option("--beta", help="For layers: nudging strength, or auto.", show_default=False)
    ] = None,
    gates: Annotated[
        str | None, typer.Option("--gates", help="For layers: held, live or both.", show_default=False)
    ] = None,
    style: Annotated[
        list[str] | None,
        typer.Option(
            "--style",
            metavar="FILE.mplstyle",
            help="A style sheet, or the name of one of matplotlib's; further ones win.",
            show_default=False,
        ),
        READS,
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="The numbers drawn: .csv, .json or .h5.", show_default=False),
        Writes(),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE.html", help="A page to look around in.", show_default=False),
        Writes(),
    ] = None,
    film: Annotated[
        Path | None,
        typer.Option("--film", metavar="FILE.gif", help="A film of dynamics; also .mp4.", show_default=False),
        Writes(),
    ] = None,
    list_figures: Annotated[bool, typer.Option("--list", help="List the figures and stop.")] = False,
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw publication figures, each as PDF, PNG and SVG."""
    if list_figures:
        for entry in entries():
            typer.echo(f"{entry.name:20} {entry.summary}")
        return
    if name is None:
        raise InputError("Argument NAME must be given: a figure or 'all' (physics-ep figure --list).")
    chosen = entries() if name == "all" else [find(name)]
    report = Report(json, quiet)
    from .numbers import as_numbers, check_numbers, save_data
    from .style import FORMATS, Look, claim_figure, looking, save

    # All that can be wrong is told before work starts.
    if name == "all" and panels is not None:
        raise argument_error("panels", "be left out for all figures, which have their own", repr(panels))
    for option, given in (("html", html), ("film", film)):
        if name == "all" and given is not None:
            raise argument_error(option, "be left out for all figures, of which few move", repr(str(given)))
    look = Look(width, height, font, panels, style=style or None)
    if data is not None:
        check_numbers(data, len(chosen))
    if out.suffix.lower().lstrip(".") in FORMATS and not out.is_dir():
        raise argument_error("out", "be a folder, where figures become NAME.pdf, .png and .svg", repr(str(out)))
    for entry in chosen:
        claim_figure(entry.name, out, FORMATS)
    if run is None and weights is not None:
        raise argument_error("weights", "come with --from, a system whose weights they are", str(weights))
    if run is not None:
        require_subject(run, weights)
        if name == "all":
            chosen = suited(run)
    from physics_ep.equilibrium import NotConverged

    numbers: dict[str, Any] = {}
    left: dict[str, InputError | NotConverged] = {}
    with _display(report) as progress:
        request = Request(run, 0 if seed is None else seed, device, dtype, progress, weights, cost, beta, gates)
        request.place()
        for entry in chosen:
            entry.check(request)
        for entry in chosen:
            try:
                with looking(look):
                    drawn = draw(entry, request)
            except (InputError, NotConverged) as error:
                # Not every figure can be drawn, or certified, of every system.
                if run is None or name != "all":
                    raise
                left[entry.name] = error
                continue
            # Figures that do not move are refused before anything is written.
            for moving, write in ((html, _html), (film, _film)):
                if moving is not None:
                    shown = getattr(drawn.figure, "redraw", None)
                    write(next(iter(shown.args), None) if shown is not None else None, moving)
            paths = save(drawn.figure, entry.name, out)
            numbers[entry.name] = {"files": paths, "data": as_numbers(drawn.data)}
    for missing, reason in left.items():
        report.say(f"{missing} is not drawn of this run: {reason}")
    if left and not numbers:
        raise next(iter(left.values()))
    if run is not None and COURSES not in numbers and holds_courses(run):
        report.say(f"{run} holds a course in time, which the figure {COURSES} draws: these settle its system anew.")
    for made in numbers.values():
        for path in made["files"]:
            report.say(str(path))
    for moving in (html, film):
        if moving is not None:
            report.say(str(moving))
    if data is not None:
        told = {made: found["data"] for made, found in numbers.items()}
        save_data(told if name == "all" else next(iter(told.values())), data)
        report.say(str(data))
    report.figures(numbers)


def _html(shown: Any, path: Path) -> None:
    from .browsing import interactive

    interactive(shown, path)


def _film(shown: Any, path: Path) -> None:
    from .films import film

    film(shown, path)


def demo(
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Folder for run files, JSON and figures."),
        Writes(folder=True),
    ] = Path("runs/demo"),
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train each substrate by EP on real digits, check its gradients against exact ones, draw the figures."""
    report = Report(json, quiet)
    from .demo import mapping_table, require_passed, run_demo, table

    with _display(report) as progress:
        done = run_demo(out, seed=0 if seed is None else seed, device=device, dtype=dtype, progress=progress)
    report.table(f"EP on the 8x8 digits; files in {out}", *table(done))
    report.table("A predictive coding network, trained by EP and mapped", *mapping_table(done))
    told = {"results": [asdict(r) for r in done.results], "mapped": [p.figures() for p in done.placed]}
    report.figures({**told, "files": list(done.files)})
    require_passed(done)


class Display:
    """Progress of all tasks in one live display; finished tasks stay until it closes."""

    def __init__(self, bars: Any) -> None:
        self.bars = bars

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """Begin a bar; it stays, as far as it came, when the `with` block ends."""
        bar = self.bars.add_task(description, total=total, info="")

        def advance(n: int = 1, **info: Any) -> None:
            # Two figures fit beside the bar on a terminal of 80 columns.
            shown = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in info.items()][:2]
            told = {"info": "  ".join(shown)}
            self.bars.update(bar, advance=n, **(told if info else {}))

        yield advance


@contextmanager
def _display(report: Report) -> Iterator[Progress]:
    """One live display on the standard error, none if quiet or if nobody looks; Ctrl-C ends in one line."""
    try:
        with _bars(report) as progress:
            yield progress
    except KeyboardInterrupt:
        raise InterruptedCommandError(
            "interrupted: files written so far are whole; run the command again"
        ) from None


@contextmanager
def _bars(report: Report) -> Iterator[Progress]:
    if report.progress() is SILENT:
        yield SILENT
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(bar_width=12),
        rich_progress.TaskProgressColumn(),
        rich_progress.TimeRemainingColumn(elapsed_when_finished=True),
        rich_progress.TextColumn("{task.fields[info]}"),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield Display(bars)
