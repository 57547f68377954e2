"""EP in time: its running estimate in the nudged phase beside truncated backprop through time, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hardware_models.hopfield.network import ConvHopfieldNetwork
from physics_ep.cost import SquaredError
from physics_ep.data.datasets import digits
from physics_ep.progress import SILENT, Progress, task
from validation.theory.stepwise import StepwiseEstimates, stepwise

from .. import style
from ..requests import Drawn, Request
from ..subjects import Subject, fresh_hopfield, given

BETAS = (1e-2, 1e-3, 1e-4)
"""Each a factor of ten below the one before, so that an error O(beta^2) falls by a hundred."""
STEPS = 40
ALLOWED = 1e-4
"""What the two may differ by: relative, at every step, at the smallest beta."""


@dataclass(frozen=True)
class WeightCourse:
    """Gradient entries of one layer's weights over K steps.

    Attributes
    ----------
    name : str
        Name of the parameter.
    entries : tuple of int
        Places of the weights in the flattened parameter.
    ep, bptt : ndarray (K, entries)
        dC/dw in units of cost over coupling, at the largest beta.
    """

    name: str
    entries: tuple[int, ...]
    ep: np.ndarray
    bptt: np.ndarray


@dataclass(frozen=True)
class StepwisePanel:
    """One system: a few weights, and the difference of the whole gradients for several betas.

    Attributes
    ----------
    title : str
    layers : tuple of WeightCourse
    beta : ndarray (m,)
        Nudging strengths, in falling order.
    difference : ndarray (m, K)
        |ep - bptt| / |bptt| of all parameters as one vector.
    """

    title: str
    layers: tuple[WeightCourse, ...]
    beta: np.ndarray
    difference: np.ndarray


@dataclass(frozen=True)
class StepwiseCourses:
    """A row of panels a system."""

    panels: tuple[StepwisePanel, ...]


def fresh_convolutional(
    *, examples: int, seed: int = 0, dtype: torch.dtype = torch.float64, device: torch.device | None = None
) -> Subject:
    """Untrained small convolutional network with average pooling, before the first digits of the test set.

    Parameters
    ----------
    examples : int
        Size of the batch.
    seed : int
        Seed of the couplings.
    dtype, device
        Dtype and device of parameters and inputs.

    Returns
    -------
    Subject
        A network of tanh units, with the squared error as its cost.
    """
    data = digits()
    x = data.test_x[:examples]
    shape = (x.shape[1], x.shape[2], x.shape[3])
    system = ConvHopfieldNetwork(shape, [4, 6], data.n_outputs, "tanh", pooling="average", gain=0.5, seed=seed)
    place = torch.device("cpu") if device is None else device
    cost = SquaredError()
    y = cost.encode(data.test_y[:examples], data.n_outputs, dtype).to(place)
    return Subject("convolutional network", system.to(place, dtype), x.to(place, dtype), y, cost)


def bptt_equality(
    subjects: Sequence[Subject],
    betas: Sequence[float] = BETAS,
    *,
    steps: int = STEPS,
    progress: Progress | bool = SILENT,
) -> StepwiseCourses:
    """Both courses from one certified free state, in float64, a panel a subject.

    Parameters
    ----------
    subjects : sequence of Subject
    betas : sequence of float
        Nudging strengths, energy over cost; weights are shown at the largest.
    steps : int
        K, of the nudged phase and of the truncation.
    progress : Progress

    Returns
    -------
    StepwiseCourses

    Raises
    ------
    NotConverged
        If the free state is no equilibrium.
    """
    falling = sorted(betas, reverse=True)
    panels = []
    with task(progress, "figure: step by step", len(subjects) * len(falling)) as advance:
        for subject in subjects:
            courses = []
            for beta in falling:
                courses.append(stepwise(subject.system, subject.x, subject.y, subject.cost, beta=beta, steps=steps))
                advance(1)
            difference = np.stack([c.relative_difference.cpu().numpy() for c in courses])
            panels.append(StepwisePanel(subject.label, _layers(courses[0]), np.array(falling), difference))
    return StepwiseCourses(tuple(panels))


def _layers(course: StepwiseEstimates) -> tuple[WeightCourse, ...]:
    """The weights of each layer with the greatest and the least final gradient; biases are left out."""
    found = []
    for name, exact in course.bptt.items():
        if exact.ndim < 3:  # (K, n): biases
            continue
        truth, estimate = exact.flatten(1).cpu().numpy(), course.ep[name].flatten(1).cpu().numpy()
        entries = [int(truth[-1].argmax()), int(truth[-1].argmin())]
        found.append(WeightCourse(name, tuple(entries), estimate[:, entries], truth[:, entries]))
    return tuple(found)


@style.drawing
def draw_bptt_equality(data: StepwiseCourses) -> Figure:
    """A row a system: on the left EP's markers over BPTT's lines, on the right their relative difference."""
    rows = len(data.panels)
    figure, axes = style.new_figure(style.PAGE, 58 * rows, rows, 2)
    for pair, panel in zip(axes, data.panels, strict=True):
        _draw_weights(pair[0], panel)
        _draw_difference(pair[1], panel)
    style.same_limits(axes[:, 1])
    for ax in axes.flat:
        ax.set_xlabel("Steps $k$ (of the nudged phase, or unrolled)")
    return figure


def _draw_weights(ax: Axes, panel: StepwisePanel) -> None:
    steps = np.arange(1, panel.difference.shape[1] + 1)
    every = max(1, len(steps) // 10)
    for k, layer in enumerate(panel.layers):
        look = style.series(k)
        for j, (ep, bptt) in enumerate(zip(layer.ep.T, layer.bptt.T, strict=True)):
            look.plot(ax, steps, bptt, marker="", label=None if j else f"BPTT, layer {k + 1}")
            # Shifted along the curve, so that markers of neighbouring curves do not cover each other.
            look.plot(
                ax,
                steps,
                ep,
                linestyle="none",
                label=None if j else f"EP, layer {k + 1}",
                markevery=((k * every) // 3, every),
            )
    ax.axhline(0, color=style.GREY, lw=0.5)
    ax.set_ylabel("Gradient $dC/dw$ (cost / coupling)")
    ax.set_title(f"{panel.title}, $\\beta$ = {_power(panel.beta[0])}")
    style.legend(ax, loc="upper right", ncols=len(panel.layers), handlelength=2.6, columnspacing=1.0)


def _draw_difference(ax: Axes, panel: StepwisePanel) -> None:
    steps = np.arange(1, panel.difference.shape[1] + 1)
    every = max(1, len(steps) // 10)
    for k, (beta, difference) in enumerate(zip(panel.beta, panel.difference, strict=True)):
        style.series(k).plot(
            ax, steps, difference, label=f"$\\beta$ = {_power(beta)}", markevery=(k * every // 3, every)
        )
    # The largest beta's course, scaled: where a curve lies on its level, the difference is O(beta^2).
    for k, beta in enumerate(panel.beta[1:]):
        level = panel.difference[0] * (beta / panel.beta[0]) ** 2
        label = None if k else f"that of {_power(panel.beta[0])}, scaled as $\\beta^2$"
        # From the second step on: after the first, which is linear in beta, all of the difference is rounding.
        ax.plot(steps[1:], level[1:], color=style.BLACK, lw=3, alpha=0.25, label=label, zorder=1)
    ax.axhline(
        ALLOWED,
        color=style.BLACK,
        lw=0.7,
        ls=(0, (4, 2)),
        label=f"allowed at $\\beta$ = {_power(panel.beta[-1])}",
    )
    ax.set_yscale("log")
    ax.set_ylabel("Relative difference, EP \N{MINUS SIGN} BPTT\n(dimensionless)")
    ax.set_title(f"{panel.title}, all parameters")
    style.legend(ax, loc="upper right", ncols=2)


def _power(value: float) -> str:
    """A power of ten as such; another number in short."""
    exponent = np.log10(value)
    return f"$10^{{{exponent:.0f}}}$" if np.isclose(exponent, round(exponent)) else f"{value:g}"


def make_bptt_equality(request: Request) -> Drawn:
    """Figure 'bptt_equality' of the catalogue."""
    few: dict[str, Any] = {"examples": 8, **request.place()}
    fresh = {"seed": request.seed, **few}
    subjects = (
        [fresh_hopfield("dense network", [32, 24], "tanh", 0.5, **fresh), fresh_convolutional(**fresh)]
        if request.run is None
        else [given(request, **few)]
    )
    data = bptt_equality(subjects, progress=request.progress)
    return Drawn(draw_bptt_equality(data), asdict(data))
