"""Devices: what cells, amplifiers and converters can hold and how far they err, as numbers.

A `DeviceModel` says how a technology is; with a seed it is an instance, whose cells `crossbars` draws. Conductances
are in siemens, times in seconds, voltages in volts. Noises, offsets and ranges of activities are in units of a
layer's full scale: the largest |activity| of its free phase on calibration inputs.

An imperfection is one field here and the code where it acts: its rule, its labels, what it needs and which parts of
hardware have it stand in the field (`fields.DeviceField`). An imperfection of your own is a field of a subclass of
`DeviceModel`, and a substrate that reads it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from physics_ep.entries import entries, load
from physics_ep.errors import InputError, argument_error
from physics_ep.storage.outputs import write_text, writing
from physics_ep.storage.texts import parse_json, read_text

from .fields import (
    ABOVE_MINUS_ONE,
    ABOVE_ONE,
    BITS,
    COPYING,
    COUNT,
    COUNT_OR_NONE,
    DUMMY,
    ENDS,
    FRACTION,
    GAIN,
    LEAK,
    LEVELS,
    MAGNITUDE,
    MAGNITUDE_OR_NONE,
    NUMBER,
    ON_OFF,
    POSITIVE,
    RANGE,
    SPACING,
    TEXT,
    TRANSPOSE,
    UNCHOSEN,
    DeviceField,
    Rule,
    defaults_of,
    fields_of,
    imperfection,
    setting,
)
from .saved import BEFORE_COPIES, as_saved

__all__ = [
    "AMPLIFIERS",
    "ASSUMED_SECONDS",
    "BEFORE_COPIES",
    "COMMON",
    "CONVEYORS",
    "DIODES",
    "FIELDS",
    "IMPERFECTIONS",
    "OSCILLATORS",
    "PULSES",
    "RAILS",
    "RESISTORS",
    "RULES",
    "DeviceModel",
    "as_compared",
    "as_saved",
    "field_of",
    "find_field",
    "parse_field",
    "reads",
    "rule_of",
    "unknown_field",
]


ASSUMED_SECONDS = 1e-6
"""Time constant of a device that gives neither one nor a capacitance, s."""
LINE_RESISTANCES = ("wire_resistance", "column_wire_resistance", "driver_resistance", "sense_resistance")
"""Resistances that many cells share, so that the size of a tile counts."""
COUNTING = ("tile_rows", "tile_columns")
"""Fields that say something even without those which they need to err."""


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
        Spacing of the levels: 'linear' for equal steps, 'log' for equal ratios.
    programming_noise : float
        Standard deviation of the programmed conductance as a fraction of g_max - g_min, drawn once a cell.
    device_mismatch : float
        Standard deviation of the logarithm of a cell's gain factor, drawn once a cell.
    stuck_off, stuck_on : float
        Fraction of cells that stay at g_min, g_max whatever is written. They drift as others do.
    drift_exponent, drift_spread : float
        Mean of the exponent nu of G(t) = G (t / t0)^-nu, and its standard deviation from cell to cell (normal;
        Le Gallo et al. 2018, Adv. Electron. Mater. 4:1700627; Joshi et al. 2020, Nat. Commun. 11:2473).
    drift_time, drift_reference : float
        Time t since programming, and time t0 at which the programmed conductance was read, s. Up to t0 nothing has
        drifted.
    copies : {'independent', 'trimmed', 'shared'}
        What the physical cells that stand for one weight have in common. 'independent': nothing, each has errors of
        its own. 'trimmed': each is written and verified against the cell of the array that drives h. 'shared': they
        err alike, as no separate parts do: the ideal that earlier releases took for granted.
    trim_tolerance, trim_attempts : float, int
        Distance from that cell at which the verification is content, as a fraction of g_max - g_min, and the
        writings that are tried at most.
    copy_mismatch_h, copy_mismatch_u, copy_mismatch_transpose : float
        Relative standard deviation of the cells of the copy of an array that drives h, that drives u, and that
        feeds errors back, in addition to what `copies` says.
    transpose : {'slots', 'array'} or None
        How a Hopfield circuit reads an array the other way: in slots of time, in which the same cells are driven
        from their columns, or by a second array. None: in slots, unless copy_mismatch_transpose or copy_mismatch_h
        says that there is a second array.
    mirror_mismatch : float
        Relative standard deviation of the gain of the current mirrors to h and to u of a Hopfield circuit.
    ground_resistance, ground_offset : float
        Impedance of the virtual grounds of a Hopfield circuit's arrays, ohm, and standard deviation of their
        offset voltages, V.
    dummy_cells : {'equal', 'none'}
        Whether the nodes h and u of a resistive network carry as many cells, by dummy ones on u; else u, which has
        no cells that feed back, is faster.
    feedback_gain : float
        Gain of the drivers that feed errors back, above 0 and at most 1. Below 1 unequal copies upset the free
        state less. Readings of the errors are divided by it once a layer below the outputs, so that the gradient
        is that of gain 1 as far as the nudge is small.
    auto_zero : {'off', 'on'}
        'on': the circuit stores h - u of every unit while nothing is fed back, and feeds back the difference to
        what it has stored. The free state is then the forward pass of the arrays that drive h, whatever the copies.
    conductance_noise : float
        Relative standard deviation of a cell from phase to phase; separate copies of an array have their own.
    read_noise : float
        Standard deviation of a reading of a state, in full scales, drawn anew each phase.
    slow_noise, slow_noise_time : float
        Standard deviation of slow noise of a reading (1/f, telegraph), in full scales, and its correlation time, s:
        an Ornstein-Uhlenbeck process a unit, of which 1/f noise is a sum. The readings of two phases of a step, a
        phase's settling time apart, have e^(-that over this) of it in common. From step to step it is drawn anew.
    amplifier_gain, amplifier_offset : float
        Standard deviation of an amplifier's relative gain error, and of its input-referred offset in full scales.
        Those of h and u are different ones.
    amplifier_saturation : float or None
        Largest |output|, in full scales. None: none.
    unit_capacitance, cell_capacitance : float
        Capacitance of the node of a unit by itself, and that of each cell that hangs on the nodes of a resistive
        network (dummy cells too), F. With either of them the time constant is capacitance over conductance, that of
        the slowest layer: nodes of the others carry as much more as makes them as slow. 0: not given.
    time_constant : float or None
        Time constant of the units h, s, in place of what capacitances give. None: from these; without any, 1 us,
        which is assumed.
    time_constant_mismatch : float
        Relative difference of the time constants of u and h, (tau_u - tau_h) / tau_h.
    dac_bits, adc_bits : int or None
        Bits of the converters of inputs, and of the converters that read activities and errors. None: no converter.
    dac_range, adc_range : float or None
        Range of the converters of inputs and of readings, in full scales; what lies beyond is clipped. None: one
        full scale for inputs; for readings the largest activities and errors of a calibration
        (`Mapped.calibrate`), never those of what is being read. Systems that are no mapped networks take one full
        scale for both.
    wire_resistance, column_wire_resistance : float, float or None
        Resistance of the wire between neighbouring cells of a tile's row, ohm; and of its column. None: as in rows.
    driver_resistance, sense_resistance : float
        Resistance between a driven end of a row and its source, and between a sensed end of a column and its
        virtual ground, ohm. They are those of the line's switch, the same where the tile is read the other way;
        `ground_resistance` is that of an amplifier's input, beyond them.
    selector_resistance : float
        Resistance in series with each cell, ohm.
    driven_ends, sensed_ends : {'one', 'both'}
        Whether a tile's rows are driven, and its columns sensed, at one end or at both.
    temperature, averaging_time : float
        Temperature of the resistors, K (0: no thermal noise); and the time over which a phase's readings are
        averaged, s (0: they are samples; not where oscillators have phase noise).
    amplifier_lag, amplifier_lag_mismatch : float
        Time constant of amplifiers of h over that of nodes (0: infinite bandwidth), and (lag_u - lag_h) / lag_h.
    amplifier_gain_limit : float or None
        Largest gain of the rails of a resistive network.
    leaks : {'trimmed', 'dummy', 'fixed'}
        How the nodes of a resistive network are completed to equal conductances:
        `hardware_models.mapping.resistive` has the three ways.
    diode_current : float or None
        Saturation current Is of a diode, A. None: ideal diodes.
    diode_ideality : float
        Emission coefficient n of a diode, dimensionless.
    diode_mismatch, ideality_mismatch : float
        Standard deviation of the logarithm of a diode's Is, and relative standard deviation of its n, from diode to
        diode.
    detuning : float
        Standard deviation of natural frequencies of oscillators, in units of the coupling rate at full scale.
    phase_noise : float
        Diffusion of a free oscillator's phase, rad^2/s.
    oscillator_headroom : float
        Upper end of the range of an oscillator pair, in full scales.
    oscillator_frequency, oscillator_power : float
        Frequency of an oscillator, Hz, for the record (phases are those in a frame that turns with it); and its
        power, W.
    pulses : int or None
        Number of pulses that take a cell from g_min to g_max. None: one pulse moves a cell by a level, or without
        levels as far as asked.
    pulse_nonlinearity_up, pulse_nonlinearity_down : float
        Nonlinearity nu of steps up, G(n) = g_min + (g_max - g_min) (1 - e^(-nu n / pulses)) / (1 - e^-nu) after n
        pulses, and that of steps down, its mirror image. 0: equal steps.
    pulse_asymmetry : float
        Ratio of a step down to a step up at mid range, less 1.
    pulse_noise : float
        Standard deviation of one pulse's step from cycle to cycle, as a fraction of g_max - g_min.
    pulse_spread : float
        Relative standard deviation of step sizes from cell to cell.
    voltage : float
        Voltage of an activity of one full scale, V.
    cell_voltage_limit : float or None
        Largest voltage at which a cell is read, V. A network whose cells see more is refused, or all its voltages
        are scaled (`map_pcn(rails="fit")`). None: not asked.
    amplifier_power, buffer_power : float
        Static power, W, of a unit's amplifier, and of a buffer or virtual ground at a line of an array with its
        mirrors. Both defaults are 10 uA from 1 V, assumed. 0, here and in what follows: not counted.
    converter_energy : float
        Energy of a step of a conversion, J, of which b bits take 2^b: Walden's figure of merit. 10 fJ is that of
        3.1 mW at 8 bits and 1.2 GS/s (Kull et al. 2013, ISSCC, 468); the best of 2013 took 2.2 fJ (Harpe et al.
        2013, ISSCC).
    read_energy, write_energy : float
        Energy of a reading of a unit beyond its conversion (0: not counted), and of a writing of a cell, J. 1 pJ is
        one pulse of 2 V and 80 ns on a cell of 3 uS: the pulse is that of NeuroSim's analogue cell of 0.5 to 10 uS
        (github.com/neurosim/MLP_NeuroSim_V3.0, Cell.cpp).
    latch_energy : float
        Energy of a setting of a latch, J; a latch holds a gate, or a route of a max pooling, through nudged phases.
        10 fJ is assumed.
    cell_area, amplifier_area, buffer_area, converter_area, oscillator_area, latch_area : float
        Area of one part of each kind, m^2. A cell: 12 F^2 at F = 130 nm, the node of Wan et al. 2022 (NeuroSim has
        16 F^2, 4 F by 4 F, with a transistor). A converter: 1000 um^2 (1200 um^2 of 8 bits in Shafiee et al. 2016,
        ISCA, 14, from Kull et al. 2013). Amplifiers, buffers and oscillators are assumed to be squares of 10 um, a
        latch 15 um^2.
    tile_rows, tile_columns : int
        Rows and columns of a tile, in cells.
    source : str
        Where the values are from.

    Raises
    ------
    InputError
        Naming the field, what it must be, and what it was.
    """

    def __new__(cls, *values: Any, **fields: Any) -> Self:
        for name in fields:  # the dataclass's own answer would name no other
            if name not in cls.__dataclass_fields__:
                raise unknown_field(f"field of {cls.__name__}", name, cls)
        return super().__new__(cls)

    g_min: float = setting(1e-6, MAGNITUDE, "Smallest conductance", "S", parts="common")
    g_max: float = setting(1e-4, POSITIVE, "Largest conductance", "S", parts="common")
    levels: int | None = imperfection(None, LEVELS, "Conductance levels", "number", parts="common", drawn=False)
    spacing: str = setting("linear", SPACING, "Spacing of levels", needs=("levels",), parts="common")
    programming_noise: float = imperfection(
        0.0, MAGNITUDE, "Programming noise", "of conductance range", parts="common"
    )
    device_mismatch: float = imperfection(
        0.0, MAGNITUDE, "Gain mismatch of cells", "std of logarithm", parts="common", short="gain mismatch of cells"
    )
    stuck_off: float = imperfection(0.0, FRACTION, "Cells stuck off", "fraction", parts="common")
    stuck_on: float = imperfection(0.0, FRACTION, "Cells stuck on", "fraction", parts="common")
    drift_exponent: float = setting(0.0, NUMBER, "Drift exponent", "dimensionless", ("drift_time",), parts="common")
    drift_spread: float = setting(
        0.0, MAGNITUDE, "Spread of drift exponent", "dimensionless", ("drift_time",), parts="common"
    )
    drift_time: float = setting(
        0.0,
        MAGNITUDE,
        "Drift since programming",
        "s",
        ("drift_exponent", "drift_spread"),
        parts="common",
        short="drift (s)",
    )
    drift_reference: float = setting(
        20.0, POSITIVE, "First reading after programming", "s", ("drift_time",), parts="common"
    )
    copies: str = setting("independent", COPYING, "Copies of cells", parts="common")
    trim_tolerance: float = setting(
        1e-3, POSITIVE, "Tolerance of trimmed copies", "of conductance range", ("copies=trimmed",), parts="common"
    )
    trim_attempts: int = setting(
        100, COUNT, "Writings of a trimmed copy", "number", ("copies=trimmed",), parts="common"
    )
    copy_mismatch_h: float = imperfection(
        0.0, MAGNITUDE, "Mismatch of copy for $h$", "relative", parts="common", short="copy for h"
    )
    copy_mismatch_u: float = imperfection(
        0.0, MAGNITUDE, "Mismatch of copy for $u$", "relative", parts="common", short="copy for u"
    )
    copy_mismatch_transpose: float = imperfection(
        0.0, MAGNITUDE, "Mismatch of transposed copy", "relative", parts="common", short="transposed copy"
    )
    transpose: str | None = setting(None, TRANSPOSE, "Transposed read", parts="conveyors")
    mirror_mismatch: float = imperfection(
        0.0, MAGNITUDE, "Mismatch of current mirrors", "relative", parts="conveyors", short="mirrors"
    )
    ground_resistance: float = imperfection(
        0.0, MAGNITUDE, "Impedance of virtual grounds", "ohm", parts="conveyors", drawn=False
    )
    ground_offset: float = imperfection(0.0, MAGNITUDE, "Offset of virtual grounds", "V", parts="conveyors")
    feedback_gain: float = setting(1.0, GAIN, "Gain of the feedback", "dimensionless", parts="common")
    auto_zero: str = setting("off", ON_OFF, "Auto-zero of the errors", parts="common")
    conductance_noise: float = imperfection(
        0.0, MAGNITUDE, "Conductance noise", "relative, each phase", parts="common"
    )
    read_noise: float = imperfection(0.0, MAGNITUDE, "Read noise", "of full scale", parts="common")
    slow_noise: float = imperfection(0.0, MAGNITUDE, "Slow noise of readings", "of full scale", parts="common")
    slow_noise_time: float = setting(
        1e-3, POSITIVE, "Correlation time of slow noise", "s", ("slow_noise",), parts="common"
    )
    amplifier_gain: float = imperfection(
        0.0, MAGNITUDE, "Gain error of amplifiers", "relative", parts="amplifiers", short="gain of amplifiers"
    )
    amplifier_offset: float = imperfection(
        0.0, MAGNITUDE, "Offset of amplifiers", "of full scale", parts="amplifiers", short="offset of amplifiers"
    )
    amplifier_saturation: float | None = imperfection(
        None,
        RANGE,
        "Rails of amplifiers",
        "of full scale",
        parts="amplifiers",
        drawn=False,
        short="rails of amplifiers",
    )
    unit_capacitance: float = setting(0.0, MAGNITUDE, "Capacitance of a node", "F", parts="resistors")
    cell_capacitance: float = setting(0.0, MAGNITUDE, "Capacitance of a cell", "F", parts="rails")
    time_constant: float | None = setting(None, RANGE, "Time constant", "s", parts="common")
    time_constant_mismatch: float = imperfection(
        0.0,
        ABOVE_MINUS_ONE,
        "$(\\tau_u - \\tau_h) / \\tau_h$",
        "dimensionless",
        parts="common",
        drawn=False,
        short="time constant of u",
    )
    dac_bits: int | None = imperfection(
        None, BITS, "Converters of inputs", "bits", parts="common", drawn=False, short="input bits"
    )
    dac_range: float | None = setting(
        None, RANGE, "Range of input converters", "of full scale", ("dac_bits",), parts="common"
    )
    adc_bits: int | None = imperfection(
        None, BITS, "Converters of readings", "bits", parts="common", drawn=False, short="reading bits"
    )
    adc_range: float | None = setting(
        None, RANGE, "Range of reading converters", "of full scale", ("adc_bits",), parts="common"
    )
    wire_resistance: float = imperfection(
        0.0,
        MAGNITUDE,
        "Resistance of wires",
        "ohm",
        parts="common",
        drawn=False,
        short="wires (\N{GREEK CAPITAL LETTER OMEGA})",
    )
    column_wire_resistance: float | None = imperfection(
        None, MAGNITUDE_OR_NONE, "Resistance of column wires", "ohm", parts="common", drawn=False
    )
    driver_resistance: float = imperfection(
        0.0, MAGNITUDE, "Resistance of drivers", "ohm", parts="common", drawn=False
    )
    sense_resistance: float = imperfection(
        0.0, MAGNITUDE, "Resistance of sensed ends", "ohm", parts="common", drawn=False
    )
    selector_resistance: float = imperfection(
        0.0, MAGNITUDE, "Resistance of selectors", "ohm", parts="common", drawn=False
    )
    driven_ends: str = setting(
        "one", ENDS, "Driven ends of rows", needs=("wire_resistance", "driver_resistance"), parts="common"
    )
    sensed_ends: str = setting(
        "one",
        ENDS,
        "Sensed ends of columns",
        needs=("wire_resistance", "column_wire_resistance", "sense_resistance"),
        parts="common",
    )
    temperature: float = imperfection(
        0.0, MAGNITUDE, "Temperature", "K", parts="resistors", short="temperature (K)"
    )
    averaging_time: float = setting(
        1e-5,
        MAGNITUDE,
        "Averaging time of readings",
        "s",
        ("temperature", "phase_noise"),
        parts=("resistors", "oscillators"),
    )
    amplifier_lag: float = imperfection(
        0.0, MAGNITUDE, "Lag of amplifiers", "of the time constant", parts="amplifiers", drawn=False
    )
    amplifier_lag_mismatch: float = imperfection(
        0.0,
        ABOVE_MINUS_ONE,
        "Mismatch of amplifier lags",
        "relative",
        ("amplifier_lag",),
        parts="amplifiers",
        drawn=False,
    )
    amplifier_gain_limit: float | None = imperfection(
        None, RANGE, "Largest gain of rails", "volts a volt", parts="rails", drawn=False
    )
    leaks: str = imperfection("trimmed", LEAK, "Leaks of nodes", parts="rails", drawn=False)
    dummy_cells: str = imperfection("equal", DUMMY, "Dummy cells", parts="rails", drawn=False)
    diode_current: float | None = imperfection(
        None, RANGE, "Saturation current of diodes", "A", parts="diodes", drawn=False, short="diodes (A)"
    )
    diode_ideality: float = imperfection(
        1.0, POSITIVE, "Ideality of diodes", "dimensionless", parts="diodes", drawn=False
    )
    diode_mismatch: float = imperfection(
        0.0, MAGNITUDE, "Mismatch of diode currents", "std of logarithm", parts="diodes"
    )
    ideality_mismatch: float = imperfection(
        0.0, MAGNITUDE, "Mismatch of diode ideality", "relative", parts="diodes"
    )
    detuning: float = imperfection(0.0, MAGNITUDE, "Detuning", "of the coupling rate", parts="oscillators")
    phase_noise: float = imperfection(
        0.0,
        MAGNITUDE,
        "Phase noise",
        "rad$^2$/s",
        parts="oscillators",
        short="phase noise (rad\N{SUPERSCRIPT TWO}/s)",
    )
    oscillator_headroom: float = setting(
        2.0, ABOVE_ONE, "Range of oscillator pairs", "of full scale", parts="oscillators"
    )
    oscillator_frequency: float = setting(1e9, POSITIVE, "Frequency of oscillators", "Hz", parts="description")
    oscillator_power: float = setting(0.0, MAGNITUDE, "Power of an oscillator", "W", parts="description")
    pulses: int | None = setting(None, COUNT_OR_NONE, "Pulses from end to end", "number", parts="learning")
    pulse_nonlinearity_up: float = setting(
        0.0, NUMBER, "Nonlinearity of pulses up", "dimensionless", ("pulses", "levels"), parts="learning"
    )
    pulse_nonlinearity_down: float = setting(
        0.0, NUMBER, "Nonlinearity of pulses down", "dimensionless", ("pulses", "levels"), parts="learning"
    )
    pulse_asymmetry: float = setting(
        0.0, ABOVE_MINUS_ONE, "Asymmetry of pulses", "relative", ("pulses", "levels"), parts="learning"
    )
    pulse_noise: float = setting(
        0.0, MAGNITUDE, "Noise of pulses", "of conductance range", ("pulses", "levels"), parts="learning"
    )
    pulse_spread: float = setting(
        0.0, MAGNITUDE, "Spread of pulses", "relative", ("pulses", "levels"), parts="learning"
    )
    voltage: float = setting(0.2, POSITIVE, "Voltage of full scale", "V", parts="common")
    cell_voltage_limit: float | None = setting(None, RANGE, "Largest voltage of a cell", "V", parts="common")
    amplifier_power: float = setting(1e-5, MAGNITUDE, "Power of an amplifier", "W", parts="description")
    buffer_power: float = setting(1e-5, MAGNITUDE, "Power of a line's buffer", "W", parts="description")
    converter_energy: float = setting(1e-14, MAGNITUDE, "Energy of a conversion step", "J", parts="description")
    read_energy: float = setting(0.0, MAGNITUDE, "Energy of a reading", "J", parts="description")
    write_energy: float = setting(1e-12, MAGNITUDE, "Energy of a writing", "J", parts="description")
    latch_energy: float = setting(1e-14, MAGNITUDE, "Energy of setting a latch", "J", parts="description")
    cell_area: float = setting(2e-13, MAGNITUDE, "Area of a cell", "m^2", parts="description")
    amplifier_area: float = setting(1e-10, MAGNITUDE, "Area of an amplifier", "m^2", parts="description")
    buffer_area: float = setting(1e-10, MAGNITUDE, "Area of a line's buffer", "m^2", parts="description")
    converter_area: float = setting(1e-9, MAGNITUDE, "Area of a converter", "m^2", parts="description")
    oscillator_area: float = setting(1e-10, MAGNITUDE, "Area of an oscillator", "m^2", parts="description")
    latch_area: float = setting(1.5e-11, MAGNITUDE, "Area of a latch", "m^2", parts="description")
    tile_rows: int = setting(256, COUNT, "Rows of a crossbar", "cells", LINE_RESISTANCES, parts="common")
    tile_columns: int = setting(256, COUNT, "Columns of a crossbar", "cells", LINE_RESISTANCES, parts="common")
    source: str = setting("", TEXT, "Source", parts="description")

    def __post_init__(self) -> None:
        for name, told in fields_of(type(self)).items():
            object.__setattr__(self, name, told.rule.checked(name, getattr(self, name)))
        if self.g_max <= self.g_min:
            raise argument_error("g_max", f"be larger than g_min = {self.g_min:g}", self.g_max)
        if self.spacing == "log" and self.g_min == 0:
            raise argument_error("g_min", "be positive where spacing is 'log'", self.g_min)
        for name in ("copy_mismatch_transpose", "copy_mismatch_h"):
            if self.transpose == "slots" and getattr(self, name) != 0:
                must = "be 0 where one array is read both ways (transpose 'slots', not 'array')"
                raise argument_error(name, must, getattr(self, name))
        if self.phase_noise > 0 and self.averaging_time == 0:
            raise argument_error("averaging_time", "be positive where oscillators have phase noise", 0.0)
        for name in ("unit_capacitance", "cell_capacitance"):
            if self.time_constant is not None and getattr(self, name) > 0:
                must = f"be left out (None) where {name} is given, which makes it with the conductance"
                raise argument_error("time_constant", must, self.time_constant)
        if self.stuck_off + self.stuck_on > 1:
            raise argument_error("stuck_on", f"be at most 1 - stuck_off = {1 - self.stuck_off:g}", self.stuck_on)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a pickled device; one without `copies`, of an earlier release, meant that they are shared."""
        vars(self).update({"copies": "shared", **state})

    @property
    def draws_cells(self) -> bool:
        """Whether two cells that are written for the same weight differ."""
        drawn = (self.programming_noise, self.device_mismatch, self.stuck_off, self.stuck_on)
        return any(drawn) or (self.drifted and self.drift_spread > 0)

    @property
    def drifted(self) -> bool:
        """Whether cells have drifted since they were programmed."""
        return self.drift_time > self.drift_reference and (self.drift_exponent != 0 or self.drift_spread != 0)

    @property
    def ideal(self) -> bool:
        """Whether nothing errs while it holds a network: the other fields then say only what it takes, and how its
        cells learn."""
        kind = type(self)
        fields, ideal = fields_of(kind), defaults_of(kind)
        return not self.drifted and all(
            getattr(self, name) == ideal[name] for name, told in fields.items() if told.errs
        )

    def unread(self, effects: Collection[str]) -> tuple[str, ...]:
        """Fields that differ from their defaults and mean nothing to a substrate.

        Parameters
        ----------
        effects : collection of str
            Fields that the substrate has beside those that all have: see `PairedCircuit`.

        Returns
        -------
        tuple of str
            What a device takes, and how its cells learn, is not among them.
        """
        kind = type(self)
        ideal = defaults_of(kind)
        return tuple(
            name
            for name in fields_of(kind)
            if getattr(self, name) != ideal[name] and not reads(name, effects, kind)
        )

    @property
    def idle(self) -> tuple[str, ...]:
        """Fields that differ from their defaults and do nothing, since the fields that they need are at their
        defaults.

        Sizes of tiles are not among them: crossbars are counted by these whatever their wires are.
        """
        ideal, own = defaults_of(type(self)), vars(self)
        return tuple(
            name
            for name, told in fields_of(type(self)).items()
            if own[name] != ideal[name] and name not in COUNTING and told.idle(own, ideal)
        )

    def without_idle(self) -> Self:
        """The same device with the fields that do nothing put back to their defaults."""
        ideal = defaults_of(type(self))
        return self.replace(**{name: ideal[name] for name in self.idle})

    def replace(self, **fields: Any) -> Self:
        """The same device with other values of some fields.

        Raises
        ------
        InputError
            If a field is unknown, with the nearest right name; or a value is none of it.
        """
        for name in fields:
            field_of(name, type(self))
        return dataclasses.replace(self, **fields)

    def to_json(self, path: str | os.PathLike[str] | None = None, overwrite: bool = False) -> str:
        """All fields as JSON; written to a file if there is a path, with the command that wrote it.

        Raises
        ------
        InputError
            If the file cannot be written, or holds something that another command wrote, without `overwrite`.
        """
        fields = dataclasses.asdict(self)
        if path is not None:
            with writing("hardware_models.DeviceModel.to_json", overwrite=overwrite) as call:
                call.claim("path", path)
                write_text(path, _as_json({"command": call.command, **fields}))
        return _as_json(fields)

    @classmethod
    def from_json(cls, source: str | os.PathLike[str]) -> Self:
        """Read a device from JSON; fields that are missing there have their defaults.

        Parameters
        ----------
        source : path or str
            A file, or the JSON text itself, which begins with a brace.

        Raises
        ------
        InputError
            If there is no such file, it is no JSON object, or a field is unknown or none.
        """
        if isinstance(source, str) and source.lstrip().startswith("{"):
            text, where = source, "the JSON text"
        else:
            text, where = read_text(source, "path", "a JSON file of a device"), repr(os.fspath(source))
        try:
            found = parse_json(text)
        except ValueError as error:
            raise argument_error("path", "hold a device as JSON", f"{where} ({error})") from None
        if not isinstance(found, dict):
            raise argument_error(
                "path", "hold a JSON object of a device's fields", f"{where}: {type(found).__name__}"
            )
        found.pop("command", None)
        for name in found:
            field_of(name, cls)
        return cls(**as_saved(found, where))


def _as_json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


FIELDS = fields_of(DeviceModel)
"""What the fields of `DeviceModel` say of themselves, by name."""
RULES: dict[str, Rule] = {name: told.rule for name, told in FIELDS.items()}


def _of(part: str, errs: bool = False) -> tuple[str, ...]:
    return tuple(name for name, told in FIELDS.items() if part in told.parts and (told.errs or not errs))


COMMON = _of("common", errs=True)
"""Fields that make the cells of any substrate err, and what reads them, drift apart."""
AMPLIFIERS = _of("amplifiers")
RESISTORS = _of("resistors")
DIODES = _of("diodes")
RAILS = _of("rails")
CONVEYORS = _of("conveyors")
OSCILLATORS = _of("oscillators")
"""Fields of parts that only some substrates have: what `PairedCircuit.effects` is made of."""
IMPERFECTIONS = tuple(name for name, told in FIELDS.items() if told.errs)
"""Fields that make a device err while it holds a network, or bound what it can hold, drift apart; others only say
how large an error is, what it takes, or how it learns."""
PULSES = _of("learning")
"""Fields that act while cells learn, and not on what they hold."""


def as_compared(fields: Mapping[str, Any], where: str = "the file") -> dict[str, Any]:
    """Complete the fields of a saved device, so that they can be compared with those of today.

    Parameters are those of `as_saved`. Fields that the release that saved it did not know have their defaults.
    """
    found = {**defaults_of(DeviceModel), **as_saved(fields, where)}
    if "unit_capacitance" not in fields and found["time_constant"] == ASSUMED_SECONDS:
        found["time_constant"] = None  # the default of then
    return found


def field_of(name: str, kind: type[DeviceModel] = DeviceModel) -> DeviceField:
    """What a field of a class of devices says of itself.

    Raises
    ------
    InputError
        If there is no such field: see `unknown_field`.
    """
    known = fields_of(kind)
    if name not in known:
        raise unknown_field("field", name, kind)
    return known[name]


MEANT = {
    "bits": "A cell of n bits has levels=2**n.",
    "n_bits": "A cell of n bits has levels=2**n.",
    "weight_bits": "A cell of n bits has levels=2**n.",
    "cell_bits": "A cell of n bits has levels=2**n.",
    "resolution": "A cell of n bits has levels=2**n.",
    "mismatch": "The spread of cells' gains is device_mismatch.",
    "gain_spread": "The spread of cells' gains is device_mismatch, that of amplifiers' gains amplifier_gain.",
    "variability": "The spread of cells' gains is device_mismatch.",
    "noise": "Noise of cells is conductance_noise, of writing programming_noise, of readings read_noise.",
    "seed": "Instances are drawn by the seed of what is built on the device, such as device_seed.",
}
"""What a field that no device has may mean, in a sentence."""


def unknown_field(argument: str, name: str, kind: type[DeviceModel]) -> InputError:
    """Build the error for a field that a class of devices does not have.

    It names the devices that have the field, and the substrates of installed packages with such devices; where no
    devices have it, the nearest right name.

    Parameters
    ----------
    argument : str
        The argument that named the field.
    name : str
    kind : class of devices
    """
    with_it = []
    for substrate, entry in entries("physics_ep.substrates").items():
        with suppress(InputError):  # a package that is broken has no part in this
            if name in fields_of(load(entry).device_class):
                with_it.append(substrate)
    owner = next((each for each in _kinds() if name in {f.name for f in dataclasses.fields(each)}), None)
    if owner is None:
        known = list(fields_of(kind))
        words = set(name.lower().split("_"))
        alike = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        alike += [n for n in known if words & set(n.split("_")) and n not in alike]
        alike += [n for n in difflib.get_close_matches(name, known, n=3, cutoff=0.0) if n not in alike]
        near = ", ".join(alike[:4])
        meant = MEANT.get(name.lower())
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" {meant}" if meant else f" Did you mean {close[0]!r}?" if close else ""
        must = f"be one of {len(known)} names (physics-ep info has all; the nearest: {near})"
        return InputError(f"{argument_error(argument, must, repr(name))}{hint}")
    told = f"the substrate {' or '.join(map(repr, with_it))}" if with_it else "another substrate"
    must = f"be a field of the devices at hand ({kind.__name__})"
    return argument_error(argument, must, f"{name!r}, a field of {owner.__name__}, the devices of {told}")


def find_field(name: str) -> DeviceField | None:
    """What a field of this name says of itself, in `DeviceModel` or a subclass of it; None where none has it."""
    for kind in _kinds():
        for field in dataclasses.fields(kind):
            if field.name == name:
                return field.metadata.get("device")
    return None


def _kinds() -> list[type[DeviceModel]]:
    """`DeviceModel` and all subclasses of it that have been imported, ancestors first."""
    kinds: list[type[DeviceModel]] = [DeviceModel]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return kinds


def rule_of(name: str) -> Rule:
    """What a field of `DeviceModel` may hold.

    Raises
    ------
    InputError
        If there is no such field, with the nearest right name.
    """
    return field_of(name).rule


def reads(name: str, effects: Collection[str], kind: type[DeviceModel] = DeviceModel) -> bool:
    """Whether a field means something to a substrate that has `effects` beside what all have."""
    return name in effects or not set(field_of(name, kind).parts).isdisjoint(UNCHOSEN)


def parse_field(name: str, text: str, kind: type[DeviceModel] = DeviceModel) -> Any:
    """Value of a field as it stands on a command line: a number, a word, or 'none' where the field may be None.

    Parameters
    ----------
    name : str
        A field of the device.
    text : str
    kind : class of devices

    Returns
    -------
    float, int, str or None

    Raises
    ------
    InputError
        If there is no such field, or the text is no value of it.
    """
    return field_of(name, kind).rule.parsed(name, text)
