"""The README's examples run as they stand: a newcomer's first lines must work."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: b.split("\n", 1)[0])
def test_examples_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block stands alone; a changed API must change the README too."""
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_the_example_learns_and_agrees(capsys) -> None:
    """What the first example prints is what the README claims: a settled phase, a gradient close to exact."""
    exec(compile(BLOCKS[0], "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.startswith("CONVERGED")
    assert float(re.search(r"worst cosine (\S+)", printed)[1]) > 0.9999


def test_the_five_point_scheme_is_of_fourth_order() -> None:
    """The stencil that the README shows has the order that it says."""
    scope: dict = {}
    exec(compile(next(b for b in BLOCKS if "five_point" in b), "README.md", "exec"), scope)
    stencil = scope["five_point"]
    assert abs(stencil.moment(1) - 1) < 1e-12
    assert all(abs(stencil.moment(m)) < 1e-12 for m in (0, 2, 3, 4))


def test_pictures_and_commands_exist() -> None:
    """No dead link; every command that the README names is registered."""
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), path
    named = set(re.findall(r"^physics-ep ([a-z-]+)", README, flags=re.MULTILINE))
    source = "".join(p.read_text(encoding="utf-8") for p in ROOT.glob("*/commands.py"))
    for command in named:
        assert f"def {command}(" in source or f'name="{command}"' in source, command


def test_versions_agree() -> None:
    """One version in pyproject, package and citation."""
    from physics_ep import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
