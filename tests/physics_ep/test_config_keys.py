"""Keys of configs as they are told to people. If these fail, a key is not told, or told wrongly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from physics_ep import cli
from physics_ep.config import Config, parse_config
from physics_ep.config_keys import config_keys, described_attributes
from physics_ep.errors import InputError
from physics_ep.registry import bundled, systems
from physics_ep.storage.texts import parse_toml


def test_every_key_of_every_section_is_told() -> None:
    found = config_keys()
    wanted = [
        (name, key)
        for name, section in Config.model_fields.items()
        for key in {
            "system": ["name", "weights"],
            "optimizer": ["name", "groups"],
            "scheduler": ["name", "per", "warmup"],
        }.get(name)
        or [*section.annotation.model_fields]
    ]
    assert [(k.section, k.key) for k in found] == wanted
    assert [f"{k.section}.{k.key}" for k in found if not k.meaning] == []


def test_defaults_are_those_that_configs_have() -> None:
    """What is shown as the default, read as TOML, gives the config that is made without the key."""
    plain = parse_config({"system": {"name": "hopfield"}}).as_dict()
    for k in config_keys():
        if k.default not in ("none", "required") and plain.get(k.section) is not None:
            assert parse_toml(f"value = {k.default}")["value"] == plain[k.section][k.key], k


@pytest.mark.parametrize("name", sorted(systems()))
def test_options_of_a_system_are_listed(name: str) -> None:
    """Each has a meaning: the constructors' docstrings tell it."""
    options = [k for k in config_keys(name) if k.section == "system"][2:]
    assert options
    assert [k.key for k in options if not k.meaning] == []


def test_names_that_share_a_line_share_its_text() -> None:
    told = "Parameters\n----------\na, b : int\n    Both.\nc\n    Of c: two\n    lines.\n"
    text = f"A thing.\n\n{told}\nRaises\n------\nE\n    No."
    assert described_attributes(text, "Parameters") == {"a": "Both.", "b": "Both.", "c": "Of c: two lines."}


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(a) for a in arguments])
    return int(caught.value.code or 0)


def test_a_bundled_config_is_printed_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What is printed is a config again; a system's name means its config for digits."""
    assert command("config", "--show", "pcn") == 0
    printed = capsys.readouterr().out
    assert parse_toml(printed) == parse_toml(bundled()["pcn-digits"].read_text(encoding="utf-8"))
    assert command("config", "--keys", "--system", "hopfield", "--json", tmp_path / "keys.json") == 0
    assert "[training]" in capsys.readouterr().out
    keys = json.loads((tmp_path / "keys.json").read_text())["keys"]
    assert {"section": "training", "key": "epochs", "type": "int", "default": "10"}.items() <= next(
        k for k in keys if k["key"] == "epochs"
    ).items()


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([], "show must be given, or --keys"),
        (["--show", "pcn", "--keys"], "and not both"),
        (["--show", "pcm"], "Did you mean"),
        (["--show", "pcn", "--system", "pcn"], "system must come with --keys"),
        (["--keys", "--system", "hopfeld"], "Did you mean 'hopfield'"),
    ):
        assert command("config", *arguments) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(InputError):
        config_keys("hopfeld")
