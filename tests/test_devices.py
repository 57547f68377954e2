"""Device models: what a field may hold, JSON there and back, presets."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_models.device_fields import LEAKS, SPACINGS
from hardware_models.device_presets import PRESETS, chosen_device, preset
from hardware_models.devices import IMPERFECTIONS, RULES, DeviceModel, parse_field
from physics_ep.errors import InputError

NAMES = [field.name for field in dataclasses.fields(DeviceModel)]
FLOATS = [name for name in NAMES if RULES[name].kind is float]
INTEGERS = [name for name in NAMES if RULES[name].kind is int]


def test_every_field_has_a_rule():
    """A field without one takes anything, text and NaN too, and fails far from where it was given."""
    assert set(RULES) == set(NAMES)


def test_default_device_is_ideal():
    """`DeviceModel()` is the reference that every sweep compares with."""
    assert DeviceModel().ideal


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("levels", 16),
        ("programming_noise", 0.02),
        ("device_mismatch", 0.02),
        ("stuck_off", 0.01),
        ("stuck_on", 0.01),
        ("copy_mismatch_h", 0.01),
        ("copy_mismatch_u", 0.01),
        ("copy_mismatch_transpose", 0.01),
        ("conductance_noise", 0.01),
        ("read_noise", 0.01),
        ("amplifier_gain", 0.01),
        ("amplifier_offset", 0.01),
        ("amplifier_saturation", 2.0),
        ("time_constant_mismatch", -0.01),
        ("dac_bits", 8),
        ("adc_bits", 8),
        ("wire_resistance", 1.0),
        ("temperature", 300.0),
        ("amplifier_lag", 0.1),
        ("diode_mismatch", 0.1),
        ("diode_current", 1e-14),
        ("detuning", 0.01),
        ("phase_noise", 1.0),
    ],
)
def test_any_imperfection_is_none_of_the_ideal(name, value):
    """Sweeps run an ideal device once instead of many times: a noisy one that passes for it gets no spread."""
    assert not DeviceModel(**{name: value}).ideal
    assert name in IMPERFECTIONS


def test_what_does_not_err_stays_ideal():
    """A conductance range, a voltage or the range of a converter that is not there change no gradient."""
    other = DeviceModel(g_max=1.0, voltage=1.0, tile_rows=3, dac_range=1.0, spacing="log", amplifier_power=1e-3)
    assert other.ideal


def test_drift_takes_time_and_an_exponent():
    """At t <= t0 nothing has drifted, whatever the exponent; after it, a mean or a spread alone is enough."""
    assert DeviceModel(drift_exponent=0.1, drift_time=20.0, drift_reference=20.0).ideal
    assert DeviceModel(drift_time=1e6).ideal
    assert not DeviceModel(drift_exponent=0.1, drift_time=20.1).ideal
    assert not DeviceModel(drift_spread=0.1, drift_time=20.1).ideal


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"levels": 1}, "levels"),
        ({"levels": 2.5}, "levels"),
        ({"levels": 16.0}, "levels"),
        ({"levels": True}, "levels"),
        ({"levels": "16"}, "levels"),
        ({"levels": 10**400}, "levels"),
        ({"g_min": -1e-6}, "g_min"),
        ({"g_min": 1e-4, "g_max": 1e-4}, "g_max"),
        ({"g_min": 2e-4}, "g_max"),
        ({"g_min": 0.0, "spacing": "log"}, "g_min"),
        ({"spacing": "cubic"}, "spacing"),
        ({"spacing": None}, "spacing"),
        ({"programming_noise": -0.1}, "programming_noise"),
        ({"programming_noise": math.nan}, "programming_noise"),
        ({"programming_noise": math.inf}, "programming_noise"),
        ({"programming_noise": None}, "programming_noise"),
        ({"programming_noise": "0.1"}, "programming_noise"),
        ({"programming_noise": False}, "programming_noise"),
        ({"programming_noise": 1j}, "programming_noise"),
        ({"programming_noise": 10**400}, "programming_noise"),
        ({"stuck_off": 1.1}, "stuck_off"),
        ({"stuck_on": -0.1}, "stuck_on"),
        ({"stuck_off": 0.6, "stuck_on": 0.5}, "stuck_on"),
        ({"drift_exponent": math.inf}, "drift_exponent"),
        ({"drift_time": -1.0}, "drift_time"),
        ({"drift_reference": 0.0}, "drift_reference"),
        ({"amplifier_saturation": 0.0}, "amplifier_saturation"),
        ({"amplifier_saturation": math.inf}, "amplifier_saturation"),
        ({"time_constant": 0.0}, "time_constant"),
        ({"time_constant_mismatch": -1.0}, "time_constant_mismatch"),
        ({"dac_bits": 0}, "dac_bits"),
        ({"adc_bits": 1}, "adc_bits"),
        ({"adc_bits": 33}, "adc_bits"),
        ({"dac_range": 0.0}, "dac_range"),
        ({"adc_range": -1.0}, "adc_range"),
        ({"voltage": 0.0}, "voltage"),
        ({"tile_rows": 0}, "tile_rows"),
        ({"tile_columns": 2.0}, "tile_columns"),
        ({"source": 3}, "source"),
    ],
)
def test_bad_values_name_their_field(fields, name):
    """One line tells the field, what it must be and what it was; else a sweep ends in a traceback, or in NaN."""
    with pytest.raises(InputError, match=rf"^Argument {name} must .+, but was .+\.$") as caught:
        DeviceModel(**fields)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=rf"^Argument {name} must"):
        DeviceModel().replace(**fields)


def test_numbers_of_other_libraries_become_plain():
    """A numpy number from a grid must give the same device, and the same JSON, as the plain one."""
    of_numpy = DeviceModel(levels=np.int64(16), programming_noise=np.float64(0.5), g_max=np.float32(0.5), g_min=0)
    plain = DeviceModel(levels=16, programming_noise=0.5, g_max=0.5, g_min=0.0)
    assert of_numpy == plain
    assert of_numpy.to_json() == plain.to_json()


def test_replace_changes_what_it_names():
    """A sweep varies one field at a time; an unknown one gets the nearest right name."""
    base = DeviceModel(levels=16)
    other = base.replace(programming_noise=0.1)
    changed = {n for n in NAMES if getattr(base, n) != getattr(other, n)}
    assert changed == {"programming_noise"}
    with pytest.raises(InputError, match="Did you mean 'programming_noise'"):
        base.replace(programing_noise=0.1)


# -- JSON ---------------------------------------------------------------------------------------------------------


WORDS = {"spacing": SPACINGS, "leaks": LEAKS}


def values(name: str) -> st.SearchStrategy:
    """Numbers that a field may or may not take."""
    rule = RULES[name]
    known = {
        float: st.floats(1.5, 3) if name == "oscillator_headroom" else st.floats(1e-100, 1),
        int: st.integers(2, 32),
        str: st.sampled_from(WORDS[name]) if name in WORDS else st.text(),
    }[rule.kind]
    return st.one_of(st.none(), known) if rule.optional else known


@given(
    st.fixed_dictionaries({}, optional={name: values(name) for name in NAMES if name not in ("g_min", "stuck_on")})
)
def test_json_round_trip(fields):
    """A worker gets its device as JSON: a digit lost there is another device."""
    device = DeviceModel(**{**fields, "g_min": 0.5 * fields.get("g_max", 1e-4)})
    assert DeviceModel.from_json(device.to_json()) == device


def test_json_files(tmp_path: Path):
    """The same by a file; fields that it leaves out have their defaults."""
    device = PRESETS["pcm"]
    path = tmp_path / "new" / "device.json"
    text = device.to_json(path)
    assert path.read_text(encoding="utf-8") == text
    assert DeviceModel.from_json(path) == DeviceModel.from_json(str(path)) == device
    assert set(json.loads(text)) == set(NAMES)
    assert DeviceModel.from_json('{"levels": 4}') == DeviceModel(levels=4)
    assert DeviceModel.from_json("{}") == DeviceModel()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"levls": 4}', r"Argument field must be one of .* but was 'levls'\. Did you mean 'levels'\?"),
        ('{"levels": "4"}', r"Argument levels must .*, but was '4'\."),
        ('{"levels": 4.0}', r"Argument levels must .*, but was 4\.0\."),
        ('{"programming_noise": NaN}', r"Argument programming_noise must .*, but was nan\."),
        ('{"programming_noise": null}', r"Argument programming_noise must .*, but was None\."),
        ('{"stuck_on": [0.1]}', r"Argument stuck_on must .*, but was \[0\.1\]\."),
        ('{"levels": 4', r"Argument path must hold a device as JSON, but was .*\."),
        ("[1, 2]", r"Argument path must hold a JSON object of a device's fields, but was .*: list\."),
        ("", r"Argument path must hold a device as JSON, but was .*\."),
    ],
)
def test_broken_json_is_told_in_a_line(text, says, tmp_path: Path):
    """A user's own file is where typing errors are: the field and the nearest right name, no traceback."""
    path = tmp_path / "device.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"^{says}$"):
        DeviceModel.from_json(path)
    if text.startswith("{"):
        with pytest.raises(InputError, match=rf"^{says}$"):
            DeviceModel.from_json(text)


def test_files_that_cannot_be_read_or_written(tmp_path: Path):
    """A missing file, a folder, bytes that are no text; and a place where nothing can be written."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.json", tmp_path, tmp_path / "bytes", str(tmp_path / "missing.json")):
        with pytest.raises(
            InputError, match=r"^Argument path must be a JSON file of a device that can be read, but"
        ):
            DeviceModel.from_json(path)
    with pytest.raises(InputError, match=r"^Argument path must be a file"):
        DeviceModel().to_json(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"^Argument path must be a file that can be written"):
        DeviceModel().to_json(tmp_path / "file" / "device.json")
    assert sorted(os.listdir(tmp_path)) == ["bytes", "file"]


# -- the command line ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("levels", "16", 16),
        ("levels", "none", None),
        ("levels", " None ", None),
        ("programming_noise", "0.02", 0.02),
        ("programming_noise", "1e-3", 1e-3),
        ("programming_noise", "0", 0.0),
        ("time_constant_mismatch", "-0.05", -0.05),
        ("adc_range", "2", 2.0),
        ("spacing", "log", "log"),
        ("tile_rows", "64", 64),
    ],
)
def test_values_of_sweeps(name, text, value):
    """`--sweep levels=4,16,none` means what it says, in the field's own type."""
    found = parse_field(name, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("levels", "4.5", r"^Argument levels must be an integer from 2 to 2\^32 or none, but was '4\.5'\.$"),
        ("levels", "1", r"^Argument levels must .*, but was 1\.$"),
        ("levels", "", r"^Argument levels must .*, but was ''\.$"),
        ("programming_noise", "none", r"^Argument programming_noise must .*, but was 'none'\.$"),
        ("programming_noise", "nan", r"^Argument programming_noise must .*, but was nan\.$"),
        ("programming_noise", "two", r"^Argument programming_noise must .*, but was 'two'\.$"),
        ("spacing", "cubic", r"^Argument spacing must be 'linear' or 'log', but was 'cubic'\.$"),
        ("noise", "0.1", r"^Argument field must be one of .*, but was 'noise'\. Did you mean 'read_noise'\?$"),
    ],
)
def test_bad_values_of_sweeps(name, text, says):
    """A sweep with a wrong value must stop before hours of it have run."""
    with pytest.raises(InputError, match=says):
        parse_field(name, text)


# -- presets ------------------------------------------------------------------------------------------------------


def test_presets_are_sourced_and_no_ideal_devices():
    """A preset without a paper is a guess; one that errs nowhere is the default."""
    assert set(PRESETS) >= {"reram", "pcm", "sram", "op-amp"}
    for name, device in PRESETS.items():
        assert "20" in device.source, name
        assert not device.ideal
        assert preset(name) is device
        assert DeviceModel.from_json(device.to_json()) == device


def test_values_that_the_papers_give():
    """Held against the figures of the papers, so that a slip of a digit or a unit is seen."""
    pcm, reram, sram, board = (PRESETS[name] for name in ("pcm", "reram", "sram", "op-amp"))
    assert pcm.g_max == 25e-6
    # Joshi et al.: 0.94 uS, the median of the levels.
    assert pcm.programming_noise * (pcm.g_max - pcm.g_min) == pytest.approx(0.94e-6, rel=0.01)
    assert (pcm.drift_exponent, pcm.drifted) == (0.06, False)
    # A day after programming 38 % are gone, as in the paper's uncompensated network, which fails.
    assert (86400 / pcm.drift_reference) ** -pcm.drift_exponent == pytest.approx(0.62, abs=0.01)
    # Wan et al.: 1 to 40 uS, relaxation of some 2 uS at mid range.
    assert (reram.g_min, reram.g_max) == (1e-6, 40e-6)
    assert reram.programming_noise * (reram.g_max - reram.g_min) == pytest.approx(2e-6, rel=0.05)
    # Valavi et al.: 1.2 fF at 100 MHz.
    assert sram.g_max == pytest.approx(1.2e-15 * 1e8)
    assert (board.levels, board.g_max) == (128, pytest.approx(1 / 100e3))


def test_unknown_preset_gets_the_nearest_name():
    """`--preset rram` is a likely slip."""
    with pytest.raises(InputError, match=r"^Argument preset must be one of .*Did you mean 'reram'\?$"):
        preset("rram")


def test_device_of_a_command(tmp_path: Path):
    """A preset, or a file, or neither; both would leave it open which one was measured."""
    path = tmp_path / "device.json"
    DeviceModel(levels=4).to_json(path)
    assert chosen_device(None, None) == DeviceModel()
    assert chosen_device("pcm", None) is PRESETS["pcm"]
    assert chosen_device(None, path) == DeviceModel(levels=4)
    with pytest.raises(InputError, match=r"^Argument device-model must"):
        chosen_device("pcm", path)
