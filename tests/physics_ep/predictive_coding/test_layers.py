"""Layers of predictive coding networks: activations, linear maps, architectures, conversion."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from physics_ep.errors import InputError
from physics_ep.maps import ChannelLink, ConvLink, DenseLink, PoolLink
from physics_ep.pooling import Pooling
from physics_ep.predictive_coding import (
    PredictiveCodingNetwork,
    from_sequential,
    load_sequential,
    mlp,
    to_sequential,
    vgg5,
    vgg10,
    vgg10_skip,
)
from physics_ep.predictive_coding.activations import ACTIVATIONS
from physics_ep.predictive_coding.layers import PredictiveLayer


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_identities(name: str) -> None:
    """S' = sigma, Psi' = sigma^-1, and differences keep their digits: energies rest on them."""
    unit = ACTIVATIONS[name]
    a = torch.linspace(-5.03, 5.01, 41, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(unit.integral(a).sum(), a)
    torch.testing.assert_close(slope, unit.response(a).detach(), atol=1e-13, rtol=1e-12)
    (slope,) = torch.autograd.grad(unit.response(a).sum(), a)
    torch.testing.assert_close(slope, unit.slope(a).detach(), atol=1e-13, rtol=1e-10)
    a = a.detach()
    d = torch.linspace(2, -2, 41, dtype=torch.float64)
    exact = unit.response(a + d) - unit.response(a)
    torch.testing.assert_close(unit.displaced(a, d), exact, atol=1e-14, rtol=1e-12)
    # For a small step the subtraction has no digits left; the tangent has.
    tangent = unit.slope(a) * 1e-9
    torch.testing.assert_close(unit.displaced(a, torch.full_like(a, 1e-9)), tangent, atol=1e-17, rtol=1e-7)
    if unit.inverse is not None:
        inside = a[a.abs() < 3]
        v = unit.response(inside)
        inside, v = (inside[unit.open(v)], v[unit.open(v)]) if unit.gated else (inside, v)
        torch.testing.assert_close(unit.inverse(v), inside, atol=1e-10, rtol=1e-10)
        v.requires_grad_()
        (slope,) = torch.autograd.grad(unit.potential(v).sum(), v)
        torch.testing.assert_close(slope, inside, atol=1e-9, rtol=1e-9)


def test_softplus_integral_is_the_dilogarithm() -> None:
    """S(0) = pi^2 / 12, S(t) = pi^2 / 6 + t^2 / 2 - S(-t): constants that no derivative shows."""
    unit = ACTIVATIONS["softplus"]
    t = torch.tensor([0.0, 1.3, -1.3], dtype=torch.float64)
    s = unit.integral(t)
    assert float(s[0]) == pytest.approx(torch.pi**2 / 12, abs=1e-14)
    assert float(s[1] + s[2]) == pytest.approx(torch.pi**2 / 6 + 1.3**2 / 2, abs=1e-13)


@pytest.mark.parametrize(
    "link",
    [
        DenseLink((3, 4, 4), 5),
        ConvLink((3, 7, 6), 4),
        ConvLink((3, 7, 6), 4, pooling="average"),
        ConvLink((3, 7, 6), 4, pooling="max"),
        ConvLink((3, 9, 8), 4, kernel_size=1, stride=2, padding=0),
        ConvLink((3, 9, 9), 4, kernel_size=1, stride=4, padding=0),
        ConvLink((4, 7, 6), 6, kernel_size=(3, 2), groups=2, dilation=(2, 1), padding=(2, 1)),
        ConvLink((3, 8, 9), 3, groups=3, stride=2, padding=(0, 1, 0, 1)),
        ConvLink((3, 9, 8), 4, pooling=Pooling("max", 3, 2, 1)),
        ConvLink((3, 9, 8), 4, pooling=Pooling("average", 3, (2, 1), 1)),
        PoolLink((3, 9, 8), Pooling("max", 3, 2, 1)),
        PoolLink((3, 5, 6), Pooling("average", (5, 6))),
        PoolLink((3, 7, 6), Pooling("average", 3, 1, 1)),
        ChannelLink((3, 4, 5), (3, 4, 5)),
        ChannelLink((3, 4, 5), (7, 4, 5), 2),
        ChannelLink((3, 4, 5), (7, 4, 5), 2, scaled=True),
        ChannelLink((5,), (5,), scaled=True),
    ],
    ids=lambda link: f"{type(link).__name__}-{vars(link)}"[:60],
)
def test_links_are_the_maps_that_autograd_knows(link) -> None:
    """apply, transpose and gradient of one map against autograd of `drive`: a wrong one gives a wrong gradient."""
    g = torch.Generator().manual_seed(0)
    shape = link.weight_shape if link.weighted else (0,)
    w = torch.randn(shape, generator=g, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(link.post[0], generator=g, dtype=torch.float64)
    h = torch.randn(2, *link.pre, generator=g, dtype=torch.float64, requires_grad=True)
    a, route = link.drive(w, h, bias)
    assert a.shape == (2, *link.post)
    with torch.no_grad():
        column = bias.view(-1, *[1] * (len(link.post) - 1))
        torch.testing.assert_close(link.apply(w, h, route) + column, a)
    delta = torch.randn(a.shape, generator=g, dtype=torch.float64)
    back, weight = torch.autograd.grad((a * delta).sum(), (h, w), allow_unused=True)
    with torch.no_grad():
        torch.testing.assert_close(link.transpose(w, delta, route), back)
        torch.testing.assert_close(link.add_back(h.clone(), w, delta, route), h + back)
        torch.testing.assert_close(link.add_to(delta.clone(), w, h, route), delta + link.apply(w, h, route))
        if link.weighted:
            torch.testing.assert_close(link.gradient(h, delta, route), weight)
        else:
            other, weight = link.with_weights()
            torch.testing.assert_close(other.drive(weight.to(h), h, bias)[0], a)
        for packed in (link.packed(route), route):
            torch.testing.assert_close(link.transpose(w, delta, packed), back)
        # Stacked batches share the route of one.
        both = link.transpose(w, torch.cat([delta, -delta]), route)
        torch.testing.assert_close(both, torch.cat([back, -back]))


def _weights(net: PredictiveCodingNetwork) -> int:
    return sum(p.numel() for n, p in net.named_parameters() if "weight" in n)


def test_vgg_parameter_counts() -> None:
    """The paper's shapes: VGG10 has 62,645,952 weights at 224x224, 25088 units into its first dense layer."""
    net = vgg10()
    assert _weights(net) == 62_645_952
    assert net.stack[8].weight.shape == (2048, 25088)
    assert sum(net.sizes[1:]) == 2_837_992  # "2.84 M state floats an image"
    skip = vgg10_skip(width=0.125)
    plain = vgg10(width=0.125)
    extra = 16 * 64 + 64 * 64  # 1x1 from layer 2 to 5 and from 5 to 8
    assert _weights(skip) - _weights(plain) == extra
    small = vgg5(10, (3, 32, 32))
    assert _weights(small) == 9 * (3 * 128 + 128 * 256 + 256 * 512 + 2 * 512 * 512) + 512 * 4 * 10


@pytest.mark.full
def test_initial_weights_are_uniform_in_the_papers_bounds() -> None:
    """Gain over the square root of the fan: fan-out for VGG10's convolutions, fan-in for VGG5 and dense layers."""
    for net, k, fan in ((vgg10(), 4, 9 * 512), (vgg10(), 8, 25088), (vgg5(), 2, 9 * 256)):
        bound = fan**-0.5
        w = net.stack[k].weight.detach()
        assert float(w.abs().max()) <= bound * (1 + 1e-6)
        assert float(w.var()) == pytest.approx(bound**2 / 3, rel=0.02)
        assert not bool(net.stack[k].bias.any())
    assert float(vgg5(output_gain=0.2).stack[5].weight.detach().abs().max()) <= 0.2001 * 2048**-0.5


def _model(pool: type[nn.Module] = nn.MaxPool2d, response: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), pool(2), response(),
        nn.Conv2d(4, 5, 3, stride=2, padding=1, bias=False), response(),
        nn.Flatten(), nn.Linear(5 * 2 * 2, 7), response(), nn.Linear(7, 3),
    ).double()  # fmt: skip


@pytest.mark.parametrize("response", [nn.ReLU, nn.Tanh, nn.GELU, nn.Softplus])
@pytest.mark.parametrize("pool", [nn.MaxPool2d, nn.AvgPool2d])
def test_sequential_there_and_back(pool, response) -> None:
    """A converted network computes what the model does, and gives back its very weights."""
    model = _model(pool, response)
    net = from_sequential(model, (2, 8, 8))
    x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(net(x), model(x))
    back = to_sequential(net)
    torch.testing.assert_close(back(x), model(x))
    for mine, theirs in zip(back.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    other = from_sequential(_model(pool, response), (2, 8, 8))
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    load_sequential(other, model)
    assert torch.equal(other(x), net(x))


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), "'1'"),
        (nn.Sequential(nn.Linear(8, 4), nn.Dropout(), nn.Linear(4, 2)), "Dropout"),
        (nn.Sequential(nn.Linear(8, 4), nn.Softplus(beta=2), nn.Linear(4, 2)), "beta"),
        (nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(5, 2)), "'2'"),
        (nn.Sequential(nn.Linear(8, 4), nn.ReLU()), "must end in a Linear"),
    ],
)
def test_unsupported_modules_are_named(bad: nn.Sequential, word: str) -> None:
    """A model that cannot be a predictive coding network is refused in one line that names the module."""
    with pytest.raises(InputError, match=word):
        from_sequential(bad, (8,))


def test_wires_follow_edits_and_copies() -> None:
    """Wires are kept between calls: stale ones would run a layer on a link or source that it has lost."""
    layer = vgg10_skip(seed=0).stack[-1]
    number = layer.wires(5)
    assert layer.wires(5) is number
    assert [w.source for w in layer.wires(3)] == [2] + [w.source for w in number[1:]]
    plain = PredictiveLayer(DenseLink((3,), 2), "relu", 1.0, torch.Generator())
    plain.wires(0)
    bare = pickle.dumps(plain)
    for twin in (pickle.loads(bare), copy.deepcopy(plain), copy.copy(plain)):
        ((source, link, name),) = twin.wires(0)
        assert (source, name) == (-1, "weight")
        assert link is twin.link
        twin.link = DenseLink((4,), 2)
        assert twin.wires(0)[0].link is twin.link
        twin.source = 7
        assert twin.wires(0)[0].source == 7
        added = PoolLink((4, 2, 2), Pooling("average"))
        twin.skips = ((1, added),)
        assert twin.wires(0)[1] == (1, added, None)
        twin.activation_name = "clip(0, 2)"
        assert twin.activation.bounds == (0.0, 2.0)
    assert plain.wires(0)[0].link is plain.link
    assert pickle.dumps(plain) == bare
    assert set(plain.state_dict()) == {"weight", "bias"}


def test_bad_networks_are_refused() -> None:
    """Misfitting layers, unknown names and images too small for their poolings end in one clear line."""
    with pytest.raises(InputError, match="activation"):
        mlp([3, 4, 2], activation="relus")
    with pytest.raises(InputError, match="sizes"):
        mlp([3])
    with pytest.raises(InputError, match="energy"):
        mlp([3, 4, 2], energy="square")
    with pytest.raises(InputError, match="pooling"):
        vgg5(pooling="maximum")
    with pytest.raises(InputError, match="poolings"):
        vgg10(input_shape=(3, 16, 16))
    g = torch.Generator().manual_seed(0)
    layers = [
        PredictiveLayer(DenseLink((3,), 4), "relu", 1.0, g),
        PredictiveLayer(DenseLink((5,), 2), "linear", 1.0, g),
    ]
    with pytest.raises(InputError, match="layer 2 takes"):
        PredictiveCodingNetwork(layers)
    with pytest.raises(InputError, match="x must be a tensor"):
        mlp([3, 4, 2]).prepare(torch.zeros(2, 4))
