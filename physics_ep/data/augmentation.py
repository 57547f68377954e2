"""Random changes of training images that keep their class; a config names one as [data] augmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from ..errors import unknown_name


def shift(images: torch.Tensor, generator: torch.Generator, reach: int = 1) -> torch.Tensor:
    """Move each image by -reach ... reach pixels in both directions; zeros come in at the edges.

    Parameters
    ----------
    images : Tensor (B, channels, rows, columns)
    generator : torch.Generator
        Random generator on the CPU, so that a seed means the same on every device.
    reach : int
        Pixels.

    Returns
    -------
    Tensor (B, channels, rows, columns)
    """
    batch, channels, rows, columns = images.shape
    moves = torch.randint(0, 2 * reach + 1, (2, batch, 1, 1, 1), generator=generator).to(images.device)
    down = torch.arange(rows, device=images.device).view(1, 1, rows, 1) + moves[0]
    right = torch.arange(columns, device=images.device).view(1, 1, 1, columns) + moves[1]
    which = torch.arange(batch, device=images.device).view(batch, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, channels, 1, 1)
    return pad(images, (reach,) * 4)[which, channel, down, right]


def flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image, left to right, with probability one half.

    Parameters
    ----------
    images : Tensor (B, channels, rows, columns)
    generator : torch.Generator
        Random generator on the CPU.

    Returns
    -------
    Tensor (B, channels, rows, columns)
    """
    turned = torch.randint(0, 2, (len(images), 1, 1, 1), generator=generator).to(images.device)
    return torch.where(turned == 1, images.flip(3), images)


def crop(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Cut each image at random from itself with four zeros around (He 2016, section 4.2): `shift` by up to four."""
    return shift(images, generator, reach=4)


def flip_crop(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip, then crop: the usual augmentation of CIFAR."""
    return crop(flip(images, generator), generator)


AUGMENTATIONS: dict[str, Callable[[torch.Tensor, torch.Generator], torch.Tensor]] = {
    "shift": shift,
    "flip": flip,
    "crop": crop,
    "flip-crop": flip_crop,
}


@dataclass(frozen=True)
class Augmentation:
    """An augmentation for examples of known image shape, in either layout.

    Attributes
    ----------
    name : str
        A name in `AUGMENTATIONS`.
    image_shape : tuple of int
        (channels, rows, columns).

    Raises
    ------
    InputError
        If there is no such augmentation.
    """

    name: str
    image_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.name not in AUGMENTATIONS:
            raise unknown_name("data.augmentation", self.name, AUGMENTATIONS)

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Changed copies of examples (B, n) or (B, channels, rows, columns), in the same layout."""
        return AUGMENTATIONS[self.name](x.view(-1, *self.image_shape), generator).view_as(x)
