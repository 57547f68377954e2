"""Names of the release before that nothing here uses any more (`physics_ep.moved` leads to them)."""

from __future__ import annotations

import os
from typing import Any

from matplotlib.axes import Axes

from hardware_models.devices.model import FIELDS

from .pcn.networks import predictive_network
from .subjects import Subject, trained

ONE_COLUMN, TWO_COLUMNS = 89.0, 183.0
"""Widths of figures before they were 85 and 178 mm, mm."""
PNG_DPI = 200
ADAPTATION: dict[str, Any] = {"ls": "-", "marker": "o", "ms": 1.8}
"""Line of a curve of `tolerance_layers` as it was drawn."""

NAMES = {name: told.axis for name, told in FIELDS.items() if told.errs}
SHORT = {name: told.short or name.replace("_", " ") for name, told in FIELDS.items() if told.errs}


def letter(ax: Axes, text: str) -> None:
    """Write a bold panel letter at the upper left, outside the axes; pages do that by themselves today."""
    place: dict[str, Any] = {"xycoords": "axes fraction", "xytext": (-22, 4), "textcoords": "offset points"}
    ax.annotate(text, (0, 1), fontsize=8, fontweight="bold", va="bottom", **place)


def trained_network(path: str | os.PathLike[str], **place: Any) -> Subject:
    """Read the predictive coding network of a run file, with a batch; keywords as of `subjects.trained`."""
    subject = trained(path, **place)
    predictive_network(subject)
    return subject
