"""Every key of a config with its type, its default and what it means, read from the models that check configs."""

from __future__ import annotations

import inspect
import re
import types
import typing
from dataclasses import dataclass
from typing import Any

from .config import Config, Section
from .errors import unknown_name
from .registry import load, systems


@dataclass(frozen=True)
class ConfigKey:
    """One key of a config, with its type, default, unit and meaning.

    Attributes
    ----------
    section, key : str
    type : str
        The type, written as in Python.
    default : str
        The default, written as in TOML; 'none': left out, which means something; 'required': it may not be left
        out.
    meaning : str
        What the key means, with its unit, where there is one.
    """

    section: str
    key: str
    type: str
    default: str
    meaning: str


def config_keys(system: str | None = None) -> list[ConfigKey]:
    """Keys of all sections, in the order of the models.

    Parameters
    ----------
    system : str, optional
        A registered system whose own options are listed too, under [system].

    Raises
    ------
    InputError
        If there is no such system.
    """
    found: list[ConfigKey] = []
    for name, field in Config.model_fields.items():
        model = next(m for m in _parts(field.annotation) if isinstance(m, type) and issubclass(m, Section))
        found += _of_model(name, model)
        if name == "system" and system is not None:
            found += _of_system(system)
    return found


def _of_model(section: str, model: type[Section]) -> list[ConfigKey]:
    told = described_attributes(inspect.getdoc(model) or "")
    return [
        ConfigKey(
            section,
            key,
            _type(field.annotation),
            "required" if field.is_required() else _toml(field.get_default(call_default_factory=True)),
            told.get(key, ""),
        )
        for key, field in model.model_fields.items()
    ]


def _of_system(name: str) -> list[ConfigKey]:
    entries = systems()
    if name not in entries:
        raise unknown_name("system", name, entries)
    build = load(entries[name])
    told = described_attributes(inspect.getdoc(build) or "", "Parameters")
    return [
        ConfigKey(
            "system",
            key,
            str(p.annotation) if p.annotation is not p.empty else "",
            "required" if p.default is p.empty else _toml(p.default),
            told.get(key, ""),
        )
        for key, p in inspect.signature(build).parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]


def described_attributes(docstring: str, title: str = "Attributes") -> dict[str, str]:
    """What a docstring says of each name under a title, on one line; names that share a line share the text."""
    block = re.search(rf"^{title}\n-+\n(.*?)(?=\n\n?[A-Z][a-z]+\n-+\n|\Z)", docstring, re.DOTALL | re.MULTILINE)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in block.group(1).splitlines() if block else []:
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.partition(":")[0].split(",")]
            found.update(dict.fromkeys(names, ""))
        else:
            found.update({name: f"{found[name]} {line.strip()}".strip() for name in names})
    return found


def _parts(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type that it is."""
    union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    return typing.get_args(annotation) if union else (annotation,)


def _type(annotation: Any) -> str:
    """A type as people write it, without the bounds of pydantic."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _type(typing.get_args(annotation)[0])
    if len(parts := _parts(annotation)) > 1:
        return " | ".join(_type(part) for part in parts if part is not type(None))
    if typing.get_origin(annotation) is typing.Literal:
        return " | ".join(_toml(value) for value in typing.get_args(annotation))
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_type, inner))}]"
    return getattr(annotation, "__name__", str(annotation))


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Section):
        return "its defaults"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        value = list(value)
    return repr(value) if isinstance(value, int | float | list | dict) else str(value)
