"""One point of a tolerance sweep: a device, a beta, and R instances of the device, with held and with live gates.

A gradient is of the examples whose phases settle, and so are the references that it is judged by; their share
stands beside it. Live gates are judged on the same instances, at the beta of held ones.

The draws of repeat r depend on (seed, r) alone: every point meets the same instances and the same read noise, so
that differences between points are not differences between draws.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn

from hardware_models.devices.crossbars import stream
from hardware_models.devices.fields import defaults_of, fields_of
from hardware_models.devices.model import DeviceModel
from hardware_models.mapping.mapped import map_pcn
from physics_ep.cost import Cost
from physics_ep.equilibrium import NotConverged
from physics_ep.estimators.methods import AsymmetryWarning
from physics_ep.estimators.propagation import NegativeNudgeError
from physics_ep.extremes import greatest
from physics_ep.nudging import Stencil, scheme_from_name
from physics_ep.placement import threads
from physics_ep.predictive_coding.forward import gate_modes

from ..agreement import Tally
from ..layers import vanishing
from ..oracles import Gradients, OracleError, backprop_gradient, implicit_gradient
from ..references import REFERENCES, FreeState, adaptation_gradient, differs, free_state, of_equilibrium

TARGETS = REFERENCES
NETWORKS = ("backprop of the ideal network", "backprop of the arrays that drive h, `mapped.perturbed`",
            "implicit gradient of the physical network, by all copies of each weight")  # fmt: skip
NOT_RUN, FOUND, NO_EQUILIBRIUM = -1, 1, 0

Measured = dict[str, np.ndarray]
"""Name in `QUANTITIES` to values of one point."""

OF_GATES = {
    "status": ("1", "1: equilibria found; 0: none found, left out; -1: not run, since nothing is random; (P, R)"),
    "beta": ("1", "nudging strength that was used, (P, R)"),
    "residual": ("1", "worst residual of all phases of the examples that settle, (P, R)"),
    "sweeps": ("1", "most iterations of a nudged phase, (P, R)"),
    "settled": ("1", "examples whose phases all settle, and of which gradient and targets are; (P, R)"),
    **{
        f"{target}_{name}": (unit, f"{meaning}; target: {network}")
        for target, network in zip(TARGETS, NETWORKS, strict=True)
        for name, unit, meaning in (
            ("cosine", "1", "cosine of estimate and target, (P, L, R)"),
            ("relative_error", "1", "|estimate - target| / |target|, inf: the target vanishes; (P, L, R)"),
            ("bias", "1", "|mean deviation| / |target|, its square corrected by variance / repeats, (P, L)"),
            ("variance", "1", "mean |deviation - mean deviation|^2 / |target|^2, (P, L)"),
        )
    },
}
"""What is measured with each mode of gates."""
LIVE = "live_"
"""Before the names of what was measured with live gates beside held ones."""
QUANTITIES = {
    **OF_GATES,
    "seconds": ("s", "of the repeat: mapping, estimates and their references, (P, R)"),
    "free_share": ("1", "examples that have a free state, (P, R)"),
    "free_error": ("1", "share of these whose largest output is not the target's, (P, R)"),
    "free_solver": ("1", "what found the free states, (P, R)"),
    **{f"{LIVE}{name}": (unit, f"live gates: {meaning}") for name, (unit, meaning) in OF_GATES.items()},
}
"""Units and meaning of what is measured; P points, L parameter tensors, R repeats. Names that begin with `LIVE` are
empty (status -1, else NaN) where live gates were not compared with held ones."""


class Experiment:
    """What all points of a sweep share: the network, its examples, and the gradient of the ideal network.

    Parameters
    ----------
    net : PredictiveCodingNetwork
    x, y : Tensor
    cost : Cost
    substrate : str
    gates : {'held', 'live', 'both'}
        Both: 'held' is in the measured values, 'live' in those whose names begin with `LIVE`.
    rails : {'refuse', 'fit'}
        What becomes of a network whose cells see more than cell_voltage_limit, as in `map_pcn`.
    scheme : Stencil or str or None
    repeats, seed, thread_count : int
    mapper : callable
        Function that maps a network, with the arguments of `hardware_models.map_pcn`.
    oracle_device : str, optional
        Torch device of the backprop that gradients are judged by; default the network's.
    options : mapping
        Further arguments of `Mapped.estimate`.

    Notes
    -----
    Memory beside the mapped network's own, in sizes of the network: the target, two running means, the estimate and
    an instance's target; and for a moment the oracle's twin with its gradients in float64, which count twice.
    """

    def __init__(
        self,
        net: nn.Module,
        x: torch.Tensor,
        y: torch.Tensor,
        cost: Cost,
        *,
        substrate: str,
        scheme: Stencil | str | None,
        gates: str,
        rails: str = "refuse",
        repeats: int,
        seed: int,
        thread_count: int,
        mapper: Callable[..., Any] | None = None,
        oracle_device: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.oracle_device = oracle_device
        self.net, self.x, self.y, self.cost = net, x, y, cost
        self.substrate, self.scheme, self.gates, self.rails = substrate, scheme, gates, rails
        self.modes = gate_modes(gates)
        self.repeats, self.seed, self.thread_count = repeats, seed, thread_count
        self.mapper = standard_mapper() if mapper is None else mapper
        self.options = dict(options or {})
        self._transfer: Gradients | None = None

    @property
    def transfer(self) -> Gradients:
        """Backprop of the ideal network, in the network's dtype."""
        if self._transfer is None:
            self._transfer = exact(self.net, self.x, self.y, self.cost, self.oracle_device)
        return self._transfer

    def measure(self, device: Any, beta: float | str) -> Measured:
        """Measure one point of the sweep: one device instance at one value of the imperfection.

        Parameters
        ----------
        device : DeviceModel
        beta : float or 'auto'

        Returns
        -------
        Measured
            Without the axis of points. Everything but the seconds is the same to the bit, whenever and in
            whichever process it is measured.
        """
        with threads(self.thread_count):
            names = list(self.transfer)
            kinds = [f"{own}{target}" for own in ("", LIVE) for target in TARGETS]
            tallies = {kind: {name: Tally() for name in names} for kind in kinds}
            found = self._blank(len(names))
            for r in range(self.repeats_of(device)):
                self._repeat(r, device, beta, tallies, found)
        for kind, of in tallies.items():
            found[f"{kind}_bias"][:] = [of[name].bias for name in names]
            found[f"{kind}_variance"][:] = [of[name].variance for name in names]
        return found

    @property
    def random(self) -> bool:
        """Whether the scheme draws signs."""
        return self.scheme is not None and scheme_from_name(self.scheme).random

    def repeats_of(self, device: Any) -> int:
        """How often a device is drawn: one instance suffices where nothing of it is random."""
        return self.repeats if self.random or draws(device) else 1

    def _repeat(
        self,
        r: int,
        device: Any,
        beta: float | str,
        tallies: dict[str, dict[str, Tally]],
        found: Measured,
    ) -> None:
        began = time.perf_counter()
        mapped = self.mapper(
            self.net,
            substrate=self.substrate,
            device=device,
            seed=instance_seed(self.seed, r),
            calibration=self.x,
            gates=self.modes[0],
            # The ideal device bears any voltage.
            **({} if device.cell_voltage_limit is None or self.rails == "refuse" else {"rails": self.rails}),
        )
        # The oracle's float64 twin comes and goes before the estimate is made.
        forward = exact(mapped.perturbed, self.x, self.y, self.cost, self.oracle_device)
        known: dict[bytes, list[tuple[str, Gradients]]] = {}
        for own, gates in zip(("", LIVE), self.modes, strict=False):
            options = {"on_unconverged": "skip", **self.options}
            if own:  # the mapped system's own are the first
                options["gates"] = gates
                beta = float(found["beta"][r]) if np.isfinite(found["beta"][r]) else beta
            if self.random:
                options["generator"] = drawing(self.seed, r, "signs")
            try:
                with warnings.catch_warnings():
                    # What asymmetry costs ordinary EP is what the reference of adaptation tells.
                    warnings.simplefilter("ignore", AsymmetryWarning)
                    estimate, step = mapped.estimate(
                        self.x,
                        self.y,
                        self.cost,
                        scheme=self.scheme,
                        beta=beta,
                        reads=drawing(self.seed, r, "reads", self.x.device),
                        **options,
                    )
            except (NotConverged, NegativeNudgeError) as failure:
                # Past the stability limit of an instance there is no equilibrium to be found; past that of the
                # ideal network the beta itself is wrong.
                if device.ideal and not own and isinstance(failure, NegativeNudgeError):
                    raise
                found[f"{own}status"][r], found[f"{own}settled"][r] = NO_EQUILIBRIUM, 0.0
                continue
            if np.isnan(found["free_share"][r]):
                _keep(found, r, of_equilibrium(mapped, step.equilibria[0], self.x, self.labels))
            used = torch.ones(len(self.x), dtype=torch.bool)
            if step.used is not None:
                used = step.used.cpu().view(-1, len(self.x)).any(0)
            found[f"{own}settled"][r] = float(used.double().mean())
            found[f"{own}sweeps"][r] = max(e.iterations for e in step.equilibria[1:])
            found[f"{own}beta"][r] = step.beta
            if not bool(used.any()):
                found[f"{own}status"][r] = NO_EQUILIBRIUM
                continue
            key = used.numpy().tobytes()
            judges = known.get(key) or self._references(mapped, used, forward if bool(used.all()) else None)
            if len(self.modes) > 1 and key not in known:  # the other mode is judged by them too
                judges = known[key] = list(judges)
            for target, exact_gradient in judges:
                for k, name in enumerate(self.transfer):
                    if name in exact_gradient.vanishing:
                        found[f"{own}{target}_relative_error"][k, r] = math.inf
                        continue
                    cosine, error = tallies[f"{own}{target}"][name].add(estimate[name], exact_gradient[name])
                    found[f"{own}{target}_cosine"][k, r] = cosine
                    found[f"{own}{target}_relative_error"][k, r] = error
            del estimate
            found[f"{own}status"][r] = FOUND
            of_these = slice(None) if step.used is None else step.used
            found[f"{own}residual"][r] = greatest(float(e.residual[of_these].max()) for e in step.equilibria)
        if np.isnan(found["free_share"][r]):
            self._seek(found, r, mapped)
        found["seconds"][r] = time.perf_counter() - began

    def _seek(self, found: Measured, r: int, mapped: Any) -> None:
        """Free states where there is no gradient to take them from."""
        own = {
            name: self.options[name] for name in ("solver", "tolerance", "max_iterations") if name in self.options
        }
        _keep(found, r, free_state(mapped, self.x, self.labels, **own))

    def _references(
        self, mapped: Any, used: torch.Tensor, forward: Gradients | None = None
    ) -> Iterator[tuple[str, Gradients]]:
        """Each reference of the examples `used`, with its gradient; adaptation is left out where it has none."""
        x, y = self._of(used)
        transfer = self.transfer if bool(used.all()) else exact(self.net, x, y, self.cost, self.oracle_device)
        yield "transfer", transfer
        if forward is None:
            forward = exact(mapped.perturbed, x, y, self.cost, self.oracle_device)
        if not getattr(self.net, "feedforward", True):  # a plain system: what is exact of its cells is implicit
            yield "adaptation", forward
            return
        yield "feedforward", forward
        if not differs(mapped):
            yield "adaptation", forward
            return
        with suppress(NotConverged, OracleError):
            own = adaptation_gradient(mapped, x, y, self.cost, where=self.oracle_device)
            yield "adaptation", rounded(own, forward)

    def _of(self, used: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The examples `used` and their targets."""
        if bool(used.all()):
            return self.x, self.y
        return self.x[used.to(self.x.device)], self.y[used.to(self.y.device)]

    @property
    def labels(self) -> torch.Tensor:
        """Class indices, (B,): the targets, or where they are largest."""
        return self.y if self.y.ndim == 1 else self.y.flatten(1).argmax(1)

    def _blank(self, layers: int) -> Measured:
        r = self.repeats
        blank: Measured = {
            "free_solver": np.full(r, b"", "S16"),
            **{name: np.full(r, np.nan) for name in ("seconds", "free_share", "free_error")},
        }
        for own in ("", LIVE):
            blank |= {f"{own}{name}": values for name, values in blank_of_gates(layers, r).items()}
        return blank


def blank_of_gates(layers: int, repeats: int) -> Measured:
    """Values of `OF_GATES` for a mode of gates that was not measured.

    Parameters
    ----------
    layers, repeats : int
        Parameter tensors, and instances.
    """
    blank: Measured = {
        "status": np.full(repeats, NOT_RUN, np.int8),
        "sweeps": np.zeros(repeats, np.int32),
        **{name: np.full(repeats, np.nan) for name in ("beta", "residual", "settled")},
    }
    for target in TARGETS:
        blank |= {f"{target}_{name}": np.full((layers, repeats), np.nan) for name in ("cosine", "relative_error")}
        blank |= {f"{target}_{name}": np.full(layers, np.nan) for name in ("bias", "variance")}
    return blank


def _keep(found: Measured, r: int, free: FreeState) -> None:
    """Write down what the free states of a repeat are."""
    found["free_share"][r], found["free_error"][r], found["free_solver"][r] = free.share, free.error, free.solver


def exact(net: nn.Module, x: torch.Tensor, y: torch.Tensor, cost: Cost, where: str | None = None) -> Gradients:
    """Exact gradient in float64, then rounded to the network's dtype, one tensor at a time.

    It is backprop, or implicit differentiation where the free state is no forward pass.

    `where` is the torch device that computes it; default the network's. A GPU's gradients are not judged by the
    same GPU's where it is the CPU.
    """
    own = dict(net.named_parameters())
    twin = net if where is None else copy.deepcopy(net).to(where)
    place = next(iter(dict(twin.named_parameters()).values())).device
    oracle = backprop_gradient if getattr(net, "feedforward", True) else implicit_gradient
    found = oracle(twin, x.to(place), y.to(place), cost)
    return rounded(found, {name: own[name] for name in found})


def rounded(found: Gradients, like: Mapping[str, torch.Tensor]) -> Gradients:
    """An oracle's gradient in the dtypes of `like`, one tensor at a time, with what vanishes before."""
    gone = frozenset(vanishing(found))
    kept = Gradients({name: found.pop(name).to(own) for name, own in like.items()})
    kept.vanishing = gone
    return kept


def draws(device: DeviceModel) -> bool:
    """Whether anything of a device is random: levels or converters alone are the same in all instances."""
    kind = type(device)
    ideal = defaults_of(kind)
    if device.diode_current is not None and (device.diode_mismatch > 0 or device.ideality_mismatch > 0):
        return True
    rest = device.replace(
        **{name: ideal[name] for name, told in fields_of(kind).items() if told.errs and not told.drawn}
    )
    return not (rest.replace(drift_exponent=0.0) if device.drift_spread == 0 else rest).ideal


def instance_seed(seed: int, repeat: int) -> int:
    """Seed of the device instance of a repeat."""
    return stream(seed, "instance", repeat).initial_seed()


def drawing(seed: int, repeat: int, purpose: str, device: str | torch.device = "cpu") -> torch.Generator:
    """Generator of the draws of a repeat that are no part of the instance: 'reads', of the batch's device, or
    'signs'."""
    return stream(seed, purpose, repeat, device=device)


def standard_mapper() -> Callable[..., Any]:
    """The mapper that sweeps use by default, `hardware_models.map_pcn`."""
    return map_pcn
