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

__all__ = ["PRESETS", "DeviceModel", "chosen_device", "parse_field", "preset"]


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
        """Whether nothing errs: the other fields then say only what it takes."""
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


IMPERFECTIONS = (
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
    "amplifier_gain",
    "amplifier_offset",
    "amplifier_saturation",
    "time_constant_mismatch",
    "dac_bits",
    "adc_bits",
)
"""Fields that make a device err, drift apart."""


# -- presets ----------------------------------------------------------------------------------------------------

# What publications say of cells, converters and amplifiers; what is our estimate is called so. The rest is perfect
# or at its default, above all copies of an array and the mismatch of time constants, since none of these circuits
# has paired units: sweep those. Drift is off until drift_time is set.

RERAM = DeviceModel(
    # The 1T1R cells of NeuRRAM: analogue between 1 and 40 uS by write and verify (Wan et al.).
    g_min=1e-6,
    g_max=4e-5,
    # Relaxation a second after programming: 2.0 and 2.4 uS at mid range by the fits of their extended data figure 3
    # in AIHWKIT and CrossSim, 1.1 and 1.7 uS at g_max, less at g_min; here one value serves all conductances.
    programming_noise=0.05,
    # Short-term noise "about 1 %" in AIHWKIT's model of this chip.
    conductance_noise=0.01,
    # Inputs are applied bit by bit, as many as the network needs: 4 are an estimate.
    dac_bits=4,
    # Sign and 7 bits of charge decrements, in the chip's published control code.
    adc_bits=8,
    # At which cells are verified (1.0 V against 0.9 V) in that code; products are calibrated layer by layer.
    voltage=0.1,
    # Cells of a core.
    tile_rows=256,
    tile_columns=256,
    source="Wan et al. 2022, Nature 608:504; fits: AIHWKIT (ReRamWan2022NoiseModel), CrossSim (RRAM_Wan)",
)

PCM = DeviceModel(
    # G_max of the differential pairs of Joshi et al., whose other cell is reset; CrossSim suggests 1/100 for that.
    g_min=2.5e-7,
    g_max=2.5e-5,
    # Median of 11 levels 0.94 uS, below 1.2 uS for all (near reset 0.3 uS by CrossSim's fit); here one value serves
    # all conductances.
    programming_noise=0.038,
    # Mean exponent of Joshi et al.; its spread is 0.008 (at g_max) to 0.045 in the fit of Nandakumar et al., 0.02
    # an estimate between. The first reading was 27.4 s after programming. A day: drift_time = 86400.
    drift_exponent=0.06,
    drift_spread=0.02,
    drift_reference=27.4,
    # 1/f noise with the fit's Q = 0.0088 at g_max, between 250 ns and 0.1 ms: an estimate, as phases are our own.
    # Cells of small conductance are noisier: Q grows as G^-0.65.
    conductance_noise=0.02,
    # Joshi et al. find 8 bits enough; they computed in software with the conductances that they had read.
    dac_bits=8,
    adc_bits=8,
    # Estimate: low enough not to disturb cells.
    voltage=0.2,
    # Of the group's later core (Khaddam-Aljameh et al. 2022, IEEE J. Solid-State Circuits 57:1027).
    tile_rows=256,
    tile_columns=256,
    source="Joshi et al. 2020, Nat. Commun. 11:2473; Nandakumar et al. 2019, ICECS 727 (fits, in AIHWKIT)",
)

SRAM = DeviceModel(
    # Charge-domain: a bit drives a 1.2 fF metal capacitor on a shared line (Valavi et al.). Switched f times a
    # second it takes the power of a conductance C f; f = 100 MHz is an estimate, and sets the scale of power alone.
    g_min=0.0,
    g_max=1.2e-7,
    # Sign and 7 bits, the most of the 1 to 8 bits of Jia et al.; bits lie in columns of their own there.
    levels=128,
    # Of one such capacitor: an estimate, of the order to which small metal capacitors match.
    device_mismatch=0.01,
    # Inputs of 1 to 8 bits, a bit at a time; an 8-bit successive-approximation converter a column (Jia et al.).
    dac_bits=8,
    adc_bits=8,
    # The higher of their two supplies.
    voltage=1.2,
    # A period of the clock: an estimate.
    time_constant=1e-8,
    # Largest product: 2304 inputs, 256 columns (Jia et al.).
    tile_rows=2304,
    tile_columns=256,
    source="Valavi et al. 2019, IEEE J. Solid-State Circuits 54:1789; Jia et al. 2020, ibid. 55:2609",
)

OP_AMP = DeviceModel(
    # Board of parts: digital potentiometers of 128 positions and 100 kohm (AD5220), as in the learning networks of
    # Dillavou et al. There they are rheostats, with conductances as 1 / position. Here they divide the voltage that
    # drives a fixed 100 kohm: effective conductance 0 to 10 uS, linear in the position.
    g_min=0.0,
    g_max=1e-5,
    levels=128,
    # All further values are estimates from what such parts usually have. Nonlinearity of a divider: below half a
    # step, 1 / 127 of the range.
    programming_noise=0.002,
    # Summing resistors of 1 % tolerance, taken as two standard deviations; so are the feedback resistors.
    device_mismatch=0.005,
    amplifier_gain=0.005,
    # Offset of a JFET op-amp, 3 mV, on a full scale of 1 V; saturation at rails of 2.5 V.
    amplifier_offset=0.003,
    amplifier_saturation=2.5,
    voltage=1.0,
    # Noise of an acquisition card, with its converters.
    read_noise=0.001,
    dac_bits=12,
    adc_bits=12,
    dac_range=2.5,
    adc_range=2.5,
    # 100 kohm and 100 pF.
    time_constant=1e-5,
    # 1 mA from 5 V.
    amplifier_power=5e-3,
    # A board: some tens of nodes.
    tile_rows=32,
    tile_columns=32,
    source="Dillavou et al. 2022, Phys. Rev. Applied 18:014040 (potentiometers); the rest is estimated",
)

PRESETS: dict[str, DeviceModel] = {"reram": RERAM, "pcm": PCM, "sram": SRAM, "op-amp": OP_AMP}


def preset(name: str) -> DeviceModel:
    """A published technology.

    Parameters
    ----------
    name : str
        One of `PRESETS`.

    Raises
    ------
    InputError
        With the nearest right name.
    """
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
