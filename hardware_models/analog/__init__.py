"""The analog circuit of Hopfield 1984 in SI units: amplifiers, resistors and capacitors in volts and seconds.

Start with `circuit`: `AnalogHopfieldCircuit` and `analog_hopfield`. `steps` integrates it in compiled code, `power`
tells what its parts draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .circuit import AnalogHopfieldCircuit as AnalogHopfieldCircuit, analog_hopfield as analog_hopfield
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "AnalogHopfieldCircuit": "circuit",
            "analog_hopfield": "circuit",
        },
    )
