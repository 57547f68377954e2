"""EP of ImageNet's networks beside backprop on one GPU: cost, gradients, and training on small images.

    python -m validation.benchmarks.imagenet_gpu --out DIR [--data DIR] [--part cost] [--minutes 9] [--resume]
    python -m validation.benchmarks.imagenet_gpu --prepare --data DIR --out DIR

Parts, of which `--part` takes one or all:

cost       VGG10 at 224x224, batches of 64: images/s, ms a step, peak memory, in float32 without and with TF32, and
           in bfloat16 (EP by `compute_dtype`, backprop by autocast); the faster of two backprops is the unit
gradients  cosine of each parameter's gradient to backprop's in float64 on the CPU
mnist      VGG5 by EP and by backprop (`paper_training`), with checkpoints, so that short runs add up
cifar      the same on CIFAR-10 from JPEG files

Needs torch, numpy, scipy and pillow; no command-line or config library of the package. Without a GPU it runs on
the CPU, which is of use with `--tiny` alone: the same lines of code in a few seconds, the figures meaningless. EP's
loop asks after each sweep whether to go on, which a CUDA graph cannot; neither step is compiled.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from physics_ep.cost import COSTS
from physics_ep.errors import InputError
from physics_ep.predictive_coding import PredictiveCodingNetwork, vgg10
from physics_ep.storage.outputs import write_json, writing
from validation.gradients import compare
from validation.oracles import backprop_gradient

from . import paper_training
from .small_images import SETS, load, prepare, shortened
from .steps import OPPONENTS, StepRecipe, StepSubject, photograph_like
from .timing import machine

PARTS = ("cost", "gradients", "mnist", "cifar")
IMAGENET = 1_281_167
"""Training images of ILSVRC 2012."""

EPOCHS = 50
GIB = 2**30
RECIPES = (
    StepRecipe("EP, default", target=2.5),
    StepRecipe("EP, 2 sweeps", sweeps=2),
    StepRecipe("EP, 3 sweeps", sweeps=3),
    StepRecipe("mod-PGD, 10, reached", solver="mod_pgd", sweeps=10, gates="live", beta=0.05),
)
MEMORY_TARGET = 2.0


@dataclass(frozen=True)
class Precision:
    """Arithmetic of a run: dtype of the layers, and whether float32 products may take TF32."""

    dtype: torch.dtype
    tf32: bool = False


PRECISIONS = {
    "float32": Precision(torch.float32),
    "tf32": Precision(torch.float32, tf32=True),
    "bfloat16": Precision(torch.bfloat16),
}


@dataclass(frozen=True)
class Setting:
    """The options of the script, checked.

    Attributes
    ----------
    device : torch.device
    out : Path
    data : Path or None
    batch : int
        Examples of a batch in the cost table.
    rounds : int
        Timed, of the cost table.
    cost : str
    precision : str
        Precision in which networks are trained.
    epochs : int
    deadline : float
        Value of time.perf_counter() after which no epoch begins.
    resume : bool
    seed : int
    tiny : bool
    """

    device: torch.device
    out: Path
    data: Path | None = None
    batch: int = 64
    rounds: int = 5
    cost: str = "cross_entropy"
    precision: str = "tf32"
    epochs: int = 100
    deadline: float = math.inf
    resume: bool = False
    seed: int = 0
    tiny: bool = False

    def network(self) -> PredictiveCodingNetwork:
        """VGG10 for ImageNet; a tiny one keeps its layers, not its size."""
        if self.tiny:
            return vgg10(10, (3, 32, 32), width=1 / 32, seed=self.seed).to(self.device)
        return vgg10(seed=self.seed).to(self.device)

    def schedule(self) -> paper_training.Schedule:
        """The schedule by which small images are trained."""
        found = replace(paper_training.SCHEDULES[self.cost], epochs=self.epochs, seed=self.seed)
        return replace(found, width=1 / 32, epochs=min(2, self.epochs), batch=16) if self.tiny else found

    def subject(self, batch: int, dtype: torch.dtype) -> StepSubject:
        """VGG10 on a batch of random images with the spectrum of photographs."""
        network = self.network()
        generator = torch.Generator().manual_seed(self.seed)
        x = photograph_like(batch, network.shapes[0], generator).to(self.device)
        cost = COSTS[self.cost]()
        n_out = network.sizes[-1]
        labels = torch.randint(0, n_out, (batch,), generator=generator).to(self.device)
        return StepSubject(network, x, cost.encode(labels, n_out, torch.float32), cost, dtype)


@contextmanager
def arithmetic(precision: Precision) -> Iterator[None]:
    """Within this context, float32 products and convolutions may or may not take TF32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = precision.tf32
    cudnn.benchmark = True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


# -- cost -------------------------------------------------------------------------


def cost(setting: Setting) -> list[dict[str, Any]]:
    """Rows of the cost table, a precision and step each; contenders of a precision take turns.

    Returns
    -------
    list of dict
        precision, step, ms, images_per_s, ratio, peak_GiB, memory_ratio, beta, sweeps, residual, target,
        projected_hours (of `EPOCHS` epochs of ImageNet at this rate: a projection, not a run).
    """
    rows = []
    for name, precision in PRECISIONS.items():
        with arithmetic(precision):
            subject = setting.subject(setting.batch, precision.dtype)
            calls = subject.calls(list(RECIPES))
            peaks = {step: _peak(subject, call, setting.device) for step, call in calls.items()}
            seconds = _in_turns(calls, setting)
        # What moves to the faster backprop moves to its memory too.
        unit = min(OPPONENTS, key=lambda step: seconds[step])
        targets = {recipe.name: recipe.target for recipe in RECIPES}
        for step, took in seconds.items():
            peak, other = peaks[step], peaks[unit]
            rows.append(
                {
                    "precision": name,
                    "step": step,
                    "batch": setting.batch,
                    "ms": 1e3 * took,
                    "images_per_s": setting.batch / took,
                    "ratio": took / seconds[unit],
                    "target": targets.get(step),
                    "peak_GiB": peak,
                    "memory_ratio": None if peak is None or other is None else peak / other,
                    "memory_target": MEMORY_TARGET if step in targets else None,
                    **subject.settled(step),
                    "projected_hours": EPOCHS * IMAGENET * took / setting.batch / 3600,
                }
            )
    return rows


def _peak(subject: StepSubject, call: Callable[[], None], device: torch.device) -> float | None:
    """Most memory in use in a step, GiB, as if its own network alone were held; None on the CPU."""
    subject.clear()
    call()  # convolutions choose their algorithms, for which they take memory that is no part of a step
    if device.type != "cuda":
        return None
    subject.clear()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    tensors = (*subject.network.parameters(), subject.x, subject.y)
    own = sum(t.numel() * t.element_size() for t in tensors)
    return (torch.cuda.max_memory_allocated() - held + own) / GIB


def _in_turns(calls: dict[str, Callable[[], None]], setting: Setting) -> dict[str, float]:
    """Median seconds of each step; the step before has warmed it up."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(setting.rounds):
        for name, call in calls.items():
            taken[name].append(_seconds(call, setting.device))
    return {name: median(values) for name, values in taken.items()}


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    if device.type != "cuda":
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    ends = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    torch.cuda.synchronize()
    ends[0].record()
    call()
    ends[1].record()
    torch.cuda.synchronize()
    return 1e-3 * ends[0].elapsed_time(ends[1])


# -- gradients -------------------------------------------------------------------------


def gradients(setting: Setting, batch: int = 2) -> list[dict[str, Any]]:
    """EP's and backprop's gradients in each precision beside backprop's in float64 on the CPU.

    Returns
    -------
    list of dict
        precision, parameter, cosine, relative_error, backprop_cosine (what the precision alone costs), residual.
    """
    rows = []
    exact: dict[str, torch.Tensor] = {}
    for name, precision in PRECISIONS.items():
        with arithmetic(precision):
            subject = setting.subject(batch, precision.dtype)
            if not exact:  # the same weights and images in every precision
                twin = copy.deepcopy(subject.network).cpu()
                twin.compute_dtype = None
                exact = dict(backprop_gradient(twin, subject.x.cpu(), subject.y.cpu(), subject.cost))
            recipe = RECIPES[0]
            calls = subject.calls([recipe])
            calls[recipe.name]()
            calls[OPPONENTS[1]]()
        plain = {row.name: row for row in compare(subject.gradients[OPPONENTS[1]], exact)}
        for row in compare(subject.gradients[recipe.name], exact):
            rows.append(
                {
                    "precision": name,
                    "parameter": row.name,
                    "cosine": row.cosine,
                    "relative_error": row.relative_error,
                    "backprop_cosine": plain[row.name].cosine,
                    **subject.settled(recipe.name),
                }
            )
    return rows


# -- training -------------------------------------------------------------------------


def training(part: str, setting: Setting) -> list[dict[str, Any]]:
    """VGG5 on small images by both rules; a row a rule and epoch."""
    data = load(part, setting.data)
    if setting.tiny:
        data = shortened(data, 32, 16)
    precision = PRECISIONS[setting.precision]
    with arithmetic(precision):
        return paper_training.train(
            part,
            data.to(setting.device),
            setting.schedule(),
            setting.out,
            device=setting.device,
            dtype=precision.dtype,
            deadline=setting.deadline,
            resume=setting.resume,
            report=lambda line: print(line, flush=True),
        )


# -- the command -------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Run the parts asked for; write DIR/PART.json of each as it ends.

    Returns
    -------
    int
        Exit status: 2 after bad input.
    """
    asked = _parser().parse_args(arguments)
    try:
        _run(asked)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(asked: argparse.Namespace) -> None:
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.prepare:
        if asked.data is None:
            raise InputError("Argument --prepare needs the folder of the files to decode: name it with --data.")
        for path in prepare(asked.data, asked.out):
            print(f"wrote {path}")
        return
    begin = time.perf_counter()
    setting = Setting(
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        out=asked.out,
        data=asked.data,
        batch=4 if asked.tiny else asked.batch,
        rounds=1 if asked.tiny else asked.rounds,
        cost=asked.cost,
        precision=asked.precision,
        epochs=asked.epochs,
        resume=asked.resume,
        seed=asked.seed,
        tiny=asked.tiny,
    )
    parts = [asked.part] if asked.part != "all" else [p for p in PARTS if asked.data or p not in SETS]
    print(f"{machine()}, {setting.device}", flush=True)
    end = begin + 60 * asked.minutes
    for number, part in enumerate(parts):
        if part in SETS:
            # What time is left is shared out among the sets still to come.
            share = (end - time.perf_counter()) / (len(parts) - number)
            setting = replace(setting, deadline=time.perf_counter() + share)
            rows = training(part, setting)
        else:
            rows = {"cost": cost, "gradients": gradients}[part](setting)
        _publish(part, rows, setting, time.perf_counter() - begin)


def _publish(part: str, rows: list[dict[str, Any]], setting: Setting, seconds: float) -> None:
    print(_table(rows), flush=True)
    if part == "cost":
        print(
            f"projected_hours: {EPOCHS} epochs of {IMAGENET} images at the measured rate, loading left out; not run"
        )
    figures: dict[str, Any] = {
        "part": part,
        "machine": machine(),
        "device": str(setting.device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
        "cost": setting.cost,
        "tiny": setting.tiny,
        "rows": rows,
    }
    if part in SETS:
        figures |= {"precision": setting.precision, "schedule": vars(setting.schedule())}
    with writing("validation.benchmarks.imagenet_gpu") as call:
        write_json(call.claim("out", setting.out / f"{part}.json"), figures)


def _table(rows: list[dict[str, Any]]) -> str:
    """Rows as text, a column a key."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m validation.benchmarks.imagenet_gpu",
        description=(__doc__ or "").split("\n", 1)[0],
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of results and checkpoints")
    parser.add_argument("--data", type=Path, help="folder of the images that mnist and cifar train on")
    parser.add_argument(
        "--part", choices=[*PARTS, "all"], default="all", help="default all that there are data for"
    )
    parser.add_argument("--prepare", action="store_true", help="decode the images of --data into --out, and stop")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no epoch that would end later")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints in --out")
    parser.add_argument("--batch", type=int, default=64, help="of the cost table")
    parser.add_argument("--rounds", type=int, default=5, help="of the cost table")
    parser.add_argument("--cost", choices=list(COSTS), default="cross_entropy")
    parser.add_argument("--precision", choices=list(PRECISIONS), default="tf32", help="of training")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="a trial of the program, of networks of no use")
    return parser


if __name__ == "__main__":
    sys.exit(main())
