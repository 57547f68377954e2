"""The figures of oscillators, media and early inference by name: rows of the catalogue."""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from physics_ep.errors import argument_error

from .requests import Drawn, Entry, Request

if TYPE_CHECKING:
    from .subjects import Subject

BRIEF = (
    "system.sizes=[64,24,10]",
    "training.epochs=4",
    "data.train_examples=600",
    "data.test_examples=60",
)
"""Of the training whose network `phases_on_circle` shows."""
NETWORKS = 6
"""Whose costs of phases are compared."""
COUPLINGS = {"weak coupling": 0.5, "strong coupling": 2.0, "very strong coupling": 4.0}
"""Largest eigenvalues of coupling matrices, over the fields."""


def _phases(request: Request) -> Drawn:
    from physics_ep.training import train

    from .oscillators import draw_phases, phases_on_circle
    from .subjects import trained

    def made(path: Path) -> Drawn:
        subject = trained(path, examples=1, **request.place())
        with request.progress.task("figure: phases on the circle", 1) as advance:
            data = phases_on_circle(subject, seed=request.seed)
            advance(1)
        return Drawn(draw_phases(data), asdict(data))

    if request.run is not None:
        return made(request.run)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        train("oscillator-digits", overrides=BRIEF, out=path, seed=request.seed, progress=request.progress)
        return made(path)


def _pair(request: Request) -> Drawn:
    from .oscillator_pair import draw_pair, pair_landscapes

    _refuse_run(request, "two_oscillators", "two oscillators of its own")
    with request.progress.task("figure: two oscillators", 1) as advance:
        data = pair_landscapes()
        advance(1)
    return Drawn(draw_pair(data), asdict(data))


def _locking(request: Request) -> Drawn:
    from .locking import draw_locking, locking_curves

    _refuse_run(request, "locking", "oscillators of its own")
    data = locking_curves(seed=request.seed, progress=request.progress)
    return Drawn(draw_locking(data), asdict(data))


def _medium(request: Request) -> Drawn:
    from hardware_models.fitzhugh_nagumo import FitzHughNagumoChain

    from .media import draw_medium, medium
    from .subjects import before_digits, trained

    if request.run is None:
        options: dict[str, Any] = {"diffusion_u": 1.0, "diffusion_v": 1.0, "gain": 3.0, "seed": request.seed}
        subject = before_digits(
            "chain on a digit", lambda n_in, n_out: FitzHughNagumoChain([n_in, 80, n_out], **options), 1
        )
    else:
        subject = trained(request.run, examples=1)
    with request.progress.task("figure: medium", 1) as advance:
        data = medium(subject)
        advance(1)
    return Drawn(draw_medium(data), asdict(data))


def _early(request: Request) -> Drawn:
    from hardware_models.langevin_hopfield import LangevinHopfield

    from .early_inference import draw_early, early_courses
    from .subjects import before_digits, trained

    if request.run is None:
        subject = before_digits(
            "five tanh layers",
            lambda n_in, n_out: LangevinHopfield(
                [n_in, 64, 64, 64, 64, n_out], gain=math.sqrt(3.0), seed=request.seed
            ),
            2,
        )
    else:
        subject = trained(request.run, examples=8)
    data = early_courses(subject, seed=request.seed, progress=request.progress)
    return Drawn(draw_early(data), asdict(data))


def _switches(request: Request) -> Drawn:
    from .oscillator_gradients import branch_switches, draw_switches
    from .subjects import trained

    subjects = (
        [_all_to_all(f"{name}, {c:g}", c, 32, request.seed) for name, c in COUPLINGS.items()]
        if request.run is None
        else [trained(request.run, examples=32)]
    )
    data = branch_switches(subjects, progress=request.progress)
    return Drawn(draw_switches(data), {"curves": [asdict(curve) for curve in data]})


def _errors(request: Request) -> Drawn:
    from .oscillator_gradients import draw_oscillator_errors, oscillator_errors
    from .subjects import trained

    subjects = _kinds(request.seed) if request.run is None else [trained(request.run, examples=16)]
    phases = [_phases_of_digits(NETWORKS * request.seed + k) for k in range(NETWORKS)]
    data = oscillator_errors(subjects, phases, progress=request.progress)
    return Drawn(draw_oscillator_errors(data), asdict(data))


def _mapping(request: Request) -> Drawn:
    from .oscillator_mapping import draw_oscillator_mapping, oscillator_mapping

    _refuse_run(request, "oscillator_mapping", "networks of its own")
    with request.progress.task("figure: networks on oscillators", 1) as advance:
        data = oscillator_mapping(request.seed)
        advance(1)
    return Drawn(draw_oscillator_mapping(data), asdict(data))


def _refuse_run(request: Request, name: str, shown: str) -> None:
    if request.run is not None:
        raise argument_error("--from", f"be left out for {name}, which shows {shown}", str(request.run))


def _all_to_all(label: str, coupling: float, examples: int, seed: int, n: int = 32) -> Subject:
    from hardware_models.oscillator_graph import OscillatorGraph

    from .subjects import before_digits

    return before_digits(
        label,
        lambda n_in, n_out: OscillatorGraph.all_to_all(n_in, n, n_out, coupling=coupling, seed=seed),
        examples,
    )


def _kinds(seed: int) -> list[Subject]:
    """Networks whose centered EP is of second order."""
    from hardware_models.fitzhugh_nagumo import FitzHughNagumoChain
    from hardware_models.oscillators import OscillatorNetwork

    from .subjects import before_digits

    def layers(label: str, **options: Any) -> Subject:
        return before_digits(
            label,
            lambda n_in, n_out: OscillatorNetwork([n_in, 24, n_out], gain=0.5, seed=seed, **options),
            8,
        )

    return [
        layers("layers"),
        layers("detuned", frequency_spread=0.05),
        layers("injected", second_harmonic=0.2),
        _all_to_all("all to all", 0.5, 8, seed),
        before_digits("FitzHugh-Nagumo", lambda n_in, n_out: FitzHughNagumoChain([n_in, 40, n_out], seed=seed), 8),
    ]


def _phases_of_digits(seed: int) -> Subject:
    """Oscillators whose phases should be 90 degrees for the right class and -90 for others; only inputs hold them.

    As in a published code (Wang, Wanjura and Marquardt 2024), with normal couplings of variance 1 / n.
    """
    import torch

    from hardware_models.oscillators import OscillatorNetwork
    from physics_ep.cost import PhaseError

    from .subjects import Subject, before_digits

    def build(n_in: int, n_out: int) -> OscillatorNetwork:
        system = OscillatorNetwork([n_in, n_out], readout="phase", encoding="phase", span=1.0, field=0.0)
        weight = system.couplings.layers[0].weight
        draw = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        with torch.no_grad():
            weight.copy_(draw / math.sqrt(n_in + n_out))
        return system

    subject = before_digits("phases of 10 outputs, 8x8 digits", build, 20)
    return Subject(subject.label, subject.system, subject.x, math.pi * (subject.y - 0.5), PhaseError())


_OSCILLATORS = ("oscillator", "ising-oscillator")

OSCILLATOR_FIGURES: tuple[Entry, ...] = (
    Entry(
        "phases_on_circle",
        "phases of oscillators on the circle as they settle, free and nudged",
        _phases,
        _OSCILLATORS,
    ),
    Entry(
        "two_oscillators",
        "energy landscape of two oscillators, free and nudged paths, and a fold over beta",
        _pair,
        _OSCILLATORS,
    ),
    Entry(
        "locking", "locking against detuning, and order against coupling, on closed forms", _locking, _OSCILLATORS
    ),
    Entry(
        "oscillator_mapping",
        "a network on oscillators: units as clips, settling, mirror images, detuning left out",
        _mapping,
        _OSCILLATORS,
    ),
    Entry(
        "medium",
        "a travelling pulse, and a stationary state with its spectrum and the error of shooting",
        _medium,
        ("fitzhugh-nagumo",),
    ),
    Entry(
        "early_inference",
        "first movements of layers against backprop's errors, over time and in noise",
        _early,
        ("langevin-hopfield",),
    ),
    Entry(
        "branch_switch",
        "examples that leave their branch when nudged, and what they do to the gradient",
        _switches,
        _OSCILLATORS,
    ),
    Entry(
        "oscillator_error",
        "error of EP over beta: oscillators of all kinds, media, and two costs of phases",
        _errors,
        (*_OSCILLATORS, "fitzhugh-nagumo"),
    ),
)
"""Rows of the catalogue."""
