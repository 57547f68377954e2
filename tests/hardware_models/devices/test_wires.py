"""Wires of crossbars: exact tiles against a circuit of parts, reciprocity, the approximation, tiles of an array."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hardware_models import Circuit, DeviceModel, map_pcn
from hardware_models.devices.crossbars import programmed
from hardware_models.devices.wires import exact_tile, through_wires, tile_parts, wire_error, wired
from physics_ep import CrossEntropy
from physics_ep.errors import InputError
from tests.support.pcn import dense, examples
from validation.gradients import total_error
from validation.oracles import backprop_gradient


def conductances(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Cells of random weights: G+ and G- in turn, 1 to 100 uS."""
    generator = np.random.default_rng(seed)
    weights = generator.uniform(-1, 1, (rows, columns // 2))
    tile = np.full((rows, columns), 1e-6)
    tile[:, ::2] += 9.9e-5 * np.maximum(weights, 0)
    tile[:, 1::2] += 9.9e-5 * np.maximum(-weights, 0)
    return tile


def test_exact_tile_by_a_circuit_of_parts() -> None:
    """Every cell and wire as a part, solved as any circuit: the columns' currents are those of the tile."""
    tile, volts = conductances(5, 6), np.random.default_rng(1).uniform(-0.2, 0.2, 5)
    circuit = Circuit(tile_parts(tile, 40.0, volts))
    found = circuit.node_voltages(circuit.operating_point())
    sensed = np.array([float(found[f"c5_{j}"]) / 40.0 for j in range(1, 7)])
    np.testing.assert_allclose(sensed, volts @ exact_tile(tile, 40.0), rtol=1e-9)


def test_one_cell_and_one_row_in_closed_form() -> None:
    """A cell in series with its two wires; a row of two cells as a ladder."""
    assert exact_tile(np.array([[1e-3]]), 50.0)[0, 0] == pytest.approx(1 / (1000 + 100))
    g, r = 1e-3, 50.0
    branch = 1 / (1 / g + r)  # a cell and its column's wire
    far = 1 / (1 / branch + r)
    into = 1 / (r + 1 / (branch + far))
    at_first = 1 - into * r
    wanted = [at_first * branch, at_first * far]
    np.testing.assert_allclose(exact_tile(np.full((1, 2), g), r)[0], wanted, rtol=1e-12)


def test_a_tile_read_the_other_way_is_the_transpose() -> None:
    """Reciprocity: driven at the columns' ends and sensed at the rows'. So wires are an error of one shared W."""
    tile = conductances(7, 10)
    forward = exact_tile(tile, 30.0)
    # The other way: rows and columns change places, ends stay where they are.
    back = exact_tile(tile.T[::-1, ::-1], 30.0)[::-1, ::-1]
    np.testing.assert_allclose(back, forward.T, rtol=1e-9, atol=1e-18)
    assert np.abs(forward / tile - 1).max() > 0.02


def test_the_approximation_and_its_error() -> None:
    """Second order in what is lost; the table of the module, to a factor of 1.5."""
    tile = conductances(16, 16)
    errors = [wire_error(tile, r) for r in (0.1, 0.2, 0.4)]
    assert np.polyfit(np.log([0.1, 0.2, 0.4]), np.log(errors), 1)[0] == pytest.approx(2, abs=0.05)
    for kind, shape, r, error, lost in (
        ("pairs", (32, 32), 1.0, 1e-4, 0.02),
        ("uniform", (32, 32), 1.0, 2.5e-4, 0.039),
        ("full", (32, 32), 3.0, 2.8e-3, 0.18),
        ("pairs", (64, 128), 1.0, 6e-3, 0.16),
        ("pairs", (64, 128), 3.0, 3e-2, 0.37),
    ):
        tile = {
            "pairs": conductances(*shape),
            "uniform": np.random.default_rng(0).uniform(1e-6, 1e-4, shape),
            "full": np.full(shape, 1e-4),
        }[kind]
        assert wire_error(tile, r) == pytest.approx(error, rel=0.5)
        exact = exact_tile(tile, r)
        assert np.linalg.norm(exact - tile) / np.linalg.norm(tile) == pytest.approx(lost, rel=0.1)


def test_wires_without_resistance_are_no_wires() -> None:
    """Perfect wires are no division by zero: the tile itself, and a circuit of cells alone; cells that are off are
    no parts."""
    tile, volts = conductances(3, 4), np.array([0.1, -0.2, 0.3])
    tile[1, 2] = 0.0
    assert np.array_equal(exact_tile(tile, 0), tile)
    np.testing.assert_allclose(exact_tile(tile, 1e-9), tile, rtol=1e-10, atol=1e-17)
    assert torch.equal(through_wires(torch.from_numpy(tile), 0.0), torch.from_numpy(tile))
    assert wire_error(tile, 0.0) == 0.0
    assert wire_error(np.zeros((2, 2)), 1.0) == 0.0
    parts = tile_parts(tile, 0.0, volts)
    cells = parts.group("resistor")
    currents = np.zeros(4)
    for name, (g,) in zip(cells.names, cells.values, strict=True):
        i, j = (int(n) - 1 for n in name[1:].split("_"))
        currents[j] += g * volts[i]
    np.testing.assert_allclose(currents, volts @ tile, rtol=1e-12)
    found = (circuit := Circuit(parts)).node_voltages(circuit.operating_point().require())
    assert [found[f"r{i + 1}_0"] for i in range(3)] == pytest.approx(volts.tolist())
    assert [found[f"c4_{j + 1}"] for j in range(4)] == [0.0] * 4


@pytest.mark.parametrize("resistance", [-1.0, float("nan"), float("inf"), True, "1"])
def test_no_wire_has_that_resistance(resistance: object) -> None:
    """A negative resistance gave effective conductances above the cells' own, without a word."""
    tile = conductances(2, 2)
    for call in (
        lambda r: exact_tile(tile, r),
        lambda r: wire_error(tile, r),
        lambda r: tile_parts(tile, r, np.zeros(2)),
        lambda r: through_wires(torch.from_numpy(tile), r),
    ):
        with pytest.raises(InputError, match="resistance must be a finite number of 0 or more, ohm, but was"):
            call(resistance)


def test_no_tile_is_refused() -> None:
    """Vectors, negative or infinite conductances, drivers that are not one a row."""
    for tile in (np.ones(3), np.ones((0, 2)), -np.ones((2, 2)), np.full((2, 2), np.inf)):
        with pytest.raises(InputError, match="tile must"):
            exact_tile(tile, 1.0)
    with pytest.raises(InputError, match="volts must be 2 finite numbers"):
        tile_parts(np.ones((2, 2)), 1.0, np.zeros(3))


def test_tiles_of_an_array() -> None:
    """An array larger than a tile is cut: rows are inputs, columns G+ and G- of the outputs in turn."""
    device = DeviceModel(wire_resistance=20.0, tile_rows=3, tile_columns=4)
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    cells = programmed(weight, device, 0, "w")
    found = wired(cells, device)
    for top in range(0, 7, 3):
        for left in range(0, 5, 2):
            tile = torch.zeros(min(3, 7 - top), 2 * min(2, 5 - left), dtype=torch.float64)
            for i in range(tile.shape[0]):
                for j in range(tile.shape[1] // 2):
                    tile[i, 2 * j], tile[i, 2 * j + 1] = (c[left + j, top + i] for c in (cells.plus, cells.minus))
            kept = through_wires(tile, 20.0)
            for i in range(tile.shape[0]):
                for j in range(tile.shape[1] // 2):
                    assert float(found.plus[left + j, top + i]) == pytest.approx(float(kept[i, 2 * j]), rel=1e-12)
                    assert float(found.minus[left + j, top + i]) == pytest.approx(
                        float(kept[i, 2 * j + 1]), rel=1e-12
                    )
    image = programmed(weight.view(5, 7, 1, 1), device, 0, "w")
    torch.testing.assert_close(wired(image, device).plus.view(5, 7), found.plus)


@pytest.mark.parametrize("substrate", ["hopfield", "resistive", "oscillator"])
def test_ep_adapts_to_wires(substrate: str) -> None:
    """A static error of a shared array: EP finds the gradient of the network that the wires leave."""
    net = dense(3, "relu", width=16, gain=6**0.5)
    x, y = examples(size=4)
    mapped = map_pcn(net, substrate, DeviceModel(wire_resistance=30.0), calibration=x)
    grads = mapped.gradient(x, y, CrossEntropy(), beta=1e-4)
    assert total_error(grads, backprop_gradient(mapped.perturbed, x, y, CrossEntropy())) < 1e-6
    assert total_error(grads, backprop_gradient(net, x, y, CrossEntropy())) > 0.03


def test_tiles_that_are_no_real_matrix_are_refused() -> None:
    """An imaginary part would be lost in silence, and texts end in an error of numpy's."""
    for tile in (np.full((2, 2), 1e-4 + 1e-4j), [["a", "b"]], [[None]], torch.ones(2, 2, dtype=torch.complex128)):
        for function in (exact_tile, wire_error):
            with pytest.raises(InputError, match="Argument tile must hold real numbers"):
                function(tile, 1.0)


def test_tensors_are_tiles() -> None:
    tile = np.array([[1e-4, 2e-5], [5e-5, 1e-4]])
    for given in (torch.tensor(tile), torch.tensor(tile, requires_grad=True), tile.tolist()):
        np.testing.assert_array_equal(exact_tile(given, 10.0), exact_tile(tile, 10.0))  # type: ignore[arg-type]
        assert wire_error(given, 10.0) == wire_error(tile, 10.0)  # type: ignore[arg-type]


def test_wires_of_nearly_nothing_and_of_nearly_everything() -> None:
    """The smallest resistance that a float holds is none; where a wire is all, there is nothing to solve for."""
    tile = np.array([[1e-4, 2e-5], [5e-5, 1e-4]])
    for resistance in (5e-324, 1e-310, 1e-300, 1e-20, 1e-12):
        np.testing.assert_allclose(exact_tile(tile, resistance), tile, rtol=1e-14)
    with pytest.raises(InputError, match="Argument resistance must be no more than some"):
        exact_tile(tile, 1e300)
