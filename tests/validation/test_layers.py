"""Tables of layers: each layer's gradient as one vector, beside autograd's, with the residual of its own units.

If these fail, a user is told that a layer agrees with backprop that does not, or that a key's bias has a cosine.
"""

from __future__ import annotations

import csv
import io
import math

import pytest
import torch
from torch import nn

from physics_ep import CrossEntropy, EquilibriumPropagation
from physics_ep.estimators.propagation import estimate_gradient
from physics_ep.predictive_coding import from_module, mlp
from tests.support.models import built, drawn
from validation import gradient_report

COST = CrossEntropy()


def exact_gradient(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """Autograd's gradient of the mean cost by the model itself."""
    named = dict(model.named_parameters())
    loss = nn.functional.cross_entropy(model(x), y)
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def test_rows_are_modules_and_zeros_are_named() -> None:
    """All tensors of a module are one vector; biases before batch norm have no gradient, and no cosine."""
    model, x, y = built("vgg").train(), drawn("vgg", 6), torch.arange(6) % 3
    network = from_module(model, x)
    report = gradient_report(network, x, y, COST, beta=0.01, floors=False)
    exact = exact_gradient(model, x, y)
    ep = EquilibriumPropagation(COST, beta=0.01)
    found, step = estimate_gradient(ep, network, x, y)
    rows = {row.layer: row for row in report.layers}
    modules = [path for path, m in model.named_modules() if next(m.parameters(recurse=False), None) is not None]
    assert list(rows) == modules
    for path, row in rows.items():
        names = [n for n in exact if n.rpartition(".")[0] == path]
        g, o = (torch.cat([part[n].flatten() for n in names]) for part in (found, exact))
        assert row.weights == o.numel()
        assert row.cosine == pytest.approx(float(nn.functional.cosine_similarity(g, o, 0)), abs=1e-9)
        assert row.relative_error == pytest.approx(float((g - o).norm() / o.norm()), rel=1e-3)
        assert row.iterations == max(e.iterations for e in step.equilibria[1:]) >= 2
    before_norms = ("0.bias", "3.bias", "7.bias")
    assert report.zeros == before_norms
    assert tuple(n for row in report.layers for n in row.zeros) == before_norms
    assert report.worst_cosine > 0.9999
    assert max(row.absolute_error for row in report.rows if row.zero) < 1e-12


def test_a_layers_residual_is_that_of_the_units_it_acts_on() -> None:
    """The largest over the layers is the phases'; each unit's is its own miss by its own equation."""
    model, x, y = built("siamese"), drawn("siamese", 4), torch.arange(4) % 3
    network = from_module(model, x)
    assert network.acted_on(x)["branch.0.weight"] == (0, 1)
    assert network.acted_on(x)["head.bias"] == (len(network.units) - 1,)
    ep = EquilibriumPropagation(COST, beta=0.05, tolerance=1e-2)
    report = gradient_report(network, x, y, COST, beta=0.05, tolerance=1e-2, floors=False)
    _, step = estimate_gradient(ep, network, x, y)
    for phase, sign in zip(step.equilibria[1:], (1, -1), strict=True):
        assert phase.by_block is not None
        assert torch.equal(phase.by_block.amax(0), phase.residual)
        state = [s.clone().requires_grad_() for s in phase.state]
        free = network.phase(network.prepare(x)).free
        errors = [h - f for h, f in zip(state, free.predictions(state), strict=True)]
        total = sum(0.5 * e.square().sum() for e in errors) + sign * 0.05 * COST(state[-1], y).sum()
        for k, slope in enumerate(torch.autograd.grad(total, state)):
            # dF/dh_k is e_k less what the others ask of it: the miss of the unit's own equation, to first order.
            size = errors[k].detach().norm(dim=1)
            assert bool((slope.norm(dim=1) <= 3 * phase.by_block[k] * size + 1e-12).all()), k
    worst = max(e.residual.max() for e in step.equilibria[1:])
    assert max(row.residual for row in report.layers) == pytest.approx(float(worst))


def test_both_modes_of_gates_and_other_files() -> None:
    """Live gates stand beside held ones under the same masks of dropout; CSV has every digit."""
    torch.manual_seed(3)
    hidden = [nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5)]
    model, x, y = nn.Sequential(*hidden, nn.Linear(8, 3)).double(), drawn("mlp", 6), torch.arange(6) % 3
    network = from_module(model, x)
    report = gradient_report(network, x, y, COST, beta=1e-4, gates="both", tolerance=1e-6, floors=False)
    assert report.live is not None
    # No unit is at its kink at so small a nudge: the two agree only if they dropped the same units.
    assert report.live.settled == 6
    assert report.live.worst_cosine > 0.999999
    table = report.by_layer()
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [row["layer"] for row in rows] == ["0", "3", "6"]
    assert [float(row["cosine, live gates"]) for row in rows] == [row.cosine for row in report.live.layers]
    pytest.importorskip("jinja2")
    assert table.to_latex(["layer", "K"]).count(r"\\") == 4


def test_systems_of_layers_have_tables_too() -> None:
    """A predictive coding network's layers are its own; no system is left without a table."""
    network = mlp([6, 5, 5, 3], "tanh", seed=1).double()
    x, y = torch.rand(4, 6, dtype=torch.float64), torch.arange(4) % 3
    report = gradient_report(network, x, y, COST, beta=0.05, floors=False)
    assert [row.layer for row in report.layers] == ["layers.0", "layers.1", "layers.2"]
    assert [network.acted_on(x)[f"layers.{k}.weight"] for k in range(3)] == [(0,), (1,), (2,)]
    assert max(row.residual for row in report.layers) == report.residual
    assert all(0 <= row.distance < 1e-4 and not math.isnan(row.relative_error) for row in report.layers)
