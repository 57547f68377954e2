"""The command of oscillators: anneal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from physics_ep.command_options import READS, Device, Dtype, JsonFile, Quiet, Report, Seed, Verbose, add_command
from physics_ep.errors import argument_error

EXAMPLE = "Example: physics-ep anneal G14 --starts 100 --json cuts.json"


def register(app: typer.Typer) -> None:
    """Add the command of oscillator graphs to the command line."""
    add_command(app, anneal, epilog=EXAMPLE)


def anneal(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Graph in Gset's format: 'n m', then lines 'i j w', nodes from 1."),
        READS,
    ],
    machine: Annotated[str, typer.Option(help="bifurcation (parametric oscillators) or phase.")] = "bifurcation",
    starts: Annotated[int, typer.Option(help="Random starts, all followed at once.")] = 20,
    steps: Annotated[int, typer.Option(help="Steps in time of each start.")] = 300,
    noise: Annotated[float, typer.Option(help="Deviation of the noise in the first step; it fades.")] = 0.0,
    schedule: Annotated[
        str, typer.Option(help="How pump or injection grow: linear, quadratic, root, or numbers 0,0.2,...,1.")
    ] = "linear",
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Seek a maximum cut of a graph with an oscillator Ising machine; tell the cut of every start."""
    report = Report(json, quiet)
    if device is not None and device.partition(":")[0] != "cpu":
        raise argument_error("device", "be 'cpu', where starts are followed", repr(device))
    if dtype not in (None, "float32"):
        raise argument_error("dtype", "be 'float32', in which starts are followed (cuts are float64)", repr(dtype))
    from .gset import read_gset
    from .max_cut import max_cut

    graph = read_gset(path)
    found = max_cut(
        graph,
        machine=machine,
        starts=starts,
        steps=steps,
        noise=noise,
        schedule=_numbers(schedule),
        seed=0 if seed is None else seed,
    )
    cuts = found.cut.tolist()
    best, mean = max(cuts), sum(cuts) / len(cuts)
    figures = {
        "file": str(path), "nodes": graph.n, "edges": len(graph.edges), "machine": machine, "steps": steps,
        "noise": noise, "schedule": schedule, "seed": 0 if seed is None else seed,
        "cuts": cuts, "best_cut": best, "mean_cut": mean, "best_spins": found.best.tolist(),
    }  # fmt: skip
    report.figures(figures)
    report.say(f"{path}: {graph.n:,} nodes, {len(graph.edges):,} edges; machine {machine}")
    report.table(
        "",
        ["start", "cut"],
        [[str(k), f"{value:.10g}"] for k, value in enumerate(cuts)],
    )
    report.say(f"best cut  {best:.10g} (the largest may be larger)")
    report.say(f"mean cut  {mean:.10g} of {starts} starts, {steps} steps each")


def _numbers(schedule: str) -> str | list[float]:
    """A schedule's numbers; a name as it is."""
    try:
        return [float(part) for part in schedule.split(",")]
    except ValueError:
        return schedule
