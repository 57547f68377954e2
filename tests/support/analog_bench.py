"""Analog circuits for the tests, with Kirchhoff's law written out in plain numpy."""

from __future__ import annotations

import numpy as np
import torch

from hardware_models import AnalogHopfieldCircuit
from physics_ep import Nudge, SquaredError
from tests.support.graphs import RandomGraph
from tests.support.systems import batch, network

KILO, PICO = 1e3, 1e-12


class Bench:
    """A random sparse circuit of mixed amplifiers, R, C and gain differing from node to node, in plain numpy."""

    def __init__(
        self,
        seed: int = 0,
        n: int = 24,
        kinds: tuple[str, ...] = ("tanh", "logistic", "linear"),
        strength: float = 0.9,
    ) -> None:
        graph = RandomGraph(seed, n, gain=1.0, kinds=kinds)
        rng = np.random.default_rng(seed + 1)
        free = len(graph.free)
        self.graph, self.supply = graph, 0.8
        self.resistance = 50 * KILO * rng.uniform(0.5, 1.0, free)
        self.capacitance = 0.1 * PICO * rng.uniform(0.5, 3.0, free)
        self.gain = rng.uniform(8.0, 12.0, free)
        sums = np.zeros(n)
        for end in graph.edges.T:
            np.add.at(sums, end, np.abs(graph.weights))
        self.weights = strength * graph.weights / (100 * KILO * sums.max())
        self.biases = 1e-6 * graph.biases
        self.x, self.y = self.supply * graph.x, self.supply * graph.y
        self.matrix = np.zeros((n, n))
        for w, (i, j) in zip(self.weights, graph.edges, strict=True):
            self.matrix[i, j] += w
            self.matrix[j, i] += w
        self.circuit = AnalogHopfieldCircuit.from_edges(
            n,
            graph.edges,
            self.weights,
            graph.units,
            inputs=graph.inputs,
            outputs=graph.outputs,
            biases=self.biases,
            resistance=self.resistance,
            capacitance=self.capacitance,
            supply=self.supply,
            gain=self.gain,
        )

    def volts(self, u: np.ndarray) -> np.ndarray:
        """Outputs of all nodes, (B, n)."""
        out = np.empty((len(u), self.graph.n))
        p = self.gain * u / self.supply
        out[:, self.graph.free] = self.supply * self.graph.response(p)
        out[:, self.graph.inputs] = self.x
        return out

    def current(self, u: np.ndarray, nudge: Nudge | None = None) -> np.ndarray:
        """What charges each capacitor, (B, n_free)."""
        v = self.volts(u)
        found = (v @ self.matrix)[:, self.graph.free] + self.biases - u / self.resistance
        if nudge is not None:
            at = [list(self.graph.free).index(k) for k in self.graph.outputs]
            found[:, at] += float(nudge.beta) * (nudge.y.numpy() - v[:, self.graph.outputs])
        return found

    def nudge(self, share: float = 0.5) -> Nudge:
        return Nudge(SquaredError(), self.y, share * self.circuit.nudge_scale)


def small(activation: str = "tanh") -> tuple[AnalogHopfieldCircuit, torch.Tensor, torch.Tensor]:
    x, y = batch(5, 3, 4)
    return AnalogHopfieldCircuit.from_network(network(activation, (5, 6, 4, 3))), x, y
