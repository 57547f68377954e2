"""Early inference: how long layers that a nudge moves carry back-propagated errors, and what noise does to that."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hardware_models.hopfield.langevin import LangevinHopfield
from physics_ep.progress import SILENT, Progress, task
from validation.theory.early_inference import EarlyInference, infer_early

from .. import style
from ..requests import Drawn, Request
from ..subjects import Subject, before_digits, given

BETA = 1e-3
MOMENT = 0.3
"""Time constants after the nudge at which noisy runs are read."""
SHARED = 3
STEPS = 10
"""From one time to the next."""


@dataclass(frozen=True)
class EarlyCourses:
    """T times, L layers (the last is the outputs), R numbers of runs.

    Attributes
    ----------
    label : str
    beta : float
    time : ndarray (T,)
        Time constants.
    misaligned : ndarray (T, L)
        1 - cosine of displacement and -delta, of the worst example.
    size : ndarray (T, L)
        |displacement| over |formula|, mean of the examples.
    temperature, moment : float
        Temperature of the noisy runs; and the time, in time constants, at which they are read.
    runs : ndarray of int (R,)
        Pairs of runs averaged.
    averaged : ndarray (R, L)
        Cosine with independent noise, mean of the examples.
    shared : ndarray (S, L)
        The same with common random numbers, for the first S = `SHARED` of these.
    fine : ndarray (F,)
    expected : ndarray (F, L)
        What the variance of one run leads one to expect of `averaged` after so many runs.
    """

    label: str
    beta: float
    time: np.ndarray
    misaligned: np.ndarray
    size: np.ndarray
    temperature: float
    moment: float
    runs: np.ndarray
    averaged: np.ndarray
    shared: np.ndarray
    fine: np.ndarray
    expected: np.ndarray


def early_courses(
    subject: Subject,
    *,
    times: np.ndarray | None = None,
    temperature: float = 1e-8,
    runs: tuple[int, ...] = (4, 16, 64, 256, 1024),
    seed: int = 0,
    progress: Progress | bool = SILENT,
) -> EarlyCourses:
    """Nudge the subject's system at rest, without noise and with it.

    Parameters
    ----------
    subject : Subject
        A system of unbounded variables that descend an energy.
    times : ndarray, optional
        Increasing, in time constants.
    temperature : float
        Temperature, in the unit of the energy.
    runs : tuple of int
        Pairs of runs to average, increasing.
    seed : int
        Seed of the noise.
    progress : Progress

    Returns
    -------
    EarlyCourses

    Raises
    ------
    InputError
        If the system has bounds or does not descend.
    NotConverged
        If there is no free fixed point to begin with.
    """
    grid = np.geomspace(0.03, 10.0, 14) if times is None else times
    system, x, y, cost = subject.system, subject.x, subject.y, subject.cost

    def infer(at: list[float], **noise: float | bool) -> EarlyInference:
        generator = torch.Generator().manual_seed(seed)
        return infer_early(system, x, y, cost, times=at, beta=BETA, steps=STEPS, generator=generator, **noise)  # type: ignore[arg-type]

    with task(progress, "figure: early inference", 2 + len(runs) + len(runs[:SHARED])) as advance:
        quiet, still = infer(grid.tolist()), infer([MOMENT])
        advance(2)
        found: dict[bool, list[EarlyInference]] = {False: [], True: []}
        for common, kept in found.items():
            for count in runs[:SHARED] if common else runs:
                kept.append(infer([MOMENT], temperature=temperature, runs=count, common_noise=common))
                advance(1)
    fine = np.geomspace(runs[0], runs[-1], 60)
    moved = torch.stack([d[0].square().sum(-1) for d in still.displacement])
    spread = torch.stack([v[0].sum(-1) for v in found[False][-1].variance])
    ratio = (spread / moved).numpy()
    expected = (still.cosine[0].numpy() / np.sqrt(1 + ratio / fine[:, None, None])).mean(2)
    return EarlyCourses(
        label=subject.label,
        beta=BETA,
        time=grid,
        misaligned=(1 - quiet.cosine.amin(2)).numpy(),
        size=quiet.size.mean(2).numpy(),
        temperature=temperature,
        moment=MOMENT,
        runs=np.array(runs),
        averaged=np.stack([e.cosine[0].mean(1).numpy() for e in found[False]]),
        shared=np.stack([e.cosine[0].mean(1).numpy() for e in found[True]]),
        fine=fine,
        expected=expected,
    )


@style.drawing
def draw_early(data: EarlyCourses) -> Figure:
    """Alignment and size of each layer over time, and alignment in noise over the number of runs."""
    figure, axes = style.new_figure(style.PAGE, 78, 1, 3)
    aligned, size, noisy = axes[0]
    depth = data.size.shape[1]
    names = ["outputs", *(f"{j} below" for j in range(1, depth))]
    for j, name in enumerate(names):
        k = depth - 1 - j
        style.series(j).plot(aligned, data.time, data.misaligned[:, k].clip(1e-17), label=name)
        style.series(j).plot(size, data.time, data.size[:, k], label=name)
    for ax in (aligned, size):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("Time after the nudge (time constants)")
    aligned.set_ylabel("1 $-$ cosine to $-\\delta$ (dimensionless)")
    aligned.set_title("direction of the first movements")
    style.legend(aligned, loc="upper left", ncols=2, title="layers", alignment="left")
    size.axhline(1, color=style.BLACK, lw=0.7, ls=(0, (4, 2)))
    size.set_ylabel("Size over $\\beta t^{j+1}/(j+1)!\\,|\\delta|$ (dimensionless)")
    size.set_title("size of the first movements")
    _draw_noise(noisy, data, names)
    return figure


def _draw_noise(ax: Axes, data: EarlyCourses, names: list[str]) -> None:
    depth = len(names)
    for j, name in enumerate(names[:3]):
        look, k = style.series(j), depth - 1 - j
        ax.plot(data.fine, data.expected[:, k], color=look.color, ls=look.line, label="_expected")
        look.plot(ax, data.runs, data.averaged[:, k], linestyle="", ms=4, label=f"averaged: {name}")
    worst = data.shared.min(1)
    style.Series(style.BLACK, (0, (4, 2)), "x").plot(
        ax, data.runs[: len(worst)], worst, mew=0.8, label=f"common random numbers: worst of {depth}"
    )
    ax.set_xscale("log")
    low = min(0.0, float(data.averaged.min()))
    ax.set_ylim(low - 0.05, 1.05)
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.set_title(f"temperature {style.scientific(data.temperature)}, {data.moment:g} time constants")
    ax.set_xlabel("Pairs of runs (count)")
    ax.set_ylabel("Cosine to $-\\delta$ (dimensionless)")
    style.legend(ax, loc="upper left", handlelength=2.2)


def make_early_inference(request: Request) -> Drawn:
    """Figure 'early_inference' of the catalogue."""
    if request.run is None:
        subject = before_digits(
            "five tanh layers",
            lambda n_in, n_out: LangevinHopfield(
                [n_in, 64, 64, 64, 64, n_out], gain=math.sqrt(3.0), seed=request.seed
            ),
            2,
        )
    else:
        subject = given(request, examples=8)
    data = early_courses(subject, seed=request.seed, progress=request.progress)
    return Drawn(draw_early(data), asdict(data))
