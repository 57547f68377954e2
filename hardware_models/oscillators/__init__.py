"""Coupled phase oscillators: layered networks, graphs, and oscillator Ising machines.

Start with `network`: `OscillatorNetwork`. `graph` holds `OscillatorGraph`, any graph of oscillators; `base` what
both share, `locking` closed forms, `mirror_pairs` the pairs that hold values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .graph import OscillatorGraph as OscillatorGraph
    from .network import OscillatorNetwork as OscillatorNetwork, ising_oscillator as ising_oscillator
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "OscillatorGraph": "graph",
            "OscillatorNetwork": "network",
            "ising_oscillator": "network",
        },
    )
