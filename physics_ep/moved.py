"""Old module paths, which work for one release after a module has moved.

`import physics_ep.solvers` of a module that now lives elsewhere gives a thin module whose names are those of the
new one, and a `DeprecationWarning` that names both paths. Three things serve the old paths:

* a module that moved: a row of `MOVED`, read by a finder that Python asks last, after all others found nothing;
* a module whose name is now a folder: the folder's face (`faces.lazy`) looks into `NAMES` for what it does not
  promise;
* a module that stayed and gave names away: `moved_names(__name__)`, as the module's `__getattr__`.

Pickles that name an old path load, as unpickling imports modules by name. What is set on the thin module (by a
test's monkeypatch) stays on it and does not reach the new module.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Old module path to the new one. A name that is not in NAMES is looked up there.
MOVED: dict[str, str] = {
    "figures.automatic": "figures.gradients.automatic",
    "figures.circuit": "figures.hopfield.transients",
    "figures.clamping": "figures.gradients.clamping",
    "figures.conductances": "figures.resistive.conductances",
    "figures.dynamics": "figures.hopfield.dynamics",
    "figures.early_inference": "figures.hopfield.early_inference",
    "figures.in_situ": "figures.mapping.in_situ",
    "figures.locking": "figures.oscillators.locking",
    "figures.media": "figures.oscillators.media",
    "figures.oscillator_entries": "figures.oscillators.gradients",
    "figures.oscillator_gradients": "figures.oscillators.gradients",
    "figures.oscillator_mapping": "figures.mapping.oscillators",
    "figures.oscillator_pair": "figures.oscillators.pair",
    "figures.paired_unit": "figures.mapping.paired_unit",
    "figures.pcn_cosine": "figures.pcn.cosine",
    "figures.pcn_cost": "figures.pcn.cost",
    "figures.resistive_entries": "figures.catalogue",
    "figures.scaling": "figures.resistive.scaling",
    "figures.schematic": "figures.mapping.schematic",
    "figures.schemes": "figures.gradients.schemes",
    "figures.signature": "figures.mapping.signature",
    "figures.stepwise": "figures.gradients.stepwise",
    "figures.substrates": "figures.mapping.substrates",
    "figures.tolerance": "figures.mapping.tolerance",
    "figures.training": "figures.hopfield.training",
    "hardware_models.amplifiers": "hardware_models.mapping.amplifiers",
    "hardware_models.analog_phases": "hardware_models.analog.circuit",
    "hardware_models.branches": "hardware_models.netlists.topology",
    "hardware_models.circuit": "hardware_models.circuits.circuit",
    "hardware_models.circuit_graphs": "hardware_models.circuits.graphs",
    "hardware_models.circuit_layout": "hardware_models.circuits.layout",
    "hardware_models.circuit_phases": "hardware_models.circuits.phase",
    "hardware_models.circuit_power": "hardware_models.nodal.power",
    "hardware_models.circuit_transients": "hardware_models.nodal.transients",
    "hardware_models.co_contents": "hardware_models.circuits.co_content",
    "hardware_models.conductances": "hardware_models.resistive.conductances",
    "hardware_models.couplings": "hardware_models.layers.couplings",
    "hardware_models.crossbars": "hardware_models.devices.crossbars",
    "hardware_models.device_fields": "hardware_models.devices.fields",
    "hardware_models.device_presets": "hardware_models.devices.presets",
    "hardware_models.element_kernels": "hardware_models.circuits.kernels",
    "hardware_models.elements": "hardware_models.laws.elements",
    "hardware_models.factorizations": "hardware_models.circuits.factorizations",
    "hardware_models.fidelity": "hardware_models.mapping.fidelity",
    "hardware_models.fitzhugh_nagumo": "hardware_models.media.medium",
    "hardware_models.fitzhugh_nagumo_branches": "hardware_models.media.continuation",
    "hardware_models.fitzhugh_nagumo_fields": "hardware_models.media.fields",
    "hardware_models.fitzhugh_nagumo_phases": "hardware_models.media.phase",
    "hardware_models.fitzhugh_nagumo_pulses": "hardware_models.media.pulses",
    "hardware_models.fitzhugh_nagumo_recurrence": "hardware_models.media.recurrence",
    "hardware_models.fitzhugh_nagumo_saddle": "hardware_models.media.saddle",
    "hardware_models.fitzhugh_nagumo_solvers": "hardware_models.media.solvers",
    "hardware_models.hopfield_mapping": "hardware_models.mapping.hopfield",
    "hardware_models.in_situ": "hardware_models.mapping.in_situ",
    "hardware_models.ising": "hardware_models.oscillators.ising",
    "hardware_models.kernels": "hardware_models.hopfield.graph_kernels",
    "hardware_models.langevin_hopfield": "hardware_models.hopfield.langevin",
    "hardware_models.layered": "hardware_models.layers.layered",
    "hardware_models.maps": "hardware_models.layers.maps",
    "hardware_models.matrix_kernels": "hardware_models.circuits.matrix_kernels",
    "hardware_models.mirror_pairs": "hardware_models.oscillators.mirror_pairs",
    "hardware_models.mna": "hardware_models.nodal.points",
    "hardware_models.netlist": "hardware_models.netlists.netlist",
    "hardware_models.netlist_lines": "hardware_models.netlists.lines",
    "hardware_models.netlist_reader": "hardware_models.netlists.reader",
    "hardware_models.netlist_sources": "hardware_models.netlists.sources",
    "hardware_models.netlist_values": "hardware_models.netlists.values",
    "hardware_models.netlist_writer": "hardware_models.netlists.writer",
    "hardware_models.newton": "hardware_models.circuits.newton",
    "hardware_models.nodal_equations": "hardware_models.nodal.equations",
    "hardware_models.nodal_factors": "hardware_models.nodal.factors",
    "hardware_models.node_sums": "hardware_models.mapping.node_sums",
    "hardware_models.nodes": "hardware_models.resistive.nodes",
    "hardware_models.nudge_conductances": "hardware_models.nodal.nudges",
    "hardware_models.operating_points": "hardware_models.circuits.operating_point",
    "hardware_models.oscillator_graph": "hardware_models.oscillators.graph",
    "hardware_models.oscillator_graph_couplings": "hardware_models.oscillators.graph_couplings",
    "hardware_models.oscillator_graph_phases": "hardware_models.oscillators.phase",
    "hardware_models.oscillator_kernels": "hardware_models.oscillators.kernels",
    "hardware_models.oscillator_layers": "hardware_models.oscillators.layers",
    "hardware_models.oscillator_locking": "hardware_models.oscillators.locking",
    "hardware_models.oscillator_mapping": "hardware_models.mapping.oscillator",
    "hardware_models.oscillator_pairs_couplings": "hardware_models.mapping.oscillator_graph",
    "hardware_models.oscillator_pairs_graph": "hardware_models.mapping.oscillator_graph",
    "hardware_models.oscillator_phases": "hardware_models.oscillators.phase",
    "hardware_models.oscillator_units": "hardware_models.mapping.oscillator_units",
    "hardware_models.paired_circuit": "hardware_models.mapping.circuit",
    "hardware_models.paired_flows": "hardware_models.mapping.value_flow",
    "hardware_models.paired_lags": "hardware_models.mapping.lags",
    "hardware_models.paired_phases": "hardware_models.mapping.phase",
    "hardware_models.paired_solvers": "hardware_models.mapping.solvers",
    "hardware_models.parts": "hardware_models.netlists.parts",
    "hardware_models.phasors": "hardware_models.oscillators.phasors",
    "hardware_models.power": "hardware_models.analog.power",
    "hardware_models.pulse_fit": "hardware_models.devices.pulse_fit",
    "hardware_models.pulses": "hardware_models.devices.pulses",
    "hardware_models.readouts": "hardware_models.oscillators.phasors",
    "hardware_models.reduction": "hardware_models.circuits.reduction",
    "hardware_models.resistive_circuit": "hardware_models.resistive.network",
    "hardware_models.resistive_mapping": "hardware_models.mapping.resistive",
    "hardware_models.resistive_pairs_circuit": "hardware_models.mapping.resistive_parts",
    "hardware_models.resistive_phases": "hardware_models.resistive.phase",
    "hardware_models.spice_check": "hardware_models.spice.check",
    "hardware_models.spice_pairs": "hardware_models.spice.mapped",
    "hardware_models.spice_phases": "hardware_models.spice.phases",
    "hardware_models.transient_steps": "hardware_models.nodal.steps",
    "hardware_models.transients": "hardware_models.analog.steps",
    "hardware_models.unit_graph": "hardware_models.hopfield.graph",
    "hardware_models.waveforms": "hardware_models.netlists.waveforms",
    "hardware_models.wires": "hardware_models.devices.wires",
    "physics_ep.augmentation": "physics_ep.data.augmentation",
    "physics_ep.backprop": "physics_ep.estimators.backprop",
    "physics_ep.branches": "physics_ep.landscape.branches",
    "physics_ep.cifar": "physics_ep.data.cifar",
    "physics_ep.contrastive": "physics_ep.estimators.coupled_learning",
    "physics_ep.datasets": "physics_ep.data.datasets",
    "physics_ep.distributed": "physics_ep.ranks",
    "physics_ep.estimator": "physics_ep.estimators.propagation",
    "physics_ep.files": "physics_ep.storage.files",
    "physics_ep.flows": "physics_ep.dynamics.flows",
    "physics_ep.idx": "physics_ep.data.idx",
    "physics_ep.image_folders": "physics_ep.data.image_folders",
    "physics_ep.imagenet32": "physics_ep.data.imagenet32",
    "physics_ep.images": "physics_ep.data.images",
    "physics_ep.integrators": "physics_ep.dynamics.integrators",
    "physics_ep.krylov": "physics_ep.relaxation.krylov",
    "physics_ep.metrics": "physics_ep.runs.metrics",
    "physics_ep.motion": "physics_ep.dynamics.motion",
    "physics_ep.optimization": "physics_ep.runs.optimization",
    "physics_ep.phase": "physics_ep.system",
    "physics_ep.photographs": "physics_ep.data.photographs",
    "physics_ep.predictive_coding.activation": "physics_ep.predictive_coding.activations",
    "physics_ep.predictive_coding.diodes": "physics_ep.predictive_coding.activations",
    "physics_ep.predictive_coding.equilibration": "physics_ep.predictive_coding.solvers",
    "physics_ep.predictive_coding.phases": "physics_ep.predictive_coding.phase",
    "physics_ep.preparation": "physics_ep.runs.preparation",
    "physics_ep.resuming": "physics_ep.runs.resuming",
    "physics_ep.simulation": "physics_ep.runs.phases",
    "physics_ep.solvers": "physics_ep.relaxation.solvers",
    "physics_ep.sources": "physics_ep.data.batches",
    "physics_ep.stability": "physics_ep.landscape.stability",
    "physics_ep.step": "physics_ep.estimators.step",
    "physics_ep.step_limits": "physics_ep.dynamics.step_limits",
    "physics_ep.stochastic": "physics_ep.dynamics.noise",
    "physics_ep.stochastic_chains": "physics_ep.estimators.chains",
    "physics_ep.stochastic_propagation": "physics_ep.estimators.thermal",
    "physics_ep.store": "physics_ep.storage.run_file",
    "physics_ep.training": "physics_ep.runs.training",
    "physics_ep.trajectories": "physics_ep.storage.trajectory",
    "physics_ep.trust_region": "physics_ep.relaxation.newton",
    "validation.early_inference": "validation.theory.early_inference",
    "validation.early_runs": "validation.theory.early_inference",
    "validation.exact_training": "validation.experiments.exact_training",
    "validation.in_situ": "validation.experiments.in_situ",
    "validation.mapping_limits": "validation.theory.mapping_limits",
    "validation.noise_theory": "validation.theory.noise",
    "validation.stepwise": "validation.theory.stepwise",
    "validation.substrates": "validation.experiments.substrates",
    "validation.sweep_plan": "validation.sweeps.plan",
    "validation.sweep_points": "validation.sweeps.points",
    "validation.sweep_store": "validation.sweeps.store",
    "validation.sweep_workers": "validation.sweeps.workers",
    "validation.tolerance_rows": "validation.sweeps.table",
    "validation.tolerance_sweep": "validation.sweeps.tolerances",
    "validation.tolerance_table": "validation.sweeps.table",
}

# Old module path to {name: module that has it now}. A module of MOVED has here the names that went to another file
# than the rest; a module that is now a folder, or that stayed and lost names, has every such name. A name that
# changed has "module:new name".
NAMES: dict[str, dict[str, str]] = {
    "figures.gradients": {
        **dict.fromkeys(
            [
                "CLEAR_OF_FLOOR",
                "DRAWS",
                "ErrorCurve",
                "ErrorCurves",
                "ErrorPanel",
                "FIT",
                "P",
                "SCHEMES",
                "draw_errors",
                "draw_row",
                "estimate_error",
                "estimator_error",
                "fitted_slope",
                "precision_error",
                "stability_limit",
            ],
            "figures.gradients.errors",
        ),
    },
    "figures.mapping": {
        **dict.fromkeys(
            [
                "CASES",
                "DEPTHS",
                "DepthCosts",
                "EXAMPLES",
                "GAINS",
                "GAIN_NAMES",
                "INSTANCES",
                "MISMATCH",
                "PUBLISHED",
                "PUBLISHED_SMALL",
                "RESOLUTION",
                "SMALLEST",
                "WIDTH",
                "depth_costs",
                "draw_depth_costs",
            ],
            "figures.mapping.depth",
        ),
    },
    "figures.oscillator_entries": {
        "OSCILLATOR_FIGURES": "figures.catalogue",
        "BRIEF": "figures.oscillators.phases",
    },
    "figures.oscillators": {
        **dict.fromkeys(
            [
                "HIDDEN_SHOWN",
                "PhasesOnCircle",
                "REACHED",
                "TOLERANCE",
                "Turning",
                "draw_phases",
                "phases_on_circle",
            ],
            "figures.oscillators.phases",
        ),
    },
    "figures.pcn": {
        **dict.fromkeys(
            [
                "BETA",
                "EnergyCourses",
                "EnergyCurve",
                "EnergyPanel",
                "ITERATIONS",
                "SOLVERS",
                "WEAK_BETA",
                "draw_energy",
                "energy_courses",
                "largest_response",
                "unconverged",
            ],
            "figures.pcn.energy",
        ),
        **dict.fromkeys(
            ["BATCH", "dense_network", "predictive_network", "tight", "trained_network", "vgg_network"],
            "figures.pcn.networks",
        ),
    },
    "figures.resistive": {
        **dict.fromkeys(
            ["CLASSES", "KINDS", "STEP_ERROR", "TOLERANCE", "resistive_error", "resistive_relaxation"],
            "figures.resistive.relaxation",
        ),
    },
    "hardware_models.amplifiers": {
        "erring": "hardware_models.mapping.board",
    },
    "hardware_models.analog": {
        **dict.fromkeys(
            ["AnalogHopfieldCircuit", "FARAD", "OHM", "VOLT", "analog_hopfield", "positive"],
            "hardware_models.analog.circuit",
        ),
    },
    "hardware_models.circuit_layout": {
        "Prepared": "hardware_models.circuits.layout:PreparedCircuit",
    },
    "hardware_models.device_fields": {
        **dict.fromkeys(["RULES", "parse_field", "rule_of"], "hardware_models.devices.model"),
    },
    "hardware_models.devices": {
        **dict.fromkeys(
            [
                "AMPLIFIERS",
                "COMMON",
                "DIODES",
                "DeviceModel",
                "IMPERFECTIONS",
                "OSCILLATORS",
                "PULSES",
                "RAILS",
                "RESISTORS",
                "parse_field",
            ],
            "hardware_models.devices.model",
        ),
        **dict.fromkeys(["chosen_device", "preset"], "hardware_models.devices.presets"),
    },
    "hardware_models.factorizations": {
        "Dense": "hardware_models.circuits.factorizations:DenseFactor",
        "Factor": "hardware_models.circuits.factorizations:MatrixFactor",
    },
    "hardware_models.fitzhugh_nagumo": {
        "Prepared": "hardware_models.media.phase:PreparedMedium",
    },
    "hardware_models.fitzhugh_nagumo_solvers": {
        "SkewFlow": "hardware_models.media.solvers:MediumFlow",
    },
    "hardware_models.hopfield": {
        "counts": "hardware_models.arrays",
        **dict.fromkeys(["ConvHopfieldNetwork", "HopfieldNetwork"], "hardware_models.hopfield.network"),
    },
    "hardware_models.kernels": {
        **dict.fromkeys(
            [
                "Array",
                "CACHE",
                "COUPLINGS",
                "UNITS",
                "cache_folder",
                "compiled_difference",
                "config",
                "difference",
                "inner",
                "kernel",
                "pair_energy",
                "potential",
                "response",
                "scalar_clip",
                "slope",
                "slope_difference",
                "switch",
                "weight_slope_difference",
            ],
            "hardware_models.laws.compiled",
        ),
    },
    "hardware_models.laws": {
        **dict.fromkeys(
            [
                "COUPLINGS",
                "Coupling",
                "CouplingFunctions",
                "Factor",
                "Function",
                "X",
                "hopfield_coupling",
                "identity_factor",
            ],
            "hardware_models.laws.couplings",
        ),
        **dict.fromkeys(
            ["INFINITY", "UNITS", "Unit", "UnitFunctions", "hard_sigmoid", "linear", "logistic", "tanh"],
            "physics_ep.units",
        ),
    },
    "hardware_models.mapping": {
        **dict.fromkeys(
            ["Mapped", "NotRealisable", "SETTLED", "SUBSTRATES", "held", "map_pcn", "substrate_class"],
            "hardware_models.mapping.mapped",
        ),
    },
    "hardware_models.maps": {
        **dict.fromkeys(
            ["POOL", "Route", "channels_first", "channels_last", "images_of", "pixels_first", "rows_of"],
            "physics_ep.maps",
        ),
        "unpooled": "physics_ep.maps:placed",
    },
    "hardware_models.node_sums": {
        **dict.fromkeys(["at_virtual_grounds", "thermal_currents"], "hardware_models.mapping.board"),
    },
    "hardware_models.operating_points": {
        **dict.fromkeys(
            ["RELATIVE", "TOLERANCE", "active_point", "relaxed_point"], "hardware_models.circuits.circuit"
        ),
    },
    "hardware_models.oscillators": {
        **dict.fromkeys(
            ["ENCODINGS", "NEUTRAL", "Oscillators", "check_bits", "wrapped"], "hardware_models.oscillators.base"
        ),
        **dict.fromkeys(["OscillatorNetwork", "ising_oscillator"], "hardware_models.oscillators.network"),
    },
    "hardware_models.paired_circuit": {
        **dict.fromkeys(["Arrays", "Loads", "NotRealisable", "SETTLED", "loaded"], "hardware_models.mapping.board"),
    },
    "hardware_models.paired_flows": {
        "Values": "hardware_models.mapping.board",
        "Course": "hardware_models.mapping.value_flow:ValueCourse",
    },
    "hardware_models.paired_phases": {
        "CircuitPhase": "hardware_models.mapping.phase:PairedPhase",
    },
    "hardware_models.paired_solvers": {
        "Settled": "physics_ep.predictive_coding.phase",
    },
    "hardware_models.readouts": {
        "Readout": "hardware_models.oscillators.phasors:PhaseReadout",
    },
    "hardware_models.resistive": {
        **dict.fromkeys(["DIODES", "ResistiveNetwork", "ones_like_row"], "hardware_models.resistive.network"),
        "Prepared": "hardware_models.resistive.phase:PreparedNodes",
    },
    "hardware_models.resistive_phases": {
        "NodeMotion": "hardware_models.resistive.phase:ResistiveMotion",
    },
    "hardware_models.spice": {
        **dict.fromkeys(
            [
                "ACCURATE",
                "ACCURATE_TRANSIENT",
                "Plot",
                "SpiceError",
                "alterations",
                "find_ngspice",
                "ngspice_operating_point",
                "ngspice_transient",
                "node_voltages",
                "read_raw",
                "run_ngspice",
                "simulator_lines",
                "source_table",
            ],
            "hardware_models.spice.ngspice",
        ),
    },
    "hardware_models.transient_steps": {
        "Point": "hardware_models.nodal.steps:TransientPoint",
    },
    "hardware_models.transients": {
        "Parts": "hardware_models.analog.steps:AnalogParts",
    },
    "physics_ep.cifar": {
        "Source": "physics_ep.data.cifar:FoundSet",
    },
    "physics_ep.dynamics": {
        **dict.fromkeys(
            ["METHODS", "MOST_STEPS", "Simulation", "TICKS", "simulate"], "physics_ep.dynamics.simulation"
        ),
        "Course": "physics_ep.dynamics.simulation:Integration",
    },
    "physics_ep.equilibrium": {
        "masked": "physics_ep.blocks",
    },
    "physics_ep.image_folders": {
        "Parts": "physics_ep.data.image_folders:ImageSet",
    },
    "physics_ep.integrators": {
        "Advance": "physics_ep.dynamics.integrators:StepEnd",
    },
    "physics_ep.krylov": {
        "Step": "physics_ep.relaxation.krylov:QuadraticStep",
    },
    "physics_ep.landscape": {
        **dict.fromkeys(
            ["Basins", "averaged", "explore", "mean_outputs", "relax_from_many", "repeated"],
            "physics_ep.landscape.exploration",
        ),
    },
    "physics_ep.phase": {
        **dict.fromkeys(["derivative", "largest"], "physics_ep.blocks"),
    },
    "physics_ep.predictive_coding.layers": {
        **dict.fromkeys(["DenseLink", "POOL", "POOLINGS", "Route", "picked", "placed"], "physics_ep.maps"),
    },
    "physics_ep.predictive_coding.network": {
        "ForwardPass": "physics_ep.predictive_coding.forward",
    },
    "physics_ep.predictive_coding.phases": {
        "Course": "physics_ep.predictive_coding.phase:Displacements",
    },
    "physics_ep.predictive_coding.responses": {
        "Responses": "physics_ep.predictive_coding.responses:FreeResponse",
    },
    "physics_ep.preparation": {
        "settled": "physics_ep.runs.preparation:with_arguments",
    },
    "physics_ep.registry": {
        **dict.fromkeys(["ROOT", "SIBLINGS", "hiding_file"], "physics_ep.entries"),
    },
    "physics_ep.relaxation": {
        **dict.fromkeys(["flat", "narrowed", "unflat"], "physics_ep.blocks"),
        "known_solvers": "physics_ep.config",
        **dict.fromkeys(
            [
                "PATIENCE_AT_ROUNDING",
                "SOLVERS",
                "check_cost",
                "check_nudge",
                "check_state",
                "new_phase",
                "phase_tolerance",
                "prepared",
                "relax",
                "rounding",
                "solve",
            ],
            "physics_ep.relaxation.loop",
        ),
    },
    "physics_ep.solvers": {
        **dict.fromkeys(["flat", "keep", "narrowed", "unflat"], "physics_ep.blocks"),
        "gmres": "physics_ep.relaxation.krylov",
        "SOLVERS": "physics_ep.relaxation.loop",
        **dict.fromkeys(["NewtonKrylov", "trust_region"], "physics_ep.relaxation.newton"),
    },
    "physics_ep.step": {
        **dict.fromkeys(["mirror_gap", "noise_floors"], "physics_ep.estimators.contrasts"),
    },
    "physics_ep.stochastic": {
        "Source": "physics_ep.dynamics.noise:NoiseSource",
    },
    "physics_ep.store": {
        **dict.fromkeys(["load_weights", "run_attributes", "system_of"], "physics_ep.runs.preparation"),
        "open_run": "physics_ep.storage.opening",
    },
    "physics_ep.training": {
        "StepLike": "physics_ep.estimators.step",
    },
    "physics_ep.trajectories": {
        **dict.fromkeys(
            ["PART_BYTES", "PART_SECONDS", "TrajectoryWriter", "free_bytes", "merge", "parts_folder", "read_parts"],
            "physics_ep.storage.parts",
        ),
        "stored": "physics_ep.storage.run_file",
        "Point": "physics_ep.storage.trajectory:TrajectoryRow",
    },
    "validation.benchmarks.paper_training": {
        "Course": "validation.benchmarks.paper_training:RuleTraining",
    },
    "validation.early_runs": {
        "Course": "validation.theory.early_inference:EarlyRuns",
    },
    "validation.stepwise": {
        "Course": "validation.theory.stepwise:StepwiseEstimates",
    },
}


def install() -> None:
    """Have Python ask the table for modules that it finds nowhere else; a second call changes nothing."""
    if FINDER not in sys.meta_path:
        sys.meta_path.append(FINDER)


def moved_names(module: str) -> Callable[[str], Any]:
    """A module's `__getattr__` (PEP 562) that serves the names that `NAMES` has for it, each with one warning.

    Write `if not TYPE_CHECKING: __getattr__ = moved_names(__name__)`, so that type checkers still report a misspelt
    name.

    Parameters
    ----------
    module : str
        The module's own `__name__`; it must be in `sys.modules`, as it is while its file runs.
    """
    owner = sys.modules[module]

    def __getattr__(name: str) -> Any:  # noqa: N807
        home = NAMES.get(module, {}).get(name)
        if home is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name, obj=owner)
        value = _named(home, name)
        _warn(f"{module}.{name} is now {_path(home, name)}")
        setattr(owner, name, value)
        return value

    return __getattr__


class OldPaths:
    """Finds modules under the old paths of `MOVED`.

    The base classes of `importlib.abc` would bring nothing but an import that takes as long as this package's own.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What to load under an old path; None for any other. Nothing is imported yet, and nothing warns."""
        if fullname not in MOVED:
            return None
        return ModuleSpec(fullname, _Signpost(), origin=f"moved to {MOVED[fullname]}")  # type: ignore[arg-type]


class _Signpost:
    """Makes the thin module of an old path, and warns."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Python's own empty module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the old module with a way to the new ones, and warn where the user's line imports it."""
        old = module.__name__
        new, others = MOVED[old], NAMES.get(old, {})
        default = importlib.import_module(new)
        elsewhere = [f"{name} is now {_path(home, name)}" for name, home in sorted(others.items())]
        _warn("; ".join([f"{old} is now {new}", *elsewhere]))

        def __getattr__(name: str) -> Any:  # noqa: N807
            # Python's own marks of a module (__file__, __path__, __wrapped__) are not the new module's to give.
            if not (name.startswith("__") and name.endswith("__")):
                if name in others:
                    return _named(others[name], name)
                if hasattr(default, name):
                    return getattr(default, name)
            raise AttributeError(f"module {old!r} (now {new!r}) has no attribute {name!r}", name=name, obj=module)

        public = getattr(default, "__all__", None) or [name for name in vars(default) if not name.startswith("_")]
        names = sorted({*public, *others})
        vars(module).update(
            __doc__=f"Old path of `{new}`.", __all__=names, __getattr__=__getattr__, __dir__=lambda: list(names)
        )


FINDER = OldPaths()


def _named(home: str, name: str) -> Any:
    """What a row of `NAMES` leads to."""
    module, _, new = home.partition(":")
    return getattr(importlib.import_module(module), new or name)


def _path(home: str, name: str) -> str:
    """The dotted path of the same, for people."""
    module, _, new = home.partition(":")
    return f"{module}.{new or name}"


def _warn(message: str) -> None:
    """Warn at the line that asked for an old path, outside of importlib and of the files that serve faces.

    A fixed `stacklevel` would not do: between the user's line and this file stand no frames at all (unpickling), or
    some of importlib (`import_module`, `from package import name`).
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _serves_imports(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    warnings.warn_explicit(
        f"{message}; the old path goes with the next release",
        DeprecationWarning,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__", "<unknown>"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _serves_imports(module: str) -> bool:
    """Whether a frame of this module is only on the way from the user's line to the warning."""
    return module in {__name__, f"{__package__}.faces"} or module.partition(".")[0] in {
        "importlib",
        "_frozen_importlib",
    }
