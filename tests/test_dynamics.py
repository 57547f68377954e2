"""Trajectories: if these fail, a figure shows a motion that the energy does not make."""

from __future__ import annotations

import math

import pytest
import torch

from physics_ep import Nudge, SquaredError, relax, simulate
from physics_ep.dynamics import TABLEAUS
from physics_ep.errors import InputError
from physics_ep.relaxation import flat

from .systems import Quartic, batch, network


@pytest.mark.parametrize("method", list(TABLEAUS))
def test_methods_reach_their_order_on_a_closed_form(method: str) -> None:
    """One linear unit relaxes as s(t) = a (1 - exp(-t)); the error falls as dt^order."""
    system = network("linear", (3, 2))
    x, _ = batch(3, 2, 1)
    layer = system.couplings[0]
    a = (x @ layer.weight.t() + layer.bias).detach()
    exact = a * (1 - math.exp(-2.0))
    errors = [
        float((simulate(system, x, 2.0, steps=n, method=method).state[0][-1] - exact).abs().max()) for n in (10, 40)
    ]
    assert abs(math.log(errors[0] / errors[1], 4) - TABLEAUS[method].order) < 0.25
    assert sum(TABLEAUS[method].weights) == pytest.approx(1)


@pytest.mark.parametrize("system", [network("tanh", (5, 6, 4, 3)), network("hard_sigmoid", (5, 6, 4, 3))])
def test_energy_falls_and_the_end_is_the_equilibrium(system) -> None:
    """Free and nudged: dF/dt <= 0 all along, and the limit is what `relax` finds."""
    x, y = batch(5, 3, 4)
    free = relax(system, x).require()
    for nudge, start in ((None, None), (Nudge(SquaredError(), y, 0.5), free.state)):
        course = simulate(system, x, 60.0, nudge, start)
        assert float((course.energy[1:] - course.energy[:-1]).max()) < 1e-12
        target = free if nudge is None else relax(system, x, nudge, free.state).require()
        end = tuple(s[-1] for s in course.state)
        assert float((flat(end) - flat(target.state)).abs().max()) < 1e-9


def test_a_users_system_is_simulated() -> None:
    """Gradient flow from `energy` alone."""
    system = Quartic()
    x, _ = batch(4, 2, 3)
    course = simulate(system, x, 60.0, steps=1800)
    free = relax(system, x).require()
    assert float((course.state[0][-1] - free.state[0]).abs().max()) < 1e-8
    assert float((course.energy[1:] - course.energy[:-1]).max()) < 1e-12


def test_settling_time_of_an_exponential() -> None:
    """The force falls as exp(-t): it stays under 1 % of its peak from ln 100 on."""
    course = simulate(network("linear", (3, 2)), batch(3, 2, 4)[0], 10.0, steps=2000)
    assert torch.allclose(course.settling_time, torch.full((4,), math.log(100), dtype=torch.float64), atol=0.01)
    short = simulate(network("linear", (3, 2)), batch(3, 2, 4)[0], 2.0)
    assert bool(short.settling_time.isnan().all())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"duration": -1.0}, "duration must be a positive number"),
        ({"duration": 5.0, "method": "rk5"}, "Did you mean 'rk4'"),
        ({"duration": 5.0, "steps": 0}, "steps must be an integer of at least 1"),
        ({"duration": 1e5, "steps": 300, "method": "euler"}, "steps must be more"),
    ],
)
def test_bad_options_are_told(options, words: str) -> None:
    """One line that names the argument; steps that are too long are told, not plotted."""
    with pytest.raises(InputError, match=words):
        simulate(network("linear", (3, 2)), batch(3, 2, 4)[0], **options)
