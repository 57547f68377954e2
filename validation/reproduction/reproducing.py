"""Make rows of published tables, seed by seed, on some processes; a call that was killed goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from physics_ep.data.cifar import VARIANTS, find_cifar
from physics_ep.data.datasets import data_folder, locate
from physics_ep.errors import argument_error, require_count, unknown_name
from physics_ep.progress import SILENT, Progress, task
from physics_ep.runs.seeds import by_processes
from physics_ep.storage.outputs import writing

from .earlier import digest, earlier_figures
from .jobs import Job, Made, file_of, found, make
from .outcomes import Reproduction, RowOutcome
from .rows import RECIPES, SETS, Row, published_tables
from .weights import write_weights

FOLDER = "runs/reproduce"
LOSSY = (
    "the images here are JPEG, whose pixels are not the set's own: they compare with backprop on the same pixels"
)


def chosen_rows(table: str | None = None, row: str | None = None) -> list[Row]:
    """Rows of a table or a set, or all of them with a name.

    Parameters
    ----------
    table : str, optional
        Name of a table, or of a set ('quick', 'standard', 'full'). Default: 'quick'; 'full' where a row is named.
    row : str, optional
        Name of one row.

    Raises
    ------
    InputError
        If there is no such table or row.
    """
    tables = published_tables()
    asked = table if table is not None else "full" if row is not None else "quick"
    if asked not in tables and asked not in SETS:
        raise unknown_name("TABLE", asked, [*SETS, *tables])
    rows = [r for t in tables.values() for r in t.rows.values() if asked in (t.name, *r.sets)]
    if row is None:
        return rows
    named = [r for r in rows if row in (r.name, f"{r.table}/{r.name}")]
    if not named:
        raise unknown_name("row", row, [r.name for r in rows])
    return named


@writing("validation.reproduce")
def reproduce(
    table: str | None = None,
    *,
    row: str | None = None,
    seeds: int = 3,
    seed: int = 0,
    recipe: str | None = None,
    out: str | os.PathLike[str] = FOLDER,
    data: str | os.PathLike[str] | None = None,
    at_most: float | None = None,
    workers: int = 1,
    device: str | None = None,
    dtype: str | None = None,
    earlier: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | bool = SILENT,
    command: str = "validation.reproduce",
) -> Reproduction:
    """Make rows of published tables, and say how they compare.

    Every seed of a row leaves a run file. What the files hold is not made again, and trainings go on from their
    last complete epoch, so that the same call goes on after a kill. One worker and several give the same bits.

    Parameters
    ----------
    table, row : str, optional
        See `chosen_rows`.
    seeds : int
        Number of seeds of each row: seed, seed + 1, ...
    seed : int
        The first of them.
    recipe : {'paper', 'ours'}, optional
        Default: both.
    out : path
        Folder of the run files.
    data : path, optional
        Folder of data sets; default PHYSICS_EP_DATA.
    at_most : float, optional
        Rows whose told budget, all seeds and rules together, is above so many minutes are not begun; what their
        files hold is told.
    workers : int
        Processes that share the seeds of all rows.
    device, dtype : str, optional
        Where trainings compute, and in which precision; default what their recipes say. Measurements are made on
        the CPU, as they are.
    earlier : path, optional
        File that an earlier call wrote as `--json`: its figure of a row under the same recipe is told where the run
        files have fewer seeds. It keeps no row from being made.
    weights : path, optional
        Folder of a zoo for the weights of the first seed of each training that is done, by EP
        (`validation.reproduction.weights`).
    overwrite : bool
        Whether other weights in that folder are replaced.
    progress : Progress
    command : str
        In whose name files are written.

    Returns
    -------
    Reproduction

    Raises
    ------
    InputError
        If an argument is wrong, or a file in `out` is of another recipe. Nothing has been written then.
    """
    for name, count in (("seeds", seeds), ("workers", workers)):
        require_count(name, count)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise argument_error("seed", "be an integer of at least 0", repr(seed))
    if recipe is not None and recipe not in RECIPES:
        raise unknown_name("recipe", recipe, RECIPES)
    if at_most is not None and not at_most >= 0:
        raise argument_error("at_most", "be a number of minutes of at least 0", at_most)
    names = RECIPES if recipe is None else (recipe,)
    plan = [(r, name) for r in chosen_rows(table, row) for name in names if getattr(r, name) is not None]
    if not plan:
        raise argument_error("recipe", "be one that the rows have", repr(recipe))
    folder = None if data is None else os.fspath(data)
    told_before = {} if earlier is None else earlier_figures(earlier)
    jobs: dict[tuple[int, str, int], Job] = {}
    done: dict[tuple[int, str, int], Made] = {}
    untried: dict[int, str] = {}
    for k, (each, name) in enumerate(plan):
        told = each.recipe(name)
        if told.missing:
            untried[k] = f"does not count: {told.missing}"
            continue
        for rule in told.rules:
            for number in range(seed, seed + seeds):
                path = file_of(out, each.table, each.name, name, rule, number)
                job = Job(told, rule, number, path, folder, command, device, dtype)
                jobs[k, rule, number] = job if not told.reads else replace(job, source=_source(job, each, out))
                held = found(jobs[k, rule, number])
                if held is not None:
                    done[k, rule, number] = held
        unmade = [
            job.source for key, job in jobs.items() if key[0] == k and job.source and found(job.source) is None
        ]
        why = _obstacle(each, name, seeds, folder, at_most, sum(job.recipe.minutes for job in unmade))
        if why and any(key not in done for key in jobs if key[0] == k):
            untried[k] = why
    waiting = [key for key in jobs if key not in done and key[0] not in untried]
    # Trainings come before what is measured of them, so that no two workers make one of them.
    turns = [[key for key in waiting if (jobs[key].source is None) == first] for first in (True, False)]
    with task(progress, "rows", len(waiting)) as advance:
        for turn in turns:
            for key, value in zip(turn, _made([jobs[key] for key in turn], workers), strict=True):
                done[key] = value
                advance(1, row=plan[key[0]][0].name)
    outcomes = []
    for k, (each, name) in enumerate(plan):
        made = replace(_outcome(k, each, name, done, folder), untried=untried.get(k, ""), wanted=seeds)
        before = told_before.get((each.table, each.name, name))
        more = before is not None and (before["seeds"], before["pairs"]) > (len(made.seeds), len(made.pairs))
        if before is not None and more and before["recipe_digest"] == digest(made.recipe):
            # Images that it was made of may lie elsewhere: whether they were lossy is told by what was made.
            told_row = replace(made.row, incomparable=before.get("incomparable", made.row.incomparable))
            made = replace(made, row=told_row, earlier=before)
        outcomes.append(made)
    if weights is not None:
        trained = [
            (*plan[k], job) for (k, rule, number), job in jobs.items()
            if rule == "ep" and number == seed and (k, rule, number) in done
        ]  # fmt: skip
        with writing(command, overwrite=overwrite):
            write_weights(weights, trained)
    return Reproduction(tuple(outcomes))


def _made(jobs: list[Job], workers: int) -> Iterator[Made]:
    """Outcomes in the order of the jobs."""
    if workers == 1 or len(jobs) < 2:
        return map(make, jobs)
    return by_processes(make, jobs, min(workers, len(jobs)))


def _source(job: Job, row: Row, out: str | os.PathLike[str]) -> Job:
    """The training of the same seed, by EP under our recipe, of the row that a measurement reads."""
    reads = job.recipe.reads
    path = file_of(out, row.table, reads, "ours", "ep", job.seed)
    return replace(job, recipe=published_tables()[row.table].rows[reads].recipe("ours"), rule="ep", path=path)


def _obstacle(row: Row, name: str, seeds: int, data: str | None, at_most: float | None, before: float = 0.0) -> str:
    """Why a row cannot be made here, or is not to be; `before` are minutes of trainings that it reads."""
    recipe = row.recipe(name)
    needed = recipe.minutes * len(recipe.rules) * seeds + before
    if at_most is not None and needed > at_most:
        told = f"{needed:.0f} minutes" if needed < 120 else f"{needed / 60:,.0f} hours"
        return f"not run here: {seeds} seeds are told to take {told} of one quiet core"
    if recipe.measure:
        return ""
    wanted = recipe.config().data.name
    return "" if locate(wanted, data) is not None else f"does not count: data set {wanted!r} was not found"


def _outcome(
    k: int,
    row: Row,
    name: str,
    done: dict[tuple[int, str, int], Made],
    data: str | None,
) -> RowOutcome:
    recipe = row.recipe(name)
    scale = 100.0 if row.unit == "%" else 1.0
    values: dict[str, dict[int, float]] = {}
    epochs = {}
    for (number, rule, seed), made in done.items():
        if number == k:
            values.setdefault(rule, {})[seed] = scale * made.value
            if made.epoch is not None and rule == recipe.rules[0]:
                epochs[seed] = made.epoch
    if recipe.base and not row.incomparable and _lossy(recipe.config().data.name, data):
        row = replace(row, incomparable=LOSSY)
    return RowOutcome(row, name, recipe, values, epochs)


def _lossy(name: str, data: str | None) -> bool:
    """Whether a data set is found as images, whose pixels are not the set's own where they are JPEG."""
    source = find_cifar(name, data_folder(data)) if name in VARIANTS else None
    return source is not None and source.kind == "images"
