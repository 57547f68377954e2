"""The pages in docs/: the reference misses no public name, and every page that is cited is there."""

from __future__ import annotations

import importlib
import re

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
