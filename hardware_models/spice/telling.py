"""What `spice check` tells of a comparison, and where it ends with status 1."""

from __future__ import annotations

from pathlib import Path

from physics_ep.command_options import Report
from physics_ep.tabular import save_figure

from .check import CheckedCircuit, SpiceAgreement
from .given import NetlistAgreement, compare_netlist

APART_NODES = 8
"""Nodes that are told of each analysis of a netlist, unless verbose: those that differ most."""
AS_GIVEN = 1e-6
"""Volts that operating points of a netlist's own text may differ by, at least: reverse diodes with RS do."""


class SpiceDisagreementError(Exception):
    """Raised when ngspice finds other voltages, or another gradient, than we do."""

    exit_status = 1


def tell_netlist(report: Report, path: Path, figure: Path | None, verbose: bool) -> NetlistAgreement:
    """Compare a netlist's own text with ngspice, and tell what differs."""
    found = compare_netlist(path, progress=report.progress())
    for note in found.notes:
        report.say(f"note: {note}")
    count = None if verbose else APART_NODES
    rows = [
        [row["node"], f"{row['ours']:.12g}", f"{row['ngspice']:.12g}", f"{row['difference']:.1e}"]
        for row in found.records()[:count]
    ]
    title = f"{path}: operating point, as ngspice reads it, worst of {len(found.nodes)} nodes"
    report.table(title, ["node", "ours, V", "ngspice, V", "difference, V"], rows)
    for name, course in found.courses.items():
        rows = [
            [row["node"], f"{row['difference']:.1e}", f"{row['at']:.4g}", f"{row['largest']:.3g}"]
            for row in course.rows()[:count]
        ]
        report.table(
            f"{name}, worst of {len(course.nodes)} nodes",
            ["node", "difference, V", f"at, {course.unit}", "largest, V"],
            rows,
        )
    if figure is not None:
        save_figure(found.plot(), figure)
        report.say(f"figure: {figure}")
    return found


def tell_phases(report: Report, name: str, subject: CheckedCircuit, found: SpiceAgreement) -> None:
    """Tell what differs between phases by both programs, and between gradients."""
    report.table(
        f"{name}: {len(subject.circuit.parts.nodes)} nodes, {len(subject.sources)} example(s), ours and ngspice",
        ["phase", "worst difference, V", "at node", "our residual, A"],
        [[row.phase, f"{row.difference:.1e}", row.node, f"{row.residual:.1e}"] for row in found.rows],
    )
    report.say(f"nudged phases follow {found.method}")
    for parameter, error in found.gradient.items():
        report.say(f"gradient by {parameter}, computed within ngspice: relative error {error:.1e}")


def require_agreement(
    given: NetlistAgreement | None, found: SpiceAgreement, volts: float, gradient: float, course: float
) -> None:
    """Raise SpiceDisagreementError where ngspice makes something else of a netlist's text, or of the phases.

    Parameters
    ----------
    given : NetlistAgreement or None
        Of a netlist's own text.
    found : SpiceAgreement
    volts : float
        Largest difference of node voltages; of a netlist's text at least `AS_GIVEN`.
    gradient : float
        Largest relative error of a gradient.
    course : float
        Largest difference over time and frequency, over the largest voltage of the node.
    """
    if given is not None:
        if not given.worst <= max(volts, AS_GIVEN):
            limit = f"{max(volts, AS_GIVEN):g}"
            raise SpiceDisagreementError(
                f"operating points of the netlist differ by {given.worst:.2e} V, more than {limit}"
            )
        for name, each in given.courses.items():
            if not each.worst <= course:
                limit = f"--course-tolerance {course:g}"
                raise SpiceDisagreementError(
                    f"the {name} of the netlist differs by {each.worst:.2e} of a node's voltage, more than {limit}"
                )
    if not found.worst <= volts:
        raise SpiceDisagreementError(f"voltages differ by {found.worst:.2e} V, more than --tolerance {volts:g}")
    for name, error in found.gradient.items():
        if not error <= gradient:
            limit = f"--gradient-tolerance {gradient:g}"
            raise SpiceDisagreementError(f"gradients by {name} differ by {error:.2e}, more than {limit}")
