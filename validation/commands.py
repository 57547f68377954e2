"""Commands of validation: gradients, bench."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from physics_ep.command_options import Device, Dtype, JsonFile, Quiet, Report, Seed, Verbose
from physics_ep.errors import InputError, argument_error, unknown_name

BENCHMARKS = {
    "hopfield": "validation.benchmarks.hopfield",
    "conv-hopfield": "validation.benchmarks.conv_hopfield",
    "pcn": "validation.benchmarks.pcn",
}


SMALL, LARGE = 1_000_000, 5_000_000
"""Parameters below which one thread is used; from which two examples do, and no noise floors are measured."""


class DisagreementError(Exception):
    """EP's gradient is further from the oracle's than asked for."""

    exit_status = 1


def register(app: typer.Typer) -> None:
    """Add the commands of this package."""
    app.command(epilog="Example: physics-ep gradients hopfield --scheme centered --beta 1e-3 --dtype float64")(
        gradients
    )
    app.command(epilog="Example: physics-ep bench hopfield --json bench.json")(bench)


def gradients(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="Registered name, bundled config or TOML file.")],
    scheme: Annotated[
        str, typer.Option(help="positive, negative, random, centered or holomorphic:N.")
    ] = "centered",
    beta: Annotated[str, typer.Option(help="Nudging strength > 0, or auto: 0.05 of the stability limit.")] = "auto",
    cost: Annotated[str, typer.Option(help="squared_error or cross_entropy.")] = "squared_error",
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
    gates: Annotated[
        str | None, typer.Option(help="Predictive coding networks: frozen or free.", show_default=False)
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Labelled photographs to take.", show_default=False)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Examples; default 16, or 2 for large systems.", show_default=False)
    ] = None,
    min_cosine: Annotated[
        float | None, typer.Option(help="Exit with status 1 if a tensor's cosine is below.", show_default=False)
    ] = None,
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare EP's gradient with an exact one, a row a tensor."""
    report = Report(json, quiet)
    strength = _beta(beta)
    if batch is not None and batch < 1:
        raise argument_error("batch", "be at least 1", batch)
    if min_cosine is not None and not -1 <= min_cosine <= 1:
        raise argument_error("min-cosine", "lie in [-1, 1]", min_cosine)
    import torch

    from physics_ep.config import load_system
    from physics_ep.cost import COSTS
    from physics_ep.placement import resolve_device, resolve_dtype, threads, work_in

    from .gradients import gradient_report

    if cost not in COSTS:
        raise unknown_name("cost", cost, COSTS)
    where, width = resolve_device(device), resolve_dtype(dtype)
    number = 0 if seed is None else seed
    built = load_system(system, seed=number).to(where, width)
    work_in(built, dtype)
    count = sum(p.numel() for p in built.parameters())
    batch = batch or (16 if count < LARGE else 2)
    x, y = _examples(built, COSTS[cost](), batch, number, images)
    options: dict[str, Any] = {} if gates is None else {"gates": gates}
    # Small products lose more to a second thread on a busy machine than they gain.
    small, floors = count < SMALL, count < LARGE
    with threads(1 if small else torch.get_num_threads()):
        found = gradient_report(
            built,
            x,
            y,
            COSTS[cost](),
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
            **options,
        )
    sweeps = max(found.iterations[1:])
    report.figures(
        {
            "rows": [{**vars(row), "iterations": sweeps, "residual": found.residual} for row in found.rows],
            "worst_cosine": found.worst_cosine,
            "relative_error": found.relative_error,
            "noise_floor": found.noise_floor,
            "residual": found.residual,
            "iterations": list(found.iterations),
            "oracle": found.oracle,
            "beta": found.beta,
            "scheme": found.scheme,
            "solver": found.solver,
            "loss": found.loss,
        }
    )
    report.table(
        f"{system}: EP ({found.scheme}, beta {found.beta:.3g}) against {found.oracle}, {dtype or 'float32'}, "
        f"batch {batch}",
        ["tensor", "shape", "1-cos", "error", "scale", *(["floor"] if floors else []), "K", "residual"],
        [
            [
                row.name,
                "x".join(map(str, row.shape)),
                f"{max(1 - row.cosine, 0.0):.1e}",
                f"{row.relative_error:.1e}",
                f"{row.scale:.4f}",
                *([f"{row.noise_floor:.1e}"] if floors else []),
                str(sweeps),
                f"{found.residual:.1e}",
            ]
            for row in found.rows
        ],
    )
    phases = "/".join(map(str, found.iterations))
    floor = (
        ""
        if math.isnan(found.noise_floor)
        else (f", of which residuals and rounding at most {found.noise_floor:.1e}")
    )
    report.say(
        f"whole gradient: relative error {found.relative_error:.2e}{floor}; worst cosine {found.worst_cosine:.9f}\n"
        f"phases: {phases} iterations of {found.solver}, worst residual {found.residual:.1e}"
    )
    if hasattr(built, "gates"):
        report.say(
            "K = 1 with frozen gates is backprop, whatever beta is: agreement means something only beside a "
            "residual well below 1."
        )
    if min_cosine is not None and not found.worst_cosine >= min_cosine:
        raise DisagreementError(f"worst cosine {found.worst_cosine:.6f} is below --min-cosine {min_cosine:g}")


def bench(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Benchmark; default all.")] = None,
    list_benchmarks: Annotated[bool, typer.Option("--list", help="List the benchmarks and stop.")] = False,
    repeats: Annotated[int, typer.Option(help="Timed rounds; medians are reported.")] = 40,
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure side by side, contenders taking turns in one run."""
    import importlib

    if list_benchmarks:
        for known in BENCHMARKS:
            typer.echo(known)
        return
    if name is not None and name not in BENCHMARKS:
        raise unknown_name("NAME", name, BENCHMARKS)
    if repeats < 1:
        raise argument_error("repeats", "be at least 1", repeats)
    if (device, dtype) != (None, None):
        raise InputError("Arguments device and dtype must not be given: each benchmark names its own.")
    report = Report(json, quiet)
    results: dict[str, Any] = {}
    for key in [name] if name else BENCHMARKS:
        with report.progress().task(f"bench {key}", 1) as advance:
            results[key] = importlib.import_module(BENCHMARKS[key]).measure(
                repeats=repeats, seed=0 if seed is None else seed
            )
            advance(1)
        found = results[key]
        columns = list(found["rows"][0])
        report.table(
            f"{found['title']} ({found['machine']})",
            columns,
            [[_cell(row[column]) for column in columns] for row in found["rows"]],
        )
    report.figures(results[name] if name else results)


def _beta(text: str) -> float | str:
    if text == "auto":
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argument_error("beta", "be a positive number or 'auto' (the scheme carries the sign)", repr(text))
    return value


def _examples(system: Any, cost: Any, batch: int, seed: int, images: Path | None) -> tuple[Any, Any]:
    """Photographs of a folder; else real digits where they fit the system, else random inputs and targets."""
    import torch

    if images is not None:
        from physics_ep.sources import photographs

        shape = tuple(getattr(system, "shapes", ((),))[0])
        if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
            raise argument_error(
                "images", "be left out for a system that does not take square colour images", images
            )
        x, labels = photographs(images, shape[1], batch, seed)
        n_out = system.sizes[-1]
        return x.to(system.device, system.dtype), cost.encode(
            (labels % n_out).to(system.device), n_out, system.dtype
        )

    from physics_ep.datasets import digits

    generator = torch.Generator().manual_seed(seed)
    data = digits()
    n_in = system.sizes[0] if hasattr(system, "sizes") else None
    flat = data.train_x.flatten(1)
    if n_in in (flat.shape[1], None):
        rows = torch.randperm(len(flat), generator=generator)[:batch]
        x, labels = flat[rows], data.train_y[rows]
    else:
        x = torch.rand(batch, n_in, generator=generator)
        labels = torch.randint(0, system.sizes[-1], (batch,), generator=generator)
    if hasattr(system, "shapes"):
        x = x.unflatten(1, system.shapes[0])
    x = x.to(system.device, system.dtype)
    n_out = system.outputs(system.initial_state(x)).shape[1]
    return x, cost.encode((labels % n_out).to(system.device), n_out, system.dtype)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}" if 0.01 <= abs(value) < 1e4 else f"{value:.1e}"
    return str(value)
