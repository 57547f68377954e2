"""Training from files and loaders: if these fail, a stream is trained on otherwise than the same data in memory."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from physics_ep import open_run, train
from physics_ep.cli import main
from physics_ep.config import DataSection, TrainingSection
from physics_ep.data.batches import Stream
from physics_ep.data.datasets import Dataset, data_folder
from physics_ep.data.image_folders import list_parts
from physics_ep.data.photographs import DEVIATIONS, MEANS, central_view
from physics_ep.errors import InputError
from physics_ep.runs.metrics import HELD_OUT, METRICS, evaluate
from physics_ep.runs.training import TrainingInterrupted, TrainingResult
from physics_ep.storage.sealed import seal
from tests.support.runs import StopAfter, assert_same_run
from tests.support.systems import network

SIZE = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 images of three classes to train on and 6 to test, all of different sizes."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for label, wnid in enumerate(("n01", "n02", "n03")):
            for k in range(count):
                path = tmp_path / "data" / part / wnid / f"{k}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = generator.integers(0, 150, (12 + k, 16 - k, 3))
                pixels[:, :, label] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(path, "PNG")
    return tmp_path / "data"


def config(folder: Path, epochs: int = 3, **data: Any) -> dict[str, Any]:
    """A tiny network for the folder."""
    return {
        "system": {"name": "hopfield", "sizes": [3 * SIZE**2, 12, 3]},
        "data": {"name": "imagenet", "folder": str(folder), "size": SIZE, "workers": 0, **data},
        "training": {"epochs": epochs, "batch_size": 5, "evaluation_batch_size": 4},
        "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9},
    }


def weights(result: TrainingResult) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in result.system.parameters()])


def in_memory(folder: Path) -> Dataset:
    """The folder's central views, normalised by hand."""
    parts = list_parts(DataSection(name="imagenet", folder=str(folder)), folder)
    held = {}
    for part, listing in (("train", parts.train), ("test", parts.test)):
        views = []
        for k in range(len(listing)):
            with Image.open(listing.path(k)) as image:
                views.append(torch.from_numpy(central_view(image, SIZE).copy()).float() / 255)
        x = (torch.stack(views) - torch.tensor(MEANS).view(3, 1, 1)) / torch.tensor(DEVIATIONS).view(3, 1, 1)
        held |= {f"{part}_x": x.flatten(1), f"{part}_y": torch.from_numpy(listing.labels)}
    return Dataset("views", **held, n_classes=3)


@pytest.mark.full
@pytest.mark.parametrize("validation", [None, 3])
def test_a_stream_is_trained_on_as_the_same_images_in_memory(folder: Path, validation: int | None) -> None:
    """Batches, order, normalisation, evaluation and the images held out are the same in both ways."""
    streamed = train(config(folder, augmentation="centre", validation=validation))
    held = train(config(folder, validation=validation), data=in_memory(folder))
    assert torch.equal(weights(streamed), weights(held))
    for name in streamed.metrics:
        if name != "seconds":
            np.testing.assert_array_equal(streamed.metrics[name], held.metrics[name], err_msg=name)
    assert set(streamed.metrics) == set(METRICS if validation is None else METRICS | HELD_OUT)
    assert streamed.test_error == 0  # the classes differ in colour


def test_workers_and_a_resume_change_no_bit(folder: Path, tmp_path: Path) -> None:
    """If this fails, a run that was interrupted, or made on another machine, cannot be reproduced."""
    straight, halted = tmp_path / "straight.h5", tmp_path / "halted.h5"
    train(config(folder), out=straight)
    with pytest.raises(TrainingInterrupted, match="epochs 1 to 2 are kept"):
        train(config(folder), out=halted, progress=StopAfter(epochs=2, batches=1))
    train(config(folder, workers=2), resume=halted)
    assert_same_run(straight, halted)


def test_epochs_and_images_draw_views_of_their_own(folder: Path) -> None:
    """If this fails, the network sees one crop of an image for ever, or the same crop of all images (here they are
    one)."""
    one = (folder / "train" / "n01" / "0.JPEG").read_bytes()
    for path in (folder / "train").glob("*/*"):
        path.write_bytes(one)
    stream = Stream(
        DataSection(**config(folder)["data"]),
        TrainingSection(batch_size=12),
        torch.device("cpu"),
        torch.float32,
    )
    first, again, other = [next(stream.epoch(e)) for e in (0, 0, 1)]
    assert torch.equal(first[0], again[0])
    assert first[1].tolist() != other[1].tolist()
    assert len({tuple(x.tolist()) for batch in (first, other) for x in batch[0]}) == 24
    assert first[0].dtype == torch.float32
    # White is (1 - mean) / deviation.
    white = stream._normalised(torch.full((1, 3, SIZE, SIZE), 255, dtype=torch.uint8)).view(3, -1)[:, 0]
    usual = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(white, usual, rtol=1e-5)


def loaders(seed: int | None, n: int = 24) -> tuple[DataLoader, DataLoader]:
    """Random examples; shuffled by a generator of their own, or by the global one."""
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.rand(n, 6, generator=generator, dtype=torch.float64), torch.arange(n) % 3)
    own = None if seed is None else torch.Generator().manual_seed(seed)
    return DataLoader(data, batch_size=7, shuffle=True, generator=own), DataLoader(data, batch_size=10)


LOADED = {
    "system": {"name": "hopfield", "sizes": [6, 8, 3]},
    "training": {"epochs": 3},
    "optimizer": {"name": "SGD", "lr": 0.1},
}


@pytest.mark.full
@pytest.mark.parametrize("seed", [None, 5])
def test_loaders_of_a_caller(tmp_path: Path, seed: int | None) -> None:
    """If this fails, one's own data cannot be trained on, or a resumed run sees them in another order."""
    straight, halted = tmp_path / "straight.h5", tmp_path / "halted.h5"
    torch.manual_seed(0)
    train(LOADED, data=loaders(seed), out=straight)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with pytest.raises(TrainingInterrupted):
        train(LOADED, data=loaders(seed), out=halted, progress=StopAfter(epochs=1, batches=2))
    result = train(LOADED, data=loaders(seed), resume=halted)
    assert_same_run(straight, halted)
    assert open_run(halted).config["data"]["name"] == "loaders"
    assert torch.equal(before, torch.get_rng_state())
    # One batch of all is one batch of all in memory, in whatever order.
    x, y = next(iter(DataLoader(loaders(0)[0].dataset, batch_size=24)))
    whole = train(LOADED, data=([(x, y)], [(x, y)]))
    held = train(
        LOADED, overrides=["training.batch_size=24"], data=Dataset("mine", x.float(), y, x.float(), y, n_classes=3)
    )
    torch.testing.assert_close(weights(whole), weights(held), atol=1e-6, rtol=0)
    assert whole.test_error == held.test_error
    assert len(result.metrics["loss"]) == 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (([(torch.rand(4, 5), torch.arange(4) % 3)],) * 2, "Argument x must be"),
        (([(torch.rand(4, 6), torch.arange(4))],) * 2, "y must hold class indices in [0, 3)"),
        (([torch.rand(4, 6)],) * 2, "data must yield pairs of a floating-point tensor (B, ...) and class indices"),
        (
            ([(torch.rand(4, 6), torch.rand(4))],) * 2,
            "y must be measured targets (B, 3), one an output, but was (4, 1)",
        ),
        (([(torch.rand(4, 6), torch.arange(3))],) * 2, "torch.int64 of shape (3,))"),
        (([], []), "There must be training examples, but none came."),
        (((pair for pair in ()), []), "to be gone through anew each epoch, but was generator"),
        (([],), "or two loaders (train, test) to be gone through anew each epoch, but was a tuple of 1"),
        ([1, 2], "data must be a folder, a Dataset, arrays (x, y) or (x, y, test_x, test_y), or two loaders"),
    ],
)
def test_loaders_that_do_not_fit_are_told(data: Any, words: str) -> None:
    """If this fails, the caller is left with an error from deep inside."""
    with pytest.raises(InputError) as told:
        train(LOADED, data=data)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_broken_images_stop_training_or_are_counted(folder: Path, tmp_path: Path, capsys) -> None:
    """If this fails, one bad file loses a week's run unnamed, or is learnt from as noise."""
    out = tmp_path / "run.h5"
    train(config(folder, epochs=1), out=out)
    bad = folder / "train" / "n02" / "1.JPEG"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError) as told:
        train(config(folder), resume=out)
    assert f"{str(bad)!r} cannot be decoded" in str(told.value)
    assert "set data.on_broken to 'skip'" in str(told.value)
    assert f"epochs 1 to 1 are kept: resume with resume='{out}'" in str(told.value)
    (folder / "val" / "n01" / "0.JPEG").write_bytes(b"")
    result = train(config(folder, on_broken="skip", workers=1), resume=out)
    assert result.metrics["broken"].tolist() == [0, 2, 2]
    assert result.figures()["broken"] == 4
    assert sorted(Path(line.split("'")[1]).name for line in result.broken) == ["0.JPEG", "1.JPEG"]
    # A batch of nothing but broken images is passed over.
    alone = train(config(folder, on_broken="skip"), overrides=["training.batch_size=1", "training.epochs=1"])
    assert alone.metrics["broken"].tolist() == [2]
    for path in (folder / "val").glob("*/*"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"There must be test examples, but none came: Image .* cannot be decoded"):
        train(config(folder, on_broken="skip"))


def test_the_command_ends_bad_folders_in_one_line(folder: Path, tmp_path: Path, capsys) -> None:
    """If this fails, a script cannot tell bad data from a failed run; top-5 errors and broken images are in its
    figures."""
    path = tmp_path / "config.toml"
    path.write_text(
        f'[system]\nname = "hopfield"\nsizes = [{3 * SIZE**2}, 4, 3]\n'
        f'[data]\nname = "imagenet"\nfolder = "{folder}"\nsize = {SIZE}\nworkers = 0\n'
        "[training]\nepochs = 1\n",
        encoding="utf-8",
    )

    def status(*more: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(["train", str(path), *more])
        told = capsys.readouterr()
        assert told.err.count("\n") <= 1
        return int(stop.value.code or 0), told.out + told.err

    figures = tmp_path / "figures.json"
    done = status("--json", str(figures))
    assert done[0] == 0, done
    found = json.loads(figures.read_text())
    assert found["test_top5_error"] == found["train_top5_error"] == 0  # of three classes
    assert found["broken"] == 0
    for options, words in (
        (("--set", "data.folder=/nowhere"), "'/nowhere' is no folder"),
        (("--set", "data.size=9"), "Argument x must"),
        (("--set", "data.layout=image"), "Argument x must"),
        (("--set", "data.n_classes=2"), "must have a label in [0, 2), but has 2"),
        (("--set", "data.n_classes=4"), "Argument y must have the outputs' shape"),
        (("--set", "data.augmentation=crop"), "data.augmentation must be one of centre, resized-crop"),
        (("--set", "data.pad_to=9"), "data.pad_to must be left out for 'imagenet', but was 9"),
        (("--set", "data.on_broken=ignore"), "data.on_broken must be 'refuse' or 'skip'"),
        (("--set", "data.name=imagenett"), "Did you mean 'imagenet'?"),
    ):
        code, told = status(*options)
        assert code == 2
        assert words in told
    (folder / "train" / "n01" / "0.JPEG").write_bytes(b"")
    code, told = status()
    assert code == 2
    assert "n01/0.JPEG' cannot be decoded: it is no JPEG or PNG" in told
    code, told = status("--set", "data.on_broken=skip")
    assert code == 0
    assert "left out: 1 image that cannot be decoded. The first: Image" in told


def test_top5_error_against_sorting(tmp_path: Path) -> None:
    """If this fails, the figure that ImageNet is judged by is another one."""
    system = network("tanh", (20, 16, 10))
    generator = torch.Generator().manual_seed(3)
    x, labels = torch.rand(64, 20, generator=generator), torch.randint(0, 10, (64,), generator=generator)
    system.to(x.dtype)
    found = evaluate(system, [(x[:40], labels[:40]), (x[:0], labels[:0]), (x[40:], labels[40:])])
    from physics_ep import relax

    outputs = system.outputs(relax(system, x).require().state)
    places = [int((row > row[label]).sum()) for row, label in zip(outputs, labels, strict=True)]
    assert found.examples == 64
    assert found.error == sum(p >= 1 for p in places) / 64
    assert found.top5_error == sum(p >= 5 for p in places) / 64
    assert 0 < found.top5_error < found.error


def test_older_run_files_are_resumed(folder: Path, tmp_path: Path) -> None:
    """If this fails, an update of the package loses the runs that are under way."""
    out = tmp_path / "run.h5"
    train(LOADED, data=loaders(5), overrides=["training.epochs=1"], out=out)
    with h5py.File(out, "a") as file:
        for name in ("test_top5_error", "train_top5_error", "broken"):
            del file[f"metrics/{name}"]
        kept = json.loads(file.attrs["config"])
        for key in ("size", "means", "deviations", "n_classes", "mapping", "test_fraction", "on_broken", "workers"):
            del kept["data"][key]
        file.attrs["config"] = json.dumps(kept)
    seal(out, "physics_ep.train", "training")
    result = train(LOADED, data=loaders(5), resume=out)
    assert np.isnan(result.metrics["test_top5_error"][0])
    assert result.metrics["test_top5_error"][-1] == 0
    assert result.figures()["broken"] == 0


@pytest.fixture
def imagenet20() -> Path:
    """Folder with 20 photographs of ImageNet; skips the test where PHYSICS_EP_DATA does not lead to one."""
    place = data_folder(None, ("imagenet20",))
    if place is None or not list(place.glob("imagenet_*.jpg")):
        pytest.skip("needs 20 photographs: set PHYSICS_EP_DATA to a folder that holds imagenet20/")
    return place


def test_real_photographs(imagenet20: Path) -> None:
    """If this fails, real files are refused, or come out of scale: normalised, their mean is near 0, their
    deviation near 1.

    Their central views are those of another path through Pillow, by floating-point arrays.
    """
    section = DataSection(
        name="image-folder", folder=str(imagenet20), layout="image", n_classes=1000, test_fraction=0.5, workers=0
    )
    stream = Stream(section, TrainingSection(batch_size=10), torch.device("cpu"), torch.float32)
    began = time.process_time()
    (x, labels), (test_x, test_y) = next(stream.epoch(0)), next(stream.test())
    assert time.process_time() - began < 10
    names = [os.fsdecode(name) for name in (*stream.train_part.files, *stream.test_part.files)]
    assert sorted(labels.tolist() + test_y.tolist()) == sorted(int(n[:-4].split("_")[-1]) for n in names)
    assert x.shape == test_x.shape == (10, 3, 224, 224)
    for part in (x, test_x):
        assert abs(float(part.mean())) < 0.6
        assert 0.6 < float(part.std()) < 1.5
    with Image.open(stream.test_part.path(0)) as image:
        planes = [Image.fromarray(plane) for plane in np.asarray(image).transpose(2, 0, 1).astype(np.float32)]
    short, long = sorted(planes[0].size)
    size = (256, int(256 * long / short)) if planes[0].width == short else (int(256 * long / short), 256)
    resized = np.stack([np.asarray(plane.resize(size, Image.Resampling.BILINEAR)) for plane in planes])
    top, left = round((size[1] - 224) / 2), round((size[0] - 224) / 2)
    cut = resized[:, top : top + 224, left : left + 224] / 255
    by_hand = (cut - np.array(MEANS)[:, None, None]) / np.array(DEVIATIONS)[:, None, None]
    np.testing.assert_allclose(test_x[0].numpy(), by_hand, atol=0.02)
