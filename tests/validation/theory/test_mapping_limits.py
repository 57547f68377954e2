"""Limits that depth sets to paired units: if these fail, circuits are promised that oscillate, or take too long.

The tolerances of `test_mapping.py` at depth 10 and width 128 are the reference.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hardware_models import DeviceModel, map_pcn
from physics_ep import CrossEntropy
from physics_ep.errors import InputError
from physics_ep.predictive_coding import vgg5
from tests.support.pcn import dense, examples
from tests.support.pcn_flows import decay, linearised
from validation.theory.mapping_limits import (
    COPIES,
    copy_damage,
    disturbance_decay,
    mismatch_limit,
    random_network,
    symmetric_couplings,
    unstable_modes,
)


@pytest.mark.full
@pytest.mark.parametrize("depth", [2, 6])
@pytest.mark.parametrize("gain", [0.5, 6**0.5])
def test_decay_is_that_of_the_mapping_tests(depth: int, gain: float) -> None:
    """If this fails, the figure's settling times are others than those that tests hold against docs/physics.md,
    Settling time."""
    x, _ = examples(size=4)
    mapped = map_pcn(dense(depth, "softplus", gain=gain))
    assert disturbance_decay(mapped, x) == decay(mapped, x)


def test_a_single_layer_is_an_rc_node() -> None:
    """If this fails, time has another unit than the time constant; steps of a half are resolved."""
    x, _ = examples(size=2)
    mapped = map_pcn(random_network(1, "tanh", 1.0))
    assert disturbance_decay(mapped, x) == pytest.approx(math.log(1e6), abs=0.5)
    assert disturbance_decay(mapped, x, longest=5) == math.inf


@pytest.mark.parametrize(("depth", "width"), [(3, 12), (6, 16)])
def test_modes_are_those_of_the_linearised_circuit(depth: int, width: int) -> None:
    """If this fails, the second-order form, or the count of modes beyond the axis, is not that of the circuit's
    equations: eigenvalues of its Jacobian, by autograd, are the judge, on both sides of the limit and far beyond
    it."""
    x, _ = examples(size=1)
    net = random_network(depth, "tanh", 6**0.5, width=width)
    limit = mismatch_limit(map_pcn(net), x, resolution=0.005)
    blocks = symmetric_couplings(map_pcn(net), x)
    for factor in (-0.3, 0.0, 0.97, 1.03, 3.0, 8.0):
        mapped = map_pcn(net, device=DeviceModel(time_constant_mismatch=factor * limit))
        growing = int((torch.linalg.eigvals(linearised(mapped, x)).real > 1e-9).sum())
        assert unstable_modes(blocks, factor * limit) == growing
        assert (growing > 0) == (factor > 1)


@pytest.mark.full
def test_published_limit() -> None:
    """If this fails, the construction's tightest tolerance is misjudged: 2 to 5 % at depth 10 (docs/physics.md, u
    must not be slower than h)."""
    x, _ = examples(size=1)
    blocks = symmetric_couplings(map_pcn(dense(10, "tanh", width=128, gain=6**0.5)), x)
    assert unstable_modes(blocks, 0.02) == 0
    assert unstable_modes(blocks, 0.05) > 0


def test_limit_of_many_examples_is_the_least() -> None:
    """If this fails, a batch is called stable of which one example is not."""
    x, _ = examples(size=3)
    mapped = map_pcn(random_network(4, "tanh", 6**0.5, width=16))
    each = [mismatch_limit(mapped, example[None]) for example in x]
    assert mismatch_limit(mapped, x) == pytest.approx(min(each), rel=0.03)


def test_small_gains_are_safe_and_depth_is_not() -> None:
    """If this fails, networks are refused that damping alone keeps stable, or a limit does not fall with depth."""
    x, _ = examples(size=1)
    assert mismatch_limit(map_pcn(random_network(12, "tanh", 0.5, width=16)), x) == math.inf
    limits = [mismatch_limit(map_pcn(random_network(d, "tanh", 6**0.5, width=16)), x) for d in (2, 4, 8)]
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] < 0.1 * limits[0]


def test_damage_of_copies() -> None:
    """If this fails, the damage is not that of docs/physics.md, One array, not three: none by one noisy array, more
    by three copies than by one, and it grows with depth."""
    x, y = examples(size=4)
    found = {
        (depth, copies): copy_damage(
            random_network(depth, "tanh", 3**0.5, width=48), x, y, CrossEntropy(), copies, 0.01
        )
        for depth in (3, 8)
        for copies in ((), ("transpose",), COPIES)
    }
    assert max(found[3, ()], found[8, ()]) < 1e-9
    for depth in (3, 8):
        assert 1e3 * found[depth, ()] < found[depth, ("transpose",)] < found[depth, COPIES]
    assert found[8, COPIES] > 5 * found[3, COPIES]


@pytest.mark.slow
def test_no_equilibrium_is_no_number() -> None:
    """If this fails, a state that is none is judged: ReLU, three copies, large gain (docs/physics.md, One array,
    not three)."""
    x, y = examples(size=2)
    net = dense(10, "relu", width=128, gain=6**0.5)
    assert math.isnan(copy_damage(net, x, y, CrossEntropy(), COPIES, 0.01))


def test_bad_input() -> None:
    """If this fails, a limit is given of a circuit that the formula is not of."""
    x, y = examples(size=2)
    net = random_network(3, "tanh", 1.0, width=8)
    with pytest.raises(InputError, match="dense layers"):
        mismatch_limit(map_pcn(vgg5(10, (3, 16, 16), width=1 / 32, activation="tanh")), torch.rand(1, 3, 16, 16))
    with pytest.raises(InputError, match="has copies"):
        mismatch_limit(map_pcn(net, device=DeviceModel(copy_mismatch_transpose=0.01)), x)
    with pytest.raises(InputError, match="copies must be of h, u, transpose"):
        copy_damage(net, x, y, CrossEntropy(), ("H",), 0.01)
    with pytest.raises(InputError, match="one example"):
        symmetric_couplings(map_pcn(net), x)


def test_random_networks_are_repeatable() -> None:
    """If this fails, the figure is another one each time; or a unit lies at zero."""
    one, same, other = (random_network(3, "tanh", 1.0, width=8, seed=seed) for seed in (1, 1, 2))
    for a, b, c in zip(one.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert np.all(a.detach().numpy() != 0)
