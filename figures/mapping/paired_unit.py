"""Picture of the construction: one paired unit as a circuit, and a chain of layers of them."""

from __future__ import annotations

from itertools import pairwise

from matplotlib.figure import Figure

from .. import style
from ..requests import Drawn, Request
from .schematic import Sheet

PREDICTION, ERROR = style.series(0).color, style.series(1).color
"""Colours of what runs up the network and of what runs down."""
ROWS = (47.5, 41.5, 35.5, 29.5)
"""Heights of the input lines; the last one is the bias's."""
PLUS, MINUS = 20.5, 30.0
"""Places of the columns of a pair."""
HIGH, LOW = 46.0, 16.5
"""Heights of the nodes of h and of u."""
TAP = 84.0
"""Place at which h and u are compared."""
PLACES = (21.0, 45.5, 70.0)
"""Places of the layers of the chain."""


@style.drawing
def draw_paired_unit() -> Figure:
    """One unit's circuit above, a chain of layers below; one column wide."""
    figure, axes = style.new_figure(style.COLUMN, 99, 2, 1, height_ratios=[65, 31])
    _draw_unit(Sheet(axes[0, 0], 90, 65))
    _draw_chain(Sheet(axes[1, 0], 90, 31))
    return figure


def _draw_unit(board: Sheet) -> None:
    _draw_crossbar(board)
    _draw_sum(board)
    for y, node, unit in ((HIGH, "p", "h"), (LOW, "q", "u")):
        _draw_node(board, y, node, unit)
    _draw_difference(board)
    # From the layer above, into p alone.
    board.wire((62, 58.5), (62, HIGH + 0.6), color=ERROR, arrow=True)
    board.text((62, 61.2), "$W_{k+1}^{\\mathrm{T}}(h_{k+1} - u_{k+1})$", color=ERROR, ha="center")


def _draw_crossbar(board: Sheet) -> None:
    board.box((15, 23), 18.5, 28, fc="#f0f0f0", ec="none", zorder=0, rounding=1.5)
    for y in ROWS:
        board.wire((10, y), (MINUS, y), color=PREDICTION)
    for y in ROWS[:-1]:
        board.wire((4, y), (11, y), color=PREDICTION, arrow=True)
        # The same line, read.
        board.wire((11, y - 2.1), (4, y - 2.1), color=ERROR, arrow=True)
    board.wire((6.5, ROWS[-1]), (11, ROWS[-1]), color=PREDICTION, arrow=True)
    board.text((5, ROWS[-1]), "1", color=PREDICTION, ha="center")
    board.text((4, 51), "$h_{k-1}$", color=PREDICTION)
    board.text((1, 19.6), "$W_k^{\\mathrm{T}}(h_k - u_k)$", color=ERROR)
    board.text((1, 15.6), "to $p_{k-1}$", color=ERROR)
    for x, name in ((PLUS, "$G^{+}$"), (MINUS, "$G^{-}$")):
        board.wire((x, 52), (x, 24))
        board.cells(ROWS, x)
        board.text((x - 2.4, 49.6), name, ha="center", fontsize="small")


def _draw_sum(board: Sheet) -> None:
    """Currents of the column pair, subtracted at virtual grounds, mirrored."""
    board.wire((MINUS, 24), (MINUS, LOW + 2.6), (37, LOW + 2.6))
    board.wire((PLUS, 24), (PLUS, LOW - 2.6), (37, LOW - 2.6))
    board.amplifier((37, LOW), 9, 11)
    board.text((38.5, LOW + 2.5), "\N{MINUS SIGN}", ha="center", fontsize="small")
    board.text((38.5, LOW - 2.6), "+", ha="center", fontsize="small")
    board.text((29.5, 8.8), "virtual\ngrounds", ha="center", fontsize="small", color="#595959", linespacing=1.1)
    board.wire((46, LOW), (50, LOW))
    board.box((50, LOW - 4.25), 7, 8.5)
    board.text((53.4, LOW), "mirror", rotation=90, ha="center", fontsize="small")
    board.wire((53.5, LOW + 4.25), (53.5, HIGH), (61.4, HIGH), color=PREDICTION, arrow=True)
    board.wire((57, LOW), (61.4, LOW), color=PREDICTION, arrow=True)
    board.text((52, 25.6), "$W_k h_{k-1} + b_k$", color=PREDICTION, ha="right")


def _draw_node(board: Sheet, y: float, node: str, unit: str) -> None:
    """RC node and amplifier."""
    board.wire((62, y), (73, y))
    board.dot((62, y))
    board.text((63.2, y + 2.3), f"${node}_k$")
    bottom = y - 9.5
    for x, name in ((62, "$R$"), (67.5, "$C$")):
        board.text((x + 2.5, y - 2.6), name, fontsize="small", ha="center")
    board.resistor((62, y), (62, bottom), length=4.4, width=1.8)
    board.dot((67.5, y))
    board.capacitor((67.5, y), (67.5, bottom))
    for x in (62, 67.5):
        board.ground((x, bottom))
    board.amplifier((73, y), 8, 8.5, "$\\sigma_k$")
    end = 89.5 if unit == "h" else TAP
    board.wire((81, y), (end, y), color=PREDICTION, arrow=unit == "h")
    board.text((86.6, y + (2.5 if unit == "h" else 0)), f"${unit}_k$", color=PREDICTION, ha="center")


def _draw_difference(board: Sheet) -> None:
    """The error, buffered, to the far ends of the columns."""
    y, radius = (HIGH + LOW) / 2, 1.9
    board.dot((TAP, HIGH), PREDICTION)
    board.wire((TAP, HIGH), (TAP, y + radius), color=PREDICTION, arrow=True)
    board.wire((TAP, LOW), (TAP, y - radius), color=PREDICTION, arrow=True)
    board.node((TAP, y), radius, ec=ERROR)
    board.text((TAP + 2.0, y + 3.5), "+", ha="center", fontsize="small")
    board.text((TAP + 2.0, y - 3.5), "\N{MINUS SIGN}", ha="center", fontsize="small")
    board.wire((TAP - radius, y), (78.5, y), color=ERROR)
    board.amplifier((78.5, y), -5, 5, color=ERROR)
    board.hop((73.5, y), (41.5, y), over=53.5, color=ERROR)
    board.wire((41.5, y), (41.5, 57), (PLUS, 57), (PLUS, 52), color=ERROR, arrow=True)
    board.dot((MINUS, 57), ERROR)
    board.wire((MINUS, 57), (MINUS, 52), color=ERROR, arrow=True)
    board.text((PLUS + 1.2, 54.6), "+", color=ERROR, fontsize="small")
    board.text((MINUS + 1.2, 54.7), "\N{MINUS SIGN}", color=ERROR, fontsize="small")
    board.text((62, y - 2.8), "$h_k - u_k$", color=ERROR, ha="center")


def _draw_chain(board: Sheet) -> None:
    """Three layers and the nudge."""
    high, low, radius = 20.0, 9.0, 2.9
    board.wire((5.5, high), (PLACES[0] - radius, high), color=PREDICTION, arrow=True)
    board.text((3.4, high), "$x$", color=PREDICTION, ha="center")
    for k, x in enumerate(PLACES, 1):
        board.box((x - 5, low - 4.4), 10, high - low + 8.8, fc="#f0f0f0", ec="none", zorder=0, rounding=1.5)
        board.node((x, high), radius, f"$h_{k}$")
        board.node((x, low), radius, f"$u_{k}$")
        fork = x - 8.5
        board.dot((fork, high), PREDICTION)
        board.wire((fork, high), (fork, low), (x - radius, low), color=PREDICTION, arrow=True)
        board.text((fork - 1.2, (high + low) / 2), f"$W_{k}$", color=PREDICTION, ha="right", fontsize="small")
    for k, (below, above) in enumerate(pairwise(PLACES), 2):
        board.wire((below + radius, high), (above - radius, high), color=PREDICTION, arrow=True)
        path = ((above - 1.4, high + 4.4), (above - 1.4, 27.2), (below + 1.4, 27.2), (below + 1.4, high + 2.6))
        board.wire(*path, color=ERROR, arrow=True)
        text = f"$W_{k}^{{\\mathrm{{T}}}}(h_{k} - u_{k})$"
        board.text(((below + above) / 2, 29.4), text, color=ERROR, ha="center", fontsize="small")
    last = PLACES[-1]
    board.wire((last + 15, high), (last + radius, high), color=ERROR, arrow=True)
    board.text(
        (last + 12.6, high - 3.2), "$-\\beta\\,\\partial C/\\partial h_3$", color=ERROR, ha="center", fontsize=6
    )
    board.wire((10, 1.6), (16, 1.6), color=PREDICTION, arrow=True)
    board.text((17, 1.6), "predictions run up", color=PREDICTION)
    board.wire((60, 1.6), (54, 1.6), color=ERROR, arrow=True)
    board.text((61, 1.6), "errors run down", color=ERROR)


def make_paired_unit(request: Request) -> Drawn:
    """Figure 'paired_unit' of the catalogue."""
    # A drawing, of no network in particular.
    with request.progress.task("figure: paired unit", 1) as advance:
        figure = draw_paired_unit()
        advance(1)
    return Drawn(figure, {})
