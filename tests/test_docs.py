"""The pages in docs/: the reference misses no public name, and every page that is cited is there."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

DOCS = ROOT / "docs"
PACKAGES = ["physics_ep", "physics_ep.predictive_coding", "hardware_models", "validation", "figures"]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_is_complete(package: str) -> None:
    """Each public name stands on its package's page once: a name that is added must be described there."""
    page = (DOCS / "api" / f"{package.rpartition('.')[2]}.md").read_text(encoding="utf-8")
    listed = re.findall(rf"^\.\. auto(?:class|function):: {re.escape(package)}\.(\w+)$", page, flags=re.MULTILINE)
    public = [name for name in importlib.import_module(package).__all__ if not name.startswith("__")]
    assert sorted(listed) == sorted(public)


def test_cited_pages_exist() -> None:
    """Sources and pages cite only pages that are there."""
    cited = set()
    for folder in ("physics_ep", "hardware_models", "validation", "figures", "tests", "docs", "examples", "."):
        paths = (ROOT / folder).glob("*.md") if folder == "." else (ROOT / folder).rglob("*.*")
        for path in paths:
            if path.suffix in {".py", ".md", ".toml"}:
                cited |= set(re.findall(r"docs/([\w/]+\.md)", path.read_text(encoding="utf-8")))
    assert cited
    for page in cited:
        assert (DOCS / page).is_file(), page


def test_cited_sections_exist() -> None:
    """A docstring that cites "docs/physics.md, Settling time" sends its reader to a heading of that name."""
    page = (DOCS / "physics.md").read_text(encoding="utf-8")
    headings = re.findall(r"^##+ (.+)$", page, flags=re.MULTILINE)
    cited = 0
    for folder in ("physics_ep", "hardware_models", "validation", "figures", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            text = " ".join(path.read_text(encoding="utf-8").split())
            for section in re.findall(r"docs/physics\.md, (?=[A-Zu])(.{40})", text):
                cited += 1
                assert any(section.startswith(heading) for heading in headings), (path, section)
    assert cited >= 10


@pytest.mark.full
def test_examples_in_docstrings_run() -> None:
    """An example of a docstring fails, or prints what the docstring does not say.

    They run in a process of their own, since some register a scheme or a field.
    """
    folders = ("physics_ep", "hardware_models", "validation", "figures")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = [str(path) for path in sources if ">>> " in path.read_text(encoding="utf-8")]
    plain = ["-o", "addopts=", "-o", "python_functions=none"]  # `tested_on` is no test
    run = ["pytest", "-n", "0", "-q", *plain, "-p", "no:cacheprovider", "--doctest-modules", *found]
    done = _python("-m", *run, folder=ROOT)
    assert int(re.findall(r"(\d+) passed", done)[0]) >= len(found)


EXECUTED = [
    "any_model",
    "extending",
    "guides/dynamics",
    "naming_systems",
    "reference/run_files",
    "start/ten_minutes",
    "without_an_energy",
]
"""Pages whose blocks stand in no script of examples/."""

FIRST = """
from physics_ep import train

train("hopfield-digits", out="run.h5", overrides=["data.train_examples=50", "training.epochs=1"])
"""
"""What makes the run file that two of the pages open."""


@pytest.mark.slow
@pytest.mark.parametrize("page", EXECUTED)
def test_blocks_of_a_page_run(page: str, tmp_path: Path) -> None:
    """The page's Python, block after block, ends in an error."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert blocks
    _python("-c", "\n".join([FIRST if "run.h5" in text else "", *blocks]), folder=tmp_path)


def _python(*arguments: str, folder: Path) -> str:
    """What a process of Python prints, that must end without an error."""
    here = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    program = [sys.executable, *arguments]
    done = subprocess.run(program, cwd=folder, env=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.full
def test_generated_pages_are_whole() -> None:
    """The references that are read off the code leave out no key, field, preset or command, and explain each."""
    from hardware_models.devices.fields import fields_of
    from hardware_models.devices.model import DeviceModel
    from hardware_models.devices.presets import PRESETS
    from physics_ep.config_keys import config_keys
    from physics_ep.registry import systems

    pages = runpy.run_path(str(DOCS / "generate.py"))
    rows = {name: _rows(pages[name]()) for name in ("commands", "configuration", "devices")}
    for name, found in rows.items():
        empty = [row for row in found if not row[-1] and name != "devices"]  # a preset's value may have no unit
        assert not empty, (name, empty)
    keys = [f"`{key.key}`" for system in (None, *systems()) for key in config_keys(system)]
    assert set(keys) <= {row[0] for row in rows["configuration"]}
    assert {f"`{name}`" for name in fields_of(DeviceModel)} <= {row[0] for row in rows["devices"] if len(row) == 5}
    devices, commands = pages["devices"](), pages["commands"]()
    assert all(f"### {name}\n" in devices for name in PRESETS)
    assert all(f"## {name}\n" in commands for name in ("train", "gradients", "map", "figure", "spice export"))
    assert "`--resume RUN.h5`" in commands


def _rows(page: str) -> list[list[str]]:
    """Cells of the tables of a page, without their heads."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in rows if row[0].startswith("`")]
