"""What a figure is asked for with, what comes back, and a row of the catalogue."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from physics_ep.errors import argument_error
from physics_ep.progress import SILENT, Progress
from physics_ep.storage.outputs import as_asked

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

OPTIONS = ("cost", "beta", "gates")
"""Options that some figures go by, and others refuse."""
BATCH = 64
"""Examples in the batches whose gradients are compared."""


def names_folder(run: Path) -> bool:
    """Whether --from names a folder, and no network whose name a folder happens to bear."""
    if not run.is_dir():
        return False
    from physics_ep.registry import bundled, systems
    from physics_ep.zoo.networks import zoo

    return str(run) not in {*systems(), *bundled(), *zoo()}


@dataclass(frozen=True)
class Request:
    """What a figure is to be made of.

    Attributes
    ----------
    run : Path or None
        Run file of a training, or another name of a SYSTEM (`physics_ep.config.load_subject`); None: fresh
        networks, and a training of the bundled config for the learning curve.
    seed : int
        Seed of initial couplings and of random signs; from 0 to 2**53 - 1.
    device, dtype : str or None
        None: the CPU, and float64 where gradients are judged. The precision figure draws both dtypes.
    progress : Progress
    weights : Path or None
        File of weights for a SYSTEM that is no run file.
    cost, beta, gates : str or None
        What the command `gradients` takes by these names, for figures whose entry lists them among its `options`.
    """

    run: Path | None = None
    seed: int = 0
    device: str | None = None
    dtype: str | None = None
    progress: Progress = SILENT
    weights: Path | None = None
    cost: str | None = None
    beta: str | None = None
    gates: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**53:
            raise argument_error("seed", "be an integer from 0 to 2**53 - 1", self.seed)

    def place(self) -> dict[str, Any]:
        """Device and dtype as torch has them."""
        from physics_ep.placement import resolve_device, resolve_dtype

        kind: torch.dtype = resolve_dtype("float64" if self.dtype is None else self.dtype)
        return {"device": resolve_device(self.device), "dtype": kind}


@dataclass(frozen=True)
class Drawn:
    """A figure and the numbers in it.

    Attributes
    ----------
    figure : Figure
    data : dict
        Arrays and numbers, by the field names of the figure's data class.
    """

    figure: Figure
    data: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A row of the catalogue.

    Attributes
    ----------
    name, summary : str
    maker : str or callable
        The function (Request) -> Drawn that makes the figure, or 'module:function', imported when it is drawn.
    systems : tuple of str
        Registered systems of whose runs it can be drawn; none named is any.
    kinds : tuple of str
        Kinds of files beside trainings that it can be drawn from, by their attribute `kind`.
    options : tuple of str
        Of `OPTIONS`, the attributes of a `Request` that it goes by.
    folder : bool
        Whether --from names a folder, and no run file or system.
    """

    name: str
    summary: str
    maker: str | Callable[[Request], Drawn]
    systems: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    folder: bool = False

    def check(self, request: Request) -> None:
        """Raise InputError where a request has an option that the figure does not go by, or a folder."""
        for name in OPTIONS:
            if getattr(request, name) is not None and name not in self.options:
                must = f"be left out for {self.name}, which does not go by it"
                raise argument_error(name, must, repr(getattr(request, name)))
        if request.run is not None and names_folder(request.run) != self.folder:
            must = "be a folder" if self.folder else "be a run file or a system, not a folder"
            raise argument_error(as_asked("--from", "run"), f"{must} for {self.name}", str(request.run))

    def make(self, request: Request) -> Drawn:
        """Measure and draw the figure."""
        if not isinstance(self.maker, str):
            return self.maker(request)
        module, _, function = self.maker.partition(":")
        maker: Callable[[Request], Drawn] = getattr(importlib.import_module(module), function)
        return maker(request)


def refuse_run(request: Request, name: str, shown: str) -> None:
    """Raise InputError where a figure that draws networks of its own was given a run file."""
    if request.run is not None:
        raise argument_error(
            as_asked("--from", "run"), f"be left out for {name}, which shows {shown}", str(request.run)
        )
