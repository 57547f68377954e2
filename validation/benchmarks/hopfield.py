"""Cost of a centered EP step of a Hopfield network over a forward and backward pass of an MLP of its shape.

    python -m validation.benchmarks.hopfield
    physics-ep bench hopfield

One thread, 784-1024-10, batch 128, float32, relative residual 1e-6. The products that an EP step needs: one drive
W x of the input, shared by all phases, and one weight contrast against x: as many large products as backprop has.
All else is the relaxation on the 10 outputs, which each example makes by itself in compiled code
(`hardware_models.layers.few_outputs`): on a busy AMD EPYC 1.7 to 1.8 backprops in all, 2.2 to 2.3 by products of
whole batches. Those are what is counted, and what the floor is the time of.
"""

from __future__ import annotations

import torch
from torch import nn

from hardware_models.hopfield.network import HopfieldNetwork
from hardware_models.layers.few_outputs import whole_batches
from physics_ep import placement
from physics_ep.cost import SquaredError
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.extremes import greatest
from physics_ep.nudging import Nudge
from physics_ep.relaxation.loop import solve

from .counting import floors
from .steps import Clock
from .timing import interleave, machine, measured

SIZES = (784, 1024, 10)
BATCH = 128


def measure(repeats: int = 60, threads: int = 1, seed: int = 0) -> dict[str, object]:
    """Time both steps in one run, and certify the EP step's equilibria.

    Parameters
    ----------
    repeats : int
        Timed rounds.
    threads : int
        CPU threads.
    seed : int
        Seed of data and weights.

    Returns
    -------
    dict
        `rows` (contender, milliseconds, ratio, residual, iterations; `cpu`, the ratio in processor time, `count`,
        that of multiplications, and `floor`, the processor time of these products alone over a backprop step),
        `ratio`, `relaxation` (of all phases, over a backprop step), `followed` (ratios in processor time, by name),
        `machine`.
    """
    with placement.threads(threads):
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(BATCH, SIZES[0], generator=generator)
        # As sparse as a handwritten digit, so that drives have their usual size.
        x = x * (torch.rand(x.shape, generator=generator) < 0.2)
        labels = torch.randint(0, SIZES[-1], (BATCH,), generator=generator)
        cost = SquaredError()
        y = cost.encode(labels, SIZES[-1], torch.float32)
        system = HopfieldNetwork(SIZES, seed=seed)
        ep = EquilibriumPropagation(cost, beta=0.1, tolerance=1e-6)
        mlp = nn.Sequential(nn.Linear(SIZES[0], SIZES[1]), nn.ReLU(), nn.Linear(SIZES[1], SIZES[2]))

        def backprop() -> None:
            mlp.zero_grad()
            cost(mlp(x), y).mean().backward()

        def propagate() -> None:
            system.zero_grad()
            ep.backward(system, x, y)

        with torch.no_grad():
            inputs = system.prepare(x)
            settled = solve(system.phase(inputs), tolerance=1e-6).state
            nudges = [Nudge(cost, y, 0.1), Nudge(cost, y, -0.1)]

        def settle() -> None:
            with torch.no_grad():
                solve(system.phase(inputs), tolerance=1e-6)
                nudged = system.phase(inputs, origin=settled, balanced=True).stacked(nudges)
                assert nudged is not None
                solve(nudged, tolerance=1e-7)

        where = machine()
        calls = {"backprop": backprop, "ep": propagate, "relaxation": settle}
        clock = Clock()
        medians = interleave(clock.around(calls), repeats)
        with whole_batches():  # in which all products are torch's, and can be counted
            found = floors(calls, repeats)
        system.zero_grad()
        step = ep.backward(system, x, y)
    unit = clock.median("backprop")[1]
    floor = {
        name: {
            "cpu": clock.median(name)[1] / unit,
            "count": count / found["backprop"][0],
            "floor": alone / unit,
        }
        for name, (count, alone) in found.items()
    }
    ratio = medians["ep"] / medians["backprop"]
    residual = greatest(float(e.residual.max()) for e in step.equilibria)
    sweeps = "/".join(str(e.iterations) for e in step.equilibria)
    return {
        "title": "784-1024-10, batch 128, float32",
        "rows": [
            {
                "step": "MLP forward and backward",
                **floor["backprop"],
                "ms": 1e3 * medians["backprop"],
                "ratio": 1.0,
                "residual": None,
                "sweeps": "",
            },
            {
                "step": "Hopfield, centered EP",
                **floor["ep"],
                "ms": 1e3 * medians["ep"],
                "ratio": ratio,
                "residual": residual,
                "sweeps": sweeps,
            },
            {
                "step": "of which its relaxation",
                **floor["relaxation"],
                "ms": 1e3 * medians["relaxation"],
                "ratio": medians["relaxation"] / medians["backprop"],
                "residual": None,
                "sweeps": "",
            },
        ],
        "ratio": ratio,
        "relaxation": medians["relaxation"] / medians["backprop"],
        "followed": {
            "EP step / an MLP's backprop": floor["ep"]["cpu"],
            "its relaxation": floor["relaxation"]["cpu"],
            "its products alone": floor["ep"]["floor"],
        },
        "machine": where,
    }


if __name__ == "__main__":
    result = measured(__file__, __doc__, measure)
    print(result["title"], "|", result["machine"])
    for row in result["rows"]:
        print(
            f"{row['step']:28s} {row['ms']:8.2f} ms  x{row['ratio']:.2f}  cpu x{row['cpu']:.2f}  "
            f"count {row['count']:.2f} ({row['floor']:.2f} in time)  {row['sweeps']}"
        )
