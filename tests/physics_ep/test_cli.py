"""The command: quick, complete, and bad input ends in one line with status 2."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import physics_ep
from physics_ep import cli, entries, open_run, registry
from physics_ep.command_options import Bars, Report
from physics_ep.errors import InputError
from physics_ep.progress import SILENT
from tests.support.paths import ROOT
from tests.support.processes import LIMIT, wait_for

SMALL = ["--set", "training.epochs=1", "--set", "data.train_examples=64", "--set", "data.test_examples=32"]


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


def python(
    *arguments: str, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """The same for a Python of its own."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_names_of_files_may_be_any_bytes(tmp_path: Path) -> None:
    """A name that is no UTF-8 is printed as it can be; else the command fails after its work is done."""
    name = os.fsencode(tmp_path) + b"/\xff.json"
    command = [sys.executable, "-m", "physics_ep", "fit-pulses", str(tmp_path / "pulses.csv"), "--out", name]
    rows = [(k, "up" if k <= 20 else "down", 1e-6 * (1 + min(k, 40 - k))) for k in range(41)]
    text = "cell,pulse,direction,conductance\n" + "".join(f"0,{k},{way},{g}\n" for k, way, g in rows)
    (tmp_path / "pulses.csv").write_text(text, encoding="utf-8")
    done = subprocess.run(command, capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert rb"\udcff.json" in done.stdout
    assert os.path.exists(name)


def test_help_is_quick() -> None:
    """If this fails, the command feels broken: the contract is half a second (of the processor, as tests share
    it)."""
    used = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        status, out, _ = python("-m", "physics_ep", "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert status == 0
        assert "train" in out
    assert min(used) <= 0.5


def test_help_imports_nothing_heavy() -> None:
    """If this fails, help is slow on a machine slower than this one."""
    code = (
        "import sys\nfrom physics_ep import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'h5py', 'numba', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))"
    )
    assert "HEAVY []" in python("-c", code)[1]


def test_version_and_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, the first two things that a user types fail."""
    assert run("--version", capsys=capsys) == (0, f"physics-ep {physics_ep.__version__}\n", "")
    status, out, _ = run(capsys=capsys)
    assert status == 0
    assert "Usage: physics-ep" in out


@pytest.mark.full
def test_source_tree_that_is_not_installed(tmp_path: Path) -> None:
    """If this fails, `python -m physics_ep` from a fresh clone knows no commands."""
    for name in ("physics_ep", "pyproject.toml"):
        source = entries.ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    # -S leaves out site-packages, and with them the installed metadata; typer alone is lent back by path.
    site = str(Path(pytest.__file__).parent.parent)
    code = (
        f"import sys; sys.path.append({site!r})\n"
        "import physics_ep.entries as r\n"
        "r.entry_points = lambda group: ()\n"
        "from physics_ep import cli; cli.main(['train', '--list'])"
    )
    status, out, err = python("-S", "-c", code, cwd=tmp_path)
    assert status == 0, err
    assert "hopfield-digits" in out


def test_train_writes_figures_and_run_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, the contract of --json and --out is broken."""
    out, figures = tmp_path / "run.h5", tmp_path / "figures.json"
    status, printed, err = run(
        "train", "hopfield-digits", *SMALL, "--out", str(out), "--json", str(figures), "--seed", "3", "--dtype",
        "float64", "--verbose", capsys=capsys,
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "test error" in printed
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert {"test_error", "train_error", "epochs", "seconds", "worst_residual", "skipped", "config"} <= found.keys()
    assert found["config"]["training"]["seed"] == 3
    assert open_run(out).state_dict["layers.0.weight"].dtype.itemsize == 8


def test_resume_needs_no_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, a user who has only the run file cannot go on; and --quiet must print nothing."""
    out = str(tmp_path / "run.h5")
    run("train", "hopfield-digits", *SMALL, "--set", "scheduler.T_max=2", "--out", out, capsys=capsys)
    status, printed, err = run("train", "--resume", out, "--set", "training.epochs=2", "--quiet", capsys=capsys)
    assert (status, printed, err) == (0, "", "")
    assert open_run(out).epochs == 2


@pytest.mark.full
def test_simulate_keeps_both_phases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, the command shows other dynamics than it stores, or a free phase that goes uphill."""
    out, figures = tmp_path / "run.h5", tmp_path / "figures.json"
    status, printed, _ = run(
        "simulate", "hopfield", "--out", str(out), "--json", str(figures), "--examples", "2", capsys=capsys
    )
    assert status == 0
    assert "time to 1 %" in printed
    run_file = open_run(out)
    free, nudged = run_file.trajectories["free"], run_file.trajectories["nudged"]
    assert free.energy.shape == (len(free.time), 2)
    assert bool((free.energy.diff(dim=0) <= 1e-6).all())
    assert all(bool((a[-1] == b[0]).all()) for a, b in zip(free.state, nudged.state, strict=True))
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert found["phases"]["free"]["settling_time"] == free.settling_time.tolist()


def test_info_tells_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, a report of a fault lacks what is needed to repeat it."""
    figures = tmp_path / "info.json"
    status, printed, _ = run("info", "--json", str(figures), "--data", "/nonexistent", capsys=capsys)
    assert status == 0
    assert "torch" in printed
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert found["systems"]["hopfield"] == "hardware_models.hopfield:HopfieldNetwork"
    assert found["data"]["digits"] == "shipped"
    assert found["data"]["mnist"] == "not found"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "No such command 'trian'"),
        (["train", "--epochs", "3"], "No such option"),
        (["train"], "Argument CONFIG must be given"),
        (["train", "hopfield-digit"], "Did you mean 'hopfield-digits'?"),
        (["train", "nowhere.toml"], "'nowhere.toml', which is no file"),
        (["train", "hopfield-digits", "--set", "system.name=hopfeld"], "Did you mean 'hopfield'?"),
        (["train", "hopfield-digits", "--set", "ep.scheme=centred"], "Did you mean 'centered'?"),
        (["train", "hopfield-digits", "--set", "optimizer.name=SDG"], "Did you mean 'SGD'?"),
        (["train", "hopfield-digits", "--set", "training.epocs=1"], "Did you mean 'epochs'?"),
        (["train", "hopfield-digits", "--set", "ep.beta=0"], "ep.beta must be positive"),
        (["train", "hopfield-digits", "--set", "ep.beta=-0.1"], "ep.beta must be positive"),
        (["train", "hopfield-digits", "--set", "ep.beta=nan"], "ep.beta must be finite"),
        (["train", "hopfield-digits", "--set", "system.sizes=[64, 0, 10]"], "sizes must be"),
        (["train", "hopfield-digits", "--set", "data.name=mnist", "--data", "/nonexistent"], "is no folder"),
        (["train", "hopfield-digits", "--out", "/proc/run.h5"], "Argument out must be"),
        (["train", "hopfield-digits", "--json", "/proc/f.json"], "Argument json must be"),
        (
            ["train", "hopfield-digits", "--set", "training.threads=4096"],
            "Argument training.threads must be at most",
        ),
        (["gradients", "hopfield", "--batch", "1000000000000"], "Argument batch must be at most the"),
        (["map", "pcn", "--batch", "9" * 30], "Argument batch must be an integer of 64 bits, but was 999"),
        (["map", "pcn", "--batch", "9" * 15], "Argument batch must be at most"),
        (["spice", "check", "divider", "--beta", "nan"], "Argument beta must be finite, but was nan"),
        (["train", "hopfield-digits", "--resume", "/nonexistent.h5"], "Argument resume must be a run file"),
        (["train", "hopfield-digits", "--seed", "x"], "Invalid value for '--seed'"),
        (["train", "hopfield-digits", "--device", "cuda:99"], "Argument device must"),
        (["train", "hopfield-digits", "--dtype", "half"], "Argument dtype must"),
        (["simulate", "hopfield"], "Missing option '--out'"),
        (["simulate", "hopfield", "--out", "OUT", "--duration", "-1"], "Argument duration must be"),
        (["simulate", "hopfield", "--out", "OUT", "--beta", "nan"], "Argument beta must be"),
        (["simulate", "hopfield", "--out", "OUT", "--temperature", "-1"], "Argument temperature must be 0 or"),
        (["simulate", "hopfield", "--out", "OUT", "--flow", "skew"], "Argument flow must be 'gradient' or"),
        (["simulate", "hopfield", "--out", "OUT", "--method", "rk5"], "Did you mean 'rk4'?"),
        (
            ["simulate", "hopfield", "--out", "OUT", "--steps", "2", "--duration", "99"],
            "Argument steps must be more",
        ),
        (["simulate", "hopfeld", "--out", "OUT"], "Did you mean 'hopfield'?"),
        (["info", "--dtype", "half"], "Argument dtype must"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails, a slip of the keyboard ends in a page of traceback, or in status 0."""
    given = [str(tmp_path / "run.h5") if a == "OUT" else a for a in arguments]
    status, out, err = run(*given, capsys=capsys)
    assert status == 2
    assert out == ""
    assert err.startswith("physics-ep: error: ")
    assert err.count("\n") == 1
    assert words in err
    assert os.listdir(tmp_path) == []


def test_bars_show_the_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, the bar of a long training shows no figures, or breaks the training that reports to it."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Bars().task("training", total=4) as advance:
        advance(3)
        advance(0, loss=0.25, epoch="1/2")
        advance()
    assert "loss 0.25" in capsys.readouterr().err
    assert Report(quiet=True).progress() is SILENT


def test_damaged_data_and_run_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, a truncated download or run file is a traceback."""
    for stem in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        (tmp_path / stem).write_bytes(b"\0\0\x08\x03\0\0")
    status, _, err = run("train", "hopfield-mnist", "--data", str(tmp_path), capsys=capsys)
    assert status == 2
    assert re.fullmatch(r"physics-ep: error: Data file '.*train-images.*' is unusable: .*\n", err)
    broken = tmp_path / "run.h5"
    broken.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 40)
    status, _, err = run("train", "--resume", str(broken), capsys=capsys)
    assert status == 2
    assert "damaged or truncated" in err
    assert err.count("\n") == 1


def test_errors_of_all_kinds_have_their_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails, scripts cannot tell bad input from failed work, and faults of ours hide where they are."""

    class StoppedError(Exception):
        exit_status = 1

    cases = [
        (InputError("two\nlines"), 2, "physics-ep: error: two lines\n"),
        (StoppedError("no convergence"), 1, "physics-ep: error: no convergence\n"),
        (MemoryError(), 2, "physics-ep: error: Out of memory"),
        (FileNotFoundError(2, "No such file", "x.toml"), 2, "No such file"),
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("a fault of ours"), 1, "ZeroDivisionError: a fault of ours (--verbose shows where)"),
    ]
    for error, expected, words in cases:

        def register(app: object, error: BaseException = error) -> None:
            @app.command()  # type: ignore[attr-defined]
            def fail(verbose: bool = False) -> None:
                raise error

            @app.command()  # type: ignore[attr-defined]
            def other() -> None: ...

        monkeypatch.setattr(
            registry, "commands", lambda: {"mine": EntryPoint("mine", "x:y", "physics_ep.commands")}
        )
        monkeypatch.setattr(registry, "load", lambda entry, register=register: register)
        status, _, err = run("fail", capsys=capsys)
        assert status == expected, error
        assert words in err
        assert "Traceback" not in err
    assert "Traceback" in run("fail", "--verbose", capsys=capsys)[2]


def test_broken_plugin_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails, one package that cannot be imported takes the whole command down; asked for, it is named."""
    gone = EntryPoint("gone", "nowhere.commands:register", "physics_ep.commands")
    core = registry.commands()["core"]
    monkeypatch.setattr(registry, "commands", lambda: {"gone": gone, "core": core})
    status, out, _ = run("--help", capsys=capsys)
    assert status == 0
    assert "train" in out
    assert "Entry 'gone'" in out
    status, _, err = run("its-command", capsys=capsys)
    assert status == 2
    assert "No such command 'its-command'" in err
    assert "Entry 'gone' of physics_ep.commands (nowhere.commands:register) cannot be loaded" in err
    assert err.count("\n") == 1


@pytest.mark.full
def test_file_that_hides_a_package_is_named(tmp_path: Path) -> None:
    """If this fails, a user's own figures.py or hardware_models.py makes ours fail without a reason."""
    (tmp_path / "hardware_models.py").write_text("", encoding="utf-8")
    root = {"PYTHONPATH": str(entries.ROOT)}
    status, _, err = python("-m", "physics_ep", "train", "hopfield-digits", cwd=tmp_path, environment=root)
    assert status == 2
    assert "hardware_models.py hides the package 'hardware_models' of physics-ep" in err
    assert err.count("\n") == 1


@pytest.mark.full
def test_interrupt_tells_how_to_resume(tmp_path: Path) -> None:
    """If this fails, Ctrl-C ends in a traceback, loses the epochs done, or leaves the user guessing."""
    out = tmp_path / "run.h5"
    command = [sys.executable, "-m", "physics_ep", "train", "hopfield-digits", "--set", "training.epochs=5000"]
    with subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, text=True) as process:
        wait_for(out.exists, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert f"resume with --resume {out}" in err
    assert open_run(out).epochs >= 1
