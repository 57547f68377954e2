"""Commands of the substrates: map, and spice with export, check and import."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from physics_ep.command_options import (
    READS,
    Device,
    Dtype,
    JsonFile,
    MethodOfEP,
    Quiet,
    Report,
    Seed,
    Verbose,
    Weights,
    Writes,
    add_command,
)
from physics_ep.errors import argument_error, counted, unknown_name
from physics_ep.moved import moved_names
from physics_ep.tabular import figure_format

from .inference.commands import register as register_inference
from .mapping import words
from .oscillators.commands import register as register_oscillators
from .quantities import quantity

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)

if TYPE_CHECKING:
    import torch

    from .mapping.gates import NudgedGates
    from .spice.check import CheckedCircuit


SystemName = Annotated[
    str,
    typer.Argument(
        metavar="SYSTEM",
        help="Resistive network or circuit (name, config, run file, FILE.py:factory) or netlist, FILE.cir; with "
        "--substrate a PCN.",
    ),
    READS,
]
Substrate = Annotated[
    str | None,
    typer.Option(help="resistive: map a predictive coding network, and take its circuit.", show_default=False),
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Devices: reram, pcm, sram, op-amp, fefet or ring-oscillator.", show_default=False
    ),
]
Copying = Annotated[
    str | None,
    typer.Option(
        "--copies",
        help="What the cells of one weight share: independent (errors of their own), trimmed or shared.",
        show_default=False,
    ),
]
Transpose = Annotated[
    str | None,
    typer.Option(help="A Hopfield circuit's other way: slots (the same array) or array.", show_default=False),
]
Rails = Annotated[
    str, typer.Option(help="Lines beyond the cells' cell_voltage_limit: refuse, or fit (scale all voltages).")
]
NetlistMethod = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="What nudged phases follow: energy, vector-field, asymmetric or auto; default the circuit's.",
        show_default=False,
    ),
]
DeviceFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Devices as JSON.", show_default=False), READS
]
Beta = Annotated[
    float | None,
    typer.Option(
        help="Nudging strength, siemens; default 1 % of the conductance at the outputs, 1e-6 with active parts.",
        show_default=False,
    ),
]
FORMS = ("phases", "subckt")
"""What `spice export` writes."""
SHOWN_NODES = 30
"""Node voltages that `spice import` prints, unless verbose."""


def register(app: typer.Typer) -> None:
    """Add the commands of hardware models to the command line."""
    example = "Example: physics-ep map pcn --preset pcm   (vgg10 --images DIR for real photographs)"
    add_command(app, map_, name="map", epilog=example)
    register_inference(app)
    example = "Example: physics-ep fit-pulses measured.csv --preset fefet --out device.json"
    add_command(app, fit_pulses, epilog=example)
    register_oscillators(app)
    spice = typer.Typer(
        help="Circuits and ngspice: write netlists, compare operating points and gradients, read a user's netlist.",
    )
    for name, function, example in (
        ("export", spice_export, "export stage.cir out.cir --method asymmetric   (then ngspice -b out_plus.cir)"),
        ("check", spice_check, "check stage.cir --method vector-field --figure apart.pdf"),
        ("import", spice_import, "import net.cir --out again.cir"),
    ):
        add_command(spice, function, name=name, group="spice", epilog=f"Example: physics-ep spice {example}")
    app.add_typer(spice, name="spice")


def map_(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="Name (pcn, vgg10), bundled config, TOML file, run file or FILE.py:factory (runs it).",
        ),
        READS,
    ],
    substrate: Annotated[str, typer.Option(help="hopfield, resistive, oscillator, or your own.")] = "hopfield",
    preset: Preset = None,
    device_model: DeviceFile = None,
    weights: Weights = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Photographs to calibrate with.", show_default=False), READS
    ] = None,
    batch: Annotated[int, typer.Option(help="Calibration examples.")] = 2,
    copies: Copying = None,
    transpose: Transpose = None,
    method: MethodOfEP = None,
    rails: Rails = "refuse",
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Map a predictive coding network to a substrate, and tell what it takes."""
    report = Report(json, quiet)
    if batch < 1:
        raise argument_error("batch", "be at least 1", batch)
    import torch

    from physics_ep.config import load_system
    from physics_ep.data.batches import photographs
    from physics_ep.own_code import in_layers
    from physics_ep.placement import require_room, resolve_device, resolve_dtype
    from physics_ep.predictive_coding import PredictiveCodingNetwork

    from .devices.presets import chosen_device
    from .mapping.board import mapped_to
    from .mapping.gates import compare_gates, hardware_of, method_of
    from .mapping.mapped import map_pcn, substrate_class

    model = chosen_device(preset, device_model, substrate_class(substrate).device_class, copies, transpose)
    number = 0 if seed is None else seed
    net = in_layers(load_system(network, weights=weights, seed=number)).to(
        resolve_device(device), resolve_dtype(dtype)
    )
    if not isinstance(net, PredictiveCodingNetwork):
        must = "be a predictive coding network (pcn, vgg10, resnet18, efficientnet_lite0)"
        plain = f"{network!r} (what an inference of a plain network costs: physics-ep inference {network})"
        raise argument_error("NETWORK", must, plain)
    shape = net.shapes[0]
    epoch: tuple[int, int] | None = None
    own = getattr(net, "examples", None)
    if images is None and own is not None:
        x = own[0][:batch]
        calibrated = examples_brought(len(x), len(own[0]), network)
    elif images is None:
        require_room("batch", batch, net, torch.zeros((1, *shape)))
        x, calibrated, epoch = _calibration(network, shape, batch, number)
    elif len(shape) == 3 and shape[0] == 3 and shape[1] == shape[2]:
        x, _ = photographs(images, shape[1], batch, number)
        calibrated = f"{len(x)} photographs of {images}"
    else:
        raise argument_error("images", "be left out for a network that does not take square colour images", images)
    mapped = map_pcn(net, substrate, model, number, calibration=x.to(net.device, net.dtype), rails=rails)
    choice = method_of(mapped, x, method)
    compared: tuple[NudgedGates, ...] = ()
    if sum(mapped.system.sizes[1:]) <= words.FOLLOWED:
        mapped.follow()
        compared = compare_gates(mapped, x, method=choice.method)
    found = mapped.fidelity
    told: dict[str, object] = {
        "device": asdict(mapped.device),
        "network": network,
        "seed": number,
        "calibration": calibrated,
        **asdict(choice),
        "hardware": hardware_of(choice),
    }
    if mode := getattr(net, "mode", ""):
        told["mode"] = mode
    if compared:
        told["gates"] = {each.gates: each.figures() for each in compared}
    if epoch is not None:
        figures = found.energy_per_epoch(*epoch).figures()
        told["energy_per_epoch"] = {**figures, "examples": epoch[0], "batch": epoch[1]}
    report.figures({**found.figures(), **told})
    extra = words.columns(found.layers)
    report.table(
        f"{network} {mapped_to(substrate)}, {preset or device_model or 'ideal'} devices",
        ["array", "units", "cells", "tiles", "reads", "full scale", "G max", "on/off", "power"]
        + [title for title, _ in extra],
        [
            [
                row.label or row.name,
                row.activation,
                f"{row.cells:,}",
                f"{row.tiles:,}",
                f"{row.positions:,}",
                f"{row.full_scale:.2g}",
                quantity(row.conductance_range[1], "S"),
                f"{row.on_off_ratio:.3g}",
                quantity(row.power, "W"),
                *(shown(row) for _, shown in extra),
            ]
            for row in found.layers
        ],
    )
    if mode:
        report.say(f"mode           {mode}")
    report.say(f"calibration    {calibrated}")
    report.say(f"construction   {found.exactness}; held by latches in nudged phases: {found.held}")
    if found.free_converged:
        state = f"{found.free_state_error:.1e} of the outputs off, residual {found.free_residual:.1e}"
    else:
        some = f"{found.free_share:.0%} of the calibration inputs have one"
        state = f"{some}: no times and energy; such devices may err too much"
    report.say(f"free state     {state}; found by {found.solver}")
    report.say(f"cells          {found.cells:,} in {found.tiles:,} tiles, on/off ratio {found.on_off_ratio:.3g}")
    report.say(f"volts          {words.volts(mapped.device, found)}")
    report.say(f"copies         {words.copies(found)}")
    report.say(f"time constant  {words.time_constant(found, mapped.system.equal_times)}")
    if found.free_converged:
        report.say(f"time to rest   {words.settling(found)}")
    report.say(f"in time        {words.course(found.course)}")
    report.say(f"stability      {words.stability(found.course)}")
    report.say(f"method         {choice.method}: {hardware_of(choice)}")
    for title, each in zip(("gates", ""), compared, strict=False):
        report.say(f"{title:15s}{words.gates(each)}")
    near = sum(len(row.threshold_units) for row in found.layers)
    if near:
        report.say(f"at thresholds  {near:,} units, slower and not in the times by formula, named by --json")
    if found.free_converged:
        report.say(f"energy         {words.budget(found.energy_per_inference)} an inference and example")
        report.say(
            f"               {words.budget(found.energy_per_step)} an EP step and example, all cells written once"
        )
        if epoch is not None:
            whole = quantity(found.energy_per_epoch(*epoch).total, "J")
            report.say(f"               {whole} an epoch of {epoch[0]:,} examples in batches of {epoch[1]:,}")
    report.say(f"area           {words.budget(found.area)}")
    if found.unread:
        report.say(f"not read       {', '.join(found.unread)}: of parts that this substrate does not have")
    if model.source:
        report.say(f"devices        {model.source}")


def examples_brought(taken: int, there: int, network: str) -> str:
    """How many of the examples that a network brings calibrate it, in words, and how to take more."""
    if taken == there:
        return f"all {counted(there, 'example')} that {network} brings"
    return f"{taken} of the {there:,} examples that {network} brings (--batch {there} takes all)"


def _calibration(
    network: str, shape: tuple[int, ...], batch: int, seed: int
) -> tuple[torch.Tensor, str, tuple[int, int] | None]:
    """Inputs to calibrate with, what they are in words, and examples and batch of an epoch: those of the network's
    config where it names data that are here, else noise, which is said."""
    import torch

    from physics_ep.config import load_subject
    from physics_ep.data.datasets import load_dataset
    from physics_ep.errors import InputError

    config, why = load_subject(network), "its config names no data"
    if "data" in config.model_fields_set:
        try:
            data = load_dataset(config.data)
        except InputError as error:
            why = str(error).rstrip(".")
        else:
            if data.train_x.shape[1:] != shape:
                must = f"have examples of the network's shape {tuple(shape)}"
                raise argument_error("data", must, f"{data.name} of {tuple(data.train_x.shape[1:])}")
            chosen = torch.randperm(len(data.train_x), generator=torch.Generator().manual_seed(seed))[:batch]
            x = data.train_x[chosen]
            return x, f"{len(x)} training examples of {data.name}", (len(data.train_x), config.training.batch_size)
    x = torch.rand((batch, *shape), generator=torch.Generator().manual_seed(seed))
    return x, f"{batch} random inputs in [0, 1), which are no data: {why}", None


def fit_pulses(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE.csv", help="Columns cell, pulse, direction (up, down), conductance (S)."),
        READS,
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DEVICE.json", help="Write the device.", show_default=False), Writes()
    ] = None,
    g_min: Annotated[
        float | None, typer.Option(help="Low end of the range, S; default as measured.", show_default=False)
    ] = None,
    g_max: Annotated[
        float | None, typer.Option(help="High end of the range, S; default as measured.", show_default=False)
    ] = None,
    preset: Preset = None,
    device_model: DeviceFile = None,
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fit how pulses move a device's cells to measured conductances; the other fields are those of a preset."""
    report = Report(json, quiet)
    _on_the_cpu(device, dtype)
    from .devices.presets import chosen_device
    from .devices.pulse_fit import PulseFitWarning, read_pulses
    from .devices.pulse_fit import fit_pulses as fit

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PulseFitWarning)  # they are told below
        found = fit(read_pulses(path), g_min=g_min, g_max=g_max, base=chosen_device(preset, device_model))
    fitted = found.device.replace(source=f"pulse fields: fit to {path.name}")
    report.figures({**vars(found), "device": asdict(fitted)})
    report.table(
        f"{path}: {found.changes:,} changes of {found.cells:,} cells",
        ["field", "fitted", "standard error"],
        [
            *([name, f"{value:.4g}", f"{found.errors[name]:.1g}"] for name, value in found.values.items()),
            ["reading noise / range", f"{found.reading_noise:.4g}", f"{found.reading_noise_error:.1g}"],
        ],
    )
    probable = "" if found.misfit == 1 else f"; probability of the misfit {found.misfit:.2g}"
    report.say(f"the fit explains {100 * found.explained:.1f} % of the changes' variance{probable}")
    for doubt in found.warnings:
        typer.echo(f"warning: {doubt}", err=True)
    if out is not None:
        fitted.to_json(out)
        report.say(f"written: {out}")


def spice_export(
    system: SystemName,
    path: Annotated[
        Path, typer.Argument(metavar="FILE.cir", help="Of the free phase; others get a suffix."), Writes()
    ],
    form: Annotated[
        str, typer.Option("--as", help="phases (netlists), or subckt: a subcircuit with ports, and a bench of it.")
    ] = "phases",
    phase: Annotated[str, typer.Option(help="free, nudged or both.")] = "both",
    beta: Beta = None,
    method: NetlistMethod = None,
    batch: Annotated[int, typer.Option(help="Examples that a bench asks about.")] = 1,
    substrate: Substrate = None,
    preset: Preset = None,
    device_model: DeviceFile = None,
    weights: Weights = None,
    copies: Copying = None,
    rails: Rails = "refuse",
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a circuit, and its nudged phases, as netlists for ngspice, or as a subcircuit with a test bench."""
    report = Report(json, quiet)
    _on_the_cpu(device, dtype)
    if form not in FORMS:
        raise unknown_name("as", form, FORMS)
    for name, given, default in (("phase", phase, "both"), ("beta", beta, None), ("method", method, None)):
        if form != "phases" and given != default:
            raise argument_error(name, "be left out but with --as phases", repr(given))
    if batch < 1 or (form == "phases" and batch > 1):
        raise argument_error("batch", "be at least 1, and 1 with --as phases", batch)
    if form == "subckt":
        subject = _subject(system, seed, batch, weights, substrate, preset, device_model, copies, rails, data=True)
        _export_subcircuit(report, path, subject)
        return
    from physics_ep.estimators.methods import HARDWARE

    from .spice.adjoint import corrected_parts, netlist_method
    from .spice.phases import export_phases, with_sources

    subject = _subject(system, seed, 1, weights, substrate, preset, device_model, copies, rails)
    _of_one_circuit(substrate, method)
    circuit = subject.circuit
    if not circuit.output_names and phase == "both":
        phase = "free"
    parts = with_sources(circuit.parts, subject.sources[0])
    strength = subject.strength(beta)
    followed = netlist_method(circuit, subject.sources[:1], method) if phase != "free" else None
    files = export_phases(
        path,
        parts,
        circuit.output_names,
        subject.targets[0],
        strength,
        phase=phase,
        title=subject.title,
        corrected=None if followed is None else corrected_parts(circuit, subject.sources[:1], followed),
    )
    counts = {kind: len(group) for kind, group in parts.groups.items()}
    names = {name: str(file) for name, file in files.items()}
    told = {"files": names, "parts": counts, "nodes": len(parts.nodes), "beta": strength, "method": followed}
    report.figures(told)
    for name, file in files.items():
        report.say(f"{name:6s} {file}")
    if followed is not None:
        report.say(f"nudged phases follow {followed}: {HARDWARE[followed]}")
    report.say(f"{len(parts.nodes)} nodes, {_counted(counts)}; run with: ngspice -b {next(iter(files.values()))}")


def _export_subcircuit(report: Report, path: Path, subject: CheckedCircuit) -> None:
    """Write a subcircuit and its bench, and tell what they hold."""
    from .spice.bench import export_subcircuit

    found = export_subcircuit(path, subject)
    circuit = found.circuit
    units = {unit.name: len(unit.instances) for unit in circuit.units}
    examples = subject.examples
    report.figures(
        {
            "files": {name: str(file) for name, file in found.files.items()},
            "inputs": circuit.inputs,
            "outputs": circuit.outputs,
            "units": units,
            "examples": "" if examples is None else examples.told,
            "labels": () if examples is None else examples.labels,
            "volts": found.volts.tolist(),
            "found": found.found.tolist(),
        }
    )
    for name, file in found.files.items():
        report.say(f"{name:11s} {file}")
    told = ", ".join(f"{count:,} of {name}" for name, count in units.items()) or "none"
    report.say(f"ports       {len(circuit.inputs):,} inputs, {len(circuit.outputs):,} outputs; {subject.ports}")
    report.say(f"units       {told}")
    what = "its sources' own values" if examples is None else examples.told
    report.say(f"examples    {len(found.volts):,}: {what}; run with: ngspice -b {found.files['bench']}")


def spice_check(
    system: SystemName,
    tolerance: Annotated[float, typer.Option(help="Exit with status 1 above, volts.")] = 1e-9,
    gradient_tolerance: Annotated[float, typer.Option(help="The same for the gradient, relative.")] = 1e-5,
    course_tolerance: Annotated[
        float, typer.Option(help="The same for .tran and .ac of netlists, over each node's largest voltage.")
    ] = 1e-3,
    figure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw what differs, for netlists: a PDF, PNG or SVG.", show_default=False
        ),
        Writes(),
    ] = None,
    beta: Beta = None,
    method: NetlistMethod = None,
    batch: Annotated[int, typer.Option(help="Random examples, for networks.")] = 2,
    substrate: Substrate = None,
    preset: Preset = None,
    device_model: DeviceFile = None,
    weights: Weights = None,
    copies: Copying = None,
    rails: Rails = "refuse",
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare operating points of all phases, and EP's gradient, with ngspice's; a netlist's own text, too."""
    report = Report(json, quiet)
    _on_the_cpu(device, dtype)
    for name, value in (
        ("tolerance", tolerance),
        ("gradient-tolerance", gradient_tolerance),
        ("course-tolerance", course_tolerance),
        ("batch", batch),
    ):
        if not value > 0:
            raise argument_error(name, "be positive", value)
    from .spice.check import check_agreement, netlist_path
    from .spice.mapped import PairsSubject, check_pairs
    from .spice.ngspice import find_ngspice
    from .spice.telling import require_agreement, tell_netlist, tell_phases

    find_ngspice()
    path = None if substrate else netlist_path(system)
    if figure is not None:
        figure_format(figure)
        if path is None:
            raise argument_error("figure", "be left out for systems that are no netlist", str(figure))
    subject = _subject(system, seed, batch, weights, substrate, preset, device_model, copies, rails)
    _of_one_circuit(substrate, method)
    given = None if path is None else tell_netlist(report, path, figure, verbose)
    if isinstance(subject, PairsSubject):
        found = check_pairs(subject, beta)
    else:
        found = check_agreement(subject, beta, method)
    report.figures(
        {
            "rows": [asdict(row) for row in found.rows],
            "worst_difference": found.worst,
            "gradient_error": found.gradient,
            "beta": found.beta,
            "method": found.method,
            "nodes": len(subject.circuit.parts.nodes),
            "tolerance": tolerance,
            **({} if given is None else {"netlist": given.figures()}),
        }
    )
    tell_phases(report, system, subject, found)
    require_agreement(given, found, tolerance, gradient_tolerance, course_tolerance)


def spice_import(
    path: Annotated[
        str, typer.Argument(metavar="FILE.cir", help="A netlist, or the name of a bundled one."), READS
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.cir", help="Write it again, flattened.", show_default=False),
        Writes(),
    ] = None,
    gmin: Annotated[
        float | None,
        typer.Option(
            help="Siemens across every diode. Default: SPICE's 1e-12 where leakage alone holds a node, else 0.",
            show_default=False,
        ),
    ] = None,
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read a netlist, and solve it."""
    report = Report(json, quiet)
    _on_the_cpu(device, dtype)
    from .circuits.circuit import Circuit
    from .netlists.netlist import load_netlist, write_netlist
    from .spice.check import bundled_netlists

    if not Path(path).suffix and not Path(path).exists() and path not in bundled_netlists():
        raise unknown_name("FILE.cir", path, bundled_netlists())
    found = load_netlist(bundled_netlists().get(path, Path(path)))
    circuit = Circuit(found.parts, outputs=found.outputs, gmin=found.gmin if gmin is None else gmin)
    point = circuit.operating_point().require()
    voltages = circuit.node_voltages(point)
    residual = float(point.residual_si.max())
    if out is not None:
        write_netlist(out, circuit.parts, title=found.title, outputs=found.outputs)
    counts = {kind: len(group) for kind, group in circuit.parts.groups.items()}
    report.figures(
        {
            "title": found.title,
            "parts": counts,
            "outputs": found.outputs,
            "has_energy": circuit.has_energy,
            "unique": circuit.unique,
            "residual": residual,
            "voltages": voltages,
            "notes": found.notes,
        }
    )
    report.say(f"{found.title}\n{len(voltages)} nodes, {_counted(counts)}")
    for note in found.notes:
        report.say(f"note: {note}")
    if circuit.unique:
        report.say("one operating point: the co-content is strictly convex")
    elif circuit.has_energy:
        report.say("the operating point may not be the only one: only diodes lead from some nodes to a source")
    else:
        report.say(f"the operating point may not be the only one, since {circuit.no_energy_because}")
    shown = list(voltages.items()) if verbose else list(voltages.items())[:SHOWN_NODES]
    report.table(
        f"operating point, residual {residual:.1e} A",
        ["node", "V"],
        [[node, f"{volts:.12g}"] for node, volts in shown],
    )
    if len(shown) < len(voltages):
        report.say(f"... and {len(voltages) - len(shown)} more (--verbose)")
    if out is not None:
        report.say(f"written: {out}")


def _subject(
    system: str,
    seed: int | None,
    batch: int,
    weights: Path | None,
    substrate: str | None,
    preset: str | None,
    device_model: Path | None,
    copies: str | None,
    rails: str,
    *,
    data: bool = False,
) -> CheckedCircuit:
    """What SYSTEM and --substrate name, with random examples, or with those of its data."""
    number = 0 if seed is None else seed
    if substrate is not None:
        from .devices.presets import chosen_device
        from .mapping.mapped import substrate_class
        from .spice.mapped import find_pairs

        model = chosen_device(preset, device_model, substrate_class(substrate).device_class, copies)
        return find_pairs(system, substrate, model, number, batch, weights, rails, data=data)
    for name, given in (
        ("preset", preset),
        ("device-model", device_model),
        ("copies", copies),
        ("rails", {"refuse": None}.get(rails, rails)),
    ):
        if given is not None:
            raise argument_error(name, "come with --substrate", repr(str(given)))
    from .spice.check import find_subject

    return find_subject(system, number, batch, weights, data=data)


def _of_one_circuit(substrate: str | None, method: str | None) -> None:
    """Refuse methods by which the parts of a mapped network, one circuit for all phases, cannot be nudged."""
    if substrate is not None and method not in (None, "energy", "vector-field"):
        must = "be 'energy' or 'vector-field' with --substrate, whose parts are one circuit in all phases"
        raise argument_error("method", must, repr(method))


def _on_the_cpu(device: str | None, dtype: str | None) -> None:
    if device is not None and device.partition(":")[0] != "cpu":
        must = "be 'cpu', where netlists and circuits are solved (mapped substrates compute on any device)"
        raise argument_error("device", must, repr(device))
    if dtype not in (None, "float64"):
        raise argument_error("dtype", "be 'float64', in which circuits are solved", repr(dtype))


def _counted(counts: dict[str, int]) -> str:
    plural = {
        kind: kind.replace("_", " ") + "s" * (count > 1 and kind[-1] != "s") for kind, count in counts.items()
    }
    return ", ".join(f"{count:,} {plural[kind]}" for kind, count in counts.items())
