"""Modified nodal analysis: if these fail, circuits with active parts have operating points that are none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import lambertw

from hardware_models.laws.elements import THERMAL_VOLTAGE
from hardware_models.netlists.parts import Part, Parts
from hardware_models.nodal import equations as nodal_equations
from hardware_models.nodal import factors as nodal_factors
from hardware_models.nodal import points as mna
from hardware_models.nodal.points import operating_point
from physics_ep import Status
from physics_ep.errors import InputError
from tests.support.nodal import KILO, MILLI, circuit, ohms, source, violation


def voltages(parts: Parts, **options) -> dict[str, float]:
    """Node voltages of one operating point that must have converged."""
    found = operating_point(parts, **options)
    assert found.status is Status.CONVERGED
    assert found.residual.max() <= 1e-12
    return dict(zip(parts.nodes, found.voltages[0].tolist(), strict=True))


# -- closed forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [10.0, 1e3, 1e6])
def test_inverting_amplifier_of_finite_gain(gain: float) -> None:
    """v_out = -(R2 / R1) v / (1 + (1 + R2 / R1) / A): else a vcvs, or negative feedback, is wrong."""
    parts = circuit(
        source(0.3),
        ohms("R1", "in", "-", 2 * KILO),
        ohms("R2", "-", "out", 14 * KILO),
        ohms("RL", "out", "0", 1 * KILO),
        ("E", "vcvs", ("out", "0", "0", "-"), (gain,)),
    )
    exact = -7 * 0.3 / (1 + 8 / gain)
    assert voltages(parts)["out"] == pytest.approx(exact, rel=1e-13)


def test_transconductance_and_mirror() -> None:
    """SPICE's signs: a vccs and a cccs drive their current from the first node through themselves to the second."""
    parts = circuit(
        source(0.5),
        ("Vs", "voltage_source", ("m", "0"), (0.0,)),
        ohms("R1", "in", "m", 1 * KILO),
        ("F", "cccs", ("0", "mirror"), (3.0,), "Vs"),
        ohms("R2", "mirror", "0", 2 * KILO),
        ("G", "vccs", ("0", "g", "mirror", "in"), (2 * MILLI,)),
        ohms("R3", "g", "0", 5 * KILO),
    )
    v = voltages(parts)
    # 0.5 mA flows through Vs from m to ground; three times that into the mirror; G takes 2.5 V times 2 mS.
    assert v["mirror"] == pytest.approx(3.0, rel=1e-14)
    assert v["g"] == pytest.approx(2.5 * 2 * 5, rel=1e-14)


def test_bidirectional_amplifiers_in_a_chain() -> None:
    """A stage loads the one before with its own conductance, whatever the gain: it draws 1 / A of the current."""
    g1, g2, g3, a1, a2 = 1e-3, 3e-4, 2e-3, 4.0, 2.5
    parts = circuit(
        source(1.7),
        ("R1", "resistor", ("in", "1"), (g1,)),
        ("A1", "amplifier", ("1", "2"), (a1,)),
        ("R2", "resistor", ("2", "3"), (g2,)),
        ("A2", "amplifier", ("3", "4"), (a2,)),
        ("R3", "resistor", ("4", "0"), (g3,)),
    )
    v = voltages(parts)
    seen = g2 * g3 / (g2 + g3)
    first = 1.7 * g1 / (g1 + seen)
    assert v["1"] == pytest.approx(first, rel=1e-14)
    assert v["4"] == pytest.approx(a2 * a1 * first * g2 / (g2 + g3), rel=1e-14)


def test_rectifier_passes_positive_voltages_only() -> None:
    """v(out) = A max(v, 0), of differences and within a loop of feedback: else ReLU stages do something else."""
    parts = circuit(
        source(1.0),
        ("B", "rectifier", ("out", "0", "sum", "0"), (3.0,)),
        ohms("R1", "in", "sum", 1 * KILO),
        ohms("R2", "sum", "0", 1 * KILO),
        ohms("R3", "out", "sum", 4 * KILO),
    )
    found = operating_point(parts, [[1.0], [-1.0], [0.0]])
    out, middle = (found.voltages[:, parts.nodes.index(n)] for n in ("out", "sum"))
    # (v - s) / 1k = s / 1k + (s - A max(s, 0)) / 4k
    assert middle == pytest.approx([1 / (2.25 - 0.75), -1 / 2.25, 0.0], rel=1e-14)
    assert out == pytest.approx([3 / 1.5, 0.0, 0.0], rel=1e-14)


def test_diode_and_resistor_by_lambert() -> None:
    """From a millivolt to a kilovolt, either way: else junction limiting ends where no current fits."""
    saturation, emission, ohm = 1e-14, 1.3, 1 * KILO
    scale = emission * THERMAL_VOLTAGE
    parts = circuit(source(1.0), ohms("R", "in", "d", ohm), ("D", "diode", ("d", "0"), (saturation, emission)))
    volts = np.array([1e-3, 0.5, 0.7, 3.0, 12.0, -1e-3, -0.5, -12.0])
    found = operating_point(parts, np.append(volts, 1e3)[:, None])
    w = lambertw(saturation * ohm / scale * np.exp((volts + saturation * ohm) / scale)).real
    exact = scale * w / ohm - saturation
    assert found.converged.all()
    assert -found.currents[:-1, 0] == pytest.approx(exact, rel=1e-11, abs=1e-19)
    u = found.voltages[-1, 2]
    assert saturation * math.expm1(u / scale) == pytest.approx((1e3 - u) / ohm, rel=1e-12)


def test_a_source_straight_across_a_diode() -> None:
    """No node moves while the junction is limited: the current must be the law's, not the linearised one's."""
    parts = circuit(source(1.2), ("D", "diode", ("in", "0"), (1e-19, 1.0)))
    found = operating_point(parts)
    assert found.status is Status.CONVERGED
    assert -found.currents[0, 0] == pytest.approx(1e-19 * math.expm1(1.2 / THERMAL_VOLTAGE), rel=1e-13)


def test_ideal_diodes_switch() -> None:
    """A bridge and an OR gate, exact: else bounds are violated, or the current runs backwards."""
    bridge = circuit(
        ("V", "voltage_source", ("in", "g"), (3.0,)),
        ohms("Rs", "in", "a", 1 * KILO),
        ("D1", "ideal_diode", ("a", "p"), ()),
        ("D2", "ideal_diode", ("g", "p"), ()),
        ("D3", "ideal_diode", ("0", "a"), ()),
        ("D4", "ideal_diode", ("0", "g"), ()),
        ohms("RL", "p", "0", 2 * KILO),
    )
    found = operating_point(bridge, [[3.0], [-3.0], [0.0]])
    assert found.status is Status.CONVERGED
    assert found.voltages[:, bridge.nodes.index("p")] == pytest.approx([2.0, 2.0, 0.0], abs=1e-13)
    either = circuit(
        ("V1", "voltage_source", ("a", "0"), (0.0,)),
        ("V2", "voltage_source", ("b", "0"), (0.0,)),
        ("D1", "ideal_diode", ("a", "o"), ()),
        ("D2", "ideal_diode", ("b", "o"), ()),
        ohms("R", "o", "0", 1 * KILO),
    )
    volts = [[3.0, 1.0], [1.0, 2.0], [-1.0, -2.0]]
    found = operating_point(either, volts)
    assert found.voltages[:, either.nodes.index("o")] == pytest.approx([3.0, 2.0, 0.0], abs=1e-13)


def test_a_nudge_is_a_conductance_to_a_source() -> None:
    """By hand, for both signs: else nudged phases are of another circuit."""
    plain = circuit(source(2.0), ohms("R1", "in", "o", 1 * KILO), ohms("R2", "o", "0", 1 * KILO))
    for beta in (1e-4, -1e-4):
        v = voltages(plain, nudge=(["o"], [0.3], beta))
        assert v["o"] == pytest.approx((2.0 * MILLI + 0.3 * beta) / (2 * MILLI + beta), rel=1e-14)


# -- several solutions, and none ----------------------------------------------------------------------------------


def test_a_latch_has_three_operating_points() -> None:
    """A negative conductance between two diodes: which point is found depends on the start, and each is one."""
    latch = circuit(
        ohms("R", "a", "0", 1 * KILO),
        ("G", "vccs", ("0", "a", "a", "0"), (3 * MILLI,)),
        ("D1", "diode", ("a", "0"), (1e-14, 1.0)),
        ("D2", "diode", ("0", "a"), (1e-14, 1.0)),
    )
    exact = brentq(lambda v: 2e-14 * math.sinh(v / THERMAL_VOLTAGE) - 2 * MILLI * v, 0.4, 1.0, xtol=1e-15)
    found = [voltages(latch, start=[[0.0, v]])["a"] for v in (0.7, -0.7, 0.0)]
    assert found == pytest.approx([exact, -exact, 0.0], abs=1e-13)


def test_a_circuit_without_solution_says_so() -> None:
    """More current than a diode in reverse lets through: a state with its residual, never one that looks solved."""
    parts = circuit(("I", "current_source", ("a", "0"), (1 * MILLI,)), ("D", "diode", ("a", "0"), (1e-14, 1.0)))
    found = operating_point(parts, max_iterations=20)
    assert found.status in (Status.BUDGET, Status.NOT_FINITE)
    assert not found.converged.any()
    assert not found.residual.max() < 0.9 * MILLI


@pytest.mark.parametrize("budget", [6, 8])
def test_leaks_and_sources_lead_where_newton_alone_does_not(budget: int) -> None:
    """Too few iterations for a kilovolt at once, enough a step: else a hard start is given up."""
    parts = circuit(source(1e3), ohms("R", "in", "d", 1 * KILO), ("D", "diode", ("d", "0"), (1e-14, 1.0)))
    equations = nodal_equations.NodalEquations(parts)
    drive = equations.drive(np.array([[1e3]]))
    _, good, _ = mna.newton(equations, np.zeros((1, 4)), drive, max_iterations=budget)
    assert not good[0]
    u = voltages(parts, max_iterations=budget)["d"]
    assert 1e-14 * math.expm1(u / THERMAL_VOLTAGE) == pytest.approx((1e3 - u) / KILO, rel=1e-12)
    for path in (mna._less_leak, mna._more_drive):
        found, _ = path(equations, drive, 1e-12, 20)
        assert found is not None
        assert found[0, 2] == pytest.approx(u, rel=1e-13)


# -- against part by part -----------------------------------------------------------------------------------------


def mixed(n: int, seed: int) -> Parts:
    """A ladder of stages with all kinds of parts across it."""
    rng = np.random.default_rng(seed)
    parts = [
        Part("V1", "voltage_source", ("n1", "0"), (3.0,)),
        Part("V2", "voltage_source", ("n2", "n1"), (-1.0,)),
        Part("I1", "current_source", ("n3", "n2"), (2e-5,)),
    ]
    for k in range(2, n + 1):
        here, before = f"n{k}", f"n{k - 1}"
        far = f"n{rng.integers(1, k)}"
        parts.append(Part(f"R{k}", "resistor", (here, before), (10 ** rng.uniform(-5, -3),)))
        kind = ["diode", "piecewise_diode", "memristor", "vccs", "amplifier", "vcvs", "rectifier", "cccs"][k % 8]
        if kind == "diode":
            parts.append(Part(f"D{k}", kind, (here, far), (1e-14, 1.2)))
        elif kind == "piecewise_diode":
            parts.append(Part(f"P{k}", kind, (far, here), (1e-3, 0.3, 1e-9)))
        elif kind == "memristor":
            parts.append(Part(f"M{k}", kind, (here, "0"), (1e-5, 0.8)))
        elif kind == "vccs":
            parts.append(Part(f"G{k}", kind, (here, "0", here, far), (2e-5,)))
        elif kind == "cccs":
            parts.append(Part(f"F{k}", kind, (here, "0"), (0.1,), "V2"))
        else:
            parts.append(Part(f"L{k}", "resistor", (f"x{k}", here), (1e-4,)))
            nodes = (here, f"x{k}") if kind == "amplifier" else (f"x{k}", "0", here, far)
            parts.append(Part(f"A{k}", kind, nodes, (0.5,)))
    return Parts.collect(parts)


@pytest.mark.parametrize(("n", "dense"), [(12, True), (40, True), (40, False), (120, False)])
def test_random_circuits_meet_kirchhoffs_laws_part_by_part(n: int, dense: bool, monkeypatch) -> None:
    """Currents summed over parts one by one, with dense and with sparse factors: else the assembly is wrong."""
    monkeypatch.setattr(nodal_factors, "DENSE", 1000 if dense else 0)
    for seed in range(3):
        parts = mixed(n, seed)
        found = operating_point(parts)
        assert found.status is Status.CONVERGED
        v = dict(zip(parts.nodes, found.voltages[0].tolist(), strict=True))
        amperes, volts = violation(parts, v, dict(zip(found.branches, found.currents[0].tolist(), strict=True)))
        assert amperes <= 1e-12
        assert volts <= 1e-13
        assert found.residual[0] == pytest.approx(amperes, abs=1e-16)


def test_a_batch_is_its_rows() -> None:
    """Each row alone gives the same to rounding: else examples leak into each other."""
    parts = mixed(20, 5)
    volts = np.array([[3.0, -1.0], [0.2, 0.1], [-4.0, 2.0], [0.0, 0.0]])
    together = operating_point(parts, volts)
    assert together.converged.all()
    for row, alone in zip(together.voltages, (operating_point(parts, v[None]) for v in volts), strict=True):
        assert np.abs(row - alone.voltages[0]).max() <= 1e-13


def test_a_start_at_the_solution_stays_there() -> None:
    """Two iterations, to see that nothing moves: else a nudged phase would be begun anew."""
    parts = mixed(20, 6)
    found = operating_point(parts)
    again = operating_point(parts, start=found)
    assert again.iterations <= 2
    assert np.abs(again.voltages - found.voltages).max() <= 1e-14


# -- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([ohms("R", "a", "b", 1.0)], "Node 'a' (and 1 more) floats"),
        ([source(1.0), ("C", "capacitor", ("in", "x"), (1e-9,))], "Node 'x' floats"),
        (
            [
                source(1.0),
                ("I", "current_source", ("0", "x"), (1.0,)),
                ("C", "capacitor", ("x", "0"), (1e-9,)),
            ],
            "Node 'x' floats",
        ),
        (
            [
                ("V1", "voltage_source", ("a", "0"), (1.0,)),
                ohms("R", "a", "0", 1.0),
                ("V2", "voltage_source", ("b", "0"), (1.0,)),
                ("E", "vcvs", ("b", "a", "a", "0"), (1.0,)),
            ],
            "Ideal voltage sources form a loop: V2, V1, E;",
        ),
        (
            [
                ("I", "current_source", ("0", "a"), (1.0,)),
                ("R1", "resistor", ("a", "0"), (0.1,)),
                ("R2", "resistor", ("a", "0"), (0.2,)),
                ("G", "vccs", ("0", "a", "a", "0"), (0.3,)),
            ],
            "singular at node 'a'",
        ),
        (
            [source(1.0), ("G", "vccs", ("x", "0", "in", "0"), (1.0,)), ohms("R", "in", "0", 1.0)],
            "singular at node 'x'",
        ),
        ([source(1.0), ("V3", "voltage_source", ("in", "in"), (1.0,))], "form a loop: V3;"),
    ],
)
def test_circuits_that_cannot_be_solved_are_named(parts: list[tuple], said: str) -> None:
    """One clear line with the node or the parts; 0.1 + 0.2 - 0.3 S is no conductance, though not 0 in binary."""
    with pytest.raises(InputError) as error:
        operating_point(circuit(*parts))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sources": [[1.0, 2.0]]}, "Argument sources must have the shape (B, 1), but was (1, 2)."),
        ({"sources": [[math.nan]]}, "Argument sources must be finite"),
        ({"tolerance": -1.0}, "Argument tolerance must be positive, but was -1.0."),
        ({"max_iterations": 0}, "Argument max_iterations must be at least 1"),
        ({"start": [[0.0]]}, "Argument start must have the shape (1, 2)"),
        ({"nudge": (["outt"], [0.0], 1.0)}, "Argument node of nudge must be one of 0, in, but was 'outt'."),
        ({"nudge": (["in"], [0.0, 1.0], 1.0)}, "Argument targets of nudge must have the shape"),
        ({"nudge": 3.0}, "Argument nudge must be (node names"),
    ],
)
def test_bad_arguments(options: dict, said: str) -> None:
    """One line that names the argument, what it must be and what it was."""
    with pytest.raises(InputError) as error:
        operating_point(circuit(source(1.0), ohms("R", "in", "0", 1.0)), **options)
    assert said in str(error.value)
