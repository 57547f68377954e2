"""Predictive coding networks that figures look at: dense ones and narrow VGGs, trained on the 8x8 digits."""

from __future__ import annotations

from typing import Any

import torch

from physics_ep.cost import SquaredError
from physics_ep.data.datasets import digits
from physics_ep.errors import InputError
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp, vgg10
from physics_ep.storage.outputs import as_asked

from ..requests import Request
from ..subjects import Subject, given

BATCH = 32
"""Examples a step of training."""


def predictive_network(subject: Subject) -> PredictiveCodingNetwork:
    """A subject's system, which must be a predictive coding network.

    Raises
    ------
    InputError
        If it is another.
    """
    if not isinstance(subject.system, PredictiveCodingNetwork):
        asked = as_asked("--from", "run")
        raise InputError(
            f"Argument {asked} must be a run of a predictive coding network for this figure, but was one of a "
            f"{type(subject.system).__name__}."
        )
    return subject.system


def given_network(request: Request, **place: Any) -> Subject:
    """Predictive coding network that --from names, with a batch; keywords as of `subjects.trained`."""
    subject = given(request, **place)
    predictive_network(subject)
    return subject


def dense_network(
    label: str,
    activation: str,
    gain: float,
    *,
    examples: int,
    depth: int = 10,
    steps: int = 200,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Subject:
    """Network of layers of 32 units, after some steps of training on the 8x8 digits.

    Parameters
    ----------
    label, activation, gain
        See `mlp`.
    examples : int
        Size of the batch, of the first digits of the test set.
    depth : int
        Layers, the output layer included.
    steps : int
        Steps of training by backprop, 32 digits each.
    seed : int
        Seed of the initial weights and the batches.
    dtype, device
        Dtype and device of parameters and inputs.

    Returns
    -------
    Subject
        With the squared error as its cost.
    """
    data = digits()
    sizes = [data.train_x[0].numel(), *[32] * (depth - 1), data.n_outputs]
    net = mlp(sizes, activation, gain=gain, seed=seed)
    return _fitted(label, net, 1, examples, steps, 1e-3, seed, dtype, device)


def vgg_network(
    label: str,
    *,
    examples: int,
    steps: int,
    width: float = 0.05,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Subject:
    """VGG10 with few channels, trained as `dense_network` is, on the digits enlarged to 32x32."""
    net = vgg10(10, (1, 32, 32), width=width, gain=1.4, seed=seed)
    return _fitted(label, net, 4, examples, steps, 2e-3, seed, dtype, device)


def _fitted(
    label: str,
    net: PredictiveCodingNetwork,
    enlarged: int,
    examples: int,
    steps: int,
    rate: float,
    seed: int,
    dtype: torch.dtype,
    device: torch.device | None,
) -> Subject:
    """Train by backprop with Adam, in float32 on the CPU; take the first digits of the test set for a batch."""
    data, cost = digits(), SquaredError()

    def image(x: torch.Tensor) -> torch.Tensor:
        if len(net.shapes[0]) == 1:
            return x.flatten(1)
        return x.repeat_interleave(enlarged, 2).repeat_interleave(enlarged, 3)

    generator = torch.Generator().manual_seed(seed)
    adam = torch.optim.Adam(net.parameters(), rate)
    for _ in range(steps):
        batch = torch.randint(0, len(data.train_x), (BATCH,), generator=generator)
        y = cost.encode(data.train_y[batch], data.n_outputs, torch.float32)
        loss = cost(net(image(data.train_x[batch])), y).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    for p in net.parameters():
        p.grad = None
    place = torch.device("cpu") if device is None else device
    y = cost.encode(data.test_y[:examples], data.n_outputs, dtype).to(place)
    return Subject(label, net.to(place, dtype), image(data.test_x[:examples]).to(place, dtype), y, cost)


def tight(dtype: torch.dtype) -> float:
    """The residual, near rounding, to which figures of predictive coding networks relax."""
    return 1e-12 if dtype == torch.float64 else 1e-6


def six_tanh_layers(request: Request) -> Subject:
    """Predictive coding network of six tanh layers; or the one of the run file."""
    few: dict[str, Any] = {"examples": 16, **request.place()}
    if request.run is not None:
        return given_network(request, **few)
    return dense_network("six tanh layers, trained", "tanh", 1.0, depth=6, seed=request.seed, **few)


def ten_layers(request: Request) -> list[Subject]:
    """Predictive coding networks of ten layers, ReLU and tanh; or the one of the run file."""
    few: dict[str, Any] = {"examples": 16, **request.place()}
    if request.run is not None:
        return [given_network(request, **few)]
    return [
        dense_network("ten ReLU layers, trained", "relu", 3**0.5, seed=request.seed, **few),
        dense_network("ten tanh layers, trained", "tanh", 1.0, seed=request.seed, **few),
    ]
