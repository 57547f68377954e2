"""The scripts in examples/ run, and end in the number that they promise: a newcomer's first lines must work."""

from __future__ import annotations

import math
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.paths import ROOT

FOLDER = ROOT / "examples"


def above(limit: float) -> Callable[[float], bool]:
    """Whether a number is larger; no number is larger than NaN."""
    return lambda value: value > limit


def below(limit: float) -> Callable[[float], bool]:
    """Whether the size of a number is smaller."""
    return lambda value: abs(value) < limit


# Script to what its docstring says of the last number that it prints.
LAST = {
    "start/draw_dynamics": below(3e-5),  # eight roundings of 43 in float32; none in float64
    "start/judge_gradients": above(0.9999),
    "start/train_hardware": below(1e-4),
    "substrates/analog_hopfield": below(1e-8),
    "substrates/circuit": above(0.9999),
    "substrates/conv_hopfield": above(0.999),
    "substrates/fitzhugh_nagumo": above(0.999),
    "substrates/hopfield": lambda order: abs(order - 2) < 0.05,
    "substrates/ising": lambda missing: missing == 0,
    "substrates/langevin_hopfield": above(0.99),
    "substrates/learning_transistors": below(0.01),
    "substrates/mapped_network": below(1e-3),
    "substrates/on_devices": above(0.99),
    "substrates/oscillator": above(0.999),
    "substrates/predictive_coding_network": below(0.02),
    "substrates/resistive": below(15),
    "tour/amplifiers": lambda ratio: abs(ratio - 1) < 1e-4,
    "tour/certify_stability": below(0.1),
    "tour/largest_cut": lambda missing: missing == 1,
    "tour/map_to_hardware": lambda unconverged: unconverged == 0,
    "tour/memristors": lambda ratio: abs(ratio - 1) < 1e-9,
    "tour/oscillators_and_media": above(0.999),
    "tour/own_scheme": below(0.1),
    "tour/own_substrate": above(0.9999),
    "tour/predictive_coding": below(0.02),
    "tour/resistors_and_diodes": below(1e-9),
    "tour/results_as_tables": below(1e-3),
    "tour/subcircuit": below(1e-9),
    "tour/train_and_judge": below(1e-3),
    "tour/vortices": below(0.1),
}


DEAR = (
    *("substrates/circuit", "substrates/fitzhugh_nagumo", "substrates/learning_transistors"),
    "substrates/resistive",
)
"""Each of these takes seconds; scripts of the tour are near to them."""


@pytest.mark.parametrize(
    "script", [pytest.param(name, marks=pytest.mark.full if name in DEAR else ()) for name in LAST]
)
def test_script_ends_in_what_it_promises(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each script stands alone, and its last number is what its docstring says."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    scope = runpy.run_path(str(FOLDER / f"{script}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    last = float(printed.split()[-1])
    assert math.isfinite(last)
    assert LAST[script](last), printed
    if script == "tour/train_and_judge":
        # What the tour claims of its first example: a settled phase, a gradient close to exact.
        assert printed.startswith("CONVERGED")
        assert float(re.search(r"worst cosine (\S+)", printed)[1]) > 0.9999
    if script == "tour/own_scheme":
        # The stencil has the order that it declares.
        stencil = scope["five_point"]
        assert abs(stencil.moment(1) - 1) < 1e-12
        assert all(abs(stencil.moment(m)) < 1e-12 for m in (0, 2, 3, 4))


def test_every_script_is_run_and_listed() -> None:
    """A script that nobody runs soon fails; one that the table of examples/README.md leaves out is not found."""
    scripts = {
        f"{path.parent.name}/{path.stem}"
        for folder in ("start", "tour", "substrates")
        for path in (FOLDER / folder).glob("*.py")
    }
    assert scripts == set(LAST)
    listed = re.findall(
        r"\]\(((?:start|tour|substrates)/\w+)\.py\)", (FOLDER / "README.md").read_text(encoding="utf-8")
    )
    assert sorted(listed) == sorted(scripts)
