"""EP gradients of predictive coding networks against backprop, finite differences and Newton's method."""

from __future__ import annotations

import copy
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from physics_ep import CrossEntropy, EquilibriumPropagation, Nudge, SquaredError, relax
from physics_ep.errors import InputError
from physics_ep.estimators.coupled_learning import CoupledLearning
from physics_ep.estimators.propagation import NegativeNudgeError
from physics_ep.predictive_coding import mlp, to_sequential, vgg5, vgg10, vgg10_skip
from tests.support.pcn import biased, counted_rows, dense, examples
from validation import backprop_gradient, finite_difference_gradient
from validation.gradients import compare, estimate_gradient, total_error

COSTS = [CrossEntropy(), SquaredError()]


def _errors(net, x, y, cost, beta, **options):
    """(worst 1 - cosine, relative error, step) of EP against backprop."""
    ep = EquilibriumPropagation(cost, beta=beta, **options)
    grads, step = estimate_gradient(ep, net, x, y)
    exact = backprop_gradient(net, x, y, cost)
    return 1 - min(row.cosine for row in compare(grads, exact)), total_error(grads, exact), step


def test_backprop_oracle_against_finite_differences() -> None:
    """The oracle itself: autograd of the forward pass against central differences of the cost."""
    net = dense(3, "tanh", width=5, n_in=4)
    x, y = examples((4,), 3)
    differences = finite_difference_gradient(net, x, y, CrossEntropy())
    assert total_error(differences, backprop_gradient(net, x, y, CrossEntropy())) < 1e-8


@pytest.mark.parametrize("energy", ["squared", "paired"])
@pytest.mark.parametrize("depth", [5, 10, 20])
@pytest.mark.parametrize("cost", COSTS, ids=["ce", "mse"])
def test_centered_order_is_two(cost, depth: int, energy: str) -> None:
    """Smooth networks: error O(beta^2) by slope, at any depth, for both energies."""
    net = dense(depth, "tanh", energy=energy)
    x, y = examples(cost=cost)
    scale = 1 / 4 if depth == 20 and isinstance(cost, SquaredError) else 1.0  # stay below the stability limit
    betas = [2e-3 * scale, 1e-3 * scale, 5e-4 * scale]
    errors = [_errors(net, x, y, cost, b)[1] for b in betas]
    order = np.polyfit(np.log(betas), np.log(errors), 1)[0]
    assert order == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("energy", ["squared", "paired"])
@pytest.mark.parametrize("activation", ["hard_sigmoid", "hard_tanh", "logistic", "diode"])
def test_units_of_substrates_have_order_two(activation: str, energy: str) -> None:
    """Clips (held gates), the logistic and the diode: error O(beta^2), 1e-6 or less at beta 1e-3, for both
    energies: else the gates of a clip are not those of its free state, or a response and its slope disagree."""
    net = dense(4, activation, energy=energy, gain=6**0.5)
    x, y = examples()
    open_ = [layer.activation.slope(a).mean() for layer, a in zip(net.stack, net.run(x).drives, strict=True)][:-1]
    if activation.startswith("hard"):
        assert all(0.1 < float(share) < 0.95 for share in open_)  # gates of both kinds
    betas = [4e-3, 2e-3, 1e-3]
    errors = [_errors(net, x, y, CrossEntropy(), b)[1] for b in betas]
    assert np.polyfit(np.log(betas), np.log(errors), 1)[0] == pytest.approx(2.0, abs=0.1)
    assert errors[-1] < 1e-5


def test_one_sided_orders_and_random() -> None:
    """positive and negative: order 1; random: the same size of error, and the mean over signs is centered."""
    net = dense(4, "tanh")
    x, y = examples()
    for scheme in ("positive", "negative", "random"):
        errors = [_errors(net, x, y, CrossEntropy(), b, scheme=scheme)[1] for b in (2e-3, 1e-3)]
        assert math.log2(errors[0] / errors[1]) == pytest.approx(1.0, abs=0.1)
    plus = estimate_gradient(EquilibriumPropagation(CrossEntropy(), "positive", 1e-2), net, x, y)[0]
    minus = estimate_gradient(EquilibriumPropagation(CrossEntropy(), "negative", 1e-2), net, x, y)[0]
    both = estimate_gradient(EquilibriumPropagation(CrossEntropy(), "centered", 1e-2), net, x, y)[0]
    assert total_error({n: (plus[n] + minus[n]) / 2 for n in both}, both) < 1e-9


@pytest.mark.parametrize(("cost", "least"), [(CrossEntropy(), 0.999), (SquaredError(), 0.9999)], ids=["ce", "mse"])
@pytest.mark.parametrize("depth", [5, 10, 20])
def test_cosine_at_the_automatic_beta(depth: int, cost, least: float) -> None:
    """beta lambda = 0.05, gain sqrt(3): worst-layer cosine 0.9999 (squared error), 0.999 (cross-entropy)."""
    for activation in ("tanh", "relu"):
        net = dense(depth, activation, width=64)
        x, y = examples(cost=cost)
        worst, _, step = _errors(net, x, y, cost, "auto")
        assert 1 - worst >= least
        assert all(bool(e.converged.all()) for e in step.equilibria)


def test_stability_limit_is_the_largest_eigenvalue() -> None:
    """lambda = largest eigenvalue of sum_l P_l P_l^T (squared) or sum_l P_l sigma' P_l^T (paired), by dense
    algebra; beyond -1 / lambda the negative nudge is refused, just within it still settles."""
    cost = SquaredError()
    for energy in ("squared", "paired"):
        net = dense(4, "tanh", energy=energy, width=8, gain=6**0.5)
        x, y = examples(size=3, cost=cost)
        states = relax(net, x).state[:4]
        largest = 0.0
        for i in range(3):
            total, jacobian = torch.zeros(10, 10, dtype=torch.float64), torch.eye(10, dtype=torch.float64)
            for k in range(3, -1, -1):
                slope = torch.ones_like(states[k][i]) if k == 3 else 1 - states[k][i] ** 2
                middle = torch.diag(slope) if energy == "paired" else torch.eye(len(slope), dtype=torch.float64)
                total += jacobian @ middle @ jacobian.t()
                jacobian = jacobian @ torch.diag(slope) @ net.stack[k].weight.detach()
            largest = max(largest, float(torch.linalg.eigvalsh(total)[-1]))
        ep = EquilibriumPropagation(cost, beta="auto")
        ep.backward(net, x, y)
        assert 1 / ep.stability_limit == pytest.approx(largest, rel=2e-2)
        with pytest.raises(NegativeNudgeError, match="1 / lambda"):
            EquilibriumPropagation(cost, beta=1.03 / largest).backward(net, x, y)
        EquilibriumPropagation(cost, beta=0.5 / largest, max_iterations=2000).backward(net, x, y)


@pytest.mark.full
def test_finite_beta_equilibrium_by_newton() -> None:
    """At a strong nudge, dense Newton on autograd's Hessian finds the same state and the same contrast."""
    for energy in ("squared", "paired"):
        net = dense(3, "tanh", energy=energy, width=6, n_in=4)
        x, y = examples((4,), 1)
        free = relax(net, x)
        grads = estimate_gradient(EquilibriumPropagation(CrossEntropy(), beta=0.15), net, x, y)[0]
        shapes = [s.shape for s in free.state]

        def total(v: torch.Tensor, beta: float, net=net, x=x, y=y, shapes=shapes) -> torch.Tensor:
            state = tuple(p.view(s) for p, s in zip(v.split([s.numel() for s in shapes]), shapes, strict=True))
            return (net.energy(state, x) + beta * CrossEntropy()(net.outputs(state), y)).sum()

        slopes = []
        for beta in (0.15, -0.15):
            v = torch.cat([s.flatten() for s in free.state]).clone()
            for _ in range(20):
                slope = torch.autograd.functional.jacobian(lambda v, b=beta: total(v, b), v)
                hessian = torch.autograd.functional.hessian(lambda v, b=beta: total(v, b), v)
                v = v - torch.linalg.solve(hessian, slope)
            found = relax(net, x, Nudge(CrossEntropy(), y, beta), free.state, tolerance=1e-12).require()
            torch.testing.assert_close(torch.cat([s.flatten() for s in found.state]), v, atol=1e-11, rtol=0)
            slopes.append(torch.autograd.grad(total(v, beta), list(net.parameters())))
        for (name, _), up, down in zip(net.named_parameters(), *slopes, strict=True):
            torch.testing.assert_close(grads[name], (up - down) / 0.3, atol=1e-9, rtol=1e-8)


def test_held_gates_restore_the_order() -> None:
    """ReLU with max pooling and skips: O(beta^2) with held gates; far above it with free ones (kinks)."""
    net = biased(vgg10_skip(10, (3, 32, 32), width=0.06, gain=6**0.5).double())
    x, y = examples((3, 32, 32), 4)
    errors = [_errors(net, x, y, CrossEntropy(), b)[1] for b in (2e-2, 1e-2)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.15)
    with pytest.warns(UserWarning, match="did not converge"):
        free = _errors(net, x, y, CrossEntropy(), 1e-2, gates="live", max_iterations=40, on_unconverged="warn")[1]
    assert free > 20 * errors[1]


def test_silent_unit_at_the_kink() -> None:
    """A unit at exactly a = 0 (zero bias, blank input) has slope 0 with held gates, as in backprop."""
    net = mlp([6, 8, 8, 3], gain=3**0.5).double()
    x, y = examples((6,), 6, n_out=3)
    x[:2] = 0
    worst, error, _ = _errors(net, x, y, CrossEntropy(), 1e-4)
    assert worst < 1e-10
    assert error < 1e-5


def test_one_sweep_is_backprop() -> None:
    """K = 1 with held gates is backprop at any beta: exact to rounding, with a residual of 1 that says why."""
    net = dense(4, "relu")
    x, y = examples()
    with pytest.warns(UserWarning, match="did not converge"):
        _, error, step = _errors(net, x, y, CrossEntropy(), 0.3, max_iterations=1, on_unconverged="warn")
    assert error < 1e-14
    assert float(step.equilibria[1].residual.max()) == 1


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_carried_errors_keep_their_digits(activation: str) -> None:
    """float32 at beta 1e-4 within 1e-5 of float64: subtracted states would leave 1e-3."""
    net = dense(10, activation, width=64)
    x, y = examples()
    reference = estimate_gradient(EquilibriumPropagation(CrossEntropy(), beta=1e-4), net, x, y)[0]
    narrow = copy.deepcopy(net).float()
    ep = EquilibriumPropagation(CrossEntropy(), beta=1e-4, tolerance=1e-6)
    assert total_error(estimate_gradient(ep, narrow, x.float(), y)[0], reference) < 1e-5


def _bfloat16(net, x, y, beta: float = 1e-4):
    narrow = copy.deepcopy(net).bfloat16()
    ep = EquilibriumPropagation(CrossEntropy(), beta=beta)
    return estimate_gradient(ep, narrow, x.bfloat16(), y)[0]


def test_bfloat16_gradients() -> None:
    """bfloat16: 1 - cosine <= 1e-3 at every layer for tanh; for ReLU no worse than bfloat16 backprop with its
    gates."""
    x, y = examples()
    net = dense(10, "tanh", width=128)
    rows = compare(_bfloat16(net, x, y), backprop_gradient(net, x, y, CrossEntropy()))
    assert all(1 - row.cosine <= 1e-3 for row in rows if "weight" in row.name)
    net = dense(10, "relu", width=128)
    exact = backprop_gradient(net, x, y, CrossEntropy())
    model = to_sequential(net).bfloat16()
    torch.nn.functional.cross_entropy(model(x.bfloat16()).float(), y).backward()
    names = [n for n, _ in net.named_parameters()]
    theirs = compare({n: p.grad for n, p in zip(names, model.parameters(), strict=True)}, exact)
    mine = compare(_bfloat16(net, x, y), exact)
    worst = [max(1 - row.cosine for row in rows) for rows in (mine, theirs)]
    assert worst[0] <= 1.2 * worst[1]


def test_compute_dtype_keeps_parameters_wide() -> None:
    """Work in bfloat16 with float32 parameters: gradients come in float32, near those of pure bfloat16."""
    net = dense(5, "tanh").float()
    x, y = examples()
    exact = backprop_gradient(net, x, y, CrossEntropy())
    net.compute_dtype = torch.bfloat16
    grads, step = estimate_gradient(EquilibriumPropagation(CrossEntropy(), beta=1e-2), net, x.float(), y)
    assert step.outputs.dtype == torch.bfloat16
    assert all(g.dtype == torch.float32 for g in grads.values())
    assert min(row.cosine for row in compare(grads, exact)) > 0.999


@pytest.mark.slow
def test_classical_rule_is_no_gradient() -> None:
    """Outputs clamped to the target, softly or all the way (classical predictive coding): held where they should
    be, and far from backprop at depth, where centered nudging is not."""
    cosines = {}
    for depth in (3, 10):
        net = dense(depth, "tanh", width=64)
        x, y = examples(cost=SquaredError())
        exact = backprop_gradient(net, x, y, SquaredError())
        for fraction in (1.0, 0.05):
            rule = CoupledLearning(fraction, "gradient_flow", tolerance=1e-5, max_iterations=5000)
            grads, step = estimate_gradient(rule, net, x, y)
            out = net.outputs(step.equilibria[1].state)
            torch.testing.assert_close(out, step.outputs + fraction * (y - step.outputs), atol=1e-5, rtol=0)
            cosines[depth, fraction] = min(row.cosine for row in compare(grads, exact))
    assert cosines[10, 1.0] < cosines[3, 1.0] < 0.97
    assert cosines[10, 1.0] < 0.9
    worst, _, _ = _errors(dense(10, "tanh", width=64), *examples(cost=SquaredError()), SquaredError(), "auto")
    assert worst < 1e-4


def test_soft_clamp_by_a_strong_positive_nudge() -> None:
    """beta = 10 on the squared error pulls the outputs most of the way; the sweep still finds the stationary
    point."""
    net = dense(3, "tanh", width=24, gain=0.5)
    x, y = examples(cost=SquaredError())
    free = relax(net, x)
    found = relax(net, x, Nudge(SquaredError(), y, 10.0), free.state, max_iterations=3000, tolerance=1e-9).require()
    before, after = (float((net.outputs(s) - y).norm()) for s in (free.state, found.state))
    assert after < 0.2 * before


def test_large_beta_is_refused() -> None:
    """The error names the limit and the way out."""
    net = dense(4, "relu")
    x, y = examples(cost=SquaredError())
    with pytest.raises(NegativeNudgeError, match=r"must be below .* beta='auto'"):
        EquilibriumPropagation(SquaredError(), beta=5.0).backward(net, x, y)
    with pytest.raises(InputError, match="holomorphic"):
        EquilibriumPropagation(CrossEntropy(), "holomorphic:4").backward(net, *examples())


@pytest.mark.parametrize("cost", COSTS, ids=["ce", "mse"])
def test_sweeps_share_their_passes(cost, monkeypatch) -> None:
    """Two sweeps with held gates: 7 layer passes against backprop's 3. More would be a pass done twice."""
    rows = counted_rows(monkeypatch)
    net = dense(6, "relu", width=32, n_in=32)
    x, y = examples((32,), cost=cost)
    ep = EquilibriumPropagation(cost, beta="auto", tolerance=0.3, measure_every=10**9)
    ep.backward(net, x, y)
    rows.clear()
    step = ep.backward(net, x, y)
    assert step.equilibria[1].iterations == 2
    # Forward, shared backward, displacement, backward for both signs; weights for both signs. The first layer takes
    # part in the forward pass and in one product for its weights only.
    assert sum(rows) / len(x) == 6 + 5 + 5 + 2 * 5 + 1 + 2 * 5


@pytest.mark.slow
def test_vgg10_on_photographs() -> None:
    """VGG10 at 224x224 on real photographs, float32: worst-layer cosine >= 0.999 at the default setting."""
    folder = _photographs()
    from PIL import Image

    arrays, labels = [], []
    for path in sorted(folder.glob("*.jpg"))[:2]:
        image = Image.open(path).convert("RGB").resize((256, 256)).crop((16, 16, 240, 240))
        arrays.append(np.array(image, dtype=np.float32).transpose(2, 0, 1) / 255)
        labels.append(int(path.stem.split("_")[-1]))
    x = (torch.from_numpy(np.stack(arrays)) - 0.45) / 0.225
    y = torch.tensor(labels)
    net = vgg10()
    ep = EquilibriumPropagation(CrossEntropy(), beta="auto")
    step = ep.backward(net, x, y)
    assert step.equilibria[1].iterations >= 2
    assert float(step.equilibria[1].residual.max()) <= 1e-2
    loss = torch.nn.functional.cross_entropy(net(x), y)
    exact = torch.autograd.grad(loss, list(net.parameters()))
    for (name, p), g in zip(net.named_parameters(), exact, strict=True):
        cosine = torch.nn.functional.cosine_similarity(p.grad.flatten().double(), g.flatten().double(), dim=0)
        assert float(cosine) >= 0.999, name


def _photographs() -> Path:
    root = os.environ.get("PHYSICS_EP_DATA")
    for folder in (Path(root) / "imagenet20", Path(root)) if root else ():
        if list(folder.glob("imagenet_*.jpg")):
            return folder
    pytest.skip("no folder imagenet20 of photographs under PHYSICS_EP_DATA")


def test_small_vgg_against_backprop_with_average_pooling() -> None:
    """Average pooling and tanh need no held gates: order 2 all the same."""
    net = biased(vgg5(10, (3, 16, 16), width=0.06, gain=3**0.5, pooling="average", activation="tanh").double())
    x, y = examples((3, 16, 16), 4)
    errors = [_errors(net, x, y, CrossEntropy(), b)[1] for b in (2e-2, 1e-2)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)
