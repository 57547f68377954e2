"""From a predictive coding network to a substrate: what is built, how faithful it is, and its EP gradients.

A substrate is a function in `SUBSTRATES` that builds the encoded system; everything else is common to all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from scipy.special import gammainccinv

from physics_ep.cost import Cost
from physics_ep.equilibrium import Equilibrium, State
from physics_ep.errors import InputError, argument_error, unknown_name
from physics_ep.estimator import EquilibriumPropagation, Step, estimate_gradient
from physics_ep.nudging import Nudge, Stencil
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.relaxation import relax

from .amplifiers import MONOTONE
from .crossbars import stream
from .devices import DeviceModel
from .fidelity import Fidelity, array_rows
from .paired_circuit import PairedCircuit
from .paired_solvers import time_step

SETTLED = 1e-6
"""Relative distance from the equilibrium that counts as settled in `Fidelity`."""


class NotRealisable(InputError):  # noqa: N818 (a public name)
    """A substrate cannot hold a layer."""

    def __init__(self, substrate: str, layer: int, reason: str) -> None:
        self.substrate, self.layer, self.reason = substrate, layer, reason
        super().__init__(f"Layer {layer} cannot be realised on the substrate {substrate!r}: {reason}.")


class Mapped:
    """A predictive coding network on a substrate.

    Attributes
    ----------
    network : PredictiveCodingNetwork
        The ideal one.
    system : EnergySystem
        The encoded one, for `relax`, `simulate` and `EquilibriumPropagation`.
    perturbed : PredictiveCodingNetwork
        The feedforward network that the devices compute when nothing is fed back, with the network's parameter
        names. Its backprop is what EP adapts to; that of `network` is what it would transfer to.
    device : DeviceModel
    seed : int
    substrate : str
    """

    def __init__(
        self,
        network: PredictiveCodingNetwork,
        system: PairedCircuit,
        device: DeviceModel,
        seed: int,
        substrate: str,
        calibration: torch.Tensor | None,
    ) -> None:
        self.network = network
        self.system = system
        self.device = device
        self.seed = seed
        self.substrate = substrate
        self._calibration = calibration

    @property
    def perturbed(self) -> PredictiveCodingNetwork:
        """See the class."""
        return self.system

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs (B, ...) as the substrate is driven by them, in units of activity."""
        return self.system.encode(x)

    def decode(self, state: State) -> torch.Tensor:
        """The network's outputs (B, n_out) from a state of the system."""
        return self.system.outputs(state)

    def estimate(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        cost: Cost,
        scheme: Stencil | str | None = None,
        beta: float | str = "auto",
        *,
        reads: torch.Generator | None = None,
        **options: Any,
    ) -> tuple[dict[str, torch.Tensor], Step]:
        """EP on the substrate: gradient of the mean cost by the network's parameter names, and the step.

        Parameters
        ----------
        x, y : Tensor
        cost : Cost
        scheme, beta
            Of `EquilibriumPropagation`.
        reads : torch.Generator, optional
            Of read noise and conductance noise; default one seeded with the device instance, that goes on.
        **options
            Of `EquilibriumPropagation`: solver, tolerance, max_iterations, on_unconverged, gates, ...

        Raises
        ------
        NotConverged
            If a phase finds no equilibrium.
        NegativeNudgeError
            If -beta is beyond the stability limit.
        """
        ep = EquilibriumPropagation(cost, scheme, beta, **options)
        if not isinstance(reads, torch.Generator | None):
            raise argument_error("reads", "be a torch.Generator", type(reads).__name__)
        own = self.system.reads
        self.system.reads = own if reads is None else reads
        try:
            return estimate_gradient(ep, self.system, x, y)
        finally:
            self.system.reads = own

    def gradient(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        cost: Cost,
        scheme: Stencil | str | None = None,
        beta: float | str = "auto",
        **options: Any,
    ) -> dict[str, torch.Tensor]:
        """`estimate` without the step."""
        return self.estimate(x, y, cost, scheme, beta, **options)[0]

    def settling(
        self,
        x: torch.Tensor,
        nudge: Nudge | None = None,
        tolerance: float = SETTLED,
        max_iterations: int = 2000,
    ) -> tuple[float, Equilibrium]:
        """Time constants until the substrate has settled, by following it in time: from empty capacitors, or with a
        nudge from the free state. Also the equilibrium, whose status tells if it has not settled.

        The resolution is a step of `paired_solvers.time_step`, half a time constant or less.
        """
        options = {"solver": "flow", "tolerance": tolerance, "max_iterations": max_iterations}
        start = None if nudge is None else relax(self.system, x).require().state
        found = relax(self.system, x, nudge, start=start, **options)  # type: ignore[arg-type]
        return time_step(self.device, nudge) * (found.iterations - 1), found

    @cached_property
    def fidelity(self) -> Fidelity:
        """How faithful the substrate is, on the calibration inputs (random ones in [0, 1) where there are none)."""
        device, depth = self.device, self.network.depth
        x = self._calibration
        if x is None:
            shape = (4, *self.network.shapes[0])
            x = torch.rand(shape, generator=stream(0, "fidelity")).to(self.network.device, self.network.dtype)
        with torch.no_grad():
            free = relax(self.system, x)
            wanted = self.network(x)
            off, size = (float(v.abs().max()) for v in (self.decode(free.state) - wanted, wanted))
            layers = array_rows(self.network, self.system, device, x)
        settled = bool(free.converged.all())
        unit = device.time_constant if settled else math.nan
        settling, nudged = (unit * float(gammainccinv(n * depth, SETTLED)) for n in (1, 2))
        units = 2 * sum(self.network.sizes[1:-1])  # the outputs are read at their summing nodes
        power = sum(layer.power for layer in layers) + units * device.amplifier_power
        return Fidelity(
            substrate=self.substrate,
            exactness="exact" if device.amplifier_saturation is None else "exact below saturation",
            held=held(self.system),
            free_state_error=off / size if off > 0 else 0.0,
            free_residual=float(free.residual.max()),
            free_converged=settled,
            settling_time=settling,
            nudged_settling_time=nudged,
            energy=power * settling,
            layers=layers,
        )


def held(system: PredictiveCodingNetwork) -> str:
    """What latches hold in nudged phases, in words.

    Routes are those of the forward pass, for h and u: where copies differ, a free phase does not choose them anew.
    """
    names = []
    if system.gates == "frozen" and any(layer.activation_name == "relu" for layer in system.stack):
        names.append("gates of ReLUs")
    if system.routed:
        names.append("routes of max poolings (in all phases)")
    return " and ".join(names) if names else "nothing"


def _hopfield(
    net: PredictiveCodingNetwork, device: DeviceModel, seed: int, full_scales: Sequence[float], gates: str
) -> PairedCircuit:
    for k, layer in enumerate(net.stack, 1):
        if layer.activation_name not in MONOTONE:
            reason = f"{layer.activation_name} is not monotone, so that no amplifier has its potential"
            raise NotRealisable("hopfield", k, reason)
    return PairedCircuit(net, device, seed, full_scales, gates)


SUBSTRATES: dict[str, Callable[..., PairedCircuit]] = {"hopfield": _hopfield}
"""Builders of encoded systems: (net, device, seed, full_scales, gates) -> system."""


def map_pcn(
    net: PredictiveCodingNetwork,
    substrate: str = "hopfield",
    device: DeviceModel | None = None,
    seed: int = 0,
    *,
    calibration: torch.Tensor | None = None,
    gates: str = "frozen",
) -> Mapped:
    """Map a predictive coding network to a substrate, by paired units (physics notes, sections 1 and 3).

    Parameters
    ----------
    net : PredictiveCodingNetwork
        Dense, convolutional, pooled and skip layers; it is left as it is.
    substrate : {'hopfield'}
    device : DeviceModel, optional
        Ideal by default.
    seed : int
        Of the device instance: the same devices for the same seed.
    calibration : Tensor (B, ...), optional
        Inputs whose largest activities are the full scales of the layers, to which noises, offsets and converter
        ranges are relative. Without them a full scale is one unit of activity.
    gates : {'frozen', 'free'}
        Whether latches hold the gates of ReLUs in nudged phases. Routes of max poolings always are.

    Returns
    -------
    Mapped

    Raises
    ------
    NotRealisable
        With the layer and the reason.
    InputError
        If an argument is not as above.

    Examples
    --------
    >>> import torch
    >>> from physics_ep import SquaredError
    >>> from physics_ep.predictive_coding import mlp
    >>> mapped = map_pcn(mlp([4, 8, 3], activation="tanh"), "hopfield", DeviceModel(levels=256))
    >>> sorted(mapped.gradient(torch.rand(2, 4), torch.zeros(2, 3), SquaredError(), beta=0.01))[:2]
    ['layers.0.bias', 'layers.0.weight']
    """
    if not isinstance(net, PredictiveCodingNetwork):
        raise argument_error("net", "be a PredictiveCodingNetwork, such as mlp([4, 8, 3])", type(net).__name__)
    if substrate not in SUBSTRATES:
        raise unknown_name("substrate", substrate, SUBSTRATES)
    if net.compute_dtype is not None:
        raise argument_error("net", "work in the dtype of its parameters", f"one that works in {net.compute_dtype}")
    device = DeviceModel() if device is None else device
    if not isinstance(device, DeviceModel):
        raise argument_error("device", "be a DeviceModel", type(device).__name__)
    scales = [1.0] * (net.depth + 1)
    if calibration is not None:
        net.check_input(calibration)
        if not len(calibration):
            raise argument_error("calibration", "hold one example or more", "none")
        with torch.no_grad():
            scales = [float(s.abs().max()) for s in (calibration, *net.run(calibration).states)]
        scales = [s if s > 0 else 1.0 for s in scales]
    system = SUBSTRATES[substrate](net, device, seed, scales, gates)
    return Mapped(net, system, device, seed, substrate, calibration)
