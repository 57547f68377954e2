"""Commands of the core: train, simulate, info."""

from __future__ import annotations

import math
import os
import textwrap
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from .command_options import (
    READS,
    DataFolder,
    Device,
    DeviceFile,
    DeviceSeed,
    Dtype,
    JsonFile,
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
from .errors import InputError, argument_error, counted, unknown_name

RunFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="RUN.h5", help="Run file to write; one that is there needs --overwrite."),
    Writes(goes_on="resume"),
]


MOST_COLUMNS = 6
"""Columns of targets that the table of several seeds shows; `--json` has all."""


class InterruptedCommandError(Exception):
    """Raised when Ctrl-C ends a command, with a sentence on how to go on; `cli.main` prints it and exits."""

    exit_status = 130


def register(app: typer.Typer) -> None:
    """Add the commands of `physics_ep` to the command line."""
    add_command(app, train, training=True)
    add_command(app, simulate, training=True)
    add_command(app, info)
    add_command(app, config_, name="config", epilog="Example: physics-ep config --show hopfield-digits > mine.toml")
    run = typer.Typer(help="Run files: is one whole?")
    add_command(run, run_verify, name="verify", group="run", epilog="Example: physics-ep run verify run.h5")
    app.add_typer(run, name="run")


def train(
    *,
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="TOML file, bundled config (see --list) or FILE.py:factory."),
        READS,
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="Replace an entry of the config; may be repeated."),
    ] = None,
    out: RunFile = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN.h5", help="Go on from a run file (and into it, without --out)."),
        READS,
    ] = None,
    rewind: Annotated[
        bool,
        typer.Option(
            "--rewind",
            help="With --resume: go on from the epoch of smallest training loss; --set may lower the lr.",
        ),
    ] = False,
    data: DataFolder = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download data that are missing, checked by hash.")
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", min=1, help="Processes that share the seeds of training.seeds (RUN.seed0.h5, ...)."
        ),
    ] = 1,
    list_configs: Annotated[bool, typer.Option("--list", help="List the bundled configs and stop.")] = False,
    weights: Weights = None,
    begin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="NAME",
            help="Begin with the weights of a network of the zoo, or a run file (without CONFIG: its config too).",
            show_default=False,
        ),
        READS,
    ] = None,
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
    """Train a system by equilibrium propagation, as a config says; on devices its cells learn by pulses."""
    if list_configs:
        _list_configs()
        return
    if config is None and resume is None and begin is None:
        raise InputError("Argument CONFIG must be given: a TOML file or a bundled name (physics-ep train --list).")
    report = Report(json, quiet)
    from .config import load_config, weights_named
    from .ranks import leave_group, rank
    from .recipes import told_recipe
    from .runs.preparation import on_devices
    from .runs.seeds import SeedsResult
    from .runs.training import TrainingInterrupted
    from .runs.training import train as train_system
    from .storage.opening import open_run

    settings: Any = open_run(resume).config if config is None and resume is not None else config
    if begin is not None:
        if weights is not None or resume is not None:
            other = "--weights" if weights is not None else "--resume"
            raise argument_error("from", f"be left out with {other}", repr(begin))
        _require_weights(begin)
        settings, weights = _config_of(begin) if config is None else settings, Path(begin)
    changes = [*(overrides or []), *(["data.download=true"] if download else [])]
    assert settings is not None
    if weights is not None:
        if resume is not None:
            raise argument_error(
                "weights", "be left out with --resume, which has those of the run", repr(str(weights))
            )
        settings = load_config(settings).updated(system={"weights": weights_named(weights)})
    if (preset, device_model, device_seed) != (None, None, None):  # --set may refine what they say
        settings = on_devices(load_config(settings), preset, device_model, device_seed)
    if rank():  # one of several processes speaks for all
        report = Report(quiet=True)
    try:
        result = train_system(
            settings,
            overrides=changes,
            out=out,
            resume=resume,
            data=data,
            device=device,
            dtype=dtype,
            seed=seed,
            progress=report.progress(),
            rewind=rewind,
            workers=workers,
        )
    except TrainingInterrupted as stop:
        raise InterruptedCommandError(str(stop)) from stop
    figures = result.figures()
    report.figures(figures)
    report.say(f"recipe: {told_recipe(result.config)}")
    each_training = figures.get("trainings", [figures])
    if "columns" in each_training[0]:
        report.say(each_training[0]["columns"]["words"])
    for cells in dict.fromkeys(each.get("cells", "") for each in each_training):
        if cells:
            report.say(f"cells: {cells}")
    if isinstance(result, SeedsResult):
        _tell_seeds(report, result)
        leave_group()
        return
    if verbose:
        metrics = result.metrics
        judges = "test" if result.kept_epoch is None else "validation"
        measured = f"{judges}_r2" if f"{judges}_r2" in metrics else f"{judges}_loss"
        names = [measured] if result.measured else ["train_error", f"{judges}_error", f"{judges}_top5_error"]
        report.table(
            "Epochs",
            [
                "epoch",
                "loss",
                *(n.replace("_", " ").replace("r2", "R2, worst target") for n in names),
                "worst residual",
                "skipped",
                "seconds",
            ],
            [
                [
                    str(k + 1),
                    f"{metrics['loss'][k]:.4g}",
                    *(f"{metrics[n][k].min():.4g}" if result.measured else f"{metrics[n][k]:.2%}" for n in names),
                    f"{metrics['worst_residual'][k]:.1e}",
                    str(metrics["skipped"][k]),
                    f"{metrics['seconds'][k]:.1f}",
                ]
                for k in range(len(metrics["loss"]))
            ],
        )
    kept = f"; {result.path}" if result.path else ""
    chosen = "" if result.kept_epoch is None else f" (epoch {result.kept_epoch} is kept, with validation "
    if result.measured:
        loss = float(result.metrics["loss"][-1])
        told = f"test: {result.misses()}, root mean square; {_over_scales(result, loss)}"
        lost = figures["test_unconverged"]
        told += f"; {counted(lost, 'test example')} without equilibrium left out" if lost else ""
        chosen += f"{result.misses('validation')})" if chosen else ""
    else:
        told = f"test error {result.test_error:.2%}, train error {result.train_error:.2%}"
        chosen += f"error {result.validation_error:.2%})" if chosen else ""
    report.say(
        f"{told} after {counted(figures['epochs'], 'epoch')}{chosen} in {result.seconds:.1f} s; worst residual "
        f"{figures['worst_residual']:.1e}, {figures['skipped']} skipped{kept}"
    )
    if result.broken:
        first = result.broken[0]
        report.say(f"left out: {counted(len(result.broken), 'image')} that cannot be decoded. The first: {first}")
    leave_group()


def _over_scales(result: Any, train_loss: float) -> str:
    """How far outputs are from all measured targets together, in test and training, each over its scale."""
    test, train = (result.over_scales(loss) for loss in (result.test_loss, train_loss))
    section = result.config.data
    scaling = section.target_scaling or ("range" if section.name in ("csv", "parquet") else "none")
    if scaling == "none":
        return f"over all {test:.4g}, {train:.4g} in training"
    scale = {"range": "range", "standard": "deviation"}[scaling]
    return f"{test:.2%} of the {scale}, {train:.2%} in training"


def simulate(
    *,
    system: Subject,
    out: Annotated[Path, typer.Option("--out", metavar="RUN.h5", help="Run file to write."), Writes()],
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration",
            metavar="T",
            help="Of each phase, in the system's time unit (default: until rest, 20 time constants at least).",
            show_default=False,
        ),
    ] = None,
    beta: Annotated[
        float | None, typer.Option("--beta", help="Nudging strength (default: the config's).", show_default=False)
    ] = None,
    examples: Annotated[int, typer.Option("--examples", min=1, help="Test examples to show the system.")] = 4,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Equal steps (default: 20 a time constant).", show_default=False),
    ] = None,
    every: Annotated[int, typer.Option("--every", min=1, help="Keep each step that is a multiple of this.")] = 1,
    method: Annotated[
        str | None,
        typer.Option("--method", help="rk4, dormand_prince, tr_bdf2, sra1, baoab, ...", show_default=False),
    ] = None,
    flow: Annotated[
        str | None,
        typer.Option(
            "--flow",
            help="gradient, skew, inertial; hopfield, rate for networks of units (default: the system's own).",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="Of thermal noise, in the system's energy unit.", show_default=False),
    ] = None,
    data: DataFolder = None,
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
    """Simulate a free phase and a nudged one after it: states, energies, settling times."""
    report = Report(json, quiet)
    from .dynamics.rest import NotAtRestWarning
    from .runs.phases import simulate_phases
    from .runs.preparation import on_devices, subject_of
    from .storage.parts import parts_folder

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotAtRestWarning)  # said below
            found = simulate_phases(
                on_devices(subject_of(system, weights), preset, device_model, device_seed),
                out=out,
                duration=duration,
                beta=beta,
                examples=examples,
                steps=steps,
                every=every,
                method=method,
                flow=flow,
                temperature=temperature,
                data=data,
                device=device,
                dtype=dtype,
                seed=seed,
                progress=report.progress(),
            )
    except KeyboardInterrupt as stop:
        kept = f"; {str(parts_folder(out))!r} keeps what there is, and open_run({str(out)!r}) reads it"
        raise InterruptedCommandError(f"interrupted{kept if parts_folder(out).is_dir() else ''}") from stop
    figures = found.figures()
    report.figures(figures)
    rows = []
    for phase, values in figures["phases"].items():
        settled = [t for t in values["settling_time"] if t is not None]
        times = f"{max(settled):.3g}" if len(settled) == len(values["settling_time"]) else "not by the end"
        first, last = values["first_energy"][0], values["last_energy"][0]
        energies = "none" if math.isnan(first) else f"{first:.4g} to {last:.4g}"  # of a force alone
        rows.append([phase, times, f"{max(values['last_residual']):.1e}", energies])
    columns = [
        "phase",
        f"time to 1 % ({figures['time_unit']})",
        "last residual",
        f"energy of the first example ({figures['energy_unit']})",
    ]
    report.table(f"{system}, beta {figures['beta']:g}: {out}", columns, rows)
    if found.cells:
        report.say_wrapped(f"cells: {found.cells}")
    if found.examples_told:
        report.say_wrapped(f"examples: {found.examples_told}.")
    report.say("time to 1 %: from then on the force stays below 1 % of its peak, in the slowest example.")
    for phase, values in figures["phases"].items():
        if values["tolerance"] is not None:
            rested, count = sum(values["at_rest"]), len(values["at_rest"])
            told = f"{rested} of {counted(count, 'example')} at rest (residual within {values['tolerance']:.1e})"
            report.say(f"{phase} phase: {told} after {values['duration']:.4g} {figures['time_unit']}.")
    for doubt in found.doubts:
        report.say(doubt)
    report.say(f"energy: {found.energy_meaning}.")


def config_(
    *,
    show: Annotated[
        str | None, typer.Option("--show", metavar="NAME", help="Print a bundled config.", show_default=False)
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key: type, default, meaning.")] = False,
    system: Annotated[
        str | None,
        typer.Option("--system", metavar="NAME", help="With --keys: the options of this system too."),
    ] = None,
    json: JsonFile = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Print a bundled config, or all keys that a config may have."""
    from .config_keys import config_keys
    from .registry import bundled

    report = Report(json, quiet)
    if (show is None) == (not keys):
        raise argument_error("show", "be given, or --keys, and not both", "both" if keys else "neither")
    if system is not None and not keys:
        raise argument_error("system", "come with --keys", repr(system))
    if show is not None:
        names = bundled()
        name = show if show in names else f"{show}-digits"
        if name not in names:
            raise unknown_name("show", show, names)
        text = names[name].read_text(encoding="utf-8")
        report.figures({"name": name, "toml": text})
        report.say(text.rstrip())
        return
    found = config_keys(system)
    report.figures({"keys": [vars(key) for key in found]})
    for section in dict.fromkeys(key.section for key in found):
        report.say(f"[{section}]")
        for key in found:
            if key.section == section:
                report.say(f"  {key.key} = {key.default}    ({key.type})")
                for line in textwrap.wrap(key.meaning, 100):
                    report.say(f"      {line}")


def info(
    *,
    data: DataFolder = None,
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Tell versions, devices, systems, configs and data."""
    report = Report(json, quiet)
    import torch

    from . import config as configs
    from . import placement, registry
    from .data import datasets
    from .storage import run_file as store

    placement.resolve_dtype(dtype)
    chosen = placement.resolve_device(device)
    found = store.environment()
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    systems = {}
    for name, entry in registry.systems().items():
        try:
            registry.load(entry)
            systems[name] = entry.value
        except InputError as error:
            systems[name] = str(error)
    sets = {name: datasets.locate(name, data) or "not found" for name in (*datasets.DATASETS, *datasets.STREAMED)}
    choices = registry.choices()
    figures = {
        **found,
        **choices,
        "device": str(chosen),
        "cores": os.cpu_count(),
        "cuda_devices": gpus,
        "systems": systems,
        "configs": sorted(configs.bundled()),
        "data": sets,
    }
    report.figures(figures)
    rows = [[package, version] for package, version in found["versions"].items()]
    rows += [["commit", found["git_commit"]]] if "git_commit" in found else []
    rows += [
        ["cores, threads", f"{os.cpu_count()}, {found['threads']}"],
        ["CUDA devices", ", ".join(gpus) or "none"],
    ]
    rows += [[f"system {name}", where] for name, where in systems.items()]
    rows += [[kind, ", ".join(names)] for kind, names in choices.items()]
    rows += [["configs", ", ".join(sorted(configs.bundled()))]]
    rows += [[f"data {name}", where] for name, where in sets.items()]
    report.table(f"physics-ep, {time.strftime('%Y-%m-%d')}", ["", ""], rows)


def run_verify(
    *,
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="A run file, or one that is not complete yet."), READS
    ],
    json: JsonFile = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare a run file with its digest, and read all of it; exit with status 2 if it is damaged."""
    report = Report(json, quiet)
    from .storage.opening import open_run, run_files
    from .storage.sealed import verify_seal

    found = [(file, verify_seal(file)) for file in run_files(path)]
    run = open_run(path, verify=False)
    figures = {
        "kind": run.attributes.get("kind"),
        "files": [{"file": str(file), "bytes": file.stat().st_size, "sha256": digest} for file, digest in found],
    }
    report.figures(figures)
    for file, digest in found:
        told = f"sha256 {digest}" if digest else "no digest: written before run files had one, not all damage shows"
        report.say(f"{file}: whole, {told}")


def _require_weights(begin: str) -> None:
    """Raise InputError where --from is a name that the zoo does not have."""
    from .config import names_no_file
    from .zoo import zoo

    if begin not in zoo() and names_no_file(begin):
        raise unknown_name("from", begin, zoo())


def _config_of(begin: str) -> Any:
    """The config that the weights of --from were trained under: of a network of the zoo, or of a run file."""
    from .storage.opening import open_run
    from .zoo import zoo

    entries = zoo()
    return entries[begin]["config"] if begin in entries else open_run(begin).config


def _tell_seeds(report: Report, result: Any) -> None:
    """Say what several seeds gave: a row each, and the mean with its interval."""
    from .intervals import mean_interval
    from .misses import SHOWN

    if result.measured:
        rows = result.records()
        names = [name for name in rows[0] if name.endswith((", RMS", ", R2"))][:MOST_COLUMNS]
        shown = [
            [str(row["seed"]), *(f"{row[name]:.4g}" for name in names), f"{row['seconds']:.1f}"] for row in rows
        ]
        report.table("Seeds", ["seed", *names, "seconds"], shown)
        report.say(f"test: {result.misses()}, root mean square, means over {len(result.seeds)} seeds")
        for name in list(result.trainings[0]["test_rms"])[:SHOWN]:
            found = mean_interval([each["test_rms"][name] for each in result.trainings])
            low, high = found.ends or (math.nan, math.nan)
            report.say(f"{name} off by {found.mean:.4g}, 95 % interval {low:.4g} to {high:.4g}")
        return
    names, form = ["test_error", "train_error"], ".2%"
    shown = [
        [str(row["seed"]), *(format(row[name], form) for name in names), f"{row['seconds']:.1f}"]
        for row in result.records()
    ]
    report.table("Seeds", ["seed", *(name.replace("_", " ") for name in names), "seconds"], shown)
    found = result.over_seeds(names[0])
    low, high = found.ends
    report.say(
        f"{names[0].replace('_', ' ')} {found.mean:{form}}, 95 % interval {low:{form}} to {high:{form}} over "
        f"{len(result.seeds)} seeds"
    )


def _list_configs() -> None:
    from .registry import bundled

    for name, path in bundled().items():
        first = path.read_text(encoding="utf-8").splitlines()[0]
        typer.echo(f"{name:24} {first.lstrip('# ')}")
