"""Passes of predictive coding networks: what is kept, shared or guessed to save them changes no result."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import conv2d, max_pool2d

from physics_ep import CrossEntropy, EquilibriumPropagation, Nudge, SquaredError, relax
from physics_ep.maps import ConvLink
from physics_ep.pooling import channels_last
from physics_ep.predictive_coding import vgg5
from physics_ep.predictive_coding.activations import ACTIVATIONS, Activation, TanhAnchor
from physics_ep.predictive_coding.solvers import LinearSpace
from physics_ep.relaxation.loop import solve
from physics_ep.units import UNITS
from tests.support.pcn import biased, counted_rows, dense, examples
from validation.gradients import estimate_gradient, total_error

COSTS = [CrossEntropy(), SquaredError()]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_anchored_activations(name: str) -> None:
    """Shift and slope from an anchor are those of the activation, for stacked batches, in saturation too; the
    curvature is the slope's derivative."""
    unit = ACTIVATIONS[name]
    a = torch.linspace(-6, 6, 97, dtype=torch.float64).view(1, -1)
    d = torch.cat([torch.full_like(a, v) for v in (-3.0, -1e-3, 1e-7, 0.4, 2.5)])
    anchor = unit.at(a)
    shift, slope = anchor.moved(d)
    torch.testing.assert_close(shift, unit.displaced(a.expand_as(d), d), atol=1e-14, rtol=1e-11)
    torch.testing.assert_close(slope, unit.slope(a + d), atol=1e-14, rtol=1e-10)
    torch.testing.assert_close(anchor.slope, unit.slope(a), atol=1e-15, rtol=1e-12)
    curvature = anchor.curvature()
    if curvature is not None:
        differences = (unit.slope(a + 1e-5) - unit.slope(a - 1e-5)) / 2e-5
        torch.testing.assert_close(curvature, differences, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name in UNITS])
def test_activations_are_those_of_the_unit_laws(name: str) -> None:
    """Quicker forms for real tensors are forms of the same law. A network and the substrate that holds it would
    answer differently otherwise."""
    unit, law = ACTIVATIONS[name], UNITS[name].make(torch)
    a = torch.linspace(-6, 6, 97, dtype=torch.float64)
    for d in (-3.0, -1e-3, 1e-9, 0.4, 2.5):
        moved = law.difference(a, torch.full_like(a, d))
        torch.testing.assert_close(unit.displaced(a, torch.full_like(a, d)), moved, atol=1e-15, rtol=1e-11)
    torch.testing.assert_close(unit.response(a), law.response(a), atol=0, rtol=1e-14)
    torch.testing.assert_close(unit.slope(a), law.slope(a), atol=0, rtol=1e-13)
    inside = law.response(a)[40:57]
    torch.testing.assert_close(unit.inverse(inside), law.inverse(inside), atol=1e-15, rtol=1e-13)
    torch.testing.assert_close(unit.potential(inside), law.potential(inside), atol=1e-14, rtol=1e-13)
    assert unit.bounds == UNITS[name].bounds


def test_anchored_tanh_keeps_its_digits() -> None:
    """float32, displacements of 1e-4 and less, units up to saturation: relative error below 1e-5; no overflow."""
    a = torch.linspace(-8, 8, 161).view(1, -1)
    for size in (1e-2, 1e-4, 1e-8):
        d = torch.cat([torch.full_like(a, size), torch.full_like(a, -size)])
        exact = ACTIVATIONS["tanh"].displaced(a.double().expand_as(d), d.double())
        shift, slope = ACTIVATIONS["tanh"].at(a).moved(d)
        assert float(((shift - exact) / exact).abs().max()) < 1e-5
        exact = ACTIVATIONS["tanh"].slope(a.double() + d.double())
        assert float(((slope - exact) / exact).abs().max()) < 1e-5
    shift, slope = ACTIVATIONS["tanh"].at(a).moved(torch.full_like(a, 1e4))
    torch.testing.assert_close(shift, 1 - torch.tanh(a))
    assert float(slope.abs().max()) < 1e-20


@pytest.mark.parametrize("cost", COSTS, ids=["ce", "mse"])
@pytest.mark.parametrize("activation", ["tanh", "softplus", "gelu"])
def test_first_guess_is_of_second_order(cost, activation: str) -> None:
    """What the passes at the free state lead to misses by O(beta^2) of itself: no term is wrong, in any layer."""
    net = dense(5, activation)
    x, y = examples(cost=cost)
    free = relax(net, x).state
    misses = [
        float(relax(net, x, Nudge(cost, y, b), free, max_iterations=2, tolerance=1e-15).residual.max())
        for b in (2e-3, 1e-3, -1e-3)
    ]
    assert misses[0] / misses[1] == pytest.approx(4, rel=0.1)
    assert misses[2] == pytest.approx(misses[1], rel=0.1)


@pytest.mark.parametrize("cost", COSTS, ids=["ce", "mse"])
@pytest.mark.parametrize("activation", ["tanh", "softplus", "gelu"])
def test_first_order_is_taken_where_it_is_enough(cost, activation: str) -> None:
    """The first order misses O(beta) of itself, about as much as is foreseen: a tolerance of twice that is met by
    it, one of a fifth by the second order, both in two sweeps. What is found is the same to the tolerance."""
    net = dense(5, activation)
    x, y = examples(cost=cost)
    free = relax(net, x).state

    def found(beta: float, tolerance: float):
        return relax(net, x, Nudge(cost, y, beta), free, max_iterations=2, tolerance=tolerance)

    first = [float(found(b, 0.5).residual.max()) for b in (2e-3, 1e-3, -1e-3)]
    assert first[0] / first[1] == pytest.approx(2, rel=0.1)
    assert first[2] == pytest.approx(first[1], rel=0.1)
    enough, short = found(1e-3, 2 * first[1]), found(1e-3, first[1] / 5)
    assert float(enough.residual.max()) == pytest.approx(first[1], rel=1e-6)
    assert float(short.residual.max()) <= first[1] / 5
    exact = found(1e-3, 1e-12).displacement
    for a, b, c in zip(enough.displacement, short.displacement, exact, strict=True):
        size = float(c.abs().max())
        assert float((a - c).abs().max()) < 4 * first[1] * size
        assert float((b - c).abs().max()) < 4 * first[1] * size


def test_the_order_of_an_example_is_its_own() -> None:
    """Some examples of a batch need the second order and some do not. Alone each has the displacement that it has
    in company; a batch that decided as one would move the others."""
    net = dense(4, "tanh")
    x, y = examples(cost=CrossEntropy())
    nudge, free = Nudge(CrossEntropy(), y, 2e-2), relax(net, x).state
    misses = relax(net, x, nudge, free, max_iterations=2, tolerance=0.5).residual
    tolerance = 1.3 * float(misses.sort().values[len(x) // 2])
    whole = relax(net, x, nudge, free, max_iterations=2, tolerance=tolerance)
    as_first = whole.residual > 0.9 * misses
    assert 0 < int(as_first.sum()) < len(x)
    for i in range(len(x)):
        one = relax(
            net, x[i : i + 1], Nudge(CrossEntropy(), y[i : i + 1], 2e-2), max_iterations=2, tolerance=tolerance
        )
        for a, b in zip(one.displacement, whole.displacement, strict=True):
            torch.testing.assert_close(a[0], b[i], atol=1e-14, rtol=1e-9)


@pytest.mark.parametrize("cost", COSTS, ids=["ce", "mse"])
@pytest.mark.parametrize("tolerance", [1e-2, 9.9e-6], ids=["first", "second"])
def test_curved_sweeps_share_their_passes(cost, tolerance: float, monkeypatch) -> None:
    """Two sweeps of tanh layers: what both signs share is done once. More would be a pass done twice."""
    rows = counted_rows(monkeypatch)
    net = dense(6, "tanh", width=32, n_in=32)
    x, y = examples((32,), cost=cost)
    ep = EquilibriumPropagation(cost, beta=5e-4, tolerance=tolerance, measure_every=10**9)
    ep.backward(net, x, y)
    rows.clear()
    step = ep.backward(net, x, y)
    assert step.equilibria[1].iterations == 2
    # Forward; first and perhaps second order, backward and forward, once for both signs, or what the first one
    # misses at the layer below the outputs; forward with both, but for the layer whose input is known; backward
    # with both; weights.
    shared = 2 * 5 + 2 if tolerance == 1e-2 else 4 * 5
    assert sum(rows) / len(x) == 6 + shared + 2 * 4 + 2 * 5 + 1 + 2 * 5


def test_units_are_looked_at_once_a_step(monkeypatch) -> None:
    """Tanh and slope at the free state serve both signs and every sweep: one anchor a hidden layer, and weights as
    they are, without copies."""
    made: list[torch.Tensor] = []
    built = TanhAnchor.__init__

    def counting(self: TanhAnchor, unit: Activation, a: torch.Tensor) -> None:
        made.append(a)
        built(self, unit, a)

    monkeypatch.setattr(TanhAnchor, "__init__", counting)
    net = dense(4, "tanh")
    x, y = examples(cost=CrossEntropy())
    ep = EquilibriumPropagation(CrossEntropy(), beta=0.02, tolerance=1e-8, measure_every=10**9)
    ep.backward(net, x, y)
    made.clear()
    assert ep.backward(net, x, y).equilibria[1].iterations > 2
    assert len(made) == net.depth - 1
    weights = net.prepare(x).cache.weights
    assert all(weights.of(k, "weight").data_ptr() == layer.weight.data_ptr() for k, layer in enumerate(net.stack))


@pytest.mark.parametrize("cost", COSTS, ids=["ce", "mse"])
def test_one_space_for_both_signs(cost, monkeypatch) -> None:
    """Held gates near the stability limit: the combinations of shared passes are the equilibria that plain sweeps
    find for each sign, also when the space is cut down on the way."""
    net = dense(6, "relu", width=24, gain=6**0.5)
    x, y = examples(cost=cost)
    probe = EquilibriumPropagation(cost, beta="auto")
    probe.backward(net, x, y)
    beta = 0.6 * probe.stability_limit
    plain = estimate_gradient(
        EquilibriumPropagation(cost, beta=beta, solver="sweep", tolerance=1e-12, max_iterations=500), net, x, y
    )[0]
    spent = []
    for most in (8, 2):
        monkeypatch.setattr(LinearSpace, "most", most)
        ep = EquilibriumPropagation(cost, beta=beta, tolerance=1e-12, max_iterations=500)
        grads, step = estimate_gradient(ep, net, x, y)
        assert total_error(grads, plain) < 1e-10
        spent.append(step.equilibria[1].iterations)
    assert spent[0] <= spent[1]
    assert spent[0] <= 12  # ten outputs: a space of ten is all there is


def test_an_example_does_not_depend_on_its_batch() -> None:
    """Alone or in company, sooner or later settled: the same displacement."""
    for activation in ("relu", "tanh"):
        net = dense(4, activation)
        x, y = examples(cost=SquaredError())
        y[3] = net(x)[3].detach()  # nothing to do
        nudge = Nudge(SquaredError(), y, 0.05)
        whole = relax(net, x, nudge, relax(net, x).state, tolerance=1e-6)
        for i in (0, 3, 7):
            one = relax(net, x[i : i + 1], Nudge(SquaredError(), y[i : i + 1], 0.05), tolerance=1e-6)
            for a, b in zip(one.displacement, whole.displacement, strict=True):
                # Sweeps may go on after an example alone has settled; never by more than its tolerance.
                torch.testing.assert_close(a[0], b[i], atol=1e-14, rtol=1e-5)


@pytest.mark.parametrize("solver", ["mod_pgd", "pgd"])
def test_published_iteration_with_pooling_by_hand(solver: str) -> None:
    """Four iterations with free gates and max poolings that pick anew, by autograd of each prediction; the contrast
    by autograd of the energy at the states that they reach."""
    net = biased(vgg5(10, (3, 16, 16), width=0.06, gain=6**0.5, gates="live").double())
    x, y = examples((3, 16, 16), 3)
    beta, steps = 0.15, 4

    def predict(k: int, below: torch.Tensor, gate: bool = True) -> torch.Tensor:
        layer = net.stack[k - 1]
        if k == 6:
            return below.flatten(1) @ layer.weight.t() + layer.bias
        image = conv2d(below, layer.weight, layer.bias, 1, 1)
        image = max_pool2d(image, 2) if k > 1 else image
        return image.relu() if gate else image

    def settled(strength: float) -> list[torch.Tensor]:
        h = [x, *[s.detach() for s in relax(net, x).state]]
        for _ in range(steps):
            for k in (2, 4, 6, 1, 3, 5):
                a = predict(k, h[k - 1], gate=False).detach()
                if k == 6:
                    h[6] = a - strength * CrossEntropy().gradient(h[6], y)
                    continue
                here = h[k].detach().requires_grad_()
                above = predict(k + 1, here)
                (feedback,) = torch.autograd.grad(above, here, (h[k + 1] - above).detach())
                h[k] = (a + feedback).relu() if solver == "mod_pgd" else (a.relu() + feedback).relu()
        return h[1:]

    ep = EquilibriumPropagation(
        CrossEntropy(), beta=beta, solver=solver, tolerance=1e-15, max_iterations=steps, on_unconverged="warn"
    )
    with pytest.warns(UserWarning, match="did not converge"):
        grads, step = estimate_gradient(ep, net, x, y)
    slopes = []
    for found, strength in zip(step.equilibria[1:], (beta, -beta), strict=True):
        states = settled(strength)
        for mine, theirs in zip(found.state, states, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-11)
        slopes.append(torch.autograd.grad(net.energy(tuple(states), x).sum(), list(net.parameters())))
    crossed = [((a > 0) != (b > 0)).sum() for a, b in zip(settled(beta), relax(net, x).state, strict=True)]
    assert sum(map(int, crossed)) > 10  # gates did open and close
    for (name, _), up, down in zip(net.named_parameters(), *slopes, strict=True):
        torch.testing.assert_close(grads[name], (up - down) / (2 * beta * len(x)), atol=1e-11, rtol=1e-8)


def test_routes_of_the_solver_are_those_of_its_state() -> None:
    """The contrast takes the routes that the solver has left; found anew, from displacements, they are the same."""
    net = biased(vgg5(10, (3, 16, 16), width=0.06, gain=6**0.5, gates="live").double())
    x, y = examples((3, 16, 16), 3)
    inputs = net.prepare(x)
    base = net.phase(inputs, relax(net, x).state)
    stack = base.stacked([Nudge(CrossEntropy(), y, b) for b in (0.3, -0.3)])
    assert stack is not None
    plus, minus = solve(stack, solver="mod_pgd", max_iterations=6, tolerance=1e-15).split(2)
    weight = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert base.settled
    kept = base.contrast(net, (), plus.displacement, minus.displacement, x, weight)
    assert not base.settled
    anew = base.contrast(net, (), plus.displacement, minus.displacement, x, weight)
    for name, value in kept.items():
        torch.testing.assert_close(value, anew[name], atol=1e-15, rtol=1e-12)


def test_bfloat16_guess_settles() -> None:
    """In bfloat16 the first guess meets the default tolerance, at a beta whose square would be lost beside it."""
    net = copy.deepcopy(dense(5, "tanh", width=64)).bfloat16()
    x, y = examples()
    step = EquilibriumPropagation(CrossEntropy(), beta=1e-4).backward(net, x.bfloat16(), y)
    assert step.equilibria[1].iterations <= 3


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (2, 300)])
def test_a_packed_route_is_the_route(size: tuple[int, int]) -> None:
    """Packed routes take a quarter of the memory and name the same entries, also where a pooling drops the last row
    or column; images that are too wide keep their routes. Autograd of torch's own pooling has the last word."""
    link = ConvLink((2, *size), 3, pooling="max")
    generator = torch.Generator().manual_seed(0)
    w, h = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 2, 3, 3), (2, 2, *size))
    )
    h = channels_last(h)
    a, route = link.drive(w, h, None)
    packed = link.packed(route)
    assert route is not None
    assert packed is not None
    assert packed.element_size() == 2
    assert torch.equal(link.apply(w, h, packed), a)
    delta = torch.randn(a.shape, generator=generator, dtype=torch.float64)
    leaves = [w.clone().requires_grad_(), h.clone().requires_grad_()]
    pooled = max_pool2d(conv2d(leaves[1], leaves[0], padding=1), 2)
    by_weight, by_input = torch.autograd.grad((pooled * delta).sum(), leaves)
    torch.testing.assert_close(link.gradient(h, delta, packed), by_weight)
    torch.testing.assert_close(link.transpose(w, delta, packed), by_input)
    assert torch.equal(link.gradient(h, delta, packed), link.gradient(h, delta, route))
    wide = ConvLink((1, 2, 2**15), 1, pooling="max")
    _, route = wide.drive(
        torch.ones(1, 1, 3, 3), channels_last(torch.rand(1, 1, 2, 2**15, generator=generator)), None
    )
    assert wide.packed(route) is route


def test_weights_are_cast_again_after_they_were_released() -> None:
    """The contrast gives narrow weights away; phases that are relaxed after it, and the gradient of the input, are
    those of a network that kept them. Else a second estimate from one phase would fail or differ."""
    net = vgg5(4, (3, 32, 32), width=1 / 32)
    net.compute_dtype = torch.bfloat16
    kept = net.run(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))).weights
    before = [kept.of(k, "weight").clone() for k in range(net.depth)]
    assert kept.of(0, "weight") is kept.of(0, "weight")
    kept.release()
    assert all(torch.equal(kept.of(k, "weight"), before[k]) for k in range(net.depth))
    assert kept.of(0, "weight").dtype is torch.bfloat16

    cost = CrossEntropy()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    y = cost.encode(torch.arange(2), 4, torch.float32)
    phase = net.phase(net.prepare(x), net.initial_state(x), True)
    found = []
    for _ in range(2):
        z = solve(phase.nudged(Nudge(cost, y, 0.1)), max_iterations=4).displacement
        assert z is not None
        found.append(phase.contrast(net, phase.origin or (), z, None, x, torch.full((2,), 0.5)))
        found[-1]["x"] = phase.input_contrast(phase.origin or (), z, None, x, torch.full((2,), 0.5))
    assert all(torch.equal(g, found[1][name]) for name, g in found[0].items())
