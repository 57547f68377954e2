"""Cost of an EP step on a mapped network over the same step on the network itself, and over backprop.

    python -m validation.benchmarks.mapping
    physics-ep bench mapping

One thread, float32, cross-entropy, beta of the unmapped network's stability limit for all, tolerance 1e-2. Backprop
is autograd on the network's own forward pass. 'ideal' devices are shared arrays of perfect cells; 'poor' ones have
4 bits, 5 % programming noise, and copies for the transposed read that are 1 % off: still one drive, so that sweeps
find the equilibrium. At a fifth of that beta two sweeps are enough, as they are for the network itself at the
whole. Mapping itself, which programs the cells, is timed apart. `ms` and ratios are of the clock on the wall, `cpu`
the ratio to backprop in processor time, which other programs disturb less.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from hardware_models import DeviceModel, map_pcn
from physics_ep import placement
from physics_ep.cost import CrossEntropy
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.estimators.step import Step
from physics_ep.predictive_coding import PredictiveCodingNetwork, mlp, vgg5
from validation.experiments.substrates import THREE
from validation.gradients import compare
from validation.oracles import backprop_gradient

from .pcn import inputs
from .steps import Clock
from .timing import interleave, machine, measured

DEVICES = {
    "ideal": DeviceModel(),
    "poor": DeviceModel(levels=16, programming_noise=0.05, copy_mismatch_transpose=0.01),
}
TOLERANCE = 1e-2
"""Default of predictive coding networks in float32."""
CASES: dict[str, tuple[Callable[[int], PredictiveCodingNetwork], int]] = {
    "mlp 784-512-512-10": (lambda seed: mlp([784, 512, 512, 10], "relu", seed=seed), 128),
    "vgg5/4 32x32": (lambda seed: vgg5(width=0.25, seed=seed), 16),
}


def measure(
    repeats: int = 40, seed: int = 0, threads: int = 1, cases: tuple[str, ...] = tuple(CASES)
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
    cases : tuple of str
        Names in `CASES`.

    Returns
    -------
    dict
        `rows` (case, step, ms, over unmapped, over backprop, cpu, sweeps, residual, 1 - cos to backprop of the
        network that is there), `ratio` (largest of ideal devices over the unmapped step), `machine`, `load`.
    """
    load = [os.getloadavg()[0]]
    with placement.threads(threads):
        where = machine()
        rows = [row for case in cases for row in _rows(case, repeats, seed)]
    load.append(os.getloadavg()[0])
    worst = max(float(r["/ EP"]) for r in rows if "ideal" in str(r["step"]))  # type: ignore[arg-type]
    return {
        "title": "EP on a mapped network over EP on the network, and over backprop",
        "rows": rows,
        "ratio": worst,
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
    clock = Clock()
    for call in list(calls.values()):
        call()
    interleave(clock.around(calls), repeats if len(net.shapes[0]) == 1 else max(repeats // 5, 2), warmup=0)
    unit, plain = clock.median("backprop"), clock.median("EP")
    rows = []
    for name in clock.seconds:
        wall, cpu = clock.median(name)
        row: dict[str, object] = {
            "case": f"{case}, {batch}",
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
            found = steps[name].equilibria
            grads = {n: p.grad for n, p in systems[name].named_parameters() if p.grad is not None}
            exact = backprop_gradient(systems[name], x, y, cost)
            row["sweeps"] = "/".join(str(e.iterations) for e in found[1:])
            row["residual"] = max(float(e.residual.max()) for e in found)
            row["1 - cos"] = 1 - min(r.cosine for r in compare(grads, exact))
        rows.append(row)
    return rows


if __name__ == "__main__":
    result = measured(__file__, __doc__, measure)
    print(result["title"], "|", result["machine"], "| load", result["load"])
    for row in result["rows"]:
        residual = "" if row["residual"] is None else f"{row['residual']:.1e}"
        ratios = f"x{row['/ EP']:5.2f}  x{row['/ backprop']:5.2f}"
        print(
            f"{row['case']:26s} {row['step']:24s} {row['ms']:9.2f} ms  {ratios}  "
            f"cpu x{row['cpu']:5.2f}  {row['sweeps']:6s} {residual}"
        )
