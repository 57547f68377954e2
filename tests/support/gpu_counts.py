"""What a step asks of the device, kept in a table: launches, waits, uploads and bytes may not creep up.

    python -m tests.support.gpu_counts                # measures every row, and writes the table
    python -m tests.support.gpu_counts hopfield pcn   # these rows only

The table binds for the pinned torch only, on whose simulated device it is measured; another version splits its
functions into other operators.
"""

from __future__ import annotations

import json
import sys

import torch

from tests.support.device_systems import CASES, FOLLOWED, DeviceCase
from tests.support.paths import ROOT
from tests.support.simulated_gpu import Counts, SimulatedGpu

TABLE = ROOT / "tests" / "data" / "gpu_counts.json"
COUNTED = CASES | FOLLOWED
ROOM = 1.10
"""A step may ask for this times what its row says: more needs a new table, and a reason in the commit."""


def step(case: DeviceCase, gpu: SimulatedGpu | None = None) -> tuple[dict[str, torch.Tensor], Counts]:
    """Gradients (on the CPU) of an EP step, and what the step after it asks of the device: CPU without `gpu`."""
    system, x, y = case.ready("cpu" if gpu is None else "cuda")
    ep = case.estimator()
    ep.backward(system, x, y)
    gradients = {name: p.grad.cpu() for name, p in system.named_parameters() if p.grad is not None}
    if gpu is None:
        return gradients, Counts()
    system.zero_grad(set_to_none=True)
    with gpu.counting() as counts:
        ep.backward(system, x, y)
    return gradients, counts


def row(counts: Counts) -> dict[str, int]:
    """A row of the table: launches, waits, uploads, and the most bytes in use above those at the beginning."""
    peak = counts.peak_bytes - counts.start_bytes
    return {"launches": counts.launches, "waits": counts.waited, "uploads": counts.uploads, "peak_bytes": peak}


def exceeded(found: dict[str, int], kept: dict[str, int]) -> list[str]:
    """What a row has too much of, in words."""
    return [f"{key}: {n} where the table has {kept[key]}" for key, n in found.items() if n > ROOM * kept[key]]


def table() -> dict[str, dict[str, int]]:
    """The rows that are kept, by name of the case."""
    rows: dict[str, dict[str, int]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return rows


def main(names: list[str]) -> None:
    """Measure the rows of these names, or all, and write the table."""
    torch.set_num_threads(1)
    rows = table() if names else {}
    for name, case in COUNTED.items():
        if names and name not in names:
            continue
        with SimulatedGpu() as gpu:
            rows[name] = row(step(case, gpu)[1])
        print(name, rows[name], flush=True)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(rows[name])}" for name in COUNTED if name in rows)
    TABLE.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
