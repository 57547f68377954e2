"""Parts of circuit diagrams, drawn on axes whose unit is some millimetre: wires, resistors, amplifiers, nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch, Polygon
from matplotlib.transforms import Affine2D

from .. import style

Point = tuple[float, float]

THIN, WIRE = 0.7, 1.0
"""Line widths of parts and of wires, points."""
FONT = 7


class Sheet:
    """Axes to draw a circuit on.

    Parameters
    ----------
    ax : Axes
    width, height : float
        Width and height of the drawing, in its own units; both axes have the same scale.
    """

    def __init__(self, ax: Axes, width: float, height: float) -> None:
        self.ax = ax
        ax.set_axis_off()
        ax.set_aspect("equal")
        ax.set_xlim(0, width)
        ax.set_ylim(0, height)

    def wire(self, *points: Point, color: str = style.BLACK, arrow: bool = False, **look: Any) -> None:
        """A line through points, with an arrow head at its end."""
        x, y = zip(*points, strict=True)
        options = {"color": color, "lw": WIRE, "solid_joinstyle": "round", "solid_capstyle": "round", "zorder": 2}
        if not arrow:
            self.ax.plot(x, y, **{**options, **look})
            return
        tip, before = np.array(points[-1]), np.array(points[-2])
        along = (tip - before) / np.linalg.norm(tip - before)
        base = tip - 1.7 * along
        self.ax.plot([*x[:-1], base[0]], [*y[:-1], base[1]], **{**options, **look})
        side = 0.75 * np.array([-along[1], along[0]])
        head = Polygon([tip, base + side, base - side], closed=True, fc=color, ec=color, lw=0.3, zorder=3)
        self.ax.add_patch(head)

    def hop(self, start: Point, end: Point, over: float, **look: Any) -> None:
        """Draw a horizontal wire, at the height of `start`, that jumps in a half circle over a vertical wire at x =
        `over`. `look` has the wire's colour, and further options of matplotlib's `Axes.plot`."""
        turn = np.linspace(0, np.pi, 20)
        (x0, y), (x1, _) = start, end
        way = 1.0 if x1 > x0 else -1.0
        arc = [(over - way * 1.3 * np.cos(t), y + 1.3 * np.sin(t)) for t in turn]
        self.wire(start, *arc, end, **look)

    def dot(self, at: Point, color: str = style.BLACK, size: float = 0.65) -> None:
        """Draw a junction of wires."""
        self.ax.add_patch(Circle(at, size, fc=color, ec="none", zorder=4))

    def resistor(
        self,
        start: Point,
        end: Point,
        color: str = style.BLACK,
        length: float = 4.0,
        width: float = 1.7,
        **look: Any,
    ) -> None:
        """A bar on the way from one point to another."""
        a, b = np.array(start), np.array(end)
        middle, span = (a + b) / 2, float(np.linalg.norm(b - a))
        along = (b - a) / span
        for tip, side in ((a, -1), (b, 1)):
            self.wire(tuple(tip), tuple(middle + side * length / 2 * along), color=color, lw=THIN)
        angle = float(np.degrees(np.arctan2(along[1], along[0])))
        turned = Affine2D().rotate_deg(angle).translate(*middle) + self.ax.transData
        corners = [
            (-length / 2, -width / 2),
            (length / 2, -width / 2),
            (length / 2, width / 2),
            (-length / 2, width / 2),
        ]
        options = {"fc": "white", "ec": color, "lw": THIN, "zorder": 3, "joinstyle": "miter"}
        self.ax.add_patch(Polygon(corners, closed=True, transform=turned, **{**options, **look}))

    def capacitor(self, top: Point, bottom: Point) -> None:
        """Two plates on the way down."""
        (x, y0), (_, y1) = top, bottom
        middle = (y0 + y1) / 2
        for end, plate in ((y0, middle + 0.55), (y1, middle - 0.55)):
            self.wire((x, end), (x, plate), lw=THIN)
            self.wire((x - 1.9, plate), (x + 1.9, plate), lw=1.3 * WIRE, solid_capstyle="butt")

    def ground(self, at: Point) -> None:
        """Three bars that grow shorter."""
        x, y = at
        for k, half in enumerate((1.7, 1.05, 0.4)):
            self.wire((x - half, y - 0.75 * k), (x + half, y - 0.75 * k), lw=THIN)

    def amplifier(
        self, left: Point, length: float, height: float, text: str = "", color: str = style.BLACK
    ) -> None:
        """A triangle that points to the right; to the left for a negative length."""
        x, y = left
        corners = [(x, y + height / 2), (x, y - height / 2), (x + length, y)]
        self.ax.add_patch(Polygon(corners, closed=True, fc="white", ec=color, lw=WIRE, joinstyle="round", zorder=3))
        if text:
            self.text((x + 0.36 * length, y - 0.05), text, color=color, ha="center")

    def box(self, corner: Point, width: float, height: float, text: str = "", **look: Any) -> None:
        """A rounded rectangle with a word in its middle."""
        options = {"fc": "white", "ec": style.BLACK, "lw": WIRE, "zorder": 3, "rounding": 1.0, **look}
        shape = f"round,pad=0,rounding_size={options.pop('rounding')}"
        self.ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, **options))
        if text:
            self.text((corner[0] + width / 2, corner[1] + height / 2), text, ha="center", fontsize="small")

    def node(self, at: Point, radius: float, text: str = "", **look: Any) -> None:
        """A circle with a symbol in it."""
        self.ax.add_patch(Circle(at, radius, **{"fc": "white", "ec": style.BLACK, "lw": WIRE, "zorder": 3, **look}))
        if text:
            self.text((at[0], at[1] - 0.05), text, ha="center")

    def text(self, at: Point, text: str, **look: Any) -> None:
        """Words or a formula, above all that is drawn."""
        self.ax.text(*at, text, **{"fontsize": FONT, "va": "center", "ha": "left", "zorder": 6, **look})

    def cells(self, rows: Sequence[float], column: float, reach: float = 3.6) -> None:
        """Conductances from each row to a column, drawn across the corner."""
        for y in rows:
            start, end = (column - reach, y), (column, y - reach)
            self.resistor(start, end, length=2.9, width=1.35)
            self.dot(start, size=0.45)
            self.dot(end, size=0.45)
