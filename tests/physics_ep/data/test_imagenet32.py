"""ImageNet32: if these fail, its images come under wrong classes or colours, or a pickle is let in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from physics_ep.config import DataSection
from physics_ep.data.datasets import Dataset, load_dataset, locate
from physics_ep.data.held_out import parted
from physics_ep.data.imagenet32 import TEST, TRAIN, colour_statistics
from physics_ep.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten files of three images to train on, four images to test."""
    for seed, name in enumerate((*TRAIN, TEST)):
        n = 4 if name == TEST else 3
        generator = np.random.default_rng(seed)
        np.savez(
            tmp_path / name,
            data=generator.integers(0, 256, (n, 3072), dtype=np.uint8),
            labels=np.append(generator.integers(1, 1001, n - 1), 1000),
        )
    return tmp_path


def load(folder: Path, **options) -> Dataset:
    return load_dataset(DataSection(name="imagenet32", folder=str(folder), layout="image", **options))


def test_pixels_labels_and_normalisation(folder: Path) -> None:
    """If this fails, labels are off by one, colours are exchanged, or files come in the order 1, 10, 2."""
    data = load(folder)
    held = [np.load(folder / name) for name in TRAIN]
    pixels = np.concatenate([h["data"] for h in held]).reshape(-1, 3, 32, 32) / 255
    np.testing.assert_array_equal(data.train_y.numpy(), np.concatenate([h["labels"] for h in held]) - 1)
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    expected = (pixels - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(data.train_x.numpy(), expected, atol=1e-5)
    test = (np.load(folder / TEST)["data"].reshape(-1, 3, 32, 32) / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(data.test_x.numpy(), test, atol=1e-5)
    assert data.n_classes == 1000
    assert locate("imagenet32", folder) == str(folder)
    chosen = parted(data.train_y.numpy(), DataSection(validation=10))[0]
    learnt = load(folder, validation=10).train_x[chosen].double()
    np.testing.assert_allclose(learnt.mean((0, 2, 3)), np.zeros(3), atol=1e-6)  # those held out are left aside


def test_given_statistics_limits_and_augmentation(folder: Path) -> None:
    """If this fails, a run on a part normalises otherwise than it says, or reads 4 GB for ten images."""
    (folder / TRAIN[5]).write_bytes(b"not read for five images")
    few = load(folder, train_examples=5, test_examples=2, means=[0.5] * 3, deviations=[0.25] * 3)
    first = np.load(folder / TRAIN[0])["data"].reshape(-1, 3, 32, 32)
    np.testing.assert_allclose(few.train_x[:3].numpy(), (first / 255 - 0.5) / 0.25, atol=1e-6)
    assert (len(few.train_y), len(few.test_y)) == (5, 2)
    augmented = load(folder, train_examples=5, augmentation="flip-crop")
    assert augmented.augment is not None
    moved = augmented.augment(augmented.train_x, torch.Generator().manual_seed(0))
    assert moved.shape == (5, 3, 32, 32)
    assert not torch.equal(moved, augmented.train_x)


def test_statistics_of_many_images_are_exact() -> None:
    """If this fails, counts overflow or chunks are lost; a colour that never changes must not divide by zero."""
    images = np.zeros((25_001, 3, 1, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(25_001) % 256
    images[-1, 1] = 255
    means, deviations = colour_statistics(images)
    assert means == pytest.approx([(images[:, 0] / 255).mean(), 1 / 25_001, 0], abs=1e-12)
    assert deviations == pytest.approx([(images[:, 0] / 255).std(), (25_000 / 25_001**2) ** 0.5, 1], abs=1e-12)


DAMAGED = [
    ({"data": np.zeros((3, 3071), np.uint8), "labels": np.ones(3, int)}, "'data' must be bytes (N, 3072), but is"),
    ({"data": np.zeros((3, 3072)), "labels": np.ones(3, int)}, "but is float64 of shape (3, 3072)"),
    ({"data": np.zeros((3, 3072), np.uint8), "labels": np.ones(2, int)}, "'labels' must be 3 integers"),
    ({"data": np.zeros((3, 3072), np.uint8), "labels": np.zeros(3, int)}, "labels are from 0 to 0, not from 1 to"),
    ({"data": np.zeros((3, 3072), np.uint8)}, "it holds no arrays 'data' and 'labels'"),
    ({"data": np.zeros((3, 3072), np.uint8), "labels": np.array([1, None, 2])}, "it holds no arrays"),
]


@pytest.mark.parametrize(("arrays", "words"), DAMAGED)
def test_damaged_files_are_named(folder: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    """If this fails, rubbish is trained on, or an array of Python objects, which is code, is loaded."""
    np.savez(folder / TRAIN[2], **arrays)
    with pytest.raises(InputError) as told:
        load(folder)
    assert words in str(told.value)
    assert TRAIN[2] in str(told.value)
    assert "\n" not in str(told.value)


def test_absent_and_cut_files_are_named(folder: Path) -> None:
    """If this fails, nine tenths of the set pass for all of it, or a cut download ends in a traceback."""
    path = folder / TRAIN[9]
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\x80\x04N."):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"train_data_batch_10.npz' is unusable: it holds no arrays"):
            load(folder)
    path.unlink()
    assert locate("imagenet32", folder) is None
    with pytest.raises(InputError, match=r"'imagenet32' was not found: .* lacks train_data_batch_10.npz\. Give"):
        load(folder)
    with pytest.raises(InputError, match=r"data.download must be false for imagenet32"):
        load(folder, download=True)
