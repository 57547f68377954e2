"""The signature table: what each imperfection of cells does to the gradient of a trained network, and to what else.

    physics-ep signature --network digits-relu --out FOLDER          # --resume goes on

Rows are imperfections, one at a time. Columns are the trained network with cells that err each by themselves, gates
held and live; the same with cells of one weight that err alike, an ideal; and the network before its training.
A cell is the median over device instances, and the quartiles, of 1 - cosine of the worst weights to one reference
(`validation.references`), of the examples whose phases settle.

FOLDER holds the trained network and for each column a folder with a sweep file a substrate (`validation.sweeps`),
kept point by point: `physics-ep figure signature --from FOLDER/trained-independent/resistive.h5` draws one.
A column is one sweep, whatever is shown of it: held and live gates stand on the same instances and references.
Substrates that solve one set of equations with the same cells give the same numbers; such columns are shown once
(`alike`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hardware_models.devices.model import DeviceModel, reads
from hardware_models.mapping.board import NotRealisable
from hardware_models.mapping.mapped import SUBSTRATES, device_of, map_pcn, substrate_class
from physics_ep.config import load_config
from physics_ep.cost import CrossEntropy
from physics_ep.data.datasets import load_dataset
from physics_ep.errors import REPEATS, argument_error, require_count, unknown_name
from physics_ep.placement import threads
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp
from physics_ep.progress import Advance
from physics_ep.registry import build_system
from physics_ep.storage.parts import parts_folder
from physics_ep.zoo import zoo, zoo_network

from ..references import REFERENCES, stability_by
from ..sweeps.table import TolerancePoint, ToleranceTable
from ..sweeps.tolerances import tolerance
from .copies import GAINS, SIZES, network_of

DIGITS = {f"digits-{name}": name for name in GAINS}
"""Networks 64-64-64-10 that are trained on the 8x8 digits, in seconds, where they are first asked for."""
ROWS: dict[str, tuple[Any, ...]] = {
    "levels": (16, 64),
    "programming_noise": (0.001, 0.003, 0.01),
    "device_mismatch": (0.003, 0.01),
    "stuck_off": (0.0003, 0.001),
    "copy_mismatch_transpose": (0.01, 0.1),
    "mirror_mismatch": (0.001, 0.01),
    "conductance_noise": (0.001, 0.01),
    "read_noise": (1e-6, 1e-5, 1e-4),
    "temperature": (300.0,),
    "dac_bits": (4, 8),
    "adc_bits": (8, 12),
}
"""Imperfections, and their sizes from the smaller to the larger error; bits and levels from the coarse on."""
FINER = ("levels", "dac_bits", "adc_bits")
"""Fields whose error falls where their value grows."""
COLUMNS = {
    "trained, separate cells": (True, "independent"),
    "trained, cells that err alike (ideal)": (True, "shared"),
    "untrained, separate cells": (False, "independent"),
}
"""Title of a column to whether the network is trained, and to what its cells have in common."""
BATCH, STEPS = 16, 300
"""Examples of a gradient, the test examples whose outputs err most; and the steps of a phase after which an example
counts as unsettled: passes through all arrays of the default solver where copies err apart, trials and checks too;
with `solver="euler"` 150 time constants."""
SEEN = 500
"""Test images that they are chosen of, of a network of the zoo."""
BETA = 0.01


@dataclass(frozen=True)
class SignatureRun:
    """A table of signatures, with the network and the conditions that it stands on.

    Attributes
    ----------
    tables : dict
        (substrate, column) to the sweep.
    conditions : dict
        Network, its test error, substrates, gates, copies, solver, beta, examples, instances, steps.
    """

    tables: dict[tuple[str, str], ToleranceTable]
    conditions: dict[str, Any]

    def figures(self) -> dict[str, Any]:
        """The run's figures as `--json` writes them."""
        sweeps = {f"{substrate}: {column}": table.figures() for (substrate, column), table in self.tables.items()}
        return {"conditions": self.conditions, "sweeps": sweeps}


def networks() -> list[str]:
    """Names of the networks that `signature` takes."""
    return [*DIGITS, *zoo("cifar10")]


def candidates(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Test examples with labels of which a network's are chosen."""
    if name in DIGITS:
        data = load_dataset(load_config("pcn-digits").data)
        return data.test_x.flatten(1).double(), data.test_y
    data = load_dataset(load_config("vgg10-eighth-cifar10").data)
    return data.test_x[:SEEN], data.test_y[:SEEN]


def before_training(name: str, seed: int = 0) -> PredictiveCodingNetwork:
    """A network of `networks()` with the weights that it has before training."""
    if name in DIGITS:
        activation = DIGITS[name]
        return mlp(list(SIZES), activation, gain=GAINS[activation], seed=seed).double()
    section = dict(zoo()[name]["config"]["system"])
    built = build_system(section.pop("name"), **{**section, "seed": seed})
    assert isinstance(built, PredictiveCodingNetwork)
    return built


def subject(
    name: str, folder: Path, batch: int, seed: int = 0
) -> tuple[PredictiveCodingNetwork, PredictiveCodingNetwork, torch.Tensor, torch.Tensor]:
    """A trained network, itself before training, and test examples with labels.

    Parameters
    ----------
    name : str
        A name among `networks()`.
    folder : Path
    batch : int
    seed : int
        Seed of the weights before training.
    """
    if name in DIGITS:
        trained: Any = network_of(DIGITS[name], folder)
    else:
        trained = zoo_network(name)
    assert isinstance(trained, PredictiveCodingNetwork)
    return trained, before_training(name, seed), *_heavy(trained, *candidates(name), batch)


def _heavy(
    net: PredictiveCodingNetwork, x: torch.Tensor, y: torch.Tensor, batch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The examples whose outputs err most, which carry the gradient: of a trained network's first eight test
    examples one alone may have all of it."""
    _check_batch(batch, len(x))
    with torch.no_grad():
        sizes = CrossEntropy().gradient(net(x), y).norm(dim=1)
    chosen = sizes.argsort(descending=True, stable=True)[:batch].sort().values
    return x[chosen], y[chosen]


def _check_batch(batch: int, count: int) -> None:
    if batch > count:
        raise argument_error("batch", f"be at most the {count} test examples", batch)


def rows_of(substrate: str, fields: Sequence[str] | None = None) -> dict[str, tuple[Any, ...]]:
    """Rows that a substrate has an effect of; of these, only the named ones."""
    for name in fields or ():
        if name not in ROWS:
            raise unknown_name("fields", name, ROWS)
    effects = substrate_class(substrate).effects
    return {f: v for f, v in ROWS.items() if reads(f, effects) and (fields is None or f in fields)}


class Told:
    """Progress as a line a point, which names the column."""

    def __init__(self, name: str, tell: Callable[[str], None]) -> None:
        self.name, self.tell = name, tell

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """Begin a sweep of `total` points."""
        done = 0

        def advance(n: int = 1, **info: Any) -> None:
            nonlocal done
            done += n
            if info:
                self.tell(f"{self.name}: {done}/{total} {info.get('point', '')}")

        yield advance


def measure(
    name: str,
    folder: Path,
    *,
    substrates: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    fields: Sequence[str] | None = None,
    repeats: int = 10,
    batch: int = BATCH,
    beta: float = BETA,
    steps: int | None = STEPS,
    solver: str | None = None,
    method: str | None = "energy",
    seed: int = 0,
    resume: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> SignatureRun:
    """Measure the columns of the table, and keep each point as it comes.

    Parameters
    ----------
    name : str
        A name among `networks()`.
    folder : Path
        Folder of the sweep files.
    substrates, columns, fields : sequence of str
        What to measure; by default all substrates that can hold the network, and all columns and fields.
    repeats : int
        Device instances.
    batch : int
    beta : float
        Nudging strength.
    steps : int, optional
        Iterations of a phase after which an example counts as unsettled; None: the solver's own.
    solver : str, optional
        Default: each substrate's own.
    method : str, optional
        Method of `EquilibriumPropagation`; by default ordinary EP, which a machine can do without anything more.
    seed : int
        Seed of the instances.
    resume : bool
        Go on with what FOLDER holds.
    tell : callable
        Takes a line for each point.

    Returns
    -------
    SignatureRun

    Raises
    ------
    InputError
        If a name is unknown, or FOLDER holds another table, or one is there and `resume` is not set.
    """
    chosen = list(COLUMNS) if columns is None else list(columns)
    for column in chosen:
        if column not in COLUMNS:
            raise unknown_name("columns", column, COLUMNS)
    if name not in networks():
        raise unknown_name("network", name, networks())
    untrained = before_training(name)
    names = holding(untrained) if substrates is None else list(substrates)
    plans = {substrate: rows_of(substrate, fields) for substrate in names}
    _check(name, untrained, names, repeats=repeats, batch=batch, steps=steps, solver=solver, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    with threads(1):
        trained, before, x, y = subject(name, folder, batch, seed)
    tables: dict[tuple[str, str], ToleranceTable] = {}
    for substrate, sweeps in plans.items():
        for column in chosen:
            is_trained, copies = COLUMNS[column]
            out = folder / f"{'trained' if is_trained else 'untrained'}-{copies}" / f"{substrate}.h5"
            out.parent.mkdir(exist_ok=True)
            options: dict[str, Any] = {"solver": solver, "max_iterations": steps, "method": method}
            with threads(1):
                tables[substrate, column] = tolerance(
                    trained if is_trained else before,
                    x,
                    y,
                    CrossEntropy(),
                    substrate=substrate,
                    device=DeviceModel(copies=copies),
                    sweeps=sweeps,
                    betas=(beta,),
                    gates="both",
                    repeats=repeats,
                    seed=seed,
                    out=out,
                    resume=resume and (out.exists() or parts_folder(out).exists()),
                    progress=Told(f"{substrate}, {column}", tell),
                    **{key: value for key, value in options.items() if value is not None},
                )
    told: dict[str, Any] = {
        "network": name,
        "substrates": names,
        "solver": solver or "each substrate's own",
        "method": method or "the system's own",
        "steps": "the solver's own"
        if steps is None
        else f"at most {steps} a phase: what has not settled by then counts as unsettled",
        "gates": "held and live" if trained.has_gates else "none: units are smooth",
        "copies": "independent, and shared as the ideal",
        "examples": f"{batch}, the test examples whose outputs err most",
        "instances": repeats,
        "beta": beta,
        "seed": seed,
        "dtype": str(trained.dtype).removeprefix("torch."),
    }
    solvers = dict.fromkeys(p.solver for table in tables.values() for p in table.points if p.solver)
    told["free states"] = ", ".join(f"by {s} {stability_by(s)}" for s in solvers)
    return SignatureRun(tables, told)


def holding(net: PredictiveCodingNetwork) -> list[str]:
    """Names of the substrates that can hold a network's layers."""
    found = []
    for substrate in SUBSTRATES:
        with suppress(NotRealisable):
            substrate_class(substrate).check(net, device_of(substrate, None))
            found.append(substrate)
    return found


def _check(
    name: str,
    net: PredictiveCodingNetwork,
    substrates: Sequence[str],
    *,
    repeats: int,
    batch: int,
    steps: int | None,
    solver: str | None,
    seed: int,
) -> None:
    """Refuse what cannot be measured before anything is written.

    Raises
    ------
    InputError
        If a count, the seed or the solver is not allowed.
    """
    require_count("repeats", repeats, most=REPEATS)
    for label, count in (("batch", batch), ("steps", 1 if steps is None else steps)):
        require_count(label, count)
    require_count("seed", seed, 0, 2**63)
    _check_batch(batch, len(candidates(name)[0]))
    for substrate in substrates:
        substrate_class(substrate).check(net, device_of(substrate, None))
        if solver is not None:
            small = mlp([2, 2, 2], net.stack[0].activation_name)
            system = map_pcn(small, substrate).system
            known = system.solvers(system.phase(system.prepare(torch.zeros(1, 2))))
            if solver not in known:
                raise unknown_name(f"solver on the substrate {substrate}", solver, known)


# -- the table ----------------------------------------------------------------------------------------------------


def gaps(point: TolerancePoint, reference: str) -> np.ndarray:
    """1 - cosine of the worst weights on each instance, (R,); NaN where no example has settled.

    Weights whose exact gradient vanishes are not among them.
    """
    weights = [getattr(layer, reference).cosines for layer in point.layers if "weight" in layer.name]
    return np.fmax.reduce(np.maximum(1 - np.stack(weights), 0))[: point.repeats]


def cell(point: TolerancePoint | None, reference: str) -> str:
    """Median and quartiles over the instances; in how many there is no free state; and the share that settles."""
    if point is None:
        return ""
    found = gaps(point, reference)
    there = found[np.isfinite(found)]
    text = "no gradient"
    if there.size:
        low, middle, high = (f"{v:.0e}" for v in np.percentile(there, (25, 50, 75)))
        text = middle if low == middle == high else f"{middle} ({low}..{high})"
    if point.stateless:
        text += f"; no free state in {point.stateless} of {point.repeats}"
    if point.settled < 1:
        text += f"; {point.settled:.0%} settle"
    return text


def alike(run: SignatureRun) -> dict[tuple[str, str], tuple[str, str]]:
    """Columns whose numbers are another substrate's to the last digit that is shown, in all rows that both have."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for key, table in run.tables.items():
        own = {(p.field, p.value): p for p in table.points}
        for other, before in run.tables.items():
            if other == key:
                break
            if other[1] != key[1] or other in found:
                continue
            both = [(p, own[p.field, p.value]) for p in before.points if (p.field, p.value) in own]
            if all(cell(a, r) == cell(b, r) and cell(a.live, r) == cell(b.live, r)
                   for a, b in both for r in REFERENCES):  # fmt: skip
                found[key] = other
                break
    return found


def shown(run: SignatureRun, reference: str) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: imperfection, value, and for each column of each substrate a cell with each mode of gates.

    Raises
    ------
    InputError
        If there is no such reference.
    """
    if reference not in REFERENCES:
        raise unknown_name("reference", reference, REFERENCES)
    same = alike(run)
    head, keys = ["imperfection", "value"], []
    for (substrate, column), table in run.tables.items():
        if (substrate, column) in same:
            continue
        others = [key[0] for key, of in same.items() if of == (substrate, column)]
        modes = ("held", "live") if any(p.live is not None for p in table.points) else ("",)
        for mode in modes:
            head.append(f"{' = '.join([substrate, *others])}: {column}" + (f", {mode}" if mode else ""))
            keys.append(((substrate, column), mode))
    places = dict.fromkeys((p.field, p.value) for table in run.tables.values() for p in table.points)
    points = {key: {(p.field, p.value): p for p in table.points} for key, table in run.tables.items()}
    body = []
    for place in places:
        cells = []
        for key, mode in keys:
            point = points[key].get(place)
            cells.append(cell(point.live if point is not None and mode == "live" else point, reference))
        body.append([place[0].replace("_", " "), "" if place[1] is None else f"{place[1]:g}", *cells])
    return head, body


def rises(run: SignatureRun, reference: str) -> list[str]:
    """Rows in which a larger error leaves a smaller gap, beyond the quartiles of both, each with what is known."""
    found, same = [], alike(run)
    for (substrate, column), table in run.tables.items():
        if (substrate, column) in same:
            continue
        (ideal,) = table.of("ideal")
        for live in (False, True):
            floor = _middle(ideal.live if live else ideal, reference)
            for field in ROWS:
                own = [p.live if live else p for p in table.points if p.field == field]
                own = own[::-1] if field in FINER else own
                for less, more in pairwise(own):
                    if less is None or more is None or not _apart(more, less, reference):
                        continue
                    named = f"{field} {more.value:g} is below {less.value:g}"
                    mode = f", {'live' if live else 'held'} gates" if table.points[0].live is not None else ""
                    found.append(f"{substrate}, {column}{mode}: {named}: {_why(less, more, reference, floor)}")
    return found


def _middle(point: TolerancePoint | None, reference: str) -> float:
    """Median over the instances that have a gradient; NaN where none has."""
    found = np.empty(0) if point is None else gaps(point, reference)
    found = found[np.isfinite(found)]
    return float(np.median(found)) if found.size else math.nan


def _apart(low: TolerancePoint, high: TolerancePoint, reference: str) -> bool:
    """Whether the upper quartile of one lies below the lower quartile of the other."""
    below, above = (g[np.isfinite(g)] for g in (gaps(low, reference), gaps(high, reference)))
    return bool(below.size and above.size and np.percentile(below, 75) < np.percentile(above, 25))


def _why(less: TolerancePoint, more: TolerancePoint, reference: str, floor: float) -> str:
    """What a fall of the gap goes with: `floor` is that of ideal devices."""
    if more.settled < less.settled:
        return f"only {more.settled:.0%} of the examples settle there, against {less.settled:.0%}"
    if max(_middle(less, reference), _middle(more, reference)) <= 2 * floor:
        return f"both are at what beta and switching units leave on ideal devices ({floor:.0e})"
    return "not explained"


def differences(run: SignatureRun, reference: str, column: str) -> list[str]:
    """Rows in which substrates differ beyond the quartiles of their instances, with held gates."""
    tables = {s: t for (s, c), t in run.tables.items() if c == column}
    names, found = list(tables), []
    for n, first in enumerate(names):
        for second in names[n + 1 :]:
            other = {(p.field, p.value): p for p in tables[second].points}
            for point in tables[first].points:
                beside = other.get((point.field, point.value))
                if beside is None:
                    continue
                if _apart(point, beside, reference) or _apart(beside, point, reference):
                    value = "" if point.value is None else f" {point.value:g}"
                    told = f"{first} {cell(point, reference)}, {second} {cell(beside, reference)}"
                    found.append(f"{point.field}{value}: {told}")
    return found


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Heading and rows as a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def told_conditions(conditions: Mapping[str, Any]) -> str:
    """What a table stands on, in one line."""
    return "; ".join(f"{name} {value}" for name, value in conditions.items())
