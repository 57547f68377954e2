"""What the README shows is there: its examples are scripts that run, its pictures and commands exist."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: b.split("\n", 1)[0])
def test_every_block_is_an_example(block: str) -> None:
    """A block of the README stands in one script of examples/tour, which `test_examples.py` runs.

    The script has the block's imports among its own, and the rest of the block word for word.
    """
    wanted, body = imports(block)
    holders = []
    for path in sorted((ROOT / "examples" / "tour").glob("*.py")):
        found, rest = imports(path.read_text(encoding="utf-8"))
        if wanted <= found and body in rest:
            holders.append(path.name)
    assert len(holders) == 1, f"{len(holders)} scripts have this block: {holders}"


def imports(source: str) -> tuple[set[tuple[str, str]], str]:
    """What a program imports at its top, as (module, name), and the text that follows, stripped."""
    found, last = set(), 0
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom):
            found |= {(node.module or "", alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        else:
            continue
        last = node.end_lineno or last
    return found, "\n".join(source.splitlines()[last:]).strip()


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
