"""Commands of validation: gradients, tolerance, in-situ, signature, bench, reproduce."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hardware_models.commands import Copying, Rails, Transpose
from physics_ep.command_options import (
    READS,
    DataFolder,
    Device,
    DeviceFile,
    DeviceSeed,
    Dtype,
    JsonFile,
    MethodOfEP,
    Preset,
    Quiet,
    Report,
    Seed,
    Subject,
    Verbose,
    Weights,
    Writes,
    add_command,
)
from physics_ep.commands import InterruptedCommandError
from physics_ep.errors import REPEATS, InputError, argument_error, counted, require_count, unknown_name
from physics_ep.moved import moved_names

from .reproduction.commands import reproduce

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)

PAPER_DIGITS = 2
"""Significant digits of a table in LaTeX: no agreement of gradients is known to more."""
BENCHMARKS = {
    "hopfield": "validation.benchmarks.hopfield",
    "conv-hopfield": "validation.benchmarks.conv_hopfield",
    "pcn": "validation.benchmarks.pcn",
    "mapping": "validation.benchmarks.mapping",
    "oscillator": "validation.benchmarks.oscillator",
    "fabricpc": "validation.benchmarks.fabricpc",
    "max-cut": "validation.benchmarks.max_cut",
    "resistive": "validation.benchmarks.resistive",
    "spice": "validation.benchmarks.spice",
    "circuit-scaling": "validation.benchmarks.circuit_scaling",
}


GATES_HELP = "held, live or both; default both where units have kinks or poolings, held in large networks."
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,NAME,...",
        help="Columns of --latex, by their names in --csv; default those that a paper needs.",
        show_default=False,
    ),
]
FAR = 0.1
"""Relative error of EP on the ideal device from which imperfections cannot be told apart from it."""
SMALL = 1_000_000
"""Parameters below which one thread is used."""


class DisagreementError(Exception):
    """Raised when EP's gradient is further from the oracle's than asked for."""

    exit_status = 1


def register(app: typer.Typer) -> None:
    """Add the commands of `validation` to the command line."""
    for function, example in (
        (gradients, "gradients hopfield --scheme centered --beta 1e-3 --dtype float64"),
        (tolerance, "tolerance pcn --sweep levels=4,16,64 --sweep read_noise=0,1e-3,1e-2"),
        (in_situ, "in-situ pcn-digits --sweep levels=4,16,64 --out in-situ.h5"),
        (signature, "signature --network digits-relu --out signature"),
        (bench, "bench hopfield --json bench.json"),
        (reproduce, "reproduce quick --seeds 3 --workers 2 --json quick.json"),
    ):
        add_command(app, function, epilog=f"Example: physics-ep {example}", training=function is in_situ)


def gradients(
    system: Subject,
    scheme: Annotated[
        str, typer.Option(help="positive, negative, random, centered, holomorphic:N, or your own.")
    ] = "centered",
    beta: Annotated[str, typer.Option(help="Nudging strength > 0, or auto: 0.05 of the stability limit.")] = "auto",
    cost: Annotated[
        str, typer.Option(help="squared_error, cross_entropy, phase_error or log_phase_error.")
    ] = "squared_error",
    solver: Annotated[str | None, typer.Option(help="Default: the system's.", show_default=False)] = None,
    oracle: Annotated[
        str | None,
        typer.Option(
            help="implicit, bptt, finite_difference or backprop; default the system's.", show_default=False
        ),
    ] = None,
    tolerance: Annotated[float | None, typer.Option(help="Residual to reach.", show_default=False)] = None,
    max_iterations: Annotated[
        int | None, typer.Option(help="At most so many; the state is judged as it then is.", show_default=False)
    ] = None,
    gates: Annotated[str | None, typer.Option(help=GATES_HELP, show_default=False)] = None,
    method: MethodOfEP = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Labelled photographs to take.", show_default=False), READS
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Examples; default 16, or 2 for large systems.", show_default=False)
    ] = None,
    min_cosine: Annotated[
        float | None, typer.Option(help="Exit with status 1 if a tensor's cosine is below.", show_default=False)
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="A row a tensor or a layer; default layer for torch models.", show_default=False),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write the table of layers as CSV.", show_default=False),
        Writes(own=True),
    ] = None,
    latex: Annotated[
        Path | None,
        typer.Option("--latex", metavar="FILE", help="The same in LaTeX (booktabs).", show_default=False),
        Writes(own=True),
    ] = None,
    columns: Columns = None,
    weights: Weights = None,
    preset: Preset = None,
    device_model: DeviceFile = None,
    device_seed: DeviceSeed = None,
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare EP's gradient of a system with an exact one: a row for each tensor, or for each layer."""
    report = Report(json, quiet)
    if by not in (None, "tensor", "layer"):
        raise unknown_name("by", str(by), ("tensor", "layer"))
    if batch is not None and batch < 1:
        raise argument_error("batch", "be at least 1", batch)
    if min_cosine is not None and not -1 <= min_cosine <= 1:
        raise argument_error("min-cosine", "lie in [-1, 1]", min_cosine)
    require_latex(columns, latex)
    import torch

    from hardware_models.devices.systems import OnDevice
    from physics_ep.cost import COSTS
    from physics_ep.placement import resolve_device, resolve_dtype, threads, work_in
    from physics_ep.predictive_coding.traced.network import ModuleNetwork
    from physics_ep.runs.preparation import on_devices, subject_of
    from physics_ep.storage.origins import LATEX_MARK
    from physics_ep.storage.outputs import write_text, writer

    from .examples import LARGE, judged, parse_strength, usual_gates
    from .gradients import gradient_figures, gradient_report
    from .tables import captioned, chosen_columns, gradient_words, labelled, layer_table, tensor_table

    strength = parse_strength(beta)
    if cost not in COSTS:
        raise unknown_name("cost", cost, COSTS)
    where, width = resolve_device(device), resolve_dtype(dtype)
    number = 0 if seed is None else seed
    subject = on_devices(subject_of(system, weights), preset, device_model, device_seed)
    built, x, y, judge = judged(
        subject, cost, batch=batch, seed=number, images=images, device=where, dtype=None if dtype is None else width
    )
    work_in(built, dtype)
    count = sum(p.numel() for p in built.parameters())
    held = built if isinstance(built, OnDevice) and built.device_model is not None else None
    if gates is None:
        gates = usual_gates(built)
    # Small products lose more to a second thread on a busy machine than they gain.
    small, floors = count < SMALL, count < LARGE
    with threads(1 if small else torch.get_num_threads()):
        found = gradient_report(
            built,
            x,
            y,
            judge,
            scheme=scheme,
            beta=strength,
            oracle=oracle,
            solver=solver,
            tolerance=tolerance,
            max_iterations=max_iterations,
            generator=torch.Generator().manual_seed(number),
            # A number of iterations that the user names is taken as it is; the residual stands beside it.
            on_unconverged="raise" if max_iterations is None else "warn",
            floors=floors,
            gates=gates,
            method=method,
        )
    both = found.live is not None
    compared = [found] if found.live is None else [found, found.live]
    figures = gradient_figures(found)
    if both:
        figures["gates"] = {str(each.gates): gradient_figures(each) for each in compared}
    report.figures(figures)
    told_method = "" if found.method == "energy" else f"{found.method}, "
    title = (
        f"{system}: EP ({found.scheme}, {told_method}beta {found.beta:.3g}) against {found.oracle}, "
        f"{dtype or str(built.dtype).removeprefix('torch.')}, batch {len(x)}"
    )
    layered = isinstance(built, ModuleNetwork) if by is None else by == "layer"
    report.table(title, *(layer_table if layered else tensor_table)(compared, floors))
    table = found.by_layer()
    if csv is not None:
        write_text(csv, table.to_csv())
    if latex is not None:
        text = table.to_latex(
            chosen_columns(columns, table),
            captioned(system, found.title()),
            PAPER_DIGITS,
            label=labelled(latex),
        )
        write_text(latex, f"{LATEX_MARK}{writer('physics-ep gradients')}\n{text}")
    for each in compared:
        report.say(gradient_words(each))
    if not math.isnan(found.asymmetry):
        report.say(f"asymmetry |A| / |J| {found.asymmetry:.2g}; {found.method}: {found.hardware}")
    if held is not None:
        report.say(f"cells: {held.cells_told}")
    if hasattr(built, "gates"):
        report.say(
            "K = 1 with held gates is backprop, whatever beta is: agreement means something only beside a "
            "residual well below 1."
        )
    if gates is not None and not getattr(built, "has_gates", False):
        report.say("no gates: all units are smooth, so that held and live are one.")
    if both:
        report.say(
            "Held gates are latches, which keep each unit as the free phase left it; with live gates units may "
            "switch while they are nudged."
        )
    if min_cosine is not None and not found.worst_cosine >= min_cosine:
        raise DisagreementError(f"worst cosine {found.worst_cosine:.6f} is below --min-cosine {min_cosine:g}")


def tolerance(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK", help="Name, bundled config, TOML file, run file or FILE.py:factory (runs it)."
        ),
        READS,
    ],
    sweep: Annotated[
        list[str],
        typer.Option(
            metavar="FIELD=V,V,...", help="Device field and its values; may be repeated, one varies at a time."
        ),
    ],
    substrate: Annotated[
        str | None,
        typer.Option(
            help="hopfield, resistive, oscillator, or your own; default hopfield. Not for plain systems.",
            show_default=False,
        ),
    ] = None,
    beta: Annotated[str, typer.Option(help="Nudging strengths, separated by commas, or auto.")] = "auto",
    repeats: Annotated[int, typer.Option(help="Instances of the device at each point.")] = 10,
    preset: Annotated[
        str | None, typer.Option(help="Device that is varied; default ideal.", show_default=False)
    ] = None,
    device_model: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="The same from a file.", show_default=False), READS
    ] = None,
    copies: Copying = None,
    transpose: Transpose = None,
    cost: Annotated[str, typer.Option(help="squared_error or cross_entropy.")] = "squared_error",
    scheme: Annotated[str, typer.Option(help="positive, negative, random, centered, or your own.")] = "centered",
    gates: Annotated[str | None, typer.Option(help=GATES_HELP, show_default=False)] = None,
    method: MethodOfEP = None,
    rails: Rails = "refuse",
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Labelled photographs to take.", show_default=False), READS
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Rows and columns of an image; default the network's.", show_default=False)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Examples; default 16, or 2 for large networks.", show_default=False)
    ] = None,
    weights: Weights = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="SWEEP.h5", help="Keep points as they come.", show_default=False),
        Writes(judge=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --out; nothing is measured twice.")] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Dask scheduler that spreads the points.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Local processes; default one a core where it pays.", show_default=False)
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write the table of points as CSV.", show_default=False),
        Writes(own=True),
    ] = None,
    latex: Annotated[
        Path | None,
        typer.Option("--latex", metavar="FILE", help="The same in LaTeX (booktabs).", show_default=False),
        Writes(own=True),
    ] = None,
    columns: Columns = None,
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure the gradient's quality over device imperfections, a row a point.

    transfer: against the exact gradient of the ideal network; feedforward: backprop of the arrays that drive h, as
    if nothing were fed back; adaptation: the implicit gradient of the physical network, by all copies of each
    weight, or of a plain system with the weights that its cells make. Beside them stand the share of the examples
    that have a free state, how many of these are classified wrongly, and the solver.
    """
    report = Report(json, quiet)
    for name, count in (("batch", batch), ("size", size), ("repeats", repeats), ("workers", workers)):
        if count is not None and count < 1:
            raise argument_error(name, "be at least 1", count)
    require_latex(columns, latex)
    import torch

    from hardware_models.devices.presets import chosen_device
    from hardware_models.devices.systems import OnDevice
    from hardware_models.mapping.board import mapped_to
    from hardware_models.mapping.mapped import substrate_class
    from physics_ep.cost import COSTS
    from physics_ep.own_code import in_layers
    from physics_ep.placement import resolve_device, resolve_dtype, threads, work_in
    from physics_ep.predictive_coding import PredictiveCodingNetwork
    from physics_ep.runs.preparation import bring_examples, subject_of
    from physics_ep.storage.origins import LATEX_MARK
    from physics_ep.storage.outputs import write_text, writer

    from .examples import LARGE, examples, has_targets
    from .gradients import require_gates
    from .sweeps.plan import IDEAL, parse_betas, parse_sweeps
    from .sweeps.table import LEGEND, readings, reasons, tolerance_rows
    from .sweeps.tolerances import SweepInterrupted, worth_sharing
    from .sweeps.tolerances import tolerance as measure
    from .tables import captioned, chosen_columns, labelled

    if cost not in COSTS:
        raise unknown_name("cost", cost, COSTS)
    kind = substrate_class("hopfield" if substrate is None else substrate).device_class
    sweeps, betas = parse_sweeps(sweep, kind), parse_betas(beta)
    # Without any a system keeps the device that holds it.
    given = any(option is not None for option in (preset, device_model, copies, transpose))
    base = chosen_device(preset, device_model, kind, copies, transpose) if given else None
    number = 0 if seed is None else seed
    subject = subject_of(network, weights)
    section, aim = subject.system, subject.ep.new_cost(cost)
    options = {**section.options, "seed": number, **({} if size is None else {"input_shape": [3, size, size]})}
    where, width = resolve_device(device), resolve_dtype(dtype)
    net = in_layers(section.build(**options))
    if not isinstance(net, PredictiveCodingNetwork | OnDevice):
        must = "be a predictive coding network, such as pcn, or a system that devices hold, such as hopfield"
        raise argument_error("NETWORK", must, repr(network))
    net = net.to(where, width)
    bring_examples(net, subject)
    work_in(net, dtype)
    parameters = sum(p.numel() for p in net.parameters())
    x, y = examples(net, aim, batch or (16 if parameters < LARGE else 2), number, images)
    plain = isinstance(net, OnDevice)
    if gates is not None:
        require_gates(net, gates)
    elif plain:
        gates = "held"
    else:
        gates = "both" if parameters < LARGE else "held"
    told: dict[str, Any] = {} if method is None else {"method": method}
    tries = repeats * len(betas) * sum(map(len, sweeps.values()))
    count = worth_sharing(net, tries) if workers is None and scheduler is None else workers or 1
    try:
        with threads(1 if parameters < SMALL or count > 1 else torch.get_num_threads()):
            table = measure(
                net,
                x,
                y,
                aim,
                substrate=substrate,
                device=base,
                sweeps=sweeps,
                betas=betas,
                repeats=repeats,
                seed=number,
                scheme=scheme,
                gates=gates,
                rails=rails,
                out=out,
                resume=resume,
                progress=report.progress(),
                scheduler=scheduler,
                workers=count,
                network={"name": section.name, "options": options},
                **told,
            )
    except SweepInterrupted as stop:
        raise InterruptedCommandError(str(stop)) from stop
    if not has_targets(net, images):
        table = replace(table, points=tuple(point.without_rates() for point in table.points))
        report.say("Targets are classes drawn at random, as the examples have none: no rate of errors is told.")
    report.figures(table.figures())
    place, judge = f" {mapped_to(substrate or 'hopfield')}", "backprop"
    if plain:
        place, judge = "", "implicit differentiation"
    title = f"{network}{place}: EP ({scheme}) against {judge}, {counted(repeats, 'instance')}, batch {len(x)}"
    report.table(title, *tolerance_rows(table, verbose))
    if mode := getattr(net, "mode", ""):
        report.say(f"mode: {mode}")
    if isinstance(net, OnDevice) and net.device_model is not None:
        kept = "the base is another device" if given else "the device that it was trained on is the base"
        report.say(f"The ideal network has the weights that its cells hold; {kept}.")
        report.say_wrapped(f"cells: {net.cells_told}")
    if csv is not None:
        write_text(csv, table.to_csv())
    if latex is not None:
        text = table.to_latex(
            chosen_columns(columns, table),
            captioned(network, table.title()),
            PAPER_DIGITS,
            label=labelled(latex),
        )
        write_text(latex, f"{LATEX_MARK}{writer('physics-ep tolerance')}\n{text}")
    for line in (*reasons(table.points), *readings(table, verbose)):
        report.say(line)
    ideal = table.points[0]
    worst = ideal.worst_layer()
    if ideal.field == IDEAL and worst.transfer.relative_error >= FAR:
        report.say(
            f"On the ideal device EP itself is {worst.transfer.relative_error:.0%} off in {worst.told}: what "
            "imperfections add cannot be told from it. Outputs may meet their targets up to rounding "
            "(--dtype float64), or beta may be too large."
        )
    lost = sum(point.unconverged for point in table.points)
    if lost:
        tried = sum(point.repeats for point in table.points)
        report.say(f"{lost} of {tried} repeats found no equilibrium and are in no mean.")
    for each in dict.fromkeys((point.solver, point.stability) for point in table.points if point.solver):
        report.say("free states by {}: {}".format(*each))
    if any(point.live is not None for point in table.points):
        report.say(
            "Held gates are latches that keep each unit as the free phase left it; live ones may switch while they "
            "are nudged."
        )
    report.say(
        f"{LEGEND}\n"
        "Means over the instances; a point's layer is its worst."
        "\nGradients are of the examples whose phases all settle." + (f"\n{table.path}" if table.path else "")
    )


def in_situ(
    config: Annotated[
        str,
        typer.Argument(metavar="CONFIG", help="Training of a predictive coding network, or of a plain substrate."),
        READS,
    ],
    substrate: Annotated[
        list[str] | None,
        typer.Option(help="Of a predictive coding network; may be repeated; default hopfield."),
    ] = None,
    sweep: Annotated[list[str] | None, typer.Option(metavar="FIELD=V,V,...", help="As of tolerance.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="As of train.")] = None,
    preset: Annotated[str | None, typer.Option(help="Device; default ideal.", show_default=False)] = None,
    device_model: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="The same from a file."), READS
    ] = None,
    copies: Copying = None,
    transpose: Transpose = None,
    rails: Rails = "refuse",
    repeats: Annotated[int, typer.Option(help="Instances of the device at each point.")] = 1,
    rule: Annotated[str, typer.Option(help="How pulses are made: accumulated, stochastic.")] = "accumulated",
    side: Annotated[str, typer.Option(help="single or up: which cells of a pair move.")] = "single",
    data: DataFolder = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN.h5", help="Keep instances as they come."), Writes(judge=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --out.")] = False,
    json: JsonFile = None,
    seed: Seed = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train on devices by pulses, beside ideal training that is written into them."""
    report = Report(json, quiet)
    from hardware_models.devices.presets import chosen_device
    from hardware_models.mapping.mapped import substrate_class

    from .experiments.in_situ import LearningInterrupted, learn_in_situ
    from .sweeps.plan import parse_sweeps

    kind = substrate_class(substrate[0] if substrate else "hopfield").device_class
    base = chosen_device(preset, device_model, kind, copies, transpose)
    sweeps, bar = parse_sweeps(sweep or [], kind), report.progress()
    try:
        table = learn_in_situ(
            config, substrates=substrate or None, device=base, sweeps=sweeps, overrides=overrides or [],
            repeats=repeats, rule=rule, side=side, data=data, seed=seed, out=out, resume=resume, progress=bar,
            rails=rails,
        )  # fmt: skip
    except LearningInterrupted as stop:
        raise InterruptedCommandError(str(stop)) from stop
    report.figures({"rows": table.rows(), **table.config})
    report.table(f"{config}: test errors, means over {counted(repeats, 'instance')}", *table.shown())
    for reason in table.refused.values():
        report.say(f"left out: {reason}")


def signature(
    network: Annotated[
        str, typer.Option(help="digits-relu, digits-hard_tanh, digits-tanh, or a network of the zoo for CIFAR-10.")
    ] = "digits-relu",
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Keep the columns here, point by point."), Writes(folder=True)
    ] = Path("signature"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --out; nothing is measured twice.")] = False,
    substrates: Annotated[
        str | None,
        typer.Option(help="Names, separated by commas; default all that can hold the network.", show_default=False),
    ] = None,
    fields: Annotated[
        str | None, typer.Option(help="Only these imperfections, separated by commas.", show_default=False)
    ] = None,
    repeats: Annotated[int, typer.Option(help="Device instances.")] = 10,
    batch: Annotated[
        int, typer.Option(help="Examples of a gradient: those of the test set whose outputs err most.")
    ] = 16,
    reference: Annotated[
        str, typer.Option(help="transfer, feedforward or adaptation: what the printed cells are against.")
    ] = "feedforward",
    solver: Annotated[str | None, typer.Option(help="Default: each substrate's own.", show_default=False)] = None,
    steps: Annotated[int, typer.Option(help="Passes of a phase after which an example counts as unsettled.")] = 300,
    method: Annotated[
        str, typer.Option(help="energy (ordinary EP), asymmetric (exact where copies differ) or auto.")
    ] = "energy",
    json: JsonFile = None,
    seed: Seed = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure what imperfections do to the gradient of a trained network, gates held and live.

    Columns: cells that err each by themselves; cells of a weight that err alike, an ideal; and the untrained
    network. Cells: median and quartiles over the instances of 1 - cosine of the worst weights.
    """
    report = Report(json, quiet)
    from .experiments.signature import COLUMNS, differences, markdown, measure, rises, shown, told_conditions
    from .references import REFERENCES
    from .sweeps.tolerances import SweepInterrupted

    if reference not in REFERENCES:
        raise unknown_name("reference", reference, REFERENCES)
    try:
        found = measure(
            network,
            out,
            substrates=None if substrates is None else [each.strip() for each in substrates.split(",")],
            fields=None if fields is None else [each.strip() for each in fields.split(",")],
            repeats=repeats,
            batch=batch,
            steps=steps,
            solver=solver,
            method=method,
            seed=0 if seed is None else seed,
            resume=resume,
            tell=report.say,
        )
    except SweepInterrupted as stop:
        raise InterruptedCommandError(f"interrupted; the same command with --out {out} --resume goes on") from stop
    told = {name: rises(found, name) for name in REFERENCES}
    apart = {name: differences(found, name, next(iter(COLUMNS))) for name in REFERENCES}
    report.figures({**found.figures(), "not monotonic": told, "substrates differ": apart})
    report.say(markdown(*shown(found, reference)))
    report.say(f"1 - cosine of the worst weights to {reference}; {told_conditions(found.conditions)}")
    for line in told[reference] or ["every row rises with the error, within the quartiles"]:
        report.say(f"not monotonic: {line}" if told[reference] else line)
    for line in apart[reference]:
        report.say(f"substrates differ beyond the quartiles: {line}")


def bench(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Benchmarks; default all.")] = None,
    list_benchmarks: Annotated[bool, typer.Option("--list", help="List the benchmarks and stop.")] = False,
    repeats: Annotated[int, typer.Option(help="Timed rounds; medians are reported.")] = 40,
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure side by side, contenders taking turns in one run.

    The file of --json has versions, date, cores and load beside the rows. A folder of such files, one a release, is
    drawn by `physics-ep figure bench_history --from FOLDER`.
    """
    if list_benchmarks:
        for known in BENCHMARKS:
            typer.echo(known)
        return
    for name in names or ():
        if name not in BENCHMARKS:
            raise unknown_name("NAME", name, BENCHMARKS)
    require_count("repeats", repeats, most=REPEATS)
    if (device, dtype) != (None, None):
        raise InputError("Arguments device and dtype must not be given: each benchmark names its own.")
    report = Report(json, quiet)
    from .benchmarks.history import conditions, is_loaded

    results: dict[str, Any] = {}
    number = 0 if seed is None else seed
    for key in dict.fromkeys(names or BENCHMARKS):
        with report.progress().task(f"bench {key}", 1) as advance, conditions() as told:
            measured = importlib.import_module(BENCHMARKS[key]).measure(repeats=repeats, seed=number)
            advance(1)
        found = results[key] = {"benchmark": key, "repeats": repeats, "seed": number, **measured, **told}
        columns = list(found["rows"][0])
        report.table(
            f"{found['title']} ({found['machine']})",
            columns,
            [[_cell(row[column]) for column in columns] for row in found["rows"]],
        )
        if is_loaded(found):
            before, after = found["load"]
            report.say(f"The machine was busy with other programs: load {before:.1f} before, {after:.1f} after.")
    report.figures(next(iter(results.values())) if len(results) == 1 else results)


def require_latex(columns: str | None, latex: Path | None) -> None:
    """Refuse columns of a table that is not written."""
    if columns is not None and latex is None:
        raise argument_error("columns", "come with latex, whose columns they are", repr(columns))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}" if 0.01 <= abs(value) < 1e6 else f"{value:.1e}"
    return str(value)
