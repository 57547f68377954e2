"""Devices and their imperfections: what a cell, a converter or an amplifier does to a number.

Start with `model`: `DeviceModel`, one field an imperfection, and `presets`, published devices by name. `fields`
says what each field may hold; `crossbars`, `wires` and `pulses` apply them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .fields import DeviceField as DeviceField
    from .model import DeviceModel as DeviceModel
    from .presets import preset as preset
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "DeviceField": "fields",
            "DeviceModel": "model",
            "preset": "presets",
        },
    )
