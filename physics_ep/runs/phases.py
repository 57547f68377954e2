"""A free phase and the nudged one that follows it, in time, on real examples, kept in a run file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import torch

from ..config import RUN, Config
from ..data.datasets import load_dataset
from ..dynamics.simulation import Integration, Simulation
from ..energies import outputs_of
from ..errors import argument_error
from ..nudging import Nudge
from ..placement import require_room, resolve_device, resolve_dtype, work_in
from ..progress import SILENT, Progress
from ..registry import files
from ..relaxation.loop import fitted_nudge
from ..storage.opening import open_run
from ..storage.outputs import writing
from ..storage.parts import TrajectoryWriter
from ..storage.trajectory import Recorder, Trajectory
from .preparation import beta_of, new_system, run_attributes, with_arguments, with_dtype
from .stand_ins import stand_ins


@dataclass(frozen=True)
class Phases:
    """Trajectories of a free phase and of the nudged phase after it.

    Attributes
    ----------
    free, nudged : Trajectory
        The nudged phase starts where the free one ended.
    beta : float
        Nudging strength.
    energy_meaning : str
        What the number called energy is, in words.
    doubts : tuple of str
        In words: a phase that stopped before rest, though it was given no duration; a nudged phase that starts
        where the free one had not come to rest.
    cells : str
        Which cells hold the weights, in a line; empty: none.
    examples_told : str
        What examples were drawn, in a line, for a system whose config names no data and that takes no digits.
    """

    free: Trajectory
    nudged: Trajectory
    beta: float
    energy_meaning: str = ""
    doubts: tuple[str, ...] = ()
    cells: str = ""
    examples_told: str = ""

    def figures(self) -> dict[str, Any]:
        """Settling times (None: not settled by the end), energies and last residuals of each example; how long each
        phase lasts, and the residual that counts as rest (None: not told, as of noise)."""
        return {
            "beta": self.beta,
            "duration": float(self.free.time[-1]),
            "time_unit": self.free.time_unit,
            "energy_unit": self.free.energy_unit,
            "energy_meaning": self.energy_meaning,
            **({"cells": self.cells} if self.cells else {}),
            **({"examples": self.examples_told} if self.examples_told else {}),
            "phases": {
                name: {
                    "settling_time": [None if math.isnan(t) else t for t in phase.settling_time.tolist()],
                    "first_energy": phase.energy[0].tolist(),
                    "last_energy": phase.energy[-1].tolist(),
                    "last_residual": phase.residual[-1].tolist(),
                    "duration": float(phase.time[-1]),
                    "tolerance": None if math.isnan(phase.tolerance) else phase.tolerance,
                    "at_rest": None if math.isnan(phase.tolerance) else phase.at_rest.tolist(),
                }
                for name, phase in (("free", self.free), ("nudged", self.nudged))
            },
        }


def simulate_phases(
    config: Config,
    *,
    out: str | os.PathLike[str] | None = None,
    duration: float | None = None,
    beta: float | None = None,
    examples: int = 4,
    steps: int | None = None,
    every: int = 1,
    method: str | None = None,
    flow: str | None = None,
    temperature: float | None = None,
    data: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    seed: int | None = None,
    progress: Progress | bool = SILENT,
    overwrite: bool = False,
) -> Phases:
    """Simulate a free and then a nudged phase of a config's system on the first test examples of its data.

    A system whose config names no data, and that does not take the digits, gets random inputs and targets of its
    own outputs (`Phases.examples_told`).

    Parameters
    ----------
    config : Config
    out : path, optional
        Run file for the trajectories, written in parts as `simulate` does: interrupted, it leaves what there is.
    duration : float, optional
        Duration of each phase, in the system's time unit. Default: as `simulate` has it, until the phase is at
        rest, and 20 of the system's time constants at least.
    beta : float, optional
        Nudging strength; default the config's, or 0.1 of the system's `nudge_scale` where that is 'auto'.
    examples : int
    steps, every, method, flow, temperature
        The arguments of `simulate` of the same names; the noise is seeded with the config's seed, and goes on from
        phase to phase.
    data, device, dtype, seed
        Instead of the config's.
    progress : Progress
    overwrite : bool
        Let `out` replace a file that something else wrote.

    Returns
    -------
    Phases

    Warns
    -----
    NotAtRestWarning
        With each of `Phases.doubts`.

    Raises
    ------
    InputError
        If an argument does not fit; nothing has been written then.
    """
    with writing("physics_ep.simulate_phases", overwrite=overwrite) as call:
        config = with_arguments(config, data, device, dtype, seed)
        path = None if out is None else call.claim("out", out)
        if beta is not None and (not math.isfinite(beta) or beta == 0):
            raise argument_error("beta", "be finite and not 0", beta)
        system = new_system(config)
        config = with_dtype(config, system)
        brings = config.system.name == RUN or config.system.name in files().values()
        own = getattr(system, "examples", None) if data is None and brings else None
        told = ""
        drawn = own is None and data is None and "data" not in config.model_fields_set
        made = stand_ins(system, examples, config.training.seed) if drawn else None
        if made is not None:
            own, n_out, told = made
        elif own is None:
            held = load_dataset(config.data)
            own, n_out = (held.test_x, held.test_y), held.n_outputs
        else:
            n_out = system.outputs(system.initial_state(own[0][:1])).shape[1]
            if config.system.name != RUN:
                examples = min(examples, len(own[0]))
        if not 1 <= examples <= len(own[0]):
            raise argument_error("examples", f"be from 1 to the {len(own[0])} there are", examples)
        place = resolve_device(config.training.device)
        x, labels = own[0][:examples].to(place, resolve_dtype(config.training.dtype)), own[1][:examples].to(place)
        system.to(x.device, x.dtype)
        work_in(system, config.training.dtype)
        require_room("examples", examples, system, x[:1])
        if beta is None:
            beta = beta_of(config, system)
        cost = config.ep.new_cost()
        nudge = Nudge(cost, cost.encode(labels, n_out, x.dtype), beta)
        with torch.no_grad():  # what does not fit is told before the free phase
            nudge = fitted_nudge(system, nudge, outputs_of(system, system.initial_state(x)))
        course = Integration(
            duration,
            steps=steps,
            every=every,
            asked=method,
            flow=flow,
            temperature=system.temperature if temperature is None else temperature,
            generator=torch.Generator(x.device).manual_seed(config.training.seed),
        )
        phase = Simulation(system, x, None, None, course)
        if path is None:
            recorder = Recorder(phase.units, phase.tolerance)
        else:
            attributes = run_attributes(config, "simulation", beta=beta)
            weights = system.state_dict()
            recorder = TrajectoryWriter(path, "free", phase.units, attributes, weights, tolerance=phase.tolerance)
        phase.expect(recorder, times=2)
        with recorder:
            end = phase.record(recorder, progress)
            second = Simulation(system, x, nudge, end, course)
            free = recorder.begin("nudged", second.units, second.tolerance)
            second.record(recorder, progress)
            nudged = recorder.finish()
        for one in (phase, second):
            one.warn(stacklevel=3)
        if path is not None:
            free = open_run(path, verify=False).trajectories["free"]
        assert free is not None
        doubts = (*phase.doubts, *second.doubts)
        return Phases(free, nudged, beta, system.energy_meaning, doubts, getattr(system, "cells_told", ""), told)
