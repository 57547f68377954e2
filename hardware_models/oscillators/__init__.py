"""Coupled phase oscillators: layered networks, graphs, and oscillator Ising machines.

Start with `network`: `OscillatorNetwork`. `graph` holds `OscillatorGraph`, any graph of oscillators; `base` what
both share, `locking` closed forms, `mirror_pairs` the pairs that hold values, `directed` those whose couplings pass
one way, with lags and trained frequencies. `max_cut` seeks largest cuts, `vortices` counts those of lattices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .directed import DirectedOscillators as DirectedOscillators, directed_oscillators as directed_oscillators
    from .graph import OscillatorGraph as OscillatorGraph
    from .network import OscillatorNetwork as OscillatorNetwork, ising_oscillator as ising_oscillator
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "DirectedOscillators": "directed",
            "directed_oscillators": "directed",
            "OscillatorGraph": "graph",
            "OscillatorNetwork": "network",
            "ising_oscillator": "network",
        },
    )
