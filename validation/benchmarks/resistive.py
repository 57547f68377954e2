"""Cost of a deep resistive network's EP step, and its operating points per second.

    python -m validation.benchmarks.resistive
    physics-ep bench resistive

One thread, float32. The EP step of the network 1568-1024-10 (784 features, doubled), batch 32, over the two matrix
products that it cannot avoid: the drive of the input and the weight contrast against it. Operating points of
784-100-10, batch 128, over ngspice's, for which the 25 ms are taken that it needs for a circuit of 100 nodes when
one process is re-used (`ngspice_seconds` measures another figure).
"""

from __future__ import annotations

import torch

from hardware_models.layers.few_outputs import whole_batches
from hardware_models.resistive.network import ResistiveNetwork
from physics_ep import placement
from physics_ep.cost import SquaredError
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.extremes import greatest
from physics_ep.relaxation.loop import relax

from .counting import floors
from .steps import Clock
from .timing import interleave, machine, measured

SIZES = (784, 1024, 10)
BATCH = 32
THROUGHPUT_SIZES = (784, 100, 10)
THROUGHPUT_BATCH = 128
GAIN = 480 * 2**-10
SCALE = 2**-13
TARGET = 2**-10
FEW = 8
"""Features of a network whose step makes all calls, the whole relaxation, and no large product."""
NGSPICE_SECONDS = 25e-3
TOLERANCE = 1e-5 * TARGET


def measure(
    repeats: int = 60, threads: int = 1, seed: int = 0, ngspice_seconds: float = NGSPICE_SECONDS
) -> dict[str, object]:
    """Time the contenders in one run, and certify the equilibria.

    Parameters
    ----------
    repeats : int
        Timed rounds.
    threads : int
        CPU threads.
    seed : int
        Seed of data and conductances.
    ngspice_seconds : float
        Seconds that one operating point of some 100 nodes takes in a running ngspice.

    Returns
    -------
    dict
        `rows` (contender, milliseconds, ratio, residual, iterations, and over the two products in processor time:
        the step, `cpu`, and its products alone, `floor`; `count`, their multiplications), `ratio` (EP step over its
        two products), `calls` (the same of a step without large products),
        `throughput_ratio` (operating points per second over ngspice's), `followed` (ratios by name, that of the
        step in processor time), `machine`.
    """
    with placement.threads(threads):
        generator = torch.Generator().manual_seed(seed)
        cost = SquaredError(TARGET)
        system = ResistiveNetwork(SIZES, input_gain=GAIN, scale=SCALE, seed=seed)
        small = ResistiveNetwork(THROUGHPUT_SIZES, input_gain=GAIN, scale=SCALE, seed=seed)
        x, many = (_digits(batch, generator) for batch in (BATCH, THROUGHPUT_BATCH))
        labels = torch.randint(0, SIZES[-1], (BATCH,), generator=generator)
        y = cost.encode(labels, SIZES[-1], torch.float32)
        ep = EquilibriumPropagation(cost, beta=SCALE, tolerance=TOLERANCE)
        # An estimator for each system: one that changes its system measures the limit of nudging in each step.
        own = EquilibriumPropagation(cost, beta=SCALE, tolerance=TOLERANCE)
        few = ResistiveNetwork((FEW, *SIZES[1:]), input_gain=GAIN, scale=SCALE, seed=seed)
        fewer = x[:, :: SIZES[0] // FEW].contiguous()
        g, doubled = system.couplings[0].conductance.detach(), system.doubled(x)
        moved = torch.randn(BATCH, SIZES[1], generator=generator)

        def products() -> None:
            doubled @ g.t()
            moved.t() @ doubled

        def propagate() -> None:
            system.zero_grad()
            ep.backward(system, x, y)

        def call() -> None:
            few.zero_grad()
            own.backward(few, fewer, y)

        def settle() -> None:
            relax(small, many, tolerance=TOLERANCE)

        where = machine()
        calls = {"products": products, "ep": propagate, "calls": call, "points": settle}
        clock = Clock()
        medians = interleave(clock.around(calls), repeats)
        with whole_batches():  # in which all products are torch's, and can be counted
            found = floors({name: calls[name] for name in ("products", "ep")}, repeats)
        system.zero_grad()
        step = ep.backward(system, x, y)
        points = relax(small, many, tolerance=TOLERANCE).require()
    ratio = medians["ep"] / medians["products"]
    each = medians["points"] / THROUGHPUT_BATCH
    unit = clock.median("products")[1]
    floor = {
        name: (clock.median(name)[1] / unit, count / found["products"][0], alone / unit)
        for name, (count, alone) in found.items()
    }
    rows = [
        _row("drive and contrast alone", medians["products"], 1.0, None, "", floor["products"]),
        _row(
            "EP step 1568-1024-10, batch 32",
            medians["ep"],
            ratio,
            greatest(float(e.residual.max()) for e in step.equilibria),
            "/".join(str(e.iterations) for e in step.equilibria),
            floor["ep"],
        ),
        _row(
            f"EP step {2 * FEW}-1024-10, batch 32: calls and relaxation",
            medians["calls"],
            medians["calls"] / medians["products"],
            None,
            "",
            (clock.median("calls")[1] / unit, None, None),
        ),
        _row("ngspice, an operating point", ngspice_seconds, 1.0, None, ""),
        _row(
            "784-100-10, batch 128, an operating point",
            each,
            each / ngspice_seconds,
            float(points.residual.max()),
            str(points.iterations),
        ),
    ]
    return {
        "title": "deep resistive networks, ideal diodes, float32",
        "rows": rows,
        "ratio": ratio,
        "calls": medians["calls"] / medians["products"],
        "throughput_ratio": ngspice_seconds / each,
        "points_per_second": 1 / each,
        "followed": {
            "EP step / its two products": floor["ep"][0],
            "its products alone": floor["ep"][2],
            "calls and relaxation": clock.median("calls")[1] / unit,
            "operating point / ngspice's 25 ms": each / ngspice_seconds,
        },
        "machine": where,
    }


def _row(
    name: str,
    seconds: float,
    ratio: float,
    residual: float | None,
    sweeps: str,
    floor: tuple[float | None, ...] = (None, None, None),
) -> dict[str, object]:
    """A row, with the ratios in processor time, of multiplications, and of the time of these products alone."""
    cpu, count, alone = floor
    row = {"step": name, "ms": 1e3 * seconds, "ratio": ratio, "residual": residual, "sweeps": sweeps}
    return row | {"cpu": cpu, "count": count, "floor": alone}


def _digits(batch: int, generator: torch.Generator) -> torch.Tensor:
    """Inputs as sparse as handwritten digits."""
    x = torch.rand(batch, SIZES[0], generator=generator)
    return x * (torch.rand(x.shape, generator=generator) < 0.2)


if __name__ == "__main__":
    result = measured(__file__, __doc__, measure)
    print(result["title"], "|", result["machine"])
    for row in result["rows"]:
        told = (
            "" if row["count"] is None else f"cpu x{row['cpu']:.2f}  count {row['count']:.2f} ({row['floor']:.2f})"
        )
        print(f"{row['step']:44s} {row['ms']:10.4f} ms  x{row['ratio']:.3g}  {told}  {row['sweeps']}")
    times = f"{result['throughput_ratio']:.0f} times ngspice"
    print(f"{result['points_per_second']:.0f} operating points a second, {times}")
