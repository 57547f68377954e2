"""An EP step of every system on a device: the CPU's numbers, no more launches and waits than the table says."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch

from physics_ep import EnergySystem
from physics_ep.relaxation.krylov import UNASKED, conjugate_gradients
from tests.support.device_systems import CASES, DeviceCase
from tests.support.gpu_counts import COUNTED, exceeded, row, step, table
from tests.support.paths import ROOT
from tests.support.simulated_gpu import SimulatedGpu

QUICK = {"conv-hopfield", "fitzhugh-nagumo", "pcn", "mapped-resistive-written"}
"""Steps that take less than half a second: these run before each commit, the others with `full`."""
PLANTED = [name for name in CASES if not name.startswith(("oscillator-", "vgg", "hopfield"))]
"""Systems that refuse a CPU tensor early in a step; the others are tried with `full`, and the followed ones."""


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.full) for n in COUNTED])
def test_a_step_has_the_cpus_numbers_and_keeps_to_the_table(gpu: SimulatedGpu, name: str) -> None:
    """A device computes what the CPU computes, in parameters of its own, and asks for no more than before.

    Gradients are equal bit for bit where the same kernels compute both. On a failure the places that wait most
    are printed; where more launches, waits, uploads or bytes are meant, write the table anew
    (`python -m tests.support.gpu_counts`) and say why in the commit.
    """
    here, _ = step(COUNTED[name])
    there, counts = step(COUNTED[name], gpu)
    assert here.keys() == there.keys()
    for parameter, gradient in here.items():
        off = (there[parameter] - gradient).norm()
        assert off <= COUNTED[name].rounding * gradient.norm(), parameter
    assert not exceeded(row(counts), table()[name]), counts.table()
    assert not counts.on_host


def test_every_case_has_a_row() -> None:
    """A system without a row is not watched; a row without a system says nothing."""
    assert table().keys() == COUNTED.keys()


def test_the_docs_have_the_table() -> None:
    """Figures of docs/devices_gpu.md are those of the table: readers plan their first run on a GPU by them."""
    page = (ROOT / "docs" / "devices_gpu.md").read_text(encoding="utf-8")
    shown = {}
    for line in page.splitlines():
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if name in COUNTED:
            shown[name] = dict(
                zip(("waits", "launches", "uploads", "peak_bytes"), map(int, cells[1::2]), strict=True)
            )
    assert shown == table()
    vgg, mapped = table()["vgg10"], [row for name, row in table().items() if name in CASES and "mapped" in name]
    least, most = (of(row["launches"] for row in mapped) for of in (min, max))
    waits = {row["waits"] for row in mapped}
    assert len(waits) == 1
    for sentence in (
        f"a step of VGG10: {vgg['launches']} launches, {vgg['waits']} waits",
        f"a step of a mapped network: {least} to {most} launches, {waits.pop()} waits",
    ):
        assert sentence in page


def test_a_tenth_more_is_too_much() -> None:
    """The table binds each of its columns."""
    kept = {"launches": 100, "waits": 10, "uploads": 0, "peak_bytes": 1000}
    assert exceeded({**kept, "launches": 110, "waits": 11}, kept) == []
    for key, value in {"launches": 111, "waits": 12, "uploads": 1, "peak_bytes": 1101}.items():
        assert exceeded({**kept, key: value}, kept) == [f"{key}: {value} where the table has {kept[key]}"]


def _tensors(system: torch.nn.Module) -> Iterator[tuple[str, dict[str, torch.Tensor | None], str]]:
    for path, module in system.named_modules():
        for kept in (module._parameters, module._buffers):
            yield from ((f"{path}.{n}".strip("."), kept, n) for n, t in kept.items() if t is not None)


def _cpu(tensor: torch.Tensor) -> torch.Tensor:
    planted = tensor.detach().cpu()
    return torch.nn.Parameter(planted) if isinstance(tensor, torch.nn.Parameter) else planted


@pytest.mark.parametrize("name", [n if n in PLANTED else pytest.param(n, marks=pytest.mark.full) for n in COUNTED])
def test_a_planted_cpu_tensor_is_caught(gpu: SimulatedGpu, name: str) -> None:
    """Any parameter or buffer that stays on the CPU is seen: none passes into a first run on a GPU."""
    case = COUNTED[name]
    system, x, y = case.ready("cuda")
    planted = [t for t in _tensors(system) if not re.fullmatch(case.unread or "-", t[0])]
    assert planted
    for path, kept, key in planted:
        original = kept[key]
        assert original is not None
        assert original.device.type == "cuda", path
        kept[key] = _cpu(original)
        with gpu.counting() as counts:
            refused = _refused(case, system, x, y)
        # A CPU tensor that is an index is copied to the device each time, and the host waits.
        uploaded = any("by a CPU tensor" in operator for _, operator, _ in counts.waits)
        assert refused or uploaded, f"{path} was on the CPU, and the step went on"
        kept[key] = original


def _refused(case: DeviceCase, system: EnergySystem, x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether a step is refused for tensors of two devices."""
    try:
        case.estimator().backward(system, x, y)
    except RuntimeError as error:
        return "same device" in str(error)
    return False


@pytest.mark.parametrize("name", [n for n in COUNTED if not n.startswith("vgg")])
def test_no_tensor_stays_behind(gpu: SimulatedGpu, name: str) -> None:
    """Tensors that are attributes, and no buffers, would stay on the CPU when a system moves."""
    system, _, _ = COUNTED[name].ready("cuda")
    for path, module in system.named_modules():
        for key, value in vars(module).items():
            members = value if isinstance(value, list | tuple) else [value]
            assert not any(isinstance(t, torch.Tensor) for t in members), f"{path}.{key}"


def test_products_that_nobody_needed_change_nothing(gpu: SimulatedGpu) -> None:
    """A device is not asked after each product of conjugate gradients; what it computes too much is masked.

    Examples: solved by one product, by two, held by the radius, of negative curvature, without a slope, and NaN.
    """
    diagonal = torch.tensor([[2.0, 2, 2], [1, 3, 3], [2, 2, 2], [-1, 1, 2], [1, 2, 3], [1, 2, float("nan")]])
    slope = torch.tensor([[1.0, 2, 3], [1, 2, 3], [30, 20, 10], [1, 1, 1], [0, 0, 0], [1, 1, 1]])
    forcing, radius = torch.full((6,), 1e-3), torch.full((6,), 2.0)

    def found(rows: list[int], device: str) -> tuple[torch.Tensor, ...]:
        a, g, f, r = (t[rows].to(device) for t in (diagonal, slope, forcing, radius))
        with torch.no_grad():
            step = conjugate_gradients(lambda v: a * v, g, f, 20, radius=r)
        return tuple(part.cpu() for part in step[:-1])

    for rows in [[0], [1], [2], [3], [4], [5], [0, 4], [0, 1, 2, 3, 4, 5]]:
        with gpu.counting() as counts:
            there = found(rows, "cuda")
        for one, other in zip(found(rows, "cpu"), there, strict=True):
            assert torch.equal(one.nan_to_num(9e9), other.nan_to_num(9e9)), rows
        if rows == [0]:
            assert counts.waited - counts.uploads - len(there) == 1, f"asked before {UNASKED} products"
