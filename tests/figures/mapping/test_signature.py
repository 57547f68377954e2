"""The signature table: VGG10 on three substrates over imperfections, from photographs to a table and a picture."""

from __future__ import annotations

import json

import numpy as np
import pytest

from figures.catalogue import find
from figures.mapping.signature import draw_signature, merged, small_points
from figures.mapping.signature import signature as signature_of
from figures.mapping.substrates import DEVICE_NAME, draw_substrates
from figures.requests import Request
from figures.subjects import Subject
from physics_ep import CrossEntropy
from tests.support import looks
from tests.support.pcn import dense, examples
from validation.benchmarks import layer_sizes, signature
from validation.experiments.substrates import place


@pytest.fixture
def photographs(tmp_path):
    """Two pictures of noise and their labels, as `--prepare` leaves them."""
    path = tmp_path / "photos.npz"
    generator = np.random.default_rng(0)
    np.savez(path, x=generator.random((2, 3, 32, 32), dtype=np.float32), labels=np.array([3, 700]))
    return path


@pytest.mark.slow
def test_table_and_picture(photographs, tmp_path, capsys) -> None:
    """A static error of a shared array spoils the transfer and not the feedforward, on every substrate alike; what
    only one substrate has is empty on others; resumed, nothing is measured twice."""
    out = tmp_path / "run"
    words = ["--images", str(photographs), "--out", str(out), "--size", "32", "--batch", "2", "--width", "0.0625"]
    words += [
        "--gain",
        "2.449",
        "--repeats",
        "2",
        "--fields",
        "levels,copy_mismatch_transpose,temperature,phase_noise",
    ]
    signature.main(words)
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    table = {tuple(line.strip("| ").split(" | ")[:2]): line for line in lines}
    assert lines[0] == "| imperfection | value | hopfield | resistive | oscillator |"
    assert table["temperature", "300.0"].rstrip(" |").count("/") == 4  # not of oscillators
    assert table["phase_noise", "1.0"].count("/") == 2
    found = json.loads((out / "signature.json").read_text())
    for substrate in ("hopfield", "resistive", "oscillator"):
        points = {(p["field"], p["value"]): p for p in found[substrate]["table"]["points"]}
        assert found[substrate]["peak_host_GiB"] > 0

        def gaps(key, target, points=points):
            weights = [layer for layer in points[key]["layers"] if "weight" in layer["name"]]
            return [1 - layer[target]["cosine"] for layer in weights]

        assert len(gaps(("ideal", None), "transfer")) == 10
        assert max(gaps(("ideal", None), "transfer")) < 1e-4
        assert max(gaps(("levels", 16), "adaptation")) < 1e-4
        assert max(gaps(("levels", 16), "transfer")) > 1e-2
        assert max(gaps(("copy_mismatch_transpose", 0.1), "adaptation")) > 1e-3
        assert gaps(("levels", 16), "adaptation") == gaps(("levels", 16), "feedforward")
    entry = find("signature")
    drawn = entry.make(Request(out / "resistive.h5"))
    rows = drawn.data["rows"]
    assert ("phase_noise", 1.0) in rows
    at = rows.index(("phase_noise", 1.0))
    assert np.isnan(drawn.data["feedforward"]["hopfield"][at]).all()
    assert np.isfinite(drawn.data["feedforward"]["oscillator"][at]).all()
    titles = [ax.get_title() for ax in drawn.figure.axes]
    # Oscillators have the Hopfield circuit's numbers where both have the imperfection: one map, drawn once.
    assert titles[:2] == ["Hopfield circuit = oscillators", "resistors, diodes"]
    before = (out / "hopfield.h5").stat().st_mtime_ns
    signature.main([*words, "--resume"])
    assert (out / "hopfield.h5").stat().st_mtime_ns == before


def test_one_computation_is_drawn_once() -> None:
    """Three maps of the same numbers look like three findings; or maps that differ are taken for one."""
    one = np.array([[1e-3, 1e-2], [np.nan, np.nan], [1e-15, 1e-6]])
    same = np.array([[1.1e-3, 1e-2], [0.1, 0.2], [1e-14, 1e-6]])
    other = np.array([[1e-3, 1e-1], [np.nan, np.nan], [1e-15, 1e-6]])
    found = merged({"hopfield": one, "resistive": other, "oscillator": same})
    assert [names for names, _ in found] == [("hopfield", "oscillator"), ("resistive",)]
    np.testing.assert_array_equal(found[0][1], [[1e-3, 1e-2], [0.1, 0.2], [1e-15, 1e-6]])


@pytest.mark.slow
def test_charts_meet_the_demands() -> None:
    """Axes have labels, series can be told apart without colour, and legends hide no data."""
    x, labels = examples((20,), 12)
    net = dense(3, "relu", width=16, gain=6**0.5)
    placed = place(net, x, labels, CrossEntropy(), (x, labels), instances=2, duration=20.0)
    assert [p.substrate for p in placed] == ["hopfield", "resistive", "oscillator"]
    for one in placed:
        assert one.cosine.min() > 1 - 1e-6
        assert one.adaptation.shape == (2, 3)
        # Live gates stand beside held ones: worse, where units switch, on as many examples or fewer.
        assert one.live.shape == (2, 3)
        assert (one.live_settled <= 1).all()
        assert one.live.min() < one.feedforward.min() <= 1
    # The same cells err alike on every substrate.
    np.testing.assert_allclose(placed[0].transfer, placed[1].transfer, atol=1e-6)
    subject = Subject("net", net, x, labels, CrossEntropy())
    drawn = {
        "substrates": draw_substrates(placed, DEVICE_NAME),
        "signature": draw_signature(signature_of(small_points(subject))),
    }
    fills = [
        line.get_fillstyle() for line in drawn["substrates"].axes[1].lines if not line.get_label().startswith("_")
    ]
    assert sorted(fills) == ["full", "left", "none"]  # told apart without colour
    looks.nothing_overlaps_in_a_column({"substrates": drawn["substrates"]})
    looks.legends_leave_the_data_alone({"substrates": drawn["substrates"]})
    for figure in drawn.values():
        assert all(ax.get_xlabel() or ax.get_ylabel() for ax in figure.axes)


def test_a_trained_network_with_gates_held_and_live(tmp_path) -> None:
    """If it fails, the table's trained columns are of untrained weights, or its live gates are held ones."""
    noise = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
    images = tmp_path / "photos.npz"
    np.savez(images, x=noise, labels=np.array([3]))
    gaps = {}
    for gates in ("held", "live"):
        words = [
            "--images",
            str(images),
            "--out",
            str(tmp_path / f"{gates}.h5"),
            "--size",
            "32",
            "--batch",
            "1",
        ]
        words += ["--network", "vgg10-eighth-cifar10jpeg-ep", "--part", "ideal", "--gates", gates]
        layer_sizes.main(words)
        found = json.loads((tmp_path / f"{gates}.json").read_text())
        assert found["gates"] == gates
        layers = [layer for layer in found["table"]["points"][0]["layers"] if "weight" in layer["name"]]
        gaps[gates] = [1 - layer["transfer"]["cosine"] for layer in layers]
        assert len(layers) == 10
    assert max(gaps["held"]) < 1e-6
    assert gaps["held"] != gaps["live"]


def test_what_each_substrate_is_swept_over() -> None:
    """At least ten imperfections on each; none that it does not have."""
    for substrate, absent in (
        ("hopfield", "phase_noise"),
        ("resistive", "detuning"),
        ("oscillator", "temperature"),
    ):
        swept = layer_sizes.sweeps_of(substrate, "all")
        assert len(swept) >= 10
        assert absent not in swept
    assert layer_sizes.sweeps_of("resistive", "ideal") == {}


def test_bad_input(photographs, tmp_path) -> None:
    """One line that says what is wrong."""
    words = ["--images", str(photographs), "--size", "32", "--batch", "2"]
    with pytest.raises(SystemExit, match="signature: Argument out must be a folder"):
        signature.main([*words, "--out", str(tmp_path / "table.h5")])
    with pytest.raises(SystemExit, match="Did you mean 'resistive'"):
        signature.main([*words, "--out", str(tmp_path / "run"), "--substrates", "resistve"])
    with pytest.raises(SystemExit, match=r"images must be a folder or a prepared \.npz file"):
        signature.main(["--images", str(tmp_path / "none.npz"), "--out", str(tmp_path / "run")])
