"""Published figures beside ours: tables are whole, verdicts follow intervals, and runs go on to the same bits."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hardware_models.resistive import ResistiveNetwork
from physics_ep import EquilibriumPropagation, SquaredError, open_run, relax
from physics_ep.config import load_system, parse_config
from physics_ep.data.batches import InMemory
from physics_ep.data.datasets import load_dataset
from physics_ep.errors import InputError
from physics_ep.runs.optimization import build_optimizer
from physics_ep.runs.preparation import system_of
from physics_ep.runs.training import TrainingInterrupted
from physics_ep.zoo import zoo
from tests.support.paths import ROOT
from tests.support.processes import wait_for
from tests.support.runs import assert_same_run
from validation.reproduction import measures, reproducing
from validation.reproduction.earlier import digest
from validation.reproduction.jobs import file_of
from validation.reproduction.measures import MEASURES, coupled_regression, holomorphic_order, rounding
from validation.reproduction.outcomes import Reproduction, RowOutcome
from validation.reproduction.reproducing import reproduce
from validation.reproduction.rows import SETS, PublishedTable, Row, RowRecipe, published_tables

ROWS = [row for table in published_tables().values() for row in table.rows.values()]
RECIPES = [(row, name) for row in ROWS for name in ("paper", "ours") if getattr(row, name) is not None]


@pytest.mark.parametrize(("row", "name"), RECIPES, ids=[f"{r.table}/{r.name}.{n}" for r, n in RECIPES])
def test_recipes_are_whole(row: Row, name: str) -> None:
    """Every recipe is a config, a measurement, or says why it is missing, and sources name entries of configs."""
    recipe = row.recipe(name)
    assert bool(recipe.base) + bool(recipe.measure) + bool(recipe.missing) == 1
    assert set(row.sets) <= set(SETS)
    assert "full" in row.sets
    if recipe.measure:
        assert recipe.measure in MEASURES
    if recipe.reads:
        assert published_tables()[row.table].rows[recipe.reads].recipe("ours").base
    if recipe.missing:
        return
    assert recipe.minutes > 0
    if recipe.base:
        config = recipe.config().as_dict()
        assert config["training"]["seeds"] == 1
        for entry in recipe.sources:
            section, key = entry.split(".")
            assert config[section][key] is not None
        if name == "paper":
            assert set(recipe.set) <= set(recipe.sources)
        if name == "ours":
            assert config["data"]["validation"] is not None
        if row.table in ("drn", "hopfield", "oscillators"):
            assert config["data"]["augmentation"] is None


def test_quick_rows_fit_ten_minutes() -> None:
    """The set 'quick' keeps what it promises, by the budgets that its rows tell, for three seeds on one core."""
    quick = [row.ours for row in ROWS if "quick" in row.sets and row.ours is not None]
    assert 0 < sum(3 * recipe.minutes * len(recipe.rules) for recipe in quick) <= 15


def outcome(values: list[float], exact: list[float] | None = None, recipe: str = "paper", **row: Any) -> RowOutcome:
    """A row with these figures."""
    told = {
        "published": 1.57,
        "decimals": 2,
        "unit": "%",
        "table": "t",
        "name": "r",
        "title": "",
        "quantity": "error",
    }
    found = {"ep": dict(enumerate(values))} | ({"exact": dict(enumerate(exact))} if exact else {})
    made = RowRecipe(base="hopfield-digits", exact="implicit" if exact is not None else "")
    return RowOutcome(Row(**{**told, **row}), recipe, made, found, {})


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (outcome([1.50, 1.58, 1.62]), "within the interval"),
        (
            outcome([0.6, 1.58, 2.5]),
            "within the interval, which is as wide as the figure: more seeds would tell",
        ),
        (outcome([1.40, 1.41, 1.42]), "better than published"),
        (outcome([1.70, 1.71, 1.72]), "worse than published"),
        (outcome([1.70, 1.71, 1.72], better="more"), "better than published"),
        # 1.57 to one digit is 1.52 to 1.62
        (outcome([1.58, 1.58, 1.58], decimals=1), "within the interval, give or take its rounding"),
        (outcome([1.58, 1.58, 1.58], tolerance=0.1), "met to within 0.1"),
        (outcome([1.58, 1.58, 1.58]), "worse than published"),
        (
            outcome([1.64, 1.65, 1.66], published_spread=0.1, published_seeds=1),
            "within the interval, give or take its rounding and spread",
        ),
        (outcome([0.99, 0.99, 0.99], published=0.9, bound="at least", better="more"), "within the bound"),
        (outcome([2.20, 2.21, 2.22], published=2, published_to=3), "within the published range"),
        (outcome([1.90, 2.10, 2.30], published=2, published_to=3), "overlaps the published range"),
        (
            outcome([3.004, 3.004, 3.004], published=2, published_to=3),
            "overlaps the published range, give or take its rounding",
        ),
        (outcome([1.70, 1.71, 1.72], published=2, published_to=3), "better than published"),
        (outcome([3.20, 3.21, 3.22], published=2, published_to=3), "worse than published"),
        (outcome([1.57]), "not judged: one seed has no interval"),
        (outcome([1.57, 3.57]), "not judged: 2 seeds are too few for an interval that tells"),
        (outcome([1.5, 1.6], incomparable="pixels differ"), "not comparable because pixels differ"),
        (outcome([1.5, 1.6], published=None), "not comparable because no figure was published"),
        (outcome([]), "not run"),
        (outcome([1.5, math.nan, 1.6]), "not judged: a seed has no number"),
    ],
)
def test_verdicts_follow_intervals(made: RowOutcome, words: str) -> None:
    """A figure is called better, worse or the same by its interval, and what cannot be judged is not."""
    assert made.verdict == words


def test_exact_figures_are_of_the_seeds_of_ep() -> None:
    """A mean of other seeds, or one of fewer without a word, stands beside EP's."""
    made = outcome([1.5, 1.7], [1.0], "ours")
    made.values["exact"][7] = 9.0
    assert Reproduction((made,)).shown()[1][0][3].endswith("; exact 1.00 % (1 of the seeds)")


def test_our_recipe_is_judged_by_paired_differences() -> None:
    """What EP costs is the mean of EP less exact gradients, seed by seed, with its interval."""
    same = outcome([1.5, 1.7, 1.9], [1.5, 1.72, 1.89], "ours")
    assert (
        "EP less exact gradients over 3 pairs is +0.00 [-0.04, +0.03] points: no difference is seen (0.04 at most)"
        in same.verdict
    )
    worse = outcome([1.5, 1.7, 1.9], [1.4, 1.61, 1.8], "ours")
    assert worse.verdict.endswith("EP is worse than exact gradients")
    # t of 2 degrees of freedom at 97.5 % is 4.3027; differences 0.1, 0.09, 0.1 have s = 0.0057735
    found = worse.paired
    assert found is not None
    assert found.high - found.mean == pytest.approx(4.302653 * 0.0057735 / math.sqrt(3), rel=1e-4)
    assert outcome([1.5, 1.7], [], "ours").verdict.endswith("exact gradients were not trained")


CODE: dict[str, dict[str, Any]] = {
    "drn-1h": {"gain": 480, "nudging": 1, "weights": [0.006, 0.006], "biases": [0.006, 0.006]},
    "drn-2h": {"gain": 2000, "nudging": 1, "weights": [0.002, 0.006, 0.018], "biases": [0.002, 0.006, 0.018]},
    "drn-3h": {
        "gain": 4000, "nudging": 2, "weights": [0.005, 0.02, 0.08, 0.005], "biases": [0.0005, 0.002, 0.008, 0.0005]
    },
}  # fmt: skip
"""Of papers/fast-drn/drn.py, in siemens and volts of its own."""


@pytest.mark.full
@pytest.mark.parametrize("name", CODE)
def test_drn_recipe_has_the_steps_of_its_source(name: str) -> None:
    """Rates that were carried over from siemens and volts of the code move conductances by the same factors."""
    code, config = CODE[name], published_tables()["drn"].rows[name].recipe("paper").config()
    assert config.system.options.get("amplification", 1.0) == 1.0
    assert (config.training.batch_size, config.training.epochs, config.optimizer.name) == (4, 50, "SGD")
    assert isinstance(config.ep.beta, float)
    siemens, volts = config.ep.beta / code["nudging"], config.ep.target
    assert config.system.options["input_gain"] / volts == code["gain"]
    # Half are on, those uniform up to a siemens of the code over the root of the nodes below.
    assert set(config.system.options["density"]) == {0.5}
    assert config.system.options["scale"] * 2**0.5 == pytest.approx(siemens, rel=1e-12)
    sizes = [6, *[8] * (len(code["weights"]) - 1), 3]
    moved = []
    for scale, unit in ((1.0, 1.0), (siemens, volts)):
        options: dict[str, Any] = {"input_gain": code["gain"] * unit, "density": [0.5] * (len(sizes) - 1)}
        network = ResistiveNetwork(sizes, diode="ideal", scale=scale, seed=1, **options).double()
        x = torch.rand(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        y = torch.eye(3, dtype=torch.float64)[torch.tensor([0, 1, 2, 0])] * unit
        # A tenth of the nudge: networks of a few nodes bear less than those of a thousand.
        ep = EquilibriumPropagation(SquaredError(), beta=0.1 * code["nudging"] * scale, tolerance=1e-10 * unit)
        ep.backward(network, x, y)
        if unit == 1:
            rates = {f"layers.{k}.conductance": rate for k, rate in enumerate(code["weights"])}
            rates |= {f"layers.{k}.bias": rate for k, rate in enumerate(code["biases"])}
        else:
            rates = {
                key: float(group["lr"])
                for group in build_optimizer(config.optimizer, network).param_groups
                for key, p in network.named_parameters()
                if any(p is q for q in group["params"])
            }
        moved.append(
            {
                key: rates[key] * p.grad / (scale * unit if "bias" in key else scale)
                for key, p in network.named_parameters()
                if p.grad is not None
            }
        )
    assert len(moved[0]) == 2 * len(code["weights"])
    for key, step in moved[0].items():
        torch.testing.assert_close(moved[1][key], step, rtol=1e-6, atol=0.0)


def test_holomorphic_points_are_the_order() -> None:
    """N points of the circle leave an error of order N; a fit over rounding or kinks would not show it."""
    assert holomorphic_order(0, points=4) == pytest.approx(4, abs=0.05)


@pytest.mark.full
def test_coupled_learning_learns_a_map_that_can_be_reached() -> None:
    """Resistors that are taught by resistors come to a hundredth of the error, and not by rates that diverge."""
    assert coupled_regression(0, steps=100) < 0.05


SMALL = Row(
    table="small",
    name="digits",
    title="64-8-10",
    quantity="test error",
    unit="%",
    sets=("full",),
    ours=RowRecipe(
        base="hopfield-digits",
        set={
            "system.sizes": [64, 8, 10],
            "data.validation": 40,
            "data.train_examples": 200,
            "data.test_examples": 50,
            "training.epochs": 2,
        },
        minutes=0.1,
    ),
)
DEAR = Row("small", "dear", "", "error", "%", sets=("full",), ours=RowRecipe(base="hopfield-digits", minutes=1e4))
LACKING = Row("small", "lacking", "", "error", "%", sets=("full",), ours=RowRecipe(missing="it is secret"))


@pytest.fixture
def small_table(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row.name: row for row in (SMALL, DEAR, LACKING)}
    found = {"small": PublishedTable("small", "", "", "", rows)}
    monkeypatch.setattr(reproducing, "published_tables", lambda: found)


@pytest.mark.usefixtures("small_table")
def test_what_is_not_run_says_so(tmp_path: Path) -> None:
    """Rows beyond the budget, and rows without a recipe, have no figure and count for nothing."""
    found = {o.row.name: o for o in reproduce("small", seeds=1, out=tmp_path, at_most=0).outcomes}
    assert all(o.figure is None for o in found.values())
    assert "told to take 167 hours" in found["dear"].verdict
    assert found["lacking"].verdict == "does not count: it is secret"
    assert not any(tmp_path.iterdir())
    part = replace(outcome([1.5, 1.58, 1.6]), wanted=5, untried="not run here")
    assert part.verdict == "within the interval; 3 of the 5 seeds were made"


@pytest.mark.usefixtures("small_table")
def test_earlier_figures_stand_where_run_files_lack(tmp_path: Path) -> None:
    """A table is made of what an earlier call wrote, as it wrote it, and not of figures of another recipe."""
    assert DEAR.ours is not None
    recipe = replace(DEAR.ours, exact="implicit")
    values = {"ep": {0: 1.5, 1: 1.7, 2: 1.9}, "exact": {0: 1.4, 1: 1.61, 2: 1.8}}
    before = RowOutcome(DEAR, "ours", recipe, values, {0: 2})
    file = tmp_path / "earlier.json"
    file.write_text(json.dumps(Reproduction((before,)).figures()))
    options: dict[str, Any] = {"row": "dear", "seeds": 3, "at_most": 0, "out": tmp_path / "runs"}
    told = reproduce("small", **options, earlier=file).outcomes[0]
    assert told.figure == before.figure
    assert told.paired == before.paired
    assert {**told.as_dict(), "exact": "implicit", "verdict": ""} == {**before.as_dict(), "verdict": ""}
    assert "told to take" in reproduce("small", **options).outcomes[0].verdict
    rows = json.loads(file.read_text())["rows"]
    file.write_text(json.dumps({"rows": [{**rows[0], "recipe_digest": "0" * 16}]}))
    assert reproduce("small", **options, earlier=file).outcomes[0].figure is None
    file.write_text("[1]")
    with pytest.raises(InputError, match="is none that `physics-ep reproduce --json` wrote"):
        reproduce("small", **options, earlier=file)


@pytest.mark.full
def test_the_table_in_the_docs_is_made_of_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command gives the page again from the file of its figures, without run files or data."""
    monkeypatch.setenv("PHYSICS_EP_DATA", str(tmp_path))
    docs = ROOT / "docs"
    made = reproduce("full", seeds=5, at_most=0, earlier=docs / "reproduced.json", out=tmp_path)
    assert made.to_markdown() == (docs / "reproduced_table.md").read_text(encoding="utf-8")


PUBLISHED_SIZE = {
    "first/hopfield-1h.paper", "first/hopfield-1h-code.paper", "hopfield/dhn-1h.ours", "drn/drn-1h.ours",
    "drn/drn-2h.ours", "drn/drn-3h.ours", "oscillators/mnist.ours", "oscillators/oim-mnist.ours",
}  # fmt: skip
"""Rows that train the published network on all of the published data."""


def test_enough_rows_have_three_seeds() -> None:
    """Ten rows at three seeds or more, six of the published size, five pairs of two networks, and means of what the
    seeds gave."""
    rows = json.loads((ROOT / "docs" / "reproduced.json").read_text(encoding="utf-8"))["rows"]
    made = {f"{row['table']}/{row['row']}.{row['recipe']}": row for row in rows if row["seeds"] >= 3}
    assert len(made) >= 20
    assert set(made) >= PUBLISHED_SIZE
    assert len(PUBLISHED_SIZE) >= 6
    assert all(made[name]["pairs"] == 5 for name in ("hopfield/dhn-1h.ours", "drn/drn-1h.ours"))
    assert all(row["seeds"] in (0, *range(3, 10)) for row in rows)
    for row in made.values():
        values = row["values"].get("ep", row["values"].get("measure", {}))
        assert len(values) in (0, row["seeds"])
        if values:
            assert row["ours"] == pytest.approx(sum(values.values()) / len(values), rel=1e-12)


QUOTED = re.compile(r"(?<![\d.,])([+-]?\d+\.\d\d)(?: %| points)? \[([+-]?\d+\.\d\d), ([+-]?\d+\.\d\d)\]")
"""A mean with its interval, in the form in which pages quote rows."""


def test_pages_quote_rows_as_the_command_made_them() -> None:
    """README, docs and CHANGELOG tell no mean with an interval that `reproduce` did not make."""
    rows = json.loads((ROOT / "docs" / "reproduced.json").read_text(encoding="utf-8"))["rows"]
    told = set()
    for row in rows:
        for mean, ends in ((row["ours"], row["interval"]), (row["paired_difference"], row["paired_interval"])):
            if ends is not None:
                told.add(tuple(round(value, 2) + 0.0 for value in (mean, *ends)))
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    found = [(page.name, *quote) for page in pages for quote in QUOTED.findall(page.read_text(encoding="utf-8"))]
    assert len([quote for quote in found if quote[0] != "reproduced_table.md"]) > 10
    lone = [quote for quote in found if tuple(round(float(value), 2) + 0.0 for value in quote[1:]) not in told]
    assert not lone


def test_a_digest_tells_recipes_apart() -> None:
    """Another rate, another number of steps or another option is another recipe; other words are not."""
    one = RowRecipe(base="hopfield-digits", set={"optimizer.lr": 0.1})
    others = [
        replace(one, set={"optimizer.lr": 0.2}),
        replace(one, brief={"free": 20, "nudged": 4, "step": 0.5}),
        RowRecipe(measure="vgg10_cost", options={"side": 32}),
        RowRecipe(measure="vgg10_cost", options={"side": 64}),
    ]
    assert len({digest(recipe) for recipe in (one, *others)}) == 5
    assert digest(one) == digest(replace(one, notes=("of one seed",), minutes=3.0, exact="implicit"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"table": "smal"}, "Did you mean 'small'"),
        ({"table": "small", "row": "digit"}, "Did you mean 'digits'"),
        ({"table": "small", "recipe": "theirs"}, "recipe"),
        ({"table": "small", "seeds": 0}, "seeds must be an integer of at least 1"),
        ({"table": "small", "at_most": float("nan")}, "at_most must be a number of minutes"),
    ],
)
@pytest.mark.usefixtures("small_table")
def test_bad_requests_are_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    """Wrong names are refused with the nearest right one, before anything is trained."""
    with pytest.raises(InputError, match=words):
        reproduce(out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.full
@pytest.mark.usefixtures("small_table")
def test_a_reproduction_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in its second seed, or shared by two workers, it has the figures of one that ran through."""
    straight = reproduce("small", row="digits", seeds=2, out=tmp_path / "straight")
    usual, reads = InMemory.test, []

    def killed(self: InMemory) -> Iterator[Any]:
        reads.append(1)
        if len(reads) == 2:
            raise KeyboardInterrupt
        return usual(self)

    with monkeypatch.context() as patch:
        patch.setattr(InMemory, "test", killed)
        with pytest.raises(TrainingInterrupted):
            reproduce("small", row="digits", seeds=2, out=tmp_path / "killed")
    first = file_of(tmp_path / "killed", "small", "digits", "ours", "ep", 0)
    before = first.read_bytes()
    again = reproduce("small", row="digits", seeds=2, out=tmp_path / "killed")
    assert first.read_bytes() == before
    shared = reproduce("small", row="digits", seeds=2, out=tmp_path / "shared", workers=2)
    assert straight.figures() == again.figures() == shared.figures()
    for seed in (0, 1):
        files = [
            file_of(tmp_path / d, "small", "digits", "ours", "ep", seed) for d in ("straight", "killed", "shared")
        ]
        assert_same_run(files[0], files[1])
        assert_same_run(files[0], files[2])


@pytest.mark.full
def test_files_of_other_gradients_are_no_files_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Phases of other steps, or exact gradients in the place of EP's, end as well, with another error."""
    ours = SMALL.ours
    assert ours is not None

    def asked(**changes: Any) -> Reproduction:
        row = replace(SMALL, ours=replace(ours, **changes))
        tables = {"small": PublishedTable("small", "", "", "", {"digits": row})}
        monkeypatch.setattr(reproducing, "published_tables", lambda: tables)
        return reproduce("small", seeds=1, out=tmp_path)

    brief = {"free": 4, "nudged": 2, "step": 0.5}
    entries = {**ours.set, "training.epochs": 1, "ep.beta": 0.5, "ep.scheme": "random"}
    made = asked(brief=brief, set=entries)
    assert asked(brief=brief, set=entries).figures() == made.figures()
    for other in ({}, {**brief, "nudged": 3}, {**brief, "step": 0.25}):
        with pytest.raises(InputError, match=r"backward must be 'phases of 4 and 2 steps of 0\.5 at beta 0\.5"):
            asked(brief=other, set=entries)
    file = file_of(tmp_path, "small", "digits", "ours", "ep", 0)
    file.rename(file_of(tmp_path, "small", "digits", "ours", "exact", 0))
    with pytest.raises(InputError, match="but was 'exact gradients by elimination"):
        asked(brief=brief, set=entries, exact="elimination")


@pytest.mark.full
@pytest.mark.usefixtures("small_table")
def test_weights_of_rows_are_a_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a row trained is loaded by its name, bit for bit; a changed byte, or another seed, is refused."""
    folder = tmp_path / "zoo"
    options: dict[str, Any] = {"row": "digits", "seeds": 1, "out": tmp_path / "runs", "weights": folder}
    for _ in range(2):  # the same call again changes nothing
        made = reproduce("small", **options).outcomes[0]
    monkeypatch.setenv("PHYSICS_EP_ZOO", str(folder))
    entry = zoo()["small-digits-ours"]
    assert 100 * entry["test_error"] == made.values["ep"][0]
    assert entry["data"] == "digits: 200 training examples but 40 held out to choose the epoch, 50 test examples"
    run = open_run(file_of(tmp_path / "runs", "small", "digits", "ours", "ep", 0))
    for key, tensor in load_system("small-digits-ours").state_dict().items():
        assert torch.equal(tensor, run.state_dict[key])
    file = folder / entry["file"]
    content = file.read_bytes()
    with pytest.raises(InputError, match=r"weights must be a new file \(overwrite=True replaces"):
        reproduce("small", **options, seed=1)
    assert file.read_bytes() == content
    reproduce("small", **options, seed=1, overwrite=True)
    assert zoo()["small-digits-ours"]["seed"] == 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="must have the sha256 that its index names"):
        load_system("small-digits-ours")


COARSE = Row(
    "small", "coarse", "", "change", "points", sets=("full",),
    ours=RowRecipe(measure="rounding", reads="phases", options={"weight_bits": 3, "phase_bits": 4}, minutes=0.1),
)  # fmt: skip
PHASES = Row(
    "small", "phases", "", "error", "%", sets=("full",),
    ours=RowRecipe(
        base="oscillator-digits",
        set={"data.validation": 40, "data.train_examples": 200, "data.test_examples": 200, "training.epochs": 1},
        minutes=2,
    ),
)  # fmt: skip


@pytest.mark.full
def test_trained_weights_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement of a row's weights trains them first, once, counts that in its budget, and rounds as told."""
    tables = {"small": PublishedTable("small", "", "", "", {"coarse": COARSE, "phases": PHASES})}
    monkeypatch.setattr(reproducing, "published_tables", lambda: tables)
    short = reproduce("small", row="coarse", seeds=1, out=tmp_path, at_most=1).outcomes[0]
    assert "told to take 2 minutes" in short.verdict
    made = {o.row.name: o for o in reproduce("small", seeds=1, out=tmp_path).outcomes}
    change = made["coarse"].values["measure"][0]
    run = open_run(file_of(tmp_path, "small", "phases", "ours", "ep", 0))
    assert rounding(0, run, weight_bits=24, phase_bits=24) == pytest.approx(0, abs=1e-3)
    # By hand: weights on 2^(bits-1) - 1 levels a side, phases on 16 steps, ties shared out.
    system = system_of(run)
    for layer in system.couplings:
        span = float(layer.weight.detach().abs().max())
        layer.weight.data = (layer.weight.data * 3 / span).round() * span / 3
    data = load_dataset(parse_config(run.config).data)
    phases = relax(system, data.test_x, solver="anderson", tolerance=run.config["ep"]["tolerance"]).state[-1]
    cosines = ((phases * 8 / math.pi).round() * math.pi / 8).cos().round(decimals=5)
    best = cosines == cosines.amax(1, keepdim=True)
    right = (best[torch.arange(200), data.test_y] / best.sum(1)).mean()
    told = float(run.metric("test_error")[-1])
    assert change == pytest.approx(100 * (1 - float(right) - told), abs=0.3)
    assert change != 0
    usual, calls = measures.relax, iter(range(2))

    def lost(*words: Any, **options: Any) -> Any:
        found = usual(*words, **options)
        kept = torch.arange(200) < 100 * (2 - next(calls))
        return replace(found, residual=found.residual.where(kept, math.inf))

    monkeypatch.setattr(measures, "relax", lost)  # half of the examples lose their free state by rounding
    assert rounding(0, run, weight_bits=24, phase_bits=24) > 25


@pytest.mark.slow
def test_a_killed_command_goes_on(tmp_path: Path) -> None:
    """SIGKILL leaves whole run files, and the same command goes on from them to its end."""
    words = ["reproduce", "oscillators", "--row", "digits", "--recipe", "ours", "--seeds", "1"]
    command = [sys.executable, "-m", "physics_ep", *words, "--out", str(tmp_path)]
    file = file_of(tmp_path, "oscillators", "digits", "ours", "ep", 0)
    with subprocess.Popen(command, cwd=ROOT) as child:
        wait_for(file.exists, child)
        child.send_signal(signal.SIGKILL)
    assert 1 <= open_run(file).epochs < 8
    subprocess.run(command, cwd=ROOT, check=True)
    assert open_run(file).epochs == 8
