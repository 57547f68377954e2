"""Time and memory of operating points over the size of the circuit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physics_ep.errors import argument_error
from physics_ep.storage.outputs import as_asked
from validation.benchmarks.circuit_scaling import FITTED, exponent, measure

from .. import style
from ..requests import Drawn, Request

NAMES = {"layers": "layers of 20", "grid": "crossbar"}
"""Kinds of `validation.benchmarks.circuit_scaling`, as the legend names them."""
GIB = 2.0**30


@dataclass(frozen=True)
class ScalingCurve:
    """Circuits of one kind; n sizes.

    Attributes
    ----------
    name : str
    nodes, resistors : ndarray (n,)
    setup, solve : ndarray (n,)
        Seconds to make the circuit of its parts, and to find its operating point.
    memory : ndarray (n,)
        Bytes at the peak, the parts list included.
    residual : ndarray (n,)
        Amperes.
    exponents : dict of str to float or None
        Exponents of setup, solve and memory over nodes, from `FITTED` nodes on; None where there are too few.
    """

    name: str
    nodes: np.ndarray
    resistors: np.ndarray
    setup: np.ndarray
    solve: np.ndarray
    memory: np.ndarray
    residual: np.ndarray
    exponents: dict[str, float | None]


@dataclass(frozen=True)
class CircuitScaling:
    """Curves, and where they were measured."""

    curves: tuple[ScalingCurve, ...]
    machine: str


def circuit_scaling(measured: Mapping[str, Any]) -> CircuitScaling:
    """Arrange what `validation.benchmarks.circuit_scaling.measure` found.

    Parameters
    ----------
    measured : dict

    Returns
    -------
    CircuitScaling
    """
    curves = []
    for kind, name in NAMES.items():
        rows = [row for row in measured["rows"] if row["circuit"] == kind]

        def column(key: str, rows: list[dict[str, Any]] = rows) -> np.ndarray:
            return np.array([row[key] for row in rows])

        curves.append(
            ScalingCurve(
                name=name,
                nodes=column("nodes"),
                resistors=column("resistors"),
                setup=column("setup"),
                solve=column("seconds"),
                memory=column("memory"),
                residual=column("residual"),
                exponents={
                    to: exponent(rows, key)
                    for to, key in (("setup", "setup"), ("solve", "seconds"), ("memory", "memory"))
                },
            )
        )
    return CircuitScaling(tuple(curves), measured["machine"])


@style.drawing
def draw_scaling(data: CircuitScaling) -> Figure:
    """Seconds to solve and to set up, and memory at the peak, over nodes."""
    figure, axes = style.new_figure(style.PAGE, 74, 1, 2)
    time, memory = axes[0]
    for k, curve in enumerate(data.curves):
        _draw(time, k, curve, "solve", 1.0, f"{curve.name}, solving")
        _draw(memory, k, curve, "memory", GIB, curve.name)
    for k, curve in enumerate(data.curves):
        _draw(time, k + len(data.curves), curve, "setup", 1.0, f"{curve.name}, setting up")
    time.set_ylabel("Operating point, one thread (s)")
    memory.set_ylabel("Memory at the peak (GiB)")
    for ax in axes[0]:
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("Nodes (count)")
        style.legend(
            ax,
            loc="upper left",
            title=f"nodes to the power of, from {FITTED} on",
            title_fontsize="small",
            alignment="left",
        )
    return figure


def _draw(ax: Axes, k: int, curve: ScalingCurve, name: str, unit: float, label: str) -> None:
    power = curve.exponents[name]
    told = label if power is None else f"{label}: {power:.2f}"
    values = getattr(curve, name)
    # The smallest circuits need nothing that the process did not have.
    style.series(k).plot(ax, curve.nodes, np.where(values > 0, values / unit, np.nan), label=told)


def make_circuit_scaling(request: Request) -> Drawn:
    """Figure 'circuit_scaling' of the catalogue."""
    if request.run is not None:
        raise argument_error(
            as_asked("--from", "run"), "be left out for circuit_scaling, which measures circuits", str(request.run)
        )
    with request.progress.task("figure: circuit scaling", 1) as advance:
        data = circuit_scaling(measure(seed=request.seed))
        advance(1)
    return Drawn(draw_scaling(data), asdict(data))
