"""Each substrate's own course in time, against its equations written anew and integrated by scipy."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import process_time

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.mapped import Mapped
from physics_ep import Nudge, SquaredError, relax
from physics_ep.predictive_coding import mlp
from tests.support.tiers import first

pytestmark = pytest.mark.full
"""For their processor time."""

Array = NDArray[np.float64]
Speed = Callable[[Array, Array], tuple[Array, Array]]
SIZES = (3, 4, 2)
TOLERANCE = 1e-6


def mapped_network(
    substrate: str, activation: str, device: DeviceModel, seed: int = 3
) -> tuple[Mapped, torch.Tensor]:
    """A network of three layers on cells of its own, and two inputs."""
    net = mlp(list(SIZES), activation, seed=seed).double()
    x = torch.rand(2, SIZES[0], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return map_pcn(net, substrate, device, seed=1, calibration=x), x


def cells(mapped: Mapped) -> dict[str, list[Array]]:
    """What the cells hold: weights to h and to u, weights that feed back, and biases of h and u."""
    system = mapped.system
    found: dict[str, list[Array]] = {}
    for copy in ("h", "u", "transpose"):
        arrays = [system.arrays(k, copy) for k in range(2)]  # type: ignore[arg-type]
        found[copy] = [a.weight.detach().numpy() for a in arrays]
        found[f"bias {copy}"] = [a.bias.detach().numpy() for a in arrays if a.bias is not None]
    return found


def course(
    mapped: Mapped,
    x: Array,
    read: Callable[[int, Array], Array],
    speed: Callable[[int, Array, Array], Array],
    start: Array,
    target: Array | None,
    beta: float,
    until: float,
) -> tuple[Array, Array]:
    """Times, and values (x_h1, x_h2, x_u1, x_u2), of one example by a method for stiff equations.

    Kirchhoff's current law at each node, and the phase equation of each pair, is dx/dt = speed(layer, x, current):
    the currents into h are W_h h + b_h + T^T (h - u), those into u W_u h + b_u, a nudge is -beta (h_L - y).
    """
    own, hidden, out = cells(mapped), SIZES[1], SIZES[2]

    def rates(_: float, w: Array) -> Array:
        xh, yh, xu, yu = np.split(w, [hidden, hidden + out, 2 * hidden + out])
        h, h_out, u_out = read(0, xh), read(1, yh), read(1, yu)
        pull = np.zeros(out) if target is None else -beta * (h_out - target)
        into_h = own["h"][0] @ x + own["bias h"][0] + own["transpose"][1].T @ (h_out - u_out)
        into_u = own["u"][0] @ x + own["bias u"][0]
        above_h, above_u = own["h"][1] @ h + own["bias h"][1] + pull, own["u"][1] @ h + own["bias u"][1]
        parts = (speed(0, xh, into_h), speed(1, yh, above_h), speed(0, xu, into_u), speed(1, yu, above_u))
        return np.concatenate(parts)

    found = solve_ivp(rates, (0.0, until), start, method="Radau", rtol=1e-9, atol=1e-12)
    assert found.success
    return found.t, found.y


def settled_after(times: Array, outputs: Array, current: Array) -> float:
    """When the largest distance of the outputs from their end is below the tolerance of the largest current."""
    away = np.abs(outputs - outputs[:, -1:]).max(0) / current
    return float(times[np.nonzero(away > TOLERANCE)[0][-1] + 1])


def compared(
    mapped: Mapped,
    x: torch.Tensor,
    read: Callable[[int, Array], Array],
    speed: Callable[[int, Array, Array], Array],
    start: Callable[[int], Array],
    until: float,
) -> None:
    """Hold the free and a nudged state of the substrate's flow, and its settling time, against scipy's."""
    system, hidden = mapped.system, SIZES[1]
    assert not system.shared  # else nothing is fed back in the free state
    free = relax(system, x, solver="flow", tolerance=1e-9).require()
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    nudge = Nudge(SquaredError(), y, beta=0.1)
    nudged = relax(system, x, nudge, start=free.state, solver="flow", tolerance=1e-9).require()
    sooner = relax(system, x, solver="flow", tolerance=TOLERANCE).require()
    assert sooner.time is not None
    for n in range(len(x)):
        one = x[n].numpy()
        times, values = course(mapped, one, read, speed, start(n), None, 0.0, until)
        ours = [a.response(p)[n].numpy() for a, p in zip(system.amplifiers_h, free.state[:2], strict=True)]
        outputs = np.concatenate([read(0, values[:hidden]), read(1, values[hidden : sum(SIZES[1:])])])
        np.testing.assert_allclose(outputs[:, -1], np.concatenate(ours), rtol=1e-7, atol=1e-8)
        _, moved = course(mapped, one, read, speed, values[:, -1], y[n].numpy(), 0.1, until)
        ends = np.concatenate([read(0, moved[:hidden, -1]), read(1, moved[hidden : sum(SIZES[1:]), -1])])
        theirs = [a.response(p)[n].numpy() for a, p in zip(system.amplifiers_h, nudged.state[:2], strict=True)]
        np.testing.assert_allclose(ends, np.concatenate(theirs), rtol=1e-7, atol=1e-8)
        assert np.abs(ends - outputs[:, -1]).max() > 1e-3  # the nudge is seen
        both = np.concatenate([read(0, values[:hidden]), read(1, values[hidden : sum(SIZES[1:])])])
        both = np.concatenate([both, read(0, values[sum(SIZES[1:]) : sum(SIZES[1:]) + hidden])])
        current = max(float(p[n].abs().max()) for p in free.state)
        end = settled_after(times, both, current)
        # Steps are known to a tenth of the time that has passed, and half a time constant.
        assert abs(float(sooner.time[n]) - end) <= 0.12 * end + 1.0


@pytest.mark.parametrize("activation", first(1, ["relu", "hard_tanh"]))
def test_oscillators_settle_as_their_phase_equations_do(activation: str) -> None:
    """Pairs turn as da/dt = cos a (p - v) / r; a wrong step or clock leads to other ends or other times."""
    device = DeviceModel(copies="independent", programming_noise=0.03)
    mapped, x = mapped_network("oscillator", activation, device)
    ranges = [mapped.system.range(k) for k in range(2)]  # type: ignore[operator]
    middle = [0.5 * (lo + hi) for lo, hi in ranges]
    radius = [0.5 * (hi - lo) for lo, hi in ranges]

    def read(k: int, a: Array) -> Array:
        return middle[k] + radius[k] * np.sin(a)

    def speed(k: int, a: Array, current: Array) -> Array:
        return np.cos(a) * (current - read(k, a)) / radius[k]

    rest = mapped.system.rest_state(x)

    def start(n: int) -> Array:
        ends = [(c[n].numpy() - middle[k % 2]) / radius[k % 2] for k, c in enumerate(rest)]
        return np.concatenate([np.arcsin(np.clip(e, -1, 1)) for e in ends])

    compared(mapped, x, read, speed, start, until=1e5)


@pytest.mark.parametrize("volts", first(1, [0.2, 20.0]))
def test_real_diodes_settle_as_kirchhoff_says(volts: float) -> None:
    """A node obeys C dv/dt = G (p - v) + Is (exp(-v / VT) - 1); stiff at 20 V, where explicit steps stall."""
    device = DeviceModel(copies="independent", programming_noise=0.03, diode_current=1e-9, voltage=volts)
    mapped, x = mapped_network("resistive", "relu", device)
    system = mapped.system
    (s_h, t_h), (s_u, t_u) = (system.diode_constants(0, side) for side in ("h", "u"))  # type: ignore[operator]
    assert (s_h, t_h) == (s_u, t_u)
    # Shockley's law in volts and amperes, of the values that the device was given.
    own = volts / system.full_scales[1]
    assert t_h == pytest.approx(0.02585 / own, rel=1e-2)
    assert s_h == pytest.approx(1e-9 / (system.total[0] * own))  # type: ignore[index]

    def speed(k: int, v: Array, current: Array) -> Array:
        diode = s_h * np.expm1(-v / t_h) if k == 0 else 0.0
        return current - v + diode

    compared(mapped, x, lambda k, v: v, speed, lambda n: np.zeros(2 * sum(SIZES[1:])), until=200.0)


def test_hopfield_nodes_settle_as_kirchhoff_says() -> None:
    """A node obeys tau dp/dt = current - p, read by an amplifier tanh."""
    device = DeviceModel(copy_mismatch_u=0.03, transpose="array", programming_noise=0.01)
    mapped, x = mapped_network("hopfield", "tanh", device)

    def speed(k: int, p: Array, current: Array) -> Array:
        return current - p

    compared(
        mapped, x, lambda k, p: np.tanh(p) if k == 0 else p, speed, lambda n: np.zeros(2 * sum(SIZES[1:])), 200.0
    )


@pytest.mark.full
@pytest.mark.parametrize("blank", [False, True])
def test_oscillators_at_their_thresholds_settle_in_time(blank: bool) -> None:
    """Units at a threshold take thousands of time constants; explicit steps would leave them unsettled for minutes.

    A blank input without biases puts all units exactly at their threshold, where a value nears its end as 1 / t.
    """
    net = mlp([20, 32, 10], "relu", seed=0).double()
    generator = torch.Generator().manual_seed(7)
    x = torch.rand(8, 20, dtype=torch.float64, generator=generator)
    if blank:
        for layer in net.stack:
            assert layer.bias is not None
            torch.nn.init.zeros_(layer.bias)
    device = DeviceModel(copies="independent", programming_noise=0.01)
    system = map_pcn(net, "oscillator", device, calibration=x).system
    if blank:
        x[:4] = 0.0
    began = process_time()
    found = relax(system, x, solver="flow", tolerance=TOLERANCE).require()
    assert process_time() - began < 5
    assert found.time is not None
    assert float(found.time.max()) > 1000  # of which explicit steps need thousands
    exact = relax(system, x, solver="sweep", tolerance=1e-9, max_iterations=2000).require()
    for amplifiers, p, q in zip(system.amplifiers_h, found.state, exact.state, strict=False):
        assert float((amplifiers.response(p) - amplifiers.response(q)).abs().max()) < 1e-5


def test_reports_say_how_a_state_was_found() -> None:
    """A report names solver, verdict and the distance of algebra from the dynamics, or says "not tried"."""
    device = DeviceModel(copies="independent", programming_noise=0.01)
    mapped, x = mapped_network("resistive", "hard_tanh", device)
    before = mapped.fidelity
    assert (before.settles, before.stable) == ("not tried", None)
    assert math.isnan(before.eigenvalue)
    course = mapped.follow(x)
    assert (course.settles, course.followed, course.settled, course.solver) == ("yes", 2, 2, "guided")
    found = mapped.fidelity
    assert (found.settles, found.figures()["settles"], found.course) == ("yes", "yes", course)
    assert found.stable is found.figures()["stable"] is True
    assert found.eigenvalue < 0
    ends = [relax(mapped.system, x, solver=s, tolerance=t).require() for s, t in (("guided", None), ("flow", 1e-6))]
    apart = [
        float((unit.response(p) - unit.response(q)).abs().max()) / full
        for unit, full, p, q in zip(
            mapped.system.amplifiers_h, mapped.system.full_scales[1:], *(e.state for e in ends), strict=False
        )
    ]
    assert course.gap == pytest.approx(max(apart), rel=1e-9)
    assert 0 < course.gap < 1e-4
    assert ends[1].time is not None
    assert course.seconds == pytest.approx(float(ends[1].time.max()) * mapped.system.tau)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "gain", "seed", "rows"),
    [("relu", 2.5, 1, 8), pytest.param("hard_tanh", 3.5, 5, 16, marks=pytest.mark.full)],
)
def test_reports_compare_the_states_of_the_default_solver(
    activation: str, gain: float, seed: int, rows: int
) -> None:
    """Algebra alone finds another state than the circuit comes to, of the second network one that no circuit holds.
    If it fails, a report certifies and compares states that none of its other figures, and no gradient, is of."""
    net = mlp([8, 16, 16, 4], activation, gain=gain, seed=seed).double()
    x = torch.rand(rows, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    mapped = map_pcn(net, "resistive", DeviceModel(programming_noise=0.05), seed=seed, calibration=x)
    x = x[[4]]
    own, other = (relax(mapped.system, x, solver=s, tolerance=1e-6).require() for s in ("guided", "newton"))
    assert max(float((p - q).abs().max()) for p, q in zip(own.state, other.state, strict=True)) > 0.1
    course = mapped.follow(x)
    assert (course.solver, course.settles, course.verdicts) == (mapped.fidelity.solver, "yes", ("stable",))
    assert course.gap < 1e-4


@pytest.mark.full
def test_what_does_not_settle_is_named() -> None:
    """Where u is slower than h a deep circuit has no stable free state, though algebra finds one: a report that
    told only the algebra would call it settled."""
    net = mlp([4, 8, 8, 8, 8, 8, 8, 3], "tanh", gain=3.0, seed=0).double()
    x = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mapped = map_pcn(net, "hopfield", DeviceModel(time_constant_mismatch=0.5), calibration=x)
    assert bool(relax(mapped.system, x, solver="sweep").converged.all())
    course = mapped.follow(x)
    assert course.settles == "no"
    assert course.settled + len(course.unsettled) == course.followed == 3
    assert mapped.system.default_solver == "flow"
    assert mapped.fidelity.stable is False
    assert mapped.fidelity.eigenvalue > 0
    assert not bool(relax(mapped.system, x).converged.all())
