"""What once stopped or slowed a run on a device: indices, random numbers, netlists, refusals, draws on the host."""

from __future__ import annotations

import copy
import time
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from hardware_models import (
    AnalogHopfieldCircuit,
    Circuit,
    DeviceModel,
    HopfieldNetwork,
    LangevinHopfield,
    OscillatorGraph,
    OscillatorNetwork,
    ResistiveNetwork,
    UnitGraph,
    map_pcn,
)
from hardware_models.devices.crossbars import normal, stream
from physics_ep import CrossEntropy, EquilibriumPropagation, SquaredError, relax, simulate
from physics_ep.errors import InputError
from physics_ep.placement import on_host
from physics_ep.predictive_coding import mlp
from physics_ep.runs.training import train
from tests.support.device_systems import CASES
from tests.support.simulated_gpu import Counts, SimulatedGpu
from validation import check_system, infer_early

FULL, SLOW = (partial(pytest.param, marks=mark) for mark in (pytest.mark.full, pytest.mark.slow))


def hopfield() -> HopfieldNetwork:
    return HopfieldNetwork([3, 4, 2], activation="tanh")


def batch(features: int = 3, outputs: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, features, generator=generator), torch.rand(2, outputs, generator=generator)


# -- random numbers and times meet device tensors -------------------------------------------------------------


@pytest.mark.parametrize("name", [FULL("hopfield"), FULL("pcn"), SLOW("oscillator")])
def test_system_checks_run_on_a_device(gpu: SimulatedGpu, name: str) -> None:
    """Directions and states that the checks draw on the CPU are moved to where the system is."""
    systems = {"hopfield": hopfield, "pcn": lambda: mlp([3, 4, 2], activation="tanh"), "oscillator": oscillators}
    x, y = batch()
    check_system(systems[name]().to("cuda"), x.to("cuda"), y.to("cuda"))


def oscillators() -> OscillatorNetwork:
    return OscillatorNetwork([3, 4, 2])


@pytest.mark.parametrize("temperature", [SLOW(0.0), FULL(1e-6)])
def test_early_inference_has_its_rows_on_a_device(gpu: SimulatedGpu, temperature: float) -> None:
    """Times are where the layers are, and noise is drawn there: no step of the course uploads any."""
    x, y = batch()
    options = {"times": [0.05, 0.1], "temperature": temperature, "runs": 2 if temperature else 1}
    here = infer_early(mlp([3, 4, 2], activation="tanh"), x, y, SquaredError(), **options).rows
    net = mlp([3, 4, 2], activation="tanh").to("cuda")
    with gpu.counting() as counts:
        there = infer_early(net, x.to("cuda"), y.to("cuda"), SquaredError(), **options).rows
    assert np.allclose(np.array(there), np.array(here), rtol=1e-9, equal_nan=True)
    assert counts.uploads < 20


@pytest.mark.full
def test_starts_are_drawn_by_a_generator_of_the_device(gpu: SimulatedGpu) -> None:
    """`random_state` takes a generator of either side."""
    x = batch()[0].to("cuda")
    for system in (hopfield(), oscillators()):
        for place in ("cpu", "cuda"):
            state = system.to("cuda").random_state(x, torch.Generator(place).manual_seed(1))
            assert all(s.device.type == "cuda" for s in state)


# -- netlists and graphs of networks on a device --------------------------------------------------------------


def test_graphs_and_circuits_of_networks_on_a_device_are_those_of_the_cpu(gpu: SimulatedGpu) -> None:
    """`to_circuit` reads weights wherever they are, and what it makes computes on the CPU."""
    x, _ = batch()
    for network in (hopfield(), ResistiveNetwork([3, 4, 2], scale=1.0)):
        moved = copy.deepcopy(network).to("cuda")
        here, there = network.to_circuit(), moved.to_circuit()
        assert here.device == there.device == torch.device("cpu")
        for name, value in here.state_dict().items():
            assert torch.equal(there.state_dict()[name], value)
        if isinstance(network, ResistiveNetwork):
            assert torch.equal(moved.circuit_inputs(x.to("cuda")), network.circuit_inputs(x))
    analog = AnalogHopfieldCircuit.from_network(hopfield().to("cuda"))
    assert torch.equal(analog.weight, AnalogHopfieldCircuit.from_network(hopfield()).weight)


@pytest.mark.full
def test_parts_of_mapped_networks_on_a_device_are_those_of_the_cpu(gpu: SimulatedGpu) -> None:
    """Circuits of mapped resistive networks, and graphs of mapped oscillators, are drawn of a copy on the CPU."""
    x, _ = batch()
    net = mlp([3, 4, 2], activation="relu")
    here, there = (map_pcn(copy.deepcopy(net).to(d), "resistive", calibration=x.to(d)) for d in ("cpu", "cuda"))
    ours, theirs = here.to_circuit().circuit.parts, there.to_circuit().circuit.parts
    assert ours.nodes == theirs.nodes
    for kind, group in ours.groups.items():
        assert np.array_equal(theirs.groups[kind].values, group.values)
    assert there.system.device.type == "cuda"
    here, there = (map_pcn(copy.deepcopy(net).to(d), "oscillator", calibration=x.to(d)) for d in ("cpu", "cuda"))
    one, two = here.to_graph(), there.to_graph()
    for table in ("couplings", "fields", "inputs", "frequencies"):
        assert np.array_equal(getattr(one, table), getattr(two, table))


def test_a_graph_of_a_network_on_a_device_is_on_that_device(gpu: SimulatedGpu) -> None:
    """`OscillatorGraph.from_network` reads weights wherever they are, and the graph goes where they were."""
    graph = OscillatorGraph.from_network(oscillators().to("cuda"))
    assert graph.device.type == "cuda"
    x = batch()[0]
    there = relax(graph, x.to("cuda")).require().state[0]
    here = relax(OscillatorGraph.from_network(oscillators()), x).require().state[0]
    assert torch.equal(there.cpu(), here)


# -- refusals -------------------------------------------------------------------------------------------------


def _unit_graph() -> UnitGraph:
    return UnitGraph.from_edges(3, [[0, 1], [1, 2]], [0.5, 0.5], inputs=[0], outputs=[2])


def _divider() -> Circuit:
    return ResistiveNetwork([3, 2], scale=1.0).to_circuit()


HOSTED = {
    "unit graph": _unit_graph,
    "analog circuit": lambda: AnalogHopfieldCircuit.from_network(hopfield()),
    "circuit": _divider,
    "sparse oscillators": lambda: OscillatorGraph.lattice(64, field=1.0, outputs=[0]),
}


@pytest.mark.parametrize("name", HOSTED)
@pytest.mark.parametrize("move", ["to", "cuda", "double"])
def test_systems_of_the_cpu_refuse_a_device_at_once(gpu: SimulatedGpu, name: str, move: str) -> None:
    """Moving the system is refused, naming the system, the device, and what runs where; nothing has moved then."""
    system = HOSTED[name]()
    before = {n: t.clone() for n, t in system.state_dict().items()}
    if move == "double":
        assert system.double() is system
        return
    with pytest.raises(
        InputError, match=r"^Argument device must be 'cpu' for \w+, which .* there .*, but was cuda"
    ):
        _ = system.to("cuda") if move == "to" else system.cuda()
    assert all(t.device.type == "cpu" for t in system.state_dict().values())
    assert all(torch.equal(t, before[n]) for n, t in system.state_dict().items())


def test_training_of_an_analog_circuit_on_a_device_is_refused_at_once(gpu: SimulatedGpu) -> None:
    """Before data are read or weights are moved: no step runs, and no second passes.

    The first time takes 3 s more, of which 2.5 s are the imports of torch._dynamo, which the simulation asks for.
    """
    few = ["data.train_examples=16", "data.test_examples=8", "training.epochs=1"]
    for _ in range(2):
        begun = time.process_time()
        with pytest.raises(InputError, match=r"device must be 'cpu' for AnalogHopfieldCircuit, .* but was cuda"):
            train("analog-hopfield-digits", overrides=few, device="cuda")
    assert time.process_time() - begun < 1


def test_batches_on_a_device_are_refused_by_systems_of_the_cpu(gpu: SimulatedGpu) -> None:
    """A tensor of a device that reaches compiled loops is refused in a sentence that says where those run."""
    x, _ = batch(1, 1)
    with pytest.raises(InputError, match=r"x must be float64 on the CPU for a UnitGraph, but was .* on cuda:0"):
        relax(_unit_graph(), x.double().to("cuda"))
    mapped = map_pcn(mlp([1, 2, 1], activation="relu"), "resistive", calibration=x)
    with pytest.raises(InputError, match="netlists compute on the CPU, but were given a tensor on cuda:0"):
        mapped.to_circuit().sources(x.to("cuda"))


def test_a_copy_on_the_host_is_made_only_where_it_is_needed(gpu: SimulatedGpu) -> None:
    """`on_host` hands back the module itself if it is on the CPU."""
    system = hopfield()
    assert on_host(system) is system
    moved = hopfield().to("cuda")
    twin = on_host(moved)
    assert twin.device.type == "cpu"
    assert moved.device.type == "cuda"


# -- noise is drawn where it is added -------------------------------------------------------------------------


OTHERS = ("resistive", "oscillator")
NOISY = DeviceModel(read_noise=1e-3, conductance_noise=1e-2, temperature=300.0, averaging_time=1e-6)


@pytest.mark.parametrize("substrate", ["hopfield", *(pytest.param(n, marks=pytest.mark.full) for n in OTHERS)])
def test_noise_of_a_mapped_step_is_drawn_on_the_device(gpu: SimulatedGpu, substrate: str) -> None:
    """A step with noise uploads no more than one without: 354 MiB a step once, at 64x64 photographs."""
    case = CASES[f"mapped-{substrate}"]
    x, y = case.examples("cuda")
    found: list[Counts] = []
    for model in (DeviceModel(), _noisy(substrate)):
        mapped = map_pcn(mlp([8, 16, 16, 10], activation="relu").to("cuda"), substrate, model, calibration=x)
        assert mapped.system.reads.device.type == "cuda"
        with gpu.counting() as counts:
            mapped.gradient(x, y, CrossEntropy(), beta=0.01, tolerance=1e-3)
        found.append(counts)
    assert found[1].uploaded <= found[0].uploaded + 64  # a beta for each nudge, which are not stacked


def _noisy(substrate: str) -> DeviceModel:
    return NOISY if substrate != "oscillator" else DeviceModel(read_noise=1e-3, conductance_noise=1e-2)


def test_noise_of_a_board_follows_it(gpu: SimulatedGpu) -> None:
    """A system that moves takes its noise along: seeded, so that two boards of one seed draw alike."""
    x = CASES["pcn"].examples()[0]
    boards = [map_pcn(mlp([8, 4, 10]), "hopfield", NOISY, seed=s, calibration=x).system for s in (0, 0, 1)]
    draws = [torch.randn(5, generator=b.reads) for b in boards]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    moved = [b.to("cuda").reads for b in boards]
    drawn = [torch.randn(5, generator=g, device="cuda").cpu() for g in moved]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_draws_have_the_same_law_on_either_side(gpu: SimulatedGpu, place: str) -> None:
    """Standard normal numbers, by the test of Kolmogorov and Smirnov: 20000 of them, of ten seeds.

    The CPU's are the numbers that they were before devices drew their own.
    """
    like = torch.zeros(20000, device=place)
    drawn = torch.stack([normal(like, stream(seed, "law", device=place)) for seed in range(10)]).cpu()
    assert stats.kstest(drawn.flatten().numpy(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(drawn.numpy())[np.triu_indices(10, 1)]).max() < 0.04
    if place == "cpu":
        assert torch.equal(drawn[3], torch.randn(20000, generator=stream(3, "law"), dtype=torch.float32))


@pytest.mark.full
def test_noise_in_time_is_drawn_on_the_device(gpu: SimulatedGpu) -> None:
    """A simulation at a temperature uploads as much for 40 steps as for 20."""
    x = batch()[0].double().to("cuda")
    system = LangevinHopfield([3, 4, 2]).double().to("cuda")
    uploads = []
    for steps in (20, 40):
        with gpu.counting() as counts:
            simulate(system, x, duration=2.0, steps=steps, temperature=1e-3)
        uploads.append(counts.uploads)
    assert uploads[0] == uploads[1]


def test_an_estimate_takes_a_generator_of_either_side(gpu: SimulatedGpu) -> None:
    """Reads of the CPU are copied to the device: the numbers of a run on the CPU, again."""
    x, y = CASES["pcn"].examples()
    model = DeviceModel(read_noise=1e-3)
    found = []
    for place in ("cpu", "cuda"):
        mapped = map_pcn(mlp([8, 4, 10]).to(place), "hopfield", model, calibration=x.to(place))
        reads = torch.Generator().manual_seed(2)
        gradient = mapped.gradient(x.to(place), y.to(place), CrossEntropy(), beta=0.01, reads=reads)
        found.append({n: g.cpu() for n, g in gradient.items()})
    assert all(torch.equal(found[0][n], found[1][n]) for n in found[0])


# -- solves of a medium ---------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()])
def test_a_medium_on_a_device_is_solved_there(gpu: SimulatedGpu, cost) -> None:
    """No step of a FitzHugh-Nagumo medium copies a field to the host, whatever couples its outputs.

    What is read in all, residuals and losses, is less than one field u of the batch in float64: 4 x 12 numbers.
    """
    case = CASES["fitzhugh-nagumo"]
    x = case.examples("cuda")[0]
    y = cost.encode(torch.arange(4), 10, torch.float32).to("cuda")
    system = case.build(x)
    with gpu.counting() as counts:
        EquilibriumPropagation(cost, beta=0.01).backward(system, x, y)
    assert counts.downloaded < 4 * 12 * 8
    assert counts.uploads <= 4
    twin = case.build(x.cpu())
    EquilibriumPropagation(cost, beta=0.01).backward(twin, x.cpu(), y.cpu())
    for (name, p), q in zip(system.named_parameters(), twin.parameters(), strict=True):
        assert (p.grad.cpu() - q.grad).norm() <= 1e-5 * q.grad.norm(), name
