"""Fifteen torch models as papers have them, by name: published depth, at least half the width.

They are written as researchers write them, with library modules, functional calls and views; nothing here knows of
predictive coding. Images may be smaller than published, which changes neither depth nor widths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

Tensor = torch.Tensor


def convolved(below: int, width: int, size: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias and its batch norm."""
    conv = nn.Conv2d(below, width, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(width)]


class BasicBlock(nn.Module):
    """ResNet's basic block (He et al. 2016)."""

    def __init__(self, below: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*convolved(below, width, 3, stride), nn.ReLU(), *convolved(width, width))
        self.down = nn.Sequential(*convolved(below, width, 1, stride)) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        out += x if self.down is None else self.down(x)
        return functional.relu(out)


def resnet18(width: int = 64) -> nn.Module:
    """ResNet-18 (He et al. 2016)."""
    blocks = [
        BasicBlock(width << max(k - (j == 0), 0), width << k, 2 if j == 0 < k else 1)
        for k in range(4)
        for j in (0, 1)
    ]
    stem = [*convolved(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width << 3, 100))


class Inverted(nn.Module):
    """MobileNetV2's block: expand, depthwise, project, add (Sandler et al. 2018)."""

    def __init__(self, below: int, width: int, stride: int, expand: int, size: int) -> None:
        super().__init__()
        inner = below * expand
        wide = [*convolved(below, inner, 1), nn.ReLU6()] if expand > 1 else []
        deep = [*convolved(inner, inner, size, stride, inner), nn.ReLU6()]
        self.body = nn.Sequential(*wide, *deep, *convolved(inner, width, 1))
        self.adds = stride == 1 and below == width

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


MOBILENET_V2 = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)
LITE0 = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
"""Stages: expansion, width, repeats, stride, size of the depthwise filter."""


def mobile(stages: tuple[tuple[int, int, int, int, int], ...]) -> nn.Module:
    """MobileNetV2 (Sandler et al. 2018), or EfficientNet-Lite0 (Tan, Le 2019, without squeeze and excitation)."""
    blocks, below = [], 32
    for expand, width, repeats, stride, size in stages:
        for j in range(repeats):
            blocks.append(Inverted(below, width, stride if j == 0 else 1, expand, size))
            below = width
    head = [*convolved(below, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2)]
    return nn.Sequential(*convolved(3, 32, 3, 2), nn.ReLU6(), *blocks, *head, nn.Linear(1280, 100))


class ConvNeXtBlock(nn.Module):
    """ConvNeXt's block with its layer scale (Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(0.1 * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.down(functional.gelu(self.up(y)))).permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convnext(width: int = 48) -> nn.Module:
    """ConvNeXt-T (Liu et al. 2022): 3, 3, 9 and 3 blocks; published width 96."""
    parts: list[nn.Module] = [nn.Conv2d(3, width, 4, 4), ChannelNorm(width, eps=1e-6)]
    for k, count in enumerate((3, 3, 9, 3)):
        if k:
            parts += [ChannelNorm(width << (k - 1), eps=1e-6), nn.Conv2d(width << (k - 1), width << k, 2, 2)]
        parts += [ConvNeXtBlock(width << k) for _ in range(count)]
    return nn.Sequential(
        *parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(width << 3), nn.Linear(width << 3, 100)
    )


class Attended(nn.Module):
    """A block of a vision transformer (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """ViT-tiny (Touvron et al. 2021): 12 blocks of width 192."""

    def __init__(self, width: int = 192, heads: int = 3, depth: int = 12, tokens: int = 16) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.pos = nn.Parameter(0.02 * torch.randn(1, tokens + 1, width))
        self.blocks = nn.ModuleList([Attended(width, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 100)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class Mixed(nn.Module):
    """A block of an MLP-Mixer (Tolstikhin et al. 2021)."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, width // 2), nn.GELU(), nn.Linear(width // 2, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """MLP-Mixer S (Tolstikhin et al. 2021): 8 blocks; published width 512."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.blocks = nn.Sequential(*(Mixed(16, width) for _ in range(8)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 100)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.patch(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(1))


class Recurrent(nn.Module):
    """A GRU over the rows of an image (Cho et al. 2014), and a readout of its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(28, 128, batch_first=True), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class UNet(nn.Module):
    """A U-Net of five levels (Ronneberger et al. 2015); published width 64; a map of outputs."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = [width << k for k in range(5)]
        self.down = nn.ModuleList(self.twice(a, b) for a, b in zip([3, *sizes], sizes, strict=False))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in sizes[3::-1])
        self.joined = nn.ModuleList(self.twice(2 * w, w) for w in sizes[3::-1])
        self.out = nn.Conv2d(width, 2, 1)

    @staticmethod
    def twice(below: int, width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(below, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for k, level in enumerate(self.down):
            x = level(functional.max_pool2d(x, 2) if k else x)
            kept.append(x)
        for up, joined, skip in zip(self.ups, self.joined, kept[3::-1], strict=True):
            x = joined(torch.cat([skip, up(x)], 1))
        return self.out(x)


class DenseLayer(nn.Module):
    def __init__(self, below: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(below), nn.Conv2d(below, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(functional.relu(self.norm2(self.conv1(functional.relu(self.norm1(x))))))
        return torch.cat([x, y], 1)


def densenet(growth: int = 16) -> nn.Module:
    """DenseNet-121 (Huang et al. 2017); published growth 32."""
    width = 2 * growth
    parts: list[nn.Module] = [*convolved(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for k, count in enumerate((6, 12, 24, 16)):
        if k:
            parts += [
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width // 2, 1, bias=False),
                nn.AvgPool2d(2),
            ]
            width //= 2
        parts += [DenseLayer(width + j * growth, growth) for j in range(count)]
        width += count * growth
    return nn.Sequential(
        *parts, nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 100)
    )


class TokenClassifier(nn.Module):
    """Token ids to classes by the encoder of Vaswani et al. (2017): 6 layers; published width 512."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, width)
        layer = nn.TransformerEncoderLayer(width, 8, 4 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


class Siamese(nn.Module):
    """A Siamese network with tied weights (Koch et al. 2015), at half its widths."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *(nn.Conv2d(1, 32, 10), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 7), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 64, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 128, 4), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(128 * 36, 2048), nn.Sigmoid()),
        )
        self.head = nn.Linear(2048, 2)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.branch(x[:, :1]), self.branch(x[:, 1:])
        return self.head((one - other).abs())


def lenet() -> nn.Module:
    """Build LeNet-5 (LeCun et al. 1998), with tanh units, for grey images (B, 1, 28, 28) and 10 classes."""
    return nn.Sequential(
        *(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
        ),
        *(nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)),
    )


def alexnet() -> nn.Module:
    """AlexNet (Krizhevsky et al. 2012) at half its widths, for images (B, 3, rows, columns) and 100 classes."""
    return nn.Sequential(
        *(nn.Conv2d(3, 48, 11, 4, 2), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(48, 128, 5, padding=2, groups=2), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(128, 192, 3, padding=1), nn.ReLU(), nn.Conv2d(192, 192, 3, padding=1, groups=2), nn.ReLU()),
        *(nn.Conv2d(192, 128, 3, padding=1, groups=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        *(nn.Dropout(0.5), nn.Linear(512, 2048), nn.ReLU(), nn.Dropout(0.5), nn.Linear(2048, 2048), nn.ReLU()),
        nn.Linear(2048, 100),
    )


def vgg16() -> nn.Module:
    """VGG16 with batch norm (Simonyan, Zisserman 2015) at half its widths."""
    parts: list[nn.Module] = []
    below = 3
    for width, count in ((32, 2), (64, 2), (128, 3), (256, 3), (256, 3)):
        for _ in range(count):
            parts += [*convolved(below, width), nn.ReLU()]
            below = width
        parts.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(256, 2048), nn.ReLU(), nn.Dropout(0.5), nn.Linear(2048, 2048), nn.ReLU()]
    return nn.Sequential(*parts, *head, nn.Linear(2048, 100))


def dropped() -> nn.Module:
    """A multilayer perceptron with dropout (Srivastava et al. 2014), at half its widths."""
    return nn.Sequential(
        *(nn.Dropout(0.2), nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 512), nn.ReLU()),
        *(nn.Dropout(0.5), nn.Linear(512, 10)),
    )


@dataclass(frozen=True)
class Family:
    """A model, an input for it, and how many units it must have.

    Attributes
    ----------
    name : str
    build : callable () -> nn.Module
    shape : tuple of int
        Shape of an example; where `tokens`, of its token ids.
    units : int
        Least: one an activation, a residual sum that no activation takes at once, a product with a softmax, and the
        output; of a GRU three a step of time.
    training : bool
        Whether it is looked at in training mode, dropout drawing.
    tokens : bool
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    units: int
    training: bool = False
    tokens: bool = False

    def inputs(self, batch: int, generator: torch.Generator) -> Tensor:
        """Random inputs of the model, a batch of the given size."""
        if self.tokens:
            return torch.randint(0, 1000, (batch, *self.shape), generator=generator)
        return torch.randn(batch, *self.shape, generator=generator)


FAMILIES = (
    Family("MLP with dropout", dropped, (784,), 3, training=True),
    Family("LeNet-5", lenet, (1, 28, 28), 5),
    Family("AlexNet, half width", alexnet, (3, 99, 99), 8),
    Family("VGG16-BN, half width", vgg16, (3, 32, 32), 16),
    Family("ResNet-18", resnet18, (3, 64, 64), 18),
    Family("MobileNetV2", lambda: mobile(MOBILENET_V2), (3, 64, 64), 46),
    Family("EfficientNet-Lite0", lambda: mobile(LITE0), (3, 64, 64), 43),
    Family("ConvNeXt-T, half width", convnext, (3, 64, 64), 37),
    Family("ViT-tiny", VisionTransformer, (3, 32, 32), 49),
    Family("MLP-Mixer S, half width", Mixer, (3, 32, 32), 33),
    Family("GRU, 28 steps", Recurrent, (28, 28), 85),
    Family("U-Net, half width", UNet, (3, 32, 32), 19),
    Family("DenseNet-121, half growth", densenet, (3, 64, 64), 122),
    Family("Transformer classifier, half width", TokenClassifier, (32,), 25, tokens=True),
    Family("Siamese, half width", Siamese, (2, 105, 105), 12),
)


def built(family: Family, seed: int = 0) -> nn.Module:
    """A model of a family with random weights, its batch norms not those of a new one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = family.build()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
                assert module.running_mean is not None
                assert module.running_var is not None
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.train(family.training)
