"""A device's pulse fields, fitted to measured conductances of cells under trains of pulses.

The change of a cell by one pulse is linear in where the cell stands (`pulses`), so that each pair of neighbouring
readings is a data point. A cell's changes are those of the mean cell times a factor of its own, plus noise. Left
out, these factors would tilt the curves, as fast cells are more often high.

Noise of the readings themselves is another thing than noise of pulses, and would be taken for nonlinearity: where
neighbouring changes tell of it, the trains are fitted as a whole (`pulse_readings`).
"""

from __future__ import annotations

import csv
import math
import os
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.optimize import least_squares
from scipy.stats import chi2

from physics_ep.errors import InputError, argument_error
from physics_ep.storage.files import checked_path
from physics_ep.storage.outputs import reading
from physics_ep.storage.texts import require_regular

from .model import DeviceModel
from .pulse_readings import Found, Trains, linked_changes, reading_variance
from .pulses import steps_of

COLUMNS = ("cell", "pulse", "direction", "conductance")
DIRECTIONS = {"up": 1, "+1": 1, "1": 1, "down": -1, "-1": -1}
FEWEST = 3
"""Changes in each direction that a fit needs at least."""
NONLINEARITY_LIMIT = 20.0
"""Largest |nu| that is looked for."""
FAR = 1e3
LOG_ASYMMETRY_LIMIT = 3.0
"""Largest |log (1 + asymmetry)| that is looked for."""
AT_BOUND = 0.999
"""A parameter beyond this part of its bound has no value that the data tell."""
SIGNIFICANT = 3.0
"""Standard errors from which on neighbouring changes tell of noise of the readings."""
NO_NOISE = 1e-6
"""Noise over the range below which it is rounding of the file's numbers."""
CLEAR = 0.1
"""Distance from the ends of the range, over it, within which cells may have been stopped by them."""
BINS = 8
"""Places, in each direction, at which means are compared with the curve."""
UNLIKELY = 1e-3
"""Probability of a misfit from which on the curves are doubted."""
MOSTLY_NOISE = 0.05
"""Noise of a reading over the range from which on single readings tell little of where a cell stands."""
PASSES = 3
"""Fits of whole trains where the range has to be found as well: each begins with the range of the one before."""
ROUNDS = 4
"""Rounds in which shape and count are fitted in turn: a shape hardly depends on the count."""
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
    """A device fitted to measured conductances, with errors of its parameters.

    Attributes
    ----------
    device : DeviceModel
        The device with the fitted fields.
    values, errors : dict
        Fitted value and standard error of each field. `pulses` is a whole number in the device, not here. Standard
        errors are those at the range's ends as they are given, or as they were found: where the range is found from
        noisy readings, its own error adds to those of nonlinearities and asymmetry, which it may exceed. Give
        `g_min` and `g_max` there. Of simulated trains at a given range (nonlinearity 3, readings with 5 % noise,
        8 cells), true values lay within two standard errors in 83 to 90 %: take them for a quarter larger.
    changes, cells : int
        How many were fitted.
    reading_noise, reading_noise_error : float
        Standard deviation of a reading's own error, over the range, and its standard error; 0 where neighbouring
        changes tell of none. It is the instrument's: no field of the device.
    explained : float
        Share of the changes' variance that the fit, without noise, accounts for: 1 is all.
    misfit : float
        Probability of means as far from the fitted curves, place by place, if cells follow them: less than some
        0.001 tells that they do not. 1 where there is no noise to compare with.
    warnings : tuple of str
        What makes the fit doubtful, a sentence each: parameters at the bounds of what is looked for, curves that
        the cells do not follow, readings that are mostly noise.
    """

    device: DeviceModel
    values: dict[str, float]
    errors: dict[str, float]
    changes: int
    cells: int
    reading_noise: float = 0.0
    reading_noise_error: float = 0.0
    explained: float = 1.0
    misfit: float = 1.0
    warnings: tuple[str, ...] = ()


class PulseFitWarning(UserWarning):
    """Warns that a fit of pulses is doubtful; the message says why."""


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
    path = checked_path(path, "FILE")
    reading("FILE", path)
    try:
        require_regular(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
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
        was = " and ".join(str(row[name])[:40] for name in ("pulse", "conductance"))
        raise InputError(f"Columns pulse and conductance must be numbers, but were {was} ({where}).") from None
    if not (pulse >= 0 and pulse == int(pulse) if math.isfinite(pulse) else False):
        raise InputError(f"Column pulse must be an integer of 0 or more, but was {row['pulse'][:40]!r} ({where}).")
    if not (math.isfinite(conductance) and conductance >= 0):
        must, was = "be a finite number of 0 or more", row["conductance"][:40]
        raise InputError(f"Column conductance must {must}, but was {was!r} ({where}).")
    word = (row["direction"] or "").strip().lower()
    if word not in DIRECTIONS and pulse > 0:
        raise InputError(f"Column direction must be up or down, but was {word[:40]!r} ({where}).")
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
        largest change is are left out: the end may have cut such pulses short.
    base : DeviceModel, optional
        The device from which all other fields are taken.

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
    for name, way in (("up", 1), ("down", -1)):
        if not way * change[sign == way].mean() > 0:
            raise argument_error("FILE", f"show conductances that go {name} under pulses {name}", "none")
    linked = linked_changes(cell, data.before, data.after)
    sought = (g_min is None, g_max is None)
    if _noisy(change, sign, y, linked):
        found = _fit_readings(data, (low_end, high_end), sought, base)
        if found.reading_noise > max(SIGNIFICANT * found.reading_noise_error, NO_NOISE):
            return _warned(found)
    kept = np.zeros(len(x), dtype=bool)
    for name, way in (("up", 1), ("down", -1)):
        of = sign == way
        # Chosen by where a pulse begins: a choice by where it leads would choose among the noise.
        kept |= of & ((1 - x if way > 0 else x) >= np.abs(change[of]).max())
        if np.sum(of & kept) < FEWEST:
            raise argument_error("FILE", f"hold at least {FEWEST} changes {name} clear of the ends", "fewer")
    fit = _Fit(cell[kept], sign[kept], x[kept], change[kept])
    count, shape, count_error, shape_errors = fit.solve()
    noise, noise_error, spread, spread_error = fit.split(count, shape)
    rest = fit.rest(count, shape)
    pairs = kept[1:] & kept[:-1] & linked
    if pairs.sum() >= FEWEST:
        whole = np.zeros(len(x))
        whole[kept] = rest
        variance, sure = reading_variance(whole, pairs)
        if sure > SIGNIFICANT and variance > NO_NOISE**2:
            return _warned(_fit_readings(data, (low_end, high_end), sought, base))
    ends = [0.0 if g is not None else float(v.std() / math.sqrt(cells)) for g, v in ((g_min, low), (g_max, high))]
    found = _fitted(
        (low_end, high_end, count, shape, noise, spread),
        (*ends, count_error, shape_errors, noise_error, spread_error),
        base,
        changes=int(kept.sum()),
        cells=int(cells),
        explained=_explained(change[kept], rest),
        misfit=_misfit(sign[kept], x[kept], rest / noise, fit.freedom) if noise > NO_NOISE else 1.0,
    )
    return _warned(found)


def _warned(found: PulseFit) -> PulseFit:
    """The fit, its doubts said aloud."""
    for doubt in found.warnings:
        warnings.warn(doubt, PulseFitWarning, stacklevel=3)
    return found


def _fitted(
    values: tuple[Any, ...], errors: tuple[Any, ...], base: DeviceModel | None, **goodness: Any
) -> PulseFit:
    """What a fit tells, with warnings; values and errors as (g_min, g_max, count, shape (3,), noise, spread)."""
    low, high, count, shape, noise, spread = values
    low_error, high_error, count_error, shape_errors, noise_error, spread_error = errors
    asymmetry = math.expm1(shape[2])
    fields = {
        "g_min": float(low),
        "g_max": float(high),
        "pulses": float(count),
        "pulse_nonlinearity_up": float(shape[0]),
        "pulse_nonlinearity_down": float(shape[1]),
        "pulse_asymmetry": asymmetry,
        "pulse_noise": float(noise),
        "pulse_spread": float(spread),
    }
    scales = (count_error, shape_errors[0], shape_errors[1], (1 + asymmetry) * shape_errors[2])
    of = dict(zip(fields, map(float, (low_error, high_error, *scales, noise_error, spread_error)), strict=True))
    doubts = []
    for name, size, bound, found in (
        ("pulse_nonlinearity_up", shape[0], NONLINEARITY_LIMIT, fields["pulse_nonlinearity_up"]),
        ("pulse_nonlinearity_down", shape[1], NONLINEARITY_LIMIT, fields["pulse_nonlinearity_down"]),
        ("pulse_asymmetry", shape[2], LOG_ASYMMETRY_LIMIT, asymmetry),
    ):
        if abs(size) >= AT_BOUND * bound:
            doubts.append(
                f"{name} is {found:.4g}, the bound of what is looked for: the data do not tell its value."
            )
            of[name] = math.nan
    if goodness.get("misfit", 1.0) < UNLIKELY:
        doubts.append(
            "The cells do not follow the fitted curves: means as far from them, place by place, have a probability "
            f"of {goodness['misfit']:.1g}."
        )
    if goodness.get("reading_noise", 0.0) > MOSTLY_NOISE:
        doubts.append(
            f"Readings have a noise of {100 * goodness['reading_noise']:.2g} % of the range: more readings, or "
            "averages of several, would tell more."
        )
    device = (base or DeviceModel()).replace(**{**fields, "pulses": max(round(count), 1)})
    return PulseFit(device, fields, of, warnings=tuple(doubts), **goodness)


def _noisy(change: np.ndarray, sign: np.ndarray, reached: np.ndarray, linked: np.ndarray) -> bool:
    """Whether changes by themselves tell of noise of the readings, before any fit; less than this a fit tells."""
    rest = change - np.where(sign > 0, change[sign > 0].mean(), change[sign < 0].mean())
    # Cells that an end stops move back, too; and where pulses turn, steps differ.
    inside = linked & (sign[1:] == sign[:-1]) & (reached[:-1] > CLEAR) & (reached[:-1] < 1 - CLEAR)
    if inside.sum() < FEWEST:
        return False
    variance, sure = reading_variance(rest, inside)
    return sure > SIGNIFICANT and variance > NO_NOISE**2


def _fit_readings(
    data: PulseData, ends: tuple[float, float], sought: tuple[bool, bool], base: DeviceModel | None
) -> PulseFit:
    """Fit whole trains, with a noise of the readings; ends of the range are `sought` where they are not given."""
    bound = np.array([NONLINEARITY_LIMIT, NONLINEARITY_LIMIT, LOG_ASYMMETRY_LIMIT])
    start: Found | None = None
    number, cells = np.unique(data.cell, return_inverse=True)[1], len(np.unique(data.cell))
    lows, highs = np.full(cells, np.inf), np.zeros(cells)
    for readings in (data.before, data.after):
        np.minimum.at(lows, number, readings)
        np.maximum.at(highs, number, readings)
    for left in range(PASSES - 1 if any(sought) else 0, -1, -1):
        low, high = ends
        # Cells stop at the ends of the range, each at its own where these are only known from the cells.
        stops = (
            (lows - low) / (high - low) if sought[0] else np.zeros(cells),
            (highs - low) / (high - low) if sought[1] else np.ones(cells),
        )
        x, y = ((g - low) / (high - low) for g in (data.before, data.after))
        change, sign = y - x, data.direction
        up, down = change[sign > 0].mean(), -change[sign < 0].mean()
        count = max(1 / up, 1.0)
        trains = Trains(data.cell, sign, x, y, count, bound, stops)
        noise = float((change - np.where(sign > 0, up, -down)).std()) / math.sqrt(2)
        tilt = np.clip(math.log(down / up), -0.9 * LOG_ASYMMETRY_LIMIT, 0.9 * LOG_ASYMMETRY_LIMIT)
        guess = np.array([0.5, 0.5, tilt]) if start is None else np.clip(start.shape, -0.9 * bound, 0.9 * bound)
        found = start = trains.solve(guess, np.array([0.3 * noise, noise]))
        if left:
            # Of the smoothed trains: single readings reach beyond where cells have been.
            lows, highs = (low + (high - low) * v for v in (found.lows, found.highs))
            ends = (max(float(lows.mean()), 0.0) if sought[0] else low, float(highs.mean()) if sought[1] else high)
    width = high - low
    extremes = zip(sought, (found.lows, found.highs), strict=True)
    spans = [width * float(v.std()) / math.sqrt(len(v)) if s else 0.0 for s, v in extremes]
    mean = float(found.factors.mean())
    rate = trains.lines(found.shape)[1]
    count = count / mean if rate == 0 else -found.shape[0] / math.log1p(-min(mean * rate, 1 - 1e-12))
    relative = found.factors / mean
    total = relative.var(ddof=1) if cells > 1 else math.nan
    known = float(found.factor_variances.mean()) / mean**2
    spread = math.sqrt(max(total - known, 0.0)) if cells > 1 else 0.0
    scatter = total / cells if cells > 1 else known
    lines = trains.lines(found.shape)
    up, down = (lines[k] - lines[k + 1] * found.places for k in (0, 2))
    predicted = found.factors[number] * np.where(sign > 0, up, down)
    return _fitted(
        (low, high, count, found.shape, found.noises[0], spread),
        (
            *spans,
            count * math.sqrt(scatter + (found.tilt / mean) ** 2),
            found.shape_errors,
            float(found.noise_errors[0]),
            total * math.sqrt(2 / (cells - 1)) / (2 * spread) if spread > 0 else math.nan,
        ),
        base,
        changes=len(change),
        cells=cells,
        reading_noise=float(found.noises[1]),
        reading_noise_error=float(found.noise_errors[1]),
        explained=_explained(change, change - predicted),
        misfit=_misfit(sign, found.places, found.innovations, len(change)),
    )


def _explained(change: np.ndarray, rest: np.ndarray) -> float:
    """1 - sum of squares of the rest over that of the changes."""
    whole = float(change @ change)
    return 1 - float(rest @ rest) / whole if whole > 0 else 1.0


def _misfit(sign: np.ndarray, place: np.ndarray, rest: np.ndarray, freedom: int) -> float:
    """Probability of larger means of standardised residuals, in bins of the place in each direction."""
    total, bins = 0.0, 0
    for way in (1, -1):
        of = sign == way
        count = min(BINS, int(of.sum()) // 4)
        if count < 3:
            continue
        order = np.argsort(place[of], kind="stable")
        for part in np.array_split(rest[of][order], count):
            total, bins = total + len(part) * float(part.mean()) ** 2, bins + 1
    return float(chi2.sf(total, bins - 4)) if bins > 4 and freedom > bins else 1.0


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
        """Factors of the cells, and the sums of squares that each was found from."""
        power = np.bincount(self.cell, model**2, self.cells)
        return np.bincount(self.cell, model * self.change, self.cells) / power, power

    def rest(self, count: float, shape: np.ndarray) -> np.ndarray:
        """What the mean cell and the factors leave."""
        model = self.model(count, shape)
        return self.change - self.factors(model)[0][self.cell] * model

    def solve(self) -> tuple[float, np.ndarray, float, np.ndarray]:
        """Count and shape, and their standard errors."""
        up, down = self.change[self.sign > 0].mean(), -self.change[self.sign < 0].mean()
        bound = np.array([NONLINEARITY_LIMIT, NONLINEARITY_LIMIT, LOG_ASYMMETRY_LIMIT])
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
