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
    figure, ax = canvas(6.6, 4.3, 5.1, 4.3)
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


def ddt() -> Figure:
    """DDT (Wei et al.; PSOL, section 3.2.1): one eigenvector of all cells above, the map and box of one image below."""
    figure, ax = canvas(6.0, 2.2, 5.4, 2.1)
    left, network, cells, found, last = 0.45, 1.5, 2.6, 3.8, 4.95
    top, bottom = 0.45, 1.65
    block(ax, left, top, "images of\na class")
    block(ax, left, bottom, "one\nimage")
    block(ax, network, (top + bottom) / 2, "backbone,\nas it came\nfrom\nImageNet", "network", height=1.8)
    block(ax, cells, top, "all their\ncells $x_{ij}$")
    block(ax, cells, bottom, "its cells\n$x_{ij}$")
    block(ax, found, top, "mean $\\bar x$, first\neigenvector $\\xi_1$", width=1.05)
    block(ax, found, bottom, "map $P_{ij} =$\n$\\xi_1^{\\top}(x_{ij} - \\bar x)$", width=1.05)
    block(ax, last, bottom, "box round\n$P > 0$", "prediction", width=0.75)
    for y in (top, bottom):
        arrow(ax, (left + 0.4, y), (network - 0.4, y))
        arrow(ax, (network + 0.4, y), (cells - 0.4, y))
        arrow(ax, (cells + 0.4, y), (found - 0.525, y))
    arrow(ax, (found, top + 0.3), (found, bottom - 0.3), 'one pass, no labels\nbut "these belong together"')
    arrow(ax, (found + 0.525, bottom), (last - 0.375, bottom))
    return figure


def psol() -> Figure:
    """PSOL (Zhang et al., Algorithm 1): a teacher, a student and a classifier; only the last two see test images."""
    figure, ax = canvas(6.0, 3.6, 5.4, 3.9)
    left, first, middle, last = 0.55, 1.9, 3.4, 4.75
    top, centre, bottom = 0.8, 2.05, 3.35
    block(ax, left, top, "training\nimages")
    block(ax, left, centre, "image")
    block(ax, left, bottom, "labels")
    block(ax, first, top, "teacher:\nDDT, CAM ...", "network", width=1.1)
    block(ax, middle, top, "pseudo boxes\n$\\tilde b$", "pseudo box", width=1.05)
    block(ax, last, top, "squared\nerror", "loss")
    block(ax, middle, centre, "student\n$f$", "network", width=1.05)
    block(ax, last, centre, "box", "prediction", height=0.5)
    block(ax, first, bottom, "cross\nentropy", "loss")
    block(ax, middle, bottom, "any\nclassifier", "network", width=1.05)
    block(ax, last, bottom, "class", height=0.5)
    arrow(ax, (left + 0.4, top), (first - 0.55, top))
    arrow(ax, (first + 0.55, top), (middle - 0.525, top))
    arrow(ax, (middle + 0.525, top), (last - 0.4, top), gradient=False)
    arrow(ax, (left + 0.4, centre), (middle - 0.525, centre))
    arrow(ax, (left + 0.4, centre + 0.2), (middle - 0.525, bottom - 0.15))
    arrow(ax, (left + 0.4, bottom), (first - 0.4, bottom))
    arrow(ax, (middle - 0.525, bottom), (first + 0.4, bottom))
    arrow(ax, (middle + 0.525, centre), (last - 0.4, centre))
    arrow(ax, (middle + 0.525, bottom), (last - 0.4, bottom))
    arrow(ax, (last, centre - 0.25), (last, top + 0.3), "in training")
    return figure


def protocol() -> Figure:
    """The protocol of Choe et al. (section 4): labels train, a few boxes choose tau, the test images are counted once."""
    figure, ax = canvas(6.6, 3.6, 5.6, 3.6)
    left, middle, right, last = 0.65, 2.15, 3.55, 4.95
    top, centre, bottom = 0.6, 1.8, 3.0
    block(ax, left, top, "train-weaksup\nimages, labels", width=1.1)
    block(ax, left, centre, "train-fullsup\na few boxes", "ground truth", width=1.1)
    block(ax, left, bottom, "test\nlooked at once", "ground truth", width=1.1)
    block(
        ax,
        middle,
        centre,
        "localizer:\n\nsame network,\nsame number\nof looks\nfor all",
        "network",
        width=1.0,
        height=3.0,
    )
    block(ax, right, top, "its own\nloss", "loss", width=0.9)
    block(ax, right, centre, "$\\tau$ at which most\nboxes are right", width=1.15)
    block(ax, right, bottom, "boxes\nat $\\tau$", "prediction", width=0.9)
    block(ax, last, bottom, "share with\nIoU $\\geq$ 0.5", width=0.95)
    for y, width in ((top, 0.9), (centre, 1.15), (bottom, 0.9)):
        arrow(ax, (left + 0.55, y), (middle - 0.5, y))
        arrow(ax, (middle + 0.5, y), (right - width / 2, y), "" if y == top else "maps")
    arrow(ax, (right, centre + 0.3), (right, bottom - 0.3), "stays as it is", gradient=False)
    arrow(ax, (right + 0.45, bottom), (last - 0.475, bottom))
    return figure


def lchp() -> Figure:
    """LCHP (Sun and Zhu, Figure 1): LCHP-I above, taught by a slow copy of the classifier; LCHP-R below, on its own."""
    figure, ax = canvas(6.0, 5.0, 5.2, 5.3)
    left, network, box, last = 0.55, 2.0, 3.4, 4.65
    top, middle, student = 0.75, 1.75, 2.55
    itself, moved = 3.85, 4.85
    for y, text in ((0.2, "LCHP-I, initialisation"), (3.3, "LCHP-R, refinement")):
        ax.text(0.05, y, text, ha="left", va="center", fontsize=10, fontweight="bold", color=INK)
    block(ax, left, top, "image, and $I_m$:\n$L_r$ covered", width=1.0)
    block(ax, left, (middle + student) / 2, "image\n$I_r$", width=0.7)
    block(ax, network, top, "classifier", "network", width=0.9, height=0.5)
    block(ax, network, middle, "generator,\nits slow copy", "network", width=0.95)
    block(ax, network, student, "regressor", "network", width=0.9, height=0.5)
    block(ax, box, top, "$L_{cls}$\nEq. 1", "loss", width=0.7)
    block(ax, box, middle, "box of two\nlooks", "pseudo box")
    block(ax, box, student, "its box", "prediction", height=0.45)
    block(ax, last, (middle + student) / 2, "$L_{reg}$\nEq. 2", "loss", width=0.7)
    arrow(ax, (left + 0.35, 2.1), (network - 0.475, middle))
    arrow(ax, (left + 0.35, 2.25), (network - 0.45, student))
    arrow(ax, (left + 0.5, top), (network - 0.45, top))
    arrow(ax, (network - 0.475, middle - 0.2), (left + 0.3, top + 0.3), gradient=False)
    arrow(ax, (network, top + 0.25), (network, middle - 0.3), "Eq. 7", gradient=False)
    arrow(ax, (network + 0.45, top), (box - 0.35, top))
    arrow(ax, (network + 0.475, middle), (box - 0.4, middle))
    arrow(ax, (network + 0.45, student), (box - 0.4, student))
    arrow(ax, (box + 0.4, middle), (last - 0.35, middle + 0.25), gradient=False)
    arrow(ax, (box + 0.4, student), (last - 0.35, student - 0.2))
    block(ax, left, itself, "image\n$I_r$", width=0.7, height=0.5)
    block(ax, left, moved, "moved\n$S(I_r)$", width=0.7, height=0.5)
    block(ax, network, (itself + moved) / 2, "the same\nregressor", "network", width=0.9, height=1.5)
    block(ax, box, itself, "its box,\nmoved: $S$", "pseudo box")
    block(ax, box, moved, "its box", "prediction", height=0.45)
    block(ax, last, 3.3, "classifier sure\nof its crop?", "network", width=1.0)
    block(ax, last, moved - 0.1, "$L_{refine}$\nEq. 6", "loss", width=0.7)
    arrow(ax, (left, itself + 0.25), (left, moved - 0.25), "$S$")
    for y in (itself, moved):
        arrow(ax, (left + 0.35, y), (network - 0.45, y))
        arrow(ax, (network + 0.45, y), (box - 0.4, y))
    arrow(ax, (box + 0.4, itself - 0.1), (last - 0.5, 3.4), gradient=False)
    arrow(ax, (box + 0.4, itself + 0.1), (last - 0.35, moved - 0.3), gradient=False)
    arrow(ax, (box + 0.4, moved), (last - 0.35, moved))
    arrow(ax, (last, 3.6), (last, moved - 0.4), "$> \\tau$", gradient=False)
    return figure
