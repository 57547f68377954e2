"""The command inference: what an inference of a trained system costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from physics_ep.command_options import (
    DataFolder,
    Device,
    DeviceFile,
    DeviceSeed,
    JsonFile,
    Preset,
    Quiet,
    Report,
    Seed,
    Subject,
    Verbose,
    Weights,
    add_command,
)

from ..quantities import quantity

if TYPE_CHECKING:  # the command's help must not wait for pydantic
    from physics_ep.config import Config


def register(app: typer.Typer) -> None:
    """Add the command `inference` to the command line."""
    add_command(app, inference, epilog="Example: physics-ep inference run.h5   (hopfield --preset reram)")


def inference(
    system: Subject,
    preset: Preset = None,
    device_model: DeviceFile = None,
    device_seed: DeviceSeed = None,
    weights: Weights = None,
    data: DataFolder = None,
    examples: Annotated[int, typer.Option(help="Test examples at most.", min=1)] = 500,
    json: JsonFile = None,
    seed: Seed = None,
    device: Device = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Tell what an inference costs: error, time to rest, watts and joules, and what each figure assumes."""
    report = Report(json, quiet)
    import torch

    from physics_ep.placement import resolve_device
    from physics_ep.runs.preparation import on_devices, subject_of, with_arguments

    from .cost import inference_cost
    from .examples import examples_shown

    where = resolve_device(device)
    subject = on_devices(subject_of(system, weights), preset, device_model, device_seed)
    subject = with_arguments(subject, data, None, None, None)
    built = subject.system.build(seed=0 if seed is None else seed).to(where)
    x, y = examples_shown(built, subject)
    x, y = x[:examples], None if y is None else y[:examples]
    with torch.no_grad():
        found = inference_cost(built, x, y, subject.ep.new_cost())
    report.figures(found.figures())
    values = {
        "error": found.misses if math.isnan(found.error) else f"{found.error:.2%}",
        "time to rest": quantity(found.seconds, "s"),
        "power": quantity(found.watts, "W"),
        "energy": quantity(found.joules, "J"),
    }
    rows = [[name, value or "not known"] for name, value in values.items()]
    report.table(f"{system}: an inference", ["", "value"], rows)
    for name, words in {**found.words, **_unfinished(subject)}.items():
        report.say_wrapped(f"{name}: {words}" if values.get(name, "?") else f"{name}: not known {words}")
    if cells := getattr(built, "cells_told", ""):
        report.say_wrapped(f"cells: {cells}")


def _unfinished(subject: Config) -> dict[str, str]:
    """What to tell of a run whose training was cut short; a training with patience may have ended by itself."""
    from physics_ep.config import RUN
    from physics_ep.storage.opening import open_run

    if subject.system.name != RUN or subject.training.patience:
        return {}
    path = subject.system.options["file"]
    done, planned = open_run(path).epochs, subject.training.epochs
    if not 0 < done < planned:
        return {}
    how = f"`physics-ep train --resume {path}` goes on"
    return {"training": f"not finished, the weights are those of epoch {done} of {planned}: {how}"}
