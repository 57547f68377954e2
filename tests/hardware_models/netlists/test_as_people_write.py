"""Netlists as people write them: ngspice on the same text is the reference, or one line says what is not read."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hardware_models.circuits.circuit import Circuit
from hardware_models.circuits.operating_point import NoOperatingPoint
from hardware_models.laws.elements import BOLTZMANN, CHARGE
from hardware_models.netlists.behaviours import Behaviour
from hardware_models.netlists.junctions import breakdown_knee, spice_diode
from hardware_models.netlists.netlist import load_netlist, write_netlist
from hardware_models.netlists.parts import Part, Parts
from hardware_models.nodal.transients import transient
from hardware_models.spice.given import text_for_ngspice
from hardware_models.spice.ngspice import run_ngspice
from physics_ep.errors import InputError
from tests.support.netlist_texts import FEATURES, MEMRISTORS, POINT, ngspice_points, random_text, worst

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")


def write(folder: Path, *lines: str) -> Path:
    path = folder / "net.cir"
    path.write_text("\n".join(["title", *lines, ".end", ""]), encoding="utf-8")
    return path


def solved(path: Path) -> dict[str, float]:
    circuit = Circuit.from_netlist(path)
    return circuit.node_voltages(circuit.operating_point().require())


def agree(folder: Path, seeds: list[int], features: list[set[str]], size: int) -> None:
    """Random texts: ours and ngspice's points, of the text and of what is written from it, to 1e-9 V.

    ngspice has its gmin where we have it (`Netlist.gmin`), else none; where its diodes of IS and N alone leave
    Shockley's law in reverse, 1e-6 V is asked for. A text for which we find no point (a step of an expression may
    leave it none) must have none in ngspice either.
    """
    texts, ours, again, without = [], [], [], []

    def text(lines: list[str], path: Path) -> list[str]:
        return [*lines, *([] if load_netlist(path).gmin else [".options gmin=1e-20"])]

    for seed, some in zip(seeds, features, strict=True):
        lines = random_text(seed, sorted(some), size)
        path = write(folder, *lines)
        try:
            found = solved(path)
        except NoOperatingPoint:
            without.append(text(lines, path))
            continue
        reverse = any(part.values[0] > 1e-14 for part in load_netlist(path).parts if part.kind == "diode")
        ours.append((found, 1e-6 if reverse else 1e-9))
        texts.append(text(lines, path))
        written = folder / "written.cir"
        write_netlist(written, load_netlist(path).parts, overwrite=True)
        again.append(text(written.read_text(encoding="utf-8").splitlines()[1:-1], written))
        other = solved(written)
        assert max(abs(other[n] - found[n]) for n in other) < 1e-9, lines
    for source in (texts, again):
        points = ngspice_points(source, folder, POINT)
        assert points.count(None) <= len(points) // 5  # ngspice itself does not converge on all of them
        for (mine, within), theirs, lines in zip(ours, points, source, strict=True):
            if theirs is not None:
                assert worst(mine, theirs)[0] < within, (worst(mine, theirs), lines)
    if without:
        assert len(without) <= len(seeds) // 5
        assert ngspice_points(without, folder, POINT) == [None] * len(without), without


SETS = st.sets(st.sampled_from((*FEATURES, MEMRISTORS)), min_size=2, max_size=4)
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}
QUIET["phases"] = [Phase.generate]  # seeds that fail are told at once: smaller ones would be other circuits


@needs_ngspice
@settings(max_examples=2, **QUIET)
@given(st.lists(st.tuples(st.integers(0, 10**6), SETS), min_size=3, max_size=3))
def test_random_netlists_agree(tmp_path_factory: pytest.TempPathFactory, cases: list[tuple[int, set[str]]]) -> None:
    """Everything that is read, in random combinations: text, what is written from it, and ngspice on both."""
    agree(tmp_path_factory.mktemp("random"), [s for s, _ in cases], [f for _, f in cases], 16)


@pytest.mark.full
@needs_ngspice
@settings(max_examples=4, **QUIET)
@given(st.lists(st.tuples(st.integers(0, 10**6), SETS), min_size=5, max_size=5))
def test_random_netlists_of_fifty_parts_agree(
    tmp_path_factory: pytest.TempPathFactory, cases: list[tuple[int, set[str]]]
) -> None:
    """The same with fifty parts and more."""
    agree(tmp_path_factory.mktemp("random"), [s for s, _ in cases], [f for _, f in cases], 55)


@pytest.mark.slow
@needs_ngspice
@settings(max_examples=40, **QUIET)
@given(st.lists(st.tuples(st.integers(0, 10**6), SETS), min_size=10, max_size=10))
def test_many_random_netlists_agree(
    tmp_path_factory: pytest.TempPathFactory, cases: list[tuple[int, set[str]]]
) -> None:
    """Four hundred of them."""
    agree(tmp_path_factory.mktemp("random"), [s for s, _ in cases], [f for _, f in cases], 55)


NO_GMIN = f"{POINT} gmin=1e-20"
VENDORS = (
    # Written here in the manner of vendors, from published figures.
    ".model 1N4148 D(IS=2.52n N=1.752 RS=0.568 BV=100 IBV=100u CJO=4p VJ=0.7 M=0.45 TT=20n XTI=3 Iave=200m)",
    ".model BAT42 D(IS=0.15u, N=1.05, RS=2.5, IKF=30m, EG=0.69, XTI=2, BV=30, IBV=0.5u, CJO=10p, VJ=0.4, M=0.4)",
    ".model LED D IS=93.1p N=3.73 RS=42m EG=2.1 XTI=3 BV=5 IBV=10u CJO=117p Vpk=5",
)
DRIVES = (-120.0, -31.0, -6.0, -1.0, -0.1, 0.3, 0.8, 3.0, 12.0, 80.0)


@pytest.mark.full
@needs_ngspice
def test_diodes_of_vendors_from_cold_to_hot(tmp_path: Path) -> None:
    """1N4148, BAT42 and an LED in breakdown, leakage and conduction, -40 to 125 degrees: ngspice's to 1e-8 V."""
    texts = []
    for celsius in (-40, 0, 27, 85, 125):
        lines = [f".temp {celsius}", *VENDORS]
        for k, (name, volts) in enumerate(itertools.product(("1N4148", "BAT42", "LED"), DRIVES)):
            lines += [f"V{k} in{k} 0 {volts}", f"R{k} in{k} a{k} 1k", f"D{k} a{k} 0 {name}"]
        texts.append(lines)
    for lines, theirs in zip(texts, ngspice_points(texts, tmp_path, NO_GMIN), strict=True):
        assert theirs is not None
        ours = solved(write(tmp_path, *lines))
        assert worst(ours, theirs)[0] < 1e-8, (lines[0], worst(ours, theirs))


@needs_ngspice
def test_cold_diodes_of_large_gaps_are_written(tmp_path: Path) -> None:
    """ngspice raises IS below 1e-28 A of a model: written as an area, a white LED at -40 degrees stays itself."""
    extra = ("IKF=1m", "BV=40 ISR=1e-20 NR=2")
    models = [f".model d{k} D(IS=1e-24 N=2.1 EG=2.7 {text})" for k, text in enumerate(("", *extra))]
    drives = [line for k in range(3) for line in (f"R{k} in a{k} 1k", f"D{k} a{k} 0 d{k}")]
    lines = [".temp -40", "V1 in 0 9", *drives, *models]
    path = write(tmp_path, *lines)
    ours = solved(path)
    write_netlist(tmp_path / "again.cir", load_netlist(path).parts)
    again = (tmp_path / "again.cir").read_text(encoding="utf-8").splitlines()[1:-1]
    assert solved(tmp_path / "again.cir") == pytest.approx(ours, rel=1e-9)
    for theirs in ngspice_points([lines, again], tmp_path, NO_GMIN):
        assert theirs is not None
        assert worst(ours, theirs)[0] < 1e-8


PAIRS = list(itertools.combinations((*FEATURES, MEMRISTORS), 2))


@pytest.mark.slow
@needs_ngspice
@pytest.mark.parametrize("size", [20, 55])
@pytest.mark.parametrize("one", (*FEATURES, MEMRISTORS)[:-1])
def test_pairs_of_features_agree(tmp_path: Path, one: str, size: int) -> None:
    """Every pair of features, 36 of 20 parts and 36 of 55."""
    pairs = [set(pair) for pair in PAIRS if pair[0] == one]
    for k, pair in enumerate(pairs):
        agree(tmp_path, [size + k], [pair], size)


# -- closed forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "value", "lines"),
    [
        ("b", 2 / 3, ("V1 a 0 1", "R1 a b 1k m=2", "R2 b 0 1k")),
        ("b", 0.75, (".param rload=3k", "V1 a 0 1", "R1 a b 1k", "R2 b 0 rload")),
        ("b", 1 / 2.1, ("V1 a 0 1", "R1 a b 1k tc1=1m", "R2 b 0 1k", ".temp 127")),
        ("a", 7.0, (".func f(x,y) {x*y+1}", "V1 a 0 {f(2,3)}", "R1 a 0 1k")),
        ("b", 1e-3 / 1000.001, ("V1 a 0 1", "R1 a b 1k", "R2 b 0 0")),
        ("b", 0.5, ("V1 a 0 1", "R1 a b 1k", "L1 b c 1m", "R2 c 0 1k")),
        ("b", 0.25, (".param r=5k", "V1 a 0 1", "X1 a b s r=3k", "R2 b 0 1k", ".subckt s p q r=1k", "X2 p q t",
                     ".ends", ".subckt t u v", "R1 u v {r}", ".ends")),
        ("o", 10.0, (".param p=3 q=4", "V1 a 0 2", "B1 o 0 V=v(a)*({p+q})+max({p-q},0)-{p*q}+{q*2}", "R1 o 0 1k")),
        ("o", 7.0, (".param p=3 q=4", "V1 a 0 2", "B1 o 0 V=v(a)>1 ? {p+q} : {p-q}", "R1 o 0 1k")),
        ("a", 0.5 + math.sqrt(0.5), ("V1 a 0 SIN(0.5 1 1k 0 0 45)", "R1 a 0 1k")),
        ("o", 8.0, ("V1 a 0 -2", "B1 o 0 V=v(a)**3", "R1 o 0 1k")),
        ("o", -10.0, ("V1 a 0 -5", "B1 o 0 V=pwl(v(a), -1,-2, 0,0, 1,3)", "R1 o 0 1k")),
        ("o", 9.0, (".param y=3", "V1 a 0 3", "B1 o 0 V=pwl(v(a), -1,-2, 0,0, 1,y)", "R1 o 0 1k")),
        ("b", 2.5, ("V1 a 0 5", "S1 a b a 0 s", "R1 b 0 1k", ".model s SW(VT=4 RON=1k)")),
        ("b", 1.25, ("V1 a 0 5", "S1 a b a 0 s", "R1 b 0 1k", ".model s SW VT=6 RON=1k ROFF=3k")),
        ("b", 4.0, ("V1 a 0 5", "W1 a b V1 s", "R1 b 0 1k", ".model s CSW(IT=-10m RON=250)")),
        ("o", -8.0, ("V1 a 0 -2", "B1 o 0 V=pwr(v(a),3)", "R1 o 0 1k")),
        ("o", 2 * math.tanh(0.5) + 1, ("V1 a 0 0.5", "B1 o 0 V=2*tanh(v(a))+1", "R1 o 0 1k")),
        ("o", 5.0, ("V1 a 0 3", "B1 o 0 V=if(v(a)>2,5,6)", "R1 o 0 1k")),
        ("o", 421211.0, ("V1 a 0 1", "V2 b 0 2", "E1 o 0 POLY(2) a 0 b 0 1 10 100 1000 10000 100000", "R1 o 0 1")),
        ("o", 2.0005, ("V1 a 0 1", "R1 a b 1k", "Vs b 0 0", "F1 0 o POLY(1) Vs 0 2 0.5", "R2 o 0 1k")),
        ("o", 0.1 + 2 - 3 + 4e-3 * -3e-3 * 1e5, ("V1 a 0 4", "R1 a b 1k", "Va b 0 0", "V2 c 0 -3", "R2 c d 1k",
                     "Vb d 0 0", "H1 o 0 POLY(2) Va Vb 0.1 500 1k 0 1e5", "R3 o 0 1k")),
        ("b", 1e-9 / (1 + 1e-9), ("V1 a 0 1", "R1 a b 1k", "R2 b 0 1\u00b5")),
        ("b", 2e-9 / (1 + 2e-9), ("V1 a 0 1", "R1 a b 1k", "R2 b 0 2\u03bc")),
    ],
)  # fmt: skip
def test_closed_forms(tmp_path: Path, node: str, value: float, lines: tuple[str, ...]) -> None:
    """Lines that were misread or refused; the answers are arithmetic."""
    assert solved(write(tmp_path, *lines))[node] == pytest.approx(value, rel=1e-9)


def test_breakdown_current_flows_at_the_breakdown_voltage() -> None:
    """IBV at BV is what the two mean, whatever ngspice computes on the way: -Is exp(-(knee - BV) / (n VT))."""
    thermal = BOLTZMANN * 300.15 / CHARGE
    knee = breakdown_knee(100.0, 1e-4, 2.5e-9, 1.7, thermal)
    law = spice_diode()
    values = (2.5e-9, 1.7, knee, 1.7, 0.0, 0.0, 2.0, 1.0, 0.5)
    flow = float(law.current(np.array(-100.0), *(np.array(v) for v in values)))
    # BV and IBV leave out Is BV / VT (ngspice's own convention): a share of 1e-3 here.
    assert flow == pytest.approx(-1e-4 - 2.5e-9 * (1 - knee / thermal), rel=1e-6)


def test_slopes_of_the_diode_law() -> None:
    """Finite differences over all regions; a wrong slope lets Newton's method fail where a user has a regulator."""
    law = spice_diode()
    values = tuple(np.array(v) for v in (1e-9, 1.5, 5.0, 1.8, 1e-3, 1e-8, 2.1, 0.6, 0.4))
    v = np.array([-5.3, -5.1, -4.0, -0.4, -0.2, -0.1, -0.03, 0.01, 0.2, 0.5, 0.8, 1.2])
    h = 1e-6
    by_difference = (law.current(v + h, *values) - law.current(v - h, *values)) / (2 * h)
    np.testing.assert_allclose(law.slope(v, *values), by_difference, rtol=2e-6, atol=1e-18)


@pytest.mark.parametrize(
    "text",
    [
        "v(a)*v(b)/(1+v(a)*v(a))",
        "tanh(3*v(a,b))+max(v(a),v(b))-min(v(b),0.1)",
        "pow(v(a),2.5)+pwr(v(b),3)+pow(v(b),v(a))",
        "ternary_fcn(v(a)>0.2,v(a)*v(b),exp(v(b)))+abs(v(b))+sqrt(1+v(a))",
        "ln(2+v(a))+log10(3+v(b))+atan(v(a))+asin(0.3*v(b))+acos(0.2*v(a))+asinh(v(a))+acosh(2+v(a))+atanh(v(b)/3)",
        "sin(v(a))*cos(v(b))+tan(v(a))+sinh(v(b))-cosh(v(a))+uramp(v(b))+u2(v(a))+sgn(v(b))*floor(v(a)+3.3)",
        "-(v(a)-v(b))*2+(v(a)>v(b)&&v(a)<5)+!(v(b))",
    ],
)
def test_slopes_of_expressions(text: str) -> None:
    """Finite differences of every function of B sources."""
    law = Behaviour(text)
    at = np.array([[0.4, -0.7, 0.3], [0.9, 0.6, 0.8]])[:, : len(law.probes)]
    found = law(at)
    for k in range(at.shape[1]):
        h = np.zeros_like(at)
        h[:, k] = 1e-6
        slope = (law(at + h).value - law(at - h).value) / 2e-6
        np.testing.assert_allclose(found.slope[:, k], slope, rtol=1e-6, atol=1e-8)


def test_microfarads_of_other_encodings(tmp_path: Path) -> None:
    """LTspice writes Latin-1 and UTF-16: its micro sign must not become another capacitor."""
    text = "title\nV1 a 0 1\nR1 a b 2\u00b5\nR2 b 0 6\u00b5\n.end\n"
    for encoding in ("utf-8", "latin-1", "utf-16", "utf-16-le"):
        (tmp_path / "net.cir").write_bytes(text.encode(encoding))
        assert solved(tmp_path / "net.cir")["b"] == pytest.approx(0.75, rel=1e-12)


def test_included_files_are_named_with_the_line_that_includes_them(tmp_path: Path) -> None:
    """An empty or binary file among many was told without a place."""
    for content, why in ((b"", "is empty"), (bytes(range(256)), "is no text file")):
        (tmp_path / "part.inc").write_bytes(content)
        with pytest.raises(InputError, match=rf"net\.cir, line 3: .*part\.inc' {why}, in: \.include part\.inc"):
            load_netlist(write(tmp_path, "R1 a 0 1k", ".include part.inc"))


def test_other_alphabets_are_told(tmp_path: Path) -> None:
    """ngspice takes \u00e9 and \u00df, two bytes each, for one node: here they are two, and a note says so."""
    found = load_netlist(write(tmp_path, "V1 \u00e9 0 1", "R1 \u00e9 \u00df 1k", "R2 \u00df 0 1k"))
    assert found.parts.nodes == ("0", "\u00e9", "\u00df")
    assert any("may take two for one" in note for note in found.notes)


def test_names_of_kicad_come_back(tmp_path: Path) -> None:
    """Node names with / + - [ ] # survive writing and reading, in B sources too."""
    given = Parts.collect(
        [
            Part("V1", "voltage_source", ("/net", "0"), (2.0,)),
            Part("R1", "resistor", ("/net", "in+"), (1e-3,)),
            Part("R2", "resistor", ("in+", "net/2[3]"), (1e-3,)),
            Part("B1", "memristor", ("net/2[3]", "a-b"), (1e-3, 0.3)),
            Part("R3", "resistor", ("a-b", "0"), (1e-3,)),
            Part("B2", "behavioural_current", ("a-b", "0"), expression="0.001*v(in+,net/2[3])*v(/net)"),
        ]
    )
    write_netlist(tmp_path / "net.cir", given)
    again = load_netlist(tmp_path / "net.cir").parts
    assert again.nodes == given.nodes
    first, second = (Circuit(parts) for parts in (given, again))
    one, other = (c.node_voltages(c.operating_point().require()) for c in (first, second))
    assert one == pytest.approx(other, rel=1e-12)


# -- in time -----------------------------------------------------------------------------------------------------


def test_a_resonant_circuit_rings(tmp_path: Path) -> None:
    """Closed form of a series RLC element after a step, and of a current that decays from IC=."""
    lines = ("V1 in 0 1", "R1 in a 20", "L1 a b 100u", "C1 b 0 1n")
    found = transient(load_netlist(write(tmp_path, *lines)).parts, 5e-6, rtol=1e-9, atol=1e-12)
    t, damping = found.time.numpy(), 20 / (2 * 100e-6)
    omega = math.sqrt(1 / (100e-6 * 1e-9) - damping**2)
    wanted = 1 - np.exp(-damping * t) * (np.cos(omega * t) + damping / omega * np.sin(omega * t))
    np.testing.assert_allclose(found.voltage("b")[:, 0].numpy(), wanted, atol=2e-6)
    decay = transient(load_netlist(write(tmp_path, "L1 a 0 1m IC=2m", "R1 a 0 1k")).parts, 5e-6, rtol=1e-9)
    np.testing.assert_allclose(decay.voltage("a")[:, 0], -2 * np.exp(-decay.time.numpy() / 1e-6), rtol=1e-5)


COURSES = [
    (("V1 in 0 SIN(0.5 1 300k 1u 1e5 30)", "R1 in a 1k", "C1 a 0 1n", "L1 a c 1m IC=1m", "R2 c 0 1k"), "uic"),
    (("V1 in 0 EXP(0 2 1u 0.5u 5u 1u)", "R1 in a 1k", "C1 a 0 1n IC=0.5"), "uic"),
    (
        ("V1 in 0 SIN(1 1 300k)", "R1 in a 1k", "L1 a 0 1m", "R2 a 0 3k", "D1 a 0 dd",
         ".model dd D(IS=1n RS=5 BV=5)"),
        "",
    ),
    (
        ("V1 in 0 SIN(0 2 200k)", "R1 in a 1k", "C1 a 0 1n", "B1 o 0 V=tanh(v(a))*v(in)", "R2 o 0 1k",
         "B2 0 p I=1m*v(a)**2", "C2 p 0 1n", "R3 p 0 2k"),
        "",
    ),
]  # fmt: skip


@pytest.mark.full
@needs_ngspice
@pytest.mark.parametrize(("lines", "how"), COURSES)
def test_courses_agree_with_ngspice(tmp_path: Path, lines: tuple[str, ...], how: str) -> None:
    """Sines, exponentials, inductors, behavioural sources and breakdown in time, beside ngspice."""
    start = "initial" if how else "operating_point"
    found = transient(load_netlist(write(tmp_path, *lines)).parts, 9e-6, rtol=1e-8, start=start)
    options = "reltol=1e-7 abstol=1e-13 vntol=1e-10 gmin=1e-18"
    (plot,) = run_ngspice(["title", *lines], [f"tran 1n 9u 0 2n {how}"], options=options)
    for node in ("a", "p", "c"):
        if node in found.nodes:
            theirs = np.interp(found.time.numpy(), plot.columns["time"], plot.columns[f"v({node})"])
            assert np.abs(theirs - found.voltage(node)[:, 0].numpy()).max() < 3e-5


# -- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "token", "instead"),
    [
        ("R9 a 0 4k7", "4k7", "4.7k in LTspice"),
        ("R9 a 0 2R2", "2R2", "2.2 in LTspice"),
        ("R9 a 0 1meg5", "1meg5", "1.5meg in LTspice"),
        ("R9 a 0 3mu", "3mu", "3u or 3m would be read"),
        ("R9 a 0 {3mil}", "3mil", "25.4u"),
        ("R9 a 0 1k rsh=3", "RSH=", "NODE NODE OHMS"),
        ("R9 a 0 {v(a)*1k}", "v(a)*1k", "B, E and G sources"),
        ("R9 a 0 {agauss(1,2,3)}", "agauss", "a number would be read"),
        ("R9 a 0 {1+}", "1+", "ends too soon"),
        ("C9 a 0 1n Rser=3", "RSER=", "FARADS"),
        ("V9 a 0 1 Rser=3", "RSER=", "an R or C of its own would be read"),
        ("V9 a 0 isrc", "isrc", "neither a number, a parameter nor one of"),
        ("V9 a 0 AM(1 2 3)", "AM", "PWL, PULSE, SIN"),
        ("S9 a 0 b 0 sw", "sw", "is not defined"),
        (".model x SW(VT=1 VH=0.2)", "VH", "VH=0 would be"),
        ("S9 a 0 b sw", "a word is missing", "NODE NODE CONTROL+ CONTROL- MODEL"),
        ("B9 a 0 V=pwl(v(b),0,0,0,1)", "pwl", "must rise"),
        ("B9 a 0 V=" + "pwl(" * 9 + "v(b)" + ",0,0,1,2,3,1,4,4)" * 9, "tables", "a B source for each"),
        ("F9 a 0 POLY(1) Vno 0 1", "Vno", "V1"),
        ("F9 a 0 POLY(2) V1 0 1", "POLY(n)", "n voltage sources"),
        ("E9 a 0 b 0 table=(0 0, 1 1)", "TABLE", "pwl(x, x0, y0"),
        ("Q9 a b 0 npn", "Q9", "diodes and B sources would be"),
        ("K1 L1 L2 0.9", "K1", "single ones (L) would be"),
        ("E9 a 0 TABLE {v(b)} = (0,0) (1,1)", "TABLE", "VALUE={EXPRESSION}, with pwl"),
        ("B9 a 0 V=limit(v(b),0,1)", "limit", "min(max(x, low), high)"),
        ("B9 a 0 V=v(b)*{1+2}", "{1+2}", "(1+2) would be read"),
        ("B9 a 0 V=1/{2*3}", "{2*3}", "(2*3) would be read"),
        ("B9 a 0 V=v(b)^{2*3}", "{2*3}", "(2*3) would be read"),
        ("E9 a 0 VALUE={v(b)-{1-2}}", "{1-2}", "(1-2) would be read"),
        ("B9 a 0 V=ddt(v(b))", "ddt", "capacitors, inductors"),
        ("B9 a 0 V=v(b)*time", "time", "waveforms"),
        ("B9 a 0 V=if(v(b),1,2)", "if", "must be a comparison"),
        ("B9 a 0 V=v(b)&1", "'&1'", "must not stand there"),
        ("X9 a b sub r=1k s={r}", "'r'", "with another name"),
        (".if (1>0)", ".if", "the lines that hold"),
        (".step param x 1 2 1", ".step", "one .param line"),
        (".lib nowhere.lib tt", "nowhere.lib", "No such file"),
        (".model x D(IS=1n Ron=1 Vfwd=0.5)", "RON", "a B source"),
        ("X9 a b nosuch", "nosuch", "defined are"),
        ("X9 a b sub r", "'r' behind the subcircuit 'sub'", "NAME=VALUE would be read"),
        ("X9 a 0 biolek_memristor state", "'state' behind", "NAME=VALUE would be read"),
        ("X9 a b 0 sub", "the subcircuit 'sub' has 2 nodes (p q)", "but 3 are given"),
        ("R9 a 0", "'0' must not be the last word", "NAME NODE NODE OHMS"),
        ("R9 a 0 1k 2k", "'2k' is one word too many", "NAME NODE NODE OHMS"),
        ("R9 a 0 1k tc1", "'tc1' is one word too many", "TC1="),
        ("C9 a 0 1n IC", "'IC' is one word too many", "IC=VOLTS"),
        ("D9 a 0", "'0' must not be the last word", "NAME ANODE CATHODE MODEL"),
        ("R9 a 0 1..5k", "'1..5k'", "as 1.5k, 2meg and 1e-3 are"),
        ('R9 "a" 0 1k', '"a"', "without them"),
        ("R9 a 0 one", "'one'", ".param one=VALUE would be read"),
        ("H9 a 0 V1 2 3", "'3' is one word too many", "NAME OUT+ OUT- VSOURCE GAIN"),
        ("X9 a 0 vteam_memristor v_on=1", "on threshold", "must be negative, but was 1"),
        ("X9 a b sub rr=3", "rr", "did you mean 'r'"),
        ("X9 a b sub m=-1", "M must be positive", "-1"),
        (".options gshunt=1", "gshunt", "not known"),
        (".fnc f(x) {x}", ".fnc", "Did you mean 'func'"),
    ],
)
def test_refusals_name_what_would_be_read(tmp_path: Path, line: str, token: str, instead: str) -> None:
    """One line with file, line, token and what would be read; no message of a form that no netlist has."""
    use = ("D9 a 0 x" if " D(" in line else "S9 a 0 b 0 x",) if line.startswith(".model") else ()
    sub = (".subckt sub p q r=1k s=1", "R1 p q {r}", ".ends")
    path = write(tmp_path, "V1 a 0 1", "R1 a b 1k", "R2 b 0 1k", *sub, line, *use)
    with pytest.raises(InputError) as caught:
        load_netlist(path)
    text = str(caught.value)
    assert "net.cir, line 8: " in text
    assert token in text
    assert instead in text
    assert "\n" not in text
    assert "Argument" not in text
    assert "leave it out" not in text or line.startswith(".options")


def test_what_is_passed_over_is_told_once(tmp_path: Path) -> None:
    """Fields of vendors have one note a file, not one a diode."""
    models = [f".model d{k} D(IS=1n VPK=75 IAVE=0.2 MFG=any)" for k in range(3)]
    path = write(tmp_path, "V1 a 0 1", "R1 a b 1k", *models, *(f"D{k} b 0 d{k}" for k in range(3)))
    (note,) = (n for n in load_netlist(path).notes if "passed over" in n)
    assert all(name in note for name in ("VPK", "IAVE", "MFG"))


@needs_ngspice
def test_nodes_that_leakage_holds_are_where_ngspice_has_them(tmp_path: Path) -> None:
    """ngspice's gmin decides there: 5 V where bare leakage says 18 mV; a netlist that sets gmin keeps its own."""
    lines = ("V1 a 0 10", "D1 b a DX", "D2 0 b DY", ".model DX D(IS=1e-14)", ".model DY D(IS=2e-14)")
    path = write(tmp_path, *lines)
    (note,) = (n for n in load_netlist(path).notes if "leakage alone holds node 'b'" in n)
    assert "1e-12 S" in note
    (theirs,) = ngspice_points([lines], tmp_path, "reltol=1e-9 abstol=1e-18")
    assert theirs is not None
    ours = solved(path)["b"]
    assert ours == pytest.approx(theirs["b"], abs=1e-3)
    assert ours > 4.9
    Circuit.from_netlist(path).to_netlist(tmp_path / "again.cir")
    assert solved(tmp_path / "again.cir")["b"] == pytest.approx(ours, rel=1e-9)
    own = load_netlist(write(tmp_path, *lines, ".options gmin=1e-20"))
    assert not own.notes
    assert not len(own.parts.group("resistor"))


M = 10**6
HOSTILE = {
    "subcircuits in a ring": (".subckt s a", "X1 a t", ".ends", ".subckt t a", "X1 a s", ".ends", "X1 b s"),
    "a file in itself": (".include net.cir",),
    "a library in itself": (".lib net.cir tt", ".lib tt", ".lib net.cir tt", ".endl"),
    "a folder": (".include .",),
    "a device": (".include /dev/zero",),
    "a pipe": (".include pipe",),
    "10^15 instances": (
        *(s for k in range(15) for s in (f".subckt s{k} a", *(f"X{j} a s{k + 1}" for j in range(10)), ".ends")),
        *(".subckt s15 a", "R1 a 0 1k", ".ends", "X1 b s0"),
    ),
    "10^15 instances of nothing": (
        *(s for k in range(15) for s in (f".subckt s{k} a", *(f"X{j} a s{k + 1}" for j in range(10)), ".ends")),
        *(".subckt s15 a", ".ends", "X1 b s0"),
    ),
    "functions that double": (
        ".func f0(x) {x+x}",
        *(f".func f{k}(x) {{f{k - 1}(x)+f{k - 1}(x)}}" for k in range(1, 40)),
        "R1 a 0 {f39(1)}",
    ),
    "a function in itself": (".func f(x) {f(x)}", "R1 a 0 {f(1)}"),
    "a number of a megabyte": ("R1 a 0 " + "1" * M,),
    "words of a megabyte": ("R1 a 0 " + "1 " * M,),
    "blanks of a megabyte": ("B1 a 0 V=" + " " * M + "v(b)",),
    "values of a megabyte": ("V1 a 0 PULSE(" + "1 " * M + ")",),
    "braces of a megabyte": (".param x=" + "{" * M,),
    "lines that go on": ("R1 a 0", *["+ 1k"] * (M // 5)),
    "signs": ("B1 a 0 V=" + "!" * 9000 + "v(b)",),
    "parentheses": (".param x={" + "(" * 5000 + "1}", "R1 a 0 {x}"),
    "braces that nothing closes": ("R1 a 0 " + "{" * 99_000,),
    "functions of functions of themselves": (".func d(x) {x+x}", "R1 a 0 {" + "d(" * 90 + "1" + ")" * 90 + "}"),
    "powers of voltages": (".func q(x) {x*x*x*x}", "B1 a 0 V={" + "q(" * 12 + "v(b)" + ")" * 12 + "}"),
    "a file that waits": (".include /proc/kmsg",),
    "a file many times": (".include many.inc",) * 900,
    "outputs of a megabyte": ("* outputs: " + "a " * M, "R1 a 0 1k"),
    "gates of a megabyte": ("* gates: " + "{" * M, "R1 a 0 1k"),
    "blanks before a comment": ("R1 a 0" + " " * 90_000 + "1k 2k $",),
    "names too long to compare": (
        *(f".subckt {'d' * 3000}{k} a\n.ends" for k in range(300)),
        *("X1 a " + "d" * 3000,),
    ),
    "a million parentheses": ("B1 a 0 V=" + "(" * M + "1" + ")" * M,),
    "a library in itself twice": (".lib net.cir tt", ".lib tt", ".lib net.cir tt", ".lib net.cir tt", ".endl"),
    "parameters that double": (
        *(".param a0=1.5", *(f".param a{k}={{a{k - 1}*a{k - 1}}}" for k in range(1, 200)), "R1 a 0 {a199}"),
    ),
    "parameters in a row": (*(f".param a{k}={{a{k + 1}}}" for k in range(5000)), "R1 a 0 {a0}"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused_at_once(tmp_path: Path, what: str) -> None:
    """Within a second of processor time and in one short line: a file of a stranger must not hang a server."""
    os.mkfifo(tmp_path / "pipe")
    if what == "a file many times":
        (tmp_path / "many.inc").write_text("*\n" * 300_000)
    path = write(tmp_path, *HOSTILE[what])
    began = time.process_time()
    with pytest.raises(InputError) as caught:
        load_netlist(path)
    assert time.process_time() - began < 1.0
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_large_count_is_no_repetition(tmp_path: Path) -> None:
    """M=1e9, within M=1e9, is a value; arguments in braces and quotes stay words of their own."""
    told = (".subckt s a", "R1 a 0 1k", ".ends", "X1 a s m=1e9", "R2 b 0 1k m=1e9", "R3 c 0 '{2}*3' ; }{")
    parts = load_netlist(write(tmp_path, *told)).parts.group("resistor")
    assert len(parts) == 3
    assert parts.values[:, 0] == pytest.approx([1e6, 1e6, 1 / 6], rel=1e-12)


WINDOWS = "C:\\Users\\some one\\Documents\\LTspice"


@pytest.mark.parametrize(
    ("line", "note"),
    [
        (f".lib {WINDOWS}\\own.lib", "was read for it"),
        (f'.lib "{WINDOWS}\\own.lib"', "was read for it"),
        (f".include {WINDOWS}\\own.lib", "was read for it"),
        (f'.lib "{WINDOWS}\\two.lib" hot', "was read for it"),
        (".lib own.lib", "without a section"),
        (f".lib {WINDOWS}\\lib\\cmp\\standard.dio\n.include own.lib", "LTspice's own library"),
        (".lib standard.dio\n.include own.lib", "LTspice's own library"),
    ],
)
def test_libraries_of_other_computers(tmp_path: Path, line: str, note: str) -> None:
    """A file of the name beside the netlist is read for a path of Windows, with a note; so is ngspice's text."""
    (tmp_path / "own.lib").write_text(VENDORS[0])
    (tmp_path / "two.lib").write_text(f".lib hot\n{VENDORS[0]}\n.endl\n")
    path = write(tmp_path, "V1 a 0 3", "R1 a b 1k", "D1 b 0 1N4148", line)
    assert any(note in told and "line 5" in told for told in load_netlist(path).notes)
    lines, _ = text_for_ngspice(path)
    if shutil.which("ngspice"):
        (theirs,) = ngspice_points([lines[1:]], tmp_path, NO_GMIN)
        assert theirs is not None
        assert worst(solved(path), theirs)[0] < 1e-9


def test_libraries_that_are_not_here_are_named(tmp_path: Path) -> None:
    """File, line and what to do: the file that would be read, or the model that LTspice's library would define."""
    for name, line, why in (
        ("own.lib", 5, "a copy of 'own.lib' beside this file"),
        ("lib\\cmp\\standard.dio", 4, "standard.dio' is not here: copy its definition into the netlist"),
    ):
        path = write(tmp_path, "V1 a 0 3", "R1 a b 1k", "D1 b 0 1N4148", f".lib {WINDOWS}\\{name}")
        with pytest.raises(InputError, match=rf"net\.cir, line {line}: ") as caught:
            load_netlist(path)
        assert why in str(caught.value)


def test_transients_as_ltspice_asks_for_them(tmp_path: Path) -> None:
    """.tran STOP and .tran 0 STOP have no step; edges of a pulse without times are not the duration."""
    for text, stop in ((".tran 40m", 40e-3), (".tran 0 40m 0 1u", 40e-3), (".tran 1u 2m uic", 2e-3)):
        pulse = "V1 a 0 PULSE(0 1 1m 0 0 5m 20m)" if "uic" in text else "V1 a 0 PULSE(0 1 1m 1u 1u 5m 20m)"
        asked = load_netlist(write(tmp_path, pulse, "R1 a 0 1k", text)).analyses.transient()
        assert asked is not None
        assert (asked.stop, asked.uic) == (stop, "uic" in text)
