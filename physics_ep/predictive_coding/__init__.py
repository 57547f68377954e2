"""Predictive coding networks: layers, energies, solvers, and the networks of the ImageNet paper (Kerjan 2026)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..faces import lazy

if TYPE_CHECKING:
    from .architectures import mlp as mlp, vgg5 as vgg5, vgg10 as vgg10, vgg10_skip as vgg10_skip
    from .conversion import (
        from_sequential as from_sequential,
        load_sequential as load_sequential,
        to_sequential as to_sequential,
    )
    from .any_model import from_module as from_module
    from .image_models import efficientnet_lite0 as efficientnet_lite0, resnet18 as resnet18
    from .network import PredictiveCodingNetwork as PredictiveCodingNetwork
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "PredictiveCodingNetwork": "network",
            "efficientnet_lite0": "image_models",
            "from_module": "any_model",
            "from_sequential": "conversion",
            "load_sequential": "conversion",
            "mlp": "architectures",
            "resnet18": "image_models",
            "to_sequential": "conversion",
            "vgg10": "architectures",
            "vgg10_skip": "architectures",
            "vgg5": "architectures",
        },
    )
