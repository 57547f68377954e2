"""Rows of published tables as data: what was published, under which recipe, and what is run here in its place.

A table is a TOML file in `tables/`. It names the paper and where its recipe comes from; each row has the published
figure and up to two recipes, 'paper' and 'ours'. A recipe is a bundled config with entries left out and replaced,
or a measurement of `measures`, or says by `missing` why there is none.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass, field
from typing import Any

from physics_ep.config import Config, parse_config
from physics_ep.errors import InputError
from physics_ep.registry import bundled
from physics_ep.storage.texts import parse_toml, read_text

SETS = ("quick", "standard", "full")
"""Sets of rows, each within the next: 10 minutes, 2 hours of two cores, and all that there is."""
RECIPES = ("paper", "ours")


@dataclass(frozen=True)
class RowRecipe:
    """How a row is made: the paper's recipe or ours, as a config or a measurement.

    Attributes
    ----------
    base : str
        Bundled config that it begins with; empty for a measurement.
    without : tuple of str
        Sections, and entries 'section.key', that are left out of it.
    set : dict
        Entries 'section.key' and what they are in place of the base's.
    sources : dict
        Entry to where the paper says so.
    differs : tuple of str
        What is otherwise than in the paper, though the recipe is the paper's.
    notes : tuple of str
        What a reader of the figure must know.
    exact : str
        Exact gradients that the training is paired with: 'implicit', at less cost the same by 'elimination' (one
        hidden layer) or 'adjoint' (any system, in its own dtype), 'backprop', or none.
    brief : dict
        Numbers of steps `free` and `nudged`, of size `step`, that phases take in the place of settling, if any
        (`validation.experiments.brief_phases`). The scheme is then one-sided, with a random sign. Or a number of
        `sweeps`, of centered phases.
    measure : str
        Name of a measurement in `measures`, with its `options`.
    reads : str
        Row of the same table whose trained weights (EP, our recipe, the same seed) are measured; empty: none.
    minutes : float
        Budget, told: minutes of one quiet core that a seed takes, by one rule.
    missing : str
        Why there is no such recipe.
    """

    base: str = ""
    without: tuple[str, ...] = ()
    set: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    differs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    exact: str = ""
    brief: dict[str, Any] = field(default_factory=dict)
    measure: str = ""
    reads: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    minutes: float = 0.0
    missing: str = ""

    @property
    def rules(self) -> tuple[str, ...]:
        """By what gradients it is trained, each under the same recipe; 'measure' for a measurement."""
        return ("measure",) if self.measure else ("ep", "exact") if self.exact else ("ep",)

    def config(self, rule: str = "ep") -> Config:
        """The training config of the recipe.

        Raises
        ------
        InputError
            If the recipe is none of a training, or an entry is wrong.
        """
        table = parse_toml(read_text(bundled()[self.base], "config"))
        for name in self.without:
            section, _, key = name.partition(".")
            del (table[section] if key else table)[key or section]
        for name, value in self.set.items():
            *sections, key = name.split(".")
            within = table
            for section in sections:
                within = within.setdefault(section, {})
            within[key] = value
        if rule == "exact" and self.exact == "backprop":
            table["ep"] = {**table.get("ep", {}), "estimator": "backprop"}
        return parse_config(table)


@dataclass(frozen=True)
class Row:
    """A row of a published table.

    Attributes
    ----------
    table, name, title : str
    quantity, unit : str
        What the figure is; '%' are hundred times the fractions that trainings give.
    published : float or None
        The published figure; None: none is at hand.
    published_to : float or None
        Upper end of a range that was published, of which `published` is the lower one.
    decimals : int
        Decimals with which it was published: it stands for all figures that round to it.
    tolerance : float
        How far a figure may lie from one of theory that is counted as met.
    published_spread, published_seeds
        Standard deviation over the paper's seeds, where it was told, and their number.
    better : {'less', 'more'}
    bound : str
        'at least' where the published figure is a bound.
    sets : tuple of str
        The sets that it is in.
    incomparable : str
        Why the two figures may not be compared.
    paper, ours : RowRecipe or None
    """

    table: str
    name: str
    title: str
    quantity: str
    unit: str
    published: float | None = None
    published_to: float | None = None
    decimals: int = 2
    tolerance: float = 0.0
    published_spread: float | None = None
    published_seeds: int | None = None
    better: str = "less"
    bound: str = ""
    sets: tuple[str, ...] = ()
    incomparable: str = ""
    paper: RowRecipe | None = None
    ours: RowRecipe | None = None

    def recipe(self, name: str) -> RowRecipe:
        """The recipe 'paper' or 'ours'; one that is missing, and says so, where the table has none."""
        found: RowRecipe | None = getattr(self, name)
        return RowRecipe(missing="the table has no such recipe") if found is None else found

    @property
    def told(self) -> str:
        """The published figure or range in words, with its unit; 'none' where none is at hand."""
        ends = [f"{value:.{self.decimals}f}" for value in (self.published, self.published_to) if value is not None]
        words = [self.bound, " to ".join(ends) or "none", "" if self.unit == "1" or not ends else self.unit]
        return " ".join(word for word in words if word)

    @property
    def slack(self) -> float:
        """How far from the published figure what it stands for may lie: by rounding, or as theory allows."""
        return max(self.tolerance, 0.5 * 10.0**-self.decimals if self.tolerance == 0 else 0.0)


@dataclass(frozen=True)
class PublishedTable:
    """A table: its paper, where recipes come from, and its rows by name."""

    name: str
    title: str
    paper: str
    recipe_source: str
    rows: dict[str, Row]


def published_tables() -> dict[str, PublishedTable]:
    """All tables by name, as `tables/NAME.toml` hold them."""
    folder = importlib.resources.files("validation") / "reproduction" / "tables"
    found = {}
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".toml"):
            name = file.name.removesuffix(".toml")
            found[name] = _table(name, parse_toml(file.read_text(encoding="utf-8")))
    return found


def _table(name: str, read: dict[str, Any]) -> PublishedTable:
    rows = {}
    for row_name, entries in read.pop("rows").items():
        recipes = {key: _recipe(entries.pop(key)) for key in RECIPES if key in entries}
        told = {**entries, **recipes, "sets": tuple(entries["sets"])}
        rows[row_name] = Row(table=name, name=row_name, **told)
    try:
        return PublishedTable(name=name, rows=rows, **read)
    except TypeError as error:
        raise InputError(f"Table {name!r} of published figures is not as its format says: {error}.") from error


def _recipe(entries: dict[str, Any]) -> RowRecipe:
    for key in ("without", "differs", "notes"):
        entries[key] = tuple(entries.get(key, ()))
    return RowRecipe(**entries)
