"""Options of netlists: which of them change a circuit, which only say how it is solved or shown."""

from __future__ import annotations

from .lines import Line, NetlistFile
from .values import Scope

CHANGING = ("temp", "tnom", "rshunt", "cshunt", "gmin")
"""Options that change a circuit, and are followed."""
NEUTRAL = {
    *("abstol", "reltol", "vntol", "chgtol", "trtol", "pivtol", "pivrel", "itl1", "itl2", "itl3", "itl4", "itl5"),
    *("itl6", "srcsteps", "gminsteps", "gminfactor", "noopiter", "dyngmin", "method", "maxord", "xmu", "minbreak"),
    *("bypass", "oldlimit", "trytocompact", "nodedamping", "absdv", "reldv", "noopac", "copynodesets"),
    *("indverbosity", "lvlim", "cptime", "limpts", "limtim", "lvltim", "maxopalter", "maxevtiter", "noopalter"),
    *("convlimit", "convstep", "convabsstep", "autopartial", "warn", "maxwarns", "numdgt", "acct", "noacct"),
    *("noinit", "list", "nomod", "nopage", "node", "norefvalue", "opts", "savecurrents", "keepopinfo", "interp"),
    *("seed", "seedinfo", "autostop", "klu", "sparse", "post", "probe", "ingold", "brief", "nopost", "plotwinsize"),
    *("filetype", "maxstep", "measdgt", "fastaccess", "nomarch", "meascplxfmt", "maxclocks", "minclocks"),
    *("startclocks", "ptranmax", "ptrantau", "baudrate", "flagloads", "topologycheck"),
    *("defad", "defas", "defl", "defw", "defm", "badmos3", "strict_errorhandling", "topologicallyfullnodes"),
}
"""Options that leave a circuit as it is: tolerances, methods, output, defaults of transistors."""
LEAST_GMIN = 1e-18
"""Siemens: a smaller gmin asks for none, as netlists for comparison do."""


def circuit_options(source: NetlistFile, scope: Scope) -> dict[str, tuple[float, Line]]:
    """Values of the options that change the circuit, with their lines.

    .temp counts before temp of .options, as in ngspice.

    Raises
    ------
    InputError
        If an option is not known or is set to two values, or its value cannot be had or makes no sense.
    """
    found: dict[str, tuple[float, Line]] = {}
    for name, text, line in source.options:
        if name in NEUTRAL:
            continue
        if not line.text.startswith("."):
            raise line.error("options that change the circuit are not followed in .control: give them by .options")
        if name not in CHANGING:
            raise line.error(f"option {name!r} is not known here, and may change the circuit: leave it out")
        if text is None:
            raise line.error(f"option {name} must have a value: {name}=VALUE")
        value = line.check(scope.value, text)
        if name in ("temp", "tnom"):
            if not value > -273.15:
                raise line.error(f"{name} must be above -273.15 degrees Celsius, but was {value:g}")
        elif not (value > 0 or (name == "gmin" and value == 0)):
            raise line.error(f"{name} must be positive, but was {value:g}")
        _set(found, name, value, line)
    hot: dict[str, tuple[float, Line]] = {}
    for text, line in source.temperatures:
        value = line.check(scope.value, text)
        if not value > -273.15:
            raise line.error(f"the temperature must be above -273.15 degrees Celsius, but was {value:g}")
        _set(hot, "temp", value, line)
    return {**found, **hot}


def _set(found: dict[str, tuple[float, Line]], name: str, value: float, line: Line) -> None:
    if name in found and found[name][0] != value:
        raise line.error(f"{name} is set twice, to {found[name][0]:g} and to {value:g}")
    found[name] = value, line
