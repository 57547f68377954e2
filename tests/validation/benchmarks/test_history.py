"""Files of benchmarks, and what a history reads of them."""

from __future__ import annotations

import json
import sys
import types

import pytest

from physics_ep.errors import InputError
from physics_ep.version import __version__
from tests.support.looks import command
from validation import commands
from validation.benchmarks.history import RELEASES, is_loaded, read_history


@pytest.fixture
def benchmark(monkeypatch):
    """A benchmark of no work, registered under two names."""
    module = types.ModuleType("benchmark_of_no_work")
    module.measure = lambda repeats, seed: {
        "title": "nothing",
        "rows": [{"step": "a", "ratio": 2.0}],
        "followed": {"a / b": 2.0, "not measured": None},
        "machine": "an abacus",
    }
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("nothing", "again"):
        monkeypatch.setitem(commands.BENCHMARKS, name, module.__name__)


def test_file_of_a_benchmark_tells_machine_and_versions(benchmark, tmp_path) -> None:
    """A figure that nobody can place is worth nothing: measured where, with what, when, under which load."""
    one, two = tmp_path / "0.9.json", tmp_path / "1.0.json"
    assert command("bench", "nothing", "--repeats", "3", "--json", str(one)) == 0
    assert command("bench", "nothing", "again", "--json", str(two)) == 0
    told = json.loads(one.read_text())
    assert told["benchmark"] == "nothing"
    assert told["version"] == __version__
    assert told["machine"] == "an abacus"
    assert told["repeats"] == 3
    assert {"python", "torch", "numpy", "scipy", "numba"} <= set(told["versions"])
    assert len(told["load"]) == 2
    assert set(json.loads(two.read_text())) == {"command", "nothing", "again"}
    first, second = read_history(tmp_path)
    assert (first.name, second.name) == ("0.9", "1.0")
    assert first.followed == {"nothing": {"a / b": 2.0}}
    assert set(second.followed) == {"nothing", "again"}


def test_releases_stand_in_the_order_of_their_dates(benchmark, tmp_path) -> None:
    """0.10 comes after 0.9, though its name is sorted before it."""
    for name, date in (("0.9", "2026-01-01T00:00:00+00:00"), ("0.10", "2026-02-01T00:00:00+00:00")):
        path = tmp_path / f"{name}.json"
        assert command("bench", "nothing", "--json", str(path)) == 0
        path.write_text(json.dumps({**json.loads(path.read_text()), "date": date}))
    assert [release.name for release in read_history(tmp_path)] == ["0.9", "0.10"]


def test_busy_machine_is_told(capsys, benchmark, monkeypatch) -> None:
    """Times of a machine that others kept busy must not pass for a quiet one's; its own process is no load."""
    assert not is_loaded({"load": [0.1, 1.2], "cores": 4})
    assert is_loaded({"load": [3.0, 1.2], "cores": 4})
    assert is_loaded({"load": [0.1, 4.0], "cores": 4})
    monkeypatch.setattr("os.getloadavg", lambda: (1e3, 0, 0))
    assert command("bench", "nothing") == 0
    assert "busy with other programs: load 1000.0 before" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"rows": 3}', '{"a": {"rows": []}}', '{"command": "physics-ep train", "x": 1}', "\x00", None],
)
def test_other_files_are_refused_by_name(content, tmp_path) -> None:
    """A stray file must not vanish from a history, nor end it in a traceback."""
    if content is not None:
        (tmp_path / "stray.json").write_text(content)
    with pytest.raises(InputError, match="stray.json" if content is not None else "without a file"):
        read_history(tmp_path)


@pytest.mark.parametrize("ratio", [-1.0, 0.0, "two", float("nan")])
def test_ratios_that_are_none_are_refused(ratio, benchmark, tmp_path) -> None:
    """A ratio of zero or below has no place on a logarithmic axis: it would be left out in silence."""
    path = tmp_path / "one.json"
    assert command("bench", "nothing", "--json", str(path)) == 0
    path.write_text(json.dumps({**json.loads(path.read_text()), "followed": {"a": ratio}}))
    with pytest.raises(InputError, match=r"one\.json"):
        read_history(tmp_path)


def test_releases_of_the_project_can_be_read() -> None:
    """The project's own history holds at least one release, and its benchmarks are known ones."""
    for release in read_history(RELEASES):
        assert set(release.followed) <= set(commands.BENCHMARKS)
        assert all(release.followed.values())
