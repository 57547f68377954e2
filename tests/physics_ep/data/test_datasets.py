"""Data sets: what ships, what is read from folders, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import struct
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from physics_ep.config import DataSection
from physics_ep.data import datasets
from physics_ep.data.datasets import MNIST, PARTS, Dataset, data_folder, digits, load_dataset, locate
from physics_ep.data.idx import read_idx
from physics_ep.errors import InputError


def idx_bytes(values: np.ndarray) -> bytes:
    """An array of unsigned bytes as an IDX file."""
    head = struct.pack(">BBBB", 0, 0, 8, values.ndim)
    return head + struct.pack(f">{values.ndim}I", *values.shape) + values.astype(np.uint8).tobytes()


def write_set(folder: Path, compress: bool = True, n: int = 12, size: int = 28) -> dict[str, Path]:
    """Four files of a tiny set with MNIST's names; returns them by stem."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for images, labels in PARTS.values():
        arrays = {
            images: generator.integers(0, 256, (n, size, size)),
            labels: np.arange(n) % 10,
        }
        for stem, values in arrays.items():
            data = idx_bytes(values)
            paths[stem] = folder / (f"{stem}.gz" if compress else stem)
            paths[stem].write_bytes(gzip.compress(data, mtime=0) if compress else data)
    return paths


@given(
    values=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)),
    compress=st.booleans(),
)
def test_reader_gives_back_what_was_written(values: np.ndarray, compress: bool) -> None:
    """If this fails, images are transposed, shifted or cut."""
    data = idx_bytes(values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any-name"
        path.write_bytes(gzip.compress(data, mtime=0) if compress else data)
        read, digest = read_idx(path, values.ndim)
    np.testing.assert_array_equal(read, values)
    assert digest == hashlib.sha256(data).hexdigest()


WHOLE = idx_bytes(np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "magic number"),
        (b"\x89PNG....", "magic number"),
        (b"\0\0\x0d\x03" + WHOLE[4:], "type 0x0d"),
        (b"\0\0\x08\x01" + WHOLE[4:], "array of 1 axes, not 3"),
        (WHOLE[:9], "within its header"),
        (WHOLE[:-1], "truncated: 24 values"),
        (WHOLE + b"x", "bytes follow the 24 values"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "truncated"),
        (gzip.compress(WHOLE, mtime=0)[:-12], "gzip data are damaged"),
        (gzip.compress(WHOLE, mtime=0)[:10] + b"\x00" * 30, "gzip data are damaged"),
        (gzip.compress(WHOLE, mtime=0)[:-8] + b"\x00" * 8, "gzip data are damaged"),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    """If this fails, a broken download trains on noise or ends in a traceback."""
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_idx(path, axes=3)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_digits_are_the_known_split() -> None:
    """If this fails, figures published on the digits no longer compare."""
    data = digits()
    assert data.train_x.shape == (1437, 1, 8, 8)
    assert data.test_x.shape == (360, 1, 8, 8)
    assert float(data.train_x.max()) == 1.0
    # Stratified: every class has its 20 % in the test set.
    share = data.test_y.bincount() / (data.test_y.bincount() + data.train_y.bincount())
    assert torch.allclose(share, torch.full((10,), 0.2), atol=0.01)
    # No image is in both parts under the same index; the sums fix content and order.
    assert int((16 * data.train_x).sum()) + int((16 * data.test_x).sum()) == 561718


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("parent", [True, False])
def test_folder_or_its_parent_plain_or_gzip(tmp_path: Path, compress: bool, parent: bool) -> None:
    """If this fails, PHYSICS_EP_DATA works only for one lay-out of folders."""
    write_set(tmp_path / "mnist", compress)
    folder = tmp_path if parent else tmp_path / "mnist"
    data = load_dataset(DataSection(name="mnist", folder=str(folder)))
    assert data.train_x.shape == (12, 784)
    assert locate("mnist", folder) == str(tmp_path / "mnist")


def test_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the variable is ignored, or outranks the argument."""
    monkeypatch.setenv("PHYSICS_EP_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path
    assert data_folder("/elsewhere") == Path("/elsewhere")


def test_layouts_limits_and_padding(tmp_path: Path) -> None:
    """If this fails, images reach a system turned, cropped or unscaled."""
    write_set(tmp_path)
    flat = load_dataset(DataSection(name="mnist", folder=str(tmp_path)))
    image = load_dataset(DataSection(name="mnist", folder=str(tmp_path), layout="image", pad_to=32))
    few = load_dataset(DataSection(name="mnist", folder=str(tmp_path), train_examples=5, test_examples=3))
    assert image.train_x.shape == (12, 1, 32, 32)
    assert torch.equal(image.train_x[:, 0, 2:30, 2:30].flatten(1), flat.train_x)
    assert float(image.train_x.sum()) == pytest.approx(float(flat.train_x.sum()))
    assert 0 <= float(flat.train_x.min()) <= float(flat.train_x.max()) <= 1
    assert torch.equal(few.train_x, flat.train_x[:5])
    assert len(few.test_y) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "mnits"}, "Did you mean 'mnist'?"),
        ({"name": "mnist", "folder": "/nonexistent"}, "'/nonexistent' is no folder"),
        ({"name": "digits", "augmentation": "shfit"}, "Did you mean 'shift'?"),
        ({"name": "digits", "train_examples": 10**6}, "data.train_examples must be at most the 1437"),
        ({"name": "digits", "pad_to": 4}, "data.pad_to must be at least the images' size, 8"),
    ],
)
def test_what_is_not_there_is_named(options: dict[str, object], words: str) -> None:
    """If this fails, the user does not learn which entry to mend."""
    with pytest.raises(InputError) as caught:
        load_dataset(DataSection(**options))
    assert words in str(caught.value)


def test_missing_and_mismatched_files_are_named(tmp_path: Path) -> None:
    """If this fails, labels are paired with the wrong images, or half a set is taken for the whole."""
    paths = write_set(tmp_path)
    section = DataSection(name="mnist", folder=str(tmp_path))
    labels = paths["train-labels-idx1-ubyte"]
    kept = labels.read_bytes()

    labels.unlink()
    with pytest.raises(InputError, match="lacks train-labels-idx1-ubyte"):
        load_dataset(section)
    labels.write_bytes(idx_bytes(np.zeros(11)))
    with pytest.raises(InputError, match=r"12 images, but .* 11 labels"):
        load_dataset(section)
    labels.write_bytes(idx_bytes(np.full(12, 10)))
    with pytest.raises(InputError, match="a label is 10"):
        load_dataset(section)
    labels.write_bytes(kept)
    paths["t10k-images-idx3-ubyte"].write_bytes(idx_bytes(np.zeros((0, 28, 28))))
    with pytest.raises(InputError, match="0 images"):
        load_dataset(section)


def test_digits_of_mnist_do_not_pass_for_clothes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, PHYSICS_EP_DATA=.../mnist makes Fashion-MNIST silently MNIST: the files' names are the
    same."""
    paths = write_set(tmp_path)
    for stem, path in paths.items():
        monkeypatch.setitem(MNIST.sha256, stem, hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest())
    with pytest.raises(InputError, match="belongs to MNIST"):
        load_dataset(DataSection(name="fashion-mnist", folder=str(tmp_path)))


def test_download_only_when_asked_and_checked_by_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, data are fetched behind the user's back, or a tampered file is taken."""
    import pooch

    paths = write_set(tmp_path / "mirror")
    asked: list[str] = []

    def transport(url: str, output_file: str, pooch: object) -> None:
        asked.append(url)
        Path(output_file).write_bytes(paths[url.rpartition("/")[2].removesuffix(".gz")].read_bytes())

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar=False: transport)
    for stem, path in paths.items():
        monkeypatch.setitem(MNIST.md5, stem, hashlib.md5(path.read_bytes()).hexdigest())
    section = DataSection(name="mnist", folder=str(tmp_path / "data"))
    with pytest.raises(InputError, match="ask for a download"):
        load_dataset(section)
    assert not asked
    wanted = DataSection(name="mnist", folder=str(tmp_path / "data"), download=True)
    assert len(load_dataset(wanted).train_x) == 12
    assert len(asked) == 4
    assert len(load_dataset(section).train_x) == 12  # found again without asking
    monkeypatch.setitem(MNIST.md5, "train-images-idx3-ubyte", "0" * 32)
    (tmp_path / "data" / "mnist" / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"Download of .* failed: .*hash"):
        load_dataset(wanted)


def test_real_mnist_is_the_published_one(mnist_folder: Path) -> None:
    """If this fails, figures on MNIST are of some other set."""
    for stem, digest in MNIST.sha256.items():
        path = datasets._find(mnist_folder, stem)
        assert path is not None
        assert read_idx(path, 3 if "images" in stem else 1)[1] == digest


@pytest.mark.parametrize("layout", ["flat", "image"])
def test_shift_moves_images_by_up_to_a_pixel(layout: Literal["flat", "image"]) -> None:
    """If this fails, augmented images are wrapped around, scrambled, or all moved alike."""
    data = load_dataset(DataSection(name="digits", augmentation="shift", layout=layout, pad_to=12))
    assert data.augment is not None
    x = data.train_x[:200]
    moved = data.augment(x, torch.Generator().manual_seed(0))
    assert moved.shape == x.shape
    images, changed = x.view(-1, 12, 12), moved.view(-1, 12, 12)
    # The margin of zeros is wider than the reach, so that rolling is shifting.
    found = [
        [k for k in range(9) if torch.equal(image.roll((k // 3 - 1, k % 3 - 1), (0, 1)), other)]
        for image, other in zip(images, changed, strict=True)
    ]
    assert all(found)
    assert len({k for moves in found for k in moves}) == 9
    assert torch.equal(moved, data.augment(x, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_x": torch.full((4, 2), float("nan"))}, "train_x must be finite"),
        ({"train_x": torch.zeros(4, 2, dtype=torch.int64)}, "train_x must be a floating-point tensor"),
        ({"train_x": torch.zeros(0, 2)}, "N > 0"),
        ({"test_x": torch.zeros(4, 3)}, "test_x must have examples of shape (2,)"),
        ({"train_y": torch.tensor([0, 1, 2, 3])}, "train_y must hold class indices in [0, 3)"),
        ({"train_y": torch.tensor([0, 1, -1, 2])}, "train_y must hold class indices in [0, 3)"),
        ({"test_y": torch.zeros(3, dtype=torch.int64)}, "test_y must be int64 class indices of shape (4,)"),
        ({"test_y": torch.zeros(4)}, "test_y must be int64"),
    ],
)
def test_data_of_a_caller_are_checked(change: dict[str, torch.Tensor], words: str) -> None:
    """If this fails, NaN images or labels out of range show, if at all, as a network that does not learn."""
    good = {
        "train_x": torch.zeros(4, 2),
        "train_y": torch.zeros(4, dtype=torch.int64),
        "test_x": torch.zeros(4, 2),
        "test_y": torch.zeros(4, dtype=torch.int64),
    }
    with pytest.raises(InputError) as caught:
        Dataset("mine", **{**good, **change}, n_classes=3)
    assert words in str(caught.value)
