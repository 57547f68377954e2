"""One trained network on each substrate: its accuracy there, EP's gradient, and how it settles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.mapped import Mapped
from physics_ep import relax, simulate
from physics_ep.cost import Cost
from physics_ep.equilibrium import NotConverged
from physics_ep.estimators.propagation import NegativeNudgeError
from physics_ep.extremes import greatest
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.progress import SILENT, Progress, task
from physics_ep.runs.metrics import classification_error

from ..gradients import compare, total_error
from ..oracles import backprop_gradient
from ..references import differs, free_state, reference_gradient

THREE = ("hopfield", "resistive", "oscillator")
DEVICE = DeviceModel(levels=16, programming_noise=0.05, device_mismatch=0.1, copies="shared")
"""Cells of 4 bits, written with an error of 5 % of their range, gains 10 % apart; those of one weight err alike."""


@dataclass(frozen=True)
class Placed:
    """What became of a network on one substrate.

    Attributes
    ----------
    substrate, exactness, held : str
        The fields of `Fidelity` of the same names.
    layers : tuple of str
        Names of the weights.
    free_state_error : float
        Ideal devices: largest error of the outputs over the largest output.
    cosine : ndarray (L,)
        Ideal devices: EP's gradient and the network's backprop, a layer's weights each.
    relative_error : float
        The same, of the whole gradient.
    adaptation, feedforward, transfer : ndarray (R, L)
        Cosines on R instances of the devices, to each reference (`validation.references`). NaN where a phase had no
        equilibrium.
    share : ndarray (R,)
        Test examples that have a free state on the instances.
    solver : str
        What found these.
    accuracy, device_accuracy : float, ndarray (R,)
        Share of the test examples that are classified correctly: on ideal devices; on each instance of the device.
    residual : float
        Worst of all phases.
    time : ndarray (T,)
        Time constants.
    distance : ndarray (T,)
        Distance of the outputs from their equilibrium over their size, in a free phase that starts from nothing.
    settling_time : float
        Seconds, of `Fidelity`.
    threshold_units : int
    gain : float
        Largest of the rails; 1 where there are none.
    live : ndarray (R, L)
        The same as `feedforward`, with live gates at the same beta, over the examples that settle then; NaN where
        none does or no unit has a kink.
    live_settled : ndarray (R,)
        Share of the examples that settle with live gates; NaN where no unit has a kink.
    """

    substrate: str
    exactness: str
    held: str
    layers: tuple[str, ...]
    free_state_error: float
    cosine: np.ndarray
    relative_error: float
    adaptation: np.ndarray
    feedforward: np.ndarray
    transfer: np.ndarray
    share: np.ndarray
    solver: str
    accuracy: float
    device_accuracy: np.ndarray
    residual: float
    time: np.ndarray
    distance: np.ndarray
    settling_time: float
    threshold_units: int
    gain: float
    live: np.ndarray
    live_settled: np.ndarray

    def figures(self) -> dict[str, Any]:
        """The figures as `--json` writes them."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}


def place(
    net: PredictiveCodingNetwork,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    test: tuple[torch.Tensor, torch.Tensor],
    *,
    substrates: Sequence[str] = THREE,
    device: DeviceModel = DEVICE,
    instances: int = 3,
    beta: float | str = "auto",
    duration: float = 200.0,
    seed: int = 0,
    progress: Progress | bool = SILENT,
) -> tuple[Placed, ...]:
    """Put a network on substrates and see what becomes of it.

    Parameters
    ----------
    net : PredictiveCodingNetwork
    x, y : Tensor
        Examples and targets; the first ones give gradients, others calibrate. The first two examples are followed
        in time.
    cost : Cost
    test : (Tensor, Tensor)
        Examples and class indices.
    substrates : sequence of str
    device : DeviceModel
        The device from which instances are drawn.
    instances : int
    beta : float or 'auto'
    duration : float
        Time constants of a course.
    seed : int
    progress : Progress
    """
    exact = backprop_gradient(net, x, y, cost)
    names = tuple(name for name in exact if name.endswith("weight"))
    found = []
    with task(progress, "substrates", len(substrates) * (instances + 1)) as advance:
        for substrate in substrates:
            ideal = map_pcn(net, substrate, calibration=x)
            grads, step = ideal.estimate(x, y, cost, beta=beta)
            residual = greatest(float(e.residual.max()) for e in step.equilibria)
            advance(1, substrate=substrate)
            adaptation = np.full((instances, len(names)), np.nan)
            feedforward, transfer = adaptation.copy(), adaptation.copy()
            live, live_settled = adaptation.copy(), np.full(instances, np.nan)
            accuracy, share = np.full(instances, np.nan), np.full(instances, np.nan)
            solver = ""
            for r in range(instances):
                mapped = map_pcn(net, substrate, device, seed + r, calibration=x)
                free = free_state(mapped, *test)
                share[r], solver = free.share, free.solver
                accuracy[r] = free.share * (1 - free.error) if free.share else 0.0
                advance(1, substrate=substrate)
                try:
                    own, step = mapped.estimate(x, y, cost, beta=beta)
                except (NotConverged, NegativeNudgeError):
                    continue
                residual = greatest((residual, *(float(e.residual.max()) for e in step.equilibria)))
                feedforward[r] = _cosines(own, reference_gradient("feedforward", mapped, x, y, cost), names)
                transfer[r], adaptation[r] = _cosines(own, exact, names), feedforward[r]
                if mapped.system.has_gates:
                    live[r], live_settled[r] = _live(mapped, x, y, cost, step.beta, names)
                if differs(mapped):
                    adaptation[r] = _cosines(own, reference_gradient("adaptation", mapped, x, y, cost), names)
            fidelity = ideal.fidelity
            time, distance = _course(ideal, x[:2], duration)
            found.append(
                Placed(
                    substrate=substrate,
                    exactness=fidelity.exactness,
                    held=fidelity.held,
                    layers=names,
                    free_state_error=fidelity.free_state_error,
                    cosine=_cosines(grads, exact, names),
                    relative_error=total_error(grads, exact),
                    adaptation=adaptation,
                    feedforward=feedforward,
                    share=share,
                    solver=solver,
                    transfer=transfer,
                    accuracy=_accuracy(ideal, test),
                    device_accuracy=accuracy,
                    residual=residual,
                    time=time,
                    distance=distance,
                    settling_time=fidelity.settling_time,
                    threshold_units=sum(len(row.threshold_units) for row in fidelity.layers),
                    gain=max(row.gain for row in fidelity.layers),
                    live=live,
                    live_settled=live_settled,
                )
            )
    return tuple(found)


def _cosines(estimate: dict[str, torch.Tensor], exact: dict[str, torch.Tensor], names: Sequence[str]) -> np.ndarray:
    wanted = {name: exact[name] for name in names}
    return np.array([row.cosine for row in compare({n: estimate[n] for n in names}, wanted)])


def _live(
    mapped: Mapped, x: torch.Tensor, y: torch.Tensor, cost: Cost, beta: float, names: Sequence[str]
) -> tuple[np.ndarray, float]:
    """Cosines to backprop through the arrays that drive h with live gates, and the share of examples left."""
    lost = np.full(len(names), np.nan), 0.0
    try:
        own, step = mapped.estimate(x, y, cost, beta=beta, gates="live", on_unconverged="skip")
    except (NotConverged, NegativeNudgeError):
        return lost
    used = step.used
    if used is None or not bool(used.any()):
        return lost
    exact = reference_gradient("feedforward", mapped, x[used], y[used], cost)
    return _cosines(own, exact, names), float(used.double().mean())


def _accuracy(mapped: Mapped, test: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Fraction of the test examples that free equilibria classify; those without equilibrium count as missed."""
    return 1 - classification_error(mapped.system, *test)[0]


def _course(mapped: Mapped, x: torch.Tensor, duration: float) -> tuple[np.ndarray, np.ndarray]:
    """Time, and how far the outputs are from their equilibrium, on the way from where the substrate starts."""
    system = mapped.system
    trajectory = simulate(system, x, duration, start=system.rest_state(x), steps=round(4 * duration))
    goal = mapped.decode(relax(system, x).require().state)
    course = torch.stack([mapped.decode(state) for state in zip(*trajectory.state, strict=True)])
    distance = (course - goal).abs().amax((1, 2)) / goal.abs().max()
    return trajectory.time.cpu().numpy(), distance.cpu().numpy()
