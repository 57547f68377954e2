"""A tolerance table as text: a row a point, or a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .tolerance_table import TolerancePoint


def tolerance_rows(points: Sequence[TolerancePoint], verbose: bool) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: a row a point, or a layer, with a line for each target."""
    columns = ["device", "beta", "against", "1-cos", "layer", "error", "bias", "variance", "resid", "n", "s"]
    targets = ("transfer", "adaptation")
    rows = []
    for point in points:
        chosen = [(layer, layer) for layer in point.layers] if verbose else [map(point.worst_layer, targets)]
        for layers in map(tuple, chosen):
            found = [getattr(layer, target) for layer, target in zip(layers, targets, strict=True)]
            widths = [f"±{each.cosine_half_width:.0e}" if each.count > 1 else "" for each in found]
            cells = [
                ["transfer", "adapt."],
                [_exponential(1 - each.cosine) + width for each, width in zip(found, widths, strict=True)],
                [
                    layer.name.removeprefix("layers.") if verbose or each.count else ""
                    for layer, each in zip(layers, found, strict=True)
                ],
                *(
                    [_exponential(getattr(each, name)) for each in found]
                    for name in ("relative_error", "bias", "variance")
                ),
            ]
            rows.append(
                [
                    point.field if point.field in ("ideal", "base") else f"{point.field}\n  {point.value}",
                    f"{point.strength:.3g}" if point.strength > 0 else str(point.beta),
                    *map("\n".join, cells),
                    _exponential(point.residual, 0),
                    f"{point.repeats - point.unconverged}/{point.repeats}",
                    f"{point.seconds:.2g}",
                ]
            )
    return columns, rows


def _exponential(value: float, digits: int = 1) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}e}"
