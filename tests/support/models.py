"""Models as researchers write them, at small widths, for what becomes of any torch model: one a family."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    """ResNet's basic block (He et al. 2016)."""

    def __init__(self, below: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(below, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or below != width:
            self.downsample = nn.Sequential(nn.Conv2d(below, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    """ResNet-18 with torchvision's names; its width at the stem is 64."""

    def __init__(self, width: int = 64, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        for k in range(1, 5):
            first = Residual(sizes[k - 1], sizes[k], 1 if k == 1 else 2)
            setattr(self, f"layer{k}", nn.Sequential(first, Residual(sizes[k], sizes[k])))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(sizes[4], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for k in range(1, 5):
            x = getattr(self, f"layer{k}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Inverted(nn.Module):
    """MobileNetV2's block: expand, depthwise, project, add (Sandler et al. 2018)."""

    def __init__(self, below: int, width: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = below * expand
        self.use_res = stride == 1 and below == width
        self.conv = nn.Sequential(
            *(nn.Conv2d(below, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()),
            *(nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()),
            *(nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.use_res else self.conv(x)


class ConvNeXtBlock(nn.Module):
    """ConvNeXt's block with its layer scale (Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(0.5 * torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(functional.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class ViTBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int = 8, heads: int = 2, depth: int = 2, classes: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.cls = nn.Parameter(0.1 * torch.randn(1, 1, width))
        self.pos = nn.Parameter(0.1 * torch.randn(1, 5, width))
        self.blocks = nn.ModuleList([ViTBlock(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class MixerBlock(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """An MLP-Mixer (Tolstikhin et al. 2021)."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(MixerBlock(4, width), MixerBlock(4, width))
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.patch(x).flatten(2).transpose(1, 2))
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    """A recurrent layer of torch over a sequence, and a readout of its last step."""

    def __init__(self, kind: str = "GRU", width: int = 6, **options: object) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(4, width, batch_first=True, **options)
        self.head = nn.Linear(width * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class StepByStep(nn.Module):
    """A recurrent cell of torch, its loop written out by the user."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros(x.size(0), self.cell.hidden_size, dtype=x.dtype, device=x.device)
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
        return self.head(h)


class UNet(nn.Module):
    """A U-Net of two levels with skips by concatenation (Ronneberger et al. 2015); a map of outputs."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.down1, self.down2 = self.twice(3, width), self.twice(width, 2 * width)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.last = self.twice(2 * width, width)
        self.out = nn.Conv2d(width, 2, 1)

    @staticmethod
    def twice(below: int, width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(below, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.down1(x)
        x = self.up(self.down2(self.pool(first)))
        return self.out(self.last(torch.cat([first, x], 1)))


class DenseNet(nn.Module):
    """DenseNet's block: each layer sees all before it (Huang et al. 2017)."""

    def __init__(self, width: int = 4, layers: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        sizes = [width * (k + 1) for k in range(layers)]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, width, 3, padding=1)) for n in sizes
        )
        self.head = nn.Linear(width * (layers + 1), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return self.head(functional.adaptive_avg_pool2d(functional.relu(torch.cat(features, 1)), 1).flatten(1))


class Classifier(nn.Module):
    """Token ids to classes: an embedding, a transformer layer of torch, a mean."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.layer = nn.TransformerEncoderLayer(width, 2, 12, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embed(x)).mean(1))


class Siamese(nn.Module):
    """One branch with tied weights looks at both halves of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 5))
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, other = self.branch(x[:, 0]), self.branch(x[:, 1])
        return self.head((one - other).abs())


def images(rows: int, side: int) -> torch.Tensor:
    return torch.randn(rows, 3, side, side, dtype=torch.float64)


class Case(NamedTuple):
    """A model, how to draw inputs for it, whether its energy is smooth with gates held, its least number of
    units."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int], torch.Tensor]
    units: int


def conv(below: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(below, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]


CASES: dict[str, Case] = {
    "mlp": Case(
        lambda: nn.Sequential(
            *(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 7), nn.Tanh(), nn.Dropout(0.2)),
            nn.Linear(7, 3),
        ),
        lambda rows: torch.randn(rows, 5, dtype=torch.float64),
        3,
    ),
    "lenet": Case(
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 4, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3), nn.Tanh()),
            *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)),
        ),
        lambda rows: images(rows, 8),
        4,
    ),
    "alexnet": Case(
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 4, 5, 2, 2), nn.ReLU(), nn.LocalResponseNorm(3), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
            *(nn.Dropout(0.5), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3)),
        ),
        lambda rows: images(rows, 13),
        4,
    ),
    "vgg": Case(
        lambda: nn.Sequential(
            *(*conv(3, 4), *conv(4, 4), nn.MaxPool2d(2), *conv(4, 6), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3)),
        ),
        lambda rows: images(rows, 8),
        5,
    ),
    "resnet18": Case(lambda: ResNet18(4, 3), lambda rows: images(rows, 32), 18),
    "mobilenet": Case(
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6()),
            *(Inverted(4, 4, 1, 2), Inverted(4, 6, 2, 2), Inverted(6, 6, 1, 2)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(6, 3)),
        ),
        lambda rows: images(rows, 12),
        10,
    ),
    "convnext": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 5, 4, 4), ConvNeXtBlock(5), ConvNeXtBlock(5), nn.Flatten(), nn.Linear(20, 3)
        ),
        lambda rows: images(rows, 8),
        5,
    ),
    "vit": Case(ViT, lambda rows: images(rows, 8), 9),
    "mixer": Case(Mixer, lambda rows: images(rows, 8), 9),
    "gru": Case(Recurrent, lambda rows: torch.randn(rows, 5, 4, dtype=torch.float64), 16),
    "lstm": Case(
        lambda: Recurrent("LSTM", num_layers=2, bidirectional=True),
        lambda rows: torch.randn(rows, 3, 4, dtype=torch.float64),
        37,
    ),
    "cells": Case(StepByStep, lambda rows: torch.randn(rows, 4, 4, dtype=torch.float64), 13),
    "unet": Case(UNet, lambda rows: images(rows, 4), 7),
    "densenet": Case(DenseNet, lambda rows: images(rows, 4), 5),
    "classifier": Case(Classifier, lambda rows: torch.randint(0, 11, (rows, 5)), 5),
    "siamese": Case(Siamese, lambda rows: torch.randn(rows, 2, 4, dtype=torch.float64), 3),
}
"""Families by name."""


def built(name: str, seed: int = 0) -> nn.Module:
    """A model of a family in float64 and evaluation mode, its statistics not those of a new one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CASES[name].build().double()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def drawn(name: str, rows: int, seed: int = 1) -> torch.Tensor:
    """Inputs for a family."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CASES[name].inputs(rows)
