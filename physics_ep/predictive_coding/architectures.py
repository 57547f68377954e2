"""The networks: `mlp`, and VGG5, VGG10 and VGG10Skip of Kerjan, Hoier and Scellier 2026 (arXiv 2606.03584,
section 4).

All weights start uniform in +-gain / sqrt(fan), biases at 0. Convolutions are 3x3 with stride 1 and padding 1, P
is 2x2 max pooling:

    VGG5     conv 128; conv 256 P; conv 512 P; conv 512 P; conv 512 P; dense VGG10    conv 64 P; conv 128 P; conv
    256; conv 256 P; conv 512; conv 512 P; conv 512; conv 512 P; dense 2048; dense

The paper does not state the padding; with 1, 224 rows come down to 7, and 25088 units enter the dense layer.
VGG10Skip adds strided 1x1 convolutions from layer 2 to layer 5 and from 5 to 8; where they join is not stated
either: here they are added to the pre-activation, after the pooling of the layer that they enter.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from ..errors import argument_error, is_real, require_seed, unknown_name
from ..keywords import answering
from ..maps import ConvLink, DenseLink, Shape
from ..placement import require_dense
from ..pooling import POOLINGS
from .layers import PredictiveLayer
from .network import PredictiveCodingNetwork

VGG5 = ((128, False), (256, True), (512, True), (512, True), (512, True))
VGG10 = ((64, True), (128, True), (256, False), (256, True), (512, False), (512, True), (512, False), (512, True))
"""Channels of each convolution, and whether pooling follows."""

VGG10_SKIPS = {4: 1, 7: 4}
"""Layer, from 0, that a skip enters, to the layer that it comes from."""


@answering
def mlp(
    sizes: Sequence[int],
    activation: str = "relu",
    *,
    energy: str = "squared",
    gates: str = "held",
    gain: float = 1.0,
    bias: bool = True,
    seed: int = 0,
) -> PredictiveCodingNetwork:
    """Make a predictive coding network of dense layers.

    Parameters
    ----------
    sizes : sequence of int
        [inputs, hidden ..., outputs].
    activation : str
        Activation of the hidden layers: relu, tanh, logistic, softplus, gelu, hard_sigmoid, hard_tanh, diode or
        linear (`ACTIVATIONS`). The outputs are linear.
    energy : {'squared', 'paired'}
        The squared energy sum |e_k|^2 / 2 of the errors, or that of pairs of units.
    gates : {'held', 'live'}
        Whether nudged phases keep the on and off of ReLUs and the routes of max poolings from the free phase.
    gain : float
        Weights start uniform in +-gain / sqrt(n_in). sqrt(3) keeps the variance through linear layers.
    bias : bool
        Whether units have biases.
    seed : int
        Seed of the initial weights.

    Returns
    -------
    PredictiveCodingNetwork

    Raises
    ------
    InputError
        If an argument is not as above.

    Examples
    --------
    >>> import torch
    >>> net = mlp([4, 8, 3], activation="tanh")
    >>> net(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """
    if not isinstance(sizes, Sequence) or len(sizes) < 2 or not all(_count(n) for n in sizes):
        raise argument_error("sizes", "be at least two positive integers [inputs, ..., outputs]", sizes)
    require_dense(sizes)
    generator = _generator(gain, seed)
    names = [activation] * (len(sizes) - 2) + ["linear"]
    layers = []
    for (n_in, n_out), name in zip(itertools.pairwise(sizes), names, strict=True):
        link = DenseLink((n_in,), n_out)
        layers.append(PredictiveLayer(link, name, gain / math.sqrt(n_in), generator, bias=bias))
    return PredictiveCodingNetwork(layers, energy, gates)


@answering
def vgg5(
    num_classes: int = 10,
    input_shape: Sequence[int] = (3, 32, 32),
    *,
    activation: str = "relu",
    pooling: str = "max",
    energy: str = "squared",
    gates: str = "held",
    gain: float = 1.0,
    output_gain: float | None = None,
    width: float = 1.0,
    bias: bool = True,
    seed: int = 0,
) -> PredictiveCodingNetwork:
    """VGG5 of the paper: five convolutions and a dense layer; all weights scale with the fan-in.

    Parameters
    ----------
    num_classes : int
        Number of outputs.
    input_shape : (channels, rows, columns)
        Shape of an image.
    activation : str
        Activation of the hidden layers, a name in `ACTIVATIONS`. The outputs are linear.
    pooling : {'max', 'average'}
        Kind of the 2x2 poolings between convolutions.
    energy : {'squared', 'paired'}
        The squared energy sum |e_k|^2 / 2 of the errors, or that of pairs of units.
    gates : {'held', 'live'}
        Whether nudged phases keep the on and off of ReLUs and the routes of max poolings from the free phase.
    gain : float
        Weights start uniform in +-gain / sqrt(fan).
    output_gain : float, optional
        The same of the last layer (the paper takes 0.2 for the squared error on ImageNet32); default `gain`.
    width : float
        Factor on all channels, for small trials.
    bias : bool
        Whether units have biases.
    seed : int
        Seed of the initial weights.

    Returns
    -------
    PredictiveCodingNetwork
    """
    return _vgg(
        VGG5,
        (),
        num_classes,
        input_shape,
        activation,
        pooling,
        energy,
        gates,
        gain,
        output_gain,
        width,
        bias,
        seed,
        {},
        False,
    )


@answering
def vgg10(
    num_classes: int = 1000,
    input_shape: Sequence[int] = (3, 224, 224),
    *,
    activation: str = "relu",
    pooling: str = "max",
    energy: str = "squared",
    gates: str = "held",
    gain: float = 1.0,
    output_gain: float | None = None,
    width: float = 1.0,
    bias: bool = True,
    seed: int = 0,
) -> PredictiveCodingNetwork:
    """VGG10 of the paper: eight convolutions, scaled with the fan-out, and two dense layers, with the fan-in.

    62,645,952 weights at 224x224 with 1000 classes.

    Parameters
    ----------
    num_classes : int
        Number of outputs.
    input_shape : (channels, rows, columns)
        Shape of an image.
    activation : str
        Activation of the hidden layers, a name in `ACTIVATIONS`. The outputs are linear.
    pooling : {'max', 'average'}
        Kind of the 2x2 poolings between convolutions.
    energy : {'squared', 'paired'}
        The squared energy sum |e_k|^2 / 2 of the errors, or that of pairs of units.
    gates : {'held', 'live'}
        Whether nudged phases keep the on and off of ReLUs and the routes of max poolings from the free phase.
    gain : float
        Weights start uniform in +-gain / sqrt(fan).
    output_gain : float, optional
        The same of the last layer (the paper takes 0.2 for the squared error on ImageNet32); default `gain`.
    width : float
        Factor on all channels, for small trials.
    bias : bool
        Whether units have biases.
    seed : int
        Seed of the initial weights.

    Returns
    -------
    PredictiveCodingNetwork
    """
    return _vgg(
        VGG10,
        (2048,),
        num_classes,
        input_shape,
        activation,
        pooling,
        energy,
        gates,
        gain,
        output_gain,
        width,
        bias,
        seed,
        {},
        True,
    )


@answering
def vgg10_skip(
    num_classes: int = 1000,
    input_shape: Sequence[int] = (3, 224, 224),
    *,
    activation: str = "relu",
    pooling: str = "max",
    energy: str = "squared",
    gates: str = "held",
    gain: float = 1.0,
    output_gain: float | None = None,
    width: float = 1.0,
    bias: bool = True,
    seed: int = 0,
) -> PredictiveCodingNetwork:
    """VGG10 with strided 1x1 skips from layer 2 to 5 and from 5 to 8.

    Parameters
    ----------
    num_classes : int
        Number of outputs.
    input_shape : (channels, rows, columns)
        Shape of an image.
    activation : str
        Activation of the hidden layers, a name in `ACTIVATIONS`. The outputs are linear.
    pooling : {'max', 'average'}
        Kind of the 2x2 poolings between convolutions.
    energy : {'squared', 'paired'}
        The squared energy sum |e_k|^2 / 2 of the errors, or that of pairs of units.
    gates : {'held', 'live'}
        Whether nudged phases keep the on and off of ReLUs and the routes of max poolings from the free phase.
    gain : float
        Weights start uniform in +-gain / sqrt(fan).
    output_gain : float, optional
        The same of the last layer (the paper takes 0.2 for the squared error on ImageNet32); default `gain`.
    width : float
        Factor on all channels, for small trials.
    bias : bool
        Whether units have biases.
    seed : int
        Seed of the initial weights.

    Returns
    -------
    PredictiveCodingNetwork
    """
    skips = VGG10_SKIPS
    return _vgg(
        VGG10,
        (2048,),
        num_classes,
        input_shape,
        activation,
        pooling,
        energy,
        gates,
        gain,
        output_gain,
        width,
        bias,
        seed,
        skips,
        True,
    )


def _vgg(
    convolutions: Sequence[tuple[int, bool]],
    hidden: Sequence[int],
    num_classes: int,
    input_shape: Sequence[int],
    activation: str,
    pooling: str,
    energy: str,
    gates: str,
    gain: float,
    output_gain: float | None,
    width: float,
    bias: bool,
    seed: int,
    skips: dict[int, int],
    fan_out: bool,
) -> PredictiveCodingNetwork:
    if not _count(num_classes):
        raise argument_error("num_classes", "be a positive integer", num_classes)
    if not isinstance(input_shape, Sequence) or len(input_shape) != 3 or not all(_count(n) for n in input_shape):
        raise argument_error("input_shape", "be three positive integers [channels, rows, columns]", input_shape)
    if pooling not in POOLINGS:
        raise unknown_name("pooling", pooling, POOLINGS)
    if not (isinstance(width, int | float) and 0 < width <= 64):
        raise argument_error("width", "be a positive factor", width)
    generator = _generator(gain, seed)
    shape: Shape = tuple(input_shape)
    layers: list[PredictiveLayer] = []
    for k, (channels, pooled) in enumerate(convolutions):
        link = ConvLink(shape, max(1, round(width * channels)), pooling=pooling if pooled else None)
        skip = None
        if k in skips:
            start = layers[skips[k]].post
            side = start[1] // link.post[1]
            over = ConvLink(start, link.post[0], kernel_size=1, stride=side, padding=0)
            skip = (skips[k], over, gain / math.sqrt(over.fan_out if fan_out else over.fan_in))
        fan = link.fan_out if fan_out else link.fan_in
        layers.append(PredictiveLayer(link, activation, gain / math.sqrt(fan), generator, skip=skip, bias=bias))
        shape = link.post
    for n in [*(max(1, round(width * h)) for h in hidden), num_classes]:
        dense = DenseLink(shape, n)
        last = len(layers) == len(convolutions) + len(hidden)
        scale = output_gain if last and output_gain is not None else gain
        name = "linear" if last else activation
        layers.append(PredictiveLayer(dense, name, scale / math.sqrt(dense.fan_in), generator, bias=bias))
        shape = dense.post
    return PredictiveCodingNetwork(layers, energy, gates)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _generator(gain: float, seed: int) -> torch.Generator:
    if not (is_real(gain) and gain > 0):
        raise argument_error("gain", "be a positive number", gain)
    require_seed(seed)
    return torch.Generator().manual_seed(seed)
