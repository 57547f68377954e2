"""Memristors with a state that moves in time: their values, what is allowed of them, and their form in netlists.

Each is a resistor of R(s) = R_on s + R_off (1 - s), with the share s of the conducting region as its state, 0 to 1
(`hardware_models.nodal.memristors` has the laws and their sources). For direct current the state stays where it is.
In netlists each kind is a subcircuit of two nodes; the file needs no definition of it here, and the writer's
definition lets ngspice follow the same equations: a capacitor of 1 F holds the state, which an operating point, at
time 0, leaves at its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_RANGE = (("on resistance", "ohm", 0.0), ("off resistance", "ohm", 0.0))
_STATE = (("window exponent", "", 0.0), ("state", "", -1e-300))
_DRIFT = (*_RANGE, ("mobility", "m^2/(V s)", 0.0), ("length", "m", 0.0), *_STATE)
_THRESHOLD = (
    *_RANGE,
    ("on threshold", "V", None),
    ("off threshold", "V", 0.0),
    ("on rate", "m/s", None),
    ("off rate", "m/s", 0.0),
    ("on exponent", "", 0.0),
    ("off exponent", "", 0.0),
    ("length", "m", 0.0),
    *_STATE,
)
VALUES = {
    "linear_drift_memristor": _DRIFT,
    "biolek_memristor": _DRIFT,
    "vteam_memristor": _THRESHOLD,
}
"""Values of each kind: name, unit, and what each must exceed."""


class MemristorForm(NamedTuple):
    """How a kind stands in netlists.

    Attributes
    ----------
    parameters : dict of str to str
        Parameters of the subcircuit in the order of the kind's values, and their defaults.
    motion : str
        ds/dt in ngspice's language.
    """

    parameters: dict[str, str]
    motion: str

    def definition(self, kind: str) -> str:
        """The subcircuit for ngspice, which drops braces in expressions, so that these have parentheses, too."""
        given = " ".join(f"{name}={default}" for name, default in self.parameters.items())
        return "\n".join(
            (
                f".subckt {kind} plus minus {given}",
                "B1 plus minus I=v(plus,minus)/({ron}*v(s)+{roff}*(1-v(s)))",
                f"B2 0 s I=time>0 ? {self.motion} : {{state}}-v(s)",
                "C1 s 0 1 IC={state}",
                f".ends {kind}",
            )
        )


_CURRENT = "(v(plus,minus)/({ron}*v(s)+{roff}*(1-v(s))))"
_DRIFTED = {"ron": "100", "roff": "16k", "mobility": "1e-14", "length": "10n", "exponent": "1", "state": "0.5"}
_THRESHOLDS = {
    **{"ron": "100", "roff": "16k", "v_on": "-0.2", "v_off": "0.2", "k_on": "-1u", "k_off": "1u"},
    **{"alpha_on": "1", "alpha_off": "1", "length": "10n", "exponent": "2", "state": "0.5"},
}
FORMS = {
    "linear_drift_memristor": MemristorForm(
        _DRIFTED, "({mobility*ron/length/length})*" + _CURRENT + "*max(1-abs(2*v(s)-1)^({2*exponent}),0)"
    ),
    "biolek_memristor": MemristorForm(
        _DRIFTED,
        "({mobility*ron/length/length})*"
        + _CURRENT
        + "*(1-(v(plus,minus)>=0 ? abs(v(s))^({2*exponent}) : abs(v(s)-1)^({2*exponent})))",
    ),
    "vteam_memristor": MemristorForm(
        _THRESHOLDS,
        "({-k_on/length})*max(v(plus,minus)/({v_on})-1,0)^({alpha_on})*(1-abs(v(s))^({2*exponent}))"
        "-({k_off/length})*max(v(plus,minus)/({v_off})-1,0)^({alpha_off})*(1-abs(v(s)-1)^({2*exponent}))",
    ),
}
"""Subcircuits of netlists by kind."""
STATEFUL = tuple(VALUES)
"""Kinds of memristors whose state moves in time."""


def fault(kind: str, values: Sequence[float]) -> tuple[str, str, float] | None:
    """What is wrong with values that are finite and exceed their least ones: name, what it must be, what it was."""
    given = dict(zip((name for name, _, _ in VALUES[kind]), values, strict=True))
    if not given["off resistance"] > given["on resistance"]:
        must = f"exceed the on resistance of {given['on resistance']:g} ohm"
        return "off resistance", must, given["off resistance"]
    if given["state"] > 1:
        return "state", "be within 0 and 1", given["state"]
    for name in ("on threshold", "on rate"):
        if not given.get(name, -1.0) < 0:
            return name, "be negative", given[name]
    return None
