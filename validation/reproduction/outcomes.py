"""What may be said of a row: its figure with an interval, beside what was published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from physics_ep.intervals import MeanInterval, mean_interval
from physics_ep.storage.run_file import git_commit
from physics_ep.tabular import Tabular
from physics_ep.version import __version__

from .earlier import digest, interval_of
from .rows import Row, RowRecipe

FEWEST = 3
"""Seeds from which on a row is judged: the interval of two, 12.7 standard errors either way, holds all."""


@dataclass(frozen=True)
class RowOutcome:
    """A row as it was made here.

    Attributes
    ----------
    row : Row
    recipe_name : str
    recipe : RowRecipe
    values : dict of str to dict of int to float
        Rule ('ep', 'exact', 'measure') to seed to figure, in the row's unit.
    epochs : dict of int to int
        Seed to the epoch that was kept, of trainings that chose one.
    untried : str
        Why no figure was made, or not for all seeds; empty otherwise.
    wanted : int
        Seeds that were asked for; 0: as many as there are.
    earlier : mapping, optional
        What an earlier call told of the row (`as_dict`), in the place of `values` that are not at hand.
    """

    row: Row
    recipe_name: str
    recipe: RowRecipe
    values: dict[str, dict[int, float]]
    epochs: dict[int, int]
    untried: str = ""
    wanted: int = 0
    earlier: Mapping[str, Any] | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds, in ascending order, with which the row's figure was made; empty where it was not."""
        if self.earlier is not None:
            return tuple(range(self.earlier["seeds"]))
        return tuple(sorted(self.values.get(self.recipe.rules[0], {})))

    @property
    def figure(self) -> MeanInterval | None:
        """Mean over the seeds, with its 95 % interval; None where nothing was made."""
        if self.earlier is not None:
            return interval_of(self.earlier["ours"], self.earlier["interval"], self.earlier["seeds"])
        found = [self.values[self.recipe.rules[0]][seed] for seed in self.seeds]
        return mean_interval(found) if found else None

    @property
    def exact(self) -> float | None:
        """Mean of exact gradients over the seeds that EP has too, or over all where there are none such; None where
        none were trained."""
        if self.earlier is not None:
            return self.earlier["exact_mean"]
        found = self.values.get("exact", {})
        return mean_interval([found[seed] for seed in self.pairs or found]).mean if found else None

    @property
    def paired(self) -> MeanInterval | None:
        """EP less exact gradients, seed by seed under one recipe: mean with its interval; None without pairs."""
        if self.earlier is not None:
            mean, pairs = self.earlier["paired_difference"], self.earlier["pairs"]
            return interval_of(mean, self.earlier["paired_interval"], pairs) if pairs else None
        ep, exact = (self.values.get(rule, {}) for rule in ("ep", "exact"))
        return mean_interval([ep[s] - exact[s] for s in self.pairs]) if self.pairs else None

    @property
    def pairs(self) -> tuple[int, ...]:
        """Seeds that were made by EP and by exact gradients."""
        if self.earlier is not None:
            return tuple(range(self.earlier["pairs"]))
        return tuple(seed for seed in self.seeds if seed in self.values.get("exact", {}))

    @property
    def verdict(self) -> str:
        """What may be said, in a few words; see `verdict`."""
        return verdict(self)

    @cached_property
    def made(self) -> Mapping[str, str]:
        """Version, and commit in a checkout, with which the figure was told first."""
        if self.earlier is not None:
            return self.earlier["made"]
        commit = git_commit()
        return {"version": __version__} | ({} if commit is None else {"git_commit": commit})

    def as_dict(self) -> dict[str, Any]:
        """The row for `--json`."""
        earlier = self.earlier or {}
        figure, paired = self.figure, self.paired
        return {
            "table": self.row.table,
            "row": self.row.name,
            "title": self.row.title,
            "quantity": self.row.quantity,
            "unit": self.row.unit,
            "published": self.row.published,
            "published_to": self.row.published_to,
            "published_spread": self.row.published_spread,
            "published_seeds": self.row.published_seeds,
            "incomparable": self.row.incomparable,
            "ours": None if figure is None else figure.mean,
            "interval": None if figure is None else figure.ends,
            "seeds": len(self.seeds),
            "values": earlier.get(
                "values", {rule: {str(s): v for s, v in found.items()} for rule, found in self.values.items()}
            ),
            "kept_epochs": earlier.get("kept_epochs", {str(s): epoch for s, epoch in self.epochs.items()}),
            "recipe": self.recipe_name,
            "recipe_digest": None if self.recipe.missing else digest(self.recipe),
            "made": None if figure is None else self.made,
            "exact": self.recipe.exact or None,
            "exact_mean": self.exact,
            "pairs": len(self.pairs),
            "paired_difference": None if paired is None else paired.mean,
            "paired_interval": None if paired is None else paired.ends,
            "verdict": self.verdict,
            "differs": list(self.recipe.differs),
            "notes": list(self.recipe.notes),
            "minutes_told": self.recipe.minutes,
        }


def verdict(outcome: RowOutcome) -> str:
    """What may be said of a row.

    Under the paper's recipe, and for measurements, the published figure is held against the interval of ours. Under
    our recipe the two differ by their recipes too, and the words say so; what EP itself costs there is told by the
    paired difference of EP and exact gradients. Fewer than three seeds are not judged.
    """
    row, figure = outcome.row, outcome.figure
    if figure is None:
        return outcome.untried or "not run"
    told = [_against_published(row, figure, len(outcome.seeds))]
    if outcome.recipe_name == "ours" and not outcome.recipe.measure:
        if row.published is not None and not row.incomparable:
            told[0] += ", by another recipe than the paper's" if len(outcome.seeds) >= FEWEST else ""
        told += _paired_words(outcome)
    if len(outcome.seeds) < outcome.wanted:
        were = "was" if len(outcome.seeds) == 1 else "were"
        told.append(f"{len(outcome.seeds)} of the {outcome.wanted} seeds {were} made")
    return "; ".join(told)


def _against_published(row: Row, figure: MeanInterval, count: int) -> str:
    if row.incomparable:
        return f"not comparable because {row.incomparable}"
    if row.published is None:
        return "not comparable because no figure was published"
    if not math.isfinite(figure.mean):
        return "not judged: a seed has no number"
    if figure.ends is None:
        return "not judged: one seed has no interval"
    if count < FEWEST:
        return f"not judged: {count} seeds are too few for an interval that tells"
    slack, why = row.slack, "give or take its rounding"
    if row.published_spread is not None:
        slack += row.published_spread / math.sqrt(max(row.published_seeds or 1, 1))
        why += " and spread"
    more_is_better = row.better == "more"
    if row.bound == "at least" and figure.low >= row.published - slack:
        return "within the bound"
    first, last = row.published, row.published if row.published_to is None else row.published_to
    if first < last and first <= figure.low and figure.high <= last:
        return "within the published range"
    where = "within the interval" if first == last else "overlaps the published range"
    if first == last and figure.high - figure.low > abs(first):
        where += ", which is as wide as the figure: more seeds would tell"
    if figure.low <= last and figure.high >= first:
        return where
    if figure.low <= last + slack and figure.high >= first - slack:
        return f"met to within {row.tolerance:g}" if row.tolerance else f"{where}, {why}"
    return f"{'better' if (figure.mean > last) == more_is_better else 'worse'} than published"


def _paired_words(outcome: RowOutcome) -> list[str]:
    paired, both = outcome.paired, len(outcome.pairs)
    if not outcome.recipe.exact:
        return []
    if paired is None:
        return ["exact gradients were not trained"]
    if paired.ends is None:
        return ["EP less exact gradients not judged: one pair has no interval"]
    if both < FEWEST:
        return [f"EP less exact gradients not judged: {both} pairs are too few for an interval that tells"]
    unit = outcome.row.unit
    points = "points" if unit == "%" else unit
    mean, low, high = (f"{round(v, 2) + 0.0:+.2f}" for v in (paired.mean, paired.low, paired.high))  # no -0.00
    span = f"{mean} [{low}, {high}] {points}"
    of = f"EP less exact gradients over {both} pairs is {span}"
    if paired.low <= 0 <= paired.high:
        return [f"{of}: no difference is seen ({max(-paired.low, paired.high):.2f} at most)"]
    worse = (paired.mean > 0) == (outcome.row.better == "less")
    return [f"{of}: EP is {'worse' if worse else 'better'} than exact gradients"]


COLUMNS = ("row", "recipe", "published", "ours, 95 % interval", "seeds", "verdict")
CAPTION = (
    "Made by `physics-ep reproduce`. Figures are means over seeds with their 95 % intervals (Student), *exact* is "
    "the same recipe with exact gradients."
)
"""Above the table on its page."""


@dataclass(frozen=True, repr=False)
class Reproduction(Tabular):
    """Rows that were made, or told why not.

    Attributes
    ----------
    outcomes : tuple of RowOutcome
    """

    outcomes: tuple[RowOutcome, ...]

    def records(self) -> list[dict[str, Any]]:
        """The reproduction as a table, one row for each row of the published tables."""
        names = ("table", "row", "quantity", "unit", "published", "ours", "interval", "seeds", "recipe", "verdict")
        found = [outcome.as_dict() for outcome in self.outcomes]
        return [{name: row[name] for name in names} for row in found]

    def figures(self) -> dict[str, Any]:
        """The figures for `--json`."""
        return {"rows": [outcome.as_dict() for outcome in self.outcomes]}

    def shown(self) -> tuple[list[str], list[list[str]]]:
        """Columns and cells for a terminal."""
        return list(COLUMNS), [_cells(outcome) for outcome in self.outcomes]

    def to_markdown(self) -> str:
        """A page in Markdown: the rows with their titles, and what of a recipe is to be known."""
        rows = [_cells(outcome) for outcome in self.outcomes]
        for cells, outcome in zip(rows, self.outcomes, strict=True):
            cells[0] += f": {outcome.row.title}, {outcome.row.quantity}"
            if outcome.figure is not None:
                notes = (*outcome.recipe.notes, *outcome.recipe.differs)
                cells[-1] += "".join(f". {note[0].upper()}{note[1:]}" for note in notes)
        lines = [list(COLUMNS), ["---"] * len(COLUMNS), *rows]
        table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
        return f"# Published and ours: the table\n\n{CAPTION}\n\n{table}\n"


def _cells(outcome: RowOutcome) -> list[str]:
    row, figure = outcome.row, outcome.figure
    unit = "" if row.unit == "1" else f" {row.unit}"
    ours = "" if figure is None else f"{_digits(figure.mean, row)}{unit}"
    if figure is not None and figure.ends is not None:
        ours += f" [{_digits(figure.low, row)}, {_digits(figure.high, row)}]"
    if outcome.exact is not None:
        some = f" ({len(outcome.pairs)} of the seeds)" if 0 < len(outcome.pairs) < len(outcome.seeds) else ""
        ours += f"; exact {_digits(outcome.exact, row)}{unit}{some}"
    name = f"{row.table}/{row.name}"
    return [name, outcome.recipe_name, row.told, ours, str(len(outcome.seeds)), outcome.verdict]


def _digits(value: float, row: Row) -> str:
    if row.unit == "%":
        return f"{value:.2f}"
    return f"{value:.{max(4, row.decimals)}g}"
