"""The figures of resistive networks and circuits by name: rows of the catalogue."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from physics_ep.errors import argument_error

from .requests import BATCH, Drawn, Entry, Request

if TYPE_CHECKING:
    from .subjects import Subject


def _relaxation(request: Request) -> Drawn:
    from .circuit import draw_transients
    from .resistive import resistive_relaxation
    from .subjects import fresh_resistive, trained

    # Circuits are simulated in float64 on the CPU, wherever their networks were. Conductances of some microsiemens.
    small: dict[str, Any] = {"scale": 1e-4, "saturation": 1e-9, "input_gain": 8.0}
    subject = (
        fresh_resistive("resistive network", [12, 8], "shockley", examples=1, seed=request.seed, **small)
        if request.run is None
        else trained(request.run, examples=1)
    )
    with request.progress.task("figure: resistive relaxation", 1) as advance:
        data = resistive_relaxation(subject)
        advance(1)
    return Drawn(draw_transients(data), asdict(data))


def _conductances(request: Request) -> Drawn:
    from physics_ep.store import open_run
    from physics_ep.training import train

    from .conductances import conductance_change, draw_conductances

    if request.run is not None:
        data = conductance_change(open_run(request.run))
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.h5"
            train("resistive-digits", out=path, seed=request.seed, device=request.device, progress=request.progress)
            data = conductance_change(open_run(path))
    return Drawn(draw_conductances(data), asdict(data))


def _error(request: Request) -> Drawn:
    from .gradients import draw_errors
    from .resistive import resistive_error
    from .subjects import trained

    subjects = (
        _by_diode(request) if request.run is None else [trained(request.run, examples=BATCH, **request.place())]
    )
    data = resistive_error(subjects, seed=request.seed, progress=request.progress)
    return Drawn(draw_errors(data), asdict(data))


def _scaling(request: Request) -> Drawn:
    from validation.benchmarks.circuit_scaling import measure

    from .scaling import circuit_scaling, draw_scaling

    if request.run is not None:
        raise argument_error("--from", "be left out for circuit_scaling, which measures circuits", str(request.run))
    with request.progress.task("figure: circuit scaling", 1) as advance:
        data = circuit_scaling(measure(seed=request.seed))
        advance(1)
    return Drawn(draw_scaling(data), asdict(data))


def _by_diode(request: Request) -> list[Subject]:
    """Networks of two hidden layers without diodes, with Shockley's and with ideal ones."""
    from .subjects import fresh_resistive

    names = {"none": "no diodes", "shockley": "Shockley diodes", "ideal": "ideal diodes"}
    few: dict[str, Any] = {"examples": 16, "seed": request.seed, **request.place()}
    return [
        fresh_resistive(name, [32, 32], diode, input_gain=16.0, saturation=1e-3, **few)
        for diode, name in names.items()
    ]


_SYSTEMS = ("resistive",)

RESISTIVE_FIGURES: tuple[Entry, ...] = (
    Entry(
        "resistive_relaxation",
        "a resistive network's volts, power and co-content over seconds, free and nudged",
        _relaxation,
        _SYSTEMS,
    ),
    Entry("conductances", "conductances of a resistive network before and after training", _conductances, _SYSTEMS),
    Entry(
        "resistive_error",
        "error of EP over beta: no, Shockley and ideal diodes, float64 and float32",
        _error,
        _SYSTEMS,
    ),
    Entry(
        "circuit_scaling", "time and memory of operating points over the size of the circuit", _scaling, _SYSTEMS
    ),
)
