"""Pages to look around in, and films: they hold the dynamics, and a browser shows them.

Each test's docstring says what is wrong if it fails.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import figures
from figures.hopfield.transients import circuit_transients
from figures.oscillators.pair import pair_landscapes
from figures.oscillators.phases import PhasesOnCircle, Turning
from figures.scenes import scenes
from figures.subjects import fresh_hopfield
from hardware_models import HopfieldNetwork
from physics_ep import SquaredError, simulate
from physics_ep.errors import InputError
from physics_ep.storage.trajectory import Trajectory
from tests.support.looks import command
from tests.support.systems import batch
from validation import gradient_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def course() -> Trajectory:
    """Two examples of a small network as it settles."""
    x, _ = batch(5, 3, 2)
    return simulate(HopfieldNetwork([5, 4, 3], "tanh").double(), x, 4.0)


@pytest.fixture(scope="module")
def turning() -> PhasesOnCircle:
    """Three oscillators that turn to rest."""
    time = np.linspace(0, 5, 21)
    angles = (np.exp(-time)[:, None] * np.array([1.0, -2.0, 3.0]),)
    phase = Turning(0.0, time, angles, np.exp(-2 * time), np.exp(-time), (np.zeros(3),), 1e-9, 0.0)
    return PhasesOnCircle("three", (phase, phase), np.array([2]), 0, 0)


def numbers(page: Path) -> list[dict]:
    """The traces that a page holds."""
    text = page.read_text(encoding="utf-8")
    start = text.rindex("Plotly.newPlot(")
    begin = text.index("[", start)
    return json.JSONDecoder().raw_decode(text[begin:])[0]


def decoded(values: object) -> np.ndarray:
    """An array of plotly's, which may be packed."""
    if isinstance(values, dict):
        import base64

        return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])
    return np.array(values, dtype=float)


@pytest.mark.full
def test_a_page_holds_the_dynamics_and_needs_nothing_else(course, tmp_path):
    """A page loads something from the network, or shows another course."""
    pytest.importorskip("plotly", reason="the extra 'interactive' is not installed")
    page = figures.interactive({"free": course}, tmp_path / "course.html", example=1)
    text = page.read_text(encoding="utf-8")
    assert not re.search(r'<(script|link|img)[^>]*(src|href)="http', text)
    traces = numbers(page)
    energy = course.energy[:, 1].numpy()
    shown = [decoded(t["y"]) for t in traces if t["line"].get("color") == "#000000"]
    np.testing.assert_allclose(shown[0][:-3], (energy - energy.min())[:-3], rtol=1e-6)
    assert sum(t["line"].get("color") != "#000000" for t in traces) == 4 + 3
    with pytest.raises(InputError, match="be a new file"):
        figures.interactive(course, page)


@pytest.mark.full
def test_the_landscape_is_the_formulas_and_the_report_the_reports(tmp_path):
    """A surface is turned, or a layer bears another one's error."""
    pytest.importorskip("plotly", reason="the extra 'interactive' is not installed")
    pair = pair_landscapes()
    surface, path = numbers(figures.interactive(pair, tmp_path / "pair.html"))[:2]
    z = decoded(surface["z"]).reshape(pair.landscapes[0].energy.shape)
    np.testing.assert_allclose(z, pair.landscapes[0].energy)
    heights = decoded(path["z"])
    assert heights[-1] < heights[0]  # the path runs down the surface that it lies on
    x, y = batch(5, 3, 4)
    report = gradient_report(HopfieldNetwork([5, 4, 3], "tanh").double(), x, y, SquaredError(), beta=1e-3)
    traces = numbers(figures.interactive(report, tmp_path / "report.html"))
    np.testing.assert_allclose(decoded(traces[1]["x"]), [row.relative_error for row in report.rows])
    assert list(traces[1]["y"]) == [row.name for row in report.rows]


@pytest.mark.full
def test_without_plotly_a_line_tells_what_to_install(course, tmp_path, monkeypatch):
    """A missing extra ends in a traceback."""
    monkeypatch.setitem(__import__("sys").modules, "plotly.graph_objects", None)
    with pytest.raises(InputError, match=r"physics-ep\[interactive\]"):
        figures.interactive(course, tmp_path / "x.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_a_film_shows_each_phase_to_its_end(course, turning, tmp_path):
    """Frames are missing, all alike, or the film's last one is not where the phase ends."""
    path = figures.film({"free": course, "nudged": course}, tmp_path / "course.gif", frames=3, width=85)
    with Image.open(path) as picture:
        assert picture.n_frames == 6
        frames = []
        for k in range(3):
            picture.seek(k)
            frames.append(np.asarray(picture.convert("RGB"), dtype=int))
    assert frames[0].shape[1] == pytest.approx(85 / 25.4 * 110, abs=2)
    assert all(np.abs(a - b).max() > 100 for a, b in itertools.pairwise(frames))
    again = figures.film(turning, tmp_path / "turning.gif", frames=2)
    assert Image.open(again).n_frames == 4


def test_scenes_are_the_courses(course, turning):
    """Another example, block or unit of a course is shown, or angles are taken for heights."""
    (scene,) = scenes(course, 1)
    np.testing.assert_array_equal(scene.states["block 2"], course.state[1][:, 1])
    np.testing.assert_array_equal(scene.residual, course.residual[:, 1])
    assert (scene.circular, scene.name("block 2", 0)) == (False, "block 2, 0")
    assert [s.circular for s in scenes(turning)] == [True, True]
    with pytest.raises(InputError, match="example must be from 0 to 1"):
        scenes(course, 2)
    with pytest.raises(InputError, match="courses must be trajectories"):
        scenes(3)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"path": "a.avi"}, "path must end in .gif or .mp4"),
        ({"path": "a.gif", "frames": 1}, "frames must be an integer of at least 2"),
        ({"path": "a.gif", "rate": 0}, "rate must be above 0"),
    ],
)
def test_bad_films_end_in_one_line(course, tmp_path, options, told):
    """A film that cannot be made leaves a traceback or half a file."""
    with pytest.raises(InputError, match=told):
        figures.film(course, **{**options, "path": tmp_path / options["path"]})
    assert not list(tmp_path.iterdir())


@pytest.mark.full
@pytest.mark.skipif(shutil.which("ffmpeg") is not None, reason="ffmpeg is there")
def test_without_ffmpeg_mp4_is_told(course, tmp_path):
    """An mp4 without ffmpeg ends in a traceback."""
    with pytest.raises(InputError, match=r"end in \.gif where there is no ffmpeg"):
        figures.film(course, tmp_path / "x.mp4")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg")
def test_mp4_is_a_film(course, tmp_path):
    """ffmpeg does not take what it is given."""
    path = figures.film(course, tmp_path / "x.mp4", frames=5)
    assert path.read_bytes()[4:8] == b"ftyp"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_browser_shows_every_kind_of_page(course, turning, tmp_path):
    """A page stays white, or its script stops, in a browser without a network."""
    pytest.importorskip("plotly", reason="the extra 'interactive' is not installed")
    x, y = batch(5, 3, 4)
    kinds = {
        "dynamics": course,
        "circle": turning,
        "landscape": pair_landscapes(),
        "voltages": circuit_transients(fresh_hopfield("net", [6], "tanh", 0.5, examples=1)),
        "layers": gradient_report(HopfieldNetwork([5, 4, 3], "tanh").double(), x, y, SquaredError(), beta=1e-3),
    }
    for name, shown in kinds.items():
        page = figures.interactive(shown, tmp_path / f"{name}.html")
        told, dom, picture = browsed(page)
        assert 'class="main-svg"' in dom, (name, told[-400:])
        assert "Uncaught" not in told, (name, told[-400:])
        assert "WebGL is not supported" not in re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL), name
        colours = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
        assert len(np.unique(colours, axis=0)) > 20, name


def browsed(page: Path) -> tuple[str, str, Path]:
    """What a headless browser without a network says of a page, its elements, and a picture of it."""
    picture = page.with_suffix(".png")
    common = [CHROMIUM, "--headless", "--no-sandbox", "--disable-dev-shm-usage", "--virtual-time-budget=8000"]
    common += [
        "--use-gl=angle",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--enable-logging=stderr",
    ]
    common += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent / 'profile'}"]
    options = {"capture_output": True, "text": True, "timeout": 240}
    dom = subprocess.run([*common, "--dump-dom", page.as_uri()], check=True, **options)
    shot = [*common, "--window-size=1400,800", f"--screenshot={picture}", page.as_uri()]
    subprocess.run(shot, check=True, **options)
    return dom.stderr, dom.stdout, picture


@pytest.mark.slow
def test_the_command_writes_page_and_film(tmp_path, monkeypatch, capsys):
    """`--html` or `--film` does not reach the dynamics, or a figure that stands still ends in a traceback."""
    pytest.importorskip("plotly", reason="the extra 'interactive' is not installed")
    monkeypatch.chdir(tmp_path)
    assert command("figure", "circuit-transients", "--html", "volts.html", "--film", "volts.gif") == 0
    assert Path("volts.html").stat().st_size > 1e6
    assert Image.open("volts.gif").n_frames == 120
    assert command("figure", "paired_unit", "--film", "no.gif") == 2
    assert not Path("no.gif").exists()
    assert command("figure", "all", "--film", "no.gif") == 2
