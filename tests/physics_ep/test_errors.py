"""Numbers that no loop ends with, and no float holds, are refused by name; else they hang, or end far within."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import hardware_models as hw
from physics_ep import Nudge, SquaredError, explore, open_run, relax, simulate, train
from physics_ep.errors import InputError, is_real, require_count, require_number, require_seed
from physics_ep.predictive_coding import mlp
from physics_ep.storage.run_file import write_run

HUGE = 10**400
NETWORKS: dict[str, Callable[..., Any]] = {
    "HopfieldNetwork": hw.HopfieldNetwork,
    "LangevinHopfield": hw.LangevinHopfield,
    "RecurrentNetwork": hw.RecurrentNetwork,
    "ResistiveNetwork": hw.ResistiveNetwork,
    "OscillatorNetwork": hw.OscillatorNetwork,
    "FitzHughNagumoChain": lambda sizes, **options: hw.FitzHughNagumoChain([4, 8, 3], **options),
    "OscillatorGraph": lambda sizes, **options: hw.OscillatorGraph(3, [[0, 1], [1, 2]], **options),
    "DirectedOscillators": lambda sizes, **options: hw.DirectedOscillators(3, [[0, 1], [1, 2]], **options),
    "mlp": mlp,
}

DENSE = ("HopfieldNetwork", "LangevinHopfield", "RecurrentNetwork", "ResistiveNetwork", "OscillatorNetwork", "mlp")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", [10**30, -(10**30), 1.5, None, True, "1"])
def test_seeds_are_integers_of_64_bits(name: str, seed: Any) -> None:
    with pytest.raises(InputError, match="Argument seed must be an integer"):
        NETWORKS[name]([4, 5, 3], seed=seed)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "ResistiveNetwork"])
@pytest.mark.parametrize("gain", [HUGE, math.nan, math.inf, "1", None])
def test_gains_are_numbers_that_a_float_holds(name: str, gain: Any) -> None:
    with pytest.raises(InputError, match=r"Argument gain must be a (finite|positive|number of at least 0)"):
        NETWORKS[name]([4, 5, 3], gain=gain)


@pytest.mark.parametrize("n", [10**12, 10**30])
@pytest.mark.parametrize("name", [*DENSE, "medium", "conv", "image", "lattice", "all"])
def test_sizes_that_no_memory_holds_are_refused(name: str, n: int) -> None:
    """By name and before anything is made; torch says nothing of the argument, or that an integer overflows."""
    others: dict[str, Callable[[], Any]] = {
        "medium": lambda: hw.FitzHughNagumoChain([4, n, 3]),
        "conv": lambda: hw.ConvHopfieldNetwork([1, 4, 4], [n], 3),
        "image": lambda: hw.ConvHopfieldNetwork([1, n, n], [2], 3),
        "lattice": lambda: hw.OscillatorGraph.lattice([n, n]),
        "all": lambda: hw.OscillatorGraph.all_to_all(n_inputs=1, n=n, n_outputs=2),
    }
    with pytest.raises(InputError, match=r"Too little memory|at most") as caught:
        others[name]() if name in others else NETWORKS[name]([4, n, 3])
    assert "\n" not in str(caught.value)


def test_helpers_name_what_is_wrong() -> None:
    """Bounds, kinds and digits: messages of 5,000 digits would hide the argument's name."""
    assert is_real(0) and is_real(-1.5) and is_real(1e308)  # noqa: PT018
    assert not any(map(is_real, (HUGE, -HUGE, math.nan, math.inf, True, None, "1", 1j, [1.0])))
    require_count("n", 3, most=3)
    require_seed(2**63 - 1)
    for value in (0, 1.0, True, None, "2"):
        with pytest.raises(InputError, match="Argument n must be an integer of at least 1"):
            require_count("n", value)
    with pytest.raises(InputError, match="Argument n must be at most 3, but was 4"):
        require_count("n", 4, most=3)
    for value in (10**5000, -(10**5000)):
        with pytest.raises(InputError, match=r"^Argument seed must be an integer of 64 bits, .* of 16610 bits\.$"):
            require_number("seed", value)
    for value in (math.nan, math.inf):
        with pytest.raises(InputError, match="Argument beta must be finite"):
            require_number("beta", value)


NET = hw.HopfieldNetwork([4, 5, 3], seed=0)
X = torch.rand(2, 4)
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "relax": (lambda: relax("net", X), "system must be a VectorField"),
    "simulate": (lambda: simulate(None, X, 1.0), "system must be a VectorField"),
    "explore": (lambda: explore([NET], X), "system must be a VectorField"),
    "nudge": (lambda: relax(NET, X, "nudge"), "nudge must be a Nudge"),
    "beta": (lambda: Nudge(SquaredError(), X, X.to_sparse()), "beta must be a number or a tensor"),
    "huge beta": (lambda: Nudge(SquaredError(), X, HUGE), "beta must be finite"),
    "target": (lambda: SquaredError(HUGE), "target must be a positive finite number"),
    "outputs": (lambda: SquaredError().encode(torch.tensor([0]), 10**12, torch.float32), "n_out must be at most"),
    "dtype": (lambda: SquaredError().encode(torch.tensor([0]), 3, "float32"), "dtype must be a torch.dtype"),
    "run": (lambda: write_run("run.h5", "run"), "run must be a Run"),
    "overrides": (lambda: train("hopfield-digits", overrides=0.1), "overrides must be a list"),
    "override": (lambda: train("hopfield-digits", overrides=[1]), "overrides must be a list"),
    "long path": (lambda: open_run("x" * 5000), "path must be the path of a file"),
    "n": (lambda: hw.OscillatorGraph(10**12, []), "n must be at most"),
    "spacing": (lambda: hw.FitzHughNagumoChain([4, 8, 3], spacing=1e-320), "spacing must lie within"),
    "array": (
        lambda: hw.HopfieldNetwork([4, 5, 3], device_full_scales=torch.ones(2)),
        "device_full_scales must be",
    ),
    "same": (lambda: explore(NET, X, 2, same=math.nan), "same must be a number"),
    "circuit": (lambda: hw.transient(True, 1.0), "circuit must be a Circuit"),
    "lines": (lambda: Nudge(SquaredError(), X, X.numpy()), "beta must be a number or a tensor"),
    "full_scales": (lambda: hw.map_pcn(mlp([4, 5, 3]), full_scales="x"), "full_scales must be 3 positive numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_things_of_another_kind_are_named(name: str) -> None:
    """AttributeErrors and OverflowErrors of some line far within tell a user nothing."""
    call, message = WRONG[name]
    with pytest.raises((InputError, TypeError), match=f"^Argument {message}") as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200
