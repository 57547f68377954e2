"""A trained network of ImageNet, EfficientNet-Lite0, by equilibrium propagation and on three substrates.

    python -m validation.experiments.photographs layers --out FOLDER --images DIR
    python -m validation.experiments.photographs substrates --out FOLDER --images DIR [--instances 3] [--only TEXT]
    python -m validation.experiments.photographs learning --out FOLDER --images DIR [--instances 3] [--only TEXT]

The weights are those of the extra `pretrained`; DIR holds photographs NAME_CLASS.jpg, CLASS a class of ImageNet.
`layers` writes FOLDER/layers.csv, EP's gradient beside backprop's a row a layer, gates held and live. `substrates`
puts the network on devices whose cells err each for itself, and `learning` lets it learn the same photographs
there, by pulses: a fit of these few, which says nothing of others. Both keep a row an instance in FOLDER/NAME.json
as it comes, go on from there, and print the table. `--size` takes smaller photographs; at 224 each takes half an
hour to two hours of one core.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.in_situ import InSitu
from hardware_models.mapping.mapped import Mapped
from hardware_models.mapping.solvers import PairedSweep
from physics_ep import relax
from physics_ep.blocks import flat
from physics_ep.cost import CrossEntropy
from physics_ep.errors import InputError, argument_error
from physics_ep.estimators.methods import AsymmetryWarning
from physics_ep.extremes import greatest, least
from physics_ep.nudging import Nudge
from physics_ep.placement import threads
from physics_ep.predictive_coding import PredictiveCodingNetwork, efficientnet_lite0
from physics_ep.storage.outputs import write_json, write_text, writing

from ..gradients import GradientReport, compare, gradient_report
from ..oracles import Gradients
from .tables import read_rows

BETA = 1e-4
"""Nudge of the gradients on substrates; some five times the automatic one, at which float32 has digits to spare."""
GRADIENT = 2
"""Photographs of which gradients on substrates are taken, the first."""
SWEEPS = 30
"""Sweeps after which a nudged phase has no equilibrium that sweeps find."""
SWEEPS_LIVE = 4
"""Sweeps of phases with live gates, which stall at kinks."""
SETTLED = 1e-2
"""Residual at which a nudged phase counts as settled, that of networks in float32."""
SMALL = 1e-30
"""Nudge at which a loop's gain is measured in float64: it may grow by 200 decades and all remains linear."""
NOISES = (0.001, 0.003, 0.01)
"""Programming noises, of the range of a cell."""


@dataclass(frozen=True)
class PhotographCase:
    """A device that the network is put on.

    Attributes
    ----------
    substrate : str
    told : str
        What errs.
    cells : str
        Which cells of a weight are different ones.
    fields : dict
        Fields of the device.
    """

    substrate: str
    told: str
    cells: str
    fields: dict[str, Any]

    @property
    def key(self) -> str:
        """The text by which rows of this case are found again in the results."""
        return f"{self.substrate}, {self.cells}, {self.told}"


MIRRORS = "one array, auto-zero"
ONE, TWO, THREE = "one array, in slots", "a second array feeds back", "three arrays, auto-zero"


def cases() -> list[PhotographCase]:
    """Rows of the table of substrates: every cell has a draw of its own."""
    found = [PhotographCase("hopfield", "nothing", ONE, {})]
    for size in NOISES:
        noise: dict[str, Any] = {"programming_noise": size}
        told = f"programming {size:.1%}"
        found += [
            PhotographCase("hopfield", told, ONE, noise),
            PhotographCase("hopfield", told, TWO, {**noise, "transpose": "array"}),
            PhotographCase("resistive", told, THREE, {**noise, "auto_zero": "on"}),
            PhotographCase("oscillator", told, THREE, {**noise, "auto_zero": "on"}),
        ]
    drift = {"drift_exponent": 0.05, "drift_spread": 0.005, "drift_time": 3600.0}
    found += [
        PhotographCase("hopfield", "mismatch 1 %", TWO, {"transpose": "array", "copy_mismatch_transpose": 0.01}),
        PhotographCase("hopfield", "mismatch 10 %", TWO, {"transpose": "array", "copy_mismatch_transpose": 0.1}),
        PhotographCase("hopfield", "mirrors 0.1 %", MIRRORS, {"mirror_mismatch": 1e-3, "auto_zero": "on"}),
        PhotographCase("hopfield", "256 levels", ONE, {"levels": 256}),
        PhotographCase("hopfield", "drift of an hour", ONE, drift),
        PhotographCase("resistive", "programming 1e-8", THREE, {"programming_noise": 1e-8, "auto_zero": "on"}),
        PhotographCase("resistive", "programming 1e-6", THREE, {"programming_noise": 1e-6, "auto_zero": "on"}),
    ]  # fmt: skip
    return found


def learning_cases() -> list[PhotographCase]:
    """Rows of the table of learning in place."""
    found = []
    for size in NOISES:
        noise: dict[str, Any] = {"programming_noise": size}
        found.append(PhotographCase("hopfield", f"programming {size:.1%}", ONE, noise))
    apart = {"programming_noise": 0.003, "transpose": "array"}
    return [*found, PhotographCase("hopfield", "programming 0.3%", TWO, apart)]


def photographs(folder: Path, side: int = 224) -> tuple[torch.Tensor, torch.Tensor]:
    """Square centres of all photographs NAME_CLASS.jpg of a folder, (n, 3, side, side), and their classes (n,).

    Raises
    ------
    InputError
        If there are none, or a name has no class.
    """
    from PIL import Image

    files = sorted(folder.glob("*.jpg"))
    if not files:
        raise argument_error("images", "be a folder with photographs NAME_CLASS.jpg", repr(str(folder)))
    images, labels = [], []
    for file in files:
        number = file.stem.rpartition("_")[2]
        if not number.isdigit() or int(number) >= 1000:
            raise argument_error("images", "hold names that end in a class from 0 to 999", repr(file.name))
        image = Image.open(file).convert("RGB")
        edge = min(image.size)
        left, top = ((n - edge) // 2 for n in image.size)
        square = image.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.BICUBIC)
        images.append((torch.from_numpy(np.array(square)).permute(2, 0, 1).float() - 127) / 128)
        labels.append(int(number))
    return torch.stack(images), torch.tensor(labels)


def layers(x: torch.Tensor, y: torch.Tensor) -> GradientReport:
    """EP's gradient of the mean over all photographs beside backprop's, gates held and, in `live`, live ones.

    Beta is the automatic one. Live phases that have not settled after `SWEEPS_LIVE` sweeps are taken as they are.
    Backprop is in float32, too: in float64 some twenty of 123 million units are on the other side of their kinks,
    which changes the gradient by 1e-3.
    """
    net = efficientnet_lite0(input_shape=tuple(x.shape[1:]), weights="pretrained")
    exact = Gradients(backprop(net, x, y))
    exact.loss, exact.residual = float(CrossEntropy()(net(x).detach(), y).mean()), 0.0
    options: dict[str, Any] = {"max_iterations": SWEEPS_LIVE, "on_unconverged": "warn", "floors": False}
    return gradient_report(net, x, y, CrossEntropy(), beta="auto", gates="both", exact=exact, **options)


def backprop(net: PredictiveCodingNetwork, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradient of the mean cost by autograd, in the network's own dtype, a photograph at a time."""
    named = {name: p for name, p in net.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p) for name, p in named.items()}
    for a, b in zip(x.split(1), y.split(1), strict=True):
        loss = CrossEntropy()(net(a), b).sum() / len(x)
        for name, g in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
            total[name] += g
    return total


def among(outputs: torch.Tensor, y: torch.Tensor) -> tuple[int, int]:
    """How many photographs are right, and how many among the first five."""
    first = outputs.topk(5, 1).indices
    return int((first[:, 0] == y).sum()), int((first == y[:, None]).any(1).sum())


def loop_gain(mapped: Mapped, x: torch.Tensor, y: torch.Tensor, sweeps: int = 5) -> float:
    """By how much what layers feed back changes from pass to pass, over the pass before, late in a nudged phase.

    Above 1, sweeps run away. In float64, gates held, of a nudge so small that all is linear.
    """
    system = copy.deepcopy(mapped.system).double()
    x = x.to(system.dtype)
    phase = system.phase(system.prepare(x), relax(system, x, solver="sweep").state)
    sweep = PairedSweep(phase.nudged(Nudge(CrossEntropy(), y, SMALL)), phase.start())
    sizes, before = [], torch.zeros(())
    with torch.no_grad():
        for _ in range(sweeps):
            sweep.evaluate()
            fed = flat(tuple(sweep.images))
            sizes.append(float((fed - before).norm()))
            before = fed
            sweep.advance(torch.ones(len(x), dtype=torch.bool))
    return sizes[-1] / sizes[-2] if sizes[-1] else 0.0


def measured(mapped: Mapped, x: torch.Tensor, y: torch.Tensor, meant: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What one device instance puts out, and its gradient.

    Cosines of weights, worst and median, are to the gradient that was `meant`, of the network (transfer), and to
    backprop through the arrays that drive h (feedforward). One array drives h and u in all cases, or an auto-zero
    stores what they differ by, so that the free state is the forward pass of these arrays, and adaptation is
    feedforward.
    """
    began = time.process_time()
    with torch.no_grad():
        found = [mapped.perturbed(part) for part in x.split(4)]
    right, five = among(torch.cat(found), y)
    a, b = x[:GRADIENT], y[:GRADIENT]
    options: dict[str, Any] = {
        "solver": "sweep",
        "max_iterations": SWEEPS,
        "tolerance": SETTLED,
        "method": "energy",
    }
    own, step = mapped.estimate(a, b, CrossEntropy(), beta=BETA, on_unconverged="skip", **options)
    nudged = step.equilibria[1:]
    row: dict[str, Any] = {
        "right": right,
        "five": five,
        "K": max(e.iterations for e in nudged),
        "residual": greatest(float(e.residual.max()) for e in nudged),
        "settled": step.skipped == 0,
    }
    if row["settled"]:
        own_network = backprop(mapped.perturbed, a, b)
        for name, exact in (("transfer", meant), ("feedforward", own_network)):
            cosines = [r.cosine for r in compare(own, exact) if r.name.endswith("weight")]
            row[name] = [least(cosines), float(np.median(cosines))]
    row["gain"] = 0.0 if mapped.system.shared else loop_gain(mapped, x[:1], y[:1])
    return {**row, "seconds": time.process_time() - began}


def learnt(
    mapped: Mapped, x: torch.Tensor, y: torch.Tensor, epochs: int = 8, rate: float = 3e-4, batch: int = 4
) -> dict[str, Any]:
    """Let a written network learn these photographs on its device, and count the photographs that it gets right."""
    began = time.process_time()

    def told() -> tuple[int, int]:
        with torch.no_grad():
            return among(torch.cat([mapped.perturbed(part) for part in x.split(batch)]), y)

    learner = InSitu(mapped, lambda p: torch.optim.Adam(p, lr=rate), headroom=1.0)
    options: dict[str, Any] = {"solver": "sweep", "method": "energy", "on_unconverged": "skip"}
    course, losses = [told()], []
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for part in order.split(batch):
            step = learner.step(x[part], y[part], CrossEntropy(), BETA, **options)
            losses.append(float(step.loss))
        course.append(told())
        if course[-1][0] == len(x):
            break
    return {"course": course, "losses": losses, "rate": rate, "seconds": time.process_time() - began}


def calibrating(x: torch.Tensor) -> torch.Tensor:
    """Photographs that set the full scales: those behind the ones of which gradients are taken, which are told
    nothing of themselves then; these where there are no others."""
    others = x[GRADIENT : 2 * GRADIENT]
    return others if len(others) else x[:GRADIENT]


def made_by(x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    """What rows are made by, as their file tells it: rows of other photographs have no median with these."""
    digest = hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()
    return {
        "beta": BETA,
        "photographs": len(x),
        "size": x.shape[-1],
        "digest": digest,
        "gradients": GRADIENT,
        "calibration": "photographs behind those of the gradients",
    }


def instances_of(
    name: str,
    chosen: Sequence[PhotographCase],
    out: Path,
    count: int,
    net: PredictiveCodingNetwork,
    x: torch.Tensor,
    y: torch.Tensor,
    act: Callable[[Mapped], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Rows of all instances of these cases; what FOLDER/NAME.json holds already is not measured again."""
    path, recipe = out / f"{name}.json", made_by(x, y)
    rows = rows_of(path, recipe)
    done = {(row["key"], row["instance"]) for row in rows}
    with writing("validation.experiments.photographs") as call:
        path = call.claim("out", path, goes_on=path if rows else None)
        for instance in range(count):
            for case in chosen:
                if (case.key, instance) in done:
                    continue
                device = DeviceModel(**case.fields)
                mapped = map_pcn(net, case.substrate, device, instance, calibration=calibrating(x))
                row = {"key": case.key, "instance": instance, "size": x.shape[-1], **act(mapped)}
                rows.append(row)
                write_json(path, {**recipe, "rows": rows})
                print(json.dumps(row), flush=True)
    return rows


def rows_of(path: Path, recipe: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Rows that a file of this experiment holds; none, if there is no such file.

    Raises
    ------
    InputError
        If it holds something else, or rows of another recipe than this, as `made_by` has it.
    """
    return read_rows(path, "this experiment", ("key", "instance"), recipe) if path.exists() else []


def table(rows: Sequence[dict[str, Any]], chosen: Sequence[PhotographCase]) -> str:
    """The substrates in Markdown: medians over instances, and their range."""
    lines = [
        "| substrate | cells | what errs | right | among five | 1 - cos, transfer | 1 - cos, feedforward "
        "| K | gain of the loop | instances |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in chosen:
        own = [row for row in rows if row["key"] == case.key]
        if not own:
            continue
        good = [row for row in own if row["settled"]]
        cosines = [
            "none"
            if not good
            else ", ".join(f"{max(1 - np.median([row[name][n] for row in good]), 0):.1g}" for n in (0, 1))
            for name in ("transfer", "feedforward")
        ]
        passes = _range([row["K"] for row in good]) if good else "no state"
        numbers = [_range([row[name] for row in own]) for name in ("right", "five")]
        gain = f"{np.median([row['gain'] for row in own]):.2g}"
        cells = [case.substrate, case.cells, case.told, *numbers, *cosines, passes, gain, str(len(own))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def learning_table(rows: Sequence[dict[str, Any]], chosen: Sequence[PhotographCase]) -> str:
    """Learning in place in Markdown: right and among the first five, an instance each."""
    lines = [
        "| cells | what errs | as written | learnt in place | epochs | instances |",
        "|---|---|---|---|---|---|",
    ]
    for case in chosen:
        own = [row for row in rows if row["key"] == case.key]
        if own:
            ends = ["; ".join("{} / {}".format(*row["course"][n]) for row in own) for n in (0, -1)]
            epochs = _range([len(row["course"]) - 1 for row in own])
            lines.append("| " + " | ".join([case.cells, case.told, *ends, epochs, str(len(own))]) + " |")
    return "\n".join(lines)


def _range(values: Sequence[float]) -> str:
    low, middle, high = min(values), float(np.median(values)), max(values)
    if low == high or not all(math.isfinite(v) for v in (low, high)):
        return f"{middle:g}"
    return f"{middle:g} ({low:g} to {high:g})"


def main(words: list[str] | None = None) -> None:
    """Measure by the options of the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m validation.experiments.photographs", description=__doc__, formatter_class=form
    )
    parser.add_argument("what", choices=("layers", "substrates", "learning"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs NAME_CLASS.jpg")
    parser.add_argument("--instances", type=int, default=3)
    parser.add_argument("--size", type=int, default=224, help="rows and columns of a photograph")
    parser.add_argument("--only", default="", help="text that is in 'SUBSTRATE, CELLS, WHAT ERRS' of a row")
    told = parser.parse_args(words)
    warnings.simplefilter("ignore", AsymmetryWarning)  # the table tells how biased ordinary EP is
    try:
        for name in ("instances", "size"):
            if getattr(told, name) < 1:
                raise argument_error(name, "be at least 1", getattr(told, name))
        known = cases() if told.what == "substrates" else learning_cases()
        chosen = [case for case in known if told.only in case.key]
        if not chosen:
            raise argument_error("only", f"be in one of {'; '.join(c.key for c in known)}", repr(told.only))
        x, y = photographs(told.images, told.size)
        told.out.mkdir(parents=True, exist_ok=True)
        with threads(1):
            if told.what == "layers":
                report = layers(x, y)
                write_text(told.out / "layers.csv", report.by_layer().to_csv())
                live = report.live
                print(report, "" if live is None else f"; live gates: {live}, residual {live.residual:.2g}")
                return
            net = efficientnet_lite0(input_shape=tuple(x.shape[1:]), weights="pretrained", energy="paired")
            if told.what == "substrates":
                meant = backprop(net, x[:GRADIENT], y[:GRADIENT])
                rows = instances_of(
                    told.what,
                    chosen,
                    told.out,
                    told.instances,
                    net,
                    x,
                    y,
                    lambda mapped: measured(mapped, x, y, meant),
                )
                print(table(rows, chosen))
            else:
                rows = instances_of(
                    told.what, chosen, told.out, told.instances, net, x, y, lambda mapped: learnt(mapped, x, y)
                )
                print(learning_table(rows, chosen))
    except InputError as error:
        sys.exit(f"photographs: {error}")


if __name__ == "__main__":
    main()
