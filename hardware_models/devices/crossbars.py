"""Crossbars: what devices make of an array of signed weights.

A weight is a difference of two conductances,

    w = scale (G+ - G-),    G+ = g_min + max(w, 0) / scale,    G- = g_min + max(-w, 0) / scale,

with one scale for the array; a value that is not negative may be one cell instead (`programmed_singly`).

From target to cell: clipped to [g_min, g_max], the nearest level, programming noise,
gain mismatch, stuck cells, drift. Each draws from a stream of its own, one number a cell, whatever the others do:
instances of two devices that differ in one imperfection differ in nothing else, and a larger noise is the same
noise, larger.

Where several physical cells stand for one weight, each is written by itself (`programmed` with a key of its own),
or trimmed to the first (`trimmed`); `DeviceModel.copies` says which.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch

from physics_ep.errors import argument_error
from physics_ep.reads import read

from .model import DeviceModel

CHUNK = 2**20
"""Cells that are worked on at a time, in float64. Part of the draws: another size gives another instance."""

Streams = dict[str, torch.Generator]


def stream(seed: int, *keys: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """Make a generator of random numbers for one purpose in a device instance, shared with no other purpose.

    Parameters
    ----------
    seed : int
        Seed of the device instance, 0 or more.
    *keys : int or str
        Names of the purpose, such as an array and an imperfection of it. The keys (1, "2") and ("1", 2) are two
        purposes.
    device : str or torch.device
        Device that draws the numbers. Errors that an instance has for good are drawn on the CPU, so that they are
        the same everywhere; noise is drawn where it is added. Another device draws other numbers of the same law.

    Returns
    -------
    torch.Generator
        A generator on `device`, which depends on the seed and the keys alone, not on torch's own seed. torch takes
        32 bits of a seed, so that two of 1000 streams are equal once in 10^4 instances.

    Raises
    ------
    InputError
        If the seed is no integer of 0 or more.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise argument_error("seed", "be an integer of 0 or more", repr(seed))
    # Spelt out, since integers of SeedSequence run into one another: [2**32] and [0, 1] are the same to it.
    purpose = json.dumps([int(seed), *(k if isinstance(k, str) else int(k) for k in keys)])
    state = np.random.SeedSequence(list(purpose.encode())).generate_state(1)
    return torch.Generator(device).manual_seed(int(state[0]))


@dataclass(frozen=True)
class Cells:
    """Conductances of an array of signed weights.

    Attributes
    ----------
    plus, minus : Tensor
        S, of the weights' shape, dtype and device; 0 or more.
    scale : float
        Weight per siemens; 0 for an array without weights (all zero).
    """

    plus: torch.Tensor
    minus: torch.Tensor
    scale: float

    @property
    def values(self) -> torch.Tensor:
        """The weights that the pairs of cells make: scale (G+ - G-)."""
        return torch.sub(self.plus, self.minus).mul_(self.scale)


@dataclass(frozen=True)
class SingleCells:
    """Conductances of an array of values that are not negative, one cell a value.

    Attributes
    ----------
    conductances : Tensor
        S, of the values' shape, dtype and device; 0 or more.
    scale : float
        Value per siemens; 0 for an array without values (all zero).
    """

    conductances: torch.Tensor
    scale: float

    @property
    def values(self) -> torch.Tensor:
        """The values that the cells make: scale G."""
        return self.conductances * self.scale


def programmed(
    values: torch.Tensor, device: DeviceModel, seed: int, key: int | str, span: float | None = None
) -> Cells:
    """Write weights into a device instance.

    Parameters
    ----------
    values : Tensor
        Weights, of any shape; real.
    device : DeviceModel
    seed : int
        Seed of the instance. The same (device, seed, key) gives the same cells on any torch device, and in float32
        and float64 but for rounding.
    key : int or str
        Name of the array. Arrays of other names have other draws.
    span : float, optional
        Weight that a cell at g_max holds beside one at g_min; larger ones are clipped. Default the largest |w|.

    Returns
    -------
    Cells

    Raises
    ------
    InputError
        If span or seed is negative.

    Notes
    -----
    Memory: the two conductances, and some chunks of 2^20 cells. With an ideal device weights come back to rounding:
    some 1e-16 of the span in float64, 1e-7 in float32, times g_max / (g_max - g_min). No conductance is negative,
    so that noise larger than g_min lifts the mean of cells near it.
    """
    values = values.detach()
    scale = _span(values, span) / (device.g_max - device.g_min)
    plus, minus = (
        _written(values, sign, scale, device, {name: stream(seed, key, name, side) for name in DRAWS})
        for sign, side in ((1, "plus"), (-1, "minus"))
    )
    return Cells(plus, minus, scale)


def programmed_singly(
    values: torch.Tensor, device: DeviceModel, seed: int, key: int | str, span: float | None = None
) -> SingleCells:
    """Write values of 0 or more into a device instance, each into one cell: value = scale G.

    Parameters
    ----------
    values : Tensor
        Values to hold, of any shape; real. A cell cannot be less than g_min, so that 0 becomes scale g_min.
    device, seed, key
        The arguments of `programmed` of the same names; the cells are those that it would call 'plus'.
    span : float, optional
        Value that a cell at g_max holds; larger ones are clipped. Default the largest.

    Returns
    -------
    SingleCells

    Raises
    ------
    InputError
        If span or seed is negative.
    """
    values = values.detach()
    scale = _span(values, span) / device.g_max
    streams = {name: stream(seed, key, name, "plus") for name in DRAWS}
    return SingleCells(_written(values, 1, scale, device, streams, paired=False), scale)


def _span(values: torch.Tensor, span: float | None) -> float:
    if span is None:
        return largest_size(values)
    if not (math.isfinite(span) and span >= 0):
        raise argument_error("span", "be a finite number of 0 or more", span)
    return span


DRAWS = ("programming", "mismatch", "stuck", "drift")
"""Imperfections that are drawn once for each cell."""


@dataclass(frozen=True)
class Trimmed:
    """A copy of an array that was written and verified against the first.

    Attributes
    ----------
    cells : Cells
    writings : int
        Number of writings that it took, of all cells together.
    missed : int
        Cells that are not within the tolerance: stuck ones, and those that the attempts did not suffice for.
    """

    cells: Cells
    writings: int
    missed: int


def trimmed(
    first: Cells,
    device: DeviceModel,
    seed: int,
    key: int | str,
    turn: int = 0,
    before: tuple[Cells, Cells] | None = None,
) -> Trimmed:
    """Write a copy of an array, cell by cell, until each cell is close to the first array's.

    A cell is written again, with new programming noise, until its conductance is within `trim_tolerance` of
    (g_max - g_min) of that of the first array's cell, as both are read before they drift, or until it has been
    written `trim_attempts` times: then it stays as the last writing left it. The verification sees the gain factor
    of a cell, so that the state that is asked for is the wanted conductance over it, at the nearest level.

    Parameters
    ----------
    first : Cells
        The array that is copied, before it has drifted.
    device : DeviceModel
    seed : int
        Seed of the instance.
    key : int or str
        Name of the copy: its cells have gain factors, stuck cells and drift of their own.
    turn : int
        Times that the copy has been written before: each has noise of its own.
    before : (Cells, Cells), optional
        What the first array and the copy held the last time. Cells that are to hold what they held are not written.

    Returns
    -------
    Trimmed
        With cells that have drifted, each by itself.

    Notes
    -----
    The number of writings until the first success is geometric, and the error that is left is that part of a normal
    distribution that lies within the tolerance. One uniform number a cell for each of them therefore stands for all
    attempts, so that a copy takes as long as any array, whatever the number of attempts.
    """
    parts, writings, missed, span = [], 0, 0, device.g_max - device.g_min
    for side, wanted in (("plus", first.plus), ("minus", first.minus)):
        streams = {name: stream(seed, key, name, side) for name in DRAWS}
        lots = [stream(seed, key, name, side, turn) for name in ("verified", "attempts")]
        cells = torch.empty_like(wanted, memory_format=torch.contiguous_format)
        flat, source = cells.view(-1), wanted.detach().reshape(-1)
        for part in chunks(source):
            goal = source[part].to(torch.float64, copy=True)
            g, tries = _verified(goal, device, streams, lots)
            if before is not None:
                was, own = (getattr(b, side).reshape(-1)[part].to(goal) for b in before)
                g, tries = torch.where(was == goal, own, g), tries.masked_fill_(was == goal, 0)
            writings += int(tries.sum())
            # To the last digit of a cell.
            missed += int(((g - goal).abs() > device.trim_tolerance * span * (1 + 1e-6)).sum())
            flat[part] = _aged(g, device, streams)
        parts.append(cells)
    return Trimmed(Cells(parts[0], parts[1], first.scale), writings, missed)


def _verified(
    wanted: torch.Tensor, device: DeviceModel, streams: Streams, lots: Sequence[torch.Generator]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Conductances of a copy's cells after write and verify, and how often each was written."""
    span = device.g_max - device.g_min
    slack, size = device.trim_tolerance * span, device.programming_noise * span
    gain = torch.ones_like(wanted)
    if device.device_mismatch > 0:
        gain = normal(wanted, streams["mismatch"]).mul_(device.device_mismatch).exp_()
    state = levelled((wanted / gain).clamp_(device.g_min, device.g_max), device)
    tries = torch.ones_like(wanted)
    if size > 0:
        lot, count = (
            torch.rand(wanted.shape, generator=generator, dtype=torch.float64).to(wanted) for generator in lots
        )
        # Noise e of the last writing: gain (state + e) is within the slack of what is wanted, or it is any.
        low, high = (torch.special.ndtr(((wanted + sign * slack) / gain - state) / size) for sign in (-1.0, 1.0))
        chance = high - low
        # The attempt that succeeds first: P(more than n) = (1 - chance)^n.
        first = torch.where(chance < 1, (count.log() / torch.log1p(-chance)).ceil().clamp(min=1), 1.0)
        done = first <= device.trim_attempts
        tries = torch.where(done, first, float(device.trim_attempts))
        # One that fails is beyond the slack, on either side.
        below = low / (1 - chance)
        beyond = torch.where(lot < below, lot * (1 - chance), lot * (1 - chance) + chance)
        level = torch.where(done, low + lot * chance, beyond)
        noise = torch.special.ndtri(level.clamp(1e-300, 1 - 1e-16)) * size
        state = (state + noise).clamp_(min=0)
    g = _stuck(state * gain, device, streams)
    lost = (g - wanted).abs() > slack * (1 + 1e-6)
    return g, tries.masked_fill_(lost, device.trim_attempts)


def copied(cells: Cells, mismatch: float, generator: torch.Generator) -> Cells:
    """Copy an array by mirrors or a second crossbar, cell by cell.

    Parameters
    ----------
    cells : Cells
    mismatch : float
        Relative standard deviation. At 0 nothing is drawn.
    generator : torch.Generator
        Random generator on the CPU.

    Returns
    -------
    Cells
        Each conductance times 1 + mismatch N(0, 1), 0 or more.
    """
    if mismatch == 0:
        return cells
    plus, minus = (_varied(part, mismatch, generator) for part in (cells.plus, cells.minus))
    return Cells(plus, minus, cells.scale)


def fluctuated(cells: Cells, conductance_noise: float, generator: torch.Generator) -> Cells:
    """An array as it is in one phase: as `copied`, with noise."""
    return copied(cells, conductance_noise, generator)


def converted(values: torch.Tensor, bits: int | None, span: float | None = None) -> torch.Tensor:
    """Values after a uniform mid-tread converter, so that 0 is a level and both signs are alike.

    Parameters
    ----------
    values : Tensor
        Real.
    bits : int or None
        2^bits - 1 levels from -span to span. None: no converter.
    span : float, optional
        Values beyond +-span are clipped to it. Default the largest |value|.

    Returns
    -------
    Tensor
        The same tensor where there is no converter.
    """
    if bits is None:
        return values
    if span is None:
        span = largest_size(values)
    if span == 0:
        return torch.zeros_like(values)
    steps = 2 ** (bits - 1) - 1
    return (values / span).clamp_(-1, 1).mul_(steps).round_().div_(steps).mul_(span)


def tiles(rows: int, columns: int, device: DeviceModel) -> int:
    """Crossbars of the device's size that an array of rows by columns of cells takes."""
    return -(-rows // device.tile_rows) * -(-columns // device.tile_columns)


# -- cells, a chunk at a time -----------------------------------------------------------------------------------


def chunks(values: torch.Tensor) -> Iterator[slice]:
    """Slices by which a large flat array is worked on, a part at a time."""
    return (slice(start, start + CHUNK) for start in range(0, values.numel(), CHUNK))


def largest_size(values: torch.Tensor) -> float:
    """The largest |value| of a tensor; 0 of an empty one."""
    if not values.numel():
        return 0.0
    low, high = read(*values.detach().aminmax())
    return max(-low, high)


def _written(
    values: torch.Tensor, sign: int, scale: float, device: DeviceModel, streams: Streams, paired: bool = True
) -> torch.Tensor:
    """Conductances of the cells that hold the weights of one sign: above g_min, where a pair's other cell is."""
    cells = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    flat, source = cells.view(-1), values.reshape(-1)
    for part in chunks(source):
        # In float64, so that a weight takes the same level in every dtype.
        target = source[part].to(torch.float64, copy=True).mul_(sign).clamp_(min=0)
        target = target.zero_() if scale == 0 else target.div_(scale)
        g = target.add_(device.g_min if paired else 0.0).clamp_(device.g_min, device.g_max)
        flat[part] = _aged(_stuck(_noisy(levelled(g, device), device, streams), device, streams), device, streams)
    return cells


def levelled(g: torch.Tensor, device: DeviceModel) -> torch.Tensor:
    """The nearest level, as a write-verify loop would find it: by conductance, in either spacing."""
    if device.levels is None:
        return g
    intervals = device.levels - 1
    low, high = device.g_min, device.g_max
    if device.spacing == "linear":
        return g.sub_(low).mul_(intervals / (high - low)).round_().mul_((high - low) / intervals).add_(low)
    span = math.log(high / low)
    below = (g / low).log_().mul_(intervals / span).floor_().clamp_(0, intervals - 1)
    above = (below + 1).mul_(span / intervals).exp_().mul_(low)
    below = below.mul_(span / intervals).exp_().mul_(low)
    return torch.where(g - below <= above - g, below, above)


def _noisy(g: torch.Tensor, device: DeviceModel, streams: Streams) -> torch.Tensor:
    """Programming noise, additive, then the cell's gain factor."""
    if device.programming_noise > 0:
        size = device.programming_noise * (device.g_max - device.g_min)
        g = g.add_(normal(g, streams["programming"]), alpha=size).clamp_(min=0)
    if device.device_mismatch > 0:
        g = g.mul_(normal(g, streams["mismatch"]).mul_(device.device_mismatch).exp_())
    return g


def _stuck(g: torch.Tensor, device: DeviceModel, streams: Streams) -> torch.Tensor:
    """Cells that no pulse moves: one number a cell, its low end for those off, its high end for those on."""
    if device.stuck_off == 0 and device.stuck_on == 0:
        return g
    lot = torch.rand(g.shape, generator=streams["stuck"], dtype=torch.float32, device="cpu").to(g)
    g = g.masked_fill_(lot < device.stuck_off, device.g_min)
    return g.masked_fill_(lot >= 1 - device.stuck_on, device.g_max)


def _aged(g: torch.Tensor, device: DeviceModel, streams: Streams) -> torch.Tensor:
    """Drift: G (t / t0)^-nu from t0 on, with a nu of each cell's own (Le Gallo et al. 2018)."""
    if not device.drifted:
        return g
    age = math.log(device.drift_time / device.drift_reference)
    if device.drift_spread == 0:
        return g.mul_(math.exp(-device.drift_exponent * age))
    exponent = normal(g, streams["drift"]).mul_(device.drift_spread).add_(device.drift_exponent)
    return g.mul_(exponent.mul_(-age).exp_())


def _varied(conductances: torch.Tensor, size: float, generator: torch.Generator) -> torch.Tensor:
    varied = torch.empty_like(conductances, memory_format=torch.contiguous_format)
    flat, source = varied.view(-1), conductances.detach().reshape(-1)
    for part in chunks(source):
        g = source[part].to(torch.float64, copy=True)
        flat[part] = g.mul_(normal(g, generator).mul_(size).add_(1)).clamp_(min=0)
    return varied


def normal(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Normal random numbers, one for each entry of `like`, on its device: drawn in float32, on the generator's
    own.
    """
    return torch.randn(like.shape, generator=generator, dtype=torch.float32, device=generator.device).to(like)
