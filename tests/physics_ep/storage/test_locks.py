"""One writer a file: if these fail, two runs into one file both end well, and one of them is gone."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from physics_ep import cli
from physics_ep.errors import InputError
from physics_ep.storage.locks import Lock, lock_of
from physics_ep.storage.outputs import OutputWarning, writing
from tests.support.paths import ROOT

HOLDER = """
import sys
from pathlib import Path
from physics_ep.storage.locks import Lock
lock = Lock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.readline()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock of a file."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_a_second_writer_is_refused_and_a_dead_one_succeeded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At its start, in one line that names the first; killed, the first leaves a lock that is taken over."""
    path = tmp_path / "figures.json"
    with holder(path) as child:
        with pytest.raises(SystemExit) as caught:
            cli.main(["info", "--json", str(path)])
        error = capsys.readouterr().err
        assert caught.value.code == 2
        assert error.count("\n") == 1
        assert f"is being written by process {child.pid} on {platform.node()} since" in error
        child.kill()
    assert lock_of(path).exists()
    with writing("a call") as call:
        with pytest.warns(OutputWarning, match=f"process {child.pid} on .* ended without"):
            call.claim("json", path)
        assert json.loads(lock_of(path).read_text(encoding="utf-8"))["process"] == os.getpid()
    assert os.listdir(tmp_path) == []


def taken(path: Path, **told: object) -> None:
    """A lock that some process has left."""
    lock = Lock(path)
    lock.acquire()
    content = json.loads(lock.place.read_text(encoding="utf-8")) | told
    lock.place.write_text(json.dumps(content), encoding="utf-8")


def test_locks_that_nobody_holds_are_told_from_others(tmp_path: Path) -> None:
    """The number of a process is given again, so that its start counts; what other hosts do cannot be known."""
    path = tmp_path / "run.h5"
    taken(path)
    with pytest.raises(InputError, match="is being written"):
        Lock(path).acquire()
    for told in ({"started": "another boot 1"}, {"process": 2**22 + 1}):
        lock_of(path).unlink()
        taken(path, **told)
        lock = Lock(path)
        lock.acquire()
        assert "since" in lock.lost_by
        lock.release()
        assert os.listdir(tmp_path) == []
        taken(path)
    lock_of(path).unlink()
    taken(path, host="elsewhere", process=2**22 + 1)
    with pytest.raises(InputError, match="on elsewhere since"):
        Lock(path).acquire()
    lock_of(path).write_bytes(b"")
    os.utime(lock_of(path), (1, 1))
    Lock(path).acquire()  # one that was killed before it could say who it is


def test_of_many_that_take_a_stale_lock_one_gets_it(tmp_path: Path) -> None:
    """Taking over is one step for all who try at once: two winners would write one file."""
    path = tmp_path / "run.h5"
    for _ in range(5):
        taken(path, process=2**22 + 1)
        begin, won = threading.Barrier(8), []

        def attempt(begin: threading.Barrier = begin, won: list[Lock] = won) -> None:
            lock = Lock(path)
            begin.wait()
            try:
                lock.acquire()
            except InputError:
                return
            won.append(lock)

        threads = [threading.Thread(target=attempt) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        won[0].release()


def test_a_call_within_a_call_shares_its_lock(tmp_path: Path) -> None:
    """A command and the function that it calls are one writer; folders that were made for a lock go with it."""
    path = tmp_path / "new" / "deep" / "run.h5"
    with writing("physics-ep outer") as outer:
        outer.claim("out", path)
        with writing("inner") as inner:
            inner.claim("path", path)
        assert lock_of(path).exists()
    assert os.listdir(tmp_path) == []
