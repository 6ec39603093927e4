"""How time and memory grow with the number of images: the figure of what ``benchmarks/growth.py`` records."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wsol_lib.book.plots import COLOURS

#: Command, as the record names it -> its line.
LINES = {
    "experiment": {"color": "#AA4499", "marker": "D"},
    "train": {"color": "#0072B2", "marker": "o"},
    "train ddt": {"color": "#56B4E9", "marker": "s"},
    "predict": {"color": COLOURS["prediction"], "marker": "^"},
    "evaluate boxes": {"color": "#222222", "marker": "v"},
    "evaluate maps": {"color": "#222222", "marker": "x", "ls": "--"},
}
LEAST = 1.0  # MiB: less is drawn as this


def measured(kept: Mapping[str, Mapping]) -> dict[str, np.ndarray]:
    """Command -> a row for each number of images, upwards: the number, the processor's seconds, MiB; float64 (k, 3).

    Args:
        kept: as :func:`wsol_lib.book.results.load` gives it; of one number alone nothing is shown
    """
    found = {}
    for name in LINES:
        own = [(one["n"], one["value"], one["mib"]) for key, one in kept.items() if key.partition("/")[0] == name]
        if len(own) > 1:
            found[name] = np.array(sorted(own), np.float64)
    return found


def rates(kept: Mapping[str, Mapping]) -> pd.DataFrame:
    """A row a command, between its two largest numbers of images.

    ``exponent`` is the slope of seconds over images in logarithms, 1 where time is linear; ``ms`` and ``kb`` are milliseconds
    and thousands of bytes that one more image takes.
    """
    lines = {}
    for name, rows in measured(kept).items():
        images, seconds, mib = np.diff(rows[-2:], axis=0)[0]
        exponent = np.diff(np.log(rows[-2:, :2]), axis=0)[0]
        lines[name] = {
            "exponent": exponent[1] / exponent[0],
            "ms": 1000 * seconds / images,
            "kb": mib * 2**20 / 1000 / images,
        }
    return pd.DataFrame(lines).T


def draw(kept: Mapping[str, Mapping]) -> Figure:
    """Seconds, and memory, over the number of images: a line a command, and a thin one of slope 1."""
    figure, panels = plt.subplots(1, 2, figsize=(7.6, 4.2))
    found, one_more = measured(kept), rates(kept)
    ends = [min(rows[0, 0] for rows in found.values()), max(rows[-1, 0] for rows in found.values())]
    for ax, column, start, what in zip(panels, (1, 2), (0.5, 2), ("processor's seconds", "memory, MiB")):
        for name, rows in found.items():
            label = f"{name}: {one_more.ms[name]:.1f} ms, {one_more.kb[name]:.1f} KB"
            ax.plot(
                rows[:, 0], np.maximum(rows[:, column], LEAST if column == 2 else 0), label=label, ms=5, **LINES[name]
            )
        grown = [start, start * ends[1] / ends[0]]
        ax.plot(ends, grown, color=COLOURS["baseline"], lw=0.7, zorder=0, label="slope 1")
        ax.set(xscale="log", yscale="log", xlabel="images", ylabel=what)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
