"""What a tolerance sweep visits: fields of a device, their values, betas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hardware_models.devices.fields import defaults_of, fields_of
from hardware_models.devices.model import DeviceModel, parse_field, unknown_field
from hardware_models.devices.presets import check_idle
from physics_ep.errors import InputError, argument_error
from physics_ep.estimators.automatic import check_beta

IDEAL, BASE = "ideal", "base"
"""What points without a swept field are called: the device without imperfections, and the one that is varied."""


@dataclass(frozen=True)
class Point:
    """One point of a sweep: a field of the device, its value, and a nudging strength.

    Attributes
    ----------
    field : str
        A field of `DeviceModel`; or 'ideal', 'base'.
    value : number, str or None
        The value that the field has.
    beta : float or 'auto'
    """

    field: str
    value: Any
    beta: float | str


def planned(base: DeviceModel, sweeps: Mapping[str, Sequence[Any]], betas: Sequence[float | str]) -> list[Point]:
    """Points of a sweep in their order: the ideal device, the base unless it is ideal, then field by field.

    Parameters
    ----------
    base : DeviceModel
    sweeps : mapping
        Field to values.
    betas : sequence of float or 'auto'

    Raises
    ------
    InputError
        If a field is unknown, or a value or a beta is not allowed.
    """
    if not betas or isinstance(betas, str):
        raise argument_error("betas", "be one or more numbers or 'auto'", betas or "none")
    strengths: list[float | str] = ["auto" if beta == "auto" else check_beta(beta) for beta in betas]
    # Settings of what is swept wait for their turn: a spacing of levels, say.
    waiting = [name for name in base.idle if set(fields_of(type(base))[name].needed) & set(sweeps)]
    check_idle(base.replace(**{name: defaults_of(type(base))[name] for name in waiting}))
    devices: list[tuple[str, Any]] = [(IDEAL, None)]
    if not base.ideal:
        devices.append((BASE, None))
    for field, values in sweeps.items():
        _check_field(field, base)
        told = fields_of(type(base))[field]
        if told.idle(vars(base), defaults_of(type(base))):
            must = f"come with a device that sets {' or '.join(told.needs)}, without which it does nothing"
            raise argument_error(f"sweeps[{field!r}]", must, "none")
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise argument_error(f"sweeps[{field!r}]", "be one or more values", repr(values))
        # What the device cannot be is refused before work starts; values come back in the field's own type.
        devices.extend((field, getattr(base.replace(**{field: value}), field)) for value in values)
    return list(dict.fromkeys(Point(field, value, beta) for field, value in devices for beta in strengths))


def device_at(base: DeviceModel, point: Point) -> DeviceModel:
    """The device of a point: the base with one field replaced, or the ideal one; without what does nothing then."""
    if point.field == IDEAL:
        return type(base)()
    return (base if point.field == BASE else base.replace(**{point.field: point.value})).without_idle()


def parse_sweeps(texts: Sequence[str], kind: type[DeviceModel] = DeviceModel) -> dict[str, list[Any]]:
    """Sweeps of a command line, FIELD=VALUE,VALUE,...

    Parameters
    ----------
    texts : sequence of str
        Values are spelt as `hardware_models.devices.model.parse_field` has it.
    kind : class of devices
        Class of devices whose fields they are.

    Raises
    ------
    InputError
        If a text has another form, a field is unknown or named twice, or a value cannot be read.
    """
    base = kind()
    found: dict[str, list[Any]] = {}
    for text in texts:
        field, sign, values = text.partition("=")
        field = field.strip()
        if not sign or not all(value.strip() for value in values.split(",")):
            raise argument_error("sweep", "have the form FIELD=VALUE,VALUE,...", repr(text))
        _check_field(field, base)
        if field in found:
            raise InputError(f"Argument sweep must name a field once, but named {field!r} twice.")
        found[field] = [parse_field(field, value.strip(), kind) for value in values.split(",")]
    return found


def parse_betas(text: str) -> list[float | str]:
    """Betas of a command line, separated by commas; 'auto' may be one of them."""
    found: list[float | str] = []
    for part in (piece.strip() for piece in text.split(",")):
        try:
            found.append(part if part == "auto" else check_beta(float(part)))
        except ValueError:
            raise argument_error("beta", "be positive numbers or 'auto', separated by commas", repr(text)) from None
    return found


def _check_field(field: str, base: DeviceModel) -> None:
    fields = fields_of(type(base))
    if field not in fields:
        raise unknown_field("sweep", field, type(base))
    if fields[field].parts == ("description",):
        must = "be of a field on which a gradient depends, not of one that tells what a device takes"
        raise argument_error("sweep", must, repr(field))
