"""The convolutional substrate: if these fail, its energy, updates or learning rule are not the published ones."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from hardware_models import ConvHopfieldNetwork, HopfieldNetwork
from hardware_models.layers import couplings
from physics_ep import (
    CrossEntropy,
    EquilibriumPropagation,
    Nudge,
    SquaredError,
    centered,
    maps,
    positive,
    relax,
)
from physics_ep.blocks import flat
from physics_ep.cli import main
from physics_ep.cost import Cost
from physics_ep.errors import InputError
from validation import bptt_gradient, check_system, implicit_gradient
from validation.benchmarks import conv_hopfield
from validation.gradients import estimate_gradient, total_error

KINDS = [("average", "tanh"), ("average", "hard_sigmoid"), ("max", "logistic"), ("max", "hard_sigmoid")]


def images(shape: tuple[int, ...] = (2, 9, 8), n_out: int = 3, size: int = 4, seed: int = 0):
    """Random images and targets in float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(size, *shape, generator=generator, dtype=torch.float64)
    return x, torch.rand(size, n_out, generator=generator, dtype=torch.float64)


def network(
    pooling: str = "average",
    activation: str = "tanh",
    shape: tuple[int, ...] = (2, 9, 8),
    channels: tuple[int, ...] = (4, 5),
    n_out: int = 3,
    **options,
) -> ConvHopfieldNetwork:
    """A float64 network with biases that are not zero; by default an odd side, so that pooling drops a row."""
    options = {"gain": 1.0, **options}
    system = ConvHopfieldNetwork(shape, channels, n_out, activation, pooling=pooling, **options).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for layer in system.couplings:
            layer.bias.copy_(0.1 + 0.2 * torch.rand(layer.bias.shape, generator=generator, dtype=torch.float64))
    return system


def random_state(system: ConvHopfieldNetwork, batch: int, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(batch, *s, generator=generator, dtype=torch.float64) for s in system.shapes[1:])


def plain_pooled(w: torch.Tensor, s: torch.Tensor, pooling: str | None) -> torch.Tensor:
    """P(w * s) of one image (C, H, W), entry by entry."""
    n, m, size = w.shape[0], w.shape[1], w.shape[-1]
    rows, columns = s.shape[1:]
    maps = torch.zeros(n, rows, columns, dtype=s.dtype)
    for o, i, r, c in itertools.product(range(n), range(m), range(rows), range(columns)):
        for u, v in itertools.product(range(size), range(size)):
            y, x = r + u - size // 2, c + v - size // 2
            if 0 <= y < rows and 0 <= x < columns:
                maps[o, r, c] += w[o, i, u, v] * s[i, y, x]
    if pooling is None:
        return maps
    pooled = torch.zeros(n, rows // 2, columns // 2, dtype=s.dtype)
    for o, r, c in itertools.product(range(n), range(rows // 2), range(columns // 2)):
        window = maps[o, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2]
        pooled[o, r, c] = window.mean() if pooling == "average" else window.max()
    return pooled


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("pool_after", [None, [2], []])
def test_energy_is_the_published_one(pooling: str, pool_after: list[int] | None) -> None:
    """1/2 |s|^2 - sum s_{k+1} . P(w_k * s_k) - b . s (literature.md section 6), in plain loops over entries."""
    system = network(pooling, "hard_sigmoid", (2, 5, 4), (3, 2), pool_after=pool_after)
    x, _ = images((2, 5, 4), size=1)
    state = random_state(system, 1)
    total, below = 0.0, x[0]
    with torch.no_grad():
        for k, (layer, s) in enumerate(zip(system.couplings, state, strict=True)):
            if k < 2:
                kind = pooling if pool_after is None or k + 1 in pool_after else None
                drive = plain_pooled(layer.weight, below, kind) + layer.bias[:, None, None]
            else:
                drive = layer.weight @ below.flatten() + layer.bias
            total += float(0.5 * s[0].square().sum() - (s[0] * drive).sum())
            below = s[0]
        assert float(system.energy(state, x)) == pytest.approx(total, abs=1e-12)


def toeplitz_matrix(w: torch.Tensor, pre: tuple[int, ...], post: tuple[int, ...]) -> torch.Tensor:
    """Matrix of convolution and average pooling, written from the kernel's entries."""
    size = w.shape[-1]
    entries = torch.zeros(*post, *pre, dtype=w.dtype)
    for r, c, down, right in itertools.product(range(post[1]), range(post[2]), range(2), range(2)):
        for u, v in itertools.product(range(size), range(size)):
            y, x = 2 * r + down + u - size // 2, 2 * c + right + v - size // 2
            if 0 <= y < pre[1] and 0 <= x < pre[2]:
                entries[:, r, c, :, y, x] += w[:, :, u, v] / 4
    return entries.flatten(3).flatten(0, 2)


def toeplitz(system: ConvHopfieldNetwork) -> HopfieldNetwork:
    """The dense network of the same couplings."""
    twin = HopfieldNetwork(system.sizes, system.activation).double()
    with torch.no_grad():
        for k, (layer, dense) in enumerate(zip(system.couplings, twin.couplings, strict=True)):
            pre, post = system.shapes[k], system.shapes[k + 1]
            weight, bias = layer.weight, layer.bias
            if len(post) > 1:
                weight, bias = toeplitz_matrix(weight, pre, post), bias[:, None, None].expand(post).flatten()
            dense.weight.copy_(weight)
            dense.bias.copy_(bias)
    return twin


@pytest.mark.parametrize("activation", ["tanh", "hard_sigmoid"])
def test_it_is_a_dense_network_with_a_toeplitz_matrix(activation: str) -> None:
    """States, energies, nudged displacements and gradients of both agree: kernels and pooling are fused rightly."""
    system = network("average", activation, (2, 5, 4), (3, 2), n_out=2)
    dense = toeplitz(system)
    x, y = images((2, 5, 4), 2)
    one, two = relax(system, x, tolerance=1e-13).require(), relax(dense, x.flatten(1), tolerance=1e-13).require()
    assert torch.allclose(flat(one.state), flat(two.state), atol=1e-10)
    assert torch.allclose(system.energy(one.state, x), dense.energy(two.state, x.flatten(1)), atol=1e-10)
    ep = EquilibriumPropagation(SquaredError(), beta=0.01, tolerance=1e-13)
    mine, step = estimate_gradient(ep, system, x, y)
    theirs, other = estimate_gradient(ep, dense, x.flatten(1), y)
    moved = [flat(s.equilibria[1].displacement) for s in (step, other)]
    assert torch.allclose(*moved, atol=1e-10)
    assert torch.allclose(mine["layers.2.weight"], theirs["layers.2.weight"], atol=1e-10)
    # An entry of the kernel moves all matrix entries made from it: its gradient is their sum, by the chain rule.
    for k in (0, 1):
        kernel = system.couplings[k].weight.detach().clone().requires_grad_()
        matrix = toeplitz_matrix(kernel, *system.shapes[k : k + 2])
        (chained,) = torch.autograd.grad((matrix * theirs[f"layers.{k}.weight"]).sum(), kernel)
        assert torch.allclose(mine[f"layers.{k}.weight"], chained, atol=1e-10)
        summed = theirs[f"layers.{k}.bias"].view(system.shapes[k + 1]).sum((1, 2))
        assert torch.allclose(mine[f"layers.{k}.bias"], summed, atol=1e-10)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("pooling", ["average", "max", None])
@pytest.mark.parametrize("size", [(6, 4), (7, 5)])
def test_transpose_is_the_adjoint(kernel_size: int, pooling: str | None, size: tuple[int, int]) -> None:
    """<W s, t> = <s, W^T t>, with the route of s where there is one; else the forces are not those of an energy."""
    generator = torch.Generator().manual_seed(0)
    layer = couplings.Convolution((3, *size), 4, kernel_size, pooling, 1.0, generator).double()
    s = torch.randn(2, *layer.pre, generator=generator, dtype=torch.float64)
    t = torch.randn(2, *layer.post, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        bound = layer.bound()
        value, route = bound.drive(s)
        assert (route is None) == (pooling != "max")
        assert torch.allclose(bound.forward(s, route), value - layer.bias[:, None, None], atol=1e-13)
        left = (bound.forward(s, route) * t).sum()
        right = (s * bound.transpose(t, route)).sum()
        other = torch.randn(s.shape, generator=generator, dtype=torch.float64)
        held = (bound.forward(other, route) * t).sum() - (other * bound.transpose(t, route)).sum()
    assert float(left) == pytest.approx(float(right), abs=1e-11)
    assert abs(float(held)) < 1e-11


@pytest.mark.parametrize(("pooling", "activation"), KINDS)
@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()], ids=["squared_error", "cross_entropy"])
def test_gradients_reach_their_order(pooling: str, activation: str, cost: Cost) -> None:
    """Against implicit differentiation of the energy by autograd (its true max pooling): O(beta^2), O(beta).

    In max pooling this fails if nudged phases follow new winners, or the contrast does not hold the old ones.
    """
    system = network(pooling, activation)
    x, y = images()
    if isinstance(cost, CrossEntropy):
        y = torch.tensor([0, 1, 2, 1])
    exact = implicit_gradient(system, x, y, cost)

    def error(scheme, beta: float) -> float:
        ep = EquilibriumPropagation(cost, scheme, beta, tolerance=1e-13)
        return total_error(estimate_gradient(ep, system, x, y)[0], exact)

    # Beyond the nearest kink of a hard sigmoid the order is lost (docs/findings.md): stay below it.
    wide, near = (1e-3, 1e-4) if activation == "hard_sigmoid" else (1e-2, 1e-3)
    for scheme, order in ((centered(), 2), (positive(), 1)):
        coarse, fine = error(scheme, wide), error(scheme, near)
        assert fine < (1e-4 if order == 2 else 1e-2)
        assert torch.log10(torch.tensor(coarse / fine)) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(("pooling", "activation"), KINDS)
def test_invariants_of_a_system(pooling: str, activation: str) -> None:
    """The public check: force and contrast against differences of the energy, nudged phases, order."""
    x, y = images()
    check_system(network(pooling, activation), x, y)


@pytest.mark.parametrize(("pooling", "activation"), KINDS)
@pytest.mark.parametrize("nudged", [False, True])
def test_energy_never_rises(pooling: str, activation: str, nudged: bool) -> None:
    """Each sweep minimises over layers and routes in turn; a rise means that an update is not exact."""
    system = network(pooling, activation, channels=(6, 6), gain=2.0)
    x, y = images(size=8)
    with torch.no_grad():
        # Strong couplings, so that winners change on the way.
        start = tuple(0.5 * s for s in random_state(system, 8))
        nudge = Nudge(SquaredError(), y, 0.5) if nudged else None
        found = relax(system, x, nudge, start, solver="coordinate", max_iterations=400, tolerance=1e-9, trace=True)
        energy = found.require().trace.energy
        assert float((energy[1:] - energy[:-1]).max()) <= 1e-12 * float(energy.abs().max())
        assert float((energy[-1] - energy[0]).max()) < -1e-2
        if pooling == "max":
            states = found.trace.state
            routes = [system.routes(tuple(s[k] for s in states), x)[1] for k in (0, -1)]
            assert not torch.equal(*routes), "no winner changed: the test shows nothing"


@pytest.mark.parametrize(("pooling", "activation"), KINDS)
@pytest.mark.parametrize("nudged", [False, True])
def test_residual_belongs_to_the_state(pooling: str, activation: str, nudged: bool) -> None:
    """At the state returned, s = sigma(drive) holds by autograd of the true energy to what the residual says."""
    system = network(pooling, activation, gain=1.5)
    x, y = images(size=8)
    nudge = Nudge(SquaredError(), y, 0.3) if nudged else None
    start = tuple(0.5 * s for s in random_state(system, 8))
    for budget in (1, 2, 3, 5, 100):
        for solver in ("coordinate", "anderson"):
            found = relax(system, x, nudge, start, solver=solver, max_iterations=budget, tolerance=1e-11)
            leaves = tuple(s.detach().requires_grad_() for s in found.state)
            total = system.energy(leaves, x) + (0 if nudge is None else nudge.energy(leaves[-1]))
            slopes = torch.autograd.grad(total.sum(), leaves)
            worst = torch.zeros(8, dtype=torch.float64)
            for s, slope, unit in zip(found.state, slopes, system.units, strict=True):
                # sigma(drive) - s, as drive = Psi'(s) - dE/ds; the nudged output's own form carries 1 + beta.
                gap = unit.response(unit.inverse(s) - slope) - s
                worst = torch.maximum(worst, gap.abs().flatten(1).amax(1))
            assert bool((worst <= 1.31 * found.residual + 1e-10).all())
    assert bool(found.converged.all())


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_a_sweep_does_the_work_it_must(pooling: str, monkeypatch) -> None:
    """One forward and one transpose of each inner convolution a sweep, none of the input's: no constant twice."""
    system = network(pooling, "hard_sigmoid", (1, 16, 16), (3, 4, 5))
    x, y = images((1, 16, 16))
    counts = {"conv2d": 0, "conv_transpose2d": 0}
    for name in counts:
        right = getattr(maps, name)

        def counted(*args, name=name, right=right):
            counts[name] += 1
            return right(*args)

        monkeypatch.setattr(maps, name, counted)

    def cost_of(phase, sweeps: int) -> tuple[int, int]:
        counts.update(conv2d=0, conv_transpose2d=0)
        u = phase.interface(phase.start())
        counts.update(conv2d=0, conv_transpose2d=0)
        for _ in range(sweeps):
            u, _, _ = phase.sweep(u)
        return counts["conv2d"], counts["conv_transpose2d"]

    with torch.no_grad():
        inputs = system.prepare(x)
        assert counts == {"conv2d": 1, "conv_transpose2d": 0}
        assert cost_of(system.phase(inputs), 7) == (7 * 2, 7 * 2)
        free = relax(system, x)
        base = system.phase(inputs, origin=free.state, balanced=True)
        stack = base.stacked([Nudge(SquaredError(), y, 0.1), Nudge(SquaredError(), y, -0.1)])
        first = 7 if pooling == "max" else 8  # drives at the origin, where no routes asked for them before ...
        assert cost_of(stack, 7) == (first * 2, first * 2)
        assert cost_of(stack, 7) == (7 * 2, 7 * 2)  # ... are kept


@pytest.mark.full
@pytest.mark.usefixtures("processor_time")
def test_an_iteration_costs_little_more_than_its_convolutions() -> None:
    """At most 2.2 times these alone: a copied image, a second convolution or a slow memory order would show."""
    best = float("inf")
    for _ in range(8):  # a busy machine may spoil some measurements, not all
        best = min(best, float(conv_hopfield.measure(repeats=2, iterations=8)["ratio"]))
        if best <= 2.2:
            break
    assert best <= 2.2


def test_stability_limit_is_the_schur_complement() -> None:
    """1 / lambda by a dense Hessian: beyond it a negative nudge has no minimum and is refused."""
    system = network("average", "linear", (2, 5, 4), (3, 2), n_out=2, gain=0.6)
    x, y = images((2, 5, 4), 2)
    free = relax(system, x).require()
    one = tuple(s[:1] for s in free.state)
    shapes = [s.shape for s in one]

    def energy(v: torch.Tensor) -> torch.Tensor:
        parts = v.split([s.numel() for s in one])
        return system.energy(tuple(p.view(s) for p, s in zip(parts, shapes, strict=True)), x[:1])[0]

    hessian = torch.autograd.functional.hessian(energy, flat(one)[0])
    response = torch.linalg.inv(hessian)[-2:, -2:]
    limit = 1 / float(torch.linalg.eigvalsh(response)[-1])
    ep = EquilibriumPropagation(SquaredError(), beta=0.5 * limit)
    ep.backward(system, x, y)
    assert ep.stability_limit == pytest.approx(limit, rel=1e-2)
    with pytest.raises(InputError, match="must be below"):
        EquilibriumPropagation(SquaredError(), beta=1.1 * limit).backward(system, x, y)


@pytest.mark.parametrize(("pooling", "activation"), KINDS)
def test_backprop_through_the_relaxation_agrees(pooling: str, activation: str) -> None:
    """Autograd follows the exact updates; at equilibrium it is implicit differentiation."""
    system = network(pooling, activation)
    x, y = images()
    exact = implicit_gradient(system, x, y, SquaredError())
    assert total_error(bptt_gradient(system, x, y, SquaredError(), iterations=80), exact) < 1e-8


@pytest.mark.parametrize("channels", [(3,), (3, 4), (3, 4, 3, 4, 3)])
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_any_depth(channels: tuple[int, ...], pooling: str) -> None:
    """One convolution or five, an odd and an even number of layers: the gradient is the implicit one."""
    pool_after = [1, 2] if len(channels) > 1 else [1]
    system = network(pooling, "hard_sigmoid", (1, 8, 8), channels, pool_after=pool_after)
    x, y = images((1, 8, 8))
    assert [tuple(s.shape[1:]) for s in relax(system, x).require().state] == list(system.shapes[1:])
    exact = implicit_gradient(system, x, y, SquaredError())
    ep = EquilibriumPropagation(SquaredError(), beta=1e-5, tolerance=1e-13)
    assert total_error(estimate_gradient(ep, system, x, y)[0], exact) < 1e-6


@pytest.mark.parametrize(("pooling", "activation"), KINDS)
def test_single_precision_agrees_with_double(pooling: str, activation: str) -> None:
    """Displacements are carried: in float32 at beta 1e-3 the gradient keeps its digits."""
    system = network(pooling, activation)
    x, y = images()
    wide, _ = estimate_gradient(EquilibriumPropagation(SquaredError(), beta=1e-3), system, x, y)
    ep = EquilibriumPropagation(SquaredError(), beta=1e-3)
    narrow, step = estimate_gradient(ep, system.float(), x.float(), y.float())
    assert all(g.dtype == torch.float32 for g in narrow.values())
    assert total_error(narrow, wide) < 2e-5
    assert step.noise_floor < 1e-4


@pytest.mark.parametrize("activation", ["tanh", "logistic"])
def test_complex_nudges_reach_order_four(activation: str) -> None:
    """Average pooling is analytic; max pooling is not, and is refused."""
    system = network("average", activation, gain=0.7)
    x, y = images()
    exact = implicit_gradient(system, x, y, SquaredError())

    def error(beta: float) -> float:
        ep = EquilibriumPropagation(SquaredError(), "holomorphic:4", beta, tolerance=1e-14)
        return total_error(estimate_gradient(ep, system, x, y)[0], exact)

    slope = torch.log10(torch.tensor(error(0.1) / error(0.02))) / torch.log10(torch.tensor(5.0))
    assert slope == pytest.approx(4, abs=0.2)
    with pytest.raises(InputError, match="analytic"):
        EquilibriumPropagation(SquaredError(), "holomorphic:4").backward(network("max", "logistic"), x, y)


def test_examples_do_not_see_their_batch() -> None:
    """Winners are an example's own, in stacked phases too."""
    system = network("max", "hard_sigmoid")
    x, y = images(size=6)
    ep = EquilibriumPropagation(SquaredError(), beta=0.01, tolerance=1e-13)
    together, _ = estimate_gradient(ep, system, x, y)
    alone = [estimate_gradient(ep, system, x[i : i + 1], y[i : i + 1])[0] for i in range(6)]
    for name, g in together.items():
        assert torch.allclose(g, torch.stack([a[name] for a in alone]).mean(0), atol=1e-9)


GOOD = {"input_shape": [1, 8, 8], "channels": [4, 6], "n_out": 10}
BAD = [
    ({"channels": [4, 0]}, "channels must be one or more positive integers"),
    ({"channels": []}, "channels must be one or more positive integers"),
    ({"input_shape": [1, 3, 8]}, "input_shape must have at least 4 rows and columns for its poolings"),
    ({"input_shape": [8, 8]}, "input_shape must be three positive integers"),
    ({"n_out": 0}, "n_out must be a positive integer"),
    ({"kernel_size": 4}, "kernel_size must be a positive odd integer"),
    ({"pooling": "maximum"}, "Did you mean 'max'"),
    ({"pool_after": [3]}, "pool_after must be different numbers of convolutions, from 1 to 2"),
    ({"pooling": "max", "activation": "tanh"}, "activation must be 'hard_sigmoid' or 'logistic' with max pooling"),
    ({"gain": 0.0}, "gain must be a positive number"),
    ({"activation": "relu"}, "activation must be one of"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_bad_arguments_are_told(change, words: str, tmp_path, capsys) -> None:
    """One line that names the argument, what it must be and what it was; the command ends with status 2."""
    options = {**GOOD, **change}
    with pytest.raises(InputError, match=words):
        ConvHopfieldNetwork(**options)
    config = tmp_path / "bad.toml"
    config.write_text(
        "[system]\nname = 'conv-hopfield'\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in options.items())
    )
    with pytest.raises(SystemExit) as stop:
        main(["gradients", str(config)])
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert words.split(" must ", maxsplit=1)[0] in told
    assert "Traceback" not in told


def test_bad_inputs_are_told() -> None:
    """A wrong image shape, a flat image, NaN or another dtype never reach the physics."""
    system = ConvHopfieldNetwork(**GOOD)
    for x in (torch.zeros(2, 1, 8, 9), torch.zeros(2, 64), torch.zeros(2, 3, 8, 8)):
        with pytest.raises(InputError, match=r"x must be a tensor \(batch, 1, 8, 8\)"):
            relax(system, x)
    with pytest.raises(InputError, match="x must be finite"):
        relax(system, torch.full((2, 1, 8, 8), float("nan")))
    with pytest.raises(InputError, match="dtype"):
        relax(system, torch.zeros(2, 1, 8, 8, dtype=torch.float64))


def test_same_seed_same_weights() -> None:
    """A run is repeatable."""
    one, two, other = (ConvHopfieldNetwork(**GOOD, seed=s) for s in (3, 3, 4))
    assert torch.equal(one.couplings[1].weight, two.couplings[1].weight)
    assert not torch.equal(one.couplings[1].weight, other.couplings[1].weight)
