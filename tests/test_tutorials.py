"""The tutorials run: if one fails, a newcomer's first lines do not work."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from tests.support.paths import ROOT

FOLDER = ROOT / "docs" / "tutorials"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
SECONDS = 60
"""Processor time that a notebook may take; a reader waits for it."""


def cells(name: str) -> list[dict]:
    """The cells of code of a notebook."""
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_every_tutorial_is_listed_and_bears_outputs() -> None:
    """A page without outputs shows code and no result; one that is not in the list is not found."""
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\w+$", index.partition("{toctree}")[2], flags=re.MULTILINE)
    assert sorted(listed) == NAMES
    for name in NAMES:
        found = [out for cell in cells(name) for out in cell["outputs"]]
        assert found, name
        assert not [out for out in found if out["output_type"] == "error"], name


def test_the_first_ten_minutes_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The blocks of Python of docs/start/ten_minutes.md, one after the other: a newcomer's first lines."""
    page = (ROOT / "docs" / "start" / "ten_minutes.md").read_text(encoding="utf-8")
    scope: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(block, "ten_minutes", "exec"), scope)
    assert capsys.readouterr().out.startswith("CONVERGED")
    assert scope["report"].worst_cosine > 0.9999  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_tutorial_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All cells in one namespace, in an empty folder, within a minute."""
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": "__main__"}
    begin = time.process_time()
    with mpl.rc_context():
        mpl.use("agg")
        for cell in cells(name):
            exec(compile("".join(cell["source"]), name, "exec"), scope)
        plt.close("all")
    assert time.process_time() - begin < SECONDS
