"""What the gradient of a mapped network is judged by: three references that are never mixed.

transfer
    Backprop of the network that was meant: does EP on the substrate train a network that is then used elsewhere?
feedforward
    Backprop through the arrays that drive h, as if nothing were fed back (`Mapped.perturbed`).
adaptation
    The implicit gradient of the physical network, summed over the copies of each weight: how the cost of its free
    state, feedback and all, changes where all cells of a weight are moved alike. It is what learning on the machine
    would follow if it were exact.

Where one array drives h and u, and their units are equal, h = u in the free state whatever the weights are, so that
nothing is fed back and the last two are one. Where copies differ they are two, and a free state need not exist:
beside each gradient stand the share of test examples that have a stable one, and its test error (`free_state`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, gmres

from hardware_models.mapping.board import Arrays
from hardware_models.mapping.circuit import PairedCircuit
from hardware_models.mapping.mapped import Mapped
from hardware_models.mapping.physical_cells import COPIES, SIDES, Copy
from hardware_models.mapping.stability import certify
from physics_ep.blocks import flat, in_dtype, unflat
from physics_ep.cost import Cost
from physics_ep.equilibrium import Equilibrium, NotConverged
from physics_ep.errors import unknown_name
from physics_ep.relaxation.loop import relax

from .oracles import Gradients, OracleError, backprop_gradient, wide_target

REFERENCES = ("transfer", "feedforward", "adaptation")
ROUNDS = 20
"""Restarts of the adjoint solve at most; one is enough where copies differ by a few per cent."""
RESTART = 60
"""Vectors that it keeps: some twice the depth of a network, since without mismatch the coupling is nilpotent."""

ALGEBRA = ("sweep", "newton")
"""Solvers that find equilibria whether they are stable or not."""

Leaves = dict[Copy, list[Arrays]]


def reference_gradient(name: str, mapped: Mapped, x: torch.Tensor, y: torch.Tensor, cost: Cost) -> Gradients:
    """One of the three gradients that EP on a mapped network is judged by, in float64.

    Parameters
    ----------
    name : {'transfer', 'feedforward', 'adaptation'}
        The reference: backprop of the ideal network, backprop through the drawn cells, or the exact gradient of the
        machine.
    mapped : Mapped
    x, y : Tensor
        Batch, targets as the cost takes them.
    cost : Cost

    Returns
    -------
    Gradients
        Gradients of the batch mean of the cost, by the network's parameter names.

    Raises
    ------
    InputError
        If there is no such reference, with the nearest right name.
    NotConverged, OracleError
        If there is no equilibrium or no gradient, as in `adaptation_gradient`.
    """
    if name not in REFERENCES:
        raise unknown_name("reference", name, REFERENCES)
    if name == "adaptation" and differs(mapped):
        return adaptation_gradient(mapped, x, y, cost)
    return backprop_gradient(mapped.network if name == "transfer" else mapped.perturbed, x, y, cost)


def differs(mapped: Mapped) -> bool:
    """Whether adaptation is another gradient than feedforward.

    Where one array drives h and u, and their units are equal, or where an auto-zero subtracts what they differ by,
    nothing is fed back in the free state, so that the two are one, and the cheaper is computed.
    """
    return not mapped.system.shared and mapped.device.auto_zero == "off"


def adaptation_gradient(
    mapped: Mapped,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    *,
    tolerance: float = 1e-12,
    adjoint_tolerance: float = 1e-10,
    max_iterations: int | None = None,
    where: str | None = None,
) -> Gradients:
    """Differentiate the cost of a mapped network's free state implicitly, by all copies of each weight together.

    With s = (p, q) the currents into the units, the free state is s = F(s, W_h, W_u, T). Its cost C(h_L) changes
    with dC/dW = lambda^T (dF/dW_h + dF/dW_u + dF/dT), where (1 - (dF/ds)^T) lambda = dC/ds (the implicit function
    theorem; Scellier and Bengio 2017, theorem 1, is the case of a symmetric dF/ds). Loads, gains and routes of
    poolings are held; a unit exactly on a kink counts with the slope that the system gives it.

    Parameters
    ----------
    mapped : Mapped
    x, y : Tensor
        Batch, targets as the cost takes them.
    cost : Cost
    tolerance : float
        Residual of the free state.
    adjoint_tolerance : float
        Relative residual of the adjoint solve, by GMRES (the system is not symmetric).
    max_iterations : int, optional
        Most iterations of the free phase; default 20 times the system's.
    where : str, optional
        Torch device that computes it; default the system's.

    Returns
    -------
    Gradients
        Gradients of the batch mean, by the network's parameter names, in float64.

    Raises
    ------
    NotConverged
        If the free state is no equilibrium.
    OracleError
        If the adjoint solve does not reach its tolerance.
    """
    system = copy.deepcopy(mapped.system).double().to(mapped.system.device if where is None else where)
    x, y = in_dtype(x, torch.float64).to(system.device), wide_target(y).to(system.device)
    budget = 20 * system.default_max_iterations if max_iterations is None else max_iterations
    with torch.no_grad():
        free = relax(system, x, tolerance=tolerance, max_iterations=budget).require()
        phase = system.phase(system.prepare(x), free.state)
        slopes = [
            a.slope(v)
            for units, at in ((system.amplifiers_h, phase.p), (system.amplifiers_u, phase.q))
            for a, v in zip(units, at, strict=True)
        ]
        outputs = phase.h[-1]
        pull = [torch.zeros_like(v) for v in slopes]
        pull[system.depth - 1] = slopes[system.depth - 1] * cost.gradient(outputs, y)
    names, leaves = _leaves(system)
    with torch.enable_grad():
        values = [v.detach().requires_grad_() for v in (*phase.h, *phase.u)]
        currents = _currents(system, phase.x, phase.free.routes, values, leaves)
    shapes, right = [v.shape for v in pull], flat(tuple(pull))

    def moved(multiplier: torch.Tensor) -> torch.Tensor:
        back = torch.autograd.grad(
            currents, values, unflat(multiplier, shapes), retain_graph=True, allow_unused=True
        )
        filled = (torch.zeros_like(s) if g is None else s * g for s, g in zip(slopes, back, strict=True))
        return multiplier - flat(tuple(filled))

    multiplier, miss = _solve(moved, right, adjoint_tolerance)
    tensors = [leaf for _, leaf in names]
    grads = torch.autograd.grad(currents, tensors, unflat(multiplier, shapes), allow_unused=True)
    found = Gradients()
    for (name, leaf), g in zip(names, grads, strict=True):
        share = torch.zeros_like(leaf) if g is None else g / len(x)
        found[name] = found[name] + share if name in found else share
    found.loss = float(cost(outputs, y).mean())
    found.residual = float(free.residual.max())
    found.adjoint_residual = miss
    found.outputs = outputs
    return found


def _leaves(system: PairedCircuit) -> tuple[list[tuple[str, torch.Tensor]], Leaves]:
    """Weights of each copy as tensors to differentiate by: with the parameters' names, and layer by layer."""
    names: list[tuple[str, torch.Tensor]] = []
    found: Leaves = {}
    for role in COPIES:
        found[role] = []
        for k in range(system.depth):
            parts = {}
            for part, value in system.arrays(k, role).held.items():
                leaf = parts[part] = value.detach().clone().requires_grad_()
                trained = getattr(system.stack[k], part).requires_grad
                if trained and (role != "transpose" or part != "bias"):
                    names.append((f"layers.{k}.{part}", leaf))
            found[role].append(Arrays(parts))
    return names, found


def _currents(
    system: PairedCircuit,
    x: torch.Tensor,
    routes: Sequence[object],
    values: Sequence[torch.Tensor],
    leaves: Leaves,
) -> list[torch.Tensor]:
    """Currents into h, then into u, where these put out `values`: F, linear in them."""
    depth = system.depth
    h, errors = values[:depth], [a - b for a, b in zip(values[:depth], values[depth:], strict=True)]
    found: dict[str, list[torch.Tensor]] = {"h": [], "u": []}
    fed: list[torch.Tensor | None] = [None] * depth
    for k, layer in enumerate(system.stack):
        links = [
            (source, link, str(name), routes[k] if link.routed else None) for source, link, name in layer.wires(k)
        ]
        for side in SIDES:
            arrays = leaves[side][k]
            parts = [link.apply(arrays.held[n], x if s < 0 else h[s], route) for s, link, n, route in links]  # type: ignore
            total = torch.stack(parts).sum(0)
            if arrays.bias is not None:
                total = total + arrays.bias.view(-1, *[1] * (total.ndim - 2))
            found[side].append(system.driven(total, k, side))
        for s, link, n, route in links:
            # What an auto-zero has stored follows the weights: nothing is fed back in a free state.
            if s >= 0 and system.device_model.auto_zero == "off":
                back = link.transpose(leaves["transpose"][k].held[n], errors[k], route)  # type: ignore
                through = system.through("transpose", s)
                back = back if through is None else back * through
                below = fed[s]
                fed[s] = back if below is None else below + back
    upper = [a if f is None else a + f for a, f in zip(found["h"], fed, strict=True)]
    return [*upper, *found["u"]]


def _solve(product: object, right: torch.Tensor, tolerance: float) -> tuple[torch.Tensor, float]:
    """Solve product(lambda) = right by GMRES, repeated on its own residual; return it and the relative residual."""
    shape, size = right.shape, float(right.norm())
    solution = torch.zeros_like(right)
    if size == 0:
        return solution, 0.0

    def applied(v: np.ndarray) -> np.ndarray:
        return product(torch.from_numpy(v.reshape(shape)).to(right)).cpu().numpy().ravel()  # type: ignore[operator]

    operator = LinearOperator((right.numel(), right.numel()), matvec=applied, dtype=np.float64)
    now = 1.0
    for _ in range(ROUNDS):
        miss = right - product(solution)  # type: ignore[operator]
        now = float(miss.norm()) / size
        if now <= tolerance:
            return solution, now
        step, _ = gmres(operator, miss.cpu().numpy().ravel(), rtol=1e-10, restart=RESTART, maxiter=1)
        solution = solution + torch.from_numpy(step.reshape(shape)).to(right)
    raise OracleError(
        f"The adjoint system was solved to a relative residual of {now:.2g} only, not {tolerance:.2g}: the free "
        "state is near a bifurcation, or has none that is stable."
    )


STABILITY = {
    "sweep": "stable by construction or certified",
    "newton": "certified stable",
    "euler": "followed in time",
    "flow": "followed in time",
}
"""What says that the free states which a solver has found are stable."""
UNCERTIFIED = "not certified"
"""Verdict on states of other solvers, such as 'guided', which starts from the circuit's course and ends by algebra:
no certificate is
tried."""


def stability_by(solver: str) -> str:
    """What says that free states are stable which these solvers have found, names separated by commas; '' for
    none."""
    names = [name.strip() for name in solver.split(",") if name.strip()]
    return ", ".join(dict.fromkeys(STABILITY.get(name, UNCERTIFIED) for name in names))


@dataclass(frozen=True)
class FreeState:
    """The free states of test examples, which stand beside each gradient.

    Attributes
    ----------
    share : float
        Examples that have a free state: see `stability` for whether it is known to be stable.
    error : float
        Share of these that are classified wrongly; NaN where none has one.
    solver : str
        What found them: 'sweep' or 'newton', which are algebra, or a course in time.
    undecided : float
        Examples whose state algebra has found and no certificate decides. They are not in `share`.
    """

    share: float
    error: float
    solver: str
    undecided: float = 0.0

    @property
    def stability(self) -> str:
        """What says that these states are stable (`stability_by`)."""
        return stability_by(self.solver)


def free_state(
    mapped: Mapped, x: torch.Tensor, labels: torch.Tensor, *, batch: int = 256, **options: Any
) -> FreeState:
    """Find the stable free states of test examples on a substrate, by its own course where copies differ.

    If `solver` asks for algebra there, states are found in float64, and such as are certified stable count.

    Parameters
    ----------
    mapped : Mapped
    x : Tensor (B, ...)
    labels : Tensor (B,)
        Class indices.
    batch : int
        Examples at a time.
    **options
        Further arguments of `relax`: solver, tolerance, max_iterations.
    """
    there = wrong = undecided = 0
    system = mapped.system
    solver = options.get("solver") or system.default_solver
    questioned = _in_question(system, solver)
    if questioned:
        system = copy.deepcopy(system).double()
        options = {"tolerance": 1e-9, **options}
    for at in range(0, len(x), batch):
        part = x[at : at + batch].to(system.dtype) if questioned else x[at : at + batch]
        found = relax(system, part, **options)
        stable = found.converged
        if questioned:
            certificate = certify(system, found.state, part)
            stable = stable & certificate.stable.to(stable.device)
            unknown = torch.tensor([v == "undecided" for v in certificate.verdict], device=stable.device)
            undecided += int((unknown & found.converged).sum())
        missed = mapped.decode(found.state).argmax(1) != labels[at : at + batch]
        there += int(stable.sum())
        wrong += int((missed & stable).sum())
        solver = found.solver or solver
    return FreeState(there / len(x), wrong / there if there else math.nan, solver, undecided / len(x))


def _in_question(system: Any, solver: str) -> bool:
    """Whether a state that this solver finds need not be stable: algebra where the circuit's course decides."""
    return isinstance(system, PairedCircuit) and solver in ALGEBRA and system.default_solver not in ALGEBRA


def of_equilibrium(mapped: Mapped, free: Equilibrium, x: torch.Tensor, labels: torch.Tensor) -> FreeState:
    """What the free phase of a gradient says of its own examples, with no further relaxation if it followed the
    circuit in time; states that algebra has found are found anew in float64, and certified (`free_state`).

    Parameters
    ----------
    mapped : Mapped
    free : Equilibrium
        Free equilibria of B examples, from one start or from several.
    x : Tensor (B, ...)
    labels : Tensor (B,)
        Class indices.
    """
    if _in_question(mapped.system, free.solver):
        return free_state(mapped, x, labels, solver=free.solver)
    there = free.converged
    missed = mapped.decode(free.state).argmax(1) != labels.repeat(len(there) // len(labels))
    count = int(there.sum())
    error = int((missed & there).sum()) / count if count else math.nan
    return FreeState(count / len(there), error, free.solver)


__all__ = [
    "REFERENCES",
    "FreeState",
    "NotConverged",
    "adaptation_gradient",
    "differs",
    "free_state",
    "of_equilibrium",
    "reference_gradient",
    "stability_by",
]
