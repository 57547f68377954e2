"""The certificate of stability against the measured course, on random networks around the stability limit.

`python -m validation.experiments.stability --out FOLDER` writes the table. Networks 6-8-8-4 of random weights and
inputs are mapped onto cells that err apart; Newton's method finds their free states, stable or not. Each is pushed
off by a millionth of a full scale, and followed by the substrate's own dynamics.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import process_time

import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.circuit import PairedCircuit
from hardware_models.mapping.mapped import NotRealisable
from hardware_models.mapping.stability import Certificate, certify
from physics_ep import relax
from physics_ep.blocks import State
from physics_ep.extremes import greatest
from physics_ep.predictive_coding import mlp

UNITS = {"hopfield": ("tanh", "relu"), "resistive": ("hard_tanh", "relu"), "oscillator": ("hard_tanh", "relu")}
"""Activations of the hidden layers on each substrate, in turn."""
SIZES = (6, 8, 8, 4)
ERRORS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
"""Errors that are tried: of cells, and of the copies that drive u and that feed back beyond it."""
AROUND = 0.15
"""Largest growth rate that is aimed at, either way, per time constant."""
NEAR = 0.1
"""How far from it a growth rate may be."""
DURATION = 200.0
"""Time constants that a course is followed for, and that certificates are asked for."""
LONGEST = 800.0
"""Time constants at most: a course that is undecided is followed for twice as long, and again."""
STEP = 0.2
PUSH = 1e-6
GONE = 1e-11
"""Distance, in full scales, below which a push has died out: digits end there."""
LEFT = 1e-3
"""Distance, in full scales, beyond which a state has been left."""


@dataclass(frozen=True)
class Compared:
    """One state: what the certificate says, and what its course does.

    Attributes
    ----------
    substrate, activation : str
    seed : int
    error : float
        Largest relative error of its cells, and of the copies beyond it.
    verdict, reason : str
        The verdict of `Certificate`, and its reason.
    eigenvalue, radius : float
        Real part of the rightmost eigenvalue, and how far it may be off.
    course : str
        'stable', 'unstable' or 'undecided', measured.
    rate : float
        Measured growth over the second half of the course, per time constant; NaN where the course ended early.
    certificate_seconds, course_seconds : float
        Processor time.
    """

    substrate: str
    activation: str
    seed: int
    error: float
    verdict: str
    reason: str
    eigenvalue: float
    radius: float
    course: str
    rate: float
    certificate_seconds: float
    course_seconds: float


def follow(
    system: PairedCircuit, state: State, x: torch.Tensor, seed: int = 0, step: float = STEP
) -> tuple[str, float]:
    """Push one free state off, follow it by the classical Runge-Kutta method, and say what became of it.

    Parameters
    ----------
    system : PairedCircuit
    state : tuple of Tensor (1, ...)
    x : Tensor (1, ...)
    seed : int
        Seed of the push, which is random in all variables.
    step : float
        Time constants.

    Returns
    -------
    course : str
        'stable' where the distance has fallen to less than half from the second quarter to the last, 'unstable'
        where it has more than doubled or the state is left for good, else 'undecided' after `LONGEST`.
    rate : float
        Logarithm of the ratio of these over the time between them; NaN where the course ended early.
    """
    with torch.no_grad():
        phase = system.phase(system.prepare(x), state)
        motion = system.motion(phase)
        rest = motion.start(phase.start())
        generator = torch.Generator().manual_seed(seed)
        w = motion.inside(tuple(r + PUSH * torch.randn(r.shape, generator=generator, dtype=r.dtype) for r in rest))
        duration = DURATION
        size = max(1.0, *(float(r.abs().max()) for r in rest))
        distance: list[float] = []
        while True:
            a = motion.velocity(w)
            b = motion.velocity(motion.inside(_moved(w, a, step / 2)))
            c = motion.velocity(motion.inside(_moved(w, b, step / 2)))
            d = motion.velocity(motion.inside(_moved(w, c, step)))
            mean = tuple((p + 2 * q + 2 * r + s) / 6 for p, q, r, s in zip(a, b, c, d, strict=True))
            w = motion.inside(_moved(w, mean, step))
            distance.append(greatest(float((p - q).abs().max()) for p, q in zip(w, rest, strict=True)) / size)
            if not math.isfinite(distance[-1]) or (len(distance) > 50 and min(distance[-50:]) > 10 * LEFT):
                return "unstable", math.nan
            if len(distance) > 50 and max(distance[-50:]) < GONE:
                return "stable", math.nan
            if len(distance) * step < duration - step / 2:
                continue
            quarter = len(distance) // 4
            then, now = max(distance[quarter : 2 * quarter]), max(distance[3 * quarter :])
            if now > LEFT:
                return "unstable", math.nan
            ratio, rate = now / then, math.log(now / then) / (duration / 2)
            if not 0.5 <= ratio <= 2:
                return ("stable" if ratio < 0.5 else "unstable"), rate
            if duration >= LONGEST:
                return "undecided", rate
            duration *= 2


def _moved(w: State, speed: State, time: float) -> State:
    return tuple(a + time * b for a, b in zip(w, speed, strict=True))


Placed = tuple[PairedCircuit, torch.Tensor, State, float, Certificate, float]
"""System, input, free state, error of the cells, certificate, and its processor time."""


def place(substrate: str, activation: str, seed: int, error: float) -> Placed | None:
    """A random network on cells that err by `error`; None: it cannot be built, or algebra finds no free state."""
    generator = torch.Generator().manual_seed(seed)
    gain = 2.0 + 1.5 * float(torch.rand((), generator=generator))
    torch.rand((), generator=generator)  # the aim
    net = mlp(list(SIZES), activation, gain=gain, seed=seed).double()
    x = torch.rand(1, SIZES[0], dtype=torch.float64, generator=generator)
    device = DeviceModel(
        copies="independent",
        programming_noise=min(error, 0.2),
        copy_mismatch_u=error,
        copy_mismatch_transpose=2 * error,
    )
    try:
        # Full scales by the very input: they are part of the circuit, whose certificate and course are compared.
        system = map_pcn(net, substrate, device, seed=seed, calibration=x).system
    except NotRealisable:
        return None
    found = relax(system, x, solver="newton", tolerance=1e-12)
    if not bool(found.converged.all()):
        return None
    before = process_time()
    told = certify(system, found.state, x, duration=DURATION)
    return system, x, found.state, error, told, process_time() - before


def near_the_limit(substrate: str, activation: str, seed: int) -> Placed | None:
    """A random network at the error that brings it closest to a growth rate that is drawn around zero; None: it has
    no free state near it at any of the errors."""
    generator = torch.Generator().manual_seed(seed)
    torch.rand((), generator=generator)  # the gain
    aim = AROUND * (2 * float(torch.rand((), generator=generator)) - 1)
    best: Placed | None = None
    nearest = NEAR
    for error in ERRORS:
        placed = place(substrate, activation, seed, error)
        if placed is None:
            continue
        away = abs(float(placed[4].eigenvalue[0].real) - aim)
        if away < nearest:
            best, nearest = placed, away
    return best


def compare(substrate: str, count: int = 50, first: int = 0) -> list[Compared]:
    """Hold `count` states of random networks on a substrate against their courses."""
    rows: list[Compared] = []
    seed = first
    while len(rows) < count:
        activation = UNITS[substrate][seed % 2]
        placed = near_the_limit(substrate, activation, seed)
        seed += 1
        if placed is None:  # nothing near enough
            continue
        system, x, state, error, told, seconds = placed
        before = process_time()
        course, rate = follow(system, state, x, seed)
        rows.append(
            Compared(
                substrate,
                activation,
                seed - 1,
                error,
                told.verdict[0],
                told.reason[0],
                float(told.eigenvalue[0].real),
                float(told.radius[0]),
                course,
                rate,
                seconds,
                process_time() - before,
            )
        )
    return rows


def summary(rows: Sequence[Compared]) -> dict[str, int]:
    """Counts: networks, undecided by the certificate, and of the others such as the course contradicts; where it
    cannot tell either, that counts as a contradiction."""
    decided = [row for row in rows if row.verdict != "undecided"]
    return {
        "networks": len(rows),
        "stable": sum(row.verdict == "stable" for row in rows),
        "unstable": sum(row.verdict == "unstable" for row in rows),
        "undecided": len(rows) - len(decided),
        "disagree": sum(row.verdict != row.course for row in decided),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare certificates of stability with the course in time, on random networks mapped onto each substrate.

    The command writes a row for each network to `stability.csv`, and prints for each substrate how many networks
    the certificate calls stable, unstable or undecided, and how many courses disagree. It returns 0, or 2 where
    `--networks` is not positive.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="Folder of the table.")
    parser.add_argument("--networks", type=int, default=50, help="Networks on each substrate.")
    given = parser.parse_args(arguments)
    if given.networks < 1:
        print(f"Argument --networks must be positive, but was {given.networks}", file=sys.stderr)
        return 2
    rows = [row for substrate in UNITS for row in compare(substrate, given.networks)]
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "stability.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [f.name for f in fields(Compared)])
        table.writeheader()
        table.writerows(asdict(row) for row in rows)
    for substrate in UNITS:
        own = [row for row in rows if row.substrate == substrate]
        print(substrate, *(f"{name} {value}" for name, value in summary(own).items()), sep="  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
