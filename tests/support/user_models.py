"""Models as users and libraries write them, with what a record of calls may miss: buffers filled step by step,
writes into views, statistics of their own, routes, expert layers, splines, Fourier modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

Tensor = torch.Tensor


class StepByStep(nn.Module):
    """A recurrent cell whose outputs fill a tensor that the model has made."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out, h = torch.zeros(len(x), x.shape[1], 4, dtype=x.dtype), torch.zeros(len(x), 8, dtype=x.dtype)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            out[:, t] = self.head(h)
        return out.mean(1)


class Views(nn.Module):
    """Writes into views: of values, of a constant, of a tensor that holds a parameter; views are read after it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.gain = nn.Linear(6, 8), nn.Linear(8, 4), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.one(x)).clone()
        parts, first = h.view(len(x), 2, 4), h[:, :2]
        parts[:, 0] = parts[:, 0].clone() * self.gain
        parts[:, 1].mul_(2.0)
        h[:, 0] += first[:, 1]
        scales, shifts = torch.zeros(8, dtype=x.dtype), torch.ones(len(x), 8, dtype=x.dtype)
        scales[:4].copy_(self.gain)
        scales[4:] += self.gain**2
        shifts[:, 2:4] += h[:, :2]
        shifts.t()[0].sub_(h[:, 3])
        shifts[:, 5].fill_(0)
        return self.two(torch.tanh(h * scales + shifts * first.sum(1, keepdim=True)))


class FourierLayer(nn.Module):
    """Products with complex weights at low frequencies (Li et al. 2021), the others zero."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.past, self.head = nn.Conv1d(2, 6, 1), nn.Conv1d(6, 6, 1), nn.Linear(6, 4)
        self.real, self.imaginary = (nn.Parameter(0.2 * torch.randn(6, 6, 5)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        modes = torch.fft.rfft(x)
        out = torch.zeros(len(x), 6, modes.shape[-1], dtype=modes.dtype)
        weight = torch.complex(self.real, self.imaginary)
        out[:, :, :5] = torch.einsum("bix,iox->box", modes[:, :, :5], weight)
        return self.head(functional.gelu(torch.fft.irfft(out, n=x.shape[-1]) + self.past(x)).mean(-1))


class Normed(nn.Module):
    """Weight norm, and spectral norm, whose power iteration writes into buffers in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = weight_norm(nn.Linear(6, 8)), spectral_norm(nn.Linear(8, 8))
        self.three = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.three(torch.tanh(self.two(torch.tanh(self.one(x)))))


class Replaced(nn.Module):
    """A running mean whose buffer is another tensor after each batch, and a count."""

    mean: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 4)
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.one(x))
        if self.training:
            self.count += 1
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return self.two(h - self.mean)


class SparseGraph(nn.Module):
    """A graph convolution whose adjacency is a sparse buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 8), nn.Linear(8, 4)
        self.register_buffer("graph", (torch.eye(5) + torch.diag(torch.ones(4), 1)).to_sparse())

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.one(x)).permute(1, 0, 2)
        h = torch.sparse.mm(self.graph, h.reshape(5, -1)).view(h.shape).permute(1, 0, 2)
        return self.two(torch.tanh(h).mean(1))


class Routes(nn.Module):
    """Poolings that return their routes, which an unpooling takes; running maxima and remainders."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Linear(4, 4),
        )
        self.pool, self.back = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        picked, routes = self.pool(self.two(4 * torch.tanh(self.one(x))))
        h = self.back(torch.tanh(picked), routes).flatten(2)
        low, high = torch.aminmax(h, dim=-1)
        return self.head(torch.cummax(h, -1)[0].mean(-1) + torch.remainder(low, 0.37) * torch.frac(2 * high))


class Experts(nn.Module):
    """Each example goes to the expert with the largest gate (its rows are picked by a mask)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gate = nn.Linear(6, 6), nn.Linear(6, 2)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.embed(x))
        gates = self.gate(x).softmax(-1)
        best, out = gates.argmax(-1), torch.zeros(len(x), 4, dtype=x.dtype)
        for k, expert in enumerate(self.experts):
            own = best == k
            out[own] = expert(x[own]) * gates[own, k : k + 1]
        return out


class Shifted(nn.Module):
    """Attention in shifted windows with a table of relative places (Liu et al. 2021)."""

    places: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(4, 8, 1), nn.LayerNorm(8)
        self.qkv, self.out, self.head = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 4)
        self.table = nn.Parameter(0.1 * torch.randn(9, 2))
        at = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        apart = at[:, :, None] - at[:, None] + 1
        self.register_buffer("places", 3 * apart[0] + apart[1])

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        rows, high, wide, width = x.shape
        h = torch.roll(self.norm(x), (-1, -1), (1, 2)).view(rows, high // 2, 2, wide // 2, 2, width)
        h = h.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, width)
        q, k, v = self.qkv(h).reshape(-1, 4, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / 2 + self.table[self.places].permute(2, 0, 1)
        h = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, width))
        h = h.view(rows, high // 2, wide // 2, 2, 2, width).permute(0, 1, 3, 2, 4, 5).reshape(x.shape)
        return self.head((x + torch.roll(h, (1, 1), (1, 2))).mean((1, 2)))


class Capsules(nn.Module):
    """Routing by agreement with squashed vectors (Sabour et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.maps = nn.Linear(6, 20), nn.Parameter(0.3 * torch.randn(1, 5, 4, 4, 4))

    @staticmethod
    def squash(v: Tensor) -> Tensor:
        square = (v**2).sum(-1, keepdim=True)
        return square / (1 + square) * v / torch.sqrt(square + 1e-8)

    def forward(self, x: Tensor) -> Tensor:
        below = self.squash(self.first(x).view(-1, 5, 4))
        votes = (self.maps @ below[:, :, None, :, None]).squeeze(-1)
        drive = torch.zeros(len(x), 5, 4, dtype=x.dtype)
        for _ in range(2):
            above = self.squash((drive.softmax(2).unsqueeze(-1) * votes).sum(1))
            drive = drive + (votes * above.unsqueeze(1)).sum(-1)
        return self.squash((drive.softmax(2).unsqueeze(-1) * votes).sum(1)).norm(dim=-1)


class Splines(nn.Module):
    """A layer of learnt cubic splines (Liu et al. 2024)."""

    grid: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.base, self.spline = nn.Parameter(torch.randn(6, 4)), nn.Parameter(0.3 * torch.randn(6, 4, 8))
        self.head = nn.Linear(6, 4)
        self.register_buffer("grid", torch.arange(-3, 9).mul(0.4).sub(1.0).expand(4, -1).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        x, grid = torch.tanh(x), self.grid
        base, x = functional.linear(functional.silu(x), self.base), x.unsqueeze(-1)
        bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
        for k in (1, 2, 3):
            rising = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)])
            falling = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:-k])
            bases = rising * bases[..., :-1] + falling * bases[..., 1:]
        return self.head(torch.tanh(base + functional.linear(bases.flatten(1), self.spline.view(6, -1))))


class Language(nn.Module):
    """A decoder block with rotary places (complex numbers), RMS norms, gated units and tied embeddings."""

    turns: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.one, self.two = nn.Embedding(11, 8), nn.RMSNorm(8), nn.RMSNorm(8)
        self.qkv, self.out, self.up, self.down = (
            nn.Linear(a, b, bias=False) for a, b in ((8, 24), (8, 8), (8, 32), (16, 8))
        )
        turns = torch.outer(torch.arange(6.0), torch.tensor([1.0, 0.01]))
        self.register_buffer("turns", torch.polar(torch.ones(6, 2), turns), persistent=False)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def turned(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * self.turns.to(pairs.dtype)[None, :, None]).flatten(3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        rows, steps, width = x.shape
        q, k, v = self.qkv(self.one(x)).view(rows, steps, 3, 2, 4).unbind(2)
        scores = torch.einsum("bqhd,bkhd->bhqk", self.turned(q), self.turned(k)) / 2
        ahead = torch.full((steps, steps), float("-inf"), dtype=x.dtype).triu(1)
        seen = torch.einsum("bhqk,bkhd->bqhd", functional.softmax(scores + ahead, -1), v)
        x = x + self.out(seen.reshape(rows, steps, width))
        gate, value = self.up(self.two(x)).chunk(2, -1)
        return self.head(x + self.down(functional.silu(gate) * value))[:, -1]


class Scan(nn.Module):
    """A selective state space model, step by step (Gu and Dao 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.select, self.pace, self.head = (
            nn.Linear(a, b) for a, b in ((4, 16), (8, 7), (1, 8), (8, 4))
        )
        self.short = nn.Conv1d(8, 8, 3, padding=2, groups=8)
        self.decay, self.past = nn.Parameter(torch.zeros(8, 3)), nn.Parameter(torch.ones(8))

    def forward(self, u: Tensor) -> Tensor:
        x, gate = self.enter(u).chunk(2, -1)
        x = functional.silu(self.short(x.transpose(1, 2))[..., : u.shape[1]].transpose(1, 2))
        pace, inward, outward = self.select(x).split([1, 3, 3], -1)
        pace, h, seen = functional.softplus(self.pace(pace)), x.new_zeros(len(u), 8, 3), []
        for t in range(u.shape[1]):
            step = pace[:, t, :, None]
            h = torch.exp(-step * self.decay.exp()) * h + step * inward[:, t, None] * x[:, t, :, None]
            seen.append((h * outward[:, t, None]).sum(-1))
        return self.head(((torch.stack(seen, 1) + x * self.past) * functional.silu(gate)).mean(1))


class Warped(nn.Module):
    """An image that the model turns and shifts before it looks (Jaderberg et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        last = nn.Linear(8, 6)
        nn.init.normal_(last.weight, std=0.05)
        last.bias.data.copy_(torch.tensor([1.0, 0.1, 0.03, -0.1, 1.0, 0.02]))
        self.where = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), last)
        self.look, self.head = nn.Conv2d(1, 4, 3), nn.Linear(144, 4)

    def forward(self, x: Tensor) -> Tensor:
        grid = functional.affine_grid(self.where(x).view(-1, 2, 3), list(x.shape), align_corners=False)
        x = functional.grid_sample(x, grid, align_corners=False)
        return self.head(torch.tanh(self.look(x)).flatten(1))


class Adapted(nn.Module):
    """A frozen transformer layer, and a frozen map with a trained term of low rank, before a trained head."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True).requires_grad_(False)
        self.base = nn.Linear(8, 8).requires_grad_(False)
        self.down, self.up = nn.Parameter(0.3 * torch.randn(2, 8)), nn.Parameter(0.1 * torch.randn(8, 2))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x).mean(1)
        return self.head(functional.gelu(self.base(x) + 2 * (x @ self.down.T) @ self.up.T))


class Model(NamedTuple):
    """A model, the shape of an example (of integers below `words`, where that is not 0), and its least number of
    units."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    units: int
    words: int = 0


QUICK: dict[str, Model] = {
    "filled step by step": Model(StepByStep, (3, 6), 10),
    "writes into views": Model(Views, (6,), 3),
    "Fourier layer": Model(FourierLayer, (2, 16), 2),
    "spectral norm": Model(Normed, (6,), 3),
    "replaced buffers": Model(Replaced, (6,), 2),
    "sparse graph": Model(SparseGraph, (5, 3), 3),
    "routes": Model(Routes, (1, 6, 6), 3),
    "experts": Model(Experts, (6,), 2),
}
"""What a record of calls has missed once."""

OTHERS: dict[str, Model] = {
    "shifted windows": Model(Shifted, (4, 4, 4), 3),
    "capsules": Model(Capsules, (6,), 3),
    "splines": Model(Splines, (4,), 3),
    "language": Model(Language, (6,), 5, 11),
    "scan": Model(Scan, (4, 4), 9),
    "warped": Model(Warped, (1, 8, 8), 3),
    "adapted": Model(Adapted, (5, 8), 3),
}
