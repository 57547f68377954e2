"""Learning in place on cells that err apart, by cause, without a remedy: which error of cells ends it where.

    python -m validation.experiments.causes results.json [--seeds 3] [--only TEXT] [--table]

A ReLU network 64-32-32-10 learns the 8x8 digits for two epochs of 640 images (`RECIPE`): ideally, whereupon it is
written into a device; and on the device from the first step, by pulses, without an auto-zero, a weaker feedback or
trimming. Every physical cell has errors of its own: one cause at a time, or all three of them. Hopfield circuits
have a second array for the way back, resistors and oscillators three arrays a weight. Each row is learned by
asymmetric EP, and by ordinary EP.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hardware_models import DeviceModel
from physics_ep.errors import InputError, argument_error
from physics_ep.placement import threads
from physics_ep.storage.outputs import write_json

from .in_situ import learn_in_situ

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
PASSES = 300
"""Passes through all arrays after which a phase counts as unsettled, as in the table of `signature`."""
RECIPE = (
    "system.sizes=[64,32,32,10]",
    "training.epochs=2",
    "training.on_unconverged='skip'",
    "data.train_examples=640",
    "data.test_examples=360",
    "ep.beta=0.03",
    f"ep.max_iterations={PASSES}",
)
"""What replaces values of the config `pcn-digits`."""
FOUND = ("ideal", "mapped", "learned", "mapped_states", "learned_states", "free_states", "nudged_states", "pulses")
"""Quantities of `in_situ` that a row has."""


@dataclass(frozen=True)
class CauseCase:
    """One row of the table of causes: substrate, cause and method.

    Attributes
    ----------
    substrate, cause : str
        Keys of `ARRAYS` and `CAUSES`.
    method : str
        Method of EP: of `METHODS`.
    """

    substrate: str
    cause: str
    method: str

    @property
    def key(self) -> str:
        """The text by which rows of this case are found again in the results."""
        return f"{self.substrate}, {self.cause}, {self.method}"

    @property
    def device(self) -> DeviceModel:
        """The device, whose cells err each by themselves."""
        return DeviceModel(**CAUSES[self.cause], **ARRAYS[self.substrate], copies="independent")


def cases() -> list[CauseCase]:
    """Rows of the table: each substrate with each cause, by each method."""
    return [CauseCase(*row) for row in itertools.product(ARRAYS, CAUSES, METHODS)]


def measured(case: CauseCase, seed: int, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A row: one device instance, one draw of initial weights and of batches.

    Parameters
    ----------
    case : CauseCase
    seed : int
    overrides : sequence of str
        Values that replace those of `RECIPE`.
    """
    began = time.process_time()
    table = learn_in_situ(
        "pcn-digits",
        substrates=[case.substrate],
        device=case.device,
        overrides=[*RECIPE, f"ep.method={case.method}", *overrides],
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
) -> list[dict[str, Any]]:
    """Measure what is missing, a seed of every case in turn, and keep each row as it comes.

    Parameters
    ----------
    out : path
    seeds : sequence of int
    chosen : sequence of CauseCase, optional
        Default `cases()`.
    tell : callable
        Takes a line for each row that has been measured; it prints them if not given.

    Returns
    -------
    list of dict
        A row a case and seed.

    Raises
    ------
    InputError
        If the file is damaged or another's.
    """
    rows = read(out) if out.exists() else []
    done = {(row["key"], row["seed"]) for row in rows}
    with threads(1):
        for seed in seeds:
            for case in cases() if chosen is None else chosen:
                if (case.key, seed) in done:
                    continue
                rows.append(measured(case, seed))
                write_json(out, {"recipe": RECIPE, "rows": rows})
                tell(json.dumps(rows[-1]))
    return rows


def read(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a table that was begun.

    Raises
    ------
    InputError
        If it is damaged, something else, or of another recipe.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = found["rows"]
        assert tuple(found["recipe"]) == RECIPE
        assert all({"key", "seed", *FOUND} <= set(row) for row in rows)
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        raise argument_error("out", "hold a table of causes of this recipe, or none", repr(str(path))) from None
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown row a case: means over its seeds, and the least and the largest in brackets, in per cent."""
    lines = [
        "| substrate | what errs | method | ideal | written | learned | free states, written | learned "
        "| free states in training | and nudged ones | seeds |",
        "|" + "---|" * 11,
    ]
    for case in cases():
        own = [row for row in rows if row["key"] == case.key]
        if own:
            shown = [_spread([row[name] for row in own]) for name in FOUND[:-1]]
            cells = [case.substrate, case.cause, case.method, *shown, str(len(own))]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: Sequence[float | None]) -> str:
    there = [100 * v for v in values if v is not None]
    if not there:
        return "none"
    low, middle, high = (f"{v:.0f}" for v in (min(there), np.mean(there), max(there)))
    return middle if low == high else f"{middle} ({low}..{high})"


def main(words: list[str] | None = None) -> None:
    """Measure the table of causes by the options of its command line."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.experiments.causes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="file of the rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="text that is in the key of a row: 'SUBSTRATE, CAUSE, METHOD'")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and stop")
    asked = parser.parse_args(words)
    try:
        if asked.seeds < 1:
            raise argument_error("seeds", "be at least 1", asked.seeds)
        chosen = [case for case in cases() if asked.only in case.key]
        if not chosen:
            raise argument_error("only", f"be in one of {'; '.join(c.key for c in cases())}", repr(asked.only))
        print(markdown(read(asked.out) if asked.table else measure(asked.out, range(asked.seeds), chosen)))
    except InputError as error:
        sys.exit(f"causes: {error}")


if __name__ == "__main__":
    main()
