"""Vortices of the XY model on square lattices."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from hardware_models import OscillatorGraph
from hardware_models.oscillators.vortices import vortex_count, vortex_pair, windings
from physics_ep import relax, simulate
from physics_ep.errors import InputError


@pytest.fixture(autouse=True)
def _float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def random_phases(n: int, seed: int = 0, batch: int = 1) -> torch.Tensor:
    return 20 * math.pi * torch.rand((batch, n), generator=torch.Generator().manual_seed(seed)) - 10 * math.pi


def test_windings_sum_to_zero_on_a_torus() -> None:
    """Each bond has two plaquettes: a sign or an index that is wrong leaves a sum. A count is even with it."""
    found = windings(random_phases(7 * 9, batch=40), (7, 9))
    assert found.shape == (40, 7, 9)
    assert (found.sum((1, 2)) == 0).all()
    assert found.abs().max() == 1
    # Phases a half turn apart, where a difference may be taken either way, are counted alike on both sides.
    halves = math.pi * torch.randint(0, 2, (40, 63), generator=torch.Generator().manual_seed(1))
    assert (windings(halves.double(), (7, 9)).sum((1, 2)) == 0).all()


def test_a_third_of_the_plaquettes_of_random_phases_wind() -> None:
    """Three differences of independent phases are independent and even in [-pi, pi], and the fourth closes them: a
    winding is their sum over 2 pi, rounded, and P(|U_1 + U_2 + U_3| > 1/2) = 1/3 (Irwin and Hall)."""
    n = 317**2
    share = float(vortex_count(random_phases(n), (317, 317))) / n
    assert share == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / n))


def test_a_pair_is_found_where_it_was_put() -> None:
    """A transposed lattice, or a shift by one, puts vortices elsewhere; whole turns must not count."""
    phases = vortex_pair((12, 20), (3.5, 4.5), (8.5, 15.5))
    whole_turns = 2 * math.pi * torch.randint(-3, 4, phases.shape, generator=torch.Generator().manual_seed(0))
    for shown in (phases, phases + whole_turns, phases.float()):
        found = windings(shown, (12, 20), periodic=False)
        assert found.shape == (11, 19)
        assert found.nonzero().tolist() == [[3, 4], [8, 15]]
        assert (int(found[3, 4]), int(found[8, 15])) == (1, -1)


def test_energy_of_a_pair_grows_with_the_logarithm_of_its_distance() -> None:
    """Twice as far apart costs 2 pi W ln 2 (Kosterlitz and Thouless 1973), by the lattice's own energy."""
    side, weight = 193, 0.7
    lattice = OscillatorGraph.lattice((side, side), periodic=False, weight=weight, ground="quotient")
    middle = side // 2 - 0.5
    energies = []
    for distance in (8, 16, 32):
        pair = vortex_pair((side, side), (middle, middle - distance / 2), (middle, middle + distance / 2))
        energies.append(float(lattice.energy((pair[None],), torch.zeros(1, 0)).detach()))
    for near, far in itertools.pairwise(energies):
        assert far - near == pytest.approx(2 * math.pi * weight * math.log(2), rel=0.03)


@pytest.mark.full
def test_lattice_of_a_hundred_thousand_loses_vortices_in_pairs() -> None:
    """Descent on 317 x 317 oscillators: the energy falls, nine in ten vortices meet an antivortex, none vanishes
    alone."""
    shape = (317, 317)
    lattice = OscillatorGraph.lattice(shape, ground="quotient")
    x = torch.zeros(1, 0)
    start = lattice.random_state(x, torch.Generator().manual_seed(0))
    counts, energies = [], []
    for iterations in (10, 30, 100):
        found = relax(lattice, x, start=start, solver="gradient_flow", max_iterations=iterations)
        found_windings = windings(lattice.phases(found.state), shape)
        assert int(found_windings.sum()) == 0
        counts.append(int(found_windings.abs().sum()))
        energies.append(float(lattice.energy(found.state, x).detach()))
    assert counts[0] > counts[1] > counts[2] > 0
    assert counts[-1] < 0.1 * int(vortex_count(lattice.phases(start), shape))
    assert energies[0] > energies[1] > energies[2] > -2 * 317**2


@pytest.mark.full
def test_cooling_leaves_few_vortices() -> None:
    """Langevin dynamics above the temperature of Kosterlitz and Thouless (0.89 W) hold many vortices; on the way
    far below it their number falls, and nearly none is left."""
    shape, x = (32, 32), torch.zeros(4, 0)
    lattice = OscillatorGraph.lattice(shape, ground="quotient")
    draws = torch.Generator().manual_seed(0)
    state = lattice.random_state(x, draws)
    counts = {}
    for temperature in (1.5, 1.0, 0.7, 0.4, 0.1):
        course = simulate(
            lattice,
            x,
            15.0,
            start=state,
            temperature=temperature,
            steps=150,
            every=150,
            generator=draws,
            method="euler_maruyama",
        )
        state = tuple(s[-1] for s in course.state)
        counts[temperature] = float(vortex_count(lattice.phases(state), shape).double().mean())
    assert counts[1.5] > 0.1 * 32**2
    assert counts[0.1] < 0.05 * counts[1.5]
    assert counts[0.1] <= counts[0.4] <= counts[1.0] <= counts[1.5]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shape": (4, 5)}, "phases"),
        ({"shape": (18,)}, "shape"),
        ({"shape": (2, 9)}, "shape"),
        ({"shape": (3.0, 6)}, "shape"),
        ({"phases": torch.full((18,), math.nan)}, "phases"),
        ({"phases": torch.zeros(18, dtype=torch.int64)}, "phases"),
        ({"phases": [0.0] * 18}, "phases"),
    ],
)
def test_what_is_no_lattice_is_refused(change, told) -> None:
    with pytest.raises(InputError, match=f"Argument {told} must"):
        windings(**{"phases": torch.zeros(18), "shape": (3, 6), **change})
