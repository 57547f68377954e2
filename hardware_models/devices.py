"""Devices: what cells, amplifiers and converters can hold and how far they err, as numbers.

A `DeviceModel` says how a technology is; with a seed it is an instance, whose cells `crossbars` draws. Conductances
are in siemens, times in seconds, voltages in volts. Noises, offsets and ranges of activities are in units of a
layer's full scale: the largest |activity| of its free phase on calibration inputs.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.files import check_output, replacing

from .device_fields import RULES, parse_field, rule_of

__all__ = ["DeviceModel", "chosen_device", "parse_field", "preset"]


@dataclass(frozen=True, kw_only=True)
class DeviceModel:
    """A technology. Without arguments it is ideal: continuous cells, no noise, perfect amplifiers, no converters.

    Attributes
    ----------
    g_min, g_max : float
        Range of a cell's conductance, S.
    levels : int or None
        Conductance levels of a cell, its ends among them. None: continuous.
    spacing : {'linear', 'log'}
        Of the levels: equal steps, or equal ratios.
    programming_noise : float
        Standard deviation of the programmed conductance as a fraction of g_max - g_min, drawn once a cell.
    device_mismatch : float
        Standard deviation of the logarithm of a cell's gain factor, drawn once a cell.
    stuck_off, stuck_on : float
        Fraction of cells that stay at g_min, g_max whatever is written. They drift as others do.
    drift_exponent, drift_spread : float
        Mean of nu, and its standard deviation from cell to cell (normal): G(t) = G (t / t0)^-nu (Le Gallo et al.
        2018, Adv. Electron. Mater. 4:1700627; Joshi et al. 2020, Nat. Commun. 11:2473).
    drift_time, drift_reference : float
        t, the time since programming, and t0, that at which the programmed conductance was read, s. Up to t0
        nothing has drifted.
    copy_mismatch_h, copy_mismatch_u, copy_mismatch_transpose : float
        Relative standard deviation of the cells of the copy of an array that drives h, that drives u, and that
        feeds errors back.
    conductance_noise : float
        Relative standard deviation of a cell from phase to phase; separate copies of an array have their own.
    read_noise : float
        Standard deviation of a reading of a state, in full scales, drawn anew each phase.
    amplifier_gain, amplifier_offset : float
        Standard deviation of an amplifier's relative gain error, and of its input-referred offset in full scales.
        Those of h and u are different ones.
    amplifier_saturation : float or None
        Largest |output|, in full scales. None: none.
    time_constant : float
        Of h, s.
    time_constant_mismatch : float
        (tau_u - tau_h) / tau_h.
    dac_bits, adc_bits : int or None
        Of the converters of inputs, and of readings of activities and errors. None: no converter.
    dac_range, adc_range : float or None
        In full scales. None: as large as the largest value to be converted.
    wire_resistance : float
        Between neighbouring cells of a tile's row or column, ohm.
    temperature, averaging_time : float
        Of the resistors, K (0: no thermal noise); time over which a phase's readings are averaged, s.
    amplifier_lag, amplifier_lag_mismatch : float
        Time constant of amplifiers of h over that of nodes (0: infinite bandwidth), and (lag_u - lag_h) / lag_h.
    amplifier_gain_limit : float or None
        Largest gain of the rails of a resistive network.
    leaks : {'trimmed', 'dummy', 'fixed'}
        How its nodes are completed to equal conductances: see `resistive_mapping`.
    diode_current : float or None
        Saturation current Is of a diode, A. None: ideal diodes.
    diode_ideality : float
        Emission coefficient n.
    diode_mismatch, ideality_mismatch : float
        Standard deviation of log Is, and relative one of n, from diode to diode.
    detuning : float
        Standard deviation of natural frequencies of oscillators, in units of the coupling rate at full scale.
    phase_noise : float
        Diffusion of a free oscillator's phase, rad^2/s.
    oscillator_headroom : float
        Upper end of the range of an oscillator pair, in full scales.
    oscillator_frequency, oscillator_power : float
        Hz, for the record: phases are those in a frame that turns with it; and W an oscillator.
    pulses : int or None
        That take a cell from g_min to g_max. None: one moves a cell by a level, or without levels as far as asked.
    pulse_nonlinearity_up, pulse_nonlinearity_down : float
        nu of G(n) = g_min + (g_max - g_min) (1 - e^(-nu n / pulses)) / (1 - e^-nu), and of its mirror image.
    pulse_asymmetry : float
        Ratio of a step down to a step up at mid range, less 1.
    pulse_noise : float
        Standard deviation of one pulse's step from cycle to cycle, as a fraction of g_max - g_min.
    pulse_spread : float
        Relative standard deviation of step sizes from cell to cell.
    voltage : float
        Of one full scale, V.
    amplifier_power : float
        Static, W an amplifier.
    tile_rows, tile_columns : int
        Of a crossbar, in cells.
    source : str
        Where the values are from.

    Raises
    ------
    InputError
        Naming the field, what it must be, and what it was.
    """

    g_min: float = 1e-6
    g_max: float = 1e-4
    levels: int | None = None
    spacing: str = "linear"
    programming_noise: float = 0.0
    device_mismatch: float = 0.0
    stuck_off: float = 0.0
    stuck_on: float = 0.0
    drift_exponent: float = 0.0
    drift_spread: float = 0.0
    drift_time: float = 0.0
    drift_reference: float = 20.0
    copy_mismatch_h: float = 0.0
    copy_mismatch_u: float = 0.0
    copy_mismatch_transpose: float = 0.0
    conductance_noise: float = 0.0
    read_noise: float = 0.0
    amplifier_gain: float = 0.0
    amplifier_offset: float = 0.0
    amplifier_saturation: float | None = None
    time_constant: float = 1e-6
    time_constant_mismatch: float = 0.0
    dac_bits: int | None = None
    dac_range: float | None = None
    adc_bits: int | None = None
    adc_range: float | None = None
    wire_resistance: float = 0.0
    temperature: float = 0.0
    averaging_time: float = 1e-5
    amplifier_lag: float = 0.0
    amplifier_lag_mismatch: float = 0.0
    amplifier_gain_limit: float | None = None
    leaks: str = "trimmed"
    diode_current: float | None = None
    diode_ideality: float = 1.0
    diode_mismatch: float = 0.0
    ideality_mismatch: float = 0.0
    detuning: float = 0.0
    phase_noise: float = 0.0
    oscillator_headroom: float = 2.0
    oscillator_frequency: float = 1e9
    oscillator_power: float = 0.0
    pulses: int | None = None
    pulse_nonlinearity_up: float = 0.0
    pulse_nonlinearity_down: float = 0.0
    pulse_asymmetry: float = 0.0
    pulse_noise: float = 0.0
    pulse_spread: float = 0.0
    voltage: float = 0.2
    amplifier_power: float = 0.0
    tile_rows: int = 256
    tile_columns: int = 256
    source: str = ""

    def __post_init__(self) -> None:
        for name, rule in RULES.items():
            object.__setattr__(self, name, rule.checked(name, getattr(self, name)))
        if self.g_max <= self.g_min:
            raise argument_error("g_max", f"be larger than g_min = {self.g_min:g}", self.g_max)
        if self.spacing == "log" and self.g_min == 0:
            raise argument_error("g_min", "be positive where spacing is 'log'", self.g_min)
        if self.stuck_off + self.stuck_on > 1:
            raise argument_error("stuck_on", f"be at most 1 - stuck_off = {1 - self.stuck_off:g}", self.stuck_on)

    @property
    def drifted(self) -> bool:
        """Whether cells have drifted since they were programmed."""
        return self.drift_time > self.drift_reference and (self.drift_exponent != 0 or self.drift_spread != 0)

    @property
    def ideal(self) -> bool:
        """Whether nothing errs while it holds a network: the other fields then say only what it takes, and how its
        cells learn."""
        ideal = DeviceModel()
        return not self.drifted and all(getattr(self, name) == getattr(ideal, name) for name in IMPERFECTIONS)

    def replace(self, **fields: Any) -> DeviceModel:
        """The same device with other values of some fields.

        Raises
        ------
        InputError
            Of an unknown field, with the nearest right name; or of a value that is none.
        """
        for name in fields:
            rule_of(name)
        return dataclasses.replace(self, **fields)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """All fields as JSON; written to a file if there is a path.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"
        if path is not None:
            check_output(path, "path")
            try:
                with replacing(path) as temporary:
                    temporary.write_text(text, encoding="utf-8")
            except OSError as error:
                raise InputError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error
        return text

    @classmethod
    def from_json(cls, source: str | os.PathLike[str]) -> DeviceModel:
        """Read a device; fields that are not there have their defaults.

        Parameters
        ----------
        source : path or str
            A file, or the JSON text itself, which begins with a brace.

        Raises
        ------
        InputError
            If there is no such file, it is no JSON object, or a field is unknown or none.
        """
        text, where = source, "the JSON text"
        if not (isinstance(source, str) and source.lstrip().startswith("{")):
            path = Path(source)
            where = repr(str(path))
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else "not a text file"
                raise argument_error(
                    "path", "be a JSON file of a device that can be read", f"{where} ({why})"
                ) from None
        try:
            found = json.loads(str(text))
        except (ValueError, RecursionError) as error:
            raise argument_error("path", "hold a device as JSON", f"{where} ({error})") from None
        if not isinstance(found, dict):
            raise argument_error(
                "path", "hold a JSON object of a device's fields", f"{where}: {type(found).__name__}"
            )
        for name in found:
            rule_of(name)
        return cls(**found)


COMMON = (
    "levels",
    "programming_noise",
    "device_mismatch",
    "stuck_off",
    "stuck_on",
    "copy_mismatch_h",
    "copy_mismatch_u",
    "copy_mismatch_transpose",
    "conductance_noise",
    "read_noise",
    "time_constant_mismatch",
    "dac_bits",
    "adc_bits",
    "wire_resistance",
)
"""Fields that make the cells of any substrate err, and what reads them, drift apart."""
AMPLIFIERS = (
    "amplifier_gain",
    "amplifier_offset",
    "amplifier_saturation",
    "amplifier_lag",
    "amplifier_lag_mismatch",
)
RESISTORS = ("temperature",)
DIODES = ("diode_current", "diode_ideality", "diode_mismatch", "ideality_mismatch")
RAILS = ("amplifier_gain_limit", "leaks")
OSCILLATORS = ("detuning", "phase_noise")
IMPERFECTIONS = (*COMMON, *AMPLIFIERS, *RESISTORS, *DIODES, *RAILS, *OSCILLATORS)
"""Fields that make a device err while it holds a network, or bound what it can hold, drift apart; others only say
how large an error is, what it takes, or how it learns."""
PULSES = (
    "pulses",
    "pulse_nonlinearity_up",
    "pulse_nonlinearity_down",
    "pulse_asymmetry",
    "pulse_noise",
    "pulse_spread",
)
"""Fields that act while cells learn, and not on what they hold."""


def preset(name: str) -> DeviceModel:
    """A published technology.

    Parameters
    ----------
    name : str
        One of `device_presets.PRESETS`.

    Raises
    ------
    InputError
        With the nearest right name.
    """
    from .device_presets import PRESETS

    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]


def chosen_device(name: str | None, path: str | os.PathLike[str] | None) -> DeviceModel:
    """The device that a command's options ask for: a preset, or a JSON file, or neither (ideal).

    Raises
    ------
    InputError
        If both are given, or what is given is none.
    """
    if name is not None and path is not None:
        raise argument_error("device-model", "be left out where preset is given", repr(str(path)))
    if path is not None:
        return DeviceModel.from_json(path)
    return DeviceModel() if name is None else preset(name)
