"""Photographs as networks are trained on them: decoded, cut to a square, flipped, and normalised.

Every random choice about an image comes from a generator seeded by (seed, epoch, index of the image). So it is the
same to the bit in a resumed run, and whatever number of processes decode.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, exp, log, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from ..storage.texts import require_regular
from .image_folders import Listing

if TYPE_CHECKING:
    from PIL.Image import Image

MEANS = (0.485, 0.456, 0.406)
DEVIATIONS = (0.229, 0.224, 0.225)
"""Standard deviations of ImageNet's red, green and blue, in [0, 1]: those that published networks use."""

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIALS = 10
MARGIN = 256 / 224
"""The shorter side of a test image over that of the square cut from it."""

TRAINING_VIEWS = ("resized-crop", "centre")
"""What [data] augmentation may be for photographs; the first is the default."""


def random_box(width: int, height: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """Part of an image to train on (Szegedy 2015): 8 to 100 % of its area, 3/4 to 4/3 as wide as high.

    Parameters
    ----------
    width, height : int
        Width and height of the image, in pixels.
    generator : numpy.random.Generator

    Returns
    -------
    left, top, right, bottom : int
        Edges of the box, in pixels. The area is uniform and the ratio log-uniform, of those boxes that fit. Where
        ten do not, the largest central box of an allowed ratio.
    """
    for _ in range(TRIALS):
        area = generator.uniform(*SCALE) * width * height
        ratio = exp(generator.uniform(log(RATIO[0]), log(RATIO[1])))
        wide, high = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left = int(generator.integers(width - wide + 1))
            top = int(generator.integers(height - high + 1))
            return left, top, left + wide, top + high
    wide, high = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def random_view(image: Image, size: int, generator: np.random.Generator) -> np.ndarray:
    """A view to train on: a random part of an image, resized to a square, flipped in half of the cases.

    Parameters
    ----------
    image : PIL.Image.Image
        Opened, not yet decoded: a large JPEG is decoded at a half, a quarter or an eighth of its resolution, as
        long as the part keeps twice the pixels wanted, so that resizing still says how sharp the view is.
    size : int
        Rows and columns of the view.
    generator : numpy.random.Generator

    Returns
    -------
    ndarray (3, size, size) of uint8
    """
    from PIL.Image import Resampling, Transpose

    width, height = image.size
    left, top, right, bottom = random_box(width, height, generator)
    flipped = generator.random() < 0.5
    spare = min(right - left, bottom - top) // (2 * size)
    factor = next((f for f in (8, 4, 2) if f <= spare), 1)
    if factor == 1 or image.draft("RGB", (width // factor, height // factor)) is None:
        factor = 1
    # In a smaller image the box falls between pixels: cut around it, and let resizing cut the fractions.
    first, above = left // factor, top // factor
    part = _coloured(image).crop((first, above, ceil(right / factor), ceil(bottom / factor)))
    rest = (left / factor - first, top / factor - above, right / factor - first, bottom / factor - above)
    view = part.resize((size, size), Resampling.BILINEAR, rest)
    return _pixels(view.transpose(Transpose.FLIP_LEFT_RIGHT) if flipped else view)


def central_view(image: Image, size: int) -> np.ndarray:
    """A view to test on: the central square of an image whose shorter side was resized to 256/224 of it.

    Parameters
    ----------
    image : PIL.Image.Image
    size : int
        Rows and columns of the view.

    Returns
    -------
    ndarray (3, size, size) of uint8
    """
    from PIL.Image import Resampling

    width, height = image.size
    short = round(size * MARGIN)
    wide, high = (short, short * height // width) if width <= height else (short * width // height, short)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    resized = _coloured(image).resize((wide, high), Resampling.BILINEAR)
    return _pixels(resized.crop((left, top, left + size, top + size)))


def read_view(path: Path, view: Callable[[Image], np.ndarray]) -> np.ndarray | str:
    """Read one view of an image file, or tell in what way the file is broken.

    Parameters
    ----------
    path : Path
        A JPEG or PNG by its content, whatever its name says. The orientation that a camera notes is ignored, as is
        usual for ImageNet.
    view : callable
        `random_view` or `central_view` with all but the image given.

    Returns
    -------
    ndarray (3, rows, columns) of uint8, or str
        The error is returned, not raised: raised in another process, it would come back as a page of text.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        require_regular(path)
        with warnings.catch_warnings():
            # Some files of ImageNet have damaged notes of their camera, which nobody reads.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=["JPEG", "PNG"]) as image:
                return view(image)
    except UnidentifiedImageError:
        return f"Image {str(path)!r} cannot be decoded: it is no JPEG or PNG."
    # Pillow's decoders raise any of these on damaged bytes.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        return f"Image {str(path)!r} cannot be decoded: {reason}."


@dataclass(frozen=True)
class View:
    """One image of a batch.

    Attributes
    ----------
    pixels : ndarray (3, size, size) of uint8, or str
        The image's levels; or the reason why there are none.
    label : int
        Class index.
    """

    pixels: np.ndarray | str
    label: int


@dataclass(frozen=True)
class Views(Dataset):
    """Views of listed images, for torch's DataLoader.

    Attributes
    ----------
    listing : Listing
    size : int
        Rows and columns.
    draw : tuple of int or None
        Seed and epoch of random views; None for central ones.
    """

    listing: Listing
    size: int
    draw: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, k: int) -> View:
        return View(
            read_view(self.listing.path(k), lambda image: self._view(image, k)), int(self.listing.labels[k])
        )

    def _view(self, image: Image, k: int) -> np.ndarray:
        if self.draw is None:
            return central_view(image, self.size)
        seed, epoch = self.draw
        # The third number keeps these apart from the streams that a whole epoch draws from.
        return random_view(image, self.size, np.random.default_rng([seed, epoch, 2, k]))


def collated(views: Sequence[View]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """A batch of what could be decoded: images (B, 3, size, size) of uint8, labels (B,), and words on the rest.

    Bytes are a quarter of what is otherwise sent between processes and to the device.
    """
    whole = [v for v in views if not isinstance(v.pixels, str)]
    images = torch.from_numpy(np.stack([v.pixels for v in whole])) if whole else torch.empty(0, 3, 1, 1)
    labels = torch.tensor([v.label for v in whole], dtype=torch.int64)
    return images, labels, [v.pixels for v in views if isinstance(v.pixels, str)]


def _coloured(image: Image) -> Image:
    """The image in red, green and blue."""
    if image.mode.startswith("I"):  # 16 bits of grey, which `convert` would cut at 255
        from PIL.Image import fromarray

        image = fromarray((np.asarray(image) // 256).astype(np.uint8))
    return image.convert("RGB")


def _pixels(image: Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)
