"""Cost of one relaxation iteration of a convolutional Hopfield network over the convolutions that it must do.

    python -m validation.benchmarks.conv_hopfield
    physics-ep bench conv-hopfield

One thread, 3x32x32 images, 32-64-128 channels, batch 16, float32. An iteration updates every layer once, for which
it needs one convolution and one transposed convolution of each inner coupling (none of the clamped input's). These
alone, on tensors of the same shapes and memory order, are the unit; what comes on top is units, pooling, the
readout, the residual, the solver, and the constants of the phase.
"""

from __future__ import annotations

import torch
from torch.nn.functional import conv2d, conv_transpose2d

from hardware_models.hopfield.network import ConvHopfieldNetwork
from hardware_models.layers.maps import Filter
from physics_ep import placement
from physics_ep.cost import SquaredError
from physics_ep.extremes import greatest
from physics_ep.nudging import Nudge
from physics_ep.pooling import channels_last
from physics_ep.relaxation.loop import solve

from .timing import interleave, machine, measured

INPUT = (3, 32, 32)
CHANNELS = (32, 64, 128)
BATCH = 16


def measure(repeats: int = 20, threads: int = 1, seed: int = 0, iterations: int = 20) -> dict[str, object]:
    """Time bare convolutions, free phases and stacked nudged phases in one run.

    Parameters
    ----------
    repeats : int
        Timed rounds.
    threads : int
        CPU threads.
    seed : int
        Seed of data and weights.
    iterations : int
        Iterations over which the constants of each timed phase are spread.

    Returns
    -------
    dict
        `rows` (what, ms an iteration and example, ratio), `ratio` (the largest), `followed` (ratios by name),
        `machine`.
    """
    with placement.threads(threads), torch.no_grad():
        where = machine()
        rows = [row for pooling in ("average", "max") for row in _rows(pooling, repeats, seed, iterations)]
    return {
        "title": "32-64-128 channels on 3x32x32, batch 16, float32",
        "rows": rows,
        "ratio": greatest(float(row["ratio"]) for row in rows),  # type: ignore[arg-type]
        "followed": {row["iteration"]: row["ratio"] for row in rows if "bare" not in str(row["iteration"])},
        "machine": where,
    }


def _rows(pooling: str, repeats: int, seed: int, iterations: int) -> list[dict[str, object]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(BATCH, *INPUT, generator=generator)
    cost = SquaredError()
    y = cost.encode(torch.randint(0, 10, (BATCH,), generator=generator), 10, torch.float32)
    system = ConvHopfieldNetwork(INPUT, CHANNELS, 10, pooling=pooling, gain=1.0, seed=seed)
    inputs = system.prepare(x)
    free = system.phase(inputs)
    settled = solve(free, tolerance=1e-4)
    base = system.phase(inputs, origin=settled.state, balanced=True)
    nudged = base.stacked([Nudge(cost, y, 0.1), Nudge(cost, y, -0.1)])
    assert nudged is not None

    inner = [bound for bound in free.layers[1:] if isinstance(bound, Filter)]
    ends = []
    for bound, s in zip(inner, settled.state, strict=False):
        below = channels_last(s)
        ends.append((bound, below, torch.rand_like(bound.link.image_of(bound.kernel, below))))

    def convolve() -> None:
        for bound, below, above in ends:
            conv2d(below, bound.kernel, bound.bias, bound.link.stride, bound.link.padding)
            conv_transpose2d(above, bound.kernel, None, bound.link.stride, bound.link.padding)

    # A tolerance that no float32 state meets: every round runs through all its iterations.
    def run(phase: object, solver: str) -> None:
        solve(phase, solver=solver, tolerance=1e-30, max_iterations=iterations)  # type: ignore[arg-type]

    default = system.default_solver
    medians = interleave(
        {
            "bare convolutions": convolve,
            f"free phase, {default}": lambda: run(free, default),
            f"nudged phases, {default}": lambda: run(nudged, default),
            "free phase, coordinate": lambda: run(free, "coordinate"),
        },
        repeats,
        warmup=1,
    )
    unit = medians["bare convolutions"] / BATCH
    rows: list[dict[str, object]] = []
    for what, seconds in medians.items():
        rounds = 1 if what == "bare convolutions" else iterations
        examples = 2 * BATCH if what.startswith("nudged") else BATCH
        each = seconds / (rounds * examples)
        rows.append({"iteration": f"{pooling} pooling, {what}", "ms": 1e3 * each, "ratio": each / unit})
    return rows


if __name__ == "__main__":
    result = measured(__file__, __doc__, measure)
    print(result["title"], "|", result["machine"])
    for row in result["rows"]:
        print(f"{row['iteration']:44s} {row['ms']:8.3f} ms an example  x{row['ratio']:.2f}")
