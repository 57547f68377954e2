"""What a mapped network takes, row by row: joules an inference, a step of EP and an epoch, and square metres.

Energies are those of one example, of the machine whose settling times are reported: every position of a
convolution has an array of its own, and all of them conduct until the phase has settled. Cells dissipate V^2 G; of
a nudged phase the power is that of the free one, from which activities differ by an order of beta. Charging the
nodes' capacitors takes C V^2 a phase, which is what a node's conductance dissipates in one time constant, and is
left out. Areas are those of one array a layer, as cells are counted, and of all units.

A conversion of b bits takes 2^b steps (Walden 1999, IEEE J. Sel. Areas Commun. 17:539: energy a conversion over
2^bits is the figure of merit that converters are compared by).
"""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Self

from physics_ep.errors import argument_error
from physics_ep.maps import ConvLink

from ..devices.model import DeviceModel
from .board import Board
from .node_sums import arrays_of

ROWS = ("cells", "amplifiers", "buffers", "converters", "oscillators", "latches", "reads", "writes")


class Budget(float):
    """Energy or area: a number, the total, that also knows its rows (`budget["cells"]`, `budget.items()`).

    Parameters
    ----------
    unit : str
        'J' or 'm^2'.
    rows : dict of str to float
        What each kind of part takes, a row for each of `ROWS`; 0 where there are none. The number is their sum.
    not_counted : tuple of str
        Rows of which there are parts, but no figures of the device, for which 0 stands by choice.
    counted : tuple of str
        Rows of which there are parts with figures of the device, be what they take zero or not.

    Examples
    --------
    >>> energy = Budget("J", {"cells": 2e-9, "converters": 1e-9})
    >>> print(f"{energy:.1e} J, {energy['cells']:.1e} of them in cells")
    3.0e-09 J, 2.0e-09 of them in cells
    """

    unit: str
    rows: dict[str, float]
    not_counted: tuple[str, ...]
    counted: tuple[str, ...]

    def __new__(
        cls, unit: str, rows: dict[str, float], not_counted: tuple[str, ...] = (), counted: tuple[str, ...] = ()
    ) -> Self:
        """The number is the sum of the rows."""
        made = super().__new__(cls, math.fsum(rows.values()))
        made.unit, made.rows, made.not_counted, made.counted = unit, dict(rows), not_counted, counted
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:  # copies and pickles are made of the rows
        """The arguments that make the same budget."""
        return self.unit, self.rows, self.not_counted, self.counted

    def __repr__(self) -> str:
        """The total with its unit, and the rows that take something."""
        rows = ", ".join(f"{name} {value:.3g}" for name, value in self.rows.items() if value)
        return f"Budget({self.total:.4g} {self.unit}{': ' + rows if rows else ''})"

    def __getitem__(self, row: str) -> float:
        return self.rows[row]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def keys(self) -> KeysView[str]:
        """The names of the rows."""
        return self.rows.keys()

    def values(self) -> ValuesView[float]:
        """What the rows take, in the order of `keys`."""
        return self.rows.values()

    def items(self) -> ItemsView[str, float]:
        """Pairs of a row's name and what it takes."""
        return self.rows.items()

    @property
    def total(self) -> float:
        """The sum over all rows, a plain float."""
        return float(self)

    def figures(self) -> dict[str, object]:
        """The budget as `--json` writes it."""
        return {"unit": self.unit, **self.rows, "total": self.total, "not_counted": list(self.not_counted)}


@dataclass(frozen=True)
class PartCounts:
    """How many parts a mapped network has beside its cells.

    Attributes
    ----------
    amplifiers : int
        Those of the units h and u; outputs are read at their nodes, without one.
    buffers : int
        What drives the lines of arrays, and what takes their currents: rail buffers, virtual grounds with their
        mirrors.
    oscillators : int
    input_values, output_values : int
        Values of the network that are converted once an example, and that are read once an inference.
    states : int
        Activities and errors that a nudged phase reads.
    cells : int
        Physical cells that hold weights, which are written; without dummies.
    gates : int
        Latches that hold the gates of units h and u through nudged phases; 0 where gates are live.
    routes : int
        Latches that hold the routes of max poolings, one a switch, in all phases.
    """

    amplifiers: int = 0
    buffers: int = 0
    oscillators: int = 0
    input_values: int = 0
    output_values: int = 0
    states: int = 0
    cells: int = 0
    gates: int = 0
    routes: int = 0


def count_parts(board: Board) -> PartCounts:
    """Count the parts of a board: what all substrates have in the same way, and what it counts itself."""
    sizes = board.sizes
    cells = sum(2 * p.numel() * board.physical_arrays(name) for name, p in board.named_parameters())
    own = board.count_units()
    if board.device_model.auto_zero == "on":  # a store a unit, read through a buffer
        own["buffers"] = own.get("buffers", 0) + sum(sizes[1:])
    return PartCounts(
        **own,
        input_values=sizes[0],
        output_values=sizes[-1],
        states=2 * sum(sizes[1:]),
        cells=cells,
        gates=_gates(board),
        routes=_routes(board),
    )


def _gates(board: Board) -> int:
    """Latches of held gates: one for each unit h and one for each unit u of a layer that has kinks."""
    if board.gates != "held":
        return 0
    return 2 * sum(math.prod(layer.post) for layer in board.stack if layer.activation.gated)


def _routes(board: Board) -> int:
    """Latches of max poolings: one for each entry of each window, whose switch it holds for h and u."""
    links = [array.link for array in arrays_of(board.stack)]
    pooled = [link for link in links if isinstance(link, ConvLink) and link.pool is not None and link.routed]
    return sum(math.prod(link.pool.size) * math.prod(link.post) for link in pooled if link.pool is not None)


@dataclass(frozen=True)
class Takes:
    """What a mapped network takes in power and time, of which its budgets are made.

    Attributes
    ----------
    device : DeviceModel
    cell_power : float
        Dissipated by all cells (and leaks) in the free state, W an example.
    settling, nudged : float
        Seconds of a free and of a nudged phase.
    physical : int
        Physical cells, dummies included.
    parts : PartCounts
    """

    device: DeviceModel
    cell_power: float
    settling: float
    nudged: float
    physical: int
    parts: PartCounts

    def inference(self) -> Budget:
        """J an inference and example: one free phase, inputs converted, outputs read."""
        return self._energy(self.settling, self.parts.output_values, 0, latches=self.parts.routes)

    def step(self, examples: int = 1, updates: int = 1) -> Budget:
        """Energy that training by EP takes, joules, as a `Budget` with a row for each kind of part.

        An example takes a free phase and two nudged ones, the conversion of its inputs, and the reading of its
        outputs and of the states of both nudged phases. Its latches are set once, as the free phase ends.

        Parameters
        ----------
        examples : int
            Number of examples.
        updates : int
            How many times every cell is written: once for each batch.
        """
        reads, latches = self.parts.output_values + 2 * self.parts.states, self.parts.gates + self.parts.routes
        return self._energy(self.settling + 2 * self.nudged, reads, updates, examples, latches)

    def area(self) -> Budget:
        """m^2, of one array a layer and a converter for each input and for each unit, whose two states it reads in
        turn."""
        device, parts = self.device, self.parts
        units = parts.states // 2
        converters = parts.input_values * (device.dac_bits is not None) + units * (device.adc_bits is not None)
        return _budget(
            "m^2",
            cells=(self.physical, device.cell_area, 1.0),
            amplifiers=(parts.amplifiers, device.amplifier_area, 1.0),
            buffers=(parts.buffers, device.buffer_area, 1.0),
            converters=(converters or parts.input_values + units, device.converter_area * bool(converters), 1.0),
            oscillators=(parts.oscillators, device.oscillator_area, 1.0),
            latches=(parts.gates + parts.routes, device.latch_area, 1.0),
        )

    def _energy(self, seconds: float, reads: int, updates: int, examples: int = 1, latches: int = 0) -> Budget:
        device, parts, n = self.device, self.parts, examples
        steps = [
            (count, bits)
            for count, bits in ((parts.input_values, device.dac_bits), (reads, device.adc_bits))
            if bits is not None
        ]
        conversions = n * math.fsum(count * 2**bits for count, bits in steps)
        return _budget(
            "J",
            cells=(n, 1.0, self.cell_power * seconds),
            amplifiers=(n * parts.amplifiers, device.amplifier_power, seconds),
            buffers=(n * parts.buffers, device.buffer_power, seconds),
            converters=(conversions or n * reads, device.converter_energy * bool(steps), 1.0),
            oscillators=(n * parts.oscillators, device.oscillator_power, seconds),
            latches=(n * latches, device.latch_energy, 1.0),
            reads=(n * reads, device.read_energy, 1.0),
            writes=(updates * parts.cells, device.write_energy, 1.0),
        )


def _budget(unit: str, **rows: tuple[float, float, float]) -> Budget:
    """Rows of (number of parts, the device's figure of one, what that is multiplied with)."""
    found = dict.fromkeys(ROWS, 0.0)
    found |= {row: count * (each * times) if count else 0.0 for row, (count, each, times) in rows.items()}
    there = {row: each != 0 for row, (count, each, _) in rows.items() if count}
    return Budget(
        unit,
        found,
        tuple(row for row, counted in there.items() if not counted),
        tuple(row for row, counted in there.items() if counted),
    )


def epoch(takes: Takes, examples: int, batch: int) -> Budget:
    """J an epoch of EP over `examples`, in batches of `batch`, each of which ends with one writing of all cells."""
    for name, value in (("examples", examples), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise argument_error(name, "be an integer of 1 or more", repr(value))
    return takes.step(examples, math.ceil(examples / batch))
