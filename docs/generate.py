"""Pages of the reference that are read off the code, so that they cannot be out of date.

Sphinx calls `write` before it reads the pages. The folder `docs/generated` is not in the repository.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
UNITS = {
    "siemens": "S",
    "volts": "V",
    "amperes": "A",
    "farad": "F",
    "ohm": "ohm",
    "radians": "rad",
    "seconds": "s",
}
"""Units as the meanings of keys spell them, and their symbols."""

COMMANDS = """# Commands

This page is generated from the command itself; `physics-ep COMMAND --help` says the same. [](../commands.md) has
one line a command to start from. Exit status: 0 done; 1 the work itself failed (no convergence, a limit missed);
2 bad input; 130, 143 and 129 ended by Ctrl-C, SIGTERM and SIGHUP.
"""
CONFIGURATION = """# Configuration

A config is a TOML file of the sections below. Only `[system] name` is required. This page is generated from the
models that check configs; `physics-ep config --keys --system NAME` prints the same, `physics-ep config --show NAME`
a bundled config. A default of *none* means that the key is left out, which its meaning explains. A key without a
unit is a number without one, or its unit depends on the system, as its meaning then says.
"""
FIELDS = """## Fields

*Parts* says which hardware reads the field: *common* is every substrate; *conveyors* are the arrays of Hopfield
circuits; *learning* acts while cells learn; *description* changes nothing but power, energy and area. A substrate
refuses a field that it does not read. A field of the value None is switched off.
"""
PRESETS_HEAD = """## Presets

`DeviceModel` values of published technologies, `preset("pcm")` in Python and `--preset pcm` in the command. What is
not listed is at its default. The [source of the presets](#where-each-value-is-from) says of each value whether it
was published or is an estimate.
"""


def write(folder: Path) -> None:
    """Write all generated pages into a folder; what has not changed is left, so that Sphinx skips it."""
    folder.mkdir(exist_ok=True)
    pages = {"commands": commands, "configuration": configuration, "devices": devices, "figures": figures}
    for name, page in pages.items():
        path, text = folder / f"{name}.md", page()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def commands() -> str:
    """Every command with its arguments and options, as the command itself knows them."""
    import typer

    from physics_ep.cli import application

    group: Any = typer.main.get_command(application({}))
    lines = [
        COMMANDS,
    ]
    for name, command in group.commands.items():
        lines += _command(name, command, level=2)
    return "\n".join(lines)


def _command(name: str, command: Any, level: int) -> list[str]:
    if command.hidden:
        return []
    lines = [f"{'#' * level} {name}", "", _prose(command.help or ""), ""]
    below = getattr(command, "commands", None)
    if below is not None:
        for part, inner in below.items():
            lines += _command(f"{name} {part}", inner, level + 1)
        return lines
    shown = [p for p in command.params if not p.hidden]
    usage = [f"[{p.metavar}]" if not p.required else p.metavar for p in shown if p.param_type_name == "argument"]
    lines += ["```text", " ".join(["physics-ep", name, "[OPTIONS]", *map(str, usage)]), "```", ""]
    rows = [(_spelling(p), _prose(getattr(p, "help", None) or "") + _shown_default(p)) for p in shown]
    lines += _table(("argument or option", "what it does"), rows)
    if command.epilog:
        lines += ["```text", command.epilog.strip(), "```", ""]
    return lines


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return _code(parameter.metavar or parameter.name.upper())
    names = ", ".join(parameter.opts)
    if getattr(parameter, "is_flag", False):
        return _code(names)
    kind = parameter.metavar or getattr(parameter.type_descriptor.annotation, "__name__", "value")
    return _code(f"{names} {kind}")


def _shown_default(parameter: Any) -> str:
    default = parameter.default
    return "" if default is None or default is False or default == [] else f" Default: {_code(str(default))}."


def configuration() -> str:
    """Every key of a config, and the options of every registered system, from the models that check them."""
    from physics_ep.config_keys import config_keys
    from physics_ep.registry import systems

    found = config_keys()
    lines = [
        CONFIGURATION,
    ]
    for section in dict.fromkeys(key.section for key in found):
        lines += [f"## [{section}]", ""]
        lines += _keys(key for key in found if key.section == section)
    lines += ["## Options of systems", "", "Further keys of `[system]`, by the system that `name` chooses.", ""]
    known = {key.key for key in found if key.section == "system"}
    for name in systems():
        options = [k for k in config_keys(name) if k.section == "system" and k.key not in known]
        lines += [f"### {name}", "", *_keys(options)]
    return "\n".join(lines)


def _keys(keys: Iterable[Any]) -> list[str]:
    rows = [
        (
            _code(key.key),
            _code(key.type),
            _code(key.default) if key.default not in {"none", "required"} else key.default,
            _unit(key.meaning),
            _prose(key.meaning),
        )
        for key in keys
    ]
    return _table(("key", "type", "default", "unit", "meaning"), rows)


def _unit(meaning: str) -> str:
    """The unit that a meaning names; nothing where it names several, for then the words must be read."""
    named = {UNITS[word] for word in re.findall(r"[a-z]+", meaning.lower()) if word in UNITS}
    return named.pop() if len(named) == 1 else ""


def devices() -> str:
    """The fields of a device, and the presets."""
    from hardware_models.devices.fields import defaults_of, fields_of
    from hardware_models.devices.model import DeviceModel
    from hardware_models.devices.presets import PRESETS
    from physics_ep.config_keys import described_attributes

    fields, defaults = fields_of(DeviceModel), defaults_of(DeviceModel)
    told = described_attributes(inspect.getdoc(DeviceModel) or "")
    fields_rows = [
        (_code(n), _plain(f.unit), _code(str(defaults[n])), ", ".join(f.parts), _prose(told.get(n, f.label)))
        for n, f in fields.items()
    ]
    parts = [
        FIELDS,
        *_table(("field", "unit", "default", "parts", "meaning"), fields_rows),
        PRESETS_HEAD,
    ]
    for name, device in PRESETS.items():
        changed = [
            (_code(n), _code(repr(getattr(device, n))), _plain(f.unit))
            for n, f in fields.items()
            if n != "source" and getattr(device, n) != defaults[n]
        ]
        parts += [f"### {name}", "", f"Source: {_plain(device.source)}.", ""]
        parts += _table(("field", "value", "unit"), changed)
    parts += [
        "(where-each-value-is-from)=",
        "## Where each value is from",
        "",
        "```{literalinclude} ../../hardware_models/devices/presets.py",
        ":language: python",
        ":start-at: RERAM = DeviceModel(",
        ':end-before: "PRESETS: dict"',
        "```",
        "",
    ]
    return "\n".join(parts)


def figures() -> str:
    """The gallery: every figure that has a picture, with its caption and its command, and a list of the others."""
    from figures.catalogue import FIGURES

    pictures = ROOT / "figures" / "gallery"
    lines, others = [], []
    for entry in FIGURES:
        if not (pictures / f"{entry.name}.png").is_file():
            others.append((_code(entry.name), _plain(entry.summary)))
            continue
        caption = entry.summary[0].upper() + entry.summary[1:]
        lines += [
            f"## {entry.name.replace('_', ' ').capitalize()}",
            "",
            f"```{{figure}} ../../figures/gallery/{entry.name}.png",
            f":alt: {caption}",
            "",
            f"{_plain(caption)}.",
            "```",
            "",
            "```text",
            f"physics-ep figure {entry.name} --out pictures",
            "```",
            "",
        ]
    head = [
        "# Figures of the command",
        "",
        "Each picture below is drawn by one command, as PDF, PNG and SVG. The same from Python:",
        "",
        "```python",
        "from figures import save",
        "from figures.catalogue import draw, find",
        "from figures.requests import Request",
        "",
        'drawn = draw(find("precision"), Request())',
        "print(drawn.data.keys())  # the numbers in it",
        'save(drawn.figure, "precision", "pictures")  # precision.pdf, .png and .svg in the folder pictures',
        "```",
        "",
    ]
    tail = ["## Without a picture here", "", *_table(("figure", "what it shows"), others)] if others else []
    return "\n".join([*head, *lines, *tail])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    body = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *body, ""] if body else []


def _code(text: str) -> str:
    """Text in the type of code, inside a table or outside."""
    return "`" + text.replace("|", "\\|") + "`"


def _plain(text: str) -> str:
    """Text without the marks of Markdown, on one line; formulas between dollars stay."""
    return re.sub(r"([|*<\[\]])", r"\\\1", re.sub(r"\s+", " ", text))


def _prose(text: str) -> str:
    """Text of a docstring: what stands between backquotes is code, all else is plain and holds no formulas."""
    parts = re.split(r"(`+[^`]*`+)", " ".join(text.split()))
    parts[::2] = [_plain(part).replace("$", "\\$").replace("_", "\\_") for part in parts[::2]]
    parts[1::2] = [part.replace("|", "\\|") for part in parts[1::2]]
    return "".join(parts)
