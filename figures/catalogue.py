"""The figures by name. A new one is a function (Request) -> Drawn and a row in `FIGURES`.

Nothing heavy is imported until a figure is made: the command's `--list` and `--help` read this table.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from physics_ep.errors import argument_error, unknown_name

from .oscillator_entries import OSCILLATOR_FIGURES
from .requests import BATCH, Drawn, Entry, Request
from .resistive_entries import RESISTIVE_FIGURES

if TYPE_CHECKING:
    from .subjects import Subject


def find(name: str) -> Entry:
    """Entry by name; hyphens count as underscores.

    Raises
    ------
    InputError
        If there is none, with the nearest right name.
    """
    for entry in FIGURES:
        if entry.name == name.replace("-", "_"):
            return entry
    raise unknown_name("NAME", name, [*(entry.name for entry in FIGURES), "all"])


def suited(run: Path | None) -> list[Entry]:
    """All figures; from a run file, those that draw systems of its kind."""
    if run is None:
        return list(FIGURES)
    from physics_ep.config import parse_config
    from physics_ep.store import open_run

    found = open_run(run)
    if any(found.attributes.get("kind") in entry.kinds for entry in FIGURES):
        return [entry for entry in FIGURES if found.attributes["kind"] in entry.kinds]
    kind = parse_config(found.config).system.name
    return [entry for entry in FIGURES if not entry.systems or kind in entry.systems]


def draw(entry: Entry, request: Request) -> Drawn:
    """Make a figure on one thread.

    Systems this small gain nothing from more, wait long for each other where cores are shared, and would round
    differently from one number of threads to another.
    """
    from physics_ep.placement import threads

    with threads(1):
        return entry.make(request)


def _dynamics(request: Request) -> Drawn:
    from .dynamics import draw_dynamics, hopfield_dynamics
    from .subjects import fresh_hopfield, trained

    subject = (
        fresh_hopfield("Hopfield network", [48, 32], "tanh", 0.8, examples=1, seed=request.seed, **request.place())
        if request.run is None
        else trained(request.run, examples=1, **request.place())
    )
    with request.progress.task("figure: dynamics", 1) as advance:
        data = hopfield_dynamics(subject)
        advance(1)
    return Drawn(draw_dynamics(data), asdict(data))


def _circuit(request: Request) -> Drawn:
    from .circuit import circuit_transients, draw_transients
    from .subjects import fresh_hopfield, trained

    # The circuit is simulated in float64 on the CPU, wherever its network was.
    subject = (
        fresh_hopfield("Hopfield network", [48, 32], "tanh", 0.8, examples=1, seed=request.seed)
        if request.run is None
        else trained(request.run, examples=1)
    )
    with request.progress.task("figure: circuit transients", 1) as advance:
        data = circuit_transients(subject)
        advance(1)
    return Drawn(draw_transients(data), asdict(data))


def _estimator(request: Request) -> Drawn:
    from .gradients import draw_errors, estimator_error
    from .subjects import trained

    subjects = (
        [_smooth(request), _hard(request)]
        if request.run is None
        else [trained(request.run, examples=BATCH, **request.place())]
    )
    data = estimator_error(subjects, seed=request.seed, progress=request.progress)
    return Drawn(draw_errors(data), asdict(data))


def _precision(request: Request) -> Drawn:
    from .gradients import draw_errors, precision_error
    from .subjects import trained

    subject = _smooth(request) if request.run is None else trained(request.run, examples=BATCH, **request.place())
    data = precision_error(subject, progress=request.progress)
    return Drawn(draw_errors(data), asdict(data))


def _learning(request: Request) -> Drawn:
    from physics_ep.store import open_run
    from physics_ep.training import train

    from .training import draw_learning_curve, learning_curve

    if request.run is not None:
        data = learning_curve(open_run(request.run))
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.h5"
            train(
                "hopfield-digits",
                out=path,
                seed=request.seed,
                device=request.device,
                dtype=request.dtype,
                progress=request.progress,
            )
            data = learning_curve(open_run(path))
    return Drawn(draw_learning_curve(data), asdict(data))


def _stepwise(request: Request) -> Drawn:
    from .stepwise import bptt_equality, draw_bptt_equality, fresh_convolutional
    from .subjects import fresh_hopfield, trained

    few: dict[str, Any] = {"examples": 8, **request.place()}
    fresh = {"seed": request.seed, **few}
    subjects = (
        [fresh_hopfield("dense network", [32, 24], "tanh", 0.5, **fresh), fresh_convolutional(**fresh)]
        if request.run is None
        else [trained(request.run, **few)]
    )
    data = bptt_equality(subjects, progress=request.progress)
    return Drawn(draw_bptt_equality(data), asdict(data))


def _holomorphic(request: Request) -> Drawn:
    from .schemes import draw_holomorphic, holomorphic_map

    data = holomorphic_map(_tanh(request, [(3, 0.5)])[0], progress=request.progress)
    return Drawn(draw_holomorphic(data), asdict(data))


def _clamping(request: Request) -> Drawn:
    from .clamping import clamping_error, draw_clamping

    data = clamping_error(_tanh(request, [(1, 0.5), (3, 0.5), (1, 0.8), (3, 0.8)]), progress=request.progress)
    return Drawn(draw_clamping(data), asdict(data))


def _auto(request: Request) -> Drawn:
    from .automatic import auto_beta, draw_auto_beta

    data = auto_beta(_tanh(request, [(3, 0.5), (3, 0.8)]), progress=request.progress)
    return Drawn(draw_auto_beta(data), asdict(data))


def _pcn_energy(request: Request) -> Drawn:
    from .pcn import BETA, WEAK_BETA, draw_energy, energy_courses, trained_network, vgg_network

    few: dict[str, Any] = {"examples": 16, **request.place()}
    if request.run is not None:
        net = trained_network(request.run, **few)
    else:
        net = vgg_network("trained narrow VGG10", steps=300, seed=request.seed, **few)
    data = energy_courses(
        [(net, "frozen", WEAK_BETA), (net, "frozen", BETA), (net, "free", BETA)], progress=request.progress
    )
    return Drawn(draw_energy(data), asdict(data))


def _pcn_cosine(request: Request) -> Drawn:
    from .pcn_cosine import cosines, draw_cosines

    data = cosines(_deep(request), progress=request.progress)
    return Drawn(draw_cosines(data), asdict(data))


def _pcn_cost(request: Request) -> Drawn:
    from .pcn_cost import draw_costs, pass_costs

    data = pass_costs(_deep(request), progress=request.progress)
    return Drawn(draw_costs(data), asdict(data))


def _paired_unit(request: Request) -> Drawn:
    from .paired_unit import draw_paired_unit

    # A drawing, of no network in particular.
    with request.progress.task("figure: paired unit", 1) as advance:
        figure = draw_paired_unit()
        advance(1)
    return Drawn(figure, {})


def _settling_depth(request: Request) -> Drawn:
    from .mapping import depth_costs, draw_depth_costs

    if request.run is not None:
        raise argument_error(
            "--from", "be left out for settling_depth, which measures random networks", str(request.run)
        )
    data = depth_costs(seed=request.seed, progress=request.progress)
    return Drawn(draw_depth_costs(data), asdict(data))


def _tolerance_layers(request: Request) -> Drawn:
    from physics_ep.store import open_run
    from validation.sweep_store import KIND
    from validation.tolerance_sweep import open_tolerance

    from .tolerance import draw_layer_cosines, layer_cosines, small_sweep

    if request.run is not None and open_run(request.run).attributes.get("kind") == KIND:
        table = open_tolerance(request.run)
    else:
        table = small_sweep(_smooth_deep(request), seed=request.seed, progress=request.progress)
    data = layer_cosines(table)
    return Drawn(draw_layer_cosines(data), asdict(data))


def _signature(request: Request) -> Drawn:
    from physics_ep.store import open_run
    from validation.sweep_store import KIND

    from .signature import draw_signature, sibling_points, signature, small_points

    if request.run is not None and open_run(request.run).attributes.get("kind") == KIND:
        points = sibling_points(request.run)
    else:
        from .substrates import network_of

        points = small_points(network_of(request), seed=request.seed, progress=request.progress)
    data = signature(points)
    return Drawn(draw_signature(data), asdict(data))


def _substrates(request: Request) -> Drawn:
    from .substrates import DEVICE_NAME, draw_substrates, mapped_run

    placed = mapped_run(request)
    return Drawn(draw_substrates(placed, DEVICE_NAME), {"mapped": [one.figures() for one in placed]})


def _in_situ(request: Request) -> Drawn:
    from physics_ep.store import open_run
    from validation.in_situ import KIND, open_in_situ

    from .in_situ import draw_in_situ, in_situ_errors, small_table

    if request.run is not None and open_run(request.run).attributes.get("kind") == KIND:
        table = open_in_situ(request.run)
    else:
        table = small_table(seed=request.seed, progress=request.progress)
    data = in_situ_errors(table)
    return Drawn(draw_in_situ(data), asdict(data))


def _best_beta(request: Request) -> Drawn:
    from .tolerance import beta_choices, draw_best_beta

    data = beta_choices(_smooth_deep(request), seed=request.seed, progress=request.progress)
    return Drawn(draw_best_beta(data), asdict(data))


def _smooth_deep(request: Request) -> Subject:
    """Predictive coding network of six tanh layers; or the one of the run file."""
    from .pcn import dense_network, trained_network

    few: dict[str, Any] = {"examples": 16, **request.place()}
    if request.run is not None:
        return trained_network(request.run, **few)
    return dense_network("six tanh layers, trained", "tanh", 1.0, depth=6, seed=request.seed, **few)


def _deep(request: Request) -> list[Subject]:
    """Predictive coding networks of ten layers, ReLU and tanh; or the one of the run file."""
    from .pcn import dense_network, trained_network

    few: dict[str, Any] = {"examples": 16, **request.place()}
    if request.run is not None:
        return [trained_network(request.run, **few)]
    return [
        dense_network("ten ReLU layers, trained", "relu", 3**0.5, seed=request.seed, **few),
        dense_network("ten tanh layers, trained", "tanh", 1.0, seed=request.seed, **few),
    ]


def _tanh(request: Request, kinds: list[tuple[int, float]]) -> list[Subject]:
    """Networks of 32 tanh units a hidden layer, by depth and gain; or the one of the run file."""
    from .subjects import fresh_hopfield, trained

    few: dict[str, Any] = {"examples": 16, **request.place()}
    if request.run is not None:
        return [trained(request.run, **few)]
    return [
        fresh_hopfield(
            f"{depth} hidden layer{'s' if depth > 1 else ''}, gain {gain:g}",
            [32] * depth,
            "tanh",
            gain,
            seed=request.seed,
            **few,
        )
        for depth, gain in kinds
    ]


def _smooth(request: Request) -> Subject:
    from .subjects import fresh_hopfield

    hidden = [32, 32, 32]
    return fresh_hopfield("tanh units", hidden, "tanh", 0.5, examples=BATCH, seed=request.seed, **request.place())


def _hard(request: Request) -> Subject:
    from .subjects import fresh_hopfield

    hidden = [32, 32, 32]
    return fresh_hopfield(
        "hard-sigmoid units", hidden, "hard_sigmoid", 0.5, examples=BATCH, seed=request.seed, **request.place()
    )


PREDICTIVE = ("pcn", "vgg5", "vgg10", "vgg10-skip")

FIGURES: tuple[Entry, ...] = (
    Entry("hopfield_dynamics", "states, energy and residual of a free and two nudged phases", _dynamics),
    Entry(
        "circuit_transients", "the analog circuit's volts, energy and power over seconds, free and nudged", _circuit
    ),
    Entry("estimator_error", "error of EP over beta, every scheme, smooth units and kinks", _estimator),
    Entry("precision", "error of EP over beta in float32 and float64", _precision),
    Entry("learning_curve", "errors, loss, residuals and iterations of a training", _learning),
    Entry(
        "bptt_equality", "EP's running estimate against truncated backprop through time, step by step", _stepwise
    ),
    Entry("holomorphic_map", "error of holomorphic EP over beta and the number of points", _holomorphic),
    Entry("clamping", "coupled learning and clamping beside EP, over their strength", _clamping),
    Entry("auto_beta", "the beta that beta='auto' picks, beside a sweep", _auto),
    Entry(
        "pcn_energy", "energy and residual of a predictive coding network as it settles", _pcn_energy, PREDICTIVE
    ),
    Entry("pcn_cosine", "EP against backprop on deep predictive coding networks", _pcn_cosine, PREDICTIVE),
    Entry("pcn_cost", "layer passes of every predictive coding solver against accuracy", _pcn_cost, PREDICTIVE),
    Entry("paired_unit", "circuit of a paired unit, and a chain of layers of them", _paired_unit, PREDICTIVE),
    Entry(
        "settling_depth",
        "settling, slack between h and u, and damage of copies over depth",
        _settling_depth,
        PREDICTIVE,
    ),
    Entry(
        "tolerance_layers",
        "gradient cosine of each layer over imperfections of devices",
        _tolerance_layers,
        PREDICTIVE,
        ("tolerance sweep",),
    ),
    Entry(
        "signature",
        "gradient of each layer over imperfections, on three substrates",
        _signature,
        ("pcn",),
        ("tolerance sweep",),
    ),
    Entry(
        "substrates", "one trained network on three substrates: settling, gradients, errors", _substrates, ("pcn",)
    ),
    Entry(
        "in_situ",
        "test error of learning on the device, and of writing a trained network into it",
        _in_situ,
        ("pcn",),
        ("in-situ training",),
    ),
    Entry("best_beta", "error over beta under read noise, and the best beta", _best_beta, PREDICTIVE),
    *RESISTIVE_FIGURES,
    *OSCILLATOR_FIGURES,
)
