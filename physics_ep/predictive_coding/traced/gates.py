"""Calls with kinks, held where the free pass left them: masks, clip values, routes of poolings and of maxima.

With gates held a nudged phase is a smooth function of its displacements: what a ReLU, a clip or a max pooling
does to a value is the linear map that it was in the free pass. Whole numbers and truth values that a pass
computes from its values, and what autograd cuts (`detach`), stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

Tensor = torch.Tensor
Held = Any
"""What a rule keeps of the free pass."""


def _argument(args: Any, kwargs: dict[str, Any], place: int, *names: str, default: Any = None) -> Any:
    """An argument by its place or by one of its names."""
    if len(args) > place:
        return args[place]
    return next((kwargs[name] for name in names if name in kwargs), default)


def _first(args: Any, kwargs: dict[str, Any]) -> Tensor:
    value: Tensor = _argument(args, kwargs, 0, "input", "self")
    return value


class Hold:
    """How a call is held: what is kept of the free pass, and the call made with it.

    Parameters
    ----------
    keep : callable (args, kwargs, result of the free pass) -> what is kept, or None where the call has no kink
    apply : callable (what is kept, args, kwargs) -> result
    call : callable (args, kwargs) -> (result, what is kept), optional
        Makes the call of the free pass where its own result does not tell what to keep.
    """

    def __init__(
        self,
        keep: Callable[[Any, dict[str, Any], Any], Held],
        apply: Callable[[Held, Any, dict[str, Any]], Any],
        call: Callable[[Any, dict[str, Any]], tuple[Any, Held]] | None = None,
    ) -> None:
        self.keep = keep
        self.apply = apply
        self.call = call


def _zero(x: Tensor) -> Tensor:
    return x.new_zeros(())


def _relu(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """The value where the free pass left something above 0, else 0; what was left is kept anyway, as a unit."""
    passed: Tensor = torch.ops.aten.threshold_backward(_first(args, kwargs), held, 0)
    return passed


def _passing(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    x = _first(args, kwargs)
    return torch.where(held, x, _zero(x))


def _positive(args: Any, kwargs: dict[str, Any], result: Any) -> Held:
    return _first(args, kwargs) > 0


def _leaky(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    x = _first(args, kwargs)
    return torch.where(held, x, _argument(args, kwargs, 1, "negative_slope", default=0.01) * x)


def _prelu(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    x, weight = _first(args, kwargs), _argument(args, kwargs, 1, "weight")
    slope = weight if weight.numel() == 1 else weight.view(-1, *[1] * (x.ndim - 2))
    return torch.where(held, x, slope * x)


def _elu(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    x = _first(args, kwargs)
    alpha = _argument(args, kwargs, 1, "alpha", default=1.0)
    return torch.where(held, x, alpha * torch.where(held, _zero(x), x).expm1())


def _celu(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    x = _first(args, kwargs)
    alpha = _argument(args, kwargs, 1, "alpha", default=1.0)
    return torch.where(held, x, alpha * (torch.where(held, _zero(x), x) / alpha).expm1())


SELU = (1.0507009873554804934193349852946, 1.6732632423543772848170429916717)


def _selu(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    x = _first(args, kwargs)
    scale, alpha = SELU
    return scale * torch.where(held, x, alpha * torch.where(held, _zero(x), x).expm1())


def _bounds(name: str) -> Callable[[Any, dict[str, Any]], tuple[Any, Any]]:
    """Lower and upper bound of a clip; None: there is none."""

    def found(args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if name == "relu6":
            return 0.0, 6.0
        if name == "hardtanh":
            lo = _argument(args, kwargs, 1, "min_val", default=-1.0)
            return lo, _argument(args, kwargs, 2, "max_val", default=1.0)
        if name == "clamp_min":
            return _argument(args, kwargs, 1, "min"), None
        if name == "clamp_max":
            return None, _argument(args, kwargs, 1, "max")
        return _argument(args, kwargs, 1, "min"), _argument(args, kwargs, 2, "max")

    return found


def _clip(name: str) -> Hold:
    bounds, closed = _bounds(name), name.startswith(("clamp", "clip"))

    def keep(args: Any, kwargs: dict[str, Any], result: Any) -> Held:
        x, (lo, hi) = _first(args, kwargs), bounds(args, kwargs)
        # Autograd's slope at a bound itself is 1 of a clamp, and 0 of a hard tanh.
        below = None if lo is None else (x < lo if closed else x <= lo)
        above = None if hi is None else (x > hi if closed else x >= hi)
        return below, above

    def apply(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
        x, (lo, hi), (below, above) = _first(args, kwargs), bounds(args, kwargs), held
        if above is not None:
            x = torch.where(above, _like(hi, x), x)
        return x if below is None else torch.where(below, _like(lo, x), x)

    return Hold(keep, apply)


def _like(bound: Any, x: Tensor) -> Tensor:
    return bound.to(x.dtype) if isinstance(bound, Tensor) else x.new_full((), float(bound))


def _between(args: Any, kwargs: dict[str, Any], result: Any) -> Held:
    x = _first(args, kwargs)
    return x <= -3, x >= 3


def _hardsigmoid(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    x = _first(args, kwargs)
    return torch.where(held[1], x.new_ones(()), torch.where(held[0], _zero(x), x / 6 + 0.5))


def _hardswish(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    x = _first(args, kwargs)
    return torch.where(held[1], x, torch.where(held[0], _zero(x), x * (x + 3) / 6))


def _threshold(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    x = _first(args, kwargs)
    return torch.where(held, x, _like(_argument(args, kwargs, 2, "value"), x))


def _shrunk(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    x = _first(args, kwargs)
    by = _argument(args, kwargs, 1, "lambd", default=0.5)
    return torch.where(held[0], x - by, torch.where(held[1], x + by, _zero(x)))


def _softshrink_sides(args: Any, kwargs: dict[str, Any], result: Any) -> Held:
    x, by = _first(args, kwargs), _argument(args, kwargs, 1, "lambd", default=0.5)
    return x > by, x < -by


def _rrelu_slopes(args: Any, kwargs: dict[str, Any], result: Any) -> Held:
    x = _first(args, kwargs)
    return torch.where(x == 0, torch.ones_like(x), result / torch.where(x == 0, torch.ones_like(x), x)).detach()


# -- routes --------------------------------------------------------------------------------------------------------


def _pool(name: str, dims: int) -> Hold:
    """A max pooling: which input it picks."""
    adaptive = name.startswith("adaptive")
    function = getattr(functional, f"{name}_with_indices")

    def call(args: Any, kwargs: dict[str, Any]) -> tuple[Any, Held]:
        own = {k: v for k, v in kwargs.items() if k != "return_indices"}
        own = {("input" if k == "self" else k): v for k, v in own.items()}
        result, route = function(*args[: 2 if adaptive else 6], **own)
        return result, route

    def apply(route: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
        x = _first(args, kwargs)
        picked: Tensor = x.flatten(-dims).gather(-1, route.flatten(-dims))
        return picked.view(route.shape)

    return Hold(lambda args, kwargs, result: None, apply, call)


def _pool_with_routes(dims: int) -> Hold:
    """A max pooling that returns its routes beside the values: the routes themselves are what is kept."""

    def apply(route: Held, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        x = _first(args, kwargs)
        return x.flatten(-dims).gather(-1, route.flatten(-dims)).view(route.shape), route

    return Hold(lambda args, kwargs, result: result[1], apply)


def _order(held: Held, args: Any, kwargs: dict[str, Any]) -> Any:
    """Values and indices of a maximum, a sort or the like along an axis."""
    kind, indices, axis, keepdim = held
    x = _first(args, kwargs)
    values = x.gather(axis, indices)
    if not keepdim:
        values, indices = values.squeeze(axis), indices.squeeze(axis)
    return kind((values, indices))


def _keep_order(axis_place: int, reduces: bool, keepdim_place: int = 2) -> Callable[..., Held]:
    def keep(args: Any, kwargs: dict[str, Any], result: Any) -> Held:
        axis = _argument(args, kwargs, axis_place, "dim", default=-1)
        keepdim = not reduces or bool(_argument(args, kwargs, keepdim_place, "keepdim", default=False))
        indices = result[1] if keepdim else result[1].unsqueeze(axis)
        return type(result), indices, axis, keepdim

    return keep


def _shares(args: Any, kwargs: dict[str, Any], result: Tensor) -> Tensor:
    """Share of each entry in a maximum over axes: ties share alike, as autograd has it."""
    x = _first(args, kwargs)
    axes = _argument(args, kwargs, 1, "dim", default=None)
    keepdim = _argument(args, kwargs, 2, "keepdim", default=False)
    axes = tuple(range(x.ndim)) if axes is None or axes == () else (axes,) if isinstance(axes, int) else tuple(axes)
    if not keepdim:
        for axis in sorted(a % x.ndim for a in axes):
            result = result.unsqueeze(axis)
    same = (x == result).to(x.dtype)
    return same / same.sum(axes, keepdim=True)


def _over_axes(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    x = _first(args, kwargs)
    axes = _argument(args, kwargs, 1, "dim", default=None)
    axes = tuple(range(x.ndim)) if axes is None or axes == () else axes
    return (x * held).sum(axes, keepdim=bool(_argument(args, kwargs, 2, "keepdim", default=False)))


def _keep_maximum(args: Any, kwargs: dict[str, Any], result: Any) -> Held:
    """Hold what `max` or `min` picked: of all entries, of those along an axis, or the larger of two tensors."""
    second = _argument(args, kwargs, 1, "dim", "other")
    if isinstance(second, Tensor):
        return "two", _larger_share(args, kwargs, result)
    if second is None:
        return "all", _shares(args[:1], {k: v for k, v in kwargs.items() if k in ("input", "self")}, result)
    return "axis", _keep_order(1, reduces=True)(args, kwargs, result)


def _maximum(held: Held, args: Any, kwargs: dict[str, Any]) -> Any:
    kind, kept = held
    if kind == "two":
        return _mixture(kept, args, kwargs)
    if kind == "all":
        return (_first(args, kwargs) * kept).sum()
    return _order(kept, args, kwargs)


def _larger_share(args: Any, kwargs: dict[str, Any], result: Tensor) -> Tensor:
    one, other = _first(args, kwargs), _argument(args, kwargs, 1, "other")
    share = (one == result).to(result.dtype)
    return torch.where(one == other, 0.5 * torch.ones_like(share), share)


def _mixture(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    return held * _first(args, kwargs) + (1 - held) * _argument(args, kwargs, 1, "other")


def _extremes(args: Any, kwargs: dict[str, Any], result: Any) -> Held:
    """Shares of each entry in the least and in the largest, of `aminmax`; without an axis, of all entries."""
    axis, keepdim = kwargs.get("dim"), kwargs.get("keepdim", False)
    x = _first(args, kwargs)
    return type(result), axis, keepdim, [_shares((x, axis, keepdim), {}, r) for r in (result.min, result.max)]


def _between_extremes(held: Held, args: Any, kwargs: dict[str, Any]) -> Any:
    kind, axis, keepdim, shares = held
    return kind(tuple(_over_axes(share, (_first(args, kwargs), axis, keepdim), {}) for share in shares))


def _whole_turns(args: Any, kwargs: dict[str, Any], result: Any) -> Held:
    """How often the divisor was taken off: a whole number, which is held."""
    x, by = _divided(args, kwargs)
    return torch.round((x - result) / by)


def _divided(args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    return _first(args, kwargs), _argument(args, kwargs, 1, "other", default=1.0)


def _rest(held: Held, args: Any, kwargs: dict[str, Any]) -> Any:
    x, by = _divided(args, kwargs)
    return x - held * by


def _sign(args: Any, kwargs: dict[str, Any], result: Any) -> Held:
    return _first(args, kwargs).sgn()


def _signed(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    return held * _first(args, kwargs)


def _absolute(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """The absolute value of a complex number bends, but has no sign to hold."""
    x = _first(args, kwargs)
    return x.abs() if x.is_complex() else held * x


def _rounded(args: Any, kwargs: dict[str, Any], result: Any) -> Held:
    """What quantisation added where it rounded, which is at most half a step; what it clipped stays as it is."""
    x, step = _first(args, kwargs), _argument(args, kwargs, 1, "scale")
    if isinstance(step, Tensor) and step.numel() > 1:
        axis = _argument(args, kwargs, 3, "axis") % x.ndim
        step = step.view(-1, *[1] * (x.ndim - 1 - axis))
    added = result - x
    return added.abs() <= 0.5001 * step, added, result


def _requantised(held: Held, args: Any, kwargs: dict[str, Any]) -> Tensor:
    inside, added, result = held
    return torch.where(inside, _first(args, kwargs) + added, result)


def _result(args: Any, kwargs: dict[str, Any], result: Any) -> Held:
    return result.detach() if isinstance(result, Tensor) else result


def _kept(held: Held, args: Any, kwargs: dict[str, Any]) -> Any:
    return held


KEPT = Hold(_result, _kept)
"""What does not move: whole numbers, truth values, and what autograd cuts."""

STEPS = (
    "sign",
    "sgn",
    "round",
    "floor",
    "ceil",
    "trunc",
    "fix",
    "heaviside",
    "floor_divide",
    "one_hot",
    "bucketize",
)

RULES: dict[str, Hold] = {
    "relu": Hold(_result, _relu),
    "leaky_relu": Hold(_positive, _leaky),
    "prelu": Hold(_positive, _prelu),
    "_prelu_kernel": Hold(_positive, _prelu),
    "elu": Hold(_positive, _elu),
    "celu": Hold(_positive, _celu),
    "selu": Hold(_positive, _selu),
    "rrelu": Hold(_rrelu_slopes, _signed),
    **{name: _clip(name) for name in ("relu6", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max")},
    "hardsigmoid": Hold(_between, _hardsigmoid),
    "hardswish": Hold(_between, _hardswish),
    "threshold": Hold(lambda a, k, r: _first(a, k) > _argument(a, k, 1, "threshold"), _threshold),
    "softshrink": Hold(_softshrink_sides, _shrunk),
    "hardshrink": Hold(lambda a, k, r: r != 0, _passing),
    **{name: Hold(_sign, _absolute) for name in ("abs", "absolute", "__abs__")},
    **{f"fake_quantize_per_{of}_affine": Hold(_rounded, _requantised) for of in ("tensor", "channel")},
    **{f"{a}max_pool{d}d": _pool(f"{a}max_pool{d}d", d) for a in ("", "adaptive_") for d in (1, 2, 3)},
    **{f"{a}max_pool{d}d_with_indices": _pool_with_routes(d) for a in ("", "adaptive_") for d in (1, 2, 3)},
    **{f"fractional_max_pool{d}d_with_indices": _pool_with_routes(d) for d in (2, 3)},
    **{name: Hold(_shares, _over_axes) for name in ("amax", "amin")},
    "aminmax": Hold(_extremes, _between_extremes),
    **{name: Hold(_keep_maximum, _maximum) for name in ("max", "min")},
    **{name: Hold(_larger_share, _mixture) for name in ("maximum", "minimum", "fmax", "fmin")},
    **{name: Hold(_keep_maximum, _maximum) for name in ("median", "nanmedian")},
    **{name: Hold(_keep_order(1, reduces=False), _order) for name in ("sort", "cummax", "cummin")},
    **{name: Hold(_whole_turns, _rest) for name in ("remainder", "fmod", "__mod__", "frac")},
    "topk": Hold(_keep_order(2, reduces=False), _order),
    "kthvalue": Hold(_keep_order(2, reduces=True, keepdim_place=3), _order),
    **dict.fromkeys(STEPS, KEPT),
}
"""Functions with kinks by name, and how they are held."""
