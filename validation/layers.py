"""EP's gradient beside an exact one, a row a layer: all tensors of a module as one vector."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from physics_ep.equilibrium import Equilibrium
from physics_ep.extremes import greatest
from physics_ep.tabular import Tabular

from .oracles import Gradients

ROUNDINGS = 100
"""Roundings of the whole gradient up to which a tensor's exact gradient is zero but for rounding."""


@dataclass(frozen=True)
class LayerRow:
    """Agreement of the gradient of one module's own parameters with the oracle's.

    Attributes
    ----------
    layer : str
        Path of the module, or the parameter's name where the system itself holds it.
    weights : int
        Numbers that it learns.
    cosine : float
        Cosine over all tensors of the layer as one vector; NaN where the exact gradient is zero but for rounding.
    relative_error : float
        |g - oracle| / |oracle|; NaN where the cosine is.
    absolute_error : float
        |g - oracle| over the size of the whole gradient.
    residual : float
        Worst residual of the units on which the layer acts, of all nudged phases; of the phases as a whole where
        their solver does not tell.
    iterations : int
        K, the most iterations of a nudged phase.
    zeros : tuple of str
        Its tensors whose exact gradient is zero but for rounding.
    label : str
        Name of the module in the model that it comes from; empty: `layer`.
    kind : str
        Class of the module; empty where that is not known.
    """

    layer: str
    weights: int
    cosine: float
    relative_error: float
    absolute_error: float
    residual: float
    iterations: int
    zeros: tuple[str, ...] = ()
    label: str = ""
    kind: str = ""

    @property
    def name(self) -> str:
        """Name of the module in the model, or else the path."""
        return self.label or self.layer

    @property
    def told(self) -> str:
        """The name for a reader: '0 (Conv2d)' where it is a number."""
        return f"{self.name} ({self.kind})" if self.kind and self.name.rpartition(".")[2].isdecimal() else self.name

    @property
    def distance(self) -> float:
        """1 - cosine, which rounding may have made less than 0."""
        return math.nan if math.isnan(self.cosine) else max(1 - self.cosine, 0.0)


@dataclass(frozen=True, repr=False)
class LayerTable(Tabular):
    """Rows of layers in the order of the parameters; with live gates beside held ones where both were asked for.

    Attributes
    ----------
    rows : tuple of LayerRow
    live : tuple of LayerRow or None
        The same layers with live gates; empty where no example settled.
    heading, note : str
        Caption and note of the table in a paper.
    """

    rows: tuple[LayerRow, ...]
    live: tuple[LayerRow, ...] | None = None
    heading: str = ""
    note: str = ""

    def words(self) -> list[str]:
        """How many layers there are, and which agrees worst."""
        found = [row for row in self.rows if not math.isnan(row.distance)]
        worst = max(found, key=lambda row: row.distance, default=None)
        return [f"{len(self.rows)} layers"] + (
            [] if worst is None else [f"worst 1 - cosine {worst.distance:.2g} in {worst.told}"]
        )

    def title(self) -> str:
        """What is compared with what."""
        return self.heading

    def conditions(self) -> str:
        """How EP was done, and with how many examples."""
        return self.note

    def paper_rows(self) -> list[dict[str, Any]]:
        """A row a layer, or a layer and a mode of gates, with 1 - cosine and relative error."""
        told = {row.name: row.told for row in self.rows}
        rows = gates_in_rows(self.records(), "layer", self.live is not None)
        return [{**row, "layer": told[row["layer"]]} for row in rows]

    def records(self) -> list[dict[str, Any]]:
        """The comparison as a table, one row for each layer."""
        told = [_record(row) for row in self.rows]
        if self.live is None:
            return told
        others = {row.name: _record(row) for row in self.live}
        names = list(told[0])[2:] if told else []
        missing = dict.fromkeys(names, math.nan)
        return [
            {**own, **{f"{name}, live gates": others.get(own["layer"], missing)[name] for name in names}}
            for own in told
        ]


def gates_in_rows(records: Sequence[Mapping[str, Any]], key: str, both: bool) -> list[dict[str, Any]]:
    """1 - cosine and relative error of records, with held and live gates below one another where both are there.

    Parameters
    ----------
    records : sequence of mapping
        A layer or a tensor each; columns of live gates end in ', live gates'.
    key : str
        Column of the names.
    both : bool
    """
    modes = (("held", ""), ("live", ", live gates")) if both else (("", ""),)
    return [
        {
            key: record[key],
            **({"gates": mode} if both else {}),
            **{name: record[name + after] for name in ("1 - cosine", "relative error")},
        }
        for record in records
        for mode, after in modes
    ]


def _record(row: LayerRow) -> dict[str, Any]:
    return {
        "layer": row.name,
        "weights": row.weights,
        "cosine": row.cosine,
        "1 - cosine": row.distance,
        "relative error": row.relative_error,
        "residual": row.residual,
        "K": row.iterations,
    }


def layer_of(parameter: str) -> str:
    """Path of the module that holds a parameter, whatever `torch.nn.utils.parametrize` has made of its name."""
    path, _, name = parameter.partition(".parametrizations.")
    if name:
        return path
    return parameter.rpartition(".")[0] or parameter


def vanishing(exact: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Names of the tensors whose exact gradient is zero but for rounding, and for what its oracle leaves.

    Such are a bias before a batch norm, or that of the keys in an attention. They have no cosine.
    """
    whole = whole_size(exact)
    dtype = next((g.dtype for g in exact.values()), torch.float64)
    left = exact.residual if isinstance(exact, Gradients) and math.isfinite(exact.residual) else 0.0
    floor = max(ROUNDINGS * torch.finfo(dtype).eps, left) * whole
    return tuple(name for name, g in exact.items() if float(g.norm()) <= floor)


def whole_size(exact: Mapping[str, torch.Tensor]) -> float:
    """Euclidean norm of a gradient as one vector."""
    return math.sqrt(sum(float(g.double().square().sum()) for g in exact.values()))


def layer_rows(
    estimate: Mapping[str, torch.Tensor],
    exact: Mapping[str, torch.Tensor],
    nudged: Sequence[Equilibrium],
    acted_on: Mapping[str, tuple[int, ...]],
    used: torch.Tensor,
    told: Callable[[str], tuple[str, str]] = lambda path: (path, ""),
) -> tuple[LayerRow, ...]:
    """Rows of two gradients given as name to tensor.

    Parameters
    ----------
    estimate, exact : mapping
    nudged : sequence of Equilibrium
        The nudged phases of the estimate.
    acted_on : mapping
        Numbers of the blocks on which each parameter acts directly, by name; those that are not there act on any.
    used : Tensor (B,)
        The examples whose gradient it is, on the CPU.
    told : callable
        Name and class of a layer in the model that it comes from, by its path.
    """
    zeros, whole = set(vanishing(exact)), whole_size(exact)
    layers: dict[str, list[str]] = {}
    for name in exact:
        layers.setdefault(layer_of(name), []).append(name)
    worst = greatest((float(e.residual.cpu()[used].max()) for e in nudged), default=0.0)
    spent = max((e.iterations for e in nudged), default=0)
    parts = [e.by_block.cpu()[:, used].amax(1) for e in nudged if e.by_block is not None]
    each = torch.stack(parts).amax(0) if parts and len(parts) == len(nudged) else None
    rows = []
    for layer, names in layers.items():
        pairs = [(_vector(estimate.get(n), exact[n]), exact[n].double().flatten()) for n in names]
        g, o = (torch.cat([pair[k].to(pairs[0][1].device) for pair in pairs]) for k in range(2))
        gap, size, mine = float((g - o).norm()), float(o.norm()), float(g.norm())
        known = not zeros.issuperset(names)
        blocks = sorted({k for n in names for k in acted_on.get(n, ())})
        rows.append(
            LayerRow(
                layer=layer,
                weights=o.numel(),
                cosine=(float(g @ o) / (size * mine) if mine else 0.0) if known else math.nan,
                relative_error=gap / size if known else math.nan,
                absolute_error=gap / whole if whole else gap,
                residual=worst if each is None or not blocks else float(each[blocks].max()),
                iterations=spent,
                zeros=tuple(n for n in names if n in zeros),
                label=told(layer)[0],
                kind=told(layer)[1],
            )
        )
    return tuple(rows)


def _vector(found: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """A gradient as a vector; zeros where nothing depends on the parameter."""
    g = torch.zeros_like(like) if found is None else found
    return g.detach().double().flatten().to(like.device)
