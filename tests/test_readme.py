"""What the README shows is there: its examples are scripts that run, its pictures and commands exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = ("tour", "predictive_coding", "mapping", "circuits", "oscillators")
PAGES = {"start": [README], "tour": [(ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in GUIDES]}
BLOCKS = [
    (folder, block)
    for folder, pages in PAGES.items()
    for page in pages
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
]


@pytest.mark.parametrize(("folder", "block"), BLOCKS)
def test_every_block_is_an_example(folder: str, block: str) -> None:
    """A block of the README stands in one script of examples/start, and one of a guide in one of examples/tour.

    `test_examples.py` runs them.

    The script has the block's imports among its own, and the rest of the block word for word.
    """
    wanted, body = imports(block)
    holders = []
    for path in sorted((ROOT / "examples" / folder).glob("*.py")):
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


def test_the_readme_is_one_page() -> None:
    """A newcomer reads one page: words (code included), pictures, blocks of code beside the line of the tests."""
    assert len(README.split()) <= 700
    assert len(re.findall(r"!\[", README)) == len(re.findall(r"```python", README)) == 3
    assert len(re.findall(r"^```", README, flags=re.MULTILINE)) == 2 * (3 + 1)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link of a page outside the site leads to a file; Sphinx looks at those within."""
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    for link in links:
        assert link.startswith("https://") or ((ROOT / page).parent / link).exists(), link


def test_pictures_and_commands_exist() -> None:
    """No dead link; every command that the README names is registered."""
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), path
    commands = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)physics-ep ([a-z-]+)", README + commands, flags=re.MULTILINE))
    files = [*ROOT.glob("*/commands.py"), *ROOT.glob("*/*/commands.py")]
    source = "".join(p.read_text(encoding="utf-8") for p in files)
    for command in named:
        assert f"def {command.replace('-', '_')}(" in source or f'name="{command}"' in source, command
