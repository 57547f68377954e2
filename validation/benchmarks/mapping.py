"""Cost of an EP step on a mapped network over the same step on the network itself, and over backprop.

    python -m validation.benchmarks.mapping
    physics-ep bench mapping

One thread, float32, cross-entropy, one beta for all (the default), tolerance 1e-2. Backprop is autograd on the
network's own forward pass. 'ideal' devices are perfect cells; 'poor' ones have 4 bits, 5 % programming noise that
the cells of a weight have in common, and copies for the transposed read that are 1 % off: still one drive, so that
sweeps find the equilibrium. At a fifth of that beta two sweeps are enough, as they are for the network itself at
the whole. Mapping itself, which programs the cells, is timed apart.

Rows of trained weights (20 steps of Adam on the batch) have live gates, ideal devices and a fifth of beta='auto'.
Their `count`, of multiplications over backprop's, is that of two sweeps in which no unit crosses its kink
(`counted`); that of all other rows is counted during a step. A row of the MLP has cells that err apart, 0.3 % of
programming noise: it is followed in time by asymmetric EP, some thirty passes through all arrays, which the column
of sweeps tells. Beside it stands the certificate of the stability of four of its free states, which no step asks
for. `floor` is the processor time of a step's products
alone over that of a backprop step. `ms` and ratios are of the clock on the wall, `cpu` the ratio to backprop in
processor time, which other programs disturb less.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from hardware_models import DeviceModel, map_pcn
from hardware_models.mapping.stability import certify
from physics_ep import placement, relax
from physics_ep.cost import CrossEntropy
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.estimators.step import Step
from physics_ep.extremes import greatest, least
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp, vgg5
from validation.experiments.substrates import THREE
from validation.gradients import compare
from validation.oracles import backprop_gradient

from .counting import floors, with_floors
from .pcn import inputs
from .steps import Clock
from .timing import interleave, machine, measured

DEVICES = {
    "ideal": DeviceModel(),
    "poor": DeviceModel(levels=16, programming_noise=0.05, copy_mismatch_transpose=0.01, copies="shared"),
}
APART = DeviceModel(programming_noise=0.003)
"""Cells that err each by themselves."""
CERTIFIED = 4
"""Examples whose free states are certified in one call."""
TOLERANCE = 1e-2
"""Default of predictive coding networks in float32."""
CERTAIN = 1e-6
"""Residual of states that are certified."""
CASES: dict[str, tuple[Callable[[int], PredictiveCodingNetwork], int]] = {
    "mlp 784-512-512-10": (lambda seed: mlp([784, 512, 512, 10], "relu", seed=seed), 128),
    "vgg5/4 32x32": (lambda seed: vgg5(width=0.25, seed=seed), 16),
}


TRAINING = 20
"""Steps of the networks with trained weights: few examples then have units next to their kinks."""


def measure(
    repeats: int = 40,
    seed: int = 0,
    threads: int = 1,
    cases: tuple[str, ...] = tuple(CASES),
    trained: tuple[str, ...] = tuple(CASES),
) -> dict[str, object]:
    """Time all steps of a case in turns.

    Parameters
    ----------
    repeats : int
        Timed rounds; convolutions have a fifth of them.
    seed : int
        Seed of data, weights and devices.
    threads : int
        CPU threads.
    cases, trained : tuple of str
        Names in `CASES`: those to time with weights as they are drawn, and with trained ones.

    Returns
    -------
    dict
        `rows` (case, step, ms, over unmapped, over backprop, cpu, sweeps, residual, 1 - cos to backprop of the
        network that is there, count, floor), `ratio` (largest of ideal devices over the unmapped step), `followed`
        (of steps of two sweeps over backprop, in processor time, by name), `machine`, `load`.
    """
    load = [os.getloadavg()[0]]
    with placement.threads(threads):
        where = machine()
        rows = [row for case in cases for row in _rows(case, repeats, seed)]
        rows += [row for case in trained for row in _trained_rows(case, repeats, seed)]
    load.append(os.getloadavg()[0])
    plain = [r for r in rows if "ideal" in str(r["step"]) and "live" not in str(r["step"])]
    worst = max((float(r["/ EP"]) for r in plain), default=math.nan)  # type: ignore[arg-type]
    return {
        "title": "EP on a mapped network over EP on the network, and over backprop",
        "rows": rows,
        "ratio": worst,
        "followed": {
            f"{row['case']}: {row['step']}": row["cpu"]
            for row in rows
            if str(row["step"]).endswith(("live", "ideal, beta/5"))
        },
        "machine": where,
        "load": load,
    }


def _rows(case: str, repeats: int, seed: int) -> list[dict[str, object]]:
    build, batch = CASES[case]
    generator = torch.Generator().manual_seed(seed)
    net, cost = build(seed), CrossEntropy()
    x = inputs(net, batch, generator)
    y = torch.randint(0, net.sizes[-1], (batch,), generator=generator)
    first = EquilibriumPropagation(cost, tolerance=TOLERANCE)
    first.backward(net, x, y)
    beta = first.beta
    steps: dict[str, Step] = {}
    systems: dict[str, PredictiveCodingNetwork] = {"backprop": net, "EP": net}
    betas = {"EP": beta}
    for substrate in THREE:
        for name, device in DEVICES.items():
            step = f"{substrate}, {name}"
            systems[step], betas[step] = map_pcn(net, substrate, device, seed, calibration=x).system, beta
        weak = f"{substrate}, ideal, beta/5"
        systems[weak], betas[weak] = systems[f"{substrate}, ideal"], beta / 5

    def by_backprop() -> None:
        net.zero_grad()
        cost(net(x), y).mean().backward()

    def by_ep(name: str) -> Callable[[], None]:
        ep = EquilibriumPropagation(cost, beta=betas[name], tolerance=TOLERANCE)

        def step() -> None:
            systems[name].zero_grad()
            steps[name] = ep.backward(systems[name], x, y)

        return step

    calls: dict[str, Callable[[], None]] = {name: by_ep(name) for name in systems if name != "backprop"}
    calls["backprop"] = by_backprop

    def by_mapping() -> None:
        map_pcn(net, "resistive", DEVICES["poor"], seed, calibration=x)

    calls["mapping, poor"] = by_mapping
    timed = Timed(f"{case}, {batch}", cost, x, y, systems, steps)
    return _measured_rows(timed, calls, repeats)


def _trained_rows(case: str, repeats: int, seed: int) -> list[dict[str, object]]:
    build, batch = CASES[case]
    generator = torch.Generator().manual_seed(seed)
    net, cost = build(seed), CrossEntropy()
    x = inputs(net, batch, generator)
    y = torch.randint(0, net.sizes[-1], (batch,), generator=generator)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def by_backprop() -> None:
        net.zero_grad()
        cost(net(x), y).mean().backward()

    for _ in range(TRAINING):
        by_backprop()
        optimizer.step()
    first = EquilibriumPropagation(cost, beta="auto", tolerance=TOLERANCE)
    first.backward(net, x, y)
    systems: dict[str, PredictiveCodingNetwork] = {"EP": net}
    for substrate in THREE:
        systems[f"{substrate}, ideal, live"] = map_pcn(net, substrate, DEVICES["ideal"], seed, calibration=x).system
    steps: dict[str, Step] = {}

    def by_ep(name: str) -> Callable[[], None]:
        gates = net.gates if name == "EP" else "live"
        ep = EquilibriumPropagation(cost, beta=first.beta / 5, tolerance=TOLERANCE, gates=gates)

        def step() -> None:
            systems[name].zero_grad()
            steps[name] = ep.backward(systems[name], x, y)

        return step

    calls: dict[str, Callable[[], None]] = {}
    if x.ndim == 2:
        apart = map_pcn(net, "resistive", APART, seed, calibration=x).system
        systems["resistive, apart, live"] = apart
        state = tuple(s[:CERTIFIED] for s in relax(apart, x, tolerance=CERTAIN).require().state)

        def by_certificate() -> None:
            certify(apart, state, x[:CERTIFIED])

        calls[f"certificate, {CERTIFIED} examples"] = by_certificate
    calls |= {name: by_ep(name) for name in systems}
    calls["backprop"] = by_backprop
    calls["its products alone"] = products(net, x)
    rows = _measured_rows(Timed(f"{case}, {batch}, trained", cost, x, y, systems, steps), calls, repeats)
    for row in rows:
        row["count"] = counted(net) if "ideal" in str(row["step"]) else row["count"]
    return rows


def counted(net: PredictiveCodingNetwork) -> float:
    """Multiplications of a step of two sweeps over those of backprop, where all examples share the first sweep.

    With F of the links on the input and G of all others, backprop takes 2 F + 3 G and the step 2 F + 7 G: the free
    pass, one pass down and up for both nudges, one down for each, and the gradients, where mean and difference of
    both nudges meet.
    """
    sizes = [(wire.source, wire.link.fan_in * math.prod(wire.link.post)) for ws in net.wires for wire in ws]
    first, others = (sum(n for source, n in sizes if (source < 0) == at) for at in (True, False))
    return (2 * first + 7 * others) / (2 * first + 3 * others)


def products(net: PredictiveCodingNetwork, x: torch.Tensor) -> Callable[[], None]:
    """The products of such a step and nothing else, on activities and errors of the right shapes."""
    with torch.no_grad():
        run = net.run(x)
    one = run.states
    two = tuple(torch.cat([s, s]) for s in one)
    links = [
        (k, wire.source, wire.link, run.weights.of(k, wire.name), run.routes[k] if wire.link.routed else None)
        for k, wires in enumerate(net.wires)
        for wire in wires
    ]

    def multiply() -> None:
        with torch.no_grad():
            for _, source, link, w, _ in links:
                link.drive(w, x if source < 0 else one[source], None)
            for k, source, link, w, route in links:
                if source < 0:
                    link.gradient(x, one[k], route)
                    continue
                link.transpose(w, one[k], route)
                link.apply(w, one[source], route)
                link.transpose(w, two[k], route)
                link.gradient(two[source], two[k], route)

    return multiply


@dataclass(frozen=True)
class Timed:
    """What the rows of one case are measured on; steps of EP leave what they found in `steps`."""

    label: str
    cost: CrossEntropy
    x: torch.Tensor
    y: torch.Tensor
    systems: dict[str, PredictiveCodingNetwork]
    steps: dict[str, Step]


def _measured_rows(timed: Timed, calls: dict[str, Callable[[], None]], repeats: int) -> list[dict[str, object]]:
    """A row a call, timed in turns."""
    steps, x, y, cost = timed.steps, timed.x, timed.y, timed.cost
    clock = Clock()
    for call in list(calls.values()):
        call()
    interleave(clock.around(calls), repeats if x.ndim == 2 else max(repeats // 5, 2), warmup=0)
    unit, plain = clock.median("backprop"), clock.median("EP")
    counting = {name: call for name, call in calls.items() if name.split(",")[0] not in ("mapping", "certificate")}
    found = floors(counting, max(repeats // 5, 2))
    rows = []
    for name in clock.seconds:
        wall, cpu = clock.median(name)
        row: dict[str, object] = {
            "case": timed.label,
            "step": name,
            "ms": 1e3 * wall,
            "/ EP": wall / plain[0],
            "/ backprop": wall / unit[0],
            "cpu": cpu / unit[1],
            "sweeps": "",
            "residual": None,
            "1 - cos": None,
        }
        if name in steps:
            settled = steps[name].equilibria
            system = timed.systems[name]
            grads = {n: p.grad for n, p in system.named_parameters() if p.grad is not None}
            exact = backprop_gradient(system, x, y, cost)
            row["sweeps"] = "/".join(str(e.iterations) for e in settled[1:])
            row["residual"] = greatest(float(e.residual.max()) for e in settled)
            row["1 - cos"] = 1 - least(r.cosine for r in compare(grads, exact))
        rows.append(row)
    return with_floors(rows, found, "backprop", unit[1])


if __name__ == "__main__":
    result = measured(__file__, __doc__, measure)
    print(result["title"], "|", result["machine"], "| load", result["load"])
    for row in result["rows"]:
        residual = "" if row["residual"] is None else f"{row['residual']:.1e}"
        count = "" if row["count"] is None else f"count {row['count']:.2f} ({row['floor']:.2f} in time)"
        ratios = f"x{row['/ EP']:5.2f}  x{row['/ backprop']:5.2f}"
        print(
            f"{row['case']:26s} {row['step']:24s} {row['ms']:9.2f} ms  {ratios}  "
            f"cpu x{row['cpu']:5.2f}  {row['sweeps']:6s} {residual}  {count}"
        )
