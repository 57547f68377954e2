"""Models of netlists: diodes and resistors, with what temperature makes of them, as ngspice computes it.

Equations: ngspice 39, diotemp.c and restemp.c; manual 3.3.1 (resistors), 7.1 and 7.2 (diodes).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from physics_ep.errors import InputError

from ..laws.elements import BOLTZMANN, CHARGE, TEMPERATURE
from .junctions import breakdown_knee
from .lines import Line, pairs, tokens

CELSIUS = 273.15
NOMINAL = 27.0
"""Degrees Celsius at which parts of this package are given."""
MOST_GROWTH = 700.0
"""Logarithm of what a temperature may multiply a saturation current by."""
DIODE = {
    **{"is": 1e-14, "n": 1.0, "eg": 1.11, "xti": 3.0, "rs": 0.0, "trs1": 0.0, "trs2": 0.0, "cjo": 0.0},
    **{"bv": 0.0, "ibv": 1e-3, "nbv": math.nan, "tcv": 0.0, "ikf": 0.0, "isr": 0.0, "nr": 1.0, "vj": 1.0, "m": 0.5},
    **{"tm1": 0.0, "tm2": 0.0, "fc": 0.5},
}
"""Parameters of diode models that are read, with their defaults; 0 for BV, IKF and ISR stands for none."""
LEAST_CURRENT = 1e-28
"""Amperes: a saturation current below this is this one in ngspice (its option epsmin)."""
STEEPEST, WIDEST = 0.9, 0.95
"""Largest grading coefficient and FC, to which ngspice limits them."""
UNUSED = (2.0, 1.0, 0.5)
"""NR, VJ and M of diodes without a recombination current."""
ALIASES = {"js": "is", "cj0": "cjo", "cj": "cjo", "pb": "vj", "mj": "m", "ik": "ikf", "trs": "trs1", "tref": "tnom"}
NEUTRAL = {
    *("tt", "ttt1", "ttt2", "kf", "af", "cjp", "cjsw", "php", "mjsw", "fcs", "vp", "cta", "ctp", "tpb", "tphp"),
    *("fv_max", "bv_max", "id_max", "te_max", "pd_max"),
}
"""Parameters of a diode model that leave its direct current as it is."""
CHANGING = {
    *("jsw", "ns", "ikr", "ikp", "tlev", "tlevc", "jtun", "jtunsw", "ntun", "xtitun", "keg", "isw", "rsw", "cth0"),
    *("rth0", "lm", "lp", "wm", "wp", "xom", "xoi", "xm", "xp", "pj", "area", "xw", "nsw"),
}
"""Parameters of a diode model that change its current in ngspice, and are not read."""
IDEALIZED = ("ron", "roff", "vfwd", "vrev", "rrev", "ilimit", "revilimit", "epsilon", "revepsilon")
"""Parameters of LTspice's idealized diode, which ngspice passes over."""


@dataclass(frozen=True)
class DiodeModel:
    """A diode model's values as written, without those that are passed over.

    Attributes
    ----------
    line : Line
    values : dict of str to float
        Values by the names of `DIODE`.
    nominal : float
        Degrees Celsius.
    """

    line: Line
    values: dict[str, float]
    nominal: float


@dataclass(frozen=True)
class DiodeValues:
    """What a diode of a size is at a temperature.

    Attributes
    ----------
    law : tuple of float
        Values of a diode (two), or of a spice_diode (nine).
    resistance, capacitance : float
        Resistance in series, ohm; capacitance across the junction, farad; 0: none.
    """

    law: tuple[float, ...]
    resistance: float
    capacitance: float


def diode_model(
    line: Line,
    value: Callable[[str], float],
    nominal: float,
    passed_over: Callable[[list[str]], None],
    tell: Callable[[str], None],
) -> DiodeModel:
    """Read the .model line of a diode.

    Parameters
    ----------
    line : Line
    value : callable (str) -> float
        Function that turns a number or an expression into its value.
    nominal : float
        Nominal temperature where the model names none, degrees Celsius.
    passed_over : callable (list of str)
        Called with the parameters that ngspice does not know either.
    tell : callable (str)
        Takes notes for the reader of the netlist.

    Raises
    ------
    InputError
        If a parameter changes the current and is not read, or makes no sense.
    """
    words = tokens(line.text)
    given = {ALIASES.get(p, p): text for p, text in pairs(line, words[3:]).items()}
    for name in given:
        if name in IDEALIZED:
            raise line.error(
                f"{name.upper()} is of LTspice's idealized diode, which ngspice takes for a usual one: a B source "
                "I=leak*v(a,b)+g*max(v(a,b)-v0,0), or a model with IS and N, would be read"
            )
        if name in CHANGING:
            raise line.error(
                f"{name.upper()} changes the current of a diode and is not read; read are "
                f"{', '.join(p.upper() for p in DIODE)}, TNOM and LEVEL=1"
            )
    foreign = [p.upper() for p in given if p not in DIODE and p not in NEUTRAL and p not in ("tnom", "level")]
    if foreign:
        passed_over(foreign)
    numbers = {p: line.check(value, text) for p, text in given.items() if p in DIODE or p in ("tnom", "level")}
    if numbers.pop("level", 1.0) != 1:
        raise line.error("diodes are of level 1 here")
    nominal = numbers.pop("tnom", nominal)
    found = {**DIODE, **numbers}
    if not nominal > -CELSIUS or not found["n"] > 0:
        raise line.error("the nominal temperature and N must be positive")
    for name in ("nr", "vj"):
        if not found[name] > 0:
            raise line.error(f"{name.upper()} must be positive, but was {found[name]:g}")
    if 0 <= found["is"] < LEAST_CURRENT:
        tell(f"IS below {LEAST_CURRENT:g} A is {LEAST_CURRENT:g} A, as in ngspice")
        found["is"] = LEAST_CURRENT
    if 0 < found["ikf"] < LEAST_CURRENT:
        raise line.error(f"IKF must be 0 or at least {LEAST_CURRENT:g} A, but was {found['ikf']:g}")
    for name in ("is", "fc", "bv", "ibv", "ikf", "isr", "rs", "cjo", "m"):
        if found[name] < 0:
            raise line.error(f"{name.upper()} must not be negative, but was {found[name]:g}")
    if "bv" in numbers and not numbers["bv"]:
        raise line.error("BV must be positive, but was 0")
    if not math.isnan(found["nbv"]) and not found["nbv"] > 0:
        raise line.error(f"NBV must be positive, but was {found['nbv']:g}")
    return DiodeModel(line, found, nominal)


def diode_values(model: DiodeModel, celsius: float, area: float, count: float) -> DiodeValues:
    """A diode of a model at a temperature.

    The laws of this package have kT/q at 27 degrees Celsius: another temperature is in the emission coefficients,
    and in the saturation current, Is (T/Tn)^(xti/n) exp((T/Tn - 1) eg / (n kT/q)).

    Parameters
    ----------
    model : DiodeModel
    celsius : float
    area, count : float
        AREA and M of the instance.
    """
    p = model.values
    hot, cold = celsius + CELSIUS, model.nominal + CELSIUS
    ratio, warmth, thermal = hot / cold, hot / TEMPERATURE, BOLTZMANN * hot / CHARGE
    size = area * count

    def grown(current: float, emission: float) -> float:
        growth = (ratio - 1) * p["eg"] / (emission * thermal) + p["xti"] / emission * math.log(ratio)
        if growth > MOST_GROWTH:
            raise model.line.error(f"the saturation current is not finite at {celsius:g} degrees Celsius")
        return current * math.exp(growth)

    usual = celsius == model.nominal == NOMINAL
    saturation = (p["is"] if usual else grown(p["is"], p["n"])) * size
    emission = p["n"] if usual else p["n"] * warmth
    resistance = p["rs"] * (1 + p["trs1"] * (hot - cold) + p["trs2"] * (hot - cold) ** 2) / size if p["rs"] else 0.0
    if resistance < 0:
        raise model.line.error(f"RS must not be negative, but is at {celsius:g} degrees Celsius")
    capacitance = p["cjo"] * size
    if not (p["bv"] or p["ikf"] or p["isr"]):
        return DiodeValues((saturation, emission), resistance, capacitance)
    steep = p["n"] if math.isnan(p["nbv"]) or not p["bv"] else p["nbv"]
    knee = 0.0
    if p["bv"]:
        level = p["bv"] - p["tcv"] * (hot - cold)
        if not level > 0:
            raise model.line.error(f"BV must be positive, but is {level:g} V at {celsius:g} degrees Celsius")
        knee = breakdown_knee(level, count * p["ibv"], saturation, steep, thermal)
        if not 0 < knee < math.inf:
            raise model.line.error(f"BV and IBV do not fit IS at {celsius:g} degrees Celsius")
    return DiodeValues(
        (
            saturation,
            emission,
            knee,
            steep * warmth,
            p["ikf"] * size,
            (grown(p["isr"], p["nr"]) if not usual else p["isr"]) * size if p["isr"] else 0.0,
            *((p["nr"] * warmth, *_junction(p, hot, cold)) if p["isr"] else UNUSED),
        ),
        resistance,
        capacitance,
    )


def _junction_potential(potential: float, hot: float, cold: float) -> float:
    """VJ at a temperature, kelvin, of silicon (diotemp.c, level 0 of TLEVC)."""

    def shift(kelvin: float) -> float:
        gap = 1.16 - 7.02e-4 * kelvin**2 / (kelvin + 1108)
        energy = -gap / (2 * BOLTZMANN * kelvin) + 1.1150877 / (2 * BOLTZMANN * TEMPERATURE)
        return -2 * BOLTZMANN * kelvin / CHARGE * (1.5 * math.log(kelvin / TEMPERATURE) + CHARGE * energy)

    return shift(hot) + hot / cold * (potential - shift(cold)) if hot != cold else potential


def _junction(p: dict[str, float], hot: float, cold: float) -> tuple[float, float]:
    """VJ and M at a temperature, as far as ngspice lets them go."""
    grading = min(p["m"] * (1 + p["tm1"] * (hot - cold) + p["tm2"] * (hot - cold) ** 2), STEEPEST)
    most = 1 / min(p["fc"], WIDEST) if p["fc"] else math.inf
    return min(_junction_potential(p["vj"], hot, cold), most), grading


RESISTOR = ("tc1", "tc2", "tce", "r")
"""Parameters of resistor models that are read."""
_IN_SHAPE = ("rsh", "narrow", "short", "defw", "defl", "l", "w")


def resistor_model(line: Line, value: Callable[[str], float]) -> tuple[dict[str, float], float | None]:
    """Values of a resistor model by the names of `RESISTOR`, and its nominal temperature where it names one."""
    given = pairs(line, tokens(line.text)[3:])
    for name in given:
        if name in _IN_SHAPE:
            raise line.error(f"{name.upper()} makes ohms out of lengths, which is not read: write the ohms")
        if name not in (*RESISTOR, "tnom", "tref", "kf", "af", "lf", "wf", "ef", "level", "bv_max"):
            raise line.error(f"resistor models have no {name.upper()} here, but TC1, TC2, TCE, R and TNOM")
    found = {p: line.check(value, given[p]) for p in given if p in RESISTOR}
    nominal = given.get("tnom", given.get("tref"))
    return found, None if nominal is None else line.check(value, nominal)


def warmed(value: float, change: float, first: float, second: float, exponential: float | None) -> float:
    """A value at another temperature: (1 + tc1 dt + tc2 dt^2), or 1.01^(tce dt), times itself.

    Parameters
    ----------
    value : float
    change : float
        dt, kelvin.
    first, second : float
        tc1 and tc2.
    exponential : float or None
        tce, which counts before the others.

    Raises
    ------
    InputError
        If the value is not finite.
    """
    try:
        factor = 1 + first * change + second * change**2 if exponential is None else 1.01 ** (exponential * change)
    except OverflowError:
        factor = math.inf
    if not math.isfinite(value):
        raise InputError(f"the value must be finite, but was {value:g}")
    if not math.isfinite(value * factor):
        raise InputError(f"the value is not finite {change:+g} degrees from its nominal temperature")
    return value * factor
