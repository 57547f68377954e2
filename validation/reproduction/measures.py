"""Measurements that rows are made of where they are no trainings: a seed in, a number out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hardware_models.devices.presets import PRESETS
from hardware_models.hopfield import HopfieldNetwork
from hardware_models.mapping.mapped import map_pcn
from hardware_models.resistive import ResistiveNetwork
from physics_ep.config import parse_config
from physics_ep.cost import SquaredError
from physics_ep.data.datasets import digits, load_dataset
from physics_ep.errors import InputError
from physics_ep.estimators.coupled_learning import CoupledLearning
from physics_ep.estimators.propagation import EquilibriumPropagation
from physics_ep.extremes import least
from physics_ep.predictive_coding import mlp, vgg10
from physics_ep.registry import build_system
from physics_ep.relaxation.loop import relax
from physics_ep.runs.preparation import load_weights
from physics_ep.storage.run_file import Run

from ..benchmarks import pcn
from ..benchmarks.steps import photograph_like
from ..oracles import implicit_gradient
from ..theory.early_inference import infer_early

FITTED = (1e-10, 1e-2)
"""Errors between which a slope is fitted: above rounding and what phases are settled to, below where higher orders
count."""


def holomorphic_order(seed: int, points: int) -> float:
    """Order of the error of holomorphic EP on a logistic Hopfield network in the nudging strength.

    Laborieux and Zenke 2022: the first Fourier coefficient over N points of a circle is off by O(b^N). The slope of
    the logarithm of the error, against implicit differentiation, over that of the nudging strength.

    Parameters
    ----------
    seed : int
        Seed of weights and examples.
    points : int
        N.
    """
    network = HopfieldNetwork([8, 10, 4], activation="logistic", gain=1.0, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(6, 8, generator=generator, dtype=torch.float64)
    y = torch.eye(4, dtype=torch.float64)[torch.randint(0, 4, (6,), generator=generator)]
    exact = implicit_gradient(network, x, y, SquaredError())
    scale = sum(float(g.square().sum()) for g in exact.values()) ** 0.5
    strengths, errors = np.geomspace(0.02, 0.4, 12), []
    for beta in strengths:
        network.zero_grad()
        ep = EquilibriumPropagation(
            SquaredError(), scheme=f"holomorphic:{points}", beta=float(beta), tolerance=1e-13, max_iterations=2000
        )
        ep.backward(network, x, y)
        off = sum(
            float((p.grad - exact[name]).square().sum())
            for name, p in network.named_parameters()
            if p.grad is not None
        )
        errors.append(off**0.5 / scale)
    found = np.array(errors)
    used = (found > FITTED[0]) & (found < FITTED[1])
    if used.sum() < 3:
        raise InputError(f"Fewer than three errors of holomorphic EP with {points} points can be fitted.")
    return float(np.polyfit(np.log(strengths[used]), np.log(found[used]), 1)[0])


def early_inference(seed: int, time: float = 0.1) -> float:
    """Cosine of early displacements to back-propagated errors on digits: the worst layer and example.

    Five tanh layers of width 128 at gain sqrt(3), nudging 1e-3, squared-error predictive coding; the time is in
    time constants. A claim of Bengio and Fischer 2015, with the figure of this project's notes.
    """
    network = mlp([64, 128, 128, 128, 128, 10], "tanh", gain=3**0.5, seed=seed)
    data = digits()
    x, labels = data.train_x[:16].flatten(1), data.train_y[:16]
    found = infer_early(network, x, SquaredError().encode(labels, 10, x.dtype), SquaredError(), times=(time,))
    return least(row.cosine for row in found.rows)


def vgg10_cost(seed: int, side: int) -> float:
    """Processor time of a mod-PGD step, K = 10, both signs, over that of a backprop step; VGG10, batch 4.

    One step of mod-PGD is timed, between backprop steps before and after it.
    """
    case = pcn.Case(
        "vgg10",
        lambda number: vgg10(input_shape=(3, side, side), seed=number),
        SquaredError(),
        4,
        (),
        rounds=2,
        warmup=1,
        slow=(pcn.REACHED,),
    )
    rows: Any = pcn.measure(2, seed, 1, (case,))["rows"]
    return next(float(row["cpu"]) for row in rows if row["step"] == pcn.REACHED.name)


def vgg10_energy(seed: int, preset: str, side: int) -> float:
    """Joules that an inference of one image takes on VGG10 mapped to Hopfield circuits, by the rows of its budget.

    Untrained weights; the seed draws them, the devices and the two images that full scales come from. Parts that
    the preset has no figure for (readings) count as nothing.
    """
    network = vgg10(input_shape=(3, side, side), seed=seed)
    images = photograph_like(2, (3, side, side), torch.Generator().manual_seed(seed))
    found = map_pcn(network, "hopfield", PRESETS[preset], seed, calibration=images).fidelity
    if not found.free_converged:
        raise InputError(f"Mapped VGG10 of seed {seed} has no free state, and so no energy an inference.")
    return found.energy


def rounding(seed: int, run: Run, weight_bits: int, phase_bits: int) -> float:
    """Test error of trained oscillators with weights and readings rounded, less that before; in percentage points.

    Couplings are rounded to `weight_bits` as the device holds them (`hardware_models.oscillators.layers.rounded`),
    and the free phases that outputs are read of to 2^phase_bits steps a turn. Where several outputs then read the
    same, one of them is picked at random: the mean error over picks is counted. Examples without a free state count
    as misclassified.
    """
    config = parse_config(run.config)
    data = load_dataset(config.data)
    section = dict(run.config["system"])
    section.pop("weights", None)
    name = section.pop("name")
    errors = []
    for bits in ({}, {"weight_bits": weight_bits, "phase_bits": phase_bits}):
        system: Any = build_system(name, **{**section, **bits})
        load_weights(system, run)
        right = total = 0.0
        for x, y in zip(data.test_x.split(500), data.test_y.split(500), strict=True):
            free = relax(system, x, solver=config.ep.solver, tolerance=config.ep.tolerance)
            read = tuple(phi + system.read(phi, torch.zeros_like(phi)) for phi in free.state)
            scores = system.scores(system.outputs(read))[free.converged]
            # Cosines of one and the same step, left and right of 0, differ by rounding of the arithmetic.
            top = scores >= scores.amax(1, keepdim=True) - 1e-6
            right += float((top.gather(1, y[free.converged][:, None])[:, 0] / top.sum(1)).sum())
            total += len(x)
        errors.append(1 - right / total)
    return 100 * (errors[1] - errors[0])


def coupled_regression(seed: int, steps: int = 300) -> float:
    """Squared error of a resistor network after coupled learning of a linear map, over the one before.

    Coupled learning (Stern et al. 2021) with a fraction of 0.1; two sources, two outputs, targets that another
    resistor network gives, so that they can be reached.
    """
    options: dict[str, Any] = {"diode": "none", "input_gain": 1.0, "scale": 1.0}
    network = ResistiveNetwork([2, 8, 2], seed=seed, **options).double()
    teacher = ResistiveNetwork([2, 8, 2], seed=seed + 1000, **options).double()
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(64, 2, generator=generator, dtype=torch.float64)
    y = teacher.outputs(relax(teacher, x).require().state).detach()
    errors = _learnt(network, x, y, steps, rate=1.0)
    return errors[-1] / errors[0]


def coupled_classification(seed: int, steps: int = 300) -> float:
    """Fraction of test digits 0, 1 and 2 misclassified by resistors and ideal diodes after coupled learning."""
    data = digits()
    network = ResistiveNetwork([64, 32, 3], diode="ideal", input_gain=4.0, scale=1.0, seed=seed).double()
    train, test = data.train_y < 3, data.test_y < 3
    x = data.train_x[train].flatten(1).double()
    y = torch.eye(3, dtype=torch.float64)[data.train_y[train]]
    _learnt(network, x, y, steps, rate=0.02)
    outputs = network.outputs(relax(network, data.test_x[test].flatten(1).double()).require().state)
    return float((outputs.argmax(1) != data.test_y[test]).double().mean())


def _learnt(network: ResistiveNetwork, x: torch.Tensor, y: torch.Tensor, steps: int, rate: float) -> list[float]:
    """Mean squared errors of the free outputs, before each step of coupled learning on all examples."""
    rule = CoupledLearning(0.1)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    errors = []
    for _ in range(steps):
        optimizer.zero_grad()
        step = rule.backward(network, x, y)
        errors.append(float(step.loss))
        optimizer.step()
        network.constrain()
    return errors


MEASURES: dict[str, Callable[..., float]] = {
    "holomorphic_order": holomorphic_order,
    "early_inference": early_inference,
    "vgg10_cost": vgg10_cost,
    "vgg10_energy": vgg10_energy,
    "rounding": rounding,
    "coupled_regression": coupled_regression,
    "coupled_classification": coupled_classification,
}
"""Name in a recipe to the function (seed, **options) -> number."""
