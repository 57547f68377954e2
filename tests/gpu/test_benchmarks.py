"""Scripts that measure on GPUs, at their smallest, on the simulated one: the first real run is not their test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.simulated_gpu import SimulatedGpu
from validation.benchmarks import imagenet_gpu, layer_sizes, signature

TINY = ["--size", "32", "--batch", "2", "--width", "0.0625", "--repeats", "1", "--device", "cuda"]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two pictures of noise and their labels, as `--prepare` leaves them."""
    path = tmp_path / "photos.npz"
    generator = np.random.default_rng(0)
    np.savez(path, x=generator.random((2, 3, 32, 32), dtype=np.float32), labels=np.array([3, 700]))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("part", ["cost", "gradients"])
def test_imagenet_gpu(gpu: SimulatedGpu, tmp_path: Path, part: str) -> None:
    """The cost table and the gradients at VGG10's layers, of the trial networks."""
    words = ["--out", str(tmp_path), "--tiny", "--part", part, "--batch", "2", "--rounds", "1"]
    with gpu.counting() as counts:
        assert imagenet_gpu.main(words) == 0
    assert counts.launches > 1000
    found = json.loads((tmp_path / f"{part}.json").read_text())
    assert found["device"].startswith("cuda")
    assert found["rows"]


@pytest.mark.slow
def test_layer_sizes(gpu: SimulatedGpu, photographs: Path, tmp_path: Path) -> None:
    """A sweep over imperfections on the device; the oracle is the CPU's, in float64."""
    out = tmp_path / "run.h5"
    words = ["--images", str(photographs), "--out", str(out), *TINY, "--fields", "levels,read_noise"]
    with gpu.counting() as counts:
        layer_sizes.main(words)
    assert counts.launches > 1000
    found = json.loads(out.with_suffix(".json").read_text())
    assert {p["field"] for p in found["table"]["points"]} >= {"levels", "read_noise"}


@pytest.mark.slow
def test_signature(gpu: SimulatedGpu, photographs: Path, tmp_path: Path) -> None:
    """The signature table, of one imperfection on three substrates."""
    out = tmp_path / "run"
    words = ["--images", str(photographs), "--out", str(out), *TINY, "--fields", "copy_mismatch_transpose"]
    signature.main(words)
    found = json.loads((out / "signature.json").read_text())
    assert set(found) == {"command", "hopfield", "resistive", "oscillator"}
