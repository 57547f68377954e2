"""Trajectories in time of a free or a nudged phase, in the system's own time unit."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..blocks import State, require_finite
from ..energies import outputs_of
from ..errors import InputError, argument_error, is_real, unknown_name
from ..inference import differentiating
from ..nudging import Nudge, require_nudge
from ..physical_system import PhysicalSystem
from ..progress import SILENT, Progress, task
from ..relaxation.loop import check_state, fitted_nudge, new_phase, prepared, start_not_finite
from ..stillness import require_system
from ..storage.parts import TrajectoryWriter
from ..storage.trajectory import Recorder, Trajectory, TrajectoryRow
from ..weights import Weights
from .flows import choose_motion
from .integrators import TABLEAUS, Points, Tableau, TooLongStepsError, adaptive_steps, finite, fixed_steps
from .noise import STOCHASTIC, NoisyTableau, Splitting, noisy_steps, source_for
from .rest import (
    FURTHER,
    SPAN,
    STIFF,
    Floor,
    NotAtRestWarning,
    never_rests,
    of_nudge,
    points_to_rest,
    tolerance_of,
    unrested,
    unrested_start,
)
from .step_limits import check_steps

MOST_STEPS = 10**8
TICKS = 1000
"""In how many parts the duration is reported to a progress bar."""
METHODS: dict[str, Tableau | NoisyTableau | Splitting] = {**TABLEAUS, **STOCHASTIC}
"""Methods by name."""


@differentiating
def simulate(
    system: PhysicalSystem,
    x: torch.Tensor,
    duration: float | None = None,
    nudge: Nudge | None = None,
    start: State | None = None,
    *,
    steps: int | None = None,
    method: str | None = None,
    flow: str | None = None,
    temperature: float | None = None,
    generator: torch.Generator | None = None,
    mass: float = 1.0,
    friction: float = 1.0,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    every: int = 1,
    stop_when_settled: float | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | bool = SILENT,
    overwrite: bool = False,
) -> Trajectory:
    """Integrate the dynamics of a free or nudged phase.

    Parameters
    ----------
    system : EnergySystem or VectorField
    x : Tensor (B, ...)
    duration : float, optional
        Duration, in the system's `time_unit`. Without it the course goes on until it is at rest: until each
        example's residual is within `Trajectory.tolerance`, what `relax` asks for. It lasts 20 of the system's time
        constants at least. Beyond them, and where the equal steps of the default method are too long for what
        moves fastest, TR-BDF2 takes steps by `rtol` and `atol`, at most 1000, up to 1e9 time constants; fewer where
        rounding ends the residual's fall above the tolerance. With
        `steps`, at a temperature (noise never rests) and for inertia without friction it is 20 time constants,
        whatever the residual.
    nudge : Nudge, optional
    start : State, optional
        Default the system's initial state. Inertial flow starts with no velocity. A nudged phase should start at
        the end of a free one that is at rest.
    steps : int, optional
        Equal steps. Without it, methods that estimate their error choose their steps by `rtol` and `atol`, all
        others take 20 a `time_constant` of the system.
    method : str, optional
        Explicit: 'euler', 'heun', 'rk4' (default), 'bogacki_shampine', 'dormand_prince'. Implicit, for stiff
        systems: 'implicit_euler', 'tr_bdf2'. Of these bogacki_shampine (order 3), dormand_prince (5) and tr_bdf2
        (2) estimate their error. See `integrators.TABLEAUS`. With noise: 'euler_maruyama', 'stochastic_heun',
        'sra1' (default), 'leimkuhler_matthews', and for inertial flow 'baoab' (default there). See
        `noise.STOCHASTIC`.
    flow : {'gradient', 'skew', 'inertial', 'hopfield', 'rate'}, optional
        Default the system's own: gradient flow, tau_k ds_k/dt = -dF/ds_k until a bound stops it, unless it declares
        otherwise; skew-gradient flow, with the other sign for blocks that ascend, where it has `directions`.
        Inertial: m s_k'' = -dF/ds_k - friction tau_k s_k'; `Trajectory.internal` then holds the velocities.
        Networks of units (`HopfieldNetwork`, `ConvHopfieldNetwork`, `UnitGraph`) also have 'hopfield', the circuit
        of 1984, du/dt = -u + p with s = sigma(u) and drive p, whose u `Trajectory.internal` then holds; and 'rate',
        ds/dt = sigma(p) - s (`hardware_models.layers.flows`). All end in the same equilibria.
    temperature : float, optional
        T in the system's `energy_unit`, default its own (0 for most): adds noise sqrt(2 T tau_k) dW to
        tau_k ds_k (friction tau_k in place of tau_k for inertial flow), so that gradient and inertial flow sample
        exp(-F / T), and are reflected at bounds; as T goes to 0 they become the flows without noise. Other flows
        take none. `Trajectory.residual` is the force at each moment, which does not
        vanish; its mean does.
    generator : torch.Generator, optional
        Random generator of the noise, default one seeded with 0. Two runs whose generators were seeded alike, of
        the same batch, steps and method, get the same noise, step by step: the difference of a free and a nudged
        one is then smooth (common random numbers). A generator that goes on gives the second half of a run the
        noise that the whole would have had.
    mass, friction : float
        Mass, in energy unit * time unit^2 / state unit^2, and friction, in energy unit * time unit / state unit^2,
        of inertial flow.
    rtol, atol : float
        Error allowed to one step: atol + rtol * largest variable of the example; atol in the unit of the variables
        that are integrated (the state, or `Trajectory.internal`). The batch takes the steps of its most demanding
        example.
    every : int
        Keep the start, each step of which the number is a multiple of this, and the end.
    stop_when_settled : float, optional
        Stop as soon as the force of every example is under this fraction of its peak so far; 0.01 or less for a
        `Trajectory.settling_time`. Not with noise, which never settles.
    out : path, optional
        Run file RUN.h5 for a trajectory larger than memory: its rows go to RUN.h5.parts as they are computed, and
        become one file at the end. What is returned then is mapped from the file, not held in memory. Killed before
        the end, it leaves parts that `open_run` reads as the beginning of the trajectory; stopped by Ctrl-C, all
        of it up to then.
    progress : Progress
    overwrite : bool
        Let `out` replace a file that no simulation wrote.

    Returns
    -------
    Trajectory
        For equal steps, every = 1 and no early stop: steps + 1 points, the start among them. `Trajectory.at_rest`
        tells which examples have come to rest.

    Warns
    -----
    NotAtRestWarning
        If a course of no given duration and no noise stops before rest, with its residual; or if a nudged course
        starts where the free phase is not at rest.

    Raises
    ------
    InputError
        If an argument does not fit, the steps are too long for the dynamics (unstable at the start, see
        `step_limits`, or the state left the finite numbers), or `out` cannot be written. NoRoomError, a subclass,
        if memory or the disk cannot hold the trajectory: before it starts where its length is known, else when it
        is found out.
    """
    require_system(system)
    course = Integration(
        duration,
        steps=steps,
        asked=method,
        flow=flow,
        temperature=system.temperature if temperature is None else temperature,
        generator=generator,
        mass=mass,
        friction=friction,
        rtol=rtol,
        atol=atol,
        every=every,
        stop_when_settled=stop_when_settled,
    )
    simulation = Simulation(system, x, nudge, start, course)
    simulation.warn(stacklevel=4)
    name = "free" if nudge is None else "nudged"
    recorder = (
        Recorder(simulation.units, simulation.tolerance)
        if out is None
        else TrajectoryWriter(out, name, simulation.units, overwrite=overwrite, tolerance=simulation.tolerance)
    )
    simulation.expect(recorder)
    with recorder:
        simulation.record(recorder, progress)
        simulation.warn(stacklevel=4)
        return recorder.finish()


class Simulation:
    """A phase about to be followed in time, its arguments checked.

    Parameters
    ----------
    system, x, nudge, start
        The arguments of `simulate` of the same names.
    course : Integration

    Attributes
    ----------
    units : (str, str, str, str)
        Units of time, state, energy and internal variables.
    tolerance : float
        Residual within which an example is at rest; NaN at a temperature.
    duration : float
        Its duration; of one that waits for rest, `SPAN` time constants, which it lasts at least.
    waits : bool
        Whether it goes on until it is at rest.
    doubts : list of str
        What is to be said of a start that is not at rest, and of a course that stopped before rest.
    """

    def __init__(
        self, system: PhysicalSystem, x: torch.Tensor, nudge: Nudge | None, start: State | None, course: Integration
    ) -> None:
        require_nudge(nudge)
        course.check()
        self.course = course
        self.span = SPAN * system.time_constant
        self.duration = self.span if course.duration is None else course.duration
        self.method, self.count = course.method, course.count(system, self.duration)
        self.doubts: list[str] = []
        self.floor: Floor | None = None
        self._warned = 0
        self.weights = Weights(system)
        with torch.no_grad(), self.weights:
            require_finite(system)
            self.weights.still.check(x)
            inputs = prepared(system, x, {})
            if start is not None:
                check_state(system, start, x)
                if not finite(start):
                    raise start_not_finite()
            origin = system.initial_state(x) if start is None else start
            if nudge is not None:
                nudge = fitted_nudge(system, nudge, outputs_of(system, origin))
            phase = new_phase(system, inputs, {}, origin=origin).nudged(nudge)
            self.motion = choose_motion(phase, course.flow, course.temperature, course.mass, course.friction)
            self.begun = self.motion.start(tuple(torch.zeros_like(s) for s in phase.start()))
            if not finite(self.motion.velocity(self.begun)):
                must = f"lie where the force on {type(system).__name__} is finite (within its bounds, not on them)"
                raise argument_error("start", must, "the initial state" if start is None else "on a bound")
            self.waits = course.waits and not never_rests(self.motion)
            self.tolerance = math.nan if course.temperature else tolerance_of(phase)
            if self.count is not None:
                try:
                    check_steps(self.motion, self.begun, self.duration, self.count, self.method, course.name)
                except InputError as error:
                    if not (self.waits and course.asked is None):
                        raise of_nudge(error, phase) from None
                    self.method, self.count = STIFF, None
            if start is not None and nudge is not None and not course.temperature:
                free = choose_motion(phase.nudged(None), course.flow, 0.0, course.mass, course.friction)
                self._doubt(unrested_start(self.motion, self.begun, free))
        self.units = (system.time_unit, system.state_unit, system.energy_unit, self.motion.internal_unit)

    def expect(self, recorder: Recorder, times: int = 1) -> None:
        """Make sure that there is room for all rows, `times` over; raise NoRoomError if there is not.

        Steps chosen by tolerance, and runs that stop when settled, do not know their rows before; a recorder checks
        them as they come.
        """
        if self.count is None or self.course.stop_when_settled:
            return
        with torch.no_grad(), self.weights:
            moment = self.motion.observe(self.begun, self.motion.velocity(self.begun))
        recorder.expect(times * (1 + math.ceil(self.count / self.course.every)), TrajectoryRow(0.0, *moment))

    def record(self, recorder: Recorder, progress: Progress | bool = SILENT) -> State:
        """Go through the phase and record its points; return the last state."""
        settled, every, state = self.course.stop_when_settled, self.course.every, self.begun
        peak: torch.Tensor | None = None
        row: TrajectoryRow | None = None
        kept, rested, floored, further = True, False, False, 0
        stiff = self.count is None and self.method is not self.course.method
        with torch.no_grad(), self.weights:
            try:
                for time, w, velocity in _reported(self.points(), self.duration, progress):
                    moment = self.motion.observe(w, velocity)
                    row, state, residual = TrajectoryRow(time, *moment), moment.state, moment.residual
                    peak = residual if peak is None else torch.maximum(peak, residual)
                    done = settled is not None and bool((residual <= settled * peak).all())
                    if self.waits and time >= self.span * (1 - 1e-12):
                        rested = bool((residual <= self.tolerance).all())
                        self.floor = self.floor or Floor(self.motion)
                        floored = not rested and self.floor.see(w, velocity, residual)
                    # Steps within the duration are counted where they are made; those beyond it, and those of a
                    # stiff course, which `points_to_rest` makes from the start, here.
                    further += time > (0.0 if stiff else self.duration * (1 + 1e-12))
                    kept = further % every == 0 or done or rested or floored
                    if kept:
                        recorder.append(row)
                    if done or rested:
                        return state
                    if floored:
                        break
            except TooLongStepsError as error:
                raise of_nudge(error, self.motion.phase) from None
        assert row is not None
        if not kept:
            recorder.append(row)
        if self.course.duration is None and not self.course.temperature:
            self._doubt(unrested(self.motion, row.time, row.residual, self.tolerance, self._limit()))
        return state

    def points(self) -> Points:
        """The points of the phase; of one that waits for rest, up to where it waits no more."""
        course, motion, begun, method, count = self.course, self.motion, self.begun, self.method, self.count
        if not isinstance(method, Tableau):
            assert count is not None
            source = source_for(motion, method, begun, self.duration / count, course.temperature, course.generator)
            return noisy_steps(motion, begun, self.duration, count, course.every, method, source)
        rtol, atol = course.rtol, course.atol
        points: Points = iter(())
        if count is not None:
            points = fixed_steps(motion, begun, self.duration, count, course.every, method)
        elif self.method is course.method:
            points = adaptive_steps(motion, begun, self.duration, course.every, method, rtol, atol)
        if not self.waits:
            return points
        return points_to_rest(motion, begun, self.span, points, course.asked is None, rtol, atol)

    def warn(self, stacklevel: int) -> None:
        """Tell each of the doubts that have come up since the last call as a warning."""
        for doubt in self.doubts[self._warned :]:
            warnings.warn(doubt, NotAtRestWarning, stacklevel=stacklevel)
        self._warned = len(self.doubts)

    def _doubt(self, told: str) -> None:
        if told:
            self.doubts.append(told)

    def _limit(self) -> str:
        """Why the course stopped where it did, and what helps."""
        if never_rests(self.motion):
            return "Inertia without friction never rests: give a friction above 0."
        if self.floor is not None and self.floor.reached:
            return self.floor.words(self.begun[0].dtype)
        if not self.waits:
            return "Given steps end there: leave `steps` out, or give a duration with them."
        return (
            f"{FURTHER} steps of TR-BDF2 are taken at most, and none where no step is short enough: the system may "
            "have no rest (an oscillation); a duration lets it go on for longer."
        )


@dataclass(frozen=True)
class Integration:
    """What is to be integrated, and how; fields as the arguments of `simulate`, `asked` for its method.

    A duration of None is that until rest, or `SPAN` time constants where nothing rests (`waits`).
    """

    duration: float | None = None
    steps: int | None = None
    asked: str | None = None
    flow: str | None = None
    temperature: float = 0.0
    generator: torch.Generator | None = None
    mass: float = 1.0
    friction: float = 1.0
    rtol: float = 1e-6
    atol: float = 1e-9
    every: int = 1
    stop_when_settled: float | None = None

    @property
    def name(self) -> str:
        """Name of the integration method."""
        if self.asked is not None:
            return self.asked
        if self.temperature == 0:
            return "rk4"
        return "baoab" if self.flow == "inertial" else "sra1"

    @property
    def method(self) -> Tableau | NoisyTableau | Splitting:
        """The integration method as its table of coefficients."""
        return METHODS[self.name]

    @property
    def waits(self) -> bool:
        """Whether it goes on until the system is at rest, where it may come to rest."""
        return self.duration is None and self.steps is None and isinstance(self.method, Tableau)

    def check(self) -> None:
        """Raise InputError for a bad option."""
        if self.name not in METHODS:
            raise unknown_name("method", self.name, METHODS)
        for name in ("duration", "rtol", "atol", "mass"):
            value = getattr(self, name)
            if not (is_real(value) and value > 0) and (name, value) != ("duration", None):
                raise argument_error(name, "be a positive number", value)
        for name in ("temperature", "friction"):
            value = getattr(self, name)
            if not (is_real(value) and value >= 0):
                raise argument_error(name, "be 0 or a positive number", value)
        for name in ("steps", "every"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            if not whole and (name, value) != ("steps", None):
                raise argument_error(name, "be an integer of at least 1", value)
        settled = self.stop_when_settled
        if settled is not None and not (isinstance(settled, int | float) and 0 < settled < 1):
            raise argument_error("stop_when_settled", "be a number between 0 and 1", settled)
        if self.generator is not None and not isinstance(self.generator, torch.Generator):
            raise argument_error("generator", "be a torch.Generator", type(self.generator).__name__)
        self._check_method()

    def _check_method(self) -> None:
        method, inertial = self.method, self.flow == "inertial"
        if isinstance(method, Splitting) and not inertial:
            raise argument_error("flow", f"be 'inertial' for method {self.name!r}", self.flow)
        if isinstance(method, NoisyTableau) and method.averaged and inertial:
            raise argument_error("method", "be 'baoab' or another that knows velocities", repr(self.name))
        if self.temperature == 0:
            return
        if isinstance(method, Tableau):
            takes = [n for n, m in STOCHASTIC.items() if inertial or not isinstance(m, Splitting)]
            must = f"be one that takes noise ({', '.join(takes)}) at temperature {self.temperature:g}"
            raise argument_error("method", must, repr(self.name))
        if inertial and self.friction == 0:
            raise argument_error("friction", "be positive at a temperature, which acts through it", 0)
        if self.stop_when_settled is not None:
            must = f"be left out at temperature {self.temperature:g}, whose noise keeps the force from settling"
            raise argument_error("stop_when_settled", must, self.stop_when_settled)

    def count(self, system: PhysicalSystem, duration: float) -> int | None:
        """Number of equal steps in a duration; None for steps chosen by tolerance."""
        if self.steps is not None:
            return self.steps
        if isinstance(self.method, Tableau) and self.method.adaptive:
            return None
        if 20 * duration / system.time_constant > MOST_STEPS:
            raise argument_error(
                "duration",
                f"be within {MOST_STEPS // 20:.0e} time constants of {system.time_constant:g} {system.time_unit}, "
                "unless steps are given",
                f"{duration:g}",
            )
        return max(1, math.ceil(20 * duration / system.time_constant))


def _reported(points: Points, duration: float, progress: Progress | bool) -> Iterator[tuple[float, State, State]]:
    """The points, with word of how far they have come."""
    told = 0
    with task(progress, "simulating", TICKS) as advance:
        for point in points:
            due = min(TICKS, int(TICKS * point[0] / duration))
            if due > told:
                advance(due - told, time=point[0])
                told = due
            yield point
