"""Costs on the outputs: value, gradient, curvature, and the nudged output unit in closed form.

Gradients are carried as differences from a base point, so that a nudged phase never subtracts two rounded
numbers (docs/physics.md, Displacements).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from .blocks import all_finite, is_dense, tiled
from .errors import InputError, argument_error, described, is_real, require_count
from .reads import read

NEWTON_STEPS = 30
"""Newton's steps of a cost without a closed form; fewer would leave the outputs of strong nudges unsettled."""


DIFFERENCE = 1e-5
"""Step of central differences of a cost's gradient, over one more than the outputs."""
NO_DERIVATIVE = "is not implemented"
"""What torch says of a function without a second derivative."""


class Cost:
    """Base of the costs. A subclass gives `value`; `gradient` and `curvature` are by autograd unless it gives them.

    Training from class labels also needs `encode`.

    All methods take outputs (B, n) and targets y as `encode` makes them, and keep the batch axis. The cost of an
    example is its own whatever its batch (`require_own`): gradients are means over the batch already.
    """

    name = "cost"
    steepest: float | None = None
    """Largest curvature that the cost has at any outputs; None: unknown."""

    positive_only: str | None = None
    """Why negative nudges by this cost have no equilibrium to count on; None: they have."""

    angular = False
    """Whether it takes outputs that are angles (`EnergySystem.angles`)."""

    separable = False
    """Whether it is a sum of functions of one output each."""

    holds = False
    """Whether it fixes the outputs, whatever drives them, in place of pulling at them."""

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Cost of each example, (B,)."""
        return self.value(outputs, y)

    def value(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Cost of each example, (B,), in torch functions that autograd can follow."""
        if type(self).__call__ is Cost.__call__:
            raise NotImplementedError(
                f"{type(self).__name__} must give value(outputs, y), the cost of each example."
            )
        return self(outputs, y)

    def gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """dC/d(outputs), (B, n). Default: autograd of the value."""
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            return torch.autograd.grad(costs(self, leaf, y).sum(), leaf)[0]

    def gradient_difference(self, outputs: torch.Tensor, d: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """dC(outputs + d) - dC(outputs), (B, n), without cancellation where the cost allows it.

        The default subtracts in float64, so that small displacements keep their digits.
        """
        kind, wide = torch.promote_types(outputs.dtype, d.dtype), torch.promote_types(d.dtype, torch.float64)
        base = outputs.to(torch.float64)
        target = y.double() if y.dtype.is_floating_point else y
        return (self.gradient(base.to(wide) + d.to(wide), target) - self.gradient(base, target)).to(kind)

    def curvature(self, outputs: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Product of the cost's Hessian with v (B, n): (B, n).

        Default: autograd of the value, or central differences of its gradient where torch has no second derivative
        of a function in it (`multi_margin_loss`).
        """
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            (slope,) = torch.autograd.grad(costs(self, leaf, y).sum(), leaf, create_graph=True)
            if not slope.requires_grad:  # linear in the outputs
                return torch.zeros_like(v)
            try:
                return torch.autograd.grad((slope * v.detach()).sum(), leaf)[0].to(v.dtype)
            except RuntimeError as error:
                if NO_DERIVATIVE not in str(error):
                    raise
        size = v.abs().amax(1, keepdim=True)
        step = DIFFERENCE * (1 + outputs.abs().amax(1, keepdim=True)) * v / torch.where(size > 0, size, 1.0)
        change = self.gradient_difference(outputs, step, y) - self.gradient_difference(outputs, -step, y)
        return change * (size / (2 * DIFFERENCE * (1 + outputs.abs().amax(1, keepdim=True))))

    def at(self, outputs: torch.Tensor, y: torch.Tensor, copies: int = 1) -> CostAt:
        """The cost near outputs (B, n), to be displaced from them many times, in rows of `copies` batches; y holds
        the targets of all rows, which are those of one batch again and again."""
        return CostAt(self, outputs, y, copies)

    def displaced_unit(
        self, outputs: torch.Tensor, y: torch.Tensor, beta: torch.Tensor | complex, rhs: torch.Tensor
    ) -> torch.Tensor:
        """Solve d + beta * dC(outputs + d) = rhs for d: the exact update of nudged linear units.

        It is the stationarity of 1/2 |s|^2 - drive . s + beta C(s) in s = outputs + d, with
        rhs = drive - outputs. A unit of load G, G s - drive, has beta / G, so beta may be (B, n).

        Default: Newton's method with the whole Hessian of each example.
        """
        n = outputs.shape[1]
        d, eye = rhs.clone(), torch.eye(n, dtype=rhs.dtype, device=rhs.device)
        force = beta * self.gradient(outputs, y)
        for _ in range(NEWTON_STEPS):
            miss = rhs - d - force - beta * self.gradient_difference(outputs, d, y)
            columns = [self.curvature(outputs + d, y, e.expand_as(rhs).clone()) for e in eye]
            rows = beta if isinstance(beta, torch.Tensor) else torch.as_tensor(beta, dtype=rhs.dtype)
            jacobian = eye + rows.to(rhs.dtype).expand_as(rhs)[:, :, None] * torch.stack(columns, 2).to(rhs.dtype)
            step = torch.linalg.solve(jacobian, miss)
            d = d + step
            if bool((step.abs().amax() <= 4 * torch.finfo(rhs.dtype).eps * d.abs().amax()).all()):
                break
        return d

    def linear(
        self, y: torch.Tensor, beta: torch.Tensor | complex
    ) -> tuple[torch.Tensor | complex, torch.Tensor] | None:
        """(stiffness, force) of a nudge whose force on the outputs is force - stiffness * outputs; else None.

        It holds for costs that are quadratic in each output by itself. Systems whose outputs then keep an exact
        update take their fast path for such costs, a user's own among them.

        Parameters
        ----------
        y : Tensor (B, n)
        beta : Tensor (B, 1) or number

        Returns
        -------
        tuple or None
            Stiffness and force as numbers or tensors that broadcast to (B, n), both over beta's unit times the
            outputs'. None (the default): the cost is not of that form.
        """
        return None

    measures = False
    """Whether `encode` takes measured targets (B, n_out) too, besides class indices."""

    def encode(self, labels: torch.Tensor, n_out: int, dtype: torch.dtype) -> torch.Tensor:
        """Class indices (B,) to the targets that this cost takes."""
        raise InputError(f"Argument cost ({type(self).__name__}) must have a method encode to take class indices.")

    def check(self, outputs: torch.Tensor, y: torch.Tensor) -> None:
        """Raise ValueError, naming the argument, if y does not fit outputs. Default: number of examples."""
        if not isinstance(y, torch.Tensor) or y.shape[:1] != outputs.shape[:1]:
            was = f"of shape {tuple(y.shape)}" if isinstance(y, torch.Tensor) else type(y).__name__
            raise argument_error("y", f"be a tensor of {len(outputs)} examples", was)
        if not all_finite(y):
            raise argument_error("y", "be finite", "NaN or infinite entries")


class FunctionCost(Cost):
    """Any torch function of (outputs, y) as a cost; slopes and curvatures by autograd.

    Parameters
    ----------
    function : callable (outputs (B, n), y) -> Tensor (B,)
        The cost of each example: reduction 'none' of torch's losses, summed over outputs where they have several.
        It is divided by nothing that depends on the batch. Weights of examples are columns of y.

    Examples
    --------
    >>> from torch.nn.functional import cross_entropy
    >>> smooth = FunctionCost(lambda o, y: cross_entropy(o, y, label_smoothing=0.1, reduction="none"))
    >>> smooth(torch.zeros(2, 4), torch.tensor([0, 3])).shape
    torch.Size([2])
    """

    name = "function"

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        self.function = function

    def value(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.function(outputs, y)


class CostAt:
    """A cost near given outputs: what every displacement from them shares is computed once.

    Parameters
    ----------
    cost : Cost
    outputs : Tensor (B, n)
    y : Tensor (rows, ...)
        Targets of batches that are stacked, the same ones again and again.
    copies : int
        Batches: rows = copies * B.

    Attributes
    ----------
    outputs, gradient : Tensor (rows, n)
        The outputs, and the cost's gradient there.
    """

    gradient: torch.Tensor

    def __init__(self, cost: Cost, outputs: torch.Tensor, y: torch.Tensor, copies: int = 1) -> None:
        self.cost = cost
        self.y = y
        self.outputs = tiled(outputs, copies)
        self.settle(outputs, copies)

    def settle(self, outputs: torch.Tensor, copies: int) -> None:
        """Compute what displacements share, from the outputs (B, n) of one batch."""
        self.gradient = self.cost.gradient(self.outputs, self.y)

    def difference(self, d: torch.Tensor) -> torch.Tensor:
        """dC(outputs + d) - dC(outputs), (rows, n), as `Cost.gradient_difference` has it."""
        return self.cost.gradient_difference(self.outputs, d, self.y)


class SquaredError(Cost):
    """C = 1/2 ||outputs - y||^2 an example, y (B, n_out).

    Parameters
    ----------
    target : float
        What class labels become: the target of the output of the example's class, in the unit of the outputs; that
        of all others is 0. Measured targets that `encode` is given are in this unit.
    """

    name = "squared_error"
    steepest = 1.0
    separable = True
    measures = True

    def __init__(self, target: float = 1.0) -> None:
        if not (is_real(target) and target > 0):
            raise argument_error("target", "be a positive finite number", repr(target))
        self.target = float(target)

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 0.5 * (outputs - y).square().flatten(1).sum(1)

    def gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return outputs - y

    def gradient_difference(self, outputs: torch.Tensor, d: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return d

    def curvature(self, outputs: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return v

    def displaced_unit(
        self, outputs: torch.Tensor, y: torch.Tensor, beta: torch.Tensor | complex, rhs: torch.Tensor
    ) -> torch.Tensor:
        # (drive + beta y) / (1 + beta) - outputs, written in the displacement.
        return (rhs - beta * (outputs - y)) / (1 + beta)

    def linear(self, y: torch.Tensor, beta: torch.Tensor | complex) -> tuple[torch.Tensor | complex, torch.Tensor]:
        return beta, beta * y

    def encode(self, labels: torch.Tensor, n_out: int, dtype: torch.dtype) -> torch.Tensor:
        labels = as_targets(labels)
        if labels.is_floating_point() and labels.ndim == 2:
            if labels.shape[1] != n_out:
                raise argument_error("y", f"be measured targets (B, {n_out}), one an output", tuple(labels.shape))
            return labels.to(dtype) if self.target == 1 else self.target * labels.to(dtype)
        check_labels(labels, n_out)
        if not isinstance(dtype, torch.dtype):
            raise argument_error("dtype", "be a torch.dtype", repr(dtype))
        found = torch.nn.functional.one_hot(labels, n_out).to(dtype)
        return found if self.target == 1 else self.target * found

    def check(self, outputs: torch.Tensor, y: torch.Tensor) -> None:
        if not isinstance(y, torch.Tensor):
            raise argument_error("y", "be a tensor", type(y).__name__)
        if y.shape != outputs.shape:
            must = f"have the outputs' shape {tuple(outputs.shape)}"
            if y.shape == outputs.shape[:1] and not y.is_floating_point():
                must += (
                    f" (of class numbers torch.nn.functional.one_hot(y, {outputs.shape[1]}).to(x), times the "
                    "target where that is not 1; of a trained run physics_ep.nudge_of makes it)"
                )
            raise argument_error("y", must, tuple(y.shape))
        if not all_finite(y):
            raise argument_error("y", "be finite", "NaN or infinite entries")


class CrossEntropy(Cost):
    """C = -log softmax(outputs)[y] an example, y class indices (B,), outputs taken as logits."""

    name = "cross_entropy"
    steepest = 0.5
    newton_steps = 12

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -outputs.log_softmax(1).gather(1, y[:, None])[:, 0]

    def gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return outputs.softmax(1) - torch.nn.functional.one_hot(y, outputs.shape[1]).to(outputs.dtype)

    def gradient_difference(self, outputs: torch.Tensor, d: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return _softmax_difference(outputs.softmax(1), d)

    def at(self, outputs: torch.Tensor, y: torch.Tensor, copies: int = 1) -> CostAt:
        own = type(self).gradient is CrossEntropy.gradient
        own = own and type(self).gradient_difference is CrossEntropy.gradient_difference
        return _EntropyAt(self, outputs, y, copies) if own else super().at(outputs, y, copies)

    def curvature(self, outputs: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        p = outputs.softmax(1)
        return p * (v - (p * v).sum(1, keepdim=True))

    def displaced_unit(
        self, outputs: torch.Tensor, y: torch.Tensor, beta: torch.Tensor | complex, rhs: torch.Tensor
    ) -> torch.Tensor:
        # Newton; the Jacobian I + beta (diag p - p p^T) is inverted by Sherman and Morrison.
        rhs = rhs - beta * self.gradient(outputs, y)
        d = rhs.clone()
        eps = torch.finfo(rhs.dtype).eps
        for _ in range(self.newton_steps):
            miss = rhs - d - beta * self.gradient_difference(outputs, d, y)
            p = softmax(outputs + d)
            inverse = 1 / (1 + beta * p)
            scaled = inverse * p
            step = inverse * miss
            step = step + scaled * (beta * (p * step).sum(1, keepdim=True)) / (
                1 - (beta * p * scaled).sum(1, keepdim=True)
            )
            d = d + step
            if bool((step.abs().amax() <= 4 * eps * d.abs().amax()).all()):
                break
        return d

    def encode(self, labels: torch.Tensor, n_out: int, dtype: torch.dtype) -> torch.Tensor:
        labels = as_targets(labels)
        check_labels(labels, n_out)
        return labels

    def check(self, outputs: torch.Tensor, y: torch.Tensor) -> None:
        if y.shape != outputs.shape[:1] or y.dtype.is_floating_point or y.dtype.is_complex:
            of_rows = " (of one-hot rows y.argmax(1))" if y.shape == outputs.shape else ""
            must = f"be class indices of shape ({outputs.shape[0]},){of_rows}"
            raise argument_error("y", must, f"{y.dtype} of shape {tuple(y.shape)}")
        check_labels(y, outputs.shape[1])


class _EntropyAt(CostAt):
    """The cross-entropy near given logits; p, (rows, n), is their softmax."""

    def settle(self, outputs: torch.Tensor, copies: int) -> None:
        p, y = outputs.softmax(1), self.y[: len(outputs), None]
        hit = p.new_full((1, 1), -1.0).expand_as(y)
        self.p, self.gradient = tiled(p, copies), tiled(p.scatter_add(1, y, hit), copies)

    def difference(self, d: torch.Tensor) -> torch.Tensor:
        return _softmax_difference(self.p, d)


def _softmax_difference(p: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """softmax(o + d) - softmax(o) where softmax(o) = p: p (exp(d) / Z - 1), Z = sum p exp(d), through expm1."""
    grown = torch.expm1(d)
    excess = (p * grown).sum(1, keepdim=True)
    return p * (grown - excess) / (1 + excess)


def softmax(logits: torch.Tensor) -> torch.Tensor:
    """Softmax over the classes, also of complex logits, which torch's does not take."""
    if not logits.is_complex():
        return logits.softmax(1)
    grown = (logits - logits.real.amax(1, keepdim=True)).exp()
    return grown / grown.sum(1, keepdim=True)


class OutputForce(Cost):
    """C = -force . outputs: a constant force on the outputs, to measure the linear response of a system."""

    name = "output_force"
    steepest = 0.0
    separable = True

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -(outputs * y).flatten(1).sum(1)

    def gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -y

    def gradient_difference(self, outputs: torch.Tensor, d: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(d)

    def curvature(self, outputs: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(v)

    def displaced_unit(
        self, outputs: torch.Tensor, y: torch.Tensor, beta: torch.Tensor | complex, rhs: torch.Tensor
    ) -> torch.Tensor:
        return rhs + beta * y

    def linear(self, y: torch.Tensor, beta: torch.Tensor | complex) -> tuple[torch.Tensor | complex, torch.Tensor]:
        return 0.0, beta * y

    def check(self, outputs: torch.Tensor, y: torch.Tensor) -> None:
        return None


class PhaseCost(Cost):
    """Base of the costs on outputs that are angles: a sum over functions of phase - target, y (B, n_out) radians.

    Attributes
    ----------
    off : float
        Target of the outputs that are not the example's class, whose target is 0.
    """

    angular = True
    off = math.pi

    def encode(self, labels: torch.Tensor, n_out: int, dtype: torch.dtype) -> torch.Tensor:
        labels = as_targets(labels)
        check_labels(labels, n_out)
        return self.off * (1 - torch.nn.functional.one_hot(labels, n_out).to(dtype))

    def check(self, outputs: torch.Tensor, y: torch.Tensor) -> None:
        SquaredError().check(outputs, y)


class PhaseError(PhaseCost):
    """C = sum 1 - cos(phase - target): half the squared distance on the circle.

    Its slope is bounded, so that a phase nudged by -beta has a place to rest while beta is below the field that
    holds the output: the cost for centered schemes.
    """

    name = "phase_error"

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (2 * (0.5 * (outputs - y)).sin().square()).sum(1)

    def gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (outputs - y).sin()

    def gradient_difference(self, outputs: torch.Tensor, d: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # sin(a + d) - sin(a) = 2 cos(a + d/2) sin(d/2).
        return 2 * (outputs - y + 0.5 * d).cos() * (0.5 * d).sin()

    def curvature(self, outputs: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (outputs - y).cos() * v


class LogPhaseError(PhaseCost):
    """C = -sum log((1 + cos(phase - target)) / 2), zero at the target (Wang, Wanjura and Marquardt 2024).

    It is infinite at the antipode of the target, where its curvature 1 / (1 + cos) is too: nudged by -beta, a phase
    is drawn over there whatever holds it, and the energy has no bound. So it is for positive nudges only.
    """

    name = "log_phase_error"
    positive_only = (
        "its curvature diverges at the antipode of the target, so that a phase nudged by -beta has no equilibrium "
        "that one could count on; use 'phase_error' or scheme 'positive'"
    )

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -2 * (0.5 * (outputs - y)).cos().abs().log().sum(1)

    def gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # sin / (1 + cos) = tan of the half.
        return (0.5 * (outputs - y)).tan()

    def gradient_difference(self, outputs: torch.Tensor, d: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # tan(a + e) - tan(a) = sin(e) / (cos(a) cos(a + e)).
        half = 0.5 * (outputs - y)
        return (0.5 * d).sin() / (half.cos() * (half + 0.5 * d).cos())

    def curvature(self, outputs: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return 0.5 * v / (0.5 * (outputs - y)).cos().square()


def as_cost(cost: Any) -> Cost:
    """A cost, or a function of (outputs, y) as one.

    Raises
    ------
    InputError
        If it is neither. A loss of `torch.nn` is no function here: most are means over the batch.
    """
    if isinstance(cost, Cost):
        return cost
    if not callable(cost) or isinstance(cost, type | torch.nn.Module):
        was = cost.__name__ if isinstance(cost, type) else type(cost).__name__
        must = "be a Cost, such as SquaredError(), or a function of (outputs, y) with reduction='none'"
        raise argument_error("cost", must, f"the class {was}" if isinstance(cost, type) else was)
    return FunctionCost(cost)


def costs(cost: Cost, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cost of each example, (B,), of a cost that may be a user's.

    Raises
    ------
    InputError
        If the cost does not have that shape, or is nothing that autograd can follow to the outputs. A mean over the
        batch would nudge each example by 1 / B of its pull.
    """
    each = cost(outputs, y)
    if not isinstance(each, torch.Tensor) or each.shape != outputs.shape[:1]:
        must = f"return one number an example, of shape ({len(outputs)},)"
        was = f"of shape {tuple(each.shape)}" if isinstance(each, torch.Tensor) else type(each).__name__
        raise argument_error(f"cost ({type(cost).__name__})", must, was)
    if not each.is_floating_point() and not outputs.is_complex():
        raise argument_error(f"cost ({type(cost).__name__})", "return real floating-point numbers", each.dtype)
    if outputs.requires_grad and not each.requires_grad and torch.is_grad_enabled():
        must = "return a tensor that autograd can follow to the outputs"
        raise argument_error(f"cost ({type(cost).__name__})", must, "detached from them")
    return each


def fitted_targets(cost: Cost, outputs: torch.Tensor, y: Any) -> torch.Tensor:
    """Targets as a cost takes them beside these outputs.

    Numbers are put in the outputs' dtype where autograd follows the cost, since many of torch's losses take one
    dtype alone. They are numbers where they are floating point, or have the outputs' own shape (0, 1, True, False);
    else class indices.

    Raises
    ------
    InputError
        If they do not fit the outputs.
    """
    y = as_targets(y)
    cost.check(outputs, y)
    if type(cost).gradient is not Cost.gradient or not (y.is_floating_point() or y.shape == outputs.shape):
        return y
    return y.to(outputs.dtype.to_real())


def require_own(cost: Cost, outputs: torch.Tensor, y: torch.Tensor) -> None:
    """Refuse a cost of which an example's value depends on its batch: it is tried on both halves of this one.

    Nudged phases of several strengths are stacked, and examples are left out and repeated. A cost over the size of
    the batch, with weights that are normalised over it, or with a list of its examples' weights, then pulls
    otherwise than the loss says. Costs of this package are not tried.

    Parameters
    ----------
    cost : Cost
    outputs : Tensor (B, n)
    y : Tensor (B, ...)

    Raises
    ------
    InputError
        If an example's value changes with the rest of its batch, or the cost fails on half a batch.
    """
    if type(cost) in COSTS.values() or cost.holds:
        return
    rows = len(outputs)
    if rows == 1:  # beside another one, which lies within the same bounds
        outputs, y = torch.cat([outputs, (1 - 2**-10) * outputs]), torch.cat([y, y])
    half = (len(outputs) + 1) // 2
    parts = (slice(None, half), slice(half, None))
    must = (
        "give an example the same cost in any batch, since gradients are means over the batch already: divide by "
        "nothing, and let weights of examples stand in y"
    )
    name = f"cost ({type(cost).__name__})"
    methods = [costs] if type(cost).gradient is Cost.gradient else [costs, type(cost).gradient]
    for method in methods:
        whole = method(cost, outputs, y).detach()
        try:
            halves = torch.cat([method(cost, outputs[part], y[part]).detach() for part in parts])
        except (RuntimeError, IndexError, ValueError) as error:
            was = f"one that fails on half of a batch of {len(outputs)} ({str(error).splitlines()[0].rstrip('.')})"
            raise argument_error(name, must, was) from error
        gap = (halves - whole).abs().reshape(len(whole), -1).nan_to_num(0.0, 0.0, 0.0).amax(1)
        size = torch.maximum(whole.abs(), halves.abs()).nan_to_num(0.0, 0.0, 0.0).max()
        if bool((gap > math.sqrt(torch.finfo(whole.dtype).eps) * size).any()):
            i = int(gap.argmax())
            values = [float(v.reshape(len(v), -1)[i, 0]) for v in (whole, halves)]
            was = f"{values[0]:.6g} for example {i} of {len(outputs)}, and {values[1]:.6g} in half of that batch"
            raise argument_error(name, must, was)


MOST_OUTPUTS = 10**7
"""Outputs of the largest system whose classes are encoded: a target of 40 MB an example."""


def as_targets(y: Any) -> torch.Tensor:
    """Targets as a tensor: numpy arrays and lists too, and class indices of any integer type as int64."""
    if not isinstance(y, torch.Tensor):
        try:
            y = torch.as_tensor(y)
        except (TypeError, ValueError, RuntimeError):
            raise argument_error("y", "be a tensor, an array or a list of numbers", type(y).__name__) from None
    if not is_dense(y) or y.is_complex() or not y.ndim:
        must = "be a tensor, an array or a list of real numbers, one entry or row an example"
        raise argument_error("y", must, f"complex, {described(y)}" if y.is_complex() else described(y))
    return y if y.is_floating_point() else y.to(torch.int64)


def check_labels(labels: torch.Tensor, n_out: int) -> None:
    """Raise ValueError unless labels are integers in [0, n_out)."""
    require_count("n_out", n_out, most=MOST_OUTPUTS)
    if labels.is_floating_point():
        raise argument_error("y", "hold class indices, which are integers", labels.dtype)
    if not labels.numel():
        return
    least, most = (int(value) for value in read(labels.min(), labels.max()))  # before a device uses them as indices
    if least < 0 or most >= n_out:
        raise argument_error("y", f"hold class indices in [0, {n_out})", f"values from {least} to {most}")


COSTS: dict[str, type[Cost]] = {cost.name: cost for cost in (SquaredError, CrossEntropy, PhaseError, LogPhaseError)}
"""Costs by name."""
