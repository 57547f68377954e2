"""Circuits of resistors and Shockley diodes on which simulators are compared, as parts lists with a fixed order.

Values are those of small analog memories: 1 to 100 microsiemens, log-uniform. Layered circuits have a pair of
diodes at every hidden node, from the node to a bias source and from another bias source to the node, which clamp it
softly to some 0.2 V around a centre of +0.15 V at even nodes and -0.15 V at odd ones: every layer then carries
current, however little of the input reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hardware_models.netlists.parts import GROUND, Group, Parts

CONDUCTANCE = (1e-6, 1e-4)
"""Siemens: least and largest of the learnt resistors."""
INPUT_VOLTS = 1.0
"""Inputs are uniform in +- this."""
CLAMP = {"saturation": 1e-10, "emission": 1.0, "centre": 0.15, "bias": 0.2}
"""Diode pairs: amperes, none, volts, and volts by which each bias source turns its diode on at the centre."""


def dense_layers(sizes: Sequence[int] = (100, 330, 330, 330, 10), seed: int = 0) -> Parts:
    """Layers joined all to all: 1000 free nodes and 254,100 resistors by default.

    Parameters
    ----------
    sizes : sequence of int
        The first layer is driven by voltage sources, the last is read and has no diodes.
    seed : int

    Returns
    -------
    Parts
        Nodes "n<layer>_<k>"; sources "Vin<k>" and four bias sources.
    """
    rng = np.random.default_rng(seed)
    starts = np.cumsum([1, *sizes])  # ground is node 0
    names = [GROUND, *(f"n{layer}_{k}" for layer, size in enumerate(sizes) for k in range(size))]
    blocks = []
    for layer in range(len(sizes) - 1):
        below, above = np.divmod(np.arange(sizes[layer] * sizes[layer + 1]), sizes[layer + 1])
        blocks.append(np.stack([starts[layer] + below, starts[layer + 1] + above], 1))
    edges = np.concatenate(blocks)
    hidden = np.arange(starts[1], starts[-2])
    bias = len(names) + np.arange(4)
    names += ["even_low", "even_high", "odd_low", "odd_high"]
    odd = (hidden - starts[1]) % 2
    diodes = np.empty((2 * len(hidden), 2), dtype=np.int64)
    diodes[0::2] = np.stack([hidden, bias[2 * odd]], 1)
    diodes[1::2] = np.stack([bias[2 * odd + 1], hidden], 1)
    centre = np.array([CLAMP["centre"], CLAMP["centre"], -CLAMP["centre"], -CLAMP["centre"]])
    offset = CLAMP["bias"] * np.array([-1.0, 1.0, -1.0, 1.0])
    driven = np.concatenate([np.arange(starts[0], starts[1]), bias])
    volts = np.concatenate([rng.uniform(-INPUT_VOLTS, INPUT_VOLTS, sizes[0]), centre + offset])
    labels = [*(f"Vin{k}" for k in range(sizes[0])), *(f"V{name}" for name in names[-4:])]
    sources = Group(tuple(labels), np.stack([driven, np.zeros_like(driven)], 1), volts[:, None])
    return Parts(
        tuple(names),
        {
            "voltage_source": sources,
            "resistor": _resistors(edges, _conductances(rng, len(edges))),
            "diode": _diodes(diodes, CLAMP["saturation"], CLAMP["emission"]),
        },
    )


def narrow_layers(width: int = 20, layers: int = 501, seed: int = 0) -> Parts:
    """`dense_layers` of one width: 10,000 free nodes and 200,000 resistors by default."""
    return dense_layers([width] * layers, seed)


def crossbar(rows: int = 71, columns: int = 70, wire: float = 2.5, seed: int = 0) -> Parts:
    """A crossbar with wire resistance: 9940 free nodes by default, two a crosspoint.

    Row wires are driven at their left end, column wires grounded at their lower end, each through one segment. At
    every crosspoint a resistor and a diode, in parallel, lead from the row's node to the column's. Rows are driven
    at 0.4 to 0.8 V, where diodes conduct up to thousands of times what resistors do; wires drop a good part of it.

    Parameters
    ----------
    rows, columns : int
    wire : float
        Ohm, between neighbouring nodes of a wire.
    seed : int

    Returns
    -------
    Parts
        Nodes "r<i>_<j>", "c<i>_<j>" and "in<i>"; sources "Vin<i>".
    """
    rng = np.random.default_rng(seed)
    inputs = 1 + np.arange(rows)
    row = 1 + rows + np.arange(rows * columns).reshape(rows, columns)
    column = row + rows * columns
    names = [GROUND, *(f"in{i}" for i in range(rows))]
    names += [f"{wire_kind}{i}_{j}" for wire_kind in "rc" for i in range(rows) for j in range(columns)]
    along_rows = np.concatenate([inputs[:, None], row], 1)
    along_columns = np.concatenate([column, np.zeros((1, columns), dtype=np.int64)], 0)
    wires = np.concatenate(
        [
            np.stack([along_rows[:, :-1].ravel(), along_rows[:, 1:].ravel()], 1),
            np.stack([along_columns[:-1].ravel(), along_columns[1:].ravel()], 1),
        ]
    )
    crossings = np.stack([row.ravel(), column.ravel()], 1)
    conductance = np.concatenate([np.full(len(wires), 1 / wire), _conductances(rng, len(crossings))])
    sources = Group(
        tuple(f"Vin{i}" for i in range(rows)),
        np.stack([inputs, np.zeros_like(inputs)], 1),
        rng.uniform(0.4, 0.8, (rows, 1)),
    )
    return Parts(
        tuple(names),
        {
            "voltage_source": sources,
            "resistor": _resistors(np.concatenate([wires, crossings]), conductance),
            "diode": _diodes(crossings, 1e-14, 1.0),
        },
    )


def _conductances(rng: np.random.Generator, count: int) -> np.ndarray:
    low, high = (float(np.log(g)) for g in CONDUCTANCE)
    return np.exp(rng.uniform(low, high, count))


def _resistors(edges: np.ndarray, conductance: np.ndarray) -> Group:
    return Group(tuple(f"R{k}" for k in range(len(edges))), edges, conductance[:, None])


def _diodes(edges: np.ndarray, saturation: float, emission: float) -> Group:
    values = np.tile([saturation, emission], (len(edges), 1))
    return Group(tuple(f"D{k}" for k in range(len(edges))), edges, values)
