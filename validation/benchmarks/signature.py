"""The signature table: VGG10's gradient on three substrates, layer by layer, over the imperfections of each.

    python -m validation.benchmarks.signature --images DIR --out FOLDER [--part all] [--size 64] [--repeats 10]
        [--network vgg10-skip] [--substrates resistive,oscillator] [--resume]
    python -m validation.benchmarks.signature --images DIR --out PHOTOS.npz --size 224 --prepare
    python -m validation.benchmarks.signature --images PHOTOS.npz --out FOLDER --device cuda       # 224x224

One sweep file a substrate, FOLDER/SUBSTRATE.h5, kept point by point; `--resume` goes on. `physics-ep figure
tolerance_layers --from` draws one. The table is printed as Markdown, and is in FOLDER/signature.json.
"""

from __future__ import annotations

import copy
import math
import sys
from typing import Any

from physics_ep.errors import InputError, argument_error
from physics_ep.extremes import greatest
from physics_ep.storage.outputs import write_json, writing
from validation.sweeps.points import TARGETS
from validation.sweeps.table import TolerancePoint, ToleranceTable

from .layer_sizes import figures_of, options, prepared

THREE = "hopfield,resistive,oscillator"


def rows(tables: dict[str, ToleranceTable]) -> list[list[str]]:
    """Header, then a row a point: 1 - the worst weight's cosine to the three references, transfer / feedforward /
    adaptation, mean over the instances; the share of the examples that have a free state; and their error.

    A row is empty where a substrate has no such imperfection.
    """
    found: dict[tuple[str, Any], dict[str, str]] = {}
    for substrate, table in tables.items():
        for point in table.points:
            modes = [f"{mode} gates: {_cell(each)}" if mode else _cell(each) for each, mode in point.by_gates]
            text = "; ".join(modes)
            found.setdefault((point.field, point.value), {})[substrate] = text
    head = ["imperfection", "value", *tables]
    body = []
    for (field, value), texts in found.items():
        body.append([field, "" if value is None else f"{value}", *(texts.get(s, "") for s in tables)])
    return [head, *body]


def _cell(point: TolerancePoint) -> str:
    """What one mode of gates says of a point."""
    weights = [layer for layer in point.layers if "weight" in layer.name]
    worst = [greatest(1 - getattr(w, target).cosine for w in weights) for target in TARGETS]
    text = " / ".join("none" if math.isnan(gap) else f"{gap:.0e}" for gap in worst)
    if math.isfinite(point.free_share):
        text += f"; {point.free_share:.0%} free by {point.solver}, {point.free_error:.0%} wrong"
    if point.unconverged:
        text += f" ({point.unconverged} of {point.repeats} without equilibrium)"
    if point.unconverged == point.repeats:
        text = f"no equilibrium; {point.free_share:.0%} free by {point.solver}"
    return text


def markdown(table: list[list[str]]) -> str:
    """Rows as a Markdown table."""
    head, *body = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([head, "|" + "---|" * len(table[0]), *body])


def main(words: list[str] | None = None) -> None:
    """Measure the table of signatures by the options of its command line."""
    parser = options("signature", __doc__)
    parser.add_argument("--substrates", default=THREE, help="names, separated by commas")
    arguments = parser.parse_args(words)
    figures: dict[str, Any] = {}
    tables: dict[str, ToleranceTable] = {}
    try:
        if prepared(arguments):
            return
        if arguments.out.suffix:
            raise argument_error("out", "be a folder", str(arguments.out))
        arguments.out.mkdir(parents=True, exist_ok=True)
        for substrate in arguments.substrates.split(","):
            own = copy.copy(arguments)
            own.substrate, own.out = substrate, arguments.out / f"{substrate}.h5"
            own.resume = arguments.resume and (
                own.out.exists() or own.out.with_name(own.out.name + ".parts").exists()
            )
            print(substrate, flush=True)
            figures[substrate], tables[substrate] = figures_of(own)
            with writing("validation.benchmarks.signature") as call:
                write_json(call.claim("out", arguments.out / "signature.json"), figures)
    except InputError as error:
        sys.exit(f"signature: {error}")
    print(markdown(rows(tables)))
    for substrate, found in figures.items():
        print(f"{substrate}: {found['seconds']:.0f} s, peak {found['peak_host_GiB']:.1f} GiB on the host")


if __name__ == "__main__":
    main()
