"""What separate cells do to the gradients of trained networks, and ways to live with them.

    python -m validation.experiments.copies --out FOLDER [--instances 10] [--only TEXT] [--markdown]
    python -m validation.experiments.copies --out FOLDER --ways

Trains tanh, hard_tanh and relu networks 64-64-64-10 on the 8x8 digits (FOLDER/ACTIVATION.h5, by the recipe of
`pcn-digits`), puts each on the substrates and devices of `cases()`, and prints the table. FOLDER/copies.json holds
a row an instance, kept as they come; the same command goes on from there. Units with kinks are measured with held
gates and with live ones, on the same examples. `--only` takes rows whose key holds a text; `--markdown` prints the
table of what is there and stops. `--ways` measures what can be done about separate cells (`WAYS`) in place of what
they do; `physics-ep figure copies --from FOLDER/relu.h5` draws it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.in_situ import InSitu
from hardware_models.mapping.mapped import Mapped
from physics_ep import relax
from physics_ep.config import load_config
from physics_ep.cost import CrossEntropy
from physics_ep.data.datasets import load_dataset
from physics_ep.equilibrium import NotConverged
from physics_ep.errors import InputError, argument_error
from physics_ep.estimators.propagation import NegativeNudgeError
from physics_ep.extremes import greatest
from physics_ep.placement import threads
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp
from physics_ep.predictive_coding.forward import GATES
from physics_ep.runs.preparation import load_weights
from physics_ep.runs.training import train
from physics_ep.storage.opening import open_run
from physics_ep.storage.outputs import write_json, writing

from ..gradients import compare
from ..oracles import Gradients, OracleError
from ..references import REFERENCES, differs, of_equilibrium, reference_gradient
from .tables import median, read_rows

SIZES = (64, 64, 64, 10)
GAINS = {"tanh": 1.0, "hard_tanh": 1.0, "relu": 6**0.5}
"""Activations, and the gains of the weights that training begins with."""
BATCH, TEST = 16, 100
"""Test examples of which gradients are taken, the first that have a free state; and those of which it is sought."""
BETA = 0.01
LEARNING_BATCH, LEARNING_STEPS = 32, 300
"""Examples of a step of learning in place, and the steps of a phase after which an example is left out of it."""


RECIPE = {
    "sizes": SIZES,
    "beta": BETA,
    "scheme": "centered",
    "gates": "held, live",
    "cost": "cross_entropy",
    "batch": BATCH,
    "test": TEST,
    "dtype": "float64",
    "calibration": "training examples",
    "in place": [LEARNING_BATCH, LEARNING_STEPS],
}
"""What rows are made by, as a file tells it: rows of another recipe have no median with these."""
KEYS = ("key", "instance", "gaps")
"""What each row of a table has."""


@dataclass(frozen=True)
class CopiesCase:
    """One row of the table of copies: network, substrate, error and way.

    Attributes
    ----------
    activation, substrate : str
    device : DeviceModel
    told : str
        What errs.
    way : str
        What is done about it: of `WAYS`; empty: nothing.
    """

    activation: str
    substrate: str
    device: DeviceModel
    told: str
    way: str = ""

    @property
    def key(self) -> str:
        """The text by which rows of this case are found again in the results."""
        found = f"{self.activation} {self.substrate} {self.told} {self.device.copies}"
        return f"{found} {self.way}" if self.way else found


@dataclass(frozen=True)
class CopiesWay:
    """A way to live with cells that err apart.

    Attributes
    ----------
    fields : dict
        Fields of the device that are set beside its programming noise.
    substrate : str
    epochs : int
        Epochs of learning in situ, from the weights that were written, before anything is measured.
    method : str
        Method of EP that the row is measured with.
    """

    fields: dict[str, Any]
    substrate: str = "resistive"
    epochs: int = 0
    method: str = "energy"


GAIN = 0.2
"""Gain of the feedback where it is below one."""
WAYS = {
    "nothing": CopiesWay({}),
    "copies trimmed to 0.1 %": CopiesWay({"copies": "trimmed"}),
    "one array in slots, mirrors 0.1 %": CopiesWay({"mirror_mismatch": 1e-3}, "hopfield"),
    "learned in place": CopiesWay({}, epochs=2),
    "auto-zero": CopiesWay({"auto_zero": "on"}),
    "feedback gain 0.2": CopiesWay({"feedback_gain": GAIN}),
    "auto-zero and gain 0.2": CopiesWay({"auto_zero": "on", "feedback_gain": GAIN}),
    "learned in place, gain 0.2": CopiesWay({"feedback_gain": GAIN}, epochs=2),
    "asymmetric EP": CopiesWay({}, method="asymmetric"),
    "asymmetric EP on oscillators": CopiesWay({}, "oscillator", method="asymmetric"),
}
"""What can be done, by its name in tables and figures."""
SIZES_OF_WAYS = (0.001, 0.003, 0.01, 0.03)
"""Programming noises at which ways are measured, of the range."""


def ways() -> Iterator[CopiesCase]:
    """Rows of the table of ways."""
    for name, way in WAYS.items():
        for activation in ("hard_tanh", "relu"):
            for size in SIZES_OF_WAYS:
                device = DeviceModel(programming_noise=size, **way.fields)
                yield CopiesCase(activation, way.substrate, device, f"programming {size:.1%}", name)


LEAST = 1e-12
"""A mismatch of u's copies that is none, and says that u has an array of its own."""


def cases() -> Iterator[CopiesCase]:
    """The rows of the experiment's table."""
    for size in (0.01, 0.03):
        device = DeviceModel(programming_noise=size, transpose="array", copy_mismatch_u=LEAST)
        yield CopiesCase("tanh", "hopfield", device, f"three arrays {size:.1%}")
    for size in (0.001, 0.01):
        yield CopiesCase("tanh", "hopfield", DeviceModel(mirror_mismatch=size), f"mirrors {size:.1%}")
    for size in (0.01, 0.1):
        device = DeviceModel(transpose="array", copy_mismatch_transpose=size)
        yield CopiesCase("tanh", "hopfield", device, f"second array {size:.0%}")
    for copies in ("independent", "shared"):
        for activation in ("hard_tanh", "relu"):
            for substrate in ("resistive", "oscillator"):
                for size in (0.003, 0.01, 0.03):
                    device = DeviceModel(programming_noise=size, copies=copies)
                    yield CopiesCase(activation, substrate, device, f"programming {size:.1%}")


@dataclass(frozen=True)
class OneDevice:
    """What was found on one device instance.

    Attributes
    ----------
    key : str
    instance : int
    share, error : float
        Test examples that have a free state, and the share of these that are classified wrongly.
    solver : str
        The solver that found the free states.
    settled : int
        Examples of the gradients: of `BATCH` with a free state, those whose nudged phases settle too. 0: of none.
    gaps : dict
        Reference to 1 - cosine of the worst weights; NaN where there is no gradient. Gates are held.
    seconds : float
    live_settled : int or None
        The number `settled` with live gates; None where no unit has a kink, and in tables of earlier releases.
    live_gaps : dict or None
        The errors `gaps` with live gates.
    """

    key: str
    instance: int
    share: float
    error: float
    solver: str
    settled: int
    gaps: dict[str, float]
    seconds: float
    live_settled: int | None = None
    live_gaps: dict[str, float] | None = None


def network_of(activation: str, folder: Path) -> PredictiveCodingNetwork:
    """The trained network, float64: of FOLDER/ACTIVATION.h5, trained if it is not there."""
    path = folder / f"{activation}.h5"
    if not path.exists():
        sizes = f"system.sizes=[{','.join(map(str, SIZES))}]"
        names = (sizes, f"system.activation='{activation}'", f"system.gain={GAINS[activation]}")
        train("pcn-digits", overrides=names, out=path)
    net = mlp(list(SIZES), activation)
    load_weights(net, open_run(path))
    return net.double()


def learn_in_place(mapped: Mapped, x: torch.Tensor, y: torch.Tensor, epochs: int) -> None:
    """Let written weights learn on their device, each cell moved as far as is asked; examples that do not settle
    are left out of a step."""
    learner = InSitu(mapped, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), headroom=1.5)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(LEARNING_BATCH):
            options = {"on_unconverged": "skip", "max_iterations": LEARNING_STEPS, "method": "energy"}
            learner.step(x[batch], y[batch], CrossEntropy(), BETA, **options)


def method_of(case: CopiesCase) -> str:
    """Method of EP of a row."""
    return WAYS[case.way].method if case.way else "energy"


def measured(case: CopiesCase, instance: int, mapped: Mapped, x: torch.Tensor, y: torch.Tensor) -> OneDevice:
    """Free states and gradients of one instance, on test examples x and their labels y."""
    began = time.perf_counter()
    cost = CrossEntropy()
    free = relax(mapped.system, x)
    found = of_equilibrium(mapped, free, x, y)
    kept = free.converged.nonzero().flatten()[:BATCH]
    exact: dict[tuple[int, ...], dict[str, Gradients]] = {}
    modes = GATES if mapped.system.has_gates else GATES[:1]
    options: dict[str, Any] = {"beta": BETA, "on_unconverged": "skip", "method": method_of(case)}
    told: dict[str, tuple[int, dict[str, float]]] = {}
    for gates in modes:
        gaps, settled = dict.fromkeys(REFERENCES, math.nan), kept[:0]
        if len(kept):
            with suppress(NotConverged, NegativeNudgeError):  # then no example counts as settled
                own, step = mapped.estimate(x[kept], y[kept], cost, gates=gates, **options)
                assert step.used is not None
                settled = kept[step.used]
        if len(settled):
            place = tuple(settled.tolist())
            if place not in exact:
                exact[place] = _references(mapped, x[settled], y[settled], cost)
            gaps |= {name: _worst(own, g) for name, g in exact[place].items()}
        told[gates] = (len(settled), gaps)
    seconds = time.perf_counter() - began
    count, live_gaps = told.get("live", (None, None))
    held = told["held"]
    return OneDevice(case.key, instance, found.share, found.error, found.solver, *held, seconds, count, live_gaps)


def _references(mapped: Mapped, x: torch.Tensor, y: torch.Tensor, cost: CrossEntropy) -> dict[str, Gradients]:
    """The references that there are, on these examples."""
    found: dict[str, Gradients] = {}
    for name in REFERENCES:
        if name == "adaptation" and not differs(mapped):
            found[name] = found["feedforward"]
            continue
        with suppress(NotConverged, OracleError):
            found[name] = reference_gradient(name, mapped, x, y, cost)
    return found


def _worst(estimate: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    names = [name for name in exact if name.endswith("weight")]
    rows = compare({n: estimate[n] for n in names}, {n: exact[n] for n in names})
    return greatest(1 - row.cosine for row in rows)


def measure(
    folder: Path,
    instances: int = 10,
    chosen: Sequence[CopiesCase] | None = None,
    tell: Callable[[str], None] = lambda line: print(line, flush=True),
) -> list[dict[str, Any]]:
    """Measure what is missing, an instance of every case in turn, and keep each row as it comes.

    Parameters
    ----------
    folder : path
    instances : int
        Device instances of each case.
    chosen : sequence of CopiesCase, optional
        Default `cases()`.
    tell : callable
        Takes a line for each row that has been measured; it prints them if not given.

    Returns
    -------
    list of dict
        A row an instance (`OneDevice`).

    Raises
    ------
    InputError
        If the folder's table is damaged or another's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "copies.json"
    rows = read_rows(path, "copies", KEYS, {"recipe": RECIPE}) if path.exists() else []
    told = json.loads(path.read_text(encoding="utf-8")).get("networks", {}) if rows else {}
    done = {(row["key"], row["instance"]) for row in rows}
    data = load_dataset(load_config("pcn-digits").data)
    x, y = data.test_x[:TEST].flatten(1).double(), data.test_y[:TEST]
    learned_x, learned_y = data.train_x.flatten(1).double(), data.train_y
    nets: dict[str, PredictiveCodingNetwork] = {}
    with threads(1), writing("validation.experiments.copies") as call:
        path = call.claim("out", path, goes_on=path if rows else None)
        for instance in range(instances):
            for case in cases() if chosen is None else chosen:
                if (case.key, instance) in done:
                    continue
                if case.activation not in nets:
                    nets[case.activation] = net = network_of(case.activation, folder)
                    require_same(told, case.activation, network_told(net, x, y), folder)
                net = nets[case.activation]
                mapped = map_pcn(net, case.substrate, case.device, instance, calibration=learned_x[:TEST])
                way = WAYS.get(case.way)
                if way is not None and way.epochs:
                    learn_in_place(mapped, learned_x, learned_y, way.epochs)
                rows.append(asdict(measured(case, instance, mapped, x, y)))
                write_json(path, {"recipe": RECIPE, "networks": told, "rows": rows})
                tell(f"{case.key}, instance {instance}: {rows[-1]['seconds']:.1f} s")
    return rows


def network_told(net: PredictiveCodingNetwork, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    """What a table tells of the network that was meant: error on the test examples, and a digest of the weights."""
    digest = hashlib.sha256()
    for _, p in sorted(net.state_dict().items()):
        digest.update(p.cpu().numpy().tobytes())
    with torch.no_grad():
        return {"error": float((net(x).argmax(1) != y).double().mean()), "digest": digest.hexdigest()}


def require_same(told: dict[str, Any], name: str, found: dict[str, Any], folder: Path) -> None:
    """Add a network to those that a table tells, or refuse one that is not the one told.

    Raises
    ------
    InputError
        If rows are there of a network of other weights.
    """
    if told.setdefault(name, found)["digest"] != found["digest"]:
        must = f"hold the network {name}.h5 of the rows that are there"
        raise argument_error("out", must, f"{str(folder)!r}, which holds another")


def read(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a table that was begun, of whatever recipe.

    Raises
    ------
    InputError
        If it is damaged or something else.
    """
    return read_rows(path, "copies", KEYS)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A row a case and mode of gates: medians and quartiles over its instances."""
    lines = [
        "| network | substrate | what errs | cells | gates | transfer | feedforward | adaptation | free states "
        "| their test error | gradients | solver |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in [*cases(), *ways()]:
        own = [row for row in rows if row["key"] == case.key]
        if not own:
            continue
        done = f"{case.device.copies}; {case.way}" if case.way else case.device.copies
        states = [_quartiles([row[name] for row in own], "{:.2f}") for name in ("share", "error")]
        solvers = ", ".join(dict.fromkeys(row["solver"] for row in own))
        for gates, told in (("held", ""), ("live", "live_")):
            here = [row for row in own if row.get(f"{told}gaps") is not None]
            if not here:
                continue
            gaps = [_quartiles([row[f"{told}gaps"][name] for row in here], "{:.0e}") for name in REFERENCES]
            settled = [row[f"{told}settled"] for row in here]
            with_one, share = sum(n > 0 for n in settled), sum(settled) / (BATCH * len(here))
            ran = f"{with_one}/{len(here)} instances, {share:.0%} of the examples"
            cells = [case.activation, case.substrate, case.told, done, gates, *gaps, *states, ran, solvers]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _quartiles(values: Sequence[float | None], form: str) -> str:
    return median([None if v is None else 0.0 if v < 0 else v for v in values], form, quartiles=True)


def main(words: list[str] | None = None) -> None:
    """Measure the table of copies by the options of its command line."""
    parser = argparse.ArgumentParser(prog="python -m validation.experiments.copies", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the networks and the table")
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--only", default="", help="text that is in 'ACTIVATION SUBSTRATE WHAT COPIES' of a row")
    parser.add_argument("--ways", action="store_true", help="measure ways to live with separate cells")
    parser.add_argument("--markdown", action="store_true", help="print the table of what is there, and stop")
    arguments = parser.parse_args(words)
    try:
        if arguments.instances < 1:
            raise argument_error("instances", "be at least 1", arguments.instances)
        path = arguments.out / "copies.json"
        known = list(ways() if arguments.ways else cases())
        chosen = [case for case in known if arguments.only in case.key]
        if not chosen:
            raise argument_error("only", f"be in one of {', '.join(c.key for c in known)}", repr(arguments.only))
        print(markdown(read(path) if arguments.markdown else measure(arguments.out, arguments.instances, chosen)))
    except InputError as error:
        sys.exit(f"copies: {error}")


if __name__ == "__main__":
    main()
