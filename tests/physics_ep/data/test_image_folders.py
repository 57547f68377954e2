"""Folders of images: if these fail, images are paired with the wrong classes, or bad folders pass for data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from physics_ep.config import DataSection
from physics_ep.data.datasets import data_folder, load_dataset, locate
from physics_ep.data.image_folders import IMAGENET_FOLDERS, ImageSet, Listing, list_parts
from physics_ep.errors import InputError

WNIDS = ["n01440764", "n02085620", "n04557648"]


def touch(folder: Path, *names: str) -> None:
    """Files that are listed, never opened."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def labels(listing: Listing) -> dict[str, int]:
    """File, within its folder, to class index."""
    return {str(listing.path(k).relative_to(listing.folder)): int(label) for k, label in enumerate(listing.labels)}


def parts(folder: Path, name: str = "imagenet", **options) -> ImageSet:
    return list_parts(DataSection(name=name, folder=str(folder), **options), folder)


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Training part of ILSVRC's layout, with things that are no images."""
    for k, wnid in enumerate(reversed(WNIDS)):
        touch(tmp_path / "train" / wnid, f"{wnid}_{k}.JPEG", f"{wnid}_x.jpg", ".hidden.JPEG", "notes.txt")
    touch(tmp_path, "train/.cache/a.JPEG", "train/readme.md")
    return tmp_path


EXPECTED = {"ILSVRC2012_val_00000001.JPEG": 2, "ILSVRC2012_val_00000002.jpeg": 0, "ILSVRC2012_val_00000003.PNG": 1}


def test_class_folders_in_the_order_of_their_names(imagenet: Path) -> None:
    """If this fails, class 7 of this network is another one's class 9."""
    for name, label in EXPECTED.items():
        touch(imagenet / "val" / WNIDS[label], name)
    found = parts(imagenet)
    assert found.n_classes == 3
    assert set(labels(found.train).values()) == {0, 1, 2}
    assert len(found.train) == 6
    assert all(name.startswith(WNIDS[label]) for name, label in labels(found.train).items())
    assert {Path(name).name: label for name, label in labels(found.test).items()} == EXPECTED
    assert locate("imagenet", imagenet) == str(imagenet)


MAPPINGS = {
    "LOC_val_solution.csv": "ImageId,PredictionString\n"
    + "".join(f"{Path(n).stem},{WNIDS[k]} 85 1 499 272 {WNIDS[k]} 1 2 3 4\n" for n, k in EXPECTED.items()),
    "val.txt": "".join(f"{n} {k}\n" for n, k in EXPECTED.items()),
    "synsets.txt": "".join(f"val/{n}\t{WNIDS[k]}\t0\t0\t9\t9\n" for n, k in EXPECTED.items()),
    "val/labels.csv": "\ufeff" + "".join(f'"{n}", "{WNIDS[k]}"\r\n' for n, k in EXPECTED.items()),
}


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("named", [False, True])
def test_flat_validation_with_a_mapping(imagenet: Path, mapping: str, named: bool) -> None:
    """If this fails, the usual archive of validation images cannot be read, or is read under wrong classes."""
    touch(imagenet / "val", *EXPECTED)
    (imagenet / mapping).write_text(MAPPINGS[mapping], encoding="utf-8")
    (imagenet / "LOC_synset_mapping.txt").write_text(f"{WNIDS[0]} tench, Tinca tinca\n", encoding="utf-8")
    found = parts(imagenet, mapping=mapping if named else None)
    assert labels(found.test) == EXPECTED


def test_kaggles_archive(tmp_path: Path) -> None:
    """If this fails, the most usual copy of ImageNet has to be moved about by hand."""
    own = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    touch(own / "train" / "n01", "a.JPEG")
    touch(own / "train" / "n02", "b.JPEG")
    touch(own / "val", "v.JPEG")
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nv,n02 1 2 3 4\n", encoding="utf-8")
    place = data_folder(tmp_path, IMAGENET_FOLDERS)
    assert place == own
    assert labels(parts(own).test) == {"v.JPEG": 1}


def test_flat_folders_with_numbers_in_their_names(tmp_path: Path) -> None:
    """If this fails, the number of the image, not the class, becomes the label; or the share to test is another
    each time."""
    names = {f"imagenet_{k:02}_{(37 * k) % 100}.jpg": (37 * k) % 100 for k in range(20)}
    touch(tmp_path, *names)
    found = parts(tmp_path, "image-folder", n_classes=1000, test_fraction=0.25)
    assert (len(found.train), len(found.test), found.n_classes) == (15, 5, 1000)
    assert {**labels(found.train), **labels(found.test)} == names
    assert labels(parts(tmp_path, "image-folder", test_fraction=0.25).test) == labels(found.test)
    assert parts(tmp_path, "image-folder").n_classes == 97


def test_flat_folders_with_a_file_of_labels(tmp_path: Path) -> None:
    """If this fails, labels by name are numbered by chance, or the parts number them apart."""
    touch(tmp_path / "train", "a_1.jpg", "b_1.jpg", "c_1.jpg")
    touch(tmp_path / "validation", "d.jpg")
    (tmp_path / "labels.csv").write_text("file,label\na_1.jpg,zebra\nb_1.jpg,cat\nc_1.jpg,cat flap\nd.jpg,zebra\n")
    found = parts(tmp_path, "image-folder")
    assert labels(found.train) == {"a_1.jpg": 2, "b_1.jpg": 0, "c_1.jpg": 1}
    assert labels(found.test) == {"d.jpg": 2}
    assert found.n_classes == 3


def test_a_limit_draws_from_all_classes(tmp_path: Path) -> None:
    """If this fails, the first thousand images of ImageNet are all fish."""
    for k in range(10):
        touch(tmp_path / f"class {k}", *(f"{j}.png" for j in range(40)))
    few = parts(tmp_path, "image-folder", train_examples=50, test_examples=20)
    assert len(few.train) == 50
    assert len(set(few.train.labels.tolist())) > 7
    assert np.array_equal(few.train.labels, np.sort(few.train.labels))
    again = parts(tmp_path, "image-folder", train_examples=50, test_examples=20)
    assert labels(again.train) == labels(few.train)
    with pytest.raises(InputError, match=r"data.train_examples must be at most the 320 examples"):
        parts(tmp_path, "image-folder", train_examples=321)


def _class_of_none(folder: Path) -> None:
    (folder / "train" / "n09").mkdir()
    touch(folder / "val" / WNIDS[0], "a.JPEG")


def _unmapped(folder: Path) -> None:
    touch(folder / "val", *EXPECTED, "extra.JPEG")
    (folder / "val.txt").write_text(MAPPINGS["val.txt"], encoding="utf-8")


def _mapped_beyond(folder: Path) -> None:
    touch(folder / "val", *EXPECTED)
    (folder / "val.txt").write_text(MAPPINGS["val.txt"].replace("JPEG 2", "JPEG 3"), encoding="utf-8")


def _unknown_class(folder: Path) -> None:
    touch(folder / "val" / "n0777", "a.JPEG")


def _no_mapping(folder: Path) -> None:
    touch(folder / "val", "a.JPEG")


def _empty_part(folder: Path) -> None:
    (folder / "val").mkdir()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_class_of_none, "train/n09' holds no images (.jpg, .jpeg, .png)"),
        (_unmapped, "val/extra.JPEG' is missing from the mapping"),
        (_mapped_beyond, "val_00000001.JPEG' must have a label in [0, 3), but has 3"),
        (_unknown_class, "n0777/a.JPEG' must be of one of the classes to train on, but is of 'n0777'"),
        (_no_mapping, "val/a.JPEG' has no class: put a file"),
        (_empty_part, "val' holds no images (.jpg, .jpeg, .png) and no folders of them"),
        (lambda folder: None, "lacks val. Give a folder"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(imagenet: Path, harm: Callable[[Path], None], words: str) -> None:
    """If this fails, the user searches a million files for the one that stops training, or trains on half of
    them."""
    harm(imagenet)
    with pytest.raises(InputError) as told:
        parts(imagenet)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_what_is_asked_of_the_wrong_place_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a slip in the config is silently without effect."""
    monkeypatch.delenv("PHYSICS_EP_DATA", raising=False)
    with pytest.raises(InputError, match=r"'imagenet' was not found: no folder was named\. Give a folder"):
        list_parts(DataSection(name="imagenet"), None)
    with pytest.raises(InputError, match=r"'image-folder' was not found: '.*nowhere' is no folder"):
        parts(tmp_path / "nowhere", "image-folder")
    touch(tmp_path, "a.jpg", "b.jpg")
    with pytest.raises(InputError, match=r"data.mapping must be a text or CSV file, but was '.*none.csv', which"):
        parts(tmp_path, "image-folder", mapping="none.csv")
    (tmp_path / "none.csv").write_text("a.jpg,0\nb.jpg,5\n")
    with pytest.raises(InputError, match=r"b.jpg' must have a label in \[0, 5\), but has 5: set data.n_classes"):
        parts(tmp_path, "image-folder", n_classes=5)
    with pytest.raises(InputError, match="is streamed from its files"):
        load_dataset(DataSection(name="imagenet", folder=str(tmp_path)))
    with pytest.raises(InputError, match=r"data.size must be left out for 'digits', but was 64"):
        load_dataset(DataSection(name="digits", size=64))
    with pytest.raises(InputError, match=r"data.means must be left out for 'digits'"):
        load_dataset(DataSection(name="digits", means=[0.1, 0.1, 0.1]))
