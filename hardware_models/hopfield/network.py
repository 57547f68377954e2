"""Continuous Hopfield networks, layered, trained by equilibrium propagation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from physics_ep.errors import argument_error, is_real, require_seed, unknown_name
from physics_ep.overrides import require_physics
from physics_ep.placement import require_dense
from physics_ep.pooling import POOL, POOLINGS
from physics_ep.units import UNITS

from ..arrays import counts
from ..devices.systems import Device
from ..layers.couplings import Convolution, Dense, Readout
from ..layers.layered import OUTPUT_UNITS, Layered

if TYPE_CHECKING:
    from .graph import UnitGraph


class HopfieldNetwork(Layered):
    """Layered continuous Hopfield network (Hopfield 1984; Scellier and Bengio 2017).

    States are the amplifiers' outputs, dimensionless. With the hard sigmoid, Psi(s) = s^2/2 on [0, 1] and the
    energy is 1/2 |s|^2 - sum W s s - b s; with tanh and logistic units Psi is the integral of the inverse
    response, the energy of the 1984 circuit. In time the network follows the gradient of that energy; or, if asked
    (`flow` of `simulate`), the circuit itself or firing rates.

    Output units are linear by default, so that both costs apply;
    `output_activation='hard_sigmoid'` clips them to [0, 1] (squared error only).

    Parameters
    ----------
    sizes : sequence of int
        [inputs, hidden ..., outputs].
    activation : {'hard_sigmoid', 'tanh', 'logistic', 'linear'}
        Response of the hidden units.
    output_activation : {'linear', 'hard_sigmoid'}
        Response of the output units.
    gain : float or sequence of float
        Couplings start uniform in +-gain / sqrt(n_in); one number for all layers, or one a layer.
    seed : int
        Seed of the couplings.
    device : DeviceModel, mapping or str, optional
        Devices whose cells hold couplings and biases, a pair of cells each (`hardware_models.devices.systems`), or
        the name of a preset. Couplings are then what the cells make of them. Default: they are what they are.
    device_seed : int
        Seed of the device instance.
    device_headroom : float
        What a cell at g_max holds over the largest coupling of its array that is written: room to learn.
    device_full_scales : sequence of float, optional
        Full scale of the readings of each layer; default 1.

    Raises
    ------
    InputError
        If an argument is not as above.

    Examples
    --------
    >>> import torch
    >>> from physics_ep import relax
    >>> system = HopfieldNetwork([4, 8, 2], activation="tanh")
    >>> free = relax(system, torch.zeros(1, 4)).require()
    >>> bool(free.converged.all())
    True
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str = "hard_sigmoid",
        *,
        output_activation: str = "linear",
        gain: float | Sequence[float] = 0.5,
        seed: int = 0,
        device: Device = None,
        device_seed: int = 0,
        device_headroom: float = 1.0,
        device_full_scales: Sequence[float] | None = None,
    ) -> None:
        if not counts(sizes) or len(sizes) < 2:
            raise argument_error("sizes", "be at least two positive integers [inputs, ..., outputs]", sizes)
        require_dense(sizes)
        generator, gains = _checked(activation, output_activation, gain, len(sizes) - 1, seed)
        pairs = itertools.pairwise(sizes)
        layers = [Dense(n_in, n_out, g, generator) for (n_in, n_out), g in zip(pairs, gains, strict=True)]
        super().__init__([(n,) for n in sizes], layers, activation, output_activation)
        self._on(device, device_seed, device_headroom, device_full_scales)

    def to_circuit(self) -> UnitGraph:
        """The same network as a graph, float64 and on the CPU: nodes are the inputs, then the layers in order."""
        from .graph import UnitGraph

        require_physics(self, HopfieldNetwork, "network")
        offsets = [sum(self.sizes[:k]) for k in range(len(self.sizes) + 1)]
        edges, weights = [], []
        for k, layer in enumerate(self.couplings):
            post = torch.arange(offsets[k + 1], offsets[k + 2])
            pre = torch.arange(offsets[k], offsets[k + 1])
            edges.append(torch.cartesian_prod(post, pre))
            weights.append(layer.weight.detach().double().flatten().cpu())
        names = [self.activation] * (len(self.sizes) - 2) + [self.output_activation]
        units = [name for name, n in zip(names, self.sizes[1:], strict=True) for _ in range(n)]
        return UnitGraph.from_edges(
            n_nodes=offsets[-1],
            edges=torch.cat(edges).numpy(),
            weights=torch.cat(weights).numpy(),
            units=units,
            inputs=list(range(self.sizes[0])),
            outputs=list(range(offsets[-2], offsets[-1])),
            biases=torch.cat([layer.bias.detach().double() for layer in self.couplings]).cpu().numpy(),
        )


class ConvHopfieldNetwork(Layered):
    """Convolutional Hopfield network, "DCHN" (Ernoult 2019; Laborieux 2021; Scellier 2023, section 4).

    E = sum_k Psi(s_k) - sum_k s_{k+1} . P(w_k * s_k) - sum_k b_k . s_k, with convolutions w * that keep the size of
    the image, 2x2 pooling P after some of them, and one dense coupling from the last image to the outputs. States
    are (B, channels, rows, columns), outputs (B, n_out); all dimensionless.

    Max pooling picks the greatest entry of each window; of equal ones, the first. It needs units whose states are
    not negative, since only then does the energy fall with each exact layer update
    (`hardware_models.layers.layered`). Each choice of winners may have a minimum of its own: such a network is
    `multistable`, and which one is found depends on the start.

    Nudged phases of EP hold the winners of the free state, where they are
    locally constant.

    Parameters
    ----------
    input_shape : (channels, rows, columns)
        Shape of an image.
    channels : sequence of int
        Channels of the output of each convolution: the hidden layers. At least one.
    n_out : int
        Number of outputs.
    activation : {'hard_sigmoid', 'tanh', 'logistic', 'linear'}
        Response of the hidden units; with max pooling 'hard_sigmoid' or 'logistic'.
    kernel_size : int
        Odd.
    pooling : {'average', 'max'}
        Kind of the poolings, each of 2x2 units.
    pool_after : sequence of int, optional
        Numbers, from 1, of the convolutions that are followed by pooling. Default: all.
    output_activation : {'linear', 'hard_sigmoid'}
        Response of the output units.
    gain : float or sequence of float
        Couplings start uniform in +-gain / sqrt(fan-in); one number for all layers, or one a layer.
    seed : int
        Seed of the couplings.
    device : DeviceModel, mapping or str, optional
        Devices whose cells hold couplings and biases, a pair of cells each (`hardware_models.devices.systems`), or
        the name of a preset. Couplings are then what the cells make of them. Default: they are what they are.
    device_seed : int
        Seed of the device instance.
    device_headroom : float
        What a cell at g_max holds over the largest coupling of its array that is written: room to learn.
    device_full_scales : sequence of float, optional
        Full scale of the readings of each layer; default 1.

    Raises
    ------
    InputError
        If an argument is not as above, or the image is too small for its poolings.

    Examples
    --------
    >>> import torch
    >>> from physics_ep import relax
    >>> system = ConvHopfieldNetwork([1, 8, 8], [4, 6], 10, pooling="max")
    >>> free = relax(system, torch.ones(2, 1, 8, 8)).require()
    >>> [tuple(s.shape) for s in free.state]
    [(2, 4, 4, 4), (2, 6, 2, 2), (2, 10)]
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        channels: Sequence[int],
        n_out: int,
        activation: str = "hard_sigmoid",
        *,
        kernel_size: int = 3,
        pooling: str = "average",
        pool_after: Sequence[int] | None = None,
        output_activation: str = "linear",
        gain: float | Sequence[float] = 0.5,
        seed: int = 0,
        device: Device = None,
        device_seed: int = 0,
        device_headroom: float = 1.0,
        device_full_scales: Sequence[float] | None = None,
    ) -> None:
        if not counts(input_shape) or len(input_shape) != 3:
            raise argument_error("input_shape", "be three positive integers [channels, rows, columns]", input_shape)
        require_dense([math.prod(input_shape), n_out if isinstance(n_out, int) else 1])
        if counts(channels):
            require_dense([input_shape[0], *(9 * n for n in channels)])
        if not counts(channels) or not channels:
            raise argument_error("channels", "be one or more positive integers", channels)
        if not counts([n_out]):
            raise argument_error("n_out", "be a positive integer", n_out)
        if not counts([kernel_size]) or kernel_size % 2 == 0:
            raise argument_error("kernel_size", "be a positive odd integer", kernel_size)
        if pooling not in POOLINGS:
            raise unknown_name("pooling", pooling, POOLINGS)
        pooled = range(1, len(channels) + 1) if pool_after is None else pool_after
        if pooled and (not counts(pooled) or max(pooled) > len(channels) or len(set(pooled)) < len(pooled)):
            must = f"be different numbers of convolutions, from 1 to {len(channels)}"
            raise argument_error("pool_after", must, pool_after)
        generator, gains = _checked(activation, output_activation, gain, len(channels) + 1, seed)
        if pooling == "max" and pooled and UNITS[activation].bounds[0] < 0:
            nonnegative = [name for name, unit in UNITS.items() if unit.bounds[0] >= 0]
            must = f"be {' or '.join(map(repr, nonnegative))} with max pooling (states must not be negative)"
            raise argument_error("activation", must, repr(activation))
        shapes: list[tuple[int, ...]] = [tuple(input_shape)]
        layers: list[Convolution | Dense] = []
        image = (input_shape[0], input_shape[1], input_shape[2])
        for number, count in enumerate(channels, 1):
            if number in pooled and min(image[1:]) < POOL:
                least = POOL ** sum(n <= number for n in pooled)
                must = f"have at least {least} rows and columns for its poolings"
                raise argument_error("input_shape", must, list(input_shape))
            kind = pooling if number in pooled else None
            layer = Convolution(image, count, kernel_size, kind, gains[number - 1], generator)
            layers.append(layer)
            image = layer.post
            shapes.append(image)
        layers.append(Readout(image, n_out, gains[-1], generator))
        super().__init__([*shapes, (n_out,)], layers, activation, output_activation)
        self._on(device, device_seed, device_headroom, device_full_scales)


def _checked(
    activation: str, output_activation: str, gain: float | Sequence[float], n_layers: int, seed: int
) -> tuple[torch.Generator, Sequence[float]]:
    """Generator of the couplings and their gains, one a layer, after a check of what both networks take."""
    if activation not in UNITS:
        raise unknown_name("activation", activation, UNITS)
    if output_activation not in OUTPUT_UNITS:
        raise unknown_name("output_activation", output_activation, OUTPUT_UNITS)
    gains = gain if isinstance(gain, Sequence) and not isinstance(gain, str) else [gain] * n_layers
    if len(gains) != n_layers or not all(is_real(g) and g > 0 for g in gains):
        raise argument_error("gain", f"be a positive number, or {n_layers} of them", gain)
    require_seed(seed)
    return torch.Generator().manual_seed(seed), gains
