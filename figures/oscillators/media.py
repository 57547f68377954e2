"""The FitzHugh-Nagumo medium: a travelling pulse, a stationary state and its spectrum, and why nobody shoots."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hardware_models.media.medium import FitzHughNagumoChain
from hardware_models.media.pulses import crossing_times, travelling_pulse
from hardware_models.media.recurrence import shooting
from physics_ep.errors import argument_error
from physics_ep.relaxation.loop import relax
from physics_ep.storage.trajectory import Trajectory

from .. import style
from ..requests import Drawn, Request
from ..subjects import Subject, before_digits, given

TOLERANCE = 1e-13
"""Residual to which the stationary state is solved."""
SLOW = 50.0
"""Factor on tau_v of the second spectrum."""


@dataclass(frozen=True)
class Medium:
    """A pulse around a ring, and a stationary state of a chain of n sites.

    Attributes
    ----------
    time : ndarray (T,)
        Times, in reaction times.
    place : ndarray (m,)
        Positions, in units of length.
    pulse : ndarray (T, m)
        u of the pulse.
    arrival : ndarray (m,)
        When it arrives at each place; NaN where it does not.
    speed : float
        Length per reaction time.
    label : str
        Name of the chain in the figure.
    position, u, v : ndarray (n,)
        The stationary state.
    residual : float
        Its largest force.
    tau_v : tuple of float
        For which spectra were taken ...
    spectra : tuple of ndarray (2 n,)
        ... complex rates of growth, per reaction time.
    error : ndarray (n,)
        Error of layers shot from the first layer of the stationary state, whose own error is rounding.
    growth, bound : ndarray (n,)
        Worst growth of a small error of the first layer, and what it cannot exceed.
    """

    time: np.ndarray
    place: np.ndarray
    pulse: np.ndarray
    arrival: np.ndarray
    speed: float
    label: str
    position: np.ndarray
    u: np.ndarray
    v: np.ndarray
    residual: float
    tau_v: tuple[float, ...]
    spectra: tuple[np.ndarray, ...]
    error: np.ndarray
    growth: np.ndarray
    bound: np.ndarray


def medium(subject: Subject, *, sites: int = 80, duration: float = 180.0) -> Medium:
    """Follow a pulse, and take a chain's stationary state on the subject's first example apart.

    Parameters
    ----------
    subject : Subject
        Its system is a FitzHugh-Nagumo chain with walls.
    sites : int
        Number of sites of the ring around which the pulse travels, spaced by 1.
    duration : float
        Duration, in reaction times.

    Returns
    -------
    Medium

    Raises
    ------
    InputError
        If the system is another one, or a sheet or a ring.
    NotConverged
        If there is no stationary state.
    """
    system = subject.system
    if not isinstance(system, FitzHughNagumoChain) or len(system.grid) != 1 or system.periodic:
        raise argument_error(
            "run", "hold a FitzHugh-Nagumo chain with walls for this figure", type(system).__name__
        )
    pulse = travelling_pulse(sites, spacing=1.0, duration=duration, rows=200)
    course = Trajectory(pulse.time, (pulse.u[:, None], pulse.v[:, None]), pulse.time[:, None], pulse.time[:, None])
    exact = copy.deepcopy(system).double().cpu()
    x = subject.x[:1].double().cpu()
    with torch.no_grad():
        rest = relax(exact, x, tolerance=TOLERANCE).require()
        shot = shooting(exact, rest.state, x)
        spectra, constants = [], (exact.tau_v, SLOW * exact.tau_v)
        for exact.tau_v in constants:
            spectra.append(exact.spectrum(rest.state, x)[0].numpy())
    return Medium(
        time=pulse.time.numpy(),
        place=pulse.position.numpy(),
        pulse=pulse.u.numpy(),
        arrival=crossing_times(course)[0].numpy(),
        speed=pulse.speed,
        label=subject.label,
        position=exact.positions()[0].numpy(),
        u=rest.state[0][0].numpy(),
        v=rest.state[1][0].numpy(),
        residual=float(rest.residual_si[0]),
        tau_v=constants,
        spectra=tuple(spectra),
        error=shot.error[0].numpy(),
        growth=shot.growth[0].numpy(),
        bound=shot.bound[0].numpy(),
    )


@style.drawing
def draw_medium(data: Medium) -> Figure:
    """Space and time of the pulse; the stationary state, its spectra, and errors of shooting along the layers."""
    figure, axes = style.new_figure(style.PAGE, 118, 2, 2)
    _draw_pulse(axes[0, 0], data)
    state, spectrum, errors = axes[0, 1], axes[1, 0], axes[1, 1]
    every = max(1, len(data.position) // 12)
    for k, (values, name) in enumerate(((data.u, "$u$, descends $E$"), (data.v, "$v$, ascends $E$"))):
        style.series(k).plot(state, data.position, values, label=name, markevery=(k * every // 2, every))
    state.set_xlabel("Position (units of length)")
    state.set_ylabel("$u$ and $v$ (dimensionless)")
    state.set_title(f"{data.label}: stationary state")
    style.legend(state, loc="upper right", ncols=2)
    for k, (tau, rates) in enumerate(zip(data.tau_v, data.spectra, strict=True)):
        unstable = int((rates.real > 0).sum())
        told = f"{unstable} modes grow" if unstable else "stable"
        look = style.series(k)
        style.Series(look.color, look.line, ("o", "+")[k]).plot(
            spectrum,
            rates.real,
            rates.imag,
            linestyle="",
            ms=(2.2, 4.5)[k],
            mew=0.6 * k,
            label=f"$\\tau_v$ = {tau:g}: {told}",
        )
    spectrum.axvline(0, color=style.BLACK, lw=0.7, ls=(0, (4, 2)))
    spectrum.set_xlabel("Rate of growth (1 / reaction time)")
    spectrum.set_ylabel("Angular frequency (1 / reaction time)")
    spectrum.set_title("spectrum of the stationary state")
    style.legend(spectrum, loc="upper left")
    _draw_errors(errors, data)
    return figure


def _draw_pulse(ax: Axes, data: Medium) -> None:
    extent = (0.0, float(data.place[-1] + data.place[1]), 0.0, float(data.time[-1]))
    drawn = ax.imshow(
        data.pulse, origin="lower", extent=extent, aspect="auto", cmap="Blues", interpolation="nearest", vmin=-0.3
    )
    style.colorbar(drawn, ax, pad=0.02, label="$u$ (dimensionless)")
    n = len(data.place)
    middle = slice(n // 4, n - n // 4)
    place = data.place[middle]
    line = np.nanmean(data.arrival[middle]) + (place - place.mean()) / data.speed
    style.series(1).plot(ax, place, line, marker="", label="constant speed")
    ax.set_ylim(0, float(data.time[-1]))
    ax.set_xlabel("Position around the ring (units of length)")
    ax.set_ylabel("Time (reaction times)")
    ax.set_title("a travelling pulse")
    style.legend(ax, loc="upper left")


def _draw_errors(ax: Axes, data: Medium) -> None:
    layer = np.arange(1, len(data.error) + 1)
    rounding = np.finfo(float).eps
    every = max(1, len(layer) // 12)
    clear = data.error > 0
    clear &= np.isfinite(data.error) & (np.cumsum(data.error > 1e3) == 0)
    style.series(1).plot(
        ax, layer[clear], data.error[clear], label="measured: $u$ or $v$ off by", markevery=(0, every)
    )
    for k, values, name in ((0, data.growth, "worst, transfer matrices"), (2, data.bound, "bound")):
        seen = rounding * values < 1e8
        style.series(k).plot(
            ax, layer[seen], rounding * values[seen], label=name, markevery=(k * every // 3, every)
        )
    ax.axhline(1.0, color=style.BLACK, lw=0.7, ls=(0, (4, 2)))
    ax.set_yscale("log")
    ax.set_xlabel("Layer (count)")
    ax.set_ylabel("Error of shooting (dimensionless)")
    ax.set_title("shooting from layer to layer")
    style.legend(ax, loc="upper left")


def make_medium(request: Request) -> Drawn:
    """Figure 'medium' of the catalogue."""
    if request.run is None:
        options: dict[str, Any] = {"diffusion_u": 1.0, "diffusion_v": 1.0, "gain": 3.0, "seed": request.seed}
        subject = before_digits(
            "chain on a digit", lambda n_in, n_out: FitzHughNagumoChain([n_in, 80, n_out], **options), 1
        )
    else:
        subject = given(request, examples=1)
    with request.progress.task("figure: medium", 1) as advance:
        data = medium(subject)
        advance(1)
    return Drawn(draw_medium(data), asdict(data))
