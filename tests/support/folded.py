"""Convolutional models of several kinds, with norms that have seen data, which become layers."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import hardtanh, leaky_relu, max_pool2d, pad, relu, relu6, silu


def settled_norms(model: nn.Module) -> nn.Module:
    """The model in evaluation mode, with statistics and factors of norms away from those at the start."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.4, 1.6)
            nn.init.normal_(norm.bias, 0, 0.3)
    return model.eval()


def conv(below: int, above: int, size: int = 3, **options: object) -> nn.Conv2d:
    """A convolution without biases."""
    return nn.Conv2d(below, above, size, bias=False, **options)  # type: ignore[arg-type]


class Residual(nn.Module):
    """A ResNet of two blocks behind a max pooling of overlapping windows (He et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn1 = conv(3, 6, 5, stride=2, padding=2), nn.BatchNorm2d(6)
        self.one, self.bn2 = conv(6, 6, padding=1), nn.BatchNorm2d(6)
        self.two, self.bn3 = conv(6, 6, padding=1), nn.BatchNorm2d(6)
        self.three, self.bn4 = conv(6, 8, padding=1, stride=2), nn.BatchNorm2d(8)
        self.four, self.bn5 = conv(8, 8, padding=1), nn.BatchNorm2d(8)
        self.down, self.bn6 = conv(6, 8, 1, stride=2), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = max_pool2d(relu(self.bn1(self.stem(x))), 3, 2, 1)
        x = relu(self.bn3(self.two(relu(self.bn2(self.one(x))))) + x)
        x = relu(self.bn5(self.four(relu(self.bn4(self.three(x))))) + self.bn6(self.down(x)))
        return self.head(x.mean((2, 3)))


class Inverted(nn.Module):
    """Inverted residuals with depthwise convolutions, ReLU6 and padding at one side (Sandler et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn1 = conv(3, 6, stride=2), nn.BatchNorm2d(6)
        self.wide, self.bn2 = conv(6, 12, 1), nn.BatchNorm2d(12)
        self.deep, self.bn3 = conv(12, 12, 5, padding=2, groups=12), nn.BatchNorm2d(12)
        self.thin, self.bn4 = conv(12, 6, 1), nn.BatchNorm2d(6)
        self.last, self.bn5 = conv(6, 8, 1), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = relu6(self.bn1(self.stem(pad(x, (0, 1, 0, 1)))))
        x = x + self.bn4(self.thin(relu6(self.bn3(self.deep(relu6(self.bn2(3 * self.wide(x))))))))
        x = nn.functional.adaptive_avg_pool2d(hardtanh(self.bn5(self.last(x)), -0.5, 1.5), 1)
        return self.head(self.drop(x.flatten(1)))


class Dense(nn.Module):
    """Concatenations, norms before activations, average poolings (Huang et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 4, padding=1, dilation=1)
        self.bn1, self.one = nn.BatchNorm2d(4), conv(4, 3, padding=1)
        self.bn2, self.two = nn.BatchNorm2d(7), conv(7, 3, padding=1)
        self.bn3, self.three = nn.BatchNorm2d(10), conv(10, 4, 1)
        self.bn4, self.four = nn.BatchNorm2d(4), conv(4, 4, padding=2, dilation=2, groups=2)
        self.bn5, self.bn6 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.one(relu(self.bn1(x)))], 1)
        x = torch.cat([x, self.two(relu(self.bn2(x)))], 1)
        x = nn.functional.avg_pool2d(self.three(relu(self.bn3(x))), 2)
        x = silu(self.bn6(nn.functional.avg_pool2d(self.four(silu(self.bn4(x))), 3, 1, 1)))
        return self.head(silu(self.bn5(x)).mean((2, 3)))


class Inception(nn.Module):
    """Branches, two of them max poolings, whose sum and concatenation go on; the input enters twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn1 = conv(3, 5, padding=1), nn.BatchNorm2d(5)
        self.one, self.bn2 = conv(5, 5, 1), nn.BatchNorm2d(5)
        self.two, self.bn3 = conv(10, 6, (3, 1), stride=2, padding=(1, 0)), nn.BatchNorm2d(6)  # type: ignore[arg-type]
        self.image, self.bn4 = conv(3, 6, 1, stride=2), nn.BatchNorm2d(6)
        self.bn5 = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = leaky_relu(self.bn1(self.stem(x)), 0.1)
        one = max_pool2d(h, 3, 1, 1) + max_pool2d(h, (1, 3), 1, (0, 1)) - 0.5
        h = torch.clamp(torch.cat([one, self.bn2(self.one(h))], 1), -1.0, 2.0)
        h = torch.relu(self.bn3(self.two(h)) + self.bn4(self.image(x)))
        return self.head(torch.tanh(self.bn5(h)).mean((2, 3)))


MODELS: dict[str, type[nn.Module]] = {
    "residual": Residual,
    "inverted": Inverted,
    "dense": Dense,
    "inception": Inception,
}
