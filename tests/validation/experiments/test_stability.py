"""Certificates of stability against courses that are followed: of one state, and of many networks a substrate."""

from __future__ import annotations

from pathlib import Path

import pytest

from validation.experiments.stability import UNITS, compare, follow, main, place, summary

NEAR_THE_LIMIT: dict[str, list[tuple[str, int, float]]] = {
    "hopfield": [("tanh", 64, 0.6), ("relu", 69, 0.3), ("relu", 3, 0.4)],
    "resistive": [("hard_tanh", 64, 0.6), ("relu", 69, 0.3), ("hard_tanh", 12, 1.0)],
    "oscillator": [("hard_tanh", 28, 0.3), ("relu", 29, 1.0), ("relu", 3, 1.0)],
}
"""Activation, seed and error of three of the networks of the findings: two unstable ones, then a stable one."""


def followed(substrate: str, activation: str, seed: int, error: float) -> tuple[str, str, float, float]:
    """Verdict and course, the eigenvalue and the measured rate."""
    placed = place(substrate, activation, seed, error)
    assert placed is not None
    system, x, state, _, told, _ = placed
    course, rate = follow(system, state, x, seed + 1, step=0.4)
    return told.verdict[0], course, float(told.eigenvalue[0].real), rate


@pytest.mark.full
def test_a_course_grows_as_its_eigenvalue_says() -> None:
    """A state on the far side of the limit. If it fails, the measurement or the certificate is wrong."""
    verdict, course, value, rate = followed("hopfield", "relu", 69, 0.3)
    assert (verdict, course) == ("unstable", "unstable")
    assert abs(rate - value) < 0.002


@pytest.mark.slow
@pytest.mark.parametrize("substrate", list(UNITS))
def test_networks_near_the_limit(substrate: str) -> None:
    """If it fails, verdicts do not say what a substrate does."""
    rows = [followed(substrate, *network)[:2] for network in NEAR_THE_LIMIT[substrate]]
    assert rows == [("unstable", "unstable")] * 2 + [("stable", "stable")]


@pytest.mark.slow
@pytest.mark.parametrize("substrate", list(UNITS))
def test_fifty_networks_around_the_limit(substrate: str) -> None:
    """At most two verdicts are not those of the course, and at most ten are left open."""
    counts = summary(compare(substrate, 50))
    assert counts["undecided"] <= 10
    assert counts["disagree"] <= 2
    assert counts["unstable"] >= 5


def test_no_networks_are_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If it fails, bad input leaves something half-written."""
    assert main(["--out", str(tmp_path / "there"), "--networks", "0"]) == 2
    assert "Argument --networks must be positive" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
