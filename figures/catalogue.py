"""The figures by name. A new one is a function (Request) -> Drawn and a row in `FIGURES`.

A figure of your own is an `Entry` that `register_figure` takes, or that a package names as an entry point in the
group `physics_ep.figures`; the command then draws it as it draws ours.

Nothing heavy is imported until a figure is made: the command's `--list` and `--help` read this table.
"""

from __future__ import annotations

from pathlib import Path

from physics_ep.entries import load
from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.registry import figures

from .requests import Drawn, Entry, Request, names_folder


def register_figure(entry: Entry) -> None:
    """Add a figure of your own to those that `find` and the command know, until the program ends.

    Parameters
    ----------
    entry : Entry
        Its name is a word with underscores. The same entry may be registered twice.

    Raises
    ------
    InputError
        If another figure bears the name.
    """
    other = next((known for known in entries() if known.name == entry.name), entry)
    if other != entry:
        raise argument_error("name", "be one that no figure bears", repr(entry.name))
    if entry not in _ADDED:
        _ADDED.append(entry)


def entries() -> list[Entry]:
    """All figures: our own, those that were registered, and those of installed packages."""
    return [*FIGURES, *_ADDED, *(_entry(name) for name in figures())]


def _entry(name: str) -> Entry:
    found = load(figures()[name])
    if not isinstance(found, Entry):
        raise InputError(f"Entry point {name!r} of physics_ep.figures must name an Entry, but names {found!r}.")
    return found


def find(name: str) -> Entry:
    """Entry by name; hyphens count as underscores.

    Raises
    ------
    InputError
        If there is none, with the nearest right name.
    """
    known = {entry.name: entry for entry in entries()}
    if name.replace("-", "_") in known:
        return known[name.replace("-", "_")]
    raise unknown_name("NAME", name, [*known, "all"], "physics-ep figure --list")


def require_subject(run: Path, weights: Path | None = None) -> None:
    """Raise InputError where --from names no folder, run file or system, or weights come with what has its own."""
    from physics_ep.config import RUN_FILES, load_subject
    from physics_ep.storage.opening import open_run

    if run.suffix.lower() in (".json", ".csv", ".tex"):
        must = "be the .h5 that --out of tolerance, train or simulate writes, not a file of its numbers"
        raise argument_error("--from", must, str(run))
    if names_folder(run):
        if weights is not None:
            raise argument_error("weights", "be left out with a folder, which has none", str(weights))
        return
    if run.suffix not in RUN_FILES:
        load_subject(run, weights)
        return
    open_run(run)
    if weights is not None:
        raise argument_error("weights", "be left out with a run file, which has its own", str(weights))


def holds_courses(run: Path) -> bool:
    """Whether --from names a run file of a simulation, which holds courses in time."""
    from physics_ep.config import RUN_FILES
    from physics_ep.storage.opening import open_run

    return run.suffix in RUN_FILES and bool(open_run(run).trajectories)


def suited(run: Path | None) -> list[Entry]:
    """All figures; from a run file, those that draw systems of its kind; from a folder, those that draw folders."""
    if run is None:
        return entries()
    known = [entry for entry in entries() if entry.folder == names_folder(run)]
    if names_folder(run):
        return known
    from physics_ep.config import RUN_FILES, load_subject, parse_config
    from physics_ep.storage.opening import open_run

    if run.suffix not in RUN_FILES:
        named = load_subject(run).system.name
        return [entry for entry in known if not entry.systems or named in entry.systems]
    found = open_run(run)
    if any(found.attributes.get("kind") in entry.kinds for entry in known):
        return [entry for entry in known if found.attributes["kind"] in entry.kinds]
    kind = parse_config(found.config).system.name
    return [entry for entry in known if not entry.systems or kind in entry.systems]


def draw(entry: Entry, request: Request) -> Drawn:
    """Make a figure on one thread.

    Systems this small gain nothing from more, wait long for each other where cores are shared, and would round
    differently from one number of threads to another.
    """
    from physics_ep.placement import threads

    with threads(1):
        return entry.make(request)


_ADDED: list[Entry] = []

PREDICTIVE = ("pcn", "vgg5", "vgg10", "vgg10-skip")
RESISTIVE = ("resistive",)
OSCILLATORS = ("oscillator", "ising-oscillator")
COURSES = "trajectories"
"""Figure of the courses that a run file of a simulation holds."""

RESISTIVE_FIGURES: tuple[Entry, ...] = (
    Entry(
        "resistive_relaxation",
        "a resistive network's volts, power and co-content over seconds, free and nudged",
        "figures.resistive.relaxation:make_resistive_relaxation",
        RESISTIVE,
    ),
    Entry(
        "conductances",
        "conductances of a resistive network before and after training",
        "figures.resistive.conductances:make_conductances",
        RESISTIVE,
    ),
    Entry(
        "resistive_error",
        "error of EP over beta: no, Shockley and ideal diodes, float64 and float32",
        "figures.resistive.relaxation:make_resistive_error",
        RESISTIVE,
    ),
    Entry(
        "circuit_scaling",
        "time and memory of operating points over the size of the circuit",
        "figures.resistive.scaling:make_circuit_scaling",
        RESISTIVE,
    ),
)

OSCILLATOR_FIGURES: tuple[Entry, ...] = (
    Entry(
        "phases_on_circle",
        "phases of oscillators on the circle as they settle, free and nudged",
        "figures.oscillators.phases:make_phases_on_circle",
        OSCILLATORS,
    ),
    Entry(
        "two_oscillators",
        "energy landscape of two oscillators, free and nudged paths, and a fold over beta",
        "figures.oscillators.pair:make_two_oscillators",
        OSCILLATORS,
    ),
    Entry(
        "locking",
        "locking against detuning, and order against coupling, on closed forms",
        "figures.oscillators.locking:make_locking",
        OSCILLATORS,
    ),
    Entry(
        "oscillator_mapping",
        "a network on oscillators: units as clips, settling, mirror images, detuning left out",
        "figures.mapping.oscillators:make_oscillator_mapping",
        OSCILLATORS,
    ),
    Entry(
        "medium",
        "a travelling pulse, and a stationary state with its spectrum and the error of shooting",
        "figures.oscillators.media:make_medium",
        ("fitzhugh-nagumo",),
    ),
    Entry(
        "early_inference",
        "first movements of layers against backprop's errors, over time and in noise",
        "figures.hopfield.early_inference:make_early_inference",
        ("langevin-hopfield",),
    ),
    Entry(
        "branch_switch",
        "examples that leave their branch when nudged, and what they do to the gradient",
        "figures.oscillators.gradients:make_branch_switch",
        OSCILLATORS,
    ),
    Entry(
        "oscillator_error",
        "error of EP over beta: oscillators of all kinds, media, and two costs of phases",
        "figures.oscillators.gradients:make_oscillator_error",
        (*OSCILLATORS, "fitzhugh-nagumo"),
    ),
)
"""Rows of oscillators, media and early inference."""

FIGURES: tuple[Entry, ...] = (
    Entry(
        COURSES,
        "states, energy and residual over time: the course that a simulation's file holds, or a new one",
        "figures.courses:make_trajectories",
        kinds=("simulation",),
    ),
    Entry(
        "hopfield_dynamics",
        "states, energy and residual of a free and two nudged phases",
        "figures.hopfield.dynamics:make_hopfield_dynamics",
    ),
    Entry(
        "circuit_transients",
        "the analog circuit's volts, energy and power over seconds, free and nudged",
        "figures.hopfield.transients:make_circuit_transients",
    ),
    Entry(
        "estimator_error",
        "error of EP over beta, every scheme, smooth units and kinks",
        "figures.gradients.errors:make_estimator_error",
    ),
    Entry("precision", "error of EP over beta in float32 and float64", "figures.gradients.errors:make_precision"),
    Entry(
        "learning_curve",
        "errors, loss, residuals and iterations of a training",
        "figures.hopfield.training:make_learning_curve",
    ),
    Entry(
        "bptt_equality",
        "EP's running estimate against truncated backprop through time, step by step",
        "figures.gradients.stepwise:make_bptt_equality",
    ),
    Entry(
        "holomorphic_map",
        "error of holomorphic EP over beta and the number of points",
        "figures.gradients.schemes:make_holomorphic_map",
    ),
    Entry(
        "clamping",
        "coupled learning and clamping beside EP, over their strength",
        "figures.gradients.clamping:make_clamping",
    ),
    Entry(
        "auto_beta", "the beta that beta='auto' picks, beside a sweep", "figures.gradients.automatic:make_auto_beta"
    ),
    Entry(
        "layers",
        "EP's gradient against an exact one, layer by layer: cosine, error, residual, K",
        "figures.gradients.layers:make_layers",
        options=("cost", "beta", "gates"),
    ),
    Entry(
        "pcn_energy",
        "energy and residual of a predictive coding network as it settles",
        "figures.pcn.energy:make_pcn_energy",
        PREDICTIVE,
    ),
    Entry(
        "pcn_cosine",
        "EP against backprop on deep predictive coding networks",
        "figures.pcn.cosine:make_pcn_cosine",
        PREDICTIVE,
    ),
    Entry(
        "pcn_cost",
        "layer passes of every predictive coding solver against accuracy",
        "figures.pcn.cost:make_pcn_cost",
        PREDICTIVE,
    ),
    Entry(
        "batch_statistics",
        "batch norm in training mode: lambda, gradients, and test errors of EP and backprop",
        "figures.pcn.batch_statistics:make_batch_statistics",
        PREDICTIVE,
    ),
    Entry(
        "paired_unit",
        "circuit of a paired unit, and a chain of layers of them",
        "figures.mapping.paired_unit:make_paired_unit",
        PREDICTIVE,
    ),
    Entry(
        "settling_depth",
        "settling, slack between h and u, and damage of copies over depth",
        "figures.mapping.depth:make_settling_depth",
        PREDICTIVE,
    ),
    Entry(
        "tolerance_layers",
        "gradient cosine of each layer over imperfections of devices",
        "figures.mapping.tolerance:make_tolerance_layers",
        PREDICTIVE,
        ("tolerance sweep",),
    ),
    Entry(
        "signature",
        "gradient of each layer over imperfections, on three substrates",
        "figures.mapping.signature:make_signature",
        ("pcn",),
        ("tolerance sweep",),
    ),
    Entry(
        "substrates",
        "one trained network on three substrates: settling, gradients, errors",
        "figures.mapping.substrates:make_substrates",
        ("pcn",),
    ),
    Entry(
        "in_situ",
        "test error of learning on the device, and of writing a trained network into it",
        "figures.mapping.in_situ:make_in_situ",
        ("pcn",),
        ("in-situ training",),
    ),
    Entry(
        "copies",
        "ways to live with cells that err apart: gradients, free states, test error",
        "figures.mapping.copies:make_copies",
        ("pcn",),
    ),
    Entry(
        "best_beta",
        "error over beta under read noise, and the best beta",
        "figures.mapping.tolerance:make_best_beta",
        PREDICTIVE,
    ),
    *RESISTIVE_FIGURES,
    *OSCILLATOR_FIGURES,
    Entry(
        "bench_history",
        "what benchmarks cost from release to release; --from a folder of files of bench --json",
        "figures.history:make_bench_history",
        folder=True,
    ),
)
