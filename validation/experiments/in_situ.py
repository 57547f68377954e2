"""Learning on the device beside ideal training that is written into the same device afterwards.

One recipe (a training config), three errors for each instance of a device: of the network trained ideally; of that
network mapped onto the instance; of a network that learned on the instance by pulses, from the same initial weights
and batches. Where the last is lower than the second, learning went around what the cells err.

Both are on one instance: the same cells, amplifiers and full scales, those of the trained network. What a cell at
g_max weighs is not the same: written arrays use their range for the weights that they get, learning ones have room.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hardware_models.devices.model import DeviceModel, as_compared
from hardware_models.devices.systems import OnDevice
from hardware_models.mapping.board import mapped_to
from hardware_models.mapping.in_situ import InSitu
from hardware_models.mapping.mapped import NotRealisable, check_rails, device_of, map_pcn, substrate_class
from physics_ep import relax
from physics_ep.config import Config, load_config
from physics_ep.data.batches import epoch_seed
from physics_ep.data.datasets import Dataset
from physics_ep.data.given import arrays_of
from physics_ep.equilibrium import NotConverged
from physics_ep.errors import REPEATS, InputError, argument_error, require_count
from physics_ep.estimators.propagation import EquilibriumPropagation, NegativeNudgeError
from physics_ep.estimators.step import Step
from physics_ep.placement import resolve_device, resolve_dtype
from physics_ep.predictive_coding import PredictiveCodingNetwork
from physics_ep.progress import SILENT, Progress, task
from physics_ep.runs.metrics import classification_error
from physics_ep.runs.optimization import build_optimizer, build_scheduler, clip_gradients, step_scheduler
from physics_ep.runs.preparation import Data, completed, dataset_of, new_system, with_arguments
from physics_ep.runs.resuming import EXAMPLES, digest_of
from physics_ep.storage.opening import open_run
from physics_ep.storage.outputs import as_asked, claim, writing
from physics_ep.storage.run_file import Quantity, Run, environment, write_run
from physics_ep.system import EnergySystem
from physics_ep.tabular import Tabular

from ..sweeps.plan import BASE, IDEAL, Point, device_at, planned

KIND = "in-situ training"
HEADROOM = 4.0
"""Weight that arrays can hold over the largest initial one: trained weights grow to about that."""
CALIBRATION = 200
"""Training examples whose activities in the trained network set full scales."""
QUANTITIES = {
    "ideal": ("fraction", "test error of the network trained without a device"),
    "mapped": ("fraction", "test error of that network on the device instance"),
    "learned": ("fraction", "test error after learning on the instance"),
    "pulses": ("1", "pulses spent, a cell"),
    "refreshes": ("1", "pairs written anew, a pair"),
    "skipped": ("fraction", "training examples left out for want of an equilibrium"),
    "unconverged": (
        "examples",
        "test examples without equilibrium, which count as misclassified, mapped and learned",
    ),
    "mapped_states": ("fraction", "test examples that have a free state, of the network that was written"),
    "learned_states": ("fraction", "the same after learning"),
    "free_states": ("fraction", "training examples whose free phase has settled, over all steps of learning"),
    "nudged_states": ("fraction", "training examples whose free and nudged phases have all settled"),
}
"""Name to units and description. Files of earlier releases have no shares of states, which are NaN then."""


class LearningInterrupted(KeyboardInterrupt):
    """Raised by Ctrl-C; the file holds the instances that are complete, and the message tells how to resume."""


@dataclass(frozen=True, repr=False)
class InSituTable(Tabular):
    """Test errors of networks that learned on devices, and of those written into them.

    Attributes
    ----------
    plan : tuple of (str, Point)
        Substrate, and place in the sweep.
    values : dict of str to ndarray (P, R)
        The quantities of `QUANTITIES`, of each point's instances; NaN where not measured yet, or refused.
    config : dict
    refused : dict of (int, int) to str
        Places in the values of instances that could not hold the trained network, or what learned on them: why.
    """

    plan: tuple[tuple[str, Point], ...]
    values: dict[str, np.ndarray]
    config: dict[str, Any]
    refused: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """One dict a point: substrate, field, value, the mean of each quantity over the instances that learned, and
        how many these are. Where none did, the ideal error is the mean of all.
        """
        found = []
        for k, (substrate, point) in enumerate(self.plan):
            learned = np.isfinite(self.values["learned"][k])
            of = learned if learned.any() else np.full_like(learned, True)
            means = {name: _mean(v[k][of]) for name, v in self.values.items()}
            told = {"substrate": substrate, "field": point.field, "value": point.value}
            found.append({**told, **means, "instances": int(learned.sum())})
        return found

    def words(self) -> list[str]:
        """What was swept on which substrates."""
        plain = self.config["config"]["system"]["name"]
        names = dict.fromkeys(name for name, _ in self.plan)
        told = ", ".join(f"the system {name}" if name == plain else mapped_to(name) for name in names)
        return [f"{len(self.plan)} points", told]

    def records(self) -> list[dict[str, Any]]:
        """One dict a point: substrate, field, value, and the mean of each quantity over the instances."""
        return self.rows()

    def shown(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of a table for people."""
        columns = ["substrate", "device", "ideal", "mapped", "learned", "pulses a cell", "skipped"]
        found = []
        for row in self.rows():
            errors = ["" if row[name] is None else f"{row[name]:.2%}" for name in ("ideal", "mapped", "learned")]
            spent = "" if row["pulses"] is None else f"{row['pulses']:.2g}"
            lost = "" if row["skipped"] is None else f"{row['skipped']:.1%}"
            value = row["value"]
            shown = f"{value:g}" if isinstance(value, float) else value
            device = row["field"] if value is None else f"{row['field']} {shown}"
            found.append([row["substrate"], device, *errors, spent, lost])
        return columns, found


def _mean(values: np.ndarray) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


@writing("validation.learn_in_situ")
def learn_in_situ(
    config: str | os.PathLike[str] | Mapping[str, Any] | Config,
    *,
    substrates: Sequence[str] | None = None,
    device: DeviceModel | None = None,
    sweeps: Mapping[str, Sequence[Any]] | None = None,
    repeats: int = 1,
    rule: str = "accumulated",
    side: str = "single",
    headroom: float = HEADROOM,
    overrides: Sequence[str] = (),
    data: Data | None = None,
    seed: int | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Progress | bool = SILENT,
    rails: str = "refuse",
) -> InSituTable:
    """Train on devices, and compare with writing an ideally trained network into them.

    Parameters
    ----------
    config : path, name, mapping or Config
        Config of the training of a predictive coding network, or of a plain substrate that devices can hold
        (`hardware_models.devices.systems`); see `physics_ep.runs.training.train`. Phases are computed on its
        `training.device`; cells and pulses are kept on the CPU, in float64.
    substrates : sequence of str, optional
        Substrates that the network is mapped to; default 'hopfield'. A plain substrate is one itself.
    device : DeviceModel, optional
        The base, of which one field is varied at a time. It is a point itself if any field is set, or if nothing
        is swept.
    sweeps : mapping
        Field of the device to its values.
    repeats : int
        R, instances of the device at each point, with initial weights and batches of their own.
    rule, side, headroom
        See `PulsedArray` and `InSitu`.
    overrides : sequence of str
        Values that replace the config's: 'section.key=value'.
    data : path, Dataset, tuple of arrays or of loaders, optional
        As in `physics_ep.train`; loaders are gone through once.
    seed : int, optional
        Seed of the first instance; default the config's.
    out : path, optional
        Run file, written anew after each instance.
    resume : bool
        Go on with `out`: no instance that is there is trained again.
    progress : Progress
        Shows the epochs that are done.
    rails : {'refuse', 'fit'}
        What becomes of a network whose cells see more than cell_voltage_limit, as in `map_pcn`: of the
        trained network that is written, and of the one that learns.

    Raises
    ------
    InputError
    LearningInterrupted
        On Ctrl-C.
    """
    settings = completed(with_arguments(load_config(config, overrides), data, None, None, seed), data, progress)
    if settings.ep.cost not in ("cross_entropy", "squared_error"):
        raise argument_error("ep.cost", "be 'cross_entropy' or 'squared_error'", repr(settings.ep.cost))
    if settings.ep.estimator != "ep":
        raise argument_error("ep.estimator", "be 'ep' for learning in situ", repr(settings.ep.estimator))
    training, scheduler = settings.training, settings.scheduler
    for key, value in {
        "data.validation": settings.data.validation,
        "training.patience": training.patience,
        "training.loggers": training.loggers or None,
        "training.seeds": training.seeds if training.seeds > 1 else None,
        "scheduler.per": "batch" if scheduler is not None and scheduler.per == "batch" else None,
    }.items():
        if value is not None:
            raise argument_error(key, "be left out for learning in situ, which does not know it", repr(value))
    if settings.training.dtype == "bfloat16":
        raise argument_error("training.dtype", "be 'float32' or 'float64' for learning in situ", "'bfloat16'")
    place, dtype = resolve_device(settings.training.device), resolve_dtype(settings.training.dtype)
    require_count("repeats", repeats, most=REPEATS)
    kind, places = _subject(settings, substrates)
    if kind is not Lesson and rails != "refuse":
        raise argument_error("rails", "be left out for a plain system, which has none", repr(rails))
    base = device_of(places[0], device) if kind is Lesson and places else device or DeviceModel()
    points = [p for p in planned(base, sweeps or {}, ["auto"]) if p.field not in (IDEAL, BASE)]
    limited = [device_at(base, p) for p in points if p.field == "cell_voltage_limit"]
    check_rails(rails, next((d for d in limited if d.cell_voltage_limit is not None), base))
    given = base != type(base)()
    if given or not points:
        points = [Point(BASE if given else IDEAL, None, "auto"), *points]
    for name in places if kind is Lesson else ():
        substrate_class(name)
    plan = [(name, point) for name in places for point in points]
    options: dict[str, Any] = {"rule": rule, "side": side, "headroom": headroom}
    found = {
        "config": settings.as_dict(),
        "in_situ": {
            "base": json.loads(base.to_json()),
            "plan": [[name, point.field, point.value] for name, point in plan],
            "repeats": repeats,
            **options,
            **({} if rails == "refuse" else {"rails": rails}),
        },
    }
    values = {name: np.full((len(plan), repeats), np.nan) for name in QUANTITIES}
    refused: dict[tuple[int, int], str] = {}
    if resume and out is None:
        raise argument_error("resume", "come with out, the file to go on with", resume)
    path = None if out is None else claim("out", out, judge=False)
    if path is not None and path.exists():
        if not resume:
            must = f"be a new file; {as_asked('--resume', 'resume=True')} goes on with one that is there"
            raise argument_error("out", must, repr(str(path)))
        _require_alike(path, found)
    examples = dataset_of(settings, data, progress)
    examples.require_classes("Learning in place")
    examples = examples.to(place, dtype)
    attributes = {"kind": KIND, "config": found["config"], "in_situ": found["in_situ"], **environment()}
    # Loaders may shuffle: what they gave before cannot be told from others.
    given = isinstance(data, Dataset) or (isinstance(data, tuple) and arrays_of(data) is not None)
    if (digest := digest_of(examples, settings.data, given)) is not None:
        attributes[EXAMPLES] = digest
    if path is not None and path.exists():
        values, refused = _resumed(path, digest, "data" if given else "data.file")
    epochs = settings.training.epochs
    # What the devices cannot be, or the substrates cannot hold, is told before anything is trained.
    first = kind(settings, examples, settings.training.seed, rails)
    first.ep.check(first.network())
    on_device = EquilibriumPropagation(first.cost, **first.options)
    for name, point in plan:
        try:
            system = first.system(first.learner(name, device_at(base, point), **options))
            on_device.check(system)
            if settings.ep.solver is not None:
                relax(system, examples.train_x[:1], solver=settings.ep.solver, max_iterations=1)
        except NotRealisable as error:
            raise InputError(
                f"{error} Here {point.field} is {point.value}." if point.value else str(error)
            ) from None
    try:
        with task(progress, "in situ", epochs * repeats * (len(plan) + 1)) as advance:
            for r in range(repeats):
                done = np.isfinite(values["learned"][:, r])
                missing = [k for k in range(len(plan)) if not done[k] and (k, r) not in refused]
                advance(epochs * (len(plan) - len(missing) + (not missing)))
                if not missing:
                    continue
                lesson = kind(settings, examples, settings.training.seed + r, rails)
                net, ideal = lesson.train(lambda **info: advance(1, substrate="none", **info))
                for k in missing:
                    substrate, point = plan[k]
                    told = {"substrate": substrate, point.field: point.value}
                    row = {}
                    try:
                        row = lesson.compare(
                            net, substrate, device_at(base, point), lambda t=told, **info: advance(1, **t, **info),
                            **options,
                        )  # fmt: skip
                    except NotRealisable as error:  # of trained weights, or on the way to them
                        refused[k, r] = f"{substrate}, {point.field} {point.value}, seed {lesson.seed}: {error}"
                    for name, value in {"ideal": ideal, **row}.items():
                        values[name][k, r] = value
                    if path is not None:
                        metrics = {name: Quantity(v, *QUANTITIES[name]) for name, v in values.items()}
                        listed = [[*at, why] for at, why in refused.items()]
                        write_run(path, Run({**attributes, "refused": json.dumps(listed)}, metrics=metrics))
    except KeyboardInterrupt:
        kept = f"nothing was kept: {as_asked('--out RUN.h5', 'out=...')} keeps instances as they come"
        if path is not None:
            again = f"the same call with out={str(path)!r}, resume=True"
            kept = f"{as_asked(f'the same command with --out {path} --resume', again)} goes on from there"
        done = int(np.isfinite(values["learned"]).sum())
        raise LearningInterrupted(
            f"interrupted after {done} of {values['learned'].size} instances; {kept}"
        ) from None
    return InSituTable(tuple(plan), values, found, refused)


def open_in_situ(path: str | os.PathLike[str]) -> InSituTable:
    """Read a file of `learn_in_situ`.

    Raises
    ------
    InputError
        If the file is no run file of `learn_in_situ`, or is damaged.
    """
    run = open_run(path)
    if run.attributes.get("kind") != KIND:
        raise argument_error("path", "be a file of in-situ training", repr(str(path)))
    own = _decoded(run.attributes["in_situ"])
    plan = tuple((name, Point(swept, value, "auto")) for name, swept, value in own["plan"])
    blank = np.full_like(run.metric("learned"), np.nan)
    values = {name: run.metric(name) if name in run.metrics else blank.copy() for name in QUANTITIES}
    refused = {(k, r): why for k, r, why in _decoded(run.attributes.get("refused", "[]"))}
    return InSituTable(plan, values, {"config": run.config, "in_situ": own}, refused)


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _resumed(path: Path, digest: str | None, name: str) -> tuple[dict[str, np.ndarray], dict[tuple[int, int], str]]:
    """What a file holds, if it is of the examples with this digest, which came by the argument of this name."""
    # Files of earlier releases tell no digest.
    if (told := open_run(path).attributes.get(EXAMPLES)) is not None and told != digest:
        raise argument_error(name, f"hold the examples of {str(path)!r} to resume it", "others")
    there = open_in_situ(path)
    return {name: np.array(v, dtype=float) for name, v in there.values.items()}, dict(there.refused)


def _require_alike(path: Path, config: dict[str, Any]) -> None:
    """Refuse to go on with a file of another config."""
    there = open_in_situ(path)
    for section, now in json.loads(json.dumps(config)).items():
        before = json.loads(json.dumps(there.config[section]))
        if "base" in before:
            before["base"] = as_compared(before["base"], repr(str(path)))
        if now != before:
            key = next(k for k in {**before, **now} if before.get(k) != now.get(k))
            raise argument_error(key, f"be as in {str(path)!r} to resume it", "another")


def _subject(config: Config, substrates: Sequence[str] | None) -> tuple[type[Lesson], Sequence[str]]:
    """What kind of lesson a config is, and on which substrates."""
    if not isinstance(new_system(config), OnDevice):
        return Lesson, ("hopfield",) if substrates is None else substrates
    name = config.system.name
    if substrates is not None:
        raise argument_error(
            "substrate", f"be left out for the system {name!r}, which is one", ", ".join(substrates)
        )
    for option in config.system.options:
        if option == "device" or option.startswith("device_"):
            raise argument_error(
                f"system.{option}", "be left out here: the device is an argument of its own", "given"
            )
    return PlainLesson, (name,)


class SettledExamples:
    """How many of the examples of many steps have a free state, and nudged ones besides.

    A batch that is refused whole counts as one without either.

    Attributes
    ----------
    seen, skipped, free, nudged : int
        Examples so far: all; those left out; those whose free phase has settled; those whose phases all have.
    """

    def __init__(self) -> None:
        self.seen = self.skipped = self.free = self.nudged = 0

    def count(self, examples: int, step: Callable[[], Step]) -> float:
        """Make a step with so many examples; its loss, NaN where none was used."""
        self.seen += examples
        try:
            found = step()
        except (NotConverged, NegativeNudgeError):
            self.skipped += examples
            return math.nan
        self.skipped += found.skipped
        settled = [phase.converged.view(-1, examples) for phase in found.equilibria]  # with several starts, of any
        self.free += int(settled[0].any(0).sum())
        self.nudged += int(torch.stack(settled).all(0).any(0).sum())
        return float(found.loss)

    def shares(self) -> dict[str, float]:
        """Shares of all examples so far, by the names of `QUANTITIES`."""
        counts = {"skipped": self.skipped, "free_states": self.free, "nudged_states": self.nudged}
        return {name: count / self.seen for name, count in counts.items()}


class Lesson:
    """One recipe with one seed: initial weights, order of batches, optimizer and test.

    Parameters
    ----------
    config : Config
    examples : Dataset
        The examples, on the device and in the dtype that networks are to have.
    seed : int
    rails : str
        What becomes of a network whose cells see more than cell_voltage_limit, as in `map_pcn`.
    """

    def __init__(self, config: Config, examples: Dataset, seed: int, rails: str = "refuse") -> None:
        self.config, self.examples, self.seed, self.rails = config, examples, seed, rails
        ep = config.ep
        self.cost = ep.new_cost()
        gates: dict[str, Any] = {} if ep.gates is None else {"gates": ep.gates}
        self.ep = EquilibriumPropagation(self.cost, ep.scheme, ep.beta, **gates)
        self.phases = {"solver": ep.solver, "tolerance": ep.tolerance, "max_iterations": ep.max_iterations}
        """How phases settle on the device."""
        self.alone: dict[str, Any] = {}
        """How they settle without one: a predictive coding network as it does by itself."""
        kept: dict[str, Any] = {"branches": ep.branches, "starts": ep.starts, "method": ep.method}
        kept["on_unconverged"] = config.training.on_unconverged
        self.options: dict[str, Any] = {"scheme": ep.scheme, "beta": ep.beta, **gates, **self.phases, **kept}

    def network(self) -> Any:
        """Build the network of the config, with its initial weights.

        Raises
        ------
        InputError
            If the config's system is no predictive coding network.
        """
        net = new_system(load_config(self.config, [f"training.seed={self.seed}"]))
        if not isinstance(net, PredictiveCodingNetwork):
            raise argument_error("system.name", "be a predictive coding network", repr(self.config.system.name))
        return net.to(self.examples.train_x.device, self.examples.train_x.dtype)

    def train(self, report: Callable[..., None]) -> tuple[Any, float]:
        """Train the network without a device; return it with its test error."""
        net = self.network()
        optimizer = build_optimizer(self.config.optimizer, net)
        optimizer.register_step_post_hook(lambda *_: net.constrain())

        def step(x: torch.Tensor, y: torch.Tensor) -> float:
            optimizer.zero_grad()
            loss = float(self.ep.backward(net, x, y).loss)
            clip_gradients(net.parameters(), self.config.training.clip_norm)
            optimizer.step()
            return loss

        self._epochs(optimizer, step, report)
        return net, self._error(net, **self.alone)[0]

    def compare(
        self,
        net: Any,
        substrate: str,
        device: DeviceModel,
        report: Callable[..., None],
        **options: Any,
    ) -> dict[str, float]:
        """Errors of the trained network on an instance of the device, and after learning on it."""
        calibration = self.examples.train_x[:CALIBRATION]
        rails = "refuse" if device.cell_voltage_limit is None else self.rails
        written = map_pcn(net, substrate, device, self.seed, calibration=calibration, rails=rails).system
        mapped, lost = self._error(written, **self.phases)
        learner = self.learner(substrate, device, written.full_scales, **options)
        settled = SettledExamples()

        def step(x: torch.Tensor, y: torch.Tensor) -> float:
            return settled.count(len(x), lambda: learner.step(x, y, self.cost, **self.options))

        self._epochs(learner.optimizer, step, report)
        learned, lost_then = self._error(self.system(learner), **self.phases)
        weights = sum(p.numel() for p in net.parameters())
        return {
            "mapped": mapped,
            "learned": learned,
            "pulses": learner.pulses / (2 * weights),
            "refreshes": learner.refreshes / weights,
            **settled.shares(),
            **self._states(lost, lost_then),
        }

    def learner(
        self, substrate: str, device: DeviceModel, full_scales: Sequence[float] | None = None, **options: Any
    ) -> InSitu:
        """The network with its initial weights on an instance of the device, where it learns.

        Raises
        ------
        InputError
            If it cannot be there, or cannot learn so.
        """
        net, calibration = self.network(), self.examples.train_x[:CALIBRATION]
        given: dict[str, Any] = {"calibration": calibration, "full_scales": full_scales}
        if self.rails == "fit" and device.cell_voltage_limit is not None:
            # Lines grow with the weights, for which cells have as much room.
            room = options.get("headroom", HEADROOM)
            tight = device.replace(cell_voltage_limit=device.cell_voltage_limit / room)
            device = device.replace(
                voltage=map_pcn(net, substrate, tight, self.seed, **given, rails="fit").device.voltage
            )
        mapped = map_pcn(net, substrate, device, self.seed, **given)
        optimizer, clip = self.config.optimizer, self.config.training.clip_norm
        return InSitu(mapped, lambda _: build_optimizer(optimizer, mapped.system), clip_norm=clip, **options)

    def system(self, learner: Any) -> EnergySystem:
        """The system that learns on the devices."""
        return learner.mapped.system

    def _states(self, lost: int, lost_then: int) -> dict[str, float]:
        """What is told of test examples, of which so many have no free state, written and after learning."""
        tested = len(self.examples.test_x)
        return {
            "unconverged": lost + lost_then,
            "mapped_states": 1 - lost / tested,
            "learned_states": 1 - lost_then / tested,
        }

    def _error(self, system: Any, **phases: Any) -> tuple[float, int]:
        with torch.no_grad():
            return classification_error(system, self.examples.test_x, self.examples.test_y, **phases)

    def _epochs(
        self,
        optimizer: torch.optim.Optimizer,
        step: Callable[[torch.Tensor, torch.Tensor], float],
        report: Callable[..., None],
    ) -> None:
        """Go through the examples as often as the config says."""
        training, x, y = self.config.training, self.examples.train_x, self.examples.train_y
        scheduler = build_scheduler(self.config.scheduler, optimizer, training.epochs)
        for epoch in range(training.epochs):
            generator = torch.Generator().manual_seed(epoch_seed(self.seed, epoch))
            order = torch.randperm(len(x), generator=generator).to(x.device)
            losses = []
            for of in order.split(training.batch_size):
                batch = x[of] if self.examples.augment is None else self.examples.augment(x[of], generator)
                losses.append(step(batch, self._targets(y[of])))
            loss = float(np.nanmean(losses)) if np.isfinite(losses).any() else math.nan
            step_scheduler(scheduler, loss)
            report(loss=loss)

    def _targets(self, labels: torch.Tensor) -> torch.Tensor:
        return self.cost.encode(labels, self.examples.n_outputs, self.examples.train_x.dtype)


class PlainLesson(Lesson):
    """A lesson on a plain substrate, whose cells hold its couplings without pairs of units."""

    def __init__(self, config: Config, examples: Dataset, seed: int, rails: str = "refuse") -> None:
        super().__init__(config, examples, seed, rails)
        self.ep = EquilibriumPropagation(self.cost, **self.options)
        self.alone = self.phases

    def network(self) -> OnDevice:
        """Build the substrate of the config with its initial weights, not yet held by cells."""
        net = new_system(load_config(self.config, [f"training.seed={self.seed}"]))
        assert isinstance(net, OnDevice)
        return net.to(self.examples.train_x.device, self.examples.train_x.dtype)

    def compare(
        self,
        net: OnDevice,
        substrate: str,
        device: DeviceModel,
        report: Callable[..., None],
        **options: Any,
    ) -> dict[str, float]:
        """Errors of the trained system when it is written into an instance of the device, and after learning on it.

        Full scales of readings are those of the trained system.
        """
        scales = copy.deepcopy(net).program(device).calibrate(self.examples.train_x[:CALIBRATION]).full_scales
        mapped, lost = self._error(copy.deepcopy(net).program(device, self.seed), **self.phases)
        system = self.learner(substrate, device, scales, **options)
        optimizer = build_optimizer(self.config.optimizer, system)
        optimizer.register_step_post_hook(lambda *_: system.constrain())
        settled = SettledExamples()

        def learn(x: torch.Tensor, y: torch.Tensor) -> Step:
            optimizer.zero_grad()
            found = self.ep.backward(system, x, y)
            clip_gradients(system.parameters(), self.config.training.clip_norm)
            optimizer.step()
            return found

        def step(x: torch.Tensor, y: torch.Tensor) -> float:
            return settled.count(len(x), lambda: learn(x, y))

        self._epochs(optimizer, step, report)
        learned, lost_then = self._error(system, **self.phases)
        named = dict(system.named_parameters())
        pairs = sum(named[name].numel() for name in system.cell_signs())
        cells = sum(named[name].numel() * (2 if signed else 1) for name, signed in system.cell_signs().items())
        return {
            "mapped": mapped,
            "learned": learned,
            "pulses": system.pulses / cells,
            "refreshes": system.refreshes / pairs,
            **settled.shares(),
            **self._states(lost, lost_then),
        }

    def learner(
        self, substrate: str, device: DeviceModel, full_scales: Sequence[float] | None = None, **options: Any
    ) -> Any:
        """The system with its initial weights on an instance of the device, where it learns."""
        system = self.network().program(device, self.seed, full_scales=full_scales, **options)
        system.check_learning()
        return system

    def system(self, learner: Any) -> EnergySystem:
        return learner
