"""Parts of small circuits in one line each, and Kirchhoff's laws summed part by part, for the tests."""

from __future__ import annotations

import math

import numpy as np

from hardware_models.laws.elements import THERMAL_VOLTAGE
from hardware_models.netlists.parts import Part, Parts
from hardware_models.nodal.courses import CircuitTrajectory

KILO, MILLI, MICRO, NANO, PICO = 1e3, 1e-3, 1e-6, 1e-9, 1e-12


def circuit(*parts: tuple) -> Parts:
    """Parts of (name, kind, nodes, values, control)."""
    return Parts.collect([Part(*part) for part in parts])


def source(volts: float, node: str = "in") -> tuple:
    return ("V", "voltage_source", (node, "0"), (volts,))


def ohms(name: str, first: str, second: str, ohm: float) -> tuple:
    return (name, "resistor", (first, second), (1 / ohm,))


def violation(parts: Parts, v: dict[str, float], through: dict[str, float]) -> tuple[float, float]:
    """Largest violation of Kirchhoff's current law (A) and of a voltage law (V), summed part by part.

    v has the voltages of nodes by name; through has the currents of branches, and of capacitors where they count.
    """
    leaving, worst = dict.fromkeys(parts.nodes, 0.0), 0.0

    def flow(first: str, second: str, amperes: float) -> None:
        leaving[first] += amperes
        leaving[second] -= amperes

    for part in parts:
        a, b = part.nodes[:2]
        across, values = v[a] - v[b], part.values
        if part.kind == "resistor":
            flow(a, b, values[0] * across)
        elif part.kind == "memristor":
            flow(a, b, values[0] * values[1] * math.sinh(across / values[1]))
        elif part.kind == "diode":
            flow(a, b, values[0] * math.expm1(across / (values[1] * THERMAL_VOLTAGE)))
        elif part.kind == "piecewise_diode":
            flow(a, b, values[2] * across + values[0] * max(across - values[1], 0.0))
        elif part.kind == "current_source":
            flow(a, b, values[0])
        elif part.kind == "vccs":
            flow(a, b, values[0] * (v[part.nodes[2]] - v[part.nodes[3]]))
        elif part.kind == "cccs":
            flow(a, b, values[0] * through[part.control])
        elif part.kind == "amplifier":
            flow(b, "0", through[part.name])
            flow(a, "0", -through[part.name] / values[0])
            worst = max(worst, abs(v[b] - values[0] * v[a]))
        elif part.kind == "capacitor":
            flow(a, b, through.get(part.name, 0.0))
        elif part.kind == "ideal_diode":
            flow(a, b, through[part.name])
            assert across <= 1e-13
            assert through[part.name] >= -1e-16
            worst = max(worst, abs(min(-across, through[part.name] * KILO)))
        else:
            flow(a, b, through[part.name])
            wanted = values[0]
            if part.kind != "voltage_source":
                control = v[part.nodes[2]] - v[part.nodes[3]]
                wanted *= max(control, 0.0) if part.kind == "rectifier" else control
            worst = max(worst, abs(across - wanted))
    return max(abs(x) for node, x in leaving.items() if node != "0"), worst


def farads(name: str, first: str, second: str, farad: float) -> tuple:
    return (name, "capacitor", (first, second), (farad,))


def wave(*points: tuple[float, float]) -> tuple:
    """A voltage source with a waveform at node 'in'."""
    return ("V", "voltage_source", ("in", "0"), (0.0,), "", points)


def courses(course: CircuitTrajectory, node: str) -> tuple[np.ndarray, np.ndarray]:
    """Times and voltages of a node of the first example."""
    return course.time.numpy(), course.voltage(node)[:, 0].numpy()
