"""Transistors in netlists: lines M with models NMOS and PMOS of LEVEL=1, and gates that are held as parameters.

Equations of the parameters: ngspice 39, mos1temp.c; manual, chapter on MOSFETs. Junctions between bulk and channel
ends are diodes of their own, DNAME_bd and DNAME_bs, and series resistances resistors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from physics_ep.errors import InputError, unknown_name

from .lines import Line, pairs, tokens
from .models import NOMINAL
from .parts import GATED, GROUND, Group, Part, Parts

FORM = "NAME DRAIN GATE SOURCE BULK MODEL [W= L= M= AD= AS=]"
MODEL = {
    **{"kp": math.nan, "vto": 0.0, "lambda": 0.0, "gamma": 0.0, "phi": 0.6, "ld": 0.0, "is": 1e-14, "js": 0.0},
    **{"rd": 0.0, "rs": 0.0, "tox": 0.0, "uo": 600.0},
}
"""Parameters of transistor models that are read, with ngspice's defaults; KP is UO eps / TOX, or 2e-5."""
NEUTRAL = {
    *("cbd", "cbs", "cgso", "cgdo", "cgbo", "cj", "mj", "cjsw", "mjsw", "pb", "fc", "kf", "af", "tpg", "nss"),
    *("xj", "nlev", "gdsnoi", "n"),
}
"""Parameters of a model that leave its direct current as it is: capacitances, noise, and what goes with NSUB."""
DEFAULT_SIZE = 1e-4
"""Metres: W and L where an element names none."""
GATE_OXIDE = 3.9 * 8.854214871e-12
"""Permittivity of the gate's oxide, F/m, as ngspice has it."""


def read_transistor(level: Any, line: Line, words: list[str]) -> None:
    """Add the transistor of a line M, with its junctions and series resistors.

    Parameters
    ----------
    level : hardware_models.netlists.reader.Level
    line : Line
    words : list of str

    Raises
    ------
    InputError
        If the line or its model is not as above.
    """
    words = [w for k, w in enumerate(words) if k < 5 or w.lower() != "off"]
    head, rest = level.split(line, words, FORM)
    given = level.keywords(line, rest, ("w", "l", "m", "ad", "as", "pd", "ps", "nrd", "nrs"), FORM)
    if len(head) != 6:
        known = level.section.model(head[-1].lower()) is not None
        why = "drain, gate, source and bulk must be named" if known or len(head) < 6 else "there are words too many"
        raise line.error(f"{why}: {FORM} would be read, but found {max(len(head) - 2, 0)} nodes")
    name, drain, gate, source, bulk, model = head
    kind, values = _model(level, line, model)
    if level.builder.option("temp", NOMINAL) != NOMINAL or level.builder.option("tnom", NOMINAL) != NOMINAL:
        raise line.error("transistors are read at 27 degrees Celsius: without .temp, TEMP and TNOM it would be")
    count = level.multiple(line, given) * level.copies
    sizes = {}
    for key, text in (("w", "W"), ("l", "L")):
        sizes[key] = level.value(given[key]) if key in given else DEFAULT_SIZE
        if not sizes[key] > 0:
            raise line.error(f"{text} must be positive, but was {sizes[key]:g} m")
    length = sizes["l"] - 2 * values["ld"]
    if not length > 0:
        raise line.error(f"L less 2 LD must be positive, but was {length:g} m")
    ends = {}
    for end, node, key in (("d", drain, "rd"), ("s", source, "rs")):
        ends[end] = node
        if values[key]:
            ends[end] = f"{name}.{end}"
            at = [level.node(node), level.node(ends[end])]
            level.builder.beside(line, "resistor", f"R{level.name(name)}_{key}", at, count / values[key])
    law = [
        values["kp"],
        values["vto"],
        values["lambda"],
        sizes["w"] * count,
        length,
        values["gamma"],
        values["phi"],
    ]
    level.add(line, kind, name, [ends["d"], gate, ends["s"], bulk], law)
    areas = [level.value(given.get(key, "0")) for key in ("ad", "as")]
    for end, area in zip("ds", areas, strict=True):
        by_area = values["js"] and min(areas) > 0
        current = (values["js"] * area if by_area else values["is"]) * count
        junction = [level.node(bulk), level.node(ends[end])]
        if current > 0 and junction[0] != junction[1]:
            junction = junction if kind == "nmos" else junction[::-1]
            level.builder.beside(line, "diode", f"D{level.name(name)}_b{end}", junction, current, 1.0)


def _model(level: Any, line: Line, name: str) -> tuple[str, dict[str, float]]:
    """Kind of transistor, and the values of its model by the names of `MODEL`."""
    found = level.section.model(name.lower())
    if found is None:
        raise level.undefined(line, "model", name, level.section.names("models"))
    model, section = found
    words = tokens(model.text)
    kind = words[2].lower()
    if kind not in ("nmos", "pmos"):
        raise model.error(f"model {name!r} is of type {words[2]}, but a transistor needs NMOS or PMOS")
    given = {{"vt0": "vto", "u0": "uo"}.get(p, p): text for p, text in pairs(model, words[3:]).items()}
    value = level.scope_of(section).value
    read = {
        p: model.check(value, text) for p, text in given.items() if p in (*MODEL, "level", "tnom", "nsub", "rsh")
    }
    if read.pop("level", 1.0) != 1:
        raise model.error(f"LEVEL must be 1 (Shichman and Hodges), but was {given['level']}")
    for p, why in (("nsub", "GAMMA, PHI and VTO"), ("rsh", "RD and RS")):
        if read.pop(p, 0.0):
            raise model.error(f"{p.upper()} is not read: {why} themselves would be")
    if read.pop("tnom", NOMINAL) != NOMINAL:
        raise model.error("TNOM other than 27 is not read for transistors")
    for p in given:
        if p not in (*MODEL, *NEUTRAL, "level", "tnom", "nsub", "rsh"):
            raise model.error(f"transistor models of LEVEL=1 have no {p.upper()} here")
    if any(p.startswith("c") for p in given):
        level.note("capacitances of transistors' models are left out: capacitors of their own would be read")
    values = {**MODEL, **read}
    if math.isnan(values["kp"]):
        values["kp"] = values["uo"] * 1e-4 * GATE_OXIDE / values["tox"] if values["tox"] else 2e-5
    for p in ("kp", "phi", "lambda", "gamma", "ld", "is", "js", "rd", "rs"):
        if not (values[p] > 0 or (values[p] == 0 and p not in ("kp", "phi"))):
            must = "be positive" if p in ("kp", "phi") else "not be negative"
            raise model.error(f"{p.upper()} must {must}, but was {values[p]:g}")
    return kind, values


def held_gates(parts: Parts, names: Sequence[str]) -> Parts:
    """Parts in which the gates of some transistors are held as values of their own, in place of sources.

    Parameters
    ----------
    parts : Parts
    names : sequence of str
        Transistors (nmos or pmos) whose gates are each held by a voltage source of its own; the gate's node has no
        other part.

    Returns
    -------
    Parts
        With an nmos_resistor or pmos_resistor for each of them, and without those sources and nodes.

    Raises
    ------
    InputError
        If a transistor is unknown, or its gate is not held so.
    """
    if not len(names):
        return parts
    every = list(parts)
    known = {part.name.lower(): part for part in every if part.kind in ("nmos", "pmos")}
    at: dict[str, list[Part]] = {}
    for part in every:
        for node in dict.fromkeys(part.nodes):
            at.setdefault(node, []).append(part)
    changed: dict[str, Part | None] = {}
    for name in names:
        if name.lower() not in known:
            raise unknown_name("gates", name, [p.name for p in known.values()])
        part = known[name.lower()]
        drain, gate, source, bulk = part.nodes
        holder = [p for p in at[gate] if p.kind == "voltage_source" and GROUND in p.nodes]
        if len(at[gate]) != 2 or len(holder) != 1 or gate in (drain, source, bulk, GROUND):
            raise InputError(
                f"The gate of {part.name!r} must be held by a voltage source to ground of its own, and by nothing "
                "else, to be a parameter."
            )
        volts = holder[0].values[0] * (1 if holder[0].nodes[0] == gate else -1)
        changed[holder[0].name] = None
        changed[part.name] = Part(part.name, f"{part.kind}_resistor", (drain, source, bulk), (volts, *part.values))
    kept = [changed.get(part.name, part) for part in every]
    found = Parts.collect([one for one in kept if one is not None])
    return Parts(found.nodes, found.groups, {n: v for n, v in parts.initial.items() if n in found.nodes})


def released_gates(parts: Parts) -> tuple[Parts, tuple[str, ...]]:
    """Parts in which sources hold all gates, and the transistors whose gates were held: undoes `held_gates`."""
    held = tuple(name for kind in GATED for name in parts.group(kind).names)
    if not held:
        return parts, ()
    taken = {n.lower() for n in (*parts.nodes, *(n for g in parts.groups.values() for n in g.names))}
    plain: list[Part] = []
    sources: list[Part] = []
    for part in parts:
        if part.kind not in GATED:
            plain.append(part)
            continue
        mark = ""
        while {f"gate_{part.name}{mark}".lower(), f"vgate_{part.name}{mark}".lower()} & taken:
            mark += "_"
        gate = f"gate_{part.name}{mark}"
        (drain, source, bulk), (volts, *values) = part.nodes, part.values
        kind = part.kind.removesuffix("_resistor")
        plain.append(Part(part.name, kind, (drain, gate, source, bulk), tuple(values)))
        sources.append(Part(f"Vgate_{part.name}{mark}", "voltage_source", (gate, GROUND), (volts,)))
    found = Parts.collect([*plain, *sources])
    return Parts(found.nodes, found.groups, parts.initial), held


def transistor_lines(names: list[str], nodes: list, group: Group, kind: str) -> Iterator[str]:
    """Lines of the transistors of a kind, nmos or pmos, each model before its first; junctions are other parts."""
    models: dict[tuple[float, ...], str] = {}
    for name, ends, (kp, threshold, modulation, width, length, body, potential) in zip(
        names, nodes, group.values.tolist(), strict=True
    ):
        key = (kp, threshold, modulation, body, potential)
        if key not in models:
            models[key] = f"{kind}{len(models) + 1}"
            said = zip(("KP", "VTO", "LAMBDA", "GAMMA", "PHI"), key, strict=True)
            text = " ".join(f"{parameter}={value!r}" for parameter, value in said)
            yield f".model {models[key]} {kind.upper()}(LEVEL=1 {text} IS=0)"
        yield f"{name} {' '.join(ends)} {models[key]} L={length!r} W={width!r}"
