"""Diagrams of the methods, drawn in the book's colours: one function a method.

Grey is a network, amber what a teacher says, vermilion what a student says, dashed a loss.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from wsol_lib.book.plots import COLOURS

FACES = {"data": "#FFFFFF", "network": "#E4E4E4", "loss": "#FFFFFF"}
INK = "#222222"


def canvas(width: float, height: float, columns: float, rows: float) -> tuple[Figure, Axes]:
    """An empty drawing of ``width`` x ``height`` inches, measured in columns from the left and rows from the top."""
    figure, ax = plt.subplots(figsize=(width, height))
    ax.set(xlim=(0, columns), ylim=(rows, 0))
    ax.set_axis_off()
    return figure, ax


def block(
    ax: Axes, x: float, y: float, text: str, kind: str = "data", *, width: float = 0.8, height: float = 0.6
) -> None:
    """A box with a text in it, its middle at (x, y).

    Args:
        kind: "data", "network" or "loss" (dashed), or a meaning out of ``plots.COLOURS``, which colours its edge
    """
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=FACES.get(kind, "#FFFFFF"),
            edgecolor=COLOURS.get(kind, INK),
            linewidth=2.5 if kind in COLOURS else 1.2,
            linestyle="--" if kind == "loss" else "-",
        )
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=9, color=INK, linespacing=1.25)


def arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", *, gradient: bool = True
) -> None:
    """An arrow, with a text beside its middle; dotted where no gradient flows back."""
    style = {"arrowstyle": "-|>", "color": INK, "lw": 1.2, "ls": "-" if gradient else ":", "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", xy=end, xytext=start, arrowprops=style)
    upright = abs(end[0] - start[0]) < abs(end[1] - start[1])
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    offset, how = ((5, 0), ("left", "center")) if upright else ((0, 3), ("center", "bottom"))
    ax.annotate(text, (x, y), xytext=offset, textcoords="offset points", ha=how[0], va=how[1], fontsize=8, color=INK)


def slt() -> Figure:
    """SLT-Net (Guo et al., Figure 2): the localizer and its twin view above, the regressor that it teaches below."""
    figure, ax = canvas(7.2, 4.3, 5.1, 4.3)
    twin, image, scores, student = 0.5, 1.6, 2.65, 3.75
    left, trunk, maps, average, boxes = 0.5, 1.5, 2.5, 3.55, 4.6
    for y, text in ((twin, "twin\n$g(I)$"), (image, "image\n$I$"), (student, "image\n$I$")):
        block(ax, left, y, text, width=0.7)
    block(ax, trunk, (twin + image) / 2, "localizer,\none network\nfor both", "network", height=1.7)
    block(ax, maps, twin, "maps, moved\nback by $g'$")
    block(ax, maps, image, "class maps\n$M_1 \\ldots M_C$")
    block(ax, average, image, "mean of the\ntop $K$, Eq. 9")
    block(ax, boxes, image, "its box\n(at $\\tau$)", "pseudo box", width=0.7)
    block(ax, average, twin, "$L_{VST}$\nEq. 13", "loss")
    block(ax, maps, scores, "$L_{SMT}$\nEq. 8", "loss")
    block(ax, left, scores, "label", width=0.7, height=0.45)
    block(ax, trunk, student, "regressor,\nanother network", "network", width=1.0)
    block(ax, average, student, "its box:\nthe answer", "prediction")
    block(ax, boxes, (scores + student) / 2, "$L_{REG}$\nEq. 3", "loss", width=0.7)
    for y in (twin, image):
        arrow(ax, (left + 0.35, y), (trunk - 0.4, y))
        arrow(ax, (trunk + 0.4, y), (maps - 0.4, y))
    arrow(ax, (left, image - 0.3), (left, twin + 0.3), "$g$")
    arrow(ax, (maps + 0.4, twin), (average - 0.4, twin))
    arrow(ax, (maps + 0.4, image - 0.25), (average - 0.38, twin + 0.3))
    arrow(ax, (maps + 0.4, image), (average - 0.4, image))
    arrow(ax, (average + 0.4, image), (boxes - 0.35, image))
    arrow(ax, (maps, image + 0.3), (maps, scores - 0.3), "scores")
    arrow(ax, (left + 0.35, scores), (maps - 0.4, scores))
    arrow(ax, (left + 0.35, student), (trunk - 0.5, student))
    arrow(ax, (trunk + 0.5, student), (average - 0.4, student))
    arrow(ax, (boxes, image + 0.3), (boxes, (scores + student) / 2 - 0.3), "no\ngradient", gradient=False)
    arrow(ax, (average + 0.4, student - 0.1), (boxes - 0.35, (scores + student) / 2 + 0.2))
    return figure
