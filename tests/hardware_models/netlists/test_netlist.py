"""Netlists: what is read from SPICE's language, what is refused, and that what is written reads the same again."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from hardware_models.circuits.circuit import Circuit
from hardware_models.netlists.netlist import load_netlist, read_netlist, write_netlist
from hardware_models.netlists.parts import Group, Part, Parts
from hardware_models.netlists.values import Scope, number
from hardware_models.netlists.writer import resistances
from hardware_models.spice.check import bundled_netlists
from physics_ep.errors import InputError
from tests.support.netlists import mixed_circuit


def write(folder: Path, *lines: str, title: str = "title") -> Path:
    path = folder / "net.cir"
    path.write_text("\n".join([title, *lines, ".end", ""]), encoding="utf-8")
    return path


def read(folder: Path, *lines: str) -> list[Part]:
    return list(read_netlist(write(folder, *lines)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10k", 1e4),
        ("1meg", 1e6),
        ("1MEG", 1e6),
        ("3M", 3e-3),
        ("2u", 2e-6),
        ("4.7kohm", 4700.0),
        ("5mil", 127e-6),
        ("1F", 1e-15),
        ("2A", 2.0),
        ("5V", 5.0),
        (".5n", 0.5e-9),
        ("1e-3k", 1.0),
        ("-2.5E+1p", -25e-12),
        ("7", 7.0),
        ("3t", 3e12),
        ("100uF", 100e-6),
        ("25\xb0C", 25.0),
        ("9k\u03a9", 9e3),
        ("2\u2126", 2.0),
    ],
)
def test_numbers_are_spice_s(text: str, value: float) -> None:
    """M is milli, meg mega, F femto: a wrong factor is a wrong circuit that still solves."""
    assert number(text) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    "text", ["10x", "4k7", "1kk", "ten", "1e", "10 k", "--1", "", "1ohmic", "nan", "1_0", "\u0663"]
)
def test_numbers_that_spice_would_guess_at_are_refused(text: str) -> None:
    """SPICE reads 4k7 as 4000 and 10x as 10 without a word."""
    with pytest.raises(InputError):
        number(text)


def test_parameters_are_arithmetic() -> None:
    """Definitions in any order, scale factors, powers, functions; the answers are Python's own."""
    scope = Scope({"a": "2k", "b": "{a*c^2}", "c": "1+2*3", "d": "sqrt(b)/log10(1meg)"})
    assert scope.lookup("B") == 2000 * 49
    assert scope.lookup("d") == math.sqrt(98000) / 6
    assert Scope({"r": "1k"}, scope).value("{r + a}") == 3000
    assert scope.value("'max(a, 3k) - pi'") == 3000 - math.pi


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{undefined}", "not defined"),
        ("{__import__('os').getcwd()}", "not arithmetic|cannot be read"),
        ("{a if a else b}", "not arithmetic"),
        ("{eval(1)}", "not known"),
        ("{1/0}", "cannot be evaluated"),
        ("{(-1)^0.5}", "cannot be evaluated"),
        ("{10**400}", "cannot be evaluated|not finite"),
        ("{loop}", "by itself"),
        ("{2 +}", "cannot be read"),
    ],
)
def test_expressions_are_never_code(text: str, message: str) -> None:
    """A netlist of a stranger must not run anything, hang, or give a number for nonsense."""
    with pytest.raises(InputError, match=message):
        Scope({"a": "1", "loop": "loop+1"}).value(text)


def test_every_element_is_read(tmp_path: Path) -> None:
    """Signs, order of nodes and units of each element, against parts written out by hand."""
    found = read(
        tmp_path,
        "r1 a 0 2k ; an end comment",
        "* a comment",
        "R2 a gnd",
        "+ 4k $ continued",
        "C1 a b 1uF IC=0.5",
        "D1 a b clamp 2",
        ".model clamp d (IS=1p",
        "+ N=1.5)",
        "V1 A 0 dc 5 ac 1",
        "I1 0 b -1m",
        "E1 e 0 a b 3",
        "G1 0 b e 0 {2*gm}",
        ".param gm = 1m",
        "F1 b 0 v1 'gm*10'",
        "X1 a out biamp gain=4",
        "X2 a out ideal_diode",
        "B1 q 0 V=2*max(v(a,b),0)",
        "B2 q a I=1e-9*v(q,a)+1m*max(v(q,a)-0.3,0)",
        "B3 q b I=1e-4*0.25*sinh(v(q,b)/0.25)",
    )
    wanted = [
        Part("r1", "resistor", ("a", "0"), (1 / 2000,)),
        Part("R2", "resistor", ("a", "0"), (1 / 4000,)),
        Part("C1", "capacitor", ("a", "b"), (1e-6,), initial=0.5),
        Part("D1", "diode", ("a", "b"), (2e-12, 1.5)),
        Part("V1", "voltage_source", ("a", "0"), (5.0,), ac=1.0),
        Part("I1", "current_source", ("0", "b"), (-1e-3,)),
        Part("E1", "vcvs", ("e", "0", "a", "b"), (3.0,)),
        Part("G1", "vccs", ("0", "b", "e", "0"), (2e-3,)),
        Part("F1", "cccs", ("b", "0"), (0.01,), control="V1"),
        Part("X1", "amplifier", ("a", "out"), (4.0,)),
        Part("X2", "ideal_diode", ("a", "out")),
        Part("B1", "rectifier", ("q", "0", "a", "b"), (2.0,)),
        Part("B2", "piecewise_diode", ("q", "a"), (1e-3, 0.3, 1e-9)),
        Part("B3", "memristor", ("q", "b"), (1e-4, 0.25)),
    ]
    assert sorted(found, key=lambda p: p.name) == sorted(wanted, key=lambda p: p.name)
    assert load_netlist(tmp_path / "net.cir").initial_voltages == {"C1": 0.5}


@pytest.mark.parametrize(
    ("line", "kind", "nodes", "values"),
    [
        ("B1 a 0 V=max(0, v(b)) * 3", "rectifier", ("a", "0", "b", "0"), (3.0,)),
        ("B1 a 0 v = {k}*uramp(v(b)-v(c))", "rectifier", ("a", "0", "b", "c"), (2.0,)),
        ("B1 a 0 V=max(-v(b),0)", "rectifier", ("a", "0", "0", "b"), (1.0,)),
        ("B1 a 0 V=(v(b,c)+v(b,c))/4", "vcvs", ("a", "0", "b", "c"), (0.5,)),
        ("B1 a 0 I=-v(1)*1m", "vccs", ("a", "0", "1", "0"), (-1e-3,)),
        ("B1 a 0 V={k*k}+1", "voltage_source", ("a", "0"), (5.0,)),
        ("B1 a b I=4*max(0,v(a)-v(b)-0.25)", "piecewise_diode", ("a", "b"), (4.0, 0.25, 0.0)),
        ("B1 a b I=2*max(2*v(a,b)-0.5,0)", "piecewise_diode", ("a", "b"), (4.0, 0.25, 0.0)),
        ("B1 a b I=sinh(4*v(a,b))/8", "memristor", ("a", "b"), (0.5, 0.25)),
        ("E1 a 0 value={max(v(b),0)}", "rectifier", ("a", "0", "b", "0"), (1.0,)),
        ("G1 a 0 cur='k*v(b,c)'", "vccs", ("a", "0", "b", "c"), (2.0,)),
    ],
)
def test_behavioural_sources_by_what_they_compute(
    tmp_path: Path, line: str, kind: str, nodes: tuple[str, ...], values: tuple[float, ...]
) -> None:
    """However a law is spelled, it is the same part."""
    (part,) = (p for p in read(tmp_path, line, ".param k=2", "R1 a 0 1") if p.kind != "resistor")
    assert (part.kind, part.nodes, part.values) == (kind, nodes, values)


def test_subcircuits_are_flattened(tmp_path: Path) -> None:
    """Names and nodes of an instance are ngspice's; parameters: of the instance, of the definition, of the top."""
    found = read(
        tmp_path,
        ".param r=1k unit=1",
        ".subckt divider top bottom r=2k ratio={3*unit}",
        "R1 top m {r}",
        "R2 m bottom {ratio*r}",
        "Xload m half",
        ".ends",
        ".subckt half p",
        "R1 p 0 {unit*10k}",
        "D1 p shared own",
        ".model own D(IS=1n)",
        ".ends half",
        ".global shared",
        "X1 in 0 divider",
        "X2 in out divider r={2*r} ratio=1",
        "V1 in 0 1",
        "Rs shared 0 1",
    )
    resistors = {p.name: (p.nodes, round(1 / p.values[0], 9)) for p in found if p.kind == "resistor"}
    assert resistors == {
        "R.X1.R1": (("in", "X1.m"), 2000),
        "R.X1.R2": (("X1.m", "0"), 6000),
        "R.X1.Xload.R1": (("X1.m", "0"), 10000),
        "R.X2.R1": (("in", "X2.m"), 2000),
        "R.X2.R2": (("X2.m", "out"), 2000),
        "R.X2.Xload.R1": (("X2.m", "0"), 10000),
        "Rs": (("shared", "0"), 1),
    }
    assert [(p.name, p.nodes) for p in found if p.kind == "diode"] == [
        ("D.X1.Xload.D1", ("X1.m", "shared")),
        ("D.X2.Xload.D1", ("X2.m", "shared")),
    ]


def test_what_is_no_circuit_is_passed_over(tmp_path: Path) -> None:
    """Title, analyses and control blocks are no parts, though they look like some."""
    path = write(
        tmp_path,
        "* outputs: OUT",
        ".options reltol=1e-6 temp=27",
        ".tran 1n 1u",
        ".control",
        "R9 looks like a part",
        ".endc",
        "R1 in out 1k",
        ".include sub/more.cir",
        ".end",
        "* R8 in 0 1k",
        title="R7 in 0 1k",
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "more.cir").write_text("V1 in 0 1\nR2 out 0 1k\n", encoding="utf-8")
    found = load_netlist(path)
    assert [p.name for p in found.parts] == ["R1", "R2", "V1"]
    assert (found.title, found.outputs) == ("R7 in 0 1k", ("out",))


def test_waveforms_become_points(tmp_path: Path) -> None:
    """PULSE goes on for as long as it is asked to; the direct current is DC, or the value at time zero."""
    found = read(
        tmp_path,
        "V1 a 0 PULSE(0 1 1u 0.25u 0.5u 2u 4u)",
        "V2 b 0 DC 3 PWL(0 1 2u 5)",
        ".tran 0.1u 6u",
        "R1 a b 1",
    )
    first, second = (p for p in found if p.kind == "voltage_source")
    pulse = [(1, 0), (1.25, 1), (3.25, 1), (3.75, 0)]
    for end in (6, 18):
        wanted = [(t + 4 * k, v) for k in range(5) for t, v in pulse if t + 4 * k < end]
        corners = [(1e6 * t, v) for t, v in first.waveform.points(1e-6 * end) if 1e6 * t < end]
        np.testing.assert_allclose(corners, wanted, rtol=1e-12)
    assert (first.values, second.values) == ((0.0,), (3.0,))
    assert second.waveform == ((0.0, 1.0), (2e-6, 5.0))


BAD_LINES = [
    ("R1 a 0 -5", "positive and finite"),
    ("R1 a 0 1e400", "positive and finite"),
    ("R1 a 0 10q", "unknown scale factor or unit 'q'"),
    ("R1 a 0 {rr}", "'rr' is not defined"),
    ("R1 a 0", "NAME NODE NODE OHMS"),
    ("C1 a 0 -1u", "capacitance must be positive"),
    ("Q1 a b 0 npn", "'Q1': bipolar and junction transistors are not read"),
    ("L1 a b 0", "inductance must be positive"),
    ("D1 a 0 nomodel", "model"),
    ("D1 a 0 dm 1 2", "MODEL"),
    ("X1 a b nosub", "subcircuit"),
    ("X1 a b c biamp gain=2", "2 nodes"),
    ("X1 a b biamp", "gain"),
    ("X1 a b biamp gain=0", "gain must be positive"),
    ("F1 a 0 Vnone 2", "control"),
    ("H1 a 0 V1 2", "the current of 'V1' cannot control: the voltage source 'V1' is not defined"),
    ("F1 a 0 R0 2", "the current of 'R0' cannot control, since it is no voltage source"),
    ("E1 a 0 POLY(1) b 0 1", "at least two coefficients"),
    ("B1 a 0 V=v(b)*v(c)", "no part touches the node 'c'"),
    ("B1 a 0 I=i(R0)", "the current of 'R0'"),
    ("B1 a 0 V=tanh(v(b),1)", "has 1 argument(s), but 2 are given"),
    ("B1 a 0 V=v(_)*v(b c)", "not made of|cannot be read"),
    ("B1 a 0 V=1e999*v(b)", "not finite"),
    ("B1 a 0 V=1e300*1e300*v(b)", "not finite"),
    ("V1 a 0 SIN(0 1)", "three to six values"),
    ("V1 a 0 SFFM(0 1 1k)", "'SFFM' is not read"),
    ("V1 a 0 PWL(0 1 0 2)", "rise"),
    ("V1 a 0 PULSE(0 1)", "PULSE needs"),
    ("V1 a 0 1 2", "one word too many"),
    ("I1 a 0 1e999", "not finite"),
    ("V0 a 0 1", "twice"),
    (".modle x D", "Did you mean 'model'"),
    (".temp", "one temperature"),
    (".temp 50 85", "one temperature"),
    (".temp hot", "not a number"),
    (".temp -300", "above -273.15"),
    (".options temp={hot}", "'hot' is not defined"),
    (".options temp=50 temp=60", "set twice, to 50 and to 60"),
    (".options temp", "must have a value"),
    (".options tnom = = 3", "NAME=VALUE"),
    (".options rshunt=0", "rshunt must be positive"),
    (".options cshunt=-1p", "cshunt must be positive"),
    (".options gmin=-1", "gmin must be positive"),
    (".options gshunt=1m", "option 'gshunt' is not known"),
    (".options ramptime=1u reltol=1e-3", "option 'ramptime' is not known"),
    (".ic v(nowhere)=1", "no part touches the node 'nowhere'"),
    (".ic b=1", "V(NODE)=VOLTS"),
    (".ic v(b)=", "V(NODE)=VOLTS"),
    (".ic v(0)=1", "ground is at 0 V"),
    ("R1 a 0 {3*-2**2}", "parentheses"),
    ("R1 a 0 {2**-1**2}", "parentheses"),
    ("R1 a 0 {9+(-2)**3}", "even"),
    ("R1 a 0 {1_0}", "unit '_0'"),
    ("R1 a 0 {1 2}", "cannot be read"),
    ("R1 a 0 {(1}", "cannot be read"),
    ("B1 a 0 V=v()", "function 'v'"),
    ("V1 a 0 PULSE(0 1 0 1n 1n 1u 2u 1 5)", "two to eight"),
    ("V1 a 0 PULSE(0 1 0 1n 1n 1u 2u 1.5)", "whole number"),
    ("V1 a 0 PWL(0 0 1 1) r=0", "'r = 0' of PWL is not read"),
    ("D1 a 0 dm tlev=1", "no parameter TLEV"),
    ("D1 a 0 dm temp=-274", "above -273.15"),
    (".include nowhere.cir", "cannot read"),
    (".subckt s a", "not closed"),
    (".control", "not closed"),
    (".ends", "without .subckt"),
    (".param x 3", "NAME=VALUE"),
    ("D1 a 0 bad", "IKR changes the current"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_bad_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    """One line of message: file, number of the line, its text, and what is wrong."""
    models = [".model dm D(IS=1n)", ".model bad D(IS=1n IKR=1)"]
    path = write(tmp_path, "V0 a 0 1", "R0 a b 1k", *models, line, "R99 b 0 1k")
    with pytest.raises(InputError) as caught:
        read_netlist(path)
    text = str(caught.value)
    assert any(one in text for one in message.split("|"))
    assert "\n" not in text
    where = 5 if "IKR changes" in message else 6
    assert f"net.cir, line {where}: " in text
    assert text.endswith(models[1] if where == 5 else line)


def test_series_resistance_of_zero_is_none(tmp_path: Path) -> None:
    """Models of simple diodes say RS=0; it changes nothing, where any other value is a resistor."""
    (diode,) = read(tmp_path, "D1 a 0 d", ".model d D(IS=1n RS=0 N=2)")
    assert diode.values == (1e-9, 2.0)


def test_subcircuits_within_themselves_end(tmp_path: Path) -> None:
    """If this fails, the flattening of subcircuits within themselves never ends."""
    with pytest.raises(InputError, match="within itself"):
        read(tmp_path, ".subckt s a", "X1 a s", ".ends", "X1 b s")


@pytest.mark.parametrize("content", ["", "title only\n", "t\n* nothing\n.end\n", "t\n\0\n"])
def test_files_without_a_circuit(tmp_path: Path, content: str) -> None:
    """Named as such, not as an error within numpy."""
    path = tmp_path / "net.cir"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"net\.cir"):
        read_netlist(path)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    """Every part, node, name, value and waveform comes back; conductances within a last bit, and only once."""
    parts = list(mixed_circuit(60, 0))
    parts += [
        Part("XI", "ideal_diode", ("n1", "n2")),
        Part("C1", "capacitor", ("n3", "0"), (1 / 3 * 1e-12,)),
        Part("Vw", "voltage_source", ("w", "0"), (0.1,), waveform=((0.0, 0.1), (1e-7 / 3, 0.7))),
        Part("Rw", "resistor", ("w", "n5"), (1e-5,)),
    ]
    given = Parts.collect(parts)
    write_netlist(tmp_path / "a.cir", given, title="one", outputs=["n5", "n7"])
    first = load_netlist(tmp_path / "a.cir")
    assert (first.title, first.outputs) == ("one", ("n5", "n7"))
    assert [p.name for p in first.parts] == [p.name for p in given]
    for before, after in zip(given, first.parts, strict=True):
        assert (before.nodes, before.control, before.waveform) == (after.nodes, after.control, after.waveform)
        ulp = 2.3e-16 if before.kind == "resistor" else 0
        np.testing.assert_allclose(after.values, before.values, rtol=ulp, atol=0)
    write_netlist(tmp_path / "b.cir", first.parts, title="one", outputs=first.outputs)
    assert (tmp_path / "a.cir").read_bytes() == (tmp_path / "b.cir").read_bytes()
    assert list(read_netlist(tmp_path / "b.cir")) == list(first.parts)


def test_resistances_come_back_as_conductances() -> None:
    """Most to the last bit; nearest otherwise, since not every float is an inverse."""
    g = 10 ** np.random.default_rng(0).uniform(-9, 0, 100_000)
    again = 1 / resistances(g)
    assert (again == g).mean() > 0.85
    np.testing.assert_array_max_ulp(again, g, maxulp=1)
    np.testing.assert_array_equal(1 / resistances(again), again)


@pytest.mark.parametrize(
    ("node", "message"), [("a b", "blanks"), ("a(", "blanks"), ("N1", "differ in more than case"), ("x{", "blanks")]
)
def test_names_that_netlists_cannot_hold(tmp_path: Path, node: str, message: str) -> None:
    """Refused before anything is written: n1 and N1 would become one node."""
    parts = Parts.collect(
        [Part("R1", "resistor", ("n1", "0"), (1.0,)), Part("R2", "resistor", (node, "0"), (1.0,))]
    )
    with pytest.raises(InputError, match=message):
        write_netlist(tmp_path / "net.cir", parts)
    assert not (tmp_path / "net.cir").exists()


def test_names_get_their_letter(tmp_path: Path) -> None:
    """Parts named by a program are elements of the right kind in SPICE, controls included."""
    given = Parts.collect(
        [
            Part("supply", "voltage_source", ("a", "0"), (1.0,)),
            Part("7", "resistor", ("a", "b"), (1.0,)),
            Part("mirror", "cccs", ("b", "0"), (0.5,), control="supply"),
        ]
    )
    write_netlist(tmp_path / "net.cir", given)
    found = list(read_netlist(tmp_path / "net.cir"))
    assert [(p.name, p.kind) for p in found] == [
        ("Vsupply", "voltage_source"),
        ("R7", "resistor"),
        ("Fmirror", "cccs"),
    ]
    assert found[2].control == "Vsupply"


@pytest.mark.parametrize("name", list(bundled_netlists()))
def test_bundled_netlists_survive_export(tmp_path: Path, name: str) -> None:
    """Written by hand, imported, solved, exported, imported again: the same operating point."""
    circuit = Circuit.from_netlist(bundled_netlists()[name])
    point = circuit.operating_point(tolerance=1e-15)
    circuit.to_netlist(tmp_path / "again.cir")
    again = Circuit.from_netlist(tmp_path / "again.cir")
    assert again.output_names == circuit.output_names
    one, other = circuit.node_voltages(point), again.node_voltages(again.operating_point(tolerance=1e-15))
    assert one.keys() == other.keys()
    assert max(abs(one[n] - other[n]) for n in one) < 1e-10


def test_large_netlists_are_read_by_the_line(tmp_path: Path) -> None:
    """20,000 resistors come back in order; the short way that plain lines take refuses what the long one does."""
    rng = np.random.default_rng(0)
    nodes = rng.integers(1, 500, (20_000, 2))
    names = tuple(f"R{k}" for k in range(20_000))
    group = Group(names, nodes, 10 ** rng.uniform(-6, -4, (20_000, 1)))
    given = Parts(("0", *(f"n{k}" for k in range(1, 500))), {"resistor": group})
    write_netlist(tmp_path / "net.cir", given)
    found = read_netlist(tmp_path / "net.cir").group("resistor")
    assert found.names == names
    np.testing.assert_array_max_ulp(found.values, group.values, maxulp=1)
    text = (tmp_path / "net.cir").read_text().replace("\nR777 ", "\nR777 bad ")
    (tmp_path / "net.cir").write_text(text)
    with pytest.raises(InputError, match="line 780: "):
        read_netlist(tmp_path / "net.cir")
