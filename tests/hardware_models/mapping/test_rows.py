"""Compiled passes over blocks of a course: each number is that of torch's operators, one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping import phase as phases
from hardware_models.mapping import rows
from physics_ep import CrossEntropy
from physics_ep.predictive_coding import mlp
from physics_ep.predictive_coding.responses import rectified


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
