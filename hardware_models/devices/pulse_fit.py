"""A device's pulse fields, fitted to measured conductances of cells under trains of pulses.

The change of a cell by one pulse is linear in where the cell stands (`pulses`), so that each pair of neighbouring
readings is a data point. A cell's changes are those of the mean cell times a factor of its own, plus noise. Left
out, these factors would tilt the curves, as fast cells are more often high.
"""

from __future__ import annotations

import csv
import math
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import least_squares

from physics_ep.errors import InputError, argument_error

from .model import DeviceModel
from .pulses import steps_of

COLUMNS = ("cell", "pulse", "direction", "conductance")
DIRECTIONS = {"up": 1, "+1": 1, "1": 1, "down": -1, "-1": -1}
FEWEST = 3
"""Changes in each direction that a fit needs at least."""
NONLINEARITY_LIMIT = 20.0
"""Largest |nu| that is looked for."""
FAR = 1e3
ROUNDS = 4
"""Of shape and count in turn: a shape hardly depends on the count."""
DIFFERENCE = 1e-4


@dataclass(frozen=True)
class PulseData:
    """Changes of cells by one pulse each.

    Attributes
    ----------
    cell : ndarray (M,) of int
        Number of the cell, from 0.
    direction : ndarray (M,)
        1: up, -1: down.
    before, after : ndarray (M,)
        S.
    """

    cell: np.ndarray
    direction: np.ndarray
    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class PulseFit:
    """What was fitted.

    Attributes
    ----------
    device : DeviceModel
        With the fitted fields.
    values, errors : dict
        Fitted value and standard error of each field. `pulses` is a whole number in the device, not here.
    changes, cells : int
        How many were fitted.
    """

    device: DeviceModel
    values: dict[str, float]
    errors: dict[str, float]
    changes: int
    cells: int


def read_pulses(path: str | os.PathLike[str]) -> PulseData:
    """Read a CSV file with the columns cell, pulse, direction and conductance, in any order.

    A row is a reading after a pulse: `pulse` counts all pulses that the cell has had (0: before the first),
    `direction` is that of the last one ('up' or 'down', or 1 and -1; of pulse 0 it does not matter),
    `conductance` in S. Further columns are left alone. Where a cell's count leaps, no change is taken.

    Raises
    ------
    InputError
        In one line, with the line of the file, if it is not as above.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            names = [(name or "").strip() for name in rows.fieldnames or ()]
            missing = [name for name in COLUMNS if name not in names]
            if missing:
                had = ", ".join(names) or "an empty file"
                raise argument_error("FILE", f"have the columns {', '.join(COLUMNS)}", f"{str(path)!r}: {had}")
            rows.fieldnames = names
            readings = [_reading(row, rows.line_num, path) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else "no text file of values separated by commas"
        raise argument_error("FILE", "be a CSV file that can be read", f"{str(path)!r} ({why})") from None
    readings.sort(key=lambda r: r[:2])
    order = {cell: k for k, cell in enumerate(dict.fromkeys(r[0] for r in readings))}
    changes = []
    for (cell, pulse, _, g), (other, later, direction, reached) in pairwise(readings):
        if cell == other and later == pulse:
            raise argument_error(
                "FILE", "have one row for each cell and pulse", f"two of cell {cell}, pulse {pulse}"
            )
        if cell == other and later == pulse + 1:
            changes.append((order[cell], direction, g, reached))
    for name, sign in (("up", 1), ("down", -1)):
        count = sum(direction == sign for _, direction, _, _ in changes)
        if count < FEWEST:
            must = f"hold at least {FEWEST} changes by one pulse in each direction"
            raise argument_error("FILE", must, f"{str(path)!r}, with {count} {name}")
    cells, directions, before, after = (np.array(column) for column in zip(*changes, strict=True))
    return PulseData(cells, directions.astype(float), before, after)


def _reading(row: dict[str, Any], line: int, path: Any) -> tuple[str, int, int, float]:
    """Cell, pulse, direction, conductance."""
    where = f"{str(path)!r}, line {line}"
    try:
        pulse, conductance = float(row["pulse"]), float(row["conductance"])
    except (TypeError, ValueError):
        was = f"{row['pulse']!r} and {row['conductance']!r}"
        raise InputError(f"Columns pulse and conductance must be numbers, but were {was} ({where}).") from None
    if not (pulse >= 0 and pulse == int(pulse) if math.isfinite(pulse) else False):
        raise InputError(f"Column pulse must be an integer of 0 or more, but was {row['pulse']!r} ({where}).")
    if not (math.isfinite(conductance) and conductance >= 0):
        must, was = "be a finite number of 0 or more", row["conductance"]
        raise InputError(f"Column conductance must {must}, but was {was!r} ({where}).")
    word = (row["direction"] or "").strip().lower()
    if word not in DIRECTIONS and pulse > 0:
        raise InputError(f"Column direction must be up or down, but was {word!r} ({where}).")
    return str(row["cell"]).strip(), int(pulse), DIRECTIONS.get(word, 0), conductance


def fit_pulses(
    data: PulseData, *, g_min: float | None = None, g_max: float | None = None, base: DeviceModel | None = None
) -> PulseFit:
    """Fit the pulse fields, and the range where it is not given.

    Parameters
    ----------
    data : PulseData
    g_min, g_max : float, optional
        Ends of the range, S. Default the means over the cells of the smallest and the largest conductance, which
        is right where pulses took cells from end to end. Changes that begin nearer to the end they lead to than the
        largest change is are left out: pulses may be cut short there.
    base : DeviceModel, optional
        Of the other fields.

    Returns
    -------
    PulseFit

    Raises
    ------
    InputError
        If too few changes are left, or these do not tell a device: no growth under pulses up, or no decline.
    """
    for name, value in (("g_min", g_min), ("g_max", g_max)):
        if value is not None and not 0 <= value < math.inf:
            raise argument_error(name, "be a finite conductance of 0 or more, S", value)
    cells = data.cell.max() + 1
    both = np.concatenate([data.before, data.after])
    owner = np.concatenate([data.cell, data.cell])
    low, high = np.full(cells, np.inf), np.zeros(cells)
    np.minimum.at(low, owner, both)
    np.maximum.at(high, owner, both)
    low_end = float(low.mean()) if g_min is None else g_min
    high_end = float(high.mean()) if g_max is None else g_max
    if not high_end > low_end and (g_min is not None or g_max is not None):
        name, must = ("g_max", f"above {low_end:g} S") if g_min is None else ("g_min", f"below {high_end:g} S")
        raise argument_error(name, f"be {must}, the other end of the range", high_end if g_min is None else low_end)
    if not high_end > low_end:
        raise argument_error("FILE", "show cells that move", f"conductances from {low_end:g} to {high_end:g} S")
    x, y = ((g - low_end) / (high_end - low_end) for g in (data.before, data.after))
    cell, sign, change = data.cell, data.direction, y - x
    kept = np.zeros(len(x), dtype=bool)
    for name, way in (("up", 1), ("down", -1)):
        of = sign == way
        if not way * change[of].mean() > 0:
            raise argument_error("FILE", f"show conductances that go {name} under pulses {name}", "none")
        # Chosen by where a pulse begins: a choice by where it leads would choose among the noise.
        kept |= of & ((1 - x if way > 0 else x) >= np.abs(change[of]).max())
        if np.sum(of & kept) < FEWEST:
            raise argument_error("FILE", f"hold at least {FEWEST} changes {name} clear of the ends", "fewer")
    fit = _Fit(cell[kept], sign[kept], x[kept], change[kept])
    count, shape, count_error, shape_errors = fit.solve()
    noise, noise_error, spread, spread_error = fit.split(count, shape)
    asymmetry = math.expm1(shape[2])
    values = {
        "g_min": low_end,
        "g_max": high_end,
        "pulses": count,
        "pulse_nonlinearity_up": float(shape[0]),
        "pulse_nonlinearity_down": float(shape[1]),
        "pulse_asymmetry": asymmetry,
        "pulse_noise": noise,
        "pulse_spread": spread,
    }
    ends = [0.0 if g is not None else float(v.std() / math.sqrt(cells)) for g, v in ((g_min, low), (g_max, high))]
    scales = (count_error, shape_errors[0], shape_errors[1], (1 + asymmetry) * shape_errors[2])
    errors = dict(zip(values, (*ends, *map(float, scales), noise_error, spread_error), strict=True))
    device = (base or DeviceModel()).replace(**{**values, "pulses": max(round(count), 1)})
    return PulseFit(device, values, errors, int(kept.sum()), int(cells))


class _Fit:
    """Changes of cells by one pulse, fitted by a mean cell's times a factor of each cell.

    Parameters of the shape are both nonlinearities and log (1 + asymmetry); factors are found for each shape by
    linear regression, and the count of pulses is what makes their mean one.
    """

    def __init__(self, cell: np.ndarray, sign: np.ndarray, x: np.ndarray, change: np.ndarray) -> None:
        self.cell = np.unique(cell, return_inverse=True)[1]
        self.cells = int(self.cell.max()) + 1
        self.sign, self.x, self.change = sign, x, change
        self.freedom = max(len(x) - self.cells - 3, 1)

    def model(self, count: float, shape: np.ndarray) -> np.ndarray:
        """Changes of the mean cell."""
        fields = {"pulse_nonlinearity_up": shape[0], "pulse_nonlinearity_down": shape[1]}
        try:
            steps = steps_of(DeviceModel(pulses=1, pulse_asymmetry=math.expm1(shape[2]), **fields), count)
        except InputError:  # no such device: far from any data
            return np.full(len(self.x), FAR)
        at, one = torch.from_numpy(self.x), torch.ones(len(self.x), dtype=torch.float64)
        up, down = steps.up(at, one).numpy() - self.x, steps.down(at, one).numpy() - self.x
        return np.where(self.sign > 0, up, down)

    def factors(self, model: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the cells, and the sums of squares that each was found from."""
        power = np.bincount(self.cell, model**2, self.cells)
        return np.bincount(self.cell, model * self.change, self.cells) / power, power

    def rest(self, count: float, shape: np.ndarray) -> np.ndarray:
        """What the mean cell and the factors leave."""
        model = self.model(count, shape)
        return self.change - self.factors(model)[0][self.cell] * model

    def solve(self) -> tuple[float, np.ndarray, float, np.ndarray]:
        """Count and shape, and their standard errors."""
        up, down = self.change[self.sign > 0].mean(), -self.change[self.sign < 0].mean()
        bound = np.array([NONLINEARITY_LIMIT, NONLINEARITY_LIMIT, 3.0])
        shape = np.clip([0.5, 0.5, math.log(down / up)], -0.9 * bound, 0.9 * bound)
        count = max(1 / up, 1.0)
        for _ in range(ROUNDS):
            found = least_squares(
                lambda p, n=count: self.rest(n, p),
                shape,
                bounds=(-bound, bound),
                xtol=1e-14,
                ftol=1e-14,
                gtol=1e-14,
            )
            shape = found.x
            count = max(count / self.factors(self.model(count, shape))[0].mean(), 1e-3)
        covariance = np.linalg.pinv(found.jac.T @ found.jac) * (2 * found.cost / self.freedom)
        # log count is minus the log of the factors' mean: by their scatter, and by the shape's error.
        factors, power = self.factors(self.model(count, shape))
        noise = float(np.sum(1 / power)) * 2 * found.cost / self.freedom
        scatter = factors.var(ddof=1) / self.cells if self.cells > 1 else noise
        tilt = np.array(
            [self.factors(self.model(count, shape + d))[0].mean() - factors.mean() for d in DIFFERENCE * np.eye(3)]
        )
        by_shape = (tilt / DIFFERENCE) @ covariance @ (tilt / DIFFERENCE)
        return count, shape, count * math.sqrt(scatter + by_shape), np.sqrt(np.diag(covariance))

    def split(self, count: float, shape: np.ndarray) -> tuple[float, float, float, float]:
        """Noise of a pulse and spread of the cells' factors, each with its standard error.

        The variance of factors is that of the cells, and of finding them.
        """
        rest = self.rest(count, shape)
        factors, power = self.factors(self.model(count, shape))
        variance = float(rest @ rest) / self.freedom
        noise = math.sqrt(variance)
        noise_error = noise / math.sqrt(2 * self.freedom)
        if self.cells < 2:
            return noise, noise_error, 0.0, math.nan
        total = factors.var(ddof=1)
        spread = math.sqrt(max(total - variance * float(np.mean(1 / power)), 0.0))
        error = total * math.sqrt(2 / (self.cells - 1)) / (2 * spread) if spread > 0 else math.nan
        return noise, noise_error, spread, error
