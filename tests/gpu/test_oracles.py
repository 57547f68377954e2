"""Exact gradients of every system on a device: those of the CPU."""

from __future__ import annotations

import pytest
import torch

from tests.support.device_systems import CASES, FOLLOWED
from tests.support.simulated_gpu import SimulatedGpu
from validation import gradient_report
from validation.oracles import ORACLES, Gradients

SYSTEMS = CASES | FOLLOWED
FEEDFORWARD = ("pcn", "vgg", "mapped")
"""Beginnings of names of systems whose free state is a forward pass, or nearly."""
LONG = ("vgg",)
"""Beginnings of names of systems whose backprop through time would take minutes."""
QUICK = {("conv-hopfield", "implicit"), ("pcn", "backprop")}


def _exact(name: str, oracle: str, device: str) -> Gradients:
    system, x, y = SYSTEMS[name].ready(device)
    options = {"iterations": 20} if oracle == "bptt" else {}
    return ORACLES[oracle](system, x, y, SYSTEMS[name].cost, **options)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        pytest.param(name, oracle, marks=[] if (name, oracle) in QUICK else pytest.mark.slow)
        for name in SYSTEMS
        for oracle in ("backprop", "implicit", "bptt")
        if not (oracle == "backprop" and not name.startswith(FEEDFORWARD))
        if not (oracle == "bptt" and name.startswith(LONG))
    ],
)
def test_oracles_agree_with_the_cpu(gpu: SimulatedGpu, name: str, oracle: str) -> None:
    """A gradient is judged on the device by what judges it on the CPU, to the rounding of a solve in float64."""
    here, there = (_exact(name, oracle, device) for device in ("cpu", "cuda"))
    assert here.keys() == there.keys()
    for parameter, gradient in here.items():
        assert there[parameter].device.type == "cuda"
        off = (there[parameter].cpu() - gradient).norm()
        assert off <= 1e-8 * gradient.norm(), parameter


@pytest.mark.slow
@pytest.mark.parametrize(("name", "oracle"), [("conv-hopfield", "bptt"), ("oscillator-graph-held", "implicit")])
def test_reports_run_on_a_device(gpu: SimulatedGpu, name: str, oracle: str) -> None:
    """The report of a device has the CPU's figures."""
    reports = []
    for device in ("cpu", "cuda"):
        system, x, y = CASES[name].ready(device)
        reports.append(gradient_report(system, x, y, CASES[name].cost, beta=0.01, oracle=oracle, floors=False))
    here, there = reports
    for one, other in zip(here.rows, there.rows, strict=True):
        assert (one.name, one.shape) == (other.name, other.shape)
        assert one.cosine == pytest.approx(other.cosine, abs=1e-6)
    assert torch.tensor(here.loss).item() == pytest.approx(there.loss)
