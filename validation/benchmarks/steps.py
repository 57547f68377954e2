"""Steps of a predictive coding network on one batch, to time and to judge: backprop, and EP by a recipe."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import interpolate

from physics_ep.cost import Cost
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.extremes import greatest
from physics_ep.moved import moved_names
from physics_ep.predictive_coding import PredictiveCodingNetwork, to_sequential
from physics_ep.predictive_coding.published import EverywhereModPgd
from physics_ep.predictive_coding.solvers import SOLVERS
from validation.gradients import GradientRow, compare

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)

NEVER = 10**9
EVERYWHERE = "mod_pgd_everywhere"
OPPONENTS = ("backprop, Sequential", "backprop, network")
"""Ordinary autograd on a copy of the network as an `nn.Sequential`, and on the network's own forward pass."""


@dataclass(frozen=True)
class StepRecipe:
    """How an EP step settles.

    Attributes
    ----------
    name : str
    solver : str or None
    tolerance : float or None
        None: the network's default.
    sweeps : int or None
        Exactly so many iterations, whatever they have reached by then, in place of a tolerance.
    gates : {'held', 'live'}
    beta : float or None
        None: what beta='auto' measured beforehand.
    share : float
        Part of the measured beta to take: residuals fall with beta, and carried errors lose no digits by it.
    target : float or None
        What the step may cost, in backprop steps.
    opposite : {'relaxed', 'mirrored'}
        Whether the state under -beta is relaxed, or is the mirror image of the other.
    """

    name: str
    solver: str | None = None
    tolerance: float | None = None
    sweeps: int | None = None
    gates: str = "held"
    beta: float | None = None
    share: float = 1.0
    target: float | None = None
    opposite: str = "relaxed"


@dataclass(frozen=True)
class Settling:
    """How an EP step's nudged phases ended, without their states, which may be large.

    Attributes
    ----------
    beta : float
    iterations : tuple of int
    residuals : tuple of Tensor (B,)
    """

    beta: float
    iterations: tuple[int, ...]
    residuals: tuple[torch.Tensor, ...]


@contextmanager
def everywhere() -> Iterator[None]:
    """Within this context, `EVERYWHERE` is a solver: mod-PGD that updates all layers in every iteration."""
    SOLVERS[EVERYWHERE] = EverywhereModPgd
    try:
        yield
    finally:
        del SOLVERS[EVERYWHERE]


class StepSubject:
    """One network on one batch, with all that steps on it share; what the latest step of each name found is kept.

    Parameters
    ----------
    network : PredictiveCodingNetwork
        A network in float32, on the device to measure on.
    x, y : Tensor
        Batch, and targets as the cost takes them.
    cost : Cost
    dtype : torch.dtype
        float32, or bfloat16: by `compute_dtype` for EP and the network, by autocast for the `nn.Sequential`.

    Attributes
    ----------
    beta : float
        0.05 over the measured curvature limit.
    settlings : dict
        Name to `Settling`, of EP steps.
    gradients : dict
        Name to gradients by parameter name.
    """

    def __init__(
        self,
        network: PredictiveCodingNetwork,
        x: torch.Tensor,
        y: torch.Tensor,
        cost: Cost,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.network = network
        self.cost = cost
        self.dtype = dtype
        self.x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        self.y = y
        network.compute_dtype = None if dtype == torch.float32 else dtype
        self.model = to_sequential(network)
        for p in self.model.parameters():
            if p.ndim == 4:
                p.data = p.data.contiguous(memory_format=torch.channels_last)
        self.settlings: dict[str, Settling] = {}
        self.gradients: dict[str, dict[str, torch.Tensor]] = {}
        # Lambda is measured here, once, and is no part of a step's time.
        self._measured = EquilibriumPropagation(cost, beta="auto", measure_every=NEVER)
        self.beta = self._measured.backward(network, self.x, y).beta
        self.clear()

    def clear(self) -> None:
        """Forget gradients and what steps have found."""
        self.network.zero_grad(set_to_none=True)
        self.model.zero_grad(set_to_none=True)
        self.settlings.clear()
        self.gradients.clear()

    def calls(self, recipes: list[StepRecipe]) -> dict[str, Callable[[], None]]:
        """Backprop both ways, and an EP step a recipe, as functions without arguments."""
        calls: dict[str, Callable[[], None]] = {
            OPPONENTS[0]: lambda: self._backprop(OPPONENTS[0], self.model),
            OPPONENTS[1]: lambda: self._backprop(OPPONENTS[1], self.network),
        }
        for recipe in recipes:
            calls[recipe.name] = self._settling(recipe)
        return calls

    def estimator(self, recipe: StepRecipe) -> EquilibriumPropagation:
        """EP as the recipe has it, the curvature limit known already."""
        ep = copy.copy(self._measured)
        ep.auto = False
        ep.beta = recipe.share * self.beta if recipe.beta is None else recipe.beta
        ep.solver = recipe.solver
        ep.tolerance = recipe.tolerance
        ep.opposite = recipe.opposite
        if recipe.sweeps is not None:
            ep.tolerance, ep.max_iterations, ep.on_unconverged = 1e-30, recipe.sweeps, "warn"
        return ep

    def agreement(self, name: str, exact: dict[str, torch.Tensor]) -> list[GradientRow]:
        """A step's gradient beside an exact one, a row a parameter."""
        return compare(self.gradients[name], exact)

    def reference(self) -> dict[str, torch.Tensor]:
        """Backprop's gradient in the network's own dtype."""
        held, self.network.compute_dtype = self.network.compute_dtype, None
        try:
            self._backprop("reference", self.network)
        finally:
            self.network.compute_dtype = held
        return self.gradients.pop("reference")

    def settled(self, name: str) -> dict[str, object]:
        """Iterations of the nudged phases and the worst residual of a step; of backprop, nothing."""
        if name not in self.settlings:
            return {"beta": None, "sweeps": "", "residual": None}
        found = self.settlings[name]
        return {
            "beta": found.beta,
            "sweeps": "/".join(map(str, found.iterations)),
            "residual": greatest(float(r.max()) for r in found.residuals),
        }

    def _backprop(self, name: str, module: torch.nn.Module) -> None:
        self.gradients.pop(name, None)
        module.zero_grad(set_to_none=True)
        cast = module is self.model and self.dtype != torch.float32
        with torch.autocast(self.x.device.type, self.dtype if cast else torch.bfloat16, enabled=cast):
            outputs = module(self.x)
        self.cost(outputs.float(), self.y).mean().backward()
        self._keep(name, module)

    def _settling(self, recipe: StepRecipe) -> Callable[[], None]:
        ep = self.estimator(recipe)

        def settle() -> None:
            self.gradients.pop(recipe.name, None)
            self.settlings.pop(recipe.name, None)
            self.network.zero_grad(set_to_none=True)
            # The network's own option, not the estimator's: its forward pass then keeps what the phases need.
            held, self.network.gates = self.network.gates, recipe.gates
            try:
                with warnings.catch_warnings():
                    if recipe.sweeps is not None:
                        warnings.simplefilter("ignore")  # that so many iterations do not settle is the point
                    step = ep.backward(self.network, self.x, self.y)
            finally:
                self.network.gates = held
            nudged = step.equilibria[1:]
            self.settlings[recipe.name] = Settling(
                step.beta, tuple(e.iterations for e in nudged), tuple(e.residual for e in nudged)
            )
            self._keep(recipe.name, self.network)

        return settle

    def _keep(self, name: str, module: torch.nn.Module) -> None:
        names = [n for n, _ in self.network.named_parameters()]
        grads = [p.grad for p in module.parameters()]
        self.gradients[name] = {n: g for n, g in zip(names, grads, strict=True) if g is not None}


class Clock:
    """Seconds of calls, on the wall and of the processor, beside whatever else times them.

    Attributes
    ----------
    seconds : dict
        Name to pairs (wall, processor), a call each.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, list[tuple[float, float]]] = {}

    def around(self, calls: dict[str, Callable[[], None]]) -> dict[str, Callable[[], object]]:
        """The functions given, each of which also notes the time that it took."""
        return {name: self._noting(name, call) for name, call in calls.items()}

    def median(self, name: str) -> tuple[float, float]:
        """Median wall and processor seconds of a function."""
        wall, busy = zip(*self.seconds[name], strict=True)
        return median(wall), median(busy)

    def _noting(self, name: str, call: Callable[[], None]) -> Callable[[], object]:
        def noting() -> None:
            begin = time.perf_counter(), time.process_time()
            call()
            end = time.perf_counter(), time.process_time()
            self.seconds.setdefault(name, []).append((end[0] - begin[0], end[1] - begin[1]))

        return noting


def photograph_like(batch: int, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Random images with the spectrum of photographs, amplitude ~ 1 / frequency; mean 0 and deviation 1 an image.

    Parameters
    ----------
    batch : int
    shape : (channels, rows, columns)
    generator : torch.Generator
        Random generator on the CPU.

    Returns
    -------
    Tensor (batch, channels, rows, columns)
    """
    channels, rows, columns = shape
    total = torch.zeros(batch, channels, rows, columns)
    # Octaves of noise of equal amplitude have equal power each, which is a power spectrum of 1 / f^2 in the plane.
    cells = 2
    while cells <= max(rows, columns):
        noise = torch.randn(batch, channels, min(cells, rows), min(cells, columns), generator=generator)
        total += interpolate(noise, (rows, columns), mode="bilinear", align_corners=False)
        cells *= 2
    total -= total.mean((1, 2, 3), keepdim=True)
    return total / total.std((1, 2, 3), keepdim=True)
