"""What a figure calls the fields of devices: as the substrate that was swept declares them."""

from __future__ import annotations

from collections.abc import Iterable

from hardware_models.devices.fields import DeviceField, fields_of
from hardware_models.devices.model import find_field
from hardware_models.mapping.mapped import SUBSTRATES, substrate_class
from physics_ep.registry import substrates


def field_told(name: str, swept: Iterable[str]) -> DeviceField | None:
    """What a field says of itself in the devices of the substrates that were swept; None where none has it.

    The classes of these substrates go first, which are imported for that; where no package has such a substrate,
    any class that is there (`find_field`).
    """
    known = {**SUBSTRATES, **substrates()}
    for substrate in swept:
        own = fields_of(substrate_class(substrate).device_class) if substrate in known else {}
        if name in own:
            return own[name]
    return find_field(name)
