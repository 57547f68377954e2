"""Tensors without numbers are refused in one line: if these fail, they end in an error of torch deep inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hardware_models import HopfieldNetwork
from physics_ep import CrossEntropy, EquilibriumPropagation, SquaredError, relax, simulate
from physics_ep.data.datasets import Dataset
from physics_ep.errors import InputError

X = torch.linspace(0, 1, 8).view(2, 4)
LABELS = torch.tensor([0, 2])

INPUTS = {
    "None": None,
    "an integer": 1,
    "a list": [1, 2],
    "an array of objects": np.array([object(), object()]),
    "sparse": X.to_sparse(),
    "sparse rows": X.to_sparse_csr(),
    "meta": X.to("meta"),
    "quantized": torch.quantize_per_tensor(X, 0.1, 0, torch.quint8),
    "complex": X.to(torch.complex64),
    "a number": torch.tensor(1.0),
}
TARGETS = {
    "beyond 64 bits": [2**63, 0],
    "unsigned beyond 64 bits": np.array([2**63 + 1, 0], dtype=np.uint64),
    "below 0": [-1, 0],
    "fractions": [0.5, 1.0],
    "NaN": [float("nan"), 0.0],
    "None": None,
    "text": ["a", "b"],
    "objects": np.array([0, object()]),
    "ragged": [[0], [1, 2]],
    "complex": [1j, 0],
    "one number": 3,
    "sparse": LABELS.to_sparse(),
    "meta": LABELS.to("meta"),
}


def refused(call: object, *arguments: object) -> None:
    with pytest.raises(InputError) as caught:
        call(*arguments)  # type: ignore[operator]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_without_numbers_are_refused(kind: str) -> None:
    """By everything that takes a batch."""
    net, bad = HopfieldNetwork([4, 5, 3], seed=0), INPUTS[kind]
    refused(relax, net, bad)
    refused(simulate, net, bad, 1.0)
    refused(EquilibriumPropagation(SquaredError()).backward, net, bad, torch.rand(2, 3))
    refused(EquilibriumPropagation(SquaredError()).backward, net, X, bad)
    refused(Dataset, "data", bad, LABELS, X, LABELS, 3)


@pytest.mark.parametrize("kind", TARGETS)
def test_labels_that_are_no_classes_are_refused(kind: str) -> None:
    """By the costs that encode them, by a step and by a data set."""
    for cost in (SquaredError(), CrossEntropy()):
        refused(cost.encode, TARGETS[kind], 3, torch.float32)
    refused(EquilibriumPropagation(CrossEntropy()).backward, HopfieldNetwork([4, 5, 3], seed=0), X, TARGETS[kind])
    refused(Dataset, "data", X, TARGETS[kind], X, LABELS, 3)
