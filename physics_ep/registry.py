"""The registered commands, systems, substrates, schemes and figures: entry points that any package may add to.

A package adds a command or a system in its pyproject.toml, as this project does in its own::

    [project.entry-points."physics_ep.commands"]
    mine = "my_package.commands:register"       # takes the typer application and adds its commands

    [project.entry-points."physics_ep.systems"]
    my-system = "my_package.system:MySystem"    # builds an EnergySystem from keyword options

    [project.entry-points."physics_ep.files"]
    my-system = "my_package.files:ENDINGS"      # ('.mine',): such files are this system, built with file=PATH

    [project.entry-points."physics_ep.hosted"]
    my-system = "my_package.places:WHY"         # it computes on the CPU only: "solves by LAPACK there", in a file
                                                # that imports no torch, so that commands refuse a device at once

    [project.entry-points."physics_ep.substrates"]
    my-substrate = "my_package.pairs:MyPairs"   # a subclass of hardware_models.PairedCircuit, for map_pcn

    [project.entry-points."physics_ep.schemes"]
    five_point = "my_package.nudging:five_point"   # a Stencil, or a function without arguments that makes one

    [project.entry-points."physics_ep.loggers"]
    my-log = "my_package.logs:my_log"           # (path of the run file, config) -> a physics_ep.Callback

    [project.entry-points."physics_ep.figures"]
    my_figure = "my_package.my_figure:ENTRY"    # a figures.requests.Entry, for physics-ep figure

    [project.entry-points."physics_ep.plots"]
    MyResult = "my_package.my_figure:plot"      # (result, **look) -> figure: what MyResult.plot() draws
"""

from __future__ import annotations

import importlib.resources
import inspect
import json
import math
import typing
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .entries import entries, load
from .errors import InputError, argument_error, unknown_name
from .moved import moved_names

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)

if TYPE_CHECKING:
    from .physical_system import PhysicalSystem

__all__ = [
    "accepts",
    "build_system",
    "bundled",
    "check_options",
    "choices",
    "commands",
    "figures",
    "files",
    "former_options",
    "hosted",
    "load",
    "loggers",
    "require_finite",
    "schemes",
    "substrates",
    "systems",
    "told_options",
]


def commands() -> dict[str, EntryPoint]:
    """Command entries by name: functions that take the typer application."""
    return entries("physics_ep.commands")


def systems() -> dict[str, EntryPoint]:
    """System entries by name: callables that build an `EnergySystem` from keyword options."""
    return entries("physics_ep.systems")


def files() -> dict[str, str]:
    """Ending of files that are a system wherever one is named, in lower case, to that system's registered name."""
    return {ending: name for name, entry in entries("physics_ep.files").items() for ending in load(entry)}


def hosted() -> dict[str, EntryPoint]:
    """Systems that compute on the CPU only, by name: why, as the end of a sentence that begins with the name."""
    return entries("physics_ep.hosted")


def bundled() -> dict[str, Path]:
    """Names of the bundled configs and where they are."""
    folder = Path(str(importlib.resources.files("physics_ep") / "configs"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def substrates() -> dict[str, EntryPoint]:
    """Substrates of other packages by name: subclasses of `hardware_models.PairedCircuit`, for `map_pcn`."""
    return entries("physics_ep.substrates")


def schemes() -> dict[str, EntryPoint]:
    """Nudging schemes of other packages by name: a `Stencil`, or a function without arguments that makes one."""
    return entries("physics_ep.schemes")


def figures() -> dict[str, EntryPoint]:
    """Figures of other packages by name: a `figures.requests.Entry` each."""
    return entries("physics_ep.figures")


def loggers() -> dict[str, EntryPoint]:
    """Loggers of trainings by name: callables (path of the run file, config) that make a `Callback`."""
    return entries("physics_ep.loggers")


def choices() -> dict[str, list[str]]:
    """Names that a user may choose from, by what they are names of: substrates, schemes, imperfections and others.

    Each entry of the group `physics_ep.choices` names an iterable of names, or a function that returns one; those
    that other packages add to substrates, schemes and loggers are among them.
    """
    added = {"substrates": substrates, "schemes": schemes, "loggers": loggers}
    found: dict[str, list[str]] = {}
    for kind, entry in entries("physics_ep.choices").items():
        names = load(entry)
        names = names() if callable(names) else names
        found[kind] = list(dict.fromkeys([*names, *(added[kind]() if kind in added else ())]))
    return found


def build_system(name: str, **options: Any) -> PhysicalSystem:
    """Build a registered system.

    Parameters
    ----------
    name : str
        A registered name: a key of `systems()`.
    **options
        Keyword arguments of the system's constructor.

    Returns
    -------
    EnergySystem

    Raises
    ------
    InputError
        If the name is not registered, or an option is unknown, missing, or of the wrong type or value.
    """
    entries = systems()
    if name not in entries:
        raise unknown_name("system", name, entries)
    build = load(entries[name])
    check_options(build, options, f"system {name!r}")
    try:
        return typing.cast("PhysicalSystem", build(**options))
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"System {name!r} cannot be built from {options}: {_one_line(error)}") from error


def former_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a system as an earlier release stored them, with the defaults that have changed since.

    Parameters
    ----------
    name : str
        The registered name. Of a system that is not registered here nothing is known.
    options : mapping of str to Any
        The options that stand in the file.

    Returns
    -------
    dict
        The options, and those in the system's `former_defaults` that were not given.
    """
    known = systems()
    former = getattr(load(known[name]), "former_defaults", {}) if name in known else {}
    return {**former, **options}


def told_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a system as they are stored: defaults that have changed once, or may be taken for the former ones,
    are told.

    Parameters are those of `former_options`.
    """
    build = load(systems()[name])
    parameters = inspect.signature(build).parameters
    return {**{key: parameters[key].default for key in getattr(build, "former_defaults", {})}, **options}


def accepts(build: Callable[..., Any], option: str) -> bool:
    """Whether a callable takes a keyword of this name."""
    parameters = inspect.signature(build).parameters
    return option in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_options(
    build: Callable[..., Any], options: dict[str, Any], owner: str, given: tuple[str, ...] = ()
) -> None:
    """Check keyword options against the signature and the annotations of what they go to.

    Parameters
    ----------
    build : callable
    options : dict
    owner : str
        What messages call it: "system 'hopfield'".
    given : tuple of str
        Parameters that the caller fills in itself.

    Raises
    ------
    InputError
        If an option is unknown, missing, not finite or not of the annotated type.
    """
    parameters = {n: p for n, p in inspect.signature(build).parameters.items() if n not in given and n != "self"}
    named = {n: p for n, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for option in options:
            if option not in named:
                raise unknown_name(f"option of {owner}", option, named)
    for option, parameter in named.items():
        if parameter.default is parameter.empty and option not in options:
            raise InputError(f"Argument {option} of {owner} must be given.")
    hints = _type_hints(build)
    for option, value in options.items():
        require_finite(f"{option} of {owner}", value)
        if option in hints:
            _check_type(f"{option} of {owner}", value, hints[option])


def require_finite(name: str, value: Any) -> None:
    """Raise InputError if a number, or a number within nested lists and tables, is NaN or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise argument_error(name, "be finite", value)
    if isinstance(value, list | tuple):
        for item in value:
            require_finite(name, item)
    if isinstance(value, dict):
        for key, item in value.items():
            require_finite(f"{name}.{key}", item)


def _type_hints(build: Callable[..., Any]) -> dict[str, Any]:
    target = build.__init__ if inspect.isclass(build) else build
    try:
        return typing.get_type_hints(target)
    except (NameError, TypeError):
        return {}  # names that only a type checker imports: the constructor's own checks remain


def _check_type(name: str, value: Any, hint: Any) -> None:
    """Check a TOML-like value against an annotation; others are left to the constructor."""
    from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        return
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, TypeError):
        # A class that forbids a config of its own, or a type that pydantic does not know.
        return
    try:
        # JSON mode takes a list for a tuple, as TOML must, and is otherwise strict (no '3' for 3, no True for 1).
        adapter.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        must = first["msg"][:1].lower() + first["msg"][1:].replace("Input should be", "be")
        must = must.replace("input should be", "be")
        raise argument_error(name, must, repr(value)) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
