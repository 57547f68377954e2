"""Benchmarks run on machines that have torch, numpy, scipy, numba and h5py, and nothing that the command needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.paths import ROOT

BARE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"pydantic", "pooch", "typer", "rich", "shellingham", "plotly", "matplotlib"}:
            raise ModuleNotFoundError(f"No module named {name!r}: blocked by the test", name=name)

sys.meta_path.insert(0, Blocked())
"""
# One process imports all files: torch is loaded once. What a file imports late is asked for below. Learning in
# place takes a config, and so pydantic.
PROGRAM = """
import importlib, pkgutil
benchmarks = importlib.import_module("validation.benchmarks")
for module in pkgutil.walk_packages(benchmarks.__path__, "validation.benchmarks."):
    print(module.name, flush=True)
    importlib.import_module(module.name)
for package in ("hardware_models", "validation", "physics_ep.predictive_coding"):
    face = importlib.import_module(package)
    for name in sorted({*face.__all__} - {"InSituTable", "learn_in_situ", "open_in_situ"}):
        print(package, name, flush=True)
        getattr(face, name)
"""


def ran(program: str, *words: str) -> str:
    """What a program in a process of its own prints, where packages are missing; the test fails where it does not
    end well."""
    done = subprocess.run(
        [sys.executable, "-c", BARE + program, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    return done.stdout


@pytest.mark.full
def test_benchmarks_and_substrates_import_without_the_command() -> None:
    """No benchmark, substrate or judge needs pydantic, pooch, typer or rich to be imported.

    Where one does, a script on a GPU machine stops at its first line. The last line of the output names the file.
    """
    printed = ran(PROGRAM)
    files = {f"validation.benchmarks.{path.stem}" for path in (ROOT / "validation/benchmarks").glob("[a-z]*.py")}
    assert files <= set(printed.split())
    assert len(files) > 10


HELP = """
import contextlib, io, pkgutil, runpy, warnings
from pathlib import Path
import validation.benchmarks

warnings.simplefilter("ignore")  # runpy tells that a module was imported before
for module in pkgutil.iter_modules(validation.benchmarks.__path__, "validation.benchmarks."):
    if "__main__" in Path(module.module_finder.path, module.name.rpartition(".")[2] + ".py").read_text():
        for option, status in (("--help", 0), ("--no-such-option", 2)):
            sys.argv = [module.name, option]
            said = io.StringIO()
            try:
                with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                    runpy.run_module(module.name, run_name="__main__")
            except SystemExit as end:
                assert end.code == status, (module.name, end.code)
            else:
                raise AssertionError(f"{module.name} ran in spite of {option}")
            assert "usage:" in said.getvalue(), module.name
        print(module.name, flush=True)
"""


@pytest.mark.full
def test_every_script_has_help_and_refuses_what_it_does_not_know() -> None:
    """`python -m validation.benchmarks.NAME --help` tells the options, and a wrong one ends with exit status 2.

    A script that looks at no option measures for minutes when it is asked for help.
    """
    assert len(ran(HELP).split()) > 8


SCRIPT = """
import runpy, torch
torch.set_num_threads(1)
sys.argv = sys.argv[1:]
runpy.run_module(f"validation.benchmarks.{sys.argv[0]}", run_name="__main__")
"""
TINY = ("--size", "32", "--batch", "2", "--width", "0.0625", "--repeats", "1")


@pytest.mark.parametrize(
    ("script", "fields"),
    [
        pytest.param("layer_sizes", "levels", marks=pytest.mark.full),
        pytest.param("layer_sizes", "levels,drift_time,adc_bits", marks=pytest.mark.slow),
        pytest.param("signature", "copy_mismatch_transpose", marks=pytest.mark.slow),
    ],
)
def test_tables_of_layers_are_made_without_the_command(script: str, fields: str, tmp_path: Path) -> None:
    """The scripts that map VGG10 end with a table at their smallest, whichever fields are asked for.

    The first real run is on a GPU machine: what a script imports late, or refuses of its own settings, ends it.
    """
    images, out = tmp_path / "photos.npz", tmp_path / ("run.h5" if script == "layer_sizes" else "run")
    draws = np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)
    np.savez(images, x=draws, labels=np.array([3, 700]))
    printed = ran(SCRIPT, script, "--images", str(images), "--out", str(out), *TINY, "--fields", fields)
    for field in fields.split(","):
        assert field in printed
    assert len(list(tmp_path.rglob("*.json"))) == 1
