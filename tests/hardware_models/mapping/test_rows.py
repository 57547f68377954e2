"""Compiled passes over blocks of a course: each number is that of torch's operators, one by one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping import phase as phases
from hardware_models.mapping import rows
from physics_ep import CrossEntropy
from physics_ep.predictive_coding import mlp
from physics_ep.predictive_coding.responses import rectified, rectified_at
from physics_ep.units import clipped


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compared_blocks_have_torchs_numbers(dtype: torch.dtype) -> None:
    """A residual is of other numbers than the states, or what is not finite passes for small."""
    generator = torch.Generator().manual_seed(1)
    goal, at = torch.randn((2, 9, 37), generator=generator, dtype=dtype)
    goal[1, 4], goal[2, 36], at[3, 0], at[4, 1] = torch.nan, torch.inf, -torch.inf, torch.nan
    goal[5], at[5] = -0.0, 0.0
    goal[6, 2] = at[6, 2] = torch.inf  # their difference is none
    assert rows.in_one_pass(goal, at)
    found = rows.compared(goal, at)
    torch.testing.assert_close(found.miss, goal - at, atol=0, rtol=0, equal_nan=True)
    wanted = torch.stack([block.abs().amax(1) for block in (goal, at, goal - at)])
    torch.testing.assert_close(found.sizes, wanted, atol=0, rtol=0, equal_nan=True)
    # Blocks that compiled code does not take.
    for a, b in (
        (goal.T, at.T),
        (goal[:, ::2], at[:, ::2]),
        (goal.unflatten(1, (37, 1)), at.unflatten(1, (37, 1))),
    ):
        assert not rows.in_one_pass(a, b)
        found = rows.compared(a, b)
        wanted = torch.stack([block.flatten(1).abs().amax(1) for block in (a, b, a - b)])
        torch.testing.assert_close(found.sizes, wanted, atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairs_of_relus_answer_as_each_by_itself(dtype: torch.dtype) -> None:
    """Units answer with the corner of another example, or h with that of u."""
    generator = torch.Generator().manual_seed(2)
    dq, gap = torch.randn((2, 6, 11), generator=generator, dtype=dtype)
    p, q = torch.randn((2, 3, 11), generator=generator, dtype=dtype)
    dq[1, 3] = torch.nan
    corners = p.clamp(max=0), -p.relu(), q.clamp(max=0), -q.relu()
    dp, moved, error = rows.rectified_pair(dq, gap, corners)
    wanted = rectified(dq + gap, *corners[:2])
    for found, own in ((dp, dq + gap), (moved, wanted), (error, wanted - rectified(dq, *corners[2:]))):
        torch.testing.assert_close(found, own, atol=0, rtol=0, equal_nan=True)
    direct = (p + (dq + gap)[:3]).relu() - p.relu()
    torch.testing.assert_close(moved[:3], direct, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", [(0.0, math.inf), (0.0, 2.0), (-1.0, 1.0)])
def test_clips_move_as_torch_has_it(
    bounds: tuple[float, float], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units move from the drive of another example, or lose small changes to rounding."""
    monkeypatch.setattr(rows, "LEAST", 0)
    generator = torch.Generator().manual_seed(4)
    change, start = 2 * torch.randn((2, 6, 11), generator=generator, dtype=dtype)
    at = 2 * torch.randn((3, 11), generator=generator, dtype=dtype)
    change[1, 3], at[0, 2], change[5] = torch.nan, torch.nan, 1e-20
    assert rows.in_bulk(change, at)
    both = torch.cat([at, at])
    unit = clipped(*bounds)(torch)
    torch.testing.assert_close(
        rows.clip_moves(change, at, bounds),
        unit.displaced(change, *unit.anchor(both)),
        atol=0,
        rtol=0,
        equal_nan=True,
    )
    moved = rows.clip_moves(change, at, bounds, start)
    wanted = unit.displaced(change, *unit.anchor(start + both))
    torch.testing.assert_close(moved, wanted, atol=0, rtol=0, equal_nan=True)
    if bounds[1] == math.inf:
        own = rectified_at(start + both, change)
        torch.testing.assert_close(moved, own, atol=0, rtol=0, equal_nan=True)
    direct = (start + both + change).clamp(*bounds) - (start + both).clamp(*bounds)
    torch.testing.assert_close(moved, direct, atol=1e-6, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sizes_and_opposite_rows_are_torchs(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """A residual is that of another row, or a row that is not opposite is taken for one."""
    generator = torch.Generator().manual_seed(5)
    goal, at = torch.randn((2, 6, 37), generator=generator, dtype=dtype)
    goal[1, 4], at[2, 36] = torch.nan, -torch.inf
    found = rows.sizes(goal, at)
    monkeypatch.setattr(rows, "LEAST", 0)
    torch.testing.assert_close(rows.sizes(goal, at), found, atol=0, rtol=0, equal_nan=True)
    both = torch.cat([at, -at])
    both[6 + 1, 36], both[4, 0], both[6 + 5, 3] = 0.0, torch.nan, both[6 + 5, 3] * (1 + 1e-6)
    assert rows.not_opposite(both).tolist() == [1, 2, 4, 5]  # of infinity and its negative there is no sum


@pytest.mark.parametrize("substrate", ["hopfield", "resistive", "oscillator"])
def test_steps_of_wide_networks_have_the_same_bits_without_compiled_passes(
    substrate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal cells and live gates, opposite nudges that share products: compiled passes find another gradient."""
    generator = torch.Generator().manual_seed(6)
    x, y = torch.rand((8, 6), generator=generator), torch.arange(8) % 3
    mapped = map_pcn(mlp([6, 24, 16, 3], seed=1), substrate, DeviceModel(), calibration=x)
    monkeypatch.setattr("hardware_models.mapping.opposites.WORTH", 0)

    def gradient(least: float) -> dict[str, torch.Tensor]:
        monkeypatch.setattr(rows, "LEAST", least)
        return mapped.gradient(x, y, CrossEntropy(), beta=0.02, tolerance=1e-5, gates="live")

    plain = gradient(math.inf)
    assert all(torch.equal(g, plain[name]) for name, g in gradient(0).items())
    assert any(bool((g != 0).any()) for g in plain.values())


@pytest.mark.parametrize("substrate", ["resistive", "oscillator"])
def test_a_gradient_has_the_same_bits_without_compiled_passes(
    substrate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells that err apart are followed to other states by one of the two."""
    generator = torch.Generator().manual_seed(3)
    x, y = torch.rand((5, 6), generator=generator), torch.tensor([0, 1, 2, 0, 1])
    mapped = map_pcn(mlp([6, 8, 7, 3], seed=1), substrate, DeviceModel(programming_noise=0.01), calibration=x)

    def gradient() -> dict[str, torch.Tensor]:
        return mapped.gradient(x, y, CrossEntropy(), beta=0.01, gates="live")

    passes: list[int] = []

    def counted(*blocks: Any) -> Any:
        passes.append(len(blocks))
        return rows.rectified_pair(*blocks)

    monkeypatch.setattr(phases, "rectified_pair", counted)
    first = gradient()
    assert bool(passes) == (substrate == "resistive")  # the range of oscillators ends above, too
    for module in (rows, phases):
        monkeypatch.setattr(module, "in_one_pass", lambda *blocks: False)
    assert all(torch.equal(g, first[name]) for name, g in gradient().items())
    assert any(bool((g != 0).any()) for g in first.values())
