"""Models of torch's as networks: the same function and the same gradient, or a refusal by name.

If these fail, `from_sequential` returns another network than the model, in silence.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

from physics_ep import EquilibriumPropagation, SquaredError
from physics_ep.errors import InputError
from physics_ep.estimators.backprop import Backprop
from physics_ep.predictive_coding import from_module, from_sequential, load_sequential, mlp, to_sequential


class Doubled(nn.Sequential):
    """A forward pass of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Built(nn.Sequential):
    """A subclass that only builds."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(*modules)


class Halved(nn.Linear):
    """A linear layer that computes something else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, 0.5 * self.weight, self.bias)


class Scaled(nn.Conv2d):
    """A convolution whose forward pass is torch's, and whose kernel is not."""

    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, 2 * weight, bias)


class Leaky(nn.ReLU):
    """A response by another way in."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.leaky_relu(x, 0.3)


def agree(model: nn.Sequential, shape: tuple[int, ...], seed: int = 0) -> None:
    """Convert a model; its outputs and gradients must be autograd's, of what is trained and of nothing else."""
    net = from_sequential(model, shape)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, *shape, generator=generator, dtype=torch.float64)
    outputs = model(x)
    torch.testing.assert_close(net(x), outputs, rtol=1e-10, atol=1e-10)
    y = torch.rand(outputs.shape, generator=generator, dtype=torch.float64)
    model.zero_grad()
    SquaredError()(outputs, y).mean().backward() if outputs.requires_grad else None
    theirs = [p.grad for p in model.parameters()]
    backprop = Backprop(SquaredError())
    ep = EquilibriumPropagation(SquaredError(), beta=1e-5, tolerance=1e-10)
    size = sum(float(g.square().sum()) for g in theirs if g is not None) ** 0.5
    for rule, error in ((backprop, 1e-11), (ep, 1e-6)) if any(g is not None for g in theirs) else ():
        net.zero_grad()
        rule.backward(net, x, y)
        for p, g in zip(net.parameters(), theirs, strict=True):
            assert (p.grad is None) == (g is None)
            assert g is None or float((p.grad - g).norm()) <= error * (size + 1e-3)


def dense(*modules: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(modules or (nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)))).double()


def test_modules_that_stand_twice() -> None:
    """A response used twice is two responses; a layer used twice is one parameter with two uses."""
    torch.manual_seed(0)
    response, layer = nn.ReLU(), nn.Linear(6, 6)
    agree(dense(nn.Linear(6, 6), response, nn.Linear(6, 6), response, nn.Linear(6, 2)), (6,))
    model = dense(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(6, 2))
    agree(model, (6,))
    net = from_sequential(model, (6,))
    assert net.stack[0].weight is net.stack[1].weight
    assert net.stack[0].bias is net.stack[1].bias
    pool = nn.MaxPool2d(2)
    convolutions = dense(
        nn.Conv2d(1, 2, 3, padding=1), pool, nn.Conv2d(2, 2, 3, padding=1), pool, nn.Flatten(), nn.Linear(8, 2)
    )
    agree(convolutions, (1, 8, 8))


def test_tied_weights_and_what_is_not_trained_are_carried_over() -> None:
    """There and back: one parameter stays one, and frozen stays frozen."""
    model = dense(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    model[2].weight = model[0].weight
    model[4].bias.requires_grad_(False)
    agree(model, (6,))
    net = from_sequential(model, (6,))
    back = to_sequential(net)
    assert back[2].weight is back[0].weight
    assert back[2].bias is not back[0].bias
    assert [p.requires_grad for p in back.parameters()] == [p.requires_grad for p in model.parameters()]
    assert not any(p.requires_grad for p in from_sequential(dense().requires_grad_(False), (6,)).parameters())


def test_every_convolution_pooling_and_clip_comes_back() -> None:
    """Groups, dilation, windows and strides of any kind: without them it is another model of the same weights."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), groups=2),
        nn.ReLU6(),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),
        nn.MaxPool2d(3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 3, 1),
        nn.AvgPool2d((1, 2)),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(18, 4),
        nn.Hardtanh(-0.5, 0.25),
        nn.Linear(4, 2),
    ).double()
    x = torch.randn(3, 2, 11, 8, dtype=torch.float64)
    net = from_module(model, x, form="layers")
    assert torch.allclose(to_sequential(net)(x), model(x), atol=1e-12)
    aside = nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 0)), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(252, 2)
    )
    net = from_module(aside.double(), x, form="layers")
    with pytest.raises(InputError, match=r"equal padding on both sides in layer 1"):
        to_sequential(net)


def test_subclasses_that_override_nothing_are_what_they_extend() -> None:
    """A subclass with only an `__init__` of its own computes what its parent does; attention has one."""
    agree(Built(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).double(), (6,))
    plain = nn.modules.linear.NonDynamicallyQuantizableLinear(6, 4)
    agree(dense(plain, nn.ReLU(inplace=True), nn.Linear(4, 2)), (6,))


def _patched(model: nn.Sequential) -> None:
    model[0].forward = lambda x: 3 * x[:, :4]


CHANGES = {
    "'0'": (
        lambda m: m[0].register_forward_hook(lambda *_: None),
        lambda m: m[0].register_forward_pre_hook(lambda *_: None),
        lambda m: m[0].register_full_backward_hook(lambda *_: None),
        _patched,
    ),
    "itself": (lambda m: m.register_forward_hook(lambda _, __, out: 2 * out),),
    "'0.weight'": (
        lambda m: m[0].weight.register_hook(lambda g: 2 * g),
        lambda m: m[0].weight.register_post_accumulate_grad_hook(lambda p: p.grad.zero_()),
        lambda m: prune.l1_unstructured(m[0], "weight", amount=0.5),
        lambda m: parametrizations.weight_norm(m[0]),
        lambda m: parametrizations.orthogonal(m[0]),
        lambda m: weight_norm(m[0]),
    ),
}
FLAT, IMAGE = (6,), (1, 4, 4)
KERNEL = (1, 2, 3, 1, 1)
STRANGE = {
    "Doubled": (lambda: Doubled(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)), FLAT, "forward"),
    "Halved": (lambda: dense(Halved(6, 4), nn.Tanh(), nn.Linear(4, 2)), FLAT, "Halved.*forward"),
    "Leaky": (lambda: dense(nn.Linear(6, 4), Leaky(), nn.Linear(4, 2)), FLAT, "Leaky.*__call__"),
    "Scaled": (lambda: dense(Scaled(*KERNEL), nn.Flatten(), nn.Linear(32, 2)), IMAGE, "Scaled.*_conv_forward"),
    "bounded": (lambda: dense(nn.Linear(6, 4), nn.ReLU6(), nn.Linear(4, 2)), FLAT, "ReLU6"),
    "threshold": (lambda: dense(nn.Linear(6, 4), nn.Softplus(1, 1.0), nn.Linear(4, 2)), FLAT, "threshold"),
    "divisor": (
        lambda: dense(nn.Conv2d(*KERNEL), nn.AvgPool2d(2, divisor_override=3), nn.Flatten(), nn.Linear(8, 2)),
        IMAGE,
        "'1'.*plain",
    ),
    "indices": (
        lambda: dense(nn.Conv2d(*KERNEL), nn.MaxPool2d(2, return_indices=True), nn.Flatten(), nn.Linear(8, 2)),
        IMAGE,
        "'1'.*plain",
    ),
    "flattened batch": (lambda: dense(nn.Flatten(0), nn.Linear(6, 4)), FLAT, "'0'"),
    "not flattened": (lambda: dense(nn.Conv2d(*KERNEL), nn.Linear(32, 2)), IMAGE, "run on examples"),
    "nested": (lambda: dense(nn.Linear(6, 4), nn.Sequential(nn.Tanh()), nn.Linear(4, 2)), FLAT, "'1'"),
    "dtypes": (lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2).double()), FLAT, "one dtype"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", CHANGES)
def test_hooks_and_computed_weights_are_named(name: str) -> None:
    """A copy has no hooks, masks or parametrisations: a model is refused by the name of what has one, in a line."""
    for change in CHANGES[name]:
        model = dense()
        change(model)
        for convert in (lambda m: from_sequential(m, (6,)), lambda m: load_sequential(mlp([6, 4, 2]), m)):
            with pytest.raises(InputError, match=name) as refusal:
                convert(model)
            assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", STRANGE)
def test_modules_that_compute_something_else_are_named(name: str) -> None:
    """Whatever is not exactly one of the known modules is refused by name, in a line."""
    make, shape, word = STRANGE[name]
    with pytest.raises(InputError, match=word) as refusal:
        from_sequential(make(), shape)
    assert "\n" not in str(refusal.value)


def test_the_network_is_compared_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no check of modules has seen shows in an example."""
    monkeypatch.setattr(nn.Tanh, "forward", lambda self, x: torch.tanh(1.1 * x))
    with pytest.raises(InputError, match="away from the network"):
        from_sequential(dense(), (6,))
    monkeypatch.undo()
    broken = dense()
    with torch.no_grad():
        broken[0].weight[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"finite.*0\.weight"):
        from_sequential(broken, (6,))


def test_networks_with_computed_weights_become_no_sequence() -> None:
    """The way back would lose masks and hooks too."""
    net = mlp([6, 4, 2])
    prune.l1_unstructured(net.layers[0], "weight", amount=0.5)
    with pytest.raises(InputError, match=r"'layers\.0\.weight'"):
        to_sequential(net)


RESPONSES = (nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid, nn.Softplus, nn.Identity, Leaky, nn.Dropout)
TWISTS = ("forward hook", "backward hook", "tensor hook", "pruned", "parametrised", "tied", "frozen", "patched")


REFUSED = TWISTS[:5] + TWISTS[7:]


@st.composite
def models(draw: st.DrawFn) -> tuple[nn.Sequential, bool]:
    """Small nn.Sequentials, with repeated instances, subclasses, hooks, masks and ties; whether all is known."""
    torch.manual_seed(draw(st.integers(0, 9)))
    depth, width = draw(st.integers(1, 3)), draw(st.integers(2, 4))
    shared = [draw(st.sampled_from(RESPONSES))() for _ in range(2)]
    modules: list[nn.Module] = [nn.Flatten()] if draw(st.booleans()) else []
    layers = [draw(st.sampled_from((nn.Linear, nn.Linear, nn.Linear, Halved)))(width, width) for _ in range(2)]
    for _ in range(depth):
        fresh = draw(st.booleans())
        layer = nn.Linear(width, width, bias=draw(st.booleans())) if fresh else draw(st.sampled_from(layers))
        modules.append(layer)
        if draw(st.booleans()):
            modules.append(draw(st.sampled_from(shared)))
    kind = draw(st.sampled_from((nn.Sequential, nn.Sequential, nn.Sequential, Built, Doubled)))
    model = kind(*modules, nn.Linear(width, 2)).double()
    linear = [m for m in model if isinstance(m, nn.Linear)]
    twist, chosen = draw(st.sampled_from((None, None, *TWISTS))), draw(st.sampled_from(linear))
    if twist == "forward hook":
        chosen.register_forward_hook(lambda _, __, out: 2 * out)
    elif twist == "backward hook":
        chosen.register_full_backward_hook(lambda _, grads, __: tuple(None if g is None else -g for g in grads))
    elif twist == "tensor hook":
        chosen.weight.register_hook(lambda g: 2 * g)
    elif twist == "pruned":
        prune.l1_unstructured(chosen, "weight", amount=0.5)
    elif twist == "parametrised":
        parametrizations.weight_norm(chosen)
    elif twist == "tied" and chosen.weight.shape == linear[0].weight.shape:
        chosen.weight = linear[0].weight
    elif twist == "frozen":
        chosen.weight.requires_grad_(False)
    elif twist == "patched":
        chosen.forward = lambda x: x[:, :2] * 2  # type: ignore[method-assign]
    strange = any(isinstance(m, Halved | Leaky | nn.Dropout) for m in model) or kind is Doubled
    return model, not strange and twist not in REFUSED


def _converts_or_is_refused(model: nn.Sequential, known: bool) -> None:
    shape = (next(m for m in model.modules() if isinstance(m, nn.Linear)).in_features,)
    if known:
        agree(model, shape)
        return
    with pytest.raises(InputError, match=r"^Argument model must .*$") as refusal:
        from_sequential(model, shape)
    assert "\n" not in str(refusal.value)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(models())
def test_random_models_convert_exactly_or_are_refused(drawn: tuple[nn.Sequential, bool]) -> None:
    """Outputs and gradients are autograd's where all modules are known; else an InputError says why, in a line."""
    _converts_or_is_refused(*drawn)


@pytest.mark.full
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(models())
def test_many_random_models_convert_exactly_or_are_refused(drawn: tuple[nn.Sequential, bool]) -> None:
    """The same, of 300."""
    _converts_or_is_refused(*drawn)


def test_layers_of_a_recorded_chain_are_those_of_its_modules() -> None:
    """`from_sequential` and `from_module(form="layers")` make one network of a chain whose poolings stand behind
    responses: parameters, outputs and EP's gradients with the same bits, though one reads modules by their classes
    and the other the calls that they make."""
    torch.manual_seed(0)
    chain = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3, stride=2), nn.Hardtanh(0, 1),
        nn.Flatten(), nn.Linear(27, 8), nn.Sigmoid(), nn.Linear(8, 3),
    )  # fmt: skip
    x, y = torch.randn(4, 2, 16, 16), torch.rand(4, 3)
    nets = from_sequential(chain, (2, 16, 16)), from_module(chain, x, form="layers")
    step = EquilibriumPropagation(SquaredError(), beta=1e-2)
    for net in nets:
        step.backward(net, x, y)
    one, two = ({name: (p, p.grad) for name, p in net.named_parameters()} for net in nets)
    assert one.keys() == two.keys()
    assert torch.equal(nets[0](x), nets[1](x))
    for name, (p, grad) in one.items():
        assert torch.equal(p, two[name][0])
        assert grad is not None
        assert torch.equal(grad, two[name][1])


def test_a_nested_sequential_is_named() -> None:
    """The message speaks of a first layer, where the nested model does begin with one."""
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Linear(4, 2))
    with pytest.raises(InputError, match="within another is not taken apart"):
        from_sequential(model, (3,))


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ([nn.Linear(5, 0)], "it has no inputs or no outputs"),
        ([nn.Linear(5, 0), nn.ReLU(), nn.Linear(0, 2)], "it has no inputs or no outputs"),
        ([nn.Conv2d(1, 0, 3), nn.Flatten(), nn.Linear(0, 2)], "it has no inputs or no outputs"),
        ([nn.LazyLinear(3)], r"run it once on an example, but was one whose module '0' is lazy \(LazyLinear\)"),
        ([nn.Flatten()], "hold at least one Linear or Conv2d, but was one of Flatten"),
        ([], "hold at least one Linear or Conv2d, but was an empty nn.Sequential"),
        ([nn.Linear(5, 2), nn.ReLU()], "end in a Linear without a response, but was one that ends in ReLU"),
        ([nn.Conv2d(1, 2, 3)], "end in a Linear without a response, but was one that ends in Conv2d"),
        ([nn.Linear(5, 4), nn.ReLU6(), nn.Linear(4, 2)], r"ReLU6 clips to \[0, 6\], and units here"),
        ([nn.Linear(5, 4), nn.Hardtanh(-2, 2), nn.Linear(4, 2)], r"Hardtanh clips to \[-2, 2\]"),
    ],
)
def test_models_without_a_use_are_told_why(modules: list[nn.Module], words: str) -> None:
    """In the words of the model: of layers of a network, its user knows nothing yet."""
    shape = (1, 8, 8) if any(isinstance(m, nn.Conv2d) for m in modules) else (5,)
    with pytest.raises(InputError, match=f"^Argument model must .*{words}"):
        from_sequential(nn.Sequential(*modules), shape)


@pytest.mark.parametrize("shape", [5, 5.0, (5.0,), "5", None, (), (0,), (-5,), (True,)])
def test_shapes_that_are_none_are_refused(shape: object) -> None:
    with pytest.raises(InputError, match="Argument input_shape must be the shape of an example"):
        from_sequential(nn.Sequential(nn.Linear(5, 2)), shape)  # type: ignore[arg-type]
    from_sequential(nn.Sequential(nn.Linear(5, 2)), torch.Size([5]))
