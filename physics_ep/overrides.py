"""What a subclass overrides of a system's physics, and which inherited fast methods then describe another system.

A built-in system has methods that know its energy and its outputs by heart: a phase with exact updates, solvers,
equations of motion, a contrast in closed form. A subclass that changes the energy and keeps those would relax to
equilibria of the old one. `fitted` puts the general methods in the place of the fast ones that no longer fit.
"""

from __future__ import annotations

from typing import Any

from .errors import InputError, argument_error

PHYSICS = ("energy", "outputs", "force", "coordinates", "project", "initial_state", "prepare")
"""Methods that say what a system is; those of them that its contract has."""

DECLARATION = "fast_methods_hold"

AS_MADE = "_physics_as_made"
"""Attribute of a class: (class, name, method) of its physics when it was made, mixins in its lineage included."""

BUILT_ON: dict[str, tuple[str, ...]] = {
    "phase": PHYSICS,
    "solvers": PHYSICS,
    "motion": PHYSICS,
    "flows": PHYSICS,
    "contrast": ("energy", "force", "coordinates"),
    "force": ("energy",),
    "free_variables": ("energy", "force", "project"),
    "curvature_diagonal": ("energy", "force"),
    "symmetries": ("energy", "force"),
    "default_tolerance": ("energy", "force"),
    "tolerance_share": ("energy", "force"),
}
"""Methods that a system may have beyond its physics, and what of the physics each has in it."""

GENERAL = {
    "bilinear": False,
    "clamps": False,
    "feedforward": False,
    "relative_residual": False,
    "default_oracle": "implicit",
}
"""What holds of a system that is relaxed by the general methods, where it says nothing else itself."""


def _nearest(lineage: tuple[type, ...], name: str) -> int:
    """Number of the first class of a lineage that defines a name itself; the last one has what it inherits."""
    return next((i for i, c in enumerate(lineage) if name in vars(c)), len(lineage) - 1)


def fitted(cls: type, base: type) -> tuple[str, ...]:
    """Put the general methods of `base` in the place of inherited fast ones that do not describe a new subclass.

    A fast method, such as a solver or a contrast in closed form, knows the physics (energy, outputs, force) of the
    class that defines it. It describes another system once a subclass overrides that physics.

    A class whose body says `fast_methods_hold = True` vouches for all fast methods that it inherits. A class that
    gives a tuple of names there vouches for the methods of these names alone.

    Parameters
    ----------
    cls : type
        New subclass of `base`; it is changed.
    base : type
        Class that has the general methods.

    Returns
    -------
    tuple of str
        Methods of `PHYSICS` that were overridden and because of which fast methods were replaced; empty where all
        were kept.
    """
    lineage = cls.__mro__[: cls.__mro__.index(base) + 1]
    overridden: set[str] = set()
    replaced = []
    for method, parts in BUILT_ON.items():
        where = _nearest(lineage, method)
        if lineage[where] is base:
            continue
        culprits = {
            part
            for part in parts
            if hasattr(base, part)
            and (at := _nearest(lineage, part)) < where
            and not _vouched(lineage[: at + 1], method)
        }
        if culprits:
            overridden |= culprits
            replaced.append(method)
    for method in replaced:
        setattr(cls, method, getattr(base, method))
    if "phase" in replaced:
        _general(cls, base, lineage[: 1 + max(_nearest(lineage, part) for part in overridden)])
    # Mixins have no such record of their own.
    own = [c for c in lineage[:-1] if c is cls or not issubclass(c, base)]
    known = [part for part in PHYSICS if hasattr(base, part)]
    setattr(cls, AS_MADE, tuple((c, part, vars(c).get(part)) for c in own for part in known))
    return tuple(part for part in PHYSICS if part in overridden)


def require_unpatched(system: Any) -> None:
    """Refuse a system of which a class had a method of `PHYSICS` set after it was made.

    Its fast methods were chosen for what the class was then.

    Raises
    ------
    InputError
        It names the method and the class.
    """
    for entry in type(system).__mro__:
        for owner, part, method in vars(entry).get(AS_MADE, ()):
            if vars(owner).get(part) is not method:
                raise InputError(
                    f"Argument {part} of a {type(system).__name__} must be overridden by a subclass, but was set "
                    f"on the class {owner.__name__} after it was made: its phases would not follow it."
                )


def declaring(cls: type, base: type, parts: tuple[str, ...]) -> tuple[type, ...]:
    """Classes whose attributes speak of what `cls` has become: those from which it has overridden one of `parts`.

    Empty if fast methods of ancestors were not replaced because of these.
    """
    lineage = cls.__mro__[: cls.__mro__.index(base) + 1]
    changed = [_nearest(lineage, part) for part in parts if part in cls.overridden]  # type: ignore[attr-defined]
    changed = [at for at in changed if lineage[at] is not base]
    return lineage[: 1 + min(changed)] if changed else ()


def _vouched(lineage: tuple[type, ...], method: str) -> bool:
    given = [vars(c)[DECLARATION] for c in lineage if DECLARATION in vars(c)]
    return any(held is True or (isinstance(held, tuple) and method in held) for held in given)


def _general(cls: type, base: Any, own: tuple[type, ...]) -> None:
    """Attributes of a class that the general methods relax; those that its own classes declare stay."""

    def declared(name: str) -> bool:
        return any(name in vars(c) for c in own)

    for name, value in GENERAL.items():
        if not declared(name):
            setattr(cls, name, value)
    if not declared("default_max_iterations"):
        most = max(cls.default_max_iterations, base.default_max_iterations)  # type: ignore[attr-defined]
        cls.default_max_iterations = most  # type: ignore[attr-defined]
    if not declared("analytic"):
        # An ancestor's constructor sets it for its own energy: that says nothing of this one.
        cls.analytic = property(lambda self: False, lambda self, value: None)  # type: ignore[attr-defined]


def require_physics(system: Any, base: type, name: str) -> None:
    """Refuse a system that is to be made into parts or a graph, which hold its ancestor's energy alone.

    Parameters
    ----------
    system : EnergySystem or VectorField
    base : type
        The class whose energy and outputs that form has.
    name : str
        What the caller's argument is called.

    Raises
    ------
    InputError
        Naming the methods that the system's class overrides.
    """
    own = [
        part for part in ("energy", "outputs", "force") if getattr(type(system), part) is not getattr(base, part)
    ]
    if own:
        was = f"a {type(system).__name__}, which overrides {', '.join(own)}"
        raise argument_error(name, f"have the energy and the outputs of {base.__name__}", was)
