"""Cells that learn: conductances moved by voltage pulses, in steps that depend on where a cell stands.

With x = (G - g_min) / (g_max - g_min), a pulse up and a pulse down move a cell by

    up:  x += a_u (c_u - x)        down:  x -= a_d (c_d - (1 - x))        c = 1 / (1 - e^-nu)

with a_u = 1 - e^(-nu_u / N), so that N pulses up take it from 0 to 1 along (1 - e^(-nu n / N)) / (1 - e^-nu)
(Chen, Peng, Yu 2018, IEEE TCAD 37:3067), down along its mirror image, and a_d such that steps at mid range have the
ratio 1 + asymmetry. n pulses in a row are one step with 1 - a -> (1 - a)^n. Up and down steps are equal at the
symmetric point, to which alternating pulses pull a cell (Gokmen & Haensch 2020, Front. Neurosci. 14:103).

A wanted change of a weight becomes a whole number of pulses

    'accumulated'  by a digital sum that is kept for each weight, of which what makes up whole steps is spent
                   (Nandakumar et al. 2020, Front. Neurosci. 14:406)
    'stochastic'   by rounding at random, up as often as its remainder says; nothing is kept (Gokmen & Vlasov 2016,
                   Front. Neurosci. 10:333)

How imperfections act while learning: a cell's gain factor, whether it is stuck, and the size of its steps belong to
the instance; programming noise is an error of the state in which a cell was left, and is drawn anew each
time the cell is moved; pulse noise adds up from pulse to pulse. Without `pulses` a pulse moves a cell by one of its
`levels`, which with equal steps stay what they are, as by program and verify; without levels either, cells go as
far as is wanted. With both, `levels` are those of the first writing alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from physics_ep.errors import argument_error, unknown_name

from .crossbars import Cells, SingleCells, chunks, largest_size, levelled, normal, stream
from .model import PULSES, DeviceModel

RULES = ("accumulated", "stochastic")
SIDES = ("single", "up")
SIGNS = {"plus": 1, "minus": -1}


@dataclass(frozen=True)
class Steps:
    """How pulses move a cell, as fractions of its range.

    Attributes
    ----------
    count : float or None
        Pulses that take a cell from end to end; None: cells go as far as is wanted.
    decay_up, decay_down : float
        -log(1 - a): a cell's distance from where pulses would lead it in the end decays so a pulse. 0: equal steps.
    end_up, end_down : float
        c, that distance from the end where pulses begin; infinite where steps are equal.
    ratio : float
        A step down over 1 / count, where steps are equal.
    """

    count: float | None
    decay_up: float
    decay_down: float
    end_up: float
    end_down: float
    ratio: float

    def up(self, x: torch.Tensor, pulses: torch.Tensor) -> torch.Tensor:
        """Positions in [0, 1] of cells at x in [0, 1] after `pulses` up (0 or more, may be fractions)."""
        if self.decay_up == 0:
            return x + pulses / (self.count or 1)
        return x - (self.end_up - x) * torch.expm1(-self.decay_up * pulses)

    def down(self, x: torch.Tensor, pulses: torch.Tensor) -> torch.Tensor:
        """Positions in [0, 1] of cells at x in [0, 1] after `pulses` down (0 or more, may be fractions)."""
        if self.decay_down == 0:
            return x - pulses * (self.ratio / (self.count or 1))
        return x + (self.end_down - (1 - x)) * torch.expm1(-self.decay_down * pulses)

    @property
    def symmetric_point(self) -> float:
        """x at which a pulse up and one down are equally large; NaN if nowhere, or everywhere."""
        at = torch.tensor([0.0, 1.0], dtype=torch.float64)
        one = torch.ones(2, dtype=torch.float64)
        # Steps are linear in x.
        gap = (self.up(at, one) - at) - (at - self.down(at, one))
        low, high = gap.tolist()
        return low / (low - high) if low * high < 0 else math.nan


def steps_of(device: DeviceModel, count: float | None = None) -> Steps:
    """Steps of a device's cells.

    Parameters
    ----------
    device : DeviceModel
    count : float, optional
        Number of pulses that replaces its `pulses`; for fits, any number above 0.

    Raises
    ------
    InputError
        If steps down would be larger than what is left.
    """
    if count is None:
        count = device.pulses if device.pulses is not None or device.levels is None else device.levels - 1
    if count is None:
        return Steps(None, 0.0, 0.0, math.inf, math.inf, 1.0)
    nu_up, nu_down = device.pulse_nonlinearity_up, device.pulse_nonlinearity_down
    middle_up = 1 / count if nu_up == 0 else -math.expm1(-nu_up / count) * (_end(nu_up) - 0.5)
    middle_down = middle_up * (1 + device.pulse_asymmetry)
    decay_down = 0.0
    if nu_down != 0:
        share = middle_down / (_end(nu_down) - 0.5)
        if share >= 1:
            raise argument_error("pulse_asymmetry", "leave steps down within the range", device.pulse_asymmetry)
        decay_down = -math.log1p(-share)
    return Steps(count, nu_up / count, decay_down, _end(nu_up), _end(nu_down), middle_down * count)


def _end(nonlinearity: float) -> float:
    return math.inf if nonlinearity == 0 else -1 / math.expm1(-nonlinearity)


class PulsedArray:
    """An array of signed weights whose cells are moved by pulses.

    Parameters
    ----------
    values : Tensor
        Weights that are written first, as `crossbars.programmed` would.
    device : DeviceModel
        Without drift, and with levels in equal steps.
    seed, key : int, str
        Seed of the instance and key of the array, as in `crossbars.programmed`: the cells are the same.
    span : float, optional
        Weight that a cell at g_max holds beside one at g_min. Default the largest |w|.
    rule : {'accumulated', 'stochastic'}
        How wanted changes become pulses.
    side : {'single', 'up'}
        Which cells of a pair are moved: the one that is above g_min goes down before the other goes up; or only
        upwards, and pairs of which one cell would go beyond its end are first written anew with their difference,
        the other cell at g_min.
    signed : bool
        Whether a weight is a pair of cells. If not, values are 0 or more, each is one cell as
        `crossbars.programmed_singly` writes it, and `span` is what a cell at g_max holds.

    Attributes
    ----------
    scale : float
        Weight per siemens.
    pulses, refreshes : int
        Spent since the first writing: pulses (without `pulses` and levels, cells written), and pairs written anew.

    Raises
    ------
    InputError
        If an argument is not as above, or the device has a field under which cells cannot learn.
    """

    def __init__(
        self,
        values: torch.Tensor,
        device: DeviceModel,
        seed: int,
        key: str,
        span: float | None = None,
        *,
        rule: str = "accumulated",
        side: str = "single",
        signed: bool = True,
    ) -> None:
        if rule not in RULES:
            raise unknown_name("rule", rule, RULES)
        if side not in SIDES:
            raise unknown_name("side", side, SIDES)
        if side != "single" and not signed:
            raise argument_error("side", "be 'single' where a value is one cell and no pair", repr(side))
        if device.drifted:
            raise argument_error("drift_time", "be 0 while cells learn", device.drift_time)
        if device.spacing == "log" and device.levels is not None:
            raise argument_error("spacing", "be 'linear' while cells are moved from level to level", "log")
        if device.pulses is None and device.levels is None:
            for name in PULSES:
                if getattr(device, name) not in (None, 0):
                    must = "be 0 where cells go as far as asked: there are neither pulses nor levels"
                    raise argument_error(name, must, getattr(device, name))
        self.device, self.rule, self.side = device, rule, side
        self.signs = SIGNS if signed else {"plus": 1}
        self.steps = steps_of(device)
        span = largest_size(values) if span is None else span
        if not (math.isfinite(span) and span >= 0):
            raise argument_error("span", "be a finite number of 0 or more", span)
        self.range = device.g_max - device.g_min
        self.scale = span / (self.range if signed else device.g_max)
        self.pulses = self.refreshes = 0
        self._like = values.detach()
        self._moves = stream(seed, key, "moves")
        self._residue = torch.zeros(values.numel(), dtype=torch.float64)
        flat = values.detach().reshape(-1).cpu().double()
        self._x, self._error, self._gain, self._stuck, self._size, self._g = {}, {}, {}, {}, {}, {}
        for side_, sign in self.signs.items():
            wanted = (sign * flat).clamp(min=0)
            target = wanted / self.scale if span > 0 else torch.zeros_like(wanted)
            target = (target + device.g_min if signed else target).clamp(device.g_min, device.g_max)
            self._x[side_] = (levelled(target, device) - device.g_min) / self.range
            self._error[side_] = self._draw(seed, key, "programming", side_, device.programming_noise)
            self._gain[side_] = self._draw(seed, key, "mismatch", side_, device.device_mismatch).exp_()
            self._size[side_] = self._draw(seed, key, "steps", side_, device.pulse_spread).add_(1).clamp_(min=0)
            self._stuck[side_] = self._lots(seed, key, side_)
            self._g[side_] = self._conductance(side_, slice(None)).to(values.dtype)

    # -- what the instance is ----------------------------------------------------------------------------------

    def _draw(self, seed: int, key: str, name: str, side: str, size: float) -> torch.Tensor:
        drawn = torch.zeros_like(self._residue)
        if size > 0:
            generator = stream(seed, key, name, side)
            for part in chunks(drawn):
                drawn[part] = normal(drawn[part], generator).mul_(size)
        return drawn

    def _lots(self, seed: int, key: str, side: str) -> torch.Tensor:
        """-1 for cells that are stuck off, 1 for those stuck on, else 0."""
        device, kind = self.device, torch.zeros_like(self._residue, dtype=torch.int8)
        if device.stuck_off > 0 or device.stuck_on > 0:
            generator = stream(seed, key, "stuck", side)
            for part in chunks(kind):
                lot = torch.rand(kind[part].shape, generator=generator, dtype=torch.float32).double()
                kind[part] = (lot >= 1 - device.stuck_on).to(torch.int8) - (lot < device.stuck_off).to(torch.int8)
        return kind

    def _conductance(self, side: str, of: Any) -> torch.Tensor:
        """Conductances of some cells, S."""
        device, stuck = self.device, self._stuck[side][of]
        g = (device.g_min + self.range * (self._x[side][of] + self._error[side][of])).clamp_(min=0)
        g = g * self._gain[side][of]
        return g.masked_fill_(stuck < 0, device.g_min).masked_fill_(stuck > 0, device.g_max)

    # -- learning ----------------------------------------------------------------------------------------------

    @property
    def cells(self) -> Cells:
        """Conductances of pairs as they are."""
        plus, minus = (self._conductances(side) for side in SIGNS)
        return Cells(plus, minus, self.scale)

    @property
    def values(self) -> torch.Tensor:
        """Weights that the cells make, of the shape, dtype and device of those that were written first."""
        if len(self.signs) == 2:
            return self.cells.values
        return SingleCells(self._conductances("plus"), self.scale).values

    def _conductances(self, side: str) -> torch.Tensor:
        return self._g[side].clone().reshape(self._like.shape).to(self._like.device)

    def move(self, wanted: torch.Tensor) -> bool:
        """Move cells so that weights change by about `wanted`, of the weights' shape; whether any was moved.

        Pulses are counted by the mean step, 1 / N: who sends them knows nothing of the size of a cell's own steps.
        """
        if self.scale == 0:
            return False
        per_step = self.steps.count or 1
        asked = wanted.detach().reshape(-1).to("cpu", torch.float64) * (per_step / (self.scale * self.range))
        if self.steps.count is None:
            count = asked
        elif self.rule == "accumulated":
            self._residue += asked
            # A whole step but for rounding is one.
            count = (self._residue * (1 + 1e-6)).trunc_()
            self._residue -= count
        else:
            lot = torch.rand(asked.shape, generator=self._moves, dtype=torch.float64)
            count = (asked + lot).floor_()
        where = count.nonzero().flatten()
        if not len(where):
            return False
        count = count[where]
        up, down = count.clamp(min=0), (-count).clamp_(min=0)
        if self.side == "up":
            self._refresh(where, up, down)
            self._pulse("plus", where, up, torch.zeros_like(up))
            self._pulse("minus", where, down, torch.zeros_like(down))
        elif len(self.signs) == 1:
            self._pulse("plus", where, up, down)
        else:
            left = {side: self._left(side, where) for side in SIGNS}
            off_minus, off_plus = torch.minimum(up, left["minus"]), torch.minimum(down, left["plus"])
            self._pulse("plus", where, up - off_minus, off_plus)
            self._pulse("minus", where, down - off_plus, off_minus)
        return True

    def _left(self, side: str, where: torch.Tensor) -> torch.Tensor:
        """Steps that cells can still go down."""
        left = self._x[side][where] * (self.steps.count or 1)
        return left if self.steps.count is None else left.round_()

    def _pulse(self, side: str, where: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> None:
        """Send pulses to cells; of `up` and `down` one is 0."""
        moved = ((up > 0) | (down > 0)).nonzero().flatten()
        if not len(moved):
            return
        at, up, down = where[moved], up[moved], down[moved]
        size, x = self._size[side][at], self._x[side][at]
        if self.steps.count is None:
            size = torch.ones_like(size)
        x = torch.where(up > 0, self.steps.up(x, up * size), self.steps.down(x, down * size))
        if self.steps.count is not None and self.device.pulse_noise > 0:
            x += self.device.pulse_noise * (up + down).sqrt() * self._normal(len(at))
        self.pulses += len(at) if self.steps.count is None else int((up + down).sum())
        self._leave(side, at, x)

    def _leave(self, side: str, at: torch.Tensor, x: torch.Tensor) -> None:
        """Put cells at x, with new errors of writing."""
        self._x[side][at] = x.clamp_(0, 1)
        if self.device.programming_noise > 0:
            self._error[side][at] = self.device.programming_noise * self._normal(len(at))
        self._g[side][at] = self._conductance(side, at).to(self._g[side].dtype)

    def _refresh(self, where: torch.Tensor, plus_up: torch.Tensor, minus_up: torch.Tensor) -> None:
        """Write pairs anew of which these pulses would take a cell beyond its end, if the other is above g_min."""
        plus, minus = self._x["plus"][where], self._x["minus"][where]
        step = 1 / (self.steps.count or 1)
        over = torch.maximum(plus + step * plus_up, minus + step * minus_up) > 1 + 1e-9
        full = over & (torch.minimum(plus, minus) > (0.5 * step if self.steps.count else 0))
        at = where[full]
        if len(at):
            gap = (plus - minus)[full]
            self.refreshes += len(at)
            self._leave("plus", at, gap.clamp(min=0))
            self._leave("minus", at, (-gap).clamp(min=0))

    def _normal(self, count: int) -> torch.Tensor:
        return torch.randn(count, generator=self._moves, dtype=torch.float32).double()

    # -- going on ----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What changes while learning, for `torch.save`."""
        state: dict[str, Any] = {f"x_{side}": self._x[side].clone() for side in self.signs}
        state.update({f"error_{side}": self._error[side].clone() for side in self.signs})
        state.update(residue=self._residue.clone(), moves=self._moves.get_state())
        return {**state, "pulses": self.pulses, "refreshes": self.refreshes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state of the same device, seed, key, span and shape."""
        for side in self.signs:
            self._x[side].copy_(state[f"x_{side}"])
            self._error[side].copy_(state[f"error_{side}"])
            self._g[side] = self._conductance(side, slice(None)).to(self._g[side].dtype)
        self._residue.copy_(state["residue"])
        self._moves.set_state(state["moves"])
        self.pulses, self.refreshes = state["pulses"], state["refreshes"]
