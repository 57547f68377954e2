"""Predictive coding networks: layers, energies, solvers, and the networks of the ImageNet paper (Kerjan 2026)."""

from __future__ import annotations

from .architectures import mlp, vgg5, vgg10, vgg10_skip
from .conversion import from_sequential, load_sequential, to_sequential
from .network import PredictiveCodingNetwork

__all__ = [
    "PredictiveCodingNetwork",
    "from_sequential",
    "load_sequential",
    "mlp",
    "to_sequential",
    "vgg5",
    "vgg10",
    "vgg10_skip",
]
