"""How faithfully a substrate holds a network, and what each of its arrays takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch

from physics_ep.maps import ChannelLink, ConvLink, DenseLink
from physics_ep.predictive_coding.layers import told_name
from physics_ep.tabular import Tabular

from ..devices.crossbars import tiles
from ..devices.model import DeviceModel
from .board import Board
from .budget import Budget, Takes, epoch
from .dissipation import back_power, forward_power
from .node_sums import Array, arrays_of


@dataclass(frozen=True)
class LayerFidelity:
    """What one array of a mapped network takes.

    Attributes
    ----------
    name : str
        The network's parameter that it holds, biases in an extra row.
    label : str
        What it is called for a reader, by the layer's name in the model that it comes from.
    activation : str
        Activation of the units that it drives.
    weights, cells, tiles : int
        Weights and biases; physical cells, a conductance each, of all arrays that hold them (dummy ones of the
        substrate included); crossbars of the device's tile size for these.
    arrays : int
        Arrays of cells that hold each weight: a pair of conductances in each.
    positions : int
        Times that one example reads it: pixels of a convolution, which share it by time-multiplexing.
    full_scale : float
        Largest |activity| of the units that it drives.
    scale : float
        Weight per siemens.
    conductance_range : (float, float)
        Smallest conductance of a cell, and the largest that its weights ask for, S.
    power : float
        Dissipated by its cells (and leaks, and impedances of virtual grounds) in the free state, W an example, all
        positions together. A resistive layer's rails are counted with its own array, its skip's and biases'
        included.
    gain : float
        Largest of the rails at the nodes that it drives, volts a volt: A_k of a resistive network, else 1.
    capacitance : float
        Capacitance of a node that the array drives, F; with the node's conductance it makes the time constant. NaN
        for oscillators.
    line_voltage : float
        Largest voltage at full scale across the cells that meet at its nodes, V: of their lines, and of a resistive
        network's nodes beside.
    blocked : float
        What its rectifying units let through of a full scale that they should block, over what they let through of
        one that they should pass: 0 of ideal diodes, 1 where nothing is rectified; NaN of other units.
    total_conductance : float
        Total conductance of a node that it drives, S; NaN where nodes are virtual grounds or oscillators.
    negative_conductance : float
        Smallest leak that a network without rail gain would need at its nodes, S: negative where sums of weights
        exceed one; else 0.
    threshold_units : tuple of int
        Units that it drives, in flat order, that rest so near a threshold of their range that their rate is no
        measure of the network's; all examples together. Of oscillators.
    """

    name: str
    activation: str
    weights: int
    cells: int
    tiles: int
    positions: int
    full_scale: float
    scale: float
    conductance_range: tuple[float, float]
    power: float
    label: str = ""
    arrays: int = 1
    gain: float = 1.0
    capacitance: float = math.nan
    line_voltage: float = math.nan
    blocked: float = math.nan
    total_conductance: float = math.nan
    negative_conductance: float = 0.0
    threshold_units: tuple[int, ...] = ()

    @property
    def on_off_ratio(self) -> float:
        """Ratio of the largest to the smallest conductance of the layer's cells."""
        low, high = self.conductance_range
        return high / low if low > 0 else math.inf


@dataclass(frozen=True)
class Course:
    """What came of following a substrate in time, from rest, by its own dynamics (the solver 'flow').

    Attributes
    ----------
    settles : {'yes', 'no', 'not tried'}
        Whether all examples that were followed have settled.
    followed, settled : int
        Examples that were followed, and those that settled.
    tolerance : float
        Residual that counts as settled.
    seconds : float
        Time until the slowest of those that settled has done so, s, measured in the dynamics; NaN: none has.
    nudged_seconds : float
        The same of a phase nudged from their free states; NaN: one of the examples has not settled in both.
    solver : str
        Solver whose states these were held against: the default one, or algebra where that is 'flow' itself.
    found : int
        Examples for which it found a state.
    gap : float
        Largest difference of an activity between both, in full scales of its layer, over the examples that both
        have a state for; NaN: none.
    unsettled : tuple of int
        Examples that did not settle.
    verdicts : tuple of str
        What was certified of the states that `solver` found, and of algebra's where it found none, example by
        example: 'stable', 'unstable' or 'undecided' (`stability.certify`).
    growth, radius : float
        Rightmost eigenvalue's real part of the least stable of these, per time constant of h, and how far it may be
        off; NaN: there is none.
    """

    settles: str = "not tried"
    followed: int = 0
    settled: int = 0
    tolerance: float = math.nan
    seconds: float = math.nan
    nudged_seconds: float = math.nan
    solver: str = ""
    found: int = 0
    gap: float = math.nan
    unsettled: tuple[int, ...] = ()
    verdicts: tuple[str, ...] = ()
    growth: float = math.nan
    radius: float = math.nan

    @property
    def times_from(self) -> tuple[str, str]:
        """The way to the times of a free and of a nudged phase: 'measured', if all examples that were
        followed have settled, or 'formula'."""
        free = self.settles == "yes" and not math.isnan(self.seconds)
        nudged = free and not math.isnan(self.nudged_seconds)
        return "measured" if free else "formula", "measured" if nudged else "formula"


@dataclass(frozen=True, repr=False)
class Fidelity(Tabular):
    """How faithfully a substrate holds a network, and what it takes.

    Attributes
    ----------
    substrate : str
    exactness : str
        How exact the construction is with ideal devices: 'exact', or what bounds it.
    held : str
        What latches hold in nudged phases.
    free_state_error : float
        Largest |output - net(x)| over the largest |net(x)| (in units of activity where that is 0), on the
        calibration inputs; the devices' errors are in it.
    free_residual, free_converged : float, bool
        Residual of that free state, and whether it is an equilibrium. Where it is none, its error, times and
        energies are NaN.
    settling_time, nudged_settling_time : float
        Seconds to 1e-6, of the free phase from nothing and of a nudged phase, where each pixel of a convolution has
        a copy of its array. Reading one array in turn takes `positions` times as long, and `cells` are of one. They
        are measured where the substrate was followed in time and all examples settled (`settling_from`), else by
        formula. Energies are for these.
    formula_time, nudged_formula_time : float
        The same by formula (`PairedCircuit.settling_seconds`), an estimate.
    time_constant : float
        Time constant of the units h, s.
    time_from : {'the device', 'capacitance', 'assumed'}
        Origin of the time constant: `DeviceModel.time_constant`, its capacitances over conductances, or neither.
    takes : Takes
        Power, times and parts, of which the budgets of energy and area are made.
    layers : tuple of LayerFidelity
    free_share : float
        Share of the calibration inputs that have a free state.
    solver : str
        What found the free states: 'sweep', the algebra of the construction, or a course in time.
    course : Course
        What came of following it in time (`Mapped.follow`); 'not tried' before.
    copies : str
        What the physical cells of one weight have in common (`DeviceModel.copies`).
    writings, missed : int
        Writings that trimming the copies took, and cells that it left beyond the tolerance.
    unread : tuple of str
        Fields that the preset has set, and that the substrate does not read: it has no parts that they describe.
    """

    substrate: str
    exactness: str
    held: str
    free_state_error: float
    free_residual: float
    free_converged: bool
    settling_time: float
    nudged_settling_time: float
    formula_time: float
    nudged_formula_time: float
    takes: Takes = field(repr=False)
    layers: tuple[LayerFidelity, ...] = field(repr=False)
    time_constant: float = math.nan
    time_from: str = "assumed"
    free_share: float = math.nan
    solver: str = ""
    copies: str = "shared"
    writings: int = 0
    missed: int = 0
    unread: tuple[str, ...] = ()
    course: Course = field(default_factory=Course)

    @property
    def settling_from(self) -> tuple[str, str]:
        """The origin of the times of a free and of a nudged phase: 'measured' or 'formula'."""
        return self.course.times_from

    @property
    def settles(self) -> str:
        """Whether the substrate settles by its own dynamics: 'yes', 'no' or 'not tried'."""
        return self.course.settles

    @property
    def stable(self) -> bool | None:
        """Whether all states that `Mapped.follow` has certified are stable for the substrate's own dynamics; None:
        none was certified, or one of them is undecided and none is unstable."""
        verdicts = self.course.verdicts
        if "unstable" in verdicts:
            return False
        return True if verdicts and set(verdicts) == {"stable"} else None

    @property
    def eigenvalue(self) -> float:
        """Real part of the rightmost eigenvalue of the substrate's own dynamics, in 1/s, at the least stable of the
        certified states: negative where it is stable. NaN where none was certified."""
        return self.course.growth / self.time_constant

    @property
    def energy_per_inference(self) -> Budget:
        """J an example and inference, by rows: a free phase, its inputs converted and its outputs read."""
        return self.takes.inference()

    @property
    def energy_per_step(self) -> Budget:
        """J an example and step of EP, by rows: free phase, both nudged ones, readings, conversions, and one
        writing of every cell, as if the example were a batch."""
        return self.takes.step()

    def energy_per_epoch(self, examples: int, batch: int) -> Budget:
        """J an epoch of EP, by rows; every cell is written once a batch.

        Raises
        ------
        InputError
            If examples or batch is below 1.
        """
        return epoch(self.takes, examples, batch)

    @property
    def area(self) -> Budget:
        """Area of the hardware in m^2, by what takes it."""
        return self.takes.area()

    @property
    def energy(self) -> float:
        """J an inference and example, all rows of `energy_per_inference`."""
        return self.energy_per_inference.total

    @property
    def weights(self) -> int:
        """Number of weights and biases of the network."""
        return sum(layer.weights for layer in self.layers)

    @property
    def cells(self) -> int:
        """Physical cells, a conductance each, in all arrays."""
        return sum(layer.cells for layer in self.layers)

    @property
    def tiles(self) -> int:
        """Crossbars of the device's tile size."""
        return sum(layer.tiles for layer in self.layers)

    @property
    def conductance_range(self) -> tuple[float, float]:
        """Smallest and largest conductance of all arrays, S."""
        ranges = [layer.conductance_range for layer in self.layers]
        return min(low for low, _ in ranges), max(high for _, high in ranges)

    @property
    def on_off_ratio(self) -> float:
        """Ratio of the largest to the smallest conductance of all cells."""
        low, high = self.conductance_range
        return high / low if low > 0 else math.inf

    def words(self) -> list[str]:
        """How exact the substrate is, what it takes, and whether it is at rest."""
        return [
            self.substrate,
            f"outputs off by {self.free_state_error:.2g}",
            f"{self.cells} cells",
            f"settles in {self.settling_time:.2g} s",
            f"{self.energy:.2g} J an inference",
        ]

    def records(self) -> list[dict[str, Any]]:
        """The report as a table, one row for each array."""
        plain = (int, float, str, bool)
        return [{k: v for k, v in vars(layer).items() if isinstance(v, plain)} for layer in self.layers]

    def paper_rows(self) -> list[dict[str, Any]]:
        """A row an array by the name that the model has for it: units, cells, tiles, on/off ratio and power."""
        return [
            {
                "array": layer.label or layer.name,
                "units": layer.activation,
                "cells": layer.cells,
                "tiles": layer.tiles,
                "on/off": layer.on_off_ratio,
                "power (W)": layer.power,
            }
            for layer in self.layers
        ]

    def figures(self) -> dict[str, Any]:
        """The report's figures as `--json` writes them."""
        totals = {name: getattr(self, name) for name in ("weights", "cells", "tiles", "on_off_ratio")}
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("layers", "takes")}
        budgets = {
            name: getattr(self, name).figures() for name in ("energy_per_inference", "energy_per_step", "area")
        }
        layers = [asdict(layer) for layer in self.layers]
        own |= {"course": asdict(self.course), "settles": self.settles}
        own |= {"stable": self.stable, "eigenvalue": self.eigenvalue}
        own["settling_from"] = dict(zip(("free", "nudged"), self.settling_from, strict=True))
        totals |= {"conductance_range": list(self.conductance_range), "energy": self.energy}
        return {**own, "layers": layers, **totals, **budgets, "parts": asdict(self.takes.parts)}


class ToldByFidelity(Tabular):
    """Base class of results that hold a report of a mapping, `fidelity`: their table is the report's, a row for
    each array."""

    @property
    def fidelity(self) -> Fidelity:
        """The report of the mapping."""
        raise NotImplementedError

    def records(self) -> list[dict[str, Any]]:
        """The arrays as a table, one row for each, as of the fidelity."""
        return self.fidelity.records()

    def paper_rows(self) -> list[dict[str, Any]]:
        """The arrays with what a paper needs of them, as of the fidelity."""
        return self.fidelity.paper_rows()


def array_rows(
    board: Board,
    x: torch.Tensor,
    activities: Sequence[torch.Tensor],
    described: Sequence[Mapping[str, Any]],
    errors: Sequence[torch.Tensor] | None = None,
) -> tuple[LayerFidelity, ...]:
    """What each array of a mapped network takes, on inputs x (B, ...) with these activities of its units h, and
    what is fed back of their errors h - u (None: nothing); `described` as `PairedCircuit.describe` has it. What is
    said of a layer's nodes stands with its own array, not with that of its skip."""
    device, found = board.device_model, []
    states = [board.encode(x), *activities]
    grounds = board.ground_power(x, activities, errors)
    routes = [None] * board.depth if errors is None else board.run(x).routes
    for name, k, part, link, source in arrays_of(board.stack):
        if link is None or source is None:
            continue
        layer = board.stack[k]
        weight = getattr(layer, part).detach()
        bias = layer.bias if part == "weight" else None
        count = weight.numel() + (0 if bias is None else bias.numel())
        scale = board.scales[name]
        volume = 0.0 if bias is None else float(bias.detach().abs().max())
        bias_scale = board.scales.get(f"layers.{k}.bias", 0.0)
        sizes = weight.abs() / scale if scale > 0 else torch.zeros_like(weight)
        # Errors of writing may lie beyond, and are not asked for.
        high = device.g_min + max(float(sizes.max()), volume / bias_scale if bias_scale > 0 else 0.0)
        high = min(high, device.g_max)
        array = Array(name, k, part, link, source)
        volts = states[source + 1] * (device.voltage / board.full_scales[source + 1])
        places = link.image if isinstance(link, ConvLink) else link.pre[1:]
        positions = 1 if isinstance(link, DenseLink) else math.prod(places)
        blocks = link.groups if isinstance(link, ConvLink) else link.pre[0] if isinstance(link, ChannelLink) else 1
        told = described[k]
        if "power" in told:  # of all that drives the layer
            power = told["power"] if part == "weight" else 0.0
        else:
            power = forward_power(link, board.drains(name), volts * board.line_gain(array))
            if bias is not None:
                constant = device.voltage * board.line_gain(Array(f"layers.{k}.bias", k, "bias", None, None))
                # Of an average pooling's window each position has a share, of its bias cells too.
                rows = positions if link.routed else math.prod(link.post[1:])
                power += float(board.drains(f"layers.{k}.bias")) * constant**2 * rows
            if errors is not None and array.fed is not None:
                driven = errors[k] * (board.line_gain(array, back=True) * device.voltage / board.full_scales[k + 1])
                power += back_power(link, board.back_drains(name), driven, routes[k])
            if part == "weight":
                power -= grounds[k]
        arrays, biases = board.physical_arrays(name), 0 if bias is None else bias.numel()
        columns = 2 * weight.shape[0]
        more = board.physical_arrays(f"layers.{k}.bias") if biases else 0
        dummies = board.dummies(name)
        found.append(
            LayerFidelity(
                name=name,
                label=told_name(board.stack, name),
                activation=layer.activation_name,
                weights=count,
                cells=2 * (weight.numel() * (arrays + dummies) + biases * more),
                # A bias row stands in the arrays that it drives.
                tiles=more * block_tiles(blocks, link.fan_in + 1, columns // blocks, device)
                + max(arrays - more, 0) * block_tiles(blocks, link.fan_in, columns // blocks, device),
                arrays=arrays,
                positions=positions,
                capacitance=board.tau * g if (g := board.conductance(k)) > 0 else math.nan,
                line_voltage=board.cell_voltage(k),
                blocked=_blocked(board, k),
                full_scale=board.full_scales[k + 1],
                scale=scale,
                conductance_range=(device.g_min, high),
                **{**(told if part == "weight" else {}), "power": power},
            )
        )
    return tuple(found)


def _blocked(board: Board, k: int) -> float:
    """`LayerFidelity.blocked` of layer k, the mean of its units h."""
    if board.stack[k].activation_name not in ("relu", "diode"):
        return math.nan
    full = torch.full((1, *board.stack[k].post), board.full_scales[k + 1], dtype=board.dtype, device=board.device)
    respond = board.amplifiers_h[k].activation.response
    return float((respond(-full).abs() / respond(full).abs()).mean())


def block_tiles(blocks: int, rows: int, columns: int, device: DeviceModel) -> int:
    """Tiles that blocks of so many rows and columns take, in which no two share a line: groups of channels stand on
    the diagonal of tiles, as many in one as fit."""
    if blocks == 1:
        return tiles(rows, columns, device)
    fit = min(device.tile_rows // rows, device.tile_columns // columns)
    return math.ceil(blocks / fit) if fit else blocks * tiles(rows, columns, device)
