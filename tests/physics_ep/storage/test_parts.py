"""Trajectories larger than memory: if these fail, a long simulation is lost, or its file is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import torch

from hardware_models import AnalogHopfieldCircuit
from physics_ep import Nudge, SquaredError, open_run, relax, simulate
from physics_ep.errors import InputError
from physics_ep.storage import parts
from physics_ep.storage.parts import parts_folder, read_parts
from physics_ep.storage.run_file import Run, write_run
from physics_ep.storage.trajectory import Trajectory
from tests.support.paths import ROOT
from tests.support.processes import wait_for
from tests.support.systems import batch, network


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few rows."""
    monkeypatch.setattr(parts, "PART_BYTES", 4000)


def same(a: Trajectory, b: Trajectory) -> bool:
    pairs = [(a.time, b.time), (a.energy, b.energy), (a.residual, b.residual)]
    pairs += [*zip(a.state, b.state, strict=True), *zip(a.internal, b.internal, strict=True)]
    units = (a.time_unit, a.state_unit, a.energy_unit) == (b.time_unit, b.state_unit, b.energy_unit)
    return units and all(torch.equal(p, q) for p, q in pairs)


@pytest.mark.parametrize("substrate", ["network", "circuit"])
def test_a_streamed_trajectory_is_the_one_in_memory(substrate: str, small_parts: None, tmp_path: Path) -> None:
    """Bit for bit, units and internal variables too; parts are gone, and the file is mapped, not read."""
    net, (x, y) = network("tanh", (5, 6, 4, 3)), batch(5, 3, 4)
    system = net if substrate == "network" else AnalogHopfieldCircuit.from_network(net)
    free = relax(system, x).require()
    nudge = Nudge(SquaredError(), y, 0.3 * system.nudge_scale)
    options = {"nudge": nudge, "start": free.state, "steps": 60}
    duration = 5 * system.time_constant
    path = tmp_path / "deep" / "run.h5"
    streamed = simulate(system, x, duration, out=path, **options)
    assert same(streamed, simulate(system, x, duration, **options))
    assert same(open_run(path).trajectories["nudged"], streamed)
    assert sorted(tmp_path.rglob("*")) == [path.parent, path]
    with h5py.File(path) as file:
        held = file["trajectories/nudged/state_0"]
        assert held.chunks is None
        assert held.attrs["units"] == system.state_unit
        assert file["trajectories/nudged/time"].attrs["units"] == system.time_unit
    streamed.state[0][0] = 7.0  # a user's change stays in memory
    assert not bool((open_run(path).trajectories["nudged"].state[0] == 7).any())


def test_the_first_seconds_are_kept_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part after a second, the next after two more, then four: a run that is killed early leaves what it has."""
    clock, seen = [0.0], []
    monkeypatch.setattr(parts.time, "monotonic", lambda: clock[0])
    system, (x, _) = network("tanh", (5, 6, 4, 3)), batch(5, 3, 4)
    folder = parts_folder(tmp_path / "run.h5")
    append = parts.TrajectoryWriter.append

    def slow(self: parts.TrajectoryWriter, point: object) -> None:
        clock[0] += 0.25
        append(self, point)
        seen.append((clock[0], len(list(folder.glob("*.h5")))))

    monkeypatch.setattr(parts.TrajectoryWriter, "append", slow)
    simulate(system, x, 10.0, steps=60, out=tmp_path / "run.h5")
    counts = dict(seen)
    assert [counts[t] for t in (0.75, 1.0, 2.75, 3.0, 6.75, 7.0)] == [0, 1, 1, 2, 2, 3]


@pytest.mark.full
def test_a_killed_simulation_leaves_a_readable_beginning(tmp_path: Path) -> None:
    """kill -9 in the middle: `open_run` reads whole parts, the same numbers as an undisturbed run."""
    path = tmp_path / "run.h5"
    script = f"""
import torch
from physics_ep import simulate
from physics_ep.storage import parts
from tests.support.systems import batch, network
torch.set_num_threads(1)
parts.PART_BYTES = 20000
simulate(network("tanh", (5, 6, 4, 3)), batch(5, 3, 4)[0], 1e4, steps=4000000, out={str(path)!r})
"""
    child = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        folder = parts_folder(path)
        wait_for(lambda: len(list(folder.glob("*.h5"))) >= 3, child)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not path.exists()
    run = open_run(path)
    assert run.attributes["kind"] == "unfinished simulation"
    found = run.trajectories["free"]
    count = len(found.time)
    assert count > 100
    whole = simulate(network("tanh", (5, 6, 4, 3)), batch(5, 3, 4)[0], 1e4 / 4e6 * (count - 1), steps=count - 1)
    assert torch.allclose(found.state[-1], whole.state[-1], rtol=1e-12)
    assert torch.allclose(found.time, whole.time, rtol=1e-12)
    # The next run begins afresh, and its file is whole.
    again = simulate(network("tanh", (5, 6, 4, 3)), batch(5, 3, 4)[0], 1.0, steps=20, out=path)
    assert len(again.time) == len(open_run(path).trajectories["free"].time) == 21
    assert not folder.exists()


def test_an_older_file_stays_until_the_new_one_is_whole(small_parts: None, tmp_path: Path) -> None:
    """An interrupted simulation must not take the last good one with it."""
    path = tmp_path / "run.h5"
    write_run(path, Run({"kind": "older"}))

    class Stop:
        def task(self, description: str, total: int) -> Stop:
            return self

        def __enter__(self):
            return self.advance

        def __exit__(self, *_: object) -> None:
            return None

        def advance(self, n: int = 1, **info: float) -> None:
            if info["time"] > 2.5:
                raise KeyboardInterrupt

    system, (x, _) = network("tanh", (5, 6, 4, 3)), batch(5, 3, 4)
    with pytest.raises(KeyboardInterrupt):
        simulate(system, x, 5.0, steps=60, out=path, progress=Stop(), overwrite=True)
    assert open_run(path).attributes["kind"] == "older"
    begun = read_parts(path).trajectories["free"]
    assert len(begun.time) == 31  # all rows up to then, those in memory too
    assert torch.equal(begun.state[0], simulate(system, x, 5.0, steps=60).state[0][: len(begun.time)])


def test_what_is_wrong_leaves_nothing(small_parts: None, tmp_path: Path) -> None:
    """Bad input, and steps that diverge, end in one line without a file."""
    system, (x, _) = network("linear", (3, 2)), batch(3, 2, 4)
    path = tmp_path / "run.h5"
    for options in ({"duration": -1.0}, {"duration": 1e5, "steps": 300, "method": "euler"}):
        with pytest.raises(InputError):
            simulate(system, x, out=path, **options)
    with pytest.raises(InputError, match="out must be a file"):
        simulate(system, x, 1.0, out=tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="path must be a run file"):
        open_run(path)
    parts_folder(path).mkdir()
    with pytest.raises(InputError, match="has no complete part"):
        open_run(path)


def test_a_damaged_part_is_told(small_parts: None, tmp_path: Path) -> None:
    """A flipped byte in a part is no number of the trajectory."""
    path = tmp_path / "run.h5"
    folder = parts_folder(path)
    folder.mkdir()
    course = simulate(network("linear", (3, 2)), batch(3, 2, 4)[0], 1.0)
    write_run(folder / "000000.h5", Run({"kind": "part of a trajectory"}, trajectories={"free": course}))
    assert same(open_run(path).trajectories["free"], course)
    with h5py.File(folder / "000000.h5") as file:
        place = file["trajectories/free/state_0"].id.get_chunk_info(0).byte_offset
    content = bytearray((folder / "000000.h5").read_bytes())
    content[place + 9] ^= 0xFF
    (folder / "000000.h5").write_bytes(bytes(content))
    with pytest.raises(InputError, match="damaged"):
        open_run(path)
