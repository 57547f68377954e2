"""Figures of oscillators and excitable media: phases, landscapes, locking, gradients, pulses.

Start with `phases`, which draws phases on the circle as they settle, free and nudged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .gradients import (
        OscillatorErrors as OscillatorErrors,
        SwitchCurve as SwitchCurve,
        branch_switches as branch_switches,
        draw_oscillator_errors as draw_oscillator_errors,
        draw_switches as draw_switches,
        oscillator_errors as oscillator_errors,
    )
    from .locking import Locking as Locking, draw_locking as draw_locking, locking_curves as locking_curves
    from .media import Medium as Medium, draw_medium as draw_medium, medium as medium
    from .pair import OscillatorPair as OscillatorPair, draw_pair as draw_pair, pair_landscapes as pair_landscapes
    from .phases import (
        PhasesOnCircle as PhasesOnCircle,
        draw_phases as draw_phases,
        phases_on_circle as phases_on_circle,
    )
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "Locking": "locking",
            "Medium": "media",
            "OscillatorErrors": "gradients",
            "OscillatorPair": "pair",
            "PhasesOnCircle": "phases",
            "SwitchCurve": "gradients",
            "branch_switches": "gradients",
            "draw_locking": "locking",
            "draw_medium": "media",
            "draw_oscillator_errors": "gradients",
            "draw_pair": "pair",
            "draw_phases": "phases",
            "draw_switches": "gradients",
            "locking_curves": "locking",
            "medium": "media",
            "oscillator_errors": "gradients",
            "pair_landscapes": "pair",
            "phases_on_circle": "phases",
        },
    )
