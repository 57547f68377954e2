"""What a figure looks at: a system with a batch of real digits, freshly drawn or out of a run file."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from hardware_models.hopfield.network import HopfieldNetwork
from hardware_models.resistive.network import ResistiveNetwork
from physics_ep.config import RUN_FILES, parse_config
from physics_ep.cost import Cost, SquaredError
from physics_ep.data.datasets import digits
from physics_ep.physical_system import PhysicalSystem
from physics_ep.runs.preparation import bring_examples, subject_of, system_of, tested_on
from physics_ep.storage.opening import open_run
from validation.examples import examples as batch_of

from .requests import BATCH, Request


@dataclass(frozen=True)
class Subject:
    """A system with a batch of examples, as figures draw it.

    Attributes
    ----------
    label : str
        Name of the system in figures.
    system : EnergySystem or VectorField
    x : Tensor (B, ...)
    y : Tensor
        Targets, as `cost` takes them.
    cost : Cost
    """

    label: str
    system: PhysicalSystem
    x: torch.Tensor
    y: torch.Tensor
    cost: Cost

    def to(self, dtype: torch.dtype) -> Subject:
        """The subject with its parameters and floats in another dtype; its system is copied if that changes it."""
        system = self.system if self.system.dtype == dtype else copy.deepcopy(self.system).to(dtype)
        y = self.y.to(dtype) if self.y.dtype.is_floating_point else self.y
        return Subject(self.label, system, self.x.to(dtype), y, self.cost)


def fresh_hopfield(
    label: str,
    hidden: Sequence[int],
    activation: str,
    gain: float,
    *,
    examples: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Subject:
    """Untrained Hopfield network with hidden layers of the given sizes, before the first digits of the test set.

    Parameters
    ----------
    label : str
    hidden : sequence of int
    activation : str
    gain : float
        Couplings are uniform in +-gain / sqrt(n_in).
    examples : int
        Size of the batch.
    seed : int
        Seed of the couplings.
    dtype, device
        Dtype and device of parameters and inputs.

    Returns
    -------
    Subject
        With the squared error as its cost.
    """

    def build(n_in: int, n_out: int) -> PhysicalSystem:
        return HopfieldNetwork([n_in, *hidden, n_out], activation=activation, gain=gain, seed=seed)

    return before_digits(label, build, examples, dtype, device)


def fresh_resistive(
    label: str,
    hidden: Sequence[int],
    diode: str,
    *,
    examples: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
    **options: Any,
) -> Subject:
    """Untrained resistive network, before the first digits of the test set.

    Parameters
    ----------
    label : str
    hidden : sequence of int
        Sizes of the hidden layers.
    diode : str
    examples : int
        Size of the batch.
    seed : int
        Seed of the conductances.
    dtype, device
        Dtype and device of parameters and inputs.
    **options
        Further arguments of `ResistiveNetwork`.

    Returns
    -------
    Subject
        With the squared error as its cost.
    """

    def build(n_in: int, n_out: int) -> PhysicalSystem:
        return ResistiveNetwork([n_in, *hidden, n_out], diode, seed=seed, **options)

    return before_digits(label, build, examples, dtype, device)


def before_digits(
    label: str,
    build: Callable[[int, int], PhysicalSystem],
    examples: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Subject:
    """What `build` makes of the numbers of pixels and classes, before the first digits of the test set."""
    data = digits()
    x = data.test_x[:examples].flatten(1)
    place = torch.device("cpu") if device is None else device
    cost = SquaredError()
    y = cost.encode(data.test_y[:examples], data.n_outputs, dtype).to(place)
    system = build(x.shape[1], data.n_outputs).to(place, dtype)
    return Subject(label, system, x.to(place, dtype), y, cost)


def trained(
    path: str | os.PathLike[str],
    *,
    examples: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Subject:
    """System of a run file with its weights, before the first examples of its data set's test part.

    Parameters
    ----------
    path : path
        Run file of a training.
    examples : int
        Size of the batch, at most.
    dtype, device
        Dtype and device of parameters and inputs.

    Returns
    -------
    Subject
        With the cost that it was trained on.

    Raises
    ------
    InputError
        If the file holds no trained system, or its data are not to be found.
    """
    run = open_run(path)
    system = cast(PhysicalSystem, system_of(run))
    config = parse_config(run.config)
    inputs, targets, n_outputs = tested_on(run)
    place = torch.device("cpu") if device is None else device
    cost = config.ep.new_cost()
    x = inputs[:examples].to(place, dtype)
    system = system.to(place, dtype)
    if n_outputs is None:
        n_outputs = system.outputs(system.initial_state(x[:1])).shape[1]
    y = cost.encode(targets[:examples], n_outputs, dtype).to(place)
    return Subject(f"trained {config.system.name}", system, x, y, cost)


def given(request: Request, **options: Any) -> Subject:
    """What --from names: the trained system of a run file, or any SYSTEM; keywords as of `trained`."""
    assert request.run is not None
    if request.run.suffix in RUN_FILES:
        return trained(request.run, **options)
    return named(str(request.run), request.weights, seed=request.seed, **options)


def named(
    spec: str,
    weights: Path | None = None,
    *,
    examples: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Subject:
    """A system as commands name it, before the examples that `gradients` would take.

    Parameters
    ----------
    spec : str
        A registered name, a config, a name of the zoo or FILE.py:factory, whose code it runs.
    weights : path, optional
        File whose weights it begins with.
    examples : int
        Size of the batch, at most.
    seed : int
        Seed of everything that is drawn at random.
    dtype, device
        Dtype and device of parameters and inputs.

    Raises
    ------
    InputError
        If there is no such system.
    """
    config = subject_of(spec, weights)
    place = torch.device("cpu") if device is None else device
    system = config.system.build(seed=seed).to(place, dtype)
    bring_examples(system, config)
    cost = config.ep.new_cost()
    x, y = batch_of(system, cost, examples, seed, None)
    return Subject(Path(spec).name, system, x, y, cost)


def tanh_networks(request: Request, kinds: list[tuple[int, float]]) -> list[Subject]:
    """Networks of 32 tanh units a hidden layer, by depth and gain; or the one of the run file."""
    few: dict[str, Any] = {"examples": 16, **request.place()}
    if request.run is not None:
        return [given(request, **few)]
    return [
        fresh_hopfield(
            f"{depth} hidden layer{'s' if depth > 1 else ''}, gain {gain:g}",
            [32] * depth,
            "tanh",
            gain,
            seed=request.seed,
            **few,
        )
        for depth, gain in kinds
    ]


def smooth_network(request: Request) -> Subject:
    """Network of three hidden layers of 32 tanh units before real digits."""
    hidden = [32, 32, 32]
    return fresh_hopfield("tanh units", hidden, "tanh", 0.5, examples=BATCH, seed=request.seed, **request.place())


def hard_network(request: Request) -> Subject:
    """Network of three hidden layers of 32 hard-sigmoid units before real digits."""
    hidden = [32, 32, 32]
    return fresh_hopfield(
        "hard-sigmoid units", hidden, "hard_sigmoid", 0.5, examples=BATCH, seed=request.seed, **request.place()
    )
