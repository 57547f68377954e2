"""Trained networks that ship with the package: whole files, found by name, and as good as their index says."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import physics_ep.zoo.networks as place
from physics_ep import cli, open_run, train
from physics_ep.config import load_subject, load_system, parse_config
from physics_ep.data.datasets import Dataset, load_dataset, locate
from physics_ep.errors import InputError
from physics_ep.predictive_coding import vgg10
from physics_ep.runs.metrics import classification_error
from physics_ep.runs.results import TrainingResult
from physics_ep.zoo import add_to_zoo, zoo, zoo_network, zoo_weights
from tests.support.paths import ROOT
from validation.benchmarks.zoo_training import images_of, parted

FOLDER = ROOT / "physics_ep" / "zoo"


JPEG = sorted(name for name in zoo("cifar10") if name.startswith("vgg10"))
REDUCED = 0.5, 0.8
"""Test errors of networks that a few thousand images have taught; chance is 0.9."""


@pytest.mark.parametrize("name", sorted(zoo()))
def test_a_file_says_what_it_is(name: str) -> None:
    """If it fails, the weights that ship are not those of the index, or other programs cannot read them."""
    entry = zoo()[name]
    file = FOLDER / entry["file"]
    assert len(file.read_bytes()) < 5_000_000
    weights = load_file(file)
    system = load_system(name)
    for key, tensor in system.state_dict().items():
        assert torch.equal(tensor, weights[key].to(tensor.dtype))
    with safe_open(file, "pt") as held:
        metadata = held.metadata()
    assert json.loads(metadata["config"]) == entry["config"]
    assert float(metadata["test_error"]) == entry["test_error"]
    reduced = entry["config"]["data"]["name"] == "cifar10" and name not in JPEG
    assert (0.0, 0.5)[reduced] < entry["test_error"] < REDUCED[reduced]
    assert "JPEG" in entry["data"] or entry["config"]["data"]["name"] != "cifar10"


@pytest.mark.parametrize("name", JPEG)
def test_a_network_is_its_file(name: str) -> None:
    """If it fails, files and index differ, a file is too large for the repository, or other weights are loaded."""
    entry = zoo()[name]
    content = (FOLDER / entry["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    assert len(content) < 5_000_000
    assert "jpeg" in name
    assert "JPEG" in entry["data"]
    held = load_file(FOLDER / entry["file"])
    net = zoo_network(name)
    assert {t.dtype for t in held.values()} == {torch.float16}
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, held[key].float())
    fresh = vgg10(10, (3, 32, 32), width=0.125, gain=6**0.5, output_gain=1.0)
    assert (net.layers[0].weight - fresh.layers[0].weight).norm() > 0.1 * fresh.layers[0].weight.norm()


def test_all_files_have_an_entry() -> None:
    """If it fails, a file lies in the wheel that nobody can load."""
    assert sorted(p.name for p in FOLDER.glob("*.safetensors")) == sorted(e["file"] for e in zoo().values())


def test_a_name_is_taken_where_a_system_is() -> None:
    """If it fails, commands do not know the zoo, or build its networks with weights that are drawn."""
    name = "vgg10-eighth-cifar10jpeg-ep"
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_system(name, seed=3)(x), zoo_network(name)(x))
    config = load_subject(name)
    assert (config.system.name, config.data.name, config.ep.estimator) == ("zoo", "cifar10", "ep")


def test_wrong_names_and_changed_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, a damaged or exchanged file is used as if it were the trained network."""
    with pytest.raises(InputError, match="Did you mean 'vgg10-eighth-cifar10jpeg-ep'"):
        load_system("vgg10-eighth-cifar10jpeg-epp")
    with pytest.raises(InputError, match="Did you mean 'vgg10-eighth-cifar10jpeg-ep'"):
        zoo_network("vgg10-eighth-cifar10jpeg-epp")
    name = "vgg10-eighth-cifar10jpeg-ep"
    (tmp_path / "zoo").mkdir()
    content = bytearray((FOLDER / f"{name}.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "zoo" / f"{name}.safetensors").write_bytes(content)
    (tmp_path / "zoo" / "index.json").write_bytes((FOLDER / "index.json").read_bytes())
    monkeypatch.setattr(place, "SHIPPED", tmp_path / "zoo")
    with pytest.raises(InputError, match="must have the sha256 that its index names"):
        zoo_network(name)
    (tmp_path / "zoo" / f"{name}.safetensors").unlink()
    with pytest.raises(InputError, match="PHYSICS_EP_ZOO must be a folder or an address that holds"):
        zoo_network(name)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo whose files do not ship with the package, and a folder that has them."""
    shipped, folder = tmp_path / "package" / "zoo", tmp_path / "folder"
    shipped.mkdir(parents=True)
    folder.mkdir()
    (shipped / "index.json").write_bytes((FOLDER / "index.json").read_bytes())
    for file in FOLDER.glob("*.safetensors"):
        (folder / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(place, "SHIPPED", shipped)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def run_command(*words: str) -> int:
    """Exit status of the command, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    return int(caught.value.code or 0)


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, and prints nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address(elsewhere: Path) -> Iterator[str]:
    """The folder as an address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(elsewhere))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("by", ["folder", "address"])
def test_files_come_from_elsewhere_and_are_checked(
    elsewhere: Path, address: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, weights that are too large to ship cannot be had, or a changed byte on the way is not seen."""
    name = JPEG[0]
    monkeypatch.setenv("PHYSICS_EP_ZOO", str(elsewhere) if by == "folder" else address)
    content = bytearray((elsewhere / zoo()[name]["file"]).read_bytes())
    content[-1] ^= 1
    (elsewhere / zoo()[name]["file"]).write_bytes(content)
    with pytest.raises(InputError, match=r"must have the sha256|Download of .* failed"):
        zoo_network(name)
    content[-1] ^= 1
    (elsewhere / zoo()[name]["file"]).write_bytes(content)
    assert torch.equal(zoo_network(name).state_dict()["layers.0.bias"], zoo_weights(name)["layers.0.bias"].float())


def test_a_folder_has_networks_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, weights of one's own cannot be named, stand for those that ship, or lead out of their folder."""
    monkeypatch.setenv("PHYSICS_EP_ZOO", str(tmp_path))
    shipped = zoo()
    name = "hopfield-digits-ep"
    index = tmp_path / "index.json"
    (tmp_path / "mine.safetensors").write_bytes((FOLDER / f"{name}.safetensors").read_bytes())
    mine = {**shipped[name], "file": "mine.safetensors"}
    index.write_text(json.dumps({"mine": mine, "hopfield-mnist": mine}))
    assert zoo() == {**shipped, "mine": mine}
    assert torch.equal(zoo_weights("mine")["layers.0.bias"], zoo_weights(name)["layers.0.bias"])
    for wrong in ("{", "[]", json.dumps({"mine": {**mine, "file": "../mine.safetensors"}}), '{"mine": {}}'):
        index.write_text(wrong)
        with pytest.raises(InputError, match="is no index of a zoo"):
            load_system("mine")


@pytest.mark.full
def test_a_run_is_added_and_trained_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, weights of a run do not come back to the bit, or `train --from` begins with others."""
    sections = {
        "system": {"name": "hopfield", "sizes": [64, 8, 10]},
        "data": {"name": "digits", "train_examples": 100, "test_examples": 20, "validation": 20},
        "training": {"epochs": 1},
    }
    trained = train(sections, out=tmp_path / "run.h5")
    assert isinstance(trained, TrainingResult)
    folder = tmp_path / "package" / "zoo"
    folder.mkdir(parents=True)
    entry = add_to_zoo(folder, "small", open_run(tmp_path / "run.h5"), "100 digits")
    assert entry["test_error"] == trained.test_error
    assert entry["held_out_error"] == trained.validation_error
    monkeypatch.setattr(place, "SHIPPED", folder)
    for key, tensor in load_system("small").state_dict().items():
        assert torch.equal(tensor, trained.system.state_dict()[key])
    out = tmp_path / "further.h5"
    for words in (
        ["--from", "small"],
        ["--from", str(tmp_path / "run.h5")],
        ["hopfield-digits", "--from", "small"],
    ):
        changes = ["--set", "system.sizes=[64,8,10]", "--set", "optimizer.lr=0.0", "--set", "training.epochs=1"]
        changes += ["--set", "optimizer.groups={}"]
        assert run_command("train", *words, *changes, "--out", str(out), "--overwrite") == 0
        for key, tensor in open_run(out).state_dict.items():
            assert torch.equal(tensor, trained.system.state_dict()[key])


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--from", "hopfield-digts-ep"),
        ("train", "hopfield-digits", "--from", "hopfield-digts-ep"),
        ("train", "hopfield-digits", "--weights", "hopfield-digts-ep"),
        ("train", "hopfield-digits", "--set", "system.weights='hopfield-digts-ep'"),
        ("gradients", "hopfield-digts-ep"),
        ("gradients", "hopfield", "--weights", "hopfield-digts-ep"),
    ],
)
def test_misspelt_names_are_answered_with_the_nearest(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of the zoo that is off by a letter is no missing file."""
    monkeypatch.chdir(tmp_path)
    assert run_command(*words) == 2
    assert "Did you mean 'hopfield-digits-ep'?" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_held_out_images_are_of_the_training_set_alone() -> None:
    """If it fails, an image is learned from and chosen by, or classes are held out unequally."""
    x = torch.arange(40.0)[:, None]
    data = Dataset("cifar10", x, torch.arange(40) // 20, torch.full((5, 1), 99.0), torch.zeros(5).long(), 2)
    part = parted(data, each=3)
    assert sorted(torch.cat([part.train_x, part.test_x]).flatten().tolist()) == x.flatten().tolist()
    assert torch.bincount(part.test_y).tolist() == [3, 3]
    assert torch.equal(part.test_y, (part.test_x[:, 0] // 20).long())


@pytest.mark.slow
def test_they_classify_as_the_index_says() -> None:
    """If it fails, weights, normalisation or architecture are not those that were trained. Exact on the test set as
    JPEG, but for 20 of 10,000 images, whose scores may be rounded otherwise on another machine."""
    found = locate("cifar10", os.environ.get("PHYSICS_EP_DATA"))
    if found is None:
        pytest.skip("needs CIFAR-10 as JPEG: set PHYSICS_EP_DATA to a folder that holds it")
    if "images" not in found:
        pytest.skip("needs CIFAR-10 as JPEG: here are the set's own pixels")
    data = images_of(None)
    for name in JPEG:
        entry, net = zoo()[name], zoo_network(name)
        scores = torch.cat([net(part).detach() for part in data.test_x.split(500)])
        error = float((scores.argmax(1) != data.test_y).double().mean())
        assert abs(error - entry["test_error"]) < 2e-3, name
        assert error < 0.37


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(zoo("digits")))
def test_networks_of_digits_classify_as_the_index_says(name: str) -> None:
    """If it fails, weights or config of a network are not those whose test error is told."""
    entry = zoo()[name]
    system, data = load_system(name), load_dataset(parse_config(entry["config"]).data)
    tolerance = entry["config"]["ep"]["tolerance"]
    x = data.test_x.to(system.dtype)
    error, _ = classification_error(
        system, x, data.test_y, solver=entry["config"]["ep"]["solver"], tolerance=tolerance
    )
    assert abs(error - entry["test_error"]) <= 1 / 360  # one image may fall otherwise on another machine


@pytest.mark.slow
def test_the_network_of_mnist_classifies_as_the_index_says() -> None:
    """If it fails, `load_system("hopfield-mnist")` is not the network whose test error is told."""
    if locate("mnist", os.environ.get("PHYSICS_EP_DATA")) is None:
        pytest.skip("needs MNIST: set PHYSICS_EP_DATA to a folder that holds it")
    entry = zoo()["hopfield-mnist"]
    data = load_dataset(parse_config(entry["config"]).data)
    system = load_system("hopfield-mnist")
    assert abs(classification_error(system, data.test_x, data.test_y)[0] - entry["test_error"]) <= 2e-4
