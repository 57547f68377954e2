"""Gradients of VGG10 on imperfect hardware, layer by layer: the network of the paper, mapped and broken.

    python -m validation.benchmarks.layer_sizes --images DIR --out FILE.h5 [--size 64] [--repeats 10] [--resume]
        [--substrate hopfield|resistive|oscillator] [--network vgg10|vgg10-skip|ZOO NAME] [--gates held|live|both]
    python -m validation.benchmarks.layer_sizes --images DIR --out PHOTOS.npz --size 224 --prepare
    python -m validation.benchmarks.layer_sizes --images PHOTOS.npz --out FILE.h5 --device cuda      # 224x224

One imperfection at a time, over device instances. Every gradient is judged in float64 on the CPU, also where the
circuit is simulated in float32 on a GPU: by backprop of the ideal network (transfer), by backprop through the
arrays that drive h (feedforward), and by the implicit gradient of the physical network (adaptation). Points are
kept as they come. With photographs prepared beforehand it needs torch, numpy, scipy and h5py alone.

Devices that leave h and u unequal are followed in time and take some ten times longer: `--part slow`. All
substrates in one run: `validation.benchmarks.signature`.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hardware_models.devices.model import DeviceModel, reads
from hardware_models.mapping.mapped import substrate_class
from physics_ep.cost import CrossEntropy
from physics_ep.errors import InputError, argument_error
from physics_ep.extremes import greatest
from physics_ep.placement import resolve_device
from physics_ep.predictive_coding import vgg10, vgg10_skip
from physics_ep.progress import Advance
from physics_ep.storage.outputs import write_json, writing
from physics_ep.system import EnergySystem
from physics_ep.zoo import zoo, zoo_network
from validation.sweeps.plan import parse_betas
from validation.sweeps.points import TARGETS
from validation.sweeps.table import ToleranceTable
from validation.sweeps.tolerances import tolerance

from .timing import machine

BASE = DeviceModel(drift_exponent=0.05, drift_spread=0.01)
"""Phase change memory's drift (Joshi et al. 2020), where `drift_time` is swept."""

FAST: dict[str, tuple[Any, ...]] = {
    "levels": (16, 64, 256),
    "programming_noise": (0.003, 0.01, 0.03),
    "device_mismatch": (0.03, 0.1, 0.3),
    "stuck_off": (0.001, 0.01, 0.1),
    "drift_time": (1e3, 1e5, 1e7),
    "copy_mismatch_transpose": (0.01, 0.03, 0.1),
    "conductance_noise": (0.01, 0.03, 0.1),
    "read_noise": (1e-9, 1e-7, 1e-5),
    "temperature": (300.0,),
    "wire_resistance": (0.01, 0.1, 1.0),
    "dac_bits": (4, 6, 8),
    "adc_bits": (4, 8, 12),
}
SLOW: dict[str, tuple[Any, ...]] = {
    "copy_mismatch_u": (1e-4, 1e-3, 1e-2),
    "amplifier_offset": (1e-5, 1e-4, 1e-3),
    "amplifier_gain": (1e-4, 1e-3, 1e-2),
    "amplifier_saturation": (0.5, 0.7, 0.9),
    "time_constant_mismatch": (-0.01, 0.01),
}
OWN: dict[str, dict[str, dict[str, tuple[Any, ...]]]] = {
    "resistive": {
        "slow": {"diode_current": (1e-12, 1e-9)},
    },
    "oscillator": {
        "fast": {"phase_noise": (1e-8, 1e-4, 1.0)},
        "slow": {"detuning": (1e-5, 1e-4, 1e-3)},
    },
}
"""Sweeps of what only one substrate has."""
NETWORKS = {"vgg10": vgg10, "vgg10-skip": vgg10_skip}


def sweeps_of(substrate: str, part: str) -> dict[str, tuple[Any, ...]]:
    """Fields and values that a substrate is measured with; part 'fast', 'slow', 'all', or 'ideal': none."""
    effects = substrate_class(substrate).effects
    plain: dict[str, tuple[Any, ...]] = {}
    for name, fields in (("fast", FAST), ("slow", SLOW)):
        if part in (name, "all"):
            plain |= {f: v for f, v in fields.items() if reads(f, effects)}
            plain |= OWN.get(substrate, {}).get(name, {})
    if substrate == "oscillator":
        # Followed in time, oscillators near a threshold do not settle within any budget of a sweep.
        plain.pop("time_constant_mismatch", None)
    return plain


GIB = 2**30


class Lines:
    """Progress as a line a point."""

    def task(self, description: str, total: int) -> Lines:
        self.done, self.total, self.began = 0, total, time.perf_counter()
        return self

    def __enter__(self) -> Advance:
        return self._advance

    def __exit__(self, *_: object) -> None:
        return None

    def _advance(self, n: int = 1, **info: Any) -> None:
        self.done += n
        seconds = time.perf_counter() - self.began
        words = "  ".join(f"{name} {value}" for name, value in info.items())
        print(f"{self.done}/{self.total}  {seconds:.0f} s  {words}", flush=True)


def photographs(images: Path, size: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(x, labels) of a folder, or of a file that `--prepare` has written."""
    if images.suffix != ".npz":
        # Reading folders needs pydantic, which a machine with prepared photographs may lack.
        from physics_ep.data import batches

        return batches.photographs(images, size, count, 0)
    if not images.is_file():
        raise argument_error("images", "be a folder or a prepared .npz file", str(images))
    with np.load(images) as kept:
        x, labels = torch.from_numpy(kept["x"]), torch.from_numpy(kept["labels"])
    if x.shape[-1] != size or len(x) < count:
        raise argument_error("images", f"hold {count} photographs of {size} rows", f"{len(x)} of {x.shape[-1]}")
    return x[:count], labels[:count]


def measured(arguments: argparse.Namespace) -> ToleranceTable:
    """The sweep that the command line asks for."""
    size, where = arguments.size, resolve_device(arguments.device)
    if arguments.weights is not None and not arguments.weights.is_file():
        raise argument_error("weights", "be a file that torch.save has written", str(arguments.weights))
    x, labels = photographs(arguments.images, size, arguments.batch)
    net: EnergySystem
    if arguments.network in zoo():
        net = zoo_network(arguments.network)
    else:
        net = NETWORKS[arguments.network](input_shape=(3, size, size), gain=arguments.gain, width=arguments.width)
    if arguments.weights is not None:
        net.load_state_dict(torch.load(arguments.weights, weights_only=True))
    if str(where).startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    net, x, labels = net.to(where), x.to(where), labels.to(where)
    betas = parse_betas(arguments.beta)
    chosen = sweeps_of(arguments.substrate, arguments.part)
    if arguments.fields is not None:
        wanted = arguments.fields.split(",")
        chosen = {field: values for field, values in chosen.items() if field in wanted}
    return tolerance(
        net,
        x,
        labels,
        CrossEntropy(),
        device=BASE if "drift_time" in chosen else DeviceModel(),
        substrate=arguments.substrate,
        sweeps=chosen,
        betas=betas,
        gates=arguments.gates,
        method="energy",  # what ordinary EP makes of copies that differ
        repeats=arguments.repeats,
        out=arguments.out,
        resume=arguments.resume,
        progress=Lines(),
        oracle_device="cpu",
    )


def lines(table: ToleranceTable) -> list[str]:
    """A row a point: 1 - the worst weight's cosine to each reference, mean over the instances, and the share of the
    examples that have a free state."""
    titles = f"{'transfer':>11s}{'feedforward':>13s}{'adaptation':>12s}{'free':>6s}{'found':>8s}{'s':>8s}"
    found = [f"{'field':26s}{'value':>10s}{'beta':>10s}{titles}"]
    for point, mode in (pair for each in table.points for pair in each.by_gates):
        worst = [
            greatest(1 - getattr(layer, target).cosine for layer in point.layers if "weight" in layer.name)
            for target in TARGETS
        ]
        value = "" if point.value is None else f"{point.value:g}"
        ran = f"{point.repeats - point.unconverged}/{point.repeats}"
        name = f"{point.field} ({mode} gates)" if mode else point.field
        found.append(
            f"{name:26s}{value:>10s}{point.beta!s:>10.9s}{worst[0]:11.1e}{worst[1]:13.1e}"
            f"{worst[2]:12.1e}{point.free_share:6.0%}{ran:>8s}"
            f"{point.seconds:8.1f}"
        )
    return found


def options(name: str, description: str | None) -> argparse.ArgumentParser:
    """What the command line may ask for."""
    parser = argparse.ArgumentParser(prog=f"python -m validation.benchmarks.{name}", description=description)
    parser.add_argument("--images", type=Path, required=True, help="folder of labelled photographs")
    parser.add_argument("--out", type=Path, required=True, help="sweep file, HDF5; a .json of the table beside it")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--prepare", action="store_true", help="write the photographs to --out, and stop")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=None, help="rows of an image; 224 on a GPU, else 64")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=10, help="device instances a point")
    parser.add_argument("--beta", default="auto", help="nudging strengths, separated by commas")
    parser.add_argument("--gain", type=float, default=1.0)
    parser.add_argument("--width", type=float, default=1.0, help="share of the channels")
    parser.add_argument("--weights", type=Path, default=None, help="state_dict of a trained network (torch.save)")
    parser.add_argument("--part", choices=("all", "fast", "ideal", "slow"), default="fast")
    parser.add_argument("--fields", default=None, help="only these of the part's, separated by commas")
    parser.add_argument(
        "--network", choices=[*sorted(NETWORKS), *zoo("cifar10")], default="vgg10", help="or one trained"
    )
    parser.add_argument("--gates", choices=("held", "live", "both"), default="held", help="of ReLUs, when nudged")
    return parser


def figures_of(arguments: argparse.Namespace) -> tuple[dict[str, Any], ToleranceTable]:
    """Run the sweep that the command line asks for; return its figures (machine, seconds, memory, table) as a dict
    for JSON, and the table of the sweep."""
    began = time.perf_counter()
    table = measured(arguments)
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    peak = torch.cuda.max_memory_allocated() / GIB if arguments.device.startswith("cuda") else 0.0
    figures = {
        "machine": machine(),
        "network": arguments.network,
        "substrate": arguments.substrate,
        "size": arguments.size,
        "batch": arguments.batch,
        "repeats": arguments.repeats,
        "gates": arguments.gates,
        "seconds": time.perf_counter() - began,
        "peak_host_GiB": host,
        "peak_device_GiB": peak,
        "table": table.figures(),
    }
    return figures, table


def prepared(arguments: argparse.Namespace) -> bool:
    """Settle the size; whether only photographs were to be written, which is done then."""
    if arguments.size is None:
        arguments.size = 224 if arguments.device.startswith("cuda") else 64
    if arguments.prepare:
        x, labels = photographs(arguments.images, arguments.size, arguments.batch)
        with writing("validation.benchmarks.layer_sizes") as call:
            np.savez(call.claim("out", arguments.out), x=x.numpy(), labels=labels.numpy())
    return bool(arguments.prepare)


def main(words: list[str] | None = None) -> None:
    """Run the sweep of layer sizes by the options of its command line."""
    parser = options("layer_sizes", __doc__)
    parser.add_argument("--substrate", default="hopfield")
    arguments = parser.parse_args(words)
    try:
        if prepared(arguments):
            return
        figures, table = figures_of(arguments)
    except InputError as error:
        sys.exit(f"layer_sizes: {error}")
    with writing("validation.benchmarks.layer_sizes") as call:
        write_json(call.claim("out", arguments.out.with_suffix(".json")), figures)
    print("\n".join(lines(table)))
    told = (
        f"peak {figures['peak_host_GiB']:.1f} GiB on the host, {figures['peak_device_GiB']:.1f} GiB on the device"
    )
    print(f"{figures['seconds']:.0f} s; {told}")


if __name__ == "__main__":
    main()
