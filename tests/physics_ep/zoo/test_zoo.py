"""Trained networks that ship with the package: whole files, found by name, and as good as their index says."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch

import physics_ep.zoo.networks as place
from physics_ep.config import load_subject, load_system
from physics_ep.data.datasets import Dataset, locate
from physics_ep.errors import InputError
from physics_ep.predictive_coding import vgg10
from physics_ep.zoo import zoo, zoo_network
from tests.support.paths import ROOT
from validation.benchmarks.zoo_training import images_of, parted

FOLDER = ROOT / "physics_ep" / "zoo"


@pytest.mark.parametrize("name", sorted(zoo()))
def test_a_network_is_its_file(name: str) -> None:
    """If it fails, files and index differ, a file is too large for the repository, or other weights are loaded."""
    entry = zoo()[name]
    content = (FOLDER / entry["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    assert len(content) < 5_000_000
    assert "jpeg" in name
    assert "JPEG" in entry["data"]
    held = torch.load(FOLDER / entry["file"], weights_only=True)
    net = zoo_network(name)
    assert {t.dtype for t in held.values()} == {torch.float16}
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, held[key].float())
    fresh = vgg10(10, (3, 32, 32), width=0.125, gain=6**0.5, output_gain=1.0)
    assert (net.layers[0].weight - fresh.layers[0].weight).norm() > 0.1 * fresh.layers[0].weight.norm()


def test_all_files_have_an_entry() -> None:
    """If it fails, a file lies in the wheel that nobody can load."""
    assert sorted(p.name for p in FOLDER.glob("*.pt")) == sorted(e["file"] for e in zoo().values())


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
    content = bytearray((FOLDER / f"{name}.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "zoo" / f"{name}.pt").write_bytes(content)
    (tmp_path / "zoo" / "index.json").write_bytes((FOLDER / "index.json").read_bytes())
    monkeypatch.setattr(place.importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(InputError, match="must have the sha256 that its index names"):
        zoo_network(name)
    (tmp_path / "zoo" / f"{name}.pt").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        zoo_network(name)


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
    for name, entry in zoo().items():
        net = zoo_network(name)
        scores = torch.cat([net(part).detach() for part in data.test_x.split(500)])
        error = float((scores.argmax(1) != data.test_y).double().mean())
        assert abs(error - entry["test_error"]) < 2e-3, name
        assert error < 0.37
