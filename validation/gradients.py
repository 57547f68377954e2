"""EP's gradient beside an exact one, a row a parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from hardware_models.devices.model import DeviceModel
from hardware_models.devices.systems import OnDevice
from physics_ep.cost import Cost, as_cost
from physics_ep.equilibrium import Equilibrium, NotConverged
from physics_ep.errors import argument_error, unknown_name
from physics_ep.estimators.propagation import EquilibriumPropagation, estimate_gradient
from physics_ep.estimators.step import Step
from physics_ep.extremes import greatest, least
from physics_ep.nudging import Stencil
from physics_ep.physical_system import PhysicalSystem
from physics_ep.predictive_coding.forward import gate_modes
from physics_ep.predictive_coding.layers import told_layer, told_name
from physics_ep.predictive_coding.traced.recording import random_state, replayed
from physics_ep.progress import SILENT, Progress, task
from physics_ep.stillness import require_system
from physics_ep.tabular import Tabular

from .layers import LayerRow, LayerTable, gates_in_rows, layer_of, layer_rows, vanishing, whole_size
from .oracles import ORACLES, Gradients


@dataclass(frozen=True)
class GradientRow:
    """Agreement of one parameter's gradient with the oracle's.

    Attributes
    ----------
    name : str
    shape : tuple of int
    cosine : float
    relative_error : float
        |g - oracle| / |oracle|.
    scale : float
        <g, oracle> / <oracle, oracle>: 1 when the length is right too.
    sign_agreement : float
        Fraction of the entries with the oracle's sign, zeros of both counted as agreement.
    noise_floor : float
        Bound on the part of relative_error that residuals and rounding make; the rest is finite-beta bias.
    absolute_error : float
        |g - oracle| over the size of the whole gradient.
    zero : bool
        Whether the exact gradient is zero but for rounding (a bias before a batch norm): its cosine and its
        relative error mean nothing then, the absolute error does.
    label : str
        What it is called for a reader, by the layer's name in the model that it comes from; empty: `name`.
    """

    name: str
    shape: tuple[int, ...]
    cosine: float
    relative_error: float
    scale: float
    sign_agreement: float
    noise_floor: float
    absolute_error: float = 0.0
    zero: bool = False
    label: str = ""

    @property
    def told(self) -> str:
        """The name for a reader: the label, or else the parameter's own name."""
        return self.label or self.name


@dataclass(frozen=True, repr=False)
class GradientReport(Tabular):
    """Gradients by EP compared with those of an oracle, parameter by parameter.

    Attributes
    ----------
    rows : tuple of GradientRow
        Agreement of each parameter's gradient; empty where no example has settled.
    oracle : str
        Name of the method that gave the exact gradient, such as 'implicit'.
    scheme : str
        Name of EP's scheme of nudges, such as 'centered'.
    beta : float
        Nudging strength that was taken.
    relative_error : float
        Relative error of the whole gradient as one vector.
    noise_floor : float
        Bound on the part of `relative_error` that residuals and rounding make.
    residual : float
        Worst residual of all phases.
    iterations : tuple of int
        Iterations of the free phase, then those of the nudged ones.
    solver : str
        Name of the solver of the phases.
    loss : float
        Mean cost at the free state.
    gates : str or None
        What nudged phases did with gates, 'held' or 'live'; None where nothing was asked for.
    examples, settled : int
        Number of examples in the batch, and of those whose phases all settled. Where both modes of gates are
        compared, both gradients are those of the settled examples alone.
    method : str
        Method of EP that was taken.
    asymmetry : float
        |A| / |J| at the free state, with A the antisymmetric part of the force's Jacobian J; NaN where nothing
        asked for it.
    hardware : str
        What the method asks of a machine that does it.
    live : GradientReport or None
        The same with live gates, where both modes were asked for and the system has gates.
    layers : tuple of LayerRow
        The same gradient, a row a layer.
    copies : str
        What holds a weight, in words: an ideal weight, cells, or copies of a mapped network.
    dtype : str
        Data type of the parameters, such as 'float32'.
    """

    rows: tuple[GradientRow, ...]
    oracle: str
    scheme: str
    beta: float
    relative_error: float
    noise_floor: float
    residual: float
    iterations: tuple[int, ...]
    solver: str
    loss: float
    gates: str | None = None
    examples: int = 0
    settled: int = 0
    live: GradientReport | None = None
    layers: tuple[LayerRow, ...] = ()
    method: str = "energy"
    asymmetry: float = math.nan
    hardware: str = ""
    copies: str = ""
    dtype: str = ""

    @property
    def worst_cosine(self) -> float:
        """Smallest cosine over the parameters, but for `zeros` beside others; NaN without rows."""
        rows = [row for row in self.rows if not row.zero] or self.rows
        return least((row.cosine for row in rows), default=math.nan)

    @property
    def zeros(self) -> tuple[str, ...]:
        """Names of parameters whose exact gradient is zero but for rounding: judge them by `absolute_error`."""
        return tuple(row.name for row in self.rows if row.zero)

    def by_layer(self) -> LayerTable:
        """The table of layers, which shows itself as a data frame, as CSV and as LaTeX."""
        live = None if self.live is None else self.live.layers
        return LayerTable(self.layers, live, self.title(), self.conditions())

    def title(self) -> str:
        """What is compared with what."""
        return f"Gradients of equilibrium propagation beside {ORACLE_WORDS.get(self.oracle, self.oracle)}."

    def conditions(self) -> str:
        """How EP was done, with what weights and how many examples, and which layers have no exact gradient."""
        ep = f"{self.scheme} EP" if self.method == "energy" else f"{self.scheme} EP ({self.method})"
        told = [f"{ep}, beta {self.beta:.3g}, solver {self.solver}", self.copies, self.dtype]
        words = [", ".join(filter(None, told))]
        words += [_phase_words(each) for each in (self, self.live) if each is not None]
        if self.zeros:
            words.append(f"No value (--): the exact gradient vanishes ({named(self.vanishing)})")
        return ". ".join(words) + "."

    @property
    def vanishing(self) -> list[str]:
        """Names for a reader of what has no exact gradient but rounding: whole layers, and tensors of others."""
        whole = {row.layer: row.told for row in self.layers if math.isnan(row.cosine)}
        found = [
            whole.get(layer_of(row.name), row.told) if layer_of(row.name) in whole else row.told
            for row in self.rows
            if row.zero
        ]
        return list(dict.fromkeys(found))

    def words(self) -> list[str]:
        """How EP was done, and how well its gradient agrees."""
        return [
            f"{len(self.rows)} parameters",
            f"{self.scheme}, beta {self.beta:.3g}",
            f"against {self.oracle}",
            f"worst cosine {self.worst_cosine:.6g}",
            f"relative error {self.relative_error:.2g}",
        ]

    def records(self) -> list[dict[str, Any]]:
        """The report as a table, one row for each parameter; with both modes of gates, the cosine and the error
        with live ones too.
        """
        live = {row.name: row for row in self.live.rows} if self.live is not None else {}
        found = []
        for row in self.rows:
            record: dict[str, Any] = {
                "parameter": row.told,
                "shape": "x".join(map(str, row.shape)),
                **_quality(row),
            }
            record |= {
                "sign agreement": row.sign_agreement,
                "noise floor": row.noise_floor,
                "absolute error": row.absolute_error,
            }
            if self.live is not None:
                own = _quality(live.get(row.name))
                record |= {f"{name}, live gates": own[name] for name in ("cosine", "1 - cosine", "relative error")}
            found.append(record)
        return found

    def paper_rows(self) -> list[dict[str, Any]]:
        """A row a parameter, or a parameter and a mode of gates, with 1 - cosine and relative error."""
        return gates_in_rows(self.records(), "parameter", self.live is not None)


ORACLE_WORDS = {
    "implicit": "implicit differentiation",
    "bptt": "backprop through time",
    "finite_difference": "finite differences",
}
"""Oracles in words, where their names are none."""


def named(names: Sequence[str], most: int = 6) -> str:
    """Names in a row, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _phase_words(report: GradientReport) -> str:
    """How many examples settle in how many iterations, in words."""
    share = report.settled / max(report.examples, 1)
    told = f"{report.settled} of {report.examples} examples ({share:.0%}) settle"
    told += f", worst residual {report.residual:.1e}, K = {max(report.iterations[1:], default=0)}"
    if report.gates is not None:
        told = f"{report.gates.capitalize()} gates: {told}"
    return told if report.rows else f"{told}, no gradient"


def _quality(row: GradientRow | None) -> dict[str, float]:
    """Cosine, error and scale; NaN where the exact gradient is zero but for rounding."""
    if row is None or row.zero:
        return dict.fromkeys(("cosine", "1 - cosine", "relative error", "scale"), math.nan)
    return {
        "cosine": row.cosine,
        "1 - cosine": max(1 - row.cosine, 0.0),
        "relative error": row.relative_error,
        "scale": row.scale,
    }


def compare(estimate: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> list[GradientRow]:
    """Rows for two gradients given as name to tensor; noise floors are left at 0."""
    rows = []
    zeros, whole = set(vanishing(exact)), whole_size(exact)
    for name, reference in exact.items():
        found = estimate.get(name)  # none at all where nothing depends on the parameter
        g = torch.zeros_like(reference) if found is None else found
        g = g.detach().double().flatten().to(reference.device)
        o = reference.detach().double().flatten()
        size, mine = float(o.norm()), float(g.norm())
        both_zero = size == 0 and mine == 0
        dot, gap = float(g @ o), float((g - o).norm())
        rows.append(
            GradientRow(
                name=name,
                shape=tuple(reference.shape),
                cosine=1.0 if both_zero else (dot / (size * mine) if size and mine else 0.0),
                relative_error=0.0 if both_zero else (gap / size if size else float("inf")),
                scale=1.0 if both_zero else (dot / size**2 if size else float("inf")),
                sign_agreement=float((g.sign() == o.sign()).double().mean()),
                noise_floor=0.0,
                absolute_error=gap / whole if whole else gap,
                zero=name in zeros,
            )
        )
    return rows


def total_error(estimate: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    """Relative error of the gradient as one vector."""
    gaps = (
        o.double() - estimate[n].double().to(o.device) if n in estimate else o.double() for n, o in exact.items()
    )
    gap = sum(float(g.square().sum()) for g in gaps)
    size = sum(float(o.double().square().sum()) for o in exact.values())
    if size == 0:
        return 0.0 if gap == 0 else float("inf")
    return (gap / size) ** 0.5


def gradient_report(
    system: PhysicalSystem,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    *,
    scheme: Stencil | str | None = None,
    beta: float | str = 0.1,
    oracle: str | None = None,
    exact: Gradients | None = None,
    solver: str | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    generator: torch.Generator | None = None,
    on_unconverged: str = "raise",
    floors: bool = True,
    gates: str | None = None,
    method: str | None = None,
    progress: Progress | bool = SILENT,
    **options: Any,
) -> GradientReport:
    """Compare EP's gradient with an oracle's.

    Parameters
    ----------
    system : EnergySystem or VectorField
    x, y : Tensor
    cost : Cost
    scheme, beta, solver, tolerance, max_iterations, generator, on_unconverged, method, **options
        The arguments of `EquilibriumPropagation` of the same names.
    floors : bool
        Measure noise floors, which repeats the step in float64; else they are NaN.
    gates : {'held', 'live', 'both'}, optional
        What nudged phases do with the gates of ReLUs and the routes of max poolings; default the system's. 'both'
        compares the two: held gates are in the report, live ones in its `live`, at the same beta and with the same
        draws. Each gradient is then of the examples whose phases settle. A system without gates is reported once.
    oracle : str, optional
        'implicit', 'bptt', 'finite_difference' or 'backprop'; default the system's.
    exact : Gradients, optional
        The oracle's gradient, if it is at hand already.
    progress : Progress or bool
        Told when EP, and when the oracle is done.

    Returns
    -------
    GradientReport

    Raises
    ------
    NotConverged, OracleError
        If a phase or the oracle cannot be certified. Where both modes of gates are compared: if no example settles
        with held gates.
    """
    require_system(system)
    cost = as_cost(cost)
    if exact is not None and not isinstance(exact, Gradients):
        raise argument_error("exact", "be Gradients of an oracle", type(exact).__name__)
    name = system.default_oracle if oracle is None else oracle
    if name not in ORACLES:
        raise unknown_name("oracle", name, ORACLES)
    modes: tuple[str | None, ...] = (None,) if gates is None else gate_modes(gates)
    if gates is not None:
        require_gates(system, gates)
    both = len(modes) > 1 and bool(getattr(system, "has_gates", False))
    if gates == "both" and not both:
        modes = (None,)
    draws = None if generator is None else generator.get_state()
    noise = random_state(system.device)
    of_these = _Oracle(name, system, x, y, cost, exact)
    reports: list[GradientReport] = []
    with task(progress, "gradients", 2 * len(modes)) as advance:
        for mode in modes:
            if generator is not None and draws is not None:
                generator.set_state(draws)
            ep = EquilibriumPropagation(
                cost,
                scheme,
                reports[0].beta if reports else beta,
                solver=solver,
                tolerance=tolerance,
                max_iterations=max_iterations,
                generator=generator,
                on_unconverged="skip" if both and on_unconverged == "raise" else on_unconverged,
                method=method,
                **(options if mode is None else {**options, "gates": mode}),
            )
            # Dropout draws from torch's own generator: live gates see the masks that held ones saw.
            with replayed(noise, system.device) if reports else nullcontext():
                estimate, step = estimate_gradient(ep, system, x, y)
            advance(1)
            reports.append(_reported(ep, estimate, step, of_these, floors))
            advance(1, cosine=reports[-1].worst_cosine)
            if both and not reports[0].settled and on_unconverged == "raise":
                phase = next(e for e in step.equilibria if not e.converged.all())
                raise NotConverged(phase, "A phase with held gates")
    return replace(reports[0], live=reports[1]) if both else reports[0]


def require_gates(system: Any, gates: str) -> None:
    """Refuse to be asked for a mode of gates by a system that knows none.

    Raises
    ------
    InputError
        If its units are no gates that a latch could hold. One whose units are smooth has the option, and its two
        modes are one.
    """
    if not hasattr(system, "has_gates"):
        raise argument_error("gates", f"be left out for {type(system).__name__}, which has no gates", repr(gates))


class _Oracle:
    """The exact gradient of the examples that settle, computed once for the same ones."""

    def __init__(
        self,
        name: str,
        system: PhysicalSystem,
        x: torch.Tensor,
        y: torch.Tensor,
        cost: Cost,
        exact: Gradients | None,
    ) -> None:
        self.name, self.system, self.x, self.y, self.cost = name, system, x, y, cost
        self.used = torch.ones(len(x), dtype=torch.bool)
        self.found = exact

    def __call__(self, used: torch.Tensor) -> Gradients:
        """The gradient of the mean cost of the examples `used`, (B,) of bool."""
        used = used.cpu()
        if self.found is None or not torch.equal(used, self.used):
            at = used.to(self.x.device)
            x, y = (self.x, self.y) if bool(used.all()) else (self.x[at], self.y[at.to(self.y.device)])
            self.found, self.used = ORACLES[self.name](self.system, x, y, self.cost), used
        return self.found


def gradient_figures(found: GradientReport) -> dict[str, Any]:
    """A report for JSON, without that of live gates."""
    own = {name: value for name, value in vars(found).items() if name not in ("rows", "live", "gates")}
    spent = {"iterations": max(found.iterations[1:]), "residual": found.residual}
    rows = [{**vars(row), **spent} for row in found.rows]
    told = {"rows": rows, "worst_cosine": found.worst_cosine, **own, "iterations": list(found.iterations)}
    told["layers"], told["zeros"] = [vars(row) for row in found.layers], list(found.zeros)
    return {**told, "settled_share": found.settled / max(found.examples, 1)}


def settled_rows(equilibria: Sequence[Equilibrium]) -> torch.Tensor:
    """Tell which states settled in all of these phases, (B,) of bool on the CPU."""
    return torch.stack([e.converged.cpu() for e in equilibria]).all(0)


def _reported(
    ep: EquilibriumPropagation, estimate: dict[str, torch.Tensor], step: Step, oracle: _Oracle, floors: bool
) -> GradientReport:
    """What one estimate says, beside the oracle's gradient of the same examples."""
    count, starts = len(oracle.x), ep.starts
    there = settled_rows(step.equilibria).view(starts, count).any(0)
    used = there if step.used is None else step.used.cpu().view(starts, count).any(0)
    rows: tuple[GradientRow, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    error = floor = math.nan
    stack = getattr(oracle.system, "stack", ())
    if bool(used.any()):
        target = oracle(used)
        bounds = step.noise_floors if floors else dict.fromkeys(target, math.nan)
        floor = step.noise_floor if floors else math.nan
        error = total_error(estimate, target)
        rows = tuple(
            replace(row, noise_floor=bounds.get(row.name, math.nan), label=told_name(stack, row.name))
            for row in compare(estimate, target)
        )
        every = used.repeat(starts)
        known = getattr(oracle.system, "acted_on", None)  # systems with layers tell
        acted_on = {} if known is None else known(oracle.x)
        told = partial(told_layer, oracle.system)
        layers = layer_rows(estimate, target, step.equilibria[1:], acted_on, every, told)
    shown = used if rows else torch.ones_like(used)
    worst = [e.residual.cpu().view(starts, count)[:, shown] for e in step.equilibria]
    return GradientReport(
        rows=rows,
        oracle=oracle.name,
        scheme=ep.scheme.name,
        beta=step.beta,
        relative_error=error,
        noise_floor=floor,
        residual=greatest(float(r.max()) for r in worst),
        iterations=tuple(e.iterations for e in step.equilibria),
        solver=step.equilibria[0].solver,
        loss=float(step.loss),
        gates=ep.options.get("gates"),
        examples=count,
        settled=int((there & used).sum()),
        layers=layers,
        method=step.method,
        asymmetry=step.asymmetry,
        hardware=step.hardware,
        copies=_copies(oracle.system),
        dtype=str(oracle.system.dtype).removeprefix("torch."),
    )


def _copies(system: PhysicalSystem) -> str:
    """What holds a weight of a system, in words."""
    if isinstance(system, OnDevice) and system.device_model is not None:
        return f"weights on cells ({system.cells_told})"
    model = getattr(system, "device_model", None)
    if isinstance(model, DeviceModel):
        return f"{model.copies} copies of each weight on cells"
    return "one copy of each weight, ideal"
