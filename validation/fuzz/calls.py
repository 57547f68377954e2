"""Calls from Python drawn from the signatures of the public functions, and what is promised of each."""

from __future__ import annotations

import inspect
import math
import random
import re
import resource
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hardware_models as hw
import physics_ep as ep
from hardware_models.devices.pulse_fit import read_pulses
from hardware_models.oscillators.gset import read_gset
from hardware_models.oscillators.max_cut import max_cut
from physics_ep.data.datasets import Dataset
from physics_ep.errors import InputError
from physics_ep.predictive_coding import mlp
from physics_ep.storage.run_file import Run, write_run

from .. import (
    gradient_report,
    implicit_gradient,
    infer_early,
    learn_in_situ,
    open_in_situ,
    open_tolerance,
    tolerance,
)
from ..theory.noise import best_beta
from .children import run_child
from .stock import clear, inventory, lay_out

SECONDS = 40.0
"""Wall time of a call; the base calls take under two seconds."""
MEMORY = 2**33
"""Bytes of addresses that a call may take beside those in use: one that asks for more must be refused before."""


@dataclass(frozen=True)
class PublicCall:
    """A public function with arguments that are right; `make` gives them anew for each case."""

    name: str
    function: Callable[..., Any]
    make: Callable[[], dict[str, Any]]
    then: Callable[[Any], Any] | None = None


def _net() -> Any:
    return hw.HopfieldNetwork([4, 5, 3], seed=0)


def _batch() -> dict[str, Any]:
    return {"x": torch.rand(2, 4), "y": torch.eye(3)[:2], "cost": ep.SquaredError()}


def _step(estimator: Any) -> None:
    estimator.backward(_net(), torch.rand(2, 4), torch.eye(3)[:2])


def _data(**parts: Any) -> Dataset:
    whole = {
        "name": "own",
        "train_x": torch.rand(8, 4),
        "train_y": torch.arange(8) % 3,
        "test_x": torch.rand(4, 4),
        "test_y": torch.arange(4) % 3,
        "n_classes": 3,
    }
    return Dataset(**{**whole, **parts})


CALLS = [
    PublicCall("relax", ep.relax, lambda: {"system": _net(), "x": torch.rand(2, 4)}),
    PublicCall(
        "simulate", ep.simulate, lambda: {"system": _net(), "x": torch.rand(2, 4), "duration": 0.5, "steps": 20}
    ),
    PublicCall("explore", ep.explore, lambda: {"system": _net(), "x": torch.rand(1, 4), "starts": 2}),
    PublicCall("EquilibriumPropagation", ep.EquilibriumPropagation, lambda: {"cost": ep.SquaredError()}, _step),
    PublicCall(
        "backward",
        ep.EquilibriumPropagation(ep.SquaredError()).backward,
        lambda: {"system": _net(), "x": torch.rand(2, 4), "y": torch.eye(3)[:2]},
    ),
    PublicCall(
        "StochasticEquilibriumPropagation",
        ep.StochasticEquilibriumPropagation,
        lambda: {"cost": ep.SquaredError(), "temperature": 0.1},
    ),
    PublicCall(
        "Nudge",
        ep.Nudge,
        lambda: {"cost": ep.SquaredError(), "y": torch.eye(3)[:2], "beta": 0.1},
        lambda nudge: ep.relax(_net(), torch.rand(2, 4), nudge),
    ),
    PublicCall("holomorphic", ep.holomorphic, lambda: {"n": 3}),
    PublicCall("encode", ep.SquaredError().encode, lambda: {"labels": [0, 2], "n_out": 3, "dtype": torch.float32}),
    PublicCall(
        "encode classes", ep.CrossEntropy().encode, lambda: {"labels": [0, 2], "n_out": 3, "dtype": torch.float32}
    ),
    PublicCall("SquaredError", ep.SquaredError, dict),
    PublicCall("load_system", ep.load_system, lambda: {"spec": "small.toml"}),
    PublicCall("open_run", ep.open_run, lambda: {"path": "run.h5"}),
    PublicCall("write_run", write_run, lambda: {"path": "new.h5", "run": Run({"kind": "own"})}),
    PublicCall("train", ep.train, lambda: {"config": "small.toml", "overrides": ["training.epochs=1"]}),
    PublicCall(
        "train on data",
        ep.train,
        lambda: {
            "config": {
                "system": {"name": "hopfield", "sizes": [4, 5, 3]},
                "data": {"name": "own"},
                "training": {"epochs": 1},
            },
            "data": _data(),
        },
    ),
    PublicCall("Dataset", _data, dict),
    PublicCall("HopfieldNetwork", hw.HopfieldNetwork, lambda: {"sizes": [4, 5, 3]}),
    PublicCall(
        "ConvHopfieldNetwork",
        hw.ConvHopfieldNetwork,
        lambda: {"input_shape": [1, 4, 4], "channels": [2], "n_out": 3},
    ),
    PublicCall("LangevinHopfield", hw.LangevinHopfield, lambda: {"sizes": [4, 5, 3]}),
    PublicCall("RecurrentNetwork", hw.RecurrentNetwork, lambda: {"sizes": [4, 5, 3]}),
    PublicCall("ResistiveNetwork", hw.ResistiveNetwork, lambda: {"sizes": [4, 5, 3]}),
    PublicCall("OscillatorNetwork", hw.OscillatorNetwork, lambda: {"sizes": [4, 5, 3]}),
    PublicCall("OscillatorGraph", hw.OscillatorGraph, lambda: {"n": 4, "edges": [[0, 1], [1, 2], [2, 3]]}),
    PublicCall("DirectedOscillators", hw.DirectedOscillators, lambda: {"n": 3, "edges": [[0, 1], [1, 2]]}),
    PublicCall("FitzHughNagumoChain", hw.FitzHughNagumoChain, lambda: {"sizes": [4, 8, 3]}),
    PublicCall("mlp", mlp, lambda: {"sizes": [4, 5, 3]}),
    PublicCall("DeviceModel", hw.DeviceModel, dict),
    PublicCall("DeviceModel.from_json", hw.DeviceModel.from_json, lambda: {"source": "device.json"}),
    PublicCall("to_json", hw.DeviceModel().to_json, lambda: {"path": "new.json"}),
    PublicCall("map_pcn", hw.map_pcn, lambda: {"net": mlp([4, 5, 3]), "calibration": torch.rand(2, 4)}),
    PublicCall("Circuit.from_netlist", hw.Circuit.from_netlist, lambda: {"path": "net.cir"}),
    PublicCall(
        "transient", hw.transient, lambda: {"circuit": hw.Circuit.from_netlist("net.cir"), "duration": 1e-6}
    ),
    PublicCall("read_gset", read_gset, lambda: {"path": "graph.txt"}),
    PublicCall("read_pulses", read_pulses, lambda: {"path": "pulses.csv"}),
    PublicCall("gradient_report", gradient_report, lambda: {"system": _net(), **_batch()}),
    PublicCall("implicit_gradient", implicit_gradient, lambda: {"system": _net(), **_batch()}),
    PublicCall("infer_early", infer_early, lambda: {"system": _net(), **_batch(), "steps": 5}),
    PublicCall(
        "tolerance", tolerance, lambda: {"net": mlp([4, 5, 3]), **_batch(), "sweeps": {"levels": [4]}, "repeats": 1}
    ),
    PublicCall(
        "best_beta", best_beta, lambda: {"net": mlp([4, 5, 3]), **_batch(), "repeats": 2, "betas": [0.1, 0.2, 0.3]}
    ),
    PublicCall(
        "learn_in_situ", learn_in_situ, lambda: {"config": "layers.toml", "overrides": ["training.epochs=1"]}
    ),
    PublicCall("open_tolerance", open_tolerance, lambda: {"path": "sweep.h5"}),
    PublicCall("open_in_situ", open_in_situ, lambda: {"path": "in-situ.h5"}),
    PublicCall("max_cut", max_cut, lambda: {"graph": read_gset("graph.txt"), "starts": 2, "steps": 10}),
]

LEFT = {"self", "progress", "callbacks", "backward", "mapper", "scheduler", "network", "generator", "_sound"}
"""Parameters that are not drawn: they take functions, other machines, or generators."""

WHOLE: tuple[Any, ...] = (
    0,
    -1,
    1,
    2,
    1000,
    10**12,
    2**63,
    10**30,
    1.5,
    math.nan,
    math.inf,
    True,
    None,
    "3",
    "x",
    np.int64(2),
    [1],
)
REAL: tuple[Any, ...] = (
    0,
    0.0,
    -1.0,
    -0.0,
    1e-320,
    1e308,
    10**400,
    math.nan,
    math.inf,
    -math.inf,
    None,
    "0.1",
    "x",
    1j,
    True,
    np.float32(0.5),
    [0.1],
)
TEXT: tuple[Any, ...] = ("", "x", "x" * 5000, "\udcff", "two\nlines", None, 3, math.nan, b"x", ["x"], "nan", "auto")
PATHS: tuple[Any, ...] = (
    "",
    "missing",
    "folder",
    "pipe",
    "zero",
    "a\0b",
    "x" * 300,
    "noise.bin",
    "empty",
    "notes.txt",
    "loop.toml",
    "cut.h5",
    "flipped.h5",
    "read-only.txt",
    "run.h5",
    Path("run.h5"),
    0,
    1,
    None,
    True,
    1.5,
    b"run.h5",
    ["run.h5"],
    "\udcff",
    "device.json",
    "utf16.toml",
    "objects.pt",
    "objects.npz",
    "deep.json",
)
COUNTS: tuple[Any, ...] = (
    [],
    [4],
    [4, 5, 3],
    [4, 0, 3],
    [4, -1, 3],
    [4, 10**9, 3],
    [4, 10**30, 3],
    [4, 2.5, 3],
    [4, None, 3],
    ["4", 5, 3],
    [4, math.nan, 3],
    "4,5,3",
    None,
    4,
    [[4, 5], 3],
    [4] * 2000,
    (4, True, 3),
    {4, 5, 3},
    np.array([4, 5, 3]),
    torch.tensor([4, 5, 3]),
)
NUMBERS: tuple[Any, ...] = (
    [],
    [0.1],
    [math.nan],
    [math.inf],
    [-1.0],
    ["x"],
    [None],
    None,
    0.1,
    "x",
    {},
    np.array([]),
    np.array(["a"]),
    np.array([object()]),
    np.array([1, 2], dtype=object),
    [[0, 1], [1]],
    [[0, 9]],
    [[-1, 0]],
    [[0, 0]],
    [[0.5, 1]],
    [2**70],
    torch.rand(2),
    10**30,
    [[0, 1], [0, 1]],
)
MAPS: tuple[Any, ...] = (
    {},
    None,
    {"levels": []},
    {"levels": [0]},
    {"levels": [math.nan]},
    {"x": [1]},
    {1: [1]},
    {"levels": 4},
    "levels",
    {"levels": [10**30]},
    [],
    {"read_noise": [None]},
    {"preset": ["x"]},
)
FLAGS: tuple[Any, ...] = (True, False, None, 0, 2, "no", math.nan)


def _tensors() -> tuple[Any, ...]:
    warnings.simplefilter("ignore")  # of layouts that torch calls young or old
    x = torch.rand(2, 4)
    bad = x.clone()
    bad[0, 0] = math.nan
    return (
        None,
        1,
        "x",
        [],
        [1, 2],
        bad,
        -bad,
        x.to_sparse(),
        torch.empty(2, 4, device="meta"),
        x.to_sparse_csr(),
        torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
        x.bool(),
        x.long(),
        x.to(torch.complex64),
        x.half(),
        x.double(),
        torch.zeros(0, 4),
        torch.zeros(2, 0),
        torch.tensor(1.0),
        x[None],
        x[:, :3],
        x.T,
        x.clone().requires_grad_(),
        np.array(x),
        np.array([object()]),
        np.array(["a"]),
        [2**63, 0],
        [2**70, 0],
        [-1, 0],
        [0.5, 1],
        [math.nan, 0],
        [[0], [1, 2]],
        np.array([2**63 + 1, 0], dtype=np.uint64),
        [True, False],
        {0: 1},
        1e30 * x,
        torch.full((2, 4), math.inf),
        x.expand(2, 4),
        torch.rand(2, 8)[:, ::2],
        torch.tensor([0, 2]),
        torch.tensor([0, 3]),
        torch.tensor([-1, 0]),
    )


TYPES: list[tuple[str, Callable[[], tuple[Any, ...]]]] = [
    ("PathLike", lambda: PATHS),
    ("Tensor", _tensors),
    ("Labels", _tensors),
    ("Mapping", lambda: MAPS),
    ("Sequence[int]", lambda: COUNTS),
    ("Sequence", lambda: NUMBERS),
    ("ndarray", lambda: NUMBERS),
    ("Iterable", lambda: TEXT + NUMBERS),
    ("Any", lambda: NUMBERS + REAL),
    ("bool", lambda: FLAGS),
    ("float", lambda: REAL),
    ("int", lambda: WHOLE),
    ("", lambda: TEXT),
]
"""What an annotation has in it, and values for such a parameter; the first that is found counts."""


def draw_call(draw: random.Random) -> tuple[PublicCall, dict[str, Any], str, bool]:
    """A call: its function, arguments to replace, their words, and whether it must be refused."""
    call = draw.choice(CALLS)
    parameters = _parameters(call)
    chosen, wrong = {}, False
    for name in draw.sample(sorted(parameters), min(len(parameters), draw.choice((1, 1, 1, 2)))):
        told = parameters[name]
        values = next(pool for part, pool in TYPES if part in told)()
        chosen[name] = values[draw.randrange(len(values))]
        wrong |= "float" in told and not {"Tensor", "Any"} & set(re.findall(r"\w+", told)) and _is_nan(chosen[name])
    return call, chosen, ", ".join(f"{name}={_shown(value)}" for name, value in chosen.items()), wrong


def _parameters(call: PublicCall) -> dict[str, str]:
    """Name of each parameter to its annotation."""
    if call.function is _data:
        return {
            "train_x": "Tensor",
            "train_y": "Tensor",
            "test_x": "Tensor",
            "test_y": "Tensor",
            "n_classes": "int",
        }
    found = inspect.signature(call.function).parameters.values()
    return {
        p.name: str(p.annotation)
        for p in found
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name not in LEFT
    }


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _shown(value: Any) -> str:
    text = (
        repr(value) if not isinstance(value, torch.Tensor) else f"{value.layout} {value.dtype} {tuple(value.shape)}"
    )
    if (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_meta
        and not value.is_quantized
    ):
        text += f" {value.flatten()[:2].tolist()}"
    return " ".join(text.split())[:60]


def run_call(case: tuple[PublicCall, Mapping[str, Any], str, bool], stock: Path, folder: Path) -> list[str]:
    """Run a call in a folder of its own; return what of the promises it breaks."""
    call, chosen, _, wrong = case
    lay_out(stock, folder)
    before = inventory(folder)

    def work() -> None:
        warnings.simplefilter("ignore")
        arguments = {**call.make(), **chosen}
        try:
            done = call.function(**arguments)
            if call.then is not None:
                call.then(done)
        except (InputError, ep.NotConverged, ep.NotStationary) as error:
            if "\n" in str(error):
                print("more than one line:", error)
            raise SystemExit(2) from None
        except TypeError as error:  # the object of another class, by name
            if not str(error).startswith("Argument ") or "\n" in str(error):
                raise
            raise SystemExit(2) from None
        if wrong:
            print("NaN was taken")

    ended = run_child(work, folder, seconds=SECONDS, limits={resource.RLIMIT_AS: MEMORY})
    broken = []
    if ended.late:
        broken.append(f"goes on for {SECONDS:g} s")
    elif ended.status not in (0, 2):
        broken.append(f"status {ended.status}: {' | '.join(ended.error.strip().splitlines()[-3:])[-400:]}")
    if ended.out.strip():
        broken.append(ended.out.strip()[-300:])
    after = inventory(folder)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if ended.status == 2 and changed:
        broken.append(f"refused, and changed {', '.join(changed)}")
    if not chosen.get("overwrite"):
        broken += [f"changed {name}" for name in changed if name in before]
    broken += [f"left behind {name}" for name in changed if name.endswith((".part", ".lock")) or name == "executed"]
    clear(folder)
    return broken
