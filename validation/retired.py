"""Tables of the release before, which fields of devices hold today (`physics_ep.moved`)."""

from __future__ import annotations

from hardware_models.devices.model import FIELDS

NEEDED = {name: told.needed for name, told in FIELDS.items() if told.needs}
DETERMINISTIC = tuple(name for name, told in FIELDS.items() if told.errs and not told.drawn)
