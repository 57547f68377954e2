"""Residuals that a device is not asked for: what a relaxation ends in, and when, is what the CPU says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from hardware_models import DeviceModel, HopfieldNetwork, map_pcn
from physics_ep import CrossEntropy, Nudge, relax
from physics_ep.blocks import State
from physics_ep.equilibrium import Equilibrium
from physics_ep.predictive_coding import mlp
from physics_ep.reads import Surprise, assuming
from physics_ep.relaxation import Solver
from physics_ep.relaxation.loop import PATIENCE_AT_ROUNDING, Decline, solve
from physics_ep.system import Phase
from tests.support.simulated_gpu import Counts, SimulatedGpu

pytestmark = pytest.mark.full
"""For their processor time."""

TOLERANCE = 1e-6


class Scripted(Solver):
    """Residuals as they are written down: an example's next one comes where it is told to move."""

    steady = True

    def __init__(self, phase: Phase, table: torch.Tensor) -> None:
        self.table = table.to(phase.x)
        self.at = torch.zeros(len(table), 1, dtype=torch.long, device=phase.x.device)

    def evaluate(self) -> tuple[State, torch.Tensor]:
        self.spent += 1
        return (self.at.to(self.table),), self.table.gather(1, self.at)[:, 0]

    def advance(self, active: torch.Tensor) -> None:
        self.at = (self.at + active[:, None]).clamp(max=self.table.shape[1] - 1)


class ByScript(HopfieldNetwork):
    """A network whose only solver is `Scripted`."""

    default_solver = "scripted"
    table: torch.Tensor

    def solvers(self, phase: Phase) -> Any:
        return {"scripted": lambda phase, start: Scripted(phase, self.table)}


def relaxed(rows: list[list[float]], device: str, **options: Any) -> Equilibrium:
    """What a relaxation of these residuals, one row an example, ends in."""
    length = max(map(len, rows))
    system = ByScript([1, 1]).to(device)
    system.table = torch.tensor([row + row[-1:] * (length - len(row)) for row in rows])
    phase = system.phase(system.prepare(torch.ones(len(rows), 1, device=device)))
    with assuming():
        return solve(phase, tolerance=TOLERANCE, measure=False, **options)


def looks(counts: Counts) -> int:
    """Times that numbers were read in the loop."""
    return sum(times for (_, _, place), times in counts.waits.items() if "reads.py" in place)


def falling(by: float, length: int = 60) -> list[float]:
    return [by**k for k in range(length)]


QUICKENING = [1.0, 0.5, 0.25, 0.12, 1e-9]
SCRIPTS = {
    "steady": [falling(0.5)],
    "each its own": [falling(0.5), falling(0.1), falling(0.8, 90)],
    "quickening": [QUICKENING],
    "quickening, one of two": [QUICKENING, falling(0.7)],
    "at rest from the start": [[1e-9]],
    "after one": [[1.0, 1e-9]],
    "rising in between": [[1.0, 0.1, 0.5, 0.05, 0.6, 0.01, *falling(0.3)]],
    "at once, after a rise": [[1e-3, 1.0, 1e-7]],
    "stalled": [[1.0, 0.1, *[1e-2] * 2000]],
    "stalled at rounding": [[1.0, 1e-2, 1e-4, *[2e-6] * 200]],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_is_not_read_changes_nothing(gpu: SimulatedGpu, name: str) -> None:
    """Status, iterations, residuals and states are the CPU's: examples that have converged did not move on unread.

    It breaks where unread iterates are counted, or move what has converged, or hide that a residual has stalled.
    """
    here = relaxed(SCRIPTS[name], "cpu")
    with gpu.counting() as counts:
        there = relaxed(SCRIPTS[name], "cuda")
    assert there.status == here.status
    assert there.iterations == here.iterations
    assert torch.equal(there.residual.cpu().nan_to_num(9e9), here.residual.nan_to_num(9e9))
    for one, other in zip(here.state, there.state, strict=True):
        assert torch.equal(one, other.cpu())
    assert looks(counts) <= here.iterations + 1


@pytest.mark.parametrize("budget", [1, 2, 3, 7, 12])
def test_a_budget_ends_what_is_not_read(gpu: SimulatedGpu, budget: int) -> None:
    """No iterate is made beyond the budget, and the last one is judged."""
    for rows in ([falling(0.5)], [QUICKENING]):
        here, there = (relaxed(rows, device, max_iterations=budget) for device in ("cpu", "cuda"))
        assert (there.status, there.iterations) == (here.status, here.iterations)
        assert torch.equal(there.residual.cpu(), here.residual)


def test_what_breaks_unread_is_done_again(gpu: SimulatedGpu) -> None:
    """An infinite residual, or NaN, among those that nobody read: the caller does all of it again, and looks."""
    for rows in ([[1.0, 0.9, math.inf, *falling(0.9)], falling(0.9)], [[math.nan], falling(0.5)]):
        with pytest.raises(Surprise):
            relaxed(rows, "cuda")


def test_a_long_relaxation_waits_little(gpu: SimulatedGpu) -> None:
    """Where a residual falls by the same factor, its end is foreseen: 41 sweeps take a handful of looks."""
    with gpu.counting() as counts:
        found = relaxed([falling(0.7)], "cuda")
    assert found.iterations == 1 + math.ceil(math.log(TOLERANCE) / math.log(0.7)) == 40
    assert looks(counts) <= 7


def test_what_lies_ahead_is_the_least(gpu: SimulatedGpu) -> None:
    """Never an iterate that could converge at the fastest pace so far, nor more than were made, nor a stall."""
    for by in (0.9, 0.5, 0.03):
        course = Decline()
        for k in range(1, 40):
            course.add(by**k)
            ahead = course.ahead(TOLERANCE, k)
            assert 0 <= ahead < max(k, 1)
            assert ahead == 0 or by ** (k + ahead) > TOLERANCE
            if by**k <= TOLERANCE:
                break
    stuck = Decline()
    for k in range(1, 60):
        stuck.add(1.0 / min(k, 5))
        assert stuck.since + stuck.ahead(1e-30, 1000) < max(PATIENCE_AT_ROUNDING, stuck.since + 1)


def test_a_course_that_ends_by_algebra_is_asked_little(gpu: SimulatedGpu) -> None:
    """Circuits whose copies err apart, in float64: the CPU's state bit for bit, though few residuals are looked at.

    It breaks where a device steps, or tries algebra, at other residuals than the CPU does; a look at each step is
    a wait a step, 114 in a step of learning before this.
    """
    net = mlp([8, 16, 16, 4], activation="relu", gain=2.5).double()
    x = torch.rand(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    system = map_pcn(net, "resistive", DeviceModel(programming_noise=0.03), calibration=x).system
    here = relax(system, x).require()
    moved = system.to("cuda")
    with gpu.counting() as counts, assuming():
        phase = moved.phase(moved.prepare(x.to("cuda")))
        there = solve(phase).require()
    assert (here.solver, there.solver) == ("guided", "guided")
    for one, other in zip(here.state, there.state, strict=True):
        assert torch.equal(one, other.cpu())
    assert counts.waited < here.iterations / 2


def test_a_phase_on_a_device_is_looked_at_once(gpu: SimulatedGpu) -> None:
    """What must break a phase, and a device's queue, is the look that ends it.

    A state that has not moved is taken to be none, and that states are finite is told at the end of the step.
    """
    net = mlp([8, 16, 12, 10], activation="tanh").to("cuda")
    cost, x = CrossEntropy(), torch.rand(3, 8, generator=torch.Generator().manual_seed(0)).to("cuda")
    y = cost.encode(torch.arange(3), 10, torch.float32).to("cuda")
    with torch.no_grad():
        free = net.phase(net.prepare(x), origin=relax(net, x).state)
        phase = free.stacked([Nudge(cost, y, beta) for beta in (1e-3, -1e-3)])
        assert phase is not None
        with assuming(), gpu.counting() as counts:
            found = solve(phase)
    assert counts.waited == 1
    assert (found.iterations, found.converged.tolist()) == (2, [True] * 6)
