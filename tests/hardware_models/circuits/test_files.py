"""Netlists in the place of a system: if these fail, commands show a circuit what its file does not say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hardware_models import Circuit
from physics_ep import EquilibriumPropagation, SquaredError, load_system, open_run, train
from physics_ep.cli import main
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import estimate_gradient

LINES = """a circuit that learns
* inputs: vx2 Vx1
* outputs: y v(a,b)
Vdd vdd 0 1.2
Vx1 x1 0 0.3
Vx2 x2 0 0.1
R1 x1 a 10k
R2 x2 a 20k
R3 a 0 10k
R4 x1 b 15k
R5 b vdd 40k
{part}
R7 y 0 10k
R8 y vdd 100k
D1 y 0 dd
.model dd d(is=1e-9)
.end
"""


@pytest.mark.filterwarnings("ignore::hardware_models.circuits.active_phase.StabilityWarning")
@pytest.mark.parametrize("part", ["G1 0 y a b 0.2m", "R6 y a 15k"])
def test_inputs_are_the_sources_that_a_netlist_names(tmp_path: Path, part: str) -> None:
    """Breaks if a supply is taken for an input, or inputs for each other: against the circuit of all sources.

    With an active part the circuit has no energy, without one it has.
    """
    path = tmp_path / "net.cir"
    path.write_text(LINES.format(part=part))
    system, whole = load_system(path), Circuit.from_netlist(path)
    assert system.input_names == ("Vx2", "Vx1")
    x = torch.tensor([[0.4, -0.2], [0.1, 0.6]], dtype=torch.float64)
    every = torch.tensor([[1.2, -0.2, 0.4], [1.2, 0.6, 0.1]], dtype=torch.float64)
    y = torch.tensor([[0.1, 0.0], [0.2, -0.1]], dtype=torch.float64)
    ep = EquilibriumPropagation(SquaredError(), beta=1e-7)
    grads, step = estimate_gradient(ep, system, x, y)
    expected, other = estimate_gradient(EquilibriumPropagation(SquaredError(), beta=1e-7), whole, every, y)
    assert step.method == other.method == ("asymmetric" if part[0] == "G" else "energy")
    torch.testing.assert_close(step.outputs, other.outputs, rtol=1e-12, atol=1e-13)
    for name, gradient in expected.items():
        torch.testing.assert_close(grads[name], gradient, rtol=1e-6, atol=1e-12)
    point, own = system.operating_point(), whole.operating_point()
    assert system.node_voltages(point) == pytest.approx(whole.node_voltages(own), abs=1e-12)
    again = tmp_path / "again.cir"
    system.to_netlist(again)
    assert load_system(again).input_names == system.input_names


def run(*words: str) -> None:
    """A command that ends well."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 0


@pytest.mark.full
@pytest.mark.filterwarnings("ignore::hardware_models.circuits.active_phase.StabilityWarning")
def test_commands_take_netlists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if gradients, train or simulate take other inputs than the netlist's, or a trained circuit is lost."""
    monkeypatch.chdir(tmp_path)
    Path("net.cir").write_text(LINES.format(part="G1 0 y a b 0.2m"))
    run("gradients", "net.cir", "--min-cosine", "0.9999", "--quiet")
    run("simulate", "net.cir", "--out", "course.h5", "--duration", "1e-7", "--quiet")
    assert open_run("course.h5").trajectories["free"].state[0].shape[1] == 1  # the netlist's own values
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 1, (24, 2))
    y = np.stack([0.1 + 0.1 * x[:, 0], 0.2 * x[:, 1] - 0.1], 1)
    changes = ["training.epochs=4", "training.batch_size=6", "optimizer.name=SGD", "optimizer.lr=1e-9"]
    result = train("net.cir", data=(x, y), overrides=changes, out="run.h5")
    losses = result.metrics["loss"]
    assert losses[-1] < 0.9 * losses[0]
    trained = load_system("run.h5")
    assert trained.input_names == ("Vx2", "Vx1")
    assert not torch.equal(trained.conductance, load_system("net.cir").conductance)
    run("spice", "export", "run.h5", "learnt.cir", "--phase", "free", "--quiet")
    learnt = Circuit.from_netlist("learnt.cir")
    np.testing.assert_allclose(learnt.conductance.detach(), trained.conductance.detach(), rtol=1e-12)


def test_what_a_netlist_lacks_is_named(tmp_path: Path) -> None:
    """Breaks if a circuit without inputs or outputs learns something, or the message does not say which line."""
    path = tmp_path / "net.cir"
    text = LINES.format(part="R6 y a 15k")
    for given, said in (
        (
            text.replace("* inputs: vx2 Vx1\n", ""),
            r"must name its inputs .*comment line such as '\* inputs: Vx1 Vx2'",
        ),
        (text.replace("* outputs: y v(a,b)\n", ""), r"must name its outputs .*'\* outputs: y v\(a,b\)'"),
        (text.replace("vx2 Vx1", "x1"), r"must be voltage sources of it \(Vdd, Vx1, Vx2\), but one was 'x1'"),
        (text.replace("vx2 Vx1", "Vx1 vx1"), "inputs must be voltage sources, each once"),
    ):
        path.write_text(given)
        with pytest.raises(InputError, match=said):
            load_system(path)
