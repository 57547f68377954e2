"""Models as users and libraries write them: if one fails, the record of its forward pass misses what it does."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from physics_ep import CrossEntropy, EnergySystem, EquilibriumPropagation, relax
from physics_ep.errors import InputError
from physics_ep.predictive_coding import from_module
from tests.support.user_models import OTHERS, QUICK, Experts, StepByStep

COST = CrossEntropy()


def propagated(net: EnergySystem, x: torch.Tensor, y: torch.Tensor, beta: float) -> list[torch.Tensor]:
    """EP's gradient with dropout drawn from one seed, zeros for what gets none."""
    torch.manual_seed(3)
    net.zero_grad(set_to_none=True)
    EquilibriumPropagation(COST, beta=beta, tolerance=1e-13, on_unconverged="warn").backward(net, x, y)
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters() if p.requires_grad]


CASES = [
    *((name, "evaluation") for name in QUICK),
    *(("spectral norm", "training"), ("replaced buffers", "training")),
    *(pytest.param(name, "evaluation", marks=pytest.mark.full) for name in OTHERS),
    pytest.param("adapted", "training", marks=pytest.mark.full),
]
"""Modes beside the models that are another function in each."""


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_outputs_gradients_and_statistics_are_the_models(name: str, mode: str) -> None:
    """Outputs to 1e-12 for two sizes of batch, EP's gradient against autograd's with order 2 in beta, and the
    buffers that the model leaves after a batch."""
    case = (QUICK | OTHERS)[name]
    torch.manual_seed(1)
    model = case.build().double().train(mode == "training")
    shape = (5, *case.shape)
    x = torch.randint(0, case.words, shape) if case.words else torch.randn(shape, dtype=torch.float64)
    y = torch.arange(5) % 4
    net, before = from_module(model, x), copy.deepcopy(model.state_dict())
    assert len(net.units) >= case.units
    assert list(net.state_dict()) == list(model.state_dict())
    if mode == "evaluation":
        for batch in (x, torch.cat([x, x.flip(0)])[:7]):
            wanted = model(batch).detach()
            outputs = net.outputs(relax(net, batch).state)
            torch.testing.assert_close(outputs, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))
    torch.manual_seed(3)
    COST(model(x), y).mean().backward()
    exact = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters() if p.requires_grad]
    errors = []
    for beta in (4e-4, 2e-4):
        net.load_state_dict(before)
        found = propagated(net, x, y, beta)
        away = sum(float((f - g).square().sum()) for f, g in zip(found, exact, strict=True))
        errors.append(math.sqrt(away / sum(float(g.square().sum()) for g in exact)))
    assert errors[1] < 1e-3
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)
    for key, value in model.state_dict().items():
        assert float((net.state_dict()[key] - value).to_dense().abs().max()) <= 1e-12, key


class Looped(StepByStep):
    """One example after the other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([super(Looped, self).forward(x[k : k + 1]) for k in range(len(x))])


class Slope(Experts):
    """The derivative of an energy by the input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(torch.tanh(self.embed(x)).sum(), x, create_graph=True)
        return self.gate(torch.tanh(slope))


class Halved(Experts):
    """A part in half the precision."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.embed(x)
        return self.gate(torch.tanh(x.float()))


class Pair(Experts):
    """A model of two inputs."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self.gate(torch.tanh(self.embed(x)) * mask)


class Mixed(nn.Module):
    """A sum of maps with shares that are learnt (Liu et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.head = nn.ModuleList(nn.Linear(6, 8) for _ in range(2)), nn.Linear(8, 3)
        self.shares = nn.Parameter(torch.randn(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [share * part(x) for share, part in zip(self.shares.softmax(0), self.maps, strict=True)]
        return self.head(torch.relu(parts[0] + parts[1]))


class Counting(nn.Sequential):
    """Another function at each call."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(x) / self.calls


def test_what_no_record_holds_is_told_with_its_place() -> None:
    """Each in one line; layers are compared with the model in a call of its own, on numbers of its own."""
    x, steps = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 3, 6, dtype=torch.float64)
    normed = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()
    counting = Counting(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    words = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.ReLU(), nn.Linear(8, 3)).double()
    cases: list[tuple[nn.Module, torch.Tensor, str, str]] = [
        (Looped().double(), steps, "any", r"size of the batch, first at .*test_user_models\.py:\d+ \(return"),
        (Slope().double(), x, "any", r"torch\.autograd\.grad.*test_user_models\.py:\d+ \(\(slope"),
        (Halved(), x.float(), "any", r"torch\.autocast does in torch\.bfloat16 at .*test_user_models\.py:\d+"),
        (Pair().double(), x, "any", "'mask' .a module around the model may take one tensor"),
        (counting, x, "any", "one function of its input"),
        (counting, x, "layers", "compute what its layers do"),
        (normed, x, "layers", "'1' normalises by the statistics of the batch"),
        (Mixed().double(), x, "layers", "computes weights from parameters that the model trains"),
        (words, torch.ones(2, 2, dtype=torch.long), "layers", "takes whole numbers"),
    ]
    for model, example, form, says in cases:
        with pytest.raises(InputError, match=says) as refused:
            from_module(model, example, form=form)  # type: ignore[call-overload]
        assert "\n" not in str(refused.value)
