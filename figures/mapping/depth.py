"""What depth costs a mapped network: settling time, slack between h and u, damage of separate copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hardware_models import map_pcn
from physics_ep.cost import CrossEntropy
from physics_ep.errors import argument_error
from physics_ep.progress import SILENT, Progress, task
from physics_ep.storage.outputs import as_asked
from validation.theory.mapping_limits import (
    COPIES,
    copy_damage,
    disturbance_decay,
    mismatch_limit,
    random_network,
)

from .. import style
from ..requests import Drawn, Request

DEPTHS = (1, 2, 3, 5, 7, 10, 14, 20)
GAINS = (0.5, 3**0.5, 6**0.5)
GAIN_NAMES = {0.5: "gain 0.5", 3**0.5: "gain $\\sqrt{3}$", 6**0.5: "gain $\\sqrt{6}$"}
WIDTH = 64
EXAMPLES = 4
MISMATCH = 0.01
RESOLUTION = 0.05
"""Relative, of stability limits."""
INSTANCES = 3
SMALLEST = 1e-16
"""Bottom of the damage."""
PUBLISHED = {2: 19.0, 5: 29.0, 10: 44.0, 20: 72.0}
"""Depth to time constants, at large gain and width 128 (docs/physics.md, Settling time)."""
PUBLISHED_SMALL = (16.0, 20.0)
"""At gain 0.5, whatever the depth."""
CASES = {"one array": (), "separate transpose": ("transpose",), "three copies": COPIES}


@dataclass(frozen=True)
class DepthCosts:
    """Data of the figure of depth: what each more layer costs.

    Attributes
    ----------
    depths : ndarray (D,)
        Layers.
    gains : ndarray (G,)
    decay : ndarray (G, D)
        Time constants in which a disturbance of the free state falls to 1e-6, softplus units.
    estimate : ndarray (D,)
        What `Fidelity` says of nudged phases, time constants.
    slack : ndarray (G, D)
        Largest (tau_u - tau_h) / tau_h at which the free states of two examples are stable, tanh units; infinite if
        above 10.
    cases : tuple of str
        The arrays that are copies, case by case.
    damage : ndarray (C, D, R)
        1 - cosine to backprop of the instance's own network, worst tensor, tanh units; NaN without equilibrium.
    mismatch : float
        Relative standard deviation of cells in `damage`.
    """

    depths: np.ndarray
    gains: np.ndarray
    decay: np.ndarray
    estimate: np.ndarray
    slack: np.ndarray
    cases: tuple[str, ...]
    damage: np.ndarray
    mismatch: float


def depth_costs(
    depths: Sequence[int] = DEPTHS,
    gains: Sequence[float] = GAINS,
    *,
    width: int = WIDTH,
    instances: int = INSTANCES,
    seed: int = 0,
    progress: Progress | bool = SILENT,
) -> DepthCosts:
    """Measure what depth costs on random networks.

    Parameters
    ----------
    depths : sequence of int
    gains : sequence of float
        Gains of the networks whose settling times and stability limits are measured; damage is measured at sqrt(3).
    width : int
        Units a hidden layer.
    instances : int
        Instances of the device over which the damage is measured.
    seed : int
        Seed of the networks and inputs.
    progress : Progress
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(EXAMPLES, 20, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 10, (EXAMPLES,), generator=generator)
    options: dict[str, Any] = {"width": width, "seed": seed}
    shape = (len(gains), len(depths))
    decay, slack, estimate = np.full(shape, np.nan), np.full(shape, np.nan), np.full(len(depths), np.nan)
    damage = np.full((len(CASES), len(depths), instances), np.nan)
    # Longer networks take longer.
    with task(progress, "figure: costs of depth", sum(depths)) as advance:
        for d, depth in enumerate(depths):
            for g, gain in enumerate(gains):
                mapped = map_pcn(random_network(depth, "softplus", gain, **options))
                decay[g, d] = disturbance_decay(mapped, x, seed=seed)
                estimate[d] = mapped.fidelity.nudged_settling_time / mapped.system.tau
                slack[g, d] = mismatch_limit(
                    map_pcn(random_network(depth, "tanh", gain, **options)), x[:2], resolution=RESOLUTION
                )
            net = random_network(depth, "tanh", 3**0.5, **options)
            for c, copies in enumerate(CASES.values()):
                damage[c, d] = [
                    copy_damage(net, x, y, CrossEntropy(), copies, MISMATCH, seed=r) for r in range(instances)
                ]
            advance(depth, depth=depth)
    return DepthCosts(np.array(depths), np.array(gains), decay, estimate, slack, tuple(CASES), damage, MISMATCH)


@style.drawing
def draw_depth_costs(data: DepthCosts) -> Figure:
    """A row of three panels over depth."""
    figure, axes = style.new_figure(style.PAGE, 64, 1, 3)
    settling, slack, damage = axes[0]
    _draw_settling(settling, data)
    _draw_slack(slack, data)
    _draw_damage(damage, data)
    for ax in axes[0]:
        ax.set_xlim(0, 1.04 * data.depths[-1])
        ax.set_xlabel("Depth (layers)")
    return figure


def _name(gain: float) -> str:
    return GAIN_NAMES.get(gain, f"gain {gain:.3g}")


def _draw_settling(ax: Axes, data: DepthCosts) -> None:
    ax.axhspan(*PUBLISHED_SMALL, color=style.GREY, alpha=0.2, lw=0, label="published, gain 0.5")
    for g in reversed(range(len(data.gains))):
        style.series(g).plot(ax, data.depths, data.decay[g], label=_name(data.gains[g]))
    ax.plot(
        data.depths, data.estimate, color=style.BLACK, lw=0.8, ls=(0, (4, 2)), label="estimate, 2$L$ equal stages"
    )
    at = [depth for depth in PUBLISHED if depth <= data.depths[-1]]
    published = [PUBLISHED[depth] for depth in at]
    ax.plot(
        at,
        published,
        ls="none",
        marker="*",
        ms=6.5,
        mfc="white",
        mec=style.BLACK,
        mew=0.7,
        label="published, large gain",
        zorder=5,
    )
    ax.set_ylim(bottom=0)
    ax.set_ylabel("Disturbance falls to $10^{-6}$\n(time constants)")
    style.legend(ax, loc="upper left")
    ax.set_title("Settling, softplus units")


def _draw_slack(ax: Axes, data: DepthCosts) -> None:
    for g in reversed(range(len(data.gains))):
        found = np.isfinite(data.slack[g])
        if found.any():
            style.series(g).plot(ax, data.depths[found], data.slack[g][found], label=_name(data.gains[g]))
    never = [_name(gain) for gain, slack in zip(data.gains, data.slack, strict=True) if np.isinf(slack).all()]
    ax.set_yscale("log")
    if never:
        ax.annotate(
            f"{', '.join(never)}: no limit below 10",
            (0.97, 0.97),
            xycoords="axes fraction",
            fontsize="small",
            ha="right",
            va="top",
        )
    ax.set_ylabel("Largest $(\\tau_u - \\tau_h) / \\tau_h$ without\ngrowing modes (dimensionless)")
    style.legend(ax, loc="lower left")
    ax.set_title("How much slower $u$ may be, tanh units")


def _draw_damage(ax: Axes, data: DepthCosts) -> None:
    # One layer feeds nothing back.
    deep = data.depths > 1
    depths = data.depths[deep]
    for c, case in enumerate(data.cases):
        values, look = np.maximum(data.damage[c][deep], SMALLEST), style.series(c)
        found = np.isfinite(values).all(1)
        centre = np.exp(np.log(values[found]).mean(1))
        look.plot(ax, depths[found], centre, label=case)
        ax.fill_between(
            depths[found], values[found].min(1), values[found].max(1), color=look.color, alpha=0.2, lw=0
        )
        if not found.all():
            lost = f"{case}: no equilibrium"
            ax.plot(
                depths[~found],
                np.full((~found).sum(), 1.0),
                ls="none",
                marker="x",
                mew=0.9,
                color=look.color,
                label=lost,
            )
    ax.set_yscale("log")
    ax.set_ylim(SMALLEST / 10, 1e4)
    ax.set_yticks(10.0 ** np.arange(-16, 1, 4))
    ax.set_ylabel("1 \N{MINUS SIGN} cosine to backprop,\nworst tensor (dimensionless)")
    style.legend(ax, loc="upper left")
    ax.set_title(f"Cells off by {100 * data.mismatch:g} %, tanh units, gain $\\sqrt{{3}}$")


def make_settling_depth(request: Request) -> Drawn:
    """Figure 'settling_depth' of the catalogue."""
    if request.run is not None:
        raise argument_error(
            as_asked("--from", "run"),
            "be left out for settling_depth, which measures random networks",
            str(request.run),
        )
    data = depth_costs(seed=request.seed, progress=request.progress)
    return Drawn(draw_depth_costs(data), asdict(data))
