"""CIFAR: if these fail, images are mixed up, damaged files pass for data, or a resumed run sees other images."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from physics_ep.cli import main
from physics_ep.config import DataSection
from physics_ep.data.augmentation import AUGMENTATIONS, Augmentation, crop, flip
from physics_ep.data.cifar import VARIANTS, find_cifar
from physics_ep.data.datasets import load_dataset, locate
from physics_ep.data.held_out import limited
from physics_ep.data.images import read_images
from physics_ep.errors import InputError

DATA = os.environ.get("PHYSICS_EP_DATA")  # before the fixture below hides it from the other tests
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def cifar10_data() -> str:
    """Folder that holds CIFAR-10; skips the test where PHYSICS_EP_DATA does not lead to one."""
    if DATA is None or locate("cifar10", DATA) is None:
        pytest.skip("needs CIFAR-10: set PHYSICS_EP_DATA to a folder that holds it")
    return DATA


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PHYSICS_EP_DATA", raising=False)
    return tmp_path / "cache" / "physics-ep"


def pixels(n: int, seed: int) -> np.ndarray:
    """Images (n, 3, 32, 32)."""
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)


def write_binary(folder: Path, name: str = "cifar10", n: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """A tiny binary version; returns the training images and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    variant = VARIANTS[name]
    images, labels = [], []
    for seed, file in enumerate((*variant.train, *variant.test)):
        x, y = pixels(n, seed), (np.arange(n, dtype=np.uint8) * 7 + seed) % variant.n_classes
        # CIFAR-100 has a coarse label before the fine one: 255 is no class of either kind.
        head = [np.full(n, 255, np.uint8)] * (variant.label_bytes - 1) + [y.astype(np.uint8)]
        table = np.concatenate([*(h[:, None] for h in head), x.reshape(n, -1)], 1)
        (folder / file).write_bytes(table.tobytes())
        if file in variant.train:
            images.append(x)
            labels.append(y)
    return np.concatenate(images), np.concatenate(labels)


def write_folders(folder: Path, suffix: str = ".png", n: int = 2, names: list[str] | None = None) -> np.ndarray:
    """Tiny image folders, n images of each class; returns the training images in the order of their names."""
    names = NAMES if names is None else names
    kept = []
    for part, seed in (("train", 0), ("test", 1)):
        x = pixels(n * len(names), seed)
        for k, image in enumerate(x):
            path = folder / part / names[k // n] / f"{k % n:04d}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(path)
        kept.append(x)
    return kept[0]


def restored(x: torch.Tensor, name: str = "cifar10") -> np.ndarray:
    """Bytes of normalised images."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (VARIANTS[name].mean, VARIANTS[name].std))
    return ((x * std + mean) * 255).round().to(torch.uint8).numpy()


def load(folder: Path, name: str = "cifar10", **options):
    return load_dataset(DataSection(name=name, folder=str(folder), layout="image", **options))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("packed", [False, True])
def test_binary_version(name: str, packed: bool, tmp_path) -> None:
    """Pixels, colours and labels in their places; of CIFAR-100 the fine labels; the archive as its files."""
    own = tmp_path / "data" / VARIANTS[name].folders[0]
    images, labels = write_binary(own, name)
    if packed:
        archive = tmp_path / "packed" / VARIANTS[name].archive
        archive.parent.mkdir()
        with tarfile.open(archive, "w:gz") as file:
            file.add(own, arcname=own.name)
    data = load(tmp_path / ("packed" if packed else "data"), name)
    np.testing.assert_array_equal(restored(data.train_x, name), images)
    np.testing.assert_array_equal(data.train_y.numpy(), labels)
    assert data.n_classes == VARIANTS[name].n_classes
    assert data.test_x.shape == (10, 3, 32, 32)
    assert data.train_x.dtype == torch.float32


@pytest.mark.parametrize("packed", [False, True])
def test_image_folders(packed: bool, tmp_path, cache) -> None:
    """Classes in the order of their names, as CIFAR-10 numbers them; the second time from the cache, the same."""
    source = tmp_path / "data"
    images = write_folders(source)
    if packed:
        with tarfile.open(tmp_path / "cifar10_png.tar.xz", "w:xz") as file:
            for part in ("test", "train"):
                file.add(source / part, arcname=part)
        source = tmp_path / "cifar10_png.tar.xz"
    for _ in range(2):
        data = load(source)
        np.testing.assert_array_equal(restored(data.train_x), images)
        np.testing.assert_array_equal(data.train_y.numpy(), np.repeat(np.arange(10), 2))
    assert len(list(cache.glob("images-*.npz"))) == 1
    assert not list(cache.glob("*.part"))


def test_some_images_of_folders_are_of_all_classes(tmp_path, cache) -> None:
    """Folders lie class by class: the first images would all be airplanes, which are learnt without an error."""
    write_folders(tmp_path, n=3)
    found = load_dataset(DataSection(name="cifar10", folder=str(tmp_path), train_examples=20, test_examples=10))
    assert torch.bincount(found.train_y).tolist() == [2] * 10
    assert torch.bincount(found.test_y).tolist() == [1] * 10
    whole = load_dataset(DataSection(name="cifar10", folder=str(tmp_path)))
    for image, label in zip(found.train_x, found.train_y, strict=True):
        assert any(torch.equal(image, other) for other in whole.train_x[whole.train_y == label])


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        ([0, 1, 0, 2, 1, 2], [0, 1, 2]),  # as they come
        ([1, 1, 1, 1, 1, 1], [0, 1, 2]),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0, 1, 2]),  # measured
    ],
)
def test_the_first_examples_are_taken_where_order_means_nothing(labels: list[float], rows: list[int]) -> None:
    """Shuffled sets keep their first examples, as they always were; sorted classes give each its share."""
    assert limited(np.array(labels), 3, 0).tolist() == rows
    for blocks in ([0, 0, 1, 1, 2, 2], [2, 2, 0, 0, 1, 1]):
        by_class = limited(np.array(blocks), 3, 0)
        assert np.array(blocks)[by_class].tolist() == blocks[::2]


def test_cache_follows_the_files(tmp_path, cache) -> None:
    """A changed image is read anew; a damaged cache is not believed; an unwritable one is done without."""
    source = tmp_path / "data"
    write_folders(source)
    load(source)
    other = pixels(1, 9)[0]
    path = source / "train" / "airplane" / "0000.png"
    Image.fromarray(other.transpose(1, 2, 0)).save(path)
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(restored(load(source).train_x)[0], other)
    for file in cache.glob("*.npz"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    np.testing.assert_array_equal(restored(load(source).train_x)[0], other)
    for file in cache.glob("*.npz"):
        file.unlink()
    cache.rmdir()
    cache.write_text("a file where the folder would be")
    np.testing.assert_array_equal(restored(load(source).train_x)[0], other)


def test_normalisation_is_the_usual_one(tmp_path) -> None:
    """A white pixel is (1 - mean) / std of its colour."""
    own = tmp_path / "cifar10"
    write_binary(own)
    path = own / "data_batch_1.bin"
    path.write_bytes(b"\x00" + b"\xff" * 3072 + path.read_bytes()[3073:])
    white = load(tmp_path).train_x[0, :, 0, 0]
    np.testing.assert_allclose(
        white, [(1 - 0.4914) / 0.2470, (1 - 0.4822) / 0.2435, (1 - 0.4465) / 0.2616], rtol=1e-5
    )


def test_where_it_is_looked_for(tmp_path) -> None:
    """The canonical pixels come before images; the pickled version is never taken; images are told as lossy."""
    assert find_cifar("cifar10", tmp_path) is None
    assert locate("cifar10", tmp_path) is None
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    (tmp_path / "cifar100_jpeg.tar.xz").write_bytes(b"")
    assert find_cifar("cifar10", tmp_path) is None
    (tmp_path / "cifar10_jpeg.tar.xz").write_bytes(b"")
    found = locate("cifar10", tmp_path)
    assert found is not None
    assert found.endswith("cifar10_jpeg.tar.xz (images: lossy where JPEG)")
    write_binary(tmp_path / "cifar10")
    assert locate("cifar10", tmp_path) == str(tmp_path / "cifar10")


def cut(path: Path, n: int) -> None:
    path.write_bytes(path.read_bytes()[:-n])


DAMAGED = [
    (lambda own: cut(own / "data_batch_2.bin", 100), "data_batch_2.bin' is unusable: its 30630 bytes are no whole"),
    (lambda own: cut(own / "data_batch_3.bin", 3073), "data_batch_3.bin' is unusable: it has 27657 bytes, but"),
    (lambda own: cut(own / "test_batch.bin", 30730), "test_batch.bin' is unusable: its 0 bytes"),
    (
        lambda own: (own / "data_batch_1.bin").write_bytes(b"\x0b" * 30730),
        "data_batch_1.bin' is unusable: a label is 11",
    ),
]


@pytest.mark.parametrize(("harm", "words"), DAMAGED)
def test_damaged_binaries_are_told(harm, words: str, tmp_path) -> None:
    """Cut within a record, cut between records, empty, or no such label: one line that names the file."""
    own = tmp_path / "cifar10"
    write_binary(own)
    harm(own)
    with pytest.raises(InputError) as told:
        load(tmp_path)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_damaged_images_are_told(tmp_path) -> None:
    """Truncated or no image at all, of the wrong size, a class too many or too few: the file is named."""
    source = tmp_path / "data"
    write_folders(source, ".jpg")
    path = source / "train" / "frog" / "0001.jpg"
    whole = path.read_bytes()
    for content, words in (
        (whole[: len(whole) // 2], "frog/0001.jpg' cannot be decoded"),
        (b"GIF89a", "frog/0001.jpg' cannot be decoded: it is no JPEG or PNG"),
        (b"", "frog/0001.jpg' cannot be decoded"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            load(source)
    buffer = io.BytesIO()
    Image.new("RGB", (31, 32)).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=r"frog/0001.jpg' must have 32 rows and 32 columns, but has 32 and 31"):
        load(source)
    path.write_bytes(whole)
    (source / "train" / "zebra").mkdir()
    (source / "train" / "zebra" / "0000.jpg").write_bytes(whole)
    with pytest.raises(InputError, match="same classes to train and test, but 'zebra'"):
        load(source)
    other = tmp_path / "nine"
    write_folders(other, names=NAMES[:9])
    with pytest.raises(InputError, match="must have the 10 classes of cifar10, but have 9"):
        load(other)
    empty = tmp_path / "empty"
    (empty / "train").mkdir(parents=True)
    (empty / "test").mkdir()
    with pytest.raises(InputError, match=r"must hold train/CLASS/NAME.jpg or .png"):
        load(empty)


def test_damaged_archives_are_told(tmp_path) -> None:
    """Truncated, no archive, or without its files."""
    write_binary(tmp_path / "own")
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        file.add(tmp_path / "own", arcname="cifar-10-batches-bin")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[: 9 * len(whole) // 10], b"no archive", b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"binary.tar.gz' is unusable: it is no whole tar archive"):
            load(tmp_path)
    with tarfile.open(path, "w:gz") as file:
        file.add(tmp_path / "own" / "test_batch.bin", arcname="test_batch.bin")
    with pytest.raises(InputError, match=r"it lacks data_batch_1.bin"):
        load(tmp_path)
    with zipfile.ZipFile(tmp_path / "cifar10.tar.zip", "w") as packed:
        packed.writestr("train/cat/0.jpg", b"")
    with pytest.raises(InputError, match="is unusable: it is no whole tar archive"):
        load(tmp_path / "cifar10.tar.zip")


def test_absent_data_are_told(tmp_path, capsys) -> None:
    """One line that says what is looked for; the command ends with status 2."""
    with pytest.raises(InputError, match=r"no folder was named.* cifar-10-binary.tar.gz"):
        load_dataset(DataSection(name="cifar10"))
    with pytest.raises(InputError, match=r"is no folder and no archive"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"data.download must be false for cifar10"):
        load(tmp_path, download=True)
    with pytest.raises(SystemExit) as stop:
        main(["train", "conv-hopfield-cifar10", "--data", str(tmp_path)])
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert "cifar10" in told
    assert "Traceback" not in told


def test_only_named_formats_are_decoded(tmp_path) -> None:
    """Pillow opens dozens of formats by content: a file named .png that is a TIFF is not let in."""
    for part in ("train", "test"):
        path = tmp_path / part / "cat" / "0.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(path, "TIFF")
    with pytest.raises(InputError, match="it is no JPEG or PNG"):
        read_images(tmp_path, (32, 32))


def test_flip_and_crop() -> None:
    """Each image is itself or its mirror image, half of them; cut out of itself with zeros around."""
    x = torch.rand(400, 3, 8, 8) + 1
    turned = flip(x, torch.Generator().manual_seed(0))
    same = (turned == x).flatten(1).all(1)
    mirrored = (turned == x.flip(3)).flatten(1).all(1)
    assert bool((same | mirrored).all())
    assert 150 < int(mirrored.sum()) < 250
    framed = torch.nn.functional.pad(x, (4, 4, 4, 4))
    windows = framed.unfold(2, 8, 1).unfold(3, 8, 1)
    cut_out = crop(x, torch.Generator().manual_seed(0))
    hits = (windows == cut_out[:, :, None, None]).flatten(4).all(4).all(1)
    assert bool(hits.flatten(1).any(1).all())
    assert len(hits.nonzero()[:, 1:].unique(dim=0)) == 81


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_repeats_from_its_seed(name: str) -> None:
    """A resumed epoch sees the very same images; the next epoch others."""
    augment = Augmentation(name, (3, 8, 8))
    x = torch.rand(20, 3, 8, 8)
    one, two, other = (augment(x, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.shape == x.shape


@pytest.mark.full
def test_bundled_config_takes_a_step(tmp_path) -> None:
    """conv-hopfield-cifar10 builds at the literature's sizes and learns from two images."""
    from physics_ep.config import load_config
    from physics_ep.cost import COSTS
    from physics_ep.estimators.propagation import EquilibriumPropagation
    from physics_ep.runs.preparation import new_system

    write_binary(tmp_path / "cifar10", n=2)
    config = load_config("conv-hopfield-cifar10", [f'data.folder="{tmp_path}"'])
    data = load_dataset(config.data)
    system = new_system(config)
    assert system.shapes == ((3, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2), (10,))
    cost = COSTS[config.ep.cost]()
    ep = EquilibriumPropagation(cost, config.ep.scheme, config.ep.beta, tolerance=config.ep.tolerance)
    step = ep.backward(system, data.train_x[:2], cost.encode(data.train_y[:2], 10, torch.float32))
    assert all(bool(e.converged.all()) for e in step.equilibria)
    assert all(bool(p.grad.isfinite().all()) and float(p.grad.norm()) > 0 for p in system.parameters())


@pytest.mark.slow
def test_real_cifar10(cifar10_data: str) -> None:
    """50000 and 10000 images, as many of each class; normalised, their mean is 0 and their deviation 1."""
    data = load_dataset(DataSection(name="cifar10", folder=cifar10_data, layout="image"))
    assert data.train_y.bincount().tolist() == [5000] * 10
    assert data.test_y.bincount().tolist() == [1000] * 10
    assert float(data.train_x.mean((0, 2, 3)).abs().max()) < 0.02
    assert float((data.train_x.std((0, 2, 3)) - 1).abs().max()) < 0.02
