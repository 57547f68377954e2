"""Gradient quality over device imperfections: which a substrate can bear, and how much of each.

A sweep varies one field of a device at a time, each value with every beta, and measures R instances of the device
at each point. Three questions are kept apart throughout (`validation.references`): does the estimate still point
along the gradient of the network that was meant (*transfer*), of the one that the arrays which drive h are
(*feedforward*), and of the physical network with all that it feeds back (*adaptation*)? The last two are one where
h and u share an array and have equal units; static errors of such an array spoil the first alone. Beside them
stands the share of the examples that have a free state.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from hardware_models.devices.fields import fields_of
from hardware_models.devices.model import DeviceModel
from hardware_models.devices.systems import OnDevice, instance
from hardware_models.mapping.mapped import as_read, check_fields, check_rails, device_of
from physics_ep.cost import Cost, as_cost, as_targets
from physics_ep.errors import REPEATS, InputError, argument_error, require_count
from physics_ep.estimators.propagation import NegativeNudgeError
from physics_ep.nudging import Stencil, require_method, scheme_from_name
from physics_ep.placement import available_memory, require_memory
from physics_ep.predictive_coding.forward import gate_modes
from physics_ep.predictive_coding.layers import told_name
from physics_ep.progress import SILENT, Progress, task
from physics_ep.storage.files import checked_path
from physics_ep.storage.outputs import as_asked, writing
from physics_ep.storage.parts import parts_folder

from .plan import BASE, IDEAL, Point, device_at, planned
from .points import Experiment, Measured
from .store import KIND, SweepFile, checksum, read_runs
from .table import ToleranceTable, tabulated
from .workers import measured_by, measured_locally, recipe

PEAK_BYTES = 16
"""Bytes a parameter that the oracle takes at its peak: a twin and its gradients, in float64."""
PEAK_COPIES = 7
"""Sizes of the network beside that: the network, a mapped one with its cells, the target, two running means."""


PROCESS_BYTES = 3 * 10**8
"""Memory of a process with torch, before any network, in bytes."""
SHARED = 5 * 10**7
"""Estimates times parameters from which processes pay: some twenty seconds of one core."""


class SweepInterrupted(KeyboardInterrupt):
    """Raised by Ctrl-C; the parts hold the points that were measured, and the message tells how to resume."""


@writing("validation.tolerance")
def tolerance(
    net: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    cost: Cost,
    *,
    substrate: str | None = None,
    device: Any = None,
    sweeps: Mapping[str, Sequence[Any]] | None = None,
    betas: Sequence[float | str] = ("auto",),
    repeats: int = 10,
    seed: int = 0,
    scheme: Stencil | str | None = None,
    gates: str = "held",
    rails: str = "refuse",
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Progress | bool = SILENT,
    scheduler: str | None = None,
    workers: int = 1,
    network: Mapping[str, Any] | None = None,
    mapper: Callable[..., Any] | None = None,
    oracle_device: str | None = None,
    **options: Any,
) -> ToleranceTable:
    """Measure the gradient's quality over device imperfections.

    Parameters
    ----------
    net : PredictiveCodingNetwork or plain system
        Plain systems are those that devices can hold as they are: `hardware_models.devices.systems.OnDevice`. Of
        one that a device holds already, as after training on cells, the ideal network has the weights that its
        cells hold; each instance has them written anew, into cells of its own.
    x, y : Tensor
        Batch, targets as the cost takes them. x also calibrates the full scales.
    cost : Cost
    substrate : str, optional
        Substrate that the network is mapped to; default 'hopfield'. A plain system is one itself.
    device : DeviceModel, optional
        The base, of which one field is varied at a time; default ideal, or the device that holds a plain system
        already. It is a point itself, and so is the ideal device.
    sweeps : mapping
        Field of the device to its values.
    betas : sequence of float or 'auto'
        'auto' is settled for each instance by its own stability limit.
    repeats : int
        R, instances of the device at each point; the same R instances and draws of read noise at all points. A
        point where nothing is random is measured once.
    seed : int
        Seed of the instances and the reads.
    scheme, **options
        Further arguments of `EquilibriumPropagation`: `method="energy"`, say, for ordinary EP where copies differ.
    gates : {'held', 'live', 'both'}
        What nudged phases do with the gates of ReLUs and the routes of max poolings. 'both': each point has live
        gates beside held ones, on the same instances and at the same beta (`TolerancePoint.live`); of a network
        without gates it means 'held'.
    rails : {'refuse', 'fit'}
        What becomes of an instance whose cells see more than cell_voltage_limit, as in `map_pcn`.
    out : path, optional
        Sweep file. Points are kept as they come, in parts beside it (`validation.sweeps.store`).
    resume : bool
        Go on with `out`: no point that is there is measured again. Bits are the same as without the interruption.
    progress : Progress
    scheduler : str, optional
        Address of a dask scheduler, on whose workers the points are measured; else they are here.
    workers : int
        Local processes that share the points; 1: this one, in turn. Bits do not depend on it, at one thread each.
        A script that asks for more must guard what it runs by `if __name__ == "__main__"`.
    network : mapping, optional
        {"name": a registered system, "options": {...}} that builds the network; needed with `scheduler` and
        `workers`.
    mapper : callable, optional
        Function that replaces `hardware_models.map_pcn`, with its signature.
    oracle_device : str, optional
        Torch device of the float64 backprop that gradients are judged by; default the network's.

    Returns
    -------
    ToleranceTable

    Raises
    ------
    InputError
        If an argument is not as above, the file does not fit, or a beta is beyond the ideal network's stability
        limit.
    SweepInterrupted
        On Ctrl-C.

    Notes
    -----
    Gradients are of the examples whose phases settle (`TolerancePoint.settled`). A repeat in which none does is
    counted and left out of all means. Means have 95 % intervals by Student's t.
    Gradients are not kept: memory does not grow with R (`validation.sweeps.points.Experiment`).

    Examples
    --------
    >>> import torch
    >>> from physics_ep import SquaredError
    >>> from physics_ep.predictive_coding import mlp
    >>> net, x, y = mlp([4, 8, 3], activation="tanh"), torch.rand(2, 4), torch.zeros(2, 3)
    >>> table = tolerance(net, x, y, SquaredError(), sweeps={"levels": [4, 64]}, repeats=2)
    >>> [point.value for point in table.of("levels")]
    [4, 64]
    """
    plain = mapper is None and isinstance(net, OnDevice)
    if not isinstance(net, nn.Module):
        raise argument_error("net", "be a predictive coding network or a system on devices", type(net).__name__)
    check: Any = getattr(net, "check_input", None)
    if check is not None:
        check(x)
    cost, y = as_cost(cost), as_targets(y)
    if plain:
        mapper = instance
        if substrate is not None:
            must = f"be left out for a {type(net).__name__}, which is a substrate itself"
            raise argument_error("substrate", must, repr(substrate))
        if net.device_model is not None and device is None:
            device = net.device_model
        if gates not in ("held", "frozen"):  # what a network has by default
            raise argument_error("gates", "be left out for a plain system, which has none", repr(gates))
        if rails != "refuse":
            raise argument_error("rails", "be left out for a plain system, which has none", repr(rails))
    modes = gate_modes(gates)
    gates = "both" if len(modes) > 1 and getattr(net, "has_gates", False) else modes[0]
    substrate = type(net).__name__ if plain else "hopfield" if substrate is None else substrate
    if mapper is not None:
        base = DeviceModel() if device is None else device
        if not isinstance(base, DeviceModel):
            raise argument_error("device", "be a DeviceModel", type(device).__name__)
    else:
        base = device_of(substrate, device)
        as_read(substrate, base)
    require_count("repeats", repeats, most=REPEATS)
    require_count("workers", workers)
    require_count("seed", seed, 0, 2**63)
    chosen = scheme_from_name("centered" if scheme is None else scheme)
    require_method(options.get("method"), chosen)
    if resume and out is None:
        raise argument_error("resume", "come with out, the sweep file to go on with", resume)
    for field in sweeps or {}:
        told = fields_of(type(base)).get(field)
        if told is not None and told.parts == ("learning",):
            must = "be of fields that act on a network that is held (how cells learn: `physics-ep in-situ`)"
            raise argument_error("sweeps", must, repr(field))
    plan = planned(base, sweeps or {}, betas)
    limited = [device_at(base, point) for point in plan if point.field == "cell_voltage_limit"]
    check_rails(rails, next((d for d in limited if d.cell_voltage_limit is not None), base))
    if plain:  # what it does not read is told before anything is measured
        for point in plan:
            own: Any = copy.deepcopy(net)
            own.program(device_at(base, point), seed)
    if mapper is None:
        swept = {field: ", ".join(map(str, values)) for field, values in (sweeps or {}).items()}
        check_fields(substrate, swept, type(base))
    if scheduler is not None and network is None:
        raise InputError("Argument network must be given with scheduler: workers build the network from it.")
    if workers > 1 and (network is None or scheduler is not None):
        must = "be 1 without network, from which processes build theirs, and beside scheduler"
        raise argument_error("workers", must, workers)
    named = {name: p for name, p in net.named_parameters() if p.requires_grad}
    count = sum(p.numel() for p in named.values())
    parameter = next(iter(named.values()))
    needed = count * (PEAK_BYTES + PEAK_COPIES * parameter.element_size())
    require_memory(needed * workers, parameter.device, f"{workers} sweeps of {count} parameters")
    threads = torch.get_num_threads() if scheduler is None and workers == 1 else 1
    config = {
        "system": dict(network) if network is not None else _described(net),
        "tolerance": {
            "weights": checksum(net.state_dict()),
            "examples": checksum({"x": x, "y": y}),
            "cost": cost.name,
            "substrate": substrate,
            "base": json.loads(base.to_json()),
            "sweeps": {f: list(dict.fromkeys(p.value for p in plan if p.field == f)) for f in sweeps or {}},
            "betas": list(dict.fromkeys(point.beta for point in plan)),
            "plan": [[point.field, point.value, point.beta] for point in plan],
            "repeats": repeats,
            "seed": seed,
            "scheme": chosen.name,
            "gates": gates,
            "method": options.get("method") or ("energy" if plain else "auto"),
            **({} if rails == "refuse" else {"rails": rails}),
            "options": {name: repr(value) for name, value in options.items() if name != "method"},
            "mapper": None if mapper is None else f"{mapper.__module__}.{getattr(mapper, '__qualname__', mapper)}",
            "dtype": str(parameter.dtype).removeprefix("torch."),
            "torch_device": str(parameter.device),
            "oracle_device": oracle_device,
            "threads": threads,
        },
    }
    labels = [told_name(getattr(net, "stack", ()), name) for name in named]
    file = SweepFile(out, config, list(named), resume, labels, len(x))
    experiment = Experiment(
        net,
        x,
        y,
        cost,
        substrate=substrate,
        scheme=None if scheme is None else chosen,
        gates=gates,
        rails=rails,
        repeats=repeats,
        seed=seed,
        thread_count=int(file.config["tolerance"]["threads"]),
        mapper=mapper,
        oracle_device=oracle_device,
        options=options,
    )
    missing = {k: plan[k] for k in file.missing}
    if scheduler is None and workers == 1:
        results = _here(experiment, base, missing)
    else:
        assert network is not None
        key = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]
        job = recipe(experiment, network, base, key, mapper)
        shared = measured_locally(workers, job, missing) if scheduler is None else None
        results = measured_by(str(scheduler), job, missing) if shared is None else shared
    _collect(file, plan, results, progress)
    return tabulated(file.finish(), plan, file.config, file.layers, file.path, file.labels, len(x))


def worth_sharing(net: nn.Module, tries: int) -> int:
    """Local processes that a sweep of so many estimates pays for: one a core, as many as memory allows; one where
    the network is on a GPU, or is done before they have started.

    Parameters
    ----------
    net : nn.Module
    tries : int
        Points times repeats.
    """
    parameter = next(net.parameters())
    count = sum(p.numel() for p in net.parameters())
    if parameter.device.type != "cpu" or tries * count < SHARED:
        return 1
    needed = count * (PEAK_BYTES + PEAK_COPIES * parameter.element_size()) + PROCESS_BYTES
    there = available_memory(parameter.device)
    most = os.cpu_count() or 1
    return max(1, most if there is None else min(most, there // (2 * needed)))


def open_tolerance(path: str | os.PathLike[str]) -> ToleranceTable:
    """Read a sweep file, or the points that are there of one that is not complete.

    Raises
    ------
    InputError
        If there is no such file, or it is damaged or something else.
    """
    path = checked_path(path, "path")
    if not path.exists() and not parts_folder(path).is_dir():
        raise argument_error("path", "be a sweep file", f"{str(path)!r}, which is no file")
    runs = read_runs(path)
    if not runs:
        raise InputError(f"Sweep file {str(path)!r} was begun, but has no complete point.")
    first = runs[0][1]
    plan = [Point(*place) for place in first.config["tolerance"]["plan"]]
    whole = first.attributes["kind"] == KIND
    numbers = list(range(len(plan))) if whole else [int(run.attributes["point"]) for _, run in runs]
    rows = {name: np.concatenate([run.metrics[name].values for _, run in runs]) for name in first.metrics}
    layers = json.loads(first.attributes["layers"])
    examples = int(first.attributes.get("examples", 0))
    labels = json.loads(first.attributes["labels"]) if "labels" in first.attributes else None
    return tabulated(rows, [plan[k] for k in numbers], first.config, layers, path, labels, examples)


def _here(experiment: Experiment, base: Any, points: Mapping[int, Point]) -> Iterator[tuple[int, Measured]]:
    """Measure points in turn, in this process."""
    for number, point in points.items():
        yield number, experiment.measure(device_at(base, point), point.beta)


def _collect(
    file: SweepFile, plan: Sequence[Point], results: Iterator[tuple[int, Measured]], progress: Progress | bool
) -> None:
    """Keep results as they come."""
    try:
        with task(progress, "tolerance", len(plan)) as advance:
            advance(len(file.found))
            for number, measured in results:
                file.write(number, measured)
                point = plan[number]
                value = "" if point.value is None else f" {point.value}"
                advance(1, point=f"{point.field}{value}", beta=point.beta)
    except KeyboardInterrupt:
        done = f"interrupted after {len(file.found)} of {len(plan)} points"
        remedy = f"nothing was kept: {as_asked('--out SWEEP.h5', 'out=...')} keeps points as they come"
        if file.path is not None:
            given = f"the same call with out={str(file.path)!r}, resume=True"
            remedy = f"{as_asked(f'the same command with --out {file.path} --resume', given)} goes on from there"
        raise SweepInterrupted(f"{done}; {remedy}") from None
    except InputError as error:
        # What is wrong from the beginning leaves nothing; a full disk must not cost what has been measured.
        references = all(plan[k].field in (IDEAL, BASE) for k in file.found)
        if references or isinstance(error, NegativeNudgeError):
            file.discard()
        raise


def _described(net: nn.Module) -> dict[str, Any]:
    """What a network is, where nobody says how it is built; its weights are known by their checksum."""
    known = ("shapes", "energy_name", "gates")
    names = [layer.activation_name for layer in getattr(net, "layers", ()) if hasattr(layer, "activation_name")]
    own = {name: repr(getattr(net, name, None)) for name in known}
    return {"class": type(net).__name__, **own, "activations": names}
