"""Command of the substrates: map."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from physics_ep.command_options import Device, Dtype, JsonFile, Quiet, Report, Seed, Verbose
from physics_ep.errors import argument_error


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        name="map", epilog="Example: physics-ep map pcn --preset pcm   (vgg10 --images DIR for real photographs)"
    )(map_)


def map_(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="pcn, vgg5, vgg10, vgg10-skip, a bundled config or TOML file.")
    ],
    substrate: Annotated[str, typer.Option(help="hopfield.")] = "hopfield",
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Devices: reram, pcm, sram or op-amp.", show_default=False)
    ] = None,
    device_model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Devices as JSON.", show_default=False)
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Weights of a run file.", show_default=False)
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Photographs to calibrate with.", show_default=False)
    ] = None,
    batch: Annotated[int, typer.Option(help="Calibration examples.")] = 2,
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
    from physics_ep.placement import resolve_device, resolve_dtype
    from physics_ep.predictive_coding import PredictiveCodingNetwork
    from physics_ep.sources import photographs
    from physics_ep.store import load_weights, open_run

    from .devices import chosen_device
    from .mapping import map_pcn

    model = chosen_device(preset, device_model)
    number = 0 if seed is None else seed
    net = load_system(network, seed=number).to(resolve_device(device), resolve_dtype(dtype))
    if not isinstance(net, PredictiveCodingNetwork):
        raise argument_error("NETWORK", "be a predictive coding network (pcn, vgg5, vgg10, vgg10-skip)", network)
    if checkpoint is not None:
        load_weights(net, open_run(checkpoint))
    shape = net.shapes[0]
    if images is None:
        x = torch.rand((batch, *shape), generator=torch.Generator().manual_seed(number))
    elif len(shape) == 3 and shape[0] == 3 and shape[1] == shape[2]:
        x, _ = photographs(images, shape[1], batch, number)
    else:
        raise argument_error("images", "be left out for a network that does not take square colour images", images)
    mapped = map_pcn(net, substrate, model, number, calibration=x.to(net.device, net.dtype))
    found = mapped.fidelity
    report.figures({**found.figures(), "device": asdict(model), "network": network, "seed": number})
    report.table(
        f"{network} on the substrate {substrate}, {preset or device_model or 'ideal'} devices",
        ["array", "units", "cells", "tiles", "reads", "full scale", "G max", "on/off", "power"],
        [
            [
                row.name,
                row.activation,
                f"{row.cells:,}",
                f"{row.tiles:,}",
                f"{row.positions:,}",
                f"{row.full_scale:.2g}",
                quantity(row.conductance_range[1], "S"),
                f"{row.on_off_ratio:.3g}",
                quantity(row.power, "W"),
            ]
            for row in found.layers
        ],
    )
    report.say(f"construction   {found.exactness}; held by latches in nudged phases: {found.held}")
    report.say(
        f"free state     {found.free_state_error:.1e} of the outputs off, residual {found.free_residual:.1e}"
    )
    report.say(f"cells          {found.cells:,} in {found.tiles:,} tiles, on/off ratio {found.on_off_ratio:.3g}")
    times = f"{quantity(found.settling_time, 's')} free, {quantity(found.nudged_settling_time, 's')} nudged"
    report.say(f"settling       {times} (to 1e-6, RC stages of gain one)")
    report.say(f"energy         {quantity(found.energy, 'J')} a free phase and example")
    if model.source:
        report.say(f"devices        {model.source}")


def quantity(value: float, unit: str) -> str:
    """A figure with an SI prefix, three digits."""
    if value == 0:
        return f"0 {unit}"
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value / 1e-12:.3g} p{unit}"
