"""The default solver where copies err apart: the state that the course in time comes to, in fewer passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping import guided
from hardware_models.mapping.circuit import PairedCircuit
from hardware_models.mapping.phase import PairedPhase
from hardware_models.mapping.stability import certify
from physics_ep import Nudge, SquaredError, relax
from physics_ep.blocks import State
from physics_ep.predictive_coding import mlp

F64 = torch.float64
FIELDS: dict[str, dict[str, Any]] = {"hopfield": {"transpose": "array", "copy_mismatch_u": 0.03}}
CASES = [("hopfield", "tanh"), ("resistive", "relu"), ("oscillator", "hard_tanh")]


def a_network(
    substrate: str, activation: str, gain: float = 2.5, seed: int = 0, rows: int = 6, noise: float = 0.03
) -> tuple[PairedCircuit, torch.Tensor]:
    net = mlp([8, 16, 16, 4], activation, gain=gain, seed=seed).double()
    x = torch.rand(rows, 8, dtype=F64, generator=torch.Generator().manual_seed(seed))
    device = DeviceModel(copies="independent", programming_noise=noise, **FIELDS.get(substrate, {}))
    return map_pcn(net, substrate, device, seed=seed, calibration=x).system, x


def apart(a: State, b: State) -> torch.Tensor:
    """Largest difference of two states, (B,)."""
    return torch.stack([(p - q).flatten(1).abs().amax(1) for p, q in zip(a, b, strict=True)]).amax(0)


@pytest.mark.parametrize(("substrate", "activation"), CASES)
def test_the_state_that_the_course_comes_to_in_fewer_passes(substrate: str, activation: str) -> None:
    """Free and nudged. If it fails, the default solver finds another state than the circuit, or is no quicker."""
    system, x = a_network(substrate, activation)
    found = relax(system, x, tolerance=1e-10).require()
    followed = relax(system, x, solver="euler", tolerance=1e-10).require()
    assert (system.default_solver, found.solver) == ("guided", "guided")
    assert float(apart(found.state, followed.state).max()) < 1e-7
    assert found.iterations < 0.6 * followed.iterations
    assert found.time is None  # passes of algebra take no time of the circuit's
    if substrate == "oscillator":  # the same equations again
        return
    y = torch.zeros(len(x), 4, dtype=F64)
    ends = [
        relax(system, x, Nudge(SquaredError(), y, 1e-3), found.state, solver=s, tolerance=1e-9).require()
        for s in ("guided", "euler")
    ]
    states = [end.displacement for end in ends]
    assert states[0] is not None
    assert states[1] is not None
    size = max(float(b.abs().max()) for b in states[1])
    assert float(apart(states[0], states[1]).max()) < 1e-6 * size


def passing(rows: list[int]) -> tuple[PairedCircuit, torch.Tensor]:
    """A network, and inputs of which courses pass a state that they leave again: numbers 1, 4 and 15."""
    system, x = a_network("resistive", "hard_tanh", gain=3.5, seed=5, rows=16, noise=0.05)
    return system, x[rows]


def test_courses_that_pass_a_saddle_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, the default solver returns states that no circuit holds: without Arnoldi's method it does."""
    system, x = passing([4])
    assert certify(system, relax(system, x, tolerance=1e-9).require().state, x).verdict == ("stable",)
    monkeypatch.setattr(guided.Guided, "_dies_out", lambda self, nodes, rows: rows)
    assert certify(system, relax(system, x, tolerance=1e-9).require().state, x).verdict == ("unstable",)


@pytest.mark.slow
def test_courses_that_pass_a_saddle_end_as_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, states are stable, but not those of the circuit: without the linear test they are not."""
    system, x = passing([0, 1, 4, 15])
    followed = relax(system, x, solver="euler", tolerance=1e-9, max_iterations=20000).require()
    assert float(apart(relax(system, x, tolerance=1e-9).require().state, followed.state).max()) < 1e-6
    monkeypatch.setattr(guided, "LINEAR", 1e9)
    monkeypatch.setattr(guided, "UNSEEN", 1)  # a look at each step, so that a trial falls on the saddle
    assert float(apart(relax(system, x, tolerance=1e-9).require().state, followed.state).max()) > 0.1


def test_a_state_that_is_not_near_is_not_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, algebra may jump to any state. Where none is near the course in time alone is left."""
    system, x = a_network("resistive", "relu")
    monkeypatch.setattr(guided, "LINEAR", -1.0)
    left = relax(system, x, tolerance=1e-8).require()
    followed = relax(system, x, solver="euler", tolerance=1e-8).require()
    assert float(apart(left.state, followed.state).max()) < 1e-6
    assert left.iterations >= followed.iterations


@pytest.mark.parametrize(("substrate", "activation"), CASES[:2])
def test_iterations_are_passes_through_the_arrays(
    substrate: str, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pass reads the second layer's arrays once. If it fails, the count that is compared is another."""
    passes = 0
    read = PairedPhase.changes

    def counted(self: PairedPhase, k: int, moved: Any) -> Any:
        nonlocal passes
        passes += k == 1
        return read(self, k, moved)

    system, x = a_network(substrate, activation)
    monkeypatch.setattr(PairedPhase, "changes", counted)
    assert relax(system, x, tolerance=1e-9).require().iterations == passes


def test_an_example_that_does_not_settle_keeps_no_other_from_it() -> None:
    """One state is unstable. If it fails, the company decides what settles, or nothing is named."""
    net = mlp([4, 5, 4, 3], "tanh", seed=7, gain=4.0).double()
    x = torch.rand(4, 4, dtype=F64, generator=torch.Generator().manual_seed(7))
    device = DeviceModel(programming_noise=0.2, copy_mismatch_u=0.8, copy_mismatch_transpose=1.6)
    system = map_pcn(net, "hopfield", device, seed=7, calibration=x).system
    found = relax(system, x, tolerance=1e-9, max_iterations=150)
    settled = [relax(system, row[None], tolerance=1e-9, max_iterations=150) for row in x]
    assert found.converged.tolist() == [bool(alone.converged) for alone in settled]
    assert not bool(found.converged.all())
    assert "unstable" not in {
        v for v, there in zip(certify(system, found.state, x).verdict, found.converged, strict=True) if there
    }


def test_single_precision_and_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both end where float64 does. If it fails, large or short-worded phases have other states."""
    system, x = a_network("resistive", "relu")
    meant = relax(system, x).require()
    short = relax(system.float(), x.float()).require()
    assert float(apart(tuple(b.double() for b in short.state), meant.state).max()) < 5e-3
    monkeypatch.setattr(guided, "MEMORY", 0)
    in_time = relax(system.double(), x, tolerance=1e-8).require()
    assert in_time.iterations >= relax(system, x, solver="euler", tolerance=1e-8).iterations
