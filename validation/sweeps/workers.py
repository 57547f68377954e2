"""Points of a sweep on the workers of a dask scheduler, or in local processes.

Workers get what a network is built from, its weights, the device as JSON and the examples, never a pickled module;
each builds the network once and keeps it for the points that follow.
"""

from __future__ import annotations

import functools
import importlib
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import Any

import numpy as np
import torch

from hardware_models.devices.model import DeviceModel
from physics_ep.cost import COSTS
from physics_ep.errors import InputError, argument_error
from physics_ep.placement import resolve_device
from physics_ep.processes import end_with_parent
from physics_ep.registry import build_system

from .plan import Point, device_at
from .points import Experiment, Measured

COMMON = ("substrate", "scheme", "gates", "rails", "repeats", "seed", "thread_count", "oracle_device", "options")
"""What of an `Experiment` a worker is told as it is."""
CONNECT_SECONDS = 10.0
_held: tuple[str, Experiment] | None = None
_job: dict[str, Any] | None = None


class WorkerError(RuntimeError):
    """Raised when workers were lost; what had been measured is kept."""

    exit_status = 1


def recipe(
    experiment: Experiment,
    network: Mapping[str, Any],
    device: DeviceModel,
    key: str,
    mapper: Callable[..., Any] | None,
) -> dict[str, Any]:
    """What a worker needs for any point of a sweep.

    Parameters
    ----------
    experiment : Experiment
    network : mapping
        {"name": a registered system, "options": {...}}.
    device : DeviceModel
        The base device.
    key : str
        Distinguishes sweeps, as their configuration does.
    mapper : callable or None
    """
    net, y = experiment.net, experiment.y
    return {
        "key": key,
        "network": dict(network),
        "weights": {name: _array(tensor) for name, tensor in net.state_dict().items()},
        "x": _array(experiment.x),
        "y": _array(y),
        "where": str(experiment.x.device),
        "device": device.to_json(),
        "kind": f"{type(device).__module__}:{type(device).__qualname__}",
        "cost": experiment.cost.name,
        "mapper": mapper,
        "common": {name: getattr(experiment, name) for name in COMMON},
    }


def measured_by(address: str, job: dict[str, Any], points: Mapping[int, Point]) -> Iterator[tuple[int, Measured]]:
    """Have the workers of a scheduler measure points; give each as it is done.

    Raises
    ------
    InputError
        If dask.distributed is not installed, or there is no scheduler or no worker.
    WorkerError
        If a worker is lost again and again.
    """
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        must = "be the address of a running dask scheduler, such as tcp://127.0.0.1:8786"
        raise argument_error("scheduler", must, f"{address!r} ({_one_line(error)})") from None
    futures: list[Any] = []
    try:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise argument_error("scheduler", "have workers", f"{address!r}, which has none") from None
        # In a list, since a dict would be scattered entry by entry.
        (shared,) = client.scatter([job], broadcast=True)
        futures = [
            client.submit(
                measure, shared, point.field, point.value, point.beta, pure=False, key=f"{job['key']}-{k}"
            )
            for k, point in points.items()
        ]
        numbers = {future.key: number for future, number in zip(futures, points, strict=True)}
        for future in distributed.as_completed(futures, loop=client.loop):
            try:
                yield numbers[future.key], future.result()
            except (distributed.KilledWorker, CancelledError, OSError) as error:
                lost = f"Workers of {address} were lost ({type(error).__name__})"
                raise WorkerError(f"{lost}: what they measured is kept with out, and resume goes on.") from error
            future.release()
    finally:
        client.cancel(futures)
        client.close()


def measured_locally(
    count: int, job: dict[str, Any], points: Mapping[int, Point]
) -> Iterator[tuple[int, Measured]]:
    """Have processes of this machine measure points; give each as it is done.

    The standard library's pool: dask would bring a scheduler, sockets and a package that may not be installed to
    what needs none of them.

    Raises
    ------
    WorkerError
        If a process is killed.
    """
    others = set(active_children())
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_begin, initargs=(job,))
    try:
        futures = {pool.submit(_measure_begun, p.field, p.value, p.beta): k for k, p in points.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise WorkerError("A process was lost: what was measured is kept with out, and resume goes on.") from error
    finally:
        for process in set(active_children()) - others:
            process.terminate()
        # The pool's own thread reaps them: two that wait for one child can both miss it.
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(job: dict[str, Any]) -> None:
    """In a process of its own: Ctrl-C is the parent's affair, and its end is this one's."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    global _job
    _job = job


def _measure_begun(field: str, value: Any, beta: float | str) -> Measured:
    assert _job is not None
    return measure(_job, field, value, beta)


def measure(job: Mapping[str, Any], field: str, value: Any, beta: float | str) -> Measured:
    """Measure a point on a worker."""
    global _held
    if _held is None or _held[0] != job["key"]:
        _held = (job["key"], _experiment(job))
    base = _named(job["kind"]).from_json(job["device"])
    return _held[1].measure(device_at(base, Point(field, value, beta)), beta)


def _named(kind: str) -> type[DeviceModel]:
    """The class of devices of this name, "module:class"."""
    module, _, name = kind.partition(":")
    found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    assert isinstance(found, type)
    assert issubclass(found, DeviceModel)
    return found


def _experiment(job: Mapping[str, Any]) -> Experiment:
    where = resolve_device(job["where"])
    net = build_system(job["network"]["name"], **job["network"]["options"])
    weights = {name: torch.from_numpy(np.array(values)) for name, values in job["weights"].items()}
    dtypes = {t.dtype for t in weights.values() if t.dtype.is_floating_point}
    net = net.to(where, dtypes.pop())
    net.load_state_dict(weights)
    x, y = (torch.from_numpy(np.array(job[name])).to(where) for name in ("x", "y"))
    return Experiment(net, x, y, COSTS[job["cost"]](), mapper=job["mapper"], **job["common"])


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise InputError(
            "Argument scheduler needs dask.distributed, which is not installed: "
            "pip install 'physics-ep[distributed]'."
        ) from None
    return distributed


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
