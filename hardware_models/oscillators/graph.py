"""Phase oscillators on any graph: all-to-all, lattices, or a list of edges."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from physics_ep.blocks import State, all_finite
from physics_ep.errors import InputError, argument_error, is_real, require_count, require_seed, unknown_name
from physics_ep.overrides import require_physics
from physics_ep.placement import on_host
from physics_ep.system import Inputs

from .base import NEUTRAL, Oscillators, wrapped
from .graph_couplings import GraphCouplings
from .network import OscillatorNetwork
from .phase import GraphPhase

if TYPE_CHECKING:
    import networkx

GROUNDS = ("pin", "quotient")
MOST_JOINED = 20_000
"""Oscillators of the largest graph in which all are coupled: 200 million edges."""
MOST_NODES = 10**7
"""Oscillators of the largest graph, and its inputs."""
SPREAD = 0.1
"""Radians about the neutral phase over which free phases start: equal ones may rest where the energy is largest."""


class OscillatorGraph(Oscillators):
    """n phase oscillators coupled along the edges of a graph, on clamped inputs if there are any.

    The couplings act as a dense matrix or, where edges are few, by compiled loops over them: time and memory are
    then linear in their number. `all_to_all`, `lattice` and `from_networkx` draw usual graphs.

    Where neither inputs, local fields, pinned oscillators nor second-harmonic injection hold the phases, the energy
    does not change under a common rotation, and `ground` says what is done about it:

    * 'pin': oscillator 0 is held at phase 0 and is no variable. Equilibria are the same.
    * 'quotient': all are free, equilibria come as circles (`symmetries`), and outputs are counted from the
      oscillator `reference`.

    In either case phases are counted in the frame that rotates with the mean of the frequencies
    (`common_frequency`), in which alone the network can rest.

    Parameters
    ----------
    n : int
    edges : array of int (m, 2)
        Pairs of oscillators, each once.
    weights : array (m,), or float
        W, in coupling units. W > 0 draws phases together.
    n_inputs : int
        Inputs: with 0, x is of shape (B, 0).
    input_index : sequence of int, optional
        Oscillators that the inputs drive. Default: all that are not pinned.
    input_weights : array (k, n_inputs), optional
        Default: uniform in +-gain / sqrt(n_inputs).
    outputs : sequence of int, optional
        Oscillators that are read. Default: all that are not held.
    field : array (2, n), float or None
        Local fields, in-phase and quadrature; a number: quadrature fields of that strength (as in
        `OscillatorNetwork`). None: there are none.
    second_harmonic : float
    detuning : array (n,), optional
        Frequencies omega in the frame in which phases are counted, in coupling units.
    pins : mapping of int to float, optional
        Oscillators held at these phases, radians: references. They are no variables.
    ground : {'pin', 'quotient'}, optional
    reference : int
        Number of the oscillator whose phase the quotient leaves out.
    gain : float
    seed : int
    dense : bool, optional
        Default: from a tenth of all pairs on.
    **options
        readout, encoding, span, phase_bits of `Oscillators`.

    Attributes
    ----------
    common_frequency : float
        Mean frequency of an ungrounded network, taken out of its detuning; else 0.

    Raises
    ------
    InputError
        If an argument is not as above, or nothing holds the phases and no `ground` is named.

    Examples
    --------
    >>> import torch
    >>> from physics_ep import relax
    >>> pair = OscillatorGraph(2, [[0, 1]], 1.0, detuning=[0.5, -0.5], ground="quotient")
    >>> phases = relax(pair, torch.zeros(1, 0)).require().state[0]
    >>> round(float((phases[0, 0] - phases[0, 1]).sin()), 6)            # (omega_0 - omega_1) / 2 W
    0.5
    """

    couplings: GraphCouplings
    default_max_iterations = 5000
    layered = False

    def __init__(
        self,
        n: int,
        edges: Any,
        weights: Any = 1.0,
        *,
        n_inputs: int = 0,
        input_index: Sequence[int] | None = None,
        input_weights: Any = None,
        outputs: Sequence[int] | None = None,
        field: Any = None,
        second_harmonic: float = 0.0,
        detuning: Any = None,
        pins: Mapping[int, float] | None = None,
        ground: str | None = None,
        reference: int = 0,
        gain: float = 1.0,
        seed: int = 0,
        dense: bool | None = None,
        **options: Any,
    ) -> None:
        for name, value, least in (("n", n, 1), ("n_inputs", n_inputs, 0)):
            require_count(name, value, least, MOST_NODES)
        require_seed(seed)
        if ground is not None and ground not in GROUNDS:
            raise unknown_name("ground", ground, GROUNDS)
        if not is_real(gain):
            raise argument_error("gain", "be a finite number", gain)
        if pins is not None and not isinstance(pins, Mapping):
            raise argument_error("pins", "map oscillators to phases", type(pins).__name__)
        dtype = torch.get_default_dtype()
        pairs = checked_edges(edges, n)
        weight = values_of("weights", weights, (len(pairs),))
        fields = None if field is None else _fields(field, n)
        omega = None if detuning is None else values_of("detuning", detuning, (n,))
        pins = {checked_oscillator("pins", i, n): angle for i, angle in (pins or {}).items()}
        if not all(is_real(a) for a in pins.values()) or len(pins) >= n:
            raise argument_error("pins", "map some of the oscillators, not all, to finite phases", pins)
        grounded = bool(n_inputs or pins or second_harmonic) or fields is not None
        _check_ground(ground, grounded, pairs, n)
        common = 0.0
        if not grounded:
            if omega is not None:
                common = float(omega.mean())
                omega = omega - omega.mean()
            if ground == "pin":
                if n == 1:
                    raise argument_error("n", "be at least 2 with ground='pin', which holds one", n)
                pins = {0: 0.0}
        free = [i for i in range(n) if i not in pins]
        zero = checked_oscillator("reference", reference, n) if ground == "quotient" else None
        driven = checked_oscillators("input_index", free if input_index is None else input_index, n, pins)
        read = [i for i in free if i != zero] if outputs is None else outputs
        chosen = checked_oscillators("outputs", read, n, {*pins} if zero is None else {zero})
        drives = None
        if n_inputs:
            shape = (len(driven), n_inputs)
            if input_weights is None:
                generator = torch.Generator().manual_seed(seed)
                draw = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
                input_weights = gain / math.sqrt(n_inputs) * draw
            drives = values_of("input_weights", input_weights, shape)
        couplings = GraphCouplings(
            n,
            pairs,
            weight.to(dtype),
            input_index=driven,
            input_weight=None if drives is None else drives.to(dtype),
            local_field=None if fields is None else fields.to(dtype),
            pins=pins,
            dense=dense,
        )
        slots = torch.full((n,), -1).index_copy(0, couplings.free, torch.arange(len(free)))
        super().__init__(
            couplings,
            (n_inputs, len(free)),
            second_harmonic=second_harmonic,
            detuning=None if omega is None else [omega[couplings.free].to(dtype)],
            output_index=slots[chosen],
            **options,
        )
        self.n = n
        self.pins = pins
        self.zero = zero
        self.common_frequency = common

    # -- usual graphs -----------------------------------------------------------------------------------------

    @classmethod
    def all_to_all(
        cls,
        n_inputs: int,
        n: int,
        n_outputs: int,
        *,
        weights: Any = None,
        coupling: float = 0.5,
        field: Any = 1.0,
        seed: int = 0,
        **options: Any,
    ) -> OscillatorGraph:
        """Every oscillator coupled to every other; the last ones are read.

        Default weights are uniform, of such a size that the largest eigenvalue of their matrix is about `coupling`
        (Wigner 1958): well below the fields there is one equilibrium, well above there are very many.
        """
        require_count("n", n, 2, MOST_JOINED)
        if isinstance(n_outputs, bool) or not isinstance(n_outputs, int) or not 1 <= n_outputs <= n:
            raise argument_error("n_outputs", f"be an integer from 1 to {n}", n_outputs)
        edges = torch.triu_indices(n, n, 1).t()
        if weights is None:
            generator = torch.Generator().manual_seed(seed)
            draw = 2 * torch.rand(len(edges), generator=generator, dtype=torch.float64) - 1
            weights = coupling * math.sqrt(0.75 / n) * draw
        options = {"outputs": range(n - n_outputs, n), **options}
        return cls(n, edges, weights, n_inputs=n_inputs, field=field, seed=seed + 1, **options)

    @classmethod
    def lattice(
        cls, shape: int | Sequence[int], *, periodic: bool = True, weight: float = 1.0, **options: Any
    ) -> OscillatorGraph:
        """A chain, ring, or cubic lattice of any dimension, neighbours coupled; oscillators in row-major order."""
        sides = tuple(shape) if isinstance(shape, Sequence) else (shape,)
        if not sides or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sides):
            raise argument_error("shape", "be positive integers", shape)
        if math.prod(sides) > MOST_NODES:
            raise argument_error("shape", f"hold at most {MOST_NODES:,} oscillators", shape)
        numbers = np.arange(math.prod(sides)).reshape(sides)
        edges = []
        for axis, side in enumerate(sides):
            here = np.moveaxis(numbers, axis, 0)
            edges.append(np.stack([here[:-1].ravel(), here[1:].ravel()], 1))
            if periodic and side > 2:
                edges.append(np.stack([here[-1].ravel(), here[0].ravel()], 1))
        return cls(numbers.size, np.concatenate(edges), weight, **options)

    @classmethod
    def from_networkx(cls, graph: networkx.Graph, weight: str = "weight", **options: Any) -> OscillatorGraph:
        """A networkx graph, nodes in its order; edges without the attribute `weight` have 1."""
        if graph.is_directed() or graph.is_multigraph():
            raise argument_error("graph", "be undirected, with one edge a pair", type(graph).__name__)
        number = {node: i for i, node in enumerate(graph)}
        edges = [(number[a], number[b]) for a, b in graph.edges]
        weights = [float(values.get(weight, 1.0)) for _, _, values in graph.edges(data=True)]
        return cls(len(number), np.array(edges, np.int64).reshape(-1, 2), np.array(weights), **options)

    @classmethod
    def from_network(cls, network: OscillatorNetwork) -> OscillatorGraph:
        """Write a layered oscillator network as a graph, its oscillators numbered layer after layer.

        Parameters
        ----------
        network : OscillatorNetwork
            Its couplings as the device holds them (`weight_bits`), fields, frequencies and outputs go over.

        Returns
        -------
        OscillatorGraph
            A graph of the network's device and dtype; its state is the network's layers side by side.
        """
        require_physics(network, OscillatorNetwork, "network")
        device, network = network.device, on_host(network)
        layers = network.couplings.layers
        sizes = network.sizes[1:]
        starts = [0, *itertools.accumulate(sizes)]
        edges, weights = [], []
        for k, layer in enumerate(layers[1:]):
            grid = torch.cartesian_prod(torch.arange(sizes[k + 1]), torch.arange(sizes[k]))
            edges.append(grid + torch.tensor([starts[k + 1], starts[k]]))
            weights.append(layer.strength.detach().flatten())
        none = torch.zeros(0)
        return cls(
            starts[-1],
            torch.cat([torch.zeros(0, 2, dtype=torch.int64), *edges]),
            torch.cat([none, *weights]),
            n_inputs=network.sizes[0],
            input_index=range(sizes[0]),
            input_weights=layers[0].strength.detach(),
            outputs=range(starts[-2], starts[-1]),
            field=torch.cat([layer.field.detach() for layer in layers], 1),
            second_harmonic=network.second_harmonic,
            detuning=torch.cat([network.frequencies(k) for k in range(len(sizes))])
            if network.is_detuned(0)
            else None,
            readout=network.readout.name,
            encoding=network.encoding,
            span=network.span,
            phase_bits=network.phase_bits,
        ).to(device, network.dtype)

    # -- the contract -----------------------------------------------------------------------------------------

    def initial_state(self, x: torch.Tensor) -> State:
        """Phases about the neutral one, spread by the golden ratio so that no symmetry of the graph is one of
        the start.
        """
        count = torch.arange(1, self.sizes[1] + 1, dtype=torch.float64, device=self.device)
        spread = SPREAD * ((count * (math.sqrt(5) - 1)) % 2 - 1)
        return ((NEUTRAL + spread).to(self.dtype).expand(x.shape[0], -1).contiguous(),)

    def symmetries(self, state: State) -> tuple[State, ...]:
        """The common rotation, where nothing holds the phases."""
        return () if self.zero is None else ((torch.ones_like(state[0]),),)

    def difference(self, one: State, other: State) -> State:
        """Angles by which two sets of phases differ, in (-pi, pi], less the common rotation where nothing holds
        it.
        """
        apart = one[0] - other[0]
        if self.zero is None:
            return (wrapped(apart),)
        apart = wrapped(apart - apart[:, self.zero : self.zero + 1])
        return (wrapped(apart - apart.mean(1, keepdim=True)),)

    def outputs(self, state: State) -> torch.Tensor:
        read = state[0][:, self.output_index]
        return self.readout.of_phase(read if self.zero is None else read - state[0][:, self.zero : self.zero + 1])

    def phase(self, inputs: Inputs, origin: State | None = None, balanced: bool = False) -> GraphPhase:
        return GraphPhase(self, inputs, origin, balanced)

    # -- looking in -------------------------------------------------------------------------------------------

    @property
    def edges(self) -> torch.Tensor:
        """Pairs of oscillators that are coupled, (m, 2)."""
        return self.couplings.edges

    def phases(self, state: State) -> torch.Tensor:
        """Phases of all oscillators, (B, n), the pinned ones among them."""
        found = state[0].new_zeros(state[0].shape[0], self.n)
        found[:, self.couplings.free] = state[0]
        for i, angle in self.pins.items():
            found[:, i] = angle
        return found


def checked_edges(edges: Any, n: int) -> torch.Tensor:
    """Edges as int64 (m, 2); InputError unless each joins two of n oscillators, once."""
    try:
        pairs = torch.as_tensor(edges)
    except (TypeError, ValueError, RuntimeError):
        raise argument_error("edges", "be integers (m, 2)", type(edges).__name__) from None
    if pairs.numel() == 0:
        return torch.zeros((0, 2), dtype=torch.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.is_floating_point() or pairs.dtype == torch.bool:
        raise argument_error("edges", "be integers (m, 2)", f"{pairs.dtype} {tuple(pairs.shape)}")
    pairs = pairs.to(torch.int64)
    bad = ((pairs < 0) | (pairs >= n)).any(1) | (pairs[:, 0] == pairs[:, 1])
    if bool(bad.any()):
        raise argument_error("edges", f"join two different ones of {n} oscillators", pairs[bad][0].tolist())
    number, times = (pairs.amin(1) * n + pairs.amax(1)).unique(return_counts=True)
    if bool((times > 1).any()):
        twice = int(number[times > 1][0])
        raise argument_error("edges", "name each pair once", f"twice {[twice // n, twice % n]}")
    return pairs


def _check_ground(ground: str | None, grounded: bool, pairs: torch.Tensor, n: int) -> None:
    if grounded and ground is not None:
        must = "be None where inputs, fields, pins or second-harmonic injection hold the phases"
        raise argument_error("ground", must, repr(ground))
    if grounded:
        return
    if ground is None:
        raise InputError(
            "Argument ground must be 'pin' (oscillator 0 held at phase 0) or 'quotient' (phases counted from one "
            "oscillator), as no input, local field, pin or second-harmonic injection keeps all phases from turning "
            "together, but was None."
        )
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0].numpy(), pairs[:, 1].numpy())), shape=(n, n))
    parts = int(connected_components(links, directed=False, return_labels=False))
    if parts > 1:
        raise argument_error("edges", "join all oscillators where nothing else holds the phases", f"{parts} parts")


def values_of(name: str, given: Any, shape: tuple[int, ...]) -> torch.Tensor:
    """Finite numbers of a shape, in float64; one number stands for all."""
    try:
        values = torch.as_tensor(given, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError):
        raise argument_error(name, f"be numbers of shape {shape}", type(given).__name__) from None
    if values.ndim == 0:
        values = values.expand(shape)
    if values.shape != shape:
        raise argument_error(name, f"be one number or numbers of shape {shape}", tuple(values.shape))
    if not all_finite(values):
        raise argument_error(name, "be finite", "NaN or infinite entries")
    return values.clone()


def _fields(given: Any, n: int) -> torch.Tensor:
    """Local fields (2, n); one number is the quadrature component of all."""
    values = values_of("field", given, (2, n))
    if isinstance(given, int | float):
        values[0] = 0
    return values


def checked_oscillator(name: str, given: Any, n: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or not 0 <= given < n:
        raise argument_error(name, f"name oscillators from 0 to {n - 1}", given)
    return int(given)


def checked_oscillators(name: str, given: Sequence[int], n: int, held: Any) -> torch.Tensor:
    """Different oscillators that are not held, as an index."""
    if not isinstance(given, Iterable):
        raise argument_error(name, "be a sequence of oscillators", given)
    members = [checked_oscillator(name, i, n) for i in given]
    if len(set(members)) < len(members):
        raise argument_error(name, "name each oscillator once", members)
    taken = sorted(set(members) & set(held))
    if taken:
        raise argument_error(name, "leave out oscillators that are held or counted from", taken)
    return torch.tensor(members, dtype=torch.int64)
