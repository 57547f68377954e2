"""Results of a tolerance sweep: a table of points, each with its layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from physics_ep.errors import unknown_name
from physics_ep.tabular import Tabular, known_columns

from ..agreement import Agreement
from ..references import stability_by
from .plan import Point
from .points import FOUND, LIVE, NO_EQUILIBRIUM, NOT_RUN, TARGETS, Measured

LEGEND = (
    "free: the share of the examples that have a free state, how many of these are wrong, and the solver.\n"
    "resid: the worst residual of all phases of the examples that settle.\n"
    "n: instances with an equilibrium, of those tried; below, the share of the examples whose phases all settle.\n"
    "s: seconds of an instance, mean."
)
"""What the last columns of the command's table mean."""
LIVE_GATES = ", live gates"
"""What follows the name of a column of live gates where both modes were compared."""
OF_GATES = ("unconverged", "settled", "residual")
"""Columns that each mode of gates has a value of its own in, beside agreements."""


@dataclass(frozen=True, eq=False)
class LayerTolerance:
    """One parameter tensor at one point.

    Attributes
    ----------
    name : str
    transfer : Agreement
        Agreement with backprop of the ideal network.
    feedforward : Agreement
        Agreement with backprop through the arrays that drive h, of each instance.
    adaptation : Agreement
        Agreement with the implicit gradient of the physical network, of each instance; of a plain system, the exact
        gradient with the weights that its cells make, while it has no feedforward. NaN where it was not measured,
        as in sweep files of earlier releases, or where the oracle found none.
    label : str
        What it is called for a reader, by the layer's name in the model that it comes from; empty: `name`.
    """

    name: str
    transfer: Agreement
    feedforward: Agreement
    adaptation: Agreement
    label: str = ""

    @property
    def told(self) -> str:
        """The name for a reader: the label, or else the parameter's own name."""
        return self.label or self.name


@dataclass(frozen=True, eq=False)
class TolerancePoint:
    """One point of a sweep.

    Attributes
    ----------
    field : str
        A field of `DeviceModel`; or 'ideal' (no imperfection) or 'base' (the device that is varied).
    value : number, str or None
        The value that the field has.
    beta : float or 'auto'
        The nudging strength that was asked for.
    strength : float
        Mean of the betas that were used.
    repeats : int
        Instances that were tried: one where nothing is random.
    unconverged : int
        Instances without an equilibrium of any example, or beyond their stability limit. They are in no
        mean.
    residual : float
        Worst of all phases and repeats, of examples that settle.
    sweeps : int
        Most iterations of a nudged phase.
    seconds : float
        Mean time of a repeat.
    free_share : float
        Examples that have a free state, mean over all repeats, those without equilibrium included.
    free_error : float
        Share of these whose largest output is not the target's, mean over the repeats that have any; NaN in the
        command's figures where targets are drawn at random.
    solver : str
        What found the free states; NaN and '' where a file of an earlier release does not tell.
    layers : tuple of LayerTolerance
    settled : float
        Examples whose phases all settle, mean over all repeats. Gradients and references are of these.
    stateless : int
        Instances on which no example has a free state.
    live : TolerancePoint or None
        The same point with live gates; None where these were not compared with held ones.
    """

    field: str
    value: Any
    beta: float | str
    strength: float
    repeats: int
    unconverged: int
    residual: float
    sweeps: int
    seconds: float
    free_share: float
    free_error: float
    solver: str
    layers: tuple[LayerTolerance, ...]
    settled: float = math.nan
    stateless: int = 0
    live: TolerancePoint | None = None

    @property
    def stability(self) -> str:
        """What says that the free states are stable: 'not certified' of those of 'guided' (`stability_by`)."""
        return stability_by(self.solver)

    @property
    def by_gates(self) -> list[tuple[TolerancePoint, str]]:
        """The point; where live gates were compared with held ones, both, with the mode's name."""
        return [(self, "")] if self.live is None else [(self, "held"), (self.live, "live")]

    def without_rates(self) -> TolerancePoint:
        """The point without its rates of errors, since targets drawn at random have none."""
        live = None if self.live is None else self.live.without_rates()
        return replace(self, free_error=math.nan, live=live)

    def worst_layer(self, target: str = "transfer") -> LayerTolerance:
        """Layer with the smallest mean cosine to a target; the first, where no repeat found an equilibrium."""
        if target not in TARGETS:
            raise unknown_name("target", target, TARGETS)
        cosines = [getattr(layer, target).cosine for layer in self.layers]
        return self.layers[int(np.argmin(np.nan_to_num(cosines, nan=math.inf)))]

    def worst_layers(self) -> dict[str, Any]:
        """Agreement of the worst layer with each target: a column's name to a number, or to the layer's name."""
        found: dict[str, Any] = {}
        for target in TARGETS:
            worst = self.worst_layer(target)
            agreement: Agreement = getattr(worst, target)
            values = {
                "layer": worst.told if agreement.count else None,
                "1 - cosine": agreement.distance,
                "half width": agreement.cosine_half_width,
                "relative error": agreement.relative_error,
                "bias": agreement.bias,
                "variance": agreement.variance,
            }
            found |= {f"{target} {name}": value for name, value in values.items()}
        return found

    def figures(self, layers: bool = True) -> dict[str, Any]:
        """For JSON: the point, its worst layers, and (with `layers`) all of them."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("layers", "live")}
        own["stability"] = self.stability
        for target in TARGETS:
            worst = self.worst_layer(target)
            own[target] = {"layer": worst.name, "label": worst.told, **getattr(worst, target).figures()}
        if layers:
            own["layers"] = [
                {
                    "name": layer.name,
                    "label": layer.told,
                    **{target: getattr(layer, target).figures() for target in TARGETS},
                }
                for layer in self.layers
            ]
        own["live"] = None if self.live is None else self.live.figures(layers)
        return own


@dataclass(frozen=True, eq=False, repr=False)
class ToleranceTable(Tabular):
    """Quality of gradients over the imperfections of devices: the points of a sweep.

    Attributes
    ----------
    points : tuple of TolerancePoint
        References first, then field by field.
    config : dict
        All that the results depend on: network, weights' checksum, device, sweep, seed.
    planned : int
        Points of the sweep; more than there are if it is not complete.
    path : Path or None
    """

    points: tuple[TolerancePoint, ...]
    config: dict[str, Any]
    planned: int
    path: Path | None = None

    @property
    def complete(self) -> bool:
        """Whether all points of the sweep have been measured."""
        return len(self.points) == self.planned

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The sweep as rows, one for each point, with its worst layers."""
        return [point.figures(layers=False) for point in self.points]

    def words(self) -> list[str]:
        """What was swept, and how much of it is there."""
        swept = dict.fromkeys(point.field for point in self.points if point.value is not None)
        told = [f"{len(self.points)} of {self.planned} points", ", ".join(swept)]
        return [piece for piece in (*told, "" if self.path is None else repr(str(self.path))) if piece]

    def records(self) -> list[dict[str, Any]]:
        """A row a point, with the agreement of its worst layer with each target; with live gates too, if any."""
        plain = (int, float, str, bool, type(None))
        lives = any(point.live is not None for point in self.points)
        found = []
        for point, row in zip(self.points, self.rows, strict=True):
            own = point.worst_layers()
            record = {key: v for key, v in row.items() if isinstance(v, plain) and key != "live"} | own
            if lives:
                live: dict[str, Any] = dict.fromkeys((*OF_GATES, *own))
                if point.live is not None:
                    live = {name: getattr(point.live, name) for name in OF_GATES} | point.live.worst_layers()
                record |= {f"{name}{LIVE_GATES}": value for name, value in live.items()}
            found.append(record)
        return found

    def to_latex(self, columns: Sequence[str] | None = None, caption: str | None = None, digits: int = 3) -> str:
        """Return the sweep as a LaTeX table, as `Tabular.to_latex` does.

        Parameters
        ----------
        columns : sequence of str, optional
            Names of the columns to show; default the point, how many instances it lost, the share of the
            examples that settle, and 1 - cosine and relative error of the worst layer for each target that was
            measured. `to_frame()` has all columns.
        caption : str, optional
        digits : int
            Significant digits of numbers that are no integers.
        """
        if columns is None:
            of_gates = ["unconverged", "settled"]
            of_gates += [f"{target} {name}" for target in TARGETS for name in ("1 - cosine", "relative error")]
            shown = [
                "field",
                "value",
                "strength",
                "repeats",
                *of_gates,
                *(f"{name}{LIVE_GATES}" for name in of_gates),
            ]
            known = known_columns(self.records())
            columns = [name for name in shown if name in known]
        return super().to_latex(columns, caption, digits)

    def of(self, field: str) -> tuple[TolerancePoint, ...]:
        """Points of one field; also 'ideal' and 'base'."""
        found = tuple(point for point in self.points if point.field == field)
        if not found:
            raise unknown_name("field", field, {point.field for point in self.points})
        return found

    def worst(self, field: str, target: str = "transfer") -> TolerancePoint:
        """The point of a field whose worst layer has the least cosine; one without any equilibrium goes first."""
        cosines = [getattr(point.worst_layer(target), target).cosine for point in self.of(field)]
        return self.of(field)[int(np.argmin(np.nan_to_num(cosines, nan=-math.inf)))]

    def figures(self) -> dict[str, Any]:
        """The sweep's figures as `--json` writes them."""
        return {
            "points": [point.figures() for point in self.points],
            "config": self.config,
            "complete": self.complete,
            "unconverged": sum(point.unconverged for point in self.points),
        }


def tabulated(
    rows: Measured,
    points: Sequence[Point],
    config: dict[str, Any],
    layers: Sequence[str],
    path: Path | None,
    labels: Sequence[str] | None = None,
) -> ToleranceTable:
    """Points of what was measured.

    Parameters
    ----------
    rows : dict
        Name in `points.QUANTITIES` to values, the axis of points in front.
    points : sequence of Point
    config : dict
    layers : sequence of str
    path : Path or None
    labels : sequence of str, optional
        What the layers are called for a reader; default their own names.
    """

    def agreement(p: int, k: int, target: str) -> Agreement:
        cosine, error, bias, variance = (
            rows[f"{target}_{name}"][p, k] for name in ("cosine", "relative_error", "bias", "variance")
        )
        return Agreement(cosine, error, float(bias), float(variance))

    def with_gates(p: int, own: str, live: TolerancePoint | None = None) -> TolerancePoint:
        point = points[p]
        status = rows[f"{own}status"][p]
        good, tried = status == FOUND, status != NOT_RUN
        return TolerancePoint(
            field=point.field,
            value=point.value,
            beta=point.beta,
            strength=_mean(rows[f"{own}beta"][p][good]),
            repeats=int(tried.sum()),
            unconverged=int((status == NO_EQUILIBRIUM).sum()),
            residual=float(rows[f"{own}residual"][p][good].max()) if good.any() else math.nan,
            sweeps=int(rows[f"{own}sweeps"][p].max()),
            seconds=_mean(rows["seconds"][p][tried]),
            free_share=_mean(_told(rows["free_share"][p])),
            free_error=_mean(_told(rows["free_error"][p])),
            solver=", ".join(sorted({word.decode() for word in rows["free_solver"][p]} - {""})),
            layers=tuple(
                LayerTolerance(
                    name,
                    agreement(p, k, own + "transfer"),
                    agreement(p, k, own + "feedforward"),
                    agreement(p, k, own + "adaptation"),
                    label,
                )
                for k, (name, label) in enumerate(zip(layers, labels or layers, strict=True))
            ),
            settled=_mean(_told(rows[f"{own}settled"][p])),
            stateless=int((rows["free_share"][p][tried] == 0).sum()),
            live=live,
        )

    found = []
    for p in range(len(points)):
        live = with_gates(p, LIVE)
        found.append(with_gates(p, "", live if live.repeats else None))
    return ToleranceTable(tuple(found), config, len(config["tolerance"]["plan"]), path)


def _told(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def tolerance_rows(points: Sequence[TolerancePoint], verbose: bool) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: a row a point, or a layer, with a line for each target."""
    columns = [
        "device",
        "beta",
        "against",
        "1-cos",
        "layer",
        "error",
        "bias",
        "variance",
        "free",
        "resid",
        "n",
        "s",
    ]
    targets = TARGETS
    rows = []
    for point, gates in (pair for each in points for pair in each.by_gates):
        chosen = (
            [(layer,) * len(targets) for layer in point.layers] if verbose else [map(point.worst_layer, targets)]
        )
        for layers in map(tuple, chosen):
            found = [getattr(layer, target) for layer, target in zip(layers, targets, strict=True)]
            widths = [f"±{each.cosine_half_width:.0e}" if each.count > 1 else "" for each in found]
            cells = [
                ["transfer", "feedfwd.", "adapt."],
                [_exponential(each.distance) + width for each, width in zip(found, widths, strict=True)],
                [
                    layer.told.removeprefix("layers.") if verbose or each.count else ""
                    for layer, each in zip(layers, found, strict=True)
                ],
                *(
                    [_exponential(getattr(each, name)) for each in found]
                    for name in ("relative_error", "bias", "variance")
                ),
            ]
            device = point.field if point.field in ("ideal", "base") else f"{point.field}\n  {point.value}"
            rows.append(
                [
                    device + (f"\n  {gates} gates" if gates else ""),
                    f"{point.strength:.3g}" if point.strength > 0 else str(point.beta),
                    *map("\n".join, cells),
                    "\n".join(_free(point)),
                    _exponential(point.residual, 0),
                    f"{point.repeats - point.unconverged}/{point.repeats}\n{point.settled:.0%}".replace(
                        "nan%", "?"
                    ),
                    f"{point.seconds:.2g}",
                ]
            )
    return columns, rows


def _free(point: TolerancePoint) -> list[str]:
    """Share of the examples with a free state, how many of these are wrong where that is known, the solver."""
    share = "?" if math.isnan(point.free_share) else f"{point.free_share:.0%}"
    return [share, *([] if math.isnan(point.free_error) else [f"{point.free_error:.0%} wrong"]), point.solver]


def _exponential(value: float, digits: int = 1) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}e}"
