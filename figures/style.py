"""One look for all figures: sizes of journal columns, colours that everyone can tell apart, files that repeat.

Series differ in colour, line style and marker at once, so that a figure survives a greyscale printer and a
colour-blind reader. Figures are built without pyplot: nothing global is left behind, and nothing needs closing.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from physics_ep.errors import InputError
from physics_ep.storage.files import checked_path, replacing
from physics_ep.storage.outputs import claim, writing

INCH = 25.4
ONE_COLUMN = 89.0
TWO_COLUMNS = 183.0
"""Widths in millimetres, as the Nature family and most two-column journals have them."""

PNG_DPI = 200
FORMATS = ("pdf", "png")
_DATES = {"pdf": ("CreationDate", "ModDate", "Producer"), "svg": ("Date",)}

BLACK, GREY = "#000000", "#7f7f7f"


@dataclass(frozen=True)
class Series:
    """How one series looks.

    Attributes
    ----------
    color : str
        From the palette of Okabe and Ito (2008), chosen to differ in lightness as well.
    line : tuple
        Dash pattern (offset, on-off lengths in line widths).
    marker : str
    """

    color: str
    line: tuple[float, tuple[float, ...] | None]
    marker: str

    def plot(self, ax: Axes, x: Any, y: Any, **options: Any) -> None:
        """Draw a line with markers in this look; options go to `Axes.plot` and win."""
        look = {"color": self.color, "linestyle": self.line, "marker": self.marker, **options}
        ax.plot(x, y, **look)


SERIES = (
    Series("#0072b2", (0, None), "o"),
    Series("#d55e00", (0, (5, 1.5)), "s"),
    Series("#009e73", (0, (3, 1, 1, 1)), "^"),
    Series("#cc79a7", (0, (1, 1)), "D"),
    Series("#e69f00", (0, (7, 1.5, 1, 1.5, 1, 1.5)), "v"),
    Series("#56b4e9", (0, (2, 2)), "P"),
)
"""Looks in the order in which a figure takes them."""


def series(k: int) -> Series:
    """Look number k; they repeat after six."""
    return SERIES[k % len(SERIES)]


_RC: Any = {
    # The one family that matplotlib brings along: the same file on every machine.
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "dejavusans",
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "legend.labelspacing": 0.35,
    "legend.borderaxespad": 0.3,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.labelpad": 2.5,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.2,
    "lines.markeredgewidth": 0.0,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # TrueType, embedded: text stays text, and journals accept it.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "pdf.compression": 6,
    "path.simplify": False,
}


@contextmanager
def applied() -> Iterator[None]:
    """The style within a `with` block, whatever the user's own matplotlib settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Figure, Any]:
    """Empty figure with a grid of axes; call it, and draw, within `applied()`.

    Parameters
    ----------
    width, height : float
        Millimetres.
    rows, columns : int
    **grid
        For `Figure.subplots`, such as sharex.

    Returns
    -------
    figure : Figure
    axes : array of Axes (rows, columns)
    """
    spacing = ConstrainedLayoutEngine(w_pad=2.5 / 72, h_pad=2.5 / 72, wspace=0.03, hspace=0.03)
    figure = Figure(figsize=(width / INCH, height / INCH), layout=spacing)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **grid)


def same_limits(axes: Iterable[Axes]) -> None:
    """Give all axes the vertical limits that hold all their data."""
    axes = list(axes)
    low = min(ax.get_ylim()[0] for ax in axes)
    high = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)


def letter(ax: Axes, text: str) -> None:
    """Bold panel letter at the upper left, outside the axes."""
    ax.annotate(
        text,
        (0, 1),
        xycoords="axes fraction",
        xytext=(-22, 4),
        textcoords="offset points",
        fontsize=8,
        fontweight="bold",
        va="bottom",
    )


def save(
    figure: Figure,
    name: str,
    folder: str | os.PathLike[str],
    formats: tuple[str, ...] = FORMATS,
    overwrite: bool = False,
) -> list[Path]:
    """Write a figure as FOLDER/NAME.pdf and FOLDER/NAME.png; the same figure gives the same bytes.

    The metadata tell which command or call wrote it.

    Parameters
    ----------
    figure : Figure
    name : str
    folder : path
        Made if missing.
    formats : tuple of str
    overwrite : bool
        Replace files that another command or call wrote.

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        If the folder cannot be written to, or holds a file of that name that something else wrote.
    """
    with writing("figures.style.save", overwrite=overwrite) as call:
        paths = claim_figure(name, folder, formats)
        for form, path in zip(formats, paths, strict=True):
            content = io.BytesIO()
            with applied():
                # Dates and versions of tools are left out: they would make equal figures differ.
                silent = dict.fromkeys(_DATES.get(form, ()))
                figure.savefig(content, format=form, dpi=PNG_DPI, metadata={**silent, **_mark(form, call.command)})
            try:
                with replacing(path) as temporary:
                    temporary.write_bytes(_compact(content, call.command) if form == "png" else content.getvalue())
            except OSError as error:
                raise InputError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error
    return paths


def claim_figure(name: str, folder: str | os.PathLike[str], formats: tuple[str, ...]) -> list[Path]:
    """Make sure that a figure's files may be written, within the call that runs (`storage.outputs`).

    Raises
    ------
    InputError
    """
    place = checked_path(folder, "out")
    return [claim(f"out ({name}.{form})", place / f"{name}.{form}") for form in formats]


def _mark(form: str, command: str) -> dict[str, str]:
    if form == "png":
        return {"Software": command}
    return {"Creator": command} if form in ("pdf", "svg", "eps", "ps") else {}


def _compact(png: io.BytesIO, command: str) -> bytes:
    """The same picture with a palette of 256 colours: a third of the bytes, no visible change."""
    content, marks = io.BytesIO(), PngInfo()
    for name, text in _mark("png", command).items():
        marks.add_text(name, text)
    picture = Image.open(png).convert("RGB").quantize(256)
    picture.save(content, format="png", optimize=True, dpi=(PNG_DPI, PNG_DPI), pnginfo=marks)
    return content.getvalue()
