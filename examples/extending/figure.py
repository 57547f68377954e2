"""A figure: the cost at equilibrium over the nudging strength, for three gains of a Hopfield network.

A figure is what is measured (a frozen dataclass), how it is drawn, and a row of the catalogue that joins the two.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from figures import style
from figures.catalogue import register_figure
from figures.requests import Drawn, Entry, Request
from figures.subjects import Subject, fresh_hopfield
from physics_ep import Nudge, relax


@dataclass(frozen=True)
class NudgedCosts:
    """Mean cost of the nudged equilibria over beta, a row a network."""

    betas: np.ndarray
    labels: tuple[str, ...]
    costs: np.ndarray


def nudged_costs(subjects: list[Subject], betas: np.ndarray) -> NudgedCosts:
    """Relax each network under each nudge, and take the cost of its outputs."""
    costs = [
        [float(s.cost(s.system.outputs(settle(s, beta)), s.y).mean()) for beta in betas.tolist()] for s in subjects
    ]
    return NudgedCosts(betas, tuple(s.label for s in subjects), np.array(costs))


def settle(subject: Subject, beta: float) -> tuple:
    """State of the equilibrium under a nudge; an error if there is none."""
    nudge = Nudge(subject.cost, subject.y, beta)
    return relax(subject.system, subject.x, nudge=nudge).require().state


@style.drawing
def draw_nudged_costs(data: NudgedCosts):
    """Draw a curve for each network."""
    figure, ((ax,),) = style.new_figure(style.COLUMN, 60)
    for k, (label, costs) in enumerate(zip(data.labels, data.costs, strict=True)):
        style.series(k).plot(ax, data.betas, costs, label=label)
    ax.set(xlabel="$\\beta$ (energy / cost)", ylabel="Cost at equilibrium (dimensionless)")
    style.legend(ax)
    return figure


def make(request: Request) -> Drawn:
    """Measure and draw what was asked for."""
    few = {"examples": 16, "seed": request.seed}
    subjects = [fresh_hopfield(f"gain {g}", [32], "tanh", g, **few) for g in (0.3, 0.5, 0.7)]
    data = nudged_costs(subjects, np.linspace(-0.4, 1.0, 8))
    return Drawn(draw_nudged_costs(data), asdict(data))


ENTRY = Entry("nudged_costs", "cost at equilibrium over the nudging strength", make)

if __name__ == "__main__":
    register_figure(ENTRY)
    style.save(make(Request()).figure, ENTRY.name, ".")
