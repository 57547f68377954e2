"""Wires of crossbars: exact tiles against a circuit of parts, reciprocity, the approximation, tiles of an array."""

from __future__ import annotations

import shutil
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from time import process_time

import numpy as np
import pytest
import torch

from hardware_models import Circuit, DeviceModel, map_pcn
from hardware_models.devices.crossbars import programmed
from hardware_models.devices.half_selected import SCHEMES, biased_tile, select_cell
from hardware_models.devices.wires import exact_tile, through_wires, tile_parts, wire_error, wired
from hardware_models.devices.wiring import Wiring, wiring_of
from hardware_models.netlists.writer import netlist_lines
from hardware_models.spice.ngspice import run_ngspice
from physics_ep import CrossEntropy
from physics_ep.errors import InputError
from tests.support.pcn import dense, examples
from tests.support.tiles import full, full_solution, node_voltages, uniform
from tests.support.tiles import pairs as conductances
from validation.gradients import total_error
from validation.oracles import backprop_gradient

ROW_AND_COLUMN = Wiring(row=2.0, column=7.0)
ENDS = Wiring(row=2.0, column=7.0, driver=90.0, sense=40.0, selector=3e3)
"""Resistances that are all different, so that no two can be mistaken for one another."""
BOTH_ENDS = replace(ENDS, driven_ends="both", sensed_ends="both")


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


# -- drivers, sense ends, selectors, both ends -------------------------------------------------------------------


@pytest.mark.parametrize(
    "wiring",
    [
        ROW_AND_COLUMN,
        ENDS,
        BOTH_ENDS,
        replace(ENDS, driven_ends="both"),
        replace(ROW_AND_COLUMN, sensed_ends="both"),
    ],
    ids=["wires", "ends", "both ends", "driven at both", "sensed at both"],
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 1), (13, 22), (23, 12)], ids=str)
def test_exact_tiles_are_the_full_nodal_solution(shape: tuple[int, int], wiring: Wiring) -> None:
    """Tiles that are cut, merged and reduced against one sparse matrix of all nodes. Breaks if a wire is lost where
    parts meet, or an end has another's resistance."""
    tile = uniform(*shape)
    np.testing.assert_allclose(exact_tile(tile, wiring), full_solution(tile, wiring), rtol=1e-11)


@pytest.mark.parametrize(
    "none", [("row",), ("column",), ("row", "column"), ("row", "driver"), ("column", "sense"), ("row", "sense")]
)
@pytest.mark.parametrize("ends", ["one", "both"])
def test_resistances_of_nothing_are_the_limit(none: tuple[str, ...], ends: str) -> None:
    """A wire, driver or sense end without resistance joins its nodes: as a nanoohm does, and as parts do."""
    tile, volts = uniform(5, 7), np.random.default_rng(1).uniform(-0.2, 0.2, 5)
    wiring = replace(BOTH_ENDS, driven_ends=ends, sensed_ends=ends, **dict.fromkeys(none, 0.0))
    found = exact_tile(tile, wiring)
    nearly = replace(wiring, **dict.fromkeys(none, 1e-9))
    np.testing.assert_allclose(found, exact_tile(tile, nearly), rtol=1e-10)
    circuit = Circuit(tile_parts(tile, wiring, volts))
    nodes = circuit.node_voltages(circuit.operating_point().require())
    sensed, above, below = np.zeros(7), np.zeros((5, 7)), np.zeros((5, 7))
    for name, (a, b), (g,) in zip(
        circuit.parts.group("resistor").names,
        [[circuit.parts.nodes[n] for n in pair] for pair in circuit.parts.group("resistor").nodes],
        circuit.parts.group("resistor").values,
        strict=True,
    ):
        if name.startswith("G"):
            i, j = (int(n) - 1 for n in name[1:].split("_"))
            above[i, j], below[i, j] = float(nodes[a]), float(nodes[b])
            sensed[j] += g * (above[i, j] - below[i, j])
    np.testing.assert_allclose(sensed, volts @ found, rtol=1e-7)
    biased = biased_tile(tile, wiring, volts, np.zeros(7))
    np.testing.assert_allclose(biased.volts * (1 + wiring.selector * tile), above - below, rtol=1e-7)


@pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
@pytest.mark.parametrize("wiring", [ENDS, BOTH_ENDS], ids=["one end", "both ends"])
def test_tiles_are_those_of_ngspice(wiring: Wiring) -> None:
    tile, volts = uniform(4, 6), np.random.default_rng(1).uniform(-0.2, 0.2, 4)
    parts = tile_parts(tile, wiring, volts)
    lines = netlist_lines(parts)
    plot = run_ngspice(lines, ["op"])[0]
    sensed = [
        float(plot.columns[f"i(vs{j})" if f"i(vs{j})" in plot.columns else f"i(s{j})"][0]) for j in range(1, 7)
    ]
    np.testing.assert_allclose(sensed, volts @ exact_tile(tile, wiring), rtol=1e-9)


def test_drivers_of_a_hundred_ohm_lose_much() -> None:
    """128 x 64 cells, half of them on, wires of 1 ohm: 25.6 % of the currents of random inputs are lost, 40.2 %
    with drivers of 100 ohm. Breaks if a driver is taken for one segment of wire, or for each cell's own."""
    tile = np.where(np.random.default_rng(0).random((128, 64)) < 0.5, 1e-6, 1e-4)
    inputs = np.random.default_rng(1).uniform(0, 1, (20, 128))
    for driver, lost in ((0.0, 0.256), (100.0, 0.402)):
        missing = inputs @ (exact_tile(tile, Wiring(row=1.0, column=1.0, driver=driver)) - tile)
        assert np.linalg.norm(missing) / np.linalg.norm(inputs @ tile) == pytest.approx(lost, abs=2e-3)


def test_digits_stay_however_much_resistances_differ() -> None:
    """Wires of a picoohm behind drivers of 50 ohm lose no digit, nor do wires far above the cells: one row, as a
    ladder in exact fractions. Breaks if a pivot is a difference: 2 % were off."""
    tile = uniform(1, 6)
    for wiring in (
        Wiring(row=1e-12, column=1e-9, driver=50.0),
        Wiring(row=1e-6, column=7.0, driver=50.0, sense=20.0, selector=500.0),
        Wiring(row=1e9, column=1e-9),
        Wiring(row=1e13, column=1e12),
    ):
        branches = [1 / (1 / Fraction(float(g)) + Fraction(wiring.selector) + Fraction(wiring.column)
                    + Fraction(wiring.sense)) for g in tile[0]]  # fmt: skip
        seen = [branches[-1]]
        for branch in branches[-2::-1]:
            seen.append(branch + 1 / (1 / seen[-1] + Fraction(wiring.row)))
        volts = 1 / (1 + seen[-1] * (Fraction(wiring.row) + Fraction(wiring.driver)))
        wanted = []
        for branch, here, beyond in zip(branches, seen[::-1], [*seen[-2::-1], None], strict=True):
            wanted.append(float(volts * branch))
            if beyond is not None:
                volts *= (here - branch) / beyond
        np.testing.assert_allclose(exact_tile(tile, wiring)[0], wanted, rtol=1e-14)


@pytest.mark.full
@pytest.mark.parametrize(
    ("cells", "name", "error", "lost"),
    [
        (conductances, "columns", 3e-2, 0.33),
        (uniform, "columns", 7e-2, 0.48),
        (full, "columns", 0.13, 0.62),
        (conductances, "drivers", 2e-2, 0.27),
        (uniform, "drivers", 3e-2, 0.41),
        (conductances, "ends", 4e-2, 0.43),
        (uniform, "ends", 7e-2, 0.58),
        (uniform, "selectors", 6e-3, 0.53),
        (uniform, "driven", 1e-2, 0.24),
        (full, "driven", 4e-2, 0.37),
        (uniform, "both", 1e-3, 0.09),
        (full, "both", 4e-3, 0.16),
    ],
)
def test_the_error_of_the_approximation_with_other_resistances(cells, name, error: float, lost: float) -> None:
    """The second table of the module, 128 x 64 cells, against the full nodal solution."""
    wiring = {
        "columns": Wiring(row=1.0, column=3.0),
        "drivers": Wiring(row=1.0, column=1.0, driver=100.0),
        "ends": Wiring(row=1.0, column=1.0, driver=100.0, sense=100.0),
        "selectors": Wiring(row=1.0, column=1.0, selector=1e4),
        "driven": Wiring(row=1.0, column=1.0, driven_ends="both"),
        "both": Wiring(row=1.0, column=1.0, driven_ends="both", sensed_ends="both"),
    }[name]
    tile = cells(128, 64)
    exact = full_solution(tile, wiring)
    found = through_wires(torch.from_numpy(tile), wiring).numpy()
    assert np.linalg.norm(found - exact) / np.linalg.norm(exact) == pytest.approx(error, rel=0.5)
    assert np.linalg.norm(exact - tile) / np.linalg.norm(tile) == pytest.approx(lost, rel=0.06)


@pytest.mark.parametrize("wiring", [ENDS, BOTH_ENDS], ids=["one end", "both ends"])
def test_the_approximation_is_first_order(wiring: Wiring) -> None:
    """What is missed falls with the square of all resistances, those of selectors apart, which are exact."""
    tile, errors = uniform(12, 9), []
    for part in (1e-3, 2e-3, 4e-3):
        names = ("row", "column", "driver", "sense")
        errors.append(wire_error(tile, replace(wiring, **{n: part * getattr(wiring, n) for n in names})))
    assert np.polyfit(np.log([1, 2, 4]), np.log(errors), 1)[0] == pytest.approx(2, abs=0.02)
    assert wire_error(tile, Wiring(selector=5e3)) < 1e-15


def test_a_device_names_all_resistances() -> None:
    """Fields of a device reach the cells: each alone, by the exact tile where little is lost; columns have the
    rows' wires where they have none of their own; a bias has selectors alone."""
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    cells = programmed(weight, DeviceModel(), 0, "w")
    tile = torch.stack([cells.plus.T, cells.minus.T], 2).flatten(1).numpy()
    for fields in (
        {"wire_resistance": 0.3},
        {"wire_resistance": 0.3, "column_wire_resistance": 0.0},
        {"column_wire_resistance": 0.3, "sensed_ends": "both"},
        {"driver_resistance": 0.5, "driven_ends": "both"},
        {"sense_resistance": 0.5},
        {"selector_resistance": 700.0, "driver_resistance": 0.2},
    ):
        device = DeviceModel(**fields)
        exact = torch.from_numpy(exact_tile(tile, wiring_of(device))).unflatten(1, (-1, 2))
        found = wired(cells, device)
        assert float((found.plus - cells.plus).abs().max()) > 1e-9
        torch.testing.assert_close(found.plus, exact[..., 0].T, rtol=3e-6, atol=0)
        torch.testing.assert_close(found.minus, exact[..., 1].T, rtol=3e-6, atol=0)
    bias = programmed(weight[0], DeviceModel(), 0, "b")
    assert torch.equal(wired(bias, DeviceModel(wire_resistance=5.0, sense_resistance=9.0)).plus, bias.plus)
    torch.testing.assert_close(
        wired(bias, DeviceModel(selector_resistance=1e3)).plus, bias.plus / (1 + 1e3 * bias.plus)
    )
    assert DeviceModel(driven_ends="both").idle == ("driven_ends",)


# -- half-selected cells -----------------------------------------------------------------------------------------


def test_schemes_without_wires_in_closed_form() -> None:
    """Without wires half-selected cells see V/2 and others nothing, or all others V/3, and sneak currents are what
    Ohm's law makes of that."""
    tile = uniform(4, 5)
    half, third = (select_cell(tile, 0.0, 1, 2, 3.0, scheme) for scheme in ("V/2", "V/3"))
    others = np.delete(tile[:, 2], 1).sum()
    assert (half.selected_volts, half.row_disturb, half.column_disturb) == (3.0, 1.5, 1.5)
    assert half.unselected_disturb == 0.0
    assert half.column_sneak == pytest.approx(1.5 * others, rel=1e-14)
    assert (third.row_disturb, third.column_disturb, third.unselected_disturb) == pytest.approx((1.0,) * 3)
    assert third.column_sneak == pytest.approx(others, rel=1e-14)
    assert third.selected_current == pytest.approx(3.0 * tile[1, 2], rel=1e-14)
    assert third.biased.power == pytest.approx(float((third.biased.volts**2 * tile).sum()), rel=1e-12)


@pytest.mark.parametrize("scheme", list(SCHEMES))
@pytest.mark.parametrize("wiring", [ENDS, BOTH_ENDS], ids=["one end", "both ends"])
def test_half_selected_cells_are_the_full_nodal_solution(scheme: str, wiring: Wiring) -> None:
    """Voltages of all cells, currents of all lines, disturbs and sneak currents against one sparse matrix."""
    tile, (row, column) = uniform(14, 19), (3, 11)
    found = select_cell(tile, wiring, row, column, 2.0, scheme)
    rows, columns = (np.full((n, 1), 2.0 * part) for n, part in zip(tile.shape, SCHEMES[scheme], strict=True))
    rows[row], columns[column] = 2.0, 0.0
    above, below, taken = node_voltages(tile, wiring, rows, columns)
    across = (above - below)[..., 0]
    currents = across * tile / (1 + wiring.selector * tile)
    np.testing.assert_allclose(found.biased.volts, currents / tile, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.biased.currents, currents, rtol=1e-9, atol=1e-18)
    np.testing.assert_allclose(found.biased.column_currents, taken[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found.biased.row_currents, currents.sum(1), rtol=1e-9)
    size = np.abs(currents / tile)
    assert found.selected_volts < 2.0
    assert found.row_disturb == pytest.approx(np.delete(size[row], column).max(), rel=1e-9)
    assert found.column_disturb == pytest.approx(np.delete(size[:, column], row).max(), rel=1e-9)
    size[row], size[:, column] = 0, 0
    assert found.unselected_disturb == pytest.approx(size.max(), rel=1e-9)
    assert found.column_sneak == pytest.approx(found.biased.column_currents[column] - found.selected_current)
    assert found.row_sneak == pytest.approx(found.biased.row_currents[row] - found.selected_current)


def test_what_is_no_selection_is_refused() -> None:
    tile = uniform(2, 3)
    for arguments, words in (
        ((tile, 1.0, 2, 0, 1.0), "row must be an integer from 0 to 1, but was 2"),
        ((tile, 1.0, 0, -1, 1.0), "column must be an integer from 0 to 2, but was -1"),
        ((tile, 1.0, 0, 0, float("nan")), "volts must be a finite number"),
        ((tile, 1.0, 0, 0, 1.0, "V/4"), "scheme must be one of V/2, V/3"),
        ((tile, -1.0, 0, 0, 1.0), "resistance must be a finite number of 0 or more"),
        ((-tile, 1.0, 0, 0, 1.0), "tile must hold finite conductances"),
    ):
        with pytest.raises(InputError, match=words):
            select_cell(*arguments)
    with pytest.raises(InputError, match="column_volts must be 3 finite numbers, one a line"):
        biased_tile(tile, 1.0, np.zeros(2), np.zeros(2))
    with pytest.raises(InputError, match="driver must be a finite number of 0 or more, ohm"):
        Wiring(driver=-1.0)
    with pytest.raises(InputError, match="driven_ends must be 'one' or 'both'"):
        Wiring(driven_ends="left")


@pytest.mark.full
def test_large_tiles_take_seconds() -> None:
    """512 x 512 cells within ten seconds of one core and 1 GiB. Equal cells between equal resistances are their own
    mirror image about the corner of both ends."""
    tracemalloc.start()
    start = process_time()
    found = exact_tile(full(512, 512), Wiring(row=0.1, column=0.1, driver=20.0, sense=20.0))
    assert process_time() - start < 10
    assert tracemalloc.get_traced_memory()[1] < 2**30
    tracemalloc.stop()
    np.testing.assert_allclose(found, found.T[::-1, ::-1], rtol=1e-11)
