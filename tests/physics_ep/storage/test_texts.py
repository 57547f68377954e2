"""Hostile text is refused in one line, or means what it says: if these fail, a file ends in a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hardware_models.devices.model import DeviceModel
from hardware_models.devices.pulse_fit import read_pulses
from hardware_models.netlists.netlist import load_netlist
from physics_ep import cli
from physics_ep.config import load_config
from physics_ep.data.image_folders import read_mapping
from physics_ep.errors import InputError
from physics_ep.nudging import scheme_from_name

DIGITS = "9" * 5000
CONFIG = '[system]\nname = "hopfield"\nsizes = [64, 8, 10]\n[data]\nname = "digits"\n[training]\nepochs = 1\n'

TOML = {
    "deep list": CONFIG + "x = " + "[" * 20000,
    "deep table": CONFIG + "[" + ".".join("a" * 5000) + "]\nb = 1",
    "deep inline table": CONFIG + "x = " + "{a = " * 5000,
    "digits": CONFIG.replace("epochs = 1", f"epochs = {DIGITS}"),
    "hexadecimal digits": CONFIG.replace("epochs = 1", "epochs = 0x" + "f" * 5000),
    "an integer of 100 bits": CONFIG + "batch_size = " + "9" * 30,
    "a rate of 400 digits": CONFIG + '[optimizer]\nname = "sgd"\nlr = ' + "9" * 400,
    "NUL": CONFIG + "\0",
    "UTF-16": CONFIG.encode("utf-16"),
    "no text": b"\xff\xfe\xff",
}
OVERRIDES = [
    f"training.epochs={DIGITS}",
    "training.epochs=" + "[" * 20000,
    "a." * 5000 + "b=1",
    f"system.sizes=[64, {DIGITS}, 10]",
    f"ep.scheme='holomorphic:{DIGITS}'",
]
JSON = {
    "deep list": '{"levels": ' + "[" * 200_000,
    "deep object": '{"a": ' * 100_000,
    "digits": '{"levels": ' + DIGITS + "}",
    "a key twice": '{"levels": 16, "levels": 4}',
    "half a character": '{"source": "\\ud800"}',
    "infinity": '{"read_noise": 1e999}',
    "UTF-16": '{"levels": 16}'.encode("utf-16"),
    "NUL": '{"levels": 16}\0',
}
HEAD = "cell,pulse,direction,conductance\n"
CSV = {
    "a huge cell": HEAD + "a," + "1" * 200_000 + ",up,1\n",
    "digits": HEAD + f"a,{DIGITS},up,1e-6\n",
    "NUL": HEAD + "a\0,1,up,x\n",
    "an open quote": HEAD + '"a,1,up,1\n' * 3,
    "UTF-16": (HEAD + "a,1,up,1\n").encode("utf-16"),
}
NETLISTS = {
    "deep expression": "t\nV1 a 0 1\nR1 a 0 {" + "(" * 20000 + "1" + ")" * 20000 + "}\n",
    "signs": "t\nV1 a 0 1\nR1 a 0 {" + "-" * 50000 + "1}\n",
    "a tower of powers": "t\nV1 a 0 1\nR1 a 0 {9**9**9**9}\n",
    "overflow": "t\nV1 a 0 1\nR1 a 0 {exp(1000)}\n",
    "a device": "t\n.include /dev/zero\n",
    "a folder": "t\n.include /\n",
}


def refused(read: object, *arguments: object) -> str:
    """The one line in which something is refused."""
    with pytest.raises(InputError) as caught:
        read(*arguments)  # type: ignore[operator]
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


@pytest.mark.parametrize(
    ("read", "content"),
    [
        *(pytest.param(load_config, text, id=f"TOML, {name}") for name, text in TOML.items()),
        *(pytest.param(DeviceModel.from_json, text, id=f"JSON, {name}") for name, text in JSON.items()),
        *(pytest.param(read_pulses, text, id=f"CSV, {name}") for name, text in CSV.items()),
        *(pytest.param(load_netlist, text, id=f"netlist, {name}") for name, text in NETLISTS.items()),
        pytest.param(read_mapping, "a.jpg," + "x" * 200_000, id="mapping, a huge cell"),
    ],
)
def test_hostile_files_are_refused(read: object, content: str | bytes, tmp_path: Path) -> None:
    """Recursion, overflow, decoding and number limits of Python are the file's fault, and said so."""
    path = tmp_path / "hostile.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(read, path)


@pytest.mark.parametrize("override", OVERRIDES, ids=range(len(OVERRIDES)))
def test_hostile_overrides_are_refused(override: str) -> None:
    """The same on the command line."""
    refused(load_config, "hopfield-digits", [override])


def test_hostile_tables_are_refused() -> None:
    """The same of a config that is given as a dict."""
    table: dict[str, object] = {}
    for _ in range(3000):
        table = {"a": table}
    assert "nested" in refused(load_config, table)
    assert "64 bits" in refused(load_config, {"training": {"epochs": 10**5000}})


def test_the_command_ends_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1 says that work has failed: here none was begun."""
    path = tmp_path / "deep.toml"
    path.write_text(TOML["deep list"], encoding="utf-8")  # type: ignore[arg-type]
    for words in (["train", str(path)], ["gradients", "hopfield", "--scheme", f"holomorphic:{DIGITS}"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        assert caught.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    """Editors of some systems put one at the front of every file."""
    plain, marked = tmp_path / "plain", tmp_path / "marked"

    def both(text: str) -> None:
        plain.write_text(text, encoding="utf-8")
        marked.write_text(text, encoding="utf-8-sig")

    both(CONFIG)
    assert load_config(plain) == load_config(marked)
    both('{"levels": 16}')
    assert DeviceModel.from_json(plain) == DeviceModel.from_json(marked) == DeviceModel(levels=16)
    both("R1 a 0 1k\n")
    outer = tmp_path / "outer.cir"
    outer.write_text(f"t\nV1 a 0 1\n.include {marked}\n", encoding="utf-8")
    assert set(load_netlist(outer).parts.groups) == {"voltage_source", "resistor"}
    both("a.jpg,cat\n")
    assert read_mapping(plain) == read_mapping(marked) == {"a.jpg": "cat"}


def test_labels_of_a_mapping_may_be_any_text(tmp_path: Path) -> None:
    """Classes are names there: a number beyond 64 bits, or below 0, is as good as another."""
    path = tmp_path / "mapping.csv"
    path.write_text(f"a.jpg,{2**70}\nb.jpg,-1\n", encoding="utf-8")
    assert read_mapping(path) == {"a.jpg": str(2**70), "b.jpg": "-1"}


@pytest.mark.parametrize("bad", [1, 1.5, None, True, b"name", ["name"], "", "a\0b"], ids=repr)
def test_what_is_no_path_is_refused(bad: object) -> None:
    """An integer would be taken for an open file (0 is the keyboard)."""
    for read in (load_config, DeviceModel.from_json, load_netlist, read_pulses):
        refused(read, bad)


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    """A pipe that nobody writes to, and a device without an end, would keep a command for ever."""
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    for read in (load_config, DeviceModel.from_json, load_netlist, read_pulses):
        refused(read, pipe)
        refused(read, "/dev/zero")


def test_holomorphic_schemes_have_a_bound() -> None:
    """Each point is a phase: a number of points with a few zeros too many would never end."""
    for name in ("holomorphic:1001", "holomorphic:999999999999", "holomorphic:-3", "holomorphic:²"):
        assert "holomorphic" in refused(scheme_from_name, name)
    assert scheme_from_name("holomorphic:4").order == 4
