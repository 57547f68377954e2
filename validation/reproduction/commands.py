"""The command `physics-ep reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from physics_ep.command_options import (
    READS,
    DataFolder,
    Device,
    Dtype,
    JsonFile,
    Quiet,
    Report,
    Seed,
    Verbose,
    Writes,
)
from physics_ep.commands import InterruptedCommandError
from physics_ep.storage.outputs import write_text


def reproduce(
    *,
    table: Annotated[
        str | None,
        typer.Argument(metavar="TABLE", help="A table (--list), or a set: quick, standard, full. Default quick."),
    ] = None,
    row: Annotated[str | None, typer.Option("--row", metavar="R", help="One row.", show_default=False)] = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="Seeds of each row.")] = 3,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="paper or ours; default both.", show_default=False)
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of the run files."), Writes(folder=True)
    ] = Path("runs/reproduce"),
    at_most: Annotated[
        float | None,
        typer.Option(
            "--at-most", metavar="MIN", help="Leave out rows told to take more minutes.", show_default=False
        ),
    ] = None,
    earlier: Annotated[
        Path | None,
        typer.Option(
            "--earlier", metavar="FILE.json", help="Figures of an earlier call (--json), where run files lack."
        ),
        READS,
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="DIR", help="Write trained weights there, as a zoo.", show_default=False),
        Writes(folder=True),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that share the seeds.")] = 1,
    list_tables: Annotated[bool, typer.Option("--list", help="List tables and rows with their budgets.")] = False,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE.md", help="Write the table."), Writes(own=True)
    ] = None,
    data: DataFolder = None,
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make rows of published tables under the paper's recipe and ours, and say how they compare."""
    report = Report(json, quiet)
    from .reproducing import reproduce as make
    from .rows import RECIPES, published_tables

    if list_tables:
        columns = ["row", "published", "sets", "minutes a seed and rule: paper, ours"]
        for found in published_tables().values():
            cells = []
            for each in found.rows.values():
                told = [each.recipe(name) for name in RECIPES]
                minutes = ", ".join("none" if r.missing else f"{r.minutes:g}" for r in told)
                cells.append([f"{each.table}/{each.name}", each.told, " ".join(each.sets), minutes])
            report.table(f"{found.title} ({found.paper})", columns, cells)
        return
    try:
        result = make(
            table,
            row=row,
            seeds=seeds,
            seed=0 if seed is None else seed,
            recipe=recipe,
            out=out,
            data=data,
            at_most=at_most,
            workers=workers,
            device=device,
            dtype=dtype,
            earlier=earlier,
            weights=weights,
            progress=report.progress(),
            command="physics-ep reproduce",
        )
    except KeyboardInterrupt as stop:
        kept = f"what {str(out)!r} holds is kept, and the same command goes on"
        raise InterruptedCommandError(f"interrupted; {kept}") from stop
    report.figures(result.figures())
    if markdown is not None:
        write_text(markdown, result.to_markdown())
    report.table("Published and ours", *result.shown())
