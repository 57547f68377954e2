"""Fields of devices as earlier releases have saved them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

_BEFORE_COPIES = """
    g_min g_max levels spacing programming_noise device_mismatch stuck_off stuck_on drift_exponent drift_spread
    drift_time drift_reference copy_mismatch_h copy_mismatch_u copy_mismatch_transpose conductance_noise
    read_noise amplifier_gain amplifier_offset amplifier_saturation time_constant time_constant_mismatch
    dac_bits dac_range adc_bits adc_range wire_resistance temperature averaging_time amplifier_lag
    amplifier_lag_mismatch amplifier_gain_limit leaks diode_current diode_ideality diode_mismatch
    ideality_mismatch detuning phase_noise oscillator_headroom oscillator_frequency oscillator_power pulses
    pulse_nonlinearity_up pulse_nonlinearity_down pulse_asymmetry pulse_noise pulse_spread voltage
    amplifier_power tile_rows tile_columns source
"""
BEFORE_COPIES = frozenset(_BEFORE_COPIES.split())
"""Fields of a device in the last release that knew no `copies`, all of which it saved. The list stays as it is."""


def as_saved(fields: Mapping[str, Any], where: str = "the file") -> dict[str, Any]:
    """Complete the fields of a device that an earlier release has saved.

    Parameters
    ----------
    fields : mapping of str to Any
        The fields that stand in the file.
    where : str
        Name of the file, for the warning.

    Returns
    -------
    dict of str to Any
        With copies = 'shared' where the file holds every field of the last release before `copies`: a release that
        saved it knew no other copies. A file that was written by hand, with some fields, is left as it is, and
        takes the defaults of today.

    Warns
    -----
    UserWarning
        If the file is such a one.
    """
    found = dict(fields)
    if "copies" not in found and set(found) >= BEFORE_COPIES:
        warnings.warn(
            f"The device in {where} was saved before each cell had errors of its own: its copies are 'shared'.",
            stacklevel=3,
        )
        found["copies"] = "shared"
    return found
