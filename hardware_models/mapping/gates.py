"""Held gates beside live ones on a mapped network: what settles, how far gradients are off, and what latches take.

Held gates are an assumption about the machine: a latch a unit keeps the side of its kink on which the free phase
left it, while the network is nudged. Live gates need no latch; units may then switch, and some nudged phases have
no equilibrium.
"""

from __future__ import annotations

import warnings
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch

from physics_ep.cost import SquaredError
from physics_ep.equilibrium import NotConverged
from physics_ep.estimators.methods import HARDWARE, AsymmetryWarning, Choice, MethodChoice
from physics_ep.estimators.propagation import NegativeNudgeError
from physics_ep.extremes import greatest
from physics_ep.nudging import centered
from physics_ep.predictive_coding.forward import GATES
from physics_ep.relaxation.loop import relax

from .budget import count_parts
from .mapped import Mapped

ROUNDING = 1e-6
"""Asymmetry up to which currents have an energy, whatever rounds them."""


@dataclass(frozen=True)
class NudgedGates:
    """What nudged phases do with one mode of gates.

    Attributes
    ----------
    gates : {'held', 'live'}
    examples, settled : int
        Examples, and those whose free and nudged phases all settle.
    gap : float
        1 - cosine of the worst weights' EP gradient to backprop through the arrays that drive h, in float64, of the
        examples that settle; NaN where none does.
    beta : float
        Nudging strength; NaN where none was found.
    solver : str
        What found the free states; empty where they were refused.
    latches : int
        Number of latches that hold the gates.
    latch_energy : float
        J an EP step and example.
    latch_area : float
        m^2.
    """

    gates: str
    examples: int
    settled: int
    gap: float
    beta: float
    solver: str
    latches: int
    latch_energy: float
    latch_area: float

    def figures(self) -> dict[str, Any]:
        """For JSON: the fields, and the share of the examples that settle."""
        return {**asdict(self), "settled_share": self.settled / max(self.examples, 1)}


def method_of(mapped: Mapped, x: torch.Tensor, asked: str | None = None) -> Choice:
    """The EP method by which a mapped network is nudged when `asked` is wanted, and the asymmetry that was
    measured for it.

    Parameters
    ----------
    mapped : Mapped
    x : Tensor (B, ...)
        Inputs at whose free states the asymmetry of the currents is measured, where that decides.
    asked : str or None
        One of `physics_ep.nudging.METHODS`; None: the system's own.

    Raises
    ------
    InputError
        If there is no such method, or the network's phases cannot have it.
    """
    system = mapped.system
    chosen = MethodChoice(asked, centered(), 1)
    chosen.check(system)
    x = x.to(system.device, system.dtype)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", AsymmetryWarning)  # that is what is told
        phase = system.phase(system.prepare(x), origin=relax(system, x).state, balanced=True)
        chosen.displaced(system, phase)
    return chosen.choice


def hardware_of(choice: Choice) -> str:
    """What a method asks of a machine, in a sentence; ordinary EP on unequal copies is biased, and told to be."""
    biased = choice.method == "energy" and choice.even > ROUNDING
    return HARDWARE["vector-field" if biased else choice.method]


def compare_gates(
    mapped: Mapped, x: torch.Tensor, beta: float | str = "auto", method: str | None = None
) -> tuple[NudgedGates, ...]:
    """Estimate one gradient of a mapped network with held gates and with live ones, at one beta.

    The cost is the squared error to class k mod n of example k: any target shows what settles.

    Parameters
    ----------
    mapped : Mapped
        A mapped network with held gates, whose latches are then counted.
    x : Tensor (B, ...)
    beta : float or 'auto'
        'auto' is settled with held gates.
    method : str, optional
        Method of EP. Default: the system's.

    Returns
    -------
    tuple of NudgedGates
        Held, then live; none where no unit has a kink.
    """
    if not mapped.system.has_gates:
        return ()
    x = x.to(mapped.system.device, mapped.system.dtype)
    labels = torch.arange(len(x), device=x.device) % mapped.system.sizes[-1]
    cost = SquaredError()
    y = cost.encode(labels, mapped.system.sizes[-1], x.dtype)
    device, latches = mapped.device, count_parts(mapped.system).gates
    found: list[NudgedGates] = []
    for gates in GATES:
        settled, gap, strength, solver = 0, float("nan"), float("nan"), ""
        try:
            estimate, step = mapped.estimate(
                x, y, cost, beta=beta, gates=gates, on_unconverged="skip", method=method
            )
        except (NotConverged, NegativeNudgeError):
            pass  # no example settles
        else:
            assert step.used is not None
            used = step.used
            settled, strength, solver = int(used.sum()), step.beta, step.equilibria[0].solver
            beta = strength
            if settled:
                gap = _gap(mapped, estimate, x[used], y[used], cost)
        count = latches if gates == "held" else 0
        takes = (count, count * device.latch_energy, count * device.latch_area)
        found.append(NudgedGates(gates, len(x), settled, gap, strength, solver, *takes))
    return tuple(found)


def _gap(
    mapped: Mapped, estimate: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, cost: SquaredError
) -> float:
    """1 - cosine of the worst weights to backprop of the arrays that drive h."""
    twin = deepcopy(mapped.perturbed).double()
    weights = {name: p for name, p in twin.named_parameters() if name.endswith("weight") and p.requires_grad}
    with torch.enable_grad():
        loss = cost(twin(x.double()), y.double()).mean()
        exact = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    gaps = []
    for name, wanted in zip(weights, exact, strict=True):
        if wanted is None:
            continue
        given = estimate[name].double()
        size = float(given.norm() * wanted.norm())
        gaps.append(1 - float((given * wanted).sum()) / size if size > 0 else 1.0)
    return greatest(gaps)
