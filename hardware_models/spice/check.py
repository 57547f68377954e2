"""Whether this package and ngspice find the same voltages and the same gradient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from physics_ep.blocks import State
from physics_ep.config import load_system
from physics_ep.cost import SquaredError
from physics_ep.equilibrium import NotConverged
from physics_ep.errors import argument_error, unknown_name
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.placement import require_room
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.registry import bundled, systems

from ..circuits.active import ActiveCircuit
from ..circuits.base import PartsCircuit
from ..circuits.circuit import Circuit
from ..netlists.parts import Parts
from ..netlists.subcircuits import PortDrive
from ..netlists.suffixes import SUFFIXES
from ..resistive.network import ResistiveNetwork
from .adjoint import adjoint_phases, netlist_method
from .examples import CircuitExamples, own_examples
from .ngspice import ngspice_operating_point
from .phases import contrast, ngspice_phases

NODE_NUMBERS = 100
"""Numbers that solving a circuit holds for each input and unit of an example."""
NETLISTS = Path(__file__).parents[1] / "netlists"
"""Netlists that come with the package."""
TIGHT = 1e-12, 1e-10
"""Residuals of the compared phases, relative to the system's scale; the second where rounding forbids the first."""
FREE = 1e-14
"""Amperes that may be missing at a node where only operating points are compared."""


@dataclass(frozen=True)
class CheckedCircuit:
    """A circuit with what its phases need.

    Attributes
    ----------
    title : str
    circuit : Circuit
    sources : float64 array (B, n_sources)
        Volts.
    targets : float64 array (B, n_outputs)
        Volts.
    conductance : float or None
        Conductance at the outputs, siemens; None: as the circuit says.
    drives : tuple of PortDrive or None
        What its sources are as a subcircuit; None: ports of their own.
    examples : CircuitExamples or None
        What the sources are the volts of; None: the sources' own values.
    ports : str
        What the volts at the ports are, in words.
    """

    title: str
    circuit: Circuit
    sources: np.ndarray
    targets: np.ndarray
    conductance: float | None = None
    drives: tuple[PortDrive, ...] | None = None
    examples: CircuitExamples | None = None
    ports: str = "volts"

    def solved(self) -> np.ndarray:
        """Voltages (B, n_nodes) of all nodes at the free operating points.

        Raises
        ------
        NotConverged
            If one was not found.
        """
        free = self.circuit.operating_point(self.sources, tolerance=FREE).require()
        return self.circuit.voltages(free.state, torch.from_numpy(self.sources)).numpy()

    def strength(self, beta: float | None) -> float:
        """A nudge's beta, or a hundredth of the conductance at the outputs where none is given; siemens."""
        if beta is None:
            if self.conductance is not None:
                return 0.01 * self.conductance
            return 0.01 * self.circuit.nudge_scale if self.circuit.has_energy else 1e-6
        if not 0 < beta < np.inf:
            raise argument_error("beta", "be positive and finite", beta)
        return beta


@dataclass(frozen=True)
class PhaseRow:
    """How node voltages of one phase compare with those of ngspice.

    Attributes
    ----------
    phase : str
    difference : float
        Largest difference of node voltages, volts.
    node : str
        The node of the largest difference.
    residual : float
        Largest current missing in our solution, amperes.
    """

    phase: str
    difference: float
    node: str
    residual: float


@dataclass(frozen=True)
class SpiceAgreement:
    """What came of a comparison.

    Attributes
    ----------
    rows : list of PhaseRow
    gradient : dict of str to float
        Relative error of ngspice's gradient by parameter: norm of the difference over the norm.
    beta : float
        Siemens; 0 where the circuit has no outputs.
    worst : float
        Volts.
    method : str
        What nudged phases followed.
    """

    rows: list[PhaseRow]
    gradient: dict[str, float]
    beta: float
    worst: float
    method: str = "energy"


def bundled_netlists() -> dict[str, Path]:
    """Name of each netlist that comes with the package (its file without .cir) to its path."""
    return {path.stem: path for path in sorted(NETLISTS.glob("*.cir"))}


def netlist_path(name: str) -> Path | None:
    """Path of a netlist file, or of a bundled netlist; None where `name` is neither."""
    path = bundled_netlists().get(name, Path(name))
    return path if path.suffix.lower() in SUFFIXES else None


def load_circuit(name: str) -> Circuit | None:
    """The circuit of a netlist file or of a bundled netlist; None where `name` is neither."""
    path = netlist_path(name)
    return None if path is None else Circuit.from_netlist(path)


def find_subject(
    name: str, seed: int = 0, batch: int = 2, weights: Path | None = None, *, data: bool = False
) -> CheckedCircuit:
    """A circuit by name, with random targets in +-0.5 V and, for systems, random inputs or those of their data.

    Parameters
    ----------
    name : str
        A netlist file, a bundled netlist, or a resistive network or a circuit as commands name systems.
    seed : int
    batch : int
        Examples; a netlist has one, its own sources.
    weights : Path, optional
        File of weights of a resistive network.
    data : bool
        Whether inputs are the first test examples, where the system has some (`examples.own_examples`).

    Raises
    ------
    InputError
        If there is no such circuit.
    """
    rng = np.random.default_rng(seed)
    circuit = load_circuit(name)
    drives, examples, ports = None, None, "volts"
    if circuit is None:
        known = {*systems(), *bundled(), *bundled_netlists()}
        if name not in known and not Path(name).suffix:
            raise unknown_name("SYSTEM", name, known)
        system = load_system(name, weights=weights, seed=seed)
        if isinstance(system, PartsCircuit):
            # All its sources are inputs here, whatever it learns from.
            circuit = Circuit(system.parts, outputs=system.output_names)
    if circuit is not None:
        sources = circuit.parts.group("voltage_source").values.T.reshape(1, -1)
    elif not isinstance(system, ResistiveNetwork):
        mapped = isinstance(system, PredictiveCodingNetwork)
        hint = ", or come with --substrate resistive or hopfield" if mapped else ""
        raise argument_error("SYSTEM", f"be a resistive network, a circuit or a netlist{hint}", repr(name))
    else:
        circuit, features = system.to_circuit(), system.sizes[0]
        require_room("batch", batch, system, torch.zeros(1, features), NODE_NUMBERS)
        if data:
            examples = own_examples(name, system, (features,), batch, seed)
            x = examples.x
        else:
            x = torch.from_numpy(rng.uniform(0, 1, (batch, features)))
        sources = system.circuit_inputs(x).detach().numpy()
        drives = tuple(PortDrive(f"in{k % features}", 1.0 if k < features else -1.0) for k in range(2 * features))
        ports = f"{system.gains[0]:g} V a unit of input k at in<k>"
    targets = rng.uniform(-0.5, 0.5, (len(sources), len(circuit.output_names)))
    return CheckedCircuit(name, circuit, sources, targets, drives=drives, examples=examples, ports=ports)


def check_agreement(
    subject: CheckedCircuit, beta: float | None = None, method: str | None = None
) -> SpiceAgreement:
    """Compare operating points of the free and both nudged phases, and the gradient by equilibrium propagation.

    Parameters
    ----------
    subject : CheckedCircuit
    beta : float, optional
        Siemens; default a hundredth of the conductance at the outputs.
    method : str, optional
        What nudged phases follow, here and in ngspice (`adjoint.netlist_method`). Default: 'energy' for circuits
        that have one, for others 'asymmetric' where their asymmetry is more than rounding.

    Returns
    -------
    SpiceAgreement
        Circuits without outputs have a free phase only. Those without an energy have no gradient by ngspice.

    Raises
    ------
    InputError
        If ngspice is absent, or no netlist can be nudged by the method.
    SpiceError
        If it fails.
    NotConverged
        If our own solution does not meet its tolerance.
    """
    circuit, parts = subject.circuit, subject.circuit.parts
    outputs = circuit.output_names
    chosen = netlist_method(circuit, subject.sources[:1], method)
    if not outputs:
        free = circuit.operating_point(subject.sources, tolerance=FREE).require()
        found = ngspice_operating_point(parts, subject.sources)
        table = np.stack([found[node] for node in parts.nodes], axis=1)
        ours = circuit.voltages(free.state, torch.from_numpy(subject.sources)).numpy()
        row = phase_row(parts, "free", ours, table, float(free.residual_si.max()))
        return SpiceAgreement([row], {}, 0.0, row.difference, chosen)
    beta = subject.strength(beta)
    phases, residuals, exact, held = _train(circuit, subject, beta, chosen)
    if isinstance(circuit, ActiveCircuit):  # branch currents, too, have a part in its gradient
        exact = {}
        x = torch.from_numpy(subject.sources)
        theirs = tuple(adjoint_phases(circuit, held, x, subject.targets, (0.0, beta, -beta), chosen))
    else:
        theirs = ngspice_phases(parts, outputs, subject.sources, subject.targets, beta)
    names = ("free", f"nudged +{beta:.3g} S", f"nudged -{beta:.3g} S")
    rows = [phase_row(parts, name, v, w, r) for name, v, w, r in zip(names, phases, theirs, residuals, strict=True)]
    errors = {}
    if exact:
        estimate = contrast(parts, outputs, theirs[1], theirs[2], beta)
        errors = {k: float(np.linalg.norm(estimate[k] - g) / np.linalg.norm(g)) for k, g in exact.items()}
    return SpiceAgreement(rows, errors, beta, max(row.difference for row in rows), chosen)


Solved = tuple[list[np.ndarray], list[float], dict[str, np.ndarray], State]


def _train(circuit: Circuit, subject: CheckedCircuit, beta: float, method: str) -> Solved:
    """Node voltages and residuals of the phases, the gradient, and the free state, by equilibrium propagation."""
    x, y = torch.from_numpy(subject.sources), torch.from_numpy(subject.targets)
    circuit.zero_grad()
    try:
        step = EquilibriumPropagation(SquaredError(), beta=beta, tolerance=TIGHT[0], method=method).backward(
            circuit, x, y
        )
    except NotConverged:
        step = EquilibriumPropagation(SquaredError(), beta=beta, tolerance=TIGHT[1], method=method).backward(
            circuit, x, y
        )
    phases = [circuit.voltages(e.state, x).numpy() for e in step.equilibria]
    residuals = [float(e.residual_si.max()) for e in step.equilibria]
    gradient = {name: p.grad.numpy().copy() for name, p in circuit.named_parameters() if p.grad is not None}
    circuit.zero_grad()
    return phases, residuals, gradient, step.equilibria[0].state


def phase_row(parts: Parts, phase: str, ours: np.ndarray, theirs: np.ndarray, residual: float) -> PhaseRow:
    """Find where two tables of node voltages (B, n_nodes), in volts, differ most, and how much."""
    difference = np.abs(ours - theirs)
    worst = np.unravel_index(int(difference.argmax()), difference.shape)
    return PhaseRow(phase, float(difference[worst]), parts.nodes[worst[1]], residual)
