"""The template of a package: pip installs it, and the command finds what it adds.

If these fail, a user's package that follows the template is not found, or its system, scheme, substrate or
imperfection does not work.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


@pytest.mark.slow
def test_the_template_is_installed_and_found(tmp_path: Path) -> None:
    """A copy of examples/plugin is installed into a folder of its own; a command uses each thing that it adds."""
    if importlib.util.find_spec("setuptools") is None or importlib.util.find_spec("pip") is None:
        pytest.skip("pip and setuptools are needed to install the template without the network")
    source = tmp_path / "plugin"
    shutil.copytree(ROOT / "examples" / "plugin", source)
    install = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--target",
        tmp_path / "there",
    ]
    subprocess.run([sys.executable, "-m", "pip", *install, source], check=True, capture_output=True, text=True)
    places = os.pathsep.join([str(ROOT), str(tmp_path / "there")])

    def command(*words: str) -> str:
        run = [sys.executable, "-m", "physics_ep", *words]
        done = subprocess.run(
            run, env={**os.environ, "PYTHONPATH": places}, capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "my_physics is installed" in command("hello")
    command("gradients", "beams", "--scheme", "forward", "--beta", "1e-3", "--dtype", "float64", "--json", "g.json")
    told = json.loads((tmp_path / "g.json").read_text())
    assert told["worst_cosine"] > 0.9999
    # The scheme is of second order: a beta ten times smaller makes an error some hundred times smaller.
    command("gradients", "beams", "--scheme", "forward", "--beta", "1e-2", "--dtype", "float64", "--json", "h.json")
    assert 30 < json.loads((tmp_path / "h.json").read_text())["relative_error"] / told["relative_error"] < 300
    network = ["pcn", "--substrate", "worn-hopfield"]
    assert "worn-hopfield" in command("map", *network)
    command("tolerance", *network, "--sweep", "dead_units=0.2", "--repeats", "1", "--json", "t.json")
    assert "dead_units" in (tmp_path / "t.json").read_text()
