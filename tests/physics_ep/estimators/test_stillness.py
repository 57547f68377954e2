"""An energy is one function for the length of a step: batch norms, dropout, attention, autocast."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils import parametrize, prune

from hardware_models import ConvHopfieldNetwork, HopfieldNetwork, OscillatorNetwork, ResistiveNetwork
from hardware_models.hopfield import LangevinHopfield
from physics_ep import EnergySystem, EquilibriumPropagation, SquaredError, relax, simulate
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp
from validation import (
    bptt_gradient,
    check_system,
    finite_difference_gradient,
    gradient_report,
    implicit_gradient,
)
from validation.gradients import total_error

COST = SquaredError()


class Spring(EnergySystem):
    """E = |t(s) - f(x)|^2 / 2 + |s|^4 / 4, with modules in f or in t."""

    def __init__(self, before: nn.Module | None = None, within: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 6)
        self.before, self.within = before or nn.Identity(), within or nn.Identity()

    def initial_state(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(len(x), 6, dtype=self.dtype),)

    def outputs(self, state: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return state[0][:, :3]

    def energy(self, state: tuple[torch.Tensor, ...], x: torch.Tensor) -> torch.Tensor:
        (s,) = state
        return (0.5 * (self.within(s) - self.before(self.linear(x))).square() + 0.25 * s**4).sum(1)


class Attending(EnergySystem):
    """E = |s|^2 / 2 - attention(s) . s / 5 - s . x over five tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def initial_state(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(len(x), 5, 4, dtype=self.dtype),)

    def outputs(self, state: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return state[0].mean(1)[:, :3]

    def energy(self, state: tuple[torch.Tensor, ...], x: torch.Tensor) -> torch.Tensor:
        (s,) = state
        q, k, v = (f(s)[:, None] for f in (self.q, self.k, self.v))
        heads = scaled_dot_product_attention(q, k, v)[:, 0]
        return (0.5 * s.square() - 0.2 * heads * s - s * x).sum((1, 2))


class Fixed(Spring):
    """A spring whose weights are a buffer."""

    def __init__(self) -> None:
        super().__init__()
        del self.linear
        self.register_buffer("weight", torch.randn(6, 6, dtype=torch.float64) / 5)

    def energy(self, state: tuple[torch.Tensor, ...], x: torch.Tensor) -> torch.Tensor:
        (s,) = state
        return (0.5 * (s - x @ self.weight.T).square() + 0.25 * s**4).sum(1)


def batch(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(8, n, generator=generator, dtype=torch.float64).to(dtype) for n in (6, 3))  # type: ignore


@pytest.mark.full
def test_running_statistics_take_in_each_step_once() -> None:
    """Hundreds of evaluations count as one: the running mean is nn.BatchNorm1d's own after one forward pass."""
    x, y = batch()
    norm, ours = nn.BatchNorm1d(6), Spring(nn.BatchNorm1d(6))
    for count in (1, 2):
        norm(ours.linear(x))
        EquilibriumPropagation(COST).backward(ours, x, y)
        assert int(ours.before.num_batches_tracked) == count
        torch.testing.assert_close(ours.before.running_mean, norm.running_mean)
        torch.testing.assert_close(ours.before.running_var, norm.running_var)
    relax(ours, x)
    gradient_report(ours, x, y, COST)
    assert int(ours.before.num_batches_tracked) == 2
    exact = finite_difference_gradient(ours, x, y, COST)
    assert total_error(implicit_gradient(ours, x, y, COST), exact) < 1e-7


@pytest.mark.parametrize("act", ["backward", "relax", "implicit", "simulate"])
def test_batch_norm_of_the_state_is_refused_in_training_mode(act: str) -> None:
    """Examples would feel each other, and E(free) and E(nudged) would be energies of different systems."""
    x, y = batch()
    system = Spring(within=nn.BatchNorm1d(6))
    acts = {
        "backward": lambda: EquilibriumPropagation(COST).backward(system, x, y),
        "relax": lambda: relax(system, x),
        "implicit": lambda: implicit_gradient(system, x, y, COST),
        "simulate": lambda: simulate(system, x, duration=1.0),
    }
    with pytest.raises(InputError, match="'within' does"):
        acts[act]()
    system.eval()
    acts[act]()


def test_dropout_is_refused_where_the_energy_calls_it() -> None:
    """An energy that draws a new mask at each evaluation has no equilibrium."""
    x, y = batch()
    for module in (nn.Dropout(0.5), nn.RReLU()):
        system = Spring(module)
        with pytest.raises(InputError, match="draw no random numbers in its energy or force, but 'before'"):
            EquilibriumPropagation(COST).backward(system, x, y)
        EquilibriumPropagation(COST).backward(system.eval(), x, y)
        assert "forward" not in vars(module)
    unused = Spring()
    unused.attached = nn.Dropout(0.5)
    EquilibriumPropagation(COST).backward(unused, x, y)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_attention_has_second_derivatives(dtype: torch.dtype) -> None:
    """The fused kernels have none: implicit differentiation, Newton and BPTT take the plain one."""
    x, y = torch.randn(4, 5, 4, dtype=dtype), torch.randn(4, 3, dtype=dtype)
    system = Attending().to(dtype)
    exact = finite_difference_gradient(system, x, y, COST)
    assert total_error(implicit_gradient(system, x, y, COST), exact) < 1e-6
    assert total_error(bptt_gradient(system, x, y, COST), exact) < 1e-4
    assert bool(relax(system, x, solver="trust_region").converged.all())
    phase = system.phase(system.prepare(x))  # outside of any step
    state = relax(system, x).state
    phase.hessian_product(state, state)


@pytest.mark.parametrize("system", [Spring().requires_grad_(False), Fixed()], ids=["frozen", "buffers"])
def test_a_system_without_anything_to_train_says_so(system: EnergySystem) -> None:
    """It relaxes, and tells dC/dx; asked for a gradient of nothing, it says so in one sentence."""
    x, y = batch(system.dtype)
    assert bool(relax(system, x).converged.all())
    assert relax(system, x).state[0].dtype == system.dtype
    calls = (
        lambda: EquilibriumPropagation(COST).backward(system, x, y),
        lambda: gradient_report(system, x, y, COST),
        lambda: implicit_gradient(system, x, y, COST),
        lambda: bptt_gradient(system, x, y, COST),
        lambda: finite_difference_gradient(system, x, y, COST),
    )
    for call in calls:
        with pytest.raises(InputError, match="must have a parameter that requires a gradient"):
            call()
    step = EquilibriumPropagation(COST, beta=1e-3).backward(system, x, y, input_gradient=True)
    moved = x + 1e-4 * step.input_gradient / step.input_gradient.norm()
    costs = [float(COST(system.outputs(relax(system, at).state), y).mean()) for at in (x, moved)]
    assert (costs[1] - costs[0]) / 1e-4 == pytest.approx(float(step.input_gradient.norm()), rel=2e-2)


BUILT_IN = {
    "hopfield": lambda: HopfieldNetwork([6, 5, 3], activation="tanh"),
    "langevin": lambda: LangevinHopfield([6, 5, 3]),
    "resistive": lambda: ResistiveNetwork([6, 5, 3], scale=1.0),
    "oscillator": lambda: OscillatorNetwork([6, 5, 3]),
    "pcn": lambda: mlp([6, 5, 3]),
    "convolution": lambda: ConvHopfieldNetwork([1, 8, 8], [4, 6], 3),
}


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("width", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_physics(name: str, width: torch.dtype) -> None:
    """Under autocast a step is the float32 step, bit for bit: rounded sweeps would have no residual to trust."""
    gradients = []
    for on in (False, True):
        system = BUILT_IN[name]()
        shape = (1, 8, 8) if name == "convolution" else (6,)
        x, y = torch.rand(4, *shape, generator=torch.Generator().manual_seed(1)), torch.ones(4, 3) / 3
        with torch.autocast("cpu", dtype=width, enabled=on):
            EquilibriumPropagation(COST, beta=0.01 * system.nudge_scale).backward(system, x, y)
            relax(system, x)
        gradients.append([p.grad for p in system.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("width", [torch.bfloat16, torch.float16])
def test_narrow_types_work_to_a_percent_or_are_refused_in_words(name: str, width: torch.dtype) -> None:
    """Networks with exact updates of their own work in bfloat16; others say that it takes float32."""
    works = width == torch.bfloat16 and name in ("resistive", "pcn")
    system = BUILT_IN[name]().to(width)
    shape = (1, 8, 8) if name == "convolution" else (6,)
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(1)).to(width)
    y = (torch.ones(4, 3) / 3).to(width)
    ep = EquilibriumPropagation(COST, beta=0.01 * system.nudge_scale)
    if not works:
        with pytest.raises(InputError, match=r"be float32(,| or) float64"):
            ep.backward(system, x, y)
        return
    ep.backward(system, x, y)
    exact = implicit_gradient(system, x, y, COST)
    assert total_error({n: p.grad for n, p in system.named_parameters()}, exact) < 0.02


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


@pytest.mark.full
@pytest.mark.parametrize("name", ["hopfield", "pcn", "langevin", "spring"])
@pytest.mark.parametrize("kind", ["pruned", "parametrised"])
def test_simulation_and_checks_see_effective_weights(name: str, kind: str) -> None:
    """A mask that is set anew counts at once; a system with the effective weights written out moves likewise."""
    system = (Spring() if name == "spring" else BUILT_IN[name]()).double()
    plain = (Spring() if name == "spring" else BUILT_IN[name]()).double()
    path = next(n for n, p in plain.named_parameters() if p.ndim == 2)
    module, own = (s.get_submodule(path.rpartition(".")[0]) for s in (system, plain))
    with torch.no_grad():
        if kind == "pruned":
            prune.random_unstructured(module, "weight", amount=0.5)
            module.weight_mask.copy_(torch.rand(own.weight.shape).round())  # the stored product is stale now
            own.weight.mul_(module.weight_mask)
        else:
            parametrize.register_parametrization(module, "weight", Doubled(), unsafe=True)
            own.weight.mul_(2)
    x, y = batch(torch.float64)
    courses = [simulate(s, x, duration=1.0) for s in (system, plain)]
    torch.testing.assert_close(courses[0].energy, courses[1].energy, rtol=1e-12, atol=1e-12)
    check_system(system, x, y)
