"""Learning on the device: a mapped network whose cells are moved by pulses, after each EP step on the substrate.

The gradient is the substrate's own, so that whatever the cells err is in it. An optimizer, digital, turns it into
wanted changes of weights; `pulses.PulsedArray` turns these into pulses. Nothing else is known of the cells.

Where several physical cells stand for a weight, `DeviceModel.copies` says how they learn. 'independent': each gets
the pulses that the wanted change asks for, and makes of them what it can. 'trimmed': those that drive h get pulses,
and the others are written and verified against them anew whenever an array has been moved. 'shared': one learns for
all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from physics_ep.cost import Cost
from physics_ep.errors import argument_error
from physics_ep.estimators.step import Step
from physics_ep.runs.optimization import clip_gradients

from ..devices.crossbars import Cells, largest_size
from ..devices.pulses import PulsedArray
from .mapped import Mapped

Optimizer = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]


class InSitu:
    """A network that learns on its substrate.

    Parameters
    ----------
    mapped : Mapped
        Its cells are written anew, with `headroom`; from then on they are moved by pulses.
    optimizer : callable
        Parameters to a torch optimizer, such as `lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)`.
    rule, side : str
        How pulses are counted and which cells of a pair they move, as in `PulsedArray`.
    headroom : float
        Weight that an array can hold over the largest that is written first, 1 or more.
    clip_norm : float, optional
        Largest norm of a gradient, of all parameters together; a larger one is scaled down to it before the
        optimizer sees it (Pascanu et al. 2013). None: no gradient is changed.

    Attributes
    ----------
    arrays : dict of str to PulsedArray
        Arrays that get pulses, by the network's parameter names; of their copies by the keys of `Board.physical`.
    optimizer : torch.optim.Optimizer

    Raises
    ------
    InputError

    Examples
    --------
    >>> import torch
    >>> from physics_ep import SquaredError
    >>> from physics_ep.predictive_coding import mlp
    >>> from hardware_models import DeviceModel, map_pcn
    >>> mapped = map_pcn(mlp([4, 8, 3]), "hopfield", DeviceModel(levels=16, programming_noise=0.05))
    >>> learner = InSitu(mapped, lambda p: torch.optim.SGD(p, lr=0.1), headroom=3)
    >>> step = learner.step(torch.rand(2, 4), torch.zeros(2, 3), SquaredError(), beta=0.1)
    """

    def __init__(
        self,
        mapped: Mapped,
        optimizer: Optimizer,
        *,
        rule: str = "accumulated",
        side: str = "single",
        headroom: float = 1.0,
        clip_norm: float | None = None,
    ) -> None:
        if not isinstance(mapped, Mapped):
            raise argument_error("mapped", "be a mapped network, as map_pcn returns it", type(mapped).__name__)
        if not callable(optimizer):
            must = "be a function from parameters to an optimizer, such as lambda p: torch.optim.SGD(p, lr=0.1)"
            raise argument_error("optimizer", must, type(optimizer).__name__)
        if isinstance(headroom, bool) or not isinstance(headroom, int | float) or not 1 <= headroom < math.inf:
            raise argument_error("headroom", "be a finite number of 1 or more", repr(headroom))
        if clip_norm is not None and (
            isinstance(clip_norm, bool) or not isinstance(clip_norm, int | float) or not 0 < clip_norm < math.inf
        ):
            raise argument_error("clip_norm", "be a finite number above 0, or None", repr(clip_norm))
        self.mapped, self.clip_norm = mapped, clip_norm
        device, system = mapped.device, mapped.system
        self.arrays: dict[str, PulsedArray] = {}
        parameters = {name: p.detach() for name, p in mapped.network.named_parameters()}
        largest = {name: largest_size(p) for name, p in parameters.items()}
        self._rule = rule
        self._copies: dict[str, list[str]] = {}
        self._trimmed: dict[str, dict[str, Cells]] = {}
        """What trimmed arrays hold, by the keys of `Board.physical`."""
        self._turn = 0
        for name, values in parameters.items():
            span = headroom * system.span(name, largest)
            keys = list(system.physical(name))
            self._copies[name] = keys if device.copies == "independent" and self._differ else [name]
            for key in self._copies[name]:
                self.arrays[key] = PulsedArray(values, device, mapped.seed, key, span, rule=rule, side=side)
        system.write(self._cells(self._copies), parameters)
        self.optimizer = optimizer(dict(system.named_parameters()).values())

    def step(
        self, x: torch.Tensor, y: torch.Tensor, cost: Cost, beta: float | str = "auto", **options: Any
    ) -> Step:
        """Learn from a batch: EP on the substrate, then pulses.

        Parameters
        ----------
        x, y, cost, beta, **options
            The arguments of `Mapped.estimate` of the same names. Where no example is used, no cell is moved.

        Returns
        -------
        Step

        Raises
        ------
        NotConverged, NegativeNudgeError
            If `Mapped.estimate` raises it; no cell is moved then.
        NotRealisable
            If the rails of a resistive network need a gain beyond their limit, now that cells have moved.
        """
        gradient, step = self.mapped.estimate(x, y, cost, beta=beta, **options)
        if step.skipped == len(x):  # an optimizer that remembers, or lets weights decay, would move cells
            return step
        system = self.mapped.system
        # What holds sums and means, and what is frozen, has no gradient: its cells stay.
        parameters = {name: p for name, p in system.named_parameters() if name in gradient}
        before = {name: p.detach().clone() for name, p in parameters.items()}
        for name, p in parameters.items():
            p.grad = gradient[name].to(p)
        clip_gradients(parameters.values(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            wanted = {name: p.detach() - before[name] for name, p in parameters.items()}
            for name, p in parameters.items():
                p.copy_(before[name])
        moved = []
        for name, change in wanted.items():
            if any([self.arrays[key].move(change) for key in self._copies[name]]):  # a list: all of them move
                moved.append(name)
        if moved:
            system.write(self._cells(moved))
        return step

    def _cells(self, names: Iterable[str]) -> dict[str, Cells]:
        system = self.mapped.system
        found = {key: self.arrays[key].cells for name in names for key in self._copies[name]}
        if self.mapped.device.copies == "trimmed" and self._differ:
            for name in names:
                copies = system.trimmed(name, found[name], self._turn, self._trimmed.get(name))
                self._trimmed[name] = {name: found[name], **copies}
                found.update(copies)
            self._turn += 1
        return found

    @property
    def _differ(self) -> bool:
        """Whether two cells that are asked for the same come to differ."""
        device = self.mapped.device
        stochastic = self._rule == "stochastic" and (device.pulses is not None or device.levels is not None)
        return stochastic or device.draws_cells or device.pulse_noise > 0 or device.pulse_spread > 0

    @property
    def pulses(self) -> int:
        """Number of pulses spent so far on all cells; writings of trimmed copies are counted by `writings`."""
        return sum(array.pulses for array in self.arrays.values())

    @property
    def writings(self) -> int:
        """Writings that trimming has taken so far, the first included."""
        return self.mapped.system.writings

    @property
    def refreshes(self) -> int:
        """Number of pairs of cells that were written anew so far."""
        return sum(array.refreshes for array in self.arrays.values())

    def state_dict(self) -> dict[str, Any]:
        """What changes while learning: cells, digital sums, generators, the optimizer."""
        return {
            "arrays": {name: array.state_dict() for name, array in self.arrays.items()},
            "optimizer": self.optimizer.state_dict(),
            "reads": self.mapped.system.reads.get_state(),
            "trimming": (self.mapped.system.writings, self.mapped.system.missed, self._turn),
            "trimmed": {name: dict(held) for name, held in self._trimmed.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state of the same network, device instance, options, and place where noise is drawn.

        Raises
        ------
        InputError
            If noise was drawn elsewhere: a CPU's generator and a GPU's have no state in common.
        """
        if state["reads"].shape != self.mapped.system.reads.get_state().shape:
            raise argument_error("state", f"come from a system on {self.mapped.system.device.type}", "another's")
        for name, array in self.arrays.items():
            array.load_state_dict(state["arrays"][name])
        # Files of earlier releases know of no copies.
        system, self._trimmed = self.mapped.system, state.get("trimmed", {})
        system.write(self._cells(self._copies))
        system.writings, system.missed, self._turn = state.get("trimming", (0, 0, 0))
        self.optimizer.load_state_dict(state["optimizer"])
        self.mapped.system.reads.set_state(state["reads"])
