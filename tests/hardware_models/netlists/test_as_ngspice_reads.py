"""What a netlist means: ngspice on the very same text is the reference, beside closed forms without it."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from hardware_models.circuits.circuit import Circuit
from hardware_models.laws.elements import BOLTZMANN, CHARGE, THERMAL_VOLTAGE
from hardware_models.netlists.netlist import load_netlist, write_netlist
from hardware_models.netlists.values import Scope
from hardware_models.nodal.transients import transient
from hardware_models.spice.ngspice import run_ngspice
from physics_ep.cli import main
from physics_ep.errors import InputError

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
TOLERANCES = "reltol=1e-10 abstol=1e-16 vntol=1e-13"
DIODE = ("I1 0 a 1m", "D1 a 0 d")
RC = ("R1 in a 1k", "C1 a 0 1n")


def write(folder: Path, *lines: str) -> Path:
    path = folder / "net.cir"
    path.write_text("\n".join(["title", *lines, ".end", ""]), encoding="utf-8")
    return path


def voltage(folder: Path, node: str, *lines: str) -> float:
    circuit = Circuit.from_netlist(write(folder, *lines))
    return float(circuit.node_voltages(circuit.operating_point().require())[node])


def shockley(celsius: float, nominal: float = 27.0, current: float = 1e-3, *, n: float = 1.0) -> float:
    """Volts across a diode of IS = 1 pA at the nominal temperature, EG = 1.11 eV, XTI = 3."""
    hot, cold = celsius + 273.15, nominal + 273.15
    scale = n * BOLTZMANN * hot / CHARGE
    log_is = math.log(1e-12) + (hot / cold - 1) * 1.11 / scale + 3 / n * math.log(hot / cold)
    return scale * math.log1p(current / math.exp(log_is))


MEANINGS = [
    # temperature
    ("a", shockley(85), (*DIODE, ".model d D(IS=1p)", ".param tt=85", ".options temp={tt}")),
    ("a", shockley(85), (*DIODE, ".model d D(IS=1p)", ".options tnom=27 temp=85")),
    ("a", shockley(85), (*DIODE, ".model d D(IS=1p)", ".options reltol=1e-6, temp = 85")),
    ("a", shockley(85), (*DIODE, ".model d D(IS=1p)", ".param tt=80", ".temp {tt+5}")),
    ("a", shockley(50), (*DIODE, ".model d D(IS=1p)", ".temp 50", ".options temp=85")),
    ("a", shockley(27, 50), (*DIODE, ".model d D(IS=1p)", ".options tnom=50")),
    ("a", shockley(-40, 10, n=1.5), (*DIODE, ".model d D(IS=1p N=1.5 tnom=10)", ".temp -40", ".options tnom=50")),
    ("a", shockley(85), ("I1 0 a 1m", "D1 a 0 d temp=85", ".model d D(IS=1p)", ".temp 50")),
    ("a", shockley(47), ("I1 0 a 1m", "D1 a 0 d dtemp=20", ".model d D(IS=1p)")),
    ("a", 1.0, ("I1 0 a 1m", "R1 a 0 1k", ".temp 85", ".options tnom=50")),
    # commas are separators
    ("b", 0.5, ("V1 a,0 1", "R1 a, b 1k", "R2 b ,0 1k")),
    ("b", 0.5,
     ("V1 a, 0, DC 1", "X1 a, b half", ".subckt half p, q", "R1 p,q {r}", ".ends", ".param r=1k", "R2 b,0,{r}")),
    ("e", 2.0, ("V1 a,0 1", "E1 e,0 a,0 2", "Re e,0 1")),
    ("e", 2.0, ("V1 a,0 1", "B1 e,0 V=2*v(a,0)", "Re e,0 1")),
    ("a", shockley(27), ("I1 0, a, 1m", "D1 a, 0, d", ".model d D(IS=1p, N=1)")),
    # lines that change the circuit
    ("a", 0.5, ("I1 0 a 1m", "R1 a 0 1k", ".options rshunt=1k")),
    ("a", 2 / 3, ("I1 0 a 1m", "R1 a 0 1k", ".param rs=2k", ".option itl1=200 rshunt={rs}")),
    ("a", -1 / 3, ("I1 a 0 1u", "Rx a 0 1meg", "D1 a 0 d", ".model d D(IS=1e-20)", ".options gmin=2u")),
    ("a", shockley(27), (*DIODE, ".model d D(IS=1p)", ".model d D(IS=1n)", ".model D D(IS=1u)")),
    ("b", 0.5,
     ("V1 a 0 1", "X1 a b s", "R2 b 0 1k", ".subckt s p q", "R1 p q 1k", ".ends",
      ".subckt S p q", "R1 p q 3k", ".ends")),
    ("a", 2.0, ("V1 a 0 {q}", "R1 a 0 1k", ".param q=1", ".param q=2")),
    # powers
    ("a", 64.0, ("V1 a 0 {2**3**2}", "R1 a 0 1k")),
    ("a", 64.0, ("B1 a 0 V=2^3^2", "R1 a 0 1k")),
    ("a", -4.0, ("V1 a 0 {-2**2}", "R1 a 0 1k")),
    ("a", -3.0, ("B1 a 0 V=1-2**2", "R1 a 0 1k")),
    ("a", 18.25, ("V1 a 0 {2*3**2 + 2**-2}", "R1 a 0 1k")),
    ("a", 4.0, ("V1 a 0 {(-2)**2}", "R1 a 0 1k")),
    ("a", 10.125, ("V1 a 0 {010 + 1/2/4}", "R1 a 0 1k")),
]  # fmt: skip


@pytest.mark.parametrize(("node", "value", "lines"), MEANINGS)
def test_lines_mean_what_they_mean_in_spice(
    tmp_path: Path, node: str, value: float, lines: tuple[str, ...]
) -> None:
    """Closed forms: each of these lines was once read as another circuit, or passed over."""
    assert voltage(tmp_path, node, *lines) == pytest.approx(value, rel=1e-9)


@pytest.mark.full
@needs_ngspice
def test_ngspice_means_the_same(tmp_path: Path) -> None:
    """The same texts, run by ngspice itself: else closed forms and reader could misunderstand SPICE alike."""
    for node, value, lines in MEANINGS:
        own = "" if any("gmin" in line for line in lines) else " gmin=1e-20"
        (plot,) = run_ngspice(["title", *lines], ["op"], options=TOLERANCES + own)
        assert plot.columns[f"v({node})"][0] == pytest.approx(value, rel=1e-6), lines


def test_what_counts_first_is_told(tmp_path: Path) -> None:
    """A second definition is passed over, but not in silence; so is what temperature makes of N and IS told."""
    found = load_netlist(write(tmp_path, *DIODE, ".model d D(IS=1p)", ".model d D(IS=1n)", ".temp 85"))
    assert [note for note in found.notes if "second .model d; the first counts" in note and "line 5" in note]
    assert [note for note in found.notes if "85 degrees" in note]
    (diode,) = (p for p in found.parts if p.kind == "diode")
    assert diode.values[1] == pytest.approx(358.15 / 300.15, rel=1e-12)


@pytest.mark.parametrize(
    "command", ["alter R1 = 2k", "altermod @d[is]=1n", "set temp=85", "option temp = 85", "source other.cir"]
)
def test_control_blocks_that_change_the_circuit_are_refused(tmp_path: Path, command: str) -> None:
    """What they do comes after the lines that are read: solving those would be another circuit than the user's."""
    path = write(tmp_path, "V1 a 0 1", "R1 a 0 1k", ".control", "op", command, "print all", ".endc")
    with pytest.raises(InputError, match=r"net\.cir, line 6: .*in: " + command.split(maxsplit=1)[0]):
        load_netlist(path)


def test_control_blocks_that_show_are_passed_over(tmp_path: Path) -> None:
    """Analyses, output and tolerances change no circuit."""
    commands = [".control", "set filetype=ascii", "option reltol=1e-5", "op", "let x = v(a)*2", "print x", ".endc"]
    assert voltage(tmp_path, "a", "V1 a 0 1", "R1 a 0 1k", *commands) == 1.0


@pytest.mark.parametrize(
    "lines", [(".options bogus=3",), ("R1 a, b",), ("B1 a 0 V=2**-1**2*v(b)",), (".ic v(a)=x",)]
)
def test_bad_lines_end_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: tuple[str, ...]
) -> None:
    """One line with file, number and text of the line, exit status 2, on import as on check."""
    path = write(tmp_path, "V1 a 0 1", "Rx a b 1k", "Ry b 0 1k", *lines)
    for command in ("import", "check"):
        if command == "check" and shutil.which("ngspice") is None:
            continue
        with pytest.raises(SystemExit) as ended:
            main(["spice", command, str(path)])
        said = capsys.readouterr().err.strip()
        assert ended.value.code == 2
        assert "\n" not in said
        assert "net.cir, line 5: " in said
        assert said.rstrip(".").endswith(lines[0])


def test_powers_go_from_left_to_right() -> None:
    """Against Python with the parentheses written out."""
    scope = Scope({"a": "3"})
    for text, value in [
        ("2**3**2", (2**3) ** 2),
        ("a^2^2/a", (3**2) ** 2 / 3),
        ("-a**2+1", -(3**2) + 1),
        ("2**-a", 2**-3),
        ("max(-2**2, 2**0.5**2)", 2.0),
        ("{a}*(1-(-2))", 9.0),
        ("4--2", 6.0),
    ]:
        assert scope.evaluate(text) == pytest.approx(value, rel=1e-15)
    with pytest.raises(InputError, match=r"too many|at most"):
        scope.evaluate("1" + "+1" * 4900)


# -- in time ---------------------------------------------------------------------------------------------------


def settle(level: float, start: float, t: np.ndarray) -> np.ndarray:
    """An RC element of a microsecond on its way from one voltage to another."""
    return level + (start - level) * np.exp(-np.asarray(t) / 1e-6)


COURSES = [
    ("V1 in 0 PULSE(0 1 1u 1n 1n 2u 4u)",),
    ("V1 in 0 PULSE(0 1 1u 1n 1n 2u 4u)", ".tran 0.1u 2u"),
    ("V1 in 0 PULSE(0 1 1u 1n 1n {w} {2*w} 2)", ".param w=2u"),
    ("V1 in 0 PULSE(0 1 1u 0 0 2u 4u 1)", ".param s=1n", ".tran {s} 3u"),
    ("V1 in 0 PULSE(0 1 1u 0 0 2u 4u)", ".control", "tran 1n 3u", ".endc"),
    ("V1 in 0 PULSE(0 1 -1.5u 1n 1n 2u 4u)",),
    ("V1 in 0 PULSE(0 1 0.5u 1u 1u)", ".tran 1n 2u"),
    ("V1 in 0 PULSE(0 1 0 0.5u 0.5u 3u 2u)",),
    ("V1 in 0 PWL(0, 0, {w}, 1, 4u, 0.5) td=1u", ".param w=2u"),
]


@pytest.mark.full
@needs_ngspice
@pytest.mark.parametrize("lines", COURSES)
def test_sources_keep_their_meaning_for_any_duration(tmp_path: Path, lines: tuple[str, ...]) -> None:
    """A pulse that ends with .tran, or loses its number, is another drive: nine microseconds beside ngspice."""
    text = [line for line in lines if not line.startswith((".tran", ".control", "tran", ".endc"))]
    found = transient(load_netlist(write(tmp_path, *lines, *RC)).parts, 9e-6, rtol=1e-8)
    options = "reltol=1e-6 abstol=1e-12 vntol=1e-9"
    (plot,) = run_ngspice(["title", *text, *RC], ["tran 1n 9u 0 10n uic"], options=options)
    ours = np.interp(plot.columns["time"], found.time.numpy(), found.voltage("a")[:, 0].numpy())
    fine = np.diff(found.time.numpy()).max()
    assert np.abs(ours - plot.columns["v(a)"]).max() < 2e-4 + 0.2 * (fine / 1e-6) ** 2


def test_pulses_go_on(tmp_path: Path) -> None:
    """Closed form: after 20 us of a pulse of 1 us in 2, and after three pulses that stop."""
    for count, wanted in (("", 10), (" 3", 3)):
        path = write(tmp_path, f"V1 in 0 PULSE(0 1 0 1e-18 1e-18 1u 2u{count})", *RC, ".tran 1n 1u")
        found = transient(load_netlist(path).parts, 20e-6, rtol=1e-8, atol=1e-12)
        v = 0.0
        for _ in range(wanted):
            v = settle(0.0, settle(1.0, v, 1e-6), 1e-6)
        v = settle(0.0, v, (20 - 2 * wanted) * 1e-6)
        assert float(found.voltage("a")[-1, 0]) == pytest.approx(float(v), rel=1e-5)


def test_pulses_come_back(tmp_path: Path) -> None:
    """Written and read again: pulses, initial voltages of capacitors and of nodes."""
    path = write(
        tmp_path, "V1 in 0 DC 2 PULSE(0 1 1u 1n 2n 2u 4u 2)", "R1 in a 1k", "C1 a 0 1n IC=0.25", ".ic v(a)=1"
    )
    first = load_netlist(path).parts
    write_netlist(tmp_path / "again.cir", first)
    again = load_netlist(tmp_path / "again.cir").parts
    assert list(again) == list(first)
    assert again.initial == first.initial == {"a": 1.0}
    assert again.group("capacitor").initial == {"C1": 0.25}
    assert Circuit(first).parts.initial == {"a": 1.0}


@pytest.mark.parametrize(
    ("lines", "start", "wanted"),
    [
        (("C1 a 0 1n IC=0.5",), "initial", 0.5),
        (("C1 a 0 1n IC=0.5",), "zero", 0.0),
        (("C1 a 0 1n IC={v}", ".param v=-1"), "initial", -1.0),
        (("C1 0 a 1n IC=-2",), "initial", 2.0),
        (("C1 a 0 1n", ".ic v(a)=0.5"), "initial", 0.5),
        (("C1 a 0 1n IC=0.25", ".ic V(A) = 0.5"), "initial", 0.25),
        (("C1 a 0 1n", ".ic v(a)={h}", ".param h=0.75"), "operating_point", 0.75),
        (("C1 a 0 1n IC=0.5",), "operating_point", 1.0),
    ],
)  # fmt: skip
def test_initial_voltages_are_used(tmp_path: Path, lines: tuple[str, ...], start: str, wanted: float) -> None:
    """Closed form: an RC element that starts where IC= or .ic says, as ngspice does with UIC and without."""
    lines = ("V1 in 0 1", "R1 in a 1k", *lines)
    found = transient(load_netlist(write(tmp_path, *lines)).parts, 2e-6, start=start, rtol=1e-9)
    course = settle(1.0, wanted, found.time.numpy())
    np.testing.assert_allclose(found.voltage("a")[:, 0].numpy(), course, atol=1e-6)
    if shutil.which("ngspice"):
        command = "tran 1n 2u 0 5n" + ("" if start == "operating_point" else " uic")
        if start != "zero":
            (plot,) = run_ngspice(["title", *lines], [command], options="reltol=1e-6")
            np.testing.assert_allclose(plot.columns["v(a)"], settle(1.0, wanted, plot.columns["time"]), atol=1e-3)


def test_thermal_voltage_is_that_of_27_degrees() -> None:
    """Temperatures are carried in N, as multiples of this one: another constant would shift them all."""
    assert pytest.approx(BOLTZMANN * 300.15 / CHARGE, rel=1e-15) == THERMAL_VOLTAGE
