"""Thermal noise of a node at a virtual ground, against ngspice's `.noise`."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path

import pytest
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.laws.elements import BOLTZMANN
from hardware_models.spice.ngspice import find_ngspice
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp


def sampled_by_ngspice(cells: float, feedback: float, farad: float, folder: Path) -> float:
    """Volts of noise at an amplifier's output: cells to its virtual ground, feedback with a capacitor."""
    file = folder / "noise.cir"
    file.write_text(
        f"virtual ground\nvin in 0 dc 0 ac 1\nr1 in g {1 / cells:.12g}\nr2 g out {1 / feedback:.12g}\n"
        f"c1 g out {farad:g}\ne1 out 0 0 g 1e7\n.options temp=26.85 tnom=26.85\n.control\n"
        "noise v(out) vin dec 100 1 1e12\nsetplot noise2\nprint onoise_total\n.endc\n.end\n"
    )
    done = subprocess.run(
        [find_ngspice(), "-b", str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    found = re.search(r"onoise_total\s*=\s*([\d.eE+-]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


def test_cells_at_a_virtual_ground_are_heard_beside_kt_over_c(tmp_path: Path) -> None:
    """k T / C alone is ten times too small for a hundred cells: 646 uV, not 64. Then a mapped output node, by its
    own sums of cells: the current that it gets, in volts, is that of ngspice."""
    assert sampled_by_ngspice(1e-3, 1e-5, 1e-12, tmp_path) == pytest.approx(646e-6, rel=3e-3)
    assert math.sqrt(BOLTZMANN * 300 / 1e-12) == pytest.approx(64.4e-6, rel=1e-2)
    net = mlp([100, 1]).double()
    device = DeviceModel(temperature=300.0, averaging_time=0.0, voltage=0.2)
    found = []
    for ratio in (1, 2):
        system = map_pcn(net, "hopfield", device.replace(time_constant=1e-7 * ratio)).system
        x = torch.zeros((1, 100), dtype=torch.float64)
        phase = system.phase(system.prepare(x))
        both, own = (torch.as_tensor(system.noise_sizes(0, side, phase)) for side in ("both", "h"))
        found.append(float((both.square() + own.square()).sqrt()) * 0.2)
    cells, feedback = float(system.node_conductances(0, "both")[0]), system.node_conductances(0, "h")[1]
    farad = 1e-7 * feedback  # tau = C / G
    assert found[0] == pytest.approx(sampled_by_ngspice(cells, feedback, farad, tmp_path), rel=3e-3)
    assert found[0] == pytest.approx(math.sqrt(BOLTZMANN * 300 / farad * (1 + cells / feedback)), rel=1e-9)
    assert found[1] == pytest.approx(found[0] / math.sqrt(2))


def test_long_averages_are_nyquists() -> None:
    """The mean of correlated noise goes from a sample to Nyquist's limit. Phase noise has no size in a sample."""
    net = mlp([5, 2]).double()
    sizes = []
    for t in (1e-9, 1e-6, 1e-3):
        system = map_pcn(
            net, "resistive", DeviceModel(temperature=300.0, averaging_time=t, time_constant=1e-6)
        ).system
        phase = system.phase(system.prepare(torch.zeros((1, 5), dtype=torch.float64)))
        sizes.append(float(system.noise_sizes(0, "h", phase)) ** 2 * 0.2**2 * system.total[0])
    joule = BOLTZMANN * 300 / 1e-6
    wanted = [joule * (1 - 1e-3 / 3), joule * 2 / math.e, joule * 2e-3 * (1 - 1e-3)]
    assert sizes == pytest.approx(wanted, rel=1e-6)
    with pytest.raises(InputError, match="averaging_time must be positive"):
        DeviceModel(phase_noise=1.0, averaging_time=0.0)
