"""Tables of the release before, which fields of devices hold today (`physics_ep.moved`)."""

from __future__ import annotations

from hardware_models.devices.model import FIELDS

NAMES = {name: told.axis for name, told in FIELDS.items() if told.errs}
SHORT = {name: told.short or name.replace("_", " ") for name, told in FIELDS.items() if told.errs}
