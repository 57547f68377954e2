"""Learning in circuits: EP against implicit differentiation and finite differences, and how circuits settle."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hardware_models import Circuit
from hardware_models.netlists.parts import GROUND, Part, Parts
from physics_ep import (
    CrossEntropy,
    EquilibriumPropagation,
    Nudge,
    SquaredError,
    centered,
    relax,
    simulate,
)
from physics_ep.cost import OutputForce
from physics_ep.estimators.methods import AsymmetryWarning
from physics_ep.estimators.propagation import NegativeNudgeError
from physics_ep.relaxation.loop import solve
from tests.support.circuits import R, V, node_currents
from validation import (
    check_system,
    finite_difference_gradient,
    gradient_report,
    implicit_gradient,
)


def learner(
    hidden: str = "diode",
    gain: float | None = None,
    factorization: str | None = None,
    outputs: tuple[str, str] = ("o0", "o1"),
) -> Circuit:
    """Layers 3-5-2 of resistors with a bias source; diodes, memristors or ideal diodes at hidden nodes.

    With a gain, bidirectional amplifiers lead from the hidden nodes to the second layer of resistors. Behind output
    o1 there is an amplifier of 1.5 to the loaded node q.
    """
    rng = np.random.default_rng(0)
    parts = [V(f"x{i}", 0.0) for i in range(3)] + [V("b", 0.1)]
    ends = [(f"x{i}", f"h{j}") for i in range(3) for j in range(5)] + [(f"h{j}", GROUND) for j in range(5)]
    above = "h" if gain is None else "k"
    ends += [(f"{above}{j}", f"o{k}") for j in range(5) for k in range(2)] + [(f"o{k}", GROUND) for k in range(2)]
    parts += [Part(f"R{k}", "resistor", pair, (10 ** rng.uniform(-4, -3),)) for k, pair in enumerate(ends)]
    for j in range(5):
        nodes = (f"h{j}", "b") if j % 2 else ("b", f"h{j}")
        if hidden == "diode":
            parts.append(Part(f"D{j}", "diode", nodes, (1e-6, 1.5)))
            parts.append(Part(f"M{j}", "memristor", (f"h{j}", GROUND), (1e-4, 0.3)))
        elif hidden == "ideal":
            parts.append(Part(f"D{j}", "ideal_diode", nodes))
        if gain is not None:
            parts.append(Part(f"A{j}", "amplifier", (f"h{j}", f"k{j}"), (gain,)))
    parts.append(Part("I", "current_source", (GROUND, "o0"), (1e-4,)))
    if "q" in outputs:
        parts.append(Part("Aq", "amplifier", ("o1", "q"), (1.5,)))
        parts.append(Part("Rq", "resistor", ("q", GROUND), (2e-4,)))
    return Circuit(Parts.collect(parts), outputs=outputs, factorization=factorization)


def examples(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(count, 4, generator=generator, dtype=torch.float64) - 1
    x[:, 3] = 0.1
    return x, 0.4 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 0.2


def relative(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    missed = sum(float((found[n] - wanted[n]).square().sum()) for n in wanted)
    return math.sqrt(missed / sum(float(w.square().sum()) for w in wanted.values()))


def gradient(
    circuit: Circuit, ep: EquilibriumPropagation, x: torch.Tensor, y: torch.Tensor
) -> dict[str, torch.Tensor]:
    circuit.zero_grad()
    ep.backward(circuit, x, y)
    return {n: p.grad for n, p in circuit.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "circuit",
    [
        learner("none"),
        learner("diode"),
        learner("diode", factorization="banded"),
        learner("diode", factorization="sparse"),
        learner("ideal"),
        learner("diode", gain=4.0),
        learner("diode", outputs=("o0", "q")),
    ],
    ids=["linear", "shockley", "banded", "sparse", "ideal", "amplifiers", "amplified output"],
)
def test_contract(circuit: Circuit) -> None:
    """Breaks if force, contrast, bounds, nudges or the order of EP do not belong to the energy."""
    check_system(circuit, *examples())


def test_shockley_gradient_is_of_second_order() -> None:
    """Breaks if a nudged phase or a contrast loses digits: slope 2.0 over decades, down to the residual."""
    circuit, (x, y) = learner("diode"), examples()
    exact = implicit_gradient(circuit, x, y, SquaredError())
    betas = [1e-2, 1e-3, 1e-4]
    errors = []
    for beta in (*betas, 1e-7):
        ep = EquilibriumPropagation(SquaredError(), centered(), beta * circuit.nudge_scale)
        errors.append(relative(gradient(circuit, ep, x, y), exact))
    for coarse, fine in itertools.pairwise(errors[:3]):
        assert abs(math.log10(coarse / fine) - 2) <= 0.1
    assert errors[2] <= 1e-7
    # Displacements a tenth of a millionth of the state still have their digits.
    assert errors[3] <= 1e-8
    report = gradient_report(circuit, x, y, SquaredError(), scheme=centered(), beta=1e-4 * circuit.nudge_scale)
    assert report.relative_error <= 1e-7


def test_amplifiers_weight_the_energy() -> None:
    """Breaks if the A^2 of the amplifiers downstream is not in the contrast: then it is 1 / A^2 of the gradient."""
    gain = 4.0
    circuit, (x, y) = learner("diode", gain), examples(3)
    exact = finite_difference_gradient(circuit, x, y, SquaredError(), step=1e-9)
    ep = EquilibriumPropagation(SquaredError(), centered(), 1e-4 * circuit.nudge_scale)
    assert relative(gradient(circuit, ep, x, y), exact) <= 1e-7
    plain = copy.deepcopy(circuit)
    plain._layout = replace(plain.layout, weight=np.ones_like(plain.layout.weight))
    phases = ep.backward(circuit, x, y).equilibria
    share = torch.full((3,), 1 / (2 * ep.beta * 3), dtype=torch.float64)
    up, down = (phase.displacement for phase in phases[1:])
    assert up is not None
    wrong = plain.contrast(phases[0].state, up, down, x, share)["conductance"]
    first = slice(0, 20)  # resistors before the amplifiers
    assert wrong[first] * gain**2 == pytest.approx(exact["conductance"][first], rel=1e-5, abs=1e-9)
    assert wrong[20:32] == pytest.approx(exact["conductance"][20:32], rel=1e-5, abs=1e-9)


def test_amplified_output() -> None:
    """Breaks if an output that follows its unknown by a factor is nudged, or read, without it."""
    circuit, (x, y) = learner("none", outputs=("o0", "q")), examples(3)
    volts = circuit.node_voltages(circuit.operating_point(x).require())
    free = relax(circuit, x)
    assert circuit.outputs(free.state)[:, 1].numpy() == pytest.approx(volts["q"].numpy(), rel=1e-12)
    assert volts["q"].numpy() == pytest.approx(1.5 * volts["o1"].numpy(), rel=1e-12)
    nudged = relax(circuit, x, Nudge(SquaredError(), y, 0.3 * circuit.nudge_scale), free.state)
    # All is linear: one step, and the one that certifies it.
    assert nudged.require().iterations <= 2
    exact = finite_difference_gradient(circuit, x, y, SquaredError(), step=1e-9)
    ep = EquilibriumPropagation(SquaredError(), centered(), 1e-4 * circuit.nudge_scale)
    assert relative(gradient(circuit, ep, x, y), exact) <= 1e-7


def test_residual_is_the_missing_current() -> None:
    """Breaks if the weights of stages are left in the residual, which is in amperes at the nodes themselves."""
    circuit, (x, _) = learner("diode", gain=4.0), examples(1)
    state = (
        0.2 * torch.randn(1, circuit.layout.n, generator=torch.Generator().manual_seed(3), dtype=torch.float64),
    )
    v = circuit.voltages(state, x).numpy()[0]
    leaving = dict(zip(circuit.parts.nodes, node_currents(circuit.parts, v), strict=True))
    # What an amplifier delivers to k, it draws a quarter of from h.
    wanted = [leaving[f"h{j}"] + leaving[f"k{j}"] / 4 for j in range(5)] + [leaving["o0"], leaving["o1"]]
    begun = relax(circuit, x, start=state, max_iterations=1)
    assert float(begun.residual_si) == pytest.approx(np.abs(wanted).max(), rel=1e-12)
    phase = circuit.phase(circuit.prepare(x))
    assert float(phase.residual(phase.force(state))) == pytest.approx(float(begun.residual), rel=1e-12)


def test_other_costs_and_schemes() -> None:
    """Breaks if the curvature of a cost that couples the outputs, or signs of its own an example, go wrong."""
    circuit, (x, _) = learner("diode"), examples()
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    exact = implicit_gradient(circuit, x, labels, CrossEntropy())
    ep = EquilibriumPropagation(CrossEntropy(), centered(), 1e-4 * circuit.nudge_scale)
    assert relative(gradient(circuit, ep, x, labels), exact) <= 1e-6
    # A strong nudge needs few steps only with the curvature in them.
    strong = relax(circuit, x, Nudge(CrossEntropy(), labels, 0.3 * circuit.nudge_scale), relax(circuit, x).state)
    assert strong.require().iterations <= 9
    y = examples()[1]
    exact = implicit_gradient(circuit, x, y, SquaredError())
    for scheme in ("random", "positive", "negative"):
        ep = EquilibriumPropagation(SquaredError(), scheme, 1e-6 * circuit.nudge_scale)
        assert relative(gradient(circuit, ep, x, y), exact) <= 1e-5


@pytest.mark.parametrize("hidden", ["diode", "ideal"])
def test_response_and_limit(hidden: str) -> None:
    """Breaks if the response in closed form is not what a small force does, or a nudge beyond the limit goes on."""
    circuit, (x, y) = learner(hidden), examples()
    free = relax(circuit, x)
    base = circuit.phase(circuit.prepare(x), origin=free.state, balanced=True)
    force = torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    push = 1e-9 * circuit.residual_scale
    found = solve(base.nudged(Nudge(OutputForce(), force, push)), tolerance=1e-21)
    assert found.displacement is not None
    answer = base.response(force)
    assert answer is not None
    assert answer.numpy() == pytest.approx((circuit.outputs(found.displacement) / push).numpy(), rel=1e-7)
    ep = EquilibriumPropagation(SquaredError(), "negative", "auto")
    ep.backward(circuit, x, y)
    with pytest.raises(NegativeNudgeError):
        EquilibriumPropagation(SquaredError(), "negative", 1.01 * ep.stability_limit).backward(circuit, x, y)
    near = EquilibriumPropagation(SquaredError(), "negative", 0.9 * ep.stability_limit)
    near.backward(circuit, x, y)


def test_nudge_is_a_conductance() -> None:
    """Breaks if a squared error is anything but a conductance beta to a source at the target."""
    circuit, (x, y) = learner("diode"), examples(1)
    beta = 0.2 * circuit.nudge_scale
    nudged = relax(circuit, x, Nudge(SquaredError(), y, beta), relax(circuit, x).state).require()
    extra = [V(f"y{k}", float(y[0, k])) for k in range(2)]
    extra += [Part(f"B{k}", "resistor", (f"y{k}", f"o{k}"), (beta,)) for k in range(2)]
    bench = Circuit(Parts.collect([*circuit.parts, *extra]))
    volts = bench.node_voltages(bench.operating_point(torch.cat([x, y], 1)).require())
    for name, value in circuit.node_voltages(nudged, x).items():
        assert float(value[0]) == pytest.approx(float(volts[name][0]), abs=1e-10)


def test_settling() -> None:
    """Breaks if a circuit does not fall to its operating point, or at another rate than its conductances over C."""
    circuit, (x, _) = learner("diode"), examples(2)
    course = simulate(circuit, x, duration=100 * circuit.time_constant)
    assert bool((course.energy.diff(dim=0) <= 1e-18).all())
    point = circuit.operating_point(x).require()
    assert course.state[0][-1].numpy() == pytest.approx(point.state[0].numpy(), abs=1e-7)
    divider = Circuit.from_edges(3, [(0, 1), (1, 2)], [3e-3, 1e-3], inputs=[0, 2], node_capacitance=1e-9)
    course = simulate(divider, torch.tensor([[1.0, 0.0]], dtype=torch.float64), duration=1e-6)
    wanted = 0.75 * (1 - np.exp(-course.time.numpy() * 4e-3 / 1e-9))
    assert course.state[0][:, 0, 0].numpy() == pytest.approx(wanted, abs=1e-5)


def test_learning_keeps_to_its_range() -> None:
    """Breaks if a conductance leaves [least, most] in training, or training does not lower the loss."""
    circuit, (x, y) = learner("diode"), examples()
    circuit.least, circuit.most = 5e-5, 2e-3
    ep = EquilibriumPropagation(SquaredError(), centered(), 1e-3 * circuit.nudge_scale)
    optimizer = torch.optim.Adam(circuit.parameters(), lr=1e-4)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(float(ep.backward(circuit, x, y).loss))
        optimizer.step()
        circuit.constrain()
    assert losses[-1] < 0.7 * losses[0]
    assert float(circuit.conductance.detach().min()) == 5e-5
    # What is written down is what was learnt.
    values = circuit.parts.group("resistor").values[:, 0]
    assert np.array_equal(values, circuit.conductance.detach().numpy()[: len(values)])


def test_automatic_beta_where_outputs_are_held() -> None:
    """Breaks if 50 mS, a beta for units of one, is put to microsiemens where no output answers: none is at rest."""
    parts = [V("s", 1.0), R("s", "q", 1e6), R("q", GROUND, 1e6), Part("D", "ideal_diode", ("q", GROUND))]
    circuit = Circuit(Parts.collect(parts), outputs="q")
    ep = EquilibriumPropagation(SquaredError(), beta="auto")
    one = torch.ones(1, 1, dtype=torch.float64)
    ep.backward(circuit, one, 0.3 * one)
    assert ep.beta == pytest.approx(0.05 * circuit.nudge_scale)
    assert (circuit.conductance.grad == 0).all()  # held at 0 V in all phases


def test_ordinary_ep_without_an_energy_says_how_biased_it_is() -> None:
    """Breaks if EP is let loose without a word on a circuit that has no energy, or not at all."""
    parts = [*learner("diode").parts, Part("E", "vcvs", ("e", GROUND, "o0", GROUND), (2.0,))]
    parts.append(Part("Re", "resistor", ("e", "h0"), (1e-4,)))
    circuit = Circuit(Parts.collect(parts), outputs=["o0", "o1"])
    x, y = examples()
    exact = implicit_gradient(circuit, x, y, SquaredError())
    with pytest.warns(AsymmetryWarning, match=r"biased on this ActiveCircuit.* is 0\.\d+"):
        EquilibriumPropagation(SquaredError(), beta=1e-8, method="energy").backward(circuit, x, y)
    biased = circuit.conductance.grad - exact["conductance"]
    assert float(biased.norm()) > 0.01 * float(exact["conductance"].norm())
    circuit.zero_grad()
    step = EquilibriumPropagation(SquaredError(), beta=1e-8).backward(circuit, x, y)
    assert step.method == "asymmetric"
    torch.testing.assert_close(circuit.conductance.grad, exact["conductance"], rtol=1e-5, atol=1e-9)
