"""Tables of gradients as commands print them: columns, cells and the words below."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from physics_ep.errors import unknown_name
from physics_ep.tabular import Tabular

from .gradients import GradientReport


def captioned(system: str, title: str) -> str:
    """Caption of a system's table in a paper: with its name, unless that is a file's."""
    return (
        title[:1].upper() + title[1:]
        if Path(system).suffix or len(Path(system).parts) > 1
        else f"{system}: {title}"
    )


def labelled(path: str | os.PathLike[str]) -> str:
    """What a paper calls the table of a file: 'tab:layers' of results/layers.tex."""
    return "tab:" + (re.sub(r"[^A-Za-z0-9.+_-]+", "-", Path(path).stem).strip("-") or "table")


def chosen_columns(text: str | None, table: Tabular) -> list[str] | None:
    """Names of columns separated by commas, which some names have within themselves.

    Raises
    ------
    InputError
        If the table has no such column.
    """
    if text is None:
        return None
    known = list(dict.fromkeys(name for row in table.records() for name in row))
    found: list[str] = []
    for piece in map(str.strip, text.split(",")):
        if found and f"{found[-1]}, {piece}" in known:
            found[-1] += f", {piece}"
        else:
            found.append(piece)
    for name in found:
        if name not in known:
            raise unknown_name("columns", name, known)
    return found


def tensor_table(compared: list[GradientReport], floors: bool) -> tuple[list[str], list[list[str]]]:
    """Columns and cells, a row a tensor and a mode of gates."""
    gates = ["gates"] if len(compared) > 1 else []
    columns = ["1-cos", "error", "scale", *(["floor"] if floors else []), "K", "residual"]
    cells = [
        [
            row.told,
            "x".join(map(str, row.shape)),
            *([str(each.gates)] if gates else []),
            *_gradient_cells(each, row.name, floors),
        ]
        for row in compared[0].rows
        for each in compared
    ]
    return ["tensor", "shape", *gates, *columns], cells


def layer_table(compared: list[GradientReport], floors: bool) -> tuple[list[str], list[list[str]]]:
    """Columns and cells, a row a layer and a mode of gates; empty where no example has settled."""
    gates = ["gates"] if len(compared) > 1 else []
    cells = []
    for first in compared[0].layers:
        for each in compared:
            row = next((r for r in each.layers if r.layer == first.layer), None)
            told = [""] * 4
            if row is not None:
                told = [
                    exponential(row.distance),
                    exponential(row.relative_error),
                    str(row.iterations),
                    f"{row.residual:.1e}",
                ]
            cells.append([first.told, str(first.weights), *([str(each.gates)] if gates else []), *told])
    return ["layer", "weights", *gates, "1-cos", "error", "K", "residual"], cells


def _gradient_cells(found: GradientReport, name: str, floors: bool) -> list[str]:
    """A tensor's cells of one report; empty where no example has settled."""
    row = next((row for row in found.rows if row.name == name), None)
    told = [""] * (4 if floors else 3)
    if row is not None:
        told = [f"{max(1 - row.cosine, 0.0):.1e}", f"{row.relative_error:.1e}", f"{row.scale:.4f}"]
        told = ["", f"{row.absolute_error:.1e} abs", ""] if row.zero else told
        told += [f"{row.noise_floor:.1e}"] if floors else []
    return [*told, str(max(found.iterations[1:])), f"{found.residual:.1e}"]


def gradient_words(found: GradientReport) -> str:
    """Tell in words how well the whole gradient of a report agrees with the exact one, and how its phases settled.

    The text has a line on the gradient (relative error, noise floor, worst cosine), a line on the phases
    (iterations, worst residual), and a third one where the exact gradient of some parameters vanishes. Where no
    example has settled, it says that there is no gradient.
    """
    gates = "" if found.gates is None else f"gates {found.gates}: "
    settled = f"{found.settled} of {found.examples} examples settle" if gates else ""
    phases = f"{'/'.join(map(str, found.iterations))} iterations of {found.solver}"
    phases = f"phases: {phases}, worst residual {found.residual:.1e}"
    if not found.rows:
        return f"{gates}{settled}; no gradient\n{phases}"
    floor = f", of which residuals and rounding at most {found.noise_floor:.1e}"
    floor = "" if math.isnan(found.noise_floor) else floor
    whole = f"relative error {found.relative_error:.2e}{floor}; worst cosine {found.worst_cosine:.9f}"
    zeros = ""
    if found.zeros:
        worst = max(row.absolute_error for row in found.rows if row.zero)
        zeros = (
            f"\nexact gradient vanishes (zero but for rounding), so that no cosine is told: "
            f"{', '.join(found.vanishing)}; EP's is {worst:.1e} of the whole"
        )
    return f"{gates}whole gradient: {whole}\n{phases}" + (f"; {settled}" if settled else "") + zeros


def exponential(value: float, digits: int = 1) -> str:
    """A number as 1.2e-03; '' where it is NaN."""
    return "" if math.isnan(value) else f"{value:.{digits}e}"
