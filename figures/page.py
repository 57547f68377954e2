"""The page that a figure's panels stand on: how many columns its width has room for, and where texts go.

Drawing functions say what a panel holds; this says where panels, letters, legends, colour bars and titles are, by
measuring texts as they are drawn. So a figure can be made for a column or a page, whole or in parts, in any font.
"""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import Collection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.path import Path
from matplotlib.spines import Spine
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from physics_ep.errors import argument_error

INCH = 25.4
RC: Any = mpl.rcParams
"""matplotlib's settings, whose keys its stubs list one by one."""
LEAST = 0.9
"""A panel may be narrower than its figure has it by this factor before the page gets fewer columns."""
TALLEST, LOWEST = 234.0, 38.0
"""Millimetres of a page's height that panels which are stacked share, as long as each has the second."""
ROUNDS = 5
"""How often texts are measured and moved; each moves what the one before has displaced."""
CORNERS = (
    "upper right",
    "upper left",
    "lower left",
    "lower right",
    "center right",
    "center left",
    "upper center",
    "lower center",
)
GAP = 2.0
"""Between a legend above a panel and what is next to it, points."""

Handles = tuple[Axes, Any, Any, dict[str, Any]]

KNOWN: WeakKeyDictionary[Figure, dict[str, Axes]] = WeakKeyDictionary()
"""Panels of finished figures by letter."""


@contextmanager
def within(settings: Mapping[str, Any]) -> Iterator[None]:
    """Within this context, exactly these rcParams hold, over matplotlib's defaults."""
    with mpl.rc_context():
        mpl.rcdefaults()
        RC.update(settings)
        yield


class PaperFigure(Figure):
    """A figure that is drawn and saved with the rcParams that it was made with, whatever holds by then."""

    settings: Mapping[str, Any] = {}
    redraw: Callable[..., Figure]
    """Draws the same data again, in the same look but for what is told: `figure.redraw(width=85)`."""

    def draw(self, renderer: Any) -> None:
        """Draw the figure with the rcParams that it was made with."""
        with within(self.settings):
            super().draw(renderer)

    def savefig(self, fname: Any, **options: Any) -> None:
        """Save the figure with the rcParams that it was made with; arguments as those of matplotlib."""
        with within(self.settings):
            super().savefig(fname, **options)


class Page:
    """A figure in the making.

    Parameters
    ----------
    width, height : float or None
        Millimetres; None: the figure's own.
    wanted : tuple of str
        Letters of the panels to keep; none: all.
    given : tuple of Axes
        The user's, one a panel.
    settings : mapping
        The rcParams.
    dress : bool
        Whether labels, titles and ticks of the user's axes take the settings too.
    """

    def __init__(
        self,
        width: float | None,
        height: float | None,
        wanted: tuple[str, ...],
        given: tuple[Axes, ...],
        settings: Mapping[str, Any],
        dress: bool = False,
    ) -> None:
        self.dress = dress
        self.width, self.height = width, height
        self.wanted, self.given = wanted, given
        self.figure: Any = PaperFigure()
        self.figure.settings = settings
        self.panels: dict[str, Axes] = {}
        self.legends: list[Handles] = []
        self.bars: list[tuple[Any, list[Axes], Callable[[Any], None] | None, dict[str, Any]]] = []
        self.shared: tuple[list[Any], list[str]] | None = None
        self._placed: dict[Axes, tuple[Legend, str]] = {}
        self._above: set[Axes] = set()
        self._lifted: dict[Axes, float] = {}
        self._grown: dict[int, float] = {}
        self._letters: dict[Axes, Annotation] = {}

    def begin(
        self,
        width: float,
        height: float,
        rows: int,
        columns: int,
        *,
        count: int | None = None,
        whole: Sequence[int] = (),
        polar: Sequence[tuple[int, int]] = (),
        letters: str = "",
        least: float | None = None,
        **grid: Any,
    ) -> tuple[Figure, Any]:
        """Make the figure and its panels.

        Parameters
        ----------
        width, height : float
            The figure's own, mm.
        rows, columns : int
        count : int, optional
            Panels, the last row may be short of some; their places hold None.
        whole : sequence of int
            Rows with one panel only.
        polar : sequence of (row, column)
            Panels with polar axes.
        letters : str
            Letters that name the panels, row by row; default in the order of the alphabet. Panels of one letter are
            asked for together.
        least : float, optional
            Width that a panel must have, mm; default that in the figure's own size, nearly.
        **grid
            For `Figure.subplots`.
        """
        self.own = (width, height)
        self.columns, self.whole = columns, tuple(whole)
        self.least = LEAST * width / columns if least is None else least
        ratios = grid.get("height_ratios") or grid.get("gridspec_kw", {}).get("height_ratios") or [1.0] * rows
        self.tall = [height * ratio / sum(ratios) for ratio in ratios]
        spacing = ConstrainedLayoutEngine(w_pad=2.5 / 72, h_pad=2.5 / 72, wspace=0.03, hspace=0.03)
        figure = self.figure
        figure.set_layout_engine(spacing)
        figure.set_size_inches((self.width or width) / INCH, (self.height or height) / INCH)
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False, **grid)
        for row in whole:
            place = axes[row, 0].get_gridspec()[row, :]
            for ax in axes[row, 1:]:
                ax.remove()
            axes[row, 0].set_subplotspec(place)
            axes[row, 1:] = None
        for at in polar:
            place = axes[at].get_subplotspec()
            axes[at].remove()
            axes[at] = figure.add_subplot(place, projection="polar")
        panels = rows * columns if count is None else count
        for at in np.ndindex(axes.shape):
            if at[0] * columns + at[1] >= panels and axes[at] is not None:
                axes[at].remove()
                axes[at] = None
        self._name(axes, letters)
        return figure, axes

    def _name(self, axes: Any, letters: str) -> None:
        """Give panels their letters, and the user's axes the place of those that were asked for."""
        places = [at for at in np.ndindex(axes.shape) if axes[at] is not None]
        known = list(letters) or [*string.ascii_lowercase, *(f"a{c}" for c in string.ascii_lowercase)]
        groups: dict[str, list[str]] = {}
        for name in known[: len(places)]:
            alike = groups.setdefault(name, [])
            alike.append(f"{name}{len(alike) + 1}" if alike else name)
        turns = {name: iter(alike) for name, alike in groups.items()}
        names = [next(turns[name]) for name in known[: len(places)]]
        self.rows = {names[k]: at[0] for k, at in enumerate(places)}
        alphabetic = sorted(groups, key=lambda name: (len(name), name))
        for name in self.wanted:
            if name not in groups:
                has = "one panel, a" if len(places) == 1 else f"panels {alphabetic[0]} to {alphabetic[-1]}"
                raise argument_error("panels", f"be of this figure, which has {has}", repr("".join(self.wanted)))
        kept = tuple(panel for name in self.wanted or alphabetic for panel in groups[name])
        if self.given:
            if len(kept) != len(self.given):
                told = f"{len(kept)} panels ({', '.join(kept)})"
                raise argument_error("ax", f"be as many Axes as there are {told}", len(self.given))
            for name, ax in zip(kept, self.given, strict=True):
                at = places[names.index(name)]
                if ax.name != axes[at].name:
                    raise argument_error("ax", f"have the projection {axes[at].name!r} for panel {name}", ax.name)
                axes[at] = ax
        own: dict[str, Axes] = {names[k]: axes[at] for k, at in enumerate(places)}
        self.panels = {name: own[name] for name in kept}
        self.hidden: list[Axes] = [panel for name, panel in own.items() if name not in kept]

    # -- finishing -------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Lay the figure out: legends where they cover no data, long texts broken."""
        if self.given:
            self._into_axes()
            return
        for panel in self.hidden:
            panel.remove()
        self._arrange()
        for drawn, parents, after, options in self.bars:
            there = [ax for ax in parents if ax in self.panels.values()]
            if there:
                bar = self.figure.colorbar(drawn, ax=there, **options)
                if after is not None:
                    after(bar)
        self._write_letters()
        _repaint(self.figure)
        shown = list(self.panels.values())
        asked = {ax: (handles, labels, options) for ax, handles, labels, options in self.legends if ax in shown}
        for ax, told in asked.items():
            self._inside(ax, told, told[2].get("loc", "upper right"))
        self._draw_shared()
        for _ in range(ROUNDS):
            self.figure.draw_without_rendering()
            moved = self._thin_ticks() | self._fit_texts()
            for ax, told in asked.items():
                moved |= self._settle(ax, told)
            if not moved:
                break
        KNOWN[self.figure] = dict(zip(string.ascii_lowercase, self.panels.values(), strict=False))

    def _into_axes(self) -> None:
        """What belongs to panels in the user's own axes, whose figure keeps its layout."""
        first = self.given[0]
        self.figure = first.get_figure(root=True)
        for drawn, parents, after, options in self.bars:
            there = [ax for ax in parents if ax in self.given]
            if there:
                bar = there[0].figure.colorbar(drawn, ax=there, **options)
                if after is not None:
                    after(bar)
        for ax, handles, labels, options in self.legends:
            if ax in self.given:
                _make_legend(ax, (handles, labels, options), loc="best")
        if self.shared is not None and self.shared[0]:
            own = first.get_legend()
            more = first.legend(*self.shared, loc="best")
            if own is not None:
                first.add_artist(own)
            first.legend_ = more
        for ax in self.given:
            if self.dress:
                _dress(ax)
            _repaint_axes(ax)

    def _arrange(self) -> None:
        """Put the panels into as many columns as have room, each row as high as in the figure's own size."""
        kept = list(self.panels)
        width = self.width
        if width is None:
            share = min(len(kept), self.columns) / self.columns
            width = max(share * self.own[0], min(self.own[0], 60.0)) if self.wanted else self.own[0]
        columns = max(1, min(self.columns, len(kept), int(width / self.least + 1e-6)))
        if not self.wanted and columns == self.columns:
            self.figure.set_size_inches(width / INCH, (self.height or self.own[1]) / INCH)
            self._label_outer(self._grid_of(kept))
            return
        rows: list[list[str]] = []
        for name in kept:
            alone = self.rows[name] in self.whole
            if not rows or alone or len(rows[-1]) == columns or self.rows[rows[-1][0]] in self.whole:
                rows.append([])
            rows[-1].append(name)
        tall = [max(self.tall[self.rows[name]] for name in row) for row in rows]
        high = min(sum(tall), max(TALLEST, LOWEST * len(rows)))
        self.figure.set_size_inches(width / INCH, (self.height or high) / INCH)
        grid = self.figure.add_gridspec(len(rows), columns, height_ratios=tall)
        for i, row in enumerate(rows):
            for j, name in enumerate(row):
                alone = self.rows[name] in self.whole
                self.panels[name].set_subplotspec(grid[i, :] if alone else grid[i, j])
        self._label_outer(rows)

    def _grid_of(self, kept: list[str]) -> list[list[str]]:
        """Letters by the rows and columns that they stand in."""
        found: dict[int, dict[int, str]] = {}
        for name in kept:
            place = self.panels[name].get_subplotspec()
            assert place is not None
            found.setdefault(place.rowspan.start, {})[place.colspan.start] = name
        return [[row[k] for k in sorted(row)] for _, row in sorted(found.items())]

    def _label_outer(self, rows: list[list[str]]) -> None:
        """Labels and numbers of an axis that two neighbours share are told once."""
        for i, row in enumerate(rows):
            for j, name in enumerate(row):
                ax = self.panels[name]
                if ax.name == "polar" or not ax.axison:
                    continue
                left = self.panels[row[j - 1]] if j else None
                again = left is not None and ax.get_shared_y_axes().joined(ax, left)
                if not left or again:
                    ax.tick_params(axis="y", which="both", labelleft=not again)
                    same = left is not None and (left.get_ylabel() == ax.get_ylabel() or not ax.get_ylabel())
                    ax.yaxis.label.set_visible(not (again and same))
                below = self.panels[rows[i + 1][j]] if i + 1 < len(rows) and j < len(rows[i + 1]) else None
                shares = ax.get_shared_x_axes()
                again = below is not None and shares.joined(ax, below)
                if again or any(shares.joined(ax, other) for other in self.panels.values() if other is not ax):
                    ax.tick_params(axis="x", which="both", labelbottom=not again)
                    ax.xaxis.label.set_visible(not again)
        self._complete_labels(rows)

    def _complete_labels(self, rows: list[list[str]]) -> None:
        """A panel that has lost the neighbour which bore its label bears it itself."""
        for row in rows:
            ax = self.panels[row[0]]
            if ax.axison and not ax.get_ylabel():
                twins: list[Axes] = [o for o in (*self.panels.values(), *self.hidden) if o.get_ylabel()]
                told = [o.get_ylabel() for o in twins if o.yaxis.get_scale() == ax.yaxis.get_scale()]
                if told and ax.get_shared_y_axes().get_siblings(ax) != [ax]:
                    ax.set_ylabel(told[0])

    def _write_letters(self) -> None:
        """Bold letters at the upper left, outside the axes; none for a single panel."""
        if len(self.panels) == 1:
            return
        size = RC["font.size"]
        for name, ax in zip(string.ascii_lowercase, self.panels.values(), strict=False):
            bare = not ax.axison
            self._letters[ax] = ax.annotate(
                name,
                (0, 1),
                xycoords="axes fraction",
                xytext=(0 if bare else -3.1 * size, 0 if bare else 0.6 * size),
                textcoords="offset points",
                fontsize="large",
                fontweight="bold",
                va="top" if bare else "bottom",
            )

    # -- legends ---------------------------------------------------------------------------------------------------

    def _inside(self, ax: Axes, told: tuple[Any, Any, dict[str, Any]], loc: str) -> None:
        self._placed[ax] = (_make_legend(ax, told, loc=loc), loc)

    def _settle(self, ax: Axes, told: tuple[Any, Any, dict[str, Any]]) -> bool:
        """Move a panel's legend to where it covers nothing; whether anything has changed."""
        legend, loc = self._placed[ax]
        box = legend.get_window_extent()
        if ax in self._above:
            cell = _cell(ax)
            if legend._ncols > 1 and box.x1 > cell.x1:  # type: ignore[attr-defined]
                self._raise(ax, told, legend._ncols - 1)  # type: ignore[attr-defined]
                return True
            return False
        obstacles = list(_obstacles(ax))
        inner = ax.get_window_extent()
        tried = [loc, *(corner for corner in CORNERS if corner != loc)]
        for corner in tried:
            place = _at_corner(box, inner, corner)
            if place is not None and not any(hits(place) for hits in obstacles):
                if corner == loc and legend._loc_real == Legend.codes[loc]:  # type: ignore[attr-defined]
                    return False
                self._inside(ax, told, corner)
                return False
        self._raise(ax, told)
        return True

    def _raise(self, ax: Axes, told: tuple[Any, Any, dict[str, Any]], most: int = 6) -> None:
        """Put a panel's legend above it, in as many columns as fit, and its title above that."""
        before = self._lifted.get(ax, 0.0)
        self._above.add(ax)
        handles, labels, options = told
        inner = ax.get_window_extent()
        cell = _cell(ax)
        room, shift = inner.width, 0.0
        many = len(self._placed[ax][0].get_texts())
        legend = None
        for columns in range(min(many, most), 0, -1):
            more = {**options, "ncols": columns, "columnspacing": 1.2, "borderaxespad": 0.0, "borderpad": 0.1}
            legend = _make_legend(ax, (handles, labels, more), loc="lower left", bbox_to_anchor=(0.0, 1.0))
            wide = legend.get_window_extent().width
            if wide <= room or columns == 1:
                if wide > room:
                    shift = -min(wide - room, inner.x0 - cell.x0)
                break
        assert legend is not None
        points = 72.0 / self.figure.dpi
        high = legend.get_window_extent().height * points
        legend.set_bbox_to_anchor((shift / inner.width, 1.0 + GAP / (inner.height * points)), ax.transAxes)
        self._placed[ax] = (legend, "above")
        if ax.get_title():
            ax.set_title(ax.get_title(), pad=high + 2 * GAP)
        if ax in self._letters:
            x, y = self._letters[ax].xyann
            self._letters[ax].xyann = (x, y + high + GAP - before)
        self._lifted[ax] = high + GAP
        self._grow(ax, high + GAP)

    def _grow(self, ax: Axes, points: float) -> None:
        """Make the page higher by what stands above a row of panels, where nobody asked for a height."""
        place = ax.get_subplotspec()
        if self.height is not None or place is None:
            return
        row = place.rowspan.start
        more = max(0.0, points - self._grown.get(row, 0.0))
        self._grown[row] = self._grown.get(row, 0.0) + more
        wide, tall = self.figure.get_size_inches()
        self.figure.set_size_inches(wide, tall + more / 72)

    def _draw_shared(self) -> None:
        """One legend above all panels, in as many columns as its figure has room for."""
        if self.shared is None or not self.shared[0]:
            return
        handles, labels = self.shared
        side = "lower" if self.figure.get_suptitle() else "upper"
        for columns in range(min(len(labels), 8), 0, -1):
            legend = self.figure.legend(handles, labels, loc=f"outside {side} center", ncols=columns)
            if columns == 1 or legend.get_window_extent().width <= self.figure.bbox.width - 6:
                return
            legend.remove()

    # -- texts -----------------------------------------------------------------------------------------------------

    def _fit_texts(self) -> bool:
        """Break titles and labels that are longer than their panel; whether any was."""
        moved = False
        for ax in self.figure.axes:
            inner, cell = ax.get_window_extent(), _cell(ax)
            if not ax.axison:
                continue
            for text, room, along in (
                (ax.title, cell.width - 2 * max(0.0, inner.x0 - cell.x0), "width"),
                (ax.xaxis.label, 1.1 * inner.width, "width"),
                (ax.yaxis.label, 1.1 * inner.height, "height"),
            ):
                least = inner.width if along == "width" else inner.height
                moved |= text.get_visible() and _wrap(text, max(room, least), along)
        return moved

    def _thin_ticks(self) -> bool:
        """Leave out every other number where numbers of an axis run into each other; whether any did."""
        moved = False
        for ax in self.figure.axes:
            if ax.name == "polar":
                continue
            for axis, side in ((ax.xaxis, 0), (ax.yaxis, 1)):
                shown = [label for label in axis.get_ticklabels() if label.get_visible() and label.get_text()]
                inner = ax.get_window_extent()
                low, high = (inner.x0, inner.x1) if side == 0 else (inner.y0, inner.y1)
                boxes = [label.get_window_extent() for label in shown]
                order = [
                    k
                    for k in np.argsort([b.x0 if side == 0 else b.y0 for b in boxes]).tolist()
                    if low - 1 <= _middle(boxes[k], side) <= high + 1
                ]
                pairs = itertools.pairwise(order)
                if not any(_runs_into(boxes[a], boxes[b], side) for a, b in pairs):
                    continue
                kept = {shown[k] for k in order[::2]}
                texts = {label.get_text() for label in kept}
                places = axis.get_majorticklocs()
                told = [label.get_text() if label.get_text() in texts else "" for label in axis.get_ticklabels()]
                axis.set_ticks(places, told)
                moved = True
        return moved


def _middle(box: Bbox, side: int) -> float:
    return 0.5 * ((box.x0 + box.x1) if side == 0 else (box.y0 + box.y1))


def _runs_into(a: Bbox, b: Bbox, side: int) -> bool:
    gap = b.x0 - a.x1 if side == 0 else b.y0 - a.y1
    return gap < (1.5 if side == 0 else 0.0)


def _cell(ax: Axes) -> Bbox:
    """The part of the figure that a panel may use."""
    place = ax.get_subplotspec()
    if place is None:
        return ax.get_window_extent()
    grid = place.get_gridspec()
    figure = ax.get_figure(root=True)
    assert figure is not None
    wide = figure.bbox.width / grid.ncols
    tall = figure.bbox.height / grid.nrows
    x0, x1 = place.colspan.start * wide, place.colspan.stop * wide
    y1 = figure.bbox.height - place.rowspan.start * tall
    return Bbox([[x0, y1 - (place.rowspan.stop - place.rowspan.start) * tall], [x1, y1]])


def _make_legend(ax: Axes, told: tuple[Any, Any, dict[str, Any]], **place: Any) -> Legend:
    handles, labels, options = told
    more = {**options, **place}
    if handles is None:
        return ax.legend(**more)
    return ax.legend(handles, labels, **more) if labels is not None else ax.legend(handles=handles, **more)


def _at_corner(box: Bbox, inner: Bbox, corner: str) -> Bbox | None:
    """The box at a corner of the axes; None where it does not fit."""
    pad = 2.0
    wide, tall = box.width + 2 * pad, box.height + 2 * pad
    if wide > inner.width or tall > 0.75 * inner.height:
        return None
    vertical, _, horizontal = corner.rpartition(" ")
    x = {"left": inner.x0, "right": inner.x1 - wide, "center": inner.x0 + 0.5 * (inner.width - wide)}[horizontal]
    y = {"upper": inner.y1 - tall, "lower": inner.y0, "center": inner.y0 + 0.5 * (inner.height - tall)}[vertical]
    return Bbox([[x, y], [x + wide, y + tall]])


def _obstacles(ax: Axes) -> Iterator[Callable[[Bbox], bool]]:
    """What a legend must not cover: for each thing drawn, whether a box does."""
    if ax.images:
        yield lambda box: True
    for artist in ax.get_children():
        if not artist.get_visible():
            continue
        if isinstance(artist, Line2D):
            yield from _line(artist)
        elif isinstance(artist, Collection):
            clear = artist.get_transform()
            for path in artist.get_paths():
                yield _crossed(clear.transform_path(path), True)
        elif isinstance(artist, Patch) and not isinstance(artist, Spine) and artist is not ax.patch:
            yield _crossed(artist.get_transform().transform_path(artist.get_path()), bool(artist.get_fill()))
        elif isinstance(artist, Text) and artist.get_text() and artist is not ax.title:
            extent = artist.get_window_extent()
            yield lambda box, extent=extent: bool(box.overlaps(extent))  # type: ignore[misc]


def _line(line: Line2D) -> Iterator[Callable[[Bbox], bool]]:
    path = line.get_transform().transform_path(line.get_path())
    reach = 0.5 * line.get_markersize() * line.get_figure(root=True).dpi / 72 + 1.0  # type: ignore[union-attr]
    vertices: Any = path.vertices
    points = vertices[np.isfinite(vertices).all(1)]
    if line.get_marker() not in ("", "None", None, " ") and len(points):
        yield lambda box: bool(
            (
                (points[:, 0] > box.x0 - reach)
                & (points[:, 0] < box.x1 + reach)
                & (points[:, 1] > box.y0 - reach)
                & (points[:, 1] < box.y1 + reach)
            ).any()
        )
    if line.get_linestyle() not in ("None", "", " ") and len(points) > 1:
        yield _crossed(path, False)


def _crossed(path: Path, filled: bool) -> Callable[[Bbox], bool]:
    """Whether a path runs through a box; across gaps where points are missing it does not."""
    vertices: Any = path.vertices
    if not filled:
        finite = np.isfinite(vertices).all(1)
        codes = np.where(np.concatenate([[True], ~finite[:-1]]), Path.MOVETO, Path.LINETO)
        path = Path(vertices[finite], codes[finite]) if path.codes is None else path.cleaned(remove_nans=True)
    return lambda box: bool(len(vertices) and path.intersects_bbox(box, filled))


_BREAKS = re.compile(r"(\$[^$]*\$|\s+)")


def _wrap(text: Text, room: float, along: str) -> bool:
    """Break a text at blanks outside of formulas, so that no line is longer than the room; whether it was."""
    told = text.get_text()
    if not told or getattr(text.get_window_extent(), along) <= room:
        return False
    words: list[str] = []
    for line in told.split("\n"):
        current = ""
        for part in _BREAKS.split(line):
            if part.isspace():
                words.append(current)
                current = ""
            else:
                current += part
        words.append(current)
    words = [word for word in words if word]
    lines, line = [], ""
    for word in words:
        longer = f"{line} {word}".strip()
        text.set_text(longer)
        if line and getattr(text.get_window_extent(), along) > room:
            lines.append(line)
            line = word
        else:
            line = longer
    broken = "\n".join([*lines, line])
    text.set_text(broken)
    return broken != told


def _dress(ax: Axes) -> None:
    """Give labels, titles and ticks of axes that were made elsewhere the rcParams that hold now."""
    family = RC["font.family"]

    def points(key: str) -> float:
        return FontProperties(size=RC[key]).get_size_in_points()

    def put(text: Text, key: str, **more: Any) -> None:
        text.set(fontfamily=family, fontsize=points(key), **more)

    title: Any = "text.color" if RC["axes.titlecolor"] == "auto" else "axes.titlecolor"
    put(ax.title, "axes.titlesize", fontweight=RC["axes.titleweight"], color=RC[title])
    for axis, name in ((ax.xaxis, "xtick"), (ax.yaxis, "ytick")):
        put(axis.label, "axes.labelsize", fontweight=RC["axes.labelweight"], color=RC["axes.labelcolor"])
        put(axis.get_offset_text(), f"{name}.labelsize")
        told = RC[f"{name}.labelcolor"]
        numbers = {
            "labelsize": points(f"{name}.labelsize"),
            "labelfontfamily": family,
            "labelcolor": RC[f"{name}.color"] if told == "inherit" else told,
            "color": RC[f"{name}.color"],
            "direction": RC[f"{name}.direction"],
        }
        for which in ("major", "minor"):
            size = {"length": RC[f"{name}.{which}.size"], "width": RC[f"{name}.{which}.width"]}
            axis.set_tick_params(which=which, **numbers, **size)


def _repaint(figure: Figure) -> None:
    for ax in figure.axes:
        _repaint_axes(ax)


def _repaint_axes(ax: Axes) -> None:
    """Black lines and white fillings become the text's and the background's where a style has others."""
    ink, paper = RC["text.color"], ax.get_facecolor()
    if to_hex(ink) == "#000000" and to_hex(paper) == "#ffffff":
        return
    for artist in ax.get_children():
        if artist is ax.patch:
            continue
        if isinstance(artist, Line2D):
            for get, put in (
                (artist.get_color, artist.set_color),
                (artist.get_markeredgecolor, artist.set_markeredgecolor),
                (artist.get_markerfacecolor, artist.set_markerfacecolor),
            ):
                _exchange(get, put, ink, paper)
        elif isinstance(artist, Text):
            _exchange(artist.get_color, artist.set_color, ink, paper)
        elif isinstance(artist, Patch):
            _exchange(artist.get_edgecolor, artist.set_edgecolor, ink, paper)
            _exchange(artist.get_facecolor, artist.set_facecolor, ink, paper)


def _exchange(get: Callable[[], Any], put: Callable[[Any], None], ink: Any, paper: Any) -> None:
    try:
        now = to_hex(get(), keep_alpha=True)
    except (TypeError, ValueError):
        return
    if now == "#000000ff":
        put(ink)
    elif now == "#ffffffff":
        put(paper)
