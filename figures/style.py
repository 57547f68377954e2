"""One look for all figures: sizes of journal columns, colours that everyone can tell apart, files that repeat.

Series differ in colour, line style and marker at once, so that a figure survives a greyscale printer and a
colour-blind reader. Figures are built without pyplot: nothing global is left behind, and nothing needs closing.

Every function `draw_*` is a `drawing`: it takes width, height, font, panels, ax and style. What the user's own
rcParams change of matplotlib's defaults counts in all figures; a style sheet counts more, and an argument most.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import io
import math
import os
import re
import shutil
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from cycler import cycler
from matplotlib import font_manager
from matplotlib import style as sheets
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.moved import moved_names
from physics_ep.storage.files import checked_path, replacing
from physics_ep.storage.outputs import claim, writing

from .page import INCH, KNOWN, RC, Page, within

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)

DEFAULTS: Any = mpl.rcParamsDefault

COLUMN = 85.0
PAGE = 178.0
"""Widths in millimetres of a column and of a page, as most two-column journals have them."""
WIDTHS = {"column": COLUMN, "page": PAGE}

FORMATS = ("pdf", "png", "svg")
_DATES = {"pdf": ("CreationDate", "ModDate", "Producer"), "svg": ("Date",)}

BLACK, GREY = "#000000", "#7f7f7f"

FAMILIES = 5
"""Families of fonts that a message names, of those that are installed."""
_SIGNS = ("STIX", "cm", "Last Resort", "DejaVu Math")
"""Beginnings of families that hold signs for formulas, which nobody writes a text in."""


@dataclass(frozen=True)
class Series:
    """How one series of a figure looks: its colour, line and marker.

    Attributes
    ----------
    color : str
        A colour from the palette of Okabe and Ito (2008), chosen to differ in lightness as well.
    line : tuple or str
        Dash pattern (offset, on-off lengths in line widths), or a line style of matplotlib.
    marker : str
    """

    color: str
    line: Any
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
    """Look number k; they repeat after six. What `axes.prop_cycle` says of colour, line or marker wins."""
    own = SERIES[k % len(SERIES)]
    cycle = RC["axes.prop_cycle"].by_key()

    def chosen(name: str, default: Any) -> Any:
        return cycle[name][k % len(cycle[name])] if name in cycle else default

    return Series(chosen("color", own.color), chosen("linestyle", own.line), chosen("marker", own.marker))


# Sizes of text are told by their ratio to font.size, so that one number changes them all.
_SIZES: dict[str, Any] = {
    "axes.titlesize": "medium",
    "axes.labelsize": "medium",
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
    "legend.fontsize": "small",
    "legend.title_fontsize": "small",
    "figure.titlesize": "medium",
    "figure.labelsize": "medium",
}

_RC: dict[str, Any] = {
    # The one family that matplotlib brings along: the same file on every machine.
    "font.family": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": 7,
    **_SIZES,
    "axes.prop_cycle": cycler(color=[look.color for look in SERIES]),
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "legend.labelspacing": 0.35,
    "legend.borderaxespad": 0.3,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.labelpad": 2.5,
    "axes.titlepad": 4.0,
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
    "savefig.dpi": 200,
    # TrueType, embedded: text stays text, and journals accept it.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "pdf.compression": 6,
    # Equal figures have equal names of their parts.
    "svg.hashsalt": "physics-ep",
    "path.simplify": False,
}

_ELSEWHERE = (
    "backend",
    "interactive",
    "toolbar",
    "webagg",
    "tk.",
    "keymap",
    "timezone",
    "date.epoch",
    "docstring",
    "figure.max_open_warning",
    "figure.raise_window",
    "figure.hooks",
    "savefig.directory",
    # A tight box would make files of another width than was asked for; the layout is the page's.
    "savefig.bbox",
    "figure.autolayout",
    "figure.constrained_layout",
    "figure.subplot",
)
"""Beginnings of the rcParams that say nothing about looks, or that a figure of a given width cannot heed."""

Sheets = str | os.PathLike[str] | Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True)
class Look:
    """How a figure is asked to look; None is the figure's own choice.

    Attributes
    ----------
    width : float or str, optional
        Millimetres from 30 to 500, 'column' (85 mm) or 'page' (178 mm). Panels stand in as many columns as fit.
    height : float, optional
        Millimetres from 20 to 1000.
    font : float or str, optional
        Size in points, a family, or both: 8, 'DejaVu Sans', 'DejaVu Sans 8'.
    panels : str or sequence of str, optional
        Letters of the panels to draw, in this order: 'ac'.
    ax : Axes or sequence of Axes, optional
        Axes of the user's to draw into, one a panel. A font or a style that is asked for counts for their labels,
        titles and ticks too.
    style : str, path, mapping or sequence of these, optional
        Style sheets: a file, a name that matplotlib knows, or rcParams.

    Raises
    ------
    InputError
        If one of them is none of these.
    """

    width: float | str | None = None
    height: float | None = None
    font: float | str | None = None
    panels: str | Sequence[str] | None = None
    ax: Axes | Sequence[Axes] | None = None
    style: Sheets | None = None

    def __post_init__(self) -> None:
        if self.width is not None:
            _millimetres("width", self.width, 30, 500, WIDTHS)
        if self.height is not None:
            _millimetres("height", self.height, 20, 1000)
        if self.panels is not None and not self.letters():
            raise argument_error("panels", "be letters of panels, such as 'ac'", repr(self.panels))
        if self.ax is not None and (not self.axes() or not all(isinstance(ax, Axes) for ax in self.axes())):
            raise argument_error("ax", "be Axes of matplotlib, one or several", repr(self.ax))
        self.settings()

    def over(self, other: Look) -> Look:
        """This look; the other one says what this one leaves open (None)."""
        own = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        return replace(other, **own)

    def letters(self) -> tuple[str, ...]:
        """Letters of the panels that were asked for."""
        given = self.panels or ()
        parts = given.replace(",", " ").split() if isinstance(given, str) else [str(part) for part in given]
        if len(parts) == 1 and isinstance(given, str):
            parts = list(parts[0])
        return tuple(part.lower() for part in parts) if all(part.isalpha() for part in parts) else ()

    def axes(self) -> tuple[Axes, ...]:
        """The axes that the user gave to draw on, as a list."""
        if self.ax is None or isinstance(self.ax, Axes):
            return () if self.ax is None else (self.ax,)
        flat = getattr(self.ax, "flat", self.ax)
        return tuple(flat) if isinstance(flat, Iterable) and not isinstance(flat, str) else (flat,)

    def millimetres(self) -> float | None:
        """Width in millimetres; that of the style sheets where none was given."""
        if self.width is not None:
            return _millimetres("width", self.width, 30, 500, WIDTHS)
        size = {**_users(), **_given(self.style)}.get("figure.figsize")
        return None if size is None else INCH * float(size[0])

    def settings(self) -> dict[str, Any]:
        """All rcParams: ours, then what the user's change, then the style sheets', then the font."""
        theirs = {**_users(), **_given(self.style)}
        if "font.sans-serif" in theirs:
            theirs.setdefault("font.family", ["sans-serif"])
        found = {**_RC, **theirs, **_font(self.font)}
        found.pop("figure.figsize", None)
        found["font.family"] = _families(found)
        if found.get("text.usetex") and shutil.which("latex") is None:
            raise argument_error("style", "leave out text.usetex where there is no LaTeX", "text.usetex: True")
        return found


_LOOK: ContextVar[Look | None] = ContextVar("look", default=None)
_PAGE: ContextVar[Page | None] = ContextVar("page", default=None)


def _millimetres(name: str, value: Any, low: float, high: float, named: Mapping[str, float] | None = None) -> float:
    """A length, or the one that bears a name."""
    if named and str(value) in named:
        return named[str(value)]
    words = "".join(f"{word!r}, " for word in named or ())
    must = f"be {words.rstrip(', ')} or millimetres" if words else "be millimetres"
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not low <= number <= high:
        raise argument_error(name, f"{must} from {low:g} to {high:g}", repr(value))
    return number


def _users() -> dict[str, Any]:
    """What the rcParams that hold now change of matplotlib's defaults."""
    told = [key for key in DEFAULTS if not key.startswith(_ELSEWHERE)]
    return {key: RC[key] for key in told if RC[key] != DEFAULTS[key]}


def _given(style: Sheets | None) -> dict[str, Any]:
    """The rcParams of style sheets; those further on win."""
    if style is None:
        return {}
    if isinstance(style, Mapping):
        _require_known(style)
        params: Any = mpl.RcParams
        try:
            found = dict(params(style))
        except ValueError as error:
            raise argument_error("style", "hold values that matplotlib takes", str(error)) from None
    elif isinstance(style, str | os.PathLike):
        found = _sheet(os.fspath(style))
    elif isinstance(style, Sequence):
        found = {key: value for one in style for key, value in _given(one).items()}
    else:
        raise argument_error("style", "be a file, a name or rcParams", repr(style))
    return {key: value for key, value in found.items() if not key.startswith(_ELSEWHERE)}


def _sheet(name: str) -> dict[str, Any]:
    """The rcParams of a file or of a style sheet that matplotlib knows."""
    if name in sheets.library:
        library: Any = sheets.library
        return dict(library[name])
    path = Path(name).expanduser()
    if not path.is_file():
        if path.suffix or os.sep in name:
            raise argument_error("style", "be a file that is there", repr(name))
        raise unknown_name("style", name, sheets.available)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        _require_known(line.partition("#")[0].partition(":")[0].strip() for line in lines)
        found: Any = mpl.rc_params_from_file(path, fail_on_error=True, use_default_template=False)
        return dict(found)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise argument_error("style", "be a style sheet of matplotlib", f"{name!r} ({error})") from None


def _require_known(keys: Iterable[str]) -> None:
    for key in keys:
        if key and key not in DEFAULTS:
            raise unknown_name("style", key, list(DEFAULTS))


def _font(font: float | str | None) -> dict[str, Any]:
    """The rcParams of a size, a family, or both."""
    if font is None:
        return {}
    *family, last = str(font).split() or [""]
    try:
        size = float(last)
    except ValueError:
        family, size = [*family, last], None
    if isinstance(font, bool) or (size is not None and not 3 <= size <= 72) or not (family or size):
        must = "be points from 3 to 72, a family or both, such as 'DejaVu Sans 8'"
        raise argument_error("font", must, repr(font))
    found: dict[str, Any] = {} if size is None else {"font.size": size, **_SIZES}
    if family:
        name = " ".join(family)
        if name not in font_manager.font_family_aliases and not _is_there(name):
            raise _not_installed(name)
        found["font.family"] = [name]
    return found


def _not_installed(name: str) -> InputError:
    """The error for a family that this machine lacks; it names the nearest that are there, and others."""
    there = sorted(set(font_manager.get_font_names()))
    near = difflib.get_close_matches(name, there, n=3, cutoff=0.6)
    usual = [family for family in there if not family.startswith(_SIGNS)]
    shown = list(dict.fromkeys([*near, *_RC["font.family"], *usual]))[:FAMILIES]
    more = len(there) - len(shown)
    told = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
    must = f"name a family that is installed on this machine ({told})"
    return argument_error("font", must, f"{name!r}, which is not installed")


@functools.cache
def _is_there(family: str) -> bool:
    names = font_manager.get_font_names()
    return family in names or family.lower() in {name.lower() for name in names}


def _families(settings: Mapping[str, Any]) -> list[str]:
    """Families by their own names, since text asks what 'serif' means only when it is drawn."""
    named: list[str] = []
    for family in settings["font.family"]:
        key = f"font.{family}"
        own = settings.get(key, DEFAULTS[key]) if key in DEFAULTS else [family]
        named += [name for name in own if name not in font_manager.font_family_aliases and _is_there(name)]
    return named or list(settings["font.family"])


@contextmanager
def looking(look: Look) -> Iterator[None]:
    """Within this context, figures look as asked where their calls do not say otherwise."""
    token = _LOOK.set(look)
    try:
        yield
    finally:
        _LOOK.reset(token)


@contextmanager
def applied(settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Within this context, the style of figures holds; the rcParams from before hold again afterwards."""
    found = (_LOOK.get() or Look()).settings() if settings is None else settings
    with within(found):
        yield


_NOTE = """
    Further keyword arguments say how the figure looks: width, height, font, panels, ax and style, as of
    `figures.Look`.
"""


def drawing(draw: Callable[..., Any]) -> Callable[..., Figure]:
    """Make a function that draws on a `new_figure` take what `Look` holds, as keyword arguments.

    The figure that comes back is laid out: panels in as many columns as its width has room for, legends where they
    cover no data, texts broken where they are too long.

    Parameters
    ----------
    draw : callable
        Calls `new_figure` once; it draws within the style.
    """

    @functools.wraps(draw)
    def drawn(*data: Any, **options: Any) -> Figure:
        _require_kind(draw, data)
        own = Look(**{f.name: options.pop(f.name, None) for f in fields(Look)})
        look = own.over(_LOOK.get() or Look())
        settings = look.settings()
        asked = look.font is not None or look.style is not None
        page = Page(look.millimetres(), look.height, look.letters(), look.axes(), settings, dress=asked)
        token = _PAGE.set(page)
        try:
            with applied(settings):
                draw(*data, **options)
                page.finish()
        finally:
            _PAGE.reset(token)
        if not look.axes():
            kept = {f.name: value for f in fields(Look) if (value := getattr(look, f.name)) is not None}
            page.figure.redraw = functools.partial(drawn, *data, **options, **kept)
        return page.figure

    signature = inspect.signature(draw)
    kind = inspect.Parameter.KEYWORD_ONLY
    more = [inspect.Parameter(f.name, kind, default=None, annotation=f.type) for f in fields(Look)]
    drawn.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *more])  # type: ignore[attr-defined]
    drawn.__doc__ = f"{(draw.__doc__ or '').rstrip()}\n{_NOTE}"
    return drawn


def _require_kind(draw: Callable[..., Any], data: tuple[Any, ...]) -> None:
    """Refuse what a figure is not drawn of, if its function says by an annotation what it is drawn of."""
    try:
        wanted = next(iter(typing.get_type_hints(draw).values()), None)
    except NameError:  # a name that is imported for checkers of types alone
        return
    if isinstance(wanted, type) and data and not isinstance(data[0], wanted):
        raise argument_error(f"data of {draw.__name__}", f"be a {wanted.__name__}", type(data[0]).__name__)


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Figure, Any]:
    """Begin a figure with a grid of panels, within a `drawing` (or, for a plain grid, within `applied()`).

    Parameters
    ----------
    width, height : float
        Millimetres, where nothing else is asked for.
    rows, columns : int
    **grid
        Further arguments of the page (`Page.begin`: count, whole, polar, letters), or of `Figure.subplots`, such as
        sharex.

    Returns
    -------
    figure : Figure
    axes : array of Axes (rows, columns)
    """
    page = _PAGE.get()
    if page is not None:
        return page.begin(width, height, rows, columns, **grid)
    look = _LOOK.get() or Look()
    spacing = ConstrainedLayoutEngine(w_pad=2.5 / 72, h_pad=2.5 / 72, wspace=0.03, hspace=0.03)
    size = (look.millimetres() or width) / INCH, (look.height or height) / INCH
    figure = Figure(figsize=size, layout=spacing)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **grid)


def _page() -> Page:
    page = _PAGE.get()
    if page is None:
        raise RuntimeError("Legends and colour bars are placed within a function that is a `drawing`.")
    return page


def legend(ax: Axes, handles: Any = None, labels: Any = None, **options: Any) -> None:
    """Ask for a legend of a panel: inside where it covers no data (at `loc`, if it is clear), else above."""
    page = _page()
    page.legends.append((ax, handles, labels, options))


def layer_names(names: Sequence[str], most: int) -> list[str]:
    """Names of layers that fit beside an axis, each for itself.

    Where one is longer than `most` letters, all lose what tells the least: first '.weight' at the end, then the
    words in brackets behind a path, such as the class of its module. What is too long even so loses its beginning,
    since the end of a path tells layers apart. Nothing is left out where two names would become one.

    Parameters
    ----------
    names : sequence of str
        Such as '4.b.0.weight' or '4.b.1 (BatchNorm2d)'.
    most : int
    """
    shown = list(names)
    for ending in (r"\.weight$", r" \([^()]*\)$"):
        if all(len(name) <= most for name in shown):
            return shown
        bare = [re.sub(ending, "", name) for name in shown]
        shown = [own if bare.count(less) > 1 else less for own, less in zip(shown, bare, strict=True)]
    for kept in range(most, max(map(len, shown), default=0)):
        cut = [_end(name, kept) for name in shown]
        if len(set(cut)) == len(set(shown)):
            return cut
    return shown


def _end(name: str, most: int) -> str:
    """A path without its beginning, from where a part begins if there is one; words in brackets stay whole."""
    path, bracket, words = name.partition(" (")
    kept = max(most - 1 - len(bracket + words), 1)
    if len(name) <= most or len(path) <= kept + 1:
        return name
    end = path[-kept:]
    whole = end if path[-kept - 1] == "." else end.partition(".")[2] or end
    return f"…{whole}{bracket}{words}"


def shared_legend(*axes: Axes, handles: Any = None, labels: Any = None) -> None:
    """Ask for one legend of several panels, above all of them, in as many columns as fit."""
    if handles is None:
        found: dict[str, Any] = {}
        for ax in axes:
            for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
                found.setdefault(text, handle)
        labels, handles = list(found), list(found.values())
    elif labels is None:
        labels = [handle.get_label() for handle in handles]
    _page().shared = (list(handles), list(labels))


def colorbar(
    drawn: Any, axes: Axes | Sequence[Axes], *, after: Callable[[Any], None] | None = None, **options: Any
) -> None:
    """Ask for a colour bar beside panels. It is drawn with the page, unless all of these panels are left out.

    Parameters
    ----------
    drawn : mappable
        The image or collection whose colours the bar explains.
    axes : Axes or sequence of Axes
        Panels that the bar stands beside.
    after : callable (Colorbar), optional
        Called with the bar once it is drawn, to add to it.
    **options
        Further arguments of `Figure.colorbar`.
    """
    parents = [axes] if isinstance(axes, Axes) else list(axes)
    _page().bars.append((drawn, parents, after, options))


def panels(figure: Figure) -> dict[str, Axes]:
    """The panels of a drawn figure by their letters."""
    return KNOWN.get(figure, {})


def same_limits(axes: Iterable[Axes]) -> None:
    """Give all axes the vertical limits that hold all their data."""
    axes = list(axes)
    low = min(ax.get_ylim()[0] for ax in axes)
    high = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)


def power(value: float) -> str:
    """The next power of ten above a number, as text: a bound, for what is known to no digit."""
    return f"$10^{{{math.ceil(math.log10(max(value, 1e-300)))}}}$"


def scientific(value: float) -> str:
    """A number as text in scientific notation with one digit; powers of ten without a factor."""
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"$10^{{{int(exponent)}}}$" if mantissa == "1" else f"${mantissa} \\times 10^{{{int(exponent)}}}$"


def save(
    figure: Figure,
    name: str,
    folder: str | os.PathLike[str],
    formats: tuple[str, ...] = FORMATS,
    overwrite: bool = False,
) -> list[Path]:
    """Write a figure as FOLDER/NAME.pdf, .png and .svg; the same figure gives the same bytes.

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
            with applied(getattr(figure, "settings", None)):
                # Dates and versions of tools are left out: they would make equal figures differ.
                silent = dict.fromkeys(_DATES.get(form, ()))
                figure.savefig(content, format=form, metadata={**silent, **_mark(form, call.command)})
                dots = RC["savefig.dpi"]
            whole = _compact(content, call.command, dots) if form == "png" else content.getvalue()
            try:
                with replacing(path) as temporary:
                    temporary.write_bytes(whole)
            except OSError as error:
                raise InputError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error
    return paths


def claim_figure(name: str, folder: str | os.PathLike[str], formats: tuple[str, ...]) -> list[Path]:
    """Make sure that a figure's files may be written, within the call that runs (`storage.outputs`).

    Raises
    ------
    InputError
        If a file may not be written (`storage.outputs.Call.claim`).
    """
    place = checked_path(folder, "out")
    return [claim(f"out ({name}.{form})", place / f"{name}.{form}") for form in formats]


def _mark(form: str, command: str) -> dict[str, str]:
    if form == "png":
        return {"Software": command}
    return {"Creator": command} if form in ("pdf", "svg", "eps", "ps") else {}


def _compact(png: io.BytesIO, command: str, dots: Any) -> bytes:
    """The same picture with a palette of 256 colours: a third of the bytes, no visible change."""
    content, marks = io.BytesIO(), PngInfo()
    for name, text in _mark("png", command).items():
        marks.add_text(name, text)
    picture = Image.open(png)
    told = {"dpi": (dots, dots)} if isinstance(dots, int | float) else {}
    picture.convert("RGB").quantize(256).save(content, format="png", optimize=True, pnginfo=marks, **told)
    return content.getvalue()
