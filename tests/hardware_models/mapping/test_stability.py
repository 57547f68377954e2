"""The certificate of stability, against Jacobians assembled by differences of equations written anew."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping import stability
from hardware_models.mapping.mapped import Mapped
from hardware_models.mapping.stability import certify
from physics_ep import Nudge, SquaredError, relax
from physics_ep.blocks import keep
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp
from validation.references import free_state, of_equilibrium

Array = NDArray[np.float64]
SIZES = (4, 5, 4, 3)
DEPTH = 3
UNSTABLE = 7
"""A seed."""
SLOW = 1.3
"""Time constant of u over that of h."""
SEPARATE = DeviceModel(
    programming_noise=0.05,
    copy_mismatch_u=0.1,
    copy_mismatch_transpose=0.3,
    time_constant_mismatch=SLOW - 1,
)
CASES = {
    "hopfield": ("tanh", SEPARATE),
    "resistive": ("relu", replace(SEPARATE, diode_current=1e-8)),
    "oscillator": ("hard_tanh", SEPARATE),
}


def a_network(substrate: str, activation: str, device: DeviceModel, seed: int = 4) -> tuple[Mapped, torch.Tensor]:
    """Three layers on cells that all err apart, and two inputs."""
    net = mlp(list(SIZES), activation, seed=seed, gain=2.0).double()
    x = torch.rand(2, SIZES[0], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return map_pcn(net, substrate, device, seed=1, calibration=x), x


class Kirchhoff:
    """Currents at every node of a network of three layers, its own copy of each array, written anew.

    `sign` is that of what is fed back, `slow` the time constant of u: the planted errors are others.
    """

    def __init__(self, mapped: Mapped, sign: float = 1.0, slow: float = SLOW, beta: float = 0.0) -> None:
        system = mapped.system
        self.sign, self.slow, self.beta = sign, slow, beta
        self.target = np.zeros(SIZES[-1])
        arrays = {
            copy: [system.arrays(k, copy) for k in range(DEPTH)]  # type: ignore[arg-type]
            for copy in ("h", "u", "transpose")
        }
        self.weights = {c: [a.weight.detach().numpy() for a in rows] for c, rows in arrays.items()}
        self.biases = {
            c: [a.bias.detach().numpy() for a in rows if a.bias is not None] for c, rows in arrays.items()
        }
        pairs = zip(self.weights["h"], self.weights["transpose"], strict=True)
        assert all(np.abs(h - t).max() > 0.01 for h, t in pairs)  # cells of their own
        self.cuts = np.cumsum([*SIZES[1:], *SIZES[1:]])[:-1]

    def drives(self, h: list[Array], x: Array, copy: str) -> list[Array]:
        below = [x, *h[:-1]]
        rows = zip(self.weights[copy], below, self.biases[copy], strict=True)
        return [w @ v + b for w, v, b in rows]

    def back(self, h: list[Array], u: list[Array]) -> list[Array]:
        above = [self.sign * self.weights["transpose"][k].T @ (h[k] - u[k]) for k in range(1, DEPTH)]
        return [*above, -self.beta * (h[-1] - self.target)]

    def rates(self, w: Array, x: Array, read: Callable, speed: Callable) -> Array:
        xs = np.split(w, self.cuts)
        h, u = ([read(k, s, xs[s * DEPTH + k]) for k in range(DEPTH)] for s in (0, 1))
        into_h = [a + b for a, b in zip(self.drives(h, x, "h"), self.back(h, u), strict=True)]
        into_u = self.drives(h, x, "u")
        found = [speed(k, 0, xs[k], into_h[k]) for k in range(DEPTH)]
        found += [speed(k, 1, xs[DEPTH + k], into_u[k]) / self.slow for k in range(DEPTH)]
        return np.concatenate(found)


def differences(f: Callable[[Array], Array], at: Array, step: float = 1e-5) -> Array:
    """Jacobian by central differences of the fourth order."""
    columns = []
    for e in np.eye(len(at)) * step:
        columns.append((8 * (f(at + e) - f(at - e)) - (f(at + 2 * e) - f(at - 2 * e))) / (12 * step))
    return np.stack(columns, 1)


def rightmost(matrix: Array) -> complex:
    values = np.linalg.eigvals(matrix)
    return complex(values[np.argmax(values.real)])


def physics_of(mapped: Mapped, state: list[Array]) -> tuple[Callable, Callable, Array]:
    """What units put out and how fast they move, (layer, side, value[, current]); and the values at the state."""
    system, last = mapped.system, DEPTH - 1
    if mapped.substrate == "hopfield":  # RC nodes
        return (
            lambda k, s, v: v if k == last else np.tanh(v),
            lambda k, s, v, i: i - v,
            np.concatenate(state),
        )
    if mapped.substrate == "resistive":  # Shockley's law beside the node's conductance
        laws = [[system.diode_constants(k, side) for k in range(last)] for side in ("h", "u")]

        def current(k: int, s: int, v: Array) -> Array:
            if k == last:
                return 0.0 * v
            saturation, thermal = (np.asarray(c) for c in laws[s][k])
            return saturation * (np.exp(-v / thermal) - 1)

        values = [
            a.response(torch.as_tensor(p)).numpy()
            for a, p in zip((*system.amplifiers_h, *system.amplifiers_u), state, strict=True)
        ]
        return lambda k, s, v: v, lambda k, s, v, i: i - v + current(k, s, v), np.concatenate(values)
    ranges = [system.range(k) for k in range(DEPTH)]
    middle, half = [0.5 * (a + b) for a, b in ranges], [0.5 * (b - a) for a, b in ranges]
    phases = [np.arcsin(np.clip((p - middle[k % DEPTH]) / half[k % DEPTH], -1, 1)) for k, p in enumerate(state)]
    return (
        lambda k, s, a: middle[k] + half[k] * np.sin(a),
        lambda k, s, a, i: np.cos(a) * ((i - middle[k]) / half[k] - np.sin(a)),
        np.concatenate(phases),
    )


@pytest.mark.full
@pytest.mark.parametrize("substrate", list(CASES))
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_eigenvalues_are_those_of_kirchhoffs_equations(substrate: str, beta: float) -> None:
    """If it fails, verdicts are about another circuit. A sign of the feedback or a time constant that is wrong in
    either is seen."""
    mapped, x = a_network(substrate, *CASES[substrate])
    system = mapped.system
    system.gates = "live"
    free = relax(system, x, solver="newton", tolerance=1e-12).require().state
    state, nudge = free, None
    if beta:
        y = torch.zeros(2, SIZES[-1], dtype=torch.float64)
        nudge = Nudge(SquaredError(), y, beta=beta)
        state = relax(system, x, nudge, start=free, solver="newton", tolerance=1e-12).require().state
    found = certify(system, state, x, nudge, free if nudge else None)
    assert found.method == "dense"
    assert bool((found.radius < 0.05).all())
    seen = np.zeros(2, dtype=bool)
    for n in range(len(x)):
        one = [p[n].numpy() for p in state]
        read, speed, at = physics_of(mapped, one)
        own = Kirchhoff(mapped, beta=beta)

        def rates(w: Array, network: Kirchhoff = own, n: int = n) -> Array:
            return network.rates(w, x[n].numpy(), read, speed)  # noqa: B023

        assert np.abs(rates(at)).max() < 1e-9  # the state is one
        value = complex(found.eigenvalue[n])
        wanted = rightmost(differences(rates, at))
        assert abs(value.real - wanted.real) < 1e-6
        assert abs(abs(value.imag) - abs(wanted.imag)) < 1e-6
        sure = abs(wanted.real) > float(found.radius[n])
        assert found.verdict[n] == ("undecided" if not sure else "stable" if wanted.real < 0 else "unstable")
        for m, wrong in enumerate((Kirchhoff(mapped, -1.0, beta=beta), Kirchhoff(mapped, slow=1.0, beta=beta))):
            other = rightmost(differences(lambda w, net=wrong: rates(w, net), at))
            seen[m] |= abs(other - value) > 1e-3 and abs(other.conjugate() - value) > 1e-3
    assert seen.all()


def test_lagging_amplifiers_against_differences() -> None:
    """Amplifiers that follow with a lag have poles of their own: if it fails, they are left out of verdicts."""
    lag, more = 0.4, 0.5
    device = replace(SEPARATE, amplifier_lag=lag, amplifier_lag_mismatch=more)
    mapped, x = a_network("hopfield", "tanh", device)
    state = relax(mapped.system, x, solver="newton", tolerance=1e-12).require().state
    found = certify(mapped.system, state, x)
    own, hidden = Kirchhoff(mapped), sum(SIZES[1:-1])
    for n in range(len(x)):
        p = np.concatenate([b[n].numpy() for b in state])
        outputs = [np.tanh(v) for v in np.split(p, own.cuts)]
        h_at, u_at = np.concatenate(outputs[: DEPTH - 1]), np.concatenate(outputs[DEPTH : 2 * DEPTH - 1])

        def rates(w: Array, n: int = n, size: int = len(p)) -> Array:
            nodes, at_h, at_u = w[:size], w[size : size + hidden], w[size + hidden :]
            put = [np.split(v, np.cumsum(SIZES[1:-1])[:-1]) for v in (at_h, at_u)]

            def read(k: int, s: int, v: Array) -> Array:
                return v if k == DEPTH - 1 else put[s][k]

            rate = own.rates(nodes, x[n].numpy(), read, lambda k, s, v, i: i - v)
            whole = np.split(np.tanh(nodes), own.cuts)
            goal_h, goal_u = np.concatenate(whole[: DEPTH - 1]), np.concatenate(whole[DEPTH : 2 * DEPTH - 1])
            return np.concatenate([rate, (goal_h - at_h) / lag, (goal_u - at_u) / (lag * (1 + more))])

        at = np.concatenate([p, h_at, u_at])
        assert np.abs(rates(at)).max() < 1e-9
        wanted = rightmost(differences(rates, at))
        assert abs(complex(found.eigenvalue[n]).real - wanted.real) < 1e-6


@pytest.mark.parametrize("slot", [0.3, pytest.param(2.0, marks=pytest.mark.full)])
def test_slots_against_a_period_followed(slot: float) -> None:
    """Arrays read both ways in turn make a map of a period: its spectral radius against periods followed by scipy.
    If it fails, verdicts with slots are about another circuit."""
    mapped, x = a_network("hopfield", "tanh", SEPARATE)
    x = x[:1]
    state = relax(mapped.system, x, solver="newton", tolerance=1e-12).require().state
    found = certify(mapped.system, state, x, slot=slot)
    own = Kirchhoff(mapped)
    pace = np.repeat([1.0, 1 / SLOW], sum(SIZES[1:]))
    for n in range(len(x)):
        at, given = np.concatenate([b[n].numpy() for b in state]), x[n].numpy()

        def currents(w: Array, given: Array = given) -> tuple[Array, Array]:
            xs = np.split(w, own.cuts)
            put = [v if k % DEPTH == DEPTH - 1 else np.tanh(v) for k, v in enumerate(xs)]
            h, u = put[:DEPTH], put[DEPTH:]
            back = np.concatenate([*own.back(h, u), *(0 * v for v in u)])
            return np.concatenate([*own.drives(h, given, "h"), *own.drives(h, given, "u")]), back

        def period(start: Array, currents: Callable = currents) -> Array:
            _, held = currents(start)
            options = {"rtol": 1e-11, "atol": 1e-13}
            first = solve_ivp(lambda t, w: pace * (currents(w)[0] + held - w), (0, slot), start, **options)
            middle = first.y[:, -1]
            kept, _ = currents(middle)
            last = solve_ivp(lambda t, w: pace * (kept + currents(w)[1] - w), (0, slot), middle, **options)
            return last.y[:, -1]

        np.testing.assert_allclose(period(at), at, atol=1e-8)  # an equilibrium of slots, too
        radius = np.abs(np.linalg.eigvals(differences(period, at, 1e-3))).max()
        assert abs(float(found.eigenvalue[n].abs()) - radius) < 1e-5
        assert found.verdict[n] == ("stable" if radius < 1 else "unstable")


@pytest.mark.parametrize("depth", [3, pytest.param(24, marks=pytest.mark.full)])
def test_alike_copies_are_stable_by_construction_however_deep(depth: int) -> None:
    """The exact eigenvalue is -1 at any depth; what is computed of a nilpotent matrix is far off, and the radius
    must say so. If it fails, rounding is read as instability, or worse, is trusted."""
    net = mlp([12] * (depth + 1), "tanh", seed=2).double()
    x = torch.rand(1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    system = map_pcn(net, "hopfield", DeviceModel(copies="shared"), calibration=x).system
    state = relax(system, x).require().state
    found = certify(system, state, x)
    assert found.method == "construction"
    assert found.verdict == ("stable",)
    assert found.eigenvalue.real.item() == -1
    phase = system.phase(system.prepare(x), state)
    still = tuple(torch.zeros_like(b) for b in state)
    with torch.no_grad():
        computed = stability._Line(phase, state, still, None, False, None).rightmost()
    off = abs(complex(computed.value[0]) + 1)
    assert off <= float(computed.radius[0])
    assert depth < 24 or off > 0.1  # that is why


def test_arnoldis_method_finds_what_all_eigenvalues_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, verdicts of large networks are wrong."""
    for substrate, (activation, device) in CASES.items():
        mapped, x = a_network(substrate, activation, device)
        state = relax(mapped.system, x, solver="newton", tolerance=1e-12).require().state
        dense = certify(mapped.system, state, x)
        with monkeypatch.context() as patch:
            patch.setattr(stability, "DENSE", 0)
            found = certify(mapped.system, state, x)
        assert (dense.method, found.method) == ("dense", "arnoldi")
        # Known eigenvectors decide more, and nothing otherwise.
        assert all(a in (b, "undecided") for a, b in zip(found.verdict, dense.verdict, strict=True))
        torch.testing.assert_close(found.eigenvalue.real, dense.eigenvalue.real, rtol=0, atol=1e-7)
        assert bool((found.radius >= dense.radius).all())
        with monkeypatch.context() as patch:  # the radius of a chain, as if no eigenvectors were known
            patch.setattr(np.linalg, "cond", lambda frame: math.inf)
            chain = certify(mapped.system, state, x)
        torch.testing.assert_close(found.radius, chain.radius, rtol=0.1, atol=0)
        assert found.verdict == chain.verdict


def test_undecided_says_why() -> None:
    """A state that is none, and a rate too slow to be followed. If it fails, nobody learns why no verdict fell."""
    mapped, x = a_network("hopfield", "tanh", SEPARATE)
    system = mapped.system
    state = relax(system, x, solver="newton", tolerance=1e-12).require().state
    off = tuple(p + 0.01 for p in state)
    assert certify(system, off, x).reason == ("no state",) * 2
    assert certify(system, state, x, duration=0.01).reason == ("slow",) * 2
    told = certify(system, state, x)
    assert told.share("stable") + told.share("unstable") + told.share("undecided") == 1
    assert told.stable.tolist() == [v == "stable" for v in told.verdict]


def test_both_sides_of_a_kink_are_tried() -> None:
    """A ReLU that rests on its kink passes on one side only. Where u is driven by nothing, h feeds itself with the
    gain W^2 on that side, and its eigenvalue is W - 1, against -1 on the other. If it fails, kinks are decided by a
    convention."""
    for weight, verdict, reason in ((0.5, "stable", ""), (1.5, "undecided", "kink")):
        net = mlp([1, 1, 1], "relu", bias=False).double()
        with torch.no_grad():
            net.layers[0].weight.fill_(1.0)
            net.layers[1].weight.fill_(weight)
        x = torch.zeros(1, 1, dtype=torch.float64)
        device = DeviceModel(copy_mismatch_u=1e-9, copy_mismatch_transpose=1e-9)
        system = map_pcn(net, "hopfield", device, calibration=torch.ones_like(x)).system
        weights = system.arrays(1, "u").weight
        with torch.no_grad():
            weights.zero_()
        assert float(system.arrays(1, "u").weight.abs().max()) == 0
        assert float(system.arrays(1, "h").weight) == pytest.approx(weight)
        state = tuple(torch.zeros(1, 1, dtype=torch.float64) for _ in range(4))
        found = certify(system, state, x)
        assert found.verdict == (verdict,)
        assert found.reason == (reason,)
        assert float(found.eigenvalue.real) == pytest.approx(weight - 1, abs=1e-6)


@pytest.mark.parametrize("substrate", list(CASES))
def test_a_state_that_is_a_little_off_is_within_the_radius(substrate: str) -> None:
    """Where all eigenvectors are known the radius is that of rounding and of the state's residual. If it fails,
    verdicts are too sure of themselves, or nothing near the limit is decided."""
    mapped, x = a_network(substrate, *CASES[substrate])
    exact = relax(mapped.system, x, solver="newton", tolerance=1e-13).require().state
    meant = certify(mapped.system, exact, x)
    assert float(meant.radius.max()) < 1e-4
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        off = tuple(b + 1e-8 * torch.randn(b.shape, generator=generator, dtype=b.dtype) for b in exact)
        told = certify(mapped.system, off, x)
        assert bool(((told.eigenvalue - meant.eigenvalue).abs() <= told.radius + meant.radius).all())


def an_unstable_state() -> tuple[Mapped, torch.Tensor]:
    """A network whose free state algebra finds, and its own course leaves."""
    net = mlp(list(SIZES), "tanh", seed=UNSTABLE, gain=3.5).double()
    x = torch.rand(4, SIZES[0], dtype=torch.float64, generator=torch.Generator().manual_seed(UNSTABLE))
    device = DeviceModel(programming_noise=0.2, copy_mismatch_u=0.8, copy_mismatch_transpose=1.6)
    return map_pcn(net, "hopfield", device, seed=UNSTABLE, calibration=x), x


@pytest.mark.slow
def test_unstable_states_are_reported_and_do_not_count() -> None:
    """Algebra finds states that no circuit holds. If it fails, they are reported as free states that exist. Of the
    first example the circuit holds another state, which the default solver finds, and the report is of that."""
    mapped, x = an_unstable_state()
    mapped.system.default_max_iterations = 500  # where there is no state, more passes find none
    algebra = relax(mapped.system, x, solver="newton", tolerance=1e-10).require()
    told = certify(mapped.system, algebra.state, x)
    own = relax(mapped.system, x)
    there = own.residual <= 1e-6
    kept = certify(mapped.system, keep(there, own.state, algebra.state), x)
    assert (told.verdict[0], kept.verdict[0], bool(there[0])) == ("unstable", "stable", True)
    assert [v == "unstable" for v in kept.verdict] == (~there).tolist()
    followed = mapped.follow(x)
    assert (followed.solver, followed.found) == ("guided", int(there.sum()))
    assert followed.verdicts == kept.verdict
    assert followed.growth == pytest.approx(float(kept.eigenvalue.real.max()), abs=1e-6)
    assert mapped.fidelity.figures()["course"]["verdicts"] == kept.verdict
    labels = torch.zeros(4, dtype=torch.long)
    by_algebra = free_state(mapped, x, labels, solver="newton")
    assert by_algebra.solver == "newton"
    assert by_algebra.share == told.share("stable")
    assert by_algebra.undecided == told.share("undecided")
    assert of_equilibrium(mapped, algebra, x, labels) == by_algebra


def test_bad_arguments_are_named() -> None:
    mapped, x = a_network("hopfield", "tanh", SEPARATE)
    state = relax(mapped.system, x, solver="newton", tolerance=1e-12).require().state
    nudge = Nudge(SquaredError(), torch.zeros(2, 3, dtype=torch.float64), beta=0.1)
    for message, options in (
        ("Argument free must", {"nudge": nudge}),
        ("Argument slot must", {"slot": 0.0}),
        ("Argument duration must", {"duration": 0.0}),
    ):
        with pytest.raises(InputError, match=message):
            certify(mapped.system, state, x, **options)
    with pytest.raises(InputError, match="Argument state must"):
        certify(mapped.system, state[:2], x)


def test_a_certificate_does_not_depend_on_the_company() -> None:
    """Inputs of 0 put units h and u on their kinks, two sides each. If it fails, sides of one example are taken for
    another's."""
    net = mlp([3, 3, 2], "relu", seed=1).double()
    with torch.no_grad():
        net.stack[0].weight.copy_(torch.eye(3))
        for layer in net.stack:
            layer.bias.zero_()
    x = torch.tensor([[1.0, 0.5, 0.8], [0.7, 0.0, 0.9], [0.4, 0.0, 0.0], [0.2, 0.6, 0.1]], dtype=torch.float64)
    system = map_pcn(net, "hopfield", DeviceModel(time_constant_mismatch=0.3), calibration=x).system
    state = relax(system, x, solver="newton", tolerance=1e-9).require().state
    together = certify(system, state, x)
    products = []
    for n in range(len(x)):
        alone = certify(system, tuple(s[n : n + 1] for s in state), x[n : n + 1])
        assert (alone.verdict[0], alone.reason[0]) == (together.verdict[n], together.reason[n])
        assert complex(alone.eigenvalue[0]) == pytest.approx(complex(together.eigenvalue[n]), abs=1e-12)
        assert float(alone.radius[0]) == pytest.approx(float(together.radius[n]), rel=1e-6, abs=1e-14)
        products.append(alone.products)
    assert [n // products[0] for n in products] == [1, 4, 16, 1]
    assert together.products == products[2]
