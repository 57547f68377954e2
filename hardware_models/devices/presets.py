"""Published technologies, as devices.

What publications say of cells, converters and amplifiers; what is our estimate is called so. The rest is perfect or
at its default, above all copies of an array and the mismatch of time constants, since none of these circuits has
paired units: sweep those. Drift is off until drift_time is set, and cells bear any voltage until
cell_voltage_limit is set.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from physics_ep.errors import argument_error, unknown_name

from .fields import fields_of
from .model import DeviceModel

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

FEFET = DeviceModel(
    # Ferroelectric transistors of Jerry et al.: on/off ratio 45, on-resistance 559 kohm as NeuroSim has it.
    g_min=4.0e-8,
    g_max=1.8e-6,
    # 5 bits, by pulses of one height and 75 ns.
    levels=32,
    pulses=31,
    # Their nonlinearities 1.75 and 1.46 up and down. That these are nu is an estimate: NeuroSim's labels are on a
    # scale of its own.
    pulse_nonlinearity_up=1.75,
    pulse_nonlinearity_down=1.46,
    # Below 0.5 % from cycle to cycle, in NeuroSim's table.
    pulse_noise=0.005,
    # Estimate: few-domain transistors of this size differ by more than their cycles do.
    pulse_spread=0.1,
    # Estimates, as in any array with read transistors.
    voltage=0.1,
    dac_bits=8,
    adc_bits=8,
    source="Jerry et al. 2017, IEDM 6.2; Chen et al. 2018, IEEE TCAD 37:3067 (NeuroSim); the rest is estimated",
)

RING_OSCILLATOR = DeviceModel(
    # Inverters as couplings: weights are integers from -14 to 14 (Lo et al.). The conductances stand for them, and
    # are so small that the power of couplings is that which was measured with the oscillators.
    g_min=0.0,
    g_max=1e-8,
    levels=15,
    # "Highly uniform" (Lo et al.); how far is an estimate.
    device_mismatch=0.02,
    # The 1,968 oscillators of Moy et al. take 42 mW with their couplings, and settle within 50 cycles, in 50 ns as
    # others quote it: 1 GHz, and time constants of 5 cycles by our estimate.
    oscillator_frequency=1e9,
    oscillator_power=0.042 / 1968,
    time_constant=5e-9,
    # Estimate: frequencies trimmed to 0.03 %, over the coupling rate 1 / time_constant. Untrimmed rings are some
    # per cent apart, and would not lock.
    detuning=0.01,
    # Estimate: -90 dBc/Hz at 1 MHz, usual for small rings; D = (2 pi f)^2 L / 2. Averaged over a thousand cycles.
    phase_noise=2e4,
    averaging_time=1e-6,
    # All-to-all array of Lo et al.
    tile_rows=48,
    tile_columns=48,
    source="Moy et al. 2022, Nat. Electron. 5:310; Lo et al. 2023, ibid. 6:771; the rest is estimated",
)

PRESETS: dict[str, DeviceModel] = {
    "reram": RERAM,
    "pcm": PCM,
    "sram": SRAM,
    "op-amp": OP_AMP,
    "fefet": FEFET,
    "ring-oscillator": RING_OSCILLATOR,
}


def preset(name: str) -> DeviceModel:
    """Return a published technology by its name.

    Parameters
    ----------
    name : str
        One of `PRESETS`.

    Raises
    ------
    InputError
        If there is no preset of that name; the message has the nearest right one.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]


def chosen_device(
    name: str | None,
    path: str | os.PathLike[str] | None,
    kind: type[DeviceModel] = DeviceModel,
    copies: str | None = None,
    transpose: str | None = None,
) -> DeviceModel:
    """The device that a command's options ask for: a preset, or a JSON file, or neither (ideal).

    Parameters
    ----------
    name : str or None
        A preset.
    path : path or None
    kind : class of devices
        What the file holds, and what the ideal device is.
    copies, transpose : str, optional
        Values that replace the fields of these names.

    Raises
    ------
    InputError
        If both are given, or what is given is none.
    """
    if name is not None and path is not None:
        raise argument_error("device-model", "be left out where preset is given", repr(str(path)))
    found = preset(name) if name is not None else kind() if path is None else kind.from_json(path)
    given = {field: v for field, v in (("copies", copies), ("transpose", transpose)) if v is not None}
    return found.replace(**given) if given else found


def given_device(given: DeviceModel | Mapping[str, Any] | str) -> DeviceModel:
    """The device that an argument `device` stands for.

    Parameters
    ----------
    given : DeviceModel, mapping or str
        A device; the name of a preset; or fields of a device, as a config has them, beside the 'preset' that has
        the others.

    Raises
    ------
    InputError
        If it is none of these, or a field is unknown or none.
    """
    if isinstance(given, DeviceModel):
        return given
    if isinstance(given, str):
        if given not in PRESETS:
            if not {"{", "=", ":"} & {*given}:
                raise unknown_name("device", given, PRESETS)
            must = (
                f"be a preset ({', '.join(PRESETS)}) or a table of fields, as --set 'system.device={{levels = 16, "
                "device_mismatch = 0.05}' or --set system.device.levels=16 give it (TOML: words in quotes)"
            )
            near = [name for name in fields_of(DeviceModel) if name in given]
            near += [f"{k} (for {w!r})" for w, k in _nearest(given) if k not in near]
            told = f"; fields: {', '.join(near)}" if near else ""
            raise argument_error("device", must + told, repr(given))
        return PRESETS[given]
    if not isinstance(given, Mapping):
        raise argument_error(
            "device", "be a DeviceModel, a preset's name or a table of fields", type(given).__name__
        )
    fields = dict(given)
    if "preset" not in fields:
        return DeviceModel().replace(**fields)
    name = fields.pop("preset")
    if not isinstance(name, str):
        raise argument_error("device.preset", "be the name of a preset", repr(name))
    return preset(name).replace(**fields)


def _nearest(text: str) -> list[tuple[str, str]]:
    """Words before an equals sign or a colon that are no field, each with the nearest field."""
    known = fields_of(DeviceModel)
    words = [word for word in re.findall(r"(\w+)\s*[=:]", text) if word not in known]
    return [(word, close[0]) for word in words if (close := difflib.get_close_matches(word, known, 1, 0.0))]


def check_idle(device: DeviceModel) -> None:
    """Refuse a device with a field that was set on purpose and does nothing.

    Raises
    ------
    InputError
        With the first that does not, and the fields without which it does nothing.
    """
    for name in undescribed(device, device.idle):
        needs = " or ".join(fields_of(type(device))[name].needs)
        must = f"come with {needs}, without which it does nothing"
        raise argument_error(name, must, repr(getattr(device, name)))


def undescribed(device: DeviceModel, fields: Iterable[str]) -> list[str]:
    """The fields, among some, that somebody has set on purpose.

    A preset is no such choice: it describes a technology, wherever it is used. Fields that stand as in the preset
    of the same `source` are left out.
    """
    described = next((p for p in PRESETS.values() if p.source == device.source), None)
    return [n for n in fields if described is None or getattr(described, n, None) != getattr(device, n)]
