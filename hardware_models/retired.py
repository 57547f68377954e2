"""Names of the release before, which nothing bears today; they go with the next one (`physics_ep.moved`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from physics_ep.nudging import Nudge
from physics_ep.predictive_coding.activations import Activation

from .circuits.circuit import Circuit
from .mapping.value_flow import ValueFlow
from .netlists.outputs import output_pairs
from .netlists.parts import Parts
from .oscillators.graph import OscillatorGraph
from .oscillators.network import OscillatorNetwork


def largest(block: torch.Tensor) -> torch.Tensor:
    """Largest |entry| of each row of a block (B, ...): (B,)."""
    return block.flatten(1).abs().amax(1)


def circuit_from_edges(cls: type[Circuit], *arguments: Any, **options: Any) -> Any:
    """The old name of `Circuit.from_edges`."""
    return cls.from_edges(*arguments, **options)


def circuit_from_networkx(cls: type[Circuit], graph: Any, **options: Any) -> Circuit:
    """The old name of `Circuit.from_networkx`."""
    return cls.from_networkx(graph, **options)


def from_layers(network: OscillatorNetwork) -> OscillatorGraph:
    """The old name of `OscillatorGraph.from_network`."""
    return OscillatorGraph.from_network(network)


def linear_nudge(nudge: Nudge, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The old name of `Nudge.linear`."""
    return nudge.linear(dtype)


def value_solvers(found: dict[str, Any]) -> dict[str, Any]:
    """Solvers of a phase with the flow of values in place of that of currents."""
    return {**found, "flow": ValueFlow}


def node_numbers(parts: Parts, names: Sequence[str], argument: str) -> np.ndarray:
    """Places of nodes in a parts list, by name: the first column of `netlists.outputs.output_pairs`."""
    return output_pairs(names, parts.nodes, argument)[1][:, 0]


def ones_like_row(rows: torch.Tensor) -> torch.Tensor:
    """A row of ones beside (B, n) rows: (1, n)."""
    return torch.ones_like(rows[:1])


DetunedClip = Activation


MOST_POINTS = 100_000
"""Points of a source in time that a netlist might have; sources in time are followed for any duration now."""


DIODE_DC = {"is": 1e-14, "n": 1.0, "eg": 1.11, "xti": 3.0}
"""Saturation current, emission coefficient, activation energy (eV) and temperature exponent, by default."""
DIODE_NEUTRAL = {
    *("cjo", "cj0", "cj", "tt", "vj", "pb", "m", "mj", "fc", "kf", "af", "cjp", "cjsw", "php", "mjsw", "fcs", "vp"),
}
