"""`spice check` on a user's netlist: ngspice runs the text itself, and what differs is told, drawn and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hardware_models.spice import given
from hardware_models.spice.given import compare_netlist
from physics_ep.cli import main
from physics_ep.errors import InputError

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
TEXT = """a filter behind a rectifier
.include "parts/diode.lib"
V1 in 0 SIN(0.2 1 10k) AC 1
R1 in a 1k
D1 a b DSWITCH
C1 b 0 100n
R2 b 0 {load}
X1 b c biolek_memristor state=0.3
R3 c 0 1k
X2 c 0 q op_amp
R4 q 0 1k
.param load=10k
.tran 1u 200u
.ac dec 5 10 1meg
.print tran v(b)
.control
shell touch ran
.endc
.end
"""


def command(words: list[str]) -> int | str | None:
    """Exit status of the command."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code


def written(folder: Path, text: str = TEXT, library: str = "") -> Path:
    (folder / "parts").mkdir()
    (folder / "parts" / "diode.lib").write_text(
        library or "* switching\n.model DSWITCH D(IS=2.5n N=1.75 RS=0.6 BV=100)\n"
    )
    path = folder / "net.cir"
    path.write_text(text)
    return path


@pytest.mark.full
@needs_ngspice
def test_ngspice_runs_the_text(tmp_path: Path) -> None:
    """All three analyses agree, with files included, op amps and memristors undefined; .control is not run."""
    found = compare_netlist(written(tmp_path))
    assert found.worst < 1e-9
    assert set(found.courses) == {"transient", "small signals"}
    assert found.courses["transient"].worst < 1e-4
    assert found.courses["small signals"].worst < 1e-6
    assert {"a", "b", "c", "q", "in"} <= set(found.nodes)
    assert not list(Path().glob("ran"))
    assert not (tmp_path / "ran").exists()
    assert found.plot().axes[1].get_xlabel() == "Time (s)"


@needs_ngspice
@pytest.mark.slow
def test_the_command_tells_draws_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables, JSON and a figure; status 1 with the difference where another model is solved than ngspice's."""
    path, json_file, figure = written(tmp_path), tmp_path / "told.json", tmp_path / "apart.png"
    words = ["spice", "check", str(path), "--json", str(json_file), "--figure", str(figure)]
    assert command(words) == 0
    said = capsys.readouterr().out
    assert "as ngspice reads it, worst of" in said
    assert "transient, worst of" in said
    told = json.loads(json_file.read_text())["netlist"]
    assert set(told) == {"operating point", "transient", "small signals", "notes"}
    assert figure.read_bytes()[:4] == b"\x89PNG"
    assert command(words) == 0  # its own files are replaced
    real = given.run_ngspice

    def other(lines: list[str], commands: list[str], **options: object) -> object:
        changed = [s.replace("1k", "1.001k") if s.startswith("R1") else s for s in lines]
        return real(changed, commands, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(given, "run_ngspice", other)
    assert command(["spice", "check", str(path), "--quiet"]) == 1
    assert "operating points of the netlist differ by" in capsys.readouterr().err
    assert command(["spice", "check", "resistive", "--figure", str(figure)]) == 2


@needs_ngspice
@needs_ngspice
def test_encodings_and_nodes_within_transistors(tmp_path: Path) -> None:
    """UTF-16 is compared as it is read; corrections of ngspice's diodes reach no node that it has not."""
    text = "mirror\nV1 d 0 3\nM1 a a d d P W=10u L=1u AD=20p AS=20p\nI1 a 0 20u\nR1 a b 1k\nD1 0 b DN\n"
    text += ".model P PMOS(VTO=-0.8 KP=40u JS=1e-8 RD=10 RS=5)\n.model DN D(N=1e100)\n.end\n"
    (tmp_path / "net.cir").write_text(text, encoding="utf-16")
    found = compare_netlist(tmp_path / "net.cir")
    assert set(found.nodes) == {"a", "b", "d"}
    assert found.worst < 1e-9


def test_included_control_blocks_are_refused(tmp_path: Path) -> None:
    """ngspice would run their commands: one line names the file."""
    path = written(tmp_path, library=".model DSWITCH D(IS=1n)\n.control\nshell touch ran\n.endc\n")
    with pytest.raises(InputError, match=r"diode\.lib, line 2: ngspice would run this \.control block"):
        compare_netlist(path)


def test_differences_are_ranked() -> None:
    """Rows begin with the node that differs most, and say where; small voltages count as a microvolt."""
    at = np.array([0.0, 1.0, 2.0])
    ours = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 1e-9]])
    theirs = np.array([[1.0, 0.0], [2.0, 0.0], [1.5, 0.0]])
    course = given.CourseAgreement("s", at, ("a", "b"), ours, theirs)
    assert [row["node"] for row in course.rows()] == ["a", "b"]
    assert course.rows()[0] == {"node": "a", "difference": 0.5, "at": 2.0, "largest": 2.0}
    assert course.worst == pytest.approx(0.25)
