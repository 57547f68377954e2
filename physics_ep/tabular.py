"""Results that show themselves: in a line, as a data frame, as a table for a paper, as a figure, in a notebook."""

from __future__ import annotations

import csv
import html
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .entries import entries, load
from .errors import InputError, argument_error, unknown_name

if TYPE_CHECKING:
    import pandas

SHOWN = 60
"""Rows that a notebook shows; a line tells how many there are more."""


PLOTS = "physics_ep.plots"
"""Entry points that draw results: the name of a class to a function (result, **look) that gives a figure;
`save` to one (figure, name, folder, formats=...) that writes it."""
FORMATS = ("pdf", "png", "svg")
"""Endings of files of figures."""


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure that `Drawable.plot` drew: a PDF, PNG or SVG by the file's name.

    Raises
    ------
    InputError
        If the name has another ending, no installed package writes figures, or the file cannot be written.
    """
    form = figure_format(path)
    known = entries(PLOTS)
    if "save" not in known:
        raise InputError(f"No installed package writes figures (entry points {PLOTS}).")
    load(known["save"])(figure, Path(path).stem, Path(path).parent, formats=(form,))


def figure_format(path: str | os.PathLike[str]) -> str:
    """Format of a file of figures by its ending: pdf, png or svg; InputError where it is another."""
    form = Path(path).suffix[1:].lower()
    if form not in FORMATS:
        raise argument_error("figure", f"end in {', '.join('.' + name for name in FORMATS)}", repr(str(path)))
    return form


class Drawable:
    """A result that an installed package draws."""

    def plot(self, **look: Any) -> Any:
        """Draw the result.

        Parameters
        ----------
        **look
            How the figure looks: width, height, font, panels, ax and style, as of `figures.Look`.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        InputError
            If no installed package draws results of this class.
        """
        known = entries(PLOTS)
        for kind in type(self).__mro__:
            if kind.__name__ in known:
                return load(known[kind.__name__])(self, **look)
        raise InputError(f"No installed package draws a {type(self).__name__} (entry points {PLOTS}).")


class Tabular(Drawable):
    """A result with rows. Subclasses say by `records` what they are, and by `words` what there is to tell of it."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.words())})"

    def words(self) -> list[str]:
        """What one line tells of the result, a piece each."""
        return [f"{len(self.records())} rows"]

    def records(self) -> list[dict[str, Any]]:
        """The rows of the table; each maps the same column names to numbers or text."""
        raise NotImplementedError

    def to_frame(self) -> pandas.DataFrame:
        """Return the rows as a pandas data frame, one column a name.

        Raises
        ------
        InputError
            If pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError:
            raise InputError("A data frame needs pandas: pip install 'physics-ep[tables]'.") from None
        return DataFrame(self.records())

    def to_csv(self) -> str:
        """Return the rows as comma-separated values, names first, numbers with all their digits."""
        rows, text = self.records(), io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def paper_rows(self) -> list[dict[str, Any]]:
        """The rows that `to_latex` shows by default: all, or of a wide result what a column of a journal holds."""
        return self.records()

    def title(self) -> str:
        """Caption of the table in a paper where none is given; empty: the table stands without one."""
        return ""

    def conditions(self) -> str:
        """How the rows were found, for the note below a table; empty: there is none."""
        return ""

    def to_latex(
        self,
        columns: Sequence[str] | None = None,
        caption: str | None = None,
        digits: int = 3,
        *,
        label: str | None = None,
    ) -> str:
        """Return the rows as a LaTeX table with the rules of the package booktabs.

        Parameters
        ----------
        columns : sequence of str, optional
            Names of the columns of `to_frame` to show, in this order; default those that a paper needs, where they
            have a value. A value that is missing is a dash.
        caption : str, optional
            Text of the caption; default the result's own, if it has one. With a caption comes a note below the
            table that tells how the rows were found. '': the tabular alone.
        digits : int
            Significant digits of numbers that are no integers.
        label : str, optional
            What the text names the table by, \\ref{label}: 'tab:gradients', say. It goes with a caption.

        Raises
        ------
        InputError
            If there is no such column, or the label has signs that LaTeX takes for its own.
        """
        if label is not None and not re.fullmatch(r"[\w:.+/-]+", label, re.ASCII):
            raise argument_error("label", "be of letters, digits and : . + / _ -", repr(label))
        if columns is None:
            rows = self.paper_rows()
            columns = known_columns(rows)
        else:
            rows = self.records()
            for name in columns:
                if rows and name not in rows[0]:
                    raise unknown_name("columns", name, rows[0])
        caption = self.title() if caption is None else caption
        text = _tabular(rows, columns, digits)
        if not caption:
            return text
        note = self.conditions()
        below = rf"\par\medskip{{\raggedright {_escaped(note)}\par}}" + "\n" if note else ""
        return (
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{_escaped(caption)}}}\n"
            + (f"\\label{{{label}}}\n" if label else "")
            + "\\footnotesize\n\\setlength{\\tabcolsep}{3pt}\n"
            f"{text}{below}\\end{{table}}\n"
        )

    def notebook_rows(self) -> list[dict[str, Any]]:
        """The rows that a notebook shows."""
        return self.records()

    def _repr_html_(self) -> str:
        rows = self.notebook_rows()
        if not rows:
            return f"<p>{html.escape(type(self).__name__)} without rows</p>"
        head = "".join(f"<th>{html.escape(str(name))}</th>" for name in rows[0])
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_short(value, 4))}</td>" for value in row.values()) + "</tr>"
            for row in rows[:SHOWN]
        )
        more = f"<p>and {len(rows) - SHOWN} rows more</p>" if len(rows) > SHOWN else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def known_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the columns in which some row has a value that is not None or NaN."""
    return [name for name in (rows[0] if rows else ()) if not all(_missing(row[name]) for row in rows)]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


EPOCHS = ("epoch", "loss", "train_error", "test_error", "worst_residual", "skipped")
"""Columns of a training in a paper, as far as a run has them."""


TARGETS = ("test_rms", "test_r2")
"""Metrics (epochs, n) of n measured targets that a paper tells."""
WIDEST = 6
"""Columns that a column of a journal holds."""


def epochs_for_paper(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Epochs with the few columns that a column of a journal holds.

    Of measured targets these are epoch, cost, and the misses of the test in the unit of the file and as R2; R2
    alone where both do not fit.
    """
    each = {
        kind: [name for name in (rows[0] if rows else ()) if name.startswith(f"{kind} of ")] for kind in TARGETS
    }
    both = [name for pair in zip(*each.values(), strict=True) for name in pair]
    if both:
        fit = both if len(both) + 2 <= WIDEST else each["test_r2"]
        usual = [name for name in EPOCHS if not name.endswith("_error")]
        columns = [*usual[:2], *fit[: WIDEST - 2], *usual[2 : WIDEST - len(fit)]]
    else:
        columns = list(EPOCHS)
    return [{_as_words(name): row[name] for name in columns if name in row} for row in rows]


def _as_words(name: str) -> str:
    """A metric's name in a paper; the name of a target stays as its file has it."""
    kind, of, target = name.partition(" of ")
    return kind.replace("_", " ").replace(" r2", " R2").replace(" rms", " RMS") + of + target


def epochs_of(metrics: Mapping[str, Any], targets: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Metrics (epochs,) as rows, one for each epoch; other metrics with more axes than that are left out.

    Parameters
    ----------
    metrics : mapping
    targets : sequence of str
        Names of measured targets: metrics (epochs, targets) of the test have a column for each, "test_rms of NAME".
    """
    columns = {name: values.tolist() for name, values in metrics.items() if values.ndim == 1}
    for kind in TARGETS:
        values = metrics.get(kind)
        if values is not None and values.ndim == 2 and values.shape[1] == len(targets):
            columns.update({f"{kind} of {name}": values[:, k].tolist() for k, name in enumerate(targets)})
    count = min(map(len, columns.values()), default=0)
    return [{"epoch": k + 1, **{name: column[k] for name, column in columns.items()}} for k in range(count)]


def _short(value: Any, digits: int) -> str:
    if _missing(value):
        return ""
    return f"{value or 0.0:.{digits}g}" if isinstance(value, float) else str(value)


def _tabular(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], digits: int) -> str:
    """Rows between the rules of booktabs, words to the left and numbers to the right."""
    sides = "".join("l" if any(isinstance(row[name], str) for row in rows) else "r" for name in columns)
    lines = [[_escaped(name) for name in columns], *([_cell(row[n], digits) for n in columns] for row in rows)]
    head, *body = (" & ".join(line) + r" \\" for line in lines)
    return "\n".join(
        (
            rf"\begin{{tabular}}{{{sides or 'l'}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        )
    )


def _cell(value: Any, digits: int) -> str:
    """A value in LaTeX: powers of ten and signs as a paper has them; a dash for what is missing."""
    if _missing(value):
        return "--"
    if not isinstance(value, float):
        return f"${value}$" if isinstance(value, int) and value < 0 else _escaped(str(value))
    if math.isinf(value):
        return r"$\infty$" if value > 0 else r"$-\infty$"
    text = f"{value or 0.0:.{digits}g}"  # of the two zeros the one without a sign
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        return rf"${mantissa} \cdot 10^{{{int(exponent)}}}$"
    return f"${text}$" if value < 0 else text


SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": "$<$", ">": "$>$", "|": "$|$", '"': "''",
    "[": "{[}", "]": "{]}", "*": "{*}",
    "\n": " ", "\r": " ",
    "\N{MINUS SIGN}": "$-$", "\N{MULTIPLICATION SIGN}": r"$\times$", "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{GREEK SMALL LETTER BETA}": r"$\beta$", "\N{MICRO SIGN}": r"$\mu$", "\N{GREEK SMALL LETTER MU}": r"$\mu$",
}  # fmt: skip
"""Signs that LaTeX reads as something else, or that its fonts lack. Brackets and stars are options where a row
begins with them."""


def _escaped(text: str) -> str:
    """The text as LaTeX prints it, each sign for itself."""
    return "".join(SIGNS.get(sign, sign) for sign in text)
