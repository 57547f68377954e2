"""What a step reads of a device: few numbers, and never at the price of an error that the CPU would have told."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hardware_models import HopfieldNetwork, ResistiveNetwork
from physics_ep import CrossEntropy, EquilibriumPropagation, SquaredError, reads
from physics_ep.estimators.propagation import WARY
from physics_ep.predictive_coding import mlp, vgg10
from physics_ep.system import EnergySystem
from tests.support.simulated_gpu import SimulatedGpu
from tests.support.tiers import first

Case = tuple[EnergySystem, torch.Tensor, torch.Tensor, EquilibriumPropagation]


def hopfield(**options: Any) -> Case:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(4, 8, generator=generator), torch.eye(10)[:4]
    return HopfieldNetwork([8, 6, 10]), x, y, EquilibriumPropagation(SquaredError(), beta=0.05, **options)


def pcn(**options: Any) -> Case:
    x, labels = torch.rand(4, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    ep = EquilibriumPropagation(CrossEntropy(), beta=0.05, **options)
    return mlp([8, 16, 16, 10], activation="relu"), x, labels, ep


def images() -> Case:
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ep = EquilibriumPropagation(CrossEntropy(), beta="auto")
    return vgg10(10, (3, 32, 32), width=1 / 32), x, torch.arange(4), ep


def resistive(**options: Any) -> Case:
    return ResistiveNetwork([8, 6, 10], scale=1.0), *hopfield(**options)[1:]


def with_entry(which: int, value: float, make: Callable[..., Case] = hopfield, **options: Any) -> Case:
    """A case with one entry of x (1), y (2) or the first parameter (0) replaced."""
    case = make(**options)
    with torch.no_grad():
        tensor = next(case[0].parameters()) if which == 0 else case[which]
        assert isinstance(tensor, torch.Tensor)
        tensor.view(-1)[0] = value
    return case


def at_rest(**options: Any) -> Case:
    """Targets that the free phase has reached: nothing pulls."""
    system, x, y, ep = hopfield(**options)
    return system, x, ep.backward(system, x, y).outputs.clone(), ep


UNLIKELY: dict[str, Callable[[], Case]] = {
    "an input is NaN": lambda: with_entry(1, math.nan),
    "an image is infinite": lambda: with_entry(1, math.inf, images),
    "a target is NaN": lambda: with_entry(2, math.nan),
    "a label is too large": lambda: with_entry(2, 10, pcn),
    "a label is negative": lambda: with_entry(2, -1, pcn),
    "a weight is NaN": lambda: with_entry(0, math.nan),
    "a weight of a forward pass is NaN": lambda: with_entry(0, math.nan, pcn),
    "a weight is NaN, and the batch is left out": lambda: with_entry(0, math.nan, pcn, on_unconverged="warn"),
    "an input is huge": lambda: with_entry(1, 1e30),
    "nothing pulls": at_rest,
    "nothing pulls, and signs are drawn": lambda: at_rest(scheme="random"),
    "rest is good enough": lambda: pcn(tolerance=2.0),
    "few iterations": lambda: hopfield(max_iterations=2),
    "few iterations are accepted": lambda: hopfield(max_iterations=2, on_unconverged="warn"),
    "conductances are NaN": lambda: with_entry(0, math.nan, resistive),
}


def outcome(case: Case, device: str) -> tuple[Any, ...]:
    """What a step ends in: gradients and what the step tells, or the error."""
    system, x, y, ep = case
    system.to(device).zero_grad()
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            step = ep.backward(system, x.to(device), y.to(device))
    except Exception as error:
        return type(error), str(error)
    grads = [None if p.grad is None else p.grad.cpu() for p in system.parameters()]
    told = [(e.iterations, e.status, e.residual.cpu().tolist()) for e in step.equilibria]
    return str(grads), str(step.loss.cpu()), step.skipped, str(told)


@pytest.mark.parametrize("case", first(6, UNLIKELY))
def test_what_is_assumed_is_looked_at(gpu: SimulatedGpu, case: str) -> None:
    """If something assumed were never read, a step on a device would end in a number where the CPU has an error."""
    assert outcome(UNLIKELY[case](), "cuda") == outcome(UNLIKELY[case](), "cpu")


@pytest.mark.parametrize(
    ("make", "most"), [(images, 6), (pcn, 6), (hopfield, 12)], ids=["vgg10", "mlp", "hopfield"]
)
def test_a_step_waits_for_the_device_a_few_times(gpu: SimulatedGpu, make: Callable[[], Case], most: int) -> None:
    """A wait more a sweep or a step leaves a GPU idle, and no test of numbers would notice."""
    system, x, y, ep = make()
    system, x, y = system.to("cuda"), x.to("cuda"), y.to("cuda")
    ep.backward(system, x, y)
    with gpu.counting() as counts:
        ep.backward(system, x, y)
    assert counts.waited <= most, counts.table()


def test_after_a_surprise_steps_are_not_done_twice(gpu: SimulatedGpu) -> None:
    """Where the unlikely is the rule, a second pass a step would double the time of training."""
    system, x, y, ep = pcn(tolerance=2.0)
    system, x, y = system.to("cuda"), x.to("cuda"), y.to("cuda")
    launches = []
    for _ in range(3):
        with gpu.counting() as counts:
            ep.backward(system, x, y)
        launches.append(counts.launches)
    assert launches[0] > 1.5 * launches[1]
    assert launches[1] == launches[2]
    assert ep._wary == WARY - 2


def test_assumptions_are_read_together_and_in_front_of_other_errors(gpu: SimulatedGpu) -> None:
    """One wait for all of them; and an error that follows from a wrong one is not the one to be told."""
    yes = torch.ones((), device="cuda") > 0
    with gpu.counting() as counts, reads.assuming():
        assert reads.likely(yes)
        assert reads.likely(~yes == yes) is True
        assert reads.likely(yes)
        assert counts.waited == 0
        with pytest.raises(reads.Surprise):
            reads.read(torch.ones((), device="cuda"))
        assert reads.read(torch.full((), 3.0, device="cuda"), torch.full((), 2, device="cuda")) == [3.0, 2.0]
        assert counts.waited == 2
    assert counts.waited == 2

    def fail(flag: torch.Tensor) -> None:
        with reads.assuming():
            reads.likely(flag)
            raise ValueError("told")

    with pytest.raises(reads.Surprise):
        fail(~yes)
    with pytest.raises(ValueError, match="told"):
        fail(yes)
    assert not reads.likely(~yes)  # outside, each flag is read at once


def test_on_the_cpu_nothing_is_assumed() -> None:
    """There a number costs nothing, and an error comes where its cause is."""
    with reads.assuming():
        assert not reads.likely(torch.tensor(False))
        assert not reads.needed(torch.tensor(False))
        assert not reads.trusting(torch.device("cpu"))
