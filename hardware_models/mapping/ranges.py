"""Ranges of the converters of readings: the largest values that a calibration has read, layer by layer.

A converter does not know what it is about to read, so that its range is set before: by a calibration set, whose
activities and errors h - u are read once without converters and noise. Values beyond are clipped.
"""

from __future__ import annotations

import torch

ACTIVITIES, ERRORS = 0, 1


class ReadingRanges:
    """Largest sizes of the activities and of the errors of each layer, in units of activity.

    Parameters
    ----------
    depth : int
        Layers.
    """

    def __init__(self, depth: int) -> None:
        self.largest: tuple[list[float], list[float]] = ([0.0] * depth, [0.0] * depth)

    def widen(self, kind: int, k: int, values: torch.Tensor) -> None:
        """Take in readings of layer k: `ACTIVITIES` or `ERRORS`."""
        self.largest[kind][k] = max(self.largest[kind][k], float(values.detach().abs().max()))
