"""Run files: what goes in comes out, damage is told, and no kill leaves half a file."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardware_models import HopfieldNetwork
from physics_ep import open_run
from physics_ep.dynamics.simulation import Trajectory
from physics_ep.errors import InputError
from physics_ep.runs.preparation import load_weights, system_of
from physics_ep.storage.files import check_output, replacing
from physics_ep.storage.outputs import write_json
from physics_ep.storage.run_file import Quantity, Run, environment, write_run
from physics_ep.storage.sealed import seal


def sample() -> Run:
    """A run with something in every part."""
    generator = torch.Generator().manual_seed(0)
    return Run(
        attributes={"kind": "training", "config": {"system": {"name": "x"}}, "epochs": 2, **environment()},
        metrics={"loss": Quantity(np.array([1.5, 0.5]), "cost units", "mean cost")},
        state_dict={
            "layer.weight": torch.randn(3, 4, generator=generator),
            "count": torch.tensor(7),
            "empty": torch.zeros(0, 3),
            "phase": torch.complex(torch.ones(2), torch.full((2,), -1.0)),
        },
        resume={
            "optimizer": {"state": {0: {"step": torch.tensor(3.0), "buffer": None}}, "groups": [{"lr": 0.1}]},
            "scheduler": {"pair": (1, "two", True), "rates": [0.1, 1e-300]},
        },
        trajectories={
            "free": Trajectory(
                time=torch.linspace(0, 1, 5, dtype=torch.float64),
                state=(torch.randn(5, 2, 3, generator=generator), torch.randn(5, 2, generator=generator)),
                energy=torch.randn(5, 2, generator=generator),
                residual=torch.rand(5, 2, generator=generator),
            )
        },
    )


def same(a: object, b: object) -> bool:
    """Equality of nested state, types and bits included."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))  # type: ignore[arg-type]
    return type(a) is type(b) and a == b


def test_everything_comes_back(tmp_path: Path) -> None:
    """If this fails, a resumed run or a figure works on other numbers than were computed."""
    run = sample()
    path = tmp_path / "new" / "run.h5"
    write_run(path, run)
    back = open_run(path)
    assert same(run.state_dict, back.state_dict)
    assert same(run.resume, back.resume)
    assert back.config == {"system": {"name": "x"}}
    assert back.epochs == 2
    assert (
        back.attributes["versions"]["torch"] == torch.__version__.partition("+")[0] or back.attributes["versions"]
    )
    np.testing.assert_array_equal(back.metric("loss"), [1.5, 0.5])
    assert back.metrics["loss"].units == "cost units"
    for name in ("time", "state", "energy", "residual"):
        assert same(getattr(run.trajectories["free"], name), getattr(back.trajectories["free"], name))
    assert os.listdir(path.parent) == ["run.h5"]


STATE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers(0, 9) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(state=st.dictionaries(st.text(max_size=3), STATE, min_size=1, max_size=3))
def test_any_nested_state_comes_back(state: dict[str, object]) -> None:
    """If this fails, some optimizer's or scheduler's state is changed by a resume (integer keys, tuples,
    infinities)."""
    path = Path(f"/dev/shm/physics-ep-{os.getpid()}.h5") if Path("/dev/shm").is_dir() else Path("state.h5")
    try:
        write_run(path, Run(resume=state))
        assert same(open_run(path).resume, state)
    finally:
        path.unlink(missing_ok=True)


def test_datasets_say_what_they_are(tmp_path: Path) -> None:
    """If this fails, a file read years later is a heap of numbers without units."""
    write_run(tmp_path / "run.h5", sample())
    bare: list[str] = []

    def visit(name: str, held: h5py.Dataset | h5py.Group) -> None:
        if (
            isinstance(held, h5py.Dataset)
            and name != "resume/tree"
            and not held.attrs.keys() >= {"units", "description"}
        ):
            bare.append(name)

    with h5py.File(tmp_path / "run.h5") as file:
        file.visititems(visit)
        assert not bare
        assert file.attrs["format"] == "physics-ep run"
        assert json.loads(file.attrs["versions"])["physics-ep"]
        assert file.attrs["date"].startswith("20")
        assert int(file.attrs["threads"]) == torch.get_num_threads()


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    """If this fails, half a file is taken for a run, or ends in a traceback of h5py."""
    path = tmp_path / "run.h5"
    write_run(path, sample())
    whole = path.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.6, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match="damaged or truncated") as caught:
            open_run(path)
        assert "\n" not in str(caught.value)
    with h5py.File(path, "w") as file:
        file["data"] = [1, 2, 3]
    with pytest.raises(InputError, match="no run file of physics-ep"):
        open_run(path)
    with pytest.raises(InputError, match="which is no file"):
        open_run(tmp_path / "missing.h5")


def test_damaged_bytes_are_told_from_weights(tmp_path: Path) -> None:
    """If this fails, a flipped bit on a disk becomes a weight of the network."""
    path = tmp_path / "run.h5"
    run = sample()
    write_run(path, run)
    raw = bytearray(path.read_bytes())
    at = raw.find(run.state_dict["layer.weight"].numpy().tobytes())
    assert at > 0
    raw[at] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="damaged"):
        open_run(path)


def test_newer_format_is_refused(tmp_path: Path) -> None:
    """If this fails, a file of a later version is misread."""
    path = tmp_path / "run.h5"
    write_run(path, sample())
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 99
    seal(path, "a later version", "training")
    with pytest.raises(InputError, match="newer physics-ep"):
        open_run(path)


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    """If this fails, code or objects get into a file, and reading it could run them; and the old file must
    survive."""
    path = tmp_path / "run.h5"
    write_run(path, sample())
    before = path.read_bytes()
    with pytest.raises(InputError, match="State of type function cannot be stored"):
        write_run(path, overwrite=True, run=Run(resume={"schedule": lambda epoch: epoch}))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.h5"]


def test_system_comes_back_from_its_run(tmp_path: Path) -> None:
    """If this fails, a trained system cannot be used without its training script, or loses digits on the way."""
    system = HopfieldNetwork([4, 5, 3], seed=3).double()
    config = {"system": {"name": "hopfield", "sizes": [4, 5, 3]}}
    write_run(tmp_path / "run.h5", Run(attributes={"config": config}, state_dict=system.state_dict()))
    back = system_of(open_run(tmp_path / "run.h5"))
    assert same(dict(system.state_dict()), dict(back.state_dict()))
    with pytest.raises(InputError, match="do not fit the system"):
        load_weights(HopfieldNetwork([4, 6, 3]), open_run(tmp_path / "run.h5"))
    with pytest.raises(InputError, match="holds no trained system"):
        system_of(Run())


WRITER = """
import sys, torch
from physics_ep.storage.run_file import Run, write_run
k = 0
while True:
    k += 1
    write_run(sys.argv[1], Run({"epochs": k}, state_dict={"w": torch.full((200_000,), float(k))}))
    if k == 1:
        print("begun", flush=True)
"""


@pytest.mark.full
def test_kill_leaves_a_whole_file(tmp_path: Path) -> None:
    """If this fails, a power cut or an out-of-memory kill during a save costs the whole run."""
    path = tmp_path / "run.h5"
    for k in range(2):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            time.sleep(0.02 + 0.013 * k)  # at another place of the loop each time
            process.send_signal(signal.SIGKILL)
        run = open_run(path)
        assert torch.equal(run.state_dict["w"], torch.full((200_000,), float(run.epochs)))


@pytest.mark.parametrize("count", [5, pytest.param(60, marks=pytest.mark.full)])
def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path: Path, count: int) -> None:
    """Wherever HDF5 is when the disk refuses; else the process crashes, and leaves a lock and a temporary file."""
    path = tmp_path / "run.h5"
    whole = Run(
        {"kind": "training"}, state_dict={f"w{k}": torch.rand(50, 50) for k in range(8)}, resume={"a": [1.0]}
    )
    write_run(path, whole)
    before = path.read_bytes()
    for k in range(count):
        child = os.fork()
        if not child:
            status = 1
            with contextlib.suppress(BaseException):
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 + k * len(before) // count, resource.RLIM_INFINITY))
                try:
                    write_run(path, whole, overwrite=True)
                except InputError as error:
                    status = 0 if "File too large" in str(error) and "\n" not in str(error) else 2
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, k
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["run.h5"]


def test_replacing_keeps_the_old_file_on_failure(tmp_path: Path) -> None:
    """If this fails, an error in the middle of writing destroys what was there."""
    path = tmp_path / "figures.json"
    write_json(path, {"a": 1})

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fail()
    assert json.loads(path.read_text(encoding="utf-8")) == {"command": "physics-ep", "a": 1}
    assert os.listdir(tmp_path) == ["figures.json"]


def test_json_is_plain_and_standard(tmp_path: Path) -> None:
    """If this fails, another program cannot read the figures (NaN is no JSON, arrays are none)."""
    figures = {
        "nan": float("nan"),
        "array": np.arange(3),
        "scalar": torch.tensor(2.0),
        "path": tmp_path,
        "t": (1, 2),
    }
    write_json(tmp_path / "f.json", figures)
    assert json.loads((tmp_path / "f.json").read_text(encoding="utf-8")) == {
        "command": "physics-ep",
        "nan": None,
        "array": [0, 1, 2],
        "scalar": 2.0,
        "path": str(tmp_path),
        "t": [1, 2],
    }


def test_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """If this fails, hours of work end in an error at the first save."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    for bad in (tmp_path, tmp_path / "file" / "run.h5", Path("/proc/run.h5"), Path("/proc/no/../run.h5")):
        with pytest.raises(InputError, match=r"Argument out must (be a file|lie in a folder)"):
            check_output(bad, "out")
    assert check_output(tmp_path / "a" / "b" / "run.h5", "out") == tmp_path / "a" / "b" / "run.h5"
    assert os.listdir(tmp_path) == ["file"]
