"""Sixty netlists of our own writing in `tests/data/netlists`: ngspice's voltages on the same texts, to 1e-9 V."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from hardware_models.circuits.circuit import Circuit
from hardware_models.netlists.lines import text_of
from hardware_models.netlists.netlist import load_netlist, write_netlist
from hardware_models.spice.given import compare_netlist, text_for_ngspice
from tests.support.netlist_texts import POINT, ngspice_points, worst

FOLDER = Path(__file__).parents[2] / "data" / "netlists"
SMALL = sorted(FOLDER.glob("*.cir"))
LARGE = sorted((FOLDER / "large").glob("*.cir"))
IN_TIME = [path for path in (*SMALL, *LARGE) if re.search(r"^\.tran", text_of(path), re.M | re.I)]
needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
FEATURES = {
    "temperature": r"^\.temp|^\.options?\b.*\btemp|\bd?temp *=",
    "diodes of vendors": r"\.model\s+\S+\s+D\b.*\b(rs|bv|ikf|isr|cjo)\s*=",
    "resistors with coefficients": r"\b(tc[12e]?|scale)\s*=|\.model\s+\S+\s+r(es)?\b|^R.*\bm\s*=",
    "subcircuits with parameters": r"^\.subckt\s.*=",
    "subcircuits in one another": r"^\.subckt(?:(?!^\.ends).)*^X",
    "functions and expressions": r"^\.func|^\.param.*[{'*]",
    "behavioural sources": r"^B|\bvalue *=|\bcur *=|\bpoly",
    "controlled sources": r"^[EFGH]",
    "storage in time": r"^[CL](?s:.*)(^\.tran|\bic *=|^V.*(sin|pulse|exp|pwl))",
    "transistors": r"^M",
    "memristors with a state": r"_memristor",
    "other files": r"^\.(include|lib)\b",
    "names of other programs": r"^[RX]\S* \S*[/\[\]+<>~#]",
}
"""What two of have to stand in a netlist beside one another, as regular expressions over its text."""


def point_of(path: Path) -> dict[str, float]:
    circuit = Circuit.from_netlist(path)
    return circuit.node_voltages(circuit.operating_point().require())


def agree(paths: list[Path], folder: Path) -> None:
    """Every node of each file is where ngspice has it, and where the file that is written from it has it.

    ngspice has its gmin of 1e-12 S where leakage alone holds a node and we have it too (`Netlist.gmin`), else none.
    """
    texts = []
    for path in paths:
        lines, _ = text_for_ngspice(path)
        texts.append([*lines[1:], *([] if load_netlist(path).gmin else [".options gmin=1e-20"])])
    for path, theirs in zip(paths, ngspice_points(texts, folder, POINT), strict=True):
        ours = point_of(path)
        assert theirs is not None, path.name
        assert worst(ours, theirs)[0] < 1e-9, (path.name, worst(ours, theirs))
        write_netlist(folder / "again.cir", load_netlist(path).parts, overwrite=True)
        again = point_of(folder / "again.cir")
        assert again.keys() == ours.keys()
        assert max(abs(again[n] - ours[n]) / max(1.0, abs(ours[n])) for n in ours) < 1e-9, path.name


@needs_ngspice
def test_small_files_mean_what_ngspice_takes_them_for(tmp_path: Path) -> None:
    """Twenty files; otherwise a user's circuit is another one."""
    agree(SMALL, tmp_path)


@pytest.mark.full
@needs_ngspice
@pytest.mark.parametrize("share", range(3))
def test_large_files_mean_what_ngspice_takes_them_for(tmp_path: Path, share: int) -> None:
    """The others, most of fifty parts and more: subcircuits in one another, vendors' diodes, loops, transistors."""
    agree(LARGE[share::3], tmp_path)


@pytest.mark.full
def test_there_are_sixty_netlists_and_thirty_of_fifty_parts() -> None:
    """At least sixty files, thirty of them of fifty parts or more with two features together."""
    large = 0
    for path in (*SMALL, *LARGE):
        text = re.sub(r"\n\+", " ", "\n".join(text_of(path).split("\n")[1:]))
        found = [name for name, form in FEATURES.items() if re.search(form, text, re.M | re.I | re.S)]
        large += sum(1 for _ in load_netlist(path).parts) >= 50 and len(found) >= 2
    assert len(SMALL) + len(LARGE) >= 60
    assert large >= 30


@pytest.mark.slow
@needs_ngspice
@pytest.mark.parametrize("path", IN_TIME, ids=lambda path: path.stem)
def test_courses_of_the_files_are_ngspices(tmp_path: Path, path: Path) -> None:
    """Those that ask for a transient, beside ngspice's, to 1e-4 of each node's largest voltage.

    CJO, a constant capacitor here, and TT, which nothing stands for, are left out: with them the rectifier behind
    the transformer is 8e-4 of its voltage away, and the diode of the pulse trains 2e-3.
    """
    again = tmp_path / "net.cir"
    again.write_text(re.sub(r"\b(cjo|tt)=[\w.]+", "", text_of(path), flags=re.I), encoding="utf-8")
    assert compare_netlist(again).courses["transient"].worst < 1e-4
