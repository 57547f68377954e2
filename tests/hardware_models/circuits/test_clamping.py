"""Outputs that are clamped: coupled learning (Stern, Hexner, Rocks and Liu 2021) on every system that can do it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import root

from hardware_models import AnalogHopfieldCircuit, Circuit, HopfieldNetwork, ResistiveNetwork, UnitGraph
from hardware_models.netlists.parts import GROUND, Part, Parts
from physics_ep import EnergySystem
from physics_ep.errors import InputError
from physics_ep.estimators.coupled_learning import CoupledLearning
from physics_ep.system import Phase
from tests.support.circuits import V, node_currents
from tests.support.systems import Quartic, batch
from tests.support.tiers import first

FRACTION = 0.25


def bench(hidden: str, held: tuple[float, float] | None = None) -> Parts:
    """A mesh with sources x0, x1 and outputs o0, o1; `held` puts further sources at the outputs."""
    rng = np.random.default_rng(3)
    names = ["x0", "x1", "h0", "h1", "h2", "o0", "o1", GROUND]
    parts = [V("x0", 0.0), V("x1", 0.0)]
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :] if not {a, b} <= {"x0", "x1", GROUND}]
    parts += [Part(f"R{k}", "resistor", pair, (10 ** rng.uniform(-4, -3),)) for k, pair in enumerate(pairs)]
    for j in range(3):
        nodes = (f"h{j}", GROUND) if j % 2 else (GROUND, f"h{j}")
        if hidden == "shockley":
            parts += [Part(f"D{j}", "diode", nodes, (1e-6, 1.5)), Part(f"M{j}", "memristor", nodes, (1e-4, 0.3))]
        elif hidden == "ideal":
            parts.append(Part(f"D{j}", "ideal_diode", nodes))
    for k, volts in enumerate(held or ()):
        parts.append(V(f"o{k}", volts))
    return Parts.collect(parts)


def clamped(system: EnergySystem, x: torch.Tensor, y: torch.Tensor, **options: object):
    """Gradients of coupled learning, and its step."""
    system.zero_grad()
    step = CoupledLearning(FRACTION, **options).backward(system, x, y)  # type: ignore[arg-type]
    return {n: p.grad for n, p in system.named_parameters()}, step


@pytest.mark.parametrize("hidden", ["linear", "shockley", "ideal"])
@pytest.mark.parametrize("solver", first(1, ["newton", "gradient_flow", "anderson"]))
def test_clamped_circuit_is_one_with_sources_at_its_outputs(hidden: str, solver: str) -> None:
    """Every solver: else Newton ends in a traceback, and descent calls the free state clamped."""
    if hidden == "shockley" and solver != "newton":
        pytest.skip("stiff: only Newton's method is meant for exponentials")
    circuit = Circuit(bench(hidden), outputs=["o0", "o1"])
    x, y = batch(2, 2, 3)
    _, step = clamped(circuit, x, y, solver=solver, max_iterations=20000)
    held = step.equilibria[1]
    wanted = step.outputs + FRACTION * (y - step.outputs)
    torch.testing.assert_close(circuit.outputs(held.state), wanted, rtol=0, atol=1e-14)
    found = circuit.voltages(held.state, x)
    for k in range(3):
        sourced = Circuit(bench(hidden, tuple(wanted[k].tolist())))
        volts = torch.cat([x[k], wanted[k]])[None]
        point = sourced.node_voltages(sourced.operating_point(volts).require())
        exact = torch.stack([point[name][0] for name in circuit.parts.nodes])
        torch.testing.assert_close(found[k], exact, rtol=0, atol=1e-8 if solver != "newton" else 1e-10)


def test_coupled_learning_of_a_nonlinear_circuit_by_kirchhoffs_law() -> None:
    """The contrast of halves of dissipated power, voltages by scipy from the parts alone: G's is v^2 / 2, a
    memristor's V0^2 (cosh(v / V0) - 1)."""
    parts = bench("shockley")
    circuit = Circuit(parts, outputs=["o0", "o1"])
    x, y = (0.3 * part for part in batch(2, 2, 3))
    grads, _ = clamped(circuit, x, y)
    nodes = list(parts.nodes)
    sources, outputs = [nodes.index("x0"), nodes.index("x1")], [nodes.index("o0"), nodes.index("o1")]

    def voltages(fixed: dict[int, float]) -> np.ndarray:
        free = [k for k in range(len(nodes)) if k not in fixed]
        v = np.zeros(len(nodes))
        v[list(fixed)] = list(fixed.values())

        def missing(u: np.ndarray) -> np.ndarray:
            v[free] = u
            return 1e4 * node_currents(parts, v)[free]

        assert np.abs(missing(root(missing, 0.1 * np.ones(len(free)), tol=1e-14).x)).max() < 1e-9
        return v.copy()

    wanted = 0.0
    for given, target in zip(x.tolist(), y.tolist(), strict=True):
        fixed = {nodes.index(GROUND): 0.0, **dict(zip(sources, given, strict=True))}
        free = voltages(fixed)
        held = dict(zip(outputs, (1 - FRACTION) * free[outputs] + FRACTION * np.array(target), strict=True))
        contrast = []
        for v in (voltages({**fixed, **held}), free):
            across = [v[g.nodes[:, 0]] - v[g.nodes[:, 1]] for g in map(parts.group, ("resistor", "memristor"))]
            contrast.append(np.concatenate([across[0] ** 2 / 2, 0.3**2 * (np.cosh(across[1] / 0.3) - 1)]))
        wanted = wanted + (contrast[0] - contrast[1]) / FRACTION / len(x)
    np.testing.assert_allclose(grads["conductance"].numpy(), wanted, rtol=1e-6, atol=1e-10)


def test_every_system_that_clamps_holds_its_outputs_where_they_belong() -> None:
    """A resistive network took the fraction for a conductance beside its own, a graph of units fell over."""
    edges = [(0, 2), (1, 2), (2, 3), (3, 4), (1, 4), (0, 3)]
    graphs = [
        UnitGraph.from_edges(5, edges, [0.3] * 6, unit, inputs=[0, 1], outputs=[3, 4])
        for unit in ("tanh", "hard_sigmoid", "linear")
    ]
    for system in (
        *graphs,
        ResistiveNetwork([2, 4, 2], scale=1.0).double(),
        HopfieldNetwork([2, 4, 2], "tanh").double(),
    ):
        x, y = batch(2, 2, 3)
        y = 0.5 + 0.1 * y
        _, step = clamped(system, x, y, tolerance=1e-9)
        wanted = step.outputs + FRACTION * (y - step.outputs)
        torch.testing.assert_close(system.outputs(step.equilibria[1].state), wanted, rtol=0, atol=1e-8)


def test_a_graph_learns_as_the_network_that_it_is() -> None:
    """The same network by another code: layers swept in turn, and nodes one by one."""
    network = HopfieldNetwork([3, 5, 2], "tanh", seed=1).double()
    x, y = batch(3, 2, 4)
    layers, _ = clamped(network, x, y, tolerance=1e-12)
    flat = torch.cat([layers[f"layers.{k}.weight"].flatten() for k in range(2)])
    graph, _ = clamped(network.to_circuit(), x, y, tolerance=1e-12)
    torch.testing.assert_close(graph["weight"], flat, rtol=1e-8, atol=1e-10)


def test_what_cannot_be_clamped_is_refused_by_name() -> None:
    """Outputs that cannot be clamped are named: a free or nudged state is never taken for a clamped one."""
    x, y = batch(2, 2, 3)
    far = Circuit(bench("ideal"), outputs=["o0", "h1"])
    with pytest.raises(InputError, match=r"'h1' of example \d would be held at .* V, against an ideal diode"):
        clamped(far, x, y + 50)
    parts = [V("x0", 0.0), Part("R1", "resistor", ("x0", "a"), (1e-3,)), Part("A", "amplifier", ("a", "b"), (2.0,))]
    tied = Circuit(Parts.collect([*parts, Part("R2", "resistor", ("b", GROUND), (1e-3,))]), outputs=["a", "b"])
    with pytest.raises(InputError, match="ties 'b' to another output"):
        clamped(tied, x[:, :1], y)
    active = Part("E1", "vcvs", ("b", GROUND, "a", GROUND), (2.0,))
    load = Part("R2", "resistor", ("b", GROUND), (1e-3,))
    driven = Circuit(Parts.collect([*parts[:2], active, load]), outputs=["b"])
    with pytest.raises(InputError, match=r"'b' is set by ideal sources already \(E1\)"):
        clamped(driven, x[:, :1], y[:, :1])
    bounded = UnitGraph.from_edges(3, [(0, 1), (1, 2)], [0.3] * 2, "tanh", inputs=[0], outputs=[2])
    with pytest.raises(InputError, match="within their units' bounds, -1 to 1"):
        clamped(bounded, x[:, :1], y[:, :1] + 50)
    analog = AnalogHopfieldCircuit.from_network(HopfieldNetwork([2, 4, 2]))
    with pytest.raises(InputError, match="to clamp its outputs, but AnalogHopfieldCircuit has none"):
        clamped(analog, x, y)

    class Own(Quartic):
        """With a phase of its own, which knows nothing of clamps: the flag is set, and wrong."""

        def phase(self, inputs, origin=None, balanced=False):
            return Phase(self, inputs, origin, balanced)

    class Deaf(Phase):
        def _cost_force(self, state):
            return tuple(torch.zeros_like(s) for s in state)

        def energy(self, z):
            return self.system.energy(self.state(z), self.x)

    class Quiet(Quartic):
        """Its phases hold nothing, without a word."""

        def phase(self, inputs, origin=None, balanced=False):
            return Deaf(self, inputs, origin, balanced)

    for system in (Own(), Quiet()):
        with pytest.raises(InputError, match="must hold its outputs in a clamped phase"):
            clamped(system, *batch(4, 2, 3), solver="gradient_flow")
