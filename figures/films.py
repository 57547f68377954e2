"""Films of dynamics: GIF, or mp4 where the program ffmpeg is there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from physics_ep.errors import InputError, argument_error
from physics_ep.progress import SILENT, Progress, task
from physics_ep.storage.files import replacing
from physics_ep.storage.outputs import writing

from . import style
from .scenes import Scene, scenes

DPI = 110
FORMS = (".gif", ".mp4")


def film(
    courses: Any,
    path: str | os.PathLike[str],
    *,
    frames: int = 60,
    rate: float = 15.0,
    example: int = 0,
    width: float | str = 120,
    overwrite: bool = False,
    progress: Progress | bool = SILENT,
) -> Path:
    """Write a film of dynamics: the units as they move, and the energy and the residual up to then.

    Parameters
    ----------
    courses
        Trajectory, mapping of phases to them, Run that has some, CircuitTransients or PhasesOnCircle.
    path : path
        Ends in .gif, or in .mp4 where ffmpeg is there.
    frames : int
        Pictures of each phase, evenly spaced in time; at least 2.
    rate : float
        Pictures a second.
    example : int
        Number of the example in its batch, from 0.
    width : float or str
        Millimetres, 'column' or 'page', at 110 dots an inch.
    overwrite : bool
        Replace what is there.
    progress : Progress or bool

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If an argument is not as above, there is nothing that moves, or ffmpeg is missing.
    """
    form = Path(path).suffix.lower()
    if form not in FORMS:
        raise argument_error("path", f"end in {' or '.join(FORMS)}", repr(str(path)))
    if form == ".mp4" and shutil.which("ffmpeg") is None:
        raise argument_error("path", "end in .gif where there is no ffmpeg", repr(str(path)))
    if not isinstance(frames, int) or isinstance(frames, bool) or frames < 2:
        raise argument_error("frames", "be an integer of at least 2", frames)
    if not 0 < rate <= 100:
        raise argument_error("rate", "be above 0 and at most 100", rate)
    found = scenes(courses, example)
    with writing("figures.film", overwrite=overwrite) as call:
        place = call.claim("path", path)
        pictures = []
        with task(progress, "film", frames * len(found)) as advance:
            for scene in found:
                figure = draw_scene(scene, width=width)
                for at in np.linspace(0, len(scene.time) - 1, frames).astype(int).tolist():
                    pictures.append(_at(figure, scene, at))
                    advance(1)
        try:
            with replacing(place) as temporary:
                (_gif if form == ".gif" else _mp4)(pictures, temporary, rate)
        except OSError as error:
            raise InputError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error
    return place


@style.drawing
def draw_scene(scene: Scene) -> None:
    """The units at the end of a phase, and the courses of its energy and its residual."""
    places = [(0, 0)] if scene.circular else []
    _, axes = style.new_figure(120.0, 60.0, 1, 3, least=20, polar=places)
    units, energy, residual = axes[0]
    start = 0
    for k, (block, values) in enumerate(scene.states.items()):
        look, count = style.series(k), values.shape[1]
        if scene.circular:
            units.plot(
                values[-1], np.full(count, 1 - 0.18 * k), ls="", marker=look.marker, color=look.color, gid="units"
            )
        else:
            place = np.arange(start, start + count)
            units.plot(place, values[-1], ls="", marker=look.marker, color=look.color, label=block, gid="units")
        start += count
    if scene.circular:
        units.set_ylim(0, 1.1)
        units.set_yticklabels([])
    else:
        every = np.concatenate([values.ravel() for values in scene.states.values()])
        low, high = float(every.min()), float(every.max())
        units.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
        units.set_xlabel("Unit (number)")
        units.set_ylabel(f"State ({scene.state_unit})")
    units.set_title(scene.title)
    for ax, values, label in (
        (energy, scene.energy - scene.energy.min(), f"$F - F_\\mathrm{{min}}$ ({scene.energy_unit})"),
        (residual, scene.residual, f"Residual ({scene.residual_unit})"),
    ):
        seen = np.where(values > 0, values, np.nan)
        ax.plot(scene.time, seen, color=style.GREY, lw=0.8)
        ax.plot(scene.time[:1], seen[:1], color=style.BLACK, lw=1.2, marker="o", markevery=[-1], gid="course")
        ax.set_yscale("log")
        ax.set_xlabel(f"Time ({scene.time_unit})")
        ax.set_ylabel(label)


def _at(figure: Figure, scene: Scene, at: int) -> Image.Image:
    """The picture of a figure of a scene at one time."""
    units, energy, residual = style.panels(figure).values()
    markers = [line for line in units.lines if line.get_gid() == "units"]
    for line, values in zip(markers, scene.states.values(), strict=True):
        if scene.circular:
            line.set_xdata(values[at])
        else:
            line.set_ydata(values[at])
    for ax, values in ((energy, scene.energy - scene.energy.min()), (residual, scene.residual)):
        (line,) = [line for line in ax.lines if line.get_gid() == "course"]
        upto = slice(0, at + 1)
        line.set_data(scene.time[upto], np.where(values > 0, values, np.nan)[upto])
    figure.set_layout_engine("none")
    figure.set_dpi(DPI)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
    high, wide = (size - size % 2 for size in pixels.shape[:2])  # codecs want even numbers
    return Image.fromarray(pixels[:high, :wide, :3].copy())


def _even(pictures: list[Image.Image]) -> list[Image.Image]:
    """Pictures of one size, that of the largest, on white."""
    wide, high = (max(sizes) for sizes in zip(*(picture.size for picture in pictures), strict=True))
    found = []
    for picture in pictures:
        sheet = Image.new("RGB", (wide, high), "white")
        sheet.paste(picture, (0, 0))
        found.append(sheet)
    return found


def _gif(pictures: list[Image.Image], path: Path, rate: float) -> None:
    first, *rest = (picture.quantize(64) for picture in _even(pictures))
    first.save(path, format="gif", save_all=True, append_images=rest, duration=round(1000 / rate), loop=0)


def _mp4(pictures: list[Image.Image], path: Path, rate: float) -> None:
    even = _even(pictures)
    wide, high = even[0].size
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{wide}x{high}", "-r", f"{rate:g}", "-i", "-"]
    coded = ["-pix_fmt", "yuv420p", "-f", "mp4", str(path)]
    content = b"".join(picture.tobytes() for picture in even)
    program = ["ffmpeg", "-y", "-loglevel", "error", *raw, *coded]
    done = subprocess.run(program, input=content, capture_output=True, check=False)
    if done.returncode:
        told = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise InputError(f"ffmpeg cannot write {str(path)!r}: {told[-1]}.")
