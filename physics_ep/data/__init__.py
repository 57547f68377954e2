"""Data to train on: sets by name, files of images, batches. The 8x8 digits ship with the package (README.md).

Start with `datasets`: `Dataset`, and `digits`. `batches` is what training draws from; `idx`, `cifar`, `imagenet32`
and `image_folders` read the files of others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .datasets import Dataset as Dataset, digits as digits
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "Dataset": "datasets",
            "digits": "datasets",
        },
    )
