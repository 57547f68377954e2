"""Trains of pulses whose readings have noise of their own: what the cells did, and what the instrument added.

A reading is r = x + e, with an error e of its own each time, so that the error of one reading is in two changes,
with opposite signs, and in the place from which the next change is counted. A regression of changes on readings
takes it for a slope, that is, for a nonlinearity. Here each train is followed by a Kalman filter instead: between
readings

    x <- x + f (A - B x) + p,    A, B of a pulse up or down,    f the cell's factor,    p pulse noise,

and the likelihood of all readings is maximised over the shape, both noises and every cell's factor, by Newton's
method (the factors of cells do not couple, and are eliminated). Where a pulse may take a cell beyond an end, mean
and variance are those of a normal variable that the end stops. Source: Harvey, Forecasting, Structural Time Series
Models and the Kalman Filter (1989), chapter 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from physics_ep.errors import InputError

from .model import DeviceModel
from .pulses import steps_of

STEP = 1e-3
"""Step of the differences that second derivatives are taken by: larger bends them, smaller leaves rounding."""
MOST_STEPS = 60
"""Newton steps; some ten are usual."""
SMALLEST = 1e-5
"""Noise over the range that counts as none: the likelihood does not tell smaller ones apart."""
IMPOSSIBLE = 1e100
"""Minus the log-likelihood of a train that a device cannot give: finite, as infinity times 0 is no number."""
SETTLED = 1e-7
"""Change of the log-likelihood at which Newton's method ends."""


@dataclass(frozen=True)
class Found:
    """The most likely device for measured pulse trains, with errors of its parameters.

    Attributes
    ----------
    shape, shape_errors : ndarray (3,)
        Nonlinearity up and down, log (1 + asymmetry).
    noises, noise_errors : ndarray (2,)
        Standard deviations of the noise of a pulse and of a reading, over the range; and their errors.
    factors, factor_variances : ndarray (cells,)
        Step of each cell over the mean step, for the count that was given; and the variance of that estimate.
    tilt : float
        Standard deviation of the factors' mean that the uncertain shape causes.
    places, innovations : ndarray (changes,)
        Position of a cell before each pulse as the filter has it; by how much the next reading is off, in standard
        deviations.
    lows, highs : ndarray (cells,)
        Least and greatest x of each cell, the smoothed trains'.
    """

    shape: np.ndarray
    shape_errors: np.ndarray
    noises: np.ndarray
    noise_errors: np.ndarray
    factors: np.ndarray
    factor_variances: np.ndarray
    tilt: float
    places: np.ndarray
    innovations: np.ndarray
    lows: np.ndarray
    highs: np.ndarray


class Trains:
    """Unbroken trains of readings as rows, padded to one length.

    Parameters
    ----------
    cell, sign, before, after : ndarray (M,)
        The data as in `PulseData`, with readings over the range.
    count : float
        Number of pulses from end to end, at which the factors are found.
    limit : ndarray (3,)
        Largest absolute value of each of the shape's three parameters.
    ends : (ndarray, ndarray) (cells,)
        x at which each cell stops.
    """

    def __init__(
        self,
        cell: np.ndarray,
        sign: np.ndarray,
        before: np.ndarray,
        after: np.ndarray,
        count: float,
        limit: np.ndarray,
        ends: tuple[np.ndarray, np.ndarray],
    ) -> None:
        self.count = count
        self.limit = np.concatenate([limit, [0.0, 0.0]])
        number = np.unique(cell, return_inverse=True)[1]
        linked = linked_changes(cell, before, after)
        row = np.cumsum(np.concatenate([[True], ~linked])) - 1
        first = np.flatnonzero(np.concatenate([[True], ~linked]))
        place = np.arange(len(cell)) - first[row]
        self.at = row, place
        self.sign = np.zeros((row[-1] + 1, place.max() + 1))
        self.sign[row, place] = sign
        self.readings = np.zeros((len(self.sign), self.sign.shape[1] + 1))
        self.readings[row, place + 1] = after
        self.readings[:, 0] = before[first]
        self.owner = number[first]
        self.cells = int(number.max()) + 1
        self.low, self.high = (np.broadcast_to(end, self.cells)[self.owner] for end in ends)
        self._sums = np.zeros((len(first), self.cells))
        self._sums[np.arange(len(first)), self.owner] = 1.0

    def lines(self, shape: np.ndarray) -> np.ndarray:
        """(A up, B up, A down, B down) of the mean cell: a pulse changes x by A - B x; NaN if there is none."""
        device = DeviceModel(
            pulses=1,
            pulse_nonlinearity_up=float(shape[0]),
            pulse_nonlinearity_down=float(shape[1]),
            pulse_asymmetry=math.expm1(shape[2]),
        )
        try:
            steps = steps_of(device, self.count)
        except InputError:
            return np.full(4, np.nan)
        rates = [-math.expm1(-decay) for decay in (steps.decay_up, steps.decay_down)]
        up = 1 / self.count if rates[0] == 0 else rates[0] * steps.end_up
        down = -steps.ratio / self.count if rates[1] == 0 else -rates[1] * (steps.end_down - 1)
        return np.array([up, rates[0], down, rates[1]])

    def loss(
        self, points: np.ndarray, factors: np.ndarray, record: dict[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """Minus the log-likelihood of each cell, (P, cells), at points (P, 5) and factors (P, cells)."""
        lines = np.stack([self.lines(p) for p in points])[:, :, None]
        pulse, reading = (np.exp(2 * points[:, 3 + k])[:, None] for k in (0, 1))
        f = factors[:, self.owner]
        gain = [f * lines[:, k] for k in range(4)]
        mean = np.broadcast_to(self.readings[:, 0], f.shape)
        variance = np.broadcast_to(reading, f.shape)
        total = np.zeros(f.shape)
        for t in range(self.sign.shape[1]):
            sign = self.sign[:, t]
            there, up = sign != 0, sign > 0
            keep = 1 - np.where(up, gain[1], gain[3])
            free = mean * keep + np.where(up, gain[0], gain[2])
            ahead, spread, moving = stopped(free, keep * keep * variance + pulse, self.low, self.high)
            keep = keep * moving
            size = spread + reading
            off = self.readings[:, t + 1] - ahead
            if record is not None:
                parts = (
                    ("mean", mean),
                    ("variance", variance),
                    ("keep", keep),
                    ("ahead", ahead),
                    ("spread", spread),
                )
                for name, value in (*parts, ("off", off / np.sqrt(size))):
                    record[name][:, t] = value[0]
            total += np.where(there, 0.5 * (off * off / size + np.log(size)), 0.0)
            share = spread / size
            mean = np.where(there, ahead + share * off, mean)
            variance = np.where(there, spread * (1 - share), variance)
        if record is not None:
            record["last"] = mean[0]
        return np.where(np.isfinite(total), total, IMPOSSIBLE) @ self._sums

    def solve(self, shape: np.ndarray, noises: np.ndarray) -> Found:
        """The most likely device, from a first guess."""
        point, factors = np.concatenate([shape, np.log(np.maximum(noises, 10 * SMALLEST))]), np.ones(self.cells)
        lowest = np.concatenate([-self.limit[:3], np.full(2, math.log(SMALLEST))])
        highest = np.concatenate([self.limit[:3], np.zeros(2)])
        here, damping = self.loss(point[None], factors[None]).sum(), 1e-3
        for _ in range(MOST_STEPS):
            slope, bend, own_slope, own_bend, mixed = self._derivatives(point, factors)
            free = ~(((point <= lowest) & (slope > 0)) | ((point >= highest) & (slope < 0)))
            better = False
            for _ in range(12):
                own = np.abs(own_bend) + damping * (1 + np.abs(own_bend).max())
                reduced = bend - (mixed / own) @ mixed.T
                downhill = slope - (mixed / own) @ own_slope
                values, vectors = np.linalg.eigh(reduced[np.ix_(free, free)])
                size = np.abs(values) + damping * (1 + np.abs(values).max(initial=0.0))
                step = np.zeros(5)
                step[free] = -vectors @ ((vectors.T @ downhill[free]) / size)
                step *= min(1.0, 2.0 / max(np.abs(step).max(), 1e-30))
                moved = np.clip(point + step, lowest, highest)
                changed = np.maximum(factors - (own_slope + mixed.T @ (moved - point)) / own, 0.05 * factors)
                there = self.loss(moved[None], changed[None]).sum()
                if there <= here:
                    better = True
                    break
                damping *= 10
            if not better:
                break
            gained, here, point, factors, damping = here - there, there, moved, changed, damping / 10
            if gained < SETTLED:
                break
        return self._found(point, factors, lowest, highest)

    def _derivatives(self, point: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, ...]:
        """Slope (5,) and bend (5, 5) in the point, slope and bend (cells,) in the factors, mixed (5, cells)."""
        moves = np.concatenate([STEP * np.eye(6), -STEP * np.eye(6)])
        pairs = [(i, j) for i in range(6) for j in range(i)]
        corners = [a * moves[i] + b * moves[j] for i, j in pairs for a in (1, -1) for b in (1, -1)]
        whole = np.concatenate([np.zeros((1, 6)), moves, np.array(corners)])
        scale = factors.mean()
        each = self.loss(point + whole[:, :5], factors + scale * whole[:, 5:])
        slopes = (each[1:7] - each[7:13]) / (2 * STEP)
        bends = (each[1:7] - 2 * each[0] + each[7:13]) / STEP**2
        crossed = {}
        for k, pair in enumerate(pairs):
            a, b, c, d = each[13 + 4 * k : 17 + 4 * k]
            crossed[pair] = (a - b - c + d) / (4 * STEP**2)
        bend = np.diag(bends[:5].sum(1))
        for (i, j), value in crossed.items():
            if i < 5:
                bend[i, j] = bend[j, i] = value.sum()
        mixed = np.stack([crossed[5, j] for j in range(5)]) / scale
        return slopes[:5].sum(1), bend, slopes[5] / scale, bends[5] / scale**2, mixed

    def _found(self, point: np.ndarray, factors: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> Found:
        _, bend, _, own, mixed = self._derivatives(point, factors)
        own = np.abs(own) + 1e-9
        free = (point > lowest) & (point < highest)
        covariance = np.zeros((5, 5))
        reduced = (bend - (mixed / own) @ mixed.T)[np.ix_(free, free)]
        values, vectors = np.linalg.eigh(reduced)
        covariance[np.ix_(free, free)] = (vectors / np.maximum(np.abs(values), 1e-9)) @ vectors.T
        errors = np.sqrt(np.diag(covariance))
        noises = np.where(point[3:] > lowest[3:], np.exp(point[3:]), 0.0)
        tilt = -(mixed / own).mean(1)
        names = ("mean", "variance", "keep", "ahead", "spread", "off")
        record = {name: np.zeros(self.sign.shape) for name in names}
        self.loss(point[None], factors[None], record)
        lows, highs = self._extremes(record)
        return Found(
            point[:3],
            errors[:3],
            noises,
            noises * errors[3:],
            factors,
            1 / own,
            math.sqrt(max(float(tilt @ covariance @ tilt), 0.0)),
            record["mean"][self.at],
            record["off"][self.at],
            lows,
            highs,
        )

    def _extremes(self, record: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest x of each cell, of the smoothed trains (Rauch, Tung and Striebel)."""
        x = record["last"].copy()
        low, high = x.copy(), x.copy()
        for t in range(self.sign.shape[1] - 1, -1, -1):
            back = record["variance"][:, t] * record["keep"][:, t] / record["spread"][:, t]
            smoothed = record["mean"][:, t] + back * (x - record["ahead"][:, t])
            x = np.where(self.sign[:, t] != 0, smoothed, x)
            low, high = np.minimum(low, x), np.maximum(high, x)
        lows, highs = np.full(self.cells, np.inf), np.full(self.cells, -np.inf)
        np.minimum.at(lows, self.owner, low)
        np.maximum.at(highs, self.owner, high)
        return lows, highs


def stopped(
    mean: np.ndarray, variance: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and variance of a normal variable that ends at low and high stop, and how likely it is between them.

    Smooth in all arguments, as the second differences of the likelihood need it.
    """
    sd = np.sqrt(variance)
    a, b = (low - mean) / sd, (high - mean) / sd
    below, above = ndtr(a), ndtr(-b)
    at_low, at_high = (
        sd * np.exp(-0.5 * np.minimum(np.abs(v), 30.0) ** 2) / math.sqrt(2 * math.pi) for v in (a, b)
    )
    between = 1 - below - above
    # Moments about the mean of the free variable.
    left, right = low - mean, high - mean
    first = left * below + right * above + at_low - at_high
    second = left**2 * below + right**2 * above + variance * between + left * at_low - right * at_high
    return mean + first, np.maximum(second - first**2, 1e-12 * variance), between


def linked_changes(cell: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Whether each change but the first begins with the reading that the one before it ended with, (M - 1,)."""
    return np.asarray((cell[1:] == cell[:-1]) & (before[1:] == after[:-1]))


def reading_variance(rest: np.ndarray, linked: np.ndarray) -> tuple[float, float]:
    """Variance of readings that neighbouring residuals tell of, and its distance from 0 in standard errors.

    A reading's error is in two changes with opposite signs: their product is -variance on average. Noise of pulses
    adds nothing to it.
    """
    product = (rest[1:] * rest[:-1])[linked]
    size = math.sqrt(float(product @ product))
    return (-float(product.mean()), -float(product.sum()) / size) if size > 0 else (0.0, 0.0)
