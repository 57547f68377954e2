"""Trajectories that do not fit, or are stopped: if these fail, hours of simulation are lost, or a disk fills up."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from physics_ep import open_run, simulate
from physics_ep.config import load_subject
from physics_ep.errors import InputError
from physics_ep.runs.phases import simulate_phases
from physics_ep.storage import parts
from physics_ep.storage import trajectory as trajectories
from physics_ep.storage.parts import parts_folder
from physics_ep.storage.trajectory import NoRoomError
from tests.support.paths import ROOT
from tests.support.processes import LIMIT, processor_seconds, wait_for
from tests.support.systems import batch, network

Usage = namedtuple("Usage", "total used free")
ROW = 4 * (13 + 2) * 8 + 8
"""Bytes of a row of 4 examples of 6 + 4 + 3 units, with energy, residual and time."""


def course(duration: float = 5.0, **options: object):
    """Of a small network."""
    return simulate(network("tanh", (5, 6, 4, 3)), batch(5, 3, 4)[0], duration, **options)


def test_a_trajectory_larger_than_the_disk_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before the first step, and before anything is written; parts and the file that they become need it twice."""
    path = tmp_path / "run.h5"
    asked = []

    def usage(folder: Path) -> Usage:
        asked.append(Path(folder))
        return Usage(0, 0, free)

    monkeypatch.setattr(parts.shutil, "disk_usage", usage)
    free = 2 * 101 * ROW - 1
    with pytest.raises(NoRoomError, match=r"needs 0\.1 MiB while it is written, but 0\.1 MiB are free.*every.*out"):
        course(out=path, steps=100)
    assert list(tmp_path.iterdir()) == []
    assert asked == [tmp_path]
    free = 2 * 101 * ROW
    monkeypatch.setattr(parts, "FIRST_SECONDS", 0.0)  # a part soon: as much as is still to come must fit, no more
    assert len(course(out=path, steps=100).time) == 101
    free = 2 * 11 * ROW
    assert len(course(out=path, steps=100, every=10).time) == 11
    monkeypatch.setattr(parts, "FIRST_SECONDS", 1e9)
    course(out=path, steps=100, stop_when_settled=0.5)  # may be short


@pytest.mark.full
def test_a_trajectory_larger_than_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a word on what helps: where its length is known, before it starts; else when half of it is full."""
    there = 2 * 101 * ROW
    monkeypatch.setattr(trajectories, "available_memory", lambda device: there)
    monkeypatch.setattr(trajectories, "CHECKED_BYTES", 2000)
    assert len(course(steps=100).time) == 101
    with pytest.raises(NoRoomError, match=r"Too little memory for the trajectory: .* \(every\).* \(out\)"):
        course(steps=101)
    with pytest.raises(InputError, match="Too little memory"):
        course(30.0, method="bogacki_shampine", rtol=1e-9, atol=1e-12)
    assert len(course(30.0, method="bogacki_shampine", rtol=1e-9, atol=1e-12, every=10).time) > 20


def test_a_disk_that_fills_up_leaves_readable_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Steps chosen by tolerance are not known before: the run ends in one line, and all its rows can be read."""
    path = tmp_path / "run.h5"
    options = {"method": "bogacki_shampine", "rtol": 1e-8}
    monkeypatch.setattr(parts, "PART_BYTES", 8 * ROW)

    def usage(folder: Path) -> Usage:
        return Usage(0, 0, 40 * ROW - sum(f.stat().st_size > 0 for f in Path(folder).glob("*.h5")) * 8 * ROW)

    monkeypatch.setattr(parts.shutil, "disk_usage", usage)
    with pytest.raises(NoRoomError) as told:
        course(out=path, **options)
    assert "too full to go on" in str(told.value)
    assert "run.h5.parts' open_run reads them" in str(told.value).replace(";", "")
    assert str(told.value).count("\n") == 0
    run = open_run(path)
    assert run.attributes["kind"] == "unfinished simulation"
    monkeypatch.undo()
    whole = course(**options)
    rows = len(run.trajectories["free"].time)
    assert rows == 24  # three parts: a fourth, or one file of them, has no room
    assert torch.equal(run.trajectories["free"].state[0], whole.state[0][:rows])


@contextmanager
def file_size_limit(size: int):
    """The operating system refuses to let files grow beyond this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.full
def test_what_the_system_refuses_to_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A real refusal: when the parts become one file, they stay; at the first part, nothing is left behind."""
    path = tmp_path / "run.h5"
    monkeypatch.setattr(parts, "PART_BYTES", 64 * ROW)
    with file_size_limit(120_000), pytest.raises(NoRoomError, match="The rows before are kept in"):
        course(out=path, steps=500)
    assert not path.exists()
    assert len(open_run(path).trajectories["free"].time) == 501
    shutil.rmtree(parts_folder(path))
    with file_size_limit(3000), pytest.raises(InputError, match="Cannot write run file"):
        course(out=path, steps=500)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_interrupted_phases_can_be_read(tmp_path: Path) -> None:
    """Ctrl-C in the nudged phase: the free one is whole, and config and weights are there."""
    path = tmp_path / "run.h5"

    class Stop:
        phases = 0

        @contextmanager
        def task(self, description: str, total: int):
            self.phases += 1
            yield self.advance

        def advance(self, n: int = 1, **info: float) -> None:
            if self.phases == 2 and info["time"] > 2.5:
                raise KeyboardInterrupt

    subject = load_subject("hopfield")
    with pytest.raises(KeyboardInterrupt):
        simulate_phases(subject, out=path, duration=5.0, progress=Stop())
    run = open_run(path)
    whole = simulate_phases(subject, duration=5.0)
    for name, rows in (("free", 101), ("nudged", 51)):
        found, expected = run.trajectories[name], getattr(whole, name)
        assert len(found.time) == rows
        assert all(torch.equal(a, b[:rows]) for a, b in zip(found.state, expected.state, strict=True))
    assert run.config["system"]["name"] == "hopfield"
    assert run.attributes["beta"] == whole.beta
    assert "layers.0.weight" in run.state_dict
    done = simulate_phases(subject, out=path, duration=5.0)
    kept = open_run(path)
    assert torch.equal(kept.trajectories["nudged"].state[0], whole.nudged.state[0])
    assert torch.equal(done.free.energy, whole.free.energy)
    assert kept.attributes["kind"] == "simulation"
    assert kept.state_dict.keys() == run.state_dict.keys()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.full
def test_ctrl_c_leaves_all_rows(tmp_path: Path) -> None:
    """A real SIGINT to the command: one line, status 130, and rows that had not reached the disk are there too."""
    path = tmp_path / "run.h5"
    command = [
        sys.executable,
        "-m",
        "physics_ep",
        "simulate",
        "hopfield",
        "--out",
        str(path),
        "--duration",
        "20000",
    ]
    # Tests that run in the background may have been started with SIGINT ignored, which children inherit.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen([*command, "--quiet"], cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ)
    signal.signal(signal.SIGINT, before)
    try:
        wait_for(parts_folder(path).is_dir, child)
        # From here on it simulates: half a second on the processor is some hundreds of rows, all in memory.
        begun = processor_seconds(child)
        wait_for(lambda: processor_seconds(child) > begun + 0.5, child)
        written = len(list(parts_folder(path).iterdir()))  # zero, unless the machine is busy
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=LIMIT)
    finally:
        child.kill()
    assert child.returncode == 130
    assert told.count("\n") == 1
    assert "interrupted" in told
    assert f"open_run('{path}') reads it" in told
    assert len(list(parts_folder(path).iterdir())) > written
    found = open_run(path).trajectories["free"]
    rows = len(found.time)
    assert rows > 20
    again = simulate_phases(load_subject("hopfield"), duration=0.05 * (rows - 1), steps=rows - 1).free
    assert torch.allclose(found.state[-1], again.state[-1], rtol=1e-5, atol=1e-6)
    assert torch.allclose(found.time, again.time)
