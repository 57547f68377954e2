"""Photographs: if these fail, networks see other pixels, colours or crops than published ones do."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import kstest

from physics_ep.data.photographs import View, central_view, collated, random_box, random_view, read_view


def ramp(width: int, height: int) -> Image.Image:
    """Red grows to the right by one level a column, green downwards by one a row; blue is 50."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([columns, rows, np.full_like(rows, 50)], 2).astype(np.uint8))


def test_boxes_have_the_published_distribution() -> None:
    """If this fails, training sees other crops: area uniform in [0.08, 1], ratio log-uniform in [3/4, 4/3], if they
    fit.

    In a square, an area fraction a and a ratio r fit where a <= min(r, 1/r): always for a <= 3/4.
    """
    side, limit = 2000, math.log(4 / 3)
    generator = np.random.default_rng(0)
    left, top, right, bottom = np.array([random_box(side, side, generator) for _ in range(4000)]).T
    wide, high = right - left, bottom - top
    assert min(left.min(), top.min()) >= 0
    assert max(right.max(), bottom.max()) <= side
    area, ratio = wide * high / side**2, np.log(wide / high)
    small = area <= 0.75  # no side is whole then
    fits = ((1 - math.exp(-limit)) / limit - 0.08) / 0.92
    assert small.mean() == pytest.approx(0.67 / 0.92 / fits, abs=4 * math.sqrt(0.85 * 0.15 / 4000))
    assert kstest((area[small] - 0.08) / 0.67, "uniform").pvalue > 1e-3
    assert kstest((ratio[small] + limit) / (2 * limit), "uniform").pvalue > 1e-3
    assert kstest(left[small] / (side - wide[small]), "uniform").pvalue > 1e-3
    assert kstest(top[small] / (side - high[small]), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("size", "box"), [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506)), ((1, 1), (0, 0, 1, 1))]
)
def test_where_no_box_fits_it_is_the_centre(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    """If this fails, panoramas are distorted, or a pixel of an image ends training. 10 pixels high: 40/3 wide at
    most."""
    assert random_box(*size, np.random.default_rng(0)) == box


def test_random_views_are_the_box_resized_and_half_of_them_flipped() -> None:
    """If this fails, a crop shows another part of the image than was drawn, or none is ever flipped.

    A ramp resized is a ramp: the pixel in column i of n lies at left + (i + 1/2) * width / n - 1/2.
    """
    image, size, flips = ramp(200, 160), 8, 0
    for seed in range(100):
        left, top, right, bottom = random_box(200, 160, np.random.default_rng(seed))
        view = random_view(image, size, np.random.default_rng(seed)).astype(float)
        flipped = bool(view[0, 0, 0] > view[0, 0, -1])
        flips += flipped
        red = left + (np.arange(size) + 0.5) * (right - left) / size - 0.5
        green = top + (np.arange(size) + 0.5) * (bottom - top) / size - 0.5
        # The filter is cut off at the edges, where it weighs the inside more.
        inner = slice(1, -1)
        np.testing.assert_allclose(view[0, 3, inner], red[::-1][inner] if flipped else red[inner], atol=1.01)
        np.testing.assert_allclose(view[1, inner, 3], green[inner], atol=1.01)
        assert (view[2] == 50).all()
    assert 30 < flips < 70


def test_large_jpegs_are_decoded_small_and_show_the_same(tmp_path: Path) -> None:
    """If this fails, the fast way of decoding shifts or blurs what is learnt from."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 25, 3), dtype=np.uint8)
    path = tmp_path / "large.jpg"
    Image.fromarray(noise).resize((1001, 803), Image.Resampling.BICUBIC).save(path, quality=95)
    drafted = 0
    for seed in range(12):
        with Image.open(path) as image:
            view = random_view(image, 32, np.random.default_rng(seed)).astype(float)
            drafted += image.size != (1001, 803)
        generator = np.random.default_rng(seed)
        with Image.open(path) as image:
            box = random_box(1001, 803, generator)
            whole = image.convert("RGB").crop(box).resize((32, 32), Image.Resampling.BILINEAR)
        reference = np.asarray(whole).transpose(2, 0, 1).astype(float)
        reference = reference[:, :, ::-1] if generator.random() < 0.5 else reference
        assert np.abs(view - reference).mean() < 1
        assert np.corrcoef(view.ravel(), reference.ravel())[0, 1] > 0.999
    assert drafted > 6


def test_central_view_by_hand() -> None:
    """If this fails, test errors do not compare with published ones.

    At size 7 the shorter side becomes 8. An image 16 x 8 keeps its pixels, of which columns 4 to 10 and rows 0 to 6
    remain; one twice as large becomes the means of ramps, 2 i + 1/2.
    """
    view = central_view(ramp(16, 8), 7)
    np.testing.assert_array_equal(view[0], np.tile(np.arange(4, 11), (7, 1)))
    np.testing.assert_array_equal(view[1], np.tile(np.arange(7)[:, None], (1, 7)))
    halved = central_view(ramp(32, 16), 7).astype(float)
    np.testing.assert_allclose(halved[0], np.tile(2 * np.arange(4, 11) + 0.5, (7, 1)), atol=0.51)
    high = central_view(ramp(8, 16), 7)
    np.testing.assert_array_equal(high[1, :, 0], np.arange(4, 11))


def test_colours_of_all_kinds_of_files(tmp_path: Path) -> None:
    """If this fails, grey, printed and palette images (ImageNet has some of each) fail or come in false colours; a
    PNG that is named .JPEG is read by its content, and the orientation that a camera notes is ignored."""
    red = Image.new("RGB", (32, 32), (255, 0, 0))
    turned = ramp(32, 32)
    exif = turned.getexif()
    exif[274] = 6
    grey16 = Image.fromarray(np.full((32, 32), 0x8000, np.uint16))
    files = [
        (Image.new("L", (32, 32), 77), "grey.jpg", {}, (77, 77, 77)),
        (Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "printed.jpg", {}, (255, 0, 0)),
        (red.quantize(4), "palette.png", {}, (255, 0, 0)),
        (red.convert("RGBA"), "alpha.png", {}, (255, 0, 0)),
        (grey16, "deep.png", {}, (128, 128, 128)),
        (red, "odd.JPEG", {"format": "PNG"}, (255, 0, 0)),
    ]
    for image, name, options, colour in files:
        image.save(tmp_path / name, **options)
        view = read_view(tmp_path / name, lambda opened: central_view(opened, 28))
        assert not isinstance(view, str), view
        np.testing.assert_allclose(view.mean((1, 2)), colour, atol=2, err_msg=name)
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    view = read_view(tmp_path / "turned.jpg", lambda opened: central_view(opened, 28))
    assert not isinstance(view, str)
    assert view[0, 14, -1] > view[0, 14, 0] + 15


def test_broken_files_are_named_not_raised(tmp_path: Path) -> None:
    """If this fails, one bad file of a million ends in a page of traceback from another process."""
    whole = tmp_path / "whole.jpg"
    ramp(64, 64).save(whole)
    cases = {
        "cut.jpg": (whole.read_bytes()[:-300], "runcated"),
        "words.jpg": (b"no image", "it is no JPEG or PNG"),
        "empty.png": (b"", "it is no JPEG or PNG"),
        "picture.gif.jpg": (b"GIF89a" + bytes(40), "it is no JPEG or PNG"),
    }
    views = []
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        told = read_view(tmp_path / name, lambda opened: central_view(opened, 8))
        assert isinstance(told, str)
        assert name in told
        assert words in told
        views.append(View(told, 1))
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    assert "no regular file" in str(read_view(tmp_path / "pipe.jpg", lambda opened: central_view(opened, 8)))
    assert "No such file" in str(read_view(tmp_path / "gone.jpg", lambda opened: central_view(opened, 8)))
    good = read_view(whole, lambda opened: central_view(opened, 8))
    images, labels, broken = collated([*views, View(good, 7)])
    assert labels.tolist() == [7]
    np.testing.assert_array_equal(images[0].numpy(), good)
    assert len(broken) == 4
    assert len(collated(views)[1]) == 0
    assert images.dtype == torch.uint8
