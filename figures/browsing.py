"""Pages to look around in: one HTML file that holds its data and all that draws them, and needs no network.

The package plotly draws them (extra `interactive`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from physics_ep.errors import InputError, argument_error
from physics_ep.storage.outputs import write_text, writing
from validation.gradients import GradientReport

from .oscillators.pair import OscillatorPair
from .oscillators.phases import PhasesOnCircle
from .scenes import Scene, scenes
from .style import SERIES

FRAMES = 100
"""Points in time that a page can be moved through."""
LINES = 40
"""Units of a block that are drawn, those that move most."""
HEIGHT = 760


def interactive(shown: Any, path: str | os.PathLike[str], *, example: int = 0, overwrite: bool = False) -> Path:
    """Write a page to look around in.

    Parameters
    ----------
    shown
        Dynamics (a Trajectory, a mapping of phases to them, or a Run that has some), voltages of a circuit
        (CircuitTransients, or the Trajectory of a circuit), phases on the circle (PhasesOnCircle), an energy
        landscape (OscillatorPair), or the layers of a report (GradientReport).
    path : path
        Ends in .html.
    example : int
        Number of the example in its batch, from 0.
    overwrite : bool
        Replace what is there.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If there is nothing to look at, plotly is not installed, or the file cannot be written.
    """
    go = _plotly()
    if Path(path).suffix.lower() != ".html":
        raise argument_error("path", "end in .html", repr(str(path)))
    with writing("figures.interactive", overwrite=overwrite) as call:
        place = call.claim("path", path)
        page = _page(go, shown, example)
        page.update_layout(template="plotly_white", height=HEIGHT, colorway=[look.color for look in SERIES])
        write_text(place, page.to_html(include_plotlyjs=True, full_html=True, auto_play=False))
    return place


def _plotly() -> Any:
    try:
        import plotly.graph_objects
    except ImportError:
        raise InputError("An interactive page needs plotly: pip install 'physics-ep[interactive]'.") from None
    return plotly.graph_objects


def _page(go: Any, shown: Any, example: int) -> Any:
    kinds: list[tuple[type, Callable[[Any, Any], Any]]] = [
        (GradientReport, _report),
        (OscillatorPair, _landscape),
        (PhasesOnCircle, _circle),
    ]
    for kind, draw in kinds:
        if isinstance(shown, kind):
            return draw(go, shown)
    return _dynamics(go, scenes(shown, example))


def _grid(rows: int, columns: int, **options: Any) -> Any:
    from plotly.subplots import make_subplots

    return make_subplots(rows=rows, cols=columns, **options)


def _dynamics(go: Any, phases: list[Scene]) -> Any:
    """A column a phase: units, energy above its lowest, residual; each unit is told under the pointer."""
    page = _grid(3, len(phases), shared_xaxes=True, column_titles=[s.title for s in phases], vertical_spacing=0.05)
    for column, scene in enumerate(phases, 1):
        for k, (block, values) in enumerate(scene.states.items()):
            look = SERIES[k % len(SERIES)]
            moved = np.argsort(-np.abs(values[-1] - values[0]), kind="stable")[:LINES]
            for j, unit in enumerate(moved.tolist()):
                page.add_scatter(
                    x=scene.time,
                    y=values[:, unit],
                    mode="lines",
                    line={"color": look.color, "width": 1.2},
                    name=block,
                    legendgroup=block,
                    showlegend=column == 1 and j == 0,
                    hovertemplate=f"{scene.name(block, unit)}: %{{y:.4g}}<extra></extra>",
                    row=1,
                    col=column,
                )
        for row, values in ((2, scene.energy - scene.energy.min()), (3, scene.residual)):
            seen = np.where(values > 0, values, np.nan)
            page.add_scatter(
                x=scene.time,
                y=seen,
                mode="lines",
                line={"color": "#000000"},
                showlegend=False,
                hovertemplate="%{y:.3g}<extra></extra>",
                row=row,
                col=column,
            )
            page.update_yaxes(type="log", exponentformat="power", row=row, col=column)
        page.update_yaxes(title_text=f"state<br>({scene.state_unit})", row=1, col=column)
        page.update_yaxes(title_text=f"F above its lowest<br>({scene.energy_unit})", row=2, col=column)
        page.update_yaxes(title_text=f"residual<br>({scene.residual_unit})", row=3, col=column)
        page.update_xaxes(title_text=f"time ({scene.time_unit})", row=3, col=column)
    return page.update_layout(hovermode="closest")


def _circle(go: Any, data: PhasesOnCircle) -> Any:
    """Oscillators on the circle, a column a phase, moved through by a slider."""
    phases = scenes(data)
    page = _grid(
        1, len(phases), specs=[[{"type": "polar"}] * len(phases)], subplot_titles=[s.title for s in phases]
    )
    count = min(FRAMES, *(len(s.time) for s in phases))
    at = [np.linspace(0, len(s.time) - 1, count).astype(int) for s in phases]

    def traces(frame: int) -> list[Any]:
        found = []
        for column, (scene, steps) in enumerate(zip(phases, at, strict=True)):
            for k, (block, angles) in enumerate(scene.states.items()):
                found.append(
                    go.Scatterpolar(
                        theta=np.degrees(angles[steps[frame]]) % 360,
                        r=np.full(angles.shape[1], 1.0 - 0.18 * k),
                        mode="markers",
                        marker={"color": SERIES[k % len(SERIES)].color, "size": 8},
                        name=block,
                        legendgroup=block,
                        showlegend=column == 0,
                        text=[scene.name(block, unit) for unit in range(angles.shape[1])],
                        hovertemplate="%{text}: %{theta:.1f} degrees<extra></extra>",
                        subplot=f"polar{column + 1 if column else ''}",
                    )
                )
        return found

    for trace in traces(0):
        page.add_trace(trace)
    names = [
        " | ".join(f"{s.time[steps[k]]:.3g}" for s, steps in zip(phases, at, strict=True)) for k in range(count)
    ]
    page.frames = [go.Frame(data=traces(k), name=str(k)) for k in range(count)]
    page.update_annotations(yshift=26)
    page.update_polars(radialaxis={"range": [0, 1.1], "showticklabels": False})
    return _movable(page, names, f"time ({phases[0].time_unit}): ")


def _movable(page: Any, names: list[str], prefix: str) -> Any:
    """A slider through the frames, and buttons that play them."""
    at_once = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate"}
    steps = [{"args": [[str(k)], at_once], "label": name, "method": "animate"} for k, name in enumerate(names)]
    play = {"args": [None, {"frame": {"duration": 60, "redraw": True}, "fromcurrent": True}], "label": "play"}
    stop = {"args": [[None], at_once], "label": "stop"}
    buttons = [{**button, "method": "animate"} for button in (play, stop)]
    return page.update_layout(
        sliders=[{"steps": steps, "currentvalue": {"prefix": prefix}, "pad": {"t": 40}}],
        updatemenus=[{"type": "buttons", "buttons": buttons, "direction": "left", "x": 0, "y": -0.05}],
    )


def _landscape(go: Any, data: OscillatorPair) -> Any:
    """The energy of two oscillators as a surface, with the path down it; a button a nudge."""
    degrees = np.degrees(data.grid)
    page = go.Figure()
    spots = ((0, "minimum", "circle"), (1, "saddle", "x"), (2, "maximum", "diamond"))
    counts = []
    for n, landscape in enumerate(data.landscapes):
        before = len(page.data)

        def height(points: np.ndarray, energy: np.ndarray = landscape.energy) -> np.ndarray:
            step = data.grid[1] - data.grid[0]
            found: np.ndarray = map_coordinates(
                energy, ((points - data.grid[0]) / step).T[::-1], order=1, mode="nearest"
            )
            return found

        page.add_surface(
            x=degrees, y=degrees, z=landscape.energy, colorscale="Blues_r", opacity=0.9, showscale=n == 0
        )
        path = landscape.path
        page.add_scatter3d(
            x=np.degrees(path[:, 0]),
            y=np.degrees(path[:, 1]),
            z=height(path) + 0.02,
            mode="lines",
            line={"color": SERIES[1].color, "width": 6},
            name="gradient flow",
        )
        for index, name, symbol in spots:
            here = landscape.states.angles[landscape.states.index == index]
            page.add_scatter3d(
                x=np.degrees(here[:, 0]),
                y=np.degrees(here[:, 1]),
                z=height(here) + 0.02,
                mode="markers",
                marker={"symbol": symbol, "color": "black", "size": 4},
                name=name,
            )
        counts.append(len(page.data) - before)
    owners = np.repeat(np.arange(len(counts)), counts)
    for trace, owner in zip(page.data, owners, strict=True):
        trace.visible = bool(owner == 0)
    buttons = [
        {
            "label": f"beta = {landscape.beta:.2f}",
            "method": "update",
            "args": [{"visible": (owners == n).tolist()}],
        }
        for n, landscape in enumerate(data.landscapes)
    ]
    axes = {
        "xaxis_title": "phase 1 (degrees)",
        "yaxis_title": "phase 2 (degrees)",
        "zaxis_title": "F (coupling units)",
    }
    return page.update_layout(
        scene=axes, updatemenus=[{"buttons": buttons, "type": "buttons", "direction": "left"}]
    )


def _report(go: Any, report: GradientReport) -> Any:
    """A row a parameter; all that the report tells of it under the pointer."""
    titles = ["1 \N{MINUS SIGN} cosine", "relative error", "sign agreement"]
    page = _grid(1, 3, shared_yaxes=True, subplot_titles=titles)
    records = report.records()
    names = [record["parameter"] for record in records]
    told = ["<br>".join(f"{key}: {_short(value)}" for key, value in record.items()) for record in records]
    columns = (
        [math.nan if row.zero else max(1 - row.cosine, 1e-17) for row in report.rows],
        [math.nan if row.zero else row.relative_error for row in report.rows],
        [row.sign_agreement for row in report.rows],
    )
    for k, values in enumerate(columns):
        page.add_scatter(
            x=values,
            y=names,
            mode="markers",
            marker={"color": SERIES[k].color, "size": 9, "symbol": ("circle", "square", "diamond")[k]},
            text=told,
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
            row=1,
            col=k + 1,
        )
        if k < 2:
            page.update_xaxes(type="log", exponentformat="power", row=1, col=k + 1)
    page.update_yaxes(autorange="reversed")
    return page.update_layout(title=f"{report.scheme}, beta = {report.beta:.3g}, against {report.oracle}")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
