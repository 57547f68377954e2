"""Implicit steps of stiff circuits: the systems of a step, factorised, against products with the same Jacobian."""

from __future__ import annotations

import pytest
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.phase import PairedPhase
from hardware_models.mapping.stiff_flow import GAMMA, StiffFlow
from physics_ep import CrossEntropy, Nudge, relax
from physics_ep.blocks import flat, unflat
from physics_ep.predictive_coding import mlp


@torch.no_grad()
@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize(("substrate", "current"), [("oscillator", None), ("resistive", 1e-8)])
def test_factors_invert_what_products_apply(substrate: str, current: float | None, beta: float) -> None:
    """Free and nudged, on cells that err apart. If it fails, small networks move otherwise than large ones."""
    net = mlp([5, 7, 6, 3], "relu", seed=2).double()
    x = torch.rand(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    device = DeviceModel(programming_noise=0.03, diode_current=current)
    system = map_pcn(net, substrate, device, seed=1, calibration=x).system
    inputs = system.prepare(x)
    phase: PairedPhase = system.phase(inputs)
    if beta > 0:
        free = relax(system, x).require().state
        phase = system.phase(inputs, free).nudged(Nudge(CrossEntropy(), torch.arange(3), beta))
    flow = StiffFlow(phase, phase.start())
    for _ in range(4):
        flow.evaluate()
        flow.advance(torch.ones(3, dtype=torch.bool))
    assert flow.coupling is not None
    line, h = flow.path.tangent(flow.w), flow.h[:, None]
    right = torch.randn(3, flow.coupling.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    v = torch.linalg.lu_solve(*flow._factors(line, flow.coupling, h), right[:, :, None])[:, :, 0]
    applied = v - GAMMA * h * flat(tuple(line.product(unflat(v, flow.shapes))))
    assert torch.allclose(applied, right, rtol=1e-9, atol=1e-9)
    assert float(h.min()) > 0
