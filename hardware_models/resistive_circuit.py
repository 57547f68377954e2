"""A deep resistive network as a list of parts, conductance by conductance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .arrays import array
from .parts import GROUND, Group, Parts

if TYPE_CHECKING:
    from .resistive import ResistiveNetwork


def as_parts(network: ResistiveNetwork) -> Parts:
    """Sources of +-x at 0 V, conductances, diodes, amplifiers and current sources of a network.

    Nodes: `xp1 ... xn1 ...` of the input, +x before -x; `h1_1 ...` of hidden layer 1, `a1_1 ...` behind its
    amplifiers where it has any; `y1 ...` of the outputs. Devices off (conductances of 0) are left out.

    Returns
    -------
    Parts
    """
    features, *hidden, outputs = network.sizes
    names = [f"{sign}{i}" for sign in ("xp", "xn") for i in range(1, features + 1)]
    below = np.arange(1, 2 * features + 1)
    groups = {
        "voltage_source": Group(tuple(f"V{name}" for name in names), _pairs(below, 0), np.zeros((2 * features, 1)))
    }
    node_names = [GROUND, *names]
    resistors: list[tuple[list[str], np.ndarray, np.ndarray]] = []
    diodes: list[tuple[list[str], np.ndarray]] = []
    sources: list[tuple[list[str], np.ndarray, np.ndarray]] = []
    amplifiers: list[tuple[list[str], np.ndarray]] = []
    for k, (layer, n) in enumerate(zip(network.couplings, (*hidden, outputs), strict=True), 1):
        last = k == len(network.couplings)
        prefix = "y" if last else f"h{k}_"
        here = len(node_names) + np.arange(n)
        node_names += [f"{prefix}{i}" for i in range(1, n + 1)]
        g = array(layer.conductance.double())
        above, under = np.nonzero(g)
        ends = np.stack([here[above], below[under]], 1)
        resistors.append(
            ([f"R{k}_{i + 1}_{j + 1}" for i, j in zip(above, under, strict=True)], ends, g[above, under])
        )
        if layer.bias is not None:
            names = [f"I{prefix}{i}" for i in range(1, n + 1)]
            sources.append((names, _pairs(np.zeros(n, np.int64), here), array(layer.bias.double())))
        if not last and network.diode != "none":
            up = array(network.signs(k)) > 0
            ground = np.zeros(n, np.int64)
            ends = np.where(up[:, None], _pairs(ground, here), _pairs(here, ground))
            diodes.append(([f"D{prefix}{i}" for i in range(1, n + 1)], ends))
        below = here
        if not last and network.gains[k] != 1:
            below = len(node_names) + np.arange(n)
            node_names += [f"a{k}_{i}" for i in range(1, n + 1)]
            amplifiers.append(([f"X{k}_{i}" for i in range(1, n + 1)], _pairs(here, below)))
    groups["resistor"] = _joined(resistors)
    if diodes:
        kind = "ideal_diode" if network.diode == "ideal" else "diode"
        values = () if network.diode == "ideal" else (network.saturation, network.emission)
        groups[kind] = _joined([(names, ends, np.tile(values, (len(names), 1))) for names, ends in diodes])
    if amplifiers:
        gain = network.gains[1]
        groups["amplifier"] = _joined([(names, ends, np.full(len(names), gain)) for names, ends in amplifiers])
    if sources:
        groups["current_source"] = _joined(sources)
    return Parts(tuple(node_names), groups)


def _pairs(first: np.ndarray, second: np.ndarray | int) -> np.ndarray:
    return np.stack(np.broadcast_arrays(first, second), 1).astype(np.int64)


def _joined(rows: list[tuple[list[str], np.ndarray, np.ndarray]]) -> Group:
    names = tuple(name for some, _, _ in rows for name in some)
    values = np.concatenate([v for _, _, v in rows]).astype(np.float64)
    return Group(names, np.concatenate([ends for _, ends, _ in rows]), values.reshape(len(names), -1))
