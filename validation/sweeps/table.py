"""Results of a tolerance sweep: a table of points, each with its layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from physics_ep.errors import counted, unknown_name
from physics_ep.tabular import Tabular

from ..agreement import Agreement
from ..references import stability_by
from ..tables import exponential
from .plan import Point
from .points import FOUND, LIVE, NO_EQUILIBRIUM, NOT_RUN, TARGETS, Measured

LEGEND = (
    "free: the share of the examples that have a free state, how many of these are wrong, and the solver.\n"
    "resid: the worst residual of all phases of the examples that settle.\n"
    "n: instances with an equilibrium, of those tried; below, the share of the examples whose phases all settle.\n"
    "s: seconds of an instance, mean.\n"
    "variance: over the instances, so that a single one has none."
)
"""What the last columns of the command's table mean."""
WHY = {
    "vanishes": "the exact gradient of every tensor is zero but for rounding, and has no direction",
    "unsettled": "there is no example whose phases all settle",
    "unknown": "the exact gradient was not measured, or its oracle found none",
}
"""What stands in place of a number, and why."""
LEAST = 3
"""Instances from which on the table tells an interval; Student's t of two is 13 standard errors wide."""
MOST = 2.0
"""The most that 1 - cosine can be."""
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
    examples : int
        Size of the batch; 0 where a file of an earlier release does not tell.
    """

    points: tuple[TolerancePoint, ...]
    config: dict[str, Any]
    planned: int
    path: Path | None = None
    examples: int = 0

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

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets that some point has: a plain system has no feedforward."""
        every = [each for point in self.points for each, _ in point.by_gates]
        known = [t for t in TARGETS if any(getattr(layer, t).tried for point in every for layer in point.layers)]
        return tuple(known) or TARGETS[:1]

    @property
    def shown(self) -> tuple[str, ...]:
        """Targets of a figure and of a table in a paper: transfer, and adaptation where it was measured."""
        return (
            tuple(t for t in self.targets if t != "feedforward") if "adaptation" in self.targets else self.targets
        )

    def paper_rows(self) -> list[dict[str, Any]]:
        """A row a point, or a point and a mode of gates, with its share of examples that settle.

        Values are 1 - cosine of the worst tensor to each target of `shown`.
        """
        both = any(point.live is not None for point in self.points)
        return [
            {
                "device": point.field.replace("_", " "),
                "value": "" if point.value is None and point.field in ("ideal", "base") else point.value,
                **({"gates": gates} if both else {}),
                **{target: getattr(each.worst_layer(target), target).distance for target in self.shown},
                "settled": f"{each.settled:.0%}".replace("nan%", "--"),
            }
            for point in self.points
            for each, gates in point.by_gates
        ]

    def notebook_rows(self) -> list[dict[str, Any]]:
        """The rows of a paper's table: a notebook has no room for all columns of `to_frame`."""
        return self.paper_rows()

    def title(self) -> str:
        """What is compared, on what."""
        where = self.config["tolerance"]["substrate"] if "tolerance" in self.config else "devices"
        return f"1 - cosine of the gradients of equilibrium propagation on imperfect devices ({where})."

    def conditions(self) -> str:
        """How EP was done, with how many instances and examples, and why values are missing."""
        own = self.config.get("tolerance", {})
        strengths = [f"{s:.3g}" for s in sorted({point.strength for point in self.points if point.strength > 0})]
        solvers = list(dict.fromkeys(point.solver for point in self.points if point.solver))
        instances = max((point.repeats for point in self.points), default=0)
        method = own.get("method", "auto")
        scheme = f"{own.get('scheme', '')} EP".strip() + (
            f" ({method})" if method not in ("auto", "energy") else ""
        )
        told = [
            scheme,
            f"beta {' to '.join(dict.fromkeys((strengths[0], strengths[-1])))}" if strengths else "",
            f"solver {', '.join(solvers)}" if solvers else "",
            f"copies {own['base']['copies']}" if "copies" in own.get("base", {}) else "",
            own.get("dtype", ""),
            counted(instances, "instance"),
            counted(self.examples, "example") if self.examples else "",
        ]
        columns = (
            f"Values of {' and '.join(self.shown)}: 1 - cosine of the worst tensor, mean over the instances. "
            "Settled: share of the examples whose phases all settle, and whose gradient it is"
        )
        words = [
            ", ".join(filter(None, told)),
            columns,
            *(line.rstrip(".") for line in reasons(self.points, paper=True)),
        ]
        return ". ".join(words) + "."

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
    examples: int = 0,
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
    examples : int
        Size of the batch.
    """

    def agreement(p: int, k: int, target: str) -> Agreement:
        cosine, error, bias, variance = (
            rows[f"{target}_{name}"][p, k] for name in ("cosine", "relative_error", "bias", "variance")
        )
        # Files of earlier releases have a cosine of 0 where the target is zero.
        return Agreement(np.where(np.isinf(error), math.nan, cosine), error, float(bias), float(variance))

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
    return ToleranceTable(tuple(found), config, len(config["tolerance"]["plan"]), path, examples)


def _told(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def missing(point: TolerancePoint, agreement: Agreement) -> str:
    """The word of `WHY` for an agreement without a number; empty: it has one."""
    if agreement.count:
        return ""
    if point.unconverged == point.repeats:
        return "unsettled"
    return "vanishes" if agreement.vanished else "unknown"


def reasons(points: Sequence[TolerancePoint], paper: bool = False) -> list[str]:
    """Why values are missing, a line a reason: for whole targets, and for single tensors with their names.

    Parameters
    ----------
    points : sequence of TolerancePoint
    paper : bool
        Whether a dash stands in place of the words of `WHY`.
    """
    every = [(point, each, gates) for point in points for each, gates in point.by_gates]
    known = [t for t in TARGETS if any(getattr(layer, t).tried for _, e, _ in every for layer in e.layers)]
    lines = []
    if paper and "adaptation" in known:
        known = [target for target in known if target != "feedforward"]
    elif known and "feedforward" not in known:
        lines.append(
            "feedforward: there is none, as the system has no forward pass; adaptation is by implicit "
            "differentiation."
        )
    words = {missing(each, getattr(each.worst_layer(target), target)) for _, each, _ in every for target in known}
    if known and "adaptation" not in known:
        lines.append(f"adaptation: {WHY['unknown']}.")
    lines += [f"{'no value (--)' if paper else word}: {WHY[word]}." for word in WHY if word in words]
    gone: dict[str, dict[str, None]] = {}
    times: Counter[str] = Counter()  # places are fewer where a field is measured at several betas
    for point, each, gates in every:
        place = point.field if point.value is None else f"{point.field} {point.value}"
        for target in known:
            for layer in each.layers:
                if getattr(layer, target).vanished:
                    times[layer.told] += 1
                    gone.setdefault(layer.told, {}).setdefault(f"{target} at {place}{gates and f', {gates} gates'}")
    most = sum(len(each.by_gates) for each in points) * len(known)
    always = [name for name in gone if times[name] == most]
    if always:
        lines.append(f"exact gradient zero but for rounding, so that no number tells of them: {', '.join(always)}.")
    for name, places in gone.items():
        if name not in always:
            shown = list(places)[:3]
            more = len(places) - len(shown)
            told = "; ".join(shown) + (f" and {more} more" if more else "")
            lines.append(f"exact gradient zero but for rounding: {name} ({told}).")
    return lines


def tolerance_rows(table: ToleranceTable, verbose: bool) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: a row a point, or a layer, with a line for each target; `reasons` tells what lacks."""
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
    targets = table.targets
    short = {"transfer": "transfer", "feedforward": "feedfwd.", "adaptation": "adapt."}
    rows = []
    for point, gates in (pair for each in table.points for pair in each.by_gates):
        chosen = (
            [(layer,) * len(targets) for layer in point.layers] if verbose else [map(point.worst_layer, targets)]
        )
        for layers in map(tuple, chosen):
            found = [getattr(layer, target) for layer, target in zip(layers, targets, strict=True)]
            cells = [
                [short[target] for target in targets],
                [missing(point, each) or exponential(each.distance) + _width(each) for each in found],
                [layer.told if verbose or each.count else "" for layer, each in zip(layers, found, strict=True)],
                [exponential(each.relative_error) for each in found],
                ["0" if _explained(each) else exponential(each.bias) for each in found],
                [exponential(each.variance) for each in found],
            ]
            device = point.field if point.field in ("ideal", "base") else f"{point.field}\n  {point.value}"
            rows.append(
                [
                    device + (f"\n  {gates} gates" if gates else ""),
                    f"{point.strength:.3g}" if point.strength > 0 else str(point.beta),
                    *map("\n".join, cells),
                    "\n".join(_free(point)),
                    exponential(point.residual, 0),
                    f"{point.repeats - point.unconverged}/{point.repeats}\n{point.settled:.0%}".replace(
                        "nan%", "?"
                    ),
                    f"{point.seconds:.2g}",
                ]
            )
    return columns, rows


def _width(agreement: Agreement) -> str:
    """The 95 % interval of 1 - cosine behind its mean; an interval that reaches 0 or 2 is told by its other end."""
    if agreement.count < LEAST:
        return ""
    half = agreement.cosine_half_width
    if agreement.distance - half < 0:
        return f"≤{exponential(min(agreement.distance + half, MOST))}"
    if agreement.distance + half > MOST:
        return f"≥{exponential(agreement.distance - half)}"
    return f"±{exponential(half, 0)}"


def _explained(agreement: Agreement) -> bool:
    """Whether noise explains the whole mean error, so that the bias is 0 but for what is too small to tell."""
    return agreement.bias == 0 and agreement.count > 1 and agreement.variance > 0


def readings(table: ToleranceTable, verbose: bool) -> list[str]:
    """How intervals and biases that the table shows are read, a line each.

    Parameters
    ----------
    table : ToleranceTable
    verbose : bool
        Whether all layers are shown, and not the worst alone.
    """
    every = [each for point in table.points for each, _ in point.by_gates]
    shown = [
        getattr(layer, target)
        for each in every
        for target in table.targets
        for layer in (each.layers if verbose else [each.worst_layer(target)])
    ]
    widths = {_width(each)[:1] for each in shown}
    lines = []
    if "±" in widths:
        lines.append("±: half width of the 95 % interval of 1-cos.")
    if "≤" in widths:
        lines.append("≤: upper end of that interval where it reaches 0, which 1-cos cannot pass.")
    if "≥" in widths:
        lines.append("≥: lower end of that interval where it reaches 2, which 1-cos cannot pass.")
    if any(0 < each.count < LEAST for each in shown) and any(point.repeats > 1 for point in table.points):
        lines.append(f"Means of fewer than {LEAST} instances have no interval: it would hold almost any number.")
    if any(map(_explained, shown)):
        lines.append(
            "bias 0: the scatter of the instances explains the whole mean error; a bias that is smaller than so "
            "many instances can tell may be there."
        )
    return lines


def _free(point: TolerancePoint) -> list[str]:
    """Share of the examples with a free state, how many of these are wrong where that is known, the solver."""
    share = "?" if math.isnan(point.free_share) else f"{point.free_share:.0%}"
    return [share, *([] if math.isnan(point.free_error) else [f"{point.free_error:.0%} wrong"]), point.solver]
