"""Phase oscillators with one-way couplings, phase lags and trainable natural frequencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from physics_ep.blocks import State
from physics_ep.equilibrium import Status
from physics_ep.errors import argument_error, is_real, require_count, require_seed, unknown_name
from physics_ep.keywords import answering
from physics_ep.physical_system import Inputs
from physics_ep.vector_field import FieldPhase, VectorField

from .graph import GROUNDS, MOST_NODES, checked_oscillator, checked_oscillators, values_of
from .phasors import READOUTS

if TYPE_CHECKING:
    import networkx


class DirectedOscillators(VectorField):
    """n phase oscillators with directed couplings that lag (Sakaguchi and Kuramoto 1986).

        dphi_i/dt = omega_i + (U x)_i + sum over edges j -> i of W_ij sin(phi_j - phi_i - alpha_ij)

    A locked state turns at one frequency Omega, which depends on all parameters, and is found in the frame that
    turns with it. Nothing else holds the phases: `ground` says what is done about the common rotation.

    * 'pin': phases are counted from the oscillator `reference`, whose own phase is no variable.
    * 'quotient': all phases are variables, and the mean of their velocities is taken out; the cost must not change
      under a common rotation.

    Either way the displacements that EP contrasts sum to zero over all oscillators, as they must where the locked
    frequency follows the parameters.

    Parameters
    ----------
    n : int
    edges : array of int (m, 2)
        (source, target), each once; both directions of a pair are two edges.
    weights, lags : array (m,), or float
        W, in coupling units; alpha, in radians.
    frequencies : array (n,), or float
        omega, in coupling units.
    n_inputs : int
        Number of inputs; with 0, x is of shape (B, 0).
    input_weights : array (n, n_inputs), optional
        U, coupling units per unit of x. Default: uniform in +-gain / sqrt(n_inputs).
    outputs : sequence of int, optional
        Oscillators that are read. Default: all but the reference.
    readout : {'phase', 'sin', 'cos'}
        What is read of an oscillator: phi_i less the reference's phase where it is pinned, else phi_i; or its sine
        or cosine.
    ground : {'pin', 'quotient'}
    reference : int
    train : sequence of str
        Those of 'weight', 'frequency', 'lag' and 'input_weight' that are trained.
    gain : float
    seed : int

    Raises
    ------
    InputError
        If an argument is not as above, or the edges leave oscillators apart.

    Examples
    --------
    >>> import torch
    >>> from physics_ep import relax
    >>> pair = DirectedOscillators(2, [[1, 0]], 1.0, frequencies=[0.5, 0.0], readout="sin", reference=1)
    >>> round(float(pair.outputs(relax(pair, torch.zeros(1, 0)).require().state)), 4)      # (omega_0 - omega_1) / W
    0.5
    """

    weight: torch.nn.Parameter
    frequency: torch.nn.Parameter
    lag: torch.nn.Parameter
    input_weight: torch.nn.Parameter
    sources: torch.Tensor
    targets: torch.Tensor
    free: torch.Tensor
    output_index: torch.Tensor

    state_unit = "rad"
    time_unit = "inverse coupling units"
    residual_unit = "coupling units"
    multistable = True
    default_max_iterations = 5000

    def __init__(
        self,
        n: int,
        edges: Any,
        weights: Any = 1.0,
        *,
        lags: Any = 0.0,
        frequencies: Any = 0.0,
        n_inputs: int = 0,
        input_weights: Any = None,
        outputs: Sequence[int] | None = None,
        readout: str = "phase",
        ground: str = "pin",
        reference: int = 0,
        train: Sequence[str] = ("weight", "frequency", "lag", "input_weight"),
        gain: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (("n", n, 2), ("n_inputs", n_inputs, 0)):
            require_count(name, value, least, MOST_NODES)
        require_seed(seed)
        if not is_real(gain):
            raise argument_error("gain", "be a finite number", repr(gain))
        if ground not in GROUNDS:
            raise unknown_name("ground", str(ground), GROUNDS)
        if readout not in READOUTS:
            raise unknown_name("readout", str(readout), READOUTS)
        pairs = directed_edges(edges, n)
        dtype = torch.get_default_dtype()
        drawn = input_weights
        if drawn is None:
            generator = torch.Generator().manual_seed(seed)
            drawn = (
                gain
                / math.sqrt(max(n_inputs, 1))
                * (2 * torch.rand(n, n_inputs, generator=generator, dtype=torch.float64) - 1)
            )
        given = {
            "weight": values_of("weights", weights, (len(pairs),)),
            "frequency": values_of("frequencies", frequencies, (n,)),
            "lag": values_of("lags", lags, (len(pairs),)),
            "input_weight": values_of("input_weights", drawn, (n, n_inputs)),
        }
        for name in train:
            if name not in given:
                raise unknown_name("train", str(name), given)
        for name, values in given.items():
            self.register_parameter(name, torch.nn.Parameter(values.to(dtype), requires_grad=name in train))
        self.n, self.ground = n, ground
        self.zero = checked_oscillator("reference", reference, n)
        pinned = {self.zero} if ground == "pin" else set()
        free = [i for i in range(n) if i not in pinned]
        read = [i for i in range(n) if i != self.zero] if outputs is None else outputs
        chosen = checked_oscillators("outputs", read, n, pinned)
        self.register_buffer("sources", pairs[:, 0], persistent=False)
        self.register_buffer("targets", pairs[:, 1], persistent=False)
        self.register_buffer("free", torch.tensor(free), persistent=False)
        self.register_buffer("output_index", chosen, persistent=False)
        self.readout = READOUTS[readout]
        self.angles = readout == "phase"
        self.example_shape = (n_inputs,)

    @property
    def strongest_pull(self) -> float:
        """Largest velocity, in coupling units, that the others can give an oscillator."""
        with torch.no_grad():
            pull = self.weight.new_zeros(self.n).index_add(0, self.targets, self.weight.abs())
            return float(pull.max()) or 1.0

    # Outputs are numbers of size one, whatever they change by at the start: phases that are all 0 hide cosines.
    residual_scale = nudge_scale = strongest_pull

    @classmethod
    def from_networkx(
        cls,
        graph: networkx.Graph | networkx.DiGraph,
        weight: str = "weight",
        lag: str = "lag",
        frequency: str = "frequency",
        **options: Any,
    ) -> DirectedOscillators:
        """A networkx graph, nodes in its order; an edge (a, b) acts on b, and one of an undirected graph on both.

        Parameters
        ----------
        graph : networkx.Graph or networkx.DiGraph
        weight, lag : str
            Attributes of edges; edges without them have 1 and 0.
        frequency : str
            Attribute of nodes; nodes without it have 0.
        **options
            Further arguments of the constructor.
        """
        if graph.is_multigraph():
            raise argument_error("graph", "have one edge a pair and direction", type(graph).__name__)
        number = {node: i for i, node in enumerate(graph)}
        edges, weights, lags = [], [], []
        for a, b, values in graph.edges(data=True):
            ends = (number[a], number[b])
            for pair in (ends,) if graph.is_directed() else (ends, ends[::-1]):
                edges.append(pair)
                weights.append(float(values.get(weight, 1.0)))
                lags.append(float(values.get(lag, 0.0)))
        omega = [float(values.get(frequency, 0.0)) for _, values in graph.nodes(data=True)]
        pairs = np.array(edges, np.int64).reshape(-1, 2)
        options = {"frequencies": omega, "lags": np.array(lags), **options}
        return cls(len(number), pairs, np.array(weights), **options)

    def phases(self, state: State) -> torch.Tensor:
        """Phases of all oscillators, (B, n), the pinned one among them at 0."""
        if self.ground == "quotient":
            return state[0]
        (free,) = state
        whole = free.new_zeros(len(free), self.n)
        return whole.index_copy(1, self.free, free)

    def velocities(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """dphi/dt of all oscillators, (B, n), in coupling units, in the frame in which frequencies are counted."""
        phi = self.phases(state)
        pull = self.weight * torch.sin(phi[:, self.sources] - phi[:, self.targets] - self.lag)
        alone = self.frequency + x @ self.input_weight.T
        return alone.index_add(1, self.targets, pull)

    def locked_frequency(self, state: State, x: torch.Tensor) -> torch.Tensor:
        """Omega of each example, (B,), at a locked state: the velocity that all share."""
        return self.velocities(state, x).mean(1)

    def force(self, state: State, x: torch.Tensor) -> State:
        speed = self.velocities(state, x)
        if self.ground == "quotient":
            return (speed - speed.mean(1, keepdim=True),)
        return (speed[:, self.free] - speed[:, self.zero : self.zero + 1],)

    def initial_state(self, x: torch.Tensor) -> State:
        return (x.new_zeros(len(x), len(self.free), dtype=self.dtype),)

    def outputs(self, state: State) -> torch.Tensor:
        return self.readout.of_phase(self.phases(state)[:, self.output_index])

    def symmetries(self, state: State) -> tuple[State, ...]:
        return ((torch.ones_like(state[0]),),) if self.ground == "quotient" else ()

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> LockedPhase:
        return LockedPhase(self, inputs, origin, balanced)


DRIFT = 1e-3
"""Residual of a free phase that has not locked: smaller ones are an end that rounding or the budget has made."""


class LockedPhase(FieldPhase):
    """One relaxation of `DirectedOscillators`: a free phase far from any locked state has not locked."""

    def verdict(self, z: State, residual: torch.Tensor) -> Status | None:
        free = self.origin is None and bool(residual.isfinite().all())
        return Status.NOT_LOCKED if free and bool((residual > DRIFT).any()) else None


def directed_edges(edges: Any, n: int) -> torch.Tensor:
    """Edges (source, target) as int64 (m, 2); InputError unless each joins two oscillators, once a direction."""
    try:
        pairs = torch.as_tensor(edges)
    except (TypeError, ValueError, RuntimeError):
        raise argument_error("edges", "be integers (m, 2)", type(edges).__name__) from None
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.is_floating_point() or pairs.dtype == torch.bool:
        raise argument_error("edges", "be integers (m, 2)", f"{pairs.dtype} {tuple(pairs.shape)}")
    pairs = pairs.to(torch.int64)
    bad = ((pairs < 0) | (pairs >= n)).any(1) | (pairs[:, 0] == pairs[:, 1])
    if bool(bad.any()):
        raise argument_error("edges", f"join two different ones of {n} oscillators", pairs[bad][0].tolist())
    number, times = (pairs[:, 0] * n + pairs[:, 1]).unique(return_counts=True)
    if bool((times > 1).any()):
        twice = int(number[times > 1][0])
        raise argument_error("edges", "name each direction of a pair once", f"twice {[twice // n, twice % n]}")
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0].numpy(), pairs[:, 1].numpy())), shape=(n, n))
    parts = int(connected_components(links, directed=False, return_labels=False))
    if parts > 1:
        raise argument_error("edges", "join all oscillators, which share one frequency", f"{parts} parts")
    return pairs


@answering
def directed_oscillators(
    n: int,
    edges: list[list[int]] | None = None,
    couplings: list[float] | float = 1.0,
    *,
    degree: int | None = None,
    lags: list[float] | float = 0.0,
    frequencies: list[float] | float = 0.0,
    n_inputs: int = 0,
    outputs: list[int] | None = None,
    readout: str = "sin",
    ground: str = "pin",
    reference: int = 0,
    train: list[str] | None = None,
    gain: float = 1.0,
    seed: int = 0,
) -> DirectedOscillators:
    """Build `DirectedOscillators` from what a config can say: numbers and lists of them.

    Parameters
    ----------
    n : int
        Number of oscillators.
    edges : list of [source, target], optional
        Couplings that there are; each acts on its target.
    couplings : list of float, or float
        Weights of the edges.
    degree : int, optional
        Where no edges are given: a ring, and so many further edges into each oscillator, drawn by `seed`.
    lags, frequencies, n_inputs, outputs, readout, ground, reference, train, gain, seed
        Arguments of `DirectedOscillators` of the same names; all that can be trained is trained by default.

    Returns
    -------
    DirectedOscillators

    Raises
    ------
    InputError
        If an argument is not as that class takes it, or neither edges nor a degree is given, or both are.
    """
    if (edges is None) == (degree is None):
        raise argument_error("edges", "be given, or degree in their place", f"{edges} with degree {degree}")
    if edges is None:
        edges = random_edges(n, degree, seed)
    more = {} if train is None else {"train": tuple(train)}
    return DirectedOscillators(
        n,
        edges,
        couplings,
        lags=lags,
        frequencies=frequencies,
        n_inputs=n_inputs,
        outputs=outputs,
        readout=readout,
        ground=ground,
        reference=reference,
        gain=gain,
        seed=seed,
        **more,
    )


def random_edges(n: int, degree: Any, seed: int) -> list[list[int]]:
    """Edges [source, target] of a ring of n oscillators and of `degree` more into each, drawn by a seed."""
    if isinstance(degree, bool) or not isinstance(degree, int) or not 0 <= degree <= n - 2:
        raise argument_error("degree", f"be an integer from 0 to {n - 2}", degree)
    generator = np.random.default_rng(seed)
    ring = [[(i - 1) % n, i] for i in range(n)]
    others = (
        [int(j), i]
        for i in range(n)
        for j in generator.choice([j for j in range(n) if j not in (i, (i - 1) % n)], degree, replace=False)
    )
    return [*ring, *others]
