"""What `from_module` makes of fifteen published torch models: units, outputs, and EP's gradient against autograd's.

    python -m validation.benchmarks.any_model models.json [--only NAME ...]

A row a model, written as soon as it is known. In float32: outputs, and the cosine of the worst tensor to the
model's own gradient by autograd at the automatic beta and at a tenth of it, gates held. In float64: outputs, and
the order of the centered estimate, from a fifth and a tenth of that beta. Tensors whose exact gradient is zero but
for rounding are named, and have an absolute error over the size of the whole gradient.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from physics_ep import placement
from physics_ep.cost import Cost, CrossEntropy, SquaredError
from physics_ep.estimators.propagation import EquilibriumPropagation, estimate_gradient
from physics_ep.extremes import greatest, least
from physics_ep.predictive_coding import from_module
from physics_ep.relaxation.loop import relax

from ..gradients import compare, total_error
from ..layers import vanishing
from .torch_models import FAMILIES, Family, built

Gradients = dict[str, torch.Tensor]


def measure(family: Family, batch: int = 2, seed: int = 0) -> dict[str, Any]:
    """Measure one family of models: agreement of EP with backprop, residual, iterations K and processor seconds.

    Parameters
    ----------
    family : Family
    batch : int
    seed : int
        Seed of weights, inputs and targets.
    """
    begun = time.process_time()
    generator = torch.Generator().manual_seed(seed)
    model, x = built(family, seed), family.inputs(batch, generator)
    out = _outputs(model, x)
    cost: Cost = CrossEntropy() if out.ndim == 2 else SquaredError()
    y = torch.randint(0, out.shape[1], (batch,), generator=generator)
    if out.ndim > 2:
        y = torch.randn(batch, out[0].numel(), generator=generator)
    net = from_module(model, x)
    wide, x64 = copy.deepcopy(model).double(), x.double() if x.is_floating_point() else x
    net64 = from_module(wide, x64)
    zeros = set(vanishing(autograd(wide, x64, y.double() if y.is_floating_point() else y, cost)))
    row: dict[str, Any] = {
        "model": family.name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "units": len(net.units),
        "least units": family.units,
        "output32": _apart(net, model, x),
        "output64": _apart(net64, wide, x64),
    }
    exact = autograd(model, x, y, cost)
    ep = EquilibriumPropagation(cost, beta="auto")
    for name in ("auto", "tenth"):
        torch.manual_seed(seed)
        found, step = estimate_gradient(ep, net, x, y)
        rows = compare(found, exact)
        row[f"cosine {name}"] = least(r.cosine for r in rows if r.name not in zeros)
        row[f"error {name}"] = total_error(found, exact)
        row[f"K {name}"] = max(e.iterations for e in step.equilibria[1:])
        row[f"residual {name}"] = greatest(float(e.residual.max()) for e in step.equilibria)
        if name == "auto":
            row |= {"beta": step.beta, "lambda": 1 / ep.stability_limit, "zeros": sorted(zeros)}
            row["error of zeros"] = max((r.absolute_error for r in rows if r.name in zeros), default=0.0)
            ep = EquilibriumPropagation(cost, beta=0.1 * step.beta)
    row["order"] = order(net64, wide, x64, y.double() if y.is_floating_point() else y, cost, row["beta"])
    return {**row, "seconds": time.process_time() - begun}


def order(net: Any, model: nn.Module, x: torch.Tensor, y: torch.Tensor, cost: Cost, beta: float) -> float:
    """Order in beta of the centered estimate of the whole gradient, measured at a fifth and a tenth of beta."""
    exact = autograd(model, x, y, cost)
    errors = []
    for share in (0.2, 0.1):
        ep = EquilibriumPropagation(cost, beta=share * beta, tolerance=1e-12, on_unconverged="warn")
        torch.manual_seed(0)
        errors.append(total_error(estimate_gradient(ep, net, x, y)[0], exact))
    return math.log2(errors[0] / errors[1])


def autograd(model: nn.Module, x: torch.Tensor, y: torch.Tensor, cost: Cost) -> Gradients:
    """Gradient of the mean cost by the model itself, with the masks of dropout of seed 0."""
    torch.manual_seed(0)
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    loss = cost(model(x).flatten(1), y).mean()
    grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), grads, strict=True)}


def _outputs(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        found: torch.Tensor = model(x)
    return found


def _apart(net: Any, model: nn.Module, x: torch.Tensor) -> float:
    """Largest difference of the network's free outputs from the model's, over the largest output."""
    theirs = _outputs(model, x).flatten(1)
    torch.manual_seed(0)
    mine = net.outputs(relax(net, x).state)
    return float((mine - theirs).abs().max() / theirs.abs().max())


def held(row: dict[str, Any]) -> list[str]:
    """What a row of the table misses of what is asked of every model, in words."""
    asked = {
        "units": row["units"] >= row["least units"],
        "output32": row["output32"] <= 1e-6,
        "output64": row["output64"] <= 1e-12,
        "cosine auto": row["cosine auto"] >= 0.999,
        "cosine tenth": row["cosine tenth"] >= 0.9999,
        "order": abs(row["order"] - 2) <= 0.1,
        "K": min(row["K auto"], row["K tenth"]) >= 2,
        "residual": max(row["residual auto"], row["residual tenth"]) <= 1e-2,
    }
    return [name for name, good in asked.items() if not good]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| model | parameters | units | outputs, float32 | float64 | beta | 1 - cos | at beta / 10 | K | residual "
        "| order | zero |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        zero = f"{len(row['zeros'])} ({row['error of zeros']:.0e})" if row["zeros"] else ""
        cells = [
            *(row["model"], f"{row['parameters'] / 1e6:.3g} M", str(row["units"])),
            *(f"{row['output32']:.0e}", f"{row['output64']:.0e}", f"{row['beta']:.2g}"),
            *(f"{1 - row['cosine auto']:.0e}", f"{max(1 - row['cosine tenth'], 0):.0e}"),
            *(f"{row['K auto']}, {row['K tenth']}", f"{row['residual auto']:.0e}, {row['residual tenth']:.0e}"),
            *(f"{row['order']:.3f}", zero),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure models in turn, and write what is known after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", default=None)
    told = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(told.out.read_text()) if told.out.exists() else []
    with placement.threads(1):
        for family in FAMILIES:
            if told.only is not None and not any(part in family.name for part in told.only):
                continue
            if any(row["model"] == family.name for row in rows):
                continue
            rows.append(measure(family))
            told.out.write_text(json.dumps(rows, indent=1))
            print(table(rows[-1:]).splitlines()[-1], held(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
