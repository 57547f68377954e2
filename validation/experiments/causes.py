"""Learning in place on cells that err apart, by cause: which error of cells ends it where, and what saves it.

    python -m validation.experiments.causes results.json [--network digits] [--seeds 3] [--only TEXT] [--table]

A ReLU network learns ideally, whereupon it is written into a device; and on the device from the first step, by
pulses. Every physical cell has errors of its own: one cause at a time, or all three of them. Hopfield circuits have
a second array for the way back, resistors and oscillators three arrays a weight. Networks (`RECIPES`):

    digits     64-32-32-10 on the 8x8 digits, two epochs of 640 images; by asymmetric and by ordinary EP, without an
               auto-zero, a weaker feedback or trimming
    mnist      784-64-10 on MNIST, two epochs of 2000 images
    mnist-2h   784-64-64-10 on the same, all three causes, and programming noise

Those on MNIST learn without a remedy and by the `WAYS` to live with such cells; by ordinary EP without a remedy,
and by a weaker feedback with a narrow range.

Told are the three test errors, the shares of the test examples that have a free state once the network is written,
and once it has learned, and the shares of the training examples whose free phase, and whose nudged phases too, have
settled within `PASSES` passes through the arrays. Examples without a free state count as misclassified. The file
holds a row an instance, kept as they come, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hardware_models import DeviceModel
from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.intervals import mean_interval
from physics_ep.placement import threads
from physics_ep.storage.outputs import write_json

from .in_situ import HEADROOM, learn_in_situ
from .tables import finite, of_how_many, read_rows

CAUSES: dict[str, dict[str, Any]] = {
    "mismatch 10 %": {"device_mismatch": 0.1},
    "programming noise 5 %": {"programming_noise": 0.05},
    "16 levels": {"levels": 16},
    "all three": {"device_mismatch": 0.1, "programming_noise": 0.05, "levels": 16},
}
"""What cells err by, as fields of `DeviceModel`."""
ARRAYS: dict[str, dict[str, Any]] = {"hopfield": {"transpose": "array"}, "resistive": {}, "oscillator": {}}
"""Substrates, and fields with which the way back has cells of its own."""
METHODS = ("asymmetric", "energy")


@dataclass(frozen=True)
class Remedy:
    """What is done about cells that err apart.

    Attributes
    ----------
    fields : mapping
        Fields of the device.
    headroom : float
        Weight that arrays can hold over the largest that is written first. Noise of writing is a share of it.
    overrides : tuple of str
        Values that replace the recipe's.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    headroom: float = HEADROOM
    overrides: tuple[str, ...] = ()


NOTHING = "nothing"
TRIMMED = {"copies": "trimmed", "trim_attempts": 1000}
WAYS = {
    NOTHING: Remedy(),
    "narrow": Remedy(headroom=1.5),
    "gain 0.2": Remedy({"feedback_gain": 0.2}),
    "gain 0.2, narrow": Remedy({"feedback_gain": 0.2}, 1.5),
    "trimmed": Remedy(TRIMMED),
    "trimmed, narrow": Remedy(TRIMMED, 1.5),
    "clipped": Remedy(overrides=("training.clip_norm=1",)),
    "clipped, narrow": Remedy({}, 1.5, ("training.clip_norm=1",)),
    "slow": Remedy(overrides=("optimizer.lr=0.005",)),
}
"""Ways to live with separate cells: arrays of 1.5 in place of 4 times the first weights' range, a feedback gain of
0.2, copies trimmed to 0.1 % of the range, gradients scaled down to a norm of one, a tenth of the rate."""
PASSES = 300
"""Passes through all arrays after which a phase counts as unsettled, as in the table of `signature`."""


@dataclass(frozen=True)
class Taught:
    """What learns, and what is done about its cells.

    Attributes
    ----------
    config : str
        Name of a bundled config.
    overrides : tuple of str
        Values that replace the config's.
    ways : tuple of str
        Keys of `WAYS` that are tried where all causes meet.
    """

    config: str
    overrides: tuple[str, ...]
    ways: tuple[str, ...] = ()


MNIST = (
    "training.epochs=2",
    "training.batch_size=50",
    "training.on_unconverged='skip'",
    "data.normalise=false",
    "data.train_examples=2000",
    "data.test_examples=500",
    "ep.beta=0.03",
    f"ep.max_iterations={PASSES}",
)
RECIPES = {
    "digits": Taught(
        "pcn-digits",
        (
            "system.sizes=[64,32,32,10]",
            "training.epochs=2",
            "training.on_unconverged='skip'",
            "data.train_examples=640",
            "data.test_examples=360",
            "ep.beta=0.03",
            f"ep.max_iterations={PASSES}",
        ),
    ),
    "mnist": Taught("pcn-mnist", ("system.sizes=[784,64,10]", *MNIST), ("gain 0.2, narrow", "trimmed", "narrow")),
    "mnist-2h": Taught("pcn-mnist", ("system.sizes=[784,64,64,10]", *MNIST), tuple(WAYS)[1:]),
}
OFTEN = "gain 0.2, narrow"
"""The way that oscillators are tried with, too."""
FOUND = ("ideal", "mapped", "learned", "mapped_states", "learned_states", "free_states", "nudged_states", "pulses")
"""Quantities of `in_situ` that a row has."""
FEWEST = 3
"""Seeds from which on errors have an interval: that of two, 12.7 standard errors either way, holds all."""
ERRORS = 3
"""How many of them, the first ones, are errors."""


@dataclass(frozen=True)
class CauseCase:
    """One row of the table of causes: substrate, cause and method.

    Attributes
    ----------
    substrate, cause : str
        Keys of `ARRAYS` and `CAUSES`.
    method : str
        Method of EP: of `METHODS`.
    way : str
        Key of `WAYS`.
    network : str
        Key of `RECIPES`.
    """

    substrate: str
    cause: str
    method: str = "asymmetric"
    way: str = NOTHING
    network: str = "digits"

    @property
    def key(self) -> str:
        """The text by which rows of this case are found again in the results."""
        found = f"{self.substrate}, {self.cause}, {self.method}"
        return found if self.way == NOTHING else f"{found}, {self.way}"

    @property
    def device(self) -> DeviceModel:
        """The device, whose cells err each by themselves."""
        fields = {"copies": "independent", **CAUSES[self.cause], **ARRAYS[self.substrate], **WAYS[self.way].fields}
        return DeviceModel(**fields)


def cases(network: str = "digits") -> list[CauseCase]:
    """Rows of the table of a network, those first that say most: of the digits each substrate with each cause, by
    each method; of MNIST all causes together, the ways to live with them, and single causes; last ordinary EP."""
    if network == "digits":
        return [CauseCase(*row) for row in itertools.product(ARRAYS, CAUSES, METHODS)]
    *single, whole = CAUSES
    asymmetric, ordinary = METHODS
    rows = [(substrate, whole, NOTHING) for substrate in ARRAYS]
    rows += [("resistive", whole, way) for way in RECIPES[network].ways] + [("oscillator", whole, OFTEN)]
    if network == "mnist":
        rows += [(*row, NOTHING) for row in itertools.product(ARRAYS, single)]
    else:
        rows += [("resistive", "programming noise 5 %", way) for way in (NOTHING, OFTEN)]
        rows += [("oscillator", whole, way) for way in ("narrow", "clipped, narrow", "trimmed")]
    by_ordinary = [(substrate, cause, NOTHING) for substrate, cause, way in rows if way == NOTHING]
    by_ordinary += [(substrate, whole, OFTEN) for substrate in ("resistive", "oscillator")]
    return [
        CauseCase(substrate, cause, method, way, network)
        for method, those in ((asymmetric, rows), (ordinary, by_ordinary))
        for substrate, cause, way in those
    ]


def measured(case: CauseCase, seed: int, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A row: one device instance, one draw of initial weights and of batches.

    Parameters
    ----------
    case : CauseCase
    seed : int
    overrides : sequence of str
        Values that replace those of the recipe.
    """
    began = time.process_time()
    recipe, way = RECIPES[case.network], WAYS[case.way]
    table = learn_in_situ(
        recipe.config,
        substrates=[case.substrate],
        device=case.device,
        headroom=way.headroom,
        overrides=[*recipe.overrides, f"ep.method={case.method}", *way.overrides, *overrides],
        seed=seed,
    )
    (found,) = table.rows()
    row = {"key": case.key, "seed": seed, **{name: found[name] for name in FOUND}}
    return row | {"refused": list(table.refused.values()), "seconds": time.process_time() - began}


def measure(
    out: Path,
    seeds: Sequence[int] = (0, 1, 2),
    chosen: Sequence[CauseCase] | None = None,
    tell: Callable[[str], None] = lambda line: print(line, flush=True),
    network: str = "digits",
) -> list[dict[str, Any]]:
    """Measure what is missing, a seed of every case in turn, and keep each row as it comes.

    Parameters
    ----------
    out : path
    seeds : sequence of int
    chosen : sequence of CauseCase, optional
        Cases of the network; default `cases(network)`.
    tell : callable
        Takes a line for each row that has been measured; it prints them if not given.
    network : str
        Key of `RECIPES`.

    Returns
    -------
    list of dict
        A row a case and seed.

    Raises
    ------
    InputError
        If the file is damaged or another's.
    """
    rows = read(out, network) if out.exists() else []
    done = {(row["key"], row["seed"]) for row in rows}
    with threads(1):
        for seed in seeds:
            for case in cases(network) if chosen is None else chosen:
                if (case.key, seed) in done:
                    continue
                rows.append(measured(case, seed))
                write_json(out, {"recipe": RECIPES[network].overrides, "rows": rows})
                tell(json.dumps(rows[-1]))
    return rows


def read(path: Path, network: str = "digits") -> list[dict[str, Any]]:
    """Read the rows of a table that was begun.

    Raises
    ------
    InputError
        If it is damaged, something else, or of another recipe.
    """
    return read_rows(path, "causes", ("key", "seed", *FOUND), {"recipe": RECIPES[network].overrides})


def markdown(rows: Sequence[dict[str, Any]], network: str = "digits", intervals: bool = False) -> str:
    """A Markdown row a case: means over its seeds, in per cent, with the least and the largest in brackets, or of
    errors with their 95 % interval (Student), from three seeds on.

    Seeds that no device could hold count in no mean, and are told beside the number of those that do.
    """
    lines = [
        "| substrate | what errs | method | way | ideal | written | learned | free states, written | learned "
        "| free states in training | and nudged ones | seeds |",
        "|" + "---|" * 12,
    ]
    for case in cases(network):
        tried = [row for row in rows if row["key"] == case.key]
        own = [row for row in tried if row["learned"] is not None]
        if tried:
            count = str(len(own)) + (f" ({len(tried) - len(own)} refused)" if len(own) < len(tried) else "")
            shown = [
                (_interval if intervals and n < ERRORS else _spread)([row[name] for row in own])
                for n, name in enumerate(FOUND[:-1])
            ]
            cells = [case.substrate, case.cause, case.method, case.way, *shown, count]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: Sequence[float | None]) -> str:
    there = [100 * v for v in finite(values)]
    if not there:
        return "none"
    low, middle, high = (f"{v:.0f}" for v in (min(there), np.mean(there), max(there)))
    told = middle if low == high else f"{middle} ({low}..{high})"
    return of_how_many(told, len(there), len(values))


def _interval(values: Sequence[float | None]) -> str:
    there = [100 * v for v in finite(values)]
    if len(there) < FEWEST:
        return _spread(values)
    found = mean_interval(there)
    return of_how_many(f"{found.mean:.1f} +- {found.high - found.mean:.1f}", len(there), len(values))


def main(words: list[str] | None = None) -> None:
    """Measure the table of causes by the options of its command line."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.experiments.causes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="file of the rows")
    parser.add_argument("--network", default="digits", help=", ".join(RECIPES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--only", default="", help="text that is in the key of a row: 'SUBSTRATE, CAUSE, METHOD, WAY'"
    )
    parser.add_argument("--intervals", action="store_true", help="errors with 95 %% intervals")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and stop")
    asked = parser.parse_args(words)
    try:
        if asked.network not in RECIPES:
            raise unknown_name("network", asked.network, RECIPES)
        if asked.seeds < 1:
            raise argument_error("seeds", "be at least 1", asked.seeds)
        there = cases(asked.network)
        chosen = [case for case in there if asked.only in case.key]
        if not chosen:
            raise argument_error("only", f"be in one of {'; '.join(c.key for c in there)}", repr(asked.only))
        rows = (
            read(asked.out, asked.network)
            if asked.table
            else measure(asked.out, range(asked.seeds), chosen, network=asked.network)
        )
        print(markdown(rows, asked.network, asked.intervals))
    except InputError as error:
        sys.exit(f"causes: {error}")


if __name__ == "__main__":
    main()
