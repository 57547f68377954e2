"""Paired units as a Hopfield circuit: exact with ideal devices, and what each imperfection of the circuit does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.mapped import Mapped, NotRealisable
from physics_ep import CrossEntropy, Nudge, SquaredError, cli, relax
from physics_ep.blocks import largest
from physics_ep.equilibrium import NotConverged
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import EquilibriumPropagation, NegativeNudgeError
from physics_ep.landscape.stability import curvature_limit
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp, vgg5, vgg10_skip
from tests.support.pcn import biased, dense, examples
from tests.support.pcn_flows import decay, linearised
from validation.gradients import compare, total_error
from validation.oracles import backprop_gradient

TIGHT = {"tolerance": 1e-12, "on_unconverged": "warn"}


def unmapped(
    net: PredictiveCodingNetwork, x: torch.Tensor, y: torch.Tensor, beta: float
) -> dict[str, torch.Tensor]:
    """Centered EP on the network's own paired units, settled to rounding."""
    twin = PredictiveCodingNetwork(net.stack, "paired", net.gates)
    EquilibriumPropagation(CrossEntropy(), beta=beta, tolerance=1e-14, on_unconverged="warn").backward(twin, x, y)
    grads = {n: p.grad for n, p in twin.named_parameters()}
    for p in twin.parameters():
        p.grad = None
    return grads


def worst(estimate: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    """1 - the worst tensor's cosine."""
    return 1 - min(row.cosine for row in compare(estimate, exact))


@pytest.mark.filterwarnings("ignore::physics_ep.estimators.propagation.UnconvergedWarning")
@pytest.mark.parametrize("activation", ["tanh", "softplus", "relu"])
def test_ideal_circuit_is_the_network(activation: str) -> None:
    """If this fails, the construction is not exact: what is measured of imperfections has an error of its own."""
    net = dense(10, activation, width=128)
    x, y = examples(size=8)
    mapped = map_pcn(net, "hopfield")
    free = relax(mapped.system, x).require()
    with torch.no_grad():
        wanted = net(x)
    assert float((mapped.decode(free.state) - wanted).abs().max()) < 1e-9
    gradient = mapped.gradient(x, y, CrossEntropy(), beta=1e-3, **TIGHT)
    assert total_error(gradient, unmapped(net, x, y, 1e-3)) < 1e-9
    if activation != "relu":
        assert worst(gradient, backprop_gradient(net, x, y, CrossEntropy())) < 1e-9


def small_vgg(kind: str) -> tuple[PredictiveCodingNetwork, tuple[int, ...]]:
    if kind == "skip":
        net = vgg10_skip(num_classes=10, input_shape=(3, 32, 32), width=1 / 16, gain=6**0.5)
        return biased(net.double()), (3, 32, 32)
    net = vgg5(10, (3, 16, 16), width=1 / 32, pooling=kind, activation="tanh", gain=6**0.5)
    return biased(net.double()), (3, 16, 16)


@pytest.mark.filterwarnings("ignore::physics_ep.estimators.propagation.UnconvergedWarning")
@pytest.mark.parametrize("kind", ["max", "average", "skip"])
def test_convolutions_poolings_and_skips(kind: str) -> None:
    """If this fails, only dense networks are mapped as they are."""
    net, shape = small_vgg(kind)
    x, y = examples(shape, 4)
    mapped = map_pcn(net)
    gradient = mapped.gradient(x, y, CrossEntropy(), beta=1e-3, **TIGHT)
    assert total_error(gradient, unmapped(net, x, y, 1e-3)) < 1e-9
    assert worst(gradient, backprop_gradient(net, x, y, CrossEntropy())) < 1e-6


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_kirchhoff(activation: str) -> None:
    """If this fails, the equations are not those of a circuit: conductance pairs at virtual grounds, mirrored
    currents, RC nodes and amplifiers, node by node in volts and seconds, integrated by scipy, must settle to the
    same state."""
    device = DeviceModel(levels=32, programming_noise=0.05, time_constant=2e-6)
    net = dense(3, activation, width=6, n_in=4)
    x, _ = examples((4,), 1)
    y = torch.randn(1, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mapped = map_pcn(net, device=device, seed=3, gates="live")
    free = relax(mapped.system, x).require()
    beta = 0.05
    nudged = relax(mapped.system, x, Nudge(SquaredError(), y, beta), start=free.state, tolerance=1e-11).require()

    # One crossbar a layer with the cells' conductances; a transimpedance turns current into volts again.
    unit, g0 = 0.2, device.g_min
    arrays = []
    for k, layer in enumerate(mapped.system.stack):
        scale = mapped.system.scales[f"layers.{k}.weight"]
        w, b = (p.detach().numpy() for p in (layer.weight, layer.bias))
        arrays.append((g0 + np.maximum(w, 0) / scale, g0 + np.maximum(-w, 0) / scale, scale, b))
    sizes = [6, 6, 10]
    sigma = {"tanh": lambda v: unit * np.tanh(v / unit), "relu": lambda v: np.maximum(v, 0)}[activation]
    capacitance, leak = 2e-12, 1e6  # farad, ohm: 2 us
    source = unit * x.numpy()[0]

    def rate(_: float, v: np.ndarray) -> np.ndarray:
        p, q = (np.split(part, np.cumsum(sizes)[:-1]) for part in np.split(v, 2))
        h = [*(sigma(a) for a in p[:-1]), p[-1]]
        u = [*(sigma(a) for a in q[:-1]), q[-1]]
        below = [source, *h[:-1]]
        currents_p, currents_q = [], []
        for k, (plus, minus, scale, bias) in enumerate(arrays):
            drive = scale * (plus @ below[k] - minus @ below[k]) / leak + unit * bias / leak
            if k + 1 < len(arrays):
                up, down, s, _ = arrays[k + 1]
                back = s * (up.T @ (h[k + 1] - u[k + 1]) - down.T @ (h[k + 1] - u[k + 1])) / leak
            else:
                back = -beta * (h[k] - unit * y.numpy()[0]) / leak
            currents_p.append(drive + back - p[k] / leak)
            currents_q.append(drive - q[k] / leak)
        return np.concatenate(currents_p + currents_q) / capacitance

    settled = solve_ivp(rate, (0, 80 * 2e-6), np.zeros(2 * sum(sizes)), method="LSODA", rtol=1e-11, atol=1e-13).y[
        :, -1
    ]
    state = unit * torch.cat([s[0] for s in nudged.state]).numpy()
    np.testing.assert_allclose(settled, state, atol=1e-9)


def test_linearised_dynamics_are_nilpotent() -> None:
    """If this fails, errors do not run top down and predictions bottom up only, and a loop decides about
    settling."""
    net = dense(10, "tanh", width=32)
    jacobian = linearised(map_pcn(net), examples(size=1)[0])
    stage = jacobian + torch.eye(len(jacobian), dtype=torch.float64)
    assert float(torch.linalg.matrix_power(stage, 20).abs().max()) < 1e-12
    # A chain of 2 L - 1 stages: L errors from the top to the bottom, L - 1 predictions back up.
    assert float(torch.linalg.matrix_power(stage, 18).abs().max()) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "published"),
    [(2, 19), (5, 29), *(pytest.param(*given, marks=pytest.mark.full) for given in ((10, 44), (20, 72)))],
)
def test_settling_times(depth: int, published: int) -> None:
    """If this fails, the times of a fidelity report are not those of the circuit: a disturbance decays to 1e-6 as
    published (docs/physics.md, Settling time) at large gain, in some 16 to 21 time constants at small gain."""
    x, _ = examples(size=8)
    mapped = map_pcn(dense(depth, "softplus", width=128, gain=6**0.5))
    assert decay(mapped, x) == pytest.approx(published, rel=0.04)
    estimate = mapped.fidelity.nudged_settling_time / mapped.system.tau
    assert estimate == pytest.approx(published, rel=0.15)
    assert 15.5 <= decay(map_pcn(dense(depth, "softplus", width=128, gain=0.5)), x) <= 21


@pytest.mark.slow
def test_negative_limit() -> None:
    """If this fails, a nudge is refused that settles, or let through where the circuit runs away: F is bounded down
    to -beta = -1 / lambda_p exactly."""
    net = dense(4, "tanh", width=48)
    x, y = examples(size=1, cost=SquaredError())
    mapped = map_pcn(net)
    system = mapped.system
    free = relax(system, x).require()
    base = system.phase(system.prepare(x), origin=free.state, balanced=True)
    with torch.no_grad():
        limit = 1 / curvature_limit(system, base, free, SquaredError(), y, iterations=40)
    with pytest.raises(NegativeNudgeError, match="must be below"):
        mapped.gradient(x, y, SquaredError(), beta=1.02 * limit)
    # Near the limit and the free state: targets close by, so that what is linear decides.
    generator = torch.Generator().manual_seed(0)
    near = free.state[net.depth - 1] + 1e-7 * torch.randn(1, 10, generator=generator, dtype=torch.float64)

    def size(share: float, steps: int) -> float:
        nudge = Nudge(SquaredError(), near, -share * limit)
        found = relax(system, x, nudge, free.state, solver="flow", tolerance=1e-12, max_iterations=steps)
        return float(largest(found.displacement).max())

    def growth(share: float) -> float:
        first, second, third = (size(share, steps) for steps in (190, 290, 390))
        return (third - second) / (second - first)

    assert growth(0.97) < 0.9
    assert growth(1.03) > 1.1


def abscissa(mapped: Mapped, x: torch.Tensor) -> float:
    """Largest real part of the eigenvalues of the dynamics at the free state, per time constant."""
    return float(torch.linalg.eigvals(linearised(mapped, x)).real.max())


@pytest.mark.slow
def test_u_must_not_be_slower_than_h() -> None:
    """If this fails, the construction's tightest tolerance is missed: at depth 10 the free state is lost when u is
    2 to 5 % slower, and a slower u is refused a gradient, since nothing settles (docs/physics.md, u must not be
    slower than h)."""
    net = dense(10, "tanh", width=128, gain=6**0.5)
    x, y = examples(size=1)

    def circuit(mismatch: float) -> Mapped:
        return map_pcn(net, device=DeviceModel(time_constant_mismatch=mismatch))

    assert abscissa(circuit(0.02), x) < 0 < abscissa(circuit(0.05), x)
    slow, _ = circuit(-0.05).settling(x, Nudge(CrossEntropy(), y, 1e-5))
    equal, _ = circuit(0.0).settling(x, Nudge(CrossEntropy(), y, 1e-5))
    assert slow > 5 * equal
    with pytest.raises(NotConverged, match="free phase"):
        circuit(0.06).gradient(x, y, CrossEntropy(), beta=1e-5)


@pytest.mark.parametrize(
    ("copies", "mismatch", "low", "high"),
    [
        ((), 0.05, 1 - 1e-8, 1.0),
        (("transpose",), 0.01, 0.999, 0.9998),
        (("transpose",), 0.05, 0.97, 0.992),
        pytest.param(("h", "u", "transpose"), 0.01, 0.97, 0.99, marks=pytest.mark.full),
        pytest.param(("h", "u", "transpose"), 0.05, 0.5, 0.75, marks=pytest.mark.full),
    ],
)
def test_copies(copies: tuple[str, ...], mismatch: float, low: float, high: float) -> None:
    """If this fails, the damage of separate copies is not what was derived (docs/physics.md, One array, not three):
    one shared noisy array none, a separate transpose 0.9991 / 0.978, three copies 0.979 / 0.63."""
    net = dense(10, "tanh", width=128)
    x, y = examples(size=8)
    fields = {f"copy_mismatch_{c}": mismatch for c in copies} or {"programming_noise": mismatch}
    mapped = map_pcn(net, device=DeviceModel(g_min=1e-9, **fields))
    gradient = mapped.gradient(x, y, CrossEntropy(), beta=1e-3, tolerance=1e-5, method="energy")
    cosine = 1 - worst(gradient, backprop_gradient(mapped.perturbed, x, y, CrossEntropy()))
    assert low <= cosine <= high


@pytest.mark.slow
def test_three_copies_may_have_no_equilibrium() -> None:
    """If this fails, a state that is none is taken for one: ReLU, three copies, 1 %, large gain (docs/physics.md,
    One array, not three)."""
    device = DeviceModel(g_min=1e-9, copy_mismatch_h=0.01, copy_mismatch_u=0.01, copy_mismatch_transpose=0.01)
    x, y = examples(size=4)
    with pytest.raises(NotConverged, match="free phase"):
        map_pcn(dense(10, "relu", width=128, gain=6**0.5), device=device).gradient(x, y, CrossEntropy(), beta=1e-3)


def test_unmappable_layers() -> None:
    """If this fails, a network is built that no circuit holds, or the user is not told which layer is to blame."""
    with pytest.raises(NotRealisable, match=r"Layer 1 .* 'hopfield': its units can be relu.*, not gelu") as caught:
        map_pcn(dense(3, "gelu"))
    assert (caught.value.layer, caught.value.substrate) == (1, "hopfield")
    with pytest.raises(InputError, match="substrate"):
        map_pcn(dense(3), "hopfeild")
    with pytest.raises(InputError, match="device must be a DeviceModel"):
        map_pcn(dense(3), device={"levels": 4})  # type: ignore[arg-type]


def status(words: list[str]) -> int:
    """Exit status of a command."""
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    return int(caught.value.code or 0)


def test_map_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, the command's report is not that of the mapping, or bad input ends in a traceback."""
    out = tmp_path / "map.json"
    assert status(["map", "pcn", "--preset", "pcm", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["cells"] == 2 * sum(p.numel() for p in mlp([64, 128, 128, 10]).parameters())
    assert f"{found['cells']:,} in {found['tiles']} tiles" in printed
    assert found["device"]["source"] in printed.replace("\n", " ")
    assert found["conductance_range"] == [found["device"]["g_min"], pytest.approx(found["device"]["g_max"])]
    for words, message in (
        (["pcn", "--preset", "pcmm"], "Did you mean 'pcm'?"),
        (["hopfield"], "NETWORK must be a predictive coding network"),
        (["pcn", "--substrate", "hopfeild"], "substrate must be one of hopfield"),
        (["pcn", "--device-model", str(tmp_path / "none.json")], "none.json"),
    ):
        assert status(["map", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
