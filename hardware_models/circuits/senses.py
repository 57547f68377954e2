"""Bidirectional amplifiers that are drawn as two sources: a vcvs, and a cccs that senses its current.

The parts of a bidirectional amplifier of gain A (Kendall 2020) in any simulator are a vcvs E of gain A, a voltage
source V in series with its output, by which its current is known, and a cccs F that draws 1 / A of that current
from the node that controls E:

    E1 a 0 in 0 {A}          V on the side of the output, or    E1 out b in 0 {A}
    V1 a out 0               on that of ground                  V1 b 0 0
    F1 in 0 V1 {1/A}                                            F1 in 0 V1 {-1/A}

Signs may be spread over the three in any way. V may hold a voltage, which is then added to the output's, and A may
be negative. A circuit whose active parts are all of this form has an energy (`reduction`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..netlists.parts import CHANNELS, Parts

EXACT = 1e-9
"""How far the product of both gains may be from 1, as far as weights of stages may differ: decimals are rounded."""


@dataclass(frozen=True)
class Amplifier:
    """A bidirectional amplifier, v(output) = gain v(input) + sign times the voltage of a source.

    Attributes
    ----------
    name : str
        Name of the part, or of the vcvs.
    input, output : int
        Nodes.
    gain : float
    source : int
        Number of the voltage source that is added; -1 for none.
    sign : float
    """

    name: str
    input: int
    output: int
    gain: float
    source: int = -1
    sign: float = 0.0


def amplifiers(parts: Parts) -> tuple[list[Amplifier], frozenset[str]]:
    """Bidirectional amplifiers of a parts list, first those of their own kind, and names of the sources in them."""
    own = parts.group("amplifier")
    rows = zip(own.names, own.nodes.tolist(), own.values[:, 0].tolist(), strict=True)
    found = [Amplifier(name, first, second, gain) for name, (first, second), gain in rows]
    used: set[str] = set()
    currents, drawn = parts.group("vcvs"), parts.group("cccs")
    if not (len(currents) and len(drawn)):
        return found, frozenset()
    crowd = _crowd(parts)
    sources = parts.group("voltage_source")
    ends: dict[int, list[int]] = {}
    for k, pair in enumerate(sources.nodes.tolist()):
        for node in pair:
            ends.setdefault(node, []).append(k)
    sensed: dict[str, list[int]] = {}
    for k, name in enumerate(drawn.controls):
        sensed.setdefault(name, []).append(k)
    for name, nodes, factor in zip(
        currents.names, currents.nodes.tolist(), currents.values[:, 0].tolist(), strict=True
    ):
        high, low, plus, minus = nodes
        if (plus == 0) == (minus == 0) or not factor:
            continue
        control, gain = (plus, factor) if minus == 0 else (minus, -factor)
        for joint, other, way in ((high, low, 1.0), (low, high, -1.0)):  # v_high - v_low = gain v(control)
            if joint == 0 or crowd[joint] != 2 or len(ends.get(joint, ())) != 1:
                continue
            (k,) = ends[joint]
            first, second = sources.nodes[k].tolist()
            forth = 1.0 if first == joint else -1.0  # the source's current leaves the joint
            if other == 0:  # the output lies behind the source: what leaves the joint is delivered
                amplifier, delivered = Amplifier(name, control, joint, way * gain), forth
            elif 0 in (first, second):  # ground lies there: what leaves the joint has come from the output
                amplifier, delivered = Amplifier(name, control, other, -way * gain, k, forth), -forth
            else:
                continue
            drawing = _drawing(parts, sensed.get(sources.names[k], []), control, used)
            match = next((n for n, share in drawing if abs(share * amplifier.gain / delivered - 1) <= EXACT), None)
            if match is not None:
                used |= {name, match}
                found.append(amplifier)
                break
    return found, frozenset(used)


def _drawing(parts: Parts, candidates: list[int], node: int, used: set[str]) -> list[tuple[str, float]]:
    """Names of cccs between a node and ground, and what they draw from it over the current that they sense."""
    group = parts.group("cccs")
    found = []
    for k in candidates:
        ends, gain = group.nodes[k].tolist(), float(group.values[k, 0])
        if group.names[k] not in used and set(ends) == {node, 0}:
            found.append((group.names[k], gain if ends[0] == node else -gain))
    return found


def _crowd(parts: Parts) -> np.ndarray:
    """How many ends of parts that carry direct current meet at each node."""
    count = np.zeros(len(parts.nodes), dtype=np.int64)
    for kind, group in parts.groups.items():
        if kind != "capacitor":
            np.add.at(count, group.nodes[:, CHANNELS.get(kind, (0, 1))], 1)
    return count
