"""Netlists as people write them: random texts with many features, and ngspice on many of them in one process."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hardware_models.netlists.memristors import FORMS
from hardware_models.netlists.writer import DEFINITIONS
from hardware_models.spice.ngspice import find_ngspice, read_raw

POINT = "reltol=1e-10 abstol=1e-16 vntol=1e-13 itl1=1000 itl2=1000"
"""Options under which ngspice's operating points are good to 1e-9 V: it prints all digits to a binary file."""
_INSIDE = re.compile(r"#|_int\d*$|\.s$")
"""What only nodes within ngspice's own elements have in their names."""
MODELS = (
    # Written here from figures of data sheets: a switching diode, a Schottky diode, red and white light, ...
    ".model DSWITCH D(IS=2.5n N=1.75 RS=0.6 BV=100 IBV=100u CJO=1.5p VJ=0.7 M=0.3 TT=6n VPK=100 IAVE=0.2)",
    ".model DSCHOTTKY D (IS=120n, N=1.05, RS=2.3, EG=0.69, XTI=2, BV=30, IBV=100u, CJO=11p, VJ=0.4, M=0.4)",
    ".model DRED D IS=8e-20 N=1.9 RS=1.8 EG=2.0 XTI=3 BV=5 IBV=10u",
    ".model DWHITE D(IS=1e-24 N=2.1 RS=3 EG=2.7 TNOM=25)",
    ".model DZENER D(IS=2f N=1.1 RS=5 BV=5.1 IBV=5m NBV=1.4 TCV=1m)",
    ".model DHIGH D(IS=2.7n N=1.8 RS=0.5 IKF=40m ISR=1.5n NR=2 VJ=0.5 M=0.33 BV=75 IBV=5u TRS1=1m)",
    ".model DPLAIN D(IS=1p N=1.3)",
)
FEATURES = ("temperature", "diodes", "resistors", "subcircuits", "sources", "expressions", "storage", "names")
MEMRISTORS = "memristors"
"""A further feature: memristors with a state, which ngspice takes from the writer's definitions."""


def random_text(seed: int, features: Sequence[str], size: int = 60) -> list[str]:
    """Lines of a netlist without a title, of about `size` parts, with an operating point that is unique.

    A tree of resistors leads from every node to ground or to a source; active parts have small gains and outputs of
    their own.
    """
    rng = np.random.default_rng(seed)
    has = {name: name in features for name in (*FEATURES, MEMRISTORS)}
    lines: list[str] = []
    count = 0
    pool = ["/net", "in+", "net/2[3]", "a-b", "Sub/Out", "n#1", "x~y"] if has["names"] else []
    if has["temperature"]:
        lines.append(rng.choice([".temp {}", ".options temp={}"]).format(rng.choice([-40, 0, 50, 85, 125])))
        if rng.random() < 0.5:
            lines.append(".options tnom=25")
    lines.append(".param rbase=2k k2 = 2 unused='k2*3'")
    lines.append(".func twice(x) {2*x}")

    def name(letter: str) -> str:
        nonlocal count
        count += 1
        return f"{letter}{count}"

    def ohms() -> str:
        value = 10 ** rng.uniform(2, 4.5)
        plain = f"{value:.4g}"
        if not has["resistors"]:
            return plain
        choices = [
            plain,
            f"{value / 1e3:.4g}k",
            "rbase",
            f"{{rbase*{rng.uniform(0.5, 2):.3f}}}",
            f"'twice({value:.5g})'",
            f"{value / 1e6:.5g}Meg",
            f"R={plain}",
            f"{plain} m=2",
            f"{plain} tc1=2m tc2=1e-5",
            f"{plain} tce=0.3",
            f"{value / 1e3:.4g}kohm dtemp=15 tc1=1m",
            f"{plain} temp=60 tc1=-1m",
            f"rmod {plain}",
            f"{plain} rmod",
            f"{plain} $ as drawn",
            f"{plain} ; as drawn",
        ]
        return str(rng.choice(choices))

    nodes = ["v1", "v2"]
    lines += [f"V1 v1 0 {rng.uniform(-5, 5):.3f}", f"V2 v2 0 DC {rng.uniform(-5, 5):.3f} AC 1"]

    def any_node() -> str:
        return str(rng.choice([*nodes, "0", "gnd"]))

    def two() -> tuple[str, str]:
        a, b = rng.choice([*nodes, "0"], 2, replace=False)
        return str(a), str(b)

    while count < size:
        fresh = pool.pop() if pool else f"n{len(nodes)}"
        lines.append(f"{name('R')} {fresh} {any_node()} {ohms()}")
        if rng.random() < 0.3:
            lines.append(f"{name('R')} {fresh} 0 {ohms()}")
        nodes.append(fresh)
        kind = str(rng.choice([f for f in features if f not in ("temperature", "names")] or ["resistors"]))
        a, b = two()
        if kind == "resistors":
            lines.append(f"{name('R')} {a} {b} {ohms()}")
        elif kind == "diodes":
            model = rng.choice([m.split()[1].split("(")[0] for m in MODELS])
            if {a, b} == {"v1", "v2"}:  # a short of two sources, which carries 1e18 A
                b = "0"
            extra = rng.choice(["", "", "area=3", "m=2", "temp=40", "dtemp=-10", "OFF"])
            lines.append(f"{name('D')} {a} {b} {model} {extra}")
        elif kind == "subcircuits":
            sub = rng.choice(["pad", "ladder r1={k2*500}", "ladder", "clamp m=2", "outer PARAMS: r=3k"])
            lines.append(f"{name('X')} {a} {b} {sub}")
        elif kind == MEMRISTORS:
            sub = rng.choice(
                ["biolek_memristor", "linear_drift_memristor ron={k2*100}", "vteam_memristor v_on=-0.3"]
            )
            lines.append(f"{name('X')} {a} {b} {sub} state={rng.uniform(0, 1):.3f}")
        elif kind == "sources":
            out = f"o{count}"
            choice = rng.integers(5 if has["names"] else 6)  # ngspice's own POLY stumbles over ~ in names
            if choice == 0:
                lines.append(f"{name('I')} {a} {b} {rng.uniform(-1, 1):.3f}m")
            elif choice == 1:
                lines.append(f"{name('E')} {out} 0 {a} {b} {rng.uniform(-0.5, 0.5):.3f}")
            elif choice == 2:
                lines.append(f"{name('G')} 0 {out} {a} {b} {rng.uniform(-50, 50):.3f}u")
            elif choice == 3:
                lines.append(f"{name('F')} 0 {out} V1 {rng.uniform(-0.05, 0.05):.4f}")
            elif choice == 4:
                lines.append(f"{name('H')} {out} 0 V2 {rng.uniform(-20, 20):.3f}")
            else:
                lines.append(f"{name('E')} {out} 0 POLY(2) {a} 0 {b} 0 0.1 0.2 0.1 0.01 0.02 -0.01")
            lines.append(f"{name('R')} {out} {nodes[-1]} 47k")
            lines.append(f"{name('R')} {out} 0 1k")
        elif kind == "expressions":
            out, x, y = f"o{count}", f"v({a})", f"v({a},{b})"
            law = rng.choice(
                [
                    f"0.5*tanh({x})",
                    f"max(min({y},1.2),-1.2)",
                    f"0.02*{x}*{y} + 0.1",
                    f"{x} > 0.4 ? 0.5 : 0.3",
                    f"0.1*{x}**2 - 0.05",
                    f"twice({y})/10",
                    f"{{k2}}*0.1*sqrt(1+{x}*{x})",
                    f"0.3*exp(-abs({y})) + 0.01*i(V1)",
                    f"0.1*pow({y},3)/(1+{y}^2)",
                    f"0.2*atan({x}) - 0.1*sin({y})",
                    f"0.1*max({y},0) + 0.2",
                    f"ternary_fcn({x}>={y},0.2,0.3)",
                    f"pwl({y}, -3,-0.4, 0,0.05, 1.1,0.3, 4,0.45)",
                ]
            )
            quantity = rng.choice(["V", "I"])
            scale = f"1m*({law})" if quantity == "I" else law
            lines.append(f"{name('B')} {out} 0 {quantity}={scale}")
            if rng.random() < 0.2:
                lines.append(f"{name('S')} {out} s{out} {a} {b} relay")
                lines.append(f"{name('R')} s{out} 0 2.2k")
            lines.append(f"{name('R')} {out} 0 1k")
            lines.append(f"{name('R')} {out} {nodes[-1]} 33k")
        elif kind == "storage":
            lines.append(f"{name('C')} {a} {b} {rng.uniform(1, 9):.2f}n IC=0.5")
            lines.append(f"{name('L')} {nodes[-1]} m{count} {rng.uniform(1, 9):.2f}u")
            lines.append(f"{name('R')} m{count - 1} 0 1k")
    if has["diodes"] or has["subcircuits"]:
        lines += MODELS
    if has[MEMRISTORS]:
        lines += [line for kind in FORMS for line in DEFINITIONS[kind].split("\n")]
    if has["expressions"]:
        lines.append(".model relay SW(VT=0.3 RON=150 ROFF=1meg)")
    if has["resistors"]:
        lines.append(".model rmod R(tc1=1m tc2=-2u)")
    if has["subcircuits"]:
        lines += [
            *(".subckt pad p q", "R1 p m 1k", "R2 m q {rbase}", "R3 m 0 5k", ".ends pad"),
            *(".subckt ladder p q r1=1k r2={2*r1}", ".param mid={r1+r2}", "R1 p m {r1}", "R2 m q r2", "X1 m rung"),
            *(".subckt rung t", "R1 t 0 {mid}", "D1 t 0 inner", ".model inner D(IS=1n N=2)", ".ends", ".ends"),
            *(".subckt clamp p q", "R1 p m 470", "D1 m q DPLAIN", "D2 q m DSWITCH", "R2 m 0 10k", ".ends"),
            *(".subckt outer p q r=1k", "X1 p m pad", "X2 m q inside", ".ends"),
            *(".subckt inside p q", "R1 p q {r}", ".ends"),
        ]
    return lines


def worst(ours: dict[str, float], theirs: dict[str, float]) -> tuple[float, str]:
    """Largest difference over the nodes, over a volt or the voltage, and where; every node of ngspice's is ours."""
    low = {node.lower(): volts for node, volts in ours.items()}
    # Those within ngspice's POLY and VALUE sources, transistors and memristors (their states) are no nodes here.
    nodes = [node for node in theirs if node in low or not _INSIDE.search(node)]
    found = [(abs(low[node] - theirs[node]) / max(1.0, abs(theirs[node])), node) for node in nodes]
    return max(found)


def ngspice_points(
    texts: Sequence[Sequence[str]], folder: Path, options: str = POINT
) -> list[dict[str, float] | None]:
    """Node voltages of many netlists (lines without title and .end), by one ngspice; None where it fails."""
    script = ["many netlists", ".control", "set filetype=binary"]
    for k, lines in enumerate(texts):
        text = ["title", *lines, f".options {options}", ".end", ""]
        (folder / f"given{k}.cir").write_text("\n".join(text), encoding="utf-8")
        (folder / f"point{k}.raw").unlink(missing_ok=True)  # an earlier one would hide a failure
        script += [f"source given{k}.cir", "op", f"write point{k}.raw", "destroy all", "remcirc"]
    (folder / "all.cir").write_text("\n".join([*script, "quit 0", ".endc", ".end", ""]), encoding="utf-8")
    subprocess.run(
        [find_ngspice(), "-n", "-b", "all.cir"],
        cwd=folder,
        capture_output=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    found: list[dict[str, float] | None] = []
    for k in range(len(texts)):
        raw = folder / f"point{k}.raw"
        plots = [p for p in read_raw(raw) if p.name == "Operating Point"] if raw.is_file() else []
        columns = (
            {key[2:-1]: float(v[0]) for key, v in plots[0].columns.items() if key.startswith("v(")}
            if plots
            else None
        )
        found.append(columns)
    return found
