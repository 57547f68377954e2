"""How processes end. If these fail, a scheduler's signal costs a run, or workers and files are left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from physics_ep import __main__ as entry
from physics_ep import open_run, train
from physics_ep.cli import main
from physics_ep.processes import Ending
from physics_ep.storage import files
from physics_ep.storage.files import replacing
from tests.support.paths import ROOT
from tests.support.processes import LIMIT, wait_for

CONFIG = """
system = {name = "hopfield", sizes = [64, 16, 10]}
data = {train_examples = 320, test_examples = 32}
optimizer = {name = "SGD", lr = 0.0001}
training = {epochs = 4000}
"""


@pytest.mark.parametrize(
    ("name", "status"),
    [("SIGTERM", 143), pytest.param("SIGHUP", 129, marks=pytest.mark.full)],
)
def test_a_signal_ends_a_training_that_goes_on(tmp_path: Path, name: str, status: int) -> None:
    """In one line that tells how; the run goes on to the very weights of one that nothing has ended."""
    config, out = tmp_path / "small.toml", tmp_path / "run.h5"
    config.write_text(CONFIG, encoding="utf-8")
    command = [sys.executable, "-m", "physics_ep", "train", str(config), "--out", str(out)]
    # Under nohup tests have SIGHUP ignored, which children inherit.
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    signal.signal(number, before)
    with child:
        wait_for(out.exists, child)
        child.send_signal(number)
        _, error = child.communicate(timeout=LIMIT)
    assert child.returncode == status, error
    assert error.count("\n") == 1
    assert "interrupted in epoch" in error
    assert "--resume" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.h5", "small.toml"]
    further = [f"training.epochs={open_run(out).epochs + 1}"]
    resumed = train(config, overrides=further, resume=out)
    whole = train(config, overrides=further)
    for key, value in whole.system.state_dict().items():
        assert bool((resumed.system.state_dict()[key] == value).all()), key


EARLY = """
import builtins, os, signal
import physics_ep.__main__ as command
real = builtins.__import__
def planted(name, *rest):
    if name.endswith("{module}"):
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest)
builtins.__import__ = planted
import sys
sys.argv = ["physics-ep", "info"]
command.run()
"""


@pytest.mark.parametrize("module", ["cli", "registry", "typer", "torch"])
def test_ctrl_c_is_one_line_from_the_first_moment(module: str) -> None:
    """Also while modules are imported, where Python would print where it was."""
    done = subprocess.run(
        [sys.executable, "-c", EARLY.format(module=module)],
        capture_output=True, text=True, cwd=ROOT, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 130
    assert done.stderr == "physics-ep: error: interrupted\n"


LOST = """
import ctypes, os, signal, sys, time
from physics_ep import cli
callback = ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.{name}))
def work(*words, **named):
    callback()  # as a compiler calls Python: what is raised there is lost
    {then}
cli.application = lambda failures: work
cli.main(["info"])
"""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("then", ["time.sleep(600)", "raise RuntimeError('no compiled object yet')"])
def test_a_signal_that_a_library_loses_ends_the_command(name: str, status: int, then: str) -> None:
    """A command goes on for ever, or ends with status 1 and the library's words, while a kernel compiles."""
    done = subprocess.run(
        [sys.executable, "-c", LOST.format(name=name, then=then)],
        capture_output=True, text=True, cwd=ROOT, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == status
    assert done.stderr == "physics-ep: error: interrupted\n"


CLOSED = """
import os
for number in range(3):
    os.close(number)
import physics_ep.__main__ as command
from physics_ep import cli
cli.main = lambda: os._exit(0 if os.open({path!r}, os.O_CREAT | os.O_WRONLY) > 2 else 1)
command.run()
"""


def test_no_file_takes_the_place_of_a_closed_output(tmp_path: Path) -> None:
    """`physics-ep train ... >&- 2>&-`: what HDF5 or a compiler prints would go into the run file."""
    done = subprocess.run([sys.executable, "-c", CLOSED.format(path=str(tmp_path / "file"))], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_signals_that_are_ignored_stay_so() -> None:
    """`nohup physics-ep train ...` goes on when the terminal closes."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Ending():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_program_that_calls_a_command_keeps_its_signals() -> None:
    """If it fails, Ctrl-C comes again in a program that has long gone on."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    lost = sys.unraisablehook
    with pytest.raises(SystemExit):
        main(["--version"])
    assert [signal.getsignal(number) for number in numbers] == before
    assert sys.unraisablehook is lost


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {child!r}])
print(child.pid, flush=True)
child.wait()
"""
CHILD = """
import time
from physics_ep.cli import main
from physics_ep.processes import end_with_parent
end_with_parent()
open({mark!r}, "w").close()
time.sleep({limit})
"""


def test_a_worker_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    mark = tmp_path / "begun"
    script = PARENT.format(child=CHILD.format(mark=str(mark), limit=LIMIT))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        wait_for(mark.exists, parent)
        parent.kill()
    with subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({LIMIT})"]) as waiting:
        wait_for(lambda: not _runs(worker), waiting)
        waiting.kill()


def _runs(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked after does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.full
def test_workers_of_a_sweep_end_with_it(tmp_path: Path) -> None:
    """Killed, it leaves no process behind."""
    options = ["pcn", "--sweep", "programming_noise=0.01,0.02,0.03,0.04", "--repeats", "400", "--workers", "2"]
    command = [sys.executable, "-m", "physics_ep", "tolerance", *options, "--out", str(tmp_path / "sweep.h5")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=ROOT) as sweep:
        found: list[int] = []

        def two_workers() -> bool:
            found[:] = map(int, Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children").read_text().split())
            spawned = [p for p in found if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]
            return len(spawned) == 2

        wait_for(two_workers, sweep)
        sweep.kill()
    with subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({LIMIT})"]) as waiting:
        wait_for(lambda: not any(map(_runs, found)), waiting)
        waiting.kill()


def test_what_a_kill_has_left_is_swept(tmp_path: Path) -> None:
    """Temporary files of processes of this machine that have ended; those of others may still be written."""
    path = tmp_path / "run.h5"
    begin = files._ours(path)
    left = [f"{begin}{2**22 + 1}-abc.part", f"{begin}{2**22 + 2}-def.part"]
    kept = [f"{begin}{os.getpid()}-abc.part", ".run.h5-elsewhere-77-x.part", ".other.h5-1-1-x.part"]
    for name in [*left, *kept]:
        (tmp_path / name).write_bytes(b"")
    with replacing(path) as temporary:
        temporary.write_bytes(b"whole")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([*kept, "run.h5"])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_of_the_command_sleep_when_they_wait(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], wanted: str | None
) -> None:
    """And what the user says of it stands: otherwise waiting threads spin on cores that others use."""
    monkeypatch.setattr(os, "environ", dict(given))
    entry._let_threads_sleep()
    assert os.environ.get("GOMP_SPINCOUNT") == wanted
