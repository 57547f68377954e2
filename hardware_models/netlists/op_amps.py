"""Operational amplifiers of finite gain and bandwidth, as parts: one pole, and an output resistance.

The stage with the pole is a transconductance into a resistor and a capacitor, the core of the macromodel of Boyle,
Cohn, Pederson and Solomon (1974, IEEE Journal of Solid-State Circuits 9, 353); a source of gain 1 stands between it
and the output resistance. From input to output the gain is

    A(s) = A0 / (1 + s / w_b),    w_b = 2 pi GBW / A0

(Sedra and Smith, Microelectronic Circuits, 7th edition, equation 2.28), with GBW the product of gain and bandwidth,
hertz, where the gain is 1. The voltage of the capacitor is the amplifier's state in time; at an operating point the
amplifier is a voltage source of A0 times its input, behind the output resistance.
"""

from __future__ import annotations

import math

from physics_ep.errors import argument_error

from .lines import Line, NetlistSection
from .parts import GROUND, Part

TRANSCONDUCTANCE = 1e-3
"""Siemens of the stage with the pole."""
NAME = "op_amp"
"""Subcircuit of netlists: NAME PLUS MINUS OUT op_amp gain= gain_bandwidth= output_resistance=."""


def op_amp(
    name: str,
    plus: str,
    minus: str,
    output: str,
    *,
    gain: float = 1e5,
    gain_bandwidth: float = 1e6,
    output_resistance: float = 0.0,
) -> list[Part]:
    """Parts of an operational amplifier: `Circuit(Parts.collect([*op_amp("U1", "a", "b", "out"), ...]))`.

    Parameters
    ----------
    name : str
        Beginning of the names of its parts and inner nodes.
    plus, minus, output : str
        Nodes: inputs, which draw no current, and the output.
    gain : float
        A0, positive.
    gain_bandwidth : float
        Hertz at which the gain has fallen to 1.
    output_resistance : float
        Ohm; 0 for none.

    Returns
    -------
    list of Part
        G{name}_pole, R{name}_pole, C{name}_pole, E{name}_out, and R{name}_out where there is a resistance. The gain
        is the transconductance of the first over the conductance of the second.

    Raises
    ------
    InputError
        If a value is not as above.
    """
    for what, value in (("gain", gain), ("gain_bandwidth", gain_bandwidth)):
        if not 0 < value < math.inf:
            raise argument_error(f"{what} of op_amp {name!r}", "be positive and finite", value)
    if not 0 <= output_resistance < math.inf:
        must = "be finite and not negative"
        raise argument_error(f"output_resistance of op_amp {name!r}", must, output_resistance)
    pole = f"{name}.pole"
    inner = f"{name}.inner" if output_resistance else output
    parts = [
        Part(f"G{name}_pole", "vccs", (GROUND, pole, plus, minus), (TRANSCONDUCTANCE,)),
        Part(f"R{name}_pole", "resistor", (pole, GROUND), (TRANSCONDUCTANCE / gain,)),
        Part(f"C{name}_pole", "capacitor", (pole, GROUND), (TRANSCONDUCTANCE / (2 * math.pi * gain_bandwidth),)),
        Part(f"E{name}_out", "vcvs", (inner, GROUND, pole, GROUND), (1.0,)),
    ]
    if output_resistance:
        parts.append(Part(f"R{name}_out", "resistor", (inner, output), (1 / output_resistance,)))
    return parts


_ELEMENTS = (
    f"Gpole 0 pole plus minus {TRANSCONDUCTANCE!r}",
    f"Rpole pole 0 {{gain/{TRANSCONDUCTANCE!r}}}",
    f"Cpole pole 0 {{{TRANSCONDUCTANCE / (2 * math.pi)!r}/gain_bandwidth}}",
    "Eout inner 0 pole 0 1",
    "Rout inner out {output_resistance}",
)
_PARAMETERS = {"gain": "1e5", "gain_bandwidth": "1e6", "output_resistance": "75"}
_PORTS = ("plus", "minus", "out")


def section() -> NetlistSection:
    """Text of the subcircuit `op_amp`, which netlists of ours use without defining it."""
    return NetlistSection(
        elements=[Line(text, k, f"subcircuit {NAME}") for k, text in enumerate(_ELEMENTS, 1)],
        parameters=dict(_PARAMETERS),
        ports=_PORTS,
    )


def definition() -> list[str]:
    """Lines that define the subcircuit `op_amp` for ngspice."""
    given = " ".join(f"{name}={value}" for name, value in _PARAMETERS.items())
    return [f".subckt {NAME} {' '.join(_PORTS)} {given}", *_ELEMENTS, f".ends {NAME}"]
