"""The worked examples of docs/extending.md: each is one file, works, and is as short as the page says."""

from __future__ import annotations

import ast
import importlib.util
import math
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hardware_models import DeviceModel, map_pcn
from hardware_models.devices import fields
from hardware_models.mapping import mapped as mapping
from physics_ep import CrossEntropy, EquilibriumPropagation, nudging
from physics_ep.errors import InputError
from tests.support.paths import ROOT
from tests.support.pcn import dense, examples
from validation import tolerance
from validation.gradients import total_error
from validation.oracles import backprop_gradient

FOLDER = ROOT / "examples" / "extending"
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module; its last block, which a run as a script would do, is left to the tests."""
    spec = importlib.util.spec_from_file_location(f"extending_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


def statements(path: Path) -> int:
    """Statements of a file, without imports, docstrings and the block that runs it as a script."""
    counted = 0
    body = [n for n in ast.parse(path.read_text(encoding="utf-8")).body if not isinstance(n, ast.If)]
    for node in ast.walk(ast.Module(body, [])):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        counted += isinstance(node, ast.stmt) and not text and not isinstance(node, ast.Import | ast.ImportFrom)
    return counted


@pytest.mark.parametrize("name", NAMES)
def test_the_page_tells_the_length(name: str) -> None:
    """The page shows each example, and counts its statements right."""
    assert f"examples/extending/{name}.py" in PAGE
    told = re.search(rf"`{name}\.py` has (\d+) statements", PAGE)
    assert told is not None
    assert int(told[1]) == statements(FOLDER / f"{name}.py")


@pytest.mark.full
def test_substrate_learns_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The substrate keeps the contract (the example checks that) and learns: one epoch leaves 14 % of errors."""
    assert load("substrate", monkeypatch).train(epochs=1) < 0.2


def test_mapped_substrate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapped substrate is one class: EP on ideal devices is backprop, and its errors are in its gradient."""
    monkeypatch.setitem(mapping.SUBSTRATES, "current-mode", None)  # what the example puts there is taken out again
    load("mapped_substrate", monkeypatch)
    net, x, y = dense(4, "softplus"), *examples()
    exact = backprop_gradient(net, x, y, CrossEntropy())
    device = DeviceModel(g_min=1e-9)
    ideal = map_pcn(net, "current-mode", device)
    assert total_error(ideal.gradient(x, y, CrossEntropy(), beta=1e-4), exact) < 1e-6
    poor = map_pcn(net, "current-mode", device.replace(amplifier_gain=0.01))
    assert 1e-3 < total_error(poor.gradient(x, y, CrossEntropy(), beta=1e-2), exact) < 1
    with pytest.raises(mapping.NotRealisable, match="can be softplus, not tanh"):
        map_pcn(dense(3, "tanh"), "current-mode")


def test_imperfection(monkeypatch: pytest.MonkeyPatch) -> None:
    """One declaration, and one line where it acts: EP then finds the gradient of the network that is left. Bad
    values are refused by the field's own rule."""
    monkeypatch.setitem(mapping.SUBSTRATES, "worn-hopfield", None)
    worn = load("imperfection", monkeypatch).Worn(g_min=1e-9)
    net, x, y = dense(3, "tanh"), *examples()
    mapped = map_pcn(net, "worn-hopfield", worn.replace(dead_units=0.2), seed=1)
    gradient = mapped.gradient(x, y, CrossEntropy(), beta=1e-3)
    assert total_error(gradient, backprop_gradient(mapped.perturbed, x, y, CrossEntropy())) < 1e-5
    assert total_error(gradient, backprop_gradient(net, x, y, CrossEntropy())) > 0.1
    whole = map_pcn(net, "worn-hopfield", worn).gradient(x, y, CrossEntropy(), beta=1e-3)
    assert total_error(whole, backprop_gradient(net, x, y, CrossEntropy())) < 1e-5
    with pytest.raises(InputError, match=r"dead_units must be a number from 0 to 1, but was 1\.5"):
        worn.replace(dead_units=1.5)
    # A sweep takes the field as it takes ours; a substrate that does not read it refuses it.
    sweeps = {"dead_units": [0.0, 0.2, 1.0]}
    table = tolerance(net, x, y, CrossEntropy(), substrate="worn-hopfield", sweeps=sweeps, betas=[1e-3], repeats=2)
    none, some, all_ = table.of("dead_units")
    assert none.worst_layer("transfer").transfer.cosine > 0.999 > some.worst_layer("transfer").transfer.cosine
    assert all_.layers[0].transfer.relative_errors == pytest.approx(1.0)  # no gradient is left of the first layer
    with pytest.raises(InputError, match=r"dead_units must be left out .*'hopfield', .* \('worn-hopfield' does\)"):
        map_pcn(net, "hopfield", worn.replace(dead_units=0.2))


def test_units_of_a_system_of_ones_own() -> None:
    """The page's divider: half the input at rest, its watts, and the course of its time constant."""
    block = PAGE.split("<!-- test: watts -->\n```python\n")[1].split("```")[0]
    names: dict = {}
    exec(compile(block, "docs/extending.md", "exec"), names)
    course, cost = names["course"], names["cost"]
    assert (course.time_unit, course.state_unit, course.energy_unit) == ("s", "V", "W")
    assert bool(course.at_rest.all())
    tau = names["divider"].time_constant
    exact = 0.5 * (1 - np.exp(-course.time.numpy() / tau))
    assert np.abs(course.state[0][:, 0, 0].numpy() - exact).max() < 1e-5
    assert cost.watts == pytest.approx(2 * 1e-5 / 2, rel=1e-5)  # two nodes, V^2 g / 2 each
    assert cost.joules == pytest.approx(cost.watts * cost.seconds, rel=1e-6)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [("FRACTION", 1.0, 1.5), ("MAGNITUDE", 0.0, -1.0), ("RANGE", None, 0.0), ("COUNT", 1, 0), ("BITS", 32, 33)],
)
def test_rules_hold_what_the_page_says(rule: str, good: float | None, bad: float) -> None:
    """A table of rules that says other values than the rules hold."""
    told = getattr(fields, rule)
    assert told.checked("field", good) == good
    with pytest.raises(InputError, match="Argument field must"):
        told.checked("field", bad)
    assert f"`{rule}`" in PAGE


def test_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheme is found by its name, its error has the declared order, and wrong weights are refused."""
    monkeypatch.setitem(nudging.SCHEMES, "forward", None)
    load("scheme", monkeypatch)
    assert not nudging.scheme_from_name("forward").has_negative
    net, x, y = dense(3, "tanh"), *examples()
    exact = backprop_gradient(net, x, y, CrossEntropy())
    errors = []
    for beta in (0.02, 0.01):
        net.zero_grad()
        EquilibriumPropagation(CrossEntropy(), scheme="forward", beta=beta).backward(net, x, y)
        errors.append(total_error({name: p.grad for name, p in net.named_parameters()}, exact))
    assert 1.8 < math.log2(errors[0] / errors[1]) < 2.2
    with pytest.raises(InputError, match="weights"):
        nudging.Stencil("wrong", (1.0, -1.0), (1.0, 1.0), order=2)


@pytest.mark.full
def test_figure_is_drawn_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registered figure is found, listed and drawn as ours are; nudges towards the target lower the cost."""
    from figures import catalogue, commands

    monkeypatch.setattr(catalogue, "_ADDED", [])
    example = load("figure", monkeypatch)
    catalogue.register_figure(example.ENTRY)
    commands.figure("nudged_costs", out=tmp_path, quiet=True)
    assert (tmp_path / "nudged_costs.png").is_file()
    assert (tmp_path / "nudged_costs.pdf").is_file()
    drawn = catalogue.find("nudged-costs").make(example.Request())
    assert (np.diff(drawn.data["costs"], axis=1) < 0).all()
