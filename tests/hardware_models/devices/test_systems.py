"""Plain substrates on devices: what their cells hold, what the physics makes of it, and how it is learnt."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hardware_models import ConvHopfieldNetwork, DeviceModel, HopfieldNetwork, OscillatorNetwork, ResistiveNetwork
from hardware_models.devices.crossbars import programmed, programmed_singly
from hardware_models.devices.pulses import PulsedArray
from hardware_models.devices.systems import OnDevice
from physics_ep import EquilibriumPropagation, SquaredError, relax
from physics_ep.cli import main
from physics_ep.config import load_config, load_system
from physics_ep.errors import InputError
from physics_ep.estimators.propagation import estimate_gradient
from physics_ep.runs.training import train
from validation import finite_difference_gradient, implicit_gradient, tolerance
from validation.experiments.in_situ import learn_in_situ

ERRING = DeviceModel(
    levels=32, programming_noise=0.02, device_mismatch=0.05, stuck_off=0.02, stuck_on=0.01, g_min=2e-6, g_max=5e-5
)
KINDS: dict[str, tuple[Callable[..., OnDevice], tuple[int, ...]]] = {
    "hopfield": (lambda **o: HopfieldNetwork([6, 8, 3], "tanh", **o), (6,)),
    "conv-hopfield": (lambda **o: ConvHopfieldNetwork([1, 4, 4], [3], 3, "logistic", **o), (1, 4, 4)),
    "resistive": (
        lambda **o: ResistiveNetwork([6, 8, 3], "shockley", input_gain=6.0, scale=1.0, saturation=1e-6, **o),
        (6,),
    ),
    "oscillator": (lambda **o: OscillatorNetwork([6, 8, 3], **o), (6,)),
}
kinds = pytest.mark.parametrize("kind", list(KINDS))


def on(kind: str, device: object = ERRING, seed: int = 3, **options: object) -> OnDevice:
    """A small float64 system on a device, or with device=None without."""
    make, _ = KINDS[kind]
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # so that no weight is rounded before it is written
    try:
        return make(**options) if device is None else make(device=device, device_seed=seed, **options)
    finally:
        torch.set_default_dtype(default)


def examples(kind: str, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.rand((count, *KINDS[kind][1]), generator=generator, dtype=torch.float64)
    return x, torch.eye(3, dtype=torch.float64)[torch.arange(count) % 3]


def weights(system: OnDevice) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in system.named_parameters()}


def same(one: OnDevice, other: OnDevice) -> bool:
    mine = weights(one)
    return all(torch.equal(mine[name], w) for name, w in weights(other).items())


def status(line: str) -> int:
    """Exit status of a command."""
    with pytest.raises(SystemExit) as left:
        main(line.split())
    return int(left.value.code or 0)


# -- what cells hold ---------------------------------------------------------------------------------------------


@kinds
def test_levels_are_the_nearest_of_the_closed_form(kind: str) -> None:
    """Weights of an exact device with 8 levels are those of a pair (or a cell) at the nearest conductance."""
    device = DeviceModel(levels=8, g_min=2e-6, g_max=5e-5)
    ideal, held = weights(on(kind, None)), weights(on(kind, device))
    step = (device.g_max - device.g_min) / 7
    largest = {name: float(w.abs().max()) for name, w in ideal.items()}
    for name, w in ideal.items():
        wanted = w.numpy()
        if kind == "resistive":
            if name.endswith("bias"):
                assert torch.equal(held[name], w)  # current sources are no cells
                continue
            scale = max(v for n, v in largest.items() if n.endswith("conductance")) / device.g_max
            g = np.clip(wanted / scale, device.g_min, device.g_max)
            expected = scale * (device.g_min + step * np.round((g - device.g_min) / step))
        else:
            span = max(largest[name], largest[name.rpartition(".")[0] + ".weight"])
            scale = span / (device.g_max - device.g_min)
            expected = scale * step * np.sign(wanted) * np.round(np.abs(wanted) / scale / step)
        np.testing.assert_allclose(held[name].numpy(), expected, rtol=0, atol=1e-12 * largest[name])


def test_draws_have_the_statistics_of_the_device() -> None:
    """Programming noise, gain mismatch, stuck cells and drift of 20,000 cells."""
    sizes, span = [50, 200, 10], 1e-4
    ideal = ResistiveNetwork(sizes, scale=1.0).couplings[0].conductance.detach().double()

    def cells(**fields: float) -> torch.Tensor:
        system = ResistiveNetwork(
            sizes, device=DeviceModel(g_min=1e-6, g_max=span, **fields), device_seed=1, scale=1.0
        )
        return system.couplings[0].conductance.detach().double() / system.device_scales["layers.0.conductance"]

    exact = cells()
    inside = (exact > 0.2 * span) & (exact < 0.6 * span)
    noise = ((cells(programming_noise=0.01) - exact) / (span - 1e-6))[inside]
    assert abs(float(noise.mean())) < 5 * 0.01 / math.sqrt(len(noise))
    assert float(noise.std()) == pytest.approx(0.01, rel=0.03)
    gain = (cells(device_mismatch=0.1) / exact).log()[inside]
    assert float(gain.std()) == pytest.approx(0.1, rel=0.03)
    stuck = cells(stuck_off=0.1, stuck_on=0.05)
    assert float((stuck == stuck.min()).double().mean()) == pytest.approx(0.1, abs=0.02)
    assert float((stuck > 0.999 * span).double().mean()) == pytest.approx(0.05, abs=0.01)
    drifted = cells(drift_exponent=0.1, drift_time=2000.0, drift_reference=20.0)
    torch.testing.assert_close(drifted, exact * 100**-0.1, rtol=1e-5, atol=0)
    # One factor for the whole network, so that voltages are those of the cells.
    torch.testing.assert_close(exact.clamp(min=1.001e-6)[inside] / ideal[inside], torch.full_like(
        ideal[inside], float((exact / ideal)[inside].median())), rtol=1e-5, atol=0)  # fmt: skip


@kinds
def test_seeds_of_weights_and_devices_are_two(kind: str) -> None:
    """`seed` chooses the weights, `device_seed` the instance; the same two give the same cells."""
    assert same(on(kind), on(kind))
    assert not same(on(kind), on(kind, seed=4))
    assert not same(on(kind), on(kind, None))
    on(kind, None).state_dict()
    assert on(kind).device_model == ERRING
    assert on(kind).device.type == "cpu"  # torch's


# -- the physics sees the drawn cells ----------------------------------------------------------------------------


def test_hopfield_states_are_fixed_points_of_the_drawn_pairs() -> None:
    """A plain numpy iteration with weights scale (G+ - G-) ends in the same state."""
    ideal, system = weights(on("hopfield", None)), on("hopfield")
    w, b = [], []
    spans = {k: float(ideal[f"layers.{k}.weight"].abs().max()) for k in (0, 1)}
    for k in (0, 1):
        for part, found in (("weight", w), ("bias", b)):
            cells = programmed(ideal[f"layers.{k}.{part}"], ERRING, 3, f"layers.{k}.{part}", spans[k])
            scale = spans[k] / (ERRING.g_max - ERRING.g_min)
            found.append(scale * (cells.plus.numpy() - cells.minus.numpy()))
    x = examples("hopfield")[0]
    h, y = np.zeros((3, 8)), np.zeros((3, 3))
    for _ in range(500):
        h = np.tanh(x.numpy() @ w[0].T + b[0] + y @ w[1])
        y = h @ w[1].T + b[1]
    free = relax(system, x, tolerance=1e-12).require().state
    np.testing.assert_allclose(free[0].numpy(), h, atol=1e-11)
    np.testing.assert_allclose(free[1].numpy(), y, atol=1e-11)
    graph = system.to_circuit()
    drawn = np.concatenate([v.ravel() for v in w])
    np.testing.assert_allclose(np.sort(graph.weight.detach().numpy()), np.sort(drawn), rtol=1e-12)


def test_voltages_solve_kirchhoffs_equations_of_the_drawn_cells() -> None:
    """Three layers without diodes: numpy's solution for the cells' own siemens, and the part list carries them."""
    torch.set_default_dtype(torch.float64)
    try:
        make = lambda **o: ResistiveNetwork([4, 5, 4, 2], "none", input_gain=3.0, scale=1.0, **o)  # noqa: E731
        ideal, system = make(), make(device=ERRING, device_seed=7)
    finally:
        torch.set_default_dtype(torch.float32)
    span = max(float(layer.conductance.detach().max()) for layer in ideal.couplings)
    g = [
        programmed_singly(layer.conductance, ERRING, 7, f"layers.{k}.conductance", span)
        .conductances.detach()
        .numpy()
        for k, layer in enumerate(ideal.couplings)
    ]
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sources = 3.0 * np.concatenate([x.numpy(), -x.numpy()], 1)
    matrix, right = np.zeros((11, 11)), np.zeros((11, 3))
    first = np.cumsum([0, 5, 4, 2])
    for k, cells in enumerate(g):
        for i, j in np.ndindex(*cells.shape):
            a = first[k] + i
            matrix[a, a] += cells[i, j]
            if k == 0:
                right[a] += cells[i, j] * sources[:, j]
            else:
                c = first[k - 1] + j
                matrix[c, c] += cells[i, j]
                matrix[a, c] -= cells[i, j]
                matrix[c, a] -= cells[i, j]
    expected = np.linalg.solve(matrix, right).T
    free = relax(system, x, tolerance=1e-13).require().state
    np.testing.assert_allclose(torch.cat(free, 1).numpy(), expected, rtol=1e-8, atol=1e-10)
    circuit = system.to_circuit()
    values = dict(
        zip(circuit.parts.groups["resistor"].names, circuit.parts.groups["resistor"].values[:, 0], strict=True)
    )
    scale = system.device_scales["layers.1.conductance"]
    assert values["R2_3_4"] / scale == pytest.approx(g[1][2, 3], rel=1e-12)
    assert (g[0] >= 0).all()
    assert (g[0].min(), g[0].max()) != (ERRING.g_min, ERRING.g_max)


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.full if "conv" in k else ()) for k in KINDS])
def test_ep_is_the_gradient_of_the_network_that_the_cells_make(kind: str) -> None:
    """EP on erring cells agrees with exact gradients at the weights that they hold, not at those asked for: finite
    differences, or autograd through the energy where those take long."""
    system = on(kind)
    x, y = examples(kind)
    beta = 1e-3 * system.nudge_scale
    tolerance = 1e-13 if kind == "hopfield" else 1e-11
    ep = EquilibriumPropagation(SquaredError(), beta=beta, tolerance=tolerance, max_iterations=20000)
    found, _ = estimate_gradient(ep, system, x, y)
    if kind in ("resistive", "oscillator"):
        exact = implicit_gradient(system, x, y, SquaredError(), tolerance=tolerance)
    else:
        exact = finite_difference_gradient(system, x, y, SquaredError(), tolerance=tolerance, max_iterations=20000)
    size = max(float(g.abs().max()) for g in exact.values())
    for name, g in exact.items():
        np.testing.assert_allclose(found[name].numpy(), g.numpy(), rtol=2e-3, atol=2e-4 * size)


# -- writing, learning, files --------------------------------------------------------------------------------------


@kinds
def test_trained_weights_that_are_loaded_are_written_and_saved_ones_restored(kind: str) -> None:
    """Loading an ideal network's weights writes them into the cells; a saved state comes back to the bit."""
    trained = on(kind, None)
    with torch.no_grad():
        for p in trained.parameters():
            p.mul_(1.3)
    written, there = on(kind), on(kind, None)
    there.load_state_dict(trained.state_dict())
    written.load_state_dict(trained.state_dict())
    assert same(written, there.program(ERRING, 3))
    again = on(kind)
    again.load_state_dict(written.state_dict())
    assert same(again, written)
    keys = set(on(kind, None).state_dict())
    assert keys == {name for name, _ in written.named_parameters()} | {k for k in keys if "detuning" in k}


@kinds
def test_changes_become_pulses_on_the_same_cells(kind: str) -> None:
    """An optimizer's step moves the cells as `PulsedArray` does, from where they were written; and a saved state
    goes on with the same bits, whatever was drawn."""
    device = ERRING.replace(pulses=40, pulse_nonlinearity_up=1.5, pulse_noise=0.01, pulse_spread=0.1, levels=None)
    system, twin = on(kind, device), on(kind, device)
    name = next(n for n, signed in system.cell_signs().items())
    asked = weights(on(kind, None))[name]
    span = system.device_scales[name] * (device.g_max if kind == "resistive" else device.g_max - device.g_min)
    array = PulsedArray(asked, device, 3, name, span, signed=kind != "resistive")
    torch.testing.assert_close(array.values, weights(system)[name], rtol=1e-12, atol=0)
    change = 0.2 * torch.randn(asked.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * span
    for step in range(3):
        before = weights(system)[name]
        with torch.no_grad():
            dict(system.named_parameters())[name].add_(change)
        system.constrain()
        after = weights(system)[name]
        wanted = (before + change).clamp(min=0) - before if kind == "resistive" else change
        array.move(wanted)
        torch.testing.assert_close(after, array.values, rtol=1e-12, atol=0)
        assert not torch.equal(after, before)
        assert system.pulses == array.pulses > 0
        if step == 1:
            twin.load_state_dict(system.state_dict())
    with torch.no_grad():
        dict(twin.named_parameters())[name].add_(change)
    twin.constrain()
    assert same(twin, system)
    system.constrain()  # nothing was asked for
    assert system.pulses == array.pulses


def test_stuck_cells_and_levels_stay_while_learning() -> None:
    """Cells that learn by program and verify are on levels after each step; those that are stuck never move."""
    device = DeviceModel(levels=9, g_min=0.0, g_max=1e-4, stuck_off=0.3)
    system = on("resistive", device, device_headroom=2.0)
    optimizer = torch.optim.SGD(system.parameters(), lr=0.5)
    first = weights(system)["layers.0.conductance"]
    ep = EquilibriumPropagation(SquaredError(), beta=0.1, tolerance=1e-9)
    for _ in range(6):
        optimizer.zero_grad()
        ep.backward(system, *examples("resistive"))
        optimizer.step()
    system.constrain()
    last = weights(system)["layers.0.conductance"]
    steps = last / system.device_scales["layers.0.conductance"] / (1e-4 / 8)
    torch.testing.assert_close(steps, steps.round(), atol=1e-9, rtol=0)
    moved = last != first
    assert int(moved.sum()) > 0
    stuck = system._arrays["layers.0.conductance"]._stuck["plus"].reshape(last.shape) < 0
    assert float(stuck.double().mean()) == pytest.approx(0.3, abs=0.15)
    assert not bool((moved & stuck).any())
    assert bool((last[stuck] == 0).all())


def test_cells_that_cannot_learn_say_so() -> None:
    """Drift and levels in equal ratios are refused once a weight is to change; until then they are fine."""
    for fields, name in (
        ({"drift_exponent": 0.1, "drift_time": 1e3}, "drift_time"),
        ({"levels": 8, "spacing": "log"}, "spacing"),
    ):
        system = on("hopfield", DeviceModel(**fields))
        system.constrain()
        with torch.no_grad():
            system.couplings[0].weight.add_(0.1)
        with pytest.raises(InputError, match=f"Argument {name} must be"):
            system.constrain()


# -- readings ------------------------------------------------------------------------------------------------------


def test_readings_have_noise_of_each_phase_and_levels_of_the_converter() -> None:
    """Standard deviation read_noise full scales, other numbers in each phase; a converter's closed form."""
    system = HopfieldNetwork([4, 2000, 3], device=DeviceModel(read_noise=0.01), device_full_scales=[2.0, 1.0])
    free = (torch.full((4, 2000), 0.3), torch.full((4, 3), 0.1))
    rest = tuple(torch.zeros_like(s) for s in free)
    same_free, up, down = system.readings(free, rest, rest)
    assert same_free is free
    for moved in (up, down):
        assert float(moved[0].std()) == pytest.approx(0.02, rel=0.05)
    assert abs(float((up[0] * down[0]).mean())) < 0.02**2 * 5 / math.sqrt(8000)
    read, apart, none = system.readings(free, rest, None)
    assert none is None
    assert float((read[0] - free[0]).std()) == pytest.approx(0.02, rel=0.05)
    assert float(apart[0].std()) == pytest.approx(0.02 * math.sqrt(2), rel=0.05)
    assert float((read[0] + apart[0] - 0.3).std()) == pytest.approx(0.02, rel=0.05)  # the second phase's own
    system = HopfieldNetwork([4, 8, 3], device=DeviceModel(adc_bits=4, adc_range=1.5))
    free = (torch.full((1, 8), 0.33), torch.full((1, 3), -2.0))
    rest = tuple(torch.zeros_like(s) for s in free)
    _, up, _ = system.readings(free, (torch.full((1, 8), 0.2), torch.zeros(1, 3)), rest)
    assert float(0.33 + up[0][0, 0]) == pytest.approx(round(0.53 / 1.5 * 7) / 7 * 1.5, abs=1e-6)
    assert float(-2.0 + up[1][0, 0]) == pytest.approx(-1.5)


def test_noise_of_readings_is_in_gradients_over_beta() -> None:
    """Biases of a Hopfield network are read directly: noise sigma / (sqrt 2 beta sqrt B) beside EP's estimate."""
    x, y = examples("hopfield", 24)
    clean, noisy = on("hopfield", DeviceModel()), on("hopfield", DeviceModel(read_noise=1e-3))
    ep = EquilibriumPropagation(SquaredError(), beta=0.1)
    reference = estimate_gradient(ep, clean, x, y)[0]["layers.0.bias"]
    off = torch.stack([estimate_gradient(ep, noisy, x, y)[0]["layers.0.bias"] - reference for _ in range(60)])
    expected = 1e-3 / (math.sqrt(2) * 0.1 * math.sqrt(24))
    assert float(off.std()) == pytest.approx(expected, rel=0.15)
    noisy.calibrate(x)
    assert noisy.full_scales[0] == pytest.approx(float(relax(noisy, x).state[0].abs().max()))


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"device": DeviceModel(copy_mismatch_u=0.1)}, "Argument copy_mismatch_u must be left out for a "),
        ({"device": DeviceModel(conductance_noise=0.1)}, "Argument conductance_noise must be left out"),
        ({"device": DeviceModel(detuning=0.1)}, "Argument detuning must be left out"),
        ({"device": {"preset": "reram", "wire_resistance": 1.0}}, "Argument wire_resistance must be left out"),
        ({"device": "rerma"}, "Argument device must be one of .*Did you mean 'reram'"),
        ({"device": {"preset": "rerma"}}, "Argument preset must be one of"),
        ({"device": {"levls": 3}}, "Argument field must be one of .*Did you mean 'levels'"),
        ({"device": {"levels": 1}}, "Argument levels must be an integer from 2"),
        ({"device": 3}, "Argument device must be a DeviceModel"),
        ({"device": "reram", "device_seed": -1}, "Argument device_seed must be an integer of 0 or more"),
        ({"device": "reram", "device_headroom": 0.5}, "Argument device_headroom must be a finite number of 1"),
        ({"device": "reram", "device_full_scales": [1.0]}, "Argument device_full_scales must be 2 positive"),
        ({"device_seed": 2}, "Argument device_seed must be left out without a device"),
        ({"device_headroom": 2.0}, "Argument device_headroom must be left out without a device"),
    ],
)  # fmt: skip
@kinds
def test_what_is_wrong_is_one_line(kind: str, options: dict[str, object], match: str) -> None:
    """Contradictory and unread fields are refused by name on every plain substrate."""
    with pytest.raises(InputError, match=match) as caught:
        KINDS[kind][0](**options)
    assert "\n" not in str(caught.value)


def test_ranges_and_bits_of_the_network_do_not_mix_with_those_of_cells() -> None:
    """A network's own g_max or weight_bits would be a second word on what cells can be."""
    with pytest.raises(InputError, match="Argument g_max must be left out with a device"):
        ResistiveNetwork([4, 3, 2], g_max=1.0, device="reram", scale=1.0)
    with pytest.raises(InputError, match="Argument weight_bits must be left out with a device"):
        OscillatorNetwork([4, 3, 2], weight_bits=4, device="reram")
    with pytest.raises(InputError, match="Argument side must be 'single'"):
        PulsedArray(torch.ones(3), DeviceModel(levels=4), 0, "g", side="up", signed=False)


@kinds
def test_presets_are_not_refused_for_what_is_not_read(kind: str) -> None:
    """What a preset describes beyond the cells is told, and left out."""
    assert "voltage" in on(kind, "reram").device_unread


# -- configs and commands ----------------------------------------------------------------------------------------


def test_configs_have_a_table_of_devices(tmp_path: Path) -> None:
    """[system.device] is what the constructor's argument is; run files keep it."""
    path = tmp_path / "on.toml"
    path.write_text(
        '[system]\nname = "hopfield"\nsizes = [6, 8, 3]\ndevice_seed = 4\n'
        '[system.device]\npreset = "fefet"\ndevice_mismatch = 0.1\n'
    )
    system = load_system(path)
    assert isinstance(system, HopfieldNetwork)
    assert system.device_model is not None
    assert (system.device_model.levels, system.device_model.device_mismatch, system.device_seed) == (32, 0.1, 4)
    assert load_config(path).as_dict()["system"]["device"] == {"preset": "fefet", "device_mismatch": 0.1}


def test_commands_put_systems_on_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """gradients and simulate by name, with a preset or a file; what does not fit ends with status 2 in one line."""
    file, figures = tmp_path / "device.json", tmp_path / "figures.json"
    DeviceModel(levels=16, stuck_off=0.05).to_json(file)
    assert status(f"gradients hopfield --device-model {file} --json {figures}") == 0
    assert json.loads(figures.read_text())["worst_cosine"] > 0.99
    told = "levels 16, stuck_off 0.05; learns by pulses (accumulated); instance 0"
    assert told in " ".join(capsys.readouterr().out.split())
    out = tmp_path / "run.h5"
    options = "--preset reram --device-seed 2 --duration 1 --examples 1"
    assert status(f"simulate oscillator --out {out} {options} -q") == 0
    for line, match in (
        ("gradients pcn --preset reram", "Argument preset must be left out for the system 'pcn'"),
        ("gradients resistive --preset rerma", "Did you mean 'reram'"),
        ("gradients resistive --device-seed 3", "Argument device-seed must come with"),
        (f"gradients hopfield --preset reram --device-model {file}", "Argument device-model must be left out"),
        (f"gradients hopfield --device-model {tmp_path}/none.json", "Argument device-model must be a JSON file"),
        ("train hopfield-digits --preset reram --set system.device.levels=1", "Argument levels must be an integer"),
    ):
        assert status(line) == 2
        error = capsys.readouterr().err
        assert match in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["hopfield-digits", pytest.param("resistive-digits", marks=pytest.mark.full)])
def test_training_on_a_device_learns_by_pulses_and_resumes_to_the_bit(name: str, tmp_path: Path) -> None:
    """The cells of a run that was interrupted go on as if it had not been: pulses, residues, noise of readings."""
    sizes = [
        "system.sizes=[64,16,10]",
        "data.train_examples=96",
        "data.test_examples=50",
        "scheduler.name=StepLR",
        "scheduler.step_size=9",
        "optimizer.lr=0.05",
    ]
    device = ["system.device.preset=fefet", "system.device.programming_noise=0.02", "system.device.read_noise=1e-3"]
    options = {"overrides": [*sizes, *device, "training.epochs=2"]}
    whole = train(name, out=tmp_path / "whole.h5", **options)
    assert whole.system.pulses > 0
    assert whole.config.system.options["device_headroom"] == 4
    train(name, out=tmp_path / "part.h5", overrides=[*sizes, *device, "training.epochs=1"])
    resumed = train(name, resume=tmp_path / "part.h5", **options)
    assert same(whole.system, resumed.system)
    assert resumed.system.pulses == whole.system.pulses


def test_in_place_learning_of_a_plain_network(tmp_path: Path) -> None:
    """in-situ on a plain config: ideal, written and learned errors on one instance, kept in a file and resumed."""
    small = ["system.sizes=[64,16,10]", "data.train_examples=200", "data.test_examples=100", "training.epochs=3"]
    device = DeviceModel(levels=16, stuck_off=0.2, programming_noise=0.02)
    out = tmp_path / "in_situ.h5"
    table = learn_in_situ("hopfield-digits", device=device, overrides=small, out=out, seed=1)
    (row,) = table.rows()
    assert row["substrate"] == "hopfield"
    assert row["ideal"] < 0.6
    assert row["pulses"] > 0.1
    assert row["learned"] < 0.8
    again = learn_in_situ("hopfield-digits", device=device, overrides=small, out=out, seed=1, resume=True)
    assert again.rows() == table.rows()
    for options, match in (
        ({"substrates": ["resistive"]}, "Argument substrate must be left out for the system 'hopfield'"),
        ({"device": DeviceModel(detuning=0.1)}, "Argument detuning"),
        ({"device": DeviceModel(drift_time=1e3, drift_exponent=0.1)}, "Argument drift_time must be 0"),
        ({"side": "both"}, "Argument side must be"),
        ({"overrides": [*small, "system.device.levels=3"]}, "Argument system.device must be left out here"),
    ):
        with pytest.raises(InputError, match=match):
            learn_in_situ("hopfield-digits", **{"overrides": small, "device": device, **options})


def test_tolerance_of_a_plain_network() -> None:
    """Levels of one array spoil transfer and not adaptation; both against implicit differentiation."""
    net = on("resistive", None)
    x, y = examples("resistive")
    table = tolerance(
        net, x, y, SquaredError(), sweeps={"levels": [4], "device_mismatch": [0.3]}, repeats=2, betas=[0.01]
    )
    for name in ("levels", "device_mismatch"):
        (point,) = table.of(name)
        assert point.worst_layer("adaptation").adaptation.cosine > 0.9999
        assert point.worst_layer("transfer").transfer.cosine < 0.999
    assert net.device_model is None
    for options, match in (
        ({"sweeps": {"copy_mismatch_u": [0.1]}}, "Argument copy_mismatch_u must be left out"),
        ({"sweeps": {"levels": [4]}, "substrate": "hopfield"}, "Argument substrate must be left out"),
        ({"sweeps": {"levels": [4]}, "gates": "free"}, "Argument gates must be left out"),
    ):
        with pytest.raises(InputError, match=match):
            tolerance(net, x, y, SquaredError(), **options)


def test_tolerance_of_a_network_on_devices_starts_from_its_own() -> None:
    """The base is the device that holds it; the ideal network has the weights that its cells hold."""
    net = on("resistive")
    x, y = examples("resistive")
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    table = tolerance(net, x, y, SquaredError(), sweeps={"levels": [4]}, repeats=2, betas=[0.01])
    assert table.config["tolerance"]["base"] == json.loads(net.device_model.to_json())
    (ideal,), (base,) = table.of("ideal"), table.of("base")
    assert ideal.worst_layer().transfer.cosine > 0.9999
    assert base.worst_layer().transfer.cosine < 1 - 1e-6
    bare = on("resistive", None)
    with torch.no_grad():
        for name, p in bare.named_parameters():
            p.copy_(before[name])
    same = tolerance(
        bare, x, y, SquaredError(), sweeps={"levels": [4]}, repeats=2, betas=[0.01], device=net.device_model
    )
    for one, other in zip(table.points, same.points, strict=True):
        assert one.worst_layer().transfer.cosine == other.worst_layer().transfer.cosine
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    assert net.device_model is not None
